//! The ONNX Runtime library: where it is found, and the process's one environment.
//!
//! The search order is: `ORT_DYLIB_PATH`; `.aegis/runtimes/` in the working directory or one of
//! its parents, where `cargo xtask runtimes` puts the pinned version; the system's loader path.
//!
//! For a GPU it is the library with the CUDA provider beside it, which `cargo xtask runtimes --cuda`
//! puts in a folder of its own. A process has one library: who asks first decides which.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aegis_context::BackendError;

use crate::ffi;

/// The version of ONNX Runtime this crate was tested with.
pub const TESTED_VERSION: &str = "1.31.1";

/// The variable that names the library.
pub const PATH_VARIABLE: &str = "ORT_DYLIB_PATH";

/// Where `cargo xtask runtimes` puts the library, relative to the project.
const PROJECT_FOLDER: &str = ".aegis/runtimes";

/// The name of the library for this platform.
const FILE_NAME: &str = "libonnxruntime.so";

/// The loaded library with its environment.
///
/// ONNX Runtime allows one environment in a process, so this is the one global of the project:
/// made on first use, never torn down, and stateless but for the allocator registered on it.
#[derive(Debug)]
pub struct Library {
    environment: ffi::Environment,
}

impl Library {
    /// The library, loaded on the first call. A failure is remembered: the process must be started
    /// again once the cause is removed.
    ///
    /// # Errors
    /// [`BackendError::Library`], Permanent, with the places that were searched and what to run.
    pub fn get() -> Result<&'static Self, BackendError> {
        Self::get_for(Use::Processor)
    }

    /// The library that has the CUDA provider, unless another one was loaded before. Sets what cuBLAS
    /// takes as its workspaces (`CUBLAS_WORKSPACE_CONFIG`, `CUBLASLT_WORKSPACE_SIZE`) where the user
    /// has not; call it before other threads read the environment by the C library.
    ///
    /// # Errors
    /// As [`Library::get`].
    pub fn for_gpu() -> Result<&'static Self, BackendError> {
        Self::get_for(Use::Gpu)
    }

    fn get_for(wanted: Use) -> Result<&'static Self, BackendError> {
        static LIBRARY: OnceLock<Result<Library, (String, String)>> = OnceLock::new();
        let loaded = LIBRARY.get_or_init(|| {
            let named = env::var_os(PATH_VARIABLE).map(PathBuf::from);
            let found = find(named, env::current_dir().ok(), wanted);
            Self::load(&found, wanted)
        });
        loaded.as_ref().map_err(|(reason, remedy)| BackendError::Library {
            runtime: "ONNX Runtime",
            reason: reason.clone(),
            remedy: remedy.clone(),
        })
    }

    /// Where it was loaded from, as the system's loader says.
    #[must_use]
    pub fn origin(&self) -> &Path {
        self.environment.origin()
    }

    /// The library's own version.
    #[must_use]
    pub fn version(&self) -> &str {
        self.environment.version()
    }

    /// `ort`'s environment, for a session built beside ours: a process may have but one. Its
    /// allocator is ours; a session that does not ask for the environment's keeps its own.
    #[must_use]
    pub fn ort(&self) -> &ort::environment::Environment {
        self.environment.get()
    }

    pub(crate) fn environment(&self) -> &ffi::Environment {
        &self.environment
    }

    fn load(found: &Path, wanted: Use) -> Result<Self, (String, String)> {
        let environment = ffi::Environment::load(found, wanted == Use::Gpu).map_err(|reason| {
            let remedy = format!(
                "run `{}`, or set {PATH_VARIABLE} to the {FILE_NAME} of ONNX Runtime {TESTED_VERSION}",
                wanted.command()
            );
            (format!("{}: {reason}", found.display()), remedy)
        })?;
        Ok(Self { environment })
    }
}

/// What the library is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Processor,
    Gpu,
}

impl Use {
    /// The project's folders with a library that serves it, the first preferred.
    fn folder(self) -> String {
        match self {
            Self::Processor => format!("onnxruntime-{TESTED_VERSION}"),
            Self::Gpu => format!("onnxruntime-gpu-{TESTED_VERSION}"),
        }
    }

    /// What puts the library there.
    fn command(self) -> &'static str {
        match self {
            Self::Processor => "cargo xtask runtimes",
            Self::Gpu => "cargo xtask runtimes --cuda",
        }
    }
}

/// The error of a library whose CUDA provider is not usable, with the loader's own words.
pub(crate) fn no_provider(reason: String) -> BackendError {
    let remedy = format!(
        "the CUDA provider needs the GPU build of ONNX Runtime {TESTED_VERSION} with CUDA 13 and cuDNN 9 \
         where the loader finds them: run `{}`, or set {PATH_VARIABLE} and LD_LIBRARY_PATH",
        Use::Gpu.command()
    );
    BackendError::Library { runtime: "ONNX Runtime", reason, remedy }
}

/// The first place that has the library; the bare name, for the system's loader, as the last.
fn find(variable: Option<PathBuf>, directory: Option<PathBuf>, wanted: Use) -> PathBuf {
    if let Some(path) = variable.filter(|path| !path.as_os_str().is_empty()) {
        return path;
    }
    let folder = wanted.folder();
    let in_project = |parent: &Path| parent.join(PROJECT_FOLDER).join(&folder).join(FILE_NAME);
    directory
        .iter()
        .flat_map(|directory| directory.ancestors())
        .map(in_project)
        .find(|path| path.is_file())
        .unwrap_or_else(|| FILE_NAME.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_project() {
        assert_eq!(find(Some("/opt/ort.so".into()), None, Use::Gpu), Path::new("/opt/ort.so"));
        assert_eq!(find(Some("".into()), None, Use::Processor), Path::new(FILE_NAME));
    }

    #[test]
    fn the_project_folder_is_found_from_below() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let home = root.path().join(PROJECT_FOLDER).join(format!("onnxruntime-{TESTED_VERSION}"));
        let below = root.path().join("a/b");
        std::fs::create_dir_all(&home).expect("a folder");
        std::fs::create_dir_all(&below).expect("a folder");
        assert_eq!(find(None, Some(below.clone()), Use::Processor), Path::new(FILE_NAME));
        std::fs::write(home.join(FILE_NAME), b"").expect("a file");
        assert_eq!(find(None, Some(below.clone()), Use::Processor), home.join(FILE_NAME));
        assert_eq!(find(None, Some(below), Use::Gpu), Path::new(FILE_NAME), "that one has no GPU");
    }
}

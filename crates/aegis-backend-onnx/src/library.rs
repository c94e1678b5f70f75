//! The ONNX Runtime library: where it is found, and the process's one environment.
//!
//! The search order is: `ORT_DYLIB_PATH`; `.aegis/runtimes/` in the working directory or one of
//! its parents, where `cargo xtask runtimes` puts the pinned version; the system's loader path.

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
        static LIBRARY: OnceLock<Result<Library, (String, String)>> = OnceLock::new();
        let loaded = LIBRARY.get_or_init(|| {
            let found =
                find(env::var_os(PATH_VARIABLE).map(PathBuf::from), env::current_dir().ok());
            Self::load(&found)
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

    fn load(found: &Path) -> Result<Self, (String, String)> {
        let environment = ffi::Environment::load(found).map_err(|reason| {
            let remedy = format!(
                "run `cargo xtask runtimes`, or set {PATH_VARIABLE} to the {FILE_NAME} of ONNX \
                 Runtime {TESTED_VERSION}"
            );
            (format!("{}: {reason}", found.display()), remedy)
        })?;
        Ok(Self { environment })
    }
}

/// The first place that has the library; the bare name, for the system's loader, as the last.
fn find(variable: Option<PathBuf>, directory: Option<PathBuf>) -> PathBuf {
    if let Some(path) = variable.filter(|path| !path.as_os_str().is_empty()) {
        return path;
    }
    let folder = format!("onnxruntime-{TESTED_VERSION}");
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
        assert_eq!(find(Some("/opt/ort.so".into()), None), Path::new("/opt/ort.so"));
        assert_eq!(find(Some("".into()), None), Path::new(FILE_NAME));
    }

    #[test]
    fn the_project_folder_is_found_from_below() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let home = root.path().join(PROJECT_FOLDER).join(format!("onnxruntime-{TESTED_VERSION}"));
        let below = root.path().join("a/b");
        std::fs::create_dir_all(&home).expect("a folder");
        std::fs::create_dir_all(&below).expect("a folder");
        assert_eq!(find(None, Some(below.clone())), Path::new(FILE_NAME));
        std::fs::write(home.join(FILE_NAME), b"").expect("a file");
        assert_eq!(find(None, Some(below)), home.join(FILE_NAME));
    }
}

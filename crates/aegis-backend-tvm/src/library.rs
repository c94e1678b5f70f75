//! The libraries of TVM: where they are found, and the process's one set of them.
//!
//! The search order is: the folders of `TVM_LIBRARY_PATH`, TVM's own variable; `.aegis/runtimes/` in the
//! working directory or one of its parents, where `cargo xtask runtimes --tvm` puts the pinned release;
//! the system's loader path. What a GPU needs besides (`libcudart`, `libnvrtc`) is left to the loader,
//! unless `cargo xtask runtimes --cuda` has put it under `.aegis/runtimes/`.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aegis_context::BackendError;

use crate::ffi::{Kernels, Runtime};

/// The release of TVM this crate was tested with.
pub const TESTED_VERSION: &str = "0.27.0";

/// The variable that names the folders of the libraries.
pub const PATH_VARIABLE: &str = "TVM_LIBRARY_PATH";

/// The variable that names the folder of compiled GPU kernels; empty for none.
pub const CACHE_VARIABLE: &str = "AEGIS_KERNEL_CACHE";

/// Where `cargo xtask runtimes` puts things, relative to the project.
const PROJECT_FOLDER: &str = ".aegis/runtimes";

/// The loaded libraries. What is registered with them is the process's, so this is a global: made on
/// first use, never torn down, and stateless but for what it replaced.
#[derive(Debug)]
pub struct Library {
    runtime: Runtime,
    gpu: OnceLock<Result<(), String>>,
}

impl Library {
    /// The libraries, loaded on the first call. A failure is remembered: the process must be started
    /// again once the cause is removed.
    ///
    /// # Errors
    /// [`BackendError::Library`], Permanent, with what the loader said and what to run.
    pub fn get() -> Result<&'static Self, BackendError> {
        static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
        let places = Places::of_this_process;
        let loaded = LIBRARY.get_or_init(|| {
            let places = places();
            let runtime = Runtime::load(|name| places.locate(name))?;
            Ok(Library { runtime, gpu: OnceLock::new() })
        });
        let remedy = "run `cargo xtask runtimes --tvm`, or name the folders of libtvm_ffi.so and \
                      libtvm_runtime.so in TVM_LIBRARY_PATH";
        loaded.as_ref().map_err(|reason| unusable(reason, remedy))
    }

    /// The libraries with what serves a GPU.
    ///
    /// # Errors
    /// As [`Library::get`].
    pub fn for_gpu() -> Result<&'static Self, BackendError> {
        let library = Self::get()?;
        let loaded = library.gpu.get_or_init(|| {
            let places = Places::of_this_process();
            Runtime::load_gpu(|name| places.locate(name), kernels())
        });
        let remedy = "TVM on a GPU needs the CUDA 13 runtime and NVRTC where the loader finds them: run \
                      `cargo xtask runtimes --tvm` and `--cuda`, or set LD_LIBRARY_PATH";
        loaded.as_ref().map_err(|reason| unusable(reason, remedy))?;
        Ok(library)
    }

    /// Where the interface was loaded from, as the system's loader says.
    #[must_use]
    pub fn origin(&self) -> &Path {
        self.runtime.file()
    }

    /// The version of the interface, as it names itself. TVM's runtime itself names none.
    #[must_use]
    pub fn interface(&self) -> &str {
        self.runtime.interface()
    }
}

fn unusable(reason: &str, remedy: &str) -> BackendError {
    let (reason, remedy) = (reason.to_owned(), remedy.to_owned());
    BackendError::Library { runtime: "TVM", reason, remedy }
}

/// Where compiled kernels are kept, and where CUDA's headers may be.
fn kernels() -> Kernels {
    let folder =
        |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = match env::var_os(CACHE_VARIABLE) {
        Some(named) if named.is_empty() => None,
        Some(named) => Some(named.into()),
        None => folder("XDG_CACHE_HOME")
            .or_else(|| Some(folder("HOME")?.join(".cache")))
            .map(|cache| cache.join("aegisrt/kernels")),
    };
    let toolkit = folder("CUDA_HOME").unwrap_or_else(|| "/usr/local/cuda".into());
    let include = [toolkit.join("include"), toolkit.join("include/cccl")];
    Kernels { cache, include: include.into_iter().filter(|folder| folder.is_dir()).collect() }
}

/// The folders that are looked into.
struct Places {
    named: Vec<PathBuf>,
    project: Option<PathBuf>,
}

impl Places {
    fn of_this_process() -> Self {
        let named = env::var_os(PATH_VARIABLE).unwrap_or_default();
        let named = env::split_paths(&named).filter(|folder| !folder.as_os_str().is_empty());
        Self { named: named.collect(), project: env::current_dir().ok() }
    }

    /// The path of the library `name`, or the name itself for the loader to search.
    fn locate(&self, name: &str) -> PathBuf {
        let in_project = |folder: &Path| {
            let of_tvm = folder.join(format!("tvm-{TESTED_VERSION}"));
            let packages = ["nvidia-cuda-runtime-13.0.96", "nvidia-cuda-nvrtc-13.0.88"];
            [of_tvm].into_iter().chain(packages.map(|package| folder.join(package)))
        };
        let above = self.project.iter().flat_map(|directory| directory.ancestors());
        let above = above.flat_map(|folder| in_project(&folder.join(PROJECT_FOLDER)));
        let candidates = self.named.iter().cloned().chain(above);
        candidates
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
            .unwrap_or_else(|| name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_folder_wins_over_the_project_and_the_project_over_the_system() {
        let root = tempfile::tempdir().expect("a folder");
        let name = "libtvm_ffi.so";
        let home = root.path().join(PROJECT_FOLDER).join(format!("tvm-{TESTED_VERSION}"));
        let own = root.path().join("own");
        for folder in [&home, &own] {
            std::fs::create_dir_all(folder).expect("a folder");
            std::fs::write(folder.join(name), b"").expect("a file");
        }
        let below = Some(root.path().join("own"));
        let all = Places { named: vec![own.clone()], project: below.clone() };
        assert_eq!(all.locate(name), own.join(name));
        let project = Places { named: vec![], project: below };
        assert_eq!(project.locate(name), home.join(name));
        assert_eq!(project.locate("libother.so"), Path::new("libother.so"));
        assert_eq!(Places { named: vec![], project: None }.locate(name), Path::new(name));
    }
}

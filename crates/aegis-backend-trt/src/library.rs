//! The TensorRT library: where it is found, and the process's one log of it.
//!
//! The search order is: the folder that `AEGIS_TENSORRT` names; `.aegis/runtimes/` in the working
//! directory or one of its parents, where `cargo xtask runtimes --trt` puts the pinned version; the
//! system's loader path. The library that reads ONNX files is looked for beside it, and only when an
//! engine is built.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aegis_context::BackendError;

use crate::ffi::{self, Version};

/// The runtime that this build is for.
pub const RUNTIME: &str = if cfg!(feature = "enterprise") { "TensorRT" } else { "TensorRT-RTX" };

/// The variable that names the folder of the libraries.
pub const FOLDER_VARIABLE: &str = "AEGIS_TENSORRT";

/// Where `cargo xtask runtimes --trt` puts them, relative to the project.
const PROJECT_FOLDER: &str = ".aegis/runtimes/tensorrt-rtx-1.7.1";

/// What executes and builds, as files are called: the exact release first.
const CORE: [&str; 2] = if cfg!(feature = "enterprise") {
    ["libnvinfer.so.11", "libnvinfer.so"]
} else {
    ["libtensorrt_rtx.so.1.7.1", "libtensorrt_rtx.so.1"]
};

/// What reads ONNX files, likewise.
const PARSER: [&str; 2] = if cfg!(feature = "enterprise") {
    ["libnvonnxparser.so.11", "libnvonnxparser.so"]
} else {
    ["libtensorrt_onnxparser_rtx.so.1.7.1", "libtensorrt_onnxparser_rtx.so.1"]
};

/// The loaded library.
///
/// It is never unloaded, and its log lives as long as the process: engines refer to both.
#[derive(Debug)]
pub struct Library {
    version: Version,
    folder: Option<PathBuf>,
}

/// Why a library is not usable, and what to do.
type Failure = (String, String);

impl Library {
    /// The library, loaded on the first call. A failure is remembered: the process must be started
    /// again once the cause is removed.
    ///
    /// # Errors
    /// [`BackendError::Library`], Permanent, with what the loader said and what to run.
    pub fn get() -> Result<&'static Self, BackendError> {
        static LIBRARY: OnceLock<Result<Library, Failure>> = OnceLock::new();
        LIBRARY.get_or_init(Self::load).as_ref().map_err(unusable)
    }

    /// Name and version, as in `TensorRT-RTX 1.7.1.116`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{RUNTIME} {}", self.version)
    }

    /// Loads what reads ONNX files.
    ///
    /// # Errors
    /// As [`Library::get`].
    pub(crate) fn load_parser(&self) -> Result<(), BackendError> {
        static PARSER_LOADED: OnceLock<Result<(), Failure>> = OnceLock::new();
        let load = || {
            let file = file_in(self.folder.as_deref(), &PARSER);
            ffi::load_parser(&file).map_err(|reason| failure(&file, &reason))
        };
        PARSER_LOADED.get_or_init(load).as_ref().map(drop).map_err(unusable)
    }

    fn load() -> Result<Self, Failure> {
        let named = env::var_os(FOLDER_VARIABLE).map(PathBuf::from);
        let folder = folder(named, env::current_dir().ok());
        let file = file_in(folder.as_deref(), &CORE);
        let version = ffi::load_library(&file).map_err(|reason| failure(&file, &reason))?;
        Ok(Self { version, folder })
    }
}

fn failure(file: &Path, reason: &str) -> Failure {
    let file = file.display();
    let reason = if reason.contains(&file.to_string()) {
        reason.to_owned()
    } else {
        format!("{file}: {reason}")
    };
    let release = if cfg!(feature = "enterprise") { "11.4" } else { "1.7.1" };
    let remedy = if cfg!(feature = "enterprise") {
        format!(
            "install {RUNTIME} {release}, or set {FOLDER_VARIABLE} to the folder of its libraries"
        )
    } else {
        format!(
            "run `cargo xtask runtimes --trt`, or set {FOLDER_VARIABLE} to the folder of the libraries \
             of {RUNTIME} {release}"
        )
    };
    (reason, remedy)
}

fn unusable((reason, remedy): &Failure) -> BackendError {
    BackendError::Library { runtime: RUNTIME, reason: reason.clone(), remedy: remedy.clone() }
}

/// The folder to look in; none for the loader's own way.
fn folder(variable: Option<PathBuf>, directory: Option<PathBuf>) -> Option<PathBuf> {
    if let Some(path) = variable.filter(|path| !path.as_os_str().is_empty()) {
        return Some(path);
    }
    let mut parents = directory.iter().flat_map(|directory| directory.ancestors());
    let found = parents.find_map(|parent| {
        let folder = parent.join(PROJECT_FOLDER);
        folder.is_dir().then_some(folder)
    });
    found.filter(|_| cfg!(not(feature = "enterprise")))
}

/// The first of `names` that is in `folder`, or the first name of all.
fn file_in(folder: Option<&Path>, names: &[&str; 2]) -> PathBuf {
    match folder {
        Some(folder) => {
            let mut files = names.iter().map(|name| folder.join(name));
            files.find(|file| file.is_file()).unwrap_or_else(|| folder.join(names[0]))
        }
        // By its lasting name: what the system has installed is looked for by the loader.
        None => PathBuf::from(names[1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_project() {
        let named = PathBuf::from("/opt/trt");
        assert_eq!(folder(Some(named.clone()), None), Some(named));
        assert_eq!(folder(Some(PathBuf::new()), None), None);
    }

    #[test]
    #[cfg(not(feature = "enterprise"))]
    fn the_project_folder_is_found_from_below() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (home, below) = (root.path().join(PROJECT_FOLDER), root.path().join("a/b"));
        std::fs::create_dir_all(&below).expect("a folder");
        assert_eq!(folder(None, Some(below.clone())), None);
        std::fs::create_dir_all(&home).expect("a folder");
        assert_eq!(folder(None, Some(below)), Some(home));
    }

    #[test]
    fn the_exact_release_is_preferred_and_the_loader_is_asked_for_the_lasting_name() {
        let root = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(root.path().join(CORE[1]), b"").expect("a file");
        assert_eq!(file_in(Some(root.path()), &CORE), root.path().join(CORE[1]));
        std::fs::write(root.path().join(CORE[0]), b"").expect("a file");
        assert_eq!(file_in(Some(root.path()), &CORE), root.path().join(CORE[0]));
        assert_eq!(file_in(None, &CORE), Path::new(CORE[1]));
    }
}

//! CUDA's runtime library, on which backends stand: its version, and the last error that it keeps.
//!
//! # What it remembers
//! The code of the last call that failed stays with the thread that made it until somebody asks. ONNX
//! Runtime asks behind every operator and takes what it finds for that operator's failure. So a call
//! that a capture forbids, made by one model whose work is thrown away, would fail the next model that
//! the same thread runs: whoever ends a broken capture has to ask, too.

use std::ffi::c_int;

use libloading::os::unix;

/// The names of the library, the newest first. Each release has its own.
const NAMES: [&str; 4] =
    ["libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so"];

/// The version of the CUDA runtime library that the system's loader finds, as `major.minor`; `None`
/// where it finds none. A runtime that brings its own may use another.
///
/// Loads the library into the process, where it stays and can be the one that others get by that name:
/// for a program that shows what is there, not for one that runs models.
#[must_use]
pub fn cuda_runtime_version() -> Option<String> {
    NAMES.into_iter().find_map(version_of)
}

/// Forgets what the last failed call of a runtime library left with the calling thread. Loads no
/// library: where the process has none, there is nothing to forget.
pub(super) fn forget_last_error() {
    NAMES.into_iter().for_each(forget_last_error_of);
}

fn forget_last_error_of(name: &str) {
    let flags = unix::RTLD_NOW | libc::RTLD_NOLOAD;
    // SAFETY: (1) With this flag nothing is loaded, and so no initialiser runs.
    let Ok(library) = (unsafe { unix::Library::open(Some(name), flags) }) else { return };
    // SAFETY: (1) The symbol, if it is there, is a function of the type that the manual gives it.
    let call = unsafe { library.get::<unsafe extern "C" fn() -> c_int>(b"cudaGetLastError\0") };
    if let Ok(call) = call {
        // SAFETY: (1) The call takes nothing. (2) The library is loaded as long as `library` lives.
        let _forgotten = unsafe { call() };
    }
}

fn version_of(name: &str) -> Option<String> {
    // SAFETY: (1) Loading runs the initialisers of NVIDIA's library of that name.
    let library = unsafe { libloading::Library::new(name) }.ok()?;
    // SAFETY: (1) The symbol, if it is there, is a function of the type that the manual gives it.
    let call = unsafe {
        library.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cudaRuntimeGetVersion\0")
    };
    let call = *call.ok()?;
    let mut version: c_int = 0;
    // SAFETY: (1) The pointer is valid for the one write. (2) The call needs no GPU.
    let code = unsafe { call(&raw mut version) };
    std::mem::forget(library); // It may have started threads or registered handlers by now.
    (code == 0).then(|| as_text(version))
}

/// The library's number, `1000 * major + 10 * minor`, as people write it.
pub(super) fn as_text(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_written_as_people_do() {
        assert_eq!(as_text(13_000), "13.0");
        assert_eq!(as_text(12_090), "12.9");
        assert_eq!(as_text(11_080), "11.8");
    }

    #[test]
    fn forgetting_loads_nothing() {
        let is_loaded = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
            maps.contains("libcudart")
        };
        let before = is_loaded();
        forget_last_error();
        forget_last_error_of("libc.so.6"); // A library that is there, and has no such function.
        assert_eq!(is_loaded(), before);
    }

    #[test]
    fn a_library_that_is_not_there_has_no_version() {
        assert_eq!(version_of("libcudart.so.of-no-release"), None);
        assert_eq!(version_of("libc.so.6"), None, "a library of something else");
    }
}

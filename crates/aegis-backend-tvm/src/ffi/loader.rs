//! Opening the libraries: each for ever, its symbols visible to what is opened after it.
//!
//! A module that TVM compiled names no library that it needs, and the parts of TVM look for one
//! another among what the process has loaded, so all are opened with `RTLD_GLOBAL`.

use std::ffi::{CStr, CString, OsStr, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{self, Path, PathBuf};
use std::ptr::NonNull;

/// An opened library; never closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened(NonNull<c_void>);

// SAFETY: The loader's handle has no thread affinity, and is never closed.
unsafe impl Send for Opened {}
// SAFETY: As for Send; the loader locks itself.
unsafe impl Sync for Opened {}

impl Opened {
    /// Opens the library at `path`, or of that name where the loader searches.
    ///
    /// # Errors
    /// What the loader says.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: The name is terminated. The library's initialisers run, as they do for every library
        // that is loaded; the caller names one that is trusted to be a part of TVM or CUDA.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        NonNull::new(library).map(Self).ok_or_else(loader_error)
    }

    /// The address of a symbol.
    ///
    /// # Errors
    /// The library has none of that name.
    pub(super) fn symbol(self, name: &CStr) -> Result<NonNull<c_void>, String> {
        // SAFETY: The handle is valid for ever and the name is terminated.
        let symbol = unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) };
        let missing = || format!("it has no {}", name.to_string_lossy());
        NonNull::new(symbol).ok_or_else(missing)
    }
}

/// The file that the library of `symbol` was loaded from.
pub(super) fn file_of(symbol: NonNull<c_void>) -> Result<PathBuf, String> {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `found` is a valid place for the result; the address is only looked up.
    let known = unsafe { libc::dladdr(symbol.as_ptr(), found.as_mut_ptr()) } != 0;
    // SAFETY: All of it is initialised: it was zeroed, and null is valid for every field.
    let file = unsafe { found.assume_init() }.dli_fname;
    if !known || file.is_null() {
        return Err("the loader does not say where it is".into());
    }
    // SAFETY: The name is a terminated string of the loader, valid while the library is loaded.
    let file = unsafe { CStr::from_ptr(file) };
    path::absolute(OsStr::from_bytes(file.to_bytes())).map_err(|error| error.to_string())
}

/// What the loader says about its last failure on this thread.
fn loader_error() -> String {
    // SAFETY: The function takes nothing.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader does not say why".into();
    }
    // SAFETY: Not null, it is a terminated string that is valid until this thread's next call to the
    // loader, and is copied before.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

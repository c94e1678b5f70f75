//! Opening the library, before `ort` does.
//!
//! `ort` opens it too, but loses the loader's words when that fails, looks for a relative path beside
//! the program first, and panics when the library lacks its version of the API. So the library is
//! opened and questioned here, and `ort` is given the file that was found; to the loader it is then
//! the same library.

use std::ffi::{CStr, CString, OsStr, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{self, Path, PathBuf};

use ort::sys;

/// A library that is loaded, for ever, and has the version of the API that `ort` needs.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Where it was loaded from: an absolute path.
    pub(super) file: PathBuf,
    /// The version it names itself.
    pub(super) version: String,
}

type GetApiBase = unsafe extern "system" fn() -> *const sys::OrtApiBase;

/// Loads the library at `path`, or of that name where the loader searches.
pub(super) fn open(path: &Path) -> Result<Loaded, String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: The name is terminated. The library's initialisers run, as they do for every library
    // that is loaded; the caller names one that is trusted to be ONNX Runtime. It is never closed.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return Err(loader_error());
    }
    // SAFETY: The handle is valid and the symbol's name is terminated.
    let symbol = unsafe { libc::dlsym(library, c"OrtGetApiBase".as_ptr()) };
    if symbol.is_null() {
        return Err("it has no OrtGetApiBase, so it is not ONNX Runtime".into());
    }
    // SAFETY: This symbol is a function of this type in every release of ONNX Runtime.
    let base = unsafe { std::mem::transmute::<*mut c_void, GetApiBase>(symbol) };
    // SAFETY: The function takes nothing and returns a table.
    let base = unsafe { base() };
    // SAFETY: The table is null or lives as long as the library, which is for ever, and never changes.
    let base = unsafe { base.as_ref() }.ok_or("it gives no table of functions")?;
    // SAFETY: The function takes nothing.
    let version = unsafe { (base.GetVersionString)() };
    // SAFETY: What it returned is a static, terminated string.
    let version = unsafe { CStr::from_ptr(version) }.to_string_lossy().into_owned();
    // SAFETY: The function takes a number, and returns null for one it does not know.
    let api = unsafe { (base.GetApi)(sys::ORT_API_VERSION) };
    if api.is_null() {
        let needed = sys::ORT_API_VERSION;
        return Err(format!(
            "it is version {version}, which does not have version {needed} of the API"
        ));
    }
    Ok(Loaded { file: file_of(symbol)?, version })
}

/// The file that the library of `symbol` was loaded from.
fn file_of(symbol: *const c_void) -> Result<PathBuf, String> {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `found` is a valid place for the result; the address is only looked up.
    let known = unsafe { libc::dladdr(symbol, found.as_mut_ptr()) } != 0;
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

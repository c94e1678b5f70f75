//! The functions of `libtvm_ffi.so`, looked up once.

use std::ffi::{CStr, c_int, c_void};
use std::mem;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::loader::{self, Opened};
use super::sys;

/// The series of the interface that `sys` declares.
const SERIES: (u32, u32) = (0, 1);

/// Every function that is called.
#[derive(Clone, Copy)]
pub(super) struct Api {
    pub(super) decrease: sys::OfHandle,
    pub(super) function_create: sys::FunctionCreate,
    pub(super) get_global: sys::FunctionGetGlobal,
    pub(super) set_global: sys::FunctionSetGlobal,
    pub(super) call: sys::FunctionCall,
    pub(super) move_error: sys::ErrorMoveFromRaised,
    pub(super) raise: sys::ErrorSetRaised,
    pub(super) tensor_from: sys::TensorFromDlPack,
    pub(super) tensor_view: sys::TensorView,
    pub(super) string: sys::FromByteArray,
    pub(super) bytes: sys::FromByteArray,
    pub(super) set_stream: sys::SetStream,
    pub(super) register_symbol: sys::RegisterSymbol,
}

/// The one table of the process: callbacks that TVM makes find it here.
static API: OnceLock<Api> = OnceLock::new();

/// The table.
///
/// # Panics
/// Before [`load`] has returned it: every object of the library comes from a call after that.
pub(super) fn api() -> &'static Api {
    API.get().expect("objects of TVM exist only once its functions were looked up")
}

/// Looks the functions up in `library`; gives its version and the file it was loaded from.
///
/// # Errors
/// A function is missing, or the interface is of another series.
pub(super) fn load(library: Opened) -> Result<(String, PathBuf), String> {
    let version = version_of(library)?;
    let table = look_up(library)?;
    let file = loader::file_of(library.symbol(c"TVMFFIFunctionCall")?)?;
    API.get_or_init(|| table);
    Ok((version, file))
}

fn version_of(library: Opened) -> Result<String, String> {
    let symbol = library.symbol(c"TVMFFIGetVersion")?;
    // SAFETY: The symbol is a function of this type in every release that has it.
    let get = unsafe { mem::transmute::<*mut c_void, sys::GetVersion>(symbol.as_ptr()) };
    let mut version = sys::Version::default();
    // SAFETY: The place for the result is valid.
    unsafe { get(&raw mut version) };
    let sys::Version { major, minor, patch } = version;
    if (major, minor) != SERIES {
        let (a, b) = SERIES;
        return Err(format!("its interface is version {major}.{minor}.{patch}, not of {a}.{b}"));
    }
    Ok(format!("{major}.{minor}.{patch}"))
}

fn look_up(library: Opened) -> Result<Api, String> {
    let find = |name: &CStr| library.symbol(name).map(NonNull::as_ptr);
    macro_rules! function {
        ($type:ty, $name:literal) => {{
            let symbol = find($name)?;
            // SAFETY: In the series that was checked this symbol is a function of this type.
            unsafe { mem::transmute::<*mut c_void, $type>(symbol) }
        }};
    }
    Ok(Api {
        decrease: function!(sys::OfHandle, c"TVMFFIObjectDecRef"),
        function_create: function!(sys::FunctionCreate, c"TVMFFIFunctionCreate"),
        get_global: function!(sys::FunctionGetGlobal, c"TVMFFIFunctionGetGlobal"),
        set_global: function!(sys::FunctionSetGlobal, c"TVMFFIFunctionSetGlobal"),
        call: function!(sys::FunctionCall, c"TVMFFIFunctionCall"),
        move_error: function!(sys::ErrorMoveFromRaised, c"TVMFFIErrorMoveFromRaised"),
        raise: function!(sys::ErrorSetRaised, c"TVMFFIErrorSetRaisedFromCStr"),
        tensor_from: function!(sys::TensorFromDlPack, c"TVMFFITensorFromDLPack"),
        tensor_view: function!(sys::TensorView, c"TVMFFITensorCreateUnsafeView"),
        string: function!(sys::FromByteArray, c"TVMFFIStringFromByteArray"),
        bytes: function!(sys::FromByteArray, c"TVMFFIBytesFromByteArray"),
        set_stream: function!(sys::SetStream, c"TVMFFIEnvSetStream"),
        register_symbol: function!(sys::RegisterSymbol, c"TVMFFIEnvModRegisterContextSymbol"),
    })
}

/// Turns the status of a call into a result, with the words of the error that was raised.
pub(super) fn check(status: c_int) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(super::value::raised_error()) }
}

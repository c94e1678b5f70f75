//! The CUDA driver library: found at run time, its entry points checked once.
//!
//! No toolkit is needed to build, and a machine without a GPU starts the same binary: the library
//! is opened when the first context is asked for. Entry points that every supported driver has are
//! required together; those of newer drivers are looked up one by one and may be missing.
//!
//! The types come from `cudarc`'s bindings. Its functions are not used: they panic where a symbol is
//! missing, and return an enum that a newer driver's code would not fit (see [`super::error`]).
//!
//! # Invariants
//! 1. The library is never closed, so an entry point is valid for as long as the process lives.
//! 2. An entry point has the type that the header of CUDA 13.0 gives it. A driver keeps the symbols
//!    of older headers unchanged: what changes in type gets a new name (`_v2`).

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::OnceLock;

use cudarc::driver::sys::{
    CUcontext, CUdevResource, CUdevResourceDesc, CUdevice, CUdeviceptr, CUevent, CUgraph,
    CUgraphExec, CUgraphNode, CUgreenCtx, CUstream,
};

use super::error::SUCCESS;
use crate::error::DeviceError;

/// The names the library goes by: the one the driver installs, then the one for linking.
const NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

/// What [`EntryPoints::cuGraphExecUpdate_v2`] tells besides its code; its first field is a number
/// here for the reason given in [`super::error`].
#[repr(C)]
pub(crate) struct GraphUpdateInfo {
    pub(crate) result: u32,
    pub(crate) error_node: CUgraphNode,
    pub(crate) error_from_node: CUgraphNode,
}

/// One end of a copy, as the driver lays it out; its kind of memory is a number here for the reason
/// given in [`super::error`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CopySide {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) z: usize,
    pub(crate) level: usize,
    pub(crate) memory: u32,
    pub(crate) host: *mut c_void,
    pub(crate) device: CUdeviceptr,
    pub(crate) array: *mut c_void,
    pub(crate) reserved: *mut c_void,
    pub(crate) pitch: usize,
    pub(crate) height: usize,
}

/// What a copy node of a graph does (`CUDA_MEMCPY3D`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct CopyParameters {
    pub(crate) source: CopySide,
    pub(crate) target: CopySide,
    /// Bytes in a row, rows, layers.
    pub(crate) extent: [usize; 3],
}

impl Default for CopySide {
    fn default() -> Self {
        let none = std::ptr::null_mut();
        Self {
            x: 0,
            y: 0,
            z: 0,
            level: 0,
            memory: 0,
            host: none,
            device: 0,
            array: none,
            reserved: none,
            pitch: 0,
            height: 0,
        }
    }
}

/// Declares the table of entry points and how it is filled.
macro_rules! entry_points {
    (
        required { $($name:ident($($argument:ty),*);)* }
        optional { $($newer:ident($($newer_argument:ty),*);)* }
    ) => {
        /// The driver's functions, each as `unsafe` as the manual says. The fields keep the
        /// driver's names, so that an error and the manual agree.
        #[allow(non_snake_case, reason = "the driver's own names")]
        #[cfg_attr(
            not(feature = "test-kernels"),
            allow(dead_code, reason = "only test kernels are launched by us")
        )]
        pub(crate) struct EntryPoints {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) -> u32,)*
            $(pub(crate) $newer: Option<unsafe extern "C" fn($($newer_argument),*) -> u32>,)*
        }

        impl EntryPoints {
            fn look_up(library: &libloading::Library) -> Result<Self, DeviceError> {
                Ok(Self {
                    $($name: {
                        let symbol = concat!(stringify!($name), "\0").as_bytes();
                        // SAFETY: (1) The symbol, if the library has it, is a function of this
                        // type: invariant 2.
                        let found = unsafe {
                            library.get::<unsafe extern "C" fn($($argument),*) -> u32>(symbol)
                        };
                        *found.map_err(|cause| DeviceError::NoDriver {
                            why: format!("no `{}`: {cause}", stringify!($name)).into(),
                        })?
                    },)*
                    $($newer: {
                        let symbol = concat!(stringify!($newer), "\0").as_bytes();
                        // SAFETY: (1) As above.
                        let found = unsafe {
                            library.get::<unsafe extern "C" fn($($newer_argument),*) -> u32>(symbol)
                        };
                        found.ok().map(|symbol| *symbol)
                    },)*
                })
            }
        }
    };
}

entry_points! {
    required {
        cuInit(c_uint);
        cuDriverGetVersion(*mut c_int);
        cuGetErrorName(u32, *mut *const c_char);
        cuGetErrorString(u32, *mut *const c_char);
        cuDeviceGetCount(*mut c_int);
        cuDeviceGet(*mut CUdevice, c_int);
        cuDeviceGetName(*mut c_char, c_int, CUdevice);
        cuDeviceGetAttribute(*mut c_int, c_uint, CUdevice);
        cuDeviceGetPCIBusId(*mut c_char, c_int, CUdevice);
        cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
        cuDevicePrimaryCtxRelease_v2(CUdevice);
        cuDevicePrimaryCtxSetFlags_v2(CUdevice, c_uint);
        cuCtxGetCurrent(*mut CUcontext);
        cuCtxSetCurrent(CUcontext);
        cuCtxGetStreamPriorityRange(*mut c_int, *mut c_int);
        cuStreamCreateWithPriority(*mut CUstream, c_uint, c_int);
        cuStreamDestroy_v2(CUstream);
        cuStreamQuery(CUstream);
        cuStreamSynchronize(CUstream);
        cuStreamWaitEvent(CUstream, CUevent, c_uint);
        cuEventCreate(*mut CUevent, c_uint);
        cuEventDestroy_v2(CUevent);
        cuEventRecord(CUevent, CUstream);
        cuEventRecordWithFlags(CUevent, CUstream, c_uint);
        cuEventQuery(CUevent);
        cuEventSynchronize(CUevent);
        cuEventElapsedTime(*mut f32, CUevent, CUevent);
        cuMemAlloc_v2(*mut CUdeviceptr, usize);
        cuMemFree_v2(CUdeviceptr);
        cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
        cuMemFreeHost(*mut c_void);
        cuMemGetInfo_v2(*mut usize, *mut usize);
        cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream);
        cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream);
        cuMemsetD8Async(CUdeviceptr, u8, usize, CUstream);
        cuStreamBeginCapture_v2(CUstream, c_uint);
        cuStreamEndCapture(CUstream, *mut CUgraph);
        cuGraphGetNodes(CUgraph, *mut CUgraphNode, *mut usize);
        cuGraphNodeGetType(CUgraphNode, *mut u32);
        cuGraphMemcpyNodeGetParams(CUgraphNode, *mut CopyParameters);
        cuGraphEventRecordNodeGetEvent(CUgraphNode, *mut CUevent);
        cuGraphExecMemcpyNodeSetParams(CUgraphExec, CUgraphNode, *const CopyParameters, CUcontext);
        cuGraphExecEventRecordNodeSetEvent(CUgraphExec, CUgraphNode, CUevent);
        cuGraphInstantiateWithFlags(*mut CUgraphExec, CUgraph, c_ulonglong);
        cuGraphUpload(CUgraphExec, CUstream);
        cuGraphLaunch(CUgraphExec, CUstream);
        cuGraphDestroy(CUgraph);
        cuGraphExecDestroy(CUgraphExec);
    }
    optional {
        cuGraphExecUpdate_v2(CUgraphExec, CUgraph, *mut GraphUpdateInfo);
        cuGraphNodeSetEnabled(CUgraphExec, CUgraphNode, c_uint);
        cuStreamWaitValue32_v2(CUstream, CUdeviceptr, c_uint, c_uint);
        cuDeviceGetGraphMemAttribute(CUdevice, c_uint, *mut c_void);
        cuDeviceGetDevResource(CUdevice, *mut CUdevResource, c_uint);
        cuDevSmResourceSplitByCount(
            *mut CUdevResource, *mut c_uint, *const CUdevResource, *mut CUdevResource,
            c_uint, c_uint
        );
        cuDevResourceGenerateDesc(*mut CUdevResourceDesc, *mut CUdevResource, c_uint);
        cuGreenCtxCreate(*mut CUgreenCtx, CUdevResourceDesc, CUdevice, c_uint);
        cuGreenCtxDestroy(CUgreenCtx);
        cuGreenCtxGetDevResource(CUgreenCtx, *mut CUdevResource, c_uint);
        cuGreenCtxStreamCreate(*mut CUstream, CUgreenCtx, c_uint, c_int);
        cuCtxFromGreenCtx(*mut CUcontext, CUgreenCtx);
        cuLibraryLoadData(
            *mut *mut c_void, *const c_void, *mut c_void, *mut c_void, c_uint,
            *mut c_void, *mut c_void, c_uint
        );
        cuLibraryGetKernel(*mut *mut c_void, *mut c_void, *const c_char);
        cuLibraryUnload(*mut c_void);
        cuLaunchKernel(
            *mut c_void, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream,
            *mut *mut c_void, *mut *mut c_void
        );
    }
}

/// The loaded and initialised driver.
///
/// Opens the library at the first call, which reads files and starts the driver (about 0.1 s); later
/// calls give the same answer.
///
/// # Errors
/// [`DeviceError::NoDriver`], and [`DeviceError::Cuda`] when the driver does not start; permanent.
pub(crate) fn driver() -> Result<&'static EntryPoints, DeviceError> {
    static DRIVER: OnceLock<Result<EntryPoints, Box<str>>> = OnceLock::new();
    let opened = DRIVER.get_or_init(|| open().map_err(reason));
    opened.as_ref().map_err(|why| DeviceError::NoDriver { why: why.clone() })
}

/// Why there is no driver, as text: the error itself cannot be kept for all callers.
fn reason(error: DeviceError) -> Box<str> {
    match error {
        DeviceError::NoDriver { why } => why,
        other => other.to_string().into(),
    }
}

fn open() -> Result<EntryPoints, DeviceError> {
    let library = find()?;
    let entries = EntryPoints::look_up(&library)?;
    std::mem::forget(library); // Invariant 1.
    // SAFETY: (1) The call takes a number, which the manual wants to be zero.
    let code = unsafe { (entries.cuInit)(0) };
    entries.check("cuInit", code)?;
    Ok(entries)
}

fn find() -> Result<libloading::Library, DeviceError> {
    let mut first = None;
    for name in NAMES {
        // SAFETY: (1) Loading runs the initialisers of the library of that name on the system's
        // search path, which is the NVIDIA driver's; whoever put another there has code in this
        // process already. (2) It is never unloaded (invariant 1), so its destructors do not run
        // while others use it.
        match unsafe { libloading::Library::new(name) } {
            Ok(library) => return Ok(library),
            Err(cause) => {
                // `libloading` keeps the system's words one level down.
                let words = std::error::Error::source(&cause)
                    .map_or_else(|| cause.to_string(), |system| system.to_string());
                first.get_or_insert(words);
            }
        }
    }
    Err(DeviceError::NoDriver { why: first.unwrap_or_default().into() })
}

impl EntryPoints {
    /// `Ok` for success, else the code with the driver's words for it.
    pub(crate) fn check(&self, call: &'static str, code: u32) -> Result<(), DeviceError> {
        if code == SUCCESS { Ok(()) } else { Err(self.error(call, code)) }
    }

    /// The error of `call`. Allocates for the texts.
    pub(crate) fn error(&self, call: &'static str, code: u32) -> DeviceError {
        let (mut name, mut text) = (std::ptr::null(), std::ptr::null());
        // SAFETY: (1) The pointer is valid for the one write of the call.
        let named = unsafe { (self.cuGetErrorName)(code, &raw mut name) };
        // SAFETY: (1) As above.
        let described = unsafe { (self.cuGetErrorString)(code, &raw mut text) };
        let name = (named == SUCCESS).then_some(name);
        let text = (described == SUCCESS).then_some(text);
        DeviceError::Cuda {
            call,
            code,
            name: words(name, "a code this driver does not name"),
            text: words(text, "no description"),
        }
    }
}

/// Copies a text of the driver, or `otherwise` where it has none.
fn words(text: Option<*const c_char>, otherwise: &str) -> Box<str> {
    match text {
        Some(text) if !text.is_null() => {
            // SAFETY: (1) The driver gives static, terminated texts; not null, just checked.
            let text = unsafe { CStr::from_ptr(text) };
            text.to_string_lossy().into()
        }
        _ => otherwise.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_there_or_its_absence_has_a_reason() {
        match driver() {
            Ok(entries) => assert!(entries.check("cuInit", 0).is_ok()),
            Err(DeviceError::NoDriver { why }) => assert!(!why.is_empty()),
            Err(other) => panic!("{other}"),
        }
    }
}

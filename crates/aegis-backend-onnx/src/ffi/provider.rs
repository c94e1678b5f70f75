//! The CUDA provider: what a session is told about the GPU, and the environment before that.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CStr, CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use ort::AsPointer;
use ort::session::builder::SessionBuilder;
use ort::sys;

use super::{Environment, MemoryInfo, allocator, check};

/// What cuBLAS is to take for a handle: sixteen pieces of eight KiB, the smallest that its manual
/// names as deterministic, and for the light interface nothing. A handle takes tens of MiB otherwise,
/// and every session has its own.
const WORKSPACES: [(&str, &str); 2] =
    [("CUBLAS_WORKSPACE_CONFIG", ":16:8"), ("CUBLASLT_WORKSPACE_SIZE", "0")];

/// What a session is told about the GPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Provider {
    /// Which GPU.
    pub(crate) ordinal: u16,
    /// The stream that all work of the session goes to; outlives the session.
    pub(crate) stream: NonNull<c_void>,
    /// Whether matrix products may round their factors to ten bits.
    pub(crate) tf32: bool,
    /// Whether operators that the GPU does not have may run on the processor.
    pub(crate) fallback: bool,
}

/// The descriptions of device memory that have our allocator behind them, by the number of the GPU.
#[derive(Debug, Default)]
pub(super) struct DeviceMemories(Mutex<BTreeMap<u16, MemoryInfo>>);

/// Sets what cuBLAS reads when it is loaded, where the user has set nothing.
pub(super) fn restrain_workspaces() {
    for (name, value) in WORKSPACES {
        if env::var_os(name).is_none() {
            // SAFETY: The environment is read by threads that the caller cannot know of, and reading
            // it while it changes is a race in the C library. It changes once, before the first CUDA
            // library is loaded, which is while a process sets itself up; Rust's own readers take the
            // lock that this call takes.
            unsafe { env::set_var(name, value) };
        }
    }
}

impl Environment {
    /// The description of the memory of the GPU `ordinal`, with our allocator registered for it.
    pub(crate) fn device_memory(&self, ordinal: u16) -> Result<MemoryInfo, String> {
        let mut known = self.devices.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = known.get(&ordinal) {
            return Ok(*memory);
        }
        let memory = description(c"Cuda", ordinal, sys::OrtMemType::OrtMemTypeDefault)?;
        allocator::register_device(&self.inner, memory)?;
        let staging = description(c"CudaPinned", ordinal, sys::OrtMemType::OrtMemTypeCPUOutput)?;
        allocator::register_staging(&self.inner, staging)?;
        known.insert(ordinal, memory);
        Ok(memory)
    }
}

/// ONNX Runtime's description of one of the two memories of a GPU; never released.
fn description(name: &CStr, ordinal: u16, kind: sys::OrtMemType) -> Result<MemoryInfo, String> {
    let mut info = ptr::null_mut();
    // SAFETY: The name is terminated, and `info` is a valid place for the result.
    let status = unsafe {
        (ort::api().CreateMemoryInfo)(
            name.as_ptr(),
            sys::OrtAllocatorType::OrtDeviceAllocator,
            i32::from(ordinal),
            kind,
            &raw mut info,
        )
    };
    check(status)?;
    NonNull::new(info).map(MemoryInfo).ok_or_else(|| "no memory description".into())
}

/// Adds the CUDA provider to the options of a session. Loads the provider's library and what it
/// needs; its error has the loader's own words.
pub(crate) fn append(builder: &mut SessionBuilder, provider: &Provider) -> Result<(), String> {
    let mut options = ptr::null_mut();
    // SAFETY: `options` is a valid place for the result.
    check(unsafe { (ort::api().CreateCUDAProviderOptions)(&raw mut options) })?;
    let options = Options(NonNull::new(options).ok_or("no provider options")?);
    let ordinal = CString::new(provider.ordinal.to_string()).expect("digits have no zero byte");
    options.set(&[
        (c"device_id", &*ordinal),
        (c"cudnn_conv_algo_search", c"HEURISTIC"),
        (c"use_tf32", if provider.tf32 { c"1" } else { c"0" }),
        (c"prefer_nhwc", c"0"),
    ])?;
    // SAFETY: (1) The options are alive and the key is terminated. (2) The value is the driver's
    // stream, which outlives the session: `Provider::stream`.
    let status = unsafe {
        (ort::api().UpdateCUDAProviderOptionsWithValue)(
            options.0.as_ptr(),
            c"user_compute_stream".as_ptr(),
            provider.stream.as_ptr(),
        )
    };
    check(status)?;
    let session = builder.ptr_mut();
    // SAFETY: Both options are alive; ONNX Runtime copies the provider's.
    check(unsafe {
        (ort::api().SessionOptionsAppendExecutionProvider_CUDA_V2)(session, options.0.as_ptr())
    })
}

/// The options of the provider.
struct Options(NonNull<sys::OrtCUDAProviderOptionsV2>);

impl Options {
    fn set(&self, entries: &[(&CStr, &CStr)]) -> Result<(), String> {
        let keys: Vec<_> = entries.iter().map(|(key, _)| key.as_ptr()).collect();
        let values: Vec<_> = entries.iter().map(|(_, value)| value.as_ptr()).collect();
        // SAFETY: The options are alive; both lists have as many terminated strings as is said, which
        // ONNX Runtime copies.
        check(unsafe {
            (ort::api().UpdateCUDAProviderOptions)(
                self.0.as_ptr(),
                keys.as_ptr(),
                values.as_ptr(),
                entries.len(),
            )
        })
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: The options are ours and nothing uses them any more.
        unsafe { (ort::api().ReleaseCUDAProviderOptions)(self.0.as_ptr()) };
    }
}

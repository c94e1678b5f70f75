//! The primary context of one GPU: what every handle of this driver lives in.
//!
//! The primary context is the one that the CUDA runtime library uses, so libraries above it (ONNX
//! Runtime's kernels, cuBLAS, cuDNN) share it and its memory instead of making another.
//!
//! # Invariants
//! 1. The context is retained from [`Machine::open`] to the drop of the [`Machine`], which every
//!    handle made in it holds, so no handle outlives its context.
//! 2. Before a call that needs a context, [`Machine::bind`] makes this one current on the thread.
//! 3. What a drop could not do is kept, and reported by the next call that makes something.
//! 4. Whatever call of a handle is answered with a code that ends the context, the device is lost:
//!    every such code comes through [`Machine::check`], but for the answers about a recorded event,
//!    which `completion` sees to, since it knows the stream.

use std::ffi::{c_int, c_uint};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

use aegis_trace::{Bytes, Category, Clock, MonotonicClock};
use cudarc::driver::sys::{CUcontext, CUdevice, CUstream};

use super::error::SUCCESS;
use super::library::{self, EntryPoints};
use super::nvml::NvmlDevice;
use super::{CompletionWait, CudaConfig};
use crate::device_core::DeviceCore;
use crate::error::DeviceError;

/// How a thread of the driver waits inside a blocking call; the values of `CUctx_flags`.
const SCHED_SPIN: c_uint = 1;
const SCHED_YIELD: c_uint = 2;
const SCHED_BLOCKING_SYNC: c_uint = 4;

/// A stream that does not wait for the legacy default stream, nor it for the stream.
pub(crate) const NON_BLOCKING: c_uint = 1;

/// `CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT`: what graphs hold, used by a launch or kept for the next.
const GRAPHS_RESERVED: c_uint = 2;

/// One GPU with its primary context retained.
pub(crate) struct Machine {
    api: &'static EntryPoints,
    device: CUdevice,
    primary: CUcontext,
    /// For copies and fills outside any job, which block their caller alone.
    setup: CUstream,
    nvml: Option<NvmlDevice>,
    /// Free memory before the context was made, where NVML tells.
    free_before: Option<Bytes>,
    deferred: Mutex<Option<DeviceError>>,
    /// What all views of the device share, among it whether it is lost.
    core: Arc<DeviceCore>,
    clock: MonotonicClock,
}

// SAFETY: (1) The handles are opaque to us and the driver's to dereference; the driver allows every
// thread to use them once the context is current there (invariant 2). (2) The rest is `Send`.
unsafe impl Send for Machine {}

// SAFETY: (1) The driver's calls may run on several threads at once. (2) Nothing here changes after
// `open` but what the lock guards.
unsafe impl Sync for Machine {}

impl Machine {
    /// Retains the primary context of the configured GPU, whose loss is told to `core`.
    ///
    /// # Errors
    /// [`DeviceError::NoDriver`], [`DeviceError::Config`] for an ordinal that is not there, and
    /// [`DeviceError::Cuda`].
    pub(crate) fn open(core: Arc<DeviceCore>, config: &CudaConfig) -> Result<Self, DeviceError> {
        let CudaConfig { ordinal, wait, clock, .. } = *config;
        let api = library::driver()?;
        let device = find(api, ordinal)?;
        let nvml = NvmlDevice::find(&pci_bus_id(api, device)?);
        let free_before = nvml.as_ref().and_then(NvmlDevice::memory).map(|memory| memory.free);
        let flags = match wait {
            CompletionWait::Spin => SCHED_SPIN,
            CompletionWait::Yield => SCHED_YIELD,
            CompletionWait::Block => SCHED_BLOCKING_SYNC,
        };
        // SAFETY: (1) Two numbers, of a device that exists and of flags that the manual lists.
        api.check("cuDevicePrimaryCtxSetFlags", unsafe {
            (api.cuDevicePrimaryCtxSetFlags_v2)(device, flags)
        })?;
        let mut primary = null_mut();
        // SAFETY: (1) The pointer is valid for the one write. (2) The device exists.
        api.check("cuDevicePrimaryCtxRetain", unsafe {
            (api.cuDevicePrimaryCtxRetain)(&raw mut primary, device)
        })?;
        // From here on the drop releases the context, also when the stream cannot be made.
        let setup = null_mut();
        let deferred = Mutex::new(None);
        let mut machine =
            Self { api, device, primary, setup, nvml, free_before, deferred, core, clock };
        machine.bind()?;
        // SAFETY: (1) The pointer is valid for the one write. (2) The context is current.
        api.check("cuStreamCreateWithPriority", unsafe {
            (api.cuStreamCreateWithPriority)(&raw mut machine.setup, NON_BLOCKING, 0)
        })?;
        Ok(machine)
    }

    pub(crate) fn api(&self) -> &'static EntryPoints {
        self.api
    }

    pub(crate) fn device(&self) -> CUdevice {
        self.device
    }

    pub(crate) fn primary(&self) -> CUcontext {
        self.primary
    }

    pub(crate) fn setup(&self) -> CUstream {
        self.setup
    }

    pub(crate) fn nvml(&self) -> Option<&NvmlDevice> {
        self.nvml.as_ref()
    }

    pub(crate) fn free_before(&self) -> Option<Bytes> {
        self.free_before
    }

    /// Makes the context current on the calling thread, if it is not. Costs one look into
    /// thread-local storage of the driver where it is.
    pub(crate) fn bind(&self) -> Result<(), DeviceError> {
        let mut current = null_mut();
        // SAFETY: (1) The pointer is valid for the one write.
        let code = unsafe { (self.api.cuCtxGetCurrent)(&raw mut current) };
        if code == SUCCESS && current == self.primary {
            return Ok(());
        }
        // SAFETY: (1) The context is retained (invariant 1).
        self.check("cuCtxSetCurrent", unsafe { (self.api.cuCtxSetCurrent)(self.primary) })
    }

    /// `Ok` for success, else the error with the driver's words; the device is lost then, if the code
    /// ends the context.
    pub(crate) fn check(&self, call: &'static str, code: u32) -> Result<(), DeviceError> {
        self.api.check(call, code).inspect_err(|error| {
            if error.category() == Category::Fatal {
                self.core.lose(self.clock.now(), None, error.to_string().into());
            }
        })
    }

    /// Blocks until everything on the set-up stream is done.
    pub(crate) fn finish_setup(&self) -> Result<(), DeviceError> {
        // SAFETY: (1) The stream lives as long as `self`.
        let code = unsafe { (self.api.cuStreamSynchronize)(self.setup) };
        self.check("cuStreamSynchronize", code)
    }

    /// Keeps the failure of a drop for the next call that can report one.
    pub(crate) fn defer(&self, outcome: Result<(), DeviceError>) {
        if let Err(error) = outcome {
            self.deferred().get_or_insert(error);
        }
    }

    /// Reports what a drop could not do, once.
    pub(crate) fn take_deferred(&self) -> Result<(), DeviceError> {
        self.deferred().take().map_or(Ok(()), Err)
    }

    fn deferred(&self) -> std::sync::MutexGuard<'_, Option<DeviceError>> {
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One attribute of the device, if the driver knows it.
    pub(crate) fn attribute(&self, attribute: c_uint) -> Option<u32> {
        let mut value: c_int = 0;
        // SAFETY: (1) The pointer is valid for the one write. (2) An attribute that the driver does
        // not know is an error, not a write.
        let code =
            unsafe { (self.api.cuDeviceGetAttribute)(&raw mut value, attribute, self.device) };
        (code == SUCCESS).then_some(value).and_then(|value| u32::try_from(value).ok())
    }

    /// What the driver holds for graphs that allocate, on this device; `None` before CUDA 11.4.
    pub(crate) fn graph_memory(&self) -> Option<Bytes> {
        let call = self.api.cuDeviceGetGraphMemAttribute?;
        let mut bytes = 0_u64;
        // SAFETY: (1) The manual gives this attribute 64 bits, which the pointer is valid for.
        let code = unsafe { call(self.device, GRAPHS_RESERVED, (&raw mut bytes).cast()) };
        (code == SUCCESS).then_some(Bytes(bytes))
    }

    /// Free and total memory of the device, as the driver sees it from inside the context.
    pub(crate) fn memory_info(&self) -> Result<(Bytes, Bytes), DeviceError> {
        self.bind()?;
        let (mut free, mut total) = (0_usize, 0_usize);
        // SAFETY: (1) Both pointers are valid for the one write to each. (2) The context is current.
        let code = unsafe { (self.api.cuMemGetInfo_v2)(&raw mut free, &raw mut total) };
        self.check("cuMemGetInfo", code)?;
        Ok((Bytes(free as u64), Bytes(total as u64)))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Nobody is left to tell of a failure, and the process's end frees what stays behind.
        if !self.setup.is_null() && self.bind().is_ok() {
            // SAFETY: (1) `open` made the stream and nothing else destroys it. (2) It is idle:
            // whoever enqueued on it waited.
            let _code = unsafe { (self.api.cuStreamDestroy_v2)(self.setup) };
        }
        // SAFETY: (1) `open` retained the context once, and this is the only release.
        let _code = unsafe { (self.api.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }
}

/// The device `ordinal`.
pub(super) fn find(api: &EntryPoints, ordinal: u16) -> Result<CUdevice, DeviceError> {
    let mut count: c_int = 0;
    // SAFETY: (1) The pointer is valid for the one write.
    api.check("cuDeviceGetCount", unsafe { (api.cuDeviceGetCount)(&raw mut count) })?;
    if c_int::from(ordinal) >= count {
        return Err(DeviceError::Config {
            field: "ordinal",
            problem: "names no GPU of this machine",
        });
    }
    let mut device: CUdevice = 0;
    // SAFETY: (1) The pointer is valid for the one write.
    let code = unsafe { (api.cuDeviceGet)(&raw mut device, c_int::from(ordinal)) };
    api.check("cuDeviceGet", code)?;
    Ok(device)
}

/// Where the device sits, as `domain:bus:device.function`.
pub(crate) fn pci_bus_id(api: &EntryPoints, device: CUdevice) -> Result<String, DeviceError> {
    const ROOM: c_int = 32;
    let mut text = [0_u8; ROOM as usize];
    // SAFETY: (1) The buffer is valid for as many bytes as the call is told.
    let code = unsafe { (api.cuDeviceGetPCIBusId)(text.as_mut_ptr().cast(), ROOM, device) };
    api.check("cuDeviceGetPCIBusId", code)?;
    Ok(until_nul(&text))
}

/// The text before the first zero byte.
pub(crate) fn until_nul(text: &[u8]) -> String {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

//! The driver's stream: a handle in a context or in a partition of its multiprocessors.
//!
//! # Invariants
//! 1. The handle is destroyed once, by the drop; the driver lets queued work finish first.
//! 2. It lives in a context that is retained, and in a partition that is not destroyed before it.

use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys::CUstream;

use super::context::{Machine, NON_BLOCKING};
use super::error::{NOT_READY, SUCCESS};
use super::partition::Partition;
use crate::error::DeviceError;

/// One stream of the driver.
pub(crate) struct RawStream {
    machine: Arc<Machine>,
    handle: CUstream,
    /// Declared last: the drop of the stream comes before that of the partition.
    _partition: Option<Arc<Partition>>,
}

// SAFETY: (1) The handle is the driver's to dereference, which allows any thread to use it.
unsafe impl Send for RawStream {}

// SAFETY: (1) As above; the driver orders calls on one stream from several threads.
unsafe impl Sync for RawStream {}

impl RawStream {
    /// Creates a stream `urgency` levels above the least urgent, as far as the device has levels.
    /// Gives the stream and the levels it got.
    pub(crate) fn new(
        machine: &Arc<Machine>,
        partition: Option<&Arc<Partition>>,
        urgency: u8,
    ) -> Result<(Self, u8), DeviceError> {
        machine.take_deferred()?;
        machine.bind()?;
        let (least, levels) = priorities(machine)?;
        let granted = urgency.min(levels);
        let priority = least - c_int::from(granted); // The driver's smaller number is more urgent.
        let handle = match partition {
            Some(partition) => partition.create_stream(priority)?,
            None => {
                let (api, mut handle) = (machine.api(), null_mut());
                // SAFETY: (1) The pointer is valid for the one write. (2) The context is current.
                let code = unsafe {
                    (api.cuStreamCreateWithPriority)(&raw mut handle, NON_BLOCKING, priority)
                };
                machine.check("cuStreamCreateWithPriority", code)?;
                handle
            }
        };
        let _partition = partition.cloned();
        Ok((Self { machine: Arc::clone(machine), handle, _partition }, granted))
    }

    pub(crate) fn handle(&self) -> CUstream {
        self.handle
    }

    /// Whether everything enqueued is done.
    pub(crate) fn is_idle(&self) -> Result<bool, DeviceError> {
        let api = self.machine.api();
        // SAFETY: (1) The stream lives as long as `self`.
        match unsafe { (api.cuStreamQuery)(self.handle) } {
            SUCCESS => Ok(true),
            NOT_READY => Ok(false),
            code => self.machine.check("cuStreamQuery", code).map(|()| false),
        }
    }

    /// Blocks until everything enqueued is done.
    pub(crate) fn wait(&self) -> Result<(), DeviceError> {
        let api = self.machine.api();
        // SAFETY: (1) The stream lives as long as `self`.
        let code = unsafe { (api.cuStreamSynchronize)(self.handle) };
        self.machine.check("cuStreamSynchronize", code)
    }
}

impl Drop for RawStream {
    fn drop(&mut self) {
        let destroyed = self.machine.bind().and_then(|()| {
            let api = self.machine.api();
            // SAFETY: (1) `new` made the stream and nothing else destroys it.
            let code = unsafe { (api.cuStreamDestroy_v2)(self.handle) };
            self.machine.check("cuStreamDestroy", code)
        });
        self.machine.defer(destroyed);
    }
}

/// The driver's number for the least urgent stream, and how many levels lie above it.
pub(crate) fn priorities(machine: &Machine) -> Result<(c_int, u8), DeviceError> {
    machine.bind()?;
    let (mut least, mut greatest): (c_int, c_int) = (0, 0);
    let api = machine.api();
    // SAFETY: (1) Both pointers are valid for the one write to each. (2) The context is current.
    let code = unsafe { (api.cuCtxGetStreamPriorityRange)(&raw mut least, &raw mut greatest) };
    machine.check("cuCtxGetStreamPriorityRange", code)?;
    // A device without levels answers zero twice.
    Ok((least, u8::try_from(least.saturating_sub(greatest)).unwrap_or(0)))
}

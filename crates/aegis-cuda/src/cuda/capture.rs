//! A capture: what is put on a stream becomes a graph instead of running.
//!
//! # Invariants
//! 1. A capture that was begun is ended, by [`Capture::end`] or the drop.
//! 2. What a discarded one made the calls of CUDA's runtime library fail with is forgotten, so that it
//!    fails nobody else on the thread (`runtime_library`).

use super::completion::Lane;
use super::context::Machine;
use super::{error, runtime_library};
use crate::error::DeviceError;

/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: other threads go on as if nothing were captured.
const THREAD_LOCAL: u32 = 1;

/// A capture under way; the drop ends and discards it.
pub(crate) struct Capture<'lane> {
    machine: &'lane Machine,
    lane: &'lane Lane,
    open: bool,
}

impl<'lane> Capture<'lane> {
    pub(super) fn begin(machine: &'lane Machine, lane: &'lane Lane) -> Result<Self, DeviceError> {
        if lane.set_capturing(true) {
            return Err(DeviceError::Capturing { stream: lane.id() });
        }
        let mut capture = Self { machine, lane, open: false };
        let api = machine.api();
        // SAFETY: (1) The stream lives as long as the lane.
        let code = unsafe { (api.cuStreamBeginCapture_v2)(lane.stream().handle(), THREAD_LOCAL) };
        machine.check("cuStreamBeginCapture", code)?;
        capture.open = true;
        Ok(capture)
    }

    /// Ends the capture and gives the graph, which the caller now owns.
    pub(super) fn end(mut self) -> Result<cudarc::driver::sys::CUgraph, DeviceError> {
        self.open = false;
        let mut template = std::ptr::null_mut();
        let api = self.machine.api();
        // SAFETY: (1) The stream lives. (2) The pointer is valid for the one write.
        let code =
            unsafe { (api.cuStreamEndCapture)(self.lane.stream().handle(), &raw mut template) };
        self.machine.check("cuStreamEndCapture", code)?;
        Ok(template)
    }

    fn discard(&self) -> Result<(), DeviceError> {
        let mut template = std::ptr::null_mut();
        let api = self.machine.api();
        // SAFETY: (1) The stream lives. (2) The pointer is valid for the one write.
        let code =
            unsafe { (api.cuStreamEndCapture)(self.lane.stream().handle(), &raw mut template) };
        // A capture that broke gives no graph, and that it broke is what its owner hears already.
        if code == error::SUCCESS && !template.is_null() {
            // SAFETY: (1) The driver gave it to us alone.
            let code = unsafe { (api.cuGraphDestroy)(template) };
            self.machine.check("cuGraphDestroy", code)?;
        }
        Ok(())
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if self.open {
            self.machine.defer(self.discard());
            runtime_library::forget_last_error();
        }
        self.lane.set_capturing(false);
    }
}

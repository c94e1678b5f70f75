//! The driver's event: asked, waited for and compared, never interpreted.
//!
//! # Invariants
//! 1. The handle lives in the primary context and is destroyed once, by the drop; the driver keeps
//!    what a recording still needs.

use std::ptr::null_mut;
use std::sync::Arc;

use aegis_trace::Nanos;
use cudarc::driver::sys::{CUevent, CUstream};

use super::CompletionWait;
use super::context::Machine;
use super::error::{NOT_READY, SUCCESS};
use crate::error::DeviceError;

/// Flags of `cuEventCreate`.
const BLOCKING_SYNC: u32 = 1;
const DISABLE_TIMING: u32 = 2;
/// `CU_EVENT_RECORD_EXTERNAL`: within a capture, a node that records whenever the graph runs.
const RECORD_IN_GRAPH: u32 = 1;

/// Flags of `cuStreamWaitEvent`.
const NO_FLAGS: u32 = 0;

/// Whether an event keeps the device's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timing {
    Timed,
    Untimed,
}

/// One event of the driver.
pub(crate) struct RawEvent {
    machine: Arc<Machine>,
    handle: CUevent,
    timing: Timing,
}

// SAFETY: (1) The handle is the driver's to dereference, which allows any thread to use it.
unsafe impl Send for RawEvent {}

// SAFETY: (1) As above; the driver's calls on one event may run on several threads at once.
unsafe impl Sync for RawEvent {}

impl RawEvent {
    pub(crate) fn new(
        machine: &Arc<Machine>,
        timing: Timing,
        wait: CompletionWait,
    ) -> Result<Self, DeviceError> {
        machine.take_deferred()?;
        machine.bind()?;
        let blocking = if wait == CompletionWait::Block { BLOCKING_SYNC } else { 0 };
        let untimed = if timing == Timing::Untimed { DISABLE_TIMING } else { 0 };
        let mut handle = null_mut();
        let api = machine.api();
        // SAFETY: (1) The pointer is valid for the one write. (2) The context is current.
        let code = unsafe { (api.cuEventCreate)(&raw mut handle, blocking | untimed) };
        machine.check("cuEventCreate", code)?;
        Ok(Self { machine: Arc::clone(machine), handle, timing })
    }

    /// Records the event on `stream`.
    ///
    /// # Safety
    /// `stream` is a live stream of this event's GPU.
    pub(crate) unsafe fn record(&self, stream: CUstream) -> Result<(), DeviceError> {
        let api = self.machine.api();
        // SAFETY: (1) The event lives as long as `self`; the stream lives, says the caller.
        let code = unsafe { (api.cuEventRecord)(self.handle, stream) };
        self.machine.check("cuEventRecord", code)
    }

    /// Makes the graph that is being captured on `stream` record the event at this place.
    ///
    /// # Safety
    /// As [`RawEvent::record`]; the event lives as long as the graph may run.
    pub(crate) unsafe fn record_in_graph(&self, stream: CUstream) -> Result<(), DeviceError> {
        let api = self.machine.api();
        // SAFETY: (1) The event lives as long as `self`, and the graph no longer, says the caller;
        // so does the stream.
        let code = unsafe { (api.cuEventRecordWithFlags)(self.handle, stream, RECORD_IN_GRAPH) };
        self.machine.check("cuEventRecordWithFlags", code)
    }

    /// Makes what is put on `stream` from now on wait for the last recording, also for one that a
    /// node of a launched graph is still to make.
    ///
    /// # Safety
    /// As [`RawEvent::record`].
    pub(crate) unsafe fn hold_back(&self, stream: CUstream) -> Result<(), DeviceError> {
        let api = self.machine.api();
        // SAFETY: (1) The event lives as long as `self`, and the driver keeps what the wait still
        // needs of it; the stream lives, says the caller.
        let code = unsafe { (api.cuStreamWaitEvent)(stream, self.handle, NO_FLAGS) };
        self.machine.check("cuStreamWaitEvent", code)
    }

    pub(crate) fn handle(&self) -> CUevent {
        self.handle
    }

    /// Whether everything before the last recording is done. When it is, what it wrote to the host
    /// is visible to this thread.
    pub(crate) fn is_done(&self) -> Result<bool, DeviceError> {
        let api = self.machine.api();
        // SAFETY: (1) The event lives as long as `self`.
        match unsafe { (api.cuEventQuery)(self.handle) } {
            SUCCESS => Ok(true),
            NOT_READY => Ok(false),
            code => Err(self.machine.api().error("cuEventQuery", code)),
        }
    }

    /// Blocks until everything before the last recording is done.
    pub(crate) fn wait(&self) -> Result<(), DeviceError> {
        let api = self.machine.api();
        // SAFETY: (1) The event lives as long as `self`.
        let code = unsafe { (api.cuEventSynchronize)(self.handle) };
        api.check("cuEventSynchronize", code) // Who waits here loses the device: it knows the stream.
    }

    /// The device's own time from `start` to this event, rounded up; `None` when it is negative.
    ///
    /// The driver tells milliseconds in 32-bit floats: exact to 1 ns up to 16 ms, to 64 ns at 1 s.
    /// Its own resolution is about half a microsecond.
    pub(crate) fn elapsed_since(&self, start: &Self) -> Result<Option<Nanos>, DeviceError> {
        if self.timing == Timing::Untimed || start.timing == Timing::Untimed {
            return Err(DeviceError::EventUntimed);
        }
        self.machine.bind()?;
        let mut milliseconds = 0_f32;
        let api = self.machine.api();
        // SAFETY: (1) The pointer is valid for the one write. (2) Both events live.
        let code =
            unsafe { (api.cuEventElapsedTime)(&raw mut milliseconds, start.handle, self.handle) };
        if code == NOT_READY {
            return Err(DeviceError::StillPending);
        }
        self.machine.check("cuEventElapsedTime", code)?;
        Ok(nanos_of(milliseconds))
    }
}

/// The driver's milliseconds as nanoseconds, rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked not to be negative; the cast saturates beyond the type"
)]
fn nanos_of(milliseconds: f32) -> Option<Nanos> {
    // A 64-bit float holds each 32-bit one, and its product with a million, without rounding down
    // a nanosecond: 24 bits times 20 are 44.
    let nanos = (f64::from(milliseconds) * 1e6).ceil();
    (nanos >= 0.0).then_some(Nanos(nanos as u64))
}

impl Drop for RawEvent {
    fn drop(&mut self) {
        let destroyed = self.machine.bind().and_then(|()| {
            let api = self.machine.api();
            // SAFETY: (1) `new` made the event and nothing else destroys it.
            let code = unsafe { (api.cuEventDestroy_v2)(self.handle) };
            self.machine.check("cuEventDestroy", code)
        });
        self.machine.defer(destroyed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_rounded_up() {
        assert_eq!(nanos_of(0.0), Some(Nanos::ZERO));
        assert_eq!(nanos_of(1.0), Some(Nanos::from_millis(1)));
        assert_eq!(nanos_of(f32::MIN_POSITIVE), Some(Nanos(1)));
        assert_eq!(nanos_of(0.1), Some(Nanos(100_001)), "a tenth lies above itself in 32 bits");
        assert_eq!(nanos_of(-0.5), None);
        assert_eq!(nanos_of(f32::NAN), None);
    }
}

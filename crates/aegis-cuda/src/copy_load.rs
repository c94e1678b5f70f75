//! Copies to the device, one after the other: what uploads ahead do to whoever runs beside them.
//!
//! For profiles. A stage whose cost must hold while the inputs of another cross the bus is measured
//! while such copies do, from where its own upload is over until its end: before that nobody else's may
//! begin.
//!
//! # Invariants
//! 1. Source and target belong to the load alone, and live until its stream is idle: no copy is left
//!    behind when they go.
#![allow(unsafe_code)] // One window on `CudaLane::copy_in`; docs/soundness.md argues it.

use aegis_trace::{Bytes, Nanos};

use crate::device::DeviceContext;
use crate::error::DeviceError;
use crate::event::{CudaEvent, EventStatus};
use crate::host_buffer::HostBuffer;
use crate::memory::{DeviceArena, DeviceBuffer};
use crate::stage::StageEvents;
use crate::stream::CudaStream;

/// The most copies that are enqueued at once.
const COPIES_MAX: u64 = 256;
/// Copies that are timed when the load is made; the shortest counts.
const TIMED: usize = 8;

/// A source, a target, and a stream of its own to copy on.
pub struct CopyLoad {
    stream: CudaStream,
    source: HostBuffer,
    target: DeviceBuffer,
    /// Fires behind the copies that were enqueued last.
    last: CudaEvent,
    one: Nanos,
}

impl CopyLoad {
    /// Copies of `size`, which is not zero, on a stream of `device` to memory of its own, from the largest
    /// gap of `arena`. Copies a few times to see how long it takes: set-up.
    ///
    /// # Errors
    /// As [`DeviceContext::check_uploads_ahead`]; [`DeviceError::WrongDriver`] (permanent) on anything
    /// but `cuda`; [`DeviceError::OutOfMemory`] (permanent): no gap has room for `size`;
    /// [`DeviceError::Cuda`].
    pub fn new(
        device: &DeviceContext,
        arena: &DeviceArena,
        size: Bytes,
    ) -> Result<Self, DeviceError> {
        device.check_uploads_ahead()?;
        let stream = device.create_stream()?;
        stream.on_gpu()?;
        let gap = arena.largest_gap();
        let room = Bytes(gap.end.saturating_sub(gap.start));
        if room < size {
            let limit = arena.size();
            let reserved = limit.saturating_sub(room);
            return Err(DeviceError::OutOfMemory { requested: size, reserved, limit });
        }
        let target = arena.buffer(gap.start..gap.start + size.as_u64())?;
        let source = device.host_buffer(size.as_usize())?;
        let (begun, last) = (device.create_event()?, device.create_event()?);
        let mut load = Self { stream, source, target, last, one: Nanos::MAX };
        for _ in 0..TIMED {
            load.stream.record(&begun)?;
            load.copy()?;
            load.stream.record(&load.last)?;
            load.last.synchronize()?;
            begun.synchronize()?;
            load.one = load.one.min(load.last.elapsed_since(&begun)?).max(Nanos::EPSILON);
        }
        Ok(load)
    }

    /// How much each copy moves.
    #[must_use]
    pub fn size(&self) -> Bytes {
        Bytes(self.source.len() as u64)
    }

    /// Enqueues copies for about `length`, and one more, but at most 256, behind the upload of the stage
    /// between `events`, which was just launched. Returns at once.
    ///
    /// The source is as it was, in no cache of the processor: so the copies are as quick, and take as
    /// much of the device's memory from others, as any can.
    ///
    /// # Errors
    /// As [`CudaStream::wait_for`].
    pub fn fill(&self, events: &StageEvents, length: Nanos) -> Result<(), DeviceError> {
        if events.has_upload_under_way() {
            self.stream.wait_for(events.uploaded())?;
        }
        let copies = length.0.div_ceil(self.one.0).min(COPIES_MAX - 1) + 1;
        (0..copies).try_for_each(|_| self.copy())?;
        self.stream.record(&self.last)
    }

    /// The same unless copies of before are still on their way: so one [`fill`](Self::fill) follows the
    /// other with no stage ever waiting for the copies beside the one before it. For stages that are
    /// themselves a load, whose multiprocessors must not rest.
    ///
    /// # Errors
    /// As [`fill`](Self::fill), and [`CudaEvent::query`].
    pub fn top_up(&self, events: &StageEvents, length: Nanos) -> Result<(), DeviceError> {
        match self.last.query()? {
            EventStatus::Pending => Ok(()),
            EventStatus::Complete { .. } => self.fill(events, length),
        }
    }

    /// Blocks until no copy is left.
    ///
    /// # Errors
    /// As [`CudaStream::synchronize`].
    pub fn drain(&self) -> Result<(), DeviceError> {
        self.stream.synchronize()
    }

    fn copy(&self) -> Result<(), DeviceError> {
        // SAFETY: (1) The target has as many bytes as the source: `new` made both of one size. (2) Both
        // live until the stream is idle: invariant 1. (3) Nobody else has either, and nothing here
        // writes the source.
        unsafe {
            self.stream.on_gpu()?.copy_in(self.source.first(), &self.target, self.source.len())
        }
    }
}

impl std::fmt::Debug for CopyLoad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyLoad").field("size", &self.size()).field("one", &self.one).finish()
    }
}

impl Drop for CopyLoad {
    fn drop(&mut self) {
        // Invariant 1. A stream that cannot be waited for is that of a lost device, which copies nothing.
        drop(self.stream.synchronize());
    }
}

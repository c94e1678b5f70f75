//! The events of a stage: its two ends, and where its copies end and begin.
//!
//! ```text
//!   begun | uploads | uploaded | work | downloading | downloads | ended
//! ```
//! The outer two are recorded for every stage. The inner two are where whoever enqueues it says so
//! ([`CudaStream::mark`](crate::CudaStream::mark)): a stage without copies has none.
//!
//! # Invariants
//! 1. The lengths of the copies together never exceed that of the stage.
//! 2. An inner event tells about the stage that was enqueued last, or nothing: each stage forgets
//!    what it told before.

use std::sync::Arc;

use aegis_trace::{Nanos, Timestamp};

use crate::cuda::{Edges, FrameEvents};
use crate::device::DeviceContext;
use crate::device_core::DeviceCore;
use crate::error::DeviceError;
use crate::event::{CudaEvent, EventCell, EventStatus, Look};
use crate::stream::HAS_DRIVERS;

/// A place within a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMark {
    /// All inputs have arrived on the device.
    Uploaded,
    /// From here on outputs leave the device.
    Downloading,
}

/// The four events that one stage at a time lies between.
#[derive(Debug)]
pub struct StageEvents {
    begun: CudaEvent,
    uploaded: CudaEvent,
    downloading: CudaEvent,
    ended: CudaEvent,
}

/// The two events that the uploads of a stage lie between where they go ahead of it, on a stream of their
/// own.
#[derive(Debug)]
pub struct UploadEvents {
    begun: CudaEvent,
    ended: CudaEvent,
}

impl UploadEvents {
    /// Two events of `device`. Allocates: set-up.
    ///
    /// # Errors
    /// As [`DeviceContext::create_event`].
    pub fn on(device: &DeviceContext) -> Result<Self, DeviceError> {
        Ok(Self { begun: device.create_event()?, ended: device.create_event()? })
    }

    /// Recorded before the first upload.
    #[must_use]
    pub fn begun(&self) -> &CudaEvent {
        &self.begun
    }

    /// Recorded behind the last one.
    #[must_use]
    pub fn ended(&self) -> &CudaEvent {
        &self.ended
    }

    /// How long the device took, by its own clock, for uploads that have ended on it, whether or not
    /// somebody has seen that; at least a nanosecond.
    ///
    /// # Errors
    /// As [`CudaEvent::elapsed_since`].
    pub fn length(&self) -> Result<Nanos, DeviceError> {
        Ok(self.ended.elapsed_behind(&self.begun)?.max(Nanos::EPSILON))
    }

    /// How long before `stage` began the uploads had ended, by the device's clock; of a stage that has
    /// ended, and waited for them.
    ///
    /// # Errors
    /// As [`CudaEvent::elapsed_since`].
    pub fn ended_before(&self, stage: &StageEvents) -> Result<Nanos, DeviceError> {
        stage.begun.elapsed_behind(&self.ended)
    }
}

/// How long the device took for a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageLengths {
    /// From its first work to its last.
    pub whole: Nanos,
    /// Of that, the copies of inputs at its beginning; zero where they are not told apart.
    pub upload: Nanos,
    /// The copies of outputs at its end; zero where they are not told apart.
    pub download: Nanos,
}

/// The inner two events.
#[derive(Clone)]
pub(crate) struct CopyCells {
    pub(crate) uploaded: Arc<EventCell>,
    pub(crate) downloading: Arc<EventCell>,
}

impl CopyCells {
    pub(crate) fn of(&self, mark: CopyMark) -> &Arc<EventCell> {
        match mark {
            CopyMark::Uploaded => &self.uploaded,
            CopyMark::Downloading => &self.downloading,
        }
    }

    pub(crate) fn forget(&self) {
        self.uploaded.forget();
        self.downloading.forget();
    }
}

impl StageEvents {
    /// Four events of `device`. Allocates: set-up.
    ///
    /// # Errors
    /// As [`DeviceContext::create_event`].
    pub fn on(device: &DeviceContext) -> Result<Self, DeviceError> {
        let event = || device.create_event();
        Ok(Self { begun: event()?, uploaded: event()?, downloading: event()?, ended: event()? })
    }

    /// Recorded before all work of the stage.
    #[must_use]
    pub fn begun(&self) -> &CudaEvent {
        &self.begun
    }

    /// Recorded behind the uploads of the stage, if it has any.
    #[must_use]
    pub fn uploaded(&self) -> &CudaEvent {
        &self.uploaded
    }

    /// Whether the stage that was enqueued last has uploads of its own that were not seen to end.
    #[must_use]
    pub fn has_upload_under_way(&self) -> bool {
        self.uploaded.cell().is_pending()
    }

    /// Recorded behind all work of the stage.
    #[must_use]
    pub fn ended(&self) -> &CudaEvent {
        &self.ended
    }

    /// Whether the stage has ended, and when; `None` while it runs. Never blocks.
    ///
    /// # Errors
    /// As [`CudaEvent::query`].
    pub fn poll(&self) -> Result<Option<Timestamp>, DeviceError> {
        match self.ended.query()? {
            EventStatus::Pending => Ok(None),
            EventStatus::Complete { at } => Ok(Some(at)),
        }
    }

    /// How long the device took, by its own clock, for the stage, which has ended. Asks the driver
    /// once for each length.
    ///
    /// # Errors
    /// As [`CudaEvent::elapsed_since`].
    pub fn lengths(&self) -> Result<StageLengths, DeviceError> {
        let whole = self.ended.elapsed_behind(&self.begun)?;
        let upload = if has_told(&self.uploaded) {
            self.uploaded.elapsed_behind(&self.begun)?
        } else {
            Nanos::ZERO
        };
        let download = if has_told(&self.downloading) {
            self.ended.elapsed_behind(&self.downloading)?
        } else {
            Nanos::ZERO
        };
        Ok(StageLengths::within(whole, upload, download))
    }

    /// The cells of the inner two, if they belong to the device of `core`.
    pub(crate) fn copies_on(&self, core: &Arc<DeviceCore>) -> Result<CopyCells, DeviceError> {
        Ok(CopyCells {
            uploaded: Arc::clone(self.uploaded.cell_on(core)?),
            downloading: Arc::clone(self.downloading.cell_on(core)?),
        })
    }

    /// What the driver records, on `cuda`.
    pub(crate) fn edges_on(&self, core: &Arc<DeviceCore>) -> Result<Edges, DeviceError> {
        let event = |of: &CudaEvent| Arc::clone(of.driver_event().expect(HAS_DRIVERS));
        Ok(Edges {
            begun: Arc::clone(self.begun.cell_on(core)?),
            copies: self.copies_on(core)?,
            ended: Arc::clone(self.ended.cell_on(core)?),
            events: FrameEvents {
                begun: event(&self.begun),
                uploaded: event(&self.uploaded),
                downloading: event(&self.downloading),
                ended: event(&self.ended),
            },
        })
    }
}

/// Whether the last stage recorded `event`.
fn has_told(event: &CudaEvent) -> bool {
    matches!(event.cell().look(), Look::Complete(_))
}

impl StageLengths {
    /// The copies at most as long as the whole: each length is rounded up by itself, so a stage that
    /// does nothing but copy could seem to take less than its parts.
    fn within(whole: Nanos, upload: Nanos, download: Nanos) -> Self {
        let upload = upload.min(whole);
        Self { whole, upload, download: download.min(whole.saturating_sub(upload)) }
    }
}

#[cfg(test)]
mod tests {
    use aegis_trace::Bytes;

    use super::*;
    use crate::sim::{SimConfig, SimFault, SimWork};
    use crate::stream::CudaStream;

    fn sim() -> (DeviceContext, CudaStream, StageEvents) {
        let limits = SimConfig { memory_limit: Bytes::ZERO, max_streams: 1, stream_depth: 8 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        let stream = device.create_stream().expect("its one stream");
        let events = StageEvents::on(&device).expect("events are memory");
        (device, stream, events)
    }

    fn work(stream: &CudaStream, cost: u64, fault: Option<SimFault>) {
        stream.enqueue_sim(SimWork { cost: Nanos(cost), fault }).expect("room");
    }

    /// A stage of an upload, work and a download, each marked if it takes time.
    fn stage(stream: &CudaStream, events: &StageEvents, parts: [u64; 3], fault: Option<SimFault>) {
        let enqueue = |stream: &CudaStream| -> Result<(), DeviceError> {
            if parts[0] > 0 {
                work(stream, parts[0], None);
                stream.mark(CopyMark::Uploaded)?;
            }
            work(stream, parts[1], fault);
            if parts[2] > 0 {
                stream.mark(CopyMark::Downloading)?;
                work(stream, parts[2], None);
            }
            Ok(())
        };
        stream.between(events, enqueue).expect("room");
    }

    fn advance(device: &DeviceContext, to: u64) {
        device.simulator().expect("simulated").advance_to(Timestamp(to));
    }

    fn lengths(events: &StageEvents) -> [u64; 3] {
        let StageLengths { whole, upload, download } = events.lengths().expect("it ended");
        [whole.0, upload.0, download.0]
    }

    #[test]
    fn copies_are_told_from_the_work_between_them() {
        let (device, stream, events) = sim();
        stage(&stream, &events, [3, 10, 2], None);
        advance(&device, 14);
        assert_eq!(events.poll().expect("no fault"), None);
        advance(&device, 15);
        assert_eq!(events.poll().expect("no fault"), Some(Timestamp(15)));
        assert_eq!(lengths(&events), [15, 3, 2]);
    }

    #[test]
    fn a_stage_without_copies_does_not_tell_those_of_the_one_before() {
        let (device, stream, events) = sim();
        let expected = [([3, 10, 2], [15, 3, 2]), ([0, 7, 2], [9, 0, 2]), ([0, 7, 0], [7, 0, 0])];
        for (parts, told) in expected {
            stage(&stream, &events, parts, None);
            advance(&device, device.clock().now().0 + 100);
            assert_eq!(lengths(&events), told);
        }
    }

    #[test]
    fn a_fault_is_reported_by_the_end_of_the_stage_and_not_by_a_mark() {
        let (device, stream, events) = sim();
        stage(&stream, &events, [3, 10, 2], Some(SimFault::ExecutionFailure));
        advance(&device, 100);
        assert!(matches!(events.poll(), Err(DeviceError::Work { .. })));
        stage(&stream, &events, [1, 1, 1], None);
        advance(&device, 200);
        assert_eq!(lengths(&events), [3, 1, 1]);
    }

    #[test]
    fn a_lost_device_ends_the_marks_too() {
        let (device, stream, events) = sim();
        stage(&stream, &events, [3, 10, 2], Some(SimFault::DeviceLost));
        advance(&device, 100);
        assert!(matches!(events.poll(), Err(DeviceError::DeviceLost { .. })));
    }

    #[test]
    fn a_mark_outside_a_stage_does_nothing() {
        let (device, stream, events) = sim();
        stage(&stream, &events, [0, 10, 0], None);
        stream.mark(CopyMark::Uploaded).expect("nothing to do");
        advance(&device, 100);
        assert_eq!(lengths(&events), [10, 0, 0]);
    }

    #[test]
    fn parts_never_exceed_the_whole() {
        let of = |whole, upload, download| {
            let of = StageLengths::within(Nanos(whole), Nanos(upload), Nanos(download));
            (of.upload.0, of.download.0)
        };
        assert_eq!(of(10, 4, 6), (4, 6));
        assert_eq!(of(10, 4, 7), (4, 6), "rounded up twice");
        assert_eq!(of(10, 11, 1), (10, 0));
    }
}

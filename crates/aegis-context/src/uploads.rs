//! The stream of a partition on which inputs go ahead of their stages.
//!
//! While R runs, the inputs of K, which waits behind it, cross the bus:
//!
//! ```text
//!   stages   | in R |------- R -------|------ K ------|
//!   uploads          | in K |          | in L |
//! ```
//! docs/adr/0088 has what this relies on and what it does to the analysis.
//!
//! # Invariants
//! 1. Uploads go one after the other, in the order of commits: they have one stream.
//! 2. An upload begins only behind that of the stage that runs, so no stage waits for an upload that was
//!    decided after it. No manual of a driver says that it does: each device is asked when the stream is
//!    made.
//! 3. A stage begins only behind its upload, so the end of the stage is that of both.
//! 4. The buffers of an upload whose stage was not launched are in use until it was seen to end. Until
//!    then no other upload goes ahead.
//! 5. What is enqueued on the stream of that stage begins behind such an upload; the events of the upload
//!    are not recorded again before whoever began behind it was seen to end, and can tell what it waited.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aegis_cuda::{CudaStream, DeviceContext, DeviceError, EventStatus, StageEvents, UploadEvents};

use crate::slot::SlotUse;

/// The stream, and what is left on it.
#[derive(Debug)]
pub(crate) struct Uploads {
    stream: CudaStream,
    left: Mutex<Option<Left>>,
    /// How many were left up to now.
    count: AtomicU64,
}

/// An upload whose stage was not launched.
#[derive(Debug)]
struct Left {
    /// The buffers that it reads.
    job: SlotUse,
    /// Which of the pool's events it lies between.
    place: Place,
    /// How far it came.
    upload: Upload,
}

/// Which stream of the pool, and which of its two pairs of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) stream: usize,
    pub(crate) edges: usize,
}

/// How far an upload ahead has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// There is none: the stage has its uploads within, if any.
    None,
    /// It may be on its stream. Its end was not recorded.
    Enqueued,
    /// The same, with its end recorded.
    Recorded,
    /// The same, and what comes next on the stream of its stage begins behind it.
    Before,
    /// Its stage was launched behind it.
    Awaited,
}

impl Uploads {
    /// Uploads ahead of the stages on `stages`, on a device that was asked whether it keeps invariant 2.
    pub(crate) fn on(device: &DeviceContext, stages: &CudaStream) -> Result<Self, DeviceError> {
        device.check_uploads_ahead()?;
        let stream = device.create_stream()?;
        device.probe_uploads_ahead(stages, &stream)?;
        Ok(Self { stream, left: Mutex::new(None), count: AtomicU64::new(0) })
    }

    /// Puts what `enqueue` enqueues between `events`, behind the upload of the stage `before`. `upload`
    /// says, also on an error, how far that came.
    pub(crate) fn enqueue<E: From<DeviceError>>(
        &self,
        before: &StageEvents,
        events: &UploadEvents,
        upload: &mut Upload,
        enqueue: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<(), E> {
        if before.has_upload_under_way() {
            self.stream.wait_for(before.uploaded())?; // Invariant 2.
        }
        self.stream.record(events.begun())?;
        *upload = Upload::Enqueued;
        let enqueued = enqueue(&self.stream);
        // Also behind a part of it: somebody has to see when that ends.
        self.stream.record(events.ended())?;
        *upload = Upload::Recorded;
        enqueued
    }

    /// Keeps the buffers of an upload whose stage was not launched.
    pub(crate) fn leave(&self, job: SlotUse, place: Place, upload: Upload) {
        let before = self.left().replace(Left { job, place, upload });
        assert!(before.is_none(), "an upload went ahead beside one that is left");
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were left up to now.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether an upload is left that was not seen to end; lets go of the buffers of one that was. The
    /// events are those of each place.
    pub(crate) fn is_left<'e>(&self, events: impl Fn(Place) -> &'e UploadEvents) -> bool {
        let mut left = self.left();
        let Some(upload) = left.as_mut() else { return false };
        let ended = events(upload.place).ended();
        if upload.upload == Upload::Enqueued && self.stream.record(ended).is_ok() {
            upload.upload = Upload::Recorded;
        }
        // Of a lost device nothing is known.
        let is_recorded = upload.upload != Upload::Enqueued;
        let is_over = is_recorded && matches!(ended.query(), Ok(EventStatus::Complete { .. }));
        if is_over {
            *left = None;
        }
        !is_over
    }

    /// Whether the end of an upload that is left is still to be seen, and will be.
    pub(crate) fn will_end<'e>(&self, events: impl Fn(Place) -> &'e UploadEvents) -> bool {
        let left = self.left();
        let recorded = left.as_ref().filter(|left| left.upload != Upload::Enqueued);
        let Some(Left { place, .. }) = recorded else { return false };
        matches!(events(*place).ended().query(), Ok(EventStatus::Pending))
    }

    /// Where the upload lies that is left and that a stage which is enqueued now on `stream` of the pool
    /// begins behind, if there is one.
    pub(crate) fn left_before(&self, stream: usize) -> Option<Place> {
        let left = self.left();
        let before = left.as_ref().filter(|left| left.upload == Upload::Before)?;
        (before.place.stream == stream).then_some(before.place)
    }

    fn left(&self) -> MutexGuard<'_, Option<Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        // Whoever asked last was told that it was not over: its buffers stay for ever.
        if let Some(left) = self.left().take() {
            std::mem::forget(left.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aegis_cuda::{CopyMark, SimConfig, SimFault, SimWaits};
    use aegis_trace::{Bytes, Nanos, Timestamp};
    use proptest::prelude::*;

    use crate::error::ContextError;
    use crate::streams::{Awaited, BusyStream, StageTimes, StreamPool, UploadedStream, Whose};

    use crate::slot::JobSlot;
    use crate::testing::{failing, queued, tell, work};

    use super::*;

    type Outcome = Result<(), ContextError>;

    fn sim() -> (DeviceContext, Arc<StreamPool>) {
        let limits = SimConfig { memory_limit: Bytes::ZERO, max_streams: 2, stream_depth: 16 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        let pool = StreamPool::uploading_ahead(&device, 1).expect("a stream, and one to upload on");
        (device, pool)
    }

    fn to(device: &DeviceContext, at: u64) {
        device.simulator().expect("simulated").advance_to(Timestamp(at));
    }

    /// A stage with its upload within.
    fn whole(upload: u64, cost: u64) -> impl FnOnce(&CudaStream) -> Outcome {
        move |stream| {
            work(upload)(stream)?;
            stream.mark(CopyMark::Uploaded)?;
            work(cost)(stream)
        }
    }

    fn times(busy: &BusyStream) -> StageTimes {
        busy.poll().expect("no fault").expect("it ended")
    }

    /// One stage: its upload and its work, whether the upload is to go ahead, and how long after the stage
    /// before has the device it is committed.
    type Stage = (u64, u64, bool, u64);

    /// When each stage begins and ends, and how long its upload took ahead of it.
    type Told = (u64, u64, u64);

    /// When each stage is committed, and what is told of it, from the rules alone.
    fn expected(stages: &[Stage]) -> (Vec<u64>, Vec<Told>) {
        let (mut commits, mut told) = (Vec::new(), Vec::new());
        // Since when the running stage has the device, when it ends, when its own upload is over.
        let (mut since, mut end, mut uploaded) = (0, 0, 0);
        let mut uploads_end = 0;
        for (index, &(upload, work, ahead, delay)) in stages.iter().enumerate() {
            let ahead = ahead && index > 0;
            let committed = (since + delay).min(end);
            let begun = if ahead {
                uploads_end = committed.max(uploads_end).max(uploaded) + upload;
                end.max(uploads_end)
            } else {
                end
            };
            let within = if ahead { 0 } else { upload };
            // The upload of a stage that went ahead is in order already.
            uploaded = if ahead { 0 } else { begun + upload };
            since = end;
            end = begun + within + work;
            commits.push(committed);
            told.push((begun, end, if ahead { upload } else { 0 }));
        }
        (commits, told)
    }

    /// The same on the pool.
    fn run(stages: &[Stage]) -> Vec<Told> {
        let (commits, _) = expected(stages);
        let (device, pool) = sim();
        let slot = queued();
        let mut told = Vec::new();
        let (upload, cost, _, _) = stages[0];
        let mut running = pool.lease().expect("free").launch(whole(upload, cost)).expect("room");
        for (&(upload, cost, ahead, _), commit) in stages[1..].iter().zip(&commits[1..]) {
            to(&device, *commit);
            let next = if ahead {
                let uploaded = running.upload_behind(&slot, work(upload)).expect("room");
                uploaded.launch(work(cost)).expect("room")
            } else {
                running.launch_job_behind(&slot, whole(upload, cost)).expect("room")
            };
            while running.poll().expect("no fault").is_none() {
                let next = device.simulator().expect("simulated").next_event();
                to(&device, next.expect("a stage is under way").0);
            }
            told.push(times(&running));
            running = next;
        }
        to(&device, u64::from(u32::MAX));
        told.push(times(&running));
        told.iter().map(|of| (of.started.0, of.finished.0, of.ahead.0)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn uploads_go_in_order_behind_that_of_the_running_stage(
            stages in prop::collection::vec((1..20u64, 1..30u64, any::<bool>(), 0..4u64), 1..9),
        ) {
            prop_assert_eq!(run(&stages), expected(&stages).1);
        }
    }

    #[test]
    fn an_upload_ahead_takes_no_time_of_the_device() {
        let stages = [(5, 30, false, 0), (10, 20, true, 0), (10, 20, true, 0)];
        assert_eq!(run(&stages), [(0, 35, 0), (35, 55, 10), (55, 75, 10)]);
    }

    #[test]
    fn an_upload_waits_for_that_of_the_stage_beside_which_it_goes() {
        // The upload of the first takes until 10; that of the second begins there, and ends at 15.
        assert_eq!(run(&[(10, 1, false, 0), (5, 3, true, 0)]), [(0, 11, 0), (15, 18, 5)]);
    }

    #[test]
    fn a_slot_is_free_once_the_stage_was_seen_to_end_whose_inputs_went_ahead() {
        let (device, pool) = sim();
        let slot = queued();
        let running = pool.lease().expect("free").launch(work(10)).expect("launched");
        let uploaded = running.upload_behind(&slot, work(5)).expect("room");
        let behind = uploaded.launch(work(10)).expect("room");
        tell(&slot);
        to(&device, 19);
        assert!(!slot.claim() && behind.poll().expect("no fault").is_none());
        to(&device, 20);
        drop(behind);
        assert!(slot.claim());
    }

    #[test]
    fn an_upload_whose_stage_hangs_keeps_its_slot() {
        let (device, pool) = sim();
        let slot = queued();
        let hangs = failing(10, Some(SimFault::Hang));
        let running = pool.lease().expect("free").launch(hangs).expect("launched");
        let uploaded = running.upload_behind(&slot, work(5)).expect("room");
        let behind = uploaded.launch(work(10)).expect("room");
        tell(&slot);
        to(&device, 1_000);
        drop((running, behind));
        assert!(!slot.claim(), "its stage waits on the device for ever");
        assert!(Arc::strong_count(&slot) > 1);
    }

    #[test]
    fn an_upload_whose_stage_was_not_launched_keeps_its_slot_until_it_was_seen_to_end() {
        let (device, pool) = sim();
        let slot = queued();
        let running = pool.lease().expect("free").launch(whole(10, 30)).expect("launched");
        let uploaded = running.upload_behind(&slot, work(5)).expect("room");
        assert!(uploaded.launch(failing(1, Some(SimFault::LaunchFailure))).is_err());
        tell(&slot);
        to(&device, 14);
        assert!(pool.is_uploading() && pool.awaits_upload() && !slot.claim());
        assert!(!running.can_upload_ahead(), "its events are in use");
        to(&device, 15);
        assert!(!pool.awaits_upload() && !pool.is_uploading());
        assert!(slot.claim(), "nothing reads it any more");
        assert!(running.can_upload_ahead());
        assert!(running.launch_behind(work(1)).is_ok(), "the place of its stage is free again");
    }

    #[test]
    fn a_stage_tells_how_long_before_it_its_own_upload_had_ended() {
        for (running, upload, before) in [(30, 5, 25), (3, 5, 0)] {
            let (device, pool) = sim();
            let slot = queued();
            let running = pool.lease().expect("free").launch(work(running)).expect("launched");
            let uploaded = running.upload_behind(&slot, work(upload)).expect("room");
            let behind = uploaded.launch(work(10)).expect("room");
            to(&device, 100);
            let (took, before) = (Nanos(upload), Nanos(before));
            assert_eq!(times(&running).awaited, None);
            assert_eq!(times(&behind).awaited, Some(Awaited { whose: Whose::Own, took, before }));
        }
    }

    #[test]
    fn an_upload_that_is_over_when_the_stage_gets_the_device_took_nothing_of_it() {
        // The running stage ends at 3, and the upload at 5.
        for (seen, took) in [(3, 5), (4, 5), (5, 0), (9, 0)] {
            let (device, pool) = sim();
            let slots = [queued(), queued()];
            let running = pool.lease().expect("free").launch(work(3)).expect("launched");
            let uploaded = running.upload_behind(&slots[0], work(5)).expect("room");
            let mut behind = uploaded.launch(work(10)).expect("room");
            to(&device, seen);
            behind.gets_device();
            to(&device, 100);
            let (whose, took, before) = (Whose::Own, Nanos(took), Nanos::ZERO);
            assert_eq!(times(&behind).awaited, Some(Awaited { whose, took, before }), "at {seen}");
            assert_eq!(times(&behind).ahead, Nanos(5));
        }
    }

    /// A stage of 3, and an upload of 20 whose stage is not launched behind it.
    fn with_upload_left(pool: &Arc<StreamPool>) -> (BusyStream, Arc<JobSlot>) {
        let slot = queued();
        let running = pool.lease().expect("free").launch(work(3)).expect("launched");
        let uploaded = running.upload_behind(&slot, work(20)).expect("room");
        assert!(uploaded.launch(failing(1, Some(SimFault::LaunchFailure))).is_err());
        tell(&slot);
        (running, slot)
    }

    #[test]
    fn an_upload_that_was_left_too() {
        for (seen, took) in [(19, 20), (20, 0)] {
            let (device, pool) = sim();
            let (running, _slot) = with_upload_left(&pool);
            let mut next = running.launch_behind(work(7)).expect("room");
            to(&device, seen);
            next.gets_device();
            to(&device, 100);
            let (whose, took, before) = (Whose::Left, Nanos(took), Nanos::ZERO);
            assert_eq!(times(&next).awaited, Some(Awaited { whose, took, before }), "at {seen}");
        }
    }

    #[test]
    fn each_upload_that_is_left_counts_also_where_the_one_before_has_ended() {
        let (device, pool) = sim();
        assert_eq!(pool.uploads_left(), 0);
        let (running, first) = with_upload_left(&pool);
        assert_eq!((pool.uploads_left(), pool.is_uploading()), (1, true));
        to(&device, 20);
        let second = queued();
        assert!(running.can_upload_ahead(), "the first is over");
        let uploaded = running.upload_behind(&second, work(5)).expect("room");
        assert_eq!(pool.uploads_left(), 1);
        drop(uploaded);
        assert_eq!((pool.uploads_left(), pool.is_uploading()), (2, true));
        tell(&second);
        to(&device, 25);
        assert!(!pool.is_uploading() && first.claim() && second.claim());
        assert_eq!(pool.uploads_left(), 2);
    }

    #[test]
    fn a_stage_on_another_stream_is_behind_no_upload_that_was_left() {
        let limits = SimConfig { memory_limit: Bytes::ZERO, max_streams: 3, stream_depth: 16 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        let pool = StreamPool::uploading_ahead(&device, 2).expect("two, and one to upload on");
        let (running, _slot) = with_upload_left(&pool);
        let first = pool.lease().expect("the second").launch(work(30)).expect("launched");
        // It begins when the upload is over, as one does that waited for it.
        let other = first.launch_behind(work(7)).expect("room");
        assert_ne!(other.id(), running.id());
        let next = running.launch_behind(work(7)).expect("room");
        to(&device, 100);
        assert_eq!(times(&other).awaited, None);
        assert_eq!(times(&next).awaited.map(|of| of.whose), Some(Whose::Left));
        assert_eq!(times(&running).awaited, None);
    }

    #[test]
    #[should_panic(expected = "beside an upload that is left")]
    fn nothing_goes_ahead_beside_an_upload_that_is_left() {
        let (_device, pool) = sim();
        let (running, _slot) = with_upload_left(&pool);
        drop(running.upload_behind(&queued(), work(5)));
    }

    #[test]
    fn a_stage_behind_an_upload_that_was_left_tells_of_it_and_nothing_goes_ahead_behind_it() {
        let not_launched = |uploaded: UploadedStream| {
            assert!(uploaded.launch(failing(1, Some(SimFault::LaunchFailure))).is_err());
        };
        // All of it, and a part of one.
        for fails in [None, Some(SimFault::LaunchFailure)] {
            let (device, pool) = sim();
            let slot = queued();
            let running = pool.lease().expect("free").launch(work(3)).expect("launched");
            let uploaded = running.upload_behind(&slot, |stream| {
                work(20)(stream)?;
                fails.map_or(Ok(()), |_| failing(5, fails)(stream))
            });
            assert_eq!(uploaded.is_ok(), fails.is_none());
            if let Ok(uploaded) = uploaded {
                not_launched(uploaded);
            }
            tell(&slot);
            let next = running.launch_behind(work(7)).expect("room");
            to(&device, 20);
            assert!(!pool.is_uploading() && running.can_upload_ahead());
            assert!(!next.can_upload_ahead(), "it would tell of the events of another upload");
            to(&device, 27);
            let StageTimes { started, finished, ahead, awaited, .. } = times(&next);
            assert_eq!((started.0, finished.0, ahead), (20, 27, Nanos::ZERO));
            let (took, before) = (Nanos(20), Nanos::ZERO);
            assert_eq!(awaited, Some(Awaited { whose: Whose::Left, took, before }));
        }
    }

    #[test]
    fn a_part_of_an_upload_is_seen_to_its_end_like_a_whole_one() {
        let (device, pool) = sim();
        let slot = queued();
        let running = pool.lease().expect("free").launch(work(30)).expect("launched");
        let refused = running.upload_behind(&slot, |stream| {
            work(5)(stream)?;
            failing(5, Some(SimFault::LaunchFailure))(stream)
        });
        assert!(refused.is_err());
        tell(&slot);
        assert!(pool.is_uploading() && !slot.claim());
        to(&device, 5);
        assert!(!pool.is_uploading() && slot.claim());
    }

    #[test]
    fn an_upload_that_is_not_launched_on_a_lost_device_keeps_its_slot() {
        let (device, pool) = sim();
        let slot = queued();
        let lost = failing(10, Some(SimFault::DeviceLost));
        let running = pool.lease().expect("free").launch(lost).expect("launched");
        let uploaded = running.upload_behind(&slot, work(50)).expect("room");
        to(&device, 20);
        tell(&slot);
        drop(uploaded);
        assert!(pool.is_uploading() && !slot.claim());
        assert!(!pool.awaits_upload(), "a stop would wait for ever");
        drop((running, pool));
        assert!(Arc::strong_count(&slot) > 1, "nothing is known of what the device still reads");
    }

    #[test]
    fn an_upload_without_room_for_its_end_is_looked_after_later() {
        let limits = SimConfig { memory_limit: Bytes::ZERO, max_streams: 2, stream_depth: 4 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        let pool = StreamPool::uploading_ahead(&device, 1).expect("two streams");
        let slot = queued();
        let running = pool.lease().expect("free").launch(work(30)).expect("launched");
        let full = running.upload_behind(&slot, |stream| (0..4).try_for_each(|_| work(5)(stream)));
        assert!(full.is_err());
        tell(&slot);
        to(&device, 19);
        assert!(pool.is_uploading(), "there is room by now, and it is recorded");
        assert!(!slot.claim());
        to(&device, 20);
        assert!(!pool.is_uploading() && slot.claim());
    }

    #[test]
    fn nothing_goes_ahead_on_a_device_that_does_not_hold_its_waits() {
        let limits = SimConfig { memory_limit: Bytes::ZERO, max_streams: 2, stream_depth: 16 };
        let refused = |waits| {
            let device = DeviceContext::sim(limits.clone()).expect("a simulated device");
            device.simulator().expect("simulated").set_waits(waits);
            StreamPool::uploading_ahead(&device, 1).map(drop)
        };
        assert!(refused(SimWaits::Held).is_ok());
        for waits in [SimWaits::Passed, SimWaits::Moved] {
            let error = refused(waits).expect_err("uploads would come too early, or too late");
            assert!(matches!(error, DeviceError::UploadsUnordered { .. }), "{error}");
        }
    }

    #[test]
    fn a_host_copies_nothing_ahead() {
        let device = DeviceContext::host(aegis_cuda::HostConfig {
            memory_limit: Bytes::ZERO,
            max_streams: 2,
            stream_depth: 4,
            spin: Nanos::ZERO,
            clock: aegis_trace::MonotonicClock::start(),
        });
        let refused = StreamPool::uploading_ahead(&device.expect("a host"), 1);
        let said = refused.expect_err("no engine").to_string();
        assert_eq!(
            said,
            "copying inputs ahead takes two copy engines, one for each direction, and the device has 0"
        );
    }
}

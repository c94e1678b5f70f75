//! The streams of a partition, lent to one context at a time.
//!
//! A loan's state is its type: an [`IdleStream`] has nothing enqueued, a [`BusyStream`] carries
//! one stage, and the wrong order does not compile. A second stage can be enqueued behind the one
//! that runs ([`BusyStream::launch_behind`]); it is a loan of the same stream with events of its own:
//!
//! ```text
//!   stream   begun 0  stage R  ended 0  begun 1  stage K  ended 1  begun 0 ...
//!   loans    |------- R --------|
//!                 |----------------- K -----------|
//! ```
//!
//! ```compile_fail,E0382
//! # use aegis_context::{ContextError, IdleStream};
//! # fn twice(idle: IdleStream) -> Result<(), ContextError> {
//! let first = idle.launch(|_| Ok::<(), ContextError>(()))?;
//! let second = idle.launch(|_| Ok::<(), ContextError>(()))?; // The loan was given to the first.
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//! 1. A stream is lent to at most one holder, who may have two stages on it in order.
//! 2. The pool lends a stream again only once the last event recorded on it has fired, so dropping
//!    a loan early is safe and never blocks. The same holds for each of its two pairs of events.
//! 3. The buffers of a job are in use from before its stage is enqueued until the stage was seen to
//!    end. A stage of which that is never seen keeps them, and their memory, for ever. Where inputs went
//!    ahead of a stage that was not launched, until their upload was seen to end (`uploads`).

mod loan;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use aegis_cuda::{
    CopyLoad, CudaStream, DeviceContext, DeviceError, HostWork, StageEvents, UploadEvents,
};
use aegis_trace::{Nanos, StreamId, Timestamp};

use crate::error::ContextError;
use crate::slot::JobSlot;
use crate::uploads::{Place, Uploads};

use loan::{Loan, times};

/// The streams of one partition.
#[derive(Debug)]
pub struct StreamPool {
    entries: Vec<Entry>,
    /// Where inputs go ahead of their stages, if they do.
    uploads: Option<Uploads>,
}

#[derive(Debug)]
struct Entry {
    stream: CudaStream,
    /// What the stages on it lie between, in turns.
    edges: [StageEvents; 2],
    /// What their uploads lie between, where those go ahead.
    uploads: [UploadEvents; 2],
    /// Loans: those that are held, and those given back with their last event still to fire.
    loans: AtomicU8,
}

impl StreamPool {
    /// Creates `count` streams on `device`, with the events of two stages each.
    ///
    /// # Errors
    /// [`DeviceError`] when the device has no more streams.
    pub fn new(device: &DeviceContext, count: u32) -> Result<Arc<Self>, DeviceError> {
        let entry = |_| {
            let stream = device.create_stream()?;
            let edges = [StageEvents::on(device)?, StageEvents::on(device)?];
            let uploads = [UploadEvents::on(device)?, UploadEvents::on(device)?];
            Ok(Entry { stream, edges, uploads, loans: AtomicU8::new(0) })
        };
        let entries = (0..count).map(entry).collect::<Result<_, DeviceError>>()?;
        Ok(Arc::new(Self { entries, uploads: None }))
    }

    /// The same with a stream more, on which inputs go ahead of the stages that are launched behind
    /// others ([`BusyStream::upload_behind`]). The device is asked whether it orders them
    /// ([`DeviceContext::probe_uploads_ahead`]), which takes milliseconds.
    ///
    /// # Errors
    /// As [`new`](Self::new), and what [`DeviceContext::probe_uploads_ahead`] says.
    pub fn uploading_ahead(device: &DeviceContext, count: u32) -> Result<Arc<Self>, DeviceError> {
        let Self { entries, .. } = Arc::into_inner(Self::new(device, count)?).expect("just made");
        let uploads =
            entries.first().map(|entry| Uploads::on(device, &entry.stream)).transpose()?;
        Ok(Arc::new(Self { entries, uploads }))
    }

    /// Whether an upload is under way that no stage waits for, because its stage could not be launched:
    /// until it has ended, the memory that it writes must not be given to anybody else. Never blocks; the
    /// device's signal rings when it ends.
    #[must_use]
    pub fn is_uploading(&self) -> bool {
        self.uploads.as_ref().is_some_and(|uploads| uploads.is_left(self.upload_events()))
    }

    /// Whether such an upload is under way whose end will be seen: not on a lost device, nor where the end
    /// could not be recorded. For whoever stops, and would wait for ever otherwise. Never blocks.
    #[must_use]
    pub fn awaits_upload(&self) -> bool {
        self.uploads.as_ref().is_some_and(|uploads| uploads.will_end(self.upload_events()))
    }

    /// How many such uploads there were up to now, those that have ended among them: who launches sees
    /// from it whether a launch that failed left one.
    #[must_use]
    pub fn uploads_left(&self) -> u64 {
        self.uploads.as_ref().map_or(0, Uploads::count)
    }

    fn upload_events<'e>(&'e self) -> impl Fn(Place) -> &'e UploadEvents {
        |Place { stream, edges }| &self.entries[stream].uploads[edges]
    }

    /// Runs `work` once on every stream, outside any job, and waits for it: set-up of the workers
    /// of a host device.
    ///
    /// # Errors
    /// [`DeviceError`] when the device is not the host, or the work faults.
    pub fn set_up(&self, work: &Arc<dyn HostWork>) -> Result<(), DeviceError> {
        for entry in &self.entries {
            entry.stream.enqueue_host(Arc::clone(work))?;
            entry.stream.synchronize()?;
        }
        Ok(())
    }

    /// The first stream, whose number is the lowest; `None` of none.
    #[must_use]
    pub fn first(&self) -> Option<StreamId> {
        self.entries.first().map(|entry| entry.stream.id())
    }

    /// How many streams there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Lends the idle stream of the lowest index, so that a serial partition always uses the same
    /// one. O(streams); neither blocks nor allocates.
    ///
    /// # Errors
    /// [`ContextError::StreamsExhausted`], Transient.
    pub fn lease(self: &Arc<Self>) -> Result<IdleStream, ContextError> {
        match self.entries.iter().position(|entry| entry.take(0)) {
            Some(index) => Ok(IdleStream { loan: Loan::of(self, index, 0) }),
            None => Err(ContextError::StreamsExhausted { limit: self.entries.len() }),
        }
    }
}

impl Entry {
    /// Adds a loan to the `held` ones, if there are exactly as many.
    fn take(&self, held: u8) -> bool {
        self.loans.compare_exchange(held, held + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// When the device began and ended a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTimes {
    /// The first of its work began: as long before `finished` as the device says it took.
    pub started: Timestamp,
    /// The last of its work was seen to end.
    pub finished: Timestamp,
    /// How long its inputs took to arrive, from `started` on; zero where that is not told apart.
    pub upload: Nanos,
    /// How long its outputs took to leave, up to `finished`; zero where that is not told apart.
    pub download: Nanos,
    /// How long its inputs took where they went ahead of it, before `started`; zero where they did not.
    pub ahead: Nanos,
    /// The upload on another stream that the device put it behind, as far as that is told.
    pub awaited: Option<Awaited>,
}

/// The upload that a stage was put behind, on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Whose it was.
    pub whose: Whose,
    /// How long it took; zero where it was over when the stage got the device
    /// ([`BusyStream::gets_device`]).
    pub took: Nanos,
    /// How long before the stage began it had ended, by the device's clock.
    pub before: Nanos,
}

/// Whose upload a stage was put behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Its own, which went ahead of it.
    Own,
    /// That of a stage that could not be launched: it was left on its way.
    Left,
}

/// A leased stream with nothing enqueued.
#[derive(Debug)]
#[must_use = "dropping the lease gives the stream back"]
pub struct IdleStream {
    loan: Loan,
}

impl IdleStream {
    /// Which stream it is.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.loan.entry().stream.id()
    }

    /// Enqueues one stage between two events. One lease, one stage in flight. A stage that is one
    /// graph records both by itself ([`CudaStream::between`]).
    ///
    /// # Errors
    /// What `enqueue` or the device says; the loan then ends.
    pub fn launch<E: From<DeviceError>>(
        self,
        enqueue: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<BusyStream, E> {
        self.loan.launch(enqueue)
    }

    /// The same for a stage of the job in `slot`, whose buffers are in use until the stage was seen to
    /// end: by [`BusyStream::poll`] or [`BusyStream::wait`], and the drop of the result.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    ///
    /// # Panics
    /// When the slot is not queued.
    pub fn launch_job<E: From<DeviceError>>(
        self,
        slot: &Arc<JobSlot>,
        enqueue: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<BusyStream, E> {
        self.loan.using(slot).launch(enqueue)
    }
}

/// A leased stream with one stage on it.
#[derive(Debug)]
#[must_use = "a stage in flight must be waited for"]
pub struct BusyStream {
    loan: Loan,
}

impl BusyStream {
    /// Which stream it is.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.loan.entry().stream.id()
    }

    /// Enqueues one stage more behind this one, which need not have ended: the device begins it when
    /// this one is done, without asking anybody.
    ///
    /// # Errors
    /// [`ContextError::StreamsExhausted`], Transient, where a stage has been put behind or before this
    /// one that has not been given back; what `enqueue` or the device says.
    pub fn launch_behind<E: From<DeviceError> + From<ContextError>>(
        &self,
        enqueue: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<Self, E> {
        self.place_behind()?.launch(enqueue)
    }

    /// The same for a stage of the job in `slot`; as [`IdleStream::launch_job`].
    ///
    /// # Errors
    /// As [`launch_behind`](Self::launch_behind).
    ///
    /// # Panics
    /// When the slot is not queued.
    pub fn launch_job_behind<E: From<DeviceError> + From<ContextError>>(
        &self,
        slot: &Arc<JobSlot>,
        enqueue: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<Self, E> {
        self.place_behind()?.using(slot).launch(enqueue)
    }

    /// Whether the inputs of a stage behind this one can go ahead of it: not while those of one that was
    /// not launched are on their way, nor behind the stage that began behind such ones.
    #[must_use]
    pub fn can_upload_ahead(&self) -> bool {
        let Loan { pool, left, .. } = &self.loan;
        pool.uploads.is_some() && left.is_none() && !pool.is_uploading()
    }

    /// Puts the inputs of the job in `slot`, whose first stage is to be launched behind this one, on
    /// their way to the device while this one runs: `upload` enqueues their copies. They begin once the
    /// upload of this stage is over, and in the order of these calls. The buffers are in use from here
    /// until the stage was seen to end or, where it is not launched, the upload was.
    ///
    /// # Errors
    /// As [`launch_behind`](Self::launch_behind). What was enqueued is seen to its end.
    ///
    /// # Panics
    /// When the slot is not queued, or it [cannot be done](Self::can_upload_ahead).
    pub fn upload_behind<E: From<DeviceError> + From<ContextError>>(
        &self,
        slot: &Arc<JobSlot>,
        upload: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<UploadedStream, E> {
        let mut loan = self.place_behind()?.using(slot);
        loan.upload(self.loan.edges(), upload)?;
        Ok(UploadedStream { loan })
    }

    fn place_behind(&self) -> Result<Loan, ContextError> {
        let Loan { pool, index, edges, .. } = &self.loan;
        if !self.loan.entry().take(1) {
            return Err(ContextError::StreamsExhausted { limit: pool.entries.len() });
        }
        Ok(Loan::of(pool, *index, 1 - edges))
    }

    /// Tells the stage that the device is its own now: it was launched on an idle one, or the stage
    /// before it was seen to end. If the upload that it was put behind is over by then, it waits for
    /// nothing of it any more, and [`Awaited::took`] is zero. Asks the device once, where there is such an
    /// upload; never blocks.
    pub fn gets_device(&mut self) {
        self.loan.note_device();
    }

    /// Whether the stage has ended, and when; `None` while it runs. Never blocks.
    ///
    /// # Errors
    /// The fault the stage ended with.
    pub fn poll(&self) -> Result<Option<StageTimes>, DeviceError> {
        self.loan.edges().poll()?.map(|finished| times(&self.loan, finished)).transpose()
    }

    /// Has `load` copy beside this stage, which was just launched and takes about `length`, from where its
    /// own upload is over on: as the inputs of others do that go ahead. Returns at once; for profiles.
    ///
    /// # Errors
    /// As [`CopyLoad::fill`].
    pub fn copy_beside(&self, load: &CopyLoad, length: Nanos) -> Result<(), DeviceError> {
        load.fill(self.loan.edges(), length)
    }

    /// The same where none of its copies are on their way any more, and else nothing.
    ///
    /// # Errors
    /// As [`CopyLoad::top_up`].
    pub fn keep_copying_beside(&self, load: &CopyLoad, length: Nanos) -> Result<(), DeviceError> {
        load.top_up(self.loan.edges(), length)
    }

    /// Blocks until the stage has ended.
    ///
    /// # Errors
    /// The fault the stage ended with.
    pub fn wait(&self) -> Result<StageTimes, DeviceError> {
        times(&self.loan, self.loan.edges().ended().synchronize()?)
    }
}

/// A leased stream behind a stage, with the inputs of the next one on their way.
#[derive(Debug)]
#[must_use = "dropping it leaves the upload to itself"]
pub struct UploadedStream {
    loan: Loan,
}

impl UploadedStream {
    /// Enqueues the stage, without its uploads: the device begins it when they and the stage before are
    /// done.
    ///
    /// # Errors
    /// What `enqueue` or the device says; the loan then ends.
    pub fn launch<E: From<DeviceError>>(
        self,
        enqueue: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<BusyStream, E> {
        self.loan.launch(enqueue)
    }
}

#[cfg(test)]
mod tests {
    use aegis_cuda::{HostConfig, SimConfig, SimFault};
    use aegis_trace::{Bytes, Clock, MonotonicClock, Nanos};

    use super::*;
    use crate::testing::{failing, queued, tell, work};

    fn sim() -> (DeviceContext, Arc<StreamPool>) {
        let limits = SimConfig { memory_limit: Bytes::ZERO, max_streams: 1, stream_depth: 8 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        let pool = StreamPool::new(&device, 1).expect("its one stream");
        (device, pool)
    }

    fn times(busy: &BusyStream) -> Option<(u64, u64)> {
        let times = busy.poll().expect("no fault")?;
        Some((times.started.0, times.finished.0))
    }

    #[test]
    fn a_stage_behind_another_begins_when_that_ends_and_has_times_of_its_own() {
        let (device, pool) = sim();
        let to = |at| device.simulator().expect("simulated").advance_to(Timestamp(at));
        let mut running = pool.lease().expect("free").launch(work(10)).expect("launched");
        for round in 0..5u64 {
            let behind = running.launch_behind(work(7)).expect("room for two");
            assert_eq!(behind.id(), running.id());
            let end = 10 + 7 * round;
            to(end);
            assert!(times(&running).is_some() && times(&behind).is_none(), "round {round}");
            running = behind;
            to(end + 6);
            assert_eq!(times(&running), None);
        }
        to(100);
        assert_eq!(times(&running), Some((38, 45)));
    }

    #[test]
    fn a_stream_takes_two_stages_and_is_lent_again_when_both_are_given_back() {
        let (device, pool) = sim();
        let first = pool.lease().expect("free").launch(work(10)).expect("launched");
        let second = first.launch_behind(work(10)).expect("room for two");
        for refused in [first.launch_behind(work(1)), second.launch_behind(work(1))] {
            assert!(matches!(refused, Err(ContextError::StreamsExhausted { limit: 1 })));
        }
        device.simulator().expect("simulated").advance_to(Timestamp(10));
        drop(first);
        assert!(pool.lease().is_err(), "the second is still on it");
        device.simulator().expect("simulated").advance_to(Timestamp(20));
        drop(second);
        assert!(pool.lease().is_ok());
    }

    #[test]
    fn a_loan_with_a_stage_under_way_keeps_the_stream() {
        let (device, pool) = sim();
        let first = pool.lease().expect("free").launch(work(10)).expect("launched");
        let second = first.launch_behind(work(10)).expect("room for two");
        drop(second);
        device.simulator().expect("simulated").advance_to(Timestamp(50));
        drop(first);
        assert!(pool.lease().is_err(), "it was given back with its event still to fire");
    }

    #[test]
    fn a_fault_is_that_of_its_own_stage() {
        let (device, pool) = sim();
        let fault = Some(SimFault::ExecutionFailure);
        let first = pool.lease().expect("free").launch(failing(10, fault)).expect("launched");
        let second = first.launch_behind(work(10)).expect("room for two");
        device.simulator().expect("simulated").advance_to(Timestamp(50));
        assert!(first.poll().is_err());
        assert!(times(&second).is_some());
    }

    #[test]
    fn a_launch_that_fails_behind_a_stage_leaves_that_alone() {
        let (_device, pool) = sim();
        let first = pool.lease().expect("free").launch(work(10)).expect("launched");
        let none = first.launch_behind(failing(1, Some(SimFault::LaunchFailure)));
        assert!(none.is_err());
        assert!(first.launch_behind(work(1)).is_ok(), "its place is free again");
    }

    #[test]
    fn a_slot_is_free_once_the_last_stage_of_its_job_was_seen_to_end() {
        let (device, pool) = sim();
        let slot = queued();
        let first = pool.lease().expect("free").launch_job(&slot, work(10)).expect("launched");
        let second = first.launch_job_behind(&slot, work(10)).expect("room for two");
        tell(&slot);
        device.simulator().expect("simulated").advance_to(Timestamp(10));
        drop(first);
        assert!(!slot.claim(), "the second still uses it");
        device.simulator().expect("simulated").advance_to(Timestamp(20));
        drop(second);
        assert!(slot.claim());
    }

    #[test]
    fn a_stage_that_is_given_up_keeps_its_slot_and_the_memory() {
        let (device, pool) = sim();
        let slot = queued();
        let hanging = pool.lease().expect("free").launch_job(&slot, work(10)).expect("launched");
        tell(&slot);
        drop(hanging);
        device.simulator().expect("simulated").advance_to(Timestamp(50));
        assert!(!slot.claim(), "nobody looked when it ended");
        assert!(Arc::strong_count(&slot) > 1, "and nobody frees what it may write");
    }

    #[test]
    fn a_stage_that_failed_or_was_not_launched_leaves_its_slot() {
        let (device, pool) = sim();
        let slot = queued();
        let fault = Some(SimFault::LaunchFailure);
        let none = pool.lease().expect("free").launch_job(&slot, failing(1, fault));
        assert!(none.is_err());
        let fault = Some(SimFault::ExecutionFailure);
        let failed = pool.lease().expect("free").launch_job(&slot, failing(1, fault));
        let failed = failed.expect("launched");
        device.simulator().expect("simulated").advance_to(Timestamp(50));
        tell(&slot);
        assert!(failed.poll().is_err() && !slot.claim());
        drop(failed);
        assert!(slot.claim());
    }

    #[test]
    fn a_stage_on_a_lost_device_keeps_its_slot() {
        let (device, pool) = sim();
        let slot = queued();
        let fault = Some(SimFault::DeviceLost);
        let lost = pool.lease().expect("free").launch_job(&slot, failing(1, fault));
        device.simulator().expect("simulated").advance_to(Timestamp(50));
        tell(&slot);
        drop(lost.expect("launched"));
        assert!(!slot.claim(), "nothing is known of what the device still does");
    }

    #[test]
    fn a_stage_without_an_end_keeps_its_stream_and_its_slot() {
        let limits = SimConfig { memory_limit: Bytes::ZERO, max_streams: 1, stream_depth: 1 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        let pool = StreamPool::new(&device, 1).expect("its one stream");
        let slot = queued();
        let full = pool.lease().expect("free").launch_job(&slot, work(10));
        assert!(full.is_err(), "the work fills the stream, and its end finds no room");
        tell(&slot);
        device.simulator().expect("simulated").advance_to(Timestamp(50));
        assert!(pool.lease().is_err() && !slot.claim());
    }

    /// Work that takes no time of its own.
    struct Nothing;

    impl HostWork for Nothing {
        fn run(&self) -> Result<(), aegis_cuda::WorkFault> {
            Ok(())
        }
    }

    #[test]
    fn on_the_host_too_stages_end_in_their_order() {
        let clock = MonotonicClock::start();
        let device = DeviceContext::host(HostConfig {
            memory_limit: Bytes::ZERO,
            max_streams: 1,
            stream_depth: 8,
            spin: Nanos::ZERO,
            clock,
        });
        let device = device.expect("a host device");
        let pool = StreamPool::new(&device, 1).expect("its one stream");
        let launch = |stream: &CudaStream| -> Result<(), ContextError> {
            Ok(stream.enqueue_host(Arc::new(Nothing))?)
        };
        for _ in 0..200 {
            let first = pool.lease().expect("free").launch(launch).expect("launched");
            let second = first.launch_behind(launch).expect("room for two");
            let (before, behind) =
                (first.wait().expect("no fault"), second.wait().expect("no fault"));
            assert!(before.started <= before.finished && before.finished <= behind.started);
            assert!(behind.started <= behind.finished && behind.finished <= clock.now());
        }
    }
}

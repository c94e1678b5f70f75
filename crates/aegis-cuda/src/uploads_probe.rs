//! The experiment that says whether a device orders uploads ahead as their analysis has it.
//!
//! Inputs go ahead on two facts about waits between streams that no manual states. They were measured, and
//! a device on which they do not hold would delay stages by the uploads of others without a word; so every
//! device is asked before it is relied on:
//!
//! ```text
//!   1  a wait for what a launched graph is still to record is a wait for that recording
//!      stages    | lead | graph ---- uploaded |
//!      uploads     wait . . . . . . . . . . . begun                 begun: not before uploaded
//!
//!   2  it stays that one where the event is recorded anew while the wait is still queued
//!      stages    | lead | graph -- uploaded | seen | long lead ------- | graph -- uploaded |
//!      uploads     | long work ------------------ | wait begun      begun: before the second uploaded
//! ```
//! Times are the device's own. A round in which the processor came too late to ask says nothing and is done
//! again, with more work in front.
//!
//! # Invariants
//! 1. A round counts only where the device had not got to the recording when the wait was enqueued and, of
//!    the second fact, not to the wait when the event was aimed at and launched again.
//! 2. Nothing waits in a circle, so on a device that keeps an order of its own each round ends. One that
//!    does not end in time is a refusal; what it copies then, nobody frees.
//! 3. The memory of the probe is charged to the limit of the device while it lasts.
#![allow(unsafe_code)] // Two windows on `CudaLane`; docs/soundness.md argues them.

use std::fmt;
use std::time::{Duration, Instant};

use aegis_trace::{Bytes, Category, Nanos};

use crate::cuda::CudaGraph;
use crate::device::DeviceContext;
use crate::error::DeviceError;
use crate::event::{CudaEvent, EventStatus};
use crate::host_buffer::HostBuffer;
use crate::memory::DeviceBuffer;
use crate::sim::{SimConfig, SimWork};
use crate::stage::{CopyMark, StageEvents, UploadEvents};
use crate::stream::CudaStream;

/// Rounds of each fact that have to count.
const ROUNDS: u32 = 4;
/// The most that are tried for them.
const TRIES: u32 = 16;
/// The most leads in front of a round: they double with each that did not count.
const LEADS_MAX: u32 = 8;
/// How long a round may take on a device whose time is not moved by hand.
const LIMIT: Duration = Duration::from_secs(2);

/// What one copy moves.
const COPY: usize = 256 << 10;
/// Copies of a lead, and of the uploads of a stage: tens of microseconds on the quickest bus.
const COPIES: usize = 16;
/// How many times as long as a lead the long work is.
const LONG: u8 = 4;
/// A lead in virtual time.
const LEAD: Nanos = Nanos::from_micros(100);

/// What was found of a device that does not order uploads as their analysis has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UploadOrder {
    /// A wait for what a launched graph was still to record was none.
    Passed {
        /// In which round, from one.
        round: u32,
        /// How long before that of the stage was over the upload behind it began.
        early: Nanos,
    },
    /// A wait for one recording became one for the next of the same event.
    Moved {
        /// In which round, from one.
        round: u32,
        /// How long after that recording the upload began.
        late: Nanos,
    },
    /// Too few rounds could tell.
    Untold {
        /// How many did.
        told: u32,
        /// Of how many.
        tried: u32,
    },
    /// A round did not end. Whoever frees memory of the device may wait for it, without end.
    Overdue {
        /// In which time.
        limit: Nanos,
    },
}

impl UploadOrder {
    /// What the caller can do: one who came too late may try again; work that never ends holds the device
    /// for as long as the process lives.
    #[must_use]
    pub fn category(self) -> Category {
        match self {
            Self::Passed { .. } | Self::Moved { .. } => Category::Permanent,
            Self::Untold { .. } => Category::Transient,
            Self::Overdue { .. } => Category::Fatal,
        }
    }
}

impl fmt::Display for UploadOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Passed { round, early } => write!(
                f,
                "does not: in round {round} an upload began {early} before that of the stage in front \
                 of it was over"
            ),
            Self::Moved { round, late } => write!(
                f,
                "has it wait for what the next graph records in the same place: in round {round} an \
                 upload began {late} behind that of a stage that was launched after it"
            ),
            Self::Untold { told, tried } => write!(
                f,
                "could not be asked: {told} of {tried} rounds told, and {ROUNDS} have to; the processor \
                 was kept from it each other time"
            ),
            Self::Overdue { limit } => write!(
                f,
                "does something else: a stream that waited for it did not go on within {limit}"
            ),
        }
    }
}

impl DeviceContext {
    /// Finds out whether the device orders uploads ahead as their analysis has it, with stages on `stages`
    /// and uploads on `uploads`, which are idle streams of this view.
    ///
    /// On `cuda` it copies for a few milliseconds, and takes half a megabyte of the device's memory, and
    /// of page-locked memory, meanwhile; blocks throughout, and gives up on a round of more than two
    /// seconds. On `sim` the same is done in a world of its own that has the
    /// [waits](crate::SimDevice::set_waits) of this one, whose time stands still. Set-up, once for each
    /// view.
    ///
    /// # Errors
    /// - As [`check_uploads_ahead`](Self::check_uploads_ahead).
    /// - [`DeviceError::UploadsUnordered`]: it does not, or could not be asked.
    /// - [`DeviceError::OutOfMemory`] (permanent): the limit has no room for the probe.
    /// - [`DeviceError::Cuda`], [`DeviceError::DeviceLost`] (fatal).
    pub fn probe_uploads_ahead(
        &self,
        stages: &CudaStream,
        uploads: &CudaStream,
    ) -> Result<(), DeviceError> {
        self.check_uploads_ahead()?;
        let Some(sim) = self.simulator() else {
            let work = Work::Copies(Box::new(Copies::captured(self, stages)?));
            return Probe::on(self, stages, uploads, work)?.run();
        };
        let limits = SimConfig { memory_limit: Bytes::ZERO, max_streams: 2, stream_depth: 64 };
        let twin = Self::sim(limits)?;
        twin.simulator().expect("just made").set_waits(sim.waits());
        let [stages, uploads] = [twin.create_stream()?, twin.create_stream()?];
        Probe::on(&twin, &stages, &uploads, Work::Virtual)?.run()
    }
}

/// What the streams are kept busy with.
enum Work {
    /// Time that is moved by hand.
    Virtual,
    /// Copies between the host and the device, in both directions: no kernel of ours has to be there.
    Copies(Box<Copies>),
}

/// Graphs of copies, with the memory that they name. Fields are dropped in their order: the graphs first.
struct Copies {
    /// Copies in, which are a stage's uploads.
    stage: CudaGraph,
    /// Copies out, and as many times as long.
    lead: CudaGraph,
    long: CudaGraph,
    _host: [HostBuffer; 2],
    _device: [DeviceBuffer; 2],
}

impl Copies {
    fn captured(device: &DeviceContext, stream: &CudaStream) -> Result<Self, DeviceError> {
        let arena = device.reserve_arena(Bytes(2 * COPY as u64))?;
        let [half, end] = [COPY as u64, 2 * COPY as u64];
        let [target, source] = [arena.buffer(0..half)?, arena.buffer(half..end)?];
        let [given, taken] = [device.host_buffer(COPY)?, device.host_buffer(COPY)?];
        let lane = stream.on_gpu()?;
        let copy_in = || {
            // SAFETY: (1) Both sides have `COPY` bytes, and live as long as the graph that names them.
            // (2) Nobody else has either.
            unsafe { lane.copy_in(given.first(), &target, COPY) }
        };
        let copy_out = || {
            // SAFETY: (1) and (2) as above; what graphs of such copies write beside each other, nobody
            // reads.
            unsafe { lane.copy_out(&source, taken.first(), COPY) }
        };
        let out = |copies: usize| stream.capture(|_| (0..copies).try_for_each(|_| copy_out()));
        let (lead, long) = (out(COPIES)?, out(COPIES * usize::from(LONG))?);
        let stage = stream.capture_stage(|stream| {
            (0..COPIES).try_for_each(|_| copy_in())?;
            stream.mark(CopyMark::Uploaded)
        })?;
        Ok(Self { stage, lead, long, _host: [given, taken], _device: [target, source] })
    }
}

/// What goes in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    Short,
    /// [`LONG`] times as long.
    Long,
}

impl Work {
    fn lead(&self, stream: &CudaStream, lead: Lead) -> Result<(), DeviceError> {
        match (self, lead) {
            (Self::Virtual, Lead::Short) => stream.enqueue_sim(costing(LEAD)),
            (Self::Virtual, Lead::Long) => stream.enqueue_sim(costing(LEAD * u64::from(LONG))),
            (Self::Copies(copies), Lead::Short) => stream.enqueue_graph(&copies.lead),
            (Self::Copies(copies), Lead::Long) => stream.enqueue_graph(&copies.long),
        }
    }

    /// Enqueues what makes a stage, where one is begun: its uploads, and their mark.
    fn stage(&self, stream: &CudaStream) -> Result<(), DeviceError> {
        match self {
            Self::Virtual => {
                stream.enqueue_sim(costing(LEAD * 2))?;
                stream.mark(CopyMark::Uploaded)
            }
            Self::Copies(copies) => stream.enqueue_graph(&copies.stage),
        }
    }
}

fn costing(cost: Nanos) -> SimWork {
    SimWork { cost, fault: None }
}

/// Whether a round says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Counts,
    Void,
}

impl Round {
    fn counts_if(counts: bool) -> Self {
        if counts { Self::Counts } else { Self::Void }
    }
}

/// The experiment on one pair of streams.
struct Probe<'d> {
    device: &'d DeviceContext,
    stages: &'d CudaStream,
    uploads: &'d CudaStream,
    work: Work,
    stage: StageEvents,
    upload: UploadEvents,
    /// Recorded behind the leads in front of each stage of a round.
    led: [CudaEvent; 2],
    /// Recorded behind the long work in front of the wait.
    plugged: CudaEvent,
}

impl<'d> Probe<'d> {
    fn on(
        device: &'d DeviceContext,
        stages: &'d CudaStream,
        uploads: &'d CudaStream,
        work: Work,
    ) -> Result<Self, DeviceError> {
        let (stage, upload) = (StageEvents::on(device)?, UploadEvents::on(device)?);
        let led = [device.create_event()?, device.create_event()?];
        let plugged = device.create_event()?;
        Ok(Self { device, stages, uploads, work, stage, upload, led, plugged })
    }

    fn run(self) -> Result<(), DeviceError> {
        let told = self.repeat(Self::waits).and_then(|()| self.repeat(Self::keeps));
        if let Err(DeviceError::UploadsUnordered { found: UploadOrder::Overdue { .. } }) = told {
            std::mem::forget(self); // Invariant 2.
            return told;
        }
        // What an error left enqueued ends before its buffers go.
        let idle = self.uploads.synchronize().and(self.stages.synchronize());
        told.and(idle)
    }

    /// Has `round` done until enough of them count.
    fn repeat(
        &self,
        round: impl Fn(&Self, u32, u32) -> Result<Round, DeviceError>,
    ) -> Result<(), DeviceError> {
        let mut told = 0;
        for number in 1..=TRIES {
            let voids = number - 1 - told;
            let leads = LEADS_MAX.min(1 << voids.min(LEADS_MAX));
            told += u32::from(round(self, number, leads)? == Round::Counts);
            if told == ROUNDS {
                return Ok(());
            }
        }
        Err(unordered(UploadOrder::Untold { told, tried: TRIES }))
    }

    /// A round of the first fact.
    fn waits(&self, round: u32, leads: u32) -> Result<Round, DeviceError> {
        let uploaded = self.stage.uploaded();
        self.launch(leads, Lead::Short, &self.led[0])?;
        // By turns the graph is still to begin, and has begun; nothing is behind its mark but its end.
        let has_begun = round.is_multiple_of(2);
        let later = if has_begun { self.stage.ended() } else { &self.led[0] };
        if has_begun {
            self.await_all(&[&self.led[0]])?;
        }
        self.uploads.wait_for(uploaded)?;
        self.uploads.record(self.upload.begun())?;
        let in_time = is_pending(later)?; // Invariant 1.
        self.await_all(&[self.stage.ended(), self.upload.begun()])?;
        match self.upload.begun().elapsed_since(uploaded) {
            Ok(_) => Ok(Round::counts_if(in_time)),
            Err(DeviceError::EventsOutOfOrder { .. }) => {
                let early = uploaded.elapsed_since(self.upload.begun())?;
                Err(unordered(UploadOrder::Passed { round, early }))
            }
            Err(other) => Err(other),
        }
    }

    /// A round of the second fact.
    fn keeps(&self, round: u32, leads: u32) -> Result<Round, DeviceError> {
        let (uploaded, begun) = (self.stage.uploaded(), self.upload.begun());
        self.launch(leads, Lead::Short, &self.led[0])?;
        (0..leads).try_for_each(|_| self.work.lead(self.uploads, Lead::Long))?;
        self.uploads.record(&self.plugged)?;
        self.uploads.wait_for(uploaded)?;
        self.uploads.record(begun)?;
        let in_time = is_pending(&self.led[0])?; // Invariant 1.
        self.await_all(&[self.stage.ended()])?;
        // Outside a stage the graph records events of its own, so the next launch aims it anew.
        self.work.stage(self.stages)?;
        self.launch(leads, Lead::Long, &self.led[1])?;
        let is_queued = is_pending(&self.plugged)?;
        self.await_all(&[self.stage.ended(), begun])?;
        // The second recording is to come well behind what the wait is queued behind.
        let is_behind = self.led[1].elapsed_since(&self.plugged).is_ok();
        match uploaded.elapsed_since(begun) {
            Ok(before) if before > Nanos::ZERO => {
                Ok(Round::counts_if(in_time && is_queued && is_behind))
            }
            Ok(_) | Err(DeviceError::EventsOutOfOrder { .. }) if !is_behind => Ok(Round::Void),
            Ok(_) | Err(DeviceError::EventsOutOfOrder { .. }) => {
                let late = begun.elapsed_since(uploaded)?;
                Err(unordered(UploadOrder::Moved { round, late }))
            }
            Err(other) => Err(other),
        }
    }

    /// Launches the stage behind as many leads and a recording of `led`.
    fn launch(&self, leads: u32, lead: Lead, led: &CudaEvent) -> Result<(), DeviceError> {
        (0..leads).try_for_each(|_| self.work.lead(self.stages, lead))?;
        self.stages.record(led)?;
        self.stages.between(&self.stage, |stream| self.work.stage(stream))
    }

    /// Waits until each of `events` has fired.
    fn await_all(&self, events: &[&CudaEvent]) -> Result<(), DeviceError> {
        let overdue = unordered(UploadOrder::Overdue { limit: Nanos::from(LIMIT) });
        let last = Instant::now() + LIMIT;
        for event in events {
            while is_pending(event)? {
                match self.device.simulator() {
                    Some(sim) => match sim.next_event() {
                        Some(next) => sim.advance_to(next),
                        None => return Err(overdue), // Nothing is left that could end the wait.
                    },
                    // Asked once more: this thread may have been kept from it all the while.
                    None if Instant::now() > last && is_pending(event)? => return Err(overdue),
                    None => std::thread::yield_now(),
                }
            }
        }
        Ok(())
    }
}

fn is_pending(event: &CudaEvent) -> Result<bool, DeviceError> {
    Ok(event.query()? == EventStatus::Pending)
}

fn unordered(found: UploadOrder) -> DeviceError {
    DeviceError::UploadsUnordered { found }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use aegis_trace::Timestamp;

    use super::*;
    use crate::sim::{SimFault, SimWaits};

    fn sim(waits: SimWaits) -> (DeviceContext, CudaStream, CudaStream) {
        let limits = SimConfig { memory_limit: Bytes::ZERO, max_streams: 2, stream_depth: 4 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        device.simulator().expect("simulated").set_waits(waits);
        let [stages, uploads] = [(), ()].map(|()| device.create_stream().expect("one of two"));
        (device, stages, uploads)
    }

    fn refused(waits: SimWaits) -> DeviceError {
        let (device, stages, uploads) = sim(waits);
        device.probe_uploads_ahead(&stages, &uploads).expect_err("it does not hold its waits")
    }

    #[test]
    fn a_device_that_holds_its_waits_is_relied_on_and_its_time_stands_still() {
        let (device, stages, uploads) = sim(SimWaits::Held);
        device.probe_uploads_ahead(&stages, &uploads).expect("it does");
        assert_eq!(device.clock().now(), Timestamp::ZERO);
        assert_eq!(device.simulator().expect("simulated").next_event(), None);
    }

    #[test]
    fn a_device_that_passes_over_waits_is_refused_with_how_much_too_early_it_was() {
        let error = refused(SimWaits::Passed);
        // The lead, and the upload of the stage behind it.
        let early = LEAD * 3;
        let found = UploadOrder::Passed { round: 1, early };
        assert!(matches!(error, DeviceError::UploadsUnordered { found: told } if told == found));
        assert_eq!(error.category(), Category::Permanent);
        assert_eq!(
            error.to_string(),
            "copying inputs ahead takes a driver that has a stream wait for what a launched graph is still \
             to record, and this one does not: in round 1 an upload began 300 us before that of the stage in \
             front of it was over"
        );
    }

    #[test]
    fn a_device_whose_waits_go_over_to_the_next_recording_is_refused() {
        let error = refused(SimWaits::Moved);
        assert_eq!(error.category(), Category::Permanent);
        assert_eq!(
            error.to_string(),
            "copying inputs ahead takes a driver that has a stream wait for what a launched graph is still \
             to record, and this one has it wait for what the next graph records in the same place: in round \
             1 an upload began 0 ns behind that of a stage that was launched after it"
        );
    }

    fn with_probe<R>(run: impl FnOnce(&Probe<'_>) -> R) -> R {
        let (device, stages, uploads) = sim(SimWaits::Held);
        run(&Probe::on(&device, &stages, &uploads, Work::Virtual).expect("events are memory"))
    }

    #[test]
    fn rounds_that_tell_nothing_are_done_again_behind_more_work_and_not_without_end() {
        let asked = RefCell::new(Vec::new());
        let answers = |counts: fn(u32) -> bool| {
            asked.borrow_mut().clear();
            with_probe(|probe| {
                probe.repeat(|_, round, leads| {
                    asked.borrow_mut().push(leads);
                    Ok(Round::counts_if(counts(round)))
                })
            })
        };
        answers(|round| round != 2).expect("four of five");
        assert_eq!(*asked.borrow(), [1, 1, 2, 2, 2]);
        let error = answers(|round| round <= 3).expect_err("three of all");
        let untold = UploadOrder::Untold { told: 3, tried: TRIES };
        assert!(matches!(error, DeviceError::UploadsUnordered { found } if found == untold));
        assert_eq!(error.category(), Category::Transient);
        assert_eq!(asked.borrow().last(), Some(&LEADS_MAX));
    }

    #[test]
    fn what_never_ends_is_not_waited_for() {
        let error = with_probe(|probe| {
            let hangs = SimWork { cost: LEAD, fault: Some(SimFault::Hang) };
            probe.stages.enqueue_sim(hangs).expect("room");
            probe.stages.record(&probe.plugged).expect("room");
            probe.await_all(&[&probe.plugged]).expect_err("it hangs")
        });
        let found = UploadOrder::Overdue { limit: Nanos::from(LIMIT) };
        assert!(matches!(error, DeviceError::UploadsUnordered { found: told } if told == found));
        assert_eq!(error.category(), Category::Fatal);
    }
}

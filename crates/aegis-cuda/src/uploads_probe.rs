//! The experiment that says whether a device orders uploads ahead as their analysis has it.
//!
//! Inputs go ahead on two facts about waits between streams that no manual states. They were measured, and
//! a device on which they do not hold would delay stages by the uploads of others without a word; so every
//! device is asked before it is relied on:
//!
//! ```text
//!   1  a wait for what a launched graph is still to record is a wait for that recording
//!      stages    | gate | graph ---- uploaded |
//!      uploads     wait . . . . . . . . . . . begun                     begun: not before uploaded
//!
//!   2  it stays that one where the event is recorded anew while the wait is still queued
//!      stages    | graph -- uploaded | seen | gate . . . . . . . . . . . | graph -- uploaded |
//!      uploads   | gate . . . . . . . . . . . . . . . | wait begun      begun: before the second uploaded
//! ```
//! Times are the device's own. Gates are opened by the processor once it has asked, so nothing depends on
//! who is quicker; but every second round of the first fact asks while the graph copies, and is done again
//! where the processor came too late.
//!
//! # Invariants
//! 1. A round counts only where the device had not got to the recording when the wait was enqueued and, of
//!    the second fact, not to the wait when the event was aimed at and launched again.
//! 2. Nothing waits in a circle once the gates are open, so on a device that keeps an order of its own each
//!    round ends. One that does not end in time is a refusal; what it copies then, nobody frees.
//! 3. The memory of the probe is charged to the limit of the device while it lasts.
#![allow(unsafe_code)] // A window on `CudaLane`; docs/soundness.md argues them.

use std::fmt;
use std::time::{Duration, Instant};

use aegis_trace::{Bytes, Category, Nanos};

use crate::cuda::CudaGraph;
use crate::device::DeviceContext;
use crate::error::DeviceError;
use crate::event::{CudaEvent, EventStatus};
use crate::gate::Gate;
use crate::host_buffer::HostBuffer;
use crate::memory::DeviceBuffer;
use crate::sim::{SimConfig, SimWork};
use crate::stage::{CopyMark, StageEvents, UploadEvents};
use crate::stream::CudaStream;

/// Rounds of each fact that have to count.
const ROUNDS: u32 = 4;
/// The most that are tried for them.
const TRIES: u32 = 16;
/// How long a round may take on a device whose time is not moved by hand.
const LIMIT: Duration = Duration::from_secs(2);
/// How long an upload that waits for nothing may take to begin, before the gate of the next stage opens:
/// only a device that does not keep its waits takes it.
const PATIENCE: Duration = Duration::from_millis(100);

/// What one copy moves.
const COPY: usize = 512 << 10;
/// Copies that are the uploads of a stage: a tenth of a millisecond on the quickest bus.
const COPIES: usize = 16;
/// How long the first gate is closed in virtual time.
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

/// What the streams do.
enum Work {
    /// Time that is moved by hand.
    Virtual,
    /// Copies from the host, between gates: no kernel of ours has to be there.
    Copies(Box<Copies>),
}

/// A graph of copies, with the memory that it names. Fields are dropped in their order: the graph first.
struct Copies {
    stage: CudaGraph,
    gates: [Gate; 3],
    _source: HostBuffer,
    _target: DeviceBuffer,
}

impl Copies {
    fn captured(device: &DeviceContext, stream: &CudaStream) -> Result<Self, DeviceError> {
        let target = device.reserve_arena(Bytes(COPY as u64))?.buffer(0..COPY as u64)?;
        let source = device.host_buffer(COPY)?;
        let lane = stream.on_gpu()?;
        let copy = || {
            // SAFETY: (1) Both sides have `COPY` bytes, and live as long as the graph that names them.
            // (2) Nobody else has either.
            unsafe { lane.copy_in(source.first(), &target, COPY) }
        };
        let stage = stream.capture_stage(|stream| {
            (0..COPIES).try_for_each(|_| copy())?;
            stream.mark(CopyMark::Uploaded)
        })?;
        let gates = [Gate::new(device)?, Gate::new(device)?, Gate::new(device)?];
        Ok(Self { stage, gates, _source: source, _target: target })
    }
}

/// What is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Stage,
    Upload,
    NextStage,
}

impl Work {
    /// Holds back what is enqueued on `stream` from now on: until it is let go, or in virtual time for as
    /// long as the processor needs for what it does meanwhile.
    fn hold(&self, held: Held, stream: &CudaStream) -> Result<(), DeviceError> {
        match self {
            Self::Virtual => stream.enqueue_sim(costing(match held {
                Held::Stage => LEAD,
                Held::Upload | Held::NextStage => LEAD * 4,
            })),
            Self::Copies(copies) => copies.gates[held as usize].close(stream),
        }
    }

    fn let_go(&self, held: Held) {
        if let Self::Copies(copies) = self {
            copies.gates[held as usize].open();
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
    /// Recorded where the first stage of a round is let go.
    led: CudaEvent,
}

impl<'d> Probe<'d> {
    fn on(
        device: &'d DeviceContext,
        stages: &'d CudaStream,
        uploads: &'d CudaStream,
        work: Work,
    ) -> Result<Self, DeviceError> {
        let (stage, upload) = (StageEvents::on(device)?, UploadEvents::on(device)?);
        Ok(Self { device, stages, uploads, work, stage, upload, led: device.create_event()? })
    }

    fn run(self) -> Result<(), DeviceError> {
        let told = self.repeat(Self::waits).and_then(|()| self.repeat(Self::keeps));
        // An error may have left some closed.
        [Held::Stage, Held::Upload, Held::NextStage]
            .iter()
            .for_each(|held| self.work.let_go(*held));
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
        round: impl Fn(&Self, u32) -> Result<Round, DeviceError>,
    ) -> Result<(), DeviceError> {
        let mut told = 0;
        for number in 1..=TRIES {
            told += u32::from(round(self, number)? == Round::Counts);
            if told == ROUNDS {
                return Ok(());
            }
        }
        Err(unordered(UploadOrder::Untold { told, tried: TRIES }))
    }

    /// A round of the first fact.
    fn waits(&self, round: u32) -> Result<Round, DeviceError> {
        let uploaded = self.stage.uploaded();
        self.launch(Held::Stage)?;
        // By turns the graph is still to begin, and has begun; nothing is behind its mark but its end.
        let has_begun = round.is_multiple_of(2);
        let later = if has_begun { self.stage.ended() } else { &self.led };
        if has_begun {
            self.work.let_go(Held::Stage);
            self.await_all(&[&self.led])?;
        }
        self.uploads.wait_for(uploaded)?;
        self.uploads.record(self.upload.begun())?;
        let in_time = is_pending(later)?; // Invariant 1.
        self.work.let_go(Held::Stage);
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
    fn keeps(&self, round: u32) -> Result<Round, DeviceError> {
        let (uploaded, begun) = (self.stage.uploaded(), self.upload.begun());
        self.launch(Held::Stage)?;
        self.work.hold(Held::Upload, self.uploads)?;
        self.uploads.wait_for(uploaded)?;
        self.uploads.record(begun)?;
        let in_time = is_pending(&self.led)?; // Invariant 1.
        self.work.let_go(Held::Stage);
        self.await_all(&[self.stage.ended()])?;
        // Outside a stage the graph records events of its own, so the next launch aims it anew.
        self.work.stage(self.stages)?;
        self.launch(Held::NextStage)?;
        let is_queued = is_pending(begun)?; // Invariant 1.
        self.work.let_go(Held::Upload);
        let _begun_by_itself = self.await_each(&[begun], PATIENCE)?;
        self.work.let_go(Held::NextStage);
        self.await_all(&[self.stage.ended(), begun])?;
        match uploaded.elapsed_since(begun) {
            Ok(before) if before > Nanos::ZERO => Ok(Round::counts_if(in_time && is_queued)),
            Ok(_) | Err(DeviceError::EventsOutOfOrder { .. }) => {
                let late = begun.elapsed_since(uploaded)?;
                Err(unordered(UploadOrder::Moved { round, late }))
            }
            Err(other) => Err(other),
        }
    }

    /// Launches the stage, held back.
    fn launch(&self, held: Held) -> Result<(), DeviceError> {
        self.work.hold(held, self.stages)?;
        self.stages.record(&self.led)?;
        self.stages.between(&self.stage, |stream| self.work.stage(stream))
    }

    /// Waits until each of `events` has fired.
    fn await_all(&self, events: &[&CudaEvent]) -> Result<(), DeviceError> {
        if self.await_each(events, LIMIT)? {
            return Ok(());
        }
        Err(unordered(UploadOrder::Overdue { limit: Nanos::from(LIMIT) }))
    }

    /// Waits until each of `events` has fired, for at most `limit`; whether they have.
    fn await_each(&self, events: &[&CudaEvent], limit: Duration) -> Result<bool, DeviceError> {
        let last = Instant::now() + limit;
        for event in events {
            while is_pending(event)? {
                match self.device.simulator() {
                    Some(sim) => match sim.next_event() {
                        Some(next) => sim.advance_to(next),
                        None => return Ok(false), // Nothing is left that could end the wait.
                    },
                    // Asked once more: this thread may have been kept from it all the while.
                    None if Instant::now() > last && is_pending(event)? => return Ok(false),
                    None => std::thread::yield_now(),
                }
            }
        }
        Ok(true)
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
    use std::cell::Cell;

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
    fn rounds_that_tell_nothing_are_done_again_and_not_without_end() {
        let asked = Cell::new(0);
        let answers = |counts: fn(u32) -> bool| {
            with_probe(|probe| {
                probe.repeat(|_, round| {
                    asked.set(round);
                    Ok(Round::counts_if(counts(round)))
                })
            })
        };
        answers(|round| round != 2).expect("four of five");
        assert_eq!(asked.get(), 5);
        let error = answers(|round| round <= 3).expect_err("three of all");
        let untold = UploadOrder::Untold { told: 3, tried: TRIES };
        assert!(matches!(error, DeviceError::UploadsUnordered { found } if found == untold));
        assert_eq!((error.category(), asked.get()), (Category::Transient, TRIES));
    }

    #[test]
    fn what_never_ends_is_not_waited_for() {
        let error = with_probe(|probe| {
            let hangs = SimWork { cost: LEAD, fault: Some(SimFault::Hang) };
            probe.stages.enqueue_sim(hangs).expect("room");
            probe.stages.record(&probe.led).expect("room");
            probe.await_all(&[&probe.led]).expect_err("it hangs")
        });
        let found = UploadOrder::Overdue { limit: Nanos::from(LIMIT) };
        assert!(matches!(error, DeviceError::UploadsUnordered { found: told } if told == found));
        assert_eq!(error.category(), Category::Fatal);
    }
}

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
//! who is quicker, but for two kinds of rounds, which are done again where they told nothing: half of those
//! of the first fact ask while the graph copies, and the processor may come too late; and in those of the
//! second an upload that is free to begin may take so long that the next stage is let go before it.
//!
//! # Invariants
//! 1. A round counts only where the device was seen to have something to come: when the wait was enqueued,
//!    the beginning of the stage, or of a graph that has begun its end, which comes behind its `uploaded`
//!    by one recording and nothing else; of the second fact also the wait, when the event was aimed at and
//!    launched again. (A wait that falls between those two recordings counts, and tells nothing. That a
//!    graph has begun is seen by what was in front of it: its own first recording is told with its last.)
//! 2. Nothing waits in a circle once the gates are open, so on a device that keeps an order of its own each
//!    round ends. One that does not end in time is a refusal; what it copies then, nobody frees.
//! 3. The memory of the probe is charged to the limit of the device while it lasts.
//! 4. However the experiment is left, also by a panic, all gates are open and both streams idle before
//!    anything of it is freed.

use std::cell::Cell;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

use aegis_trace::{Bytes, Nanos};

use crate::device::DeviceContext;
use crate::error::DeviceError;
use crate::event::{CudaEvent, EventStatus};
use crate::gate::Gate;
use crate::sim::SimConfig;
use crate::stage::{StageEvents, UploadEvents};
use crate::stream::CudaStream;
use crate::upload_order::{LAUNCH_BLOCKING, UploadOrder, VoidRounds};
use crate::upload_work::{Copies, Held, Virtual, Work};

/// Rounds of the first fact that have to count before the graph has begun, and as many behind that.
const ROUNDS_WAITED: u32 = 2;
/// Rounds of the second fact that have to count.
const ROUNDS_KEPT: u32 = 4;
/// The most that are tried for those of one kind.
const TRIES: u32 = 16;
/// Rounds whose upload was behind the next stage, and had not begun before that was let go, that are taken
/// for the device's way: each alone may be one in which a device that others use too was slow.
const MOVED: u32 = 3;
/// How long a round may take on a device whose time is not moved by hand.
const LIMIT: Duration = Duration::from_secs(2);
/// How long an upload that waits for nothing may take to begin, before the gate of the next stage opens:
/// longer takes one that does not keep its waits, or that others keep.
const PATIENCE: Duration = Duration::from_millis(100);

impl DeviceContext {
    /// Finds out whether the device orders uploads ahead as their analysis has it, with stages on `stages`
    /// and uploads on `uploads`, which are idle streams of this view.
    ///
    /// On `cuda` it copies for a few milliseconds, and takes half a megabyte of the device's memory, and
    /// of page-locked memory, meanwhile; blocks throughout, and gives up on a round of more than two
    /// seconds. On `sim` the same is done in a world of its own that has the
    /// [waits](crate::SimDevice::set_waits) of this one, whose time stands still. Set-up, once for each
    /// view. Says how many rounds it took more than it takes where both have time.
    ///
    /// On `cuda` the environment is read: with `CUDA_LAUNCH_BLOCKING` set, and not to 0, nothing is asked,
    /// since the driver would block in a launch whose gate this thread is to open. The driver reads it when
    /// it starts, so it must not change after that.
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
    ) -> Result<VoidRounds, DeviceError> {
        self.check_uploads_ahead()?;
        let Some(sim) = self.simulator() else {
            if has_launches_block(std::env::var_os(LAUNCH_BLOCKING).as_deref()) {
                return Err(unordered(UploadOrder::Blocking));
            }
            let work = Work::Copies(Box::new(Copies::captured(self, stages)?));
            return Probe::on(self, stages, uploads, work)?.run();
        };
        let limits = SimConfig { memory_limit: Bytes::ZERO, max_streams: 2, stream_depth: 64 };
        let twin = Self::sim(limits)?;
        twin.simulator().expect("just made").set_waits(sim.waits());
        let [stages, uploads] = [twin.create_stream()?, twin.create_stream()?];
        Probe::on(&twin, &stages, &uploads, Work::Virtual(Virtual::PROMPT))?.run()
    }
}

/// Whether a driver that found `value` waits for the end of each launch. No manual says what it takes for
/// no but 0.
fn has_launches_block(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| value != "0")
}

/// Where the graph is that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Behind a closed gate.
    BeforeBegin,
    /// At the head of its stream: what was in front of it was seen to be over.
    AfterBegin,
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

/// The experiment on one pair of streams. Fields are dropped behind its own drop: invariant 4.
struct Probe<'d> {
    device: &'d DeviceContext,
    stages: &'d CudaStream,
    uploads: &'d CudaStream,
    work: Work,
    /// One for whatever is [held](Held).
    gates: [Gate; 3],
    stage: StageEvents,
    upload: UploadEvents,
    /// Recorded where the first stage of a round is let go.
    led: CudaEvent,
    /// Rounds that may have shown that a wait had gone over.
    moved: Cell<u32>,
}

impl<'d> Probe<'d> {
    fn on(
        device: &'d DeviceContext,
        stages: &'d CudaStream,
        uploads: &'d CudaStream,
        work: Work,
    ) -> Result<Self, DeviceError> {
        let (stage, upload) = (StageEvents::on(device)?, UploadEvents::on(device)?);
        let (led, moved) = (device.create_event()?, Cell::new(0));
        let gates = [Gate::new(device)?, Gate::new(device)?, Gate::new(device)?];
        Ok(Self { device, stages, uploads, work, gates, stage, upload, led, moved })
    }

    fn run(self) -> Result<VoidRounds, DeviceError> {
        let told = self.ask();
        if let Err(DeviceError::UploadsUnordered { found: UploadOrder::Overdue { .. } }) = told {
            self.gates.iter().for_each(Gate::open);
            std::mem::forget(self); // Invariant 2.
            return told;
        }
        let idle = self.end();
        told.and_then(|void| idle.map(|()| void))
    }

    fn ask(&self) -> Result<VoidRounds, DeviceError> {
        let waits = |asked| self.repeat(ROUNDS_WAITED, |round| self.waits(round, asked));
        Ok(VoidRounds {
            before_begin: waits(Asked::BeforeBegin)?,
            after_begin: waits(Asked::AfterBegin)?,
            recorded_again: self.repeat(ROUNDS_KEPT, |round| self.keeps(round))?,
        })
    }

    /// Has `round` done until `wanted` of them count; how many did not.
    fn repeat(
        &self,
        wanted: u32,
        round: impl Fn(u32) -> Result<Round, DeviceError>,
    ) -> Result<u32, DeviceError> {
        let mut told = 0;
        for number in 1..=TRIES {
            told += u32::from(round(number)? == Round::Counts);
            if told == wanted {
                return Ok(number - told);
            }
        }
        Err(unordered(UploadOrder::Untold { told, wanted, tried: TRIES }))
    }

    /// Opens all gates and waits for both streams: an error may have left something closed or enqueued.
    fn end(&self) -> Result<(), DeviceError> {
        self.gates.iter().for_each(Gate::open);
        self.uploads.synchronize().and(self.stages.synchronize())
    }

    /// A round of the first fact.
    fn waits(&self, round: u32, asked: Asked) -> Result<Round, DeviceError> {
        let uploaded = self.stage.uploaded();
        self.launch(Held::Stage)?;
        let later = match asked {
            Asked::BeforeBegin => &self.led,
            Asked::AfterBegin => {
                self.let_go(Held::Stage);
                self.await_all(&[&self.led])?;
                self.stage.ended()
            }
        };
        self.uploads.wait_for(uploaded)?;
        self.uploads.record(self.upload.begun())?;
        let in_time = is_pending(later)?; // Invariant 1.
        self.let_go(Held::Stage);
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
        self.hold(Held::Upload, self.uploads)?;
        self.uploads.wait_for(uploaded)?;
        self.uploads.record(begun)?;
        let in_time = is_pending(&self.led)?; // Invariant 1.
        self.let_go(Held::Stage);
        self.await_all(&[self.stage.ended()])?;
        // Outside a stage the graph records events of its own, so the next launch aims it anew.
        self.work.stage(self.stages)?;
        self.launch(Held::NextStage)?;
        let is_queued = is_pending(begun)?; // Invariant 1.
        self.let_go(Held::Upload);
        let by_itself = self.await_each(&[begun], PATIENCE)?;
        self.let_go(Held::NextStage);
        self.await_all(&[self.stage.ended(), begun])?;
        match uploaded.elapsed_since(begun) {
            Ok(before) if before > Nanos::ZERO => Ok(Round::counts_if(in_time && is_queued)),
            Ok(_) | Err(DeviceError::EventsOutOfOrder { .. }) => {
                let late = begun.elapsed_since(uploaded)?;
                self.moved.set(self.moved.get() + 1);
                if !by_itself && self.moved.get() < MOVED {
                    return Ok(Round::Void);
                }
                Err(unordered(UploadOrder::Moved { round, late }))
            }
            Err(other) => Err(other),
        }
    }

    fn hold(&self, held: Held, stream: &CudaStream) -> Result<(), DeviceError> {
        self.work.hold(held, &self.gates[held as usize], stream)
    }

    fn let_go(&self, held: Held) {
        self.gates[held as usize].open();
    }

    /// Launches the stage, held back.
    fn launch(&self, held: Held) -> Result<(), DeviceError> {
        self.hold(held, self.stages)?;
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
        let last_virtual = self.device.clock().now().saturating_add(Nanos::from(limit));
        for event in events {
            while is_pending(event)? {
                match self.device.simulator() {
                    Some(sim) => match sim.next_event() {
                        Some(next) if next <= last_virtual => sim.advance_to(next),
                        Some(_) => {
                            sim.advance_to(last_virtual);
                            return Ok(false);
                        }
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

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        // Invariant 4. Nobody is left to be told of an error: behind `run` there is nothing to wait for,
        // and a panic says what it has to say.
        let _ = self.end();
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
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use aegis_trace::{Category, Timestamp};

    use super::*;
    use crate::sim::{SimFault, SimWaits, SimWork};
    use crate::upload_work::{REACTION, SLOW_REACTION, STAGE};

    fn sim(waits: SimWaits) -> (DeviceContext, CudaStream, CudaStream) {
        let limits = SimConfig { memory_limit: Bytes::ZERO, max_streams: 2, stream_depth: 16 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        device.simulator().expect("simulated").set_waits(waits);
        let [stages, uploads] = [(), ()].map(|()| device.create_stream().expect("one of two"));
        (device, stages, uploads)
    }

    fn refused(waits: SimWaits) -> DeviceError {
        let (device, stages, uploads) = sim(waits);
        device.probe_uploads_ahead(&stages, &uploads).expect_err("it does not hold its waits")
    }

    fn found(error: &DeviceError) -> UploadOrder {
        let DeviceError::UploadsUnordered { found } = error else { panic!("{error}") };
        *found
    }

    /// Runs with a probe of a device that holds its waits and works as `work` has it.
    fn with_probe<R>(work: Virtual, run: impl FnOnce(&mut Probe<'_>) -> R) -> R {
        with_probe_of(SimWaits::Held, work, run)
    }

    fn with_probe_of<R>(
        waits: SimWaits,
        work: Virtual,
        run: impl FnOnce(&mut Probe<'_>) -> R,
    ) -> R {
        let (device, stages, uploads) = sim(waits);
        let probe = Probe::on(&device, &stages, &uploads, Work::Virtual(work));
        run(&mut probe.expect("events are memory"))
    }

    /// What works at once, but for `held`, which goes on after that time or was never held.
    fn reacting(held: Held, reaction: Option<Nanos>) -> Virtual {
        let mut work = Virtual::PROMPT;
        work.reactions[held as usize] = reaction;
        work
    }

    #[test]
    fn a_device_that_holds_its_waits_is_relied_on_and_its_time_stands_still() {
        let (device, stages, uploads) = sim(SimWaits::Held);
        let void = device.probe_uploads_ahead(&stages, &uploads).expect("it does");
        assert_eq!(void, VoidRounds { before_begin: 0, after_begin: 0, recorded_again: 0 });
        assert_eq!(device.clock().now(), Timestamp::ZERO);
        assert_eq!(device.simulator().expect("simulated").next_event(), None);
    }

    #[test]
    fn a_device_that_passes_over_waits_is_refused_with_how_much_too_early_it_was() {
        let error = refused(SimWaits::Passed);
        // The reaction, and the upload of the stage behind it.
        let early = REACTION + STAGE;
        assert_eq!(found(&error), UploadOrder::Passed { round: 1, early });
        assert_eq!(error.category(), Category::Permanent);
        assert_eq!(
            error.to_string(),
            "copying inputs ahead takes a driver that has a stream wait for what a launched graph is still \
             to record, and this one does not: in round 1 an upload began 300 us before that of the stage in \
             front of it was over"
        );
    }

    #[test]
    fn a_device_that_passes_over_waits_for_one_kind_of_stage_is_refused() {
        let of = |waits| found(&refused(waits));
        let early = REACTION + STAGE;
        assert_eq!(of(SimWaits::PassedBeforeBegin), UploadOrder::Passed { round: 1, early });
        let early = STAGE;
        assert_eq!(of(SimWaits::PassedAfterBegin), UploadOrder::Passed { round: 1, early });
    }

    #[test]
    fn a_device_whose_waits_go_over_to_the_next_recording_is_refused() {
        let error = refused(SimWaits::Moved);
        assert_eq!(error.category(), Category::Permanent);
        assert_eq!(
            error.to_string(),
            "copying inputs ahead takes a driver that has a stream wait for what a launched graph is still \
             to record, and this one has it wait for what the next graph records in the same place: in round \
             3 an upload began 0 ns behind that of a stage that was launched after it"
        );
    }

    #[test]
    fn an_upload_that_the_machine_kept_is_not_taken_for_one_that_waits() {
        let slow = reacting(Held::Upload, Some(Nanos::from(PATIENCE * 2)));
        let told = with_probe(slow, |probe| {
            let mut told = vec![probe.keeps(1), probe.keeps(2)];
            probe.work = Work::Virtual(Virtual::PROMPT);
            told.push(probe.keeps(3));
            probe.work = Work::Virtual(slow);
            told.push(probe.keeps(4));
            told
        });
        let [Ok(Round::Void), Ok(Round::Void), Ok(Round::Counts), Err(error)] = &told[..] else {
            panic!("{told:?}");
        };
        let late = Nanos::from(PATIENCE) - REACTION - STAGE;
        assert_eq!(found(error), UploadOrder::Moved { round: 4, late });
    }

    #[test]
    fn an_upload_that_begins_by_itself_behind_the_next_stage_is_taken_at_its_word() {
        let unheld = reacting(Held::NextStage, None);
        let error = with_probe_of(SimWaits::Moved, unheld, |probe| {
            probe.keeps(1).expect_err("it began behind the next recording")
        });
        let late = SLOW_REACTION - STAGE * 2;
        assert_eq!(found(&error), UploadOrder::Moved { round: 1, late });
    }

    #[test]
    fn rounds_of_a_stage_that_was_not_held_tell_nothing() {
        let told = with_probe(reacting(Held::Stage, None), |probe| {
            let [before, after] = [Asked::BeforeBegin, Asked::AfterBegin]
                .map(|asked| probe.waits(1, asked).expect("it holds its waits"));
            [before, after, probe.keeps(1).expect("it holds its waits")]
        });
        assert_eq!(told, [Round::Void, Round::Counts, Round::Void]);
    }

    #[test]
    fn a_stage_that_was_over_when_it_was_asked_for_tells_nothing() {
        let short = Virtual { stage: Nanos::ZERO, ..Virtual::PROMPT };
        let told = with_probe(short, |probe| probe.waits(1, Asked::AfterBegin));
        assert_eq!(told.expect("it holds its waits"), Round::Void);
        let told = with_probe(Virtual::PROMPT, |probe| probe.waits(1, Asked::AfterBegin));
        assert_eq!(told.expect("it holds its waits"), Round::Counts);
        let error = with_probe(short, |probe| probe.ask().expect_err("no stage is long enough"));
        let untold = UploadOrder::Untold { told: 0, wanted: 2, tried: TRIES };
        assert_eq!(found(&error), untold);
    }

    #[test]
    fn an_upload_that_had_begun_before_its_event_was_recorded_again_tells_nothing() {
        let told = with_probe(reacting(Held::Upload, None), |probe| probe.keeps(1));
        assert_eq!(told.expect("it holds its waits"), Round::Void);
    }

    #[test]
    fn rounds_that_tell_nothing_are_done_again_and_not_without_end() {
        let asked = Cell::new(0);
        let answers = |counts: fn(u32) -> bool| {
            with_probe(Virtual::PROMPT, |probe| {
                probe.repeat(4, |round| {
                    asked.set(round);
                    Ok(Round::counts_if(counts(round)))
                })
            })
        };
        assert_eq!(answers(|round| round != 2).expect("four of five"), 1);
        assert_eq!(asked.get(), 5);
        let error = answers(|round| round <= 3).expect_err("three of all");
        assert_eq!(found(&error), UploadOrder::Untold { told: 3, wanted: 4, tried: TRIES });
        assert_eq!((error.category(), asked.get()), (Category::Transient, TRIES));
    }

    #[test]
    fn what_never_ends_is_not_waited_for() {
        let error = with_probe(Virtual::PROMPT, |probe| {
            let hangs = SimWork { cost: REACTION, fault: Some(SimFault::Hang) };
            probe.stages.enqueue_sim(hangs).expect("room");
            probe.stages.record(&probe.led).expect("room");
            probe.await_all(&[&probe.led]).expect_err("it hangs")
        });
        assert_eq!(found(&error), UploadOrder::Overdue { limit: Nanos::from(LIMIT) });
        assert_eq!(error.category(), Category::Fatal);
    }

    #[test]
    fn a_panic_leaves_no_stream_behind_a_closed_gate() {
        let (device, stages, uploads) = sim(SimWaits::Held);
        let broken = catch_unwind(AssertUnwindSafe(|| {
            let work = Work::Virtual(Virtual::PROMPT);
            let probe = Probe::on(&device, &stages, &uploads, work).expect("events are memory");
            probe.launch(Held::Stage).expect("room");
            probe.hold(Held::Upload, &uploads).expect("room");
            assert_eq!(device.simulator().expect("simulated").next_event(), None);
            std::panic::resume_unwind(Box::new("between close and open"));
        }));
        let panic = broken.expect_err("it panics");
        assert_eq!(panic.downcast_ref(), Some(&"between close and open"));
        device.simulator().expect("simulated").advance_to(Timestamp::ZERO + SLOW_REACTION);
        stages.synchronize().expect("all of it has ended");
        uploads.synchronize().expect("all of it has ended");
    }

    #[test]
    fn only_a_launch_that_does_not_wait_is_asked() {
        let blocks = |value| has_launches_block(Option::map(value, OsStr::new));
        assert!(!blocks(None) && !blocks(Some("0")));
        assert!(blocks(Some("1")) && blocks(Some("")) && blocks(Some("yes")));
        let error = unordered(UploadOrder::Blocking);
        assert_eq!(error.category(), Category::Permanent);
        assert_eq!(
            error.to_string(),
            "copying inputs ahead takes a driver that has a stream wait for what a launched graph is still \
             to record, and this one cannot be asked: `CUDA_LAUNCH_BLOCKING` has each launch wait for its \
             end; unset it, or set it to 0"
        );
    }
}

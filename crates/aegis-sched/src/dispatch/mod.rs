//! The dispatcher: take, choose, check the choice, launch, record.
//!
//! [`Dispatcher`] is a state machine without a clock or a thread. Time comes in with every call;
//! one [`step`](Dispatcher::step) is one decision point. The orchestration thread
//! ([`orchestrator`]) and the simulator ([`crate::sim`]) drive the same code.
//!
//! ```text
//!   accept --> (held back until its release) --> ready --choose--> running --+--> ended
//!                                                  ^                         |
//!                                                  +---- between stages <----+
//! ```
//!
//! # Invariants
//! 1. At most one stage is on the device (the partition is serial).
//! 2. Work-conserving: after a turn, if a job is ready, a stage is on the device.
//! 3. A policy only orders; what it put first is checked (open lane, no compute debt) before it is
//!    launched, so a bad policy can lose time but not break a budget.
//! 4. Every accepted job ends once: completed, dropped or failed.
//! 5. Between installing a lane and evicting it, no call allocates, except to report a fault.

mod audit;
mod ending;
mod lane;
pub mod orchestrator;
mod running;
mod watch;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use aegis_context::{
    ContextError, ContextState, ExecutionContext, JobOutcome, StageTimes, StreamPool,
};
use aegis_cuda::DeviceError;
use aegis_trace::{
    Assumption, Category, DropReason, JobId, ModelId, Nanos, Reason, Recorder, SubmitRefusal,
    Timestamp, TraceEvent,
};

use crate::policy::SchedulingPolicy;
use crate::queue::{Ready, ReadyQueue, Submission, SubmissionQueue};
use crate::task::Overheads;

use audit::{Audit, BrokenAssumption};
pub use lane::{Lane, LaneGate};
use running::{Held, Running};

/// What the dispatcher is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DispatcherConfig {
    /// Models that can be installed at once.
    pub max_models: u16,
    /// What the analysis charges; what the audit holds the run to.
    pub overheads: Overheads,
    /// A stage is reported as hanging once it has held the device for this many times its charge,
    pub hang_factor: u64,
    /// and for at least this long: a short stage that the operating system interrupts does not hang.
    pub hang_floor: Nanos,
}

/// What a turn leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The next point in time at which a turn has something to do even if nothing happens.
    pub next: Option<Timestamp>,
    /// Whether a stage is on the device.
    pub busy: bool,
}

/// The decisions of one serial partition.
pub struct Dispatcher {
    config: DispatcherConfig,
    policy: Box<dyn SchedulingPolicy>,
    streams: Arc<StreamPool>,
    recorder: Recorder,
    lanes: Vec<Option<Lane>>,
    ready: ReadyQueue,
    held: BinaryHeap<Reverse<Held>>,
    running: Option<Running>,
    audit: Audit,
    /// The device was idle and no job visible at the end of the last turn.
    idle: bool,
    /// Since when a job has been ready while the device was idle.
    waiting_since: Option<Timestamp>,
    /// When the submissions were last taken: what is seen now arrived after it.
    last_intake: Timestamp,
    /// Lanes without jobs, waiting for the device to be idle.
    leaving: Vec<ModelId>,
    departed: VecDeque<ExecutionContext>,
    stopping: bool,
    fatal: Option<Arc<str>>,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("policy", &self.policy.kind())
            .field("ready", &self.ready.len())
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// An idle dispatcher without models.
    #[must_use]
    pub fn new(
        config: DispatcherConfig,
        policy: Box<dyn SchedulingPolicy>,
        streams: Arc<StreamPool>,
        recorder: Recorder,
    ) -> Self {
        Self {
            config,
            policy,
            streams,
            recorder,
            lanes: (0..config.max_models).map(|_| None).collect(),
            ready: ReadyQueue::new(0),
            held: BinaryHeap::new(),
            running: None,
            audit: Audit::default(),
            idle: true,
            waiting_since: None,
            last_intake: Timestamp::ZERO,
            leaving: Vec::with_capacity(usize::from(config.max_models)),
            departed: VecDeque::with_capacity(usize::from(config.max_models)),
            stopping: false,
            fatal: None,
        }
    }

    /// Takes an admitted model. Allocates room for its jobs.
    ///
    /// # Panics
    /// When its slot is taken: ids are given out by the admission controller, which knows.
    pub fn install(&mut self, lane: Lane) {
        let jobs = lane.context.slots().len();
        let index = usize::from(lane.model().index);
        assert!(self.lanes[index].is_none(), "the slot of {} is taken", lane.model());
        self.ready.reserve(self.ready.len() + jobs);
        self.held.reserve(self.held.len() + jobs);
        self.lanes[index] = Some(lane);
    }

    /// Runs every installed model `runs` times, unseen: the first runs of a model in its place fault
    /// pages in and fill caches, which no cost accounts for. For a dispatcher that nobody steps yet,
    /// on a device whose time is real. Blocks for all of it.
    ///
    /// # Errors
    /// The model whose run failed, and how; the others behind it were not run.
    pub fn warm_up(&mut self, runs: usize) -> Result<(), (ModelId, ContextError)> {
        for lane in self.lanes.iter_mut().flatten() {
            for _ in 0..runs {
                lane.run_unseen(&self.streams).map_err(|error| (lane.model(), error))?;
            }
        }
        Ok(())
    }

    /// Changes the bounds of models, because the set changed. A model already gone is ignored.
    pub fn set_bounds(&mut self, now: Timestamp, bounds: &[(ModelId, Nanos)]) {
        for &(model, bound) in bounds {
            let Some(lane) = lane_of(&mut self.lanes, model) else { continue };
            if lane.bound != bound {
                lane.bound = bound;
                self.recorder.record(now, TraceEvent::BoundChanged { model, bound });
            }
        }
    }

    /// Closes a model: new jobs are refused, accepted ones finish, and its context is handed out
    /// by [`take_departed`](Self::take_departed) at the first idle point after that.
    ///
    /// Waiting for an idle point is what makes eviction safe: the analysis of whatever is admitted
    /// next looks at one busy period, and no busy period then holds jobs of both sets. Returns
    /// whether the model was there.
    pub fn evict(&mut self, now: Timestamp, model: ModelId) -> bool {
        let Some(lane) = lane_of(&mut self.lanes, model) else { return false };
        lane.gate.close();
        if lane.pending == 0 && !self.leaving.contains(&model) {
            self.leaving.push(model);
        }
        self.recorder.record(now, TraceEvent::Evicting { model });
        true
    }

    /// A model that is gone, with everything it owned.
    pub fn take_departed(&mut self) -> Option<ExecutionContext> {
        self.departed.pop_front()
    }

    /// Looks at the device. Must come before the clock is read for [`step`](Self::step), so that
    /// nothing that is noticed ended after the point at which it is noticed.
    pub fn observe(&mut self) -> Observed {
        let Some(running) = &self.running else { return Observed { end: None } };
        Observed { end: running.busy.poll().transpose() }
    }

    /// Takes what was submitted, then notices what ended, releases what is due and launches what
    /// goes next. O(log n) in the number of jobs; talks to the device without waiting for it.
    ///
    /// `now` is read before the queue is emptied, so whatever this call sees or misses, a job that
    /// became visible after `now` arrived after the decision.
    pub fn step(
        &mut self,
        observed: Observed,
        now: Timestamp,
        submissions: &SubmissionQueue,
    ) -> Turn {
        let intake = self.begin_intake(now);
        for _ in 0..submissions.depth() {
            let Some(submission) = submissions.pop() else { break };
            self.accept(intake, submission);
        }
        self.turn(observed, now)
    }

    /// Marks the point at which submissions are taken: whatever is accepted after this call became
    /// visible after the previous one.
    fn begin_intake(&mut self, now: Timestamp) -> Intake {
        // What the last decision missed arrived after it, though the clock may say the same instant;
        // and a stage it launched began before.
        let tick = if self.running.is_some() { Nanos::EPSILON } else { Nanos::ZERO };
        let visible_since = self.last_intake.saturating_add(tick);
        self.last_intake = now;
        Intake { now, visible_since }
    }

    /// Takes one submission.
    fn accept(&mut self, intake: Intake, submission: Submission) {
        let Submission { model, slot, stamp, release } = submission;
        let Some(lane) = lane_of(&mut self.lanes, model) else {
            slot.finish(JobOutcome::Refused { why: SubmitRefusal::ModelEvicted });
            return;
        };
        if let Some(why) =
            self.stopping.then_some(SubmitRefusal::NotRunning).or(lane.gate.refusal())
        {
            self.recorder.record(intake.now, TraceEvent::SubmissionRefused { model, why });
            slot.finish(JobOutcome::Refused { why });
            return;
        }
        // A stamp from before the previous intake belongs to a thread that was held up between
        // stamping and handing over: to the scheduler the job arrived when it became visible.
        let release = lane.release(stamp, stamp.max(intake.visible_since), release);
        lane.pending += 1;
        lane.metrics.count(|counts| counts.submitted += 1);
        let job = release.job;
        let excess = release.excess_jitter;
        let event = TraceEvent::Submitted {
            job: job.id,
            arrival: release.arrival,
            release: job.release,
            deadline: job.deadline,
        };
        self.recorder.record(intake.now, event);
        if excess > Nanos::ZERO {
            let assumed = lane.task.jitter();
            let observed = assumed.saturating_add(excess);
            let broken =
                BrokenAssumption::new(Assumption::ReleaseJitter, job.id, assumed, observed);
            self.report_broken(intake.now, broken);
        }
        let held = Held::new(release, slot);
        // A job stamped after `now` was read is as visible as one stamped before it.
        if held.eligible() <= intake.now.max(stamp) {
            self.make_ready(held);
        } else {
            self.held.push(Reverse(held));
        }
    }

    /// Notices what ended, releases what is due, launches what goes next.
    fn turn(&mut self, observed: Observed, now: Timestamp) -> Turn {
        let resumed = self.notice_end(observed, now);
        self.release_due(now);
        if self.running.is_none() {
            self.choose_and_launch(now, resumed);
        }
        self.settle_idle(now);
        Turn { next: self.next_point(), busy: self.running.is_some() }
    }

    /// Begins to stop: jobs that have not begun are dropped, those that have run to their end.
    pub fn stop(&mut self, now: Timestamp) {
        self.stopping = true;
        let mut begun = Vec::new(); // At most the jobs suspended between stages.
        while let Some(ready) = self.ready.pop() {
            if ready.stage.0 > 0 {
                begun.push(ready);
            } else {
                self.end_dropped(now, &ready, DropReason::Stopping);
            }
        }
        while let Some(Reverse(held)) = self.held.pop() {
            self.end_dropped(now, &held.into_ready(), DropReason::Stopping);
        }
        for ready in begun {
            self.ready.push(&*self.policy, ready);
        }
    }

    /// Drops every job that waits, begun or not: nothing will run any more.
    pub fn drop_all(&mut self, now: Timestamp) {
        while let Some(ready) = self.ready.pop() {
            self.end_dropped(now, &ready, DropReason::Stopping);
        }
    }

    /// The job whose stage hangs on the device, if one does: nothing else runs until it ends.
    #[must_use]
    pub fn hanging(&self) -> Option<JobId> {
        self.running.as_ref().filter(|running| running.reported).map(|running| running.ready.job.id)
    }

    /// Lets go of closed models without jobs, if the device is idle. For a dispatcher that nobody
    /// steps yet.
    pub fn let_go(&mut self, now: Timestamp) {
        self.settle_idle(now);
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.running.is_none() && self.ready.is_empty() && self.held.is_empty()
    }

    /// Why the device is lost, if it is: everything ends then.
    #[must_use]
    pub fn fatal(&self) -> Option<&Arc<str>> {
        self.fatal.as_ref()
    }

    /// Records an event on the dispatcher's own ring.
    pub fn record(&mut self, now: Timestamp, event: TraceEvent) {
        self.recorder.record(now, event);
    }

    /// Books the end of the stage on the device. Gives back the job if it has more stages.
    fn notice_end(&mut self, observed: Observed, now: Timestamp) -> Option<Ready> {
        let Some(end) = observed.end else {
            self.watch(now);
            return None;
        };
        let running = self.running.take().expect("a stage that ended was on the device");
        match end {
            Ok(times) => self.end_stage(now, running, times),
            Err(error) => {
                self.audit_unfinished(now, &running);
                self.fail_device(now, &running, &error);
                None
            }
        }
    }

    /// Holds a stage without an end to its charge.
    fn audit_unfinished(&mut self, now: Timestamp, running: &Running) {
        let service = now.saturating_since(running.since);
        let job = running.ready.job.id;
        if let Some(broken) = self.audit.unfinished(job, running.charge, service) {
            self.report_broken(now, broken);
        }
    }

    /// Reports a stage that has held the device for far too long, once, and fences its model.
    fn watch(&mut self, now: Timestamp) {
        let Some(mut running) = self.running.take_if(|running| running.hangs_at(now)) else {
            return;
        };
        running.reported = true;
        self.audit_unfinished(now, &running);
        let (job, stage) = (running.ready.job.id, running.ready.stage);
        let elapsed = now.saturating_since(running.since);
        let slot = Arc::clone(&running.ready.slot);
        let category = Category::Permanent;
        self.recorder.record(now, TraceEvent::Hanging { job, stage, elapsed });
        self.recorder.record(now, TraceEvent::Faulted { job, category });
        self.running = Some(running);
        let reason: Arc<str> = format!("stage {stage} has held the device for {elapsed}").into();
        let lane = lane_of(&mut self.lanes, job.model).expect("a running model is installed");
        lane.metrics.count(|counts| counts.failed += 1);
        lane.gate.fence(); // Before the caller is told, who may submit again at once.
        slot.finish(JobOutcome::Failed { job, category, reason: Arc::clone(&reason) });
        // The job has ended for its caller; `pending` falls only when the device gives it back.
        self.fence(now, job.model, reason);
    }

    fn end_stage(&mut self, now: Timestamp, running: Running, times: StageTimes) -> Option<Ready> {
        let Running { mut ready, since, charge, reported, .. } = running;
        let job = ready.job.id;
        let service = now.saturating_since(since);
        ready.consumed += service;
        ready.execution += times.finished.saturating_since(times.started);
        let stage = ready.stage;
        let (started, finished) = (times.started, times.finished);
        self.recorder.record(now, TraceEvent::StageCompleted { job, stage, started, finished });
        for broken in self.audit.stage(job, charge, times, service) {
            self.report_broken(now, broken);
        }
        self.watch_evidence(now, job, stage, times);
        let lane = lane_of(&mut self.lanes, job.model).expect("a running model is installed");
        if reported {
            // Its caller was told long ago, and its model is fenced.
            self.job_ended(job.model);
            return None;
        }
        lane.context.stage_done();
        ready.stage.0 += 1;
        if usize::from(ready.stage.0) == lane.task.stages().len() {
            self.end_completed(now, &ready);
            return None;
        }
        if !lane.context.account().allows_more(ready.consumed) {
            lane.context.account().settle(ready.consumed);
            self.end_dropped(now, &ready, DropReason::ComputeBudget);
            return None;
        }
        self.yield_or_resume(now, ready)
    }

    /// Between two stages: back to the queue if somebody strictly more urgent waits.
    fn yield_or_resume(&mut self, now: Timestamp, ready: Ready) -> Option<Ready> {
        self.release_due(now);
        let urgency = self.policy.urgency(&ready.job);
        let overtaken =
            self.policy.preempts() && self.ready.first().is_some_and(|(first, _)| first < urgency);
        if !overtaken {
            return Some(ready);
        }
        let (job, next_stage) = (ready.job.id, ready.stage);
        self.recorder.record(now, TraceEvent::Suspended { job, next_stage });
        self.ready.push(&*self.policy, ready);
        None
    }

    fn release_due(&mut self, now: Timestamp) {
        while self.held.peek().is_some_and(|Reverse(held)| held.eligible() <= now) {
            let Reverse(held) = self.held.pop().expect("it was just peeked");
            self.make_ready(held);
        }
    }

    fn make_ready(&mut self, held: Held) {
        if self.idle {
            let since = self.waiting_since.map_or(held.eligible(), |at| at.min(held.eligible()));
            self.waiting_since = Some(since);
        }
        self.ready.push(&*self.policy, held.into_ready());
    }

    fn report_broken(&mut self, now: Timestamp, broken: BrokenAssumption) {
        self.recorder.record(now, broken.event());
        if let Some(lane) = lane_of(&mut self.lanes, broken.job.model) {
            lane.metrics.count(|counts| counts.broken.add(broken.assumption));
        }
    }

    /// Launches `resumed`, or the first ready job that passes the checks.
    fn choose_and_launch(&mut self, now: Timestamp, resumed: Option<Ready>) {
        if let Some(ready) = resumed {
            self.launch(now, ready, Some(Reason::Continues));
        }
        while self.running.is_none() {
            let Some(ready) = self.ready.pop() else { return };
            if let Some(why) = self.objection(&ready) {
                self.end_dropped(now, &ready, why);
                continue;
            }
            self.launch(now, ready, None);
        }
    }

    /// Why the chosen job must not run, if so.
    fn objection(&mut self, ready: &Ready) -> Option<DropReason> {
        let lane = lane_of(&mut self.lanes, ready.job.id.model).expect("jobs outlive no lane");
        if lane.context.state() == ContextState::Faulted {
            return Some(DropReason::ModelFenced);
        }
        let begins = ready.stage.0 == 0;
        (begins && !lane.context.account().admit_job()).then_some(DropReason::ComputeDebt)
    }

    fn launch(&mut self, now: Timestamp, ready: Ready, why: Option<Reason>) {
        let job = ready.job;
        let lane = lane_of(&mut self.lanes, job.id.model).expect("jobs outlive no lane");
        let charge = audit::Charge {
            cost: lane.task.stages()[usize::from(ready.stage.0)],
            overhead: self.config.overheads.dispatch,
        };
        let launched = self
            .streams
            .lease()
            .and_then(|stream| lane.context.launch(ready.stage, &ready.slot, stream));
        let busy = match launched {
            Ok(busy) => busy,
            Err(error) => return self.fail_launch(now, &ready, &error),
        };
        let why = why.unwrap_or_else(|| match self.ready.first() {
            Some((_, next)) => self.policy.reason(&job, next),
            None => Reason::OnlyReady,
        });
        self.end_idleness(now, job.id);
        let waiting = u32::try_from(self.ready.len()).unwrap_or(u32::MAX);
        let (stage, stream) = (ready.stage, busy.id());
        let event = TraceEvent::Dispatched { job: job.id, stage, stream, waiting, why };
        self.recorder.record(now, event);
        let limit = (charge.cost + charge.overhead)
            .saturating_mul(self.config.hang_factor)
            .max(self.config.hang_floor);
        self.running =
            Some(Running { ready, busy, since: now, charge, hang_limit: limit, reported: false });
    }

    /// A busy period begins with `job`: how long has the first of the ready jobs been waiting?
    fn end_idleness(&mut self, now: Timestamp, job: JobId) {
        self.idle = false;
        let Some(since) = self.waiting_since.take() else { return };
        let waited = now.saturating_since(since);
        if let Some(broken) = self.audit.wake(job, self.config.overheads.wake, waited) {
            self.report_broken(now, broken);
        }
    }

    /// Ends the busy period if it is over, and lets go of the lanes that wait for that.
    fn settle_idle(&mut self, now: Timestamp) {
        if self.running.is_some() || !self.ready.is_empty() {
            return;
        }
        self.waiting_since = None;
        if !self.idle {
            self.idle = true;
            self.audit.idle();
            self.recorder.record(now, TraceEvent::Idle);
        }
        while let Some(model) = self.leaving.pop() {
            if let Some(lane) = self.lanes[usize::from(model.index)].take() {
                self.departed.push_back(lane.context);
                self.recorder.record(now, TraceEvent::Evicted { model });
            }
        }
    }

    fn next_point(&self) -> Option<Timestamp> {
        let release = self.held.peek().map(|Reverse(held)| held.eligible());
        let watch = self.running.as_ref().and_then(Running::next_watch);
        [release, watch].into_iter().flatten().min()
    }
}

/// What the device had to say when it was looked at.
#[derive(Debug)]
#[must_use = "what was observed must be handed to `step`"]
pub struct Observed {
    end: Option<Result<StageTimes, DeviceError>>,
}

/// What was visible when, for the submissions of one intake.
#[derive(Clone, Copy, Debug)]
struct Intake {
    now: Timestamp,
    visible_since: Timestamp,
}

/// The lane of `model`, if it is still there. A free function, so that the other fields of the
/// dispatcher stay usable beside the lane.
fn lane_of(lanes: &mut [Option<Lane>], model: ModelId) -> Option<&mut Lane> {
    lanes.get_mut(usize::from(model.index))?.as_mut().filter(|lane| lane.model() == model)
}

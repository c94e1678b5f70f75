//! The dispatcher: take, choose, check the choice, launch, record.
//!
//! [`Dispatcher`] is a state machine without a clock or a thread. Time comes in with every call;
//! one [`step`](Dispatcher::step) is one decision point. The orchestration thread
//! ([`orchestrator`]) and the simulator ([`crate::sim`]) drive the same code.
//!
//! ```text
//!   accept --> (held back until its release) --> ready --choose--> running --+--> ended
//!         \--> (in line at its server) --^         ^                 ^        |
//!          \-> in the background --if nothing is ready--------------+        |
//!                                                  +---- between stages <----+
//! ```
//!
//! # Invariants
//! 1. At most one stage runs on the device (the partition is serial); with look-ahead one more waits
//!    there behind it.
//! 2. Work-conserving: after a turn, if a job is ready or in the background, a stage is on the
//!    device, unless that is lost: then nothing is launched any more.
//! 3. A policy only orders; what it put first is checked before it is launched, so a bad policy can
//!    lose time but not break a budget.
//! 4. Every accepted job ends once: completed, dropped or failed.
//! 5. Between installing a lane and evicting it, no call allocates, except to report a fault.

mod audit;
mod bare;
mod choice;
mod ending;
mod intake;
mod lane;
mod log_driven;
mod look_ahead;
pub mod orchestrator;
mod overrun;
mod running;
mod server;
mod stage_end;
mod watch;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use aegis_context::{ContextError, ExecutionContext, StageTimes, StreamPool};
use aegis_cuda::DeviceError;
use aegis_trace::{ExecutorConfig, JobId, ModelId, Nanos, Recorder, Timestamp, TraceEvent};

use crate::policy::{SchedulingPolicy, policy_of};
use crate::queue::{Class, Ready, ReadyQueue, SubmissionQueue};
use crate::task::Overheads;

use audit::{Audit, BrokenAssumption};
pub(crate) use intake::Intake;
pub(crate) use lane::LaneService;
pub use lane::{Lane, LaneGate};
pub use overrun::OverrunPolicy;
use running::{Held, Running};
pub(crate) use server::Server;

/// What the dispatcher is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DispatcherConfig {
    /// Models that can be installed at once; their ids have indices below it.
    pub max_models: u16,
    /// What the analysis charges; what the audit holds the run to.
    pub overheads: Overheads,
    /// What happens to jobs after an overrun.
    pub overrun: OverrunPolicy,
    /// A stage is reported as hanging once it has held the device for this many times its charge,
    pub hang_factor: u64,
    /// and for at least this long: a short stage that the operating system interrupts does not hang.
    pub hang_floor: Nanos,
}

impl From<&ExecutorConfig> for DispatcherConfig {
    fn from(executor: &ExecutorConfig) -> Self {
        Self {
            max_models: executor.first_model.saturating_add(executor.max_models),
            overheads: executor.overheads,
            overrun: executor.overrun,
            hang_factor: executor.hang_factor,
            hang_floor: executor.hang_floor,
        }
    }
}

/// What a turn leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The next point in time at which a turn has something to do even if nothing happens.
    pub next: Option<Timestamp>,
    /// Whether something is on the device whose end is waited for.
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
    /// Jobs that run while nothing is ready, in the order of their arrivals.
    background: VecDeque<Ready>,
    running: Option<Running>,
    /// What the device begins when the running stage ends; only beside one.
    committed: Option<Running>,
    audit: Audit,
    /// Whose inputs were left on their way last, because it could not be launched behind them.
    left_by: Option<JobId>,
    /// The device was idle and nothing ready at the end of the last turn.
    idle: bool,
    /// Since when a job has been ready while the device was idle.
    waiting_since: Option<Timestamp>,
    /// When the submissions were last taken: what is seen now arrived after it.
    last_intake: Timestamp,
    /// Lanes without jobs, waiting for the device to be idle.
    leaving: Vec<ModelId>,
    /// Models that are gone, until somebody takes them.
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
    /// The dispatcher of `executor`, idle and without models. Records its configuration at `now`,
    /// first of all, so that its trace can be replayed.
    #[must_use]
    pub fn configured(
        executor: ExecutorConfig,
        now: Timestamp,
        streams: Arc<StreamPool>,
        mut recorder: Recorder,
    ) -> Self {
        let (config, policy) = (DispatcherConfig::from(&executor), policy_of(executor.policy));
        let what = Box::new(ExecutorConfig { first_stream: streams.first(), ..executor });
        recorder.record(now, TraceEvent::Configured { what });
        Self::new(config, policy, streams, recorder)
    }

    /// An idle dispatcher without models, whose trace does not say how it was configured.
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
            background: VecDeque::new(),
            running: None,
            committed: None,
            audit: Audit::default(),
            left_by: None,
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
        if lane.class() == Class::Background {
            self.background.reserve(self.background.len() + jobs);
        }
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

    /// Changes the bounds of models, because the set changed. A model already gone is ignored, and so
    /// is the bound of a server, which is about its refills and promised to no job.
    pub fn set_bounds(&mut self, now: Timestamp, bounds: &[(ModelId, Nanos)]) {
        for &(model, bound) in bounds {
            let Some(lane) = lane_of(&mut self.lanes, model) else { continue };
            let LaneService::Guaranteed { bound: known, .. } = &mut lane.service else { continue };
            if *known != bound {
                *known = bound;
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

    /// A model that is gone, with everything it owned. None is given away while an upload is left whose
    /// stage could not be launched: it writes a model's memory, which may be others' from then on.
    ///
    /// No event tells when such an upload ends, so nothing that is logged may depend on it: that the
    /// model is gone is decided, and recorded, at the idle point.
    pub fn take_departed(&mut self) -> Option<ExecutionContext> {
        if self.departed.is_empty() || self.streams.is_uploading() {
            return None;
        }
        self.departed.pop_front()
    }

    /// Looks at the device. Must come before the clock is read for [`step`](Self::step), so that
    /// nothing that is noticed ended after the point at which it is noticed.
    pub fn observe(&mut self) -> Observed {
        let ended = |stage: &Option<Running>| stage.as_ref()?.busy.poll().transpose();
        let end = ended(&self.running);
        // The stages end in their order, and both ends may have been rung by one ring.
        let behind = end.as_ref().and_then(|_| ended(&self.committed));
        Observed { end, behind }
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

    /// Notices what ended, releases what is due, launches what goes next.
    fn turn(&mut self, observed: Observed, now: Timestamp) -> Turn {
        let resumed = self.notice_end(observed, now);
        self.release_due(now);
        // Each further launch on a lost device would fail, and fence a model that did nothing.
        if self.fatal.is_none() {
            if self.running.is_none() {
                self.choose_and_launch(now, resumed);
            }
            self.look_ahead(now);
        }
        self.settle_idle(now);
        // Asked in every turn, as that lets go of the slot of an upload that is over. One that is left
        // is waited for by models that are gone.
        let is_uploading = self.streams.is_uploading();
        let busy = self.running.is_some() || !self.departed.is_empty() && is_uploading;
        Turn { next: self.next_point(), busy }
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

    /// Whether nothing is left to do, and nothing that could be waited for writes a model's memory.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let waiting = self.ready.len() + self.held.len() + self.background.len();
        // A server with jobs has one of them among those that wait.
        self.running.is_none() && waiting == 0 && !self.streams.awaits_upload()
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

    /// Records a broken assumption and counts it for the model that broke it.
    fn report_broken(&mut self, now: Timestamp, broken: BrokenAssumption) {
        self.recorder.record(now, broken.event());
        if let Some(lane) = lane_of(&mut self.lanes, broken.job.model) {
            lane.metrics.count(|counts| counts.broken.add(broken.assumption));
        }
    }

    fn next_point(&self) -> Option<Timestamp> {
        let release = self.held.peek().map(|Reverse(held)| held.eligible());
        let watch = self.running.as_ref().and_then(Running::next_watch);
        [release, watch].into_iter().flatten().min()
    }
}

/// How a stage ended.
pub(crate) type StageEnd = Result<StageTimes, DeviceError>;

/// What the device had to say when it was looked at.
#[derive(Debug)]
#[must_use = "what was observed must be handed to `step`"]
pub struct Observed {
    end: Option<StageEnd>,
    /// The end of the stage behind, if that has ended too.
    behind: Option<StageEnd>,
}

/// The lane of `model`, if it is still there. A free function, so that the other fields of the
/// dispatcher stay usable beside the lane.
fn lane_of(lanes: &mut [Option<Lane>], model: ModelId) -> Option<&mut Lane> {
    lanes.get_mut(usize::from(model.index))?.as_mut().filter(|lane| lane.model() == model)
}

//! One admitted model as the dispatcher sees it: its context, its task, its releases.
//!
//! # Sources
//! The release rule is the minimum-separation regulator that sporadic analyses assume: whatever the
//! caller does, the releases the scheduler sees are at least one period apart, and a release is
//! never more than the jitter before its arrival.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use aegis_context::{ContextError, ExecutionContext, JobOutcome, StreamPool};
use aegis_trace::{JobId, ModelId, Nanos, StageIndex, SubmitRefusal, Timestamp};

use super::audit::Charge;
use super::server::Server;
use crate::metrics::ModelMetrics;
use crate::policy::ReadyJob;
use crate::queue::Class;
use crate::task::{Overheads, Task};
use crate::wcet::StageMonitor;

/// Whether a model takes jobs; shared between its lane and the submitting threads.
///
/// ```text
///   Open --fence--> Fenced --close--> Closed
///     +---------------close------------^
/// ```
#[derive(Clone, Debug, Default)]
pub struct LaneGate {
    state: Arc<AtomicU8>,
}

const OPEN: u8 = 0;
const FENCED: u8 = 1;
const CLOSED: u8 = 2;

impl LaneGate {
    /// Why a submission would be turned away now, if it would.
    #[must_use]
    pub fn refusal(&self) -> Option<SubmitRefusal> {
        match self.state.load(Ordering::Acquire) {
            OPEN => None,
            FENCED => Some(SubmitRefusal::ModelFenced),
            _ => Some(SubmitRefusal::ModelEvicted),
        }
    }

    /// Turns jobs away because the model failed.
    pub fn fence(&self) {
        self.state.fetch_max(FENCED, Ordering::AcqRel);
    }

    /// Turns jobs away because the model is going.
    pub fn close(&self) {
        self.state.fetch_max(CLOSED, Ordering::AcqRel);
    }
}

/// What a lane owes its jobs.
#[derive(Debug)]
pub(crate) enum LaneService {
    /// Each completes within its deadline.
    Guaranteed {
        /// Costs without overheads, and timing.
        task: Task,
        /// The worst-case response time.
        bound: Nanos,
    },
    /// They run while nothing else is ready.
    Background,
    /// They share the budget of a server.
    Server(Server),
}

/// One admitted model.
#[derive(Debug)]
pub struct Lane {
    /// Its context.
    pub(crate) context: ExecutionContext,
    /// The worst-case cost of each stage, without overheads.
    pub(crate) costs: Vec<Nanos>,
    /// Whether others may run between two stages of one of its jobs.
    pub(crate) may_be_suspended: bool,
    /// What its jobs were promised.
    pub(crate) service: LaneService,
    /// Its counters.
    pub(crate) metrics: ModelMetrics,
    /// Whether it takes jobs.
    pub(crate) gate: LaneGate,
    /// Accepted jobs that have not ended.
    pub(crate) pending: usize,
    /// Whether the evidence for its stages still holds, one for each; none for declared costs.
    pub(crate) monitors: Vec<StageMonitor>,
    /// The earliest nominal release of its next job.
    next_release: Timestamp,
    /// By how much its debts have put off its releases, all together.
    postponed: Nanos,
    /// The number of its next job.
    sequence: u64,
}

/// A job's release, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// What the policy will see.
    pub(crate) job: ReadyJob,
    /// When it arrived.
    pub(crate) arrival: Timestamp,
    /// When it may run: its arrival, or its release where the regulator held it back.
    pub(crate) eligible: Timestamp,
    /// By how much the claimed release lies before the submission less the jitter, where that moved
    /// the release; zero where it did not.
    pub(crate) excess_jitter: Nanos,
}

impl Release {
    /// A job without a deadline: the policies of guaranteed jobs never see it as it is here.
    fn at_arrival(id: JobId, arrival: Timestamp) -> Self {
        let job = ReadyJob {
            id,
            release: arrival,
            deadline: Timestamp::NEVER,
            period: Nanos::MAX,
            priority: u32::MAX,
        };
        Self { job, arrival, eligible: arrival, excess_jitter: Nanos::ZERO }
    }
}

impl Lane {
    /// A lane for `context`, whose job slots bound the number of its pending jobs.
    pub(crate) fn new(
        context: ExecutionContext,
        costs: Vec<Nanos>,
        service: LaneService,
        metrics: ModelMetrics,
        gate: LaneGate,
    ) -> Self {
        Self {
            context,
            costs,
            may_be_suspended: true,
            service,
            metrics,
            gate,
            pending: 0,
            monitors: Vec::new(),
            next_release: Timestamp::ZERO,
            postponed: Nanos::ZERO,
            sequence: 0,
        }
    }

    /// The same lane, whose jobs give way between stages or, if not `may_be_suspended`, never.
    pub(crate) fn suspending(self, may_be_suspended: bool) -> Self {
        Self { may_be_suspended, ..self }
    }

    /// Watches the times of its stages with `monitors`, one for each stage in order.
    ///
    /// # Panics
    /// When there are more or fewer of them than stages, and not none.
    pub fn watch(&mut self, monitors: Vec<StageMonitor>) {
        let stages = self.costs.len();
        assert!(monitors.is_empty() || monitors.len() == stages, "one monitor for each stage");
        self.monitors = monitors;
    }

    /// Whose lane it is.
    #[must_use]
    pub fn model(&self) -> ModelId {
        self.context.model()
    }

    /// What the analysis charges for a stage. What it takes on the device beside its cost is seen by
    /// the device's events, and so is part of the cost here.
    pub(crate) fn charge(&self, stage: StageIndex, overheads: &Overheads) -> Charge {
        let (stage, stages) = (usize::from(stage.0), self.costs.len());
        let cost = self.costs[stage].saturating_add(overheads.on_device(stage, stages));
        Charge { cost, overhead: overheads.dispatch }
    }

    /// What the analysis charges for a whole job.
    pub(crate) fn charged_cost(&self, overheads: &Overheads) -> Nanos {
        overheads.total(&self.costs)
    }

    /// What must be affordable before `stage` starts: its charge, or that of all stages that follow
    /// it at once. Nothing for the later stages of a job that is never suspended, as the first paid.
    pub(crate) fn charge_ahead(&self, stage: StageIndex, overheads: &Overheads) -> Nanos {
        match (self.may_be_suspended, stage) {
            (true, _) => self.charge(stage, overheads).total(),
            (false, StageIndex(0)) => self.charged_cost(overheads),
            (false, _) => Nanos::ZERO,
        }
    }

    /// Which jobs it has.
    pub(crate) fn class(&self) -> Class {
        match self.service {
            LaneService::Guaranteed { .. } => Class::Guaranteed,
            LaneService::Background => Class::Background,
            LaneService::Server(_) => Class::Server,
        }
    }

    /// The task it was admitted as, if its jobs have deadlines.
    pub(crate) fn task(&self) -> Option<&Task> {
        match &self.service {
            LaneService::Guaranteed { task, .. } => Some(task),
            LaneService::Background | LaneService::Server(_) => None,
        }
    }

    /// By how much its debts have put off its releases, all together.
    pub(crate) fn postponed(&self) -> Nanos {
        self.postponed
    }

    /// Puts off its next release, and with it all later ones, by `by`.
    pub(crate) fn postpone(&mut self, by: Nanos) {
        self.next_release = self.next_release.saturating_add(by);
        self.postponed = self.postponed.saturating_add(by);
    }

    /// Decides the release of a job that was submitted at `stamp`, became visible at `arrival`, and
    /// claims the nominal release `claimed`.
    ///
    /// The release is the claimed one, but no later than the arrival, at least a period after the
    /// one before, and at least `arrival - J`. A job without a claim is released when it arrives, and
    /// so is every job of best effort: nothing is promised that a release could matter for.
    pub(crate) fn release(
        &mut self,
        stamp: Timestamp,
        arrival: Timestamp,
        claimed: Option<Timestamp>,
    ) -> Release {
        let id = JobId { model: self.model(), sequence: self.sequence };
        self.sequence += 1;
        let LaneService::Guaranteed { task, .. } = &self.service else {
            return Release::at_arrival(id, arrival);
        };
        let jitter = task.jitter();
        let claimed = claimed.map_or(arrival, |claimed| claimed.min(arrival));
        let allowed = stamp.saturating_sub(jitter);
        let excess_jitter = allowed.saturating_since(claimed.max(self.next_release));
        let earliest = arrival.saturating_sub(jitter);
        let release = claimed.max(earliest).max(self.next_release);
        self.next_release = release.saturating_add(task.period());
        let job = ReadyJob {
            id,
            release,
            deadline: release.saturating_add(task.deadline()),
            period: task.period(),
            priority: task.priority(),
        };
        Release { job, arrival, eligible: release.max(arrival), excess_jitter }
    }

    /// Runs one job outside the schedule, with whatever a free slot holds as its inputs. Nothing is
    /// done when no slot is free.
    pub(crate) fn run_unseen(&mut self, streams: &Arc<StreamPool>) -> Result<(), ContextError> {
        let Some(slot) = self.context.slots().claim() else { return Ok(()) };
        slot.queue();
        let ran = (0u16..).take(self.costs.len()).try_for_each(|stage| {
            let busy = self.context.launch(StageIndex(stage), &slot, streams.lease()?)?;
            busy.wait()?;
            self.context.stage_done();
            Ok(())
        });
        match ran {
            Ok(()) => {
                slot.unqueue();
                slot.release();
            }
            // Its stage may still be on the device, and nothing is run after this.
            Err(_) => slot.finish(JobOutcome::Refused { why: SubmitRefusal::NotRunning }),
        }
        ran
    }
}

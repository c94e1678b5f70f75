//! All that can happen, as a closed enum.
//!
//! The trace is the event log the scheduler is a function of: what came in (admissions,
//! submissions, completions, each with its time) and what was decided (dispatches with their
//! reasons) are both here, so decisions can be recomputed from the log and compared.
//!
//! # Invariants
//! 1. Every variant is small and owns at most one box, made before recording starts, so that
//!    recording itself allocates nothing.
//! 2. Everything a decision depends on is in the log, or follows from what is: the configuration
//!    (`Configured`), what admission was asked (`Admitted`, `Refused`, `Freed`), what the dispatcher was
//!    told (`Submitted` with `Stamped` before it where that does not tell, `StageCompleted` with
//!    `UploadAwaited` behind it where the audit depends on that, `StageFailed`, `LaunchFailed`,
//!    `Evicting`, `Stopping`), each with its time.
//! 3. Jobs appear in the order `Submitted`, `Dispatched`, `StageCompleted` (per stage), then exactly
//!    one of `Completed`, `Dropped` or `Faulted`. Only a stage that was reported as `Hanging` may end
//!    after its job did.

use serde::{Deserialize, Serialize};

use crate::category::Category;
use crate::executor::ExecutorConfig;
use crate::id::{JobId, ModelId, StageIndex, StreamId};
use crate::model::{AdmittedModel, RefusedModel};
use crate::pressure::PressureLevel;
use crate::unit::{Bytes, Nanos, Timestamp};

/// One fact about the run. A new kind of fact is a new variant, never a new string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TraceEvent {
    /// An executor was built; first of all that its dispatcher records.
    Configured {
        /// What with.
        what: Box<ExecutorConfig>,
    },
    /// The orchestration loop began.
    Started,
    /// `model` was admitted with these parameters and bounds.
    Admitted {
        /// The model.
        model: ModelId,
        /// What was promised, and for what.
        what: Box<AdmittedModel>,
    },
    /// The bound of an admitted model changed because the set changed.
    BoundChanged {
        /// The model.
        model: ModelId,
        /// Its worst-case response time in the new set.
        bound: Nanos,
    },
    /// A model was refused; `why` is the inequality that failed, with its numbers.
    Refused {
        /// Its name and the inequality.
        what: Box<RefusedModel>,
    },
    /// Eviction of `model` began: new submissions are refused, jobs in flight finish.
    Evicting {
        /// The model.
        model: ModelId,
    },
    /// `model` is gone; its memory and its share of the device are free.
    Evicted {
        /// The model.
        model: ModelId,
    },
    /// Admission counts `model` no longer: what comes after it is decided without it. Follows
    /// `Evicted`.
    Freed {
        /// The model.
        model: ModelId,
    },
    /// How the next `Submitted` was handed over: it claims a release, or was visible after its stamp.
    Stamped {
        /// The job.
        job: JobId,
        /// When its caller handed it over.
        stamp: Timestamp,
        /// The nominal release that its caller claims; `None` for the moment of arrival.
        claimed: Option<Timestamp>,
    },
    /// A job was accepted into the ready queue.
    Submitted {
        /// The job.
        job: JobId,
        /// When it became visible to the orchestrator, at the earliest.
        arrival: Timestamp,
        /// Its release: the point its response time and deadline count from.
        release: Timestamp,
        /// `release + D`; `None` for a job of best effort.
        deadline: Option<Timestamp>,
    },
    /// A submission was turned away.
    SubmissionRefused {
        /// Whose.
        model: ModelId,
        /// Why.
        why: SubmitRefusal,
    },
    /// A job that was held back may run now: its release, or the refill of its server, has come.
    Released {
        /// The job.
        job: JobId,
    },
    /// The policy put a stage of `job` on `stream` while `waiting` other jobs were ready.
    Dispatched {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageIndex,
        /// The stream.
        stream: StreamId,
        /// How many other jobs were ready.
        waiting: u32,
        /// Why this one.
        why: Reason,
    },
    /// A stage ran to its end on the device.
    StageCompleted {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageIndex,
        /// When the device began it.
        started: Timestamp,
        /// When the device ended it.
        finished: Timestamp,
        /// How long its inputs took to arrive, from `started` on; zero where it has none of its own, or
        /// where the device does not tell.
        #[serde(default, skip_serializing_if = "Nanos::is_zero")]
        upload: Nanos,
        /// The same for its outputs, up to `finished`. Both together are at most the time between.
        #[serde(default, skip_serializing_if = "Nanos::is_zero")]
        download: Nanos,
        /// How long its inputs took where they were copied ahead of it, beside the stage before it; zero
        /// where they were not. Not within `started` and `finished`, and no part of either.
        #[serde(default, skip_serializing_if = "Nanos::is_zero")]
        ahead: Nanos,
    },
    /// The stage that was told of just before took longer than it is charged, and the device had put it
    /// behind an upload. Nothing is told of one within its charge.
    UploadAwaited {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageIndex,
        /// Whose inputs those were: its own that went ahead, or those of a job that could not be launched
        /// behind them.
        of: JobId,
        /// How long they took; zero where they had arrived when the stage got the device, and it waited for
        /// nothing of them.
        took: Nanos,
        /// How long before `started` of the stage they had arrived, by the device's clock. Little where
        /// the stage waited for them, and much where it did not.
        before: Nanos,
    },
    /// The device or the runtime ended a stage with a fault.
    StageFailed {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageIndex,
        /// What the caller can do.
        category: Category,
    },
    /// A chosen stage could not be launched.
    LaunchFailed {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageIndex,
        /// What the caller can do.
        category: Category,
    },
    /// A job gave way at a stage boundary to one that goes first.
    Suspended {
        /// The job.
        job: JobId,
        /// The stage it will go on with.
        next_stage: StageIndex,
    },
    /// A job's outputs are ready.
    Completed {
        /// The job.
        job: JobId,
        /// From release to detection.
        response: Nanos,
        /// Device time of all its stages.
        execution: Nanos,
    },
    /// `job` completed `late` after its deadline; never zero.
    MissedDeadline {
        /// The job.
        job: JobId,
        /// By how much.
        late: Nanos,
    },
    /// A job was given up without a result.
    Dropped {
        /// The job.
        job: JobId,
        /// Why.
        why: DropReason,
    },
    /// A job failed on the device or in its runtime.
    Faulted {
        /// The job.
        job: JobId,
        /// What the caller can do.
        category: Category,
    },
    /// `model` is fenced: its jobs are refused, its memory stays reserved until eviction.
    Fenced {
        /// The model.
        model: ModelId,
    },
    /// Something the proof assumes did not hold.
    AssumptionBroken {
        /// What.
        assumption: Assumption,
        /// By which job.
        job: JobId,
        /// The value the proof used.
        assumed: Nanos,
        /// The value that was seen.
        observed: Nanos,
    },
    /// A job took longer than its analytic bound. With a `cause` this is the consequence of the
    /// broken assumption named there; without one it is a defect of AegisRT.
    BoundExceeded {
        /// The job.
        job: JobId,
        /// The bound that was promised.
        bound: Nanos,
        /// The response time that was seen.
        response: Nanos,
        /// The job that broke an assumption in the same busy period.
        cause: Option<JobId>,
    },
    /// The rest of its server's budget is too short for the job's next stage: it waits for the next
    /// refill.
    OutOfBudget {
        /// The job.
        job: JobId,
        /// When the budget is full again.
        until: Timestamp,
    },
    /// A job used more device time than its stages are charged, and its model pays with time: its
    /// next release is put off. Only where overruns are contained.
    DebtIncurred {
        /// The job.
        job: JobId,
        /// What it used beyond the charges of the stages it ran.
        excess: Nanos,
        /// By how much the next release moves.
        postponed: Nanos,
    },
    /// A job that was accepted before its model incurred a debt is released later than it was told.
    Postponed {
        /// The job.
        job: JobId,
        /// The release that its response and deadline count from now.
        release: Timestamp,
        /// `release + D`.
        deadline: Timestamp,
    },
    /// The busy period in which an assumption was broken is over: nothing of it remains, and every
    /// bound holds again.
    GuaranteesRestored {
        /// The first job that broke one.
        since: JobId,
    },
    /// A running stage has been on the device longer than the watchdog allows.
    Hanging {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageIndex,
        /// How long it has run.
        elapsed: Nanos,
    },
    /// A runtime asked for memory beyond its binding and was refused.
    AllocationRefused {
        /// Whose runtime.
        model: ModelId,
        /// What it asked for.
        requested: Bytes,
        /// What the binding had left.
        available: Bytes,
    },
    /// The free memory of the device crossed a threshold.
    PressureChanged {
        /// The level before.
        from: PressureLevel,
        /// The level now; below ample new models are refused.
        to: PressureLevel,
        /// What was free.
        free: Bytes,
    },
    /// The evidence a bound rests on does not describe what runs any more. The bound stays as it is.
    EvidenceStale {
        /// The job that showed it.
        job: JobId,
        /// The stage whose evidence it is.
        stage: StageIndex,
        /// What was seen.
        why: Staleness,
    },
    /// The device was free and no job but those in the background was ready: a busy period ended.
    /// A stage in the background that follows begins one of its own.
    Idle,
    /// The dispatcher was told to stop: jobs that have not begun are dropped, later ones refused.
    Stopping,
    /// The orchestration loop ended.
    Stopped,
}

/// Why a policy chose a job: what decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// No other job was ready.
    OnlyReady,
    /// It was released first.
    EarliestRelease {
        /// Its release.
        chosen: Timestamp,
        /// The next one's.
        next: Timestamp,
    },
    /// Its deadline is the earliest.
    EarliestDeadline {
        /// Its deadline.
        chosen: Timestamp,
        /// The next one's.
        next: Timestamp,
    },
    /// Its period is the shortest.
    ShortestPeriod {
        /// Its period.
        chosen: Nanos,
        /// The next one's.
        next: Nanos,
    },
    /// Its relative deadline is the shortest.
    ShortestDeadline {
        /// Its relative deadline.
        chosen: Nanos,
        /// The next one's.
        next: Nanos,
    },
    /// Its priority is the most urgent (smaller goes first).
    MostUrgent {
        /// Its priority.
        chosen: u32,
        /// The next one's.
        next: u32,
    },
    /// It was between two stages and nothing strictly more urgent waits.
    Continues,
    /// It runs in the background, and nothing else was ready.
    Background,
}

/// Why a submission was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SubmitRefusal {
    /// The submission queue was full.
    QueueFull,
    /// All of the model's job slots hold unfinished or uncollected jobs.
    NoSlot,
    /// The model is fenced after a fault.
    ModelFenced,
    /// The model is evicted or being evicted.
    ModelEvicted,
    /// The runtime is not running.
    NotRunning,
}

impl SubmitRefusal {
    /// What the caller can do.
    #[must_use]
    pub fn category(self) -> Category {
        match self {
            Self::QueueFull | Self::NoSlot => Category::Transient,
            Self::ModelFenced | Self::ModelEvicted | Self::NotRunning => Category::Permanent,
        }
    }
}

impl std::fmt::Display for SubmitRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the submission queue is full",
            Self::NoSlot => "every job slot of the model is taken",
            Self::ModelFenced => "the model is fenced after a fault",
            Self::ModelEvicted => "the model is evicted",
            Self::NotRunning => "the runtime is not running",
        })
    }
}

/// Why an accepted job ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DropReason {
    /// The runtime stopped before the job began.
    Stopping,
    /// Its model was fenced.
    ModelFenced,
    /// Its compute budget was used up at a stage boundary.
    ComputeBudget,
    /// Its model still owes compute time from an earlier overrun.
    ComputeDebt,
    /// An overrun left too little time to its deadline, and it had not begun.
    CannotFinish,
    /// It had used more device time than the stages it ran are charged.
    Overrun,
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stopping => "the runtime stopped before the job began",
            Self::ModelFenced => "the model is fenced after a fault",
            Self::ComputeBudget => "the job used up its compute budget",
            Self::ComputeDebt => "the model repays an overrun of its compute budget",
            Self::CannotFinish => "an overrun left too little time before the job began",
            Self::Overrun => "the job had used more than the charges of its stages",
        })
    }
}

/// How measured evidence was found not to hold any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "staleness", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Staleness {
    /// More jobs exceeded their bound than the promised probability allows.
    Exceedances {
        /// Jobs of the window so far.
        jobs: u32,
        /// How many of them exceeded it.
        exceeded: u32,
        /// The fewest that are an alarm.
        alarm: u32,
    },
    /// Jobs have become slower than those that were measured, and stay so.
    Drift {
        /// The mean that was measured.
        mean: Nanos,
        /// What the jobs exceed it by in sum, beyond an allowance.
        excess: Nanos,
    },
}

impl std::fmt::Display for Staleness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exceedances { jobs, exceeded, alarm } => {
                write!(f, "{exceeded} of {jobs} jobs exceeded the bound, and {alarm} are an alarm")
            }
            Self::Drift { mean, excess } => {
                write!(f, "jobs stay slower than the measured mean of {mean}, by {excess} in sum")
            }
        }
    }
}

/// What the proof takes for granted about the world; each is checked while running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Assumption {
    /// No stage runs longer on the device than its worst-case execution time.
    ExecutionTime,
    /// Deciding, launching and detecting take no longer than the declared dispatch overhead.
    DispatchOverhead,
    /// A job that finds the device idle is seen within the declared wake-up latency.
    WakeLatency,
    /// A job is submitted no later after its nominal release than its declared jitter.
    ReleaseJitter,
    /// Inputs of a stage that could not be launched behind them hold up no other stage.
    LeftUpload,
}

impl std::fmt::Display for Assumption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ExecutionTime => "execution time",
            Self::DispatchOverhead => "dispatch overhead",
            Self::WakeLatency => "wake-up latency",
            Self::ReleaseJitter => "release jitter",
            Self::LeftUpload => "left upload",
        })
    }
}

impl TraceEvent {
    /// The model the event is about, if it is about one.
    #[must_use]
    pub fn model(&self) -> Option<ModelId> {
        match self {
            Self::Configured { .. }
            | Self::Started
            | Self::Refused { .. }
            | Self::PressureChanged { .. }
            | Self::Idle
            | Self::Stopping
            | Self::Stopped => None,
            Self::Admitted { model, .. }
            | Self::BoundChanged { model, .. }
            | Self::Evicting { model }
            | Self::Evicted { model }
            | Self::Freed { model }
            | Self::SubmissionRefused { model, .. }
            | Self::Fenced { model }
            | Self::AllocationRefused { model, .. } => Some(*model),
            Self::Stamped { job, .. }
            | Self::Submitted { job, .. }
            | Self::Released { job }
            | Self::Dispatched { job, .. }
            | Self::StageCompleted { job, .. }
            | Self::UploadAwaited { job, .. }
            | Self::StageFailed { job, .. }
            | Self::LaunchFailed { job, .. }
            | Self::Suspended { job, .. }
            | Self::Completed { job, .. }
            | Self::MissedDeadline { job, .. }
            | Self::Dropped { job, .. }
            | Self::Faulted { job, .. }
            | Self::AssumptionBroken { job, .. }
            | Self::BoundExceeded { job, .. }
            | Self::EvidenceStale { job, .. }
            | Self::OutOfBudget { job, .. }
            | Self::DebtIncurred { job, .. }
            | Self::Postponed { job, .. }
            | Self::GuaranteesRestored { since: job }
            | Self::Hanging { job, .. } => Some(job.model),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::JobLimits;
    use crate::service::ServiceTerms;

    #[test]
    fn an_event_fits_in_one_cache_line() {
        assert!(size_of::<TraceEvent>() <= 64, "{} bytes", size_of::<TraceEvent>());
    }

    #[test]
    fn an_admission_says_which_service_was_given() {
        let what = AdmittedModel {
            name: "logger".into(),
            service: ServiceTerms::Background,
            stages: vec![Nanos(5)],
            limits: JobLimits { may_be_suspended: true, compute: Nanos(9), streams: 1, slots: 2 },
            overhead: Nanos(1),
            bound: None,
            persistent: Bytes(0),
            scratch: Bytes(0),
            partition: None,
            watched: Vec::new(),
        };
        let event = TraceEvent::Admitted { model: ModelId::first(0), what: Box::new(what) };
        let text = serde_json::to_string(&event).expect("events serialise");
        expect_test::expect![[r#"{"event":"admitted","model":"m0","what":{"name":"logger","service":"background","stages":[5],"may_be_suspended":true,"compute":9,"streams":1,"slots":2,"overhead":1,"bound":null,"persistent":0,"scratch":0}}"#]]
            .assert_eq(&text);
        assert_eq!(serde_json::from_str::<TraceEvent>(&text).expect("our own"), event);
    }

    #[test]
    fn a_dispatch_reads_as_one_flat_object() {
        let event = TraceEvent::Dispatched {
            job: JobId { model: ModelId::first(2), sequence: 7 },
            stage: StageIndex(0),
            stream: StreamId::first(0),
            waiting: 3,
            why: Reason::EarliestDeadline { chosen: Timestamp(10), next: Timestamp(20) },
        };
        expect_test::expect![[r#"{"event":"dispatched","job":"m2#7","stage":0,"stream":"s0","waiting":3,"why":{"reason":"earliest_deadline","chosen":10,"next":20}}"#]]
            .assert_eq(&serde_json::to_string(&event).expect("events serialise"));
    }
}

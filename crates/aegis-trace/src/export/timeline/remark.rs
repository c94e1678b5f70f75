//! What has no length: facts about jobs, models and the run, each with its numbers.

use super::canvas::{Arg, Canvas, Mark, Name, TrackId, TrackKind, Value};
use super::job::JobText;
use super::word::Word;
use super::{LAST, Timeline};
use crate::category::Category;
use crate::collector::Record;
use crate::error::TraceError;
use crate::event::{Assumption, DropReason, Reason, Staleness, SubmitRefusal, TraceEvent};
use crate::id::{JobId, ModelId, StageIndex};
use crate::model::{AdmittedModel, RefusedModel};
use crate::pressure::PressureLevel;
use crate::unit::{Nanos, Timestamp};

/// The longest explanation that is drawn, in bytes.
const EXPLANATION_MAX: usize = 1_000;

impl<C: Canvas> Timeline<C> {
    /// Draws an event that changes no slice.
    pub(super) fn remark(&mut self, at: Timestamp, record: &Record) -> Result<(), TraceError> {
        match &record.event {
            TraceEvent::Started => self.of_executor(at, record.by, Word::Started),
            TraceEvent::Idle => self.of_executor(at, record.by, Word::Idle),
            TraceEvent::Stopped => self.of_executor(at, record.by, Word::Stopped),
            TraceEvent::Refused { what } => self.refused(at, what),
            TraceEvent::PressureChanged { from, to, free } => {
                let track = match self.free_memory {
                    Some(track) => track,
                    None => self.add_track(TrackId::RUN, "free memory", TrackKind::Bytes)?,
                };
                self.free_memory = Some(track);
                self.canvas.count(track, at, free.0)?;
                let args = [
                    Arg(Word::From, pressure(*from).into()),
                    Arg(Word::To, pressure(*to).into()),
                    Arg(Word::Free, (*free).into()),
                ];
                self.instant(TrackId::RUN, at, Word::PressureChanged, &args)
            }
            TraceEvent::Evicting { model } => self.of_model(at, *model, Word::Evicting, &[]),
            TraceEvent::Evicted { model } => self.of_model(at, *model, Word::Evicted, &[]),
            TraceEvent::Fenced { model } => self.of_model(at, *model, Word::Fenced, &[]),
            TraceEvent::BoundChanged { model, bound } => {
                let args = [Arg(Word::Bound, (*bound).into())];
                self.of_model(at, *model, Word::BoundChanged, &args)
            }
            TraceEvent::SubmissionRefused { model, why } => {
                let args = [Arg(Word::Reason, submit_refusal(*why).into())];
                self.of_model(at, *model, Word::SubmissionRefused, &args)
            }
            TraceEvent::AllocationRefused { model, requested, available } => {
                let args = [
                    Arg(Word::Requested, (*requested).into()),
                    Arg(Word::Available, (*available).into()),
                ];
                self.of_model(at, *model, Word::AllocationRefused, &args)
            }
            event => self.remark_on_job(at, event),
        }
    }

    fn remark_on_job(&mut self, at: Timestamp, event: &TraceEvent) -> Result<(), TraceError> {
        match *event {
            TraceEvent::MissedDeadline { job, late } => {
                self.of_job(at, job, Word::DeadlineMissed, &[Arg(Word::Late, late.into())])
            }
            TraceEvent::AssumptionBroken { assumption, job, assumed, observed } => {
                let args = [
                    Arg(Word::Assumption, self::assumption(assumption).into()),
                    Arg(Word::Assumed, assumed.into()),
                    Arg(Word::Observed, observed.into()),
                ];
                self.of_job(at, job, Word::AssumptionBroken, &args)
            }
            TraceEvent::BoundExceeded { job, bound, response, cause } => {
                self.bound_exceeded(at, job, [bound, response], cause)
            }
            TraceEvent::OutOfBudget { job, until } => {
                self.of_job(at, job, Word::OutOfBudget, &[Arg(Word::Until, until.into())])
            }
            TraceEvent::DebtIncurred { job, excess, postponed } => {
                let args = [Arg(Word::Excess, excess.into()), Arg(Word::By, postponed.into())];
                self.of_job(at, job, Word::DebtIncurred, &args)
            }
            TraceEvent::Postponed { job, release, deadline } => {
                let relative = deadline.saturating_since(release);
                let args =
                    [Arg(Word::Release, release.into()), Arg(Word::Deadline, relative.into())];
                self.of_job(at, job, Word::Postponed, &args)
            }
            TraceEvent::GuaranteesRestored { since } => {
                self.of_job(at, since, Word::GuaranteesRestored, &[])
            }
            TraceEvent::Hanging { job, stage, elapsed } => {
                let args = [stage_arg(stage), Arg(Word::Elapsed, elapsed.into())];
                self.of_job(at, job, Word::Hanging, &args)
            }
            TraceEvent::EvidenceStale { job, stage, why } => self.stale(at, job, stage, why),
            // Those above, those that `draw` draws itself, and none else: a new kind of event is to
            // be given its place here.
            // What only a replay needs tells a reader of a picture nothing: the job's own fault follows
            // a failed stage or launch.
            TraceEvent::Configured { .. }
            | TraceEvent::Freed { .. }
            | TraceEvent::Stamped { .. }
            | TraceEvent::Released { .. }
            | TraceEvent::UploadAwaited { .. }
            | TraceEvent::StageFailed { .. }
            | TraceEvent::LaunchFailed { .. }
            | TraceEvent::Stopping
            | TraceEvent::Started
            | TraceEvent::Idle
            | TraceEvent::Stopped
            | TraceEvent::Admitted { .. }
            | TraceEvent::Refused { .. }
            | TraceEvent::BoundChanged { .. }
            | TraceEvent::Evicting { .. }
            | TraceEvent::Evicted { .. }
            | TraceEvent::Submitted { .. }
            | TraceEvent::SubmissionRefused { .. }
            | TraceEvent::Dispatched { .. }
            | TraceEvent::StageCompleted { .. }
            | TraceEvent::Suspended { .. }
            | TraceEvent::Completed { .. }
            | TraceEvent::Dropped { .. }
            | TraceEvent::Faulted { .. }
            | TraceEvent::Fenced { .. }
            | TraceEvent::AllocationRefused { .. }
            | TraceEvent::PressureChanged { .. } => Ok(()),
        }
    }

    fn bound_exceeded(
        &mut self,
        at: Timestamp,
        job: JobId,
        [bound, response]: [Nanos; 2],
        cause: Option<JobId>,
    ) -> Result<(), TraceError> {
        let cause = cause.map(JobText::of);
        let args = [
            Arg(Word::Bound, bound.into()),
            Arg(Word::Response, response.into()),
            Arg(Word::Cause, cause.as_ref().map(JobText::as_str).into()),
        ];
        self.of_job(at, job, Word::BoundExceeded, &args)
    }

    pub(super) fn remark_admission(
        &mut self,
        at: Timestamp,
        slot: usize,
        what: &AdmittedModel,
    ) -> Result<(), TraceError> {
        let model = self.models[slot].as_ref().expect("just made");
        let args = [
            Arg(Word::Model, model.text.as_str().into()),
            Arg(Word::Bound, model.bound.into()),
            Arg(Word::Deadline, model.deadline.into()),
            Arg(Word::Persistent, what.persistent.into()),
            Arg(Word::Scratch, what.scratch.into()),
        ];
        let mark = Mark {
            on: TrackId::RUN,
            at,
            name: Name::Word(Word::Admitted),
            args: &args,
            flow: None,
        };
        self.canvas.instant(mark)
    }

    fn refused(&mut self, at: Timestamp, what: &RefusedModel) -> Result<(), TraceError> {
        let why = what.why.to_string();
        let args = [
            Arg(Word::Model, super::short(&what.name).into()),
            Arg(Word::Explanation, why[..why.floor_char_boundary(EXPLANATION_MAX)].into()),
        ];
        self.instant(TrackId::RUN, at, Word::Refused, &args)
    }

    fn stale(
        &mut self,
        at: Timestamp,
        job: JobId,
        stage: StageIndex,
        why: Staleness,
    ) -> Result<(), TraceError> {
        match why {
            Staleness::Exceedances { jobs, exceeded, alarm } => {
                let args = [
                    stage_arg(stage),
                    Arg(Word::Reason, Word::Exceedances.into()),
                    Arg(Word::Jobs, jobs.into()),
                    Arg(Word::Exceeded, exceeded.into()),
                    Arg(Word::Alarm, alarm.into()),
                ];
                self.of_job(at, job, Word::EvidenceStale, &args)
            }
            Staleness::Drift { mean, excess } => {
                let args = [
                    stage_arg(stage),
                    Arg(Word::Reason, Word::Drift.into()),
                    Arg(Word::Mean, mean.into()),
                    Arg(Word::Excess, excess.into()),
                ];
                self.of_job(at, job, Word::EvidenceStale, &args)
            }
        }
    }

    /// Until it has dispatched something, the executor of a recorder is not known.
    fn of_executor(&mut self, at: Timestamp, by: u32, name: Word) -> Result<(), TraceError> {
        let partition = self.executors.get(&by).map(|index| &self.partitions[*index]);
        let on = partition.map_or(TrackId::RUN, |partition| partition.row.track);
        self.instant(on, at, name, &[])
    }

    fn of_model(
        &mut self,
        at: Timestamp,
        model: ModelId,
        name: Word,
        args: &[Arg<'_>],
    ) -> Result<(), TraceError> {
        let slot = self.model(model)?;
        let on = self.models[slot].as_ref().expect("just made").track();
        self.instant(on, at, name, args)
    }

    fn of_job(
        &mut self,
        at: Timestamp,
        job: JobId,
        name: Word,
        args: &[Arg<'_>],
    ) -> Result<(), TraceError> {
        let text = JobText::of(job);
        let mut all = [Arg(Word::Job, Value::Absent); 6];
        all[0] = Arg(Word::Job, text.as_str().into());
        all[1..=args.len()].copy_from_slice(args);
        self.of_model(at, job.model, name, &all[..=args.len()])
    }

    fn instant(
        &mut self,
        on: TrackId,
        at: Timestamp,
        name: Word,
        args: &[Arg<'_>],
    ) -> Result<(), TraceError> {
        let at = at.min(LAST);
        self.canvas.instant(Mark { on, at, name: Name::Word(name), args, flow: None })
    }
}

fn stage_arg(stage: StageIndex) -> Arg<'static> {
    Arg(Word::Stage, u32::from(stage.0).into())
}

/// The comparison that decided, and both of its sides if it has any.
pub(super) fn reason(why: Reason) -> (Word, Option<u64>, Option<u64>) {
    match why {
        Reason::OnlyReady => (Word::OnlyReady, None, None),
        Reason::Continues => (Word::Continues, None, None),
        Reason::Background => (Word::Background, None, None),
        Reason::EarliestRelease { chosen, next } => {
            (Word::EarliestRelease, Some(chosen.0), Some(next.0))
        }
        Reason::EarliestDeadline { chosen, next } => {
            (Word::EarliestDeadline, Some(chosen.0), Some(next.0))
        }
        Reason::ShortestPeriod { chosen, next } => {
            (Word::ShortestPeriod, Some(chosen.0), Some(next.0))
        }
        Reason::ShortestDeadline { chosen, next } => {
            (Word::ShortestDeadline, Some(chosen.0), Some(next.0))
        }
        Reason::MostUrgent { chosen, next } => {
            (Word::MostUrgent, Some(chosen.into()), Some(next.into()))
        }
    }
}

pub(super) fn drop_reason(why: DropReason) -> Word {
    match why {
        DropReason::Stopping => Word::Stopping,
        DropReason::ModelFenced => Word::ModelFenced,
        DropReason::ComputeBudget => Word::ComputeBudget,
        DropReason::ComputeDebt => Word::ComputeDebt,
        DropReason::CannotFinish => Word::CannotFinish,
        DropReason::Overrun => Word::Overrun,
    }
}

pub(super) fn category(category: Category) -> Word {
    match category {
        Category::Transient => Word::Transient,
        Category::Permanent => Word::Permanent,
        Category::Fatal => Word::Fatal,
    }
}

fn submit_refusal(why: SubmitRefusal) -> Word {
    match why {
        SubmitRefusal::QueueFull => Word::QueueFull,
        SubmitRefusal::NoSlot => Word::NoSlot,
        SubmitRefusal::ModelFenced => Word::ModelFenced,
        SubmitRefusal::ModelEvicted => Word::ModelEvicted,
        SubmitRefusal::NotRunning => Word::NotRunning,
    }
}

fn assumption(assumption: Assumption) -> Word {
    match assumption {
        Assumption::ExecutionTime => Word::ExecutionTime,
        Assumption::DispatchOverhead => Word::DispatchOverhead,
        Assumption::WakeLatency => Word::WakeLatency,
        Assumption::ReleaseJitter => Word::ReleaseJitter,
        Assumption::LeftUpload => Word::LeftUpload,
    }
}

fn pressure(level: PressureLevel) -> Word {
    match level {
        PressureLevel::Ample => Word::Ample,
        PressureLevel::Low => Word::Low,
        PressureLevel::Critical => Word::Critical,
    }
}

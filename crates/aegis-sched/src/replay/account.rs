//! The account of one job: what its response is made of, term by term.
//!
//! From its release to its end a job waits for its own submission, for the executor to wake up, for
//! stages of others, or runs. Services tile the busy time of the device, so these terms tile the response
//! and add up to it exactly, in whole nanoseconds.
//!
//! A stage of another job is *interference* if that job goes first under the policy, and *blocking* if
//! it does not: a stage cannot be interrupted, so one that had begun, or that follows another of a job
//! that is never suspended, holds up jobs that are more urgent. These are the two terms of the bound.
//!
//! # Invariants
//! 1. Terms are in order, not empty, and tile the time from release to end.
//! 2. Urgencies are those by which the dispatcher chose, also of jobs under servers.

use aegis_trace::{
    AdmittedModel, ExecutorConfig, JobId, ModelId, Nanos, Reason, ServiceTerms, StageIndex,
    Timestamp,
};

use super::admissions::Readmission;
use super::decisions::Rerun;
use super::error::ReplayError;
use super::keep::{Excerpt, Found, Keeper, Wanted};
use super::log::{self, ExecutorLog};
use super::room::Room;
use super::source::Records;
use super::timeline::{BoundChange, Broken, Ending, JobRecord, Refill, Service, Timeline};
use super::{ExecutorReplay, Extent, Keeps, Replayed};
use crate::analysis::{Argument, Setting, explain};
use crate::policy::{ReadyJob, SchedulingPolicy, policy_of};
use crate::queue::Class;

/// What one job waited for and did.
#[derive(Clone, Debug)]
pub struct Account {
    /// Which job.
    pub job: JobId,
    /// The name of its model.
    pub name: String,
    /// The executor that ran it.
    pub config: ExecutorConfig,
    /// Its model as it was admitted.
    pub model: AdmittedModel,
    /// What was recorded of it.
    pub record: JobRecord,
    /// How it ended.
    pub ending: Ending,
    /// What its response counts from.
    pub from: Timestamp,
    /// When its end was noticed.
    pub to: Timestamp,
    /// What the time between is made of.
    pub terms: Vec<Term>,
    /// The bound that it was promised, if it was.
    pub bound: Option<Nanos>,
    /// The job that attains this bound, with what it waits for; `None` without a bound, and where it was
    /// proved without such a job.
    pub argument: Option<Argument>,
    /// The assumptions that were broken in its busy period, before it ended.
    pub broken: Vec<Broken>,
}

/// One piece of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Where it begins.
    pub from: Timestamp,
    /// Where it ends; after `from`.
    pub to: Timestamp,
    /// What it is.
    pub what: Piece,
}

impl Term {
    /// Its length.
    #[must_use]
    pub fn length(&self) -> Nanos {
        self.to.saturating_since(self.from)
    }
}

/// What a piece of a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It was released before it was submitted.
    NotSubmitted,
    /// Its server had too little budget left, and the next refill had not come.
    NoBudget,
    /// The device was free and the executor had not noticed the job yet.
    WakeUp,
    /// A stage of a less urgent job held the device.
    Blocking(Held),
    /// A stage of a more urgent job held the device.
    Interference(Held),
    /// A stage of an earlier job of the same model held the device.
    Earlier(Held),
    /// It had the device, and deciding, launching and noticing took this.
    Overhead(StageIndex),
    /// Its stage had the device, and waited for the inputs of a job that could not be launched: as far as
    /// the audit holds that against that job.
    LeftUpload {
        /// Which stage.
        stage: StageIndex,
        /// Whose inputs.
        of: JobId,
    },
    /// Its stage began with its inputs on their way to the device.
    Upload(StageIndex),
    /// The device ran its stage.
    Execution(StageIndex),
    /// Its stage ended with its outputs on their way from the device.
    Download(StageIndex),
}

/// Who held the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which job.
    pub by: JobId,
    /// Which stage of it.
    pub stage: StageIndex,
    /// Why that ran and not the job of the account.
    pub why: Why,
}

/// Why another job had the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was on the device already when the job could first have run.
    Began,
    /// It was between two stages, and went on.
    WentOn,
    /// The policy compared the two: `chosen` is its key, `next` that of the job.
    Preferred(Reason),
    /// The job is in the background, and everything else goes before.
    Foreground,
    /// The job was in line behind another one of its server.
    InLine,
}

/// Why there is no account.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// No such job was accepted.
    #[error("the trace has no job {job}")]
    NoSuchJob {
        /// Which.
        job: JobId,
    },
    /// The log ends before it.
    #[error("{job} had not ended when the trace did")]
    NotEnded {
        /// Which.
        job: JobId,
    },
    /// No job of the model completed.
    #[error("the trace has no completed job of a model called `{name}`; it has jobs of {known}")]
    NoJobOf {
        /// Which model.
        name: String,
        /// The models that have some.
        known: String,
    },
    /// The bound could not be argued again.
    #[error("the bound could not be argued again")]
    Bound(#[source] Box<ReplayError>),
    /// The run could not be gone through again.
    #[error("the run could not be gone through again")]
    Again(#[source] Box<ReplayError>),
}

impl AccountError {
    /// Permanent, ask for another job; unless the file could not be read again.
    #[must_use]
    pub fn category(&self) -> aegis_trace::Category {
        match self {
            Self::NoSuchJob { .. } | Self::NotEnded { .. } | Self::NoJobOf { .. } => {
                aegis_trace::Category::Permanent
            }
            Self::Bound(cause) | Self::Again(cause) => cause.category(),
        }
    }
}

impl Replayed {
    /// The account of `job`. `records` are those that were replayed.
    ///
    /// Costs O(n) in the services between release and end, and one analysis of the set; and another
    /// replay where no timelines were kept, in memory that is bounded by what is in flight.
    ///
    /// # Errors
    /// [`AccountError`], Permanent.
    pub fn account(&self, records: &dyn Records, job: JobId) -> Result<Account, AccountError> {
        self.account_within(records, job, Room::all())
    }

    /// The same, in so much room.
    pub(super) fn account_within(
        &self,
        records: &dyn Records,
        job: JobId,
        room: Room,
    ) -> Result<Account, AccountError> {
        if self.keeps == Keeps::Timelines {
            let of = self.executors.iter().find(|of| of.timeline.jobs.contains_key(&job));
            let of = of.ok_or(AccountError::NoSuchJob { job })?;
            return self.account_of(records, of, &of.timeline, job);
        }
        let (mut was_seen, wanted) = (false, Wanted::Job(job));
        for (of, excerpts) in self.executors.iter().zip(self.excerpts(records, wanted, room)?) {
            was_seen |= excerpts.was_seen;
            if let Some(Excerpt { timeline, .. }) = excerpts.found {
                return self.account_of(records, of, &timeline, job);
            }
        }
        Err(if was_seen { AccountError::NotEnded { job } } else { AccountError::NoSuchJob { job } })
    }

    /// The account of the completed job with the longest response among those of the models called
    /// `name`; of several the first.
    ///
    /// Costs what an account costs; where timelines were kept, O(n) in the jobs besides.
    ///
    /// # Errors
    /// [`AccountError`], Permanent; [`AccountError::NoJobOf`] where there is none.
    pub fn worst(&self, records: &dyn Records, name: &str) -> Result<Account, AccountError> {
        self.worst_within(records, name, Room::all())
    }

    /// The same, in so much room.
    pub(super) fn worst_within(
        &self,
        records: &dyn Records,
        name: &str,
        room: Room,
    ) -> Result<Account, AccountError> {
        if self.keeps == Keeps::Timelines {
            let job = self.worst_job(name)?;
            return self.account(records, job);
        }
        let mut known: Vec<&str> = Vec::new();
        let mut worst: Option<(&ExecutorReplay, Excerpt)> = None;
        let excerpts = self.excerpts(records, Wanted::WorstOf(name), room)?;
        for (of, excerpts) in self.executors.iter().zip(excerpts) {
            let names = excerpts.completed.iter().filter_map(|model| of.models.get(model));
            for model in names {
                if !known.contains(&model.name.as_str()) {
                    known.push(&model.name);
                }
            }
            if let Some(found) = excerpts.found
                && worst.as_ref().is_none_or(|(_, worst)| found.response > worst.response)
            {
                worst = Some((of, found));
            }
        }
        match worst {
            Some((of, Excerpt { job, timeline, .. })) => {
                self.account_of(records, of, &timeline, job)
            }
            None => Err(none_of(name, &known)),
        }
    }

    /// What was kept of each executor about the jobs that are wanted.
    fn excerpts(
        &self,
        records: &dyn Records,
        wanted: Wanted<'_>,
        mut room: Room,
    ) -> Result<Vec<Found>, AccountError> {
        let one = |log: &ExecutorLog| {
            let keeper = Keeper::excerpts(log, wanted, room);
            let again = Rerun::new(log, records, self.extent, keeper)?.run()?;
            let found = again.keeper.into_found();
            room = room.beside(found.kept()); // Those of all executors are held together.
            Ok(found)
        };
        let all = log::split(records, self.extent)
            .and_then(|(logs, _)| logs.iter().map(one).collect::<Result<_, ReplayError>>());
        all.map_err(|cause| AccountError::Again(Box::new(cause)))
    }

    fn account_of(
        &self,
        records: &dyn Records,
        of: &ExecutorReplay,
        timeline: &Timeline,
        job: JobId,
    ) -> Result<Account, AccountError> {
        let record = timeline.jobs.get(&job).ok_or(AccountError::NoSuchJob { job })?;
        let (to, ending) = record.ending.ok_or(AccountError::NotEnded { job })?;
        let end = record.ended_by.ok_or(AccountError::NotEnded { job })?;
        let model = of.models.get(&job.model).ok_or(AccountError::NoSuchJob { job })?;
        let from = record.from(model);
        let terms = Tiling { timeline, job, record, model, policy: &*policy_of(of.config.policy) };
        // The bound of a server is about its refills, and promised to no job.
        let argument = match model.bound {
            Some(_) => argument(records, self.extent, of, job.model, end),
            None => Ok(None),
        };
        Ok(Account {
            job,
            name: model.name.clone(),
            config: of.config.clone(),
            model: model.clone(),
            record: record.clone(),
            ending,
            from: from.min(to),
            to,
            terms: terms.tile(from.min(to), to),
            bound: timeline.bound_after(job.model, model, |change| change.record < end),
            argument: argument.map_err(|cause| AccountError::Bound(Box::new(cause)))?,
            broken: broken_before(timeline, record, end),
        })
    }

    /// The completed job with the longest response, by the timelines.
    fn worst_job(&self, name: &str) -> Result<JobId, AccountError> {
        let mut worst: Option<(Nanos, JobId)> = None;
        let mut known: Vec<&str> = Vec::new();
        for of in &self.executors {
            for (job, record) in &of.timeline.jobs {
                let Some(model) = of.models.get(&job.model) else { continue };
                let Some((at, Ending::Completed)) = record.ending else { continue };
                if !known.contains(&model.name.as_str()) {
                    known.push(&model.name);
                }
                let response = at.saturating_since(record.from(model));
                if model.name == name && worst.is_none_or(|(longest, _)| response > longest) {
                    worst = Some((response, *job));
                }
            }
        }
        worst.map(|(_, job)| job).ok_or_else(|| none_of(name, &known))
    }
}

fn none_of(name: &str, known: &[&str]) -> AccountError {
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    AccountError::NoJobOf { name: name.to_owned(), known }
}

impl Account {
    /// From release to end.
    #[must_use]
    pub fn response(&self) -> Nanos {
        self.to.saturating_since(self.from)
    }
}

impl JobRecord {
    /// What the response of a job of `model` counts from.
    pub(super) fn from(&self, model: &AdmittedModel) -> Timestamp {
        if model.service.is_guaranteed() { self.release } else { self.arrival }
    }
}

impl ExecutorReplay {
    /// The bound that jobs of `model` were promised by the end of what was decided at `at`.
    #[must_use]
    pub fn bound_at(&self, model: ModelId, at: Timestamp) -> Option<Nanos> {
        self.timeline.bound_after(model, self.models.get(&model)?, |change| change.at <= at)
    }
}

impl Timeline {
    /// The bound that jobs of the model that was admitted as `what` were promised behind the changes that
    /// `had_come`.
    fn bound_after(
        &self,
        model: ModelId,
        what: &AdmittedModel,
        had_come: impl Fn(&BoundChange) -> bool,
    ) -> Option<Nanos> {
        let promised = what.bound?;
        let mut changes = self.bounds.iter().rev();
        let last = changes.find(|change| change.model == model && had_come(change));
        Some(last.map_or(promised, |change| change.bound))
    }
}

/// The argument for the bound of `model` in the set whose bounds the executor had been told before the
/// record at `end`.
fn argument(
    records: &dyn Records,
    extent: Extent,
    of: &ExecutorReplay,
    model: ModelId,
    end: usize,
) -> Result<Option<Argument>, ReplayError> {
    let (logs, _) = log::split(records, extent)?;
    let log = logs.iter().find(|log| log.config.partition == of.config.partition);
    let Some(log) = log else { return Ok(None) };
    let admission = Readmission::as_told(log, of.config.policy, end)?;
    let setting = Setting::admission(of.config.policy, of.config.overheads);
    let explained = explain(admission.controller().tasks(), &setting);
    Ok(explained.tasks.into_iter().find(|argument| argument.model == model))
}

/// What was broken from the beginning of the busy period in which the job could first have run until the
/// record at `end`, which says that it ended. By the order of the log: what was broken by the last stage of
/// the busy period before is told at the same time as that this is over, and before it.
fn broken_before(timeline: &Timeline, record: &JobRecord, end: usize) -> Vec<Broken> {
    // A job that is held back leaves the device idle. Its release may be put off; a refill is a wait.
    let ready = if record.refills.is_empty() { record.eligible } else { record.first_eligible };
    let rest = timeline.idle_before(record.seen.max(ready), end);
    let since = |broken: &Broken| rest.is_none_or(|rest| rest.record < broken.record);
    let broken = timeline.broken.iter();
    broken.filter(|broken| since(broken) && broken.record < end).copied().collect()
}

/// Cuts the time of one job into pieces.
struct Tiling<'a> {
    timeline: &'a Timeline,
    job: JobId,
    record: &'a JobRecord,
    model: &'a AdmittedModel,
    policy: &'a dyn SchedulingPolicy,
}

impl Tiling<'_> {
    fn tile(&self, from: Timestamp, to: Timestamp) -> Vec<Term> {
        let mut terms = Vec::new();
        let submitted = self.record.arrival.clamp(from, to);
        push(&mut terms, from, submitted, Piece::NotSubmitted);
        let mut at = submitted;
        let mut services = self.timeline.between(submitted, to).iter().peekable();
        while let Some(service) = services.next() {
            let since = service.began().clamp(at, to);
            self.wait(&mut terms, at, since, Piece::WakeUp);
            if self.is_last(service) {
                own(&mut terms, service, since, to);
                return terms;
            }
            let gone = services.peek().map_or(to, |next| next.began());
            let until = service.until.unwrap_or(to).min(gone).clamp(since, to);
            if service.job.id == self.job {
                own(&mut terms, service, since, until);
            } else {
                self.wait(&mut terms, since, until, self.other(service));
            }
            at = until;
        }
        self.wait(&mut terms, at, to, Piece::WakeUp);
        terms
    }

    /// Whether the job does nothing after this stage of it, whose end is noticed when the job ends.
    fn is_last(&self, service: &Service) -> bool {
        let last = self.record.services.last().map(|place| self.timeline.service(*place));
        let is_own = service.job.id == self.job && service.until.is_some();
        is_own && last.is_some_and(|last| last.stage == service.stage)
    }

    /// A wait that is `what`, except where the job waits for a refill anyhow.
    fn wait(&self, terms: &mut Vec<Term>, from: Timestamp, to: Timestamp, what: Piece) {
        let mut at = from;
        for Refill { since, until, .. } in &self.record.refills {
            let (begins, ends) = ((*since).clamp(at, to), (*until).clamp(at, to));
            push(terms, at, begins, what);
            push(terms, begins, ends, Piece::NoBudget);
            at = ends;
        }
        push(terms, at, to, what);
    }

    /// What the service of another job is to this one.
    fn other(&self, service: &Service) -> Piece {
        let (rival, own) = (&service.job, self.next_run(service.since));
        let in_background = matches!(self.model.service, ServiceTerms::Background);
        let goes_first = match service.class {
            Class::Background => in_background,
            Class::Guaranteed | Class::Server => {
                in_background || self.rank(rival) < self.rank(&own)
            }
        };
        let contends = self.record.arrival.max(self.record.release);
        let why = if service.launched < contends {
            Why::Began
        } else if service.why == Reason::Continues {
            Why::WentOn
        } else if in_background && service.class != Class::Background {
            Why::Foreground
        } else if goes_first && !in_background {
            Why::Preferred(self.policy.reason(rival, &own))
        } else {
            Why::InLine
        };
        let held = Held { by: rival.id, stage: service.stage, why };
        match (rival.id.model == self.job.model, goes_first) {
            (true, _) => Piece::Earlier(held),
            (false, true) => Piece::Interference(held),
            (false, false) => Piece::Blocking(held),
        }
    }

    fn rank(&self, job: &ReadyJob) -> (u64, Timestamp, JobId) {
        (self.policy.urgency(job), job.release, job.id)
    }

    /// The job as the policy saw it when it ran next after `since`, or last, or would have seen it.
    fn next_run(&self, since: Timestamp) -> ReadyJob {
        let mut runs = self.record.services.iter().map(|place| self.timeline.service(*place));
        let next = runs.clone().find(|service| service.since >= since);
        if let Some(service) = next.or(runs.next_back()) {
            return service.job;
        }
        let (period, priority) = match self.model.service {
            ServiceTerms::Guaranteed { period, priority, .. }
            | ServiceTerms::Server { period, priority, .. } => (period, priority),
            ServiceTerms::Background => (Nanos::MAX, u32::MAX),
        };
        let (release, deadline) = (self.record.release, self.record.deadline);
        let deadline = deadline.unwrap_or(Timestamp::NEVER);
        ReadyJob { id: self.job, release, deadline, period, priority }
    }
}

/// The pieces of a service of the job itself.
fn own(terms: &mut Vec<Term>, service: &Service, since: Timestamp, until: Timestamp) {
    let stage = service.stage;
    let Some(device) = service.device else {
        // It failed or hung: what of it ran is not known.
        return push(terms, since, until, Piece::Execution(stage));
    };
    let started = device.started.clamp(since, until);
    let finished = device.finished.clamp(started, until);
    let free = match service.held_up {
        Some((of, waited)) => {
            let free = since.saturating_add(waited).min(started);
            push(terms, since, free, Piece::LeftUpload { stage, of });
            free
        }
        None => since,
    };
    push(terms, free, started, Piece::Overhead(stage));
    let uploaded = started.saturating_add(device.upload).min(finished);
    let downloading = finished.saturating_sub(device.download).max(uploaded);
    push(terms, started, uploaded, Piece::Upload(stage));
    push(terms, uploaded, downloading, Piece::Execution(stage));
    push(terms, downloading, finished, Piece::Download(stage));
    push(terms, finished, until, Piece::Overhead(stage));
}

fn push(terms: &mut Vec<Term>, from: Timestamp, to: Timestamp, what: Piece) {
    match terms.last_mut() {
        _ if from >= to => {}
        Some(last) if last.what == what && last.to == from => last.to = to,
        _ => terms.push(Term { from, to, what }),
    }
}

//! What one executor did, put together from its log while it is replayed.
//!
//! The device's time in a busy period is tiled by *services*: from the decision that launched a stage,
//! or that noticed the end of the one before it on the device, to the decision that noticed its
//! end. Everything that is said about a job afterwards is read from the services that lie between
//! its release and its end.
//!
//! # Invariants
//! 1. Services are in the order of their launches and do not overlap: the executor is serial.
//! 2. What is here was recomputed by the dispatcher and found equal to the log.

use std::collections::BTreeMap;

use aegis_context::{Awaited, StageTimes, Whose};
use aegis_trace::{
    Assumption, Category, DropReason, JobId, ModelId, Nanos, Reason, StageIndex, Timestamp,
    TraceEvent,
};

use super::log::Entry;
use crate::policy::ReadyJob;
use crate::queue::{Class, Ready};

/// The services and jobs of one executor.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// Every stage that was launched, in order.
    pub services: Vec<Service>,
    /// Every job that was accepted.
    pub jobs: BTreeMap<JobId, JobRecord>,
    /// Where busy periods ended, in order.
    pub idle: Vec<Rest>,
    /// What the proof assumes and did not hold, in order.
    pub broken: Vec<Broken>,
    /// Bounds as they changed, in order.
    pub bounds: Vec<BoundChange>,
    /// Evictions as they began, in order.
    pub evictions: Vec<(Timestamp, ModelId)>,
    /// When the dispatcher was told to stop.
    pub stop: Option<Timestamp>,
    /// The time of the last event.
    pub end: Timestamp,
    /// The next submission's stamp and claim, where its acceptance does not tell them.
    stamped: Option<(Timestamp, Option<Timestamp>)>,
    /// How many jobs were accepted.
    accepted: usize,
    /// Services that were let go, from the first.
    gone: usize,
    /// Refills that its jobs waited for.
    refills: usize,
}

/// The end of a busy period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The place of its event among the records of the trace. What is told at the same point in time is
    /// told before or behind it.
    pub record: usize,
    /// When.
    pub at: Timestamp,
}

/// A bound that a dispatcher was told anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundChange {
    /// The place of its event among the records of the trace. What ends at the same point in time ends
    /// before or behind it.
    pub record: usize,
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub model: ModelId,
    /// The bound.
    pub bound: Nanos,
}

/// One stage on the device.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its job as the policy saw it when it was launched.
    pub job: ReadyJob,
    /// What its job was promised.
    pub class: Class,
    /// The stage.
    pub stage: StageIndex,
    /// The decision that put it on the device.
    pub launched: Timestamp,
    /// From when on the device was its own: since it was launched or, behind another stage, since the
    /// decision that noticed the end of that.
    pub since: Timestamp,
    /// The decision that noticed its end; `None` where the log ends before.
    pub until: Option<Timestamp>,
    /// When the device ran it; `None` where it failed or did not end.
    pub device: Option<StageTimes>,
    /// How it failed, if it did.
    pub failed: Option<Category>,
    /// Why it was chosen.
    pub why: Reason,
    /// Whose inputs, left on their way, held it up beyond its charge, and for how long.
    pub held_up: Option<(JobId, Nanos)>,
}

impl Service {
    /// From when on nothing else held the device. A stage that waited behind another one begins when
    /// that is over, and before the dispatcher notices it.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        match self.device {
            Some(StageTimes { started, .. }) if self.launched < self.since => {
                started.min(self.since)
            }
            _ => self.since,
        }
    }
}

/// One job from its submission to its end.
#[derive(Clone, Debug)]
pub struct JobRecord {
    /// The place of the event that accepted it among the records of the trace.
    pub record: usize,
    /// When its caller handed it over.
    pub stamp: Timestamp,
    /// The release that its caller claimed.
    pub claimed: Option<Timestamp>,
    /// When it became visible, at the earliest.
    pub arrival: Timestamp,
    /// The decision that accepted it.
    pub seen: Timestamp,
    /// How many jobs of the executor were accepted before it.
    pub order: usize,
    /// What its response and deadline count from: its release, or its arrival for best effort.
    pub release: Timestamp,
    /// Its deadline, if it has one.
    pub deadline: Option<Timestamp>,
    /// From when on it might run, as far as that was known when it was accepted.
    pub first_eligible: Timestamp,
    /// From when on it may run.
    pub eligible: Timestamp,
    /// The decision that saw that; refills apart. `None` where none did.
    pub look: Option<Look>,
    /// Its services: see [`Timeline::service`].
    pub services: Vec<usize>,
    /// The stage that could not be launched, if one could not, and why.
    pub launch_failed: Option<(StageIndex, Category)>,
    /// The refills of its server that it waited for.
    pub refills: Vec<Refill>,
    /// How it ended and when; `None` where the log ends before.
    pub ending: Option<(Timestamp, Ending)>,
    /// The place of the event that says so among the records of the trace.
    pub ended_by: Option<usize>,
    /// By how much it was late; zero where it was not.
    pub late: Nanos,
    /// The bound that it exceeded, and the job that broke an assumption before.
    pub exceeded: Option<(Nanos, Option<JobId>)>,
}

/// A wait for the budget of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refill {
    /// Since when.
    pub since: Timestamp,
    /// When the budget was full again.
    pub until: Timestamp,
    /// The decision that saw that; `None` where none did.
    pub look: Option<Look>,
}

/// When it was seen that a job may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// How long after that began.
    pub delay: Nanos,
    /// Whether the device was idle.
    pub was_idle: bool,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its outputs.
    Completed,
    /// It was given up.
    Dropped(DropReason),
    /// It failed.
    Faulted(Category),
}

/// An assumption that did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The place of its event among the records of the trace.
    pub record: usize,
    /// When that was seen.
    pub at: Timestamp,
    /// Which.
    pub assumption: Assumption,
    /// By which job.
    pub job: JobId,
    /// The stage in whose time on the device that was, with its job; `None` of what is about no stage.
    pub stage: Option<(JobId, StageIndex)>,
    /// The value the proof used.
    pub assumed: Nanos,
    /// The value that was seen.
    pub observed: Nanos,
}

/// The state of the dispatcher around the decision that recorded an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    /// Whether the device was idle before it.
    pub(super) was_idle: bool,
    /// What it put on the device, if the event says that it put something there.
    pub(super) launched: Option<&'a Ready>,
}

impl Around<'_> {
    fn look(&self, at: Timestamp, eligible: Timestamp) -> Look {
        Look { delay: at.saturating_since(eligible), was_idle: self.was_idle }
    }
}

impl Timeline {
    /// The end of the last busy period that was over by `at` and was told of before the record at `end`;
    /// `None` where there is none. O(log n).
    #[must_use]
    pub fn idle_before(&self, at: Timestamp, end: usize) -> Option<Rest> {
        let before = self.idle.partition_point(|idle| idle.at <= at && idle.record < end);
        before.checked_sub(1).map(|last| self.idle[last])
    }

    /// The service at a place that a job's record names.
    #[must_use]
    pub fn service(&self, place: usize) -> &Service {
        &self.services[place - self.gone]
    }

    /// How many things are kept.
    pub(super) fn kept(&self) -> usize {
        let Self { services, jobs, idle, broken, bounds, evictions, .. } = self;
        let of_models = bounds.len() + evictions.len();
        let of_jobs = services.len() + jobs.len() + self.refills;
        of_jobs + idle.len() + broken.len() + of_models
    }

    /// Lets go of the record of a job.
    pub(super) fn remove(&mut self, job: JobId) {
        let record = self.jobs.remove(&job);
        self.refills -= record.map_or(0, |record| record.refills.len());
    }

    /// When the first of the services was launched whose end is not known.
    pub(super) fn open_since(&self) -> Option<Timestamp> {
        let behind = self.services.len().saturating_sub(2);
        let open = self.services[behind..].iter().find(|service| service.until.is_none());
        open.map(|service| service.launched)
    }

    /// The same with the record of one job only.
    pub(super) fn only(&self, job: JobId) -> Self {
        let jobs = self.jobs.get_key_value(&job).into_iter();
        let jobs: BTreeMap<_, _> = jobs.map(|(job, record)| (*job, record.clone())).collect();
        let refills = jobs.values().map(|record| record.refills.len()).sum();
        Self { jobs, refills, ..self.clone_without_jobs() }
    }

    fn clone_without_jobs(&self) -> Self {
        Self {
            services: self.services.clone(),
            jobs: BTreeMap::new(),
            idle: self.idle.clone(),
            broken: self.broken.clone(),
            bounds: self.bounds.clone(),
            evictions: Vec::new(),
            stop: self.stop,
            end: self.end,
            stamped: None,
            accepted: self.accepted,
            gone: self.gone,
            refills: 0,
        }
    }

    /// Lets go of services that had ended before `arrived`, and of what was before the device was idle
    /// the last time by `seen`.
    pub(super) fn forget(&mut self, arrived: Timestamp, seen: Timestamp) {
        let ended = |service: &Service| service.until.is_some_and(|until| until < arrived);
        let gone = self.services.iter().position(|service| !ended(service));
        let gone = gone.unwrap_or(self.services.len());
        self.services.drain(..gone);
        self.gone += gone;
        let idle = self.idle.partition_point(|idle| idle.at <= seen).saturating_sub(1);
        self.idle.drain(..idle);
        if let Some(rest) = self.idle.first().copied().filter(|rest| rest.at <= seen) {
            self.broken.retain(|broken| rest.record < broken.record);
        }
    }

    /// The services that held the device at some point of `from` to `to`, in order. O(log n) to find.
    #[must_use]
    pub fn between(&self, from: Timestamp, to: Timestamp) -> &[Service] {
        let ends = |service: &Service| service.until.unwrap_or(Timestamp::NEVER);
        let first = self.services.partition_point(|service| ends(service) <= from);
        let after = self.services.partition_point(|service| service.began() < to);
        &self.services[first..after.max(first)]
    }

    /// Takes in one event that the replay found as it was logged.
    pub(super) fn note(&mut self, entry: &Entry, around: Around<'_>) {
        self.end = entry.at;
        let at = entry.at;
        match entry.event {
            TraceEvent::Stamped { stamp, claimed, .. } => self.stamped = Some((stamp, claimed)),
            TraceEvent::Submitted { job, arrival, release, deadline } => {
                let (stamp, claimed) = self.stamped.take().unwrap_or((arrival, None));
                let eligible = release.max(arrival);
                let look = (eligible <= at).then(|| around.look(at, eligible));
                let record = JobRecord {
                    record: entry.record,
                    stamp,
                    claimed,
                    arrival,
                    seen: at,
                    order: self.accepted,
                    release,
                    deadline,
                    first_eligible: eligible,
                    eligible,
                    look,
                    services: Vec::new(),
                    launch_failed: None,
                    refills: Vec::new(),
                    ending: None,
                    ended_by: None,
                    late: Nanos::ZERO,
                    exceeded: None,
                };
                self.accepted += 1;
                self.jobs.insert(job, record);
            }
            TraceEvent::Dispatched { job, stage, why, .. } => {
                self.launched(at, job, stage, why, around)
            }
            TraceEvent::StageCompleted { started, finished, upload, download, ahead, .. } => {
                let awaited = None; // Told behind it, if at all.
                let times = StageTimes { started, finished, upload, download, ahead, awaited };
                self.left(at, Some(times), None);
            }
            TraceEvent::UploadAwaited { job, stage, of, took, before } if of == job => {
                self.awaited(job, stage, Awaited { whose: Whose::Own, took, before });
            }
            TraceEvent::StageFailed { category, .. } => self.left(at, None, Some(category)),
            TraceEvent::Idle => self.idle.push(Rest { record: entry.record, at }),
            TraceEvent::AssumptionBroken { assumption, job, assumed, observed } => {
                self.broke(entry.record, at, assumption, job, [assumed, observed]);
            }
            TraceEvent::BoundChanged { model, bound } => {
                self.bounds.push(BoundChange { record: entry.record, at, model, bound });
            }
            TraceEvent::Evicting { model } => self.evictions.push((at, model)),
            TraceEvent::Stopping => self.stop = Some(at),
            _ => self.note_of_job(entry, around),
        }
    }

    /// The same for what happens to a job that is known.
    fn note_of_job(&mut self, entry: &Entry, around: Around<'_>) {
        let (TraceEvent::Released { job }
        | TraceEvent::Postponed { job, .. }
        | TraceEvent::OutOfBudget { job, .. }
        | TraceEvent::LaunchFailed { job, .. }
        | TraceEvent::Completed { job, .. }
        | TraceEvent::Dropped { job, .. }
        | TraceEvent::Faulted { job, .. }
        | TraceEvent::MissedDeadline { job, .. }
        | TraceEvent::BoundExceeded { job, .. }) = entry.event
        else {
            return;
        };
        let Some(record) = self.jobs.get_mut(&job) else { return };
        let at = entry.at;
        if let TraceEvent::Completed { .. }
        | TraceEvent::Dropped { .. }
        | TraceEvent::Faulted { .. } = entry.event
        {
            record.ended_by = Some(entry.record);
        }
        let ended = |ending| Some((at, ending));
        match entry.event {
            TraceEvent::Released { .. } => {
                let look = Some(around.look(at, record.eligible));
                match record.refills.last_mut() {
                    Some(refill) => refill.look = look,
                    None => record.look = look,
                }
            }
            TraceEvent::Postponed { release, deadline, .. } => {
                (record.release, record.deadline) = (release, Some(deadline));
                record.eligible = record.eligible.max(release);
            }
            TraceEvent::OutOfBudget { until, .. } => {
                record.refills.push(Refill { since: at, until, look: None });
                self.refills += 1;
                record.eligible = until;
            }
            TraceEvent::LaunchFailed { stage, category, .. } => {
                record.launch_failed = Some((stage, category));
            }
            TraceEvent::Completed { .. } => record.ending = ended(Ending::Completed),
            TraceEvent::Dropped { why, .. } => record.ending = ended(Ending::Dropped(why)),
            TraceEvent::Faulted { category, .. } => {
                record.ending = ended(Ending::Faulted(category));
            }
            TraceEvent::MissedDeadline { late, .. } => record.late = late,
            TraceEvent::BoundExceeded { bound, cause, .. } => {
                record.exceeded = Some((bound, cause))
            }
            _ => {}
        }
    }

    fn launched(
        &mut self,
        launched: Timestamp,
        job: JobId,
        stage: StageIndex,
        why: Reason,
        around: Around<'_>,
    ) {
        let Some(ready) = around.launched else { return };
        if let Some(record) = self.jobs.get_mut(&job) {
            record.services.push(self.gone + self.services.len());
        }
        let (job, class) = (ReadyJob { id: job, ..ready.job }, ready.class);
        let (until, device, failed) = (None, None, None);
        let since = launched;
        let held_up = None;
        let service =
            Service { job, class, stage, launched, since, until, device, failed, why, held_up };
        self.services.push(service);
    }

    /// `job` broke an assumption, with these values: assumed and observed.
    fn broke(
        &mut self,
        record: usize,
        at: Timestamp,
        assumption: Assumption,
        job: JobId,
        [assumed, observed]: [Nanos; 2],
    ) {
        let service = match assumption {
            Assumption::ExecutionTime | Assumption::DispatchOverhead | Assumption::LeftUpload => {
                self.on_trial(at)
            }
            _ => None, // How late a job came or was seen, before it had the device.
        };
        let stage = service.as_ref().map(|service| (service.job.id, service.stage));
        if let (Assumption::LeftUpload, Some(service)) = (assumption, service) {
            service.held_up = Some((job, observed));
        }
        self.broken.push(Broken { record, at, assumption, job, stage, assumed, observed });
    }

    /// The stage that is held to its charge at `at`: the last one that ended then, or else the one that
    /// has the device and hangs.
    fn on_trial(&mut self, at: Timestamp) -> Option<&mut Service> {
        let behind = self.services.len().saturating_sub(2);
        let last = &mut self.services[behind..];
        let ended = last.iter().rposition(|service| service.until == Some(at));
        let place = ended.or_else(|| last.iter().position(|service| service.until.is_none()))?;
        last.get_mut(place)
    }

    /// A stage that just ended had been put behind its own upload: told again under another policy.
    fn awaited(&mut self, job: JobId, stage: StageIndex, awaited: Awaited) {
        let of_it = |service: &&mut Service| service.job.id == job && service.stage == stage;
        let service = self.services.iter_mut().rev().take(2).find(of_it);
        if let Some(times) = service.and_then(|service| service.device.as_mut()) {
            times.awaited = Some(awaited);
        }
    }

    /// The stage that ran left the device, which is from now on that of the one behind it.
    fn left(&mut self, at: Timestamp, device: Option<StageTimes>, failed: Option<Category>) {
        let behind = self.services.len().saturating_sub(2);
        let on_device = self.services[behind..].iter_mut();
        let mut on_device = on_device.filter(|service| service.until.is_none());
        if let Some(service) = on_device.next() {
            (service.until, service.device, service.failed) = (Some(at), device, failed);
        }
        if let Some(next) = on_device.next() {
            next.since = at;
        }
    }
}

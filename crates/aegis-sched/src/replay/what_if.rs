//! What another policy would have done with the same jobs.
//!
//! The shipped dispatcher decides again under the other policy. Jobs arrive when they arrived, a stage
//! takes the device as long as it took, its launch and the notice of its end included, and evictions and
//! the stop come when they came. Decisions come when they can: at the end of a stage and, on an idle
//! device, as long after a job may run as it took when that job was seen on an idle device. With
//! look-ahead they come so also while a stage runs and none waits behind it.
//!
//! # What is assumed
//! 1. The log has no time for a stage that did not run, or whose end it does not have: such a stage takes
//!    what it is charged.
//! 2. A job that was never seen on an idle device is seen as late as the median of those that were.
//! 3. Nobody reacts: callers submit what they submitted, though outputs come at other times. Jobs that
//!    were turned away are left out, and where more jobs of a model would be outstanding than it has
//!    slots, which would have turned some away, that is counted.
//! 4. A stage takes as long as it did, whatever ran before it. One whose inputs went ahead of it has them
//!    there, also where nothing would have run that they could have gone beside.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aegis_context::StageTimes;
use aegis_cuda::{DeviceError, WorkFault};
use aegis_trace::{
    AdmittedModel, Category, JobId, ModelId, Nanos, PolicyKind, Record, Refusal, StageIndex,
    StreamId, Timestamp, TraceCollector, TraceEvent,
};

use super::admissions::{Answer, Readmission};
use super::decisions::Rerun;
use super::error::ReplayError;
use super::keep::Keeper;
use super::log::{Entry, ExecutorLog};
use super::outcome::told;
use super::room::Room;
use super::source::Records;
use super::stand_in::{FailedLaunch, Ground, NextLaunches, lane, slot};
use super::timeline::{Around, JobRecord, Look, Timeline};
use super::{ExecutorReplay, Keeps, Replayed, log};
use crate::dispatch::Dispatcher;
use crate::queue::Submission;

/// Events between two looks at what was recorded.
const EVENTS_MAX: usize = 1 << 16;

/// One executor under another policy.
#[derive(Debug)]
pub struct WhatIf {
    /// The name of its partition, where the device is split.
    pub partition: Option<String>,
    /// The policy that decided.
    pub recorded: PolicyKind,
    /// The one that would have.
    pub policy: PolicyKind,
    /// Each model, by id.
    pub models: Vec<ModelWhatIf>,
    /// The first stage that another one would have taken the place of.
    pub first_change: Option<Change>,
    /// What rests on more than the log.
    pub assumed: Assumed,
    /// The model that would still have been there when the next one of its place came: nothing is said
    /// about what follows.
    pub ends_with: Option<ModelId>,
    /// What it would have done. Jobs go by the ids that they have in the log.
    pub timeline: Timeline,
}

/// One model under both policies.
#[derive(Clone, Debug)]
pub struct ModelWhatIf {
    /// Its id.
    pub model: ModelId,
    /// Its name.
    pub name: String,
    /// What was seen of it.
    pub was: Seen,
    /// What would have been.
    pub would_be: Seen,
    /// The longest bound it was promised.
    pub bound_was: Option<Nanos>,
    /// The longest bound that it would have been promised, or the inequality that would have refused it;
    /// `Ok(None)` for best effort.
    pub bound_would_be: Result<Option<Nanos>, Refusal>,
}

/// What was seen of the jobs of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Jobs with their outputs.
    pub completed: u64,
    /// Those of them that were late.
    pub missed: u64,
    /// Jobs given up.
    pub dropped: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that had not ended.
    pub unfinished: u64,
    /// Jobs that were accepted in the log, and are not here: their model had failed or was leaving, or
    /// nothing is said about their time.
    pub not_accepted: u64,
    /// The longest response.
    pub longest: Nanos,
    /// Half of the responses are at most this long.
    pub median: Nanos,
}

/// Where the order changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When it would have been decided.
    pub at: Timestamp,
    /// What ran next.
    pub was: Option<(JobId, StageIndex)>,
    /// What would have run next.
    pub would_be: Option<(JobId, StageIndex)>,
}

/// How much rests on an assumption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Assumed {
    /// Stages that take what they are charged, since the log has no time for them.
    pub stages: u64,
    /// The first of them.
    pub since: Option<Timestamp>,
    /// Decisions on an idle device that come after the median delay.
    pub wakes: u64,
    /// Jobs that there might have been no slot for.
    pub beyond_slots: u64,
}

impl Replayed {
    /// What `policy` would have done, executor by executor. `records` are those that were replayed.
    ///
    /// Costs about as much as the replay; or twice that where its timelines were not kept, since every
    /// job that there was has to come again. Memory grows with the jobs.
    ///
    /// # Errors
    /// [`ReplayError`], Permanent; [`ReplayError::TooMuch`] where there are too many jobs.
    pub fn what_if(
        &self,
        records: &dyn Records,
        policy: PolicyKind,
    ) -> Result<Vec<WhatIf>, ReplayError> {
        self.what_if_within(records, policy, Room::all())
    }

    /// The same where there is so much `room`, also for what was kept by the replay.
    pub(super) fn what_if_within(
        &self,
        records: &dyn Records,
        policy: PolicyKind,
        room: Room,
    ) -> Result<Vec<WhatIf>, ReplayError> {
        let (logs, _) = log::split(records, self.extent)?;
        let kept = self.executors.iter().map(|of| of.timeline.kept()).sum();
        let mut room = room.beside(kept);
        let mut all = Vec::with_capacity(logs.len());
        for (log, of) in logs.iter().zip(&self.executors) {
            let bounds = bounds(log, policy)?;
            let again = self.timeline_again(log, records, room.half())?;
            let within = room.beside(again.as_ref().map_or(0, Timeline::kept));
            let of = again.map(|timeline| of.with(timeline)).map_or(Cow::Borrowed(of), Cow::Owned);
            let run = Run::new(log, &of, policy, within)?.run()?;
            room = room.beside(run.timeline.kept());
            all.push(told(&of, policy, &bounds, run));
        }
        Ok(all)
    }

    /// The timeline of an executor, if it was not kept.
    fn timeline_again(
        &self,
        log: &ExecutorLog,
        records: &dyn Records,
        room: Room,
    ) -> Result<Option<Timeline>, ReplayError> {
        if self.keeps == Keeps::Timelines {
            return Ok(None);
        }
        let again = Rerun::new(log, records, self.extent, Keeper::everything(room))?.run()?;
        Ok(Some(again.keeper.into_timeline()))
    }
}

pub(super) type Bounds = BTreeMap<ModelId, Result<Option<Nanos>, Refusal>>;

/// The longest bound of each admitted model under `policy`, or why it would have been refused.
fn bounds(log: &ExecutorLog, policy: PolicyKind) -> Result<Bounds, ReplayError> {
    let mut admission = Readmission::new(log, policy)?;
    // Ids follow from who is admitted, so a refused model moves those behind it.
    let mut ids: BTreeMap<ModelId, ModelId> = BTreeMap::new();
    let mut bounds = Bounds::new();
    for entry in &log.admissions {
        match &entry.event {
            TraceEvent::Admitted { model, what } => match admission.ask(entry, what)? {
                Answer::Admitted(admitted) => {
                    ids.insert(admitted.model, *model);
                    bounds.insert(*model, Ok(admitted.promise.bound));
                }
                Answer::Refused(why) => {
                    bounds.insert(*model, Err(why));
                }
            },
            TraceEvent::Freed { model } => {
                let id = ids.iter().find(|(_, logged)| *logged == model).map(|(id, _)| *id);
                if let Some(id) = id {
                    admission.freed(entry, id)?;
                    ids.remove(&id);
                }
            }
            _ => {}
        }
        for (id, bound) in admission.known() {
            let Some(Ok(Some(longest))) = ids.get(id).and_then(|id| bounds.get_mut(id)) else {
                continue;
            };
            *longest = (*longest).max(*bound);
        }
    }
    Ok(bounds)
}

/// What a stage on the device will end with.
struct Pending {
    at: Timestamp,
    end: Result<StageTimes, Category>,
}

/// The dispatcher under the other policy.
pub(super) struct Run<'t> {
    log: &'t ExecutorLog,
    of: &'t ExecutorReplay,
    ground: Ground,
    dispatcher: Dispatcher,
    collector: TraceCollector,
    /// Every submission by its arrival, and how many were taken.
    submissions: Vec<(&'t JobId, &'t JobRecord)>,
    taken: usize,
    evictions: usize,
    stopped: bool,
    pending: Option<Pending>,
    /// The id in the log of each job that was accepted here.
    ids: BTreeMap<JobId, JobId>,
    next_launches: BTreeMap<ModelId, NextLaunches>,
    /// Which launch of a model fails, and how; and how many there were.
    failing: BTreeMap<ModelId, (u64, Category)>,
    launches: BTreeMap<ModelId, u64>,
    outstanding: BTreeMap<ModelId, u64>,
    tenants: BTreeMap<u16, ModelId>,
    median_wake: Nanos,
    /// For what it would have done.
    room: Room,
    pub(super) assumed: Assumed,
    pub(super) ends_with: Option<ModelId>,
    pub(super) timeline: Timeline,
}

impl<'t> Run<'t> {
    fn new(
        log: &'t ExecutorLog,
        of: &'t ExecutorReplay,
        policy: PolicyKind,
        room: Room,
    ) -> Result<Self, ReplayError> {
        let ground = Ground::new()?;
        let collector = TraceCollector::new(EVENTS_MAX);
        let config = aegis_trace::ExecutorConfig { policy, ..of.config.clone() };
        let streams = ground.streams.clone();
        let dispatcher =
            Dispatcher::configured(config, Timestamp::ZERO, streams, collector.recorder());
        drop(collector.drain());
        let mut submissions: Vec<_> = of.timeline.jobs.iter().collect();
        submissions.sort_by_key(|(_, record)| (record.arrival, record.order));
        Ok(Self {
            log,
            of,
            ground,
            dispatcher,
            collector,
            submissions,
            taken: 0,
            evictions: 0,
            stopped: false,
            pending: None,
            ids: BTreeMap::new(),
            next_launches: BTreeMap::new(),
            failing: failing_launches(&of.timeline),
            launches: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            tenants: BTreeMap::new(),
            median_wake: median(of.timeline.jobs.values().flat_map(wakes).collect()),
            room,
            assumed: Assumed::default(),
            ends_with: None,
            timeline: Timeline::default(),
        })
    }

    /// Decides until the log ends.
    fn run(mut self) -> Result<Self, ReplayError> {
        let mut now = Timestamp::ZERO;
        while let Some((at, guessed)) = self.next_decision() {
            now = now.max(at);
            if now > self.of.timeline.end || self.ends_with.is_some() {
                break;
            }
            self.assumed.wakes += u64::from(guessed);
            self.decide(now)?;
        }
        self.timeline.end = self.of.timeline.end;
        Ok(self)
    }

    /// When something is decided next, and whether the delay of that is a guess.
    fn next_decision(&self) -> Option<(Timestamp, bool)> {
        let recorded = &self.of.timeline;
        let eviction = recorded.evictions.get(self.evictions).map(|(at, _)| (*at, false));
        let stop = recorded.stop.filter(|_| !self.stopped).map(|at| (at, false));
        let work = match &self.pending {
            Some(pending) => {
                let watch = self.dispatcher.watch_point();
                let first = watch.map_or(pending.at, |watch| watch.min(pending.at));
                let arrival = self.next_ready().filter(|_| self.looks_ahead());
                Some(arrival.map_or((first, false), |arrival| arrival.min((first, false))))
            }
            None => self.next_ready(),
        };
        [eviction, stop, work].into_iter().flatten().min()
    }

    /// Whether what becomes ready while the device is busy changes anything before the end of the stage.
    fn looks_ahead(&self) -> bool {
        self.of.config.overheads.look_ahead && self.dispatcher.behind_on_device().is_none()
    }

    /// When the next job that becomes ready is seen by an executor that waits for it.
    fn next_ready(&self) -> Option<(Timestamp, bool)> {
        let held = self.dispatcher.held_back().filter_map(|(job, at)| {
            let record = self.of.timeline.jobs.get(self.ids.get(&job)?)?;
            let refill = record.refills.iter().find(|refill| refill.until == at);
            Some(self.seen(at, refill.map_or(record.look, |refill| refill.look)))
        });
        held.chain(self.next_seen()).min()
    }

    /// When the first of the submissions that are not taken is seen by an idle executor. One that is held
    /// back wakes nobody when it comes, so the first to come need not be the first to be seen.
    fn next_seen(&self) -> Option<(Timestamp, bool)> {
        let mut first: Option<(Timestamp, bool)> = None;
        for (_, record) in &self.submissions[self.taken..] {
            if first.is_some_and(|(at, _)| at < record.arrival) {
                break;
            }
            let seen = self.seen(record.first_eligible, record.look);
            first = Some(first.map_or(seen, |first| first.min(seen)));
        }
        first
    }

    /// When a job that may run from `eligible` on is seen by an executor that waits for it. How late one
    /// on a busy device sees it tells nothing of an idle one.
    fn seen(&self, eligible: Timestamp, look: Option<Look>) -> (Timestamp, bool) {
        let known = look.filter(|look| look.was_idle || self.pending.is_some());
        let wake = known.map_or(self.median_wake, |look| look.delay);
        (eligible.saturating_add(wake), known.is_none() && wake > Nanos::ZERO)
    }

    /// One decision at `now`, and the commands of that time.
    ///
    /// # Errors
    /// Where it comes to more than there is room for, with the line of the last job that was handed over.
    fn decide(&mut self, now: Timestamp) -> Result<(), ReplayError> {
        let commands = &self.of.timeline;
        let due = |at: Option<&(Timestamp, ModelId)>| at.is_some_and(|(at, _)| *at <= now);
        let is_command = due(commands.evictions.get(self.evictions));
        let intake = self.dispatcher.open_intake(now);
        while let Some((job, record)) = self.submissions.get(self.taken).copied() {
            // What comes at this very instant is seen as it was, whatever else happens then.
            if record.arrival > now || (record.arrival == now && record.seen > now && is_command) {
                break;
            }
            let tenant = self.tenants.get(&job.model.index);
            if is_command && tenant.is_some_and(|tenant| *tenant != job.model) {
                break; // It comes at the very instant at which the one before it goes.
            }
            self.taken += 1;
            self.install(job.model)?;
            if self.ends_with.is_some() {
                return Ok(());
            }
            let (stamp, release) = (record.stamp, record.claimed);
            let submission = Submission { model: job.model, slot: slot(), stamp, release };
            self.dispatcher.accept_logged(intake, record.arrival, submission);
            self.note(Some(*job));
        }
        // Whoever was accepted in the log came before.
        while let Some((_, model)) = commands.evictions.get(self.evictions).filter(|e| e.0 <= now) {
            self.evictions += 1;
            self.install(*model)?;
            self.dispatcher.evict(now, *model);
            self.note(None);
        }
        self.turn(now);
        if commands.stop.is_some_and(|at| at <= now) && !self.stopped {
            self.stopped = true;
            self.dispatcher.stop(now);
            self.note(None);
        }
        while let Some(context) = self.dispatcher.take_departed() {
            self.tenants.remove(&context.model().index);
        }
        let last = self.submissions[..self.taken].last();
        self.room.check(self.timeline.kept(), last.map_or(0, |(_, record)| record.record))
    }

    fn turn(&mut self, now: Timestamp) {
        let ended = self.pending.take_if(|pending| pending.at <= now);
        for (model, (launch, category)) in &self.failing {
            let done = self.launches.get(model).copied().unwrap_or(0);
            let before = launch.checked_sub(done).and_then(|before| usize::try_from(before).ok());
            // A turn launches two stages at most.
            if let Some(before @ 0..=1) = before
                && let Some(next) = self.next_launches.get(model)
            {
                let failed = FailedLaunch { category: *category, refused: None };
                next.set(std::iter::repeat_n(None, before).chain([Some(failed)]));
            }
        }
        let end = ended.map(|pending| pending.end.map_err(failure));
        if end.is_some() {
            self.ground.end_work();
        }
        self.dispatcher.turn_logged([end, None], now);
        self.note(None);
        if self.pending.is_none() {
            self.pending = self.run_stage(now);
        }
    }

    /// How the stage that was launched at `now` will end.
    fn run_stage(&mut self, now: Timestamp) -> Option<Pending> {
        let ready = self.dispatcher.on_device()?;
        let (job, stage) = (*self.ids.get(&ready.job.id)?, ready.stage);
        let recorded = &self.of.timeline;
        let services = recorded.jobs.get(&job)?.services.iter();
        let service = services.map(|place| &recorded.services[*place]).find(|s| s.stage == stage);
        let moved =
            |at: Timestamp, since: Timestamp| now.saturating_add(at.saturating_since(since));
        if let Some(service) = service
            && let Some(until) = service.until
        {
            let end = match (service.device, service.failed) {
                (Some(times), _) => Ok(StageTimes {
                    started: moved(times.started, service.since),
                    finished: moved(times.finished, service.since),
                    ..times // Copies take as long as they took.
                }),
                (None, failed) => Err(failed.unwrap_or(Category::Permanent)),
            };
            return Some(Pending { at: moved(until, service.since), end });
        }
        self.assumed.stages += 1;
        self.assumed.since.get_or_insert(now);
        let model = self.of.models.get(&job.model)?;
        let (place, overheads) = (usize::from(stage.0), self.of.config.overheads);
        let cost = model.stages.get(place).copied().unwrap_or(Nanos::ZERO);
        let cost = cost.saturating_add(overheads.on_device(place, model.stages.len()));
        let finished = now.saturating_add(cost);
        let at = finished.saturating_add(overheads.dispatch);
        let [upload, download, ahead] = [Nanos::ZERO; 3]; // Not known of a stage that did not run.
        let awaited = None;
        let times = StageTimes { started: now, finished, upload, download, ahead, awaited };
        Some(Pending { at, end: Ok(times) })
    }

    /// Takes in what was recorded; `submitted` is the job that was handed over.
    fn note(&mut self, submitted: Option<JobId>) {
        for Record { at, event, .. } in self.collector.drain() {
            if let (TraceEvent::Submitted { job, .. }, Some(logged)) = (&event, submitted) {
                self.ids.insert(*job, logged);
                self.count_outstanding(logged.model);
            }
            match &event {
                TraceEvent::Dispatched { job, .. } | TraceEvent::LaunchFailed { job, .. } => {
                    *self.launches.entry(job.model).or_default() += 1;
                }
                TraceEvent::Completed { job, .. }
                | TraceEvent::Dropped { job, .. }
                | TraceEvent::Faulted { job, .. } => {
                    let outstanding = self.outstanding.entry(job.model).or_default();
                    *outstanding = outstanding.saturating_sub(1);
                }
                _ => {}
            }
            let launched = self.dispatcher.launched_by(&event);
            let event = with_logged_id(event, &self.ids);
            let entry = Entry { record: 0, at, event };
            self.timeline.note(&entry, Around { was_idle: false, launched });
        }
    }

    fn count_outstanding(&mut self, model: ModelId) {
        let outstanding = self.outstanding.entry(model).or_default();
        *outstanding += 1;
        let slots = self.of.models.get(&model).map_or(u32::MAX, |model| model.limits.slots);
        self.assumed.beyond_slots += u64::from(*outstanding > u64::from(slots));
    }

    /// Installs `model`, if it is not there; where another one still is, nothing more can be said.
    fn install(&mut self, model: ModelId) -> Result<(), ReplayError> {
        match self.tenants.get(&model.index) {
            Some(tenant) if *tenant == model => return Ok(()),
            Some(tenant) => {
                self.ends_with = Some(*tenant);
                return Ok(());
            }
            None => {}
        }
        let Some((record, what)) = self.log.models.get(&model) else { return Ok(()) };
        // No bound is held to anything here: those of the other policy are told beside.
        let unbound = AdmittedModel { bound: what.bound.map(|_| Nanos::MAX), ..what.clone() };
        let line = super::error::line_of(*record);
        let bad = |problem| ReplayError::BadModel { line, model, problem };
        let (lane, next_launches) = lane(model, &unbound).map_err(bad)?;
        self.next_launches.insert(model, next_launches);
        self.tenants.insert(model.index, model);
        self.dispatcher.install(lane);
        Ok(())
    }
}

/// The launches that failed: which of its model's launches, counted from zero.
fn failing_launches(timeline: &Timeline) -> BTreeMap<ModelId, (u64, Category)> {
    let mut launches: BTreeMap<ModelId, u64> = BTreeMap::new();
    for service in &timeline.services {
        *launches.entry(service.job.id.model).or_default() += 1;
    }
    let failed = |(job, record): (&JobId, &JobRecord)| {
        let (_, category) = record.launch_failed?;
        // A failed model is fenced, so this was its last launch.
        Some((job.model, (launches.get(&job.model).copied().unwrap_or(0), category)))
    };
    timeline.jobs.iter().filter_map(failed).collect()
}

fn failure(category: Category) -> DeviceError {
    let cause = WorkFault::new(category, "it failed when it was recorded");
    DeviceError::Work { stream: StreamId::first(0), further: 0, cause }
}

/// How late a job was seen on an idle device, each time that it was.
fn wakes(record: &JobRecord) -> impl Iterator<Item = Nanos> {
    let refills = record.refills.iter().filter_map(|refill| refill.look);
    let looks = record.look.into_iter().chain(refills).filter(|look| look.was_idle);
    looks.map(|look| look.delay)
}

/// The lower median; zero of nothing.
pub(super) fn median(mut times: Vec<Nanos>) -> Nanos {
    times.sort_unstable();
    let middle = times.len().saturating_sub(1) / 2;
    times.get(middle).copied().unwrap_or(Nanos::ZERO)
}

/// The event with the id that its job has in the log.
fn with_logged_id(event: TraceEvent, ids: &BTreeMap<JobId, JobId>) -> TraceEvent {
    let mut event = event;
    if let TraceEvent::Stamped { job, .. }
    | TraceEvent::Submitted { job, .. }
    | TraceEvent::Released { job }
    | TraceEvent::Dispatched { job, .. }
    | TraceEvent::StageCompleted { job, .. }
    | TraceEvent::StageFailed { job, .. }
    | TraceEvent::LaunchFailed { job, .. }
    | TraceEvent::Suspended { job, .. }
    | TraceEvent::Completed { job, .. }
    | TraceEvent::MissedDeadline { job, .. }
    | TraceEvent::Dropped { job, .. }
    | TraceEvent::Faulted { job, .. }
    | TraceEvent::AssumptionBroken { job, .. }
    | TraceEvent::BoundExceeded { job, .. }
    | TraceEvent::OutOfBudget { job, .. }
    | TraceEvent::Postponed { job, .. } = &mut event
        && let Some(logged) = ids.get(job)
    {
        *job = *logged;
    }
    event
}

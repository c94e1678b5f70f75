//! The dispatcher run again: told what the log says it was told, and held to what the log says it did.
//!
//! The events of a dispatcher are both: `submitted` is an input with its answer, `stage_completed` an
//! input, `dispatched` an answer. The next event that is not accounted for yet says what the dispatcher
//! was told next. It is told so again, and everything that it records then must be what comes next in
//! the log, word for word. An event that it does not record, or records in another way, is where the two
//! part.
//!
//! # Invariants
//! 1. Each step accounts for one event at least, or the replay ends.
//! 2. Nothing but the log is an input: no clock, no device, no randomness.

use std::collections::{BTreeMap, BTreeSet};

use aegis_context::{Awaited, StageTimes, Whose};
use aegis_cuda::{DeviceError, RefusedAllocation, WorkFault};
use aegis_trace::{
    DropReason, JobId, ModelId, Record, StageIndex, StreamId, Timestamp, TraceCollector, TraceEvent,
};

use super::error::ReplayError;
use super::keep::Keeper;
use super::log::{Entry, ExecutorLog};
use super::source::Records;
use super::stand_in::{FailedLaunch, Ground, NextLaunches, lane, slot};
use super::timeline::Around;
use super::window::Window;
use super::{Divergence, Extent};
use crate::dispatch::{Dispatcher, Intake, StageEnd};
use crate::queue::{Ready, Submission};

/// Events that one decision can record: that of dropping every job of 65 536 models with one each.
const EVENTS_MAX: usize = 1 << 16;

/// One dispatcher beside its log.
pub(super) struct Rerun<'t> {
    log: &'t ExecutorLog,
    extent: Extent,
    ground: Ground,
    dispatcher: Dispatcher,
    collector: TraceCollector,
    /// The events that are not accounted for.
    window: Window<'t>,
    /// The decision point at which submissions are taken, while they are.
    intake: Option<(Timestamp, Intake)>,
    next_launches: BTreeMap<ModelId, NextLaunches>,
    /// Who is installed where.
    tenants: BTreeMap<u16, ModelId>,
    departed: BTreeSet<ModelId>,
    /// The first of the partition. A log of before this was recorded tells it by the lowest number it
    /// has.
    first_stream: StreamId,
    keeper: Keeper<'t>,
}

/// What a dispatcher did again.
pub(super) struct Rerunned<'t> {
    /// What was kept of it.
    pub(super) keeper: Keeper<'t>,
    /// The first event that it did not do as it is logged.
    pub(super) divergence: Option<Divergence>,
    /// How many it did.
    pub(super) events: u64,
}

impl<'t> Rerun<'t> {
    pub(super) fn new(
        log: &'t ExecutorLog,
        records: &'t dyn Records,
        extent: Extent,
        keeper: Keeper<'t>,
    ) -> Result<Self, ReplayError> {
        let ground = Ground::new()?;
        let collector = TraceCollector::new(EVENTS_MAX);
        let streams = ground.streams.clone();
        let recorder = collector.recorder();
        let config = log.config.clone();
        let dispatcher = Dispatcher::configured(config, Timestamp::ZERO, streams, recorder);
        drop(collector.drain()); // Its configuration, which is that of the log.
        let first_stream = log.config.first_stream.or(log.lowest_stream);
        Ok(Self {
            log,
            extent,
            ground,
            dispatcher,
            collector,
            window: Window::new(log.decisions(records)?),
            intake: None,
            next_launches: BTreeMap::new(),
            tenants: BTreeMap::new(),
            departed: BTreeSet::new(),
            first_stream: first_stream.unwrap_or(StreamId::first(0)),
            keeper,
        })
    }

    /// Runs to the end of the log, or to where the two part.
    pub(super) fn run(mut self) -> Result<Rerunned<'t>, ReplayError> {
        let divergence = self.parts()?;
        let events = self.window.taken();
        Ok(Rerunned { keeper: self.keeper.ended(), divergence, events })
    }

    /// Where the two part.
    fn parts(&mut self) -> Result<Option<Divergence>, ReplayError> {
        loop {
            self.window.look()?;
            let Some(entry) = self.window.next().cloned() else { break };
            if let Some(event) = self.close_intake(Some(&entry)) {
                return Ok(Some(self.part(&entry, Some(event))));
            }
            let was_idle = self.dispatcher.is_idle();
            self.tell(&entry)?;
            while let Some(context) = self.dispatcher.take_departed() {
                self.tenants.remove(&context.model().index);
                self.departed.insert(context.model());
            }
            if let Some(divergence) = self.compare(&entry, was_idle)? {
                return Ok(Some(divergence));
            }
        }
        let more = self.close_intake(None).filter(|_| self.extent == Extent::Whole);
        let missing = more.zip(self.window.last());
        Ok(missing.map(|(event, last)| Divergence { logged: None, ..self.part(last, Some(event)) }))
    }

    /// Ends the decision that took submissions, unless `next` belongs to it; what it decides that is
    /// not in the log, if anything.
    fn close_intake(&mut self, next: Option<&Entry>) -> Option<TraceEvent> {
        let (at, _) = self.intake?;
        if next.is_some_and(|next| next.at == at && is_of_a_step(&next.event)) {
            return None;
        }
        self.intake = None;
        self.dispatcher.turn_logged([None, None], at);
        self.collector.drain().into_iter().next().map(|record| self.on_its_stream(record.event))
    }

    /// Tells the dispatcher what it was told when `entry` was recorded.
    fn tell(&mut self, entry: &Entry) -> Result<(), ReplayError> {
        let at = entry.at;
        match &entry.event {
            TraceEvent::Stamped { .. }
            | TraceEvent::Submitted { .. }
            | TraceEvent::SubmissionRefused { .. } => return self.submit(entry),
            TraceEvent::Evicting { model } => {
                self.install(entry, *model)?;
                self.dispatcher.evict(at, *model);
            }
            TraceEvent::BoundChanged { model, bound } => {
                self.install(entry, *model)?;
                self.dispatcher.set_bounds(at, &[(*model, *bound)]);
            }
            TraceEvent::Started | TraceEvent::Stopped => {
                self.dispatcher.record(at, entry.event.clone());
            }
            TraceEvent::Stopping => self.dispatcher.stop(at),
            TraceEvent::Dropped { why: DropReason::Stopping, .. } => self.dispatcher.drop_all(at),
            _ => self.turn(entry),
        }
        self.intake = None;
        Ok(())
    }

    /// Installs `model`, unless it is there or was. That nobody uses it before makes now as good a time
    /// as the one at which it was installed.
    fn install(&mut self, entry: &Entry, model: ModelId) -> Result<(), ReplayError> {
        let line = entry.line();
        match self.tenants.get(&model.index) {
            Some(tenant) if *tenant == model => return Ok(()),
            _ if self.departed.contains(&model) => return Ok(()),
            Some(tenant) => {
                return Err(ReplayError::PlaceTaken { line, model, tenant: *tenant });
            }
            None => {}
        }
        // Only records that are not the same in each pass name one that was not there before.
        let known = self.log.models.get(&model);
        let (record, what) = known.ok_or(ReplayError::UnknownModel { line, model })?;
        let (lane, next_launches) = lane(model, what).map_err(|problem| ReplayError::BadModel {
            line: super::error::line_of(*record),
            model,
            problem,
        })?;
        self.next_launches.insert(model, next_launches);
        self.tenants.insert(model.index, model);
        self.dispatcher.install(lane);
        Ok(())
    }

    /// Hands a submission over. What became visible when is an input, but never before the decision
    /// that did not see it.
    fn submit(&mut self, entry: &Entry) -> Result<(), ReplayError> {
        let model = entry.event.model().expect("a submission is a model's");
        self.install(entry, model)?;
        let intake = match self.intake {
            Some((at, intake)) if at == entry.at => intake,
            _ => self.dispatcher.open_intake(entry.at),
        };
        self.intake = Some((entry.at, intake));
        let follows = self.window.after_next();
        let (stamp, claimed, arrival) = match (&entry.event, follows) {
            (
                TraceEvent::Stamped { stamp, claimed, .. },
                Some(TraceEvent::Submitted { arrival, .. }),
            ) => (*stamp, *claimed, *arrival),
            (TraceEvent::Stamped { stamp, claimed, .. }, _) => (*stamp, *claimed, *stamp),
            (TraceEvent::Submitted { arrival, .. }, _) => (*arrival, None, *arrival),
            _ => (entry.at, None, entry.at),
        };
        let visible_since = if arrival > stamp { arrival } else { Timestamp::ZERO };
        let submission = Submission { model, slot: slot(), stamp, release: claimed };
        self.dispatcher.accept_logged(intake, visible_since, submission);
        Ok(())
    }

    /// One turn, with what the device had to say.
    fn turn(&mut self, entry: &Entry) {
        if self.intake.is_none_or(|(at, _)| at != entry.at) {
            self.dispatcher.open_intake(entry.at);
        }
        let (ends, left_by) = self.ends_on_device();
        let launches = self.launches();
        for (model, next) in &launches {
            if let Some(launches) = self.next_launches.get(model) {
                launches.set(next.iter().copied());
            }
        }
        if ends[0].is_some() {
            self.ground.end_work();
        }
        if let Some(by) = left_by {
            self.dispatcher.left_logged(by);
        }
        self.dispatcher.turn_logged(ends, entry.at);
        for model in launches.keys() {
            if let Some(launches) = self.next_launches.get(model) {
                launches.set([]);
            }
        }
    }

    /// How the stage that runs ended, if that is what comes next in the log, and how the one behind it
    /// did, if the same decision noticed that: before it launched anything. With whose upload, left on its
    /// way, one of them was put behind, as far as that is told.
    fn ends_on_device(&self) -> ([Option<StageEnd>; 2], Option<JobId>) {
        let stage_of = |ready: &Ready| (ready.job.id, ready.stage);
        let Some(end) = self.on_device().and_then(|runs| self.end_at(0, runs)) else {
            return ([None, None], None);
        };
        let behind = self.dispatcher.behind_on_device().map(stage_of);
        let before_launch = self.window.point(0).take_while(|(_, event)| !is_launch(event));
        let mut places = before_launch.map(|(place, _)| place);
        let noticed = behind.and_then(|of| places.find_map(|at| Some((at, self.end_at(at, of)?))));
        let (place, noticed) = noticed.map_or((0, None), |(place, end)| (place, Some(end)));
        let left_by = self.left_by(1).or_else(|| self.left_by(place + 1));
        ([Some(end), noticed], left_by)
    }

    /// How `stage` ended, if the event at `place` says that it did.
    fn end_at(&self, place: usize, stage: (JobId, StageIndex)) -> Option<StageEnd> {
        match *self.window.event(place)? {
            TraceEvent::StageCompleted {
                job,
                stage: which,
                started,
                finished,
                upload,
                download,
                ahead,
            } if stage == (job, which) => {
                let awaited = self.awaited_at(place + 1, stage);
                Some(Ok(StageTimes { started, finished, upload, download, ahead, awaited }))
            }
            TraceEvent::StageFailed { job, stage: which, category } if stage == (job, which) => {
                let message = "it failed when it was recorded";
                let refused = self.refused_allocation(place, job.model);
                let cause = WorkFault { refused, ..WorkFault::new(category, message) };
                let stream = StreamId::first(0);
                Some(Err(DeviceError::Work { stream, further: 0, cause }))
            }
            _ => None,
        }
    }

    /// The upload that `stage` was put behind, if the event at `place` tells of it.
    fn awaited_at(&self, place: usize, stage: (JobId, StageIndex)) -> Option<Awaited> {
        match *self.window.event(place)? {
            TraceEvent::UploadAwaited { job, stage: which, of, took, before }
                if stage == (job, which) =>
            {
                let whose = if of == job { Whose::Own } else { Whose::Left };
                Some(Awaited { whose, took, before })
            }
            _ => None,
        }
    }

    /// Whose upload, left on its way, the stage was put behind that ended just before the event at
    /// `place`, if that tells of it.
    fn left_by(&self, place: usize) -> Option<JobId> {
        match *self.window.event(place)? {
            TraceEvent::UploadAwaited { job, of, .. } if of != job => Some(of),
            _ => None,
        }
    }

    fn on_device(&self) -> Option<(JobId, StageIndex)> {
        self.dispatcher.on_device().map(|ready| (ready.job.id, ready.stage))
    }

    /// The allocation whose refusal made the stage of `model` that ended at `place` fail, if one was.
    fn refused_allocation(&self, place: usize, model: ModelId) -> Option<RefusedAllocation> {
        let events = self.window.point(place).map(|(_, event)| event);
        let until_told = events.take_while(|event| !matches!(event, TraceEvent::Faulted { .. }));
        until_told.filter(|event| event.model() == Some(model)).find_map(|event| match *event {
            TraceEvent::AllocationRefused { requested, available, .. } => {
                Some(RefusedAllocation { requested, available })
            }
            _ => None,
        })
    }

    /// How the launches go that are next, by model. A request for memory that was refused stands before
    /// the launch that it made fail.
    fn launches(&self) -> BTreeMap<ModelId, Vec<Option<FailedLaunch>>> {
        let mut launches: BTreeMap<ModelId, Vec<Option<FailedLaunch>>> = BTreeMap::new();
        let mut before: Option<(ModelId, RefusedAllocation)> = None;
        for (_, event) in self.window.point(0) {
            let (job, fails) = match event {
                TraceEvent::AllocationRefused { model, requested, available } => {
                    let (requested, available) = (*requested, *available);
                    before = Some((*model, RefusedAllocation { requested, available }));
                    continue;
                }
                TraceEvent::Dispatched { job, .. } => (job, None),
                TraceEvent::LaunchFailed { job, category, .. } => {
                    let own = before.take().filter(|(model, _)| *model == job.model);
                    let refused = own.map(|(_, refused)| refused);
                    (job, Some(FailedLaunch { category: *category, refused }))
                }
                _ => continue,
            };
            launches.entry(job.model).or_default().push(fails);
        }
        launches
    }

    /// Holds what was recorded now to what comes next in the log.
    fn compare(
        &mut self,
        entry: &Entry,
        was_idle: bool,
    ) -> Result<Option<Divergence>, ReplayError> {
        let recorded = self.collector.drain();
        if self.collector.dropped() > 0 {
            return Err(ReplayError::TooManyEvents { line: entry.line(), limit: EVENTS_MAX });
        }
        if recorded.is_empty() {
            return Ok(Some(self.part(entry, None)));
        }
        for Record { at, event, .. } in recorded {
            let event = self.on_its_stream(event);
            let Some(logged) = self.window.next() else {
                let last = self.window.last().unwrap_or(entry);
                let cut = self.extent == Extent::Prefix;
                let missing = Divergence { logged: None, ..self.part(last, Some(event)) };
                return Ok((!cut).then_some(missing));
            };
            if logged.at != at || logged.event != event {
                return Ok(Some(self.part(logged, Some(event))));
            }
            let launched = self.dispatcher.launched_by(&event);
            self.keeper.note(logged, Around { was_idle, launched })?;
            self.window.take()?;
        }
        Ok(None)
    }

    /// The event with the number that the stream has in the log.
    fn on_its_stream(&self, event: TraceEvent) -> TraceEvent {
        match event {
            TraceEvent::Dispatched { job, stage, stream, waiting, why } => {
                let index = stream.index.saturating_add(self.first_stream.index);
                let stream = StreamId { index, generation: self.first_stream.generation };
                TraceEvent::Dispatched { job, stage, stream, waiting, why }
            }
            other => other,
        }
    }

    fn part(&self, entry: &Entry, replayed: Option<TraceEvent>) -> Divergence {
        let on_device = self.on_device();
        Divergence { on_device, ..Divergence::at(self.log, entry, replayed) }
    }
}

fn is_launch(event: &TraceEvent) -> bool {
    matches!(event, TraceEvent::Dispatched { .. })
}

/// Whether an event is recorded while submissions are taken, or by the turn that follows at once; not by
/// a command between two steps.
pub(super) fn is_of_a_step(event: &TraceEvent) -> bool {
    !matches!(
        event,
        TraceEvent::Evicting { .. }
            | TraceEvent::BoundChanged { .. }
            | TraceEvent::Started
            | TraceEvent::Stopped
            | TraceEvent::Stopping
            | TraceEvent::Dropped { why: DropReason::Stopping, .. }
    )
}

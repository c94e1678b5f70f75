//! The log of each executor: what its admission was asked, and what its dispatcher was told and did.
//!
//! [`split`] goes through the records once and keeps what is about models; the decisions of a
//! dispatcher, which are nearly all there is, are gone through again by [`ExecutorLog::decisions`].
//!
//! # Invariants
//! 1. Every record of a dispatcher belongs to exactly one log, in the order in which it was recorded,
//!    with times that do not go back.
//! 2. Every model that a log names was admitted to it, and has an index that its executor gives.
//! 3. No time is beyond [`HORIZON`], and every stage ran from before its end to before it was noticed,
//!    so nothing that is added up here can overflow.
//! 4. There are [`EXECUTORS_MAX`] logs at most.
//! 5. What is kept grows with models and their bounds, and not with jobs; [`KEPT_MAX`] bounds it.

use std::collections::BTreeMap;

use aegis_trace::{
    AdmittedModel, Category, ExecutorConfig, ModelId, Nanos, Record, StreamId, Timestamp,
    TraceEvent,
};

use super::error::{ReplayError, line_of};
use super::mended::{EarlyJobs, Mended};
use super::source::Records;
use super::{Extent, KEPT_MAX};

/// No event is later: 2^62 ns, about 146 years after the clock began.
const HORIZON: Timestamp = Timestamp(1 << 62);

/// The most executors of a trace: each costs a pass over it.
const EXECUTORS_MAX: usize = 64;

/// One record with its place in the trace.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) record: usize,
    pub(super) at: Timestamp,
    pub(super) event: TraceEvent,
}

impl Entry {
    pub(super) fn line(&self) -> usize {
        line_of(self.record)
    }
}

/// What one executor recorded.
#[derive(Debug)]
pub(super) struct ExecutorLog {
    pub(super) config: ExecutorConfig,
    /// `Admitted`, `Refused` and `Freed`, in order.
    pub(super) admissions: Vec<Entry>,
    /// Every model that was admitted, and where.
    pub(super) models: BTreeMap<ModelId, (usize, AdmittedModel)>,
    /// The bounds that its dispatcher was told, in order.
    pub(super) told: Vec<Entry>,
    /// Where its dispatcher let go of a model.
    pub(super) evicted: BTreeMap<ModelId, usize>,
    /// The lowest stream on which something was launched.
    pub(super) lowest_stream: Option<StreamId>,
    /// From when on a bound that is found may not reach the dispatcher any more. A command to stop comes
    /// after all that were sent before it. A device that is lost ends the executor without one, and then
    /// what was sent since its last decision before that may be left in the queue.
    pub(super) deaf_since: Option<Timestamp>,
    /// The recorder of its dispatcher.
    by: u32,
    /// The first record of which nothing is known: a cut off log names a model there whose admission was
    /// cut off with the rest.
    end: usize,
}

/// A log while it is gone through.
#[derive(Debug)]
struct Sifted {
    log: ExecutorLog,
    /// The time of the decision before, and of the last one that was earlier.
    before: [Timestamp; 2],
    /// The jobs that were taken last and arrived after the time of that decision.
    early: EarlyJobs,
    /// The first decision about each model that was not admitted up to now.
    unknown: BTreeMap<ModelId, usize>,
    /// The first decision whose times cannot be.
    fault: Option<(usize, ReplayError)>,
    stop: Option<(usize, Timestamp)>,
    /// When the device was lost, and the last decision earlier than that.
    lost: Option<(usize, Timestamp, Timestamp)>,
}

/// All logs of a trace, in the order of their configurations, and how many refusals were made before
/// admission was asked.
pub(super) fn split(
    records: &dyn Records,
    extent: Extent,
) -> Result<(Vec<ExecutorLog>, u64), ReplayError> {
    if records.dropped() > 0 {
        return Err(ReplayError::Dropped { count: records.dropped() });
    }
    let mut logs = configured(records)?;
    let mut unasked = 0;
    for (record, entry) in records.pass()?.enumerate() {
        let entry = entry?;
        unasked += u64::from(is_unasked(&entry.event));
        file(&mut logs, record, entry)?;
        if logs.iter().map(Sifted::kept).sum::<usize>() > KEPT_MAX {
            return Err(ReplayError::TooMuch { line: line_of(record), limit: KEPT_MAX });
        }
    }
    let logs = logs.into_iter().map(|log| log.checked(extent)).collect::<Result<_, _>>()?;
    Ok((logs, unasked))
}

/// One empty log for each configuration.
fn configured(records: &dyn Records) -> Result<Vec<Sifted>, ReplayError> {
    let mut logs: Vec<Sifted> = Vec::new();
    for (record, entry) in records.pass()?.enumerate() {
        let Record { by, event, .. } = entry?;
        let TraceEvent::Configured { what } = event else { continue };
        let line = line_of(record);
        let is_known = |it: &Sifted| it.log.by == by || it.log.config.partition == what.partition;
        if logs.iter().any(is_known) {
            return Err(ReplayError::ConfiguredTwice { line });
        }
        if let Some(problem) = problem(&what) {
            return Err(ReplayError::BadConfiguration { line, problem });
        }
        if logs.len() == EXECUTORS_MAX {
            return Err(ReplayError::TooManyExecutors { line, limit: EXECUTORS_MAX });
        }
        logs.push(Sifted::new(*what, by));
    }
    if logs.is_empty() { Err(ReplayError::NotConfigured) } else { Ok(logs) }
}

/// Why no run can be configured so.
fn problem(what: &ExecutorConfig) -> Option<&'static str> {
    let streams = u32::from(u16::MAX) + 1;
    let beyond = |first: StreamId| u32::from(first.index).saturating_add(what.streams) > streams;
    if what.first_model.checked_add(what.max_models).is_none() {
        Some("the indices of its models exceed 65535")
    } else if what.hang_factor == 0 {
        Some("every stage would hang at once")
    } else if what.first_stream.is_some_and(beyond) {
        Some("the indices of its streams exceed 65535")
    } else {
        None
    }
}

/// A refusal by the plan of a whole workload, which is not a decision of any admission.
fn is_unasked(event: &TraceEvent) -> bool {
    matches!(event, TraceEvent::Refused { what } if what.asked.is_none())
}

/// Whether an event is one of a dispatcher, or of who submits to it.
fn is_decision(event: &TraceEvent) -> bool {
    !matches!(
        event,
        TraceEvent::Configured { .. }
            | TraceEvent::PressureChanged { .. }
            | TraceEvent::Admitted { .. }
            | TraceEvent::Refused { .. }
            | TraceEvent::Freed { .. }
    )
}

/// Puts one record into the log it belongs to.
fn file(
    logs: &mut [Sifted],
    record: usize,
    Record { at, by, event }: Record,
) -> Result<(), ReplayError> {
    let line = line_of(record);
    if at > HORIZON {
        return Err(ReplayError::BadTimes { line, problem: "it lies beyond all times" });
    }
    let entry = Entry { record, at, event };
    match &entry.event {
        TraceEvent::Configured { .. } | TraceEvent::PressureChanged { .. } => {}
        TraceEvent::Admitted { model, what } => {
            let (model, name) = (*model, what.name.clone());
            let named = |it: &&mut Sifted| it.log.config.partition == what.partition;
            let place = logs.iter_mut().find(named).filter(|it| it.log.gives(model));
            let place = place.ok_or(ReplayError::NoPlace { line, model: name })?;
            if place.log.models.insert(model, (record, (**what).clone())).is_some() {
                return Err(ReplayError::AdmittedTwice { line, model });
            }
            place.unknown.remove(&model);
            place.log.admissions.push(entry);
        }
        TraceEvent::Refused { what } => {
            let Some(asked) = &what.asked else { return Ok(()) };
            let named = |it: &&mut Sifted| it.log.config.partition == asked.partition;
            let place = logs.iter_mut().find(named);
            let place =
                place.ok_or_else(|| ReplayError::NoPlace { line, model: what.name.clone() })?;
            place.log.admissions.push(entry);
        }
        TraceEvent::Freed { model } => {
            let place = logs.iter_mut().find(|it| it.log.models.contains_key(model));
            let place = place.ok_or(ReplayError::UnknownModel { line, model: *model })?;
            place.log.admissions.push(entry);
        }
        // What a submitting side turns away never reaches a dispatcher.
        TraceEvent::SubmissionRefused { .. } if logs.iter().all(|it| it.log.by != by) => {}
        _ => {
            let place = logs.iter_mut().find(|it| it.log.by == by);
            place.ok_or(ReplayError::NoExecutor { line, by })?.decided(entry);
        }
    }
    Ok(())
}

impl Sifted {
    fn new(config: ExecutorConfig, by: u32) -> Self {
        let log = ExecutorLog {
            config,
            admissions: Vec::new(),
            models: BTreeMap::new(),
            told: Vec::new(),
            evicted: BTreeMap::new(),
            lowest_stream: None,
            deaf_since: None,
            by,
            end: usize::MAX,
        };
        let (unknown, before) = (BTreeMap::new(), [Timestamp::ZERO; 2]);
        Self {
            log,
            before,
            early: EarlyJobs::default(),
            unknown,
            fault: None,
            stop: None,
            lost: None,
        }
    }

    /// How many entries are kept of it.
    fn kept(&self) -> usize {
        self.log.admissions.len() + self.log.told.len() + self.unknown.len()
    }

    /// Takes note of one event of the dispatcher.
    fn decided(&mut self, mut entry: Entry) {
        entry.at = self.early.decided(&entry).unwrap_or(entry.at);
        self.early.note(&entry);
        let (record, at) = (entry.record, entry.at);
        if let (None, Some(fault)) = (&self.fault, self.fault_of(&entry)) {
            self.fault = Some((record, fault));
        }
        if at > self.before[0] {
            self.before = [at, self.before[0]];
        }
        if let Some(model) = entry.event.model()
            && !self.log.models.contains_key(&model)
        {
            self.unknown.entry(model).or_insert(record);
        }
        match entry.event {
            TraceEvent::Dispatched { stream, .. } => {
                let lowest = self.log.lowest_stream.map_or(stream, |lowest| lowest.min(stream));
                self.log.lowest_stream = Some(lowest);
            }
            TraceEvent::BoundChanged { .. } => self.log.told.push(entry),
            TraceEvent::Evicted { model } => {
                self.log.evicted.insert(model, record);
            }
            TraceEvent::Stopping => {
                self.stop.get_or_insert((record, at));
            }
            TraceEvent::StageFailed { category: Category::Fatal, .. }
            | TraceEvent::LaunchFailed { category: Category::Fatal, .. } => {
                self.lost.get_or_insert((record, at, self.before[1]));
            }
            _ => {}
        }
    }

    /// Why the times of an event cannot be.
    fn fault_of(&self, entry: &Entry) -> Option<ReplayError> {
        let (line, at, before) = (entry.line(), entry.at, self.before[0]);
        if at < before {
            return Some(ReplayError::Backwards { line, at, before });
        }
        let TraceEvent::StageCompleted { started, finished, upload, download, ahead, .. } =
            entry.event
        else {
            return None;
        };
        let copies = upload.saturating_add(download);
        let problem = if started > finished {
            Some("a stage ended before it began")
        } else if copies > finished.saturating_since(started) {
            Some("a stage copied for longer than it ran")
        } else if ahead > Nanos::ZERO && upload > Nanos::ZERO {
            Some("a stage copied its inputs both ahead of it and within")
        } else {
            (finished > at).then_some("a stage ended after that was noticed")
        };
        problem.map(|problem| ReplayError::BadTimes { line, problem })
    }

    /// The log, held to the invariants above.
    fn checked(self, extent: Extent) -> Result<ExecutorLog, ReplayError> {
        let Self { mut log, unknown, fault, stop, lost, .. } = self;
        let first = unknown.into_iter().min_by_key(|(_, record)| *record);
        log.end = first.filter(|_| extent == Extent::Prefix).map_or(usize::MAX, |it| it.1);
        let unknown = first.filter(|_| extent == Extent::Whole);
        let time_goes_back = matches!(fault, Some((_, ReplayError::Backwards { .. })));
        match (fault, unknown) {
            // Of one event that is wrong in both ways its time is told, unless it is about the stage.
            (Some((record, fault)), Some((_, other)))
                if record < other || (record == other && time_goes_back) =>
            {
                return Err(fault);
            }
            (_, Some((model, record))) => {
                return Err(ReplayError::UnknownModel { line: line_of(record), model });
            }
            (Some((record, fault)), None) if record < log.end => return Err(fault),
            _ => {}
        }
        let end = log.end;
        log.told.retain(|entry| entry.record < end);
        log.evicted.retain(|_, record| *record < end);
        let stop = stop.filter(|(record, _)| *record < end);
        log.deaf_since = stop.map(|(_, stop)| {
            let lost = lost.filter(|(record, at, _)| *record < end && *at <= stop);
            lost.map_or(stop, |(_, _, before)| before)
        });
        Ok(log)
    }
}

impl ExecutorLog {
    /// What its dispatcher recorded, in order, gone through anew.
    pub(super) fn decisions<'r>(
        &self,
        records: &'r dyn Records,
    ) -> Result<impl Iterator<Item = Result<Entry, ReplayError>> + use<'r>, ReplayError> {
        let (by, end) = (self.by, self.end);
        let entry = move |(record, found): (usize, Result<Record, _>)| match found {
            Ok(Record { at, by: of, event }) => {
                (of == by && is_decision(&event)).then_some(Ok(Entry { record, at, event }))
            }
            Err(cause) => Some(Err(ReplayError::Read(cause))),
        };
        let before = records.pass()?.enumerate().take_while(move |(record, _)| *record < end);
        Ok(Mended::new(before.filter_map(entry)))
    }

    /// Whether its admission gives ids like this one.
    fn gives(&self, model: ModelId) -> bool {
        let first = self.config.first_model;
        (first..first.saturating_add(self.config.max_models)).contains(&model.index)
    }
}

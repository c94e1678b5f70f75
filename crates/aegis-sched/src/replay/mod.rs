//! Replay: policy, admission and dispatcher run again from the log alone, every decision compared.
//!
//! [`replay`] takes a trace apart by executor and runs the shipped code over each log: admission is
//! asked the same questions again, and the dispatcher is told the same things at the same times.
//! Whatever they answer must be in the log, word for word. [`what_if`](Replayed::what_if) lets another
//! policy decide over the same submissions and execution times; [`account`](Replayed::account) says what
//! one job waited for.
//!
//! # What a replay shows, and what not
//! 1. Every decision follows from what the log says was known at that time, by this code. It does not
//!    show that the log tells the truth about the world: when jobs came, and how long stages took.
//! 2. Verdicts on time are recomputed with every bound; those on memory are taken as they are.
//! 3. When a model stopped being counted, and what a device or runtime reported, are inputs.
//!
//! # Invariants
//! 1. The code that decides is the code that decided: nothing of policy, dispatcher or analysis is
//!    written a second time here.
//! 2. A replay reads no clock and is the same on every machine.
//! 3. No log makes a replay panic: what cannot be is an error that names its line.

mod account;
mod admissions;
mod decisions;
mod error;
mod keep;
mod log;
mod mended;
mod outcome;
mod room;
mod source;
mod stand_in;
mod sums;
mod timeline;
mod what_if;
mod window;

use std::collections::BTreeMap;

use aegis_trace::{
    AdmittedModel, ExecutorConfig, JobId, ModelId, Nanos, StageIndex, Timestamp, Trace, TraceEvent,
};

use admissions::Readmission;
use decisions::{Rerun, Rerunned};
use keep::{Counts, Keeper};
use log::{Entry, ExecutorLog};
use room::Room;

pub use account::{Account, AccountError, Held, Piece, Term, Why};
pub use error::ReplayError;
pub use source::{Pass, Records};
pub use sums::Sums;
pub use timeline::{BoundChange, Broken, Ending, JobRecord, Refill, Rest, Service, Timeline};
pub use what_if::{Assumed, Change, ModelWhatIf, Seen, WhatIf};

/// The most jobs, stages, refills and changes of which a question to a replay keeps something at once, in
/// all runs that it looks at: about a gigabyte. Whether a log follows from itself needs none of them.
pub const KEPT_MAX: usize = 1 << 22;

/// What is kept of a run after its replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// How much there was. Questions go through the records again.
    Counts,
    /// Everything that each executor did.
    Timelines,
}

/// How much of the run a trace holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it: where the log ends, nothing more was decided.
    Whole,
    /// The beginning: the rest was cut off, maybe within a decision.
    Prefix,
}

/// A trace that was replayed.
#[derive(Debug)]
pub struct Replayed {
    /// Its executors, in the order in which they were configured.
    pub executors: Vec<ExecutorReplay>,
    /// The first event that the replay did not find as it was logged.
    pub divergence: Option<Divergence>,
    /// How much of the run the trace holds.
    pub extent: Extent,
    /// What was kept.
    pub keeps: Keeps,
    /// Models that were refused by the plan of a whole workload, before any admission was asked.
    pub refused_unasked: u64,
}

/// One executor that was replayed.
#[derive(Clone, Debug)]
pub struct ExecutorReplay {
    /// What it was built with.
    pub config: ExecutorConfig,
    /// Every model that it admitted, by id.
    pub models: BTreeMap<ModelId, AdmittedModel>,
    /// Events of its dispatcher that were recomputed and found as they were logged.
    pub events: u64,
    /// Questions to its admission that were asked again.
    pub admissions: u64,
    /// Refusals among them that memory made, and that were taken as they are.
    pub taken_as_given: u64,
    /// Jobs that it accepted.
    pub jobs: u64,
    /// Stages that it launched.
    pub stages: u64,
    /// What it did; empty where only [`Keeps::Counts`] was asked for.
    pub timeline: Timeline,
}

impl ExecutorReplay {
    fn with(&self, timeline: Timeline) -> Self {
        Self { timeline, ..self.clone() }
    }
}

/// Where log and replay part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The partition in which, where the device is split.
    pub partition: Option<String>,
    /// The place of the event among the records of the trace.
    pub record: usize,
    /// The time of that record.
    pub at: Timestamp,
    /// What the log says; `None` where it ends.
    pub logged: Option<TraceEvent>,
    /// What is recorded now; `None` for nothing.
    pub replayed: Option<TraceEvent>,
    /// The job that the replay has on the device.
    pub on_device: Option<(JobId, StageIndex)>,
}

impl Divergence {
    /// The line of the trace file, counted from one.
    #[must_use]
    pub fn line(&self) -> usize {
        error::line_of(self.record)
    }

    fn at(log: &ExecutorLog, entry: &Entry, replayed: Option<TraceEvent>) -> Self {
        Self {
            partition: log.config.partition.clone(),
            record: entry.record,
            at: entry.at,
            logged: Some(entry.event.clone()),
            replayed,
            on_device: None,
        }
    }
}

/// Replays `trace`, whose records are in the order of its file, and keeps all timelines.
///
/// Costs the decisions of the run without its waiting: some microseconds an event, and memory in
/// proportion to the trace. Touches no device.
///
/// # Errors
/// [`ReplayError`], Permanent: the trace lacks events or its configuration, or says what cannot be.
pub fn replay(trace: &Trace, extent: Extent) -> Result<Replayed, ReplayError> {
    replay_records(trace, extent, Keeps::Timelines)
}

/// The same of records from anywhere. Where only counts are kept, memory is bounded by models and by what
/// is in flight, however long the run was.
///
/// Goes through the records two times, and once more for each executor.
///
/// # Errors
/// As [`replay`]; [`ReplayError::Read`], [`ReplayError::TooMuch`].
pub fn replay_records(
    records: &dyn Records,
    extent: Extent,
    keeps: Keeps,
) -> Result<Replayed, ReplayError> {
    let (logs, refused_unasked) = log::split(records, extent)?;
    let mut executors = Vec::with_capacity(logs.len());
    let mut divergence: Option<Divergence> = None;
    let mut room = Room::all();
    for log in &logs {
        let (executor, parted) = replay_one(log, records, extent, keeps, room)?;
        room = room.beside(executor.timeline.kept());
        executors.push(executor);
        let first = divergence.into_iter().chain(parted);
        divergence = first.min_by_key(|divergence| divergence.record);
    }
    Ok(Replayed { executors, divergence, extent, keeps, refused_unasked })
}

fn replay_one(
    log: &ExecutorLog,
    records: &dyn Records,
    extent: Extent,
    keeps: Keeps,
    room: Room,
) -> Result<(ExecutorReplay, Option<Divergence>), ReplayError> {
    let mut admission = Readmission::new(log, log.config.policy)?;
    let asked = admission.run(log)?;
    let keeper = match keeps {
        Keeps::Counts => Keeper::nothing(),
        Keeps::Timelines => Keeper::everything(room),
    };
    let Rerunned { keeper, divergence: decided, mut events } =
        Rerun::new(log, records, extent, keeper)?.run()?;
    let told = match &asked {
        None => bounds_told(log, &admission.changes, extent, decided.as_ref()),
        // It ended early, and found not all bounds.
        Some(_) => None,
    };
    let parted = [asked, decided, told].into_iter().flatten();
    let divergence = parted.min_by_key(|divergence| divergence.record);
    if let Some(divergence) = &divergence {
        events = events_before(log, records, divergence.record)?;
    }
    let models = log.models.iter().map(|(model, (_, what))| (*model, what.clone())).collect();
    let Counts { jobs, stages } = keeper.counts;
    let executor = ExecutorReplay {
        config: log.config.clone(),
        models,
        events,
        admissions: log.admissions.len() as u64,
        taken_as_given: admission.taken_as_given,
        jobs,
        stages,
        timeline: keeper.into_timeline(),
    };
    Ok((executor, divergence))
}

/// How many events the dispatcher recorded before this record.
fn events_before(log: &ExecutorLog, records: &dyn Records, end: usize) -> Result<u64, ReplayError> {
    let mut count = 0;
    for entry in log.decisions(records)? {
        if entry?.record >= end {
            break;
        }
        count += 1;
    }
    Ok(count)
}

/// Whether the dispatcher was told exactly the bounds that admission found, in their order, up to where
/// its replay ended.
fn bounds_told(
    log: &ExecutorLog,
    changes: &[(usize, ModelId, Nanos)],
    extent: Extent,
    decided: Option<&Divergence>,
) -> Option<Divergence> {
    let mut expected = changes.iter();
    let end = decided.map_or(usize::MAX, |divergence| divergence.record);
    for entry in log.told.iter().take_while(|entry| entry.record < end) {
        let TraceEvent::BoundChanged { model, bound } = entry.event else { continue };
        match expected.next() {
            Some((_, known, found)) if (*known, *found) == (model, bound) => {}
            Some((_, model, bound)) => {
                let replayed = TraceEvent::BoundChanged { model: *model, bound: *bound };
                return Some(Divergence::at(log, entry, Some(replayed)));
            }
            // What caused it may have been cut off.
            None if extent == Extent::Prefix => return None,
            None => return Some(Divergence::at(log, entry, None)),
        }
    }
    if extent == Extent::Prefix || decided.is_some() {
        return None;
    }
    expected.find_map(|change| untold(log, change))
}

/// The change that nobody was told of, unless the executor had ended when it was found.
fn untold(
    log: &ExecutorLog,
    &(record, model, bound): &(usize, ModelId, Nanos),
) -> Option<Divergence> {
    let cause = log.admissions.iter().find(|entry| entry.record == record)?;
    if log.deaf_since.is_some_and(|since| since <= cause.at) {
        return None;
    }
    let replayed = Some(TraceEvent::BoundChanged { model, bound });
    Some(Divergence { logged: None, ..Divergence::at(log, cause, replayed) })
}

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
mod log;
mod outcome;
mod stand_in;
mod timeline;
mod what_if;

use std::collections::BTreeMap;

use aegis_trace::{
    AdmittedModel, Category, ExecutorConfig, JobId, ModelId, Nanos, StageIndex, Timestamp, Trace,
    TraceEvent,
};

use admissions::Readmission;
use decisions::Rerun;
use log::{Entry, ExecutorLog};

pub use account::{Account, AccountError, Held, Piece, Sums, Term, Why};
pub use error::ReplayError;
pub use timeline::{Broken, Ending, JobRecord, Refill, Service, Timeline};
pub use what_if::{Assumed, Change, ModelWhatIf, Seen, WhatIf};

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
    /// Models that were refused by the plan of a whole workload, before any admission was asked.
    pub refused_unasked: u64,
}

/// One executor that was replayed.
#[derive(Debug)]
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
    /// What it did.
    pub timeline: Timeline,
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

    fn at(log: &ExecutorLog<'_>, entry: Entry<'_>, replayed: Option<TraceEvent>) -> Self {
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

/// Replays `trace`, whose records are in the order of its file.
///
/// Costs the decisions of the run without its waiting: some microseconds an event, and memory in
/// proportion to the trace. Touches no device.
///
/// # Errors
/// [`ReplayError`], Permanent: the trace lacks events or its configuration, or says what cannot be.
pub fn replay(trace: &Trace, extent: Extent) -> Result<Replayed, ReplayError> {
    let (logs, refused_unasked) = log::split(trace, extent)?;
    let mut executors = Vec::with_capacity(logs.len());
    let mut divergence: Option<Divergence> = None;
    for log in &logs {
        let (executor, parted) = replay_one(log, extent)?;
        executors.push(executor);
        let first = divergence.into_iter().chain(parted);
        divergence = first.min_by_key(|divergence| divergence.record);
    }
    Ok(Replayed { executors, divergence, extent, refused_unasked })
}

fn replay_one(
    log: &ExecutorLog<'_>,
    extent: Extent,
) -> Result<(ExecutorReplay, Option<Divergence>), ReplayError> {
    let mut admission = Readmission::new(log, log.config.policy)?;
    let asked = admission.run(log)?;
    let (timeline, decided) = Rerun::new(log, extent)?.run()?;
    let told = match &asked {
        None => bounds_told(log, &admission.changes, extent, decided.as_ref()),
        // It ended early, and found not all bounds.
        Some(_) => None,
    };
    let parted = [asked, decided, told].into_iter().flatten();
    let divergence = parted.min_by_key(|divergence| divergence.record);
    let events = log.decisions.iter();
    let events = match &divergence {
        Some(divergence) => events.take_while(|entry| entry.record < divergence.record).count(),
        None => events.count(),
    };
    let models = log.models.iter().map(|(model, (_, what))| (*model, (*what).clone())).collect();
    let executor = ExecutorReplay {
        config: log.config.clone(),
        models,
        events: events as u64,
        admissions: log.admissions.len() as u64,
        taken_as_given: admission.taken_as_given,
        timeline,
    };
    Ok((executor, divergence))
}

/// Whether the dispatcher was told exactly the bounds that admission found, in their order, up to where
/// its replay ended.
fn bounds_told(
    log: &ExecutorLog<'_>,
    changes: &[(usize, ModelId, Nanos)],
    extent: Extent,
    decided: Option<&Divergence>,
) -> Option<Divergence> {
    let mut expected = changes.iter();
    let end = decided.map_or(usize::MAX, |divergence| divergence.record);
    for entry in log.decisions.iter().take_while(|entry| entry.record < end) {
        let TraceEvent::BoundChanged { model, bound } = *entry.event else { continue };
        match expected.next() {
            Some((_, known, found)) if (*known, *found) == (model, bound) => {}
            Some((_, model, bound)) => {
                let replayed = TraceEvent::BoundChanged { model: *model, bound: *bound };
                return Some(Divergence::at(log, *entry, Some(replayed)));
            }
            // What caused it may have been cut off.
            None if extent == Extent::Prefix => return None,
            None => return Some(Divergence::at(log, *entry, None)),
        }
    }
    if extent == Extent::Prefix || decided.is_some() {
        return None;
    }
    expected.find_map(|change| untold(log, change))
}

/// The change that nobody was told of, unless the executor had ended when it was found.
fn untold(
    log: &ExecutorLog<'_>,
    &(record, model, bound): &(usize, ModelId, Nanos),
) -> Option<Divergence> {
    let cause = log.admissions.iter().find(|entry| entry.record == record)?;
    if deaf_since(log).is_some_and(|since| since <= cause.at) {
        return None;
    }
    let replayed = Some(TraceEvent::BoundChanged { model, bound });
    Some(Divergence { logged: None, ..Divergence::at(log, *cause, replayed) })
}

/// From when on a bound that is found may not reach the dispatcher any more. A command to stop comes
/// after all that were sent before it. A device that is lost ends the executor without one, and then
/// what was sent since its last decision before that may be left in the queue.
fn deaf_since(log: &ExecutorLog<'_>) -> Option<Timestamp> {
    let is_loss = |event: &TraceEvent| match event {
        TraceEvent::StageFailed { category, .. } | TraceEvent::LaunchFailed { category, .. } => {
            *category == Category::Fatal
        }
        _ => false,
    };
    let decisions = &log.decisions;
    let stop = decisions.iter().find(|entry| matches!(entry.event, TraceEvent::Stopping))?;
    let lost = decisions.iter().position(|entry| is_loss(entry.event) && entry.at <= stop.at);
    let before = lost.map(|place| {
        let earlier = decisions[..place].iter().rfind(|entry| entry.at < decisions[place].at);
        earlier.map_or(Timestamp::ZERO, |entry| entry.at)
    });
    Some(before.unwrap_or(stop.at))
}

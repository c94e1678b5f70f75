//! The log of each executor: what its admission was asked, and what its dispatcher was told and did.
//!
//! # Invariants
//! 1. Every record of a dispatcher belongs to exactly one log, in the order in which it was recorded,
//!    with times that do not go back.
//! 2. Every model that a log names was admitted to it, and has an index that its executor gives.
//! 3. No time is beyond [`HORIZON`], and every stage ran from before its end to before it was noticed,
//!    so nothing that is added up here can overflow.

use std::collections::BTreeMap;

use aegis_trace::{
    AdmittedModel, ExecutorConfig, ModelId, Nanos, Record, StreamId, Timestamp, Trace, TraceEvent,
};

use super::Extent;
use super::error::{ReplayError, line_of};

/// No event is later: 2^62 ns, about 146 years after the clock began.
const HORIZON: Timestamp = Timestamp(1 << 62);

/// One record with its place in the trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'t> {
    pub(super) record: usize,
    pub(super) at: Timestamp,
    pub(super) event: &'t TraceEvent,
}

impl Entry<'_> {
    pub(super) fn line(&self) -> usize {
        line_of(self.record)
    }
}

/// What one executor recorded.
#[derive(Debug)]
pub(super) struct ExecutorLog<'t> {
    pub(super) config: &'t ExecutorConfig,
    /// Of its dispatcher, in order.
    pub(super) decisions: Vec<Entry<'t>>,
    /// `Admitted`, `Refused` and `Freed`, in order.
    pub(super) admissions: Vec<Entry<'t>>,
    /// Every model that was admitted, and where.
    pub(super) models: BTreeMap<ModelId, (usize, &'t AdmittedModel)>,
    /// The recorder of its dispatcher.
    by: u32,
}

/// All logs of a trace, in the order of their configurations, and how many refusals were made before
/// admission was asked.
pub(super) fn split(
    trace: &Trace,
    extent: Extent,
) -> Result<(Vec<ExecutorLog<'_>>, u64), ReplayError> {
    if trace.dropped > 0 {
        return Err(ReplayError::Dropped { count: trace.dropped });
    }
    let mut logs = configured(trace)?;
    let mut unasked = 0;
    for (record, entry) in trace.records.iter().enumerate() {
        unasked += u64::from(is_unasked(&entry.event));
        file(&mut logs, record, entry)?;
    }
    logs.iter_mut().try_for_each(|log| log.check(extent))?;
    Ok((logs, unasked))
}

/// One empty log for each configuration.
fn configured(trace: &Trace) -> Result<Vec<ExecutorLog<'_>>, ReplayError> {
    let mut logs: Vec<ExecutorLog<'_>> = Vec::new();
    for (record, Record { by, event, .. }) in trace.records.iter().enumerate() {
        let TraceEvent::Configured { what } = event else { continue };
        let line = line_of(record);
        let is_known =
            |log: &ExecutorLog<'_>| log.by == *by || log.config.partition == what.partition;
        if logs.iter().any(is_known) {
            return Err(ReplayError::ConfiguredTwice { line });
        }
        let problem = if what.first_model.checked_add(what.max_models).is_none() {
            Some("the indices of its models exceed 65535")
        } else {
            (what.hang_factor == 0).then_some("every stage would hang at once")
        };
        let streams = u32::from(u16::MAX) + 1;
        let beyond =
            |first: StreamId| u32::from(first.index).saturating_add(what.streams) > streams;
        let beyond = what.first_stream.is_some_and(beyond);
        let problem = problem.or(beyond.then_some("the indices of its streams exceed 65535"));
        if let Some(problem) = problem {
            return Err(ReplayError::BadConfiguration { line, problem });
        }
        let (decisions, admissions, models) = (Vec::new(), Vec::new(), BTreeMap::new());
        logs.push(ExecutorLog { config: what, decisions, admissions, models, by: *by });
    }
    if logs.is_empty() { Err(ReplayError::NotConfigured) } else { Ok(logs) }
}

/// A refusal by the plan of a whole workload, which is not a decision of any admission.
fn is_unasked(event: &TraceEvent) -> bool {
    matches!(event, TraceEvent::Refused { what } if what.asked.is_none())
}

/// Puts one record into the log it belongs to.
fn file<'t>(
    logs: &mut [ExecutorLog<'t>],
    record: usize,
    Record { at, by, event }: &'t Record,
) -> Result<(), ReplayError> {
    let line = line_of(record);
    if *at > HORIZON {
        return Err(ReplayError::BadTimes { line, problem: "it lies beyond all times" });
    }
    let entry = Entry { record, at: *at, event };
    match event {
        TraceEvent::Configured { .. } | TraceEvent::PressureChanged { .. } => {}
        TraceEvent::Admitted { model, what } => {
            let named = |log: &&mut ExecutorLog<'_>| log.config.partition == what.partition;
            let log = logs.iter_mut().find(named).filter(|log| log.gives(*model));
            let log = log.ok_or_else(|| ReplayError::NoPlace { line, model: what.name.clone() })?;
            if log.models.insert(*model, (record, what)).is_some() {
                return Err(ReplayError::AdmittedTwice { line, model: *model });
            }
            log.admissions.push(entry);
        }
        TraceEvent::Refused { what } => {
            let Some(asked) = &what.asked else { return Ok(()) };
            let named = |log: &&mut ExecutorLog<'_>| log.config.partition == asked.partition;
            let log = logs.iter_mut().find(named);
            let log = log.ok_or_else(|| ReplayError::NoPlace { line, model: what.name.clone() })?;
            log.admissions.push(entry);
        }
        TraceEvent::Freed { model } => {
            let log = logs.iter_mut().find(|log| log.models.contains_key(model));
            let log = log.ok_or(ReplayError::UnknownModel { line, model: *model })?;
            log.admissions.push(entry);
        }
        // What a submitting side turns away never reaches a dispatcher.
        TraceEvent::SubmissionRefused { .. } if logs.iter().all(|log| log.by != *by) => {}
        _ => {
            let log = logs.iter_mut().find(|log| log.by == *by);
            log.ok_or(ReplayError::NoExecutor { line, by: *by })?.decisions.push(entry);
        }
    }
    Ok(())
}

impl ExecutorLog<'_> {
    /// Where a cut off log names a model whose admission was cut off with the rest: nothing is known
    /// from there on.
    fn cut(&self) -> usize {
        let unknown = |entry: &Entry<'_>| {
            entry.event.model().is_some_and(|model| !self.models.contains_key(&model))
        };
        self.decisions.iter().position(unknown).unwrap_or(self.decisions.len())
    }

    /// Whether its admission gives ids like this one.
    fn gives(&self, model: ModelId) -> bool {
        let first = self.config.first_model;
        (first..first.saturating_add(self.config.max_models)).contains(&model.index)
    }

    /// Holds the log to the invariants above.
    fn check(&mut self, extent: Extent) -> Result<(), ReplayError> {
        if extent == Extent::Prefix {
            self.decisions.truncate(self.cut());
        }
        let mut before = Timestamp::ZERO;
        for entry in &self.decisions {
            let (line, at) = (entry.line(), entry.at);
            if at < before {
                return Err(ReplayError::Backwards { line, at, before });
            }
            before = at;
            if let Some(model) = entry.event.model()
                && !self.models.contains_key(&model)
            {
                return Err(ReplayError::UnknownModel { line, model });
            }
            if let TraceEvent::StageCompleted {
                started, finished, upload, download, ahead, ..
            } = *entry.event
            {
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
                if let Some(problem) = problem {
                    return Err(ReplayError::BadTimes { line, problem });
                }
            }
        }
        Ok(())
    }
}

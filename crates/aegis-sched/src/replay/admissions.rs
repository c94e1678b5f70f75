//! Admission asked again: the same questions in the same order, by the shipped controller.
//!
//! Every verdict on time, compute budgets, streams, suspended models and ids is recomputed, with every
//! bound. What is bound where in memory is not: the log has sizes and not the tensors they come from. A
//! refusal by memory is therefore taken as it is, after everything that is asked before memory has said
//! *yes* again.

use std::collections::BTreeMap;

use aegis_trace::{
    AdmittedModel, AskedModel, ModelId, Nanos, PartitionId, Refusal, RefusedModel, TraceEvent,
};

use super::Divergence;
use super::error::ReplayError;
use super::log::{Entry, ExecutorLog};
use super::stand_in::{Ground, StandIn, terms};
use crate::admission::{
    Admission, AdmissionConfig, AdmissionController, AdmissionError, AdmissionRequest, DeviceMemory,
};
use crate::analysis::Analysis;
use crate::policy::PolicyKind;

/// An admission that is asked the questions of a log again.
#[derive(Debug)]
pub(super) struct Readmission {
    controller: AdmissionController,
    memory: DeviceMemory,
    /// The bounds that models are known by, as the dispatcher has them.
    known: BTreeMap<ModelId, Nanos>,
    /// Where the dispatcher let go of a model, and with it of its bound.
    evicted: BTreeMap<ModelId, usize>,
    /// Every change of them that must have reached the dispatcher, with the record that caused it.
    pub(super) changes: Vec<(usize, ModelId, Nanos)>,
    /// Refusals by memory.
    pub(super) taken_as_given: u64,
    _ground: Ground,
}

/// What one question led to.
pub(super) enum Answer {
    Admitted(Box<Admission>),
    Refused(Refusal),
}

impl Readmission {
    /// The admission of `log` without models, under its own policy or another one.
    pub(super) fn new(log: &ExecutorLog, policy: PolicyKind) -> Result<Self, ReplayError> {
        let config = AdmissionConfig::of(&log.config, PartitionId::WHOLE);
        let controller = AdmissionController::new(AdmissionConfig { policy, ..config });
        let ground = Ground::new()?;
        Ok(Self {
            controller: controller.suspending_at_most(log.config.max_suspended),
            memory: ground.memory()?,
            known: BTreeMap::new(),
            evicted: log.evicted.clone(),
            changes: Vec::new(),
            taken_as_given: 0,
            _ground: ground,
        })
    }

    /// Asks everything again; the first answer that is another one.
    pub(super) fn run(&mut self, log: &ExecutorLog) -> Result<Option<Divergence>, ReplayError> {
        self.run_before(log, usize::MAX)
    }

    /// The admission as its executor had been told of it before the record at `end`: without a question
    /// whose answer changed bounds that the executor was told later, and without those behind that one.
    ///
    /// Costs the analyses of the questions before `end`, twice where there is such a one.
    pub(super) fn as_told(
        log: &ExecutorLog,
        policy: PolicyKind,
        end: usize,
    ) -> Result<Self, ReplayError> {
        let asked = |end| {
            let mut admission = Self::new(log, policy)?;
            admission.run_before(log, end)?;
            Ok::<_, ReplayError>(admission)
        };
        let admission = asked(end)?;
        let told = log.told.iter().filter(|entry| entry.record < end).count();
        match admission.changes.get(told) {
            None => Ok(admission),
            Some((untold, _, _)) => asked(*untold),
        }
    }

    /// Asks what was asked before the record at `end`.
    fn run_before(
        &mut self,
        log: &ExecutorLog,
        end: usize,
    ) -> Result<Option<Divergence>, ReplayError> {
        for entry in log.admissions.iter().filter(|entry| entry.record < end) {
            let replayed = match &entry.event {
                TraceEvent::Admitted { model, what } => self.admitted(entry, *model, what)?,
                TraceEvent::Refused { what } => self.refused(entry, what)?,
                TraceEvent::Freed { model } => {
                    self.freed(entry, *model)?;
                    None
                }
                _ => None,
            };
            if let Some(replayed) = replayed {
                return Ok(Some(Divergence::at(log, entry, Some(replayed))));
            }
        }
        Ok(None)
    }

    /// The bounds of the models that are admitted now.
    pub(super) fn known(&self) -> &BTreeMap<ModelId, Nanos> {
        &self.known
    }

    /// The admission itself, for what else is to be asked.
    pub(super) fn controller(&self) -> &AdmissionController {
        &self.controller
    }

    /// Asks about an admitted model; what is answered now, if that is something else.
    fn admitted(
        &mut self,
        entry: &Entry,
        model: ModelId,
        what: &AdmittedModel,
    ) -> Result<Option<TraceEvent>, ReplayError> {
        match self.ask(entry, what)? {
            Answer::Refused(why) => {
                let (name, asked) = (what.name.clone(), None);
                let what = Box::new(RefusedModel { name, why, asked });
                Ok(Some(TraceEvent::Refused { what }))
            }
            Answer::Admitted(admission) => {
                let now = AdmittedModel {
                    // Not recomputed.
                    persistent: what.persistent,
                    scratch: what.scratch,
                    partition: what.partition.clone(),
                    watched: what.watched.clone(),
                    ..admission.promise
                };
                let same = admission.model == model && now == *what;
                let what = Box::new(now);
                Ok((!same).then_some(TraceEvent::Admitted { model: admission.model, what }))
            }
        }
    }

    /// Asks about a model on the terms of `what`, and counts it if it is admitted.
    pub(super) fn ask(
        &mut self,
        entry: &Entry,
        what: &AdmittedModel,
    ) -> Result<Answer, ReplayError> {
        let backend = StandIn::new(what.stages.len());
        let terms = terms(what.service, &what.stages, what.limits);
        let name = what.name.clone();
        self.put(entry, AdmissionRequest { name, terms, backend: Box::new(backend) })
    }

    fn refused(
        &mut self,
        entry: &Entry,
        what: &RefusedModel,
    ) -> Result<Option<TraceEvent>, ReplayError> {
        let Some(asked) = &what.asked else { return Ok(None) };
        let AskedModel { service, stages, limits, .. } = asked;
        let by_memory = is_by_memory(&what.why);
        let backend = StandIn::new(stages.len());
        let backend = Box::new(if by_memory { backend.too_large() } else { backend });
        let terms = terms(*service, stages, *limits);
        match self.put(entry, AdmissionRequest { name: what.name.clone(), terms, backend })? {
            Answer::Refused(why) if by_memory && is_by_memory(&why) => {
                self.taken_as_given += 1;
                Ok(None)
            }
            Answer::Refused(why) if why == what.why => Ok(None),
            Answer::Refused(why) => {
                let now = RefusedModel { why, ..what.clone() };
                Ok(Some(TraceEvent::Refused { what: Box::new(now) }))
            }
            Answer::Admitted(admission) => {
                let what = Box::new(admission.promise);
                Ok(Some(TraceEvent::Admitted { model: admission.model, what }))
            }
        }
    }

    fn put(&mut self, entry: &Entry, request: AdmissionRequest) -> Result<Answer, ReplayError> {
        match self.controller.admit(request, &mut self.memory) {
            Ok(admission) => {
                if let Some(bound) = admission.promise.bound {
                    self.known.insert(admission.model, bound);
                }
                self.changed(entry, &admission.analysis);
                Ok(Answer::Admitted(Box::new(admission)))
            }
            Err(AdmissionError::Refused(why)) => Ok(Answer::Refused(why)),
            Err(cause) => {
                let (line, cause) = (entry.line(), Box::new(cause));
                Err(ReplayError::BadTerms { line, cause })
            }
        }
    }

    /// Lets go of a model.
    pub(super) fn freed(&mut self, entry: &Entry, model: ModelId) -> Result<(), ReplayError> {
        self.known.remove(&model);
        let released = self.controller.release(model, &mut self.memory);
        let left = released.map_err(|_| ReplayError::NotThere { line: entry.line(), model })?;
        if let Some(analysis) = left {
            self.changed(entry, &analysis);
        }
        Ok(())
    }

    fn changed(&mut self, entry: &Entry, analysis: &Analysis) {
        for (model, bound) in analysis.responses() {
            // A server's bound is about its refills, and no dispatcher keeps it.
            let Some(known) = self.known.get_mut(&model) else { continue };
            // It still counts, and nobody keeps its bound any more.
            let is_gone = self.evicted.get(&model).is_some_and(|record| *record < entry.record);
            if is_gone {
                continue;
            }
            if *known != bound {
                *known = bound;
                self.changes.push((entry.record, model, bound));
            }
        }
    }
}

/// Whether memory refused, which is not asked again.
fn is_by_memory(why: &Refusal) -> bool {
    matches!(
        why,
        Refusal::MemoryBudget { .. }
            | Refusal::DeviceMemory { .. }
            | Refusal::MemoryPressure { .. }
    )
}

//! Admission: propose, analyse, then commit all or nothing.
//!
//! A request passes, in this order: the limits of its own budget, the limit on models that may be
//! suspended, the schedulability of the whole
//! set with it, the level of memory pressure, the memory plan beside what is bound, and the binding
//! of its backend. The first
//! that fails refuses it with its numbers, and nothing has changed.
//!
//! # Invariants
//! 1. The set that was analysed last is exactly the set that is installed, plus models that are
//!    leaving. A leaving model counts until it is [`release`](AdmissionController::release)d.
//! 2. A refusal leaves the task set, the memory plan and the ids as they were.
//! 3. The background of the set is the longest stage of all models admitted to it.
//! 4. A model id is not reused: the next tenant of a slot has the next generation.

mod memory;
mod proposal;
mod suspended;

use std::sync::Arc;

use aegis_context::slot::SlotPool;
use aegis_context::{
    ContextError, ExecutionContext, MemoryLedger, ModelDescription, ResourceBudget, RuntimeBackend,
};
use aegis_memory::{MemoryError, ModelMemory, Usage};
use aegis_trace::{
    AdmittedModel, AskedModel, Bytes, Category, ExecutorConfig, JobLimits, ModelId, Nanos,
    PartitionId, Refusal, ServiceTerms,
};

use crate::analysis::counter_offer::{Offer, background_pieces, counter_offers};
use crate::analysis::incremental::{AnalysedSet, JoinError};
use crate::analysis::{Analysis, Bound, Setting};
use crate::dispatch::{Lane, LaneGate, LaneService, Server};
use crate::metrics::ModelMetrics;
use crate::policy::PolicyKind;
use crate::task::{Background, Overheads, Task, TaskError, TaskSet};

pub use memory::DeviceMemory;
pub use proposal::Proposal;

/// The most jobs of one model that may be outstanding at once.
pub const SLOTS_MAX: usize = 1024;

/// What a model asks for when it asks to be admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The kind of service: guaranteed, or one of best effort.
    pub service: ServiceTerms,
    /// Worst-case execution time of each stage, without overheads.
    pub costs: Vec<Nanos>,
    /// Whether others may run between two stages of one of its jobs. Where not, the job is charged as
    /// one stage that nobody preempts, and what it carries from stage to stage shares addresses.
    pub may_be_suspended: bool,
    /// Hard limits.
    pub budget: ResourceBudget,
    /// Jobs that may be outstanding at once, the uncollected ones included.
    pub slots: usize,
}

impl Terms {
    /// One stage of `cost` every `period`, to end within it; one stream, two slots, the whole
    /// period as compute budget, and at most `memory`.
    #[must_use]
    pub fn periodic(cost: Nanos, period: Nanos, memory: Bytes) -> Self {
        Self {
            service: ServiceTerms::Guaranteed {
                period,
                deadline: period,
                jitter: Nanos::ZERO,
                priority: 0,
            },
            costs: vec![cost],
            may_be_suspended: true,
            budget: ResourceBudget { memory, streams: 1, compute: period },
            slots: 2,
        }
    }

    /// One stage of `cost` whenever nothing else is ready, without a deadline; one stream, two slots,
    /// no limit of compute time, and at most `memory`.
    #[must_use]
    pub fn background(cost: Nanos, memory: Bytes) -> Self {
        Self {
            service: ServiceTerms::Background,
            costs: vec![cost],
            may_be_suspended: true,
            budget: ResourceBudget { memory, streams: 1, compute: Nanos::MAX },
            slots: 2,
        }
    }
}

impl Terms {
    /// How jobs are limited, for the trace.
    fn limits(&self) -> JobLimits {
        JobLimits {
            may_be_suspended: self.may_be_suspended,
            compute: self.budget.compute,
            streams: self.budget.streams,
            slots: u32::try_from(self.slots).unwrap_or(u32::MAX),
        }
    }

    /// What a refused model had asked for, for the trace; `partition` is the name of its own.
    #[must_use]
    pub fn asked(&self, partition: Option<&str>) -> AskedModel {
        AskedModel {
            partition: partition.map(str::to_owned),
            service: self.service,
            stages: self.costs.clone(),
            limits: self.limits(),
        }
    }
}

/// A model that asks to be admitted.
pub struct AdmissionRequest {
    /// Its name, for reports.
    pub name: String,
    /// What it asks for.
    pub terms: Terms,
    /// The loaded model.
    pub backend: Box<dyn RuntimeBackend>,
}

/// An admitted model, ready to be installed.
#[derive(Debug)]
pub struct Admission {
    /// Its id.
    pub model: ModelId,
    /// Its lane, for the dispatcher.
    pub lane: Lane,
    /// Its inputs, outputs and stages.
    pub description: Arc<ModelDescription>,
    /// Its job slots.
    pub slots: SlotPool,
    /// Its counters.
    pub metrics: ModelMetrics,
    /// Its gate.
    pub gate: LaneGate,
    /// What was promised, for the trace.
    pub promise: AdmittedModel,
    /// The bounds of all models in the new set, this one's included.
    pub analysis: Analysis,
    /// What its runtime's libraries took of the device outside of any arena.
    pub foreign: Bytes,
    /// What its runtime says of how the model was prepared.
    pub remarks: Vec<String>,
}

impl From<JoinError> for AdmissionError {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Refused(refusal) => Self::Refused(refusal),
            JoinError::Invalid(cause) => Self::Invalid(cause),
        }
    }
}

/// A request that was not admitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// An inequality failed.
    #[error("{0}")]
    Refused(Refusal),
    /// The request itself makes no sense.
    #[error("the timing of the model is not valid")]
    Invalid(#[from] TaskError),
    /// No job could ever be outstanding, or absurdly many.
    #[error("the model has {slots} job slots; it takes between 1 and {SLOTS_MAX}")]
    Slots {
        /// How many were asked for.
        slots: usize,
    },
    /// The costs do not fit the stages.
    #[error("there are costs for {costs} stages and the model has {stages}")]
    WrongStages {
        /// Stages with a cost.
        costs: usize,
        /// Stages of the model.
        stages: u16,
    },
    /// The memory could not be planned or bound for another reason than its size.
    #[error("memory could not be bound")]
    Memory(#[source] MemoryError),
    /// The backend rejected its memory.
    #[error("the model could not be bound")]
    Context(#[from] ContextError),
}

impl AdmissionError {
    /// What the caller can do.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Refused(refusal) => refusal.category(),
            Self::Invalid(cause) => cause.category(),
            Self::WrongStages { .. } | Self::Slots { .. } => Category::Permanent,
            Self::Memory(cause) => cause.category(),
            Self::Context(cause) => cause.category(),
        }
    }

    /// The inequality, if that is what failed.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Invalid(_)
            | Self::WrongStages { .. }
            | Self::Slots { .. }
            | Self::Memory(_)
            | Self::Context(_) => None,
        }
    }
}

/// What admission is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// The policy the dispatcher runs.
    pub policy: PolicyKind,
    /// What every stage and every wake-up is charged.
    pub overheads: Overheads,
    /// The serial executor that is decided about.
    pub partition: PartitionId,
    /// The lowest index of a model's id. Those of the partitions of one device do not meet, so that
    /// ids are unique on it.
    pub first_model: u16,
    /// Models at once, with as many indices.
    pub max_models: u16,
    /// Streams of the partition.
    pub streams: u32,
}

impl AdmissionConfig {
    /// The admission of `executor`, which has the place `partition` on its device.
    #[must_use]
    pub fn of(executor: &ExecutorConfig, partition: PartitionId) -> Self {
        let ExecutorConfig { policy, overheads, first_model, max_models, streams, .. } = *executor;
        Self { policy, overheads, partition, first_model, max_models, streams }
    }
}

/// Knows every admitted model of one partition and decides about the next.
#[derive(Debug)]
pub struct AdmissionController {
    config: AdmissionConfig,
    max_suspended: Option<u32>,
    admitted: AnalysedSet,
    slots: Vec<Slot>,
}

/// One place for a model.
#[derive(Clone, Debug)]
enum Slot {
    /// Free, for a tenant of this id.
    Free(ModelId),
    Taken {
        model: ModelId,
        name: String,
        ledger: MemoryLedger,
        /// Its longest piece if it runs in the background, else zero.
        chunk: Nanos,
        /// Whether it has several stages between which others may run.
        may_be_suspended: bool,
    },
    /// Out of generations.
    Spent,
}

impl AdmissionController {
    /// A controller without models.
    ///
    /// # Panics
    /// When the indices of its models exceed 65 535.
    #[must_use]
    pub fn new(config: AdmissionConfig) -> Self {
        let end = config.first_model.checked_add(config.max_models).expect("indices in 16 bits");
        let slots = (config.first_model..end).map(|index| Slot::Free(ModelId::first(index)));
        let slots = slots.collect();
        let AdmissionConfig { policy, overheads, .. } = config;
        let admitted = AnalysedSet::new(TaskSet::default(), policy, overheads)
            .expect("no task misses no deadline");
        Self { config, max_suspended: None, admitted, slots }
    }

    /// Decides about `request`, and on *yes* commits it in `memory`: the model counts from then on.
    ///
    /// Costs one analysis of what the newcomer can have changed (see [`AnalysedSet`]) and one memory
    /// plan. Allocates, and
    /// lets the backend bind, which may call its runtime; does not wait for the device.
    ///
    /// # Errors
    /// [`AdmissionError`]; nothing has changed, and the backend is dropped.
    pub fn admit(
        &mut self,
        request: AdmissionRequest,
        memory: &mut DeviceMemory,
    ) -> Result<Admission, AdmissionError> {
        let (index, model) = self.free_slot().map_err(AdmissionError::Refused)?;
        check_shape(&request)?;
        let proposal = request.terms.proposed(model, &self.config.overheads)?;
        let needed = needed_memory(model, self.config.partition, &request);
        self.check_budget(&request.terms).map_err(AdmissionError::Refused)?;
        self.check_suspended(&request.terms).map_err(AdmissionError::Refused)?;
        let admitted = self.join(model, &proposal)?;
        let Proposal { task, piece: chunk } = proposal;
        memory.check_pressure()?;
        let planned = memory.bound().plan(needed).map_err(memory_refusal)?;
        let usage = planned.usage();
        let ledger = MemoryLedger::new(request.terms.budget.memory);
        let charge = ledger.charge(usage.total()).map_err(|_| {
            let (needed, limit) = (usage.total(), request.terms.budget.memory);
            AdmissionError::Refused(Refusal::MemoryBudget { needed, limit })
        })?;
        let AdmissionRequest { name, terms, mut backend } = request;
        let description = Arc::new(backend.description().clone());
        let slots = SlotPool::on(memory.bound().arena(), &description, terms.slots)
            .map_err(|cause| AdmissionError::Context(cause.into()))?;
        let binding = memory.bound_mut().bind(planned).map_err(memory_refusal)?;
        if let Err(error) = backend.bind(binding) {
            drop(backend);
            memory.bound_mut().release(model).map_err(memory_refusal)?;
            return Err(AdmissionError::Context(error.into()));
        }
        let (foreign, remarks) = (backend.foreign_memory(), backend.remarks().to_vec());
        let context = ExecutionContext::new(model, terms.budget, backend, slots.clone(), charge);
        let analysis = admitted.analysis().clone();
        let service = lane_service(&terms, task, &analysis, model);
        let promise = self.promise(&name, &terms, &service, usage);
        self.admitted = admitted;
        let may_be_suspended = terms.has_stages_between_which_others_run();
        self.slots[index] = Slot::Taken { model, name, ledger, chunk, may_be_suspended };
        let (metrics, gate) = (ModelMetrics::default(), LaneGate::default());
        let lane = Lane::new(context, terms.costs, service, metrics.clone(), gate.clone())
            .suspending(terms.may_be_suspended);
        Ok(Admission {
            model,
            lane,
            description,
            slots,
            metrics,
            gate,
            promise,
            analysis,
            foreign,
            remarks,
        })
    }

    /// Gives back to `memory` what a departed model held. Its context, and with it its memory binding, must
    /// have been dropped. The analysis of the remaining models, whose bounds can only shrink; `None`
    /// when no task remains.
    ///
    /// # Errors
    /// [`AdmissionError::Memory`] when its memory is still bound, or the model is not known.
    pub fn release(
        &mut self,
        model: ModelId,
        memory: &mut DeviceMemory,
    ) -> Result<Option<Analysis>, AdmissionError> {
        memory.bound_mut().release(model).map_err(AdmissionError::Memory)?;
        let next = model.next_generation().map_or(Slot::Spent, Slot::Free);
        self.slots[usize::from(model.index - self.config.first_model)] = next;
        self.admitted = self.admitted.without(model);
        let background = self.longest_in_background(None);
        if background != self.admitted.tasks().background() {
            // A search that ends without an answer leaves the old bounds, which are still true.
            let eased = self.admitted.with_background(background);
            self.admitted = eased.unwrap_or_else(|_| self.admitted.clone());
        }
        Ok(self.analysis().cloned())
    }

    /// The analysis of the admitted set; `None` while there are no models.
    #[must_use]
    pub fn analysis(&self) -> Option<&Analysis> {
        (!self.tasks().is_empty()).then(|| self.admitted.analysis())
    }

    /// What admission is held to.
    #[must_use]
    pub fn config(&self) -> &AdmissionConfig {
        &self.config
    }

    /// The admitted tasks without overheads: guaranteed models, servers, and the longest stage of the
    /// models in the background.
    #[must_use]
    pub fn tasks(&self) -> &TaskSet {
        self.admitted.tasks()
    }

    /// The id that the next admission gives; `None` while there is no room for one more model.
    #[must_use]
    pub fn next_id(&self) -> Option<ModelId> {
        self.free_slot().ok().map(|(_, model)| model)
    }

    /// The name of an admitted model, if it is one.
    #[must_use]
    pub fn find_name(&self, model: ModelId) -> Option<&str> {
        self.slots.iter().find_map(|slot| match slot {
            Slot::Taken { model: known, name, .. } if *known == model => Some(name.as_str()),
            Slot::Taken { .. } | Slot::Free(_) | Slot::Spent => None,
        })
    }

    /// The name of an admitted model; its id for one that is not known.
    #[must_use]
    pub fn name_of(&self, model: ModelId) -> String {
        self.find_name(model).map_or_else(|| model.to_string(), str::to_owned)
    }

    /// What an admitted model has charged to its own budget.
    #[must_use]
    pub fn charged(&self, model: ModelId) -> Option<Bytes> {
        let index = model.index.checked_sub(self.config.first_model)?;
        match self.slots.get(usize::from(index))? {
            Slot::Taken { model: known, ledger, .. } if *known == model => Some(ledger.used()),
            Slot::Taken { .. } | Slot::Free(_) | Slot::Spent => None,
        }
    }

    fn free_slot(&self) -> Result<(usize, ModelId), Refusal> {
        let free = self.slots.iter().enumerate().find_map(|(index, slot)| match slot {
            Slot::Free(model) => Some((index, *model)),
            Slot::Taken { .. } | Slot::Spent => None,
        });
        free.ok_or(Refusal::TooManyModels { limit: u32::from(self.config.max_models) })
    }

    /// The admitted set with a newcomer.
    fn join(&self, model: ModelId, newcomer: &Proposal) -> Result<AnalysedSet, AdmissionError> {
        match &newcomer.task {
            Some(task) => Ok(self.admitted.with(task.clone())?),
            None => {
                let background = self.longest_in_background(Some((model, newcomer.piece)));
                self.admitted.with_background(background).map_err(AdmissionError::Refused)
            }
        }
    }

    /// The longest stage in the background and whose it is, with that of a `newcomer`; zero is none.
    fn longest_in_background(&self, newcomer: Option<(ModelId, Nanos)>) -> Background {
        let known = self.slots.iter().filter_map(|slot| match slot {
            Slot::Taken { model, chunk, .. } => Some((*model, *chunk)),
            Slot::Free(_) | Slot::Spent => None,
        });
        let chunks = newcomer.into_iter().chain(known).filter(|(_, chunk)| *chunk > Nanos::ZERO);
        let longest = chunks.max_by_key(|(_, chunk)| *chunk);
        longest.map_or(Background::default(), |(model, longest)| Background {
            longest,
            of: Some(model),
        })
    }

    /// What would be admitted in the place of a guaranteed model of these terms, which is refused: see
    /// [`counter_offers`]. The newcomer goes by the id that the next admission gives. A server is
    /// offered other refills, and work in the background shorter pieces.
    ///
    /// Costs up to some hundred analyses; does not block.
    #[must_use]
    pub fn counter_offers(&self, terms: &Terms) -> Vec<Offer> {
        let AdmissionConfig { policy, overheads, .. } = self.config;
        let setting = Setting::admission(policy, overheads);
        let Ok((_, model)) = self.free_slot() else { return Vec::new() };
        match terms.proposed(model, &overheads) {
            Err(_) => Vec::new(),
            Ok(Proposal { task: Some(task), .. }) => self
                .tasks()
                .with(task)
                .map_or_else(|_| Vec::new(), |set| counter_offers(&set, &setting)),
            Ok(Proposal { task: None, .. }) => {
                let cost: Nanos = terms.costs.iter().copied().sum();
                let pieces = background_pieces(self.tasks(), cost, &setting);
                pieces.map(|stages| Offer::Stages { model, stages }).into_iter().collect()
            }
        }
    }

    /// Compute and streams; memory is checked against the plan.
    fn check_budget(&self, terms: &Terms) -> Result<(), Refusal> {
        let budget = &terms.budget;
        let needed = self.config.overheads.total(&terms.costs);
        if needed > budget.compute {
            return Err(Refusal::ComputeBudget { needed, limit: budget.compute });
        }
        if budget.streams > self.config.streams {
            let (needed, available) = (budget.streams, self.config.streams);
            return Err(Refusal::Streams { needed, available });
        }
        if budget.streams == 0 {
            return Err(Refusal::Streams { needed: 1, available: 0 });
        }
        Ok(())
    }

    fn promise(
        &self,
        name: &str,
        terms: &Terms,
        service: &LaneService,
        usage: Usage,
    ) -> AdmittedModel {
        let bound = match service {
            LaneService::Guaranteed { bound, .. } => Some(*bound),
            LaneService::Background | LaneService::Server(_) => None,
        };
        AdmittedModel {
            name: name.to_owned(),
            service: terms.service,
            stages: terms.costs.clone(),
            limits: terms.limits(),
            overhead: self.config.overheads.dispatch,
            bound,
            persistent: usage.resident,
            scratch: usage.scratch,
            partition: None,
            watched: Vec::new(),
        }
    }
}

/// What the backend declared, with the classes that its terms leave it.
fn needed_memory(
    model: ModelId,
    partition: PartitionId,
    request: &AdmissionRequest,
) -> ModelMemory {
    let tensors = request.backend.memory().to_vec();
    let declared = ModelMemory { model, partition, tensors };
    if request.terms.may_be_suspended { declared } else { declared.never_suspended() }
}

/// Whether costs and slots fit the model.
fn check_shape(request: &AdmissionRequest) -> Result<(), AdmissionError> {
    let (terms, stages) = (&request.terms, request.backend.description().stages);
    if terms.costs.len() != usize::from(stages) {
        return Err(AdmissionError::WrongStages { costs: terms.costs.len(), stages });
    }
    if !(1..=SLOTS_MAX).contains(&terms.slots) {
        return Err(AdmissionError::Slots { slots: terms.slots });
    }
    Ok(())
}

/// What the lane of an accepted model owes its jobs.
fn lane_service(
    terms: &Terms,
    task: Option<Task>,
    analysis: &Analysis,
    model: ModelId,
) -> LaneService {
    match terms.service {
        ServiceTerms::Guaranteed { .. } => LaneService::Guaranteed {
            task: task.expect("a guaranteed model was proposed as a task"),
            bound: bound_of(analysis, model).response,
        },
        ServiceTerms::Background => LaneService::Background,
        ServiceTerms::Server { budget, period, priority } => {
            LaneService::Server(Server::new(budget, period, priority, terms.slots))
        }
    }
}

/// The bound of a task that was analysed.
fn bound_of(analysis: &Analysis, model: ModelId) -> &Bound {
    let found = analysis.bounds.iter().find(|bound| bound.model == model);
    found.expect("an accepted set has a bound for each of its tasks")
}

fn memory_refusal(error: MemoryError) -> AdmissionError {
    match error {
        MemoryError::Refused { why, .. } => AdmissionError::Refused(why),
        other => AdmissionError::Memory(other),
    }
}

//! What stands in for the device and the models of a run: work that takes no time and does nothing.
//!
//! The dispatcher launches on a real stream of a simulated device, whose time never moves. When a
//! stage ends, and whether it failed, is told by the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use aegis_context::slot::JobSlot;
use aegis_context::{
    BackendError, ExecutionContext, MemoryLedger, ModelDescription, ResourceBudget, RuntimeBackend,
    SlotPool, StreamPool,
};
use aegis_cuda::{
    CudaStream, DeviceContext, DeviceError, RefusedAllocation, SimConfig, SimWork, WorkFault,
};
use aegis_memory::{Lifespan, MemoryBinding, MemoryOrchestrator, TensorClass, TensorLifetime};
use aegis_trace::{
    AdmittedModel, Bytes, Category, JobLimits, ModelId, Nanos, ServiceTerms, StageIndex, TensorId,
};

use crate::admission::{DeviceMemory, Terms};
use crate::dispatch::{Lane, LaneGate, LaneService, Server};
use crate::metrics::ModelMetrics;
use crate::task::{Task, TaskSpec};
use crate::wcet::StageMonitor;

/// All the memory there is: models take none of it, since what is bound where is not recomputed.
const MEMORY: Bytes = Bytes::from_mib(1);
/// More than there is.
const TOO_MUCH: Bytes = Bytes::from_mib(2);
/// One stage holds the device; a stream more, for one that was left behind.
const STREAMS: u16 = 2;
/// Work items a stream holds: two events and a stage, twice, since one stage may wait behind another.
const STREAM_DEPTH: usize = 8;

/// The device.
#[derive(Debug)]
pub(super) struct Ground {
    device: DeviceContext,
    pub(super) streams: Arc<StreamPool>,
}

impl Ground {
    pub(super) fn new() -> Result<Self, DeviceError> {
        let config =
            SimConfig { memory_limit: MEMORY, max_streams: STREAMS, stream_depth: STREAM_DEPTH };
        let device = DeviceContext::sim(config)?;
        let streams = StreamPool::new(&device, u32::from(STREAMS))?;
        Ok(Self { device, streams })
    }

    /// Memory for an admission that is asked again.
    pub(super) fn memory(&self) -> Result<DeviceMemory, DeviceError> {
        Ok(DeviceMemory::new(MemoryOrchestrator::new(self.device.reserve_arena(MEMORY)?)))
    }

    /// Ends the work that stands for the stages on the device, so that their stream is free again.
    pub(super) fn end_work(&self) {
        let simulator = self.device.simulator().expect("this device is simulated");
        if let Some(at) = simulator.next_event() {
            simulator.advance_to(at);
        }
    }
}

/// How a launch failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailedLaunch {
    pub(super) category: Category,
    /// The request for memory that was refused, if that was it.
    pub(super) refused: Option<RefusedAllocation>,
}

/// How the next launches of a model go: how those fail that do, `None` for the others. Those
/// beyond the last succeed. Shared with its backend.
#[derive(Clone, Debug, Default)]
pub(super) struct NextLaunches(Arc<Mutex<VecDeque<Option<FailedLaunch>>>>);

impl NextLaunches {
    /// Replaces what is to come.
    pub(super) fn set(&self, next: impl IntoIterator<Item = Option<FailedLaunch>>) {
        let mut launches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        launches.clear();
        launches.extend(next);
    }

    fn take(&self) -> Option<FailedLaunch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten()
    }
}

/// The backend of a model that is known by its log alone.
pub(super) struct StandIn {
    description: ModelDescription,
    memory: Vec<TensorLifetime>,
    next_launches: NextLaunches,
}

impl StandIn {
    /// A model of `stages` stages that takes no memory.
    pub(super) fn new(stages: usize) -> Self {
        let stages = u16::try_from(stages).unwrap_or(u16::MAX);
        let description = ModelDescription { inputs: vec![], outputs: vec![], stages };
        Self { description, memory: Vec::new(), next_launches: NextLaunches::default() }
    }

    /// The same, which takes more memory than there is.
    pub(super) fn too_large(self) -> Self {
        let span = Lifespan::new(0, u32::from(self.description.stages.max(1)));
        let tensor = TensorLifetime {
            tensor: TensorId::first(0),
            class: TensorClass::Persistent,
            span: span.expect("from the first stage to the last"),
            size: TOO_MUCH,
            alignment: 1,
        };
        Self { memory: vec![tensor], ..self }
    }
}

impl RuntimeBackend for StandIn {
    fn runtime_name(&self) -> String {
        "log".into()
    }

    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn memory(&self) -> &[TensorLifetime] {
        &self.memory
    }

    fn bind(&mut self, _binding: MemoryBinding) -> Result<(), BackendError> {
        Ok(())
    }

    fn enqueue(
        &mut self,
        _stage: StageIndex,
        _slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        match self.next_launches.take() {
            Some(FailedLaunch { refused: Some(refused), .. }) => {
                let RefusedAllocation { requested, available } = refused;
                Err(BackendError::OutOfScratch { requested, available })
            }
            Some(FailedLaunch { category, refused: None }) => Err(failure(category, stream).into()),
            None => Ok(stream.enqueue_sim(SimWork { cost: Nanos::ZERO, fault: None })?),
        }
    }
}

fn failure(category: Category, stream: &CudaStream) -> DeviceError {
    let cause = WorkFault::new(category, "it failed when it was recorded");
    DeviceError::Work { stream: stream.id(), further: 0, cause }
}

/// The terms that a model was admitted on, or refused. Memory is not looked at.
pub(super) fn terms(service: ServiceTerms, costs: &[Nanos], limits: JobLimits) -> Terms {
    let JobLimits { may_be_suspended, compute, streams, slots } = limits;
    Terms {
        service,
        costs: costs.to_vec(),
        may_be_suspended,
        budget: ResourceBudget { memory: Bytes(u64::MAX), streams, compute },
        slots: usize::try_from(slots).unwrap_or(usize::MAX),
    }
}

/// The lane of an admitted model with the bound it was promised, and how its next launches go.
///
/// # Errors
/// What is wrong with the model, in words.
pub(super) fn lane(model: ModelId, what: &AdmittedModel) -> Result<(Lane, NextLaunches), String> {
    let stages = &what.stages;
    if stages.is_empty() || stages.len() > Task::MOST_STAGES {
        return Err(format!("it has {} stages", stages.len()));
    }
    if !(what.watched.is_empty() || what.watched.len() == stages.len()) {
        return Err(format!("{} of its {} stages are watched", what.watched.len(), stages.len()));
    }
    let service = service(model, what)?;
    let backend = StandIn::new(stages.len());
    let next_launches = backend.next_launches.clone();
    let terms = terms(what.service, stages, what.limits);
    // Jobs bring slots of their own; the pool only says for how many there is room.
    let slots = SlotPool::new(backend.description(), terms.slots.min(1));
    let charge = MemoryLedger::new(Bytes::ZERO).charge(Bytes::ZERO).expect("nothing fits always");
    let context = ExecutionContext::new(model, terms.budget, Box::new(backend), slots, charge);
    let (metrics, gate) = (ModelMetrics::default(), LaneGate::default());
    let lane = Lane::new(context, terms.costs, service, metrics, gate);
    let mut lane = lane.suspending(what.limits.may_be_suspended);
    lane.watch(what.watched.iter().copied().map(StageMonitor::watching).collect());
    Ok((lane, next_launches))
}

fn service(model: ModelId, what: &AdmittedModel) -> Result<LaneService, String> {
    match what.service {
        ServiceTerms::Guaranteed { period, deadline, jitter, priority } => {
            let stages = what.stages.clone();
            let spec = TaskSpec { model, period, deadline, jitter, priority, stages };
            let task = Task::new(spec).map_err(|error| error.to_string())?;
            let bound = what.bound.ok_or("it has a deadline and no bound")?;
            Ok(LaneService::Guaranteed { task, bound })
        }
        ServiceTerms::Background => Ok(LaneService::Background),
        ServiceTerms::Server { budget, period, priority } => {
            Ok(LaneService::Server(Server::new(budget, period, priority, 0)))
        }
    }
}

/// A filled slot for one job.
pub(super) fn slot() -> Arc<JobSlot> {
    let nothing = ModelDescription { inputs: vec![], outputs: vec![], stages: 1 };
    let slot = Arc::new(JobSlot::new(&nothing));
    assert!(slot.claim(), "a new slot is free");
    slot.queue();
    slot
}

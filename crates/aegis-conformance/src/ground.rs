//! A device with memory for a few models, and models on it.

use std::sync::Arc;

use aegis_context::{JobSlot, RuntimeBackend, TensorSpec};
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext, DriverKind, HostConfig};
use aegis_memory::{MemoryBinding, MemoryOrchestrator, ModelMemory, TensorLifetime};
use aegis_trace::{Bytes, ModelId, MonotonicClock, Nanos, PartitionId, StageIndex};

use crate::Fault;
use crate::tensors::Tensors;

/// The device of a clause, with nothing bound on it.
pub struct Ground {
    pub(crate) device: DeviceContext,
    pub(crate) arena: DeviceArena,
    pub(crate) memory: MemoryOrchestrator,
    pub(crate) stream: CudaStream,
    next: u16,
}

/// A bound model with a slot for its jobs.
pub struct Model {
    // In the order of dropping: the backend goes first, as at eviction.
    pub(crate) backend: Box<dyn RuntimeBackend>,
    pub(crate) slot: Arc<JobSlot>,
    pub(crate) id: ModelId,
}

impl Model {
    /// The inputs of a job.
    #[must_use]
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.backend.description().inputs
    }
}

impl Ground {
    /// The processor as the device, with `memory` for the models.
    ///
    /// # Errors
    /// The device cannot be made.
    pub fn host(memory: Bytes) -> Result<Self, Fault> {
        let (spin, clock) = (Nanos::ZERO, MonotonicClock::start());
        let (max_streams, stream_depth) = (8, 16);
        let config = HostConfig { memory_limit: memory, max_streams, stream_depth, spin, clock };
        let device = DeviceContext::host(config)?;
        let arena = device.reserve_arena(memory)?;
        Self::over(device, arena)
    }

    /// `device` with models in `arena`, of which nothing is taken.
    ///
    /// # Errors
    /// The device has no stream left.
    pub fn over(device: DeviceContext, arena: DeviceArena) -> Result<Self, Fault> {
        let memory = MemoryOrchestrator::new(arena.clone());
        let stream = device.create_stream()?;
        Ok(Self { device, arena, memory, stream, next: 0 })
    }

    /// Plans memory for `tensors` and hands it out.
    pub(crate) fn binding(
        &mut self,
        tensors: Vec<TensorLifetime>,
    ) -> Result<(ModelId, MemoryBinding), Fault> {
        let (model, partition) = (ModelId::first(self.next), PartitionId::WHOLE);
        self.next += 1;
        let planned = self.memory.plan(ModelMemory { model, partition, tensors })?;
        Ok((model, self.memory.bind(planned)?))
    }

    /// Binds `backend` and makes it a slot.
    ///
    /// # Errors
    /// The memory does not hold it, or the backend refuses its binding.
    pub fn admit(&mut self, mut backend: Box<dyn RuntimeBackend>) -> Result<Model, Fault> {
        let (id, binding) = self.binding(backend.memory().to_vec())?;
        backend.bind(binding)?;
        let slot = queued(JobSlot::on(&self.arena, backend.description())?);
        Ok(Model { backend, slot, id })
    }

    /// Plans and binds the memory of `backend`, which stays with whoever has it.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn bind(&mut self, backend: &mut dyn RuntimeBackend) -> Result<(), Fault> {
        let (_, binding) = self.binding(backend.memory().to_vec())?;
        Ok(backend.bind(binding)?)
    }

    /// Runs one job of `model`, stage after stage, and waits for it.
    ///
    /// # Errors
    /// A stage cannot be enqueued, or fails.
    pub fn run(&self, model: &mut Model, inputs: &Tensors) -> Result<Tensors, Fault> {
        fill(&model.slot, inputs);
        model.backend.enqueue(StageIndex(0), &model.slot, &self.stream)?;
        self.stream.synchronize()?;
        self.finish(model)
    }

    /// Runs what is left of a job of `model` whose first stage has ended.
    pub(crate) fn finish(&self, model: &mut Model) -> Result<Tensors, Fault> {
        for stage in 1..model.backend.description().stages {
            model.backend.enqueue(StageIndex(stage), &model.slot, &self.stream)?;
            self.stream.synchronize()?;
        }
        Ok(model.slot.io().outputs().iter().map(|output| output.to_vec()).collect())
    }

    /// Gives the model up, with its memory.
    pub(crate) fn evict(&mut self, model: Model) -> Result<(), Fault> {
        let id = model.id;
        drop(model);
        Ok(self.memory.release(id)?)
    }

    /// Whether the processor may look at the memory of models.
    pub(crate) fn is_host(&self) -> bool {
        self.device.kind() == DriverKind::Host
    }
}

/// A new slot as that of a job that is under way, whose stages are enqueued by hand and waited for.
#[must_use]
pub fn queued(slot: JobSlot) -> Arc<JobSlot> {
    assert!(slot.claim(), "a new slot is free");
    slot.queue();
    Arc::new(slot)
}

/// Puts `inputs` into a [`queued`] slot with nothing on the device, and what is no output into its outputs.
pub fn fill(slot: &JobSlot, inputs: &Tensors) {
    slot.unqueue();
    inputs.iter().enumerate().for_each(|(index, bytes)| slot.write_input(index, bytes));
    slot.queue();
    let mut io = slot.io();
    (0..io.outputs().len()).for_each(|index| io.output_mut(index).fill(0xa5));
}

//! A host device with models on it, for the tests against the real ONNX Runtime.
//!
//! Nothing here skips: without the library or the models, a test fails with the command that gets
//! them.
#![allow(dead_code)] // Each test binary uses its own part.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aegis_backend_onnx::{LoadOptions, OnnxBackend};
use aegis_context::{JobSlot, RuntimeBackend};
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext, DeviceError, HostConfig};
use aegis_memory::{MemoryBinding, MemoryOrchestrator, ModelMemory, Placement, TensorLifetime};
use aegis_trace::{Bytes, ModelId, MonotonicClock, Nanos, PartitionId, StageIndex, TensorId};

/// The tensor that stands for the scratch of a model.
pub(crate) const SCRATCH: TensorId = TensorId::first(1);

/// Tensors as bytes, in the order of the model's description.
pub(crate) type Tensors = Vec<Vec<u8>>;

/// One device, one arena, one stream.
pub(crate) struct World {
    pub(crate) device: DeviceContext,
    pub(crate) arena: DeviceArena,
    pub(crate) stream: CudaStream,
    orchestrator: MemoryOrchestrator,
    admitted: u16,
}

/// A bound model with a slot for its jobs.
pub(crate) struct Model {
    pub(crate) backend: OnnxBackend,
    pub(crate) placements: Vec<Placement>,
    pub(crate) slot: Arc<JobSlot>,
}

impl World {
    pub(crate) fn new(memory: Bytes) -> Self {
        let device = DeviceContext::host(HostConfig {
            memory_limit: memory,
            max_streams: 4,
            stream_depth: 16,
            spin: Nanos::ZERO,
            clock: MonotonicClock::start(),
        });
        let device = device.expect("limits are stated");
        let arena = device.reserve_arena(memory).expect("address space");
        let stream = device.create_stream().expect("a thread");
        let orchestrator = MemoryOrchestrator::new(arena.clone());
        Self { device, arena, stream, orchestrator, admitted: 0 }
    }

    /// Plans and binds the memory of `backend`.
    pub(crate) fn admit(&mut self, mut backend: OnnxBackend) -> Model {
        let (placements, binding) = self.planned(backend.memory().to_vec());
        backend.bind(binding).expect("the binding holds what was declared");
        let slot = queued(&backend);
        Model { backend, placements, slot }
    }

    /// As [`World::admit`], for a model that nobody is run between the stages of.
    pub(crate) fn admit_whole(&mut self, mut backend: OnnxBackend) -> Model {
        let model = ModelId::first(self.admitted);
        let declared = ModelMemory {
            model,
            partition: PartitionId::WHOLE,
            tensors: backend.memory().to_vec(),
        };
        let (placements, binding) = self.planned(declared.never_suspended().tensors);
        backend.bind(binding).expect("what is carried may be shared");
        let slot = queued(&backend);
        Model { backend, placements, slot }
    }

    /// What all models occupy.
    pub(crate) fn resident(&self) -> Bytes {
        self.orchestrator.current_usage().resident
    }

    /// Plans and binds memory for `tensors`.
    pub(crate) fn admit_binding(&mut self, tensors: Vec<TensorLifetime>) -> MemoryBinding {
        self.planned(tensors).1
    }

    fn planned(&mut self, tensors: Vec<TensorLifetime>) -> (Vec<Placement>, MemoryBinding) {
        let model = ModelId::first(self.admitted);
        self.admitted += 1;
        let needs = ModelMemory { model, partition: PartitionId::WHOLE, tensors };
        let planned = self.orchestrator.plan(needs).expect("the arena is large enough");
        let placements = planned.placements().to_vec();
        (placements, self.orchestrator.bind(planned).expect("nothing was bound since"))
    }

    /// Runs one job on the world's stream and waits for it.
    pub(crate) fn run(&self, model: &mut Model, inputs: &Tensors) -> Result<Tensors, DeviceError> {
        model.run_on(&self.stream, inputs)
    }
}

impl Model {
    /// Runs one job, stage after stage, and waits for it.
    pub(crate) fn run_on(
        &mut self,
        stream: &CudaStream,
        inputs: &Tensors,
    ) -> Result<Tensors, DeviceError> {
        self.fill(inputs);
        for stage in 0..self.backend.description().stages {
            let enqueued = self.backend.enqueue(StageIndex(stage), &self.slot, stream);
            enqueued.expect("the stream has room");
            stream.synchronize()?;
        }
        Ok(self.slot.io().outputs().iter().map(|output| output.to_vec()).collect())
    }

    /// Writes the inputs of the next job, and over the outputs of the last.
    pub(crate) fn fill(&self, inputs: &Tensors) {
        self.slot.unqueue();
        for (index, bytes) in inputs.iter().enumerate() {
            self.slot.write_input(index, bytes);
        }
        self.slot.queue();
        let mut io = self.slot.io();
        for index in 0..io.outputs().len() {
            io.output_mut(index).fill(0xA5);
        }
    }

    /// The addresses of its scratch in the arena.
    pub(crate) fn scratch(&self) -> std::ops::Range<u64> {
        let placed = self.placements.iter().find(|placement| placement.tensor == SCRATCH);
        let offset = placed.expect("the model needs scratch").offset;
        let needs = self.backend.memory().iter().find(|need| need.tensor == SCRATCH);
        offset..offset + needs.expect("the model needs scratch").size.0
    }
}

/// A queued slot: these tests enqueue its jobs by hand.
fn queued(backend: &OnnxBackend) -> Arc<JobSlot> {
    let slot = Arc::new(JobSlot::new(backend.description()));
    assert!(slot.claim(), "a new slot is free");
    slot.queue();
    slot
}

/// The folder of a set of models.
pub(crate) fn models(set: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/ is below");
    let folder = root.join(".aegis/models").join(set);
    assert!(folder.is_dir(), "the models are missing: run `cargo xtask models --set {set}`");
    folder
}

/// One file of a set of models.
pub(crate) fn file(set: &str, name: &str) -> PathBuf {
    let file = models(set).join(name);
    assert!(file.is_file(), "{name} is missing: run `cargo xtask models --set {set}`");
    file
}

/// Loads a model with one thread and a limit that no tested model reaches.
pub(crate) fn load(files: Vec<PathBuf>) -> OnnxBackend {
    OnnxBackend::load(&options(files)).expect("a model that is in order")
}

/// How [`load`] loads.
pub(crate) fn options(files: Vec<PathBuf>) -> LoadOptions {
    LoadOptions { files, threads: 1, memory_limit: Bytes::from_mib(1024), gpu: None }
}

/// The float input of `elements` elements that the golden answers were computed with.
pub(crate) fn float_input(elements: usize) -> Vec<u8> {
    let element = |index: u64| {
        let hashed = u32::try_from((index * 2_654_435_761) % (1 << 32)).expect("a remainder");
        #[expect(clippy::cast_possible_truncation, reason = "rounded once, as documented")]
        let value = (f64::from(hashed) / 4_294_967_296.0 - 0.5) as f32;
        value.to_le_bytes()
    };
    (0..elements as u64).flat_map(element).collect()
}

/// The integer input of `elements` elements that the golden answers were computed with.
pub(crate) fn integer_input(elements: usize, modulus: i64) -> Vec<u8> {
    (0..elements).flat_map(|index| (index as i64 % modulus).to_le_bytes()).collect()
}

/// The elements of a float tensor.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    let (elements, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty(), "whole elements");
    elements.iter().map(|element| f32::from_le_bytes(*element)).collect()
}

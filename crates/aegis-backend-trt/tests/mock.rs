//! The run-time half against a mock of the library, on the host.
//!
//! What is asked of memory, what is bound, what runs, and what becomes of a model whose engine
//! misbehaves.
//!
//! Here the mock copies at once, on the caller's thread, and nothing can be captured. On a GPU the same
//! mock is captured and replayed by the device: `aegis-gpu-tests`.
#![cfg(feature = "mock")]

use std::path::PathBuf;
use std::sync::Arc;

use aegis_backend_trt::mock::{MockFault, MockPlan};
use aegis_backend_trt::{Gpu, LoadOptions, TrtBackend};
use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, RuntimeBackend};
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext, HostConfig};
use aegis_memory::{MemoryOrchestrator, ModelMemory, TensorClass};
use aegis_trace::{Bytes, ModelId, MonotonicClock, Nanos, PartitionId, StageIndex, TensorId};

const PERSISTENT: TensorId = TensorId::first(0);
const SCRATCH: TensorId = TensorId::first(1);

struct World {
    folder: tempfile::TempDir,
    arena: DeviceArena,
    gpu: Gpu,
    stream: CudaStream,
    memory: MemoryOrchestrator,
    files: usize,
}

impl World {
    fn new() -> Self {
        let memory_limit = Bytes::from_mib(1);
        let config = HostConfig {
            memory_limit,
            max_streams: 4,
            stream_depth: 16,
            spin: Nanos::ZERO,
            clock: MonotonicClock::start(),
        };
        let device = DeviceContext::host(config).expect("limits are stated");
        let arena = device.reserve_arena(memory_limit).expect("address space");
        let stream = device.create_stream().expect("a thread");
        let preparation = Arc::new(device.create_stream().expect("a thread"));
        let gpu = Gpu { device, arena: arena.clone(), preparation, graph: true };
        let memory = MemoryOrchestrator::new(arena.clone());
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { folder, arena, gpu, stream, memory, files: 0 }
    }

    fn write(&mut self, plan: &MockPlan) -> PathBuf {
        self.files += 1;
        let file = self.folder.path().join(format!("{}.engine", self.files));
        std::fs::write(&file, plan.to_bytes()).expect("a new file");
        file
    }

    fn load(&mut self, plans: &[MockPlan]) -> Result<TrtBackend, BackendError> {
        let files = plans.iter().map(|plan| self.write(plan)).collect();
        let memory_limit = Bytes::from_mib(1);
        TrtBackend::load(&LoadOptions { files, memory_limit, gpu: self.gpu.clone() })
    }

    /// Binds the model and gives a slot for its jobs.
    fn bind(&mut self, backend: &mut TrtBackend) -> Arc<JobSlot> {
        let (model, partition) = (ModelId::first(0), PartitionId::WHOLE);
        let tensors = backend.memory().to_vec();
        let planned = self.memory.plan(ModelMemory { model, partition, tensors }).expect("it fits");
        backend.bind(self.memory.bind(planned).expect("nothing else is bound")).expect("it binds");
        let slot = JobSlot::on(&self.arena, backend.description()).expect("there is room");
        assert!(slot.claim(), "a new slot is free");
        slot.queue(); // Its stages are enqueued by hand.
        Arc::new(slot)
    }
}

fn plan(from: &str, to: &str, size: usize) -> MockPlan {
    MockPlan {
        inputs: vec![(from.into(), vec![1, size])],
        outputs: vec![(to.into(), vec![1, size])],
        persistent: Bytes(5000),
        scratch: Bytes(3000),
        ..MockPlan::default()
    }
}

fn run(world: &World, backend: &mut TrtBackend, slot: &Arc<JobSlot>, byte: u8) -> Vec<u8> {
    let length = slot.io().inputs()[0].len();
    slot.unqueue();
    slot.write_input(0, &vec![byte; length]);
    slot.queue();
    slot.io().output_mut(0).fill(0xa5);
    for stage in 0..backend.description().stages {
        backend.enqueue(StageIndex(stage), slot, &world.stream).expect("it runs");
    }
    slot.io().outputs()[0].to_vec()
}

#[test]
fn what_an_engine_keeps_and_needs_is_declared_and_nothing_of_the_measurement_stays() {
    let mut world = World::new();
    let before = world.arena.largest_gap();
    let backend = world.load(&[plan("x", "y", 100)]).expect("it loads");
    assert_eq!(world.arena.largest_gap(), before);
    let size = |id| backend.memory().iter().find(|it| it.tensor == id).map(|it| it.size);
    assert_eq!(size(PERSISTENT), Some(Bytes(5120)), "whole units of 256 bytes");
    assert_eq!(size(SCRATCH), Some(Bytes(3000)));
    let io = backend.memory().iter().filter(|it| it.class == TensorClass::Io).count();
    assert_eq!((io, backend.description().stages), (2, 1));
}

#[test]
fn a_bound_model_runs_job_after_job() {
    let mut world = World::new();
    let mut backend = world.load(&[plan("x", "y", 100)]).expect("it loads");
    let slot = world.bind(&mut backend);
    for byte in [1, 2, 3] {
        assert_eq!(run(&world, &mut backend, &slot, byte), vec![byte; 400]);
    }
    let remark = backend.remarks().first().expect("nothing is captured on the host");
    assert!(remark.contains("runs without a graph"), "{remark}");
    assert_eq!(backend.graph_nodes(), [None]);
}

#[test]
fn stages_are_one_engine_each_and_what_passes_between_them_is_carried() {
    let mut world = World::new();
    let stages = [plan("x", "a", 64), plan("a", "y", 64)];
    let mut backend = world.load(&stages).expect("they fit together");
    let carried = backend.memory().iter().filter(|it| it.class == TensorClass::Carried).count();
    assert_eq!((carried, backend.description().stages), (1, 2));
    let kept = backend.memory().iter().find(|it| it.tensor == PERSISTENT).map(|it| it.size);
    assert_eq!(kept, Some(Bytes(2 * 5120)), "both engines stay");
    let slot = world.bind(&mut backend);
    assert_eq!(run(&world, &mut backend, &slot, 9), vec![9; 256]);
    let error = backend.enqueue(StageIndex(2), &slot, &world.stream).expect_err("there are two");
    assert!(error.to_string().contains("no stage 2"), "{error}");
    let broken = world.load(&[plan("x", "a", 64), plan("a", "y", 32)]);
    let broken = broken.map(|_| ()).expect_err("another shape");
    assert!(matches!(broken, BackendError::BrokenChain { .. }), "{broken}");
}

#[test]
fn streams_beside_the_jobs_own_are_ours_and_counted() {
    let mut world = World::new();
    let greedy = MockPlan { aux_streams: 2, ..plan("x", "y", 4) };
    let first = world.load(std::slice::from_ref(&greedy)).expect("two are left");
    let second = world.load(std::slice::from_ref(&greedy)).map(|_| ());
    assert!(matches!(second, Err(BackendError::Device(_))), "{second:?}");
    drop(first);
    world.load(&[greedy]).expect("they went with their model");
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_numbers() {
    let mut world = World::new();
    for plan in [
        MockPlan { persistent: Bytes::from_mib(2), ..plan("x", "y", 4) },
        MockPlan { scratch: Bytes::from_mib(2), ..plan("x", "y", 4) },
        plan("x", "y", 200_000),
    ] {
        let error = world.load(&[plan]).map(|_| ()).expect_err("there is one MiB");
        assert!(matches!(error, BackendError::OutOfScratch { .. }), "{error}");
    }
    world.load(&[plan("x", "y", 4)]).expect("the arena is whole");
}

#[test]
fn an_engine_that_allocates_in_its_runs_is_measured_with_it_and_then_held_to_it() {
    let mut world = World::new();
    let fault = MockFault::Allocates(Bytes(1000));
    let mut backend = world.load(&[MockPlan { fault, ..plan("x", "y", 4) }]).expect("it fits");
    let kept = backend.memory().iter().find(|it| it.tensor == PERSISTENT).map(|it| it.size);
    assert_eq!(kept, Some(Bytes(5120 + 3 * 1024)), "what three runs took");
    // One run more than was measured is one request too many.
    let (model, partition) = (ModelId::first(0), PartitionId::WHOLE);
    let tensors = backend.memory().to_vec();
    let planned = world.memory.plan(ModelMemory { model, partition, tensors }).expect("it fits");
    let error = backend.bind(world.memory.bind(planned).expect("it is free")).expect_err("four");
    let (requested, available) = (Bytes(1000), Bytes::ZERO);
    assert!(
        matches!(error, BackendError::OutOfScratch { requested: r, available: a }
            if (r, a) == (requested, available)),
        "{error}"
    );
}

#[test]
fn what_the_library_says_of_a_gpu_reaches_whoever_loads() {
    let mut world = World::new();
    let words = "The engine cannot run on this GPU, which has compute capability 9.0.";
    let fault = MockFault::Refused(words.into());
    let error = world.load(&[MockPlan { fault, ..plan("x", "y", 4) }]).map(|_| ());
    let error = error.expect_err("it is refused");
    assert!(matches!(error, BackendError::OtherDevice { .. }), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn a_binding_that_does_not_fit_is_refused_and_another_may() {
    let mut world = World::new();
    let mut backend = world.load(&[plan("x", "y", 100)]).expect("it loads");
    let (model, partition) = (ModelId::first(7), PartitionId::WHOLE);
    let mut tensors = backend.memory().to_vec();
    tensors[0].size = Bytes(256);
    let planned = world.memory.plan(ModelMemory { model, partition, tensors }).expect("it fits");
    let small = world.memory.bind(planned).expect("it is free");
    let error = backend.bind(small).expect_err("too small");
    assert_eq!(
        error.to_string(),
        "the memory binding does not fit the model: `weights` needs 5 KiB and was given 256 B"
    );
    let slot = world.bind(&mut backend);
    assert_eq!(run(&world, &mut backend, &slot, 4), vec![4; 400]);
    let early = world.load(&[plan("x", "y", 100)]).expect("it loads").enqueue(
        StageIndex(0),
        &slot,
        &world.stream,
    );
    assert!(matches!(early, Err(BackendError::BadBinding { .. })), "{early:?}");
}

#[test]
fn a_model_of_no_files_is_refused() {
    let error = World::new().load(&[]).map(|_| ()).expect_err("no stage");
    assert!(matches!(error, BackendError::BadModel { .. }), "{error}");
}

//! TensorRT on the GPU at hand: what it says of that GPU, and the run-time half of our backend.
//!
//! TensorRT-RTX runs on compute capability 7.5, 8.0, 8.6, 8.9 and from 12.0 on. On another GPU it must
//! refuse every engine, and the test is that the refusal arrives as what it is, with its words; nothing
//! is then executed by the library, and the test that would compare outputs says so. What AegisRT does
//! around the library is run with a mock of it, on any GPU.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aegis_backend_trt::mock::{MockFault, MockPlan};
use aegis_backend_trt::{BuildOptions, Gpu, LoadOptions, TrtBackend, build_engine, inspect};
use aegis_conformance::{fill, queued};
use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, RuntimeBackend};
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext};
use aegis_memory::{MemoryOrchestrator, ModelMemory};
use aegis_trace::{Bytes, ModelId, PartitionId, StageIndex};

use crate::bench::{Bench, NotRun, Outcome, require};
use crate::conformance::{Place, Verdicts, on_the_processor};
use crate::onnx;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Tensors = Vec<Vec<u8>>;

/// The compute capabilities that TensorRT-RTX 1.7 names as supported, below 12.0.
const SUPPORTED: [(u32, u32); 4] = [(7, 5), (8, 0), (8, 6), (8, 9)];
/// Why most of these tests do not run on some GPUs.
const UNSUPPORTED: &str = "the library does not run on this GPU, see the first of its tests";
/// What the library and its compiled kernels may take beside the arena.
const LIBRARIES: Bytes = Bytes::from_mib(1536);
/// How far outputs without TF32 may be from the processor's, as a share of the largest.
const TOLERANCE: f32 = 1e-3;
const REPEATS: u8 = 20;

/// A device with room for one model, and a folder for engines.
struct World {
    arena: DeviceArena,
    gpu: Gpu,
    memory: MemoryOrchestrator,
    stream: CudaStream,
    folder: PathBuf,
}

impl World {
    fn on(bench: &Bench, name: &str) -> Result<Self> {
        let device = bench.open()?;
        let left = device.memory_limit().saturating_sub(device.reserved_memory());
        let arena = device.reserve_arena(left.saturating_sub(LIBRARIES))?;
        let preparation = Arc::new(device.create_stream()?);
        let stream = device.create_stream()?;
        let memory = MemoryOrchestrator::new(arena.clone());
        let gpu = Gpu { device, arena: arena.clone(), preparation, graph: true };
        let folder = std::env::temp_dir().join(format!("aegis-trt-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self { arena, gpu, memory, stream, folder })
    }

    fn write(&self, name: &str, plan: &[u8]) -> Result<PathBuf> {
        let file = self.folder.join(name);
        std::fs::write(&file, plan)?;
        Ok(file)
    }

    fn load(&self, files: Vec<PathBuf>) -> std::result::Result<TrtBackend, BackendError> {
        let memory_limit = Bytes::from_gib(1);
        TrtBackend::load(&LoadOptions { files, memory_limit, gpu: self.gpu.clone() })
    }

    /// Binds the model; its number must be its own among those of this world.
    fn bind(&mut self, backend: &mut TrtBackend, number: u16) -> Result<Arc<JobSlot>> {
        let (model, partition) = (ModelId::first(number), PartitionId::WHOLE);
        let tensors = backend.memory().to_vec();
        let planned = self.memory.plan(ModelMemory { model, partition, tensors })?;
        backend.bind(self.memory.bind(planned)?)?;
        Ok(queued(JobSlot::on(&self.arena, backend.description())?))
    }

    fn run(
        &self,
        backend: &mut TrtBackend,
        slot: &Arc<JobSlot>,
        inputs: &Tensors,
    ) -> Result<Tensors> {
        fill(slot, inputs);
        for stage in 0..backend.description().stages {
            backend.enqueue(StageIndex(stage), slot, &self.stream)?;
            self.stream.synchronize()?;
        }
        Ok(slot.io().outputs().iter().map(|output| output.to_vec()).collect())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What stays in the system's temporary folder harms nobody.
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// The engine of a network, built here.
fn engine(file: &Path) -> Result<Vec<u8>> {
    let (workspace, compute_capabilities) = (None, Vec::new());
    let model = file.to_owned();
    let options =
        BuildOptions { model, aux_streams: 0, tf32: false, workspace, compute_capabilities };
    Ok(build_engine(&options)?.plan)
}

fn is_supported(device: &DeviceContext) -> Result<bool> {
    let found = device.capabilities().compute_capability().ok_or("no compute capability")?;
    Ok(found.major >= 12 || SUPPORTED.contains(&(found.major, found.minor)))
}

/// On a GPU that the library supports it loads; on another it is refused as that, by both ways in.
pub(crate) fn says_whether_it_runs(bench: &Bench) -> Outcome {
    let world = World::on(bench, "runs")?;
    let plan = engine(&onnx::networks()?[0])?;
    let file = world.write("a.engine", &plan)?;
    let (loaded, inspected) = (world.load(vec![file.clone()]).map(|_| ()), inspect(&file));
    if is_supported(&world.gpu.device)? {
        loaded?;
        let found = inspected?;
        return Ok(format!("{}: {:?}, scratch {}", found.runtime, found.verdict, found.scratch));
    }
    let refusals = [loaded.err(), inspected.map(|_| ()).err()];
    for refusal in &refusals {
        let told =
            refusal.as_ref().is_some_and(|it| matches!(it, BackendError::OtherDevice { .. }));
        require(told, || format!("not refused as that of another device: {refusal:?}"))?;
        let text = refusal.as_ref().map(ToString::to_string).unwrap_or_default();
        require(text.contains("compute capability"), || format!("without its words: {text}"))?;
    }
    let first = refusals.into_iter().flatten().next();
    Ok(first.map(|it| it.to_string()).unwrap_or_default())
}

/// What is damaged is told apart from what is for another GPU.
pub(crate) fn refuses_damaged_plans(bench: &Bench) -> Outcome {
    let world = World::on(bench, "damaged")?;
    let is_supported = is_supported(&world.gpu.device)?;
    let network = &onnx::networks()?[0];
    let plan = engine(network)?;
    let mut lines = Vec::new();
    let foreign = std::fs::read(network)?;
    for (name, bytes) in
        [("truncated", &plan[..plan.len() / 2]), ("foreign", &foreign), ("empty", &[])]
    {
        let file = world.write(name, bytes)?;
        let refused = match world.load(vec![file]) {
            Err(refused @ BackendError::BadModel { .. }) => refused,
            // A GPU that the library does not run on is named before the plan is looked at closely.
            Err(refused @ BackendError::OtherDevice { .. }) if !is_supported => refused,
            Err(other) => return Err(format!("{name}: {other:?}").into()),
            Ok(_) => return Err(format!("{name}: it was accepted").into()),
        };
        lines.push(format!("{name}: {refused}"));
    }
    Ok(lines.join("\n"))
}

/// The whole suite for every network of the golden set, where the library runs here.
pub(crate) fn does_what_every_backend_must(bench: &Bench) -> Outcome {
    let world = World::on(bench, "conformance")?;
    if !is_supported(&world.gpu.device)? {
        return Err(NotRun(UNSUPPORTED).into());
    }
    let mut verdicts = Verdicts::default();
    for network in onnx::networks()? {
        let name = onnx::name(&network);
        let file = world.write(&name, &engine(&network)?)?;
        let place = Place::new(bench)?;
        let (device, arena) = (place.device.clone(), place.arena.clone());
        let gpu = Gpu { device, arena, preparation: Arc::clone(&place.preparation), graph: true };
        let load = |memory_limit| -> std::result::Result<Box<dyn RuntimeBackend>, BackendError> {
            let (files, gpu) = (vec![file.clone()], gpu.clone());
            Ok(Box::new(TrtBackend::load(&LoadOptions { files, memory_limit, gpu })?))
        };
        let reference = |inputs: &Tensors| on_the_processor(&network, inputs);
        verdicts.add(format!("trt {name}"), &place, &load, &reference);
    }
    verdicts.outcome()
}

/// Every network of the golden set, where the library runs here.
pub(crate) fn outputs_are_the_processors(bench: &Bench) -> Outcome {
    let mut world = World::on(bench, "outputs")?;
    if !is_supported(&world.gpu.device)? {
        return Err(NotRun(UNSUPPORTED).into());
    }
    let mut lines = Vec::new();
    for (number, network) in (0..).zip(onnx::networks()?) {
        let name = onnx::name(&network);
        let file = world.write(&name, &engine(&network)?)?;
        let mut backend = world.load(vec![file])?;
        let slot = world.bind(&mut backend, number)?;
        let (given, expected) = onnx::on_the_processor(&network)?;
        let found = world.run(&mut backend, &slot, &given)?;
        let apart = onnx::distance(&expected, &found);
        require(apart <= TOLERANCE, || format!("{name} is {apart:.1e} apart"))?;
        for _ in 0..REPEATS {
            let again = world.run(&mut backend, &slot, &given)?;
            let repeats = again == found || !backend.remarks().is_empty();
            require(repeats, || format!("{name} differs from run to run"))?;
        }
        lines.push(format!("{name}: {apart:.1e} apart, nodes {:?}", backend.graph_nodes()));
    }
    Ok(lines.join("\n"))
}

fn mock(from: &str, to: &str) -> MockPlan {
    MockPlan {
        inputs: vec![(from.into(), vec![1, 1000])],
        outputs: vec![(to.into(), vec![1, 1000])],
        persistent: Bytes(100_000),
        scratch: Bytes(50_000),
        aux_streams: 1,
        fault: MockFault::None,
    }
}

/// Two stages, each a graph of the device's own copies, launched job after job.
pub(crate) fn mock_is_captured(bench: &Bench) -> Outcome {
    let mut world = World::on(bench, "mock")?;
    let plans = [mock("x", "a"), mock("a", "y")];
    let files =
        plans.iter().zip(["0", "1"]).map(|(plan, name)| world.write(name, &plan.to_bytes()));
    let files = files.collect::<Result<Vec<_>>>()?;
    let mut backend = world.load(files)?;
    let slot = world.bind(&mut backend, 0)?;
    require(backend.remarks().is_empty(), || format!("{:?}", backend.remarks()))?;
    let nodes = backend.graph_nodes();
    // The mock's fill and two copies, the copy of the job's input or output and the event beside it, and
    // the stage's two events.
    let all = nodes.iter().all(|nodes| nodes.is_some_and(|nodes| nodes == 7));
    require(nodes.len() == 2 && all, || format!("seven nodes each are not {nodes:?}"))?;
    for byte in 0..REPEATS {
        let given = vec![vec![byte; 4000]];
        let found = world.run(&mut backend, &slot, &given)?;
        require(found == given, || format!("job {byte} gave something else"))?;
    }
    world.gpu.graph = false;
    let plain = world.write("plain", &mock("x", "y").to_bytes())?;
    let mut plain = world.load(vec![plain])?;
    let slot = world.bind(&mut plain, 1)?;
    let given = vec![vec![7; 4000]];
    require(world.run(&mut plain, &slot, &given)? == given, || "the plain path differs".into())?;
    Ok(format!("nodes {nodes:?}; plain: {:?}", plain.remarks()))
}

/// What it keeps is what was measured; more is refused, at load, at bind and by the words of a library.
pub(crate) fn mock_is_held_to_its_memory(bench: &Bench) -> Outcome {
    let mut world = World::on(bench, "held")?;
    let big = MockPlan { persistent: Bytes::from_gib(2), ..mock("x", "y") };
    let big = world.write("big", &big.to_bytes())?;
    let refused = world.load(vec![big]).map(|_| ());
    require(matches!(refused, Err(BackendError::OutOfScratch { .. })), || format!("{refused:?}"))?;
    let grows = MockPlan { fault: MockFault::Allocates(Bytes(4096)), ..mock("x", "y") };
    let grows = world.write("grows", &grows.to_bytes())?;
    let mut grows = world.load(vec![grows])?;
    let bound = world.bind(&mut grows, 0).map(|_| ()).map_err(|error| error.to_string());
    require(bound.is_err(), || "a run more than was measured was served".into())?;
    let words = "cuda failure: out of memory";
    let fault = MockFault::Refused(words.into());
    let fails = world.write("fails", &MockPlan { fault, ..mock("x", "y") }.to_bytes())?;
    let failed = world.load(vec![fails]).map(|_| ());
    let told =
        matches!(&failed, Err(BackendError::OutOfMemory { reason }) if reason.contains(words));
    require(told, || format!("{failed:?}"))?;
    Ok(format!("{refused:?}; {bound:?}; {failed:?}"))
}

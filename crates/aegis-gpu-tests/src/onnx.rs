//! ONNX Runtime's CUDA provider: outputs, graphs, budgets, shared scratch, memory.
//!
//! The networks are those of `cargo xtask models --set golden`: the folder that `AEGIS_MODELS` names,
//! else `.aegis/models/golden`. The GPU build of the library is found as the backend finds it. Without
//! either, a test fails and says so.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aegis_backend_onnx::{Gpu, Library, LoadOptions, OnnxBackend};
use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, BusyStream, ContextError, RuntimeBackend, StreamPool};
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext, HostConfig, StageEvents, StageLengths};
use aegis_memory::{MemoryOrchestrator, ModelMemory, TensorClass, TensorLifetime};
use aegis_trace::{Bytes, ModelId, MonotonicClock, Nanos, PartitionId, StageIndex};

use crate::bench::{Bench, NotRun, Outcome, Spread, require, time};
use crate::conformance::DISTINCT;

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Tensors = Vec<Vec<u8>>;

/// What the libraries of the few models here may take beside the arena.
const LIBRARIES: Bytes = Bytes::from_mib(1536);
/// How far fp32 outputs without TF32 may be from the processor's, as a share of the largest.
const TOLERANCE: f32 = 1e-3;
const REPEATS: usize = 20;

/// A device with models on it.
struct World {
    device: DeviceContext,
    arena: DeviceArena,
    memory: MemoryOrchestrator,
    stream: CudaStream,
    gpu: Option<Gpu>,
    admitted: u16,
}

struct Model {
    backend: OnnxBackend,
    slot: Arc<JobSlot>,
}

impl World {
    fn on_gpu(bench: &Bench) -> Result<Self> {
        Library::for_gpu()?; // Before any test asks for the processor's.
        let device = bench.open()?;
        let left = device.memory_limit().saturating_sub(device.reserved_memory());
        let arena = device.reserve_arena(left.saturating_sub(LIBRARIES))?;
        let gpu = Gpu {
            device: device.clone(),
            ordinal: 0,
            arena: arena.clone(),
            preparation: Arc::new(device.create_stream()?),
            tf32: false,
            graph: true,
        };
        Self::new(device, arena, Some(gpu))
    }

    fn on_processor() -> Result<Self> {
        let memory_limit = Bytes::from_gib(1);
        let (spin, clock) = (Nanos::ZERO, MonotonicClock::start());
        let (max_streams, stream_depth) = (1, 16);
        let config = HostConfig { memory_limit, max_streams, stream_depth, spin, clock };
        let device = DeviceContext::host(config)?;
        let arena = device.reserve_arena(memory_limit)?;
        Self::new(device, arena, None)
    }

    fn new(device: DeviceContext, arena: DeviceArena, gpu: Option<Gpu>) -> Result<Self> {
        let memory = MemoryOrchestrator::new(arena.clone());
        let stream = device.create_stream()?;
        Ok(Self { device, arena, memory, stream, gpu, admitted: 0 })
    }

    fn load(
        &self,
        file: &Path,
        memory_limit: Bytes,
    ) -> std::result::Result<OnnxBackend, BackendError> {
        self.load_stages(vec![file.to_owned()], memory_limit)
    }

    fn load_stages(
        &self,
        files: Vec<PathBuf>,
        memory_limit: Bytes,
    ) -> std::result::Result<OnnxBackend, BackendError> {
        let gpu = self.gpu.clone();
        OnnxBackend::load(&LoadOptions { files, threads: 1, memory_limit, gpu })
    }

    fn admit(&mut self, file: &Path) -> Result<Model> {
        let backend = self.load(file, Bytes::from_gib(1))?;
        self.bind(backend)
    }

    fn bind(&mut self, mut backend: OnnxBackend) -> Result<Model> {
        let (model, partition) = (ModelId::first(self.admitted), PartitionId::WHOLE);
        self.admitted += 1;
        let tensors = backend.memory().to_vec();
        let planned = self.memory.plan(ModelMemory { model, partition, tensors })?;
        backend.bind(self.memory.bind(planned)?)?;
        let slot = Arc::new(JobSlot::on(&self.arena, backend.description())?);
        require(slot.claim(), || "a new slot is taken".into())?;
        slot.queue(); // Its jobs are enqueued by hand, and waited for.
        Ok(Model { backend, slot })
    }

    fn run(&self, model: &mut Model, inputs: &Tensors) -> Result<Tensors> {
        model.slot.unqueue();
        for (index, bytes) in inputs.iter().enumerate() {
            model.slot.write_input(index, bytes);
        }
        model.slot.queue();
        let mut io = model.slot.io();
        (0..io.outputs().len()).for_each(|index| io.output_mut(index).fill(0xa5));
        drop(io);
        for stage in 0..model.backend.description().stages {
            model.backend.enqueue(StageIndex(stage), &model.slot, &self.stream)?;
            self.stream.synchronize()?;
        }
        Ok(model.slot.io().outputs().iter().map(|output| output.to_vec()).collect())
    }
}

/// The whole networks of the golden set, in order of their names.
pub(crate) fn networks() -> Result<Vec<PathBuf>> {
    let folder = std::env::var_os("AEGIS_MODELS")
        .map_or_else(|| PathBuf::from(".aegis/models/golden"), PathBuf::from);
    let folder = std::fs::read_dir(&folder).map_err(|error| {
        format!("{}: {error}; run `cargo xtask models --set golden`", folder.display())
    })?;
    let mut files: Vec<PathBuf> =
        folder.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    let is_whole = |file: &PathBuf| {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.ends_with(".onnx") && !name.contains(".stage"))
    };
    files.retain(is_whole);
    files.sort_unstable();
    require(!files.is_empty(), || "the folder has no network".into())?;
    Ok(files)
}

fn inputs(model: &Model, seed: u32) -> Tensors {
    aegis_conformance::inputs(&model.backend.description().inputs, &DISTINCT, seed)
}

/// The largest difference as a share of the largest value.
pub(crate) fn distance(one: &Tensors, other: &Tensors) -> f32 {
    let floats = |bytes: &Tensors| -> Vec<f32> {
        let float = |it: &[u8]| f32::from_le_bytes(it.try_into().expect("four bytes"));
        bytes.iter().flat_map(|bytes| bytes.chunks_exact(4).map(float)).collect()
    };
    let (one, other) = (floats(one), floats(other));
    let largest = one.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let apart = |(a, b): (&f32, &f32)| {
        let apart = (a - b).abs() / largest;
        if apart.is_nan() { f32::INFINITY } else { apart }
    };
    one.iter().zip(&other).map(apart).fold(0.0, f32::max)
}

pub(crate) fn name(file: &Path) -> String {
    file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// Inputs for the network in `file`, and what the processor makes of them.
#[cfg(feature = "trt")]
pub(crate) fn on_the_processor(file: &Path) -> Result<(Tensors, Tensors)> {
    Library::for_gpu()?; // The one that the other tests use: a process has one.
    let mut processor = World::on_processor()?;
    let mut model = processor.admit(file)?;
    let given = inputs(&model, 7);
    let expected = processor.run(&mut model, &given)?;
    Ok((given, expected))
}

pub(crate) fn outputs_are_the_processors(bench: &Bench) -> Outcome {
    let (mut gpu, mut processor) = (World::on_gpu(bench)?, World::on_processor()?);
    let mut lines = Vec::new();
    for file in networks()? {
        let (mut here, mut there) = (gpu.admit(&file)?, processor.admit(&file)?);
        let (given, others) = (inputs(&here, 7), inputs(&here, 8));
        let expected = processor.run(&mut there, &given)?;
        let found = gpu.run(&mut here, &given)?;
        let apart = distance(&expected, &found);
        let name = name(&file);
        require(apart <= TOLERANCE, || {
            format!("{name} differs by {apart:.1e} of the largest value")
        })?;
        for _ in 0..REPEATS {
            let other = gpu.run(&mut here, &others)?;
            let told_apart = given == others || other != found; // Token ids are all ones.
            require(told_apart, || format!("{name} gives the same for other inputs"))?;
            let again = gpu.run(&mut here, &given)?;
            let repeats = !here.backend.remarks().is_empty() || again == found;
            require(repeats, || format!("{name} differs from run to run"))?;
        }
        lines.push(format!(
            "{name}: {apart:.1e} apart, nodes {:?}, libraries {}, {:?}",
            here.backend.graph_nodes(),
            here.backend.foreign_memory(),
            here.backend.remarks()
        ));
    }
    Ok(lines.join("\n"))
}

pub(crate) fn models_share_scratch(bench: &Bench) -> Outcome {
    let mut gpu = World::on_gpu(bench)?;
    let mut models = Vec::new();
    for file in networks()? {
        let mut model = gpu.admit(&file)?;
        let given = inputs(&model, 3);
        let outputs = gpu.run(&mut model, &given)?;
        models.push((name(&file), model, given, outputs));
    }
    for stride in [1, 2, 3] {
        for step in 0..models.len() {
            let at = step * stride % models.len();
            let (name, model, given, expected) = &mut models[at];
            let outputs = gpu.run(model, given)?;
            let apart = distance(expected, &outputs);
            let same =
                outputs == *expected || !model.backend.remarks().is_empty() && apart <= TOLERANCE;
            require(same, || format!("{name} after another model: {apart:.1e} apart"))?;
        }
    }
    let usage = gpu.memory.current_usage();
    Ok(format!("{} models, {} resident, {} scratch", models.len(), usage.resident, usage.scratch))
}

pub(crate) fn model_over_budget_is_refused(bench: &Bench) -> Outcome {
    let gpu = World::on_gpu(bench)?;
    let mut lines = Vec::new();
    for file in networks()? {
        let refused = match gpu.load(&file, Bytes::from_kib(1)) {
            Err(refused @ BackendError::OutOfScratch { .. }) => refused,
            Err(other) => return Err(other.into()),
            Ok(_) => return Err(format!("{} fits a KiB", name(&file)).into()),
        };
        lines.push(format!("{}: {refused}", name(&file)));
    }
    // The device is whole: the same models load where there is room.
    let first = &networks()?[0];
    gpu.load(first, Bytes::from_gib(1))?;
    Ok(lines.join("\n"))
}

/// A model is refused for scratch that exceeds all it may have: no kernel ran on the address that it
/// did not get, or the device would be lost for all that follows; and no call that failed meanwhile is
/// held against what the same thread loads next, which is the same model where there is room.
pub(crate) fn beyond_the_range(bench: &Bench) -> Outcome {
    let mut gpu = World::on_gpu(bench)?;
    let (mut lines, mut sound) = (Vec::new(), None);
    for file in networks()? {
        let needs = gpu.load(&file, Bytes::from_gib(1))?;
        let (stays, scratch): (Vec<_>, Vec<_>) =
            needs.memory().iter().partition(|it| it.class != TensorClass::Scratch);
        let sum = |tensors: &[&TensorLifetime]| tensors.iter().map(|it| it.size).sum::<Bytes>();
        let (stays, scratch) = (sum(&stays), sum(&scratch));
        drop(needs);
        // What is left once weights and tensors are placed is less than any one request of scratch.
        let limit = stays.saturating_sub(Bytes::from_kib(256));
        match gpu.load(&file, limit) {
            Err(BackendError::OutOfScratch { requested, available }) => lines.push(format!(
                "{}: {requested} with {available} left, of {scratch} scratch in all",
                name(&file)
            )),
            Err(other) => return Err(other.into()),
            Ok(_) => sound = Some(name(&file)), // The slack of its weights was enough.
        }
        gpu.load(&file, Bytes::from_gib(1))?;
    }
    require(!lines.is_empty(), || format!("no model was refused, {sound:?} neither"))?;
    // Work of a healthy model, on the same streams and in the same memory.
    let mut model = gpu.admit(&networks()?[0])?;
    let given = inputs(&model, 11);
    let first = gpu.run(&mut model, &given)?;
    let again = gpu.run(&mut model, &given)?;
    require(distance(&first, &again) <= TOLERANCE, || "its outputs changed".into())?;
    Ok(lines.join("\n"))
}

pub(crate) fn faulty_model_is_refused(bench: &Bench) -> Outcome {
    let gpu = World::on_gpu(bench)?;
    let file = std::env::temp_dir().join(format!("aegis-faulty-{}.onnx", std::process::id()));
    std::fs::write(&file, b"this is no network")?;
    let answer = gpu.load(&file, Bytes::from_gib(1));
    std::fs::remove_file(&file)?;
    match answer {
        Err(refused @ BackendError::BadModel { .. }) => Ok(refused.to_string()),
        Err(other) => Err(other.into()),
        Ok(_) => Err("it was accepted".into()),
    }
}

pub(crate) fn plain_path_gives_the_same(bench: &Bench) -> Outcome {
    let mut gpu = World::on_gpu(bench)?;
    let file = &networks()?[0];
    let mut captured = gpu.admit(file)?;
    let given = inputs(&captured, 5);
    let expected = gpu.run(&mut captured, &given)?;
    gpu.gpu.as_mut().expect("it is on a GPU").graph = false;
    let mut plain = gpu.admit(file)?;
    require(plain.backend.graph_nodes() == [None], || "it was captured".into())?;
    let found = gpu.run(&mut plain, &given)?;
    require(distance(&expected, &found) <= TOLERANCE, || "the plain path differs".into())?;
    Ok(format!("{:?}", plain.backend.remarks()))
}

/// A stage that ONNX Runtime runs itself, on a stream of its own, lies between its two events whole:
/// also one in the middle of its job, which copies nothing.
pub(crate) fn plain_stages_are_timed_whole(bench: &Bench) -> Outcome {
    let mut gpu = World::on_gpu(bench)?;
    gpu.gpu.as_mut().expect("it is on a GPU").graph = false;
    let folder = networks()?[0].parent().ok_or("the networks have a folder")?.to_owned();
    let stages = (0..3).map(|stage| folder.join(format!("unet.stage{stage}.onnx"))).collect();
    let backend = gpu.load_stages(stages, Bytes::from_gib(1))?;
    let mut model = gpu.bind(backend)?;
    let events = StageEvents::on(&gpu.device)?;
    let mut lines = Vec::new();
    for round in 0..2 {
        for stage in 0..3 {
            let (slot, backend) = (&model.slot, &mut model.backend);
            let took = time(|| {
                let enqueue =
                    |stream: &CudaStream| backend.enqueue(StageIndex(stage), slot, stream);
                Ok(gpu.stream.between(&events, enqueue)?)
            })?;
            events.ended().synchronize()?;
            let StageLengths { whole: measured, upload, download } = events.lengths()?;
            let (copies_in, copies_out) = (upload > Nanos::ZERO, download > Nanos::ZERO);
            require((copies_in, copies_out) == (stage == 0, stage == 2), || {
                format!("stage {stage} copied for {upload} and {download}")
            })?;
            let copies = upload.saturating_add(download);
            require(copies < measured, || format!("{copies} of {measured} in stage {stage}"))?;
            // Behind the second event only the call's return is left, before the first its entry.
            require(measured * 2 >= took, || {
                format!("stage {stage} took {took} on the thread and {measured} by its events")
            })?;
            lines.extend((round == 1).then(|| format!("stage {stage}: {measured} of {took}")));
        }
    }
    Ok(lines.join("\n"))
}

/// Jobs in each round of [`uploads_ahead`].
const JOBS: usize = 1000;
/// Inputs that the jobs of a network take turns with.
const SEEDS: u32 = 4;

/// A network with slots of its own, and what it gives for each of its inputs.
struct Rival {
    backend: OnnxBackend,
    slots: [Arc<JobSlot>; 2],
    given: Vec<Tensors>,
    expected: Vec<Tensors>,
}

impl Rival {
    fn on(gpu: &mut World, file: &Path) -> Result<Self> {
        let mut model = gpu.admit(file)?;
        let given: Vec<Tensors> = (1..=SEEDS).map(|seed| inputs(&model, seed)).collect();
        let expected: Vec<Tensors> =
            given.iter().map(|given| gpu.run(&mut model, given)).collect::<Result<_>>()?;
        require(distance(&expected[0], &expected[1]) > TOLERANCE, || {
            format!("{}: its outputs do not tell its inputs apart", file.display())
        })?;
        let another = Arc::new(JobSlot::on(&gpu.arena, model.backend.description())?);
        require(another.claim(), || "a new slot is taken".into())?;
        another.queue();
        Ok(Self { backend: model.backend, slots: [model.slot, another], given, expected })
    }

    /// Puts job `number` behind the one that runs, its inputs ahead of it or not.
    fn launch(
        &mut self,
        number: usize,
        running: Option<&BusyStream>,
        pool: &Arc<StreamPool>,
    ) -> Result<BusyStream> {
        let slot = &self.slots[number % 2];
        slot.unqueue();
        for (index, bytes) in self.given[number % self.given.len()].iter().enumerate() {
            slot.write_input(index, bytes);
        }
        slot.queue();
        let (first, failed) = (StageIndex(0), ContextError::from);
        let backend = &mut self.backend;
        let whole = |backend: &mut OnnxBackend, stream: &CudaStream| {
            backend.enqueue(first, slot, stream).map_err(failed)
        };
        let Some(running) = running else {
            return Ok(pool.lease()?.launch_job(slot, |stream| whole(backend, stream))?);
        };
        // Now and then within, so that copies are left out and made again.
        if number.is_multiple_of(5) {
            return Ok(running.launch_job_behind(slot, |stream| whole(backend, stream))?);
        }
        let ahead = backend.uploads_ahead().ok_or("its inputs cannot go ahead")?;
        let uploaded =
            running.upload_behind(slot, |stream| ahead.upload(slot, stream).map_err(failed))?;
        Ok(uploaded.launch(|stream| ahead.enqueue_uploaded(slot, stream).map_err(failed))?)
    }

    fn check(&self, number: usize) -> Result<()> {
        let io = self.slots[number % 2].io();
        let found: Tensors = io.outputs().iter().map(|output| output.to_vec()).collect();
        let apart = distance(&self.expected[number % self.given.len()], &found);
        require(apart <= TOLERANCE, || format!("job {number} is {apart} from its own outputs"))
    }
}

/// Two networks whose jobs follow each other on one stream, each job's inputs copied beside the stage
/// before it: every job gets the outputs of its own inputs.
pub(crate) fn uploads_ahead(bench: &Bench) -> Outcome {
    let mut gpu = World::on_gpu(bench)?;
    let mut rivals: Vec<Rival> = Vec::new();
    for file in networks()? {
        // One that does not tell its inputs apart would show nothing.
        let Ok(mut rival) = Rival::on(&mut gpu, &file) else { continue };
        // One that cannot be captured copies within its stage.
        let is_whole = rival.backend.description().stages == 1;
        if is_whole && rival.backend.uploads_ahead().is_some() {
            rivals.push(rival);
        }
    }
    require(rivals.len() >= 2, || format!("{} networks will do", rivals.len()))?;
    let pool = StreamPool::uploading_ahead(&gpu.device, 1)?;
    let count = rivals.len();
    let mut running: Option<(BusyStream, usize, usize)> = None;
    let (mut ahead, mut gaps, mut within, mut ended) = (vec![], vec![], vec![], None);
    for job in 0..=JOBS {
        let next = if job < JOBS {
            let (place, number) = (job % count, job / count);
            let before = running.as_ref().map(|(busy, ..)| busy);
            Some((rivals[place].launch(number, before, &pool)?, place, number))
        } else {
            None
        };
        if let Some((busy, place, number)) = running.take() {
            let told = busy.wait()?;
            drop(busy);
            rivals[place].check(number)?;
            let gap = told.started.saturating_since(ended.unwrap_or(told.started));
            match told.ahead {
                Nanos::ZERO => within.push(gap),
                length => {
                    ahead.push(length);
                    gaps.push(gap);
                }
            }
            ended = Some(told.finished);
        }
        running = next;
    }
    let most = ahead.len() * 10 >= JOBS * 7;
    require(most, || format!("of {JOBS} jobs the inputs of {} went ahead", ahead.len()))?;
    let jobs = ahead.len();
    let [ahead, gaps, within] = [ahead, gaps, within].map(Spread::of);
    Ok(format!(
        "{JOBS} jobs of {count} networks, the inputs of {jobs} ahead, each {ahead}\n  from the seen end of \
         a stage to the next: {gaps} ahead, {within} within"
    ))
}

pub(crate) fn memory_stays_within_the_limit(bench: &Bench) -> Outcome {
    let mut gpu = World::on_gpu(bench)?;
    let models: Vec<Model> =
        networks()?.iter().map(|file| gpu.admit(file)).collect::<Result<_>>()?;
    let (ledger, limit) = (gpu.device.memory_use(), gpu.device.memory_limit());
    let Some(counted) = gpu.device.driver_memory().and_then(|memory| memory.process) else {
        return Err(NotRun("the driver does not count the memory of this process").into());
    };
    require(counted <= limit, || format!("{counted} of {limit}"))?;
    Ok(format!("{} models: {ledger:?}, the driver counts {counted} of {limit}", models.len()))
}

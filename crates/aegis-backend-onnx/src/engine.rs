//! A model of one or several ONNX files: load, describe, bind, execute.
//!
//! Loading makes the sessions and runs them a few times in a measuring range, which gives the
//! model's requirements: what it keeps in the heap, and the highest scratch address its runs
//! touched. The measured inputs are zeros: a model whose intermediate tensors depend on the values
//! of its inputs (a loop, a selection) may need more for others, and is then stopped at its limit,
//! as any model is that asks for more than it declared. Admission then plans the memory, and
//! [`OnnxBackend::bind`](RuntimeBackend::bind) binds inputs and outputs to the planned buffers, and
//! scratch to the planned region.
//!
//! # Stages
//! Each file is one stage. A tensor one stage gives and a later one takes, by name, is *carried*;
//! an input no earlier stage gives is an input of the model; an output no later stage takes is an
//! output of the model.
//!
//! # Invariants
//! 1. Every session is dropped before the buffers and the scratch it was bound to.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_backend_gpu::Prepared;
use aegis_context::chain::Chain;
use aegis_context::foreign::Holding;
use aegis_context::host_stage::{HostStage, Program};
use aegis_context::named::{Declared, Named};
use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, ModelDescription, RuntimeBackend, TensorSpec, UploadsAhead};
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext, SimConfig};
use aegis_memory::{Lifespan, MemoryBinding, TensorClass, TensorLifetime};
use aegis_trace::{Bytes, StageIndex};

use crate::ffi::{Binding, Place, ScratchRange};
use crate::gpu::bound::Sessions;
use crate::gpu::{self, Gpu};
use crate::heap;
use crate::library::Library;
use crate::session::{self, LoadedStage};
use crate::tensors::{ALIGNMENT, FIRST_NAMED, PERSISTENT, ROOM, SCRATCH, chain_of, place_of};

/// Runs in the measuring range: the first teaches ONNX Runtime the sizes, the later ones use what
/// it learnt; both patterns count.
const MEASURING_RUNS: usize = 3;

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The model's file, or the files of its stages in order.
    pub files: Vec<PathBuf>,
    /// Threads an operator may use; one is the deterministic choice, and zero counts as one.
    pub threads: u16,
    /// What the scratch of the model may grow to while it is measured.
    pub memory_limit: Bytes,
    /// The GPU it is to run on; `None` for the processor.
    pub gpu: Option<Gpu>,
}

/// One model on ONNX Runtime.
pub struct OnnxBackend {
    library: &'static Library,
    chain: Chain,
    description: ModelDescription,
    memory: Vec<TensorLifetime>,
    state: State,
    /// What its libraries took of a GPU when it was bound. Declared after the state, which goes first.
    foreign: Option<Holding>,
    /// What they took when it was measured and keep for ever: charged as long as the device is open.
    modules: Bytes,
}

/// Before and after the memory is known.
enum State {
    Loaded(Vec<LoadedStage>),
    Bound(Vec<Arc<HostStage<Run>>>),
    /// On a GPU the sessions are made again where the model is bound.
    MeasuredOnGpu {
        files: Vec<PathBuf>,
        gpu: Box<Gpu>,
        plain: Option<String>,
    },
    BoundOnGpu(Box<Prepared<Sessions>>),
}

impl OnnxBackend {
    /// Loads a model and measures what it needs. Blocks for as long as the runtime takes to
    /// optimise the graph, plus three runs; allocates. Other threads that allocate meanwhile blur
    /// the measurement of the heap.
    ///
    /// # Errors
    /// [`BackendError`]: `Library`, `File`, `BadModel`, `DynamicShape`, `UnsupportedType`,
    /// `BrokenChain`, or `OutOfScratch` when a run needs more than the limit; all Permanent.
    pub fn load(options: &LoadOptions) -> Result<Self, BackendError> {
        if options.files.is_empty() {
            let (path, reason) = ("a model of no files".into(), "it has no stage".into());
            return Err(BackendError::BadModel { path, reason });
        }
        if let Some(gpu) = &options.gpu {
            return Self::load_on_gpu(options, gpu);
        }
        let library = Library::get()?;
        let before = heap::in_use();
        let load = |file: &PathBuf| session::load(library, file, options.threads, None);
        let stages: Vec<LoadedStage> = options.files.iter().map(load).collect::<Result<_, _>>()?;
        let chain = chain_of(&stages)?;
        let description = chain.description();
        let state = State::Loaded(Vec::new());
        let (memory, foreign, modules) = (Vec::new(), None, Bytes::ZERO);
        let mut backend = Self { library, chain, description, memory, state, foreign, modules };
        let (stages, scratch) = backend.measure(stages, options.memory_limit)?;
        let kept = heap::in_use().saturating_sub(before).max(size_of(&options.files)?);
        backend.memory = backend.requirements(kept, scratch);
        backend.state = State::Loaded(stages);
        Ok(backend)
    }

    fn load_on_gpu(options: &LoadOptions, gpu: &Gpu) -> Result<Self, BackendError> {
        let library = Library::for_gpu()?;
        let measured = gpu::load::measure(library, &options.files, options.memory_limit, gpu)?;
        let gpu::load::Measured { chain, weights, scratch, modules, plain } = measured;
        let description = chain.description();
        let (files, gpu) = (options.files.clone(), Box::new(gpu.clone()));
        let state = State::MeasuredOnGpu { files, gpu, plain };
        let (memory, foreign) = (Vec::new(), None);
        let mut backend = Self { library, chain, description, memory, state, foreign, modules };
        backend.memory = backend.requirements(weights, scratch);
        Ok(backend)
    }

    fn bind_on_gpu(&mut self, mut binding: MemoryBinding) -> Result<(), BackendError> {
        let declared = Declared(&self.memory);
        declared.scratch(SCRATCH, &binding)?;
        let named = declared.named(&self.chain, FIRST_NAMED, &mut binding)?;
        let weights = declared.buffer(PERSISTENT, "weights", &mut binding)?;
        let State::MeasuredOnGpu { files, gpu, plain } = &self.state else {
            unreachable!("the caller saw that it is measured");
        };
        let (library, chain, plain) = (self.library, &self.chain, plain.clone());
        let request = gpu::bound::Request { library, files, gpu, chain, plain };
        let memory = aegis_backend_gpu::Memory::bound(named, binding, SCRATCH, Some(weights));
        let mut prepared = gpu::bound::prepare(&request, memory)?;
        self.foreign = prepared.take_foreign();
        self.state = State::BoundOnGpu(Box::new(prepared));
        Ok(())
    }

    /// The nodes of each stage's graph: none for a stage without a graph, and no stages before the
    /// model is bound on a GPU.
    #[must_use]
    pub fn graph_nodes(&self) -> Vec<Option<usize>> {
        match &self.state {
            State::BoundOnGpu(prepared) => prepared.nodes(),
            State::Loaded(_) | State::Bound(_) | State::MeasuredOnGpu { .. } => Vec::new(),
        }
    }

    /// Runs `stages` in memory of their own; gives them back with the scratch they need.
    fn measure(
        &self,
        stages: Vec<LoadedStage>,
        limit: Bytes,
    ) -> Result<(Vec<LoadedStage>, Bytes), BackendError> {
        let named = private_buffers(&self.chain.lifetimes(FIRST_NAMED, ROOM))?;
        let scratch = ScratchRange::to_measure(limit).map_err(BackendError::runtime)?;
        let memory = Arc::new(Mutex::new(Memory { named, scratch }));
        let mut runs = self.bind_stages(stages, &memory)?;
        for _ in 0..MEASURING_RUNS {
            for run in &mut runs {
                run.run(&mut lock(&memory))?;
            }
        }
        let needed = lock(&memory).scratch.high_water();
        // The sessions outlive this memory, of which they kept nothing: a run that keeps some is an
        // error.
        Ok((runs.into_iter().map(Run::into_loaded).collect(), needed))
    }

    /// The furthest end of any block of scratch in the runs since the model was bound; zero before.
    /// For tests and diagnosis: blocks while a stage runs.
    #[must_use]
    pub fn scratch_used(&self) -> Bytes {
        match &self.state {
            State::Loaded(_) | State::MeasuredOnGpu { .. } => Bytes::ZERO,
            State::Bound(stages) => stages[0].memory().scratch.high_water(),
            State::BoundOnGpu(prepared) => prepared.programs().scratch_used(),
        }
    }

    /// The lifetimes of everything: the two totals first, then every tensor with a name.
    fn requirements(&self, kept: Bytes, scratch: Bytes) -> Vec<TensorLifetime> {
        let span = Lifespan::new(0, u32::from(self.description.stages)).expect("a stage at least");
        let total = |tensor, class, size| TensorLifetime {
            tensor,
            class,
            span,
            size,
            alignment: ALIGNMENT,
        };
        let mut all = vec![total(PERSISTENT, TensorClass::Persistent, kept)];
        if scratch > Bytes::ZERO {
            all.push(total(SCRATCH, TensorClass::Scratch, scratch));
        }
        all.extend(self.chain.lifetimes(FIRST_NAMED, ROOM));
        all
    }

    /// Binds every stage to `memory`, which holds the named tensors in the chain's order.
    fn bind_stages(
        &self,
        stages: Vec<LoadedStage>,
        memory: &Arc<Mutex<Memory>>,
    ) -> Result<Vec<Run>, BackendError> {
        let bind = |(index, stage): (usize, LoadedStage)| {
            let LoadedStage { file, session, inputs, outputs } = stage;
            let binding = {
                let owner: Arc<dyn Send + Sync> = Arc::<Mutex<Memory>>::clone(memory);
                let held = lock(memory);
                let takes = self.places(&self.chain.takes[index], &held)?;
                let gives = self.places(&self.chain.gives[index], &held)?;
                {
                    let kind = self.library.environment().cpu_memory();
                    Binding::new(kind, session, owner, &takes, &gives)
                        .map_err(BackendError::runtime)?
                }
            };
            Ok(Run { binding, file, inputs, outputs })
        };
        stages.into_iter().enumerate().map(bind).collect()
    }

    fn places<'a>(
        &'a self,
        tensors: &[usize],
        memory: &'a Memory,
    ) -> Result<Vec<Place<'a>>, BackendError> {
        let place = |index: &usize| {
            let name = &self.chain.tensors[*index].spec.name;
            place_of(
                &self.chain,
                *index,
                memory.named[*index].place(name, |id| memory.scratch.region(id))?,
            )
        };
        tensors.iter().map(place).collect()
    }
}

/// Before the fields go, in their order.
impl Drop for OnnxBackend {
    fn drop(&mut self) {
        if let Some(foreign) = &mut self.foreign {
            foreign.leave();
        }
    }
}

impl RuntimeBackend for OnnxBackend {
    fn runtime_name(&self) -> String {
        format!("onnxruntime {}", self.library.version())
    }

    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn memory(&self) -> &[TensorLifetime] {
        &self.memory
    }

    fn foreign_memory(&self) -> Bytes {
        self.modules + self.foreign.as_ref().map_or(Bytes::ZERO, Holding::bytes)
    }

    fn remarks(&self) -> &[String] {
        match &self.state {
            State::BoundOnGpu(prepared) => prepared.remarks(),
            State::Loaded(_) | State::Bound(_) | State::MeasuredOnGpu { .. } => &[],
        }
    }

    fn bind(&mut self, mut binding: MemoryBinding) -> Result<(), BackendError> {
        if let State::MeasuredOnGpu { .. } = &self.state {
            return self.bind_on_gpu(binding);
        }
        let State::Loaded(stages) = &mut self.state else {
            return Err(BackendError::BadBinding { reason: "the model is bound already".into() });
        };
        if stages.is_empty() {
            return Err(BackendError::BadBinding { reason: "an earlier binding failed".into() });
        }
        let stages = std::mem::take(stages);
        let declared = Declared(&self.memory);
        let taken = declared
            .scratch(SCRATCH, &binding)
            .map(drop)
            .and_then(|()| declared.named(&self.chain, FIRST_NAMED, &mut binding));
        let named = match taken {
            Ok(named) => named,
            Err(unfit) => {
                self.state = State::Loaded(stages); // Another binding may fit.
                return Err(unfit);
            }
        };
        let scratch = ScratchRange::in_binding(binding, SCRATCH).map_err(BackendError::runtime)?;
        let memory = Arc::new(Mutex::new(Memory { named, scratch }));
        let runs = self.bind_stages(stages, &memory)?;
        self.state = State::Bound(HostStage::all(&self.chain, runs, &memory));
        Ok(())
    }

    fn enqueues_behind(&self) -> bool {
        match &self.state {
            State::BoundOnGpu(prepared) => prepared.is_captured(),
            _ => true, // A host stream's worker waits, not who enqueues.
        }
    }

    fn uploads_ahead(&mut self) -> Option<&mut dyn UploadsAhead> {
        match &mut self.state {
            State::BoundOnGpu(prepared) => prepared.uploads_ahead(),
            _ => None, // On a host the processor copies.
        }
    }

    fn enqueue(
        &mut self,
        stage: StageIndex,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        if let State::BoundOnGpu(prepared) = &mut self.state {
            return prepared.enqueue(stage, slot, stream);
        }
        let State::Bound(stages) = &self.state else {
            return Err(BackendError::BadBinding { reason: "the model is not bound".into() });
        };
        HostStage::enqueue(stages, stage, slot, stream)
    }
}

/// What the stages of a model share on the processor.
struct Memory {
    /// The tensors with a name, in the chain's order.
    named: Vec<Named>,
    /// Also keeps the regions of shared tensors.
    scratch: ScratchRange,
}

/// A bound session with what is needed to unbind it again.
struct Run {
    binding: Binding,
    file: PathBuf,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Run {
    fn into_loaded(self) -> LoadedStage {
        let Self { binding, file, inputs, outputs } = self;
        LoadedStage { file, session: binding.into_session(), inputs, outputs }
    }
}

impl Program for Run {
    type Memory = Memory;

    fn named(memory: &mut Memory) -> &mut [Named] {
        &mut memory.named
    }

    fn run(&mut self, memory: &mut Memory) -> Result<(), BackendError> {
        self.binding.run(&mut memory.scratch).map_err(BackendError::runtime)?.accept()
    }
}

/// Buffers outside the device's arena, to measure in.
fn private_buffers(named: &[TensorLifetime]) -> Result<Vec<Named>, BackendError> {
    let mut end = 0u64;
    let mut ranges = Vec::with_capacity(named.len());
    for lifetime in named {
        ranges.push(end..end.saturating_add(lifetime.size.0));
        let aligned = ranges
            .last()
            .and_then(|range: &std::ops::Range<u64>| range.end.checked_next_multiple_of(ALIGNMENT));
        end = aligned.ok_or_else(|| {
            BackendError::runtime(format!("no memory holds {} more", lifetime.size))
        })?;
    }
    // A simulated device is memory without workers.
    let memory_limit = Bytes(end);
    let device = DeviceContext::sim(SimConfig { memory_limit, max_streams: 1, stream_depth: 1 })?;
    let arena: DeviceArena = device.reserve_arena(memory_limit)?;
    let own = |range| Ok(Named::Own(arena.buffer(range)?));
    ranges.into_iter().map(own).collect()
}

fn size_of(files: &[PathBuf]) -> Result<Bytes, BackendError> {
    let size = |file: &PathBuf| match fs::metadata(file) {
        Ok(metadata) => Ok(Bytes(metadata.len())),
        Err(cause) => Err(BackendError::File { path: file.display().to_string(), cause }),
    };
    files.iter().map(size).sum()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A model of one or several compiled modules: load, describe, bind, execute.
//!
//! Loading reads the manifests, makes a virtual machine for each module and runs the model a few times
//! in memory of its own. That gives its requirements: the weights are known, and what the machines
//! allocate is the highest scratch address of any run. Admission then plans the memory, and
//! [`TvmBackend::bind`](RuntimeBackend::bind) puts weights, inputs, outputs and scratch where the plan
//! says. From then on a run that asks for more than was measured ends as that model's fault.
//!
//! The measured inputs are small fractions and ones. What a machine allocates depends on shapes, and all
//! shapes are static, so it does not depend on them.
//!
//! # Stages
//! Each module is one stage, linked by the names of tensors as in `aegis_context::chain`.
//!
//! # Invariants
//! 1. Every program is dropped before the memory it was made in.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aegis_backend_gpu::Prepared;
use aegis_context::chain::Chain;
use aegis_context::foreign::Holding;
use aegis_context::host_stage::HostStage;
use aegis_context::named::Declared;
use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, ModelDescription, RuntimeBackend, UploadsAhead};
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext, SimConfig};
use aegis_memory::{Lifespan, MemoryBinding, TensorClass, TensorLifetime};
use aegis_trace::{Bytes, StageIndex};

use crate::ffi::{Module, Program, ScratchRange, heap_in_use};
use crate::files::{Files, load_module};
use crate::gpu::bound::Machines;
use crate::gpu::{self, Gpu};
use crate::library::Library;
use crate::manifest::{Machine, Manifest};
use crate::place::{self, Memory};
use crate::tensors::{ALIGNMENT, FIRST_NAMED, HEAP, ROOM, SCRATCH, WEIGHTS};

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The model's module, or the modules of its stages in order: `NAME.so`, each with its manifest
    /// `NAME.json` beside it.
    pub files: Vec<PathBuf>,
    /// What the model may take while it is measured.
    pub memory_limit: Bytes,
    /// The GPU it is to run on; `None` for the processor.
    pub gpu: Option<Gpu>,
}

/// One model on TVM.
pub struct TvmBackend {
    chain: Chain,
    manifests: Vec<Manifest>,
    description: ModelDescription,
    memory: Vec<TensorLifetime>,
    state: State,
    gpu: Option<Gpu>,
    interface: String,
    /// What its libraries took of a GPU and keep. Declared after the state, which goes first.
    foreign: Option<Holding>,
}

/// Before and after the memory is known.
enum State {
    Loaded(Vec<Module>),
    Bound(Vec<Arc<HostStage<Program>>>),
    BoundOnGpu(Box<Prepared<Machines>>),
}

impl TvmBackend {
    /// Loads a model and measures what it needs. Blocks for as long as loading takes, plus three runs,
    /// and on a GPU the compilation of its kernels unless it is kept from before; allocates. Other
    /// threads that allocate meanwhile blur the measurement of the heap.
    ///
    /// # Errors
    /// [`BackendError`]: `Library`, `File`, `BadModel`, `DynamicShape`, `BrokenChain`, `Runtime`, or
    /// `OutOfScratch` when a run needs more than the limit; all Permanent.
    pub fn load(options: &LoadOptions) -> Result<Self, BackendError> {
        let machine = if options.gpu.is_some() { Machine::Gpu } else { Machine::Processor };
        let files = Files::read(&options.files, machine)?;
        match &options.gpu {
            None => Self::load_on_processor(files, options),
            Some(gpu) => Self::load_on_gpu(files, options, gpu),
        }
    }

    fn load_on_processor(files: Files, options: &LoadOptions) -> Result<Self, BackendError> {
        let library = Library::get()?;
        let before = heap_in_use();
        let load = |manifest: &Manifest| load_module(manifest, None);
        let modules: Vec<Module> = files.manifests.iter().map(load).collect::<Result<_, _>>()?;
        // Code is mapped and not in the heap; it is counted by the size of its files.
        let kept = heap_in_use().saturating_sub(before) + size_of(&options.files)?;
        let arena = private_arena(&files, options.memory_limit)?;
        let whole = 0..arena.size().0;
        let measured =
            place::measure(&files, modules, &arena, whole, |program, scratch, learn| {
                if learn { program.learn(scratch) } else { program.run(scratch) }
                    .map_err(BackendError::runtime)
            })?;
        let mut backend = Self::of(files, library, None);
        backend.memory = backend.requirements(measured.scratch, kept);
        backend.state = State::Loaded(measured.modules);
        Ok(backend)
    }

    fn load_on_gpu(files: Files, options: &LoadOptions, gpu: &Gpu) -> Result<Self, BackendError> {
        let library = Library::for_gpu()?;
        let loaded = gpu::load::measure(&files, options.memory_limit, gpu)?;
        let mut backend = Self::of(files, library, Some(gpu.clone()));
        backend.memory = backend.requirements(loaded.measured.scratch, Bytes::ZERO);
        backend.state = State::Loaded(loaded.measured.modules);
        backend.foreign = Some(loaded.foreign);
        Ok(backend)
    }

    fn of(files: Files, library: &Library, gpu: Option<Gpu>) -> Self {
        let Files { manifests, chain } = files;
        let description = chain.description();
        let (state, interface) = (State::Loaded(Vec::new()), library.interface().to_owned());
        let (memory, foreign) = (Vec::new(), None);
        Self { chain, manifests, description, memory, state, gpu, interface, foreign }
    }

    /// The lifetimes of everything: the totals first, then every tensor with a name.
    fn requirements(&self, scratch: Bytes, heap: Bytes) -> Vec<TensorLifetime> {
        let span = Lifespan::new(0, u32::from(self.description.stages)).expect("a stage at least");
        let total = |tensor, class, size: Bytes| {
            let alignment = ALIGNMENT;
            (size > Bytes::ZERO).then_some(TensorLifetime { tensor, class, span, size, alignment })
        };
        let weights = place::weights_size(&self.manifests);
        let totals = [
            total(WEIGHTS, TensorClass::Persistent, weights),
            total(SCRATCH, TensorClass::Scratch, scratch),
            total(HEAP, TensorClass::Persistent, heap),
        ];
        let named = self.chain.lifetimes(FIRST_NAMED, ROOM);
        totals.into_iter().flatten().chain(named).collect()
    }

    /// The furthest end of any block of scratch in the runs since the model was bound; zero before.
    /// For tests and diagnosis: blocks while a stage runs.
    #[must_use]
    pub fn scratch_used(&self) -> Bytes {
        match &self.state {
            State::Loaded(_) => Bytes::ZERO,
            State::Bound(stages) => stages[0].memory().scratch.high_water(),
            State::BoundOnGpu(prepared) => prepared.programs().scratch_used(),
        }
    }

    /// The nodes of each stage's graph: none for a stage without a graph, and no stages before the
    /// model is bound on a GPU.
    #[must_use]
    pub fn graph_nodes(&self) -> Vec<Option<usize>> {
        match &self.state {
            State::BoundOnGpu(prepared) => prepared.nodes(),
            State::Loaded(_) | State::Bound(_) => Vec::new(),
        }
    }

    /// Takes the memory of the whole model out of `binding`, each part as large as was declared.
    fn take(&self, mut binding: MemoryBinding) -> Result<Memory, BackendError> {
        let declared = Declared(&self.memory);
        let scratch = match declared.scratch(SCRATCH, &binding)? {
            Some(region) => place::range_of_region(region, self.gpu.as_ref()),
            None => ScratchRange::new(0, 0, self.gpu.as_ref().map(|gpu| gpu.ordinal)),
        };
        let named = declared.named(&self.chain, FIRST_NAMED, &mut binding)?;
        let weights = match declared.size(WEIGHTS) {
            Some(_) => Some(declared.buffer(WEIGHTS, "weights", &mut binding)?),
            None => None,
        };
        Ok(Memory { scratch, named, weights, binding: Some(binding) })
    }

    fn bind_on_processor(
        &mut self,
        modules: Vec<Module>,
        mut memory: Memory,
    ) -> Result<(), BackendError> {
        let programs = place::programs(&self.manifests, &self.chain, modules, &mut memory)?;
        let memory = Arc::new(Mutex::new(memory));
        self.state = State::Bound(HostStage::all(&self.chain, programs, &memory));
        Ok(())
    }
}

/// Before the fields go, in their order.
impl Drop for TvmBackend {
    fn drop(&mut self) {
        if let Some(foreign) = &mut self.foreign {
            foreign.leave();
        }
    }
}

impl RuntimeBackend for TvmBackend {
    fn runtime_name(&self) -> String {
        let provider = if self.gpu.is_some() { "CUDA" } else { "CPU" };
        format!("TVM {} ({provider}, interface {})", crate::library::TESTED_VERSION, self.interface)
    }

    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn memory(&self) -> &[TensorLifetime] {
        &self.memory
    }

    fn foreign_memory(&self) -> Bytes {
        self.foreign.as_ref().map_or(Bytes::ZERO, Holding::bytes)
    }

    fn remarks(&self) -> &[String] {
        match &self.state {
            State::BoundOnGpu(prepared) => prepared.remarks(),
            State::Loaded(_) | State::Bound(_) => &[],
        }
    }

    fn bind(&mut self, binding: MemoryBinding) -> Result<(), BackendError> {
        let bound = || BackendError::BadBinding { reason: "the model is bound already".into() };
        let State::Loaded(modules) = &mut self.state else { return Err(bound()) };
        if modules.is_empty() {
            return Err(BackendError::BadBinding { reason: "an earlier binding failed".into() });
        }
        let memory = self.take(binding)?; // Where it does not fit, another binding may.
        let State::Loaded(modules) = &mut self.state else { return Err(bound()) };
        let modules = std::mem::take(modules);
        match &self.gpu {
            None => self.bind_on_processor(modules, memory),
            Some(gpu) => {
                let (manifests, chain) = (&self.manifests, &self.chain);
                let foreign = self.foreign.as_mut().expect("it was loaded for a GPU");
                foreign.leave(); // Where this fails, the modules are gone with it.
                let mut prepared = gpu::bound::prepare(manifests, chain, modules, memory, gpu)?;
                prepared.take_foreign().into_iter().for_each(|bound| foreign.join(bound));
                self.state = State::BoundOnGpu(Box::new(prepared));
                Ok(())
            }
        }
    }

    fn enqueues_behind(&self) -> bool {
        match &self.state {
            State::BoundOnGpu(prepared) => prepared.is_captured(),
            State::Loaded(_) | State::Bound(_) => true, // A host stream's worker waits, not who enqueues.
        }
    }

    fn uploads_ahead(&mut self) -> Option<&mut dyn UploadsAhead> {
        match &mut self.state {
            State::BoundOnGpu(prepared) => prepared.uploads_ahead(),
            State::Loaded(_) | State::Bound(_) => None, // On a host the processor copies.
        }
    }

    fn enqueue(
        &mut self,
        stage: StageIndex,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let stages = match &mut self.state {
            State::BoundOnGpu(prepared) => return prepared.enqueue(stage, slot, stream),
            State::Bound(stages) => stages,
            State::Loaded(_) => {
                return Err(BackendError::BadBinding { reason: "the model is not bound".into() });
            }
        };
        HostStage::enqueue(stages, stage, slot, stream)
    }
}

/// Memory outside the device's arena to measure in: address space, backed where it is touched.
fn private_arena(files: &Files, limit: Bytes) -> Result<DeviceArena, BackendError> {
    let named = files.chain.lifetimes(FIRST_NAMED, ROOM);
    let aligned = |size: Bytes| size.checked_align_up(ALIGNMENT).unwrap_or(size);
    let named: Bytes = named.iter().map(|need| aligned(need.size)).sum();
    let memory_limit = limit + named + place::weights_size(&files.manifests);
    // A simulated device is memory without workers.
    let device = DeviceContext::sim(SimConfig { memory_limit, max_streams: 1, stream_depth: 1 })?;
    Ok(device.reserve_arena(memory_limit)?)
}

fn size_of(files: &[PathBuf]) -> Result<Bytes, BackendError> {
    let size = |file: &PathBuf| match std::fs::metadata::<&Path>(file.as_ref()) {
        Ok(metadata) => Ok(Bytes(metadata.len())),
        Err(cause) => Err(BackendError::File { path: file.display().to_string(), cause }),
    };
    files.iter().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::{Place, PlaceMemory};
    use aegis_context::named;

    /// The compiled network of the golden set. Without it, or without the libraries, the test fails.
    fn golden(name: &str) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("it is below");
        let file = root.join(".aegis/models/golden-tvm").join(format!("{name}.llvm.so"));
        assert!(file.is_file(), "run `cargo xtask models --set golden --tvm llvm`");
        file
    }

    /// A program of `mlp` in memory of its own, and scratch of `scratch` bytes.
    fn program(
        scratch: usize,
    ) -> (DeviceArena, Vec<aegis_cuda::DeviceBuffer>, Program, ScratchRange) {
        Library::get().expect("run `cargo xtask runtimes --tvm`");
        let files = Files::read(&[golden("mlp")], Machine::Processor).expect("it is whole");
        let manifest = &files.manifests[0];
        let memory_limit = Bytes::from_mib(1);
        let config = SimConfig { memory_limit, max_streams: 1, stream_depth: 1 };
        let device = DeviceContext::sim(config).expect("limits are stated");
        let arena = device.reserve_arena(memory_limit).expect("address space");
        let buffer =
            |from: u64, length: u64| arena.buffer(from..from + length).expect("it is free");
        let mut buffers = vec![buffer(0, 64 << 10), buffer(64 << 10, 4096), buffer(68 << 10, 4096)];
        manifest.load_weights(&mut buffers[0], 0).expect("they are whole");
        let rest = buffer(128 << 10, scratch.max(256) as u64);
        let start = aegis_cuda::interop::buffer_ptr(&rest).as_ptr().expose_provenance();
        buffers.push(rest);
        let whole = |index: usize| PlaceMemory::Whole(named::Place::Own(&buffers[index]));
        let own = |spec, index: usize| Place { spec, memory: whole(index) };
        let mut inputs = vec![own(&manifest.inputs[0], 1)];
        for (spec, offset) in &manifest.tensors {
            inputs.push(Place { spec, memory: PlaceMemory::Part(&buffers[0], *offset) });
        }
        let outputs = [own(&manifest.outputs[0], 2)];
        let module = load_module(manifest, None).expect("it is a module");
        let program = Program::new(module, &inputs, &outputs).expect("everything fits");
        (arena, buffers, program, ScratchRange::new(start, scratch, None))
    }

    #[test]
    fn a_run_beyond_its_scratch_ends_with_numbers_and_the_next_is_whole() {
        let (_arena, _buffers, mut program, mut scratch) = program(64 << 10);
        program.learn(&mut scratch).expect("nobody else runs").accept().expect("it fits");
        program.run(&mut scratch).expect("nobody else runs").accept().expect("it fits");
        let needed = scratch.high_water();
        assert!(needed > Bytes::ZERO, "two hidden layers need storage");

        let (_arena, _buffers, mut program, mut small) = self::program(0);
        let served = program.run(&mut small).expect("nobody else runs");
        let error = served.accept().expect_err("nothing fits");
        let BackendError::OutOfScratch { requested, available } = error else { panic!("{error}") };
        assert!(requested > Bytes::ZERO && available == Bytes::ZERO);
    }

    #[test]
    fn the_heap_does_not_grow_with_the_runs() {
        let (_arena, _buffers, mut program, mut scratch) = program(64 << 10);
        program.learn(&mut scratch).expect("nobody else runs").accept().expect("it fits");
        let mut run = |times: usize| {
            for _ in 0..times {
                program.run(&mut scratch).expect("nobody else runs").accept().expect("it fits");
            }
            heap_in_use().0
        };
        let before = run(100);
        let after = run(10_000);
        // Other tests of this process use the heap too; a block kept by each run would be 10 000.
        assert!(after < before + 400_000, "{before} bytes, then {after}");
    }
}

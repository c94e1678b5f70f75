//! A model in memory: what of it lies where, while it is measured and once it is bound.

use std::ops::Range;

use aegis_context::chain::{Chain, Direction};
use aegis_context::named::{Named, missing};
use aegis_context::{BackendError, Served, TensorSpec, host_stage, sample};
use aegis_cuda::{DeviceArena, DeviceBuffer, SharedRegion, interop};
use aegis_memory::MemoryBinding;
use aegis_trace::Bytes;

use crate::ffi::{Module, Place, PlaceMemory, Program, ScratchRange};
use crate::files::Files;
use crate::gpu::Gpu;
use crate::manifest::Manifest;
use crate::tensors::{ALIGNMENT, FIRST_NAMED, ROOM};

/// Runs while a model is measured; all ask for the same, unless code of the module's own keeps state.
const MEASURING_RUNS: usize = 2;

/// All memory of a model.
pub(crate) struct Memory {
    pub(crate) scratch: ScratchRange,
    /// The tensors with a name, in the chain's order.
    pub(crate) named: Vec<Named>,
    pub(crate) weights: Option<DeviceBuffer>,
    /// Keeps the regions; none while the model is measured.
    pub(crate) binding: Option<MemoryBinding>,
}

/// What measuring found.
pub(crate) struct Measured {
    pub(crate) modules: Vec<Module>,
    /// The furthest that any run reached.
    pub(crate) scratch: Bytes,
}

impl Memory {
    fn place(&self, index: usize, name: &str) -> Result<PlaceMemory<'_>, BackendError> {
        let region = |id| self.binding.as_ref().and_then(|binding| binding.region(id));
        Ok(PlaceMemory::Whole(self.named[index].place(name, region)?))
    }
}

impl host_stage::Program for Program {
    type Memory = Memory;

    fn named(memory: &mut Memory) -> &mut [Named] {
        &mut memory.named
    }

    fn run(&mut self, memory: &mut Memory) -> Result<(), BackendError> {
        self.run(&mut memory.scratch).map_err(BackendError::runtime)?.accept()
    }
}

/// How many bytes the weights of all stages take, one stage's behind the other's.
pub(crate) fn weights_size(manifests: &[Manifest]) -> Bytes {
    let sizes = manifests.iter().map(|manifest| aligned(manifest.weights_size()));
    Bytes(sizes.fold(0, u64::saturating_add))
}

/// Loads the weights of all stages into `memory` and makes a program of each module there.
///
/// # Errors
/// [`BackendError`]: a file of weights is not what its manifest says, or a tensor does not fit.
pub(crate) fn programs(
    manifests: &[Manifest],
    chain: &Chain,
    modules: Vec<Module>,
    memory: &mut Memory,
) -> Result<Vec<Program>, BackendError> {
    let mut starts = Vec::with_capacity(manifests.len());
    let mut start = 0;
    for manifest in manifests {
        if let Some(buffer) = &mut memory.weights {
            manifest.load_weights(buffer, start)?;
        }
        starts.push(start);
        start += aligned(manifest.weights_size());
    }
    let memory = &*memory;
    let program = |(stage, module): (usize, Module)| {
        let places = |tensors: &[usize]| -> Result<Vec<Place<'_>>, BackendError> {
            let place = |index: &usize| {
                let spec: &TensorSpec = &chain.tensors[*index].spec;
                Ok(Place { spec, memory: memory.place(*index, &spec.name)? })
            };
            tensors.iter().map(place).collect()
        };
        let mut inputs = places(&chain.takes[stage])?;
        for (spec, offset) in &manifests[stage].tensors {
            let buffer = memory.weights.as_ref().ok_or_else(|| missing("weights"))?;
            inputs.push(Place { spec, memory: PlaceMemory::Part(buffer, starts[stage] + offset) });
        }
        let outputs = places(&chain.gives[stage])?;
        Program::new(module, &inputs, &outputs).map_err(BackendError::runtime)
    };
    modules.into_iter().enumerate().map(program).collect()
}

/// Runs `program` in this scratch, the first time to learn where its outputs are.
type RunOnce<'r> = dyn FnMut(&mut Program, &mut ScratchRange, bool) -> Result<Served<Result<(), String>>, BackendError>
    + 'r;

/// Runs the model in the free piece `gap` of `arena`, by `run`: weights first, then the tensors with a
/// name, and the rest is scratch. Nothing of it stays.
///
/// # Errors
/// As `TvmBackend::load`.
pub(crate) fn measure(
    files: &Files,
    modules: Vec<Module>,
    arena: &DeviceArena,
    gap: Range<u64>,
    mut run: impl FnMut(
        &mut Program,
        &mut ScratchRange,
        bool,
    ) -> Result<Served<Result<(), String>>, BackendError>,
) -> Result<Measured, BackendError> {
    let run: &mut RunOnce<'_> = &mut run;
    let Files { manifests, chain } = files;
    let mut cut = Cutter { arena, end: aligned(gap.start).min(gap.end), limit: gap.end };
    let weights = match weights_size(manifests) {
        Bytes::ZERO => None,
        size => Some(cut.next(size)?),
    };
    let mut named = Vec::with_capacity(chain.tensors.len());
    for lifetime in chain.lifetimes(FIRST_NAMED, ROOM) {
        let mut buffer = cut.next(lifetime.size)?;
        buffer.fill(0)?;
        named.push(Named::Own(buffer));
    }
    let rest = arena.buffer(cut.end..cut.limit)?;
    let ordinal = modules.first().and_then(Module::gpu);
    let range = || range_at(&rest, ordinal);
    let mut memory = Memory { scratch: range(), named, weights, binding: None };
    fill_inputs(chain, &mut memory.named)?;
    let mut programs = programs(manifests, chain, modules, &mut memory)?;
    // What a run takes before its outputs lie where they belong is no part of the requirement.
    for program in &mut programs {
        run(program, &mut memory.scratch, true)?.accept()?;
    }
    memory.scratch = range();
    for _ in 0..MEASURING_RUNS {
        for program in &mut programs {
            run(program, &mut memory.scratch, false)?.accept()?;
        }
    }
    let scratch = memory.scratch.high_water();
    let modules = programs.into_iter().map(Program::into_module).collect();
    Ok(Measured { modules, scratch })
}

/// Cuts buffers off the beginning of what is free.
struct Cutter<'a> {
    arena: &'a DeviceArena,
    end: u64,
    limit: u64,
}

impl Cutter<'_> {
    fn next(&mut self, size: Bytes) -> Result<DeviceBuffer, BackendError> {
        let next = self.end.saturating_add(aligned(size.0));
        if next > self.limit {
            let available = Bytes(self.limit - self.end);
            return Err(BackendError::OutOfScratch { requested: size, available });
        }
        let buffer = self.arena.buffer(self.end..next)?;
        self.end = next;
        Ok(buffer)
    }
}

/// Writes the inputs that a model is prepared with.
pub(crate) fn fill_inputs(chain: &Chain, named: &mut [Named]) -> Result<(), BackendError> {
    for copy in chain.copies(Direction::In) {
        let bytes = sample::bytes(&chain.tensors[copy.tensor].spec);
        named[copy.tensor].own().write(0, &bytes)?;
    }
    Ok(())
}

/// The addresses of `region` as scratch, on the processor or on `gpu`.
pub(crate) fn range_of_region(region: &SharedRegion, gpu: Option<&Gpu>) -> ScratchRange {
    let start = interop::region_ptr(region).as_ptr().expose_provenance();
    ScratchRange::new(start, Bytes(region.len()).as_usize(), gpu.map(|gpu| gpu.ordinal))
}

fn range_at(buffer: &DeviceBuffer, gpu: Option<u16>) -> ScratchRange {
    let start = interop::buffer_ptr(buffer).as_ptr().expose_provenance();
    ScratchRange::new(start, Bytes(buffer.len()).as_usize(), gpu)
}

fn aligned(size: u64) -> u64 {
    size.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX)
}

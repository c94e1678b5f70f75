//! Measuring a model in free memory of the arena.
//!
//! The arena is all that the limit leaves, so a model is measured in the longest piece of it that
//! nobody holds: what the engines keep comes from its beginning, tensors with a name and scratch lie
//! at its end. Nothing of it stays.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use aegis_backend_gpu::Memory;
use aegis_context::BackendError;
use aegis_context::chain::{Chain, StageFace};
use aegis_context::foreign::{Holding, Meter};
use aegis_cuda::{CudaStream, DeviceArena, interop};
use aegis_trace::Bytes;

use super::Gpu;
use super::program::Program;
use crate::facts::{self, EngineFacts};
use crate::log::listen;
use crate::persistent::Persistent;
use crate::refusal;
use crate::tensors::{ALIGNMENT, FIRST_NAMED, ROOM};

/// The first runs make the library choose and compile kernels, which may take memory.
const MEASURING_RUNS: usize = 3;

/// What a model was measured to need.
pub(crate) struct Measured {
    pub(crate) chain: Chain,
    /// Weights and state, all stages together.
    pub(crate) weights: Bytes,
    /// What the hungriest stage needs.
    pub(crate) scratch: Bytes,
    /// The streams beside a job's own, which the stages share since they run one at a time.
    pub(crate) aux: Vec<Arc<CudaStream>>,
}

/// Reads the plans on `gpu`, runs them, and drops them again; with what the library took and did not give
/// back when they went. What they may take together ends at `limit`.
///
/// # Errors
/// As `TrtBackend::load`. What the library keeps all the same is charged to the device.
pub(crate) fn measure(
    files: &[PathBuf],
    limit: Bytes,
    gpu: &Gpu,
) -> Result<(Measured, Holding), BackendError> {
    gpu.make_current()?;
    let meter = Meter::start(&gpu.device);
    let gap = gpu.arena.largest_gap();
    let start = aligned(gap.start).min(gap.end);
    let gap = start..gap.end.min(start.saturating_add(limit.0));
    let measured = measure_in(files, gap, gpu).and_then(|measured| Ok((measured, meter.charge()?)));
    measured.inspect_err(|_| meter.charge_failure())
}

fn measure_in(files: &[PathBuf], gap: Range<u64>, gpu: &Gpu) -> Result<Measured, BackendError> {
    let claimed = gpu.arena.buffer(gap.clone())?;
    let first = interop::buffer_ptr(&claimed).addr().get() as u64;
    let range = Arc::new(Persistent::new(first, Bytes(gap.end - gap.start)));
    let read = |file: &PathBuf| Program::read(file, gpu, &range);
    let mut programs: Vec<Program> = files.iter().map(read).collect::<Result<_, _>>()?;
    let facts = programs.iter_mut().map(Program::facts).collect::<Result<Vec<_>, _>>()?;
    let chain = link(files, &facts)?;
    let scratch = facts.iter().map(|it| it.scratch).max().unwrap_or(Bytes::ZERO);
    let streams = facts.iter().map(|it| it.aux_streams).max().unwrap_or(0);
    let aux = (0..streams).map(|_| Ok(Arc::new(gpu.device.create_stream()?)));
    let aux: Vec<_> = aux.collect::<Result<_, BackendError>>()?;
    drop(claimed); // The bytes stay as they are; they are claimed again piece by piece.
    let mut memory = cut(&gpu.arena, gap, &range, &chain, scratch)?;
    let tried = place_and_run(&mut programs, gpu, &chain, &aux, &mut memory, &range);
    drop(programs); // Before their memory, whatever became of them.
    tried?;
    Ok(Measured { chain, weights: range.taken(), scratch, aux })
}

fn place_and_run(
    programs: &mut [Program],
    gpu: &Gpu,
    chain: &Chain,
    aux: &[Arc<CudaStream>],
    memory: &mut Memory,
    range: &Persistent,
) -> Result<(), BackendError> {
    for (stage, program) in programs.iter_mut().enumerate() {
        program.place(memory, chain, stage, aux)?;
    }
    for _ in 0..MEASURING_RUNS {
        for program in &mut *programs {
            run(program, memory, range, &gpu.preparation)?;
        }
    }
    Ok(())
}

/// Runs `program` on `stream` and waits for its end. What the library says meanwhile is in the error. The
/// GPU is the one of the calling thread.
pub(super) fn run(
    program: &mut Program,
    memory: &mut Memory,
    range: &Persistent,
    stream: &CudaStream,
) -> Result<(), BackendError> {
    let (enqueued, heard) = listen(|| program.enqueue(stream, memory));
    let enqueued = enqueued.map_err(|error| match error {
        BackendError::Runtime { reason } => refusal::failed(&reason, &heard),
        other => other,
    });
    let ended = stream.synchronize();
    judge(enqueued, range)?;
    Ok(ended?)
}

/// What became of a call that may have asked for memory.
pub(super) fn judge(
    enqueued: Result<(), BackendError>,
    range: &Persistent,
) -> Result<(), BackendError> {
    match range.take_refused() {
        Some(refused) => {
            let (requested, available) = (refused.requested, refused.available);
            Err(BackendError::OutOfScratch { requested, available })
        }
        None => enqueued,
    }
}

/// Reads all plans again, each with what it keeps in `range`.
pub(super) fn read_all(
    files: &[PathBuf],
    gpu: &Gpu,
    range: &Arc<Persistent>,
) -> Result<Vec<Program>, BackendError> {
    files.iter().map(|file| Program::read(file, gpu, range)).collect()
}

fn link(files: &[PathBuf], facts: &[EngineFacts]) -> Result<Chain, BackendError> {
    let face = |(file, facts): (&PathBuf, &EngineFacts)| {
        let path = file.display().to_string();
        let (inputs, outputs) = (&facts.inputs, &facts.outputs);
        Ok((facts::specs(&path, inputs)?, facts::specs(&path, outputs)?))
    };
    let faces = files.iter().zip(facts).map(face).collect::<Result<Vec<_>, BackendError>>()?;
    let faces: Vec<_> =
        faces.iter().map(|(inputs, outputs)| StageFace { inputs, outputs }).collect();
    Chain::link(&faces)
}

/// Lays named tensors and scratch at the end of `gap`, and ends `range` where they begin.
fn cut(
    arena: &DeviceArena,
    gap: Range<u64>,
    range: &Persistent,
    chain: &Chain,
    scratch: Bytes,
) -> Result<Memory, BackendError> {
    let lifetimes = chain.lifetimes(FIRST_NAMED, ROOM);
    let sizes = lifetimes.iter().map(|lifetime| aligned(lifetime.size.0));
    let wanted = sizes.clone().fold(aligned(scratch.0), u64::saturating_add);
    let free = (gap.end - gap.start).saturating_sub(aligned(range.taken().0));
    if wanted > free {
        let (requested, available) = (Bytes(wanted), Bytes(free));
        return Err(BackendError::OutOfScratch { requested, available });
    }
    // Down to a multiple, so that what follows begins at one: `free` has room for the difference, or
    // the gap ends at a multiple itself.
    let mut end = (gap.end - wanted) / ALIGNMENT * ALIGNMENT;
    if end < gap.start + range.taken().0 {
        let (requested, available) = (Bytes(wanted), Bytes(free));
        return Err(BackendError::OutOfScratch { requested, available });
    }
    range.shorten(Bytes(end - gap.start));
    let weights = arena.buffer(gap.start..end)?;
    let mut named = Vec::with_capacity(lifetimes.len());
    for size in sizes {
        let mut buffer = arena.buffer(end..end + size)?;
        buffer.fill(0)?;
        named.push(buffer);
        end += size;
    }
    let region = match scratch {
        Bytes::ZERO => None,
        scratch => Some(arena.region(end..end + aligned(scratch.0))?),
    };
    Ok(Memory::measured(named, region, Some(weights)))
}

fn aligned(size: u64) -> u64 {
    size.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX)
}

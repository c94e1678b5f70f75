//! Measuring a model in free memory of the arena.
//!
//! The arena is all that the limit leaves, so a model is measured in the longest piece of it that
//! nobody holds: first the sessions take their weights from its beginning, then come the tensors with
//! a name, and the rest is scratch for three runs. Nothing of it stays.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use aegis_context::chain::Chain;
use aegis_context::foreign::Meter;
use aegis_context::{BackendError, named};
use aegis_cuda::{DeviceBuffer, interop};
use aegis_trace::Bytes;

use super::Gpu;
use crate::ffi::{Binding, DeviceRange, Kept, Place, Provider};
use crate::library::Library;
use crate::session::{self, LoadedStage};
use crate::tensors::{ALIGNMENT, FIRST_NAMED, ROOM, chain_of, place_of};

/// As on the host: the first run teaches ONNX Runtime the sizes, and later ones use what it learnt.
const MEASURING_RUNS: usize = 3;

/// What weights get beyond what they took: blocks that are only needed while a session is made lie
/// between others, and where depends on an order that ONNX Runtime does not repeat.
const ORDER_SLACK: Bytes = Bytes(256 * 1024);

/// What a model was measured to need.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) chain: Chain,
    /// Weights and state, all stages together.
    pub(crate) weights: Bytes,
    /// The furthest that any run reached.
    pub(crate) scratch: Bytes,
    /// What its libraries took and did not give back when the sessions went; charged for good.
    pub(crate) modules: Bytes,
    /// Why its stages are not captured, if they are not.
    pub(crate) plain: Option<String>,
}

/// Loads the files on `gpu`, runs them, and drops them again.
///
/// # Errors
/// As `OnnxBackend::load`.
pub(crate) fn measure(
    library: &Library,
    files: &[PathBuf],
    limit: Bytes,
    gpu: &Gpu,
) -> Result<Measured, BackendError> {
    let meter = Meter::start(&gpu.device);
    match figures(library, files, limit, gpu) {
        Ok(((chain, weights, scratch), plain)) => {
            let modules = meter.charge_load()?;
            Ok(Measured { chain, weights, scratch, modules, plain })
        }
        Err(error) => {
            meter.charge_failure();
            Err(error)
        }
    }
}

type Figures = (Chain, Bytes, Bytes);

/// What a model needs, and why it is not captured, if it is not.
fn figures(
    library: &Library,
    files: &[PathBuf],
    limit: Bytes,
    gpu: &Gpu,
) -> Result<(Figures, Option<String>), BackendError> {
    let strict = gpu.provider(false)?;
    let gap = gpu.arena.largest_gap();
    let start = aligned(gap.start).min(gap.end);
    let gap = start..gap.end.min(start.saturating_add(limit.0));
    let wanted = if gpu.graph { Some(strict) } else { None };
    let (measured, plain) = match wanted {
        None => (None, Some(aegis_backend_gpu::not_wanted())),
        Some(provider) => match run(library, files, gap.clone(), gpu, &provider) {
            Ok(measured) => (Some(measured), None),
            // What else is wrong with the file, the second attempt says again.
            Err(BackendError::BadModel { reason, .. }) => (None, Some(reason)),
            Err(other) => return Err(other),
        },
    };
    let measured = match measured {
        Some(measured) => measured,
        None => run(library, files, gap, gpu, &gpu.provider(true)?)?,
    };
    Ok((measured, plain))
}

fn run(
    library: &Library,
    files: &[PathBuf],
    gap: Range<u64>,
    gpu: &Gpu,
    provider: &Provider,
) -> Result<Figures, BackendError> {
    let meter = Meter::start(&gpu.device);
    let claimed = gpu.arena.buffer(gap.clone())?;
    let mut weights = range_of(&claimed);
    let stages = sessions(library, files, provider, &mut weights)?;
    let chain = chain_of(&stages)?;
    drop(claimed); // The bytes stay as they are; they are claimed again piece by piece.
    let taken = weights.high_water();
    let weights_end = gap.start.saturating_add(aligned(taken.0)).min(gap.end);
    let _weights = gpu.arena.buffer(gap.start..weights_end)?;
    let mut end = weights_end;
    let mut named = Vec::with_capacity(chain.tensors.len());
    for lifetime in chain.lifetimes(FIRST_NAMED, ROOM) {
        let next = end.saturating_add(aligned(lifetime.size.0));
        if next > gap.end {
            let (requested, available) = (lifetime.size, Bytes(gap.end - end));
            return Err(BackendError::OutOfScratch { requested, available });
        }
        let mut buffer = gpu.arena.buffer(end..next)?;
        buffer.fill(0)?;
        named.push(buffer);
        end = next;
    }
    let rest = gpu.arena.buffer(end..gap.end)?;
    let mut scratch = range_of(&rest);
    // The owner of the addresses is this function, which drops the bindings before their memory.
    let mut bindings = bind(library, gpu, &chain, stages, &named)?;
    for _ in 0..MEASURING_RUNS {
        for binding in &mut bindings {
            let served =
                binding.enqueue(&mut scratch, &gpu.preparation).map_err(BackendError::runtime)?;
            let ended = gpu.preparation.synchronize(); // Before its memory goes to another.
            served.accept()?;
            ended?;
        }
    }
    // Refused here, where the sessions still have it, if the limit does not hold it.
    meter.charge()?.refund();
    drop(bindings);
    Ok((chain, taken + ORDER_SLACK, scratch.high_water()))
}

/// Makes the sessions of all files with their weights in `range`.
pub(crate) fn sessions(
    library: &Library,
    files: &[PathBuf],
    provider: &Provider,
    range: &mut DeviceRange,
) -> Result<Vec<LoadedStage>, BackendError> {
    // Before the first session: what it allocates is served by what is registered when it is made.
    library.environment().device_memory(provider.ordinal).map_err(BackendError::runtime)?;
    let load = |file: &PathBuf| session::load(library, file, 1, Some(provider));
    let Kept { result, refused } =
        range.keep(|| files.iter().map(load).collect::<Result<Vec<_>, _>>());
    if let Some(refused) = refused {
        let (requested, available) = (refused.requested, refused.available);
        return Err(BackendError::OutOfScratch { requested, available });
    }
    result
}

fn bind(
    library: &Library,
    gpu: &Gpu,
    chain: &Chain,
    stages: Vec<LoadedStage>,
    named: &[DeviceBuffer],
) -> Result<Vec<Binding>, BackendError> {
    let kind = library.environment().device_memory(gpu.ordinal).map_err(BackendError::runtime)?;
    let places = |tensors: &[usize]| -> Result<Vec<Place<'_>>, BackendError> {
        let place = |index: &usize| place_of(chain, *index, named::Place::Own(&named[*index]));
        tensors.iter().map(place).collect()
    };
    let bind = |(index, stage): (usize, LoadedStage)| {
        let (takes, gives) = (places(&chain.takes[index])?, places(&chain.gives[index])?);
        let binding = Binding::new(kind, stage.session, Arc::new(()), &takes, &gives);
        let binding = binding.map_err(BackendError::runtime)?;
        binding.only_enqueue().map_err(BackendError::runtime)?;
        Ok(binding)
    };
    stages.into_iter().enumerate().map(bind).collect()
}

/// The addresses of `buffer`.
pub(crate) fn range_of(buffer: &DeviceBuffer) -> DeviceRange {
    let start = interop::buffer_ptr(buffer).addr().get();
    DeviceRange::new(start, Bytes(buffer.len()).as_usize())
}

fn aligned(size: u64) -> u64 {
    size.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX)
}

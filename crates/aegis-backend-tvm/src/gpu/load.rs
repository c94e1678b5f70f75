//! Loading a model for a GPU and measuring it in free memory of the arena.

use aegis_context::BackendError;
use aegis_context::foreign::{Holding, Meter};
use aegis_trace::Bytes;

use super::Gpu;
use crate::ffi::{Module, compiling_for, on_stream};
use crate::files::{Files, load_module};
use crate::manifest::Manifest;
use crate::place::{self, Measured};
use crate::tensors::ALIGNMENT;

/// A model whose modules are loaded.
pub(crate) struct Loaded {
    pub(crate) measured: Measured,
    /// What its kernels took.
    pub(crate) foreign: Holding,
}

/// Loads the modules on `gpu`, compiling their kernels unless they are kept from before, and runs them.
///
/// # Errors
/// As `TvmBackend::load`. What the libraries keep all the same is charged to the device.
pub(crate) fn measure(files: &Files, limit: Bytes, gpu: &Gpu) -> Result<Loaded, BackendError> {
    gpu.enter()?;
    let meter = Meter::start(&gpu.device);
    let loaded = load_and_run(files, limit, gpu)
        .and_then(|measured| Ok(Loaded { measured, foreign: meter.charge()? }));
    loaded.inspect_err(|_| meter.charge_failure()) // Its modules are dropped by now.
}

fn load_and_run(files: &Files, limit: Bytes, gpu: &Gpu) -> Result<Measured, BackendError> {
    let load = |manifest: &Manifest| load_module(manifest, Some(gpu.ordinal));
    let modules = compiling_for(gpu.architecture()?, || {
        files.manifests.iter().map(load).collect::<Result<Vec<Module>, _>>()
    })?;
    let gap = gpu.arena.largest_gap();
    let start = gap.start.next_multiple_of(ALIGNMENT).min(gap.end);
    let gap = start..gap.end.min(start.saturating_add(limit.0));
    place::measure(files, modules, &gpu.arena, gap, |program, scratch, learn| {
        let run = || if learn { program.learn(scratch) } else { program.run(scratch) };
        let served = on_stream(&gpu.preparation, gpu.ordinal, run).and_then(|it| it);
        gpu.preparation.synchronize()?; // The next program reads what this one wrote.
        served.map_err(BackendError::runtime)
    })
}

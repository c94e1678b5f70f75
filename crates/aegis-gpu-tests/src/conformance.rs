//! The whole suite of `aegis-conformance` on the GPU, for one runtime after the other.
//!
//! The networks are those of `cargo xtask models --set golden` ([`crate::onnx`]), the reference is ONNX
//! Runtime on the processor.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aegis_backend_onnx::{Gpu, Library, LoadOptions, OnnxBackend};
use aegis_conformance::{Fault, Ground, Subject, Tensors, check};
use aegis_context::{BackendError, RuntimeBackend};
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext};
use aegis_trace::Bytes;

use crate::bench::{Bench, Outcome, require};
use crate::onnx;

/// What the libraries of a few models may take beside the arena.
const LIBRARIES: Bytes = Bytes::from_mib(1536);
const ARENA: Bytes = Bytes::from_mib(1024);
/// How far fp32 outputs may be from the processor's, as a share of the largest.
const TOLERANCE: f64 = 1e-3;
/// The inputs of the golden set that say where a scatter writes.
pub(crate) const DISTINCT: [&str; 1] = ["cells"];

/// A device with an arena, of which one clause after another makes its ground.
pub(crate) struct Place {
    pub(crate) device: DeviceContext,
    pub(crate) arena: DeviceArena,
    /// A stream that no job runs on.
    pub(crate) preparation: Arc<CudaStream>,
}

/// Loads a model that may take this much while it is measured.
pub(crate) type Load<'a> = dyn Fn(Bytes) -> Result<Box<dyn RuntimeBackend>, BackendError> + 'a;

/// Gives the expected outputs for these inputs.
pub(crate) type Reference<'a> = dyn Fn(&Tensors) -> Result<Tensors, Fault> + 'a;

impl Place {
    pub(crate) fn new(bench: &Bench) -> Result<Self, Fault> {
        let device = bench.open_with(|config| config.max_streams = 64)?;
        let left = device.memory_limit().saturating_sub(device.reserved_memory());
        let arena = device.reserve_arena(left.saturating_sub(LIBRARIES).min(ARENA))?;
        let preparation = Arc::new(device.create_stream()?);
        Ok(Self { device, arena, preparation })
    }
}

/// The verdicts on the models of one runtime.
#[derive(Default)]
pub(crate) struct Verdicts {
    lines: Vec<String>,
    failed: usize,
}

impl Verdicts {
    /// Holds the model `name`, loaded by `load` into `place`, against every clause.
    pub(crate) fn add(
        &mut self,
        name: String,
        place: &Place,
        load: &Load<'_>,
        reference: &Reference<'_>,
    ) {
        let foreign = Cell::new(Bytes::ZERO);
        let load = |limit| {
            let backend = load(limit)?;
            foreign.set(foreign.get().max(backend.foreign_memory()));
            Ok(backend)
        };
        let (reference, tolerance, distinct) = (Some(reference), TOLERANCE, &DISTINCT);
        let subject = Subject { name, load: &load, reference, tolerance, distinct };
        let ground = || Ground::over(place.device.clone(), place.arena.clone());
        let report = check(&subject, &ground);
        self.failed += usize::from(!report.holds());
        self.lines.push(format!("{report}libraries {}", foreign.get()));
    }

    pub(crate) fn outcome(self) -> Outcome {
        let text = self.lines.join("\n");
        require(self.failed == 0, || format!("{} models\n{text}", self.failed))?;
        Ok(text)
    }
}

/// What ONNX Runtime gives on the processor for the network in `file`.
pub(crate) fn on_the_processor(file: &Path, inputs: &Tensors) -> Result<Tensors, Fault> {
    let (files, memory_limit) = (vec![file.to_owned()], Bytes::from_mib(256));
    let backend = OnnxBackend::load(&LoadOptions { files, threads: 1, memory_limit, gpu: None })?;
    let mut ground = Ground::host(Bytes::from_mib(512))?;
    let mut model = ground.admit(Box::new(backend))?;
    ground.run(&mut model, inputs)
}

/// ONNX Runtime's CUDA provider.
pub(crate) fn onnx(bench: &Bench) -> Outcome {
    Library::for_gpu()?; // Before the reference asks for the processor's.
    let mut verdicts = Verdicts::default();
    for file in onnx::networks()? {
        let place = Place::new(bench)?;
        let (device, arena) = (place.device.clone(), place.arena.clone());
        let preparation = Arc::clone(&place.preparation);
        let gpu = Gpu { device, ordinal: 0, arena, preparation, tf32: false, graph: true };
        let load = |memory_limit| -> Result<Box<dyn RuntimeBackend>, BackendError> {
            let (files, gpu): (Vec<PathBuf>, _) = (vec![file.clone()], Some(gpu.clone()));
            Ok(Box::new(OnnxBackend::load(&LoadOptions { files, threads: 1, memory_limit, gpu })?))
        };
        let reference = |inputs: &Tensors| on_the_processor(&file, inputs);
        verdicts.add(format!("onnx {}", onnx::name(&file)), &place, &load, &reference);
    }
    verdicts.outcome()
}

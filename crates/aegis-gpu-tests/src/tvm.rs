//! TVM on the GPU: the whole suite of `aegis-conformance`, with the processor's outputs as reference.
//!
//! The modules are those of `cargo xtask models --set golden --tvm llvm --tvm sm_XX`: the folder that
//! `AEGIS_TVM_MODELS` names, else `.aegis/models/golden-tvm`. The libraries are found as the backend
//! finds them. Without either, a test fails and says so.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

use aegis_backend_tvm::{Gpu, LoadOptions, TvmBackend};
use aegis_conformance::{Fault, Ground, Subject, Tensors, check};
use aegis_context::{BackendError, RuntimeBackend};
use aegis_cuda::{DeviceArena, DeviceContext};
use aegis_trace::Bytes;

use crate::bench::{Bench, Outcome, require};

/// What the libraries of a few models may take beside the arena.
const LIBRARIES: Bytes = Bytes::from_mib(1024);
const ARENA: Bytes = Bytes::from_mib(1024);
/// How far fp32 outputs may be from the processor's, as a share of the largest.
const TOLERANCE: f64 = 1e-3;

/// The networks, by the modules of their stages.
const NETWORKS: [&[&str]; 12] = [
    &["hand_mlp"],
    &["mlp"],
    &["resnet18"],
    &["resnet50.stage0", "resnet50.stage1", "resnet50.stage2"],
    &["mobilenet_v2"],
    &["efficientnet"],
    &["unet"],
    &["unet.stage0", "unet.stage1", "unet.stage2"],
    &["yolo"],
    &["vit"],
    &["bert"],
    &["pillars"],
];

/// A device with an arena, of which one suite after another makes its grounds.
struct World {
    device: DeviceContext,
    arena: DeviceArena,
    gpu: Gpu,
}

impl World {
    fn new(bench: &Bench) -> Result<Self, Fault> {
        let device = bench.open_with(|config| config.max_streams = 64)?;
        let left = device.memory_limit().saturating_sub(device.reserved_memory());
        let arena = device.reserve_arena(left.saturating_sub(LIBRARIES).min(ARENA))?;
        let gpu = Gpu {
            device: device.clone(),
            ordinal: 0,
            arena: arena.clone(),
            preparation: Arc::new(device.create_stream()?),
            graph: true,
        };
        Ok(Self { device, arena, gpu })
    }

    /// Loads the modules of `names`, on the GPU or on the processor.
    fn load(
        &self,
        names: &[&str],
        on_gpu: bool,
        memory_limit: Bytes,
    ) -> Result<TvmBackend, BackendError> {
        let target = if on_gpu { self.target() } else { "llvm".to_owned() };
        let folder = folder();
        let files = names.iter().map(|name| folder.join(format!("{name}.{target}.so"))).collect();
        let gpu = on_gpu.then(|| self.gpu.clone());
        TvmBackend::load(&LoadOptions { files, memory_limit, gpu })
    }

    /// The architecture of the GPU, as modules are named by.
    fn target(&self) -> String {
        let capability = self.device.capabilities().compute_capability();
        capability.map_or_else(|| "sm_90".to_owned(), |it| format!("sm_{}{}", it.major, it.minor))
    }

    /// What the processor gives.
    fn reference(&self, names: &[&str], inputs: &Tensors) -> Result<Tensors, Fault> {
        let mut ground = Ground::host(Bytes::from_mib(512))?;
        let backend = self.load(names, false, Bytes::from_mib(256))?;
        let mut model = ground.admit(Box::new(backend))?;
        ground.run(&mut model, inputs)
    }
}

fn folder() -> PathBuf {
    let named = std::env::var_os("AEGIS_TVM_MODELS");
    named.map_or_else(|| PathBuf::from(".aegis/models/golden-tvm"), PathBuf::from)
}

pub(crate) fn does_what_every_backend_must(bench: &Bench) -> Outcome {
    let mut lines = Vec::new();
    let mut failed = 0;
    for names in NETWORKS {
        let world = World::new(bench)?;
        let foreign = Cell::new(Bytes::ZERO);
        let load = |limit| -> Result<Box<dyn RuntimeBackend>, BackendError> {
            let backend = world.load(names, true, limit)?;
            foreign.set(foreign.get().max(backend.foreign_memory()));
            Ok(Box::new(backend))
        };
        let subject = Subject {
            name: format!("tvm {} on {}", names.join("+"), world.target()),
            load: &load,
            reference: Some(&|inputs: &Tensors| world.reference(names, inputs)),
            tolerance: TOLERANCE,
        };
        let ground = || Ground::over(world.device.clone(), world.arena.clone());
        let report = check(&subject, &ground);
        failed += usize::from(!report.holds());
        lines.push(format!("{report}libraries {}", foreign.get()));
    }
    let text = lines.join("\n");
    require(failed == 0, || format!("{failed} networks\n{text}"))?;
    Ok(text)
}

pub(crate) fn stages_are_captured(bench: &Bench) -> Outcome {
    let mut lines = Vec::new();
    let mut plain = 0;
    for names in NETWORKS {
        let world = World::new(bench)?;
        let mut ground = Ground::over(world.device.clone(), world.arena.clone())?;
        let mut backend = world.load(names, true, Bytes::from_mib(256))?;
        ground.bind(&mut backend)?;
        let nodes = backend.graph_nodes();
        plain += nodes.iter().filter(|nodes| nodes.is_none()).count();
        lines.push(format!("{}: nodes {nodes:?}, {:?}", names.join("+"), backend.remarks()));
    }
    let text = lines.join("\n");
    require(plain == 0, || format!("{plain} stages run without a graph\n{text}"))?;
    Ok(text)
}

pub(crate) fn module_for_the_processor_is_refused(bench: &Bench) -> Outcome {
    let world = World::new(bench)?;
    let files = vec![folder().join("mlp.llvm.so")];
    let (memory_limit, gpu) = (Bytes::from_mib(64), Some(world.gpu.clone()));
    match TvmBackend::load(&LoadOptions { files, memory_limit, gpu }) {
        Err(refused @ BackendError::BadModel { .. }) => Ok(refused.to_string()),
        Err(other) => Err(other.into()),
        Ok(_) => Err("it was accepted".into()),
    }
}

//! TVM on the GPU: the whole suite of `aegis-conformance`, with the processor's outputs as reference.
//!
//! The modules are those of `cargo xtask models --set golden --tvm llvm --tvm sm_XX`: the folder that
//! `AEGIS_TVM_MODELS` names, else `.aegis/models/golden-tvm`. The libraries are found as the backend
//! finds them. Without either, a test fails and says so.

use std::path::PathBuf;
use std::sync::Arc;

use aegis_backend_tvm::{Gpu, LoadOptions, TvmBackend};
use aegis_conformance::{Fault, Ground, Tensors};
use aegis_context::{BackendError, RuntimeBackend};
use aegis_trace::Bytes;

use crate::bench::{Bench, Outcome, require};
use crate::conformance::{Place, Verdicts};

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

/// A GPU for modules.
struct World {
    place: Place,
    gpu: Gpu,
}

impl World {
    fn new(bench: &Bench) -> Result<Self, Fault> {
        let place = Place::new(bench)?;
        let (device, arena) = (place.device.clone(), place.arena.clone());
        let preparation = Arc::clone(&place.preparation);
        let gpu = Gpu { device, ordinal: 0, arena, preparation, graph: true };
        Ok(Self { place, gpu })
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
        let capability = self.place.device.capabilities().compute_capability();
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
    let mut verdicts = Verdicts::default();
    for names in NETWORKS {
        let world = World::new(bench)?;
        let load = |limit| -> Result<Box<dyn RuntimeBackend>, BackendError> {
            Ok(Box::new(world.load(names, true, limit)?))
        };
        let reference = |inputs: &Tensors| world.reference(names, inputs);
        let name = format!("tvm {} on {}", names.join("+"), world.target());
        verdicts.add(name, &world.place, &load, &reference);
    }
    verdicts.outcome()
}

pub(crate) fn stages_are_captured(bench: &Bench) -> Outcome {
    let mut lines = Vec::new();
    let mut plain = 0;
    for names in NETWORKS {
        let world = World::new(bench)?;
        let mut ground = Ground::over(world.place.device.clone(), world.place.arena.clone())?;
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

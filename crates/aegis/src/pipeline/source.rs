//! Where the models of a workload come from: their files, or what stands in for them.
//!
//! A workload is checked without loading anything, so each model is then a simulated one of the same
//! stages and the same size, taken from its evidence
//! (`docs/adr/0009`).

use aegis_context::{ModelDescription, SimModel};
use aegis_trace::{Bytes, Nanos};

use crate::error::Error;
use crate::evidence::ModelEvidence;
use crate::source::{GpuOptions, MemoryNeed, ModelSource};
use crate::workload::{Backend, Driver, Model, Workload};

/// Where a model of a workload comes from.
pub(super) fn source(model: &Model) -> ModelSource {
    match &model.backend {
        Backend::Onnx(onnx) => ModelSource::Onnx {
            files: onnx.stages.iter().map(|file| file.path.clone()).collect(),
            threads: u16::try_from(onnx.threads).unwrap_or(u16::MAX),
            gpu: GpuOptions { tf32: onnx.tf32, graph: onnx.graph },
        },
        Backend::Tvm(tvm) => ModelSource::Tvm {
            modules: tvm.stages.iter().map(|file| file.path.clone()).collect(),
            graph: tvm.graph,
        },
        Backend::Trt(trt) => ModelSource::Trt {
            engines: trt.stages.iter().map(|file| file.path.clone()).collect(),
            graph: trt.graph,
        },
        Backend::Sim(sim) => declared(
            SimNeed { persistent: sim.persistent, scratch: sim.scratch, carried: sim.carried },
            sim.stages.clone(),
        ),
    }
}

/// A simulated model in place of a real one, of the same cost and size.
pub(super) fn stand_in(model: &Model, evidence: Option<&ModelEvidence>) -> ModelSource {
    match evidence {
        None => source(model),
        Some(evidence) => {
            let stages = evidence.samples.stages().len();
            let MemoryNeed { resident, scratch, carried } = evidence.memory;
            let persistent = resident.saturating_sub(carried);
            let need = SimNeed { persistent, scratch, carried };
            declared(need, vec![Nanos::EPSILON; stages])
        }
    }
}

/// What a declared model needs of each kind.
struct SimNeed {
    persistent: Bytes,
    scratch: Bytes,
    carried: Bytes,
}

fn declared(need: SimNeed, costs: Vec<Nanos>) -> ModelSource {
    let stages = u16::try_from(costs.len()).unwrap_or(u16::MAX);
    let description = ModelDescription { inputs: vec![], outputs: vec![], stages };
    let SimNeed { persistent, scratch, carried } = need;
    ModelSource::Sim { model: SimModel { description, persistent, scratch, carried }, costs }
}

/// The error of a model that cannot run on the device of its workload.
pub(super) fn misplaced(model: &Model, workload: &Workload) -> Option<Error> {
    let needs = match (&model.backend, workload.device.driver) {
        (Backend::Trt(_), Driver::Cuda { .. }) | (Backend::Sim(_), Driver::Host | Driver::Sim) => {
            return None;
        }
        (Backend::Onnx(_) | Backend::Tvm(_), Driver::Host | Driver::Cuda { .. }) => return None,
        (Backend::Trt(_), Driver::Host | Driver::Sim) => "cuda",
        (Backend::Onnx(_) | Backend::Tvm(_), Driver::Sim) => "host or cuda",
        (Backend::Sim(_), Driver::Cuda { .. }) => "host or sim",
    };
    let (model, backend) = (model.name.clone(), model.backend.name());
    Some(Error::WrongDriver { model, backend, needs })
}

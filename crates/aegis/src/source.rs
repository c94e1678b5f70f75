//! Where a model comes from, and the model once it is loaded.

use std::path::PathBuf;
use std::sync::Arc;

use aegis_context::{ModelDescription, RuntimeBackend, SimBackend, SimModel};
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext};
use aegis_memory::{TensorClass, TensorLifetime};
use aegis_trace::{Bytes, Nanos, PartitionId};

use crate::error::Error;

/// A model that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelSource {
    /// ONNX files: one, or one per stage in order.
    Onnx {
        /// The files.
        files: Vec<PathBuf>,
        /// Threads an operator may use.
        threads: u16,
        /// What holds where they run on a GPU.
        gpu: GpuOptions,
    },
    /// Modules compiled by TVM: one, or one per stage in order.
    Tvm {
        /// The files `NAME.so`, each with its manifest `NAME.json` beside it.
        modules: Vec<PathBuf>,
        /// Whether stages are captured into graphs, where they run on a GPU.
        graph: bool,
    },
    /// Serialised engines of TensorRT: one, or one per stage in order.
    Trt {
        /// The files.
        engines: Vec<PathBuf>,
        /// Whether stages are captured into graphs.
        graph: bool,
    },
    /// Declared costs instead of a network.
    Sim {
        /// What it looks like, and how much memory it takes.
        model: SimModel,
        /// What each stage takes.
        costs: Vec<Nanos>,
    },
}

/// How a model runs on a GPU; without effect elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuOptions {
    /// Whether matrix products may round the factors of fp32 to ten bits (TF32).
    pub tf32: bool,
    /// Whether stages are captured into graphs.
    pub graph: bool,
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self { tf32: true, graph: true }
    }
}

/// Where a model is to be loaded.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(any(feature = "onnx", feature = "tvm", feature = "trt")),
    expect(dead_code, reason = "only real runtimes stand on it")
)]
pub(crate) struct Ground<'a> {
    /// The device, or the partition of it.
    pub(crate) device: &'a DeviceContext,
    /// What the model will be bound in.
    pub(crate) arena: &'a DeviceArena,
    /// What prepares models, on a GPU.
    pub(crate) preparation: Option<&'a Preparation>,
    /// What a model may take while it is measured.
    pub(crate) memory_limit: Bytes,
}

/// The stream of a partition of a GPU that no job runs on.
#[derive(Clone, Debug)]
pub(crate) struct Preparation {
    /// Which GPU.
    #[cfg_attr(
        not(any(feature = "onnx", feature = "tvm")),
        expect(dead_code, reason = "the runtimes read it")
    )]
    pub(crate) ordinal: u16,
    #[cfg_attr(
        not(any(feature = "onnx", feature = "tvm", feature = "trt")),
        expect(dead_code, reason = "the runtimes read it")
    )]
    pub(crate) stream: Arc<CudaStream>,
}

impl ModelSource {
    /// One ONNX file, one thread.
    #[must_use]
    pub fn onnx(file: impl Into<PathBuf>) -> Self {
        Self::Onnx { files: vec![file.into()], threads: 1, gpu: GpuOptions::default() }
    }

    /// Its stages in order: the names of their files without folders, or their numbers.
    pub(crate) fn stage_names(&self) -> Vec<String> {
        match self {
            Self::Onnx { files, .. }
            | Self::Tvm { modules: files, .. }
            | Self::Trt { engines: files, .. } => files
                .iter()
                .map(|file| file.file_name().unwrap_or(file.as_os_str()))
                .map(|name| name.to_string_lossy().into_owned())
                .collect(),
            Self::Sim { costs, .. } => (0..costs.len()).map(|stage| stage.to_string()).collect(),
        }
    }

    /// The name of what executes it.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        match self {
            Self::Onnx { .. } => "onnx",
            Self::Tvm { .. } => "tvm",
            Self::Trt { .. } => "trt",
            Self::Sim { .. } => "sim",
        }
    }

    /// Loads the model for where `ground` says; its scratch may grow to the limit while it is
    /// measured. Blocks while the runtime optimises the graph.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::WrongDriver`], or [`Error::NotBuilt`]; all Permanent.
    pub(crate) fn load(
        &self,
        name: &str,
        partition: PartitionId,
        ground: Ground<'_>,
    ) -> Result<LoadedModel, Error> {
        let backend = match self {
            Self::Onnx { files, threads, gpu } => load_onnx(name, files, *threads, *gpu, ground)?,
            Self::Tvm { modules, graph } => load_tvm(name, modules, *graph, ground)?,
            Self::Trt { engines, graph } => load_trt(name, engines, *graph, ground)?,
            Self::Sim { model, costs } => {
                let kind = ground.device.kind();
                Box::new(SimBackend::constant(model.clone(), kind, costs.clone()))
            }
        };
        Ok(LoadedModel { name: name.to_owned(), partition, backend })
    }
}

#[cfg(feature = "onnx")]
fn load_onnx(
    name: &str,
    files: &[PathBuf],
    threads: u16,
    options: GpuOptions,
    ground: Ground<'_>,
) -> Result<Box<dyn RuntimeBackend>, Error> {
    use aegis_backend_onnx::{Gpu, LoadOptions, OnnxBackend};
    use aegis_cuda::DriverKind;
    let Ground { device, arena, preparation, memory_limit } = ground;
    let gpu = match (device.kind(), preparation) {
        (DriverKind::Host, _) => None,
        (DriverKind::Cuda, Some(Preparation { ordinal, stream })) => Some(Gpu {
            device: device.clone(),
            ordinal: *ordinal,
            arena: arena.clone(),
            preparation: Arc::clone(stream),
            tf32: options.tf32,
            graph: options.graph,
        }),
        _ => {
            let (backend, needs) = ("onnx", "host or cuda");
            return Err(Error::WrongDriver { model: name.to_owned(), backend, needs });
        }
    };
    let options = LoadOptions { files: files.to_vec(), threads, memory_limit, gpu };
    match OnnxBackend::load(&options) {
        Ok(backend) => Ok(Box::new(backend)),
        Err(cause) => Err(Error::Load { model: name.to_owned(), cause }),
    }
}

#[cfg(not(feature = "onnx"))]
fn load_onnx(
    _: &str,
    _: &[PathBuf],
    _: u16,
    _: GpuOptions,
    _: Ground<'_>,
) -> Result<Box<dyn RuntimeBackend>, Error> {
    Err(Error::NotBuilt { what: "ONNX Runtime", feature: "onnx" })
}

#[cfg(feature = "tvm")]
fn load_tvm(
    name: &str,
    modules: &[PathBuf],
    graph: bool,
    ground: Ground<'_>,
) -> Result<Box<dyn RuntimeBackend>, Error> {
    use aegis_backend_tvm::{Gpu, LoadOptions, TvmBackend};
    use aegis_cuda::DriverKind;
    let Ground { device, arena, preparation, memory_limit } = ground;
    let gpu = match (device.kind(), preparation) {
        (DriverKind::Host, _) => None,
        (DriverKind::Cuda, Some(Preparation { ordinal, stream })) => {
            let (device, arena) = (device.clone(), arena.clone());
            let (ordinal, preparation) = (*ordinal, Arc::clone(stream));
            Some(Gpu { device, ordinal, arena, preparation, graph })
        }
        _ => {
            let (backend, needs) = ("tvm", "host or cuda");
            return Err(Error::WrongDriver { model: name.to_owned(), backend, needs });
        }
    };
    match TvmBackend::load(&LoadOptions { files: modules.to_vec(), memory_limit, gpu }) {
        Ok(backend) => Ok(Box::new(backend)),
        Err(cause) => Err(Error::Load { model: name.to_owned(), cause }),
    }
}

#[cfg(not(feature = "tvm"))]
fn load_tvm(
    _: &str,
    _: &[PathBuf],
    _: bool,
    _: Ground<'_>,
) -> Result<Box<dyn RuntimeBackend>, Error> {
    Err(Error::NotBuilt { what: "TVM", feature: "tvm" })
}

#[cfg(feature = "trt")]
fn load_trt(
    name: &str,
    engines: &[PathBuf],
    graph: bool,
    ground: Ground<'_>,
) -> Result<Box<dyn RuntimeBackend>, Error> {
    use aegis_backend_trt::{Gpu, LoadOptions, TrtBackend};
    let Ground { device, arena, preparation, memory_limit } = ground;
    let (aegis_cuda::DriverKind::Cuda, Some(Preparation { stream, .. })) =
        (device.kind(), preparation)
    else {
        let (model, backend, needs) = (name.to_owned(), "trt", "cuda");
        return Err(Error::WrongDriver { model, backend, needs });
    };
    let (device, arena) = (device.clone(), arena.clone());
    let gpu = Gpu { device, arena, preparation: Arc::clone(stream), graph };
    match TrtBackend::load(&LoadOptions { files: engines.to_vec(), memory_limit, gpu }) {
        Ok(backend) => Ok(Box::new(backend)),
        Err(cause) => Err(Error::Load { model: name.to_owned(), cause }),
    }
}

#[cfg(not(feature = "trt"))]
fn load_trt(
    _: &str,
    _: &[PathBuf],
    _: bool,
    _: Ground<'_>,
) -> Result<Box<dyn RuntimeBackend>, Error> {
    Err(Error::NotBuilt { what: "TensorRT", feature: "trt" })
}

/// A model in memory of its runtime, not yet admitted.
pub struct LoadedModel {
    pub(crate) name: String,
    /// Where it is to run.
    pub(crate) partition: PartitionId,
    pub(crate) backend: Box<dyn RuntimeBackend>,
}

impl std::fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModel").field("name", &self.name).finish_non_exhaustive()
    }
}

impl LoadedModel {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its inputs, outputs and stages.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        self.backend.description()
    }

    /// The runtime that executes it, with its version.
    #[must_use]
    pub fn runtime_name(&self) -> String {
        self.backend.runtime_name()
    }

    /// What it needs: memory that stays, and scratch that is shared.
    #[must_use]
    pub fn memory(&self) -> MemoryNeed {
        MemoryNeed::of(self.backend.memory())
    }
}

/// The memory of one model in two figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MemoryNeed {
    /// Weights, state, inputs, outputs and what crosses stages: adds up over models.
    pub resident: Bytes,
    /// What only runs need: shared by all models of a partition.
    pub scratch: Bytes,
    /// The part of `resident` that crosses stages: shared like scratch by a model that is never
    /// suspended. Zero in evidence from before it was told apart.
    #[serde(default)]
    pub carried: Bytes,
}

impl MemoryNeed {
    fn of(tensors: &[TensorLifetime]) -> Self {
        let mut need = Self::default();
        for tensor in tensors {
            let aligned = tensor.size.checked_align_up(tensor.alignment).unwrap_or(tensor.size);
            match tensor.class {
                TensorClass::Scratch => need.scratch += aligned,
                TensorClass::Persistent | TensorClass::Io => need.resident += aligned,
                TensorClass::Carried => {
                    need.resident += aligned;
                    need.carried += aligned;
                }
            }
        }
        need
    }
}

//! From an ONNX file to a serialised engine: a tool, nothing of the execution path.
//!
//! TensorRT-RTX builds without a GPU: its engine holds what is compiled for the GPU at hand when it is
//! read. TensorRT times kernels on the GPU that it builds for.

use std::path::{Path, PathBuf};

use aegis_context::{BackendError, TensorSpec};
use aegis_trace::Bytes;
use trtx::{
    Builder, BuilderConfig, BuilderFlag, MemoryPoolType, NetworkDefinition, OnnxParser,
    ProfilingVerbosity, Tensor,
};

use crate::facts::{self, Element, Place, TensorFact};
use crate::ffi;
use crate::library::Library;
use crate::log::{Heard, listen};
use crate::refusal;

/// What the parser says of itself: errors alone, the rest is in the log.
const PARSER_VERBOSITY: i32 = 1;
/// How the library's own figures about an engine begin.
const FIGURES: [&str; 3] = ["Total ", "Max Scratch Memory", "Detected "];

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The ONNX file. What it keeps in files beside it is found from here.
    pub model: PathBuf,
    /// How many streams the engine may use beside its job's own. Zero is the deterministic choice.
    pub aux_streams: u16,
    /// Whether matrix products may round the factors of fp32 to ten bits (TF32).
    pub tf32: bool,
    /// What a layer may take as its workspace; `None` leaves it to the library.
    pub workspace: Option<Bytes>,
    /// The compute capabilities to build for, as in 89 for 8.9; none is every one that the library
    /// supports. TensorRT builds for the GPU at hand alone.
    pub compute_capabilities: Vec<u16>,
}

/// A serialised engine, and what is known of it.
#[derive(Clone, Debug)]
pub struct BuiltEngine {
    /// The plan: what is written to a file and loaded later.
    pub plan: Vec<u8>,
    /// The library that built it; no other release reads it.
    pub runtime: String,
    /// The inputs of the network.
    pub inputs: Vec<TensorSpec>,
    /// The outputs of the network.
    pub outputs: Vec<TensorSpec>,
    /// Layers of the network, before the library fuses them.
    pub layers: u32,
    /// What the library says of the engine's memory, in its own words.
    pub figures: Vec<String>,
}

/// Builds an engine. Blocks for as long as the library takes: seconds for TensorRT-RTX, minutes for
/// TensorRT.
///
/// # Errors
/// [`BackendError`], Permanent: `Library`; `File`; `BadModel` with what the parser or the builder says;
/// `DynamicShape` and `UnsupportedType` with the name of the tensor; `OutOfMemory` and `Runtime` with
/// the library's text.
pub fn build_engine(options: &BuildOptions) -> Result<BuiltEngine, BackendError> {
    let path = options.model.display().to_string();
    let metadata = std::fs::metadata(&options.model);
    let readable = metadata.and_then(|_| std::fs::File::open(&options.model));
    readable.map_err(|cause| BackendError::File { path: path.clone(), cause })?;
    let library = Library::get()?;
    library.load_parser()?;
    let logger = ffi::logger().map_err(|reason| BackendError::Runtime { reason })?;
    let (made, heard) = listen(|| Builder::new(logger));
    let mut builder = ffi::sound(made, &heard)?;
    let (read, heard) = listen(|| {
        let network = builder.create_network(0)?;
        let mut parser = OnnxParser::new(network, logger)?;
        parser.parse_from_file(utf8(&options.model)?, PARSER_VERBOSITY).map(|()| parser)
    });
    let mut parser = read.map_err(|error| unreadable(&path, &error, &heard))?;
    let network = parser.network_mut();
    let (inputs, outputs) = faces(&path, network)?;
    let layers = u32::try_from(network.nb_layers()).unwrap_or(0);
    let (built, heard) = listen(|| {
        let mut config = builder.create_config()?;
        configure(&mut config, options)?;
        Ok(builder.build_serialized_network(network, &mut config)?.to_vec())
    });
    let plan = built.map_err(|error: trtx::Error| unbuildable(&path, &error, &heard))?;
    let (runtime, figures) = (library.name(), heard.lines_with(&FIGURES));
    Ok(BuiltEngine { plan, runtime, inputs, outputs, layers, figures })
}

fn utf8(path: &Path) -> trtx::Result<&str> {
    let refused = || trtx::Error::InvalidArgument("its path is not UTF-8".to_owned());
    path.to_str().ok_or_else(refused)
}

fn configure(config: &mut BuilderConfig<'_>, options: &BuildOptions) -> trtx::Result<()> {
    config.set_max_aux_streams(i32::from(options.aux_streams));
    config.set_profiling_verbosity(ProfilingVerbosity::kDETAILED); // So that it can be inspected.
    match options.tf32 {
        true => config.set_flag(BuilderFlag::kTF32),
        false => config.clear_flag(BuilderFlag::kTF32),
    }
    if let Some(workspace) = options.workspace {
        config.set_memory_pool_limit(MemoryPoolType::kWORKSPACE, workspace.as_usize());
    }
    target(config, &options.compute_capabilities)
}

/// Says which GPUs the engine is for.
#[cfg(not(feature = "enterprise"))]
fn target(config: &mut BuilderConfig<'_>, wanted: &[u16]) -> trtx::Result<()> {
    use trtx::ComputeCapability as Capability;

    const KNOWN: [(u16, Capability); 6] = [
        (75, Capability::kSM75),
        (80, Capability::kSM80),
        (86, Capability::kSM86),
        (89, Capability::kSM89),
        (120, Capability::kSM120),
        (121, Capability::kSM121),
    ];
    if wanted.is_empty() {
        return Ok(());
    }
    config.set_nb_compute_capabilities(i32::try_from(wanted.len()).unwrap_or(i32::MAX))?;
    for (index, wanted) in (0..).zip(wanted) {
        let known = KNOWN.iter().find(|(number, _)| number == wanted);
        let (_, capability) = known.ok_or_else(|| {
            let all: Vec<_> = KNOWN.iter().map(|(number, _)| number.to_string()).collect();
            let all = all.join(", ");
            let reason = format!("compute capability {wanted} is none that it builds for: {all}");
            trtx::Error::InvalidArgument(reason)
        })?;
        config.set_compute_capability(*capability, index)?;
    }
    Ok(())
}

#[cfg(feature = "enterprise")]
fn target(_: &mut BuilderConfig<'_>, wanted: &[u16]) -> trtx::Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let reason = "TensorRT builds for the GPU at hand, and takes no compute capability";
    Err(trtx::Error::InvalidArgument(reason.to_owned()))
}

type Faces = (Vec<TensorSpec>, Vec<TensorSpec>);

/// Inputs and outputs, refused by name where their shapes are not fixed.
fn faces(path: &str, network: &NetworkDefinition<'_>) -> Result<Faces, BackendError> {
    let fact = |tensor: trtx::Result<Tensor<'_>>| -> trtx::Result<TensorFact> {
        let tensor = tensor?;
        let (name, shape) = (tensor.name(network)?, tensor.dimensions(network)?);
        let element = Element::of(tensor.data_type(network));
        Ok(TensorFact { name, element, shape, place: Place::Device })
    };
    let told = |error: trtx::Error| BackendError::Runtime { reason: error.to_string() };
    let inputs = (0..network.nb_inputs()).map(|index| fact(network.input(index)));
    let inputs: Vec<_> = inputs.collect::<Result<_, _>>().map_err(told)?;
    let inputs = facts::specs(path, &inputs)?;
    let outputs = (0..network.nb_outputs()).map(|index| fact(network.output(index)));
    let outputs: Vec<_> = outputs.collect::<Result<_, _>>().map_err(told)?;
    Ok((inputs, facts::specs(path, &outputs)?))
}

fn unreadable(path: &str, error: &trtx::Error, heard: &Heard) -> BackendError {
    BackendError::BadModel { path: path.to_owned(), reason: said(error, heard) }
}

/// A network that cannot be built is the network's fault, unless memory ran out.
fn unbuildable(path: &str, error: &trtx::Error, heard: &Heard) -> BackendError {
    match refusal::failed(&error.to_string(), heard) {
        memory @ BackendError::OutOfMemory { .. } => memory,
        _ => BackendError::BadModel { path: path.to_owned(), reason: said(error, heard) },
    }
}

/// The library's words; the binding's own where it said nothing.
fn said(error: &trtx::Error, heard: &Heard) -> String {
    let said = heard.complaints();
    if said.is_empty() { error.to_string() } else { said }
}

//! Serialised engines of TensorRT, built from ONNX files: a tool, nothing of the execution path.

use std::path::{Path, PathBuf};

use aegis_context::TensorSpec;
use aegis_trace::Bytes;

use crate::error::Error;

/// What to build.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The ONNX file, with fixed shapes.
    pub model: PathBuf,
    /// How many streams the engine may use beside its job's own. Zero is the deterministic choice.
    pub aux_streams: u16,
    /// Whether matrix products may round the factors of fp32 to ten bits (TF32).
    pub tf32: bool,
    /// What a layer may take as its workspace; `None` leaves it to the library.
    pub workspace: Option<Bytes>,
    /// The compute capabilities to build for, as in 89 for 8.9; none is every one that the library
    /// supports.
    pub compute_capabilities: Vec<u16>,
}

/// A serialised engine, and what is known of it.
#[derive(Clone, Debug)]
pub struct BuiltEngine {
    /// What is written to a file and named in a workload.
    pub plan: Vec<u8>,
    /// The library that built it, which alone reads it.
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

/// Builds an engine from an ONNX file. Blocks for as long as the library takes: around a second for a
/// network of this project. TensorRT-RTX needs no GPU for it.
///
/// # Errors
/// Permanent: [`Error::NotBuilt`] without the feature `trt`; [`Error::Engine`] with the library's text
/// where the library is not there or the network is refused.
pub fn build_engine(options: &EngineOptions) -> Result<BuiltEngine, Error> {
    build(options)
}

/// What the library says of the serialised engine in `file`, in lines for people: how it judges the
/// header, inputs and outputs, memory, and all layers as JSON. Reads it on the GPU at hand.
///
/// # Errors
/// As [`build_engine`]; a damaged engine, or one of another release, is refused on any machine, one
/// for another GPU where there is a GPU.
pub fn inspect_engine(file: &Path) -> Result<Vec<String>, Error> {
    inspect(file)
}

#[cfg(feature = "trt")]
fn build(options: &EngineOptions) -> Result<BuiltEngine, Error> {
    use aegis_backend_trt::BuildOptions;
    let EngineOptions { model, aux_streams, tf32, workspace, compute_capabilities } = options;
    let options = BuildOptions {
        model: model.clone(),
        aux_streams: *aux_streams,
        tf32: *tf32,
        workspace: *workspace,
        compute_capabilities: compute_capabilities.clone(),
    };
    let built = aegis_backend_trt::build_engine(&options).map_err(Error::Engine)?;
    let aegis_backend_trt::BuiltEngine { plan, runtime, inputs, outputs, layers, figures } = built;
    Ok(BuiltEngine { plan, runtime, inputs, outputs, layers, figures })
}

#[cfg(feature = "trt")]
fn inspect(file: &Path) -> Result<Vec<String>, Error> {
    let found = aegis_backend_trt::inspect(file).map_err(Error::Engine)?;
    let mut lines = vec![format!("read by    {}", found.runtime)];
    lines.extend(found.verdict.map(|verdict| format!("header     {verdict}")));
    lines.extend(found.inputs.iter().map(|spec| format!("input      {spec}")));
    lines.extend(found.outputs.iter().map(|spec| format!("output     {spec}")));
    lines.push(format!("scratch    {}", found.scratch));
    lines.push(format!("streams    {} beside its own", found.aux_streams));
    lines.push(found.layers);
    Ok(lines)
}

#[cfg(not(feature = "trt"))]
fn build(_: &EngineOptions) -> Result<BuiltEngine, Error> {
    Err(Error::NotBuilt { what: "TensorRT", feature: "trt" })
}

#[cfg(not(feature = "trt"))]
fn inspect(_: &Path) -> Result<Vec<String>, Error> {
    Err(Error::NotBuilt { what: "TensorRT", feature: "trt" })
}

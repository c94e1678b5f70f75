//! `aegis build-engine`: a serialised engine of TensorRT from an ONNX file.

use std::path::{Path, PathBuf};

use aegis::Bytes;
use aegis::engine::{BuiltEngine, EngineOptions, build_engine, inspect_engine};
use anyhow::{Context, Result};
use clap::{ArgAction, Args};

use crate::Answer;
use crate::output::print;
use crate::written::{self, Written};

/// TensorRT-RTX builds for all GPUs that it supports and needs none for it. `--log info` shows what
/// the library says meanwhile.
#[derive(Args)]
pub(crate) struct BuildEngineArgs {
    /// The ONNX file, with fixed shapes.
    #[arg(required_unless_present = "inspect")]
    model: Option<PathBuf>,
    /// Where to write the engine; without, beside the model with the ending `.engine`.
    #[arg(long, value_name = "OUT.engine")]
    out: Option<PathBuf>,
    /// How many streams the engine may use beside its job's own. More may be faster and vary more.
    #[arg(long, value_name = "N", default_value_t = 0)]
    aux_streams: u16,
    /// Whether matrix products may round the factors of fp32 to ten bits.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    tf32: bool,
    /// What a layer may take as its workspace, such as 64MiB; without, the library decides.
    #[arg(long, value_name = "BYTES")]
    workspace: Option<Bytes>,
    /// The GPUs to build for by their compute capability, such as 89 or 86,120; without, all that the
    /// library supports.
    #[arg(long, value_name = "CC", value_delimiter = ',')]
    compute_capability: Vec<u16>,
    /// Instead of building: print what the library says of this engine, read on the GPU at hand.
    #[arg(long, value_name = "ENGINE", conflicts_with_all = ["model", "out"])]
    inspect: Option<PathBuf>,
}

pub(crate) fn run(args: &BuildEngineArgs) -> Result<Answer> {
    if let Some(engine) = &args.inspect {
        print(inspect_engine(engine)?.join("\n"))?;
        return Ok(Answer::Yes);
    }
    let model = args.model.as_ref().expect("clap asks for one of both");
    let out = args.out.clone().unwrap_or_else(|| model.with_extension("engine"));
    let engine = Written { by: "the engine", path: &out };
    written::overwrites_nothing(&[engine], [model.as_path()])?;
    let options = EngineOptions {
        model: model.clone(),
        aux_streams: args.aux_streams,
        tf32: args.tf32,
        workspace: args.workspace,
        compute_capabilities: args.compute_capability.clone(),
    };
    let built = build_engine(&options)?;
    std::fs::write(&out, &built.plan).with_context(|| format!("cannot write {}", out.display()))?;
    print(shown(&built, &out))?;
    Ok(Answer::Yes)
}

fn shown(built: &BuiltEngine, out: &Path) -> String {
    let mut lines = vec![format!("built by   {}", built.runtime)];
    lines.extend(built.inputs.iter().map(|spec| format!("input      {spec}")));
    lines.extend(built.outputs.iter().map(|spec| format!("output     {spec}")));
    lines.push(format!("network    {} layers", built.layers));
    lines.extend(built.figures.iter().map(|line| format!("           {line}")));
    lines.push(format!("engine     {}: {}", out.display(), Bytes(built.plan.len() as u64)));
    lines.join("\n")
}

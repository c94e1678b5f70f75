//! What the library says of a serialised engine, without binding it.

use std::path::Path;

use aegis_context::{BackendError, TensorSpec};
use aegis_trace::Bytes;

use crate::facts;
use crate::ffi::{self, Engine};
use crate::library::Library;

/// A plan that the library reads on the GPU at hand.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The library that reads it.
    pub runtime: String,
    /// What it says of the plan's header; `None` where it does not judge headers (TensorRT).
    pub verdict: Option<String>,
    /// The inputs.
    pub inputs: Vec<TensorSpec>,
    /// The outputs.
    pub outputs: Vec<TensorSpec>,
    /// What a run needs beside what the engine keeps.
    pub scratch: Bytes,
    /// Streams that a run uses beside its own.
    pub aux_streams: usize,
    /// What it executes, layer by layer, as the library's own JSON.
    pub layers: String,
}

/// Reads the plan in `file` with memory of the library's own, for diagnosis. Needs a GPU that the
/// library supports; a plan that is damaged or of another release is refused on any machine.
///
/// # Errors
/// [`BackendError`], Permanent: `Library`, `File`, and the refusals of the library, told apart:
/// `BadModel`, `OtherVersion`, `OtherDevice`, `OutOfMemory`, or `Runtime` with its text.
pub fn inspect(file: &Path) -> Result<Inspection, BackendError> {
    let path = file.display().to_string();
    let plan =
        std::fs::read(file).map_err(|cause| BackendError::File { path: path.clone(), cause })?;
    let runtime = Library::get()?.name();
    let verdict = ffi::header(&plan)?.verdict;
    let mut engine = Engine::read(&path, &plan, None)?;
    let facts = engine.facts()?;
    Ok(Inspection {
        runtime,
        verdict,
        inputs: facts::specs(&path, &facts.inputs)?,
        outputs: facts::specs(&path, &facts.outputs)?,
        scratch: facts.scratch,
        aux_streams: facts.aux_streams,
        layers: engine.layers()?,
    })
}

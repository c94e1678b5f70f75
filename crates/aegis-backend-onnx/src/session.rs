//! One ONNX file as a session, with everything about it checked that can be checked before a run.

use std::fs;
use std::path::{Path, PathBuf};

use aegis_context::{BackendError, DType, TensorSpec};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::sys::ONNXTensorElementDataType;
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::ffi::{self, Provider};
use crate::library::{self, Library};

/// A session and what its file promises about it.
#[derive(Debug)]
pub(crate) struct LoadedStage {
    /// The file it was made of.
    pub(crate) file: PathBuf,
    /// The session.
    pub(crate) session: Session,
    /// Its inputs, in the session's order.
    pub(crate) inputs: Vec<TensorSpec>,
    /// Its outputs, in the session's order.
    pub(crate) outputs: Vec<TensorSpec>,
}

/// Loads one file, for the processor or for the GPU of `provider`. Blocks while the runtime optimises
/// the graph.
///
/// # Errors
/// [`BackendError`]: `Library`, `File`, `BadModel`, `DynamicShape` or `UnsupportedType`, all Permanent.
pub(crate) fn load(
    library: &Library,
    file: &Path,
    threads: u16,
    provider: Option<&Provider>,
) -> Result<LoadedStage, BackendError> {
    let path = || file.display().to_string();
    // ONNX Runtime reports a missing file only as text; ask the system first.
    fs::File::open(file).map_err(|cause| BackendError::File { path: path(), cause })?;
    let bad_model = |reason: String| BackendError::BadModel { path: path(), reason };
    let builder = options(library, threads).map_err(|error| bad_model(error.to_string()))?;
    let mut builder = match provider {
        Some(provider) => on_gpu(builder, provider)?,
        None => builder,
    };
    let session = builder.commit_from_file(file).map_err(|error| bad_model(error.to_string()))?;
    let specs = |outlets: &[Outlet]| -> Result<Vec<TensorSpec>, BackendError> {
        outlets.iter().map(|outlet| static_spec(file, outlet)).collect()
    };
    let (inputs, outputs) = (specs(session.inputs())?, specs(session.outputs())?);
    if outputs.is_empty() {
        return Err(bad_model("it has no output".into()));
    }
    Ok(LoadedStage { file: file.to_owned(), session, inputs, outputs })
}

fn options(library: &Library, threads: u16) -> ort::Result<SessionBuilder> {
    Ok(Session::builder(library.environment().get())?
        .with_env_allocators()?
        .with_intra_threads(usize::from(threads.max(1)))? // Zero would mean every core there is.
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)? // A spinning pool thread would steal the orchestrator's core.
        .with_log_level(ort::logging::LogLevel::Fatal)?)
}

/// The same for the GPU of `provider`.
fn on_gpu(builder: SessionBuilder, provider: &Provider) -> Result<SessionBuilder, BackendError> {
    let fallback = if provider.fallback { "0" } else { "1" };
    let mut builder = builder
        .with_config_entry("session.disable_cpu_ep_fallback", fallback)
        .map_err(|error| library::no_provider(error.to_string()))?;
    ffi::append(&mut builder, provider).map_err(library::no_provider)?;
    Ok(builder)
}

/// The specification of an input or output, or the reason it cannot be bound.
fn static_spec(file: &Path, outlet: &Outlet) -> Result<TensorSpec, BackendError> {
    let (path, tensor) = (file.display().to_string(), outlet.name().to_owned());
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        let dtype = outlet.dtype().to_string();
        return Err(BackendError::UnsupportedType { path, tensor, dtype });
    };
    let Some(dtype) = dtype_of(*ty) else {
        return Err(BackendError::UnsupportedType { path, tensor, dtype: ty.to_string() });
    };
    let mut sizes = Vec::with_capacity(shape.len());
    for (axis, size) in shape.iter().enumerate() {
        let Ok(size) = usize::try_from(*size) else {
            let symbol = match dimension_symbols.get(axis) {
                Some(name) if !name.is_empty() => format!(" (`{name}`)"),
                _ => String::new(),
            };
            return Err(BackendError::DynamicShape { path, tensor, axis, symbol });
        };
        sizes.push(size);
    }
    if !fits_memory(&sizes, dtype) {
        let reason = format!("`{tensor}` of shape {sizes:?} is larger than any memory");
        return Err(BackendError::BadModel { path, reason });
    }
    Ok(TensorSpec { name: tensor, dtype, shape: sizes })
}

/// Whether a tensor can exist: its size in bytes is a number that an address range can have.
fn fits_memory(shape: &[usize], dtype: DType) -> bool {
    let elements = shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
    let bytes = elements.and_then(|elements| elements.checked_mul(dtype.size()));
    bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok())
}

/// Our name for an element type; `None` for those without a fixed size in memory.
fn dtype_of(element: TensorElementType) -> Option<DType> {
    Some(match element {
        TensorElementType::Bool => DType::Bool,
        TensorElementType::Int8 => DType::I8,
        TensorElementType::Uint8 => DType::U8,
        TensorElementType::Int16 => DType::I16,
        TensorElementType::Uint16 => DType::U16,
        TensorElementType::Float16 => DType::F16,
        TensorElementType::Bfloat16 => DType::Bf16,
        TensorElementType::Int32 => DType::I32,
        TensorElementType::Uint32 => DType::U32,
        TensorElementType::Float32 => DType::F32,
        TensorElementType::Int64 => DType::I64,
        TensorElementType::Uint64 => DType::U64,
        TensorElementType::Float64 => DType::F64,
        _ => return None,
    })
}

/// ONNX Runtime's name for one of our element types.
pub(crate) fn element_of(dtype: DType) -> Option<ONNXTensorElementDataType> {
    Some(ONNXTensorElementDataType::from(match dtype {
        DType::Bool => TensorElementType::Bool,
        DType::I8 => TensorElementType::Int8,
        DType::U8 => TensorElementType::Uint8,
        DType::I16 => TensorElementType::Int16,
        DType::U16 => TensorElementType::Uint16,
        DType::F16 => TensorElementType::Float16,
        DType::Bf16 => TensorElementType::Bfloat16,
        DType::I32 => TensorElementType::Int32,
        DType::U32 => TensorElementType::Uint32,
        DType::F32 => TensorElementType::Float32,
        DType::I64 => TensorElementType::Int64,
        DType::U64 => TensorElementType::Uint64,
        DType::F64 => TensorElementType::Float64,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_types_translate_both_ways() {
        for element in
            [TensorElementType::Float32, TensorElementType::Int64, TensorElementType::Bool]
        {
            let dtype = dtype_of(element).expect("a fixed size");
            assert_eq!(element_of(dtype), Some(ONNXTensorElementDataType::from(element)));
        }
        assert_eq!(dtype_of(TensorElementType::String), None);
    }

    #[test]
    fn a_tensor_beyond_any_memory_is_told_from_a_large_one() {
        assert!(fits_memory(&[], DType::F64));
        assert!(fits_memory(&[1 << 40, 0], DType::F32));
        assert!(fits_memory(&[1 << 40], DType::F32));
        assert!(!fits_memory(&[1 << 61], DType::F32));
        assert!(!fits_memory(&[1 << 40, 1 << 40], DType::Bool));
    }
}

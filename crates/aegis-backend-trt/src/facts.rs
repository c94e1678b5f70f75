//! What an engine says about itself, and whether AegisRT can run it.

use aegis_context::{BackendError, DType, TensorSpec};
use aegis_trace::Bytes;
use trtx::DataType;

/// An engine from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EngineFacts {
    pub(crate) inputs: Vec<TensorFact>,
    pub(crate) outputs: Vec<TensorFact>,
    /// What a run needs beside what it keeps.
    pub(crate) scratch: Bytes,
    /// Streams that a run uses beside its own.
    pub(crate) aux_streams: usize,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorFact {
    pub(crate) name: String,
    pub(crate) element: Element,
    /// Outermost first; negative where it is not known.
    pub(crate) shape: Vec<i64>,
    pub(crate) place: Place,
}

/// The type of elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Known(DType),
    /// One that nothing of ours can hold, as the library calls it.
    Other(String),
}

/// Where and how the engine wants a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the device, elements packed in row-major order.
    Device,
    /// On the device, in another layout, as the library calls it.
    DeviceIn(String),
    /// In memory of the host.
    Host,
}

impl Element {
    pub(crate) fn of(of: DataType) -> Self {
        Self::Known(match of {
            DataType::kBOOL => DType::Bool,
            DataType::kINT8 => DType::I8,
            DataType::kUINT8 => DType::U8,
            DataType::kHALF => DType::F16,
            DataType::kBF16 => DType::Bf16,
            DataType::kINT32 => DType::I32,
            DataType::kFLOAT => DType::F32,
            DataType::kINT64 => DType::I64,
            other => return Self::Other(format!("{other:?}").trim_start_matches('k').to_owned()),
        })
    }
}

impl TensorFact {
    /// The tensor as the rest of AegisRT knows it.
    ///
    /// # Errors
    /// [`BackendError::DynamicShape`], [`BackendError::UnsupportedType`], or
    /// [`BackendError::BadModel`] for one that cannot be bound to memory of the device.
    pub(crate) fn spec(&self, path: &str) -> Result<TensorSpec, BackendError> {
        let name = self.name.clone();
        let dtype = match &self.element {
            Element::Known(dtype) => *dtype,
            Element::Other(dtype) => {
                let (path, dtype) = (path.to_owned(), dtype.clone());
                return Err(BackendError::UnsupportedType { path, tensor: name, dtype });
            }
        };
        let mut shape = Vec::with_capacity(self.shape.len());
        for (axis, size) in self.shape.iter().enumerate() {
            let Ok(size) = usize::try_from(*size) else {
                let (path, symbol) = (path.to_owned(), String::new());
                return Err(BackendError::DynamicShape { path, tensor: name, axis, symbol });
            };
            shape.push(size);
        }
        let refuse = |what: String| BackendError::BadModel { path: path.to_owned(), reason: what };
        match &self.place {
            Place::Device => {}
            Place::DeviceIn(layout) => {
                return Err(refuse(format!(
                    "it wants `{name}` in the layout {layout}, not packed"
                )));
            }
            Place::Host => {
                return Err(refuse(format!("it wants `{name}` in memory of the host")));
            }
        }
        let bytes = shape.iter().try_fold(dtype.size(), |bytes, size| bytes.checked_mul(*size));
        bytes.ok_or_else(|| refuse(format!("`{name}` is larger than any memory")))?;
        Ok(TensorSpec { name, dtype, shape })
    }
}

/// The tensors of one side of an engine.
///
/// # Errors
/// As [`TensorFact::spec`], for the first that cannot be bound.
pub(crate) fn specs(path: &str, tensors: &[TensorFact]) -> Result<Vec<TensorSpec>, BackendError> {
    tensors.iter().map(|tensor| tensor.spec(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(shape: &[i64]) -> TensorFact {
        let element = Element::Known(DType::F32);
        TensorFact { name: "x".into(), element, shape: shape.to_vec(), place: Place::Device }
    }

    #[test]
    fn a_tensor_with_a_static_shape_is_taken_as_it_is() {
        let spec = fact(&[1, 3]).spec("a.engine").expect("it can be bound");
        assert_eq!(spec.to_string(), "x: f32[1, 3]");
    }

    #[test]
    fn what_cannot_be_bound_is_refused_by_name() {
        let dynamic = fact(&[-1, 3]).spec("a.engine").expect_err("it is dynamic");
        assert!(matches!(dynamic, BackendError::DynamicShape { axis: 0, .. }), "{dynamic}");
        let four_bits = TensorFact { element: Element::of(DataType::kFP4), ..fact(&[1]) };
        let error = four_bits.spec("a.engine").expect_err("half a byte");
        assert_eq!(
            error.to_string(),
            "a.engine: `x` has elements of type FP4, which cannot be bound"
        );
        for place in [Place::Host, Place::DeviceIn("CHW32".into())] {
            let error = TensorFact { place, ..fact(&[1]) }.spec("a.engine").expect_err("elsewhere");
            assert!(matches!(error, BackendError::BadModel { .. }), "{error}");
        }
        let endless = fact(&[i64::MAX, 3]).spec("a.engine").expect_err("more than all memory");
        assert!(endless.to_string().contains("larger than any memory"), "{endless}");
    }
}

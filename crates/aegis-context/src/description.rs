//! What a model looks like from outside: its inputs, its outputs and its stages.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the scalar type of its name")]
pub enum DType {
    Bool,
    I8,
    U8,
    I16,
    U16,
    F16,
    Bf16,
    I32,
    U32,
    F32,
    I64,
    U64,
    F64,
}

impl DType {
    /// Bytes of one element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I16 => "i16",
            Self::U16 => "u16",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::F32 => "f32",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::F64 => "f64",
        })
    }
}

/// One input or output: its name, element type and static shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// The name the runtime knows it by.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its shape, outermost dimension first; a scalar has none.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// How many elements the shape holds.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// How many bytes the tensor takes, elements packed in row-major order.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }
}

/// Prints as `images: f32[1, 3, 224, 224]`.
impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{:?}", self.name, self.dtype, self.shape)
    }
}

/// A model from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelDescription {
    /// The inputs, in the runtime's order.
    pub inputs: Vec<TensorSpec>,
    /// The outputs, in the runtime's order.
    pub outputs: Vec<TensorSpec>,
    /// How many stages it runs in; at least one.
    pub stages: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_knows_its_size_and_prints_its_shape() {
        let spec = TensorSpec { name: "x".into(), dtype: DType::F16, shape: vec![1, 3, 4] };
        assert_eq!(spec.bytes(), 24);
        assert_eq!(spec.to_string(), "x: f16[1, 3, 4]");
        let scalar = TensorSpec { name: "s".into(), dtype: DType::I64, shape: vec![] };
        assert_eq!(scalar.bytes(), 8);
    }
}

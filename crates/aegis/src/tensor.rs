//! Inputs and outputs as callers give and get them.

use aegis_context::{DType, InputError, ModelDescription, TensorSpec};

/// An input: a name, a shape, and the elements packed in row-major order, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor of `f32` elements.
    #[must_use]
    pub fn f32(name: &str, shape: &[usize], elements: &[f32]) -> Self {
        let bytes = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
        Self::bytes(name, DType::F32, shape, bytes)
    }

    /// A tensor of `i64` elements.
    #[must_use]
    pub fn i64(name: &str, shape: &[usize], elements: &[i64]) -> Self {
        let bytes = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
        Self::bytes(name, DType::I64, shape, bytes)
    }

    /// A tensor of any type from its bytes.
    #[must_use]
    pub fn bytes(name: &str, dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether this is what `spec` wants.
    fn check(&self, spec: &TensorSpec) -> Result<(), InputError> {
        let wanted = || Box::new(spec.clone());
        if self.dtype != spec.dtype {
            return Err(InputError::WrongType { spec: wanted(), given: self.dtype });
        }
        if self.shape != spec.shape {
            return Err(InputError::WrongShape { spec: wanted(), given: self.shape.clone() });
        }
        if self.bytes.len() != spec.bytes() {
            return Err(InputError::WrongLength { spec: wanted(), given: self.bytes.len() });
        }
        Ok(())
    }
}

/// Puts `inputs` in the order of the description, each checked.
///
/// # Errors
/// [`InputError`], Permanent: an unknown, missing or doubled name, or a wrong type, shape or
/// length.
pub(crate) fn in_order<'t>(
    description: &ModelDescription,
    inputs: &'t [Tensor],
) -> Result<Vec<&'t Tensor>, InputError> {
    for (index, input) in inputs.iter().enumerate() {
        if !description.inputs.iter().any(|spec| spec.name == input.name) {
            return Err(unknown(&input.name, &description.inputs));
        }
        if inputs[..index].iter().any(|other| other.name == input.name) {
            return Err(InputError::Duplicate { name: input.name.clone() });
        }
    }
    let find = |spec: &TensorSpec| {
        let input = inputs.iter().find(|input| input.name == spec.name);
        let input = input.ok_or_else(|| InputError::Missing { name: spec.name.clone() })?;
        input.check(spec).map(|()| input)
    };
    description.inputs.iter().map(find).collect()
}

/// The error for a name that is none of `specs`.
pub(crate) fn unknown(name: &str, specs: &[TensorSpec]) -> InputError {
    let known: Vec<String> = specs.iter().map(|spec| format!("`{}`", spec.name)).collect();
    InputError::UnknownName { name: name.to_owned(), known: known.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> ModelDescription {
        let spec = |name: &str, shape: &[usize]| TensorSpec {
            name: name.into(),
            dtype: DType::F32,
            shape: shape.to_vec(),
        };
        ModelDescription {
            inputs: vec![spec("a", &[2]), spec("b", &[1, 1])],
            outputs: vec![],
            stages: 1,
        }
    }

    #[test]
    fn inputs_are_put_in_the_models_order() {
        let inputs = [Tensor::f32("b", &[1, 1], &[3.0]), Tensor::f32("a", &[2], &[1.0, 2.0])];
        let ordered = in_order(&description(), &inputs).expect("they fit");
        assert_eq!(ordered[0].name(), "a");
        assert_eq!(ordered[1].as_bytes(), 3.0f32.to_le_bytes());
    }

    #[test]
    fn every_misfit_is_named() {
        let a = || Tensor::f32("a", &[2], &[1.0, 2.0]);
        let error =
            |inputs: &[Tensor]| in_order(&description(), inputs).expect_err("misfit").to_string();
        expect_test::expect!["the model has no tensor `c`; it has `a`, `b`"]
            .assert_eq(&error(&[a(), Tensor::f32("c", &[1], &[0.0])]));
        expect_test::expect!["input `a` is given twice"].assert_eq(&error(&[a(), a()]));
        expect_test::expect!["input `b` is missing"].assert_eq(&error(&[a()]));
        expect_test::expect!["`b: f32[1, 1]` was given elements of type i64"]
            .assert_eq(&error(&[a(), Tensor::i64("b", &[1, 1], &[1])]));
        expect_test::expect!["`b: f32[1, 1]` was given shape [1]"]
            .assert_eq(&error(&[a(), Tensor::f32("b", &[1], &[1.0])]));
        expect_test::expect!["`b: f32[1, 1]` takes 4 bytes and was given 8"]
            .assert_eq(&error(&[a(), Tensor::f32("b", &[1, 1], &[1.0, 2.0])]));
    }
}

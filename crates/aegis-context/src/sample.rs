//! Inputs to prepare a model with: the same each time, and no value an exception.
//!
//! Small fractions for floating point, so that no layer overflows; all values for bytes, which no
//! operator takes as indices; zero for everything else, which is a valid index of any table. So does
//! the generator of jobs (`aegis::drive`), so that a model is checked on what it is shown.

use crate::description::{DType, TensorSpec};

/// The bytes of one input, elements packed in row-major order.
///
/// # Panics
/// Never: sixteen bits fit sixteen bits.
#[must_use]
pub fn bytes(spec: &TensorSpec) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).expect("sixteen bits")) / 65_536.0 - 0.5
    };
    let elements = 0..spec.elements();
    match spec.dtype {
        DType::F32 => elements.flat_map(|_| next().to_le_bytes()).collect(),
        DType::F64 => elements.flat_map(|_| f64::from(next()).to_le_bytes()).collect(),
        // The sign and the first bits of the fraction, between a quarter and a half.
        DType::F16 => elements.flat_map(|_| half(next(), 0x3400, 10).to_le_bytes()).collect(),
        DType::Bf16 => elements.flat_map(|_| half(next(), 0x3e80, 7).to_le_bytes()).collect(),
        DType::U8 => elements.map(|_| next().to_bits().to_le_bytes()[2]).collect(),
        _ => vec![0; spec.bytes()],
    }
}

/// A number of sixteen bits: the exponent of a quarter, the sign of `value`, and a fraction of
/// `fraction_bits` bits.
fn half(value: f32, quarter: u16, fraction_bits: u32) -> u16 {
    let sign = if value < 0.0 { 0x8000 } else { 0 };
    let fraction = (value.to_bits() >> (23 - fraction_bits)) & ((1 << fraction_bits) - 1);
    sign | quarter | u16::try_from(fraction).expect("at most ten bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dtype: DType) -> TensorSpec {
        TensorSpec { name: "x".into(), dtype, shape: vec![2, 50] }
    }

    #[test]
    fn every_value_is_small_and_an_integer_is_zero() {
        let floats = bytes(&spec(DType::F32));
        let values = floats.chunks(4).map(|it| f32::from_le_bytes(it.try_into().expect("four")));
        assert!(values.clone().all(|value| value.abs() <= 0.5), "{floats:?}");
        assert!(values.clone().any(|value| value < 0.0) && values.clone().any(|value| value > 0.0));
        assert_eq!(bytes(&spec(DType::I64)), vec![0; spec(DType::I64).bytes()]);
        for dtype in [DType::F16, DType::Bf16, DType::F64, DType::U8] {
            assert_eq!(bytes(&spec(dtype)).len(), spec(dtype).bytes());
        }
        let halves = bytes(&spec(DType::F16));
        let exponents = halves.chunks(2).map(|it| u16::from_le_bytes([it[0], it[1]]) & 0x7c00);
        assert!(exponents.clone().all(|exponent| exponent == 0x3400), "a quarter to a half");
    }
}

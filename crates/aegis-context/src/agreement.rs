//! Whether two runs gave the same outputs.
//!
//! Most networks repeat themselves bit for bit. One with atomic additions (a scatter with duplicate
//! indices) does not even without a graph. And a library may choose another kernel while it is
//! captured, since it is given its workspace in another way: one that sums in another order. Such
//! outputs are held to a tolerance, which what is not a number never meets.
//!
//! For backends that prepare a model in more than one way, such as plainly and as a captured graph.

use crate::description::{DType, TensorSpec};

/// How far a value may be from the plain run's, as a share of the largest, where a network does not
/// repeat itself: eight unit roundoffs of half precision. Outputs of more bits are held to no less,
/// since what computed them may have had that precision.
const TOLERANCE: f64 = 8.0 / 2048.0;
/// The same for outputs in bf16, which have three bits fewer: eight of their own unit roundoffs. One
/// step of such a number is up to two of them.
const BRAIN_TOLERANCE: f64 = 8.0 / 256.0;

/// The outputs of one run, in the order of the model's.
pub type Outputs = Vec<Vec<u8>>;

/// How a model's runs are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Bit for bit.
    Bits,
    /// To a tolerance: two plain runs differed too.
    Close,
}

impl Agreement {
    /// The one that two plain runs have.
    #[must_use]
    pub fn of(one: &Outputs, other: &Outputs) -> Self {
        if one == other { Self::Bits } else { Self::Close }
    }

    /// The strictest in which `found` is what `expected` says, if one is no stricter than this.
    #[must_use]
    pub fn at_most(
        self,
        specs: &[TensorSpec],
        expected: &Outputs,
        found: &Outputs,
    ) -> Option<Self> {
        [self, Self::Close].into_iter().find(|way| way.holds(specs, expected, found))
    }

    /// Whether `found` is what `expected` says, for outputs of `specs`, in their order.
    #[must_use]
    pub fn holds(self, specs: &[TensorSpec], expected: &Outputs, found: &Outputs) -> bool {
        match self {
            Self::Bits => expected == found,
            Self::Close => {
                let mut all = specs.iter().zip(expected.iter().zip(found));
                all.all(|(spec, (expected, found))| close(spec.dtype, expected, found))
            }
        }
    }
}

/// Numbers to a tolerance; everything else to the bit.
fn close(dtype: DType, expected: &[u8], found: &[u8]) -> bool {
    let numbers = |bytes: &[u8]| -> Option<Vec<f64>> {
        Some(match dtype {
            DType::F32 => bytes
                .chunks_exact(4)
                .map(|it| f64::from(f32::from_le_bytes(it.try_into().expect("four bytes"))))
                .collect(),
            DType::F64 => bytes
                .chunks_exact(8)
                .map(|it| f64::from_le_bytes(it.try_into().expect("eight bytes")))
                .collect(),
            DType::F16 => bytes
                .chunks_exact(2)
                .map(|it| half(u16::from_le_bytes(it.try_into().expect("two bytes"))))
                .collect(),
            DType::Bf16 => bytes
                .chunks_exact(2)
                .map(|it| f64::from(f32::from_le_bytes([0, 0, it[0], it[1]])))
                .collect(),
            _ => return None,
        })
    };
    let (Some(expected), Some(found)) = (numbers(expected), numbers(found)) else {
        return expected == found;
    };
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let far = largest * if dtype == DType::Bf16 { BRAIN_TOLERANCE } else { TOLERANCE };
    let near = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a - b).abs() <= far;
    expected.len() == found.len() && expected.iter().zip(&found).all(near)
}

/// A number of half precision, exactly: a sign, five bits of exponent, ten of fraction.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from((bits >> 10) & 0x1f), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2.0_f64.powi(-24), // Subnormal, or zero.
        0x1f if bits & 0x3ff == 0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (1024.0 + fraction) * 2.0_f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dtype: DType) -> Vec<TensorSpec> {
        vec![TensorSpec { name: "y".into(), dtype, shape: vec![2] }]
    }

    fn floats(values: [f32; 2]) -> Outputs {
        vec![values.iter().flat_map(|value| value.to_le_bytes()).collect()]
    }

    #[test]
    fn what_repeats_itself_is_held_to_the_bit() {
        let (one, other) = (floats([1.0, 2.0]), floats([1.0, 2.000_001]));
        assert_eq!(Agreement::of(&one, &one), Agreement::Bits);
        assert!(!Agreement::Bits.holds(&spec(DType::F32), &one, &other));
        assert_eq!(Agreement::of(&one, &other), Agreement::Close);
        assert!(Agreement::Close.holds(&spec(DType::F32), &one, &other));
    }

    #[test]
    fn another_order_of_summing_is_close_and_garbage_is_not() {
        let (one, other, garbage) = (floats([1.0, 2.0]), floats([1.0, 2.001]), floats([1.0, 2.02]));
        let found = |found| Agreement::Bits.at_most(&spec(DType::F32), &one, found);
        assert_eq!(found(&one), Some(Agreement::Bits));
        assert_eq!(found(&other), Some(Agreement::Close));
        assert_eq!(found(&garbage), None);
    }

    #[test]
    fn halves_are_decoded_exactly() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x0001, 2.0_f64.powi(-24)),
            (0x03ff, 1023.0 * 2.0_f64.powi(-24)),
            (0x0400, 2.0_f64.powi(-14)),
            (0x3c00, 1.0),
            (0x3c01, 1.0 + 1.0 / 1024.0),
            (0xc000, -2.0),
            (0x7bff, 65_504.0),
            (0x7c00, f64::INFINITY),
            (0xfc00, f64::NEG_INFINITY),
        ] {
            assert_eq!(half(bits).to_bits(), f64::to_bits(value), "{bits:#06x}");
        }
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn sixteen_bits_are_held_to_a_few_of_their_own_steps() {
        let words = |words: [u16; 2]| -> Outputs {
            vec![words.iter().flat_map(|word| word.to_le_bytes()).collect()]
        };
        // One in both, and three and five steps above it: four are eight unit roundoffs.
        for (dtype, one, near, far) in
            [(DType::F16, 0x3c00, 0x3c03, 0x3c05), (DType::Bf16, 0x3f80, 0x3f83, 0x3f85)]
        {
            let close = |other| {
                Agreement::Close.holds(&spec(dtype), &words([one, one]), &words([one, other]))
            };
            assert!(close(one) && close(near) && !close(far), "{dtype:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_close_to_none() {
        let one = floats([1.0, 2.0]);
        let close = |other| Agreement::Close.holds(&spec(DType::F32), &one, &other);
        assert!(!close(floats([1.0, f32::NAN])) && !close(floats([1.0, f32::INFINITY])));
        assert!(!close(floats([1.0, 2.1])));
        let (whole, other) = (vec![vec![1; 4]], vec![vec![2; 4]]);
        assert!(!Agreement::Close.holds(&spec(DType::U16), &whole, &other));
    }
}

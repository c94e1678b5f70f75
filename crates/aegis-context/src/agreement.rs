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
/// repeat itself: eight unit roundoffs of half precision, the coarsest that a network computes in.
const TOLERANCE: f64 = 8.0 / 2048.0;

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
    let near =
        |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a - b).abs() <= TOLERANCE * largest;
    expected.len() == found.len() && expected.iter().zip(&found).all(near)
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
    fn what_is_no_number_is_close_to_none() {
        let one = floats([1.0, 2.0]);
        let close = |other| Agreement::Close.holds(&spec(DType::F32), &one, &other);
        assert!(!close(floats([1.0, f32::NAN])) && !close(floats([1.0, f32::INFINITY])));
        assert!(!close(floats([1.0, 2.1])));
        let (whole, other) = (vec![vec![1; 4]], vec![vec![2; 4]]);
        assert!(!Agreement::Close.holds(&spec(DType::U16), &whole, &other));
    }
}

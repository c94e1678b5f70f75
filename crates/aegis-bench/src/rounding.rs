//! How far two correct runs of one network may lie apart because they round differently.
//!
//! # The expected error
//! Take `k` roundings on the longest path, each of a relative size of at most the unit roundoff `u`.
//! Where they are independent and have mean zero, their effects add as the legs of right angles do, so
//! the whole is that of one relative error of `sqrt(k) u` in what the network computes with; a sum of
//! `n` products in 32 bits adds `sqrt(n) 2^-24` at each. This is the backward error:
//!
//! ```text
//!   b = sqrt(k (r u^2 + n 2^-48))       r: roundings to u at each step
//!
//!   half      the result of every operator is rounded to 11 bits      u = 2^-11, r = 1
//!   TF32      both factors of every product are                       u = 2^-11, r = 2
//!   single    results are rounded to 24 bits                          u = 2^-24, r = 1
//! ```
//! By the deviation of what the network computes with, so far its numbers may be off, and by the
//! expectation of the largest of `N` normal errors, `sqrt(2 ln 2N)` times as far, any one of them. Each
//! is allowed three times that: the factor is the `lambda` of the theorem, which holds with probability
//! `1 - 2 exp(-lambda^2 / 2)`, 98 % at three, for one operation.
//!
//! A function that saturates at the end (the logistic one of a detector's scores) makes of the same error
//! nothing where it is flat, and much where it is steep. So the reference also gives what goes into it,
//! and an element may be off by what the function makes of the error allowed there, and the last
//! rounding.
//!
//! # Sources
//! - Higham, Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM Journal on Scientific
//!   Computing 41(5), 2019, A2815-A2835: the square root instead of `k`, and `lambda`.
//! - Blanchard, Higham, Lopez, Mary, Pranesh, "Mixed Precision Block Fused Multiply-Add: Error Analysis
//!   and Application to GPU Tensor Cores", SIAM Journal on Scientific Computing 42(3), 2020,
//!   C124-C141: factors rounded to 11 bits, sums in 24.

use serde::{Deserialize, Serialize};

/// How a network's numbers are rounded on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Precision {
    /// Weights and everything between them in 16 bits.
    Half,
    /// 32 bits, whose products round their factors to 11.
    Tf32,
    /// 32 bits.
    Single,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Half => "half",
            Self::Tf32 => "TF32",
            Self::Single => "single",
        })
    }
}

/// The `lambda` of the theorem.
const LAMBDA: f64 = 3.0;
const UNIT_HALF: f64 = 4.882_812_5e-4; // 2^-11
const UNIT_SINGLE: f64 = 5.960_464_477_539_063e-8; // 2^-24

/// What follows from how a network is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) precision: Precision,
    /// On the longest path to the output.
    pub(crate) roundings: u64,
    /// The most products that one number sums.
    pub(crate) longest_sum: u64,
}

/// How far numbers may be off, by their deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Allowed {
    /// The root of the mean square of all errors.
    pub(crate) mean: f64,
    /// The largest error of any element.
    pub(crate) worst: f64,
}

impl Path {
    /// The relative error in what the network computes with that amounts to all its roundings.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    fn backward_error(self) -> f64 {
        let (unit, each) = match self.precision {
            Precision::Half => (UNIT_HALF, 1.0),
            Precision::Tf32 => (UNIT_HALF, 2.0),
            Precision::Single => (UNIT_SINGLE, 1.0),
        };
        let sums = self.longest_sum as f64 * UNIT_SINGLE * UNIT_SINGLE;
        // Inputs and outputs are numbers of 32 bits: even a network that rounds nothing rounds once.
        (self.roundings.max(1) as f64 * (each * unit * unit + sums)).sqrt()
    }

    /// How far `elements` numbers may be off.
    pub(crate) fn allowed(self, elements: usize) -> Allowed {
        let mean = LAMBDA * self.backward_error();
        Allowed { mean, worst: mean * largest_normal(elements) }
    }

    /// What the last rounding does to a number of at most one.
    pub(crate) fn last_rounding(self) -> f64 {
        match self.precision {
            Precision::Half => UNIT_HALF,
            Precision::Tf32 | Precision::Single => UNIT_SINGLE,
        }
    }
}

/// What the largest of this many normal errors is expected to reach, by their deviation.
#[expect(clippy::cast_precision_loss, reason = "a count of numbers in memory")]
fn largest_normal(elements: usize) -> f64 {
    (2.0 * (2.0 * elements.max(1) as f64).ln()).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_grow_with_the_root_of_the_depth_and_with_the_precision() {
        let error =
            |precision, roundings| Path { precision, roundings, longest_sum: 1 }.backward_error();
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-6;
        assert!(near(error(Precision::Half, 100), 10.0 * UNIT_HALF));
        assert!(near(error(Precision::Tf32, 50), 10.0 * UNIT_HALF));
        let single = Path { precision: Precision::Single, roundings: 4, longest_sum: 99 };
        assert!(near(single.backward_error(), 20.0 * UNIT_SINGLE));
    }

    #[test]
    fn the_largest_of_many_is_expected_further_out() {
        let path = Path { precision: Precision::Half, roundings: 1, longest_sum: 1 };
        let allowed = path.allowed(1_000_000);
        assert!((allowed.mean / (3.0 * UNIT_HALF) - 1.0).abs() < 1e-3);
        assert!((allowed.worst / allowed.mean - 5.387).abs() < 1e-2, "sqrt(2 ln 2e6)");
    }
}

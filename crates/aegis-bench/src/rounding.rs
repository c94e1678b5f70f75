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
//! What it does to an output is the condition of the network: how far, by its own spread, the output
//! moves for a relative change of one in everything that goes in. It is estimated by doing so: the
//! reference runs once more with each input changed by 2^-7 of itself, up or down at random. In the mean
//! square it is taken to be at least one, for a network cannot be expected to forget its own last
//! roundings; for the largest of `N` elements at least `sqrt(2 ln 2N)`, what the largest of as many
//! normal errors is expected to reach. A network that ends in a saturating function (a detector's
//! scores) moves single elements far more than that, where the function is steep.
//!
//! An error is allowed up to `3 b` times the condition. The factor is the `lambda` of the theorem, which
//! holds with probability `1 - 2 exp(-lambda^2 / 2)`: 98 % at three for one operation, and the estimate
//! of the condition from one direction is itself right within a small factor only.
//!
//! # Sources
//! - Higham, Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM Journal on Scientific
//!   Computing 41(5), 2019, A2815-A2835: the square root instead of `k`, and `lambda`.
//! - Blanchard, Higham, Lopez, Mary, Pranesh, "Mixed Precision Block Fused Multiply-Add: Error Analysis
//!   and Application to GPU Tensor Cores", SIAM Journal on Scientific Computing 42(3), 2020,
//!   C124-C141: factors rounded to 11 bits, sums in 24.
//! - Kenney, Laub, "Small-Sample Statistical Condition Estimates for General Matrix Functions", SIAM
//!   Journal on Scientific Computing 15(1), 1994, 36-61: conditions from random directions.

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

/// How far the reference's inputs are changed, as a share of themselves: far above what 32 bits round,
/// and small enough that the answer is about in proportion.
pub(crate) const CHANGE: f64 = 0.007_812_5; // 2^-7

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

/// How far an output moves for a relative change of one of all inputs, by its spread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Condition {
    /// In the root of the mean square.
    pub(crate) mean: f64,
    /// The element that moves most.
    pub(crate) worst: f64,
}

/// What an error may be, by the spread of the output.
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

    /// What the errors of `elements` numbers may be, where they move as `condition` says.
    pub(crate) fn allowed(self, elements: usize, condition: Condition) -> Allowed {
        let error = LAMBDA * self.backward_error();
        let Condition { mean, worst } = condition;
        Allowed { mean: error * mean.max(1.0), worst: error * worst.max(largest_normal(elements)) }
    }
}

/// What the largest of this many normal errors is expected to reach, by their deviation.
#[expect(clippy::cast_precision_loss, reason = "a count of numbers in memory")]
fn largest_normal(elements: usize) -> f64 {
    (2.0 * (2.0 * elements.max(1) as f64).ln()).sqrt()
}

/// The factor of the input at this place for the run that estimates the condition: one more or less by
/// [`CHANGE`], at random by the multiplicative hash of its place, and the same on every run.
#[expect(clippy::cast_possible_truncation, reason = "an exact power of two")]
pub(crate) fn changed(place: usize) -> f32 {
    let hash = (place as u64 ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    if hash >> 63 == 0 { 1.0 + CHANGE as f32 } else { 1.0 - CHANGE as f32 }
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
    fn a_condition_below_one_tightens_nothing_and_above_loosens() {
        let path = Path { precision: Precision::Half, roundings: 1, longest_sum: 1 };
        let plain = path.allowed(1_000_000, Condition::default());
        assert!((plain.mean / (3.0 * UNIT_HALF) - 1.0).abs() < 1e-3);
        assert!((plain.worst / plain.mean - 5.387).abs() < 1e-2, "sqrt(2 ln 2e6)");
        let steep = path.allowed(1_000_000, Condition { mean: 2.0, worst: 54.0 });
        assert!((steep.mean / plain.mean - 2.0).abs() < 1e-9);
        assert!((steep.worst / plain.mean - 54.0).abs() < 1e-9);
    }

    #[test]
    fn inputs_change_up_and_down_about_as_often() {
        let up = (0..10_000).filter(|place| changed(*place) > 1.0).count();
        assert!((4_700..5_300).contains(&up), "{up}");
        assert!((0..100).all(|place| (f64::from(changed(place)) - 1.0).abs() == CHANGE));
    }
}

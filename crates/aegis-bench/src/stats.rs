//! Quantiles and spread of samples, in integers.
//!
//! # Invariants
//! 1. A quantile is a sample: that of the nearest rank, the smallest that at least the asked share
//!    of all samples do not exceed.
//! 2. Nothing is estimated or interpolated. The mean is rounded up, and so is the coefficient of
//!    variation, which is that of the population.

use serde::{Deserialize, Serialize};

/// What is said of a set of samples; times in nanoseconds. All zero of none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    /// Number of samples.
    pub count: u64,
    /// The smallest.
    pub min: u64,
    /// Half do not exceed it.
    pub p50: u64,
    /// 99 in 100 do not.
    pub p99: u64,
    /// 999 in 1000 do not.
    pub p999: u64,
    /// The largest.
    pub max: u64,
    /// The mean.
    pub mean: u64,
    /// Standard deviation by mean, in millionths.
    pub cv_ppm: u64,
}

impl Quantiles {
    /// What is said of `samples`, which are sorted by this. Costs O(n log n).
    pub(crate) fn of(samples: &mut [u64]) -> Self {
        samples.sort_unstable();
        let (Some(min), Some(max)) = (samples.first(), samples.last()) else {
            return Self::default();
        };
        let sum: u128 = samples.iter().map(|sample| u128::from(*sample)).sum();
        Self {
            count: samples.len() as u64,
            min: *min,
            p50: at(samples, 500),
            p99: at(samples, 990),
            p999: at(samples, 999),
            max: *max,
            mean: u64::try_from(sum.div_ceil(samples.len() as u128)).unwrap_or(u64::MAX),
            cv_ppm: variation(samples, sum),
        }
    }
}

/// The sample of the nearest rank of `permille`, of sorted samples that are not none.
fn at(samples: &[u64], permille: usize) -> u64 {
    samples[(samples.len() * permille).div_ceil(1000).max(1) - 1]
}

/// `sqrt(n sum x^2 - (sum x)^2) / sum x` in millionths, rounded up.
fn variation(samples: &[u64], sum: u128) -> u64 {
    let squares: u128 = samples.iter().map(|sample| u128::from(*sample).pow(2)).sum();
    let scatter = (squares * samples.len() as u128).saturating_sub(sum * sum);
    let root = scatter.isqrt() + u128::from(scatter != scatter.isqrt().pow(2));
    (root * 1_000_000).checked_div(sum).map_or(0, |exact| {
        let up = u128::from(!(root * 1_000_000).is_multiple_of(sum));
        u64::try_from(exact + up).unwrap_or(u64::MAX)
    })
}

/// Nanoseconds in microseconds, for people.
pub(crate) fn micros(nanos: u64) -> String {
    format!("{:.1}", nanos as f64 / 1e3)
}

/// Nanoseconds in milliseconds, for people.
pub(crate) fn millis(nanos: u64) -> String {
    format!("{:.3}", nanos as f64 / 1e6)
}

/// `a / b` for people; a dash where there is nothing to divide by.
pub(crate) fn ratio(a: u64, b: u64) -> String {
    if b == 0 { "-".to_owned() } else { format!("{:.2}", a as f64 / b as f64) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_samples_of_the_nearest_rank() {
        let mut samples: Vec<u64> = (1..=1000).rev().collect();
        let seen = Quantiles::of(&mut samples);
        assert_eq!((seen.min, seen.p50, seen.p99, seen.p999, seen.max), (1, 500, 990, 999, 1000));
        assert_eq!((seen.count, seen.mean), (1000, 501)); // 500.5, rounded up.
    }

    #[test]
    fn few_samples_have_their_maximum_as_tail() {
        let seen = Quantiles::of(&mut [7, 3]);
        assert_eq!((seen.p50, seen.p99, seen.max), (3, 7, 7));
        assert_eq!(seen.cv_ppm, 400_000); // Mean 5, deviation 2.
        assert_eq!(Quantiles::of(&mut []), Quantiles::default());
    }

    proptest! {
        #[test]
        fn quantiles_agree_with_counting(mut samples in prop::collection::vec(0_u64..50, 1..200)) {
            let seen = Quantiles::of(&mut samples);
            for (quantile, permille) in [(seen.p50, 500), (seen.p99, 990), (seen.p999, 999)] {
                let share = |bound: u64| samples.iter().filter(|s| **s <= bound).count() * 1000;
                prop_assert!(share(quantile) >= permille * samples.len());
                if quantile > 0 {
                    prop_assert!(share(quantile - 1) < permille * samples.len());
                }
            }
        }

        #[test]
        fn the_variation_is_that_of_floating_point(samples in prop::collection::vec(1_u64..1_000_000, 1..200)) {
            let n = samples.len() as f64;
            let mean = samples.iter().map(|s| *s as f64).sum::<f64>() / n;
            let variance = samples.iter().map(|s| (*s as f64 - mean).powi(2)).sum::<f64>() / n;
            let expected = variance.sqrt() / mean * 1e6;
            let seen = Quantiles::of(&mut samples.clone()).cv_ppm as f64;
            // Rounded up twice: by a millionth, and by one nanosecond in the root.
            prop_assert!(seen >= expected - 1e-3 && seen <= expected + 2.0 + 1e6 / (mean * n));
        }
    }
}

//! Goodness of fit of the tail: whether the largest samples look like the law fitted to them.
//!
//! # Sources
//! Anderson and Darling, "Asymptotic Theory of Certain Goodness of Fit Criteria", Annals of
//! Mathematical Statistics 23 (1952). Since the law is fitted to the same samples, the statistic's
//! distribution is found by drawing from the fitted law and fitting again: Stute, Gonzalez Manteiga,
//! Presedo Quindimil, "Bootstrap Based Goodness-of-Fit-Tests", Metrika 40 (1993).

use super::gpd::Fit;
use crate::sim::{Random, Seed};

/// Draws of the bootstrap: the smallest probability it can tell is one in 200.
const DRAWS: usize = 199;
/// Where its random numbers begin: fixed, so that a report is a function of the samples.
const SEED: Seed = Seed(0x5eed_0f7a);
/// The smallest and largest probability the statistic takes a logarithm of.
const CLAMP: f64 = 1e-15;
/// The level of the test.
pub(super) const ALPHA: f64 = 0.01;

/// The probability, under the law `fit`, of a distance between samples and fitted law as large as
/// that of the ascending `excesses`. 199 fits; deterministic.
pub(super) fn goodness_of_fit(excesses: &[f64], fit: &Fit) -> f64 {
    let seen = distance(excesses, fit);
    let mut random = Random::new(SEED);
    let mut farther = 0;
    for _ in 0..DRAWS {
        let mut drawn: Vec<f64> =
            excesses.iter().map(|_| fit.quantile(uniform(&mut random))).collect();
        drawn.sort_unstable_by(f64::total_cmp);
        if distance(&drawn, &Fit::quickly(&drawn)) >= seen {
            farther += 1;
        }
    }
    f64::from(farther + 1) / (DRAWS + 1) as f64
}

/// The statistic of Anderson and Darling.
fn distance(excesses: &[f64], fit: &Fit) -> f64 {
    let n = excesses.len();
    let probability = |index: usize| fit.cdf(excesses[index]).clamp(CLAMP, 1.0 - CLAMP);
    let term = |index: usize| {
        let weight = (2 * index + 1) as f64;
        weight * (probability(index).ln() + (-probability(n - 1 - index)).ln_1p())
    };
    -(n as f64) - (0..n).map(term).sum::<f64>() / n as f64
}

/// A number strictly between zero and one.
fn uniform(random: &mut Random) -> f64 {
    ((random.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(law: &Fit, n: usize, random: &mut Random) -> Vec<f64> {
        let mut excesses: Vec<f64> = (0..n).map(|_| law.quantile(uniform(random))).collect();
        excesses.sort_unstable_by(f64::total_cmp);
        excesses
    }

    #[test]
    fn a_tail_of_the_law_passes_about_as_often_as_it_should() {
        let mut random = Random::new(Seed(5));
        let law = Fit { shape: 0.1, scale: 1.0, log_likelihood: 0.0 };
        let rejected = |_: &i32| {
            let excesses = drawn(&law, 64, &mut random);
            goodness_of_fit(&excesses, &Fit::to(&excesses)) <= 0.1
        };
        let rejected = (0..60).filter(rejected).count();
        assert!((1..=14).contains(&rejected), "{rejected} of 60 at a level of 10 %");
    }

    #[test]
    fn a_second_mode_in_the_tail_is_no_tail_of_the_law() {
        let mut random = Random::new(Seed(6));
        let law = Fit { shape: 0.0, scale: 1.0, log_likelihood: 0.0 };
        let mut excesses = drawn(&law, 40, &mut random);
        excesses.extend((0..24).map(|at| 20.0 + 0.01 * f64::from(at)));
        assert!(goodness_of_fit(&excesses, &Fit::to(&excesses)) <= ALPHA);
    }
}

//! Peaks over threshold: a generalised Pareto tail, and its likeliest law.
//!
//! The `k` largest samples, less the threshold `u = x(n-k)` below them, are taken for draws of a
//! generalised Pareto law with scale `sigma` and shape `xi`. [`return_level`](super::return_level) draws
//! conclusions from it.
//!
//! # Sources
//! Pickands, "Statistical Inference Using Extreme Order Statistics", Annals of Statistics 3 (1975),
//! for the law. Grimshaw, Technometrics 35 (1993), for the fit in one variable.

use aegis_trace::Nanos;

use super::campaign::Campaign;
use super::optimise;
use super::share::Share;

/// The fewest exceedances of a fit.
const EXCEEDANCES_MIN: usize = 20;
/// The largest shape that the bound supposes.
pub(super) const SHAPE_MAX: f64 = 2.0;
/// The smallest shape that is fitted: below it the likelihood is not regular.
pub(super) const SHAPE_MIN: f64 = -0.5;
/// Shapes closer than this to the smallest one are at the edge of the search.
const CLIP_WIDTH: f64 = 1e-3;
/// Cells of the search for the fit.
const FIT_CELLS: u32 = 16;
/// Shapes closer to zero than this are zero: the formulas lose digits there.
const SHAPE_EPSILON: f64 = 1e-7;

/// The exceedances of a campaign over a threshold of its own.
#[derive(Clone, Debug)]
pub(super) struct Peaks {
    /// `u`: the largest sample that is no exceedance.
    pub(super) threshold: Nanos,
    /// Exceedances less `u`, ascending, as multiples of `unit`.
    pub(super) excesses: Vec<f64>,
    /// The mean excess in nanoseconds.
    pub(super) unit: f64,
    /// How many samples there are in all.
    pub(super) count: usize,
}

/// A fitted law in multiples of [`Peaks::unit`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fit {
    pub(super) shape: f64,
    pub(super) scale: f64,
    pub(super) log_likelihood: f64,
}

impl Peaks {
    /// The `max(20, min(ceil(n/10), 2 ceil(sqrt n)))` largest samples; `None` when there are not
    /// more samples than that, or all of the largest are equal.
    pub(super) fn of(campaign: &Campaign) -> Option<Self> {
        let count = campaign.count();
        let root = count.isqrt() + usize::from(count.isqrt().pow(2) < count);
        let k = EXCEEDANCES_MIN.max(count.div_ceil(10).min(2 * root));
        if k >= count {
            return None;
        }
        let threshold = campaign.order_statistic(count - k);
        let excesses = campaign.sorted()[count - k..].iter();
        let excesses: Vec<f64> = excesses.map(|time| (time.0 - threshold.0) as f64).collect();
        let unit = excesses.iter().sum::<f64>() / k as f64;
        let excesses: Vec<f64> = excesses.into_iter().map(|excess| excess / unit).collect();
        (unit > 0.0).then_some(Self { threshold, excesses, unit, count })
    }

    /// How many of the exceedances differ from each other.
    pub(super) fn distinct(&self) -> usize {
        self.excesses.chunk_by(|a, b| a.total_cmp(b).is_eq()).count()
    }

    /// The quantile under an exponential tail, with the share beyond the threshold as observed: what
    /// a Gumbel domain would give. For comparison, never a bound.
    pub(super) fn exponential(&self, coverage: Share) -> Option<Nanos> {
        let share = self.excesses.len() as f64 / self.count as f64;
        let reach = (share / coverage.complement().as_f64()).ln();
        if reach > 0.0 { self.time(reach) } else { None }
    }

    /// The scale of a fit in nanoseconds.
    pub(super) fn nanos(&self, scale: f64) -> f64 {
        scale * self.unit
    }

    /// Whether the shape is above zero beyond chance, at one sided 99 %.
    pub(super) fn is_heavy(&self, fit: Fit) -> bool {
        let exponential = Fit::exponential(&self.excesses);
        let deviance = 2.0 * (fit.log_likelihood - exponential.log_likelihood);
        fit.shape > 0.0 && deviance > 2.326_f64.powi(2)
    }

    /// `u + d`, rounded up.
    pub(super) fn time(&self, d: f64) -> Option<Nanos> {
        let excess = (d * self.unit).ceil();
        // Half the range: a cost of centuries is no bound, and the sum cannot wrap.
        if !excess.is_finite() || excess >= (u64::MAX / 2) as f64 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        let excess = excess as u64;
        self.threshold.0.checked_add(excess).map(Nanos)
    }
}

impl Fit {
    /// The likeliest law for `excesses`, with a shape of at least -0.5. In the variable
    /// `theta = xi / sigma` the likeliest shape is a mean of logarithms, so one variable is left.
    pub(super) fn to(excesses: &[f64]) -> Self {
        Self::searched(excesses, optimise::EXACT)
    }

    /// As [`Fit::to`], in half the time and to three digits: for the draws of a bootstrap.
    pub(super) fn quickly(excesses: &[f64]) -> Self {
        Self::searched(excesses, optimise::QUICK)
    }

    fn searched(excesses: &[f64], steps: usize) -> Self {
        let largest = excesses.iter().copied().fold(0.0, f64::max);
        let mean = excesses.iter().sum::<f64>() / excesses.len() as f64;
        // From -1, where the law ends at the largest excess, over 0, the exponential law, to 1,
        // where theta is infinite.
        let theta = |u: f64| if u < 0.0 { u / largest } else { u / (1.0 - u) / mean };
        let at = |u: f64| Self::with(excesses, theta(u), mean);
        let (best, _) =
            optimise::maximise(-0.999_999, 0.999_9, FIT_CELLS, steps, |u| at(u).log_likelihood);
        at(best)
    }

    /// The likeliest exponential law.
    pub(super) fn exponential(excesses: &[f64]) -> Self {
        let mean = excesses.iter().sum::<f64>() / excesses.len() as f64;
        Self::with(excesses, 0.0, mean)
    }

    fn with(excesses: &[f64], theta: f64, mean: f64) -> Self {
        let k = excesses.len() as f64;
        if (theta * mean).abs() < SHAPE_EPSILON {
            let log_likelihood = -k * (mean.ln() + 1.0);
            return Self { shape: 0.0, scale: mean, log_likelihood };
        }
        let shape = excesses.iter().map(|excess| (theta * excess).ln_1p()).sum::<f64>() / k;
        let scale = shape / theta;
        let log_likelihood =
            if shape < SHAPE_MIN { f64::NEG_INFINITY } else { -k * (scale.ln() + shape + 1.0) };
        Self { shape, scale, log_likelihood }
    }

    /// The probability of an excess of at most `excess`.
    pub(super) fn cdf(&self, excess: f64) -> f64 {
        if self.shape.abs() < SHAPE_EPSILON {
            return -(-excess / self.scale).exp_m1();
        }
        let inside = (self.shape * excess / self.scale).max(-1.0);
        -(-inside.ln_1p() / self.shape).exp_m1()
    }

    /// Whether the search ended at the smallest shape that is fitted: the likeliest law may lie below.
    pub(super) fn is_clipped(&self) -> bool {
        self.shape < SHAPE_MIN + CLIP_WIDTH
    }

    /// The excess that a share `tail` of the law exceeds.
    pub(super) fn quantile(&self, tail: f64) -> f64 {
        self.scale * shape_ratio(self.shape, -tail.ln())
    }
}

/// `expm1(xi L) / xi`: the quantile of the law with scale one, at `L = ln(zeta / e)`.
pub(super) fn shape_ratio(shape: f64, reach: f64) -> f64 {
    if shape.abs() < SHAPE_EPSILON { reach } else { (shape * reach).exp_m1() / shape }
}

/// The log-likelihood of the ascending `excesses`.
pub(super) fn log_likelihood(excesses: &[f64], shape: f64, scale: f64) -> f64 {
    let k = excesses.len() as f64;
    let sum = if shape.abs() < SHAPE_EPSILON {
        excesses.iter().sum::<f64>() / scale
    } else {
        let factor = shape / scale;
        // The law ends below the largest excess, which it cannot have given.
        if excesses.last().is_some_and(|largest| factor * largest <= -1.0) {
            return f64::NEG_INFINITY;
        }
        let logs: f64 = excesses.iter().map(|excess| (factor * excess).ln_1p()).sum();
        (1.0 + 1.0 / shape) * logs
    };
    -k * scale.ln() - sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Random, Seed};

    fn law(shape: f64, scale: f64) -> Fit {
        Fit { shape, scale, log_likelihood: 0.0 }
    }

    fn drawn(law: &Fit, n: usize) -> Vec<f64> {
        let mut random = Random::new(Seed(17));
        let uniform =
            |random: &mut Random| ((random.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
        (0..n).map(|_| law.quantile(uniform(&mut random))).collect()
    }

    #[test]
    fn distribution_and_quantile_undo_each_other() {
        for shape in [-0.4, 0.0, 1e-9, 0.3, 1.5] {
            let law = law(shape, 2.0);
            for tail in [0.9, 0.5, 0.01, 1e-6] {
                let back = 1.0 - law.cdf(law.quantile(tail));
                assert!((back / tail - 1.0).abs() < 1e-6, "{shape} {tail} {back}");
            }
        }
    }

    #[test]
    fn fits_find_the_law_that_was_drawn_from() {
        for shape in [-0.3, 0.0, 0.25, 0.8] {
            let fit = Fit::to(&drawn(&law(shape, 3.0), 20_000));
            assert!((fit.shape - shape).abs() < 0.03, "{fit:?}");
            assert!((fit.scale / 3.0 - 1.0).abs() < 0.06, "{fit:?}");
            let quick = Fit::quickly(&drawn(&law(shape, 3.0), 20_000));
            assert!((quick.shape - fit.shape).abs() < 1e-2, "{quick:?} {fit:?}");
        }
    }

    #[test]
    fn no_shape_and_scale_on_a_grid_are_likelier() {
        let excesses = drawn(&law(0.2, 1.0), 100);
        let fit = Fit::to(&excesses);
        for shape in (1..=40).map(|step| f64::from(step) * 0.02) {
            for scale in (10..=40).map(|step| f64::from(step) * 0.05) {
                let other = log_likelihood(&excesses, shape, scale);
                assert!(other <= fit.log_likelihood + 1e-6, "{shape} {scale}");
            }
        }
        let itself = log_likelihood(&excesses, fit.shape, fit.scale);
        assert!((itself - fit.log_likelihood).abs() < 1e-6, "{itself} {fit:?}");
    }
}

//! The return level: the time that a stated share of jobs exceeds, with its confidence limits.
//!
//! The upper limit is the bound of peaks over threshold. It is `u + d`, and `d` is found by profile
//! likelihood: among all laws for which `u + d` is exceeded with probability `e`, the likeliest must not
//! be too unlikely. That the share beyond the threshold is itself estimated is answered by its upper
//! confidence limit. The lower limit is found likewise, from the lower limit of the share.
//!
//! It extrapolates, on three assumptions beside independence: the tail beyond `u` has this form, no
//! mode rarer than `1/n` exists, and `k` is enough for the asymptotics of the likelihood.
//!
//! # Invariants
//! 1. The upper limit supposes `xi >= 0`: a short tail in the samples is not believed beyond them. The
//!    lower limit supposes no such thing.
//! 2. The upper limit does not fall when the coverage or the confidence rises.
//! 3. Each limit holds with the stated confidence for itself; both together miss at most twice as often.
//!
//! # Sources
//! Coles, "An Introduction to Statistical Modeling of Extreme Values" (2001), sections 2.6.6 and 4.3.3,
//! for profile likelihood of a return level and of the shape. Clopper and Pearson, Biometrika 26 (1934),
//! for the limits of the share.

use aegis_trace::Nanos;
use statrs::distribution::{Beta, ContinuousCDF, Normal};

use super::campaign::Campaign;
use super::gpd::{Fit, Peaks, SHAPE_MAX, SHAPE_MIN, log_likelihood, shape_ratio};
use super::optimise;
use super::order;
use super::share::Share;

/// Cells of the search for the likeliest law of a return level.
const PROFILE_CELLS: u32 = 8;
/// Steps of its refinement: to a millionth of a cell, which moves the likelihood in its last digits.
const PROFILE_STEPS: usize = 30;
/// How often the search for the limit doubles its reach.
const DOUBLINGS_MAX: usize = 60;
/// Steps of the search for a limit of the shape: to four digits and more.
const SHAPE_STEPS: usize = 20;
/// The logarithms of the scales, in mean excesses, among which the likeliest of a shape is found.
const LN_SCALES: [f64; 2] = [-6.0, 4.0];
const SCALE_STEPS: usize = 32;
/// How far the search stays from the least scale of a law with an end.
const SCALE_MARGIN: f64 = 1e-9;

impl Peaks {
    /// Whether the time that a share `1 - coverage` exceeds may lie beyond the threshold.
    pub(super) fn reaches(&self, coverage: Share, confidence: Share) -> bool {
        self.log_reach(coverage, confidence).is_some()
    }

    /// The upper limit of the time that a share `1 - coverage` of jobs exceeds; `None` when the
    /// target lies inside the samples, or the limit is beyond any time.
    pub(super) fn upper_limit(&self, coverage: Share, confidence: Share) -> Option<Nanos> {
        let reach = self.log_reach(coverage, confidence)?;
        let best = self.constrained_best();
        if best.shape > SHAPE_MAX {
            return None;
        }
        let level = best.log_likelihood - allowance(confidence);
        let likely = |d: f64| self.profile(d, reach, 0.0) >= level;
        // The quantile of the best law: the profile is largest there.
        let mut low = best.scale * shape_ratio(best.shape, reach);
        let mut high = 2.0 * low;
        let mut doublings = 0;
        while likely(high) {
            (low, high) = (high, 2.0 * high);
            doublings += 1;
            if doublings == DOUBLINGS_MAX {
                return None;
            }
        }
        self.time(optimise::last_true(low, high, likely))
    }

    /// The lower limit of the same time; of the samples alone where the share beyond the threshold may
    /// be smaller than the target. `None` when the samples have none.
    pub(super) fn lower_limit(
        &self,
        campaign: &Campaign,
        coverage: Share,
        confidence: Share,
    ) -> Option<Nanos> {
        let k = self.excesses.len();
        let law = Beta::new(k as f64, (self.count - k + 1) as f64).ok()?;
        let share = law.inverse_cdf(confidence.complement().as_f64());
        let reach = (share / coverage.complement().as_f64()).ln();
        if reach <= 0.0 {
            let rank = order::lower_rank(self.count, coverage, confidence)?;
            return Some(campaign.order_statistic(rank));
        }
        let best = Fit::to(&self.excesses);
        if best.shape > SHAPE_MAX {
            return None;
        }
        let level = best.log_likelihood - allowance(confidence);
        let top = best.scale * shape_ratio(best.shape, reach);
        let likely = |below: f64| self.profile(top - below, reach, SHAPE_MIN) >= level;
        self.time(top - optimise::last_true(0.0, top, likely))
    }

    /// The time that a share `1 - coverage` exceeds under the likeliest law `fit`, with the share beyond
    /// the threshold as observed; the quantile of the samples where that lies among them.
    pub(super) fn likeliest_level(
        &self,
        campaign: &Campaign,
        fit: &Fit,
        coverage: Share,
    ) -> Option<Nanos> {
        let share = self.excesses.len() as f64 / self.count as f64;
        let reach = (share / coverage.complement().as_f64()).ln();
        if reach <= 0.0 {
            return Some(campaign.quantile(coverage));
        }
        self.time(fit.scale * shape_ratio(fit.shape, reach))
    }

    /// The limits of the shape by profile likelihood, within the shapes that are fitted.
    pub(super) fn shape_limits(&self, fit: &Fit, confidence: Share) -> [f64; 2] {
        let level = fit.log_likelihood - allowance(confidence);
        let likely = |shape: f64| self.of_shape(shape) >= level;
        let shape = fit.shape.clamp(SHAPE_MIN, SHAPE_MAX);
        let reach = |end: f64| {
            if likely(end) {
                return end;
            }
            let (mut inside, mut outside) = (shape, end);
            for _ in 0..SHAPE_STEPS {
                let middle = f64::midpoint(inside, outside);
                if likely(middle) { inside = middle } else { outside = middle }
            }
            outside
        };
        [reach(SHAPE_MIN), reach(SHAPE_MAX)]
    }

    /// The largest log-likelihood among the laws of one shape.
    fn of_shape(&self, shape: f64) -> f64 {
        let at = |ln_scale: f64| log_likelihood(&self.excesses, shape, ln_scale.exp());
        // A law with an end reaches the largest excess: smaller scales are impossible, and a search
        // among them would not know where to go.
        let largest = self.excesses.last().copied().unwrap_or(1.0);
        let least = if shape < 0.0 { (-shape * largest).ln() + SCALE_MARGIN } else { LN_SCALES[0] };
        optimise::golden(least.max(LN_SCALES[0]), LN_SCALES[1], SCALE_STEPS, at).1
    }

    /// `ln(zeta / e)`, where `zeta` is the upper limit of the share beyond the threshold.
    fn log_reach(&self, coverage: Share, confidence: Share) -> Option<f64> {
        let k = self.excesses.len();
        let law = Beta::new((k + 1) as f64, (self.count - k) as f64).ok()?;
        let share = law.inverse_cdf(confidence.as_f64());
        let reach = (share / coverage.complement().as_f64()).ln();
        (reach > 0.0).then_some(reach)
    }

    /// The likeliest law with a shape of at least zero.
    fn constrained_best(&self) -> Fit {
        let fit = Fit::to(&self.excesses);
        let exponential = Fit::exponential(&self.excesses);
        if fit.shape > 0.0 && fit.log_likelihood > exponential.log_likelihood {
            fit
        } else {
            exponential
        }
    }

    /// The largest log-likelihood among the laws from `least_shape` on whose quantile is `d`.
    fn profile(&self, d: f64, reach: f64, least_shape: f64) -> f64 {
        let at = |shape: f64| {
            let scale = d / shape_ratio(shape, reach);
            log_likelihood(&self.excesses, shape, scale)
        };
        optimise::maximise(least_shape, SHAPE_MAX, PROFILE_CELLS, PROFILE_STEPS, at).1
    }
}

/// How far the log-likelihood may lie below its maximum at a limit of one side.
fn allowance(confidence: Share) -> f64 {
    let z = Normal::standard().inverse_cdf(confidence.as_f64()).max(0.0);
    z * z / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Random, Seed};
    use crate::wcet::experiment::Family;

    #[test]
    fn limits_enclose_the_likeliest_level_and_shape() {
        let mut random = Random::new(Seed(31));
        for family in [Family::Normal, Family::Gumbel, Family::Pareto(4.0), Family::Weibull(0.7)] {
            let campaign = family.draw(1_500, &mut random);
            let peaks = Peaks::of(&campaign).expect("a tail");
            let fit = Fit::to(&peaks.excesses);
            for coverage in ["0.95", "0.99", "0.999", "0.9999"] {
                let coverage = coverage.parse().expect("a share");
                let lower = peaks.lower_limit(&campaign, coverage, Share::P95).expect("a limit");
                let level = peaks.likeliest_level(&campaign, &fit, coverage).expect("a level");
                assert!(lower <= level, "{family:?} {coverage}: {lower:?} {level:?}");
                if let Some(upper) = peaks.upper_limit(coverage, Share::P95) {
                    assert!(level <= upper, "{family:?} {coverage}: {level:?} {upper:?}");
                }
            }
            let [low, high] = peaks.shape_limits(&fit, Share::P95);
            assert!(low <= fit.shape && fit.shape <= high, "{low} {fit:?} {high}");
        }
    }

    #[test]
    fn lower_limits_lie_below_the_true_quantile_as_often_as_they_say() {
        let mut random = Random::new(Seed(32));
        let coverage: Share = "0.999".parse().expect("a share");
        for family in [Family::Gumbel, Family::Lognormal(0.5), Family::Pareto(5.0)] {
            let quantile = family.quantile(0.999);
            let holds = |_: &u32| {
                let campaign = family.draw(1_000, &mut random);
                let peaks = Peaks::of(&campaign).expect("a tail");
                let lower = peaks.lower_limit(&campaign, coverage, Share::P95);
                lower.expect("a limit").0 as f64 <= quantile
            };
            let held = (0..100).filter(holds).count();
            assert!(held >= 88, "{family:?}: {held} of 100 at 95 %");
        }
    }

    #[test]
    fn limits_of_the_shape_hold_the_true_one_as_often_as_they_say() {
        let mut random = Random::new(Seed(33));
        let mut held = 0;
        for _ in 0..100 {
            let campaign = Family::Pareto(4.0).draw(2_000, &mut random);
            let peaks = Peaks::of(&campaign).expect("a tail");
            let [low, high] = peaks.shape_limits(&Fit::to(&peaks.excesses), Share::P95);
            held += usize::from(low <= 0.25 && 0.25 <= high);
        }
        // Each side may miss in 5 % of cases.
        assert!(held >= 82, "{held} of 100 at 90 %");
    }
}

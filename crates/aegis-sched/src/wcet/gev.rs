//! Block maxima: a generalised extreme value law, and the upper confidence limit of a quantile.
//!
//! The samples are cut into blocks in time order, and the maximum of each block is taken for a draw of
//! the law with location `mu`, scale `sigma` and shape `xi`. If `G` is that law, the quantile of one
//! job at coverage `p` is where `G = p^b`, with `b` the length of a block. Its limit is found by profile
//! likelihood, as for the generalised Pareto tail (`gpd.rs`).
//!
//! It uses one sample of each block and so knows less than peaks over threshold do. It stands in the
//! report for comparison and is a bound only for who asks for it by name.
//!
//! # Sources
//! Coles, "An Introduction to Statistical Modeling of Extreme Values" (2001), chapter 3. Silva, Arcaro,
//! de Oliveira, "On Using GEV or Gumbel Models when Applying EVT for Probabilistic WCET Estimation",
//! RTSS 2017: a Gumbel law in place of the general one can be too small.

use aegis_trace::Nanos;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal};

use super::campaign::Campaign;
use super::optimise;
use super::question::Method;
use super::share::Share;

/// The fewest blocks of a fit.
pub(super) const BLOCKS_MIN: usize = 20;
/// The shapes that are fitted, and that the limit supposes.
const SHAPES: std::ops::RangeInclusive<f64> = -0.5..=2.0;
/// Shapes closer to zero than this are zero.
const SHAPE_EPSILON: f64 = 1e-6;
/// Shapes closer than this to the smallest one are at the edge of the search.
const CLIP_WIDTH: f64 = 1e-3;
const DOUBLINGS_MAX: usize = 40;
/// Steps of the search for the limit: to a millionth of it.
const LIMIT_STEPS: usize = 24;
/// Steps of the search along the edge `xi = 0`.
const EDGE_STEPS: usize = 30;
const EULER: f64 = 0.577_215_664_901_532_9;

/// A fit to block maxima.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GevFit {
    /// How it was made: `gev`.
    pub method: Method,
    /// The upper confidence limit of the quantile; `None` when it is beyond any time.
    pub bound_ns: Option<Nanos>,
    /// The time itself under the likeliest law: the return level.
    pub return_level_ns: Option<Nanos>,
    /// The shape of the likeliest law.
    pub xi: f64,
    /// Whether the likeliest law may have a shape below -0.5, the smallest that is fitted.
    pub xi_clipped: bool,
    /// Its scale, in nanoseconds.
    pub sigma: f64,
    /// Its location, in nanoseconds.
    pub mu: f64,
    /// Samples in a block.
    pub block: usize,
    /// Blocks; samples that fill none are left out.
    pub blocks: usize,
}

/// Block maxima in units of their deviation, counted from their mean.
struct Maxima {
    values: Vec<f64>,
    mean: f64,
    unit: f64,
    block: usize,
}

/// A law: location, logarithm of the scale, shape.
type Law = [f64; 3];

impl GevFit {
    /// How many blocks `n` samples fill.
    pub(super) fn blocks_of(n: usize) -> usize {
        n / block_of(n)
    }

    /// Fits blocks of `ceil(sqrt n)` samples; `None` with fewer than 20 blocks, or when all maxima
    /// are equal. Some thousand evaluations of a likelihood of `sqrt n` terms.
    pub(super) fn to(campaign: &Campaign, coverage: Share, confidence: Share) -> Option<Self> {
        let maxima = Maxima::of(campaign)?;
        let law = maxima.fit();
        let bound_ns = maxima.upper_limit(law, coverage, confidence);
        let [location, log_scale, xi] = law;
        let level = location + log_scale.exp() * ratio(xi, maxima.exponent(coverage));
        Some(Self {
            method: Method::Gev,
            bound_ns,
            return_level_ns: maxima.time(level),
            xi,
            xi_clipped: xi < SHAPES.start() + CLIP_WIDTH,
            sigma: log_scale.exp() * maxima.unit,
            mu: location * maxima.unit + maxima.mean,
            block: maxima.block,
            blocks: maxima.values.len(),
        })
    }
}

/// Samples in a block: the square root of their number, rounded up.
fn block_of(n: usize) -> usize {
    n.isqrt() + usize::from(n.isqrt().pow(2) < n)
}

impl Maxima {
    fn of(campaign: &Campaign) -> Option<Self> {
        let block = block_of(campaign.count());
        let blocks = campaign.times().chunks_exact(block);
        let values: Vec<f64> =
            blocks.filter_map(|block| block.iter().max()).map(|max| max.0 as f64).collect();
        if values.len() < BLOCKS_MIN {
            return None;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let unit = super::ranks::variance(&values).sqrt();
        let values = values.into_iter().map(|value| (value - mean) / unit).collect();
        (unit > 0.0).then_some(Self { values, mean, unit, block })
    }

    /// The likeliest law; the search begins at the Gumbel law of equal moments.
    fn fit(&self) -> Law {
        let scale = 6.0_f64.sqrt() / std::f64::consts::PI;
        let start = [-EULER * scale, scale.ln(), 0.05];
        let f = |law: &Law| self.log_likelihood(*law);
        let (first, _) = optimise::simplex(start, [0.3, 0.3, 0.1], f);
        optimise::simplex(first, [0.05, 0.05, 0.05], f).0 // A simplex that collapsed begins anew.
    }

    /// The likeliest law with `xi >= 0`, which the limit supposes: where the likeliest of all has an
    /// end, the Gumbel law.
    fn constrained(&self, law: Law) -> Law {
        if law[2] > 0.0 {
            return law;
        }
        let gumbel =
            |[location, log_scale]: &[f64; 2]| self.log_likelihood([*location, *log_scale, 0.0]);
        let start = [law[0], law[1]];
        let ([location, log_scale], _) = optimise::simplex(start, [0.2, 0.2], gumbel);
        [location, log_scale, 0.0]
    }

    fn log_likelihood(&self, [location, log_scale, shape]: Law) -> f64 {
        if !SHAPES.contains(&shape) {
            return f64::NEG_INFINITY;
        }
        let scale = log_scale.exp();
        let term = |value: &f64| {
            let z = (value - location) / scale;
            let log = if shape.abs() < SHAPE_EPSILON { z } else { (shape * z).ln_1p() / shape };
            -(1.0 + shape) * log - (-log).exp()
        };
        let sum: f64 = self.values.iter().map(term).sum();
        if sum.is_nan() { f64::NEG_INFINITY } else { sum - self.values.len() as f64 * log_scale }
    }

    fn upper_limit(&self, law: Law, coverage: Share, confidence: Share) -> Option<Nanos> {
        let z = Normal::standard().inverse_cdf(confidence.as_f64()).max(0.0);
        let law = self.constrained(law);
        let level = self.log_likelihood(law) - z * z / 2.0;
        let exponent = self.exponent(coverage);
        let start = [law[1], law[2]];
        let likely = |level_at: f64| self.profile(level_at, exponent, start) >= level;
        let mut low = law[0] + law[1].exp() * ratio(law[2], exponent);
        let mut reach = law[1].exp();
        let mut doublings = 0;
        while likely(low + reach) {
            low += reach;
            reach *= 2.0;
            doublings += 1;
            if doublings == DOUBLINGS_MAX {
                return None;
            }
        }
        let (mut low, mut high) = (low, low + reach);
        for _ in 0..LIMIT_STEPS {
            let middle = f64::midpoint(low, high);
            if likely(middle) { low = middle } else { high = middle }
        }
        self.time(high)
    }

    /// `-ln(p^b)`, accurate for `p` close to one.
    fn exponent(&self, coverage: Share) -> f64 {
        -(self.block as f64) * (-coverage.complement().as_f64()).ln_1p()
    }

    /// The largest log-likelihood among the laws with `xi >= 0` whose quantile is `level`.
    fn profile(&self, level: f64, exponent: f64, start: [f64; 2]) -> f64 {
        let at = |[log_scale, shape]: &[f64; 2]| {
            if *shape < 0.0 {
                return f64::NEG_INFINITY;
            }
            let location = level - log_scale.exp() * ratio(*shape, exponent);
            self.log_likelihood([location, *log_scale, *shape])
        };
        // At its edge, `xi = 0`, a simplex in two variables can fold up: one variable is searched alone.
        let edge = optimise::golden(start[0] - 2.0, start[0] + 3.0, EDGE_STEPS, |log_scale| {
            at(&[log_scale, 0.0])
        });
        optimise::simplex(start, [0.2, 0.1], at).1.max(edge.1)
    }

    fn time(&self, value: f64) -> Option<Nanos> {
        let time = (value * self.unit + self.mean).ceil();
        if !time.is_finite() || time < 0.0 || time >= (u64::MAX / 2) as f64 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        Some(Nanos(time as u64))
    }
}

/// `(y^(-xi) - 1) / xi`: how many scales the quantile lies above the location.
fn ratio(shape: f64, exponent: f64) -> f64 {
    let log = -exponent.ln();
    if shape.abs() < SHAPE_EPSILON { log } else { (shape * log).exp_m1() / shape }
}

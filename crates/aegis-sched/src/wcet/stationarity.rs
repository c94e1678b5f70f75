//! Tests of stationarity: whether the process stayed the same while it was measured.
//!
//! Five tests, each of another way to change: a step of the level, a step of the spread, any
//! difference of the two halves, a slow trend, and a beginning that differs (left-over warm-up).
//! Each statistic is divided by the square root of the autocorrelation time, since dependent samples
//! wander farther by chance than independent ones.
//!
//! # Sources
//! Pettitt, "A Non-Parametric Approach to the Change-Point Problem", Applied Statistics 28 (1979).
//! The two-sample distance: Kolmogorov 1933 and Smirnov 1939, with the correction for small samples
//! of Stephens, "Use of the Kolmogorov-Smirnov, Cramer-von Mises and Related Statistics Without
//! Extensive Tables", JRSS B 32 (1970).

use aegis_trace::Nanos;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal};

use super::campaign::Campaign;
use super::ranks;

/// The level of the whole group; each test has a fifth of it.
pub(super) const ALPHA: f64 = 0.01;
const TESTS: f64 = 5.0;

/// What the five tests found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stationarity {
    /// Whether none of them rejects.
    pub passed: bool,
    /// The level each test is held to: the group's, divided.
    pub level: f64,
    /// The autocorrelation time that the statistics are deflated by, at least one.
    pub autocorrelation_time: f64,
    /// A step of the level.
    pub pettitt: ChangePoint,
    /// A step of the distance from the median.
    pub pettitt_spread: ChangePoint,
    /// The probability of a distance of the halves' distributions as large as seen.
    pub halves_p: f64,
    /// The same for Spearman's correlation of value and time.
    pub trend_p: f64,
    /// The same for the rank sum of the first tenth.
    pub warm_up_p: f64,
}

/// The most likely place of a step, and the probability of one as clear by chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ChangePoint {
    /// The probability under a stationary process.
    pub p: f64,
    /// The index of the last sample before it, counted from zero.
    pub index: usize,
}

impl Stationarity {
    /// Tests `campaign`; `ranks` are its mid-ranks in time order. `O(n log n)`.
    pub(super) fn test(campaign: &Campaign, ranks: &[f64]) -> Self {
        let spread = spread_ranks(campaign);
        let time = ranks::autocorrelation_time(&ranks::segment_centred(ranks));
        let spread_time = ranks::autocorrelation_time(&ranks::segment_centred(&spread));
        let level = ALPHA / TESTS;
        let pettitt = change_point(ranks, time);
        let pettitt_spread = change_point(&spread, spread_time);
        let halves_p = halves(campaign, time);
        let trend_p = trend(ranks, time);
        let warm_up_p = warm_up(ranks, time);
        let all = [pettitt.p, pettitt_spread.p, halves_p, trend_p, warm_up_p];
        let passed = all.iter().all(|p| *p >= level);
        let autocorrelation_time = time;
        Self {
            passed,
            level,
            autocorrelation_time,
            pettitt,
            pettitt_spread,
            halves_p,
            trend_p,
            warm_up_p,
        }
    }

    /// Where the process most likely changed: the clearer of the two steps.
    #[must_use]
    pub fn change_index(&self) -> usize {
        let steps = [self.pettitt, self.pettitt_spread];
        if steps[1].p < steps[0].p { steps[1].index } else { steps[0].index }
    }
}

/// The ranks of the distances from the median.
fn spread_ranks(campaign: &Campaign) -> Vec<f64> {
    let Nanos(median) = campaign.order_statistic(campaign.count().div_ceil(2));
    let distances: Vec<u64> = campaign.times().iter().map(|time| time.0.abs_diff(median)).collect();
    ranks::mid_ranks(&distances)
}

/// Pettitt's test. The partial sums of centred ranks, scaled by their deviation, tend to a Brownian
/// bridge, whose maximum exceeds `x` with probability `2 exp(-2 x^2)` to leading order.
fn change_point(ranks: &[f64], time: f64) -> ChangePoint {
    let n = ranks.len() as f64;
    let mut sum = 0.0;
    let (mut index, mut farthest) = (0, 0.0_f64);
    for (at, value) in ranks::centred(ranks).into_iter().enumerate() {
        sum += value;
        if sum.abs() > farthest {
            (index, farthest) = (at, sum.abs());
        }
    }
    let scale = n * ranks::variance(ranks) * time;
    if scale <= 0.0 {
        return ChangePoint { p: 1.0, index: 0 };
    }
    ChangePoint { p: (2.0 * (-2.0 * farthest * farthest / scale).exp()).min(1.0), index }
}

/// The two-sample test of Kolmogorov and Smirnov on the two halves.
fn halves(campaign: &Campaign, time: f64) -> f64 {
    let (first, second) = campaign.times().split_at(campaign.count() / 2);
    let sorted = |times: &[Nanos]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        times
    };
    let distance = distance(&sorted(first), &sorted(second));
    let (a, b) = (first.len() as f64 / time, second.len() as f64 / time);
    let root = (a * b / (a + b)).sqrt();
    kolmogorov((root + 0.12 + 0.11 / root) * distance)
}

/// The largest distance of two empirical distribution functions.
fn distance(a: &[Nanos], b: &[Nanos]) -> f64 {
    let (mut i, mut j, mut largest) = (0, 0, 0.0_f64);
    while i < a.len() && j < b.len() {
        let at = a[i].min(b[j]);
        while a.get(i).is_some_and(|time| *time == at) {
            i += 1;
        }
        while b.get(j).is_some_and(|time| *time == at) {
            j += 1;
        }
        let gap = i as f64 / a.len() as f64 - j as f64 / b.len() as f64;
        largest = largest.max(gap.abs());
    }
    largest
}

/// The probability that Kolmogorov's statistic exceeds `x`.
fn kolmogorov(x: f64) -> f64 {
    if x < 0.2 {
        return 1.0; // The series converges slowly there, and its value is one to ten digits.
    }
    let term = |j: i32| {
        let sign = if j % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * f64::from(j * j) * x * x).exp()
    };
    (1..=40).map(term).sum::<f64>().clamp(0.0, 1.0)
}

/// Spearman's correlation of value and time; normal for the lengths that are tested.
fn trend(ranks: &[f64], time: f64) -> f64 {
    let n = ranks.len() as f64;
    let middle = (n - 1.0) / 2.0;
    let covariance: f64 =
        ranks.iter().enumerate().map(|(at, rank)| (at as f64 - middle) * rank).sum::<f64>() / n;
    let deviation = (ranks::variance(ranks) * (n * n - 1.0) / 12.0).sqrt();
    if deviation <= 0.0 {
        return 1.0;
    }
    two_sided(covariance / deviation * ((n - 1.0) / time).sqrt())
}

/// The rank sum of the first tenth against the rest.
fn warm_up(ranks: &[f64], time: f64) -> f64 {
    let n = ranks.len() as f64;
    let first = &ranks[..(ranks.len() / 10).max(1)];
    let a = first.len() as f64;
    let surplus = first.iter().sum::<f64>() - a * (n + 1.0) / 2.0;
    let variance = a * (n - a) / (n - 1.0) * ranks::variance(ranks) * time;
    if variance <= 0.0 { 1.0 } else { two_sided(surplus / variance.sqrt()) }
}

/// The probability that a standard normal is as far from zero as `z`.
pub(super) fn two_sided(z: f64) -> f64 {
    2.0 * Normal::standard().cdf(-z.abs())
}

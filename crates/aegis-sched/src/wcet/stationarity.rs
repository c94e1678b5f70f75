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
        let time = ranks::segment_time(ranks);
        let spread_time = ranks::segment_time(&spread);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Random, Seed};
    use crate::wcet::experiment::Family;
    use proptest::prelude::*;

    fn campaign(times: &[u64]) -> Campaign {
        Campaign::new(times.iter().copied().map(Nanos).collect()).expect("valid times")
    }

    fn test(campaign: &Campaign) -> Stationarity {
        let values: Vec<u64> = campaign.times().iter().map(|time| time.0).collect();
        Stationarity::test(campaign, &ranks::mid_ranks(&values))
    }

    /// Pettitt's statistic by its definition: pairs before and after each place, compared one by one.
    fn pettitt_by_pairs(times: &[u64]) -> (i64, usize) {
        let sign = |a: u64, b: u64| i64::from(a > b) - i64::from(a < b);
        let at = |t: usize| -> i64 {
            let pairs =
                times[..=t].iter().flat_map(|a| times[t + 1..].iter().map(|b| sign(*a, *b)));
            pairs.sum::<i64>().abs()
        };
        let all = (0..times.len()).map(|t| (at(t), t));
        all.fold((0, 0), |best, next| if next.0 > best.0 { next } else { best })
    }

    /// The largest distance of two empirical distributions, looked for at every value.
    fn distance_by_counting(a: &[u64], b: &[u64]) -> f64 {
        let share = |of: &[u64], at: u64| {
            of.iter().filter(|value| **value <= at).count() as f64 / of.len() as f64
        };
        let gaps = a.iter().chain(b).map(|at| (share(a, *at) - share(b, *at)).abs());
        gaps.fold(0.0, f64::max)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_change_point_is_that_of_the_definition(
            times in prop::collection::vec(1u64..40, 2..60),
        ) {
            let found = change_point(&ranks::mid_ranks(&times), 1.0);
            let (k, index) = pettitt_by_pairs(&times);
            // Partial sums of ranks are half of the sums of signs.
            let variance = ranks::variance(&ranks::mid_ranks(&times));
            if variance > 0.0 {
                let x = (k as f64 / 2.0).powi(2) / (times.len() as f64 * variance);
                let expected = (2.0 * (-2.0 * x).exp()).min(1.0);
                prop_assert!((found.p - expected).abs() < 1e-9, "{found:?} {expected}");
                prop_assert!(found.index == index || found.p > 0.99 || ties(&times, index, found.index));
            }
        }

        #[test]
        fn the_distance_of_halves_is_that_of_counting(
            mut a in prop::collection::vec(1u64..30, 1..40),
            mut b in prop::collection::vec(1u64..30, 1..40),
        ) {
            a.sort_unstable();
            b.sort_unstable();
            let nanos = |times: &[u64]| times.iter().copied().map(Nanos).collect::<Vec<_>>();
            let found = distance(&nanos(&a), &nanos(&b));
            prop_assert!((found - distance_by_counting(&a, &b)).abs() < 1e-12);
        }
    }

    /// Whether two places are equally clear: rounding then decides between them.
    fn ties(times: &[u64], a: usize, b: usize) -> bool {
        let sum = |t: usize| {
            let centred = ranks::centred(&ranks::mid_ranks(times));
            centred[..=t].iter().sum::<f64>().abs()
        };
        (sum(a) - sum(b)).abs() < 1e-6
    }

    #[test]
    fn the_distribution_of_kolmogorov_has_its_tabled_values() {
        for (x, p) in [(0.1, 1.0), (0.828, 0.5), (1.224, 0.1), (1.358, 0.05), (1.628, 0.01)] {
            assert!((kolmogorov(x) - p).abs() < 1e-3, "{x}: {}", kolmogorov(x));
        }
    }

    #[test]
    fn each_kind_of_change_is_found_by_its_test() {
        let mut random = Random::new(Seed(11));
        let normal = Family::Normal.draw(1_000, &mut random);
        let changed = |change: &dyn Fn(usize, u64) -> u64| {
            let times = normal.times().iter().enumerate().map(|(at, time)| change(at, time.0));
            test(&campaign(&times.collect::<Vec<_>>()))
        };
        let step = changed(&|at, time| if at < 400 { time } else { time + 30_000 });
        assert!(step.pettitt.p < step.level && step.halves_p < step.level, "{step:?}");
        assert!((380..420).contains(&step.change_index()), "{step:?}");
        let spread = changed(&|at, time| {
            if at < 500 { time } else { 1_000_000 + (time - 850_000) * 2 - 300_000 }
        });
        assert!(spread.pettitt_spread.p < spread.level, "{spread:?}");
        let trend = changed(&|at, time| time + 60 * at as u64);
        assert!(trend.trend_p < trend.level, "{trend:?}");
        let cold = changed(&|at, time| if at < 60 { time + 40_000 } else { time });
        assert!(cold.warm_up_p < cold.level, "{cold:?}");
        let same = changed(&|_, time| time);
        assert!(same.passed, "{same:?}");
    }

    #[test]
    fn chance_alone_is_seldom_taken_for_a_change() {
        let mut random = Random::new(Seed(12));
        for family in [Family::Lognormal(0.5), Family::Autoregressive(0.6), Family::Mixture] {
            let passed = |_: &i32| test(&family.draw(600, &mut random)).passed;
            let rejected = 300 - (0..300).filter(passed).count();
            assert!(rejected <= 12, "{family:?}: {rejected} of 300 at a level of 1 %");
        }
    }
}

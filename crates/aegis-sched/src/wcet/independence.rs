//! Tests of independence: whether a sample tells anything about the next ones.
//!
//! Three tests: serial correlation of the ranks, serial correlation of being in the slowest tenth, and
//! runs about the median. Correlations of the times themselves would be decided by a few outliers where
//! tails are heavy. Bursts of outliers, which all three can miss, have a group of their own
//! ([`bursts`](super::bursts)).
//!
//! # Sources
//! Ljung and Box, "On a Measure of Lack of Fit in Time Series Models", Biometrika 65 (1978). Wald and
//! Wolfowitz, "On a Test Whether Two Samples are from the Same Population", Annals of Mathematical
//! Statistics 11 (1940).

use aegis_trace::Nanos;
use serde::Serialize;
use statrs::distribution::{ChiSquared, ContinuousCDF};

use super::campaign::Campaign;
use super::ranks;
use super::share::Share;
use super::stationarity::two_sided;

/// The level of the whole group; each test has a third of it.
const ALPHA: f64 = 0.01;
const TESTS: f64 = 3.0;
/// Lags of the tests of serial correlation.
const LAGS: usize = 20;

/// What the three tests found, and how long exceedances remember.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Independence {
    /// Whether none of them rejects.
    pub passed: bool,
    /// The level each test is held to: the group's, divided.
    pub level: f64,
    /// The probability of serial correlation of ranks as strong as seen, by chance.
    pub ranks_p: f64,
    /// The same for exceeding the 90 % quantile.
    pub exceedances_p: f64,
    /// The same for the number of runs about the median.
    pub runs_p: f64,
    /// The autocorrelation time of exceeding the 90 % or the 95 % quantile, the larger of the two; at
    /// least one. A slow mode rarer than a tenth is diluted at 90 %.
    pub exceedance_time: f64,
}

impl Independence {
    /// Tests `campaign`; `ranks` are its mid-ranks in time order. `O(n)` for each lag.
    pub(super) fn test(campaign: &Campaign, ranks: &[f64]) -> Self {
        let exceeds = exceedances(campaign, 90);
        let rarer = exceedances(campaign, 95);
        let level = ALPHA / TESTS;
        let ranks_p = ljung_box(&ranks::centred(ranks));
        let exceedances_p = ljung_box(&exceeds);
        let runs_p = runs(campaign);
        let passed = [ranks_p, exceedances_p, runs_p].iter().all(|p| *p >= level);
        let exceedance_time =
            ranks::autocorrelation_time(&exceeds).max(ranks::autocorrelation_time(&rarer));
        Self { passed, level, ranks_p, exceedances_p, runs_p, exceedance_time }
    }

    /// The number of independent samples that tell as much as `n` whose exceedances have an
    /// autocorrelation time of `time`: `n / time`, rounded down, at least one.
    pub(super) fn worth(n: usize, time: f64) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between zero and n"
        )]
        let effective = (n as f64 / time) as usize;
        effective.clamp(1, n)
    }
}

/// One for each sample above a quantile, zero for the others, less the mean.
fn exceedances(campaign: &Campaign, percent: u64) -> Vec<f64> {
    above(campaign, Share::from_trillionths(percent * 10_000_000_000).expect("a share")).0
}

/// The same at any share, with the number of samples above.
pub(super) fn above(campaign: &Campaign, share: Share) -> (Vec<f64>, usize) {
    let limit = campaign.quantile(share);
    let above = |time: &Nanos| if *time > limit { 1.0 } else { 0.0 };
    let exceeds: Vec<f64> = campaign.times().iter().map(above).collect();
    let count = exceeds.iter().filter(|exceeds| **exceeds > 0.0).count();
    (ranks::centred(&exceeds), count)
}

/// The test of Ljung and Box on a centred series.
fn ljung_box(centred: &[f64]) -> f64 {
    let n = centred.len() as f64;
    let lags = LAGS.min(centred.len() / 5).max(1);
    let correlations = (1..=lags).zip(ranks::autocorrelations(centred));
    let sum: f64 = correlations.map(|(lag, rho)| rho * rho / (n - lag as f64)).sum();
    let statistic = n * (n + 2.0) * sum;
    let law = ChiSquared::new(lags as f64).expect("at least one degree of freedom");
    law.sf(statistic)
}

/// The number of runs above and below the median; samples equal to it are left out.
fn runs(campaign: &Campaign) -> f64 {
    let median = campaign.order_statistic(campaign.count().div_ceil(2));
    let sides = campaign.times().iter().filter(|time| **time != median).map(|time| *time > median);
    let sides: Vec<bool> = sides.collect();
    let above = sides.iter().filter(|above| **above).count() as f64;
    let below = sides.len() as f64 - above;
    if above < 1.0 || below < 1.0 {
        return 1.0;
    }
    let all = above + below;
    let runs = 1.0 + sides.windows(2).filter(|pair| pair[0] != pair[1]).count() as f64;
    let expected = 2.0 * above * below / all + 1.0;
    let variance = (expected - 1.0) * (expected - 2.0) / (all - 1.0);
    if variance <= 0.0 { 1.0 } else { two_sided((runs - expected) / variance.sqrt()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Random, Seed};
    use crate::wcet::experiment::Family;

    fn test(campaign: &Campaign) -> Independence {
        let values: Vec<u64> = campaign.times().iter().map(|time| time.0).collect();
        Independence::test(campaign, &ranks::mid_ranks(&values))
    }

    #[test]
    fn memory_is_found_and_counted() {
        let mut random = Random::new(Seed(21));
        let free = test(&Family::Lognormal(0.5).draw(4_000, &mut random));
        assert!(free.passed, "{free:?}");
        let memory = test(&Family::Autoregressive(0.6).draw(4_000, &mut random));
        assert!(memory.ranks_p < memory.level && memory.runs_p < memory.level, "{memory:?}");
        let worth = Independence::worth(4_000, memory.exceedance_time);
        assert!((1_000..3_000).contains(&worth), "{memory:?}");
        let bursts = test(&Family::Bursts.draw(4_000, &mut random));
        assert!(bursts.exceedances_p < bursts.level, "{bursts:?}");
    }

    #[test]
    fn chance_alone_is_seldom_taken_for_dependence() {
        let mut random = Random::new(Seed(23));
        for family in [Family::Normal, Family::BoundedPareto(3.0), Family::Mixture] {
            let passed = |_: &i32| test(&family.draw(300, &mut random)).passed;
            let rejected = 300 - (0..300).filter(passed).count();
            assert!(rejected <= 12, "{family:?}: {rejected} of 300 at a level of 1 %");
        }
    }
}

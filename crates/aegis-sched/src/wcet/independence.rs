//! Tests of independence: whether a sample tells anything about the next ones.
//!
//! Four tests: serial correlation of the ranks, serial correlation of being in the slowest tenth, runs
//! about the median, and runs of the slowest fiftieth (bursts of outliers, which a bound suffers from
//! most). Correlations of the times themselves would be decided by a few outliers where tails are heavy.
//!
//! # Sources
//! Ljung and Box, "On a Measure of Lack of Fit in Time Series Models", Biometrika 65 (1978). Wald and
//! Wolfowitz, "On a Test Whether Two Samples are from the Same Population", Annals of Mathematical
//! Statistics 11 (1940), for both tests of runs; that of the slowest is exact and one-sided, since the
//! normal approximation does not hold for a few samples among many.

use aegis_trace::Nanos;
use serde::Serialize;
use statrs::distribution::{ChiSquared, ContinuousCDF};
use statrs::function::factorial::ln_binomial;

use super::campaign::Campaign;
use super::ranks;
use super::share::Share;
use super::stationarity::two_sided;

/// The level of the whole group; each test has a quarter of it.
const ALPHA: f64 = 0.01;
const TESTS: f64 = 4.0;
/// Lags of the tests of serial correlation.
const LAGS: usize = 20;

/// One sample in this many is among the slowest.
const SLOWEST: usize = 50;
/// And at least this many are.
const SLOWEST_MIN: usize = 5;

/// What the four tests found, and how many independent samples these are worth.
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
    /// The same for as few runs of the slowest fiftieth.
    pub bursts_p: f64,
    /// The autocorrelation time of exceeding the 90 % quantile, at least one.
    pub exceedance_time: f64,
}

impl Independence {
    /// Tests `campaign`; `ranks` are its mid-ranks in time order. `O(n)` for each lag.
    pub(super) fn test(campaign: &Campaign, ranks: &[f64]) -> Self {
        let exceeds = exceedances(campaign);
        let level = ALPHA / TESTS;
        let ranks_p = ljung_box(&ranks::centred(ranks));
        let exceedances_p = ljung_box(&exceeds);
        let runs_p = runs(campaign);
        let bursts_p = bursts(campaign);
        let passed = [ranks_p, exceedances_p, runs_p, bursts_p].iter().all(|p| *p >= level);
        let exceedance_time = ranks::autocorrelation_time(&exceeds);
        Self { passed, level, ranks_p, exceedances_p, runs_p, bursts_p, exceedance_time }
    }

    /// The number of independent samples that `n` of these are worth: all of them when no test
    /// rejects, and `n / (1 + 2 sum rho)`, rounded down, otherwise; at least one.
    #[must_use]
    pub fn effective_count(&self, n: usize) -> usize {
        if self.passed {
            return n;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between zero and n"
        )]
        let effective = (n as f64 / self.exceedance_time) as usize;
        effective.clamp(1, n)
    }
}

/// One for each sample above the 90 % quantile, zero for the others, less the mean.
fn exceedances(campaign: &Campaign) -> Vec<f64> {
    let ninety = Share::from_trillionths(900_000_000_000).expect("a share");
    let limit = campaign.quantile(ninety);
    let above = |time: &Nanos| if *time > limit { 1.0 } else { 0.0 };
    ranks::centred(&campaign.times().iter().map(above).collect::<Vec<_>>())
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

/// The probability that the slowest samples form as few runs as they do, or fewer. In a random order,
/// `m` marked among `n` form `r` runs with probability `C(m-1, r-1) C(n-m+1, r) / C(n, m)`.
fn bursts(campaign: &Campaign) -> f64 {
    let n = campaign.count();
    let limit = campaign.order_statistic(n - SLOWEST_MIN.max(n / SLOWEST).min(n - 1));
    let marks: Vec<bool> = campaign.times().iter().map(|time| *time > limit).collect();
    let marked = marks.iter().filter(|marked| **marked).count() as u64;
    let begins = marks.windows(2).filter(|pair| pair[1] && !pair[0]).count() as u64;
    let runs = begins + u64::from(marks[0]);
    let all = n as u64;
    let ln_choices = ln_binomial(all, marked);
    let ln_share = |r: u64| ln_binomial(marked - 1, r - 1) + ln_binomial(all - marked + 1, r);
    (1..=runs).map(|r| (ln_share(r) - ln_choices).exp()).sum::<f64>().min(1.0)
}

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
        let bursts_p = bursts(campaign);
        let passed = [ranks_p, exceedances_p, runs_p, bursts_p].iter().all(|p| *p >= level);
        let exceedance_time =
            ranks::autocorrelation_time(&exceeds).max(ranks::autocorrelation_time(&rarer));
        Self { passed, level, ranks_p, exceedances_p, runs_p, bursts_p, exceedance_time }
    }

    /// The number of independent samples that `n` of these are worth: all of them when no test
    /// rejects, and `n / (1 + 2 sum rho)`, rounded down, otherwise; at least one.
    #[must_use]
    pub fn effective_count(&self, n: usize) -> usize {
        if self.passed { n } else { Self::worth(n, self.exceedance_time) }
    }

    /// What `n` samples are worth whose exceedances have an autocorrelation time of `time`.
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

/// Shares at which the autocorrelation time of exceedances is taken beyond 95 %, in millionths.
const LEVELS: [u64; 6] = [980_000, 990_000, 995_000, 998_000, 999_000, 999_900];

/// The fewest exceedances from which a time is taken.
const EXCEEDANCES_MIN: usize = 8;

/// The largest autocorrelation time of exceedances at any level up to the first that reaches
/// `coverage`; at least one. A slow mode that is rarer than a twentieth comes in clusters that are
/// seen only where most of what exceeds belongs to it. Never falls with rising coverage.
pub(super) fn exceedance_time_up_to(campaign: &Campaign, coverage: Share) -> f64 {
    let share = |level: u64| Share::from_trillionths(level * 1_000_000).expect("a share");
    let below = LEVELS.iter().take_while(|level| share(**level) < coverage).count();
    let asked = LEVELS.iter().take(below + 1).map(|level| above(campaign, share(*level)));
    let seen = asked.filter(|exceeds| exceeds.1 >= EXCEEDANCES_MIN);
    seen.map(|exceeds| ranks::autocorrelation_time(&exceeds.0)).fold(1.0, f64::max)
}

/// One for each sample above a quantile, zero for the others, less the mean.
fn exceedances(campaign: &Campaign, percent: u64) -> Vec<f64> {
    above(campaign, Share::from_trillionths(percent * 10_000_000_000).expect("a share")).0
}

/// The same at any share, with the number of samples above.
fn above(campaign: &Campaign, share: Share) -> (Vec<f64>, usize) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Random, Seed};
    use crate::wcet::experiment::Family;

    fn test(campaign: &Campaign) -> Independence {
        let values: Vec<u64> = campaign.times().iter().map(|time| time.0).collect();
        Independence::test(campaign, &ranks::mid_ranks(&values))
    }

    /// The times of a campaign of ten whose five slowest stand where `mask` has its bits.
    fn marked(mask: u32) -> Campaign {
        let time = |at: u32| Nanos(if mask & (1 << at) == 0 { 10 } else { 100 } + u64::from(at));
        Campaign::new((0..10).map(time).collect()).expect("valid times")
    }

    /// Groups of neighbouring bits.
    fn runs_of(mask: u32) -> u32 {
        (mask & !(mask << 1)).count_ones()
    }

    #[test]
    fn the_probability_of_bursts_is_that_of_counting_every_order() {
        let orders: Vec<u32> = (0..1 << 10).filter(|mask: &u32| mask.count_ones() == 5).collect();
        assert_eq!(orders.len(), 252);
        for mask in &orders {
            let fewer = orders.iter().filter(|other| runs_of(**other) <= runs_of(*mask)).count();
            let expected = fewer as f64 / 252.0;
            let found = bursts(&marked(*mask));
            assert!((found - expected).abs() < 1e-9, "{mask:b}: {found} {expected}");
        }
    }

    #[test]
    fn memory_and_bursts_are_found_and_counted() {
        let mut random = Random::new(Seed(21));
        let free = test(&Family::Lognormal(0.5).draw(4_000, &mut random));
        assert!(free.passed, "{free:?}");
        assert_eq!(free.effective_count(4_000), 4_000);
        let memory = test(&Family::Autoregressive(0.6).draw(4_000, &mut random));
        assert!(memory.ranks_p < memory.level && memory.runs_p < memory.level, "{memory:?}");
        assert!((1_000..3_000).contains(&memory.effective_count(4_000)), "{memory:?}");
        let bursts = test(&Family::Bursts.draw(4_000, &mut random));
        assert!(bursts.exceedances_p < bursts.level, "{bursts:?}");
        assert!(bursts.bursts_p < bursts.level, "{bursts:?}");
    }

    #[test]
    fn one_burst_of_four_outliers_is_found_by_runs_alone() {
        let drawn = Family::Normal.draw(500, &mut Random::new(Seed(22)));
        let slow = |(at, time): (usize, &Nanos)| {
            if (300..304).contains(&at) { Nanos(time.0 + 400_000) } else { *time }
        };
        let times = drawn.times().iter().enumerate().map(slow).collect();
        let found = test(&Campaign::new(times).expect("valid times"));
        assert!(found.bursts_p < found.level, "{found:?}");
        assert!(found.ranks_p >= found.level, "{found:?}");
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

//! Outlier bursts: whether the slowest samples come one after another.
//!
//! A bound suffers from bursts more than from any other dependence: a rare slow mode of which a
//! campaign saw three bursts of thirty jobs was seen three times, not ninety. Correlations over all
//! samples dilute it, so the slowest samples are looked at alone, at two levels: the slowest fiftieth,
//! and the slowest five-hundredth for modes that are rarer still. Under independence the marked
//! samples stand in any order with equal probability, so the probability of as few runs as seen is
//! exact, whatever the law.
//!
//! `exceedance_time_up_to` then says how many samples count as one, at every level up to the one that
//! is asked for.
//!
//! # Sources
//! Wald and Wolfowitz, "On a Test Whether Two Samples are from the Same Population", Annals of
//! Mathematical Statistics 11 (1940): the exact law of the number of runs. It is used one-sided, since
//! the normal approximation does not hold for a few samples among many and too many runs harm no
//! bound.

use serde::Serialize;
use statrs::function::factorial::ln_binomial;

use super::campaign::Campaign;
use super::independence::above;
use super::ranks;
use super::share::Share;

/// The level of the whole group; each test has a half of it.
const ALPHA: f64 = 0.01;
const TESTS: f64 = 2.0;
/// One sample in so many is among the slowest, for the two tests.
const SLOWEST: usize = 50;
const RAREST: usize = 500;
/// And at least so many are.
const MARKED_MIN: usize = 5;

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

/// What the two tests found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bursts {
    /// Whether none of them rejects.
    pub passed: bool,
    /// The level each test is held to: the group's, divided.
    pub level: f64,
    /// The probability of as few runs of the slowest fiftieth as seen, by chance.
    pub slowest_p: f64,
    /// The same for the slowest five-hundredth, or the slowest five.
    pub rarest_p: f64,
}

impl Bursts {
    /// Tests `campaign`. `O(n)`.
    pub(super) fn test(campaign: &Campaign) -> Self {
        let level = ALPHA / TESTS;
        let of = |one_in: usize| runs_probability(campaign, campaign.count() / one_in);
        let (slowest_p, rarest_p) = (of(SLOWEST), of(RAREST));
        Self { passed: slowest_p.min(rarest_p) >= level, level, slowest_p, rarest_p }
    }
}

/// The probability that the `marked` slowest samples form as few runs as they do, or fewer. In a random
/// order, `m` marked among `n` form `r` runs with probability `C(m-1, r-1) C(n-m+1, r) / C(n, m)`.
fn runs_probability(campaign: &Campaign, marked: usize) -> f64 {
    let n = campaign.count();
    let limit = campaign.order_statistic(n - marked.max(MARKED_MIN).min(n - 1));
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
    use aegis_trace::Nanos;

    use super::*;
    use crate::sim::{Random, Seed};
    use crate::wcet::experiment::Family;

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
            let found = runs_probability(&marked(*mask), 5);
            assert!((found - expected).abs() < 1e-9, "{mask:b}: {found} {expected}");
        }
    }

    #[test]
    fn one_burst_of_four_outliers_is_found() {
        let drawn = Family::Normal.draw(500, &mut Random::new(Seed(22)));
        let slow = |(at, time): (usize, &Nanos)| {
            if (300..304).contains(&at) { Nanos(time.0 + 400_000) } else { *time }
        };
        let times = drawn.times().iter().enumerate().map(slow).collect();
        let found = Bursts::test(&Campaign::new(times).expect("valid times"));
        assert!(found.slowest_p < found.level && !found.passed, "{found:?}");
    }

    #[test]
    fn a_burst_rarer_than_the_slowest_fiftieth_is_found_at_its_own_level() {
        // 12 of 100 000: among the 2000 slowest they make hardly fewer runs.
        let drawn = Family::Normal.draw(100_000, &mut Random::new(Seed(24)));
        let slow = |(at, time): (usize, &Nanos)| {
            if (30_000..30_012).contains(&at) { Nanos(time.0 + 400_000) } else { *time }
        };
        let times = drawn.times().iter().enumerate().map(slow).collect();
        let found = Bursts::test(&Campaign::new(times).expect("valid times"));
        assert!(found.rarest_p < found.level, "{found:?}");
        assert!(found.rarest_p < found.slowest_p, "{found:?}");
    }

    #[test]
    fn bursty_families_are_found_and_free_ones_seldom() {
        let mut random = Random::new(Seed(25));
        for family in [Family::Bursts, Family::RareBursts, Family::OutlierBursts] {
            let found = Bursts::test(&family.draw(10_000, &mut random));
            assert!(!found.passed, "{family:?}: {found:?}");
        }
        for family in [Family::Normal, Family::Pareto(3.0), Family::Mixture] {
            let passed = |_: &i32| Bursts::test(&family.draw(300, &mut random)).passed;
            let rejected = 300 - (0..300).filter(passed).count();
            assert!(rejected <= 12, "{family:?}: {rejected} of 300 at a level of 1 %");
        }
    }
}

//! Contention: how much slower a stage is while something else is busy.
//!
//! The bound is never multiplied by a factor: it is estimated from the times under load themselves, and
//! the largest over all [scenarios](Scenario) counts. The factor is reported beside it, as a ratio of
//! medians with limits of its own, so that a reader sees what the load costs and how sure that is.
//!
//! # Sources
//! The limits of a median by order statistics: David and Nagaraja, "Order Statistics", 3rd edition,
//! section 7.1. The ratio takes the outer limits of two medians, each at half of the doubt, so its
//! confidence is at least the stated one by Bonferroni's inequality.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::campaign::Campaign;
use super::order;
use super::share::Share;

/// What else went on while a model was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scenario {
    /// The model ran alone, job after job: warm caches.
    Alone,
    /// One job of each model in turn: every job finds the caches that another model left, as under a
    /// scheduler that runs one stage at a time.
    Turns,
    /// In turn, with threads beside it that compute.
    Compute,
    /// In turn, with threads beside it that move memory.
    Bandwidth,
    /// In turn, with threads beside it that do both by turns.
    Mixed,
}

impl Scenario {
    /// All of them, the one of least load first.
    pub const ALL: [Self; 5] =
        [Self::Alone, Self::Turns, Self::Compute, Self::Bandwidth, Self::Mixed];
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alone => "alone",
            Self::Turns => "turns",
            Self::Compute => "compute",
            Self::Bandwidth => "bandwidth",
            Self::Mixed => "mixed",
        })
    }
}

/// A ratio of two medians with its limits, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ContentionFactor {
    /// The ratio of the medians seen, rounded up.
    pub observed: u64,
    /// The lower limit, rounded down.
    pub lower: u64,
    /// The upper limit, rounded up.
    pub upper: u64,
}

impl ContentionFactor {
    /// The median of `loaded` over that of `alone`, between limits that hold together with
    /// `confidence`; `None` with too few samples for limits.
    #[must_use]
    pub fn of(loaded: &Campaign, alone: &Campaign, confidence: Share) -> Option<Self> {
        let (slow, quick) = (Median::of(loaded, confidence)?, Median::of(alone, confidence)?);
        Some(Self {
            observed: up(slow.observed, quick.observed),
            lower: down(slow.lower, quick.upper),
            upper: up(slow.upper, quick.lower),
        })
    }

    /// Whether the load slows the stage beyond what chance explains.
    #[must_use]
    pub fn is_certain(self) -> bool {
        self.lower > 1_000
    }
}

/// `1.234 (1.100 to 1.400)`.
impl fmt::Display for ContentionFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |it: u64| format!("{}.{:03}", it / 1_000, it % 1_000);
        write!(f, "{} ({} to {})", shown(self.observed), shown(self.lower), shown(self.upper))
    }
}

/// A median and its limits, in nanoseconds.
struct Median {
    observed: u64,
    lower: u64,
    upper: u64,
}

impl Median {
    /// Each of the four limits of a ratio may fail with a quarter of the doubt.
    fn of(campaign: &Campaign, confidence: Share) -> Option<Self> {
        let half = Share::from_trillionths(500_000_000_000)?;
        let doubt = Share::from_trillionths((confidence.complement().trillionths() / 4).max(1))?;
        let n = campaign.count();
        let upper = order::tolerance_rank(n, half, doubt.complement())?;
        let nanos = |rank: usize| campaign.order_statistic(rank).0;
        Some(Self {
            observed: nanos(n.div_ceil(2)),
            lower: nanos(n + 1 - upper),
            upper: nanos(upper),
        })
    }
}

fn up(a: u64, b: u64) -> u64 {
    narrow((u128::from(a) * 1_000).div_ceil(u128::from(b)))
}

fn down(a: u64, b: u64) -> u64 {
    narrow(u128::from(a) * 1_000 / u128::from(b))
}

fn narrow(thousandths: u128) -> u64 {
    u64::try_from(thousandths).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Random, Seed};
    use crate::wcet::experiment::Family;
    use aegis_trace::Nanos;

    #[test]
    fn the_limits_hold_the_true_ratio_as_often_as_they_say() {
        let mut random = Random::new(Seed(4));
        let mut held = 0;
        for _ in 0..300 {
            let alone = Family::Lognormal(0.3).draw(100, &mut random);
            let loaded = Family::Lognormal(0.3).draw(100, &mut random);
            let loaded = loaded.times().iter().map(|time| Nanos(time.0 * 3 / 2)).collect();
            let loaded = Campaign::new(loaded).expect("valid times");
            let factor = ContentionFactor::of(&loaded, &alone, Share::P95).expect("enough");
            assert!(factor.lower <= factor.observed && factor.observed <= factor.upper);
            held += usize::from((factor.lower..=factor.upper).contains(&1_500));
        }
        assert!(held >= 285, "{held} of 300");
    }

    #[test]
    fn few_samples_have_no_limits_and_equal_ones_no_slowdown() {
        let campaign = |n| Campaign::new(vec![Nanos(7); n]).expect("valid times");
        assert_eq!(ContentionFactor::of(&campaign(5), &campaign(100), Share::P95), None);
        let same = ContentionFactor::of(&campaign(100), &campaign(100), Share::P95);
        let same = same.expect("enough");
        assert_eq!(same.to_string(), "1.000 (1.000 to 1.000)");
        assert!(!same.is_certain());
    }
}

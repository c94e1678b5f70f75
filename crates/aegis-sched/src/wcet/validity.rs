//! The validity tests of a campaign, run together: what a claim rests on.
//!
//! Each group has a level of 0.01 and divides it among its tests. `rule.rs` says what a
//! failed group costs.

use aegis_trace::Nanos;
use serde::Serialize;

use super::bursts::{Bursts, exceedance_time_up_to};
use super::campaign::Campaign;
use super::gpd::{Fit, Peaks};
use super::independence::Independence;
use super::share::Share;
use super::stationarity::Stationarity;
use super::{ranks, tail};

/// The fewest samples the validity tests say anything about.
pub const TESTABLE_MIN: usize = 20;

/// The five groups of validity tests, each at the level 0.01.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tests {
    /// Whether the tail has enough different values.
    pub resolution: Resolution,
    /// Whether the process stayed the same.
    pub stationarity: Stationarity,
    /// Whether samples tell nothing of each other.
    pub independence: Independence,
    /// Whether the slowest samples do not come in bursts.
    pub bursts: Bursts,
    /// Whether the tail looks like its fit.
    pub tail: Option<TailTest>,
}

/// The resolution of the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resolution {
    /// Whether it is enough.
    pub passed: bool,
    /// Different values in the tail.
    pub distinct: usize,
    /// How many a fit needs.
    pub needed: usize,
    /// What the clock resolved, or a multiple of it.
    pub quantum_ns: Nanos,
}

/// The fit of the tail.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TailTest {
    /// Whether it is not rejected.
    pub passed: bool,
    /// The probability of a fit this bad by chance.
    pub p: f64,
    /// Whether the shape is above zero beyond chance.
    pub heavy: bool,
}

impl Tests {
    pub(super) fn run(campaign: &Campaign, peaks: Option<&(Peaks, Fit)>) -> Self {
        let values: Vec<u64> = campaign.times().iter().map(|time| time.0).collect();
        let ranks = ranks::mid_ranks(&values);
        Self {
            resolution: Resolution::of(campaign, peaks.map(|(peaks, _)| peaks)),
            stationarity: Stationarity::test(campaign, &ranks),
            independence: Independence::test(campaign, &ranks),
            bursts: Bursts::test(campaign),
            tail: peaks.map(|(peaks, fit)| {
                let p = tail::goodness_of_fit(&peaks.excesses, fit);
                TailTest { passed: p > tail::ALPHA, p, heavy: peaks.is_heavy(*fit) }
            }),
        }
    }

    /// Whether samples tell of the next ones: by correlation, by runs, or by bursts of the slowest.
    #[must_use]
    pub fn dependent(&self) -> bool {
        !(self.independence.passed && self.bursts.passed)
    }

    /// The number of independent samples that tell as much of the quantile at `coverage` as these do:
    /// all of them when no test finds dependence; at least one.
    pub(super) fn effective_count(&self, campaign: &Campaign, coverage: Share) -> usize {
        let n = campaign.count();
        if !self.dependent() {
            return n;
        }
        // Where samples depend, those near the quantile asked for may do so most.
        let near = exceedance_time_up_to(campaign, coverage);
        Independence::worth(n, self.independence.exceedance_time.max(near))
    }
}

impl Resolution {
    fn of(campaign: &Campaign, peaks: Option<&Peaks>) -> Self {
        let (distinct, k) = peaks.map_or((0, 0), |peaks| (peaks.distinct(), peaks.excesses.len()));
        let needed = (k / 4).max(8);
        Self { passed: distinct >= needed, distinct, needed, quantum_ns: campaign.quantum() }
    }
}

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
    /// Whether the tail looks like its fit; `None` without a tail, or for a method that uses none.
    pub tail: Option<TailTest>,
}

/// One test: its name, what it found, and what follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Its group and name.
    pub name: &'static str,
    /// The probability, by chance, of what was seen.
    pub p: f64,
    /// The level it is held to.
    pub level: f64,
    /// Whether it does not reject.
    pub passed: bool,
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
    /// The level it is held to: a probability of this or less rejects, since the bootstrap counts in
    /// steps.
    pub level: f64,
    /// The probability of a fit this bad by chance.
    pub p: f64,
    /// Whether the shape is above zero beyond chance.
    pub heavy: bool,
}

impl Tests {
    /// Runs every test on `campaign`; the goodness of fit, which takes longest, only if `of_tail`.
    pub(super) fn run(campaign: &Campaign, peaks: Option<&(Peaks, Fit)>, of_tail: bool) -> Self {
        let values: Vec<u64> = campaign.times().iter().map(|time| time.0).collect();
        let ranks = ranks::mid_ranks(&values);
        Self {
            resolution: Resolution::of(campaign, peaks.map(|(peaks, _)| peaks)),
            stationarity: Stationarity::test(campaign, &ranks),
            independence: Independence::test(campaign, &ranks),
            bursts: Bursts::test(campaign),
            tail: peaks.filter(|_| of_tail).map(|(peaks, fit)| {
                let p = tail::goodness_of_fit(&peaks.excesses, fit);
                TailTest {
                    passed: p > tail::ALPHA,
                    level: tail::ALPHA,
                    p,
                    heavy: peaks.is_heavy(*fit),
                }
            }),
        }
    }

    /// Every test with a probability, group by group.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Verdict> {
        let (still, free, bursts) = (&self.stationarity, &self.independence, self.bursts);
        let below = |name, p, level| Verdict { name, p, level, passed: p >= level };
        let mut all = vec![
            below("stationarity: step of the level", still.pettitt.p, still.level),
            below("stationarity: step of the spread", still.pettitt_spread.p, still.level),
            below("stationarity: halves", still.halves_p, still.level),
            below("stationarity: trend", still.trend_p, still.level),
            below("stationarity: warm-up", still.warm_up_p, still.level),
            below("independence: ranks", free.ranks_p, free.level),
            below("independence: slowest tenth", free.exceedances_p, free.level),
            below("independence: runs", free.runs_p, free.level),
            below("bursts: slowest fiftieth", bursts.slowest_p, bursts.level),
            below("bursts: slowest five-hundredth", bursts.rarest_p, bursts.level),
        ];
        let of_tail = |TailTest { passed, level, p, .. }| {
            let name = "tail: goodness of fit";
            Verdict { name, p, level, passed }
        };
        all.extend(self.tail.map(of_tail));
        all
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

//! Quick sufficient tests: they may say *yes* early, never *no*.
//!
//! The classic utilisation bounds were proved for preemptive scheduling. Charging each task the
//! blocking that it can suffer, as if it were its own work, makes them sound here. A job of task
//! `i` is then delayed by no more than in a preemptive world in which its cost is `C_i + B_i`:
//! whatever holds the device when it becomes ready takes `B_i` at most, and from then on only jobs
//! at least as urgent run before it.
//!
//! ```text
//! Liu-Layland   for each i:  sum over j <= i of C_j/T_j + B_i/T_i <= i (2^(1/i) - 1)
//! hyperbolic    for each i:  product over j < i of (1 + C_j/T_j) * (1 + (C_i + B_i)/T_i) <= 2
//! density       for each i:  sum over j with D_j <= D_i of C_j / min(D_j, T_j) + B_i / D_i <= 1
//! ```
//!
//! The first two hold for rate-monotonic order, no jitter and deadlines not before the periods; the
//! third for EDF with any deadlines and jitter, with `D - J` in place of `D`. Costs `O(n log n)`.
//!
//! # Invariants
//! 1. Everything is compared in integers: shares are rounded up to units of 2^-32, and the roots of
//!    2 in the Liu-Layland bound are rounded down.
//! 2. A test that does not apply to a set, or does not accept it, says nothing about it.
//!
//! # Sources
//! Liu, Layland, "Scheduling algorithms for multiprogramming in a hard-real-time environment",
//! Journal of the ACM 20, 1973. Bini, Buttazzo, Buttazzo, "Rate monotonic analysis: the hyperbolic
//! bound", IEEE Transactions on Computers 52, 2003. Sha, Rajkumar, Lehoczky, "Priority inheritance
//! protocols", IEEE Transactions on Computers 39, 1990, for blocking as additional work of the task
//! that suffers it.

use aegis_trace::Nanos;
use serde::{Deserialize, Serialize};

use super::Setting;
use super::demand::Demand;
use super::workload::{Charged, Workload};
use crate::policy::PolicyKind;
use crate::task::TaskSet;

/// A sufficient test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum QuickTest {
    /// Utilisation with blocking, against `n (2^(1/n) - 1)`.
    LiuLayland,
    /// The product of `1 + U_i` with blocking, against 2.
    Hyperbolic,
    /// The sum of `C / min(D, T)` with blocking, against 1.
    Density,
}

impl std::fmt::Display for QuickTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::LiuLayland => "Liu-Layland bound with blocking (sufficient)",
            Self::Hyperbolic => "hyperbolic bound with blocking (sufficient)",
            Self::Density => "density with blocking (sufficient)",
        })
    }
}

/// The quick tests that accept `set`, cheapest first; none of them may be asked why it does not.
#[must_use]
pub fn quick_tests(set: &TaskSet, setting: &Setting) -> Vec<QuickTest> {
    accepting(&Workload::new(set, setting), setting.policy)
}

/// Whether a quick test accepts `workload`: what a verdict asks first. The hyperbolic bound accepts
/// whatever the one of Liu and Layland does.
pub(super) fn accepts(workload: &Workload, policy: PolicyKind) -> bool {
    let plain = workload.beside() == Nanos::ZERO;
    match policy {
        PolicyKind::Edf => plain && density(workload),
        PolicyKind::Rms => plain && is_plain(workload) && hyperbolic(&rate_monotonic(workload)),
        _ => false,
    }
}

/// The quick tests that accept `workload`.
fn accepting(workload: &Workload, policy: PolicyKind) -> Vec<QuickTest> {
    let mut accepted = Vec::new();
    if workload.beside() > Nanos::ZERO {
        return accepted; // None of them knows of it.
    }
    match policy {
        PolicyKind::Edf => accepted.extend(density(workload).then_some(QuickTest::Density)),
        PolicyKind::Rms if is_plain(workload) => {
            let levels = rate_monotonic(workload);
            accepted.extend(liu_layland(&levels).then_some(QuickTest::LiuLayland));
            accepted.extend(hyperbolic(&levels).then_some(QuickTest::Hyperbolic));
        }
        _ => {}
    }
    accepted
}

/// One, in units of 2^-32.
const ONE: u128 = 1 << 32;

/// The natural logarithm of 2 in units of 2^-32, rounded down: the limit of `n (2^(1/n) - 1)`.
const LN_2: u128 = 2_977_044_471;

/// `cost / time` in units of 2^-32, rounded up.
fn share(cost: Nanos, time: Nanos) -> u128 {
    (u128::from(cost.0) << 32).div_ceil(u128::from(time.0))
}

/// No jitter, and no deadline before the period.
fn is_plain(workload: &Workload) -> bool {
    workload.tasks.iter().all(|task| task.jitter == Nanos::ZERO && task.deadline >= task.period)
}

/// The utilisation of each task and of its blocking, from the shortest period on.
fn rate_monotonic(workload: &Workload) -> Vec<(u128, u128)> {
    let mut tasks: Vec<&Charged> = workload.tasks.iter().collect();
    tasks.sort_by_key(|task| task.period);
    let mut blocking = workload.floor.length;
    let mut levels = Vec::with_capacity(tasks.len());
    for task in tasks.iter().rev() {
        levels.push((share(task.cost, task.period), share(blocking, task.period)));
        // Tasks of equal period interfere with whole jobs, and only a stage is charged here; the last
        // of them counts all the others in full, and its deadline is no later than theirs need be.
        blocking = blocking.max(task.longest_stage);
    }
    levels.reverse();
    levels
}

fn liu_layland(levels: &[(u128, u128)]) -> bool {
    let mut sum = 0u128;
    levels.iter().zip(1u32..).all(|((own, blocking), place)| {
        sum = sum.saturating_add(*own);
        sum.saturating_add(*blocking) <= least_bound(place)
    })
}

/// `n (2^(1/n) - 1)` in units of 2^-32, rounded down: `m` units are below the root if
/// `(1 + m/n)^n <= 2`, which is checked with every product rounded up.
fn least_bound(places: u32) -> u128 {
    if places > 64 {
        return LN_2; // Less than any of them, and within a percent of these.
    }
    let reaches = |units: u128| {
        let factor = ONE + units.div_ceil(u128::from(places));
        power(factor, places).is_some_and(|product| product <= 2 * ONE)
    };
    let (mut low, mut high) = (ONE / 2, ONE); // ln 2 > 1/2, and one task may use everything.
    while low < high {
        let middle = high - (high - low) / 2;
        if reaches(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

/// `factor^exponent` in units of 2^-32, rounded up; `None` once it is past 2.
fn power(factor: u128, exponent: u32) -> Option<u128> {
    (0..exponent).try_fold(ONE, |product, _| {
        let next = (product * factor).div_ceil(ONE);
        (next <= 2 * ONE).then_some(next)
    })
}

fn hyperbolic(levels: &[(u128, u128)]) -> bool {
    let mut product = ONE;
    levels.iter().all(|(own, blocking)| {
        let before = product;
        let with = |units: u128| before.saturating_mul(ONE.saturating_add(units)).div_ceil(ONE);
        product = with(*own);
        with(own.saturating_add(*blocking)) <= 2 * ONE
    })
}

fn density(workload: &Workload) -> bool {
    let demand = Demand::new(workload);
    let mut sum = 0u128;
    demand.tasks().iter().all(|(_, task)| {
        let first = task.first_deadline();
        if first == Nanos::ZERO {
            return false;
        }
        sum = sum.saturating_add(share(task.cost, first.min(task.period)));
        sum.saturating_add(share(demand.blocker(first).length, first)) <= ONE
    })
}

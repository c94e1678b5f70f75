//! The verdict for non-preemptive and staged EDF: demand and blocking in every window.
//!
//! A set is schedulable when no window asks for more than its length (see [`super::arrivals`] for
//! why a blocker counts in full):
//!
//! ```text
//! h(t) = sum over tasks with D - J <= t of (floor((t + J - D) / T) + 1) C
//! b(t) = longest stage of a task with D - J > t, or the wake-up latency where that is longer
//! h(t) + b(t) <= t   for every step t = D - J + k T of h up to the horizon
//! ```
//!
//! Stopping at the longest deadline would accept sets that miss; the horizon is the busy window
//! over all tasks or, where that is shorter, the point past which nothing can be violated: beyond
//! every deadline `h(t) + b(t) <= wake + U t + sum C/T (T + J - D)`, which does not exceed `t` from
//! `(wake + sum C/T max(0, T + J - D)) / (1 - U)` on.
//!
//! Where no jitter exceeds its period, a task that leaves `b` enters `h` at that very window with a
//! cost at least as long as its stage, so `h + b` never decreases and the windows can be searched
//! downwards in large steps (QPA). Otherwise a task with `J > T` keeps blocking until `D`, which is
//! safe but not monotone, and every step is looked at.
//!
//! # Assumptions
//! 1. At least `T` between nominal releases of a task; each ready at most `J` after its own.
//! 2. The policy orders jobs by absolute deadline, **nominal** release plus `D`, ties in any order;
//!    a deadline counted from a late observed release would void the test.
//! 3. A stage runs to completion; between stages the job goes on unless one with a strictly earlier
//!    deadline is ready. A task's jobs run in release order.
//! 4. The device never idles while a job is ready, up to the wake-up latency.
//! 5. Every stage stays within its cost; stages may be shorter.
//!
//! Exact for tasks of one stage with `J <= T` for all; sufficient otherwise. Costs `O(n)` terms for
//! each window looked at.
//!
//! # Sources
//! Jeffay, Stanat, Martel, "On non-preemptive scheduling of periodic and sporadic tasks", RTSS 1991
//! (the case `D = T`). George, Rivierre, Spuri, "Preemptive and non-preemptive real-time
//! uniprocessor scheduling", INRIA RR-2966, 1996. Baruah, "The limited-preemption uniprocessor
//! scheduling of sporadic task systems", ECRTS 2005, for stages. Zhang, Burns, "Schedulability
//! analysis for real-time systems with EDF scheduling", IEEE Transactions on Computers 58, 2009.

use aegis_trace::{Nanos, Refusal};

use super::Test;
use super::fixed_point::Budget;
use super::offsets::Offsets;
use super::workload::{Blocker, Charged, Workload};

/// Decides whether every deadline is met, and by which search.
///
/// # Errors
/// The shortest window whose demand and blocking exceed it (a longer one where the budget does not
/// reach so far), or the budget ran out.
pub(super) fn check(workload: &Workload, budget: &mut Budget) -> Result<Test, Refusal> {
    let horizon = horizon(workload, budget)?;
    if workload.tasks.iter().all(|task| task.jitter <= task.period) {
        descend(workload, horizon, budget).map_err(|found| shortest(workload, found, budget))?;
        Ok(Test::NpEdfDescent)
    } else {
        scan(workload, horizon, budget)?;
        Ok(Test::NpEdfScan)
    }
}

/// What can block the jobs that fill `window`.
pub(super) fn blocker(workload: &Workload, window: Nanos) -> Blocker {
    workload.blocker(|task| blocks_below(task) > window)
}

/// The window from which on a task blocks no more.
fn blocks_below(task: &Charged) -> Nanos {
    if task.jitter <= task.period { first_deadline(task) } else { task.deadline }
}

/// The shortest window that can hold a job of `task`. Positive, since a job alone fits.
fn first_deadline(task: &Charged) -> Nanos {
    task.deadline.saturating_sub(task.jitter)
}

/// A window by which every violation has shown itself, if there is one.
fn horizon(workload: &Workload, budget: &mut Budget) -> Result<Nanos, Refusal> {
    let unblocked = workload.tasks.iter().map(blocks_below).max().unwrap_or(Nanos::ZERO);
    let enough = demand_horizon(workload).map_or(Nanos::MAX, |demand| demand.max(unblocked));
    Ok(workload.busy_window(enough, budget)?.min(enough))
}

/// `(wake + sum C/T max(0, T + J - D)) / (1 - U)` rounded up, in units of 2^-64; `None` when
/// `1 - U` is too small for them. Shares are rounded up, what they leave is rounded down.
fn demand_horizon(workload: &Workload) -> Option<Nanos> {
    const ONE: u128 = 1 << 64;
    let mut free = ONE;
    let mut ahead = u128::from(workload.wake.0).checked_mul(ONE)?;
    for task in &workload.tasks {
        let share = (u128::from(task.cost.0) << 64).div_ceil(u128::from(task.period.0));
        let early = task.period.saturating_add(task.jitter).saturating_sub(task.deadline);
        free = free.checked_sub(share)?;
        ahead = ahead.checked_add(share.checked_mul(u128::from(early.0))?)?;
    }
    let bound = ahead.checked_add(free)?.checked_div(free)?;
    u64::try_from(bound).ok().map(Nanos)
}

/// Looks at windows from `horizon` down, skipping those that a longer one already answers for.
fn descend(workload: &Workload, horizon: Nanos, budget: &mut Budget) -> Result<(), Refusal> {
    let first = workload.tasks.iter().map(first_deadline).min().unwrap_or(Nanos::MAX);
    let mut next = last_step_before(workload, horizon.saturating_add(Nanos::EPSILON));
    while let Some(window) = next {
        budget.spend(2 * workload.tasks.len())?;
        let needed = needed_in(workload, window)?;
        // A violation below `window` also shows at or below `needed`: the sum never decreases.
        next = if needed < window {
            Some(needed).filter(|shorter| *shorter >= first)
        } else {
            last_step_before(workload, window)
        };
    }
    Ok(())
}

/// The shortest violated window in place of the one that was `found`: the one a reader can check
/// in the head.
fn shortest(workload: &Workload, found: Refusal, budget: &mut Budget) -> Refusal {
    let Refusal::DemandExceedsWindow { window, .. } = found else { return found };
    match scan(workload, window, budget) {
        Err(shorter @ Refusal::DemandExceedsWindow { .. }) => shorter,
        _ => found,
    }
}

/// Looks at every step of the demand up to `horizon`; also the slow twin of [`descend`].
fn scan(workload: &Workload, horizon: Nanos, budget: &mut Budget) -> Result<(), Refusal> {
    let steps = workload.tasks.iter().map(|task| (first_deadline(task), task.period));
    for window in Offsets::new(steps).take_while(|window| *window <= horizon) {
        budget.spend(workload.tasks.len())?;
        needed_in(workload, window)?;
    }
    Ok(())
}

/// Demand plus blocking of `window`, or a refusal when it does not fit.
fn needed_in(workload: &Workload, window: Nanos) -> Result<Nanos, Refusal> {
    let demand = demand(workload, window);
    let Blocker { length: blocking, model: blocked_by } = blocker(workload, window);
    let needed = demand.saturating_add(blocking);
    if needed > window {
        return Err(Refusal::DemandExceedsWindow { window, demand, blocking, blocked_by });
    }
    Ok(needed)
}

/// Work of all jobs that can be ready and due inside `window`.
fn demand(workload: &Workload, window: Nanos) -> Nanos {
    workload.tasks.iter().fold(Nanos::ZERO, |sum, task| {
        let jobs =
            window.checked_sub(first_deadline(task)).map_or(0, |rest| rest / task.period + 1);
        sum.saturating_add(task.cost.saturating_mul(jobs))
    })
}

/// The longest window below `limit` at which the demand steps.
fn last_step_before(workload: &Workload, limit: Nanos) -> Option<Nanos> {
    let last_of = |task: &Charged| {
        let first = first_deadline(task);
        let room = limit.checked_sub(Nanos::EPSILON)?.checked_sub(first)?;
        Some(first + task.period * (room / task.period))
    };
    workload.tasks.iter().filter_map(last_of).max()
}

#[cfg(test)]
mod tests {
    use aegis_trace::ModelId;
    use proptest::prelude::*;

    use super::*;
    use crate::task::{Overheads, Task, TaskSet, TaskSpec};

    /// Tasks as `(stages, period beyond the cost, deadline beyond jitter and cost, jitter)`.
    fn workload(tasks: &[(Vec<u64>, u64, u64, u64)], wake: u64) -> Result<Workload, Refusal> {
        let tasks = tasks.iter().zip(0..).map(|((stages, rest, room, jitter), index)| {
            let cost: u64 = stages.iter().sum();
            let spec = TaskSpec {
                model: ModelId::first(index),
                period: Nanos(cost + rest),
                deadline: Nanos(jitter + cost + room),
                jitter: Nanos(*jitter),
                priority: 0,
                stages: stages.iter().copied().map(Nanos).collect(),
            };
            Task::new(spec).expect("a valid task")
        });
        let set = TaskSet::new(tasks.collect()).expect("a valid set");
        Workload::new(&set, &Overheads { dispatch: Nanos::ZERO, wake: Nanos(wake) })
    }

    fn tasks(jitter: u64) -> impl Strategy<Value = Vec<(Vec<u64>, u64, u64, u64)>> {
        let stages = prop::collection::vec(1u64..6, 1..4);
        prop::collection::vec((stages, 1u64..60, 0u64..40, 0..=jitter), 1..6)
    }

    fn without_end() -> Budget {
        Budget::new(u64::MAX)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn descending_answers_as_scanning(mut tasks in tasks(30), wake in 0u64..4) {
            for (stages, rest, _, jitter) in &mut tasks {
                *jitter = (*jitter).min(stages.iter().sum::<u64>() + *rest);
            }
            if let Ok(workload) = workload(&tasks, wake) {
                let horizon = horizon(&workload, &mut without_end()).expect("there is an end");
                let descended = descend(&workload, horizon, &mut without_end());
                let scanned = scan(&workload, horizon, &mut without_end());
                prop_assert_eq!(descended.is_ok(), scanned.is_ok());
            }
        }

        #[test]
        fn nothing_is_wrong_beyond_the_horizon(tasks in tasks(90), wake in 0u64..4) {
            if let Ok(workload) = workload(&tasks, wake) {
                let horizon = horizon(&workload, &mut without_end()).expect("there is an end");
                if scan(&workload, horizon, &mut without_end()).is_ok() {
                    let further = horizon * 3 + Nanos(500);
                    prop_assert_eq!(scan(&workload, further, &mut without_end()), Ok(()));
                }
            }
        }

        #[test]
        fn demand_and_blocking_never_decrease_while_jitter_stays_within_the_period(
            mut tasks in tasks(30), wake in 0u64..4
        ) {
            for (stages, rest, _, jitter) in &mut tasks {
                *jitter = (*jitter).min(stages.iter().sum::<u64>() + *rest);
            }
            if let Ok(workload) = workload(&tasks, wake) {
                let needed = |window: u64| {
                    demand(&workload, Nanos(window)) + blocker(&workload, Nanos(window)).length
                };
                prop_assert!((0..300).all(|window| needed(window) <= needed(window + 1)));
            }
        }
    }

    #[test]
    fn the_demand_horizon_is_rounded_up() {
        // (wake + sum U (T - D)) / (1 - U) = (1 + (1/3) 2) / (2/3) = 2.5
        let workload = workload(&[(vec![1], 2, 0, 0)], 1).expect("a third of the device");
        assert_eq!(demand_horizon(&workload), Some(Nanos(3)));
    }
}

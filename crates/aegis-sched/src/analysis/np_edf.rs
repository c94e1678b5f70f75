//! The verdict for non-preemptive and staged EDF: demand and blocking in every window.
//!
//! A set is schedulable when no window asks for more than its length:
//!
//! ```text
//! h(t) + b(t) <= t   for every step t = D - J + k T of h up to the horizon
//! ```
//!
//! with `h` and `b` of `demand.rs`, and `b` less a tick on ticks. Stopping at the longest deadline
//! would accept sets that miss; the horizon is the busy window over all tasks or, where that is
//! shorter, the point past which nothing can be violated: beyond every deadline
//! `h(t) + b(t) <= floor + U t + sum C/T (T + J - D)`, which does not exceed `t` from
//! `(floor + sum C/T max(0, T + J - D)) / (1 - U)` on. When the tasks use the device completely and
//! its windows never end, `h(t) - t` repeats after the least common multiple of the periods once no
//! task blocks any more, so one such cycle behind the longest `D - J` is the horizon.
//!
//! With look-ahead the longest stage of the set is added to `b(t)` everywhere
//! ([`committed`](super::workload::Workload::committed)), and to the floor in the horizon.
//!
//! Since `h + b` never decreases, the windows can be searched downwards in large steps (QPA): a
//! violation below `t` also shows at or below `h(t) + b(t)`.
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
//! Exact for tasks of one stage, with any jitter and any deadline. For several stages it is exact
//! if stages may be arbitrarily short (the blocking stage is then reached at no cost of time), and
//! sufficient if every stage takes its full cost. Costs `O(n)` terms for each window looked at.
//!
//! # Sources
//! Jeffay, Stanat, Martel, "On non-preemptive scheduling of periodic and sporadic tasks", RTSS 1991
//! (the case `D = T`). George, Rivierre, Spuri, "Preemptive and non-preemptive real-time
//! uniprocessor scheduling", INRIA RR-2966, 1996. Baruah, "The limited-preemption uniprocessor
//! scheduling of sporadic task systems", ECRTS 2005, for stages. Zhang, Burns, "Schedulability
//! analysis for real-time systems with EDF scheduling", IEEE Transactions on Computers 58, 2009.

use aegis_trace::{Nanos, Refusal};

use super::demand::Demand;
use super::fixed_point::{Budget, Exhausted};
use super::offsets::Offsets;
use super::workload::{Blocker, Workload};

/// Decides whether every deadline is met, if windows below `from` are known to be fine. Asks nothing
/// that every policy requires: see [`Workload::check_necessary`].
///
/// # Errors
/// The shortest window whose demand and blocking exceed it (a longer one where the budget does not
/// reach so far), or the search ended without an answer.
pub(super) fn check(
    workload: &Workload,
    demand: &Demand,
    from: Nanos,
    budget: &mut Budget,
) -> Result<(), Refusal> {
    let windows = Windows { demand, workload };
    let horizon = horizon(workload, demand, budget)?;
    windows.descend(from, horizon, budget).map_err(|found| windows.shortest(found, budget))
}

/// A window by which every violation has shown itself, if there is one.
fn horizon(workload: &Workload, demand: &Demand, budget: &mut Budget) -> Result<Nanos, Exhausted> {
    if let Some(cycle) = workload.cycle()? {
        return Ok(demand.unblocked().saturating_add(cycle));
    }
    let enough = settled(workload).map_or(Nanos::MAX, |from| from.max(demand.unblocked()));
    Ok(workload.busy_window(enough, budget)?.min(enough))
}

/// `(floor + sum C/T max(0, T + J - D)) / (1 - U)` rounded up, in units of 2^-64; `None` when
/// `1 - U` is too small for them. Shares are rounded up, what they leave is rounded down.
fn settled(workload: &Workload) -> Option<Nanos> {
    const ONE: u128 = 1 << 64;
    let mut free = ONE;
    let ahead = workload.floor.length.saturating_add(workload.beside());
    let mut ahead = u128::from(ahead.0).checked_mul(ONE)?;
    for task in &workload.tasks {
        let share = (u128::from(task.cost.0) << 64).div_ceil(u128::from(task.period.0));
        let early = task.period.saturating_add(task.jitter).saturating_sub(task.deadline);
        free = free.checked_sub(share)?;
        ahead = ahead.checked_add(share.checked_mul(u128::from(early.0))?)?;
    }
    let bound = ahead.checked_add(free)?.checked_div(free)?;
    u64::try_from(bound).ok().map(Nanos)
}

/// The windows to look at.
struct Windows<'a> {
    demand: &'a Demand,
    workload: &'a Workload,
}

impl Windows<'_> {
    /// Looks at windows from `horizon` down to `least`, skipping those that a longer one already
    /// answers for.
    fn descend(&self, least: Nanos, horizon: Nanos, budget: &mut Budget) -> Result<(), Refusal> {
        let Some(first) = self.demand.first_step() else { return Ok(()) };
        let least = least.max(first);
        let mut next = self.demand.last_step_before(horizon.saturating_add(Nanos::EPSILON));
        while let Some(window) = next.filter(|window| *window >= least) {
            budget.spend(self.demand.due_within(window).len())?;
            let needed = self.needed_in(window, self.demand.within(window))?;
            // A violation below `window` also shows at or below `needed`: the sum never decreases.
            next =
                if needed < window { Some(needed) } else { self.demand.last_step_before(window) };
        }
        Ok(())
    }

    /// The shortest violated window in place of the one that was `found`: the one a reader can
    /// check in the head.
    fn shortest(&self, found: Refusal, budget: &mut Budget) -> Refusal {
        let Refusal::DemandExceedsWindow { window, .. } = found else { return found };
        match self.scan(window, budget) {
            Err(shorter @ Refusal::DemandExceedsWindow { .. }) => shorter,
            _ => found,
        }
    }

    /// Looks at every step of the demand up to `horizon`; also the slow twin of
    /// [`Windows::descend`]. Costs `O(log n)` for each task that steps.
    fn scan(&self, horizon: Nanos, budget: &mut Budget) -> Result<(), Refusal> {
        let tasks = self.demand.tasks().iter();
        let steps = tasks.map(|(_, task)| (task.first_deadline(), task.period, task.cost));
        let mut demand = Nanos::ZERO;
        for (window, more) in Offsets::new(steps).take_while(|(window, _)| *window <= horizon) {
            budget.spend(Offsets::TERMS)?;
            demand = demand.saturating_add(more);
            self.needed_in(window, demand)?;
        }
        Ok(())
    }

    /// Demand plus blocking of `window`, or a refusal when it does not fit.
    fn needed_in(&self, window: Nanos, demand: Nanos) -> Result<Nanos, Refusal> {
        let Blocker { length, model: blocked_by } = self.demand.blocker(window);
        let blocking = self.workload.time.held_up(length);
        let blocking = blocking.saturating_add(self.workload.committed);
        let demand = demand.saturating_add(self.workload.overrun);
        let needed = demand.saturating_add(blocking);
        if needed > window {
            return Err(Refusal::DemandExceedsWindow { window, demand, blocking, blocked_by });
        }
        Ok(needed)
    }
}

#[cfg(test)]
mod tests {
    use aegis_trace::ModelId;
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::Setting;
    use crate::policy::PolicyKind;
    use crate::task::{Overheads, Task, TaskSet, TaskSpec};

    /// Tasks as `(stages, period beyond the cost, deadline beyond jitter and cost, jitter)`.
    fn workload(tasks: &[(Vec<u64>, u64, u64, u64)], wake: u64) -> Option<Workload> {
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
        let overheads = Overheads { dispatch: Nanos::ZERO, wake: Nanos(wake), ..Overheads::NONE };
        let workload = Workload::new(&set, &Setting::admission(PolicyKind::Edf, overheads));
        workload.check_necessary().is_ok().then_some(workload)
    }

    fn tasks(jitter: u64) -> impl Strategy<Value = Vec<(Vec<u64>, u64, u64, u64)>> {
        let stages = prop::collection::vec(1u64..6, 1..4);
        prop::collection::vec((stages, 0u64..60, 0u64..40, 0..=jitter), 1..6)
    }

    fn without_end() -> Budget {
        Budget::new(u64::MAX)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn descending_answers_as_scanning(tasks in tasks(90), wake in 0u64..4) {
            if let Some(workload) = workload(&tasks, wake) {
                let demand = Demand::new(&workload);
                let horizon = horizon(&workload, &demand, &mut without_end()).expect("an end");
                let windows = Windows { demand: &demand, workload: &workload };
                let descended = windows.descend(Nanos::ZERO, horizon, &mut without_end());
                let scanned = windows.scan(horizon, &mut without_end());
                prop_assert_eq!(descended.is_ok(), scanned.is_ok());
            }
        }

        #[test]
        fn nothing_is_wrong_beyond_the_horizon(tasks in tasks(90), wake in 0u64..4) {
            if let Some(workload) = workload(&tasks, wake) {
                let demand = Demand::new(&workload);
                let horizon = horizon(&workload, &demand, &mut without_end()).expect("an end");
                let windows = Windows { demand: &demand, workload: &workload };
                if windows.scan(horizon, &mut without_end()).is_ok() {
                    let further = Nanos((horizon * 3 + Nanos(500)).0.min(horizon.0 + 200_000));
                    prop_assert_eq!(windows.scan(further, &mut without_end()), Ok(()));
                }
            }
        }

        #[test]
        fn demand_and_blocking_never_decrease(tasks in tasks(90), wake in 0u64..4) {
            if let Some(workload) = workload(&tasks, wake) {
                let demand = Demand::new(&workload);
                let needed = |window: u64| {
                    demand.within(Nanos(window)) + demand.blocker(Nanos(window)).length
                };
                prop_assert!((0..300).all(|window| needed(window) <= needed(window + 1)));
            }
        }
    }

    #[test]
    fn demand_is_settled_from_a_point_that_is_rounded_up() {
        // (wake + sum U (T - D)) / (1 - U) = (1 + (1/3) 2) / (2/3) = 2.5
        let workload = workload(&[(vec![1], 2, 0, 0)], 1).expect("a third of the device");
        assert_eq!(settled(&workload), Some(Nanos(3)));
    }
}

//! Worst-case response times under non-preemptive and staged EDF.
//!
//! Under EDF the worst job need not be released together with the others: it suffers most when
//! their deadlines just precede its own. So the release offset `a` of the job in its busy window is
//! varied over all instants at which a deadline of the others can fall on `d = a + D_i`:
//!
//! ```text
//! b = longest stage of a task with D_k > d, or the wake-up latency where that is longer
//! start of the last stage:
//!     w = b + floor(a / T_i) C_i + (C_i - last_i)
//!           + sum over j != i with D_j <= d of min(jobs_within(w), floor((d - D_j) / T_j) + 1) C_j
//! R = max(C_i, w + last_i - a)
//! ```
//!
//! # Assumptions
//! Those of [`super::np_edf`], and no jitter.
//!
//! Exact for tasks of one stage, sound for several. With jitter, or where the search would take
//! longer than its share of the budget, the bound is `D_i`: sound because the verdict of
//! [`super::np_edf`] holds. The share is the same for every task, so the order of the set does not
//! matter. Costs `O(n)` terms for each offset and step; offsets that cannot beat the worst response
//! found so far cost one step.
//!
//! # Sources
//! Spuri, "Analysis of deadline scheduled real-time systems", INRIA RR-2772, 1996. George,
//! Rivierre, Spuri, "Preemptive and non-preemptive real-time uniprocessor scheduling", INRIA
//! RR-2966, 1996. The last stage as in Prosa's machine-checked analysis of EDF with limited
//! preemptions.

use aegis_trace::{Nanos, Refusal};

use super::Bound;
use super::arrivals::{Edge, jobs_within};
use super::fixed_point::{Budget, Exhausted};
use super::np_edf;
use super::offsets::Offsets;
use super::workload::{Blocker, Charged, Workload};

/// The bounds of all tasks of a set that [`np_edf::check`] accepted, in the set's order.
///
/// # Errors
/// None for an accepted set; a bound past its deadline is refused all the same.
pub(super) fn bounds(workload: &Workload, terms: u64) -> Result<Vec<Bound>, Refusal> {
    let tasks = u64::try_from(workload.tasks.len()).unwrap_or(u64::MAX);
    let share = terms / (tasks + 1); // One more for the busy window they share.
    let busy = workload.busy_window(Nanos::MAX, &mut Budget::new(share)).ok();
    let busy = busy.filter(|_| !workload.has_jitter());
    (0..workload.tasks.len())
        .map(|index| {
            let task = &workload.tasks[index];
            let blocker = np_edf::blocker(workload, task.deadline.saturating_sub(task.jitter));
            let search = busy.map(|busy| Search { workload, index, task, busy });
            let found = search.and_then(|search| search.response(&mut Budget::new(share)).ok());
            Workload::bound(task, found.unwrap_or(task.deadline), blocker)
        })
        .collect()
}

/// The search for the worst offset of one task.
struct Search<'a> {
    workload: &'a Workload,
    index: usize,
    task: &'a Charged,
    /// The longest busy window of the whole set.
    busy: Nanos,
}

/// What can interfere with one job. All that has a deadline in time for it interferes at least
/// once, since it may be released with the window's first job.
#[derive(Default)]
struct Rivals {
    /// Tasks of which one job at most has its deadline in time: their costs, summed.
    once: Nanos,
    /// The others.
    often: Vec<Rival>,
}

/// At most `jobs` jobs of one other task.
struct Rival {
    period: Nanos,
    cost: Nanos,
    jobs: u64,
}

impl Rivals {
    fn interference(&self, window: Nanos, edge: Edge) -> Nanos {
        self.often.iter().fold(self.once, |sum, rival| {
            let jobs = jobs_within(window, Nanos::ZERO, rival.period, edge).min(rival.jobs);
            sum.saturating_add(rival.cost.saturating_mul(jobs))
        })
    }
}

impl Search<'_> {
    fn response(&self, budget: &mut Budget) -> Result<Nanos, Exhausted> {
        let latest = self.busy.saturating_add(self.workload.blocker(|_| true).length);
        let mut worst = self.task.cost;
        let mut rivals = Rivals::default();
        for offset in self.offsets().take_while(|offset| *offset < self.busy) {
            if latest <= offset.saturating_add(worst) {
                break; // Whatever is released later is complete soon enough.
            }
            budget.spend(self.workload.tasks.len())?;
            self.collect_rivals(offset, &mut rivals);
            worst = self.response_at(offset, worst, &rivals, budget)?;
        }
        Ok(worst)
    }

    /// The offsets at which a deadline of some task meets the job's own.
    fn offsets(&self) -> Offsets {
        let own = self.task.deadline;
        Offsets::new(self.workload.tasks.iter().map(|other| {
            let first = match other.deadline.checked_sub(own) {
                Some(after) => after,
                None => match (own - other.deadline) % other.period {
                    Nanos::ZERO => Nanos::ZERO,
                    past => other.period - past,
                },
            };
            (first, other.period)
        }))
    }

    /// Refills `rivals`, so that its memory is taken once for a whole search.
    fn collect_rivals(&self, offset: Nanos, rivals: &mut Rivals) {
        let due = offset.saturating_add(self.task.deadline);
        rivals.once = Nanos::ZERO;
        rivals.often.clear();
        for (index, other) in self.workload.tasks.iter().enumerate() {
            let Charged { period, cost, deadline, .. } = *other;
            match due.checked_sub(deadline).map(|room| room / period) {
                Some(_) if index == self.index => {}
                Some(0) => rivals.once = rivals.once.saturating_add(cost),
                Some(more) => rivals.often.push(Rival { period, cost, jobs: more + 1 }),
                None => {}
            }
        }
    }

    /// The larger of `worst` and the response of a job released at `offset`.
    fn response_at(
        &self,
        offset: Nanos,
        worst: Nanos,
        rivals: &Rivals,
        budget: &mut Budget,
    ) -> Result<Nanos, Exhausted> {
        let Charged { cost, last_stage, period, deadline, .. } = *self.task;
        let due = offset.saturating_add(deadline);
        let Blocker { length, .. } = np_edf::blocker(self.workload, due);
        let edge = Edge::after(length);
        let own = cost.saturating_mul(offset / period + 1).saturating_sub(last_stage);
        let base = length.saturating_add(own);
        let step = |start| base.saturating_add(rivals.interference(start, edge));
        // A point at or above its image has the least fixed point below it: nothing worse here.
        let known = worst.saturating_add(offset).saturating_sub(last_stage);
        budget.spend(rivals.often.len())?;
        if step(known) <= known {
            return Ok(worst);
        }
        let start = budget.least_fixed_point(base, rivals.often.len(), step)?;
        Ok(worst.max(start.saturating_add(last_stage).saturating_sub(offset)))
    }
}

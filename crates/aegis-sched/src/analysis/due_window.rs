//! The busy window of the jobs that are due by some instant, under EDF.
//!
//! With everybody released at 0, held back for their jitter, behind the longest stage that is due
//! later, the jobs due by `d` keep the device busy until, on ticks,
//!
//! ```text
//! e = (b(d) - 1) + sum over D_j - J_j <= d of
//!       min(ceil((e + J_j) / T_j), floor((d - D_j + J_j) / T_j) + 1) C_j
//! ```
//!
//! A job due at `d` that is released before `e` is complete by then: at `w = e - last` its own
//! recurrence (`np_edf_response.rs`) asks for no more than `w`, since
//! `floor(w / T) + 1 <= ceil(e / T)`, and all of its task's jobs due by `d` are in `e`. That does
//! not depend on which task it is of, and it is often far below the demand `h(d) + b(d)`.
//!
//! # Invariants
//! 1. Instants are asked for in ascending order. While the blocker stays the same `e` never
//!    decreases, so counting goes on from the last `e`; otherwise it begins anew.
//!
//! # Sources
//! Spuri, "Analysis of deadline scheduled real-time systems", INRIA RR-2772, 1996: the deadline
//! busy period.

use aegis_trace::Nanos;

use super::demand::{Demand, jobs_due};
use super::fixed_point::{Budget, Exhausted, LONGEST_WINDOW};
use super::time::ticks;
use super::workload::Charged;

/// The window, as it grows from instant to instant.
pub(super) struct DueWindow<'a> {
    demand: &'a Demand,
    counts: Vec<Count>,
    /// Work beyond all costs, and what look-ahead adds.
    beside: Nanos,
    /// What is ahead of it, on ticks: what blocks it, and what is beside.
    blocking: Nanos,
    /// One less than its length.
    last: Nanos,
    /// The work of all jobs that count.
    work: Nanos,
    /// No job that is due starts to count before this.
    soonest: Nanos,
}

/// The jobs of one task, in the order of [`Demand::tasks`].
#[derive(Clone, Copy)]
struct Count {
    /// Jobs that are due.
    due: u64,
    /// When one more is due.
    next_due: Nanos,
    /// Jobs that count: they are due, and came by `last`.
    jobs: u64,
    /// When one more comes.
    next: Nanos,
}

impl<'a> DueWindow<'a> {
    /// From how many tasks on it rules out more work than it costs, as measured.
    pub(super) const PAYS: usize = 64;

    pub(super) fn new(demand: &'a Demand, beside: Nanos) -> Self {
        let count = |(_, task): &(usize, Charged)| Count {
            due: 0,
            next_due: task.first_deadline(),
            jobs: 0,
            next: Nanos::ZERO,
        };
        Self {
            demand,
            counts: demand.tasks().iter().map(count).collect(),
            beside,
            blocking: Nanos::ZERO,
            last: Nanos::ZERO,
            work: Nanos::ZERO,
            soonest: Nanos::MAX,
        }
    }

    /// How long the jobs due by `due` keep the device busy; `due` never decreases.
    pub(super) fn until(&mut self, due: Nanos, budget: &mut Budget) -> Result<Nanos, Exhausted> {
        let blocking = self.demand.blocker(due).ticks().saturating_add(self.beside);
        if blocking != self.blocking {
            self.begin(blocking);
        }
        let tasks = self.demand.due_within(due);
        budget.spend(tasks.len() / 8)?; // A pass with few divisions.
        for (count, (_, task)) in self.counts.iter_mut().zip(tasks) {
            if count.next_due <= due {
                count.due = jobs_due(task, due);
                count.next_due =
                    task.first_deadline().saturating_add(task.period.saturating_mul(count.due));
                self.soonest = self.soonest.min(count.next);
            }
        }
        self.climb(tasks, budget)
    }

    fn begin(&mut self, blocking: Nanos) {
        for count in &mut self.counts {
            (count.jobs, count.next) = (0, Nanos::ZERO);
        }
        (self.blocking, self.last, self.work) = (blocking, Nanos::ZERO, Nanos::ZERO);
        self.soonest = Nanos::ZERO;
    }

    fn climb(
        &mut self,
        tasks: &[(usize, Charged)],
        budget: &mut Budget,
    ) -> Result<Nanos, Exhausted> {
        while self.soonest <= self.last {
            budget.spend(tasks.len())?;
            self.catch_up(tasks);
            let reached = ticks(self.blocking.saturating_add(self.work)).max(self.last);
            if reached >= LONGEST_WINDOW {
                return Err(Exhausted::too_long(reached));
            }
            self.last = reached;
        }
        Ok(self.last.saturating_add(Nanos::EPSILON))
    }

    /// Counts what has come by `last`.
    fn catch_up(&mut self, tasks: &[(usize, Charged)]) {
        self.soonest = Nanos::MAX;
        for (count, (_, task)) in self.counts.iter_mut().zip(tasks) {
            if count.next <= self.last && count.jobs < count.due {
                let came = (self.last + task.jitter) / task.period + 1;
                let jobs = came.min(count.due);
                let more = task.cost.saturating_mul(jobs - count.jobs);
                self.work = self.work.saturating_add(more);
                count.jobs = jobs;
                count.next = task.period.saturating_mul(jobs).saturating_sub(task.jitter);
            }
            if count.jobs < count.due {
                self.soonest = self.soonest.min(count.next);
            }
        }
    }
}

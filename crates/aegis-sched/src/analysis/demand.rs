//! Demand and blocking of a window under EDF.
//!
//! ```text
//! h(t) = sum over tasks with D - J <= t of (floor((t + J - D) / T) + 1) C
//! b(t) = longest stage of a task with D - J > t, or the floor where that is longer
//! ```
//!
//! `h` is the work of all jobs that can be ready and due inside the window. A stage that started
//! just before the window blocks it if its job's deadline lies behind the window's end; otherwise
//! that job would be demand. A task with `D - J <= t` is in the demand with a whole job, which is no
//! less than any of its stages, so only the others can add to it. That holds for any jitter, also
//! beyond the period, because the jobs of a task run in order: if a job of a task with its deadline
//! behind the window runs before it, no job of that task is left that is due inside.
//!
//! # Invariants
//! 1. `h + b` never decreases: a task leaves `b` at the very window at which it enters `h`, with a
//!    cost no less than its longest stage.
//!
//! # Sources
//! Baruah, "The limited-preemption uniprocessor scheduling of sporadic task systems", ECRTS 2005.
//! Spuri, "Analysis of deadline scheduled real-time systems", INRIA RR-2772, 1996, for jitter.

use aegis_trace::Nanos;

use super::workload::{Blocker, Charged, Workload};

/// The tasks in the order in which they enter the demand.
pub(super) struct Demand {
    /// By `D - J`, ascending; with the index of each in the set.
    tasks: Vec<(usize, Charged)>,
    /// The longest stage of the tasks from each place on, or the floor.
    longest: Vec<Blocker>,
}

impl Demand {
    /// Costs `O(n log n)`.
    pub(super) fn new(workload: &Workload) -> Self {
        let mut tasks: Vec<(usize, Charged)> = workload.tasks.iter().copied().enumerate().collect();
        tasks.sort_by_key(|(_, task)| task.first_deadline());
        let mut longest = vec![workload.floor; tasks.len() + 1];
        for place in (0..tasks.len()).rev() {
            let Charged { longest_stage: length, model, .. } = tasks[place].1;
            longest[place] = longest[place + 1].or_longer(Blocker { length, model: Some(model) });
        }
        Self { tasks, longest }
    }

    /// The tasks with their indices in the set, by `D - J`.
    pub(super) fn tasks(&self) -> &[(usize, Charged)] {
        &self.tasks
    }

    /// The tasks that can have a job ready and due inside `window`. Costs `O(log n)`.
    pub(super) fn due_within(&self, window: Nanos) -> &[(usize, Charged)] {
        &self.tasks[..self.tasks.partition_point(|(_, task)| task.first_deadline() <= window)]
    }

    /// What can block the jobs of `window`. Costs `O(log n)`.
    pub(super) fn blocker(&self, window: Nanos) -> Blocker {
        self.longest[self.due_within(window).len()]
    }

    /// The work that must be done inside `window`. Costs `O(n)` terms.
    pub(super) fn within(&self, window: Nanos) -> Nanos {
        self.due_within(window).iter().fold(Nanos::ZERO, |sum, (_, task)| {
            sum.saturating_add(task.cost.saturating_mul(jobs_due(task, window)))
        })
    }

    /// The longest window below `limit` at which the demand steps. Costs `O(n)` terms.
    pub(super) fn last_step_before(&self, limit: Nanos) -> Option<Nanos> {
        let last = limit.checked_sub(Nanos::EPSILON)?;
        let step = |(_, task): &(usize, Charged)| {
            let first = task.first_deadline();
            first + task.period * ((last - first) / task.period)
        };
        self.due_within(last).iter().map(step).max()
    }

    /// The shortest window at which the demand steps.
    pub(super) fn first_step(&self) -> Option<Nanos> {
        self.tasks.first().map(|(_, task)| task.first_deadline())
    }

    /// The window from which on no task blocks any more.
    pub(super) fn unblocked(&self) -> Nanos {
        self.tasks.last().map_or(Nanos::ZERO, |(_, task)| task.first_deadline())
    }
}

/// How many jobs of `task` can be ready and due inside `window`, which holds one at least.
pub(super) fn jobs_due(task: &Charged, window: Nanos) -> u64 {
    (window - task.first_deadline()) / task.period + 1
}

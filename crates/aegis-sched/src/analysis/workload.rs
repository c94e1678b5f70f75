//! The workload an analysis sees: tasks with every overhead folded in.
//!
//! # Invariants
//! 1. Every stage, of a blocker too, is charged the dispatch overhead once. The dispatcher decides
//!    only when a stage ends, so there is exactly one decision for each stage and the charge is
//!    exact, not only safe.
//! 2. All arithmetic on times saturates upwards. Times of a task are at most 2^50 ns and sets at
//!    most 2^10 tasks, so only absurd overheads get there, and a saturated cost can only refuse.
//! 3. A [`Bound`] is made in one place, [`Workload::bound`], which refuses what is late.

use std::cmp::Ordering;

use aegis_trace::{ModelId, Nanos, Refusal};

use super::Bound;
use super::arrivals::{Edge, jobs_within};
use super::fixed_point::{Budget, Exhausted};
use super::utilisation::Utilisation;
use crate::task::{Overheads, Task, TaskSet};

/// A task with the overheads charged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charged {
    pub(super) model: ModelId,
    pub(super) period: Nanos,
    pub(super) deadline: Nanos,
    pub(super) jitter: Nanos,
    pub(super) priority: u32,
    pub(super) cost: Nanos,
    pub(super) longest_stage: Nanos,
    pub(super) last_stage: Nanos,
}

impl Charged {
    fn new(task: &Task, dispatch: Nanos) -> Self {
        let dispatch = if task.is_server() { Nanos::ZERO } else { dispatch };
        let stages = u64::try_from(task.stages().len()).unwrap_or(u64::MAX);
        Self {
            model: task.model(),
            period: task.period(),
            deadline: task.deadline(),
            jitter: task.jitter(),
            priority: task.priority(),
            cost: task.cost().saturating_add(dispatch.saturating_mul(stages)),
            longest_stage: task.longest_stage().saturating_add(dispatch),
            last_stage: task.last_stage().saturating_add(dispatch),
        }
    }
}

/// What holds the device when a window begins, and cannot be preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocker {
    pub(super) length: Nanos,
    /// `None` for the wake-up latency or work in the background, or when there is nothing.
    pub(super) model: Option<ModelId>,
}

/// Every task that shares the device, charged, and the wake-up latency.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) tasks: Vec<Charged>,
    /// The wake-up latency, or the longest piece in the background where that is longer.
    pub(super) wake: Nanos,
    pub(super) utilisation: Utilisation,
}

impl Workload {
    /// Charges `overheads` to `set` and asks what every policy requires.
    ///
    /// # Errors
    /// A job alone misses its deadline, or the tasks together exceed the device: `sum C/T > 1`, or
    /// `= 1` with jitter or a wake-up. In that last case busy windows never end. Responses may then
    /// still be bounded, so this refusal is the one that is only sufficient.
    pub(super) fn new(set: &TaskSet, overheads: &Overheads) -> Result<Self, Refusal> {
        let charged = |task: &Task| Charged::new(task, overheads.dispatch);
        let tasks: Vec<Charged> = set.tasks().iter().map(charged).collect();
        let utilisation = Utilisation::of(tasks.iter().map(|task| (task.cost, task.period)));
        // One thing to the theorems: a stage less urgent than all, which blocks everyone and may
        // begin a busy window. Only one of the two can do so.
        let background = match set.background() {
            Nanos::ZERO => Nanos::ZERO,
            chunk => chunk.saturating_add(overheads.dispatch),
        };
        let workload = Self { tasks, wake: overheads.wake.max(background), utilisation };
        workload.check_each_job_alone()?;
        workload.check_utilisation()?;
        Ok(workload)
    }

    fn check_each_job_alone(&self) -> Result<(), Refusal> {
        let needed = |task: &Charged| task.jitter.saturating_add(task.cost);
        match self.tasks.iter().find(|task| needed(task) > task.deadline) {
            None => Ok(()),
            Some(task) => Err(Refusal::CostExceedsDeadline {
                model: task.model,
                cost: needed(task),
                deadline: task.deadline,
            }),
        }
    }

    fn check_utilisation(&self) -> Result<(), Refusal> {
        let ends_on_time = self.wake == Nanos::ZERO && !self.has_jitter();
        match self.utilisation.cmp_one() {
            Ordering::Less => Ok(()),
            Ordering::Equal if ends_on_time => Ok(()),
            Ordering::Equal | Ordering::Greater => {
                Err(Refusal::Overutilised { utilisation_ppm: self.utilisation.ppm() })
            }
        }
    }

    pub(super) fn has_jitter(&self) -> bool {
        self.tasks.iter().any(|task| task.jitter > Nanos::ZERO)
    }

    /// The longest time the device can stay busy without a break, or any value above `enough`:
    /// the least fixed point of `L = wake + sum ceil((L + J) / T) C`.
    pub(super) fn busy_window(
        &self,
        enough: Nanos,
        budget: &mut Budget,
    ) -> Result<Nanos, Exhausted> {
        let work = |window: Nanos| {
            self.tasks.iter().fold(self.wake, |sum, task| {
                let jobs = jobs_within(window, task.jitter, task.period, Edge::Open);
                sum.saturating_add(task.cost.saturating_mul(jobs))
            })
        };
        budget.climb(work(Nanos::EPSILON), enough, self.tasks.len(), work)
    }

    /// The longest stage among the tasks that `can_block`, or the wake-up where that is longer. Of
    /// equally long ones the first in the set's order is named.
    pub(super) fn blocker(&self, can_block: impl Fn(&Charged) -> bool) -> Blocker {
        let stages = self.tasks.iter().filter(|task| can_block(task));
        let named = |task: &Charged| (task.longest_stage, Some(task.model));
        let (length, model) = stages.map(named).fold((self.wake, None), |longest, stage| {
            if stage.0 > longest.0 { stage } else { longest }
        });
        Blocker { length, model }
    }

    /// The bound of one task, or a refusal when it is late.
    pub(super) fn bound(
        task: &Charged,
        response: Nanos,
        blocker: Blocker,
    ) -> Result<Bound, Refusal> {
        let Charged { model, cost, deadline, .. } = *task;
        let Blocker { length: blocking, model: blocked_by } = blocker;
        match deadline.checked_sub(response) {
            Some(slack) => Ok(Bound { model, cost, response, blocking, blocked_by, slack }),
            None => Err(Refusal::ResponseExceedsDeadline {
                model,
                response,
                deadline,
                blocking,
                blocked_by,
            }),
        }
    }
}

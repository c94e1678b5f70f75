//! Worst-case response times under non-preemptive and staged fixed priorities.
//!
//! The job that suffers most is not always the first: a job pushed out by its predecessor can be
//! the worst, even when deadlines do not exceed periods. So every job of the level-i busy window
//! is examined, with the blocker at its start. In dense time (see [`super::arrivals`]):
//!
//! ```text
//! hp = the tasks at least as urgent as i, without i
//! B  = the longest stage of the less urgent ones, or the wake-up latency where that is longer
//! start of the last stage of job n = 0, 1, ...:
//!     w = B + n C_i + (C_i - last_i) + sum over hp of jobs_within(w) C_j
//!     R = J_i + w + last_i - n T_i
//! until the window ends before job n + 1 can be ready:
//!     e = B + (n + 1) C_i + sum over hp of ceil((e + J_j) / T_j) C_j  <=  (n + 1) T_i - J_i
//! ```
//!
//! # Assumptions
//! 1. At least `T` between nominal releases of a task; each ready at most `J` after its own.
//! 2. A stage runs to completion; between stages the job goes on unless a strictly more urgent one
//!    is ready. A task's jobs run in release order.
//! 3. The device never idles while a job is ready, up to the wake-up latency.
//! 4. Every stage stays within its cost; stages may be shorter.
//! 5. Utilisation is below 1, or 1 without jitter and wake-up, which [`super::workload`] checks.
//!
//! Exact for tasks of one stage when jobs of equal priority may run in any order; where they run
//! in release order it is exact without ties and sound with them. Sound for several stages; Bril et
//! al. prove it exact, and no stage set explored in the tests stayed below its bound.
//! Costs `O(n)` terms for each step, with as many steps as there are arrivals in the busy windows.
//!
//! # Sources
//! Davis, Burns, Bril, Lukkien, "Controller Area Network (CAN) schedulability analysis: refuted,
//! revisited and revised", Real-Time Systems 35, 2007. Bril, Lukkien, Verhaegh, "Worst-case
//! response time analysis of real-time tasks under fixed-priority scheduling with deferred
//! preemption", Real-Time Systems 42, 2009. Bertogna, Buttazzo, Yao, "Improving feasibility of
//! fixed priority tasks using non-preemptive regions", RTSS 2011, for the last stage.

use aegis_trace::{Nanos, Refusal};

use super::Bound;
use super::arrivals::{Edge, jobs_within};
use super::fixed_point::{Budget, Exhausted};
use super::workload::{Blocker, Charged, Workload};

/// The bounds of all tasks, ordered by `urgency` (smaller is more urgent), in the set's order.
///
/// # Errors
/// The first task in the set's order that is late, or that the budget left no answer for.
pub(super) fn bounds(
    workload: &Workload,
    urgency: impl Fn(&Charged) -> u64,
    budget: &mut Budget,
) -> Result<Vec<Bound>, Refusal> {
    (0..workload.tasks.len())
        .map(|index| Level::new(workload, index, &urgency).bound(budget))
        .collect()
}

/// One task with all that can delay it.
struct Level<'a> {
    task: &'a Charged,
    /// The other tasks at least as urgent.
    rivals: Vec<&'a Charged>,
    blocker: Blocker,
}

impl<'a> Level<'a> {
    fn new(workload: &'a Workload, index: usize, urgency: &impl Fn(&Charged) -> u64) -> Self {
        let task = &workload.tasks[index];
        let level = urgency(task);
        let others = workload.tasks.iter().enumerate().filter(|(other, _)| *other != index);
        let rivals = others.map(|(_, rival)| rival).filter(|rival| urgency(rival) <= level);
        Self {
            task,
            rivals: rivals.collect(),
            blocker: workload.blocker(|other| urgency(other) > level),
        }
    }

    /// Examines every job of the busy window, and stops early at one that is late.
    fn bound(&self, budget: &mut Budget) -> Result<Bound, Refusal> {
        let mut worst = Nanos::ZERO;
        let mut start = self.blocker.length;
        for job in 0.. {
            start = self.last_stage_start(job, start, budget).or_else(|spent| {
                // Late at what was reached is late, however long the rest would take.
                let late = self.response(job, spent.reached) > self.task.deadline;
                if late { Ok(spent.reached) } else { Err(Refusal::from(spent)) }
            })?;
            worst = worst.max(self.response(job, start));
            if worst > self.task.deadline || self.window_ends_after(job, start, budget)? {
                break;
            }
        }
        Workload::bound(self.task, worst, self.blocker)
    }

    /// When the last stage of `job` starts, from the window's beginning. Starts of successive jobs
    /// only grow, so the previous one is where to begin.
    fn last_stage_start(
        &self,
        job: u64,
        from: Nanos,
        budget: &mut Budget,
    ) -> Result<Nanos, Exhausted> {
        let edge = Edge::after(self.blocker.length);
        let before_last = self.own_work(job + 1).saturating_sub(self.task.last_stage);
        let base = self.blocker.length.saturating_add(before_last);
        let step = |start| base.saturating_add(self.interference(start, edge));
        budget.least_fixed_point(from, self.rivals.len(), step)
    }

    /// The response of `job` from its nominal release, if its last stage starts at `start`.
    fn response(&self, job: u64, start: Nanos) -> Nanos {
        let completion = start.saturating_add(self.task.last_stage);
        let since_ready = completion.saturating_sub(self.task.period.saturating_mul(job));
        since_ready.saturating_add(self.task.jitter)
    }

    /// Whether all work of this level is done before the job after `job` can be ready.
    fn window_ends_after(
        &self,
        job: u64,
        start: Nanos,
        budget: &mut Budget,
    ) -> Result<bool, Exhausted> {
        let next = self.task.period.saturating_mul(job + 1).saturating_sub(self.task.jitter);
        let completion = start.saturating_add(self.task.last_stage);
        let base = self.blocker.length.saturating_add(self.own_work(job + 1));
        let step = |end| base.saturating_add(self.interference(end, Edge::Open));
        let end = budget.climb(completion, next, self.rivals.len(), step)?;
        Ok(end <= next)
    }

    fn own_work(&self, jobs: u64) -> Nanos {
        self.task.cost.saturating_mul(jobs)
    }

    /// What the rivals can run of the jobs that count in `window`.
    fn interference(&self, window: Nanos, edge: Edge) -> Nanos {
        self.rivals.iter().fold(Nanos::ZERO, |sum, rival| {
            let jobs = jobs_within(window, rival.jitter, rival.period, edge);
            sum.saturating_add(rival.cost.saturating_mul(jobs))
        })
    }
}

//! The busy period of one task under fixed priorities, and busy periods of any tasks.
//!
//! In dense time with what is ahead in full: a busy period holds what is ready *before* its end, and a
//! start is that on ticks plus 1 where something blocks.
//!
//! # Sources
//! Those of [`crate::analysis::np_fixed_priority`].

use std::cmp::Ordering;

use aegis_trace::Nanos;

use super::super::TimeModel;
use super::super::fixed_point::{Budget, Exhausted, LONGEST_WINDOW};
use super::super::utilisation::Utilisation;
use super::super::window::GrowingWork;
use super::super::workload::{Blocker, Charged, hyperperiod};
use super::NotDerived;

/// One task, those at least as urgent, and what blocks it.
pub(super) struct Level<'a> {
    pub(super) task: &'a Charged,
    pub(super) rivals: Vec<&'a Charged>,
    pub(super) blocker: Blocker,
    pub(super) committed: Nanos,
}

impl<'a> Level<'a> {
    /// How long its busy period is, or a cycle of it, and how many of its jobs are ready there.
    pub(super) fn busy(&self, budget: &mut Budget) -> Result<(Nanos, u64), NotDerived> {
        let all: Vec<&Charged> = self.rivals.iter().copied().chain([self.task]).collect();
        let ahead = self.blocker.length.saturating_add(self.committed);
        if let Some(cycle) = cycle(&all, ahead)? {
            return Ok((cycle, cycle / self.task.period));
        }
        let busy = busy(&all, ahead, budget)?;
        Ok((busy, busy.saturating_add(self.task.jitter).div_ceil(self.task.period)))
    }

    pub(super) fn starts(&self, jobs: u64, budget: &mut Budget) -> Result<Vec<Nanos>, NotDerived> {
        let mut walk = self.walk();
        (0..jobs).map(|_| walk.next(budget)).collect()
    }

    pub(super) fn walk(&self) -> Walk<'a> {
        let mut work = GrowingWork::new();
        self.rivals.iter().for_each(|rival| work.add(rival, u64::MAX));
        let Self { task, blocker, committed, .. } = *self;
        Walk { task, blocker, committed, work, reached: Nanos::ZERO, job: 0 }
    }

    pub(super) fn response(&self, job: u64, start: Nanos) -> Nanos {
        let end = start.saturating_add(self.task.last_stage).saturating_add(self.task.jitter);
        end.saturating_sub(self.task.period.saturating_mul(job))
    }
}

/// The jobs of a busy period, one after the other.
pub(super) struct Walk<'a> {
    task: &'a Charged,
    blocker: Blocker,
    committed: Nanos,
    work: GrowingWork,
    /// The start before, on ticks.
    reached: Nanos,
    job: u64,
}

impl Walk<'_> {
    /// When the last stage of the next job starts.
    pub(super) fn next(&mut self, budget: &mut Budget) -> Result<Nanos, NotDerived> {
        self.job += 1;
        let own = self.task.cost.saturating_mul(self.job).saturating_sub(self.task.last_stage);
        let base = self.blocker.ticks().saturating_add(self.committed).saturating_add(own);
        let from = base.max(self.reached);
        self.reached = self.work.climb(base, from, Nanos::MAX, budget)?;
        Ok(self.reached.saturating_add(TimeModel::Dense.instant(self.blocker.length)))
    }
}

/// After which time everything repeats, if busy periods never end.
pub(super) fn cycle(tasks: &[&Charged], ahead: Nanos) -> Result<Option<Nanos>, Exhausted> {
    let load = Utilisation::sum(tasks.iter().map(|task| task.load));
    let held = ahead > Nanos::ZERO || tasks.iter().any(|task| task.jitter > Nanos::ZERO);
    if !held || load.cmp_one(|| tasks.iter().map(|task| task.share())) != Ordering::Equal {
        return Ok(None);
    }
    hyperperiod(tasks.iter().map(|task| task.period)).map(Some)
}

/// The least solution of `L = ahead + sum of the work that is ready before L`.
pub(super) fn busy(
    tasks: &[&Charged],
    ahead: Nanos,
    budget: &mut Budget,
) -> Result<Nanos, NotDerived> {
    let mut reached = Nanos::EPSILON;
    loop {
        budget.spend(tasks.len())?;
        let next = tasks.iter().fold(ahead, |sum, task| {
            let jobs = reached.saturating_add(task.jitter).div_ceil(task.period);
            sum.saturating_add(task.cost.saturating_mul(jobs))
        });
        if next <= reached {
            return Ok(reached);
        }
        if next > LONGEST_WINDOW {
            return Err(Exhausted::too_long(next).into());
        }
        reached = next;
    }
}

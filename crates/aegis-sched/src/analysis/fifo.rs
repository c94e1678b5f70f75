//! Worst-case response times under first in, first out.
//!
//! A job waits for everything released before it or with it, and for nothing else. With the start
//! of the busy window at 0, the job ready at `a` and its own nominal release `J_i` before that:
//!
//! ```text
//! R = J_i + floor - a + (floor(a / T_i) + 1) C_i
//!       + sum over j != i of (floor((a + J_j) / T_j) + 1) C_j
//! ```
//!
//! and the bound is the largest `R` over the instants `a` at which a count steps, up to the busy
//! window; `floor` (the wake-up or a background piece) counts less a tick on ticks. Without jitter
//! `a = 0` is the worst: `floor(a / T) C <= a C / T`, so the sum grows by no more than `a` while
//! utilisation is at most 1, and every task has the same bound `floor + sum C`. When windows never
//! end, `R` repeats after the least common multiple of the periods.
//!
//! # Assumptions
//! 1. At least `T` between nominal releases of a task; each ready at most `J` after its own, and
//!    not before an earlier job of the same task.
//! 2. The policy orders jobs by release, ties in any order, and a job that started keeps the device
//!    through all its stages. Whether "release" is the nominal or the observed one does not matter:
//!    a job with the earlier nominal release was also released by `a` at the latest, nominally.
//! 3. The device never idles while a job is ready, up to the wake-up latency.
//! 4. Every stage stays within its cost; stages may be shorter.
//!
//! Look-ahead changes nothing here: what is committed early came early, is counted, and nothing in the
//! background is committed.
//!
//! Exact for order by observed release, with any number of stages and any deadline; sound for order
//! by nominal release. Costs `O(n)` without jitter, else `O(n)` terms for each instant.
//!
//! # Sources
//! George, Minet, "A FIFO worst case analysis for a hard real-time distributed problem with
//! consistency constraints", ICDCS 1997, bounds FIFO in a wider setting; the argument above is
//! complete without it, and `tests/analysis_exhaustive/` explores it.

use std::cmp::Ordering;

use aegis_trace::Nanos;

use super::fixed_point::{Budget, Exhausted};
use super::offsets::Offsets;
use super::outcome::{Outcome, Worst};
use super::workload::{Charged, Workload};

/// The worst case of every task, in the set's order.
pub(super) fn outcomes(workload: &Workload, budget: &mut Budget) -> Vec<Outcome> {
    if workload.load() == Ordering::Greater {
        return vec![Outcome::Unbounded; workload.tasks.len()];
    }
    match worst(workload, budget) {
        Ok(worst) => worst.into_iter().map(Outcome::Worst).collect(),
        Err(spent) => vec![Outcome::Undecided(spent.limit); workload.tasks.len()],
    }
}

fn worst(workload: &Workload, budget: &mut Budget) -> Result<Vec<Worst>, Exhausted> {
    let end = end(workload, budget)?;
    let nothing = Worst {
        response: Nanos::ZERO,
        job: 0,
        start: Nanos::ZERO,
        due: None,
        blocker: workload.floor,
    };
    let mut worst = vec![nothing; workload.tasks.len()];
    for (ready, _) in instants(workload).take_while(|(ready, _)| *ready < end) {
        budget.spend(2 * workload.tasks.len() + Offsets::TERMS)?;
        let blocking =
            workload.time.held_up(workload.floor.length).saturating_add(workload.beside());
        let queued = workload.tasks.iter().map(|task| work_by(task, ready, task.jitter));
        let queued = queued.fold(blocking, Nanos::saturating_add);
        for (worst, task) in worst.iter_mut().zip(&workload.tasks) {
            let others = queued.saturating_sub(work_by(task, ready, task.jitter));
            let done = others.saturating_add(work_by(task, ready, Nanos::ZERO));
            let response = done.saturating_sub(ready).saturating_add(task.jitter);
            if response > worst.response {
                let (job, start) = (ready / task.period, done.saturating_sub(task.last_stage));
                *worst = Worst { response, job, start, ..*worst };
            }
        }
    }
    Ok(worst)
}

/// Where the instants end that have to be looked at.
fn end(workload: &Workload, budget: &mut Budget) -> Result<Nanos, Exhausted> {
    if workload.tasks.iter().all(|task| task.jitter == Nanos::ZERO) {
        return Ok(Nanos::EPSILON); // Only the instant 0.
    }
    match workload.cycle()? {
        Some(cycle) => Ok(cycle),
        None => workload.busy_window(Nanos::MAX, budget),
    }
}

/// Cost of the jobs of `task` released by `ready`, the first of them `jitter` late at 0.
pub(super) fn work_by(task: &Charged, ready: Nanos, jitter: Nanos) -> Nanos {
    let jobs = ready.saturating_add(jitter) / task.period + 1;
    task.cost.saturating_mul(jobs)
}

/// The instants at which the number of jobs of some task steps, as itself or as another's rival.
pub(super) fn instants(workload: &Workload) -> Offsets {
    let own = workload.tasks.iter().map(|task| (Nanos::ZERO, task.period, Nanos::ZERO));
    let rival = workload.tasks.iter().map(|task| {
        let next = task.jitter.div_ceil(task.period);
        (task.period.saturating_mul(next) - task.jitter, task.period, Nanos::ZERO)
    });
    Offsets::new(own.chain(rival))
}

//! Worst-case response times under first in, first out.
//!
//! A job waits for everything released before it or with it, and for nothing else. With the start
//! of the busy window at 0, the job ready at `a` and its own nominal release `J_i` before that:
//!
//! ```text
//! R = J_i + wake - a + (floor(a / T_i) + 1) C_i
//!       + sum over j != i of (floor((a + J_j) / T_j) + 1) C_j
//! ```
//!
//! and the bound is the largest `R` over the instants `a` at which a floor steps, up to the busy
//! window. Without jitter `a = 0` is the worst: `floor(a / T) C <= a C / T`, so the sum grows by no
//! more than `a` while utilisation is at most 1, and every task has the same bound `wake + sum C`.
//!
//! # Assumptions
//! 1. At least `T` between nominal releases of a task; each ready at most `J` after its own, and
//!    not before an earlier job of the same task.
//! 2. The policy orders jobs by release, ties in any order, and a job that started keeps the device
//!    through all its stages. Whether "release" is the nominal or the observed one does not matter:
//!    a job with the earlier nominal release was also released by `a` at the latest, nominally.
//! 3. The device never idles while a job is ready, up to the wake-up latency.
//! 4. Every stage stays within its cost; stages may be shorter.
//! 5. Utilisation is below 1, or 1 without jitter and wake-up, which [`super::workload`] checks.
//!
//! Exact for order by observed release, with any number of stages and any deadline; sound for order
//! by nominal release. Costs `O(n)` without jitter, else `O(n)` terms for each instant.
//!
//! # Sources
//! George, Minet, "A FIFO worst case analysis for a hard real-time distributed problem with
//! consistency constraints", ICDCS 1997, bounds FIFO in a wider setting; the argument above is
//! complete without it, and `tests/analysis_exhaustive.rs` explores it.

use aegis_trace::{Nanos, Refusal};

use super::Bound;
use super::arrivals::{Edge, jobs_within};
use super::fixed_point::{Budget, Exhausted};
use super::offsets::Offsets;
use super::workload::{Blocker, Charged, Workload};

/// The bounds of all tasks, in the set's order.
///
/// # Errors
/// The first task in the set's order that is late, or the budget ran out.
pub(super) fn bounds(workload: &Workload, budget: &mut Budget) -> Result<Vec<Bound>, Refusal> {
    let responses = responses(workload, budget)?;
    let blocker = Blocker { length: workload.wake, model: None };
    let tasks = workload.tasks.iter().zip(responses);
    tasks.map(|(task, response)| Workload::bound(task, response, blocker)).collect()
}

fn responses(workload: &Workload, budget: &mut Budget) -> Result<Vec<Nanos>, Exhausted> {
    let last = if workload.has_jitter() {
        workload.busy_window(Nanos::MAX, budget)?
    } else {
        Nanos::EPSILON // Only the instant 0.
    };
    let mut worst = vec![Nanos::ZERO; workload.tasks.len()];
    for ready in instants(workload).take_while(|ready| *ready < last) {
        budget.spend(2 * workload.tasks.len())?;
        let queued = workload.tasks.iter().map(|task| work_by(task, ready, task.jitter));
        let queued = queued.fold(workload.wake, Nanos::saturating_add);
        for (worst, task) in worst.iter_mut().zip(&workload.tasks) {
            let others = queued.saturating_sub(work_by(task, ready, task.jitter));
            let done = others.saturating_add(work_by(task, ready, Nanos::ZERO));
            let response = done.saturating_sub(ready).saturating_add(task.jitter);
            *worst = response.max(*worst);
        }
    }
    Ok(worst)
}

/// Cost of the jobs of `task` released by `ready`, the first of them `jitter` late at 0.
fn work_by(task: &Charged, ready: Nanos, jitter: Nanos) -> Nanos {
    task.cost.saturating_mul(jobs_within(ready, jitter, task.period, Edge::Closed))
}

/// The instants at which the number of jobs of some task steps, as itself or as another's rival.
fn instants(workload: &Workload) -> Offsets {
    let own = workload.tasks.iter().map(|task| (Nanos::ZERO, task.period));
    let rival = workload.tasks.iter().map(|task| {
        let next = task.jitter.div_ceil(task.period);
        (task.period.saturating_mul(next) - task.jitter, task.period)
    });
    Offsets::new(own.chain(rival))
}

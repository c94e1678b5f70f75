//! The peer: `response-time-analysis`, which follows machine-checked proofs.
//!
//! It works on ticks, takes arrival curves and costs, and bounds the time from when a job becomes
//! **ready** to its end; `tests/analysis_peer.rs` says what that means where there is jitter. Under
//! EDF its deadlines count from there too, so with jitter it analyses another policy than ours.
//!
//! What it is given here is what suits it best: curves are built once for a set, and the rivals of
//! a task are a slice of them where priorities are unique.
//!
//! # Sources
//! Bozhko, Brandenburg, "Abstract response-time analysis: a formal foundation for the busy-window
//! principle", ECRTS 2020. Bedarkar, Vardishvili, Bozhko, Maida, Brandenburg, "From intuition to
//! Coq: a case study in verified response-time analysis of FIFO scheduling", RTSS 2022.

use aegis_sched::task::{Task, TaskSet};
use response_time_analysis::arrival::Sporadic;
use response_time_analysis::demand::{RBF, RequestBound, Slice};
use response_time_analysis::time::{Duration, Service};
use response_time_analysis::wcet::Scalar;
use response_time_analysis::{edf, fifo, fixed_priority};

/// The window past which it gives up. In builds with debug assertions it checks every window up to
/// 100 000 one by one, unless this is longer.
pub(crate) const LIMIT: u64 = 1 << 50;

type Curve = RBF<Sporadic, Scalar>;

/// The longest time from ready to completion under fixed priorities, ties against the task, in the
/// set's order; `None` past [`LIMIT`].
pub(crate) fn np_fp(set: &TaskSet) -> Vec<Option<u64>> {
    let mut order: Vec<(usize, &Task)> = set.tasks().iter().enumerate().collect();
    order.sort_by_key(|(_, task)| task.priority());
    let curves: Vec<Curve> = order.iter().map(|(_, task)| curve(task)).collect();
    let mut responses = vec![None; order.len()];
    for (place, (index, task)) in order.iter().enumerate() {
        let less_urgent = |(_, other): &(usize, &Task)| other.priority() > task.priority();
        let end = order.iter().position(less_urgent).unwrap_or(order.len());
        let blocking = longest_blocking(order[end..].iter().map(|(_, other)| *other));
        let (before, after) = (&curves[..place], &curves[place + 1..end]);
        responses[*index] = if after.is_empty() {
            level(task, before, blocking)
        } else {
            level(task, &before.iter().chain(after).collect::<Vec<_>>(), blocking)
        };
    }
    responses
}

/// Likewise for one task with these rivals.
pub(crate) fn level<Rival: RequestBound>(
    task: &Task,
    rivals: &[Rival],
    blocking: u64,
) -> Option<u64> {
    let arrivals = &arrivals(task);
    let (wcet, blocking_bound) = (cost(task), Service::from(blocking));
    let limit = Duration::from(LIMIT);
    let found = if task.stages().len() == 1 {
        use fixed_priority::fully_nonpreemptive::{TaskUnderAnalysis, dedicated_uniproc_rta};
        let task = TaskUnderAnalysis { wcet, arrivals, blocking_bound };
        dedicated_uniproc_rta(&task, rivals, limit)
    } else {
        use fixed_priority::limited_preemptive::{TaskUnderAnalysis, dedicated_uniproc_rta};
        let last_np_segment = Service::from(task.last_stage().0);
        let task = TaskUnderAnalysis { wcet, arrivals, last_np_segment, blocking_bound };
        dedicated_uniproc_rta(&task, rivals, limit)
    };
    found.ok().map(u64::from)
}

/// The same under EDF, for tasks without jitter.
pub(crate) fn np_edf(set: &TaskSet) -> Vec<Option<u64>> {
    if set.tasks().iter().all(|task| task.stages().len() == 1) {
        whole_edf(set)
    } else {
        staged_edf(set)
    }
}

fn whole_edf(set: &TaskSet) -> Vec<Option<u64>> {
    use edf::fully_nonpreemptive::{Task as Peer, dedicated_uniproc_rta};
    let arrivals: Vec<Sporadic> = set.tasks().iter().map(arrivals).collect();
    let mut tasks: Vec<Peer<'_, Sporadic>> = set
        .tasks()
        .iter()
        .zip(&arrivals)
        .map(|(task, arrivals)| {
            let deadline = Duration::from(task.deadline().0);
            Peer { wcet: cost(task), arrivals, deadline }
        })
        .collect();
    let others = tasks.len().saturating_sub(1);
    let one = |index| {
        // The others are what stands before the last place.
        tasks.swap(index, others);
        let found = dedicated_uniproc_rta(&tasks[others], &tasks[..others], LIMIT.into());
        tasks.swap(index, others);
        found.ok().map(u64::from)
    };
    (0..=others).map(one).collect()
}

fn staged_edf(set: &TaskSet) -> Vec<Option<u64>> {
    use edf::limited_preemptive::{InterferingTask, TaskUnderAnalysis, dedicated_uniproc_rta};
    let curves: Vec<Curve> = set.tasks().iter().map(curve).collect();
    let one = |(index, task): (usize, &Task)| {
        let others = set.tasks().iter().zip(&curves).enumerate().filter(|(i, _)| *i != index);
        let others: Vec<_> = others
            .map(|(_, (other, rbf))| {
                let deadline = Duration::from(other.deadline().0);
                let max_np_segment = Service::from(other.longest_stage().0);
                InterferingTask { rbf, deadline, max_np_segment }
            })
            .collect();
        let under_analysis = TaskUnderAnalysis {
            wcet: cost(task),
            arrivals: &arrivals(task),
            deadline: Duration::from(task.deadline().0),
            last_np_segment: Service::from(task.last_stage().0),
        };
        let found = dedicated_uniproc_rta(&under_analysis, &others, LIMIT.into());
        found.ok().map(u64::from)
    };
    set.tasks().iter().enumerate().map(one).collect()
}

/// The one bound that all tasks have under first in, first out.
pub(crate) fn fifo(set: &TaskSet) -> Option<u64> {
    let curves: Vec<Curve> = set.tasks().iter().map(curve).collect();
    let found = fifo::dedicated_uniproc_rta(&Slice::of(&curves), LIMIT.into());
    found.ok().map(u64::from)
}

/// What the jobs of `task` ask for in a window.
pub(crate) fn curve(task: &Task) -> Curve {
    RBF::new(arrivals(task), cost(task))
}

/// What stages of tasks less urgent than all others count on ticks.
pub(crate) fn longest_blocking<'a>(tasks: impl Iterator<Item = &'a Task>) -> u64 {
    tasks.map(|task| task.longest_stage().0 - 1).max().unwrap_or(0)
}

fn arrivals(task: &Task) -> Sporadic {
    Sporadic::new(Duration::from(task.period().0), Duration::from(task.jitter().0))
}

fn cost(task: &Task) -> Scalar {
    Scalar::new(Service::from(task.cost().0))
}

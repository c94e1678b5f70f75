//! How far a set is from the edge: by how much something may change before a deadline is missed.
//!
//! Every test of this folder is monotone: what makes a task larger, more frequent, later to become
//! ready or earlier due never turns *no* into *yes*. (A task that gets a later deadline under EDF
//! leaves the demand of some windows with a whole job and joins their blockers with a stage.) So the
//! edge is found by bisection, and every answer is a value for which the shipped test said *yes*,
//! while it says *no* one unit further. Where the order of tasks itself depends on the value
//! (periods under rate-monotonic, deadlines under deadline-monotonic order), the answer is still one
//! that the test accepts, but a better one may exist elsewhere.
//!
//! A search that ends without an answer counts as *no*. Each bisection costs at most 64 verdicts.
//!
//! # Sources
//! Bini, Di Natale, Buttazzo, "Sensitivity analysis for fixed-priority real-time systems",
//! Real-Time Systems 39, 2008. Bertogna, Buttazzo, Yao, RTSS 2011, for blocking tolerance.

use aegis_trace::{ModelId, Nanos};

use super::{Setting, decide, response_of};
use crate::task::{Task, TaskSet, TaskSpec};

/// One in millionths: the costs as they are.
pub const PPM: u64 = 1_000_000;

/// The largest `k` for which the set is schedulable with every stage scaled by `k / 10^6`, rounded
/// up; overheads are not scaled. 0 if there is none.
#[must_use]
pub fn largest_scale_ppm(set: &TaskSet, setting: &Setting) -> u64 {
    largest_scale_ppm_accepted(set, |scaled| decide(scaled, setting).is_ok())
}

/// The same for a set that `accepts` decides about: no set that is larger than a refused one may be
/// accepted.
#[must_use]
pub fn largest_scale_ppm_accepted(set: &TaskSet, accepts: impl Fn(&TaskSet) -> bool) -> u64 {
    // A job that alone outlasts its deadline is always refused.
    let alone = |task: &Task| {
        let room = u128::from(task.deadline().saturating_sub(task.jitter()).0) * u128::from(PPM);
        u64::try_from(room / u128::from(task.cost().0)).unwrap_or(u64::MAX)
    };
    let most = set.tasks().iter().map(alone).min().unwrap_or(0);
    largest(1, most, |ppm| scaled(set, ppm).is_some_and(|scaled| accepts(&scaled))).unwrap_or(0)
}

/// The longest piece of work without a deadline that the set tolerates in every gap, not counting
/// its dispatch overhead; at least the one it has already. `None` if the set is refused as it is.
#[must_use]
pub fn largest_background(set: &TaskSet, setting: &Setting) -> Option<Nanos> {
    largest_background_accepted(set, |beside| decide(beside, setting).is_ok())
}

/// The same for a set that `accepts` decides about, as with [`largest_scale_ppm_accepted`].
#[must_use]
pub fn largest_background_accepted(
    set: &TaskSet,
    accepts: impl Fn(&TaskSet) -> bool,
) -> Option<Nanos> {
    let room = |task: &Task| task.deadline().saturating_sub(task.jitter()).0;
    let most = set.tasks().iter().map(room).min().unwrap_or(Task::LONGEST.0);
    let beside = |piece: u64| accepts(&set.clone().with_background(Nanos(piece)));
    let present = set.background().longest.0;
    largest(present, most.max(present), beside).map(Nanos)
}

/// The most that stages may run beyond their costs inside one busy window, all together, before a
/// deadline can be missed. `None` if the set is refused as it is.
#[must_use]
pub fn overrun_margin(set: &TaskSet, setting: &Setting) -> Option<Nanos> {
    let room = |task: &Task| task.deadline().saturating_sub(task.jitter()).0;
    let most = set.tasks().iter().map(room).min().unwrap_or(Task::LONGEST.0);
    let overrun =
        |excess: u64| decide(set, &Setting { overrun: Nanos(excess), ..*setting }).is_ok();
    largest(setting.overrun.0, most.max(setting.overrun.0), overrun).map(Nanos)
}

/// How far one task of an accepted set is from the edge, everything else as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSensitivity {
    /// Whose.
    pub model: ModelId,
    /// Deadline minus worst response; zero where the response is not known.
    pub slack: Nanos,
    /// The smallest period; the deadline stays.
    pub smallest_period: Nanos,
    /// The smallest deadline; the period stays.
    pub smallest_deadline: Nanos,
    /// The largest cost, all stages growing alike and each rounded up, without overhead.
    pub largest_cost: Nanos,
    /// The longest stage of somebody else, less urgent and with its overhead, behind which this task
    /// still meets its own deadline.
    pub longest_foreign_stage: Nanos,
}

/// How far each task is from the edge, in the set's order; `None` if the set is refused as it is.
#[must_use]
pub fn task_sensitivities(set: &TaskSet, setting: &Setting) -> Option<Vec<TaskSensitivity>> {
    decide(set, setting).ok()?;
    (0..set.len()).map(|index| task_sensitivity(set, index, setting)).collect()
}

fn task_sensitivity(set: &TaskSet, index: usize, setting: &Setting) -> Option<TaskSensitivity> {
    let task = &set.tasks()[index];
    let spec = task.spec();
    let accepted = |changed: TaskSpec| {
        set.replaced(index, changed).is_some_and(|changed| decide(&changed, setting).is_ok())
    };
    let smallest_period = smallest(1, task.period().0, |period| {
        accepted(TaskSpec { period: Nanos(period), ..spec.clone() })
    })?;
    let smallest_deadline = smallest(1, task.deadline().0, |deadline| {
        accepted(TaskSpec { deadline: Nanos(deadline), ..spec.clone() })
    })?;
    let (cost, most) = (task.cost(), task.deadline().max(task.cost()));
    let largest =
        largest(cost.0, most.0, |larger| scale(spec, Nanos(larger), cost).is_some_and(&accepted))?;
    let largest_cost = scale(spec, Nanos(largest), cost)?.stages.into_iter().sum();
    let response = response_of(set, index, Nanos::ZERO, setting).bound();
    let meets = |foreign: u64| {
        let response = response_of(set, index, Nanos(foreign), setting).bound();
        response.is_some_and(|response| response <= task.deadline())
    };
    let foreign = self::largest(0, task.deadline().0, meets)?;
    Some(TaskSensitivity {
        model: task.model(),
        slack: response.map_or(Nanos::ZERO, |response| task.deadline().saturating_sub(response)),
        smallest_period: Nanos(smallest_period),
        smallest_deadline: Nanos(smallest_deadline),
        largest_cost,
        longest_foreign_stage: Nanos(foreign),
    })
}

/// The set with every stage scaled; `None` where that passes a limit.
fn scaled(set: &TaskSet, ppm: u64) -> Option<TaskSet> {
    let one = Nanos(PPM);
    let scaled = |task: &Task| task.respecified(scale(task.spec(), Nanos(ppm), one)?).ok();
    let tasks: Option<Vec<Task>> = set.tasks().iter().map(scaled).collect();
    Some(TaskSet::new(tasks?).ok()?.with_background(set.background()))
}

/// The task with every stage as many times as long as `to` is of `of`, rounded up; `None` where that
/// leaves nothing or passes 64 bits.
fn scale(spec: &TaskSpec, to: Nanos, of: Nanos) -> Option<TaskSpec> {
    let scaled = |stage: &Nanos| {
        let exact = u128::from(stage.0) * u128::from(to.0);
        let rounded = exact.div_ceil(u128::from(of.0));
        u64::try_from(rounded).ok().filter(|scaled| *scaled > 0).map(Nanos)
    };
    let stages: Option<Vec<Nanos>> = spec.stages.iter().map(scaled).collect();
    Some(TaskSpec { stages: stages?, ..spec.clone() })
}

/// The largest value from `least` to `most` that `holds`, for a property that holds up to some
/// value and not beyond; `None` if it does not hold for `least`.
pub(super) fn largest(least: u64, most: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    if !holds(least) {
        return None;
    }
    let (mut low, mut high) = (least, most); // `holds(low)` throughout.
    while low < high {
        let middle = high - (high - low) / 2;
        if holds(middle) { low = middle } else { high = middle - 1 }
    }
    Some(low)
}

/// The smallest value from `least` to `most` that `holds`, for a property that holds from some value
/// on; `None` if it does not hold for `most`.
pub(super) fn smallest(least: u64, most: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    if !holds(most) {
        return None;
    }
    let (mut low, mut high) = (least, most); // `holds(high)` throughout.
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    Some(high)
}

//! First in, first out: a job waits for what was ready before it or with it, and for nothing else.
//!
//! ```text
//! R = J_i + floor - a + (own jobs ready by a, the first at 0) C_i
//!       + sum over j != i of (jobs ready by a, the first as late as can be at 0) C_j   <=  D_i
//! ```
//!
//! for the job that is ready at `a`, for every instant `a` of a busy period at which some count steps,
//! since between two steps `R` only falls. Without jitter `a = 0` is the worst: `floor(a / T) C <= a C
//! / T`, so the sum grows by no more than `a` while the tasks do not exceed the device. A busy period
//! that never ends repeats after the common multiple of the periods. Look-ahead adds nothing: whoever is
//! put behind the running stage was ready before, and is counted.
//!
//! # Sources
//! The argument is complete; compare George, Minet, ICDCS 1997.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use aegis_trace::Nanos;

use crate::certificate::{FifoBound, Witness};
use crate::charge::Task;
use crate::fault::{Fault, Time, Work, at_most, exceeds, require, same};
use crate::fixed::{busy, check_slack};
use crate::load::{cycle, load};

/// The response of a job of `task` that is ready at `ready`.
fn response(tasks: &[Task], task: &Task, floor: Time, ready: Time) -> Time {
    let own = task.work(ready / task.period + 1);
    let rivals = tasks.iter().filter(|rival| rival.model != task.model);
    let before = rivals.fold(floor.saturating_add(own), |sum, rival| {
        sum.saturating_add(rival.work(rival.by(ready)))
    });
    (task.jitter.saturating_add(before)).saturating_sub(ready)
}

/// Where the instants end that have to be looked at.
fn end(at: &str, tasks: &[Task], floor: Time, work: &mut Work) -> Result<Time, Fault> {
    if tasks.iter().all(|task| task.jitter == 0) {
        return Ok(1);
    }
    match load(at, tasks)? {
        Ordering::Equal => cycle(at, tasks), // Some task is late.
        _ => busy(at, tasks, floor, work),
    }
}

/// Whether every task of a set that does not exceed the device is in time. Its responses.
pub(crate) fn check(
    at: &str,
    tasks: &[Task],
    floor: Time,
    stated: (Nanos, &[FifoBound]),
    work: &mut Work,
) -> Result<Vec<(u32, Nanos)>, Fault> {
    let (stated_end, bounds) = stated;
    let end = end(at, tasks, floor, work)?;
    same(format_args!("{at}.end"), Time::from(stated_end.0), end)?;
    same(format_args!("{at}.bounds, how many"), bounds.len(), tasks.len())?;
    for (place, (task, bound)) in tasks.iter().zip(bounds).enumerate() {
        let at = format!("{at}.bounds[{place}]");
        same(format_args!("{at}.model"), bound.model, task.model)?;
        let ready = Time::from(bound.ready.0);
        at_most(format_args!("{at}.ready"), "it must lie before the end", ready + 1, end)?;
        let found = response(tasks, task, floor, ready);
        same(format_args!("{at}.response"), Time::from(bound.response.0), found)?;
        check_slack(&at, found, task, bound.slack)?;
    }
    for ready in instants(at, tasks, end, work)? {
        work.spend(at, tasks.len() * tasks.len())?;
        for (place, (task, bound)) in tasks.iter().zip(bounds).enumerate() {
            let found = response(tasks, task, floor, ready);
            let at = format_args!("{at}.bounds[{place}].ready");
            let earlier = ready < Time::from(bound.ready.0);
            let least = Time::from(bound.response.0) + Time::from(!earlier);
            exceeds(at, "no job before it may respond as late, and none later", least, found)?;
        }
    }
    Ok(bounds.iter().map(|bound| (bound.model, bound.response)).collect())
}

/// The instants below `end` at which some count steps.
fn instants(at: &str, tasks: &[Task], end: Time, work: &mut Work) -> Result<BTreeSet<Time>, Fault> {
    let mut instants = BTreeSet::new();
    for task in tasks {
        let rival = task.jitter.next_multiple_of(task.period) - task.jitter;
        for first in [0, rival] {
            let mut instant = first;
            while instant < end {
                work.spend(at, 64)?; // Memory, too, must end.
                instants.insert(instant);
                instant += task.period;
            }
        }
    }
    Ok(instants)
}

/// The response of the job of `task` that a witness names.
pub(crate) fn response_of(
    at: &str,
    (tasks, task, floor): (&[Task], &Task, Time),
    witness: &Witness,
    work: &mut Work,
) -> Result<Time, Fault> {
    let Witness::Queue { ready, .. } = *witness else {
        return require(at, "first in, first out evaluates a queue", false).map(|()| 0);
    };
    let end = end(at, tasks, floor, work)?;
    let instant = Time::from(ready.0);
    at_most(format_args!("{at}.ready"), "it must lie before the end", instant + 1, end)?;
    let steps = |other: &Task| {
        instant.is_multiple_of(other.period)
            || (instant + other.jitter).is_multiple_of(other.period)
    };
    require(format_args!("{at}.ready"), "some count must step there", tasks.iter().any(steps))?;
    Ok(response(tasks, task, floor, instant))
}

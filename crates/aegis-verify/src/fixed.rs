//! Fixed priorities: no job of any busy period responds after its deadline.
//!
//! ```text
//! hp = the tasks at least as urgent as i, without i; equal urgency counts against i
//! B  = the longest piece of a less urgent task, or the floor where that is longer
//! Q  = what look-ahead adds (`ahead.rs`)
//! L  = least solution of  L = B + Q + sum over hp and i of (jobs ready before L) C
//! for each job n of i that is ready before L, its last piece starts at the least solution of
//!     s = B + Q + n C_i + (C_i - last_i)
//!           + sum over hp of (jobs ready before s, or by s where B = 0) C
//! R  = J_i + s + last_i - n T_i  <=  D_i
//! ```
//!
//! Time is dense: what blocks began an instant before zero and counts in full, so a job that would be
//! ready at `s` itself comes too late to delay; where nothing blocks it is in time, and counts. All
//! jobs of the busy period are looked at, because the first need not be the worst. Where the tasks use
//! the device completely and something is ahead or late, the busy period never ends, everything
//! repeats after the common multiple of the periods, and the jobs of one such cycle are all there are.
//!
//! # Sources
//! Davis, Burns, Bril, Lukkien, Real-Time Systems 35, 2007 (all jobs of the busy period, whole jobs).
//! Bril, Lukkien, Verhaegh, Real-Time Systems 42, 2009 (pieces). Bertogna, Buttazzo, Yao, RTSS 2011
//! (the last piece).

use std::cmp::Ordering;

use aegis_trace::Nanos;

use crate::ahead::Ahead;
use crate::certificate::{Level, Witness};
use crate::charge::Task;
use crate::fault::{Fault, JOBS_MAX, LONGEST_WINDOW, Time, Work, at_most, exceeds, require, same};
use crate::load::{cycle, load};

/// Iterates the monotone `f` from a point that is not above its least solution, up to that.
pub(crate) fn least(
    at: &str,
    from: Time,
    tasks: usize,
    work: &mut Work,
    mut f: impl FnMut(Time) -> Time,
) -> Result<Time, Fault> {
    let mut reached = from;
    loop {
        work.spend(at, tasks)?;
        let next = f(reached);
        if next <= reached {
            return Ok(reached);
        }
        at_most(at, "no window may exceed 2^63 ns", next, LONGEST_WINDOW)?;
        reached = next;
    }
}

/// The longest that `tasks` keep the device busy behind what takes so long.
pub(crate) fn busy(at: &str, tasks: &[Task], ahead: Time, work: &mut Work) -> Result<Time, Fault> {
    least(at, 1, tasks.len(), work, |window| {
        tasks.iter().fold(ahead, |sum, task| sum.saturating_add(task.work(task.before(window))))
    })
}

/// The longest piece of those `tasks` that `may_block`, and whose it is, or the floor.
pub(crate) fn blocker(
    tasks: &[Task],
    floor: Time,
    may_block: impl Fn(&Task) -> bool,
) -> (Time, Option<u32>) {
    tasks.iter().filter(|task| may_block(task)).fold((floor, None), |longest, task| {
        if task.longest > longest.0 { (task.longest, Some(task.model)) } else { longest }
    })
}

/// One task beside the others.
struct Place<'t> {
    task: &'t Task,
    /// Those at least as urgent, itself last.
    level: Vec<Task>,
    blocking: Time,
    blocked_by: Option<u32>,
    /// What look-ahead adds to that.
    committed: Time,
}

impl<'t> Place<'t> {
    fn of(tasks: &'t [Task], task: &'t Task, ahead: Ahead) -> Self {
        let Ahead { floor, committed } = ahead;
        let rivals = tasks.iter().filter(|other| other.model != task.model);
        let rivals = rivals.filter(|other| other.urgency <= task.urgency);
        let level = rivals.chain([task]).copied().collect();
        let (blocking, blocked_by) = blocker(tasks, floor, |other| other.urgency > task.urgency);
        Self { task, level, blocking, blocked_by, committed }
    }

    /// What is on the device when the busy period begins.
    fn ahead(&self) -> Time {
        self.blocking.saturating_add(self.committed)
    }

    /// The length of the busy period, or of a cycle of one that never ends.
    fn busy(&self, at: &str, work: &mut Work) -> Result<Time, Fault> {
        let late = self.level.iter().any(|task| task.jitter > 0);
        match load(at, &self.level)? {
            Ordering::Equal if late || self.ahead() > 0 => cycle(at, &self.level),
            _ => busy(at, &self.level, self.ahead(), work),
        }
    }

    /// How many jobs of the task are ready in a busy period of this length.
    fn jobs(&self, at: &str, busy: Time) -> Result<Time, Fault> {
        Ok(match load(at, &self.level)? {
            Ordering::Equal if busy.is_multiple_of(self.task.period) => busy / self.task.period,
            _ => self.task.before(busy),
        })
    }

    /// When the last piece of a job starts at the latest.
    fn start(&self, at: &str, job: Time, work: &mut Work) -> Result<Time, Fault> {
        let Task { cost, last, .. } = *self.task;
        let own = self.ahead() + job * cost + (cost - last);
        let rivals = &self.level[..self.level.len() - 1];
        least(at, own, rivals.len(), work, |start| {
            let ready = |rival: &Task| {
                if self.blocking > 0 { rival.before(start) } else { rival.by(start) }
            };
            rivals.iter().fold(own, |sum, rival| sum.saturating_add(rival.work(ready(rival))))
        })
    }

    fn response(&self, job: Time, start: Time) -> Time {
        (self.task.jitter + start + self.task.last).saturating_sub(job * self.task.period)
    }
}

/// Whether every task of a set that does not exceed the device is in time. Its responses.
pub(crate) fn check(
    at: &str,
    (tasks, ahead): (&[Task], Ahead),
    bounds: &[Level],
    work: &mut Work,
) -> Result<Vec<(u32, Nanos)>, Fault> {
    same(format_args!("{at}.bounds, how many"), bounds.len(), tasks.len())?;
    for (place, (task, level)) in tasks.iter().zip(bounds).enumerate() {
        let at = format!("{at}.bounds[{place}]");
        work.spend(&at, tasks.len())?;
        check_level(&at, &Place::of(tasks, task, ahead), level, work)?;
    }
    Ok(bounds.iter().map(|level| (level.model, level.response)).collect())
}

fn check_level(at: &str, place: &Place<'_>, level: &Level, work: &mut Work) -> Result<(), Fault> {
    same(format_args!("{at}.model"), level.model, place.task.model)?;
    same(format_args!("{at}.blocking"), Time::from(level.blocking.0), place.blocking)?;
    same(format_args!("{at}.blocked_by"), level.blocked_by, place.blocked_by)?;
    let busy = place.busy(at, work)?;
    same(format_args!("{at}.busy"), Time::from(level.busy.0), busy)?;
    let jobs = place.jobs(at, busy)?;
    same(format_args!("{at}.starts, how many"), level.starts.len() as Time, jobs)?;
    let mut worst = (0, 0);
    for (job, stated) in level.starts.iter().enumerate() {
        let start = place.start(at, job as Time, work)?;
        same(format_args!("{at}.starts[{job}]"), Time::from(stated.0), start)?;
        let response = place.response(job as Time, start);
        if response > worst.1 {
            worst = (job, response);
        }
    }
    same(format_args!("{at}.worst"), level.worst as usize, worst.0)?;
    same(format_args!("{at}.response"), Time::from(level.response.0), worst.1)?;
    check_slack(at, worst.1, place.task, level.slack)
}

/// Whether a task responds in time, by so much.
pub(crate) fn check_slack(
    at: &str,
    response: Time,
    task: &Task,
    slack: Nanos,
) -> Result<(), Fault> {
    at_most(format_args!("{at}.response"), "R <= D must hold", response, task.deadline)?;
    same(format_args!("{at}.slack"), Time::from(slack.0), task.deadline - response)
}

/// The response of the job of `task` that a witness names, whose numbers are those of the job.
pub(crate) fn response(
    at: &str,
    (tasks, task, ahead): (&[Task], &Task, Ahead),
    witness: &Witness,
    work: &mut Work,
) -> Result<Time, Fault> {
    let Witness::Response { blocking, blocked_by, committed, job, start, .. } = *witness else {
        return require(at, "fixed priorities evaluate a job of a level", false).map(|()| 0);
    };
    let place = Place::of(tasks, task, ahead);
    same(format_args!("{at}.blocking"), Time::from(blocking.0), place.blocking)?;
    same(format_args!("{at}.blocked_by"), blocked_by, place.blocked_by)?;
    same(format_args!("{at}.committed"), Time::from(committed.0), place.committed)?;
    if job > 0 {
        // Only jobs of one busy period push each other out.
        let busy = place.busy(at, work)?;
        exceeds(
            format_args!("{at}.job"),
            "the busy period must hold so many jobs",
            place.jobs(at, busy)?,
            job,
        )?;
    }
    let found = place.start(at, job.into(), work)?;
    same(format_args!("{at}.start"), Time::from(start.0), found)?;
    Ok(place.response(job.into(), found))
}

/// A window that the busy period exceeds and the jobs ready before its end: the first, along the
/// recurrence, with more jobs than anybody looks at, or longer than any window.
pub(crate) fn endless(
    at: &str,
    tasks: &[Task],
    ahead: Ahead,
    work: &mut Work,
) -> Result<(Time, Time), Fault> {
    let mut reached = 1;
    loop {
        work.spend(at, 2 * tasks.len())?;
        let jobs = tasks.iter().map(|task| task.before(reached)).sum();
        if jobs > Time::from(JOBS_MAX) || reached == LONGEST_WINDOW {
            return Ok((reached, jobs));
        }
        let next = tasks
            .iter()
            .fold(ahead.sum(), |sum, task| sum.saturating_add(task.work(task.before(reached))));
        exceeds(at, "the busy period must go on where nobody looks any more", next, reached)?;
        reached = next.min(LONGEST_WINDOW);
    }
}

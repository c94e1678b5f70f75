//! EDF: no window asks for more than its length, and no job responds after its bound.
//!
//! ```text
//! h(t) = sum of (jobs ready and due inside t) C        b(t) = the longest piece of a task whose first
//! Q    = what look-ahead adds (`ahead.rs`)                    deadline is past t, or the floor
//! h(t) + b(t) + Q <= t
//! ```
//!
//! for every window `t` at whose end some deadline falls, up to a horizon: the longest busy period
//! `L = floor + Q + sum of (jobs ready before L) C`, in which a first violation shows, or where that
//! never ends, the last first deadline and one common multiple of the periods, after which `h(t) - t`
//! repeats and nothing but the floor blocks.
//!
//! **Why the listed windows are enough.** `h + b` never decreases: a task leaves `b` at the window at
//! which it enters `h`, with a cost that is no less than its longest piece; `Q` is the same everywhere.
//! So if `h(t) + b(t) + Q = n <= t`, every window `u` with `n <= u <= t` holds what it needs:
//! `h(u) + b(u) + Q <= n <= u`. A point `(t, n)`
//! thus answers for `[n, t]`. The list begins at the last deadline up to the horizon and goes on, below
//! each point, with `n`, or where `n = t` with the last deadline before it; so between the ranges that
//! are answered for there is no deadline, and none is left when the list ends.
//!
//! **Responses.** With everybody ready at 0, as late as can be, a job that is due at `d` has its last
//! piece start, at the latest, at the least solution of
//!
//! ```text
//! s = b(d) + Q + (own jobs due by d) C_i - last_i
//!       + sum over j != i of min(jobs of j ready before s (or by s, where b = 0), due by d) C_j
//! R = max(J_i + C_i, J_i + s + last_i - (d - first deadline of i))
//! ```
//!
//! for every deadline `d` at which a job of a busy period can be due. Where the demand alone says that
//! a job responds within its bound (all that is due by `d`, the blocker and `Q` run before it at the
//! worst), or where the right side at the start that belongs to the bound is no more than that start,
//! nothing is solved: the least solution is then no later.
//!
//! # Sources
//! Jeffay, Stanat, Martel, RTSS 1991; George, Rivierre, Spuri, INRIA RR-2966, 1996; Baruah, ECRTS 2005;
//! Zhang, Burns, IEEE Transactions on Computers 58, 2009 (windows). Spuri, INRIA RR-2772, 1996 (offsets).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use aegis_trace::Nanos;

use crate::ahead::Ahead;
use crate::certificate::{EdfBound, Point, Witness, WorstDue};
use crate::charge::Task;
use crate::fault::{Fault, Time, Work, at_most, exceeds, require, same};
use crate::fixed::{blocker, busy, check_slack, least};
use crate::load::{cycle, load};

/// The tasks of one partition and what may be ahead of them all.
pub(crate) struct Edf<'t> {
    pub(crate) tasks: &'t [Task],
    pub(crate) ahead: Ahead,
}

/// What the proof of a set consists of.
pub(crate) struct Stated<'c> {
    pub(crate) horizon: Nanos,
    pub(crate) points: &'c [Point],
    pub(crate) bounds: &'c [EdfBound],
}

impl Edf<'_> {
    /// Whether every task of a set that does not exceed the device is in time. Its responses.
    pub(crate) fn check(
        &self,
        at: &str,
        stated: &Stated<'_>,
        work: &mut Work,
    ) -> Result<Vec<(u32, Nanos)>, Fault> {
        let repeats = self.never_ends(at)?;
        let horizon = match repeats {
            true => self.last_first_due() + cycle(at, self.tasks)?,
            false if self.tasks.is_empty() => 0,
            false => busy(at, self.tasks, self.ahead.sum(), work)?,
        };
        same(format_args!("{at}.horizon"), Time::from(stated.horizon.0), horizon)?;
        self.check_points(at, horizon, stated.points, work)?;
        let bounds = stated.bounds;
        same(format_args!("{at}.bounds, how many"), bounds.len(), self.tasks.len())?;
        for (place, (task, bound)) in self.tasks.iter().zip(bounds).enumerate() {
            let at = format!("{at}.bounds[{place}]");
            same(format_args!("{at}.model"), bound.model, task.model)?;
            check_slack(&at, bound.response.0.into(), task, bound.slack)?;
            match &bound.worst {
                // The windows prove this much.
                None => same(
                    format_args!("{at}.response, where no job attains it"),
                    Time::from(bound.response.0),
                    task.deadline,
                )?,
                Some(worst) => self.check_worst(&at, task, bound.response, worst, work)?,
            }
        }
        self.check_all(at, horizon, repeats, bounds, work)?;
        Ok(bounds.iter().map(|bound| (bound.model, bound.response)).collect())
    }

    fn never_ends(&self, at: &str) -> Result<bool, Fault> {
        let held = self.ahead.sum() > 0 || self.tasks.iter().any(|task| task.jitter > 0);
        Ok(held && load(at, self.tasks)? == Ordering::Equal)
    }

    fn last_first_due(&self) -> Time {
        self.tasks.iter().map(Task::first_due).max().unwrap_or(0)
    }

    /// `h(t)`.
    fn demand(&self, window: Time) -> Time {
        let due = |task: &Task| task.work(task.due_in(window));
        self.tasks.iter().fold(0, |sum: Time, task| sum.saturating_add(due(task)))
    }

    /// `b(t)`.
    fn blocker(&self, window: Time) -> (Time, Option<u32>) {
        blocker(self.tasks, self.ahead.floor, |task| task.first_due() > window)
    }

    /// `h(t) + b(t) + Q`.
    fn needed(&self, window: Time) -> Time {
        let held = self.blocker(window).0.saturating_add(self.ahead.committed);
        self.demand(window).saturating_add(held)
    }

    /// The last window up to `limit` at whose end a deadline falls.
    fn last_due(&self, limit: Time) -> Option<Time> {
        let of = |task: &Task| {
            let past = task.due_in(limit).checked_sub(1)?;
            Some(task.first_due() + past * task.period)
        };
        self.tasks.iter().filter_map(of).max()
    }

    fn check_points(
        &self,
        at: &str,
        horizon: Time,
        points: &[Point],
        work: &mut Work,
    ) -> Result<(), Fault> {
        let first = self.tasks.iter().map(Task::first_due).min().unwrap_or(Time::MAX);
        let mut next = self.last_due(horizon);
        for (place, point) in points.iter().enumerate() {
            let at = format!("{at}.points[{place}]");
            work.spend(&at, 2 * self.tasks.len())?;
            let window = Time::from(point.window.0);
            same(format_args!("{at}.window, the next to look at"), Some(window), next)?;
            let needed = self.needed(window);
            same(format_args!("{at}.needed"), Time::from(point.needed.0), needed)?;
            at_most(format_args!("{at}.needed"), "h(t) + b(t) + Q <= t must hold", needed, window)?;
            next = match needed < window {
                true => Some(needed).filter(|needed| *needed >= first),
                false => window.checked_sub(1).and_then(|before| self.last_due(before)),
            };
        }
        same(format_args!("{at}.points, the next to look at after the last"), None, next)
    }

    /// When the last piece of a job of `task` that is due at `due` could start, if it were `start`.
    fn start(&self, task: &Task, due: Time, start: Time, blocking: Time) -> Time {
        let held = blocking.saturating_add(self.ahead.committed);
        let own = held.saturating_add(task.work(task.due_in(due))) - task.last;
        let rivals = self.tasks.iter().filter(|rival| rival.model != task.model);
        rivals.fold(own, |sum, rival| {
            let ready = if blocking > 0 { rival.before(start) } else { rival.by(start) };
            sum.saturating_add(rival.work(ready.min(rival.due_in(due))))
        })
    }

    fn check_worst(
        &self,
        at: &str,
        task: &Task,
        response: Nanos,
        worst: &WorstDue,
        work: &mut Work,
    ) -> Result<(), Fault> {
        let due = Time::from(worst.due.0);
        let why = "no job of the task is ready and due so early";
        require(format_args!("{at}.worst.due"), why, due >= task.first_due())?;
        let (blocking, _) = self.blocker(due);
        same(format_args!("{at}.worst.blocking"), Time::from(worst.blocking.0), blocking)?;
        let (start, found) = self.response(at, task, due, blocking, work)?;
        same(format_args!("{at}.worst.start"), Time::from(worst.start.0), start)?;
        same(format_args!("{at}.response"), Time::from(response.0), found)
    }

    /// When the last piece of a job of `task` that is due at `due` starts at the latest, and how late
    /// the job responds.
    fn response(
        &self,
        at: &str,
        task: &Task,
        due: Time,
        blocking: Time,
        work: &mut Work,
    ) -> Result<(Time, Time), Fault> {
        let from = blocking + self.ahead.committed + task.cost - task.last; // Its own job, at least, runs before.
        let start = least(at, from, self.tasks.len(), work, |start| {
            self.start(task, due, start, blocking)
        })?;
        let late = (task.jitter + start + task.last).saturating_sub(due - task.first_due());
        Ok((start, late.max(task.jitter + task.cost)))
    }

    /// Whether no job due at any instant of the busy period responds after its bound.
    fn check_all(
        &self,
        at: &str,
        horizon: Time,
        repeats: bool,
        bounds: &[EdfBound],
        work: &mut Work,
    ) -> Result<(), Fault> {
        let reach = |task: &Task| if repeats { horizon } else { horizon + task.deadline - 1 };
        let last = self.tasks.iter().map(reach).max().unwrap_or(0);
        let mut dues = Dues::of(self.tasks);
        while let Some(due) = dues.next(last) {
            work.spend(at, 4 * self.tasks.len())?;
            let (needed, (blocking, _)) = (self.needed(due), self.blocker(due));
            for (place, (task, bound)) in self.tasks.iter().zip(bounds).enumerate() {
                let bounded = Time::from(bound.response.0);
                let is_due = task.first_due() <= due && due <= reach(task);
                let by_demand = needed + task.deadline <= bounded + due;
                if !is_due || bound.worst.is_none() || by_demand {
                    continue;
                }
                work.spend(at, self.tasks.len())?;
                let since = due - task.first_due();
                let start = (bounded + since).saturating_sub(task.jitter + task.last);
                if self.start(task, due, start, blocking) <= start {
                    continue;
                }
                let at = format!("{at}.bounds[{place}].response, of the job due at {due}");
                let found = self.response(&at, task, due, blocking, work)?.1;
                at_most(at, "no job may respond after the bound", found, bounded)?;
            }
        }
        Ok(())
    }

    /// The response of the job of `task` that a witness names, whose numbers are those of the job.
    ///
    /// A job that is due after the busy period has no longer a response by these numbers than it has in
    /// some legal schedule: all that they count runs without a break, and the device may have one.
    pub(crate) fn response_of(
        &self,
        at: &str,
        task: &Task,
        witness: &Witness,
        work: &mut Work,
    ) -> Result<Time, Fault> {
        let Witness::Due { due, blocking, committed, start, response, .. } = *witness else {
            return require(at, "EDF evaluates a window, or a job by its deadline", false)
                .map(|()| 0);
        };
        same(format_args!("{at}.committed"), Time::from(committed.0), self.ahead.committed)?;
        self.check_worst(at, task, response, &WorstDue { due, blocking, start }, work)?;
        Ok(response.0.into())
    }

    /// Whether the window that a witness names overflows.
    pub(crate) fn refute(&self, at: &str, witness: &Witness) -> Result<(), Fault> {
        let Witness::Demand { window, demand, blocking, blocked_by, committed } = *witness else {
            return require(at, "a window must be given", false);
        };
        let length = Time::from(window.0);
        let (held, by) = self.blocker(length);
        same(format_args!("{at}.window, a deadline"), Some(length), self.last_due(length))?;
        same(format_args!("{at}.demand"), Time::from(demand.0), self.demand(length))?;
        same(format_args!("{at}.blocking"), Time::from(blocking.0), held)?;
        same(format_args!("{at}.blocked_by"), blocked_by, by)?;
        same(format_args!("{at}.committed"), Time::from(committed.0), self.ahead.committed)?;
        let what = "h(t) + b(t) + Q > t must hold of a refusal";
        exceeds(format_args!("{at}.window"), what, self.needed(length), length)
    }
}

/// All instants at which a deadline can fall, ascending.
struct Dues {
    /// By the next instant, the periods of those that have one there.
    next: BTreeMap<Time, Vec<Time>>,
}

impl Dues {
    fn of(tasks: &[Task]) -> Self {
        let mut next: BTreeMap<Time, Vec<Time>> = BTreeMap::new();
        tasks.iter().for_each(|task| next.entry(task.first_due()).or_default().push(task.period));
        Self { next }
    }

    fn next(&mut self, last: Time) -> Option<Time> {
        let (due, periods) = self.next.pop_first().filter(|(due, _)| *due <= last)?;
        for period in periods {
            self.next.entry(due + period).or_default().push(period);
        }
        Some(due)
    }
}

//! The workload an analysis sees: tasks with every overhead folded in.
//!
//! # Invariants
//! 1. Every stage, of a blocker too, is charged the dispatch overhead once. The dispatcher decides
//!    only when a stage ends, so there is exactly one decision for each stage and the charge is
//!    exact, not only safe. A task that is never suspended is charged for every stage all the same,
//!    and is then one stage as long as all of it.
//! 2. All arithmetic on times saturates upwards. A time of a task is at most 2^62 and a window
//!    2^63, so what saturates is past every window, and the search that meets it says so.

use std::borrow::Cow;
use std::cmp::Ordering;

use aegis_trace::{Limit, ModelId, Nanos, Refusal};

use super::Setting;
use super::fixed_point::{Budget, Exhausted, LONGEST_WINDOW};
use super::time::{TimeModel, ticks};
use super::utilisation::Utilisation;
use super::window::GrowingWork;
use crate::policy::PolicyKind;
use crate::task::{Background, Overheads, Task, TaskSet};

/// A task with the overheads charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Charged {
    pub(super) model: ModelId,
    pub(super) period: Nanos,
    pub(super) deadline: Nanos,
    pub(super) jitter: Nanos,
    pub(super) priority: u32,
    pub(super) cost: Nanos,
    pub(super) longest_stage: Nanos,
    pub(super) last_stage: Nanos,
    /// `C/T`.
    pub(super) load: Utilisation,
}

impl Charged {
    pub(super) fn new(task: &Task, overheads: &Overheads) -> Self {
        let (model, period, deadline) = (task.model(), task.period(), task.deadline());
        let stages = task.stages();
        let [cost, longest_stage, last_stage] = match stages {
            // Its figures contain what its stages are charged, whichever those are.
            _ if task.is_server() => [task.cost(), task.longest_stage(), task.last_stage()],
            _ if !task.may_be_suspended() => [overheads.total(stages); 3],
            [.., last] => {
                let last = last.saturating_add(overheads.of_stage(stages.len() - 1, stages.len()));
                [overheads.total(stages), overheads.longest(stages), last]
            }
            [] => unreachable!("a task has a stage"),
        };
        let load = Utilisation::share(cost, period);
        let (jitter, priority) = (task.jitter(), task.priority());
        Self { model, period, deadline, jitter, priority, cost, longest_stage, last_stage, load }
    }

    /// Cost and period, for sums of utilisation.
    pub(super) fn share(&self) -> (Nanos, Nanos) {
        (self.cost, self.period)
    }

    /// The shortest window that can hold the release and the deadline of a job, `D - J`.
    pub(super) fn first_deadline(&self) -> Nanos {
        self.deadline.saturating_sub(self.jitter)
    }

    /// What a job needs in any case: its release jitter and its cost.
    pub(super) fn alone(&self) -> Nanos {
        self.jitter.saturating_add(self.cost)
    }
}

/// What holds the device when a window begins, and cannot be preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocker {
    /// Its full length.
    pub(super) length: Nanos,
    /// `None` for the wake-up and for background work of nobody in particular, or when there is nothing.
    pub(super) model: Option<ModelId>,
}

impl Blocker {
    /// What it counts on ticks.
    pub(super) fn ticks(&self) -> Nanos {
        ticks(self.length)
    }

    /// The longer of the two, and this one if they are equally long.
    pub(super) fn or_longer(self, other: Self) -> Self {
        if other.length > self.length { other } else { self }
    }
}

/// Every task that shares the device, charged, and what can block them all.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) tasks: Vec<Charged>,
    /// What is less urgent than every task and can hold the device when a window begins: the
    /// wake-up latency, or the longest background piece where that is longer.
    pub(super) floor: Blocker,
    /// Work beyond all costs inside one busy window. It delays like a blocker, but in addition to
    /// one: Prosa's machine-checked analyses of overruns add it in the same two places, to what runs
    /// before a job and to the window's end.
    pub(super) overrun: Nanos,
    /// What look-ahead adds to every window: see [`committed`].
    pub(super) committed: Nanos,
    pub(super) time: TimeModel,
    pub(super) utilisation: Utilisation,
}

impl Workload {
    /// Charges the overheads of `setting` to `set`.
    pub(super) fn new(set: &TaskSet, setting: &Setting) -> Self {
        let tasks: Vec<Charged> =
            set.tasks().iter().map(|task| Charged::new(task, &setting.overheads)).collect();
        let utilisation = Utilisation::sum(tasks.iter().map(|task| task.load));
        let piece = piece(set.background(), &setting.overheads);
        let wake = Blocker { length: setting.overheads.wake, model: None };
        let floor = wake.or_longer(piece);
        let committed = if looks_ahead(setting) { committed(&tasks, piece) } else { Nanos::ZERO };
        let (overrun, time) = (setting.overrun, setting.time);
        Self { tasks, floor, overrun, committed, time, utilisation }
    }

    /// The same beside a stage of this length of one task more, less urgent than all, that takes
    /// nothing else of the device. Overhead included; nothing for a length of zero.
    pub(super) fn beside_foreign(mut self, length: Nanos, setting: &Setting) -> Self {
        if length > Nanos::ZERO && looks_ahead(setting) {
            let longest = self.tasks.iter().map(|task| task.longest_stage).max();
            let longest = longest.unwrap_or(Nanos::ZERO).max(length);
            self.committed = self.committed.max(longest);
        }
        self.floor = self.floor.or_longer(Blocker { length, model: None });
        self
    }

    /// What every policy requires.
    ///
    /// # Errors
    /// A job alone misses its deadline, or the tasks together exceed the device.
    pub(super) fn check_necessary(&self) -> Result<(), Refusal> {
        if let Some(task) = self.tasks.iter().find(|task| task.alone() > task.deadline) {
            let Charged { model, deadline, .. } = *task;
            return Err(Refusal::CostExceedsDeadline { model, cost: task.alone(), deadline });
        }
        match self.load() {
            Ordering::Less | Ordering::Equal => Ok(()),
            Ordering::Greater => Err(self.overutilised()),
        }
    }

    /// The same with every deadline later by the same time, so that none precedes the jitter of its
    /// task. The order of absolute deadlines stays as it is, and with it every response under EDF;
    /// but `D - J`, at which a job enters the demand, is not cut at zero any more.
    pub(super) fn with_deadlines_past_jitter(&self) -> Cow<'_, Self> {
        let ahead = |task: &Charged| task.jitter.saturating_sub(task.deadline);
        let later = self.tasks.iter().map(ahead).max().unwrap_or(Nanos::ZERO);
        if later == Nanos::ZERO {
            return Cow::Borrowed(self);
        }
        let mut shifted = self.clone();
        for task in &mut shifted.tasks {
            task.deadline = task.deadline.saturating_add(later);
        }
        Cow::Owned(shifted)
    }

    /// How the utilisation of all tasks compares with 1.
    pub(super) fn load(&self) -> Ordering {
        self.utilisation.cmp_one(|| self.tasks.iter().map(Charged::share))
    }

    pub(super) fn ppm(&self) -> u64 {
        self.utilisation.ppm(|| self.tasks.iter().map(Charged::share))
    }

    pub(super) fn overutilised(&self) -> Refusal {
        Refusal::Overutilised { utilisation_ppm: self.ppm() }
    }

    /// The longest time the device can stay busy without a break, on ticks: the least fixed point
    /// of `L = floor + overrun + committed + sum ceil((L + J) / T) C`; or any value above `enough`.
    ///
    /// There is none when utilisation is 1 and something blocks or is late, and the search then
    /// ends with the budget: ask [`Workload::cycle`] first.
    pub(super) fn busy_window(
        &self,
        enough: Nanos,
        budget: &mut Budget,
    ) -> Result<Nanos, Exhausted> {
        if self.tasks.is_empty() {
            return Ok(self.ahead());
        }
        let mut work = GrowingWork::new();
        self.tasks.iter().for_each(|task| work.add(task, u64::MAX));
        // ceil(L / T) = floor((L - 1) / T) + 1, so the point that is sought is L - 1.
        let base = self.ahead();
        let from = ticks(self.utilisation.reach(base).max(Nanos::EPSILON));
        let mut at = from;
        while at < enough {
            if at >= LONGEST_WINDOW {
                return Err(Exhausted::too_long(at));
            }
            budget.spend(self.tasks.len()).map_err(|spent| spent.at(at))?;
            let next = ticks(base.saturating_add(work.in_window(at)));
            if next <= at {
                break;
            }
            at = next;
        }
        Ok(at.saturating_add(Nanos::EPSILON))
    }

    /// What every window holds beside the costs and the blocker: overruns, and what look-ahead adds.
    pub(super) fn beside(&self) -> Nanos {
        self.overrun.saturating_add(self.committed)
    }

    /// What is ahead of every task in a busy window, on ticks.
    fn ahead(&self) -> Nanos {
        self.floor.ticks().saturating_add(self.beside())
    }

    /// After which time everything repeats, if the tasks use the device completely and some window
    /// never ends: the least common multiple of the periods. `None` when all windows end.
    ///
    /// # Errors
    /// It is longer than any window that is looked at.
    pub(super) fn cycle(&self) -> Result<Option<Nanos>, Exhausted> {
        let ends =
            self.ahead() == Nanos::ZERO && self.tasks.iter().all(|task| task.jitter == Nanos::ZERO);
        if ends || self.load() != Ordering::Equal {
            return Ok(None);
        }
        hyperperiod(self.tasks.iter().map(|task| task.period)).map(Some)
    }
}

/// The longest background piece with what its dispatch takes. It is less urgent than every task, and
/// so is waking up; only one of the two can be under way when a window begins.
fn piece(background: Background, overheads: &Overheads) -> Blocker {
    if background.longest == Nanos::ZERO {
        return Blocker { length: Nanos::ZERO, model: None };
    }
    // It is not known which stage of its job the piece is: it is charged what any can be.
    let length = background.longest.saturating_add(overheads.most());
    Blocker { length, model: background.of }
}

/// Whether a stage that is committed behind the running one can delay a more urgent one. Under FIFO
/// none is more urgent than what came before it, and nothing else is committed.
fn looks_ahead(setting: &Setting) -> bool {
    setting.overheads.look_ahead && setting.policy != PolicyKind::Fifo
}

/// What look-ahead adds to every window beside what blocks it: the longest stage of the set, or the
/// longest background piece.
///
/// Take a job J and the tasks at least as urgent, or, under EDF, the jobs due no later. A job of
/// theirs is *pending* from its arrival until its last stage is committed, and while one is pending
/// nothing less urgent is committed (`dispatch/look_ahead.rs`). Let `t` be the beginning of the
/// pending interval that holds J's arrival, R what runs at `t`, and K what is committed behind it.
///
/// 1. K is as urgent as J. It is the last stage of its job, which was pending until K was committed;
///    since then that place has been full and nothing was committed. So the device was busy, from the
///    beginning of *that* pending interval on, with R and what it held then, and with nothing less
///    urgent that was committed later: begin there, and ask again.
/// 2. Nothing is committed, and R is as urgent as J: the same, for R has been the last thing that was
///    committed.
/// 3. Nothing is committed, and R is less urgent, or the device is idle: what blocks is one stage or
///    the wake-up, as without look-ahead.
/// 4. K is less urgent. It is one stage that blocks, as without look-ahead: under EDF it is in `b(t)`,
///    or else a whole job of its task that is in `h(t)` does not exist. **R comes in addition**: a stage
///    of anybody, the previous job of J's own task and a background piece included.
///
/// From `t` on all that is committed is as urgent as J and was released since `t`. So J's last stage
/// starts after the blocker, R, and the work that every analysis counts anyway; that what counts is
/// committed before that start, and not only by it, makes it no more. The stages of a task that is
/// never suspended follow each other here too, and count as one.
///
/// Where the set is one task, nobody is less urgent and the fourth case does not occur. It does not
/// for the least urgent task of a larger set either, which is charged all the same: that keeps the
/// test of a task independent of its place, on which Audsley's search relies.
fn committed(tasks: &[Charged], piece: Blocker) -> Nanos {
    match tasks {
        [] | [_] => Nanos::ZERO,
        tasks => tasks.iter().map(|task| task.longest_stage).fold(piece.length, Nanos::max),
    }
}

/// The least common multiple of `periods`.
///
/// # Errors
/// It exceeds the longest window that is looked at.
pub(super) fn hyperperiod(mut periods: impl Iterator<Item = Nanos>) -> Result<Nanos, Exhausted> {
    let limit = Limit::Hyperperiod { longest: LONGEST_WINDOW };
    let too_long = Exhausted { limit, reached: Nanos::ZERO };
    periods.try_fold(Nanos::EPSILON, |all, period| {
        let (mut a, mut b) = (all.0, period.0);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        period.checked_mul(all / Nanos(a)).filter(|all| *all < LONGEST_WINDOW).ok_or(too_long)
    })
}

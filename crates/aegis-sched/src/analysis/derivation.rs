//! The numbers of a proof, written out so that somebody else can check them.
//!
//! [`derive()`] takes a set that was accepted and states what its theorem rests on: busy periods and the
//! start of every job in them, or the windows that answer for all others, or the instants that attain
//! the bounds. [`derive_refusal`] states the one evaluation that refuses a set, and
//! [`derive_refusal_with`] that and the steps before it. They are searches of their own beside those of
//! the verdict: they leave nothing out that a checker would have to find.
//!
//! With look-ahead, `Q` of `committed` in `workload.rs` is ahead of everything as
//! what blocks is, and named apart: whether something blocks is a matter of the blocker alone.
//!
//! Everything here is in dense time with blockers in full: starts are those on ticks plus 1 where
//! something blocks, and busy periods hold what is ready *before* their end. They are as long as those on
//! ticks, or longer by what a blocker's last tick lets in, whose jobs are never worse than the first of
//! the period, which a blocker of a whole tick holds up.
//!
//! # Invariants
//! 1. Responses are those of [`super::analyse`], or there is no derivation.
//! 2. A derivation has [`POINTS_MAX`] numbers at most.
//!
//! # Sources
//! Those of the theorems, in their files.

mod level;
mod raise;

pub use raise::{STEPS_MAX, Step, SteppedRefusal, derive_refusal_with};

use aegis_trace::{Category, Limit, ModelId, Nanos, Refusal};

use self::level::{Level, busy, cycle};
use super::demand::Demand;
use super::findings::Bound;
use super::fixed_point::{Budget, Exhausted};
use super::outcome::{Outcome, Worst};
use super::workload::{Blocker, Charged, Workload};
use super::{Order, Setting, TimeModel, fifo, np_edf_response};
use crate::task::TaskSet;

/// The most starts and windows of one derivation: some megabytes of text.
pub const POINTS_MAX: usize = 1 << 17;

/// How many jobs of a busy period are looked at where an answer has to be derived.
pub const JOBS_MAX: u64 = 1 << 17;

/// What the theorem of an accepted set rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// The longest thing less urgent than every task.
    pub floor: Nanos,
    /// What look-ahead adds to what every window holds.
    pub committed: Nanos,
    /// The numbers.
    pub proof: Derived,
}

/// The numbers of one theorem; one entry for each task, in the set's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Derived {
    /// Fixed priorities.
    FixedPriority(Vec<LevelDerivation>),
    /// EDF.
    Edf {
        /// Up to which window the demand has to be looked at.
        horizon: Nanos,
        /// Windows from the longest down, each with demand plus blocking.
        points: Vec<(Nanos, Nanos)>,
        /// The bounds.
        bounds: Vec<EdfDerivation>,
    },
    /// First in, first out.
    Fifo {
        /// Up to which instant releases have to be looked at.
        end: Nanos,
        /// For each task, when its worst job is ready.
        ready: Vec<Nanos>,
    },
}

/// The busy period of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelDerivation {
    /// What blocks it.
    pub blocking: Nanos,
    /// The first task whose piece is so long.
    pub blocked_by: Option<ModelId>,
    /// The length of the busy period, or of a cycle.
    pub busy: Nanos,
    /// When the last stage of each job starts at the latest.
    pub starts: Vec<Nanos>,
    /// The first job that attains the bound.
    pub worst: usize,
}

/// The job that attains a bound under EDF; `None` where the bound is the deadline.
pub type EdfDerivation = Option<DueDerivation>;

/// A job under EDF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueDerivation {
    /// Its absolute deadline.
    pub due: Nanos,
    /// What blocks it.
    pub blocking: Nanos,
    /// When its last stage starts at the latest.
    pub start: Nanos,
}

/// The evaluation that refuses a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalDerivation {
    /// `sum C/T > 1`.
    Load,
    /// One job alone is late.
    Alone {
        /// Whose.
        model: ModelId,
    },
    /// A window overflows.
    Demand {
        /// Its length, at the end of which some deadline falls.
        window: Nanos,
        /// The work due inside.
        demand: Nanos,
        /// What blocks it.
        blocking: Nanos,
        /// The first task whose piece is so long.
        blocked_by: Option<ModelId>,
        /// What look-ahead adds.
        committed: Nanos,
    },
    /// A job of a busy period is late under fixed priorities.
    Response {
        /// Whose.
        model: ModelId,
        /// What blocks it.
        blocking: Nanos,
        /// The first task whose piece is so long.
        blocked_by: Option<ModelId>,
        /// What look-ahead adds.
        committed: Nanos,
        /// Which job.
        job: usize,
        /// When its last stage starts at the latest.
        start: Nanos,
        /// Its response.
        response: Nanos,
    },
    /// A job is late under EDF, by its deadline in a busy period.
    Due {
        /// Whose.
        model: ModelId,
        /// The job.
        job: DueDerivation,
        /// What look-ahead adds.
        committed: Nanos,
        /// Its response.
        response: Nanos,
    },
    /// The busy period holds more jobs than [`JOBS_MAX`], or no window is as long; nothing is late.
    Endless {
        /// It goes on for longer than this.
        window: Nanos,
        /// How many jobs are ready before that.
        jobs: u64,
    },
    /// A job is late under first in, first out.
    Queue {
        /// Whose.
        model: ModelId,
        /// When it is ready.
        ready: Nanos,
        /// Its response.
        response: Nanos,
    },
}

/// Why an answer has no derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotDerived {
    /// It would be too long.
    #[error("its proof has more than {POINTS_MAX} numbers")]
    TooLong,
    /// It was not found.
    #[error("its proof was not found: {0}")]
    Undecided(Limit),
    /// The answer is not about time, or there is none.
    #[error("no inequality about time refused it")]
    NotOfTime,
    /// Nothing fails: the answer was given with less patience, or beside other models.
    #[error("looked at with more patience, or without what was refused since, it passes")]
    Passes,
    /// The setting is not that of admission.
    #[error("only dense time is derived, with no overrun")]
    Setting,
    /// A search found another bound than the one that was promised.
    #[error("the bound of {model} is {promised}, and its search finds {found}")]
    Differs {
        /// Whose.
        model: ModelId,
        /// What was promised.
        promised: Nanos,
        /// What was found.
        found: Nanos,
    },
}

impl NotDerived {
    /// Always [`Category::Permanent`].
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::TooLong
            | Self::Undecided(_)
            | Self::NotOfTime
            | Self::Passes
            | Self::Setting
            | Self::Differs { .. } => Category::Permanent,
        }
    }
}

impl From<Exhausted> for NotDerived {
    fn from(spent: Exhausted) -> Self {
        Self::Undecided(spent.limit)
    }
}

/// The numbers behind the `promised` bounds of an accepted set, which are in its order.
///
/// Does not block or touch the device. Costs as [`super::examine`], and `O(n)` for each number.
///
/// # Errors
/// Permanent: [`NotDerived`].
pub fn derive(
    set: &TaskSet,
    setting: &Setting,
    promised: &[Bound],
) -> Result<Derivation, NotDerived> {
    let derive = Derive::new(set, setting)?;
    let mut budget = Budget::new(setting.terms);
    let proof = match Order::of(setting.policy) {
        Order::Fixed(urgency) => derive.levels(urgency, promised, &mut budget)?,
        Order::Deadline => derive.edf(promised, &mut budget)?,
        Order::Release => derive.fifo(promised, &mut budget)?,
    };
    let Workload { floor, committed, .. } = derive.workload;
    Ok(Derivation { floor: floor.length, committed, proof })
}

/// The evaluation behind a refusal of `set`.
///
/// Does not block or touch the device. Costs one busy period of one task.
///
/// # Errors
/// Permanent: [`NotDerived`].
pub fn derive_refusal(
    set: &TaskSet,
    setting: &Setting,
    refusal: &Refusal,
) -> Result<RefusalDerivation, NotDerived> {
    let derive = Derive::new(set, setting)?;
    let mut budget = Budget::new(setting.terms);
    match *refusal {
        Refusal::Overutilised { .. } => Ok(RefusalDerivation::Load),
        Refusal::CostExceedsDeadline { model, .. } => Ok(RefusalDerivation::Alone { model }),
        Refusal::DemandExceedsWindow { window, .. } => derive.overflow(window),
        Refusal::ResponseExceedsDeadline { model, .. } => match Order::of(setting.policy) {
            Order::Fixed(urgency) => derive.late_in_level(urgency, model, &mut budget),
            Order::Release => derive.late_in_queue(model, &mut budget),
            Order::Deadline => Err(NotDerived::NotOfTime),
        },
        Refusal::Undecided { limit } => Err(NotDerived::Undecided(limit)),
        _ => Err(NotDerived::NotOfTime),
    }
}

/// A workload to be derived about.
struct Derive {
    workload: Workload,
}

impl Derive {
    fn new(set: &TaskSet, setting: &Setting) -> Result<Self, NotDerived> {
        if setting.time != TimeModel::Dense || setting.overrun > Nanos::ZERO {
            return Err(NotDerived::Setting);
        }
        Ok(Self { workload: Workload::new(set, setting) })
    }

    fn tasks(&self) -> &[Charged] {
        &self.workload.tasks
    }

    /// What is ahead of every task, in full.
    fn ahead(&self) -> Nanos {
        self.workload.floor.length.saturating_add(self.workload.committed)
    }

    /// The longest piece of those that `may_block`, the first of equals, or the floor.
    fn blocker(&self, may_block: impl Fn(&Charged) -> bool) -> Blocker {
        let blocking = self.tasks().iter().filter(|task| may_block(task));
        let floor = Blocker { length: self.workload.floor.length, model: None };
        blocking.fold(floor, |longest, task| {
            longest.or_longer(Blocker { length: task.longest_stage, model: Some(task.model) })
        })
    }

    fn task(&self, model: ModelId) -> Result<usize, NotDerived> {
        let found = self.tasks().iter().position(|task| task.model == model);
        found.ok_or(NotDerived::NotOfTime)
    }

    fn level<'a>(&'a self, urgency: fn(&Charged) -> u64, index: usize) -> Level<'a> {
        let task = &self.tasks()[index];
        let own = urgency(task);
        let others = self.tasks().iter().enumerate().filter(|(other, _)| *other != index);
        let rivals = others.map(|(_, rival)| rival).filter(|rival| urgency(rival) <= own);
        let blocker = self.blocker(|other| urgency(other) > own);
        let committed = self.workload.committed;
        Level { task, rivals: rivals.collect(), blocker, committed }
    }

    fn levels(
        &self,
        urgency: fn(&Charged) -> u64,
        promised: &[Bound],
        budget: &mut Budget,
    ) -> Result<Derived, NotDerived> {
        let mut room = POINTS_MAX;
        let derive = |(index, bound): (usize, &Bound)| {
            let level = self.level(urgency, index);
            let (busy, jobs) = level.busy(budget)?;
            room = usize::try_from(jobs)
                .ok()
                .and_then(|jobs| room.checked_sub(jobs))
                .ok_or(NotDerived::TooLong)?;
            let starts = level.starts(jobs, budget)?;
            let responses = (0..).zip(&starts).map(|(job, start)| level.response(job, *start));
            let found = responses.clone().max().unwrap_or(Nanos::ZERO);
            differs(bound, found)?;
            let worst = responses.clone().position(|response| response == found).unwrap_or(0);
            let (blocking, blocked_by) = (level.blocker.length, level.blocker.model);
            Ok(LevelDerivation { blocking, blocked_by, busy, starts: starts.clone(), worst })
        };
        promised
            .iter()
            .enumerate()
            .map(derive)
            .collect::<Result<_, _>>()
            .map(Derived::FixedPriority)
    }

    fn late_in_level(
        &self,
        urgency: fn(&Charged) -> u64,
        model: ModelId,
        budget: &mut Budget,
    ) -> Result<RefusalDerivation, NotDerived> {
        let level = self.level(urgency, self.task(model)?);
        let mut walk = level.walk();
        for job in 0..POINTS_MAX {
            let start = walk.next(budget)?;
            let response = level.response(job as u64, start);
            if response > level.task.deadline {
                let Blocker { length: blocking, model: blocked_by } = level.blocker;
                return Ok(RefusalDerivation::Response {
                    model,
                    blocking,
                    blocked_by,
                    committed: level.committed,
                    job,
                    start,
                    response,
                });
            }
        }
        Err(NotDerived::TooLong)
    }

    fn edf(&self, promised: &[Bound], budget: &mut Budget) -> Result<Derived, NotDerived> {
        let demand = Demand::new(&self.workload);
        let tasks: Vec<&Charged> = self.tasks().iter().collect();
        let ahead = self.ahead();
        let horizon = match cycle(&tasks, ahead)? {
            Some(cycle) => demand.unblocked().saturating_add(cycle),
            None if tasks.is_empty() => Nanos::ZERO,
            None => busy(&tasks, ahead, budget)?,
        };
        let points = self.points(&demand, horizon, budget)?;
        let outcomes = np_edf_response::outcomes(&self.workload, &demand, budget);
        let bounds = promised.iter().zip(outcomes).zip(tasks);
        let bounds = bounds.map(|((bound, outcome), task)| due(bound, &outcome, task));
        Ok(Derived::Edf { horizon, points, bounds: bounds.collect::<Result<_, _>>()? })
    }

    /// The windows that answer for all up to `horizon`, from the longest down.
    fn points(
        &self,
        demand: &Demand,
        horizon: Nanos,
        budget: &mut Budget,
    ) -> Result<Vec<(Nanos, Nanos)>, NotDerived> {
        let mut points = Vec::new();
        let first = demand.first_step().unwrap_or(Nanos::MAX);
        let mut next = demand.last_step_before(horizon.saturating_add(Nanos::EPSILON));
        while let Some(window) = next.filter(|window| *window >= first) {
            budget.spend(self.tasks().len())?;
            let needed = demand.within(window).saturating_add(demand.blocker(window).length);
            let needed = needed.saturating_add(self.workload.committed);
            if needed > window || points.len() == POINTS_MAX {
                return Err(NotDerived::TooLong);
            }
            points.push((window, needed));
            next = if needed < window { Some(needed) } else { demand.last_step_before(window) };
        }
        Ok(points)
    }

    /// A window that overflows, with its numbers.
    fn overflow(&self, found: Nanos) -> Result<RefusalDerivation, NotDerived> {
        let steps = Demand::new(&self.workload);
        // Where the search stood between two steps, the demand is that of the step before.
        let window = steps.last_step_before(found.saturating_add(Nanos::EPSILON));
        let window = window.ok_or(NotDerived::NotOfTime)?;
        let blocker = self.blocker(|task| task.first_deadline() > window);
        let (demand, committed) = (steps.within(window), self.workload.committed);
        let Blocker { length: blocking, model: blocked_by } = blocker;
        Ok(RefusalDerivation::Demand { window, demand, blocking, blocked_by, committed })
    }

    fn fifo(&self, promised: &[Bound], budget: &mut Budget) -> Result<Derived, NotDerived> {
        let end = self.fifo_end(budget)?;
        let mut worst = vec![(Nanos::ZERO, Nanos::ZERO); self.tasks().len()];
        for (ready, _) in fifo::instants(&self.workload).take_while(|(ready, _)| *ready < end) {
            budget.spend(self.tasks().len())?;
            let queued = self.queued(ready);
            for (worst, task) in worst.iter_mut().zip(self.tasks()) {
                let response = queued_response(queued, task, ready);
                if response > worst.1 {
                    *worst = (ready, response);
                }
            }
        }
        promised.iter().zip(&worst).try_for_each(|(bound, worst)| differs(bound, worst.1))?;
        Ok(Derived::Fifo { end, ready: worst.into_iter().map(|(ready, _)| ready).collect() })
    }

    fn late_in_queue(
        &self,
        model: ModelId,
        budget: &mut Budget,
    ) -> Result<RefusalDerivation, NotDerived> {
        let task = &self.tasks()[self.task(model)?];
        let end = self.fifo_end(budget)?;
        for (ready, _) in fifo::instants(&self.workload).take_while(|(ready, _)| *ready < end) {
            budget.spend(self.tasks().len())?;
            let response = queued_response(self.queued(ready), task, ready);
            if response > task.deadline {
                return Ok(RefusalDerivation::Queue { model, ready, response });
            }
        }
        Err(NotDerived::NotOfTime)
    }

    fn fifo_end(&self, budget: &mut Budget) -> Result<Nanos, NotDerived> {
        if self.tasks().iter().all(|task| task.jitter == Nanos::ZERO) {
            return Ok(Nanos::EPSILON);
        }
        let tasks: Vec<&Charged> = self.tasks().iter().collect();
        match cycle(&tasks, self.ahead())? {
            Some(cycle) => Ok(cycle),
            None => busy(&tasks, self.ahead(), budget),
        }
    }

    /// All work that is released by `ready`, behind what is ahead of it.
    fn queued(&self, ready: Nanos) -> Nanos {
        let work = self.tasks().iter().map(|task| fifo::work_by(task, ready, task.jitter));
        work.fold(self.ahead(), Nanos::saturating_add)
    }
}

/// The response of a job of `task` that is ready when so much is queued.
fn queued_response(queued: Nanos, task: &Charged, ready: Nanos) -> Nanos {
    let others = queued.saturating_sub(fifo::work_by(task, ready, task.jitter));
    let done = others.saturating_add(fifo::work_by(task, ready, Nanos::ZERO));
    done.saturating_sub(ready).saturating_add(task.jitter)
}

/// A start on ticks in dense time.
fn started(ticks: Nanos, blocker: Blocker) -> Nanos {
    ticks.saturating_add(TimeModel::Dense.instant(blocker.length))
}

/// The job that attains the bound of a task under EDF.
fn due(bound: &Bound, outcome: &Outcome, task: &Charged) -> Result<EdfDerivation, NotDerived> {
    match *outcome {
        Outcome::Worst(Worst { response, start, due: Some(due), blocker, .. })
            if response == bound.response =>
        {
            let start = started(start, blocker);
            Ok(Some(DueDerivation { due, blocking: blocker.length, start }))
        }
        // A bound that was not found is the deadline, which the windows prove.
        _ if bound.response == task.deadline => Ok(None),
        Outcome::Worst(Worst { response, .. }) => differs(bound, response).map(|()| None),
        Outcome::Unbounded => Err(NotDerived::NotOfTime),
        Outcome::Undecided(limit) => Err(NotDerived::Undecided(limit)),
    }
}

fn differs(bound: &Bound, found: Nanos) -> Result<(), NotDerived> {
    let Bound { model, response: promised, .. } = *bound;
    if promised == found { Ok(()) } else { Err(NotDerived::Differs { model, promised, found }) }
}

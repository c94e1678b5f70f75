//! The argument behind one answer: the job that attains each bound, and who takes which share.
//!
//! [`explain`] runs the same searches as [`super::examine`] and keeps what they found: for each
//! task the job with the longest response in its busy period, what blocks it, how many jobs of
//! every task run before it ends; for a refusal under EDF the window that overflows, with the
//! demand of every task. Whoever doubts a bound adds up a column.
//!
//! # Invariants
//! 1. For every [`Case`], `blocking + committed + overrun + sum of the shares = completion`, and
//!    `completion - visible + jitter` is the response that [`super::examine`] gives. Nothing is
//!    rounded.
//! 2. For every [`Window`], `blocking + committed + overrun + sum of the demand > length`.

use std::cmp::Ordering;

use aegis_trace::{ModelId, Nanos, Refusal};

use super::demand::{Demand, jobs_due};
use super::findings::{Findings, Response};
use super::fixed_point::Budget;
use super::outcome::{Outcome, Worst};
use super::quick::{QuickTest, quick_tests};
use super::utilisation::Utilisation;
use super::workload::{Blocker, Charged, Workload};
use super::{Order, Setting, found, worst_cases};
use crate::policy::PolicyKind;
use crate::task::TaskSet;

/// An answer with its argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What the set was analysed for.
    pub setting: Setting,
    /// The answer, as [`super::examine`] gives it.
    pub findings: Findings,
    /// `sum C/T` in millionths with overheads charged, rounded down: for display alone.
    pub utilisation_ppm: u64,
    /// The quick sufficient tests that accept the set, too.
    pub quick: Vec<QuickTest>,
    /// For a refusal by demand, the window that overflows.
    pub window: Option<Window>,
    /// One for each task, in the set's order.
    pub tasks: Vec<Argument>,
}

impl Explanation {
    /// The most shares that are written out, over all cases: enough for every case of 1000 tasks,
    /// which is more than anybody reads. What lies past it has its bounds all the same.
    pub const MOST_SHARES: usize = 1 << 20;
}

/// One task and its worst case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Whose.
    pub model: ModelId,
    /// The cost of one job, overheads included.
    pub cost: Nanos,
    /// `T`.
    pub period: Nanos,
    /// `D`.
    pub deadline: Nanos,
    /// `J`.
    pub jitter: Nanos,
    /// The longest response of any job.
    pub response: Response,
    /// The job that attains it; `None` where there is no bound, and past
    /// [`Explanation::MOST_SHARES`].
    pub case: Option<Case>,
}

/// The job that attains a bound. Times count from the beginning of its busy period, which is when
/// the jobs of all tasks are first visible, each as late after its release as it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// How long the device can be busy with work as urgent as this without a break; `None` if for
    /// ever, or if the budget ended before that was known.
    pub busy: Option<Nanos>,
    /// How many jobs of the task precede it there.
    pub job: u64,
    /// When it is visible: its nominal release plus the jitter of the task. Under EDF this instant
    /// was varied, and here the job suffers most.
    pub visible: Nanos,
    /// Its absolute deadline, if that is not before the busy period.
    pub due: Option<Nanos>,
    /// How long it is held up by something less urgent that had just started. On ticks a tick less
    /// than that stage.
    pub blocking: Nanos,
    /// Whose stage that is; `None` for the wake-up or a background piece, or when there is nothing.
    pub blocked_by: Option<ModelId>,
    /// What was on the device when that stage was committed behind it, with look-ahead; at most the
    /// longest stage of the set.
    pub committed: Nanos,
    /// By how much jobs exceed their costs, if the setting asks for that.
    pub overrun: Nanos,
    /// All jobs that run up to its end, its own last, in the set's order but for that; tasks
    /// without a job are left out.
    pub shares: Vec<Share>,
    /// The cost of its last stage, which nothing delays once it has started.
    pub last_stage: Nanos,
    /// When it ends.
    pub completion: Nanos,
}

/// Jobs of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Whose.
    pub model: ModelId,
    /// How many.
    pub jobs: u64,
    /// Of one, overheads included.
    pub cost: Nanos,
}

impl Share {
    /// What they cost together.
    #[must_use]
    pub fn work(&self) -> Nanos {
        self.cost.saturating_mul(self.jobs)
    }
}

/// A window that overflows under EDF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its length.
    pub length: Nanos,
    /// The jobs that are released and due inside, in the set's order.
    pub demand: Vec<Share>,
    /// How long something due later, which had just started, holds them up.
    pub blocking: Nanos,
    /// Whose stage that is; `None` for the wake-up or a background piece, or when there is nothing.
    pub blocked_by: Option<ModelId>,
    /// What was on the device when that stage was committed behind it, with look-ahead.
    pub committed: Nanos,
    /// By how much jobs exceed their costs, if the setting asks for that.
    pub overrun: Nanos,
}

/// The argument behind the answer for `set`.
///
/// Does not block or touch the device. Costs as [`super::examine`], and `O(n)` for each task and
/// one busy period more.
///
/// # Examples
/// ```
/// use aegis_sched::analysis::{Setting, explain};
/// use aegis_sched::policy::PolicyKind;
/// use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
/// use aegis_trace::{ModelId, Nanos};
///
/// let task = |index, cost, period| {
///     Task::new(TaskSpec {
///         model: ModelId::first(index),
///         period: Nanos::from_millis(period),
///         deadline: Nanos::from_millis(period),
///         jitter: Nanos::ZERO,
///         priority: 0,
///         stages: vec![Nanos::from_millis(cost)],
///     })
/// };
/// let set = TaskSet::new(vec![task(0, 2, 8)?, task(1, 5, 40)?])?;
/// let setting = Setting::admission(PolicyKind::Rms, Overheads::default());
/// let case = explain(&set, &setting).tasks[0].case.clone().expect("a bounded response");
/// assert_eq!(case.blocking, Nanos::from_millis(5));
/// assert_eq!(case.completion, Nanos::from_millis(7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn explain(set: &TaskSet, setting: &Setting) -> Explanation {
    let workload = Workload::new(set, setting);
    let mut budget = Budget::new(setting.terms);
    let outcomes = worst_cases(&workload, setting.policy, &mut budget);
    let findings = found(set, setting, &workload, &outcomes);
    let window = findings.verdict.as_ref().err().and_then(|why| window(&workload, why));
    let cases = Cases::new(&workload, setting.policy, &mut budget);
    let mut shares_left = Explanation::MOST_SHARES;
    let mut case = |index, outcome: &Outcome| match outcome {
        Outcome::Worst(worst) if shares_left >= workload.tasks.len() => {
            let case = cases.of(index, worst, &mut budget);
            shares_left -= case.shares.len();
            Some(case)
        }
        Outcome::Worst(_) | Outcome::Unbounded | Outcome::Undecided(_) => None,
    };
    let tasks = workload.tasks.iter().zip(&outcomes).enumerate();
    let tasks = tasks.map(|(index, (task, outcome))| Argument {
        model: task.model,
        cost: task.cost,
        period: task.period,
        deadline: task.deadline,
        jitter: task.jitter,
        response: outcome.response(),
        case: case(index, outcome),
    });
    let tasks = tasks.collect();
    let (setting, utilisation_ppm) = (*setting, workload.ppm());
    let quick = quick_tests(set, &setting);
    Explanation { setting, findings, utilisation_ppm, quick, window, tasks }
}

/// The window behind a refusal by demand.
fn window(workload: &Workload, why: &Refusal) -> Option<Window> {
    let Refusal::DemandExceedsWindow { window, blocking, blocked_by, .. } = *why else {
        return None;
    };
    let demand = Demand::new(workload);
    let mut due: Vec<&(usize, Charged)> = demand.due_within(window).iter().collect();
    due.sort_unstable_by_key(|(index, _)| *index);
    let demand = due.into_iter().map(|(_, task)| share(task, jobs_due(task, window))).collect();
    let Workload { committed, overrun, .. } = *workload;
    let blocking = blocking.saturating_sub(committed); // The refusal names both as one.
    Some(Window { length: window, demand, blocking, blocked_by, committed, overrun })
}

/// Writes worst cases out.
struct Cases<'a> {
    workload: &'a Workload,
    order: Order,
    /// Where every task shares one: the longest busy period.
    busy: Option<Nanos>,
    /// By how much deadlines were shifted for the search under EDF.
    later: Nanos,
}

impl<'a> Cases<'a> {
    fn new(workload: &'a Workload, policy: PolicyKind, budget: &mut Budget) -> Self {
        let order = Order::of(policy);
        let busy = match order {
            Order::Fixed(_) => None,
            Order::Release | Order::Deadline => {
                longest_busy(workload, workload.tasks.clone(), workload.floor, budget)
            }
        };
        let shifted = workload.with_deadlines_past_jitter();
        let pairs = shifted.tasks.iter().zip(&workload.tasks);
        let later = pairs.map(|(after, before)| after.deadline - before.deadline).max();
        Self { workload, order, busy, later: later.unwrap_or(Nanos::ZERO) }
    }

    fn of(&self, index: usize, worst: &Worst, budget: &mut Budget) -> Case {
        let task = &self.workload.tasks[index];
        let alone = self.is_alone(task, worst);
        let blocker =
            if alone { Blocker { length: Nanos::ZERO, model: None } } else { worst.blocker };
        let completion = if alone { task.cost } else { self.completion(task, worst) };
        let visible = completion.saturating_add(task.jitter).saturating_sub(worst.response);
        Case {
            busy: self.busy(index, worst, budget),
            job: if alone { 0 } else { worst.job },
            visible,
            due: visible.saturating_add(task.deadline).checked_sub(task.jitter),
            blocking: self.workload.time.held_up(blocker.length),
            blocked_by: blocker.model,
            committed: if alone { Nanos::ZERO } else { self.workload.committed },
            overrun: if alone { Nanos::ZERO } else { self.workload.overrun },
            shares: if alone { vec![share(task, 1)] } else { self.shares(index, worst) },
            last_stage: task.last_stage,
            completion,
        }
    }

    fn completion(&self, task: &Charged, worst: &Worst) -> Nanos {
        let instant = match self.order {
            Order::Release => Nanos::ZERO, // Its search is not on ticks.
            Order::Fixed(_) | Order::Deadline => self.workload.time.instant(worst.blocker.length),
        };
        worst.start.saturating_add(task.last_stage).saturating_add(instant)
    }

    /// Whether under EDF the work ahead ends so early that the job finds the device idle.
    fn is_alone(&self, task: &Charged, worst: &Worst) -> bool {
        let Some(due) = worst.due else { return false };
        let visible = due.saturating_sub(self.first_due(task));
        self.completion(task, worst) < visible.saturating_add(task.cost)
    }

    /// `D - J`, shifted as in the search.
    fn first_due(&self, task: &Charged) -> Nanos {
        task.deadline.saturating_add(self.later).saturating_sub(task.jitter)
    }

    fn busy(&self, index: usize, worst: &Worst, budget: &mut Budget) -> Option<Nanos> {
        let Order::Fixed(urgency) = self.order else { return self.busy };
        let level = urgency(&self.workload.tasks[index]);
        let tasks = self.workload.tasks.iter().filter(|task| urgency(task) <= level);
        let tasks: Vec<Charged> = tasks.copied().collect();
        longest_busy(self.workload, tasks, worst.blocker, budget)
    }

    /// The jobs that run up to the end of the worst one; its own last.
    fn shares(&self, index: usize, worst: &Worst) -> Vec<Share> {
        let tasks = self.workload.tasks.iter().enumerate();
        let rivals = tasks.filter(|(rival, _)| *rival != index);
        let rivals = rivals.map(|(_, rival)| (rival, self.jobs_of(index, rival, worst)));
        let own = (&self.workload.tasks[index], worst.job + 1);
        let all = rivals.chain([own]).filter(|(_, jobs)| *jobs > 0);
        all.map(|(task, jobs)| share(task, jobs)).collect()
    }

    /// How many jobs of `rival` run before the worst job's last stage.
    fn jobs_of(&self, index: usize, rival: &Charged, worst: &Worst) -> u64 {
        let task = &self.workload.tasks[index];
        let visible_by = |at: Nanos| at.saturating_add(rival.jitter) / rival.period + 1;
        match self.order {
            Order::Fixed(urgency) if urgency(rival) > urgency(task) => 0,
            Order::Fixed(_) => visible_by(worst.start),
            Order::Release => {
                let ready = self.completion(task, worst).saturating_add(task.jitter);
                visible_by(ready.saturating_sub(worst.response))
            }
            Order::Deadline => {
                let due = worst.due.and_then(|due| due.checked_sub(self.first_due(rival)));
                due.map_or(0, |room| room / rival.period + 1).min(visible_by(worst.start))
            }
        }
    }
}

fn share(task: &Charged, jobs: u64) -> Share {
    Share { model: task.model, jobs, cost: task.cost }
}

/// How long the device can be busy with `tasks` behind `blocker`; `None` if for ever, or if it
/// would take too long to find out.
fn longest_busy(
    workload: &Workload,
    tasks: Vec<Charged>,
    blocker: Blocker,
    budget: &mut Budget,
) -> Option<Nanos> {
    let utilisation = Utilisation::sum(tasks.iter().map(|task| task.load));
    let Workload { overrun, committed, time, .. } = *workload;
    let level = Workload { tasks, floor: blocker, overrun, committed, time, utilisation };
    let late = level.tasks.iter().any(|task| task.jitter > Nanos::ZERO);
    let ends = match level.load() {
        Ordering::Less => true,
        Ordering::Equal => !late && blocker.ticks() == Nanos::ZERO && level.beside() == Nanos::ZERO,
        Ordering::Greater => false,
    };
    let end = ends.then(|| level.busy_window(Nanos::MAX, budget).ok()).flatten()?;
    Some(end.saturating_add(time.instant(blocker.length)))
}

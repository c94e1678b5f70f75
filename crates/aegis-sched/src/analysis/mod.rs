//! The proof that admitted work is on time: one file per theorem.
//!
//! [`decide`] gives the verdict on a set of tasks on one serial device under a policy, [`analyse`]
//! adds a sound worst-case response time for every task of an accepted set, and [`examine`] finds
//! out all there is to know, accepted or not. [`Test`] lists the theorems and says for which sets
//! each is exact.
//!
//! The device does not preempt a running stage. At the end of a stage the job goes on unless a
//! strictly more urgent job is ready; a started job under FIFO always goes on.
//!
//! # Invariants
//! 1. Everything is computed on ticks; `time.rs` alone knows what dense time adds.
//! 2. Nothing is rounded in a task's favour: costs and demand round up, slack down, utilisation is
//!    compared as an exact rational, and no floating-point number takes part.
//! 3. Every search has a budget. Running out of it is no answer ([`Refusal::Undecided`]), which
//!    counts as *no*, or, where only a tighter bound was sought, the deadline itself.
//! 4. All bounds of one answer are sound together; one late task refuses the whole set.
//! 5. Answers are a pure function of the arguments and do not depend on the order of the tasks,
//!    except for which of several late tasks, or of equally long blockers, is named.
//!
//! # Sources
//! The [`Test`] variants name them; each theorem's file gives the titles and the recurrences.

mod argument;
pub mod chain;
pub mod counter_offer;
mod demand;
pub mod derivation;
mod due_window;
mod fifo;
mod findings;
mod fixed_point;
pub mod incremental;
pub mod inherit;
mod np_edf;
mod np_edf_response;
mod np_fixed_priority;
mod offsets;
mod outcome;
pub mod priority_assignment;
pub mod quick;
mod screen;
pub mod sensitivity;
mod time;
pub(crate) mod utilisation;
mod window;
mod wording;
mod workload;

pub use argument::{Argument, Case, Explanation, Share, Window, explain};
pub use findings::{Analysis, Bound, Findings, Response, Test};
pub use time::TimeModel;
pub use wording::Words;

use aegis_trace::{Nanos, Refusal};

use crate::policy::PolicyKind;
use crate::task::{Overheads, TaskSet};

use self::demand::Demand;
use self::fixed_point::Budget;
use self::np_fixed_priority::{Levels, Sweep};
use self::outcome::{Outcome, Until};
use self::workload::{Blocker, Charged, Workload};

/// What a set is analysed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The order of the ready jobs.
    pub policy: PolicyKind,
    /// What the orchestrator itself costs.
    pub overheads: Overheads,
    /// At which instants things happen.
    pub time: TimeModel,
    /// How much stages may run beyond their costs inside one busy window, all together.
    pub overrun: Nanos,
    /// How much work the verdict may cost, in terms of a nanosecond or a few each; the response
    /// times under EDF may cost as much again.
    pub terms: u64,
}

impl Setting {
    /// What admission uses: dense time, and an answer within a fraction of a second.
    #[must_use]
    pub fn admission(policy: PolicyKind, overheads: Overheads) -> Self {
        Self { policy, overheads, time: TimeModel::Dense, overrun: Nanos::ZERO, terms: 20_000_000 }
    }
}

/// Which theorem a policy falls under.
enum Order {
    /// By release.
    Release,
    /// By absolute deadline.
    Deadline,
    /// By a fixed urgency of each task; smaller is more urgent.
    Fixed(fn(&Charged) -> u64),
}

impl Order {
    fn of(policy: PolicyKind) -> Self {
        match policy {
            PolicyKind::Fifo => Self::Release,
            PolicyKind::Edf => Self::Deadline,
            PolicyKind::Rms => Self::Fixed(|task| task.period.0),
            PolicyKind::Dm => Self::Fixed(|task| task.deadline.0),
            PolicyKind::Priority => Self::Fixed(|task| u64::from(task.priority)),
        }
    }

    fn test(&self) -> Test {
        match self {
            Self::Release => Test::Fifo,
            Self::Deadline => Test::NpEdf,
            Self::Fixed(_) => Test::NpFixedPriority,
        }
    }

    /// Whether a set that the theorem refuses has a legal schedule that misses.
    fn is_exact(&self, tasks: &[Charged], set: &TaskSet) -> bool {
        // Where the stages of a server end is not known: it may not have the ones that are assumed.
        let staged = |index: usize| {
            let task = &set.tasks()[index];
            task.is_server() || (task.may_be_suspended() && task.stages().len() > 1)
        };
        match self {
            // In order of nominal releases, which is the dispatcher's, jitter is bounded, not met.
            Self::Release => tasks.iter().all(|task| task.jitter == Nanos::ZERO),
            // That a stage behind others blocks as early as the first is not shown at full costs.
            Self::Deadline => !(0..tasks.len()).any(staged),
            // Between its stages a job goes on against equal priorities, which are taken to win.
            Self::Fixed(_) if !(0..tasks.len()).any(staged) => true,
            Self::Fixed(urgency) => {
                let ranked = tasks.iter().zip(0..).map(|(task, at)| (urgency(task), staged(at)));
                let mut ranked: Vec<(u64, bool)> = ranked.collect();
                ranked.sort_unstable();
                let tie = |pair: &[(u64, bool)]| pair[0].0 == pair[1].0 && (pair[0].1 || pair[1].1);
                !ranked.windows(2).any(tie)
            }
        }
    }
}

/// Decides whether `set` meets every deadline, without bounding responses beyond that.
///
/// Does not block or touch the device. Costs as [`analyse`], without the responses under EDF.
///
/// # Errors
/// Permanent: the inequality that failed, with its numbers, or [`Refusal::Undecided`].
pub fn decide(set: &TaskSet, setting: &Setting) -> Result<(), Refusal> {
    verdict(&Workload::new(set, setting), setting)
}

fn verdict(workload: &Workload, setting: &Setting) -> Result<(), Refusal> {
    workload.check_necessary()?;
    if quick::accepts(workload, setting.policy) {
        return Ok(());
    }
    let mut budget = Budget::new(setting.terms);
    match Order::of(setting.policy) {
        Order::Release => bounds(workload, fifo::outcomes(workload, &mut budget)).map(drop),
        Order::Fixed(urgency) => {
            fixed_bounds(workload, urgency, |_, _| None, &mut budget).map(drop)
        }
        Order::Deadline => {
            np_edf::check(workload, &Demand::new(workload), Nanos::ZERO, &mut budget)
        }
    }
}

/// Decides whether `set` meets every deadline under `policy`, and bounds every response.
///
/// Does not block or touch the device. Costs `O(n)` terms for each window, job and step looked at,
/// pseudo-polynomial in the parameters but cut off at a fixed budget, a fraction of a second.
/// Equal periods under [`PolicyKind::Rms`], equal priorities under [`PolicyKind::Priority`], equal
/// deadlines under [`PolicyKind::Edf`] and equal releases under [`PolicyKind::Fifo`] are taken to
/// fall against each task. An empty set is accepted.
///
/// # Errors
/// Permanent: the inequality that failed, with its numbers, or [`Refusal::Undecided`].
///
/// # Examples
/// ```
/// use aegis_sched::analysis::analyse;
/// use aegis_sched::policy::PolicyKind;
/// use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
/// use aegis_trace::{ModelId, Nanos};
///
/// let task = |index, period, stages: &[u64]| {
///     Task::new(TaskSpec {
///         model: ModelId::first(index),
///         period: Nanos::from_millis(period),
///         deadline: Nanos::from_millis(period),
///         jitter: Nanos::ZERO,
///         priority: 0,
///         stages: stages.iter().copied().map(Nanos::from_millis).collect(),
///     })
/// };
/// let camera = task(0, 8, &[2])?;
/// let whole = TaskSet::new(vec![camera.clone(), task(1, 40, &[12])?])?;
/// let staged = TaskSet::new(vec![camera, task(1, 40, &[4, 4, 4])?])?;
///
/// let none = Overheads::default();
/// let refusal = analyse(&whole, PolicyKind::Rms, &none).expect_err("blocked for 12 ms");
/// assert_eq!(
///     refusal.to_string(),
///     "m0: response 14 ms > deadline 8 ms, of which 12 ms is blocking by a stage of m1"
/// );
/// let analysis = analyse(&staged, PolicyKind::Rms, &none).expect("blocked for 4 ms");
/// assert_eq!(analysis.bounds[0].response, Nanos::from_millis(6));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn analyse(
    set: &TaskSet,
    policy: PolicyKind,
    overheads: &Overheads,
) -> Result<Analysis, Refusal> {
    let setting = Setting::admission(policy, *overheads);
    let workload = Workload::new(set, &setting);
    workload.check_necessary()?;
    let mut budget = Budget::new(setting.terms);
    let order = Order::of(policy);
    let bounds = match order {
        Order::Release => bounds(&workload, fifo::outcomes(&workload, &mut budget))?,
        Order::Fixed(urgency) => fixed_bounds(&workload, urgency, |_, _| None, &mut budget)?,
        Order::Deadline => {
            let demand = Demand::new(&workload);
            np_edf::check(&workload, &demand, Nanos::ZERO, &mut budget)?;
            edf_bounds(&workload, &demand, &[], setting.terms)?
        }
    };
    Ok(Analysis { bounds, test: order.test(), utilisation_ppm: workload.ppm() })
}

/// What look-ahead adds to the blocking of every task of `set`: the longest stage of the set or of the
/// background, overheads included. `None` without look-ahead; zero where it costs nothing, under FIFO
/// and for a task alone. Costs `O(n)`.
#[must_use]
pub fn look_ahead_charge(set: &TaskSet, setting: &Setting) -> Option<Nanos> {
    setting.overheads.look_ahead.then(|| Workload::new(set, setting).committed)
}

/// Finds out all there is to know about `set`: the verdict, and the worst response of every task
/// also where the set is refused, as long as its backlog is bounded.
///
/// Does not block or touch the device. Costs as [`analyse`], but goes to the end of every busy
/// window, also past the first job that is late.
#[must_use]
pub fn examine(set: &TaskSet, setting: &Setting) -> Findings {
    let workload = Workload::new(set, setting);
    let mut budget = Budget::new(setting.terms);
    let outcomes = worst_cases(&workload, setting.policy, &mut budget);
    found(set, setting, &workload, &outcomes)
}

/// What is told of a set once its worst cases are known.
fn found(set: &TaskSet, setting: &Setting, workload: &Workload, outcomes: &[Outcome]) -> Findings {
    let responses = outcomes.iter().map(Outcome::response).collect();
    let order = Order::of(setting.policy);
    // What look-ahead adds is an upper bound on what it can cost.
    let exact = workload.committed == Nanos::ZERO && order.is_exact(&workload.tasks, set);
    let verdict = verdict_of(workload, setting, outcomes);
    Findings { verdict, test: order.test(), exact, responses }
}

/// The verdict, once the worst cases are known: nobody is late if none of them is, and a task that
/// is late refuses the set. Where no search found one, and one found no answer, or under EDF, whose
/// verdict is a test of its own, it is decided anew.
fn verdict_of(workload: &Workload, setting: &Setting, outcomes: &[Outcome]) -> Result<(), Refusal> {
    let late = |(task, outcome): &(&Charged, &Outcome)| !outcome.meets(task.deadline);
    let mut late = workload.tasks.iter().zip(outcomes).filter(late).peekable();
    if late.peek().is_none() {
        return Ok(());
    }
    workload.check_necessary()?;
    let decided = late.filter(|(_, outcome)| !matches!(outcome, Outcome::Undecided(_)));
    let most_urgent = match Order::of(setting.policy) {
        Order::Release => decided.min_by_key(|(task, _)| task.deadline),
        Order::Fixed(urgency) => decided.min_by_key(|(task, _)| urgency(task)),
        Order::Deadline => None,
    };
    match most_urgent {
        Some((task, outcome)) => bound(workload, task, *outcome).map(drop),
        None => verdict(workload, setting),
    }
}

/// The worst case of every task, late or not, in the set's order.
fn worst_cases(workload: &Workload, policy: PolicyKind, budget: &mut Budget) -> Vec<Outcome> {
    match Order::of(policy) {
        Order::Release => fifo::outcomes(workload, budget),
        Order::Fixed(urgency) => Levels::new(workload, urgency).outcomes(budget),
        Order::Deadline if workload.load().is_gt() => {
            vec![Outcome::Unbounded; workload.tasks.len()]
        }
        Order::Deadline => {
            let workload = workload.with_deadlines_past_jitter();
            np_edf_response::outcomes(&workload, &Demand::new(&workload), budget)
        }
    }
}

/// The worst response of one task, if a stage of length `foreign` of somebody less urgent could
/// block it, overhead included. Costs as much as one task's part of [`examine`].
fn response_of(set: &TaskSet, index: usize, foreign: Nanos, setting: &Setting) -> Response {
    let workload = Workload::new(set, setting).beside_foreign(foreign, setting);
    let mut budget = Budget::new(setting.terms);
    let outcome = match Order::of(setting.policy) {
        Order::Release => fifo::outcomes(&workload, &mut budget)[index],
        Order::Fixed(urgency) => Levels::new(&workload, urgency).outcome_of(index, &mut budget),
        Order::Deadline if workload.load().is_gt() => Outcome::Unbounded,
        Order::Deadline => {
            let workload = workload.with_deadlines_past_jitter();
            np_edf_response::outcome_of(&workload, &Demand::new(&workload), index, &mut budget)
        }
    };
    outcome.response()
}

/// The bounds under fixed priorities, in the set's order. `known` gives the bound of a task, by its
/// index and its blocker, where it need not be computed.
///
/// # Errors
/// The first task, from the most urgent down, that is late; or the first that has no answer, if none
/// is known to be late.
fn fixed_bounds(
    workload: &Workload,
    urgency: impl Fn(&Charged) -> u64,
    known: impl Fn(usize, Blocker) -> Option<Bound>,
    budget: &mut Budget,
) -> Result<Vec<Bound>, Refusal> {
    let levels = Levels::new(workload, urgency);
    let mut sweep = Sweep::new(workload.tasks.len());
    let mut bounds: Vec<Option<Bound>> = vec![None; workload.tasks.len()];
    let mut undecided = None;
    for (place, index, blocker) in levels.places() {
        let found = known(index, blocker).map_or_else(
            || {
                let late = Until::Late;
                let outcome =
                    budget.lend_half(|half| levels.next_outcome(place, late, &mut sweep, half));
                bound(workload, &workload.tasks[index], outcome)
            },
            Ok,
        );
        match found {
            Ok(found) => bounds[index] = Some(found),
            Err(no_answer @ Refusal::Undecided { .. }) => {
                undecided.get_or_insert(no_answer);
            }
            Err(refusal) => return Err(refusal),
        }
    }
    match undecided {
        None => Ok(bounds.into_iter().flatten().collect()),
        Some(no_answer) => Err(no_answer),
    }
}

/// The bounds of all tasks, in the set's order.
///
/// # Errors
/// The first task in the set's order that is late or has no answer.
fn bounds(workload: &Workload, outcomes: Vec<Outcome>) -> Result<Vec<Bound>, Refusal> {
    let tasks = workload.tasks.iter().zip(outcomes);
    tasks.map(|(task, outcome)| bound(workload, task, outcome)).collect()
}

fn bound(workload: &Workload, task: &Charged, outcome: Outcome) -> Result<Bound, Refusal> {
    match outcome {
        Outcome::Worst(worst) => within_deadline(task, worst.response, worst.blocker),
        Outcome::Unbounded => Err(workload.overutilised()),
        Outcome::Undecided(limit) => Err(Refusal::Undecided { limit }),
    }
}

/// The bounds of a set that [`np_edf::check`] accepted: where a response is not found within the
/// budget, the deadline is one, which the verdict has proved. `known` gives responses that the first
/// tasks are known to have at least.
fn edf_bounds(
    workload: &Workload,
    demand: &Demand,
    known: &[Nanos],
    terms: u64,
) -> Result<Vec<Bound>, Refusal> {
    let responses = np_edf_response::bounds(workload, demand, known, &mut Budget::new(terms));
    let tasks = workload.tasks.iter().zip(responses);
    tasks
        .map(|(task, response)| {
            let response = response.unwrap_or(task.deadline);
            within_deadline(task, response, demand.blocker(task.first_deadline()))
        })
        .collect()
}

/// The bound of one task, or a refusal when it is late.
fn within_deadline(task: &Charged, response: Nanos, blocker: Blocker) -> Result<Bound, Refusal> {
    let Charged { model, cost, deadline, .. } = *task;
    let Blocker { length: blocking, model: blocked_by } = blocker;
    match deadline.checked_sub(response) {
        Some(slack) => Ok(Bound { model, cost, response, blocking, blocked_by, slack }),
        None => Err(Refusal::ResponseExceedsDeadline {
            model,
            response,
            deadline,
            blocking,
            blocked_by,
        }),
    }
}

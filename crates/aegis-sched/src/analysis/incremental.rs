//! A set that was accepted, and the sets one model away from it.
//!
//! [`AnalysedSet`] keeps what was proved. When a model joins or leaves, what still holds is taken
//! over, and the answer is the one that a fresh [`analyse`] gives:
//!
//! - **Fixed priorities.** The bound of a task depends on the tasks at least as urgent and on its
//!   blocker alone. If the model that came or went is less urgent and the blocker is the same, the
//!   bound is the same.
//! - **EDF, a model joins.** Windows shorter than its `D - J` hold none of its jobs. If none of its
//!   stages is longer than what blocked them before, they ask for what they asked for, and the search
//!   ends where it reaches them. A response never falls when work is added, so a task's known bound
//!   rules out every deadline that promises no more.
//! - **EDF, a model leaves.** Neither demand nor blocking of any window grows, so the verdict holds.
//! - **EDF, bounds.** The verdict needs none. They are searched when somebody first asks for them.
//! - **Look-ahead.** It adds the longest stage of the set to every window; if the change moves that,
//!   nothing is taken over but, for a model that joins, that no response falls.
//! - **FIFO.** A bound costs one sum; nothing is kept.
//!
//! # Invariants
//! 1. An [`AnalysedSet`] is never changed: joining gives another one or a refusal, so a refused model
//!    leaves nothing behind.
//! 2. Equal to a fresh analysis, except that a search which now needs less may find an answer within
//!    its budget where a fresh one would end without.

use std::cell::OnceCell;

use aegis_trace::{ModelId, Nanos, Refusal};

use super::demand::Demand;
use super::fixed_point::Budget;
use super::workload::{Blocker, Charged, Workload};
use super::{Analysis, Bound, Order, Setting, Test, analyse, edf_bounds, fixed_bounds, np_edf};
use crate::policy::PolicyKind;
use crate::task::{Background, Overheads, Task, TaskError, TaskSet};

/// A task set with the proof that it meets every deadline.
#[derive(Clone, Debug)]
pub struct AnalysedSet {
    tasks: TaskSet,
    policy: PolicyKind,
    overheads: Overheads,
    /// Responses that the first tasks are known to have at least, under EDF.
    known: Vec<Nanos>,
    /// Empty only under EDF, as long as nobody asked.
    analysis: OnceCell<Analysis>,
}

impl PartialEq for AnalysedSet {
    fn eq(&self, other: &Self) -> bool {
        let terms = |set: &Self| (set.policy, set.overheads);
        terms(self) == terms(other)
            && self.tasks == other.tasks
            && self.analysis() == other.analysis()
    }
}

impl Eq for AnalysedSet {}

/// Why a model could not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The task and the set do not go together.
    #[error("the task cannot join the set")]
    Invalid(#[from] TaskError),
    /// An inequality failed.
    #[error("{0}")]
    Refused(Refusal),
}

impl AnalysedSet {
    /// Analyses `tasks` from scratch.
    ///
    /// # Errors
    /// Permanent, as [`analyse`].
    pub fn new(tasks: TaskSet, policy: PolicyKind, overheads: Overheads) -> Result<Self, Refusal> {
        let analysis = analyse(&tasks, policy, &overheads)?;
        let (known, analysis) = (Vec::new(), OnceCell::from(analysis));
        Ok(Self { tasks, policy, overheads, known, analysis })
    }

    /// This set with `task` behind the others.
    ///
    /// Does not block or touch the device. Costs the analysis of those tasks whose bounds can have
    /// changed; under EDF, of those windows that can.
    ///
    /// # Errors
    /// Permanent: the task is in the set already or one too many, or an inequality failed. Nothing
    /// has changed.
    pub fn with(&self, task: Task) -> Result<Self, JoinError> {
        let model = task.model();
        let tasks = self.tasks.with(task)?;
        self.after(tasks, Change::Joined(model)).map_err(JoinError::Refused)
    }

    /// This set without `model`; the same set when it is not in it. Where the analysis ends without
    /// an answer, which only a search near its budget does, the old bounds stay: they are no smaller.
    #[must_use]
    pub fn without(&self, model: ModelId) -> Self {
        let tasks = self.tasks.without(model);
        self.after(tasks.clone(), Change::Left(model)).unwrap_or_else(|_| {
            let stays = |bound: &&Bound| bound.model != model;
            let bounds = self.analysis().bounds.iter().filter(stays).copied().collect();
            let analysis = Analysis { bounds, ..self.analysis().clone() };
            self.successor(tasks, Vec::new(), OnceCell::from(analysis))
        })
    }

    /// This set beside other work without a deadline; see [`TaskSet::with_background`].
    ///
    /// # Errors
    /// Permanent: an inequality failed. A shorter piece than before does that only where the search
    /// ends without an answer, and then the old bounds still hold.
    pub fn with_background(&self, background: impl Into<Background>) -> Result<Self, Refusal> {
        let tasks = self.tasks.clone().with_background(background);
        Self::new(tasks, self.policy, self.overheads)
    }

    /// The tasks, in the order in which they joined.
    #[must_use]
    pub fn tasks(&self) -> &TaskSet {
        &self.tasks
    }

    /// What was proved about them. Under EDF the first call searches the bounds, at the cost of
    /// [`analyse`] or less.
    #[must_use]
    pub fn analysis(&self) -> &Analysis {
        self.analysis.get_or_init(|| {
            let setting = Setting::admission(self.policy, self.overheads);
            let workload = Workload::new(&self.tasks, &setting);
            let demand = Demand::new(&workload);
            let bounds = edf_bounds(&workload, &demand, &self.known, setting.terms)
                .expect("no response exceeds its deadline in a set that the EDF test accepted");
            Analysis { bounds, test: Test::NpEdf, utilisation_ppm: workload.ppm() }
        })
    }

    /// Another set on the same terms.
    fn successor(&self, tasks: TaskSet, known: Vec<Nanos>, analysis: OnceCell<Analysis>) -> Self {
        Self { tasks, policy: self.policy, overheads: self.overheads, known, analysis }
    }

    fn after(&self, tasks: TaskSet, change: Change) -> Result<Self, Refusal> {
        let setting = Setting::admission(self.policy, self.overheads);
        let workload = Workload::new(&tasks, &setting);
        workload.check_necessary()?;
        let utilisation_ppm = workload.ppm();
        let (bounds, test) = match Order::of(self.policy) {
            Order::Release => return Self::new(tasks, self.policy, self.overheads),
            Order::Fixed(urgency) => {
                (self.by_urgency(&workload, urgency, change, &setting)?, Test::NpFixedPriority)
            }
            Order::Deadline => {
                let known = self.by_deadline(&workload, change, &setting)?;
                return Ok(self.successor(tasks, known, OnceCell::new()));
            }
        };
        let analysis = Analysis { bounds, test, utilisation_ppm };
        Ok(self.successor(tasks, Vec::new(), OnceCell::from(analysis)))
    }

    fn by_urgency(
        &self,
        workload: &Workload,
        urgency: fn(&Charged) -> u64,
        change: Change,
        setting: &Setting,
    ) -> Result<Vec<Bound>, Refusal> {
        let changed = match change {
            Change::Joined(model) => urgency(charged(&workload.tasks, model)),
            Change::Left(model) => {
                let gone = self.tasks.get(model);
                gone.map_or(u64::MAX, |task| urgency(&Charged::new(task, &self.overheads)))
            }
        };
        let unmoved = self.committed(setting) == workload.committed;
        let known = |index: usize, blocker: Blocker| {
            let bound = self.known(index, change)?;
            let same = bound.blocking == blocker.length && bound.blocked_by == blocker.model;
            (unmoved && same && urgency(&workload.tasks[index]) < changed).then_some(*bound)
        };
        fixed_bounds(workload, urgency, known, &mut Budget::new(setting.terms))
    }

    /// Decides about the changed set; responses that its first tasks are known to have at least.
    fn by_deadline(
        &self,
        workload: &Workload,
        change: Change,
        setting: &Setting,
    ) -> Result<Vec<Nanos>, Refusal> {
        let Change::Joined(model) = change else { return Ok(Vec::new()) };
        let demand = Demand::new(workload);
        let unchanged = match self.committed(setting) == workload.committed {
            true => unchanged_below(&demand, charged(&workload.tasks, model)),
            false => Nanos::ZERO,
        };
        np_edf::check(workload, &demand, unchanged, &mut Budget::new(setting.terms))?;
        Ok(match self.analysis.get() {
            Some(analysis) => analysis.bounds.iter().map(at_least).collect(),
            None => self.known.clone(),
        })
    }

    /// What look-ahead added to every window of this set.
    fn committed(&self, setting: &Setting) -> Nanos {
        Workload::new(&self.tasks, setting).committed
    }

    /// The bound that the task at `index` of the changed set had before.
    fn known(&self, index: usize, change: Change) -> Option<&Bound> {
        match change {
            Change::Joined(_) => self.analysis().bounds.get(index),
            Change::Left(model) => {
                let gone = self.analysis().bounds.iter().position(|bound| bound.model == model)?;
                self.analysis().bounds.get(if index < gone { index } else { index + 1 })
            }
        }
    }
}

/// What a bound says about the response from below. One that is the deadline may be no more than
/// that: a search that found no better one.
fn at_least(bound: &Bound) -> Nanos {
    if bound.slack == Nanos::ZERO { Nanos::ZERO } else { bound.response }
}

/// What happened to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Joined(ModelId),
    Left(ModelId),
}

fn charged(tasks: &[Charged], model: ModelId) -> &Charged {
    tasks.iter().find(|task| task.model == model).expect("a task that joined is in the set")
}

/// The windows below this one ask for what they asked for before `newcomer` joined.
fn unchanged_below(demand: &Demand, newcomer: &Charged) -> Nanos {
    let first = newcomer.first_deadline();
    let blocked = demand.blocker(first).length.max(newcomer.longest_stage);
    // Behind its own first deadline it blocks nothing; what others there block at least as long.
    if blocked == demand.blocker(first).length { first } else { Nanos::ZERO }
}

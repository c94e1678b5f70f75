//! Tasks: what a model asks of the device, valid by construction.
//!
//! A [`TaskSpec`] is what a user wrote, a [`Task`] is one that makes sense, and a [`TaskSet`] is
//! what the analyses are asked about. Read [`TaskSpec`] first for what each number means.
//!
//! # Invariants
//! 1. Every [`Task`] has a period, a deadline and at least one stage, none of them zero.
//! 2. No time in a [`Task`] exceeds [`Task::LONGEST`], so the sum of any two does not overflow, and
//!    no [`TaskSet`] exceeds [`TaskSet::MOST_TASKS`].
//! 3. A [`TaskSet`] holds each model at most once, in the order in which it was given.
//! 4. A server's longest stage is at most its budget, and both contain their overheads.
//! 5. A task that is never suspended is one stage to its rivals: longest and last stage are its cost.

pub use aegis_trace::Overheads;
use aegis_trace::{Category, ModelId, Nanos};

use crate::analysis::utilisation::Utilisation;

/// What a model asks for, as it was written down and before it was checked.
///
/// All times are whole nanoseconds. The task is sporadic: at least `period` passes between two
/// nominal releases, and nothing else is known about when they come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// Whose task it is.
    pub model: ModelId,
    /// The least time between two nominal releases, `T`.
    pub period: Nanos,
    /// The time from a job's nominal release by which it must be complete, `D`; may be shorter or
    /// longer than the period.
    pub deadline: Nanos,
    /// How long after its nominal release a job may become ready, `J`.
    pub jitter: Nanos,
    /// The explicit priority; smaller is more urgent. Only the priority policy reads it.
    pub priority: u32,
    /// Worst-case cost of each stage, in the order in which they run. A stage is not preempted.
    pub stages: Vec<Nanos>,
}

/// A polling server: best-effort jobs that share a budget in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// Whose server it is.
    pub model: ModelId,
    /// The least time between two refills, `T_s`; also the relative deadline of each.
    pub period: Nanos,
    /// The explicit priority; smaller is more urgent.
    pub priority: u32,
    /// Device time for each refill, `C_s`, with the overhead of every stage included.
    pub budget: Nanos,
    /// The longest stage of any of its jobs, overhead included.
    pub chunk: Nanos,
}

/// A [`TaskSpec`] or a [`ServerSpec`] that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    spec: TaskSpec,
    cost: Nanos,
    longest_stage: Nanos,
    last_stage: Nanos,
    kind: Kind,
}

/// Where others may run before a job of the task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Between its stages.
    Staged,
    /// Nowhere: its stages follow each other.
    Whole,
    /// Between the stages of a server's jobs, wherever those end.
    Server,
}

impl Task {
    /// The longest period, deadline, jitter or cost that is accepted: 2^62 ns, about 146 years.
    pub const LONGEST: Nanos = Nanos(1 << 62);
    /// The most stages that are accepted.
    pub const MOST_STAGES: usize = 1 << 12;

    /// Checks `spec`; costs one pass over its stages.
    ///
    /// # Errors
    /// Permanent: the first thing about `spec` that makes no sense or passes a limit.
    pub fn new(spec: TaskSpec) -> Result<Self, TaskError> {
        check_times(&spec)?;
        let model = spec.model;
        let last_stage = *spec.stages.last().ok_or(TaskError::NoStages { model })?;
        if spec.stages.len() > Self::MOST_STAGES {
            let stages = spec.stages.len();
            return Err(TaskError::TooManyStages { model, stages, limit: Self::MOST_STAGES });
        }
        if let Some(stage) = spec.stages.iter().position(|cost| *cost == Nanos::ZERO) {
            return Err(TaskError::ZeroStage { model, stage });
        }
        let cost = spec.stages.iter().fold(Nanos::ZERO, |sum, stage| sum.saturating_add(*stage));
        if cost > Self::LONGEST {
            return Err(TaskError::CostTooLong { model, cost, limit: Self::LONGEST });
        }
        let longest_stage = spec.stages.iter().copied().max().unwrap_or(last_stage);
        Ok(Self { spec, cost, longest_stage, last_stage, kind: Kind::Staged })
    }

    /// A polling server with sporadic start as a task: released when a refill begins, with a
    /// deadline one period later.
    ///
    /// Where its stages end is not known beforehand. What is known is that none holds the device for
    /// longer than the chunk, and that they add up to no more than the budget. The last one counts
    /// as 1 ns: the shorter it is, the longer others can delay the end, so this is safe. Overheads
    /// are in both figures, and must not be charged again ([`Task::is_server`]).
    ///
    /// # Errors
    /// Permanent: as [`Task::new`], and a chunk longer than the budget, which would never run.
    pub fn server(server: ServerSpec) -> Result<Self, TaskError> {
        let ServerSpec { model, period, priority, budget, chunk } = server;
        if chunk > budget {
            return Err(TaskError::ChunkExceedsBudget { model, chunk, budget });
        }
        let (deadline, jitter, stages) = (period, Nanos::ZERO, vec![budget]);
        let whole = Self::new(TaskSpec { model, period, deadline, jitter, priority, stages })?;
        if chunk == Nanos::ZERO {
            return Err(TaskError::ZeroStage { model, stage: 0 });
        }
        let last_stage = Nanos::EPSILON;
        Ok(Self { longest_stage: chunk, last_stage, kind: Kind::Server, ..whole })
    }

    /// The same task with the promise that no other job runs between two of its stages.
    ///
    /// To the analysis it is one non-preemptive stage of its whole length (George, Rivierre, Spuri,
    /// INRIA RR-2966, 1996, have its theory): nothing delays it once it has begun, and it blocks
    /// for its whole cost. Its stages keep an overhead each, since the dispatcher still decides at
    /// every boundary; it only decides to go on. A server is left as it is, because its chunk
    /// says already what is not preempted.
    #[must_use]
    pub fn never_suspended(self) -> Self {
        match self.kind {
            Kind::Server => self,
            Kind::Staged | Kind::Whole => {
                let (longest_stage, last_stage) = (self.cost, self.cost);
                Self { longest_stage, last_stage, kind: Kind::Whole, ..self }
            }
        }
    }

    /// Whether others may run between its stages, if it has several.
    #[must_use]
    pub fn may_be_suspended(&self) -> bool {
        match self.kind {
            Kind::Staged | Kind::Server => true,
            Kind::Whole => false,
        }
    }

    /// Whether it stands for a server: then overheads are in its figures already.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.kind == Kind::Server
    }

    /// The same task with other numbers; a server stays one, and its chunk grows with its budget;
    /// a task that is never suspended stays so.
    pub(crate) fn respecified(&self, spec: TaskSpec) -> Result<Self, TaskError> {
        let task = Self::new(spec)?;
        match self.kind {
            Kind::Staged => Ok(task),
            Kind::Whole => Ok(task.never_suspended()),
            Kind::Server => Ok(self.grown_to(task)),
        }
    }

    /// This server with the numbers of `task`.
    fn grown_to(&self, task: Self) -> Self {
        let grown = u128::from(self.longest_stage.0) * u128::from(task.cost.0);
        let grown = u64::try_from(grown.div_ceil(u128::from(self.cost.0))).unwrap_or(u64::MAX);
        let longest_stage = Nanos(grown).min(task.cost);
        Self { longest_stage, last_stage: Nanos::EPSILON, kind: Kind::Server, ..task }
    }

    /// What was checked.
    #[must_use]
    pub fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    /// Whose task it is.
    #[must_use]
    pub fn model(&self) -> ModelId {
        self.spec.model
    }

    /// The least time between two nominal releases; not zero.
    #[must_use]
    pub fn period(&self) -> Nanos {
        self.spec.period
    }

    /// The deadline relative to the nominal release; not zero.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        self.spec.deadline
    }

    /// The longest delay from nominal release to being ready.
    #[must_use]
    pub fn jitter(&self) -> Nanos {
        self.spec.jitter
    }

    /// The explicit priority; smaller is more urgent.
    #[must_use]
    pub fn priority(&self) -> u32 {
        self.spec.priority
    }

    /// The worst-case cost of each stage, in order; not empty, none zero. For a server the whole
    /// budget as one: it runs in pieces of at most [`Task::longest_stage`].
    #[must_use]
    pub fn stages(&self) -> &[Nanos] {
        &self.spec.stages
    }

    /// The sum of the stages, without any overhead.
    #[must_use]
    pub fn cost(&self) -> Nanos {
        self.cost
    }

    /// The longest stage: how long the task can hold the device against a more urgent job. The whole
    /// cost of one that is never suspended.
    #[must_use]
    pub fn longest_stage(&self) -> Nanos {
        self.longest_stage
    }

    /// The last stage: once it has started, nothing delays the job any more. The whole cost of one
    /// that is never suspended.
    #[must_use]
    pub fn last_stage(&self) -> Nanos {
        self.last_stage
    }
}

fn check_times(spec: &TaskSpec) -> Result<(), TaskError> {
    let TaskSpec { model, period, deadline, jitter, .. } = *spec;
    let limit = Task::LONGEST;
    if period == Nanos::ZERO {
        return Err(TaskError::ZeroPeriod { model });
    }
    if deadline == Nanos::ZERO {
        return Err(TaskError::ZeroDeadline { model });
    }
    if period > limit {
        return Err(TaskError::PeriodTooLong { model, period, limit });
    }
    if deadline > limit {
        return Err(TaskError::DeadlineTooLong { model, deadline, limit });
    }
    if jitter > limit {
        return Err(TaskError::JitterTooLong { model, jitter, limit });
    }
    Ok(())
}

/// Work without deadlines that runs while nothing else is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Background {
    /// The longest piece of it that cannot be preempted, dispatch overhead not included; zero for
    /// none.
    pub longest: Nanos,
    /// Whose piece that is, where it is known.
    pub of: Option<ModelId>,
}

impl From<Nanos> for Background {
    fn from(longest: Nanos) -> Self {
        Self { longest, of: None }
    }
}

/// Tasks that share one serial device, each model at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskSet {
    tasks: Vec<Task>,
    background: Background,
}

impl TaskSet {
    /// The most tasks of one set.
    pub const MOST_TASKS: usize = 1 << 16;

    /// Checks that `tasks` can live together, and keeps their order. Costs `O(n log n)`.
    ///
    /// # Errors
    /// Permanent: a model occurs twice, or there are more than [`TaskSet::MOST_TASKS`].
    pub fn new(tasks: Vec<Task>) -> Result<Self, TaskError> {
        if tasks.len() > Self::MOST_TASKS {
            return Err(TaskError::TooManyTasks { tasks: tasks.len(), limit: Self::MOST_TASKS });
        }
        let mut models: Vec<ModelId> = tasks.iter().map(Task::model).collect();
        models.sort_unstable();
        match models.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(TaskError::DuplicateModel { model: pair[0] }),
            None => Ok(Self { tasks, background: Background::default() }),
        }
    }

    /// This set beside jobs without deadlines that run while nothing else is ready.
    #[must_use]
    pub fn with_background(self, background: impl Into<Background>) -> Self {
        Self { background: background.into(), ..self }
    }

    /// The work in the background, of which every piece can block every task.
    #[must_use]
    pub fn background(&self) -> Background {
        self.background
    }

    /// The tasks, in the order in which they were given.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The task of `model`, if it is in the set.
    #[must_use]
    pub fn get(&self, model: ModelId) -> Option<&Task> {
        self.tasks.iter().find(|task| task.model() == model)
    }

    /// This set with `task` behind the others.
    ///
    /// # Errors
    /// As [`TaskSet::new`].
    pub fn with(&self, task: Task) -> Result<Self, TaskError> {
        let mut tasks = self.tasks.clone();
        tasks.push(task);
        Ok(Self::new(tasks)?.with_background(self.background))
    }

    /// This set without `model`; the same set when it is not in it.
    #[must_use]
    pub fn without(&self, model: ModelId) -> Self {
        let tasks = self.tasks.iter().filter(|task| task.model() != model).cloned().collect();
        Self { tasks, background: self.background }
    }

    /// This set with another task in one place; `None` where that breaks a rule.
    pub(crate) fn replaced(&self, index: usize, spec: TaskSpec) -> Option<Self> {
        let mut tasks = self.tasks.clone();
        tasks[index] = tasks[index].respecified(spec).ok()?;
        Some(Self::new(tasks).ok()?.with_background(self.background))
    }

    /// `sum C/T` in millionths without overheads, rounded down: for display alone.
    #[must_use]
    pub fn utilisation_ppm(&self) -> u64 {
        let shares = || self.tasks.iter().map(|task| (task.cost(), task.period()));
        Utilisation::of(shares()).ppm(shares)
    }

    /// How many tasks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is no task.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// A task or a set of tasks that makes no sense or passes a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A task with nothing to run.
    #[error("{model} has no stages")]
    NoStages {
        /// The model.
        model: ModelId,
    },
    /// More stages than are accepted.
    #[error("{model} has {stages} stages, more than {limit}")]
    TooManyStages {
        /// The model.
        model: ModelId,
        /// How many it has.
        stages: usize,
        /// [`Task::MOST_STAGES`].
        limit: usize,
    },
    /// A stage that costs nothing, which no measurement says.
    #[error("stage {stage} of {model} costs nothing")]
    ZeroStage {
        /// The model.
        model: ModelId,
        /// Which stage, counted from zero.
        stage: usize,
    },
    /// A period of zero: infinitely many jobs.
    #[error("the period of {model} is zero")]
    ZeroPeriod {
        /// The model.
        model: ModelId,
    },
    /// A deadline of zero, which nothing meets.
    #[error("the deadline of {model} is zero")]
    ZeroDeadline {
        /// The model.
        model: ModelId,
    },
    /// A period past [`Task::LONGEST`].
    #[error("the period of {model}, {period}, exceeds {limit}")]
    PeriodTooLong {
        /// The model.
        model: ModelId,
        /// Its period.
        period: Nanos,
        /// The limit.
        limit: Nanos,
    },
    /// A deadline past [`Task::LONGEST`].
    #[error("the deadline of {model}, {deadline}, exceeds {limit}")]
    DeadlineTooLong {
        /// The model.
        model: ModelId,
        /// Its relative deadline.
        deadline: Nanos,
        /// The limit.
        limit: Nanos,
    },
    /// A release jitter past [`Task::LONGEST`].
    #[error("the jitter of {model}, {jitter}, exceeds {limit}")]
    JitterTooLong {
        /// The model.
        model: ModelId,
        /// Its release jitter.
        jitter: Nanos,
        /// The limit.
        limit: Nanos,
    },
    /// Stages that add up to more than [`Task::LONGEST`].
    #[error("the cost of {model}, {cost}, exceeds {limit}")]
    CostTooLong {
        /// The model.
        model: ModelId,
        /// The sum of its stages, at most [`Nanos::MAX`].
        cost: Nanos,
        /// The limit.
        limit: Nanos,
    },
    /// A server whose budget its longest stage never fits.
    #[error("a stage of {model} takes {chunk}, and its server's budget is {budget}")]
    ChunkExceedsBudget {
        /// The model.
        model: ModelId,
        /// Its longest stage, overhead included.
        chunk: Nanos,
        /// The budget.
        budget: Nanos,
    },
    /// More tasks than one set holds.
    #[error("{tasks} tasks are more than {limit}")]
    TooManyTasks {
        /// How many were given.
        tasks: usize,
        /// [`TaskSet::MOST_TASKS`].
        limit: usize,
    },
    /// Two tasks of one model.
    #[error("{model} occurs twice")]
    DuplicateModel {
        /// The model.
        model: ModelId,
    },
}

impl TaskError {
    /// Always [`Category::Permanent`]: the numbers must change.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::NoStages { .. }
            | Self::TooManyStages { .. }
            | Self::ZeroStage { .. }
            | Self::ZeroPeriod { .. }
            | Self::ZeroDeadline { .. }
            | Self::PeriodTooLong { .. }
            | Self::DeadlineTooLong { .. }
            | Self::JitterTooLong { .. }
            | Self::CostTooLong { .. }
            | Self::ChunkExceedsBudget { .. }
            | Self::TooManyTasks { .. }
            | Self::DuplicateModel { .. } => Category::Permanent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(model: u16) -> TaskSpec {
        TaskSpec {
            model: ModelId::first(model),
            period: Nanos(10),
            deadline: Nanos(12),
            jitter: Nanos(1),
            priority: 0,
            stages: vec![Nanos(2), Nanos(4), Nanos(3)],
        }
    }

    fn refused(change: impl FnOnce(&mut TaskSpec)) -> String {
        let mut spec = spec(0);
        change(&mut spec);
        let error = Task::new(spec).expect_err("an invalid task");
        assert_eq!(error.category(), Category::Permanent);
        error.to_string()
    }

    #[test]
    fn a_task_knows_its_cost_and_its_stages() {
        let task = Task::new(spec(0)).expect("a valid task");
        let derived = (task.cost(), task.longest_stage(), task.last_stage());
        assert_eq!(derived, (Nanos(9), Nanos(4), Nanos(3)));
    }

    #[test]
    fn every_invalid_input_has_its_own_refusal() {
        let long = Nanos(Task::LONGEST.0 + 1);
        assert_eq!(refused(|s| s.stages.clear()), "m0 has no stages");
        assert_eq!(refused(|s| s.stages[1] = Nanos::ZERO), "stage 1 of m0 costs nothing");
        assert_eq!(refused(|s| s.period = Nanos::ZERO), "the period of m0 is zero");
        assert_eq!(refused(|s| s.deadline = Nanos::ZERO), "the deadline of m0 is zero");
        let many = vec![Nanos(1); Task::MOST_STAGES + 1];
        assert_eq!(refused(|s| s.stages = many), "m0 has 4097 stages, more than 4096");
        assert!(refused(|s| s.period = long).starts_with("the period of m0, 4611686018.428 s,"));
        assert!(
            refused(|s| s.deadline = long).starts_with("the deadline of m0, 4611686018.428 s,")
        );
        assert!(refused(|s| s.jitter = long).starts_with("the jitter of m0, 4611686018.428 s,"));
        assert!(refused(|s| s.stages.push(Nanos::MAX)).starts_with("the cost of m0, 18446744073."));
    }

    #[test]
    fn a_set_holds_each_model_once_and_keeps_its_order() {
        let task = |model| Task::new(spec(model)).expect("a valid task");
        let set = TaskSet::new(vec![task(3), task(1)]).expect("two models");
        assert_eq!(set.with(task(1)), Err(TaskError::DuplicateModel { model: ModelId::first(1) }));
        let set = set.with(task(2)).expect("a third model").without(ModelId::first(3));
        let models: Vec<u16> = set.tasks().iter().map(|task| task.model().index).collect();
        assert_eq!(models, [1, 2]);
        assert_eq!(set.get(ModelId::first(3)), None);
        assert_eq!((set.len(), set.is_empty()), (2, false));
    }

    #[test]
    fn a_set_is_bounded() {
        let one = Task::new(spec(0)).expect("a valid task");
        let tasks = vec![one; TaskSet::MOST_TASKS + 1];
        let error = TaskSet::new(tasks).expect_err("one too many");
        assert_eq!(error.to_string(), "65537 tasks are more than 65536");
    }

    #[test]
    fn a_server_is_a_task_whose_stages_are_only_bounded() {
        let server = ServerSpec {
            model: ModelId::first(0),
            period: Nanos(10),
            priority: 3,
            budget: Nanos(4),
            chunk: Nanos(2),
        };
        let task = Task::server(server).expect("a valid server");
        let derived = (task.cost(), task.longest_stage(), task.last_stage(), task.deadline());
        assert_eq!(derived, (Nanos(4), Nanos(2), Nanos(1), Nanos(10)));
        assert!(task.is_server());
        let refused = |server| Task::server(server).expect_err("an invalid server").to_string();
        let long = ServerSpec { chunk: Nanos(5), ..server };
        assert_eq!(refused(long), "a stage of m0 takes 5 ns, and its server's budget is 4 ns");
        let none = ServerSpec { budget: Nanos::ZERO, chunk: Nanos::ZERO, ..server };
        assert_eq!(refused(none), "stage 0 of m0 costs nothing");
        let still = ServerSpec { chunk: Nanos::ZERO, ..server };
        assert_eq!(refused(still), "stage 0 of m0 costs nothing");
    }

    #[test]
    fn the_background_stays_with_the_set() {
        let task = |model| Task::new(spec(model)).expect("a valid task");
        let set = TaskSet::new(vec![task(0)]).expect("one model").with_background(Nanos(7));
        let set = set.with(task(1)).expect("two models").without(ModelId::first(0));
        assert_eq!((set.background().longest, set.len()), (Nanos(7), 1));
        assert_eq!(set.with_background(Nanos::ZERO).background(), Background::default());
    }

    #[test]
    fn utilisation_is_shown_exactly_and_cut() {
        let third = |model| {
            let stages = vec![Nanos(1)];
            Task::new(TaskSpec { period: Nanos(3), stages, ..spec(model) }).expect("a valid task")
        };
        let set = TaskSet::new(vec![third(0), third(1)]).expect("two models");
        assert_eq!(set.utilisation_ppm(), 666_666);
        assert_eq!(set.with(third(2)).expect("a third").utilisation_ppm(), 1_000_000);
        assert_eq!(TaskSet::default().utilisation_ppm(), 0);
    }
}

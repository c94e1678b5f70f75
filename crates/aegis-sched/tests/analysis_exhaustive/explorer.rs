//! All states that a device on ticks can reach with a tiny task set.

use std::collections::HashSet;

use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Task, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos};

pub(crate) const POLICIES: [PolicyKind; 5] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority];

/// A small task, in ticks.
#[derive(Clone, Debug)]
pub(crate) struct Tiny {
    pub(crate) stages: Vec<u8>,
    pub(crate) period: u8,
    pub(crate) deadline: u8,
    pub(crate) jitter: u8,
    pub(crate) priority: u8,
}

impl Tiny {
    pub(crate) fn cost(&self) -> u8 {
        self.stages.iter().sum()
    }

    pub(crate) fn doubled(&self) -> Self {
        Self {
            stages: self.stages.iter().map(|stage| 2 * stage).collect(),
            period: 2 * self.period,
            deadline: 2 * self.deadline,
            jitter: 2 * self.jitter,
            priority: self.priority,
        }
    }

    fn task(&self, index: usize) -> Task {
        let nanos = |ticks: u8| Nanos(ticks.into());
        let spec = TaskSpec {
            model: ModelId::first(u16::try_from(index).expect("a handful of tasks")),
            period: nanos(self.period),
            deadline: nanos(self.deadline),
            jitter: nanos(self.jitter),
            priority: self.priority.into(),
            stages: self.stages.iter().copied().map(nanos).collect(),
        };
        Task::new(spec).expect("a valid task")
    }
}

/// The analyses' view of `tasks`, model 0 first.
pub(crate) fn set(tasks: &[Tiny]) -> TaskSet {
    let tasks = tasks.iter().enumerate().map(|(index, task)| task.task(index));
    TaskSet::new(tasks.collect()).expect("a valid set")
}

/// A job: how long ago it was nominally released, and how long ago it became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Job {
    age: u8,
    ready: Option<u8>,
}

/// What one task looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Queue {
    /// Time since the last nominal release, counted no further than the period.
    since: u8,
    /// In order of release; only the first may have finished stages.
    jobs: Vec<Job>,
    stages_done: u8,
}

/// Who holds the device, and for how many ticks more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Device {
    Idle,
    /// A stage of this task just ended and its job has more.
    BetweenStages(usize),
    Runs(usize, u8),
    /// The orchestrator was asleep and is not looking.
    Away(u8),
    /// A piece without a deadline runs.
    Piece(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    queues: Vec<Queue>,
    device: Device,
    /// With look-ahead: whose stage the device begins next by itself, and how long it takes.
    committed: Option<(usize, u8)>,
}

/// How long stages take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Costs {
    /// Always their worst case.
    Worst,
    /// Any number of ticks up to it.
    Any,
    /// Any number of ticks up to it, none too.
    Free,
}

/// Which release FIFO goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FifoBy {
    /// When a job became ready.
    Observed,
    /// When it should have.
    Nominal,
}

/// What the explored world does, beyond its policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How long the orchestrator may not look when there was nothing to do.
    pub(crate) wake: u8,
    /// The length of a piece without a deadline, which may start whenever no job is ready.
    pub(crate) background: u8,
    /// What is added to every stage and piece.
    pub(crate) dispatch: u8,
    pub(crate) costs: Costs,
    pub(crate) fifo_by: FifoBy,
    /// Whether a stage is committed behind the running one. Not beside stages that take nothing.
    pub(crate) look_ahead: bool,
}

impl Rules {
    /// No overheads, and every stage takes its worst case.
    pub(crate) const PLAIN: Self = Self {
        wake: 0,
        background: 0,
        dispatch: 0,
        costs: Costs::Worst,
        fifo_by: FifoBy::Observed,
        look_ahead: false,
    };

    /// For how long the device can be away when no job is ready.
    fn away(&self) -> impl Iterator<Item = Device> {
        let wake = (self.wake > 0).then_some(Device::Away(self.wake));
        let piece = Device::Piece(self.background + self.dispatch);
        wake.into_iter().chain((self.background > 0).then_some(piece))
    }
}

/// How far the exploration goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// To the first deadline that is missed.
    Miss,
    /// To the end, which there is when the tasks do not exceed the device.
    End,
}

/// All that can happen to one set.
pub(crate) struct Explorer<'a> {
    tasks: &'a [Tiny],
    policy: PolicyKind,
    rules: Rules,
    /// The longest response of each task seen so far.
    pub(crate) worst: Vec<u8>,
    pub(crate) missed: bool,
}

impl<'a> Explorer<'a> {
    /// Explores until all states were seen, or a deadline was missed if that is enough.
    pub(crate) fn explore(
        tasks: &'a [Tiny],
        policy: PolicyKind,
        rules: Rules,
        until: Until,
    ) -> Self {
        let idle = |task: &Tiny| Queue { since: task.period, jobs: Vec::new(), stages_done: 0 };
        assert!(!rules.look_ahead || rules.costs != Costs::Free, "see `Rules::look_ahead`");
        let queues = tasks.iter().map(idle).collect();
        let start = State { queues, device: Device::Idle, committed: None };
        let worst = vec![0; tasks.len()];
        let mut explorer = Self { tasks, policy, rules, worst, missed: false };
        let mut seen = HashSet::from([start.clone()]);
        let mut open = vec![start];
        while let Some(state) = open.pop() {
            for next in explorer.successors(state) {
                if explorer.missed && until == Until::Miss {
                    return explorer;
                }
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
            assert!(seen.len() < 3_000_000, "too many states for a tiny set: {tasks:?}");
        }
        explorer
    }

    /// One instant and the tick after it: arrivals, releases, dispatch, then time passes.
    fn successors(&mut self, state: State) -> Vec<State> {
        let mut states = vec![state];
        for task in 0..self.tasks.len() {
            states = states.into_iter().flat_map(|state| self.arrivals(state, task)).collect();
            states = states.into_iter().flat_map(|state| self.releases(state, task)).collect();
        }
        states = states.into_iter().flat_map(|state| self.dispatches(state)).collect();
        if self.rules.look_ahead {
            states = states.into_iter().flat_map(|state| self.commits(state)).collect();
        }
        states.into_iter().map(|state| self.tick(state)).collect()
    }

    fn arrivals(&self, state: State, task: usize) -> Vec<State> {
        if state.queues[task].since < self.tasks[task].period {
            return vec![state];
        }
        let mut arrived = state.clone();
        arrived.queues[task].since = 0;
        arrived.queues[task].jobs.push(Job { age: 0, ready: None });
        vec![state, arrived]
    }

    /// Jobs become ready in order, each after any delay up to the jitter.
    fn releases(&self, state: State, task: usize) -> Vec<State> {
        let mut states = Vec::new();
        let mut state = state;
        while let Some(next) = state.queues[task].jobs.iter().position(|job| job.ready.is_none()) {
            // Later jobs are younger, so only the first can be out of time.
            if state.queues[task].jobs[next].age < self.tasks[task].jitter {
                states.push(state.clone());
            }
            state.queues[task].jobs[next].ready = Some(0);
        }
        states.push(state);
        states
    }

    fn dispatches(&mut self, state: State) -> Vec<State> {
        let ready = self.ready(&state);
        let most_urgent = ready.iter().map(|task| self.key(&state, *task)).min();
        match (state.device, most_urgent) {
            (Device::Runs(..) | Device::Away(_) | Device::Piece(_), _) => vec![state],
            (Device::BetweenStages(task), Some(key))
                if self.policy == PolicyKind::Fifo || self.key(&state, task) <= key =>
            {
                self.starts(&state, task)
            }
            (_, Some(key)) => {
                let first: Vec<usize> =
                    ready.into_iter().filter(|task| self.key(&state, *task) == key).collect();
                first.into_iter().flat_map(|task| self.starts(&state, task)).collect()
            }
            (_, None) => {
                let away = self.rules.away();
                away.map(|device| State { device, ..state.clone() })
                    .chain([state.clone()])
                    .collect()
            }
        }
    }

    /// The tasks whose first job may run or runs.
    fn ready(&self, state: &State) -> Vec<usize> {
        let is_ready = |queue: &Queue| queue.jobs.first().is_some_and(|job| job.ready.is_some());
        (0..self.tasks.len()).filter(|task| is_ready(&state.queues[*task])).collect()
    }

    /// What can be put behind the stage that runs: whoever would be next if it ended now.
    fn commits(&self, state: State) -> Vec<State> {
        if state.committed.is_some() {
            return vec![state];
        }
        let running = match state.device {
            Device::Runs(task, _) => Some(task),
            Device::Piece(_) => None,
            Device::Idle | Device::BetweenStages(_) | Device::Away(_) => return vec![state],
        };
        let mut others = self.ready(&state);
        others.retain(|task| Some(*task) != running);
        let first = others.iter().map(|task| self.key(&state, *task)).min();
        let goes_on = running.filter(|task| {
            usize::from(state.queues[*task].stages_done) + 1 < self.tasks[*task].stages.len()
        });
        let keeps = |task: &usize| {
            self.policy == PolicyKind::Fifo
                || first.is_none_or(|first| self.key(&state, *task) <= first)
        };
        if let Some(task) = goes_on.filter(keeps) {
            return self.committing(&state, task, state.queues[task].stages_done + 1);
        }
        let Some(first) = first else { return vec![state] };
        // The next job of the same task waits for the end of the one before.
        let own =
            running.filter(|_| goes_on.is_none()).and_then(|task| self.key_of_next(&state, task));
        let mut states = Vec::new();
        if own.is_none_or(|own| first <= own) {
            for task in others.into_iter().filter(|task| self.key(&state, *task) == first) {
                states.extend(self.committing(&state, task, state.queues[task].stages_done));
            }
        }
        if own.is_some_and(|own| own <= first) {
            states.push(state);
        }
        states
    }

    fn committing(&self, state: &State, task: usize, stage: u8) -> Vec<State> {
        let most = self.tasks[task].stages[usize::from(stage)] + self.rules.dispatch;
        let least = if self.rules.costs == Costs::Worst { most } else { 1 };
        let committed = |cost| State { committed: Some((task, cost)), ..state.clone() };
        (least..=most).map(committed).collect()
    }

    /// The urgency of the job behind the first of `task`, if it is ready.
    fn key_of_next(&self, state: &State, task: usize) -> Option<i16> {
        let next = state.queues[task].jobs.get(1).filter(|job| job.ready.is_some())?;
        Some(self.key_of(task, *next))
    }

    /// The urgency of the first job of `task`.
    fn key(&self, state: &State, task: usize) -> i16 {
        self.key_of(task, state.queues[task].jobs[0])
    }

    /// Smaller is more urgent.
    fn key_of(&self, task: usize, job: Job) -> i16 {
        match self.policy {
            PolicyKind::Fifo if self.rules.fifo_by == FifoBy::Nominal => -i16::from(job.age),
            PolicyKind::Fifo => -i16::from(job.ready.unwrap_or(0)),
            PolicyKind::Edf => i16::from(self.tasks[task].deadline) - i16::from(job.age),
            PolicyKind::Rms => self.tasks[task].period.into(),
            PolicyKind::Dm => self.tasks[task].deadline.into(),
            PolicyKind::Priority => self.tasks[task].priority.into(),
        }
    }

    fn starts(&mut self, state: &State, task: usize) -> Vec<State> {
        let stage = self.tasks[task].stages[usize::from(state.queues[task].stages_done)];
        let most = stage + self.rules.dispatch;
        let least = match self.rules.costs {
            Costs::Worst => most,
            Costs::Any => 1,
            Costs::Free => 0,
        };
        let mut states = Vec::new();
        for cost in least..=most {
            let mut next = state.clone();
            if cost > 0 {
                next.device = Device::Runs(task, cost);
                states.push(next);
            } else {
                next.device = self.stage_ends(&mut next.queues[task], task);
                states.extend(self.dispatches(next));
            }
        }
        states
    }

    fn tick(&mut self, mut state: State) -> State {
        for (queue, task) in state.queues.iter_mut().zip(self.tasks) {
            queue.since = (queue.since + 1).min(task.period);
            for job in &mut queue.jobs {
                job.age += 1;
                // Only FIFO asks how long a job has been ready.
                let passed = u8::from(self.policy == PolicyKind::Fifo);
                job.ready = job.ready.map(|ready| ready + passed);
            }
        }
        state.device = match state.device {
            Device::Runs(task, 1) => self.stage_ends(&mut state.queues[task], task),
            Device::Runs(task, left) => Device::Runs(task, left - 1),
            Device::Away(left) if left > 1 => Device::Away(left - 1),
            Device::Piece(left) if left > 1 => Device::Piece(left - 1),
            _ => Device::Idle,
        };
        let is_free = matches!(state.device, Device::Idle | Device::BetweenStages(_));
        if let Some((task, cost)) = state.committed.take_if(|_| is_free) {
            state.device = Device::Runs(task, cost);
        }
        let late =
            |(queue, task): (&Queue, &Tiny)| queue.jobs.iter().any(|job| job.age > task.deadline);
        self.missed |= state.queues.iter().zip(self.tasks).any(late);
        state
    }

    fn stage_ends(&mut self, queue: &mut Queue, task: usize) -> Device {
        queue.stages_done += 1;
        if usize::from(queue.stages_done) < self.tasks[task].stages.len() {
            return Device::BetweenStages(task);
        }
        queue.stages_done = 0;
        let response = queue.jobs.remove(0).age;
        self.worst[task] = self.worst[task].max(response);
        self.missed |= response > self.tasks[task].deadline;
        Device::Idle
    }
}

/// A task of one stage without jitter.
pub(crate) fn plain(cost: u8, period: u8, deadline: u8, priority: u8) -> Tiny {
    Tiny { stages: vec![cost], period, deadline, jitter: 0, priority }
}

/// A small generator of numbers, the same on every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// A number in `low..=high`.
    pub(crate) fn draw(&mut self, low: u8, high: u8) -> u8 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let span = u64::from(high - low) + 1;
        low + u8::try_from((self.0 >> 33) % span).expect("below 256")
    }

    /// A set that does not obviously exceed the device.
    pub(crate) fn set(&mut self, tasks: usize, shape: impl Fn(&mut Self, u8) -> Tiny) -> Vec<Tiny> {
        self.set_where(tasks, shape, |load| load <= FULL)
    }

    /// A set that uses the device completely.
    pub(crate) fn full_set(
        &mut self,
        tasks: usize,
        shape: impl Fn(&mut Self, u8) -> Tiny,
    ) -> Vec<Tiny> {
        self.set_where(tasks, shape, |load| load == FULL)
    }

    fn set_where(
        &mut self,
        tasks: usize,
        shape: impl Fn(&mut Self, u8) -> Tiny,
        fits: impl Fn(u32) -> bool,
    ) -> Vec<Tiny> {
        loop {
            let priorities = 0..u8::try_from(tasks).expect("a handful");
            let set: Vec<Tiny> = priorities.map(|priority| shape(self, priority)).collect();
            let share = |task: &Tiny| FULL * u32::from(task.cost()) / u32::from(task.period);
            if fits(set.iter().map(share).sum()) {
                return set;
            }
        }
    }
}

/// The whole device: a multiple of every period up to 10.
const FULL: u32 = 2_520;

//! Every bound against everything that can happen: tiny task sets, all arrivals explored.
//!
//! The explorer below is the slow, obvious twin of the analyses. It walks all states that a device
//! on ticks can reach, over every choice of arrivals, release delays, ties and wake-ups, and knows
//! nothing of busy windows. Sets are scaled by 2 before they are explored, so that a job can arrive
//! one tick after a blocker started, half a unit of the original set: a bound that is off by a unit
//! of the original set is then off by 2, and the documented 1 between ticks and dense time cannot
//! hide it.

use std::collections::HashSet;

use aegis_sched::analysis::{Analysis, Bound, analyse};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos, Refusal};

const POLICIES: [PolicyKind; 5] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority];

/// A small task, in ticks.
#[derive(Clone, Debug)]
struct Tiny {
    stages: Vec<u8>,
    period: u8,
    deadline: u8,
    jitter: u8,
    priority: u8,
}

impl Tiny {
    fn cost(&self) -> u8 {
        self.stages.iter().sum()
    }

    fn doubled(&self) -> Self {
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
    Wakes(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    queues: Vec<Queue>,
    device: Device,
}

/// How long stages take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Costs {
    /// Always their worst case.
    Worst,
    /// Any number of ticks up to it.
    Any,
}

/// Which release FIFO goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FifoBy {
    /// When a job became ready.
    Observed,
    /// When it should have.
    Nominal,
}

/// What the explored world does, beyond its policy.
#[derive(Clone, Copy, Debug)]
struct Rules {
    wake: u8,
    costs: Costs,
    fifo_by: FifoBy,
}

impl Rules {
    fn worst(wake: u8) -> Self {
        Self { wake, costs: Costs::Worst, fifo_by: FifoBy::Observed }
    }
}

/// All that can happen to one set.
struct Explorer<'a> {
    tasks: &'a [Tiny],
    policy: PolicyKind,
    rules: Rules,
    /// The longest response of each task seen so far.
    worst: Vec<u8>,
    missed: bool,
}

impl<'a> Explorer<'a> {
    /// Explores until all states were seen or a deadline was missed.
    fn explore(tasks: &'a [Tiny], policy: PolicyKind, rules: Rules) -> Self {
        let idle = |task: &Tiny| Queue { since: task.period, jobs: Vec::new(), stages_done: 0 };
        let start = State { queues: tasks.iter().map(idle).collect(), device: Device::Idle };
        let worst = vec![0; tasks.len()];
        let mut explorer = Self { tasks, policy, rules, worst, missed: false };
        let mut seen = HashSet::from([start.clone()]);
        let mut open = vec![start];
        while let Some(state) = open.pop() {
            for next in explorer.successors(state) {
                if explorer.missed {
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

    fn dispatches(&self, state: State) -> Vec<State> {
        let ready: Vec<usize> = (0..self.tasks.len())
            .filter(|task| state.queues[*task].jobs.first().is_some_and(|job| job.ready.is_some()))
            .collect();
        let most_urgent = ready.iter().map(|task| self.key(&state, *task)).min();
        match (state.device, most_urgent) {
            (Device::Runs(..) | Device::Wakes(_), _) => vec![state],
            (Device::BetweenStages(task), Some(key))
                if self.policy == PolicyKind::Fifo || self.key(&state, task) <= key =>
            {
                self.starts(&state, task).collect()
            }
            (_, Some(key)) => ready
                .into_iter()
                .filter(|task| self.key(&state, *task) == key)
                .flat_map(|task| self.starts(&state, task))
                .collect(),
            (_, None) if self.rules.wake > 0 => {
                vec![State { device: Device::Wakes(self.rules.wake), ..state.clone() }, state]
            }
            (_, None) => vec![state],
        }
    }

    /// Smaller is more urgent.
    fn key(&self, state: &State, task: usize) -> i16 {
        let job = state.queues[task].jobs[0];
        match self.policy {
            PolicyKind::Fifo if self.rules.fifo_by == FifoBy::Nominal => -i16::from(job.age),
            PolicyKind::Fifo => -i16::from(job.ready.unwrap_or(0)),
            PolicyKind::Edf => i16::from(self.tasks[task].deadline) - i16::from(job.age),
            PolicyKind::Rms => self.tasks[task].period.into(),
            PolicyKind::Dm => self.tasks[task].deadline.into(),
            PolicyKind::Priority => self.tasks[task].priority.into(),
            _ => unreachable!("the five policies"),
        }
    }

    fn starts(&self, state: &State, task: usize) -> impl Iterator<Item = State> {
        let cost = self.tasks[task].stages[usize::from(state.queues[task].stages_done)];
        let least = if self.rules.costs == Costs::Any { 1 } else { cost };
        let queues = state.queues.clone();
        (least..=cost)
            .map(move |cost| State { device: Device::Runs(task, cost), queues: queues.clone() })
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
            Device::Wakes(left) if left > 1 => Device::Wakes(left - 1),
            _ => Device::Idle,
        };
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

fn answer(tasks: &[Tiny], policy: PolicyKind, wake: u8) -> Result<Analysis, Refusal> {
    let tasks = tasks.iter().enumerate().map(|(index, task)| task.task(index));
    let set = TaskSet::new(tasks.collect()).expect("a valid set");
    analyse(&set, policy, &Overheads { dispatch: Nanos::ZERO, wake: Nanos(wake.into()) })
}

/// What the answers and the truth had in common.
#[derive(Debug, Default)]
struct Tally {
    accepted: u32,
    refused: u32,
    refused_without_a_miss: u32,
}

/// How close a bound must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Never exceeded.
    Sound,
    /// Reached, but for the 1 between dense time and ticks; and what is refused misses.
    Exact,
}

impl Tally {
    /// Compares the analysis of one set, scaled by 2, with all that can happen to it.
    fn compare(&mut self, tasks: &[Tiny], policy: PolicyKind, wake: u8, claim: Claim) {
        let tasks: Vec<Tiny> = tasks.iter().map(Tiny::doubled).collect();
        let wake = 2 * wake;
        let truth = Explorer::explore(&tasks, policy, Rules::worst(wake));
        match answer(&tasks, policy, wake) {
            Err(Refusal::Undecided { .. }) => panic!("gave up on a tiny set: {tasks:?}"),
            Err(refusal) => {
                self.refused += 1;
                self.refused_without_a_miss += u32::from(!truth.missed);
                assert!(
                    claim == Claim::Sound || truth.missed,
                    "{policy:?} wake {wake}: {tasks:?} is fine, but: {refusal}"
                );
            }
            Ok(analysis) => {
                self.accepted += 1;
                assert!(!truth.missed, "{policy:?} wake {wake}: {tasks:?} misses: {analysis:?}");
                for (bound, worst) in analysis.bounds.iter().zip(&truth.worst) {
                    let gap = bound.response.0.checked_sub(u64::from(*worst));
                    let gap = gap.unwrap_or_else(|| {
                        panic!("{policy:?} wake {wake}: {tasks:?} took {worst}: {bound:?}")
                    });
                    // Under EDF the worst offset may be one that nothing blocks.
                    let blocked = u64::from(bound.blocking > Nanos::ZERO);
                    let least = if policy == PolicyKind::Edf { 0 } else { blocked };
                    assert!(
                        claim != Claim::Exact || (least..=blocked).contains(&gap),
                        "{policy:?} wake {wake}: {tasks:?} took only {worst}: {bound:?}"
                    );
                }
            }
        }
    }
}

fn plain(cost: u8, period: u8, deadline: u8, priority: u8) -> Tiny {
    Tiny { stages: vec![cost], period, deadline, jitter: 0, priority }
}

/// A small generator of numbers, the same on every run.
struct Numbers(u64);

impl Numbers {
    /// A number in `low..=high`.
    fn draw(&mut self, low: u8, high: u8) -> u8 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let span = u64::from(high - low) + 1;
        low + u8::try_from((self.0 >> 33) % span).expect("below 256")
    }

    /// A set that does not obviously exceed the device.
    fn set(&mut self, tasks: usize, shape: impl Fn(&mut Self, u8) -> Tiny) -> Vec<Tiny> {
        loop {
            let priorities = 0..u8::try_from(tasks).expect("a handful");
            let set: Vec<Tiny> = priorities.map(|priority| shape(self, priority)).collect();
            let load: u32 = set
                .iter()
                .map(|task| 2_520 * u32::from(task.cost()) / u32::from(task.period))
                .sum();
            if load <= 2_520 {
                return set;
            }
        }
    }
}

#[test]
fn every_pair_of_unstaged_tasks_gets_the_exact_answer() {
    let mut tally = Tally::default();
    let mut shapes = Vec::new();
    for period in 2..=5 {
        for cost in 1..=3.min(period) {
            for deadline in [cost + 1, period, period + 2] {
                shapes.push((cost, period, deadline));
            }
        }
    }
    for (c0, t0, d0) in &shapes {
        for (c1, t1, d1) in &shapes {
            let pair = [plain(*c0, *t0, *d0, 0), plain(*c1, *t1, *d1, 1)];
            for policy in POLICIES {
                tally.compare(&pair, policy, 0, Claim::Exact);
            }
        }
    }
    assert!(tally.accepted > 500 && tally.refused > 500, "both answers occur: {tally:?}");
}

#[test]
fn three_unstaged_tasks_get_the_exact_answer() {
    let mut numbers = Numbers(1);
    let mut tally = Tally::default();
    for _ in 0..60 {
        let set = numbers.set(3, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 3), numbers.draw(3, 9));
            plain(cost, period, numbers.draw(cost + 1, period + 5), priority)
        });
        for policy in POLICIES {
            tally.compare(&set, policy, 0, Claim::Exact);
        }
    }
    assert!(tally.accepted > 30 && tally.refused > 30, "both answers occur: {tally:?}");
}

#[test]
fn equal_priorities_get_the_exact_answer_when_ties_fall_either_way() {
    let mut numbers = Numbers(2);
    let mut tally = Tally::default();
    for _ in 0..60 {
        let set = numbers.set(3, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 2), numbers.draw(3, 6));
            plain(cost, period, numbers.draw(3, period), priority / 2)
        });
        tally.compare(&set, PolicyKind::Priority, 0, Claim::Exact);
    }
    assert!(tally.accepted > 10 && tally.refused > 10, "both answers occur: {tally:?}");
}

#[test]
fn jitter_is_bounded_exactly_within_and_beyond_the_period() {
    let mut numbers = Numbers(3);
    let mut tally = Tally::default();
    for _ in 0..40 {
        let set = numbers.set(2, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 2), numbers.draw(3, 6));
            let jitter = numbers.draw(0, 8);
            let deadline = numbers.draw(cost + jitter, cost + jitter + 8);
            Tiny { jitter, ..plain(cost, period, deadline, priority) }
        });
        for policy in POLICIES {
            tally.compare(&set, policy, 0, Claim::Exact);
        }
    }
    assert!(tally.accepted > 20 && tally.refused > 20, "both answers occur: {tally:?}");
}

#[test]
fn stages_are_bounded_exactly_and_under_edf_soundly() {
    let mut numbers = Numbers(4);
    let mut tally = Tally::default();
    for _ in 0..60 {
        let set = numbers.set(3, |numbers, priority| {
            let stages: Vec<u8> = (0..numbers.draw(1, 3)).map(|_| numbers.draw(1, 2)).collect();
            let period = numbers.draw(4, 10);
            let deadline = numbers.draw(stages.iter().sum(), period + 4);
            Tiny { stages, ..plain(1, period, deadline, priority) }
        });
        for policy in POLICIES {
            let claim = if policy == PolicyKind::Edf { Claim::Sound } else { Claim::Exact };
            tally.compare(&set, policy, 0, claim);
        }
    }
    assert!(tally.accepted > 20 && tally.refused > 20, "both answers occur: {tally:?}");
}

#[test]
fn stages_with_jitter_and_wake_up_are_bounded_soundly_under_every_policy() {
    let mut numbers = Numbers(5);
    let mut tally = Tally::default();
    for _ in 0..40 {
        let wake = numbers.draw(0, 3);
        let set = numbers.set(2, |numbers, priority| {
            let stages: Vec<u8> = (0..numbers.draw(1, 3)).map(|_| numbers.draw(1, 2)).collect();
            let (period, jitter) = (numbers.draw(5, 9), numbers.draw(0, 3));
            let least = stages.iter().sum::<u8>() + jitter;
            let deadline = numbers.draw(least, least + 9);
            Tiny { stages, jitter, ..plain(1, period, deadline, priority / 2) }
        });
        for policy in POLICIES {
            tally.compare(&set, policy, wake, Claim::Sound);
        }
    }
    assert!(tally.accepted > 20 && tally.refused > 20, "both answers occur: {tally:?}");
}

#[test]
fn the_wake_up_is_bounded_exactly() {
    let mut numbers = Numbers(6);
    let mut tally = Tally::default();
    for _ in 0..60 {
        let set = numbers.set(2, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 2), numbers.draw(5, 8));
            plain(cost, period, numbers.draw(cost + 1, period + 3), priority)
        });
        let wake = numbers.draw(1, 4);
        for policy in POLICIES {
            tally.compare(&set, policy, wake, Claim::Exact);
        }
    }
    assert!(tally.accepted > 30 && tally.refused > 30, "both answers occur: {tally:?}");
}

#[test]
fn stages_that_end_early_make_nothing_worse() {
    let mut numbers = Numbers(7);
    let mut accepted = 0;
    for _ in 0..40 {
        let set = numbers.set(3, |numbers, priority| {
            let stages: Vec<u8> = (0..numbers.draw(1, 2)).map(|_| numbers.draw(1, 3)).collect();
            let period = numbers.draw(5, 12);
            let deadline = numbers.draw(stages.iter().sum(), period + 4);
            Tiny { stages, ..plain(1, period, deadline, priority) }
        });
        for policy in POLICIES {
            let Ok(analysis) = answer(&set, policy, 0) else { continue };
            let rules = Rules { costs: Costs::Any, ..Rules::worst(0) };
            let truth = Explorer::explore(&set, policy, rules);
            let within = |(bound, worst): (&Bound, &u8)| bound.response.0 >= (*worst).into();
            assert!(analysis.bounds.iter().zip(&truth.worst).all(within), "{set:?}: {analysis:?}");
            accepted += 1;
        }
    }
    assert!(accepted > 20, "only {accepted} sets were accepted");
}

#[test]
fn first_in_first_out_by_nominal_release_stays_within_the_same_bounds() {
    let mut numbers = Numbers(8);
    let mut accepted = 0;
    for _ in 0..150 {
        let set = numbers.set(3, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 2), numbers.draw(4, 8));
            let jitter = numbers.draw(0, 5);
            Tiny { jitter, ..plain(cost, period, jitter + 8, priority) }
        });
        let Ok(analysis) = answer(&set, PolicyKind::Fifo, 0) else { continue };
        let rules = Rules { fifo_by: FifoBy::Nominal, ..Rules::worst(0) };
        let truth = Explorer::explore(&set, PolicyKind::Fifo, rules);
        let within = |(bound, worst): (&Bound, &u8)| bound.response.0 >= (*worst).into();
        assert!(analysis.bounds.iter().zip(&truth.worst).all(within), "{set:?}: {analysis:?}");
        accepted += 1;
    }
    assert!(accepted > 20, "only {accepted} sets were accepted");
}

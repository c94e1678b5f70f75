//! End-to-end bounds against what happens: random systems, simulated with hostile choices.
//!
//! The simulator below is the slow, obvious twin. It runs single jobs on ticks, one stage after
//! another, with random phases, delays, costs and ties, and measures what a chain does: when an
//! event first shows in an output, and how old the sample behind an output is. It knows nothing of
//! busy windows or lags.

use aegis_sched::analysis::chain::{Chain, ChainError, Sampled, sampled, triggered};
use aegis_sched::analysis::{Response, Setting, TimeModel, examine};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::{Category, ModelId, Nanos};

const POLICIES: [PolicyKind; 5] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority];

/// SplitMix64: small, seeded, the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Any of `from..=to`.
    fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.next() % len as u64).expect("an index")
    }
}

fn model(index: usize) -> ModelId {
    ModelId::first(u16::try_from(index).expect("a handful of tasks"))
}

fn discrete(policy: PolicyKind) -> Setting {
    let setting = Setting::admission(policy, Overheads::default());
    Setting { time: TimeModel::Discrete, terms: 2_000_000, ..setting }
}

/// A random set with utilisation below 1; the members of `chains` share their first one's period.
fn random_set(dice: &mut Dice, chains: &[Vec<usize>]) -> TaskSet {
    let tasks = 2 + dice.index(4);
    let tasks = tasks.max(chains.iter().flatten().max().map_or(0, |last| last + 1));
    loop {
        let mut specs: Vec<TaskSpec> = (0..tasks).map(|index| random_task(dice, index)).collect();
        for chain in chains {
            for member in chain {
                specs[*member].period = specs[chain[0]].period;
            }
        }
        let tasks = specs.into_iter().map(|spec| Task::new(spec).expect("a valid task"));
        let set = TaskSet::new(tasks.collect()).expect("a valid set");
        if set.utilisation_ppm() < 990_000 {
            return set;
        }
    }
}

fn random_task(dice: &mut Dice, index: usize) -> TaskSpec {
    let stages = 1 + dice.index(3) * dice.index(2);
    let jittery = dice.index(3) == 0;
    TaskSpec {
        model: model(index),
        period: Nanos(dice.within(4, 40)),
        deadline: Nanos(dice.within(2, 60)),
        jitter: Nanos(if jittery { dice.within(1, 45) } else { 0 }),
        priority: u32::try_from(dice.within(0, 4)).expect("small"),
        stages: (0..stages).map(|_| Nanos(dice.within(1, 4))).collect(),
    }
}

/// One job in the simulated world.
#[derive(Clone, Debug)]
struct Job {
    task: usize,
    released: u64,
    visible: u64,
    stages_done: usize,
    start: Option<u64>,
    end: Option<u64>,
}

/// Releases end around here.
const HORIZON: u64 = 500;

/// How hostile one run is.
#[derive(Clone, Copy)]
enum Delays {
    None,
    Full,
    Any,
    FirstFull,
}

struct World<'a> {
    set: &'a TaskSet,
    policy: PolicyKind,
    /// Which task the end of a job of each task triggers.
    triggers: Vec<Option<usize>>,
    dice: &'a mut Dice,
    full_costs: bool,
    delays: Delays,
    jobs: Vec<Job>,
}

impl<'a> World<'a> {
    /// All jobs of a run in which the chains of `triggered` trigger, each released `count` times.
    fn run(
        set: &'a TaskSet,
        policy: PolicyKind,
        triggered: &[Vec<usize>],
        dice: &'a mut Dice,
    ) -> Vec<Job> {
        let mut triggers = vec![None; set.len()];
        for pair in triggered.iter().flat_map(|chain| chain.windows(2)) {
            triggers[pair[0]] = Some(pair[1]);
        }
        let full_costs = dice.index(3) > 0;
        let delays = [Delays::None, Delays::Full, Delays::Any, Delays::FirstFull][dice.index(4)];
        let mut world = Self { set, policy, triggers, dice, full_costs, delays, jobs: Vec::new() };
        world.release();
        world.execute();
        world.jobs
    }

    fn delay(&mut self, task: usize, number: u64) -> u64 {
        let most = self.set.tasks()[task].jitter().0;
        match self.delays {
            Delays::None => 0,
            Delays::Full => most,
            Delays::Any => self.dice.within(0, most),
            Delays::FirstFull => {
                if number == 0 {
                    most
                } else {
                    0
                }
            }
        }
    }

    /// Periodic releases at random phases of all tasks that nothing triggers.
    fn release(&mut self) {
        let together = self.dice.index(3) == 0;
        for task in 0..self.set.len() {
            if self.triggers.contains(&Some(task)) {
                continue;
            }
            let period = self.set.tasks()[task].period().0;
            let most = if together { 2.min(period - 1) } else { period - 1 };
            let phase = self.dice.within(0, most);
            let mut before = 0;
            for number in 0..HORIZON / period {
                let released = phase + number * period;
                before = before.max(released + self.delay(task, number));
                self.arrive(task, released, before);
            }
        }
    }

    fn arrive(&mut self, task: usize, released: u64, visible: u64) {
        let (start, end) = (None, None);
        self.jobs.push(Job { task, released, visible, stages_done: 0, start, end });
    }

    /// Smaller is more urgent.
    fn key(&self, job: &Job) -> u64 {
        let task = &self.set.tasks()[job.task];
        match self.policy {
            PolicyKind::Fifo => job.visible,
            PolicyKind::Edf => job.released + task.deadline().0,
            PolicyKind::Rms => task.period().0,
            PolicyKind::Dm => task.deadline().0,
            PolicyKind::Priority => task.priority().into(),
        }
    }

    /// The jobs that may be chosen at `now`: of each task the first visible one, of those the most
    /// urgent.
    fn choices(&self, now: u64, running: Option<usize>) -> Vec<usize> {
        let mut first: Vec<Option<usize>> = vec![None; self.set.len()];
        for (index, job) in self.jobs.iter().enumerate() {
            if job.end.is_none() && job.visible <= now && first[job.task].is_none() {
                first[job.task] = Some(index); // Jobs of a task are made in order.
            }
        }
        let ready: Vec<usize> = first.into_iter().flatten().collect();
        let best = ready.iter().map(|index| self.key(&self.jobs[*index])).min();
        if let (Some(running), Some(best)) = (running, best)
            && (self.policy == PolicyKind::Fifo || self.key(&self.jobs[running]) <= best)
        {
            return vec![running];
        }
        ready.into_iter().filter(|index| Some(self.key(&self.jobs[*index])) == best).collect()
    }

    fn execute(&mut self) {
        let (mut now, mut running) = (0, None);
        loop {
            let choices = self.choices(now, running);
            if choices.is_empty() {
                let open = self.jobs.iter().filter(|job| job.end.is_none());
                match open.map(|job| job.visible).min() {
                    Some(next) => now = next,
                    None => return,
                }
                continue;
            }
            let chosen = choices[self.dice.index(choices.len())];
            (now, running) = self.run_stage(chosen, now);
        }
    }

    /// Runs the next stage of a job; when it ends, and the job if it has more.
    fn run_stage(&mut self, chosen: usize, now: u64) -> (u64, Option<usize>) {
        let (task, done) = (self.jobs[chosen].task, self.jobs[chosen].stages_done);
        let stages = self.set.tasks()[task].stages();
        let (cost, stages) = (stages[done].0, stages.len());
        let end = now + if self.full_costs { cost } else { self.dice.within(1, cost) };
        let job = &mut self.jobs[chosen];
        job.start = job.start.or(Some(now));
        job.stages_done += 1;
        if job.stages_done < stages {
            return (end, Some(chosen));
        }
        job.end = Some(end);
        let released = job.released;
        if let Some(next) = self.triggers[task] {
            let visible = end + self.delay(next, released);
            let before = self.jobs.iter().filter(|job| job.task == next).map(|job| job.visible);
            let visible = before.max().unwrap_or(0).max(visible);
            self.arrive(next, released, visible);
        }
        (end, None)
    }
}

fn worst_response(jobs: &[Job], task: usize) -> u64 {
    let of_task = jobs.iter().filter(|job| job.task == task);
    of_task.map(|job| job.end.expect("all jobs end") - job.released).max().unwrap_or(0)
}

fn of_task(jobs: &[Job], task: usize) -> Vec<&Job> {
    jobs.iter().filter(|job| job.task == task).collect()
}

/// The longest time from an event that a job of the source just missed to the end of the first job
/// whose output shows it.
fn worst_reaction(jobs: &[Job], chain: &[usize], read: fn(&Job) -> Option<u64>) -> u64 {
    let source = of_task(jobs, chain[0]);
    let reaction = |pair: &[&Job]| {
        let event = read(pair[0]).expect("all jobs read");
        let mut written = pair[1].end.expect("all jobs end");
        for member in &chain[1..] {
            let of_member = of_task(jobs, *member);
            let reader = of_member.iter().find(|job| read(job).is_some_and(|at| at >= written))?;
            written = reader.end?;
        }
        Some(written - event)
    };
    source.windows(2).filter_map(reaction).max().unwrap_or(0)
}

/// The longest time from the release of a job that sampled to the end of a job that used it.
fn worst_age(jobs: &[Job], chain: &[usize], read: fn(&Job) -> Option<u64>) -> u64 {
    let (last, before) = chain.split_last().expect("a member");
    let age = |job: &&Job| {
        let mut reader = *job;
        for member in before.iter().rev() {
            let of_member = of_task(jobs, *member);
            let writers = of_member.into_iter().filter(|job| job.end <= read(reader));
            reader = writers.max_by_key(|job| job.end)?;
        }
        Some(job.end? - reader.released)
    };
    let of_last = of_task(jobs, *last).into_iter();
    let of_last = of_last.filter(|job| job.start < Some(HORIZON - 50)); // All still release.
    of_last.filter_map(|job| age(&job)).max().unwrap_or(0)
}

/// The bounds as Dürr et al. state them, with `R_i` wherever the order is not by fixed priority.
fn duerr(set: &TaskSet, chain: &[usize], policy: PolicyKind, responses: &[Response]) -> (u64, u64) {
    let response = |member: usize| responses[member].bound().expect("bounded").0;
    let task = |member: usize| &set.tasks()[member];
    let urgency = |member: usize| match policy {
        PolicyKind::Rms => task(member).period().0,
        PolicyKind::Dm => task(member).deadline().0,
        PolicyKind::Priority => task(member).priority().into(),
        _ => 0,
    };
    let last = *chain.last().expect("a member");
    let mut reaction = task(chain[0]).period().0 + response(last);
    let mut age = response(last);
    for pair in chain.windows(2) {
        let ahead = urgency(pair[0]) < urgency(pair[1]) && task(pair[0]).jitter() == Nanos::ZERO;
        let lag = if ahead { 0 } else { response(pair[0]) };
        reaction += response(pair[0]).max(task(pair[1]).period().0 + lag);
        age += task(pair[0]).period().0 + lag;
    }
    (reaction, age)
}

/// How close the simulation came to a bound, over many systems.
#[derive(Default)]
struct Tightness {
    best: f64,
    sum: f64,
    systems: u32,
}

impl Tightness {
    fn note(&mut self, seen: u64, bound: Nanos) {
        let share = seen as f64 / bound.0 as f64;
        self.best = self.best.max(share);
        self.sum += share;
        self.systems += 1;
    }
}

impl std::fmt::Display for Tightness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mean = self.sum / f64::from(self.systems.max(1));
        write!(
            f,
            "{} systems, observed/bound at most {:.3}, mean {mean:.3}",
            self.systems, self.best
        )
    }
}

/// Systems for each policy, and runs of each.
const SYSTEMS: u64 = 300;
const RUNS: u64 = 40;

#[test]
fn no_triggered_chain_and_no_bystander_exceeds_its_bound() {
    for policy in POLICIES {
        let mut tightness = Tightness::default();
        for seed in 0..SYSTEMS {
            let mut dice = Dice(seed);
            let chains = [vec![vec![0, 1]], vec![vec![1, 0, 2]], vec![vec![0, 2], vec![3, 1]]];
            let chains = &chains[dice.index(3)];
            let set = random_set(&mut dice, chains);
            let typed: Vec<Chain> = chains.iter().map(|chain| chain_of(chain)).collect();
            let found = triggered(&set, &typed, &discrete(policy)).expect("valid chains");
            let mut seen = vec![0; set.len()];
            for _ in 0..RUNS {
                let jobs = World::run(&set, policy, chains, &mut dice);
                for (task, seen) in seen.iter_mut().enumerate() {
                    *seen = worst_response(&jobs, task).max(*seen);
                }
            }
            for (task, response) in found.responses.iter().enumerate() {
                let Some(bound) = response.bound() else { continue };
                assert!(seen[task] <= bound.0, "{policy} {seed}: {task} of {set:?} in {chains:?}");
            }
            let last = *chains[0].last().expect("a member");
            if let Some(bound) = found.end_to_end[0].bound() {
                tightness.note(seen[last], bound);
            }
        }
        println!("triggered, {policy}: {tightness}");
        assert!(tightness.systems > 100, "{policy}: too few systems had a bound: {tightness}");
        assert!(tightness.best > 0.85, "{policy}: {tightness}");
    }
}

fn chain_of(members: &[usize]) -> Chain {
    Chain::new(members.iter().copied().map(model).collect()).expect("a valid chain")
}

#[test]
fn no_sampled_chain_exceeds_its_bounds_and_no_published_bound_is_tighter() {
    for policy in POLICIES {
        let (mut reactions, mut ages) = (Tightness::default(), Tightness::default());
        for seed in 0..SYSTEMS {
            let mut dice = Dice(seed);
            let set = random_set(&mut dice, &[]);
            let mut chain: Vec<usize> = (0..set.len()).collect();
            for at in 0..chain.len() {
                let with = dice.index(chain.len());
                chain.swap(at, with);
            }
            chain.truncate(2 + dice.index(2));
            let responses = examine(&set, &discrete(policy)).responses;
            let typed = chain_of(&chain);
            let Some(bounds) = sampled(&set, &typed, policy, &responses).expect("a valid chain")
            else {
                continue;
            };
            let (reaction, age) = duerr(&set, &chain, policy, &responses);
            let Sampled { reaction: ours, data_age, reaction_read_early: davare } = bounds;
            assert!(ours.0 <= reaction && reaction <= davare.0, "{policy} {seed}: {bounds:?}");
            assert!(data_age.0 <= age, "{policy} {seed}: {bounds:?}");
            let last = set.tasks()[*chain.last().expect("a member")].period();
            let (mut reacted, mut aged) = (0, 0);
            for _ in 0..RUNS {
                let jobs = World::run(&set, policy, &[], &mut dice);
                reacted = worst_reaction(&jobs, &chain, |job| job.start).max(reacted);
                aged = worst_age(&jobs, &chain, |job| job.start).max(aged);
                let early = worst_reaction(&jobs, &chain, |job| Some(job.visible));
                assert!(early <= davare.0, "{policy} {seed}: {early} > {bounds:?}");
                let early = worst_age(&jobs, &chain, |job| Some(job.visible));
                assert!(early <= davare.0 - last.0, "{policy} {seed}: {early} > {bounds:?}");
            }
            assert!(
                reacted <= ours.0,
                "{policy} {seed}: {reacted} > {bounds:?}, {chain:?} {set:?}"
            );
            assert!(aged <= data_age.0, "{policy} {seed}: {aged} > {bounds:?}, {chain:?} {set:?}");
            reactions.note(reacted, ours);
            ages.note(aged, data_age);
        }
        println!("reaction, {policy}: {reactions}");
        println!("data age, {policy}: {ages}");
        assert!(reactions.systems > 100, "{policy}: too few had a bound: {reactions}");
        assert!(reactions.best > 0.95 && ages.best > 0.95, "{policy}: {reactions}; {ages}");
    }
}

#[test]
fn responses_hold_where_the_jitter_exceeds_the_deadline() {
    // A job of the first is released 8 before it is visible, due 5 before it, and the next one is
    // due with the second task's: 2 + 2 + 1. Cutting D - J at zero would say 3.
    let numbers = [(2, 10, 3, 8), (1, 20, 5, 0)];
    let tasks = numbers.iter().enumerate().map(|(index, (cost, period, deadline, jitter))| {
        let spec = TaskSpec {
            model: model(index),
            period: Nanos(*period),
            deadline: Nanos(*deadline),
            jitter: Nanos(*jitter),
            priority: 0,
            stages: vec![Nanos(*cost)],
        };
        Task::new(spec).expect("a valid task")
    });
    let set = TaskSet::new(tasks.collect()).expect("a valid set");
    let responses = examine(&set, &discrete(PolicyKind::Edf)).responses;
    assert_eq!(responses[1], Response::Bounded(Nanos(5)));
}

#[test]
fn what_is_no_chain_is_named() {
    let set = random_set(&mut Dice(1), &[]);
    let check = |chain: Result<Chain, ChainError>| {
        let outcome =
            chain.and_then(|chain| triggered(&set, &[chain], &discrete(PolicyKind::Edf)).map(drop));
        let error = outcome.expect_err("no chain");
        assert_eq!(error.category(), Category::Permanent);
        error
    };
    let twice = vec![model(0), model(1), model(0)];
    assert_eq!(check(Chain::new(Vec::new())), ChainError::Empty);
    assert_eq!(check(Chain::new(twice)), ChainError::Twice { model: model(0) });
    let unknown = Chain::new(vec![model(0), model(77)]);
    assert_eq!(check(unknown), ChainError::Unknown { model: model(77) });
    assert!(matches!(check(Chain::new(vec![model(0), model(1)])), ChainError::Period { .. }));
}

#[test]
fn a_trigger_without_a_bound_leaves_none() {
    let spec = |index, cost| TaskSpec {
        model: model(index),
        period: Nanos(10),
        deadline: Nanos(10),
        jitter: Nanos::ZERO,
        priority: u32::try_from(index).expect("small"),
        stages: vec![Nanos(cost)],
    };
    let tasks = [spec(0, 6), spec(1, 6)].map(|spec| Task::new(spec).expect("a valid task"));
    let set = TaskSet::new(tasks.to_vec()).expect("a valid set");
    let chains = [chain_of(&[1, 0])];
    let found = triggered(&set, &chains, &discrete(PolicyKind::Priority)).expect("a valid chain");
    assert_eq!(found.end_to_end, [Response::Unbounded]);
    let few = Setting { terms: 3, ..discrete(PolicyKind::Edf) };
    let found = triggered(&set.without(model(1)), &[chain_of(&[0])], &few).expect("a valid chain");
    assert!(matches!(found.end_to_end[0], Response::Undecided(_)), "{found:?}");
}

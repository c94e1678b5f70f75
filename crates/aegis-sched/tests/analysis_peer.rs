//! Every bound against `response-time-analysis`, which follows machine-checked proofs.
//!
//! On ticks, ours must be **equal** to what the peer's theorems give: never above, and never below,
//! so no schedule has to be found that shows which of the two is right. Where there is jitter the
//! peer bounds the time from when a job is ready, and adding `J` to that would count a delay also
//! for jobs that waited for none; so its theorem is asked once more for each job that can be held
//! back (`fixed_priority` and `fifo` below say how).
//!
//! `AEGIS_PEER_SETS=N` makes it N times as many sets; the seed is fixed.
//!
//! Not compared: EDF with jitter, where the peer's deadlines count from when a job is ready and
//! ours from its nominal release (another policy); `analysis_exhaustive/` has that case.

mod peer;
mod sets;

use aegis_sched::analysis::{Response, Setting, TimeModel, examine};
use aegis_sched::policy::PolicyKind;
use aegis_sched::sim::{Random, Seed};
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos};

use sets::{Deadlines, Periods, Shape};

/// Short enough that the peer, which looks at every job from the window's start, is done in time.
const LOG_UNIFORM: Periods = Periods::LogUniform { unit: Nanos(40), octaves: 10 };
const AUTOMOTIVE: Periods = Periods::Automotive { unit: Nanos(60) };
const LOADS: [u64; 4] = [300, 700, 900, 950];

fn ours(set: &TaskSet, policy: PolicyKind) -> Vec<Option<u64>> {
    let setting = Setting { time: TimeModel::Discrete, ..admission(policy) };
    let bound = |response: &Response| match response {
        Response::Bounded(response) => Some(response.0),
        Response::Unbounded => None,
        Response::Undecided(limit) => panic!("{limit} for {set:?}"),
    };
    examine(set, &setting).responses.iter().map(bound).collect()
}

fn admission(policy: PolicyKind) -> Setting {
    Setting::admission(policy, Overheads::default())
}

/// What the peer's theorem gives from the nominal release.
///
/// Jobs that would arrive after the window's start are released there at the earliest, at
/// `n T - J`, and wait from their nominal release on: the peer's bound. The jobs before them can
/// all become ready at the start, `J` after the nominal release of the first: job `n` then ends
/// when one job of `n + 1` costs would, and was released `J - n T` before.
fn fixed_priority(set: &TaskSet) -> Vec<Option<u64>> {
    let from_ready = peer::np_fp(set);
    let from_nominal = |(task, ready): (&Task, &Option<u64>)| {
        let held_back = (0..=task.jitter().0 / task.period().0).map(|job| {
            let late = task.jitter().0 - job * task.period().0;
            Some(level(set, task, &run_of(task, job + 1))? + late)
        });
        held_back.chain([*ready]).collect::<Option<Vec<u64>>>()?.into_iter().max()
    };
    set.tasks().iter().zip(&from_ready).map(from_nominal).collect()
}

/// One job as long as `jobs` of `task`, which ends as they do.
fn run_of(task: &Task, jobs: u64) -> Task {
    let (all, last) = (task.cost() * jobs, task.last_stage());
    let before = Some(all - last).filter(|before| *before > Nanos::ZERO);
    Task::new(TaskSpec {
        model: task.model(),
        period: Task::LONGEST,
        deadline: Task::LONGEST,
        jitter: Nanos::ZERO,
        priority: task.priority(),
        stages: before.into_iter().chain([last]).collect(),
    })
    .expect("a few jobs of a valid task")
}

/// The peer's bound for `run` in the place of `task`.
fn level(set: &TaskSet, task: &Task, run: &Task) -> Option<u64> {
    let others = || set.tasks().iter().filter(|other| other.model() != task.model());
    let rivals = others().filter(|other| other.priority() <= task.priority());
    let below = others().filter(|other| other.priority() > task.priority());
    let rivals: Vec<_> = rivals.map(peer::curve).collect();
    peer::level(run, &rivals, peer::longest_blocking(below))
}

/// What the peer's theorem gives from the nominal release: a job waits longest from there when it
/// is held back for `J` itself and its predecessors are not.
fn first_in_first_out(set: &TaskSet) -> Vec<Option<u64>> {
    let one = |index: usize| {
        let mut tasks = set.tasks().to_vec();
        let jitter = tasks[index].jitter();
        tasks[index] = punctual(&tasks[index]);
        let set = TaskSet::new(tasks).expect("the same models");
        Some(peer::fifo(&set)? + jitter.0)
    };
    (0..set.len()).map(one).collect()
}

fn punctual(task: &Task) -> Task {
    Task::new(TaskSpec {
        model: task.model(),
        period: task.period(),
        deadline: task.deadline(),
        jitter: Nanos::ZERO,
        priority: task.priority(),
        stages: task.stages().to_vec(),
    })
    .expect("valid before")
}

/// Draws sets and requires that ours is what `peer` says.
struct Comparison {
    policy: PolicyKind,
    peer: fn(&TaskSet) -> Vec<Option<u64>>,
    /// Sets of each load, period kind and size.
    sets: usize,
    sizes: &'static [u16],
}

impl Comparison {
    /// Returns how many bounds were compared.
    fn run(&self, change: impl Fn(Shape) -> Shape) -> usize {
        let mut random = Random::new(Seed(2020));
        let mut compared = 0;
        for periods in [LOG_UNIFORM, AUTOMOTIVE] {
            for (load, tasks) in
                LOADS.iter().flat_map(|load| self.sizes.iter().map(|n| (*load, *n)))
            {
                for _ in 0..self.sets * times() {
                    let shape = change(Shape::plain(tasks, load, periods));
                    compared += self.compare(&shape.draw(&mut random));
                }
            }
        }
        compared
    }

    fn compare(&self, set: &TaskSet) -> usize {
        let (ours, peers) = (ours(set, self.policy), (self.peer)(set));
        assert_eq!(ours, peers, "{}: ours, the peer's; {:#?}", self.policy, set.tasks());
        ours.len()
    }
}

fn times() -> usize {
    let times = std::env::var("AEGIS_PEER_SETS");
    times.map_or(1, |times| times.parse().expect("AEGIS_PEER_SETS is a number"))
}

const DEADLINES: [Deadlines; 3] =
    [Deadlines::Implicit, Deadlines::Constrained, Deadlines::Arbitrary];

#[test]
fn fixed_priority_bounds_are_those_of_the_proofs() {
    let comparison = Comparison {
        policy: PolicyKind::Priority,
        peer: peer::np_fp,
        sets: 150,
        sizes: &[2, 3, 5, 8, 20],
    };
    let plain = comparison.run(|shape| shape);
    let staged = comparison.run(|shape| Shape { stages: 4, ..shape });
    let ties = comparison.run(|shape| Shape { stages: 3, alike: 2, ..shape });
    assert!(plain + staged + ties > 50_000, "{plain} {staged} {ties}");
}

#[test]
fn fixed_priority_bounds_with_jitter_are_those_of_the_proofs() {
    let comparison = Comparison {
        policy: PolicyKind::Priority,
        peer: fixed_priority,
        sets: 60,
        sizes: &[2, 4, 8],
    };
    let short = comparison.run(|shape| Shape { jitter: 500, ..shape });
    let long = comparison.run(|shape| Shape { jitter: 3_500, stages: 3, alike: 2, ..shape });
    assert!(short + long > 5_000, "{short} {long}");
}

#[test]
fn edf_bounds_are_those_of_the_proofs() {
    let comparison =
        Comparison { policy: PolicyKind::Edf, peer: peer::np_edf, sets: 40, sizes: &[2, 3, 5, 8] };
    let mut compared = 0;
    for deadlines in DEADLINES {
        compared += comparison.run(|shape| Shape { deadlines, ..shape });
        compared += comparison.run(|shape| Shape { deadlines, stages: 4, ..shape });
    }
    assert!(compared > 5_000, "{compared}");
}

#[test]
fn first_in_first_out_bounds_are_those_of_the_proofs() {
    let comparison = Comparison {
        policy: PolicyKind::Fifo,
        peer: first_in_first_out,
        sets: 60,
        sizes: &[2, 3, 5, 8],
    };
    let plain = comparison.run(|shape| shape);
    let late = comparison.run(|shape| Shape { jitter: 2_500, ..shape });
    assert!(plain + late > 3_000, "{plain} {late}");
}

#[test]
fn what_is_too_much_for_the_device_has_no_bound_for_the_peer_either() {
    let mut random = Random::new(Seed(7));
    for _ in 0..50 {
        let mut tasks = Shape::plain(3, 900, AUTOMOTIVE).draw(&mut random).tasks().to_vec();
        let heavy = TaskSpec {
            model: ModelId::first(9),
            period: Nanos(100),
            deadline: Nanos(100),
            jitter: Nanos::ZERO,
            priority: 1,
            stages: vec![Nanos(20)],
        };
        tasks.push(Task::new(heavy).expect("a valid task"));
        let set = TaskSet::new(tasks).expect("four models");
        assert_eq!(ours(&set, PolicyKind::Priority), peer::np_fp(&set), "{set:?}");
        assert_eq!(ours(&set, PolicyKind::Edf), peer::np_edf(&set), "{set:?}");
    }
}

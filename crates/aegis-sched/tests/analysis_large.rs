//! Large sets and extreme numbers: an answer or a named limit, within a bounded amount of work.
//!
//! The amount of work is [`Setting::terms`], never time: each test says how many it allows, and
//! what an answer must still satisfy.

#[expect(dead_code, reason = "other tests draw other shapes")]
mod sets;

use aegis_sched::analysis::{Findings, Response, Setting, TimeModel, decide, examine};
use aegis_sched::policy::PolicyKind;
use aegis_sched::sim::{Random, Seed};
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::{Limit, ModelId, Nanos, Refusal};

use sets::{Deadlines, Periods, Shape};

const POLICIES: [PolicyKind; 5] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority];
const TIMES: [TimeModel; 2] = [TimeModel::Dense, TimeModel::Discrete];

fn settings(terms: u64) -> impl Iterator<Item = Setting> {
    let all = POLICIES.into_iter().flat_map(|policy| TIMES.map(|time| (policy, time)));
    all.map(move |(policy, time)| {
        let admission = Setting::admission(policy, Overheads::default());
        Setting { time, terms, ..admission }
    })
}

/// Examines `set` under every policy and in both times, and counts the answers.
fn examine_all(set: &TaskSet, terms: u64) -> Tally {
    let mut tally = Tally::default();
    for setting in settings(terms) {
        let findings = examine(set, &setting);
        assert_eq!(findings.responses.len(), set.len());
        for (response, task) in findings.responses.iter().zip(set.tasks()) {
            tally.count(*response, task);
        }
        tally.judge(&findings, set, setting);
    }
    tally
}

#[derive(Debug, Default)]
struct Tally {
    accepted: u32,
    refused: u32,
    undecided: u32,
    bounded: u32,
    unbounded: u32,
    without_answer: u32,
}

impl Tally {
    fn count(&mut self, response: Response, task: &Task) {
        match response {
            Response::Bounded(response) => {
                // What wrapped would be less than this.
                assert!(response >= task.cost() + task.jitter(), "{response:?} for {task:?}");
                self.bounded += 1;
            }
            Response::Unbounded => self.unbounded += 1,
            Response::Undecided(limit) => {
                assert!(!limit.to_string().is_empty());
                self.without_answer += 1;
            }
        }
    }

    /// Verdict and responses must not contradict each other.
    fn judge(&mut self, findings: &Findings, set: &TaskSet, setting: Setting) {
        let late =
            findings.responses.iter().zip(set.tasks()).any(|(response, task)| {
                response.bound().is_some_and(|bound| bound > task.deadline())
            });
        match &findings.verdict {
            Ok(()) => {
                assert!(!late, "{setting:?} accepts what is late");
                self.accepted += 1;
            }
            Err(Refusal::Undecided { limit }) => {
                assert!(!limit.to_string().is_empty());
                self.undecided += 1;
            }
            Err(_) => self.refused += 1,
        }
    }
}

fn spec(index: u16, cost: u64, period: u64, deadline: u64) -> TaskSpec {
    TaskSpec {
        model: ModelId::first(index),
        period: Nanos(period),
        deadline: Nanos(deadline),
        jitter: Nanos::ZERO,
        priority: u32::from(index),
        stages: vec![Nanos(cost)],
    }
}

fn set(specs: impl IntoIterator<Item = TaskSpec>) -> TaskSet {
    let tasks = specs.into_iter().map(|spec| Task::new(spec).expect("a valid task"));
    TaskSet::new(tasks.collect()).expect("every model once")
}

/// A thousand tasks with periods from 1 us to 1 h, of which one in a billion parts is idle.
fn a_thousand_tasks(deadline: impl Fn(u64) -> u64) -> TaskSet {
    const HOUR: u64 = 3_600_000_000_000;
    let mut random = Random::new(Seed(1_000));
    let mut specs: Vec<TaskSpec> = (0..999u16)
        .map(|index| {
            // Odd and scattered, so the hyperperiod is far beyond 64 bits.
            let octave = 1u64 << random.between(10, 41);
            let period = ((octave + random.up_to(octave - 1)) | 1).min(HOUR);
            spec(index, (period / 1_001).max(1), period, deadline(period))
        })
        .collect();
    // The last one takes what is left, but for 1e-9; in units of 2^-64, rounded down.
    let share =
        |task: &TaskSpec| (u128::from(task.stages[0].0) << 64).div_ceil(u128::from(task.period.0));
    let used: u128 = specs.iter().map(share).sum();
    let left = (1u128 << 64) - (1u128 << 64) / 1_000_000_000;
    let left = left.checked_sub(used).expect("the others leave something");
    let cost = (left * u128::from(HOUR)) >> 64;
    let cost = u64::try_from(cost).expect("less than an hour");
    specs.push(spec(999, cost, HOUR, deadline(HOUR)));
    set(specs)
}

#[test]
fn a_thousand_tasks_at_all_but_a_billionth_are_answered_or_named() {
    for deadline in [|period| period, |period| period * 3] {
        let set = a_thousand_tasks(deadline);
        assert_eq!(set.utilisation_ppm(), 999_999);
        let tally = examine_all(&set, 3_000_000);
        assert_eq!(tally.accepted + tally.refused + tally.undecided, 10);
        assert!(tally.refused > 0 && tally.bounded > 1_000, "{tally:?}");
        assert_eq!(tally.unbounded, 0, "less than the device: {tally:?}");
    }
}

#[test]
fn a_thousand_tasks_at_exactly_one_or_a_little_more_are_told_apart() {
    let seventh = |index| spec(index, 1, 1_000, 4_000);
    let full = set((0..1_000).map(seventh));
    let tally = examine_all(&full, 30_000_000);
    assert_eq!((tally.accepted, tally.unbounded, tally.without_answer), (10, 0, 0), "{tally:?}");
    let over = full.with(Task::new(spec(1_000, 1, Task::LONGEST.0, 1 << 40)).expect("valid"));
    let tally = examine_all(&over.expect("one more"), 30_000_000);
    assert_eq!((tally.accepted, tally.undecided), (0, 0), "{tally:?}");
    assert!(tally.unbounded > 0, "{tally:?}");
}

#[test]
fn a_full_device_whose_cycle_is_beyond_64_bits_is_named() {
    // Full, with jitter, and periods without a common multiple below 2^63.
    let primes = [1_000_003u64, 1_000_033, 1_000_037, 1_000_039, 1_000_081];
    let mut specs: Vec<TaskSpec> = (0..).zip(primes).map(|(i, p)| spec(i, 1, p, p)).collect();
    // sum 1/p = a/b, so a task of b - a in b fills the device; b is beyond 64 bits, so two do.
    specs.truncate(3);
    let product: u128 = specs.iter().map(|task| u128::from(task.period.0)).product();
    let used: u128 = specs.iter().map(|task| product / u128::from(task.period.0)).sum();
    let period = u64::try_from(product).expect("1e18 is below 2^62");
    specs.push(spec(3, period - u64::try_from(used).expect("a part"), period, period));
    specs[0].jitter = Nanos(1);
    let full = set(specs.clone());
    assert_eq!(full.utilisation_ppm(), 1_000_000);
    for setting in settings(1_000_000) {
        let refusal = decide(&full, &setting).expect_err("blocked for nearly ever");
        assert!(!matches!(refusal, Refusal::Overutilised { .. }), "{setting:?}: {refusal}");
    }
    // With a fourth prime the cycle is beyond every window.
    specs[3].stages[0] = Nanos(specs[3].stages[0].0 - 1);
    specs.push(spec(4, 1, period, period));
    specs[4].period = Nanos(period);
    let same = set(specs);
    assert_eq!(same.utilisation_ppm(), 1_000_000);
    let tally = examine_all(&same, 1_000_000);
    assert_eq!(tally.accepted, 0, "{tally:?}");
}

#[test]
fn a_cycle_beyond_every_window_is_the_named_limit() {
    // Halves of coprime even periods around 2^40: full, late, and without a short cycle.
    let (a, b) = ((1u64 << 40) + 2, (1u64 << 40) + 6);
    let mut specs = [spec(0, a / 2, a, 1 << 60), spec(1, b / 2, b, 1 << 60)];
    specs[0].jitter = Nanos(1);
    let full = set(specs);
    for setting in settings(1_000_000) {
        let found = examine(&full, &setting);
        let named = |limit: Limit| matches!(limit, Limit::Hyperperiod { .. } | Limit::Steps { .. });
        match found.verdict {
            Err(Refusal::Undecided { limit }) => assert!(named(limit), "{setting:?} {limit}"),
            // The deadlines are long: the density says yes without looking at a window.
            Ok(()) if setting.policy == PolicyKind::Edf => {}
            other => panic!("{setting:?}: {other:?}"),
        }
    }
}

#[test]
fn values_at_the_limits_neither_wrap_nor_panic() {
    let most = Task::LONGEST.0;
    let times = [1, 2, most / 3, most / 2, most - 1, most];
    let mut tally = Tally::default();
    for period in times {
        for (cost, jitter) in times.into_iter().flat_map(|c| [0, 1, most].map(|j| (c, j))) {
            let mut specs = [spec(0, cost, period, most), spec(1, 1, most, most)];
            specs[0].jitter = Nanos(jitter);
            let found = examine_all(&set(specs), 2_000);
            tally.accepted += found.accepted;
            tally.unbounded += found.unbounded;
            tally.without_answer += found.without_answer;
        }
    }
    assert!(tally.accepted > 0 && tally.unbounded > 0 && tally.without_answer > 0, "{tally:?}");
}

/// As many tasks as a set holds, which use 98 % of the device.
fn most_tasks(period: impl Fn(u64) -> u64, priority: impl Fn(u16) -> u32) -> TaskSet {
    let specs = (0..=u16::MAX).map(|index| {
        let task = spec(index, 15_000, period(u64::from(index)), 1 << 40);
        TaskSpec { priority: priority(index), ..task }
    });
    let set = set(specs);
    assert_eq!(set.len(), TaskSet::MOST_TASKS);
    set
}

#[test]
fn the_most_tasks_that_a_set_holds_are_answered_or_named() {
    let apart = most_tasks(|index| 1_000_000_007 + 2 * index, u32::from);
    let alike = most_tasks(|_| 1_000_000_007, |_| 0);
    for set in [&apart, &alike] {
        for setting in settings(2_000_000) {
            let answer = decide(set, &setting);
            let named = matches!(answer, Ok(()) | Err(Refusal::Undecided { .. }));
            assert!(named, "{setting:?}: {answer:?}");
            let simple = matches!(setting.policy, PolicyKind::Fifo | PolicyKind::Edf);
            assert!(answer.is_ok() || !simple, "{setting:?} needs few passes: {answer:?}");
        }
    }
}

#[test]
fn more_work_allowed_never_turns_an_answer_around() {
    let shape = Shape {
        deadlines: Deadlines::Arbitrary,
        jitter: 300,
        stages: 3,
        ..Shape::plain(30, 980, Periods::LogUniform { unit: Nanos(1_000), octaves: 10 })
    };
    let mut random = Random::new(Seed(5));
    for _ in 0..10 {
        let set = shape.draw(&mut random);
        for setting in settings(0) {
            let answers = [100, 10_000, 100_000_000].map(|terms| {
                decide(&set, &Setting { terms, ..setting })
                    .map_err(|no| matches!(no, Refusal::Undecided { .. }))
            });
            let decided = answers.iter().filter(|answer| **answer != Err(true));
            let mut kinds: Vec<bool> = decided.map(Result::is_ok).collect();
            kinds.dedup();
            assert!(kinds.len() <= 1, "{setting:?}: {answers:?}");
        }
    }
}

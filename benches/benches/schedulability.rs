//! The analyses against `response-time-analysis`, on the same sets in the same run.
//!
//! The function called `baseline` is the peer where it answers the same question. A value names the
//! periods, the load in percent and the number of tasks; a call is one set, and every sample is the
//! mean over the same few sets. What is timed begins with tasks in memory: nothing is parsed.
//! Before a set is timed, both must give the same bounds.
//!
//! Left out, and said aloud: the peer's bounds under EDF where each set would take it seconds or
//! minutes. There ours works within the budget of admission, past which a bound is the deadline.

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../../crates/aegis-sched/tests/peer/mod.rs"]
mod peer;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../../crates/aegis-sched/tests/sets/mod.rs"]
mod sets;

use std::cell::LazyCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use aegis_benches::Sampling;
use aegis_sched::analysis::incremental::AnalysedSet;
use aegis_sched::analysis::{Setting, TimeModel, analyse, decide, examine};
use aegis_sched::policy::PolicyKind;
use aegis_sched::sim::{Random, Seed};
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::Nanos;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};

use sets::{Periods, Shape};

const SIZES: [u16; 5] = [10, 20, 40, 100, 1_000];
/// Thousandths of the device.
const LOADS: [u64; 2] = [700, 950];
const PERIODS: [(&str, Periods); 2] = [
    ("log-uniform", Periods::LogUniform { unit: Nanos::from_millis(1), octaves: 10 }),
    ("automotive", Periods::Automotive { unit: Nanos::from_millis(1) }),
];
/// Sets of each kind.
const SETS: u32 = 3;
/// Few and short, since there are many rows; a call covers all [`SETS`].
const SAMPLING: Sampling =
    Sampling { samples: 10, warm_up: Duration::from_millis(20), time: Duration::from_millis(60) };

/// Sets of one kind, drawn when they are first used.
struct Row {
    value: String,
    shape: Shape,
    sets: LazyCell<Vec<TaskSet>, Box<dyn FnOnce() -> Vec<TaskSet>>>,
}

impl Row {
    fn new(value: String, shape: Shape, draw: fn(&Shape, &mut Random) -> TaskSet) -> Self {
        let sets = move || {
            let mut random = Random::new(Seed(u64::from(shape.tasks)));
            (0..SETS).map(|_| draw(&shape, &mut random)).collect()
        };
        Self { value, shape, sets: LazyCell::new(Box::new(sets)) }
    }

    /// Whether the peer takes less than a second or so for a set under EDF.
    fn suits_the_peer_under_edf(&self) -> bool {
        self.shape.tasks <= 40 || (self.shape.tasks <= 100 && self.shape.load <= 700)
    }
}

fn rows(draw: fn(&Shape, &mut Random) -> TaskSet) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, periods) in PERIODS {
        for (load, tasks) in LOADS.into_iter().flat_map(|load| SIZES.map(|tasks| (load, tasks))) {
            let value = format!("{name}-{}-{tasks}", load / 10);
            rows.push(Row::new(value, Shape::plain(tasks, load, periods), draw));
        }
    }
    rows
}

fn measure<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    function: &str,
    row: &Row,
    of: impl Fn(&TaskSet) -> T,
) {
    group.bench_function(BenchmarkId::new(function, &row.value), |bencher| {
        bencher.iter_custom(|times| {
            let sets = &*row.sets;
            let start = Instant::now();
            for _ in 0..times {
                for set in sets {
                    black_box(of(black_box(set)));
                }
            }
            start.elapsed() / SETS
        });
    });
}

/// The same, once it is sure that both give the same bounds for these sets.
fn measure_both(
    group: &mut BenchmarkGroup<'_, WallTime>,
    row: &Row,
    policy: PolicyKind,
    peer: fn(&TaskSet) -> Vec<Option<u64>>,
) {
    let same = LazyCell::new(|| row.sets.iter().all(|set| bounds(set, policy) == peer(set)));
    measure(group, "baseline", row, peer);
    measure(group, "ours", row, |set| {
        assert!(*same, "{}: bounds differ", row.value);
        examine(set, &setting(policy))
    });
}

/// Whatever it takes: what is timed is an answer.
fn setting(policy: PolicyKind) -> Setting {
    let admission = Setting::admission(policy, Overheads::default());
    Setting { time: TimeModel::Discrete, terms: u64::MAX, ..admission }
}

fn bounds(set: &TaskSet, policy: PolicyKind) -> Vec<Option<u64>> {
    let findings = examine(set, &setting(policy));
    findings.responses.iter().map(|response| response.bound().map(|bound| bound.0)).collect()
}

/// All bounds under fixed priorities, by deadline, whether they are kept or not.
fn np_fp_bounds(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "np_fp_bounds", SAMPLING);
    for row in rows(Shape::draw) {
        measure_both(&mut group, &row, PolicyKind::Priority, peer::np_fp);
    }
    group.finish();
}

/// All bounds under EDF.
fn np_edf_bounds(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "np_edf_bounds", SAMPLING);
    let admission = Setting::admission(PolicyKind::Edf, Overheads::default());
    for row in rows(Shape::draw) {
        if row.suits_the_peer_under_edf() {
            measure_both(&mut group, &row, PolicyKind::Edf, peer::np_edf);
        } else {
            println!("np_edf_bounds/baseline/{}: left out, too slow", row.value);
            measure(&mut group, "ours_in_budget", &row, |set| examine(set, &admission));
        }
    }
    group.finish();
}

/// The verdict under EDF, of sets as drawn (nearly all refused, since a long job blocks a short
/// deadline) and of sets cut into stages until they are accepted, where every window is searched.
/// Baseline: the utilisation, exactly.
fn np_edf_verdict(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "np_edf_verdict", SAMPLING);
    let verdict = |set: &TaskSet| decide(set, &setting(PolicyKind::Edf));
    for row in rows(Shape::draw) {
        measure(&mut group, "baseline", &row, TaskSet::utilisation_ppm);
        measure(&mut group, "as_drawn", &row, verdict);
    }
    for row in rows(accepted) {
        measure(&mut group, "accepted", &row, verdict);
    }
    group.finish();
}

/// One whole analysis of 25 models, the last of which asks to join.
fn admit_25th(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "admit_25th", SAMPLING);
    for (name, periods) in PERIODS {
        let row = Row::new(name.to_owned(), Shape::plain(25, 700, periods), accepted);
        measure(&mut group, "baseline", &row, TaskSet::utilisation_ppm);
        for policy in BOTH {
            let function = policy.to_string();
            measure(&mut group, &function, &row, |set| {
                analyse(set, policy, &Overheads::default()).expect("accepted before it was timed")
            });
            measure_joining(&mut group, &format!("{policy}_joins"), &row, policy, drop);
            let bounded = format!("{policy}_joins_with_bounds");
            measure_joining(&mut group, &bounded, &row, policy, |set| {
                black_box(set.analysis());
            });
        }
    }
    group.finish();
}

/// The last model of each set joins the others, which are analysed already; `then` is part of it.
fn measure_joining(
    group: &mut BenchmarkGroup<'_, WallTime>,
    function: &str,
    row: &Row,
    policy: PolicyKind,
    then: impl Fn(AnalysedSet),
) {
    let joining = LazyCell::new(|| {
        let pair = |set: &TaskSet| {
            let last = set.tasks().last().expect("25 tasks").clone();
            let others = set.without(last.model());
            let others = AnalysedSet::new(others, policy, Overheads::default());
            (others.expect("fewer than a schedulable set"), last)
        };
        row.sets.iter().map(pair).collect::<Vec<_>>()
    });
    group.bench_function(BenchmarkId::new(function, &row.value), |bencher| {
        bencher.iter_custom(|times| {
            let start = Instant::now();
            for _ in 0..times {
                for (others, last) in &*joining {
                    then(others.with(black_box(last.clone())).expect("it fits"));
                }
            }
            start.elapsed() / SETS
        });
    });
}

/// The next set that is schedulable under EDF, and by deadline if it leaves room for that, once no
/// stage is longer than an eighth of the shortest period.
fn accepted(shape: &Shape, random: &mut Random) -> TaskSet {
    const TRIES: usize = 50;
    let policies = if shape.load < 900 { &BOTH[..] } else { &BOTH[..1] };
    let fits = |set: &TaskSet| {
        let admission = |policy| Setting::admission(policy, Overheads::default());
        policies.iter().all(|policy| decide(set, &admission(*policy)).is_ok())
    };
    let mut drawn = (0..TRIES).map(|_| cut(&shape.draw(random)));
    drawn.find(fits).unwrap_or_else(|| panic!("none of {TRIES} sets is schedulable: {shape:?}"))
}

const BOTH: [PolicyKind; 2] = [PolicyKind::Edf, PolicyKind::Priority];

fn cut(set: &TaskSet) -> TaskSet {
    let shortest = set.tasks().iter().map(Task::period).min().unwrap_or(Nanos::ZERO);
    let longest = Nanos(shortest.0 / 8);
    let tasks = set.tasks().iter().map(|task| {
        let mut left = task.cost();
        let mut stages = Vec::new();
        while left > Nanos::ZERO {
            let stage = left.min(longest);
            stages.push(stage);
            left -= stage;
        }
        let (model, priority) = (task.model(), task.priority());
        let (period, deadline, jitter) = (task.period(), task.deadline(), task.jitter());
        Task::new(TaskSpec { model, period, deadline, jitter, priority, stages })
            .expect("a valid task in pieces")
    });
    TaskSet::new(tasks.collect()).expect("the same models")
}

criterion_group!(benches, np_fp_bounds, np_edf_bounds, np_edf_verdict, admit_25th);
criterion_main!(benches);

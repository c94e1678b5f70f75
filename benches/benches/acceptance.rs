//! How many random sets each test accepts, against the peer's answer.
//!
//! Not a timing: a table, printed when `acceptance` is asked for or nothing is. A row is a load; a
//! column is the share of sets that a test accepts. Fixed priorities follow deadlines. What the
//! peer's response times say of a set must be what we say, or the run fails: under EDF a set that
//! its bounds refuse and our verdict accepts would be one with stages.

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../../crates/aegis-sched/tests/peer/mod.rs"]
mod peer;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../../crates/aegis-sched/tests/sets/mod.rs"]
mod sets;

use aegis_sched::analysis::{Setting, TimeModel, decide};
use aegis_sched::policy::PolicyKind;
use aegis_sched::sim::{Random, Seed};
use aegis_sched::task::{Overheads, TaskSet};
use aegis_trace::Nanos;

use sets::{Deadlines, Periods, Shape};

/// Tasks of a set.
const TASKS: u16 = 8;
/// Thousandths of the device.
const LOADS: [u64; 9] = [100, 200, 300, 400, 500, 600, 700, 800, 900];
/// Sets in a row.
const SETS: u32 = 400;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let timed = arguments.iter().any(|argument| argument == "--bench");
    let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-'));
    let asked = filters.clone().next().is_none() || filters.any(|f| "acceptance".contains(&**f));
    if asked {
        // A test run of the benches wants to see that it runs.
        table(if timed { SETS } else { 5 });
    }
}

fn table(count: u32) {
    println!("acceptance: {TASKS} tasks, periods over 3 octaves, D <= T, % of {count} sets");
    println!("              one stage each             |  up to 6 stages");
    println!("  load   np-edf    np-dm     fifo        |   np-edf    np-dm     fifo");
    for load in LOADS {
        let mut random = Random::new(Seed(load));
        let [whole, staged] = [1, 6].map(|stages| row(&mut random, load, stages, count).join(" "));
        println!("{:>5}% {whole}        | {staged}", load / 10);
    }
    println!("The peer accepts the same sets under EDF and by deadline, all of them.");
}

/// The shares of accepted sets: EDF, by deadline, first in first out.
fn row(random: &mut Random, load: u64, stages: u64, count: u32) -> [String; 3] {
    let periods = Periods::LogUniform { unit: Nanos(1_000), octaves: 3 };
    let plain = Shape::plain(TASKS, load, periods);
    let shape = Shape { deadlines: Deadlines::Constrained, stages, ..plain };
    let sets: Vec<TaskSet> = (0..count).map(|_| shape.draw(random)).collect();
    let edf = both(&sets, PolicyKind::Edf, peer::np_edf);
    let fixed = both(&sets, PolicyKind::Priority, peer::np_fp);
    let fifo = sets.iter().filter(|set| ours(set, PolicyKind::Fifo)).count();
    let percent = |sets: usize| format!("{:>8.1}", sets as f64 * 100.0 / f64::from(count));
    [edf, fixed, fifo].map(percent)
}

/// How many sets are accepted, by us and by the peer alike.
fn both(sets: &[TaskSet], policy: PolicyKind, peer: fn(&TaskSet) -> Vec<Option<u64>>) -> usize {
    let accepted = sets.iter().filter(|set| {
        let bounds = peer(set);
        let mut tasks = set.tasks().iter().zip(&bounds);
        let on_time = tasks.all(|(task, bound)| bound.is_some_and(|b| b <= task.deadline().0));
        assert_eq!(ours(set, policy), on_time, "{policy}: {set:#?}");
        on_time
    });
    accepted.count()
}

fn ours(set: &TaskSet, policy: PolicyKind) -> bool {
    let admission = Setting::admission(policy, Overheads::default());
    decide(set, &Setting { time: TimeModel::Discrete, ..admission }).is_ok()
}

//! Best effort as the analyses see it: the background as one blocking stage, a server as a task.

use aegis_sched::analysis::{Analysis, analyse};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Overheads, ServerSpec, Task, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos, Refusal};
use proptest::prelude::*;

const POLICIES: [PolicyKind; 4] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Edf, PolicyKind::Priority];

/// A task of these stages every `period`, with a deadline and a priority.
#[derive(Clone, Debug)]
struct Plain {
    stages: Vec<u64>,
    period: u64,
    deadline: u64,
    priority: u32,
}

fn plain() -> impl Strategy<Value = Plain> {
    let stages = prop::collection::vec(1u64..8, 1..4);
    (stages, 10u64..80, 8u64..120, 0u32..5).prop_map(|(stages, period, deadline, priority)| Plain {
        stages,
        period,
        deadline,
        priority,
    })
}

fn task(index: u16, plain: &Plain) -> Task {
    let spec = TaskSpec {
        model: ModelId::first(index),
        period: Nanos(plain.period),
        deadline: Nanos(plain.deadline),
        jitter: Nanos::ZERO,
        priority: plain.priority,
        stages: plain.stages.iter().copied().map(Nanos).collect(),
    };
    Task::new(spec).expect("positive numbers")
}

fn set(plain: &[Plain]) -> TaskSet {
    let tasks = (0u16..).zip(plain).map(|(index, plain)| task(index, plain)).collect();
    TaskSet::new(tasks).expect("models of their own")
}

/// What an answer says beside who blocks: a stage in the background belongs to nobody here.
fn figures(answer: Result<Analysis, Refusal>) -> Result<Vec<(Nanos, Nanos, Nanos)>, Refusal> {
    let bounds = answer?.bounds;
    Ok(bounds.iter().map(|bound| (bound.response, bound.blocking, bound.slack)).collect())
}

#[test]
fn the_least_urgent_task_is_blocked_by_the_background_too() {
    // (1, 4) and (2, 8) alone: 3 and 3. A stage of 2 in the background delays both.
    let plain =
        |stage, period, priority| Plain { stages: vec![stage], period, deadline: period, priority };
    let set = set(&[plain(1, 4, 0), plain(2, 8, 1)]);
    let none = Overheads::default();
    let responses = |set: &TaskSet| {
        let answer = analyse(set, PolicyKind::Priority, &none).expect("schedulable");
        answer.bounds.iter().map(|bound| bound.response.0).collect::<Vec<_>>()
    };
    assert_eq!(responses(&set), [3, 3]);
    assert_eq!(responses(&set.clone().with_background(Nanos(2))), [3, 5]);
    // The second job of the first arrives at 4, when the other has just started.
    assert_eq!(responses(&set.with_background(Nanos(3))), [4, 6]);
}

proptest! {
    /// The two are one thing to every theorem, with the dispatch of the stage in the background.
    #[test]
    fn the_background_is_a_wake_up_of_its_charge(
        tasks in prop::collection::vec(plain(), 1..5),
        chunk in 1u64..20,
        dispatch in 0u64..3,
        wake in 0u64..20,
    ) {
        let set = set(&tasks);
        for policy in POLICIES {
            let overheads = |wake| Overheads { dispatch: Nanos(dispatch), wake: Nanos(wake), ..Overheads::NONE };
            let beside = set.clone().with_background(Nanos(chunk));
            let beside = analyse(&beside, policy, &overheads(wake));
            let woken = analyse(&set, policy, &overheads(wake.max(chunk + dispatch)));
            prop_assert_eq!(figures(beside), figures(woken), "{}", policy);
        }
    }

    /// Whatever stages a server's budget is spent on, a task that runs exactly these has no larger
    /// bound than the server, and neither has anybody beside it.
    #[test]
    fn a_server_covers_every_way_to_spend_its_budget(
        tasks in prop::collection::vec(plain(), 0..4),
        stages in prop::collection::vec(1u64..6, 1..5),
        unused in 0u64..4,
        longer in 0u64..3,
        period in 10u64..80,
        priority in 0u32..5,
        dispatch in 0u64..3,
    ) {
        let index = u16::try_from(tasks.len()).expect("few");
        let overheads = Overheads { dispatch: Nanos(dispatch), wake: Nanos::ZERO, ..Overheads::NONE };
        let charged = |stage: &u64| stage + dispatch;
        let budget = stages.iter().map(charged).sum::<u64>() + unused;
        let chunk = (stages.iter().map(charged).max().expect("one at least") + longer).min(budget);
        let server = Task::server(ServerSpec {
            model: ModelId::first(index),
            period: Nanos(period),
            priority,
            budget: Nanos(budget),
            chunk: Nanos(chunk),
        });
        let spent = Plain { stages, period, deadline: period, priority };
        let others = set(&tasks);
        for policy in POLICIES {
            let served = others.with(server.clone().expect("valid")).expect("one more");
            let run = others.with(task(index, &spent)).expect("one more");
            let Ok(served) = analyse(&served, policy, &overheads) else { continue };
            let run = analyse(&run, policy, &overheads);
            prop_assert!(run.is_ok(), "{policy}: {run:?}");
            for (served, run) in served.bounds.iter().zip(&run.expect("just looked at").bounds) {
                prop_assert!(run.response <= served.response, "{policy}: {run:?} {served:?}");
            }
        }
    }
}

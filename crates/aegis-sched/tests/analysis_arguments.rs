//! Arguments add up: to the response, to the overflow, and to what `examine` says.

use aegis_sched::analysis::{Explanation, Response, Setting, TimeModel, examine, explain};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos, Refusal};
use expect_test::expect;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const POLICIES: [PolicyKind; 5] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority];

/// A task as `(stages, T, D, J, priority)`.
type Numbers = (Vec<u64>, u64, u64, u64, u32);

fn set(tasks: &[Numbers]) -> TaskSet {
    let tasks =
        tasks.iter().zip(0..).map(|((stages, period, deadline, jitter, priority), index)| {
            let spec = TaskSpec {
                model: ModelId::first(index),
                period: Nanos(*period),
                deadline: Nanos(*deadline),
                jitter: Nanos(*jitter),
                priority: *priority,
                stages: stages.iter().copied().map(Nanos).collect(),
            };
            Task::new(spec).expect("a valid task")
        });
    TaskSet::new(tasks.collect()).expect("a valid set")
}

fn setting(policy: PolicyKind, time: TimeModel) -> Setting {
    Setting { time, ..Setting::admission(policy, Overheads::default()) }
}

/// Checks what the module promises; how many cases and windows there were.
fn adds_up(explanation: &Explanation) -> (usize, usize) {
    for task in &explanation.tasks {
        let Some(case) = &task.case else {
            assert_eq!(task.response.bound(), None, "{explanation}");
            continue;
        };
        let work: Nanos = case.shares.iter().map(|share| share.work()).sum();
        let held = case.blocking + case.committed + case.overrun;
        assert_eq!(work + held, case.completion, "{task:?}");
        let response = case.completion + task.jitter - case.visible;
        assert_eq!(task.response, Response::Bounded(response), "{task:?}");
        let own = case.shares.last().expect("its own job");
        assert_eq!((own.model, own.jobs), (task.model, case.job + 1), "{task:?}");
        assert!(case.busy.is_none_or(|busy| case.visible < busy), "{task:?}");
    }
    if let Some(window) = &explanation.window {
        let work: Nanos = window.demand.iter().map(|share| share.work()).sum();
        let work = work + window.overrun;
        assert!(work + window.blocking + window.committed > window.length, "{window:?}");
        let Err(Refusal::DemandExceedsWindow { demand, .. }) = explanation.findings.verdict else {
            panic!("a window without a refusal by demand: {explanation}");
        };
        assert_eq!(work, demand);
    }
    let cases = explanation.tasks.iter().filter(|task| task.case.is_some()).count();
    (cases, explanation.window.iter().count())
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let stages = prop::collection::vec(1u64..6, 1..4);
    (stages, 0u64..40, 1u64..60, 0u64..50, 0u32..4).prop_map(
        |(stages, rest, deadline, jitter, priority)| {
            let period = stages.iter().sum::<u64>() + rest;
            (stages, period, deadline, jitter, priority)
        },
    )
}

/// So many cases, with failing seeds kept beside this file.
fn cases(cases: u32) -> ProptestConfig {
    let kept = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn shares_add_up_exactly_to_what_was_found(
        tasks in prop::collection::vec(numbers(), 1..6),
        dispatch in 0u64..3,
        wake in 0u64..9,
        background in 0u64..9,
        overrun in prop_oneof![Just(0u64), 1u64..9],
        look_ahead: bool,
    ) {
        let set = set(&tasks).with_background(Nanos(background));
        for policy in POLICIES {
            for time in [TimeModel::Dense, TimeModel::Discrete] {
                let (dispatch, wake) = (Nanos(dispatch), Nanos(wake));
                let overheads = Overheads { dispatch, wake, look_ahead, ..Overheads::NONE };
                let overrun = Nanos(overrun);
                let setting = Setting { overheads, overrun, ..setting(policy, time) };
                let explanation = explain(&set, &setting);
                prop_assert_eq!(&explanation.findings, &examine(&set, &setting));
                adds_up(&explanation);
            }
        }
    }
}

/// The example of Davis et al. 2007.
fn can() -> TaskSet {
    set(&[(vec![100], 250, 250, 0, 1), (vec![100], 350, 325, 0, 2), (vec![100], 350, 325, 0, 3)])
}

#[test]
fn the_second_job_of_the_can_example_is_the_worst_and_says_so() {
    let explanation = explain(&can(), &setting(PolicyKind::Priority, TimeModel::Discrete));
    assert_eq!(adds_up(&explanation), (3, 0));
    expect![[r#"
        not schedulable: m2: response 350 ns > deadline 325 ns
          utilisation 0.971428, decided by non-preemptive fixed-priority response times (exact here)
        m0: response 199 ns <= deadline 250 ns, slack 51 ns
          worst is job 1 in a busy period of at most 199 ns: visible at 0 ns, due at 250 ns
          +  99 ns  blocking by a stage of m2 that had started a tick before
          + 100 ns  1 job of m0, its last stage (100 ns) from 99 ns on
          = 199 ns  when it ends
          = 199 ns  response
        m1: response 299 ns <= deadline 325 ns, slack 26 ns
          worst is job 1 in a busy period of at most 499 ns: visible at 0 ns, due at 325 ns
          +  99 ns  blocking by a stage of m2 that had started a tick before
          + 100 ns  1 job of m0
          + 100 ns  1 job of m1, its last stage (100 ns) from 199 ns on
          = 299 ns  when it ends
          = 299 ns  response
        m2: response 350 ns > deadline 325 ns
          worst is job 2 in a busy period of at most 700 ns: visible at 350 ns, due at 675 ns
          + 300 ns  3 jobs of m0, 100 ns each
          + 200 ns  2 jobs of m1, 100 ns each
          + 200 ns  2 jobs of m2, 100 ns each, its last stage (100 ns) from 600 ns on
          = 700 ns  when it ends
          - 350 ns  when it is visible
          = 350 ns  response"#]]
    .assert_eq(&explanation.to_string());
}

#[test]
fn a_refusal_under_edf_shows_the_window_that_overflows() {
    let set = set(&[(vec![2], 5, 4, 1, 0), (vec![3], 20, 9, 0, 0), (vec![3, 2], 30, 30, 0, 0)]);
    let explanation = explain(&set, &setting(PolicyKind::Edf, TimeModel::Dense));
    assert_eq!(adds_up(&explanation).1, 1);
    expect![[r#"
        not schedulable: demand 2 ns + blocking 3 ns by a stage of m2 > window 3 ns
          utilisation 0.716666, decided by non-preemptive EDF demand and blocking (not exact here)
          in a window of 3 ns:
          + 3 ns  blocking by a stage of m2 that had just started
          + 2 ns  1 job of m0
          = 5 ns  which is more than 3 ns
        m0: response 6 ns > deadline 4 ns
          worst is job 1 in a busy period of at most 14 ns: visible at 0 ns, due at 3 ns
          + 3 ns  blocking by a stage of m2 that had just started
          + 2 ns  1 job of m0, its last stage (2 ns) from 3 ns on
          = 5 ns  when it ends
          + 1 ns  by which that may be later than its release
          = 6 ns  response
        m1: response 10 ns > deadline 9 ns
          worst is job 1 in a busy period of at most 14 ns: visible at 0 ns, due at 9 ns
          +  3 ns  blocking by a stage of m2 that had just started
          +  4 ns  2 jobs of m0, 2 ns each
          +  3 ns  1 job of m1, its last stage (3 ns) from 7 ns on
          = 10 ns  when it ends
          = 10 ns  response
        m2: response 14 ns <= deadline 30 ns, slack 16 ns
          worst is job 1 in a busy period of at most 14 ns: visible at 0 ns, due at 30 ns
          +  6 ns  3 jobs of m0, 2 ns each
          +  3 ns  1 job of m1
          +  5 ns  1 job of m2, its last stage (2 ns) from 12 ns on
          = 14 ns  when it ends
          = 14 ns  response"#]]
    .assert_eq(&explanation.to_string());
}

#[test]
fn a_backlog_without_end_has_no_case() {
    let set = set(&[(vec![2], 3, 6, 0, 0), (vec![2], 3, 6, 0, 1)]);
    let explanation = explain(&set, &setting(PolicyKind::Priority, TimeModel::Dense));
    assert_eq!(adds_up(&explanation), (1, 0));
    expect![[r#"
        not schedulable: utilisation 1.3333 is more than the device: sum C/T must not exceed 1
          utilisation 1.333333, decided by non-preemptive fixed-priority response times (exact here)
        m0: response 4 ns <= deadline 6 ns, slack 2 ns
          worst is job 1 in a busy period of at most 4 ns: visible at 0 ns, due at 6 ns
          + 2 ns  blocking by a stage of m1 that had just started
          + 2 ns  1 job of m0, its last stage (2 ns) from 2 ns on
          = 4 ns  when it ends
          = 4 ns  response
        m1: no bound, the backlog can grow for ever"#]]
    .assert_eq(&explanation.to_string());
}

#[test]
fn first_in_first_out_with_jitter_is_written_out_too() {
    let set = set(&[(vec![2], 5, 9, 6, 0), (vec![3], 20, 20, 0, 0)]);
    let explanation = explain(&set, &setting(PolicyKind::Fifo, TimeModel::Dense));
    assert_eq!(adds_up(&explanation), (2, 0));
    expect![[r#"
        not schedulable: m0: response 11 ns > deadline 9 ns
          utilisation 0.550000, decided by first in, first out response times (not exact here)
        m0: response 11 ns > deadline 9 ns
          worst is job 1 in a busy period of at most 9 ns: visible at 0 ns, due at 3 ns
          +  3 ns  1 job of m1
          +  2 ns  1 job of m0, its last stage (2 ns) from 3 ns on
          =  5 ns  when it ends
          +  6 ns  by which that may be later than its release
          = 11 ns  response
        m1: response 7 ns <= deadline 20 ns, slack 13 ns
          worst is job 1 in a busy period of at most 9 ns: visible at 0 ns, due at 20 ns
          + 4 ns  2 jobs of m0, 2 ns each
          + 3 ns  1 job of m1, its last stage (3 ns) from 4 ns on
          = 7 ns  when it ends
          = 7 ns  response"#]]
    .assert_eq(&explanation.to_string());
}

#[test]
fn a_set_too_large_to_be_read_by_anybody_keeps_its_bounds() {
    let tasks: Vec<Numbers> =
        (0..1_600).map(|index| (vec![1], 1 << 20, 1 << 20, 0, index)).collect();
    let explanation = explain(&set(&tasks), &setting(PolicyKind::Rms, TimeModel::Dense));
    let (written, _) = adds_up_so_far(&explanation);
    assert_eq!(written, (1 << 20) / 1_600);
    assert!(explanation.tasks.iter().all(|task| task.response == Response::Bounded(Nanos(1_600))));
    assert!(explanation.to_string().ends_with("not written out: the set is too large"));
}

/// As [`adds_up`], for those that are written out.
fn adds_up_so_far(explanation: &Explanation) -> (usize, usize) {
    let tasks = explanation.tasks.iter().filter(|task| task.case.is_some()).cloned().collect();
    adds_up(&Explanation { tasks, ..explanation.clone() })
}

//! Models come and go, and every answer is the one that a fresh analysis gives.

use aegis_sched::analysis::analyse;
use aegis_sched::analysis::incremental::{AnalysedSet, JoinError};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Overheads, Task, TaskError, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos, Refusal};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const POLICIES: [PolicyKind; 5] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority];

/// What a caller does to the set.
#[derive(Clone, Debug)]
enum Step {
    Join(TaskSpec),
    /// Of those that are there.
    Leave(prop::sample::Index),
    Background(u64),
}

fn task() -> impl Strategy<Value = TaskSpec> {
    let stages = prop::collection::vec(1u64..9, 1..4);
    (stages, 20u64..300, 20u64..300, 0u64..15, 0u32..5).prop_map(
        |(stages, period, room, jitter, priority)| {
            let cost: u64 = stages.iter().sum();
            TaskSpec {
                model: ModelId::first(0),
                period: Nanos(cost + period),
                deadline: Nanos(jitter + cost + room),
                jitter: Nanos(jitter),
                priority,
                stages: stages.into_iter().map(Nanos).collect(),
            }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => task().prop_map(Step::Join),
        2 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => (0u64..6).prop_map(Step::Background),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..Default::default()
    })]

    #[test]
    fn every_answer_is_that_of_a_fresh_analysis(
        steps in prop::collection::vec(step(), 1..14), dispatch in 0u64..3, wake in 0u64..3,
        look_ahead: bool,
    ) {
        let (dispatch, wake) = (Nanos(dispatch), Nanos(wake));
        let overheads = Overheads { dispatch, wake, look_ahead, ..Overheads::NONE };
        for policy in POLICIES {
            let mut set = AnalysedSet::new(TaskSet::default(), policy, overheads)
                .expect("nothing to do");
            for (step, number) in steps.iter().zip(0..) {
                set = take(&set, step, number, policy, &overheads)?;
                let fresh = analyse(set.tasks(), policy, &overheads);
                prop_assert_eq!(Ok(set.analysis()), fresh.as_ref(), "{} after {:?}", policy, step);
            }
        }
    }
}

/// The set after `step`; the same set if that is refused, as a fresh analysis must refuse it.
fn take(
    set: &AnalysedSet,
    step: &Step,
    number: u16,
    policy: PolicyKind,
    overheads: &Overheads,
) -> Result<AnalysedSet, TestCaseError> {
    let fresh = |tasks: &TaskSet| analyse(tasks, policy, overheads).err();
    let (after, refused): (Result<AnalysedSet, Refusal>, Option<Refusal>) = match step {
        Step::Join(spec) => {
            let spec = TaskSpec { model: ModelId::first(number), ..spec.clone() };
            let task = Task::new(spec).expect("a valid task");
            let refused = fresh(&set.tasks().with(task.clone()).expect("a new model"));
            let after = set.with(task).map_err(|error| match error {
                JoinError::Refused(refusal) => refusal,
                other => panic!("a valid task: {other}"),
            });
            (after, refused)
        }
        Step::Leave(_) if set.tasks().is_empty() => return Ok(set.clone()),
        Step::Leave(which) => {
            let model = set.tasks().tasks()[which.index(set.tasks().len())].model();
            (Ok(set.without(model)), None)
        }
        Step::Background(piece) => {
            let refused = fresh(&set.tasks().clone().with_background(Nanos(*piece)));
            (set.with_background(Nanos(*piece)), refused)
        }
    };
    prop_assert_eq!(after.as_ref().err(), refused.as_ref(), "{} {:?}", policy, step);
    Ok(after.unwrap_or_else(|_| set.clone()))
}

#[test]
fn a_model_that_is_there_already_is_named() {
    let spec = TaskSpec {
        model: ModelId::first(3),
        period: Nanos(10),
        deadline: Nanos(10),
        jitter: Nanos::ZERO,
        priority: 0,
        stages: vec![Nanos(1)],
    };
    let task = Task::new(spec).expect("a valid task");
    let set = AnalysedSet::new(TaskSet::default(), PolicyKind::Edf, Overheads::default());
    let set = set.expect("nothing to do").with(task.clone()).expect("nearly idle");
    let twice = JoinError::Invalid(TaskError::DuplicateModel { model: ModelId::first(3) });
    assert_eq!(set.with(task), Err(twice));
    assert_eq!(set.without(ModelId::first(9)), set);
}

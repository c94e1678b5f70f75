//! Inherited jitters as admission takes them, against the fixed point and against parts of the set.

use aegis_sched::analysis::chain::{Chain, triggered};
use aegis_sched::analysis::derivation::{NotDerived, RefusalDerivation, derive_refusal_with};
use aegis_sched::analysis::incremental::AnalysedSet;
use aegis_sched::analysis::inherit::{InheritError, with_inherited_jitter};
use aegis_sched::analysis::{Response, Setting, decide};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::{Category, ModelId, Nanos, Refusal};
use proptest::prelude::*;

const POLICIES: [PolicyKind; 5] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority];

fn overheads() -> Overheads {
    Overheads { dispatch: Nanos(1), wake: Nanos(2), ..Overheads::NONE }
}

fn model(index: usize) -> ModelId {
    ModelId::first(u16::try_from(index).expect("a handful"))
}

/// Cost, stages, deadline in percent of the period, jitter.
type Draw = (u64, u64, u64, u64);

/// The first `members` tasks share a period and are a chain; their order in it is that of `turn`.
fn system(draws: &[Draw], periods: &[u64], members: usize, turn: bool) -> (TaskSet, Chain) {
    let task = |(index, (cost, stages, percent, jitter)): (usize, &Draw)| {
        let period = if index < members { periods[0] } else { periods[index] };
        Task::new(TaskSpec {
            model: model(index),
            period: Nanos(period),
            deadline: Nanos(period * percent / 100),
            jitter: Nanos(*jitter),
            priority: u32::try_from(index).expect("a handful"),
            stages: vec![Nanos(*cost); usize::try_from(*stages).expect("a handful")],
        })
        .expect("a valid task")
    };
    let set = TaskSet::new(draws.iter().enumerate().map(task).collect()).expect("a valid set");
    let mut chain: Vec<ModelId> = (0..members).map(model).collect();
    if turn {
        chain.reverse();
    }
    (set, Chain::new(chain).expect("each once"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Exactly what is refused has steps to an inequality that fails, and no step says more than the
    /// fixed point.
    #[test]
    fn a_refused_set_has_steps_to_its_refusal_and_an_accepted_one_has_none(
        draws in prop::collection::vec((1u64..20, 1u64..3, 60u64..260, 0u64..5), 4),
        periods in prop::collection::vec(60u64..240, 4),
        members in 2usize..4,
        turn in any::<bool>(),
    ) {
        let (set, chain) = system(&draws, &periods, members, turn);
        let chains = std::slice::from_ref(&chain);
        for policy in POLICIES {
            let setting = Setting::admission(policy, overheads());
            let accepted = with_inherited_jitter(&set, chains, &setting);
            let derived = derive_refusal_with(&set, chains, &setting);
            let Ok(refusal) = derived else {
                prop_assert_eq!(derived, Err(NotDerived::Passes));
                prop_assert!(accepted.is_ok(), "{:?}", policy);
                continue;
            };
            prop_assert!(accepted.is_err(), "{:?}: {:?}", policy, refusal);
            let fixed = triggered(&set, chains, &setting).expect("it fits").responses;
            for step in &refusal.steps {
                let place = chain.members().iter().position(|it| *it == step.model).expect("of it");
                let trigger = chain.members()[place - 1];
                let own = set.get(step.model).expect("of it").jitter();
                let place = set.tasks().iter().position(|it| it.model() == trigger).expect("of it");
                if let Response::Bounded(response) = fixed[place] {
                    prop_assert!(step.jitter <= response + own, "{:?}: {:?}", policy, step);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Accepted exactly if the fixed point meets every deadline; and then each jitter is what the
    /// trigger's bound asks for, in the whole set and in every prefix that admission meets.
    #[test]
    fn the_inherited_set_is_the_fixed_point_and_holds_for_its_parts(
        draws in prop::collection::vec((1u64..12, 1u64..3, 60u64..260, 0u64..5), 4),
        periods in prop::collection::vec(60u64..240, 4),
        members in 2usize..4,
        turn in any::<bool>(),
    ) {
        let (set, chain) = system(&draws, &periods, members, turn);
        for policy in POLICIES {
            let setting = Setting::admission(policy, overheads());
            let fixed = triggered(&set, std::slice::from_ref(&chain), &setting).expect("it fits");
            let on_time = set.tasks().iter().zip(&fixed.responses).all(|(task, response)| {
                matches!(response, Response::Bounded(response) if *response <= task.deadline())
            });
            let found = with_inherited_jitter(&set, std::slice::from_ref(&chain), &setting);
            // The staged test under EDF may refuse what the responses accept; never the reverse.
            let sufficient = policy == PolicyKind::Edf && draws.iter().any(|draw| draw.1 > 1);
            prop_assert!(found.is_ok() == on_time || (sufficient && on_time), "{policy:?}");
            let Ok(inherited) = found else { continue };
            prop_assert!(decide(&inherited, &setting).is_ok());
            let empty = AnalysedSet::new(TaskSet::default(), policy, overheads()).expect("empty");
            let mut admitted = empty;
            for task in inherited.tasks() {
                admitted = admitted.with(task.clone()).expect("a part of an accepted set");
                for pair in chain.members().windows(2) {
                    let bounds = &admitted.analysis().bounds;
                    let Some(trigger) = bounds.iter().find(|b| b.model == pair[0]) else { continue };
                    let (known, own) = (inherited.get(pair[1]), set.get(pair[1]));
                    let (known, own) = (known.expect("a member"), own.expect("a member"));
                    prop_assert!(trigger.response + own.jitter() <= known.jitter(), "{policy:?}");
                }
            }
        }
    }
}

#[test]
fn a_task_that_makes_a_trigger_too_late_is_refused_with_the_inequality() {
    let draws = [(10, 1, 100, 0), (10, 1, 55, 0), (25, 1, 400, 0)];
    let (set, chain) = system(&draws, &[100, 100, 200], 2, false);
    let setting = Setting::admission(PolicyKind::Priority, Overheads::default());
    assert!(decide(&set, &setting).is_ok(), "without the chain all is well");
    // The trigger takes up to 25 + 10, and what it triggers 25 + 10 + 10 from then on.
    let refused =
        with_inherited_jitter(&set, &[chain], &setting).expect_err("35 before it, then 45");
    assert_eq!(refused.category(), Category::Permanent);
    let InheritError::Refused(refusal) = refused else { panic!("an inequality: {refused}") };
    expect_test::expect![
        "m1: response 80 ns > deadline 55 ns, of which 25 ns is blocking by a stage of m2"
    ]
    .assert_eq(&refusal.to_string());
}

/// Two tasks of which the second is late, and which take more than one term to analyse.
#[test]
fn what_admission_had_no_patience_for_is_decided_with_more() {
    let (late, chain) = system(&[(5, 1, 100, 0), (9, 1, 25, 0)], &[60, 90], 2, false);
    let (fits, _) = system(&[(5, 1, 100, 0), (9, 1, 100, 0)], &[60, 90], 2, false);
    for policy in [PolicyKind::Rms, PolicyKind::Edf, PolicyKind::Fifo] {
        let hasty = Setting { terms: 1, ..Setting::admission(policy, overheads()) };
        assert!(matches!(decide(&late, &hasty), Err(Refusal::Undecided { .. })), "{policy:?}");
        let derived = derive_refusal_with(&late, &[], &hasty).expect("64 terms are enough");
        let of_late = |model| model == chain.members()[1];
        assert!(
            match derived.refusal {
                RefusalDerivation::Response { model, .. } => of_late(model),
                RefusalDerivation::Queue { model, .. } => of_late(model),
                RefusalDerivation::Demand { .. } => policy == PolicyKind::Edf,
                _ => false,
            },
            "{derived:?}"
        );
        assert_eq!(derive_refusal_with(&fits, &[], &hasty), Err(NotDerived::Passes), "{policy:?}");
    }
}

//! The edges of a set, one unit wide.
//!
//! The test says *yes* at the value that is given and *no* one unit further, every counter-offer is
//! admitted when tried, and no order of priorities was overlooked.

use aegis_sched::analysis::counter_offer::{Offer, background_pieces, counter_offers};
use aegis_sched::analysis::priority_assignment::some_order;
use aegis_sched::analysis::quick::quick_tests;
use aegis_sched::analysis::sensitivity::{
    PPM, largest_background, largest_scale_ppm, overrun_margin, task_sensitivities,
};
use aegis_sched::analysis::{Setting, TimeModel, decide, examine};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Policies under which more load, a smaller period or deadline never helps.
const MONOTONE: [PolicyKind; 3] = [PolicyKind::Fifo, PolicyKind::Edf, PolicyKind::Priority];

fn cases(cases: u32) -> ProptestConfig {
    let kept = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(kept)), ..Default::default() }
}

/// A task of 1 to 3 stages; utilisation mostly small enough that both answers occur.
fn task() -> impl Strategy<Value = TaskSpec> {
    let stages = prop::collection::vec(1u64..12, 1..4);
    (stages, 10u64..120, 0u64..120, 0u64..12, 0u32..4).prop_map(
        |(stages, period, more, jitter, priority)| {
            let cost: u64 = stages.iter().sum();
            TaskSpec {
                model: ModelId::first(0),
                period: Nanos(cost + period),
                deadline: Nanos(jitter + cost + more),
                jitter: Nanos(jitter),
                priority,
                stages: stages.into_iter().map(Nanos).collect(),
            }
        },
    )
}

fn specs(most: usize) -> impl Strategy<Value = Vec<TaskSpec>> {
    prop::collection::vec(task(), 1..=most)
}

fn set(specs: &[TaskSpec]) -> TaskSet {
    let numbered = specs.iter().zip(0..).map(|(spec, index)| {
        Task::new(TaskSpec { model: ModelId::first(index), ..spec.clone() }).expect("a valid task")
    });
    TaskSet::new(numbered.collect()).expect("every model once")
}

fn setting(policy: PolicyKind, time: TimeModel, dispatch: u64) -> Setting {
    // With look-ahead in half of the cases, so that what is monotone stays so beside its charge.
    with_look_ahead(dispatch % 2 == 1, policy, time, dispatch)
}

fn with_look_ahead(
    look_ahead: bool,
    policy: PolicyKind,
    time: TimeModel,
    dispatch: u64,
) -> Setting {
    let overheads = Overheads { dispatch: Nanos(dispatch), look_ahead, ..Overheads::NONE };
    Setting { time, ..Setting::admission(policy, overheads) }
}

fn time_model() -> impl Strategy<Value = TimeModel> {
    prop_oneof![Just(TimeModel::Dense), Just(TimeModel::Discrete)]
}

fn scaled(specs: &[TaskSpec], ppm: u64) -> TaskSet {
    let stage = |stage: &Nanos| Nanos((stage.0 * ppm).div_ceil(PPM).max(1));
    let scaled: Vec<TaskSpec> = specs
        .iter()
        .map(|spec| TaskSpec { stages: spec.stages.iter().map(stage).collect(), ..spec.clone() })
        .collect();
    set(&scaled)
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn costs_scale_up_to_the_edge_and_no_further(
        specs in specs(4), time in time_model(), dispatch in 0u64..3
    ) {
        for policy in MONOTONE {
            let setting = setting(policy, time, dispatch);
            let ppm = largest_scale_ppm(&set(&specs), &setting);
            prop_assert_eq!(ppm >= PPM, decide(&set(&specs), &setting).is_ok(), "{}", policy);
            if ppm > 0 {
                prop_assert!(decide(&scaled(&specs, ppm), &setting).is_ok(), "{policy} {ppm}");
            }
            prop_assert!(decide(&scaled(&specs, ppm + 1), &setting).is_err(), "{policy} {ppm}");
        }
    }

    #[test]
    fn a_background_piece_fits_up_to_the_edge_and_no_further(
        specs in specs(4), time in time_model(), dispatch in 0u64..3
    ) {
        for policy in MONOTONE {
            let setting = setting(policy, time, dispatch);
            let beside = |piece: Nanos| decide(&set(&specs).with_background(piece), &setting);
            match largest_background(&set(&specs), &setting) {
                None => prop_assert!(beside(Nanos::ZERO).is_err()),
                Some(piece) => {
                    prop_assert!(beside(piece).is_ok(), "{policy} {piece}");
                    prop_assert!(beside(piece + Nanos(1)).is_err(), "{policy} {piece}");
                }
            }
        }
    }

    #[test]
    fn overruns_are_tolerated_up_to_the_margin_and_no_further(
        specs in specs(4), time in time_model(), look_ahead: bool
    ) {
        for policy in MONOTONE {
            let plain = with_look_ahead(look_ahead, policy, time, 1);
            let with = |overrun: Nanos| decide(&set(&specs), &Setting { overrun, ..plain });
            match overrun_margin(&set(&specs), &plain) {
                None => prop_assert!(with(Nanos::ZERO).is_err()),
                Some(margin) => {
                    prop_assert!(with(margin).is_ok(), "{policy} {margin}");
                    prop_assert!(with(margin + Nanos(1)).is_err(), "{policy} {margin}");
                }
            }
        }
    }

    #[test]
    fn every_edge_of_a_task_is_one(
        specs in specs(3), time in time_model(), look_ahead: bool
    ) {
        for policy in MONOTONE {
            let setting = with_look_ahead(look_ahead, policy, time, 1);
            let Some(found) = task_sensitivities(&set(&specs), &setting) else {
                prop_assert!(decide(&set(&specs), &setting).is_err());
                continue;
            };
            for (index, edge) in found.iter().enumerate() {
                let with = |change: &dyn Fn(&mut TaskSpec)| {
                    let mut changed = specs.clone();
                    change(&mut changed[index]);
                    decide(&set(&changed), &setting).is_ok()
                };
                let (period, deadline) = (edge.smallest_period, edge.smallest_deadline);
                prop_assert!(with(&|spec| spec.period = period));
                prop_assert!(period == Nanos(1) || !with(&|spec| spec.period = period - Nanos(1)));
                prop_assert!(with(&|spec| spec.deadline = deadline));
                prop_assert!(!with(&|spec| spec.deadline = deadline - Nanos(1)));
                prop_assert!(edge.largest_cost >= specs[index].stages.iter().copied().sum());
                if let [_] = specs[index].stages[..] {
                    let cost = edge.largest_cost;
                    prop_assert!(with(&|spec| spec.stages = vec![cost]));
                    prop_assert!(!with(&|spec| spec.stages = vec![cost + Nanos(1)]));
                }
                // Somebody else's stage is a background piece, with its overhead, seen by this task alone.
                let meets = |foreign: Nanos| {
                    let beside = set(&specs).with_background(foreign - Nanos(1));
                    let response = examine(&beside, &setting).responses[index].bound();
                    response.is_some_and(|response| response <= specs[index].deadline)
                };
                let foreign = edge.longest_foreign_stage;
                prop_assert!(foreign <= Nanos(1) || meets(foreign), "{policy} {index} {foreign}");
                // A task alone is charged for look-ahead beside another task, not beside a piece.
                let alone = look_ahead && specs.len() == 1;
                prop_assert!(alone || !meets(foreign + Nanos(2)), "{policy} {index} {foreign}");
            }
        }
    }

    #[test]
    fn every_counter_offer_is_admitted_when_tried(
        specs in specs(4), time in time_model(), dispatch in 0u64..3
    ) {
        for policy in [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority] {
            let setting = setting(policy, time, dispatch);
            let offers = counter_offers(&set(&specs), &setting);
            prop_assert!(offers.is_empty() || decide(&set(&specs), &setting).is_err());
            for offer in offers {
                let taken = take(&specs, &offer);
                prop_assert!(decide(&taken, &setting).is_ok(), "{policy}: {offer:?}");
            }
        }
    }

    #[test]
    fn an_order_of_priorities_is_found_exactly_when_there_is_one(
        specs in specs(4), time in time_model(), dispatch in 0u64..2
    ) {
        let setting = setting(PolicyKind::Priority, time, dispatch);
        let with = |order: &[u32]| {
            let specs = specs.iter().zip(order);
            let specs: Vec<TaskSpec> =
                specs.map(|(spec, priority)| TaskSpec { priority: *priority, ..spec.clone() }).collect();
            decide(&set(&specs), &setting).is_ok()
        };
        let any = orders(specs.len()).into_iter().any(|order| with(&order));
        match some_order(&set(&specs), &setting) {
            Ok(order) => prop_assert!(with(&order), "{order:?}"),
            Err(refusal) => prop_assert!(!any, "{refusal}"),
        }
    }

    #[test]
    fn a_quick_test_never_accepts_what_misses(
        specs in specs(5), time in time_model(), dispatch in 0u64..2, implicit in any::<bool>()
    ) {
        let specs: Vec<TaskSpec> = specs
            .into_iter()
            .map(|spec| match implicit {
                true => TaskSpec { jitter: Nanos::ZERO, deadline: spec.period, ..spec },
                false => spec,
            })
            .collect();
        for policy in [PolicyKind::Rms, PolicyKind::Edf] {
            let setting = setting(policy, time, dispatch);
            let accepted = quick_tests(&set(&specs), &setting);
            let verdict = decide(&set(&specs), &setting);
            prop_assert!(accepted.is_empty() || verdict.is_ok(), "{accepted:?}: {verdict:?}");
        }
    }
}

/// The set with an offer taken.
fn take(specs: &[TaskSpec], offer: &Offer) -> TaskSet {
    let mut taken = specs.to_vec();
    let last = taken.last_mut().expect("an offer is made to somebody");
    match offer {
        Offer::Period { period } => {
            if last.deadline == last.period {
                last.deadline = *period;
            }
            last.period = *period;
        }
        Offer::Deadline { deadline } => last.deadline = *deadline,
        Offer::Stages { model, stages } => {
            let spec = &mut taken[usize::from(model.index)];
            let cost: u64 = spec.stages.iter().map(|stage| stage.0).sum();
            let stage = cost.div_ceil(u64::from(*stages));
            let last = cost - stage * (u64::from(*stages) - 1);
            spec.stages = vec![Nanos(stage); *stages as usize - 1];
            spec.stages.push(Nanos(last));
        }
        Offer::Without { model } => return set(&taken).without(*model),
        Offer::Priorities { priorities } => {
            for (model, priority) in priorities {
                taken[usize::from(model.index)].priority = *priority;
            }
        }
        other => panic!("an offer of a kind that is not known here: {other:?}"),
    }
    set(&taken)
}

/// Every order of `0..n`.
fn orders(n: usize) -> Vec<Vec<u32>> {
    let Some(last) = n.checked_sub(1) else { return vec![Vec::new()] };
    let insert = |order: Vec<u32>| {
        (0..n).map(move |place| {
            let mut order = order.clone();
            order.insert(place, u32::try_from(last).expect("few tasks"));
            order
        })
    };
    orders(last).into_iter().flat_map(insert).collect()
}

fn one(cost: u64, period: u64, priority: u32) -> TaskSpec {
    TaskSpec {
        model: ModelId::first(0),
        period: Nanos(period),
        deadline: Nanos(period),
        jitter: Nanos::ZERO,
        priority,
        stages: vec![Nanos(cost)],
    }
}

#[test]
fn the_example_of_limited_preemption_is_offered_as_stages() {
    // Davis et al. and Bertogna et al. give sets of this shape: 12 whole blocks 8, 4 thrice does not.
    let specs = [one(2, 8, 0), one(12, 40, 1)];
    let offers = counter_offers(&set(&specs), &setting(PolicyKind::Priority, TimeModel::Dense, 0));
    assert_eq!(
        offers,
        [
            Offer::Stages { model: ModelId::first(1), stages: 2 },
            Offer::Without { model: ModelId::first(0) },
        ]
    );
}

#[test]
fn no_order_is_claimed_where_rate_monotonic_order_is_not_optimal() {
    // George, Rivierre, Spuri 1996: without preemption an order by period can miss where another
    // does not. Here the task of the longer period must go first: it tolerates 3, the other 6.
    let specs = [
        TaskSpec { deadline: Nanos(9), ..one(3, 10, 0) },
        TaskSpec { deadline: Nanos(6), ..one(3, 12, 1) },
    ];
    let setting = setting(PolicyKind::Priority, TimeModel::Dense, 0);
    let rate_monotonic = Setting { policy: PolicyKind::Rms, ..setting };
    assert!(decide(&set(&specs), &rate_monotonic).is_ok());
    assert_eq!(some_order(&set(&specs), &setting), Ok(vec![1, 0]));
}

#[test]
fn the_set_that_both_utilisation_tests_of_preemptive_theory_accept_is_not_accepted() {
    // Utilisation 0.8, within 2 (sqrt 2 - 1); the short task waits up to 3 and misses.
    let specs = [one(1, 2, 0), one(3, 10, 1)];
    for policy in [PolicyKind::Rms, PolicyKind::Edf] {
        let setting = setting(policy, TimeModel::Dense, 0);
        assert!(quick_tests(&set(&specs), &setting).is_empty());
        assert!(decide(&set(&specs), &setting).is_err());
    }
}

#[test]
fn the_largest_cost_is_exact_to_the_nanosecond() {
    // A millionth of this cost is a thousand nanoseconds.
    let specs = [one(1_000_000_000, 1_500_000_123, 0)];
    let setting = setting(PolicyKind::Edf, TimeModel::Dense, 0);
    let edges = task_sensitivities(&set(&specs), &setting).expect("two thirds of the device");
    assert_eq!(edges[0].largest_cost, Nanos(1_500_000_123));
}

#[test]
fn work_in_the_background_is_offered_the_pieces_that_are_tolerated() {
    let specs = [one(2, 8, 0)];
    let setting = setting(PolicyKind::Edf, TimeModel::Dense, 0);
    assert_eq!(largest_background(&set(&specs), &setting), Some(Nanos(6)));
    assert_eq!(background_pieces(&set(&specs), Nanos(20), &setting), Some(4));
    assert_eq!(background_pieces(&set(&specs), Nanos(400), &setting), None, "past 64 stages");
}

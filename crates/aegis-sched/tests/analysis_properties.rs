//! What must hold for all sets: naive twins agree, more work never helps, and nothing panics.

use aegis_sched::analysis::{Analysis, Bound, analyse};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::{Category, Limit, ModelId, Nanos, Refusal};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const POLICIES: [PolicyKind; 5] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority];

/// So many cases, with failing seeds kept beside this file.
fn cases(cases: u32) -> ProptestConfig {
    let kept = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() }
}

fn set(specs: &[TaskSpec]) -> TaskSet {
    let named = specs.iter().zip(0..).map(|(spec, index)| {
        let model = ModelId::first(index);
        Task::new(TaskSpec { model, ..spec.clone() }).expect("a valid task")
    });
    TaskSet::new(named.collect()).expect("a valid set")
}

fn answer(specs: &[TaskSpec], policy: PolicyKind) -> Result<Analysis, Refusal> {
    analyse(&set(specs), policy, &Overheads::default())
}

fn stages(most: usize, longest: u64) -> impl Strategy<Value = Vec<Nanos>> {
    prop::collection::vec((1..=longest).prop_map(Nanos), 1..=most)
}

/// A task with small numbers; about half of the sets of a few of them are schedulable.
fn small_task(most_stages: usize, most_jitter: u64) -> impl Strategy<Value = TaskSpec> {
    let numbers = (5u64..60, 0u64..50, 0..=most_jitter, 0u32..4);
    (stages(most_stages, 4), numbers).prop_map(|(stages, (period, extra, jitter, priority))| {
        let cost: Nanos = stages.iter().copied().sum();
        TaskSpec {
            model: ModelId::first(0),
            period: Nanos(period) + cost,
            deadline: cost + Nanos(jitter + extra),
            jitter: Nanos(jitter),
            priority,
            stages,
        }
    })
}

fn small_set(most_stages: usize, most_jitter: u64) -> impl Strategy<Value = Vec<TaskSpec>> {
    prop::collection::vec(small_task(most_stages, most_jitter), 1..6)
}

/// Any valid task whatsoever, near the limits and at utilisations just around 1.
fn any_task() -> impl Strategy<Value = TaskSpec> {
    let time = prop_oneof![
        1u64..20,
        Just(Task::LONGEST.0),
        Task::LONGEST.0 - 20..Task::LONGEST.0,
        1..=Task::LONGEST.0,
    ];
    let near = prop_oneof![Just(0u64), 0u64..10, 0..=Task::LONGEST.0];
    (time.clone(), time, near, 1u64..6, 0u32..3).prop_map(
        |(period, deadline, jitter, parts, priority)| TaskSpec {
            model: ModelId::first(0),
            period: Nanos(period),
            deadline: Nanos(deadline),
            jitter: Nanos(jitter),
            priority,
            stages: vec![Nanos((period / parts).max(1))],
        },
    )
}

/// The definition of the fixed-priority bound, in the tick model, by counting up one by one.
mod naive_priority {
    use super::*;

    /// `None` when the level exceeds the device. Where it takes exactly all of it, jitter can keep the
    /// window from ending; then everything repeats with the hyperperiod, which holds the worst job.
    pub(crate) fn response(specs: &[TaskSpec], index: usize) -> Option<u64> {
        let (task, cost) = (&specs[index], total(&specs[index]));
        let level = task.priority;
        let rivals =
            || specs.iter().enumerate().filter(move |(i, t)| *i != index && t.priority <= level);
        let lower = specs.iter().filter(|other| other.priority > level);
        let longest = lower.flat_map(|other| &other.stages).max().copied();
        let blocking = longest.map_or(0, |longest| longest.0 - 1);
        let arrived = |t: &TaskSpec, at: u64| (at + t.jitter.0) / t.period.0 + 1;
        let arrived_before = |t: &TaskSpec, at: u64| (at + t.jitter.0).div_ceil(t.period.0);
        let of_level = || specs.iter().filter(|t| t.priority <= level);
        let cycle = of_level().fold(1, |all, t| lcm(all, t.period.0));
        if of_level().map(|t| cycle / t.period.0 * total(t)).sum::<u64>() > cycle {
            return None;
        }
        let ends = |end: &u64| {
            let others: u64 = rivals().map(|(_, t)| arrived_before(t, *end) * total(t)).sum();
            blocking + others + arrived_before(task, *end) * cost == *end
        };
        let window = (1..100_000).find(ends).unwrap_or(cycle);
        let last = task.stages.last().expect("at least one").0;
        let response = |job: u64| {
            let start = (0..).find(|start| {
                let others: u64 = rivals().map(|(_, t)| arrived(t, *start) * total(t)).sum();
                blocking + job * cost + cost - last + others == *start
            });
            task.jitter.0 + start.expect("it starts") + last - job * task.period.0
        };
        let jobs = arrived_before(task, window);
        Some((0..jobs).map(response).max()? + u64::from(longest.is_some()))
    }
}

/// The definition of the EDF verdict: every window, one by one, up to the busy window, or where it
/// never ends up to one hyperperiod past the longest deadline.
mod naive_edf {
    use super::*;

    /// `None` when the set exceeds the device.
    pub(crate) fn accepts(specs: &[TaskSpec]) -> Option<bool> {
        let work = |end: u64| -> u64 {
            specs.iter().map(|t| (end + t.jitter.0).div_ceil(t.period.0) * total(t)).sum()
        };
        let cycle = specs.iter().fold(1, |all, t| lcm(all, t.period.0));
        if specs.iter().map(|t| cycle / t.period.0 * total(t)).sum::<u64>() > cycle {
            return None;
        }
        let longest = specs.iter().map(|t| t.deadline.0).max()?;
        let busy = (1..100_000).find(|end| work(*end) == *end).unwrap_or(longest + cycle);
        let shortest = specs.iter().map(|t| t.deadline.0 - t.jitter.0).min()?;
        Some(
            (shortest..=busy)
                .all(|window| demand(specs, window) + blocking(specs, window) <= window),
        )
    }

    fn demand(specs: &[TaskSpec], window: u64) -> u64 {
        let jobs = |t: &TaskSpec| {
            let first = t.deadline.0 - t.jitter.0;
            window.checked_sub(first).map_or(0, |room| room / t.period.0 + 1)
        };
        specs.iter().map(|t| jobs(t) * total(t)).sum()
    }

    fn blocking(specs: &[TaskSpec], window: u64) -> u64 {
        let leaves = |t: &TaskSpec| t.deadline.0 - t.jitter.0;
        let blockers = specs.iter().filter(|t| leaves(t) > window);
        blockers.flat_map(|t| &t.stages).max().map_or(0, |stage| stage.0)
    }
}

fn lcm(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

fn total(spec: &TaskSpec) -> u64 {
    spec.stages.iter().map(|stage| stage.0).sum()
}

/// Whether `worse` is no better than `better` in any bound.
fn no_better(better: &Result<Analysis, Refusal>, worse: &Result<Analysis, Refusal>) -> bool {
    let dominated = |(a, b): (&Bound, &Bound)| a.response <= b.response;
    match (better, worse) {
        (_, Err(_)) => true,
        (Err(_), Ok(_)) => false,
        (Ok(better), Ok(worse)) => better.bounds.iter().zip(&worse.bounds).all(dominated),
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn fixed_priority_bounds_are_those_of_the_definition(specs in small_set(3, 30)) {
        let naive: Option<Vec<u64>> =
            (0..specs.len()).map(|index| naive_priority::response(&specs, index)).collect();
        let on_time = naive.as_ref().is_some_and(|responses| {
            responses.iter().zip(&specs).all(|(response, spec)| *response <= spec.deadline.0)
        });
        match answer(&specs, PolicyKind::Priority) {
            Ok(analysis) => {
                let bounds: Vec<u64> = analysis.bounds.iter().map(|b| b.response.0).collect();
                prop_assert_eq!(Some(bounds), naive);
            }
            Err(refusal) => prop_assert!(!on_time, "{refusal}"),
        }
    }

    #[test]
    fn the_edf_verdict_is_that_of_the_definition(specs in small_set(3, 30)) {
        let answer = answer(&specs, PolicyKind::Edf);
        prop_assert_eq!(answer.is_ok(), naive_edf::accepts(&specs) == Some(true), "{:?}", answer);
    }

    #[test]
    fn a_refused_window_really_is_too_small(specs in small_set(3, 30)) {
        if let Err(Refusal::DemandExceedsWindow { window, demand, blocking, blocked_by }) =
            answer(&specs, PolicyKind::Edf)
        {
            prop_assert!(demand + blocking > window);
            let longest = |by: ModelId| specs[usize::from(by.index)].stages.iter().copied().max();
            prop_assert_eq!(blocked_by.and_then(longest).unwrap_or(Nanos::ZERO), blocking);
        }
    }

    #[test]
    fn raising_a_cost_never_lowers_a_bound(
        specs in small_set(1, 10), which: prop::sample::Index, by in 1u64..4
    ) {
        let mut raised = specs.clone();
        raised[which.index(specs.len())].stages[0] += Nanos(by);
        for policy in POLICIES {
            let (before, after) = (answer(&specs, policy), answer(&raised, policy));
            prop_assert!(no_better(&before, &after), "{policy:?}");
        }
    }

    #[test]
    fn shortening_a_period_or_adding_jitter_never_lowers_a_bound(
        specs in small_set(3, 10), which: prop::sample::Index, by in 1u64..4
    ) {
        let which = which.index(specs.len());
        // By period, a shorter period is also a higher priority.
        for policy in [PolicyKind::Fifo, PolicyKind::Edf, PolicyKind::Priority] {
            let before = answer(&specs, policy);
            let mut faster = specs.clone();
            faster[which].period -= Nanos(by);
            prop_assert!(no_better(&before, &answer(&faster, policy)), "{policy:?} faster");
            let mut later = specs.clone();
            later[which].jitter += Nanos(by);
            prop_assert!(no_better(&before, &answer(&later, policy)), "{policy:?} later");
        }
    }

    #[test]
    fn overheads_never_lower_a_bound(
        specs in small_set(3, 10), dispatch in 0u64..3, wake in 0u64..5
    ) {
        let overheads = Overheads { dispatch: Nanos(dispatch), wake: Nanos(wake), ..Overheads::NONE };
        for policy in POLICIES {
            let charged = analyse(&set(&specs), policy, &overheads);
            prop_assert!(no_better(&answer(&specs, policy), &charged), "{policy:?}");
        }
    }

    #[test]
    fn an_admitted_set_stays_admitted_without_one_of_its_models(
        specs in small_set(3, 10), which: prop::sample::Index
    ) {
        let (all, gone) = (set(&specs), which.index(specs.len()));
        let fewer = all.without(all.tasks()[gone].model());
        for policy in POLICIES {
            if let Ok(mut before) = answer(&specs, policy) {
                before.bounds.remove(gone);
                let after = analyse(&fewer, policy, &Overheads::default());
                prop_assert!(no_better(&after, &Ok(before)), "{policy:?}");
            }
        }
    }

    #[test]
    fn bounds_scale_with_the_unit_and_do_not_depend_on_the_order(specs in small_set(3, 10)) {
        let scaled: Vec<TaskSpec> = specs.iter().rev().map(|spec| TaskSpec {
            period: spec.period * 1_000,
            deadline: spec.deadline * 1_000,
            jitter: spec.jitter * 1_000,
            stages: spec.stages.iter().map(|stage| *stage * 1_000).collect(),
            ..spec.clone()
        }).collect();
        for policy in POLICIES {
            let responses = |answer: Result<Analysis, Refusal>| {
                answer.map(|a| a.bounds.iter().map(|b| b.response).collect::<Vec<_>>()).ok()
            };
            let once = responses(answer(&specs, policy));
            let once = once.map(|all| all.into_iter().map(|r| r * 1_000).rev().collect::<Vec<_>>());
            prop_assert_eq!(once, responses(answer(&scaled, policy)), "{:?}", policy);
        }
    }

    #[test]
    fn every_bound_is_consistent_with_itself(specs in small_set(3, 10)) {
        for policy in POLICIES {
            let Ok(analysis) = answer(&specs, policy) else { continue };
            for (bound, spec) in analysis.bounds.iter().zip(&specs) {
                prop_assert_eq!(bound.response + bound.slack, spec.deadline);
                prop_assert!(bound.response >= bound.cost + spec.jitter);
                prop_assert_eq!(bound.blocked_by.is_some(), bound.blocking > Nanos::ZERO);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn no_valid_set_makes_an_analysis_panic(
        specs in prop::collection::vec(any_task(), 0..8),
        dispatch in prop_oneof![Just(0u64), Just(1), Just(u64::MAX)],
        wake in prop_oneof![Just(0u64), Just(1), Just(u64::MAX)],
    ) {
        let overheads = Overheads { dispatch: Nanos(dispatch), wake: Nanos(wake), ..Overheads::NONE };
        for policy in POLICIES {
            if let Err(refusal) = analyse(&set(&specs), policy, &overheads) {
                prop_assert_eq!(refusal.category(), Category::Permanent);
                prop_assert!(!refusal.to_string().is_empty());
            }
        }
    }
}

fn unstaged(cost: u64, period: u64, deadline: u64, priority: u32) -> TaskSpec {
    TaskSpec {
        model: ModelId::first(0),
        period: Nanos(period),
        deadline: Nanos(deadline),
        jitter: Nanos::ZERO,
        priority,
        stages: vec![Nanos(cost)],
    }
}

#[test]
fn a_busy_window_of_too_many_jobs_is_given_up_not_accepted() {
    let blocker = unstaged(40_000_000, 100_000_000, 100_000_000, 1);
    let patient = unstaged(1, 2, Task::LONGEST.0, 0); // 40 million jobs until it has caught up.
    let specs = [patient, blocker];
    for policy in [PolicyKind::Rms, PolicyKind::Priority] {
        let refusal = answer(&specs, policy).expect_err("more jobs than the budget");
        assert_eq!(
            refusal,
            Refusal::Undecided { limit: Limit::Steps { steps: 20_000_000 } },
            "{policy:?}"
        );
    }
    for policy in [PolicyKind::Edf, PolicyKind::Fifo] {
        assert!(answer(&specs, policy).is_ok(), "{policy:?} needs no walk through the window");
    }
}

#[test]
fn a_job_that_is_late_before_the_budget_ends_is_called_late() {
    // The second task leaves 1 ns in every period of 40 ms, and 25 ms are to be run in them.
    let mut specs = [
        unstaged(25_000_000, 1 << 50, 1 << 40, 1),
        unstaged(39_999_999, 40_000_000, 80_000_000, 0),
    ];
    specs[0].stages = vec![Nanos(24_999_999), Nanos(1)];
    match answer(&specs, PolicyKind::Rms) {
        Err(Refusal::ResponseExceedsDeadline { model, response, deadline, .. }) => {
            assert_eq!(model, ModelId::first(0));
            assert!(response > deadline);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn sets_one_part_in_a_quadrillion_below_full_are_decided() {
    // p (T + 1) + T = T (T + 1) - 1 for p = T - 1: the utilisation is 1 - 1 / (T (T + 1)).
    let period = 33_554_393;
    let specs =
        [unstaged(period - 1, period, 2 * period, 0), unstaged(1, period + 1, 2 * period, 1)];
    for policy in POLICIES {
        let analysis = answer(&specs, policy).expect("less than full and patient");
        assert_eq!(analysis.utilisation_ppm, 999_999, "{policy:?}");
    }
    let mut over = specs;
    over[1].stages[0] = Nanos(2);
    for policy in POLICIES {
        let refusal = answer(&over, policy).expect_err("more than full");
        assert_eq!(refusal, Refusal::Overutilised { utilisation_ppm: 1_000_000 }, "{policy:?}");
    }
}

/// Stages that nobody runs between, as the tasks of one stage that they amount to.
mod never_suspended {
    use super::*;

    const DISPATCH: u64 = 3;

    /// One stage that is charged what all stages of `spec` are, once its own overhead is added.
    fn as_one_stage(spec: &TaskSpec) -> TaskSpec {
        let further = spec.stages.len() as u64 - 1;
        let cost: Nanos = spec.stages.iter().copied().sum();
        TaskSpec { stages: vec![cost + Nanos(DISPATCH) * further], ..spec.clone() }
    }

    /// The tasks that are `whole` never suspended: by that property, or as one stage each.
    fn sets(specs: &[TaskSpec], whole: &[bool]) -> (TaskSet, TaskSet) {
        let named = |index: usize| TaskSpec {
            model: ModelId::first(u16::try_from(index).expect("few")),
            ..specs[index].clone()
        };
        let task = |spec| Task::new(spec).expect("a valid task");
        let (mut by_property, mut by_hand) = (Vec::new(), Vec::new());
        for (index, whole) in (0..specs.len()).zip(whole) {
            let spec = named(index);
            by_hand.push(task(if *whole { as_one_stage(&spec) } else { spec.clone() }));
            by_property.push(if *whole { task(spec).never_suspended() } else { task(spec) });
        }
        (TaskSet::new(by_property).expect("valid"), TaskSet::new(by_hand).expect("valid"))
    }

    /// Everything but how many stages there are, which is another figure of the same charge.
    fn bounds(answer: Result<Analysis, Refusal>) -> Result<Vec<Bound>, Refusal> {
        answer.map(|analysis| analysis.bounds)
    }

    proptest! {
        #![proptest_config(cases(512))]

        #[test]
        fn a_task_that_is_never_suspended_is_one_stage_of_its_whole_charge(
            specs in small_set(4, 30),
            whole in prop::collection::vec(any::<bool>(), 6),
            wake in 0u64..6,
        ) {
            let overheads = Overheads { dispatch: Nanos(DISPATCH), wake: Nanos(wake), ..Overheads::NONE };
            let (by_property, by_hand) = sets(&specs, &whole);
            for policy in POLICIES {
                let found = bounds(analyse(&by_property, policy, &overheads));
                let expected = bounds(analyse(&by_hand, policy, &overheads));
                prop_assert_eq!(found, expected, "{:?}", policy);
            }
        }

        #[test]
        fn its_longest_and_last_stage_are_all_of_it(specs in small_set(4, 0)) {
            let (all_whole, _) = sets(&specs, &[true; 6]);
            for (task, spec) in all_whole.tasks().iter().zip(&specs) {
                let cost: Nanos = spec.stages.iter().copied().sum();
                let lengths = (task.cost(), task.longest_stage(), task.last_stage());
                prop_assert_eq!(lengths, (cost, cost, cost));
                prop_assert_eq!(task.stages(), &spec.stages[..], "the overheads are counted by them");
            }
        }
    }

    #[test]
    fn under_fifo_it_makes_no_difference() {
        let spec = |period, stages: &[u64]| TaskSpec {
            model: ModelId::first(0),
            period: Nanos(period),
            deadline: Nanos(period),
            jitter: Nanos(4),
            priority: 0,
            stages: stages.iter().copied().map(Nanos).collect(),
        };
        let specs = [spec(60, &[4, 5, 3]), spec(90, &[7, 2]), spec(200, &[1])];
        let overheads = Overheads { dispatch: Nanos(DISPATCH), wake: Nanos(2), ..Overheads::NONE };
        let at = |whole: &[bool]| {
            let (set, _) = sets(&specs, whole);
            analyse(&set, PolicyKind::Fifo, &overheads).expect("a light load").responses()
        };
        assert_eq!(at(&[true, true, true]), at(&[false, false, false]));
    }

    #[test]
    fn a_long_model_that_is_never_suspended_blocks_for_all_of_it() {
        let spec = |index, period, stages: Vec<u64>| TaskSpec {
            model: ModelId::first(index),
            period: Nanos(period),
            deadline: Nanos(period),
            jitter: Nanos::ZERO,
            priority: u32::from(index),
            stages: stages.into_iter().map(Nanos).collect(),
        };
        let camera = Task::new(spec(0, 10, vec![4])).expect("valid");
        let lidar = Task::new(spec(1, 100, vec![5; 6])).expect("valid");
        let set = |lidar: Task| TaskSet::new(vec![camera.clone(), lidar]).expect("valid");
        let verdict = |lidar| analyse(&set(lidar), PolicyKind::Rms, &Overheads::default());
        assert!(verdict(lidar.clone()).is_ok(), "5 ns block nobody");
        let refused = verdict(lidar.never_suspended()).expect_err("30 ns block the camera");
        assert_eq!(refused.category(), Category::Permanent);
        assert!(refused.to_string().contains("30"), "{refused}");
    }
}

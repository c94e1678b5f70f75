//! The worked examples of the literature and of our own notes, by name, with the right verdict.
//!
//! Sets are written `(C, T, D)` from the most to the least urgent; one unit is 1 ns. Time is dense,
//! so a bound exceeds the bound of a world on ticks by 1 wherever the task can be blocked.

use aegis_sched::analysis::{Analysis, Setting, Test, TimeModel, analyse, decide, examine};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos, Refusal};
use expect_test::{Expect, expect};

/// Model 0 is the most urgent one.
fn spec(index: usize, (cost, period, deadline): (u64, u64, u64)) -> TaskSpec {
    let index = u16::try_from(index).expect("a handful of tasks");
    TaskSpec {
        model: ModelId::first(index),
        period: Nanos(period),
        deadline: Nanos(deadline),
        jitter: Nanos::ZERO,
        priority: u32::from(index),
        stages: vec![Nanos(cost)],
    }
}

fn specs(tasks: &[(u64, u64, u64)]) -> Vec<TaskSpec> {
    tasks.iter().enumerate().map(|(index, task)| spec(index, *task)).collect()
}

fn set(specs: Vec<TaskSpec>) -> TaskSet {
    let tasks = specs.into_iter().map(|spec| Task::new(spec).expect("a valid task"));
    TaskSet::new(tasks.collect()).expect("a valid set")
}

/// The responses, or the refusal without the rule it ends with when there is too much work.
fn shown(answer: Result<Analysis, Refusal>) -> String {
    let bound = |analysis: Analysis| {
        let responses = analysis.bounds.iter().map(|bound| bound.response.0.to_string());
        format!("responses {}", responses.collect::<Vec<_>>().join(" "))
    };
    let refused = |refusal: Refusal| {
        let text = refusal.to_string();
        text.split(": sum C/T").next().unwrap_or_default().to_owned()
    };
    answer.map_or_else(refused, bound)
}

fn check(tasks: &[(u64, u64, u64)], policy: PolicyKind, expected: Expect) {
    check_specs(specs(tasks), policy, expected);
}

fn check_specs(specs: Vec<TaskSpec>, policy: PolicyKind, expected: Expect) {
    expected.assert_eq(&shown(analyse(&set(specs), policy, &Overheads::default())));
}

#[test]
fn a_set_below_both_utilisation_bounds_misses_by_blocking() {
    let tasks = [(1, 2, 2), (3, 10, 10)];
    check(
        &tasks,
        PolicyKind::Rms,
        expect!["m0: response 4 ns > deadline 2 ns, of which 3 ns is blocking by a stage of m1"],
    );
    check(
        &tasks,
        PolicyKind::Edf,
        expect!["demand 1 ns + blocking 3 ns by a stage of m1 > window 2 ns"],
    );
}

#[test]
fn five_realistic_models_below_both_utilisation_bounds_miss() {
    let of = |cost, period| (cost, period, period);
    let tasks = [
        of(4_200, 33_333),
        of(6_100, 50_000),
        of(9_800, 66_667),
        of(14_500, 100_000),
        of(29_500, 200_000),
    ];
    check(
        &tasks,
        PolicyKind::Rms,
        expect![
            "m0: response 33.7 us > deadline 33.333 us, of which 29.5 us is blocking by a stage of m4"
        ],
    );
    check(
        &tasks,
        PolicyKind::Edf,
        expect!["demand 4.2 us + blocking 29.5 us by a stage of m4 > window 33.333 us"],
    );
}

#[test]
fn no_positive_utilisation_is_safe() {
    let tasks = [(1, 100, 100), (101, 1_000_000, 1_000_000)];
    check(
        &tasks,
        PolicyKind::Rms,
        expect![
            "m0: response 102 ns > deadline 100 ns, of which 101 ns is blocking by a stage of m1"
        ],
    );
    check(
        &tasks,
        PolicyKind::Edf,
        expect!["demand 1 ns + blocking 101 ns by a stage of m1 > window 100 ns"],
    );
}

#[test]
fn density_below_one_does_not_make_up_for_too_much_work() {
    let tasks = [(2, 3, 6), (2, 3, 6)];
    for policy in [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Edf, PolicyKind::Priority] {
        check(&tasks, policy, expect!["utilisation 1.3333 is more than the device"]);
    }
}

#[test]
fn one_part_in_a_hundred_million_too_much_is_refused_at_once() {
    let tasks = [(1, 2, 2), (50_000_001, 100_000_000, 100_000_000)];
    check(&tasks, PolicyKind::Rms, expect!["utilisation exceeds the device by less than 0.0001"]);
    check(&tasks, PolicyKind::Edf, expect!["utilisation exceeds the device by less than 0.0001"]);
}

#[test]
fn a_recurrence_without_ceiling_misses_the_second_round_of_interference() {
    let set = |deadline| [(2, 4, 4), (2, 6, 6), (1, 7, deadline)];
    check(&set(7), PolicyKind::Priority, expect!["m2: response 11 ns > deadline 7 ns"]);
    check(&set(11), PolicyKind::Priority, expect!["responses 4 5 11"]);
    let set = |deadline| [(1, 3, 3), (2, 4, 4), (1, 7, deadline)];
    check(&set(7), PolicyKind::Priority, expect!["m2: response 8 ns > deadline 7 ns"]);
    check(&set(8), PolicyKind::Priority, expect!["responses 3 4 8"]);
}

#[test]
fn the_third_job_of_the_window_is_the_worst_with_a_deadline_past_the_period() {
    let set = |deadline| [(2, 7, 6), (4, 8, 7), (1, 5, deadline)];
    check(&set(8), PolicyKind::Priority, expect!["m2: response 9 ns > deadline 8 ns"]);
    check(&set(11), PolicyKind::Priority, expect!["responses 6 7 11"]);
}

#[test]
fn a_job_pushed_out_by_its_predecessor_is_the_worst_even_below_the_period() {
    let set = |deadline| [(1, 5, 5), (4, 7, 7), (2, 9, deadline)];
    check(&set(9), PolicyKind::Priority, expect!["m2: response 10 ns > deadline 9 ns"]);
    check(&set(10), PolicyKind::Priority, expect!["responses 5 7 10"]);
}

#[test]
fn equal_priorities_interfere() {
    let tied = |deadlines: [u64; 3]| {
        let tasks = [(2, 5, deadlines[0]), (2, 7, deadlines[1]), (2, 8, deadlines[2])];
        specs(&tasks).into_iter().map(|spec| TaskSpec { priority: 0, ..spec }).collect()
    };
    check_specs(
        tied([5, 7, 8]),
        PolicyKind::Priority,
        expect!["m0: response 6 ns > deadline 5 ns"],
    );
    check_specs(tied([6, 7, 8]), PolicyKind::Priority, expect!["responses 6 7 6"]);
}

#[test]
fn the_jitter_of_others_counts() {
    let with_jitter = |deadline| {
        let mut specs = specs(&[(1, 4, 4), (1, 8, 5), (1, 7, deadline)]);
        specs[0].jitter = Nanos(2);
        specs
    };
    check_specs(with_jitter(3), PolicyKind::Priority, expect!["m2: response 4 ns > deadline 3 ns"]);
    check_specs(with_jitter(4), PolicyKind::Priority, expect!["responses 4 3 4"]);
}

#[test]
fn admitting_a_less_urgent_task_can_break_an_admitted_one() {
    check(&[(1, 4, 3)], PolicyKind::Rms, expect!["responses 1"]);
    check(
        &[(1, 4, 3), (4, 20, 20)],
        PolicyKind::Rms,
        expect!["m0: response 5 ns > deadline 3 ns, of which 4 ns is blocking by a stage of m1"],
    );
}

#[test]
fn responses_under_edf_are_not_those_of_fixed_priorities() {
    let tasks = [(1, 2, 2), (1, 5, 4), (1, 9, 4)];
    check(&tasks, PolicyKind::Edf, expect!["responses 2 4 4"]);
}

#[test]
fn demand_can_first_exceed_a_window_longer_than_every_deadline() {
    let tasks = [(2, 3, 4), (2, 13, 6), (2, 13, 6)];
    check(&tasks, PolicyKind::Edf, expect!["demand 8 ns > window 7 ns"]);
}

#[test]
fn a_clean_hyperperiod_at_full_cost_proves_nothing() {
    let tasks = [(1, 4, 4), (3, 12, 12), (5, 12, 12)];
    check(
        &tasks,
        PolicyKind::Rms,
        expect!["m0: response 6 ns > deadline 4 ns, of which 5 ns is blocking by a stage of m2"],
    );
    check(
        &tasks,
        PolicyKind::Edf,
        expect!["demand 1 ns + blocking 5 ns by a stage of m2 > window 4 ns"],
    );
}

#[test]
fn pessimistic_tests_refuse_what_is_fine() {
    // Density is 1.067, yet everything is on time.
    let tasks = [(1, 20, 3), (2, 20, 5), (2, 20, 6)];
    check(&tasks, PolicyKind::Edf, expect!["responses 3 5 5"]);
    check(&tasks, PolicyKind::Priority, expect!["responses 3 5 5"]);
    // A recurrence that counts arrivals after the start refuses this one.
    let tasks = [(1, 3, 3), (1, 4, 4), (2, 5, 5)];
    check(&tasks, PolicyKind::Priority, expect!["responses 3 4 4"]);
    check(&tasks, PolicyKind::Edf, expect!["responses 3 4 4"]);
}

#[test]
fn stages_admit_what_a_whole_model_blocks() {
    let mut specs = specs(&[(2, 8, 8), (12, 40, 40)]);
    check_specs(
        specs.clone(),
        PolicyKind::Rms,
        expect!["m0: response 14 ns > deadline 8 ns, of which 12 ns is blocking by a stage of m1"],
    );
    check_specs(
        specs.clone(),
        PolicyKind::Edf,
        expect!["demand 2 ns + blocking 12 ns by a stage of m1 > window 8 ns"],
    );
    specs[1].stages = vec![Nanos(4); 3];
    check_specs(specs.clone(), PolicyKind::Rms, expect!["responses 6 16"]);
    check_specs(specs, PolicyKind::Edf, expect!["responses 6 16"]);
}

#[test]
fn a_split_model_can_be_preempted_and_takes_longer_than_the_whole() {
    let mut specs = specs(&[(2, 8, 16), (12, 40, 40)]);
    check_specs(specs.clone(), PolicyKind::Priority, expect!["responses 14 14"]);
    specs[1].stages = vec![Nanos(4); 3];
    check_specs(specs, PolicyKind::Priority, expect!["responses 6 16"]);
}

#[test]
fn utilisation_of_exactly_one_is_decided_over_one_cycle() {
    let tasks = [(1, 2, 2), (1, 3, 6), (1, 6, 6)];
    check(&tasks, PolicyKind::Edf, expect!["responses 2 4 4"]);
    let mut specs = specs(&tasks);
    let wake = Overheads { wake: Nanos(1), ..Overheads::default() };
    expect!["responses 2 5 5"].assert_eq(&shown(analyse(
        &set(specs.clone()),
        PolicyKind::Edf,
        &wake,
    )));
    specs[2].jitter = Nanos(1);
    check_specs(specs, PolicyKind::Edf, expect!["responses 2 4 4"]);
}

#[test]
fn a_job_that_alone_is_too_long_is_named() {
    let mut specs = specs(&[(1, 9, 9), (4, 9, 5)]);
    specs[1].jitter = Nanos(2);
    check_specs(specs, PolicyKind::Edf, expect!["m1: jitter + cost 6 ns > deadline 5 ns"]);
}

#[test]
fn overheads_are_charged_to_every_stage_and_to_blockers() {
    let mut specs = specs(&[(2, 20, 20), (6, 60, 60)]);
    specs[1].stages = vec![Nanos(3); 2];
    let overheads = Overheads { dispatch: Nanos(1), wake: Nanos::ZERO, ..Overheads::NONE };
    let analysis = analyse(&set(specs), PolicyKind::Rms, &overheads).expect("nearly idle");
    assert_eq!(analysis.bounds[1].cost, Nanos(8));
    assert_eq!(analysis.bounds[0].blocking, Nanos(4));
    assert_eq!(analysis.bounds[0].blocked_by, Some(ModelId::first(1)));
    assert_eq!(analysis.bounds[0].response, Nanos(4 + 3));
    assert_eq!(analysis.bounds[0].slack, Nanos(20 - 7));
    assert_eq!(analysis.utilisation_ppm, 283_333, "3/20 + 8/60");
}

#[test]
fn the_wake_up_blocks_the_least_urgent_too() {
    let wake = Overheads { dispatch: Nanos::ZERO, wake: Nanos(4), ..Overheads::NONE };
    for policy in [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Edf, PolicyKind::Priority] {
        let tasks = set(specs(&[(2, 20, 20), (3, 60, 60)]));
        let analysis = analyse(&tasks, policy, &wake).expect("nearly idle");
        assert_eq!(analysis.bounds[1].response, Nanos(4 + 2 + 3), "{policy:?}");
        assert_eq!((analysis.bounds[1].blocking, analysis.bounds[1].blocked_by), (Nanos(4), None));
    }
}

#[test]
fn first_in_first_out_waits_for_one_job_of_everybody() {
    let tasks = [(2, 10, 10), (3, 20, 12), (4, 30, 9)];
    check(&tasks, PolicyKind::Fifo, expect!["responses 9 9 9"]);
    let tasks = [(2, 10, 10), (3, 20, 12), (4, 30, 8)];
    check(&tasks, PolicyKind::Fifo, expect!["m2: response 9 ns > deadline 8 ns"]);
}

#[test]
fn first_in_first_out_with_jitter_can_be_worst_late_in_the_window() {
    let mut specs = specs(&[(5, 10, 20), (1, 40, 20)]);
    specs[0].jitter = Nanos(9);
    check_specs(specs, PolicyKind::Fifo, expect!["responses 15 10"]);
}

#[test]
fn every_answer_names_its_theorem() {
    let tasks = set(specs(&[(1, 10, 10), (1, 20, 20)]));
    let test = |set: &TaskSet, policy| {
        analyse(set, policy, &Overheads::default()).expect("nearly idle").test
    };
    assert_eq!(test(&tasks, PolicyKind::Fifo), Test::Fifo);
    assert_eq!(test(&tasks, PolicyKind::Rms), Test::NpFixedPriority);
    assert_eq!(test(&tasks, PolicyKind::Priority), Test::NpFixedPriority);
    assert_eq!(test(&tasks, PolicyKind::Edf), Test::NpEdf);
}

#[test]
fn no_tasks_are_no_problem() {
    for policy in [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Edf, PolicyKind::Priority] {
        let analysis = analyse(&TaskSet::default(), policy, &Overheads::default());
        let analysis = analysis.expect("nothing to do");
        assert_eq!((analysis.bounds.len(), analysis.utilisation_ppm), (0, 0));
    }
}

/// All responses on ticks, late or not.
fn on_ticks(tasks: Vec<TaskSpec>, policy: PolicyKind) -> Vec<u64> {
    let admission = Setting::admission(policy, Overheads::default());
    let setting = Setting { time: TimeModel::Discrete, ..admission };
    let found = examine(&set(tasks), &setting).responses;
    found.iter().map(|response| response.bound().expect("less than the device").0).collect()
}

/// Davis, Burns, Bril, Lukkien 2007: the example that refuted the analysis of 1994. All three
/// messages take 100; the first job of the third is on time and its second is not.
#[test]
fn the_can_example_of_davis_burns_bril_and_lukkien() {
    let tasks = [(100, 250, 250), (100, 350, 325), (100, 350, 325)];
    assert_eq!(on_ticks(specs(&tasks), PolicyKind::Priority), [199, 299, 350]);
    check(&tasks, PolicyKind::Priority, expect!["m2: response 350 ns > deadline 325 ns"]);
    let patient = [(100, 250, 250), (100, 350, 325), (100, 350, 350)];
    check(&patient, PolicyKind::Priority, expect!["responses 200 300 350"]);
}

/// Jeffay, Stanat, Martel 1991, conditions (1) and (2), in their words: tasks by period, and for
/// every task `i` but the first and every `L` between the first period and its own,
/// `L >= C_i + sum over j < i of floor((L - 1) / T_j) C_j`.
fn jeffays_conditions(tasks: &[(u64, u64)]) -> bool {
    let mut tasks = tasks.to_vec();
    tasks.sort_by_key(|(_, period)| *period);
    let all: u64 = tasks.iter().map(|(_, period)| period).product();
    let load: u64 = tasks.iter().map(|(cost, period)| cost * (all / period)).sum();
    let fits = |i: usize, length: u64| {
        let jobs = |(cost, period): &(u64, u64)| (length - 1) / period * cost;
        tasks[i].0 + tasks[..i].iter().map(jobs).sum::<u64>() <= length
    };
    let second = |i: usize| (tasks[0].1 + 1..tasks[i].1).all(|length| fits(i, length));
    load <= all && (1..tasks.len()).all(second)
}

#[test]
fn jeffays_two_conditions_decide_what_is_due_at_the_end_of_its_period() {
    let (mut yes, mut no) = (0, 0);
    let shapes: Vec<(u64, u64)> =
        (2..=9).flat_map(|period| (1..=4.min(period)).map(move |cost| (cost, period))).collect();
    let admission = Setting::admission(PolicyKind::Edf, Overheads::default());
    let setting = Setting { time: TimeModel::Discrete, ..admission };
    for a in &shapes {
        for b in &shapes {
            for c in &shapes {
                let tasks = [*a, *b, *c];
                let implicit = tasks.map(|(cost, period)| (cost, period, period));
                let ours = decide(&set(specs(&implicit)), &setting).is_ok();
                assert_eq!(ours, jeffays_conditions(&tasks), "{tasks:?}");
                if ours { yes += 1 } else { no += 1 }
            }
        }
    }
    assert!(yes > 1_000 && no > 1_000, "{yes} and {no}");
}

#[test]
fn on_ticks_a_blocker_counts_one_less_and_what_nothing_blocks_stays() {
    // The note's stages: whole, the second model blocks for 11 of its 12; cut in three, for 3.
    let mut specs = specs(&[(2, 8, 8), (12, 40, 40)]);
    assert_eq!(on_ticks(specs.clone(), PolicyKind::Rms), [13, 14]);
    specs[1].stages = vec![Nanos(4); 3];
    assert_eq!(on_ticks(specs, PolicyKind::Rms), [5, 16]);
}

/// The largest `k` for which costs scaled by `k / 10^6`, rounded up, are schedulable: bisection is
/// exact since every test is monotone in the costs.
#[test]
fn the_critical_scaling_factor_is_where_the_tests_turn_over() {
    let base = [(200_000, 1_000_000, 1_000_000), (500_000, 4_000_000, 4_000_000)];
    let fits = |ppm: u64| {
        let scaled =
            base.map(|(cost, t, d): (u64, u64, u64)| ((cost * ppm).div_ceil(1_000_000), t, d));
        analyse(&set(specs(&scaled)), PolicyKind::Edf, &Overheads::default()).is_ok()
    };
    // Demand and blocking at the first deadline: 200 000 k + 500 000 k <= 1 000 000.
    let (mut low, mut high) = (0, 10_000_000);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if middle > 0 && fits(middle) { low = middle } else { high = middle }
    }
    assert_eq!(low, 1_428_570, "10/7, cut to where 200 000 k and 500 000 k, rounded up, still fit");
}

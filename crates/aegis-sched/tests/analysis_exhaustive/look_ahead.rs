//! What look-ahead costs, and that it is charged: every state of tiny sets with a committed stage.
//!
//! The charge is an upper bound, so nothing here is exact. What must hold: no response exceeds its
//! bound, no accepted set misses; and without the charge both happen, so it is needed.

use aegis_sched::analysis::{Analysis, Setting, TimeModel, analyse, decide, examine};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::Overheads;
use aegis_trace::{Nanos, Refusal};

use crate::explorer::{Costs, Explorer, FifoBy, Numbers, POLICIES, Rules, Tiny, Until, plain, set};

/// What the bounds had to stand.
#[derive(Debug, Default)]
struct Tally {
    accepted: u32,
    /// Of all sets, those in which some response is beyond what is proved without the charge.
    beyond_the_old_bound: u32,
    /// Of all sets, those that miss and would be accepted without the charge.
    accepted_for_less: u32,
}

fn overheads(rules: Rules, look_ahead: bool) -> Overheads {
    let (dispatch, wake) = (Nanos(rules.dispatch.into()), Nanos(rules.wake.into()));
    Overheads { dispatch, wake, look_ahead, ..Overheads::NONE }
}

fn answer(
    tasks: &[Tiny],
    policy: PolicyKind,
    rules: Rules,
    look_ahead: bool,
) -> Result<Analysis, Refusal> {
    let set = set(tasks).with_background(Nanos(rules.background.into()));
    analyse(&set, policy, &overheads(rules, look_ahead))
}

fn within(analysis: &Analysis, worst: &[u8]) -> bool {
    analysis.bounds.iter().zip(worst).all(|(bound, worst)| bound.response.0 >= (*worst).into())
}

impl Tally {
    /// Compares what is proved in dense time with all that can happen to the set, scaled by 2.
    fn compare(&mut self, tasks: &[Tiny], policy: PolicyKind, rules: Rules) {
        let tasks: Vec<Tiny> = tasks.iter().map(Tiny::doubled).collect();
        let Rules { wake, background, dispatch, .. } = rules;
        let [wake, background, dispatch] = [wake, background, dispatch].map(|ticks| 2 * ticks);
        let rules = Rules { wake, background, dispatch, look_ahead: true, ..rules };
        let truth = Explorer::explore(&tasks, policy, rules, Until::End);
        let context = || format!("{policy:?} {rules:?} {tasks:#?}, seen {:?}", truth.worst);
        match answer(&tasks, policy, rules, true) {
            Err(Refusal::Undecided { .. }) => panic!("gave up: {}", context()),
            Err(_) => {}
            Ok(analysis) => {
                self.accepted += 1;
                assert!(!truth.missed, "misses: {}", context());
                assert!(within(&analysis, &truth.worst), "{analysis:?}: {}", context());
            }
        }
        if let Ok(less) = answer(&tasks, policy, rules, false) {
            self.beyond_the_old_bound += u32::from(!within(&less, &truth.worst));
            self.accepted_for_less += u32::from(truth.missed);
        }
    }
}

#[test]
fn no_task_of_one_stage_exceeds_its_bound_and_without_the_charge_some_do() {
    let mut numbers = Numbers(21);
    let mut tally = Tally::default();
    for round in 0..60 {
        let set = numbers.set(3, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 3), numbers.draw(4, 10));
            let priority = if round % 2 == 0 { priority } else { priority / 2 };
            plain(cost, period, numbers.draw(cost + 2, period + 6), priority)
        });
        for policy in POLICIES {
            tally.compare(&set, policy, Rules::PLAIN);
        }
    }
    println!("{tally:?}");
    assert!(tally.accepted > 60, "{tally:?}");
    assert!(tally.beyond_the_old_bound > 20 && tally.accepted_for_less > 10, "{tally:?}");
}

#[test]
fn stages_jitter_and_wake_ups_stay_within_the_bounds() {
    let mut numbers = Numbers(22);
    let mut tally = Tally::default();
    for round in 0..48 {
        let rules = Rules { wake: numbers.draw(0, 2), ..Rules::PLAIN };
        // Three tasks; two of several stages; two whose jitter passes their periods.
        let (tasks, pieces, periods, most) = [(3, 2, 9, 0), (2, 3, 9, 3), (2, 1, 5, 5)][round % 3];
        let set = numbers.set(tasks, |numbers, priority| {
            let stages = 0..numbers.draw(1, pieces);
            let stages: Vec<u8> = stages.map(|_| numbers.draw(1, 2)).collect();
            let (period, jitter) = (numbers.draw(4, periods), numbers.draw(0, most));
            let least = stages.iter().sum::<u8>() + jitter;
            let deadline = numbers.draw(least + 2, least + 11);
            Tiny { stages, jitter, ..plain(1, period, deadline, priority / 2) }
        });
        for policy in POLICIES {
            tally.compare(&set, policy, rules);
        }
    }
    println!("{tally:?}");
    assert!(tally.accepted > 60 && tally.beyond_the_old_bound > 5, "{tally:?}");
}

#[test]
fn pieces_without_a_deadline_and_stages_that_end_early_stay_within_the_bounds() {
    let mut numbers = Numbers(23);
    let mut tally = Tally::default();
    for round in 0..40 {
        let costs = if round % 2 == 0 { Costs::Worst } else { Costs::Any };
        let (background, dispatch) = (numbers.draw(0, 3), numbers.draw(0, 1));
        let rules = Rules { background, dispatch, costs, ..Rules::PLAIN };
        let set = numbers.set(2, |numbers, priority| {
            let stages =
                if numbers.draw(0, 1) == 0 { vec![1, 1] } else { vec![numbers.draw(1, 3)] };
            let cost = stages.iter().sum::<u8>();
            let period = numbers.draw((cost + 2 * dispatch) * 2, 10);
            Tiny { stages, ..plain(1, period, numbers.draw(cost + 3, cost + 12), priority) }
        });
        for policy in POLICIES {
            tally.compare(&set, policy, rules);
        }
    }
    println!("{tally:?}");
    assert!(tally.accepted > 40 && tally.beyond_the_old_bound > 5, "{tally:?}");
}

#[test]
fn first_in_first_out_by_nominal_release_is_charged_nothing() {
    let mut numbers = Numbers(24);
    let mut accepted = 0;
    for _ in 0..60 {
        let set = numbers.set(3, |numbers, priority| {
            let stages: Vec<u8> = (0..numbers.draw(1, 2)).map(|_| numbers.draw(1, 2)).collect();
            let (period, jitter) = (numbers.draw(5, 9), numbers.draw(0, 4));
            Tiny { stages, jitter, ..plain(1, period, jitter + 11, priority) }
        });
        let rules = Rules { fifo_by: FifoBy::Nominal, look_ahead: true, ..Rules::PLAIN };
        let with = answer(&set, PolicyKind::Fifo, rules, true);
        assert_eq!(with, answer(&set, PolicyKind::Fifo, rules, false), "{set:?}");
        let Ok(analysis) = with else { continue };
        let truth = Explorer::explore(&set, PolicyKind::Fifo, rules, Until::Miss);
        assert!(within(&analysis, &truth.worst), "{set:?}: {analysis:?}, seen {:?}", truth.worst);
        accepted += 1;
    }
    assert!(accepted > 10, "only {accepted} sets were accepted");
}

#[test]
fn on_ticks_too_no_response_exceeds_its_bound_of_sets_that_miss_as_well() {
    let mut numbers = Numbers(25);
    let mut late = 0;
    for _ in 0..60 {
        let rules = Rules { wake: numbers.draw(0, 2), look_ahead: true, ..Rules::PLAIN };
        let tasks = numbers.set(2, |numbers, priority| {
            let stages: Vec<u8> = (0..numbers.draw(1, 2)).map(|_| numbers.draw(1, 3)).collect();
            let (cost, period) = (stages.iter().sum(), numbers.draw(4, 9));
            Tiny { stages, ..plain(1, period, numbers.draw(cost, cost + 8), priority) }
        });
        for policy in POLICIES {
            let setting = Setting::admission(policy, overheads(rules, true));
            let setting = Setting { time: TimeModel::Discrete, ..setting };
            let findings = examine(&set(&tasks), &setting);
            let truth = Explorer::explore(&tasks, policy, rules, Until::End);
            let context = || format!("{policy:?} {rules:?} {tasks:#?}, seen {:?}", truth.worst);
            let bounds = findings.responses.iter().map(|response| response.bound());
            let within = |(bound, worst): (Option<Nanos>, &u8)| {
                bound.is_some_and(|bound| bound.0 >= (*worst).into())
            };
            assert!(bounds.zip(&truth.worst).all(within), "{findings:?}: {}", context());
            assert!(findings.verdict.is_err() || !truth.missed, "{}", context());
            assert_eq!(findings.verdict.is_ok(), decide(&set(&tasks), &setting).is_ok());
            late += u32::from(truth.missed);
        }
    }
    assert!(late > 20, "only {late} sets miss");
}

//! What admission answers, in dense time.
//!
//! Sets are scaled by 2 before they are explored, so that a job can arrive one tick after a blocker
//! started, half a unit of the original set: a bound that is off by a unit of the original set is
//! then off by 2, and the documented 1 between ticks and dense time cannot hide it.

use aegis_sched::analysis::{Analysis, Bound, analyse};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::Overheads;
use aegis_trace::{Nanos, Refusal};

use crate::explorer::{Costs, Explorer, FifoBy, Numbers, POLICIES, Rules, Tiny, Until, plain, set};

fn answer(tasks: &[Tiny], policy: PolicyKind, wake: u8) -> Result<Analysis, Refusal> {
    analyse(
        &set(tasks),
        policy,
        &Overheads { dispatch: Nanos::ZERO, wake: Nanos(wake.into()), ..Overheads::NONE },
    )
}

/// What the answers and the truth had in common.
#[derive(Debug, Default)]
struct Tally {
    accepted: u32,
    refused: u32,
    refused_without_a_miss: u32,
}

/// How close a bound must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Never exceeded.
    Sound,
    /// Reached, but for the 1 between dense time and ticks; and what is refused misses.
    Exact,
}

impl Tally {
    /// Compares the analysis of one set, scaled by 2, with all that can happen to it.
    fn compare(&mut self, tasks: &[Tiny], policy: PolicyKind, wake: u8, claim: Claim) {
        let tasks: Vec<Tiny> = tasks.iter().map(Tiny::doubled).collect();
        let wake = 2 * wake;
        let truth = Explorer::explore(&tasks, policy, Rules { wake, ..Rules::PLAIN }, Until::Miss);
        match answer(&tasks, policy, wake) {
            Err(Refusal::Undecided { .. }) => panic!("gave up on a tiny set: {tasks:?}"),
            Err(refusal) => {
                self.refused += 1;
                self.refused_without_a_miss += u32::from(!truth.missed);
                assert!(
                    claim == Claim::Sound || truth.missed,
                    "{policy:?} wake {wake}: {tasks:?} is fine, but: {refusal}"
                );
            }
            Ok(analysis) => {
                self.accepted += 1;
                assert!(!truth.missed, "{policy:?} wake {wake}: {tasks:?} misses: {analysis:?}");
                for (bound, worst) in analysis.bounds.iter().zip(&truth.worst) {
                    let gap = bound.response.0.checked_sub(u64::from(*worst));
                    let gap = gap.unwrap_or_else(|| {
                        panic!("{policy:?} wake {wake}: {tasks:?} took {worst}: {bound:?}")
                    });
                    // Under EDF the worst offset may be one that nothing blocks.
                    let blocked = u64::from(bound.blocking > Nanos::ZERO);
                    let least = if policy == PolicyKind::Edf { 0 } else { blocked };
                    assert!(
                        claim != Claim::Exact || (least..=blocked).contains(&gap),
                        "{policy:?} wake {wake}: {tasks:?} took only {worst}: {bound:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_pair_of_unstaged_tasks_gets_the_exact_answer() {
    let mut tally = Tally::default();
    let mut shapes = Vec::new();
    for period in 2..=5 {
        for cost in 1..=3.min(period) {
            for deadline in [cost + 1, period, period + 2] {
                shapes.push((cost, period, deadline));
            }
        }
    }
    for (c0, t0, d0) in &shapes {
        for (c1, t1, d1) in &shapes {
            let pair = [plain(*c0, *t0, *d0, 0), plain(*c1, *t1, *d1, 1)];
            for policy in POLICIES {
                tally.compare(&pair, policy, 0, Claim::Exact);
            }
        }
    }
    assert!(tally.accepted > 500 && tally.refused > 500, "both answers occur: {tally:?}");
}

#[test]
fn three_unstaged_tasks_get_the_exact_answer() {
    let mut numbers = Numbers(1);
    let mut tally = Tally::default();
    for _ in 0..60 {
        let set = numbers.set(3, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 3), numbers.draw(3, 9));
            plain(cost, period, numbers.draw(cost + 1, period + 5), priority)
        });
        for policy in POLICIES {
            tally.compare(&set, policy, 0, Claim::Exact);
        }
    }
    assert!(tally.accepted > 30 && tally.refused > 30, "both answers occur: {tally:?}");
}

#[test]
fn equal_priorities_get_the_exact_answer_when_ties_fall_either_way() {
    let mut numbers = Numbers(2);
    let mut tally = Tally::default();
    for _ in 0..60 {
        let set = numbers.set(3, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 2), numbers.draw(3, 6));
            plain(cost, period, numbers.draw(3, period), priority / 2)
        });
        tally.compare(&set, PolicyKind::Priority, 0, Claim::Exact);
    }
    assert!(tally.accepted > 10 && tally.refused > 10, "both answers occur: {tally:?}");
}

#[test]
fn jitter_is_bounded_exactly_within_and_beyond_the_period() {
    let mut numbers = Numbers(3);
    let mut tally = Tally::default();
    for _ in 0..40 {
        let set = numbers.set(2, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 2), numbers.draw(3, 6));
            let jitter = numbers.draw(0, 8);
            let deadline = numbers.draw(cost + jitter, cost + jitter + 8);
            Tiny { jitter, ..plain(cost, period, deadline, priority) }
        });
        for policy in POLICIES {
            tally.compare(&set, policy, 0, Claim::Exact);
        }
    }
    assert!(tally.accepted > 20 && tally.refused > 20, "both answers occur: {tally:?}");
}

#[test]
fn stages_are_bounded_exactly_and_under_edf_soundly() {
    let mut numbers = Numbers(4);
    let mut tally = Tally::default();
    for _ in 0..60 {
        let set = numbers.set(3, |numbers, priority| {
            let stages: Vec<u8> = (0..numbers.draw(1, 3)).map(|_| numbers.draw(1, 2)).collect();
            let period = numbers.draw(4, 10);
            let deadline = numbers.draw(stages.iter().sum(), period + 4);
            Tiny { stages, ..plain(1, period, deadline, priority) }
        });
        for policy in POLICIES {
            let claim = if policy == PolicyKind::Edf { Claim::Sound } else { Claim::Exact };
            tally.compare(&set, policy, 0, claim);
        }
    }
    assert!(tally.accepted > 20 && tally.refused > 20, "both answers occur: {tally:?}");
}

#[test]
fn stages_with_jitter_and_wake_up_are_bounded_soundly_under_every_policy() {
    let mut numbers = Numbers(5);
    let mut tally = Tally::default();
    for _ in 0..40 {
        let wake = numbers.draw(0, 3);
        let set = numbers.set(2, |numbers, priority| {
            let stages: Vec<u8> = (0..numbers.draw(1, 3)).map(|_| numbers.draw(1, 2)).collect();
            let (period, jitter) = (numbers.draw(5, 9), numbers.draw(0, 3));
            let least = stages.iter().sum::<u8>() + jitter;
            let deadline = numbers.draw(least, least + 9);
            Tiny { stages, jitter, ..plain(1, period, deadline, priority / 2) }
        });
        for policy in POLICIES {
            tally.compare(&set, policy, wake, Claim::Sound);
        }
    }
    assert!(tally.accepted > 20 && tally.refused > 20, "both answers occur: {tally:?}");
}

#[test]
fn the_wake_up_is_bounded_exactly() {
    let mut numbers = Numbers(6);
    let mut tally = Tally::default();
    for _ in 0..60 {
        let set = numbers.set(2, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 2), numbers.draw(5, 8));
            plain(cost, period, numbers.draw(cost + 1, period + 3), priority)
        });
        let wake = numbers.draw(1, 4);
        for policy in POLICIES {
            tally.compare(&set, policy, wake, Claim::Exact);
        }
    }
    assert!(tally.accepted > 30 && tally.refused > 30, "both answers occur: {tally:?}");
}

#[test]
fn stages_that_end_early_make_nothing_worse() {
    let mut numbers = Numbers(7);
    let mut accepted = 0;
    for _ in 0..40 {
        let set = numbers.set(3, |numbers, priority| {
            let stages: Vec<u8> = (0..numbers.draw(1, 2)).map(|_| numbers.draw(1, 3)).collect();
            let period = numbers.draw(5, 12);
            let deadline = numbers.draw(stages.iter().sum(), period + 4);
            Tiny { stages, ..plain(1, period, deadline, priority) }
        });
        for policy in POLICIES {
            let Ok(analysis) = answer(&set, policy, 0) else { continue };
            let rules = Rules { costs: Costs::Any, ..Rules::PLAIN };
            let truth = Explorer::explore(&set, policy, rules, Until::Miss);
            let within = |(bound, worst): (&Bound, &u8)| bound.response.0 >= (*worst).into();
            assert!(analysis.bounds.iter().zip(&truth.worst).all(within), "{set:?}: {analysis:?}");
            accepted += 1;
        }
    }
    assert!(accepted > 20, "only {accepted} sets were accepted");
}

#[test]
fn first_in_first_out_by_nominal_release_stays_within_the_same_bounds() {
    let mut numbers = Numbers(8);
    let mut accepted = 0;
    for _ in 0..150 {
        let set = numbers.set(3, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 2), numbers.draw(4, 8));
            let jitter = numbers.draw(0, 5);
            Tiny { jitter, ..plain(cost, period, jitter + 8, priority) }
        });
        let Ok(analysis) = answer(&set, PolicyKind::Fifo, 0) else { continue };
        let rules = Rules { fifo_by: FifoBy::Nominal, ..Rules::PLAIN };
        let truth = Explorer::explore(&set, PolicyKind::Fifo, rules, Until::Miss);
        let within = |(bound, worst): (&Bound, &u8)| bound.response.0 >= (*worst).into();
        assert!(analysis.bounds.iter().zip(&truth.worst).all(within), "{set:?}: {analysis:?}");
        accepted += 1;
    }
    assert!(accepted > 20, "only {accepted} sets were accepted");
}

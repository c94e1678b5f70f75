//! What the analyses find on ticks, late or not: every number is the explored one.
//!
//! Nothing is scaled here and nothing is let off: where [`Findings::exact`] says so, responses are
//! equal to the worst that was seen, of sets that miss deadlines too, and a set is refused exactly
//! if it misses. Elsewhere bounds are no less, and no set that misses is accepted.
//!
//! [`Findings::exact`]: aegis_sched::analysis::Findings::exact

use aegis_sched::analysis::{Findings, Response, Setting, TimeModel, examine};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::Overheads;
use aegis_trace::Nanos;

use crate::explorer::{Costs, Explorer, Numbers, POLICIES, Rules, Tiny, Until, plain, set};

/// What was compared.
#[derive(Debug, Default)]
struct Tally {
    exact: u32,
    /// Of those, sets that miss.
    late: u32,
    sound: u32,
    refused_without_a_miss: u32,
}

impl Tally {
    fn compare(&mut self, tasks: &[Tiny], policy: PolicyKind, rules: Rules) {
        let findings = findings(tasks, policy, rules);
        let truth = Explorer::explore(tasks, policy, rules, Until::End);
        let worst: Vec<u64> = truth.worst.iter().copied().map(u64::from).collect();
        let bounds: Vec<u64> = findings.responses.iter().map(|response| bound(*response)).collect();
        let context = || format!("{policy:?} {rules:?} {tasks:#?}: {findings:?}, seen {worst:?}");
        assert!(findings.verdict.is_err() || !truth.missed, "misses: {}", context());
        if findings.exact {
            assert_eq!(bounds, worst, "{}", context());
            assert_eq!(findings.verdict.is_err(), truth.missed, "{}", context());
            self.exact += 1;
            self.late += u32::from(truth.missed);
        } else {
            let within = bounds.iter().zip(&worst).all(|(bound, worst)| bound >= worst);
            assert!(within, "{}", context());
            self.sound += 1;
            self.refused_without_a_miss += u32::from(findings.verdict.is_err() && !truth.missed);
        }
    }
}

fn findings(tasks: &[Tiny], policy: PolicyKind, rules: Rules) -> Findings {
    let nanos = |ticks: u8| Nanos(ticks.into());
    let overheads =
        Overheads { dispatch: nanos(rules.dispatch), wake: nanos(rules.wake), ..Overheads::NONE };
    let setting = Setting { time: TimeModel::Discrete, ..Setting::admission(policy, overheads) };
    examine(&set(tasks).with_background(nanos(rules.background)), &setting)
}

fn bound(response: Response) -> u64 {
    response.bound().unwrap_or_else(|| panic!("{response:?} for a tiny set within the device")).0
}

#[test]
fn every_pair_of_unstaged_tasks_is_known_exactly() {
    let mut tally = Tally::default();
    let mut shapes = Vec::new();
    for period in 2..=5 {
        for cost in 1..=3.min(period) {
            for deadline in [cost, period, period + 2] {
                shapes.push((cost, period, deadline));
            }
        }
    }
    for (c0, t0, d0) in &shapes {
        for (c1, t1, d1) in shapes.iter().filter(|(c1, t1, _)| c0 * t1 + c1 * t0 <= t0 * t1) {
            let pair = [plain(*c0, *t0, *d0, 0), plain(*c1, *t1, *d1, 1)];
            for policy in POLICIES {
                tally.compare(&pair, policy, Rules::PLAIN);
            }
        }
    }
    assert!(tally.late > 200 && tally.exact - tally.late > 200, "both occur: {tally:?}");
    assert_eq!(tally.sound, 0, "all of these are exact");
}

#[test]
fn three_tasks_are_known_exactly_with_and_without_equal_priorities() {
    let mut numbers = Numbers(11);
    let mut tally = Tally::default();
    for round in 0..120 {
        let set = numbers.set(3, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 4), numbers.draw(3, 10));
            let priority = if round % 2 == 0 { priority } else { priority / 2 };
            plain(cost, period, numbers.draw(cost, period + 5), priority)
        });
        for policy in POLICIES {
            tally.compare(&set, policy, Rules::PLAIN);
        }
    }
    assert!(tally.late > 100 && tally.exact - tally.late > 100, "both occur: {tally:?}");
}

#[test]
fn jitter_within_and_beyond_the_period_is_known_exactly() {
    let mut numbers = Numbers(12);
    let mut tally = Tally::default();
    for round in 0..120 {
        let (tasks, most) = if round % 4 == 0 { (3, 2) } else { (2, 7) };
        let set = numbers.set(tasks, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 2), numbers.draw(3, 6));
            let jitter = numbers.draw(0, most);
            let deadline = numbers.draw(cost + jitter, cost + jitter + 9);
            Tiny { jitter, ..plain(cost, period, deadline, priority) }
        });
        for policy in POLICIES {
            tally.compare(&set, policy, Rules::PLAIN);
        }
    }
    assert!(tally.late > 50 && tally.exact - tally.late > 50, "both occur: {tally:?}");
}

#[test]
fn stages_are_known_exactly_under_fixed_priorities_and_bounded_under_edf() {
    let mut numbers = Numbers(13);
    let mut tally = Tally::default();
    for _ in 0..80 {
        let set = numbers.set(3, |numbers, priority| {
            let stages: Vec<u8> = (0..numbers.draw(1, 3)).map(|_| numbers.draw(1, 3)).collect();
            let (cost, period) = (stages.iter().sum(), numbers.draw(4, 10));
            Tiny { stages, ..plain(1, period, numbers.draw(cost, cost + 12), priority) }
        });
        for policy in POLICIES {
            tally.compare(&set, policy, Rules::PLAIN);
        }
    }
    assert!(tally.late > 50 && tally.exact - tally.late > 50, "both occur: {tally:?}");
    println!("staged, without a claim to be exact: {tally:?}");
}

#[test]
fn overheads_and_pieces_without_a_deadline_are_known_exactly() {
    let mut numbers = Numbers(14);
    let mut tally = Tally::default();
    for _ in 0..80 {
        let rules = Rules {
            wake: numbers.draw(0, 3),
            background: numbers.draw(0, 4),
            dispatch: numbers.draw(0, 1),
            ..Rules::PLAIN
        };
        let set = numbers.set(2, |numbers, priority| {
            let cost = numbers.draw(1, 3);
            let period = numbers.draw((cost + rules.dispatch) * 2, 8);
            let jitter = numbers.draw(0, 3);
            let deadline = numbers.draw(cost + jitter, period + 7);
            Tiny { jitter, ..plain(cost, period, deadline, priority) }
        });
        for policy in POLICIES {
            tally.compare(&set, policy, rules);
        }
    }
    assert!(tally.late > 50 && tally.exact - tally.late > 50, "both occur: {tally:?}");
}

#[test]
fn a_device_that_is_never_idle_is_known_exactly() {
    let mut numbers = Numbers(15);
    let mut tally = Tally::default();
    for round in 0..60 {
        let (tasks, wake, most) = [(3, 0, 0), (3, 2, 0), (2, 0, 4), (2, 3, 3)][round % 4];
        let rules = Rules { wake, ..Rules::PLAIN };
        let set = numbers.full_set(tasks, |numbers, priority| {
            let (cost, period) = (numbers.draw(1, 4), numbers.draw(2, 9));
            let jitter = numbers.draw(0, most);
            let deadline = numbers.draw(cost + jitter, cost + jitter + 9);
            Tiny { jitter, ..plain(cost, period, deadline, priority) }
        });
        for policy in POLICIES {
            tally.compare(&set, policy, rules);
        }
    }
    assert!(tally.late > 50 && tally.exact - tally.late > 50, "both occur: {tally:?}");
}

#[test]
fn the_edf_verdict_on_stages_is_exact_when_stages_can_be_over_at_once() {
    let mut numbers = Numbers(16);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..120 {
        let set = numbers.set(2, |numbers, priority| {
            let stages: Vec<u8> = (0..numbers.draw(1, 3)).map(|_| numbers.draw(1, 3)).collect();
            let (cost, period) = (stages.iter().sum(), numbers.draw(4, 9));
            Tiny { stages, ..plain(1, period, numbers.draw(cost, cost + 8), priority) }
        });
        let rules = Rules { costs: Costs::Free, ..Rules::PLAIN };
        let findings = findings(&set, PolicyKind::Edf, rules);
        let truth = Explorer::explore(&set, PolicyKind::Edf, rules, Until::Miss);
        assert_eq!(findings.verdict.is_err(), truth.missed, "{set:#?} {findings:?}");
        if truth.missed { refused += 1 } else { accepted += 1 }
    }
    assert!(accepted > 20 && refused > 20, "both occur: {accepted} and {refused}");
}

#[test]
fn stages_that_end_early_beside_pieces_without_a_deadline_make_nothing_worse() {
    let mut numbers = Numbers(17);
    for _ in 0..25 {
        let rules = Rules { background: numbers.draw(0, 2), costs: Costs::Any, ..Rules::PLAIN };
        let set = numbers.set(2, |numbers, priority| {
            let stages: Vec<u8> = (0..numbers.draw(1, 2)).map(|_| numbers.draw(1, 3)).collect();
            let (cost, period) = (stages.iter().sum(), numbers.draw(5, 10));
            Tiny { stages, ..plain(1, period, numbers.draw(cost, cost + 9), priority) }
        });
        for policy in POLICIES {
            let findings = findings(&set, policy, rules);
            let truth = Explorer::explore(&set, policy, rules, Until::End);
            let bounds = findings.responses.iter().map(|response| bound(*response));
            let within = bounds.zip(&truth.worst).all(|(bound, worst)| bound >= (*worst).into());
            assert!(within, "{policy:?} {rules:?} {set:?}: {findings:?}, seen {:?}", truth.worst);
            assert!(findings.verdict.is_err() || !truth.missed, "{policy:?} {set:?}");
        }
    }
}

//! A log replays to what it says, and to nothing else.

mod account;
mod mutation;
mod old;
mod streamed;
mod what_if;
mod worlds;

use std::collections::BTreeMap;

use aegis_sched::replay::{Extent, replay};
use aegis_trace::{EventKind, Trace, TraceEvent};

#[test]
fn every_world_replays_without_a_divergence() {
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let (mut events, mut given) = (0, 0);
    for seed in 0..1_500 {
        let trace = worlds::hostile(seed);
        let replayed = replay(&trace, Extent::Whole).expect("a whole trace of ours");
        assert_eq!(replayed.divergence, None, "seed {seed}");
        for executor in &replayed.executors {
            events += executor.events;
            given += executor.taken_as_given;
        }
        for record in &trace.records {
            *kinds.entry(format!("{:?}", record.event.kind())).or_default() += 1;
        }
    }
    // The worlds are worth replaying: whatever can be decided was.
    assert!(events > 500_000, "{events}");
    assert!(given > 50, "{given} refusals by memory");
    for kind in [
        EventKind::Admitted,
        EventKind::Refused,
        EventKind::BoundChanged,
        EventKind::Evicted,
        EventKind::Freed,
        EventKind::Stamped,
        EventKind::SubmissionRefused,
        EventKind::Released,
        EventKind::Suspended,
        EventKind::StageFailed,
        EventKind::LaunchFailed,
        EventKind::Hanging,
        EventKind::Dropped,
        EventKind::Fenced,
        EventKind::MissedDeadline,
        EventKind::BoundExceeded,
        EventKind::OutOfBudget,
        EventKind::DebtIncurred,
        EventKind::Postponed,
        EventKind::GuaranteesRestored,
    ] {
        let seen = kinds.get(&format!("{kind:?}")).copied().unwrap_or(0);
        assert!(seen > 20, "{kind:?}: {seen}");
    }
}

/// What arrives after the time of a decision was read, and is seen by it: refills then begin after it.
#[test]
fn what_arrives_within_a_decision_replays_as_it_was() {
    let (mut within, mut refills) = (0, 0);
    for seed in 0..600 {
        let trace = worlds::hostile_with_slow_intake(seed);
        for extent in [Extent::Whole, Extent::Prefix] {
            let replayed = replay(&trace, extent).expect("a whole trace of ours");
            assert_eq!(replayed.divergence, None, "seed {seed}");
        }
        within += arrived_within(&trace).len();
        refills += old::as_it_was_written(&trace).map_or(0, |(_, moved)| moved);
    }
    assert!(within > 5_000 && refills > 100, "{within} submissions, {refills} refills");
}

#[test]
fn the_first_logs_of_servers_replay_although_their_times_went_back() {
    let mut logs = 0;
    for seed in 0..300 {
        let trace = worlds::hostile_with_slow_intake(seed);
        let Some((old, _)) = old::as_it_was_written(&trace) else { continue };
        let mut sorted = old.clone();
        sorted.records.sort_by_key(|record| record.at);
        for trace in [&old, &sorted, &old::emptied_within(&old)] {
            let replayed = replay(trace, Extent::Whole).expect("a log of then");
            assert_eq!(replayed.divergence, None, "seed {seed}");
        }
        logs += 1;
    }
    assert!(logs > 50, "{logs}");
}

/// The places of jobs that arrived after the time of the decision that took them.
fn arrived_within(trace: &Trace) -> Vec<usize> {
    let late = |event: &TraceEvent, at| matches!(event, TraceEvent::Submitted { arrival, .. } if *arrival > at);
    let records = trace.records.iter().enumerate();
    records.filter(|(_, it)| late(&it.event, it.at)).map(|(place, _)| place).collect()
}

/// No event tells when an upload ends whose stage could not be launched, so no decision may wait for it.
#[test]
fn worlds_in_which_uploads_are_left_replay() {
    let mut waited = 0;
    for seed in 0..600 {
        let trace = worlds::uploading(seed);
        let replayed = replay(&trace, Extent::Whole).expect("a whole trace of ours");
        assert_eq!(replayed.divergence, None, "seed {seed}");
        let mut gone = BTreeMap::new();
        for record in &trace.records {
            match record.event {
                TraceEvent::Evicted { model } => drop(gone.insert(model, record.at)),
                TraceEvent::Freed { model } => waited += u32::from(gone[&model] < record.at),
                _ => {}
            }
        }
    }
    assert!(waited > 0, "no memory waited for an upload");
}

#[test]
fn a_trace_with_losses_is_refused_with_their_count() {
    let trace = Trace { dropped: 7, ..worlds::hostile(1) };
    let error = replay(&trace, Extent::Whole).expect_err("events are missing");
    expect_test::expect!["7 events were lost while recording, so what is left cannot be replayed"]
        .assert_eq(&error.to_string());
}

#[test]
fn every_prefix_replays_as_such() {
    for seed in 0..40 {
        let whole = worlds::hostile(seed);
        for cut in (1..whole.records.len()).step_by(97) {
            let trace = Trace { records: whole.records[..cut].to_vec(), dropped: 0 };
            let replayed = replay(&trace, Extent::Prefix).expect("a prefix of ours");
            assert_eq!(replayed.divergence, None, "seed {seed}, cut at {cut}");
        }
    }
}

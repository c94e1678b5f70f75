//! A log that was altered in one decision parts from its replay at exactly that place.

use aegis_sched::replay::{Extent, ReplayError, Replayed, replay};
use aegis_sched::sim::{Random, Seed};
use aegis_trace::{Category, DropReason, EventKind, Record, Timestamp, Trace, TraceEvent};
use serde_json::Value;

use crate::worlds;

/// The fields that say what the world did, and not what was decided. Changing one gives the log of
/// another run, which may well replay.
fn is_input(kind: EventKind, path: &str) -> bool {
    match kind {
        EventKind::Configured | EventKind::PressureChanged | EventKind::AllocationRefused => true,
        EventKind::Submitted => matches!(path, "/arrival"),
        EventKind::Stamped => path != "/job",
        EventKind::StageCompleted => {
            matches!(path, "/started" | "/finished" | "/upload" | "/download" | "/ahead")
        }
        EventKind::UploadAwaited => matches!(path, "/of" | "/took" | "/before"),
        EventKind::StageFailed | EventKind::LaunchFailed => path == "/category",
        // The rest is what was asked, or what memory answered.
        EventKind::Admitted => !matches!(path, "/what/bound" | "/what/overhead"),
        EventKind::Refused => !path.starts_with("/what/why/"),
        // An eviction of another model, or another bound told, is another command; the latter is held
        // to what admission found.
        EventKind::Evicting | EventKind::Freed => true,
        _ => path == "/at",
    }
}

/// Every way to change one number, id or choice of `event`.
fn mutants(event: &Record) -> Vec<(String, Record)> {
    let value = serde_json::to_value(event).expect("records serialise");
    let mut paths = Vec::new();
    collect(&value, String::new(), &mut paths);
    let mutant = |path: String| {
        let mut value = value.clone();
        let place = value.pointer_mut(&path).expect("it was just collected");
        *place = other(&path, place)?;
        Some((path, serde_json::from_value(value).ok()?))
    };
    paths.into_iter().filter_map(mutant).collect()
}

fn collect(value: &Value, path: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| collect(value, format!("{path}/{key}"), paths));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(n, value)| collect(value, format!("{path}/{n}"), paths));
        }
        Value::Null => {}
        _ => paths.push(path),
    }
}

fn other(path: &str, value: &Value) -> Option<Value> {
    match value {
        Value::Number(number) => Some(Value::from(number.as_u64()?.checked_add(1)?)),
        Value::Bool(is) => Some(Value::from(!is)),
        Value::String(text) if text.contains('#') => {
            let (model, sequence) = text.split_once('#')?;
            Some(Value::from(format!("{model}#{}", sequence.parse::<u64>().ok()? + 1)))
        }
        Value::String(text) if path == "/stream" => {
            Some(Value::from(format!("s{}", text[1..].parse::<u16>().ok()? + 1)))
        }
        // Names that a closed set of its own knows.
        Value::String(_) => match path.rsplit('/').next()? {
            "why" => Some(Value::from("compute_budget")),
            "category" => Some(Value::from("transient")),
            "assumption" => Some(Value::from("release_jitter")),
            _ => None,
        },
        _ => None,
    }
}

fn altered(trace: &Trace, place: usize, record: Record) -> Trace {
    let mut trace = trace.clone();
    trace.records[place] = record;
    trace
}

fn place_of(replayed: Result<Replayed, ReplayError>) -> Option<usize> {
    replayed.expect("an altered decision is no broken log").divergence.map(|found| found.record)
}

#[test]
fn every_altered_decision_is_found_where_it_is() {
    let mut random = Random::new(Seed(5));
    let mut tried = std::collections::BTreeMap::new();
    for seed in 0..120 {
        let trace = worlds::hostile(seed);
        for _ in 0..25 {
            let last = trace.records.len() as u64 - 1;
            let place = usize::try_from(random.up_to(last)).expect("small");
            let record = &trace.records[place];
            let kind = record.event.kind();
            for (path, mutant) in mutants(record) {
                // The time of the first event of a decision is that of the decision: an input.
                if mutant == *record || path == "/at" || path == "/by" || is_input(kind, &path) {
                    continue;
                }
                if matches!(mutant.event, TraceEvent::SubmissionRefused { .. }) && record.by > 0 {
                    continue; // By a submitting side.
                }
                if by_memory(record) {
                    continue;
                }
                let found = place_of(replay(&altered(&trace, place, mutant), Extent::Whole));
                assert_eq!(found, Some(place), "seed {seed}, {path} of {record:?}");
                *tried.entry(format!("{kind:?}")).or_insert(0) += 1;
            }
        }
    }
    let all: i32 = tried.values().sum();
    assert!(all > 4_000 && tried.len() > 20, "{tried:?}");
}

/// A refusal whose numbers are taken as they are.
fn by_memory(record: &Record) -> bool {
    let text = serde_json::to_string(&record.event).expect("it serialises");
    text.contains("\"device_memory\"") || text.contains("\"memory_budget\"")
}

/// Whether the dispatcher decided this: its absence must be noticed at once.
fn is_decision(record: &Record) -> bool {
    record.by == 0
        && !matches!(
            record.event,
            TraceEvent::Configured { .. }
                | TraceEvent::Admitted { .. }
                | TraceEvent::Refused { .. }
                | TraceEvent::Freed { .. }
                | TraceEvent::Stamped { .. }
                | TraceEvent::Submitted { .. }
                | TraceEvent::SubmissionRefused { .. }
                | TraceEvent::Evicting { .. }
                | TraceEvent::BoundChanged { .. }
                | TraceEvent::StageCompleted { .. }
                | TraceEvent::UploadAwaited { .. }
                | TraceEvent::StageFailed { .. }
                | TraceEvent::LaunchFailed { .. }
                | TraceEvent::AllocationRefused { .. }
                // They may be all of a decision that nothing else led to: without them the log is that
                // of a run in which the dispatcher looked later.
                | TraceEvent::Released { .. }
                | TraceEvent::Evicted { .. }
                | TraceEvent::Postponed { .. }
                | TraceEvent::Dropped { why: DropReason::Stopping, .. }
        )
}

#[test]
fn a_missing_or_repeated_decision_is_found_where_it_is() {
    let mut random = Random::new(Seed(6));
    let mut tried = 0;
    for seed in 0..120 {
        let trace = worlds::hostile(seed);
        for _ in 0..12 {
            let last = trace.records.len() as u64 - 1;
            let place = usize::try_from(random.up_to(last)).expect("small");
            if !is_decision(&trace.records[place]) {
                continue;
            }
            let mut without = trace.clone();
            without.records.remove(place);
            // What decides comes next in the log, or nothing does.
            let decides = |record: &Record| {
                record.by == 0
                    && !matches!(
                        record.event.kind(),
                        EventKind::Admitted | EventKind::Refused | EventKind::Freed
                    )
            };
            let next = (place..without.records.len()).find(|at| decides(&without.records[*at]));
            let expected = next.or((0..place).rfind(|at| decides(&without.records[*at])));
            let found = place_of(replay(&without, Extent::Whole));
            assert_eq!(found, expected, "seed {seed}: {:?}", trace.records[place]);

            let mut twice = trace.clone();
            twice.records.insert(place, trace.records[place].clone());
            let found = place_of(replay(&twice, Extent::Whole));
            assert_eq!(found, Some(place + 1), "seed {seed}: {:?}", trace.records[place]);
            tried += 1;
        }
    }
    assert!(tried > 300, "{tried}");
}

/// The trace of a world whose executor stops at its end, if nothing waits there that a stop would drop.
/// `None` of a lost device too: an executor stops then, and what follows in a world comes too late.
fn stopped(mut trace: Trace) -> Option<Trace> {
    let at = trace.records.last()?.at;
    let fatal = |record: &Record| match &record.event {
        TraceEvent::StageFailed { category, .. } => *category == Category::Fatal,
        _ => false,
    };
    if trace.records.iter().any(fatal) {
        return None;
    }
    let more = [TraceEvent::Stopping, TraceEvent::Stopped];
    trace.records.extend(more.map(|event| Record { at: Timestamp(at.0 + 1), by: 0, event }));
    place_of(replay(&trace, Extent::Whole)).is_none().then_some(trace)
}

#[test]
fn a_bound_that_was_never_told_is_missed_also_by_an_executor_that_stopped() {
    let (mut told, mut ended) = (0, 0);
    for seed in 0..120 {
        let trace = worlds::hostile(seed);
        let with_end = stopped(trace.clone());
        ended += u32::from(with_end.is_some());
        for trace in [Some(trace), with_end].into_iter().flatten() {
            let is_told = |record: &Record| record.event.kind() == EventKind::BoundChanged;
            let places = (0..trace.records.len()).filter(|place| is_told(&trace.records[*place]));
            for place in places {
                let mut without = trace.clone();
                without.records.remove(place);
                let found = place_of(replay(&without, Extent::Whole));
                assert!(found.is_some(), "seed {seed}: {:?}", trace.records[place]);
                told += 1;
            }
        }
    }
    assert!(told > 200 && ended > 10, "{told} told, {ended} ended");
}

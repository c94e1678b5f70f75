//! Logs as they were written before a wait for budget had the time of the decision that found it.

use aegis_trace::{JobId, Timestamp, Trace, TraceEvent};

/// The trace as it would have been written then, in the order in which it was recorded, and how many
/// events have another time; `None` where none has.
pub(crate) fn as_it_was_written(trace: &Trace) -> Option<(Trace, usize)> {
    let (mut old, mut moved) = (trace.clone(), 0);
    let mut before: Option<(JobId, Timestamp)> = None;
    for record in &mut old.records {
        let submitted = before.take();
        match &record.event {
            TraceEvent::Submitted { job, arrival, .. } => before = Some((*job, *arrival)),
            TraceEvent::OutOfBudget { job, .. } => {
                if let Some((_, arrival)) = submitted.filter(|it| it.0 == *job && it.1 > record.at)
                {
                    record.at = arrival;
                    moved += 1;
                }
            }
            _ => {}
        }
    }
    (moved > 0).then_some((old, moved))
}

/// The same, where the recorder was emptied while it recorded: the submission behind such a wait, at the
/// time of the decision, is sorted before it, and what was decided then comes after.
pub(crate) fn emptied_within(old: &Trace) -> Trace {
    let mut trace = old.clone();
    for place in 1..trace.records.len() {
        let [wait, next] = &trace.records[place - 1..=place] else { unreachable!() };
        let is_wait = matches!(wait.event, TraceEvent::OutOfBudget { .. }) && next.at < wait.at;
        if is_wait && matches!(next.event, TraceEvent::Submitted { .. }) {
            trace.records.swap(place - 1, place);
        }
    }
    trace
}

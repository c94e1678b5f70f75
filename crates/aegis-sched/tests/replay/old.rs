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

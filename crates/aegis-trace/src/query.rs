//! A recorded trace in memory, and questions to it.

use std::ops::Range;

use crate::collector::Record;
use crate::event::TraceEvent;
use crate::id::ModelId;
use crate::kind::EventKind;
use crate::unit::Timestamp;

/// Records in order of time, with the count of those that were lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The records, in order of time.
    pub records: Vec<Record>,
    /// Events lost to full rings; a trace with losses cannot be replayed.
    pub dropped: u64,
}

/// What to look for; the default matches every record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Half-open span of time; `None` for all.
    pub time: Option<Range<Timestamp>>,
    /// One of these kinds; empty for all.
    pub kinds: Vec<EventKind>,
    /// About this model; `None` for all.
    pub model: Option<ModelId>,
}

impl Trace {
    /// The records that match, in order. O(n) in the number of records within the span of time,
    /// found by bisection.
    pub fn query<'t>(&'t self, query: &'t Query) -> impl Iterator<Item = &'t Record> {
        let span = match &query.time {
            None => &self.records[..],
            Some(time) => {
                let from = self.records.partition_point(|record| record.at < time.start);
                let to = self.records.partition_point(|record| record.at < time.end);
                &self.records[from..to.max(from)]
            }
        };
        span.iter().filter(move |record| {
            (query.kinds.is_empty() || query.kinds.contains(&record.event.kind()))
                && query.model.is_none_or(|model| record.event.model() == Some(model))
        })
    }

    /// How many deadlines `model` missed.
    #[must_use]
    pub fn misses(&self, model: ModelId) -> usize {
        let late = |record: &&Record| match &record.event {
            TraceEvent::MissedDeadline { job, .. } => job.model == model,
            _ => false,
        };
        self.records.iter().filter(late).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::JobId;
    use crate::unit::Nanos;

    fn trace() -> Trace {
        let job = |model, sequence| JobId { model: ModelId::first(model), sequence };
        let events = [
            TraceEvent::Started,
            TraceEvent::Completed { job: job(0, 0), response: Nanos(5), execution: Nanos(4) },
            TraceEvent::MissedDeadline { job: job(1, 0), late: Nanos(1) },
            TraceEvent::Idle,
        ];
        let records = (0u64..)
            .zip(events)
            .map(|(n, event)| Record { at: Timestamp(n * 10), by: 0, event })
            .collect();
        Trace { records, dropped: 0 }
    }

    #[test]
    fn a_query_filters_by_time_kind_and_model() {
        let trace = trace();
        let count = |query: Query| trace.query(&query).count();
        assert_eq!(count(Query::default()), 4);
        let time = Some(Timestamp(10)..Timestamp(30));
        assert_eq!(count(Query { time, ..Query::default() }), 2);
        assert_eq!(count(Query { kinds: vec![EventKind::Idle], ..Query::default() }), 1);
        assert_eq!(count(Query { model: Some(ModelId::first(1)), ..Query::default() }), 1);
        let backwards = Some(Timestamp(30)..Timestamp(10));
        assert_eq!(count(Query { time: backwards, ..Query::default() }), 0);
    }

    #[test]
    fn misses_are_counted_per_model() {
        assert_eq!(trace().misses(ModelId::first(1)), 1);
        assert_eq!(trace().misses(ModelId::first(0)), 0);
    }
}

//! The run as `tracing` events, for whoever collects logs.
//!
//! [`EventLog`] turns records of the trace into events: decisions at `DEBUG`, the small change of
//! every job at `TRACE`, findings at `WARN`, faults at `ERROR`. It is fed by the pump, so no job waits
//! for a subscriber, and the times in the events are those of the trace. [`error`] puts an error with
//! all its causes into one event.
//!
//! # Invariants
//! 1. Nothing is written here: without a subscriber an event costs the pump some nanoseconds.
//! 2. The target is `aegis::trace` for what happened and `aegis` for errors, so that a filter can name
//!    one without the other.

use std::error::Error as StdError;

use aegis_trace::Record;

use crate::narrate::{self, Weight};
use crate::observer::{Names, TraceObserver};

/// Target of the events that are records of the trace.
const TARGET: &str = "aegis::trace";

/// Emits a `tracing` event for each record.
#[derive(Debug, Default)]
pub struct EventLog {
    names: Names,
    dropped: u64,
}

/// One event; nothing of it is computed where nobody listens. The level is part of an event's static
/// description, so it cannot be a value.
macro_rules! emit {
    ($level:ident, $log:expr, $record:expr) => {
        tracing::event!(
            target: TARGET,
            tracing::Level::$level,
            at = $record.at.0,
            kind = ?$record.event.kind(),
            "{}",
            narrate::tell(&$record.event, &$log.names)
        )
    };
}

impl TraceObserver for EventLog {
    fn observe(&mut self, record: &Record) {
        self.names.learn(&record.event);
        match narrate::weight(&record.event) {
            Weight::Detail => emit!(TRACE, self, record),
            Weight::Decision => emit!(DEBUG, self, record),
            Weight::Finding => emit!(WARN, self, record),
            Weight::Fault => emit!(ERROR, self, record),
        }
    }

    fn emptied(&mut self, dropped: u64) {
        if dropped > self.dropped {
            let lost = dropped - self.dropped;
            tracing::warn!(target: TARGET, lost, dropped, "events were lost to full rings");
            self.dropped = dropped;
        }
    }
}

/// Emits `error` at `ERROR` with what it came from, the nearest cause first.
pub fn error(what: &str, error: &(dyn StdError + 'static)) {
    tracing::error!(target: "aegis", error = %error, causes = %Causes(error), "{what}");
}

/// The causes of an error, joined; nothing for an error without one.
struct Causes<'a>(&'a (dyn StdError + 'static));

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut next = self.0.source();
        let mut before = "";
        while let Some(cause) = next {
            write!(f, "{before}{cause}")?;
            (next, before) = (cause.source(), ": ");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::{Arc, Mutex};

    use aegis_trace::{JobId, ModelId, Nanos, Timestamp, TraceError, TraceEvent};
    use tracing::field::{Field, Visit};
    use tracing::span;

    use super::*;

    /// A subscriber that keeps lines.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    struct Fields<'a>(&'a mut String);

    impl Visit for Fields<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            write!(self.0, " {field}={value:?}").expect("a text grows");
        }
    }

    impl tracing::Subscriber for Lines {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() <= tracing::Level::DEBUG
        }
        fn event(&self, event: &tracing::Event<'_>) {
            let meta = event.metadata();
            let mut line = format!("{} {}", meta.level(), meta.target());
            event.record(&mut Fields(&mut line));
            self.0.lock().expect("not poisoned").push(line);
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    fn lines_of(work: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), work);
        let kept = lines.0.lock().expect("not poisoned");
        kept.clone()
    }

    #[test]
    fn decisions_are_at_debug_and_findings_above() {
        let job = JobId { model: ModelId::first(0), sequence: 1 };
        let events = [
            TraceEvent::Started,
            TraceEvent::Idle, // Detail: below what is asked for.
            TraceEvent::MissedDeadline { job, late: Nanos(5) },
        ];
        let lines = lines_of(|| {
            let mut log = EventLog::default();
            for event in events {
                log.observe(&Record { at: Timestamp(9), by: 0, event });
            }
            log.emptied(3);
            log.emptied(3);
        });
        expect_test::expect![[r#"
            DEBUG aegis::trace message=the orchestrator started at=9 kind=Started
            WARN aegis::trace message=m0#1 missed its deadline by 5 ns at=9 kind=MissedDeadline
            WARN aegis::trace message=events were lost to full rings lost=3 dropped=3"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn an_error_brings_its_causes_along() {
        let disk = std::io::Error::other("no space left on device");
        let cause = TraceError::from(disk);
        let failed = crate::Error::Trace { path: "out.jsonl".into(), cause };
        let lines = lines_of(|| error("the run goes on", &failed));
        expect_test::expect![[r#"
            ERROR aegis message=the run goes on error=the trace out.jsonl could not be written causes=no space left on device"#]]
        .assert_eq(&lines.join("\n"));
    }
}

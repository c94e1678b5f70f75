//! JSON Lines: one header line, one line per record, one closing line.
//!
//! ```text
//! {"aegis_trace":3}
//! {"at":1200,"by":0,"event":"started"}
//! ...
//! {"end":{"records":2041,"dropped":0}}
//! ```
//! Times are integer nanoseconds on the trace clock. [`Writer`] makes such a file piece by piece,
//! [`Reader`] goes through one record by record; in both, memory does not grow with the trace.
//! [`read`] takes a whole one into memory.
//!
//! # Invariants
//! 1. A line is written whole, its end included, so that a file that was cut short is readable up to
//!    its last whole line. Reading one succeeds, and says that it was cut ([`Ending::Cut`]).
//! 2. Whatever else is wrong with a file is an error that names the line and the byte.
//! 3. No line is longer than [`LINE_MAX`]; a reader holds one line at a time.

mod known;
mod quick;
mod reader;
mod writer;

use std::io::BufRead;

use serde::{Deserialize, Serialize};

pub use self::reader::{Ending, LINE_MAX, Place, Reader};
pub use self::writer::Writer;
use crate::error::TraceError;
use crate::query::Trace;

/// The version of this format that is written. A new kind of event, a new key or a change of meaning
/// raises it.
pub const VERSION: u32 = 3;

/// The oldest version that is still read; every one from it to [`VERSION`] is.
pub const OLDEST: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Header {
    aegis_trace: u32,
}

#[derive(Serialize, Deserialize)]
struct Footer {
    end: End,
}

#[derive(Serialize, Deserialize)]
struct End {
    records: u64,
    dropped: u64,
}

/// A trace read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBack {
    /// What was read.
    pub trace: Trace,
    /// How it ended.
    pub ending: Ending,
}

impl ReadBack {
    /// Whether the closing line was there and its count right.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let found = self.trace.records.len() as u64;
        matches!(self.ending, Ending::Closed { records, .. } if records == found)
    }
}

/// Reads a whole trace into memory, refusing other versions and lines that are no events.
///
/// # Errors
/// As [`Reader::open`] and [`Reader::next`].
pub fn read(input: impl BufRead) -> Result<ReadBack, TraceError> {
    let mut reader = Reader::open(input)?;
    let mut trace = Trace::default();
    while let Some(record) = reader.next()? {
        trace.records.push(record);
    }
    let ending = reader.ending().unwrap_or(Ending::Cut { place: reader.place() });
    if let Ending::Closed { dropped, .. } = ending {
        trace.dropped = dropped;
    }
    Ok(ReadBack { trace, ending })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::Record;
    use crate::event::TraceEvent;
    use crate::id::{JobId, ModelId};
    use crate::unit::{Nanos, Timestamp};

    fn sample() -> Vec<Record> {
        let job = JobId { model: ModelId::first(1), sequence: 3 };
        let late = TraceEvent::MissedDeadline { job, late: Nanos(4) };
        vec![
            Record { at: Timestamp(1), by: 0, event: TraceEvent::Started },
            Record { at: Timestamp(u64::MAX), by: 1, event: late },
        ]
    }

    fn written() -> String {
        let mut writer = Writer::new(Vec::new()).expect("memory takes all");
        writer.write(&sample()).expect("memory takes all");
        String::from_utf8(writer.finish(2).expect("memory takes all")).expect("JSON is UTF-8")
    }

    #[test]
    fn the_format_is_pinned() {
        expect_test::expect![[r#"
            {"aegis_trace":3}
            {"at":1,"by":0,"event":"started"}
            {"at":18446744073709551615,"by":1,"event":"missed_deadline","job":"m1#3","late":4}
            {"end":{"records":2,"dropped":2}}
        "#]]
        .assert_eq(&written());
    }

    /// A dispatcher of that time did not look ahead, and its log did not say so.
    #[test]
    fn a_log_of_version_2_is_read() {
        let overheads = r#"{"dispatch":1,"wake":2,"boundary":0,"copy":0}"#;
        let text = format!(
            concat!(
                "{{\"aegis_trace\":2}}\n",
                r#"{{"at":0,"by":0,"event":"configured","what":{{"policy":"edf","overheads":{},"#,
                r#""overrun":"record","streams":1,"queue_depth":8,"first_model":0,"max_models":4,"#,
                r#""max_suspended":null,"hang_factor":8,"hang_floor":0}}}}"#,
                "\n{{\"end\":{{\"records\":1,\"dropped\":0}}}}\n"
            ),
            overheads
        );
        let back = read(text.as_bytes()).expect("an older log");
        let TraceEvent::Configured { what } = &back.trace.records[0].event else {
            panic!("the configuration")
        };
        let of = what.overheads;
        assert!(!of.look_ahead && !of.uploads_ahead && of.wake == Nanos(2));
    }

    #[test]
    fn what_was_written_reads_back_whole() {
        let back = read(written().as_bytes()).expect("our own output");
        assert_eq!(back.trace, Trace { records: sample(), dropped: 2 });
        assert!(back.is_complete());
    }

    #[test]
    fn a_file_cut_anywhere_is_read_up_to_its_last_whole_line() {
        let text = written();
        let header = text.find('\n').expect("a header line") + 1;
        for cut in header..text.len() {
            let back = read(&text.as_bytes()[..cut]).expect("a prefix is readable");
            let closed = cut == text.len() - 1; // Only the last line feed is missing.
            assert_eq!(back.is_complete(), closed, "cut at byte {cut}");
            let whole = text[header..cut].lines().filter(|line| line.ends_with('}')).count();
            assert_eq!(back.trace.records.len(), whole.min(2), "cut at byte {cut}");
        }
    }

    #[test]
    fn a_closing_line_that_counts_something_else_is_noticed() {
        let text = written().replace("\"records\":2", "\"records\":3");
        let back = read(text.as_bytes()).expect("readable");
        assert!(!back.is_complete());
        assert_eq!(back.ending, Ending::Closed { records: 3, dropped: 2 }, "and it is not cut");
    }

    #[test]
    fn a_foreign_file_is_refused_with_the_place() {
        let complaint = |text: &str| {
            let error = read(text.as_bytes()).expect_err("not a trace");
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            format!("{error}{}\n", cause.unwrap_or_default())
        };
        let header = "{\"aegis_trace\":2}\n";
        let end = "{\"end\":{\"records\":0,\"dropped\":0}}\n";
        let mut said = complaint("{\"aegis_trace\":9}\n");
        said += &complaint("hello\n");
        said += &complaint("");
        said += &complaint(&format!("{header}{{\"at\":1}}\n"));
        said += &complaint(&format!("{header}{{\"at\":1,\"by\":0,\"event\":\"paused\"}}\n{end}"));
        said += &complaint(&format!("{header}\n{end}"));
        said += &complaint(&format!("{header}{end}{{\"at\":1,\"by\":0,\"event\":\"idle\"}}\n"));
        said += &complaint(&format!("{header}{}\n", "x".repeat(LINE_MAX)));
        let started = r#"{"at":1,"by":0,"event":"started","note":"x"}"#;
        said += &complaint(&format!("{header}{started}\n{end}"));
        said += &complaint(&format!(
            "{header}{{\"end\":{{\"records\":0,\"dropped\":0,\"kept\":0}}}}\n"
        ));
        said += &complaint("{\"aegis_trace\":2,\"more\":1}\n");
        expect_test::expect![[r#"
            the trace has format version 9, this program reads 2 to 3
            the first line is no header of a trace; of what `--trace` writes, only .jsonl can be read again
            the first line is no header of a trace; of what `--trace` writes, only .jsonl can be read again
            line 2 of the trace is not an event (byte 25 of the file): missing field `by`
            line 2 of the trace is not an event (byte 49 of the file): unknown variant `paused`, expected one of `configured`, `started`, `admitted`, `bound_changed`, `refused`, `evicting`, `evicted`, `freed`, `stamped`, `submitted`, `submission_refused`, `released`, `dispatched`, `stage_completed`, `upload_awaited`, `stage_failed`, `launch_failed`, `suspended`, `completed`, `missed_deadline`, `dropped`, `faulted`, `fenced`, `assumption_broken`, `bound_exceeded`, `out_of_budget`, `debt_incurred`, `postponed`, `guarantees_restored`, `hanging`, `allocation_refused`, `pressure_changed`, `evidence_stale`, `idle`, `stopping`, `stopped`
            line 2 of the trace is not an event (byte 18 of the file): EOF while parsing a value
            line 3 of the trace (byte 52 of the file) follows its closing line
            line 2 of the trace (byte 18 of the file) is longer than 1048576 bytes
            line 2 of the trace is not an event (byte 18 of the file): unknown key `note`
            line 2 of the trace is not an event (byte 18 of the file): unknown key `end.kept`
            the first line is no header of a trace; of what `--trace` writes, only .jsonl can be read again
        "#]].assert_eq(&said);
    }
}

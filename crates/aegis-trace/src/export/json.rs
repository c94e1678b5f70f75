//! JSON Lines: one header line, one line per record, one closing line.
//!
//! ```text
//! {"aegis_trace":2}
//! {"at":1200,"by":0,"event":"started"}
//! ...
//! {"end":{"records":2041,"dropped":0}}
//! ```
//! Times are integer nanoseconds on the trace clock. A file without its closing line was cut
//! short; reading it succeeds with what is there only through [`read`]'s explicit answer.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::collector::Record;
use crate::error::TraceError;
use crate::query::Trace;

/// The version of this format; any change of meaning raises it.
pub const VERSION: u32 = 2;

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

/// Writes a trace piece by piece: memory does not grow with its length.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    records: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// [`TraceError::Io`] when `out` fails.
    pub fn new(mut out: W) -> Result<Self, TraceError> {
        write_line(&mut out, &Header { aegis_trace: VERSION })?;
        Ok(Self { out, records: 0 })
    }

    /// Appends `records`.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn write(&mut self, records: &[Record]) -> Result<(), TraceError> {
        for record in records {
            write_line(&mut self.out, record)?;
            self.records += 1;
        }
        Ok(())
    }

    /// Writes the closing line with the count of `dropped` events, flushes, and gives back the
    /// output.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn finish(mut self, dropped: u64) -> Result<W, TraceError> {
        write_line(&mut self.out, &Footer { end: End { records: self.records, dropped } })?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// A trace read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBack {
    /// What was read.
    pub trace: Trace,
    /// Whether the closing line was there and its count right.
    pub complete: bool,
}

/// Reads a trace, refusing other versions and lines that are no events.
///
/// # Errors
/// [`TraceError::NoHeader`], [`TraceError::Version`], [`TraceError::Malformed`] with the line, or
/// [`TraceError::Io`].
pub fn read(input: impl BufRead) -> Result<ReadBack, TraceError> {
    let mut lines = input.lines();
    let header = lines.next().ok_or(TraceError::NoHeader)??;
    let header: Header = serde_json::from_str(&header).map_err(|_| TraceError::NoHeader)?;
    if header.aegis_trace != VERSION {
        return Err(TraceError::Version { found: header.aegis_trace, expected: VERSION });
    }
    let mut trace = Trace::default();
    for (index, line) in lines.enumerate() {
        let line = line?;
        if let Ok(Footer { end }) = serde_json::from_str(&line) {
            trace.dropped = end.dropped;
            let complete = end.records == trace.records.len() as u64;
            return Ok(ReadBack { trace, complete });
        }
        let malformed = |cause| TraceError::Malformed { line: index + 2, cause };
        trace.records.push(serde_json::from_str(&line).map_err(malformed)?);
    }
    Ok(ReadBack { trace, complete: false })
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> Result<(), TraceError> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
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
            {"aegis_trace":2}
            {"at":1,"by":0,"event":"started"}
            {"at":18446744073709551615,"by":1,"event":"missed_deadline","job":"m1#3","late":4}
            {"end":{"records":2,"dropped":2}}
        "#]]
        .assert_eq(&written());
    }

    #[test]
    fn what_was_written_reads_back_whole() {
        let back = read(written().as_bytes()).expect("our own output");
        assert_eq!(back.trace, Trace { records: sample(), dropped: 2 });
        assert!(back.complete);
    }

    #[test]
    fn a_cut_or_foreign_file_is_noticed() {
        let text = written();
        let cut = text.lines().take(2).collect::<Vec<_>>().join("\n");
        assert!(!read(cut.as_bytes()).expect("a prefix is readable").complete);
        let other = read("{\"aegis_trace\":9}\n".as_bytes()).expect_err("a later version");
        assert_eq!(other.to_string(), "the trace has format version 9, this program reads 2");
        assert!(matches!(read("hello\n".as_bytes()), Err(TraceError::NoHeader)));
        let broken = "{\"aegis_trace\":2}\n{\"at\":1}\n";
        assert!(matches!(read(broken.as_bytes()), Err(TraceError::Malformed { line: 2, .. })));
    }
}

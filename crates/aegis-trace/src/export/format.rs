//! The formats of trace files, and one writer for all of them.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use crate::category::Category;
use crate::collector::Record;
use crate::error::TraceError;
use crate::export::{End, chrome, json, perfetto};

/// How a trace is written to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// JSON Lines: lossless, the one that is read back.
    JsonLines,
    /// Perfetto protobuf: a picture.
    Perfetto,
    /// Chrome trace JSON: a picture for older tools.
    Chrome,
}

/// A name of a file that stands for no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`.{extension}` is no trace format; write .jsonl (the log), .pftrace or .perfetto-trace \
     (Perfetto), or .json (Chrome)"
)]
pub struct UnknownFormat {
    /// What the name ends with.
    pub extension: String,
}

impl UnknownFormat {
    /// Always [`Category::Permanent`].
    #[must_use]
    pub fn category(&self) -> Category {
        Category::Permanent
    }
}

impl TraceFormat {
    /// The format that the end of a file's name stands for. A name without an extension, such as that
    /// of a pipe, is JSON Lines.
    ///
    /// # Errors
    /// [`UnknownFormat`] for any other extension.
    pub fn of_path(path: &Path) -> Result<Self, UnknownFormat> {
        match path.extension().map(OsStr::to_string_lossy).as_deref() {
            None | Some("jsonl" | "ndjson") => Ok(Self::JsonLines),
            Some("pftrace" | "perfetto-trace") => Ok(Self::Perfetto),
            Some("json") => Ok(Self::Chrome),
            Some(other) => Err(UnknownFormat { extension: other.to_owned() }),
        }
    }
}

/// Writes a trace in one of the formats, piece by piece.
#[derive(Debug)]
pub enum TraceWriter<W: Write> {
    /// See [`json::Writer`].
    JsonLines(json::Writer<W>),
    /// See [`perfetto::Writer`].
    Perfetto(Box<perfetto::Writer<W>>),
    /// See [`chrome::Writer`].
    Chrome(Box<chrome::Writer<W>>),
}

impl<W: Write> TraceWriter<W> {
    /// Writes what every trace of this format begins with. Give it a buffered output.
    ///
    /// # Errors
    /// [`TraceError::Io`] when `out` fails.
    pub fn new(format: TraceFormat, out: W) -> Result<Self, TraceError> {
        Ok(match format {
            TraceFormat::JsonLines => Self::JsonLines(json::Writer::new(out)?),
            TraceFormat::Perfetto => Self::Perfetto(Box::new(perfetto::Writer::new(out)?)),
            TraceFormat::Chrome => Self::Chrome(Box::new(chrome::Writer::new(out)?)),
        })
    }

    /// Appends `records`.
    ///
    /// # Errors
    /// As the writer of the format.
    pub fn write(&mut self, records: &[Record]) -> Result<(), TraceError> {
        match self {
            Self::JsonLines(writer) => writer.write(records),
            Self::Perfetto(writer) => writer.write(records),
            Self::Chrome(writer) => writer.write(records),
        }
    }

    /// Hands everything written so far to the output's own keeping: from here on a reader finds it.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn flush(&mut self) -> Result<(), TraceError> {
        match self {
            Self::JsonLines(writer) => writer.flush(),
            Self::Perfetto(writer) => writer.flush(),
            Self::Chrome(writer) => writer.flush(),
        }
    }

    /// Ends the trace with the count of `dropped` events, flushes, and gives back the output.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn finish(self, dropped: u64) -> Result<W, TraceError> {
        match self {
            Self::JsonLines(writer) => writer.finish(dropped),
            Self::Perfetto(writer) => writer.finish(dropped),
            Self::Chrome(writer) => writer.finish(dropped),
        }
    }

    /// The same for records that are not all there are: a picture notes what is known of the rest, and
    /// a log has no closing line then.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn conclude(self, end: End) -> Result<W, TraceError> {
        match (self, end) {
            (Self::JsonLines(writer), End::Whole { dropped }) => writer.finish(dropped),
            (Self::JsonLines(writer), End::Miscounted { .. } | End::Cut) => writer.break_off(),
            (Self::Perfetto(writer), end) => writer.conclude(end),
            (Self::Chrome(writer), end) => writer.conclude(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_name_stands_for_a_format() {
        let of = |name: &str| TraceFormat::of_path(Path::new(name));
        assert_eq!(of("out/run.jsonl"), Ok(TraceFormat::JsonLines));
        assert_eq!(of("/dev/stdout"), Ok(TraceFormat::JsonLines));
        assert_eq!(of("run.pftrace"), Ok(TraceFormat::Perfetto));
        assert_eq!(of("run.perfetto-trace"), Ok(TraceFormat::Perfetto));
        assert_eq!(of("run.json"), Ok(TraceFormat::Chrome));
        assert_eq!(of("run.txt"), Err(UnknownFormat { extension: "txt".into() }));
    }
}

//! Chrome trace JSON: the picture for tools that want the older format.
//!
//! An array of events, as `chrome://tracing`, Perfetto and Speedscope read it. The closing bracket is
//! optional in this format, so a file that was cut short is read up to its last whole line. Times are
//! microseconds with three decimals, which hold whole nanoseconds exactly. Each track is a thread of
//! one process; a counter is known by its name alone.
//!
//! # Sources
//! "Trace Event Format", Google, the JSON Array Format.

use std::collections::BTreeMap;
use std::io::Write;

use super::timeline::{
    Arg, Canvas, End, Flow, Mark, Name, NameId, Step, Timeline, Track, TrackId, TrackKind, Value,
};
use crate::collector::Record;
use crate::error::TraceError;
use crate::unit::Timestamp;

/// Writes a trace piece by piece: memory does not grow with its length. Each event is many small
/// writes, so give it a buffered output.
#[derive(Debug)]
pub struct Writer<W: Write> {
    timeline: Timeline<Lines<W>>,
}

impl<W: Write> Writer<W> {
    /// Writes what every trace begins with.
    ///
    /// # Errors
    /// [`TraceError::Io`] when `out` fails.
    pub fn new(mut out: W) -> Result<Self, TraceError> {
        out.write_all(b"[")?;
        let lines = Lines { out, is_empty: true, counters: BTreeMap::new() };
        Ok(Self { timeline: Timeline::new(lines)? })
    }

    /// Appends `records`, in the order in which they are read from the rings or from a file.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails, [`TraceError::TooMany`] for a trace that is none of
    /// AegisRT's.
    pub fn write(&mut self, records: &[Record]) -> Result<(), TraceError> {
        records.iter().try_for_each(|record| self.timeline.draw(record))
    }

    /// Hands everything written so far to the output's own keeping: from here on a reader finds it.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn flush(&mut self) -> Result<(), TraceError> {
        Ok(self.timeline.canvas_mut().out.flush()?)
    }

    /// Ends what is open, notes the count of `dropped` events, closes the array, flushes, and gives
    /// back the output.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn finish(self, dropped: u64) -> Result<W, TraceError> {
        self.conclude(End::Whole { dropped })
    }

    /// The same for records that are not all there are; what is known of the rest is noted.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn conclude(self, end: End) -> Result<W, TraceError> {
        let mut lines = self.timeline.finish(end)?;
        lines.out.write_all(b"\n]\n")?;
        lines.out.flush()?;
        Ok(lines.out)
    }
}

/// The canvas: every stroke is one line.
#[derive(Debug)]
struct Lines<W> {
    out: W,
    is_empty: bool,
    /// The names of the counters there are.
    counters: BTreeMap<u64, String>,
}

/// The category of all events, which some readers want.
const CATEGORY: &str = "aegis";

impl<W: Write> Lines<W> {
    /// Begins an event of the phase `phase`.
    fn open(&mut self, phase: &str, on: TrackId) -> Result<(), TraceError> {
        let between = if self.is_empty { "\n" } else { ",\n" };
        self.is_empty = false;
        let tid = on.0;
        Ok(write!(self.out, "{between}{{\"ph\":\"{phase}\",\"pid\":1,\"tid\":{tid}")?)
    }

    fn time(&mut self, at: Timestamp) -> Result<(), TraceError> {
        let (whole, thousandths) = (at.0 / 1_000, at.0 % 1_000);
        Ok(write!(self.out, ",\"ts\":{whole}.{thousandths:03}")?)
    }

    fn name(&mut self, name: Name<'_>) -> Result<(), TraceError> {
        write!(self.out, ",\"cat\":\"{CATEGORY}\",\"name\":")?;
        match name {
            Name::Word(word) => write!(self.out, "\"{}\"", word.text())?,
            Name::Stage(stage) => write!(self.out, "\"stage {stage}\"")?,
            Name::Model { text, .. } => self.text(text)?,
        }
        Ok(())
    }

    /// Writes the annotations and ends the event.
    fn close(&mut self, args: &[Arg<'_>]) -> Result<(), TraceError> {
        let mut before = ",\"args\":{";
        for Arg(name, value) in args {
            if matches!(value, Value::Absent) {
                continue;
            }
            write!(self.out, "{before}\"{}\":", name.text())?;
            match value {
                Value::Unsigned(number) => write!(self.out, "{number}")?,
                Value::Signed(number) => write!(self.out, "{number}")?,
                Value::Word(word) => write!(self.out, "\"{}\"", word.text())?,
                Value::Text(text) => self.text(text)?,
                Value::Absent => {}
            }
            before = ",";
        }
        self.out.write_all(if before == "," { b"}}" } else { b"}" })?;
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), TraceError> {
        Ok(serde_json::to_writer(&mut self.out, text).map_err(std::io::Error::from)?)
    }

    /// Tells something about a track.
    fn metadata(&mut self, on: TrackId, what: &str, name: &str) -> Result<(), TraceError> {
        self.open("M", on)?;
        write!(self.out, ",\"name\":\"{what}\",\"args\":{{\"name\":")?;
        self.text(name)?;
        Ok(self.out.write_all(b"}}")?)
    }

    /// One point of an arrow, which belongs to the slice around it.
    fn flow(&mut self, mark: Mark<'_>) -> Result<(), TraceError> {
        let Some(Flow { id, step }) = mark.flow else { return Ok(()) };
        let phase = match step {
            Step::Starts => "s",
            Step::Passes => "t",
            Step::Ends => "f",
        };
        self.open(phase, mark.on)?;
        self.time(mark.at)?;
        Ok(write!(self.out, ",\"cat\":\"{CATEGORY}\",\"name\":\"job\",\"id\":{id},\"bp\":\"e\"}}")?)
    }
}

impl<W: Write> Canvas for Lines<W> {
    fn track(&mut self, id: TrackId, track: Track<'_>) -> Result<(), TraceError> {
        match track.kind {
            TrackKind::Slices if id == TrackId::RUN => {
                self.metadata(id, "process_name", track.name)?;
                self.metadata(id, "thread_name", "run")
            }
            TrackKind::Slices => {
                self.metadata(id, "thread_name", track.name)?;
                self.open("M", id)?;
                let rank = id.0; // In the order of their making.
                Ok(write!(
                    self.out,
                    ",\"name\":\"thread_sort_index\",\"args\":{{\"sort_index\":{rank}}}}}"
                )?)
            }
            TrackKind::Count | TrackKind::Bytes => {
                self.counters.insert(id.0, track.name.to_owned());
                Ok(())
            }
            TrackKind::Percent => {
                self.counters.insert(id.0, format!("{} in %", track.name));
                Ok(())
            }
        }
    }

    fn introduce(&mut self, _: NameId, _: &str) -> Result<(), TraceError> {
        Ok(()) // Names are written out in this format.
    }

    fn retire(&mut self, id: TrackId) {
        self.counters.remove(&id.0);
    }

    fn begin(&mut self, mark: Mark<'_>) -> Result<(), TraceError> {
        self.open("B", mark.on)?;
        self.time(mark.at)?;
        self.name(mark.name)?;
        self.close(mark.args)?;
        self.flow(mark)
    }

    fn end(&mut self, on: TrackId, at: Timestamp, args: &[Arg<'_>]) -> Result<(), TraceError> {
        self.open("E", on)?;
        self.time(at)?;
        self.close(args)
    }

    fn instant(&mut self, mark: Mark<'_>) -> Result<(), TraceError> {
        self.flow(mark)?;
        self.open("i", mark.on)?;
        self.time(mark.at)?;
        self.name(mark.name)?;
        self.out.write_all(b",\"s\":\"t\"")?;
        self.close(mark.args)
    }

    fn count(&mut self, on: TrackId, at: Timestamp, value: u64) -> Result<(), TraceError> {
        let name = self.counters.get(&on.0).cloned().unwrap_or_default();
        self.open("C", TrackId::RUN)?;
        self.time(at)?;
        self.out.write_all(b",\"name\":")?;
        self.text(&name)?;
        Ok(write!(self.out, ",\"args\":{{\"value\":{value}}}}}")?)
    }
}

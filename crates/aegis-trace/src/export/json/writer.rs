//! The writer of JSON Lines.

use std::io::Write;

use serde::Serialize;

use super::{End, Footer, Header, VERSION};
use crate::collector::Record;
use crate::error::TraceError;

/// Writes a trace piece by piece: memory does not grow with its length. Each record is two or more
/// small writes, so give it a buffered output.
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

    /// Hands everything written so far to the output's own keeping: from here on a reader finds it.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn flush(&mut self) -> Result<(), TraceError> {
        Ok(self.out.flush()?)
    }

    /// Ends without a closing line, flushes, and gives back the output.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn break_off(mut self) -> Result<W, TraceError> {
        self.out.flush()?;
        Ok(self.out)
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

fn write_line(out: &mut impl Write, value: &impl Serialize) -> Result<(), TraceError> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

//! A log made into a picture, record by record.

use std::io::{BufRead, Write};

use crate::category::Category;
use crate::collector::Record;
use crate::error::TraceError;
use crate::export::End;
use crate::export::format::{TraceFormat, TraceWriter};
use crate::export::json::{Ending, Place, Reader};

/// How many records are handed on at once.
const BATCH: usize = 1_024;

/// What was converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The version of the log's format.
    pub version: u32,
    /// Records read, and drawn.
    pub records: u64,
    /// How the log ended. Unless it was closed with a count of as many records, and without losses,
    /// the picture is not the whole story.
    pub ending: Ending,
}

/// Why a log was not converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The log cannot be read on; the cause names the place.
    #[error("the log cannot be read on")]
    Input(#[source] TraceError),
    /// The log says what no run of AegisRT does.
    #[error("the log cannot be drawn on, from about line {} (byte {})", place.line, place.byte)]
    Impossible {
        /// The line that was read last.
        place: Place,
        /// What it says.
        #[source]
        cause: TraceError,
    },
    /// The picture cannot be written.
    #[error("the picture cannot be written")]
    Output(#[source] TraceError),
}

impl ConvertError {
    /// What the caller can do.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Input(cause) | Self::Impossible { cause, .. } | Self::Output(cause) => {
                cause.category()
            }
        }
    }
}

/// Reads what is left of `log` and writes it to `output` as `format`, to its end or the first fault.
/// Either way what came before it has been written. Time is linear in the length of the log, and
/// memory does not grow with it. Blocks.
///
/// # Errors
/// [`ConvertError`].
pub fn convert<R: BufRead, W: Write>(
    log: &mut Reader<R>,
    format: TraceFormat,
    output: W,
) -> Result<Converted, ConvertError> {
    let mut writer = TraceWriter::new(format, output).map_err(ConvertError::Output)?;
    let (mut batch, mut records) = (Vec::with_capacity(BATCH), 0);
    let read = loop {
        match log.next() {
            Ok(Some(record)) => batch.push(record),
            end => break end,
        }
        if batch.len() == BATCH {
            records += batch.len() as u64;
            write(&mut writer, &batch, log)?;
            batch.clear();
        }
    };
    records += batch.len() as u64;
    write(&mut writer, &batch, log)?;
    let ending = log.ending();
    writer.conclude(end(ending, records)).map_err(ConvertError::Output)?;
    read.map_err(ConvertError::Input)?;
    let ending = ending.unwrap_or(Ending::Cut { place: log.place() });
    Ok(Converted { version: log.version(), records, ending })
}

/// What the end of a log with so many `records` says about the picture of it.
fn end(ending: Option<Ending>, records: u64) -> End {
    match ending {
        Some(Ending::Closed { records: counted, dropped }) if counted == records => {
            End::Whole { dropped }
        }
        Some(Ending::Closed { records: counted, dropped }) => {
            let missing = i128::from(counted) - i128::from(records);
            let least = if missing < 0 { i64::MIN } else { i64::MAX };
            End::Miscounted { dropped, missing: missing.try_into().unwrap_or(least) }
        }
        Some(Ending::Cut { .. }) | None => End::Cut,
    }
}

fn write<R: BufRead, W: Write>(
    writer: &mut TraceWriter<W>,
    batch: &[Record],
    log: &Reader<R>,
) -> Result<(), ConvertError> {
    writer.write(batch).map_err(|error| match error {
        // What is wrong is what was read.
        cause @ TraceError::TooMany { .. } => {
            ConvertError::Impossible { place: log.place(), cause }
        }
        cause => ConvertError::Output(cause),
    })
}

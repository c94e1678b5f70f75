//! The reader of JSON Lines: one record at a time, each fault with its place.

use std::io::{BufRead, Read};

use serde::Serialize;
use serde::de::Error as _;
use serde_json::Error;

use super::{Footer, Header, OLDEST, VERSION, known, quick};
use crate::collector::Record;
use crate::error::TraceError;

/// The longest line that is read, in bytes with its end. The longest that is written is an admission
/// with 64 stages, of some thousand bytes; whatever is longer is no trace, and must not fill memory.
pub const LINE_MAX: usize = 1 << 20;

/// How every closing line begins.
const END: &[u8] = b"{\"end\"";

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Lines, counted from one.
    pub line: u64,
    /// Bytes from the beginning of the file, counted from zero.
    pub byte: u64,
}

/// How a trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By its closing line.
    Closed {
        /// How many records were written. Another number than were read means that some are missing.
        records: u64,
        /// How many events were lost to full rings.
        dropped: u64,
    },
    /// Without one: whoever wrote it was stopped.
    Cut {
        /// The first byte that is missing, or is part of a line that is not whole.
        place: Place,
    },
}

/// Goes through a trace; memory does not grow with its length.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    line: Vec<u8>,
    /// Where `line` begins.
    place: Place,
    ending: Option<Ending>,
    version: u32,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`TraceError::NoHeader`], [`TraceError::Version`], [`TraceError::Io`].
    pub fn open(input: R) -> Result<Self, TraceError> {
        let mut reader = Self {
            input,
            line: Vec::new(),
            place: Place::default(),
            ending: None,
            version: VERSION,
        };
        match reader.advance() {
            Ok(_) => {}
            Err(TraceError::TooLong { .. }) => return Err(TraceError::NoHeader),
            Err(error) => return Err(error),
        }
        let header: Header =
            serde_json::from_slice(&reader.line).map_err(|_| TraceError::NoHeader)?;
        let has_more = known::unknown_key(&reader.line, &header).is_none_or(|key| key.is_some());
        reader.version = header.aegis_trace;
        if !(OLDEST..=VERSION).contains(&reader.version) {
            return Err(TraceError::Version {
                found: reader.version,
                oldest: OLDEST,
                newest: VERSION,
            });
        }
        // Only now: a newer version may say more, and is named.
        if has_more { Err(TraceError::NoHeader) } else { Ok(reader) }
    }

    /// The version of the format that the trace was written in.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The next record, or `None` at the end, which [`Reader::ending`] then describes.
    ///
    /// # Errors
    /// [`TraceError::Malformed`], [`TraceError::TooLong`] or [`TraceError::AfterEnd`], each with its
    /// place, and [`TraceError::Io`]. After an error the next line is read, if there is one.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator of results would go on at errors"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, TraceError> {
        if self.ending.is_some() {
            return Ok(None);
        }
        let whole = self.advance()?;
        if self.line.is_empty() {
            self.ending = Some(Ending::Cut { place: self.place });
            return Ok(None);
        }
        if let Some(record) = quick::record(&self.line) {
            return Ok(Some(record));
        }
        match self.parse() {
            // The last line was not finished, so it is not there.
            Err(_) if !whole => {
                self.ending = Some(Ending::Cut { place: self.place });
                Ok(None)
            }
            result => result,
        }
    }

    /// How the trace ended; `None` until [`Reader::next`] has come to the end.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Where the line begins that was read last.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// Reads the present line the general way.
    fn parse(&mut self) -> Result<Option<Record>, TraceError> {
        if self.line.starts_with(END) {
            let footer = serde_json::from_slice(&self.line);
            let footer: Footer = footer.map_err(|cause| self.malformed(&cause))?;
            self.has_no_more(&footer)?;
            let end = footer.end;
            self.ending = Some(Ending::Closed { records: end.records, dropped: end.dropped });
            return self.nothing_follows().map(|()| None);
        }
        let record: Record =
            serde_json::from_slice(&self.line).map_err(|cause| self.malformed(&cause))?;
        self.has_no_more(&record)?;
        Ok(Some(record))
    }

    /// Refuses a line with a key that what was read of it does not have: it says something that would
    /// be lost.
    fn has_no_more(&self, read: &impl Serialize) -> Result<(), TraceError> {
        match known::unknown_key(&self.line, read) {
            Some(None) => Ok(()),
            Some(Some(key)) => Err(self.malformed(&Error::custom(format!("unknown key `{key}`")))),
            None => Err(self.malformed(&Error::custom("it is not one line of JSON"))),
        }
    }

    fn nothing_follows(&mut self) -> Result<(), TraceError> {
        match self.advance() {
            Ok(_) if self.line.is_empty() => Ok(()),
            Ok(_) | Err(TraceError::TooLong { .. }) => {
                Err(TraceError::AfterEnd { line: self.place.line, byte: self.place.byte })
            }
            Err(error) => Err(error),
        }
    }

    fn malformed(&self, cause: &serde_json::Error) -> TraceError {
        // The parser counts columns from one, and says zero where it does not know.
        let within = cause.column().saturating_sub(1) as u64;
        let Place { line, byte } = self.place;
        TraceError::Malformed { line, byte: byte + within, cause: cause.into() }
    }

    /// Takes the next line into `line`, its end included; an empty one at the end of the file.
    /// Whether the line is whole, which only the last can fail to be.
    fn advance(&mut self) -> Result<bool, TraceError> {
        self.place.byte += self.line.len() as u64;
        self.place.line += 1;
        self.line.clear();
        let mut bounded = (&mut self.input).take(LINE_MAX as u64);
        bounded.read_until(b'\n', &mut self.line)?;
        let whole = self.line.last() == Some(&b'\n');
        if !whole && self.line.len() == LINE_MAX {
            let Place { line, byte } = self.place;
            return Err(TraceError::TooLong { line, byte, limit: LINE_MAX });
        }
        Ok(whole)
    }
}

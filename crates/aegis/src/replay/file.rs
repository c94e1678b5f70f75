//! A trace file that is gone through several times.
//!
//! # Invariants
//! 1. Each pass reads the same bytes: as many as the file had when it was opened, or up to its last whole
//!    line. A run that still writes to it changes nothing.
//! 2. Of a file one line is held at a time. What cannot be gone through twice, a pipe, is held whole, up to
//!    [`PIPE_MAX`].

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use aegis_sched::replay::{Pass, Records};
use aegis_trace::TraceError;
use aegis_trace::export::json::{Ending, Reader};

use super::CutTrace;

/// The most that is held of a trace from a pipe, in bytes: 1 GiB, some ten million events.
pub const PIPE_MAX: usize = 1 << 30;

/// How much of a file is looked through at once for its last line.
const BLOCK: u64 = 1 << 16;

/// Where the bytes are.
#[derive(Debug)]
enum Bytes {
    /// The first so many of a file.
    File { path: PathBuf, length: u64 },
    /// Here.
    Held(Vec<u8>),
}

/// The records of a trace, some of which may be missing at its end.
#[derive(Debug)]
pub(super) struct Log {
    bytes: Bytes,
    records: u64,
    dropped: u64,
}

impl Log {
    /// The trace at `path`, read once to its end, and how it ends.
    ///
    /// # Errors
    /// It cannot be read, or some line is no event.
    pub(super) fn open(path: &Path, cut: CutTrace) -> Result<(Self, Ending), TraceError> {
        let bytes = Bytes::open(path, cut)?;
        let mut reader = bytes.reader()?;
        let mut records = 0;
        while reader.next()?.is_some() {
            records += 1;
        }
        let ending = reader.ending().unwrap_or(Ending::Cut { place: reader.place() });
        let dropped = match ending {
            Ending::Closed { dropped, .. } => dropped,
            Ending::Cut { .. } => 0,
        };
        drop(reader);
        Ok((Self { bytes, records, dropped }, ending))
    }

    /// How many records there are.
    pub(super) fn records(&self) -> u64 {
        self.records
    }
}

impl Records for Log {
    fn dropped(&self) -> u64 {
        self.dropped
    }

    fn pass(&self) -> Result<Pass<'_>, TraceError> {
        let mut reader = self.bytes.reader()?;
        let mut left = self.records;
        Ok(Box::new(std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let lost = || TraceError::Io(std::io::ErrorKind::UnexpectedEof.into());
            // What was there once and is not any more was taken away meanwhile.
            Some(reader.next().and_then(|record| record.ok_or_else(lost)))
        })))
    }
}

impl Bytes {
    fn open(path: &Path, cut: CutTrace) -> Result<Self, TraceError> {
        let mut file = File::open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return held(file, cut).map(Self::Held);
        }
        let length = match cut {
            CutTrace::Refused => found.len(),
            CutTrace::Replayed => whole_lines(&mut file, found.len())?,
        };
        Ok(Self::File { path: path.to_owned(), length })
    }

    fn reader(&self) -> Result<Reader<Box<dyn BufRead + '_>>, TraceError> {
        Reader::open(match self {
            Self::File { path, length } => {
                Box::new(BufReader::new(File::open(path)?.take(*length))) as Box<dyn BufRead>
            }
            Self::Held(bytes) => Box::new(Cursor::new(bytes)),
        })
    }
}

/// All that comes out of a pipe.
fn held(pipe: File, cut: CutTrace) -> Result<Vec<u8>, TraceError> {
    let mut bytes = Vec::new();
    pipe.take(PIPE_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > PIPE_MAX {
        return Err(TraceError::TooLarge { limit: PIPE_MAX });
    }
    if cut == CutTrace::Replayed {
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        bytes.truncate(end);
    }
    Ok(bytes)
}

/// How many of the first `length` bytes are whole lines.
fn whole_lines(file: &mut File, length: u64) -> Result<u64, TraceError> {
    let mut end = length;
    while end > 0 {
        let from = end.saturating_sub(BLOCK);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        file.take(end - from).read_to_end(&mut block)?;
        if let Some(last) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

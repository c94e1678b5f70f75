//! A trace file that is gone through several times.
//!
//! # Invariants
//! 1. Each pass reads the same bytes: as many as the file had when it was opened, or up to its last whole
//!    line. A run that still writes to it changes nothing, and neither does another file in its place,
//!    since it is opened once. Bytes that were written over are an error: the first pass keeps a hash of
//!    each block, and no block is parsed again before its hash was found to be the same.
//! 2. Of a file one line is held at a time. What cannot be gone through twice, a pipe, is held whole, up to
//!    [`PIPE_MAX`].

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use aegis_sched::replay::{Pass, Records};
use aegis_trace::TraceError;
use aegis_trace::export::json::{Ending, Reader};

use super::CutTrace;

/// The most that is held of a trace from a pipe, in bytes: 1 GiB, some ten million events.
pub const PIPE_MAX: usize = 1 << 30;

/// How much of a file is read at once, and looked through at once for its last line.
const BLOCK: u64 = 1 << 16;

/// Where the bytes are.
#[derive(Debug)]
enum Bytes {
    /// The first so many of a file.
    File(Blocks),
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
        Ok(Self::File(Blocks { file, length, hashes: Mutex::new(Vec::new()) }))
    }

    fn reader(&self) -> Result<Reader<Box<dyn BufRead + '_>>, TraceError> {
        Reader::open(match self {
            Self::File(blocks) => Box::new(BlockReader::new(blocks)) as Box<dyn BufRead>,
            Self::Held(bytes) => Box::new(Cursor::new(bytes)),
        })
    }
}

/// The first bytes of a file, which are the same each time that they are read.
#[derive(Debug)]
struct Blocks {
    file: File,
    length: u64,
    /// Of each block that was read up to now. Eight bytes for 64 KiB; not against whoever wants to
    /// deceive, who could write another log at once.
    hashes: Mutex<Vec<u64>>,
}

/// One pass over them.
#[derive(Debug)]
struct BlockReader<'b> {
    blocks: &'b Blocks,
    /// How many blocks were read.
    next: usize,
    block: Vec<u8>,
    /// How much of this block was taken.
    taken: usize,
}

impl Blocks {
    /// Reads the block of this number into `block`, which is empty past the end.
    fn read(&self, number: usize, block: &mut Vec<u8>) -> std::io::Result<()> {
        let from = (number as u64).saturating_mul(BLOCK).min(self.length);
        let size = usize::try_from((self.length - from).min(BLOCK)).expect("a block is small");
        block.resize(size, 0);
        self.file.read_exact_at(block, from)?;
        let mut hasher = DefaultHasher::new();
        hasher.write(block);
        let hash = hasher.finish();
        let mut hashes = self.hashes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match hashes.get(number) {
            Some(known) if *known == hash => Ok(()),
            Some(_) => Err(std::io::Error::other("the file was changed while it was read")),
            // A pass reads every block before the next one, so this is the first that is not known.
            None => {
                hashes.push(hash);
                Ok(())
            }
        }
    }
}

impl<'b> BlockReader<'b> {
    fn new(blocks: &'b Blocks) -> Self {
        Self { blocks, next: 0, block: Vec::new(), taken: 0 }
    }
}

impl Read for BlockReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for BlockReader<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.taken == self.block.len() {
            self.taken = 0;
            self.blocks.read(self.next, &mut self.block).inspect_err(|_| self.block.clear())?;
            self.next += 1;
        }
        Ok(&self.block[self.taken..])
    }

    fn consume(&mut self, amount: usize) {
        self.taken += amount;
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

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// A log of some blocks, of a configuration and idle times.
    fn text(idle: &str) -> String {
        let mut text = String::from("{\"aegis_trace\":3}\n");
        for at in 0..4_000 {
            let _ = writeln!(text, r#"{{"at":{at},"by":0,"event":"{idle}"}}"#);
        }
        text + "{\"end\":{\"records\":4000,\"dropped\":0}}\n"
    }

    fn events(log: &Log) -> Result<Vec<String>, TraceError> {
        log.pass()?.map(|record| record.map(|it| format!("{:?}", it.event.kind()))).collect()
    }

    #[test]
    fn a_file_in_its_place_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let [path, other] = ["log.jsonl", "other.jsonl"].map(|name| folder.path().join(name));
        std::fs::write(&path, text("idle")).expect("a file");
        let (log, _) = Log::open(&path, CutTrace::Refused).expect("a log");
        let known = events(&log).expect("it is there");
        std::fs::write(&other, text("stopped")).expect("a file");
        std::fs::rename(&other, &path).expect("it takes its place");
        assert_eq!(events(&log).expect("it is still there"), known);
        assert_eq!(known.len(), 4_000);
    }

    #[test]
    fn bytes_that_are_written_over_are_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, text("started")).expect("a file");
        let (log, _) = Log::open(&path, CutTrace::Refused).expect("a log");
        std::fs::write(&path, text("stopped")).expect("the same file");
        let error = events(&log).expect_err("it was changed");
        assert!(format!("{error:?}").contains("changed while it was read"), "{error:?}");
    }
}

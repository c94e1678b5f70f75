//! Rows of a CSV file, each of which knows where in the file it stands.

use csv::{ByteRecord, Reader, ReaderBuilder, Trim};

use crate::plan::fault::{FieldFault, TableFault};

/// What some editors write before the first character.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads one row after the other; empty lines are none.
pub(super) struct Rows<'a> {
    bytes: &'a [u8],
    reader: Reader<&'a [u8]>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, reader: reader(bytes) }
    }

    /// The next row; `None` after the last.
    pub(super) fn next(&mut self) -> Option<Row<'a>> {
        let mut record = ByteRecord::new();
        let found = self.reader.read_byte_record(&mut record);
        let found = found.expect("bytes in memory are read, and rows may have any length");
        let start = record.position().map_or(0, csv::Position::byte);
        let start = usize::try_from(start).expect("a place in memory");
        let is_last = self.reader.position().byte() == self.bytes.len() as u64;
        found.then_some(Row { bytes: self.bytes, start, is_last, record })
    }
}

fn reader(bytes: &[u8]) -> Reader<&[u8]> {
    let mut builder = ReaderBuilder::new();
    builder.has_headers(false).flexible(true).trim(Trim::All).from_reader(bytes)
}

/// One row.
pub(super) struct Row<'a> {
    bytes: &'a [u8],
    start: usize,
    /// Whether it reaches to the end of the file.
    is_last: bool,
    record: ByteRecord,
}

/// Where a walk along a row stands. Quotes mean something only where a field begins with one;
/// anywhere else they are characters like others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// At the first byte of a field.
    Begin,
    /// In a field without quotes, or after what was quoted.
    Plain,
    /// Between quotes that opened at a place.
    Quoted(usize),
    /// After a quote within quotes: the end of them, or half of a pair that stands for one.
    Closing(usize),
}

impl Walk {
    /// What `byte`, the one at `at`, makes of it.
    fn step(self, byte: u8, at: usize) -> Self {
        match (self, byte) {
            (Self::Quoted(open), b'"') => Self::Closing(open),
            (Self::Closing(open), b'"') | (Self::Quoted(open), _) => Self::Quoted(open),
            (Self::Begin, b'"') => Self::Quoted(at),
            (Self::Begin | Self::Plain | Self::Closing(_), b',') => Self::Begin,
            (Self::Begin | Self::Plain | Self::Closing(_), _) => Self::Plain,
        }
    }
}

impl<'a> Row<'a> {
    /// The row that was read from the place [`start`](Self::start).
    pub(super) fn at(bytes: &'a [u8], start: usize) -> Self {
        let mut row = Rows::new(&bytes[start..]).next().expect("it was read before");
        (row.bytes, row.start) = (bytes, start);
        row
    }

    /// Where its reading began, in bytes.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    pub(super) fn record(&self) -> &ByteRecord {
        &self.record
    }

    /// Refuses a row that has not `expected` fields, or whose last quote is never closed.
    pub(super) fn check_count(&self, expected: usize) -> Result<(), TableFault> {
        if let Some(open) = self.unclosed() {
            let (line, column) = self.place_of(open);
            return Err(TableFault::Unclosed { line, column });
        }
        let fields = self.record.len();
        if fields == expected {
            return Ok(());
        }
        let (line, column) = self.place(expected.min(fields - 1));
        Err(TableFault::FieldCount { line, column, fields, expected })
    }

    /// The field at `at`, which is not empty.
    pub(super) fn text(&self, at: usize, name: &'static str) -> Result<&str, TableFault> {
        match std::str::from_utf8(&self.record[at]) {
            Ok("") => Err(self.fault(at, name, FieldFault::Missing)),
            Ok(text) => Ok(text),
            Err(_) => Err(self.fault(at, name, FieldFault::NotText)),
        }
    }

    /// The field at `at` as a number that may be negative.
    pub(super) fn signed(&self, at: usize, name: &'static str) -> Result<i64, TableFault> {
        let text = self.text(at, name)?;
        text.parse().map_err(|_| self.fault(at, name, not_a_number(text)))
    }

    /// The field at `at` as a number that is not negative.
    pub(super) fn unsigned(&self, at: usize, name: &'static str) -> Result<u64, TableFault> {
        let text = self.text(at, name)?;
        let digits = match text.strip_prefix('-') {
            Some(digits) if is_whole(digits) && digits.bytes().all(|digit| digit == b'0') => digits,
            _ => text, // As above, where zero may have a sign as well.
        };
        digits.parse().map_err(|_| {
            let what = match text.strip_prefix('-') {
                Some(digits) if is_whole(digits) => FieldFault::Negative { text: text.into() },
                _ => not_a_number(text),
            };
            self.fault(at, name, what)
        })
    }

    pub(super) fn fault(&self, at: usize, name: &'static str, what: FieldFault) -> TableFault {
        let (line, column) = self.place(at);
        TableFault::Field { line, column, name, what }
    }

    /// Line and column of the first character of field `at`. O(n) in the bytes before it, so it is
    /// asked only where something is wrong.
    pub(super) fn place(&self, at: usize) -> (u64, u64) {
        self.place_of(self.field_start(at))
    }

    fn place_of(&self, from: usize) -> (u64, u64) {
        let before = &self.bytes[..from];
        let before = before.strip_prefix(BYTE_ORDER_MARK).unwrap_or(before);
        let is_end = |index: &usize| match before[*index] {
            b'\n' => true,
            b'\r' => before.get(index + 1) != Some(&b'\n'),
            _ => false,
        };
        let ends: Vec<_> = (0..before.len()).filter(is_end).collect();
        let line_start = ends.last().map_or(0, |end| end + 1);
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count();
        (ends.len() as u64 + 1, column as u64 + 1)
    }

    /// The byte at which field `at` begins, blanks before it left out.
    fn field_start(&self, at: usize) -> usize {
        let mut from = self.first_byte();
        let (mut field, mut walk) = (0, Walk::Begin);
        while field < at && from < self.bytes.len() {
            walk = walk.step(self.bytes[from], from);
            field += usize::from(walk == Walk::Begin);
            from += 1;
        }
        while self.bytes.get(from) == Some(&b' ') {
            from += 1;
        }
        from
    }

    /// The first byte of the row. The reader takes the ends of the lines before it for a part of it,
    /// and what some editors write before the first row.
    fn first_byte(&self) -> usize {
        let mut from = self.start;
        if from == 0 && self.bytes.starts_with(BYTE_ORDER_MARK) {
            from = BYTE_ORDER_MARK.len();
        }
        while matches!(self.bytes.get(from), Some(b'\n' | b'\r')) {
            from += 1;
        }
        from
    }

    /// The quote that is open where the file ends.
    fn unclosed(&self) -> Option<usize> {
        if !self.is_last {
            return None;
        }
        let first = self.first_byte();
        let bytes = self.bytes[first..].iter().zip(first..);
        match bytes.fold(Walk::Begin, |walk, (byte, at)| walk.step(*byte, at)) {
            Walk::Quoted(open) => Some(open),
            Walk::Begin | Walk::Plain | Walk::Closing(_) => None,
        }
    }
}

fn not_a_number(text: &str) -> FieldFault {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if is_whole(digits) {
        FieldFault::TooLarge { text: text.into() }
    } else {
        FieldFault::NotANumber { text: text.into() }
    }
}

fn is_whole(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

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
        found.then_some(Row { bytes: self.bytes, start, record })
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
    record: ByteRecord,
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

    /// Refuses a row that has not `expected` fields.
    pub(super) fn check_count(&self, expected: usize) -> Result<(), TableFault> {
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
        text.parse().map_err(|_| {
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
        let from = self.field_start(at);
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
        let mut from = self.start;
        // The reader takes the ends of the lines before a row for a part of it.
        while matches!(self.bytes.get(from), Some(b'\n' | b'\r')) {
            from += 1;
        }
        let (mut field, mut quoted) = (0, false);
        while field < at && from < self.bytes.len() {
            match self.bytes[from] {
                b'"' => quoted = !quoted,
                b',' if !quoted => field += 1,
                _ => {}
            }
            from += 1;
        }
        while self.bytes.get(from) == Some(&b' ') {
            from += 1;
        }
        from
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

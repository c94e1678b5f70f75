//! Lines of a stream, one at a time, in bounded memory.

use std::io::{BufRead, ErrorKind, Result};

/// The longest line that is read, without its end: 8 MiB, which is 128 bytes for each task of
/// the largest set.
pub const LINE_BYTES_MAX: usize = 8 << 20;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Its bytes, without the end of the line.
    Whole(&'a [u8]),
    /// It is longer than [`LINE_BYTES_MAX`] and was skipped.
    TooLong,
}

/// A stream cut into lines.
#[derive(Debug)]
pub struct Lines<R> {
    stream: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream, line: Vec::new(), number: 0 }
    }

    /// The next line with its number, from 1; `None` at the end. Blocks as long as the stream does.
    ///
    /// # Errors
    /// What the stream says.
    pub fn next_line(&mut self) -> Result<Option<(u64, Line<'_>)>> {
        self.line.clear();
        let (mut begun, mut too_long) = (false, false);
        loop {
            let piece = match self.stream.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                piece => piece?,
            };
            if piece.is_empty() {
                break;
            }
            begun = true;
            let end = piece.iter().position(|byte| *byte == b'\n');
            let more = &piece[..end.unwrap_or(piece.len())];
            too_long |= self.line.len() + more.len() > LINE_BYTES_MAX;
            if !too_long {
                self.line.extend_from_slice(more);
            }
            let taken = end.map_or(piece.len(), |end| end + 1);
            self.stream.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if !begun {
            return Ok(None);
        }
        self.number += 1;
        let line = if too_long { Line::TooLong } else { Line::Whole(&self.line) };
        Ok(Some((self.number, line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_whatever_the_buffer() {
        for capacity in [1, 2, 3, 100] {
            let stream = std::io::BufReader::with_capacity(capacity, &b"ab\n\nc\r\nlast"[..]);
            let mut lines = Lines::new(stream);
            let mut all = Vec::new();
            while let Some((number, Line::Whole(line))) = lines.next_line().expect("no errors") {
                all.push((number, line.to_vec()));
            }
            let expected: [(u64, &[u8]); 4] = [(1, b"ab"), (2, b""), (3, b"c\r"), (4, b"last")];
            assert!(all.iter().map(|(n, line)| (*n, line.as_slice())).eq(expected), "{all:?}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_one_read() {
        let mut text = vec![b'x'; LINE_BYTES_MAX + 1];
        text.extend_from_slice(b"\nab\n");
        text.extend_from_slice(&vec![b'y'; LINE_BYTES_MAX]);
        let mut lines = Lines::new(text.as_slice());
        assert_eq!(lines.next_line().expect("no errors"), Some((1, Line::TooLong)));
        assert_eq!(lines.next_line().expect("no errors"), Some((2, Line::Whole(b"ab"))));
        let last = lines.next_line().expect("no errors").expect("a third line");
        assert!(matches!(last, (3, Line::Whole(line)) if line.len() == LINE_BYTES_MAX));
        assert_eq!(lines.next_line().expect("no errors"), None);
    }
}

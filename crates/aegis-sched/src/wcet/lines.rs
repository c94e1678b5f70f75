//! Samples as text: one whole number of nanoseconds in each line, in the order of measuring.
//!
//! A first line that does not look like a number may name the column, and is given back as what was
//! skipped. Any other line that is no number is a fault, and the faults are reported with their lines.
//!
//! # Invariants
//! 1. Memory is bounded by [`Campaign::MOST_SAMPLES`] numbers and one line of [`LINE_BYTES_MAX`]: an
//!    endless text ends with an error.

use std::fmt;
use std::io::{self, BufRead, Read};

use aegis_trace::{Category, Nanos};

use super::campaign::{Campaign, CampaignError};

/// The longest line that is read.
pub const LINE_BYTES_MAX: u64 = 256;
/// Faults that are reported before reading ends.
const FAULTS_MAX: usize = 10;
/// Below this, a float names one whole number.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
/// Characters of a faulty line that are shown.
const SHOWN_MAX: usize = 40;

/// Why a text holds no samples.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinesError {
    /// It could not be read.
    #[error("the samples could not be read")]
    Io(#[source] io::Error),
    /// Lines that are no samples: the first ten.
    #[error("{}", list(faults))]
    Faults {
        /// In the order of the lines.
        faults: Vec<LineFault>,
    },
    /// No number at all.
    #[error("there are no samples: {}", if *.header { "only a header" } else { "the input is empty" })]
    Empty {
        /// Whether there was a header.
        header: bool,
    },
    /// More samples than are kept.
    #[error("line {line}: more than {limit} samples, which is the limit")]
    TooMany {
        /// The first that is too many, counted from one.
        line: u64,
        /// [`Campaign::MOST_SAMPLES`].
        limit: usize,
    },
}

/// A line that is no sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// Counted from one.
    pub line: u64,
    /// What is wrong.
    pub what: Wrong,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrong {
    /// Nothing in it, and samples after it.
    Blank,
    /// Zero: the clock was too coarse, or nothing ran.
    Zero,
    /// Below zero.
    Negative(String),
    /// A number that is not whole.
    NotWhole(String),
    /// A whole number with a sign, a point or an exponent.
    NotDigits {
        /// As written.
        text: String,
        /// In digits, where it is known to the last one.
        value: Option<u64>,
    },
    /// Not a number.
    NotANumber(String),
    /// More than 2^64 - 1.
    TooLarge(String),
    /// More than one number.
    SeveralValues(String),
    /// Longer than any number.
    TooLong,
    /// Not UTF-8.
    NotText,
}

impl LinesError {
    /// Transient when reading failed, Permanent otherwise.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Io(_) => Category::Transient,
            Self::Faults { .. } | Self::Empty { .. } | Self::TooMany { .. } => Category::Permanent,
        }
    }
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.what {
            Wrong::Blank => f.write_str("it is blank, and samples follow"),
            Wrong::Zero => f.write_str("a time of zero: the clock was too coarse, or nothing ran"),
            Wrong::Negative(text) => write!(f, "`{text}` is negative"),
            Wrong::NotWhole(text) => write!(f, "`{text}` is not a whole number of nanoseconds"),
            Wrong::NotDigits { text, value: Some(value) } => {
                write!(f, "`{text}` is not written in digits alone; write `{value}`")
            }
            Wrong::NotDigits { text, value: None } => {
                write!(f, "`{text}` is not written in digits alone")
            }
            Wrong::NotANumber(text) => write!(f, "`{text}` is not a number"),
            Wrong::TooLarge(text) => write!(f, "`{text}` is more than 18446744073709551615"),
            Wrong::SeveralValues(text) => {
                write!(f, "`{text}` holds several values; write one number a line")
            }
            Wrong::TooLong => write!(f, "it is longer than {LINE_BYTES_MAX} bytes"),
            Wrong::NotText => f.write_str("it is not UTF-8"),
        }
    }
}

fn list(faults: &[LineFault]) -> String {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let more = if faults.len() == FAULTS_MAX { "; and perhaps more" } else { "" };
    format!("{}{more}", lines.join("; "))
}

/// What a line is.
enum Line {
    Sample(Nanos),
    Blank,
    Header(String),
    Wrong(Wrong),
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    /// The first line, cut to 40 characters, where it was taken for the name of the column.
    pub header: Option<String>,
    /// The numbers.
    pub campaign: Campaign,
}

/// Reads samples to the end of `input`. Blocks on it.
///
/// # Errors
/// [`LinesError`]: every fault up to the tenth, or the one that ended the reading.
pub fn read(mut input: impl BufRead) -> Result<Lines, LinesError> {
    let (mut times, mut faults) = (Vec::new(), Vec::new());
    let (mut line, mut header, mut blank) = (0, None, None);
    let mut bytes = Vec::new();
    while next(&mut input, &mut bytes).map_err(LinesError::Io)? {
        line += 1;
        let found = classify(&bytes, line == 1);
        if let (Some(line), false) = (blank, matches!(found, Line::Blank)) {
            faults.push(LineFault { line, what: Wrong::Blank });
            blank = None;
        }
        match found {
            Line::Header(text) => header = Some(text),
            Line::Blank => blank = blank.or(Some(line)),
            Line::Sample(_) if times.len() == Campaign::MOST_SAMPLES => {
                return Err(LinesError::TooMany { line, limit: Campaign::MOST_SAMPLES });
            }
            Line::Sample(time) => times.push(time),
            Line::Wrong(what) => faults.push(LineFault { line, what }),
        }
        if faults.len() >= FAULTS_MAX {
            break;
        }
    }
    if !faults.is_empty() {
        return Err(LinesError::Faults { faults });
    }
    match Campaign::new(times) {
        Ok(campaign) => Ok(Lines { header, campaign }),
        Err(CampaignError::Empty) => Err(LinesError::Empty { header: header.is_some() }),
        Err(error) => unreachable!("every line was checked: {error}"),
    }
}

/// Reads one line into `bytes`, one byte more than is allowed at most, and skips the rest of it; false
/// at the end.
fn next(input: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<bool> {
    bytes.clear();
    input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', bytes)?;
    let whole = bytes.last() == Some(&b'\n');
    if bytes.len() as u64 > LINE_BYTES_MAX && !whole {
        input.skip_until(b'\n')?;
    }
    Ok(!bytes.is_empty())
}

fn classify(bytes: &[u8], first: bool) -> Line {
    if bytes.len() as u64 > LINE_BYTES_MAX {
        return Line::Wrong(Wrong::TooLong);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return Line::Wrong(Wrong::NotText) };
    let text = if first { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
    let text = text.trim();
    if text.is_empty() {
        return Line::Blank;
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse() {
            Ok(0) => Line::Wrong(Wrong::Zero),
            Ok(nanos) => Line::Sample(Nanos(nanos)),
            Err(_) => Line::Wrong(Wrong::TooLarge(shown(text))),
        };
    }
    if first && is_header(text) { Line::Header(shown(text)) } else { Line::Wrong(wrong(text)) }
}

/// A name: not one of the words that stand for a number that is none, and not a number in which letters
/// took the place of digits, whose sample would be lost.
fn is_header(text: &str) -> bool {
    let named = text.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '"' | '#'));
    named && text.parse::<f64>().is_err() && !looks_like_a_number(text)
}

/// Whether there is a digit, and nothing but digits, letters that look like some, and what stands
/// between the digits of a number.
fn looks_like_a_number(text: &str) -> bool {
    let lookalike = |c: char| c.is_ascii_digit() || "lIOoSBZ|.,_'+-eE \"".contains(c);
    text.contains(|c: char| c.is_ascii_digit()) && text.chars().all(lookalike)
}

fn wrong(text: &str) -> Wrong {
    let number = text.parse::<f64>();
    match number {
        Ok(number) if number.is_nan() || number.is_infinite() => Wrong::NotANumber(shown(text)),
        Ok(number) if number < 0.0 => Wrong::Negative(shown(text)),
        Ok(number) => written(text, number),
        Err(_) if text.contains([',', ';', '\t', ' ']) => Wrong::SeveralValues(shown(text)),
        Err(_) => Wrong::NotANumber(shown(text)),
    }
}

/// What is wrong with a number that has a sign, a point or an exponent.
fn written(text: &str, number: f64) -> Wrong {
    if number.fract() != 0.0 {
        return Wrong::NotWhole(shown(text));
    }
    if number == 0.0 {
        return Wrong::Zero;
    }
    if number >= EXACT_BELOW {
        return Wrong::NotDigits { text: shown(text), value: None };
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, in range")]
    let value = Some(number as u64);
    Wrong::NotDigits { text: shown(text), value }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &[u8]) -> String {
        read(text).expect_err("no samples").to_string()
    }

    fn times(text: &str) -> Vec<u64> {
        let read = read(text.as_bytes()).expect("samples");
        read.campaign.times().iter().map(|time| time.0).collect()
    }

    #[test]
    fn numbers_are_read_in_order_with_or_without_a_header() {
        assert_eq!(times("3\n1\n2\n"), [3, 1, 2]);
        assert_eq!(times("time_ns\n3\n1"), [3, 1]);
        assert_eq!(times("\u{feff}\"time, ns\"\r\n 3 \r\n1\r\n\r\n\n"), [3, 1]);
        assert_eq!(times("# device events\n18446744073709551615\n"), [u64::MAX]);
    }

    #[test]
    fn a_header_is_given_back_and_a_mistyped_number_is_none() {
        let header = |text: &str| read(text.as_bytes()).expect("samples").header;
        assert_eq!(header("time_ns\n3\n"), Some("time_ns".into()));
        assert_eq!(header("p99 of stage 2\n3\n"), Some("p99 of stage 2".into()));
        assert_eq!(header("3\n4\n"), None);
        for text in ["l000", "O12", "I0O0", "_1000", "\"1200\""] {
            let told = faults(format!("{text}\n5\n").as_bytes());
            assert_eq!(told, format!("line 1: `{text}` is not a number"));
        }
    }

    #[test]
    fn a_number_that_is_written_otherwise_is_told_in_digits() {
        for (text, told) in [
            ("+5", "`+5` is not written in digits alone; write `5`"),
            ("5.0", "`5.0` is not written in digits alone; write `5`"),
            ("1e9", "`1e9` is not written in digits alone; write `1000000000`"),
            ("1e30", "`1e30` is not written in digits alone"),
            ("0.0", "a time of zero: the clock was too coarse, or nothing ran"),
            ("-0", "a time of zero: the clock was too coarse, or nothing ran"),
            ("5.5", "`5.5` is not a whole number of nanoseconds"),
        ] {
            assert_eq!(faults(format!("7\n{text}\n").as_bytes()), format!("line 2: {told}"));
        }
    }

    #[test]
    fn nothing_to_read_is_told_from_nothing_but_a_header() {
        assert_eq!(faults(b""), "there are no samples: the input is empty");
        assert_eq!(faults(b"\n\n"), "there are no samples: the input is empty");
        assert_eq!(faults(b"ns\n"), "there are no samples: only a header");
    }

    #[test]
    fn every_fault_has_its_line_and_what_is_wrong() {
        let text = b"ns\n0\n-4\n1.5\nNaN\nfoo\n1,2\n\n99999999999999999999\n\xff\n7\n";
        let expected = "line 2: a time of zero: the clock was too coarse, or nothing ran; \
            line 3: `-4` is negative; line 4: `1.5` is not a whole number of nanoseconds; \
            line 5: `NaN` is not a number; line 6: `foo` is not a number; \
            line 7: `1,2` holds several values; write one number a line; \
            line 8: it is blank, and samples follow; \
            line 9: `99999999999999999999` is more than 18446744073709551615; \
            line 10: it is not UTF-8";
        assert_eq!(faults(text), expected);
    }

    #[test]
    fn a_first_line_that_stands_for_a_number_is_no_header() {
        for text in ["nan", "Infinity", "-inf", "1e9", "0x10"] {
            assert!(faults(format!("{text}\n5\n").as_bytes()).starts_with("line 1: "), "{text}");
        }
    }

    #[test]
    fn reading_ends_after_ten_faults_or_one_endless_line() {
        assert!(
            faults("x\n".repeat(1000).as_bytes())
                .ends_with("line 11: `x` is not a number; and perhaps more")
        );
        let endless = [b"5\n".as_slice(), &b"9".repeat(1 << 20), b"\n6\n"].concat();
        assert_eq!(faults(&endless), "line 2: it is longer than 256 bytes");
    }

    /// An input without an end: the same line again and again.
    struct Endless;

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len() / 2 * 2;
            buffer[..length].chunks_exact_mut(2).for_each(|line| line.copy_from_slice(b"7\n"));
            Ok(length)
        }
    }

    #[test]
    fn samples_without_end_are_refused_at_the_stated_limit() {
        let error = read(io::BufReader::new(Endless)).expect_err("too many");
        assert_eq!(
            error.to_string(),
            "line 10000001: more than 10000000 samples, which is the limit"
        );
        assert_eq!(error.category(), Category::Permanent);
    }
}

//! What can go wrong with units, ids and traces.

use crate::category::Category;

/// A text that is no time or size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// A negative number.
    #[error("`{text}` is negative")]
    Negative {
        /// What was written.
        text: String,
    },
    /// A number without a unit.
    #[error("`{text}` has no unit; write one of {expected}")]
    MissingUnit {
        /// What was written.
        text: String,
        /// The units that would be right.
        expected: &'static str,
    },
    /// A unit that does not exist.
    #[error("`{unit}` is no unit; write one of {expected}")]
    UnknownUnit {
        /// What was written.
        unit: String,
        /// The units that would be right.
        expected: &'static str,
    },
    /// Not a decimal number.
    #[error("`{text}` is not a decimal number with a unit")]
    NotANumber {
        /// What was written.
        text: String,
    },
    /// More digits than the smallest unit has.
    #[error("`{text}` is finer than the smallest unit")]
    TooFine {
        /// What was written.
        text: String,
    },
    /// More than 64 bits hold.
    #[error("`{text}` is too large")]
    TooLarge {
        /// What was written.
        text: String,
    },
}

impl UnitError {
    /// Always [`Category::Permanent`]: the text must change.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Negative { .. }
            | Self::MissingUnit { .. }
            | Self::UnknownUnit { .. }
            | Self::NotANumber { .. }
            | Self::TooFine { .. }
            | Self::TooLarge { .. } => Category::Permanent,
        }
    }
}

/// A text that is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {expected}")]
pub struct IdError {
    /// What was written.
    pub text: String,
    /// The id that was expected.
    pub expected: &'static str,
}

impl IdError {
    /// Always [`Category::Permanent`].
    #[must_use]
    pub fn category(&self) -> Category {
        Category::Permanent
    }
}

/// What is wrong with a line, in the parser's words. Where it is stands in the error around it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct LineFault {
    what: String,
}

impl From<&serde_json::Error> for LineFault {
    fn from(error: &serde_json::Error) -> Self {
        let what = error.to_string();
        // To the parser the line is a document of its own, so its line number would mislead.
        let end = what.rfind(" at line ").unwrap_or(what.len());
        Self { what: what[..end].to_owned() }
    }
}

/// A trace that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The file could not be written or read: in the system's words alone, since whoever knows the file
    /// says which of the two failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A line is no event of this format.
    #[error("line {line} of the trace is not an event (byte {byte} of the file)")]
    Malformed {
        /// Counted from one.
        line: u64,
        /// Where the parser gave up, in bytes from the beginning of the file.
        byte: u64,
        /// What the parser said.
        #[source]
        cause: LineFault,
    },
    /// The trace was written by another version of the format.
    #[error("the trace has format version {found}, this program reads {oldest} to {newest}")]
    Version {
        /// The version in the file.
        found: u32,
        /// The oldest version that this program reads,
        oldest: u32,
        /// and the newest.
        newest: u32,
    },
    /// The first line is not a header.
    #[error(
        "the first line is no header of a trace; of what `--trace` writes, only .jsonl can be read again"
    )]
    NoHeader,
    /// A line is longer than any event.
    #[error("line {line} of the trace (byte {byte} of the file) is longer than {limit} bytes")]
    TooLong {
        /// Counted from one.
        line: u64,
        /// Where the line begins, in bytes from the beginning of the file.
        byte: u64,
        /// The longest line that is read.
        limit: usize,
    },
    /// What comes out of a pipe is longer than what is held of one.
    #[error(
        "more than {limit} bytes came out of this, which is no file and has to be held in memory; write \
         it to a file first"
    )]
    TooLarge {
        /// The most that is held.
        limit: usize,
    },
    /// More is open at once than any run leaves, so that a picture of it would take too much memory.
    #[error("the trace has more than {limit} {what} at once, which no run of this program has")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The file goes on after its closing line.
    #[error("line {line} of the trace (byte {byte} of the file) follows its closing line")]
    AfterEnd {
        /// Counted from one.
        line: u64,
        /// Where the line begins, in bytes from the beginning of the file.
        byte: u64,
    },
}

impl TraceError {
    /// What the caller can do.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Io(_) => Category::Transient,
            Self::Malformed { .. }
            | Self::Version { .. }
            | Self::NoHeader
            | Self::TooLong { .. }
            | Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::AfterEnd { .. } => Category::Permanent,
        }
    }
}

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

/// A trace that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The file could not be written or read.
    #[error("the trace could not be read or written")]
    Io(#[from] std::io::Error),
    /// A line is no event of this format.
    #[error("line {line} of the trace is not an event")]
    Malformed {
        /// Counted from one.
        line: usize,
        /// What the parser said.
        #[source]
        cause: serde_json::Error,
    },
    /// The trace was written by another version of the format.
    #[error("the trace has format version {found}, this program reads {expected}")]
    Version {
        /// The version in the file.
        found: u32,
        /// The version this program reads.
        expected: u32,
    },
    /// The first line is not a header.
    #[error("the trace has no header line")]
    NoHeader,
}

impl TraceError {
    /// What the caller can do.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Io(_) => Category::Transient,
            Self::Malformed { .. } | Self::Version { .. } | Self::NoHeader => Category::Permanent,
        }
    }
}

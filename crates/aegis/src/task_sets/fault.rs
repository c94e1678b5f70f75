//! What can be wrong with a line.

use std::fmt;

use aegis_trace::Category;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::Id;

/// The most faults that one answer spells out.
const FAULTS_SHOWN_MAX: usize = 8;

/// One fault and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field, `tasks[1].C`; empty for the line as a whole.
    pub place: String,
    /// What is wrong with it.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.as_str() {
            "" => self.kind.fmt(f),
            place => write!(f, "{place}: {}", self.kind),
        }
    }
}

/// A kind of fault, in words that follow the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// More bytes than a line may have.
    #[error("the line is longer than {most} bytes")]
    TooLong {
        /// The most it may have.
        most: usize,
    },
    /// No text.
    #[error("the line is not UTF-8 text")]
    NotUtf8,
    /// Text in another encoding.
    #[error("begins with the byte order mark of UTF-16; the text must be UTF-8")]
    Utf16,
    /// No JSON.
    #[error("the line is not JSON: {message}, column {column}")]
    NotJson {
        /// What the parser said.
        message: String,
        /// Where, counted in bytes from 1.
        column: usize,
    },
    /// A field that must be there and is not.
    #[error("is missing")]
    Missing,
    /// A field that must be there for one policy, and is not.
    #[error("is missing, and {policy} goes by it")]
    MissingFor {
        /// The policy.
        policy: &'static str,
    },
    /// A key, a policy or a member of the chain a second time.
    #[error("is given twice")]
    Twice,
    /// A value of another type.
    #[error("must be {expected}, not {found}")]
    WrongType {
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A number that is too small.
    #[error("must be at least {least}, not {found}")]
    TooSmall {
        /// The least.
        least: i128,
        /// What it is.
        found: i128,
    },
    /// A number that is too large.
    #[error("must be at most {most}, not {found}")]
    TooLarge {
        /// The most.
        most: i128,
        /// What it is.
        found: i128,
    },
    /// A list that is too long.
    #[error("holds {found} {of}, more than {most}")]
    TooMany {
        /// The most it may hold.
        most: usize,
        /// How many it holds.
        found: usize,
        /// Of what.
        of: &'static str,
    },
    /// A list of nothing.
    #[error("is empty; there must be at least one {of}")]
    Empty {
        /// What it should hold.
        of: &'static str,
    },
    /// Stages whose costs are not the task's.
    #[error("adds up to {sum}, and C is {cost}")]
    Sum {
        /// The sum of the stages.
        sum: i128,
        /// The cost.
        cost: i128,
    },
    /// A name that means nothing.
    #[error("must be one of {known}, not {found}")]
    Name {
        /// The names there are.
        known: String,
        /// What it is.
        found: String,
    },
}

/// A line, or one policy of a line, that cannot be analysed.
///
/// Serialises as the answer to it: `{"id":..., "policy":..., "error":"..."}`, and `"ignored":[...]`
/// if there is any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What the set is called.
    pub id: Id,
    /// The policy, as the line names it; `None` if the line names none that can be read.
    pub policy: Option<String>,
    /// Which line, from 1.
    pub line: u64,
    /// All faults; not empty.
    pub faults: Vec<Fault>,
    /// The keys of the line that mean nothing here, with their places; the first 16.
    pub ignored: Vec<String>,
}

impl Invalid {
    /// Always [`Category::Permanent`]: the line must change.
    #[must_use]
    pub fn category(&self) -> Category {
        Category::Permanent
    }
}

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        for (index, fault) in self.faults.iter().take(FAULTS_SHOWN_MAX).enumerate() {
            let join = if index > 0 { "; " } else { "" };
            write!(f, "{join}{fault}")?;
        }
        if self.faults.len() > FAULTS_SHOWN_MAX { f.write_str("; and more") } else { Ok(()) }
    }
}

impl Serialize for Invalid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut answer = serializer.serialize_struct("Invalid", 4)?;
        answer.serialize_field("id", &self.id)?;
        answer.serialize_field("policy", &self.policy)?;
        answer.serialize_field("error", &self.to_string())?;
        match self.ignored.as_slice() {
            [] => answer.skip_field("ignored")?,
            ignored => answer.serialize_field("ignored", ignored)?,
        }
        answer.end()
    }
}

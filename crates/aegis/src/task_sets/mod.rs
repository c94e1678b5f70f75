//! Task sets as JSON Lines: questions to the analyses, and their answers.
//!
//! One line is one set with the policies to analyse it under; `docs/formats.md` has every key.
//! [`Lines`] cuts a stream into lines, [`read`] makes a [`Request`] of one, and
//! [`Request::answer`] or [`Request::explain`] answer it for one policy. `aegis analyse` is a loop
//! around these.
//!
//! # Invariants
//! 1. Times are integers in the set's own unit and are never converted; an answer is in the unit
//!    of its question.
//! 2. Every line has an answer: for each policy it names, or one where it names none. A line that
//!    makes no sense is answered by [`Invalid`], with each fault and its place, and never stops the
//!    next one.
//! 3. No line longer than [`LINE_BYTES_MAX`] is held in memory.

mod answer;
mod fault;
mod json;
mod lines;
mod read;

pub use aegis_sched::analysis::Test;
pub use aegis_sched::analysis::chain::Chain;
pub use aegis_sched::task::TaskSet;
pub use answer::{Found, Options, Sensitivity};
pub use fault::{Fault, FaultKind, Invalid};
pub use lines::{LINE_BYTES_MAX, Line, Lines};
pub use read::{Request, read};

use std::fmt;

use aegis_sched::policy::PolicyKind;
use aegis_trace::Nanos;
use serde::Serialize;

/// What a set is called: what its line says, or the number of the line where that says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// A name.
    Text(String),
    /// A number.
    Number(i128),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.pad(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// A policy by the name it has in these files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Policy {
    /// Explicit fixed priorities, `P`.
    #[serde(rename = "np-fp")]
    FixedPriority,
    /// Earliest deadline first.
    #[serde(rename = "np-edf")]
    Edf,
    /// Fixed priorities by period.
    #[serde(rename = "np-rm")]
    RateMonotonic,
    /// Fixed priorities by relative deadline.
    #[serde(rename = "np-dm")]
    DeadlineMonotonic,
    /// First in, first out.
    #[serde(rename = "fifo")]
    Fifo,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::FixedPriority, Self::Edf, Self::RateMonotonic, Self::DeadlineMonotonic, Self::Fifo];

    /// The policy that the dispatcher would run.
    #[must_use]
    pub fn kind(self) -> PolicyKind {
        match self {
            Self::FixedPriority => PolicyKind::Priority,
            Self::Edf => PolicyKind::Edf,
            Self::RateMonotonic => PolicyKind::Rms,
            Self::DeadlineMonotonic => PolicyKind::Dm,
            Self::Fifo => PolicyKind::Fifo,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FixedPriority => "np-fp",
            Self::Edf => "np-edf",
            Self::RateMonotonic => "np-rm",
            Self::DeadlineMonotonic => "np-dm",
            Self::Fifo => "fifo",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The unit of a set's times. It is only written, never converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// No unit of time.
    #[default]
    Tick,
    /// Nanoseconds.
    Nanoseconds,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Tick, Self::Nanoseconds, Self::Microseconds, Self::Milliseconds];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tick => "tick",
            Self::Nanoseconds => "ns",
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
        }
    }

    /// `time`, of which one counts as one of this unit, in words.
    fn write(self, time: Nanos) -> String {
        match (self, time.0) {
            (Self::Tick, 1) => "1 tick".into(),
            (Self::Tick, ticks) => format!("{ticks} ticks"),
            (_, count) => format!("{count} {}", self.name()),
        }
    }
}

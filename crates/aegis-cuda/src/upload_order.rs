//! What a device answers that is asked how it orders uploads.
//!
//! The questions are in `uploads_probe`.

use std::fmt;

use aegis_trace::{Category, Nanos};

/// What has the driver wait for the end of each launch, where it is set and not to 0.
pub(crate) const LAUNCH_BLOCKING: &str = "CUDA_LAUNCH_BLOCKING";

/// How many rounds told nothing and were done again while a device was asked, by what was asked: the
/// processor came too late for them, or the device was slow to go on. None where both have time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoidRounds {
    /// Of waits for what a launched graph records that is still to begin.
    pub before_begin: u32,
    /// Of waits for what a graph records that has begun.
    pub after_begin: u32,
    /// Of waits for what is recorded anew meanwhile.
    pub recorded_again: u32,
}

/// What was found of a device that does not order uploads as their analysis has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UploadOrder {
    /// A wait for what a launched graph was still to record was none.
    Passed {
        /// In which round, from one.
        round: u32,
        /// How long before that of the stage was over the upload behind it began.
        early: Nanos,
    },
    /// A wait for one recording became one for the next of the same event.
    Moved {
        /// In which round, from one; where the upload had not begun by itself in time, the last of three.
        round: u32,
        /// How long after that recording the upload began.
        late: Nanos,
    },
    /// Too few rounds could tell.
    Untold {
        /// How many did.
        told: u32,
        /// How many have to.
        wanted: u32,
        /// Of how many.
        tried: u32,
    },
    /// `CUDA_LAUNCH_BLOCKING` is set, and not to 0: a launch may block behind what only the thread that
    /// launches lets go.
    Blocking,
    /// A round did not end. Whoever frees memory of the device may wait for it, without end.
    Overdue {
        /// In which time.
        limit: Nanos,
    },
}

impl UploadOrder {
    /// What the caller can do: one who came too late may try again; work that never ends holds the device
    /// for as long as the process lives.
    #[must_use]
    pub fn category(self) -> Category {
        match self {
            Self::Passed { .. } | Self::Moved { .. } | Self::Blocking => Category::Permanent,
            Self::Untold { .. } => Category::Transient,
            Self::Overdue { .. } => Category::Fatal,
        }
    }
}

impl fmt::Display for UploadOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Passed { round, early } => write!(
                f,
                "does not: in round {round} an upload began {early} before that of the stage in front \
                 of it was over"
            ),
            Self::Moved { round, late } => write!(
                f,
                "has it wait for what the next graph records in the same place: in round {round} an \
                 upload began {late} behind that of a stage that was launched after it"
            ),
            Self::Untold { told, wanted, tried } => write!(
                f,
                "could not be asked: {told} of {tried} rounds told, and {wanted} have to; the processor \
                 or the device was kept from it each other time"
            ),
            Self::Blocking => write!(
                f,
                "cannot be asked: `{LAUNCH_BLOCKING}` has each launch wait for its end; unset it, or set \
                 it to 0"
            ),
            Self::Overdue { limit } => write!(
                f,
                "does something else: a stream that waited for it did not go on within {limit}"
            ),
        }
    }
}

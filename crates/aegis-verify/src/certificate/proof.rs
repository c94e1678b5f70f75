//! The numbers of a proof, theorem by theorem.

use aegis_trace::Nanos;
use serde::{Deserialize, Serialize};

/// The numbers of a proof. One entry for each task that was admitted, in the order of the models;
/// a task is a guaranteed model or the server of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "test", rename_all = "snake_case", deny_unknown_fields)]
pub enum Proof {
    /// By response times of every job of every busy period.
    NpFixedPriority {
        /// One for each task.
        bounds: Vec<Level>,
    },
    /// By demand and blocking in every window; responses by offsets.
    NpEdf {
        /// Up to which window the demand has to be looked at.
        horizon: Nanos,
        /// The windows, from the longest down, that answer for all others.
        points: Vec<Point>,
        /// One for each task.
        bounds: Vec<EdfBound>,
    },
    /// By all work that was released before.
    Fifo {
        /// Up to which instant releases have to be looked at.
        end: Nanos,
        /// One for each task.
        bounds: Vec<FifoBound>,
    },
}

/// The busy period of one task under fixed priorities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Which model.
    pub model: u32,
    /// The longest that something less urgent can hold the device.
    pub blocking: Nanos,
    /// Whose stage that is, the first of equally long ones; `None` for the floor, or nothing.
    pub blocked_by: Option<u32>,
    /// The length of the busy period, or of the cycle after which it repeats.
    pub busy: Nanos,
    /// When the last stage of each of its jobs starts there, at the latest.
    pub starts: Vec<Nanos>,
    /// Which of them responds last; the first of equals.
    pub worst: u32,
    /// Its response.
    pub response: Nanos,
    /// Deadline minus response.
    pub slack: Nanos,
}

/// A window that answers for all windows from `needed` to `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Its length.
    pub window: Nanos,
    /// Demand plus blocking in it.
    pub needed: Nanos,
}

/// The bound of one task under EDF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdfBound {
    /// Which model.
    pub model: u32,
    /// The job that attains the bound; `None` where the bound is the deadline.
    pub worst: Option<WorstDue>,
    /// No job responds later.
    pub response: Nanos,
    /// Deadline minus response.
    pub slack: Nanos,
}

/// The job that responds last under EDF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorstDue {
    /// Its absolute deadline in a busy period that begins at zero.
    pub due: Nanos,
    /// The longest that something due later can hold the device.
    pub blocking: Nanos,
    /// When its last stage starts, at the latest.
    pub start: Nanos,
}

/// The bound of one task under first in, first out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FifoBound {
    /// Which model.
    pub model: u32,
    /// When the job that responds last is ready, in a busy period that begins at zero; the first
    /// of equals.
    pub ready: Nanos,
    /// Its response.
    pub response: Nanos,
    /// Deadline minus response.
    pub slack: Nanos,
}

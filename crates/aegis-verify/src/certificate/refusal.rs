//! Why a model was refused, in numbers.

use aegis_trace::{Bytes, Nanos};
use serde::{Deserialize, Serialize};

/// The inequality that refuses a model, and what has to be known before it can be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Where models trigger one another and time refuses, how late those that are triggered may get
    /// ready at least, step by step. Otherwise empty.
    pub raised: Vec<Raised>,
    /// The inequality, with these jitters.
    pub witness: Witness,
}

/// A member of a triggered chain that may get ready later than was known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raised {
    /// Which model.
    pub model: u32,
    /// A job of the member before it with its response, which need not be late.
    pub by: Witness,
    /// Its jitter at least: that response and the hand-over.
    pub jitter: Nanos,
}

/// The inequality that failed, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "inequality", rename_all = "snake_case", deny_unknown_fields)]
pub enum Witness {
    /// `sum C/T <= 1`.
    Load {
        /// The shares of all tasks together, in units of 2^-63, each rounded up, 2^64 - 1 at most.
        share: u64,
    },
    /// `J + C <= D`.
    Alone {
        /// Whose job alone would be late.
        model: u32,
    },
    /// Under EDF `h + b <= t`.
    Demand {
        /// `t`: a window in which some deadline falls at the end.
        window: Nanos,
        /// `h`: the work that must be done inside.
        demand: Nanos,
        /// `b`: the longest that something due later can hold the device.
        blocking: Nanos,
        /// Whose stage that is, the first of equally long ones; `None` for the floor, or nothing.
        blocked_by: Option<u32>,
        /// What look-ahead adds.
        committed: Nanos,
    },
    /// Under fixed priorities `R <= D`.
    Response {
        /// Who would be late.
        model: u32,
        /// The longest that something less urgent can hold the device.
        blocking: Nanos,
        /// Whose stage that is; as above.
        blocked_by: Option<u32>,
        /// What look-ahead adds.
        committed: Nanos,
        /// Which job of the busy period is late.
        job: u32,
        /// When its last stage starts, at the latest.
        start: Nanos,
        /// Its response.
        response: Nanos,
    },
    /// Under EDF `R <= D`.
    Due {
        /// Who would be late.
        model: u32,
        /// The absolute deadline of the job in a busy period that begins at zero.
        due: Nanos,
        /// The longest that something due later can hold the device.
        blocking: Nanos,
        /// What look-ahead adds.
        committed: Nanos,
        /// When its last stage starts, at the latest.
        start: Nanos,
        /// Its response.
        response: Nanos,
    },
    /// Under first in, first out `R <= D`.
    Queue {
        /// Who would be late.
        model: u32,
        /// When the job that is late is ready.
        ready: Nanos,
        /// Its response.
        response: Nanos,
    },
    /// The busy period holds no more jobs than anybody looks at. That it holds more says nothing about
    /// any deadline, and is why none is promised.
    Endless {
        /// It goes on for longer than this.
        window: Nanos,
        /// How many jobs are ready before that.
        jobs: u64,
    },
    /// Everything that must have bytes of its own, and what must be live at once, exceed the device.
    DeviceMemory {
        /// Of tensors that share no address, this model's included.
        resident: Bytes,
        /// Of those that share: the largest peak of each partition, added up.
        peak: Bytes,
    },
    /// So much memory is free as must be for a new model.
    MemoryPressure {
        /// What is free beside the models admitted before.
        free: Bytes,
    },
    /// A model needs more than its own budget: `memory` of what is left.
    MemoryBudget,
    /// A job costs more than the compute budget: `compute` of what is left.
    ComputeBudget,
    /// A piece does not fit the server's budget: `longest` of the charge.
    ServerBudget,
    /// More streams than the partition has, or none: `streams` of what is left.
    Streams,
    /// The limit on models that may be suspended is used up.
    Suspended {
        /// How many were admitted.
        admitted: u32,
    },
}

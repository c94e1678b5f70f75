//! One model of a certificate: what it asked for, what that comes to, and what became of it.

use aegis_trace::{Bytes, Nanos};
use serde::{Deserialize, Serialize};

use super::{Digest, Refusal};

/// A model: what it asked for, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Asked: its name.
    pub name: String,
    /// Asked: which partition it runs in.
    pub partition: u32,
    /// Asked: where its costs come from; `None` where they are declared.
    pub measured: Option<Measured>,
    /// Asked: the worst-case cost of each stage, without overheads.
    pub stages: Vec<Nanos>,
    /// Asked: whether others may run between two of its stages.
    pub suspend: bool,
    /// Asked: what it wants to be promised.
    pub service: Service,
    /// Asked: its hard limits.
    pub budget: Budget,
    /// What is left of the budget; below zero where it is exceeded.
    pub left: Left,
    /// What it is to the analysis.
    pub charge: Charge,
    /// What it needs of device memory, tensor by tensor.
    pub tensors: Vec<Tensor>,
    /// What they add up to.
    pub need: Need,
    /// Admitted or refused.
    pub outcome: Outcome,
}

/// Where costs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The hash by which the evidence knows what was measured.
    pub model: Digest,
    /// The rule that made bounds of samples.
    pub method: Method,
    /// Percent on top.
    pub margin_percent: u32,
}

/// The rule that makes a bound of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The longest sample.
    Margin,
    /// Whichever estimator has a claim.
    Auto,
    /// An order statistic.
    Order,
    /// A generalised Pareto tail.
    Gpd,
    /// Block maxima.
    Gev,
}

/// What a model wants to be promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Service {
    /// Every job in time.
    Guaranteed {
        /// The least time between two nominal releases.
        period: Nanos,
        /// From nominal release to completion.
        deadline: Nanos,
        /// From nominal release to being ready, at most.
        jitter: Nanos,
        /// Its place among the distinct priorities of its partition, from the most urgent, zero, on;
        /// only under the policy `priority`.
        rank: Option<u32>,
    },
    /// Nothing: jobs run while nothing else is ready.
    Background,
    /// A share of the device in each period.
    Server {
        /// Device time in each period, overheads included.
        budget: Nanos,
        /// The least time between two refills.
        period: Nanos,
        /// As of a guaranteed model.
        rank: Option<u32>,
    },
}

/// Hard limits of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Device memory.
    pub memory: Bytes,
    /// Streams.
    pub streams: u32,
    /// Device time for one job, overheads included; `None` for no limit.
    pub compute: Option<Nanos>,
}

/// What is left of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Left {
    /// The limit less `resident` and `covered` of an admitted model, `resident` and `peak` of a refused
    /// one.
    pub memory: i64,
    /// The streams of the partition less those that it uses.
    pub streams: i64,
    /// The limit less what a job costs, where there is one.
    pub compute: Option<i64>,
}

/// What a model is to the analysis, overheads included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// All stages of a job.
    pub job: Nanos,
    /// What counts as the cost of a job: that, or the budget of a server; zero in the background.
    pub cost: Nanos,
    /// The longest piece that nothing preempts.
    pub longest: Nanos,
    /// The piece from whose start on nothing delays the job; zero in the background.
    pub last: Nanos,
    /// Cost by period in units of 2^-63, rounded up, 2^64 - 1 at most; zero in the background.
    pub share: u64,
    /// Deadline - jitter - cost; below zero where one job alone is late. Zero in the background.
    pub room: i64,
}

/// One tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Asked: what it holds.
    pub class: Class,
    /// Asked: the steps `[from, to)` of its model in which it is live; only of a tensor that shares
    /// addresses.
    pub live: Option<(u32, u32)>,
    /// Asked.
    pub size: Bytes,
    /// Asked: what its address must be a multiple of; a power of two.
    pub alignment: u64,
    /// How many multiples of the alignment hold it.
    pub blocks: u64,
    /// Where it lies; `None` of a model that was refused.
    pub at: Option<Placed>,
}

/// The bytes `[offset, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// The first byte.
    pub offset: u64,
    /// `offset + size`.
    pub end: u64,
}

/// What a tensor holds, which says how long it must be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Weights and state: from admission to eviction.
    Persistent,
    /// An input or output: before and after its job.
    Io,
    /// From one stage to a later one: while others may run, if the model may be suspended.
    Carried,
    /// Inside one stage.
    Scratch,
}

/// What the tensors of a model add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// Bytes of each class.
    pub persistent: Bytes,
    /// As above.
    pub io: Bytes,
    /// As above.
    pub carried: Bytes,
    /// As above.
    pub scratch: Bytes,
    /// Of tensors that share no address.
    pub resident: Bytes,
    /// Of those that share, the most that is live in one step. No plan takes less.
    pub peak: Bytes,
    /// Of those that share, the steps in which they are live, added up.
    pub steps: u64,
    /// Of those that share, the bytes they cover where they lie; zero of a refused model.
    pub covered: Bytes,
}

/// What became of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was admitted.
    Admitted,
    /// It was refused beside the models that were admitted before it.
    Refused(Refusal),
}

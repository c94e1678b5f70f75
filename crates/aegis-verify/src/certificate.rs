//! What a certificate says: what was asked for, and the numbers that answer it.
//!
//! Read [`Certificate`], then [`Model`] and [`Proof`]. Fields marked *asked* state what the workload
//! wants and what was measured of it; all others are derived, and the checker recomputes them. Every
//! asked number stands beside a derived one that changes whenever it does, as in double-entry
//! bookkeeping, so a slip in one place shows: `share` for a period, `room` for deadline and jitter,
//! `end` for a size, `steps` for lifetimes, `left` for a budget.
//!
//! Times are whole nanoseconds, sizes whole bytes, both in dense time and exact. Models are named by
//! their place in [`Certificate::models`], partitions by theirs.
//!
//! # Invariants
//! 1. No field may be changed without a trace: it is recomputed, or pinned by one that is, or, where
//!    the proof does not depend on it (names, hashes), sealed by the digest of the file.

use aegis_trace::{Bytes, Nanos};
use serde::{Deserialize, Serialize};

/// One answer of admission with its proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Whether every model was admitted and every chain is kept.
    pub verdict: Verdict,
    /// Asked: SHA-256 of the workload file.
    pub workload: Digest,
    /// Asked: SHA-256 of the evidence file; `None` where nothing was measured.
    pub evidence: Option<Digest>,
    /// What the orchestrator costs.
    pub overheads: Overheads,
    /// Device memory.
    pub memory: Memory,
    /// The serial executors; one where the device is not split.
    pub partitions: Vec<Partition>,
    /// All models, in the order in which admission decided about them.
    pub models: Vec<Model>,
    /// What goes through several models.
    pub chains: Vec<Chain>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every model is admitted and every chain kept.
    Yes,
    /// Some model is refused, or some chain not kept.
    No,
}

/// A SHA-256, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if text.len() != 64 || !text.as_bytes().iter().all(lower) {
            return Err("a SHA-256 is 64 digits of 0-9 and a-f");
        }
        let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16);
        let mut bytes = [0; 32];
        for (at, place) in bytes.iter_mut().enumerate() {
            *place = byte(at).map_err(|_| "not hexadecimal")?;
        }
        Ok(Self(bytes))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Asked: upper bounds on what the orchestrator costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overheads {
    /// Deciding about a stage, launching it and noticing its end.
    pub dispatch: Nanos,
    /// Until a job that finds the device idle is seen.
    pub wake: Nanos,
    /// On the device, for a stage that follows another of its job.
    pub boundary: Nanos,
    /// Copying the inputs before the first stage, and the outputs after the last, each.
    pub copy: Nanos,
    /// What follows for a stage.
    pub charges: Charges,
}

/// What a stage is charged beside its cost, by its place in the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charges {
    /// The only one: `dispatch + 2 copy`.
    pub only: Nanos,
    /// The first of several: `dispatch + copy`.
    pub first: Nanos,
    /// One between others: `dispatch + boundary`.
    pub inner: Nanos,
    /// The last of several: `dispatch + boundary + copy`.
    pub last: Nanos,
    /// Until a stage has begun that finds the device idle: `wake + dispatch`.
    pub idle: Nanos,
}

/// Device memory of all admitted models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Asked: the hard limit. All tensors lie in `[0, limit)`.
    pub limit: Bytes,
    /// Bytes that one tensor has alone.
    pub resident: Bytes,
    /// Bytes that some shared tensor covers, each counted once.
    pub scratch: Bytes,
    /// `limit - resident - scratch`.
    pub left: Bytes,
}

/// How many models may be suspended between two stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspended {
    /// Asked: at most so many.
    pub limit: u32,
    /// The limit less those that were admitted.
    pub left: u32,
}

/// A serial executor and the proof of what runs on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Asked: its name; `None` for a device that is not split.
    pub name: Option<String>,
    /// Asked: what orders its jobs.
    pub policy: Policy,
    /// Asked: its streams.
    pub streams: u32,
    /// The limit on its models that may be suspended, if there is one.
    pub suspended: Option<Suspended>,
    /// The longest thing less urgent than every task that can hold the device: waking up, or a piece
    /// in the background.
    pub floor: Nanos,
    /// The shares of all its tasks together, in units of 2^-63, each rounded up.
    pub share: u64,
    /// Why no task is late.
    pub proof: Proof,
}

/// What orders the ready jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// First released, first served.
    Fifo,
    /// Shorter period first.
    Rms,
    /// Shorter relative deadline first.
    Dm,
    /// Earlier absolute deadline first.
    Edf,
    /// Smaller explicit priority first.
    Priority,
}

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
    Refused(Witness),
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
    /// `J + C <= D`, of the model itself: its `room` is below zero.
    Alone,
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
    },
    /// Under fixed priorities `R <= D`.
    Response {
        /// Who would be late.
        model: u32,
        /// The longest that something less urgent can hold the device.
        blocking: Nanos,
        /// Whose stage that is; as above.
        blocked_by: Option<u32>,
        /// Which job of the busy period is late.
        job: u32,
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
    /// Everything that must have bytes of its own, and what must be live at once, exceed the device.
    DeviceMemory {
        /// Of tensors that share no address, this model's included.
        resident: Bytes,
        /// Of those that share: the largest peak of each partition, added up.
        peak: Bytes,
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

/// Models through which data goes in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Asked: its name.
    pub name: String,
    /// Asked: how one hands over to the next.
    pub kind: ChainKind,
    /// Asked: the models.
    pub members: Vec<u32>,
    /// Triggered: for each member but the first, how long after the end of the one before it it may
    /// become ready, which is its jitter less that one's response. Otherwise, and where a member is
    /// refused, empty.
    pub handover: Vec<Nanos>,
    /// From end to end, or the reaction time; `None` where a member is refused.
    pub bound: Option<Nanos>,
    /// Asked: what the bound may be.
    pub deadline: Option<Nanos>,
    /// Deadline minus bound, where there are both.
    pub slack: Option<i64>,
    /// The age of data, where it is sampled.
    pub age: Option<Nanos>,
    /// Asked: what the age may be.
    pub max_age: Option<Nanos>,
    /// Limit minus age, where there are both.
    pub age_slack: Option<i64>,
}

/// How one member of a chain hands over to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainKind {
    /// Each reads the latest output of the one before, at its own period.
    Sampled,
    /// The end of each job releases the next.
    Triggered,
}

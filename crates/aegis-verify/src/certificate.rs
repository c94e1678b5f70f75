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

mod model;
mod proof;
mod refusal;

use aegis_trace::{Bytes, Nanos};
use serde::{Deserialize, Serialize};

pub use model::{
    Budget, Charge, Class, Left, Measured, Method, Model, Need, Outcome, Placed, Service, Tensor,
};
pub use proof::{EdfBound, FifoBound, Level, Point, Proof, WorstDue};
pub use refusal::{Raised, Refusal, Witness};

/// One answer of admission with its proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Whether every model was admitted and every chain is kept.
    pub verdict: Verdict,
    /// How many models and chains that is about.
    pub totals: Totals,
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

/// How many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Models that were decided about.
    pub models: u32,
    /// Those that were admitted.
    pub admitted: u32,
    /// Chains.
    pub chains: u32,
    /// Those that are kept.
    pub kept: u32,
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
    /// Whether one stage is put on the device behind the running one.
    pub look_ahead: bool,
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
    /// When new models are refused although they may fit; `None` where nobody asked for that.
    pub pressure: Option<Pressure>,
}

/// Under which condition memory is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pressure {
    /// Asked: with less free memory than this no new model is admitted.
    pub enter: Bytes,
    /// What is free beside all admitted models, less `enter`.
    pub room: i64,
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
    /// With look-ahead, the longest stage of anybody, which may run when the one that blocks has been put
    /// behind it already; zero where nobody can be: under first in, first out, and of fewer than two
    /// tasks.
    pub committed: Nanos,
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

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Fifo => "fifo",
            Self::Rms => "rms",
            Self::Dm => "dm",
            Self::Edf => "edf",
            Self::Priority => "priority",
        })
    }
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
    /// Triggered: one for each member but the first. Otherwise empty.
    pub handover: Vec<Handover>,
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

/// How a member of a triggered chain gets ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// Asked: how long after the end of the member before it it may become ready.
    pub asked: Nanos,
    /// Its jitter less that, and less the response of the nearest member before it that is admitted, if
    /// there is one; `None` of a refused member, whose jitter is what was asked.
    pub spare: Option<Nanos>,
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

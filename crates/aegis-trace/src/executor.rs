//! What the executor of a partition was built with: all that its decisions depend on beside the log.
//!
//! These types are here and not with the scheduler, because the trace says which configuration it was
//! recorded under: read [`ExecutorConfig`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::StreamId;
use crate::unit::Nanos;

/// One serial executor: the dispatcher of a partition and the admission in front of it. Recorded once,
/// first of all that the dispatcher records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorConfig {
    /// The name of the partition; `None` for the whole device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Which policy orders the ready queue.
    pub policy: PolicyKind,
    /// What the analysis charges.
    pub overheads: Overheads,
    /// What happens to jobs after an overrun.
    pub overrun: OverrunPolicy,
    /// Streams of the partition.
    pub streams: u32,
    /// The first of its streams by its number on the device, which the others follow. `None` before the
    /// dispatcher has its streams, and in traces of before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_stream: Option<StreamId>,
    /// Submissions that may wait to be taken.
    pub queue_depth: u32,
    /// The lowest index of a model's id here.
    pub first_model: u16,
    /// Models at once, with as many indices.
    pub max_models: u16,
    /// The most models that may be suspended between two stages; `None` for any number.
    pub max_suspended: Option<u32>,
    /// A stage counts as hanging once it has held the device for this many times its charge,
    pub hang_factor: u64,
    /// and for at least this long.
    pub hang_floor: Nanos,
}

/// Which policy orders the ready queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyKind {
    /// First released, first served: the baseline.
    Fifo,
    /// Shorter period first (rate monotonic).
    Rms,
    /// Shorter relative deadline first (deadline monotonic).
    Dm,
    /// Earlier absolute deadline first.
    Edf,
    /// Smaller explicit priority number first.
    Priority,
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fifo => "fifo",
            Self::Rms => "rms",
            Self::Dm => "dm",
            Self::Edf => "edf",
            Self::Priority => "priority",
        })
    }
}

/// What happens to jobs after an overrun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverrunPolicy {
    /// It is recorded, and every job runs as if nothing had happened.
    #[default]
    Record,
    /// Hopeless jobs are skipped, jobs over their charge are stopped, and their models repay it.
    Contain,
}

impl OverrunPolicy {
    /// Whether anything is done about an overrun.
    #[must_use]
    pub fn contains(self) -> bool {
        self == Self::Contain
    }
}

/// What the orchestrator itself costs, as upper bounds measured on the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overheads {
    /// Deciding, launching and noticing completion. Charged to every stage that starts, those of
    /// blockers included.
    pub dispatch: Nanos,
    /// The latency until a job that finds the device idle is seen. It delays the start of a busy
    /// window like a stage of a task less urgent than every other, so it blocks everyone.
    pub wake: Nanos,
    /// What a stage that follows another of its job takes beside its cost, on the device: bringing
    /// back what crosses the boundary. Zero where the measured cost of such a stage contains it.
    pub boundary: Nanos,
    /// Copying: the inputs of a job before its first stage, and its outputs after its last, each.
    /// Zero where the measured costs of those stages contain it, as they do on the host.
    pub copy: Nanos,
    /// Whether a stage is put on the device behind the running one before that has ended. It closes
    /// the gap between the two, and costs every task whom a less urgent one can block the longest
    /// stage of the set once more. Here because what is analysed is what runs: who charges the other
    /// overheads charges this one, and the dispatcher does it if it is charged. Traces of version 2
    /// come from dispatchers that did not.
    #[serde(default)]
    pub look_ahead: bool,
    /// Whether the inputs of a job whose first stage waits behind the running one are copied while that
    /// runs. Only with `look_ahead`. No charge is smaller by it; the costs must have been measured beside
    /// such copies, which is why it stands here, where both sides read it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uploads_ahead: bool,
}

impl Overheads {
    /// Nothing costs anything, which only a simulated device keeps.
    pub const NONE: Self = Self {
        dispatch: Nanos::ZERO,
        wake: Nanos::ZERO,
        boundary: Nanos::ZERO,
        copy: Nanos::ZERO,
        look_ahead: false,
        uploads_ahead: false,
    };

    /// What a stage takes on the device beside its cost, as one of `stages`.
    #[must_use]
    pub fn on_device(&self, stage: usize, stages: usize) -> Nanos {
        let first = if stage == 0 { self.copy } else { self.boundary };
        let last = if stage + 1 == stages { self.copy } else { Nanos::ZERO };
        first.saturating_add(last)
    }

    /// What a stage is charged beside its cost, as one of `stages`.
    #[must_use]
    pub fn of_stage(&self, stage: usize, stages: usize) -> Nanos {
        self.dispatch.saturating_add(self.on_device(stage, stages))
    }

    /// The most that any stage is charged beside its cost.
    #[must_use]
    pub fn most(&self) -> Nanos {
        let twice = self.copy.saturating_add(self.copy);
        self.dispatch.saturating_add(self.boundary.saturating_add(self.copy).max(twice))
    }

    /// The longest of `costs` with what it is charged.
    #[must_use]
    pub fn longest(&self, costs: &[Nanos]) -> Nanos {
        self.charged(costs).max().unwrap_or(Nanos::ZERO)
    }

    /// All of `costs` with what each is charged.
    #[must_use]
    pub fn total(&self, costs: &[Nanos]) -> Nanos {
        self.charged(costs).fold(Nanos::ZERO, Nanos::saturating_add)
    }

    fn charged(&self, costs: &[Nanos]) -> impl Iterator<Item = Nanos> {
        let stages = costs.len();
        let charge =
            move |(stage, cost): (usize, &Nanos)| cost.saturating_add(self.of_stage(stage, stages));
        costs.iter().enumerate().map(charge)
    }
}

//! What an analysis found: the verdict, the worst responses, and on which grounds.

use aegis_trace::{Limit, ModelId, Nanos, Refusal};
use serde::{Deserialize, Serialize};

/// All that an analysis found about a set, schedulable or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Whether every deadline is met; the inequality that failed where not.
    pub verdict: Result<(), Refusal>,
    /// The theorem behind the verdict.
    pub test: Test,
    /// Whether the verdict is exact: a set that is refused then has a legal schedule that misses.
    /// Otherwise *no* means that no proof was found.
    pub exact: bool,
    /// The worst response of each task, in the set's order, whatever the verdict.
    pub responses: Vec<Response>,
}

/// The longest response of any job of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// From a job's nominal release to its completion, at most.
    Bounded(Nanos),
    /// The backlog can grow for ever.
    Unbounded,
    /// The search ended before there was an answer.
    Undecided(Limit),
}

impl Response {
    /// The bound, if there is one.
    #[must_use]
    pub fn bound(self) -> Option<Nanos> {
        match self {
            Self::Bounded(response) => Some(response),
            Self::Unbounded | Self::Undecided(_) => None,
        }
    }
}

/// What was proved about an accepted set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Analysis {
    /// One bound for each task, in the set's order.
    pub bounds: Vec<Bound>,
    /// The theorem that accepted the set.
    pub test: Test,
    /// `sum C/T` in millionths with overheads charged, rounded down: for display alone.
    pub utilisation_ppm: u64,
}

impl Analysis {
    /// The bound of each task on its response, in the set's order.
    #[must_use]
    pub fn responses(&self) -> Vec<(ModelId, Nanos)> {
        self.bounds.iter().map(|bound| (bound.model, bound.response)).collect()
    }
}

/// The worst that can happen to the jobs of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Whose bound it is.
    pub model: ModelId,
    /// The cost of one job, overheads included.
    pub cost: Nanos,
    /// An upper bound on the time from a job's nominal release, hence with its own jitter, to its
    /// completion; at most the deadline.
    pub response: Nanos,
    /// The longest time that a job can be held up by something less urgent already on the device.
    pub blocking: Nanos,
    /// Whose stage that is; `None` for what has no deadline (the wake-up latency, a background
    /// piece), or when there is nothing.
    pub blocked_by: Option<ModelId>,
    /// Deadline minus response.
    pub slack: Nanos,
}

/// The theorem behind an answer.
///
/// All of them assume sporadic releases with bounded jitter, one serial device that does not idle
/// while a job is ready (up to the wake-up latency), stages within their costs, jobs of one task in
/// release order, and the policy's key computed from the **nominal** release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Test {
    /// Response times over the whole busy window under fixed priorities, explicit or by period or
    /// deadline. Exact but for equal priorities where a task has several stages.
    ///
    /// Davis, Burns, Bril, Lukkien 2007; Bril, Lukkien, Verhaegh 2009; Bertogna, Buttazzo, Yao
    /// 2011.
    NpFixedPriority,
    /// Demand and blocking under EDF, windows searched downwards (QPA), and responses by deadline
    /// offsets. Exact for tasks of one stage, with any jitter and any deadline.
    ///
    /// Jeffay, Stanat, Martel 1991; George, Rivierre, Spuri 1996; Spuri 1996; Baruah 2005; Zhang,
    /// Burns 2009.
    NpEdf,
    /// All work released before or with the job, under first in, first out. Exact where jobs queue
    /// in the order in which they become ready, sound where they queue by nominal release. The
    /// theorem needs no source: a job waits for what came before it and for nothing else.
    Fifo,
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::NpFixedPriority => "non-preemptive fixed-priority response times",
            Self::NpEdf => "non-preemptive EDF demand and blocking",
            Self::Fifo => "first in, first out response times",
        })
    }
}

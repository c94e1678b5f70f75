//! What a search for the worst case of one task ended with.

use aegis_trace::{Limit, Nanos};

use super::findings::Response;
use super::workload::Blocker;

/// How far a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// To the first job that is late: enough for a verdict.
    Late,
    /// To the end, late or not: what a report shows.
    End,
}

/// The worst case of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The worst job found, and there is none worse.
    Worst(Worst),
    /// Its backlog can grow for ever.
    Unbounded,
    /// The search ended before there was an answer.
    Undecided(Limit),
}

impl Outcome {
    /// Whether no job is late.
    pub(super) fn meets(&self, deadline: Nanos) -> bool {
        matches!(self, Self::Worst(worst) if worst.response <= deadline)
    }

    /// What a caller learns of it.
    pub(super) fn response(&self) -> Response {
        match *self {
            Self::Worst(worst) => Response::Bounded(worst.response),
            Self::Unbounded => Response::Unbounded,
            Self::Undecided(limit) => Response::Undecided(limit),
        }
    }
}

/// The job with the longest response, in a busy window that begins at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Worst {
    /// From its nominal release to its completion.
    pub(super) response: Nanos,
    /// How many jobs of its own task run before it in the window.
    pub(super) job: u64,
    /// When its last stage starts.
    pub(super) start: Nanos,
    /// Its absolute deadline, where the order depends on it.
    pub(super) due: Option<Nanos>,
    /// What held the device when the window began.
    pub(super) blocker: Blocker,
}

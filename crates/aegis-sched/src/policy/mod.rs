//! The scheduling policies: which ready job goes next, and why.

use serde::{Deserialize, Serialize};

/// Which policy orders the ready queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PolicyKind {
    /// First released, first served: the baseline.
    Fifo,
    /// Shorter period first (rate monotonic).
    Rms,
    /// Earlier absolute deadline first.
    Edf,
    /// Smaller explicit priority number first.
    Priority,
}

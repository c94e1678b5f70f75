//! The scheduling policies: which ready job goes next, and why.
//!
//! A policy gives every job an *urgency*; the ready queue keeps jobs in the total order
//! (urgency, release, id) and the dispatcher takes the first. A choice is thus a pure function of
//! the ready jobs, costs O(log n), and can be replayed from any trace.
//!
//! # Invariants
//! 1. A policy has no clock, no I/O, no randomness and no state.
//! 2. The urgency of a model's jobs never decreases from one release to the next, so jobs of one
//!    model run in the order of their releases.
//! 3. The urgency a policy gives is the one its analysis in [`crate::analysis`] assumes.

mod dm;
mod edf;
mod fifo;
mod priority;
mod rms;

pub use dm::DmPolicy;
pub use edf::EdfPolicy;
pub use fifo::FifoPolicy;
pub use priority::PriorityPolicy;
pub use rms::RmsPolicy;

use std::fmt;

use aegis_trace::{JobId, Nanos, Reason, Timestamp};
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
    /// Shorter relative deadline first (deadline monotonic).
    Dm,
    /// Earlier absolute deadline first.
    Edf,
    /// Smaller explicit priority number first.
    Priority,
}

impl PolicyKind {
    /// The policy itself.
    #[must_use]
    pub fn policy(self) -> Box<dyn SchedulingPolicy> {
        match self {
            Self::Fifo => Box::new(FifoPolicy),
            Self::Rms => Box::new(RmsPolicy),
            Self::Dm => Box::new(DmPolicy),
            Self::Edf => Box::new(EdfPolicy),
            Self::Priority => Box::new(PriorityPolicy),
        }
    }
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

/// A released job, as a policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyJob {
    /// Which job.
    pub id: JobId,
    /// Its nominal release.
    pub release: Timestamp,
    /// Its absolute deadline.
    pub deadline: Timestamp,
    /// Its model's period.
    pub period: Nanos,
    /// Its model's priority; smaller is more urgent.
    pub priority: u32,
}

/// Orders the jobs of a device that cannot preempt.
pub trait SchedulingPolicy: Send {
    /// Which policy this is.
    fn kind(&self) -> PolicyKind;

    /// How urgent `job` is; smaller goes first. Ties go by release, then by id.
    fn urgency(&self, job: &ReadyJob) -> u64;

    /// Whether, between two stages, a job gives way to a strictly more urgent one.
    fn preempts(&self) -> bool;

    /// Why `chosen` goes before `next`, the job that would have been chosen without it.
    fn reason(&self, chosen: &ReadyJob, next: &ReadyJob) -> Reason;
}

#[cfg(test)]
pub(crate) fn job(model: u16, release: u64, deadline: u64, period: u64, priority: u32) -> ReadyJob {
    ReadyJob {
        id: JobId { model: aegis_trace::ModelId::first(model), sequence: 0 },
        release: Timestamp(release),
        deadline: Timestamp(deadline),
        period: Nanos(period),
        priority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_puts_its_own_favourite_first() {
        // (released first, shortest period, earliest deadline, smallest number, shortest deadline).
        let jobs = [
            job(0, 1, 90, 80, 9),
            job(1, 5, 85, 10, 8),
            job(2, 6, 20, 70, 7),
            job(3, 7, 95, 90, 1),
            job(4, 18, 31, 60, 6),
        ];
        let first = |kind: PolicyKind| {
            let policy = kind.policy();
            let best = jobs.iter().min_by_key(|job| policy.urgency(job)).expect("five jobs");
            best.id.model.index
        };
        assert_eq!(first(PolicyKind::Fifo), 0);
        assert_eq!(first(PolicyKind::Rms), 1);
        assert_eq!(first(PolicyKind::Edf), 2);
        assert_eq!(first(PolicyKind::Priority), 3);
        assert_eq!(first(PolicyKind::Dm), 4);
    }

    #[test]
    fn a_reason_shows_the_comparison_that_decided() {
        let (a, b) = (job(0, 1, 90, 80, 9), job(1, 5, 85, 10, 8));
        let reason = EdfPolicy.reason(&b, &a);
        let expected = Reason::EarliestDeadline { chosen: Timestamp(85), next: Timestamp(90) };
        assert_eq!(reason, expected);
        assert!(!FifoPolicy.preempts());
    }
}

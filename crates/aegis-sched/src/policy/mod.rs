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

pub use aegis_trace::PolicyKind;
use aegis_trace::{JobId, Nanos, Reason, Timestamp};

/// The policy of this kind.
#[must_use]
pub fn policy_of(kind: PolicyKind) -> Box<dyn SchedulingPolicy> {
    match kind {
        PolicyKind::Fifo => Box::new(FifoPolicy),
        PolicyKind::Rms => Box::new(RmsPolicy),
        PolicyKind::Dm => Box::new(DmPolicy),
        PolicyKind::Edf => Box::new(EdfPolicy),
        PolicyKind::Priority => Box::new(PriorityPolicy),
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
            let policy = policy_of(kind);
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

//! Earliest deadline first.

use aegis_trace::Reason;

use super::{PolicyKind, ReadyJob, SchedulingPolicy};

/// Earlier absolute deadline first. Optimal among work-conserving policies without preemption for
/// sporadic tasks of one stage (Jeffay, Stanat, Martel, 1991).
#[derive(Clone, Copy, Debug)]
pub struct EdfPolicy;

impl SchedulingPolicy for EdfPolicy {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Edf
    }

    fn urgency(&self, job: &ReadyJob) -> u64 {
        job.deadline.0
    }

    fn preempts(&self) -> bool {
        true
    }

    fn reason(&self, chosen: &ReadyJob, next: &ReadyJob) -> Reason {
        Reason::EarliestDeadline { chosen: chosen.deadline, next: next.deadline }
    }
}

//! Explicit fixed priorities.

use aegis_trace::Reason;

use super::{PolicyKind, ReadyJob, SchedulingPolicy};

/// Smaller priority number first.
#[derive(Clone, Copy, Debug)]
pub struct PriorityPolicy;

impl SchedulingPolicy for PriorityPolicy {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Priority
    }

    fn urgency(&self, job: &ReadyJob) -> u64 {
        u64::from(job.priority)
    }

    fn preempts(&self) -> bool {
        true
    }

    fn reason(&self, chosen: &ReadyJob, next: &ReadyJob) -> Reason {
        Reason::MostUrgent { chosen: chosen.priority, next: next.priority }
    }
}

//! Deadline monotonic: the shorter the relative deadline, the sooner.

use aegis_trace::{Nanos, Reason};

use super::{PolicyKind, ReadyJob, SchedulingPolicy};

/// Shorter relative deadline first. Leung and Whitehead, 1982; not optimal without preemption, for
/// which see the search for priorities in [`crate::analysis`].
#[derive(Clone, Copy, Debug)]
pub struct DmPolicy;

impl SchedulingPolicy for DmPolicy {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Dm
    }

    fn urgency(&self, job: &ReadyJob) -> u64 {
        relative(job).0
    }

    fn preempts(&self) -> bool {
        true
    }

    fn reason(&self, chosen: &ReadyJob, next: &ReadyJob) -> Reason {
        Reason::ShortestDeadline { chosen: relative(chosen), next: relative(next) }
    }
}

/// From the nominal release to the deadline: the same for every job of a model.
fn relative(job: &ReadyJob) -> Nanos {
    job.deadline.saturating_since(job.release)
}

//! First released, first served.

use aegis_trace::Reason;

use super::{PolicyKind, ReadyJob, SchedulingPolicy};

/// The baseline: jobs run in the order of their releases, each to its end.
#[derive(Clone, Copy, Debug)]
pub struct FifoPolicy;

impl SchedulingPolicy for FifoPolicy {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Fifo
    }

    fn urgency(&self, job: &ReadyJob) -> u64 {
        job.release.0
    }

    fn preempts(&self) -> bool {
        false // A job released earlier is never overtaken, not even between two stages.
    }

    fn reason(&self, chosen: &ReadyJob, next: &ReadyJob) -> Reason {
        Reason::EarliestRelease { chosen: chosen.release, next: next.release }
    }
}

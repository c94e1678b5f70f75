//! Rate monotonic: the shorter the period, the sooner.

use aegis_trace::Reason;

use super::{PolicyKind, ReadyJob, SchedulingPolicy};

/// Shorter period first. Liu and Layland, 1973; not optimal without preemption.
#[derive(Clone, Copy, Debug)]
pub struct RmsPolicy;

impl SchedulingPolicy for RmsPolicy {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Rms
    }

    fn urgency(&self, job: &ReadyJob) -> u64 {
        job.period.0
    }

    fn preempts(&self) -> bool {
        true
    }

    fn reason(&self, chosen: &ReadyJob, next: &ReadyJob) -> Reason {
        Reason::ShortestPeriod { chosen: chosen.period, next: next.period }
    }
}

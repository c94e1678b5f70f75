//! The audit of a run: which assumption of the proof was broken, by whom, and with what effect.
//!
//! Within a busy period, the device's time is tiled without gaps by *service intervals*: from the
//! decision that launched a stage to the decision point at which its end was noticed, which is
//! also where the next decision is made. The analysis charges every interval the stage's
//! worst-case execution time plus the dispatch overhead. So a busy period can only take longer
//! than the analysis allows if some interval exceeds its charge, or if the job that found the
//! device idle was seen too late. Both are checked here, for every stage.
//!
//! # Invariants
//! 1. A *taint* lasts from the event that broke an assumption to the end of its busy period: once
//!    the device is idle and no job is visible, an overrun has no effect any more.
//! 2. A response beyond its bound in a busy period without taint is a defect of AegisRT, and is
//!    reported as one.

use aegis_context::StageTimes;
use aegis_trace::{Assumption, JobId, Nanos, TraceEvent};

/// The charge of one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    /// Its worst-case execution time.
    pub(crate) cost: Nanos,
    /// The overhead charged on top.
    pub(crate) overhead: Nanos,
}

/// What the audit knows about the present busy period.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    taint: Option<JobId>,
}

impl Audit {
    /// Compares a stage with its charge; the event to record when an assumption was broken.
    ///
    /// A stage that ran longer than its cost but within its charge breaks the evidence and harms
    /// nobody: it is reported, and taints nothing.
    pub(crate) fn stage(
        &mut self,
        job: JobId,
        charge: Charge,
        times: StageTimes,
        service: Nanos,
    ) -> Option<TraceEvent> {
        let executed = times.finished.saturating_since(times.started);
        let exceeded = service > charge.cost + charge.overhead;
        if exceeded {
            self.taint.get_or_insert(job);
        }
        let (assumption, assumed, observed) = if executed > charge.cost {
            (Assumption::ExecutionTime, charge.cost, executed)
        } else if exceeded {
            let spent = service.saturating_sub(executed);
            (Assumption::DispatchOverhead, charge.overhead, spent)
        } else {
            return None;
        };
        Some(TraceEvent::AssumptionBroken { assumption, job, assumed, observed })
    }

    /// Compares the wait of a job that found the device idle with the declared latency.
    pub(crate) fn wake(&mut self, job: JobId, assumed: Nanos, observed: Nanos) -> Option<TraceEvent> {
        if observed <= assumed {
            return None;
        }
        self.taint.get_or_insert(job);
        let assumption = Assumption::WakeLatency;
        Some(TraceEvent::AssumptionBroken { assumption, job, assumed, observed })
    }

    /// A stage that never ended, or whose end is unknown, taints the rest of its busy period.
    pub(crate) fn lost(&mut self, job: JobId) {
        self.taint.get_or_insert(job);
    }

    /// Compares a response with its bound.
    pub(crate) fn response(&self, job: JobId, bound: Nanos, response: Nanos) -> Option<TraceEvent> {
        let cause = self.taint;
        (response > bound).then_some(TraceEvent::BoundExceeded { job, bound, response, cause })
    }

    /// The busy period ended.
    pub(crate) fn idle(&mut self) {
        self.taint = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aegis_trace::{ModelId, Timestamp};

    const CHARGE: Charge = Charge { cost: Nanos(10), overhead: Nanos(2) };

    fn job(sequence: u64) -> JobId {
        JobId { model: ModelId::first(0), sequence }
    }

    fn ran(length: u64) -> StageTimes {
        StageTimes { started: Timestamp(100), finished: Timestamp(100 + length) }
    }

    fn broken(event: Option<TraceEvent>) -> Option<(Assumption, Nanos)> {
        match event {
            Some(TraceEvent::AssumptionBroken { assumption, observed, .. }) => {
                Some((assumption, observed))
            }
            _ => None,
        }
    }

    #[test]
    fn an_overrun_excuses_later_responses_until_the_device_is_idle() {
        let mut audit = Audit::default();
        let event = audit.stage(job(0), CHARGE, ran(15), Nanos(16));
        assert_eq!(broken(event), Some((Assumption::ExecutionTime, Nanos(15))));
        let exceeded = |audit: &Audit| audit.response(job(1), Nanos(5), Nanos(6));
        let with_cause = |cause| {
            Some(TraceEvent::BoundExceeded { job: job(1), bound: Nanos(5), response: Nanos(6), cause })
        };
        assert_eq!(exceeded(&audit), with_cause(Some(job(0))));
        audit.idle();
        assert_eq!(exceeded(&audit), with_cause(None));
        assert_eq!(audit.response(job(1), Nanos(5), Nanos(5)), None);
    }

    #[test]
    fn a_slow_dispatch_is_told_from_a_slow_stage() {
        let mut audit = Audit::default();
        let event = audit.stage(job(0), CHARGE, ran(9), Nanos(13));
        assert_eq!(broken(event), Some((Assumption::DispatchOverhead, Nanos(4))));
    }

    #[test]
    fn a_stage_within_its_charge_taints_nothing() {
        let mut audit = Audit::default();
        assert_eq!(audit.stage(job(0), CHARGE, ran(10), Nanos(12)), None);
        let event = audit.stage(job(0), CHARGE, ran(11), Nanos(12));
        assert_eq!(broken(event), Some((Assumption::ExecutionTime, Nanos(11))));
        assert!(matches!(
            audit.response(job(0), Nanos(1), Nanos(2)),
            Some(TraceEvent::BoundExceeded { cause: None, .. })
        ));
    }

    #[test]
    fn a_late_wake_up_is_named() {
        let mut audit = Audit::default();
        assert_eq!(audit.wake(job(0), Nanos(5), Nanos(5)), None);
        let event = audit.wake(job(0), Nanos(5), Nanos(6));
        assert_eq!(broken(event), Some((Assumption::WakeLatency, Nanos(6))));
    }
}

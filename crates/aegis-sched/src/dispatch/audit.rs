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

impl Charge {
    /// Both together.
    pub(crate) fn total(self) -> Nanos {
        self.cost.saturating_add(self.overhead)
    }
}

/// A value the proof took for granted, and the one that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BrokenAssumption {
    /// What was assumed.
    pub(crate) assumption: Assumption,
    /// The job that broke it.
    pub(crate) job: JobId,
    assumed: Nanos,
    observed: Nanos,
}

impl BrokenAssumption {
    pub(crate) fn new(assumption: Assumption, job: JobId, assumed: Nanos, observed: Nanos) -> Self {
        Self { assumption, job, assumed, observed }
    }

    /// The event that records it.
    pub(crate) fn event(self) -> TraceEvent {
        let Self { assumption, job, assumed, observed } = self;
        TraceEvent::AssumptionBroken { assumption, job, assumed, observed }
    }
}

/// What the audit knows about the present busy period.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    taint: Option<JobId>,
}

impl Audit {
    /// Compares a stage with its charge; the assumptions that were broken. A stage can break both.
    ///
    /// A stage that ran longer than its cost but within its charge breaks the evidence and harms
    /// nobody: it is reported, and taints nothing.
    pub(crate) fn stage(
        &mut self,
        job: JobId,
        charge: Charge,
        times: StageTimes,
        service: Nanos,
    ) -> impl Iterator<Item = BrokenAssumption> + use<> {
        let executed = times.finished.saturating_since(times.started);
        let spent = service.saturating_sub(executed);
        let exceeded = service > charge.total();
        if exceeded {
            self.taint.get_or_insert(job);
        }
        // What was left of its upload when the stage before it ended lies before `started`, and is a part
        // of its cost.
        let waited = spent.saturating_sub(charge.overhead).min(times.ahead);
        let executed = if exceeded { executed.saturating_add(waited) } else { executed };
        let spent = spent.saturating_sub(waited);
        let too_long = (executed > charge.cost)
            .then(|| BrokenAssumption::new(Assumption::ExecutionTime, job, charge.cost, executed));
        let too_late = (exceeded && spent > charge.overhead).then(|| {
            BrokenAssumption::new(Assumption::DispatchOverhead, job, charge.overhead, spent)
        });
        [too_long, too_late].into_iter().flatten()
    }

    /// Compares the wait of a job that found the device idle with the declared latency, which it
    /// must stay below: waking begins *at* the arrival and a decision at `a + wake` would still see
    /// jobs that arrive then, so the last instant the analysis covers is one tick earlier. A latency
    /// of zero means that the job is seen at once.
    pub(crate) fn wake(
        &mut self,
        job: JobId,
        assumed: Nanos,
        observed: Nanos,
    ) -> Option<BrokenAssumption> {
        if observed < assumed || observed == Nanos::ZERO {
            return None;
        }
        self.taint.get_or_insert(job);
        Some(BrokenAssumption::new(Assumption::WakeLatency, job, assumed, observed))
    }

    /// Compares a stage that failed, or has not ended yet, with its charge.
    pub(crate) fn unfinished(
        &mut self,
        job: JobId,
        charge: Charge,
        service: Nanos,
    ) -> Option<BrokenAssumption> {
        let assumed = charge.total();
        if service <= assumed {
            return None;
        }
        self.taint.get_or_insert(job);
        Some(BrokenAssumption::new(Assumption::ExecutionTime, job, assumed, service))
    }

    /// Compares a response with its bound.
    pub(crate) fn response(&self, job: JobId, bound: Nanos, response: Nanos) -> Option<TraceEvent> {
        let cause = self.taint;
        (response > bound).then_some(TraceEvent::BoundExceeded { job, bound, response, cause })
    }

    /// Whether an assumption was broken in the present busy period.
    pub(crate) fn is_tainted(&self) -> bool {
        self.taint.is_some()
    }

    /// The busy period ended; the job that had tainted it, if one had.
    pub(crate) fn idle(&mut self) -> Option<JobId> {
        self.taint.take()
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
        let (started, finished) = (Timestamp(100), Timestamp(100 + length));
        let [upload, download, ahead] = [Nanos::ZERO; 3];
        StageTimes { started, finished, upload, download, ahead }
    }

    fn broken(found: impl IntoIterator<Item = BrokenAssumption>) -> Vec<(Assumption, Nanos)> {
        found.into_iter().map(|broken| (broken.assumption, broken.observed)).collect()
    }

    #[test]
    fn an_overrun_excuses_later_responses_until_the_device_is_idle() {
        let mut audit = Audit::default();
        let event = audit.stage(job(0), CHARGE, ran(15), Nanos(16));
        assert_eq!(broken(event), [(Assumption::ExecutionTime, Nanos(15))]);
        let exceeded = |audit: &Audit| audit.response(job(1), Nanos(5), Nanos(6));
        let with_cause = |cause| {
            Some(TraceEvent::BoundExceeded {
                job: job(1),
                bound: Nanos(5),
                response: Nanos(6),
                cause,
            })
        };
        assert_eq!(exceeded(&audit), with_cause(Some(job(0))));
        assert_eq!(audit.idle(), Some(job(0)));
        assert_eq!(exceeded(&audit), with_cause(None));
        assert_eq!(audit.idle(), None);
        assert_eq!(audit.response(job(1), Nanos(5), Nanos(5)), None);
    }

    #[test]
    fn a_slow_dispatch_is_told_from_a_slow_stage() {
        let mut audit = Audit::default();
        let event = audit.stage(job(0), CHARGE, ran(9), Nanos(13));
        assert_eq!(broken(event), [(Assumption::DispatchOverhead, Nanos(4))]);
        let both = audit.stage(job(0), CHARGE, ran(11), Nanos(20));
        let expected =
            [(Assumption::ExecutionTime, Nanos(11)), (Assumption::DispatchOverhead, Nanos(9))];
        assert_eq!(broken(both), expected);
    }

    #[test]
    fn a_wait_for_an_upload_ahead_is_the_stages_own() {
        let mut audit = Audit::default();
        let ahead = |length, ahead| StageTimes { ahead: Nanos(ahead), ..ran(length) };
        let within = audit.stage(job(0), CHARGE, ahead(7, 5), Nanos(12));
        assert_eq!(broken(within), [], "three left of five, and two for the dispatch");
        let late = audit.stage(job(0), CHARGE, ahead(7, 5), Nanos(14));
        assert_eq!(broken(late), [(Assumption::ExecutionTime, Nanos(12))]);
        let both = audit.stage(job(0), CHARGE, ahead(7, 5), Nanos(20));
        let expected =
            [(Assumption::ExecutionTime, Nanos(12)), (Assumption::DispatchOverhead, Nanos(8))];
        assert_eq!(broken(both), expected);
    }

    #[test]
    fn a_stage_within_its_charge_taints_nothing() {
        let mut audit = Audit::default();
        assert_eq!(broken(audit.stage(job(0), CHARGE, ran(10), Nanos(12))), []);
        let event = audit.stage(job(0), CHARGE, ran(11), Nanos(12));
        assert_eq!(broken(event), [(Assumption::ExecutionTime, Nanos(11))]);
        assert!(matches!(
            audit.response(job(0), Nanos(1), Nanos(2)),
            Some(TraceEvent::BoundExceeded { cause: None, .. })
        ));
    }

    #[test]
    fn a_late_wake_up_is_named() {
        let mut audit = Audit::default();
        assert_eq!(audit.wake(job(0), Nanos(5), Nanos(4)), None);
        assert_eq!(audit.wake(job(0), Nanos(0), Nanos(0)), None);
        let event = audit.wake(job(0), Nanos(5), Nanos(5));
        assert_eq!(broken(event), [(Assumption::WakeLatency, Nanos(5))]);
    }
}

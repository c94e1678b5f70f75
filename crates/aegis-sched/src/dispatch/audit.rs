//! The audit of a run: which assumption of the proof was broken, by whom, and with what effect.
//!
//! Within a busy period, the device's time is tiled without gaps by *service intervals*: from the
//! decision that launched a stage to the decision point at which its end was noticed, which is
//! also where the next decision is made. The analysis charges every interval the stage's
//! worst-case execution time plus the dispatch overhead. So a busy period can only take longer
//! than the analysis allows if some interval exceeds its charge, or if the job that found the
//! device idle was seen too late. Both are checked here, for every stage.
//!
//! On the device a stage may begin behind an upload: its own, which went ahead of it, or that of a stage
//! that could not be launched behind it. What it waited for its own is its own time; what it waited for
//! somebody else's is held against that one, whose failed launch left it there (docs/adr/0090).
//!
//! # Invariants
//! 1. A *taint* lasts from the event that broke an assumption to the end of its busy period: once
//!    the device is idle and no job is visible, an overrun has no effect any more.
//! 2. A response beyond its bound in a busy period without taint is a defect of AegisRT, and is
//!    reported as one.

use aegis_context::{Awaited, StageTimes};
use aegis_trace::{Assumption, JobId, Nanos, StageIndex, Timestamp, TraceEvent};

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

/// The service interval of a stage that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval {
    /// The decision that launched it, or noticed the end of the stage before it.
    pub(crate) since: Timestamp,
    /// The decision that noticed its end.
    pub(crate) until: Timestamp,
    /// When the device ran it.
    pub(crate) times: StageTimes,
    /// Whose upload it is that the device had put it behind, where that is told.
    pub(crate) behind: Option<JobId>,
}

impl Interval {
    fn length(&self) -> Nanos {
        self.until.saturating_since(self.since)
    }

    fn exceeds(&self, charge: Charge) -> bool {
        self.length() > charge.total()
    }

    fn executed(&self) -> Nanos {
        self.times.finished.saturating_since(self.times.started)
    }

    /// What the device did not run it for.
    fn spent(&self) -> Nanos {
        self.length().saturating_sub(self.executed())
    }

    /// How much of what was spent beyond the overhead the stage waited for the upload, at most. That lies
    /// before the stage began, and within the interval, which begins where the stage before it had ended.
    /// A GPU tells when a stage ended only to who looks: where that was late, the stage and the end of the
    /// upload are taken to be later than they were by as much. Not where the upload was seen to be over
    /// when the interval began: then it took nothing of it.
    ///
    /// A stage that waited begins as soon as the upload has ended. Where it began later than that by more
    /// than the overhead, it waited for something else, or the device took longer than is charged for
    /// all of it: both are the overhead's.
    fn waited(&self, charge: Charge) -> Nanos {
        let rest = match self.times.awaited.filter(|_| self.behind.is_some()) {
            Some(Awaited { before, .. }) if before > charge.overhead => Nanos::ZERO,
            Some(Awaited { took, before, .. }) => {
                let ended = self.times.started.saturating_sub(before);
                ended.saturating_since(self.since).min(took)
            }
            // Not told: it may have been all of it.
            None => self.times.ahead,
        };
        rest.min(self.spent().saturating_sub(charge.overhead))
    }

    /// What the trace has to tell besides, so that it says what the audit depends on: of a stage beyond
    /// its charge that was put behind an upload.
    pub(crate) fn told(&self, job: JobId, stage: StageIndex, charge: Charge) -> Option<TraceEvent> {
        let Awaited { took, before, .. } = self.times.awaited?;
        let of = self.behind.filter(|_| self.exceeds(charge))?;
        Some(TraceEvent::UploadAwaited { job, stage, of, took, before })
    }
}

/// What the audit knows about the present busy period.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    taint: Option<JobId>,
}

impl Audit {
    /// Compares a stage with its charge; the assumptions that were broken. A stage can break two, and
    /// somebody else's upload a third.
    ///
    /// A stage that ran longer than its cost but within its charge breaks the evidence and harms
    /// nobody: it is reported, and taints nothing.
    pub(crate) fn stage(
        &mut self,
        job: JobId,
        charge: Charge,
        interval: Interval,
    ) -> impl Iterator<Item = BrokenAssumption> + use<> {
        let exceeded = interval.exceeds(charge);
        let (executed, spent) = (interval.executed(), interval.spent());
        let waited = if exceeded { interval.waited(charge) } else { Nanos::ZERO };
        let left_by = interval.behind.filter(|of| *of != job && waited > Nanos::ZERO);
        if exceeded {
            // Only where it would have been within its charge but for that upload.
            let without = interval.length().saturating_sub(waited);
            let cause = left_by.filter(|_| without <= charge.total()).unwrap_or(job);
            self.taint.get_or_insert(cause);
        }
        // What was left of its own upload when the stage before it ended is a part of its cost.
        let own = if left_by.is_none() { waited } else { Nanos::ZERO };
        let (executed, spent) = (executed.saturating_add(own), spent.saturating_sub(waited));
        let held_up = left_by
            .map(|by| BrokenAssumption::new(Assumption::LeftUpload, by, Nanos::ZERO, waited));
        let too_long = (executed > charge.cost)
            .then(|| BrokenAssumption::new(Assumption::ExecutionTime, job, charge.cost, executed));
        let too_late = (exceeded && spent > charge.overhead).then(|| {
            BrokenAssumption::new(Assumption::DispatchOverhead, job, charge.overhead, spent)
        });
        [held_up, too_long, too_late].into_iter().flatten()
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
    use aegis_context::Whose;
    use aegis_trace::ModelId;

    const CHARGE: Charge = Charge { cost: Nanos(10), overhead: Nanos(2) };

    fn job(sequence: u64) -> JobId {
        JobId { model: ModelId::first(0), sequence }
    }

    fn ran(length: u64) -> StageTimes {
        let (started, finished) = (Timestamp(100), Timestamp(100 + length));
        let [upload, download, ahead] = [Nanos::ZERO; 3];
        StageTimes { started, finished, upload, download, ahead, awaited: None }
    }

    /// A stage that was noticed so much after it was launched.
    fn held(times: StageTimes, service: u64) -> Interval {
        let since = Timestamp(50);
        Interval { since, until: Timestamp(50 + service), times, behind: None }
    }

    fn broken(found: impl IntoIterator<Item = BrokenAssumption>) -> Vec<(Assumption, Nanos)> {
        found.into_iter().map(|broken| (broken.assumption, broken.observed)).collect()
    }

    #[test]
    fn an_overrun_excuses_later_responses_until_the_device_is_idle() {
        let mut audit = Audit::default();
        let event = audit.stage(job(0), CHARGE, held(ran(15), 16));
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
        let event = audit.stage(job(0), CHARGE, held(ran(9), 13));
        assert_eq!(broken(event), [(Assumption::DispatchOverhead, Nanos(4))]);
        let both = audit.stage(job(0), CHARGE, held(ran(11), 20));
        let expected =
            [(Assumption::ExecutionTime, Nanos(11)), (Assumption::DispatchOverhead, Nanos(9))];
        assert_eq!(broken(both), expected);
    }

    #[test]
    fn a_wait_for_an_upload_ahead_of_which_nothing_is_told_is_the_stages_own() {
        let mut audit = Audit::default();
        let ahead = |length, ahead| StageTimes { ahead: Nanos(ahead), ..ran(length) };
        let within = audit.stage(job(0), CHARGE, held(ahead(7, 5), 12));
        assert_eq!(broken(within), [], "three left of five, and two for the dispatch");
        let late = audit.stage(job(0), CHARGE, held(ahead(7, 5), 14));
        assert_eq!(broken(late), [(Assumption::ExecutionTime, Nanos(12))]);
        let both = audit.stage(job(0), CHARGE, held(ahead(7, 5), 20));
        let expected =
            [(Assumption::ExecutionTime, Nanos(12)), (Assumption::DispatchOverhead, Nanos(8))];
        assert_eq!(broken(both), expected);
    }

    /// A stage of 7 that began at 100, `before` behind an upload of 5, and had the device since `since`.
    fn behind(by: JobId, since: u64, before: u64, until: u64) -> Interval {
        let whose = if by == job(0) { Whose::Own } else { Whose::Left };
        let awaited = Some(Awaited { whose, took: Nanos(5), before: Nanos(before) });
        let ahead = if by == job(0) { Nanos(5) } else { Nanos::ZERO };
        let times = StageTimes { ahead, awaited, ..ran(7) };
        let (since, until) = (Timestamp(since), Timestamp(until));
        Interval { since, until, times, behind: Some(by) }
    }

    #[test]
    fn what_was_left_of_an_upload_ahead_is_the_stages_own_and_the_rest_is_not() {
        let mut audit = Audit::default();
        let mut named = |since, before, until| {
            broken(audit.stage(job(0), CHARGE, behind(job(0), since, before, until)))
        };
        assert_eq!(
            named(97, 0, 108),
            [],
            "a service of 11, of which three were left of the upload"
        );
        let late = |spent| vec![(Assumption::DispatchOverhead, Nanos(spent))];
        assert_eq!(named(97, 0, 115), late(8), "three waited and seven ran: ten, as it may");
        assert_eq!(named(97, 1, 115), late(9), "two waited");
        assert_eq!(named(90, 3, 115), late(18), "it began long behind its upload: it did not wait");
        assert_eq!(named(101, 0, 120), late(12), "over before the device was its own");
        // Noticed 43 late, so that it looks as if the stage, and with it its upload, were later.
        let mut seen_over = behind(job(0), 50, 1, 107);
        assert_eq!(
            broken(Audit::default().stage(job(0), CHARGE, seen_over)),
            [(Assumption::ExecutionTime, Nanos(12)), (Assumption::DispatchOverhead, Nanos(45)),]
        );
        seen_over.times.awaited =
            seen_over.times.awaited.map(|of| Awaited { took: Nanos::ZERO, ..of });
        assert_eq!(broken(Audit::default().stage(job(0), CHARGE, seen_over)), late(50));
        let long = vec![(Assumption::ExecutionTime, Nanos(12))];
        assert_eq!(named(94, 0, 108), long, "five waited and seven ran");
    }

    #[test]
    fn what_was_left_of_the_upload_of_another_is_held_against_that_one() {
        let mut audit = Audit::default();
        let left = |audit: &mut Audit, since, before, until| {
            let found = audit.stage(job(0), CHARGE, behind(job(7), since, before, until));
            let of = |it: BrokenAssumption| (it.assumption, it.job, it.assumed, it.observed);
            found.map(of).collect::<Vec<_>>()
        };
        let late = |spent| (Assumption::DispatchOverhead, job(0), Nanos(2), Nanos(spent));
        let held_up = |length| (Assumption::LeftUpload, job(7), Nanos::ZERO, Nanos(length));
        assert_eq!(left(&mut audit, 97, 0, 109), [], "within the charge");
        assert_eq!(left(&mut audit, 90, 3, 115), [late(18)], "that was over");
        assert_eq!(audit.idle(), Some(job(0)));
        assert_eq!(left(&mut audit, 95, 0, 108), [held_up(4)], "and two of overhead");
        assert_eq!(audit.idle(), Some(job(7)), "whose failed launch it was");
        assert_eq!(left(&mut audit, 95, 0, 115), [held_up(5), late(8)]);
        assert_eq!(audit.idle(), Some(job(0)), "15 without that are beyond its charge too");
        assert_eq!(left(&mut audit, 95, 0, 112), [held_up(5), late(5)]);
        assert_eq!(audit.idle(), Some(job(7)), "12 without that are not");
    }

    #[test]
    fn only_of_a_stage_beyond_its_charge_it_is_told_what_it_was_behind() {
        let told = |interval: Interval| interval.told(job(0), StageIndex(0), CHARGE);
        assert_eq!(told(behind(job(7), 97, 1, 109)), None);
        let (of, took, before) = (job(7), Nanos(5), Nanos(1));
        let awaited =
            TraceEvent::UploadAwaited { job: job(0), stage: StageIndex(0), of, took, before };
        assert_eq!(told(behind(job(7), 97, 1, 110)), Some(awaited));
        assert_eq!(told(held(ran(7), 20)), None, "it was behind none");
    }

    #[test]
    fn a_stage_within_its_charge_taints_nothing() {
        let mut audit = Audit::default();
        assert_eq!(broken(audit.stage(job(0), CHARGE, held(ran(10), 12))), []);
        let event = audit.stage(job(0), CHARGE, held(ran(11), 12));
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

//! Room: how much more a question to a replay may keep in memory.
//!
//! Everything counts that grows with a run: jobs and the refills that they waited for, stages, idle times,
//! broken assumptions, changes of bounds, evictions; of every run that is held at once, the recorded ones
//! and those under another policy.
//!
//! # Invariants
//! 1. What one question keeps is never more than [`KEPT_MAX`] together. The error names the line up to
//!    which there is too much, so that a shorter log has an answer.

use super::KEPT_MAX;
use super::error::{ReplayError, line_of};

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    left: usize,
}

impl Room {
    /// All that there is for one question.
    pub(super) fn all() -> Self {
        Self { left: KEPT_MAX }
    }

    /// What is left beside so much that is kept.
    pub(super) fn beside(self, kept: usize) -> Self {
        Self { left: self.left.saturating_sub(kept) }
    }

    /// A half of it: of a run that is to be held beside another of about the same size.
    pub(super) fn half(self) -> Self {
        Self { left: self.left / 2 }
    }

    /// Whether there is room for so much, which is what is kept up to `record`.
    ///
    /// # Errors
    /// [`ReplayError::TooMuch`], Permanent, with the line.
    pub(super) fn check(self, kept: usize, record: usize) -> Result<(), ReplayError> {
        match kept > self.left {
            true => Err(ReplayError::TooMuch { line: line_of(record), limit: KEPT_MAX }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use aegis_trace::{Nanos, PolicyKind, Trace, TraceEvent};

    use super::*;
    use crate::replay::{Extent, Keeps, Replayed, replay_records};
    use crate::sim::{Arrivals, Model, ModelService, Seed, World, WorldConfig};

    #[test]
    fn more_than_is_kept_is_an_error_that_names_the_line_and_the_limit() {
        let room = Room::all().beside(KEPT_MAX - 7);
        room.check(7, 40).expect("the last one that is kept");
        let error = room.check(8, 40).expect_err("one more");
        expect_test::expect!["line 42: up to here more than 4194304 jobs, stages and changes would have to be kept in memory, and no more are"]
            .assert_eq(&error.to_string());
        assert_eq!(room.half().left, 3);
        assert_eq!(room.beside(8).left, 0, "and never wrapped");
    }

    /// A world of a server that is always behind, so that its jobs wait for refills.
    fn behind() -> Trace {
        let mut world = World::new(WorldConfig::new(Seed(5)));
        let mut served = Model::periodic("served", Nanos(40), Nanos(50));
        served.service = ModelService::Server { budget: Nanos(50), period: Nanos(200) };
        served.behaviour.arrivals = Arrivals::TooEarly;
        world.admit(served).expect("a quarter of the device");
        world.admit(Model::periodic("camera", Nanos(20), Nanos(300))).expect("a little");
        world.run_for(Nanos(20_000));
        world.trace().clone()
    }

    fn replayed(trace: &Trace, keeps: Keeps) -> Replayed {
        let replayed = replay_records(trace, Extent::Whole, keeps).expect("a trace of ours");
        assert_eq!(replayed.divergence, None);
        replayed
    }

    #[test]
    fn each_refill_that_a_job_waits_for_counts() {
        let trace = behind();
        let timeline = &replayed(&trace, Keeps::Timelines).executors[0].timeline;
        let waits = |event: &TraceEvent| matches!(event, TraceEvent::OutOfBudget { .. });
        let waited = trace.records.iter().filter(|record| waits(&record.event)).count();
        let others = timeline.jobs.len() + timeline.services.len() + timeline.idle.len();
        let changes = timeline.bounds.len() + timeline.broken.len() + timeline.evictions.len();
        assert!(waited > 20, "{waited}");
        assert_eq!(timeline.kept(), others + changes + waited);
        let mut fewer = timeline.clone();
        timeline.jobs.keys().for_each(|job| fewer.remove(*job));
        assert_eq!(fewer.kept(), timeline.kept() - timeline.jobs.len() - waited);
    }

    #[test]
    fn what_the_account_of_a_job_is_made_from_counts() {
        let trace = behind();
        let of = replayed(&trace, Keeps::Counts);
        let asked = |left| of.worst_within(&trace, "served", Room { left });
        let worst = asked(KEPT_MAX).expect("room for all").job;
        let first_that = |is_enough: &dyn Fn(usize) -> bool| {
            (0..KEPT_MAX).find(|left| is_enough(*left)).expect("as above")
        };
        let enough = first_that(&|left| asked(left).is_ok());
        assert!(enough > 2, "{enough}");
        assert_eq!(asked(enough).expect("just enough").job, worst);
        let asked = |left| of.account_within(&trace, worst, Room { left });
        let enough = first_that(&|left| asked(left).is_ok());
        assert!(enough > 2, "{enough}");
        assert!(matches!(asked(enough - 1), Err(crate::replay::AccountError::Again(_))));
    }

    #[test]
    fn what_another_policy_would_have_done_counts_beside_what_was_done() {
        let trace = behind();
        for keeps in [Keeps::Timelines, Keeps::Counts] {
            let of = replayed(&trace, keeps);
            let asked = |left| of.what_if_within(&trace, PolicyKind::Fifo, Room { left });
            let answer = asked(KEPT_MAX).expect("room for all");
            let recorded = replayed(&trace, Keeps::Timelines).executors[0].timeline.kept();
            // Of what is not kept yet, the recorded run gets a half.
            let other = answer[0].timeline.kept();
            let enough = match keeps {
                Keeps::Timelines => recorded + other,
                Keeps::Counts => (2 * recorded).max(recorded + other),
            };
            assert!(asked(enough).is_ok(), "{keeps:?}");
            let error = asked(enough - 1).expect_err("one less");
            let ReplayError::TooMuch { line, .. } = error else { panic!("{error:?}") };
            let last = trace.records.len() + 1;
            assert!(line > last * 9 / 10 && line <= last, "{keeps:?}: {line} of {last}");
        }
    }
}

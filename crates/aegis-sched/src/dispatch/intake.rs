//! Jobs on their way in: accepted with a release, held back until it, ready.
//!
//! Where a job waits depends on what it was promised. Guaranteed jobs wait for their release, then
//! in the policy's order. A job under a server waits for those before it and for the server's
//! budget, then in the policy's order too. Jobs in the background wait in a queue of their own, first
//! come, first served, whatever the policy.

use std::cmp::Reverse;

use aegis_context::JobOutcome;
use aegis_trace::{Assumption, Nanos, SubmitRefusal, Timestamp, TraceEvent};

use super::audit::BrokenAssumption;
use super::running::Held;
use super::{Dispatcher, lane_of};
use crate::queue::{Class, Ready, Submission};

/// What was visible when, for the submissions of one intake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intake {
    now: Timestamp,
    visible_since: Timestamp,
}

impl Intake {
    /// The same for what became visible at `since` at the earliest, where that is later.
    pub(super) fn seen_from(self, since: Timestamp) -> Self {
        Self { visible_since: self.visible_since.max(since), ..self }
    }
}

impl Dispatcher {
    /// Marks the point at which submissions are taken: whatever is accepted after this call became
    /// visible after the previous one.
    pub(super) fn begin_intake(&mut self, now: Timestamp) -> Intake {
        // What the last decision missed arrived after it, though the clock may say the same instant;
        // and a stage it launched began before.
        let tick = if self.running.is_some() { Nanos::EPSILON } else { Nanos::ZERO };
        let visible_since = self.last_intake.saturating_add(tick);
        self.last_intake = now;
        Intake { now, visible_since }
    }

    /// Takes one submission.
    pub(super) fn accept(&mut self, intake: Intake, submission: Submission) {
        let Submission { model, slot, stamp, release: claim } = submission;
        let Some(lane) = lane_of(&mut self.lanes, model) else {
            slot.finish(JobOutcome::Refused { why: SubmitRefusal::ModelEvicted });
            return;
        };
        if let Some(why) =
            self.stopping.then_some(SubmitRefusal::NotRunning).or(lane.gate.refusal())
        {
            self.recorder.record(intake.now, TraceEvent::SubmissionRefused { model, why });
            slot.finish(JobOutcome::Refused { why });
            return;
        }
        // A stamp from before the previous intake belongs to a thread that was held up between
        // stamping and handing over: to the scheduler the job arrived when it became visible.
        let release = lane.release(stamp, stamp.max(intake.visible_since), claim);
        lane.pending += 1;
        lane.metrics.count(|counts| counts.submitted += 1);
        let (job, class) = (release.job, lane.class());
        let assumed = lane.task().map_or(Nanos::ZERO, crate::task::Task::jitter);
        let postponed = lane.postponed();
        let (arrival, claimed) = (release.arrival, claim);
        if arrival != stamp || claimed.is_some() {
            let stamped = TraceEvent::Stamped { job: job.id, stamp, claimed };
            self.recorder.record(intake.now, stamped);
        }
        let event = TraceEvent::Submitted {
            job: job.id,
            arrival,
            release: job.release,
            deadline: (class == Class::Guaranteed).then_some(job.deadline),
        };
        self.recorder.record(intake.now, event);
        if release.excess_jitter > Nanos::ZERO {
            let observed = assumed.saturating_add(release.excess_jitter);
            let broken =
                BrokenAssumption::new(Assumption::ReleaseJitter, job.id, assumed, observed);
            self.report_broken(intake.now, broken);
        }
        // A job stamped after `now` was read is as visible as one stamped before it. What is recorded
        // of it has the time of the decision all the same, so that times do not go back.
        let seen = intake.now.max(stamp);
        let ready = Ready::new(job, class, slot, release.arrival);
        match class {
            Class::Background => self.background.push_back(ready),
            Class::Server => self.accept_for_server(intake.now, seen, ready),
            Class::Guaranteed if release.eligible <= seen => {
                self.make_ready(release.eligible, ready);
            }
            Class::Guaranteed => {
                self.held.push(Reverse(Held::new(ready, release.eligible, postponed)));
            }
        }
    }

    /// Makes every held job ready whose time has come.
    pub(super) fn release_due(&mut self, now: Timestamp) {
        while self.held.peek().is_some_and(|Reverse(held)| held.eligible() <= now) {
            let Reverse(held) = self.held.pop().expect("it was just peeked");
            let held = self.after_debts(now, held);
            if held.eligible() <= now {
                let job = held.job().id;
                self.recorder.record(now, TraceEvent::Released { job });
                self.make_ready(held.eligible(), held.into_ready());
            } else {
                self.held.push(Reverse(held));
            }
        }
    }

    /// Puts a job that may run since `eligible` into the policy's order.
    pub(super) fn make_ready(&mut self, eligible: Timestamp, ready: Ready) {
        if self.idle {
            let since = self.waiting_since.map_or(eligible, |at| at.min(eligible));
            self.waiting_since = Some(since);
        }
        self.ready.push(&*self.policy, ready);
    }
}

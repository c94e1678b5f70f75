//! What a decision point finds on the device: a stage that ended, one that hangs, or neither.

use std::sync::Arc;

use aegis_context::{JobOutcome, StageTimes, Whose};
use aegis_trace::{Category, DropReason, Timestamp, TraceEvent};

use super::audit::Interval;
use super::running::Running;
use super::{Dispatcher, Observed, StageEnd, lane_of};
use crate::dispatch::lane::LaneService;
use crate::queue::{Class, Ready};

impl Dispatcher {
    /// Books the end of the stage on the device, and of the one behind it if that has ended too. Gives
    /// back the job that goes on.
    pub(super) fn notice_end(&mut self, observed: Observed, now: Timestamp) -> Option<Ready> {
        let Observed { end, behind } = observed;
        let Some(end) = end else {
            self.watch(now);
            return None;
        };
        let resumed = self.book_end(end, now);
        match behind {
            Some(end) => self.book_end(end, now),
            None => resumed,
        }
    }

    fn book_end(&mut self, end: StageEnd, now: Timestamp) -> Option<Ready> {
        let running = self.running.take().expect("a stage that ended was on the device");
        self.promote(now);
        match end {
            Ok(times) => self.end_stage(now, running, times),
            Err(error) => {
                let (job, stage) = (running.ready.job.id, running.ready.stage);
                let category = error.category();
                self.recorder.record(now, TraceEvent::StageFailed { job, stage, category });
                self.audit_unfinished(now, &running);
                self.fail_device(now, &running, &error);
                None
            }
        }
    }

    /// Holds a stage without an end to its charge.
    fn audit_unfinished(&mut self, now: Timestamp, running: &Running) {
        let service = now.saturating_since(running.since);
        let job = running.ready.job.id;
        if let Some(broken) = self.audit.unfinished(job, running.charge, service) {
            self.report_broken(now, broken);
        }
    }

    /// Reports a stage that has held the device for far too long, once, and fences its model.
    fn watch(&mut self, now: Timestamp) {
        let Some(mut running) = self.running.take_if(|running| running.hangs_at(now)) else {
            return;
        };
        running.reported = true;
        self.audit_unfinished(now, &running);
        let (job, stage) = (running.ready.job.id, running.ready.stage);
        let elapsed = now.saturating_since(running.since);
        let slot = Arc::clone(&running.ready.slot);
        let category = Category::Permanent;
        let is_told = running.orphaned;
        self.recorder.record(now, TraceEvent::Hanging { job, stage, elapsed });
        self.running = Some(running);
        self.orphan_committed(job);
        if is_told {
            return; // With the failure of the stage before it, which fenced its model.
        }
        self.recorder.record(now, TraceEvent::Faulted { job, category });
        let reason: Arc<str> = format!("stage {stage} has held the device for {elapsed}").into();
        let lane = lane_of(&mut self.lanes, job.model).expect("a running model is installed");
        lane.metrics.count(|counts| counts.failed += 1);
        lane.gate.fence(); // Before the caller is told, who may submit again at once.
        slot.finish(JobOutcome::Failed { job, category, reason: Arc::clone(&reason) });
        // The job has ended for its caller; `pending` falls only when the device gives it back.
        self.fence(now, job.model, reason);
    }

    fn end_stage(&mut self, now: Timestamp, running: Running, times: StageTimes) -> Option<Ready> {
        let is_told = running.is_told();
        let Running { mut ready, busy, since, charge, .. } = running;
        drop(busy); // Before the caller is told: its outputs are its own then.
        let job = ready.job.id;
        let service = now.saturating_since(since);
        ready.consumed = ready.consumed.saturating_add(service);
        ready.charged = ready.charged.saturating_add(charge.total());
        let execution = times.finished.saturating_since(times.started);
        ready.execution = ready.execution.saturating_add(execution);
        let stage = ready.stage;
        let StageTimes { started, finished, upload, download, ahead, awaited } = times;
        let completed =
            TraceEvent::StageCompleted { job, stage, started, finished, upload, download, ahead };
        self.recorder.record(now, completed);
        let behind = awaited.and_then(|awaited| match awaited.whose {
            Whose::Own => Some(job),
            Whose::Left => self.left_by,
        });
        let interval = Interval { since, until: now, times, behind };
        if let Some(told) = interval.told(job, stage, charge) {
            self.recorder.record(now, told);
        }
        for broken in self.audit.stage(job, charge, interval) {
            self.report_broken(now, broken);
        }
        self.watch_evidence(now, job, stage, times);
        let lane = lane_of(&mut self.lanes, job.model).expect("a running model is installed");
        if is_told {
            // Its caller was told long ago, and its model is fenced.
            if self.continuation(job).is_none() {
                self.job_ended(now, job);
            }
            return None;
        }
        if let LaneService::Server(server) = &mut lane.service {
            server.spend(service);
        }
        lane.context.stage_done();
        ready.stage.0 += 1;
        self.after_stage(now, ready)
    }

    /// Ends a job, or gives it back if it goes on.
    fn after_stage(&mut self, now: Timestamp, ready: Ready) -> Option<Ready> {
        if let Some(next) = self.continuation(ready.job.id) {
            // It has the device already; whether it used too much is asked when this stage ends.
            next.ready.consumed = ready.consumed;
            next.ready.charged = ready.charged;
            next.ready.execution = ready.execution;
            return None;
        }
        let is_over = self.is_over(&ready);
        let lane = lane_of(&mut self.lanes, ready.job.id.model).expect("it was just running");
        let is_whole = usize::from(ready.stage.0) == lane.costs.len();
        let stopped = if is_over {
            Some(DropReason::Overrun)
        } else {
            let allowed = lane.context.account().allows_more(ready.consumed);
            (!allowed).then_some(DropReason::ComputeBudget)
        };
        if !is_whole && stopped.is_none() {
            return self.yield_or_resume(now, ready);
        }
        if is_over {
            self.incur_debt(now, ready.job.id, ready.excess());
        }
        match stopped {
            Some(why) if !is_whole => {
                let lane = lane_of(&mut self.lanes, ready.job.id.model).expect("as above");
                lane.context.account().settle(ready.consumed);
                self.end_dropped(now, &ready, why);
            }
            _ => self.end_completed(now, &ready),
        }
        None
    }

    /// Between two stages: back to where it waits if somebody goes first, or if its server has to
    /// refill before it goes on. A job that is never suspended goes on in any case: its tensors
    /// share addresses with those of the models that would run.
    fn yield_or_resume(&mut self, now: Timestamp, ready: Ready) -> Option<Ready> {
        self.release_due(now);
        let lane = lane_of(&mut self.lanes, ready.job.id.model).expect("jobs outlive no lane");
        if !lane.may_be_suspended {
            return Some(ready);
        }
        if !self.is_affordable(&ready) {
            self.serve(now, now, ready);
            return None;
        }
        // Whoever has the device already goes first in any case.
        if self.running.is_none() && !self.is_overtaken(&ready) {
            return Some(ready);
        }
        let (job, next_stage) = (ready.job.id, ready.stage);
        self.recorder.record(now, TraceEvent::Suspended { job, next_stage });
        match ready.class {
            Class::Background => self.background.push_front(ready),
            Class::Guaranteed | Class::Server => self.ready.push(&*self.policy, ready),
        }
        None
    }

    /// Whether what is left of its server's budget pays for the next stage, if it has a server.
    fn is_affordable(&mut self, ready: &Ready) -> bool {
        let overheads = self.config.overheads;
        let lane = lane_of(&mut self.lanes, ready.job.id.model).expect("jobs outlive no lane");
        let charge = lane.charge_ahead(ready.stage, &overheads);
        match &lane.service {
            LaneService::Server(server) => server.affords(charge),
            LaneService::Guaranteed { .. } | LaneService::Background => true,
        }
    }

    /// Whether somebody strictly more urgent waits; to a job in the background everybody else is.
    pub(super) fn is_overtaken(&self, ready: &Ready) -> bool {
        let Some((first, _)) = self.ready.first() else { return false };
        match ready.class {
            Class::Background => true,
            Class::Guaranteed | Class::Server => {
                self.policy.preempts() && first < self.policy.urgency(&ready.job)
            }
        }
    }
}

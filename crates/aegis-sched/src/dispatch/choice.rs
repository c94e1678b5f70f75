//! What goes on the device next: the policy's first, else a stage in the background.
//!
//! # Invariants
//! 1. What the policy put first is checked (open lane, no compute debt, not hopeless) before it is
//!    launched.
//! 2. A stage in the background starts only where a busy period has ended: the device is free and no
//!    other job is ready. So it delays others only by what is left of it when they arrive, as a
//!    stage of a task less urgent than all, and it never starts in a tainted busy period. To a job
//!    that is never suspended this applies as a whole: its later stages follow the first.

use aegis_context::{BusyStream, ContextState};
use aegis_trace::{DropReason, JobId, Reason, Timestamp, TraceEvent};

use super::audit::Charge;
use super::running::Running;
use super::{Dispatcher, lane_of};
use crate::queue::{Class, Ready};

impl Dispatcher {
    /// Launches `resumed`, or the first ready job that passes the checks, or one in the background.
    pub(super) fn choose_and_launch(&mut self, now: Timestamp, resumed: Option<Ready>) {
        match resumed {
            Some(ready) if ready.class == Class::Background => {
                self.settle_idle(now);
                self.launch(now, ready, Some(Reason::Continues));
            }
            Some(ready) => self.launch(now, ready, Some(Reason::Continues)),
            None => {}
        }
        while self.running.is_none() {
            let Some(ready) = self.next_ready(now) else { return };
            match self.objection(now, &ready) {
                Some(why) => self.end_dropped(now, &ready, why),
                None => self.launch(now, ready, None),
            }
        }
    }

    /// Takes the job that goes first.
    fn next_ready(&mut self, now: Timestamp) -> Option<Ready> {
        if let Some(ready) = self.ready.pop() {
            return Some(ready);
        }
        self.settle_idle(now);
        self.background.pop_front()
    }

    /// Why the chosen job must not run, if so.
    pub(super) fn objection(&mut self, now: Timestamp, ready: &Ready) -> Option<DropReason> {
        let lane = lane_of(&mut self.lanes, ready.job.id.model).expect("jobs outlive no lane");
        if lane.context.state() == ContextState::Faulted {
            return Some(DropReason::ModelFenced);
        }
        if ready.stage.0 > 0 {
            return None;
        }
        if !lane.context.account().admit_job() {
            return Some(DropReason::ComputeDebt);
        }
        self.is_hopeless(now, ready).then_some(DropReason::CannotFinish)
    }

    fn launch(&mut self, now: Timestamp, ready: Ready, why: Option<Reason>) {
        let job = ready.job;
        let lane = lane_of(&mut self.lanes, job.id.model).expect("jobs outlive no lane");
        let charge = lane.charge(ready.stage, &self.config.overheads);
        let launched = self
            .streams
            .lease()
            .and_then(|stream| lane.context.launch(ready.stage, &ready.slot, stream));
        let busy = match launched {
            Ok(busy) => busy,
            Err(error) => return self.fail_launch(now, &ready, &error),
        };
        self.end_idleness(now, job.id);
        let mut running = self.launched(now, ready, busy, charge, why);
        running.busy.gets_device();
        self.running = Some(running);
    }

    /// Records that a stage was put on the device.
    pub(super) fn launched(
        &mut self,
        now: Timestamp,
        ready: Ready,
        busy: BusyStream,
        charge: Charge,
        why: Option<Reason>,
    ) -> Running {
        let why = why.unwrap_or_else(|| self.reason(&ready));
        let waiting = self.ready.len() + self.background.len();
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let (job, stage, stream) = (ready.job.id, ready.stage, busy.id());
        self.recorder.record(now, TraceEvent::Dispatched { job, stage, stream, waiting, why });
        let hang_limit =
            charge.total().saturating_mul(self.config.hang_factor).max(self.config.hang_floor);
        let (reported, orphaned) = (false, false);
        Running { ready, busy, since: now, charge, hang_limit, reported, orphaned }
    }

    /// The comparison that put `ready` first.
    fn reason(&self, ready: &Ready) -> Reason {
        match (ready.class, self.ready.first()) {
            (Class::Background, _) => Reason::Background,
            (Class::Guaranteed | Class::Server, Some((_, next))) => {
                self.policy.reason(&ready.job, next)
            }
            (Class::Guaranteed | Class::Server, None) => Reason::OnlyReady,
        }
    }

    /// A busy period begins with `job`: how long has the first of the ready jobs been waiting?
    fn end_idleness(&mut self, now: Timestamp, job: JobId) {
        self.idle = false;
        let Some(since) = self.waiting_since.take() else { return };
        let waited = now.saturating_since(since);
        if let Some(broken) = self.audit.wake(job, self.config.overheads.wake, waited) {
            self.report_broken(now, broken);
        }
    }

    /// Ends the busy period if it is over, and lets go of the lanes that wait for that. Jobs in the
    /// background do not keep it from being over.
    pub(super) fn settle_idle(&mut self, now: Timestamp) {
        if self.running.is_some() || !self.ready.is_empty() {
            return;
        }
        self.waiting_since = None;
        if !self.idle {
            self.idle = true;
            self.recorder.record(now, TraceEvent::Idle);
            self.declare_restored(now);
        }
        while let Some(model) = self.leaving.pop() {
            if let Some(lane) = self.lanes[usize::from(model.index)].take() {
                self.departed.push_back(lane.context);
                self.recorder.record(now, TraceEvent::Evicted { model });
            }
        }
    }

    /// Says that every bound holds again, if an assumption was broken in the busy period that ended.
    fn declare_restored(&mut self, now: Timestamp) {
        let Some(since) = self.audit.idle() else { return };
        self.recorder.record(now, TraceEvent::GuaranteesRestored { since });
        if let Some(lane) = lane_of(&mut self.lanes, since.model) {
            lane.metrics.count(|counts| counts.restored += 1);
        }
    }
}

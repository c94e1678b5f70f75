//! How jobs end: completed, dropped or failed; and what a failure does to its model.

use std::cmp::Reverse;
use std::sync::Arc;

use aegis_context::context::error_line;
use aegis_context::{BackendError, ContextError, JobOutcome};
use aegis_cuda::{DeviceError, WorkFault};
use aegis_trace::{
    Category, DropReason, JobId, ModelId, Nanos, SubmitRefusal, Timestamp, TraceEvent,
};

use super::lane::LaneService;
use super::running::{Held, Running};
use super::{Dispatcher, lane_of};
use crate::metrics::Counts;
use crate::queue::{Class, Ready};

impl Dispatcher {
    pub(super) fn end_completed(&mut self, now: Timestamp, ready: &Ready) {
        let job = ready.job;
        // A job of best effort counts from its arrival and has nothing to be late for.
        let (release, late) = match ready.class {
            Class::Guaranteed => (job.release, now.saturating_since(job.deadline)),
            Class::Background | Class::Server => (ready.arrival, Nanos::ZERO),
        };
        let response = now.saturating_since(release);
        let execution = ready.execution;
        let lane = lane_of(&mut self.lanes, job.id.model).expect("a running model is installed");
        lane.context.account().settle(ready.consumed);
        lane.metrics.completed(response, execution);
        self.recorder.record(now, TraceEvent::Completed { job: job.id, response, execution });
        if late > Nanos::ZERO {
            lane.metrics.count(|counts| counts.missed += 1);
            self.recorder.record(now, TraceEvent::MissedDeadline { job: job.id, late });
        }
        let exceeded = match lane.service {
            LaneService::Guaranteed { bound, .. } => self.audit.response(job.id, bound, response),
            LaneService::Background | LaneService::Server(_) => None,
        };
        if let Some(event) = exceeded {
            let excused = matches!(event, TraceEvent::BoundExceeded { cause: Some(_), .. });
            lane.metrics.count(|counts| match excused {
                true => counts.bound_excused += 1,
                false => counts.bound_violated += 1,
            });
            self.recorder.record(now, event);
        }
        ready.slot.finish(JobOutcome::Completed {
            job: job.id,
            release,
            response,
            execution,
            late,
        });
        self.job_ended(now, job.id);
    }

    pub(super) fn end_dropped(&mut self, now: Timestamp, ready: &Ready, why: DropReason) {
        let job = ready.job.id;
        self.recorder.record(now, TraceEvent::Dropped { job, why });
        if let Some(lane) = lane_of(&mut self.lanes, job.model) {
            lane.metrics.count(|counts| count_dropped(counts, why));
        }
        ready.slot.finish(JobOutcome::Dropped { job, why });
        self.job_ended(now, job);
    }

    /// Books the end of a job: its server goes on with the next, and the last one of a closed lane
    /// lets it go.
    pub(super) fn job_ended(&mut self, now: Timestamp, job: JobId) {
        self.serve_next(now, job);
        let model = job.model;
        let lane = lane_of(&mut self.lanes, model).expect("jobs outlive no lane");
        lane.pending -= 1;
        let closed = lane.gate.refusal() == Some(SubmitRefusal::ModelEvicted);
        if closed && lane.pending == 0 && !self.leaving.contains(&model) {
            self.leaving.push(model);
        }
    }

    /// Begins to stop: jobs that have not begun are dropped, those that have run to their end.
    pub fn stop(&mut self, now: Timestamp) {
        self.stopping = true;
        self.recorder.record(now, TraceEvent::Stopping);
        self.drop_waiting(now, Ready::has_begun);
    }

    /// Drops every job that waits, begun or not: nothing will run any more. So it ends for its caller
    /// the job of a stage that waits on the device.
    pub fn drop_all(&mut self, now: Timestamp) {
        self.abandon_device(now);
        self.drop_waiting(now, |_| false);
    }

    /// Drops the jobs that wait anywhere, but for those that `stay`. May allocate: it is the end.
    fn drop_waiting(&mut self, now: Timestamp, stay: fn(&Ready) -> bool) {
        // First those behind a server's head, so that none of them takes its place.
        let mut waiting: Vec<Ready> = Vec::new();
        for lane in self.lanes.iter_mut().flatten() {
            if let LaneService::Server(server) = &mut lane.service {
                waiting.extend(std::iter::from_fn(|| server.take_waiting()));
            }
        }
        waiting.extend(std::iter::from_fn(|| self.ready.pop()));
        waiting.extend(self.background.drain(..));
        let (held, due): (Vec<_>, Vec<_>) =
            self.held.drain().map(|Reverse(held)| held).partition(|held| stay(held.ready()));
        self.held.extend(held.into_iter().map(Reverse));
        waiting.extend(due.into_iter().map(Held::into_ready));
        for ready in waiting {
            match ready.class {
                _ if !stay(&ready) => self.end_dropped(now, &ready, DropReason::Stopping),
                Class::Background => self.background.push_back(ready),
                Class::Guaranteed | Class::Server => self.ready.push(&*self.policy, ready),
            }
        }
    }

    pub(super) fn fail_launch(&mut self, now: Timestamp, ready: &Ready, error: &ContextError) {
        self.tell_unlaunched(now, ready, error);
        self.job_ended(now, ready.job.id);
    }

    /// Ends a job for its caller whose next stage could not be put on the device.
    pub(super) fn tell_unlaunched(&mut self, now: Timestamp, ready: &Ready, error: &ContextError) {
        // A runtime that enqueues its work itself asks for memory here, and not on the device.
        if let ContextError::Backend(BackendError::OutOfScratch { requested, available }) = error {
            let (model, requested, available) = (ready.job.id.model, *requested, *available);
            let event = TraceEvent::AllocationRefused { model, requested, available };
            self.recorder.record(now, event);
        }
        let (job, stage, category) = (ready.job.id, ready.stage, error.category());
        self.recorder.record(now, TraceEvent::LaunchFailed { job, stage, category });
        self.tell_failed(now, ready, category, error_line(error));
    }

    pub(super) fn fail_device(&mut self, now: Timestamp, running: &Running, error: &DeviceError) {
        if let DeviceError::Work { cause: WorkFault { refused: Some(refused), .. }, .. } = error {
            let (model, requested) = (running.ready.job.id.model, refused.requested);
            let available = refused.available;
            let event = TraceEvent::AllocationRefused { model, requested, available };
            self.recorder.record(now, event);
        }
        if !running.is_told() {
            self.tell_failed(now, &running.ready, error.category(), error_line(error));
        }
        match self.continuation(running.ready.job.id) {
            Some(next) => next.orphaned = true,
            None => self.job_ended(now, running.ready.job.id),
        }
    }

    /// Ends a job with a fault for its caller and fences its model; a fatal fault ends everything. The
    /// job's end is booked when nothing of it is on the device any more.
    pub(super) fn tell_failed(
        &mut self,
        now: Timestamp,
        ready: &Ready,
        category: Category,
        reason: Arc<str>,
    ) {
        let job = ready.job.id;
        self.recorder.record(now, TraceEvent::Faulted { job, category });
        let lane = lane_of(&mut self.lanes, job.model).expect("jobs outlive no lane");
        lane.metrics.count(|counts| counts.failed += 1);
        // Closed before the caller is told, who may submit again at once.
        lane.gate.fence();
        ready.slot.finish(JobOutcome::Failed { job, category, reason: Arc::clone(&reason) });
        if category == Category::Fatal {
            self.fatal = Some(Arc::clone(&reason));
        }
        self.fence(now, job.model, reason);
    }

    /// Fences a model: its queued jobs are dropped, nothing more of it is launched.
    pub(super) fn fence(&mut self, now: Timestamp, model: ModelId, reason: Arc<str>) {
        let lane = lane_of(&mut self.lanes, model).expect("only an installed model is fenced");
        lane.gate.fence();
        lane.context.fault(reason);
        self.recorder.record(now, TraceEvent::Fenced { model });
        let mut dropped = Vec::new(); // A fault is the one event that may allocate.
        if let LaneService::Server(server) = &mut lane.service {
            dropped.extend(std::iter::from_fn(|| server.take_waiting()));
        }
        self.ready.remove_all(model, |ready| dropped.push(ready.clone()));
        self.held.retain(|Reverse(held)| {
            let stays = held.model() != model;
            if !stays {
                dropped.push(held.ready().clone());
            }
            stays
        });
        self.background.retain(|ready| {
            let stays = ready.job.id.model != model;
            if !stays {
                dropped.push(ready.clone());
            }
            stays
        });
        for ready in dropped {
            self.end_dropped(now, &ready, DropReason::ModelFenced);
        }
    }
}

/// Counts a job that was given up.
fn count_dropped(counts: &mut Counts, why: DropReason) {
    match why {
        DropReason::Stopping => return counts.stopped += 1,
        DropReason::CannotFinish => counts.skipped += 1,
        DropReason::Overrun => counts.cut_short += 1,
        _ => {}
    }
    counts.dropped += 1;
}

//! How jobs end: completed, dropped or failed; and what a failure does to its model.

use std::cmp::Reverse;
use std::sync::Arc;

use aegis_context::context::error_line;
use aegis_context::{ContextError, JobOutcome};
use aegis_cuda::{DeviceError, WorkFault};
use aegis_trace::{Category, DropReason, ModelId, Nanos, SubmitRefusal, Timestamp, TraceEvent};

use super::running::Running;
use super::{Dispatcher, lane_of};
use crate::queue::Ready;

impl Dispatcher {
    pub(super) fn end_completed(&mut self, now: Timestamp, ready: &Ready) {
        let job = ready.job;
        let response = now.saturating_since(job.release);
        let late = now.saturating_since(job.deadline);
        let execution = ready.execution;
        let lane = lane_of(&mut self.lanes, job.id.model).expect("a running model is installed");
        lane.context.account().settle(ready.consumed);
        lane.metrics.completed(response, execution);
        self.recorder.record(now, TraceEvent::Completed { job: job.id, response, execution });
        if late > Nanos::ZERO {
            lane.metrics.count(|counts| counts.missed += 1);
            self.recorder.record(now, TraceEvent::MissedDeadline { job: job.id, late });
        }
        if let Some(event) = self.audit.response(job.id, lane.bound, response) {
            let excused = matches!(event, TraceEvent::BoundExceeded { cause: Some(_), .. });
            lane.metrics.count(|counts| match excused {
                true => counts.bound_excused += 1,
                false => counts.bound_violated += 1,
            });
            self.recorder.record(now, event);
        }
        let release = job.release;
        ready.slot.finish(JobOutcome::Completed {
            job: job.id,
            release,
            response,
            execution,
            late,
        });
        self.job_ended(job.id.model);
    }

    pub(super) fn end_dropped(&mut self, now: Timestamp, ready: &Ready, why: DropReason) {
        let job = ready.job.id;
        self.recorder.record(now, TraceEvent::Dropped { job, why });
        if let Some(lane) = lane_of(&mut self.lanes, job.model) {
            lane.metrics.count(|counts| match why {
                DropReason::Stopping => counts.stopped += 1,
                _ => counts.dropped += 1,
            });
        }
        ready.slot.finish(JobOutcome::Dropped { job, why });
        self.job_ended(job.model);
    }

    /// Books the end of a job; the last one of a closed lane lets it go.
    pub(super) fn job_ended(&mut self, model: ModelId) {
        let lane = lane_of(&mut self.lanes, model).expect("jobs outlive no lane");
        lane.pending -= 1;
        let closed = lane.gate.refusal() == Some(SubmitRefusal::ModelEvicted);
        if closed && lane.pending == 0 && !self.leaving.contains(&model) {
            self.leaving.push(model);
        }
    }

    pub(super) fn fail_launch(&mut self, now: Timestamp, ready: &Ready, error: &ContextError) {
        self.fail(now, ready, error.category(), error_line(error));
    }

    pub(super) fn fail_device(&mut self, now: Timestamp, running: &Running, error: &DeviceError) {
        if let DeviceError::Work { cause: WorkFault { refused: Some(refused), .. }, .. } = error {
            let (model, requested) = (running.ready.job.id.model, refused.requested);
            let available = refused.available;
            let event = TraceEvent::AllocationRefused { model, requested, available };
            self.recorder.record(now, event);
        }
        if running.reported {
            self.job_ended(running.ready.job.id.model);
        } else {
            self.fail(now, &running.ready, error.category(), error_line(error));
        }
    }

    /// Ends a job with a fault and fences its model; a fatal fault ends everything.
    fn fail(&mut self, now: Timestamp, ready: &Ready, category: Category, reason: Arc<str>) {
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
        self.job_ended(job.model);
    }

    /// Fences a model: its queued jobs are dropped, nothing more of it is launched.
    pub(super) fn fence(&mut self, now: Timestamp, model: ModelId, reason: Arc<str>) {
        let lane = lane_of(&mut self.lanes, model).expect("only an installed model is fenced");
        lane.gate.fence();
        lane.context.fault(reason);
        self.recorder.record(now, TraceEvent::Fenced { model });
        let mut dropped = Vec::new(); // A fault is the one event that may allocate.
        self.ready.remove_all(model, |ready| dropped.push(ready.clone()));
        self.held.retain(|Reverse(held)| {
            let stays = held.model() != model;
            if !stays {
                dropped.push(held.clone().into_ready());
            }
            stays
        });
        for ready in dropped {
            self.end_dropped(now, &ready, DropReason::ModelFenced);
        }
    }
}

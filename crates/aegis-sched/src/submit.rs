//! The submitting side of a model: slots, inputs, and the way back to the caller.

use std::sync::{Arc, Mutex, PoisonError};

use aegis_context::slot::JobSlot;
use aegis_context::{JobOutcome, ModelDescription, SlotPool};
use aegis_trace::{Clock, ModelId, Recorder, SubmitRefusal, Timestamp, TraceEvent};

use crate::dispatch::LaneGate;
use crate::queue::{Submission, SubmissionQueue};

/// Submits jobs of one model from any thread.
pub struct Submitter {
    model: ModelId,
    description: Arc<ModelDescription>,
    slots: SlotPool,
    gate: LaneGate,
    queue: Arc<SubmissionQueue>,
    clock: Arc<dyn Clock>,
    /// A ring has one writer at a time; refusals are rare, so the lock is almost never contended.
    recorder: Mutex<Recorder>,
}

impl std::fmt::Debug for Submitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submitter").field("model", &self.model).finish_non_exhaustive()
    }
}

/// What a submitter is made of.
pub struct SubmitterParts {
    /// The model.
    pub model: ModelId,
    /// Its inputs and outputs.
    pub description: Arc<ModelDescription>,
    /// Its job slots.
    pub slots: SlotPool,
    /// Whether it takes jobs.
    pub gate: LaneGate,
    /// The way to the orchestrator.
    pub queue: Arc<SubmissionQueue>,
    /// The clock that stamps submissions.
    pub clock: Arc<dyn Clock>,
    /// Where refusals are recorded.
    pub recorder: Recorder,
}

impl Submitter {
    /// The submitting side of an admitted model.
    #[must_use]
    pub fn new(parts: SubmitterParts) -> Self {
        let SubmitterParts { model, description, slots, gate, queue, clock, recorder } = parts;
        Self { model, description, slots, gate, queue, clock, recorder: Mutex::new(recorder) }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> ModelId {
        self.model
    }

    /// Its inputs and outputs.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        &self.description
    }

    /// Claims a slot to fill. Never blocks.
    ///
    /// # Errors
    /// [`SubmitRefusal`]: the model is fenced or evicted (Permanent), or all its slots are taken
    /// (Transient).
    pub fn claim(&self) -> Result<Filling<'_>, SubmitRefusal> {
        let filling = self.slots.claim().map(|slot| Filling { submitter: self, slot: Some(slot) });
        // Asked once there is a slot: it may be that of the job whose failure closed the gate.
        match self.gate.refusal() {
            Some(why) => Err(self.refuse(why)),
            None => filling.ok_or_else(|| self.refuse(SubmitRefusal::NoSlot)),
        }
    }

    fn refuse(&self, why: SubmitRefusal) -> SubmitRefusal {
        let event = TraceEvent::SubmissionRefused { model: self.model, why };
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        recorder.record(self.clock.now(), event);
        why
    }
}

/// A claimed slot; dropping it gives it back.
#[derive(Debug)]
#[must_use = "a claimed slot that is not submitted is given back"]
pub struct Filling<'a> {
    submitter: &'a Submitter,
    /// Taken out only by `submit`.
    slot: Option<Arc<JobSlot>>,
}

impl Filling<'_> {
    /// Writes `bytes` as input `index`.
    ///
    /// # Panics
    /// When there is no such input or the length is wrong; the facade checks both and reports
    /// them as errors.
    pub fn write(&mut self, index: usize, bytes: &[u8]) {
        let slot = self.slot.as_ref().expect("the slot is here until it is submitted");
        slot.write_input(index, bytes);
    }

    /// Hands the job over. `release` is the nominal release it claims; `None` for now. Never
    /// blocks and never allocates.
    ///
    /// # Errors
    /// [`SubmitRefusal::QueueFull`], Transient; the slot is free again.
    pub fn submit(mut self, release: Option<Timestamp>) -> Result<Pending, SubmitRefusal> {
        let slot = self.slot.take().expect("the slot is here until it is submitted");
        slot.queue();
        let stamp = self.submitter.clock.now();
        let model = self.submitter.model;
        let submission = Submission { model, slot: Arc::clone(&slot), stamp, release };
        if self.submitter.queue.push(submission).is_err() {
            slot.unqueue();
            slot.release();
            return Err(self.submitter.refuse(SubmitRefusal::QueueFull));
        }
        Ok(Pending { slot })
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            slot.release();
        }
    }
}

/// A job under way or ended. Dropping it gives its slot back, and lets a job under way run on
/// unseen.
#[derive(Debug)]
#[must_use = "dropping a pending job discards its outputs"]
pub struct Pending {
    slot: Arc<JobSlot>,
}

impl Pending {
    /// Blocks until the job has ended.
    #[must_use]
    pub fn wait(&self) -> JobOutcome {
        self.slot.wait()
    }

    /// The outcome, if the job has ended. Never blocks.
    #[must_use]
    pub fn outcome(&self) -> Option<JobOutcome> {
        self.slot.outcome()
    }

    /// Shows output `index` to `look`: what the job computed, if it completed. `None` before the job
    /// has ended, and after its end for as long as the device may still write: a job also ends for its
    /// caller when one of its stages hangs.
    ///
    /// # Panics
    /// When there is no such output.
    pub fn output<T>(&self, index: usize, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.slot.read_output(index, look)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.slot.release();
    }
}

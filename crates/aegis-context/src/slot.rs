//! Job slots: the host memory a job's inputs and outputs live in, and its way back to the caller.
//!
//! Each model has a fixed number of slots, made at admission; a slot carries one job at a time:
//!
//! ```text
//!   Free --claim--> Filling --queue--> Queued --finish--> Done --release--> Free
//!                      |                  |                 |
//!                      +--release--> Free |                 +--release--> Leaving, where a stage
//!                                         |                      uses the buffers: Free after it
//!                                         +--release--> abandoned: as if released on its end
//! ```
//! That the outcome is known does not mean that the buffers are free: a caller is told of a stage
//! that hangs while the device still copies for it. So every stage on the device holds a `SlotUse`,
//! and while there is one the buffers stay where they are, whatever the phase says.
//!
//! # Invariants
//! 1. The buffers are the claiming caller's in Filling, and in Done once no stage uses them. They are
//!    the orchestration side's in Queued, and as long as a stage uses them. Nobody gets a reference
//!    to their bytes out of turn: this is asked under the lock of the buffers, which `queue` takes too.
//! 2. A slot goes to its next job, and its memory back to the system, only when no stage uses it.
//! 3. The buffers are allocated once and never grow, move or change places.
//! 4. Every queued slot is finished exactly once, with an outcome.

use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use aegis_cuda::{DeviceArena, DeviceError, HostBuffer};
use aegis_trace::{Category, DropReason, JobId, Nanos, SubmitRefusal, Timestamp};

use crate::description::{ModelDescription, TensorSpec};

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobOutcome {
    /// The outputs are in the slot.
    Completed {
        /// Which job.
        job: JobId,
        /// The point its response counts from.
        release: Timestamp,
        /// From release to detected completion.
        response: Nanos,
        /// Device time of all stages.
        execution: Nanos,
        /// How long after its deadline; zero when in time.
        late: Nanos,
    },
    /// The job was given up.
    Dropped {
        /// Which job.
        job: JobId,
        /// Why.
        why: DropReason,
    },
    /// The submission reached the orchestrator and was turned away there.
    Refused {
        /// Why.
        why: SubmitRefusal,
    },
    /// The model failed.
    Failed {
        /// Which job.
        job: JobId,
        /// What the caller can do.
        category: Category,
        /// What the runtime said.
        reason: Arc<str>,
    },
}

/// The host buffers of one job, in the order of the model's description.
#[derive(Debug)]
pub struct JobIo {
    // Private: a graph is aimed at the buffers, so none may be taken out and dropped.
    inputs: Vec<HostBuffer>,
    outputs: Vec<HostBuffer>,
}

impl JobIo {
    /// One buffer per input.
    #[must_use]
    pub fn inputs(&self) -> &[HostBuffer] {
        &self.inputs
    }

    /// One buffer per output.
    #[must_use]
    pub fn outputs(&self) -> &[HostBuffer] {
        &self.outputs
    }

    /// The bytes of output `index`, for a runtime that writes them by the processor.
    ///
    /// # Panics
    /// When there is no such output.
    pub fn output_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.outputs[index]
    }

    /// The bytes of each output with those of the input of the same index, as far as there are both.
    pub(crate) fn pairs(&mut self) -> impl Iterator<Item = (&mut [u8], &[u8])> {
        self.outputs.iter_mut().zip(&self.inputs).map(|(output, input)| (&mut **output, &**input))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Free,
    Filling,
    Queued {
        abandoned: bool,
    },
    Done(JobOutcome),
    /// Given back while a stage uses the buffers.
    Leaving,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Stages on the device that may use the buffers.
    uses: u32,
}

impl State {
    /// What a slot is that nobody waits for any more.
    fn given_back(&self) -> Phase {
        if self.uses == 0 { Phase::Free } else { Phase::Leaving }
    }
}

/// One slot. Shared between the caller and the orchestration side.
#[derive(Debug)]
pub struct JobSlot {
    state: Mutex<State>,
    done: Condvar,
    /// Locked before `state` where both are.
    io: Mutex<JobIo>,
}

impl JobSlot {
    /// A free slot with zeroed buffers that fit `description`, in ordinary memory.
    #[must_use]
    pub fn new(description: &ModelDescription) -> Self {
        let plain = |length| Ok::<_, Infallible>(HostBuffer::plain(length));
        match Self::with(description, plain) {
            Ok(slot) => slot,
            Err(never) => match never {},
        }
    }

    /// A free slot with zeroed buffers that fit `description`, in memory that the device of `arena`
    /// copies from and to by itself, where it has such.
    ///
    /// # Errors
    /// [`DeviceError`] when the device has no more of it.
    pub fn on(arena: &DeviceArena, description: &ModelDescription) -> Result<Self, DeviceError> {
        Self::with(description, |length| arena.host_buffer(length))
    }

    fn with<E>(
        description: &ModelDescription,
        zeroed: impl Fn(usize) -> Result<HostBuffer, E>,
    ) -> Result<Self, E> {
        let buffers = |specs: &[TensorSpec]| -> Result<Vec<HostBuffer>, E> {
            specs.iter().map(|spec| zeroed(spec.bytes())).collect()
        };
        let io = JobIo {
            inputs: buffers(&description.inputs)?,
            outputs: buffers(&description.outputs)?,
        };
        let state = State { phase: Phase::Free, uses: 0 };
        Ok(Self { state: Mutex::new(state), done: Condvar::new(), io: Mutex::new(io) })
    }

    /// Takes the slot for filling; `false` when it is taken already.
    #[must_use]
    pub fn claim(&self) -> bool {
        let mut state = self.state();
        let free = state.phase == Phase::Free;
        if free {
            state.phase = Phase::Filling;
        }
        free
    }

    /// Writes `bytes` as input `index` of a claimed slot.
    ///
    /// # Panics
    /// When the slot is not claimed, or is queued already; when there is no such input or the length
    /// is wrong.
    pub fn write_input(&self, index: usize, bytes: &[u8]) {
        let mut io = self.lock_io();
        assert_eq!(self.state().phase, Phase::Filling, "only a claimed slot can be filled");
        io.inputs[index].copy_from_slice(bytes);
    }

    /// Hands the filled slot to the orchestration side.
    ///
    /// # Panics
    /// When the slot was not claimed.
    pub fn queue(&self) {
        // Whoever still fills it has the lock, and is waited for.
        let _io = self.lock_io();
        let mut state = self.state();
        assert_eq!(state.phase, Phase::Filling, "only a claimed slot can be queued");
        state.phase = Phase::Queued { abandoned: false };
    }

    /// Takes back a queued slot that no queue accepted, or whose job ran outside any queue.
    ///
    /// # Panics
    /// When the slot is not queued, or a stage uses it.
    pub fn unqueue(&self) {
        let mut state = self.state();
        let is_queued = matches!(state.phase, Phase::Queued { .. });
        assert!(
            is_queued && state.uses == 0,
            "only a slot that waits in a queue can be taken back"
        );
        state.phase = Phase::Filling;
    }

    /// Ends the job and wakes whoever waits for it. Where a stage still uses the buffers, they go
    /// back to the caller after it.
    ///
    /// # Panics
    /// When the slot is not queued: a job ends once.
    pub fn finish(&self, outcome: JobOutcome) {
        let mut state = self.state();
        state.phase = match state.phase {
            Phase::Queued { abandoned: false } => Phase::Done(outcome),
            Phase::Queued { abandoned: true } => state.given_back(),
            ref other => panic!("a job ended twice: its slot was {other:?}"),
        };
        drop(state);
        self.done.notify_all();
    }

    /// Blocks until the job has ended.
    ///
    /// # Panics
    /// When no job is under way: the wait would never end.
    #[must_use]
    pub fn wait(&self) -> JobOutcome {
        let mut state = self.state();
        loop {
            match &state.phase {
                Phase::Done(outcome) => return outcome.clone(),
                Phase::Queued { .. } => {}
                other => panic!("nothing to wait for: the slot is {other:?}"),
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The outcome, if the job has ended. Never blocks.
    #[must_use]
    pub fn outcome(&self) -> Option<JobOutcome> {
        match &self.state().phase {
            Phase::Done(outcome) => Some(outcome.clone()),
            Phase::Free | Phase::Filling | Phase::Queued { .. } | Phase::Leaving => None,
        }
    }

    /// Shows output `index` of a job that has ended to `look`; `None` while the buffers are not the
    /// caller's: before the job's end, and after it for as long as one of its stages is on the device.
    /// What the bytes are is meaningful for a job that completed.
    ///
    /// # Panics
    /// When there is no such output.
    pub fn read_output<T>(&self, index: usize, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        // Held while `look` runs: until then the slot cannot be queued again.
        let io = self.lock_io();
        let state = self.state();
        let is_callers = matches!(state.phase, Phase::Done(_)) && state.uses == 0;
        drop(state);
        is_callers.then(|| look(&io.outputs[index]))
    }

    /// Gives the slot back. A job still under way runs on and its outcome is discarded; buffers that a
    /// stage uses are free after it.
    pub fn release(&self) {
        let mut state = self.state();
        state.phase = match state.phase {
            Phase::Queued { .. } => Phase::Queued { abandoned: true },
            Phase::Free | Phase::Filling | Phase::Done(_) | Phase::Leaving => state.given_back(),
        };
    }

    /// The buffers, for the backend whose stage reads and writes them.
    ///
    /// # Panics
    /// When they are not the orchestration side's; see invariant 1.
    pub fn io(&self) -> MutexGuard<'_, JobIo> {
        let io = self.lock_io();
        let state = self.state();
        let is_ours = state.uses > 0 || matches!(state.phase, Phase::Queued { .. });
        assert!(is_ours, "the buffers are not a stage's: the slot is {:?}", state.phase);
        drop(state);
        io
    }

    /// Notes that a stage is about to use the buffers, until the result is dropped. One that is never
    /// dropped keeps the slot and its memory for ever.
    ///
    /// # Panics
    /// When the slot is not queued: nobody else's buffers are given to a device.
    pub(crate) fn put_to_use(self: &Arc<Self>) -> SlotUse {
        let mut state = self.state();
        let is_queued = matches!(state.phase, Phase::Queued { .. });
        assert!(is_queued, "only the job of a queued slot is launched: it is {:?}", state.phase);
        state.uses += 1;
        SlotUse { slot: Arc::clone(self) }
    }

    fn lock_io(&self) -> MutexGuard<'_, JobIo> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stage on the device that may use a slot's buffers.
#[derive(Debug)]
pub(crate) struct SlotUse {
    slot: Arc<JobSlot>,
}

impl Drop for SlotUse {
    fn drop(&mut self) {
        let mut state = self.slot.state();
        state.uses -= 1;
        if state.phase == Phase::Leaving {
            state.phase = state.given_back();
        }
    }
}

/// All slots of one model.
#[derive(Clone, Debug)]
pub struct SlotPool {
    slots: Arc<[Arc<JobSlot>]>,
}

impl SlotPool {
    /// `count` free slots for a model of this `description`, on the device of `arena`.
    ///
    /// # Errors
    /// As [`JobSlot::on`].
    pub fn on(
        arena: &DeviceArena,
        description: &ModelDescription,
        count: usize,
    ) -> Result<Self, DeviceError> {
        let slot = |_| JobSlot::on(arena, description).map(Arc::new);
        Ok(Self { slots: (0..count).map(slot).collect::<Result<_, _>>()? })
    }

    /// `count` free slots for a model of this `description`, in ordinary memory.
    #[must_use]
    pub fn new(description: &ModelDescription, count: usize) -> Self {
        Self { slots: (0..count).map(|_| Arc::new(JobSlot::new(description))).collect() }
    }

    /// Claims a free slot, lowest index first; `None` when all are taken. O(count).
    #[must_use]
    pub fn claim(&self) -> Option<Arc<JobSlot>> {
        self.slots.iter().find(|slot| slot.claim()).cloned()
    }

    /// How many slots there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::description::DType;
    use aegis_trace::ModelId;

    fn pool(count: usize) -> SlotPool {
        let spec = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![2] };
        let description =
            ModelDescription { inputs: vec![spec.clone()], outputs: vec![spec], stages: 1 };
        SlotPool::new(&description, count)
    }

    fn dropped() -> JobOutcome {
        let job = JobId { model: ModelId::first(0), sequence: 0 };
        JobOutcome::Dropped { job, why: DropReason::Stopping }
    }

    #[test]
    fn a_slot_carries_one_job_at_a_time() {
        let pool = pool(1);
        let slot = pool.claim().expect("free");
        assert!(pool.claim().is_none());
        slot.queue();
        slot.finish(dropped());
        assert_eq!(slot.wait(), dropped());
        assert!(pool.claim().is_none(), "the outcome is not collected yet");
        slot.release();
        assert!(pool.claim().is_some());
    }

    #[test]
    fn an_abandoned_job_frees_its_slot_when_it_ends() {
        let pool = pool(1);
        let slot = pool.claim().expect("free");
        slot.queue();
        slot.release();
        assert!(pool.claim().is_none());
        slot.finish(dropped());
        assert!(pool.claim().is_some());
    }

    #[test]
    fn waiting_ends_when_the_job_does() {
        let pool = pool(1);
        let slot = pool.claim().expect("free");
        slot.queue();
        let waiter = Arc::clone(&slot);
        let waiting = std::thread::spawn(move || waiter.wait());
        slot.finish(dropped());
        assert_eq!(waiting.join().expect("no panic"), dropped());
    }

    #[test]
    fn a_slot_whose_caller_was_told_is_free_only_when_no_stage_uses_it() {
        let pool = pool(1);
        let slot = pool.claim().expect("free");
        slot.write_input(0, &[1; 8]);
        slot.queue();
        let [running, behind] = [slot.put_to_use(), slot.put_to_use()];
        slot.finish(dropped());
        assert_eq!(slot.wait(), dropped());
        assert!(slot.read_output(0, <[u8]>::to_vec).is_none(), "the device may write it");
        slot.release();
        drop(running);
        assert!(pool.claim().is_none(), "one stage is left");
        drop(behind);
        assert!(pool.claim().is_some());
    }

    #[test]
    fn an_abandoned_job_that_is_told_of_a_hang_keeps_its_slot_as_well() {
        let pool = pool(1);
        let slot = pool.claim().expect("free");
        slot.queue();
        let hanging = slot.put_to_use();
        slot.release();
        slot.finish(dropped());
        assert!(pool.claim().is_none());
        drop(hanging);
        assert!(pool.claim().is_some());
    }

    #[test]
    fn outputs_are_shown_from_the_end_of_the_job_until_its_release() {
        let slot = pool(1).claim().expect("free");
        assert!(slot.read_output(0, <[u8]>::len).is_none());
        slot.queue();
        slot.io().output_mut(0).fill(7);
        assert!(slot.read_output(0, <[u8]>::len).is_none());
        slot.finish(dropped());
        assert_eq!(slot.read_output(0, <[u8]>::to_vec), Some(vec![7; 8]));
        slot.release();
        assert!(slot.read_output(0, <[u8]>::len).is_none());
    }

    #[test]
    #[should_panic(expected = "only a claimed slot can be filled")]
    fn a_queued_slot_is_not_filled() {
        let slot = pool(1).claim().expect("free");
        slot.queue();
        slot.write_input(0, &[0; 8]);
    }

    #[test]
    #[should_panic(expected = "the buffers are not a stage's")]
    fn the_buffers_of_an_ended_job_are_no_backends() {
        let slot = pool(1).claim().expect("free");
        slot.queue();
        slot.finish(dropped());
        drop(slot.io());
    }

    #[test]
    #[should_panic(expected = "a job ended twice")]
    fn a_job_ends_once() {
        let slot = pool(1).claim().expect("free");
        slot.queue();
        slot.finish(dropped());
        slot.finish(dropped());
    }
}

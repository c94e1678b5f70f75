//! Job slots: the host memory a job's inputs and outputs live in, and its way back to the caller.
//!
//! Each model has a fixed number of slots, made at admission; a slot carries one job at a time:
//!
//! ```text
//!   Free --claim--> Filling --queue--> Queued --finish--> Done --release--> Free
//!                      |                  |
//!                      +--release--> Free +--release--> abandoned: Free as soon as it finishes
//! ```
//!
//! # Invariants
//! 1. Between `claim` and `queue` only the claiming caller touches a slot; between `queue` and
//!    `finish` only the orchestration side does; after `finish` the caller again. The locks inside
//!    are therefore never contended for longer than one copy.
//! 2. A slot's buffers are allocated once and never grow.
//! 3. Every queued slot is finished exactly once, with an outcome.

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
    /// One buffer per input.
    pub inputs: Vec<HostBuffer>,
    /// One buffer per output.
    pub outputs: Vec<HostBuffer>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Free,
    Filling,
    Queued { abandoned: bool },
    Done(JobOutcome),
}

/// One slot. Shared between the caller and the orchestration side.
#[derive(Debug)]
pub struct JobSlot {
    phase: Mutex<Phase>,
    done: Condvar,
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
        Ok(Self { phase: Mutex::new(Phase::Free), done: Condvar::new(), io: Mutex::new(io) })
    }

    /// Takes the slot for filling; `false` when it is taken already.
    #[must_use]
    pub fn claim(&self) -> bool {
        let mut phase = self.phase();
        let free = *phase == Phase::Free;
        if free {
            *phase = Phase::Filling;
        }
        free
    }

    /// Hands the filled slot to the orchestration side.
    ///
    /// # Panics
    /// When the slot was not claimed.
    pub fn queue(&self) {
        let mut phase = self.phase();
        assert_eq!(*phase, Phase::Filling, "only a claimed slot can be queued");
        *phase = Phase::Queued { abandoned: false };
    }

    /// Takes back a queued slot that no queue accepted, so that it can be released.
    ///
    /// # Panics
    /// When the slot is not queued.
    pub fn unqueue(&self) {
        let mut phase = self.phase();
        assert!(matches!(*phase, Phase::Queued { .. }), "only a queued slot can be taken back");
        *phase = Phase::Filling;
    }

    /// Ends the job and wakes whoever waits for it.
    ///
    /// # Panics
    /// When the slot is not queued: a job ends once.
    pub fn finish(&self, outcome: JobOutcome) {
        let mut phase = self.phase();
        *phase = match *phase {
            Phase::Queued { abandoned: false } => Phase::Done(outcome),
            Phase::Queued { abandoned: true } => Phase::Free,
            ref other => panic!("a job ended twice: its slot was {other:?}"),
        };
        drop(phase);
        self.done.notify_all();
    }

    /// Blocks until the job has ended.
    ///
    /// # Panics
    /// When no job is under way: the wait would never end.
    #[must_use]
    pub fn wait(&self) -> JobOutcome {
        let mut phase = self.phase();
        loop {
            match &*phase {
                Phase::Done(outcome) => return outcome.clone(),
                Phase::Queued { .. } => {}
                other => panic!("nothing to wait for: the slot is {other:?}"),
            }
            phase = self.done.wait(phase).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The outcome, if the job has ended. Never blocks.
    #[must_use]
    pub fn outcome(&self) -> Option<JobOutcome> {
        match &*self.phase() {
            Phase::Done(outcome) => Some(outcome.clone()),
            Phase::Free | Phase::Filling | Phase::Queued { .. } => None,
        }
    }

    /// Gives the slot back. A job still under way runs on and its outcome is discarded.
    pub fn release(&self) {
        let mut phase = self.phase();
        *phase = match *phase {
            Phase::Queued { .. } => Phase::Queued { abandoned: true },
            Phase::Free | Phase::Filling | Phase::Done(_) => Phase::Free,
        };
    }

    /// The buffers; see invariant 1 for whose turn it is.
    pub fn io(&self) -> MutexGuard<'_, JobIo> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
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
    #[should_panic(expected = "a job ended twice")]
    fn a_job_ends_once() {
        let slot = pool(1).claim().expect("free");
        slot.queue();
        slot.finish(dropped());
        slot.finish(dropped());
    }
}

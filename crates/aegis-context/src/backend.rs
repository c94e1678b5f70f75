//! What a foreign runtime must promise, and what it must not do.
//!
//! # The life of a backend
//! ```text
//!   load (its own constructor) -> description(), memory()   facts for admission
//!        -> bind(MemoryBinding)                              addresses, once
//!        -> enqueue(stage, job, stream), any number of times  the only thing on the hot path
//!        -> drop                                             gives the addresses back
//! ```

use std::sync::Arc;

use aegis_cuda::CudaStream;
use aegis_memory::{MemoryBinding, TensorLifetime};
use aegis_trace::{Bytes, StageIndex};

use crate::description::ModelDescription;
use crate::error::BackendError;
use crate::slot::JobSlot;

/// One loaded model of a foreign runtime.
///
/// # What an implementation promises
/// 1. [`enqueue`](Self::enqueue) only enqueues: it returns without waiting for the device, and all
///    its work runs on the given stream, in order.
/// 2. Its work reads the job's inputs before the first stage and writes the job's outputs after
///    the last, from and to the given [`JobSlot`].
/// 3. It uses device memory only inside its binding. What its runtime asks for beyond is refused
///    and reported as this model's fault.
/// 4. Stages run one after the other, never two at once, and stage `k + 1` may rely on what stage
///    `k` of the same job left in carried memory.
///
/// # What it must not do
/// Choose streams, start device work of its own, retry, or sleep. It may keep a slot alive until its
/// next job, but leaves the buffers alone once the last stage has ended. One whose runtime cannot
/// enqueue without waiting says so in its [`remarks`](Self::remarks).
pub trait RuntimeBackend: Send {
    /// The runtime's name and version, for evidence and reports.
    fn runtime_name(&self) -> String;

    /// Inputs, outputs and stages.
    fn description(&self) -> &ModelDescription;

    /// The memory the model needs, with lifetimes over its stages.
    fn memory(&self) -> &[TensorLifetime];

    /// Device memory that its runtime's libraries took outside of any arena, by the driver's count, so
    /// far. Charged to the device already; for reports.
    fn foreign_memory(&self) -> Bytes {
        Bytes::ZERO
    }

    /// What whoever reads a report about the model should know of how it was prepared: one sentence
    /// without a subject's name each, none where there is nothing to say.
    fn remarks(&self) -> &[String] {
        &[]
    }

    /// Whether [`enqueue`](Self::enqueue) returns at once also while earlier work is still on the
    /// stream, so that a stage can be put behind one that runs. What keeps the first promise does; a
    /// runtime that has to wait for the stream says no.
    fn enqueues_behind(&self) -> bool {
        true
    }

    /// How inputs go ahead of the first stage, if they can: `None` of a runtime that copies within its
    /// stages, of a model without inputs, and where the memory that takes them is not the model's alone
    /// for as long as it is bound. Not asked before [`bind`](Self::bind).
    fn uploads_ahead(&mut self) -> Option<&mut dyn UploadsAhead> {
        None
    }

    /// Takes the memory the model will live in. Called once, before any [`enqueue`](Self::enqueue).
    ///
    /// What was declared as carried comes as a buffer of the model's own or, where its jobs are
    /// never suspended, as a region that is shared with other models and theirs for as long as the
    /// declared lifetimes say.
    ///
    /// # Errors
    /// [`BackendError`], Permanent, when the binding lacks a tensor or the runtime rejects it.
    fn bind(&mut self, binding: MemoryBinding) -> Result<(), BackendError>;

    /// Enqueues stage `stage` of the job in `slot` on `stream`, without waiting and without
    /// allocating.
    ///
    /// # Errors
    /// [`BackendError`] when nothing was enqueued.
    fn enqueue(
        &mut self,
        stage: StageIndex,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError>;
}

/// The two halves of a first stage whose inputs are copied while another model's stage runs.
///
/// # What an implementation promises
/// What [`RuntimeBackend`] does, and that
/// 1. the memory that [`upload`](Self::upload) writes is of the class
///    [`Io`](aegis_memory::TensorClass::Io) and bound as a buffer, which no other model has, so that
///    what runs meanwhile neither reads nor writes it;
/// 2. [`enqueue_uploaded`](Self::enqueue_uploaded) copies no input.
pub trait UploadsAhead {
    /// Enqueues the copies of the inputs of the job in `slot` on `stream`, which is not that of the stages,
    /// without waiting and without allocating. The job before has ended on the device.
    ///
    /// # Errors
    /// [`BackendError`]; a part of the copies may be enqueued then.
    fn upload(&mut self, slot: &Arc<JobSlot>, stream: &CudaStream) -> Result<(), BackendError>;

    /// Enqueues the first stage of the job in `slot` on `stream`, which waits for its upload already.
    ///
    /// # Errors
    /// As [`RuntimeBackend::enqueue`].
    fn enqueue_uploaded(
        &mut self,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError>;
}

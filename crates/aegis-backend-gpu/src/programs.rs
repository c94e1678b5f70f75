//! What a runtime does on a GPU: one run of a stage.

use aegis_context::BackendError;
use aegis_cuda::CudaStream;

use crate::memory::Memory;

/// How a stage without a graph gets to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Kernel by kernel on the job's own stream, by [`Programs::enqueue`]. Whether the runtime's code
    /// waits for the stream nobody knows, so nothing is to be enqueued behind others that way.
    Launched,
    /// By [`Programs::run`], on the stream that the runtime was made with, while the thread waits for
    /// the end: a runtime that cannot be told another stream.
    Awaited,
}

/// The stages of one model as its runtime made them, in the memory it was given.
///
/// # What an implementation promises
/// 1. A run uses the model's [`Memory`] alone, and nothing beyond the end of what it was given: a
///    request beyond is refused, and an error.
/// 2. Its work is on the given stream alone, behind what is there, and it does not wait for it but in
///    [`run`](Self::run).
/// 3. It gives up all that refers to the memory when it is dropped, which is before the memory goes.
///
/// The GPU is the one of the calling thread in every call, the drop included.
pub trait Programs: Send {
    /// How a stage without a graph gets to the device.
    const PLAIN: Plain;

    /// How many stages there are; at least one.
    fn stages(&self) -> usize;

    /// Enqueues a run of stage `stage` on `stream`. While a graph is made, `stream` is being captured;
    /// otherwise only what is [`Plain::Launched`] is enqueued this way.
    ///
    /// # Errors
    /// [`BackendError`]: the runtime refuses, or asked for memory beyond its own. What was enqueued by
    /// then may be on the stream.
    fn enqueue(
        &mut self,
        stage: usize,
        memory: &mut Memory,
        stream: &CudaStream,
    ) -> Result<(), BackendError>;

    /// Runs stage `stage` on `stream`, the one of the preparation, and waits for its end.
    ///
    /// # Errors
    /// As [`Programs::enqueue`], but nothing of the run is on the stream any more.
    fn run(
        &mut self,
        stage: usize,
        memory: &mut Memory,
        stream: &CudaStream,
    ) -> Result<(), BackendError>;

    /// Hears that the model is prepared: from here on its runtime gets no more memory.
    fn seal(&mut self) {}
}

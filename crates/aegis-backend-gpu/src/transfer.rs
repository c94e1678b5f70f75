//! Copies and fills that the device makes for a model.
//!
//! All are between a buffer of the model and either a host buffer of the model's own or one of a job's
//! slot. The slot's are the orchestration side's from its queueing until no stage of the job is on the
//! device any more, which is later than what its caller is told where a stage hangs
//! (`aegis_context::slot`, invariants 1 and 2): the loan of the stream on which this is enqueued holds
//! them until the event behind the stage has fired. Where inputs go ahead the stage waits for them, and
//! where it could not be launched, their buffers are held until the event behind the copies has fired, and
//! the model does not leave before (`aegis_context::uploads`).
//!
//! # Invariants
//! 1. A copy is given to nobody but [`Prepared`](crate::Prepared), which holds what it uses.
//! 2. On a device that is no GPU a copy is made at once, by the caller: what runs there (a mock of a
//!    runtime) does all of its work that way, so nothing is out of order.

use std::sync::Arc;

use aegis_context::slot::{JobIo, JobSlot};
use aegis_cuda::{
    CudaGraph, CudaStream, DeviceBuffer, DeviceError, HostBuffer, SharedRegion, interop,
};

/// Enqueues, or captures, a copy of `source` to `target`.
pub(crate) fn copy_in(
    stream: &CudaStream,
    source: &HostBuffer,
    target: &mut DeviceBuffer,
) -> Result<(), DeviceError> {
    if !is_gpu(stream) {
        return target.write(0, source);
    }
    // SAFETY: (1) Both buffers live until the copy is done. Within a stage the model holds the target,
    // its staging buffers and the slot (`prepared`, invariant 2). Ahead of one the loan of the stream
    // holds the slot and, where the stage is not launched, what is left of the upload does
    // (`aegis_context::uploads`, invariant 4), while the model, with the target, is not handed out; the
    // stop waits for it too, and where its end is never seen, freeing the arena waits for the device.
    // (2) Nobody writes the source or uses the target meanwhile: the target is an input that the stages
    // of one job alone use; for the source see the module.
    unsafe { interop::copy_to_device(stream, source, target) }
}

/// Enqueues, or captures, a copy of `source` to `target`, behind the work that writes `source`.
pub(crate) fn copy_out(
    stream: &CudaStream,
    source: &DeviceBuffer,
    target: &HostBuffer,
) -> Result<(), DeviceError> {
    // SAFETY: (1) As in `copy_in`. (2) Nobody reads the target before the stage is off the device.
    unsafe { interop::copy_to_host(stream, source, target) }
}

/// As [`copy_out`], to output `output` of the job whose buffers are `io`.
pub(crate) fn give_output(
    stream: &CudaStream,
    source: &DeviceBuffer,
    io: &mut JobIo,
    output: usize,
) -> Result<(), DeviceError> {
    if !is_gpu(stream) {
        return source.read(0, io.output_mut(output));
    }
    copy_out(stream, source, &io.outputs()[output])
}

/// Makes the copy of `graph` that was captured with `staged` take input `index` of the job.
pub(crate) fn aim_input(
    graph: &CudaGraph,
    staged: &HostBuffer,
    job: &Arc<JobSlot>,
    index: usize,
) -> Result<(), DeviceError> {
    // SAFETY: (1) The slot lives as long as the graph may run with it: the loan holds it while the
    // stage is on the device, and the model until its next job or its drop, and so does the context,
    // which drops its backend, and so the graph, before its slots. (2) Nobody writes the input
    // meanwhile: see the module.
    unsafe { interop::aim_copy(graph, staged, &job.io().inputs()[index]) }
}

/// Makes the copy of `graph` that was captured with `staged` write output `index` of the job.
pub(crate) fn aim_output(
    graph: &CudaGraph,
    staged: &HostBuffer,
    job: &Arc<JobSlot>,
    index: usize,
) -> Result<(), DeviceError> {
    // SAFETY: (1) As in `aim_input`. (2) Nobody reads the output before the stage is off the device.
    unsafe { interop::aim_copy(graph, staged, &job.io().outputs()[index]) }
}

/// Enqueues, or captures, that all of `scratch` be set to `byte`.
///
/// The scratch is the model's for as long as its stage runs, of which this becomes a part.
pub(crate) fn fill_scratch(
    stream: &CudaStream,
    scratch: &SharedRegion,
    byte: u8,
) -> Result<(), DeviceError> {
    // SAFETY: (1) The region lives as long as the model, and so as any graph that holds the fill. (2)
    // The bytes are the model's whenever its stage runs (`aegis_cuda::interop`, point 4), which is when
    // the graph is launched; while it is bound, no stage of another model runs in them: see `prepared`,
    // "While it is prepared".
    unsafe { interop::fill_region(stream, scratch, byte) }
}

fn is_gpu(stream: &CudaStream) -> bool {
    interop::stream_handle(stream).is_some()
}

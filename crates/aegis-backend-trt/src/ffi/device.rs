//! Copies and fills that the device makes.

use std::sync::Arc;

use aegis_context::slot::JobSlot;
use aegis_cuda::interop;
use aegis_cuda::{CudaStream, DeviceBuffer, DeviceError, SharedRegion};

/// Enqueues a copy of input `index` of the job to `target`.
///
/// The job's buffers are the orchestration side's from the queueing of the slot to its end
/// (`aegis_context::slot`, invariant 1), and the slot ends only after the last event of its stages.
/// `target` is an input of the model, which the stages of one job alone use; the caller keeps both.
pub(crate) fn copy_in(
    stream: &CudaStream,
    job: &Arc<JobSlot>,
    index: usize,
    target: &mut DeviceBuffer,
) -> Result<(), DeviceError> {
    let io = job.io();
    #[cfg(feature = "mock")]
    if interop::stream_handle(stream).is_none() {
        return target.write(0, &io.inputs[index]); // On the host a mock does everything at once.
    }
    // SAFETY: (1) Both buffers live until the copy is done: the model holds the target and the slot
    // (`gpu::bound`, invariant 2). (2) Nobody writes the source or uses the target meanwhile: see
    // above.
    unsafe { interop::copy_to_device(stream, &io.inputs[index], target) }
}

/// Enqueues a copy of `source` to output `index` of the job.
///
/// As [`copy_in`]; the copy is enqueued behind the work that writes `source`.
pub(crate) fn copy_out(
    stream: &CudaStream,
    source: &DeviceBuffer,
    job: &Arc<JobSlot>,
    index: usize,
) -> Result<(), DeviceError> {
    #[cfg(feature = "mock")]
    if interop::stream_handle(stream).is_none() {
        return source.read(0, &mut job.io().outputs[index]);
    }
    let io = job.io();
    // SAFETY: (1) As in `copy_in`. (2) Nobody reads the target before the slot has ended.
    unsafe { interop::copy_to_host(stream, source, &io.outputs[index]) }
}

/// Enqueues that all of `scratch` be set to `byte`.
///
/// The scratch is the model's for as long as its stage runs, of which this becomes a part.
pub(crate) fn fill_scratch(
    stream: &CudaStream,
    scratch: &SharedRegion,
    byte: u8,
) -> Result<(), DeviceError> {
    // SAFETY: (1) The region lives as long as the model, and so as any graph that holds the fill. (2)
    // The bytes are the model's whenever its stage runs (`aegis_cuda::interop`, point 4), which is when
    // the graph is launched; while it is bound, no stage of another model runs in them: see
    // `gpu::bound`, "While it is prepared".
    unsafe { interop::fill_region(stream, scratch, byte) }
}

/// Enqueues a copy of `source` to `staging`.
#[cfg(feature = "mock")]
pub(crate) fn gather(
    stream: &CudaStream,
    source: &DeviceBuffer,
    staging: &aegis_cuda::HostBuffer,
) -> Result<(), DeviceError> {
    // SAFETY: (1) Both live as long as the mock that the model holds, and so as any graph of it. (2)
    // The staging buffer is the mock's alone, and runs of a model do not overlap.
    unsafe { interop::copy_to_host(stream, source, staging) }
}

/// Enqueues a copy of `staging` to `target`.
#[cfg(feature = "mock")]
pub(crate) fn scatter(
    stream: &CudaStream,
    staging: &aegis_cuda::HostBuffer,
    target: &DeviceBuffer,
) -> Result<(), DeviceError> {
    // SAFETY: As in `gather`.
    unsafe { interop::copy_to_device(stream, staging, target) }
}

//! Copies and fills that the device makes.

use std::sync::Arc;

use aegis_context::slot::{JobIo, JobSlot};
use aegis_cuda::interop;
use aegis_cuda::{CudaGraph, CudaStream, DeviceBuffer, DeviceError, HostBuffer, SharedRegion};

/// Enqueues, or captures, a copy of `source` to `target`.
///
/// Both are the model's: an input that the stages of one job alone use, and either its own staging
/// buffer or a buffer of the job's slot. The slot's are the orchestration side's from its queueing
/// until no stage of the job is on the device any more, which is later than what its caller is told
/// where a stage hangs (`aegis_context::slot`, invariants 1 and 2): the loan of the stream on which
/// this is enqueued holds them until the event behind the stage has fired.
pub(crate) fn copy_in(
    stream: &CudaStream,
    source: &HostBuffer,
    target: &mut DeviceBuffer,
) -> Result<(), DeviceError> {
    #[cfg(feature = "mock")]
    if interop::stream_handle(stream).is_none() {
        return target.write(0, source); // On the host a mock does everything at once.
    }
    // SAFETY: (1) Both buffers live until the copy is done: the model holds the target, its staging
    // buffers and the slot (`gpu::bound`, invariant 2). (2) Nobody writes the source or uses the
    // target meanwhile: see above.
    unsafe { interop::copy_to_device(stream, source, target) }
}

/// As [`copy_out`], to an output of a job.
pub(crate) fn give_output(
    stream: &CudaStream,
    source: &DeviceBuffer,
    job: &mut JobIo,
    output: usize,
) -> Result<(), DeviceError> {
    #[cfg(feature = "mock")]
    if interop::stream_handle(stream).is_none() {
        return source.read(0, job.output_mut(output));
    }
    copy_out(stream, source, &job.outputs()[output])
}

/// Enqueues, or captures, a copy of `source` to `target`.
///
/// As [`copy_in`]; the copy is enqueued behind the work that writes `source`.
pub(crate) fn copy_out(
    stream: &CudaStream,
    source: &DeviceBuffer,
    target: &HostBuffer,
) -> Result<(), DeviceError> {
    // SAFETY: (1) As in `copy_in`. (2) Nobody reads the target before the stage is off the device.
    unsafe { interop::copy_to_host(stream, source, target) }
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
    // meanwhile: as in `copy_in`.
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
    staging: &HostBuffer,
) -> Result<(), DeviceError> {
    // SAFETY: (1) Both live as long as the mock that the model holds, and so as any graph of it. (2)
    // The staging buffer is the mock's alone, and runs of a model do not overlap.
    unsafe { interop::copy_to_host(stream, source, staging) }
}

/// Enqueues a copy of `staging` to `target`.
#[cfg(feature = "mock")]
pub(crate) fn scatter(
    stream: &CudaStream,
    staging: &HostBuffer,
    target: &DeviceBuffer,
) -> Result<(), DeviceError> {
    // SAFETY: As in `gather`.
    unsafe { interop::copy_to_device(stream, staging, target) }
}

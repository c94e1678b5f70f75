//! Raw views of device memory for other runtimes; only backend crates may import this.
//!
//! Getting a pointer is safe, using it is not. Whoever dereferences one, or hands it to code that
//! does, promises all of the following; `docs/soundness.md` cites the list.
//!
//! 1. Only the bytes of the view are touched: from the pointer, [`DeviceBuffer::len`] or
//!    [`SharedRegion::len`] bytes on.
//! 2. The buffer or region, and so its arena, outlives every use.
//! 3. While the bytes of a buffer are written through the pointer, no one calls its methods or uses
//!    another pointer to it; while they are read, no one writes them.
//! 4. The bytes of a region belong, at any time, to one user among all regions that overlap it.
//!    The memory plan says which users may overlap, and the schedule that they do not run at once.
//! 5. No reference (`&` or `&mut`) to the bytes outlives such a period of use.
//! 6. Both buffers of an enqueued copy live, and nobody touches what it writes or writes what it
//!    reads, from the call until an event recorded after it on the stream has completed, or the
//!    stream was synchronised. Where the copy was captured into a graph, the same holds for every
//!    launch of the graph: the buffers live as long as it may be launched.
//! 7. On `cuda` a pointer to a buffer or region is an address of the GPU: the processor touches
//!    nothing behind it.
//! 8. A handle of the driver is used only while the stream or context it came from lives, and never
//!    destroyed. What is enqueued on a stream that way is not an entry of ours: who enqueues it
//!    records an event after it.
#![allow(unsafe_code)] // Some functions are unsafe to call; docs/soundness.md argues them.

use std::ffi::c_void;
use std::ptr::NonNull;

use aegis_trace::Bytes;

use crate::capability::DriverKind;
use crate::cuda::{Capture, CudaGraph};
use crate::device::DeviceContext;
use crate::error::DeviceError;
use crate::host_buffer::HostBuffer;
use crate::memory::{DeviceBuffer, SharedRegion};
use crate::stream::CudaStream;

/// The first byte of `buffer`. Aligned as its offset in the arena is, at most to
/// [`ARENA_ALIGNMENT`](crate::memory::ARENA_ALIGNMENT). For an empty buffer the pointer may be one
/// past the end of the arena.
#[must_use]
pub fn buffer_ptr(buffer: &DeviceBuffer) -> NonNull<u8> {
    buffer.as_ptr()
}

/// The first byte of `region`. Aligned as its offset in the arena is, at most to
/// [`ARENA_ALIGNMENT`](crate::memory::ARENA_ALIGNMENT). For an empty region the pointer may be one
/// past the end of the arena.
#[must_use]
pub fn region_ptr(region: &SharedRegion) -> NonNull<u8> {
    region.as_ptr()
}

/// The driver's stream (`CUstream`, which is also the runtime library's `cudaStream_t`); `None` on
/// anything but `cuda`.
#[must_use]
pub fn stream_handle(stream: &CudaStream) -> Option<NonNull<c_void>> {
    stream.gpu()?.handle()
}

/// The driver's context (`CUcontext`): the partition's on a view of one, else the primary context of
/// the GPU; `None` on anything but `cuda`.
#[must_use]
pub fn context_handle(device: &DeviceContext) -> Option<NonNull<c_void>> {
    device.gpu()?.context()
}

/// Makes the primary context of the GPU current on the calling thread, where the runtime library
/// and what is built on it look for it. Work goes to a partition by its streams, not by the current
/// context. Does nothing on `host` and `sim`.
///
/// # Errors
/// [`DeviceError::Cuda`].
pub fn make_current(device: &DeviceContext) -> Result<(), DeviceError> {
    device.gpu().map_or(Ok(()), |gpu| gpu.make_current())
}

/// Enqueues a copy of all of `source` to the beginning of `target`. Returns at once where the pages
/// of `source` are locked.
///
/// # Errors
/// [`DeviceError::CopyTooLong`] and, on anything but `cuda`, [`DeviceError::WrongDriver`]
/// (permanent); [`DeviceError::StreamFull`] (transient); [`DeviceError::Cuda`].
///
/// # Safety
/// Point 6 of the module.
pub unsafe fn copy_to_device(
    stream: &CudaStream,
    source: &HostBuffer,
    target: &DeviceBuffer,
) -> Result<(), DeviceError> {
    check_length(source, target)?;
    let lane = stream.on_gpu()?;
    check_device(target)?;
    // SAFETY: (1) Both sides have the length: just checked. (2) They live and are left alone: the
    // caller's promise.
    unsafe { lane.copy_in(source.first(), target, source.len()) }
}

/// Enqueues a copy of the beginning of `source` to all of `target`. Returns at once where the pages
/// of `target` are locked.
///
/// # Errors
/// As [`copy_to_device`].
///
/// # Safety
/// Point 6 of the module; the copy writes to `target` although it is borrowed shared, so no other
/// borrow of its bytes exists meanwhile.
pub unsafe fn copy_to_host(
    stream: &CudaStream,
    source: &DeviceBuffer,
    target: &HostBuffer,
) -> Result<(), DeviceError> {
    check_length(target, source)?;
    let lane = stream.on_gpu()?;
    check_device(source)?;
    // SAFETY: (1) Both sides have the length: just checked. (2) They live and are left alone: the
    // caller's promise.
    unsafe { lane.copy_out(source, target.first(), target.len()) }
}

/// Makes the copy of `graph` that was captured with the host buffer `captured` use `now` instead,
/// from the next launch on. O(copies of the graph); where it does so already it costs a comparison.
///
/// # Errors
/// [`DeviceError::Unframed`]: the graph was not captured as a stage; [`DeviceError::NoSuchCopy`]: it
/// has no such copy; [`DeviceError::CopyTooLong`]: the buffers differ in length (permanent);
/// [`DeviceError::Cuda`].
///
/// # Safety
/// Point 6 of the module, for `now` and until the graph is aimed elsewhere or dropped: the graph
/// remembers the allocation, and another one at the same address would be taken for it.
pub unsafe fn aim_copy(
    graph: &CudaGraph,
    captured: &HostBuffer,
    now: &HostBuffer,
) -> Result<(), DeviceError> {
    if now.len() != captured.len() {
        let (host, device) = (Bytes(now.len() as u64), Bytes(captured.len() as u64));
        return Err(DeviceError::CopyTooLong { host, device });
    }
    // SAFETY: (1) The buffers have the same length: just compared. (2) The rest is the caller's
    // promise.
    unsafe { graph.aim_copy(captured.first().addr().get(), now.first().as_ptr().cast()) }
}

/// Makes the launches of `graph` from the next one on pass over the copy that was captured with the host
/// buffer `captured`, because what it copies is there already, or make it again. O(copies of the graph);
/// where they do so already it costs a comparison.
///
/// # Errors
/// [`DeviceError::Unframed`], [`DeviceError::NoSuchCopy`], as [`aim_copy`];
/// [`DeviceError::DriverTooOld`] (permanent) before CUDA 11.6; [`DeviceError::Cuda`].
pub fn leave_out_copy(
    graph: &CudaGraph,
    captured: &HostBuffer,
    left_out: bool,
) -> Result<(), DeviceError> {
    graph.leave_out(captured.first().addr().get(), left_out)
}

/// Enqueues that every byte of `region` be set to `byte`; within a capture, a node of the graph.
///
/// # Errors
/// As [`copy_to_device`].
///
/// # Safety
/// Points 4 and 6 of the module: the caller is the user of the region's bytes until the fill is
/// done, and for a captured fill whenever the graph runs.
pub unsafe fn fill_region(
    stream: &CudaStream,
    region: &SharedRegion,
    byte: u8,
) -> Result<(), DeviceError> {
    let lane = stream.on_gpu()?;
    if !region.is_on_gpu() {
        let (needed, found) = (DriverKind::Cuda, DriverKind::Host);
        return Err(DeviceError::WrongDriver { needed, found });
    }
    // SAFETY: (1) The region is of an arena on the GPU, which it keeps. (2) Nobody else uses its
    // bytes: the caller's promise.
    unsafe { lane.fill(region, byte) }
}

/// Records the beginning of the stage that is being enqueued on `stream`, where it is not recorded yet:
/// work follows that is no entry of the stream and lies within the stage all the same. Does nothing
/// outside a stage, and on anything but `cuda`.
///
/// # Errors
/// As [`CudaStream::record`].
pub fn open_stage(stream: &CudaStream) -> Result<(), DeviceError> {
    stream.gpu().map_or(Ok(()), |lane| lane.open_stage())
}

/// From [`discarding`] on, what its thread enqueues on the stream is thrown away; the drop ends that.
#[must_use = "the work is thrown away until this is dropped"]
pub struct Discarding<'stream> {
    _capture: Capture<'stream>,
}

/// Begins to throw away what the calling thread enqueues on `stream`: it is captured, and never
/// launched. For foreign code that cannot be kept from enqueuing work on memory it did not get. What
/// was enqueued before runs; a call that a capture does not allow gets an error of the driver.
///
/// # Errors
/// [`DeviceError::WrongDriver`] on anything but `cuda`; [`DeviceError::Capturing`] where a capture is
/// under way, so that nothing runs in any case; [`DeviceError::Cuda`].
pub fn discarding(stream: &CudaStream) -> Result<Discarding<'_>, DeviceError> {
    Ok(Discarding { _capture: stream.on_gpu()?.discard()? })
}

fn check_length(host: &HostBuffer, device: &DeviceBuffer) -> Result<(), DeviceError> {
    let host = Bytes(host.len() as u64);
    if host.as_u64() <= device.len() {
        Ok(())
    } else {
        Err(DeviceError::CopyTooLong { host, device: Bytes(device.len()) })
    }
}

/// Refuses a buffer that is not on a GPU: its address would mean something else there.
fn check_device(buffer: &DeviceBuffer) -> Result<(), DeviceError> {
    if buffer.is_on_gpu() {
        Ok(())
    } else {
        Err(DeviceError::WrongDriver { needed: DriverKind::Cuda, found: DriverKind::Host })
    }
}

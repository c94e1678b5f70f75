//! Work that the device makes for a mock engine.

use aegis_cuda::interop;
use aegis_cuda::{CudaStream, DeviceBuffer, DeviceError, HostBuffer, SharedRegion};

/// Enqueues that all of `scratch`, the mock's as its stage runs, be set to `byte`.
pub(crate) fn fill_scratch(
    stream: &CudaStream,
    scratch: &SharedRegion,
    byte: u8,
) -> Result<(), DeviceError> {
    // SAFETY: (1) The region lives as long as the model, and so as any graph that holds the fill. (2)
    // The bytes are the model's whenever its stage runs (`aegis_cuda::interop`, point 4), of which this
    // is a part.
    unsafe { interop::fill_region(stream, scratch, byte) }
}

/// Enqueues a copy of `source` to `staging`.
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
pub(crate) fn scatter(
    stream: &CudaStream,
    staging: &HostBuffer,
    target: &DeviceBuffer,
) -> Result<(), DeviceError> {
    // SAFETY: As in `gather`.
    unsafe { interop::copy_to_device(stream, staging, target) }
}

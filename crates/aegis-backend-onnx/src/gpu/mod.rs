//! Models on a GPU: measured at load, made again in their place, captured, launched.
//!
//! ```text
//!   load   sessions in free memory of the arena -> three runs -> what weights and scratch take -> gone
//!   bind   sessions again, weights in the bound buffer -> warm-up -> capture -> checked against eager
//!   run    copy in (first stage), launch the graph, copy out (last stage): all enqueued, no allocation
//! ```
//! Read [`Gpu`] first, then `load` and `bound`.
//!
//! # Invariants
//! 1. Sessions take device memory from ranges of the arena alone; what their libraries take beside it
//!    is measured by the driver's count and charged to the device (`aegis_context::foreign`).
//! 2. A graph is launched only after its outputs were seen to be those of the plain run, with its
//!    scratch full of what is not a number.

pub(crate) mod bound;
pub(crate) mod load;

use std::sync::Arc;

use aegis_context::BackendError;
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext, DriverKind, interop};

use crate::ffi::Provider;

/// The GPU that a model is loaded for, and what it may use of it.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// The device, or the partition of it that the model will run in.
    pub device: DeviceContext,
    /// The number that the driver gives the GPU; the device's own.
    pub ordinal: u16,
    /// Where the model will be bound. While it is measured it lives in the longest free piece.
    pub arena: DeviceArena,
    /// A stream of `device` that no job runs on: models are prepared on it, and one that cannot be
    /// captured runs there.
    pub preparation: Arc<CudaStream>,
    /// Whether matrix products may round the factors of fp32 to ten bits (TF32): twice as fast on
    /// the networks measured.
    pub tf32: bool,
    /// Whether stages are captured into graphs.
    pub graph: bool,
}

impl Gpu {
    /// What a session is told; on the way, the GPU becomes the one of the calling thread.
    pub(crate) fn provider(&self, fallback: bool) -> Result<Provider, BackendError> {
        let found = self.device.kind();
        if found != DriverKind::Cuda {
            let needed = DriverKind::Cuda;
            return Err(aegis_cuda::DeviceError::WrongDriver { needed, found }.into());
        }
        interop::make_current(&self.device)?;
        let stream = interop::stream_handle(&self.preparation).ok_or(
            aegis_cuda::DeviceError::WrongDriver {
                needed: DriverKind::Cuda,
                found: DriverKind::Host,
            },
        )?;
        Ok(Provider { ordinal: self.ordinal, stream, tf32: self.tf32, fallback })
    }
}

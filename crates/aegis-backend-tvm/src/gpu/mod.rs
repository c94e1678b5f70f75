//! Models on a GPU: measured at load, put in their place, captured, launched.
//!
//! ```text
//!   load   modules, kernels compiled once -> runs in free memory of the arena -> what scratch takes
//!   bind   weights in the bound buffer -> warm-up -> capture -> checked against the plain run
//!   run    copy in (first stage), launch the graph, copy out (last stage): all enqueued, no allocation
//! ```
//! Read [`Gpu`] first, then `load` and `bound`.
//!
//! # Invariants
//! 1. Weights, tensors and scratch lie in ranges of the arena alone; what the libraries take beside it
//!    (code of kernels) is measured by the driver's count and charged to the device
//!    (`aegis_context::foreign`).
//! 2. A graph is launched only after its outputs were seen to be those of the plain run, with its
//!    scratch full of what is not a number.

pub(crate) mod bound;
pub(crate) mod load;

use std::sync::Arc;

use aegis_context::BackendError;
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext, DeviceError, DriverKind, interop};

/// The GPU that a model is loaded for, and what it may use of it.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// The device, or the partition of it that the model will run in.
    pub device: DeviceContext,
    /// The number that the driver gives the GPU; the device's own.
    pub ordinal: u16,
    /// Where the model will be bound. While it is measured it lives in the longest free piece.
    pub arena: DeviceArena,
    /// A stream of `device` that no job runs on: models are prepared on it.
    pub preparation: Arc<CudaStream>,
    /// Whether stages are captured into graphs.
    pub graph: bool,
}

impl Gpu {
    /// Makes the GPU the one of the calling thread.
    fn enter(&self) -> Result<(), BackendError> {
        let (needed, found) = (DriverKind::Cuda, self.device.kind());
        if found != needed {
            return Err(DeviceError::WrongDriver { needed, found }.into());
        }
        Ok(interop::make_current(&self.device)?)
    }

    /// What kernels are compiled for: 90 for compute capability 9.0.
    fn architecture(&self) -> Result<u32, BackendError> {
        let capability = self.device.capabilities().compute_capability();
        let reason = || "the driver does not say what the GPU can compute".to_owned();
        let capability = capability.ok_or_else(|| BackendError::Runtime { reason: reason() })?;
        Ok(capability.major * 10 + capability.minor)
    }
}

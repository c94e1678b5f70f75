//! Engines on a GPU: measured at load, read again in their place, captured, launched.
//!
//! ```text
//!   load   engines in free memory of the arena -> three runs -> what they keep and need -> gone
//!   bind   engines again, in the bound buffer -> warm-up -> capture -> checked against plain runs
//!   run    copy in (first stage), launch the graph, copy out (last stage): all enqueued, no allocation
//! ```
//! Read [`Gpu`] first, then `load` and `bound`.
//!
//! # Invariants
//! 1. Engines take device memory from ranges of the arena alone; what their library takes beside it is
//!    measured by the driver's count and charged to the device (`aegis_context::foreign`).
//! 2. A graph is launched only after its outputs were seen to be those of the plain run, with its
//!    scratch full of what is not a number.

pub(crate) mod bound;
pub(crate) mod load;
mod program;

use std::sync::Arc;

use aegis_context::BackendError;
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext, DeviceError, DriverKind, interop};

/// The GPU that a model is loaded for, and what it may use of it.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// The device, or the partition of it that the model will run in.
    pub device: DeviceContext,
    /// Where the model will be bound. While it is measured it lives in the longest free piece.
    pub arena: DeviceArena,
    /// A stream of `device` that no job runs on: models are prepared on it.
    pub preparation: Arc<CudaStream>,
    /// Whether stages are captured into graphs.
    pub graph: bool,
}

impl Gpu {
    /// Makes the GPU the one of the calling thread, where the library looks for it.
    ///
    /// # Errors
    /// [`DeviceError::WrongDriver`]: it is none.
    pub(crate) fn make_current(&self) -> Result<(), BackendError> {
        let found = self.device.kind();
        // A mock computes nothing, so it can pretend to anywhere.
        let serves = found == DriverKind::Cuda || cfg!(feature = "mock");
        if !serves {
            return Err(DeviceError::WrongDriver { needed: DriverKind::Cuda, found }.into());
        }
        Ok(interop::make_current(&self.device)?)
    }
}

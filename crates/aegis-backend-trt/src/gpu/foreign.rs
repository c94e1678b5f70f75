//! What the library takes of the GPU outside the arena, by the driver's count.
//!
//! Modules of kernels, which TensorRT-RTX compiles for the GPU at hand, and the pools of graphs are
//! none of our allocations: the driver's figure for the process grows by them while everything else
//! stands still, and the growth is charged to the model that caused it.

use aegis_cuda::{DeviceContext, DeviceError, ForeignCharge};
use aegis_trace::Bytes;

/// A reading of the driver's count before something is done.
#[derive(Debug)]
pub(crate) struct Meter {
    device: DeviceContext,
    before: Option<Bytes>,
}

impl Meter {
    pub(crate) fn start(device: &DeviceContext) -> Self {
        Self { device: device.clone(), before: count(device) }
    }

    /// Charges what was taken since the start; `None` where nobody counts.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]: the limit of the device does not hold it.
    pub(crate) fn charge(&self) -> Result<Option<ForeignCharge>, DeviceError> {
        let (Some(before), Some(now)) = (self.before, count(&self.device)) else { return Ok(None) };
        self.device.charge_foreign(now.saturating_sub(before)).map(Some)
    }
}

fn count(device: &DeviceContext) -> Option<Bytes> {
    device.driver_memory()?.process
}

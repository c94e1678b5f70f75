//! A device without a workload: what it is and has, for whoever has none yet.

use aegis_cuda::{CompletionWait, DeviceCapabilities};
use aegis_trace::Bytes;

use crate::builder::DeviceChoice;
use crate::device_facts::{DeviceFacts, Question};
use crate::error::Error;

/// The capabilities of the host, for whoever has no workload yet. Reserves nothing.
///
/// # Errors
/// [`Error::Device`].
pub fn host_capabilities() -> Result<DeviceCapabilities, Error> {
    host_facts().map(|facts| facts.capabilities)
}

/// What is found of the host.
///
/// # Errors
/// [`Error::Device`].
pub fn host_facts() -> Result<DeviceFacts, Error> {
    DeviceFacts::ask(&Question::bare(DeviceChoice::Host, Bytes::ZERO))
}

/// What is found of GPU number `ordinal`, for whoever has no workload yet. Makes a context on it for
/// as long as that takes.
///
/// # Errors
/// [`Error::Device`].
pub fn gpu_facts(ordinal: u16) -> Result<DeviceFacts, Error> {
    let choice = DeviceChoice::Cuda { ordinal, wait: CompletionWait::Yield };
    // No limit: the context may take what it takes.
    let facts = DeviceFacts::ask(&Question::bare(choice, Bytes(u64::MAX)))?;
    Ok(DeviceFacts { memory: None, ..facts })
}

//! What a workload's device was found to be: asked once, before anything is decided.
//!
//! Admission without loading needs more of a GPU than its name: what its context takes of the limit,
//! how many SMs the driver grants each partition, and how it is set. All of it comes from opening the
//! device once, which takes tenths of a second.

use aegis_cuda::{DeviceCapabilities, DeviceContext, DeviceHealth, DriverKind, DriverMemory};
use aegis_trace::Bytes;
use serde::Serialize;

use crate::builder::{self, DeviceChoice, ThreadOptions};
use crate::environment::GpuSettings;
use crate::error::Error;
use crate::partition::PartitionSpec;

/// What is asked of a device.
pub(crate) struct Question<'a> {
    pub(crate) choice: DeviceChoice,
    pub(crate) memory_limit: Bytes,
    pub(crate) partitions: &'a [PartitionSpec],
    /// How many models its libraries are to serve.
    pub(crate) models: usize,
}

impl Question<'_> {
    /// Of a device that nothing is to run on.
    pub(crate) fn bare(choice: DeviceChoice, memory_limit: Bytes) -> Self {
        Self { choice, memory_limit, partitions: &[], models: 0 }
    }
}

/// What a device is, has and grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// What it is and has.
    pub capabilities: DeviceCapabilities,
    /// Its heat, clocks and power when it was asked; `None` where nobody tells.
    pub health: Option<DeviceHealth>,
    /// How it is set, as far as it changes how long a job takes.
    pub settings: GpuSettings,
    /// The SMs that each partition would be granted, in the order of the workload; `None` where the
    /// driver has none to grant.
    pub granted: Vec<Option<u32>>,
    /// How the memory limit divides; `None` on everything but a GPU.
    pub memory: Option<MemoryOutlook>,
}

/// How the memory limit of a GPU divides before any model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryOutlook {
    /// The hard limit of the workload.
    pub limit: Bytes,
    /// What making the driver's context took.
    pub context: Bytes,
    /// What is left to the libraries of the runtimes.
    pub libraries: Bytes,
    /// What models are bound in: the rest.
    pub arena: Bytes,
    /// The driver's own count with nothing but the context there; `None` where it does not answer.
    pub driver: Option<DriverMemory>,
}

impl DeviceFacts {
    /// Opens the device and asks it.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(crate) fn ask(question: &Question<'_>) -> Result<Self, Error> {
        let thread = ThreadOptions { spin: aegis_trace::Nanos::ZERO, realtime: false };
        let (device, _) = builder::device(question.choice, question.memory_limit, 1, thread)?;
        let memory = outlook(&device, question.models);
        let health = device.health();
        let capabilities = device.capabilities().clone();
        let settings = GpuSettings::of(&capabilities, health.as_ref());
        let granted = granted(&device, question.partitions)?;
        Ok(Self { capabilities, health, settings, granted, memory })
    }
}

fn outlook(device: &DeviceContext, models: usize) -> Option<MemoryOutlook> {
    if device.kind() != DriverKind::Cuda {
        return None;
    }
    let (limit, context) = (device.memory_limit(), device.memory_use().context);
    let left = limit.saturating_sub(context);
    let libraries = builder::libraries(models).min(left);
    let arena = left.saturating_sub(libraries);
    Some(MemoryOutlook { limit, context, libraries, arena, driver: device.driver_memory() })
}

/// What the driver gives each of `partitions`; a split is made and given up for the answer.
fn granted(
    device: &DeviceContext,
    partitions: &[PartitionSpec],
) -> Result<Vec<Option<u32>>, Error> {
    let views = builder::views(device, partitions)?;
    let of_partitions = views.into_iter().filter(|(spec, _)| spec.is_some());
    Ok(of_partitions.map(|(_, view)| granted_to(&view)).collect())
}

/// The SMs that the driver gave a view; `None` on a device that grants none of its own.
pub(crate) fn granted_to(view: &DeviceContext) -> Option<u32> {
    match view.kind() {
        DriverKind::Cuda => view.capabilities().partition(),
        _ => None, // A host or a simulation records what was asked for.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_grants_no_sms_and_has_no_libraries_of_a_gpu() {
        let partitions = [PartitionSpec::named("a"), PartitionSpec::named("b")];
        let question = Question {
            choice: DeviceChoice::Host,
            memory_limit: Bytes::from_mib(1),
            partitions: &partitions,
            models: 3,
        };
        let facts = DeviceFacts::ask(&question).expect("a host is always there");
        assert_eq!(facts.granted, [None, None]);
        assert_eq!((facts.memory, facts.health), (None, None));
        assert_eq!(facts.settings, GpuSettings::default());
    }
}

//! What a device can do, as it says itself.

use std::fmt;

use aegis_trace::Bytes;
use serde::{Deserialize, Serialize};

/// Which driver stands behind a [`DeviceContext`](crate::DeviceContext).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DriverKind {
    /// The CPU as the device: streams are threads, time is the machine's.
    Host,
    /// A device of declared costs in virtual time.
    Sim,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Sim => "sim",
        })
    }
}

/// What a device has to compute with. A GPU will be a variant of its own, with its SMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ComputeUnits {
    /// Processor cores.
    Cores {
        /// How many this process may use at once: its affinity mask and CPU quota count.
        count: u32,
        /// The clock of the slowest core in kHz: its highest frequency where the system tells,
        /// else the present one.
        clock_khz: Option<u64>,
    },
}

/// The CUDA compute capability of a GPU, `major.minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ComputeCapability {
    /// The architecture.
    pub major: u32,
    /// The revision within it.
    pub minor: u32,
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a device is and has, asked for when the context was made.
///
/// What could not be found out is `None`; nothing is guessed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCapabilities {
    pub(crate) name: String,
    pub(crate) driver: DriverKind,
    pub(crate) total_memory: Option<Bytes>,
    pub(crate) available_memory: Option<Bytes>,
    pub(crate) compute_units: Option<ComputeUnits>,
    pub(crate) memory_bandwidth_per_second: Option<Bytes>,
    pub(crate) compute_capability: Option<ComputeCapability>,
}

impl DeviceCapabilities {
    /// The name the device gives itself; on `host` the processor's, or its architecture where the
    /// system does not know the model.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The driver behind the device.
    #[must_use]
    pub fn driver(&self) -> DriverKind {
        self.driver
    }

    /// The memory of the device. On `host` the limit of the control group counts, where it is
    /// smaller; on `sim` it is the configured limit.
    #[must_use]
    pub fn total_memory(&self) -> Option<Bytes> {
        self.total_memory
    }

    /// The memory that was free to take when the context was made. A snapshot: other processes
    /// take and give back.
    #[must_use]
    pub fn available_memory(&self) -> Option<Bytes> {
        self.available_memory
    }

    /// What the device computes with; `None` on `sim`, where work has a cost and nothing else.
    #[must_use]
    pub fn compute_units(&self) -> Option<ComputeUnits> {
        self.compute_units
    }

    /// The theoretical memory bandwidth in bytes per second, derived from memory clock and bus
    /// width where the device tells them. `None` on `host` and `sim`.
    #[must_use]
    pub fn memory_bandwidth_per_second(&self) -> Option<Bytes> {
        self.memory_bandwidth_per_second
    }

    /// The CUDA compute capability; `None` on everything that is not a GPU.
    #[must_use]
    pub fn compute_capability(&self) -> Option<ComputeCapability> {
        self.compute_capability
    }
}

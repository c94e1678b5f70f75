//! What a device can do, as it says itself.

use std::fmt;

use aegis_trace::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::DeviceError;

/// Copy engines that uploads beside downloads take.
const COPY_ENGINES: u32 = 2;

/// Which driver stands behind a [`DeviceContext`](crate::DeviceContext).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DriverKind {
    /// The CPU as the device: streams are threads, time is the machine's.
    Host,
    /// A device of declared costs in virtual time.
    Sim,
    /// A GPU, through NVIDIA's driver.
    Cuda,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Sim => "sim",
            Self::Cuda => "cuda",
        })
    }
}

/// What a device has to compute with.
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
    /// The multiprocessors (SMs) of a GPU.
    Multiprocessors {
        /// How many the view has: all, or those of its partition.
        count: u32,
        /// The highest clock in kHz.
        clock_khz: Option<u32>,
    },
}

/// What only a GPU has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuCapabilities {
    /// Shared memory of one SM.
    pub shared_memory_per_sm: Option<Bytes>,
    /// The most shared memory that one block may have, where its kernel opts in.
    pub shared_memory_per_block: Option<Bytes>,
    /// The size of the second-level cache.
    pub l2_cache: Option<Bytes>,
    /// The most threads resident on one SM.
    pub threads_per_sm: Option<u32>,
    /// The most threads of one block.
    pub threads_per_block: Option<u32>,
    /// The threads that execute together.
    pub warp_size: Option<u32>,
    /// How many copies can run beside kernels.
    pub copy_engines: Option<u32>,
    /// The highest memory clock in kHz.
    pub memory_clock_khz: Option<u32>,
    /// The width of the memory bus in bits.
    pub memory_bus_bits: Option<u32>,
    /// 32-bit floating-point operations per second at the highest clock, on the SMs of the view,
    /// derived from their number and units; tensor cores not counted.
    pub fp32_flops_per_second: Option<u64>,
    /// Whether it shares the machine's memory.
    pub integrated: Option<bool>,
    /// Whether its memory corrects errors.
    pub ecc: Option<bool>,
    /// How many priorities a stream may have.
    pub priority_levels: u8,
    /// Whether the driver can split its SMs.
    pub green_contexts: bool,
    /// Where it sits, as `domain:bus:device.function`.
    pub pci_bus_id: String,
    /// The version of the driver, where the management library tells.
    pub driver_version: Option<String>,
    /// The newest CUDA that the driver speaks, as `major.minor`.
    pub cuda_version: String,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<Box<GpuCapabilities>>,
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

    /// The SMs of the partition that this view is, as granted on `cuda` and as asked for on the
    /// others; `None` for a whole device.
    #[must_use]
    pub fn partition(&self) -> Option<u32> {
        self.partition
    }

    /// What only a GPU has; `None` on everything else.
    #[must_use]
    pub fn gpu(&self) -> Option<&GpuCapabilities> {
        self.gpu.as_deref()
    }

    /// Whether inputs can be copied to the device while outputs leave it: each direction takes an engine
    /// of its own. Always on `sim`.
    ///
    /// # Errors
    /// [`DeviceError::TooFewCopyEngines`] (permanent). On `host`, where the processor copies, there is
    /// none.
    pub fn check_copy_engines(&self) -> Result<(), DeviceError> {
        let engines = match self.driver {
            DriverKind::Sim => return Ok(()),
            DriverKind::Host => Some(0),
            DriverKind::Cuda => self.gpu().and_then(|gpu| gpu.copy_engines),
        };
        match engines {
            Some(COPY_ENGINES..) => Ok(()),
            engines => Err(DeviceError::TooFewCopyEngines { engines }),
        }
    }

    /// The CUDA compute capability; `None` on everything that is not a GPU.
    #[must_use]
    pub fn compute_capability(&self) -> Option<ComputeCapability> {
        self.compute_capability
    }
}

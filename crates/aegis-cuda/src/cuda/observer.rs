//! A GPU looked at from outside: no context, no memory of it taken.
//!
//! For whoever measures a process that uses the GPU by other means than a
//! [`DeviceContext`](crate::DeviceContext), and for settings that are asked for before and after.
//!
//! # Invariants
//! 1. Nothing is taken of the GPU: the driver is started, and no context is made.

use aegis_trace::Bytes;

use super::capabilities::name;
use super::context::{find, pci_bus_id};
use super::library;
use super::nvml::{Memory, NvmlDevice};
use crate::driver_memory::{DriverMemory, MemoryCount};
use crate::error::DeviceError;
use crate::health::DeviceHealth;

/// One GPU, from outside. Answers come from NVIDIA's management library, where it is there.
pub struct GpuObserver {
    name: String,
    nvml: Option<NvmlDevice>,
    first: Option<Memory>,
}

impl GpuObserver {
    /// Finds the GPU `ordinal`, as the driver counts them. Starts the driver, which takes tenths of a
    /// second in the first call of a process.
    ///
    /// # Errors
    /// [`DeviceError::NoDriver`], [`DeviceError::Config`] for an ordinal that names no GPU, and
    /// [`DeviceError::Cuda`]; all permanent.
    pub fn open(ordinal: u16) -> Result<Self, DeviceError> {
        let api = library::driver()?;
        let device = find(api, ordinal)?;
        let nvml = NvmlDevice::find(&pci_bus_id(api, device)?);
        let first = nvml.as_ref().and_then(NvmlDevice::memory);
        Ok(Self { name: name(api, device)?, nvml, first })
    }

    /// The name that the GPU gives itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of the driver.
    #[must_use]
    pub fn driver_version(&self) -> Option<String> {
        self.nvml.as_ref()?.driver_version()
    }

    /// Temperature, clocks, power and settings now. Takes milliseconds.
    #[must_use]
    pub fn health(&self) -> Option<DeviceHealth> {
        self.nvml.as_ref().map(NvmlDevice::health)
    }

    /// What this process takes of the GPU, whoever allocated it; where the library does not count
    /// processes, what free memory fell by since the observer was made. Takes about a millisecond.
    #[must_use]
    pub fn memory(&self) -> Option<DriverMemory> {
        let nvml = self.nvml.as_ref()?;
        let Memory { free, total } = nvml.memory()?;
        let (process, counted) = match nvml.memory_of_this_process() {
            Some(bytes) => (Some(bytes), MemoryCount::PerProcess),
            None => (self.fallen(free), MemoryCount::FallOfFree),
        };
        Some(DriverMemory { process, counted, graphs: None, free, total })
    }

    fn fallen(&self, free: Bytes) -> Option<Bytes> {
        self.first.map(|first| first.free.saturating_sub(free))
    }
}

impl std::fmt::Debug for GpuObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuObserver").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_there_or_its_absence_has_a_reason() {
        match GpuObserver::open(0) {
            Ok(gpu) => assert!(!gpu.name().is_empty()),
            Err(error) => {
                assert_eq!(error.category(), aegis_trace::Category::Permanent, "{error}");
                assert!(!error.to_string().is_empty());
            }
        }
        assert!(GpuObserver::open(u16::MAX).is_err(), "nobody has that many");
    }
}

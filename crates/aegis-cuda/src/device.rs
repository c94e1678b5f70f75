//! A device and its driver: the root everything else is created from.

use std::fmt;
use std::sync::Arc;

use aegis_trace::{Bytes, Clock};

use crate::capability::{DeviceCapabilities, DriverKind};
use crate::device_core::DeviceCore;
use crate::error::DeviceError;
use crate::event::CudaEvent;
use crate::host::{self, HostConfig, HostDriver};
use crate::memory::DeviceArena;
use crate::signal::Signal;
use crate::sim::{SimConfig, SimDevice};
use crate::stream::CudaStream;

/// A handle to one device. Clones share it; any thread may use it.
///
/// Streams, events and arenas keep what they need of the device alive themselves, so the order in
/// which handles are dropped does not matter.
#[derive(Clone)]
pub struct DeviceContext {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<DeviceCore>,
    capabilities: DeviceCapabilities,
    driver: Driver,
}

/// A closed set, so an enum; the GPU will be the third.
enum Driver {
    Host(HostDriver),
    Sim(SimDevice),
}

/// What a partition gets of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionShare {
    /// Streaming multiprocessors, at least; a driver may round up.
    pub sms: u32,
}

impl DeviceContext {
    /// The CPU as the device.
    ///
    /// Reads the machine's capabilities from the system (a few small files); starts no thread
    /// before the first stream.
    ///
    /// # Errors
    /// [`DeviceError::Config`] (permanent) for a limit of zero streams or entries.
    pub fn host(config: HostConfig) -> Result<Self, DeviceError> {
        let core = Arc::new(DeviceCore::new(DriverKind::Host, config.limits())?);
        let driver = Driver::Host(HostDriver::new(Arc::clone(&core), config));
        Ok(Self { inner: Arc::new(Inner { core, capabilities: host::probe(), driver }) })
    }

    /// A simulated device at time zero.
    ///
    /// # Errors
    /// [`DeviceError::Config`] (permanent) for a limit of zero streams or entries.
    pub fn sim(config: SimConfig) -> Result<Self, DeviceError> {
        let core = Arc::new(DeviceCore::new(DriverKind::Sim, config.limits())?);
        let driver = Driver::Sim(SimDevice::new(Arc::clone(&core)));
        Ok(Self { inner: Arc::new(Inner { core, capabilities: config.capabilities(), driver }) })
    }

    /// Views of the device, one for each share: each with streams and a signal of its own, all with one
    /// memory limit. On `host` and `sim` the shares are recorded by the caller alone, and a simulated
    /// view is a world of its own, with its own time.
    ///
    /// # Errors
    /// [`DeviceError::DeviceLost`] (fatal).
    pub fn split(&self, shares: &[PartitionShare]) -> Result<Vec<Self>, DeviceError> {
        self.inner.core.check()?;
        shares.iter().map(|_| self.view()).collect()
    }

    fn view(&self) -> Result<Self, DeviceError> {
        let core = Arc::new(self.inner.core.view()?);
        let driver = match &self.inner.driver {
            Driver::Host(host) => Driver::Host(host.view(Arc::clone(&core))),
            Driver::Sim(_) => Driver::Sim(SimDevice::new(Arc::clone(&core))),
        };
        let capabilities = self.inner.capabilities.clone();
        Ok(Self { inner: Arc::new(Inner { core, capabilities, driver }) })
    }

    /// The driver behind the device.
    #[must_use]
    pub fn kind(&self) -> DriverKind {
        self.inner.core.kind()
    }

    /// What the device is and has, as found when the context was made.
    #[must_use]
    pub fn capabilities(&self) -> &DeviceCapabilities {
        &self.inner.capabilities
    }

    /// The clock that events complete on: the configured one on `host`, virtual time on `sim`.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        match &self.inner.driver {
            Driver::Host(host) => host.clock(),
            Driver::Sim(sim) => sim.clock(),
        }
    }

    /// Rings whenever a recorded event ends, and when the device is lost. One thread may wait on
    /// it, the orchestrator's.
    #[must_use]
    pub fn signal(&self) -> &Arc<Signal> {
        self.inner.core.signal()
    }

    /// Creates a stream. Allocates its queue; on `host` starts its worker thread.
    ///
    /// # Errors
    /// - [`DeviceError::StreamsExhausted`] (transient): as many streams live as the configuration
    ///   allows.
    /// - [`DeviceError::DeviceLost`] (fatal).
    /// - [`DeviceError::Os`]: the system refused the thread.
    pub fn create_stream(&self) -> Result<CudaStream, DeviceError> {
        let core = &self.inner.core;
        core.check()?;
        match &self.inner.driver {
            Driver::Host(host) => Ok(CudaStream::host(Arc::clone(core), host.create_stream()?)),
            Driver::Sim(sim) => Ok(CudaStream::sim(Arc::clone(core), sim.create_stream()?)),
        }
    }

    /// Creates an event that was never recorded. Allocates.
    ///
    /// # Errors
    /// [`DeviceError::DeviceLost`] (fatal).
    pub fn create_event(&self) -> Result<CudaEvent, DeviceError> {
        self.inner.core.check()?;
        Ok(CudaEvent::new(Arc::clone(&self.inner.core)))
    }

    /// Reserves `size` bytes of zeroed memory in one piece, counted against the memory limit as
    /// long as the arena or anything carved from it lives.
    ///
    /// Only address space is taken; a page is committed when it is first touched.
    ///
    /// # Errors
    /// - [`DeviceError::OutOfMemory`] (permanent): the live arenas and `size` exceed the limit.
    /// - [`DeviceError::DeviceLost`] (fatal).
    /// - [`DeviceError::Os`]: the system refused the mapping.
    pub fn reserve_arena(&self, size: Bytes) -> Result<DeviceArena, DeviceError> {
        self.inner.core.check()?;
        DeviceArena::reserve(&self.inner.core, size)
    }

    /// The sum of the live arenas.
    #[must_use]
    pub fn reserved_memory(&self) -> Bytes {
        self.inner.core.reserved()
    }

    /// The hand on time, if the device is simulated.
    #[must_use]
    pub fn simulator(&self) -> Option<&SimDevice> {
        match &self.inner.driver {
            Driver::Sim(sim) => Some(sim),
            Driver::Host(_) => None,
        }
    }
}

impl fmt::Debug for DeviceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceContext")
            .field("capabilities", &self.inner.capabilities)
            .field("limits", &self.inner.core.limits())
            .finish_non_exhaustive()
    }
}

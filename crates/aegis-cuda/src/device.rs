//! A device and its driver: the root everything else is created from.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use aegis_trace::{Bytes, Clock, Nanos};

use crate::capability::{DeviceCapabilities, DriverKind};
use crate::cuda::{CudaConfig, CudaDriver, Timing};
use crate::device_core::{DeviceCore, ForeignUse, Line, MemoryUse};
use crate::driver_memory::{DriverMemory, ForeignCharge};
use crate::error::DeviceError;
use crate::event::CudaEvent;
use crate::foreign_account::ForeignAccount;
use crate::health::DeviceHealth;
use crate::host::{self, HostConfig, HostDriver};
use crate::host_buffer::HostBuffer;
use crate::memory::DeviceArena;
use crate::realtime::{Realtime, RealtimePriority};
use crate::signal::Signal;
use crate::sim::{SimConfig, SimDevice};
use crate::stream::{CudaStream, StreamPriority};

/// A handle to one device, or to one partition of it. Clones share it; any thread may use it.
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

/// A closed set, so an enum.
enum Driver {
    Host(HostDriver),
    Sim(SimDevice),
    Cuda(CudaDriver),
}

/// What one partition of a device is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionShare {
    /// How many multiprocessors at least; the driver rounds up. At least one.
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

    /// A GPU, through NVIDIA's driver, which is loaded at run time.
    ///
    /// Starts the driver and makes (or joins) the primary context of the GPU, which takes tenths of
    /// a second and some hundred MiB of its memory. That memory is measured and charged to the
    /// limit first of all.
    ///
    /// # Errors
    /// - [`DeviceError::NoDriver`] (permanent): there is no driver on this machine.
    /// - [`DeviceError::Config`] (permanent): a limit of zero streams or entries, or an ordinal
    ///   that names no GPU.
    /// - [`DeviceError::OutOfMemory`] (permanent): the context alone exceeds the limit.
    /// - [`DeviceError::Cuda`].
    pub fn cuda(config: CudaConfig) -> Result<Self, DeviceError> {
        let core = Arc::new(DeviceCore::new(DriverKind::Cuda, config.limits())?);
        Self::of_gpu(CudaDriver::open(core, &config)?)
    }

    fn of_gpu(gpu: CudaDriver) -> Result<Self, DeviceError> {
        let (core, capabilities) = (Arc::clone(gpu.core()), gpu.capabilities()?);
        Ok(Self { inner: Arc::new(Inner { core, capabilities, driver: Driver::Cuda(gpu) }) })
    }

    /// Splits the device: one view for each of `shares`, with a signal, streams and events of its
    /// own. All share the memory limit, and a loss is a loss for all of them.
    ///
    /// - `cuda`: each view's streams run on SMs of their own; [`DeviceCapabilities::partition`] says
    ///   how many it got. Memory bandwidth, caches and copy engines stay shared.
    /// - `host`: the views share the processors; the shares are recorded only.
    /// - `sim`: each view is a world of its own, with its own time, streams and losses.
    ///
    /// This context stays usable, for set-up. Each view may have as many streams as the device.
    ///
    /// # Errors
    /// All permanent: [`DeviceError::Config`] for no shares, a share of nothing, or a view that is
    /// a partition already; on `cuda` [`DeviceError::PartitionTooLarge`],
    /// [`DeviceError::DriverTooOld`] and [`DeviceError::Cuda`].
    pub fn split(&self, shares: &[PartitionShare]) -> Result<Vec<DeviceContext>, DeviceError> {
        if shares.is_empty() || shares.iter().any(|share| share.sms == 0) {
            let problem = "must have at least one share, and each at least one SM";
            return Err(DeviceError::Config { field: "partition", problem });
        }
        if self.inner.capabilities.partition.is_some() {
            let problem = "is split already; split the whole device";
            return Err(DeviceError::Config { field: "partition", problem });
        }
        match &self.inner.driver {
            Driver::Cuda(gpu) => gpu.split(shares)?.into_iter().map(Self::of_gpu).collect(),
            Driver::Host(host) => shares.iter().map(|share| self.host_view(host, *share)).collect(),
            Driver::Sim(_) => shares.iter().map(|share| self.world(*share)).collect(),
        }
    }

    fn host_view(&self, host: &HostDriver, share: PartitionShare) -> Result<Self, DeviceError> {
        let core = Arc::new(self.inner.core.view()?);
        let driver = Driver::Host(host.view(Arc::clone(&core)));
        Ok(Self { inner: Arc::new(Inner { core, capabilities: self.part(share), driver }) })
    }

    fn world(&self, share: PartitionShare) -> Result<Self, DeviceError> {
        let core = Arc::new(self.inner.core.world()?);
        let driver = Driver::Sim(SimDevice::new(Arc::clone(&core)));
        Ok(Self { inner: Arc::new(Inner { core, capabilities: self.part(share), driver }) })
    }

    fn part(&self, share: PartitionShare) -> DeviceCapabilities {
        let partition = Some(share.sms);
        DeviceCapabilities { partition, ..self.inner.capabilities.clone() }
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

    /// The clock that events complete on: virtual time on `sim`, else the configured one.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        match &self.inner.driver {
            Driver::Host(host) => host.clock(),
            Driver::Sim(sim) => sim.clock(),
            Driver::Cuda(gpu) => gpu.clock(),
        }
    }

    /// Waits until the signal rings, a recorded event of this view ends, or `until` comes; may
    /// return without any of them.
    ///
    /// On `host` and `sim` this is [`Signal::wait`]. A GPU rings nobody: there the waiting thread
    /// itself asks after the recorded events, in the way that [`CompletionWait`] says. While none is
    /// recorded, and always with [`CompletionWait::Block`], it looks for a ring for `spin` and then
    /// sleeps. One thread at a time may wait. Allocates nothing.
    ///
    /// [`CompletionWait`]: crate::CompletionWait
    /// [`CompletionWait::Block`]: crate::CompletionWait::Block
    pub fn wait(&self, until: Option<Instant>, spin: Nanos) {
        match &self.inner.driver {
            Driver::Host(_) | Driver::Sim(_) => self.signal().wait(until, spin),
            Driver::Cuda(gpu) => gpu.wait(until, spin),
        }
    }

    /// Rings whenever a recorded event is seen to end, and when the device is lost. One thread may
    /// wait on it, the orchestrator's; it waits by [`DeviceContext::wait`].
    #[must_use]
    pub fn signal(&self) -> &Arc<Signal> {
        self.inner.core.signal()
    }

    /// Creates a stream of the lowest priority. Allocates its queue; on `host` starts its worker
    /// thread.
    ///
    /// # Errors
    /// As [`DeviceContext::create_stream_with`].
    pub fn create_stream(&self) -> Result<CudaStream, DeviceError> {
        self.create_stream_with(StreamPriority::LOWEST)
    }

    /// Creates a stream of `priority`, which counts on `cuda` alone: there the device prefers
    /// blocks of the more urgent stream wherever it can start one.
    ///
    /// # Errors
    /// - [`DeviceError::StreamsExhausted`] (transient): as many streams live as the configuration
    ///   allows.
    /// - [`DeviceError::DeviceLost`] (fatal).
    /// - [`DeviceError::Os`]: the system refused the thread.
    /// - [`DeviceError::Cuda`].
    pub fn create_stream_with(&self, priority: StreamPriority) -> Result<CudaStream, DeviceError> {
        let core = &self.inner.core;
        core.check()?;
        match &self.inner.driver {
            Driver::Host(host) => Ok(CudaStream::host(Arc::clone(core), host.create_stream()?)),
            Driver::Sim(sim) => Ok(CudaStream::sim(Arc::clone(core), sim.create_stream()?)),
            Driver::Cuda(gpu) => {
                Ok(CudaStream::cuda(Arc::clone(core), gpu.create_stream(priority.0)?))
            }
        }
    }

    /// Creates an event that was never recorded and keeps the device's time. Allocates.
    ///
    /// # Errors
    /// [`DeviceError::DeviceLost`] (fatal), and on `cuda` [`DeviceError::Cuda`].
    pub fn create_event(&self) -> Result<CudaEvent, DeviceError> {
        self.event(Timing::Timed)
    }

    /// Creates an event that was never recorded and keeps no time of the device, which makes it
    /// cheaper on `cuda`; on the other drivers it is like any other. Allocates.
    ///
    /// # Errors
    /// As [`DeviceContext::create_event`].
    pub fn create_untimed_event(&self) -> Result<CudaEvent, DeviceError> {
        self.event(Timing::Untimed)
    }

    fn event(&self, timing: Timing) -> Result<CudaEvent, DeviceError> {
        let core = &self.inner.core;
        core.check()?;
        match &self.inner.driver {
            Driver::Host(_) | Driver::Sim(_) => Ok(CudaEvent::new(Arc::clone(core))),
            Driver::Cuda(gpu) => {
                Ok(CudaEvent::of_driver(Arc::clone(core), gpu.create_event(timing)?))
            }
        }
    }

    /// Whether the inputs of a stage can be copied to the device while another stage runs and its outputs
    /// leave: each direction takes a copy engine of its own. Always on `sim`.
    ///
    /// # Errors
    /// - [`DeviceError::TooFewCopyEngines`] (permanent): there are not two, or the device does not tell;
    ///   on `host`, where the processor copies, there is none.
    /// - [`DeviceError::DriverTooOld`] (permanent): the driver of the GPU is from before CUDA 11.7.
    pub fn check_uploads_ahead(&self) -> Result<(), DeviceError> {
        match &self.inner.driver {
            Driver::Sim(_) => Ok(()),
            Driver::Host(_) => self.inner.capabilities.check_copy_engines(),
            Driver::Cuda(gpu) => {
                self.inner.capabilities.check_copy_engines()?;
                gpu.check_uploads_ahead()
            }
        }
    }

    /// `length` zeroed bytes on the host for copies to and from the device: page-locked on `cuda`,
    /// ordinary memory elsewhere. Allocates; for set-up.
    ///
    /// # Errors
    /// [`DeviceError::DeviceLost`] (fatal), and on `cuda` [`DeviceError::Cuda`].
    pub fn host_buffer(&self, length: usize) -> Result<HostBuffer, DeviceError> {
        self.inner.core.check()?;
        match &self.inner.driver {
            Driver::Host(_) | Driver::Sim(_) => Ok(HostBuffer::plain(length)),
            Driver::Cuda(gpu) => Ok(HostBuffer::pinned(gpu.pinned(length)?, length)),
        }
    }

    /// Reserves `size` bytes of zeroed memory in one piece, counted against the memory limit as
    /// long as the arena or anything carved from it lives.
    ///
    /// On `host` and `sim` only address space is taken, and a page is committed when it is first
    /// touched; on `cuda` the memory is taken, and this blocks until it is zero.
    ///
    /// # Errors
    /// - [`DeviceError::OutOfMemory`] (permanent): what is charged already and `size` exceed the
    ///   limit.
    /// - [`DeviceError::DeviceLost`] (fatal).
    /// - [`DeviceError::Os`]: the system refused the mapping.
    /// - [`DeviceError::Cuda`]: the GPU has less left than the limit allows.
    pub fn reserve_arena(&self, size: Bytes) -> Result<DeviceArena, DeviceError> {
        let core = &self.inner.core;
        core.check()?;
        match &self.inner.driver {
            Driver::Host(_) | Driver::Sim(_) => DeviceArena::map(core, size),
            Driver::Cuda(gpu) => {
                let allocate = |size, alignment| gpu.allocate(size, alignment);
                DeviceArena::allocate(core, size, allocate)
            }
        }
    }

    /// Charges `bytes` that a library took outside the arenas for its handles and workspaces to the
    /// memory limit, until the result is dropped.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] (permanent): the limit is exceeded. The library has its memory
    /// then all the same: who measured it decides what to do.
    pub fn charge_foreign(&self, bytes: Bytes) -> Result<ForeignCharge, DeviceError> {
        self.charge_foreign_as(ForeignUse::Libraries, bytes)
    }

    /// The same for what else libraries take memory for.
    ///
    /// # Errors
    /// As [`DeviceContext::charge_foreign`].
    pub fn charge_foreign_as(
        &self,
        what_for: ForeignUse,
        bytes: Bytes,
    ) -> Result<ForeignCharge, DeviceError> {
        self.inner.core.charge(Line::Foreign(what_for), bytes).map(ForeignCharge::new)
    }

    /// The account of what is charged by the driver's count, over all views: for one who reads that count
    /// and charges by it. Blocks while another has it, which is for about a millisecond; a thread that has
    /// it must not ask for it again.
    pub fn foreign_account(&self) -> ForeignAccount<'_> {
        self.inner.core.foreign_account()
    }

    /// What the memory limit is charged with, over all views: the sum of the lines of
    /// [`DeviceContext::memory_use`].
    #[must_use]
    pub fn reserved_memory(&self) -> Bytes {
        self.inner.core.memory_use().total()
    }

    /// What the memory limit is charged with, line by line, over all views.
    #[must_use]
    pub fn memory_use(&self) -> MemoryUse {
        self.inner.core.memory_use()
    }

    /// The configured memory limit.
    #[must_use]
    pub fn memory_limit(&self) -> Bytes {
        self.inner.core.limits().memory
    }

    /// Memory by the driver's count, everything that this process takes included; `None` where
    /// there is no driver to ask. Takes about a millisecond; not for the hot path.
    #[must_use]
    pub fn driver_memory(&self) -> Option<DriverMemory> {
        match &self.inner.driver {
            Driver::Host(_) | Driver::Sim(_) => None,
            Driver::Cuda(gpu) => gpu.memory(),
        }
    }

    /// Has the threads that wait in the driver for the ends of this view's streams ask for real-time
    /// priority; nothing is asked where there are none, as anywhere but on `cuda` with
    /// [`CompletionWait::Block`](crate::CompletionWait). Of the streams made so far: blocks until each
    /// thread has answered, so it is for set-up, while nothing runs.
    #[must_use]
    pub fn urge_watchers(&self, priority: RealtimePriority) -> Realtime {
        self.gpu().map_or(Realtime::NotRequested, |gpu| gpu.urge_watchers(priority))
    }

    /// Temperature, clocks, power and what holds the clocks back, now; `None` on everything but a
    /// GPU with NVIDIA's management library. Takes milliseconds; not for the hot path.
    #[must_use]
    pub fn health(&self) -> Option<DeviceHealth> {
        match &self.inner.driver {
            Driver::Host(_) | Driver::Sim(_) => None,
            Driver::Cuda(gpu) => gpu.health(),
        }
    }

    /// The view of a GPU, for the raw views and test kernels of this crate.
    pub(crate) fn gpu(&self) -> Option<&CudaDriver> {
        match &self.inner.driver {
            Driver::Host(_) | Driver::Sim(_) => None,
            Driver::Cuda(gpu) => Some(gpu),
        }
    }

    /// The memory of the device that is free now, whoever uses the rest, at most the limit of the
    /// configuration; `None` where the device does not say.
    ///
    /// On `host`, what the machine says is available to this process, in a few small files; pages of
    /// an arena that were never touched are available. On `sim`, what was last set
    /// ([`SimDevice::set_free_memory`]). On `cuda`, the driver's
    /// count and what the live arenas hold. Another program may take it the moment after.
    #[must_use]
    pub fn free_memory(&self) -> Option<Bytes> {
        let free = match &self.inner.driver {
            Driver::Host(_) => host::available_memory(),
            Driver::Sim(sim) => Some(sim.free_memory()),
            // What our arenas hold is ours to give, whatever they hold it for.
            Driver::Cuda(gpu) => gpu.memory().map(|memory| memory.free + self.memory_use().arenas),
        };
        free.map(|free| free.min(self.inner.core.limits().memory))
    }

    /// The hand on time, if the device is simulated.
    #[must_use]
    pub fn simulator(&self) -> Option<&SimDevice> {
        match &self.inner.driver {
            Driver::Sim(sim) => Some(sim),
            Driver::Host(_) | Driver::Cuda(_) => None,
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

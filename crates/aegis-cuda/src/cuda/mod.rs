//! The GPU through NVIDIA's driver, loaded at run time.
//!
//! ```text
//!   library      entry points of the driver          error        its codes, and what they leave
//!   context      the primary context of one GPU      capabilities what the GPU is and has
//!   stream       event   graph   memory   pinned     one owned handle each
//!   lane         what is put on a stream             capture      instead of running it
//!   frame        what a graph has around the work of a stage
//!   partition    a part of the SMs                   completion   who sees that work is done
//!   entries      how much of a stream is unfinished
//!   nvml         health, and the driver's own count of memory
//!   observer     a GPU from outside              runtime_library the version of CUDA's runtime
//!   kernels      probe   work of our own, for tests (feature `test-kernels`)
//! ```
//!
//! # Invariants
//! 1. Every call is checked, and its error names the call and keeps the driver's code.
//! 2. A code that ends the context loses the device, for all its views and for good; so does any
//!    answer but yes and no to the question whether a recorded event has completed.
//! 3. No handle leaves the crate but through [`crate::interop`].
#![allow(unsafe_code)] // A room with many windows: docs/soundness.md argues all of it.

mod capabilities;
mod capture;
mod completion;
mod context;
mod entries;
pub(crate) mod error;
mod event;
mod frame;
mod graph;
#[cfg(feature = "test-kernels")]
pub(crate) mod kernels;
mod lane;
mod library;
mod memory;
mod nvml;
mod observer;
mod partition;
mod pinned;
#[cfg(feature = "test-kernels")]
pub(crate) mod probe;
mod runtime_library;
mod stream;

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use aegis_trace::{Bytes, Clock, MonotonicClock, Nanos};
use serde::{Deserialize, Serialize};

use self::context::Machine;
use self::partition::Partition;
use self::stream::RawStream;
use crate::capability::DeviceCapabilities;
use crate::device::PartitionShare;
use crate::device_core::{Charge, DeviceCore, Limits, Line};
use crate::driver_memory::{DriverMemory, MemoryCount};
use crate::error::DeviceError;
use crate::event::DriverEvent;
use crate::health::DeviceHealth;
use crate::realtime::{Realtime, RealtimePriority};

pub(crate) use self::capture::Capture;
pub(crate) use self::completion::{Completions, Edges};
pub(crate) use self::event::{RawEvent, Timing};
pub(crate) use self::frame::FrameEvents;
pub use self::graph::{CudaGraph, GraphUpdate};
pub(crate) use self::lane::CudaLane;
pub(crate) use self::memory::DeviceMemory;
pub use self::observer::GpuObserver;
pub(crate) use self::pinned::PinnedPages;
pub use self::runtime_library::cuda_runtime_version;

/// The limits, the GPU and the clock of a `cuda` device.
#[derive(Clone, Debug)]
pub struct CudaConfig {
    /// Which GPU, as the driver counts them (`CUDA_VISIBLE_DEVICES` applies).
    pub ordinal: u16,
    /// The most that everything charged may sum up to: the context itself, the live arenas, and
    /// what libraries took. What they have taken before anybody could refuse it is charged beyond it
    /// too, and then nothing more is granted.
    pub memory_limit: Bytes,
    /// The most streams of one view that may live at once; at least one.
    pub max_streams: u16,
    /// The most unfinished entries of one stream, work and recorded events together; from 1 to 65 536.
    pub stream_depth: usize,
    /// How the end of work is noticed.
    pub wait: CompletionWait,
    /// The clock events complete on.
    pub clock: MonotonicClock,
}

/// How a thread that waits for the GPU passes the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompletionWait {
    /// It asks again and again: the quickest, with a core of its own busy.
    Spin,
    /// It asks and lets others on between two questions.
    Yield,
    /// It sleeps, and is woken by a thread that sleeps in the driver: the slowest, and no core is
    /// busy.
    Block,
}

impl CudaConfig {
    pub(crate) fn limits(&self) -> Limits {
        Limits { memory: self.memory_limit, streams: self.max_streams, depth: self.stream_depth }
    }
}

/// The error of a driver without `call`, which inputs ahead take.
const fn no_uploads_ahead(call: &'static str) -> DeviceError {
    DeviceError::DriverTooOld { call, purpose: "copying inputs ahead" }
}

/// What a driver lacks that cannot pass over the copies of a stage.
const NO_NODE_SWITCH: DeviceError = no_uploads_ahead("cuGraphNodeSetEnabled");
/// What a driver lacks that cannot have a stream wait for a number, so that it cannot be asked for the
/// order of its uploads.
const NO_VALUE_WAIT: DeviceError = no_uploads_ahead("cuStreamWaitValue32_v2");

/// One view of a GPU: all of it, or a partition of its SMs.
pub(crate) struct CudaDriver {
    completions: Arc<Completions>,
    core: Arc<DeviceCore>,
    partition: Option<Arc<Partition>>,
    /// What the context itself takes, for as long as any view lives.
    context: Arc<Charge>,
}

impl CudaDriver {
    /// Retains the primary context of the configured GPU and charges its memory.
    pub(crate) fn open(core: Arc<DeviceCore>, config: &CudaConfig) -> Result<Self, DeviceError> {
        let machine = Arc::new(Machine::open(Arc::clone(&core), config)?);
        let taken = memory_of_context(&machine);
        let context = Arc::new(core.charge(Line::Context, taken)?);
        let owner = Arc::clone(&core);
        let completions = Completions::new(machine, owner, config.clock, config.wait);
        Ok(Self { completions: Arc::new(completions), core, partition: None, context })
    }

    pub(crate) fn capabilities(&self) -> Result<DeviceCapabilities, DeviceError> {
        let sms = self.partition.as_ref().map(|partition| partition.sms());
        capabilities::probe(self.machine(), sms)
    }

    /// One view for each of `shares`, on SMs of its own.
    pub(crate) fn split(&self, shares: &[PartitionShare]) -> Result<Vec<Self>, DeviceError> {
        if self.partition.is_some() {
            let problem = "was split already; split the whole device";
            return Err(DeviceError::Config { field: "partition", problem });
        }
        let view = |partition| {
            let core = Arc::new(self.core.view()?);
            let of = &self.completions;
            let machine = Arc::clone(of.machine());
            let owner = Arc::clone(&core);
            let completions = Completions::new(machine, owner, of.clock(), of.way_of_waiting());
            let (completions, context) = (Arc::new(completions), Arc::clone(&self.context));
            Ok(Self { completions, core, partition: Some(partition), context })
        };
        partition::split(self.machine(), shares)?.into_iter().map(view).collect()
    }

    /// Whether the driver can pass over the copies of a stage, and can be asked how it orders them.
    ///
    /// # Errors
    /// [`DeviceError::DriverTooOld`] before CUDA 11.7.
    pub(crate) fn check_uploads_ahead(&self) -> Result<(), DeviceError> {
        let api = self.machine().api();
        api.cuGraphNodeSetEnabled.map(|_| ()).ok_or(NO_NODE_SWITCH)?;
        api.cuStreamWaitValue32_v2.map(|_| ()).ok_or(NO_VALUE_WAIT)
    }

    pub(crate) fn core(&self) -> &Arc<DeviceCore> {
        &self.core
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.completions.clock())
    }

    pub(crate) fn wait(&self, until: Option<Instant>, spin: Nanos) {
        self.completions.wait(until, spin);
    }

    pub(crate) fn create_stream(&self, urgency: u8) -> Result<CudaLane, DeviceError> {
        // Streams that were dropped before their last event ended may have ended since.
        self.completions.poll();
        self.completions.reap();
        let id = self.core.take_slot()?;
        let opened = RawStream::new(self.machine(), self.partition.as_ref(), urgency)
            .and_then(|(stream, urgency)| Ok((self.completions.open(id, stream)?, urgency)));
        match opened {
            Ok((lane, urgency)) => {
                let (completions, partition) =
                    (Arc::clone(&self.completions), self.partition.clone());
                Ok(CudaLane::new(completions, lane, partition, urgency))
            }
            Err(error) => {
                self.core.release_slot(id);
                Err(error)
            }
        }
    }

    pub(crate) fn create_event(&self, timing: Timing) -> Result<DriverEvent, DeviceError> {
        let wait = self.completions.way_of_waiting();
        let event = RawEvent::new(self.machine(), timing, wait)?;
        Ok(DriverEvent { event: Arc::new(event), completions: Arc::clone(&self.completions) })
    }

    pub(crate) fn allocate(
        &self,
        size: usize,
        alignment: u64,
    ) -> Result<DeviceMemory, DeviceError> {
        DeviceMemory::new(self.machine(), size, alignment)
    }

    pub(crate) fn pinned(&self, length: usize) -> Result<PinnedPages, DeviceError> {
        PinnedPages::new(self.machine(), length)
    }

    /// Memory by the driver's count.
    pub(crate) fn memory(&self) -> Option<DriverMemory> {
        let machine = self.machine();
        let (free, total) = machine.memory_info().ok()?;
        let by_process = machine.nvml().and_then(|nvml| nvml.memory_of_this_process());
        let fallen = || Some(Bytes(machine.free_before()?.as_u64().saturating_sub(free.as_u64())));
        let (process, counted) = match by_process {
            Some(bytes) => (Some(bytes), MemoryCount::PerProcess),
            None => (fallen(), MemoryCount::FallOfFree),
        };
        Some(DriverMemory { process, counted, graphs: machine.graph_memory(), free, total })
    }

    /// Has those who watch the streams of this view ask for `priority`.
    pub(crate) fn urge_watchers(&self, priority: RealtimePriority) -> Realtime {
        self.completions.urge_watchers(priority)
    }

    pub(crate) fn health(&self) -> Option<DeviceHealth> {
        self.machine().nvml().map(|nvml| nvml.health())
    }

    /// Makes the context current on the calling thread, for code of others that expects it there.
    pub(crate) fn make_current(&self) -> Result<(), DeviceError> {
        self.machine().bind()
    }

    /// The context that stands for this view: the partition's, or the primary one.
    pub(crate) fn context(&self) -> Option<NonNull<c_void>> {
        let primary = self.machine().primary();
        let context = self.partition.as_ref().map_or(primary, |partition| partition.context());
        NonNull::new(context.cast())
    }

    pub(crate) fn machine(&self) -> &Arc<Machine> {
        self.completions.machine()
    }
}

/// What is charged for the context where nobody tells what making it took. An H100 with driver 580
/// took 518 MiB: rounded up, since too little would let the device be filled beyond its limit.
const CONTEXT_RESERVE: Bytes = Bytes::from_mib(768);

/// What making the context took: by the count for this process, else by the fall of free memory,
/// which other processes can disturb; a reserve without the management library, which has to be asked
/// before there is a context.
fn memory_of_context(machine: &Machine) -> Bytes {
    let by_process = machine.nvml().and_then(|nvml| nvml.memory_of_this_process());
    let fallen = || {
        let after = machine.nvml()?.memory()?.free;
        Some(Bytes(machine.free_before()?.as_u64().saturating_sub(after.as_u64())))
    };
    by_process.or_else(fallen).unwrap_or(CONTEXT_RESERVE)
}

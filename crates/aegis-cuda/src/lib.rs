//! Safe, owned, checked access to the device: capabilities, streams, events, memory.
//!
//! Everything above asks this crate three things: what can the device do ([`DeviceCapabilities`]),
//! run this in order ([`CudaStream`], [`CudaEvent`]), and give me this much memory once
//! ([`DeviceArena`]). A [`DeviceContext`] answers them through one of these drivers:
//!
//! ```text
//!   driver   a stream is            time is             memory is
//!   host     a worker thread        the machine's       anonymous pages of this process
//!   sim      a queue of costs       moved by hand       the same, reserved without commitment
//!   cuda     the GPU's               the machine's       on the GPU, one allocation per arena
//! ```
//!
//! The orchestration above is the same over all of them. Read [`device`] first, then [`stream`]
//! and [`event`], then [`memory`].
//!
//! ```
//! use aegis_cuda::{DeviceContext, EventStatus, SimConfig, SimWork};
//! use aegis_trace::{Bytes, Nanos, Timestamp};
//!
//! let config = SimConfig { memory_limit: Bytes::from_mib(64), max_streams: 2, stream_depth: 8 };
//! let device = DeviceContext::sim(config)?;
//! let (stream, done) = (device.create_stream()?, device.create_event()?);
//! stream.enqueue_sim(SimWork { cost: Nanos::from_micros(40), fault: None })?;
//! stream.record(&done)?;
//! assert_eq!(done.query()?, EventStatus::Pending);
//!
//! let world = device.simulator().expect("the device is simulated");
//! world.advance_to(world.next_event().expect("the work ends"));
//! assert_eq!(done.query()?, EventStatus::Complete { at: Timestamp(40_000) });
//! # Ok::<(), aegis_cuda::DeviceError>(())
//! ```
//!
//! # Invariants
//! 1. No raw handle or pointer leaves the crate but through [`interop`], which only backends use.
//! 2. Every call of the operating system is checked, and its error names the call.
//! 3. What runs per inference (`enqueue_*`, `record`, `query`) allocates nothing but the text of a
//!    fault, and on `host` takes no lock and makes no system call unless it must wake a thread. On
//!    `cuda` it takes a lock of its stream for a few instructions and a call of the driver. The
//!    `sim` driver, which no deadline waits for, takes one short lock.
//! 4. Limits (memory, streams, queue depth) are stated by the caller; reaching one is an error with
//!    the numbers, never a wait.
//! 5. A fault of one piece of work reaches the first event recorded after it, and nothing else;
//!    only a fatal one reaches the whole device, and then for good.
//! 6. Nothing is assumed of the device: what cannot be found out is `None`.
//! 7. `unsafe` appears in `cuda`, `copy_load`, `upload_work`, `gate`, [`memory`], [`host_buffer`],
//!    [`interop`] and, for system calls, in [`realtime`]; `docs/soundness.md` argues it.
//! 8. The driver of a GPU is found at run time: the same binary builds without a toolkit and starts
//!    without a GPU.
#![deny(unsafe_code)]
#![expect(unexpected_cfgs, reason = "`--cfg loom` selects the models in `signal` and `event`")]

pub mod capability;
mod copy_load;
mod cuda;
pub mod device;
mod device_core;
mod driver_memory;
pub mod error;
pub mod event;
pub mod fault;
mod foreign_account;
mod gate;
pub mod health;
pub mod host;
pub mod host_buffer;
pub mod interop;
pub mod memory;
#[allow(unsafe_code, reason = "one system call")]
pub mod realtime;
pub mod signal;
pub mod sim;
pub mod stage;
pub mod state;
pub mod stream;
mod sync;
mod thread_setup;
mod upload_order;
mod upload_work;
mod uploads_probe;

pub use capability::{
    ComputeCapability, ComputeUnits, DeviceCapabilities, DriverKind, GpuCapabilities,
};
pub use copy_load::CopyLoad;
#[cfg(feature = "test-kernels")]
pub use cuda::kernels::{SMS_MAX, TestKernels};
#[cfg(feature = "test-kernels")]
pub use cuda::probe::{AgainEvents, Between, ProbeJob, ProbeMarks, StageProbe};
pub use cuda::{
    CompletionWait, CudaConfig, CudaGraph, GpuObserver, GraphUpdate, cuda_runtime_version,
};
pub use device::{DeviceContext, PartitionShare};
pub use device_core::{ForeignUse, MemoryUse};
pub use driver_memory::{DriverMemory, ForeignCharge, MemoryCount};
pub use error::DeviceError;
pub use event::{CudaEvent, EventStatus};
pub use fault::{RefusedAllocation, WorkFault};
pub use foreign_account::{CountedMoment, ForeignAccount, ForeignParts};
pub use health::{DeviceHealth, ThrottleReasons};
pub use host::{HostConfig, HostWork};
pub use host_buffer::HostBuffer;
pub use memory::{DeviceArena, DeviceBuffer, SharedRegion};
pub use realtime::{Realtime, RealtimePriority, RealtimeWork, Throttling};
pub use signal::Signal;
pub use sim::{SimConfig, SimDevice, SimFault, SimWaits, SimWork};
pub use stage::{CopyMark, StageEvents, StageLengths, UploadEvents};
pub use state::{ClockRange, DeviceState, ThrottleReason};
pub use stream::{CudaStream, StreamPriority};
pub use thread_setup::{ThreadRequest, ThreadSetup};
pub use upload_order::{UploadOrder, VoidRounds};

//! AegisRT: many inference models on one device, each proved beforehand to meet its deadline.
//!
//! A [`Runtime`] owns one device. A model is [loaded](Runtime::load), then
//! [admitted](Runtime::admit): admission answers *yes* with a worst-case response time, or *no*
//! with the inequality that failed. After [`Runtime::start`], jobs are
//! [submitted](ModelHandle::submit) and waited for, and every decision is in the trace.
//!
//! ```
//! use aegis::{Bytes, ModelSource, Nanos, Overheads, PolicyKind, Runtime, Tensor, Terms};
//! use aegis::{DType, ModelDescription, SimModel, TensorSpec};
//!
//! # fn main() -> Result<(), aegis::Error> {
//! let runtime = Runtime::builder()
//!     .sim(Bytes::from_mib(64)) // Virtual time; `.host(..)` is the CPU.
//!     .streams(1)
//!     .policy(PolicyKind::Edf)
//!     .queue_depth(16)
//!     .max_models(8)
//!     .overheads(Overheads::default())
//!     .trace_capacity(1024)
//!     .build()?;
//!
//! // A declared model; `ModelSource::onnx("camera.onnx")` is a real one.
//! let x = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![1, 2] };
//! let description = ModelDescription { inputs: vec![x.clone()], outputs: vec![x], stages: 1 };
//! let cost = Nanos::from_millis(4);
//! let carried = Bytes::ZERO;
//! let model = SimModel { description, persistent: Bytes(4096), scratch: Bytes(4096), carried };
//! let source = ModelSource::Sim { model, costs: vec![cost] };
//!
//! let camera = runtime.load("camera", &source)?;
//! let camera = runtime
//!     .admit(camera, &Terms::periodic(cost, Nanos::from_millis(10), Bytes::from_mib(1)))?;
//! runtime.start()?;
//!
//! let job = camera.submit(&[Tensor::f32("x", &[1, 2], &[0.5, 1.5])])?;
//! let outputs = job.wait()?;
//! assert_eq!(outputs.f32("x")?, [0.5, 1.5]); // A simulated model echoes its inputs.
//! assert_eq!(outputs.timing().response, cost);
//!
//! runtime.stop()?;
//! let report = runtime.report();
//! assert_eq!(report.models[0].observed.counts.missed, 0);
//! let bound = report.models[0].bound.expect("a guaranteed model has one");
//! assert!(report.models[0].observed.response.max <= bound);
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//! 1. No type of a foreign library appears in a signature of this crate.
//! 2. Features only add: without `onnx`, `tvm` or `trt` nothing of that runtime is built. The exception
//!    is `trt-enterprise`, which exchanges TensorRT-RTX for TensorRT.
//! 3. The program `aegis` uses this crate alone, and `aegis-verify` to check certificates.
#![forbid(unsafe_code)]

mod aggressor;
mod bargain;
mod builder;
mod chain;
mod device_facts;
pub mod drive;
pub mod engine;
pub mod environment;
mod error;
pub mod evidence;
mod handle;
#[cfg(feature = "fault-injection")]
mod inject;
pub mod live;
pub mod log;
mod margin;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod narrate;
pub mod observer;
pub mod page;
mod partition;
pub mod pipeline;
pub mod plan;
pub mod plot;
pub mod profile;
pub mod replay;
mod report;
mod runtime;
mod source;
pub mod task_sets;
mod tensor;
mod trace_output;
mod trace_pump;
pub mod wcet;
mod wording;
pub mod workload;

pub use aegis_context::{
    BackendError, ContextError, DType, InputError, ModelDescription, ResourceBudget, SimModel,
    TensorSpec,
};
pub use aegis_cuda::{
    CompletionWait, ComputeUnits, DeviceCapabilities, DeviceError, DeviceHealth, DriverKind,
    DriverMemory, GpuCapabilities, GpuObserver, MemoryCount, Realtime, ThreadSetup,
    ThrottleReasons, cuda_runtime_version,
};
pub use aegis_memory::{Band, PressureThresholds};
pub use aegis_sched::admission::Terms;
pub use aegis_sched::analysis::TimeModel;
pub use aegis_sched::dispatch::OverrunPolicy;
pub use aegis_sched::metrics::{Broken, Counts, Snapshot, Summary};
pub use aegis_sched::policy::PolicyKind;
pub use aegis_sched::task::Overheads;
pub use aegis_trace::export;
pub use aegis_trace::{
    Assumption, Bytes, Category, Clock, DropReason, EventKind, JobId, ManualClock, ModelId, Nanos,
    PressureLevel, Query, Record, Refusal, ServiceTerms, Staleness, SubmitRefusal, Timestamp,
    Trace, TraceError, TraceEvent,
};

pub use bargain::Asked;
pub use builder::{DeviceChoice, RuntimeBuilder};
pub use chain::{ChainRefusal, ChainReport};
pub use device_facts::{DeviceFacts, MemoryOutlook};
pub use error::Error;
pub use handle::{Job, ModelHandle, Outputs, Timing};
#[cfg(feature = "fault-injection")]
pub use inject::{FaultSwitch, InjectedFault};
pub use margin::{CounterOffer, Margins, ModelSensitivity};
pub use observer::TraceObserver;
pub use partition::PartitionSpec;
pub use pipeline::{Pipeline, Verdict};
pub use report::{
    DriverMemoryReport, ExecutorReport, MemoryReport, ModelReport, PartitionReport, RealtimeReport,
    Report,
};
pub use runtime::Runtime;
pub use source::{GpuOptions, LoadedModel, MemoryNeed, ModelSource};
pub use tensor::Tensor;
pub use trace_pump::{PATIENCE, TracePump, TraceSink, TraceSummary};

/// The README, whose examples in Rust are compiled and run with those of this crate.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

//! The vocabulary of AegisRT and the record of what happened.
//!
//! Every other crate speaks in the units, ids and events defined here, and this crate knows none
//! of them. Read [`event`] first: it lists all that can happen; then [`collector`] for how it is
//! recorded.
//!
//! # Invariants
//! 1. Time is integer nanoseconds. No floating-point number takes part in a decision.
//! 2. A [`Timestamp`] is a point, a [`Nanos`] a length; two points have no sum.
//! 3. [`TraceEvent`], [`Reason`], [`Refusal`] and [`Assumption`] are closed: a new kind of fact is
//!    a new variant, never a new string.
//! 4. Recording an event allocates nothing, never blocks, and never loses an event silently: a
//!    full ring counts what it dropped, and a trace with drops says so.
//! 5. This crate depends on no other crate of ours.
#![forbid(unsafe_code)]

pub mod category;
pub mod clock;
pub mod collector;
pub mod error;
pub mod event;
pub mod executor;
pub mod export;
pub mod id;
pub mod kind;
pub mod model;
pub mod pressure;
pub mod query;
pub mod refusal;
pub mod service;
pub mod unit;

pub use category::Category;
pub use clock::{Clock, ManualClock, MonotonicClock};
pub use collector::{Record, Recorder, TraceCollector};
pub use error::TraceError;
pub use event::{Assumption, DropReason, Reason, Staleness, SubmitRefusal, TraceEvent};
pub use executor::{ExecutorConfig, Overheads, OverrunPolicy, PolicyKind};
pub use id::{JobId, ModelId, PartitionId, StageIndex, StreamId, TensorId};
pub use kind::EventKind;
pub use model::{AdmittedModel, AskedModel, JobLimits, RefusedModel, StageWatch};
pub use pressure::PressureLevel;
pub use query::{Query, Trace};
pub use refusal::{Limit, Refusal};
pub use service::ServiceTerms;
pub use unit::{Bytes, Cut, Nanos, Rounding, Timestamp};

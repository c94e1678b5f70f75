//! One model, one budget, one fault boundary.
//!
//! This crate is the seam between AegisRT and the runtimes that execute models. A runtime
//! implements [`RuntimeBackend`]; an [`ExecutionContext`] wraps one backend with its
//! [`ResourceBudget`], its job slots and its state, and is the only way to launch it. Read
//! [`backend`] first, then [`context`].
//!
//! # Invariants
//! 1. Each model has exactly one context, and a context is used by one thread at a time (it is
//!    `Send`, and every operation takes `&mut self`).
//! 2. Budgets are hard: what exceeds one is refused with numbers, never granted in part.
//! 3. A fault that is not fatal stays inside its context: the context turns Faulted, launches
//!    nothing more, and keeps its memory reserved until eviction.
//! 4. Between admission and eviction nothing here allocates on the launch path.
#![forbid(unsafe_code)]

pub mod agreement;
pub mod backend;
pub mod budget;
pub mod chain;
pub mod context;
pub mod description;
pub mod error;
pub mod foreign;
pub mod host_stage;
pub mod named;
pub mod sample;
pub mod served;
pub mod sim;
pub mod slot;
pub mod streams;
#[cfg(test)]
mod testing;
mod uploads;

pub use backend::{RuntimeBackend, UploadsAhead};
pub use budget::{Charge, ComputeAccount, MemoryLedger, ResourceBudget};
pub use context::{ContextState, ExecutionContext};
pub use description::{DType, ModelDescription, TensorSpec};
pub use error::{BackendError, ContextError, InputError};
pub use host_stage::HostStage;
pub use served::Served;
pub use sim::{SimBackend, SimCopies, SimModel};
pub use slot::{JobOutcome, JobSlot, SlotPool};
pub use streams::{Awaited, BusyStream, IdleStream, StageTimes, StreamPool, UploadedStream, Whose};

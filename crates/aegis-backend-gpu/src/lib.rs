//! What every backend does with a model on a GPU, whatever its runtime.
//!
//! ```text
//!   memory     what a model lives in: tensors with a name, scratch that others share, what it keeps
//!   programs   what a runtime does: enqueue one run of a stage                       (the only seam)
//!   trial      which graphs are to be trusted: captured, replayed in poisoned scratch, compared
//!   prepared   warm-up, the trial, and then job after job: copies in, graphs, copies out
//! ```
//! A backend says how it loads a model, measures it and runs a stage of it; all between that and the
//! orchestrator is here, once. Read [`Programs`] first, then [`Prepared`].
//!
//! # Invariants
//! 1. A graph is launched only after its outputs were seen to be those of the plain run, with its
//!    scratch full of what is not a number (`trial`).
//! 2. The copies of a job's inputs are enqueued in one place, and so are those of its outputs: `uploads`
//!    and `downloads`.
//! 3. What is enqueued never outlives what it uses (`prepared`, invariant 2).
#![deny(unsafe_code)]

pub mod memory;
pub mod prepared;
pub mod programs;

mod downloads;
#[allow(unsafe_code, reason = "what the device does for a model is here, and only here")]
mod transfer;
mod trial;
mod uploads;

pub use memory::Memory;
pub use prepared::{Prepared, Setting, not_wanted};
pub use programs::{Plain, Programs};

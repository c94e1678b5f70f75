//! When work runs, and the proof that it may.
//!
//! [`task`] is what a model promises and asks for; [`analysis`] decides whether a set of tasks can
//! keep all its deadlines; [`admission`] adds memory and budgets and commits all or nothing;
//! [`policy`], [`queue`] and [`dispatch`] run what was admitted exactly as the analysis assumed;
//! [`sim`] attacks the bounds with the same code in virtual time, and [`replay`] runs it again over
//! the log of a run.
//!
//! # Invariants
//! 1. Integers decide. Floating point appears in [`metrics`], only for display, and in [`wcet`], whose
//!    bounds are whole nanoseconds rounded up.
//! 2. What was analysed is what runs: the analysis is told the same overheads, policy and stages
//!    that the dispatcher uses and audits.
//! 3. This crate knows no runtime: backends reach it as `dyn RuntimeBackend`.
//! 4. No clock is read here but by the orchestration thread.
#![forbid(unsafe_code)]

pub mod admission;
pub mod analysis;
pub mod dispatch;
pub mod metrics;
pub mod policy;
pub mod queue;
pub mod replay;
pub mod sim;
pub mod submit;
pub mod task;
pub mod wcet;

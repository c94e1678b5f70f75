//! The promises of the crate, through its public API alone.
//!
//! Everything the fast code decides is decided again by a slow, obvious twin: plans by [`twin`],
//! which compares every pair of tensors, and the sub-allocator by a bitmap.

mod checker;
mod first_fit;
mod networks;
mod orchestrator;
mod partitions;
mod placing;
mod planning;
mod problems;
mod requests;
mod twin;
mod views;
mod worked_examples;

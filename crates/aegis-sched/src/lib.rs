//! When work runs, and the proof that it may.
#![forbid(unsafe_code)]

pub mod policy;

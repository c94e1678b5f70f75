//! Exports: one file per format.
//!
//! JSON Lines ([`json`]) is the lossless log and the format replay will read. The Perfetto
//! protobuf export takes its place here as `perfetto.rs` with its own issue.

pub mod json;

//! Exports: one file per format.
//!
//! JSON Lines ([`json`]) is the lossless log, which replay and explanations read. The others are
//! pictures of it, for people: Perfetto's protobuf ([`perfetto`]) and Chrome's trace JSON
//! ([`chrome`]). What they show is decided once, in `timeline`; [`mod@format`] chooses among the three by
//! the name of a file, and [`convert`] makes a picture of a log.
//!
//! # Invariants
//! 1. Nothing here runs on a recording thread: what is written was taken out of the rings before.
//! 2. Memory does not grow with the trace.

pub mod chrome;
pub mod convert;
pub mod format;
pub mod json;
pub mod perfetto;
mod timeline;

pub use self::timeline::End;

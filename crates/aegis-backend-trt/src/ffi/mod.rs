//! The foreign calls, and nothing else.
//!
//! Everything unsafe of this crate is here: loading the library, the allocator that it is given,
//! engines at raw addresses, and what the device does for
//! a mock of one. The rest of the crate sees the safe types
//! [`Engine`] and [`Version`].
//!
//! # Invariants
//! 1. The library is never unloaded, and its log never dropped.
//! 2. Of an engine the context goes first, then the engine, then the runtime with its allocator; the
//!    memory that it was given is its caller's, who drops it after.
//! 3. No Rust panic crosses into C++: callbacks do not panic, and abort rather than unwind if they
//!    ever should.
#![allow(unsafe_code)] // The room with a window: docs/soundness.md argues all of it.

mod allocator;
#[cfg(feature = "mock")]
mod device;
mod engine;
mod loader;

#[cfg(feature = "mock")]
pub(crate) use device::{fill_scratch, gather, scatter};
pub(crate) use engine::{Addresses, Engine, header, sound};
pub(crate) use loader::{Version, load_library, load_parser, logger};

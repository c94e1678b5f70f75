//! TensorRT behind `RuntimeBackend`.
//!
//! The library is loaded at run time (`library.rs`): TensorRT-RTX, or with the feature `enterprise`
//! TensorRT. A model is one serialised engine, or a chain of engines that are its stages
//! (`engine.rs`); `build.rs` makes an engine from an ONNX file, as a tool.
//!
//! # Invariants
//! 1. Shapes are static; an engine with a dynamic dimension is refused by name.
//! 2. An engine's scratch is the region that the memory plan gave it, and what it keeps on the device
//!    comes from the buffer that was planned for it. What it asks for beyond is refused.
//! 3. It runs on the stream of its job, and on auxiliary streams that are the model's own.
//! 4. What the library refuses is an error with the library's own words; its log goes to `tracing`.
//! 5. All foreign calls are in `ffi/`; nothing else in this crate is unsafe.
//!
//! Without the feature `rtx` the crate is empty, and building it needs nothing of TensorRT.
#![deny(unsafe_code)]

#[cfg(feature = "rtx")]
mod build;
#[cfg(feature = "rtx")]
mod engine;
#[cfg(feature = "rtx")]
mod facts;
#[cfg(feature = "rtx")]
mod ffi;
#[cfg(feature = "rtx")]
mod gpu;
#[cfg(feature = "rtx")]
mod inspect;
#[cfg(feature = "rtx")]
mod library;
#[cfg(feature = "rtx")]
mod log;
#[cfg(feature = "mock")]
pub mod mock;
#[cfg(feature = "rtx")]
mod persistent;
#[cfg(feature = "rtx")]
mod refusal;
#[cfg(feature = "rtx")]
mod tensors;

#[cfg(feature = "rtx")]
pub use self::build::{BuildOptions, BuiltEngine, build_engine};
#[cfg(feature = "rtx")]
pub use self::engine::{LoadOptions, TrtBackend};
#[cfg(feature = "rtx")]
pub use self::gpu::Gpu;
#[cfg(feature = "rtx")]
pub use self::inspect::{Inspection, inspect};
#[cfg(feature = "rtx")]
pub use self::library::{FOLDER_VARIABLE, Library, RUNTIME};

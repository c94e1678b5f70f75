//! ONNX Runtime behind `RuntimeBackend`.
//!
//! The library is loaded at run time ([`library`]); a model is one ONNX file, or a chain of files
//! that are its stages ([`engine`]). Inputs and outputs are bound once to buffers of our arena, and
//! what the runtime allocates while it runs comes from the model's scratch region ([`scratch`]).
//!
//! # Invariants
//! 1. Shapes are static; a dynamic dimension is refused by name when the model is loaded.
//! 2. While a stage runs, every tensor its thread allocates is served from the model's scratch
//!    region. One that does not fit ends the run as that model's fault, and nobody else's.
//! 3. Scratch that a run is using serves no other run, whatever the schedule says: the second is
//!    refused.
//! 4. All foreign calls are in `ffi/`; nothing else in this crate is unsafe.
//!
//! # What is not in the arena
//! On the CPU, weights and the runtime's own structures live in ONNX Runtime's heap. They are
//! measured around loading ([`heap`]), charged to the model's budget, and reserved in the memory
//! plan as an address range that stays untouched, so the sum is hard although the bytes are
//! elsewhere.
//!
//! A run also uses the C heap for what is no tensor: shapes, the frame of the execution, closures
//! for a pool of threads. All of it is freed by the end of the run (a test sees that the heap does
//! not grow). Observed with version 1.31.1 and the golden models on one thread: 25 to 240 blocks a
//! run, none above a few kilobytes. Matrix kernels keep one packing buffer for each thread that runs
//! them, made at that thread's first run and not part of any model's figure.
//!
//! With more than one thread, the threads of the pool work on tensors that the stage's thread has
//! allocated. None was seen to ask for one itself; if a kernel ever did, the heap would serve it,
//! and [`scratch::spilled`] would count it.
#![deny(unsafe_code)]

pub mod engine;
#[allow(unsafe_code, reason = "the foreign calls are here, and only here")]
mod ffi;
pub mod gpu;
pub mod heap;
pub mod library;
pub mod scratch;
mod session;
mod tensors;

pub use engine::{LoadOptions, OnnxBackend};
pub use gpu::Gpu;
pub use library::Library;

//! Apache TVM behind `RuntimeBackend`.
//!
//! The libraries are loaded at run time ([`library`]); a model is one compiled module, or a chain of
//! modules that are its stages ([`engine`]), each with a manifest that says what its tensors are
//! ([`manifest`]). Weights, inputs, outputs and all that a run allocates lie in the arena: the functions
//! by which TVM's virtual machine and its kernels take memory are replaced by ours (`ffi/`,
//! `docs/adr/0061`).
//!
//! # Invariants
//! 1. Shapes are static; a dynamic dimension is refused by name when the model is loaded.
//! 2. While a stage runs, all memory for tensors and kernels that its thread asks for is served from the
//!    model's scratch region. What does not fit ends the run as that model's fault, and nobody else's.
//! 3. Scratch that a run is using serves no other run of TVM, whatever the schedule says: the second is
//!    refused.
//! 4. A stage takes one core: loops that kernels would share out run on the stage's thread.
//! 5. All foreign calls are in `ffi/`; nothing else in this crate is unsafe.
//!
//! # What is not in the arena
//! The machine's program and its handles live in the heap, measured around loading, and the code is
//! mapped from a file; both are charged to the model as memory that stays untouched in the plan. A run
//! also uses the heap for what is no tensor: headers of tensors, shapes, registers. All of it is freed
//! by the end of the run (a test sees that the heap does not grow). A module that keeps its constants
//! itself, which ours do not, has them in the heap too.
//!
//! # What is not checked
//! A compiled module is native code, trusted as a library is. Its kernels do not check indices that are
//! data: `cargo xtask models --tvm` compiles lookups in tables so that an index beyond the end means
//! the last row, but scatters are as TVM makes them.
#![deny(unsafe_code)]

pub mod engine;
#[allow(unsafe_code, reason = "the foreign calls are here, and only here")]
mod ffi;
mod files;
pub mod gpu;
pub mod library;
pub mod manifest;
mod place;
mod tensors;

pub use engine::{LoadOptions, TvmBackend};
pub use gpu::Gpu;
pub use library::Library;

//! The foreign calls, and nothing else.
//!
//! Everything unsafe of this crate is here: the libraries and their functions, values and tensors of
//! TVM, what replaces its allocation, programs over raw addresses, and NVRTC. The rest of the crate
//! sees the safe types [`Runtime`], [`Module`], [`Program`] and [`ScratchRange`].
//!
//! # Invariants
//! 1. The memory of a [`Program`] and of a [`ScratchRange`] belongs to their caller, who drops it after
//!    them.
//! 2. Libraries are never closed, and what is registered with TVM lives for ever.
//! 3. No Rust panic crosses into C++: callbacks do not panic, and abort rather than unwind if they ever
//!    should (`extern "C"` functions do that).
//! 4. Scratch of one address serves one run at a time. This is checked when a run begins, not trusted
//!    to the schedule.

mod api;
mod builtin;
mod loader;
mod module;
mod nvrtc;
mod range;
mod sys;
mod tensor;
mod value;

use std::path::{Path, PathBuf};

use aegis_trace::Bytes;

use loader::Opened;
pub(crate) use module::{Module, Place, PlaceMemory, Program, on_stream};
pub(crate) use nvrtc::{Kernels, compiling_for};
pub(crate) use range::ScratchRange;

/// The libraries, loaded and ready.
#[derive(Debug)]
pub(crate) struct Runtime {
    interface: String,
    file: PathBuf,
}

impl Runtime {
    /// Loads the libraries by `locate`, which knows where each lies, and puts our allocation in place of
    /// TVM's.
    ///
    /// # Errors
    /// What the loader or TVM says, with the library's name.
    pub(crate) fn load(locate: impl Fn(&str) -> PathBuf) -> Result<Self, String> {
        let open = |name: &str| open(&locate(name));
        let (interface, file) = api::load(open("libtvm_ffi.so")?)
            .map_err(|reason| format!("libtvm_ffi.so: {reason}"))?;
        let runtime = open("libtvm_runtime.so")?;
        open("libtvm_runtime_extra.so")?;
        builtin::replace(runtime).map_err(|reason| format!("libtvm_runtime.so: {reason}"))?;
        Ok(Self { interface, file })
    }

    /// Loads what serves a GPU besides: TVM's part, and NVRTC, which compiles for `kernels`.
    ///
    /// # Errors
    /// What the loader or TVM says, with the library's name.
    pub(crate) fn load_gpu(
        locate: impl Fn(&str) -> PathBuf,
        kernels: Kernels,
    ) -> Result<(), String> {
        // TVM's part names the CUDA runtime as needed; opened first, it is found wherever it lies.
        open(&locate("libcudart.so.13"))?;
        // NVRTC opens its builtins by name, and looks in the loader's folders alone. Where they lie
        // elsewhere they are found if they are open already; where they cannot be opened, NVRTC says so
        // itself.
        let _builtins: Result<Opened, String> = open(&locate("libnvrtc-builtins.so.13.0"));
        let nvrtc = open(&locate("libnvrtc.so.13"))?;
        nvrtc::register(nvrtc, kernels)?;
        open(&locate("libtvm_runtime_cuda.so")).map(drop)
    }

    /// Where the library of the interface was loaded from.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The version that the interface names itself.
    pub(crate) fn interface(&self) -> &str {
        &self.interface
    }
}

fn open(path: &Path) -> Result<Opened, String> {
    Opened::open(path).map_err(|reason| format!("{}: {reason}", path.display()))
}

/// Bytes in use in the C heap.
pub(crate) fn heap_in_use() -> Bytes {
    // SAFETY: mallinfo2 only reads the allocator's counters, under its own locks.
    let info = unsafe { libc::mallinfo2() };
    Bytes(info.uordblks as u64 + info.hblkhd as u64)
}

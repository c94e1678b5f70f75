//! The foreign calls, and nothing else.
//!
//! Everything unsafe of this crate is here: loading the library, the allocator that is registered
//! on its environment, bindings to raw addresses, and runs. The rest of the crate sees the safe
//! types [`Environment`], [`Binding`] and [`ScratchRange`].
//!
//! # Invariants
//! 1. A [`ScratchRange`] owns what keeps its addresses alive. The buffers of a [`Binding`] belong to
//!    its caller, who drops them after it.
//! 2. The registered allocator lives for ever (it is leaked once per process), because ONNX
//!    Runtime may call it until the process ends.
//! 3. No Rust panic crosses into C++: callbacks do not panic, and abort rather than unwind if they
//!    ever should (`extern "system"` functions do that).
//! 4. Scratch of one address serves one run at a time. This is checked when a run begins, not
//!    trusted to the schedule.

mod allocator;
mod device_range;
mod loader;
mod provider;
mod range;
mod run;

use std::ffi::CStr;
use std::path::Path;
use std::ptr::{self, NonNull};

use aegis_trace::Bytes;
use ort::sys;

pub(crate) use device_range::{DeviceRange, Kept, while_capturing};
use loader::Loaded;
pub(crate) use provider::{Provider, append};
pub(crate) use range::ScratchRange;
pub(crate) use run::{Binding, Place};

/// The process's ONNX Runtime environment with our allocator on it.
#[derive(Debug)]
pub(crate) struct Environment {
    inner: ort::environment::Environment,
    memory: MemoryInfo,
    devices: provider::DeviceMemories,
    library: Loaded,
}

/// ONNX Runtime's description of a kind of memory; never released, like the environment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryInfo(NonNull<sys::OrtMemoryInfo>);

// SAFETY: (1) The pointee is immutable after creation, and ONNX Runtime reads it from any thread.
// (2) It is never freed.
unsafe impl Send for MemoryInfo {}
// SAFETY: As for Send.
unsafe impl Sync for MemoryInfo {}

impl Environment {
    /// Loads the library at `path` and registers our allocator for CPU memory. Where it is to serve a
    /// GPU, the environment of the libraries it loads is set up first.
    pub(crate) fn load(path: &Path, on_gpu: bool) -> Result<Self, String> {
        if on_gpu {
            provider::restrain_workspaces();
        }
        let library = loader::open(path)?;
        let inner = ort::init_from(&library.file)
            .map_err(|error| error.to_string())?
            .with_name("aegis")
            .with_telemetry(false)
            .build()
            .map_err(|error| error.to_string())?;
        inner.set_log_level(ort::logging::LogLevel::Fatal); // Its errors reach us as statuses.
        let memory = MemoryInfo::cpu()?;
        allocator::register(&inner, memory)?;
        Ok(Self { inner, memory, devices: provider::DeviceMemories::default(), library })
    }

    /// The environment to build sessions on.
    pub(crate) fn get(&self) -> &ort::environment::Environment {
        &self.inner
    }

    /// The description of plain CPU memory.
    pub(crate) fn cpu_memory(&self) -> MemoryInfo {
        self.memory
    }

    /// Where the library was loaded from.
    pub(crate) fn origin(&self) -> &Path {
        &self.library.file
    }

    /// The library's version, as it names itself.
    pub(crate) fn version(&self) -> &str {
        &self.library.version
    }
}

impl MemoryInfo {
    fn cpu() -> Result<Self, String> {
        let mut info = ptr::null_mut();
        // SAFETY: `info` is a valid place for the result.
        let status = unsafe {
            (ort::api().CreateCpuMemoryInfo)(
                sys::OrtAllocatorType::OrtDeviceAllocator,
                sys::OrtMemType::OrtMemTypeDefault,
                &raw mut info,
            )
        };
        check(status)?;
        NonNull::new(info).map(Self).ok_or_else(|| "no memory description".into())
    }
}

/// Turns a status into a result and frees it.
fn check(status: sys::OrtStatusPtr) -> Result<(), String> {
    let Some(status) = NonNull::new(status.0) else { return Ok(()) };
    // SAFETY: A non-null status is a valid object, which the call that returned it gave to us.
    let message = unsafe { (ort::api().GetErrorMessage)(status.as_ptr()) };
    // SAFETY: The message is a terminated string that lives until the status is released, and is
    // copied before.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: The status is ours and is not used after this.
    unsafe { (ort::api().ReleaseStatus)(status.as_ptr()) };
    Err(message)
}

/// Bytes in use in the C heap.
pub(crate) fn heap_in_use() -> Bytes {
    // SAFETY: mallinfo2 only reads the allocator's counters, under its own locks.
    let info = unsafe { libc::mallinfo2() };
    Bytes(info.uordblks as u64 + info.hblkhd as u64)
}

//! Kernels of our own: work of a known length, work that fails, and work that tells where it ran.
//!
//! For tests of the driver and for injected faults on a real device: nothing of the product needs
//! them, so they are behind the feature `test-kernels`. They are PTX text, which the driver compiles
//! for whatever GPU is there.
//!
//! # Invariants
//! 1. A library is loaded once and unloaded by the drop; the driver keeps what still runs.
//! 2. Each launch passes as many arguments, of the types, as its kernel declares.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::ptr::null_mut;
use std::sync::Arc;

use aegis_trace::{Bytes, Nanos};

use super::context::Machine;
use crate::capability::DriverKind;
use crate::device::DeviceContext;
use crate::error::DeviceError;
use crate::host_buffer::HostBuffer;
use crate::memory::DeviceBuffer;
use crate::stream::CudaStream;

/// `aegis_busy` waits until the GPU's clock has advanced by its argument; `aegis_mark_sms` does the
/// same after each block has set the word of the SM it runs on; `aegis_illegal` stores to an address
/// that no allocation has.
const PTX: &CStr = c"
.version 6.4
.target sm_52
.address_size 64

.visible .entry aegis_busy(.param .u64 length)
{
    .reg .pred %p<2>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [length];
    mov.u64 %rd2, %globaltimer;
BUSY:
    mov.u64 %rd3, %globaltimer;
    sub.u64 %rd4, %rd3, %rd2;
    setp.lt.u64 %p1, %rd4, %rd1;
    @%p1 bra BUSY;
    ret;
}

.visible .entry aegis_mark_sms(.param .u64 words, .param .u64 length)
{
    .reg .pred %p<2>;
    .reg .b32 %r<3>;
    .reg .b64 %rd<9>;
    ld.param.u64 %rd1, [length];
    ld.param.u64 %rd5, [words];
    cvta.to.global.u64 %rd6, %rd5;
    mov.u64 %rd2, %globaltimer;
    mov.u32 %r1, %smid;
    mul.wide.u32 %rd7, %r1, 4;
    add.u64 %rd8, %rd6, %rd7;
    mov.u32 %r2, 1;
    st.global.u32 [%rd8], %r2;
MARK:
    mov.u64 %rd3, %globaltimer;
    sub.u64 %rd4, %rd3, %rd2;
    setp.lt.u64 %p1, %rd4, %rd1;
    @%p1 bra MARK;
    ret;
}

.visible .entry aegis_illegal()
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    mov.u64 %rd1, 16;
    mov.u32 %r1, 1;
    st.global.u32 [%rd1], %r1;
    ret;
}
";

/// What is said of a missing entry point.
const PURPOSE: &str = "running test kernels";

/// Threads of a block: one warp, of which every lane does the same.
const THREADS: u32 = 32;

/// SMs that [`TestKernels::mark_sms`] can tell apart; more than any GPU has.
pub const SMS_MAX: usize = 1024;

macro_rules! optional {
    ($machine:expr, $name:ident) => {
        $machine
            .api()
            .$name
            .ok_or(DeviceError::DriverTooOld { call: stringify!($name), purpose: PURPOSE })?
    };
}

/// The kernels, loaded on one GPU.
pub struct TestKernels {
    machine: Arc<Machine>,
    library: *mut c_void,
    busy: *mut c_void,
    mark_sms: *mut c_void,
    illegal: *mut c_void,
}

// SAFETY: (1) The handles are the driver's to dereference, which allows any thread to use them.
unsafe impl Send for TestKernels {}

// SAFETY: (1) As above; nothing here changes after it was made.
unsafe impl Sync for TestKernels {}

impl TestKernels {
    /// Compiles and loads the kernels for the GPU of `device`. Blocks, for up to seconds.
    ///
    /// # Errors
    /// [`DeviceError::WrongDriver`] on anything but `cuda`, [`DeviceError::DriverTooOld`] before
    /// CUDA 12.0, and [`DeviceError::Cuda`], for example where the driver's compiler is missing.
    pub fn load(device: &DeviceContext) -> Result<Self, DeviceError> {
        let wrong = DeviceError::WrongDriver { needed: DriverKind::Cuda, found: device.kind() };
        let machine = Arc::clone(device.gpu().ok_or(wrong)?.machine());
        machine.bind()?;
        let load = optional!(machine, cuLibraryLoadData);
        let (mut library, none) = (null_mut(), null_mut::<c_void>());
        let text = PTX.as_ptr().cast();
        // SAFETY: (1) The text is PTX and terminated. (2) There are no options, so their lists may
        // be null. (3) The pointer is valid for the one write.
        let code = unsafe { load(&raw mut library, text, none, none, 0, none, none, 0) };
        machine.check("cuLibraryLoadData", code)?;
        // From here on the drop unloads it.
        let none = null_mut();
        let mut kernels = Self { machine, library, busy: none, mark_sms: none, illegal: none };
        kernels.busy = kernels.find(c"aegis_busy")?;
        kernels.mark_sms = kernels.find(c"aegis_mark_sms")?;
        kernels.illegal = kernels.find(c"aegis_illegal")?;
        Ok(kernels)
    }

    fn find(&self, name: &CStr) -> Result<*mut c_void, DeviceError> {
        let call = optional!(self.machine, cuLibraryGetKernel);
        let mut kernel = null_mut();
        // SAFETY: (1) The library lives and the name is terminated. (2) The pointer is valid for
        // the one write.
        let code = unsafe { call(&raw mut kernel, self.library, name.as_ptr()) };
        self.machine.check("cuLibraryGetKernel", code)?;
        Ok(kernel)
    }

    /// Enqueues `blocks` blocks that each keep a place on an SM busy for `length`.
    ///
    /// # Errors
    /// As [`CudaStream::enqueue_graph`].
    pub fn busy(&self, stream: &CudaStream, blocks: u32, length: Nanos) -> Result<(), DeviceError> {
        let mut length = length.as_nanos();
        self.launch(stream, self.busy, blocks, &mut [(&raw mut length).cast()])
    }

    /// As [`TestKernels::busy`]; each block first sets the 32-bit word of its SM in `words` to one.
    /// Wait for the stream before `words` is read or dropped.
    ///
    /// # Errors
    /// As [`TestKernels::busy`]; [`DeviceError::OutOfRange`] for a buffer without [`SMS_MAX`] words.
    pub fn mark_sms(
        &self,
        stream: &CudaStream,
        blocks: u32,
        length: Nanos,
        words: &mut DeviceBuffer,
    ) -> Result<(), DeviceError> {
        let needed = (SMS_MAX * size_of::<u32>()) as u64;
        if !words.is_on_gpu() || words.len() < needed {
            return Err(DeviceError::OutOfRange { range: 0..needed, size: Bytes(words.len()) });
        }
        let (mut target, mut length) = (words.as_ptr().addr().get() as u64, length.as_nanos());
        let mut arguments = [(&raw mut target).cast(), (&raw mut length).cast()];
        self.launch(stream, self.mark_sms, blocks, &mut arguments)
    }

    /// Enqueues a store to an address that no allocation has, which ends the context: the device is
    /// lost for the whole process as soon as it runs.
    ///
    /// # Errors
    /// As [`TestKernels::busy`].
    pub fn illegal(&self, stream: &CudaStream) -> Result<(), DeviceError> {
        self.launch(stream, self.illegal, 1, &mut [])
    }

    /// Copies `source` to the beginning of `middle` and that to `target`, on `stream`, and waits.
    ///
    /// # Errors
    /// [`DeviceError::CopyTooLong`] unless all three are as long, and as [`TestKernels::busy`].
    pub fn round_trip(
        &self,
        stream: &CudaStream,
        source: &HostBuffer,
        middle: &mut DeviceBuffer,
        target: &mut HostBuffer,
    ) -> Result<(), DeviceError> {
        // SAFETY: (1) Both buffers are borrowed until the wait below, which comes also after an
        // error.
        let copied = unsafe { crate::interop::copy_to_device(stream, source, middle) }
            // SAFETY: (1) As above; the target is borrowed uniquely.
            .and_then(|()| unsafe { crate::interop::copy_to_host(stream, middle, target) });
        stream.synchronize()?;
        copied
    }

    fn launch(
        &self,
        stream: &CudaStream,
        kernel: *mut c_void,
        blocks: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), DeviceError> {
        let call = optional!(self.machine, cuLaunchKernel);
        stream.on_gpu()?.enqueue(|stream| {
            let (list, none) = (arguments.as_mut_ptr(), null_mut());
            // SAFETY: (1) The kernel is of the library, which lives. (2) The arguments are those of
            // the kernel: invariant 2; they live through the call, which copies them. (3) The
            // stream lives. (4) What the kernel writes to is the caller's own: the words that it
            // lends uniquely. A launch on a machine that is not ours is refused by the driver.
            let code = unsafe {
                call(kernel, blocks, 1, 1, THREADS, 1, 1, 0, stream.handle(), list, none)
            };
            self.machine.check("cuLaunchKernel", code)
        })
    }
}

impl fmt::Debug for TestKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestKernels").finish_non_exhaustive()
    }
}

impl Drop for TestKernels {
    fn drop(&mut self) {
        let unloaded = self.machine.bind().and_then(|()| {
            let call = optional!(self.machine, cuLibraryUnload);
            // SAFETY: (1) `load` loaded it and nothing else unloads it.
            self.machine.check("cuLibraryUnload", unsafe { call(self.library) })
        });
        self.machine.defer(unloaded);
    }
}

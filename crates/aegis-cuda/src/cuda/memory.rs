//! Device memory: one allocation of the driver, reached by copies alone.
//!
//! # Invariants
//! 1. An address in it is a number to the CPU: nothing here dereferences one.
//! 2. Copies and fills block their caller until they are done, on a stream of their own, so they
//!    neither wait for work of the models nor hold it up.
//! 3. The allocation lives until the drop and lies in a context that is retained.

use std::ptr::NonNull;
use std::sync::Arc;

use aegis_trace::Bytes;
use cudarc::driver::sys::CUdeviceptr;

use super::context::Machine;
use super::pinned::PinnedPages;
use crate::error::DeviceError;

/// One zeroed allocation on the GPU.
pub(crate) struct DeviceMemory {
    machine: Arc<Machine>,
    /// What the driver gave, and takes back.
    base: CUdeviceptr,
    /// The first address used: `base` brought to the alignment.
    first: u64,
    size: usize,
}

impl DeviceMemory {
    /// Allocates and zeroes `size` bytes at a multiple of `alignment`. Blocks until they are zero.
    pub(crate) fn new(
        machine: &Arc<Machine>,
        size: usize,
        alignment: u64,
    ) -> Result<Self, DeviceError> {
        machine.take_deferred()?;
        machine.bind()?;
        let size = size.max(1); // The driver allocates nothing for nothing.
        let mut memory = Self::allocate(machine, size)?;
        if !memory.base.is_multiple_of(alignment) {
            // The driver promises 256 bytes; large blocks come on whole pages of its own. For the
            // others there is room to move to the next multiple.
            drop(memory);
            let slack = Bytes(alignment).as_usize();
            let with_slack = size.checked_add(slack).ok_or_else(|| too_large(machine))?;
            memory = Self::allocate(machine, with_slack)?;
            memory.first = memory.base.next_multiple_of(alignment);
            memory.size = size;
        }
        memory.fill(0, size, 0)?;
        Ok(memory)
    }

    fn allocate(machine: &Arc<Machine>, size: usize) -> Result<Self, DeviceError> {
        let api = machine.api();
        let mut base: CUdeviceptr = 0;
        // SAFETY: (1) The pointer is valid for the one write. (2) The context is current: `new`
        // bound it.
        let code = unsafe { (api.cuMemAlloc_v2)(&raw mut base, size) };
        machine.check("cuMemAlloc", code)?;
        Ok(Self { machine: Arc::clone(machine), base, first: base, size })
    }

    /// The address `offset` bytes in, as a pointer that carries no right to dereference it.
    ///
    /// # Panics
    /// When the offset lies beyond the end, which no claim does.
    pub(crate) fn at(&self, offset: u64) -> NonNull<u8> {
        assert!(offset <= self.size as u64, "an address outside the arena");
        let address = Bytes(self.first + offset).as_usize();
        NonNull::new(std::ptr::without_provenance_mut(address))
            .expect("the driver allocates nothing at address zero")
    }

    /// Page-locked host memory of the same GPU.
    pub(crate) fn pinned(&self, length: usize) -> Result<PinnedPages, DeviceError> {
        PinnedPages::new(&self.machine, length)
    }

    /// Copies `bytes` to the place `offset` bytes in; blocks until they are there.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.machine.bind()?;
        let target = self.range(offset, bytes.len());
        let (api, stream) = (self.machine.api(), self.machine.setup());
        // SAFETY: (1) The target lies in the allocation: `range` asserts it. (2) The source is a
        // slice that lives until the wait below, which happens also when this call failed half way.
        // (3) Nobody else reads or writes the target: the caller is its exclusive owner
        // (`crate::memory`, invariant 1).
        let code = unsafe {
            (api.cuMemcpyHtoDAsync_v2)(target, bytes.as_ptr().cast(), bytes.len(), stream)
        };
        let copied = self.machine.check("cuMemcpyHtoDAsync", code);
        self.machine.finish_setup()?;
        copied
    }

    /// Copies the bytes `offset` bytes in to `bytes`, all of it; blocks until they are here.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.machine.bind()?;
        let source = self.range(offset, bytes.len());
        let (api, stream) = (self.machine.api(), self.machine.setup());
        // SAFETY: (1) The source lies in the allocation: `range` asserts it; it is initialised,
        // since `new` zeroed it. (2) The target is a unique slice that lives until the wait below,
        // which happens also when this call failed half way. (3) Nobody writes the source, as in
        // `write`.
        let code = unsafe {
            (api.cuMemcpyDtoHAsync_v2)(bytes.as_mut_ptr().cast(), source, bytes.len(), stream)
        };
        let copied = self.machine.check("cuMemcpyDtoHAsync", code);
        self.machine.finish_setup()?;
        copied
    }

    /// Sets `length` bytes from `offset` on to `byte`; blocks until they are set.
    pub(crate) fn fill(&self, offset: u64, length: usize, byte: u8) -> Result<(), DeviceError> {
        self.machine.bind()?;
        let target = self.range(offset, length);
        let (api, stream) = (self.machine.api(), self.machine.setup());
        // SAFETY: (1) The target lies in the allocation: `range` asserts it. (2) Nobody else reads
        // or writes it, as in `write`.
        let code = unsafe { (api.cuMemsetD8Async)(target, byte, length, stream) };
        self.machine.check("cuMemsetD8Async", code)?;
        self.machine.finish_setup()
    }

    /// The device address of `length` bytes from `offset` on.
    fn range(&self, offset: u64, length: usize) -> CUdeviceptr {
        let end = offset.checked_add(length as u64);
        assert!(end.is_some_and(|end| end <= self.size as u64), "bytes outside the arena");
        self.first + offset
    }
}

fn too_large(machine: &Machine) -> DeviceError {
    machine.api().error("cuMemAlloc", super::error::OUT_OF_MEMORY)
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let freed = self.machine.bind().and_then(|()| {
            let api = self.machine.api();
            // SAFETY: (1) The driver gave this address to `allocate`, and nothing else frees it.
            // (2) No work uses it any more: claims hold the arena, and users of raw addresses keep
            // the claim until their work is done (`interop`, point 2). The driver waits for work
            // that still runs in any case.
            self.machine.check("cuMemFree", unsafe { (api.cuMemFree_v2)(self.base) })
        });
        self.machine.defer(freed);
    }
}

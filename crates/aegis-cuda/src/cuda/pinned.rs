//! Page-locked host memory, which the copy engine reaches by itself.
//!
//! # Invariants
//! 1. The pages are zeroed before anybody sees them, belong to this value alone, and live until its
//!    drop.

use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use super::context::Machine;
use crate::error::DeviceError;

/// Every context of the process may use the pages, not only the one that made them.
const PORTABLE: u32 = 1;

/// One allocation of page-locked memory.
pub(crate) struct PinnedPages {
    machine: Arc<Machine>,
    first: NonNull<u8>,
}

impl PinnedPages {
    /// Allocates and zeroes `length` bytes, at least one.
    pub(crate) fn new(machine: &Arc<Machine>, length: usize) -> Result<Self, DeviceError> {
        machine.take_deferred()?;
        machine.bind()?;
        let length = length.max(1); // The driver locks no empty range.
        let api = machine.api();
        let mut first = null_mut();
        // SAFETY: (1) The pointer is valid for the one write. (2) The context is current.
        let code = unsafe { (api.cuMemHostAlloc)(&raw mut first, length, PORTABLE) };
        machine.check("cuMemHostAlloc", code)?;
        let first = NonNull::new(first.cast::<u8>()).expect("success comes with an address");
        // SAFETY: (1) The driver gave `length` bytes there, to us alone.
        unsafe { std::ptr::write_bytes(first.as_ptr(), 0, length) };
        Ok(Self { machine: Arc::clone(machine), first })
    }

    /// The first byte.
    pub(crate) fn first(&self) -> NonNull<u8> {
        self.first
    }
}

impl Drop for PinnedPages {
    fn drop(&mut self) {
        let freed = self.machine.bind().and_then(|()| {
            let api = self.machine.api();
            // SAFETY: (1) The driver gave this address to `new`, and nothing else frees it. (2) No
            // copy uses it any more: who enqueues one keeps the buffer until it is done (`interop`,
            // point 6).
            let code = unsafe { (api.cuMemFreeHost)(self.first.as_ptr().cast()) };
            self.machine.check("cuMemFreeHost", code)
        });
        self.machine.defer(freed);
    }
}

//! A gate in a stream of a GPU: what is enqueued behind it begins once the processor opens it.
//!
//! With gates an experiment on the order of streams need not race the device: nothing happens before what
//! was to be asked was asked. A gate is a number in page-locked memory for which the stream waits.
//!
//! # Invariants
//! 1. Each closing waits for the next number, and opening writes the number that was waited for last: all
//!    that was closed before is open then.
#![allow(unsafe_code)] // docs/soundness.md argues it.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::device::DeviceContext;
use crate::error::DeviceError;
use crate::host_buffer::HostBuffer;
use crate::stream::CudaStream;

/// A gate, open at first.
pub(crate) struct Gate {
    /// What streams read; written by [`Gate::open`] alone.
    cell: HostBuffer,
    closed: AtomicU32,
}

impl Gate {
    /// Allocates a few bytes of page-locked memory, which outlive every wait: whoever closes a gate opens
    /// it, and waits for its stream before the drop.
    pub(crate) fn new(device: &DeviceContext) -> Result<Self, DeviceError> {
        let cell = device.host_buffer(size_of::<u32>())?;
        Ok(Self { cell, closed: AtomicU32::new(0) })
    }

    /// Holds back what is enqueued on `stream` from now on.
    pub(crate) fn close(&self, stream: &CudaStream) -> Result<(), DeviceError> {
        let wanted = self.closed.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        // SAFETY: (1) The cell is aligned, since a page begins there, and outlives the wait: `new`.
        unsafe { stream.on_gpu()?.hold_until(self.address(), wanted) }
    }

    /// Lets all go on that was held back. Does not block.
    pub(crate) fn open(&self) {
        let reached = self.closed.load(Ordering::Relaxed);
        // SAFETY: (1) The cell is as large as the number, aligned, and lives. (2) The processor reads and
        // writes it nowhere else; the device reads it.
        let cell = unsafe { AtomicU32::from_ptr(self.address().as_ptr()) };
        cell.store(reached, Ordering::Release);
    }

    fn address(&self) -> NonNull<u32> {
        self.cell.first().cast()
    }
}

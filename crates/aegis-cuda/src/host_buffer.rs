//! Host memory that a device copies from and to.
//!
//! On `cuda` the pages are locked, so that the copy engine reads and writes them by itself while
//! the processor does something else; on the other drivers they are ordinary memory.
//!
//! # Invariants
//! 1. The bytes are initialised from the start, belong to this value alone, and never move.
//! 2. References to the bytes exist only as long as a borrow of the value. What an enqueued copy
//!    does to them beside such a borrow is promised by who enqueued it ([`crate::interop`], point
//!    6): safe code cannot enqueue one.
#![allow(unsafe_code)] // docs/soundness.md argues it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::cuda::PinnedPages;

/// A fixed number of bytes on the host, zero at first.
pub struct HostBuffer {
    first: NonNull<u8>,
    length: usize,
    /// Owns the pages on `cuda`; without it they are from the heap.
    pinned: Option<PinnedPages>,
}

// SAFETY: (1) The bytes belong to the value alone and to no thread.
unsafe impl Send for HostBuffer {}

// SAFETY: (1) A shared value gives shared access to its bytes alone; writing needs `&mut`.
unsafe impl Sync for HostBuffer {}

impl HostBuffer {
    /// `length` zeroed bytes of ordinary memory, for what no device copies. Allocates.
    #[must_use]
    pub fn plain(length: usize) -> Self {
        let bytes = Box::into_raw(vec![0_u8; length].into_boxed_slice());
        let first = NonNull::new(bytes.cast::<u8>()).expect("a box is never null");
        Self { first, length, pinned: None }
    }

    pub(crate) fn pinned(pages: PinnedPages, length: usize) -> Self {
        Self { first: pages.first(), length, pinned: Some(pages) }
    }

    /// Whether the pages are locked.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }

    /// The first byte, for a copy that the device makes.
    pub(crate) fn first(&self) -> NonNull<u8> {
        self.first
    }
}

impl Deref for HostBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: (1) The bytes are valid and initialised: invariant 1. (2) Nobody writes them
        // while `self` is borrowed: invariant 2.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.length) }
    }
}

impl DerefMut for HostBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: (1) As in `deref`. (2) `self` is borrowed uniquely, and so are its bytes.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.length) }
    }
}

impl fmt::Debug for HostBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBuffer")
            .field("length", &self.length)
            .field("pinned", &self.is_pinned())
            .finish()
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        if self.pinned.is_none() {
            let bytes = std::ptr::slice_from_raw_parts_mut(self.first.as_ptr(), self.length);
            // SAFETY: (1) `plain` took the pointer and the length from such a box, and nothing else
            // frees it.
            drop(unsafe { Box::from_raw(bytes) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_zero_at_first_and_stay_as_written() {
        let mut buffer = HostBuffer::plain(3);
        assert_eq!(&*buffer, &[0, 0, 0]);
        buffer[1] = 7;
        buffer[2..].copy_from_slice(&[9]);
        assert_eq!((&*buffer, buffer.is_pinned()), (&[0, 7, 9][..], false));
    }

    #[test]
    fn a_buffer_may_be_empty_and_may_change_threads() {
        assert!(HostBuffer::plain(0).is_empty());
        let buffer = HostBuffer::plain(1);
        let length = std::thread::spawn(move || buffer.len()).join().expect("no panic");
        assert_eq!(length, 1);
    }
}

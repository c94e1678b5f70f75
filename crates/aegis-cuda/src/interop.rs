//! Raw views of device memory for other runtimes; only backend crates may import this.
//!
//! Getting a pointer is safe, using it is not. Whoever dereferences one, or hands it to code that
//! does, promises all of the following; `docs/soundness.md` cites the list.
//!
//! 1. Only the bytes of the view are touched: from the pointer, [`DeviceBuffer::len`] or
//!    [`SharedRegion::len`] bytes on.
//! 2. The buffer or region, and so its arena, outlives every use.
//! 3. While the bytes of a buffer are written through the pointer, no one calls its methods or uses
//!    another pointer to it; while they are read, no one writes them.
//! 4. The bytes of a region belong, at any time, to one user among all regions that overlap it.
//!    The memory plan says which users may overlap, and the schedule that they do not run at once.
//! 5. No reference (`&` or `&mut`) to the bytes outlives such a period of use.

use std::ptr::NonNull;

use crate::memory::{DeviceBuffer, SharedRegion};

/// The first byte of `buffer`. Aligned as its offset in the arena is, at most to
/// [`ARENA_ALIGNMENT`](crate::memory::ARENA_ALIGNMENT). For an empty buffer the pointer may be one
/// past the end of the arena.
#[must_use]
pub fn buffer_ptr(buffer: &DeviceBuffer) -> NonNull<u8> {
    buffer.as_ptr()
}

/// The first byte of `region`. Aligned as its offset in the arena is, at most to
/// [`ARENA_ALIGNMENT`](crate::memory::ARENA_ALIGNMENT). For an empty region the pointer may be one
/// past the end of the arena.
#[must_use]
pub fn region_ptr(region: &SharedRegion) -> NonNull<u8> {
    region.as_ptr()
}

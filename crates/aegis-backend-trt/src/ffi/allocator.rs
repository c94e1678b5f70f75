//! The allocator that the library asks for what an engine keeps on the device.

use std::ffi::c_void;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;

use trtx::interfaces::{AllocateGpu, GpuAllocator};

use crate::persistent::Persistent;

/// Serves the requests of one runtime from a range that engines share.
struct FromRange(Arc<Persistent>);

/// The allocator as the library wants it.
pub(super) fn over(range: &Arc<Persistent>) -> Result<Pin<Box<GpuAllocator>>, String> {
    GpuAllocator::new(Box::new(FromRange(Arc::clone(range)))).map_err(|error| error.to_string())
}

impl AllocateGpu for FromRange {
    unsafe fn allocate_async(
        &self,
        size: u64,
        alignment: u64,
        _flags: u32,
        _stream: *mut c_void,
    ) -> *mut c_void {
        // Null is what the library expects of an allocator that cannot.
        let address = self.0.request(size, alignment).and_then(|it| usize::try_from(it).ok());
        address.map_or(ptr::null_mut(), ptr::without_provenance_mut)
    }

    unsafe fn reallocate(&self, _: *mut c_void, _: u64, _: u64) -> *mut c_void {
        ptr::null_mut() // Optional: the library then allocates and copies.
    }

    unsafe fn deallocate_async(&self, data: *mut c_void, _stream: *mut c_void) -> bool {
        // Nothing is handed out twice (see `persistent`), so there is nothing to note.
        data.is_null() || self.0.holds(data.addr() as u64)
    }
}

//! The allocator ONNX Runtime calls.
//!
//! A request of a thread that runs a stage is served from that stage's scratch; any other (a session
//! being loaded, a thread of a pool) from the process heap. Where a block came from is told by its
//! address when it is freed. Device memory has an allocator of its own beside this one, which serves
//! from device ranges alone ([`device_range`]).

use std::ffi::c_void;
use std::ptr;

use ort::AsPointer;
use ort::sys;

use super::{MemoryInfo, check, device_range, range};
use crate::scratch::{self, ALIGNMENT, OVERREAD};

/// Our allocator as ONNX Runtime sees it: its table of functions first, then what they need.
#[repr(C)]
struct Registered {
    table: sys::OrtAllocator,
    memory: MemoryInfo,
}

/// Registers our allocator for CPU memory.
pub(super) fn register(
    environment: &ort::environment::Environment,
    memory: MemoryInfo,
) -> Result<(), String> {
    register_table(environment, memory, alloc, free)
}

/// Registers our allocator for the memory of a GPU.
pub(super) fn register_device(
    environment: &ort::environment::Environment,
    memory: MemoryInfo,
) -> Result<(), String> {
    register_table(environment, memory, alloc_device, free_device)
}

/// Registers our allocator for host memory that a GPU copies from and to.
///
/// Operators of the CUDA provider stage small tables there and free them as soon as their copy is
/// enqueued. A captured graph repeats the copy, so what is freed during a capture is kept instead.
pub(super) fn register_staging(
    environment: &ort::environment::Environment,
    memory: MemoryInfo,
) -> Result<(), String> {
    register_table(environment, memory, alloc_staging, free_staging)
}

type Alloc = unsafe extern "system" fn(*mut sys::OrtAllocator, usize) -> *mut c_void;
type Free = unsafe extern "system" fn(*mut sys::OrtAllocator, *mut c_void);

fn register_table(
    environment: &ort::environment::Environment,
    memory: MemoryInfo,
    alloc: Alloc,
    free: Free,
) -> Result<(), String> {
    // SAFETY: The default table is all empty entries; the ones ONNX Runtime needs follow.
    let mut table = unsafe { sys::OrtAllocator::default() };
    // Version 1 of the table: the entries beyond Info are not read, and need not exist.
    table.version = 1;
    table.Alloc = Some(alloc);
    table.Free = Some(free);
    table.Info = Some(info);
    let registered = Box::into_raw(Box::new(Registered { table, memory }));
    // SAFETY: (1) The environment is alive. (2) The table is leaked, so it outlives it; the pointer
    // is to the whole of Registered, which begins with the table.
    let status =
        unsafe { (ort::api().RegisterAllocator)(environment.ptr().cast_mut(), registered.cast()) };
    check(status)
}

/// Serves a request of ONNX Runtime; null only when the heap has nothing left.
///
/// # Safety
/// None beyond the type: any thread may call it with any size.
unsafe extern "system" fn alloc(_: *mut sys::OrtAllocator, size: usize) -> *mut c_void {
    if let Some(block) = range::serve_request(size) {
        return block.as_ptr().cast();
    }
    if range::any_serving() {
        scratch::note_spill();
    }
    heap_alloc(size)
}

/// Takes a block back.
///
/// # Safety
/// `block` is null, or came from [`alloc`] and was not freed since.
unsafe extern "system" fn free(_: *mut sys::OrtAllocator, block: *mut c_void) {
    if block.is_null() || range::take_back(block.cast()) {
        return;
    }
    // SAFETY: `alloc` returned the block, from no range that exists, so it came from `heap_alloc`. It
    // did not come from a range that is gone: a session, and so whatever it holds, is dropped before
    // its scratch (`engine.rs`).
    unsafe { libc::free(block) };
}

/// Serves a request for device memory; null where no range is to serve it, or none could.
///
/// # Safety
/// None beyond the type: any thread may call it with any size.
unsafe extern "system" fn alloc_device(_: *mut sys::OrtAllocator, size: usize) -> *mut c_void {
    ptr::without_provenance_mut(device_range::serve_request(size))
}

/// Takes a block of device memory back.
///
/// # Safety
/// `block` is null, or came from [`alloc_device`] and was not freed since.
unsafe extern "system" fn free_device(_: *mut sys::OrtAllocator, block: *mut c_void) {
    device_range::take_back(block.addr());
}

/// Serves a request for staging memory from the heap; null only when the heap has nothing left.
///
/// # Safety
/// None beyond the type: any thread may call it with any size.
unsafe extern "system" fn alloc_staging(_: *mut sys::OrtAllocator, size: usize) -> *mut c_void {
    heap_alloc(size)
}

/// Takes a block of staging memory back, unless a graph is being captured that may copy from it.
///
/// # Safety
/// `block` is null, or came from [`alloc_staging`] and was not freed since.
unsafe extern "system" fn free_staging(_: *mut sys::OrtAllocator, block: *mut c_void) {
    if device_range::is_capturing() {
        return; // A few KiB for each capture, for the rest of the process.
    }
    // SAFETY: `alloc_staging` returned the block, so it came from `heap_alloc`, or it is null.
    unsafe { libc::free(block) };
}

/// Describes the memory that the allocator serves.
///
/// # Safety
/// `this` is the pointer that was registered.
unsafe extern "system" fn info(this: *const sys::OrtAllocator) -> *const sys::OrtMemoryInfo {
    // SAFETY: `this` points to the Registered we leaked, of which the table is the first field.
    let registered = unsafe { &*this.cast::<Registered>() };
    registered.memory.0.as_ptr()
}

fn heap_alloc(size: usize) -> *mut c_void {
    let alignment = usize::try_from(ALIGNMENT).expect("a cache line fits an address");
    let overread = usize::try_from(OVERREAD).expect("a few bytes fit an address");
    let mut block = ptr::null_mut();
    let size = size.saturating_add(overread).max(1);
    // SAFETY: `block` is a valid place for the result; the alignment is a power of two and a
    // multiple of the size of a pointer.
    let status = unsafe { libc::posix_memalign(&raw mut block, alignment, size) };
    if status == 0 { block } else { ptr::null_mut() }
}

//! What TVM calls for memory and threads: ours, in place of its own.
//!
//! The virtual machine looks its built-in functions up by name when it is made, and the code of
//! modules gets its callbacks when it is loaded. Both are replaced before the first module is loaded.
//! A thread on which no run of ours is under way is passed on to TVM's own.
//!
//! A loop that a kernel would share out runs on the calling thread alone: the stage takes one core, the
//! one that its cost was measured on, and no pool of threads is ever made.

use std::ffi::{CStr, c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicI32;

use super::api::{api, check};
use super::loader::Opened;
use super::value::{Function, Value, data_type_of, integer_of, raise, shape_of};
use super::{range, sys, tensor};

const ALLOC_STORAGE: &str = "vm.builtin.alloc_storage";
const ALLOC_TENSOR: &str = "vm.builtin.alloc_tensor";

/// TVM's own, for threads without a run.
struct Originals {
    storage: Function,
    tensor: Function,
    alloc_workspace: sys::AllocWorkspace,
    free_workspace: sys::FreeWorkspace,
}

// SAFETY: Functions of the library may be called from any thread; these are never changed.
unsafe impl Sync for Originals {}

static ORIGINALS: OnceLock<Originals> = OnceLock::new();

/// Puts ours in the place of TVM's. `runtime` is `libtvm_runtime.so`.
///
/// # Errors
/// The library lacks what is to be replaced.
pub(super) fn replace(runtime: Opened) -> Result<(), String> {
    let alloc = runtime.symbol(c"TVMBackendAllocWorkspace")?;
    let free = runtime.symbol(c"TVMBackendFreeWorkspace")?;
    let originals = Originals {
        storage: Function::global(ALLOC_STORAGE)?,
        tensor: Function::global(ALLOC_TENSOR)?,
        // SAFETY: In every release of TVM this symbol is a function of this type.
        alloc_workspace: unsafe {
            mem::transmute::<*mut c_void, sys::AllocWorkspace>(alloc.as_ptr())
        },
        // SAFETY: As above.
        free_workspace: unsafe { mem::transmute::<*mut c_void, sys::FreeWorkspace>(free.as_ptr()) },
    };
    ORIGINALS.get_or_init(|| originals);
    Function::register(ALLOC_STORAGE, alloc_storage)?;
    Function::register(ALLOC_TENSOR, alloc_tensor)?;
    register_symbol(
        c"__TVMBackendAllocWorkspace",
        alloc_workspace as sys::AllocWorkspace as *mut c_void,
    )?;
    register_symbol(
        c"__TVMBackendFreeWorkspace",
        free_workspace as sys::FreeWorkspace as *mut c_void,
    )?;
    register_symbol(
        c"__TVMBackendParallelLaunch",
        launch_alone as sys::ParallelLaunch as *mut c_void,
    )
}

fn register_symbol(name: &CStr, symbol: *mut c_void) -> Result<(), String> {
    // SAFETY: The name is terminated and copied; the symbol is a function of the type that modules
    // expect under this name, and lives for ever.
    check(unsafe { (api().register_symbol)(name.as_ptr(), symbol) })
}

fn originals() -> &'static Originals {
    ORIGINALS.get().expect("they are kept before anything is replaced")
}

/// The arguments of a callback.
///
/// # Safety
/// `arguments` points to `count` values, which live as long as the result is used.
unsafe fn slice<'a>(arguments: *const sys::Any, count: i32) -> &'a [sys::Any] {
    match usize::try_from(count) {
        Ok(count) if count > 0 => {
            // SAFETY: The caller's promise.
            unsafe { std::slice::from_raw_parts(arguments, count) }
        }
        _ => &[],
    }
}

/// Stores what a callback answers, or raises its error.
fn answer(result: *mut sys::Any, value: Result<Value, String>) -> c_int {
    match value {
        Ok(value) => {
            // SAFETY: The library gives a valid place for the result, which it takes over.
            unsafe { result.write(value.give()) };
            0
        }
        Err(message) => {
            raise(c"MemoryError", &message);
            -1
        }
    }
}

/// `vm.builtin.alloc_storage(machine, shape, device, type, scope)`.
///
/// # Safety
/// Called by TVM alone, with so many arguments and a place for the result.
unsafe extern "C" fn alloc_storage(
    _context: *mut c_void,
    arguments: *const sys::Any,
    count: i32,
    result: *mut sys::Any,
) -> c_int {
    // SAFETY: The library gives so many arguments, which live during the call.
    let given = unsafe { slice(arguments, count) };
    let size = storage_size(given);
    match size.map(|size| (size, range::storage(size))) {
        Some((size, Some(Some(place)))) => {
            let range::Storage { address, device, block } = place;
            answer(result, tensor::of_bytes(address, size, device, block))
        }
        Some((size, Some(None))) => {
            answer(result, Err(format!("{size} bytes do not fit the scratch of the model")))
        }
        // SAFETY: What the library gave is passed on as it is.
        _ => unsafe { originals().storage.pass_on(arguments, count, result) },
    }
}

/// The bytes of a storage: those of its elements, counted in the type that is hinted at.
fn storage_size(given: &[sys::Any]) -> Option<usize> {
    let shape = shape_of(given.get(1)?)?;
    let data_type = data_type_of(given.get(3)?)?;
    let elements = shape.iter().try_fold(1i64, |all, size| all.checked_mul(*size))?;
    let bits = i64::from(data_type.bits) * i64::from(data_type.lanes);
    usize::try_from(elements.checked_mul(bits)?.checked_add(7)? / 8).ok()
}

/// `vm.builtin.alloc_tensor(storage, offset, shape, type[, scope])`.
///
/// # Safety
/// Called by TVM alone, with so many arguments and a place for the result.
unsafe extern "C" fn alloc_tensor(
    _context: *mut c_void,
    arguments: *const sys::Any,
    count: i32,
    result: *mut sys::Any,
) -> c_int {
    // SAFETY: The library gives so many arguments, which live during the call.
    let given = unsafe { slice(arguments, count) };
    if given.len() >= 4 && given[0].type_index == sys::TENSOR {
        let offset = integer_of(&given[1]);
        let (shape, data_type) = (shape_of(&given[2]), data_type_of(&given[3]));
        if let (Some(offset), Some(shape), Some(data_type)) = (offset, shape, data_type) {
            return answer(result, tensor::within(&given[0], offset, shape, data_type));
        }
    }
    // SAFETY: What the library gave is passed on as it is: a storage of its own.
    unsafe { originals().tensor.pass_on(arguments, count, result) }
}

/// Workspace of a kernel, for as long as the kernel runs.
///
/// # Safety
/// Called by the code of modules alone, for a device that there is.
unsafe extern "C" fn alloc_workspace(
    kind: c_int,
    ordinal: c_int,
    size: u64,
    code: c_int,
    bits: c_int,
) -> *mut c_void {
    let served = usize::try_from(size).ok().and_then(|size| range::workspace(kind, size));
    match served {
        Some(address) => address.map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut),
        // SAFETY: The arguments are passed on as they are.
        None => unsafe { (originals().alloc_workspace)(kind, ordinal, size, code, bits) },
    }
}

/// Takes workspace back.
///
/// # Safety
/// Called by the code of modules alone, with a block that [`alloc_workspace`] gave, once.
unsafe extern "C" fn free_workspace(kind: c_int, ordinal: c_int, block: *mut c_void) -> c_int {
    if range::take_back_workspace(block.addr()) {
        return 0;
    }
    // SAFETY: The block is none of ours, so one that TVM's own gave.
    unsafe { (originals().free_workspace)(kind, ordinal, block) }
}

/// Runs the whole loop as one task on this thread.
///
/// # Safety
/// Called by the code of modules alone, with a task and the data that it takes.
unsafe extern "C" fn launch_alone(
    task: sys::ParallelTask,
    data: *mut c_void,
    _tasks: c_int,
) -> c_int {
    let mut arrived = AtomicI32::new(0);
    let sync = (&raw mut arrived).cast();
    let mut environment = sys::ParallelEnvironment { sync, tasks: 1 };
    // SAFETY: Task and data are what the module gave for one another; the environment outlives the call.
    unsafe { task(0, &raw mut environment, data) }
}

//! The C interface of `tvm-ffi` and of DLPack, as far as it is used here.
//!
//! Declared by hand instead of through the crate `tvm-ffi`, which must find a library to link while it
//! is built (`docs/adr/0060`). The interface is that of version 0.1, which its makers keep stable; the
//! version of the library is asked before anything else is called.
//!
//! # Sources
//! `tvm/ffi/c_api.h` and `tvm/ffi/extra/c_env_api.h` of apache-tvm-ffi 0.1.15, `dlpack.h` 1.1.

use std::ffi::{c_char, c_int, c_void};

/// The type of a value: nothing.
pub(super) const NONE: i32 = 0;
pub(super) const INT: i32 = 1;
pub(super) const DATA_TYPE: i32 = 5;
pub(super) const RAW_STRING: i32 = 8;
pub(super) const SMALL_STRING: i32 = 11;
pub(super) const SMALL_BYTES: i32 = 12;
/// From here on a value is a counted object.
pub(super) const FIRST_OBJECT: i32 = 64;
pub(super) const STRING: i32 = 65;
pub(super) const BYTES: i32 = 66;
pub(super) const FUNCTION: i32 = 68;
pub(super) const SHAPE: i32 = 69;
pub(super) const TENSOR: i32 = 70;
pub(super) const ARRAY: i32 = 71;

/// A device as DLPack numbers them.
pub(super) const CPU: i32 = 1;
pub(super) const CUDA: i32 = 2;

/// An object of the library, behind a counter.
pub(super) type Handle = *mut c_void;

/// `TVMFFIAny`: a value, or a view of one.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Any {
    pub(super) type_index: i32,
    /// The length of a small string; else zero.
    pub(super) small_length: u32,
    pub(super) payload: Payload,
}

/// What a value is, by its type.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Payload {
    pub(super) integer: i64,
    pub(super) pointer: *mut c_void,
    pub(super) data_type: DataType,
    pub(super) bytes: [u8; 8],
}

/// `TVMFFIObject`: what every object begins with.
#[repr(C)]
pub(super) struct Object {
    pub(super) counts: u64,
    pub(super) type_index: i32,
    pub(super) padding: u32,
    pub(super) deleter: Option<unsafe extern "C" fn(*mut c_void, c_int)>,
}

/// `TVMFFIByteArray`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct ByteArray {
    pub(super) data: *const c_char,
    pub(super) size: usize,
}

/// `TVMFFIShapeCell`, behind the head of a shape object.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct ShapeCell {
    pub(super) data: *const i64,
    pub(super) size: usize,
}

/// The beginning of `TVMFFIErrorCell`, behind the head of an error object.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct ErrorCell {
    pub(super) kind: ByteArray,
    pub(super) message: ByteArray,
}

/// The beginning of `TVMFFISeqCell`, behind the head of an array object.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct SequenceCell {
    pub(super) data: *const Any,
    pub(super) size: i64,
}

/// `TVMFFIVersion`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) patch: u32,
}

/// `DLDataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct DataType {
    pub(super) code: u8,
    pub(super) bits: u8,
    pub(super) lanes: u16,
}

/// `DLDevice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Device {
    pub(super) kind: i32,
    pub(super) ordinal: i32,
}

/// `DLTensor`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct DlTensor {
    pub(super) data: *mut c_void,
    pub(super) device: Device,
    pub(super) rank: i32,
    pub(super) data_type: DataType,
    pub(super) shape: *mut i64,
    pub(super) strides: *mut i64,
    pub(super) byte_offset: u64,
}

/// `DLManagedTensor`.
#[repr(C)]
pub(super) struct ManagedTensor {
    pub(super) tensor: DlTensor,
    pub(super) context: *mut c_void,
    pub(super) deleter: Option<unsafe extern "C" fn(*mut ManagedTensor)>,
}

/// `TVMFFISafeCallType`: zero for success, else an error was raised.
pub(super) type SafeCall = unsafe extern "C" fn(*mut c_void, *const Any, i32, *mut Any) -> c_int;

pub(super) type GetVersion = unsafe extern "C" fn(*mut Version);
pub(super) type OfHandle = unsafe extern "C" fn(Handle) -> c_int;
pub(super) type FunctionCreate = unsafe extern "C" fn(
    *mut c_void,
    SafeCall,
    Option<unsafe extern "C" fn(*mut c_void)>,
    *mut Handle,
) -> c_int;
pub(super) type FunctionGetGlobal = unsafe extern "C" fn(*const ByteArray, *mut Handle) -> c_int;
pub(super) type FunctionSetGlobal = unsafe extern "C" fn(*const ByteArray, Handle, c_int) -> c_int;
pub(super) type FunctionCall = unsafe extern "C" fn(Handle, *const Any, i32, *mut Any) -> c_int;
pub(super) type ErrorMoveFromRaised = unsafe extern "C" fn(*mut Handle);
pub(super) type ErrorSetRaised = unsafe extern "C" fn(*const c_char, *const c_char);
pub(super) type TensorFromDlPack =
    unsafe extern "C" fn(*mut ManagedTensor, i32, i32, *mut Handle) -> c_int;
pub(super) type TensorView = unsafe extern "C" fn(Handle, *const DlTensor, *mut Handle) -> c_int;
pub(super) type FromByteArray = unsafe extern "C" fn(*const ByteArray, *mut Any) -> c_int;
pub(super) type SetStream = unsafe extern "C" fn(i32, i32, *mut c_void, *mut *mut c_void) -> c_int;
pub(super) type RegisterSymbol = unsafe extern "C" fn(*const c_char, *mut c_void) -> c_int;

/// What the code of modules calls for memory that lives within one kernel.
pub(super) type AllocWorkspace =
    unsafe extern "C" fn(c_int, c_int, u64, c_int, c_int) -> *mut c_void;
pub(super) type FreeWorkspace = unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int;
/// What the code of modules calls to run a loop on several threads.
pub(super) type ParallelLaunch = unsafe extern "C" fn(ParallelTask, *mut c_void, c_int) -> c_int;
/// One share of such a loop.
pub(super) type ParallelTask =
    unsafe extern "C" fn(c_int, *mut ParallelEnvironment, *mut c_void) -> c_int;

/// `TVMParallelGroupEnv`.
#[repr(C)]
pub(super) struct ParallelEnvironment {
    pub(super) sync: *mut c_void,
    pub(super) tasks: i32,
}

impl Any {
    pub(super) const fn none() -> Self {
        Self { type_index: NONE, small_length: 0, payload: Payload { integer: 0 } }
    }

    pub(super) const fn integer(value: i64) -> Self {
        Self { type_index: INT, small_length: 0, payload: Payload { integer: value } }
    }
}

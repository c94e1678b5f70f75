//! Values of `tvm-ffi`: counted objects, strings, functions and what they return.

use std::ffi::{CStr, CString, c_void};
use std::ptr;

use super::api::{api, check};
use super::sys;

/// A value that is owned: an object's count goes down when it is dropped.
pub(super) struct Value(sys::Any);

// SAFETY: (1) Counts are atomic. (2) The objects held here (functions, modules, tensors, strings) have
// no thread affinity; what they do when they are called is bound by `&mut` further up.
unsafe impl Send for Value {}

impl Value {
    /// Takes over a value that the library has returned.
    fn owned(value: sys::Any) -> Self {
        Self(value)
    }

    /// Takes over the object behind `handle`, of this type.
    pub(super) fn object(handle: sys::Handle, type_index: i32) -> Self {
        let payload = sys::Payload { pointer: handle };
        Self(sys::Any { type_index, small_length: 0, payload })
    }

    /// The value as an argument; valid as long as it lives.
    pub(super) fn view(&self) -> sys::Any {
        self.0
    }

    /// Gives the value away, to whom the count belongs from now on.
    pub(super) fn give(self) -> sys::Any {
        let value = self.0;
        std::mem::forget(self);
        value
    }

    /// The object as a function.
    fn into_function(self) -> Option<Function> {
        (self.0.type_index == sys::FUNCTION).then(|| Function(self))
    }

    fn is_object(&self) -> bool {
        self.0.type_index >= sys::FIRST_OBJECT
    }

    /// What follows the head of an object.
    fn cell<T: Copy>(&self) -> T {
        debug_assert!(self.is_object(), "only objects have cells");
        // SAFETY: The value holds an object, so the pointer is valid.
        let head = unsafe { self.0.payload.pointer }.cast::<sys::Object>();
        // SAFETY: (1) The caller names the cell that objects of this type have behind their head. (2) The
        // object lives as long as this value.
        unsafe { head.wrapping_add(1).cast::<T>().read() }
    }

    /// The tensors of a result: one, or an array of them.
    pub(super) fn tensors(&self) -> Option<Vec<sys::DlTensor>> {
        match self.0.type_index {
            sys::TENSOR => Some(vec![self.cell()]),
            sys::ARRAY => self.elements().iter().map(tensor_of).collect(),
            _ => None,
        }
    }

    fn elements(&self) -> &[sys::Any] {
        let cell: sys::SequenceCell = self.cell();
        let length = usize::try_from(cell.size).unwrap_or(0);
        if length == 0 {
            return &[];
        }
        // SAFETY: The array has so many elements from there on, which live as long as it does, and so as
        // long as this value; arrays are not changed once they are made.
        unsafe { std::slice::from_raw_parts(cell.data, length) }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        if self.is_object() {
            // SAFETY: The value holds an object.
            let handle = unsafe { self.0.payload.pointer };
            // SAFETY: The count is ours to give back, once. A failure would be a corrupt object.
            unsafe { (api().decrease)(handle) };
        }
    }
}

/// The tensor behind a view, if it is one.
pub(super) fn tensor_of(value: &sys::Any) -> Option<sys::DlTensor> {
    if value.type_index != sys::TENSOR {
        return None;
    }
    // SAFETY: A tensor's payload is a pointer to its object.
    let head = unsafe { value.payload.pointer }.cast::<sys::Object>();
    // SAFETY: The description lies behind the head, and whoever gave the view keeps the object.
    Some(unsafe { head.wrapping_add(1).cast::<sys::DlTensor>().read() })
}

/// The sizes behind a view of a shape, if it is one.
pub(super) fn shape_of(value: &sys::Any) -> Option<&[i64]> {
    if value.type_index != sys::SHAPE {
        return None;
    }
    // SAFETY: A shape's payload is a pointer to its object.
    let head = unsafe { value.payload.pointer }.cast::<sys::Object>();
    // SAFETY: The cell lies behind the head, and whoever gave the view keeps the object.
    let cell = unsafe { head.wrapping_add(1).cast::<sys::ShapeCell>().read() };
    if cell.size == 0 {
        return Some(&[]);
    }
    // SAFETY: The shape has so many sizes, which live as long as it does.
    Some(unsafe { std::slice::from_raw_parts(cell.data, cell.size) })
}

/// The integer behind a view, if it is one.
pub(super) fn integer_of(value: &sys::Any) -> Option<i64> {
    if value.type_index != sys::INT {
        return None;
    }
    // SAFETY: An integer's payload is one.
    Some(unsafe { value.payload.integer })
}

/// The element type behind a view, if it is one.
pub(super) fn data_type_of(value: &sys::Any) -> Option<sys::DataType> {
    if value.type_index != sys::DATA_TYPE {
        return None;
    }
    // SAFETY: A data type's payload is one.
    Some(unsafe { value.payload.data_type })
}

/// The bytes behind a view of a string or of bytes, if it is either.
pub(super) fn bytes_of(value: &sys::Any) -> Option<&[u8]> {
    match value.type_index {
        sys::SMALL_STRING | sys::SMALL_BYTES => {
            // SAFETY: A small string's payload is its bytes.
            let bytes = unsafe { &value.payload.bytes };
            bytes.get(..value.small_length as usize)
        }
        sys::RAW_STRING => {
            // SAFETY: A raw string's payload is a pointer to it.
            let text = unsafe { value.payload.pointer }.cast_const().cast();
            // SAFETY: It is terminated, and whoever gave the view keeps it.
            Some(unsafe { CStr::from_ptr(text) }.to_bytes())
        }
        sys::STRING | sys::BYTES => {
            // SAFETY: The payload is a pointer to the object.
            let head = unsafe { value.payload.pointer }.cast::<sys::Object>();
            // SAFETY: The array lies behind the head, and whoever gave the view keeps the object.
            let array = unsafe { head.wrapping_add(1).cast::<sys::ByteArray>().read() };
            // SAFETY: As above, for what the array says.
            Some(unsafe { bytes_in(array) })
        }
        _ => None,
    }
}

/// The bytes that `array` names.
///
/// # Safety
/// They live as long as the result is used.
unsafe fn bytes_in<'a>(array: sys::ByteArray) -> &'a [u8] {
    if array.size == 0 {
        return &[];
    }
    // SAFETY: The caller's promise, and the array's own.
    unsafe { std::slice::from_raw_parts(array.data.cast(), array.size) }
}

/// A string or bytes of the library with these contents.
pub(super) fn text(bytes: &[u8]) -> Result<Value, String> {
    made_of(bytes, api().string)
}

/// Bytes of the library with these contents.
pub(super) fn blob(bytes: &[u8]) -> Result<Value, String> {
    made_of(bytes, api().bytes)
}

fn made_of(bytes: &[u8], make: sys::FromByteArray) -> Result<Value, String> {
    let array = sys::ByteArray { data: bytes.as_ptr().cast(), size: bytes.len() };
    let mut out = sys::Any::none();
    // SAFETY: The contents are alive and copied; the place for the result is valid.
    check(unsafe { make(&raw const array, &raw mut out) })?;
    Ok(Value::owned(out))
}

/// A function of the library.
pub(super) struct Function(Value);

impl Function {
    /// The function registered under `name`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn global(name: &str) -> Result<Self, String> {
        let array = sys::ByteArray { data: name.as_ptr().cast(), size: name.len() };
        let mut handle = ptr::null_mut();
        // SAFETY: The name is alive; the place for the result is valid.
        check(unsafe { (api().get_global)(&raw const array, &raw mut handle) })?;
        if handle.is_null() {
            return Err(format!("TVM has no function {name}"));
        }
        Ok(Self(Value::object(handle, sys::FUNCTION)))
    }

    /// Registers `call` under `name`, in place of what is there; for ever.
    pub(super) fn register(name: &str, call: sys::SafeCall) -> Result<(), String> {
        let mut handle = ptr::null_mut();
        // SAFETY: The callback has the type that is asked for, lives for ever, and takes no context.
        let status =
            unsafe { (api().function_create)(ptr::null_mut(), call, None, &raw mut handle) };
        check(status)?;
        let function = Value::object(handle, sys::FUNCTION);
        let array = sys::ByteArray { data: name.as_ptr().cast(), size: name.len() };
        // SAFETY: Name and function are alive; the registry keeps its own count.
        check(unsafe { (api().set_global)(&raw const array, handle, 1) })?;
        drop(function);
        Ok(())
    }

    /// The function of this name in `module`.
    ///
    /// # Errors
    /// The module has none.
    pub(super) fn of(module: &Value, name: &str) -> Result<Self, String> {
        let get = Self::global("ffi.ModuleGetFunction")?;
        let name_value = text(name.as_bytes())?;
        let found = get.call(&[module.view(), name_value.view(), sys::Any::integer(1)])?;
        found.into_function().ok_or_else(|| format!("the module has no function {name}"))
    }

    /// Calls the function. The arguments are views of what the caller keeps alive meanwhile.
    ///
    /// # Errors
    /// What the function raised.
    pub(super) fn call(&self, arguments: &[sys::Any]) -> Result<Value, String> {
        let mut out = sys::Any::none();
        let count = i32::try_from(arguments.len()).map_err(|error| error.to_string())?;
        // SAFETY: The value holds a function.
        let handle = unsafe { self.0.0.payload.pointer };
        // SAFETY: (1) The function is alive. (2) So are the arguments, by the caller's promise; pointer and
        // count belong together. (3) The place for the result is empty and valid.
        check(unsafe { (api().call)(handle, arguments.as_ptr(), count, &raw mut out) })?;
        Ok(Value::owned(out))
    }

    /// Calls the function as a callback does that passes its own arguments on: the status and the
    /// raised error go back as they are.
    ///
    /// # Safety
    /// The arguments and the result are those that the library gave to the callback.
    pub(super) unsafe fn pass_on(
        &self,
        arguments: *const sys::Any,
        count: i32,
        result: *mut sys::Any,
    ) -> i32 {
        // SAFETY: The value holds a function.
        let handle = unsafe { self.0.0.payload.pointer };
        // SAFETY: The function is alive; the rest is the caller's promise.
        unsafe { (api().call)(handle, arguments, count, result) }
    }
}

/// Raises an error in the library, for a callback that then returns a failure.
pub(super) fn raise(kind: &CStr, message: &str) {
    let message = CString::new(message.replace('\0', " ")).expect("no zero is left");
    // SAFETY: Both strings are terminated, and copied.
    unsafe { (api().raise)(kind.as_ptr(), message.as_ptr()) };
}

/// The error that the last failed call on this thread has raised, without its backtrace.
pub(super) fn raised_error() -> String {
    let mut handle: *mut c_void = ptr::null_mut();
    // SAFETY: The place for the result is valid.
    unsafe { (api().move_error)(&raw mut handle) };
    if handle.is_null() {
        return "TVM failed and does not say why".into();
    }
    let error = Value::object(handle, sys::FIRST_OBJECT);
    let cell: sys::ErrorCell = error.cell();
    // SAFETY: Both texts live as long as the error, which is dropped after they were copied.
    let kind = String::from_utf8_lossy(unsafe { bytes_in(cell.kind) }).into_owned();
    // SAFETY: As above.
    let message = String::from_utf8_lossy(unsafe { bytes_in(cell.message) }).into_owned();
    format!("{kind}: {}", message.trim())
}

//! Sessions with their inputs and outputs bound to fixed addresses, and their runs.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use aegis_context::{Served, TensorSpec, named};
use aegis_cuda::CudaStream;
use aegis_cuda::interop::{buffer_ptr, discarding as discard, region_ptr};
use ort::AsPointer;
use ort::session::Session;
use ort::sys;

use super::device_range::{Beyond, DeviceRange};
use super::range::ScratchRange;
use super::{MemoryInfo, check};

/// A tensor to bind: what it is and where it lives.
pub(crate) struct Place<'a> {
    /// Its name and static shape.
    pub(crate) spec: &'a TensorSpec,
    /// The type of its elements.
    pub(crate) dtype: sys::ONNXTensorElementDataType,
    /// Its memory, of at least its size.
    pub(crate) memory: named::Place<'a>,
}

/// One session with its inputs and outputs bound, once and for all.
pub(crate) struct Binding {
    // Dropped before the session they belong to.
    handles: Handles,
    options: RunOptions,
    session: Session,
    /// What owns the bound addresses; goes last.
    _memory: Arc<dyn Send + Sync>,
}

/// The foreign objects of a binding.
#[derive(Debug)]
struct Handles {
    binding: NonNull<sys::OrtIoBinding>,
    values: Vec<NonNull<sys::OrtValue>>,
}

// SAFETY: (1) The handles have no thread affinity. (2) `Binding` uses them through `&mut self`, so
// by one thread at a time.
unsafe impl Send for Handles {}

impl Binding {
    /// Binds `inputs` and `outputs` of `session`, whose buffers `memory` owns and keeps where they
    /// are; the binding keeps `memory` alive. The caller leaves the buffers alone while it runs:
    /// `engine.rs` holds their lock during a run. What is in shared memory is the model's from its
    /// job's first stage to its last, since such a job is never suspended.
    pub(crate) fn new(
        kind: MemoryInfo,
        session: Session,
        memory: Arc<dyn Send + Sync>,
        inputs: &[Place<'_>],
        outputs: &[Place<'_>],
    ) -> Result<Self, String> {
        let mut binding = ptr::null_mut();
        // SAFETY: The session is alive and `binding` is a valid place for the result.
        let status =
            unsafe { (ort::api().CreateIoBinding)(session.ptr().cast_mut(), &raw mut binding) };
        check(status)?;
        let binding = NonNull::new(binding).ok_or("no binding")?;
        let mut handles = Handles { binding, values: Vec::new() };
        for place in inputs {
            handles.bind(kind, place, ort::api().BindInput)?;
        }
        for place in outputs {
            handles.bind(kind, place, ort::api().BindOutput)?;
        }
        Ok(Self { handles, options: RunOptions::new()?, session, _memory: memory })
    }

    /// Releases the binding and gives the session back.
    pub(crate) fn into_session(self) -> Session {
        self.session
    }

    /// Runs the session on this thread, with its allocations served from `scratch`. Blocks until
    /// the run ends.
    ///
    /// # Errors
    /// Those of [`ScratchRange::serve`]: nothing ran. What the run itself says is in the result.
    pub(crate) fn run(
        &mut self,
        scratch: &mut ScratchRange,
    ) -> Result<Served<Result<(), String>>, String> {
        let Self { handles, options, session, .. } = self;
        options.reset()?;
        scratch.serve(&|| options.terminate(), || run_bound(session, options, handles))
    }
}

impl Binding {
    /// Leaves the end of a run on a GPU to its stream: the call then returns once all is enqueued,
    /// and can be captured.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub(crate) fn only_enqueue(&self) -> Result<(), String> {
        self.options.set(c"disable_synchronize_execution_providers", c"1")
    }

    /// Enqueues a run of the session on its `stream`, with its requests for device memory served from
    /// `scratch`. Blocks for as long as that takes the processor; the run itself happens later. The
    /// caller keeps the bound memory and the scratch to this run until it has ended.
    ///
    /// Once a request was given no address, what the run enqueues on the stream is thrown away, so that
    /// no kernel ever touches what it did not get (`device_range`, "What happens at the limit").
    ///
    /// # Errors
    /// Nothing was enqueued. What the run says is in the result.
    pub(crate) fn enqueue(
        &mut self,
        scratch: &mut DeviceRange,
        stream: &CudaStream,
    ) -> Result<Served<Result<(), String>>, String> {
        let Self { handles, options, session, .. } = self;
        options.reset()?;
        let discarding = RefCell::new(None);
        let stop = |beyond: Beyond| {
            options.terminate();
            if beyond == Beyond::Range {
                // A stream that is being captured already refuses, and runs nothing either.
                discarding.borrow_mut().get_or_insert_with(|| discard(stream).ok());
            }
        };
        Ok(scratch.serve(&stop, || run_bound(session, options, handles)))
    }
}

/// Runs `session` as it is bound, on this thread.
fn run_bound(
    session: &mut Session,
    options: &RunOptions,
    handles: &mut Handles,
) -> Result<(), String> {
    // SAFETY: (1) Session, options and binding are alive; session and binding are used by this thread
    // alone, being borrowed uniquely, and of the options a run reads the flag that another may set.
    // (2) Every bound address is alive (see `Binding::new`).
    let status = unsafe {
        (ort::api().RunWithBinding)(
            session.ptr().cast_mut(),
            options.0.as_ptr(),
            handles.binding.as_ptr(),
        )
    };
    check(status)
}

impl Handles {
    fn bind(
        &mut self,
        kind: MemoryInfo,
        place: &Place<'_>,
        bind: BindFunction,
    ) -> Result<(), String> {
        let name = CString::new(place.spec.name.as_str()).map_err(|error| error.to_string())?;
        let value = tensor_over(kind, place)?;
        self.values.push(value);
        // SAFETY: Binding, name and value are alive; ONNX Runtime keeps its own reference to the
        // value's tensor.
        check(unsafe { bind(self.binding.as_ptr(), name.as_ptr(), value.as_ptr()) })
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        // SAFETY: The binding is ours, no run uses it, and the session it belongs to still lives.
        unsafe { (ort::api().ReleaseIoBinding)(self.binding.as_ptr()) };
        for value in &self.values {
            // SAFETY: Each value is ours; the binding that referred to it is gone.
            unsafe { (ort::api().ReleaseValue)(value.as_ptr()) };
        }
    }
}

type BindFunction = unsafe extern "system" fn(
    *mut sys::OrtIoBinding,
    *const std::ffi::c_char,
    *const sys::OrtValue,
) -> sys::OrtStatusPtr;

/// A tensor value over the memory of `place`.
fn tensor_over(kind: MemoryInfo, place: &Place<'_>) -> Result<NonNull<sys::OrtValue>, String> {
    let bytes = place.spec.bytes();
    let room = place.memory.bytes().as_u64();
    if room < bytes as u64 {
        return Err(format!("{} needs {bytes} bytes of {room}", place.spec));
    }
    let address = match place.memory {
        named::Place::Own(buffer) => buffer_ptr(buffer),
        named::Place::Shared(region) => region_ptr(region),
    };
    let axis = |size: &usize| i64::try_from(*size).map_err(|error| error.to_string());
    let shape: Vec<i64> = place.spec.shape.iter().map(axis).collect::<Result<_, _>>()?;
    let mut value = ptr::null_mut();
    // SAFETY: (1) The address holds at least `bytes` bytes, checked above, and outlives the value
    // (see `Binding::new`). (2) Shape pointer and length belong together; ONNX Runtime copies them.
    // (3) `value` is a valid place for the result.
    let status = unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            kind.0.as_ptr(),
            address.as_ptr().cast(),
            bytes,
            shape.as_ptr(),
            shape.len(),
            place.dtype,
            &raw mut value,
        )
    };
    check(status)?;
    NonNull::new(value).ok_or_else(|| "no value".into())
}

/// The options of a run; here only the flag that ends it early.
#[derive(Debug)]
struct RunOptions(NonNull<sys::OrtRunOptions>);

// SAFETY: (1) The options have no thread affinity. (2) They are ours alone; a run reads them only
// while the `Binding` that owns them is borrowed for it.
unsafe impl Send for RunOptions {}

impl RunOptions {
    fn new() -> Result<Self, String> {
        let mut options = ptr::null_mut();
        // SAFETY: `options` is a valid place for the result.
        check(unsafe { (ort::api().CreateRunOptions)(&raw mut options) })?;
        NonNull::new(options).map(Self).ok_or_else(|| "no run options".into())
    }

    /// Asks the run that uses these options to stop at its next operator.
    fn terminate(&self) {
        // SAFETY: The options are alive, and setting the flag is allowed while a run uses them. It
        // is set on the thread of the run itself, which reads it between operators. It cannot fail,
        // and a failure would only let the run go on in heap memory.
        let status = unsafe { (ort::api().RunOptionsSetTerminate)(self.0.as_ptr()) };
        drop(check(status));
    }

    fn set(&self, key: &CStr, value: &CStr) -> Result<(), String> {
        // SAFETY: The options are alive and no run uses them; both strings are terminated, and copied.
        check(unsafe {
            (ort::api().AddRunConfigEntry)(self.0.as_ptr(), key.as_ptr(), value.as_ptr())
        })
    }

    fn reset(&self) -> Result<(), String> {
        // SAFETY: The options are alive and no run uses them.
        check(unsafe { (ort::api().RunOptionsUnsetTerminate)(self.0.as_ptr()) })
    }
}

impl Drop for RunOptions {
    fn drop(&mut self) {
        // SAFETY: The options are ours and no run uses them any more.
        unsafe { (ort::api().ReleaseRunOptions)(self.0.as_ptr()) };
    }
}

//! One engine with the context that executes it.
//!
//! A runtime has one allocator for all its engines, so each engine has a runtime of its own. The
//! binding's types are used with the lifetime of the process's log, which frees their order of
//! dropping from the borrow checker; the order of the fields keeps it.

use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use aegis_context::BackendError;
use aegis_cuda::{CudaStream, DeviceError, DriverKind, interop};
use aegis_trace::Bytes;
use trtx::{
    CudaEngine, ExecutionContext, ExecutionContextAllocationStrategy, Runtime, TensorFormat,
    TensorIOMode, TensorLocation,
};

use super::allocator;
use super::loader::logger;
use crate::facts::{Element, EngineFacts, Place, TensorFact};
use crate::log::{Heard, listen};
use crate::persistent::Persistent;
use crate::refusal::{self, Cause};

/// An engine in its place.
pub(crate) struct Engine {
    // In the order of dropping.
    context: ExecutionContext<'static>,
    engine: CudaEngine<'static>,
    _runtime: Runtime<'static>,
}

// SAFETY: (1) The library's objects have no thread affinity, and are used by one thread at a time,
// through `&mut self`. (2) The one `Rc` behind the context (its configuration) has no other owner.
unsafe impl Send for Engine {}

/// Addresses for an engine.
pub(crate) struct Addresses<'a> {
    /// Of each input and output, by name.
    pub(crate) tensors: Vec<(&'a str, usize)>,
    /// Of the scratch: the first byte and the length.
    pub(crate) scratch: (usize, Bytes),
    /// The streams beside the job's own.
    pub(crate) aux: &'a [Arc<CudaStream>],
}

/// What a plan's header says of whether it can be used here.
#[derive(Debug)]
pub(crate) struct Header {
    /// The library's verdict in its own word; none where it does not judge headers.
    pub(crate) verdict: Option<String>,
    pub(crate) cause: Option<Cause>,
    pub(crate) heard: Heard,
}

/// Judges the header of `plan`. Asks the driver about the GPU, and works without one.
pub(crate) fn header(plan: &[u8]) -> Result<Header, BackendError> {
    let runtime = runtime()?;
    Ok(judge(&runtime, plan))
}

#[cfg(not(feature = "enterprise"))]
fn judge(runtime: &Runtime<'_>, plan: &[u8]) -> Header {
    use trtx::{EngineInvalidityDiagnostics as Flags, EngineValidity};

    if plan.len() < runtime.engine_header_size() {
        return Header { verdict: None, cause: Some(Cause::Malformed), heard: Heard::default() };
    }
    let (judged, heard) = listen(|| runtime.engine_validity(plan));
    let Ok((validity, flags)) = judged else { return Header { verdict: None, cause: None, heard } };
    let verdict = match validity {
        EngineValidity::kVALID => "valid",
        EngineValidity::kSUBOPTIMAL => "valid, and slower here than it could be",
        EngineValidity::kINVALID => "not valid here",
    };
    let causes = [
        (Flags::MALFORMED_ENGINE, Cause::Malformed),
        (Flags::VERSION_MISMATCH, Cause::OtherVersion),
        (Flags::UNSUPPORTED_CC, Cause::OtherDevice),
        (Flags::INSUFFICIENT_GPU_MEMORY, Cause::OutOfMemory),
    ];
    let cause = causes.into_iter().find(|(flag, _)| flags.contains(*flag)).map(|(_, cause)| cause);
    Header { verdict: Some(verdict.to_owned()), cause, heard }
}

#[cfg(feature = "enterprise")]
fn judge(_: &Runtime<'_>, _: &[u8]) -> Header {
    Header { verdict: None, cause: None, heard: Heard::default() } // It does not judge headers.
}

fn runtime() -> Result<Runtime<'static>, BackendError> {
    let logger = logger().map_err(|reason| BackendError::Runtime { reason })?;
    let (made, heard) = listen(|| Runtime::new(logger));
    sound(made, &heard)
}

/// An object of the library, unless it complained while making it. TensorRT 11.4 was seen to answer
/// with an address that is no object where there is no driver, so such a one is not dropped either.
///
/// # Errors
/// [`BackendError`]: what the library says.
pub(crate) fn sound<T>(made: trtx::Result<T>, heard: &Heard) -> Result<T, BackendError> {
    match made {
        Ok(object) if heard.complaints().is_empty() => Ok(object),
        Ok(object) => {
            std::mem::forget(object);
            Err(refusal::failed("the library could not be set up", heard))
        }
        Err(error) => Err(refusal::failed(&error.to_string(), heard)),
    }
}

impl Engine {
    /// Reads `plan`, named `path` in errors. What it keeps on the device comes from `range`, or from
    /// the library's own allocator where there is none; its scratch comes later. The caller made the
    /// GPU that of the calling thread.
    ///
    /// # Errors
    /// [`BackendError`]: what the library says, as [`refusal`] tells it apart.
    pub(crate) fn read(
        path: &str,
        plan: &[u8],
        range: Option<&Arc<Persistent>>,
    ) -> Result<Self, BackendError> {
        let mut runtime = runtime()?;
        let header = judge(&runtime, plan);
        if let Some(range) = range {
            let allocator =
                allocator::over(range).map_err(|reason| BackendError::Runtime { reason })?;
            runtime.set_gpu_allocator(allocator);
        }
        let (read, heard) = listen(|| runtime.deserialize_cuda_engine(plan));
        let Ok(mut engine) = read else {
            return Err(out_of_range(range)
                .unwrap_or_else(|| refusal::refused(path, header.cause, &header.heard, &heard)));
        };
        let (made, heard) = listen(|| make_context(&mut engine));
        match made {
            Ok(context) => Ok(Self { context, engine, _runtime: runtime }),
            Err(error) => {
                Err(out_of_range(range)
                    .unwrap_or_else(|| refusal::failed(&error.to_string(), &heard)))
            }
        }
    }

    /// What it says about itself.
    ///
    /// # Errors
    /// [`BackendError::Runtime`]: what the library says.
    pub(crate) fn facts(&mut self) -> Result<EngineFacts, BackendError> {
        let Self { context, engine, .. } = self;
        let (told, heard) = listen(|| tell(engine, context));
        told.map_err(|error| refusal::failed(&error.to_string(), &heard))
    }

    /// The library's own description of what it executes, as JSON.
    ///
    /// # Errors
    /// [`BackendError::Runtime`]: what the library says.
    pub(crate) fn layers(&self) -> Result<String, BackendError> {
        let (told, heard) = listen(|| {
            self.engine
                .create_engine_inspector()?
                .engine_information(trtx::LayerInformationFormat::kJSON)
        });
        told.map_err(|error| refusal::failed(&error.to_string(), &heard))
    }

    /// Tells the engine where everything is. The caller keeps what is behind the addresses until the
    /// engine is gone or placed anew, and everybody else from it while the engine runs.
    ///
    /// # Errors
    /// [`BackendError`]: a tensor that the engine does not have, or a stream that is none of a GPU.
    pub(crate) fn place(&mut self, addresses: &Addresses<'_>) -> Result<(), BackendError> {
        let mut streams =
            addresses.aux.iter().map(|it| handle(it)).collect::<Result<Vec<_>, _>>()?;
        let Self { context, .. } = self;
        let (placed, heard) = listen(|| -> trtx::Result<()> {
            for (name, address) in &addresses.tensors {
                // SAFETY: (1) The address is one of the device, of at least the tensor's size: the
                // caller compared it. (2) It stays: the caller's promise.
                unsafe { context.set_tensor_address(name, at(*address)) }?;
            }
            let (start, length) = addresses.scratch;
            let length = i64::try_from(length.0).unwrap_or(i64::MAX);
            // SAFETY: As above; the length is that of the region, and the engine's need is no more.
            unsafe { context.set_device_memory_v2(at(start), length) };
            if !streams.is_empty() {
                // SAFETY: The handles are of live streams of this GPU, which the caller keeps.
                unsafe { context.set_aux_streams(&mut streams) };
            }
            Ok(())
        });
        placed.map_err(|error| refusal::failed(&error.to_string(), &heard))
    }

    /// Enqueues one execution on `stream`. The caller placed the engine before, and made the GPU that
    /// of the calling thread.
    ///
    /// # Errors
    /// [`BackendError::Runtime`]: what the library answers; the reason is in its log.
    pub(crate) fn enqueue(&mut self, stream: &CudaStream) -> Result<(), BackendError> {
        let stream = handle(stream)?;
        // SAFETY: (1) The stream lives: it is borrowed. (2) Every address is alive and the engine's
        // while it runs: the promise of `place`.
        let enqueued = unsafe { self.context.enqueue_v3(stream) };
        enqueued.map_err(|error| BackendError::Runtime { reason: error.to_string() })
    }
}

/// The error of a request that did not fit the range, if that is why a call failed.
fn out_of_range(range: Option<&Arc<Persistent>>) -> Option<BackendError> {
    let refused = range?.take_refused()?;
    let (requested, available) = (refused.requested, refused.available);
    Some(BackendError::OutOfScratch { requested, available })
}

fn make_context(engine: &mut CudaEngine<'static>) -> trtx::Result<ExecutionContext<'static>> {
    let mut config = engine.create_runtime_config()?;
    let scratch_is_ours = ExecutionContextAllocationStrategy::kUSER_MANAGED;
    config.set_execution_context_allocation_strategy(scratch_is_ours);
    #[cfg(not(feature = "enterprise"))]
    config.set_cuda_graph_strategy(trtx::CudaGraphStrategy::kDISABLED)?; // Graphs are ours too.
    engine.create_execution_context_with_config(Rc::new(config))
}

fn tell(engine: &CudaEngine<'_>, context: &mut ExecutionContext<'_>) -> trtx::Result<EngineFacts> {
    let mut facts = EngineFacts {
        // All shapes are static, or the engine is refused: the need of these is that of any.
        scratch: Bytes(context.update_device_memory_size_for_shapes() as u64),
        aux_streams: usize::try_from(engine.nb_aux_streams()?).unwrap_or(0),
        ..EngineFacts::default()
    };
    for index in 0..engine.nb_io_tensors()? {
        let name = engine.io_tensor_name(index)?;
        let place = match (engine.tensor_location(&name)?, engine.tensor_format(&name)?) {
            (TensorLocation::kHOST, _) => Place::Host,
            (TensorLocation::kDEVICE, TensorFormat::kLINEAR) => Place::Device,
            (TensorLocation::kDEVICE, other) => Place::DeviceIn(format!("{other:?}")),
        };
        let element = Element::of(engine.tensor_data_type(&name)?);
        let (shape, mode) = (engine.tensor_shape(&name)?, engine.tensor_io_mode(&name)?);
        let fact = TensorFact { name, element, shape, place };
        match mode {
            TensorIOMode::kINPUT => facts.inputs.push(fact),
            TensorIOMode::kOUTPUT => facts.outputs.push(fact),
            TensorIOMode::kNONE => {}
        }
    }
    Ok(facts)
}

/// The driver's stream, which is also the runtime library's.
fn handle(stream: &CudaStream) -> Result<*mut c_void, DeviceError> {
    let handle = interop::stream_handle(stream)
        .ok_or(DeviceError::WrongDriver { needed: DriverKind::Cuda, found: DriverKind::Host })?;
    Ok(handle.as_ptr())
}

/// An address of the device as the pointer that the library takes; the processor never uses it.
fn at(address: usize) -> *mut c_void {
    ptr::without_provenance_mut(address)
}

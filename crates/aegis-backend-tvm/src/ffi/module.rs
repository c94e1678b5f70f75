//! Modules with their virtual machines, and programs: a machine's `main` over fixed addresses.

use std::io::Write as _;
use std::ptr::NonNull;

use aegis_context::{Served, TensorSpec, named};
use aegis_cuda::interop::{buffer_ptr, region_ptr};
use aegis_cuda::{CudaStream, DeviceBuffer, interop};

use super::api::{api, check};
use super::range::{self, Elsewhere, ScratchRange, Service};
use super::value::{Function, Value, text};
use super::{sys, tensor};

/// The kind of allocator a machine is made with: the one that pools nothing. It only serves what is
/// allocated outside of our runs.
const NAIVE: i64 = 1;

/// A loaded module with its virtual machine.
pub(crate) struct Module {
    // In the order of dropping.
    main: Function,
    _machine: Value,
    _library: Value,
    gpu: Option<u16>,
    /// The storages of the machine that are outputs, as an earlier run told: how many are taken before
    /// one, and which output it is.
    learnt: Vec<(usize, usize)>,
}

/// A tensor of a program: what it is and where it lives.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) spec: &'a TensorSpec,
    pub(crate) memory: PlaceMemory<'a>,
}

/// Where the memory of a tensor comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PlaceMemory<'a> {
    /// All that a tensor with a name was given.
    Whole(named::Place<'a>),
    /// A part of the model's own, from this offset on.
    Part(&'a DeviceBuffer, u64),
}

impl PlaceMemory<'_> {
    fn len(self) -> u64 {
        match self {
            Self::Whole(place) => place.bytes().as_u64(),
            Self::Part(buffer, offset) => buffer.len().saturating_sub(offset),
        }
    }

    fn first(self) -> NonNull<u8> {
        match self {
            Self::Whole(named::Place::Own(buffer)) => buffer_ptr(buffer),
            Self::Whole(named::Place::Shared(region)) => region_ptr(region),
            Self::Part(buffer, offset) => {
                let offset = usize::try_from(offset).expect("an offset within memory");
                let base = buffer_ptr(buffer);
                base.map_addr(|address| address.saturating_add(offset))
            }
        }
    }
}

impl Module {
    /// Loads the module whose file has these contents, and makes its machine on the processor or on
    /// GPU `gpu`.
    ///
    /// The contents are loaded from a copy that nobody else has and that is gone afterwards: the loader
    /// would give two models of one file one library, with one place for the module it belongs to; and
    /// a file that is changed while it is mapped would end the process.
    ///
    /// # Errors
    /// What TVM or the system says.
    pub(crate) fn load(contents: &[u8], gpu: Option<u16>) -> Result<Self, String> {
        let copy = tempfile::Builder::new().prefix("aegis-tvm-").suffix(".so").tempfile();
        let mut copy = copy.map_err(|error| format!("no place for a copy of it: {error}"))?;
        copy.write_all(contents).map_err(|error| format!("it cannot be copied: {error}"))?;
        let path =
            copy.path().to_str().ok_or("the folder for temporary files has no UTF-8 name")?;
        let path = text(path.as_bytes())?;
        let library = Function::global("ffi.ModuleLoadFromFile")?.call(&[path.view()])?;
        let machine = Function::of(&library, "vm_load_executable")?.call(&[])?;
        let device = range::device(gpu);
        let host = range::device(None);
        let mut devices = vec![device];
        devices.extend(gpu.map(|_| host)); // A machine wants the processor last.
        let number = |value: i32| sys::Any::integer(i64::from(value));
        let arguments: Vec<sys::Any> = devices
            .iter()
            .flat_map(|it| [number(it.kind), number(it.ordinal), sys::Any::integer(NAIVE)])
            .collect();
        Function::of(&machine, "vm_initialization")?.call(&arguments)?;
        let main = Function::of(&machine, "main")?;
        let learnt = Vec::new();
        Ok(Self { main, _machine: machine, _library: library, gpu, learnt })
    }

    /// The GPU it was loaded for, if any.
    pub(crate) fn gpu(&self) -> Option<u16> {
        self.gpu
    }
}

/// A module's `main` with its inputs, weights and outputs at fixed addresses.
pub(crate) struct Program {
    // The tensors go before the module; the caller drops both before the memory.
    views: Vec<sys::Any>,
    _tensors: Vec<Value>,
    outputs: Vec<Output>,
    /// The storages of the machine that are outputs: they lie where the outputs belong.
    elsewhere: Vec<Elsewhere>,
    module: Module,
}

/// Where an output belongs.
#[derive(Clone, Copy, Debug)]
struct Output {
    address: usize,
    bytes: usize,
}

// SAFETY: (1) The views are of the tensors beside them, which have no thread affinity. (2) Everything is
// used through `&mut self`, so by one thread at a time.
unsafe impl Send for Program {}

impl Program {
    /// A program over this memory. The caller keeps the memory where it is for as long as the program
    /// lives, and leaves it alone while it runs.
    ///
    /// # Errors
    /// A tensor does not fit its memory, or has no counterpart in TVM.
    pub(crate) fn new(
        module: Module,
        inputs: &[Place<'_>],
        outputs: &[Place<'_>],
    ) -> Result<Self, String> {
        let device = range::device(module.gpu);
        let tensor = |place: &Place<'_>| {
            fits(place)?;
            tensor::over(place.spec, place.memory.first(), device)
        };
        let tensors: Vec<Value> = inputs.iter().map(tensor).collect::<Result<_, String>>()?;
        let target = |place: &Place<'_>| {
            fits(place)?;
            let address = place.memory.first().as_ptr().expose_provenance();
            Ok(Output { address, bytes: place.spec.bytes() })
        };
        let outputs: Vec<Output> = outputs.iter().map(target).collect::<Result<_, String>>()?;
        let views = tensors.iter().map(Value::view).collect();
        let elsewhere = elsewhere(&module.learnt, &outputs);
        Ok(Self { views, _tensors: tensors, outputs, elsewhere, module })
    }

    /// Gives the module back.
    pub(crate) fn into_module(self) -> Module {
        self.module
    }

    /// Runs once and learns which storages of the machine are outputs. From then on, and in later
    /// programs of the module, the machine writes those where they belong, without a copy.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) fn learn(
        &mut self,
        scratch: &mut ScratchRange,
    ) -> Result<Served<Result<(), String>>, String> {
        let Self { views, outputs, module, .. } = self;
        let mut learnt = Vec::new();
        let served = scratch.serve(&[], |service| {
            let result = module.main.call(views)?;
            for (index, tensor) in found(&result, outputs)?.iter().enumerate() {
                let storage = service.returned(tensor.data.addr());
                if let Some((sequence, size)) = storage
                    && size == outputs[index].bytes
                {
                    learnt.push((sequence, index));
                }
            }
            Ok(())
        })?;
        self.elsewhere = elsewhere(&learnt, outputs);
        self.module.learnt = learnt;
        Ok(served)
    }

    /// Runs once on the calling thread: on the processor until the end, on a GPU until everything is
    /// enqueued on the stream of [`on_stream`]. An output that the machine did not write where it
    /// belongs is copied there, on the processor.
    ///
    /// # Errors
    /// Nothing ran: another run is using some of the scratch. What the run says is in the result.
    pub(crate) fn run(
        &mut self,
        scratch: &mut ScratchRange,
    ) -> Result<Served<Result<(), String>>, String> {
        let Self { views, outputs, elsewhere, module, .. } = self;
        scratch.serve(elsewhere, |service: &Service<'_>| {
            let result = module.main.call(views)?;
            let found = found(&result, outputs)?;
            for (output, tensor) in outputs.iter().zip(&found) {
                if tensor.data.addr() != output.address {
                    let _: Option<_> = service.returned(tensor.data.addr());
                    copy(*output, tensor, module.gpu)?;
                }
            }
            Ok(())
        })
    }
}

/// The storages that lie where outputs belong.
fn elsewhere(learnt: &[(usize, usize)], outputs: &[Output]) -> Vec<Elsewhere> {
    let place = |(sequence, output): &(usize, usize)| {
        let Output { address, bytes: length } = *outputs.get(*output)?;
        Some(Elsewhere { sequence: *sequence, address, length })
    };
    learnt.iter().filter_map(place).collect()
}

fn fits(place: &Place<'_>) -> Result<(), String> {
    let bytes = place.spec.bytes();
    if place.memory.len() >= bytes as u64 {
        return Ok(());
    }
    Err(format!("{} needs {bytes} bytes of {}", place.spec, place.memory.len()))
}

/// The tensors that the machine returned, as many and as large as they must be.
fn found(result: &Value, outputs: &[Output]) -> Result<Vec<sys::DlTensor>, String> {
    let tensors = result.tensors().ok_or("`main` returns something else than tensors")?;
    if tensors.len() != outputs.len() {
        let (given, wanted) = (tensors.len(), outputs.len());
        return Err(format!(
            "`main` returns {given} tensors, and the manifest has {wanted} outputs"
        ));
    }
    for (index, (tensor, output)) in tensors.iter().zip(outputs).enumerate() {
        let bytes = size_of(tensor);
        if bytes != Some(output.bytes) {
            let (bytes, wanted) = (bytes.unwrap_or(usize::MAX), output.bytes);
            return Err(format!(
                "output {index} of `main` has {bytes} bytes, and the manifest says {wanted}"
            ));
        }
    }
    Ok(tensors)
}

/// The bytes of a tensor's elements.
fn size_of(tensor: &sys::DlTensor) -> Option<usize> {
    let rank = usize::try_from(tensor.rank).ok()?;
    let mut elements = 1usize;
    for axis in 0..rank {
        // SAFETY: A tensor has so many sizes, which live as long as the result that the caller holds.
        let size = unsafe { tensor.shape.wrapping_add(axis).read() };
        elements = elements.checked_mul(usize::try_from(size).ok()?)?;
    }
    let bits = usize::from(tensor.data_type.bits) * usize::from(tensor.data_type.lanes);
    Some(elements.checked_mul(bits)?.checked_add(7)? / 8)
}

/// Copies what the machine returned to where it belongs.
fn copy(output: Output, tensor: &sys::DlTensor, gpu: Option<u16>) -> Result<(), String> {
    if gpu.is_some() || tensor.device.kind != sys::CPU {
        return Err(
            "an output shares memory with an input or with another output, which cannot be \
                    copied within a graph; compile it with `cargo xtask models --tvm`"
                .into(),
        );
    }
    let offset = usize::try_from(tensor.byte_offset).map_err(|error| error.to_string())?;
    let from = tensor.data.cast::<u8>().wrapping_add(offset).cast_const();
    let to = std::ptr::with_exposed_provenance_mut::<u8>(output.address);
    // SAFETY: (1) The tensor has so many bytes, packed, and lives: the caller holds the result. (2) The
    // output's memory is as large and nobody else's (`Program::new`). (3) They may overlap.
    unsafe { std::ptr::copy(from, to, output.bytes) };
    Ok(())
}

/// Runs `work` with what TVM enqueues on GPU `ordinal` going to `stream`.
///
/// # Errors
/// The stream is none of a GPU, or TVM refuses it.
pub(crate) fn on_stream<T>(
    stream: &CudaStream,
    ordinal: u16,
    work: impl FnOnce() -> T,
) -> Result<T, String> {
    let handle = interop::stream_handle(stream).ok_or("the stream is not of a GPU")?;
    let mut before = std::ptr::null_mut();
    let set = |to, before| {
        // SAFETY: The stream lives as long as `work` may use it: it is borrowed. What was set before is set
        // again afterwards, also when a panic unwinds.
        check(unsafe { (api().set_stream)(sys::CUDA, i32::from(ordinal), to, before) })
    };
    set(handle.as_ptr(), &raw mut before)?;
    let _back = Back { ordinal, before };
    Ok(work())
}

/// Sets the stream of before again.
struct Back {
    ordinal: u16,
    before: *mut std::ffi::c_void,
}

impl Drop for Back {
    fn drop(&mut self) {
        let ordinal = i32::from(self.ordinal);
        // SAFETY: The stream of before is whatever was set before; nothing is asked for.
        unsafe { (api().set_stream)(sys::CUDA, ordinal, self.before, std::ptr::null_mut()) };
    }
}

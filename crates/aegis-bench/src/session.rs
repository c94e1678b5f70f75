//! ONNX Runtime as people use it without AegisRT: a session with its own memory and threads.

use std::path::Path;

use aegis::{DType, TensorSpec};
use aegis_backend_onnx::Library;
use anyhow::{Context as _, bail};
use ort::ep;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::SessionBuilder;
use ort::session::{IoBinding, Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType, ValueType};

use crate::stream::PriorityStream;

/// Runs of a new session before it is timed: the runtime searches its kernels in the first, and
/// captures a graph in one of those that follow.
pub(crate) const WARM_UP_RUNS: usize = 5;

/// What executes the operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    /// The processor, one thread.
    Cpu,
    /// The GPU, every option as the runtime has it by default.
    Cuda,
}

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// With inputs in host memory and outputs there.
    Plain,
    /// With everything bound once, and on a GPU as a captured graph. Inputs and outputs stay on the
    /// device: nothing is copied in a call, to the advantage of this way.
    Graph,
    /// The same on a stream of this priority, from 0 for the lowest to 1000 for the highest.
    GraphAt(u16),
}

/// A session with what it is called with.
pub(crate) struct Bare {
    session: Session,
    how: Bound,
    /// After the session, which uses it until it is gone.
    _stream: Option<PriorityStream>,
}

enum Bound {
    Values(Vec<SessionInputValue<'static>>),
    Binding(Box<IoBinding>),
}

impl Bare {
    /// Loads `file` and warms it up.
    ///
    /// # Errors
    /// The library, the file, or an operator that the provider cannot run as asked.
    pub(crate) fn new(file: &Path, provider: Provider, call: Call) -> anyhow::Result<Self> {
        let stream = match (provider, call) {
            (Provider::Cuda, Call::GraphAt(rank)) => Some(PriorityStream::new(rank)?),
            _ => None,
        };
        let mut bare = Self::cold(file, provider, call, stream)?;
        for _ in 0..WARM_UP_RUNS {
            bare.call()?;
        }
        Ok(bare)
    }

    /// Loads `file` on the processor to ask it once, for numbers and not for times.
    ///
    /// # Errors
    /// As [`Bare::new`].
    pub(crate) fn reference(file: &Path) -> anyhow::Result<Self> {
        Self::cold(file, Provider::Cpu, Call::Plain, None)
    }

    fn cold(
        file: &Path,
        provider: Provider,
        call: Call,
        stream: Option<PriorityStream>,
    ) -> anyhow::Result<Self> {
        let session = session(file, provider, call, stream.as_ref())
            .with_context(|| file.display().to_string())?;
        let values = sample_values(&session)?;
        let how = match call {
            Call::Plain => {
                Bound::Values(values.into_iter().map(|(_, value)| value.into()).collect())
            }
            Call::Graph | Call::GraphAt(_) => {
                Bound::Binding(Box::new(bind(&session, provider, &values)?))
            }
        };
        Ok(Self { session, how, _stream: stream })
    }

    /// One inference, from the call to the return, when it is over on the device too.
    ///
    /// # Errors
    /// The runtime's.
    pub(crate) fn call(&mut self) -> anyhow::Result<()> {
        match &self.how {
            Bound::Values(values) => drop(self.session.run(&values[..])?),
            Bound::Binding(binding) => drop(self.session.run_binding(binding)?),
        }
        Ok(())
    }

    /// One inference with its outputs of `f32`, by name, in the order of the session.
    ///
    /// # Errors
    /// The runtime's, and outputs of another type, which the comparison does not know.
    pub(crate) fn outputs(&mut self) -> anyhow::Result<Vec<(String, Vec<f32>)>> {
        let Bound::Values(values) = &self.how else { bail!("bound outputs stay where they are") };
        let outputs = self.session.run(&values[..])?;
        let output = |(name, value): (&str, ort::value::ValueRef<'_>)| {
            let (_, elements) = value.try_extract_tensor::<f32>()?;
            Ok((name.to_owned(), elements.to_vec()))
        };
        outputs.iter().map(output).collect()
    }
}

fn session(
    file: &Path,
    provider: Provider,
    call: Call,
    stream: Option<&PriorityStream>,
) -> anyhow::Result<Session> {
    let library = Library::get()?;
    let builder = Session::builder(library.ort())?;
    let builder = builder.with_intra_threads(1).map_err(plain)?;
    let builder = builder.with_inter_threads(1).map_err(plain)?;
    let mut builder = builder.with_intra_op_spinning(false).map_err(plain)?;
    if provider == Provider::Cuda {
        let cuda = ep::CUDA::default().with_device_id(0).with_cuda_graph(call != Call::Plain);
        let cuda = stream.map_or(cuda.clone(), |stream| stream.give_to(cuda));
        let cuda = cuda.build().error_on_failure();
        builder = builder.with_execution_providers([cuda]).map_err(plain)?;
    }
    Ok(builder.commit_from_file(file)?)
}

/// The error of a step of the builder without the builder in it.
fn plain(error: ort::Error<SessionBuilder>) -> ort::Error {
    ort::Error::new(error.to_string())
}

/// Made-up inputs, equal to those of the load generator.
fn sample_values(session: &Session) -> anyhow::Result<Vec<(String, DynValue)>> {
    session.inputs().iter().map(sample_value).collect()
}

fn sample_value(input: &Outlet) -> anyhow::Result<(String, DynValue)> {
    let name = input.name().to_owned();
    let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
        bail!("{name} is no tensor");
    };
    let shape: Option<Vec<usize>> = shape.iter().map(|size| usize::try_from(*size).ok()).collect();
    let shape = shape.with_context(|| format!("{name} has no fixed shape"))?;
    let sample = |dtype| {
        aegis::drive::sample_input(&TensorSpec { name: name.clone(), dtype, shape: shape.clone() })
    };
    let value = match ty {
        TensorElementType::Float32 => {
            let float = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            let sample = sample(DType::F32);
            let elements: Vec<f32> = sample.as_bytes().chunks_exact(4).map(float).collect();
            Tensor::from_array((shape, elements))?.into_dyn()
        }
        TensorElementType::Uint8 => {
            let bytes = sample(DType::U8).as_bytes().to_vec();
            Tensor::from_array((shape, bytes))?.into_dyn()
        }
        TensorElementType::Int64 => {
            let whole = |it: &[u8]| i64::from_le_bytes(it.try_into().expect("eight bytes"));
            let sample = sample(DType::I64);
            let elements: Vec<i64> = sample.as_bytes().chunks_exact(8).map(whole).collect();
            Tensor::from_array((shape, elements))?.into_dyn()
        }
        other => bail!("{name} is of type {other}, which no workload here has"),
    };
    Ok((name, value))
}

/// Binds the inputs, which copies them to the device once, and keeps the outputs there.
fn bind(
    session: &Session,
    provider: Provider,
    values: &[(String, DynValue)],
) -> anyhow::Result<IoBinding> {
    let device = match provider {
        Provider::Cpu => AllocationDevice::CPU,
        Provider::Cuda => AllocationDevice::CUDA,
    };
    let memory = MemoryInfo::new(device, 0, AllocatorType::Device, MemoryType::Default)?;
    let mut binding = session.create_binding()?;
    for (name, value) in values {
        binding.bind_input(name.as_str(), value)?;
    }
    for output in session.outputs() {
        binding.bind_output_to_device(output.name(), &memory)?;
    }
    binding.synchronize_inputs()?;
    Ok(binding)
}

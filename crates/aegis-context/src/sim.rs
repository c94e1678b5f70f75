//! A backend with declared lifetimes, costs and faults: first-class, not a mock.
//!
//! On the `sim` device a stage takes exactly the virtual time its [`CostModel`] declares. On the
//! `host` device it keeps the stream's worker thread busy for that long, so schedulers and
//! examples can run against real time without any runtime installed. On `sim` its copies can be told
//! from its work ([`SimBackend::copying`]). Outputs echo the inputs:
//! byte `i` of output `k` is byte `i` of input `k`, or zero where there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis_cuda::{
    CopyMark, CudaStream, DeviceError, DriverKind, HostWork, SimFault, SimWork, WorkFault,
};
use aegis_memory::{Lifespan, MemoryBinding, TensorClass, TensorLifetime};
use aegis_trace::{Bytes, Category, Nanos, StageIndex, TensorId};

use crate::backend::{RuntimeBackend, UploadsAhead};
use crate::description::ModelDescription;
use crate::error::BackendError;
use crate::slot::JobSlot;

/// What one stage of one job does, decided when it is launched.
///
/// Called with the stage and the count of earlier launches of that stage.
pub type CostModel = Box<dyn FnMut(StageIndex, u64) -> SimWork + Send>;

/// A declared model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimModel {
    /// Inputs, outputs and stages.
    pub description: ModelDescription,
    /// Memory that stays.
    pub persistent: Bytes,
    /// Memory shared between jobs.
    pub scratch: Bytes,
    /// Memory that keeps what passes from stage to stage.
    pub carried: Bytes,
}

/// The alignment of every simulated tensor.
const ALIGNMENT: u64 = 256;

/// A simulated runtime.
pub struct SimBackend {
    model: SimModel,
    memory: Vec<TensorLifetime>,
    device: DriverKind,
    cost: CostModel,
    copies: SimCopies,
    launches: Vec<u64>,
    /// The first stage of the job whose inputs went ahead of it.
    uploaded: Option<SimWork>,
    binding: Option<MemoryBinding>,
}

/// How long the copies of a job take at most: they lie within the costs of its stages, and are shorter
/// where those are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCopies {
    /// At the beginning of the first stage; zero for none.
    pub upload: Nanos,
    /// At the end of the last one; zero for none.
    pub download: Nanos,
}

impl SimBackend {
    /// A backend for `device` whose stages take what `cost` says.
    ///
    /// # Panics
    /// When the description has no stage.
    pub fn new(model: SimModel, device: DriverKind, cost: CostModel) -> Self {
        assert!(model.description.stages > 0, "a model runs in at least one stage");
        let memory = lifetimes(&model);
        let launches = vec![0; usize::from(model.description.stages)];
        let copies = SimCopies::default();
        let uploaded = None;
        Self { model, memory, device, cost, copies, launches, uploaded, binding: None }
    }

    /// The same backend, whose jobs copy for as long as `copies` says. On `sim` alone: on the host one
    /// thread copies and computes as one piece of work.
    #[must_use]
    pub fn copying(self, copies: SimCopies) -> Self {
        Self { copies, ..self }
    }

    /// What the next launch of `stage` does.
    fn draw(&mut self, stage: StageIndex) -> SimWork {
        let launch = &mut self.launches[usize::from(stage.0)];
        let work = (self.cost)(stage, *launch);
        *launch += 1;
        work
    }

    /// How long the upload within `stage` takes.
    fn upload_of(&self, stage: StageIndex, work: SimWork) -> Nanos {
        let upload = if stage.0 == 0 { self.copies.upload } else { Nanos::ZERO };
        upload.min(work.cost)
    }

    /// Enqueues the stage as its upload, its work and its download, marked; one that was `uploaded` as the
    /// last two.
    fn enqueue_parts(
        &self,
        stage: StageIndex,
        work: SimWork,
        uploaded: bool,
        stream: &CudaStream,
    ) -> Result<(), DeviceError> {
        let is_last = stage.0 + 1 == self.model.description.stages;
        let upload = self.upload_of(stage, work);
        let download = if is_last { self.copies.download } else { Nanos::ZERO };
        let download = download.min(work.cost.saturating_sub(upload));
        let cost = work.cost.saturating_sub(upload).saturating_sub(download);
        // What cannot be launched leaves nothing behind.
        if work.fault == Some(SimFault::LaunchFailure) {
            return stream.enqueue_sim(work);
        }
        let copy = |cost| stream.enqueue_sim(SimWork { cost, fault: None });
        if upload > Nanos::ZERO && !uploaded {
            copy(upload)?;
            stream.mark(CopyMark::Uploaded)?;
        }
        stream.enqueue_sim(SimWork { cost, ..work })?;
        if download > Nanos::ZERO {
            stream.mark(CopyMark::Downloading)?;
            copy(download)?;
        }
        Ok(())
    }

    /// A backend whose stages always take these `costs`.
    #[must_use]
    pub fn constant(model: SimModel, device: DriverKind, costs: Vec<Nanos>) -> Self {
        let cost =
            move |stage: StageIndex, _| SimWork { cost: costs[usize::from(stage.0)], fault: None };
        Self::new(model, device, Box::new(cost))
    }
}

impl RuntimeBackend for SimBackend {
    fn runtime_name(&self) -> String {
        "sim".into()
    }

    fn description(&self) -> &ModelDescription {
        &self.model.description
    }

    fn memory(&self) -> &[TensorLifetime] {
        &self.memory
    }

    fn uploads_ahead(&mut self) -> Option<&mut dyn UploadsAhead> {
        let does = self.device == DriverKind::Sim && self.copies.upload > Nanos::ZERO;
        does.then_some(self)
    }

    fn bind(&mut self, binding: MemoryBinding) -> Result<(), BackendError> {
        self.binding = Some(binding);
        Ok(())
    }

    fn enqueue(
        &mut self,
        stage: StageIndex,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let work = self.draw(stage);
        if stage.0 + 1 == self.model.description.stages {
            echo(slot);
        }
        match self.device {
            DriverKind::Host => stream.enqueue_host(Arc::new(BusyWork(work)))?,
            DriverKind::Sim => self.enqueue_parts(stage, work, false, stream)?,
            other => {
                let reason = format!("SimBackend does not run on {other}");
                return Err(BackendError::Runtime { reason });
            }
        }
        Ok(())
    }
}

impl UploadsAhead for SimBackend {
    fn upload(&mut self, _slot: &Arc<JobSlot>, stream: &CudaStream) -> Result<(), BackendError> {
        let first = StageIndex(0);
        let work = self.draw(first);
        self.uploaded = Some(work);
        let cost = self.upload_of(first, work);
        Ok(stream.enqueue_sim(SimWork { cost, fault: None })?)
    }

    fn enqueue_uploaded(
        &mut self,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let work = self.uploaded.take().expect("a stage is launched behind its upload");
        if self.model.description.stages == 1 {
            echo(slot);
        }
        Ok(self.enqueue_parts(StageIndex(0), work, true, stream)?)
    }
}

/// One tensor of each class that is not empty, scratch and carried live in every stage.
fn lifetimes(model: &SimModel) -> Vec<TensorLifetime> {
    let end = u32::from(model.description.stages);
    let span = Lifespan::new(0, end).expect("there is at least one stage");
    let sizes = [
        (TensorClass::Persistent, model.persistent),
        (TensorClass::Scratch, model.scratch),
        (TensorClass::Carried, model.carried),
    ];
    (0u16..)
        .zip(sizes)
        .filter(|(_, (_, size))| *size > Bytes::ZERO)
        .map(|(index, (class, size))| TensorLifetime {
            tensor: TensorId::first(index),
            class,
            span,
            size,
            alignment: ALIGNMENT,
        })
        .collect()
}

/// Copies inputs to outputs, as far as both go.
fn echo(slot: &JobSlot) {
    for (output, input) in slot.io().pairs() {
        let shared = output.len().min(input.len());
        output[..shared].copy_from_slice(&input[..shared]);
    }
}

/// Keeps a worker thread busy, or fails, as declared.
struct BusyWork(SimWork);

impl HostWork for BusyWork {
    fn run(&self) -> Result<(), WorkFault> {
        let fault = |category, message: &str| Err(WorkFault::new(category, message));
        match self.0.fault {
            None => spin(self.0.cost),
            Some(SimFault::Overrun { extra }) => spin(self.0.cost + extra),
            Some(SimFault::OutOfMemory) => return fault(Category::Permanent, "out of memory"),
            Some(SimFault::LaunchFailure) => return fault(Category::Permanent, "launch failed"),
            Some(SimFault::ExecutionFailure) => {
                return fault(Category::Permanent, "execution failed");
            }
            Some(SimFault::DeviceLost) => return fault(Category::Fatal, "device lost"),
            Some(SimFault::Hang) => {
                return fault(Category::Permanent, "a hang cannot be simulated on the host");
            }
            Some(_) => return fault(Category::Permanent, "an unknown fault"),
        }
        Ok(())
    }
}

fn spin(length: Nanos) {
    let end = Instant::now() + Duration::from(length);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

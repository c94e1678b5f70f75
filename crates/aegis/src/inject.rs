//! Faults put into a model on purpose: what its network would never do, on the device that runs it.
//!
//! For showing on a real device what a fault costs whom. Behind the feature `fault-injection`, which no
//! program turns on that runs models for their own sake. Begin at [`Runtime::inject`].
//!
//! The fault is in the backend, below everything that has to cope with it: admission, dispatcher, trace
//! and report are the shipped ones, and are told nothing.
//!
//! # Invariants
//! 1. A model with a switch that was never armed runs as it would without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, ModelDescription, RuntimeBackend};
use aegis_cuda::{CudaStream, DriverKind, HostWork, TestKernels, WorkFault};
use aegis_memory::{MemoryBinding, TensorLifetime};
use aegis_trace::{Bytes, Category, Nanos, StageIndex};

use crate::error::Error;
use crate::runtime::Runtime;
use crate::source::LoadedModel;

/// What a job of a model does beside its own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InjectedFault {
    /// It keeps the device for this long before its own work begins.
    Overrun {
        /// How long.
        length: Nanos,
    },
    /// It writes to an address that nobody has, and the device is lost with it. On the host it says that
    /// it was.
    IllegalAccess,
    /// Its runtime asks for this much memory while it enqueues, and none of its scratch is left.
    Request {
        /// How much.
        requested: Bytes,
    },
}

/// Says how many of the next jobs have the fault. Clones are the same switch; any thread may use it.
#[derive(Clone, Debug, Default)]
pub struct FaultSwitch {
    armed: Arc<AtomicU32>,
}

impl FaultSwitch {
    /// The next `jobs` jobs that begin have the fault.
    pub fn arm(&self, jobs: u32) {
        self.armed.store(jobs, Ordering::Release);
    }

    /// Whether this job has it; one fewer is left then.
    fn take(&self) -> bool {
        let one_fewer = |left: u32| left.checked_sub(1);
        self.armed.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_fewer).is_ok()
    }
}

impl Runtime {
    /// Puts a fault into a loaded model, off until the switch is armed. Compiles a kernel on a GPU, which
    /// takes up to seconds; so inject before the start.
    ///
    /// # Errors
    /// [`Error::WrongDriver`] on a simulated device, [`Error::Device`]; both Permanent.
    pub fn inject(
        &self,
        model: LoadedModel,
        fault: InjectedFault,
    ) -> Result<(LoadedModel, FaultSwitch), Error> {
        let device = self.device_of(model.partition);
        let means = match device.kind() {
            DriverKind::Cuda => Means::Gpu(TestKernels::load(device)?),
            DriverKind::Host => Means::Host(Arc::new(Work(fault))),
            _ => {
                let (model, backend, needs) = (model.name, "a fault", "host or cuda");
                return Err(Error::WrongDriver { model, backend, needs });
            }
        };
        let switch = FaultSwitch::default();
        let LoadedModel { name, partition, backend: inner } = model;
        let backend = Box::new(Faulty { inner, fault, means, switch: switch.clone() });
        Ok((LoadedModel { name, partition, backend }, switch))
    }
}

/// How the fault gets onto the device.
enum Means {
    Gpu(TestKernels),
    Host(Arc<dyn HostWork>),
}

/// A backend with a fault in front of its own work.
struct Faulty {
    inner: Box<dyn RuntimeBackend>,
    fault: InjectedFault,
    means: Means,
    switch: FaultSwitch,
}

impl Faulty {
    fn act(&self, stream: &CudaStream) -> Result<(), BackendError> {
        match (self.fault, &self.means) {
            (InjectedFault::Request { requested }, _) => {
                return Err(BackendError::OutOfScratch { requested, available: Bytes::ZERO });
            }
            (InjectedFault::Overrun { length }, Means::Gpu(kernels)) => {
                kernels.busy(stream, 1, length)?;
            }
            (InjectedFault::IllegalAccess, Means::Gpu(kernels)) => kernels.illegal(stream)?,
            (_, Means::Host(work)) => stream.enqueue_host(Arc::clone(work))?,
        }
        Ok(())
    }
}

impl RuntimeBackend for Faulty {
    fn runtime_name(&self) -> String {
        self.inner.runtime_name()
    }

    fn description(&self) -> &ModelDescription {
        self.inner.description()
    }

    fn memory(&self) -> &[TensorLifetime] {
        self.inner.memory()
    }

    fn foreign_memory(&self) -> Bytes {
        self.inner.foreign_memory()
    }

    fn remarks(&self) -> &[String] {
        self.inner.remarks()
    }

    fn enqueues_behind(&self) -> bool {
        self.inner.enqueues_behind()
    }

    fn bind(&mut self, binding: MemoryBinding) -> Result<(), BackendError> {
        self.inner.bind(binding)
    }

    fn enqueue(
        &mut self,
        stage: StageIndex,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        if stage.0 == 0 && self.switch.take() {
            self.act(stream)?;
        }
        self.inner.enqueue(stage, slot, stream)
    }
}

/// The fault as work of the host's worker.
struct Work(InjectedFault);

impl HostWork for Work {
    fn run(&self) -> Result<(), WorkFault> {
        match self.0 {
            InjectedFault::Overrun { length } => {
                let (begun, length) = (Instant::now(), Duration::from(length));
                while begun.elapsed() < length {
                    std::hint::spin_loop();
                }
                Ok(())
            }
            InjectedFault::IllegalAccess => {
                Err(WorkFault::new(Category::Fatal, "an access to memory that nobody has"))
            }
            InjectedFault::Request { .. } => Ok(()), // Asked for, and refused, before.
        }
    }
}

#[cfg(test)]
mod tests {
    use aegis_context::SimModel;
    use aegis_sched::admission::Terms;
    use aegis_sched::policy::PolicyKind;
    use aegis_sched::task::Overheads;
    use aegis_trace::{Assumption, Record, TraceEvent};

    use super::*;
    use crate::handle::ModelHandle;
    use crate::source::ModelSource;

    const COST: Nanos = Nanos::from_millis(1);

    /// A model with `fault` beside a sound one, both running on the host.
    fn running(fault: InjectedFault) -> (Runtime, [ModelHandle; 2], FaultSwitch) {
        let builder = Runtime::builder().streams(1).policy(PolicyKind::Edf).queue_depth(8);
        let builder = builder.max_models(4).overheads(Overheads::default()).trace_capacity(256);
        let runtime = builder.host(Bytes::from_mib(8)).build().expect("the host is a device");
        let load = |name| {
            let description = ModelDescription { inputs: vec![], outputs: vec![], stages: 1 };
            let (persistent, scratch, carried) = (Bytes(64), Bytes(64), Bytes::ZERO);
            let model = SimModel { description, persistent, scratch, carried };
            runtime.load(name, &ModelSource::Sim { model, costs: vec![COST] }).expect("declared")
        };
        let terms = Terms::periodic(COST, Nanos::from_secs(1), Bytes::from_mib(1));
        let (faulty, switch) = runtime.inject(load("faulty"), fault).expect("on the host");
        let admitted = [faulty, load("sound")].map(|it| runtime.admit(it, &terms).expect("room"));
        runtime.start().expect("the first start");
        (runtime, admitted, switch)
    }

    fn run(model: &ModelHandle) -> Result<(), Error> {
        model.submit(&[]).and_then(|job| job.wait()).map(drop)
    }

    fn has(trace: &[Record], is: impl Fn(&TraceEvent) -> bool) -> bool {
        trace.iter().any(|record| is(&record.event))
    }

    #[test]
    fn an_overrun_is_the_armed_jobs_alone_and_is_found() {
        let (runtime, [faulty, sound], switch) =
            running(InjectedFault::Overrun { length: Nanos::from_millis(30) });
        switch.arm(1);
        run(&faulty).expect("late is not failed");
        run(&sound).expect("nobody else notices");
        runtime.stop().expect("nothing hangs");
        let trace = runtime.take_trace();
        let is_overrun = |event: &TraceEvent| {
            matches!(event, TraceEvent::AssumptionBroken {
                assumption: Assumption::ExecutionTime, job, .. } if job.model == faulty.id())
        };
        assert!(has(&trace, is_overrun), "{trace:?}");
    }

    #[test]
    fn an_illegal_access_ends_the_device() {
        let (runtime, [faulty, sound], switch) = running(InjectedFault::IllegalAccess);
        run(&faulty).expect("the switch is off");
        switch.arm(1);
        run(&faulty).expect_err("the device is lost");
        run(&sound).expect_err("for everybody");
        let error = runtime.stop().expect_err("it was lost");
        assert_eq!(error.category(), Category::Fatal);
    }

    #[test]
    fn a_request_fences_the_model_alone() {
        let requested = Bytes::from_mib(5);
        let (runtime, [faulty, sound], switch) = running(InjectedFault::Request { requested });
        switch.arm(1);
        let error = run(&faulty).expect_err("it asked for too much");
        assert!(error.to_string().contains("5 MiB with 0 B"), "{error}");
        run(&faulty).expect_err("it is fenced");
        run(&sound).expect("nobody else notices");
        runtime.stop().expect("nothing hangs");
        let is_refusal = |event: &TraceEvent| matches!(event, TraceEvent::AllocationRefused { requested: it, .. } if *it == requested);
        assert!(has(&runtime.take_trace(), is_refusal));
    }
}

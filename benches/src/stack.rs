//! A scheduler with one declared model, put together as the facade does it.
//!
//! The benches look inside: they take turns of the dispatcher by hand, on a simulated device, and
//! let its threads poll for different times. The facade shows neither, so the parts are put
//! together here, with the limits the facade gives them.

use std::sync::Arc;

use aegis_context::{
    DType, ModelDescription, ResourceBudget, SimBackend, SimModel, StreamPool, TensorSpec,
};
use aegis_cuda::{DeviceContext, HostConfig, SimConfig};
use aegis_memory::MemoryOrchestrator;
use aegis_sched::admission::{
    AdmissionConfig, AdmissionController, AdmissionRequest, DeviceMemory, Terms,
};
use aegis_sched::dispatch::orchestrator::{Orchestrator, Pace};
use aegis_sched::dispatch::{Dispatcher, DispatcherConfig, OverrunPolicy};
use aegis_sched::policy::{PolicyKind, policy_of};
use aegis_sched::queue::SubmissionQueue;
use aegis_sched::submit::{Submitter, SubmitterParts};
use aegis_sched::task::Overheads;
use aegis_trace::{Bytes, MonotonicClock, Nanos, PartitionId, ServiceTerms, TraceCollector};

/// Device memory; the model takes a page or two of it.
const MEMORY: Bytes = Bytes::from_mib(1);
/// As the facade has it.
const STREAM_DEPTH: usize = 8;
/// Places for submissions; the benches use one at a time.
const QUEUE_DEPTH: usize = 64;
/// Events between two drains, as the facade has it.
const TRACE_CAPACITY: usize = 1 << 14;
/// As the facade has it.
const HANG_FACTOR: u64 = 20;
/// As the facade has it: the machine may take the worker off its core for a while.
const HANG_FLOOR: Nanos = Nanos::from_secs(1);
/// Jobs that may be outstanding: one under way, one being submitted.
const SLOTS: usize = 2;

/// Charged, so that a round breaks no assumption before its decision.
const OVERHEADS: Overheads =
    Overheads { dispatch: Nanos::ZERO, wake: Nanos::from_millis(1), ..Overheads::NONE };
/// Long enough for the wake-up latency.
const DEADLINE: Nanos = Nanos::from_millis(100);

/// What the one model of a [`Stack`] is like.
#[derive(Clone, Copy, Debug)]
pub struct StackConfig {
    /// The time its only stage takes, and what is declared for it.
    pub cost: Nanos,
    /// The least time between two jobs.
    pub period: Nanos,
}

/// How long threads poll before they sleep.
#[derive(Clone, Copy, Debug)]
pub struct Spin {
    /// The orchestrator.
    pub orchestrator: Nanos,
    /// The worker of the stream.
    pub worker: Nanos,
}

/// Device, dispatcher, and the submitting side of one model with an input and an output.
pub struct Stack {
    /// The device.
    pub device: DeviceContext,
    /// All that is recorded.
    pub collector: TraceCollector,
    /// The submitting side.
    pub submitter: Submitter,
    /// The way between the two sides.
    pub submissions: Arc<SubmissionQueue>,
    /// The deciding side.
    pub dispatcher: Dispatcher,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Stack {
    /// On a simulated device: time stands still until it is moved.
    ///
    /// # Panics
    /// When the stack cannot be built, which is a defect.
    #[must_use]
    pub fn simulated(config: StackConfig) -> Self {
        let sim = SimConfig { memory_limit: MEMORY, max_streams: 1, stream_depth: STREAM_DEPTH };
        Self::on(DeviceContext::sim(sim).expect("a simulated device"), config)
    }

    /// On the CPU, with the orchestrator running. Gives back the submitting side.
    ///
    /// # Panics
    /// When the stack cannot be built, which is a defect or a lack of threads.
    #[must_use]
    pub fn running(config: StackConfig, spin: Spin) -> (Running, Submitter, TraceCollector) {
        let clock = MonotonicClock::start();
        let host = HostConfig {
            memory_limit: MEMORY,
            max_streams: 1,
            stream_depth: STREAM_DEPTH,
            spin: spin.worker,
            clock,
        };
        let stack = Self::on(DeviceContext::host(host).expect("the CPU"), config);
        let Self { device, collector, submitter, submissions, dispatcher } = stack;
        let pace = Pace::Real { clock, spin: spin.orchestrator, realtime: false, core: None };
        let orchestrator = Orchestrator::start(dispatcher, submissions, device, pace);
        let running = Running { orchestrator: orchestrator.expect("one more thread"), clock };
        (running, submitter, collector)
    }

    fn on(device: DeviceContext, config: StackConfig) -> Self {
        let arena = device.reserve_arena(MEMORY).expect("all of the memory");
        let overheads = OVERHEADS;
        let mut admission = AdmissionController::new(AdmissionConfig {
            policy: PolicyKind::Edf,
            overheads,
            partition: PartitionId::WHOLE,
            first_model: 0,
            max_models: 1,
            streams: 1,
        });
        let mut memory = DeviceMemory::new(MemoryOrchestrator::new(arena));
        let admitted = admission.admit(request(&device, config), &mut memory);
        let admitted = admitted.expect("the device is its own");
        let collector = TraceCollector::new(TRACE_CAPACITY);
        let mut dispatcher = Dispatcher::new(
            DispatcherConfig {
                max_models: 1,
                overheads,
                overrun: OverrunPolicy::Record,
                hang_factor: HANG_FACTOR,
                hang_floor: HANG_FLOOR,
            },
            policy_of(PolicyKind::Edf),
            StreamPool::new(&device, 1).expect("its one stream"),
            collector.recorder(),
        );
        dispatcher.install(admitted.lane);
        let signal = Arc::clone(device.signal());
        let submissions = Arc::new(SubmissionQueue::new(QUEUE_DEPTH, signal));
        let submitter = Submitter::new(SubmitterParts {
            model: admitted.model,
            description: admitted.description,
            slots: admitted.slots,
            gate: admitted.gate,
            queue: Arc::clone(&submissions),
            clock: device.clock(),
            recorder: collector.recorder(),
        });
        Self { device, collector, submitter, submissions, dispatcher }
    }
}

/// A stack whose orchestrator runs.
#[derive(Debug)]
pub struct Running {
    orchestrator: Orchestrator,
    /// The clock of the trace.
    pub clock: MonotonicClock,
}

impl Running {
    /// Ends the orchestrator.
    pub fn stop(self) {
        drop(self.orchestrator.stop());
    }
}

/// One stage, one small input, one small output.
fn request(device: &DeviceContext, config: StackConfig) -> AdmissionRequest {
    let tensor = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![1, 16] };
    let description =
        ModelDescription { inputs: vec![tensor.clone()], outputs: vec![tensor], stages: 1 };
    let carried = Bytes::ZERO;
    let model = SimModel { description, persistent: Bytes(4096), scratch: Bytes(4096), carried };
    AdmissionRequest {
        name: "declared".into(),
        terms: Terms {
            service: ServiceTerms::Guaranteed {
                period: config.period,
                deadline: DEADLINE,
                jitter: Nanos::ZERO,
                priority: 0,
            },
            budget: ResourceBudget { memory: MEMORY, streams: 1, compute: Nanos::MAX },
            slots: SLOTS,
            ..Terms::periodic(config.cost, config.period, MEMORY)
        },
        backend: Box::new(SimBackend::constant(model, device.kind(), vec![config.cost])),
    }
}

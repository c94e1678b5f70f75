//! A turn of the dispatcher allocates nothing, whatever it decides about overruns and best effort.
#![allow(unsafe_code)] // A counting allocator can only be written with it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aegis_context::{
    ModelDescription, ResourceBudget, SimBackend, SimCopies, SimModel, StreamPool,
};
use aegis_cuda::{DeviceContext, SimConfig, SimWork};
use aegis_memory::MemoryOrchestrator;
use aegis_sched::admission::{
    AdmissionConfig, AdmissionController, AdmissionRequest, DeviceMemory, Terms,
};
use aegis_sched::dispatch::{Dispatcher, DispatcherConfig, OverrunPolicy};
use aegis_sched::policy::{PolicyKind, policy_of};
use aegis_sched::queue::SubmissionQueue;
use aegis_sched::submit::{Submitter, SubmitterParts};
use aegis_sched::task::Overheads;
use aegis_sched::wcet::{Campaign, Share, StageMonitor};
use aegis_trace::{
    Bytes, EventKind, Nanos, PartitionId, Record, ServiceTerms, StageIndex, TraceCollector,
};

/// Counts the allocations of all threads. The test of this file is one, so that no other test
/// allocates meanwhile.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY:
// 1. Every call goes to the system's allocator unchanged, which keeps the contract.
// 2. Counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY:
        // 1. The caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY:
        // 1. The caller keeps the contract of `dealloc`; `ptr` came from `System`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MEMORY: Bytes = Bytes::from_mib(16);
const SLOTS: usize = 8;

/// A dispatcher on a simulated device, and the ways in.
struct Stack {
    device: DeviceContext,
    admission: AdmissionController,
    memory: DeviceMemory,
    dispatcher: Dispatcher,
    submissions: Arc<SubmissionQueue>,
    collector: TraceCollector,
    submitters: Vec<Submitter>,
}

impl Stack {
    fn new(overheads: Overheads) -> Self {
        let sim = SimConfig { memory_limit: MEMORY, max_streams: 2, stream_depth: 16 };
        let device = DeviceContext::sim(sim).expect("a simulated device");
        let arena = device.reserve_arena(MEMORY).expect("all of the memory");
        let admission = AdmissionConfig {
            policy: PolicyKind::Edf,
            overheads,
            partition: PartitionId::WHOLE,
            first_model: 0,
            max_models: 8,
            streams: 1,
        };
        let config = DispatcherConfig {
            max_models: 8,
            overheads,
            overrun: OverrunPolicy::Contain,
            hang_factor: 1_000,
            hang_floor: Nanos::ZERO,
        };
        let collector = TraceCollector::new(1 << 12);
        let streams = if overheads.uploads_ahead {
            StreamPool::uploading_ahead(&device, 1).expect("its two streams")
        } else {
            StreamPool::new(&device, 1).expect("its one stream")
        };
        let policy = policy_of(PolicyKind::Edf);
        let submissions = Arc::new(SubmissionQueue::new(64, Arc::clone(device.signal())));
        Self {
            admission: AdmissionController::new(admission),
            memory: DeviceMemory::new(MemoryOrchestrator::new(arena)),
            dispatcher: Dispatcher::new(config, policy, streams, collector.recorder()),
            submissions,
            collector,
            submitters: Vec::new(),
            device,
        }
    }

    /// Admits a model of two stages of 10 ns, copies included; every `late`-th launch of the first
    /// takes 40 ns more.
    fn admit(&mut self, name: &str, service: ServiceTerms, late: u64) {
        let description = ModelDescription { inputs: vec![], outputs: vec![], stages: 2 };
        let carried = Bytes::ZERO;
        let model = SimModel { description, persistent: Bytes(64), scratch: Bytes(64), carried };
        let costs = move |stage: StageIndex, launch: u64| {
            let extra = if stage.0 == 0 && launch % late == late - 1 { 40 } else { 0 };
            SimWork { cost: Nanos(10 + extra), fault: None }
        };
        let budget = ResourceBudget { memory: MEMORY, streams: 1, compute: Nanos::MAX };
        let (declared, may_be_suspended) = (vec![Nanos(10); 2], true);
        let terms = Terms { service, costs: declared, may_be_suspended, budget, slots: SLOTS };
        let copies = SimCopies { upload: Nanos(2), download: Nanos(1) };
        let backend = SimBackend::new(model, self.device.kind(), Box::new(costs)).copying(copies);
        let backend = Box::new(backend);
        let request = AdmissionRequest { name: name.into(), terms, backend };
        let admitted = self.admission.admit(request, &mut self.memory);
        let mut admitted = admitted.expect("there is room");
        let measured = Campaign::new(vec![Nanos(9), Nanos(10)]).expect("valid times");
        let monitor = StageMonitor::new(&measured, Nanos(10), Some(Share::P99));
        admitted.lane.watch(vec![monitor; 2]);
        self.dispatcher.install(admitted.lane);
        self.submitters.push(Submitter::new(SubmitterParts {
            model: admitted.model,
            description: admitted.description,
            slots: admitted.slots,
            gate: admitted.gate,
            queue: Arc::clone(&self.submissions),
            clock: self.device.clock(),
            recorder: self.collector.recorder(),
        }));
    }

    /// Submits what the slots allow, and runs one turn at the next thing to happen. The allocations
    /// of both.
    fn turn(&mut self) -> u64 {
        let now = self.device.clock().now();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for submitter in &self.submitters {
            while let Ok(filling) = submitter.claim() {
                drop(filling.submit(None));
            }
        }
        let observed = self.dispatcher.observe();
        let turn = self.dispatcher.step(observed, now, &self.submissions);
        let simulator = self.device.simulator().expect("a simulated device");
        let next = [simulator.next_event(), turn.next].into_iter().flatten().min();
        simulator.advance_to(next.expect("there is always something in the background"));
        ALLOCATIONS.load(Ordering::Relaxed) - before
    }
}

#[test]
fn a_turn_allocates_nothing() {
    for (look_ahead, uploads_ahead) in [(false, false), (true, false), (true, true)] {
        turns_allocate_nothing(Overheads { look_ahead, uploads_ahead, ..Overheads::NONE });
    }
}

fn turns_allocate_nothing(overheads: Overheads) {
    let mut stack = Stack::new(overheads);
    let guaranteed = |period: u64| ServiceTerms::Guaranteed {
        period: Nanos(period),
        deadline: Nanos(period),
        jitter: Nanos::ZERO,
        priority: 0,
    };
    stack.admit("camera", guaranteed(100), 1 << 40);
    stack.admit("lidar", guaranteed(150), 7);
    let (budget, period) = (Nanos(25), Nanos(200));
    stack.admit("planner", ServiceTerms::Server { budget, period, priority: 0 }, 9);
    stack.admit("logger", ServiceTerms::Background, 11);
    let mut records: Vec<Record> = Vec::new();
    for round in 0..20_000 {
        let allocations = stack.turn();
        assert!(round < 100 || allocations == 0, "{allocations} in turn {round}");
        if round % 200 == 0 {
            records.extend(stack.collector.drain());
        }
    }
    // Everything that a turn can decide without a fault has been decided.
    for kind in [
        EventKind::Suspended,
        EventKind::OutOfBudget,
        EventKind::DebtIncurred,
        EventKind::Postponed,
        EventKind::GuaranteesRestored,
        EventKind::Dropped,
    ] {
        let seen = records.iter().filter(|record| record.event.kind() == kind).count();
        assert!(seen > 20, "{kind:?}: {seen}");
    }
    // Evidence goes stale once for each stage and reason: three models overrun in their first stage.
    let stale = records.iter().filter(|record| record.event.kind() == EventKind::EvidenceStale);
    assert!(stale.count() >= 3, "the monitors watched every turn");
}

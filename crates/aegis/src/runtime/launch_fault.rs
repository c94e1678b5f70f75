//! A model whose runtime asks for too much while it enqueues, as one does that runs without a graph.

use std::sync::Arc;

use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, ModelDescription, RuntimeBackend, SimBackend, SimModel};
use aegis_cuda::{CudaStream, DriverKind};
use aegis_memory::{MemoryBinding, TensorLifetime};
use aegis_sched::admission::Terms;
use aegis_sched::policy::PolicyKind;
use aegis_sched::replay::{self, Extent};
use aegis_sched::task::Overheads;
use aegis_trace::{Bytes, Category, EventKind, Nanos, PartitionId, StageIndex, Trace, TraceEvent};

use super::Runtime;
use crate::error::Error;
use crate::source::LoadedModel;

const COST: Nanos = Nanos::from_millis(1);
const REQUESTED: Bytes = Bytes::from_mib(5);
const AVAILABLE: Bytes = Bytes::from_kib(3);

/// A simulated model that works `good` times.
struct Greedy {
    inner: SimBackend,
    good: u32,
}

impl RuntimeBackend for Greedy {
    fn runtime_name(&self) -> String {
        "greedy".into()
    }

    fn description(&self) -> &ModelDescription {
        self.inner.description()
    }

    fn memory(&self) -> &[TensorLifetime] {
        self.inner.memory()
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
        match self.good.checked_sub(1) {
            Some(left) => self.good = left,
            None => {
                let (requested, available) = (REQUESTED, AVAILABLE);
                return Err(BackendError::OutOfScratch { requested, available });
            }
        }
        self.inner.enqueue(stage, slot, stream)
    }
}

fn loaded(name: &str, good: u32) -> LoadedModel {
    let description = ModelDescription { inputs: vec![], outputs: vec![], stages: 1 };
    let (scratch, carried) = (Bytes::from_kib(4), Bytes::ZERO);
    let model = SimModel { description, persistent: Bytes::from_kib(4), scratch, carried };
    let inner = SimBackend::constant(model, DriverKind::Sim, vec![COST]);
    let partition = PartitionId::WHOLE;
    LoadedModel { name: name.into(), partition, backend: Box::new(Greedy { inner, good }) }
}

#[test]
fn a_request_beyond_the_scratch_is_recorded_and_is_that_models_fault_alone() {
    let builder = Runtime::builder().streams(1).policy(PolicyKind::Edf).queue_depth(8);
    let builder = builder.max_models(4).overheads(Overheads::default()).trace_capacity(256);
    let runtime = builder.sim(Bytes::from_mib(64)).build().expect("a simulated device");
    let terms = Terms::periodic(COST, Nanos::from_millis(10), Bytes::from_mib(1));
    let admit = |model| runtime.admit(model, &terms).expect("there is room");
    let (greedy, sound) = (admit(loaded("greedy", 1)), admit(loaded("sound", u32::MAX)));
    runtime.start().expect("the first start");
    let run = |model: &crate::ModelHandle| model.submit(&[]).and_then(|job| job.wait());
    run(&greedy).expect("the first job is within its memory");
    let error = run(&greedy).expect_err("the second is not");
    assert_eq!(error.category(), Category::Permanent);
    assert!(error.to_string().contains("5 MiB with 3 KiB of its scratch left"), "{error}");
    assert!(matches!(run(&greedy), Err(Error::Submission { .. })), "it is fenced");
    run(&sound).expect("nobody else notices");
    runtime.stop().expect("nothing hangs");
    let trace = Trace { records: runtime.take_trace(), dropped: 0 };
    let replayed = replay::replay(&trace, Extent::Whole).expect("it is whole");
    assert!(replayed.divergence.is_none(), "{:?}", replayed.divergence);
    let events = trace.records.into_iter().map(|record| record.event);
    let refused: Vec<_> =
        events.filter(|event| event.kind() == EventKind::AllocationRefused).collect();
    let (model, requested, available) = (greedy.id(), REQUESTED, AVAILABLE);
    assert_eq!(refused, [TraceEvent::AllocationRefused { model, requested, available }]);
}

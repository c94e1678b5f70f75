//! Work and jobs for the tests of this crate.

use std::sync::Arc;

use aegis_cuda::{CudaStream, SimFault, SimWork};
use aegis_trace::{Nanos, SubmitRefusal};

use crate::description::ModelDescription;
use crate::error::ContextError;
use crate::slot::{JobOutcome, JobSlot};

/// Work of so many nanoseconds on a simulated device.
pub(crate) fn work(cost: u64) -> impl FnOnce(&CudaStream) -> Result<(), ContextError> {
    failing(cost, None)
}

/// The same with a fault, if there is one.
pub(crate) fn failing(
    cost: u64,
    fault: Option<SimFault>,
) -> impl FnOnce(&CudaStream) -> Result<(), ContextError> {
    move |stream| Ok(stream.enqueue_sim(SimWork { cost: Nanos(cost), fault })?)
}

/// A slot with a job in the queue.
pub(crate) fn queued() -> Arc<JobSlot> {
    let description = ModelDescription { inputs: vec![], outputs: vec![], stages: 1 };
    let slot = Arc::new(JobSlot::new(&description));
    assert!(slot.claim(), "a new slot is free");
    slot.queue();
    slot
}

/// Tells the job's caller an outcome, whose slot is given back then.
pub(crate) fn tell(slot: &JobSlot) {
    slot.finish(JobOutcome::Refused { why: SubmitRefusal::NotRunning });
    slot.release();
}

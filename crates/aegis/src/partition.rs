//! The partitions of a device: serial executors that run at once, each with its own proof.
//!
//! Whatever orders jobs is there once for each: a view of the device with its own streams, a queue
//! of submissions, a dispatcher, a thread, a set of tasks and its analysis. What is there once for all
//! is the memory, the trace and the names.
//!
//! ```text
//!   submit --queue--> dispatcher --streams--> view \
//!                                                   device: one memory, one trace
//!   submit --queue--> dispatcher --streams--> view /
//! ```
//! Without a split there is one partition, the whole device, and it has no name.
//!
//! # Invariants
//! 1. Partition `p` gives the model indices from `p * max_models` on, so ids are unique on the device,
//!    and the id of a model says where it runs.
//! 2. The memory plan is one: a model is planned beside those of all partitions, and shares scratch
//!    within its own alone.

use std::sync::Arc;

use aegis_cuda::{DeviceContext, Realtime};
use aegis_sched::admission::{AdmissionController, DeviceMemory};
use aegis_sched::dispatch::orchestrator::Pace;
use aegis_sched::policy::PolicyKind;
use aegis_sched::queue::SubmissionQueue;
use aegis_trace::{Clock, ModelId, PartitionId};

use crate::source::Preparation;

/// A partition as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionSpec {
    /// Unique on the device.
    pub name: String,
    /// Streaming multiprocessors, at least; `None` where the driver has none to split.
    pub sms: Option<u32>,
    /// What orders its jobs; `None` for the policy of the runtime.
    pub policy: Option<PolicyKind>,
    /// The core that its orchestration thread is to run on.
    pub core: Option<u16>,
}

impl PartitionSpec {
    /// A partition of this name that asks for nothing.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), sms: None, policy: None, core: None }
    }
}

/// What a runtime keeps of a partition beside its dispatcher and its proof.
pub(crate) struct Partition {
    /// `None` for the whole device.
    pub(crate) spec: Option<PartitionSpec>,
    /// The SMs that the driver gave it.
    pub(crate) granted: Option<u32>,
    pub(crate) device: DeviceContext,
    pub(crate) pace: Pace,
    /// How the stream workers are scheduled.
    pub(crate) workers: Realtime,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) submissions: Arc<SubmissionQueue>,
    /// On a GPU, what prepares models.
    pub(crate) preparation: Option<Preparation>,
}

impl Partition {
    pub(crate) fn name(&self) -> Option<&str> {
        self.spec.as_ref().map(|spec| spec.name.as_str())
    }
}

/// The proofs of all partitions, and the memory that they share.
#[derive(Debug)]
pub(crate) struct Admissions {
    pub(crate) memory: DeviceMemory,
    controllers: Vec<AdmissionController>,
}

impl Admissions {
    /// `controllers` are in the order of their partitions, at least one.
    pub(crate) fn new(memory: DeviceMemory, controllers: Vec<AdmissionController>) -> Self {
        assert!(!controllers.is_empty(), "a device has at least one partition");
        Self { memory, controllers }
    }

    pub(crate) fn all(&self) -> &[AdmissionController] {
        &self.controllers
    }

    /// The controller of `partition`.
    pub(crate) fn of(&self, partition: PartitionId) -> &AdmissionController {
        &self.controllers[usize::from(partition.index)]
    }

    /// The same together with the memory it admits into.
    pub(crate) fn parts(
        &mut self,
        partition: PartitionId,
    ) -> (&mut AdmissionController, &mut DeviceMemory) {
        (&mut self.controllers[usize::from(partition.index)], &mut self.memory)
    }

    /// Where a model of this id runs (invariant 1).
    pub(crate) fn partition_of(&self, model: ModelId) -> PartitionId {
        let owns =
            |controller: &AdmissionController| controller.config().first_model <= model.index;
        let index = self.controllers.iter().rposition(owns).expect("the first begins with zero");
        self.controllers[index].config().partition
    }

    /// The controller of the partition in which `model` runs.
    pub(crate) fn around(&self, model: ModelId) -> &AdmissionController {
        self.of(self.partition_of(model))
    }

    /// The name of an admitted model; its id for one that is not known.
    pub(crate) fn name_of(&self, model: ModelId) -> String {
        self.around(model).name_of(model)
    }
}

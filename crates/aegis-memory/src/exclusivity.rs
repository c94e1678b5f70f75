//! What the schedule promises memory: which tensors are never live together.
//!
//! A *partition* runs one stage at a time. A model whose job is suspended between two stages keeps
//! what lives across that cut; a model that is never suspended keeps nothing while others run. So
//! which models may be suspended is a setting of the schedule that memory pays for, and the other
//! way round: a model that must not be suspended is analysed as one non-preemptive whole.
//!
//! ```text
//!   two tensors of                  are never live together if
//!   one model                       their lifespans do not overlap
//!   two models of one partition     neither is live between stages of its model's job
//!   models of two partitions        (always live together)
//! ```
//!
//! From this follows the class of every tensor: what lives across a cut is
//! [`Carried`](TensorClass::Carried) if its model may be suspended, and else
//! [`Scratch`](TensorClass::Scratch).
//!
//! # Invariants
//! 1. Cuts ascend; a stage is never empty.
//! 2. No partition has more models that may be suspended than the limit says, so no more than that
//!    many are suspended at once.
//!
//! # Sources
//! Why the limit names models and does not count at run time is argued in `docs/adr/0020`: with
//! addresses that do not move, two models that may be suspended at *some* time, never together,
//! conflict all the same.

use std::collections::{BTreeMap, BTreeSet};

use aegis_trace::{Bytes, PartitionId};

use crate::device_error::ExclusivityFault;
use crate::lifetime::{Lifespan, ModelMemory, TensorClass, TensorLifetime};
use crate::plan::PlanRequest;

/// A model with the stages its jobs run in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedModel {
    /// The serial executor it runs on.
    pub partition: PartitionId,
    /// Its tensors. Whether those of a job are scratch or carried is decided here, from the cuts.
    pub memory: ModelMemory,
    /// The steps with which its stages begin, but for the first; ascending and not zero. None for
    /// a model that is one stage.
    pub cuts: Vec<u32>,
    /// Whether another model's stage may run between two of its own.
    pub may_be_suspended: bool,
}

impl StagedModel {
    /// Whether `span` is live while the job stands between two stages.
    #[must_use]
    pub fn crosses_a_cut(&self, span: Lifespan) -> bool {
        self.cuts.iter().any(|cut| is_live_at(span, *cut))
    }

    /// The model's memory with the classes that follow from its stages: persistent, input and output
    /// tensors keep theirs. O(n log c) in its tensors and cuts.
    #[must_use]
    pub fn classified(&self) -> ModelMemory {
        let class = |tensor: &TensorLifetime| match tensor.class {
            TensorClass::Persistent | TensorClass::Io => tensor.class,
            TensorClass::Carried | TensorClass::Scratch => {
                if self.may_be_suspended && self.crosses_a_cut(tensor.span) {
                    TensorClass::Carried
                } else {
                    TensorClass::Scratch
                }
            }
        };
        let tensors = self.memory.tensors.iter();
        let tensors = tensors.map(|tensor| TensorLifetime { class: class(tensor), ..*tensor });
        ModelMemory { model: self.memory.model, tensors: tensors.collect() }
    }

    /// The most that a suspended job keeps: the largest live size at any cut. Where to cut is the
    /// caller's choice, and this is its price. Saturates. O(n c) in its tensors and cuts.
    #[must_use]
    pub fn carried_at_most(&self) -> Bytes {
        let live = |cut: &u32| {
            let tensors = self.memory.tensors.iter();
            let of_job = tensors.filter(|tensor| {
                !matches!(tensor.class, TensorClass::Persistent | TensorClass::Io)
            });
            of_job
                .filter(|tensor| is_live_at(tensor.span, *cut))
                .fold(0u64, |sum, tensor| sum.saturating_add(tensor.size.0))
        };
        Bytes(self.cuts.iter().map(live).max().unwrap_or(0))
    }
}

/// Whether `span` is live when the step before `cut` is over and that of `cut` has not begun.
const fn is_live_at(span: Lifespan, cut: u32) -> bool {
    span.start() < cut && cut < span.end()
}

/// All models of a device, with the limit on how many of a partition may be suspended at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusivity {
    models: Vec<StagedModel>,
}

impl Exclusivity {
    /// The relation between `models`; `max_suspended` of each partition may be suspended, any number
    /// without a limit. O(n log n).
    ///
    /// # Errors
    /// [`ExclusivityFault`] (permanent): a model is listed twice, cuts do not ascend from a step
    /// past zero, or more models of a partition may be suspended than the limit allows.
    pub fn new(
        models: Vec<StagedModel>,
        max_suspended: Option<u32>,
    ) -> Result<Self, ExclusivityFault> {
        let mut seen = BTreeSet::new();
        let mut suspended: BTreeMap<PartitionId, u32> = BTreeMap::new();
        for StagedModel { partition, memory, cuts, may_be_suspended } in &models {
            let model = memory.model;
            if !seen.insert(model) {
                return Err(ExclusivityFault::RepeatedModel { model });
            }
            if cuts.first() == Some(&0) || cuts.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(ExclusivityFault::CutsDoNotAscend { model });
            }
            let count = suspended.entry(*partition).or_default();
            *count += u32::from(*may_be_suspended && !cuts.is_empty());
            if let Some(limit) = max_suspended.filter(|limit| *count > *limit) {
                let partition = *partition;
                return Err(ExclusivityFault::TooManySuspended { model, partition, limit });
            }
        }
        Ok(Self { models })
    }

    /// The models, in the order given.
    #[must_use]
    pub fn models(&self) -> &[StagedModel] {
        &self.models
    }

    /// What is to be planned in each partition, in a range of `capacity` bytes of its own.
    #[must_use]
    pub fn requests(&self, capacity: Bytes) -> BTreeMap<PartitionId, PlanRequest> {
        let mut requests: BTreeMap<_, PlanRequest> = BTreeMap::new();
        for model in &self.models {
            let empty = || PlanRequest { capacity, models: Vec::new(), fixed: Vec::new() };
            let request = requests.entry(model.partition).or_insert_with(empty);
            request.models.push(model.classified());
        }
        requests
    }
}

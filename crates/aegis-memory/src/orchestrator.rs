//! The memory of one device: which models are bound where, and what one more would take.
//!
//! ```text
//!                plan: changes nothing          bind: all or nothing
//!   not bound ------------------------> planned ---------------------> bound
//!       ^                                  | Stale                       |
//!       |                                  v                             | release: refused while
//!       |                              not bound                         | its memory is in use
//!       +----------------------------------------------------------------+
//! ```
//!
//! # Invariants
//! 1. The placements of all bound models together passed the checker, when the last was bound.
//! 2. Bound tensors never move; a model that joins or leaves changes no other's addresses.
//! 3. An operation that returns an error has changed nothing.
//! 4. Usage is computed from the bound plan, never counted up and down.

use std::ops::Range;
use std::sync::{Arc, Weak};

use aegis_cuda::{DeviceArena, DeviceError};
use aegis_trace::{Bytes, ModelId, Refusal};

use crate::binding::{Lease, MemoryBinding};
use crate::error::MemoryError;
use crate::lifetime::ModelMemory;
use crate::place;
use crate::plan::{AllocationPlan, Checked, Placement, PlanRequest};
use crate::usage::Usage;

/// A model as it would be bound: the plan for it passed the checker together with all that was
/// bound when it was made. Holds no memory.
#[derive(Clone, Debug)]
#[must_use = "a planned model holds no memory until it is bound"]
pub struct PlannedModel {
    memory: ModelMemory,
    placements: Vec<Placement>,
    usage: Usage,
    usage_of_all: Usage,
    made_by: Arc<Identity>,
    generation: u64,
}

impl PlannedModel {
    /// Which model.
    #[must_use]
    pub fn model(&self) -> ModelId {
        self.memory.model
    }

    /// Its tensors with their offsets, in order of tensor.
    #[must_use]
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// What this model alone would occupy.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// What all models would occupy with this one bound.
    #[must_use]
    pub fn usage_of_all(&self) -> Usage {
        self.usage_of_all
    }
}

/// Adds to a refusal what a plan of all models would take with none of them fixed, if that fits.
fn with_replan(error: MemoryError, request: &PlanRequest) -> MemoryError {
    let MemoryError::Refused {
        why: Refusal::DeviceMemory { persistent, scratch, limit, .. },
        holes,
    } = error
    else {
        return error;
    };
    let anew = PlanRequest { fixed: Vec::new(), ..request.clone() };
    // On a copy: what is bound stays where it is. A plan that the checker refuses saves nothing.
    let checked = place::stacked(&anew).ok().and_then(|draft| draft.check(&anew).ok());
    let replanned = checked.and_then(|_| {
        let (resident, scratch) = place::stacked::needed(&anew).ok()?;
        resident.checked_add(scratch)
    });
    let why = Refusal::DeviceMemory { persistent, scratch, limit, replanned };
    MemoryError::Refused { why, holes }
}

/// Tells orchestrators apart by its address, so that the plan of one is not bound by another whose
/// generation happens to be the same.
#[derive(Debug)]
struct Identity;

/// A model that is bound.
#[derive(Debug)]
struct BoundModel {
    memory: ModelMemory,
    placements: Vec<Placement>,
    buffers: Vec<Range<u64>>, // Where its exclusive tensors are.
    usage: Usage,
    lowest_scratch: Option<u64>,
    lease: Weak<Lease>,
}

/// Plans, binds and releases the memory of the models of one device, in one arena. Its partitions share
/// the arena, and no scratch.
///
/// One owner at a time; planning and binding happen at admission, not while jobs run. Nothing here
/// allocates device memory: the arena holds all of it from the start.
#[derive(Debug)]
pub struct MemoryOrchestrator {
    arena: DeviceArena,
    bound: Vec<BoundModel>, // In order of admission.
    peak: Usage,
    identity: Arc<Identity>,
    generation: u64, // How often the set of bound models changed.
}

impl MemoryOrchestrator {
    /// An orchestrator of all of `arena`, with no model bound. What holders of a clone of the arena
    /// carve from it is not in its books, and makes it fail to bind.
    #[must_use]
    pub fn new(arena: DeviceArena) -> Self {
        let identity = Arc::new(Identity);
        Self { arena, bound: Vec::new(), peak: Usage::NONE, identity, generation: 0 }
    }

    /// The arena that everything is bound in.
    #[must_use]
    pub fn arena(&self) -> &DeviceArena {
        &self.arena
    }

    /// Plans one more model around what is bound, and changes nothing.
    ///
    /// The answer is a function of the bound placements and `request`: asked twice, it is the same.
    /// O(n^2) in the number of tensors of `request`, O(m log m) in that of all models; allocates,
    /// and talks to no device.
    ///
    /// # Errors
    /// - [`MemoryError::Refused`] (permanent): it does not fit, and this inequality says why. Where
    ///   it would fit if all models were planned anew, the refusal says how much they would take.
    /// - [`MemoryError::AlreadyBound`] and [`MemoryError::Request`] (permanent): the caller's
    ///   mistake.
    /// - [`MemoryError::Plan`] (permanent): a defect of this crate.
    pub fn plan(&self, request: ModelMemory) -> Result<PlannedModel, MemoryError> {
        let model = request.model;
        let request = self.request_with(request)?;
        let draft = place::stacked(&request).map_err(|error| with_replan(error, &request))?;
        let plan = draft.check(&request)?;
        let memory = request.models.into_iter().next_back().expect("the new model comes last");
        Ok(PlannedModel {
            memory,
            placements: plan.placements_of(model).to_vec(),
            usage: plan.usage_of(model),
            usage_of_all: plan.usage(),
            made_by: Arc::clone(&self.identity),
            generation: self.generation,
        })
    }

    /// Binds a planned model: its tensors get exactly the planned addresses, all or none.
    ///
    /// The plan is checked again, against what is bound now. O(m log m) in the number of tensors of
    /// all models; allocates no device memory.
    ///
    /// # Errors
    /// - [`MemoryError::Stale`] (transient): a model was bound or released since; plan again.
    /// - [`MemoryError::Foreign`] (permanent): another orchestrator made the plan.
    /// - [`MemoryError::Device`] (its cause's category): the arena refused an address.
    /// - [`MemoryError::Plan`] (permanent): a defect of this crate.
    pub fn bind(&mut self, planned: PlannedModel) -> Result<MemoryBinding, MemoryError> {
        let model = planned.model();
        if !Arc::ptr_eq(&planned.made_by, &self.identity) {
            return Err(MemoryError::Foreign { model });
        }
        if planned.generation != self.generation {
            let (planned, current) = (planned.generation, self.generation);
            return Err(MemoryError::Stale { model, planned, current });
        }
        let plan = self.check_again(&planned)?;
        let binding = MemoryBinding::new(&self.arena, &plan, model)?;
        // Nothing below can fail.
        self.bound.push(BoundModel {
            memory: planned.memory,
            placements: planned.placements,
            buffers: plan.buffers_of(model).map(|(_, range)| range).collect(),
            usage: plan.usage_of(model),
            lowest_scratch: plan.regions_of(model).map(|(_, range)| range.start).min(),
            lease: Arc::downgrade(binding.lease()),
        });
        self.generation += 1;
        self.note_peak();
        assert_eq!(self.current_usage(), plan.usage(), "the books agree with the checked plan");
        Ok(binding)
    }

    /// Forgets a model and gives its addresses to whoever comes next. Its binding, and every buffer
    /// taken from it, must have been dropped.
    ///
    /// O(n k) in the number n of the model's tensors and k of live buffers and regions.
    ///
    /// # Errors
    /// [`MemoryError::NotBound`] (permanent), and [`MemoryError::InUse`] (transient) while some of
    /// the model's memory is alive.
    pub fn release(&mut self, model: ModelId) -> Result<(), MemoryError> {
        let index = self.index_of(model).ok_or(MemoryError::NotBound { model })?;
        if self.is_in_use(&self.bound[index]) {
            return Err(MemoryError::InUse { model });
        }
        self.bound.remove(index);
        self.generation += 1;
        Ok(())
    }

    /// What all bound models occupy: resident memory adds up, of the scratch of a partition the largest
    /// counts, and what lies between two of them counts as theirs.
    #[must_use]
    pub fn current_usage(&self) -> Usage {
        let lowest = self.bound.iter().filter_map(|bound| bound.lowest_scratch).min();
        Usage {
            resident: self.bound.iter().map(|bound| bound.usage.resident).sum(),
            scratch: self.capacity() - Bytes(lowest.unwrap_or(self.capacity().0)),
        }
    }

    /// The usage when its total was largest; of several such moments, the first.
    #[must_use]
    pub fn peak_usage(&self) -> Usage {
        self.peak
    }

    /// What `model` occupies; `None` when it is not bound.
    #[must_use]
    pub fn usage_of(&self, model: ModelId) -> Option<Usage> {
        self.index_of(model).map(|index| self.bound[index].usage)
    }

    /// Where the tensors of `model` are, in order of tensor; `None` when it is not bound.
    #[must_use]
    pub fn placements_of(&self, model: ModelId) -> Option<&[Placement]> {
        self.index_of(model).map(|index| self.bound[index].placements.as_slice())
    }

    /// The size of the arena: the hard limit of [`current_usage`](Self::current_usage).
    #[must_use]
    pub fn capacity(&self) -> Bytes {
        self.arena.size()
    }

    /// The request to place `memory` around all that is bound.
    fn request_with(&self, memory: ModelMemory) -> Result<PlanRequest, MemoryError> {
        let model = memory.model;
        if self.index_of(model).is_some() {
            return Err(MemoryError::AlreadyBound { model });
        }
        let bound = self.bound.iter().map(|bound| bound.memory.clone());
        Ok(PlanRequest {
            capacity: self.capacity(),
            models: bound.chain([memory]).collect(),
            fixed: self.bound.iter().flat_map(|bound| bound.placements.clone()).collect(),
        })
    }

    /// The other side of the boundary between planning and binding: what is bound, together with
    /// what was planned, through the checker once more.
    fn check_again(&self, planned: &PlannedModel) -> Result<AllocationPlan<Checked>, MemoryError> {
        let request = self.request_with(planned.memory.clone())?;
        let placements = request.fixed.iter().chain(&planned.placements).copied().collect();
        Ok(AllocationPlan::draft(request.capacity, placements).check(&request)?)
    }

    fn index_of(&self, model: ModelId) -> Option<usize> {
        self.bound.iter().position(|bound| bound.memory.model == model)
    }

    /// Whether the binding or a buffer taken from it is alive. The arena itself is asked for the
    /// buffers: it hands out no address of a live one, and what it hands out goes back at once.
    fn is_in_use(&self, bound: &BoundModel) -> bool {
        let is_live = |range: &Range<u64>| {
            matches!(self.arena.buffer(range.clone()), Err(DeviceError::Overlap { .. }))
        };
        bound.lease.strong_count() > 0 || bound.buffers.iter().any(is_live)
    }

    fn note_peak(&mut self) {
        let current = self.current_usage();
        if current.total() > self.peak.total() {
            self.peak = current;
        }
    }
}

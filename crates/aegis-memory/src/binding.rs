//! One model's part of a checked plan, as memory.
//!
//! Exclusive tensors are [`DeviceBuffer`]s, which the arena hands out to one owner at a time, and
//! which the owner may take; scratch tensors are [`SharedRegion`]s, which overlap those of other
//! models and stay in the binding.
//!
//! # Invariants
//! 1. Made whole or not at all: on an error, what was handed out has gone back.
//! 2. Every tensor of the model was in the binding exactly once, at its planned offset.
//! 3. In debug builds, and on a device whose memory is real, what a model is given for itself is
//!    poisoned: a runtime that reads what it did not write finds [`POISON`], and not what happens to
//!    be right: zeros, or what the tenant before left. Scratch is not touched here, since another
//!    model may be using it; who hands it out to a runtime poisons it then.

use std::sync::Arc;

use aegis_cuda::{DeviceArena, DeviceBuffer, DriverKind, SharedRegion};
use aegis_trace::{ModelId, TensorId};

use crate::error::MemoryError;
use crate::plan::{AllocationPlan, Checked};

/// What memory holds that nobody has written: not a number in every format of floats, and -1 or the
/// largest number in those of integers.
pub const POISON: u8 = 0xff;

/// The memory of one model. Dropping it gives back what was not taken from it.
///
/// It belongs to one owner at a time, and touches no memory after it was made.
#[derive(Debug)]
#[must_use = "dropping the binding gives its memory back"]
pub struct MemoryBinding {
    model: ModelId,
    buffers: Vec<(TensorId, DeviceBuffer)>, // Both in order of tensor.
    regions: Vec<(TensorId, SharedRegion)>,
    lease: Arc<Lease>,
}

/// Alive as long as the binding is; the orchestrator watches it.
#[derive(Debug)]
pub(crate) struct Lease;

impl MemoryBinding {
    /// The memory of `model` in `arena`, as `plan` places it; empty for a model without tensors.
    ///
    /// [`MemoryOrchestrator::bind`](crate::MemoryOrchestrator::bind) calls this and keeps the
    /// books; call it yourself only for an arena that no orchestrator owns. Allocates no device
    /// memory, since the arena holds it all.
    ///
    /// # Errors
    /// [`MemoryError::Device`] (its cause's category) when the arena does not hand out an address,
    /// for instance because it is in use; what was handed out has gone back then.
    pub fn new(
        arena: &DeviceArena,
        plan: &AllocationPlan<Checked>,
        model: ModelId,
    ) -> Result<Self, MemoryError> {
        let refused = |cause| MemoryError::Device { model, cause };
        let mut binding =
            Self { model, buffers: Vec::new(), regions: Vec::new(), lease: Arc::new(Lease) };
        for (tensor, range) in plan.buffers_of(model) {
            let mut buffer = arena.buffer(range).map_err(refused)?;
            // The memory of a simulated device may exceed the machine's, so it stays untouched.
            if cfg!(debug_assertions) && arena.kind() != DriverKind::Sim {
                buffer.fill(POISON).map_err(refused)?;
            }
            binding.buffers.push((tensor, buffer));
        }
        for (tensor, range) in plan.regions_of(model) {
            binding.regions.push((tensor, arena.region(range).map_err(refused)?));
        }
        Ok(binding)
    }

    /// Whose memory this is.
    #[must_use]
    pub fn model(&self) -> ModelId {
        self.model
    }

    /// Takes the buffer of an exclusive tensor: from here on it is the caller's, and the model can
    /// be released only once it is dropped. `None` when `tensor` is scratch, unknown or taken.
    ///
    /// O(n) in the number of buffers.
    pub fn buffer(&mut self, tensor: TensorId) -> Option<DeviceBuffer> {
        let found = self.buffers.binary_search_by_key(&tensor, |(tensor, _)| *tensor);
        found.ok().map(|index| self.buffers.remove(index).1)
    }

    /// The buffers that were not taken, in order of tensor.
    pub fn buffers(&self) -> impl Iterator<Item = (TensorId, &DeviceBuffer)> {
        self.buffers.iter().map(|(tensor, buffer)| (*tensor, buffer))
    }

    /// The region of a scratch tensor. Its contents are the model's only while one of its stages
    /// runs, and only during the tensor's lifespan. `None` when `tensor` is exclusive or unknown.
    ///
    /// O(log n) in the number of regions.
    #[must_use]
    pub fn region(&self, tensor: TensorId) -> Option<&SharedRegion> {
        let found = self.regions.binary_search_by_key(&tensor, |(tensor, _)| *tensor);
        found.ok().map(|index| &self.regions[index].1)
    }

    /// The regions of all scratch tensors, in order of tensor.
    pub fn regions(&self) -> impl Iterator<Item = (TensorId, &SharedRegion)> {
        self.regions.iter().map(|(tensor, region)| (*tensor, region))
    }

    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }
}

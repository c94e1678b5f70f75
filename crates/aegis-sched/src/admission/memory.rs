//! The memory of a device as admission sees it: what is bound, and whether more may be planned.
//!
//! The controllers of all partitions admit into it, one at a time. Who owns it tells it what is free,
//! before and after a model joins or leaves; the level of its policy then decides whether the next
//! model may be planned at all. Nothing is evicted.
//!
//! # Invariants
//! 1. Without a policy nothing is refused here.
//! 2. The level moves only by what is observed, so a refusal can be retried when more is free.

use aegis_memory::error::PressureError;
use aegis_memory::{MemoryOrchestrator, PressureChange, PressurePolicy};
use aegis_trace::{Bytes, ModelId, PressureLevel, Refusal};

use super::AdmissionError;

/// One capacity for all partitions of a device.
#[derive(Debug)]
pub struct DeviceMemory {
    bound: MemoryOrchestrator,
    pressure: Option<PressurePolicy>,
}

impl DeviceMemory {
    /// Memory that is never short until it is full.
    #[must_use]
    pub fn new(bound: MemoryOrchestrator) -> Self {
        Self { bound, pressure: None }
    }

    /// The same, which refuses new models while `policy` does.
    #[must_use]
    pub fn under_pressure(self, policy: PressurePolicy) -> Self {
        Self { pressure: Some(policy), ..self }
    }

    /// What is bound where.
    #[must_use]
    pub fn bound(&self) -> &MemoryOrchestrator {
        &self.bound
    }

    pub(super) fn bound_mut(&mut self) -> &mut MemoryOrchestrator {
        &mut self.bound
    }

    /// What no admitted model occupies: the free memory of a device that serves nobody else.
    #[must_use]
    pub fn free(&self) -> Bytes {
        self.bound.capacity().saturating_sub(self.bound.current_usage().total())
    }

    /// Takes note of what is free on the device, which may be less than [`DeviceMemory::free`] where
    /// others use it too. Returns the change of level, if there is a policy and its level is another
    /// one now. Does not block.
    pub fn observe(&mut self, free: Bytes) -> Option<PressureChange> {
        self.pressure.as_mut()?.observe(free)
    }

    /// The level after the last observation; `None` without a policy.
    #[must_use]
    pub fn pressure(&self) -> Option<PressureLevel> {
        self.pressure.as_ref().map(PressurePolicy::level)
    }

    /// Of the admitted models that the caller would give up, in its order, those whose eviction would
    /// end the critical level, as [`PressurePolicy::victims`] has it; none at any other level, nor
    /// without a policy. Evicts nothing. O(n m) in the expendable and the admitted models.
    ///
    /// What a model gives back is its resident memory. Scratch is shared, so it is not counted.
    #[must_use]
    pub fn victims(&self, expendable: &[ModelId]) -> Vec<ModelId> {
        let Some(policy) = &self.pressure else { return Vec::new() };
        let gives_back =
            |model: &ModelId| self.bound.usage_of(*model).map(|usage| (*model, usage.resident));
        policy.victims(&expendable.iter().filter_map(gives_back).collect::<Vec<_>>())
    }

    /// Whether the level lets a new model be planned.
    pub(super) fn check_pressure(&self) -> Result<(), AdmissionError> {
        let Some(policy) = &self.pressure else { return Ok(()) };
        policy.accepts_new_model().map_err(|error| match error {
            PressureError::Refused { level, free, needed } => {
                AdmissionError::Refused(Refusal::MemoryPressure { level, free, needed })
            }
            other => unreachable!("a policy that was built has sound thresholds: {other}"),
        })
    }
}

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
use aegis_trace::{Bytes, PressureLevel, Refusal};

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

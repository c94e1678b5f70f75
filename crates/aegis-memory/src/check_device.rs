//! The independent checker of plans for a whole device: several partitions, staged models.
//!
//! It shares no code with `place/`, and does not believe the classes that were planned with: it goes
//! by what the schedule promises, state by state.
//!
//! # Rules
//! 1. Every tensor has one placement, of its size, aligned, inside the device; no other has one.
//! 2. For any two models, whatever they may be doing at one moment, no byte belongs to a live
//!    tensor of both. A model is *idle* (what outlives jobs is live), *suspended* at one of its
//!    cuts, if it may be, or *running* a step. Two models of one partition never run at once, and
//!    a model that may not be suspended is idle while others of its partition run.
//! 3. In one model no byte belongs to two tensors live at one step.
//!
//! # Method
//! Tensors in order of offset; those that share bytes are compared pair by pair. O(n log n + p) for
//! p pairs that share bytes.

use std::collections::BTreeMap;

use aegis_trace::{Bytes, ModelId, TensorId};

use crate::device_error::DevicePlanFault;
use crate::exclusivity::{Exclusivity, StagedModel};
use crate::lifetime::{TensorClass, TensorLifetime};
use crate::plan::Placement;

/// Offsets for every tensor of a device, in its one address space. They passed the checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedDevicePlan {
    placements: Vec<Placement>,
}

impl CheckedDevicePlan {
    /// Every tensor with its offset, ordered by model and tensor.
    #[must_use]
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// The highest end of any tensor.
    #[must_use]
    pub fn peak(&self) -> Bytes {
        Bytes(self.placements.iter().filter_map(Placement::end).max().unwrap_or(0))
    }
}

/// A placed tensor with all that is known of it.
#[derive(Clone, Copy)]
struct Tenant<'a> {
    placement: Placement,
    end: u64,
    tensor: &'a TensorLifetime,
    owner: &'a StagedModel,
}

impl Tenant<'_> {
    /// Whether it is live while its model does nothing.
    fn is_live_idle(&self) -> bool {
        matches!(self.tensor.class, TensorClass::Persistent | TensorClass::Io)
    }

    /// Whether it is live in some state in which its model may be while another of the same
    /// partition runs.
    fn is_live_beside_others(&self) -> bool {
        let suspended = self.owner.cuts.iter().any(|cut| {
            let (start, end) = (self.tensor.span.start(), self.tensor.span.end());
            (start..end).contains(&(cut - 1)) && (start..end).contains(cut)
        });
        self.is_live_idle() || (self.owner.may_be_suspended && suspended)
    }
}

/// Checks `placements` of all models of `exclusivity` on a device of `capacity` bytes.
///
/// # Errors
/// The first [`DevicePlanFault`] (permanent).
pub fn check_device(
    exclusivity: &Exclusivity,
    mut placements: Vec<Placement>,
    capacity: Bytes,
) -> Result<CheckedDevicePlan, DevicePlanFault> {
    placements.sort_by_key(|placement| (placement.model, placement.tensor));
    let mut tenants = tenants(exclusivity, &placements, capacity)?;
    tenants.sort_by_key(|tenant| tenant.placement.offset);
    let mut near: Vec<Tenant<'_>> = Vec::new(); // Those that may reach past the next offset.
    for upper in tenants {
        near.retain(|lower| lower.end > upper.placement.offset);
        for lower in &near {
            if may_live_together(lower, &upper) {
                let (lower, upper) = (lower.placement, upper.placement);
                return Err(DevicePlanFault::Shared { lower, upper });
            }
        }
        near.push(upper);
    }
    Ok(CheckedDevicePlan { placements })
}

/// Rules 2 and 3 for two tensors that share bytes.
fn may_live_together(a: &Tenant<'_>, b: &Tenant<'_>) -> bool {
    if a.placement.model == b.placement.model {
        let (x, y) = (a.tensor.span, b.tensor.span);
        let same_step = x.start().max(y.start()) < x.end().min(y.end());
        return same_step || a.is_live_idle() || b.is_live_idle();
    }
    // One of them runs and the other does not, or both stand still; in other partitions all may run.
    let partitions_differ = a.owner.partition != b.owner.partition;
    partitions_differ || a.is_live_beside_others() || b.is_live_beside_others()
}

/// Rule 1.
fn tenants<'a>(
    exclusivity: &'a Exclusivity,
    placements: &[Placement],
    capacity: Bytes,
) -> Result<Vec<Tenant<'a>>, DevicePlanFault> {
    let mut open: BTreeMap<(ModelId, TensorId), (&StagedModel, &TensorLifetime)> = BTreeMap::new();
    for owner in exclusivity.models() {
        for tensor in &owner.memory.tensors {
            if open.insert((owner.memory.model, tensor.tensor), (owner, tensor)).is_some() {
                let (model, tensor) = (owner.memory.model, tensor.tensor);
                return Err(DevicePlanFault::RepeatedTensor { model, tensor });
            }
        }
    }
    let mut tenants = Vec::with_capacity(placements.len());
    for &placement in placements {
        let Placement { model, tensor, offset, size } = placement;
        let (owner, tensor) =
            open.remove(&(model, tensor)).ok_or(DevicePlanFault::Unrequested { model, tensor })?;
        if size != tensor.size || !offset.is_multiple_of(tensor.alignment.max(1)) {
            return Err(DevicePlanFault::Misplaced { placement });
        }
        let end = placement.end().filter(|end| *end <= capacity.0);
        let end = end.ok_or(DevicePlanFault::OutOfRange { placement, capacity })?;
        tenants.push(Tenant { placement, end, tensor, owner });
    }
    match open.first_key_value() {
        Some((&(model, tensor), _)) => Err(DevicePlanFault::Missing { model, tensor }),
        None => Ok(tenants),
    }
}

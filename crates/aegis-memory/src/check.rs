//! The independent checker: the only way from a draft to a plan that can be bound.
//!
//! It answers one question: does this plan keep every promise the request asks for? It believes
//! nothing a planner says, shares no code with `place/`, and knows no layout: a plan from any
//! planner, also one that another program wrote, passes or fails by the same rules.
//!
//! # Rules
//! 1. The request is valid, and the plan is for its capacity.
//! 2. Every tensor of the request has exactly one placement, of its size; no other has one.
//! 3. Every placement begins at a multiple of its tensor's alignment and ends inside the range.
//! 4. No fixed tensor moved.
//! 5. An exclusive tensor shares bytes with no other tensor.
//! 6. Two scratch tensors of one model that share bytes are never live at the same step. Scratch of
//!    different models of one partition may share: it runs one stage at a time.
//! 7. Scratch of different partitions, which run at once, shares no bytes.
//!
//! # Method
//! One sweep over addresses decides rules 5 and 7: it carries the furthest end seen so far, of
//! exclusive tensors, of all, and of the scratch of each partition. One sweep over steps per model
//! decides rule 6: the live ranges are kept by address and pairwise disjoint, so a newcomer can
//! only collide with its two neighbours. Both are O(n log n) in the number of tensors, and n times
//! the number of partitions; all arithmetic on offsets is checked.

use std::collections::BTreeMap;

use aegis_trace::{Bytes, ModelId, PartitionId, TensorId};

use crate::error::PlanFault;
use crate::lifetime::{ModelMemory, TensorLifetime};
use crate::plan::{AllocationPlan, Checked, Draft, Placement, PlanRequest};

/// A placement that obeys rules 2 and 3, with what its tensor asked for.
#[derive(Clone, Copy)]
struct Located<'request> {
    placement: Placement,
    end: u64,
    lifetime: &'request TensorLifetime,
    partition: PartitionId,
}

impl AllocationPlan<Draft> {
    /// Checks the plan against what was asked for; only a checked plan can be bound.
    ///
    /// O(n log n) in the number of tensors; allocates, and talks to no device.
    ///
    /// # Errors
    /// The first [`PlanFault`] (permanent), rule by rule in the order of the module's list.
    pub fn check(self, request: &PlanRequest) -> Result<AllocationPlan<Checked>, PlanFault> {
        request.validate()?;
        if self.capacity() != request.capacity {
            let (planned, requested) = (self.capacity(), request.capacity);
            return Err(PlanFault::Capacity { planned, requested });
        }
        let mut located = locate(self.placements(), request)?;
        check_fixed(self.placements(), request)?;
        check_life(&located)?;
        let owners =
            located.iter().map(|tensor| (tensor.lifetime.class, tensor.partition)).collect();
        located.sort_by_key(|tensor| tensor.placement.offset);
        check_exclusive(&located)?;
        check_partitions(&located)?;
        Ok(self.accept(owners))
    }
}

/// Rules 2 and 3: pairs every placement with its request. Keeps the order by model and tensor.
fn locate<'request>(
    placements: &[Placement],
    request: &'request PlanRequest,
) -> Result<Vec<Located<'request>>, PlanFault> {
    let mut open: BTreeMap<(ModelId, TensorId), (&TensorLifetime, PartitionId)> = BTreeMap::new();
    for ModelMemory { model, partition, tensors } in &request.models {
        let entry = |tensor| (tensor, *partition);
        open.extend(tensors.iter().map(|tensor| ((*model, tensor.tensor), entry(tensor))));
    }
    let mut located: Vec<Located<'_>> = Vec::with_capacity(placements.len());
    for placement in placements {
        let (model, tensor) = (placement.model, placement.tensor);
        let Some((lifetime, partition)) = open.remove(&(model, tensor)) else {
            // A plan is ordered by model and tensor, so a repetition follows what it repeats.
            let last = located.last().map(|last| (last.placement.model, last.placement.tensor));
            return Err(if last == Some((model, tensor)) {
                PlanFault::Repeated { model, tensor }
            } else {
                PlanFault::Unrequested { model, tensor }
            });
        };
        let end = check_range(*placement, lifetime, request.capacity)?;
        located.push(Located { placement: *placement, end, lifetime, partition });
    }
    match open.first_key_value() {
        Some((&(model, tensor), _)) => Err(PlanFault::Missing { model, tensor }),
        None => Ok(located),
    }
}

/// The size of rule 2, and rule 3. Returns where the placement ends.
fn check_range(
    placed: Placement,
    lifetime: &TensorLifetime,
    capacity: Bytes,
) -> Result<u64, PlanFault> {
    if placed.size != lifetime.size {
        return Err(PlanFault::Size { placed, requested: lifetime.size });
    }
    let alignment = lifetime.alignment;
    if !placed.offset.is_multiple_of(alignment) {
        return Err(PlanFault::Misaligned { placed, alignment });
    }
    placed.end().filter(|end| *end <= capacity.0).ok_or(PlanFault::OutOfRange { placed, capacity })
}

/// Rule 4. Every fixed tensor was requested, hence placed: the request is valid and rule 2 holds.
fn check_fixed(placements: &[Placement], request: &PlanRequest) -> Result<(), PlanFault> {
    for fixed in &request.fixed {
        let (model, tensor) = (fixed.model, fixed.tensor);
        let found = placements.binary_search_by_key(&(model, tensor), |p| (p.model, p.tensor));
        let placed = placements[found.map_err(|_| PlanFault::Missing { model, tensor })?];
        if placed.offset != fixed.offset {
            return Err(PlanFault::Moved { placed, bound_at: fixed.offset });
        }
        if placed.size != fixed.size {
            return Err(PlanFault::Size { placed, requested: fixed.size });
        }
    }
    Ok(())
}

/// Rule 5, on tensors in order of offset.
fn check_exclusive(by_offset: &[Located<'_>]) -> Result<(), PlanFault> {
    // The tensors met so far that reach furthest. One that ends past the next tensor's beginning
    // shares bytes with it, since it began no later and no tensor is empty.
    let mut furthest: Option<Located<'_>> = None;
    let mut furthest_exclusive: Option<Located<'_>> = None;
    for &upper in by_offset {
        let exclusive = upper.lifetime.class.is_exclusive();
        let rival = if exclusive { furthest } else { furthest_exclusive };
        if let Some(lower) = rival.filter(|rival| rival.end > upper.placement.offset) {
            return Err(PlanFault::Shared { lower: lower.placement, upper: upper.placement });
        }
        let further = |known: Option<Located<'_>>| known.is_none_or(|k| k.end < upper.end);
        if further(furthest) {
            furthest = Some(upper);
        }
        if exclusive && further(furthest_exclusive) {
            furthest_exclusive = Some(upper);
        }
    }
    Ok(())
}

/// Rule 7, on tensors in order of offset.
fn check_partitions(by_offset: &[Located<'_>]) -> Result<(), PlanFault> {
    let mut furthest: BTreeMap<PartitionId, Located<'_>> = BTreeMap::new();
    for &upper in by_offset.iter().filter(|tensor| !tensor.lifetime.class.is_exclusive()) {
        let others = furthest.iter().filter(|(partition, _)| **partition != upper.partition);
        let mut rivals = others.map(|(_, lower)| lower);
        if let Some(lower) = rivals.find(|lower| lower.end > upper.placement.offset) {
            let (lower, upper) = (lower.placement, upper.placement);
            return Err(PlanFault::AcrossPartitions { lower, upper });
        }
        let known = furthest.entry(upper.partition).or_insert(upper);
        if known.end < upper.end {
            *known = upper;
        }
    }
    Ok(())
}

/// Rule 6, on tensors in order of model.
fn check_life(by_model: &[Located<'_>]) -> Result<(), PlanFault> {
    by_model.chunk_by(|a, b| a.placement.model == b.placement.model).try_for_each(|of_one| {
        let scratch = of_one.iter().filter(|tensor| !tensor.lifetime.class.is_exclusive());
        sweep_steps(&scratch.copied().collect::<Vec<_>>())
    })
}

/// What happens to a tensor at a step. Lifespans are half-open, so ends come before starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    End,
    Start,
}

fn sweep_steps(scratch: &[Located<'_>]) -> Result<(), PlanFault> {
    let edges_of = |(index, tensor): (usize, &Located<'_>)| {
        let span = tensor.lifetime.span;
        [(span.start(), Edge::Start, index), (span.end(), Edge::End, index)]
    };
    let mut edges: Vec<_> = scratch.iter().enumerate().flat_map(edges_of).collect();
    edges.sort_unstable();

    let mut live: BTreeMap<u64, Located<'_>> = BTreeMap::new(); // By offset, pairwise disjoint.
    for (step, edge, index) in edges {
        let tensor = scratch[index];
        let offset = tensor.placement.offset;
        if edge == Edge::End {
            live.remove(&offset);
            continue;
        }
        let below = live.range(..=offset).next_back().map(|(_, below)| *below);
        if let Some(lower) = below.filter(|below| below.end > offset) {
            let (lower, upper) = (lower.placement, tensor.placement);
            return Err(PlanFault::LiveTogether { lower, upper, step });
        }
        let above = live.range(offset..).next().map(|(_, above)| *above);
        if let Some(upper) = above.filter(|above| above.placement.offset < tensor.end) {
            let (lower, upper) = (tensor.placement, upper.placement);
            return Err(PlanFault::LiveTogether { lower, upper, step });
        }
        live.insert(offset, tensor);
    }
    Ok(())
}

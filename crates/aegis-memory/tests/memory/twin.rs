//! The checker's twin: the same rules, by comparing every pair, byte and step for step.

use aegis_memory::{Placement, PlanRequest, TensorLifetime};
use aegis_trace::ModelId;

/// Whether `placements` keep every promise `request` asks for. O(n^2 s) in the number n of tensors
/// and s of steps.
pub(crate) fn is_sound(request: &PlanRequest, placements: &[Placement]) -> bool {
    let requested: Vec<_> = request
        .models
        .iter()
        .flat_map(|memory| memory.tensors.iter().map(|tensor| (memory.model, tensor)))
        .collect();
    let partition = |model: ModelId| {
        request.models.iter().find(|memory| memory.model == model).map(|memory| memory.partition)
    };
    let place_of = |model: ModelId, lifetime: &TensorLifetime| {
        let mut found =
            placements.iter().filter(|p| p.model == model && p.tensor == lifetime.tensor);
        let first = found.next()?;
        found.next().is_none().then_some(*first)
    };
    let placed: Option<Vec<_>> = requested
        .iter()
        .map(|(model, lifetime)| Some((place_of(*model, lifetime)?, *lifetime)))
        .collect();
    let Some(placed) = placed else { return false };
    placements.len() == requested.len()
        && placed.iter().all(|tensor| fits(tensor, request.capacity.as_u64()))
        && request.fixed.iter().all(|fixed| placements.contains(fixed))
        && (0..placed.len()).all(|i| {
            (0..i).all(|j| {
                let apart = partition(placed[i].0.model) != partition(placed[j].0.model);
                may_coexist(&placed[i], &placed[j], apart)
            })
        })
}

fn fits((placement, lifetime): &(Placement, &TensorLifetime), capacity: u64) -> bool {
    let end = u128::from(placement.offset) + u128::from(placement.size.as_u64());
    placement.size == lifetime.size
        && placement.offset % lifetime.alignment == 0
        && end <= u128::from(capacity)
}

/// Whether two tensors may be where they are; `apart` if they are of two partitions.
fn may_coexist(
    a: &(Placement, &TensorLifetime),
    b: &(Placement, &TensorLifetime),
    apart: bool,
) -> bool {
    let bytes = |p: &Placement| p.offset..p.offset + p.size.as_u64();
    let disjoint = bytes(&a.0).end <= bytes(&b.0).start || bytes(&b.0).end <= bytes(&a.0).start;
    let exclusive = a.1.class.is_exclusive() || b.1.class.is_exclusive();
    let steps = |tensor: &TensorLifetime| tensor.span.start()..tensor.span.end();
    let meet = steps(a.1).any(|step| steps(b.1).contains(&step));
    disjoint || (!exclusive && !apart && (a.0.model != b.0.model || !meet))
}

//! What the two-ended placement promises of every request.

use aegis_memory::{
    AllocationPlan, Checked, MemoryError, ModelMemory, Placement, PlanRequest, TensorClass, place,
};
use aegis_trace::{Bytes, Refusal};
use proptest::prelude::*;

use crate::requests::{AMPLE, COARSEST, memory, models, request};
use crate::twin;

fn plan(request: &PlanRequest) -> AllocationPlan<Checked> {
    let draft = place::stacked(request).expect("an ample range");
    assert!(twin::is_sound(request, draft.placements()), "{draft:?}");
    draft.check(request).expect("every plan passes the checker")
}

/// Where the resident tensors end, and how deep the scratch reaches.
fn extents(request: &PlanRequest, plan: &AllocationPlan<Checked>) -> (u64, u64) {
    let class_of = |placed: &Placement| {
        let of_model = request.models.iter().filter(|memory| memory.model == placed.model);
        let tensors = of_model.flat_map(|memory| &memory.tensors);
        tensors.filter(|tensor| tensor.tensor == placed.tensor).map(|t| t.class).next()
    };
    let (scratch, resident): (Vec<Placement>, Vec<Placement>) =
        plan.placements().iter().copied().partition(|p| class_of(p) == Some(TensorClass::Scratch));
    let end = resident.iter().filter_map(Placement::end).max().unwrap_or(0);
    let base = scratch.iter().map(|placed| placed.offset).min();
    (end, plan.capacity().as_u64() - base.unwrap_or(plan.capacity().as_u64()))
}

/// The most bytes of scratch live at one step: no plan can need less.
fn largest_live(memory: &ModelMemory) -> u64 {
    let live_at = |step: u32| {
        let live = memory.scratch().filter(|t| (t.span.start()..t.span.end()).contains(&step));
        live.map(|tensor| tensor.size.as_u64()).sum::<u64>()
    };
    (0..16).map(live_at).max().unwrap_or(0)
}

proptest! {
    #[test]
    fn every_request_gets_a_sound_plan_or_an_inequality(
        models in models(),
        capacity in 0u64..60_000,
    ) {
        let request = request(Bytes(capacity), models);
        match place::stacked(&request) {
            Ok(draft) => {
                prop_assert!(twin::is_sound(&request, draft.placements()));
                let plan = draft.check(&request).expect("every plan passes the checker");
                prop_assert!(plan.peak() <= request.capacity);
            }
            Err(MemoryError::Refused { why, holes, .. }) => {
                let Refusal::DeviceMemory { persistent, scratch, limit, .. } = why else {
                    panic!("another inequality: {why}");
                };
                prop_assert_eq!(limit, request.capacity);
                prop_assert!(persistent + scratch > limit);
                let sizes = request.models.iter().flat_map(ModelMemory::exclusive).map(|t| t.size);
                prop_assert_eq!(persistent - holes, sizes.sum::<Bytes>());
            }
            Err(other) => panic!("a valid request: {other}"),
        }
    }

    /// Whatever fits, fits in a range of exactly what the inequality adds up to.
    #[test]
    fn the_inequality_is_exact_for_this_placement(models in models()) {
        let ample = request(AMPLE, models);
        let (resident, scratch) = extents(&ample, &plan(&ample));
        let enough = Bytes((resident + scratch).next_multiple_of(COARSEST));
        let _ = plan(&PlanRequest { capacity: enough, ..ample.clone() });
        let less = enough.saturating_sub(Bytes(COARSEST));
        prop_assume!(less < enough);
        let refused = place::stacked(&PlanRequest { capacity: less, ..ample });
        let is_refused = matches!(refused, Err(MemoryError::Refused { .. }));
        prop_assert!(is_refused, "{refused:?}");
    }

    #[test]
    fn resident_memory_adds_up_and_of_scratch_the_largest_counts(models in models()) {
        let request = request(AMPLE, models);
        let plan = plan(&request);
        let sizes = request.models.iter().flat_map(ModelMemory::exclusive).map(|t| t.size);
        prop_assert_eq!(plan.resident(), sizes.sum::<Bytes>());
        let peaks = request.models.iter().map(ModelMemory::scratch_peak);
        prop_assert_eq!(plan.scratch(), peaks.max().unwrap_or(Bytes::ZERO));
        for memory in &request.models {
            let usage = plan.usage_of(memory.model);
            prop_assert_eq!(usage.scratch, memory.scratch_peak());
            prop_assert!(usage.resident <= memory.resident());
        }
    }

    #[test]
    fn padded_sizes_are_enough_for_a_model_alone(memory in memory(0)) {
        let needed = memory.resident() + memory.scratch_peak();
        let capacity = needed.checked_align_up(COARSEST).expect("small");
        let _ = plan(&request(capacity, vec![memory]));
    }

    #[test]
    fn a_scratch_peak_lies_between_the_largest_live_size_and_the_sum(memory in memory(0)) {
        let padded = |t: &aegis_memory::TensorLifetime| t.size.checked_align_up(t.alignment);
        let sum: Bytes = memory.scratch().filter_map(padded).sum();
        // One tensor's padding can push another out to its own alignment, once per tensor.
        let slack = COARSEST * memory.scratch().count() as u64;
        prop_assert!(memory.scratch_peak() >= Bytes(largest_live(&memory)));
        prop_assert!(memory.scratch_peak() <= sum + Bytes(slack));
    }

    #[test]
    fn the_order_of_tensors_does_not_matter(
        models in models(),
        seed in any::<prop::sample::Index>(),
    ) {
        let mut shuffled = models.clone();
        for memory in &mut shuffled {
            if !memory.tensors.is_empty() {
                let middle = seed.index(memory.tensors.len());
                memory.tensors.rotate_left(middle);
                memory.tensors[..middle].reverse();
            }
        }
        let straight = plan(&request(AMPLE, models));
        let shuffled = plan(&request(AMPLE, shuffled));
        prop_assert_eq!(straight.placements(), shuffled.placements());
    }

    #[test]
    fn who_joins_moves_nobody_and_gets_the_scratch_it_would_get_alone(models in models()) {
        let mut fixed: Vec<Placement> = Vec::new();
        for (index, joining) in models.iter().enumerate() {
            let joined = PlanRequest {
                capacity: AMPLE,
                models: models[..=index].to_vec(),
                fixed: fixed.clone(),
            };
            let joined = plan(&joined); // The checker says that nothing fixed moved.
            let alone = plan(&request(AMPLE, vec![joining.clone()]));
            let is_scratch = |placed: &&Placement| {
                joining.scratch().any(|tensor| tensor.tensor == placed.tensor)
            };
            let scratch_of = |plan: &AllocationPlan<Checked>| -> Vec<_> {
                plan.placements_of(joining.model).iter().filter(is_scratch).copied().collect()
            };
            prop_assert_eq!(scratch_of(&joined), scratch_of(&alone));
            fixed = joined.placements().to_vec();
        }
    }

    /// What is fixed may be any part of any model: the rest is placed around it.
    #[test]
    fn any_part_of_a_plan_can_be_fixed_and_the_rest_planned_again(
        models in models(),
        keep in prop::collection::vec(any::<bool>(), 48),
    ) {
        let whole = plan(&request(AMPLE, models.clone()));
        let kept = whole.placements().iter().zip(&keep).filter(|(_, keep)| **keep);
        let fixed: Vec<_> = kept.map(|(placed, _)| *placed).collect();
        let _ = plan(&PlanRequest { capacity: AMPLE, models, fixed });
    }
}

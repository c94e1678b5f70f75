//! Models of several partitions in one range: what they share, what it costs, and what is refused.

use std::collections::BTreeMap;

use aegis_memory::{AllocationPlan, Placement, TensorClass, TensorLifetime};
use aegis_memory::{MemoryError, MemoryOrchestrator, ModelMemory, PlanFault, Usage, place};
use aegis_trace::{Bytes, ModelId, PartitionId, Refusal};
use proptest::prelude::*;

use crate::requests::{AMPLE, arena, models, request, simple};
use crate::twin::is_sound;

fn on(partition: u16, memory: ModelMemory) -> ModelMemory {
    ModelMemory { partition: PartitionId::first(partition), ..memory }
}

fn usage(resident: u64, scratch: u64) -> Usage {
    Usage { resident: Bytes(resident), scratch: Bytes(scratch) }
}

#[test]
fn scratch_is_shared_within_a_partition_alone() {
    let scratch = |partitions: [u16; 3]| {
        let sizes = [1024, 2048, 4096];
        let models = (0u16..).zip(partitions).zip(sizes);
        let models = models.map(|((index, of), size)| on(of, simple(index, 256, size))).collect();
        let request = request(AMPLE, models);
        let plan = place::stacked(&request).expect("ample").check(&request).expect("sound");
        assert_eq!(plan.resident(), Bytes(3 * 256));
        plan.scratch()
    };
    assert_eq!(scratch([0, 0, 0]), Bytes(4096));
    assert_eq!(scratch([0, 0, 1]), Bytes(2048 + 4096));
    assert_eq!(scratch([1, 0, 1]), Bytes(2048 + 4096));
    assert_eq!(scratch([0, 1, 2]), Bytes(1024 + 2048 + 4096));
}

#[test]
fn the_budget_of_a_model_does_not_pay_for_another_partition() {
    let mut memory = MemoryOrchestrator::new(arena(Bytes(8192)));
    let mut bind = |request: ModelMemory| {
        let planned = memory.plan(request).expect("fits");
        let usage = planned.usage();
        (usage, memory.bind(planned).expect("just planned"), memory.current_usage())
    };
    let (first, _first, _) = bind(on(0, simple(0, 256, 1024)));
    let (second, _second, all) = bind(on(1, simple(1, 256, 512)));
    assert_eq!((first, second), (usage(256, 1024), usage(256, 512)));
    assert_eq!(all, usage(512, 1536));
}

/// A deeper model of the first partition does not fit above the second, and goes below it.
#[test]
fn one_by_one_a_deeper_model_leaves_a_gap_that_a_new_plan_would_not() {
    let mut memory = MemoryOrchestrator::new(arena(Bytes(4096)));
    let [first, second] = [on(0, simple(0, 0, 1024)), on(1, simple(1, 0, 512))];
    let mut bindings = Vec::new();
    for request in [first, second] {
        let planned = memory.plan(request).expect("fits");
        bindings.push(memory.bind(planned).expect("just planned"));
    }
    let deeper = on(0, simple(2, 0, 2048));
    let planned = memory.plan(deeper.clone()).expect("fits below");
    assert_eq!((planned.usage(), planned.usage_of_all()), (usage(0, 2048), usage(0, 3584)));
    // 2560 bytes too large for what is left, and not for the range.
    let error = memory.plan(on(0, simple(2, 0, 3072))).expect_err("no room below");
    let MemoryError::Refused { why, .. } = error else { panic!("{error}") };
    let Refusal::DeviceMemory { scratch, replanned, .. } = why else { panic!("{why}") };
    assert_eq!((scratch, replanned), (Bytes(4608), Some(Bytes(3584))));
    // Once the second partition is empty, so is its room.
    drop(bindings.pop());
    memory.release(ModelId::first(1)).expect("not in use");
    let planned = memory.plan(deeper).expect("fits");
    assert_eq!(planned.usage_of_all(), usage(0, 2048));
}

#[test]
fn a_draft_that_shares_across_partitions_is_refused() {
    let request = request(Bytes(4096), vec![on(0, simple(0, 0, 512)), on(1, simple(1, 0, 512))]);
    let at = |offset| {
        let tensor = request.models[0].tensors[0];
        let placed = |model| Placement {
            model: ModelId::first(model),
            tensor: tensor.tensor,
            offset: if model == 0 { 0 } else { offset },
            size: tensor.size,
        };
        AllocationPlan::draft(Bytes(4096), vec![placed(0), placed(1)]).check(&request)
    };
    let fault = at(256).expect_err("half of it");
    assert_eq!(
        fault.to_string(),
        "t1 of m0 at [0, 512) and t1 of m1 at [256, 768) overlap, and their partitions run at once"
    );
    assert!(at(512).is_ok());
}

/// Random models with a partition each.
fn split_models() -> impl Strategy<Value = Vec<ModelMemory>> {
    (models(), prop::array::uniform4(0u16..3)).prop_map(|(models, partitions)| {
        models.into_iter().zip(partitions).map(|(memory, of)| on(of, memory)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_plan_of_several_partitions_is_sound_and_costs_their_sum(models in split_models()) {
        let request = request(AMPLE, models);
        let draft = place::stacked(&request).expect("ample");
        prop_assert!(is_sound(&request, draft.placements()));
        let plan = draft.check(&request).expect("the checker agrees");
        let mut deepest = BTreeMap::<PartitionId, (Bytes, u64)>::new();
        for memory in &request.models {
            let aligned = memory.scratch().map(|tensor| tensor.alignment).max().unwrap_or(1);
            let (peak, coarsest) = deepest.entry(memory.partition).or_default();
            *peak = memory.scratch_peak().max(*peak);
            *coarsest = aligned.max(*coarsest);
        }
        // Beyond the sum there is only what the ends of the partitions are rounded by.
        let sum: Bytes = deepest.values().map(|(peak, _)| *peak).sum();
        let rounding: u64 = deepest.values().map(|(_, coarsest)| coarsest - 1).sum();
        prop_assert!(sum <= plan.scratch() && plan.scratch() <= sum + Bytes(rounding));
    }

    #[test]
    fn planned_one_by_one_what_is_bound_stays_sound(models in split_models()) {
        let mut memory = MemoryOrchestrator::new(arena(AMPLE));
        let (mut bindings, mut placements) = (Vec::new(), Vec::new());
        for request in &models {
            let planned = memory.plan(request.clone()).expect("ample");
            placements.extend(planned.placements().to_vec());
            bindings.push(memory.bind(planned).expect("just planned"));
        }
        prop_assert!(is_sound(&request(AMPLE, models), &placements));
    }

    /// Small ranges and few offsets, so that overlaps of every kind are common.
    #[test]
    fn the_checker_and_its_twin_agree_on_any_placement(
        drawn in prop::collection::vec((0u16..3, 0u16..2, 0u64..4, any::<bool>()), 1..6),
    ) {
        let tensor = |index: u16, shared: bool| TensorLifetime {
            class: if shared { TensorClass::Scratch } else { TensorClass::Carried },
            alignment: 1,
            ..crate::requests::tensor(index, TensorClass::Scratch, (0, 1), 2)
        };
        let mut models: Vec<ModelMemory> = Vec::new();
        let mut placements = Vec::new();
        for (index, (model, partition, offset, shared)) in (0u16..).zip(drawn) {
            let id = ModelId::first(model);
            let size = Bytes(2);
            let tensor = tensor(index, shared);
            placements.push(Placement { model: id, tensor: tensor.tensor, offset, size });
            match models.iter_mut().find(|memory| memory.model == id) {
                Some(memory) => memory.tensors.push(tensor),
                None => models.push(on(partition, crate::requests::model(model, vec![tensor]))),
            }
        }
        let request = request(Bytes(6), models);
        let verdict = AllocationPlan::draft(Bytes(6), placements.clone()).check(&request);
        prop_assert_eq!(verdict.is_ok(), is_sound(&request, &placements), "{:?}", verdict);
        let across = matches!(verdict, Err(PlanFault::AcrossPartitions { .. }));
        prop_assert!(!across || !is_sound(&request, &placements));
    }
}

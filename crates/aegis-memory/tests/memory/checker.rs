//! The checker against its twin, and every fault it can name.

use aegis_memory::{
    AllocationPlan, Draft, Placement, PlanFault, PlanRequest, TensorClass, TensorLifetime, place,
};
use aegis_trace::{Bytes, ModelId, TensorId};
use expect_test::{Expect, expect};
use proptest::prelude::*;

use crate::requests::{AMPLE, model, models, request, simple, span, tensor};
use crate::twin;

/// Holds checker and twin to the same verdict, and a fault to the facts it states.
fn agree(request: &PlanRequest, placements: Vec<Placement>) -> bool {
    let sound = twin::is_sound(request, &placements);
    match AllocationPlan::draft(request.capacity, placements.clone()).check(request) {
        Ok(_) => assert!(sound, "the checker passed {placements:?} for {request:?}"),
        Err(fault) => {
            assert!(!sound, "{fault}, but {placements:?} is sound for {request:?}");
            if let PlanFault::Shared { lower, upper }
            | PlanFault::LiveTogether { lower, upper, .. } = fault
            {
                assert!(lower.offset <= upper.offset && lower.end() > Some(upper.offset));
            }
        }
    }
    sound
}

proptest! {
    #[test]
    fn a_shift_by_one_alignment_passes_only_if_it_harms_nobody(
        models in models(),
        which in any::<prop::sample::Index>(),
        up in any::<bool>(),
    ) {
        let request = request(AMPLE, models);
        let plan = place::stacked(&request).expect("ample");
        prop_assume!(!plan.placements().is_empty());
        let mut placements = plan.placements().to_vec();
        let moved = &mut placements[which.index(plan.placements().len())];
        let by = alignment_of(&request, moved);
        let to = if up { moved.offset.checked_add(by) } else { moved.offset.checked_sub(by) };
        prop_assume!(to.is_some());
        moved.offset = to.expect("just assumed");
        agree(&request, placements);
    }

    #[test]
    fn a_changed_size_is_always_caught(
        models in models(),
        which in any::<prop::sample::Index>(),
        size in 0u64..4000,
    ) {
        let request = request(AMPLE, models);
        let plan = place::stacked(&request).expect("ample");
        prop_assume!(!plan.placements().is_empty());
        let mut placements = plan.placements().to_vec();
        let changed = &mut placements[which.index(plan.placements().len())];
        prop_assume!(changed.size != Bytes(size));
        changed.size = Bytes(size);
        prop_assert!(!agree(&request, placements));
    }

    /// A size that the request grew with the plan: the tensor may now reach into its neighbour.
    #[test]
    fn a_grown_tensor_passes_only_if_it_harms_nobody(
        models in models(),
        which in any::<prop::sample::Index>(),
        by in 1u64..600,
    ) {
        let mut request = request(AMPLE, models);
        let plan = place::stacked(&request).expect("ample");
        prop_assume!(!plan.placements().is_empty());
        let mut placements = plan.placements().to_vec();
        let grown = &mut placements[which.index(plan.placements().len())];
        grown.size += Bytes(by);
        lifetime_mut(&mut request, grown).size += Bytes(by);
        agree(&request, placements);
    }

    #[test]
    fn a_tensor_left_out_or_listed_twice_is_always_caught(
        models in models(),
        which in any::<prop::sample::Index>(),
        twice in any::<bool>(),
    ) {
        let request = request(AMPLE, models);
        let plan = place::stacked(&request).expect("ample");
        prop_assume!(!plan.placements().is_empty());
        let mut placements = plan.placements().to_vec();
        let index = which.index(placements.len());
        if twice {
            placements.push(placements[index]);
        } else {
            placements.remove(index);
        }
        prop_assert!(!agree(&request, placements));
    }

    /// Nothing about these offsets was planned.
    #[test]
    fn any_offsets_get_the_verdict_of_the_twin(
        drawn in prop::collection::vec(
            (0u16..2, any::<bool>(), 0u32..4, 1u32..3, 1u64..12, 0u32..3, 0u64..16),
            0..6,
        ),
    ) {
        let mut all = [model(0, vec![]), model(1, vec![])];
        let mut placements = Vec::new();
        for (id, (owner, shared, start, steps, size, shift, place)) in (0..).zip(drawn) {
            let class = if shared { TensorClass::Scratch } else { TensorClass::Io };
            let alignment = 1 << shift;
            let lifetime =
                TensorLifetime { alignment, ..tensor(id, class, (start, start + steps), size) };
            all[usize::from(owner)].tensors.push(lifetime);
            placements.push(placed(owner, id, place * alignment, size));
        }
        agree(&request(Bytes(48), all.to_vec()), placements);
    }
}

/// All sets of three tensors out of: two models, exclusive or scratch with three lifespans, one or
/// two bytes, four offsets.
#[test]
fn every_small_plan_gets_the_verdict_of_the_twin() {
    let mut kinds = Vec::new();
    for owner in 0..2 {
        for size in 1..=2 {
            for offset in 0..4 {
                kinds.push((owner, TensorClass::Persistent, (0, 1), size, offset));
                for steps in [(0, 1), (1, 2), (0, 2)] {
                    kinds.push((owner, TensorClass::Scratch, steps, size, offset));
                }
            }
        }
    }
    let mut sound = 0;
    for (i, a) in kinds.iter().enumerate() {
        for (j, b) in kinds.iter().enumerate().skip(i) {
            for c in &kinds[j..] {
                let mut models = [model(0, vec![]), model(1, vec![])];
                let mut placements = Vec::new();
                for (id, &(owner, class, steps, size, offset)) in (0..).zip([a, b, c]) {
                    let lifetime =
                        TensorLifetime { alignment: 1, ..tensor(id, class, steps, size) };
                    models[usize::from(owner)].tensors.push(lifetime);
                    placements.push(placed(owner, id, offset, size));
                }
                sound += usize::from(agree(&request(Bytes(5), models.to_vec()), placements));
            }
        }
    }
    let all = kinds.len() * (kinds.len() + 1) * (kinds.len() + 2) / 6;
    assert!(sound > all / 20 && sound < all / 2, "{sound} of {all} sound: both verdicts occur");
}

fn placed(model: u16, tensor: u16, offset: u64, size: u64) -> Placement {
    let (model, tensor) = (ModelId::first(model), TensorId::first(tensor));
    Placement { model, tensor, offset, size: Bytes(size) }
}

fn alignment_of(request: &PlanRequest, placed: &Placement) -> u64 {
    lifetime_mut(&mut request.clone(), placed).alignment
}

fn lifetime_mut<'a>(request: &'a mut PlanRequest, placed: &Placement) -> &'a mut TensorLifetime {
    let mut models = request.models.iter_mut();
    let memory = models.find(|memory| memory.model == placed.model).expect("requested");
    let mut tensors = memory.tensors.iter_mut();
    tensors.find(|tensor| tensor.tensor == placed.tensor).expect("requested")
}

/// Two models with 512 bytes of weights and 1024 of scratch each, in 2048 bytes: the plan from
/// which every fault below is one step away.
fn sound_request() -> PlanRequest {
    request(Bytes(2048), vec![simple(0, 512, 1024), simple(1, 512, 1024)])
}

fn sound_placements() -> Vec<Placement> {
    vec![
        placed(0, 0, 0, 512),
        placed(0, 1, 1024, 1024),
        placed(1, 0, 512, 512),
        placed(1, 1, 1024, 1024),
    ]
}

fn check(request: &PlanRequest, draft: AllocationPlan<Draft>, expect: &Expect) {
    let verdict = match draft.check(request) {
        Ok(plan) => format!("sound: {}", plan.usage()),
        Err(fault) => fault.to_string(),
    };
    expect.assert_eq(&verdict);
}

/// The verdict after one placement is replaced.
fn check_with(index: usize, placement: Placement, expect: &Expect) {
    let mut placements = sound_placements();
    placements[index] = placement;
    let request = sound_request();
    check(&request, AllocationPlan::draft(request.capacity, placements), expect);
}

#[test]
fn scratch_of_two_models_shares_and_weights_do_not() {
    check_with(0, placed(0, 0, 0, 512), &expect!["sound: resident 1 KiB + scratch 1 KiB"]);
    check_with(
        0,
        placed(0, 0, 256, 512),
        &expect![
            "t0 of m0 at [256, 768) and t0 of m1 at [512, 1024) overlap, and one is exclusive"
        ],
    );
}

#[test]
fn weights_and_scratch_share_nothing_not_even_across_models() {
    check_with(
        2,
        placed(1, 0, 1280, 512),
        &expect![
            "t1 of m0 at [1024, 2048) and t0 of m1 at [1280, 1792) overlap, and one is exclusive"
        ],
    );
}

#[test]
fn a_plan_names_every_tensor_once_and_no_other() {
    let request = sound_request();
    let mut missing = sound_placements();
    missing.remove(3);
    check(
        &request,
        AllocationPlan::draft(request.capacity, missing),
        &expect!["t1 of m1 has no offset"],
    );
    let mut twice = sound_placements();
    twice.push(placed(0, 1, 1024, 1024));
    check(
        &request,
        AllocationPlan::draft(request.capacity, twice),
        &expect!["t1 of m0 has more than one offset"],
    );
    let mut stranger = sound_placements();
    stranger.push(placed(7, 0, 0, 1));
    check(
        &request,
        AllocationPlan::draft(request.capacity, stranger),
        &expect!["t0 of m7 was not requested"],
    );
}

#[test]
fn offsets_are_aligned_and_inside_the_range() {
    check_with(
        1,
        placed(0, 1, 1025, 1024),
        &expect!["t1 of m0 at [1025, 2049), but its alignment is 256"],
    );
    check_with(
        1,
        placed(0, 1, 1280, 1024),
        &expect!["t1 of m0 at [1280, 2304), but the range ends at 2048"],
    );
    check_with(
        1,
        placed(0, 1, u64::MAX - 255, 1024),
        &expect![
            "t1 of m0 at [18446744073709551360, 18446744073709552384), but the range ends at 2048"
        ],
    );
    check_with(
        1,
        placed(0, 1, 1024, 1000),
        &expect!["t1 of m0 at [1024, 2024), but its size is 1024 bytes"],
    );
}

#[test]
fn a_plan_is_for_one_capacity() {
    let draft = AllocationPlan::draft(Bytes(4096), sound_placements());
    check(&sound_request(), draft, &expect!["the plan is for 4 KiB, the request for 2 KiB"]);
}

#[test]
fn what_is_fixed_does_not_move() {
    let fixed = vec![placed(1, 0, 0, 512)];
    let request = PlanRequest { fixed, ..sound_request() };
    check(
        &request,
        AllocationPlan::draft(request.capacity, sound_placements()),
        &expect!["t0 of m1 at [512, 1024), but it is bound at 0"],
    );
    let request = PlanRequest { fixed: vec![placed(1, 0, 512, 256)], ..request };
    check(
        &request,
        AllocationPlan::draft(request.capacity, sound_placements()),
        &expect!["t0 of m1 at [512, 1024), but its size is 256 bytes"],
    );
}

#[test]
fn a_faulty_request_has_no_sound_plan() {
    let request = request(Bytes(2048), vec![simple(0, 512, 0), simple(0, 512, 0)]);
    let fault = AllocationPlan::draft(request.capacity, vec![]).check(&request);
    assert!(matches!(fault, Err(PlanFault::Request(_))));
}

#[test]
fn scratch_of_one_model_shares_from_the_step_at_which_the_other_is_dead() {
    let chain = |second: (u32, u32)| {
        let tensors = vec![
            tensor(0, TensorClass::Scratch, (0, 3), 1024),
            TensorLifetime {
                span: span(second.0, second.1),
                ..tensor(1, TensorClass::Scratch, (0, 1), 1024)
            },
        ];
        let request = request(Bytes(1280), vec![model(0, tensors)]);
        let placements = vec![placed(0, 0, 0, 1024), placed(0, 1, 256, 1024)];
        let draft = AllocationPlan::draft(request.capacity, placements);
        (request, draft)
    };
    let (request, draft) = chain((3, 4));
    check(&request, draft, &expect!["sound: resident 0 B + scratch 1.25 KiB"]);
    let (request, draft) = chain((2, 4));
    check(
        &request,
        draft,
        &expect![
            "t0 of m0 at [0, 1024) and t1 of m0 at [256, 1280) overlap, and both are live at step 2"
        ],
    );
}

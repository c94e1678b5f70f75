//! Small sets with every number worked out by hand. Sizes in bytes, alignment 256.

use aegis_memory::{
    MemoryBinding, MemoryOrchestrator, ModelMemory, PlanRequest, TensorClass, Usage, place,
};
use aegis_trace::{Bytes, ModelId};
use expect_test::{Expect, expect};

use crate::requests::{arena, model, request, simple, tensor};

fn check(request: &PlanRequest, expect: &Expect) {
    let verdict = match place::stacked(request) {
        Err(refused) => format!("refused: {refused}\n"),
        Ok(draft) => {
            let plan = draft.check(request).expect("every plan passes the checker");
            let lines = plan.placements().iter().map(|placed| format!("{placed}\n"));
            lines.chain([format!("{}\n", plan.usage())]).collect()
        }
    };
    expect.assert_eq(&verdict);
}

/// Three models need 3840 bytes with an arena each, and 2816 together.
#[test]
fn weights_add_up_and_scratch_is_the_maximum() {
    let models = vec![simple(0, 512, 1024), simple(1, 768, 512), simple(2, 512, 512)];
    let private: u64 =
        models.iter().map(|m| m.resident().as_u64() + m.scratch_peak().as_u64()).sum();
    assert_eq!(private, 3840);
    check(
        &request(Bytes(2816), models.clone()),
        &expect![[r#"
            t0 of m0 at [0, 512)
            t1 of m0 at [1792, 2816)
            t0 of m1 at [512, 1280)
            t1 of m1 at [2304, 2816)
            t0 of m2 at [1280, 1792)
            t1 of m2 at [2304, 2816)
            resident 1.75 KiB + scratch 1 KiB
        "#]],
    );
    check(
        &request(Bytes(2560), models),
        &expect![[r#"
            refused: persistent 1.75 KiB + shared scratch 1 KiB > device limit 2.5 KiB
        "#]],
    );
}

/// A chain of four layers: each output lives until the next layer has read it.
///
/// ```text
///   step      0    1    2    3        by size: t1 and t3 at the end, t0 and t2 above them
///   t0      [ 512     )
///   t1           [ 1024    )
///   t2                [ 512     )
///   t3                     [ 1024
/// ```
#[test]
fn a_chain_needs_its_two_largest_neighbours() {
    let layers = vec![
        tensor(0, TensorClass::Scratch, (0, 2), 512),
        tensor(1, TensorClass::Scratch, (1, 3), 1024),
        tensor(2, TensorClass::Scratch, (2, 4), 512),
        tensor(3, TensorClass::Scratch, (3, 4), 1024),
    ];
    check(
        &request(Bytes(4096), vec![model(0, layers)]),
        &expect![[r#"
            t0 of m0 at [2560, 3072)
            t1 of m0 at [3072, 4096)
            t2 of m0 at [2560, 3072)
            t3 of m0 at [3072, 4096)
            resident 0 B + scratch 1.5 KiB
        "#]],
    );
}

/// Two stages: t2 is scratch of the first, t4 of the second, and t3 carries data across. Another
/// model may run in between, so t3 has addresses of its own, as inputs and outputs do.
#[test]
fn carried_tensors_and_inputs_are_kept_apart_from_scratch() {
    let staged = vec![
        tensor(0, TensorClass::Persistent, (0, 4), 1024),
        tensor(1, TensorClass::Io, (0, 1), 256),
        tensor(2, TensorClass::Scratch, (0, 2), 512),
        tensor(3, TensorClass::Carried, (1, 3), 256),
        tensor(4, TensorClass::Scratch, (2, 4), 768),
        tensor(5, TensorClass::Io, (3, 4), 256),
    ];
    check(
        &request(Bytes(4096), vec![model(0, staged)]),
        &expect![[r#"
            t0 of m0 at [0, 1024)
            t1 of m0 at [1024, 1280)
            t2 of m0 at [3584, 4096)
            t3 of m0 at [1280, 1536)
            t4 of m0 at [3328, 4096)
            t5 of m0 at [1536, 1792)
            resident 1.75 KiB + scratch 768 B
        "#]],
    );
}

/// The coarse alignment goes first, so that only the fine tensors' sizes leave odd ends.
#[test]
fn falling_alignments_need_no_padding() {
    let with = |index, size, alignment| aegis_memory::TensorLifetime {
        alignment,
        ..tensor(index, TensorClass::Persistent, (0, 1), size)
    };
    let tensors = vec![with(0, 100, 4), with(1, 512, 512), with(2, 64, 64), with(3, 512, 256)];
    check(
        &request(Bytes(2048), vec![model(0, tensors)]),
        &expect![[r#"
            t0 of m0 at [1088, 1188)
            t1 of m0 at [0, 512)
            t2 of m0 at [1024, 1088)
            t3 of m0 at [512, 1024)
            resident 1.16 KiB + scratch 0 B
        "#]],
    );
}

fn admit(orchestrator: &mut MemoryOrchestrator, memory: ModelMemory) -> MemoryBinding {
    let planned = orchestrator.plan(memory).expect("fits");
    orchestrator.bind(planned).expect("the plan is current")
}

fn weights_at(binding: &MemoryBinding) -> u64 {
    binding.buffers().map(|(_, buffer)| buffer.offset()).next().expect("it has weights")
}

/// An evicted model leaves a hole. A model that fits in it takes it; one that does not is refused
/// with the hole in the numbers, since what is bound does not move.
#[test]
fn a_hole_is_filled_or_named() {
    let mut orchestrator = MemoryOrchestrator::new(arena(Bytes(4096)));
    let _first = admit(&mut orchestrator, simple(0, 1024, 1024));
    let second = admit(&mut orchestrator, simple(1, 1024, 512));
    let _third = admit(&mut orchestrator, simple(2, 512, 256));
    drop(second);
    orchestrator.release(ModelId::first(1)).expect("dropped");

    let refused = orchestrator.plan(simple(3, 1280, 0)).expect_err("the hole has 1024 bytes");
    expect![
        "persistent 3.75 KiB + shared scratch 1 KiB > device limit 4 KiB; planned anew, all models \
         together would take 3.75 KiB and fit, which saves 1 KiB: evict and admit them again; 1 KiB \
         of it in holes"
    ]
    .assert_eq(&refused.to_string());
    assert_eq!(refused.saved_by_replanning(), Some(Bytes(1024)), "the hole");

    let hopeless = orchestrator.plan(simple(3, 2048, 0)).expect_err("too much for any plan");
    assert_eq!(hopeless.saved_by_replanning(), None);

    let small = admit(&mut orchestrator, simple(4, 512, 0));
    assert_eq!(weights_at(&small), 1024, "in the hole");
    let other = admit(&mut orchestrator, simple(5, 512, 0));
    assert_eq!(weights_at(&other), 1536, "in what is left of it");
    let usage = Usage { resident: Bytes(2560), scratch: Bytes(1024) };
    assert_eq!(orchestrator.current_usage(), usage);
}

/// 24 models as in the headline, scaled down: 24 private arenas would need 24 * (3 + 2) KiB.
#[test]
fn twenty_four_models_share_one_scratch() {
    let mut orchestrator = MemoryOrchestrator::new(arena(Bytes::from_kib(24 * 3 + 2)));
    let bindings: Vec<_> =
        (0..24).map(|index| admit(&mut orchestrator, simple(index, 3 << 10, 2 << 10))).collect();
    assert_eq!(orchestrator.current_usage().total(), orchestrator.capacity());
    let refused = orchestrator.plan(simple(24, 1, 0)).expect_err("not a byte is left");
    expect!["persistent 72 KiB + shared scratch 2 KiB > device limit 74 KiB"]
        .assert_eq(&refused.refusal().expect("an inequality").to_string());
    drop(bindings);
}

//! Admission and eviction: usage stays exact, and what is refused changes nothing.

use aegis_memory::{MemoryBinding, MemoryError, MemoryOrchestrator, ModelMemory, Usage};
use aegis_trace::{Bytes, Category, ModelId, TensorId};
use expect_test::expect;
use proptest::prelude::*;

use crate::requests::{arena, memory, simple};

fn admit(
    orchestrator: &mut MemoryOrchestrator,
    memory: ModelMemory,
) -> Result<MemoryBinding, MemoryError> {
    let planned = orchestrator.plan(memory)?;
    orchestrator.bind(planned)
}

fn usage(resident: u64, scratch: u64) -> Usage {
    Usage { resident: Bytes(resident), scratch: Bytes(scratch) }
}

/// All that can be asked of an orchestrator, and what it would answer to one more model.
fn snapshot(orchestrator: &MemoryOrchestrator) -> String {
    let probe = ModelMemory { model: ModelId::first(999), ..simple(0, 1, 1) };
    let answer = orchestrator.plan(probe).map(|planned| planned.placements().to_vec());
    format!("{orchestrator:?} {answer:?}")
}

/// A bound model as the test knows it.
struct Tenant {
    memory: ModelMemory,
    binding: MemoryBinding,
}

/// What the tenants occupy, from the addresses in their bindings.
fn usage_by_hand(capacity: Bytes, tenants: &[Tenant]) -> Usage {
    let buffers = tenants.iter().flat_map(|tenant| tenant.binding.buffers());
    let regions = tenants.iter().flat_map(|tenant| tenant.binding.regions());
    let base = regions.map(|(_, region)| region.offset()).min();
    Usage {
        resident: buffers.map(|(_, buffer)| Bytes(buffer.len())).sum(),
        scratch: base.map_or(Bytes::ZERO, |base| capacity - Bytes(base)),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit(ModelMemory),
    Release(u16),
    ReleaseInUse(u16),
    /// Plans both, binds the first, and then tries the plan of the second, which is stale if the
    /// first was bound.
    BindStale(ModelMemory, ModelMemory),
    /// Somebody else holds the end of the arena while a model is to be bound.
    BindObstructed(ModelMemory),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u16..6).prop_flat_map(memory).prop_map(Step::Admit),
        2 => (0u16..6).prop_map(Step::Release),
        1 => (0u16..6).prop_map(Step::ReleaseInUse),
        1 => ((0u16..3).prop_flat_map(memory), (3u16..6).prop_flat_map(memory))
            .prop_map(|(first, second)| Step::BindStale(first, second)),
        1 => (0u16..6).prop_flat_map(memory).prop_map(Step::BindObstructed),
    ]
}

proptest! {
    #[test]
    fn usage_is_exact_and_a_refusal_changes_nothing(
        capacity in 4_096u64..50_000,
        steps in prop::collection::vec(step(), 0..24),
    ) {
        let capacity = Bytes(capacity);
        let arena = arena(capacity);
        let mut orchestrator = MemoryOrchestrator::new(arena.clone());
        let mut tenants: Vec<Tenant> = Vec::new();
        let mut peak = Usage::NONE;
        for step in steps {
            let mut before = snapshot(&orchestrator);
            let refused = match step {
                Step::Admit(memory) => match admit(&mut orchestrator, memory.clone()) {
                    Ok(binding) => {
                        tenants.push(Tenant { memory, binding });
                        None
                    }
                    Err(error) => Some(error),
                },
                Step::Release(index) => {
                    // Its binding drops here, if there is one.
                    tenants.retain(|tenant| tenant.memory.model != ModelId::first(index));
                    orchestrator.release(ModelId::first(index)).err()
                }
                Step::ReleaseInUse(index) => {
                    Some(orchestrator.release(ModelId::first(index)).expect_err("in use"))
                }
                Step::BindStale(first, second) => {
                    let plans = (orchestrator.plan(first.clone()), orchestrator.plan(second));
                    match plans {
                        (Ok(current), Ok(stale)) => {
                            let binding = orchestrator.bind(current).expect("current");
                            tenants.push(Tenant { memory: first, binding });
                            before = snapshot(&orchestrator);
                            Some(orchestrator.bind(stale).expect_err("another was bound"))
                        }
                        (Err(error), _) | (_, Err(error)) => Some(error),
                    }
                }
                Step::BindObstructed(memory) => match orchestrator.plan(memory.clone()) {
                    Ok(planned) => {
                        let last = capacity.0 - 1..capacity.0;
                        let held = arena.buffer(last);
                        let bound = orchestrator.bind(planned);
                        drop(held);
                        bound.map(|binding| tenants.push(Tenant { memory, binding })).err()
                    }
                    Err(error) => Some(error),
                },
            };
            if let Some(refused) = refused {
                prop_assert_eq!(snapshot(&orchestrator), before, "after {}", refused);
            }
            let current = usage_by_hand(capacity, &tenants);
            prop_assert_eq!(orchestrator.current_usage(), current);
            prop_assert!(current.total() <= capacity);
            if current.total() > peak.total() {
                peak = current;
            }
            prop_assert_eq!(orchestrator.peak_usage(), peak);
            for tenant in &tenants {
                let alone = usage_by_hand(capacity, std::slice::from_ref(tenant));
                prop_assert_eq!(orchestrator.usage_of(tenant.memory.model), Some(alone));
            }
        }
    }

    /// Tenants that stay keep their addresses, and leaving undoes joining.
    #[test]
    fn joining_and_leaving_leaves_the_addresses_as_they_were(
        first in memory(0),
        second in memory(1),
    ) {
        let mut orchestrator = MemoryOrchestrator::new(arena(Bytes::from_mib(1)));
        let _stays = admit(&mut orchestrator, first).expect("ample");
        let planned = orchestrator.plan(second.clone()).expect("ample");
        let offsets = planned.placements().to_vec();
        drop(orchestrator.bind(planned).expect("ample"));
        orchestrator.release(second.model).expect("dropped");
        let again = orchestrator.plan(second).expect("ample");
        prop_assert_eq!(again.placements(), offsets);
    }

    #[test]
    fn every_tensor_is_bound_once_at_its_planned_address(memory in memory(0)) {
        let mut orchestrator = MemoryOrchestrator::new(arena(Bytes::from_mib(1)));
        let planned = orchestrator.plan(memory.clone()).expect("ample");
        let placements = planned.placements().to_vec();
        let mut binding = orchestrator.bind(planned).expect("ample");
        for tensor in &memory.tensors {
            let mut of_tensor = placements.iter().filter(|p| p.tensor == tensor.tensor);
            let offset = of_tensor.next().expect("planned").offset;
            if tensor.class.is_exclusive() {
                prop_assert!(binding.region(tensor.tensor).is_none());
                let buffer = binding.buffer(tensor.tensor).expect("bound");
                prop_assert_eq!((buffer.offset(), buffer.len()), (offset, tensor.size.as_u64()));
                prop_assert!(binding.buffer(tensor.tensor).is_none(), "taken");
            } else {
                prop_assert!(binding.buffer(tensor.tensor).is_none());
                let region = binding.region(tensor.tensor).expect("bound");
                prop_assert_eq!((region.offset(), region.len()), (offset, tensor.size.as_u64()));
            }
        }
        prop_assert_eq!(binding.buffers().count(), 0);
        prop_assert_eq!(binding.regions().count(), memory.scratch().count());
    }
}

#[test]
fn planning_changes_nothing() {
    let mut orchestrator = MemoryOrchestrator::new(arena(Bytes(8192)));
    let _camera = admit(&mut orchestrator, simple(0, 1024, 2048)).expect("fits");
    let before = snapshot(&orchestrator);
    let planned = orchestrator.plan(simple(1, 512, 4096)).expect("fits");
    assert_eq!(planned.usage(), usage(512, 4096));
    assert_eq!(planned.usage_of_all(), usage(1536, 4096));
    assert_eq!(snapshot(&orchestrator), before);
    assert_eq!(orchestrator.usage_of(planned.model()), None);
}

#[test]
fn a_plan_goes_stale_when_the_set_changes() {
    let mut orchestrator = MemoryOrchestrator::new(arena(Bytes(8192)));
    let camera = orchestrator.plan(simple(0, 1024, 2048)).expect("fits");
    let lidar = orchestrator.plan(simple(1, 1024, 2048)).expect("fits, alone");
    let _camera = orchestrator.bind(camera).expect("current");
    let before = snapshot(&orchestrator);
    let stale = orchestrator.bind(lidar).expect_err("both planned at offset 0");
    expect!["m1 was planned against generation 0, but 1 is current"].assert_eq(&stale.to_string());
    assert_eq!(stale.category(), Category::Transient);
    assert_eq!(snapshot(&orchestrator), before);
    let _lidar = admit(&mut orchestrator, simple(1, 1024, 2048)).expect("planned again");
}

/// The generations agree, the bound models do not: offset 256 is free there and taken here.
#[test]
fn a_plan_of_another_orchestrator_is_not_bound() {
    let mut here = MemoryOrchestrator::new(arena(Bytes(8192)));
    let mut there = MemoryOrchestrator::new(arena(Bytes(8192)));
    let _here = admit(&mut here, simple(0, 1024, 0)).expect("fits");
    let _there = admit(&mut there, simple(0, 256, 0)).expect("fits");
    let foreign = there.plan(simple(1, 512, 0)).expect("fits there");
    let before = snapshot(&here);
    let error = here.bind(foreign).expect_err("made around other models");
    expect!["m1 was planned by another orchestrator"].assert_eq(&error.to_string());
    assert_eq!(error.category(), Category::Permanent);
    assert_eq!(snapshot(&here), before);
}

#[test]
fn a_model_is_bound_once() {
    let mut orchestrator = MemoryOrchestrator::new(arena(Bytes(8192)));
    let _binding = admit(&mut orchestrator, simple(0, 256, 0)).expect("fits");
    let error = orchestrator.plan(simple(0, 256, 0)).expect_err("again");
    expect!["m0 is bound already"].assert_eq(&error.to_string());
    let error = orchestrator.release(ModelId::first(1)).expect_err("never bound");
    expect!["m1 is not bound"].assert_eq(&error.to_string());
    let next = ModelId::first(0).next_generation().expect("a second tenant of the slot");
    let error = orchestrator.release(next).expect_err("another model");
    expect!["m0g1 is not bound"].assert_eq(&error.to_string());
}

#[test]
fn memory_is_in_use_until_binding_and_taken_buffers_are_gone() {
    let mut orchestrator = MemoryOrchestrator::new(arena(Bytes(8192)));
    let model = ModelId::first(0);
    let mut binding = admit(&mut orchestrator, simple(0, 1024, 512)).expect("fits");
    let weights = binding.buffer(TensorId::first(0)).expect("weights");
    let before = snapshot(&orchestrator);
    let error = orchestrator.release(model).expect_err("the binding is alive");
    expect!["memory of m0 is still in use"].assert_eq(&error.to_string());
    assert_eq!(error.category(), Category::Transient);
    drop(binding);
    orchestrator.release(model).expect_err("the weights are alive");
    assert_eq!(snapshot(&orchestrator), before);
    drop(weights);
    orchestrator.release(model).expect("all of it is gone");
    assert_eq!(orchestrator.current_usage(), Usage::NONE);
    assert_eq!(orchestrator.peak_usage(), usage(1024, 512));
}

/// Other models' scratch covers the same bytes, and does not count as this model's.
#[test]
fn a_model_can_leave_while_others_use_the_shared_scratch() {
    let mut orchestrator = MemoryOrchestrator::new(arena(Bytes(8192)));
    let camera = admit(&mut orchestrator, simple(0, 1024, 2048)).expect("fits");
    let _lidar = admit(&mut orchestrator, simple(1, 1024, 1024)).expect("fits");
    drop(camera);
    orchestrator.release(ModelId::first(0)).expect("nothing of it is alive");
    assert_eq!(orchestrator.current_usage(), usage(1024, 1024));
}

/// Someone carved a range of the arena behind the orchestrator's back.
#[test]
fn an_address_the_device_refuses_undoes_the_whole_binding() {
    let arena = arena(Bytes(8192));
    let mut orchestrator = MemoryOrchestrator::new(arena.clone());
    let planned = orchestrator.plan(simple(0, 1024, 2048)).expect("fits");
    let before = snapshot(&orchestrator);
    let intruder = arena.buffer(8000..8192).expect("free");
    let error = orchestrator.bind(planned.clone()).expect_err("the scratch is taken");
    assert!(matches!(error, MemoryError::Device { .. }), "{error}");
    assert_eq!(snapshot(&orchestrator), before);
    drop(arena.buffer(0..1024).expect("the weights went back"));
    drop(intruder);
    let _binding = orchestrator.bind(planned).expect("the plan is still current");
}

#[test]
fn a_model_without_tensors_takes_nothing() {
    let mut orchestrator = MemoryOrchestrator::new(arena(Bytes(4096)));
    let binding = admit(&mut orchestrator, simple(0, 0, 0)).expect("nothing fits anywhere");
    assert_eq!(orchestrator.usage_of(binding.model()), Some(Usage::NONE));
    orchestrator.release(ModelId::first(0)).expect_err("its binding is alive all the same");
    drop(binding);
    orchestrator.release(ModelId::first(0)).expect("gone");
}

/// A backend holds its binding, and moves with it to the thread that runs it.
#[test]
fn bindings_and_orchestrators_may_change_threads() {
    fn is_send<T: Send>() {}
    is_send::<MemoryBinding>();
    is_send::<MemoryOrchestrator>();
}

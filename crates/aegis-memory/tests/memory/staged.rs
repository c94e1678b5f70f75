//! Staged models in partitions: what may share, how much it saves, and the checker's twin.

use aegis_memory::{
    DevicePlanError, Exclusivity, ExclusivityFault, ModelMemory, Placement, StagedModel,
    TensorClass, TensorLifetime, check_device, place,
};
use aegis_trace::{Bytes, ModelId, PartitionId};
use proptest::prelude::*;

use crate::requests::{model, tensor};

const ROOM: Bytes = Bytes(1 << 20);

fn staged(
    memory: ModelMemory,
    partition: u16,
    cuts: &[u32],
    may_be_suspended: bool,
) -> StagedModel {
    let partition = PartitionId::first(partition);
    StagedModel { partition, memory, cuts: cuts.to_vec(), may_be_suspended }
}

/// A chain of three tensors of 1024 bytes, each read by the next step; the second crosses step 2.
fn chain(index: u16) -> ModelMemory {
    let scratch = |id, steps| tensor(id, TensorClass::Scratch, steps, 1024);
    model(index, vec![scratch(0, (0, 2)), scratch(1, (1, 3)), scratch(2, (2, 4))])
}

fn peak(models: Vec<StagedModel>) -> Bytes {
    let exclusivity = Exclusivity::new(models, None).expect("sound");
    place::device(&exclusivity, ROOM).expect("ample").plan.peak()
}

#[test]
fn what_may_be_suspended_costs_its_carried_tensors() {
    let two = |suspended: [bool; 2]| {
        peak(vec![staged(chain(0), 0, &[2], suspended[0]), staged(chain(1), 0, &[2], suspended[1])])
    };
    // Each needs two tensors at once, and one of them crosses the cut. While it may be suspended,
    // that one is its own, and the other two never live together.
    assert_eq!(two([false, false]), Bytes(2048));
    assert_eq!(two([true, false]), Bytes(1024 + 2048));
    assert_eq!(two([true, true]), Bytes(1024 + 1024 + 1024));
}

#[test]
fn partitions_share_nothing() {
    let apart = peak(vec![staged(chain(0), 0, &[], false), staged(chain(1), 1, &[], false)]);
    let together = peak(vec![staged(chain(0), 0, &[], false), staged(chain(1), 0, &[], false)]);
    assert_eq!((together, apart), (Bytes(2048), Bytes(4096)));
}

#[test]
fn the_price_of_a_cut_is_what_is_live_there() {
    let memory = model(
        0,
        vec![
            tensor(0, TensorClass::Persistent, (0, 9), 512),
            tensor(1, TensorClass::Scratch, (0, 4), 100),
            tensor(2, TensorClass::Scratch, (2, 6), 30),
            tensor(3, TensorClass::Scratch, (5, 6), 7),
        ],
    );
    let carried = |cuts: &[u32]| staged(memory.clone(), 0, cuts, true).carried_at_most();
    assert_eq!(carried(&[]), Bytes(0));
    assert_eq!(carried(&[1]), Bytes(100));
    assert_eq!(carried(&[3]), Bytes(130));
    assert_eq!(carried(&[4]), Bytes(30));
    assert_eq!(carried(&[1, 4]), Bytes(100));
}

#[test]
fn the_limit_on_suspended_models_is_hard() {
    let models =
        |second: bool| vec![staged(chain(0), 0, &[2], true), staged(chain(1), 0, &[2], second)];
    assert!(Exclusivity::new(models(false), Some(1)).is_ok());
    let fault = Exclusivity::new(models(true), Some(1)).expect_err("two");
    assert_eq!(
        fault.to_string(),
        "m1 would be one more than the 1 models of p0 that may be suspended"
    );
    // A model of one stage is never suspended, whatever it may be.
    let whole = vec![staged(chain(0), 0, &[2], true), staged(chain(1), 0, &[], true)];
    assert!(Exclusivity::new(whole, Some(1)).is_ok());
    let crossed = vec![staged(chain(0), 0, &[2, 2], true)];
    assert!(matches!(
        Exclusivity::new(crossed, None),
        Err(ExclusivityFault::CutsDoNotAscend { .. })
    ));
}

#[test]
fn a_device_that_is_too_small_is_refused_with_the_sums_of_all_partitions() {
    let models = vec![staged(chain(0), 0, &[2], true), staged(chain(1), 1, &[], false)];
    let exclusivity = Exclusivity::new(models, None).expect("sound");
    let error = place::device(&exclusivity, Bytes(4095)).expect_err("one byte short");
    assert!(matches!(error, DevicePlanError::Memory(_)));
    assert_eq!(
        error.to_string(),
        "persistent 1 KiB + shared scratch 3 KiB > device limit 3.999 KiB"
    );
    assert!(place::device(&exclusivity, Bytes(4096)).is_ok());
}

/// What a model may be doing while another does something else.
#[derive(Clone, Copy)]
enum State {
    Idle,
    Suspended(u32),
    Running(u32),
}

fn is_live(tensor: &TensorLifetime, state: State) -> bool {
    let outlives_jobs = matches!(tensor.class, TensorClass::Persistent | TensorClass::Io);
    let lives_at = |step: u32| (tensor.span.start()..tensor.span.end()).contains(&step);
    outlives_jobs
        || match state {
            State::Idle => false,
            State::Suspended(cut) => lives_at(cut - 1) && lives_at(cut),
            State::Running(step) => lives_at(step),
        }
}

fn states(model: &StagedModel) -> Vec<State> {
    let mut states = vec![State::Idle];
    if model.may_be_suspended {
        states.extend(model.cuts.iter().map(|cut| State::Suspended(*cut)));
    }
    states.extend((0..STEPS).map(State::Running));
    states
}

const STEPS: u32 = 6;

/// The twin: every pair of models in every pair of states.
fn is_sound(models: &[StagedModel], placements: &[Placement]) -> bool {
    let at = |model: &StagedModel, tensor: &TensorLifetime| {
        let mut of = placements.iter().filter(|p| p.model == model.memory.model);
        let placed = of.find(|p| p.tensor == tensor.tensor).expect("placed");
        (placed.offset, placed.end().expect("small"))
    };
    let clash = |a: &StagedModel, x: State, b: &StagedModel, y: State| {
        a.memory.tensors.iter().filter(|t| is_live(t, x)).any(|t| {
            b.memory.tensors.iter().filter(|u| is_live(u, y)).any(|u| {
                let same = a.memory.model == b.memory.model && t.tensor == u.tensor;
                let ((s, e), (f, g)) = (at(a, t), at(b, u));
                !same && s.max(f) < e.min(g)
            })
        })
    };
    models.iter().enumerate().all(|(i, a)| {
        let alone = (0..STEPS).all(|step| !clash(a, State::Running(step), a, State::Running(step)));
        alone
            && models[..i].iter().all(|b| {
                let pairs =
                    states(a).into_iter().flat_map(|x| states(b).into_iter().map(move |y| (x, y)));
                pairs.into_iter().all(|(x, y)| {
                    let both_run = matches!((x, y), (State::Running(_), State::Running(_)));
                    let excluded = a.partition == b.partition && both_run;
                    excluded || !clash(a, x, b, y)
                })
            })
    })
}

fn drawn_models() -> impl Strategy<Value = Vec<StagedModel>> {
    let class = prop_oneof![
        1 => Just(TensorClass::Persistent),
        1 => Just(TensorClass::Io),
        4 => Just(TensorClass::Scratch),
    ];
    let one = (class, 0u32..STEPS - 1, 1u32..4, 1u64..40);
    let model = (prop::collection::vec(one, 0..5), 0u16..2, 0u32..4, any::<bool>());
    prop::collection::vec(model, 1..4).prop_map(|drawn| {
        let of =
            |(index, (tensors, partition, cut, suspended)): (u16, (Vec<_>, u16, u32, bool))| {
                let place =
                    |(id, (class, start, steps, size)): (u16, (TensorClass, u32, u32, u64))| {
                        let end = (start + steps).min(STEPS);
                        TensorLifetime { alignment: 1, ..tensor(id, class, (start, end), size) }
                    };
                let tensors = (0..).zip(tensors).map(place).collect();
                let cuts = if cut == 0 { vec![] } else { vec![cut] };
                staged(model_of(index, tensors), partition, &cuts, suspended)
            };
        (0..).zip(drawn).map(of).collect()
    })
}

fn model_of(index: u16, tensors: Vec<TensorLifetime>) -> ModelMemory {
    ModelMemory { model: ModelId::first(index), tensors }
}

proptest! {
    #[test]
    fn every_plan_of_a_device_is_sound_in_every_state(models in drawn_models()) {
        let exclusivity = Exclusivity::new(models.clone(), None).expect("sound");
        let planned = place::device(&exclusivity, ROOM).expect("ample");
        prop_assert!(is_sound(&models, planned.plan.placements()));
    }

    /// Nothing about these offsets was planned.
    #[test]
    fn any_offsets_of_a_device_get_the_verdict_of_the_twin(
        models in drawn_models(),
        offsets in prop::collection::vec(0u64..120, 20),
    ) {
        let exclusivity = Exclusivity::new(models.clone(), None).expect("sound");
        let tensors = models.iter().flat_map(|staged| {
            staged.memory.tensors.iter().map(move |tensor| (staged.memory.model, tensor))
        });
        let placements: Vec<_> = tensors
            .zip(&offsets)
            .map(|((model, tensor), offset)| Placement {
                model,
                tensor: tensor.tensor,
                offset: *offset,
                size: tensor.size,
            })
            .collect();
        let verdict = check_device(&exclusivity, placements.clone(), Bytes(200));
        prop_assert_eq!(verdict.is_ok(), is_sound(&models, &placements), "{:?}", verdict);
    }
}

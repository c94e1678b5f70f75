//! A schedule that breaks its word costs the model that came second an error, never a wrong answer.

#[path = "golden/reference.rs"]
mod reference;
mod world;

use std::sync::{Arc, Barrier};

use aegis_context::RuntimeBackend;
use aegis_cuda::{CudaStream, DeviceError, HostWork, WorkFault};
use aegis_trace::{Bytes, StageIndex};
use reference::{Golden, GoldenModel};
use world::{Model, Tensors, World};

/// Far more than is needed: tests beside this one that load models blur what is measured here.
const ARENA: Bytes = Bytes::from_mib(512);

/// Work that ends when the test says so.
struct Gate(Barrier);

impl HostWork for Gate {
    fn run(&self) -> Result<(), WorkFault> {
        self.0.wait();
        Ok(())
    }
}

fn outputs(model: &Model) -> Tensors {
    model.slot.io().outputs().iter().map(|output| output.to_vec()).collect()
}

#[test]
fn two_models_in_one_scratch_at_once_give_right_answers_or_say_why_not() {
    let golden = Golden::read();
    let mut world = World::new(ARENA);
    let entries: [&GoldenModel; 2] = [golden.model("resnet50"), golden.model("unet")];
    let mut models = entries.map(|entry| entry.admitted(&mut world, entry.whole()));
    let streams: [CudaStream; 2] = [0, 1].map(|_| world.device.create_stream().expect("a thread"));
    for _ in 0..100 {
        let gate = Arc::new(Gate(Barrier::new(2)));
        for (((model, _), stream), entry) in models.iter_mut().zip(&streams).zip(entries) {
            model.fill(&entry.inputs());
            let work: Arc<dyn HostWork> = gate.clone();
            stream.enqueue_host(work).expect("room");
            model.backend.enqueue(StageIndex(0), &model.slot, stream).expect("room");
        }
        let mut served = 0;
        for ((model, expected), stream) in models.iter().zip(&streams) {
            match stream.synchronize() {
                Ok(()) => {
                    served += 1;
                    assert_eq!(outputs(model), *expected);
                }
                Err(DeviceError::Work { cause, .. }) => {
                    assert!(cause.message.contains("in use by another run"), "{cause}");
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(served > 0, "who comes first is served");
    }
}

#[test]
fn stages_of_one_model_on_two_streams_take_turns() {
    let golden = Golden::read();
    let entry = golden.model("unet");
    let mut world = World::new(ARENA);
    let (mut model, expected) = entry.admitted(&mut world, entry.stages());
    let other = world.device.create_stream().expect("a thread");
    for _ in 0..50 {
        // Stage 2 may run before, between or after the others, on what an earlier job left.
        model.fill(&entry.inputs());
        for (stage, stream) in [(0, &world.stream), (2, &other), (1, &world.stream)] {
            model.backend.enqueue(StageIndex(stage), &model.slot, stream).expect("room");
        }
        world.stream.synchronize().expect("the stages have a scratch of their own");
        other.synchronize().expect("the stages have a scratch of their own");
    }
    assert_ne!(world.run(&mut model, &entry.zeros()).expect("in order again"), expected);
    assert_eq!(world.run(&mut model, &entry.inputs()).expect("in order again"), expected);
}

#[test]
fn a_stage_is_not_enqueued_again_before_it_began() {
    let golden = Golden::read();
    let entry = golden.model("mlp");
    let mut world = World::new(ARENA);
    let (mut model, expected) = entry.admitted(&mut world, entry.whole());
    let gate = Arc::new(Gate(Barrier::new(2)));
    let work: Arc<dyn HostWork> = gate.clone();
    world.stream.enqueue_host(work).expect("room");

    model.fill(&entry.inputs());
    model.backend.enqueue(StageIndex(0), &model.slot, &world.stream).expect("room");
    let again = model.backend.enqueue(StageIndex(0), &model.slot, &world.stream);
    let error = again.expect_err("its job is not done");
    assert_eq!(
        error.to_string(),
        "the runtime failed: the stage is enqueued already and has not begun"
    );
    let absent = model.backend.enqueue(StageIndex(1), &model.slot, &world.stream);
    let error = absent.expect_err("it has one stage");
    assert_eq!(error.to_string(), "the runtime failed: the model has no stage 1");
    gate.0.wait();
    world.stream.synchronize().expect("a good input");
    assert_eq!(outputs(&model), expected);
}

/// The job of a stage that found the stream full is forgotten, so that it can be enqueued again.
#[test]
fn a_full_stream_refuses_a_stage_and_takes_it_later() {
    let golden = Golden::read();
    let entry = golden.model("mlp");
    let mut world = World::new(ARENA);
    let (mut model, expected) = entry.admitted(&mut world, entry.whole());
    let gate = Arc::new(Gate(Barrier::new(2)));
    let mut waiting = 0;
    loop {
        let work: Arc<dyn HostWork> = gate.clone();
        match world.stream.enqueue_host(work) {
            Ok(()) => waiting += 1,
            Err(full) => break assert!(matches!(full, DeviceError::StreamFull { .. }), "{full}"),
        }
    }
    model.fill(&entry.inputs());
    let full = model.backend.enqueue(StageIndex(0), &model.slot, &world.stream);
    full.expect_err("the stream is full");
    for _ in 0..waiting {
        gate.0.wait();
    }
    world.stream.synchronize().expect("gates do not fail");
    assert_eq!(world.run(&mut model, &entry.inputs()).expect("a good input"), expected);
}

/// The memory stays bound until the last run has ended, whatever was dropped meanwhile.
#[test]
fn a_model_may_be_dropped_while_it_is_enqueued() {
    let golden = Golden::read();
    let entry = golden.model("resnet18");
    let mut world = World::new(ARENA);
    let (mut model, expected) = entry.admitted(&mut world, entry.whole());
    let gate = Arc::new(Gate(Barrier::new(2)));
    let work: Arc<dyn HostWork> = gate.clone();
    world.stream.enqueue_host(work).expect("room");
    model.fill(&entry.inputs());
    model.backend.enqueue(StageIndex(0), &model.slot, &world.stream).expect("room");
    let Model { backend, slot, .. } = model;
    drop(backend);
    gate.0.wait();
    world.stream.synchronize().expect("a good input");
    let outputs: Tensors = slot.io().outputs().iter().map(|output| output.to_vec()).collect();
    assert_eq!(outputs, expected);
}

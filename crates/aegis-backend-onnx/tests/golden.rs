//! Real networks in planned memory give the answers of an independent implementation.
//!
//! They do so to the bit, run after run, whatever ran in the same scratch before.

#[path = "golden/reference.rs"]
mod reference;
mod world;

use aegis_backend_onnx::Library;
use aegis_backend_onnx::library::TESTED_VERSION;
use aegis_context::RuntimeBackend;
use aegis_memory::TensorClass;
use aegis_trace::Bytes;
use reference::Golden;
use world::{World, floats};

/// Far more than is needed: tests beside this one that load models blur what is measured here.
const ARENA: Bytes = Bytes::from_mib(512);

#[test]
fn the_library_is_the_pinned_one() {
    let library = Library::get().expect("the library is in place");
    assert_eq!(library.version(), TESTED_VERSION);
    let file = library.origin().file_name().and_then(|name| name.to_str());
    assert!(file.is_some_and(|name| name.starts_with("libonnxruntime.so")), "{file:?}");
}

#[test]
fn every_model_gives_the_reference_answers_twice_to_the_bit() {
    let golden = Golden::read();
    for entry in &golden.models {
        let mut world = World::new(ARENA);
        let (mut model, first) = entry.admitted(&mut world, entry.whole());
        // Another answer in between, so that what is read again is written again.
        assert_ne!(world.run(&mut model, &entry.zeros()).expect("a good input"), first);
        let second = world.run(&mut model, &entry.inputs()).expect("a good input");
        assert_eq!(first, second, "{} differs from run to run", entry.name);
    }
}

#[test]
fn a_network_in_stages_gives_what_the_whole_gives() {
    let golden = Golden::read();
    let cut: Vec<_> = golden.models.iter().filter(|model| !model.stages().is_empty()).collect();
    assert_eq!(
        cut.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(),
        ["resnet50", "unet"]
    );
    for entry in cut {
        let mut world = World::new(ARENA);
        let (_, whole) = entry.admitted(&mut world, entry.whole());
        let (mut model, staged) = entry.admitted(&mut world, entry.stages());
        for ((answer, whole), staged) in entry.outputs.iter().zip(&whole).zip(&staged) {
            answer.check_equal(golden.tolerance, &floats(whole), &floats(staged));
        }
        let again = world.run(&mut model, &entry.inputs()).expect("a good input");
        assert_eq!(staged, again, "the stages of {} differ from run to run", entry.name);
    }
}

/// Two cut networks that share what they carry, and take turns job by job.
#[test]
fn networks_in_stages_that_are_never_suspended_share_what_they_carry() {
    let golden = Golden::read();
    let cut = || golden.models.iter().filter(|model| !model.stages().is_empty());
    let (mut own, mut shared) = (World::new(ARENA), World::new(ARENA));
    let mut models = Vec::new();
    let mut carried = Bytes::ZERO;
    for entry in cut() {
        let (_, expected) = entry.admitted(&mut own, entry.stages());
        let backend = world::load(entry.stages());
        let sizes = backend.memory().iter().filter(|need| need.class == TensorClass::Carried);
        carried += sizes.map(|need| need.size).sum();
        models.push((shared.admit_whole(backend), entry.inputs(), expected));
    }
    assert!(carried > Bytes::ZERO, "the networks carry something");
    for round in 0..3 {
        for (model, inputs, expected) in &mut models {
            let outputs = shared.run(model, inputs).expect("a good input");
            assert_eq!(outputs, *expected, "in round {round}");
        }
    }
    let kept = models.iter().flat_map(|(model, ..)| model.backend.memory());
    let kept = kept.filter(|need| need.class.is_exclusive() && need.class != TensorClass::Carried);
    assert_eq!(shared.resident(), kept.map(|need| need.size).sum());
}

#[test]
fn the_network_worked_out_by_hand_gives_exactly_that() {
    let golden = Golden::read();
    let mut world = World::new(ARENA);
    let (_, outputs) =
        golden.model("hand_mlp").admitted(&mut world, golden.model("hand_mlp").whole());
    let exact: Vec<u8> = [4.0f32, 0.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(outputs, [exact]);
}

/// All models in one arena: the scratch of each begins at the same address, so that every run writes
/// over what the others left there.
#[test]
fn models_that_share_scratch_do_not_disturb_each_other() {
    let golden = Golden::read();
    let mut world = World::new(ARENA);
    let mut models = Vec::new();
    for entry in &golden.models {
        for files in [entry.whole(), entry.stages()].into_iter().filter(|files| !files.is_empty()) {
            let (mut model, outputs) = entry.admitted(&mut world, files);
            let of_zeros = world.run(&mut model, &entry.zeros()).expect("a good input");
            assert_ne!(outputs, of_zeros);
            models.push((model, [(entry.inputs(), outputs), (entry.zeros(), of_zeros)]));
        }
    }
    let in_use = models.iter().filter(|(model, ..)| model.backend.scratch_used() > Bytes::ZERO);
    let scratch: Vec<_> = in_use.map(|(model, ..)| model.scratch()).collect();
    assert!(scratch.len() > 10, "most models need scratch");
    for other in &scratch[1..] {
        assert!(other.start < scratch[0].end && scratch[0].start < other.end, "scratch is shared");
    }
    // Strides without a factor of 15: each model runs once, after different others each time.
    assert_eq!(models.len(), 15);
    for (round, stride) in [1, 2, 4, 7].into_iter().enumerate() {
        for step in 0..models.len() {
            let at = (step * stride) % models.len();
            let (model, answers) = &mut models[at];
            let (inputs, expected) = &answers[round % 2];
            let outputs = world.run(model, inputs).expect("a good input");
            assert_eq!(outputs, *expected, "after another model, with stride {stride}");
        }
    }
}

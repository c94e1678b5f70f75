//! Broken models are refused with what is wrong; one that fails while it runs fails alone.

#[path = "golden/reference.rs"]
mod reference;
mod world;

use std::path::{Path, PathBuf};

use aegis_backend_onnx::{LoadOptions, OnnxBackend};
use aegis_context::context::error_line;
use aegis_context::{BackendError, RuntimeBackend};
use aegis_cuda::DeviceError;
use aegis_trace::{Bytes, Category};
use reference::Golden;
use world::{Tensors, World, file, floats};

/// Far more than is needed: tests beside this one that load models blur what is measured here.
const ARENA: Bytes = Bytes::from_mib(512);

fn refusal(files: Vec<PathBuf>) -> BackendError {
    let error = OnnxBackend::load(&world::options(files)).err().expect("a broken model");
    assert_eq!(error.category(), Category::Permanent);
    error
}

/// The refusal as a line, without the folder.
fn line(error: &BackendError, file: &Path) -> String {
    let folder = file.parent().expect("a folder").display().to_string();
    error_line(error).replace(&format!("{folder}/"), "")
}

fn refused(name: &str) -> String {
    let file = file("faulty", name);
    line(&refusal(vec![file.clone()]), &file)
}

#[test]
fn a_missing_file_is_named() {
    let missing = world::models("faulty").join("no_such_model.onnx");
    let error = refusal(vec![missing.clone()]);
    assert!(matches!(error, BackendError::File { .. }));
    assert_eq!(
        line(&error, &missing),
        "no_such_model.onnx could not be read: No such file or directory (os error 2)"
    );
}

#[test]
fn a_model_of_no_files_is_refused() {
    let error = refusal(Vec::new());
    assert_eq!(
        error.to_string(),
        "a model of no files is not a model this runtime accepts: it has no stage"
    );
}

#[test]
fn what_is_not_a_whole_model_is_refused_in_the_runtimes_words() {
    for (name, words) in [
        ("empty.onnx", "No graph was found"),
        ("not_onnx.onnx", "Protobuf parsing failed"),
        ("truncated.onnx", "Protobuf parsing failed"),
        ("unknown_operator.onnx", "Frobnicate"),
    ] {
        let line = refused(name);
        let known = format!("{name} is not a model this runtime accepts: ");
        assert!(line.starts_with(&known), "{line}");
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn a_dynamic_dimension_is_named_with_its_axis_and_tensor() {
    let file = file("faulty", "dynamic_batch.onnx");
    let error = refusal(vec![file.clone()]);
    let BackendError::DynamicShape { tensor, axis, .. } = &error else { panic!("{error}") };
    assert_eq!((tensor.as_str(), *axis), ("x", 0));
    let line = line(&error, &file);
    assert!(
        line.starts_with("dynamic_batch.onnx: dimension 0 of `x` is dynamic (`batch`)"),
        "{line}"
    );
}

#[test]
fn stages_in_the_wrong_order_do_not_link() {
    let stage = |stage| file("golden", &format!("resnet50.stage{stage}.onnx"));
    // Stage 1 takes what stage 0 gives, so before it that is an input, and given a second time.
    let error = refusal(vec![stage(1), stage(0), stage(2)]);
    assert!(matches!(error, BackendError::BrokenChain { .. }), "{error}");
    let line = error.to_string();
    assert!(line.starts_with("the stages do not fit together: stage 1 has "), "{line}");
    assert!(line.ends_with("given a second time"), "{line}");
}

#[test]
fn a_limit_below_what_a_run_needs_is_told_in_numbers() {
    let memory_limit = Bytes::from_kib(64);
    let files = vec![file("golden", "resnet50.onnx")];
    let options = LoadOptions { memory_limit, ..world::options(files.clone()) };
    let error = OnnxBackend::load(&options).err().expect("too small a limit");
    let BackendError::OutOfScratch { requested, available } = error else { panic!("{error}") };
    assert!(available <= memory_limit && requested > Bytes::ZERO, "{requested} of {available}");
    assert_eq!(error.category(), Category::Permanent);

    let enough = LoadOptions { memory_limit: Bytes::from_mib(1), ..world::options(files) };
    OnnxBackend::load(&enough).expect("the process loads models as before");
}

#[test]
fn a_model_that_fails_while_it_runs_fails_alone() {
    let golden = Golden::read();
    let healthy = golden.model("resnet18");
    let mut world = World::new(ARENA);
    let (mut neighbour, expected) = healthy.admitted(&mut world, healthy.whole());
    let mut table = world.admit(world::load(vec![file("faulty", "fails_on_demand.onnx")]));
    let index = |row: i64| -> Tensors { vec![row.to_le_bytes().to_vec()] };

    let good = world.run(&mut table, &index(3)).expect("a row of the table");
    let other = world.run(&mut table, &index(4)).expect("another row");
    assert!(floats(&good[0]).iter().all(|value| value.is_finite()) && good != other);
    for round in 0..3 {
        let error = world.run(&mut table, &index(8)).expect_err("beyond the table");
        let DeviceError::Work { cause, .. } = &error else { panic!("{error}") };
        assert_eq!(cause.category, Category::Permanent);
        let text = &cause.message;
        assert!(text.starts_with("the runtime failed: "), "{text}");
        assert!(text.contains("Gather") && text.contains("idx=8"), "{text}");
        let outputs = world.run(&mut neighbour, &healthy.inputs()).expect("a good input");
        assert_eq!(outputs, expected, "the neighbour in round {round}");
    }
    assert_eq!(world.run(&mut table, &index(4)).expect("another row"), other);
    assert_eq!(world.run(&mut table, &index(3)).expect("a row of the table"), good);
}

#[test]
fn a_model_is_bound_once() {
    let mut world = World::new(ARENA);
    let mut model = world.admit(world::load(vec![file("golden", "mlp.onnx")]));
    let mut other = World::new(ARENA);
    let second = other.admit_binding(model.backend.memory().to_vec());
    let error = model.backend.bind(second).expect_err("it is bound");
    assert_eq!(
        error.to_string(),
        "the memory binding does not fit the model: the model is bound already"
    );
}

#[test]
fn a_binding_smaller_than_declared_is_refused_and_a_fitting_one_still_taken() {
    let mut backend = world::load(vec![file("golden", "resnet18.onnx")]);
    let declared = backend.memory().to_vec();
    for index in 1..declared.len() {
        let mut needs = declared.clone();
        needs[index].size = Bytes(needs[index].size.0 - 1);
        let error =
            backend.bind(World::new(ARENA).admit_binding(needs)).expect_err("a byte too small");
        assert!(matches!(error, BackendError::BadBinding { .. }), "{error}");
        let numbers = format!("needs {} and was given", declared[index].size);
        assert!(error.to_string().contains(&numbers), "{error}");
    }
    let mut needs = declared.clone();
    needs.pop();
    let error = backend.bind(World::new(ARENA).admit_binding(needs)).expect_err("an output short");
    assert!(error.to_string().ends_with("`logits` has no place in it"), "{error}");

    let golden = Golden::read();
    let entry = golden.model("resnet18");
    let mut world = World::new(ARENA);
    let mut model = world.admit(backend);
    let outputs = world.run(&mut model, &entry.inputs()).expect("a good input");
    entry.check_outputs(golden.tolerance, &outputs);
}

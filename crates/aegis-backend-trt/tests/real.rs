//! The real TensorRT-RTX, as far as it goes without a GPU.
//!
//! It parses, builds and serialises, and says why it refuses a plan.
//!
//! Nothing here skips: without the library or the models, a test fails with the command that gets
//! them. What needs a GPU is in `aegis-gpu-tests`; what needs one that the library supports was run on
//! none (README, "What was run").
#![cfg(all(feature = "rtx", not(feature = "enterprise")))]

use std::path::{Path, PathBuf};

use aegis_backend_trt::{BuildOptions, BuiltEngine, build_engine, inspect};
use aegis_context::BackendError;
use aegis_trace::{Bytes, Category};

/// Where the number of the release begins in a plan of TensorRT-RTX 1.7.
const RELEASE_AT: usize = 0x18;

fn model(set: &str, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.aegis/models").join(set);
    let file = folder.join(name);
    assert!(file.is_file(), "{name} is missing: run `cargo xtask models --set {set}`");
    file
}

fn options(model: PathBuf) -> BuildOptions {
    let (workspace, compute_capabilities) = (None, Vec::new());
    BuildOptions { model, aux_streams: 0, tf32: true, workspace, compute_capabilities }
}

fn build(set: &str, name: &str) -> Result<BuiltEngine, BackendError> {
    build_engine(&options(model(set, name)))
}

fn refused(set: &str, name: &str) -> BackendError {
    let error = build(set, name).expect_err("it cannot be built");
    assert_eq!(error.category(), Category::Permanent);
    error
}

/// Writes `plan` to a file and gives what reading it says.
fn refused_plan(plan: &[u8]) -> BackendError {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("a.engine");
    std::fs::write(&file, plan).expect("a new file");
    let error = inspect(&file).map(|found| found.layers).expect_err("it is refused");
    assert_eq!(error.category(), Category::Permanent);
    error
}

#[test]
fn a_network_becomes_an_engine_that_says_what_it_takes() {
    let built = build("golden", "resnet18.onnx").expect("it can be built");
    assert!(built.runtime.starts_with("TensorRT-RTX 1.7.1."), "{}", built.runtime);
    let tensors =
        |all: &[aegis_context::TensorSpec]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(tensors(&built.inputs), ["image: f32[1, 3, 32, 32]"]);
    assert_eq!(tensors(&built.outputs), ["logits: f32[1, 10]"]);
    assert!(built.layers > 40, "{} layers", built.layers);
    assert_eq!(&built.plan[..4], b"vtrt");
    let figure = |words: &str| built.figures.iter().any(|line| line.starts_with(words));
    assert!(
        figure("Max Scratch Memory: ") && figure("Total Weights Memory: "),
        "{:?}",
        built.figures
    );
}

#[test]
fn every_network_of_the_golden_set_and_every_stage_can_be_built() {
    let folder = model("golden", "resnet18.onnx");
    let folder = folder.parent().expect("it is in a folder");
    let files = std::fs::read_dir(folder).expect("it can be listed");
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "onnx"));
    assert!(files.len() >= 19, "{files:?}");
    for file in files {
        let built = build_engine(&options(file.clone()));
        let built = built.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let full = built.plan.len() > 1024 && !built.inputs.is_empty() && !built.outputs.is_empty();
        assert!(full, "{}", file.display());
    }
}

#[test]
fn the_choices_of_a_build_are_heard() {
    let file = model("golden", "mlp.onnx");
    let small = BuildOptions { workspace: Some(Bytes::from_mib(64)), ..options(file.clone()) };
    build_engine(&small).expect("it needs less");
    let (any, one) = (
        options(file.clone()),
        BuildOptions { compute_capabilities: vec![89], ..options(file.clone()) },
    );
    let (any, one) = (build_engine(&any).expect("for all"), build_engine(&one).expect("for one"));
    assert_ne!(any.plan, one.plan);
    let hopper = BuildOptions { compute_capabilities: vec![90], ..options(file) };
    let error = build_engine(&hopper).expect_err("TensorRT-RTX has nothing for it");
    let words = "compute capability 90 is none that it builds for: 75, 80, 86, 89, 120, 121";
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = build_engine(&options("no/such.onnx".into())).expect_err("it is not there");
    assert!(matches!(&error, BackendError::File { path, .. } if path == "no/such.onnx"), "{error}");
    let error = inspect(Path::new("no/such.engine")).map(|_| ()).expect_err("it is not there");
    assert!(matches!(error, BackendError::File { .. }), "{error}");
}

#[test]
fn what_is_no_network_is_refused_with_the_librarys_text() {
    for (name, words) in [
        ("truncated.onnx", "Failed to parse the ONNX model"),
        ("not_onnx.onnx", "Network must have at least one output"),
        ("empty.onnx", "Network must have at least one output"),
    ] {
        let error = refused("faulty", name);
        assert!(matches!(error, BackendError::BadModel { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
}

#[test]
fn an_unknown_operator_is_refused_by_its_name() {
    let error = refused("faulty", "unknown_operator.onnx");
    assert!(matches!(error, BackendError::BadModel { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("Frobnicate") && text.contains("Plugin not found"), "{text}");
}

#[test]
fn a_dynamic_dimension_is_refused_by_the_name_of_its_tensor() {
    let error = refused("faulty", "dynamic_batch.onnx");
    let at = |tensor: &str, axis| tensor == "x" && axis == 0;
    assert!(
        matches!(&error, BackendError::DynamicShape { tensor, axis, .. } if at(tensor, *axis)),
        "{error}"
    );
}

#[test]
fn a_truncated_plan_is_refused_with_the_librarys_text() {
    let plan = build("golden", "mlp.onnx").expect("it can be built").plan;
    for length in [plan.len() - 1, plan.len() / 2, 100] {
        let error = refused_plan(&plan[..length]);
        assert!(matches!(error, BackendError::BadModel { .. }), "{length}: {error:?}");
        assert!(error.to_string().contains("plan.header.size == blobSize failed"), "{error}");
    }
    for length in [40, 0] {
        let error = refused_plan(&plan[..length]);
        assert!(matches!(error, BackendError::BadModel { .. }), "{length}: {error:?}");
    }
}

#[test]
fn a_foreign_plan_is_refused_with_the_librarys_text() {
    let network = std::fs::read(model("golden", "mlp.onnx")).expect("it is there");
    let error = refused_plan(&network);
    assert!(matches!(error, BackendError::BadModel { .. }), "{error:?}");
    assert!(error.to_string().contains("magicTag"), "{error}");
}

#[test]
fn a_plan_of_another_release_is_refused_with_the_librarys_text() {
    let mut plan = build("golden", "mlp.onnx").expect("it can be built").plan;
    assert_eq!(plan[RELEASE_AT..RELEASE_AT + 3], [1, 7, 1], "the release is somewhere else");
    plan[RELEASE_AT + 1] = 6;
    let error = refused_plan(&plan);
    assert!(matches!(error, BackendError::OtherVersion { .. }), "{error:?}");
    let words = "the current runtime is TensorRT-RTX version 1.7.1";
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn without_a_gpu_a_sound_plan_is_an_error_with_the_librarys_text() {
    if Path::new("/dev/nvidiactl").exists() {
        eprintln!("SKIPPED: there is a GPU here, whose answer `aegis-gpu-tests` judges");
        return;
    }
    let error = refused_plan(&build("golden", "mlp.onnx").expect("it can be built").plan);
    assert!(matches!(error, BackendError::Runtime { .. }), "{error:?}");
    assert!(error.to_string().contains("CUDA driver version is insufficient"), "{error}");
}

//! The whole stack on the real ONNX Runtime: files in, outputs and evidence out.
//!
//! Needs `cargo xtask runtimes` and `cargo xtask models` for the sets golden and faulty, which
//! `cargo xtask test` runs first.
#![cfg(feature = "onnx")]

use std::path::{Path, PathBuf};

use aegis::evidence::{Evidence, EvidenceError, Scenario};
use aegis::{
    Bytes, Category, Error, ModelSource, Nanos, Overheads, Pipeline, PolicyKind, Runtime, Tensor,
    Terms,
};

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn model(set: &str, name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../.aegis/models")
        .join(set)
        .join(format!("{name}.onnx"));
    assert!(path.is_file(), "run `cargo xtask models --set {set}` first");
    path
}

fn runtime() -> Runtime {
    Runtime::builder()
        .host(Bytes::from_mib(256))
        .streams(1)
        .policy(PolicyKind::Edf)
        .queue_depth(32)
        .max_models(32)
        .overheads(Overheads { dispatch: ms(1), wake: ms(5), ..Overheads::NONE })
        .trace_capacity(1 << 14)
        .build()
        .expect("the host")
}

/// Generous terms: these tests are about results, and the machine may be busy.
fn terms() -> Terms {
    Terms { slots: 4, ..Terms::periodic(ms(1), ms(200), Bytes::from_mib(32)) }
}

#[test]
fn a_network_computed_by_hand_gives_its_numbers() {
    let runtime = runtime();
    let source = ModelSource::onnx(model("golden", "hand_mlp"));
    let loaded = runtime.load("hand", &source).expect("a sound model");
    let input = loaded.description().inputs[0].clone();
    let output = loaded.description().outputs[0].name.clone();
    let hand = runtime.admit(loaded, &terms()).expect("room");
    runtime.warm_up().expect("zeros are fine inputs");
    assert_eq!(hand.metrics().counts.submitted, 0, "nobody saw the warm-up");
    runtime.start().expect("first start");
    let x = Tensor::f32(&input.name, &input.shape, &[1.0, 2.0]);
    let outputs = hand.submit(&[x]).expect("accepted").wait().expect("ran");
    assert_eq!(outputs.f32(&output).expect("the output"), [4.0, 0.0]);
}

#[test]
fn a_model_whose_execution_fails_is_fenced_and_the_other_23_go_on() {
    let runtime = runtime();
    let faulty = ModelSource::onnx(model("faulty", "fails_on_demand"));
    let faulty = runtime.load("faulty", &faulty).expect("it loads");
    let faulty = runtime.admit(faulty, &terms()).expect("room");
    let others: Vec<_> = (0..23)
        .map(|n| {
            let source = ModelSource::onnx(model("golden", "hand_mlp"));
            let loaded = runtime.load(&format!("m{n}"), &source).expect("a sound model");
            runtime.admit(loaded, &terms()).expect("room")
        })
        .collect();
    runtime.start().expect("first start");
    let index = |value: i64| [Tensor::i64("index", &[1], &[value])];
    faulty.submit(&index(3)).expect("accepted").wait().expect("a good index");
    let failed = faulty.submit(&index(1_000)).expect("accepted").wait();
    let error = failed.expect_err("an index out of range");
    assert!(matches!(&error, Error::Failed { reason, .. } if reason.contains("ndices")), "{error}");
    assert_eq!(error.category(), Category::Permanent);
    assert!(matches!(
        faulty.submit(&index(3)),
        Err(Error::Submission { why }) if why == aegis::SubmitRefusal::ModelFenced
    ));
    let x = others[0].description().inputs[0].clone();
    let output = others[0].description().outputs[0].name.clone();
    for other in &others {
        let x = Tensor::f32(&x.name, &x.shape, &[1.0, 2.0]);
        let outputs = other.submit(&[x]).expect("accepted").wait().expect("ran");
        assert_eq!(outputs.f32(&output).expect("the output"), [4.0, 0.0], "{}", other.name());
    }
    runtime.evict(&faulty).expect("a fenced model can go");
    runtime.stop().expect("stops");
}

#[test]
fn a_model_over_its_memory_budget_is_refused_with_numbers() {
    let runtime = runtime();
    let source = ModelSource::onnx(model("golden", "resnet18"));
    let loaded = runtime.load("resnet", &source).expect("a sound model");
    let mut terms = terms();
    terms.budget.memory = Bytes::from_kib(64);
    let error = runtime.admit(loaded, &terms).expect_err("64 KiB");
    assert!(error.to_string().contains("> memory budget 64 KiB"), "{error}");
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let runtime = runtime();
    let load = |set: &str, name: &str| {
        let error = runtime.load("m", &ModelSource::onnx(model(set, name))).expect_err("broken");
        assert_eq!(error.category(), Category::Permanent);
        let cause = std::error::Error::source(&error).expect("a cause").to_string();
        assert!(cause.contains(name), "{cause}");
        cause
    };
    assert!(load("faulty", "not_onnx").contains("is not a model this runtime accepts"));
    assert!(load("faulty", "truncated").contains("is not a model this runtime accepts"));
    assert!(load("faulty", "unknown_operator").contains("made.up"));
    assert!(load("faulty", "dynamic_batch").contains("is dynamic"));
    let missing = runtime.load("m", &ModelSource::onnx("no/such.onnx")).expect_err("missing");
    assert!(matches!(missing, Error::Load { .. }));
}

/// A workload of one small model in a folder of its own.
fn workload(folder: &Path) -> PathBuf {
    std::fs::copy(model("golden", "hand_mlp"), folder.join("hand.onnx")).expect("a copy");
    let path = folder.join("pipeline.toml");
    let text = r#"
        device = { driver = "host", memory = "64MiB" }
        scheduler = { policy = "edf", queue_depth = 8 }
        wcet = { samples = 5 }
        [[model]]
        name = "hand"
        backend = "onnx"
        path = "hand.onnx"
        period = "500ms"
    "#;
    std::fs::write(&path, text).expect("a file");
    path
}

#[test]
fn evidence_is_written_read_and_refused_once_it_is_stale() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = workload(folder.path());
    let pipeline = Pipeline::open(&path).expect("a sound workload");
    assert!(matches!(pipeline.check(), Err(Error::Evidence(EvidenceError::Missing { .. }))));
    let evidence = pipeline.profile(|_, _| {}).expect("profiled");
    assert_eq!(evidence.models["hand"].samples.count(), 5);
    let read = Evidence::read(pipeline.evidence_path()).expect("what was written");
    assert_eq!(read, evidence);
    let (_, verdicts) = pipeline.check().expect("fresh evidence");
    assert!(verdicts[0].outcome.is_ok());
    let (_, verdicts) = pipeline.admit(|_| {}).expect("fresh evidence");
    assert!(verdicts[0].outcome.is_ok());

    let mut elsewhere = evidence.clone();
    elsewhere.device.name.push_str(" of another kind");
    elsewhere.write(pipeline.evidence_path()).expect("a file");
    let refused = pipeline.check().map(drop);
    assert!(matches!(refused, Err(Error::Evidence(EvidenceError::OtherDevice { .. }))));

    let mut other_kernel = evidence.clone();
    other_kernel.environment.kernel = Some("2.0.40".into());
    other_kernel.write(pipeline.evidence_path()).expect("a file");
    let here = evidence.environment.kernel.is_some();
    let refused = pipeline.check().map(drop);
    let other = matches!(refused, Err(Error::Evidence(EvidenceError::OtherEnvironment { .. })));
    assert_eq!(other, here, "a kernel that says its release is compared");
    let accepting = |rule: &str| {
        let text = std::fs::read_to_string(&path).expect("the workload");
        std::fs::write(&path, text.replace("samples = 5", &format!("samples = 5, {rule}")))
            .expect("a file");
        let pipeline = Pipeline::open(&path).expect("a sound workload");
        std::fs::write(&path, text).expect("a file");
        pipeline.check().map(|(_, verdicts)| verdicts[0].outcome.is_ok())
    };
    assert!(accepting(r#"accept = ["kernel"]"#).expect("the user says so by name"));

    let mut other_runtime = evidence.clone();
    other_runtime.models.get_mut("hand").expect("it is there").runtime = "onnxruntime 0".into();
    other_runtime.write(pipeline.evidence_path()).expect("a file");
    let refused = pipeline.admit(|_| {}).map(drop);
    assert!(matches!(refused, Err(Error::Evidence(EvidenceError::OtherRuntime { .. }))));

    evidence.write(pipeline.evidence_path()).expect("a file");
    let unclaimed = accepting(r#"method = "auto""#);
    assert!(matches!(unclaimed, Err(Error::Evidence(EvidenceError::Unclaimed { .. }))));
    assert!(accepting(r#"method = "auto", unclaimed = "accept""#).expect("the user says so"));

    std::fs::copy(model("golden", "mlp"), folder.path().join("hand.onnx")).expect("a copy");
    let refused = pipeline.check().map(drop);
    assert!(matches!(refused, Err(Error::Evidence(EvidenceError::OtherModel { .. }))));

    std::fs::write(pipeline.evidence_path(), "{}").expect("a file");
    let refused = pipeline.check().map(drop);
    assert!(matches!(refused, Err(Error::Evidence(EvidenceError::Malformed { .. }))));
}

#[test]
fn every_scenario_is_measured_in_turn_and_the_bound_covers_the_worst() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pipeline = Pipeline::open(&workload(folder.path())).expect("a sound workload");
    let mut steps = Vec::new();
    let evidence = pipeline
        .profile_under_load(&Scenario::ALL, |done, all| steps.push((done, all)))
        .expect("profiled");
    let measured = &evidence.models["hand"];
    let scenarios = measured.scenarios();
    assert!(scenarios.keys().eq(&Scenario::ALL));
    assert!(scenarios.values().all(|samples| samples.count() == 5));
    assert_eq!((measured.stages.as_slice(), evidence.warm_up), (&["hand.onnx".to_owned()][..], 5));
    assert_eq!((steps.len(), steps.last()), (30, Some(&(30, 30))));
    let stage = &pipeline.wcet(measured).stages[0];
    let longest = scenarios.values().flat_map(|samples| &samples.stages()[0]).max();
    assert_eq!(Some(&stage.high_water), longest);
    assert!(stage.worst_case >= stage.high_water);
    assert_eq!(Evidence::read(pipeline.evidence_path()).expect("what was written"), evidence);
}

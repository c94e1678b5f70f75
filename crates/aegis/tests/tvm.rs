//! The whole stack on the real TVM: modules in, outputs and evidence out; and a build without it.
//!
//! With the feature, this needs `cargo xtask runtimes --tvm` and `cargo xtask models --set golden --tvm
//! llvm`, which `cargo xtask test` runs first.

use std::path::{Path, PathBuf};

use aegis::{Bytes, Category, ModelSource, Nanos, Overheads, PolicyKind, Runtime};

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn module(name: &str) -> ModelSource {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.aegis/models/golden-tvm");
    let modules: Vec<PathBuf> = vec![folder.join(format!("{name}.llvm.so"))];
    ModelSource::Tvm { modules, graph: true }
}

fn runtime() -> Runtime {
    Runtime::builder()
        .host(Bytes::from_mib(256))
        .streams(1)
        .policy(PolicyKind::Edf)
        .queue_depth(32)
        .max_models(4)
        .overheads(Overheads { dispatch: ms(1), wake: ms(5), ..Overheads::NONE })
        .trace_capacity(1 << 12)
        .build()
        .expect("the host")
}

#[cfg(not(feature = "tvm"))]
#[test]
fn a_build_without_tvm_says_how_to_get_it() {
    let error = runtime().load("mlp", &module("mlp")).expect_err("it is not built in");
    assert!(matches!(error, aegis::Error::NotBuilt { .. }), "{error}");
    assert!(error.to_string().contains("enable the feature `tvm`"), "{error}");
    assert_eq!(error.category(), Category::Permanent);
}

#[cfg(feature = "tvm")]
mod with_tvm {
    use aegis::evidence::fingerprint;
    use aegis::{Tensor, Terms};

    use super::*;

    /// Generous terms: these tests are about results, and the machine may be busy.
    fn terms() -> Terms {
        Terms { slots: 4, ..Terms::periodic(ms(1), ms(200), Bytes::from_mib(32)) }
    }

    #[test]
    fn a_network_computed_by_hand_gives_its_numbers() {
        let runtime = runtime();
        let loaded = runtime.load("hand", &module("hand_mlp")).expect("a sound module");
        assert!(loaded.runtime_name().starts_with("TVM 0.27.0 (CPU"), "{}", loaded.runtime_name());
        let input = loaded.description().inputs[0].clone();
        let output = loaded.description().outputs[0].name.clone();
        let hand = runtime.admit(loaded, &terms()).expect("room");
        runtime.start().expect("first start");
        let x = Tensor::f32(&input.name, &input.shape, &[1.0, 2.0]);
        let outputs = hand.submit(&[x]).expect("accepted").wait().expect("ran");
        assert_eq!(outputs.f32(&output).expect("the output"), [4.0, 0.0]);
        let wrong = Tensor::f32(&input.name, &[1, 3], &[1.0, 2.0, 3.0]);
        let error = hand.submit(&[wrong]).map(drop).expect_err("three of two");
        assert_eq!(error.category(), Category::Permanent);
        runtime.stop().expect("stops");
    }

    #[test]
    fn a_module_over_its_memory_budget_is_refused_with_numbers() {
        let runtime = runtime();
        let loaded = runtime.load("resnet", &module("resnet18")).expect("a sound module");
        let mut terms = terms();
        terms.budget.memory = Bytes::from_kib(64);
        let error = runtime.admit(loaded, &terms).expect_err("64 KiB");
        assert!(error.to_string().contains("> memory budget 64 KiB"), "{error}");
    }

    #[test]
    fn evidence_is_of_the_module_and_its_manifest() {
        let folder = tempfile::tempdir().expect("a folder");
        let ModelSource::Tvm { modules, .. } = module("mlp") else { panic!("a module") };
        let own = folder.path().join("mlp.llvm.so");
        let manifest = own.with_extension("json");
        std::fs::copy(&modules[0], &own).expect("it is compiled");
        std::fs::copy(modules[0].with_extension("json"), &manifest).expect("it is compiled");
        let source = ModelSource::Tvm { modules: vec![own], graph: true };
        let before = fingerprint(&source).expect("both are there");
        assert_eq!(before, fingerprint(&module("mlp")).expect("both are there"));
        let text = std::fs::read_to_string(&manifest).expect("it is there");
        std::fs::write(&manifest, text + "\n").expect("it can be written");
        assert_ne!(before, fingerprint(&source).expect("both are there"));
        std::fs::remove_file(&manifest).expect("it is there");
        fingerprint(&source).expect_err("no manifest");
    }
}

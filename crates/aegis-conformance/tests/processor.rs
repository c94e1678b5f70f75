//! ONNX Runtime and TVM on the processor, held against the whole suite, and against one another.
//!
//! Nothing here skips: without the libraries or the models, a test fails with the command that gets
//! them.

use std::path::{Path, PathBuf};

use aegis_backend_onnx::OnnxBackend;
use aegis_backend_tvm::TvmBackend;
use aegis_conformance::{Fault, Ground, Subject, Tensors, check, inputs};
use aegis_context::{BackendError, RuntimeBackend};
use aegis_trace::Bytes;

const ARENA: Bytes = Bytes::from_mib(512);
/// Two compilers sum in other orders.
const TOLERANCE: f64 = 1e-4;

/// The networks of the golden set that TVM has operators for, as their files are called, by stages.
const NETWORKS: [&[&str]; 12] = [
    &["hand_mlp"],
    &["mlp"],
    &["resnet18"],
    &["resnet50.stage0", "resnet50.stage1", "resnet50.stage2"],
    &["mobilenet_v2"],
    &["efficientnet"],
    &["unet"],
    &["unet.stage0", "unet.stage1", "unet.stage2"],
    &["yolo"],
    &["vit"],
    &["bert"],
    &["pillars"],
];

/// Where `pillars` scatters its rows.
const DISTINCT: [&str; 1] = ["cells"];

fn models(folder: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/ is below");
    let folder = root.join(".aegis/models").join(folder);
    assert!(folder.is_dir(), "run `cargo xtask models --set golden --tvm llvm`");
    folder
}

fn files(folder: &str, names: &[&str], end: &str) -> Vec<PathBuf> {
    let folder = models(folder);
    names.iter().map(|name| folder.join(format!("{name}.{end}"))).collect()
}

fn onnx(names: &[&str], memory_limit: Bytes) -> Result<Box<dyn RuntimeBackend>, BackendError> {
    let files = files("golden", names, "onnx");
    let options = aegis_backend_onnx::LoadOptions { files, threads: 1, memory_limit, gpu: None };
    Ok(Box::new(OnnxBackend::load(&options)?))
}

fn tvm(names: &[&str], memory_limit: Bytes) -> Result<Box<dyn RuntimeBackend>, BackendError> {
    let files = files("golden-tvm", names, "llvm.so");
    let options = aegis_backend_tvm::LoadOptions { files, memory_limit, gpu: None };
    Ok(Box::new(TvmBackend::load(&options)?))
}

/// What ONNX Runtime gives for `inputs`.
fn reference(names: &[&str], inputs: &Tensors) -> Result<Tensors, Fault> {
    let mut ground = Ground::host(ARENA)?;
    let mut model = ground.admit(onnx(names, Bytes::from_mib(256))?)?;
    ground.run(&mut model, inputs)
}

fn judge(subject: &Subject<'_>) {
    let report = check(subject, &|| Ground::host(ARENA));
    println!("{report}");
    assert!(report.holds(), "{report}");
}

#[test]
fn tvm_does_what_every_backend_must() {
    for names in NETWORKS {
        judge(&Subject {
            name: format!("tvm {}", names.join("+")),
            load: &|limit| tvm(names, limit),
            reference: Some(&|inputs: &Tensors| reference(names, inputs)),
            tolerance: TOLERANCE,
            distinct: &DISTINCT,
        });
    }
}

#[test]
fn onnx_runtime_does_what_every_backend_must() {
    for names in NETWORKS.into_iter().chain([["gru"].as_slice()]) {
        judge(&Subject {
            name: format!("onnx {}", names.join("+")),
            load: &|limit| onnx(names, limit),
            reference: None,
            tolerance: TOLERANCE,
            distinct: &DISTINCT,
        });
    }
}

/// The rows of the inputs of `pillars`, points and cells alike, in the opposite order: the same cloud of
/// points.
fn reversed(given: &Tensors, rows: usize) -> Tensors {
    let reverse = |bytes: &Vec<u8>| -> Vec<u8> {
        bytes.chunks_exact(bytes.len() / rows).rev().flatten().copied().collect()
    };
    given.iter().map(reverse).collect()
}

/// A GPU writes the rows of a scatter in any order. On the processor they are written one behind the
/// other, so another order of the rows shows what another order of writing would do.
#[test]
fn the_order_in_which_a_scatter_writes_is_seen_only_where_cells_occur_twice() {
    let names = ["pillars"];
    let specs = onnx(&names, Bytes::from_mib(256)).expect("it loads").description().inputs.clone();
    let rows = specs.iter().find(|spec| spec.name == "cells").expect("it scatters").elements();
    let answers = |distinct: &[&str]| -> [Tensors; 2] {
        let given = inputs(&specs, distinct, 7);
        let orders = [reversed(&given, rows), given];
        orders.map(|given| reference(&names, &given).expect("it runs"))
    };
    let [one, other] = answers(&DISTINCT);
    assert!(one == other, "every row has a cell of its own");
    let [one, other] = answers(&[]);
    assert!(one != other, "all rows go to one cell, and the last of them stays");
}

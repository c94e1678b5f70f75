//! A run takes all its memory from the region that was planned for it, and keeps none of it.
//!
//! The counters are of the whole process, so the tests of this file are one.

mod world;

use std::path::PathBuf;

use aegis_backend_onnx::{LoadOptions, OnnxBackend, heap, scratch};
use aegis_context::RuntimeBackend;
use aegis_memory::TensorClass;
use aegis_trace::Bytes;
use world::{Model, SCRATCH, Tensors, World};

/// Runs of which the growth of the heap is measured. A run that kept a block of any size would show:
/// the smallest takes 32 bytes.
const RUNS: u64 = 400;

/// What the heap may seem to grow by: chunks that `free` keeps for their thread count as in use.
const NOISE: Bytes = Bytes::from_kib(8);

#[test]
fn runs_use_what_was_measured_and_nothing_else() {
    for threads in [1, 2] {
        for files in networks() {
            let name = files[0].display().to_string();
            let size: u64 = files.iter().map(|file| file.metadata().expect("a file").len()).sum();
            let options = LoadOptions { threads, ..world::options(files) };
            let backend = OnnxBackend::load(&options).expect("a model that is in order");
            check_weights(&name, &backend, size);

            let mut world = World::new(Bytes::from_mib(64));
            let mut model = world.admit(backend);
            let inputs = zeros(&model);
            let spilled = scratch::spilled();
            for _ in 0..20 {
                world.run(&mut model, &inputs).expect("a good input");
            }
            assert_eq!(scratch::spilled(), spilled, "{name}, {threads} threads: all in the region");
            assert_eq!(model.backend.scratch_used(), measured(&model.backend), "{name}");
        }
    }
    for name in ["bert.onnx", "gru.onnx", "resnet18.onnx"] {
        check_growth(name);
    }
}

/// The networks of the golden set, each whole; `resnet50` in stages as well.
fn networks() -> Vec<Vec<PathBuf>> {
    let stages = |stage| world::file("golden", &format!("resnet50.stage{stage}.onnx"));
    let mut all = vec![(0..3).map(stages).collect()];
    for entry in std::fs::read_dir(world::models("golden")).expect("a folder") {
        let file = entry.expect("an entry").path();
        let is_stage = file.display().to_string().contains(".stage");
        if !is_stage && file.extension().is_some_and(|extension| extension == "onnx") {
            all.push(vec![file]);
        }
    }
    assert!(all.len() > 13, "the golden models are missing: run `cargo xtask models --set golden`");
    all
}

fn zeros(model: &Model) -> Tensors {
    model.slot.io().inputs().iter().map(|input| vec![0; input.len()]).collect()
}

fn measured(backend: &OnnxBackend) -> Bytes {
    let need = backend.memory().iter().find(|need| need.tensor == SCRATCH);
    need.map_or(Bytes::ZERO, |need| need.size)
}

/// What the model keeps is at least its file, and no more than the file and its packed copy with a
/// few megabytes of graph, kernels and what the library sets up once.
fn check_weights(name: &str, backend: &OnnxBackend, file: u64) {
    let persistent = backend.memory().iter().filter(|need| need.class == TensorClass::Persistent);
    let kept: Bytes = persistent.map(|need| need.size).sum();
    assert!(kept.0 >= file, "{name}: {kept} kept of {file} in the file");
    assert!(kept.0 <= 2 * file + (4 << 20), "{name}: {kept} kept of {file} in the file");
}

fn check_growth(name: &str) {
    let mut world = World::new(Bytes::from_mib(64));
    let mut model = world.admit(world::load(vec![world::file("golden", name)]));
    let inputs = zeros(&model);
    let mut run = || drop(world.run(&mut model, &inputs).expect("a good input"));
    (0..50).for_each(|_| run());
    let before = heap::in_use();
    (0..RUNS).for_each(|_| run());
    let grown = heap::in_use().saturating_sub(before);
    assert!(grown <= NOISE, "{name}: the heap grew by {grown} in {RUNS} runs");
}

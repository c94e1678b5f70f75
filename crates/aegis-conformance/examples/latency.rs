//! How long the same networks take on ONNX Runtime and on TVM, on the processor, in one run.
//!
//! ```text
//! cargo run --release -p aegis-conformance --example latency [RUNS]
//! ```
//! Jobs of both runtimes alternate, so that what else the machine does meets both. A line has the median
//! and the coefficient of variation of each, from the enqueueing of the first stage to the end of the last.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use aegis_backend_onnx::OnnxBackend;
use aegis_backend_tvm::TvmBackend;
use aegis_conformance::{Ground, Model, inputs};
use aegis_trace::Bytes;

const LIMIT: Bytes = Bytes::from_mib(256);
const WARM_UP: usize = 5;

/// A network's name, its ONNX files and its modules.
type Network = (String, Vec<PathBuf>, Vec<PathBuf>);

fn main() -> Result<(), Box<dyn Error>> {
    let runs = std::env::args().nth(1).map_or(Ok(200), |runs| runs.parse())?;
    println!("| network | ONNX p50 ms | CV % | TVM p50 ms | CV % | TVM / ONNX |");
    println!("|---|---|---|---|---|---|");
    for set in ["golden", "host24"] {
        for (name, onnx, tvm) in networks(set)? {
            let mut ground = Ground::host(Bytes::from_gib(1))?;
            let (memory_limit, gpu) = (LIMIT, None);
            let options =
                aegis_backend_onnx::LoadOptions { files: onnx, threads: 1, memory_limit, gpu };
            let onnx = ground.admit(Box::new(OnnxBackend::load(&options)?))?;
            let options = aegis_backend_tvm::LoadOptions { files: tvm, memory_limit, gpu: None };
            let tvm = ground.admit(Box::new(TvmBackend::load(&options)?))?;
            let [a, b] = measure(&ground, [onnx, tvm], runs)?;
            let times = b.0 / a.0;
            println!(
                "| {set} {name} | {:.3} | {:.1} | {:.3} | {:.1} | {times:.1} |",
                a.0, a.1, b.0, b.1
            );
        }
    }
    Ok(())
}

/// Every network of the set that is compiled: its name and the files of its stages.
fn networks(set: &str) -> Result<Vec<Network>, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).ok_or("no repository")?;
    let (from, compiled) =
        (root.join(".aegis/models").join(set), root.join(format!(".aegis/models/{set}-tvm")));
    let missing = |error| {
        format!("{}: {error}; run `cargo xtask models --set {set} --tvm llvm`", compiled.display())
    };
    let mut stems: Vec<String> = std::fs::read_dir(&compiled)
        .map_err(missing)?
        .filter_map(|entry| {
            entry.ok()?.file_name().into_string().ok()?.strip_suffix(".llvm.so").map(str::to_owned)
        })
        .collect();
    stems.sort_unstable();
    let mut found: Vec<Network> = Vec::new();
    for stem in stems {
        let (name, staged) = match stem.split_once(".stage") {
            Some((name, _)) => (format!("{name} (stages)"), true),
            None => (stem.clone(), false),
        };
        let files = (from.join(format!("{stem}.onnx")), compiled.join(format!("{stem}.llvm.so")));
        match found.last_mut() {
            Some(last) if staged && last.0 == name => {
                last.1.push(files.0);
                last.2.push(files.1);
            }
            _ => found.push((name, vec![files.0], vec![files.1])),
        }
    }
    Ok(found)
}

/// Median in milliseconds and coefficient of variation in percent, for each model.
fn measure(
    ground: &Ground,
    mut models: [Model; 2],
    runs: usize,
) -> Result<[(f64, f64); 2], Box<dyn Error>> {
    let mut samples = [Vec::new(), Vec::new()];
    let given = inputs(models[0].inputs(), &["cells"], 7);
    for run in 0..runs + WARM_UP {
        for (model, samples) in models.iter_mut().zip(&mut samples) {
            let begun = Instant::now();
            ground.run(model, &given)?;
            if run >= WARM_UP {
                samples.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(samples.map(|mut samples| {
        samples.sort_unstable_by(f64::total_cmp);
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let variance = samples.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (samples[samples.len() / 2], variance.sqrt() / mean * 100.0)
    }))
}

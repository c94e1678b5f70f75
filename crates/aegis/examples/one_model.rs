//! One ONNX model, profiled, admitted, run a few times: the whole of AegisRT through the facade.
//!
//! `cargo run -p aegis --example one_model -- model.onnx`

use std::process::ExitCode;
use std::sync::Arc;

use aegis::evidence::WcetProfile;
use aegis::profile::{self, ProfileOptions};
use aegis::{
    Bytes, DeviceChoice, Error, ModelSource, Nanos, Overheads, PolicyKind, Runtime, Terms, drive,
};

/// What all models together may take.
const MEMORY: Bytes = Bytes::from_gib(1);
/// Added to the longest run that was measured.
const MARGIN_PERCENT: u32 = 20;

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: one_model MODEL.onnx");
        return ExitCode::from(2);
    };
    let Err(error) = run(&ModelSource::onnx(file)) else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        eprintln!("  because {error}");
        cause = error.source();
    }
    ExitCode::from(2)
}

fn run(source: &ModelSource) -> Result<(), Error> {
    // How long does it take? Measured alone, before anything is promised.
    let options = ProfileOptions {
        device: DeviceChoice::Host,
        memory: MEMORY,
        partitions: Vec::new(),
        rounds: 100,
        spin: Nanos::from_micros(50),
        realtime: false,
        uploads_ahead: false,
    };
    let models = [("model".to_owned(), source.clone())];
    let evidence = profile::profile(&models, &options, |_, _| {})?;
    let costs = WcetProfile::with_margin(&evidence.models["model"].samples, MARGIN_PERCENT).costs();

    let runtime = Runtime::builder()
        .host(MEMORY)
        .streams(1)
        .policy(PolicyKind::Edf)
        .queue_depth(16)
        .max_models(4)
        .overheads(Overheads {
            dispatch: Nanos::from_micros(300),
            wake: Nanos::from_millis(1),
            ..Overheads::NONE
        })
        .trace_capacity(4096)
        .spin(Nanos::from_micros(50))
        .build()?;
    let model = runtime.load("model", source)?;
    println!("inputs {:?}", model.description().inputs);

    // Ten times its cost as its period: plenty of room for one model.
    let period = Nanos(costs.iter().map(|cost| cost.as_nanos()).sum::<u64>() * 10);
    let terms = Terms { costs, ..Terms::periodic(Nanos::ZERO, period, MEMORY) };
    let model = runtime.admit(model, &terms)?;
    let promised = &runtime.report().models[0];
    println!(
        "admitted with ten times its cost, {}, as its period: bound {}",
        period,
        promised.bound.expect("a guaranteed model has one")
    );

    runtime.start()?;
    let inputs: Vec<_> = model.description().inputs.iter().map(drive::sample_input).collect();
    for _ in 0..10 {
        let release = runtime.clock().now();
        let outputs = model.submit(&inputs)?.wait()?;
        println!(
            "response {}, execution {}",
            outputs.timing().response,
            outputs.timing().execution
        );
        // A well-behaved caller keeps to the period it was admitted with.
        let next = release + period;
        let left = next.saturating_since(Arc::clone(runtime.clock()).now());
        std::thread::sleep(left.into());
    }
    runtime.stop()?;
    let seen = runtime.report().models[0].observed;
    println!("{} jobs, {} missed", seen.counts.completed, seen.counts.missed);
    Ok(())
}

//! How soon the end of work is seen, and what looking costs.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis_cuda::{CompletionWait, TestKernels};
use aegis_trace::Nanos;

use crate::bench::{Bench, Outcome, Spread, require, time, wait_for};

const ROUNDS: usize = 10_000;
const WAYS: [CompletionWait; 3] =
    [CompletionWait::Spin, CompletionWait::Yield, CompletionWait::Block];

pub(crate) fn wait_ends(bench: &Bench) -> Outcome {
    for way in WAYS {
        let device = bench.open_with(|config| config.wait = way)?;
        let kernels = TestKernels::load(&device)?;
        let stream = device.create_stream()?;
        let event = device.create_event()?;
        kernels.busy(&stream, 1, Nanos::from_millis(100))?;
        stream.record(&event)?;
        let soon = Instant::now() + Duration::from_millis(5);
        while Instant::now() < soon {
            device.wait(Some(soon), Nanos::ZERO);
        }
        let late = soon.elapsed();
        require(late < Duration::from_millis(50), || format!("{way:?}: {late:?} late"))?;
        device.signal().notify();
        let took = time(|| {
            device.wait(None, Nanos::ZERO);
            Ok(())
        })?;
        require(took < Nanos::from_millis(50), || format!("{way:?}: a ring took {took}"))?;
        wait_for(&device, &event)?;
        // Nothing is pending: the thread sleeps, and a ring of another wakes it.
        let ringer = Arc::clone(device.signal());
        let other = std::thread::spawn(move || ringer.notify());
        device.wait(None, Nanos::ZERO);
        other.join().map_err(|_| "the ringing thread panicked")?;
    }
    Ok(String::new())
}

pub(crate) fn latency(bench: &Bench) -> Outcome {
    let lines: Result<Vec<String>, _> = WAYS.iter().map(|way| latency_of(bench, *way)).collect();
    Ok(lines?.join("\n"))
}

/// From the end of a kernel on the device to its completion seen: the time from before its launch to
/// the completion, less what the device says it took between its events. The launch is counted in.
fn latency_of(bench: &Bench, way: CompletionWait) -> Result<String, Box<dyn Error>> {
    let device = bench.open_with(|config| config.wait = way)?;
    let kernels = TestKernels::load(&device)?;
    let stream = device.create_stream()?;
    let (begun, ended) = (device.create_event()?, device.create_event()?);
    let mut empty = Vec::with_capacity(ROUNDS);
    let mut loaded = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        empty.push(time(|| {
            stream.record(&ended)?;
            wait_for(&device, &ended)
        })?);
        let wall = time(|| {
            stream.record(&begun)?;
            kernels.busy(&stream, 1, Nanos::from_micros(30))?;
            stream.record(&ended)?;
            wait_for(&device, &ended)
        })?;
        loaded.push(wall.saturating_sub(ended.elapsed_since(&begun)?));
    }
    let (empty, loaded) = (Spread::of(empty), Spread::of(loaded));
    let sane = empty.median < Nanos::from_millis(1) && loaded.median < Nanos::from_millis(1);
    require(sane, || format!("{way:?}: empty {empty}; loaded {loaded}"))?;
    Ok(format!("{way:?}, {ROUNDS} rounds\n  empty stream: {empty}\n  beside 30 us: {loaded}"))
}

/// The processor's cost of each step that a job takes.
pub(crate) fn dispatch_cost(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = TestKernels::load(&device)?;
    let stream = device.create_stream()?;
    let (begun, ended) = (device.create_event()?, device.create_event()?);
    let graph = stream.capture(|stream| kernels.busy(stream, 1, Nanos(0)))?;
    let mut of = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        of[0].push(time(|| Ok(stream.record(&begun)?))?);
        of[1].push(time(|| Ok(stream.enqueue_graph(&graph)?))?);
        of[2].push(time(|| Ok(stream.record(&ended)?))?);
        wait_for(&device, &ended)?;
        of[3].push(time(|| ended.elapsed_since(&begun).map(drop).map_err(Into::into))?);
    }
    let [begin, launch, end, elapsed] = of.map(Spread::of);
    let ours = begin.median + end.median;
    require(ours < Nanos::from_micros(20), || format!("two recordings take {ours}"))?;
    Ok(format!(
        "{ROUNDS} rounds\nrecord begun: {begin}\nlaunch graph: {launch}\nrecord ended: {end}\n\
         elapsed: {elapsed}"
    ))
}

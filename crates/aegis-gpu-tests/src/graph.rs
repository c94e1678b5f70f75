//! Captured graphs: capture, launch, update, and captures that fail.

use std::error::Error;

use aegis_cuda::{CudaGraph, CudaStream, DeviceContext, DeviceError, GraphUpdate, TestKernels};
use aegis_trace::Nanos;

use crate::bench::{Bench, Outcome, require, wait_for};

/// A graph of `kernels` kernels of `length` each, one after the other.
fn chain(
    stream: &CudaStream,
    kernels: &TestKernels,
    count: usize,
    length: Nanos,
) -> Result<CudaGraph, DeviceError> {
    stream.capture(|stream| (0..count).try_for_each(|_| kernels.busy(stream, 1, length)))
}

/// The device's time of one launch.
fn run(
    device: &DeviceContext,
    stream: &CudaStream,
    graph: &CudaGraph,
) -> Result<Nanos, Box<dyn Error>> {
    let (begun, ended) = (device.create_event()?, device.create_event()?);
    stream.record(&begun)?;
    stream.enqueue_graph(graph)?;
    stream.record(&ended)?;
    wait_for(device, &ended)?;
    Ok(ended.elapsed_since(&begun)?)
}

pub(crate) fn captures(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = TestKernels::load(&device)?;
    let stream = device.create_stream()?;
    let short = Nanos::from_micros(500);
    let graph = chain(&stream, &kernels, 3, short)?;
    require(graph.nodes() == 3, || format!("{} nodes", graph.nodes()))?;
    let first = run(&device, &stream, &graph)?;
    require(first >= short * 3, || format!("three kernels of {short} took {first}"))?;
    let longer = chain(&stream, &kernels, 3, short * 4)?;
    let update = graph.update(longer)?;
    require(update == GraphUpdate::InPlace, || format!("same shape: {update:?}"))?;
    let second = run(&device, &stream, &graph)?;
    require(second >= short * 12, || format!("after the update: {second}"))?;
    let update = graph.update(chain(&stream, &kernels, 5, short)?)?;
    require(update == GraphUpdate::Reinstantiated, || format!("new shape: {update:?}"))?;
    require(graph.nodes() == 5, || format!("{} nodes", graph.nodes()))?;
    let third = run(&device, &stream, &graph)?;
    require(third >= short * 5 && third < second, || format!("five kernels: {third}"))?;
    let other = device.create_stream()?;
    let elsewhere = run(&device, &other, &graph)?;
    Ok(format!("3 x 0.5 ms: {first}, 3 x 2 ms: {second}, 5 x 0.5 ms: {third}, {elsewhere}"))
}

pub(crate) fn failed_capture(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = TestKernels::load(&device)?;
    let stream = device.create_stream()?;
    let event = device.create_event()?;
    let refused = stream.capture(|stream| stream.record(&event));
    let is_refused = matches!(refused, Err(DeviceError::Capturing { .. }));
    require(is_refused, || format!("a recording in a capture: {refused:?}"))?;
    let within = stream.capture(|stream| {
        kernels.busy(stream, 1, Nanos::from_millis(1))?;
        Err::<(), Box<dyn Error>>("given up".into())
    });
    require(within.is_err_and(|error| error.to_string() == "given up"), || "not given up".into())?;
    // What was captured never ran, and the stream goes on.
    stream.record(&event)?;
    wait_for(&device, &event)?;
    let graph = chain(&stream, &kernels, 1, Nanos::from_micros(10))?;
    run(&device, &stream, &graph)?;
    Ok(String::new())
}

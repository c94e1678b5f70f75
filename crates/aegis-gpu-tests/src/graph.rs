//! Captured graphs: capture, launch, update, and captures that fail.

use std::error::Error;

use aegis_cuda::{
    CudaGraph, CudaStream, DeviceContext, DeviceError, GraphUpdate, PartitionShare, ProbeJob,
    ProbeMarks, StageEvents, StageLengths, StageProbe, TestKernels,
};
use aegis_trace::{Bytes, Nanos};

use crate::bench::{Bench, Outcome, Spread, require, time, wait_for};

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

/// The bytes that a probe copies.
const PROBED: usize = 600_000;

fn probe_job(device: &DeviceContext, fill: u8) -> Result<ProbeJob, DeviceError> {
    let mut input = device.host_buffer(PROBED)?;
    input.fill(fill);
    Ok(ProbeJob { input, output: device.host_buffer(PROBED)? })
}

pub(crate) fn stage(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let whole = stage_on(&device)?;
    let views = device.split(&[PartitionShare { sms: 16 }, PartitionShare { sms: 16 }])?;
    let split = stage_on(&views[1])?;
    Ok(format!("whole device:\n{whole}\npartition:\n{split}"))
}

/// One graph for a stage: its events, its copies for several jobs, and what a stage costs that way.
fn stage_on(device: &DeviceContext) -> Outcome {
    let kernels = TestKernels::load(device)?;
    let stream = device.create_stream()?;
    let arena = device.reserve_arena(Bytes(PROBED as u64))?;
    let middle = arena.buffer(0..PROBED as u64)?;
    let length = Nanos::from_micros(500);
    let (marks, captured) = (ProbeMarks::Copies, probe_job(device, 1)?);
    let probe = StageProbe::capture(&kernels, &stream, captured, middle, length, marks)?;
    let (first, second) = (StageEvents::on(device)?, StageEvents::on(device)?);
    let mut took = Vec::new();
    for (job, of) in [(7, &first), (9, &second), (11, &first)] {
        let mut buffers = probe_job(device, job)?;
        probe.run(&stream, of, &mut buffers, None)?;
        wait_for(device, of.ended())?;
        let came_back = buffers.output.iter().all(|byte| *byte == job);
        require(came_back, || format!("job {job} got the outputs of another"))?;
        took.push(told_apart(of.lengths()?, length)?);
    }
    let mut buffers = probe_job(device, 13)?;
    probe.run(&stream, &first, &mut buffers, Some(length))?;
    wait_for(device, first.ended())?;
    let StageLengths { whole: both, upload, download } = first.lengths()?;
    require(both >= length * 2, || format!("with a kernel before: {both}"))?;
    let untold = upload == Nanos::ZERO && download == Nanos::ZERO;
    require(untold, || format!("copies of an earlier stage: {upload}, {download}"))?;
    let untouched = probe.captured().output.iter().all(|byte| *byte == 0);
    require(untouched, || "what it was captured with was written".into())?;
    let beside = stage_overhead(device, &kernels, &stream, ProbeMarks::Copies)?;
    let unmarked = stage_overhead(device, &kernels, &stream, ProbeMarks::Nothing)?;
    let took = took.join(", ");
    Ok(format!("{took}; with a kernel before {both}\nmarked: {beside}\nunmarked: {unmarked}"))
}

/// Requires that the copies of a probe of `length` were told from its kernel, both ways.
fn told_apart(of: StageLengths, length: Nanos) -> Outcome {
    let StageLengths { whole, upload, download } = of;
    let copies = upload.saturating_add(download);
    let work = whole.saturating_sub(copies);
    // At a hundred gigabytes a second, more than any bus has, a copy takes this long.
    let least = Nanos(PROBED as u64 / 100);
    let told = upload >= least && download >= least && work >= length && work < length * 2;
    require(told, || format!("{upload} in, {download} out of {whole}, a kernel of {length}"))?;
    Ok(format!("{whole} (in {upload}, out {download})"))
}

/// What a stage takes beside its kernel: on the device and for who launches it.
fn stage_overhead(
    device: &DeviceContext,
    kernels: &TestKernels,
    stream: &CudaStream,
    marks: ProbeMarks,
) -> Outcome {
    const ROUNDS: usize = 3000;
    let room = device.reserve_arena(Bytes(64 << 10))?;
    let buffers = || -> Result<ProbeJob, DeviceError> {
        Ok(ProbeJob { input: device.host_buffer(60_000)?, output: device.host_buffer(4_000)? })
    };
    let length = Nanos::from_micros(100);
    let middle = room.buffer(0..64 << 10)?;
    let probe = StageProbe::capture(kernels, stream, buffers()?, middle, length, marks)?;
    let events = StageEvents::on(device)?;
    let mut job = buffers()?;
    let (mut on_device, mut beside) = (Vec::new(), Vec::new());
    let mut asking = Vec::new();
    for _ in 0..ROUNDS {
        let wall = time(|| {
            probe.run(stream, &events, &mut job, None)?;
            wait_for(device, events.ended())
        })?;
        let mut told = None;
        asking.push(time(|| {
            told = Some(events.lengths()?);
            Ok(())
        })?);
        let whole = told.ok_or("the lengths were asked for")?.whole;
        on_device.push(whole);
        beside.push(wall.saturating_sub(whole));
    }
    let (on_device, beside, asking) =
        (Spread::of(on_device), Spread::of(beside), Spread::of(asking));
    Ok(format!(
        "{ROUNDS} stages of 100 us and copies: {on_device}\n  beside it: {beside}\n  asking for \
         the lengths: {asking}"
    ))
}

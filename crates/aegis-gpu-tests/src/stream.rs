//! Order, time, limits and priorities of streams.

use std::error::Error;
use std::time::Instant;

use aegis_cuda::{
    ComputeUnits, DeviceContext, DeviceError, EventStatus, StreamPriority, TestKernels,
};
use aegis_trace::{Nanos, Timestamp};

use crate::bench::{Bench, Outcome, require, time, wait_for};

pub(crate) fn keeps_order(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = TestKernels::load(&device)?;
    let stream = device.create_stream()?;
    let (first, second) = (device.create_event()?, device.create_event()?);
    kernels.busy(&stream, 1, Nanos::from_millis(20))?;
    stream.record(&first)?;
    kernels.busy(&stream, 1, Nanos::from_millis(20))?;
    stream.record(&second)?;
    let pending = first.query()? == EventStatus::Pending && second.query()? == EventStatus::Pending;
    require(pending, || "40 ms of work were done at once".into())?;
    wait_for(&device, &first)?;
    require(second.query()? == EventStatus::Pending, || "the second came with the first".into())?;
    let end = second.synchronize()?;
    let begin = complete_at(&first)?;
    require(begin < end, || format!("{begin} is not before {end}"))?;
    Ok(format!("completions {} apart", end - begin))
}

fn complete_at(event: &aegis_cuda::CudaEvent) -> Result<Timestamp, Box<dyn Error>> {
    match event.query()? {
        EventStatus::Complete { at } => Ok(at),
        EventStatus::Pending => Err("the event is pending".into()),
    }
}

pub(crate) fn elapsed(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = TestKernels::load(&device)?;
    let stream = device.create_stream()?;
    let (begun, ended) = (device.create_event()?, device.create_event()?);
    kernels.busy(&stream, 1, Nanos::from_micros(10))?; // The first launch loads the kernel.
    stream.synchronize()?;
    let asked = Nanos::from_millis(3);
    stream.record(&begun)?;
    kernels.busy(&stream, 1, asked)?;
    stream.record(&ended)?;
    wait_for(&device, &ended)?;
    let took = ended.elapsed_since(&begun)?;
    let most = asked + Nanos::from_millis(1);
    require(asked <= took && took <= most, || format!("{took} for a kernel of {asked}"))?;
    let backwards = begun.elapsed_since(&ended);
    let refused = matches!(backwards, Err(DeviceError::EventsOutOfOrder { .. }));
    require(refused, || format!("backwards: {backwards:?}"))?;
    let untimed = device.create_untimed_event()?;
    stream.record(&untimed)?;
    wait_for(&device, &untimed)?;
    let timeless = untimed.elapsed_since(&begun);
    let refused = matches!(timeless, Err(DeviceError::EventUntimed));
    require(refused, || format!("untimed: {timeless:?}"))?;
    Ok(format!("{took} for a kernel of {asked}"))
}

pub(crate) fn full(bench: &Bench) -> Outcome {
    let device = bench.open_with(|config| config.stream_depth = 4)?;
    let kernels = TestKernels::load(&device)?;
    let stream = device.create_stream()?;
    let event = device.create_event()?;
    let long = Nanos::from_millis(20);
    for _ in 0..4 {
        kernels.busy(&stream, 1, long)?;
    }
    let refused = stream.record(&event);
    let is_full = matches!(refused, Err(DeviceError::StreamFull { depth: 4, .. }));
    require(is_full, || format!("{refused:?}"))?;
    stream.synchronize()?;
    // The work ended unseen, behind no event: the stream itself says that there is room.
    for _ in 0..2 {
        kernels.busy(&stream, 1, Nanos::from_micros(10))?;
        stream.record(&event)?;
    }
    wait_for(&device, &event)?;
    Ok(String::new())
}

pub(crate) fn synchronised(bench: &Bench) -> Outcome {
    let device = bench.open_with(|config| config.stream_depth = 4)?;
    let kernels = TestKernels::load(&device)?;
    let stream = device.create_stream()?;
    let long = Nanos::from_millis(5);
    for _ in 0..5 {
        for _ in 0..3 {
            kernels.busy(&stream, 1, long)?;
        }
        stream.synchronize()?;
    }
    // Four fit at once, although nobody recorded an event behind the fifteen before.
    for _ in 0..4 {
        kernels.busy(&stream, 1, long)?;
    }
    let refused = kernels.busy(&stream, 1, long);
    let is_full = matches!(refused, Err(DeviceError::StreamFull { depth: 4, .. }));
    require(is_full, || format!("a fifth: {refused:?}"))?;
    // Nodes of a graph are no entries, so a full stream can be captured.
    let graph = stream.capture(|stream| (0..6).try_for_each(|_| kernels.busy(stream, 1, long)))?;
    require(graph.nodes() == 6, || format!("{} nodes", graph.nodes()))?;
    let took = time(|| Ok(stream.synchronize()?))?;
    stream.enqueue_graph(&graph)?;
    stream.synchronize()?;
    Ok(format!("captured behind four kernels, the last {took} before its end"))
}

pub(crate) fn dropped_early(bench: &Bench) -> Outcome {
    let device = bench.open_with(|config| config.max_streams = 1)?;
    let kernels = TestKernels::load(&device)?;
    let stream = device.create_stream()?;
    let event = device.create_event()?;
    kernels.busy(&stream, 1, Nanos::from_millis(100))?;
    stream.record(&event)?;
    let begun = Instant::now();
    drop(stream);
    let took = Nanos::from(begun.elapsed());
    require(took < Nanos::from_millis(50), || format!("the drop took {took}"))?;
    let refused = device.create_stream();
    let is_held = matches!(refused, Err(DeviceError::StreamsExhausted { .. }));
    require(is_held, || "the slot was free before its last event ended".into())?;
    wait_for(&device, &event)?;
    drop(device.create_stream()?);
    Ok(format!("the drop took {took}"))
}

/// How many blocks make `waves` rounds on every SM at its fullest.
fn blocks(device: &DeviceContext, waves: u32) -> Result<u32, Box<dyn Error>> {
    match device.capabilities().compute_units() {
        Some(ComputeUnits::Multiprocessors { count, .. }) => Ok(count * 32 * waves),
        other => Err(format!("compute units: {other:?}").into()),
    }
}

pub(crate) fn priority(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let levels = device.capabilities().gpu().ok_or("no GPU")?.priority_levels;
    let (low, high) =
        (device.create_stream()?, device.create_stream_with(StreamPriority::HIGHEST)?);
    require(low.priority() == StreamPriority::LOWEST, || format!("{:?}", low.priority()))?;
    require(high.priority().0 + 1 == levels, || format!("{:?} of {levels}", high.priority()))?;
    let kernels = TestKernels::load(&device)?;
    let (of_low, of_high) = (device.create_event()?, device.create_event()?);
    kernels.busy(&low, blocks(&device, 20)?, Nanos::from_millis(2))?;
    low.record(&of_low)?;
    kernels.busy(&high, 1, Nanos::from_micros(10))?;
    high.record(&of_high)?;
    wait_for(&device, &of_high)?;
    require(levels == 1 || of_low.query()? == EventStatus::Pending, || {
        "the urgent kernel waited for twenty waves of the other".into()
    })?;
    let (end, urgent) = (of_low.synchronize()?, complete_at(&of_high)?);
    Ok(format!("{levels} levels; the urgent kernel ended {} before the other", end - urgent))
}

pub(crate) fn recorded_again(bench: &Bench) -> Outcome {
    let device = bench.open_with(|config| config.stream_depth = 3)?;
    let kernels = TestKernels::load(&device)?;
    let (slow, quick) = (device.create_stream()?, device.create_stream()?);
    let event = device.create_event()?;
    kernels.busy(&slow, 1, Nanos::from_millis(50))?;
    slow.record(&event)?;
    quick.record(&event)?;
    let at = event.synchronize()?;
    let last = device.create_event()?;
    slow.record(&last)?;
    require(last.query()? == EventStatus::Pending, || "the other stream's work is done".into())?;
    let end = last.synchronize()?;
    require(at < end, || "the event told of the older recording".into())?;
    for _ in 0..10 {
        slow.record(&event)?; // Stale marks must not fill the stream.
        quick.record(&event)?;
        event.synchronize()?;
    }
    Ok(String::new())
}

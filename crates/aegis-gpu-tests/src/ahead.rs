//! Two stages on one stream: how long the device rests between them.

use std::error::Error;

use aegis_context::{ContextError, StreamPool};
use aegis_cuda::{CudaGraph, CudaStream, DeviceContext, StageEvents, TestKernels};
use aegis_trace::Nanos;

use crate::bench::{Bench, Outcome, Spread, require, wait_for};

const ROUNDS: usize = 3_000;
const LENGTH: Nanos = Nanos::from_micros(100);

/// The stage behind another is lent the same stream, ends after it, and is timed by its own events.
pub(crate) fn lent(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = TestKernels::load(&device)?;
    let pool = StreamPool::new(&device, 1)?;
    let kernels = &kernels;
    let busy = |length| move |stream: &CudaStream| Ok(kernels.busy(stream, 1, length)?);
    for _ in 0..100 {
        let first = pool.lease()?.launch::<ContextError>(busy(LENGTH))?;
        let second = first.launch_behind::<ContextError>(busy(LENGTH * 2))?;
        require(pool.lease().is_err(), || "the stream is lent twice".into())?;
        let none = first.launch_behind::<ContextError>(|_| Ok(()));
        require(none.is_err(), || "a third stage was taken".into())?;
        let (before, behind) = (first.wait()?, second.wait()?);
        let took = behind.finished.saturating_since(behind.started);
        let in_time = took >= LENGTH * 2 && took < LENGTH * 20;
        require(in_time, || format!("{took} for the second stage of {}", LENGTH * 2))?;
        let in_order = before.finished <= behind.finished;
        require(in_order, || format!("{before:?} before {behind:?}"))?;
        drop((first, second));
        require(pool.lease().is_ok(), || "the stream was not given back".into())?;
    }
    Ok(String::new())
}

/// The gap between two captured stages: the second launched when the end of the first is seen, and
/// while the first runs.
pub(crate) fn gap(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = TestKernels::load(&device)?;
    let stream = device.create_stream()?;
    let stage = || stream.capture_stage(|stream| kernels.busy(stream, 1, LENGTH));
    let stages = [stage()?, stage()?];
    let (seen, ahead) =
        (gaps(&device, &stream, &stages, false)?, gaps(&device, &stream, &stages, true)?);
    Ok(format!("after its end is seen: {seen}\n  put there before: {ahead}"))
}

fn gaps(
    device: &DeviceContext,
    stream: &CudaStream,
    stages: &[CudaGraph; 2],
    look_ahead: bool,
) -> Result<Spread, Box<dyn Error>> {
    let (first, second) = (StageEvents::on(device)?, StageEvents::on(device)?);
    let launch = |graph: &CudaGraph, events: &StageEvents| {
        stream.between(events, |stream| stream.enqueue_graph(graph))
    };
    let mut gaps = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        launch(&stages[0], &first)?;
        if !look_ahead {
            wait_for(device, first.ended())?;
        }
        launch(&stages[1], &second)?;
        wait_for(device, second.ended())?;
        gaps.push(second.begun().elapsed_since(first.ended())?);
    }
    Ok(Spread::of(gaps))
}

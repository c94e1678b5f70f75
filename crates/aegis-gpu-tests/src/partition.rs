//! Partitions of the multiprocessors: disjoint, concurrent, each with its own signal.

use std::collections::BTreeSet;
use std::error::Error;

use aegis_cuda::{
    ComputeUnits, CudaStream, DeviceContext, DeviceError, EventStatus, PartitionShare, SMS_MAX,
    TestKernels,
};
use aegis_trace::{Bytes, Nanos};

use crate::bench::{Bench, Outcome, require, time, wait_for};

fn sms(device: &DeviceContext) -> Result<u32, Box<dyn Error>> {
    match device.capabilities().compute_units() {
        Some(ComputeUnits::Multiprocessors { count, .. }) => Ok(count),
        other => Err(format!("compute units: {other:?}").into()),
    }
}

/// The device in two halves, as near as it can.
fn halves(device: &DeviceContext) -> Result<[DeviceContext; 2], Box<dyn Error>> {
    // The driver rounds the first half up, so the second asks for less.
    let half = sms(device)? / 2;
    let shares =
        [PartitionShare { sms: half }, PartitionShare { sms: half.saturating_sub(8).max(1) }];
    let views = device.split(&shares)?;
    views.try_into().map_err(|views: Vec<_>| format!("{} views of two", views.len()).into())
}

/// The SMs on which blocks of a stream of `view` ran.
fn used(view: &DeviceContext, kernels: &TestKernels) -> Result<BTreeSet<usize>, Box<dyn Error>> {
    let stream = view.create_stream()?;
    let size = (SMS_MAX * size_of::<u32>()) as u64;
    let arena = view.reserve_arena(Bytes(size))?;
    let mut words = arena.buffer(0..size)?;
    kernels.mark_sms(&stream, sms(view)? * 64, Nanos::from_micros(200), &mut words)?;
    stream.synchronize()?;
    let mut bytes = vec![0; SMS_MAX * size_of::<u32>()];
    words.read(0, &mut bytes)?;
    let marked = bytes.chunks(4).enumerate().filter(|(_, word)| word.iter().any(|it| *it != 0));
    Ok(marked.map(|(sm, _)| sm).collect())
}

pub(crate) fn disjoint(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = TestKernels::load(&device)?;
    let all = used(&device, &kernels)?;
    require(all.len() == sms(&device)? as usize, || format!("the whole ran on {}", all.len()))?;
    let [left, right] = halves(&device)?;
    let (of_left, of_right) = (used(&left, &kernels)?, used(&right, &kernels)?);
    for (view, on) in [(&left, &of_left), (&right, &of_right)] {
        let granted = view.capabilities().partition();
        require(granted == u32::try_from(on.len()).ok(), || {
            format!("granted {granted:?} and ran on {}", on.len())
        })?;
    }
    require(of_left.is_disjoint(&of_right), || "the partitions share an SM".into())?;
    let greedy = device.split(&[PartitionShare { sms: 100_000 }]);
    let refused = matches!(greedy, Err(DeviceError::PartitionTooLarge { index: 0, .. }));
    require(refused, || "100 000 SMs were granted".into())?;
    require(left.split(&[PartitionShare { sms: 1 }]).is_err(), || "split twice".into())?;
    Ok(format!("{} SMs as {} and {}", all.len(), of_left.len(), of_right.len()))
}

pub(crate) fn overlap(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = TestKernels::load(&device)?;
    let [left, right] = halves(&device)?;
    let streams = [left.create_stream()?, right.create_stream()?];
    let ends = [left.create_event()?, right.create_event()?];
    let length = Nanos::from_millis(20);
    // Enough blocks to fill every place of the whole device: only partitions keep them apart.
    let blocks = sms(&device)? * 32;
    let run = |parts: &[usize]| -> Result<Nanos, Box<dyn Error>> {
        time(|| {
            for part in parts {
                kernels.busy(&streams[*part], blocks, length)?;
                streams[*part].record(&ends[*part])?;
            }
            parts.iter().try_for_each(|part| wait_for([&left, &right][*part], &ends[*part]))
        })
    };
    run(&[0, 1])?; // Loads the kernel in both.
    let (alone, both) = (run(&[0])?.max(run(&[1])?), run(&[0, 1])?);
    require(both * 2 < alone * 3, || format!("{alone} alone, {both} together"))?;
    Ok(format!("{alone} alone, {both} together"))
}

pub(crate) fn own_signals(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = TestKernels::load(&device)?;
    let [left, right] = halves(&device)?;
    let (slow, quick) = (left.create_stream()?, right.create_stream()?);
    require(slow.id() != quick.id(), || "two streams of one device share an id".into())?;
    let (of_slow, of_quick) = (left.create_event()?, right.create_event()?);
    kernels.busy(&slow, 1, Nanos::from_millis(50))?;
    slow.record(&of_slow)?;
    kernels.busy(&quick, 1, Nanos::from_millis(1))?;
    quick.record(&of_quick)?;
    wait_for(&right, &of_quick)?;
    require(of_slow.query()? == EventStatus::Pending, || "50 ms passed in 1".into())?;
    let foreign = slow.record(&of_quick);
    let refused = matches!(foreign, Err(DeviceError::ForeignEvent));
    require(refused, || format!("an event of the other view: {foreign:?}"))?;
    wait_for(&left, &of_slow)?;
    let captured = |stream: &CudaStream| {
        stream.capture(|stream| kernels.busy(stream, 1, Nanos::from_micros(10)))
    };
    let moved = captured(&slow)?.update(captured(&quick)?);
    let refused = matches!(moved, Err(DeviceError::ForeignGraph));
    require(refused, || format!("a graph of the other view: {moved:?}"))?;
    // The charges of one view count for the other.
    let rest = left.memory_limit() - left.reserved_memory();
    let held = left.charge_foreign(rest)?;
    require(right.reserve_arena(Bytes(1)).is_err(), || "two ledgers".into())?;
    drop(held);
    Ok(String::new())
}

//! Inputs that go ahead of their stage: what is gained, whose they are, and whose buffers.

use std::error::Error;
use std::sync::Arc;

use aegis_context::slot::JobOutcome;
use aegis_context::{ContextError, JobSlot, ModelDescription, StreamPool};
use aegis_cuda::{
    CopyLoad, CudaStream, DeviceContext, DeviceError, PartitionShare, ProbeJob, ProbeMarks,
    StageEvents, StageProbe, TestKernels, UploadEvents,
};
use aegis_trace::{Bytes, Nanos, SubmitRefusal};

use crate::bench::{Bench, Outcome, Spread, require, time, wait_for};

const ROUNDS: usize = 500;
/// What each job copies in and out.
pub(crate) const COPIED: usize = 4_000_000;
const LENGTH: Nanos = Nanos::from_millis(1);
/// What the first of two stages waits for: its marks are far off when the upload is told to wait for one.
const LEAD: Nanos = Nanos::from_micros(500);

/// The whole of both stages, the upload ahead, and the second stage from its own beginning.
struct Told {
    both: Vec<Nanos>,
    upload: Vec<Nanos>,
    gap: Vec<Nanos>,
}

/// An upload beside the kernel of the stage before takes no time of the device; on the whole of it, and
/// in a partition.
pub(crate) fn overlap(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let whole = overlap_on(&device)?;
    let views = device.split(&[PartitionShare { sms: 16 }, PartitionShare { sms: 16 }])?;
    let split = overlap_on(&views[1])?;
    Ok(format!("whole device:\n{whole}\npartition:\n{split}"))
}

fn overlap_on(device: &DeviceContext) -> Outcome {
    device.check_uploads_ahead()?;
    let kernels = TestKernels::load(device)?;
    let [stream, uploads] = [device.create_stream()?, device.create_stream()?];
    let arena = device.reserve_arena(Bytes(2 * COPIED as u64))?;
    let probe = |place: u64| -> Result<StageProbe<'_>, Box<dyn Error>> {
        let first = place * COPIED as u64;
        let middle = arena.buffer(first..first + COPIED as u64)?;
        let marks = ProbeMarks::Copies;
        Ok(StageProbe::capture(&kernels, &stream, job(device, 0)?, middle, LENGTH, marks)?)
    };
    let probes = [probe(0)?, probe(1)?];
    let serial = pairs(device, &probes, &stream, None)?;
    let ahead = pairs(device, &probes, &stream, Some(&uploads))?;
    let again = pairs(device, &probes, &stream, None)?; // The copies are made again.
    let [serial, ahead, again, upload, gap_before, gap] =
        [serial.both, ahead.both, again.both, ahead.upload, serial.gap, ahead.gap].map(Spread::of);
    let saved = serial.median.min(again.median).saturating_sub(ahead.median);
    let measured = format!(
        "two stages of {COPIED} bytes in, {LENGTH} of kernel, {COPIED} bytes out, {ROUNDS} times:\n  \
         uploads within: {serial}\n  the second ahead: {ahead}\n  within again: {again}\n  saved in the \
         median: {saved}; the upload beside the kernel: {upload}\n  between the stages: {gap_before} \
         within, {gap} ahead"
    );
    let hidden = saved * 10 >= upload.median * 6;
    require(hidden, || format!("less than 60 % of the upload was hidden\n{measured}"))?;
    Ok(measured)
}

pub(crate) fn job(device: &DeviceContext, fill: u8) -> Result<ProbeJob, DeviceError> {
    let mut input = device.host_buffer(COPIED)?;
    input.fill(fill);
    Ok(ProbeJob { input, output: device.host_buffer(COPIED)? })
}

/// Runs one stage behind the other again and again, with other inputs each time.
fn pairs(
    device: &DeviceContext,
    [first, second]: &[StageProbe<'_>; 2],
    stream: &CudaStream,
    uploads: Option<&CudaStream>,
) -> Result<Told, Box<dyn Error>> {
    let events = [StageEvents::on(device)?, StageEvents::on(device)?];
    let ahead = UploadEvents::on(device)?;
    let mut jobs = [job(device, 0)?, job(device, 0)?];
    let mut told = Told { both: vec![], upload: vec![], gap: vec![] };
    for round in 0..ROUNDS {
        let fills = [0, 1].map(|place| u8::try_from((2 * round + place) % 251 + 1).unwrap_or(1));
        for (job, fill) in jobs.iter_mut().zip(fills) {
            job.input.fill(fill);
        }
        let [own, next] = &mut jobs;
        let to = uploads.map(|stream| (stream, &ahead));
        first.run_before(stream, LEAD, (&events[0], own), (second, &events[1], next), to)?;
        for (job, fill) in jobs.iter().zip(fills) {
            let found = job.output.iter().position(|byte| *byte != fill);
            require(found.is_none(), || {
                let at = found.unwrap_or(0);
                format!("round {round}: byte {at} is {} and not {fill}", job.output[at])
            })?;
        }
        told.both.push(events[1].ended().elapsed_since(events[0].begun())?);
        told.gap.push(events[1].begun().elapsed_since(events[0].ended())?);
        if uploads.is_some() {
            told.upload.push(ahead.length()?);
            waited(round, &events[0], &ahead)?;
        }
    }
    if uploads.is_none() {
        told.upload.push(Nanos::ZERO);
    }
    Ok(told)
}

/// An upload ahead began behind that of the stage before: the driver had it wait for a mark that the graph
/// of that stage was still to record. Every bound with inputs ahead rests on it.
fn waited(round: usize, before: &StageEvents, ahead: &UploadEvents) -> Result<(), Box<dyn Error>> {
    match ahead.begun().elapsed_since(before.uploaded()) {
        Ok(_) => Ok(()),
        Err(DeviceError::EventsOutOfOrder { .. }) => Err(format!(
            "round {round}: the upload ahead did not wait for that of the stage before"
        )
        .into()),
        Err(other) => Err(other.into()),
    }
}

/// What copies without end do to a kernel beside them, as a profile has them.
pub(crate) fn load(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = TestKernels::load(&device)?;
    let arena = device.reserve_arena(Bytes(2 * COPIED as u64))?;
    let load = CopyLoad::new(&device, &arena, Bytes(COPIED as u64))?;
    let (stream, events) = (device.create_stream()?, StageEvents::on(&device)?);
    let run = |beside: bool| -> Result<(Spread, Spread), Box<dyn Error>> {
        let (mut stages, mut drains) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            stream.between(&events, |stream| kernels.busy(stream, 1, LENGTH))?;
            if beside {
                load.fill(&events, LENGTH)?;
            }
            wait_for(&device, events.ended())?;
            stages.push(events.lengths()?.whole);
            drains.push(time(|| Ok(load.drain()?))?);
        }
        Ok((Spread::of(stages), Spread::of(drains)))
    };
    // As a load its stages follow each other at once, however long the copies take.
    let on_and_on = |beside: bool| {
        let whole = time(|| {
            for _ in 0..ROUNDS {
                stream.between(&events, |stream| kernels.busy(stream, 1, LENGTH))?;
                if beside {
                    load.top_up(&events, LENGTH)?;
                }
                wait_for(&device, events.ended())?;
            }
            Ok(())
        });
        load.drain()?;
        whole
    };
    let (without, with) = (on_and_on(false)?, on_and_on(true)?);
    let rested = || format!("{ROUNDS} stages one after the other: {without}, beside copies {with}");
    require(with.0 * 10 <= without.0 * 12, rested)?;
    let ((alone, _), (beside, left)) = (run(false)?, run(true)?);
    let covered = left.median < LENGTH;
    require(covered, || format!("copies for {LENGTH} are left over for {left}"))?;
    Ok(format!(
        "{load:?}; a kernel of {LENGTH} alone: {alone}\n  beside: {beside}\n  left: {left}\n  {}",
        rested()
    ))
}

fn queued() -> Result<Arc<JobSlot>, Box<dyn Error>> {
    let description = ModelDescription { inputs: vec![], outputs: vec![], stages: 1 };
    let slot = Arc::new(JobSlot::new(&description));
    require(slot.claim(), || "a new slot is taken".into())?;
    slot.queue();
    Ok(slot)
}

fn tell(slot: &JobSlot) {
    slot.finish(JobOutcome::Refused { why: SubmitRefusal::NotRunning });
    slot.release();
}

/// A slot is its caller's again only once the device is done with it: behind a stage that hangs for a
/// while, and where the stage is never launched.
pub(crate) fn slots(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = &TestKernels::load(&device)?;
    let pool = StreamPool::uploading_ahead(&device, 1)?;
    let busy = |length| {
        move |stream: &CudaStream| -> Result<(), ContextError> {
            Ok(kernels.busy(stream, 1, length)?)
        }
    };
    let (long, short) = (Nanos::from_millis(200), Nanos::from_millis(20));
    let slot = queued()?;
    let hangs = pool.lease()?.launch(busy(long))?;
    let uploaded = hangs.upload_behind(&slot, busy(short))?;
    let behind = uploaded.launch(busy(short))?;
    tell(&slot);
    require(hangs.poll()?.is_none(), || "the long kernel was over at once".into())?;
    require(!slot.claim(), || "the slot was free beside its upload".into())?;
    hangs.wait()?;
    require(!slot.claim(), || "the slot was free beside its stage".into())?;
    let told = behind.wait()?;
    let ahead = told.ahead >= short && told.ahead < long && told.upload == Nanos::ZERO;
    require(ahead, || format!("an upload of {short} was told as {told:?}"))?;
    drop((hangs, behind));
    require(slot.claim(), || "the slot was not given back".into())?;
    slot.queue();
    let running = pool.lease()?.launch(busy(short))?;
    drop(running.upload_behind(&slot, busy(long))?);
    tell(&slot);
    running.wait()?;
    let kept = pool.is_uploading() && !running.can_upload_ahead() && !slot.claim();
    require(kept, || "an upload whose stage was not launched was forgotten".into())?;
    while pool.is_uploading() {
        device.wait(None, Nanos::ZERO);
    }
    require(slot.claim(), || "the slot of an upload that is over was kept".into())?;
    Ok(format!("an upload ahead of {short} took {}", told.ahead))
}

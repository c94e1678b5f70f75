//! Uploads that wait for a mark whose event is recorded again while their wait is still queued.
//!
//! A pair of events is aimed at by the next stage as soon as the one before was seen to end. If a driver
//! then took the wait of an upload for one for the newer recording, stages and uploads would wait in a
//! circle: so the rounds are in a process of their own, which is ended where they do not end by themselves.

use std::error::Error;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use aegis_cuda::{
    AgainEvents, Between, CudaStream, DeviceContext, DeviceError, EventStatus, ProbeJob,
    ProbeMarks, StageEvents, StageProbe, TestKernels, UploadEvents,
};
use aegis_trace::{Bytes, Nanos};

use crate::bench::{Bench, Outcome, require, tell, time};
use crate::uploads::{COPIED, job};

/// The argument that makes this program the child.
pub(crate) const CHILD: &str = "--child-recorded-again";
/// How long the child may take; it needs some seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked after.
const LOOK: Duration = Duration::from_millis(20);

const ROUNDS: usize = 100;
/// The kernel of each stage, and of what is in front of the first.
const LENGTH: Nanos = Nanos::from_micros(200);
/// The kernel that the upload waits behind. Copies would have the engine that the first stage needs.
const PLUG: Nanos = Nanos::from_millis(5);
/// What the last stage waits for where no upload holds it back: longer than that.
const LATE: Nanos = Nanos::from_millis(30);

/// The device is asked at the start, in milliseconds, and gets its memory back.
pub(crate) fn probed(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let [stages, uploads] = [device.create_stream()?, device.create_stream()?];
    let (before, taken_before) = (device.memory_use(), taken(&device));
    let (mut lengths, mut void) = (Vec::new(), [0; 3]);
    for _ in 0..5 {
        lengths.push(time(|| {
            let told = device.probe_uploads_ahead(&stages, &uploads)?;
            let counts = [told.before_begin, told.after_begin, told.recorded_again];
            void.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            Ok(())
        })?);
    }
    let after = device.memory_use();
    require(before == after, || format!("{before:?} became {after:?}"))?;
    let taken = taken(&device).saturating_sub(taken_before);
    let left = device.memory_limit().saturating_sub(device.reserved_memory());
    let all = device.reserve_arena(left)?;
    let refused = device.probe_uploads_ahead(&stages, &uploads);
    let is_refused = matches!(refused, Err(DeviceError::OutOfMemory { .. }));
    require(is_refused, || format!("without room within the limit: {refused:?}"))?;
    drop(all);
    let told: Vec<String> = lengths.iter().map(ToString::to_string).collect();
    let told = told.join(", ");
    let [before, after, again] = void;
    Ok(format!(
        "asked five times, in {told}; void rounds: {before} before the graph began, {after} within it, \
         {again} recorded again; the driver kept {taken} of it"
    ))
}

/// What the process has by the driver's count; zero where that is not told.
fn taken(device: &DeviceContext) -> Bytes {
    device.driver_memory().and_then(|memory| memory.process).unwrap_or(Bytes::ZERO)
}

pub(crate) fn wait_stays(_bench: &Bench) -> Outcome {
    // A kernel that is loaded when it is first launched can wait for those that run.
    let variable = ("CUDA_MODULE_LOADING", "EAGER");
    in_a_child(CHILD, variable, "stages and uploads wait for each other")
}

/// What this program says as the child that `argument` names, with a variable in its environment. It is
/// ended where it does not end by itself, because of `hang`.
pub(crate) fn in_a_child(argument: &str, variable: (&str, &str), hang: &str) -> Outcome {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(argument).env(variable.0, variable.1);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let ended = within(&mut child, LIMIT)?;
    if ended.is_none() {
        child.kill()?;
    }
    // It says a few lines, which a pipe holds.
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    let hung = || format!("{hang}: no end in {LIMIT:?}\n{text}");
    let status = ended.ok_or_else(hung)?;
    require(status.success(), || format!("{status}: {text}"))?;
    Ok(text)
}

/// How `child` ended, if it did in `limit`.
fn within(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>, Box<dyn Error>> {
    let last = Instant::now() + limit;
    while Instant::now() < last {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(LOOK);
    }
    Ok(None)
}

/// The child: runs the rounds and says what it was told.
pub(crate) fn child() -> ExitCode {
    tell(Bench.open().and_then(|device| {
        let late = rounds(&device, Between::Kernel(LATE))?;
        println!("{late}");
        rounds(&device, Between::Stage)
    }))
}

fn rounds(device: &DeviceContext, between: Between) -> Outcome {
    let kernels = TestKernels::load(device)?;
    let streams = [device.create_stream()?, device.create_stream()?];
    let arena = device.reserve_arena(Bytes(3 * COPIED as u64))?;
    let probe = |place: u64| -> Result<StageProbe<'_>, Box<dyn Error>> {
        let first = place * COPIED as u64;
        let middle = arena.buffer(first..first + COPIED as u64)?;
        let (job, marks) = (job(device, 0)?, ProbeMarks::Copies);
        Ok(StageProbe::capture(&kernels, &streams[0], job, middle, LENGTH, marks)?)
    };
    let probes = [probe(0)?, probe(1)?, probe(2)?];
    let mut jobs = [job(device, 0)?, job(device, 0)?, job(device, 0)?];
    let mut queued = 0;
    let whole = time(|| {
        for round in 0..ROUNDS {
            let fills = [0, 1, 2].map(|place| u8::try_from((3 * round + place) % 251 + 1));
            for (job, fill) in jobs.iter_mut().zip(fills) {
                job.input.fill(fill?);
            }
            let told = one(device, between, &probes, [&streams[0], &streams[1]], &mut jobs);
            queued += usize::from(told.map_err(|why| format!("round {round}: {why}"))?);
        }
        Ok(())
    })?;
    let told = || format!("{between:?}: the wait was still queued in {queued} of {ROUNDS} rounds");
    require(queued * 2 >= ROUNDS, told)?;
    Ok(format!("{}, {whole}", told()))
}

/// One round; whether the wait was still queued when its event was aimed at again.
fn one(
    device: &DeviceContext,
    between: Between,
    [first, next, last]: &[StageProbe<'_>; 3],
    streams: [&CudaStream; 2],
    jobs: &mut [ProbeJob; 3],
) -> Result<bool, Box<dyn Error>> {
    let [stage, behind] = [StageEvents::on(device)?, StageEvents::on(device)?];
    let (upload, plugged) = (UploadEvents::on(device)?, device.create_event()?);
    let events =
        AgainEvents { stage: &stage, between: &behind, upload: &upload, plugged: &plugged };
    let way = (LENGTH, PLUG, between);
    let was_queued = first.run_again(streams, way, [next, last], events, jobs)?;
    for (place, job) in jobs.iter().enumerate() {
        let is_run = place != 1 || between == Between::Stage;
        let expected = if is_run { job.input[0] } else { 0 };
        let wrong = job.output.iter().position(|byte| *byte != expected);
        require(wrong.is_none(), || format!("byte {wrong:?} of job {place} is not {expected}"))?;
    }
    // Where the wait was for the newer recording, this one would come behind that.
    match stage.uploaded().elapsed_since(upload.begun()) {
        Ok(_) => {}
        Err(DeviceError::EventsOutOfOrder { .. }) => {
            return Err("the upload waited for a stage that was launched after it".into());
        }
        Err(other) => return Err(other.into()),
    }
    let is_over = matches!(plugged.query()?, EventStatus::Complete { .. });
    require(is_over, || "what the upload waited behind is not over".into())?;
    let margin = stage.uploaded().elapsed_since(&plugged);
    Ok(was_queued && margin.is_ok_and(|margin| margin >= LENGTH))
}

//! Faults that end the context, each in a process of its own.

use std::process::{Command, ExitCode};

use std::sync::Arc;

use aegis_context::slot::JobOutcome;
use aegis_context::{ContextError, JobSlot, ModelDescription, StreamPool};
use aegis_cuda::{CudaStream, DeviceError, PartitionShare, TestKernels};
use aegis_trace::{Category, Nanos, SubmitRefusal};

use crate::bench::{Bench, Outcome, require, tell};

/// The argument that makes this program the child.
pub(crate) const CHILD: &str = "--child-illegal-access";

pub(crate) fn illegal_is_fatal(_bench: &Bench) -> Outcome {
    let program = std::env::current_exe()?;
    // A kernel that is loaded when it is first launched can wait for those that run.
    let output = Command::new(program).arg(CHILD).env("CUDA_MODULE_LOADING", "EAGER").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    require(output.status.success(), || format!("{}: {text}{errors}", output.status))?;
    // This process lives on, and so does its device.
    let device = Bench.open()?;
    device.create_stream()?.synchronize()?;
    Ok(text.trim_end().to_owned())
}

/// The child: loses the device and says what it was told.
pub(crate) fn child() -> ExitCode {
    tell(lose())
}

fn lose() -> Outcome {
    let device = Bench.open()?;
    let views = device.split(&[PartitionShare { sms: 8 }])?;
    let kernels = TestKernels::load(&device)?;
    let stream = device.create_stream()?;
    let (event, later) = (device.create_event()?, device.create_event()?);
    // An upload is under way ahead of its stage when the device goes.
    let pool = StreamPool::uploading_ahead(&device, 1)?;
    let length = Nanos::from_millis(100);
    let busy =
        |stream: &CudaStream| -> Result<(), ContextError> { Ok(kernels.busy(stream, 1, length)?) };
    let description = ModelDescription { inputs: vec![], outputs: vec![], stages: 1 };
    let slot = Arc::new(JobSlot::new(&description));
    require(slot.claim(), || "a new slot is taken".into())?;
    slot.queue();
    let running = pool.lease()?.launch(busy)?;
    let behind = running.upload_behind(&slot, busy)?.launch(busy)?;
    kernels.illegal(&stream)?;
    stream.record(&event)?;
    // The loss rings the signal, so this wait ends.
    let error = loop {
        match event.query() {
            Ok(aegis_cuda::EventStatus::Pending) => device.wait(None, Nanos::ZERO),
            Ok(other) => return Err(format!("an illegal access came to {other:?}").into()),
            Err(error) => break error,
        }
    };
    require(matches!(error, DeviceError::DeviceLost { .. }), || format!("{error:?}"))?;
    let seen = behind.poll();
    let is_lost = matches!(seen, Err(DeviceError::DeviceLost { .. }));
    require(is_lost, || {
        format!("the stage behind its upload, when the device was lost: {seen:?}")
    })?;
    require(error.category() == Category::Fatal, || format!("{error:?} is not fatal"))?;
    let refused = stream.record(&later);
    let is_lost = matches!(refused, Err(DeviceError::DeviceLost { .. }));
    require(is_lost, || format!("a later recording: {refused:?}"))?;
    let refused = views[0].create_stream().map(drop);
    let is_lost = matches!(refused, Err(DeviceError::DeviceLost { .. }));
    require(is_lost, || format!("a stream of another view: {refused:?}"))?;
    views[0].signal().wait(None, Nanos::ZERO); // The loss rang it too.
    slot.finish(JobOutcome::Refused { why: SubmitRefusal::NotRunning });
    slot.release();
    drop((running, behind, pool));
    let is_kept = !slot.claim() && Arc::strong_count(&slot) > 1;
    require(is_kept, || "the slot of an upload on a lost device was given back".into())?;
    Ok(error.to_string())
}

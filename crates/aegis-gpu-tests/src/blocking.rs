//! The question how uploads are ordered, where each launch waits for its end.
//!
//! The driver would block in a launch behind a gate that the same thread is to open: so the question is
//! put in a process of its own, which is ended where it does not end by itself.

use std::process::ExitCode;

use aegis_cuda::{DeviceError, UploadOrder};

use crate::again::in_a_child;
use crate::bench::{Bench, Outcome, tell};

/// The argument that makes this program the child.
pub(crate) const CHILD: &str = "--child-launch-blocking";

pub(crate) fn refused(_bench: &Bench) -> Outcome {
    in_a_child(CHILD, ("CUDA_LAUNCH_BLOCKING", "1"), "the probe waits for itself")
}

/// The child: asks, and is refused.
pub(crate) fn child() -> ExitCode {
    tell(asked())
}

fn asked() -> Outcome {
    let device = Bench.open()?;
    let [stages, uploads] = [device.create_stream()?, device.create_stream()?];
    match device.probe_uploads_ahead(&stages, &uploads) {
        Err(refusal @ DeviceError::UploadsUnordered { found: UploadOrder::Blocking }) => {
            Ok(refusal.to_string())
        }
        other => Err(format!("with each launch waiting for its end: {other:?}").into()),
    }
}

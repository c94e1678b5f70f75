//! A stage of a known length with its copies, for tests of stages on a real device.
//!
//! # Invariants
//! 1. The probe owns every buffer that its graph names, and no launch outlives the call that made it.
//! 2. A graph is launched only where both its copies were aimed in the same call, so one that could not be
//!    aimed back is not launched with the buffers of others.

use std::fmt;

use aegis_trace::Nanos;

use super::graph::CudaGraph;
use super::kernels::TestKernels;
use crate::error::DeviceError;
use crate::event::{CudaEvent, EventStatus};
use crate::host_buffer::HostBuffer;
use crate::memory::DeviceBuffer;
use crate::stage::{CopyMark, StageEvents, UploadEvents};
use crate::stream::CudaStream;

/// The inputs and outputs of one job.
pub struct ProbeJob {
    /// What is copied in.
    pub input: HostBuffer,
    /// Where it comes out again.
    pub output: HostBuffer,
}

/// Whether a probe says where its copies end and begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeMarks {
    /// Both.
    Copies,
    /// Neither: for what the marks cost.
    Nothing,
}

/// What comes between the two stages of [`StageProbe::run_again`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// The upload alone; the second stage waits for a kernel of this length.
    Kernel(Nanos),
    /// The stage that waits for the upload, put there while the first one runs.
    Stage,
}

/// The events of [`StageProbe::run_again`].
#[derive(Clone, Copy, Debug)]
pub struct AgainEvents<'e> {
    /// Of the first stage, and of the last again.
    pub stage: &'e StageEvents,
    /// Of the stage between them.
    pub between: &'e StageEvents,
    /// Of the inputs that go ahead of that.
    pub upload: &'e UploadEvents,
    /// Recorded behind the copies that they wait behind.
    pub plugged: &'e CudaEvent,
}

/// A captured stage: a copy in, a kernel of a known length, a copy out.
pub struct StageProbe<'kernels> {
    graph: CudaGraph,
    kernels: &'kernels TestKernels,
    captured: ProbeJob,
    middle: DeviceBuffer,
}

impl<'kernels> StageProbe<'kernels> {
    /// Captures the stage on `stream`, by way of `middle`, with the buffers of `captured`.
    ///
    /// # Errors
    /// As [`CudaStream::capture_stage`]; [`DeviceError::CopyTooLong`] where a buffer is longer than
    /// `middle`.
    pub fn capture(
        kernels: &'kernels TestKernels,
        stream: &CudaStream,
        captured: ProbeJob,
        middle: DeviceBuffer,
        length: Nanos,
        marks: ProbeMarks,
    ) -> Result<Self, DeviceError> {
        let mark = |stream: &CudaStream, mark| match marks {
            ProbeMarks::Copies => stream.mark(mark),
            ProbeMarks::Nothing => Ok(()),
        };
        let graph = stream.capture_stage(|stream| {
            // SAFETY: (1) Nothing runs yet; both live as long as the graph: invariant 1.
            unsafe { crate::interop::copy_to_device(stream, &captured.input, &middle) }?;
            mark(stream, CopyMark::Uploaded)?;
            kernels.busy(stream, 1, length)?;
            mark(stream, CopyMark::Downloading)?;
            // SAFETY: (1) As above.
            unsafe { crate::interop::copy_to_host(stream, &middle, &captured.output) }
        })?;
        Ok(Self { graph, kernels, captured, middle })
    }

    /// Runs the stage for `job` between the events, behind a kernel of `before` in the same stage if
    /// there is one, and waits for its end.
    ///
    /// # Errors
    /// As [`CudaStream::between`] and [`crate::interop::aim_copy`].
    pub fn run(
        &self,
        stream: &CudaStream,
        events: &StageEvents,
        job: &mut ProbeJob,
        before: Option<Nanos>,
    ) -> Result<(), DeviceError> {
        // SAFETY: (1) The job's buffers are borrowed uniquely until the wait below, which comes also
        // after an error; from then on the graph is aimed at its own again, or not launched: invariant 2.
        let aimed = unsafe { self.aim(job) };
        let enqueued = aimed.and_then(|()| {
            stream.between(events, |stream| {
                before.map_or(Ok(()), |length| self.kernels.busy(stream, 1, length))?;
                stream.enqueue_graph(&self.graph)
            })
        });
        let idle = stream.synchronize();
        let aimed_back = Self::aim_back(&[self]);
        enqueued.and(idle).and(aimed_back)
    }

    /// Runs this stage for the job of `own`, behind a kernel of `lead`, and behind it `next` for the job of
    /// its own, whose input goes ahead of it on `uploads` where there is such a stream, behind that of this
    /// stage. Waits for both.
    ///
    /// # Errors
    /// As [`StageProbe::run`], [`CudaStream::wait_for`] and [`crate::interop::leave_out_copy`].
    pub fn run_before(
        &self,
        stream: &CudaStream,
        lead: Nanos,
        own: (&StageEvents, &mut ProbeJob),
        next: (&Self, &StageEvents, &mut ProbeJob),
        uploads: Option<(&CudaStream, &UploadEvents)>,
    ) -> Result<(), DeviceError> {
        let ((events, job), (next, next_events, next_job)) = (own, next);
        // SAFETY: (1) The jobs' buffers are borrowed uniquely until both streams are idle below, which is
        // also waited for after an error; from then on the graphs are aimed at their own again, or not
        // launched: invariant 2.
        let aimed = unsafe { self.aim(job) };
        // SAFETY: (1) As above.
        let aimed = aimed.and_then(|()| unsafe { next.aim(next_job) });
        let leaves_out = uploads.is_some();
        let enqueued = aimed
            .and_then(|()| {
                crate::interop::leave_out_copy(&next.graph, &next.captured.input, leaves_out)
            })
            .and_then(|()| self.kernels.busy(stream, 1, lead))
            .and_then(|()| stream.between(events, |stream| stream.enqueue_graph(&self.graph)))
            .and_then(|()| uploads.map_or(Ok(()), |to| next.upload(stream, to, events, next_job)))
            .and_then(|()| stream.between(next_events, |stream| stream.enqueue_graph(&next.graph)));
        let uploaded = uploads.map_or(Ok(()), |(uploads, _)| uploads.synchronize());
        let idle = uploaded.and(stream.synchronize());
        let aimed_back = Self::aim_back(&[self, next]);
        enqueued.and(idle).and(aimed_back)
    }

    /// Runs this stage behind a kernel of `lead`, puts a kernel of `plug` on `uploads` and behind it the
    /// input of `next`, which waits for the upload of this stage; and when this stage was seen to end,
    /// launches `last` between the same events. Tells whether the upload's wait was still queued then.
    /// Waits for all of them.
    ///
    /// # Errors
    /// As [`StageProbe::run_before`].
    pub fn run_again(
        &self,
        [stream, uploads]: [&CudaStream; 2],
        (lead, plug, between): (Nanos, Nanos, Between),
        [next, last]: [&Self; 2],
        events: AgainEvents<'_>,
        jobs: &mut [ProbeJob; 3],
    ) -> Result<bool, DeviceError> {
        let [job, next_job, last_job] = jobs;
        // SAFETY: (1) The jobs' buffers are borrowed uniquely until both streams are idle below, which is
        // also waited for after an error; from then on the graphs are aimed at their own again, or not
        // launched: invariant 2.
        let aimed = unsafe { self.aim(job) };
        // SAFETY: (1) As above.
        let aimed = aimed.and_then(|()| unsafe { next.aim(next_job) });
        // SAFETY: (1) As above.
        let aimed = aimed.and_then(|()| unsafe { last.aim(last_job) });
        let launched = aimed
            .and_then(|()| crate::interop::leave_out_copy(&next.graph, &next.captured.input, true))
            .and_then(|()| self.kernels.busy(stream, 1, lead))
            .and_then(|()| stream.between(events.stage, |stream| stream.enqueue_graph(&self.graph)))
            .and_then(|()| next.upload_behind(uploads, plug, events, next_job))
            .and_then(|()| match between {
                Between::Kernel(_) => Ok(()),
                Between::Stage => {
                    stream.wait_for(events.upload.ended())?;
                    stream.between(events.between, |stream| stream.enqueue_graph(&next.graph))
                }
            })
            .and_then(|()| events.stage.ended().synchronize())
            .and_then(|_| match between {
                Between::Kernel(length) => self.kernels.busy(stream, 1, length),
                Between::Stage => Ok(()),
            })
            .and_then(|()| stream.between(events.stage, |stream| stream.enqueue_graph(&last.graph)))
            .and_then(|()| events.plugged.query());
        let idle = uploads.synchronize().and(stream.synchronize());
        let aimed_back = Self::aim_back(&[self, next, last]);
        let was_plugged = launched? == EventStatus::Pending;
        idle.and(aimed_back).map(|()| was_plugged)
    }

    /// Puts a kernel of `plug` on `uploads`, and behind it the input of `job`, which waits for the upload
    /// of the stage between `events`; for [`run_again`](Self::run_again), which waits for all of it.
    fn upload_behind(
        &self,
        uploads: &CudaStream,
        plug: Nanos,
        events: AgainEvents<'_>,
        job: &ProbeJob,
    ) -> Result<(), DeviceError> {
        self.kernels.busy(uploads, 1, plug)?;
        uploads.record(events.plugged)?;
        uploads.wait_for(events.stage.uploaded())?;
        uploads.record(events.upload.begun())?;
        // SAFETY: (1) The target lives as long as the probe and the source until the copy was waited for,
        // says the caller. (2) The stage that uses the target waits for the copy.
        unsafe { crate::interop::copy_to_device(uploads, &job.input, &self.middle) }?;
        uploads.record(events.upload.ended())
    }

    /// Puts the input of `job` on its way, and makes `stream` wait for it; for
    /// [`run_before`](Self::run_before), which waits for the copy while it has the job.
    fn upload(
        &self,
        stream: &CudaStream,
        (uploads, events): (&CudaStream, &UploadEvents),
        before: &StageEvents,
        job: &ProbeJob,
    ) -> Result<(), DeviceError> {
        uploads.wait_for(before.uploaded())?;
        uploads.record(events.begun())?;
        // SAFETY: (1) The target lives as long as the probe and the source until the copy was waited
        // for, says the caller. (2) The stage that uses the target waits for the copy.
        unsafe { crate::interop::copy_to_device(uploads, &job.input, &self.middle) }?;
        uploads.record(events.ended())?;
        stream.wait_for(events.ended())
    }

    /// Aims each of `probes` at its own buffers, whatever comes of the others.
    fn aim_back(probes: &[&Self]) -> Result<(), DeviceError> {
        // SAFETY: (1) They live as long as the graph: invariant 1.
        let aimed = probes.iter().map(|probe| unsafe { probe.aim(&probe.captured) });
        aimed.fold(Ok(()), Result::and)
    }

    /// Aims both copies, whatever comes of the first.
    ///
    /// # Safety
    /// As [`crate::interop::aim_copy`], for the buffers of `job`.
    unsafe fn aim(&self, job: &ProbeJob) -> Result<(), DeviceError> {
        // SAFETY: (1) The caller's promise.
        let input =
            unsafe { crate::interop::aim_copy(&self.graph, &self.captured.input, &job.input) };
        // SAFETY: (1) The caller's promise.
        let output =
            unsafe { crate::interop::aim_copy(&self.graph, &self.captured.output, &job.output) };
        input.and(output)
    }

    /// What the copies were captured with.
    #[must_use]
    pub fn captured(&self) -> &ProbeJob {
        &self.captured
    }
}

impl fmt::Debug for ProbeJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeJob").field("input", &self.input).finish_non_exhaustive()
    }
}

impl fmt::Debug for StageProbe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageProbe").field("graph", &self.graph).finish_non_exhaustive()
    }
}

//! An admitted model in the caller's hands, and its jobs.

use std::sync::Arc;

use aegis_context::{JobOutcome, ModelDescription};
use aegis_sched::metrics::{ModelMetrics, Snapshot};
use aegis_sched::submit::{Pending, Submitter};
use aegis_trace::{JobId, ModelId, Nanos, Timestamp};

use crate::error::Error;
use crate::tensor::{self, Tensor};

/// An admitted model. Clones are the same model; any thread may submit.
#[derive(Clone, Debug)]
pub struct ModelHandle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    submitter: Submitter,
    metrics: ModelMetrics,
}

impl ModelHandle {
    pub(crate) fn new(name: String, submitter: Submitter, metrics: ModelMetrics) -> Self {
        Self { inner: Arc::new(Inner { name, submitter, metrics }) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its id in the trace.
    #[must_use]
    pub fn id(&self) -> ModelId {
        self.inner.submitter.model()
    }

    /// Its inputs, outputs and stages.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        self.inner.submitter.description()
    }

    /// What it has done so far.
    #[must_use]
    pub fn metrics(&self) -> Snapshot {
        self.inner.metrics.snapshot()
    }

    /// Submits a job that is released now. Copies the inputs; neither blocks nor waits.
    ///
    /// A release less than one period after the one before counts from where the period allows it.
    ///
    /// # Errors
    /// [`Error::Input`], Permanent, when the inputs do not fit the model; [`Error::Submission`]
    /// when the queue or all job slots are full (Transient), or the model is fenced or evicted
    /// (Permanent).
    pub fn submit(&self, inputs: &[Tensor]) -> Result<Job, Error> {
        self.submit_released(inputs, None)
    }

    /// Submits a job whose nominal release was at `release` on the runtime's clock, at most the
    /// model's jitter ago. An earlier claim is cut to that and recorded as a broken assumption; a
    /// claim that lies in the future counts as now. A model of best effort has no releases: its jobs
    /// count from their arrival, whatever is claimed.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_released(
        &self,
        inputs: &[Tensor],
        release: Option<Timestamp>,
    ) -> Result<Job, Error> {
        let ordered = tensor::in_order(self.description(), inputs)?;
        let refused = |why| Error::Submission { why };
        let mut slot = self.inner.submitter.claim().map_err(refused)?;
        for (index, input) in ordered.into_iter().enumerate() {
            slot.write(index, input.as_bytes());
        }
        let pending = slot.submit(release).map_err(refused)?;
        Ok(Job { model: self.clone(), pending })
    }
}

/// A submitted job. Dropping it frees its slot; a job under way then runs on unseen.
#[derive(Debug)]
#[must_use = "dropping a job discards its outputs"]
pub struct Job {
    model: ModelHandle,
    pending: Pending,
}

impl Job {
    /// Blocks until the job has ended.
    ///
    /// # Errors
    /// [`Error::Submission`] when it was turned away after all, [`Error::Dropped`] or
    /// [`Error::Failed`] when it ended without outputs.
    pub fn wait(self) -> Result<Outputs, Error> {
        match self.pending.wait() {
            JobOutcome::Completed { job, release, response, execution, late } => {
                let timing = Timing { job, release, response, execution, late };
                Ok(Outputs { model: self.model, pending: self.pending, timing })
            }
            JobOutcome::Dropped { job, why } => Err(Error::Dropped { job, why }),
            JobOutcome::Refused { why } => Err(Error::Submission { why }),
            JobOutcome::Failed { job, category, reason } => {
                Err(Error::Failed { job, category, reason: reason.to_string() })
            }
            other => unreachable!("the outcomes of a job are known here: {other:?}"),
        }
    }

    /// Whether the job has ended. Never blocks.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.pending.outcome().is_some()
    }
}

/// When a completed job ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Its id in the trace.
    pub job: JobId,
    /// The point its response counts from.
    pub release: Timestamp,
    /// From release to detected completion.
    pub response: Nanos,
    /// Device time of all its stages.
    pub execution: Nanos,
    /// How long after its deadline it ended; zero when in time.
    pub late: Nanos,
}

/// The outputs of a completed job. Holds the job's slot until dropped.
#[derive(Debug)]
pub struct Outputs {
    model: ModelHandle,
    pending: Pending,
    timing: Timing,
}

impl Outputs {
    /// When the job ran.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// A copy of the bytes of the output called `name`.
    ///
    /// # Errors
    /// [`Error::Input`], Permanent, when there is no such output.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        let outputs = &self.model.description().outputs;
        let index = outputs.iter().position(|spec| spec.name == name);
        let index = index.ok_or_else(|| tensor::unknown(name, outputs))?;
        let bytes = self.pending.output(index, <[u8]>::to_vec);
        Ok(bytes.expect("a job completes when its last stage is off the device"))
    }

    /// A copy of the `f32` elements of the output called `name`.
    ///
    /// # Errors
    /// [`Error::Input`], Permanent, when there is no such output or its elements are not `f32`.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, Error> {
        let bytes = self.bytes(name)?;
        let outputs = &self.model.description().outputs;
        let spec = outputs.iter().find(|spec| spec.name == name).expect("it was just found");
        if spec.dtype != aegis_context::DType::F32 {
            let (spec, given) = (Box::new(spec.clone()), aegis_context::DType::F32);
            return Err(aegis_context::InputError::WrongType { spec, given }.into());
        }
        let element = |four: &[u8]| f32::from_le_bytes(four.try_into().expect("chunks of four"));
        Ok(bytes.chunks_exact(4).map(element).collect())
    }
}

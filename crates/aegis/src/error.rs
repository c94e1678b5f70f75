//! The one error of the facade.

use std::path::PathBuf;

use aegis_context::{BackendError, ContextError, InputError};
use aegis_cuda::DeviceError;
use aegis_memory::MemoryError;
use aegis_sched::admission::AdmissionError;
use aegis_sched::task::TaskError;
use aegis_sched::wcet::SampleError;
use aegis_sched::wcet::lines::LinesError;
use aegis_trace::{Category, DropReason, JobId, Refusal, SubmitRefusal, TraceError};

use crate::evidence::EvidenceError;
use crate::pipeline::certificate::CertificateError;
use crate::pipeline::poet::PoetError;
use crate::workload::WorkloadFaults;

/// Whatever went wrong, with its category and its causes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration of the runtime has faults; all of them.
    #[error("the runtime cannot be built: {}", faults.join("; "))]
    Build {
        /// Each a sentence with what would be right.
        faults: Vec<String>,
    },
    /// The workload file has faults; all of them.
    #[error(transparent)]
    Workload(#[from] WorkloadFaults),
    /// A model was not admitted: the inequality that failed, with model names.
    #[error("{model} is not admitted: {explained}")]
    Refused {
        /// The model that asked.
        model: String,
        /// The inequality with the names of the models it is about.
        explained: String,
        /// The inequality.
        refusal: Refusal,
    },
    /// A model could not be admitted for another reason.
    #[error("{model} could not be admitted")]
    Admission {
        /// The model that asked.
        model: String,
        /// Why.
        #[source]
        cause: Box<AdmissionError>,
    },
    /// A model could not be loaded.
    #[error("{model} could not be loaded")]
    Load {
        /// Which.
        model: String,
        /// Why.
        #[source]
        cause: BackendError,
    },
    /// No engine was built, or one cannot be read.
    #[error(transparent)]
    Engine(BackendError),
    /// The runtime was built without support for this.
    #[error(
        "{what} is not in this build; enable the feature `{feature}`, as in `cargo build -p aegis-cli \
         --features {feature}`"
    )]
    NotBuilt {
        /// What was asked for.
        what: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// A model needs a device of another kind.
    #[error("{model} runs on {backend}, which needs the device driver {needs}")]
    WrongDriver {
        /// Which model.
        model: String,
        /// Its backend.
        backend: &'static str,
        /// The driver it needs.
        needs: &'static str,
    },
    /// A partition that is not there, or none where the device is split.
    #[error(
        "{model} is to run in {}, and the partitions are {}",
        asked.as_ref().map_or_else(|| "no partition".into(), |name| format!("the partition `{name}`")),
        if known.is_empty() { "none".into() } else { known.join(", ") }
    )]
    Partition {
        /// Which model.
        model: String,
        /// What was asked for.
        asked: Option<String>,
        /// All there are.
        known: Vec<String>,
    },
    /// A model without a priority, where all of the device would go by them.
    #[error(
        "the policy `priority` of the whole device needs a priority of {model}, which states none"
    )]
    Unordered {
        /// Which model.
        model: String,
    },
    /// An input that does not fit the model.
    #[error("the inputs do not fit the model")]
    Input(#[from] InputError),
    /// A submission was turned away.
    #[error("the job was not accepted: {why}")]
    Submission {
        /// Why.
        why: SubmitRefusal,
    },
    /// An accepted job ended without a result.
    #[error("job {job} was dropped: {why}")]
    Dropped {
        /// Which.
        job: JobId,
        /// Why.
        why: DropReason,
    },
    /// A job failed, and its model is fenced.
    #[error("job {job} failed: {reason}")]
    Failed {
        /// Which.
        job: JobId,
        /// What the caller can do.
        category: Category,
        /// What the runtime said.
        reason: String,
    },
    /// The device is lost; the process should end.
    #[error("the device is lost: {reason}")]
    DeviceLost {
        /// What the device said.
        reason: String,
    },
    /// A stage has been on the device for far longer than it may, and cannot be taken off it; the
    /// process should end.
    #[error("a stage hangs on the device and cannot be cancelled")]
    Hanging,
    /// The runtime was started before.
    #[error("the runtime was started already; it starts once")]
    AlreadyStarted,
    /// A model was to be prepared on a GPU while jobs run on it.
    #[error(
        "{model} cannot be loaded or admitted while jobs run: a GPU prepares a model in memory that they \
         use and on their time; do both before the start"
    )]
    PreparedWhileRunning {
        /// Which.
        model: String,
    },
    /// The runtime does not run.
    #[error("the runtime is not running")]
    NotRunning,
    /// The model is not there any more.
    #[error("the model is not in the runtime any more")]
    UnknownModel,
    /// A model failed before the start, with zeros as its inputs.
    #[error("{model} failed while warming up")]
    WarmUp {
        /// Which model.
        model: String,
        /// Why.
        #[source]
        cause: Box<ContextError>,
    },
    /// Profiling failed.
    #[error("{model} could not be profiled")]
    Profile {
        /// Which model.
        model: String,
        /// Why.
        #[source]
        cause: Box<ContextError>,
    },
    /// A simulated device: its costs are declared.
    #[error("a simulated device has declared costs; there is nothing to profile")]
    NothingToProfile,
    /// A simulated device: its time moves with work, not with the wall.
    #[error(
        "the device driver `sim` lives in virtual time, and running at a pace needs `host`; a model \
         of backend `sim` runs there too"
    )]
    VirtualTime,
    /// Samples that cannot be used.
    #[error("the samples of {model} cannot be used")]
    Samples {
        /// Whose.
        model: String,
        /// Why.
        #[source]
        cause: SampleError,
    },
    /// A text that holds no samples.
    #[error("{} holds no usable samples", path.display())]
    Lines {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: LinesError,
    },
    /// Evidence that is missing, broken or stale.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// An answer has no certificate.
    #[error("no certificate can be written")]
    Certificate(#[from] CertificateError),
    /// A set is no problem for POET.
    #[error("the set cannot be exported for POET")]
    Poet(#[from] PoetError),
    /// The timing of a model is not valid.
    #[error("the timing is not valid")]
    Task(#[from] TaskError),
    /// The device failed.
    #[error("the device failed")]
    Device(#[from] DeviceError),
    /// Memory could not be planned or bound.
    #[error("the memory could not be planned")]
    Memory(#[from] MemoryError),
    /// A trace could not be written.
    #[error("the trace {} could not be written", path.display())]
    Trace {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        cause: TraceError,
    },
    /// A trace is written more slowly than the run records, or not at all.
    #[error("the trace {} could not be written: {waiting} records wait for it", path.display())]
    TraceBehind {
        /// Where.
        path: PathBuf,
        /// How many were handed over and not written.
        waiting: u64,
    },
    /// Two traces are one file.
    #[error("the traces {} and {} are the same file", other.display(), path.display())]
    SameTrace {
        /// The later one.
        path: PathBuf,
        /// The one before it.
        other: PathBuf,
    },
    /// The operating system gave no thread.
    #[error("the operating system gave no thread")]
    Thread(#[source] std::io::Error),
    /// Metrics cannot be served.
    #[cfg(feature = "metrics")]
    #[error(transparent)]
    Metrics(#[from] crate::metrics::MetricsError),
}

impl Error {
    /// What the caller can do: retry, give up on the request, or end the process.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Build { .. }
            | Self::NotBuilt { .. }
            | Self::WrongDriver { .. }
            | Self::Partition { .. }
            | Self::Unordered { .. }
            | Self::AlreadyStarted
            | Self::PreparedWhileRunning { .. }
            | Self::NotRunning
            | Self::UnknownModel
            | Self::NothingToProfile
            | Self::VirtualTime
            | Self::SameTrace { .. }
            | Self::Thread(_)
            | Self::Dropped { .. } => Category::Permanent,
            Self::TraceBehind { .. } => Category::Transient,
            Self::DeviceLost { .. } | Self::Hanging => Category::Fatal,
            Self::Workload(cause) => cause.category(),
            Self::Refused { refusal, .. } => refusal.category(),
            Self::Admission { cause, .. } => cause.category(),
            Self::Load { cause, .. } | Self::Engine(cause) => cause.category(),
            Self::Input(cause) => cause.category(),
            Self::Submission { why } => why.category(),
            Self::Failed { category, .. } => *category,
            Self::Profile { cause, .. } | Self::WarmUp { cause, .. } => cause.category(),
            Self::Samples { cause, .. } => cause.category(),
            Self::Lines { cause, .. } => cause.category(),
            Self::Evidence(cause) => cause.category(),
            Self::Certificate(cause) => cause.category(),
            Self::Poet(cause) => cause.category(),
            Self::Task(cause) => cause.category(),
            Self::Device(cause) => cause.category(),
            Self::Memory(cause) => cause.category(),
            Self::Trace { cause, .. } => cause.category(),
            #[cfg(feature = "metrics")]
            Self::Metrics(cause) => cause.category(),
        }
    }
}

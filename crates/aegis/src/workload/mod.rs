//! The workload file: what a user asks of the runtime, in one TOML file.
//!
//! A workload names the device and its memory limit, the policy, the overheads to charge, and the
//! models with their timing and budgets. Read [`Workload`] first, then [`FaultKind`] for all that
//! can be wrong with a file. `docs/formats.md` is the user's description of the format; a test
//! holds its table of keys to the ones accepted here.
//!
//! # Invariants
//! 1. Every fault of a file is reported at once, each with its place and what would be right. The
//!    one exception is a file that is not TOML: its broken lines are reported as such alone, and
//!    what seems to be missing is not reported, since they may hold it.
//! 2. No text, however malformed, panics; work is bounded by [`FILE_BYTES_MAX`].
//! 3. A [`Workload`] that was read obeys every limit named in this module. Whether its models can
//!    be scheduled is not decided here, but at admission.
//! 4. Limits of memory and queue depth have no default; the caller states them.

mod chain;
mod diagnose;
mod fault;
mod parse;
mod partition;
mod reader;
mod rule;
mod schema;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aegis_cuda::CompletionWait;
use aegis_memory::PressureThresholds;
use aegis_sched::dispatch::OverrunPolicy;
use aegis_sched::policy::PolicyKind;
use aegis_trace::{Bytes, Nanos};

/// The `[overheads]` table, with `scheduler.look_ahead` among them.
pub use aegis_sched::task::Overheads;
pub use chain::{CHAINS_MAX, Chain, ChainFault, ChainKind, MEMBERS_MIN};
pub use fault::{FaultKind, Place, Quantity, Related, WorkloadFault, WorkloadFaults};
pub use partition::{PARTITIONS_MAX, Partition, PartitionFault, SMS_MAX};
pub use rule::{MARGIN_PERCENT_DEFAULT, SAMPLES_DEFAULT, SAMPLES_FACTOR, Unclaimed, WcetRule};

use fault::Findings;

/// The longest workload file that is read: far above [`MODELS_MAX`] models with every key.
pub const FILE_BYTES_MAX: Bytes = Bytes::from_kib(256);
/// The most models in one workload.
pub const MODELS_MAX: usize = 256;
/// The most stages of one model.
pub const STAGES_MAX: u32 = 64;
/// The longest model name, in characters.
pub const NAME_CHARS_MAX: usize = 64;
/// The most memory that may be asked for: a typing error above any one device.
pub const MEMORY_MAX: Bytes = Bytes::from_gib(16 << 10);
/// The shortest period and deadline: below it, dispatching alone takes longer.
pub const PERIOD_MIN: Nanos = Nanos::from_micros(1);
/// The longest period, deadline and stage.
pub const PERIOD_MAX: Nanos = Nanos::from_secs(3600);
/// The longest dispatch or wake overhead.
pub const OVERHEAD_MAX: Nanos = Nanos::from_secs(1);
/// The longest that idle threads may poll before they sleep.
pub const IDLE_SPIN_MAX: Nanos = Nanos::from_secs(1);
/// How long idle threads poll where the file does not say.
pub const IDLE_SPIN_DEFAULT: Nanos = Nanos::from_micros(50);
/// The highest number of a GPU.
pub const ORDINAL_MAX: u16 = 255;
/// The most streams of one device.
pub const STREAMS_MAX: u32 = 256;
/// The highest number of a core.
pub const CORE_MAX: u16 = 1023;
/// The deepest submission queue.
pub const QUEUE_DEPTH_MAX: u32 = 65_536;
/// The most jobs of one model that may be outstanding at once.
pub const SLOTS_MAX: u32 = 64;
/// The largest limit on models that may be suspended: as many as there are.
pub const SUSPENDED_MAX: u32 = 256;
/// The most threads inside one operator of one model.
pub const THREADS_MAX: u32 = 256;
/// The most profile runs of one stage.
pub const SAMPLES_MAX: u32 = 1_000_000;
/// The largest margin on an observed maximum, in percent.
pub const MARGIN_PERCENT_MAX: u32 = 1_000;

/// `device.streams` when it is not stated: one partition runs one stage at a time.
pub const STREAMS_DEFAULT: u32 = 1;
/// `overheads.dispatch` when it is not stated: meant for the host driver on a general-purpose
/// kernel. An assumption of the analysis, not a measurement of this machine.
pub const DISPATCH_OVERHEAD_DEFAULT: Nanos = Nanos::from_micros(300);
/// `overheads.wake` when it is not stated; the same assumption as [`DISPATCH_OVERHEAD_DEFAULT`].
pub const WAKE_OVERHEAD_DEFAULT: Nanos = Nanos::from_millis(1);
/// `model.slots` when it is not stated: one job running and one waiting.
pub const SLOTS_DEFAULT: u32 = 2;
/// `model.threads` when it is not stated.
pub const THREADS_DEFAULT: u32 = 1;

/// A whole workload file, with defaults filled in and paths resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Where it was read from; faults found later point into it.
    pub source: SourceText,
    /// The device that everything runs on.
    pub device: Device,
    /// How ready jobs are ordered and how many may wait.
    pub scheduler: Scheduler,
    /// What the analysis charges beside the models' own costs.
    pub overheads: Overheads,
    /// How a cost is made from profiled samples.
    pub wcet: WcetRule,
    /// What the device is split into, in file order; at most [`PARTITIONS_MAX`]. None where it is whole.
    pub partitions: Vec<Partition>,
    /// The models, in file order; from one to [`MODELS_MAX`], names unique.
    pub models: Vec<Model>,
    /// Pipelines of them, in file order; at most [`CHAINS_MAX`], names unique.
    pub chains: Vec<Chain>,
}

/// The text of a workload file and the name it goes by in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// The path as the caller gave it.
    pub path: PathBuf,
    /// The whole text, without a byte order mark.
    pub text: Arc<str>,
}

/// A half-open range of bytes `start..end` in a [`SourceText`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

/// The `[device]` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Which driver stands for the device.
    pub driver: Driver,
    /// The hard limit of device memory, at most [`MEMORY_MAX`].
    pub memory: Bytes,
    /// How many streams the device has, from one to [`STREAMS_MAX`].
    pub streams: u32,
    /// Below how much free memory new models are refused; `None` for never.
    pub pressure: Option<PressureThresholds>,
}

/// What stands for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The CPU: a stream is a worker thread, real runtimes run on it.
    Host,
    /// A software device in virtual time with declared costs.
    Sim,
    /// A GPU through NVIDIA's driver.
    Cuda {
        /// Which, as the driver counts them; at most [`ORDINAL_MAX`].
        ordinal: u16,
        /// How the orchestrator notices the end of a stage.
        wait: CompletionWait,
    },
}

/// The `[scheduler]` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// The order of the ready queue.
    pub policy: PolicyKind,
    /// How many submitted jobs may wait, from one to [`QUEUE_DEPTH_MAX`].
    pub queue_depth: u32,
    /// What happens to jobs after an overrun.
    pub overrun: OverrunPolicy,
    /// How many models of several stages may be suspended between two of them, from none to
    /// [`SUSPENDED_MAX`]; `None` for any number. The file has no more than that, so this is said for
    /// reports.
    pub max_suspended: Option<u32>,
    /// The core that the orchestration thread is to run on, at most [`CORE_MAX`]; of a whole device
    /// alone.
    pub core: Option<u16>,
    /// How long idle threads poll before they sleep, at most [`IDLE_SPIN_MAX`]. On a system that takes
    /// long to wake a thread, polling for longer than the program needs to write its inputs spares each
    /// job that time, at the price of a busy core.
    pub idle_spin: Nanos,
}

/// The overheads where the file states none: the constants named `*_OVERHEAD_DEFAULT`. Measured costs
/// contain what a boundary and the copies take.
pub const OVERHEADS_DEFAULT: Overheads = Overheads {
    dispatch: DISPATCH_OVERHEAD_DEFAULT,
    wake: WAKE_OVERHEAD_DEFAULT,
    ..Overheads::NONE
};

/// One `[[model]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Unique in the workload: 1 to [`NAME_CHARS_MAX`] of `a-z`, `0-9`, `_` and `-`.
    pub name: String,
    /// Its place in [`Workload::partitions`]; `None` where the device is whole.
    pub partition: Option<usize>,
    /// What executes it, and what of.
    pub backend: Backend,
    /// `None` for a model whose every job has a deadline.
    pub best_effort: Option<BestEffort>,
    /// The minimum time between releases, from [`PERIOD_MIN`] to [`PERIOD_MAX`]; of a model of best
    /// effort the time between two jobs of the load generator, and nothing else.
    pub period: Nanos,
    /// Relative to the release, in the same range as the period; may be longer than it. Of a member
    /// of a triggered chain, relative to the chain's arrival. Without
    /// meaning for a model of best effort, as are `jitter` and `priority`.
    pub deadline: Nanos,
    /// Whether the file states that deadline. If not, it follows the period, or comes from a triggered
    /// chain.
    pub deadline_stated: bool,
    /// How much later than its nominal release a job may be submitted; at most the period. Of a model
    /// that another one triggers, how much later than its trigger, or `overheads.wake` where that is
    /// not stated.
    pub jitter: Nanos,
    /// Smaller is more urgent; stated for every model when the policy is by priority.
    pub priority: Option<u32>,
    /// How many jobs may be outstanding at once, from one to [`SLOTS_MAX`].
    pub slots: u32,
    /// Whether other models may run between two of its stages. Where not, it is charged as one
    /// stage, and what it carries from stage to stage shares memory.
    pub suspend: bool,
    /// The hard limits of this model alone.
    pub budget: Budget,
}

/// How a model without deadlines is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BestEffort {
    /// While nothing else is ready.
    Background,
    /// By a server.
    Server(Server),
}

/// The `[model.server]` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Device time in each period, overheads included; from one nanosecond to the period.
    pub budget: Nanos,
    /// Least time between two refills, from [`PERIOD_MIN`] to [`PERIOD_MAX`].
    pub period: Nanos,
    /// Smaller is more urgent; stated when the policy is by priority.
    pub priority: Option<u32>,
}

/// What executes a model, with what only this backend needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// ONNX Runtime.
    Onnx(OnnxModel),
    /// Apache TVM.
    Tvm(TvmModel),
    /// TensorRT.
    Trt(TrtModel),
    /// Declared costs instead of a network.
    Sim(SimModel),
}

/// A model executed by ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxModel {
    /// One file per stage, in order of execution; from one to [`STAGES_MAX`].
    pub stages: Vec<ModelFile>,
    /// Threads inside one operator, from one to [`THREADS_MAX`].
    pub threads: u32,
    /// On a GPU, whether matrix products may round the factors of fp32 to ten bits.
    pub tf32: bool,
    /// On a GPU, whether stages are captured into graphs.
    pub graph: bool,
}

/// Modules compiled by TVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TvmModel {
    /// One module per stage, in order of execution; from one to [`STAGES_MAX`].
    pub stages: Vec<ModelFile>,
    /// On a GPU, whether stages are captured into graphs.
    pub graph: bool,
}

/// Engines executed by TensorRT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrtModel {
    /// One serialised engine per stage, in order of execution; from one to [`STAGES_MAX`].
    pub stages: Vec<ModelFile>,
    /// Whether stages are captured into graphs.
    pub graph: bool,
}

/// A file that a workload names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Resolved against the folder of the workload file.
    pub path: PathBuf,
    /// Where the workload file names it.
    pub span: Span,
}

/// A model of declared costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimModel {
    /// The cost of each stage, never zero; from one to [`STAGES_MAX`] stages.
    pub stages: Vec<Nanos>,
    /// Memory held as long as the model is admitted.
    pub persistent: Bytes,
    /// Memory needed while a stage runs.
    pub scratch: Bytes,
    /// Memory that keeps what passes from stage to stage: the model's own while its jobs may be
    /// suspended, and else shared as scratch is.
    pub carried: Bytes,
}

/// The `[model.budget]` table: hard limits of one model; `None` leaves the device's limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Device memory, from one byte to the device's limit.
    pub memory: Option<Bytes>,
    /// Streams, from one to the device's.
    pub streams: Option<u32>,
    /// Compute time in each period, from one nanosecond to the period.
    pub compute: Option<Nanos>,
}

impl Workload {
    /// The partition in which `model` runs; `None` where the device is whole.
    #[must_use]
    pub fn partition_of(&self, model: &Model) -> Option<&Partition> {
        model.partition.map(|place| &self.partitions[place])
    }

    /// The policy that orders the jobs of `model`.
    #[must_use]
    pub fn policy_of(&self, model: &Model) -> PolicyKind {
        self.partition_of(model).and_then(|of| of.policy).unwrap_or(self.scheduler.policy)
    }

    /// Reads the workload file at `path`. Blocks on the file system; opens no model file, for
    /// which see [`Workload::check_files`].
    ///
    /// # Errors
    /// Every fault of the file in file order, or the one that kept it from being read.
    pub fn read(path: &Path) -> Result<Self, WorkloadFaults> {
        let bytes = read_bounded(path).map_err(|cause| {
            let cause = cause.to_string();
            WorkloadFaults::of_whole_file(path, FaultKind::Unreadable { cause })
        })?;
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(&text, path),
            Err(error) => Err(not_utf8(path, &error)),
        }
    }

    /// Parses the `text` of a workload file. `origin` names it in messages, and its folder is what
    /// relative model paths are resolved against; the file system is not touched.
    ///
    /// # Errors
    /// Every fault of the text, in file order.
    ///
    /// # Examples
    /// ```
    /// use std::path::Path;
    /// use aegis::workload::Workload;
    ///
    /// let text = r#"
    ///     device = { driver = "sim", memory = "1GiB" }
    ///     scheduler = { policy = "edf", queue_depth = 8 }
    ///     [[model]]
    ///     name = "camera"
    ///     backend = "sim"
    ///     period = "33"
    ///     sim.stages = ["2ms"]
    /// "#;
    /// let faults = Workload::parse(text, Path::new("edge.toml")).expect_err("33 of what?");
    /// assert_eq!(faults.faults().len(), 1);
    /// assert!(faults.to_string().contains("write one of ns, us, ms, s, min or h"));
    /// ```
    pub fn parse(text: &str, origin: &Path) -> Result<Self, WorkloadFaults> {
        if Bytes(text.len() as u64) > FILE_BYTES_MAX {
            let kind = FaultKind::FileTooLarge { most: FILE_BYTES_MAX };
            return Err(WorkloadFaults::of_whole_file(origin, kind));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        parse::parse(SourceText { path: origin.to_owned(), text: text.into() })
    }

    /// Checks that every model file named is there and is a file. Blocks on the file system, once
    /// per stage; the files are not opened.
    ///
    /// # Errors
    /// Every file that is missing, in file order.
    pub fn check_files(&self) -> Result<(), WorkloadFaults> {
        let mut findings = Findings::default();
        for file in self.models.iter().flat_map(|model| model.backend.files()) {
            if let Some(kind) = file.fault() {
                findings.report(kind, file.span);
            }
        }
        if findings.is_empty() { Ok(()) } else { Err(findings.located_in(self.source.clone())) }
    }
}

impl Driver {
    /// The name in a workload file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Sim => "sim",
            Self::Cuda { .. } => "cuda",
        }
    }
}

impl Backend {
    /// The name in a workload file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Onnx(_) => "onnx",
            Self::Tvm(_) => "tvm",
            Self::Trt(_) => "trt",
            Self::Sim(_) => "sim",
        }
    }

    /// How many stages the model runs in.
    #[must_use]
    pub fn stage_count(&self) -> usize {
        match self {
            Self::Onnx(model) => model.stages.len(),
            Self::Tvm(model) => model.stages.len(),
            Self::Trt(model) => model.stages.len(),
            Self::Sim(model) => model.stages.len(),
        }
    }

    /// The files the model is made of; none for declared costs.
    #[must_use]
    pub fn files(&self) -> &[ModelFile] {
        match self {
            Self::Onnx(model) => &model.stages,
            Self::Tvm(model) => &model.stages,
            Self::Trt(model) => &model.stages,
            Self::Sim(_) => &[],
        }
    }
}

impl ModelFile {
    /// What is wrong with the file as the file system has it now.
    fn fault(&self) -> Option<FaultKind> {
        let path = self.path.clone();
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() => None,
            Ok(_) => Some(FaultKind::NotAFile { path }),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                Some(FaultKind::NoSuchFile { path })
            }
            Err(cause) => Some(FaultKind::FileOutOfReach { path, cause: cause.to_string() }),
        }
    }
}

/// Reads one byte more than [`FILE_BYTES_MAX`] at most, so that a file too large shows as such.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX.as_u64() + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The fault of a file that is no text, at its first bad byte.
fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> WorkloadFaults {
    let start = error.utf8_error().valid_up_to();
    // Every byte before `start` is valid, so the first replacement character stands at `start`.
    let text = String::from_utf8_lossy(error.as_bytes());
    let end = start + char::REPLACEMENT_CHARACTER.len_utf8();
    let mut findings = Findings::default();
    findings.report(FaultKind::NotUtf8, Span { start, end });
    findings.located_in(SourceText { path: path.to_owned(), text: text.as_ref().into() })
}

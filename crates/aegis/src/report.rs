//! What was promised and what was seen, model by model.

use aegis_cuda::{DeviceContext, DriverMemory, MemoryCount, MemoryUse, Realtime, ThreadSetup};
use aegis_memory::MemoryOrchestrator;
use aegis_sched::admission::{AdmissionConfig, AdmissionController};
use aegis_sched::analysis::{Bound, Setting, Test, look_ahead_charge};
use aegis_sched::metrics::Snapshot;
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::Overheads;
use aegis_trace::{AdmittedModel, Bytes, ModelId, Nanos, ServiceTerms};
use serde::Serialize;

/// The state of a runtime at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The executor that is the whole device; `None` where it is split.
    #[serde(flatten)]
    pub whole: Option<ExecutorReport>,
    /// The executors of a split device, in their order; empty where it is not split.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<PartitionReport>,
    /// What the analysis charges.
    #[serde(skip)]
    pub overheads: Overheads,
    /// Device memory.
    pub memory: MemoryReport,
    /// The whole limit of a GPU, our ledger beside the driver's count; `None` until it is taken from
    /// [`Runtime::driver_memory`](crate::Runtime::driver_memory).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_memory: Option<DriverMemoryReport>,
    /// Every model ever admitted, in that order.
    pub models: Vec<ModelReport>,
    /// Trace events lost to full rings.
    pub events_dropped: u64,
}

/// One serial executor: how its jobs are ordered and proved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExecutorReport {
    /// The policy that orders the jobs.
    pub policy: PolicyKind,
    /// The theorem that accepted the present set; `None` without models.
    pub test: Option<Test>,
    /// `sum C/T` in millionths, overheads left out but in servers, rounded down; for display.
    pub utilisation_ppm: u64,
    /// The longest stage in the background, overhead left out: it can block every model. Zero for
    /// none.
    pub background: Nanos,
    /// What look-ahead adds to the blocking of every model, overheads included; `None` where it is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look_ahead: Option<Nanos>,
}

impl ExecutorReport {
    pub(crate) fn of(admission: &AdmissionController) -> Self {
        let AdmissionConfig { policy, overheads, .. } = *admission.config();
        let setting = Setting::admission(policy, overheads);
        Self {
            policy,
            test: admission.analysis().map(|analysis| analysis.test),
            utilisation_ppm: admission.tasks().utilisation_ppm(),
            background: admission.tasks().background().longest,
            look_ahead: look_ahead_charge(admission.tasks(), &setting),
        }
    }
}

/// One partition of a split device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartitionReport {
    /// Its name.
    pub name: String,
    /// The streaming multiprocessors it asked for.
    pub sms: Option<u32>,
    /// Those that the driver granted it; `None` where it grants none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<u32>,
    /// What runs in it.
    #[serde(flatten)]
    pub executor: ExecutorReport,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelReport {
    /// Its id in the trace.
    pub model: ModelId,
    /// Its name.
    pub name: String,
    /// The partition it runs in, where the device is split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// What it was promised, with the numbers of the promise.
    #[serde(flatten)]
    pub service: ServiceTerms,
    /// `C`: cost of one job, overheads included.
    pub cost: Nanos,
    /// Worst-case response time in the present set; `None` for best effort.
    pub bound: Option<Nanos>,
    /// The part of it that is blocking by a stage that cannot be preempted.
    pub blocking: Option<Nanos>,
    /// Deadline minus bound.
    pub slack: Option<Nanos>,
    /// Memory that stays.
    pub resident: Bytes,
    /// Memory shared with the other models of its partition.
    pub scratch: Bytes,
    /// What the libraries of its runtime took of the device beside that, by the driver's count; what
    /// all models share counts for the first that needed it.
    #[serde(skip_serializing_if = "is_zero")]
    pub foreign: Bytes,
    /// What its runtime says of how it was prepared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// Whether it is gone.
    pub evicted: bool,
    /// What it has done.
    pub observed: Snapshot,
}

/// How the threads that matter to one partition are scheduled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RealtimeReport {
    /// What the orchestrator was granted.
    pub orchestrator: ThreadSetup,
    /// The stream workers of a host device; on a GPU with `wait = "block"` the threads that wait for
    /// the ends of stages.
    pub workers: Realtime,
    /// The partition they serve, where the device is split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
}

/// Device memory in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryReport {
    /// Memory that stays, summed over all models.
    pub resident: Bytes,
    /// Scratch, shared by the models of each partition.
    pub scratch: Bytes,
    /// The hard limit.
    pub limit: Bytes,
}

/// What the process takes of a GPU: by our ledger, and by the driver's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DriverMemoryReport {
    /// Making the driver's context.
    pub context: Bytes,
    /// The arena that models are bound in, free parts included.
    pub arena: Bytes,
    /// What libraries took beside it, as far as it was measured and charged.
    pub libraries: Bytes,
    /// The part of `libraries` that was loaded once for the whole process: the code of kernels.
    pub modules: Bytes,
    /// The part of `libraries` that the driver keeps for captured graphs that allocate.
    pub graphs: Bytes,
    /// The hard limit on the sum of context, arena and libraries.
    pub limit: Bytes,
    /// What the driver counts for this process; `None` where it cannot tell.
    pub counted: Option<Bytes>,
    /// How it counts; `None` where it does not.
    pub by: Option<MemoryCount>,
    /// What it counted just before jobs began; `None` where it could not tell, or none began.
    pub counted_at_start: Option<Bytes>,
    /// What the driver says that it keeps for graphs now; `None` where it does not.
    pub graphs_now: Option<Bytes>,
}

impl DriverMemoryReport {
    pub(crate) fn of(device: &DeviceContext, counted_at_start: Option<Bytes>) -> Option<Self> {
        let DriverMemory { process: counted, counted: by, graphs: graphs_now, .. } =
            device.driver_memory()?;
        let used = device.memory_use();
        let MemoryUse { context, arenas: arena, modules, graphs, .. } = used;
        let (libraries, limit) = (used.libraries(), device.memory_limit());
        let by = counted.map(|_| by);
        Some(Self {
            context,
            arena,
            libraries,
            modules,
            graphs,
            limit,
            counted,
            by,
            counted_at_start,
            graphs_now,
        })
    }

    /// The part of `libraries` that is neither modules nor graphs: handles and workspaces.
    #[must_use]
    pub fn handles(&self) -> Bytes {
        self.libraries.saturating_sub(self.modules).saturating_sub(self.graphs)
    }

    /// What the driver's count grew by since jobs began; `None` where it is not known.
    #[must_use]
    pub fn grown_since_start(&self) -> Option<Bytes> {
        Some(self.counted?.saturating_sub(self.counted_at_start?))
    }

    /// The sum of our ledger.
    #[must_use]
    pub fn ledger(&self) -> Bytes {
        self.context + self.arena + self.libraries
    }

    /// Whether the driver's count stays within the limit; `None` where it cannot tell.
    #[must_use]
    pub fn is_kept(&self) -> Option<bool> {
        self.counted.map(|counted| counted <= self.limit)
    }
}

fn is_zero(bytes: &Bytes) -> bool {
    *bytes == Bytes::ZERO
}

impl MemoryReport {
    pub(crate) fn of(memory: &MemoryOrchestrator) -> Self {
        let usage = memory.current_usage();
        Self { resident: usage.resident, scratch: usage.scratch, limit: memory.capacity() }
    }
}

impl ModelReport {
    pub(crate) fn promised(model: ModelId, promise: AdmittedModel, overheads: &Overheads) -> Self {
        let AdmittedModel { name, service, stages, bound, persistent, scratch, partition, .. } =
            promise;
        let cost = overheads.total(&stages);
        let mut report = Self {
            model,
            name,
            partition,
            service,
            cost,
            bound,
            blocking: None,
            slack: None,
            resident: persistent,
            scratch,
            foreign: Bytes::ZERO,
            remarks: Vec::new(),
            evicted: false,
            observed: Snapshot::default(),
        };
        report.slack = report.deadline().zip(bound).map(|(d, bound)| d.saturating_sub(bound));
        report
    }

    /// Takes over a bound of the present set. That of a server is about its refills, and is promised
    /// to no job.
    pub(crate) fn update(&mut self, bound: &Bound) {
        if !self.service.is_guaranteed() {
            return;
        }
        self.cost = bound.cost;
        self.bound = Some(bound.response);
        self.blocking = Some(bound.blocking);
        self.slack = Some(bound.slack);
    }

    /// `T`: of a server, that of its refills; `None` in the background.
    #[must_use]
    pub fn period(&self) -> Option<Nanos> {
        match self.service {
            ServiceTerms::Guaranteed { period, .. } | ServiceTerms::Server { period, .. } => {
                Some(period)
            }
            ServiceTerms::Background => None,
        }
    }

    /// `D`; `None` for best effort.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        match self.service {
            ServiceTerms::Guaranteed { deadline, .. } => Some(deadline),
            ServiceTerms::Background | ServiceTerms::Server { .. } => None,
        }
    }
}

impl Report {
    /// Every executor with the name of its partition, if it has one.
    pub fn executors(&self) -> impl Iterator<Item = (Option<&str>, &ExecutorReport)> {
        let split = self.partitions.iter().map(|of| (Some(of.name.as_str()), &of.executor));
        self.whole.iter().map(|whole| (None, whole)).chain(split)
    }

    /// Deadlines missed by all models.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.models.iter().map(|model| model.observed.counts.missed).sum()
    }
}

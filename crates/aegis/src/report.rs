//! What was promised and what was seen, model by model.

use aegis_cuda::Realtime;
use aegis_memory::MemoryOrchestrator;
use aegis_sched::analysis::{Bound, Test};
use aegis_sched::metrics::Snapshot;
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::Overheads;
use aegis_trace::{AdmittedModel, Bytes, ModelId, Nanos};
use serde::Serialize;

/// The state of a runtime at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The policy that orders the jobs.
    pub policy: PolicyKind,
    /// The theorem that accepted the present set; `None` without models.
    pub test: Option<Test>,
    /// What the analysis charges.
    #[serde(skip)]
    pub overheads: Overheads,
    /// Device memory.
    pub memory: MemoryReport,
    /// `sum C/T` in millionths, overheads left out, rounded down; for display.
    pub utilisation_ppm: u64,
    /// Every model ever admitted, in that order.
    pub models: Vec<ModelReport>,
    /// Trace events lost to full rings.
    pub events_dropped: u64,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelReport {
    /// Its id in the trace.
    pub model: ModelId,
    /// Its name.
    pub name: String,
    /// `C`: cost of one job, overheads included.
    pub cost: Nanos,
    /// `T`.
    pub period: Nanos,
    /// `D`.
    pub deadline: Nanos,
    /// Worst-case response time in the present set.
    pub bound: Nanos,
    /// The part of it that is blocking by a stage that cannot be preempted.
    pub blocking: Nanos,
    /// Deadline minus bound.
    pub slack: Nanos,
    /// Memory that stays.
    pub resident: Bytes,
    /// Memory shared with the other models.
    pub scratch: Bytes,
    /// Whether it is gone.
    pub evicted: bool,
    /// What it has done.
    pub observed: Snapshot,
}

/// How the threads that matter are scheduled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RealtimeReport {
    /// The orchestrator.
    pub orchestrator: Realtime,
    /// The stream workers of a host device.
    pub workers: Realtime,
}

/// Device memory in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryReport {
    /// Memory that stays, summed over all models.
    pub resident: Bytes,
    /// Scratch shared by all models.
    pub scratch: Bytes,
    /// The hard limit.
    pub limit: Bytes,
}

impl MemoryReport {
    pub(crate) fn of(memory: &MemoryOrchestrator) -> Self {
        let usage = memory.current_usage();
        Self { resident: usage.resident, scratch: usage.scratch, limit: memory.capacity() }
    }
}

impl ModelReport {
    pub(crate) fn promised(model: ModelId, promise: AdmittedModel) -> Self {
        Self {
            model,
            cost: Nanos::ZERO,
            period: promise.period,
            deadline: promise.deadline,
            bound: promise.bound,
            blocking: Nanos::ZERO,
            slack: promise.deadline.saturating_sub(promise.bound),
            resident: promise.persistent,
            scratch: promise.scratch,
            name: promise.name,
            evicted: false,
            observed: Snapshot::default(),
        }
    }

    pub(crate) fn update(&mut self, bound: &Bound) {
        self.cost = bound.cost;
        self.bound = bound.response;
        self.blocking = bound.blocking;
        self.slack = bound.slack;
    }
}

impl Report {
    /// Deadlines missed by all models.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.models.iter().map(|model| model.observed.counts.missed).sum()
    }
}

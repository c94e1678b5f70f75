//! Every metric there is, with its name, unit and labels.
//!
//! Names follow Prometheus' rules: a prefix, base units (seconds, bytes), `_total` for counters. The
//! encoder adds prefix, unit and `_total`.

use std::sync::atomic::AtomicU64;

use aegis_trace::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::labels::{
    ModelAssumption, ModelCategory, ModelCause, ModelInfo, ModelReason, OfMemory, OfModel,
    OfReason, OfStage, StageReason,
};

/// Seconds, for display: counts of nanoseconds decide elsewhere.
pub(super) type Seconds = Gauge<f64, AtomicU64>;
pub(super) type SecondsTotal = Counter<f64, AtomicU64>;
type Times = Family<OfModel, Histogram, fn() -> Histogram>;

/// Upper ends of the buckets of times, in seconds: 1, 2, 5 in each decade from 10 us to 10 s. The same
/// for all models, since a metric of one name has one set of buckets.
const BUCKETS: [f64; 19] = [
    1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 2e-1, 5e-1, 1.0,
    2.0, 5.0, 10.0,
];

/// All metrics. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Families {
    pub(super) info: Family<ModelInfo, Gauge>,
    pub(super) fenced: Family<OfModel, Gauge>,
    pub(super) submitted: Family<OfModel, Counter>,
    pub(super) completed: Family<OfModel, Counter>,
    pub(super) missed: Family<OfModel, Counter>,
    pub(super) dropped: Family<ModelReason, Counter>,
    pub(super) failed: Family<ModelCategory, Counter>,
    pub(super) turned_away: Family<ModelReason, Counter>,
    pub(super) models_refused: Family<OfReason, Counter>,
    pub(super) broken: Family<ModelAssumption, Counter>,
    pub(super) exceeded: Family<ModelCause, Counter>,
    pub(super) hanging: Family<OfModel, Counter>,
    pub(super) allocations_refused: Family<OfModel, Counter>,
    pub(super) stale: Family<StageReason, Counter>,
    pub(super) drift: Family<OfStage, Seconds>,
    pub(super) response: Times,
    pub(super) execution: Times,
    pub(super) worst: Family<OfModel, Seconds>,
    pub(super) bound: Family<OfModel, Seconds>,
    pub(super) deadline: Family<OfModel, Seconds>,
    pub(super) slack: Family<OfModel, Seconds>,
    pub(super) busy: Family<OfModel, SecondsTotal>,
    pub(super) queue: Family<OfModel, Gauge>,
    pub(super) memory: Family<OfMemory, Gauge>,
    pub(super) pressure: Gauge,
    pub(super) events: Counter,
    pub(super) events_dropped: Counter,
}

fn times() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Families {
    /// All of them at zero, and the registry that encodes them. `limit` is that of device memory.
    pub(super) fn register(limit: Bytes) -> (Self, Registry) {
        let families = Self::empty();
        let mut registry = Registry::with_prefix("aegis");
        families.register_models(&mut registry);
        families.register_faults(&mut registry);
        families.register_times(&mut registry);
        families.register_rest(&mut registry, limit);
        (families, registry)
    }

    fn empty() -> Self {
        Self {
            info: Family::default(),
            fenced: Family::default(),
            submitted: Family::default(),
            completed: Family::default(),
            missed: Family::default(),
            dropped: Family::default(),
            failed: Family::default(),
            turned_away: Family::default(),
            models_refused: Family::default(),
            broken: Family::default(),
            exceeded: Family::default(),
            hanging: Family::default(),
            allocations_refused: Family::default(),
            stale: Family::default(),
            drift: Family::default(),
            response: Family::new_with_constructor(times),
            execution: Family::new_with_constructor(times),
            worst: Family::default(),
            bound: Family::default(),
            deadline: Family::default(),
            slack: Family::default(),
            busy: Family::default(),
            queue: Family::default(),
            memory: Family::default(),
            pressure: Gauge::default(),
            events: Counter::default(),
            events_dropped: Counter::default(),
        }
    }

    fn register_models(&self, registry: &mut Registry) {
        let mut of = Adder { registry, unit: None };
        of.add("model_info", "1 for each admitted model, with what it is as labels", &self.info);
        of.add("model_fenced", "1 for a model that is fenced after a fault", &self.fenced);
        of.add("jobs_submitted", "Jobs accepted", &self.submitted);
        of.add("jobs_completed", "Jobs that ended with outputs", &self.completed);
        of.add("deadline_misses", "Completed jobs that ended after their deadline", &self.missed);
        of.add("jobs_dropped", "Accepted jobs given up without a result", &self.dropped);
        of.add("jobs_failed", "Jobs the model failed in, by category", &self.failed);
        of.add("submissions_refused", "Submissions turned away", &self.turned_away);
        of.add("models_refused", "Models not admitted, by the inequality", &self.models_refused);
        let help = "Jobs accepted whose first stage has not been launched";
        of.add("queue_depth", help, &self.queue);
    }

    fn register_faults(&self, registry: &mut Registry) {
        let mut of = Adder { registry, unit: None };
        of.add("assumptions_broken", "Assumptions of the proof that a job broke", &self.broken);
        let help = "Jobs beyond their bound: because of a broken_assumption, or with all intact, \
                    which is a defect of AegisRT";
        of.add("bounds_exceeded", help, &self.exceeded);
        of.add(
            "stages_hanging",
            "Stages that held the device far beyond their charge",
            &self.hanging,
        );
        let help = "Allocations beyond a model's binding that were refused";
        of.add("allocations_refused", help, &self.allocations_refused);
        let help = "Times that the evidence of a stage was found not to hold any more";
        of.add("evidence_stale", help, &self.stale);
        let mut of = Adder { registry, unit: Some(Unit::Seconds) };
        let help = "By how much jobs exceeded their measured mean in sum, when drift was found";
        of.add("evidence_drift", help, &self.drift);
    }

    fn register_times(&self, registry: &mut Registry) {
        let mut of = Adder { registry, unit: Some(Unit::Seconds) };
        of.add("response", "From release to noticed completion", &self.response);
        of.add("execution", "Device time of all stages of a job", &self.execution);
        of.add("response_max", "The longest response so far", &self.worst);
        of.add("bound", "Worst-case response time that was proved", &self.bound);
        of.add("deadline", "Relative deadline", &self.deadline);
        of.add("slack", "Deadline less bound", &self.slack);
        of.add("device_busy", "Time that the device ran stages", &self.busy);
    }

    fn register_rest(&self, registry: &mut Registry, limit: Bytes) {
        let limit_gauge: Gauge = Gauge::default();
        limit_gauge.set(i64::try_from(limit.0).unwrap_or(i64::MAX));
        let mut of = Adder { registry, unit: Some(Unit::Bytes) };
        let help = "Memory of a model: resident is its own, scratch is shared within a partition";
        of.add("memory", help, &self.memory);
        of.add("memory_limit", "Limit of device memory for all models together", &limit_gauge);
        let mut of = Adder { registry, unit: None };
        let help = "Memory pressure: 0 ample, 1 low, 2 critical";
        of.add("memory_pressure", help, &self.pressure);
        of.add("trace_events", "Events taken from the trace rings", &self.events);
        of.add("trace_events_dropped", "Events lost to full trace rings", &self.events_dropped);
    }
}

/// Registers metrics of one unit, each shared with the registry.
struct Adder<'r> {
    registry: &'r mut Registry,
    unit: Option<Unit>,
}

impl Adder<'_> {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: &M) {
        match self.unit.clone() {
            None => self.registry.register(name, help, metric.clone()),
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric.clone()),
        }
    }
}

//! From events of the trace to metrics.
//!
//! # Invariants
//! 1. Memory grows with the number of models ever admitted and with the jobs that wait, which the
//!    submission queue bounds; not with the length of the run, also where events are lost.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use aegis_trace::{
    AdmittedModel, Bytes, JobId, ModelId, Nanos, PressureLevel, Record, ServiceTerms, StageIndex,
    Staleness, TraceEvent,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::families::{Families, Seconds, SecondsTotal};
use super::labels::{
    ASSUMPTIONS, CATEGORIES, DROP_REASONS, ModelAssumption, ModelCategory, ModelCause, ModelInfo,
    ModelReason, OfMemory, OfModel, OfReason, OfStage, SUBMIT_REFUSALS, StageReason, name,
};
use crate::observer::TraceObserver;

/// The cause of a bound that was exceeded with every assumption intact.
const NO_CAUSE: &str = "none";
/// The cause of one that was exceeded because an assumption was broken.
const BROKEN_ASSUMPTION: &str = "broken_assumption";

/// Feeds the metrics of one [server](super::MetricsServer); give it to the
/// [pump](crate::TracePump::start_observed).
#[derive(Debug)]
pub struct MetricsFeed {
    families: Families,
    models: BTreeMap<ModelId, Series>,
    /// Jobs that were accepted and have not begun.
    waiting: HashSet<JobId>,
    dropped: u64,
}

/// The metrics of one model that every job touches.
#[derive(Debug)]
struct Series {
    name: String,
    info: ModelInfo,
    deadline: Option<Nanos>,
    submitted: Counter,
    completed: Counter,
    response: Histogram,
    execution: Histogram,
    busy: SecondsTotal,
    queue: Gauge,
    worst: Seconds,
}

impl MetricsFeed {
    /// Metrics at zero, and the registry that shows them.
    pub(super) fn new(memory_limit: Bytes) -> (Self, Arc<Registry>) {
        let (families, registry) = Families::register(memory_limit);
        let (models, waiting) = (BTreeMap::new(), HashSet::new());
        (Self { families, models, waiting, dropped: 0 }, Arc::new(registry))
    }
}

impl TraceObserver for MetricsFeed {
    fn observe(&mut self, record: &Record) {
        self.families.events.inc();
        match &record.event {
            TraceEvent::Admitted { model, what } => self.admitted(*model, what),
            TraceEvent::BoundChanged { model, bound } => self.bound(*model, *bound),
            TraceEvent::Evicted { model } => self.evicted(*model),
            TraceEvent::Refused { what } => {
                let reason = name(&what.why, "refusal");
                self.families.models_refused.get_or_create(&OfReason { reason }).inc();
            }
            TraceEvent::PressureChanged { to, .. } => {
                self.families.pressure.set(match to {
                    PressureLevel::Ample => 0,
                    PressureLevel::Low => 1,
                    PressureLevel::Critical => 2,
                });
            }
            event => {
                if let Some(model) = event.model() {
                    self.of_model(model, event);
                }
            }
        }
    }

    fn emptied(&mut self, dropped: u64) {
        let lost = dropped.saturating_sub(self.dropped);
        self.families.events_dropped.inc_by(lost);
        self.dropped = dropped;
        if lost > 0 {
            self.forget_waiting();
        }
    }
}

impl MetricsFeed {
    /// Any of the jobs that wait may have begun, and the event of that be lost. The depth is too low
    /// until those that still wait have begun, and right from then on; kept, it would be too high for
    /// ever.
    fn forget_waiting(&mut self) {
        self.waiting.clear();
        for series in self.models.values() {
            series.queue.set(0);
        }
    }

    fn admitted(&mut self, model: ModelId, what: &AdmittedModel) {
        let families = &self.families;
        let of = OfModel { model: what.name.clone() };
        let info = ModelInfo {
            model: what.name.clone(),
            id: model.to_string(),
            partition: what.partition.clone().unwrap_or_default(),
            service: name(&what.service, "service"),
        };
        families.info.get_or_create(&info).set(1);
        families.fenced.get_or_create(&of).set(0);
        for (kind, size) in [("resident", what.persistent), ("scratch", what.scratch)] {
            let memory = OfMemory { model: what.name.clone(), kind };
            families.memory.get_or_create(&memory).set(i64::try_from(size.0).unwrap_or(i64::MAX));
        }
        let deadline = match what.service {
            ServiceTerms::Guaranteed { deadline, .. } => Some(deadline),
            ServiceTerms::Background | ServiceTerms::Server { .. } => None,
        };
        if let Some(deadline) = deadline {
            families.deadline.get_or_create(&of).set(seconds(deadline));
        }
        self.begin_at_zero(&of);
        self.models.insert(model, Series::new(&self.families, &of, info, deadline));
        if let Some(bound) = what.bound {
            self.bound(model, bound);
        }
    }

    /// Makes the series of what is hoped never to happen, so that the first time is an increase.
    fn begin_at_zero(&self, of: &OfModel) {
        let families = &self.families;
        for family in [&families.missed, &families.hanging, &families.allocations_refused] {
            family.get_or_create(of).inc_by(0);
        }
        let reasons = |reason: String| ModelReason { model: of.model.clone(), reason };
        for reason in DROP_REASONS {
            families.dropped.get_or_create(&reasons(name(&reason, ""))).inc_by(0);
        }
        for reason in SUBMIT_REFUSALS {
            families.turned_away.get_or_create(&reasons(name(&reason, ""))).inc_by(0);
        }
        let model = || of.model.clone();
        for category in CATEGORIES {
            let category = name(&category, "");
            let of = ModelCategory { model: model(), category };
            families.failed.get_or_create(&of).inc_by(0);
        }
        for assumption in ASSUMPTIONS {
            let assumption = name(&assumption, "");
            let of = ModelAssumption { model: model(), assumption };
            families.broken.get_or_create(&of).inc_by(0);
        }
        for cause in [NO_CAUSE, BROKEN_ASSUMPTION] {
            families.exceeded.get_or_create(&ModelCause { model: model(), cause }).inc_by(0);
        }
    }

    fn bound(&self, model: ModelId, bound: Nanos) {
        let Some(series) = self.models.get(&model) else { return };
        let of = OfModel { model: series.name.clone() };
        self.families.bound.get_or_create(&of).set(seconds(bound));
        if let Some(deadline) = series.deadline {
            let slack = seconds(deadline.saturating_sub(bound));
            self.families.slack.get_or_create(&of).set(slack);
        }
    }

    /// What was promised to a model goes with it; what it has done stays.
    fn evicted(&mut self, model: ModelId) {
        let Some(series) = self.models.remove(&model) else { return };
        let of = OfModel { model: series.name };
        let families = &self.families;
        families.info.remove(&series.info);
        for family in [&families.bound, &families.deadline, &families.slack] {
            family.remove(&of);
        }
        families.queue.remove(&of);
        families.fenced.remove(&of);
        for kind in ["resident", "scratch"] {
            families.memory.remove(&OfMemory { model: of.model.clone(), kind });
        }
        self.waiting.retain(|job| job.model != model);
    }

    fn of_model(&mut self, model: ModelId, event: &TraceEvent) {
        let Some(series) = self.models.get_mut(&model) else { return };
        if let Some(job) = begun_or_over(event)
            && self.waiting.remove(&job)
        {
            series.queue.dec();
        }
        match event {
            TraceEvent::Submitted { job, .. } => {
                series.submitted.inc();
                if self.waiting.insert(*job) {
                    series.queue.inc();
                }
            }
            TraceEvent::StageCompleted { started, finished, .. } => {
                series.busy.inc_by(seconds(Nanos(finished.0.saturating_sub(started.0))));
            }
            TraceEvent::Completed { response, execution, .. } => {
                series.completed.inc();
                series.response.observe(seconds(*response));
                series.execution.observe(seconds(*execution));
                // The gauge is the memory: a model of the same name before this one counts too.
                series.worst.set(series.worst.get().max(seconds(*response)));
            }
            _ => count_fault(&self.families, &series.name, event),
        }
    }
}

/// The job that does not wait for its first stage any more. Its end counts as well: the event of its
/// beginning may have been lost.
fn begun_or_over(event: &TraceEvent) -> Option<JobId> {
    match event {
        TraceEvent::Dispatched { job, .. }
        | TraceEvent::Completed { job, .. }
        | TraceEvent::Dropped { job, .. }
        | TraceEvent::Faulted { job, .. } => Some(*job),
        _ => None,
    }
}

/// Counts what should not happen.
fn count_fault(families: &Families, model: &str, event: &TraceEvent) {
    let model = model.to_owned();
    let of = OfModel { model: model.clone() };
    let because = |reason: String| ModelReason { model: model.clone(), reason };
    match event {
        TraceEvent::MissedDeadline { .. } => families.missed.get_or_create(&of).inc(),
        TraceEvent::Dropped { why, .. } => {
            families.dropped.get_or_create(&because(name(why, ""))).inc()
        }
        TraceEvent::Faulted { category, .. } => {
            let category = name(category, "");
            families.failed.get_or_create(&ModelCategory { model, category }).inc()
        }
        TraceEvent::SubmissionRefused { why, .. } => {
            families.turned_away.get_or_create(&because(name(why, ""))).inc()
        }
        TraceEvent::AssumptionBroken { assumption, .. } => {
            let assumption = name(assumption, "");
            families.broken.get_or_create(&ModelAssumption { model, assumption }).inc()
        }
        TraceEvent::BoundExceeded { cause, .. } => {
            let cause = if cause.is_some() { BROKEN_ASSUMPTION } else { NO_CAUSE };
            families.exceeded.get_or_create(&ModelCause { model, cause }).inc()
        }
        TraceEvent::Hanging { .. } => families.hanging.get_or_create(&of).inc(),
        TraceEvent::AllocationRefused { .. } => {
            families.allocations_refused.get_or_create(&of).inc()
        }
        TraceEvent::Fenced { .. } => families.fenced.get_or_create(&of).set(1).unsigned_abs(),
        TraceEvent::EvidenceStale { stage, why, .. } => stale(families, model, *stage, why),
        _ => 0,
    };
}

fn stale(families: &Families, model: String, stage: StageIndex, why: &Staleness) -> u64 {
    let stage = u64::from(stage.0);
    if let Staleness::Drift { excess, .. } = why {
        let of = OfStage { model: model.clone(), stage };
        families.drift.get_or_create(&of).set(seconds(*excess));
    }
    families
        .stale
        .get_or_create(&StageReason { model, stage, reason: name(why, "staleness") })
        .inc()
}

/// For display: Prometheus knows floats alone.
fn seconds(time: Nanos) -> f64 {
    time.0 as f64 / 1e9
}

impl Series {
    fn new(families: &Families, of: &OfModel, info: ModelInfo, deadline: Option<Nanos>) -> Self {
        Self {
            name: of.model.clone(),
            info,
            deadline,
            submitted: families.submitted.get_or_create_owned(of),
            completed: families.completed.get_or_create_owned(of),
            response: families.response.get_or_create_owned(of),
            execution: families.execution.get_or_create_owned(of),
            busy: families.busy.get_or_create_owned(of),
            queue: families.queue.get_or_create_owned(of),
            worst: families.worst.get_or_create_owned(of),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: &str) -> Record {
        serde_json::from_str(&format!(r#"{{"at":0,"by":0,{event}}}"#)).expect("a record")
    }

    #[test]
    fn jobs_whose_beginning_was_lost_do_not_wait_for_ever() {
        let (mut feed, _) = MetricsFeed::new(Bytes::from_mib(1));
        feed.observe(&record(
            r#""event":"admitted","model":"m0","what":{"name":"camera","service":"background",
            "may_be_suspended":true,"compute":0,"streams":1,"slots":2,"stages":[1],"overhead":0,
            "bound":null,"persistent":0,"scratch":0}"#,
        ));
        let submitted = |n: u64| {
            record(&format!(
                r#""event":"submitted","job":"m0#{n}","arrival":0,"release":0,"deadline":null"#
            ))
        };
        let depth = |feed: &MetricsFeed| feed.models[&ModelId::first(0)].queue.get();
        (0..5).for_each(|n| feed.observe(&submitted(n)));
        feed.emptied(0);
        assert_eq!((depth(&feed), feed.waiting.len()), (5, 5), "nothing is lost");
        feed.emptied(10);
        assert_eq!((depth(&feed), feed.waiting.len()), (0, 0), "they may all have begun");
        feed.observe(&record(r#""event":"completed","job":"m0#4","response":1,"execution":1"#));
        feed.observe(&submitted(5));
        feed.emptied(10);
        assert_eq!(depth(&feed), 1, "and from here on it is right again");
    }
}

//! What a page keeps of a trace.
//!
//! # Invariants
//! 1. Every list is bounded by the admitted models, by closed enums, by [`PARTITIONS_MAX`], or by
//!    [`LISTED_MAX`] with a count of the rest. What is about models that were not admitted, which a
//!    foreign trace can have any number of, is one row.

use std::collections::BTreeMap;

use aegis_trace::export::json::Ending;
use aegis_trace::{
    AdmittedModel, Assumption, Bytes, JobId, ModelId, Nanos, Overheads, Record, ServiceTerms,
    StageIndex, Staleness, Timestamp, TraceEvent,
};

use super::times::Times;
use super::window::{Window, Worst};
use crate::narrate;
use crate::observer::Names;

/// Entries of a list that are shown; the others are counted.
const LISTED_MAX: usize = 200;
/// Partitions that are told apart.
const PARTITIONS_MAX: usize = 64;

/// Everything the page shows.
#[derive(Debug, Default)]
pub(super) struct Digest {
    pub(super) records: u64,
    pub(super) ending: Option<Ending>,
    pub(super) first: Option<Timestamp>,
    pub(super) last: Timestamp,
    pub(super) names: Names,
    /// In the order of admission.
    pub(super) models: Vec<Model>,
    places: BTreeMap<ModelId, usize>,
    pub(super) refused: Listed<RefusedAt>,
    pub(super) stale: Listed<StaleAt>,
    /// What is charged beside costs, by partition.
    overheads: BTreeMap<Option<String>, Overheads>,
    /// Jobs that did not complete, by model and why.
    pub(super) lost: BTreeMap<(Whose, Loss), u64>,
    pub(super) broken: BTreeMap<(Whose, Assumption), Broken>,
    /// By model, and whether a broken assumption is the cause.
    pub(super) exceeded: BTreeMap<(Whose, bool), Exceeded>,
    /// Busy periods after which guarantees held again.
    pub(super) restored: u64,
    pub(super) memory: Memory,
    /// By partition: no job of one waits for a stage of another.
    worst: BTreeMap<Option<String>, Worst>,
}

/// Whose jobs a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    /// Those of an admitted model.
    Model(ModelId),
    /// Those of all models together whose admission the trace lacks: there may be any number.
    Unadmitted,
}

/// A list of which only so much is kept.
#[derive(Debug)]
pub(super) struct Listed<T> {
    pub(super) kept: Vec<T>,
    pub(super) all: u64,
}

/// One model.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) id: ModelId,
    pub(super) what: AdmittedModel,
    /// The bound in the last set.
    pub(super) bound: Option<Nanos>,
    pub(super) evicted: bool,
    pub(super) fenced: bool,
    pub(super) response: Times,
    pub(super) execution: Times,
    pub(super) missed: u64,
    pub(super) latest: Option<(Nanos, JobId)>,
}

#[derive(Debug)]
pub(super) struct RefusedAt {
    pub(super) at: Timestamp,
    pub(super) name: String,
    pub(super) words: String,
}

#[derive(Debug)]
pub(super) struct StaleAt {
    pub(super) at: Timestamp,
    pub(super) job: JobId,
    pub(super) stage: StageIndex,
    pub(super) why: Staleness,
}

/// How a job came to have no result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Loss {
    TurnedAway(String),
    Dropped(String),
    Failed(String),
    Hanging,
    AllocationRefused,
}

/// How often an assumption was broken, and the worst case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken {
    pub(super) count: u64,
    pub(super) job: JobId,
    pub(super) assumed: Nanos,
    pub(super) observed: Nanos,
}

/// How often a bound was exceeded, and the worst case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exceeded {
    pub(super) count: u64,
    pub(super) job: JobId,
    pub(super) bound: Nanos,
    pub(super) response: Nanos,
    pub(super) cause: Option<JobId>,
}

/// The most memory that admitted models took together.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) peak: Bytes,
    /// Scratch of each partition at that time: the largest of its models.
    pub(super) scratch: BTreeMap<Option<String>, Bytes>,
    /// Who was there then, by place.
    pub(super) models: Vec<usize>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), all: 0 }
    }
}

impl<T> Listed<T> {
    fn push(&mut self, entry: T) {
        self.all += 1;
        if self.kept.len() < LISTED_MAX {
            self.kept.push(entry);
        }
    }

    /// How many are not shown.
    pub(super) fn more(&self) -> u64 {
        self.all - self.kept.len() as u64
    }
}

impl Model {
    pub(super) fn name(&self) -> &str {
        &self.what.name
    }

    /// `D`; `None` for best effort.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        match self.what.service {
            ServiceTerms::Guaranteed { deadline, .. } => Some(deadline),
            ServiceTerms::Background | ServiceTerms::Server { .. } => None,
        }
    }

    pub(super) fn slack(&self) -> Option<Nanos> {
        self.deadline().zip(self.bound).map(|(deadline, bound)| deadline.saturating_sub(bound))
    }
}

impl Digest {
    /// Whether nothing of the run is missing.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.ending, Some(Ending::Closed { records, dropped: 0 }) if records == self.records)
    }

    /// From the first to the last record.
    pub(super) fn span(&self) -> Nanos {
        Nanos(self.last.0.saturating_sub(self.first.unwrap_or(self.last).0))
    }

    pub(super) fn missed(&self) -> u64 {
        self.models.iter().map(|model| model.missed).sum()
    }

    pub(super) fn completed(&self) -> u64 {
        self.models.iter().map(|model| model.response.count()).sum()
    }

    /// Bounds exceeded because of a broken assumption, or with all of them intact.
    pub(super) fn exceeded_by(&self, is_excused: bool) -> u64 {
        let those = self.exceeded.iter().filter(|((_, excused), _)| *excused == is_excused);
        those.map(|(_, exceeded)| exceeded.count).sum()
    }

    /// `C` of a model: its stages with what its executor charges each. Where the trace lacks the
    /// configuration, with the overhead of its admission, which is the part for dispatch.
    pub(super) fn cost(&self, of: &Model) -> Nanos {
        let AdmittedModel { stages, overhead, partition, .. } = &of.what;
        let dispatch_alone = Overheads { dispatch: *overhead, ..Overheads::NONE };
        self.overheads.get(partition).unwrap_or(&dispatch_alone).total(stages)
    }

    /// What a row is called.
    pub(super) fn name_of(&self, whose: Whose) -> String {
        match whose {
            Whose::Model(model) => self.names.model(model),
            Whose::Unadmitted => "models without an admission".to_owned(),
        }
    }

    /// The window of the job that came closest to its bound in any partition.
    pub(super) fn worst_window(&self) -> Option<&Window> {
        let windows = self.worst.values().filter_map(Worst::window);
        windows.reduce(|worst, other| if other.is_worse_than(worst) { other } else { worst })
    }

    fn whose(&self, model: ModelId) -> Whose {
        if self.places.contains_key(&model) { Whose::Model(model) } else { Whose::Unadmitted }
    }

    /// What is watched for the partition of the model at `place`. A trace of ours has sixteen at most.
    fn watched(&mut self, place: Option<usize>) -> &mut Worst {
        let partition = place.and_then(|place| self.models[place].what.partition.clone());
        let has_room = self.worst.len() < PARTITIONS_MAX || self.worst.contains_key(&partition);
        self.worst.entry(partition.filter(|_| has_room)).or_default()
    }

    /// Takes note of one record.
    pub(super) fn take(&mut self, record: &Record) {
        self.records += 1;
        self.first = Some(self.first.map_or(record.at, |first| first.min(record.at)));
        self.last = self.last.max(record.at);
        self.names.learn(&record.event);
        let model = record.event.model();
        let place = model.and_then(|model| self.places.get(&model)).copied();
        if model.is_some() {
            let bound = place.and_then(|place| self.models[place].bound);
            self.watched(place).take(record, bound);
        }
        match &record.event {
            TraceEvent::Configured { what } if self.overheads.len() < PARTITIONS_MAX => {
                self.overheads.insert(what.partition.clone(), what.overheads);
            }
            TraceEvent::Admitted { model, what } => self.admitted(*model, what),
            TraceEvent::Refused { what } => {
                let words = narrate::refusal(what, &self.names);
                self.refused.push(RefusedAt { at: record.at, name: what.name.clone(), words });
            }
            TraceEvent::GuaranteesRestored { .. } => self.restored += 1,
            TraceEvent::EvidenceStale { job, stage, why } => {
                let (at, job, stage, why) = (record.at, *job, *stage, *why);
                self.stale.push(StaleAt { at, job, stage, why });
            }
            TraceEvent::AssumptionBroken { assumption, job, assumed, observed } => {
                self.break_one(*assumption, *job, *assumed, *observed);
            }
            TraceEvent::BoundExceeded { job, bound, response, cause } => {
                let exceeded = Exceeded {
                    count: 0,
                    job: *job,
                    bound: *bound,
                    response: *response,
                    cause: *cause,
                };
                self.exceed(exceeded);
            }
            event => {
                if let Some(loss) = loss(event).zip(model) {
                    *self.lost.entry((self.whose(loss.1), loss.0)).or_default() += 1;
                }
                if let Some(place) = place {
                    self.models[place].take(event);
                }
                if matches!(event, TraceEvent::Evicted { .. }) {
                    self.count_memory();
                }
            }
        }
    }

    fn admitted(&mut self, id: ModelId, what: &AdmittedModel) {
        // An id is given out once; a foreign trace that says otherwise describes the first.
        if self.places.contains_key(&id) {
            return;
        }
        self.places.insert(id, self.models.len());
        self.models.push(Model {
            id,
            what: what.clone(),
            bound: what.bound,
            evicted: false,
            fenced: false,
            response: Times::default(),
            execution: Times::default(),
            missed: 0,
            latest: None,
        });
        self.count_memory();
    }

    fn break_one(&mut self, assumption: Assumption, job: JobId, assumed: Nanos, observed: Nanos) {
        let new = Broken { count: 0, job, assumed, observed };
        let whose = self.whose(job.model);
        let known = self.broken.entry((whose, assumption)).or_insert(new);
        known.count += 1;
        let excess = |of: &Broken| of.observed.saturating_sub(of.assumed);
        if excess(&new) > excess(known) {
            *known = Broken { count: known.count, ..new };
        }
    }

    fn exceed(&mut self, new: Exceeded) {
        let whose = self.whose(new.job.model);
        let known = self.exceeded.entry((whose, new.cause.is_some())).or_insert(new);
        known.count += 1;
        let excess = |of: &Exceeded| of.response.saturating_sub(of.bound);
        if excess(&new) > excess(known) {
            *known = Exceeded { count: known.count, ..new };
        }
    }

    /// Keeps the set of models that took most together.
    fn count_memory(&mut self) {
        let present = self.models.iter().enumerate().filter(|(_, model)| !model.evicted);
        let present: Vec<usize> = present.map(|(place, _)| place).collect();
        let mut scratch: BTreeMap<Option<String>, Bytes> = BTreeMap::new();
        let mut sum = Bytes::ZERO;
        for place in &present {
            let what = &self.models[*place].what;
            sum = add(sum, what.persistent);
            let shared = scratch.entry(what.partition.clone()).or_default();
            *shared = (*shared).max(what.scratch);
        }
        let peak = scratch.values().fold(sum, |sum, shared| add(sum, *shared));
        let known = (self.memory.peak, self.memory.models.len());
        if (peak, present.len()) >= known {
            self.memory = Memory { peak, scratch, models: present };
        }
    }
}

impl Model {
    fn take(&mut self, event: &TraceEvent) {
        match event {
            TraceEvent::BoundChanged { bound, .. } => self.bound = Some(*bound),
            TraceEvent::Evicted { .. } => self.evicted = true,
            TraceEvent::Fenced { .. } => self.fenced = true,
            TraceEvent::Completed { job, response, execution } => {
                self.response.add(*job, *response);
                self.execution.add(*job, *execution);
            }
            TraceEvent::MissedDeadline { job, late } => {
                self.missed += 1;
                if self.latest.is_none_or(|(latest, _)| *late > latest) {
                    self.latest = Some((*late, *job));
                }
            }
            _ => {}
        }
    }
}

fn loss(event: &TraceEvent) -> Option<Loss> {
    match event {
        TraceEvent::SubmissionRefused { why, .. } => Some(Loss::TurnedAway(why.to_string())),
        TraceEvent::Dropped { why, .. } => Some(Loss::Dropped(why.to_string())),
        TraceEvent::Faulted { category, .. } => Some(Loss::Failed(category.to_string())),
        TraceEvent::Hanging { .. } => Some(Loss::Hanging),
        TraceEvent::AllocationRefused { .. } => Some(Loss::AllocationRefused),
        _ => None,
    }
}

/// Sizes of a foreign trace may be any.
fn add(a: Bytes, b: Bytes) -> Bytes {
    Bytes(a.0.saturating_add(b.0))
}

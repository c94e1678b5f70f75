//! What a run looks like at this moment, for whoever watches it.
//!
//! A [`LiveFeed`] is given to the pump and keeps a small state; a [`LiveView`] shares it and takes a
//! copy whenever a picture is due. Rows come from the trace alone, so they can be some 50 ms old.
//!
//! # Invariants
//! 1. Memory is bounded by the number of models and [`DECISIONS_MAX`], not by the length of the run.
//! 2. Integers count; nothing here decides.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_trace::{
    AdmittedModel, Clock, ModelId, Nanos, Record, ServiceTerms, Timestamp, TraceEvent,
};

use crate::narrate::{self, Weight};
use crate::observer::{Names, TraceObserver};

/// How many of the last decisions are kept, and how many of the last findings.
pub const DECISIONS_MAX: usize = 64;
/// Over what time the load is taken.
const LOAD_WINDOW: Nanos = Nanos::from_secs(1);

/// The reading end. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct LiveView {
    shared: Arc<Mutex<LiveState>>,
}

/// The writing end, which the pump feeds.
pub struct LiveFeed {
    view: LiveView,
    names: Names,
    /// What says that time passes where no record does.
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for LiveFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveFeed").field("view", &self.view).finish_non_exhaustive()
    }
}

/// A copy of everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveState {
    /// Every model ever admitted, in the order of their ids.
    pub models: Vec<LiveModel>,
    /// The last decisions and findings, the newest last.
    pub decisions: VecDeque<LiveLine>,
    /// The last findings and faults alone, the newest last: they would be gone in a moment among the
    /// decisions.
    pub findings: VecDeque<LiveLine>,
    /// The time of the newest record.
    pub now: Timestamp,
    /// Models that were refused.
    pub refused: u64,
    /// Events lost to full rings.
    pub dropped: u64,
    windows: BTreeMap<ModelId, Window>,
    places: BTreeMap<ModelId, usize>,
}

/// One decision or finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveLine {
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub weight: Weight,
    /// In words.
    pub words: String,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveModel {
    /// Its name.
    pub name: String,
    /// Its partition, where the device is split.
    pub partition: Option<String>,
    /// What it was promised.
    pub service: ServiceTerms,
    /// Worst-case response time; `None` for best effort.
    pub bound: Option<Nanos>,
    /// Whether it is gone.
    pub evicted: bool,
    /// Whether it is fenced.
    pub fenced: bool,
    /// Jobs that ended with outputs.
    pub completed: u64,
    /// Jobs that ended after their deadline.
    pub missed: u64,
    /// Submissions turned away, jobs dropped and jobs failed.
    pub lost: u64,
    /// Assumptions its jobs broke.
    pub broken: u64,
    /// The longest response so far.
    pub worst: Nanos,
    /// The last response.
    pub last: Nanos,
    /// Share of the last second that the device worked for it, in thousandths.
    pub load_permille: u64,
}

/// Device time of one model in the present and the last window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Window {
    number: u64,
    present: Nanos,
    last: Nanos,
}

impl LiveModel {
    fn admitted(what: &AdmittedModel) -> Self {
        Self {
            name: what.name.clone(),
            partition: what.partition.clone(),
            service: what.service,
            bound: what.bound,
            evicted: false,
            fenced: false,
            completed: 0,
            missed: 0,
            lost: 0,
            broken: 0,
            worst: Nanos::ZERO,
            last: Nanos::ZERO,
            load_permille: 0,
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

    /// Deadline less bound: what the proof leaves.
    #[must_use]
    pub fn slack(&self) -> Option<Nanos> {
        self.deadline().zip(self.bound).map(|(deadline, bound)| deadline.saturating_sub(bound))
    }
}

impl LiveView {
    /// A view and what feeds it; `clock` is that of the run.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> (Self, LiveFeed) {
        let view = Self::default();
        (view.clone(), LiveFeed { view, names: Names::default(), clock })
    }

    /// A copy of the present state. Blocks for a copy's time at most.
    #[must_use]
    pub fn snapshot(&self) -> LiveState {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, LiveState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TraceObserver for LiveFeed {
    fn observe(&mut self, record: &Record) {
        self.names.learn(&record.event);
        let weight = narrate::weight(&record.event);
        let line = (weight > Weight::Detail).then(|| LiveLine {
            at: record.at,
            weight,
            words: narrate::tell(&record.event, &self.names),
        });
        self.view.lock().take(record, line);
    }

    fn emptied(&mut self, dropped: u64) {
        let mut state = self.view.lock();
        state.dropped = dropped;
        state.refresh_load(self.clock.now());
    }
}

impl LiveState {
    /// Device time of the last second over that second, in thousandths, all models together. Beyond
    /// a thousand where several partitions or streams work at once.
    #[must_use]
    pub fn load_permille(&self) -> u64 {
        self.models.iter().map(|model| model.load_permille).sum()
    }

    fn take(&mut self, record: &Record, line: Option<LiveLine>) {
        self.now = self.now.max(record.at);
        if let Some(line) = line {
            if line.weight >= Weight::Finding {
                push(&mut self.findings, line.clone());
            }
            push(&mut self.decisions, line);
        }
        match &record.event {
            TraceEvent::Admitted { model, what } => {
                self.places.insert(*model, self.models.len());
                self.models.push(LiveModel::admitted(what));
            }
            TraceEvent::Refused { .. } => self.refused += 1,
            TraceEvent::StageCompleted { job, started, finished, .. } => {
                let window = self.windows.entry(job.model).or_default();
                window.add(*started, *finished);
            }
            event => {
                let place = event.model().and_then(|model| self.places.get(&model));
                if let Some(model) = place.and_then(|place| self.models.get_mut(*place)) {
                    model.take(event);
                }
            }
        }
    }

    fn refresh_load(&mut self, now: Timestamp) {
        let now = self.now.max(now);
        for (model, place) in &self.places {
            let used = self.windows.entry(*model).or_default().last_whole(now);
            self.models[*place].load_permille = used.0 / (LOAD_WINDOW.0 / 1_000);
        }
    }
}

/// Adds the newest line and forgets the oldest where there is no room.
fn push(lines: &mut VecDeque<LiveLine>, line: LiveLine) {
    if lines.len() == DECISIONS_MAX {
        lines.pop_front();
    }
    lines.push_back(line);
}

impl LiveModel {
    fn take(&mut self, event: &TraceEvent) {
        match event {
            TraceEvent::BoundChanged { bound, .. } => self.bound = Some(*bound),
            TraceEvent::Evicted { .. } => self.evicted = true,
            TraceEvent::Fenced { .. } => self.fenced = true,
            TraceEvent::Completed { response, .. } => {
                self.completed += 1;
                self.last = *response;
                self.worst = self.worst.max(*response);
            }
            TraceEvent::MissedDeadline { .. } => self.missed += 1,
            TraceEvent::SubmissionRefused { .. }
            | TraceEvent::Dropped { .. }
            | TraceEvent::Faulted { .. } => self.lost += 1,
            TraceEvent::AssumptionBroken { .. } => self.broken += 1,
            _ => {}
        }
    }
}

impl Window {
    /// Books the device time of a stage to the windows in which it ran, as far as they are kept.
    fn add(&mut self, started: Timestamp, finished: Timestamp) {
        self.move_to(finished);
        let begin = self.number.saturating_mul(LOAD_WINDOW.0);
        let inside = |from: u64| {
            let until = from.saturating_add(LOAD_WINDOW.0).min(finished.0);
            Nanos(until.saturating_sub(started.0.max(from)))
        };
        self.present = self.present.saturating_add(inside(begin));
        if let Some(before) = begin.checked_sub(LOAD_WINDOW.0) {
            self.last = self.last.saturating_add(inside(before));
        }
    }

    /// Device time of the last window that is over at `now`.
    fn last_whole(&mut self, now: Timestamp) -> Nanos {
        self.move_to(now);
        self.last
    }

    fn move_to(&mut self, at: Timestamp) {
        let number = at.0 / LOAD_WINDOW.0;
        match number.saturating_sub(self.number) {
            0 => return, // The same window, or a record that came late.
            1 => self.last = self.present,
            _ => self.last = Nanos::ZERO,
        }
        (self.number, self.present) = (number, Nanos::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use aegis_trace::{JobId, ManualClock, StageIndex};

    use super::*;

    const MODEL: ModelId = ModelId::first(0);

    fn admitted() -> TraceEvent {
        let admitted = r#"{"event":"admitted","model":"m0","what":{"name":"camera",
            "service":"guaranteed","period":10000000,"deadline":10000000,"jitter":0,"priority":0,
            "may_be_suspended":true,"compute":0,"streams":1,"slots":2,"stages":[1000000],
            "overhead":0,"bound":4000000,"persistent":1,"scratch":1}}"#;
        serde_json::from_str(admitted).expect("an event of the trace")
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp(millis * 1_000_000)
    }

    fn stage(number: u64, from: u64, to: u64) -> TraceEvent {
        let job = JobId { model: MODEL, sequence: number };
        let stage = StageIndex(0);
        let (started, finished) = (at(from), at(to));
        let [upload, download, ahead] = [Nanos::ZERO; 3];
        TraceEvent::StageCompleted { job, stage, started, finished, upload, download, ahead }
    }

    fn fed(events: impl IntoIterator<Item = (u64, TraceEvent)>) -> LiveState {
        fed_at(0, events)
    }

    fn fed_at(now: u64, events: impl IntoIterator<Item = (u64, TraceEvent)>) -> LiveState {
        let clock = Arc::new(ManualClock::new());
        let (view, mut feed) = LiveView::new(Arc::<ManualClock>::clone(&clock));
        for (millis, event) in events {
            feed.observe(&Record { at: at(millis), by: 0, event });
        }
        clock.advance_to(at(now));
        feed.emptied(2);
        view.snapshot()
    }

    #[test]
    fn a_row_has_slack_worst_and_counts() {
        let job = JobId { model: MODEL, sequence: 0 };
        let completed = |response| TraceEvent::Completed {
            job,
            response: Nanos::from_millis(response),
            execution: Nanos::from_millis(1),
        };
        let missed = TraceEvent::MissedDeadline { job, late: Nanos(1) };
        let state = fed([(0, admitted()), (1, completed(3)), (2, completed(2)), (2, missed)]);
        let camera = &state.models[0];
        assert_eq!((camera.worst, camera.last), (Nanos::from_millis(3), Nanos::from_millis(2)));
        assert_eq!(camera.slack(), Some(Nanos::from_millis(6)));
        assert_eq!((camera.completed, camera.missed), (2, 1));
        assert_eq!((state.findings.len(), state.decisions.len()), (1, 2), "a miss is both");
        assert_eq!(state.dropped, 2);
    }

    #[test]
    fn the_load_is_that_of_the_last_whole_second() {
        let ran = [(100, stage(0, 0, 100)), (500, stage(1, 300, 500))];
        let during = fed([(0, admitted())].into_iter().chain(ran.clone()));
        assert_eq!(during.load_permille(), 0, "the first second is not over");
        let next = (1_200, stage(2, 1_100, 1_200));
        let after = fed([(0, admitted())].into_iter().chain(ran.clone()).chain([next]));
        assert_eq!(after.load_permille(), 300);
        let much_later = (5_000, TraceEvent::Idle);
        let idle = fed([(0, admitted())].into_iter().chain(ran).chain([much_later]));
        assert_eq!(idle.load_permille(), 0);
    }

    #[test]
    fn a_stage_longer_than_the_window_is_no_more_than_all_of_it() {
        let long = (3_400, stage(0, 500, 3_400));
        let state = fed([(0, admitted()), long.clone()]);
        assert_eq!(state.load_permille(), 1_000, "all of the third second, and not 2900");
        let state = fed_at(4_100, [(0, admitted()), long]);
        assert_eq!(state.load_permille(), 400, "and what it ran of the fourth");
    }

    #[test]
    fn a_device_that_idles_without_a_record_has_no_load() {
        let ran = [(0, admitted()), (900, stage(0, 100, 900))];
        assert_eq!(fed_at(1_500, ran.clone()).load_permille(), 800);
        assert_eq!(fed_at(2_500, ran).load_permille(), 0);
    }

    #[test]
    fn only_the_last_decisions_are_kept() {
        let state = fed((0..100).map(|n| (n, TraceEvent::Evicting { model: MODEL })));
        assert_eq!(state.decisions.len(), DECISIONS_MAX);
        assert_eq!(state.decisions.back().map(|line| line.at), Some(at(99)));
    }
}

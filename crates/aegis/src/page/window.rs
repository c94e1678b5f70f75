//! The stretch of time in which a job came closest to its bound.
//!
//! Jobs are compared by response over bound; where no job has a bound, by response alone. The window
//! of the worst one reaches from its release, or from the start of the stage that was on the device
//! then, to its completion, and holds every stage that ran in it. Stages of other partitions are not
//! watched with it: nothing here waits for them.
//!
//! # Invariants
//! 1. The last [`SLICES_MAX`] stages are remembered, and the jobs that are under way, up to
//!    [`JOBS_MAX`]; a window that lost some of its stages to that limit says so.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use aegis_trace::{
    JobId, ModelId, Nanos, Reason, Record, StageIndex, StreamId, Timestamp, TraceEvent,
};

/// Stages that are remembered, and that one window shows.
const SLICES_MAX: usize = 512;
/// Jobs under way that are remembered. A trace of ours has far fewer; a foreign one must not fill
/// memory.
const JOBS_MAX: usize = 1 << 17;

/// One stage on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) job: JobId,
    pub(super) stage: StageIndex,
    /// Where it ran and why it was chosen; `None` where its dispatch was lost.
    pub(super) chosen: Option<(StreamId, Reason)>,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
    pub(super) release: Option<Timestamp>,
    pub(super) deadline: Option<Timestamp>,
}

/// The window around the worst job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) job: JobId,
    pub(super) release: Timestamp,
    pub(super) completed: Timestamp,
    pub(super) deadline: Option<Timestamp>,
    pub(super) response: Nanos,
    pub(super) bound: Option<Nanos>,
    /// In order of their starts.
    pub(super) slices: Vec<Slice>,
    /// Whether earlier or later stages of the window were forgotten.
    pub(super) is_cut: bool,
}

/// Watches a trace for its worst window.
#[derive(Debug, Default)]
pub(super) struct Worst {
    recent: VecDeque<Slice>,
    /// Whether a slice was forgotten, and until when the forgotten ones ran.
    forgotten: Option<Timestamp>,
    under_way: BTreeMap<JobId, UnderWay>,
    window: Option<Window>,
}

#[derive(Clone, Copy, Debug, Default)]
struct UnderWay {
    release: Option<Timestamp>,
    deadline: Option<Timestamp>,
    chosen: Option<(StreamId, Reason)>,
    next: Option<(StreamId, Reason)>,
}

impl Window {
    /// Whether its job came closer to its bound than that of `other`.
    pub(super) fn is_worse_than(&self, other: &Self) -> bool {
        let of = |window: &Self| (window.response, window.bound);
        closeness(of(self), of(other)) == Ordering::Greater
    }

    /// When the picture begins: at the release, or with the stage that was on the device then.
    pub(super) fn from(&self) -> Timestamp {
        let first = self.slices.iter().map(|slice| slice.started).min();
        first.map_or(self.release, |first| first.min(self.release))
    }

    /// How long the picture is; never zero.
    pub(super) fn length(&self) -> Nanos {
        Nanos(self.completed.0.saturating_sub(self.from().0).max(1))
    }

    /// Device time of the job itself inside the window.
    pub(super) fn own(&self) -> Nanos {
        self.time_of(|slice| slice.job == self.job)
    }

    /// Device time of each other model between release and completion, the longest first.
    pub(super) fn others(&self) -> Vec<(ModelId, Nanos)> {
        let mut of: BTreeMap<ModelId, Nanos> = BTreeMap::new();
        for slice in self.slices.iter().filter(|slice| slice.job != self.job) {
            let time = of.entry(slice.job.model).or_default();
            *time = time.saturating_add(self.inside(slice));
        }
        let mut of: Vec<_> = of.into_iter().filter(|(_, time)| *time > Nanos::ZERO).collect();
        of.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        of
    }

    /// Time between release and completion in which no stage ran at all.
    pub(super) fn idle(&self) -> Nanos {
        let (mut until, mut idle) = (self.release, Nanos::ZERO);
        for slice in &self.slices {
            let (from, to) =
                (slice.started.min(self.completed), slice.finished.min(self.completed));
            idle = idle.saturating_add(Nanos(from.0.saturating_sub(until.0)));
            until = until.max(to);
        }
        idle.saturating_add(Nanos(self.completed.0.saturating_sub(until.0)))
    }

    fn time_of(&self, is_meant: impl Fn(&Slice) -> bool) -> Nanos {
        let meant = self.slices.iter().filter(|slice| is_meant(slice));
        meant.map(|slice| self.inside(slice)).fold(Nanos::ZERO, Nanos::saturating_add)
    }

    /// What of a stage lies between release and completion.
    fn inside(&self, slice: &Slice) -> Nanos {
        let from = slice.started.max(self.release);
        Nanos(slice.finished.min(self.completed).0.saturating_sub(from.0))
    }
}

impl Worst {
    /// Takes note of one record. `bound` is that of the record's model at this time.
    pub(super) fn take(&mut self, record: &Record, bound: Option<Nanos>) {
        match &record.event {
            TraceEvent::Submitted { job, release, deadline, .. } => {
                self.job(*job, |job| {
                    (job.release, job.deadline) = (Some(*release), *deadline);
                });
            }
            TraceEvent::Postponed { job, release, deadline } => self.job(*job, |job| {
                (job.release, job.deadline) = (Some(*release), Some(*deadline));
            }),
            TraceEvent::Dispatched { job, stream, why, .. } => {
                let chosen = Some((*stream, *why));
                // With look-ahead a job's next stage is chosen before this one has ended.
                self.job(*job, |job| match job.chosen {
                    None => job.chosen = chosen,
                    Some(_) => job.next = chosen,
                });
            }
            TraceEvent::StageCompleted { job, stage, started, finished, .. } => {
                let UnderWay { release, deadline, chosen, next } =
                    self.under_way.get(job).copied().unwrap_or_default();
                if let Some(job) = self.under_way.get_mut(job) {
                    (job.chosen, job.next) = (next, None);
                }
                let (job, stage, started, finished) = (*job, *stage, *started, *finished);
                self.ran(Slice { job, stage, chosen, started, finished, release, deadline });
            }
            TraceEvent::Completed { job, response, .. } => {
                let known = self.under_way.remove(job).unwrap_or_default();
                self.completed(record.at, *job, *response, bound, known);
            }
            TraceEvent::Dropped { job, .. } | TraceEvent::Faulted { job, .. } => {
                self.under_way.remove(job);
            }
            _ => {}
        }
    }

    /// The worst window; `None` where no job was completed.
    pub(super) fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    fn job(&mut self, job: JobId, change: impl FnOnce(&mut UnderWay)) {
        if self.under_way.len() < JOBS_MAX || self.under_way.contains_key(&job) {
            change(self.under_way.entry(job).or_default());
        }
    }

    fn ran(&mut self, slice: Slice) {
        // Elsewhere a stage may end after the worst job did, and have run beside it.
        if let Some(window) = self.window.as_mut().filter(|of| slice.started < of.completed) {
            window.add(slice.clone());
        }
        if self.recent.len() == SLICES_MAX
            && let Some(old) = self.recent.pop_front()
        {
            self.forgotten = self.forgotten.max(Some(old.finished));
        }
        self.recent.push_back(slice);
    }

    fn completed(
        &mut self,
        at: Timestamp,
        job: JobId,
        response: Nanos,
        bound: Option<Nanos>,
        known: UnderWay,
    ) {
        let is_worse = self.window.as_ref().is_none_or(|worst| {
            closeness((response, bound), (worst.response, worst.bound)) == Ordering::Greater
        });
        if !is_worse {
            return;
        }
        let release = Timestamp(at.0.saturating_sub(response.0));
        let release = known.release.unwrap_or(release);
        let inside = |slice: &&Slice| slice.finished > release && slice.started < at;
        let mut slices: Vec<Slice> = self.recent.iter().filter(inside).cloned().collect();
        slices.sort_by_key(|slice| slice.started);
        let is_cut = self.forgotten.is_some_and(|until| until > release);
        let (completed, deadline) = (at, known.deadline);
        self.window =
            Some(Window { job, release, completed, deadline, response, bound, slices, is_cut });
    }
}

impl Window {
    fn add(&mut self, slice: Slice) {
        if slice.finished <= self.release {
            return;
        }
        if self.slices.len() >= 2 * SLICES_MAX {
            self.is_cut = true;
            return;
        }
        let place = self.slices.partition_point(|known| known.started <= slice.started);
        self.slices.insert(place, slice);
    }
}

/// Whether a job came closer to its bound than another: exactly, and any bound before none.
fn closeness(a: (Nanos, Option<Nanos>), b: (Nanos, Option<Nanos>)) -> Ordering {
    match (a.1, b.1) {
        (Some(of_a), Some(of_b)) => {
            let (a, b) = (u128::from(a.0.0), u128::from(b.0.0));
            (a * u128::from(of_b.0.max(1))).cmp(&(b * u128::from(of_a.0.max(1))))
        }
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.0.cmp(&b.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(model: u16, sequence: u64) -> JobId {
        JobId { model: ModelId::first(model), sequence }
    }

    fn feed(events: impl IntoIterator<Item = (u64, TraceEvent)>) -> Worst {
        let mut worst = Worst::default();
        for (at, event) in events {
            // Model 9 has no bound; all others have 100.
            let bound = event.model().filter(|m| m.index != 9).map(|_| Nanos(100));
            worst.take(&Record { at: Timestamp(at), by: 0, event }, bound);
        }
        worst
    }

    fn submitted(job: JobId, release: u64) -> (u64, TraceEvent) {
        let (arrival, deadline) = (Timestamp(release), Some(Timestamp(release + 200)));
        (release, TraceEvent::Submitted { job, arrival, release: Timestamp(release), deadline })
    }

    fn ran(job: JobId, from: u64, to: u64) -> (u64, TraceEvent) {
        let (started, finished) = (Timestamp(from), Timestamp(to));
        let (stage, [upload, download, ahead]) = (StageIndex(0), [Nanos::ZERO; 3]);
        (to, TraceEvent::StageCompleted { job, stage, started, finished, upload, download, ahead })
    }

    fn completed(job: JobId, at: u64, response: u64) -> (u64, TraceEvent) {
        (at, TraceEvent::Completed { job, response: Nanos(response), execution: Nanos(1) })
    }

    #[test]
    fn the_window_begins_with_the_stage_that_was_on_the_device() {
        let (blocker, late) = (job(0, 0), job(1, 0));
        let worst = feed([
            submitted(blocker, 0),
            submitted(late, 10),
            ran(blocker, 5, 40),
            completed(blocker, 41, 41),
            ran(late, 42, 90),
            completed(late, 91, 81),
        ]);
        let window = worst.window().expect("jobs were completed");
        assert_eq!((window.job, window.from(), window.length()), (late, Timestamp(5), Nanos(86)));
        assert_eq!(window.slices.len(), 2);
        assert_eq!(window.own(), Nanos(48));
        assert_eq!(window.others(), [(blocker.model, Nanos(30))]);
        assert_eq!(window.idle(), Nanos(3), "from 40 to 42, and from 90 to 91");
        assert!(!window.is_cut);
    }

    #[test]
    fn a_bound_counts_before_a_long_response_without_one() {
        let (bounded, background) = (job(0, 0), job(9, 0));
        let events = [completed(background, 1_000, 900), completed(bounded, 1_100, 20)];
        assert_eq!(feed(events).window().map(|window| window.job), Some(bounded));
        let alone = [completed(background, 1_000, 900)];
        assert_eq!(feed(alone).window().map(|window| window.job), Some(background));
    }

    #[test]
    fn a_stage_elsewhere_that_ends_later_is_in_the_window_too() {
        let (worst_job, beside) = (job(0, 0), job(1, 0));
        let worst = feed([
            submitted(worst_job, 0),
            ran(worst_job, 1, 50),
            completed(worst_job, 51, 51),
            ran(beside, 10, 80),
            ran(beside, 90, 95),
        ]);
        let window = worst.window().expect("jobs were completed");
        let jobs: Vec<JobId> = window.slices.iter().map(|slice| slice.job).collect();
        assert_eq!(jobs, [worst_job, beside]);
    }

    #[test]
    fn a_window_longer_than_the_memory_of_stages_says_so() {
        let waiting = job(0, 0);
        let many = (0..600).map(|n| ran(job(1, n), n, n + 1));
        let events = [submitted(waiting, 0)].into_iter().chain(many);
        let worst = feed(events.chain([completed(waiting, 600, 600)]));
        let window = worst.window().expect("a job was completed");
        assert!(window.is_cut && window.slices.len() == SLICES_MAX);
    }
}

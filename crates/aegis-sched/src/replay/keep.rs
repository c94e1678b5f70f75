//! What is kept of a run while it is replayed: counts, everything, or what one job is explained from.
//!
//! Nearly all of a long run is of no use to a question. Whether the log follows from itself needs
//! nothing of what came before; the account of one job needs the services between its arrival and its
//! end. So [`Excerpts`] keeps, of all jobs that it may be asked about, those that have not ended, and of
//! the services those that such a job may have waited for.
//!
//! # Invariants
//! 1. An excerpt has everything that [`account`](super::account) reads: the services that held the
//!    device between the job's arrival and its end, each with its own end, the last idle time before it
//!    was seen, and what broke since.
//! 2. What is kept is bounded by the jobs in flight and what happens meanwhile, and by the [`Room`] that
//!    there is. The error names the line.

use std::collections::BTreeSet;

use aegis_trace::{JobId, ModelId, Nanos, Timestamp, TraceEvent};

use super::decisions::is_of_a_step;
use super::error::ReplayError;
use super::log::{Entry, ExecutorLog};
use super::room::Room;
use super::timeline::{Around, Ending, Timeline};

/// Services that are kept before anybody looks whether they are needed.
const SERVICES_MIN: usize = 16;

/// Which job is to be explained.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'n> {
    /// This one.
    Job(JobId),
    /// The completed job with the longest response of the models of this name; of several the first.
    WorstOf(&'n str),
}

/// How much of a run there was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Jobs that were accepted.
    pub(super) jobs: u64,
    /// Stages that were launched.
    pub(super) stages: u64,
}

/// What is kept, and how much there was.
pub(super) struct Keeper<'t> {
    pub(super) counts: Counts,
    pub(super) kept: Kept<'t>,
    room: Room,
}

/// What is kept of a run.
pub(super) enum Kept<'t> {
    Nothing,
    Everything(Box<Timeline>),
    Excerpts(Box<Excerpts<'t>>),
}

/// A job with all that its account is made from.
#[derive(Debug)]
pub(super) struct Excerpt {
    pub(super) job: JobId,
    /// From what it counts its response to its end.
    pub(super) response: Nanos,
    /// The run around it; its record is the only one.
    pub(super) timeline: Timeline,
}

/// What an executor has about the jobs that are wanted.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whether one was accepted.
    pub(super) was_seen: bool,
    /// Models of which some job completed.
    pub(super) completed: BTreeSet<ModelId>,
    /// The job that is wanted, or the worst.
    pub(super) found: Option<Excerpt>,
}

/// The run as far as some job that is wanted, or may be, has not ended.
pub(super) struct Excerpts<'t> {
    log: &'t ExecutorLog,
    wanted: Wanted<'t>,
    /// What is kept now.
    rolling: Timeline,
    /// Jobs that have ended, whose services may not have.
    ended: Vec<JobId>,
    /// The time of the last event.
    now: Timestamp,
    /// When submissions were taken last, and the time before.
    intakes: [Timestamp; 2],
    /// At how many services it is looked next whether they are needed.
    look_at: usize,
    /// Up to now.
    found: Found,
}

impl<'t> Keeper<'t> {
    pub(super) fn nothing() -> Self {
        Self { counts: Counts::default(), kept: Kept::Nothing, room: Room::all() }
    }

    /// Keeps everything that there is `room` for.
    pub(super) fn everything(room: Room) -> Self {
        let kept = Kept::Everything(Box::default());
        Self { counts: Counts::default(), kept, room }
    }

    /// Keeps what is wanted, as far as there is `room` for it.
    pub(super) fn excerpts(log: &'t ExecutorLog, wanted: Wanted<'t>, room: Room) -> Self {
        let excerpts = Excerpts {
            log,
            wanted,
            rolling: Timeline::default(),
            ended: Vec::new(),
            now: Timestamp::ZERO,
            intakes: [Timestamp::ZERO; 2],
            look_at: SERVICES_MIN,
            found: Found::default(),
        };
        let kept = Kept::Excerpts(Box::new(excerpts));
        Self { counts: Counts::default(), kept, room }
    }

    /// Takes in one event that the replay found as it was logged.
    pub(super) fn note(&mut self, entry: &Entry, around: Around<'_>) -> Result<(), ReplayError> {
        self.counts.jobs += u64::from(matches!(entry.event, TraceEvent::Submitted { .. }));
        self.counts.stages += u64::from(around.launched.is_some());
        let kept = match &mut self.kept {
            Kept::Nothing => return Ok(()),
            Kept::Everything(timeline) => {
                timeline.note(entry, around);
                timeline.kept()
            }
            Kept::Excerpts(excerpts) => {
                excerpts.note(entry, around);
                excerpts.kept()
            }
        };
        self.room.check(kept, entry.record)
    }

    /// The run has ended, and every service that will.
    pub(super) fn ended(mut self) -> Self {
        if let Kept::Excerpts(excerpts) = &mut self.kept {
            excerpts.settle(None);
        }
        self
    }

    /// What was kept, if that is everything.
    pub(super) fn into_timeline(self) -> Timeline {
        match self.kept {
            Kept::Everything(timeline) => *timeline,
            Kept::Nothing | Kept::Excerpts(_) => Timeline::default(),
        }
    }
}

impl Keeper<'_> {
    /// What was found of the jobs that were wanted.
    pub(super) fn into_found(self) -> Found {
        match self.kept {
            Kept::Excerpts(excerpts) => excerpts.found,
            Kept::Nothing | Kept::Everything(_) => Found::default(),
        }
    }
}

impl Found {
    /// How many things are kept.
    pub(super) fn kept(&self) -> usize {
        self.found.as_ref().map_or(0, |found| found.timeline.kept())
    }
}

impl Excerpts<'_> {
    fn note(&mut self, entry: &Entry, around: Around<'_>) {
        if entry.at > self.intakes[0] && is_of_a_step(&entry.event) {
            self.intakes = [entry.at, self.intakes[0]];
        }
        if entry.at > self.now {
            self.now = entry.at;
            // What a job had ahead of it is known when the stages have ended that were there with it.
            self.settle(self.rolling.open_since());
            if self.rolling.services.len() >= self.look_at {
                self.forget();
                self.look_at = SERVICES_MIN + 2 * self.rolling.services.len();
            }
        }
        self.rolling.note(entry, around);
        match entry.event {
            TraceEvent::Submitted { job, .. } => self.submitted(job),
            TraceEvent::Completed { job, .. } => {
                self.found.completed.insert(job.model);
                self.end(job);
            }
            TraceEvent::Dropped { job, .. } | TraceEvent::Faulted { job, .. } => self.end(job),
            _ => {}
        }
    }

    /// How many things are kept, those of the best answer up to now among them.
    fn kept(&self) -> usize {
        self.rolling.kept() + self.found.kept()
    }

    /// Of jobs that are not wanted nothing is kept but their services.
    fn submitted(&mut self, job: JobId) {
        let is_wanted = match self.wanted {
            Wanted::Job(wanted) => wanted == job,
            Wanted::WorstOf(name) => {
                self.log.models.get(&job.model).is_some_and(|(_, what)| what.name == name)
            }
        };
        if is_wanted {
            self.found.was_seen = true;
        } else {
            self.rolling.remove(job);
        }
    }

    fn end(&mut self, job: JobId) {
        if self.rolling.jobs.contains_key(&job) {
            self.ended.push(job);
        }
    }

    /// Looks at the jobs that have ended and wait for none of the services that are `open` since then:
    /// nothing about them is to come any more.
    fn settle(&mut self, open: Option<Timestamp>) {
        for job in std::mem::take(&mut self.ended) {
            let Some(record) = self.rolling.jobs.get(&job) else { continue };
            let Some((at, ending)) = record.ending else { continue };
            if open.is_some_and(|launched| launched < at) {
                self.ended.push(job);
                continue;
            }
            let Some((_, model)) = self.log.models.get(&job.model) else { continue };
            let response = at.saturating_since(record.from(model));
            let is_better = match (self.wanted, &self.found.found) {
                (Wanted::Job(_), _) => true,
                (Wanted::WorstOf(_), _) if ending != Ending::Completed => false,
                (Wanted::WorstOf(_), None) => true,
                (Wanted::WorstOf(_), Some(known)) => {
                    response > known.response || (response == known.response && job < known.job)
                }
            };
            if is_better {
                let timeline = self.rolling.only(job);
                self.found.found = Some(Excerpt { job, response, timeline });
            }
            self.rolling.remove(job);
        }
    }

    /// Lets go of what no job that is kept, and none that is still to come, can have waited for. One that
    /// is accepted from now on became visible after the submissions before were taken.
    fn forget(&mut self) {
        let jobs = || self.rolling.jobs.values();
        let arrived = jobs().map(|record| record.arrival).min().unwrap_or(Timestamp::NEVER);
        let seen = jobs().map(|record| record.seen).min().unwrap_or(Timestamp::NEVER);
        self.rolling.forget(arrived.min(self.intakes[1]), seen.min(self.now));
    }
}

//! The decisions of one log in the order in which they were made.
//!
//! Until a wait for budget got the time of the decision that found it, it had that of the job's arrival
//! where the job came while submissions were taken: a time after that decision. Such a log has times
//! that go back, or, sorted by time, has the wait behind all else that was decided then. Here it comes
//! where it was recorded: behind the submission of its job, at the same time. No decision that is
//! recorded today looks so: a job that is put off later has ended a stage or another job before.
//!
//! # Invariants
//! 1. Every event comes out once. All but those waits keep their times and their order.
//! 2. What is held is one point in time, up to [`POINT_MAX`] events; beyond, events come out as they are.

use std::collections::VecDeque;

use aegis_trace::{JobId, Timestamp, TraceEvent};

use super::error::ReplayError;
use super::log::Entry;

/// Events at one point in time that are held.
const POINT_MAX: usize = 1 << 16;

/// Jobs that are looked for at one point in time: more than one decision takes from any usual queue.
const EARLY_MAX: usize = 1 << 12;

/// A job that arrived after the time of the decision that took it.
#[derive(Clone, Copy, Debug)]
struct Early {
    job: JobId,
    arrival: Timestamp,
}

/// Those that the last decision took.
#[derive(Debug, Default)]
pub(super) struct EarlyJobs {
    /// The time of that decision.
    at: Timestamp,
    jobs: Vec<Early>,
}

impl EarlyJobs {
    /// The time of the decision that recorded this, if it is the wait of one of them; once for each.
    pub(super) fn decided(&mut self, entry: &Entry) -> Option<Timestamp> {
        let TraceEvent::OutOfBudget { job, .. } = entry.event else { return None };
        let is_it = |early: &Early| early.job == job && early.arrival == entry.at;
        let place = self.jobs.iter().position(is_it)?;
        self.jobs.swap_remove(place);
        Some(self.at)
    }

    /// Takes in an event, whose time is that of its decision.
    pub(super) fn note(&mut self, entry: &Entry) {
        if entry.at != self.at {
            self.at = entry.at;
            self.jobs.clear();
        }
        if let TraceEvent::Submitted { job, arrival, .. } = entry.event
            && arrival > entry.at
            && self.jobs.len() < EARLY_MAX
        {
            self.jobs.push(Early { job, arrival });
        }
    }
}

/// Events with such waits where they belong.
pub(super) struct Mended<I> {
    rest: I,
    point: VecDeque<Entry>,
    /// The jobs of that point that may have such a wait.
    early: EarlyJobs,
    next: Option<Result<Entry, ReplayError>>,
}

impl<I: Iterator<Item = Result<Entry, ReplayError>>> Mended<I> {
    pub(super) fn new(rest: I) -> Self {
        Self { rest, point: VecDeque::new(), early: EarlyJobs::default(), next: None }
    }

    /// Reads on to the end of one point in time.
    fn fill(&mut self) {
        while self.point.len() < POINT_MAX {
            let Some(next) = self.next.take().or_else(|| self.rest.next()) else { return };
            let Ok(entry) = next else {
                self.next = Some(next);
                return;
            };
            if let Some(entry) = self.moved(entry) {
                if self.point.back().is_some_and(|last| last.at != entry.at) {
                    self.next = Some(Ok(entry));
                    return;
                }
                self.early.note(&entry);
                self.point.push_back(entry);
            }
        }
    }

    /// Puts such a wait where it belongs. Gives back any other event.
    fn moved(&mut self, mut entry: Entry) -> Option<Entry> {
        let TraceEvent::OutOfBudget { job, .. } = entry.event else { return Some(entry) };
        let Some(at) = self.early.decided(&entry) else { return Some(entry) };
        let of_job =
            |it: &Entry| matches!(it.event, TraceEvent::Submitted { job: of, .. } if of == job);
        let behind = self.point.iter().position(of_job).map_or(self.point.len(), |place| place + 1);
        entry.at = at;
        self.point.insert(behind, entry);
        None
    }
}

impl<I: Iterator<Item = Result<Entry, ReplayError>>> Iterator for Mended<I> {
    type Item = Result<Entry, ReplayError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.point.is_empty() {
            self.fill();
        }
        self.point.pop_front().map(Ok).or_else(|| self.next.take())
    }
}

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

/// A job that arrived after the decision that took it, the time of that decision, and its arrival.
#[derive(Clone, Copy, Debug)]
pub(super) struct Early {
    job: JobId,
    at: Timestamp,
    arrival: Timestamp,
}

impl Early {
    pub(super) fn of(at: Timestamp, event: &TraceEvent) -> Option<Self> {
        match *event {
            TraceEvent::Submitted { job, arrival, .. } if arrival > at => {
                Some(Self { job, at, arrival })
            }
            _ => None,
        }
    }

    /// The time of the decision that recorded `event`, if that is the wait of this job.
    pub(super) fn decided(&self, at: Timestamp, event: &TraceEvent) -> Option<Timestamp> {
        match *event {
            TraceEvent::OutOfBudget { job, .. } if job == self.job && at == self.arrival => {
                Some(self.at)
            }
            _ => None,
        }
    }
}

/// Events with such waits where they belong.
pub(super) struct Mended<I> {
    rest: I,
    point: VecDeque<Entry>,
    /// The jobs of that point that may have such a wait.
    early: Vec<Early>,
    next: Option<Result<Entry, ReplayError>>,
}

impl<I: Iterator<Item = Result<Entry, ReplayError>>> Mended<I> {
    pub(super) fn new(rest: I) -> Self {
        Self { rest, point: VecDeque::new(), early: Vec::new(), next: None }
    }

    /// Reads on to the end of one point in time.
    fn fill(&mut self) {
        self.early.clear();
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
                self.early.extend(Early::of(entry.at, &entry.event));
                self.point.push_back(entry);
            }
        }
    }

    /// Puts such a wait where it belongs. Gives back any other event.
    fn moved(&mut self, mut entry: Entry) -> Option<Entry> {
        if !matches!(entry.event, TraceEvent::OutOfBudget { .. }) {
            return Some(entry);
        }
        let decided = |early: &Early| early.decided(entry.at, &entry.event);
        let Some(place) = self.early.iter().position(|early| decided(early).is_some()) else {
            return Some(entry);
        };
        let Early { job, at, .. } = self.early.swap_remove(place);
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

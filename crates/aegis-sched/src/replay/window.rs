//! The decisions of a log around the one that is replayed.
//!
//! # Invariants
//! 1. What is here is the next event, all that follow at the same point in time, and one more; so memory
//!    grows with one decision and not with the log. [`AHEAD_MAX`] bounds it.

use std::collections::VecDeque;

use aegis_trace::{Timestamp, TraceEvent};

use super::error::ReplayError;
use super::log::Entry;

/// Events at one point in time: as many as one decision can record, and some that were told before.
const AHEAD_MAX: usize = 1 << 18;

/// The events of a dispatcher that are not accounted for yet.
pub(super) struct Window<'r> {
    rest: Box<dyn Iterator<Item = Result<Entry, ReplayError>> + 'r>,
    ahead: VecDeque<Entry>,
    /// The last one that was accounted for.
    last: Option<Entry>,
    /// How many were.
    taken: u64,
}

impl<'r> Window<'r> {
    pub(super) fn new(rest: impl Iterator<Item = Result<Entry, ReplayError>> + 'r) -> Self {
        Self { rest: Box::new(rest), ahead: VecDeque::new(), last: None, taken: 0 }
    }

    /// Reads on until all that is at the time of the next event is here, and one event more.
    pub(super) fn look(&mut self) -> Result<(), ReplayError> {
        while !self.is_past_the_point() {
            let Some(entry) = self.rest.next().transpose()? else { break };
            if self.ahead.len() == AHEAD_MAX {
                return Err(ReplayError::TooManyEvents { line: entry.line(), limit: AHEAD_MAX });
            }
            self.ahead.push_back(entry);
        }
        Ok(())
    }

    fn is_past_the_point(&self) -> bool {
        let ends = self.ahead.front().zip(self.ahead.back());
        ends.is_some_and(|(next, last)| last.at != next.at)
    }

    /// The next event; `None` at the end of the log.
    pub(super) fn next(&self) -> Option<&Entry> {
        self.ahead.front()
    }

    /// The one after it.
    pub(super) fn after_next(&self) -> Option<&TraceEvent> {
        self.ahead.get(1).map(|entry| &entry.event)
    }

    /// From the event at `place` on, what is at its time, with its place; the next event has place 0.
    pub(super) fn point(&self, place: usize) -> impl Iterator<Item = (usize, &TraceEvent)> {
        let at = self.ahead.get(place).map_or(Timestamp::ZERO, |entry| entry.at);
        let from = self.ahead.iter().enumerate().skip(place);
        from.take_while(move |(_, entry)| entry.at == at)
            .map(|(place, entry)| (place, &entry.event))
    }

    /// The event at `place`.
    pub(super) fn event(&self, place: usize) -> Option<&TraceEvent> {
        self.ahead.get(place).map(|entry| &entry.event)
    }

    /// The next event is accounted for.
    pub(super) fn take(&mut self) -> Result<(), ReplayError> {
        if let Some(entry) = self.ahead.pop_front() {
            self.taken += 1;
            self.last = Some(entry);
        }
        if self.ahead.is_empty() { self.look() } else { Ok(()) }
    }

    /// The last event that was accounted for.
    pub(super) fn last(&self) -> Option<&Entry> {
        self.last.as_ref()
    }

    /// How many events were accounted for.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }
}

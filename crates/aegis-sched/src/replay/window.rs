//! The decisions of a log around the one that is replayed.
//!
//! # Invariants
//! 1. What is here is the next event, all that follow at the same point in time up to a command between
//!    two steps, and one more; so memory grows with one decision and not with the log. [`AHEAD_MAX`]
//!    bounds it.
//! 2. A command stands last: what it does is found by the events that it records alone.

use std::collections::VecDeque;

use aegis_trace::{Timestamp, TraceEvent};

use super::decisions::is_of_a_step;
use super::error::ReplayError;
use super::log::Entry;

/// Events of steps at one point in time: as many as one can record, and some that were told before.
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

    /// Reads on until all that is at the time of the next event is here, and one event more; or a
    /// command, which ends a step.
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
        ends.is_some_and(|(next, last)| last.at != next.at || !is_of_a_step(&last.event))
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

#[cfg(test)]
mod tests {
    use aegis_trace::{ModelId, Nanos};

    use super::*;

    fn entries(
        event: TraceEvent,
        count: usize,
    ) -> impl Iterator<Item = Result<Entry, ReplayError>> {
        let entry = move |record| Ok(Entry { record, at: Timestamp::ZERO, event: event.clone() });
        (0..count).map(entry)
    }

    #[test]
    fn any_number_of_commands_is_told_at_one_time() {
        let told = TraceEvent::BoundChanged { model: ModelId::first(0), bound: Nanos(1) };
        let mut window = Window::new(entries(told, AHEAD_MAX + 9));
        loop {
            window.look().expect("each is a decision of its own");
            if window.next().is_none() {
                break;
            }
            assert_eq!(window.ahead.len(), 1);
            window.take().expect("there is no limit to them");
        }
        assert_eq!(window.taken(), (AHEAD_MAX + 9) as u64);
    }

    #[test]
    fn more_events_of_steps_at_one_time_than_are_kept_are_an_error() {
        let mut window = Window::new(entries(TraceEvent::Idle, AHEAD_MAX + 1));
        let error = window.look().expect_err("one too many").to_string();
        expect_test::expect![
            "line 262146: one decision or point in time has more than 262144 events"
        ]
        .assert_eq(&error);
    }
}

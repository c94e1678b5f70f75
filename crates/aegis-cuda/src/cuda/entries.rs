//! How many entries of one stream are not known to be done.
//!
//! A stream works in order, so what is done is always a beginning of what was enqueued: two counts
//! say all, and whoever sees the end of anything ends everything before it too.
//!
//! ```text
//!   enqueued   work  work  event  work | work
//!              -----------------------   what a look, or a wait for the stream, saw done
//! ```
//!
//! # Invariants
//! 1. `ended` never falls and never exceeds `entered`, whatever the order in which threads report
//!    what they saw.

/// A place in the order of a stream: how many entries it has had up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(u64);

/// The entries of one stream, from its first.
#[derive(Debug, Default)]
pub(super) struct Entries {
    entered: Position,
    ended: Position,
}

impl Entries {
    /// Counts one more; gives its place. A stream does not live through 2^64 entries.
    pub(super) fn enter(&mut self) -> Position {
        self.entered.0 += 1;
        self.entered
    }

    /// The place of the last.
    pub(super) fn last(&self) -> Position {
        self.entered
    }

    /// Everything up to `position` was seen done.
    ///
    /// # Panics
    /// When nothing was entered there: who saw its end would have seen what never was.
    pub(super) fn end_through(&mut self, position: Position) {
        assert!(position <= self.entered, "an end of what was never enqueued");
        self.ended = self.ended.max(position);
    }

    /// How many are not known to be done.
    pub(super) fn unfinished(&self) -> usize {
        usize::try_from(self.entered.0 - self.ended.0).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_event_follows_ends_when_the_stream_was_waited_for() {
        let mut entries = Entries::default();
        for _ in 0..64 {
            entries.enter();
        }
        let waited_for = entries.last();
        assert_eq!(entries.unfinished(), 64);
        entries.end_through(waited_for);
        assert_eq!(entries.unfinished(), 0);
    }

    #[test]
    fn what_came_after_the_wait_began_stays() {
        let mut entries = Entries::default();
        entries.enter();
        let waited_for = entries.last();
        let mark = entries.enter();
        entries.enter();
        entries.end_through(waited_for);
        assert_eq!(entries.unfinished(), 2);
        entries.end_through(mark);
        assert_eq!(entries.unfinished(), 1);
    }

    #[test]
    fn two_waits_for_the_same_end_it_once() {
        let mut entries = Entries::default();
        for _ in 0..3 {
            entries.enter();
        }
        let (one, other) = (entries.last(), entries.last());
        entries.end_through(other);
        entries.enter();
        entries.enter();
        entries.end_through(one); // Late: it saw the first three, and no more.
        assert_eq!(entries.unfinished(), 2);
    }

    #[test]
    #[should_panic(expected = "never enqueued")]
    fn an_end_of_nothing_is_a_fault_of_ours() {
        let ahead = Entries::default().enter();
        Entries::default().end_through(ahead);
    }
}

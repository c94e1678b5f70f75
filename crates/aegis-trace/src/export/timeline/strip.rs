//! One row of slices, kept balanced whatever the trace says.

use super::canvas::{Arg, Canvas, Mark, TrackId};
use super::word::Word;
use crate::error::TraceError;
use crate::unit::Timestamp;

/// Slices that nest on one track, and whose times never go back.
#[derive(Debug)]
pub(super) struct Strip {
    pub(super) track: TrackId,
    /// The time of the last beginning or end.
    until: Timestamp,
    /// Slices that have not ended.
    open: u32,
}

impl Strip {
    pub(super) fn new(track: TrackId) -> Self {
        Self { track, until: Timestamp::ZERO, open: 0 }
    }

    /// Whether nothing is open, and a slice can begin at `at` without being moved.
    pub(super) fn is_free_at(&self, at: Timestamp) -> bool {
        self.open == 0 && self.until <= at
    }

    pub(super) fn is_open(&self) -> bool {
        self.open > 0
    }

    /// Begins a slice on this row, at the earliest where the last one began or ended.
    pub(super) fn begin(
        &mut self,
        canvas: &mut impl Canvas,
        mark: Mark<'_>,
    ) -> Result<(), TraceError> {
        self.until = self.until.max(mark.at);
        self.open += 1;
        canvas.begin(Mark { on: self.track, at: self.until, ..mark })
    }

    /// Ends the innermost slice, if one is open.
    pub(super) fn end(
        &mut self,
        canvas: &mut impl Canvas,
        at: Timestamp,
        args: &[Arg<'_>],
    ) -> Result<(), TraceError> {
        if self.open == 0 {
            return Ok(());
        }
        self.until = self.until.max(at);
        self.open -= 1;
        canvas.end(self.track, self.until, args)
    }

    /// Ends every slice that the trace leaves open, and says so on each.
    pub(super) fn abandon(
        &mut self,
        canvas: &mut impl Canvas,
        at: Timestamp,
    ) -> Result<(), TraceError> {
        while self.open > 0 {
            self.end(canvas, at, &[Arg(Word::Unfinished, Word::Yes.into())])?;
        }
        Ok(())
    }
}

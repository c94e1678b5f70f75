//! How busy an executor was, window by window.

use super::LAST;
use super::canvas::{Canvas, TrackId};
use crate::error::TraceError;
use crate::unit::{Nanos, Timestamp};

/// The length of a window. Long enough to be a load and no picture of single stages, which have
/// slices of their own.
const WINDOW: u64 = Nanos::from_millis(10).0;

/// Adds up the device time of one executor, whose stages do not overlap. A value is drawn at the
/// beginning of its window, and only where it differs from the one before, so that idle hours cost
/// nothing.
#[derive(Debug)]
pub(super) struct Load {
    track: TrackId,
    /// The number of the window that is being added up.
    window: u64,
    /// Device time in it so far.
    busy: u64,
    /// What was drawn last; `None` at first.
    drawn: Option<u64>,
    /// Up to where time is spoken for.
    until: u64,
}

impl Load {
    pub(super) fn new(track: TrackId) -> Self {
        Self { track, window: 0, busy: 0, drawn: None, until: 0 }
    }

    /// Adds a stage. What overlaps with an earlier one counts once.
    pub(super) fn add(
        &mut self,
        canvas: &mut impl Canvas,
        started: Timestamp,
        finished: Timestamp,
    ) -> Result<(), TraceError> {
        let (from, to) = (started.0.max(self.until), finished.0);
        if from >= to {
            return Ok(());
        }
        self.until = to;
        self.move_to(canvas, from / WINDOW)?;
        let last = to / WINDOW;
        if self.window < last {
            self.busy += (self.window + 1) * WINDOW - from;
            self.close(canvas)?;
            if self.window + 1 < last {
                self.draw(canvas, self.window + 1, 100)?;
            }
            self.window = last;
            self.busy = to - last * WINDOW;
        } else {
            self.busy += to - from;
        }
        Ok(())
    }

    /// Draws the last window, and that there is nothing after it.
    pub(super) fn finish(&mut self, canvas: &mut impl Canvas) -> Result<(), TraceError> {
        self.close(canvas)?;
        self.draw(canvas, self.window + 1, 0)
    }

    /// Closes the windows before `window`.
    fn move_to(&mut self, canvas: &mut impl Canvas, window: u64) -> Result<(), TraceError> {
        if window > self.window {
            self.close(canvas)?;
            if window > self.window + 1 {
                self.draw(canvas, self.window + 1, 0)?;
            }
            self.window = window;
            self.busy = 0;
        }
        Ok(())
    }

    fn close(&mut self, canvas: &mut impl Canvas) -> Result<(), TraceError> {
        self.draw(canvas, self.window, self.busy * 100 / WINDOW)
    }

    fn draw(
        &mut self,
        canvas: &mut impl Canvas,
        window: u64,
        percent: u64,
    ) -> Result<(), TraceError> {
        if self.drawn == Some(percent) {
            return Ok(());
        }
        self.drawn = Some(percent);
        let at = Timestamp(window.saturating_mul(WINDOW)).min(LAST);
        canvas.count(self.track, at, percent)
    }
}

//! What a picture is drawn with: tracks, slices, instants, counters and arrows.
//!
//! [`Canvas`] is the seam between what a trace shows ([`Timeline`](super::Timeline)) and how a format
//! writes it.

use super::word::Word;
use crate::error::TraceError;
use crate::unit::{Bytes, Nanos, Timestamp};

/// A track of the picture. Its number is never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrackId(pub(crate) u64);

impl TrackId {
    /// The whole run: the parent of every other track, and the place of what is about no model.
    pub(crate) const RUN: Self = Self(1);
}

/// What a track is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Track<'a> {
    pub(crate) parent: TrackId,
    pub(crate) name: &'a str,
    pub(crate) kind: TrackKind,
}

/// What a track shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrackKind {
    /// Slices and instants.
    Slices,
    /// A number of something.
    Count,
    /// A size in bytes.
    Bytes,
    /// A share in per cent.
    Percent,
}

/// The name of a slice or instant.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Name<'a> {
    Word(Word),
    /// `stage 2`.
    Stage(u16),
    /// The name of a model; [`Canvas::introduce`] has told it.
    Model {
        id: NameId,
        text: &'a str,
    },
}

/// The number of a model's name. It is never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameId(pub(crate) u64);

/// One annotation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arg<'a>(pub(crate) Word, pub(crate) Value<'a>);

/// The value of an annotation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Word(Word),
    Text(&'a str),
    /// There is none, and the annotation is left out.
    Absent,
}

/// A slice that begins, or an instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark<'a> {
    pub(crate) on: TrackId,
    pub(crate) at: Timestamp,
    pub(crate) name: Name<'a>,
    pub(crate) args: &'a [Arg<'a>],
    pub(crate) flow: Option<Flow>,
}

/// One point of the arrow that follows a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Which arrow. It is never given to another job.
    pub(crate) id: u64,
    pub(crate) step: Step,
}

/// Where on the arrow a point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Starts,
    Passes,
    Ends,
}

/// Writes a picture in one format.
///
/// The caller keeps slices balanced: on each track they nest, the time never goes back from one
/// beginning or end to the next in the order of calls, and every slice ends. Tracks come in no common
/// order, so the times of two tracks may.
pub(crate) trait Canvas {
    /// Tells of a track before anything is drawn on it.
    fn track(&mut self, id: TrackId, track: Track<'_>) -> Result<(), TraceError>;

    /// Tells the name of a model before it is used.
    fn introduce(&mut self, id: NameId, text: &str) -> Result<(), TraceError>;

    /// Tells that nothing more is drawn on a track.
    fn retire(&mut self, _: TrackId) {}

    /// Begins a slice.
    fn begin(&mut self, mark: Mark<'_>) -> Result<(), TraceError>;

    /// Ends the slice that began last on the track.
    fn end(&mut self, on: TrackId, at: Timestamp, args: &[Arg<'_>]) -> Result<(), TraceError>;

    /// Draws something without a length.
    fn instant(&mut self, mark: Mark<'_>) -> Result<(), TraceError>;

    /// Sets a counter, from `at` on.
    fn count(&mut self, on: TrackId, at: Timestamp, value: u64) -> Result<(), TraceError>;
}

impl From<Nanos> for Value<'_> {
    fn from(length: Nanos) -> Self {
        Self::Unsigned(length.0)
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(point: Timestamp) -> Self {
        Self::Unsigned(point.0)
    }
}

impl From<Bytes> for Value<'_> {
    fn from(size: Bytes) -> Self {
        Self::Unsigned(size.0)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Unsigned(number.into())
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Unsigned(number)
    }
}

impl From<Word> for Value<'_> {
    fn from(word: Word) -> Self {
        Self::Word(word)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Into::into)
    }
}

impl Value<'_> {
    /// `later - earlier`, which may be negative; what 64 bits cannot hold is their limit.
    pub(crate) fn difference(later: u64, earlier: u64) -> Self {
        let exact = i128::from(later) - i128::from(earlier);
        let limit = if exact < 0 { i64::MIN } else { i64::MAX };
        Self::Signed(exact.try_into().unwrap_or(limit))
    }
}

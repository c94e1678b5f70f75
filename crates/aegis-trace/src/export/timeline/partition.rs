//! The rows of one serial executor: what holds it, its streams, its queue and its load.

use std::collections::BTreeMap;

use super::canvas::TrackId;
use super::load::Load;
use super::strip::Strip;
use crate::id::{JobId, StageIndex, StreamId};

/// What is remembered of an executor.
#[derive(Debug)]
pub(super) struct Partition {
    /// `None` for a device that is not split.
    pub(super) name: Option<String>,
    /// What holds it, from the launch of a stage until its end is noticed.
    pub(super) row: Strip,
    /// Whether a stage may be put on the device behind the running one.
    pub(super) looks_ahead: bool,
    /// The one that is.
    pub(super) behind: Option<Behind>,
    /// What ran on each stream, in device time.
    pub(super) streams: BTreeMap<StreamId, Strip>,
    /// The counter of [`Partition::waiting`].
    pub(super) queue: TrackId,
    /// Accepted jobs that neither run nor have ended.
    pub(super) waiting: u64,
    pub(super) load: Load,
}

/// A stage on the device that waits for the one before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind {
    pub(super) id: JobId,
    pub(super) stage: StageIndex,
    pub(super) stream: StreamId,
}

impl Partition {
    /// How the tracks call it.
    pub(super) fn label(name: Option<&str>) -> String {
        name.map_or_else(|| "device".to_owned(), |name| format!("partition {name}"))
    }
}

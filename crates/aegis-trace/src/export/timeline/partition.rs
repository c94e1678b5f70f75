//! The rows of one serial executor: what holds it, its streams, its queue and its load.

use std::collections::BTreeMap;

use super::canvas::TrackId;
use super::load::Load;
use super::strip::Strip;
use crate::id::StreamId;

/// What is remembered of an executor.
#[derive(Debug)]
pub(super) struct Partition {
    /// `None` for a device that is not split.
    pub(super) name: Option<String>,
    /// What holds it, from the launch of a stage until its end is noticed.
    pub(super) row: Strip,
    /// What ran on each stream, in device time.
    pub(super) streams: BTreeMap<StreamId, Strip>,
    /// The counter of [`Partition::waiting`].
    pub(super) queue: TrackId,
    /// Accepted jobs that neither run nor have ended.
    pub(super) waiting: u64,
    pub(super) load: Load,
}

impl Partition {
    /// How the tracks call it.
    pub(super) fn label(name: Option<&str>) -> String {
        name.map_or_else(|| "device".to_owned(), |name| format!("partition {name}"))
    }
}

//! Jobs between acceptance and their end: held back until their release, or on the device.

use std::cmp::Ordering;
use std::sync::Arc;

use aegis_context::BusyStream;
use aegis_context::slot::JobSlot;
use aegis_trace::{JobId, ModelId, Nanos, StageIndex, Timestamp};

use super::audit::Charge;
use super::lane::Release;
use crate::queue::Ready;

/// The stage on the device.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its job.
    pub(crate) ready: Ready,
    /// Its stream.
    pub(crate) busy: BusyStream,
    /// The decision point that launched it.
    pub(crate) since: Timestamp,
    /// What the analysis charges for it.
    pub(crate) charge: Charge,
    /// How long it may hold the device before it counts as hanging.
    pub(crate) hang_limit: Nanos,
    /// It was reported as hanging, and its job has ended for its caller.
    pub(crate) reported: bool,
}

impl Running {
    /// Whether it hangs at `now` and was not reported yet.
    pub(crate) fn hangs_at(&self, now: Timestamp) -> bool {
        !self.reported && now.saturating_since(self.since) >= self.hang_limit
    }

    /// When to look whether it hangs.
    pub(crate) fn next_watch(&self) -> Option<Timestamp> {
        (!self.reported).then(|| self.since.saturating_add(self.hang_limit))
    }
}

/// A job that waits for its release.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    eligible: Timestamp,
    ready: Ready,
}

impl Held {
    pub(crate) fn new(release: Release, slot: Arc<JobSlot>) -> Self {
        let ready = Ready {
            job: release.job,
            slot,
            arrival: release.arrival,
            stage: StageIndex(0),
            consumed: Nanos::ZERO,
            execution: Nanos::ZERO,
        };
        Self { eligible: release.eligible, ready }
    }

    /// When it may run.
    pub(crate) fn eligible(&self) -> Timestamp {
        self.eligible
    }

    pub(crate) fn model(&self) -> ModelId {
        self.ready.job.id.model
    }

    pub(crate) fn into_ready(self) -> Ready {
        self.ready
    }

    fn key(&self) -> (Timestamp, JobId) {
        (self.eligible, self.ready.job.id)
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

//! Jobs between acceptance and their end: held back until their release, or on the device.

use std::cmp::Ordering;

use aegis_context::BusyStream;
use aegis_trace::{JobId, ModelId, Nanos, Timestamp};

use super::audit::Charge;
use crate::policy::ReadyJob;
use crate::queue::Ready;

/// A stage on the device: the one that runs, or the one behind it.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its job.
    pub(crate) ready: Ready,
    /// Its stream.
    pub(crate) busy: BusyStream,
    /// The decision point that launched it, or at which the end of the stage before it was noticed.
    pub(crate) since: Timestamp,
    /// What the analysis charges for it.
    pub(crate) charge: Charge,
    /// How long it may hold the device before it counts as hanging.
    pub(crate) hang_limit: Nanos,
    /// It was reported as hanging, and its job has ended for its caller.
    pub(crate) reported: bool,
    /// Its job has ended for its caller because of another of its stages.
    pub(crate) orphaned: bool,
}

impl Running {
    /// Whether its job has ended for its caller.
    pub(crate) fn is_told(&self) -> bool {
        self.reported || self.orphaned
    }

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
    /// How far its model's releases had been put off when its own was decided.
    postponed: Nanos,
    ready: Ready,
}

impl Held {
    pub(crate) fn new(ready: Ready, eligible: Timestamp, postponed: Nanos) -> Self {
        Self { eligible, postponed, ready }
    }

    /// This job with its release moved, if releases of its model are put off further by now than
    /// when its own was decided.
    ///
    /// # Errors
    /// None: `Err` is the job as it was.
    pub(crate) fn postponed_to(mut self, postponed: Nanos) -> Result<Self, Self> {
        let by = postponed.saturating_sub(self.postponed);
        if by == Nanos::ZERO {
            return Err(self);
        }
        self.postponed = postponed;
        let job = &mut self.ready.job;
        job.release = job.release.saturating_add(by);
        job.deadline = job.deadline.saturating_add(by);
        self.eligible = self.eligible.max(job.release);
        Ok(self)
    }

    pub(crate) fn job(&self) -> &ReadyJob {
        &self.ready.job
    }

    pub(crate) fn ready(&self) -> &Ready {
        &self.ready
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

//! The watch on the evidence: each stage's time goes to the monitor of its campaign.
//!
//! # Invariants
//! 1. Nothing is decided here: a stale evidence is recorded, and everything goes on as it was.

use aegis_context::StageTimes;
use aegis_trace::{JobId, StageIndex, Timestamp, TraceEvent};

use super::{Dispatcher, lane_of};

impl Dispatcher {
    /// Tells the monitor of a stage how long it took, and records what it finds. Allocates nothing.
    pub(super) fn watch_evidence(
        &mut self,
        now: Timestamp,
        job: JobId,
        stage: StageIndex,
        times: StageTimes,
    ) {
        let lane = lane_of(&mut self.lanes, job.model).expect("a running model is installed");
        let Some(monitor) = lane.monitors.get_mut(usize::from(stage.0)) else { return };
        if let Some(why) = monitor.observe(times.finished.saturating_since(times.started)) {
            self.recorder.record(now, TraceEvent::EvidenceStale { job, stage, why });
        }
    }
}

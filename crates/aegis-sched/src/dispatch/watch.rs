//! The watch on the evidence: each stage's time goes to the monitor of its campaign.
//!
//! What was measured has the stage's inputs within. Where they went ahead, their length is added to that
//! of the stage: otherwise kernels could get slower by all of it without a word.
//!
//! # Invariants
//! 1. Nothing is decided here: a stale evidence is recorded, and everything goes on as it was.

use aegis_context::StageTimes;
use aegis_trace::{JobId, Nanos, StageIndex, Timestamp, TraceEvent};

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
        if let Some(why) = monitor.observe(as_measured(times)) {
            self.recorder.record(now, TraceEvent::EvidenceStale { job, stage, why });
        }
    }
}

/// What a stage took, with its inputs as in its campaign: also those that went ahead of it. Beside another
/// stage they may have taken a little longer than within their own, never less.
fn as_measured(times: StageTimes) -> Nanos {
    times.finished.saturating_since(times.started).saturating_add(times.ahead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wcet::{Campaign, StageMonitor};

    /// Whether a monitor of stages of 600, 90 of them for inputs, finds kernels stale that take `slower`
    /// more than measured, with their inputs ahead.
    fn is_stale(slower: u64) -> bool {
        let campaign =
            Campaign::new(vec![Nanos(598), Nanos(600), Nanos(602)]).expect("valid times");
        let mut monitor = StageMonitor::new(&campaign, campaign.max(), None);
        let times = StageTimes {
            started: Timestamp(1_000),
            finished: Timestamp(1_510 + slower),
            upload: Nanos::ZERO,
            download: Nanos::ZERO,
            ahead: Nanos(90),
            awaited: None,
        };
        (0..100).any(|_| monitor.observe(as_measured(times)).is_some())
    }

    #[test]
    fn kernels_that_drift_by_less_than_their_inputs_take_are_found() {
        assert!(is_stale(40), "as long as measured only without the inputs");
        assert!(!is_stale(0));
    }
}

//! The dispatcher driven from a log: what a replay tells it in place of a device and a queue.
//!
//! Nothing is decided here. Each function hands the same state machine what the log says the world
//! did: which submissions were seen, which stage ended and when.

use std::cmp::Reverse;

use aegis_trace::{JobId, Timestamp, TraceEvent};

use super::intake::Intake;
use super::running::Running;
use super::{Dispatcher, Observed, StageEnd, Turn};
use crate::queue::{Ready, Submission};

impl Dispatcher {
    /// Marks a decision point at which submissions are taken.
    pub(crate) fn open_intake(&mut self, now: Timestamp) -> Intake {
        self.begin_intake(now)
    }

    /// Takes a submission that became visible at `visible_since` at the earliest, and not before the
    /// intake says.
    pub(crate) fn accept_logged(
        &mut self,
        intake: Intake,
        visible_since: Timestamp,
        submission: Submission,
    ) {
        self.accept(intake.seen_from(visible_since), submission);
    }

    /// Says whose inputs were left on their way: no event tells that when it happens, but one does where
    /// it matters.
    pub(crate) fn left_logged(&mut self, by: JobId) {
        self.left_by = Some(by);
    }

    /// One turn that finds these ends on the device: of the stage that runs, and of the one behind.
    pub(crate) fn turn_logged(&mut self, ends: [Option<StageEnd>; 2], now: Timestamp) -> Turn {
        let [end, behind] = ends;
        self.turn(Observed { end, behind }, now)
    }

    /// The job on the device, with the stage that it runs.
    pub(crate) fn on_device(&self) -> Option<&Ready> {
        self.running.as_ref().map(|running| &running.ready)
    }

    /// The job of the stage that waits on the device behind the running one.
    pub(crate) fn behind_on_device(&self) -> Option<&Ready> {
        self.committed.as_ref().map(|committed| &committed.ready)
    }

    /// The job of the stage that is on the device since `event`, if that says that it was put there.
    pub(crate) fn launched_by(&self, event: &TraceEvent) -> Option<&Ready> {
        let TraceEvent::Dispatched { job, stage, .. } = event else { return None };
        let on_device = [self.on_device(), self.behind_on_device()].into_iter().flatten();
        on_device.into_iter().find(|ready| ready.job.id == *job && ready.stage == *stage)
    }

    /// Whether a job that became ready now would find the device idle.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle && self.running.is_none()
    }

    /// When the stage on the device counts as hanging, if it does not yet.
    pub(crate) fn watch_point(&self) -> Option<Timestamp> {
        self.running.as_ref().and_then(Running::next_watch)
    }

    /// The jobs that are held back, in no order, and from when on each may run: later than it was told,
    /// where its model has incurred a debt since.
    pub(crate) fn held_back(&self) -> impl Iterator<Item = (JobId, Timestamp)> {
        self.held.iter().filter_map(|Reverse(held)| {
            let lane = self.lanes.get(usize::from(held.model().index))?.as_ref()?;
            let moved = held.clone().postponed_to(lane.postponed());
            let held = moved.unwrap_or_else(|unmoved| unmoved);
            Some((held.job().id, held.eligible()))
        })
    }
}

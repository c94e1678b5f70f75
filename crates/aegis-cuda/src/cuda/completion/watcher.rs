//! The watchers of streams.
//!
//! With `Block` a thread of each stream sleeps in the driver until its first recording is done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use aegis_trace::Nanos;

use super::super::CompletionWait;
use super::{Completions, Lane};
use crate::error::DeviceError;
use crate::realtime::{self, Realtime, RealtimePriority};
use crate::sync::lock;

impl Completions {
    pub(super) fn start_watcher(self: &Arc<Self>, lane: &Arc<Lane>) -> Result<(), DeviceError> {
        let (completions, watched) = (Arc::clone(self), Arc::clone(lane));
        std::thread::Builder::new()
            .name(format!("aegis-{}", lane.id))
            .spawn(move || completions.watch(&watched))
            .map(drop) // It ends by itself once the lane closes; nobody waits for it.
            .map_err(|cause| DeviceError::Os { call: "spawn a stream's watcher", cause })
    }

    /// Has the watchers of all streams there are ask for `priority`: on `Block` it is they who see the
    /// end of a stage first. Gives the first refusal, or that all were granted it; nothing is asked
    /// where nobody watches. Blocks until each has answered: set-up, with nothing on the streams.
    pub(crate) fn urge_watchers(&self, priority: RealtimePriority) -> Realtime {
        if self.wait != CompletionWait::Block {
            return Realtime::NotRequested;
        }
        let (asked, answers) = mpsc::channel();
        for lane in lock(&self.lanes).iter() {
            *lock(&lane.urged) = Some((priority, asked.clone()));
            lane.bell.notify();
        }
        drop(asked);
        let answers: Vec<Realtime> = answers.iter().collect();
        let refused = answers.iter().find(|answer| matches!(answer, Realtime::Refused { .. }));
        refused.or(answers.first()).cloned().unwrap_or(Realtime::NotRequested)
    }

    /// The watcher's loop: sleeps in the driver until the first recording is done.
    fn watch(&self, lane: &Arc<Lane>) {
        // A thread without the context could not wait in it; the wait then says so.
        let _bound = self.machine.bind();
        loop {
            if let Some((priority, asked)) = lock(&lane.urged).take() {
                drop(asked.send(realtime::request(priority))); // Who asked waits for the answer.
            }
            let closing = lane.closing.load(Ordering::Acquire);
            match lane.first() {
                Some((sequence, event)) => match event.wait() {
                    Ok(()) => drop(self.end_through(lane, sequence)),
                    Err(error) => drop(self.lose(lane, &error)),
                },
                None if closing => break,
                None => lane.bell.wait(None, Nanos::ZERO),
            }
        }
        self.reap();
    }
}

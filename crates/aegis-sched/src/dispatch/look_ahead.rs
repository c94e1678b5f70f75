//! Look-ahead: one stage waits on the device behind the running one.
//!
//! Where the end of a stage has to be noticed before the next is launched, the device idles for as
//! long as that takes. With [`Overheads::look_ahead`](crate::task::Overheads) a stage is put behind
//! the running one, on the same stream, and the device begins it by itself:
//!
//! ```text
//!   device     |------ R ------|------ K ------|
//!   committed      K put there |promoted   next put there
//!   decisions  R   ^           ^ end of R noticed: K is the running stage
//! ```
//! A stage on the device cannot be taken back, so K goes before whatever arrives after it was put
//! there, however urgent. The analysis charges that (`analysis/workload.rs`), and relies on what is
//! decided here.
//!
//! # Invariants
//! 1. A stage is committed only if a decision at this very moment, with the device free and the
//!    running stage over, would launch it: the running job's own next stage takes part, and while it
//!    would win but cannot be put there, nobody is.
//! 2. Nothing in the background is committed: it starts only where a busy period has ended.
//! 3. Behind a stage under a server only what is more urgent than it is committed. Whether the
//!    server goes on is not known before its stage has ended.
//! 4. In a tainted busy period nothing is committed, so what is done about an overrun comes at most
//!    one stage later than without look-ahead.
//! 5. A model has at most one job on the device.

use aegis_context::ContextError;
use aegis_trace::{DropReason, JobId, Reason, Timestamp};

use super::running::Running;
use super::{Dispatcher, lane_of};
use crate::queue::{Class, Ready};

/// Who would run next if the running stage ended now.
enum Next {
    /// The running job, with its next stage.
    Same,
    /// The first ready job.
    First,
    /// Nobody who may be committed.
    Nobody,
}

impl Dispatcher {
    /// Commits a stage behind the running one, if that place is free and somebody may take it.
    pub(super) fn look_ahead(&mut self, now: Timestamp) {
        while self.may_commit() {
            match self.next_in_line() {
                Next::Nobody => return,
                Next::Same => {
                    let running = self.running.as_ref().expect("something runs: just checked");
                    let mut ready = running.ready.clone();
                    ready.stage.0 += 1;
                    self.commit(now, ready, Some(Reason::Continues));
                }
                Next::First => {
                    let ready = self.ready.pop().expect("it is the first");
                    match self.objection(now, &ready) {
                        Some(why) => self.end_dropped(now, &ready, why),
                        None => self.commit(now, ready, None),
                    }
                }
            }
        }
    }

    fn may_commit(&self) -> bool {
        let runs = self.running.as_ref().is_some_and(|running| !running.is_told());
        let is_free = self.committed.is_none() && !self.audit.is_tainted();
        self.config.overheads.look_ahead && runs && is_free
    }

    fn next_in_line(&mut self) -> Next {
        let running = self.running.as_ref().expect("something runs: just checked");
        let ready = &running.ready;
        let consumed = ready.consumed.saturating_add(running.charge.total());
        let overtaken = self.is_overtaken(ready);
        let (job, stage, class) = (ready.job.id, usize::from(ready.stage.0), ready.class);
        let lane = lane_of(&mut self.lanes, job.model).expect("a running model is installed");
        let goes_on = stage + 1 < lane.costs.len();
        let is_whole = goes_on && !lane.may_be_suspended;
        match class {
            Class::Guaranteed if goes_on && (is_whole || !overtaken) => {
                // What it may use is asked as if the running stage took its whole charge.
                let allowed = lane.context.account().allows_more(consumed)
                    && lane.context.backend().enqueues_behind();
                if allowed { Next::Same } else { Next::Nobody }
            }
            Class::Background | Class::Server if is_whole || !overtaken => Next::Nobody,
            Class::Guaranteed | Class::Background | Class::Server => self.first_of_others(job),
        }
    }

    /// The first ready job, unless it has to wait for the running one to be gone.
    fn first_of_others(&mut self, running: JobId) -> Next {
        let Some((_, first)) = self.ready.first() else { return Next::Nobody };
        let model = first.id.model;
        let lane = lane_of(&mut self.lanes, model).expect("jobs outlive no lane");
        let may = model != running.model && lane.context.backend().enqueues_behind();
        if may { Next::First } else { Next::Nobody }
    }

    fn commit(&mut self, now: Timestamp, ready: Ready, why: Option<Reason>) {
        let running = self.running.as_ref().expect("something runs: just checked");
        let lane = lane_of(&mut self.lanes, ready.job.id.model).expect("jobs outlive no lane");
        let charge = lane.charge(ready.stage, &self.config.overheads);
        let left = self.streams.uploads_left();
        match lane.context.launch_behind(ready.stage, &ready.slot, &running.busy) {
            Ok(busy) => {
                self.committed = Some(self.launched(now, ready, busy, charge, why));
            }
            Err(error) => {
                // Counted, since one that was left before may have ended in between.
                if self.streams.uploads_left() > left {
                    self.left_by = Some(ready.job.id);
                }
                self.fail_commit(now, &ready, &error);
            }
        }
    }

    fn fail_commit(&mut self, now: Timestamp, ready: &Ready, error: &ContextError) {
        let running = self.running.as_mut().expect("something runs: just checked");
        if running.ready.job.id != ready.job.id {
            return self.fail_launch(now, ready, error);
        }
        running.orphaned = true;
        self.tell_unlaunched(now, ready, error);
    }

    /// The running stage has ended: the committed one, if there is one, has the device from now on.
    pub(super) fn promote(&mut self, now: Timestamp) {
        self.running = self.committed.take().map(|mut next| {
            next.busy.gets_device();
            Running { since: now, ..next }
        });
    }

    /// The stage of `job` that is on the device, now that one before it has ended.
    pub(super) fn continuation(&mut self, job: JobId) -> Option<&mut Running> {
        self.running.as_mut().filter(|running| running.ready.job.id == job)
    }

    /// Ends the jobs on the device for their callers, those that have not been told yet: what the
    /// stages do is not looked at any more.
    pub(super) fn abandon_device(&mut self, now: Timestamp) {
        let mut left: Vec<Ready> = Vec::new(); // It is the end, and may allocate.
        for running in [&mut self.running, &mut self.committed].into_iter().flatten() {
            if running.is_told() {
                continue;
            }
            running.orphaned = true;
            // Both stages may be of one job, which ends once.
            if left.iter().all(|ready| ready.job.id != running.ready.job.id) {
                left.push(running.ready.clone());
            }
        }
        for ready in left {
            self.end_dropped(now, &ready, DropReason::Stopping);
        }
    }

    /// Gives up what the job of a stage that failed or hangs has behind it.
    pub(super) fn orphan_committed(&mut self, job: JobId) {
        let committed = self.committed.as_mut().filter(|next| next.ready.job.id == job);
        if let Some(next) = committed {
            next.orphaned = true;
        }
    }
}

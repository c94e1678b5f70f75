//! What a window may hold beside the work of its tasks: what was on the device when it began.
//!
//! **The floor** is the longest thing that is less urgent than every task: waking up, or a piece in the
//! background. A piece of a less urgent task may be longer, and is then what blocks instead.
//!
//! **Look-ahead** puts one stage K on the device while another one R still runs, whom the policy would
//! choose if R were over. A job that arrives then may find both. If K is less urgent than the job, it is
//! what blocks, and R comes in addition; from there on nothing less urgent is put there while a job as
//! urgent has a stage left to put. If K is as urgent, it was put there while its own job waited for
//! that, and the busy period is looked at from where that wait began. R can be a stage of anybody:
//!
//! ```text
//! Q = the longest piece of any task, or in the background
//! ```
//!
//! is added to every window. Whether anything **blocks** is not a matter of `Q`: without K there is no R
//! behind which it stands. Of fewer than two tasks nobody is less urgent, and under first in, first out
//! whoever was put there came before; there `Q = 0`.
//!
//! # Sources
//! `docs/adr/0047`, with the proof; `docs/adr/0046` for what is put there, and when.

use crate::certificate::{Model, Overheads, Policy, Service};
use crate::charge::Task;
use crate::fault::Time;

/// What may be ahead of every task of a partition when a window begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ahead {
    /// The longest thing that is less urgent than all of them.
    pub(crate) floor: Time,
    /// `Q`: what comes in addition to what blocks.
    pub(crate) committed: Time,
}

impl Ahead {
    /// Of the `tasks` of `models`, all of one partition under `policy`.
    pub(crate) fn of<'c>(
        tasks: &[Task],
        models: impl Iterator<Item = &'c Model>,
        policy: Policy,
        overheads: &Overheads,
    ) -> Self {
        let background = models.filter(|model| matches!(model.service, Service::Background));
        let piece = background.map(|model| Time::from(model.charge.longest.0)).max().unwrap_or(0);
        let floor = piece.max(overheads.wake.0.into());
        let delays = overheads.look_ahead && policy != Policy::Fifo && tasks.len() > 1;
        let longest = tasks.iter().map(|task| task.longest).max().unwrap_or(0);
        Self { floor, committed: if delays { longest.max(piece) } else { 0 } }
    }

    /// Both together, where no task blocks.
    pub(crate) fn sum(self) -> Time {
        self.floor.saturating_add(self.committed)
    }
}

//! What is done about a job that used more time than it was admitted with.
//!
//! A stage on the device cannot be taken off it, so an overrun is past before anything can be done.
//! What can still be done without harm is listed here: a job that runs less than it may, or later
//! than it may, or not at all, makes nobody later. (Response times are largest when every job takes
//! its full cost and comes as often as it may.)
//!
//! 1. **Skip**: a job that has not begun and cannot finish in time any more is given up. In a busy
//!    period without a broken assumption this cannot occur: that the job takes its full charge from
//!    now on is one of the futures that were proved to be on time. So only jobs of tainted busy
//!    periods are skipped, and a defect is not hidden by skipping what it would make late.
//! 2. **Stop**: between two stages, a job that has held the device for longer than the stages it ran
//!    are charged loses the rest. The excess is then at most what one stage took too long.
//! 3. **Debt**: the next release of the model that did it is put off by `ceil(e / U)`, `e` its excess
//!    and `U` its share of the device, so that over time it gets no more than that share. Jobs that
//!    were released when the overrun was noticed stay where they are.
//!
//! Work in the background has no share that it could owe; stopping is all that is done to it. It
//! gives way first in any case: a stage in the background starts only when nothing else is ready,
//! which is the end of a tainted busy period.
//!
//! # Invariants
//! 1. Nothing here allocates, and nothing here makes a job run earlier or longer.
//! 2. Debt is computed in integers and rounded up, against the debtor.
//!
//! # Sources
//! The additive effect of an excess within one busy window is part of the machine-checked analyses of
//! Prosa (`exc/fp/fully_nonpreemptive.v`). Why nothing stronger is done is in ADR 0016.

pub use aegis_trace::OverrunPolicy;
use aegis_trace::{JobId, Nanos, Timestamp, TraceEvent};

use super::lane::LaneService;
use super::running::Held;
use super::{Dispatcher, lane_of};
use crate::queue::{Class, Ready};

impl Dispatcher {
    /// Whether `ready`, which has not begun, is to be skipped at `now`.
    pub(super) fn is_hopeless(&mut self, now: Timestamp, ready: &Ready) -> bool {
        let applies = self.config.overrun.contains()
            && ready.class == Class::Guaranteed
            && self.audit.is_tainted();
        if !applies {
            return false;
        }
        let overheads = self.config.overheads;
        let lane = lane_of(&mut self.lanes, ready.job.id.model).expect("jobs outlive no lane");
        now.saturating_add(lane.charged_cost(&overheads)) > ready.job.deadline
    }

    /// Whether a job between two stages, or at its end, used more than it was charged and has to
    /// answer for it.
    pub(super) fn is_over(&self, ready: &Ready) -> bool {
        self.config.overrun.contains() && ready.excess() > Nanos::ZERO
    }

    /// Puts off the next release of the model whose job, now at its end, used `excess` too much.
    pub(super) fn incur_debt(&mut self, now: Timestamp, job: JobId, excess: Nanos) {
        let overheads = self.config.overheads;
        let lane = lane_of(&mut self.lanes, job.model).expect("a running model is installed");
        let cost = lane.charged_cost(&overheads);
        let postponed = match &mut lane.service {
            LaneService::Background => return,
            LaneService::Server(server) => {
                let (budget, period) = server.rate();
                let by = put_off(excess, budget, period);
                server.postpone(by);
                by
            }
            LaneService::Guaranteed { task, .. } => {
                let by = put_off(excess, cost, task.period());
                lane.postpone(by);
                by
            }
        };
        lane.metrics.count(|counts| counts.debts += 1);
        self.recorder.record(now, TraceEvent::DebtIncurred { job, excess, postponed });
    }

    /// The held job with the release that its model's debts have left it; recorded if it moved.
    pub(super) fn after_debts(&mut self, now: Timestamp, held: Held) -> Held {
        let job = held.job().id;
        let Some(lane) = lane_of(&mut self.lanes, job.model) else { return held };
        let held = match held.postponed_to(lane.postponed()) {
            Ok(moved) => moved,
            Err(unmoved) => return unmoved,
        };
        lane.metrics.count(|counts| counts.postponed += 1);
        let (release, deadline) = (held.job().release, held.job().deadline);
        self.recorder.record(now, TraceEvent::Postponed { job, release, deadline });
        held
    }
}

/// `ceil(e / U)` with `U = cost / period`: how long a share of `U` takes to make up for `excess`.
fn put_off(excess: Nanos, cost: Nanos, period: Nanos) -> Nanos {
    let time = (u128::from(excess.0) * u128::from(period.0)).div_ceil(u128::from(cost.0.max(1)));
    Nanos(u64::try_from(time).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_the_time_in_which_the_share_makes_up_for_it() {
        assert_eq!(put_off(Nanos(3), Nanos(2), Nanos(10)), Nanos(15));
        assert_eq!(put_off(Nanos(1), Nanos(3), Nanos(10)), Nanos(4), "rounded against the debtor");
        assert_eq!(put_off(Nanos(5), Nanos(10), Nanos(10)), Nanos(5));
        assert_eq!(put_off(Nanos::MAX, Nanos(1), Nanos::MAX), Nanos::MAX, "and never wrapped");
    }
}

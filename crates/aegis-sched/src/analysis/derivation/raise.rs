//! Refusals that need more than one evaluation.
//!
//! They are met where models trigger one another, and where admission found no answer.
//!
//! [`derive_refusal_with`] begins with the jitters that were asked for, and looks whether the set is
//! refused. If not, it hands the worst response of each trigger on as jitter, one step at a time, and
//! looks again. Responses only grow with jitters, so after each step every jitter is one that any
//! fixed point has at least: an inequality that fails then fails with all of them.
//!
//! Where even a patient search ends without an answer, the length of the busy period is given as the
//! reason, if it is long enough to be one.
//!
//! # Invariants
//! 1. Every step raises a jitter, and is the response of one job that a checker can evaluate.
//! 2. At most [`STEPS_MAX`] steps are taken.
//!
//! # Sources
//! Those of [`crate::analysis::chain`]; the argument about single steps is ours.

use std::cmp::Reverse;

use aegis_trace::{ModelId, Nanos, Refusal};

use super::super::chain::Chain;
use super::super::demand::Demand;
use super::super::fixed_point::{Budget, LONGEST_WINDOW};
use super::super::{Order, Setting, decide, fifo, np_edf_response};
use super::{
    Blocker, Derive, DueDerivation, JOBS_MAX, NotDerived, Outcome, POINTS_MAX, RefusalDerivation,
    Worst, derive_refusal, queued_response, started,
};
use crate::task::{Task, TaskSet, TaskSpec};

/// The most steps of one refusal.
pub const STEPS_MAX: usize = 1 << 12;

/// How much more work than admission a derivation may cost where there was no answer.
const PATIENCE: u64 = 64;

/// The evaluation that refuses a set, and the steps to the jitters with which it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteppedRefusal {
    /// Each raises one jitter.
    pub steps: Vec<Step>,
    /// What fails then.
    pub refusal: RefusalDerivation,
}

/// A jitter that is inherited at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whose.
    pub model: ModelId,
    /// The job of its trigger: [`RefusalDerivation::Response`], `Due` or `Queue`.
    pub by: RefusalDerivation,
    /// Its response and the hand-over.
    pub jitter: Nanos,
}

/// The evaluation that refuses `set`, in which the members of each of `chains` trigger one another.
///
/// A declared jitter is what [`crate::analysis::chain::triggered`] takes it for. Does not block or touch
/// the device. Costs a verdict for each round of steps, each at most 64 times as much work as admission's,
/// which is seconds.
///
/// # Errors
/// Permanent: [`NotDerived`]; [`NotDerived::Passes`] where nothing fails.
pub fn derive_refusal_with(
    set: &TaskSet,
    chains: &[Chain],
    setting: &Setting,
) -> Result<SteppedRefusal, NotDerived> {
    let patient = Setting { terms: setting.terms.saturating_mul(PATIENCE), ..*setting };
    let (mut set, asked) = (set.clone(), set.clone());
    let mut steps = Vec::new();
    loop {
        match decide(&set, &patient) {
            Ok(()) => {}
            Err(Refusal::Undecided { limit }) => {
                let refusal = endless(&set, &patient)?.ok_or(NotDerived::Undecided(limit))?;
                return Ok(SteppedRefusal { steps, refusal });
            }
            Err(refusal) => {
                let refusal = derive_refusal(&set, &patient, &refusal)?;
                return Ok(SteppedRefusal { steps, refusal });
            }
        }
        let before = steps.len();
        for pair in chains.iter().flat_map(|chain| chain.members().windows(2)) {
            match raise(&mut set, &asked, (pair[0], pair[1]), &patient) {
                Ok(step) => steps.extend(step),
                Err(unanswered @ NotDerived::Undecided(_)) => {
                    let refusal = endless(&set, &patient)?.ok_or(unanswered)?;
                    return Ok(SteppedRefusal { steps, refusal });
                }
                Err(other) => return Err(other),
            }
        }
        if steps.len() == before {
            return Err(NotDerived::Passes);
        }
        if steps.len() > STEPS_MAX {
            return Err(NotDerived::TooLong);
        }
    }
}

/// Hands the worst response of `from` on to `to`, if that is later than known.
fn raise(
    set: &mut TaskSet,
    asked: &TaskSet,
    (from, to): (ModelId, ModelId),
    setting: &Setting,
) -> Result<Option<Step>, NotDerived> {
    let place = |model| set.tasks().iter().position(|task: &Task| task.model() == model);
    let place = place(to).ok_or(NotDerived::NotOfTime)?;
    let (by, response) = Derive::new(set, setting)?.worst(from, setting)?;
    let jitter = response.saturating_add(asked.tasks()[place].jitter());
    let task = &set.tasks()[place];
    if jitter <= task.jitter() {
        return Ok(None);
    }
    let spec = TaskSpec { jitter, ..task.spec().clone() };
    *set = set.replaced(place, spec).ok_or(NotDerived::TooLong)?;
    Ok(Some(Step { model: to, by, jitter }))
}

/// Where the busy period is longer than anybody looks, along its recurrence; `None` if it is not.
fn endless(set: &TaskSet, setting: &Setting) -> Result<Option<RefusalDerivation>, NotDerived> {
    let derive = Derive::new(set, setting)?;
    let mut window = Nanos::EPSILON;
    loop {
        let (jobs, work) = derive.ready_before(window);
        if jobs > JOBS_MAX || window == LONGEST_WINDOW {
            return Ok(Some(RefusalDerivation::Endless { window, jobs }));
        }
        if work <= window {
            return Ok(None);
        }
        window = work.min(LONGEST_WINDOW);
    }
}

impl Derive {
    /// How many jobs are ready before `window`, each as late as it may be, and how long they and what
    /// is ahead of them keep the device busy.
    fn ready_before(&self, window: Nanos) -> (u64, Nanos) {
        let start = (0, self.ahead());
        self.tasks().iter().fold(start, |(count, work): (u64, Nanos), task| {
            let jobs = window.saturating_add(task.jitter).div_ceil(task.period);
            (count.saturating_add(jobs), work.saturating_add(task.cost.saturating_mul(jobs)))
        })
    }

    /// The job of `model` that responds last, and its response.
    fn worst(
        &self,
        model: ModelId,
        setting: &Setting,
    ) -> Result<(RefusalDerivation, Nanos), NotDerived> {
        let mut budget = Budget::new(setting.terms);
        match Order::of(setting.policy) {
            Order::Fixed(urgency) => self.worst_of_level(urgency, model, &mut budget),
            Order::Deadline => self.worst_due(model, &mut budget),
            Order::Release => self.worst_queued(model, &mut budget),
        }
    }

    fn worst_of_level(
        &self,
        urgency: fn(&super::Charged) -> u64,
        model: ModelId,
        budget: &mut Budget,
    ) -> Result<(RefusalDerivation, Nanos), NotDerived> {
        let level = self.level(urgency, self.task(model)?);
        let (_, jobs) = level.busy(budget)?;
        if jobs > POINTS_MAX as u64 {
            return Err(NotDerived::TooLong);
        }
        let starts = level.starts(jobs, budget)?;
        let of = |((job, start), place): ((u64, &Nanos), usize)| {
            (level.response(job, *start), Reverse(place), *start)
        };
        let worst = (0..).zip(&starts).zip(0..).map(of).max();
        let (response, Reverse(job), start) = worst.ok_or(NotDerived::NotOfTime)?;
        let Blocker { length: blocking, model: blocked_by } = level.blocker;
        let committed = level.committed;
        let by = RefusalDerivation::Response {
            model,
            blocking,
            blocked_by,
            committed,
            job,
            start,
            response,
        };
        Ok((by, response))
    }

    fn worst_due(
        &self,
        model: ModelId,
        budget: &mut Budget,
    ) -> Result<(RefusalDerivation, Nanos), NotDerived> {
        let (demand, place) = (Demand::new(&self.workload), self.task(model)?);
        match np_edf_response::outcome_of(&self.workload, &demand, place, budget) {
            Outcome::Worst(Worst { response, start, due: Some(due), blocker, .. }) => {
                let start = started(start, blocker);
                let job = DueDerivation { due, blocking: blocker.length, start };
                let committed = self.workload.committed;
                Ok((RefusalDerivation::Due { model, job, committed, response }, response))
            }
            Outcome::Worst(_) | Outcome::Unbounded => Err(NotDerived::NotOfTime),
            Outcome::Undecided(limit) => Err(NotDerived::Undecided(limit)),
        }
    }

    fn worst_queued(
        &self,
        model: ModelId,
        budget: &mut Budget,
    ) -> Result<(RefusalDerivation, Nanos), NotDerived> {
        let task = &self.tasks()[self.task(model)?];
        let end = self.fifo_end(budget)?;
        let mut worst = (Nanos::ZERO, Nanos::ZERO);
        for (ready, _) in fifo::instants(&self.workload).take_while(|(ready, _)| *ready < end) {
            budget.spend(self.tasks().len())?;
            let response = queued_response(self.queued(ready), task, ready);
            worst = if response > worst.1 { (ready, response) } else { worst };
        }
        let (ready, response) = worst;
        Ok((RefusalDerivation::Queue { model, ready, response }, response))
    }
}

//! What would have been admitted instead: computed, and tried before it is offered.
//!
//! When a set with a new task is refused, each [`Offer`] changes one thing, as little as possible,
//! so that the shipped test accepts the whole set. Nothing is guessed: an offer is made only of a
//! set that the test has accepted.
//!
//! Costs at most 64 verdicts for each value searched, and one for each model and number of stages.
//!
//! # Sources
//! The bisections are those of [`super::sensitivity`].

use aegis_trace::{ModelId, Nanos};
use serde::{Deserialize, Serialize};

use super::priority_assignment::some_order;
use super::sensitivity::{largest_background, smallest};
use super::{Setting, decide};
use crate::policy::PolicyKind;
use crate::task::{Task, TaskSet, TaskSpec};

/// The most stages that an offer cuts a model into.
pub const MOST_STAGES: u32 = 64;

/// One change with which the refused set is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "offer", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Offer {
    /// The new model, at this period. A deadline that equals its period moves with it.
    Period {
        /// The smallest one.
        period: Nanos,
    },
    /// The new model, with this deadline.
    Deadline {
        /// The smallest one.
        deadline: Nanos,
    },
    /// A model cut into equal stages: the new one, or the one that blocks.
    Stages {
        /// Which model.
        model: ModelId,
        /// The fewest stages.
        stages: u32,
    },
    /// The new model, in the place of an admitted one.
    Without {
        /// The one to evict.
        model: ModelId,
    },
    /// All models, with other priorities.
    Priorities {
        /// The priority of each model, smaller is more urgent; in the order of the set.
        priorities: Vec<(ModelId, u32)>,
    },
}

/// The offers for the last task of `set`, which is refused together with the others. The order is
/// that of [`Offer`]; for each kind the smallest change. Empty if the set is accepted as it is.
///
/// Does not block or touch the device.
#[must_use]
pub fn counter_offers(set: &TaskSet, setting: &Setting) -> Vec<Offer> {
    let Some(newcomer) = set.tasks().last() else { return Vec::new() };
    if decide(set, setting).is_ok() {
        return Vec::new();
    }
    let bargain = Bargain { set, newcomer, setting };
    let mut offers = Vec::new();
    offers.extend(bargain.period());
    offers.extend(bargain.deadline());
    offers.extend(bargain.stages());
    offers.extend(bargain.without());
    offers.extend(bargain.priorities());
    offers
}

/// The fewest equal stages in which work of `cost` in the background is tolerated beside `set`; `None`
/// if no number up to [`MOST_STAGES`] will do, or the set is refused as it is.
#[must_use]
pub fn background_pieces(set: &TaskSet, cost: Nanos, setting: &Setting) -> Option<u32> {
    let piece = largest_background(set, setting).filter(|piece| *piece > Nanos::ZERO)?;
    let stages = u32::try_from(cost.div_ceil(piece)).ok()?;
    (1..=MOST_STAGES).contains(&stages).then_some(stages)
}

struct Bargain<'a> {
    set: &'a TaskSet,
    /// Its last task.
    newcomer: &'a Task,
    setting: &'a Setting,
}

impl Bargain<'_> {
    fn period(&self) -> Option<Offer> {
        let spec = self.newcomer.spec();
        let follows = spec.deadline == spec.period;
        let at = |period: u64| {
            let period = Nanos(period);
            let deadline = if follows { period } else { spec.deadline };
            TaskSpec { period, deadline, ..spec.clone() }
        };
        let period = self.least_beyond(spec.period, |period| self.accepts(at(period)))?;
        Some(Offer::Period { period })
    }

    fn deadline(&self) -> Option<Offer> {
        let spec = self.newcomer.spec();
        let at = |deadline: u64| TaskSpec { deadline: Nanos(deadline), ..spec.clone() };
        let deadline = self.least_beyond(spec.deadline, |deadline| self.accepts(at(deadline)))?;
        Some(Offer::Deadline { deadline })
    }

    /// The newcomer cut as little as possible, and every other model that alone would do.
    fn stages(&self) -> Vec<Offer> {
        let cut = |(index, task): (usize, &Task)| {
            let already = u32::try_from(task.stages().len()).unwrap_or(u32::MAX);
            let fewest = (already.saturating_add(1)..=MOST_STAGES).find(|stages| {
                equal_stages(task.spec(), *stages)
                    .and_then(|cut| self.set.replaced(index, cut))
                    .is_some_and(|set| decide(&set, self.setting).is_ok())
            })?;
            Some(Offer::Stages { model: task.model(), stages: fewest })
        };
        let tasks = self.set.tasks().iter().enumerate();
        // One that is never suspended gains nothing by more stages: they only cost more overhead.
        let cuttable = |task: &Task| !task.is_server() && task.may_be_suspended();
        let tasks: Vec<(usize, &Task)> = tasks.filter(|(_, task)| cuttable(task)).collect();
        // The newcomer first: its caller can cut it without asking anybody.
        tasks.into_iter().rev().filter_map(cut).collect()
    }

    fn without(&self) -> Vec<Offer> {
        let others = self.set.tasks().iter().map(Task::model);
        others
            .filter(|model| *model != self.newcomer.model())
            .filter(|model| decide(&self.set.without(*model), self.setting).is_ok())
            .map(|model| Offer::Without { model })
            .collect()
    }

    fn priorities(&self) -> Option<Offer> {
        if self.setting.policy != PolicyKind::Priority {
            return None;
        }
        let order = some_order(self.set, self.setting).ok()?;
        let models = self.set.tasks().iter().map(Task::model);
        Some(Offer::Priorities { priorities: models.zip(order).collect() })
    }

    fn accepts(&self, changed: TaskSpec) -> bool {
        let last = self.set.len() - 1;
        self.set.replaced(last, changed).is_some_and(|set| decide(&set, self.setting).is_ok())
    }

    /// The least value beyond `from` that is accepted. The longest that is tried is a thousandfold:
    /// who needs more has another problem than this one.
    fn least_beyond(&self, from: Nanos, accepted: impl Fn(u64) -> bool) -> Option<Nanos> {
        let most = from.saturating_mul(1_000).min(Task::LONGEST);
        // Short of it by doubling first, so that most verdicts are about sets near the answer.
        let mut reach = from;
        while reach < most && !accepted(reach.0) {
            reach = reach.saturating_mul(2).min(most);
        }
        smallest(from.0, reach.0, accepted).map(Nanos)
    }
}

/// The task cut into `stages` equal ones, the last shorter; `None` where that is not possible.
fn equal_stages(spec: &TaskSpec, stages: u32) -> Option<TaskSpec> {
    let cost: Nanos = spec.stages.iter().copied().sum();
    let stage = Nanos(cost.0.div_ceil(u64::from(stages)));
    let before = stage.checked_mul(u64::from(stages) - 1)?;
    let last = cost.checked_sub(before).filter(|last| *last > Nanos::ZERO)?;
    let mut equal = vec![stage; usize::try_from(stages).ok()? - 1];
    equal.push(last);
    Some(TaskSpec { stages: equal, ..spec.clone() })
}

//! Audsley's search for priorities under which a set is schedulable.
//!
//! Neither rate-monotonic nor deadline-monotonic order is optimal without preemption. The search
//! fills the priorities from the least urgent up: at each place it takes any task that meets its
//! deadline there, with all tasks that have no place yet above it and all others below. If none does,
//! no order exists.
//!
//! That is optimal because the test of one task (`np_fixed_priority.rs`) depends on which
//! tasks are more urgent and which are less, but not on their order among themselves, and because a
//! task that meets its deadline at a place still does at a more urgent one: moving a task from above
//! to below replaces its interference, at least one whole job, by the blocking of one stage. Both
//! conditions hold with several stages, release jitter and any deadline. What look-ahead adds is the
//! same at every place.
//!
//! Costs `O(n^2)` tests of one task at worst, `O(n)` when longer deadlines may be less urgent.
//!
//! # Sources
//! Audsley, "On priority assignment in fixed priority scheduling", Information Processing Letters
//! 79, 2001. George, Rivierre, Spuri, INRIA RR-2966, 1996, for the non-preemptive case. Davis,
//! Burns, "Improved priority assignment for global fixed priority pre-emptive scheduling in
//! multiprocessor real-time systems", Real-Time Systems 47, 2011, for the conditions.

use aegis_trace::{Nanos, Refusal};

use super::fixed_point::Budget;
use super::np_fixed_priority::Level;
use super::outcome::{Outcome, Until};
use super::window::GrowingWork;
use super::workload::{Blocker, Workload};
use super::{Setting, bound};
use crate::task::TaskSet;

/// Priorities, different for every task, under which `set` meets every deadline: one for each task
/// in the set's order, smaller is more urgent, from 0. The policy of `setting` is not asked.
///
/// # Errors
/// Permanent: no order exists, and the refusal is that of the task that came closest at the first
/// place that none could take; or the search ended without an answer.
pub fn some_order(set: &TaskSet, setting: &Setting) -> Result<Vec<u32>, Refusal> {
    let workload = Workload::new(set, setting);
    workload.check_necessary()?;
    let mut search = Search::new(&workload, setting.terms);
    let mut priorities = vec![0; set.len()];
    for place in (0..set.len()).rev() {
        let index = search.take_least_urgent()?;
        priorities[index] = u32::try_from(place).expect("a set is smaller than 2^32");
    }
    Ok(priorities)
}

/// A search under way.
struct Search<'a> {
    workload: &'a Workload,
    /// Tasks without a place, longer deadlines first: those are tried first.
    open: Vec<usize>,
    /// The longest stage of the tasks that have one.
    blocker: Blocker,
    work: GrowingWork,
    budget: Budget,
}

impl<'a> Search<'a> {
    fn new(workload: &'a Workload, terms: u64) -> Self {
        let mut open: Vec<usize> = (0..workload.tasks.len()).collect();
        open.sort_by_key(|index| std::cmp::Reverse(workload.tasks[*index].first_deadline()));
        let (work, budget) = (GrowingWork::new(), Budget::new(terms));
        Self { workload, open, blocker: workload.floor, work, budget }
    }

    /// Gives the least urgent free place to the first task that can take it.
    fn take_least_urgent(&mut self) -> Result<usize, Refusal> {
        let mut closest: Option<(Nanos, Refusal)> = None;
        for place in 0..self.open.len() {
            let index = self.open[place];
            let task = &self.workload.tasks[index];
            let outcome = self.outcome(index);
            match bound(self.workload, task, outcome) {
                Ok(_) => {
                    self.open.remove(place);
                    let stage = Blocker { length: task.longest_stage, model: Some(task.model) };
                    self.blocker = self.blocker.or_longer(stage);
                    return Ok(index);
                }
                Err(undecided @ Refusal::Undecided { .. }) => return Err(undecided),
                Err(refusal) => {
                    let late = lateness(&refusal);
                    if closest.as_ref().is_none_or(|(least, _)| late < *least) {
                        closest = Some((late, refusal));
                    }
                }
            }
        }
        Err(closest.map(|(_, refusal)| refusal).expect("a place is open for some task"))
    }

    /// The worst case of one task with all that have no place above it.
    fn outcome(&mut self, index: usize) -> Outcome {
        let Workload { tasks, time, .. } = self.workload;
        let (blocker, beside) = (self.blocker, self.workload.beside());
        let level = Level { task: &tasks[index], blocker, beside, time: *time };
        let open = &self.open;
        let rivals = || open.iter().filter(|rival| **rival != index).map(|rival| &tasks[*rival]);
        level.outcome(rivals, None, Until::Late, &mut self.work, &mut self.budget)
    }
}

fn lateness(refusal: &Refusal) -> Nanos {
    match refusal {
        Refusal::ResponseExceedsDeadline { response, deadline, .. } => {
            response.saturating_sub(*deadline)
        }
        _ => Nanos::MAX,
    }
}

//! Worst-case response times under non-preemptive and staged EDF.
//!
//! Under EDF the worst job need not be released together with the others: it suffers most when
//! their deadlines just precede its own. With the start of the busy window at 0 and the others
//! released `J` late there, the deadline `d` of the job is varied over all instants
//! `D_j - J_j + k T_j` at which a deadline of any task can fall. On ticks (see [`super::time`]),
//! with the job's nominal release at `a = d - D_i >= -J_i`:
//!
//! ```text
//! b = longest stage of a task with D_k - J_k > d, or the floor where that is longer
//! start of the last stage:
//!     w = (b - 1) + floor((a + J_i) / T_i) C_i + (C_i - last_i)
//!           + sum over j != i with D_j - J_j <= d of
//!               min(floor((w + J_j) / T_j), floor((d - D_j + J_j) / T_j)) + 1) C_j
//! R = max(J_i + C_i, w + last_i - a),   plus 1 in dense time if b > 0
//! ```
//!
//! for `a` below the longest busy window `L`. When windows never end (utilisation 1 with jitter or
//! a floor), everything repeats with the least common multiple of the periods once `d` has passed
//! every `D - J`, and deadlines up to there and one cycle more are all there is to see.
//!
//! **What is skipped, and why that is exact.** The job completes when the work of all jobs due by
//! `d`, the blocker and nothing else has run, at the latest; and within the busy window. So with
//! `h`, `b` of `demand.rs`,
//!
//! ```text
//! R <= min(h(d) + b(d), L + 1) - a = potential(d) + D_i
//! ```
//!
//! and, for a job released before the jobs due by `d` have left the device idle, `e + 1` of
//! `due_window.rs` takes the place of `h(d) + b(d)`. None of them depends on the task. They are
//! computed once for each deadline, in a window that slides over the tasks by `D - J`; for each
//! task the most promising deadline is looked at first, and then only those that could still be
//! worse. Most tasks need a handful of fixed points where the plain search needs as many as there
//! are jobs in the busy window.
//!
//! # Assumptions
//! Those of [`super::np_edf`]. Deadlines need not be met: late jobs run all the same.
//!
//! Exact for tasks of one stage, also with jitter; sound for several. The search is cut off by a
//! budget; a task without an answer is [`Outcome::Undecided`]. Costs `O(log n)` for each deadline in
//! reach of a task and `O(n)` terms for each one looked at.
//!
//! # Sources
//! Spuri, "Analysis of deadline scheduled real-time systems", INRIA RR-2772, 1996, for offsets and
//! jitter. George, Rivierre, Spuri, "Preemptive and non-preemptive real-time uniprocessor
//! scheduling", INRIA RR-2966, 1996, for the blocker. The last stage as in Prosa's machine-checked
//! analysis of EDF with limited preemptions. The potential is our own.

use std::collections::VecDeque;

use aegis_trace::Nanos;

use super::demand::{Demand, jobs_due};
use super::due_window::DueWindow;
use super::fixed_point::{Budget, Exhausted, LONGEST_WINDOW};
use super::offsets::Offsets;
use super::outcome::{Outcome, Worst};
use super::screen::Screen;
use super::window::GrowingWork;
use super::workload::{Blocker, Charged, Workload};

/// The worst case of every task, in the set's order.
pub(super) fn outcomes(workload: &Workload, demand: &Demand, budget: &mut Budget) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::Unbounded; workload.tasks.len()];
    match Sweep::new(workload, demand, budget) {
        Ok(mut sweep) => {
            for (index, task) in demand.tasks() {
                outcomes[*index] = budget.lend_half(|half| sweep.outcome(*index, task, half));
            }
        }
        Err(spent) => outcomes.fill(Outcome::Undecided(spent.limit)),
    }
    outcomes
}

/// The worst response of every task, in the set's order; `None` where the search ended without an
/// answer. `known` gives responses that the first tasks are known to have at least: deadlines that
/// promise no more are not looked at.
pub(super) fn bounds(
    workload: &Workload,
    demand: &Demand,
    known: &[Nanos],
    budget: &mut Budget,
) -> Vec<Option<Nanos>> {
    let mut bounds = vec![None; workload.tasks.len()];
    let Ok(mut sweep) = Sweep::new(workload, demand, budget) else { return bounds };
    for (index, task) in demand.tasks() {
        let least = known.get(*index).copied().unwrap_or(Nanos::ZERO);
        let worse = budget.lend_half(|half| sweep.worse_than(least, *index, task, half));
        let worse = worse.map(|worse| worse.map_or(least, |worst| worst.response));
        bounds[*index] = worse.ok();
    }
    bounds
}

/// The worst case of one task.
pub(super) fn outcome_of(
    workload: &Workload,
    demand: &Demand,
    index: usize,
    budget: &mut Budget,
) -> Outcome {
    match Sweep::new(workload, demand, budget) {
        Ok(mut sweep) => sweep.outcome(index, &workload.tasks[index], budget),
        Err(spent) => Outcome::Undecided(spent.limit),
    }
}

/// The searches of several tasks, which share the deadlines they look at.
struct Sweep<'a> {
    workload: &'a Workload,
    demand: &'a Demand,
    reach: Reach,
    deadlines: Deadlines<'a>,
    memory: Memory,
}

impl<'a> Sweep<'a> {
    fn new(
        workload: &'a Workload,
        demand: &'a Demand,
        budget: &mut Budget,
    ) -> Result<Self, Exhausted> {
        let reach = Reach::of(workload, demand, budget)?;
        let deadlines = Deadlines::new(demand, reach, workload.beside());
        let memory = Memory { work: GrowingWork::new(), screen: Screen::default() };
        Ok(Self { workload, demand, reach, deadlines, memory })
    }

    fn outcome(&mut self, index: usize, task: &Charged, budget: &mut Budget) -> Outcome {
        match self.worse_than(Nanos::ZERO, index, task, budget) {
            Ok(worst) => worst.map_or(Outcome::Unbounded, Outcome::Worst),
            Err(spent) => Outcome::Undecided(spent.limit),
        }
    }

    /// The worst case of `task`, whose `D - J` is no less than that of the task before, if its
    /// response is longer than `known`.
    fn worse_than(
        &mut self,
        known: Nanos,
        index: usize,
        task: &Charged,
        budget: &mut Budget,
    ) -> Result<Option<Worst>, Exhausted> {
        let Self { workload, demand, reach, .. } = *self;
        let last = reach.last_due(task);
        self.deadlines.slide(task.first_deadline(), last, budget)?;
        let search = Search { workload, demand, index, task };
        search.worse_than(known, &self.deadlines, last, &mut self.memory, budget)
    }
}

/// How far the releases of a busy window reach.
#[derive(Clone, Copy)]
enum Reach {
    /// Releases before the end of the window.
    Window(Nanos),
    /// Deadlines up to this one.
    Due(Nanos),
}

impl Reach {
    fn of(workload: &Workload, demand: &Demand, budget: &mut Budget) -> Result<Self, Exhausted> {
        match workload.cycle()? {
            Some(cycle) => Ok(Self::Due(demand.unblocked().saturating_add(cycle))),
            None => workload.busy_window(Nanos::MAX, budget).map(Self::Window),
        }
    }

    /// The last deadline that a job of `task` in the window can have.
    fn last_due(self, task: &Charged) -> Nanos {
        match self {
            Self::Window(length) => length.saturating_add(task.deadline).saturating_sub(Nanos(1)),
            Self::Due(last) => last.max(task.first_deadline()),
        }
    }

    /// By when a job due at `due` is complete at the latest, if `needed` must be done by then.
    fn completion(self, needed: Nanos) -> Nanos {
        match self {
            Self::Window(length) => needed.min(length.saturating_add(Nanos::EPSILON)),
            Self::Due(_) => needed,
        }
    }
}

/// The deadlines in reach of one task, ascending, each with the latest completion of a job due
/// then. They are made once and slide on from task to task.
struct Deadlines<'a> {
    demand: &'a Demand,
    reach: Reach,
    /// Deadlines to come, with the work that becomes due at each.
    ahead: Offsets,
    /// The next of them.
    next: Option<(Nanos, Nanos)>,
    /// Work beyond all costs, and what look-ahead adds.
    beside: Nanos,
    /// The work due before `next`.
    due: Nanos,
    /// How long the jobs due by then keep the device busy.
    busy: DueWindow<'a>,
    seen: VecDeque<Seen>,
}

/// What a deadline says of every job that has it.
#[derive(Clone, Copy)]
struct Seen {
    due: Nanos,
    /// The latest completion.
    completion: Nanos,
    /// The latest completion of one that is released before this.
    busy: Nanos,
}

impl<'a> Deadlines<'a> {
    fn new(demand: &'a Demand, reach: Reach, beside: Nanos) -> Self {
        let ahead = Offsets::new(std::iter::empty());
        let (busy, seen) = (DueWindow::new(demand, beside), VecDeque::new());
        Self { demand, reach, ahead, next: None, beside, due: Nanos::ZERO, busy, seen }
    }

    /// Moves on to the deadlines from `first` to `last`; `first` never decreases.
    fn slide(&mut self, first: Nanos, last: Nanos, budget: &mut Budget) -> Result<(), Exhausted> {
        let before = self.seen.partition_point(|seen| seen.due < first);
        self.seen.drain(..before);
        if self.next.is_none_or(|(next, _)| next < first) {
            self.seek(first, budget)?;
        }
        while let Some((due, more)) = self.next.filter(|(due, _)| *due <= last) {
            budget.spend(Offsets::TERMS)?;
            let busy = match self.demand.tasks().len() {
                0..DueWindow::PAYS => Nanos::ZERO, // Says nothing about any job.
                _ => self.busy.until(due, budget)?,
            };
            self.due = self.due.saturating_add(more);
            let needed = self.due.saturating_add(self.demand.blocker(due).length);
            let needed = needed.saturating_add(self.beside);
            let completion = self.reach.completion(needed);
            self.seen.push_back(Seen { due, completion, busy });
            self.next = self.ahead.next();
        }
        Ok(())
    }

    /// Begins anew at `first`, which all deadlines seen so far precede.
    fn seek(&mut self, first: Nanos, budget: &mut Budget) -> Result<(), Exhausted> {
        budget.spend(2 * self.demand.tasks().len())?;
        let before = first.saturating_sub(Nanos::EPSILON);
        self.due = if before < first { self.demand.within(before) } else { Nanos::ZERO };
        let steps = self.demand.tasks().iter().map(|(_, task)| {
            let begin = task.first_deadline();
            let missed = first.saturating_sub(begin).div_ceil(task.period);
            let next = begin.saturating_add(task.period.saturating_mul(missed));
            (next, task.period, task.cost)
        });
        self.ahead = Offsets::new(steps);
        self.next = self.ahead.next();
        Ok(())
    }

    /// Deadlines up to `last` with what the response of `task` cannot exceed there.
    fn potentials(&self, task: &Charged, last: Nanos) -> impl Iterator<Item = (Nanos, Nanos)> {
        let until = self.seen.partition_point(|seen| seen.due <= last);
        let (deadline, first) = (task.deadline, task.first_deadline());
        self.seen.range(..until).map(move |seen| {
            let Seen { due, completion, busy } = *seen;
            let completion = if due - first < busy {
                completion.min(busy.saturating_add(Nanos::EPSILON))
            } else {
                completion
            };
            (due, completion.saturating_add(deadline).saturating_sub(due))
        })
    }
}

/// What every search uses.
struct Memory {
    work: GrowingWork,
    screen: Screen,
}

/// The search for the worst deadline of one task.
struct Search<'a> {
    workload: &'a Workload,
    demand: &'a Demand,
    index: usize,
    task: &'a Charged,
}

impl Search<'_> {
    /// The job with the longest response, if it is longer than `known`.
    fn worse_than(
        &self,
        known: Nanos,
        deadlines: &Deadlines<'_>,
        last: Nanos,
        memory: &mut Memory,
        budget: &mut Budget,
    ) -> Result<Option<Worst>, Exhausted> {
        let Memory { work, screen } = memory;
        screen.begin(self.demand, self.index);
        budget.spend(deadlines.seen.len() / 8)?; // A pass without divisions.
        let potentials = || deadlines.potentials(self.task, last);
        let best = potentials().max_by_key(|(_, most)| *most).map(|(due, _)| due);
        let mut worst: Option<Worst> = None;
        // The most promising deadline first, then all others in their order.
        for (due, most) in potentials().filter(|(due, _)| Some(*due) == best).chain(potentials()) {
            let least = worst.map_or(known, |worst| worst.response);
            if most > least && self.may_exceed(least, due, screen, budget)? {
                let found = self.at(due, work, budget)?;
                worst = if found.response > least { Some(found) } else { worst };
            }
        }
        Ok(worst)
    }

    /// False if a job due at `due` certainly takes no longer than `response`.
    fn may_exceed(
        &self,
        response: Nanos,
        due: Nanos,
        screen: &mut Screen,
        budget: &mut Budget,
    ) -> Result<bool, Exhausted> {
        let Charged { cost, last_stage, jitter, .. } = *self.task;
        let since = due - self.task.first_deadline();
        let among = self.demand.due_within(due).len();
        let blocker = self.demand.blocker(due);
        let rest = jitter.saturating_add(last_stage);
        let rest = rest.saturating_add(self.workload.time.instant(blocker.length));
        let start = since.saturating_add(response).checked_sub(rest);
        let Some(start) = start.filter(|start| *start < LONGEST_WINDOW) else { return Ok(true) };
        budget.spend(among / 4)?; // A pass with few divisions.
        let own = cost.saturating_mul(jobs_due(self.task, due)).saturating_sub(last_stage);
        let base = blocker.ticks().saturating_add(self.workload.beside()).saturating_add(own);
        Ok(base.saturating_add(screen.before(start, due, among)) > start)
    }

    /// The response of a job due at `due`.
    fn at(
        &self,
        due: Nanos,
        work: &mut GrowingWork,
        budget: &mut Budget,
    ) -> Result<Worst, Exhausted> {
        let Charged { cost, last_stage, jitter, .. } = *self.task;
        let rivals = self.demand.due_within(due);
        budget.spend(rivals.len())?;
        work.clear();
        for (_, rival) in rivals.iter().filter(|(index, _)| *index != self.index) {
            work.add(rival, jobs_due(rival, due));
        }
        let blocker: Blocker = self.demand.blocker(due);
        let job = jobs_due(self.task, due) - 1;
        let own = cost.saturating_mul(job + 1).saturating_sub(last_stage);
        let base = blocker.ticks().saturating_add(self.workload.beside()).saturating_add(own);
        let start = work.climb(base, Nanos::ZERO, Nanos::MAX, budget)?;
        // The nominal release is `J` before `since`, which is never before the window's start.
        let since = due - self.task.first_deadline();
        let completion = start.saturating_add(last_stage);
        let instant = self.workload.time.instant(blocker.length);
        let response = completion.saturating_add(instant).saturating_add(jitter);
        let response = response.saturating_sub(since).max(self.task.alone());
        Ok(Worst { response, job, start, due: Some(due), blocker })
    }
}

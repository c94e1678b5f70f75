//! Worst-case response times under non-preemptive and staged fixed priorities.
//!
//! The job that suffers most is not always the first: a job pushed out by its predecessor can be
//! the worst, even when deadlines do not exceed periods. So every job of the level-i busy window
//! is examined, with the blocker at its start. On ticks (see [`super::time`]):
//!
//! ```text
//! hp = the tasks at least as urgent as i, without i
//! B  = the longest stage of the less urgent ones, or the floor (wake-up, background) if longer
//! start of the last stage of job n = 0, 1, ...:
//!     w = (B - 1) + n C_i + (C_i - last_i) + sum over hp of (floor((w + J_j) / T_j) + 1) C_j
//!     R = J_i + w + last_i - n T_i,   plus 1 in dense time if B > 0
//! until the window ends before job n + 1 can be ready:
//!     e = (B - 1) + (n + 1) C_i + sum over hp of ceil((e + J_j) / T_j) C_j  <=  (n + 1) T_i - J_i
//! ```
//!
//! When the tasks of a level use the device completely, and something blocks or is late, the window
//! never ends. Its equations repeat after the least common multiple of the periods, so the jobs of
//! one such cycle are all there is to see.
//!
//! # Assumptions
//! 1. At least `T` between nominal releases of a task; each ready at most `J` after its own.
//! 2. A stage runs to completion; between stages the job goes on unless a strictly more urgent one
//!    is ready. A task's jobs run in release order.
//! 3. The device never idles while a job is ready, up to the wake-up latency.
//! 4. Every stage stays within its cost; stages may be shorter.
//!
//! With look-ahead, `Q` of [`committed`](super::workload::Workload::committed) is added to `B - 1` in
//! both places.
//!
//! Exact for tasks of one stage when jobs of equal priority may run in any order. Exact for several
//! stages without equal priorities (Bril et al.), sound with them.
//! Costs `O(n)` terms for each window at which some task releases a job, `O(1)` for the others.
//!
//! # Sources
//! Davis, Burns, Bril, Lukkien, "Controller Area Network (CAN) schedulability analysis: refuted,
//! revisited and revised", Real-Time Systems 35, 2007. Bril, Lukkien, Verhaegh, "Worst-case
//! response time analysis of real-time tasks under fixed-priority scheduling with deferred
//! preemption", Real-Time Systems 42, 2009. Bertogna, Buttazzo, Yao, "Improving feasibility of
//! fixed priority tasks using non-preemptive regions", RTSS 2011, for the last stage.

use std::cmp::Ordering;

use aegis_trace::Nanos;

use super::fixed_point::{Budget, Exhausted};
use super::outcome::{Outcome, Until, Worst};
use super::time::{TimeModel, ticks};
use super::utilisation::Utilisation;
use super::window::GrowingWork;
use super::workload::{Blocker, Charged, Workload, hyperperiod};

/// The tasks of a set from the most urgent down, with what each of them has to know of the others.
pub(super) struct Levels<'a> {
    workload: &'a Workload,
    /// Indices of tasks, more urgent ones first.
    order: Vec<usize>,
    /// For each place in `order`, where the tasks begin that are less urgent.
    ends: Vec<usize>,
    /// For each place, the longest stage from there on, or the floor.
    blockers: Vec<Blocker>,
    /// For each place, the utilisation of all before it.
    loads: Vec<Utilisation>,
}

impl<'a> Levels<'a> {
    /// Orders the tasks by `urgency`; smaller is more urgent. Costs `O(n log n)`.
    pub(super) fn new(workload: &'a Workload, urgency: impl Fn(&Charged) -> u64) -> Self {
        let tasks = &workload.tasks;
        let mut order: Vec<usize> = (0..tasks.len()).collect();
        order.sort_by_key(|index| urgency(&tasks[*index]));
        let mut ends = vec![order.len(); order.len()];
        for place in (1..order.len()).rev() {
            let same = urgency(&tasks[order[place - 1]]) == urgency(&tasks[order[place]]);
            ends[place - 1] = if same { ends[place] } else { place };
        }
        let mut blockers = vec![workload.floor; order.len() + 1];
        for place in (0..order.len()).rev() {
            let Charged { longest_stage: length, model, .. } = tasks[order[place]];
            let stage = Blocker { length, model: Some(model) };
            blockers[place] = blockers[place + 1].or_longer(stage);
        }
        let mut loads = Vec::with_capacity(order.len() + 1);
        loads.push(Utilisation::default());
        for index in &order {
            loads.push(loads[loads.len() - 1].plus(tasks[*index].load));
        }
        Self { workload, order, ends, blockers, loads }
    }

    /// The worst case of every task, late or not, in the set's order.
    pub(super) fn outcomes(&self, budget: &mut Budget) -> Vec<Outcome> {
        let mut sweep = Sweep::new(self.order.len());
        let mut outcomes = vec![Outcome::Unbounded; self.order.len()];
        for place in 0..self.order.len() {
            outcomes[self.order[place]] =
                budget.lend_half(|half| self.next_outcome(place, Until::End, &mut sweep, half));
        }
        outcomes
    }

    /// The places from the most urgent down: the index of the task at each, and what can block it.
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, usize, Blocker)> {
        (0..self.order.len()).map(|place| (place, self.order[place], self.blocker(place)))
    }

    fn blocker(&self, place: usize) -> Blocker {
        self.blockers[self.ends[place]]
    }

    /// The worst case of one task, late or not.
    pub(super) fn outcome_of(&self, index: usize, budget: &mut Budget) -> Outcome {
        let place = self.order.iter().position(|task| *task == index);
        place.map_or(Outcome::Unbounded, |place| {
            self.outcome(place, Until::End, &mut GrowingWork::new(), budget)
        })
    }

    /// The worst case of the task at `place`, which follows the places asked for before.
    pub(super) fn next_outcome(
        &self,
        place: usize,
        until: Until,
        sweep: &mut Sweep,
        budget: &mut Budget,
    ) -> Outcome {
        let level = self.level(place);
        if place + 1 < self.ends[place] || (place > 0 && self.ends[place - 1] > place) {
            return self.outcome(place, until, &mut sweep.spare, budget);
        }
        let Sweep { work, spare, places, blocking } = sweep;
        let rivals = || (0..place).map(|rival| self.task(rival));
        let load = self.loads[place];
        match level.jobs(rivals, load) {
            Err(spent) => Outcome::Undecided(spent.limit),
            Ok(0) => Outcome::Unbounded,
            Ok(jobs) => {
                if *blocking != level.blocker.length {
                    (*places, *blocking) = (0, level.blocker.length);
                    work.clear();
                }
                if let Err(spent) = budget.spend(place - *places) {
                    return Outcome::Undecided(spent.limit);
                }
                (*places..place).for_each(|rival| work.add(self.task(rival), u64::MAX));
                *places = place;
                level.worst(Search { load, jobs, until, work, spare: Some(spare), budget })
            }
        }
    }

    /// The worst case of the task at one place. `work` is memory to use.
    fn outcome(
        &self,
        place: usize,
        until: Until,
        work: &mut GrowingWork,
        budget: &mut Budget,
    ) -> Outcome {
        if let Err(spent) = budget.spend(self.ends[place]) {
            return Outcome::Undecided(spent.limit); // Counting the rivals is work, too.
        }
        let level = self.level(place);
        let rivals = || self.rivals(place).map(|rival| self.task(rival));
        // Where nobody else is as urgent, the sum over the rivals is at hand.
        let alone = place + 1 == self.ends[place];
        let load = alone.then(|| self.loads[place]);
        level.outcome(rivals, load, until, work, budget)
    }

    fn level(&self, place: usize) -> Level<'a> {
        Level {
            task: self.task(place),
            blocker: self.blocker(place),
            beside: self.workload.beside(),
            time: self.workload.time,
        }
    }

    fn task(&self, place: usize) -> &'a Charged {
        &self.workload.tasks[self.order[place]]
    }

    /// The places of the others at least as urgent as the task at `place`.
    fn rivals(&self, place: usize) -> impl Iterator<Item = usize> + use<'_> {
        (0..self.ends[place]).filter(move |rival| *rival != place)
    }
}

/// The work of the tasks before some place, kept from level to level.
///
/// While the blocker stays the same, no window of a later level is shorter than one asked for by
/// the first job of an earlier one. With `H(w)` the work of what is more urgent than `i`, that job
/// asks for windows up to the least fixed points of `B + C_i - last_i + H(w)` and, for the window's
/// end, of `B + C_i - 1 + H(w)`; and where `i` is a rival itself, `w = B + ... + H(w) +
/// (floor((w + J_i) / T_i) + 1) C_i` is no less than either. So the work need not be counted from
/// the start again. Later jobs ask for longer windows, and do so on a copy.
pub(super) struct Sweep {
    work: GrowingWork,
    spare: GrowingWork,
    /// How many places `work` holds.
    places: usize,
    /// The blocker of the levels that asked.
    blocking: Nanos,
}

impl Sweep {
    pub(super) fn new(tasks: usize) -> Self {
        let (work, spare) = (GrowingWork::with_room(tasks), GrowingWork::new());
        Self { work, spare, places: 0, blocking: Nanos::ZERO }
    }
}

/// One task, what is ahead of it whatever its rivals do, and in which time.
#[derive(Clone, Copy)]
pub(super) struct Level<'a> {
    pub(super) task: &'a Charged,
    pub(super) blocker: Blocker,
    /// Work beyond all costs, and what look-ahead adds.
    pub(super) beside: Nanos,
    pub(super) time: TimeModel,
}

impl<'a> Level<'a> {
    /// The worst case beside `rivals`, the others at least as urgent, whose utilisation is `load`
    /// if that is known. `work` is memory to use.
    pub(super) fn outcome<I: Iterator<Item = &'a Charged>>(
        &self,
        rivals: impl Fn() -> I,
        load: Option<Utilisation>,
        until: Until,
        work: &mut GrowingWork,
        budget: &mut Budget,
    ) -> Outcome {
        let load = load.unwrap_or_else(|| Utilisation::sum(rivals().map(|rival| rival.load)));
        match self.jobs(&rivals, load) {
            Err(spent) => Outcome::Undecided(spent.limit),
            Ok(0) => Outcome::Unbounded,
            Ok(jobs) => {
                work.clear();
                rivals().for_each(|rival| work.add(rival, u64::MAX));
                self.worst(Search { load, jobs, until, work, spare: None, budget })
            }
        }
    }

    /// How many jobs have to be looked at: none if the level exceeds the device, those of one
    /// cycle if it fills it for ever, and otherwise as many as the window holds.
    fn jobs<I: Iterator<Item = &'a Charged>>(
        &self,
        rivals: impl Fn() -> I,
        load: Utilisation,
    ) -> Result<u64, Exhausted> {
        let level = || rivals().chain([self.task]);
        match load.plus(self.task.load).cmp_one(|| level().map(Charged::share)) {
            Ordering::Less => Ok(u64::MAX),
            Ordering::Greater => Ok(0),
            Ordering::Equal => {
                let late = level().any(|task| task.jitter > Nanos::ZERO);
                if !late && self.ahead() == Nanos::ZERO {
                    return Ok(u64::MAX);
                }
                Ok(hyperperiod(level().map(|task| task.period))? / self.task.period)
            }
        }
    }

    /// Looks at every job of the busy window.
    fn worst(&self, search: Search<'_>) -> Outcome {
        let Search { load, jobs, until, mut work, mut spare, budget } = search;
        let deadline = if until == Until::Late { self.task.deadline } else { Nanos::MAX };
        let mut worst = (Nanos::ZERO, 0, Nanos::ZERO); // Response, job, start.
        let mut from = work.window();
        for job in 0..jobs {
            let base = self.before_last_stage(job);
            let begin = from.max(load.reach(base));
            let start = match work.climb(base, begin, Nanos::MAX, budget) {
                Ok(start) => start,
                // Late at what was reached is late, however long the rest would take.
                Err(spent) if self.response(job, spent.reached) > deadline => spent.reached,
                Err(spent) => return Outcome::Undecided(spent.limit),
            };
            let response = self.response(job, start);
            if response > worst.0 {
                worst = (response, job, start);
            }
            if response > deadline {
                break;
            }
            match self.window_end(job, start, work, budget) {
                Ok(None) => break,
                Ok(Some(reached)) => from = reached,
                Err(spent) => return Outcome::Undecided(spent.limit),
            }
            if let Some(copy) = spare.take() {
                copy.copy_from(work);
                work = copy;
            }
        }
        let ((response, job, start), blocker) = (worst, self.blocker);
        Outcome::Worst(Worst { response, job, start, due: None, blocker })
    }

    /// What runs before the last stage of `job`, but for the rivals.
    fn before_last_stage(&self, job: u64) -> Nanos {
        let own = self.task.cost.saturating_mul(job + 1).saturating_sub(self.task.last_stage);
        self.ahead().saturating_add(own)
    }

    /// The blocker and what runs beside it.
    fn ahead(&self) -> Nanos {
        self.blocker.ticks().saturating_add(self.beside)
    }

    /// The response of `job` from its nominal release, if its last stage starts at `start`.
    fn response(&self, job: u64, start: Nanos) -> Nanos {
        let instant = self.time.instant(self.blocker.length);
        let completion = start.saturating_add(self.task.last_stage).saturating_add(instant);
        let since_ready = completion.saturating_sub(self.task.period.saturating_mul(job));
        since_ready.saturating_add(self.task.jitter)
    }

    /// `None` if all work of this level is done before the job after `job` can be ready; otherwise
    /// a point that the last stage of that job does not start before.
    fn window_end(
        &self,
        job: u64,
        start: Nanos,
        work: &mut GrowingWork,
        budget: &mut Budget,
    ) -> Result<Option<Nanos>, Exhausted> {
        let next = self.task.period.saturating_mul(job + 1).saturating_sub(self.task.jitter);
        // ceil(e / T) = floor((e - 1) / T) + 1, so what climbs is e - 1, from the completion.
        let own = self.task.cost.saturating_mul(job + 1);
        let base = ticks(self.ahead().saturating_add(own));
        let from = ticks(start.saturating_add(self.task.last_stage));
        let end = work.climb(base, from, ticks(next), budget)?;
        Ok((end >= next).then_some(end))
    }
}

/// What a search needs beside its level.
struct Search<'a> {
    /// Of the rivals alone.
    load: Utilisation,
    /// Jobs to look at, at most.
    jobs: u64,
    until: Until,
    /// Of the rivals.
    work: &'a mut GrowingWork,
    /// Memory for all jobs but the first, if `work` is not to grow past what that one asks for.
    spare: Option<&'a mut GrowingWork>,
    budget: &'a mut Budget,
}

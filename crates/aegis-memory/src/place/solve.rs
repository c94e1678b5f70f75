//! The planner of bare problems.
//!
//! Heuristics first, then exact searches until the peak is proved least, the capacity is met, or the
//! budget is spent.
//!
//! ```text
//!   prepare -> sweeps -> greedy -> search at the bound -> and between it and the best
//!              \______ each stops as soon as the goal is met: the lower bound, or the capacity
//! ```
//!
//! # Guarantees
//! 1. Whatever is returned passed the checker; a plan that does not is a defect of this crate, and
//!    ends in a panic rather than in a wrong promise.
//! 2. A function of problem and [`Limits`], but for the caller's stop: the same on every run,
//!    machine and number of threads. [`Ended`] tells whether the stop had a part in it.
//! 3. Anytime: there is always a plan, whatever the limits. The caller's stop is asked between
//!    heuristics and between nodes; the first sweep is always made.
//! 4. Memory is linear in the number of buffers, but for searches, which are left out where their
//!    tables would be too large (`INCIDENCES_MAX`).

use std::num::NonZeroUsize;

use aegis_trace::Bytes;

use crate::check_offsets::check_offsets;
use crate::place::greedy::Greedy;
use crate::place::parts::{Part, Prepared, prepare};
use crate::place::problem::Problem;
use crate::place::search::tables::Tables;
use crate::place::search::{Answer, Budget, Stop, search};
use crate::place::solution::{BoundReason, Ended, Method, Solution, Verdict, Witness};
use crate::place::sweep::Sweep;

/// The largest tables a search is given: pairs of buffer and section.
const INCIDENCES_MAX: usize = 1 << 22;
/// Comparisons that greedy placements may make in one part, counted as n^2 / 2 for each; two are
/// made in any case where there are [`GREEDY_MAX`] items at most.
const GREEDY_COMPARISONS: usize = 1_000_000;
const GREEDY_MAX: usize = 10_000;
/// Buffers that all sweeps together may place in one part; two are made in any case.
const SWEPT_MAX: usize = 3_000;
/// Up to this many buffers the bound of every start of a life is computed with its padding.
const PADDED_BOUNDS_MAX: usize = 2_000;
/// The nodes for an attempt of the first pass, for each item: two rounds of the portfolio.
const FIRST_SHARE: u64 = 160;
/// In a problem of so few items an attempt that takes long is likely to end in a proof, so it may
/// use half of the budget.
const SMALL: u64 = 64;
/// How many times as many nodes an attempt of the next pass has.
const SHARE_GROWTH: u64 = 4;
/// How many goals a pass tries between bound and peak.
const STEPS: u64 = 8;

/// What planning may use, and what it is for.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// With a capacity, planning ends with the first plan within it; without, with a least plan.
    pub capacity: Option<Bytes>,
    /// Nodes of all searches together; zero for heuristics alone.
    pub nodes: u64,
    /// Threads that search. They change how long it takes, never the answer.
    pub threads: NonZeroUsize,
    /// Asked between heuristics and between nodes whether to give up, for callers with a clock. An
    /// answer after a stop may differ from run to run.
    pub stop: Stop<'a>,
}

impl Limits<'_> {
    /// To make the peak least: one thread, no stop, and as many nodes as take a few seconds on one
    /// core for a problem of `buffers` buffers. Most problems need far less.
    #[must_use]
    pub fn minimise(buffers: usize) -> Self {
        let nodes = usual_nodes(buffers);
        Self { capacity: None, nodes, threads: NonZeroUsize::MIN, stop: &|| false }
    }

    /// To meet `capacity`: as [`minimise`](Self::minimise), with 32 times the nodes, since there is
    /// no second best.
    #[must_use]
    pub fn fit(capacity: Bytes, buffers: usize) -> Self {
        let limits = Self::minimise(buffers);
        Self { capacity: Some(capacity), nodes: limits.nodes * 32, ..limits }
    }
}

const NODES_SCALE: u64 = 100_000_000_000;

/// What a node costs grows with the number of buffers, and so does the number that a plan needs.
fn usual_nodes(buffers: usize) -> u64 {
    let n = buffers as u64;
    NODES_SCALE / (n + 40).saturating_mul(n + 100)
}

/// A part with the best plan of it so far.
struct Plan {
    part: Part,
    /// What a search needs, made for the first one.
    tables: Option<Tables>,
    heights: Vec<u64>,
    offsets: Vec<u64>,
    peak: u64, // Including the base.
    method: Method,
    /// Whether the caller said stop before every heuristic had its turn.
    is_cut_short: bool,
}

/// Plans `problem` within `limits`.
///
/// O(n log n) for sweeps, O(n^2) for greedy placements where n is small enough, then as many nodes
/// as `limits` allow. Allocates; asks no clock but the caller's.
///
/// # Panics
/// When the planner's own plan does not pass the checker: a defect of this crate.
#[must_use]
pub fn solve(problem: &Problem, limits: &Limits<'_>) -> Solution {
    let prepared = prepare(problem);
    let mut solver = Solver::new(problem, prepared, *limits);
    let verdict = match limits.capacity {
        Some(capacity) => solver.fit(capacity),
        None => solver.minimise(),
    };
    solver.into_solution(problem, verdict)
}

struct Solver<'a> {
    limits: Limits<'a>,
    unit: u64,
    peeled: Vec<(usize, u64)>,
    peeled_top: u64,
    plans: Vec<Plan>,
    witness: Witness,
    bound: u64, // In units.
    bound_by: BoundReason,
    nodes: u64,
}

impl<'a> Solver<'a> {
    fn new(problem: &Problem, prepared: Prepared, limits: Limits<'a>) -> Self {
        let Prepared { unit, peeled, peeled_top, parts } = prepared;
        let witness = best_witness(problem, unit);
        let bound = witness.bytes.0.div_ceil(unit);
        let goal = limits.capacity.map_or(bound, |capacity| capacity.0 / unit);
        let plan = |part| Plan::heuristic(part, goal, limits.stop);
        let plans = parts.into_iter().map(plan).collect();
        let bound_by = BoundReason::Witness;
        Self { limits, unit, peeled, peeled_top, plans, witness, bound, bound_by, nodes: 0 }
    }

    /// The number of items of the largest part.
    fn items(&self) -> usize {
        self.plans.iter().map(|plan| plan.part.items.len()).max().unwrap_or(0)
    }

    fn peak(&self) -> u64 {
        self.plans.iter().map(|plan| plan.peak).max().unwrap_or(0).max(self.peeled_top)
    }

    /// Looks for a plan within `capacity`.
    fn fit(&mut self, capacity: Bytes) -> Verdict {
        let goal = capacity.0 / self.unit;
        if goal < self.bound {
            return Verdict::Infeasible;
        }
        if self.peak() > goal {
            match self.attempt(goal, self.limits.nodes) {
                Attempt::Found => {}
                Attempt::Refuted => {
                    self.refuted(goal);
                    return Verdict::Infeasible;
                }
                Attempt::Unknown => return Verdict::LimitReached,
            }
        }
        if self.peak() == self.bound { Verdict::Optimal } else { Verdict::WithinCapacity }
    }

    /// Lowers the peak until it meets the bound or the budget is spent. The next pass tries again
    /// with more nodes for each attempt.
    fn minimise(&mut self) -> Verdict {
        let items = self.items() as u64;
        let mut share = items.saturating_mul(FIRST_SHARE);
        if items <= SMALL {
            // With nodes without end, half of the usual number: other goals want their turn too.
            share = (self.limits.nodes / 2).min(usual_nodes(self.items()) / 2);
        }
        while self.bound < self.peak() && self.may_go_on() {
            let before = (self.nodes, self.bound, self.peak());
            self.pass(share);
            if (self.nodes, self.bound, self.peak()) == before {
                break; // What is too high has no tables to be searched with.
            }
            share = share.saturating_mul(SHARE_GROWTH);
        }
        if self.peak() == self.bound { Verdict::Optimal } else { Verdict::Gap }
    }

    /// Tries the bound, where most problems have a plan, and then goals at even distances from it
    /// to the peak. Not by halves: that a goal was missed says little of the goals below it, since
    /// another capacity makes another search. Any plan that is found begins the distances anew.
    fn pass(&mut self, share: u64) {
        let (mut step, mut last) = (0, None);
        while step < STEPS && self.bound < self.peak() && self.may_go_on() {
            let gap = u128::from(self.peak() - self.bound) * u128::from(step) / u128::from(STEPS);
            let goal = self.bound + u64::try_from(gap).expect("less than the peak");
            step += 1;
            if last == Some(goal) {
                continue;
            }
            last = Some(goal);
            match self.attempt(goal, share) {
                Attempt::Found => step = 1,
                Attempt::Refuted => self.refuted(goal),
                Attempt::Unknown => {}
            }
        }
    }

    fn refuted(&mut self, goal: u64) {
        if goal + 1 > self.bound {
            self.bound = goal + 1;
            self.bound_by = BoundReason::Exhausted;
        }
    }

    fn nodes_left(&self) -> u64 {
        self.limits.nodes.saturating_sub(self.nodes)
    }

    fn may_go_on(&self) -> bool {
        self.nodes_left() > 0 && !(self.limits.stop)()
    }

    /// Tries to bring every part within `goal`, with `nodes` for all of them.
    fn attempt(&mut self, goal: u64, nodes: u64) -> Attempt {
        let mut left = nodes.min(self.nodes_left());
        let mut all = Attempt::Found;
        if self.peeled_top > goal {
            return Attempt::Refuted;
        }
        for plan in self.plans.iter_mut().filter(|plan| plan.peak > goal) {
            let budget =
                Budget { nodes: left, threads: self.limits.threads, stop: self.limits.stop };
            let (one, used) = plan.lower(goal, budget);
            left -= used.min(left);
            self.nodes += used;
            match one {
                Attempt::Found => {}
                Attempt::Refuted => return Attempt::Refuted,
                Attempt::Unknown => all = Attempt::Unknown,
            }
        }
        all
    }

    /// Why there is no better answer than `verdict`.
    fn ended(&self, verdict: Verdict) -> Ended {
        let goal = self.limits.capacity.map_or(self.bound, |capacity| capacity.0 / self.unit);
        let mut high = self.plans.iter().filter(|plan| plan.peak > goal);
        match verdict {
            Verdict::Optimal | Verdict::Infeasible => Ended::Proved,
            Verdict::WithinCapacity => Ended::CapacityMet,
            Verdict::Gap | Verdict::LimitReached => {
                if self.plans.iter().any(|plan| plan.is_cut_short) {
                    Ended::Stopped
                } else if high.any(|plan| plan.is_too_large()) {
                    Ended::TooLarge
                } else if self.nodes_left() == 0 {
                    Ended::Nodes
                } else {
                    Ended::Stopped
                }
            }
        }
    }

    fn into_solution(self, problem: &Problem, verdict: Verdict) -> Solution {
        let mut offsets = vec![0; problem.buffers().len()];
        for (buffer, offset) in &self.peeled {
            offsets[*buffer] = offset * self.unit;
        }
        for Plan { part, offsets: of_part, .. } in &self.plans {
            for (item, offset) in part.items.iter().zip(of_part) {
                offsets[item.buffer] = (part.base + offset) * self.unit;
            }
        }
        let highest = self.plans.iter().max_by_key(|plan| plan.peak);
        let method = highest.map_or(Method::Forced, |plan| plan.method);
        let ended = self.ended(verdict);
        let offsets = check_offsets(problem, offsets, problem.ceiling())
            .unwrap_or_else(|fault| panic!("a plan that does not pass the checker: {fault}"));
        Solution {
            offsets,
            bound: Bytes(self.bound * self.unit).max(self.witness.bytes),
            bound_by: self.bound_by,
            witness: self.witness,
            verdict,
            ended,
            method,
            nodes: self.nodes,
        }
    }
}

/// What became of an attempt to bring plans within a goal.
enum Attempt {
    Found,
    Refuted,
    Unknown,
}

impl Plan {
    /// The best of the heuristic plans of `part`; the first that is within `goal` ends the trials,
    /// and so does `stop`, once there is a plan.
    fn heuristic(part: Part, goal: u64, stop: Stop<'_>) -> Self {
        let heights = part.heights();
        let mut plan = Self {
            tables: None,
            offsets: Vec::new(),
            peak: u64::MAX,
            method: Method::Sweep,
            is_cut_short: false,
            heights,
            part,
        };
        let n = plan.part.items.len();
        for sweep in Sweep::all().take((SWEPT_MAX / n).max(2)) {
            if plan.is_done(goal, stop) {
                return plan;
            }
            plan.offer(sweep.place(&plan.part), Method::Sweep);
        }
        let orders =
            if n > GREEDY_MAX { 0 } else { (GREEDY_COMPARISONS / (n * n / 2).max(1)).max(2) };
        for greedy in Greedy::all().take(orders) {
            if plan.is_done(goal, stop) {
                return plan;
            }
            plan.offer(greedy.place(&plan.part, &plan.heights), Method::Greedy);
        }
        plan
    }

    /// Whether no further heuristic is to be tried.
    fn is_done(&mut self, goal: u64, stop: Stop<'_>) -> bool {
        if self.peak <= goal {
            return true;
        }
        self.is_cut_short = self.peak != u64::MAX && stop();
        self.is_cut_short
    }

    /// Whether its tables would be too large for a search.
    fn is_too_large(&self) -> bool {
        self.part.incidences() > INCIDENCES_MAX
    }

    fn offer(&mut self, offsets: Vec<u64>, method: Method) {
        let ends = self.part.items.iter().zip(&offsets).map(|(item, offset)| offset + item.size);
        let peak = self.part.base + ends.max().unwrap_or(0);
        if peak < self.peak {
            (self.offsets, self.peak, self.method) = (offsets, peak, method);
        }
    }

    /// Searches for a plan within `goal`; returns the nodes used as well.
    fn lower(&mut self, goal: u64, budget: Budget<'_>) -> (Attempt, u64) {
        let Some(capacity) = goal.checked_sub(self.part.base) else {
            return (Attempt::Refuted, 0);
        };
        if budget.nodes == 0 || self.is_too_large() {
            return (Attempt::Unknown, 0);
        }
        let tables = self.tables.get_or_insert_with(|| Tables::new(&self.part));
        match search(tables, capacity, budget) {
            (Answer::Plan(offsets), nodes) => {
                self.offer(offsets, Method::Search);
                (Attempt::Found, nodes)
            }
            (Answer::Nothing, nodes) => (Attempt::Refuted, nodes),
            (Answer::Unknown, nodes) => (Attempt::Unknown, nodes),
        }
    }
}

/// The time at which most must live at once: by size, and where alignments matter and the problem
/// is small enough also with padding.
fn best_witness(problem: &Problem, unit: u64) -> Witness {
    let buffers = problem.buffers();
    let aligned = buffers.iter().any(|buffer| buffer.alignment > unit);
    if aligned && buffers.len() <= PADDED_BOUNDS_MAX {
        let witnesses = buffers.iter().map(|buffer| Witness::at(problem, buffer.lower));
        // Of equals `max_by_key` keeps the last; reversed, that is the earliest of the list.
        if let Some(best) = witnesses.rev().max_by_key(|witness| witness.bytes) {
            return best;
        }
    }
    Witness::at(problem, problem.busiest())
}

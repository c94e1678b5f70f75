//! A plan of a table, and all that is to be said of it.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

pub use aegis_memory::place::Ended;
use aegis_memory::place::{BoundReason, Limits, Method, Solution, Verdict, solve};
use aegis_trace::{Bytes, Nanos};

use crate::plan::table::LifetimeTable;

/// What planning is for, and what it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// With a capacity, the first plan within it is taken; without, the peak is made least.
    pub capacity: Option<Bytes>,
    /// What searches may use.
    pub limit: PlanLimit,
}

/// What ends a plan that is not proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanLimit {
    /// The steps of all searches together; any number without. The answer is the same wherever
    /// these alone decide.
    pub nodes: Option<u64>,
    /// When to give up; never without. The first sweep over the table is made in any case, and a
    /// heuristic that was begun is ended. Where this decides, another run may give another answer.
    pub time: Option<Duration>,
}

impl PlanLimit {
    /// What a caller gets who asks for nothing else: as many steps as take seconds for `table`, and
    /// ten seconds. Most tables need far less of both.
    #[must_use]
    pub fn usual(table: &LifetimeTable, capacity: Option<Bytes>) -> Self {
        let nodes = match capacity {
            Some(capacity) => Limits::fit(capacity, table.len()).nodes,
            None => Limits::minimise(table.len()).nodes,
        };
        Self { nodes: Some(nodes), time: Some(Duration::from_secs(10)) }
    }
}

/// How good a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No plan has a lower peak.
    Optimal,
    /// The capacity is met. A lower peak was not looked for.
    WithinCapacity,
    /// Planning ended before the peak was proved least; [`PlanReport::ended`] says why.
    Gap,
    /// No plan is within the capacity: proved.
    Infeasible,
    /// Planning ended before a plan within the capacity was found or excluded;
    /// [`PlanReport::ended`] says why.
    LimitReached,
}

/// How the lower bound is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundProof {
    /// So much is live at one time, with the padding that alignments force upon it.
    LiveSize,
    /// A complete search found nothing lower.
    Exhausted,
}

/// The best plan that was found for a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanReport {
    /// The highest end of any buffer.
    pub peak: Bytes,
    /// No plan has a lower peak.
    pub bound: Bytes,
    /// How that is known.
    pub bound_proof: BoundProof,
    /// A time at which most is live.
    pub busiest: i64,
    /// The rows that are live then.
    pub live: Vec<usize>,
    /// The sum of their sizes.
    pub live_size: Bytes,
    /// How much padding there must be between them, whatever their order: each but the highest takes
    /// up a multiple of `live_stride`.
    pub live_padding: Bytes,
    /// What all their alignments are multiples of.
    pub live_stride: u64,
    /// By how much the peak exceeds the bound, in parts per million of the bound, rounded up.
    pub gap_ppm: u64,
    /// How good the plan is.
    pub outcome: Outcome,
    /// Why no better plan was looked for.
    pub ended: Ended,
    /// The limit that was given.
    pub limit: PlanLimit,
    /// What found it: `forced`, `sweep`, `greedy` or `search`.
    pub method: String,
    /// The steps of all searches.
    pub nodes: u64,
    /// The sum of all sizes: the peak without any sharing.
    pub total: Bytes,
    /// The capacity that was asked for.
    pub capacity: Option<Bytes>,
    /// How long planning took.
    pub time: Nanos,
    offsets: Vec<u64>,
}

impl PlanReport {
    /// Whether no plan has a lower peak.
    #[must_use]
    pub fn is_optimal(&self) -> bool {
        self.peak == self.bound
    }

    /// Whether the plan is within the capacity; without one, every plan is.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.capacity.is_none_or(|capacity| self.peak <= capacity)
    }

    /// The offset of every row.
    #[must_use]
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// The table as a CSV file with a last column `offset`. O(n) in its bytes.
    ///
    /// # Panics
    /// When `table` is another one than was planned.
    #[must_use]
    pub fn to_csv(&self, table: &LifetimeTable) -> Vec<u8> {
        table.csv_with(&self.offsets)
    }
}

/// Plans `table`. Uses every core for searches that the heuristics leave open.
///
/// See [`aegis_memory::place::solve()`] for the cost.
#[must_use]
pub fn plan(table: &LifetimeTable, options: &PlanOptions) -> PlanReport {
    let start = Instant::now();
    let PlanOptions { capacity, limit } = *options;
    let stop = || limit.time.is_some_and(|time| start.elapsed() >= time);
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let nodes = limit.nodes.unwrap_or(u64::MAX);
    let solution = solve(table.problem(), &Limits { capacity, nodes, threads, stop: &stop });
    let time = Nanos::from(start.elapsed());
    report(table, options, solution, time)
}

fn report(
    table: &LifetimeTable,
    options: &PlanOptions,
    solution: Solution,
    time: Nanos,
) -> PlanReport {
    PlanReport {
        peak: solution.peak(),
        bound: solution.bound,
        bound_proof: match solution.bound_by {
            BoundReason::Witness => BoundProof::LiveSize,
            BoundReason::Exhausted => BoundProof::Exhausted,
        },
        gap_ppm: solution.gap_ppm(),
        outcome: match solution.verdict {
            Verdict::Optimal => Outcome::Optimal,
            Verdict::WithinCapacity => Outcome::WithinCapacity,
            Verdict::Gap => Outcome::Gap,
            Verdict::Infeasible => Outcome::Infeasible,
            Verdict::LimitReached => Outcome::LimitReached,
        },
        ended: solution.ended,
        limit: options.limit,
        method: Method::to_string(&solution.method),
        nodes: solution.nodes,
        total: table.problem().total(),
        capacity: options.capacity,
        time,
        offsets: solution.offsets.offsets().to_vec(),
        busiest: solution.witness.time,
        live_size: Bytes(solution.witness.bytes.0 - solution.witness.padding.0),
        live_padding: solution.witness.padding,
        live_stride: solution.witness.stride,
        live: solution.witness.buffers,
    }
}

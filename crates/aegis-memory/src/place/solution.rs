//! What a planner can say of a plan: how good it is, and how that is known.

use aegis_trace::Bytes;

use crate::check_offsets::CheckedOffsets;
use crate::place::problem::Problem;

/// Buffers that all live at one time, and so must lie side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The time.
    pub time: i64,
    /// The indices of the buffers that live then, ascending; those without bytes are left out.
    pub buffers: Vec<usize>,
    /// The greatest number of which every alignment of theirs is a multiple: each of them but the
    /// highest takes up a multiple of it.
    pub stride: u64,
    /// What they need at least: the sum of their sizes, all but one rounded up to `stride`; of those
    /// that rounding adds most to, one is the exception.
    pub bytes: Bytes,
    /// How much of that is padding.
    pub padding: Bytes,
}

impl Witness {
    /// The witness of `problem` at `time`. O(n).
    pub(crate) fn at(problem: &Problem, time: i64) -> Self {
        let lives = |index: &usize| {
            let buffer = problem.buffers()[*index];
            buffer.size > 0 && buffer.lower <= time && time < buffer.upper
        };
        let buffers: Vec<_> = (0..problem.buffers().len()).filter(lives).collect();
        let live = || buffers.iter().map(|index| problem.buffers()[*index]);
        let stride = live().fold(0, |stride, buffer| gcd(stride, buffer.alignment)).max(1);
        let padded: u64 = live().map(|buffer| buffer.size.next_multiple_of(stride)).sum();
        let size: u64 = live().map(|buffer| buffer.size).sum();
        let spared = live().map(|buffer| buffer.size.next_multiple_of(stride) - buffer.size).max();
        let bytes = padded - spared.unwrap_or(0);
        Self { time, buffers, stride, bytes: Bytes(bytes), padding: Bytes(bytes - size) }
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Why no plan can have a lower peak than the bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundReason {
    /// The witness needs that much. Anybody can add it up.
    Witness,
    /// A complete search found no plan with a lower peak. Nothing in it is left to chance (failed
    /// states are compared in full), but it is believed of the program: nobody can add it up.
    Exhausted,
}

/// How good a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The peak equals the lower bound: no plan is better.
    Optimal,
    /// The peak is within the capacity that was asked for; it was not lowered further.
    WithinCapacity,
    /// The budget was spent before the peak met the lower bound.
    Gap,
    /// No plan is within the capacity: the lower bound exceeds it.
    Infeasible,
    /// The budget was spent before a plan within the capacity was found, or excluded.
    LimitReached,
}

/// Why planning ended where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There is nothing left to find out: the peak is the least, or no plan is within the capacity.
    Proved,
    /// A plan within the capacity was found, which was all that was asked for.
    CapacityMet,
    /// The nodes were used up. More of them may lead further; the same number leads here again.
    Nodes,
    /// The caller said stop. Where that depends on a clock, so does the answer.
    Stopped,
    /// What is too high has too many buffers living together to be searched, whatever the limits:
    /// the heuristics had the last word.
    TooLarge,
}

/// What found the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Every buffer has its place by necessity: nothing was left to decide.
    Forced,
    /// A sweep over time.
    Sweep,
    /// A greedy placement.
    Greedy,
    /// The exact search.
    Search,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Forced => "forced",
            Self::Sweep => "sweep",
            Self::Greedy => "greedy",
            Self::Search => "search",
        })
    }
}

/// The best plan found, and what is known of it. Its offsets passed the checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// An offset for every buffer of the problem.
    pub offsets: CheckedOffsets,
    /// No plan has a lower peak than this.
    pub bound: Bytes,
    /// How the bound is known.
    pub bound_by: BoundReason,
    /// Where most must live at once.
    pub witness: Witness,
    /// How good the plan is.
    pub verdict: Verdict,
    /// Why no better one was looked for.
    pub ended: Ended,
    /// What found it.
    pub method: Method,
    /// The nodes of all searches.
    pub nodes: u64,
}

impl Solution {
    /// The highest end of any buffer.
    #[must_use]
    pub fn peak(&self) -> Bytes {
        self.offsets.peak()
    }

    /// By how much the peak exceeds the lower bound, in parts per million of the bound, rounded up.
    #[must_use]
    pub fn gap_ppm(&self) -> u64 {
        let (peak, bound) = (u128::from(self.peak().0), u128::from(self.bound.0));
        let ppm = ((peak - bound.min(peak)) * 1_000_000).div_ceil(bound.max(1));
        u64::try_from(ppm).unwrap_or(u64::MAX)
    }
}

//! The budget of a search: work is counted, so that every answer is the same on every machine.
//!
//! Every recurrence here has the form `x = f(x)` with `f` monotone, integer and piecewise constant.
//! Iterating from any point at or below the least fixed point climbs to it and cannot pass it
//! (Knaster, Tarski). It ends because `f` grows by less than `x` does on average when utilisation
//! is below 1, but near 1 it may take as many steps as there are jobs in the busy window, which is
//! why every iteration draws on a [`Budget`].
//!
//! # Invariants
//! 1. Work is counted in terms, one term being the work of one task at one window, so that a budget
//!    means the same time for 3 tasks and for 300.
//! 2. An exhausted budget is never mistaken for an answer, and neither is a time past
//!    [`LONGEST_WINDOW`].

use aegis_trace::{Limit, Nanos, Refusal};

/// The longest window that is looked at, 2^63. Together with [`crate::task::Task::LONGEST`] it
/// keeps `window + jitter` within 64 bits; a search that gets there ends without an answer.
pub(super) const LONGEST_WINDOW: Nanos = Nanos(1 << 63);

/// How much work an analysis may still do, in terms.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    limit: u64,
    left: u64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, left: limit }
    }

    /// Takes `terms`, or everything that is left and fails. A step over no tasks costs one term,
    /// so no loop is free.
    pub(super) fn spend(&mut self, terms: usize) -> Result<(), Exhausted> {
        let terms = u64::try_from(terms).unwrap_or(u64::MAX).max(1);
        let left = self.left.checked_sub(terms);
        self.left = left.unwrap_or(0);
        left.map(|_| ())
            .ok_or(Exhausted { limit: Limit::Steps { steps: self.limit }, reached: Nanos::ZERO })
    }

    /// Lets `search` use half of what is left, so that one search without an answer does not keep
    /// the others from theirs.
    pub(super) fn lend_half<T>(&mut self, search: impl FnOnce(&mut Self) -> T) -> T {
        let mut half = Self { limit: self.limit, left: self.left / 2 };
        let lent = half.left;
        let found = search(&mut half);
        self.left -= lent - half.left;
        found
    }
}

/// A search ended before there was an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted {
    pub(super) limit: Limit,
    /// What the answer is known to be at least.
    pub(super) reached: Nanos,
}

impl Exhausted {
    /// The search got to `reached`, which is longer than anything that is looked at.
    pub(super) fn too_long(reached: Nanos) -> Self {
        Self { limit: Limit::Window { longest: LONGEST_WINDOW }, reached }
    }

    /// The same, with the point at which the search stood.
    pub(super) fn at(self, reached: Nanos) -> Self {
        Self { reached, ..self }
    }
}

/// Giving up counts as *no*.
impl From<Exhausted> for Refusal {
    fn from(spent: Exhausted) -> Self {
        Self::Undecided { limit: spent.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_budget_is_a_refusal_and_stays_exhausted() {
        let mut budget = Budget::new(10);
        assert_eq!(budget.spend(9), Ok(()));
        let spent = budget.spend(2).expect_err("one is left").at(Nanos(7));
        assert_eq!(spent.reached, Nanos(7));
        assert_eq!(Refusal::from(spent), Refusal::Undecided { limit: Limit::Steps { steps: 10 } });
        assert!(budget.spend(0).is_err(), "no step is free");
    }

    #[test]
    fn a_search_gets_half_of_what_is_left() {
        let mut budget = Budget::new(10);
        assert!(budget.lend_half(|half| half.spend(6)).is_err());
        assert_eq!(budget.left, 5);
        assert_eq!(budget.lend_half(|half| half.spend(1)), Ok(()));
        assert_eq!(budget.left, 4);
    }
}

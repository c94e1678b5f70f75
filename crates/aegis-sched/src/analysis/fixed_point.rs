//! Least fixed points of monotone step functions, within a budget.
//!
//! Every recurrence here has the form `x = f(x)` with `f` monotone, integer and piecewise constant.
//! Iterating from any point at or below the least fixed point climbs to it and cannot pass it
//! (Knaster, Tarski). It ends because `f` grows by less than `x` does on average when utilisation
//! is below 1, but near 1 it may take as many steps as there are jobs in the busy window, which is
//! why every iteration draws on a [`Budget`].
//!
//! # Invariants
//! 1. Work is counted in terms, one term being one division for one task, so that a budget means
//!    the same time for 3 tasks and for 300, and the same answer on every machine.
//! 2. An exhausted budget is never mistaken for an answer.

use aegis_trace::{Nanos, Refusal};

/// How much work an analysis may still do, in terms.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    limit: u64,
    left: u64,
}

impl Budget {
    /// The terms a verdict may cost: about a tenth of a second.
    pub(super) const VERDICT: u64 = 20_000_000;
    /// The terms all response times under EDF may cost beyond the verdict.
    pub(super) const RESPONSES: u64 = 5_000_000;

    pub(super) fn new(limit: u64) -> Self {
        Self { limit, left: limit }
    }

    /// Takes `terms`, or everything that is left and fails. A step over no tasks costs one term,
    /// so no loop is free.
    pub(super) fn spend(&mut self, terms: usize) -> Result<(), Exhausted> {
        let terms = u64::try_from(terms).unwrap_or(u64::MAX).max(1);
        let left = self.left.checked_sub(terms);
        self.left = left.unwrap_or(0);
        left.map(|_| ()).ok_or(Exhausted { limit: self.limit, reached: Nanos::ZERO })
    }

    /// The least fixed point at or above `from` of the monotone function `step`, which costs
    /// `terms` each time. `from` must not exceed `step(from)`.
    ///
    /// # Errors
    /// The budget ran out; the fixed point lies at or above the value reached.
    pub(super) fn least_fixed_point(
        &mut self,
        from: Nanos,
        terms: usize,
        step: impl Fn(Nanos) -> Nanos,
    ) -> Result<Nanos, Exhausted> {
        self.climb(from, Nanos::MAX, terms, step)
    }

    /// As [`Budget::least_fixed_point`], but content with any value above `enough`.
    pub(super) fn climb(
        &mut self,
        from: Nanos,
        enough: Nanos,
        terms: usize,
        step: impl Fn(Nanos) -> Nanos,
    ) -> Result<Nanos, Exhausted> {
        let mut at = from;
        loop {
            self.spend(terms).map_err(|spent| Exhausted { reached: at, ..spent })?;
            let next = step(at);
            debug_assert!(next >= at, "{next:?} < {at:?}: not monotone, or begun above the point");
            if next <= at || next > enough {
                return Ok(next);
            }
            at = next;
        }
    }
}

/// A budget ran out before there was an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted {
    limit: u64,
    /// What the answer is known to be at least.
    pub(super) reached: Nanos,
}

/// Giving up counts as *no*.
impl From<Exhausted> for Refusal {
    fn from(spent: Exhausted) -> Self {
        Self::GaveUp { steps: spent.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tasks (2,4) and (2,6): the classic busy window of 4.
    fn demand(window: Nanos) -> Nanos {
        Nanos(2) * window.div_ceil(Nanos(4)) + Nanos(2) * window.div_ceil(Nanos(6))
    }

    #[test]
    fn climbing_ends_at_the_least_fixed_point() {
        let mut budget = Budget::new(100);
        assert_eq!(budget.least_fixed_point(Nanos(1), 2, demand), Ok(Nanos(4)));
        assert_eq!(budget.left, 96, "two steps of two terms");
    }

    #[test]
    fn a_climb_stops_as_soon_as_it_is_enough() {
        let mut budget = Budget::new(100);
        let step = |at: Nanos| at + Nanos(1);
        assert_eq!(budget.climb(Nanos(0), Nanos(9), 1, step), Ok(Nanos(10)));
    }

    #[test]
    fn an_exhausted_budget_is_a_refusal_and_stays_exhausted() {
        let mut budget = Budget::new(10);
        let spent = budget.least_fixed_point(Nanos(0), 1, |at| at + Nanos(1)).expect_err("no end");
        assert_eq!(spent.reached, Nanos(10));
        assert_eq!(Refusal::from(spent), Refusal::GaveUp { steps: 10 });
        assert!(budget.spend(0).is_err(), "no step is free");
    }

    #[test]
    fn saturation_is_a_fixed_point() {
        let double = |at: Nanos| at.saturating_mul(2);
        assert_eq!(Budget::new(100).least_fixed_point(Nanos(1), 1, double), Ok(Nanos::MAX));
    }
}

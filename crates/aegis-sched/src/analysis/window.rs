//! The work that tasks release into a window that only grows.
//!
//! All recurrences of this folder ask the same question over and over, for longer and longer
//! windows: how much work do these tasks release in it? Between two questions few of them release
//! anything new. [`GrowingWork`] remembers for each task the first window in which one more of its
//! jobs counts, so a question costs one comparison for each task and a division only where the
//! answer changed, and nothing at all while no task releases anything.
//!
//! # Invariants
//! 1. With `w` the last window asked for (or 0), `work` is the sum over all rivals of
//!    `min(floor((w + J) / T) + 1, most) C`, and `next` of a rival is the least window above `w` at
//!    which its term grows (`u64::MAX` if there is none).
//! 2. Windows are asked for in ascending order and stay below [`LONGEST_WINDOW`], so that
//!    `w + J` does not overflow; sums saturate, and a saturated one is past every window.

use aegis_trace::Nanos;

use super::fixed_point::{Budget, Exhausted, LONGEST_WINDOW};
use super::workload::Charged;

/// The work of some tasks in a growing window; the memory is kept when it is emptied.
#[derive(Clone, Debug)]
pub(super) struct GrowingWork {
    rivals: Vec<Rival>,
    /// Apart from the rest of a rival, so that looking through them is fast.
    next: Vec<u64>,
    /// The least of `next`.
    soonest: u64,
    /// The last window asked for.
    window: u64,
    work: u64,
}

#[derive(Clone, Copy, Debug)]
struct Rival {
    period: u64,
    jitter: u64,
    cost: u64,
    /// Jobs that count already.
    jobs: u64,
    /// Jobs that count at most.
    most: u64,
}

impl GrowingWork {
    /// Nobody's work, in the window of length 0.
    pub(super) fn new() -> Self {
        Self { rivals: Vec::new(), next: Vec::new(), soonest: u64::MAX, window: 0, work: 0 }
    }

    /// The same, with room for this many tasks.
    pub(super) fn with_room(tasks: usize) -> Self {
        let (rivals, next) = (Vec::with_capacity(tasks), Vec::with_capacity(tasks));
        Self { rivals, next, ..Self::new() }
    }

    /// Empties it and starts again at the window of length 0.
    pub(super) fn clear(&mut self) {
        self.rivals.clear();
        self.next.clear();
        self.soonest = u64::MAX;
        self.window = 0;
        self.work = 0;
    }

    /// Becomes a copy of `other`.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.rivals.clone_from(&other.rivals);
        self.next.clone_from(&other.next);
        (self.soonest, self.window, self.work) = (other.soonest, other.window, other.work);
    }

    /// The last window asked for: none that is shorter can be asked for.
    pub(super) fn window(&self) -> Nanos {
        Nanos(self.window)
    }

    /// Adds `task`, of which at most `most` jobs count.
    pub(super) fn add(&mut self, task: &Charged, most: u64) {
        let (period, jitter, cost) = (task.period.0, task.jitter.0, task.cost.0);
        let at = self.window + jitter;
        let first = if at < period { 1 } else { at / period + 1 };
        let jobs = first.min(most);
        self.work = self.work.saturating_add(cost.saturating_mul(jobs));
        if jobs < most {
            let next = jobs.saturating_mul(period).saturating_sub(jitter);
            self.soonest = self.soonest.min(next);
            self.next.push(next);
            self.rivals.push(Rival { period, jitter, cost, jobs, most });
        }
    }

    /// The work in `window`, not shorter than any asked for before.
    pub(super) fn in_window(&mut self, window: Nanos) -> Nanos {
        if window.0 >= self.soonest {
            self.catch_up(window.0);
        }
        self.window = window.0;
        Nanos(self.work)
    }

    fn catch_up(&mut self, window: u64) {
        let mut soonest = u64::MAX;
        for (next, rival) in self.next.iter_mut().zip(&mut self.rivals) {
            if *next <= window {
                let jobs = ((window + rival.jitter) / rival.period + 1).min(rival.most);
                let more = rival.cost.saturating_mul(jobs - rival.jobs);
                self.work = self.work.saturating_add(more);
                rival.jobs = jobs;
                *next = if jobs == rival.most {
                    u64::MAX
                } else {
                    jobs.saturating_mul(rival.period).saturating_sub(rival.jitter)
                };
            }
            soonest = soonest.min(*next);
        }
        self.soonest = soonest;
    }

    /// The least fixed point of `w = base + work(w)` at or above `from`, which must not lie above
    /// it; or the first point of the climb past `enough`.
    ///
    /// # Errors
    /// The budget ran out, or the point lies beyond [`LONGEST_WINDOW`].
    pub(super) fn climb(
        &mut self,
        base: Nanos,
        from: Nanos,
        enough: Nanos,
        budget: &mut Budget,
    ) -> Result<Nanos, Exhausted> {
        let mut at = from;
        while at <= enough {
            if at >= LONGEST_WINDOW {
                return Err(Exhausted::too_long(at));
            }
            let terms = if at.0 >= self.soonest { self.next.len() } else { 1 };
            budget.spend(terms).map_err(|spent| spent.at(at))?;
            let next = base.saturating_add(self.in_window(at));
            debug_assert!(next >= at, "{next:?} < {at:?}: begun above the fixed point");
            if next <= at {
                break;
            }
            at = next;
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use aegis_trace::ModelId;
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::utilisation::Utilisation;

    fn task(cost: u64, period: u64, jitter: u64) -> Charged {
        let (cost, period, jitter) = (Nanos(cost), Nanos(period), Nanos(jitter));
        Charged {
            model: ModelId::first(0),
            period,
            deadline: period,
            jitter,
            priority: 0,
            cost,
            longest_stage: cost,
            last_stage: cost,
            load: Utilisation::share(cost, period),
        }
    }

    proptest! {
        #[test]
        fn a_window_holds_what_a_count_from_scratch_finds(
            tasks in prop::collection::vec((1u64..9, 1u64..12, 0u64..30, 1u64..9), 0..6),
            mut windows in prop::collection::vec(0u64..80, 1..12),
        ) {
            windows.sort_unstable();
            let mut growing = GrowingWork::new();
            for (cost, period, jitter, most) in &tasks {
                growing.add(&task(*cost, *period, *jitter), *most);
            }
            let late = task(3, 7, 2);
            for (asked, window) in windows.into_iter().enumerate() {
                let count = |(cost, period, jitter, most): &(u64, u64, u64, u64)| {
                    cost * ((window + jitter) / period + 1).min(*most)
                };
                let expected: u64 = tasks.iter().map(count).sum();
                let joined = if asked > 0 { 3 * ((window + 2) / 7 + 1) } else { 0 };
                prop_assert_eq!(growing.in_window(Nanos(window)), Nanos(expected + joined));
                if asked == 0 {
                    growing.add(&late, u64::MAX); // Also in a window that has grown already.
                }
            }
        }
    }

    #[test]
    fn climbing_ends_at_the_least_fixed_point_and_no_later_than_needed() {
        // (2,4) and (2,6) behind 1: work 4 at 0, at 5 a second job of the first, at 7 of both.
        let set = || {
            let mut growing = GrowingWork::new();
            growing.add(&task(2, 4, 0), u64::MAX);
            growing.add(&task(2, 6, 0), u64::MAX);
            growing
        };
        let climb =
            |enough: u64| set().climb(Nanos(1), Nanos(0), Nanos(enough), &mut Budget::new(100));
        assert_eq!(climb(u64::MAX), Ok(Nanos(11)));
        assert_eq!(climb(6), Ok(Nanos(7)));
    }

    #[test]
    fn a_search_past_the_longest_window_ends_without_an_answer() {
        let mut growing = GrowingWork::new();
        growing.add(&task(1 << 61, 1 << 61, 0), u64::MAX);
        let spent = growing.climb(Nanos(1), Nanos(0), Nanos::MAX, &mut Budget::new(100));
        assert_eq!(spent, Err(Exhausted::too_long(Nanos((1 << 63) + 1))));
    }
}

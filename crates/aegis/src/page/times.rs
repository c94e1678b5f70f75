//! A distribution of times in bounded memory.
//!
//! Quantiles come from a histogram and are rounded up, by less than 1 %; minimum, maximum and the
//! job of the maximum are exact.

use aegis_trace::{JobId, Nanos};
use hdrhistogram::Histogram;

/// The longest time that is told from longer ones.
const LONGEST: Nanos = Nanos::from_secs(3_600);
/// Significant decimal digits of a quantile.
const DIGITS: u8 = 2;

/// Times of one kind.
#[derive(Clone, Debug)]
pub(super) struct Times {
    histogram: Histogram<u64>,
    min: Nanos,
    max: Nanos,
    worst: Option<JobId>,
}

/// One bar of a picture: jobs with a time in `(from, to]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) from: Nanos,
    pub(super) to: Nanos,
    pub(super) jobs: u64,
}

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST.0, DIGITS);
        let histogram = histogram.expect("the bounds are constants in order");
        Self { histogram, min: Nanos::MAX, max: Nanos::ZERO, worst: None }
    }
}

impl Times {
    pub(super) fn add(&mut self, job: JobId, time: Nanos) {
        self.histogram.saturating_record(time.0.max(1));
        self.min = self.min.min(time);
        if self.worst.is_none() || time > self.max {
            (self.max, self.worst) = (time, Some(job));
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The shortest; `None` of nothing.
    pub(super) fn min(&self) -> Option<Nanos> {
        self.worst.map(|_| self.min)
    }

    /// The longest, and whose it is; `None` of nothing.
    pub(super) fn max(&self) -> Option<(Nanos, JobId)> {
        self.worst.map(|job| (self.max, job))
    }

    /// A time that a share of `permille` thousandths of all does not exceed, rounded up; never beyond
    /// the longest. `None` of nothing.
    pub(super) fn quantile(&self, permille: u32) -> Option<Nanos> {
        let (longest, _) = self.max()?;
        let value = self.histogram.value_at_quantile(f64::from(permille) / 1_000.0);
        // What is beyond the histogram's end is in its last bucket, which says less than the truth.
        let value = if longest > LONGEST && value >= LONGEST.0 { longest.0 } else { value };
        Some(Nanos(value).min(longest))
    }

    /// The times in bars between `edges`, which ascend; what lies outside them is in the first or the
    /// last. A job is in the bar of its histogram bucket's end, so an edge is sharp to 1 %.
    pub(super) fn bars(&self, edges: &[Nanos]) -> Vec<Bar> {
        let mut bars: Vec<Bar> =
            edges.windows(2).map(|pair| Bar { from: pair[0], to: pair[1], jobs: 0 }).collect();
        let Some(last) = bars.len().checked_sub(1) else { return bars };
        for bucket in self.histogram.iter_recorded() {
            let time = Nanos(bucket.value_iterated_to()).min(self.max);
            let place = bars.partition_point(|bar| bar.to < time);
            bars[place.min(last)].jobs += bucket.count_since_last_iteration();
        }
        bars
    }
}

#[cfg(test)]
mod tests {
    use aegis_trace::ModelId;
    use proptest::prelude::*;

    use super::*;

    fn times(of: &[u64]) -> Times {
        let mut times = Times::default();
        for (sequence, time) in (0..).zip(of) {
            times.add(JobId { model: ModelId::first(0), sequence }, Nanos(*time));
        }
        times
    }

    #[test]
    fn nothing_has_no_figures() {
        let times = times(&[]);
        assert_eq!((times.min(), times.max(), times.quantile(500)), (None, None, None));
    }

    #[test]
    fn the_first_of_equals_is_the_worst() {
        let worst = times(&[5, 9, 9]).max().map(|(time, job)| (time.0, job.sequence));
        assert_eq!(worst, Some((9, 1)));
    }

    proptest! {
        #[test]
        fn quantiles_are_never_below_the_exact_one_and_close_to_it(
            mut of in prop::collection::vec(1_u64..8_000_000_000_000, 1..200),
            permille in 1_u32..=1000,
        ) {
            let times = times(&of);
            of.sort_unstable();
            let rank = (of.len() * permille as usize).div_ceil(1_000).max(1);
            let exact = of[rank - 1];
            let found = times.quantile(permille).expect("not empty").0;
            prop_assert!(found >= exact.min(times.max.0), "{found} < {exact}");
            if exact < LONGEST.0 / 2 {
                prop_assert!(found <= exact + exact / 100 + 1, "{found} > {exact} by more than 1 %");
            }
        }

        #[test]
        fn bars_hold_every_job_once(
            of in prop::collection::vec(1_u64..1_000_000, 1..200),
            mut edges in prop::collection::vec(1_u64..1_000_000, 2..20),
        ) {
            edges.sort_unstable();
            let edges: Vec<Nanos> = edges.into_iter().map(Nanos).collect();
            let bars = times(&of).bars(&edges);
            prop_assert_eq!(bars.iter().map(|bar| bar.jobs).sum::<u64>(), of.len() as u64);
        }
    }
}

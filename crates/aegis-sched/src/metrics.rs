//! What each model has done so far: counts, response times, execution times.
//!
//! The orchestrator writes, any thread reads; both hold a model's lock for well under a
//! microsecond (writing) or some microseconds (summarising). Quantiles come from a histogram with
//! a relative error below 1 %; minimum and maximum are exact.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_trace::{Assumption, Nanos};
use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time a histogram resolves; what is longer counts in its last bucket.
const LONGEST: Nanos = Nanos::from_secs(3_600);
/// Significant decimal digits of a quantile.
const DIGITS: u8 = 2;

/// The counters of one model. Clones share them.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    shared: Arc<Mutex<Counters>>,
}

#[derive(Debug)]
struct Counters {
    counts: Counts,
    response: Series,
    execution: Series,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Jobs accepted.
    pub submitted: u64,
    /// Jobs that ended with outputs.
    pub completed: u64,
    /// Completed jobs that ended after their deadline.
    pub missed: u64,
    /// Jobs given up without a result while running.
    pub dropped: u64,
    /// Of those dropped, jobs that an overrun left too little time for before they began.
    pub skipped: u64,
    /// Of those dropped, jobs stopped between stages because they had used more than their charge.
    pub cut_short: u64,
    /// Jobs that used more than their charge and put off the next release of their model.
    pub debts: u64,
    /// Accepted jobs whose release a debt has moved.
    pub postponed: u64,
    /// Busy periods in which its job was the first to break an assumption, and after whose end every
    /// bound held again.
    pub restored: u64,
    /// Jobs that had not begun when the runtime stopped.
    pub stopped: u64,
    /// Jobs the model failed in.
    pub failed: u64,
    /// Assumptions its jobs broke.
    pub broken: Broken,
    /// Completed jobs beyond their bound because an assumption was broken in the same busy period.
    pub bound_excused: u64,
    /// Completed jobs beyond their bound with every assumption intact: a defect of AegisRT.
    pub bound_violated: u64,
}

/// How often which assumption was broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Stages that ran longer on the device than their worst-case execution time.
    pub execution_time: u64,
    /// Stages whose launching and noticing took longer than the charged overhead, and which held
    /// the device longer than their whole charge.
    pub dispatch_overhead: u64,
    /// Jobs that found the device idle and were seen later than the charged wake-up latency.
    pub wake_latency: u64,
    /// Jobs whose claimed release was more than the jitter before their arrival.
    pub release_jitter: u64,
    /// Jobs that could not be launched, and whose inputs on their way held up somebody else.
    pub left_upload: u64,
}

impl Broken {
    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        let of_stages = self.execution_time + self.dispatch_overhead + self.left_upload;
        of_stages + self.wake_latency + self.release_jitter
    }

    /// Counts one more.
    pub fn add(&mut self, assumption: Assumption) {
        match assumption {
            Assumption::ExecutionTime => self.execution_time += 1,
            Assumption::DispatchOverhead => self.dispatch_overhead += 1,
            Assumption::WakeLatency => self.wake_latency += 1,
            Assumption::ReleaseJitter => self.release_jitter += 1,
            Assumption::LeftUpload => self.left_upload += 1,
            _ => unreachable!("the assumptions of the proof are known here"),
        }
    }
}

/// Times of one kind.
#[derive(Debug)]
struct Series {
    histogram: Histogram<u64>,
    min: Nanos,
    max: Nanos,
    sum: f64,
    sum_of_squares: f64,
}

/// A summary of times. All zero when there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// The shortest, exact.
    pub min: Nanos,
    /// Half are at most this, within 1 %.
    pub p50: Nanos,
    /// 99 % are at most this, within 1 %.
    pub p99: Nanos,
    /// The longest, exact.
    pub max: Nanos,
    /// The mean, rounded down.
    pub mean: Nanos,
    /// Standard deviation over mean; for display alone.
    pub variation: f64,
}

/// Everything about one model at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// How often what happened.
    pub counts: Counts,
    /// From release to detected completion.
    pub response: Summary,
    /// Device time per job.
    pub execution: Summary,
}

impl Default for ModelMetrics {
    fn default() -> Self {
        let counters = Counters {
            counts: Counts::default(),
            response: Series::new(),
            execution: Series::new(),
        };
        Self { shared: Arc::new(Mutex::new(counters)) }
    }
}

impl ModelMetrics {
    /// Changes the counts.
    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.lock().counts);
    }

    /// Books a completed job.
    pub fn completed(&self, response: Nanos, execution: Nanos) {
        let mut counters = self.lock();
        counters.counts.completed += 1;
        counters.response.add(response);
        counters.execution.add(execution);
    }

    /// A consistent copy of everything.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let counters = self.lock();
        Snapshot {
            counts: counters.counts,
            response: counters.response.summary(),
            execution: counters.execution.summary(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Series {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST.0, DIGITS)
            .expect("the bounds are constants that fit");
        Self { histogram, min: Nanos::MAX, max: Nanos::ZERO, sum: 0.0, sum_of_squares: 0.0 }
    }

    fn add(&mut self, time: Nanos) {
        self.histogram.saturating_record(time.0);
        self.min = self.min.min(time);
        self.max = self.max.max(time);
        let time = time.0 as f64;
        self.sum += time;
        self.sum_of_squares += time * time;
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a mean of times is a time; it is only shown"
    )]
    fn summary(&self) -> Summary {
        let count = self.histogram.len();
        if count == 0 {
            return Summary::default();
        }
        let mean = self.sum / count as f64;
        let variance = (self.sum_of_squares / count as f64 - mean * mean).max(0.0);
        let quantile = |q| Nanos(self.histogram.value_at_quantile(q)).min(self.max);
        Summary {
            count,
            min: self.min,
            p50: quantile(0.5),
            p99: quantile(0.99),
            max: self.max,
            mean: Nanos(mean as u64),
            variation: if mean > 0.0 { variance.sqrt() / mean } else { 0.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_exact_at_its_ends() {
        let metrics = ModelMetrics::default();
        for n in 1..=1000 {
            metrics.completed(Nanos(n * 1_000), Nanos(500));
        }
        let Snapshot { counts, response, execution } = metrics.snapshot();
        assert_eq!(counts.completed, 1000);
        assert_eq!((response.min, response.max), (Nanos(1_000), Nanos(1_000_000)));
        let within = |value: Nanos, target: u64| value.0.abs_diff(target) * 100 <= target;
        assert!(within(response.p50, 500_000), "{}", response.p50);
        assert!(within(response.p99, 990_000), "{}", response.p99);
        assert!(execution.variation < 1e-6);
    }

    #[test]
    fn an_empty_series_is_all_zero() {
        assert_eq!(ModelMetrics::default().snapshot(), Snapshot::default());
    }

    #[test]
    fn times_beyond_the_histogram_keep_their_exact_maximum() {
        let metrics = ModelMetrics::default();
        metrics.completed(Nanos::from_secs(10_000), Nanos(1));
        assert_eq!(metrics.snapshot().response.max, Nanos::from_secs(10_000));
    }
}

//! What the benches share: their sampling, and a scheduler with one declared model.
//!
//! `README.md` beside this crate says what each bench measures and what was found. A group holds
//! what is compared: its function called `baseline` is the machine's own cost of something alike.
//!
//! # Invariants
//! 1. Every batch of a group has the same size ([`SamplingMode::Flat`]), so a sample means the same
//!    thing throughout.
//! 2. Nothing here is timed. What is timed stands in the bench.
#![forbid(unsafe_code)]

mod stack;
pub mod traffic;

pub use stack::{Running, Spin, Stack, StackConfig};

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};

/// Resamplings for the confidence intervals: the fewest that criterion takes without a warning.
const RESAMPLES: usize = 1_001;

/// How a group is sampled.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Batches.
    pub samples: usize,
    /// Time before the first batch, in which criterion also learns how large a batch is.
    pub warm_up: Duration,
    /// Time for all batches together.
    pub time: Duration,
}

impl Sampling {
    /// For what takes nanoseconds: batches of many calls, so tails are those of batches.
    pub const BATCHES: Self = Self {
        samples: 100,
        warm_up: Duration::from_millis(300),
        time: Duration::from_millis(1_000),
    };

    /// For what takes microseconds: every sample is one call, so tails are those of calls.
    pub const SINGLE_CALLS: Self =
        Self { samples: 2_000, warm_up: Duration::from_millis(300), time: Duration::from_nanos(1) };
}

/// A group sampled as `sampling` says.
pub fn group<'c>(
    criterion: &'c mut Criterion,
    name: &str,
    sampling: Sampling,
) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(sampling.samples)
        .warm_up_time(sampling.warm_up)
        .measurement_time(sampling.time)
        .nresamples(RESAMPLES);
    group
}

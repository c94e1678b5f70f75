//! A load for admitted models: one thread that submits every model at its period.
//!
//! The generator is a well-behaved sporadic source: it never submits a model twice within its
//! period, so a job is released when it arrives and its response time is all of its latency. Where
//! the operating system wakes the generator late, that job and those behind it come later, and the
//! summary says how many jobs fewer that makes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aegis_context::DType;
use aegis_context::TensorSpec;
use aegis_trace::{Clock, Nanos, Timestamp};

use crate::error::Error;
use crate::handle::{Job, ModelHandle};
use crate::tensor::Tensor;

/// A model with the period to submit it at.
#[derive(Clone, Debug)]
pub struct Driven {
    /// The model.
    pub model: ModelHandle,
    /// Time between two submissions.
    pub period: Nanos,
    /// The inputs of every job.
    pub inputs: Vec<Tensor>,
    /// Whether jobs that are turned away are of no concern: a model of best effort that cannot keep
    /// up with its load loses some.
    pub best_effort: bool,
}

impl Driven {
    /// The same without concern for jobs that are turned away.
    #[must_use]
    pub fn best_effort(self) -> Self {
        Self { best_effort: true, ..self }
    }

    /// `model` at `period` with made-up inputs: every element in range for an index (see
    /// [`sample_input`]), the same on every run.
    #[must_use]
    pub fn with_sample_inputs(model: ModelHandle, period: Nanos) -> Self {
        let inputs = model.description().inputs.iter().map(sample_input).collect();
        Self { model, period, inputs, best_effort: false }
    }
}

/// A deterministic input for `spec`: floats spread over `[-0.5, 0.5)` by the multiplicative hash
/// of their index, and zero for every integer, which is a valid index into anything.
#[must_use]
pub fn sample_input(spec: &TensorSpec) -> Tensor {
    let bytes = match spec.dtype {
        DType::F32 => {
            (0u32..).take(spec.elements()).flat_map(|n| sample(n).to_le_bytes()).collect()
        }
        _ => vec![0; spec.bytes()],
    };
    Tensor::bytes(&spec.name, spec.dtype, &spec.shape, bytes)
}

/// Knuth's multiplicative hash of `n` as a fraction of 2^32, less one half.
#[expect(clippy::cast_possible_truncation, reason = "an input is meant to be rounded to f32")]
fn sample(n: u32) -> f32 {
    (f64::from(n.wrapping_mul(2_654_435_761)) / 4_294_967_296.0 - 0.5) as f32
}

/// What the generator could not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadSummary {
    /// Jobs that a generator without any lateness would have submitted.
    pub due: u64,
    /// Jobs submitted.
    pub submitted: u64,
    /// Submissions that were turned away; the trace says why.
    pub refused: u64,
    /// The same of models of best effort, which are not among the others.
    pub refused_best_effort: u64,
}

/// The running generator.
#[derive(Debug)]
pub struct Load {
    done: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: JoinHandle<u64>,
}

#[derive(Debug, Default)]
struct Counts {
    submitted: AtomicU64,
    refused: AtomicU64,
    refused_best_effort: AtomicU64,
}

impl Load {
    /// Starts submitting, all models at once first: the critical instant of fixed priorities.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn start(models: Vec<Driven>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let (done, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let generator = Generator {
            jobs: models.iter().map(|_| Vec::new()).collect(),
            models,
            clock,
            done: Arc::clone(&done),
            counts: Arc::clone(&counts),
        };
        let thread = thread::Builder::new()
            .name("aegis-load".into())
            .spawn(move || generator.run())
            .map_err(Error::Thread)?;
        Ok(Self { done, counts, thread })
    }

    /// Ends the load; jobs under way run on. Blocks for at most one wake-up of the thread.
    ///
    /// # Panics
    /// When the generator did, which is a defect.
    #[must_use]
    pub fn finish(self) -> LoadSummary {
        self.done.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let due = self.thread.join().expect("the generator does not panic");
        LoadSummary {
            due,
            submitted: self.counts.submitted.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            refused_best_effort: self.counts.refused_best_effort.load(Ordering::Relaxed),
        }
    }
}

struct Generator {
    models: Vec<Driven>,
    /// Jobs under way; their slots free themselves once they have ended and are dropped.
    jobs: Vec<Vec<Job>>,
    clock: Arc<dyn Clock>,
    done: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl Generator {
    /// Submits until told to end; how many jobs were due by then.
    fn run(mut self) -> u64 {
        let start = self.clock.now();
        let mut due: BinaryHeap<Reverse<(Timestamp, usize)>> =
            (0..self.models.len()).map(|index| Reverse((start, index))).collect();
        while !self.done.load(Ordering::Acquire) {
            let Some(Reverse((at, index))) = due.peek().copied() else { return 0 };
            let now = self.clock.now();
            if now < at {
                thread::park_timeout(Duration::from(at - now));
                continue;
            }
            due.pop();
            self.submit(index);
            // The next nominal point, unless lateness moved the period's earliest point past it.
            let (period, submitted) = (self.models[index].period, self.clock.now());
            due.push(Reverse(((at + period).max(submitted + period), index)));
        }
        let ran = self.clock.now().saturating_since(start);
        self.models.iter().map(|model| ran / model.period + 1).sum()
    }

    fn submit(&mut self, index: usize) {
        let Driven { model, inputs, best_effort, .. } = &self.models[index];
        self.jobs[index].retain(|job| !job.has_ended());
        let Counts { submitted, refused, refused_best_effort } = &*self.counts;
        let refused = if *best_effort { refused_best_effort } else { refused };
        match model.submit(inputs) {
            Ok(job) => {
                submitted.fetch_add(1, Ordering::Relaxed);
                self.jobs[index].push(job);
            }
            Err(_) => {
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

//! A load for admitted models: every model at its period, and each triggered one after its trigger.
//!
//! One thread submits by period; `chain.rs` has those that hand triggered chains on.
//!
//! The generator is a periodic source: job `k` of a model is due `k` periods after the start. Where
//! the operating system wakes the generator late, that job comes late, and the next at its own point
//! again. If that is less than a period after the late one, the runtime holds it back until then, as
//! it does with every early caller, and its response counts from there. So releases lag behind their
//! points by at most the greatest lateness so far, and the rate stays what it should be. Points that
//! lie more than a period back are left out, and the summary says how many jobs fewer that makes.
//!
//! # Invariants
//! 1. A job is due if its point lies before the end of the load: `due` is the sum of what was submitted,
//!    turned away, left out and cut off by the end, each counted where it happened.

mod chain;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aegis_context::DType;
use aegis_context::TensorSpec;
use aegis_trace::{Clock, ModelId, Nanos, Timestamp};

pub use chain::{ChainSummary, DrivenChain};

use self::chain::{Chained, Instance};
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
    /// How much later than due jobs may be submitted. Where it is more than zero they are said to be
    /// released when they were due: late submissions then do not make what follows late.
    pub jitter: Nanos,
    /// The inputs of every job.
    pub inputs: Vec<Tensor>,
    /// Whether jobs that are turned away are of no concern: a model of best effort that cannot keep
    /// up with its load loses some.
    pub best_effort: bool,
}

impl Driven {
    /// The same with jobs that may be submitted `jitter` later than due.
    #[must_use]
    pub fn released_within(self, jitter: Nanos) -> Self {
        Self { jitter, ..self }
    }

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
        Self { model, period, jitter: Nanos::ZERO, inputs, best_effort: false }
    }
}

/// Everything that is submitted.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Models that are submitted at their periods.
    pub models: Vec<Driven>,
    /// Chains whose first members are, and whose others are triggered.
    pub chains: Vec<DrivenChain>,
}

impl From<Vec<Driven>> for Sources {
    fn from(models: Vec<Driven>) -> Self {
        Self { models, chains: Vec::new() }
    }
}

/// A deterministic input for `spec`: floats spread over `[-0.5, 0.5)` by the multiplicative hash
/// of their index, bytes over all their values, as of an image, and zero for every wider integer,
/// which is a valid index into anything.
#[must_use]
pub fn sample_input(spec: &TensorSpec) -> Tensor {
    let bytes = match spec.dtype {
        DType::F32 => {
            (0u32..).take(spec.elements()).flat_map(|n| sample(n).to_le_bytes()).collect()
        }
        DType::U8 => (0u32..).take(spec.elements()).map(|n| hash(n).to_be_bytes()[0]).collect(),
        _ => vec![0; spec.bytes()],
    };
    Tensor::bytes(&spec.name, spec.dtype, &spec.shape, bytes)
}

/// Knuth's multiplicative hash of `n`.
fn hash(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_761)
}

/// The hash of `n` as a fraction of 2^32, less one half.
#[expect(clippy::cast_possible_truncation, reason = "an input is meant to be rounded to f32")]
fn sample(n: u32) -> f32 {
    (f64::from(hash(n)) / 4_294_967_296.0 - 0.5) as f32
}

/// What the generator did, and what it could not do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadSummary {
    /// When the first jobs were due: job `k` of a model at its period was due `k` periods later.
    pub start: Timestamp,
    /// Jobs that a generator without any lateness would have submitted: each model at its period, and
    /// a triggered one after each trigger.
    pub due: u64,
    /// Jobs submitted.
    pub submitted: u64,
    /// Submissions that were turned away; the trace says why.
    pub refused: u64,
    /// The same of models of best effort, which are not among the others.
    pub refused_best_effort: u64,
    /// Jobs that were due and left out: a later one of their model was due as well by then, or the
    /// runtime would have kept them back since the one before came late.
    pub left_out: u64,
    /// Jobs that were due and that the end of the load was faster than.
    pub cut_off: u64,
    /// Whose submissions were turned away, and why: both kinds, by model and reason.
    pub turned_away: Vec<TurnedAway>,
    /// What was seen of each triggered chain, in the order in which they were given.
    pub chains: Vec<ChainSummary>,
}

/// Submissions of one model that were turned away for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnedAway {
    /// Its id.
    pub model: ModelId,
    /// Why, in words.
    pub why: String,
    /// Whether it is of no concern.
    pub best_effort: bool,
    /// How many.
    pub jobs: u64,
}

/// The running generator.
#[derive(Debug)]
pub struct Load {
    done: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: JoinHandle<Ran>,
    chains: Vec<Chained>,
}

/// When a generator began, and how many of the jobs that were due it did not submit, by why.
#[derive(Clone, Copy, Debug)]
struct Ran {
    start: Timestamp,
    left_out: u64,
    cut_off: u64,
}

#[derive(Debug, Default)]
struct Counts {
    submitted: AtomicU64,
    refused: AtomicU64,
    refused_best_effort: AtomicU64,
    /// Rare, so the lock is almost never contended.
    turned_away: Mutex<BTreeMap<(ModelId, String, bool), u64>>,
}

impl Counts {
    /// One more job of `of` that was turned away because of `why`.
    fn turn_away(&self, of: &Driven, why: &Error) {
        let total = if of.best_effort { &self.refused_best_effort } else { &self.refused };
        total.fetch_add(1, Ordering::Relaxed);
        let why = match why {
            Error::Submission { why } => why.to_string(),
            other => other.to_string(),
        };
        let model = of.model.id();
        let mut by = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        *by.entry((model, why, of.best_effort)).or_default() += 1;
    }

    fn told(&self) -> Vec<TurnedAway> {
        let by = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        let each = by.iter().map(|((model, why, best_effort), jobs)| TurnedAway {
            model: *model,
            why: why.clone(),
            best_effort: *best_effort,
            jobs: *jobs,
        });
        each.collect()
    }
}

impl Load {
    /// Starts submitting, all models at once first: the critical instant of fixed priorities. Of a
    /// chain that goes for its first member.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn start(sources: impl Into<Sources>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Self::start_for(sources, clock, None)
    }

    /// The same for at most `length`: jobs due then or later are not due, whenever the load is ended.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn start_for(
        sources: impl Into<Sources>,
        clock: Arc<dyn Clock>,
        length: Option<Nanos>,
    ) -> Result<Self, Error> {
        let (done, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let Sources { mut models, chains: chained } = sources.into();
        let mut jobs: Vec<Under> = models.iter().map(|_| Under::Watch(Vec::new())).collect();
        let mut chains = Vec::with_capacity(chained.len());
        for chain in &chained {
            let Some(first) = chain.members.first() else { continue };
            let (running, hop) = Chained::start(chain, &counts, &done)?;
            models.push(first.clone());
            jobs.push(Under::Chain(hop));
            chains.push(running);
        }
        let (ends, counted) = (Arc::clone(&done), Arc::clone(&counts));
        let generator = Generator { jobs, models, clock, length, done: ends, counts: counted };
        let thread = thread::Builder::new()
            .name("aegis-load".into())
            .spawn(move || generator.run())
            .map_err(Error::Thread)?;
        Ok(Self { done, counts, thread, chains })
    }

    /// Ends the load: nothing more is submitted or triggered, and what is under way runs on. Blocks
    /// for at most one wake-up of the thread.
    ///
    /// # Panics
    /// When the generator did, which is a defect.
    pub fn end(self) -> EndedLoad {
        self.done.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let ran = self.thread.join().expect("the generator does not panic");
        EndedLoad { ran, counts: self.counts, chains: self.chains }
    }
}

/// A load that was ended, whose last jobs may be under way.
#[derive(Debug)]
#[must_use = "what was submitted is known by its summary alone"]
pub struct EndedLoad {
    ran: Ran,
    counts: Arc<Counts>,
    chains: Vec<Chained>,
}

impl EndedLoad {
    /// What was submitted. Blocks until no job of a chain is under way: behind a stage that hangs,
    /// that is not before [`Runtime::stop`](crate::Runtime::stop), which ends all of them.
    ///
    /// # Panics
    /// When a thread of a chain did, which is a defect.
    #[must_use]
    pub fn summary(self) -> LoadSummary {
        let chains = self.chains.into_iter().map(Chained::finish).collect();
        let seen = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let Ran { start, left_out, cut_off } = self.ran;
        let submitted = seen(&self.counts.submitted);
        let refused = seen(&self.counts.refused);
        let refused_best_effort = seen(&self.counts.refused_best_effort);
        LoadSummary {
            start,
            due: submitted + refused + refused_best_effort + left_out + cut_off,
            submitted,
            refused,
            refused_best_effort,
            left_out,
            cut_off,
            turned_away: self.counts.told(),
            chains,
        }
    }
}

/// The point after `at` that is next in turn at `now`: not more than a period back, so that what a
/// late generator catches up with is one job.
fn next_point(at: Timestamp, period: Nanos, now: Timestamp) -> Timestamp {
    let behind = now.saturating_since(at) / period;
    at + period.saturating_mul(behind.max(1))
}

/// Of the points from `at` on, a `period` apart and before `end`: those that were left out, a later one
/// having come, and the last, which `end` came before.
fn unsent(at: Timestamp, period: Nanos, end: Timestamp) -> (u64, u64) {
    match end.saturating_since(at).div_ceil(period) {
        0 => (0, 0),
        points => (points - 1, 1),
    }
}

/// The releases of one model as the runtime sees them: a period apart, however late a submission was.
#[derive(Clone, Copy, Debug)]
struct Releases {
    period: Nanos,
    jitter: Nanos,
    /// When the next may be.
    earliest: Timestamp,
}

impl Releases {
    /// What a job may be kept back by, as a part of the period, before it is left out. Behind a late
    /// submission everything would come as late for ever; without one job the next is in time again.
    const PART_KEPT_BACK: u64 = 2;

    fn of(driven: &Driven) -> Self {
        let Driven { period, jitter, .. } = *driven;
        Self { period, jitter, earliest: Timestamp::ZERO }
    }

    /// Whether the job that was due at `due` is to be submitted `now`; its release is noted then.
    fn admits(&mut self, due: Timestamp, now: Timestamp) -> bool {
        let wanted = due.max(now.saturating_sub(self.jitter));
        if self.earliest.saturating_since(wanted) > Nanos(self.period.0 / Self::PART_KEPT_BACK) {
            return false;
        }
        self.earliest = wanted.max(self.earliest).saturating_add(self.period);
        true
    }
}

/// Where the jobs of a model are while they are under way.
enum Under {
    /// Kept here; their slots free themselves once they have ended and are dropped.
    Watch(Vec<Job>),
    /// Handed on to a chain.
    Chain(SyncSender<Instance>),
}

struct Generator {
    models: Vec<Driven>,
    jobs: Vec<Under>,
    clock: Arc<dyn Clock>,
    /// After which nothing is due any more.
    length: Option<Nanos>,
    done: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl Generator {
    /// Submits until told to end.
    fn run(mut self) -> Ran {
        let start = self.clock.now();
        let mut releases: Vec<Releases> = self.models.iter().map(Releases::of).collect();
        let last = self.length.map_or(Timestamp::NEVER, |length| start.saturating_add(length));
        let mut left_out = 0;
        let mut due: BinaryHeap<Reverse<(Timestamp, usize)>> =
            (0..self.models.len()).map(|index| Reverse((start, index))).collect();
        while !self.done.load(Ordering::Acquire) {
            let Some(Reverse((at, index))) = due.peek().copied().filter(|due| due.0.0 < last)
            else {
                thread::park(); // Until told to end: nothing more is due.
                continue;
            };
            let now = self.clock.now();
            if now < at {
                thread::park_timeout(Duration::from(at - now));
                continue;
            }
            due.pop();
            // Of best effort nothing is kept back.
            if self.models[index].best_effort || releases[index].admits(at, now) {
                self.submit(index, at);
            } else {
                left_out += 1;
            }
            let period = self.models[index].period;
            let next = next_point(at, period, self.clock.now().min(last));
            left_out += (next - at) / period - 1;
            due.push(Reverse((next, index)));
        }
        let end = self.clock.now().min(last);
        let unsent = |(at, index): (Timestamp, usize)| unsent(at, self.models[index].period, end);
        let unsent = due.into_iter().map(|Reverse(due)| unsent(due));
        let (late, cut_off) = unsent.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        Ran { start, left_out: left_out + late, cut_off }
    }

    /// Submits the job of the model at `index` that was due at `due`.
    fn submit(&mut self, index: usize, due: Timestamp) {
        let driven = &self.models[index];
        if let Under::Watch(jobs) = &mut self.jobs[index] {
            jobs.retain(|job| !job.has_ended());
        }
        let release = (driven.jitter > Nanos::ZERO).then_some(due);
        match driven.model.submit_released(&driven.inputs, release) {
            Ok(job) => {
                self.counts.submitted.fetch_add(1, Ordering::Relaxed);
                match &mut self.jobs[index] {
                    Under::Watch(jobs) => jobs.push(job),
                    Under::Chain(hop) => hop
                        .send(Instance::new(job))
                        .expect("a hop waits as long as the generator may submit"),
                }
            }
            Err(why) => self.counts.turn_away(driven, &why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_generator_keeps_its_points_and_catches_up_with_one_job() {
        let (at, period) = (Timestamp(1000), Nanos(100));
        let next = |now| next_point(at, period, Timestamp(now));
        assert_eq!(next(1000), Timestamp(1100), "in time");
        assert_eq!(next(1099), Timestamp(1100), "late, but the next point is its own");
        assert_eq!(next(1100), Timestamp(1100), "just there");
        assert_eq!(next(1350), Timestamp(1300), "two points are left out, one is caught up with");
    }

    /// The points of a model every 80 from 0 on at which a job is submitted, where that of `stalled` comes
    /// so much too late.
    fn submitted(jitter: u64, stalled: u64, late: u64) -> Vec<u64> {
        let (period, jitter) = (Nanos(80), Nanos(jitter));
        let mut releases = Releases { period, jitter, earliest: Timestamp::ZERO };
        let points = (0..6).map(|job| job * 80);
        let now = |due: u64| Timestamp(if due == stalled { due + late } else { due });
        points.filter(|due| releases.admits(Timestamp(*due), now(*due))).collect()
    }

    #[test]
    fn behind_a_late_submission_one_job_is_left_out_and_the_rest_is_in_time() {
        assert_eq!(submitted(0, 80, 0), [0, 80, 160, 240, 320, 400]);
        assert_eq!(submitted(0, 80, 40), [0, 80, 160, 240, 320, 400], "half a period is borne");
        assert_eq!(submitted(0, 80, 41), [0, 80, 240, 320, 400]);
        assert_eq!(submitted(0, 80, 79), [0, 80, 240, 320, 400]);
        assert_eq!(submitted(60, 80, 60), [0, 80, 160, 240, 320, 400], "the jitter holds it");
        assert_eq!(submitted(30, 80, 70), [0, 80, 160, 240, 320, 400], "and half a period more");
        assert_eq!(submitted(30, 80, 71), [0, 80, 240, 320, 400]);
    }

    #[test]
    fn what_was_not_submitted_is_told_apart_by_why() {
        let unsent = |at, end| unsent(Timestamp(at), Nanos(100), Timestamp(end));
        assert_eq!(unsent(2000, 2000), (0, 0), "due at the end is not due");
        assert_eq!(unsent(2000, 1950), (0, 0));
        assert_eq!(unsent(1999, 2000), (0, 1), "the end came first, and it was not late");
        assert_eq!(unsent(1700, 2000), (2, 1), "1700 and 1800 were late, 1900 was not");
    }
}

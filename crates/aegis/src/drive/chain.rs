//! The load of triggered chains: a thread for each member that waits for its jobs and triggers the next.
//!
//! The first member is submitted at its period like any other model. Its jobs go to the thread of its
//! hop, which waits for each in turn, submits the next member with the release of the first as the
//! claimed one, and hands that job on to the next hop. There is a thread for each member and not one
//! for each chain, since a chain may take longer than its period: then several of its instances are
//! under way, each in another member.
//!
//! # Invariants
//! 1. Instances keep their order: the jobs of a model end in the order of their releases.
//! 2. A queue between two hops never holds more jobs than the model has slots, so nothing waits for
//!    room in it.
//! 3. What is observed of an instance is by the trace clock: from the release of its first job to
//!    where the dispatcher noticed the end of its last. How late a thread here wakes is in it only
//!    where it made a job late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use aegis_sched::admission::SLOTS_MAX;
use aegis_trace::{Nanos, Timestamp};

use super::{Counts, Driven};
use crate::error::Error;
use crate::handle::{Job, Timing};

/// A triggered chain whose members are all admitted.
#[derive(Clone, Debug)]
pub struct DrivenChain {
    /// Its name.
    pub name: String,
    /// Its members in their order, at least one; only the period of the first matters.
    pub members: Vec<Driven>,
    /// By when an instance should be complete, from its arrival on.
    pub deadline: Option<Nanos>,
}

/// What was seen of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainSummary {
    /// Its name.
    pub name: String,
    /// Instances that went through all members.
    pub completed: u64,
    /// Those of them that took longer than the deadline.
    pub missed: u64,
    /// Instances that ended early, before the load did: a job of theirs was turned away, dropped or
    /// failed.
    pub lost: u64,
    /// The longest that an instance took from its arrival to its end; zero if none completed.
    pub response_max: Nanos,
}

/// One instance on its way.
pub(super) struct Instance {
    /// The release of its first job; `None` while that is the one under way.
    arrival: Option<Timestamp>,
    job: Job,
}

impl Instance {
    /// One whose first job was submitted.
    pub(super) fn new(job: Job) -> Self {
        Self { arrival: None, job }
    }
}

/// The running hops of one chain.
#[derive(Debug)]
pub(super) struct Chained {
    name: String,
    tally: Arc<Tally>,
    hops: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Tally {
    completed: AtomicU64,
    missed: AtomicU64,
    lost: AtomicU64,
    response_max: AtomicU64,
}

impl Chained {
    /// Starts the threads of `chain`; the first job of each instance goes to the sender.
    ///
    /// # Errors
    /// [`Error::Thread`]; threads that were started end.
    pub(super) fn start(
        chain: &DrivenChain,
        counts: &Arc<Counts>,
        done: &Arc<AtomicBool>,
    ) -> Result<(Self, SyncSender<Instance>), Error> {
        let tally = Arc::<Tally>::default();
        let (first, mut jobs) = sync_channel(SLOTS_MAX);
        let mut hops = Vec::with_capacity(chain.members.len());
        for place in 0..chain.members.len() {
            let (next, later) = sync_channel(SLOTS_MAX);
            let next = chain.members.get(place + 1).map(|model| (model.clone(), next));
            let (tally, counts, done) = (Arc::clone(&tally), Arc::clone(counts), Arc::clone(done));
            let jobs = std::mem::replace(&mut jobs, later);
            let hop = Hop { jobs, next, deadline: chain.deadline, tally, counts, done };
            let thread = thread::Builder::new().name("aegis-chain".into());
            hops.push(thread.spawn(move || hop.run()).map_err(Error::Thread)?);
        }
        Ok((Self { name: chain.name.clone(), tally, hops }, first))
    }

    /// Waits until no job is under way, once the sender is dropped.
    pub(super) fn finish(self) -> ChainSummary {
        for hop in self.hops {
            hop.join().expect("a hop does not panic");
        }
        let seen = |of: &AtomicU64| of.load(Ordering::Relaxed);
        ChainSummary {
            name: self.name,
            completed: seen(&self.tally.completed),
            missed: seen(&self.tally.missed),
            lost: seen(&self.tally.lost),
            response_max: Nanos(seen(&self.tally.response_max)),
        }
    }
}

/// The thread that waits for the jobs of one member.
struct Hop {
    jobs: Receiver<Instance>,
    /// The member that it triggers, and the hop that waits for that one's jobs.
    next: Option<(Driven, SyncSender<Instance>)>,
    deadline: Option<Nanos>,
    tally: Arc<Tally>,
    counts: Arc<Counts>,
    /// Whether the load has ended: then nothing is triggered, and an instance that does not complete
    /// did nothing wrong.
    done: Arc<AtomicBool>,
}

impl Hop {
    /// Hands on until the hop before it has ended.
    fn run(self) {
        for Instance { arrival, job } in &self.jobs {
            match job.wait() {
                Ok(outputs) => {
                    let timing = *outputs.timing();
                    let arrival = arrival.unwrap_or(timing.release);
                    match &self.next {
                        Some((model, jobs)) => self.trigger(model, jobs, arrival),
                        None => self.complete(arrival, timing),
                    }
                }
                Err(_) => self.lose(),
            }
        }
    }

    fn trigger(&self, model: &Driven, jobs: &SyncSender<Instance>, arrival: Timestamp) {
        if self.done.load(Ordering::Acquire) {
            return;
        }
        match model.model.submit_released(&model.inputs, Some(arrival)) {
            Ok(job) => {
                self.counts.submitted.fetch_add(1, Ordering::Relaxed);
                let sent = jobs.send(Instance { arrival: Some(arrival), job });
                sent.expect("a hop waits as long as there is one before it");
            }
            // The runtime may have been stopped since the look at `done`.
            Err(_) if self.done.load(Ordering::Acquire) => {}
            Err(why) => {
                self.counts.turn_away(model, &why);
                self.lose();
            }
        }
    }

    fn complete(&self, arrival: Timestamp, last: Timing) {
        let end = last.release.saturating_add(last.response);
        let response = end.saturating_since(arrival);
        self.tally.completed.fetch_add(1, Ordering::Relaxed);
        self.tally.response_max.fetch_max(response.as_nanos(), Ordering::Relaxed);
        if self.deadline.is_some_and(|deadline| response > deadline) {
            self.tally.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lose(&self) {
        if !self.done.load(Ordering::Acquire) {
            self.tally.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

//! The two queues of a job's way to the device: submissions between threads, and ready jobs.
//!
//! [`SubmissionQueue`] is bounded and takes no lock; full is an answer, not a wait. (Taking a job waits
//! for a caller that the system interrupted between claiming its place and filling it.) [`ReadyQueue`] is a
//! binary heap in the policy's order with room for every job slot, so neither allocates after
//! set-up.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, fence};

use aegis_context::JobOutcome;
use aegis_context::slot::JobSlot;
use aegis_cuda::Signal;
use aegis_trace::{JobId, ModelId, Nanos, StageIndex, SubmitRefusal, Timestamp};
use crossbeam_queue::ArrayQueue;

use crate::policy::{ReadyJob, SchedulingPolicy};

/// A job on its way to the orchestrator.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Whose job.
    pub model: ModelId,
    /// Its filled slot.
    pub slot: Arc<JobSlot>,
    /// When it was handed over.
    pub stamp: Timestamp,
    /// The nominal release the caller claims, at most the model's jitter before `stamp`; `None`
    /// for a release at the moment of arrival.
    pub release: Option<Timestamp>,
}

/// The bounded way from the submitting threads to the orchestrator.
#[derive(Debug)]
pub struct SubmissionQueue {
    queue: ArrayQueue<Submission>,
    signal: Arc<Signal>,
    closed: AtomicBool,
}

impl SubmissionQueue {
    /// A queue of `depth` places that wakes whoever waits on `signal`.
    ///
    /// # Panics
    /// When `depth` is zero.
    #[must_use]
    pub fn new(depth: usize, signal: Arc<Signal>) -> Self {
        Self { queue: ArrayQueue::new(depth), signal, closed: AtomicBool::new(false) }
    }

    /// Hands a job over; never blocks, never allocates. Gives it back when the queue is full.
    ///
    /// # Errors
    /// The submission itself.
    pub fn push(&self, submission: Submission) -> Result<(), Submission> {
        self.queue.push(submission)?;
        self.signal.notify();
        // Either the closing side sees this submission when it empties the queue, or we see that it
        // has closed: a fence between the store and the load on both sides puts them in one order.
        fence(SeqCst);
        if self.closed.load(SeqCst) {
            self.refuse_all();
        }
        Ok(())
    }

    /// Ends the queue: what is in it, and what still comes, is refused.
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
        fence(SeqCst);
        self.refuse_all();
    }

    fn refuse_all(&self) {
        while let Some(submission) = self.queue.pop() {
            submission.slot.finish(JobOutcome::Refused { why: SubmitRefusal::NotRunning });
        }
    }

    /// Takes the oldest submission.
    #[must_use]
    pub fn pop(&self) -> Option<Submission> {
        self.queue.pop()
    }

    /// How many places there are.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.queue.capacity()
    }
}

/// What a job was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// To complete within its deadline.
    Guaranteed,
    /// To run while nothing else is ready.
    Background,
    /// A share of its server's budget.
    Server,
}

/// A ready job with everything needed to run it.
#[derive(Clone, Debug)]
pub struct Ready {
    /// What the policy sees. Of a job under a server, release and deadline are those of the refill.
    pub job: ReadyJob,
    /// What it was promised.
    pub class: Class,
    /// Where its inputs and outputs are.
    pub slot: Arc<JobSlot>,
    /// When it became visible to the orchestrator, at the earliest.
    pub arrival: Timestamp,
    /// The stage it runs next.
    pub stage: StageIndex,
    /// The time it held the device so far, overheads included.
    pub consumed: Nanos,
    /// What the analysis charges for the stages it has run so far.
    pub charged: Nanos,
    /// The device time of its stages so far.
    pub execution: Nanos,
}

impl Ready {
    /// A job that has not begun.
    #[must_use]
    pub fn new(job: ReadyJob, class: Class, slot: Arc<JobSlot>, arrival: Timestamp) -> Self {
        let (consumed, charged, execution) = (Nanos::ZERO, Nanos::ZERO, Nanos::ZERO);
        Self { job, class, slot, arrival, stage: StageIndex(0), consumed, charged, execution }
    }

    /// Whether it has run a stage already.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.stage.0 > 0
    }

    /// What it used beyond the charges of the stages it has run.
    #[must_use]
    pub fn excess(&self) -> Nanos {
        self.consumed.saturating_sub(self.charged)
    }
}

/// The position of a job in the policy's order.
type Rank = (u64, Timestamp, JobId);

#[derive(Debug)]
struct Entry {
    rank: Rank,
    ready: Ready,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

/// The ready jobs in the policy's order.
#[derive(Debug)]
pub struct ReadyQueue {
    heap: BinaryHeap<Reverse<Entry>>,
}

impl ReadyQueue {
    /// An empty queue with room for `jobs` jobs; more than that allocates.
    #[must_use]
    pub fn new(jobs: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(jobs) }
    }

    /// Makes room for `more` jobs beyond those queued now. Set-up only: allocates.
    pub fn reserve(&mut self, more: usize) {
        self.heap.reserve(more);
    }

    /// Adds a job. O(log n).
    pub fn push(&mut self, policy: &dyn SchedulingPolicy, ready: Ready) {
        let rank = (policy.urgency(&ready.job), ready.job.release, ready.job.id);
        self.heap.push(Reverse(Entry { rank, ready }));
    }

    /// Takes the first job. O(log n).
    pub fn pop(&mut self) -> Option<Ready> {
        self.heap.pop().map(|Reverse(entry)| entry.ready)
    }

    /// The first job and its urgency. O(1).
    #[must_use]
    pub fn first(&self) -> Option<(u64, &ReadyJob)> {
        self.heap.peek().map(|Reverse(entry)| (entry.rank.0, &entry.ready.job))
    }

    /// Removes every job of `model`, in no particular order. O(n).
    pub fn remove_all(&mut self, model: ModelId, mut removed: impl FnMut(&Ready)) {
        self.heap.retain(|Reverse(entry)| {
            let stays = entry.ready.job.id.model != model;
            if !stays {
                removed(&entry.ready);
            }
            stays
        });
    }

    /// How many jobs are ready.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{EdfPolicy, job};
    use aegis_context::ModelDescription;

    fn ready(job: ReadyJob) -> Ready {
        let description = ModelDescription { inputs: vec![], outputs: vec![], stages: 1 };
        Ready::new(job, Class::Guaranteed, Arc::new(JobSlot::new(&description)), job.release)
    }

    #[test]
    fn jobs_leave_in_the_policys_order_with_ties_by_release_then_id() {
        let mut queue = ReadyQueue::new(4);
        for job in
            [job(2, 9, 50, 1, 0), job(1, 9, 50, 1, 0), job(3, 2, 50, 1, 0), job(4, 1, 60, 1, 0)]
        {
            queue.push(&EdfPolicy, ready(job));
        }
        let order: Vec<_> =
            std::iter::from_fn(|| queue.pop()).map(|ready| ready.job.id.model.index).collect();
        assert_eq!(order, [3, 1, 2, 4]);
    }

    #[test]
    fn removing_a_model_leaves_the_others() {
        let mut queue = ReadyQueue::new(3);
        for job in [job(1, 1, 5, 1, 0), job(2, 2, 6, 1, 0), job(1, 3, 7, 1, 0)] {
            queue.push(&EdfPolicy, ready(job));
        }
        let mut removed = 0;
        queue.remove_all(ModelId::first(1), |_| removed += 1);
        assert_eq!((removed, queue.len()), (2, 1));
        assert_eq!(queue.first().expect("one left").1.id.model.index, 2);
    }

    #[test]
    fn a_full_submission_queue_gives_the_job_back() {
        let queue = SubmissionQueue::new(1, Arc::new(Signal::new()));
        let submission = Submission {
            model: ModelId::first(0),
            slot: ready(job(0, 0, 0, 1, 0)).slot,
            stamp: Timestamp::ZERO,
            release: None,
        };
        queue.push(submission.clone()).expect("room for one");
        assert!(queue.push(submission).is_err());
        assert!(queue.pop().is_some());
        assert!(queue.pop().is_none());
    }
}

//! A polling server with sporadic start: best-effort jobs that share a budget in each period.
//!
//! ```text
//!            work arrives              budget too short          no work left
//!   Inactive ------------> a refill ---------------------> wait ------------> Inactive
//!      ^                   at max(arrival, last + T_s)      for the next      the rest is
//!      +-----------------------------------------------------------------------  forfeited
//! ```
//! To everybody else the server is one sporadic task: a refill is a release, the work done in it is
//! at most `C_s` in pieces of at most the longest stage, its deadline is `T_s` later. It competes
//! with the urgency of that task, so the policy needs to know nothing of servers.
//!
//! # Invariants
//! 1. Two refills are at least `T_s` apart, and later by what the server owes.
//! 2. A stage starts only if its whole charge fits what is left, so as long as stages keep to their
//!    charges a refill pays for at most `C_s` of service, dispatch overheads included. Jobs that are
//!    never suspended start only if the whole job fits.
//! 3. From a refill on, one job is in the ready queue or on the device until the refill ends. The
//!    server never keeps budget while it has nothing to run; a task does not suspend itself either.
//! 4. Jobs are served in the order of their arrivals; one, the head, is outside `waiting` at a time.
//!
//! # Sources
//! Sprunt, Sha, Lehoczky, "Aperiodic task scheduling for hard-real-time systems", Real-Time Systems
//! 1, 1989, compares polling with the servers that keep their budget. Why this one polls, and what is
//! wrong with the textbook's jitter for the others without preemption, is in ADR 0015.

use std::cmp::Reverse;
use std::collections::VecDeque;

use aegis_trace::{JobId, Nanos, Timestamp, TraceEvent};

use super::lane::LaneService;
use super::running::Held;
use super::{Dispatcher, lane_of};
use crate::queue::Ready;

/// The server of one lane.
#[derive(Debug)]
pub(crate) struct Server {
    budget: Nanos,
    period: Nanos,
    priority: u32,
    /// When the present refill began, or will.
    start: Timestamp,
    /// When the next refill may begin.
    earliest: Timestamp,
    /// What is left of the present refill.
    left: Nanos,
    /// The job that is held back, ready or on the device.
    head: Option<JobId>,
    /// The jobs behind it.
    waiting: VecDeque<Ready>,
}

impl Server {
    /// A server that may refill at once, with room for `jobs` jobs.
    pub(crate) fn new(budget: Nanos, period: Nanos, priority: u32, jobs: usize) -> Self {
        let (start, earliest) = (Timestamp::ZERO, Timestamp::ZERO);
        let waiting = VecDeque::with_capacity(jobs);
        Self { budget, period, priority, start, earliest, left: Nanos::ZERO, head: None, waiting }
    }

    /// The budget of a refill and the least time between two.
    pub(super) fn rate(&self) -> (Nanos, Nanos) {
        (self.budget, self.period)
    }

    /// Books the service that a stage has taken.
    pub(super) fn spend(&mut self, service: Nanos) {
        self.left = self.left.saturating_sub(service);
    }

    /// Puts the next refill off by `by`.
    pub(super) fn postpone(&mut self, by: Nanos) {
        self.earliest = self.earliest.saturating_add(by);
    }

    /// Whether a stage of this charge may start in the present refill.
    pub(super) fn affords(&self, charge: Nanos) -> bool {
        charge <= self.left
    }

    /// Takes a job that is not the head.
    pub(super) fn take_waiting(&mut self) -> Option<Ready> {
        self.waiting.pop_front()
    }

    /// Begins a refill, at `wanted` or as soon after it as the period allows.
    fn refill(&mut self, wanted: Timestamp) {
        self.start = wanted.max(self.earliest);
        self.earliest = self.start.saturating_add(self.period);
        self.left = self.budget;
    }

    /// Makes `ready` the head, with the urgency of the present refill.
    fn put_at_head(&mut self, ready: &mut Ready) {
        self.head = Some(ready.job.id);
        ready.job.release = self.start;
        ready.job.deadline = self.start.saturating_add(self.period);
        ready.job.period = self.period;
        ready.job.priority = self.priority;
    }

    /// Notes that `job` has ended. Gives back the job that is served next, if `job` was the head and
    /// there is another; if there is none, the rest of the refill is forfeited.
    fn end(&mut self, job: JobId) -> Option<Ready> {
        if self.head != Some(job) {
            return None;
        }
        self.head = None;
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.left = Nanos::ZERO;
        }
        next
    }
}

impl Dispatcher {
    /// Takes a job that arrived for a server, by `seen` at the latest; it waits behind the others, or
    /// begins a refill.
    pub(super) fn accept_for_server(&mut self, now: Timestamp, seen: Timestamp, ready: Ready) {
        let Some(server) = self.server_of(ready.job.id) else { return };
        if server.head.is_some() {
            server.waiting.push_back(ready);
        } else {
            let arrival = ready.arrival;
            self.serve_from(now, seen, arrival, ready);
        }
    }

    /// Makes `ready` the head of its server: in the present refill if that pays for its next stage,
    /// else in a new one, which begins at `wanted` at the earliest.
    pub(super) fn serve(&mut self, now: Timestamp, wanted: Timestamp, ready: Ready) {
        self.serve_from(now, now, wanted, ready);
    }

    /// The same, where a refill that begins by `seen` is one that has begun.
    fn serve_from(&mut self, now: Timestamp, seen: Timestamp, wanted: Timestamp, mut ready: Ready) {
        let overheads = self.config.overheads;
        let job = ready.job.id;
        let lane = lane_of(&mut self.lanes, job.model).expect("jobs outlive no lane");
        let charge = lane.charge_ahead(ready.stage, &overheads);
        let LaneService::Server(server) = &mut lane.service else {
            unreachable!("{} has no server", job.model)
        };
        if !server.affords(charge) {
            server.refill(wanted);
        }
        server.put_at_head(&mut ready);
        let start = server.start;
        if start > seen {
            self.recorder.record(now, TraceEvent::OutOfBudget { job, until: start });
            self.held.push(Reverse(Held::new(ready, start, Nanos::ZERO)));
        } else {
            self.make_ready(start, ready);
        }
    }

    /// Lets the server of an ended job go on with the next one.
    pub(super) fn serve_next(&mut self, now: Timestamp, ended: JobId) {
        let next = self.server_of(ended).and_then(|server| server.end(ended));
        if let Some(next) = next {
            self.serve(now, now, next);
        }
    }

    fn server_of(&mut self, job: JobId) -> Option<&mut Server> {
        match &mut lane_of(&mut self.lanes, job.model)?.service {
            LaneService::Server(server) => Some(server),
            LaneService::Guaranteed { .. } | LaneService::Background => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server::new(Nanos(4), Nanos(10), 0, 4)
    }

    #[test]
    fn refills_keep_their_distance_and_start_when_they_are_wanted() {
        let mut server = server();
        let starts: Vec<u64> = [3, 5, 40, 40]
            .map(|wanted| {
                server.refill(Timestamp(wanted));
                server.start.0
            })
            .to_vec();
        assert_eq!(starts, [3, 13, 40, 50]);
    }

    #[test]
    fn a_stage_starts_only_if_its_whole_charge_is_left() {
        let mut server = server();
        assert!(!server.affords(Nanos(1)), "nothing before the first refill");
        server.refill(Timestamp(0));
        assert!(server.affords(Nanos(4)));
        server.spend(Nanos(1));
        assert!(server.affords(Nanos(3)) && !server.affords(Nanos(4)));
        server.spend(Nanos(9));
        assert!(!server.affords(Nanos(1)), "an overrun leaves nothing, and no more");
    }

    #[test]
    fn a_debt_moves_the_next_refill_and_not_the_present_one() {
        let mut server = server();
        server.refill(Timestamp(5));
        server.postpone(Nanos(7));
        assert_eq!(server.start, Timestamp(5));
        server.refill(Timestamp(5));
        assert_eq!(server.start, Timestamp(22));
    }

    #[test]
    fn what_is_left_is_forfeited_when_no_work_is() {
        let mut server = server();
        server.refill(Timestamp(0));
        let job = JobId { model: aegis_trace::ModelId::first(0), sequence: 0 };
        server.head = Some(job);
        let other = JobId { sequence: 1, ..job };
        assert!(server.end(other).is_none());
        assert_eq!(server.left, Nanos(4), "another job's end is not the head's");
        assert!(server.end(job).is_none());
        assert_eq!(server.left, Nanos::ZERO);
    }
}

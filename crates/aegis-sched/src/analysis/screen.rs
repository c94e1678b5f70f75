//! A quick look at whether a later deadline could be worse than the worst one known, under EDF.
//!
//! A job due at `d` takes longer than `R` only if what runs before its last stage does not fit in
//! by the instant `w` at which that stage would have to start for `R`: if
//!
//! ```text
//! own + sum over j != i with D_j - J_j <= d of
//!         (floor(min(w + J_j, d - D_j + J_j) / T_j) + 1) C_j <= w
//! ```
//!
//! then a fixed point of the job's recurrence lies at `w` or before, and its response is at most
//! `R`. (The lesser of two quotients by one divisor is one quotient.)
//!
//! # Invariants
//! 1. `d`, and with it `w`, never decreases between two questions, so a rival costs a comparison,
//!    and a division only where one more of its jobs counts.

use aegis_trace::Nanos;

use super::demand::Demand;

/// The rivals of one task, by `D - J`.
#[derive(Default)]
pub(super) struct Screen {
    rivals: Vec<Rival>,
    /// The work of all jobs that count.
    work: Nanos,
}

struct Rival {
    period: u64,
    jitter: u64,
    first_deadline: u64,
    cost: u64,
    /// Jobs that count.
    jobs: u64,
    /// One more counts once the lesser of the two reaches this.
    next: u64,
}

impl Screen {
    /// Begins anew, for the task with this index in the set.
    pub(super) fn begin(&mut self, demand: &Demand, of: usize) {
        self.work = Nanos::ZERO;
        self.rivals.clear();
        self.rivals.extend(demand.tasks().iter().map(|(index, task)| Rival {
            period: task.period.0,
            jitter: task.jitter.0,
            first_deadline: task.first_deadline().0,
            cost: if *index == of { 0 } else { task.cost.0 },
            jobs: 0,
            next: 0,
        }));
    }

    /// Work of the rivals that comes by `start` and is due by `due`; `among` of them can be due.
    pub(super) fn before(&mut self, start: Nanos, due: Nanos, among: usize) -> Nanos {
        for rival in &mut self.rivals[..among] {
            let came = (start.0 + rival.jitter).min(due.0 - rival.first_deadline);
            if came >= rival.next {
                let jobs = came / rival.period + 1;
                let more = rival.cost.saturating_mul(jobs - rival.jobs);
                self.work = self.work.saturating_add(Nanos(more));
                (rival.jobs, rival.next) = (jobs, rival.period.saturating_mul(jobs));
            }
        }
        self.work
    }
}

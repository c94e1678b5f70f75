//! What each model asks of the device: its charges, and the task that the theorems see.
//!
//! Every stage is charged what the orchestrator takes beside it. A model that is never suspended is
//! one piece as long as all of its stages; a server is a task that costs its budget, in pieces of at
//! most its longest stage, the last of them as short as can be; work in the background is no task,
//! and its longest piece counts for the floor of its partition.

use crate::certificate::{Charge, Charges, Model, Overheads, Policy, Service};
use crate::fault::{Fault, LONGEST, Time, require, same};
use crate::load::share;

/// A task as the theorems see it. Deadlines count from the nominal release.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    /// The place of its model.
    pub(crate) model: u32,
    pub(crate) cost: Time,
    pub(crate) longest: Time,
    pub(crate) last: Time,
    pub(crate) period: Time,
    pub(crate) deadline: Time,
    pub(crate) jitter: Time,
    /// Smaller is more urgent; only under fixed priorities.
    pub(crate) urgency: Time,
}

impl Task {
    /// The task of a model whose charge was checked; `None` in the background.
    pub(crate) fn of(place: u32, model: &Model, policy: Policy) -> Option<Self> {
        let (period, deadline, jitter, rank) = match model.service {
            Service::Guaranteed { period, deadline, jitter, rank } => {
                (period, deadline, jitter.0, rank)
            }
            Service::Server { period, rank, .. } => (period, period, 0, rank),
            Service::Background => return None,
        };
        let Charge { cost, longest, last, .. } = model.charge;
        let urgency = match policy {
            Policy::Rms => period.0,
            Policy::Dm => deadline.0,
            Policy::Priority => u64::from(rank.unwrap_or(0)),
            Policy::Edf | Policy::Fifo => 0,
        };
        Some(Self {
            model: place,
            cost: cost.0.into(),
            longest: longest.0.into(),
            last: last.0.into(),
            period: period.0.into(),
            deadline: deadline.0.into(),
            jitter: jitter.into(),
            urgency: urgency.into(),
        })
    }

    /// How many jobs can be ready by `time`, if the first is as late as it may be at 0.
    pub(crate) fn by(&self, time: Time) -> Time {
        (time + self.jitter) / self.period + 1
    }

    /// How many can be ready before `time`.
    pub(crate) fn before(&self, time: Time) -> Time {
        (time + self.jitter).div_ceil(self.period)
    }

    /// What so many jobs cost.
    pub(crate) fn work(&self, jobs: Time) -> Time {
        jobs.saturating_mul(self.cost)
    }

    /// The shortest window that can hold a job's being ready and its deadline, `D - J`.
    pub(crate) fn first_due(&self) -> Time {
        self.deadline.saturating_sub(self.jitter)
    }

    /// How many jobs can be ready and due inside `window`.
    pub(crate) fn due_in(&self, window: Time) -> Time {
        match window.checked_sub(self.first_due()) {
            Some(room) => room / self.period + 1,
            None => 0,
        }
    }
}

/// The charges of the overheads, and that none is absurd.
pub(crate) fn check_overheads(overheads: &Overheads) -> Result<(), Fault> {
    // Looking ahead is no charge of a stage: `ahead.rs`.
    let Overheads { dispatch, wake, boundary, copy, look_ahead: _, charges } = overheads;
    let sane = [dispatch, wake, boundary, copy].iter().all(|time| Time::from(time.0) <= LONGEST);
    require("overheads", "no time may exceed 2^62 ns", sane)?;
    let sum = |parts: &[&aegis_trace::Nanos]| parts.iter().map(|part| Time::from(part.0)).sum();
    let Charges { only, first, inner, last, idle } = *charges;
    let stated = [only, first, inner, last, idle].map(|it| it.0.into());
    let found: [Time; 5] = [
        sum(&[dispatch, copy, copy]),
        sum(&[dispatch, copy]),
        sum(&[dispatch, boundary]),
        sum(&[dispatch, boundary, copy]),
        sum(&[wake, dispatch]),
    ];
    same("overheads.charges (only, first, inner, last, idle)", stated, found)
}

/// What any stage is charged at most beside its cost.
pub(crate) fn most(charges: &Charges) -> Time {
    charges.only.max(charges.last).0.into()
}

/// Whether all numbers of a model make sense, and its charge is what follows from them.
pub(crate) fn check_charge(at: &str, model: &Model, charges: &Charges) -> Result<(), Fault> {
    let sane = |time: aegis_trace::Nanos| (1..=LONGEST).contains(&Time::from(time.0));
    let stages = &model.stages;
    require(at, "there must be a stage", !stages.is_empty())?;
    require(at, "a stage takes 1 to 2^62 ns", stages.iter().all(|stage| sane(*stage)))?;
    let pieces: Vec<Time> = charged(model, charges);
    let job: Time = pieces.iter().sum();
    require(at, "a job takes at most 2^62 ns", job <= LONGEST)?;
    let longest = pieces.iter().copied().max().unwrap_or(0);
    let preempted = if model.suspend { longest } else { job };
    let last = if model.suspend { pieces[pieces.len() - 1] } else { job };
    let [cost, longest, last, share, room] = match model.service {
        Service::Guaranteed { period, deadline, jitter, .. } => {
            let times = sane(period) && sane(deadline) && Time::from(jitter.0) <= LONGEST;
            require(at, "periods and deadlines are 1 to 2^62 ns, a jitter at most that", times)?;
            let room = signed(deadline.0) - signed(jitter.0) - i128::try_from(job).unwrap_or(0);
            [
                job.cast_signed(),
                preempted.cast_signed(),
                last.cast_signed(),
                share_of(job, period),
                room,
            ]
        }
        Service::Server { budget, period, .. } => {
            require(at, "budget and period are 1 to 2^62 ns", sane(budget) && sane(period))?;
            let room = signed(period.0) - signed(budget.0);
            [signed(budget.0), preempted.cast_signed(), 1, share_of(budget.0.into(), period), room]
        }
        Service::Background => {
            let raw = stages.iter().map(|stage| Time::from(stage.0)).max().unwrap_or(0);
            // Which of its stages it is that holds the device is not known: it is charged the most.
            let most = most(charges);
            let piece = if model.suspend { raw + most } else { job.max(most + 1) };
            [0, piece.cast_signed(), 0, 0, 0]
        }
    };
    let Charge { job: stated_job, .. } = model.charge;
    same(format_args!("{at}.charge.job"), Time::from(stated_job.0), job)?;
    let Charge { cost: c, longest: q, last: l, share: s, room: r, .. } = model.charge;
    for (key, stated, found) in [
        ("cost", signed(c.0), cost),
        ("longest", signed(q.0), longest),
        ("last", signed(l.0), last),
        ("share", signed(s), share),
        ("room", r.into(), room),
    ] {
        same(format_args!("{at}.charge.{key}"), stated, found)?;
    }
    Ok(())
}

/// Each stage with what it is charged.
fn charged(model: &Model, charges: &Charges) -> Vec<Time> {
    let count = model.stages.len();
    let charge = |stage: usize| match (stage == 0, stage + 1 == count) {
        (true, true) => charges.only,
        (true, false) => charges.first,
        (false, true) => charges.last,
        (false, false) => charges.inner,
    };
    let stages = model.stages.iter().enumerate();
    stages.map(|(stage, cost)| Time::from(cost.0) + Time::from(charge(stage).0)).collect()
}

fn signed(number: u64) -> i128 {
    i128::from(number)
}

fn share_of(cost: Time, period: aegis_trace::Nanos) -> i128 {
    signed(share(cost, period.0.into()))
}

//! A plain device that runs what a certificate speaks of is never later than the certificate says.
//!
//! The twin reads only what was asked for (stages, overheads, service) and steps through a schedule,
//! nanosecond by nanosecond where something happens: one serial device, something long that began one
//! tick before zero, and everybody released as badly as may be. It knows no busy period, no fixed point
//! and no window. Its time has ticks, so where something blocks, dense time is one tick longer.

mod certificate_sets;

use aegis_verify::{
    Certificate, Model, Outcome, Partition, Policy, Proof, Raised, Service, Witness,
};
use certificate_sets::{Dice, certified, named, named_ahead, parsed, random};

/// A task as the workload asks for it.
#[derive(Clone, Debug)]
struct Task {
    model: u32,
    pieces: Vec<u64>,
    period: u64,
    deadline: u64,
    jitter: u64,
    rank: u64,
}

impl Task {
    /// `None` where there is none, or where its pieces are not known: of a server.
    fn of(certificate: &Certificate, place: usize, policy: Policy) -> Option<Self> {
        let model = &certificate.models[place];
        let Service::Guaranteed { period, deadline, jitter, rank } = model.service else {
            return None;
        };
        let rank = match policy {
            Policy::Rms => period.0,
            Policy::Dm => deadline.0,
            _ => u64::from(rank.unwrap_or(0)),
        };
        let pieces = pieces(certificate, model);
        let model = u32::try_from(place).expect("a few");
        Some(Self { model, pieces, period: period.0, deadline: deadline.0, jitter: jitter.0, rank })
    }

    fn first_due(&self) -> u64 {
        self.deadline - self.jitter
    }

    fn longest(&self) -> u64 {
        self.pieces.iter().copied().max().unwrap_or(0)
    }

    /// Jobs that are ready as late as can be at 0, then as often as can be, until `end`.
    fn jobs(&self, end: u64, urgency: impl Fn(u64) -> u64) -> Vec<Job> {
        let ready = (0u64..).map(|job| (job * self.period).saturating_sub(self.jitter));
        let jobs = (0u64..).zip(ready).take_while(|(_, ready)| *ready <= end);
        let of = |(job, ready)| Job {
            ready,
            urgency: urgency(self.first_due() + job * self.period),
            left: self.pieces.clone(),
            own: false,
            number: job,
        };
        jobs.map(of).collect()
    }
}

/// What the device is occupied with, piece by piece.
fn pieces(certificate: &Certificate, model: &Model) -> Vec<u64> {
    let overheads = &certificate.overheads;
    let last = model.stages.len() - 1;
    let charged = model.stages.iter().enumerate().map(|(stage, cost)| {
        let before = if stage == 0 { overheads.copy.0 } else { overheads.boundary.0 };
        let after = if stage == last { overheads.copy.0 } else { 0 };
        cost.0 + overheads.dispatch.0 + before + after
    });
    if model.suspend { charged.collect() } else { vec![charged.sum()] }
}

/// A job on its way.
#[derive(Clone, Debug)]
struct Job {
    ready: u64,
    /// Smaller goes first.
    urgency: u64,
    left: Vec<u64>,
    /// Whether it is of the task in question, to which ties are unkind.
    own: bool,
    number: u64,
}

/// What is on the device when the jobs begin to come.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// This began at -1, or was put at -1 behind what began then.
    blocking: u64,
    /// What that is, with look-ahead.
    committed: u64,
    /// Whether the next in line is put behind each stage as soon as that begins; otherwise when it ends.
    eager: bool,
}

/// When each job of the task in question ends behind what is `held`.
fn run(jobs: Vec<Job>, held: Held) -> Vec<(u64, u64)> {
    match held.eager {
        false => run_late(jobs, held.blocking.saturating_sub(1) + held.committed),
        true => run_eager(jobs, held),
    }
}

/// With a place behind the running stage, which whoever is next is put into as soon as it is empty.
fn run_eager(mut jobs: Vec<Job>, held: Held) -> Vec<(u64, u64)> {
    // What blocks has its place until what it is behind has ended, and runs then.
    let mut begins = held.committed;
    let mut frees = begins + held.blocking.saturating_sub(1);
    let mut ends = Vec::new();
    // The job whose stage was put there last, if it goes on.
    let mut last: Option<usize> = None;
    while !jobs.is_empty() {
        // At `begins` the place gets empty; at `frees` the device does.
        let first_ready = jobs.iter().map(|job| job.ready).min().unwrap_or(0);
        let now = begins.max(first_ready);
        if now > frees {
            break;
        }
        let ready = jobs.iter().enumerate().filter(|(_, job)| job.ready <= now);
        let next = ready.min_by_key(|(_, job)| (job.urgency, job.own, job.number));
        let (next, _) = next.expect("somebody is ready");
        let next = last.filter(|at| jobs[*at].urgency <= jobs[next].urgency).unwrap_or(next);
        begins = frees;
        frees += jobs[next].left.remove(0);
        last = Some(next);
        if jobs[next].left.is_empty() {
            let done = jobs.remove(next);
            ends.extend(done.own.then_some((done.number, frees)));
            last = None;
        }
    }
    ends
}

/// Whoever is next is asked for when the device is free, which it is at `now` for the first time.
fn run_late(mut jobs: Vec<Job>, mut now: u64) -> Vec<(u64, u64)> {
    let mut ends = Vec::new();
    let mut running: Option<usize> = None;
    while !jobs.is_empty() {
        let key = |job: &Job| (job.urgency, job.own, job.number);
        let ready = |job: &&(usize, &Job)| job.1.ready <= now;
        let most_urgent =
            jobs.iter().enumerate().filter(|it| ready(&it)).min_by_key(|it| key(it.1));
        let Some((next, _)) = most_urgent else {
            break; // Idle: what comes later is another busy period.
        };
        // A job that has begun goes on unless something strictly more urgent is ready.
        let next = running.filter(|at| jobs[*at].urgency <= jobs[next].urgency).unwrap_or(next);
        now += jobs[next].left.remove(0);
        running = Some(next);
        if jobs[next].left.is_empty() {
            let done = jobs.remove(next);
            ends.extend(done.own.then_some((done.number, now)));
            running = None;
        }
    }
    ends
}

/// A partition whose tasks the twin can run.
struct Twin {
    tasks: Vec<Task>,
    floor: u64,
    /// What look-ahead adds, as the twin finds it.
    committed: u64,
    /// How it looks ahead.
    eager: bool,
    policy: Policy,
}

impl Twin {
    /// What was admitted to a partition, and the model that `asks`; `None` beside a server.
    fn of(certificate: &Certificate, partition: usize, asks: Option<usize>) -> Option<Self> {
        let policy = certificate.partitions[partition].policy;
        let (mut tasks, mut piece) = (Vec::new(), 0);
        let until = asks.unwrap_or(certificate.models.len());
        let there = |(place, model): &(usize, &Model)| {
            let admitted = *place < until && model.outcome == Outcome::Admitted;
            model.partition as usize == partition && (admitted || Some(*place) == asks)
        };
        for (place, model) in certificate.models.iter().enumerate().filter(there) {
            match model.service {
                Service::Guaranteed { .. } => {
                    let jitter = asks.and_then(|_| handover(certificate, place));
                    let task = Task::of(certificate, place, policy);
                    tasks.extend(task.map(|it| Task { jitter: jitter.unwrap_or(it.jitter), ..it }));
                }
                Service::Background => piece = piece.max(background(certificate, model)),
                Service::Server { .. } => return None,
            }
        }
        let longest = tasks.iter().map(Task::longest).max().unwrap_or(0).max(piece);
        let delays = certificate.overheads.look_ahead && policy != Policy::Fifo && tasks.len() > 1;
        let committed = if delays { longest } else { 0 };
        let floor = certificate.overheads.wake.0.max(piece);
        Some(Self { tasks, floor, committed, eager: false, policy })
    }

    fn blocking(&self, may_block: impl Fn(&Task) -> bool) -> u64 {
        let blocking = self.tasks.iter().filter(|task| may_block(task)).map(Task::longest);
        blocking.max().unwrap_or(0).max(self.floor)
    }

    fn held(&self, blocking: u64) -> Held {
        Held { blocking, committed: self.committed, eager: self.eager }
    }

    fn task(&self, model: u32) -> &Task {
        self.tasks.iter().find(|task| task.model == model).expect("it was asked about")
    }

    /// Under fixed priorities: the response of each job until the device is idle, on ticks.
    fn responses(&self, model: u32, end: u64) -> (Vec<u64>, u64) {
        let task = self.task(model);
        let level = self.tasks.iter().filter(|other| other.rank <= task.rank);
        let mut jobs: Vec<Job> = level
            .flat_map(|other| {
                let own = other.model == model;
                let jobs = other.jobs(end, |_| other.rank);
                jobs.into_iter().map(move |job| Job { own, ..job })
            })
            .collect();
        jobs.sort_by_key(|job| job.ready);
        let blocking = self.blocking(|other| other.rank > task.rank);
        let since = |(number, end): (u64, u64)| end + task.jitter - number * task.period;
        (run(jobs, self.held(blocking)).into_iter().map(since).collect(), blocking)
    }

    /// Under EDF: the response of the job of `model` that is due at `due`, on ticks, if it is not in a
    /// later busy period.
    fn response_due(&self, model: u32, due: u64) -> (Option<u64>, u64) {
        let task = self.task(model);
        let since = due - task.first_due();
        let mut jobs = Vec::new();
        for other in self.tasks.iter().filter(|other| other.model != model) {
            let due_by = other.jobs(due, |due| due).into_iter().filter(|job| job.urgency <= due);
            jobs.extend(due_by);
        }
        let earlier = (0..=since / task.period).map(|back| Job {
            ready: since - back * task.period,
            urgency: due - back * task.period,
            left: task.pieces.clone(),
            own: true,
            number: back,
        });
        jobs.extend(earlier);
        let blocking = self.blocking(|other| other.first_due() > due);
        let ends = run(jobs, self.held(blocking));
        let own = ends.into_iter().find(|(back, _)| *back == 0);
        (own.map(|(_, end)| end + task.jitter - since), blocking)
    }

    /// First in, first out: the response of the job of `model` that is ready at `ready`, on ticks.
    fn response_queued(&self, model: u32, ready: u64) -> Option<u64> {
        let task = self.task(model);
        let mut jobs = Vec::new();
        for other in self.tasks.iter().filter(|other| other.model != model) {
            let whole = |job: Job| Job { urgency: job.ready, ..job };
            jobs.extend(other.jobs(ready, |_| 0).into_iter().map(whole));
        }
        let earlier = (0..=ready / task.period).map(|back| Job {
            ready: ready - back * task.period,
            urgency: ready - back * task.period,
            left: task.pieces.clone(),
            own: true,
            number: back,
        });
        jobs.extend(earlier);
        let ends = run(jobs, self.held(self.floor));
        let own = ends.into_iter().find(|(back, _)| *back == 0);
        own.map(|(_, end)| end + task.jitter - ready)
    }

    /// Whether every job is one piece, and chosen when the device is free: otherwise a bound is sound, and
    /// need not be met.
    fn is_exact(&self) -> bool {
        !self.eager && self.tasks.iter().all(|task| task.pieces.len() == 1)
    }
}

/// What was asked for between a triggered model and its trigger.
fn handover(certificate: &Certificate, place: usize) -> Option<u64> {
    certificate.chains.iter().find_map(|chain| {
        let mut followers = chain.members.iter().skip(1).zip(&chain.handover);
        let own = followers.find(|(member, _)| **member as usize == place)?.1;
        Some(own.asked.0)
    })
}

fn background(certificate: &Certificate, model: &Model) -> u64 {
    let overheads = &certificate.overheads;
    let most =
        overheads.dispatch.0 + (overheads.boundary.0 + overheads.copy.0).max(2 * overheads.copy.0);
    let raw = model.stages.iter().map(|stage| stage.0).max().unwrap_or(0);
    let whole: u64 = pieces(certificate, model).iter().sum();
    if model.suspend { raw + most } else { whole.max(most + 1) }
}

/// How often the twin agreed, and how often it met a bound to the tick.
#[derive(Default)]
struct Tally {
    bounds: u32,
    met: u32,
    refusals: u32,
    steps: u32,
    /// Partitions that look ahead.
    ahead: u32,
}

fn compare(certificate: &Certificate, tally: &mut Tally) {
    for (index, partition) in certificate.partitions.iter().enumerate() {
        if let Some(mut twin) = Twin::of(certificate, index, None) {
            assert_eq!(twin.committed, partition.committed.0, "{:?}", twin.tasks);
            compare_bounds(&twin, partition, tally);
            // Under the policies that look ahead, and under first in, first out, whom it does not delay.
            twin.eager = certificate.overheads.look_ahead;
            if twin.eager {
                tally.ahead += 1;
                compare_bounds(&twin, partition, tally);
            }
        }
    }
    for (place, model) in certificate.models.iter().enumerate() {
        let Outcome::Refused(refusal) = &model.outcome else { continue };
        let twin = Twin::of(certificate, model.partition as usize, Some(place));
        if let Some(mut twin) = twin {
            refusal.raised.iter().for_each(|step| tally.steps += u32::from(raise(&mut twin, step)));
            tally.refusals += u32::from(refuted(&twin, &refusal.witness));
        }
    }
}

fn compare_bounds(twin: &Twin, partition: &Partition, tally: &mut Tally) {
    let mut note = |seen: Option<u64>, bound: u64, attains: bool, what: &str| {
        let Some(seen) = seen else { return };
        tally.bounds += 1;
        tally.met += u32::from(seen == bound);
        assert!(seen <= bound, "{what}: {seen} seen, {bound} promised, {:?}", twin.tasks);
        assert!(
            !attains || seen == bound,
            "{what}: {seen} seen, {bound} promised, {:?}",
            twin.tasks
        );
    };
    match &partition.proof {
        Proof::NpFixedPriority { bounds } => {
            for level in bounds {
                let (seen, blocking) = twin.responses(level.model, level.busy.0);
                let seen = seen.into_iter().max().map(|seen| seen + u64::from(blocking > 0));
                note(seen, level.response.0, twin.is_exact(), "level");
            }
        }
        Proof::NpEdf { horizon, bounds, .. } => {
            for bound in bounds {
                let task = twin.task(bound.model);
                let dues = twin.tasks.iter().flat_map(|other| {
                    let first = other.first_due();
                    (0..)
                        .map(move |job| first + job * other.period)
                        .take_while(|due| *due < horizon.0 + task.deadline)
                });
                for due in dues.filter(|due| *due >= task.first_due()).take(400) {
                    let (seen, blocking) = twin.response_due(bound.model, due);
                    let seen = seen.map(|seen| seen + u64::from(blocking > 0));
                    let worst = bound.worst.filter(|worst| worst.due.0 == due);
                    let attains = twin.is_exact() && worst.is_some();
                    note(seen, bound.response.0, attains, "due");
                }
            }
        }
        Proof::Fifo { end, bounds } => {
            for bound in bounds {
                let mut instants = vec![0, bound.ready.0];
                instants.extend((1..6).map(|job| job * twin.task(bound.model).period));
                for ready in instants.into_iter().filter(|ready| *ready < end.0) {
                    let seen = twin.response_queued(bound.model, ready);
                    let seen = seen.map(|seen| seen + u64::from(twin.floor > 0));
                    note(seen, bound.response.0, ready == bound.ready.0, "queue");
                }
            }
        }
    }
}

/// Makes a triggered model ready as late as a step says; whether the twin sees the job that it names
/// respond so late, which it must where the theorem is exact.
fn raise(twin: &mut Twin, step: &Raised) -> bool {
    let (seen, response) = match step.by {
        Witness::Response { model, job, response, .. } => {
            let end = response.0 + u64::from(job) * twin.task(model).period;
            let (seen, blocking) = twin.responses(model, end);
            (seen.get(job as usize).map(|seen| seen + u64::from(blocking > 0)), response.0)
        }
        Witness::Due { model, due, response, .. } => {
            let (seen, blocking) = twin.response_due(model, due.0);
            (seen.map(|seen| seen + u64::from(blocking > 0)), response.0)
        }
        Witness::Queue { model, ready, response } => {
            let seen = twin.response_queued(model, ready.0);
            (seen.map(|seen| seen + u64::from(twin.floor > 0)), response.0)
        }
        _ => panic!("{step:?} names no job"),
    };
    let agrees = seen == Some(response);
    assert!(agrees || !twin.is_exact(), "{step:?}: {seen:?} seen, {:?}", twin.tasks);
    let task = twin.tasks.iter_mut().find(|task| task.model == step.model).expect("it is there");
    assert!(step.jitter.0 > task.jitter, "{step:?} raises nothing");
    task.jitter = step.jitter.0;
    agrees
}

/// Whether the twin, too, sees somebody late; it must where the theorem is exact.
fn refuted(twin: &Twin, witness: &Witness) -> bool {
    match *witness {
        Witness::Response { model, job, response, .. } => {
            let task = twin.task(model);
            let end = response.0 + u64::from(job) * task.period;
            let (seen, blocking) = twin.responses(model, end);
            let late = seen.get(job as usize).map(|seen| seen + u64::from(blocking > 0));
            let is_late = late.is_some_and(|late| late > task.deadline);
            assert!(is_late || !twin.is_exact(), "{witness:?}: {late:?}, {:?}", twin.tasks);
            is_late
        }
        Witness::Demand { window, blocking, .. } => {
            let mut jobs = Vec::new();
            for task in &twin.tasks {
                let due_by = task.jobs(window.0, |due| due).into_iter();
                jobs.extend(
                    due_by
                        .filter(|job| job.urgency <= window.0)
                        .map(|job| Job { own: true, ..job }),
                );
            }
            let ends = run(jobs, twin.held(blocking.0));
            let last = ends.into_iter().map(|(_, end)| end).max().unwrap_or(0);
            let late = last + u64::from(blocking.0 > 0) > window.0;
            assert!(late, "{witness:?}: all done by {last}, {:?}", twin.tasks);
            late
        }
        Witness::Alone { model } => {
            let task = twin.task(model);
            assert!(task.jitter + task.pieces.iter().sum::<u64>() > task.deadline, "{witness:?}");
            true
        }
        Witness::Queue { model, ready, response } => {
            let seen = twin.response_queued(model, ready.0);
            let seen = seen.map(|seen| seen + u64::from(twin.floor > 0));
            assert_eq!(seen, Some(response.0), "{:?}", twin.tasks);
            assert!(twin.policy == Policy::Fifo && response.0 > twin.task(model).deadline);
            true
        }
        _ => false,
    }
}

#[test]
fn a_plain_device_is_never_later_than_certified_and_late_where_refused() {
    let mut tally = Tally::default();
    for (_, workload) in named().into_iter().chain(named_ahead()) {
        compare(&parsed(&certified(&workload).expect("a certificate")), &mut tally);
    }
    for seed in 10_000..10_400 {
        if let Ok(text) = certified(&random(&mut Dice::new(seed))) {
            compare(&parsed(&text), &mut tally);
        }
    }
    let Tally { bounds, met, refusals, steps, ahead } = tally;
    println!(
        "{bounds} responses within their bounds, {met} equal to them; {refusals} refusals seen, and \
         {steps} steps towards them; {ahead} devices looked ahead"
    );
    assert!(bounds > 1_000 && met > 900 && refusals > 250, "{bounds} {met} {refusals}");
    assert!(steps > 20 && ahead > 150, "{steps} {ahead}");
}

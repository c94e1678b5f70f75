//! The account of every job adds up, and says what the log says.

use aegis_sched::policy::PolicyKind;
use aegis_sched::replay::{
    Account, AccountError, Ending, Extent, Keeps, Piece, Replayed, Why, replay, replay_records,
};
use aegis_sched::sim::{Arrivals, Behaviour, Model, Seed, World, WorldConfig};
use aegis_trace::{EventKind, JobId, ModelId, Nanos, Record, Timestamp, Trace, TraceEvent};

use crate::worlds;

/// Every job that ended, with its account.
fn accounts(trace: &Trace, replayed: &Replayed) -> Vec<Account> {
    let ended = replayed.executors[0].timeline.jobs.iter().filter(|(_, job)| job.ending.is_some());
    let jobs: Vec<JobId> = ended.map(|(job, _)| *job).collect();
    // One in three: each costs an analysis.
    let some = jobs.into_iter().step_by(3);
    some.map(|job| replayed.account(trace, job).expect("it ended")).collect()
}

/// The copies of all stages of `job`.
fn logged_copies(trace: &Trace, job: JobId) -> Nanos {
    let copies = |record: &Record| match record.event {
        TraceEvent::StageCompleted { job: of, upload, download, .. } if of == job => {
            upload + download
        }
        _ => Nanos::ZERO,
    };
    trace.records.iter().map(copies).sum()
}

/// The response that the log has of a completed job.
fn logged_response(trace: &Trace, job: JobId) -> Option<(Nanos, Nanos)> {
    trace.records.iter().find_map(|record| match record.event {
        TraceEvent::Completed { job: completed, response, execution } if completed == job => {
            Some((response, execution))
        }
        _ => None,
    })
}

#[test]
fn the_terms_of_every_job_tile_its_response() {
    let (mut jobs, mut seen) = (0, std::collections::BTreeMap::new());
    for seed in 0..80 {
        let trace = worlds::hostile(seed);
        let replayed = replay(&trace, Extent::Whole).expect("a trace of ours");
        for account in accounts(&trace, &replayed) {
            let mut at = account.from;
            for term in &account.terms {
                assert_eq!(term.from, at, "seed {seed}, {}", account.job);
                assert!(term.to > term.from, "seed {seed}, {}", account.job);
                at = term.to;
                *seen.entry(name(term.what)).or_insert(0) += 1;
            }
            assert_eq!(at, account.to, "seed {seed}, {}", account.job);
            assert_eq!(account.sums().total(), account.response(), "seed {seed}, {}", account.job);
            if account.ending == Ending::Completed {
                let (response, execution) =
                    logged_response(&trace, account.job).expect("it completed");
                assert_eq!(account.response(), response, "seed {seed}, {}", account.job);
                assert_eq!(account.sums().execution, execution, "seed {seed}, {}", account.job);
                let copies = logged_copies(&trace, account.job);
                assert_eq!(account.sums().copies, copies, "seed {seed}, {}", account.job);
            }
            jobs += 1;
        }
    }
    assert!(jobs > 2_000, "{jobs}");
    for piece in [
        "not_submitted",
        "no_budget",
        "wake_up",
        "blocking",
        "interference",
        "earlier",
        "overhead",
        "upload",
        "execution",
        "download",
        "began",
        "went_on",
        "preferred",
        "foreground",
        "in_line",
    ] {
        assert!(seen.get(piece).copied().unwrap_or(0) > 10, "{piece}: {seen:?}");
    }
}

fn name(piece: Piece) -> &'static str {
    let held = match piece {
        Piece::NotSubmitted => return "not_submitted",
        Piece::NoBudget => return "no_budget",
        Piece::WakeUp => return "wake_up",
        Piece::Overhead(_) => return "overhead",
        Piece::LeftUpload { .. } => return "left_upload",
        Piece::Upload(_) => return "upload",
        Piece::Execution(_) => return "execution",
        Piece::Download(_) => return "download",
        Piece::Blocking(held) if held.why == Why::Began => return "blocking",
        Piece::Interference(held) if matches!(held.why, Why::Preferred(_)) => return "interference",
        Piece::Earlier(held) if held.why == Why::Began => return "earlier",
        Piece::Blocking(held) | Piece::Interference(held) | Piece::Earlier(held) => held,
    };
    match held.why {
        Why::Began => "began",
        Why::WentOn => "went_on",
        Why::Preferred(_) => "preferred",
        Why::Foreground => "foreground",
        Why::InLine => "in_line",
    }
}

/// In a run that keeps its assumptions, no job is blocked or interfered with for longer than its bound
/// allows, and blocking by admitted models is that of one stage.
#[test]
fn what_a_job_waits_for_is_within_its_bound() {
    let mut jobs = 0;
    for seed in 0..300 {
        let trace = worlds::hostile(seed);
        let replayed = replay(&trace, Extent::Whole).expect("a trace of ours");
        if !replayed.executors[0].timeline.broken.is_empty() {
            continue;
        }
        for account in accounts(&trace, &replayed) {
            let (Some(bound), Some(argument)) = (account.bound, &account.argument) else {
                continue;
            };
            if account.ending != Ending::Completed {
                continue;
            }
            assert!(account.response() <= bound, "seed {seed}, {}", account.job);
            assert!(account.broken.is_empty() && account.record.late == Nanos::ZERO);
            if let Some(case) = &argument.case {
                let parts = case.shares.iter().map(|share| share.work());
                let held_up = case.blocking.saturating_add(case.committed);
                let work = parts.fold(held_up, |sum, part| sum.saturating_add(part));
                assert_eq!(work, case.completion, "the bound adds up too");
            }
            jobs += 1;
        }
    }
    assert!(jobs > 1_000, "{jobs}");
}

#[test]
fn a_job_beyond_its_bound_names_the_broken_assumption() {
    let mut exceeded = 0;
    for seed in 0..300 {
        let trace = worlds::hostile(seed);
        let replayed = replay(&trace, Extent::Whole).expect("a trace of ours");
        let beyond = replayed.executors[0].timeline.jobs.iter();
        let beyond = beyond.filter(|(_, job)| matches!(job.exceeded, Some((_, Some(_)))));
        for (job, record) in beyond.step_by(5) {
            let account = replayed.account(&trace, *job).expect("it ended");
            let (_, cause) = record.exceeded.expect("it was filtered");
            let named = account.broken.iter().any(|broken| Some(broken.job) == cause);
            assert!(named, "seed {seed}, {job}: {:?}", account.broken);
            exceeded += 1;
        }
    }
    assert!(exceeded > 100, "{exceeded}");
}

/// What the log has of broken assumptions from where the device was idle last before `job` had it first,
/// or ended without, until it ended. Of a job with a bound: from its release to then it was never idle.
fn broken_meanwhile(trace: &Trace, job: JobId) -> Vec<(Timestamp, JobId, Nanos)> {
    let place = |is: &dyn Fn(&TraceEvent) -> bool| {
        trace.records.iter().position(|record| is(&record.event))
    };
    let ended = place(&|event| match event {
        TraceEvent::Completed { job: of, .. }
        | TraceEvent::Dropped { job: of, .. }
        | TraceEvent::Faulted { job: of, .. } => *of == job,
        _ => false,
    });
    let ended = ended.expect("it ended");
    let began =
        place(&|event| matches!(event, TraceEvent::Dispatched { job: of, .. } if *of == job));
    let before = &trace.records[..began.unwrap_or(ended).min(ended)];
    let idle = before.iter().rposition(|record| record.event == TraceEvent::Idle).unwrap_or(0);
    let broken = trace.records[idle..ended].iter().filter_map(|record| match record.event {
        TraceEvent::AssumptionBroken { job, observed, .. } => Some((record.at, job, observed)),
        _ => None,
    });
    broken.collect()
}

#[test]
fn what_was_broken_in_an_earlier_busy_period_is_not_told() {
    let (mut some, mut held_back) = (0, 0);
    for seed in 0..80 {
        let trace = worlds::hostile(seed);
        let [all, excerpts] = [Keeps::Timelines, Keeps::Counts]
            .map(|keeps| replay_records(&trace, Extent::Whole, keeps).expect("of ours"));
        for account in accounts(&trace, &all) {
            // A job of best effort may wait for others of its server, or in the background.
            if account.bound.is_none() {
                continue;
            }
            let told = |account: &Account| -> Vec<_> {
                account.broken.iter().map(|it| (it.at, it.job, it.observed)).collect()
            };
            let expected = broken_meanwhile(&trace, account.job);
            assert_eq!(told(&account), expected, "seed {seed}, {}", account.job);
            if !expected.is_empty() && some % 50 == 0 {
                let again = excerpts.account(&trace, account.job).expect("it ended");
                assert_eq!(told(&again), expected, "seed {seed}, {}", account.job);
            }
            some += usize::from(!expected.is_empty());
            held_back += usize::from(account.record.eligible > account.record.seen);
        }
    }
    assert!(some > 300 && held_back > 300, "{some}, {held_back}");
}

#[test]
fn there_is_no_account_of_what_is_not_there() {
    let trace = worlds::hostile(3);
    let replayed = replay(&trace, Extent::Whole).expect("a trace of ours");
    let job = JobId { model: ModelId::first(0), sequence: 1 << 40 };
    assert!(matches!(replayed.account(&trace, job), Err(AccountError::NoSuchJob { .. })));
    let error = replayed.worst(&trace, "nobody").expect_err("no such model");
    assert!(error.to_string().contains("called `nobody`"), "{error}");
    let name = &replayed.executors[0].models.values().next().expect("one at least").name;
    let longest = replayed.worst(&trace, name).expect("it completed jobs").response();
    for account in accounts(&trace, &replayed) {
        if account.name == *name && account.ending == Ending::Completed {
            assert!(account.response() <= longest);
        }
    }
}

fn at(offset: Nanos, priority: u32, model: Model) -> Model {
    let behaviour = Behaviour { arrivals: Arrivals::Periodic { offset }, ..model.behaviour };
    Model { priority, behaviour, ..model }
}

/// The account of the first job of `model`, from everything and from an excerpt.
fn first_of(world: &World, model: ModelId) -> [Account; 2] {
    let job = JobId { model, sequence: 0 };
    [Keeps::Timelines, Keeps::Counts].map(|keeps| {
        let replayed = replay_records(world.trace(), Extent::Whole, keeps).expect("of ours");
        assert_eq!(replayed.divergence, None);
        replayed.account(world.trace(), job).expect("it ended")
    })
}

/// What the log has at one point in time of jobs that end and of bounds that change.
fn order(world: &World, when: Timestamp) -> Vec<EventKind> {
    let of_interest = [EventKind::Completed, EventKind::BoundChanged];
    let then = world.trace().records.iter().filter(|record| record.at == when);
    then.map(|record| record.event.kind()).filter(|kind| of_interest.contains(kind)).collect()
}

/// The other, less urgent, has the device until 30; the camera's job comes at 1 and ends at 40, where the
/// other leaves.
#[test]
fn a_job_that_ends_just_before_its_bound_changes_was_promised_the_one_before() {
    let mut world =
        World::new(WorldConfig { policy: PolicyKind::Priority, ..WorldConfig::new(Seed(3)) });
    let camera = at(Nanos(1), 0, Model::periodic("camera", Nanos(10), Nanos(1_000)));
    let camera = world.admit(camera).expect("1 %");
    let other = at(Nanos(0), 1, Model::periodic("other", Nanos(30), Nanos(1_000)));
    let other = world.admit(other).expect("3 %");
    world.run_for(Nanos(40));
    world.evict(other);
    world.run_for(Nanos(10));
    let end = Timestamp(40);
    assert_eq!(order(&world, end), [EventKind::Completed, EventKind::BoundChanged]);
    for account in first_of(&world, camera) {
        assert_eq!((account.to, account.response()), (end, Nanos(39)));
        assert_eq!(account.bound, Some(Nanos(40)));
        let argument = account.argument.expect("fixed priorities have one");
        assert_eq!(argument.response.bound(), Some(Nanos(40)), "with the other in the set");
    }
}

/// The camera's job ends at 10, which is noticed when the other has been admitted then.
fn admitted_at_the_end() -> (World, ModelId) {
    let mut world =
        World::new(WorldConfig { policy: PolicyKind::Priority, ..WorldConfig::new(Seed(3)) });
    let camera = at(Nanos(0), 0, Model::periodic("camera", Nanos(10), Nanos(1_000)));
    let camera = world.admit(camera).expect("1 %");
    world.run_for(Nanos(10));
    let other = at(Nanos(500), 1, Model::periodic("other", Nanos(30), Nanos(1_000)));
    world.admit(other).expect("3 %");
    world.run_for(Nanos(10));
    (world, camera)
}

#[test]
fn a_job_that_ends_just_after_its_bound_changed_was_promised_the_new_one() {
    let (world, camera) = admitted_at_the_end();
    let end = Timestamp(10);
    assert_eq!(order(&world, end), [EventKind::BoundChanged, EventKind::Completed]);
    for account in first_of(&world, camera) {
        assert_eq!((account.to, account.response()), (end, Nanos(10)));
        assert_eq!(account.bound, Some(Nanos(40)));
        assert_eq!(account.argument.expect("there is one").response.bound(), Some(Nanos(40)));
    }
}

/// Admission has answered, and the executor is told of it only after the job ended.
#[test]
fn a_job_that_ends_between_an_admission_and_what_that_changes_was_promised_what_was_told() {
    let (world, camera) = admitted_at_the_end();
    let mut trace = world.trace().clone();
    let told = trace.records.iter().position(|it| it.event.kind() == EventKind::BoundChanged);
    let told = trace.records.remove(told.expect("a bound changes"));
    let behind = trace.records.iter().rposition(|record| record.at == told.at);
    trace.records.insert(behind.expect("the end of the job") + 1, told);
    let replayed = replay(&trace, Extent::Whole).expect("of ours, but for the order");
    assert_eq!(replayed.divergence, None);
    let account = replayed.account(&trace, JobId { model: camera, sequence: 0 });
    let account = account.expect("it ended");
    assert_eq!(account.bound, Some(Nanos(10)));
    let argument = account.argument.expect("there is one");
    assert_eq!(argument.response.bound(), Some(Nanos(10)), "without the other in the set");
}

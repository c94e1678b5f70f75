//! After an overrun: what is skipped, stopped and repaid, and when guarantees hold again.

use std::collections::BTreeMap;

use aegis_cuda::SimFault;
use aegis_sched::dispatch::OverrunPolicy;
use aegis_sched::policy::PolicyKind;
use aegis_sched::sim::{
    Arrivals, Behaviour, Costs, Model, ModelService, Random, Seed, World, WorldConfig,
};
use aegis_sched::task::Overheads;
use aegis_trace::{
    Assumption, DropReason, EventKind, JobId, ModelId, Nanos, Query, Reason, Record, StageIndex,
    Timestamp, Trace, TraceEvent,
};

const POLICIES: [PolicyKind; 4] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Edf, PolicyKind::Priority];

fn us(n: u64) -> Nanos {
    Nanos::from_micros(n)
}

fn world(overrun: OverrunPolicy) -> World {
    World::new(WorldConfig { overrun, ..WorldConfig::new(Seed(7)) })
}

/// A model whose first stage takes `extra` more at its `at`-th launch.
fn rogue(stages: &[Nanos], period: Nanos, at: u64, extra: Nanos) -> Model {
    let mut model = Model::periodic("rogue", Nanos(1), period);
    model.stages = stages.to_vec();
    model.behaviour.faults.push((StageIndex(0), at, SimFault::Overrun { extra }));
    model
}

fn events(trace: &Trace, kind: EventKind) -> Vec<TraceEvent> {
    let query = Query { kinds: vec![kind], ..Query::default() };
    trace.query(&query).map(|record| record.event.clone()).collect()
}

fn job(model: ModelId, sequence: u64) -> JobId {
    JobId { model, sequence }
}

/// When and which stage of `model` was launched.
fn launches(trace: &Trace, model: ModelId) -> Vec<(u64, u64, u16)> {
    let launch = |record: &Record| match record.event {
        TraceEvent::Dispatched { job, stage, .. } if job.model == model => {
            Some((record.at.0, job.sequence, stage.0))
        }
        _ => None,
    };
    trace.records.iter().filter_map(launch).collect()
}

/// A camera of 4 ms every 10 ms, and a rogue of 3 ms every 100 ms whose third job takes 20 ms more.
fn disturbed(overrun: OverrunPolicy) -> (World, ModelId, ModelId) {
    let mut world = world(overrun);
    let rogue = world.admit(rogue(&[us(3_000)], us(100_000), 2, us(20_000))).expect("3 %");
    let camera = world.admit(Model::periodic("camera", us(4_000), us(10_000))).expect("40 %");
    world.run_for(us(1_000_000));
    (world, rogue, camera)
}

#[test]
fn jobs_that_cannot_finish_are_skipped_before_they_begin() {
    let (recorded, rogue, camera) = disturbed(OverrunPolicy::Record);
    let (contained, ..) = disturbed(OverrunPolicy::Contain);
    // The rogue runs from 204 ms to 227 ms. The camera's jobs of 210 ms and 220 ms, due at 220 ms and
    // 230 ms, cannot be on time any more.
    assert!(recorded.trace().misses(camera) >= 2);
    assert!(events(recorded.trace(), EventKind::Dropped).is_empty());
    assert_eq!(contained.trace().misses(camera), 0, "late results are worth nothing here");
    let skipped = |sequence| TraceEvent::Dropped {
        job: job(camera, sequence),
        why: DropReason::CannotFinish,
    };
    assert_eq!(events(contained.trace(), EventKind::Dropped), [skipped(21), skipped(22)]);
    let counts = contained.metrics(camera).expect("known").counts;
    assert_eq!((counts.skipped, counts.dropped, counts.missed), (2, 2, 0));
    let late: u64 = recorded.metrics(camera).expect("known").counts.bound_excused;
    assert!(late > counts.bound_excused, "{late} > {}: fewer are late", counts.bound_excused);
    assert_eq!(contained.metrics(rogue).expect("known").counts.restored, 1);
}

#[test]
fn the_end_of_a_tainted_busy_period_is_said_once_and_everything_holds_after_it() {
    for overrun in [OverrunPolicy::Record, OverrunPolicy::Contain] {
        let (world, rogue, _) = disturbed(overrun);
        let trace = world.trace();
        let restored = TraceEvent::GuaranteesRestored { since: job(rogue, 2) };
        assert_eq!(events(trace, EventKind::GuaranteesRestored), std::slice::from_ref(&restored));
        let at = trace.records.iter().position(|record| record.event == restored).expect("there");
        let broken = |record: &Record| record.event.kind() == EventKind::AssumptionBroken;
        assert_eq!(trace.records.iter().position(broken).map(|broken| broken < at), Some(true));
        let touched = |record: &Record| {
            matches!(record.event.kind(), EventKind::BoundExceeded | EventKind::MissedDeadline)
        };
        assert!(!trace.records[at..].iter().any(touched), "{overrun:?}");
        // It is said at the very end of the busy period.
        let idle = trace.records[..at].last().expect("not the first record");
        assert_eq!(idle.event, TraceEvent::Idle);
        assert_eq!(idle.at, trace.records[at].at);
    }
}

#[test]
fn a_job_over_its_charge_is_stopped_between_stages() {
    let stages = [us(1_000); 4];
    let run = |overrun| {
        let mut world = world(overrun);
        let rogue = world.admit(rogue(&stages, us(50_000), 1, us(2_500))).expect("8 %");
        world.run_for(us(200_000));
        (launches(world.trace(), rogue), world, rogue)
    };
    let (launched, world, rogue) = run(OverrunPolicy::Contain);
    let of_second: Vec<u16> =
        launched.iter().filter(|(_, job, _)| *job == 1).map(|(_, _, stage)| *stage).collect();
    assert_eq!(of_second, [0], "the stage that took too long is the last one");
    let dropped = TraceEvent::Dropped { job: job(rogue, 1), why: DropReason::Overrun };
    assert_eq!(events(world.trace(), EventKind::Dropped), [dropped]);
    let counts = world.metrics(rogue).expect("known").counts;
    assert_eq!((counts.cut_short, counts.dropped, counts.completed), (1, 1, 3));
    let (launched, world, _) = run(OverrunPolicy::Record);
    assert_eq!(launched.len(), 16, "without containment all stages of all four jobs run");
    assert!(events(world.trace(), EventKind::Dropped).is_empty());
}

#[test]
fn what_earlier_stages_left_over_is_no_excess() {
    // The first stage takes anything up to 3 ms, the second always 1 us more than its cost of the
    // moment. Where the first left more over than that, the job's budget is not used up.
    let mut world = world(OverrunPolicy::Contain);
    let mut model = rogue(&[us(3_000), us(1_000), us(1_000)], us(50_000), 99, Nanos(1));
    model.behaviour.costs = Costs::UpTo;
    let fault = SimFault::Overrun { extra: us(1) };
    model.behaviour.faults = (0..100).map(|at| (StageIndex(1), at, fault)).collect();
    let model = world.admit(model).expect("10 %");
    world.run_for(us(5_000_000));
    let counts = world.metrics(model).expect("known").counts;
    assert!(counts.broken.execution_time > 0, "{counts:?}");
    assert!(counts.completed > 40, "{counts:?}");
    assert!(counts.cut_short > 0, "{counts:?}");
}

#[test]
fn a_debt_puts_off_the_next_release_by_the_time_its_share_needs() {
    let mut world = world(OverrunPolicy::Contain);
    // U = 1/10, so an excess of 7 ms costs 70 ms.
    let rogue = world.admit(rogue(&[us(2_000)], us(20_000), 1, us(7_000))).expect("10 %");
    world.run_for(us(200_000));
    let starts: Vec<u64> =
        launches(world.trace(), rogue).iter().map(|(at, ..)| *at / 1_000).collect();
    // The job of 40 ms was submitted then, and released at 20 + 20 + 70 = 110 ms.
    assert_eq!(starts[..4], [0, 20_000, 110_000, 130_000]);
    let debt =
        TraceEvent::DebtIncurred { job: job(rogue, 1), excess: us(7_000), postponed: us(70_000) };
    assert_eq!(events(world.trace(), EventKind::DebtIncurred), [debt]);
    let counts = world.metrics(rogue).expect("known").counts;
    assert_eq!((counts.debts, counts.missed, counts.dropped), (1, 0, 0));
}

#[test]
fn a_job_accepted_before_the_debt_is_released_after_it() {
    let mut world = world(OverrunPolicy::Contain);
    let mut rogue = rogue(&[us(2_000)], us(20_000), 0, us(9_000));
    // Submitted every few milliseconds, so the regulator holds the next ones back when the first
    // overruns.
    rogue.behaviour.arrivals = Arrivals::TooEarly;
    rogue.period = us(20_000);
    let rogue = world.admit(rogue).expect("10 %");
    world.run_for(us(400_000));
    let moved = events(world.trace(), EventKind::Postponed);
    let counts = world.metrics(rogue).expect("known").counts;
    assert!(!moved.is_empty());
    assert_eq!(counts.postponed, moved.len() as u64);
    let TraceEvent::Postponed { job: first, release, deadline } = moved[0] else { panic!() };
    assert_eq!((first, release), (job(rogue, 1), Timestamp(110_000_000)));
    assert_eq!(deadline, Timestamp(130_000_000));
    let starts: Vec<u64> = launches(world.trace(), rogue).iter().map(|(at, ..)| *at).collect();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 20_000_000), "{starts:?}");
    assert_eq!(starts[1], 110_000_000);
}

#[test]
fn a_model_that_always_overruns_gets_its_share_and_no_more() {
    for overrun in [OverrunPolicy::Record, OverrunPolicy::Contain] {
        let mut world = world(overrun);
        let mut rogue = rogue(&[us(2_000)], us(20_000), u64::MAX, us(1));
        rogue.behaviour.costs = Costs::Beyond { extra: us(3_000) };
        let rogue = world.admit(rogue).expect("10 %");
        world.run_for(us(10_000_000));
        let executed = |record: &Record| match record.event {
            TraceEvent::StageCompleted { job, started, finished, .. } if job.model == rogue => {
                finished - started
            }
            _ => Nanos::ZERO,
        };
        let used: Nanos = world.trace().records.iter().map(executed).sum();
        // A tenth of 10 s, and the job under way.
        let share = us(1_000_000) + us(5_000);
        assert_eq!(used <= share, overrun == OverrunPolicy::Contain, "{overrun:?}: {used}");
    }
}

#[test]
fn a_server_repays_with_its_next_refill_and_the_background_loses_the_rest_of_its_job() {
    let mut world = world(OverrunPolicy::Contain);
    let mut planner = rogue(&[us(1_000)], us(1_000), 1, us(500));
    planner.service = ModelService::Server { budget: us(2_000), period: us(10_000) };
    let planner = world.admit(planner).expect("20 %");
    let mut logger = rogue(&[us(500), us(500)], us(7_000), 3, us(100));
    logger.service = ModelService::Background;
    let logger = world.admit(logger).expect("nobody has a deadline");
    world.run_for(us(60_000));
    // The second job takes 1.5 ms: 0.5 ms more, which a share of one fifth makes up for in 2.5 ms.
    let starts: Vec<u64> =
        launches(world.trace(), planner).iter().map(|(at, ..)| *at / 1_000).collect();
    assert_eq!(starts[..5], [0, 1_000, 12_500, 13_500, 22_500]);
    let debt =
        TraceEvent::DebtIncurred { job: job(planner, 1), excess: us(500), postponed: us(2_500) };
    assert_eq!(events(world.trace(), EventKind::DebtIncurred), [debt], "the background has none");
    let stopped = TraceEvent::Dropped { job: job(logger, 3), why: DropReason::Overrun };
    assert_eq!(events(world.trace(), EventKind::Dropped), [stopped]);
}

#[test]
fn an_overrun_in_the_background_that_met_nobody_is_over_at_once() {
    // Nobody arrives while the first stage takes too long, so the busy period ends with it, although
    // the same job goes on.
    let mut world = world(OverrunPolicy::Record);
    let mut logger = rogue(&[us(500), us(500)], us(7_000), 1, us(100));
    logger.service = ModelService::Background;
    let logger = world.admit(logger).expect("nobody has a deadline");
    world.run_for(us(12_000));
    let kinds: Vec<EventKind> = world
        .trace()
        .records
        .iter()
        .filter(|record| record.at == Timestamp(7_600_000))
        .map(|record| record.event.kind())
        .collect();
    let expected = [
        EventKind::StageCompleted,
        EventKind::AssumptionBroken,
        EventKind::Idle,
        EventKind::GuaranteesRestored,
        EventKind::Dispatched,
    ];
    assert_eq!(kinds, expected);
    let launched: Vec<u16> =
        launches(world.trace(), logger).iter().map(|(_, _, stage)| *stage).collect();
    assert_eq!(launched, [0, 1, 0, 1]);
}

/// A world in which some model takes too long now and then, beside the background and a server.
fn hostile(seed: u64, overrun: OverrunPolicy) -> World {
    let mut random = Random::new(Seed(seed ^ 0x0eef));
    let policy = POLICIES[usize::try_from(random.up_to(3)).expect("four policies")];
    let overheads = Overheads {
        dispatch: Nanos(random.up_to(20)),
        wake: Nanos(random.up_to(40)),
        ..Overheads::NONE
    };
    let mut world = World::new(WorldConfig {
        policy,
        charged: overheads,
        real: overheads,
        overrun,
        ..WorldConfig::new(Seed(random.bits()))
    });
    for n in 0..random.between(2, 5) {
        let period = random.between(300, 4_000);
        let mut model = Model::periodic(&format!("model{n}"), Nanos(1), Nanos(period));
        let stages = random.between(1, 3);
        let stage = |random: &mut Random| Nanos(random.between(1, period / 20 + 1));
        model.stages = (0..stages).map(|_| stage(&mut random)).collect();
        model.priority = u32::try_from(n).expect("small");
        let costs = model.stages.clone();
        let late = |random: &mut Random| {
            let stage = random.up_to(stages - 1);
            // Not so long that it counts as hanging, which is something else.
            let most = costs[usize::try_from(stage).expect("few")] * 50;
            let extra = Nanos(random.between(1, most.0.min(period)));
            let stage = StageIndex(u16::try_from(stage).expect("few"));
            (stage, random.up_to(15), SimFault::Overrun { extra })
        };
        let faults = (0..random.up_to(3)).map(|_| late(&mut random)).collect();
        let arrivals = match random.up_to(2) {
            0 => Arrivals::Sporadic,
            1 => Arrivals::TooEarly,
            _ => Arrivals::AfterLaunch,
        };
        model.behaviour = Behaviour { arrivals, costs: Costs::UpTo, faults };
        drop(world.admit(model));
    }
    let mut logger = Model::periodic("logger", Nanos(20), Nanos(50));
    logger.service = ModelService::Background;
    drop(world.admit(logger));
    let mut planner = Model::periodic("planner", Nanos(20), Nanos(90));
    planner.service = ModelService::Server { budget: Nanos(100), period: Nanos(1_000) };
    drop(world.admit(planner));
    world.run_for(Nanos(60_000));
    world
}

/// What a reader of the trace can work out alone: the charge of each stage, and which job first
/// exceeded one in the present busy period.
#[derive(Default)]
struct Reader {
    charges: BTreeMap<ModelId, Vec<Nanos>>,
    launched: Option<Timestamp>,
    taint: Option<JobId>,
}

impl Reader {
    fn read(&mut self, Record { at, event, .. }: &Record) {
        match event {
            TraceEvent::Admitted { model, what } => {
                let charge = |cost: &Nanos| *cost + what.overhead;
                self.charges.insert(*model, what.stages.iter().map(charge).collect());
            }
            TraceEvent::Dispatched { .. } => self.launched = Some(*at),
            TraceEvent::StageCompleted { job, stage, .. } => {
                let service = *at - self.launched.take().expect("launched before it ended");
                if service > self.charges[&job.model][usize::from(stage.0)] {
                    self.taint.get_or_insert(*job);
                }
            }
            TraceEvent::Idle => assert_eq!(self.launched, None, "a stage is on the device"),
            _ => {}
        }
    }
}

#[test]
fn between_the_taint_and_the_restoration_lies_all_that_an_overrun_touches() {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..600 {
        let world = hostile(seed, OverrunPolicy::Contain);
        let mut reader = Reader::default();
        for record in &world.trace().records {
            let place = || format!("seed {seed} at {}: {:?}", record.at, record.event);
            reader.read(record);
            let counted = match &record.event {
                TraceEvent::AssumptionBroken { assumption, .. } => {
                    assert_eq!(*assumption, Assumption::ExecutionTime, "{}", place());
                    "broken"
                }
                TraceEvent::BoundExceeded { cause, .. } => {
                    assert!(cause.is_some() && *cause == reader.taint, "{}", place());
                    "touched"
                }
                TraceEvent::MissedDeadline { .. } => {
                    assert!(reader.taint.is_some(), "{}", place());
                    "missed"
                }
                TraceEvent::Dropped { why: DropReason::CannotFinish, .. } => {
                    assert!(reader.taint.is_some(), "{}", place());
                    "skipped"
                }
                TraceEvent::Dropped { why: DropReason::Overrun, .. } => "cut short",
                TraceEvent::Dropped { .. } | TraceEvent::Faulted { .. } => panic!("{}", place()),
                TraceEvent::DebtIncurred { excess, postponed, .. } => {
                    assert!(postponed >= excess, "{}: no share is more than the device", place());
                    "debts"
                }
                TraceEvent::Postponed { .. } => "postponed",
                TraceEvent::GuaranteesRestored { since } => {
                    assert_eq!(reader.taint.take(), Some(*since), "{}", place());
                    "restored"
                }
                TraceEvent::Dispatched { why: Reason::Background, .. } => {
                    assert_eq!(reader.taint, None, "{}: the background gives way first", place());
                    "in background"
                }
                _ => continue,
            };
            *counts.entry(counted).or_default() += 1;
        }
    }
    for (what, least) in [
        ("broken", 1_000),
        ("touched", 50),
        ("skipped", 50),
        ("cut short", 100),
        ("debts", 500),
        ("postponed", 50),
        ("restored", 500),
        ("in background", 10_000),
    ] {
        assert!(counts.get(what).is_some_and(|count| *count >= least), "{what}: {counts:?}");
    }
}

#[test]
fn containment_changes_nothing_while_nothing_is_broken() {
    let run = |seed: u64, overrun| {
        let mut random = Random::new(Seed(seed));
        let policy = POLICIES[usize::try_from(random.up_to(3)).expect("four policies")];
        let config = WorldConfig { policy, overrun, ..WorldConfig::new(Seed(random.bits())) };
        let mut world = World::new(config);
        for n in 0..random.between(2, 6) {
            let period = random.between(100, 3_000);
            let cost = Nanos(random.between(1, period / 8 + 1));
            let mut model = Model::periodic(&format!("model{n}"), cost, Nanos(period));
            model.stages.push(Nanos(random.between(1, period / 20 + 1)));
            model.behaviour.arrivals = Arrivals::AfterLaunch;
            model.behaviour.costs = Costs::UpTo;
            drop(world.admit(model));
        }
        world.run_for(Nanos(40_000));
        world.trace().clone()
    };
    for seed in 0..200 {
        let recorded = run(seed, OverrunPolicy::Record);
        assert!(events(&recorded, EventKind::AssumptionBroken).is_empty(), "seed {seed}");
        let contained = run(seed, OverrunPolicy::Contain);
        // Only what the worlds say of their configuration differs.
        let ([first, recorded @ ..], [other, contained @ ..]) =
            (&recorded.records[..], &contained.records[..])
        else {
            panic!("seed {seed}: an empty trace")
        };
        assert_eq!(first.event.kind(), EventKind::Configured);
        assert_ne!(first, other);
        assert!(recorded == contained, "seed {seed}");
    }
}

#[test]
fn the_same_seed_twice_gives_byte_equal_traces() {
    for seed in 0..60 {
        let bytes = || {
            let world = hostile(seed, OverrunPolicy::Contain);
            let mut writer = aegis_trace::export::json::Writer::new(Vec::new()).expect("memory");
            writer.write(&world.trace().records).expect("memory");
            writer.finish(world.trace().dropped).expect("memory")
        };
        assert_eq!(bytes(), bytes(), "seed {seed}");
    }
}

//! What admission promises, the simulator cannot break: shipped code, hostile arrivals.

use aegis_sched::policy::PolicyKind;
use aegis_sched::sim::{
    Arrivals, Behaviour, Costs, Model, ModelService, Random, Seed, World, WorldConfig,
};
use aegis_sched::task::Overheads;
use aegis_trace::{Bytes, EventKind, Nanos, Query, Trace, TraceEvent};

const POLICIES: [PolicyKind; 4] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Edf, PolicyKind::Priority];

/// A world, its models and how long to run it, all from one seed.
struct Case {
    config: WorldConfig,
    models: Vec<Model>,
    length: Nanos,
}

fn case(seed: u64) -> Case {
    let mut random = Random::new(Seed(seed));
    let overheads = match random.up_to(2) {
        0 => Overheads::default(),
        _ => Overheads {
            dispatch: Nanos(random.up_to(30)),
            wake: Nanos(random.up_to(60)),
            boundary: Nanos(random.up_to(20)),
            copy: Nanos(random.up_to(10)),
            ..Overheads::NONE
        },
    };
    let policy = POLICIES[usize::try_from(random.up_to(3)).expect("four policies")];
    let config = WorldConfig {
        policy,
        charged: overheads,
        real: overheads,
        ..WorldConfig::new(Seed(random.bits()))
    };
    let count = random.between(2, 7);
    let models: Vec<Model> = (0..count).map(|n| model(n, &mut random)).collect();
    let longest = models.iter().map(|model| model.period).max().expect("two models at least");
    Case { config, models, length: longest * 12 }
}

fn model(n: u64, random: &mut Random) -> Model {
    let period = random.between(50, 4_000);
    let stages = random.between(1, 3);
    let share = random.between(period / 40 + 1, period / 4 + 1);
    let stage = |random: &mut Random| Nanos(random.between(1, share.div_ceil(stages)));
    let stages = (0..stages).map(|_| stage(random)).collect();
    let deadline = match random.up_to(3) {
        0 => random.between(period / 2, period),
        1 => random.between(period, period * 3),
        _ => period,
    };
    let (arrivals, jitter) = match random.up_to(5) {
        0 => (Arrivals::Periodic { offset: Nanos(random.up_to(period)) }, 0),
        1 => (Arrivals::Sporadic, 0),
        2 => (Arrivals::Jittered, random.up_to(period / 4)),
        _ => (Arrivals::AfterLaunch, 0),
    };
    Model {
        name: format!("model{n}"),
        service: ModelService::Guaranteed,
        period: Nanos(period),
        deadline: Nanos(deadline),
        jitter: Nanos(jitter),
        priority: u32::try_from(random.up_to(4)).expect("small"),
        stages,
        may_be_suspended: true,
        persistent: Bytes::from_kib(4),
        scratch: Bytes::from_kib(random.up_to(16)),
        carried: Bytes::ZERO,
        behaviour: Behaviour {
            arrivals,
            costs: if random.once_in(2) { Costs::Full } else { Costs::UpTo },
            faults: Vec::new(),
        },
    }
}

/// Admits what the shipped admission accepts, runs, and gives back the world and how many it took.
fn run(case: &Case) -> (World, usize) {
    let mut world = World::new(case.config);
    let admitted = case.models.iter().filter(|model| world.admit((*model).clone()).is_ok()).count();
    world.run_for(case.length);
    (world, admitted)
}

fn of_kind(trace: &Trace, kind: EventKind) -> Vec<TraceEvent> {
    let query = Query { kinds: vec![kind], ..Query::default() };
    trace.query(&query).map(|record| record.event.clone()).collect()
}

#[test]
fn no_admitted_model_ever_misses_or_exceeds_its_bound() {
    let (mut admitted_in_all, mut jobs, mut refused, mut preempted) = (0, 0, 0, 0);
    for seed in 0..3_000 {
        let case = case(seed);
        let (world, admitted) = run(&case);
        let trace = world.trace();
        let none = |kind| {
            let found = of_kind(trace, kind);
            assert!(found.is_empty(), "seed {seed}, {:?}: {found:?}", case.config);
        };
        none(EventKind::MissedDeadline);
        none(EventKind::BoundExceeded);
        none(EventKind::AssumptionBroken);
        none(EventKind::Faulted);
        none(EventKind::Dropped);
        assert_eq!(trace.dropped, 0, "seed {seed}");
        admitted_in_all += admitted;
        refused += case.models.len() - admitted;
        jobs += of_kind(trace, EventKind::Completed).len();
        preempted += of_kind(trace, EventKind::Suspended).len();
    }
    // The worlds must be worth running: many jobs, many admissions, and refusals too.
    assert!(admitted_in_all > 8_000, "{admitted_in_all}");
    assert!(refused > 800, "{refused}");
    assert!(jobs > 200_000, "{jobs}");
    assert!(preempted > 1_000, "{preempted}");
}

/// The same case with models that are never suspended among the others.
fn partly_whole(seed: u64) -> Case {
    let mut random = Random::new(Seed(seed ^ 0x5eed));
    let mut case = case(seed);
    for model in &mut case.models {
        model.may_be_suspended = random.once_in(2);
    }
    case
}

#[test]
fn a_model_that_is_never_suspended_is_not_and_no_bound_of_any_is_exceeded() {
    let (mut whole_jobs, mut preempted, mut boundaries) = (0, 0, 0);
    for seed in 0..1_500 {
        let case = partly_whole(seed);
        let (mut world, mut whole) = (World::new(case.config), Vec::new());
        for model in &case.models {
            if let Ok(id) = world.admit(model.clone())
                && !model.may_be_suspended
            {
                whole.push(id);
            }
        }
        world.run_for(case.length);
        for kind in [
            EventKind::MissedDeadline,
            EventKind::BoundExceeded,
            EventKind::AssumptionBroken,
            EventKind::Faulted,
            EventKind::Dropped,
        ] {
            let found = of_kind(world.trace(), kind);
            assert!(found.is_empty(), "seed {seed}, {:?}: {found:?}", case.config);
        }
        for event in of_kind(world.trace(), EventKind::Suspended) {
            let TraceEvent::Suspended { job, .. } = event else { unreachable!("of this kind") };
            assert!(!whole.contains(&job.model), "seed {seed}: {job} was suspended");
            preempted += 1;
        }
        let (jobs, inner) = unbroken(world.trace(), &whole, seed);
        whole_jobs += jobs;
        boundaries += inner;
    }
    assert!(whole_jobs > 30_000, "{whole_jobs}");
    assert!(boundaries > 20_000, "{boundaries}");
    assert!(preempted > 200, "{preempted}");
}

/// How many jobs of `whole` models began, and how many later stages they had, each of which must
/// be what is dispatched next after the stage before it.
fn unbroken(trace: &Trace, whole: &[aegis_trace::ModelId], seed: u64) -> (usize, usize) {
    let dispatched = of_kind(trace, EventKind::Dispatched);
    let launches = dispatched.iter().map(|event| match event {
        TraceEvent::Dispatched { job, stage, .. } => (*job, stage.0),
        other => unreachable!("{other:?} is not of this kind"),
    });
    let launches: Vec<_> = launches.collect();
    let later = |pair: &&[(aegis_trace::JobId, u16)]| pair[1].1 > 0;
    let mut inner = 0;
    for pair in launches.windows(2).filter(later) {
        let ((before, stage), (job, next)) = (pair[0], pair[1]);
        if whole.contains(&job.model) {
            assert_eq!((before, stage + 1), (job, next), "seed {seed}: somebody ran in between");
            inner += 1;
        }
    }
    let begins =
        |(job, stage): &&(aegis_trace::JobId, u16)| *stage == 0 && whole.contains(&job.model);
    (launches.iter().filter(begins).count(), inner)
}

#[test]
fn waking_up_and_an_arrival_at_its_very_end_stay_within_the_bound() {
    // A job of HH arrives exactly when the orchestrator has woken up for the jobs before it.
    for seed in 0..200 {
        let wake = Overheads { dispatch: Nanos::ZERO, wake: Nanos(5), ..Overheads::NONE };
        let config = WorldConfig {
            policy: PolicyKind::Rms,
            charged: wake,
            real: wake,
            ..WorldConfig::new(Seed(seed))
        };
        let mut world = World::new(config);
        world.admit(Model::periodic("hh", Nanos(2), Nanos(7))).expect("admitted");
        let mut h = Model::periodic("h", Nanos(3), Nanos(98));
        h.deadline = Nanos(10);
        if world.admit(h).is_ok() {
            world.run_for(Nanos(5_000));
            assert!(of_kind(world.trace(), EventKind::MissedDeadline).is_empty(), "seed {seed}");
            assert!(of_kind(world.trace(), EventKind::BoundExceeded).is_empty(), "seed {seed}");
            assert!(of_kind(world.trace(), EventKind::AssumptionBroken).is_empty(), "seed {seed}");
        }
    }
}

#[test]
fn callers_that_come_too_early_and_models_that_come_and_go_break_nothing() {
    for seed in 0..600 {
        let case = case(seed);
        let mut random = Random::new(Seed(seed ^ 0xa5a5));
        let mut world = World::new(case.config);
        let mut admitted = Vec::new();
        for model in &case.models {
            let mut model = model.clone();
            if random.once_in(3) {
                model.behaviour.arrivals = Arrivals::TooEarly;
                model.jitter = Nanos::ZERO;
            }
            admitted.extend(world.admit(model));
            world.run_for(Nanos(random.up_to(case.length.0 / 8)));
            if !admitted.is_empty() && random.once_in(3) {
                let gone = usize::try_from(random.up_to(admitted.len() as u64 - 1)).expect("few");
                world.evict(admitted.swap_remove(gone));
            }
        }
        world.run_for(case.length);
        for kind in
            [EventKind::MissedDeadline, EventKind::BoundExceeded, EventKind::AssumptionBroken]
        {
            let found = of_kind(world.trace(), kind);
            assert!(found.is_empty(), "seed {seed}, {:?}: {found:?}", case.config);
        }
    }
}

#[test]
fn the_same_seed_twice_gives_byte_equal_traces() {
    for seed in 0..40 {
        let bytes = || {
            let (world, _) = run(&case(seed));
            let mut writer = aegis_trace::export::json::Writer::new(Vec::new()).expect("memory");
            writer.write(&world.trace().records).expect("memory");
            writer.finish(world.trace().dropped).expect("memory")
        };
        assert_eq!(bytes(), bytes(), "seed {seed}");
    }
}

#[test]
fn each_overhead_that_is_forgotten_is_caught_with_a_miss_and_charged_it_is_refused() {
    let none = Overheads::NONE;
    let each = Nanos(150);
    let overheads = [
        ("dispatch", Overheads { dispatch: each, ..none }),
        ("boundary", Overheads { boundary: each, ..none }),
        ("copy", Overheads { copy: each, ..none }),
    ];
    // Two jobs that leave 100 of 10 000 free, the second in two stages.
    let camera = Model::periodic("camera", Nanos(4_000), Nanos(10_000));
    let mut lidar = Model::periodic("lidar", Nanos(1), Nanos(10_000));
    lidar.stages = vec![Nanos(3_000), Nanos(2_900)];
    for policy in POLICIES {
        for (name, real) in overheads {
            let forgotten = WorldConfig { policy, real, ..WorldConfig::new(Seed(3)) };
            let mut world = World::new(forgotten);
            let models = [&camera, &lidar]
                .map(|model| world.admit(model.clone()).expect("99 % without overheads"));
            world.run_for(Nanos(400_000));
            let missed: usize = models.iter().map(|model| world.trace().misses(*model)).sum();
            assert!(missed > 0, "{policy}, {name}: nobody noticed");
            let broken = of_kind(world.trace(), EventKind::AssumptionBroken);
            assert!(!broken.is_empty(), "{policy}, {name}: the trace does not say why");
            let mut charged = World::new(WorldConfig { charged: real, ..forgotten });
            charged.admit(camera.clone()).expect("40 %");
            assert!(charged.admit(lidar.clone()).is_err(), "{policy}, {name}: 101 %");
        }
    }
}

#[test]
fn an_overhead_that_was_not_charged_is_caught_and_named() {
    let overheads = Overheads { dispatch: Nanos(400), wake: Nanos::ZERO, ..Overheads::NONE };
    let config = WorldConfig { real: overheads, ..WorldConfig::new(Seed(3)) };
    let mut world = World::new(config);
    // Without the overhead the set has almost no slack, with it there is not enough time.
    world.admit(Model::periodic("camera", Nanos(4_000), Nanos(10_000))).expect("40 %");
    world.admit(Model::periodic("lidar", Nanos(5_900), Nanos(10_000))).expect("99 %");
    world.run_for(Nanos(1_000_000));
    let broken = of_kind(world.trace(), EventKind::AssumptionBroken);
    assert!(!broken.is_empty());
    assert!(
        broken.iter().all(|event| matches!(
            event,
            TraceEvent::AssumptionBroken {
                assumption: aegis_trace::Assumption::DispatchOverhead,
                ..
            }
        )),
        "{broken:?}"
    );
    assert!(!of_kind(world.trace(), EventKind::MissedDeadline).is_empty());
    let unexcused = of_kind(world.trace(), EventKind::BoundExceeded)
        .iter()
        .any(|event| matches!(event, TraceEvent::BoundExceeded { cause: None, .. }));
    assert!(!unexcused, "every bound that was exceeded names the cause");
}

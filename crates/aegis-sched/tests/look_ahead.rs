//! Look-ahead on the shipped dispatcher.
//!
//! Hostile worlds, and every case that "one stage on the device" used to exclude.

use aegis_cuda::SimFault;
use aegis_sched::dispatch::OverrunPolicy;
use aegis_sched::policy::PolicyKind;
use aegis_sched::replay::{Extent, replay};
use aegis_sched::sim::{
    Arrivals, Behaviour, Costs, Model, ModelService, Random, Seed, World, WorldConfig,
};
use aegis_sched::task::Overheads;
use aegis_trace::{
    Bytes, EventKind, JobId, ModelId, Nanos, Query, Record, StageIndex, Timestamp, Trace,
    TraceEvent,
};

const POLICIES: [PolicyKind; 4] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Edf, PolicyKind::Priority];

/// A world, its models and how long to run it, all from one seed.
struct Case {
    config: WorldConfig,
    models: Vec<Model>,
    length: Nanos,
}

fn case(seed: u64, best_effort: bool) -> Case {
    let mut random = Random::new(Seed(seed ^ 0x100c));
    let none = Overheads { look_ahead: true, ..Overheads::NONE };
    let overheads = match random.up_to(2) {
        0 => none,
        _ => Overheads {
            dispatch: Nanos(random.up_to(30)),
            wake: Nanos(random.up_to(60)),
            boundary: Nanos(random.up_to(20)),
            copy: Nanos(random.up_to(10)),
            ..none
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
    let mut models: Vec<Model> = (0..count).map(|n| guaranteed(n, &mut random)).collect();
    if best_effort {
        models.extend((0..random.between(1, 2)).map(|n| server(n, &overheads, &mut random)));
        models.extend((0..random.between(1, 2)).map(|n| background(n, &mut random)));
    }
    let longest = models.iter().map(|model| model.period).max().expect("two models at least");
    Case { config, models, length: longest * 12 }
}

fn guaranteed(n: u64, random: &mut Random) -> Model {
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
        deadline: Nanos(deadline),
        jitter: Nanos(jitter),
        priority: u32::try_from(random.up_to(4)).expect("small"),
        stages,
        may_be_suspended: !random.once_in(4),
        persistent: Bytes::from_kib(4),
        scratch: Bytes::from_kib(4),
        behaviour: Behaviour {
            arrivals,
            costs: if random.once_in(2) { Costs::Full } else { Costs::UpTo },
            faults: Vec::new(),
        },
        ..Model::periodic(&format!("model{n}"), Nanos(1), Nanos(period))
    }
}

/// A server that often has more to do than its budget allows, of jobs of a few stages.
fn server(n: u64, overheads: &Overheads, random: &mut Random) -> Model {
    let period = random.between(400, 4_000);
    let stages = (0..random.between(1, 3)).map(|_| Nanos(random.between(1, 40)));
    let stages: Vec<Nanos> = stages.collect();
    let budget = overheads.longest(&stages) + Nanos(random.between(20, period / 6));
    let apart = Nanos(random.between(60, period));
    let mut model = Model::periodic(&format!("server{n}"), Nanos(1), apart);
    model.service = ModelService::Server { budget, period: Nanos(period) };
    model.priority = u32::try_from(random.up_to(4)).expect("small");
    model.behaviour.arrivals =
        if random.once_in(2) { Arrivals::AfterLaunch } else { Arrivals::TooEarly };
    model.stages = stages;
    model
}

fn background(n: u64, random: &mut Random) -> Model {
    let mut model =
        Model::periodic(&format!("background{n}"), Nanos(1), Nanos(random.between(80, 900)));
    model.service = ModelService::Background;
    model.stages = (0..random.between(1, 3)).map(|_| Nanos(random.between(1, 60))).collect();
    model.may_be_suspended = !random.once_in(3);
    model.behaviour.arrivals = Arrivals::TooEarly;
    model
}

/// Admits what the shipped admission accepts, and runs.
fn run(case: &Case) -> (World, Vec<ModelId>) {
    let mut world = World::new(case.config);
    let admitted = case.models.iter().filter_map(|model| world.admit(model.clone()).ok()).collect();
    world.run_for(case.length);
    (world, admitted)
}

fn of_kind(trace: &Trace, kind: EventKind) -> Vec<TraceEvent> {
    let query = Query { kinds: vec![kind], ..Query::default() };
    trace.query(&query).map(|record| record.event.clone()).collect()
}

/// What a reader of the trace sees on the device.
#[derive(Debug, Default)]
struct Device {
    /// Dispatched and not ended, in order.
    stages: Vec<(JobId, StageIndex)>,
    finished: Timestamp,
    /// Stages that were put behind a running one.
    committed: usize,
    /// Of those, the next stage of the running job.
    continued: usize,
    /// Stages whose inputs went ahead of them.
    ahead: usize,
}

impl Device {
    /// Reads a trace without faults: at most two stages are on the device, which runs them in their
    /// order, the second from the very end of the first on.
    fn read(trace: &Trace, place: impl Fn() -> String) -> Self {
        let mut device = Self::default();
        for record in &trace.records {
            match record.event {
                TraceEvent::Dispatched { job, stage, .. } => {
                    device.committed += device.stages.len();
                    let same = device.stages.iter().any(|(running, _)| *running == job);
                    device.continued += usize::from(same);
                    device.stages.push((job, stage));
                    assert!(device.stages.len() <= 2, "{}: {device:?}", place());
                }
                TraceEvent::StageCompleted { job, stage, started, finished, ahead, .. } => {
                    device.ahead += usize::from(ahead > Nanos::ZERO);
                    assert_eq!(device.stages.remove(0), (job, stage), "{}", place());
                    assert!(started >= device.finished, "{}: {job} {stage}", place());
                    device.finished = finished;
                }
                _ => {}
            }
        }
        device
    }
}

/// Runs worlds in which no assumption is broken; stages committed, and jobs completed.
fn hostile(seeds: std::ops::Range<u64>, case: impl Fn(u64) -> Case) -> (Device, usize) {
    let (mut all, mut jobs) = (Device::default(), 0);
    for seed in seeds {
        let case = case(seed);
        let (world, _) = run(&case);
        let trace = world.trace();
        let place = || format!("seed {seed}, {:?}", case.config);
        for kind in [
            EventKind::MissedDeadline,
            EventKind::BoundExceeded,
            EventKind::AssumptionBroken,
            EventKind::Faulted,
            EventKind::Dropped,
        ] {
            let found = of_kind(trace, kind);
            assert!(found.is_empty(), "{}: {found:?}", place());
        }
        assert_eq!(trace.dropped, 0, "{}", place());
        let device = Device::read(trace, place);
        all.committed += device.committed;
        all.continued += device.continued;
        all.ahead += device.ahead;
        jobs += of_kind(trace, EventKind::Completed).len();
    }
    (all, jobs)
}

#[test]
fn no_admitted_model_ever_misses_or_exceeds_its_bound() {
    let (device, jobs) = hostile(0..1_500, |seed| case(seed, false));
    assert!(jobs > 80_000, "{jobs}");
    assert!(device.committed > 20_000 && device.continued > 5_000, "{device:?}");
}

#[test]
fn nor_beside_best_effort_under_servers_and_in_the_background() {
    let (device, jobs) = hostile(10_000..11_000, |seed| case(seed, true));
    assert!(jobs > 80_000, "{jobs}");
    assert!(device.committed > 20_000, "{device:?}");
}

/// A case in which inputs go ahead, and take up to as long as a stage. Kernels are as slow beside them as
/// their costs allow, or slower than alone by whatever part of that.
fn ahead(seed: u64) -> Case {
    let mut random = Random::new(Seed(seed ^ 0xa4ead));
    let mut case = case(seed, seed.is_multiple_of(2));
    let copy = Nanos(random.between(1, 60));
    for overheads in [&mut case.config.charged, &mut case.config.real] {
        *overheads = Overheads { copy, uploads_ahead: true, ..*overheads };
    }
    case
}

#[test]
fn nor_where_inputs_go_ahead() {
    let (device, jobs) = hostile(20_000..21_500, ahead);
    assert!(jobs > 60_000, "{jobs}");
    assert!(device.ahead > 10_000 && device.ahead < device.committed, "{device:?}");
}

#[test]
fn costs_that_do_not_hold_beside_uploads_are_named_and_so_is_what_they_do() {
    let (mut slow, mut excused) = (0, 0);
    for seed in 0..400 {
        let mut case = ahead(seed);
        for model in &mut case.models {
            model.behaviour.costs = Costs::Beyond { extra: Nanos(1 + model.stages[0].0 / 20) };
        }
        let (world, _) = run(&case);
        slow += of_kind(world.trace(), EventKind::AssumptionBroken).len();
        for event in of_kind(world.trace(), EventKind::BoundExceeded) {
            let named = matches!(event, TraceEvent::BoundExceeded { cause: Some(_), .. });
            assert!(named, "seed {seed}, {:?}: {event:?}", case.config);
            excused += 1;
        }
    }
    assert!(slow > 1_000 && excused > 20, "{slow}, {excused}");
}

#[test]
fn a_look_ahead_that_was_not_charged_exceeds_bounds_with_nothing_broken() {
    let (mut exceeded, mut missed) = (0, 0);
    for seed in 0..600 {
        let mut case = case(seed, false);
        case.config.charged.look_ahead = false;
        let (world, _) = run(&case);
        let broken = of_kind(world.trace(), EventKind::AssumptionBroken);
        assert!(broken.is_empty(), "seed {seed}: {broken:?}");
        exceeded += usize::from(!of_kind(world.trace(), EventKind::BoundExceeded).is_empty());
        missed += usize::from(!of_kind(world.trace(), EventKind::MissedDeadline).is_empty());
    }
    println!("of 600 worlds, {exceeded} exceed a bound, {missed} miss a deadline");
    assert!(exceeded > 20 && missed > 0, "{exceeded}, {missed}");
}

fn us(n: u64) -> Nanos {
    Nanos::from_micros(n)
}

fn at(offset: Nanos, model: Model) -> Model {
    let mut model = model;
    model.behaviour.arrivals = Arrivals::Periodic { offset };
    model
}

fn urgent(priority: u32, model: Model) -> Model {
    Model { priority, ..model }
}

fn staged(name: &str, stages: &[Nanos], period: Nanos) -> Model {
    Model { stages: stages.to_vec(), ..Model::periodic(name, Nanos(1), period) }
}

fn world(overrun: OverrunPolicy) -> World {
    let overheads = Overheads { look_ahead: true, ..Overheads::NONE };
    World::new(WorldConfig {
        policy: PolicyKind::Priority,
        charged: overheads,
        real: overheads,
        overrun,
        ..WorldConfig::new(Seed(3))
    })
}

/// When each stage of `model` ran, in microseconds.
fn runs(world: &World, model: ModelId) -> Vec<(u64, u64)> {
    let stage = |event: TraceEvent| match event {
        TraceEvent::StageCompleted { job, started, finished, .. } if job.model == model => {
            Some((started.0 / 1_000, finished.0 / 1_000))
        }
        _ => None,
    };
    of_kind(world.trace(), EventKind::StageCompleted).into_iter().filter_map(stage).collect()
}

#[test]
fn an_urgent_job_waits_for_both_stages_that_are_on_the_device_and_the_bound_says_so() {
    let mut world = world(OverrunPolicy::Record);
    let first = urgent(1, Model::periodic("first", us(30), us(1_000)));
    let second = urgent(2, Model::periodic("second", us(40), us(1_000)));
    let camera = urgent(0, at(us(1), Model::periodic("camera", us(10), us(1_000))));
    let ids = [first, second, camera].map(|model| world.admit(model).expect("8 %"));
    world.run_for(us(900));
    assert_eq!(ids.map(|id| runs(&world, id)[0]), [(0, 30), (30, 70), (70, 80)]);
    let analysis = world.admission().analysis().expect("three models");
    let bounds = &analysis.bounds;
    assert_eq!(bounds[2].response, us(10 + 40 + 40), "the longest less urgent stage, and another");
}

#[test]
fn the_device_goes_from_stage_to_stage_without_waiting_to_be_told() {
    let gaps = |look_ahead| {
        let overheads = Overheads { dispatch: us(17), look_ahead, ..Overheads::NONE };
        let mut world = World::new(WorldConfig {
            charged: overheads,
            real: overheads,
            ..WorldConfig::new(Seed(5))
        });
        for n in 0..4 {
            let model = staged(&format!("model{n}"), &[us(30), us(40)], us(2_000));
            world.admit(model).expect("a fifth of the device");
        }
        world.run_for(us(100_000));
        let stages = of_kind(world.trace(), EventKind::StageCompleted);
        let times = stages.iter().filter_map(|event| match event {
            TraceEvent::StageCompleted { started, finished, .. } => Some((*started, *finished)),
            _ => None,
        });
        let times: Vec<(Timestamp, Timestamp)> = times.collect();
        let gap = |pair: &[(Timestamp, Timestamp)]| pair[1].0 - pair[0].1;
        times.windows(2).map(gap).filter(|gap| *gap < us(100)).collect::<Vec<Nanos>>()
    };
    let (without, with) = (gaps(false), gaps(true));
    assert!(without.len() > 300 && with.len() > 300);
    assert!(without.iter().copied().max() > Some(us(10)));
    assert!(with.iter().all(|gap| *gap == Nanos::ZERO), "{with:?}");
}

#[test]
fn a_failing_stage_ends_its_job_once_though_the_next_one_is_on_the_device() {
    let mut world = world(OverrunPolicy::Record);
    let mut bad = staged("bad", &[us(20), us(30)], us(1_000));
    bad.behaviour.faults.push((StageIndex(0), 1, SimFault::ExecutionFailure));
    let bad = world.admit(bad).expect("5 %");
    let good = world.admit(at(us(5), Model::periodic("good", us(10), us(1_000)))).expect("1 %");
    world.run_for(us(10_500));
    let counts = |model| world.metrics(model).expect("known").counts;
    assert_eq!((counts(bad).failed, counts(bad).completed), (1, 1));
    assert_eq!((counts(good).failed, counts(good).completed, counts(good).missed), (0, 11, 0));
    assert_eq!(of_kind(world.trace(), EventKind::Fenced), [TraceEvent::Fenced { model: bad }]);
    // The stage behind the failed one ran, for nobody; then the model can go.
    assert_eq!(runs(&world, bad)[2..], [(1_020, 1_050)]);
    world.evict(bad);
    world.run_for(us(2_000));
    assert_eq!(of_kind(world.trace(), EventKind::Evicted), [TraceEvent::Evicted { model: bad }]);
}

#[test]
fn a_model_that_fails_behind_another_is_fenced_and_the_other_unharmed() {
    for fault in [SimFault::ExecutionFailure, SimFault::LaunchFailure] {
        let mut world = world(OverrunPolicy::Record);
        let good = world.admit(urgent(0, Model::periodic("good", us(50), us(1_000)))).expect("5 %");
        let mut bad = urgent(1, at(us(5), Model::periodic("bad", us(20), us(1_000))));
        bad.behaviour.faults.push((StageIndex(0), 0, fault));
        let bad = world.admit(bad).expect("2 %");
        world.run_for(us(5_500));
        let counts = |model| world.metrics(model).expect("known").counts;
        assert_eq!((counts(bad).failed, counts(bad).completed), (1, 0), "{fault:?}");
        assert_eq!((counts(good).completed, counts(good).missed), (6, 0), "{fault:?}");
    }
}

#[test]
fn a_launch_that_fails_behind_a_stage_of_its_own_job_ends_the_job_once() {
    let mut world = world(OverrunPolicy::Record);
    let mut bad = staged("bad", &[us(20), us(30)], us(1_000));
    bad.behaviour.faults.push((StageIndex(1), 1, SimFault::LaunchFailure));
    let bad = world.admit(bad).expect("5 %");
    world.run_for(us(3_500));
    let counts = world.metrics(bad).expect("known").counts;
    assert_eq!((counts.failed, counts.completed), (1, 1));
    world.evict(bad);
    world.run_for(us(1_000));
    assert_eq!(of_kind(world.trace(), EventKind::Evicted), [TraceEvent::Evicted { model: bad }]);
}

#[test]
fn a_hang_is_reported_from_the_moment_at_which_the_stage_has_the_device() {
    let mut world = world(OverrunPolicy::Record);
    world.admit(urgent(0, Model::periodic("long", us(400), us(2_000)))).expect("20 %");
    let mut stuck = urgent(1, at(us(5), Model::periodic("stuck", us(10), us(2_000))));
    stuck.behaviour.faults.push((StageIndex(0), 0, SimFault::Hang));
    let stuck = world.admit(stuck).expect("a little");
    world.run_for(us(5_000));
    let hanging = world.trace().records.iter().find_map(|record| match record.event {
        TraceEvent::Hanging { job, elapsed, .. } => Some((record.at, job.model, elapsed)),
        _ => None,
    });
    let from = Timestamp::ZERO + us(400);
    assert_eq!(hanging, Some((from + us(1_000), stuck, us(1_000))), "a hundred times its charge");
}

#[test]
fn a_hanging_job_takes_the_stage_behind_it_along_and_nobody_else() {
    let mut world = world(OverrunPolicy::Record);
    let mut stuck = staged("stuck", &[us(10), us(10)], us(2_000));
    stuck.behaviour.faults.push((StageIndex(0), 0, SimFault::Hang));
    let stuck = world.admit(stuck).expect("a little");
    world.run_for(us(5_000));
    assert_eq!(of_kind(world.trace(), EventKind::Hanging).len(), 1);
    assert_eq!(of_kind(world.trace(), EventKind::Faulted).len(), 1);
    assert_eq!(world.metrics(stuck).expect("known").counts.failed, 1);
}

#[test]
fn stopping_behind_a_hanging_stage_ends_the_job_that_waits_on_the_device() {
    let mut world = world(OverrunPolicy::Record);
    let mut stuck = urgent(0, staged("stuck", &[us(10)], us(20_000)));
    stuck.behaviour.faults.push((StageIndex(0), 0, SimFault::Hang));
    let stuck = world.admit(stuck).expect("a little");
    let waits = [1, 2].map(|n| {
        let model = at(us(5 * n), Model::periodic(&format!("model{n}"), us(10), us(20_000)));
        world.admit(urgent(1, model)).expect("a little")
    });
    world.run_for(us(5_000));
    assert_eq!(waits.map(|id| runs(&world, id).len()), [0, 0], "both wait, one on the device");
    world.abandon();
    let counts = |id: ModelId| world.metrics(id).expect("known").counts;
    assert_eq!((counts(stuck).submitted, counts(stuck).failed), (1, 1));
    for id in waits {
        assert_eq!((counts(id).submitted, counts(id).stopped), (1, 1), "{id}");
    }
}

#[test]
fn a_job_with_two_stages_on_the_device_that_is_given_up_ends_once() {
    let mut world = world(OverrunPolicy::Record);
    let staged = world.admit(staged("staged", &[us(20), us(30), us(10)], us(1_000))).expect("6 %");
    world.run_for(us(10));
    assert_eq!(of_kind(world.trace(), EventKind::Dispatched).len(), 2, "one behind the other");
    world.abandon();
    let counts = world.metrics(staged).expect("known").counts;
    assert_eq!((counts.submitted, counts.stopped, counts.completed), (1, 1, 0));
}

#[test]
fn a_lost_device_ends_each_job_on_it_once() {
    let mut world = world(OverrunPolicy::Record);
    let mut last = urgent(0, Model::periodic("last", us(50), us(1_000)));
    last.behaviour.faults.push((StageIndex(0), 0, SimFault::DeviceLost));
    let last = world.admit(last).expect("5 %");
    let other = urgent(1, at(us(5), Model::periodic("other", us(20), us(1_000))));
    let other = world.admit(other).expect("2 %");
    world.run_for(us(900));
    world.abandon();
    for id in [last, other] {
        let counts = world.metrics(id).expect("known").counts;
        let ended = counts.failed + counts.dropped + counts.stopped;
        assert_eq!((counts.submitted, counts.completed, ended), (1, 0, 1), "{id}");
    }
}

#[test]
fn a_job_over_its_charge_is_stopped_one_stage_later_and_no_more() {
    let mut world = world(OverrunPolicy::Contain);
    let mut rogue = staged("rogue", &[us(20); 4], us(1_000));
    let extra = us(30);
    rogue.behaviour.faults.push((StageIndex(0), 1, SimFault::Overrun { extra }));
    let rogue = world.admit(rogue).expect("8 %");
    world.run_for(us(1_900));
    // The second stage was on the device when the first ended late; the third is not launched.
    assert_eq!(runs(&world, rogue)[4..], [(1_000, 1_050), (1_050, 1_070)]);
    assert_eq!(world.metrics(rogue).expect("known").counts.cut_short, 1);
    assert_eq!(of_kind(world.trace(), EventKind::DebtIncurred).len(), 1);
    assert_eq!(of_kind(world.trace(), EventKind::GuaranteesRestored).len(), 1);
}

#[test]
fn nothing_in_the_background_is_committed_and_it_gives_way_to_what_is() {
    let mut world = world(OverrunPolicy::Record);
    let mut filler = staged("filler", &[us(100); 3], us(1_000));
    filler.service = ModelService::Background;
    let filler = world.admit(filler).expect("in the background");
    let camera = at(us(10), Model::periodic("camera", us(50), us(1_000)));
    let camera = world.admit(camera).expect("5 %");
    world.run_for(us(900));
    assert_eq!(runs(&world, camera), [(100, 150)]);
    assert_eq!(runs(&world, filler), [(0, 100), (150, 250), (250, 350)]);
    Device::read(world.trace(), || "one camera".into());
    let behind = world.trace().records.iter().filter(|record| match record.event {
        TraceEvent::Dispatched { job, .. } => job.model == camera && record.at.0 == 10_000,
        _ => false,
    });
    assert_eq!(behind.count(), 1, "committed when it arrived");
}

#[test]
fn without_the_option_nothing_is_put_behind_a_stage_and_with_it_worlds_stay_reproducible() {
    for seed in 0..200 {
        let mut case = case(seed, true);
        let trace = |case: &Case| run(case).0.trace().clone();
        assert_eq!(trace(&case), trace(&case), "seed {seed}");
        for overheads in [&mut case.config.charged, &mut case.config.real] {
            overheads.look_ahead = false;
        }
        let device = Device::read(&trace(&case), || format!("seed {seed}"));
        assert_eq!(device.committed, 0, "seed {seed}");
    }
}

#[test]
fn overruns_under_look_ahead_are_named_and_bounds_hold_again_after_them() {
    let mut excused = 0;
    for seed in 0..400 {
        let mut case = case(seed, true);
        let policies = [OverrunPolicy::Record, OverrunPolicy::Contain];
        case.config.overrun = policies[usize::try_from(seed % 2).expect("0 or 1")];
        let extra = case.models[0].stages[0] * 3;
        case.models[0].behaviour.faults = vec![(StageIndex(0), 2, SimFault::Overrun { extra })];
        let (world, _) = run(&case);
        for event in of_kind(world.trace(), EventKind::BoundExceeded) {
            let named = matches!(event, TraceEvent::BoundExceeded { cause: Some(_), .. });
            assert!(named, "seed {seed}, {:?}: {event:?}", case.config);
            excused += 1;
        }
        let device = Device::read(world.trace(), || format!("seed {seed}"));
        assert!(device.stages.len() <= 2);
    }
    assert!(excused > 20, "overruns must be felt: {excused}");
}

fn uploading(copy: Nanos) -> World {
    let overheads = Overheads { look_ahead: true, uploads_ahead: true, copy, ..Overheads::NONE };
    World::new(WorldConfig {
        policy: PolicyKind::Priority,
        charged: overheads,
        real: overheads,
        ..WorldConfig::new(Seed(3))
    })
}

#[test]
fn inputs_of_the_stage_behind_arrive_while_the_running_one_computes() {
    let mut world = uploading(us(20));
    let first = world.admit(Model::periodic("first", us(50), us(1_000))).expect("9 %");
    let second = world.admit(Model::periodic("second", us(30), us(1_000))).expect("16 %");
    world.run_for(us(900));
    assert_eq!(runs(&world, first), [(0, 90)], "nobody ran before it: it uploads itself");
    assert_eq!(runs(&world, second), [(90, 140)], "30 us of work, and the outputs");
    let told = of_kind(world.trace(), EventKind::StageCompleted);
    let copies = told.iter().map(|event| match event {
        TraceEvent::StageCompleted { upload, ahead, .. } => (*upload, *ahead),
        other => panic!("{other:?}"),
    });
    assert_eq!(copies.collect::<Vec<_>>(), [(us(20), Nanos::ZERO), (Nanos::ZERO, us(20))]);
}

#[test]
fn a_model_whose_upload_is_left_on_its_way_leaves_only_once_that_has_ended() {
    let mut world = uploading(us(50));
    world.admit(Model::periodic("first", us(10), us(2_000))).expect("6 %");
    let mut second = at(us(105), Model::periodic("second", us(10), us(2_000)));
    second.behaviour.faults = vec![(StageIndex(0), 0, SimFault::LaunchFailure)];
    let second = world.admit(second).expect("6 %");
    world.run_for(us(108));
    assert_eq!(of_kind(world.trace(), EventKind::LaunchFailed).len(), 1);
    world.evict(second);
    world.run_for(us(500));
    // The first ends at 110; the upload goes from 105 to 155. The decision waits for no upload, as no
    // event tells of one that is left; the memory does.
    let at = |kind| {
        let of_it = |record: &&Record| match record.event {
            TraceEvent::Evicted { model } | TraceEvent::Freed { model } => {
                model == second && record.event.kind() == kind
            }
            _ => false,
        };
        world.trace().records.iter().find(of_it).map(|record| record.at)
    };
    assert_eq!(at(EventKind::Evicted), Some(Timestamp(110_000)));
    assert_eq!(at(EventKind::Freed), Some(Timestamp(155_000)));
    let replayed = replay(world.trace(), Extent::Whole).expect("a whole trace of ours");
    assert_eq!(replayed.divergence, None);
}

//! Best effort beside guarantees: admitted models do not notice, however hostile the load.

use std::collections::{BTreeMap, VecDeque};

use aegis_cuda::SimFault;
use aegis_sched::policy::PolicyKind;
use aegis_sched::sim::{
    Arrivals, Behaviour, Costs, Model, ModelService, Random, Seed, World, WorldConfig,
};
use aegis_sched::task::Overheads;
use aegis_trace::{
    Assumption, EventKind, JobId, ModelId, Nanos, Query, Reason, Record, Refusal, ServiceTerms,
    StageIndex, Timestamp, Trace, TraceEvent,
};

const POLICIES: [PolicyKind; 4] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Edf, PolicyKind::Priority];

/// Models of a world, the ones of best effort last, and how long to run it.
struct Case {
    config: WorldConfig,
    models: Vec<Model>,
    length: Nanos,
}

fn case(seed: u64) -> Case {
    let mut random = Random::new(Seed(seed ^ 0xbe57_ef04));
    let overheads = match random.up_to(2) {
        0 => Overheads::default(),
        _ => Overheads {
            dispatch: Nanos(random.up_to(30)),
            wake: Nanos(random.up_to(60)),
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
    let (guaranteed, servers, others) =
        (random.between(1, 4), random.up_to(2), random.between(0, 2));
    let mut models: Vec<Model> = (0..guaranteed).map(|n| model(n, &mut random)).collect();
    models.extend((0..servers).map(|n| server(n, overheads.dispatch, &mut random)));
    models.extend((0..others).map(|n| background(n, &mut random)));
    let longest = models.iter().map(|model| model.period).max().expect("one model at least");
    Case { config, models, length: longest * 12 }
}

fn stages(random: &mut Random, most: u64) -> Vec<Nanos> {
    (0..random.between(1, 3)).map(|_| Nanos(random.between(1, most))).collect()
}

fn model(n: u64, random: &mut Random) -> Model {
    let period = random.between(100, 4_000);
    let arrivals = match random.up_to(4) {
        0 => Arrivals::Periodic { offset: Nanos(random.up_to(period)) },
        1 => Arrivals::Sporadic,
        2 => Arrivals::Jittered,
        _ => Arrivals::AfterLaunch,
    };
    let jitter = if arrivals == Arrivals::Jittered { random.up_to(period / 4) } else { 0 };
    let deadline = match random.up_to(3) {
        0 => random.between(period / 2, period),
        1 => random.between(period, period * 3),
        _ => period,
    };
    Model {
        deadline: Nanos(deadline),
        jitter: Nanos(jitter),
        priority: u32::try_from(random.up_to(4)).expect("small"),
        stages: stages(random, period / 20 + 1),
        ..best_effort(&format!("model{n}"), ModelService::Guaranteed, period, arrivals, random)
    }
}

/// A server whose caller submits far more than it can serve.
fn server(n: u64, dispatch: Nanos, random: &mut Random) -> Model {
    let period = Nanos(random.between(200, 4_000));
    let stages = stages(random, period.0 / 20 + 1);
    let chunk = stages.iter().copied().max().expect("one stage at least") + dispatch;
    let budget = chunk * random.between(1, 3);
    let service = ModelService::Server { budget, period };
    let distance = random.between(1, period.0);
    let arrivals = if random.once_in(2) { Arrivals::TooEarly } else { Arrivals::AfterLaunch };
    Model {
        priority: u32::try_from(random.up_to(4)).expect("small"),
        stages,
        ..best_effort(&format!("server{n}"), service, distance, arrivals, random)
    }
}

/// Work in the background that never ends.
fn background(n: u64, random: &mut Random) -> Model {
    let distance = random.between(10, 500);
    let service = ModelService::Background;
    let stages = stages(random, 200);
    Model {
        stages,
        ..best_effort(&format!("bg{n}"), service, distance, Arrivals::TooEarly, random)
    }
}

fn best_effort(
    name: &str,
    service: ModelService,
    period: u64,
    arrivals: Arrivals,
    random: &mut Random,
) -> Model {
    let costs = if random.once_in(2) { Costs::Full } else { Costs::UpTo };
    Model {
        service,
        behaviour: Behaviour { arrivals, costs, faults: Vec::new() },
        ..Model::periodic(name, Nanos(1), Nanos(period))
    }
}

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

/// Every model that was admitted, with what it was promised.
fn services(trace: &Trace) -> Vec<(ModelId, ServiceTerms)> {
    let service = |record: &Record| match &record.event {
        TraceEvent::Admitted { model, what } => Some((*model, what.service)),
        _ => None,
    };
    trace.records.iter().filter_map(service).collect()
}

/// The stages of `model` that were on the device: when launched and when noticed to have ended.
fn intervals(trace: &Trace, model: ModelId) -> Vec<(Timestamp, Timestamp)> {
    let mut launched = None;
    let mut found = Vec::new();
    for Record { at, event, .. } in &trace.records {
        match event {
            TraceEvent::Dispatched { job, .. } if job.model == model => launched = Some(*at),
            TraceEvent::StageCompleted { job, .. } if job.model == model => {
                found.push((launched.take().expect("launched before it ended"), *at));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn admitted_models_do_not_notice_best_effort() {
    let (mut in_background, mut under_servers, mut waits, mut yields, mut refused) =
        (0, 0, 0, 0, 0);
    let mut guaranteed_jobs = 0;
    for seed in 0..2_500 {
        let case = case(seed);
        let (world, admitted) = run(&case);
        let trace = world.trace();
        for kind in [
            EventKind::MissedDeadline,
            EventKind::BoundExceeded,
            EventKind::AssumptionBroken,
            EventKind::Faulted,
            EventKind::Dropped,
            EventKind::GuaranteesRestored,
        ] {
            let found = of_kind(trace, kind);
            assert!(found.is_empty(), "seed {seed}, {:?}: {found:?}", case.config);
        }
        assert_eq!(trace.dropped, 0, "seed {seed}");
        refused += case.models.len() - admitted.len();
        for (model, service) in services(trace) {
            let done = world.metrics(model).expect("known").counts.completed;
            match service {
                ServiceTerms::Guaranteed { .. } => guaranteed_jobs += done,
                ServiceTerms::Background => in_background += done,
                ServiceTerms::Server { .. } => under_servers += done,
            }
        }
        waits += of_kind(trace, EventKind::OutOfBudget).len();
        yields += of_kind(trace, EventKind::Suspended).len();
    }
    // The worlds must be worth running.
    assert!(guaranteed_jobs > 50_000, "{guaranteed_jobs}");
    assert!(in_background > 100_000, "{in_background}");
    assert!(under_servers > 20_000, "{under_servers}");
    assert!(waits > 20_000, "{waits}");
    assert!(yields > 5_000, "{yields}");
    assert!(refused > 500, "{refused}");
}

/// The case with models that are never suspended, whose servers pay for whole jobs.
fn partly_whole(seed: u64) -> Case {
    let mut random = Random::new(Seed(seed ^ 0x5eed));
    let mut case = case(seed);
    let dispatch = case.config.charged.dispatch;
    for model in &mut case.models {
        model.may_be_suspended = random.once_in(2);
        let whole: Nanos = model.stages.iter().map(|stage| *stage + dispatch).sum();
        match &mut model.service {
            ModelService::Server { budget, .. } if !model.may_be_suspended => {
                *budget = whole * random.between(1, 2);
            }
            ModelService::Server { .. } | ModelService::Guaranteed | ModelService::Background => {}
        }
    }
    case
}

/// The stages after the first that were dispatched of jobs that are never suspended; nobody may have
/// been dispatched between them and the stage before.
fn unbroken(trace: &Trace, whole: &[ModelId], seed: u64) -> usize {
    let launches = of_kind(trace, EventKind::Dispatched).into_iter().map(|event| match event {
        TraceEvent::Dispatched { job, stage, .. } => (job, stage.0),
        other => unreachable!("{other:?} is not of this kind"),
    });
    let launches: Vec<(JobId, u16)> = launches.collect();
    let mut later = 0;
    for pair in launches.windows(2) {
        let ((before, last), (job, stage)) = (pair[0], pair[1]);
        if stage > 0 && whole.contains(&job.model) {
            assert_eq!((before, last + 1), (job, stage), "seed {seed}: somebody ran in between");
            later += 1;
        }
    }
    later
}

#[test]
fn best_effort_that_is_never_suspended_is_charged_for_whole_jobs() {
    let (mut background, mut servers, mut later) = (0, 0, 0);
    for seed in 0..1_200 {
        let case = partly_whole(seed);
        let mut world = World::new(case.config);
        let mut whole = Vec::new();
        for model in &case.models {
            if let Ok(id) = world.admit(model.clone())
                && !model.may_be_suspended
            {
                whole.push(id);
                match model.service {
                    ModelService::Guaranteed => {}
                    ModelService::Background => background += 1,
                    ModelService::Server { .. } => servers += 1,
                }
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
        later += unbroken(world.trace(), &whole, seed);
    }
    assert!(background > 200 && servers > 200, "{background} and {servers}");
    assert!(later > 20_000, "{later}");
}

/// The rules of a polling server, applied by a reader of the trace: when each refill begins, what is
/// left of it, and which job is served.
struct ServerTwin {
    budget: Nanos,
    period: Nanos,
    /// Of each stage, dispatch included.
    charges: Vec<Nanos>,
    queue: VecDeque<JobId>,
    start: Timestamp,
    earliest: Timestamp,
    left: Nanos,
    launched: Timestamp,
    refills: u64,
}

impl ServerTwin {
    fn refill(&mut self, wanted: Timestamp) {
        self.start = wanted.max(self.earliest);
        self.earliest = self.start + self.period;
        self.left = self.budget;
        self.refills += 1;
    }

    /// `stage` of the first job is next at `at`.
    fn need(&mut self, stage: usize, at: Timestamp) {
        if self.charges[stage] > self.left {
            self.refill(at);
        }
    }

    fn read(&mut self, Record { at, event, .. }: &Record, place: impl Fn() -> String) {
        match event {
            TraceEvent::Submitted { job, arrival, .. } => {
                if self.queue.is_empty() {
                    self.refill(*arrival);
                }
                self.queue.push_back(*job);
            }
            TraceEvent::OutOfBudget { job, until } => {
                assert_eq!((Some(job), *until), (self.queue.front(), self.start), "{}", place());
                assert!(until > at, "{}", place());
            }
            TraceEvent::Dispatched { job, stage, .. } => {
                assert_eq!(Some(job), self.queue.front(), "{}", place());
                assert!(*at >= self.start, "{}: before the refill at {}", place(), self.start);
                assert!(self.charges[usize::from(stage.0)] <= self.left, "{}", place());
                self.launched = *at;
            }
            TraceEvent::StageCompleted { stage, .. } => {
                self.left -= *at - self.launched;
                let next = usize::from(stage.0) + 1;
                if next < self.charges.len() {
                    return self.need(next, *at);
                }
                self.queue.pop_front();
                match self.queue.is_empty() {
                    true => self.left = Nanos::ZERO,
                    false => self.need(0, *at),
                }
            }
            _ => {}
        }
    }
}

#[test]
fn a_server_follows_its_rules_as_a_reader_of_the_trace_applies_them() {
    let mut refills = 0;
    for seed in 0..600 {
        let (world, _) = run(&case(seed));
        let mut twins: BTreeMap<ModelId, ServerTwin> = BTreeMap::new();
        for record in &world.trace().records {
            let place = || format!("seed {seed} at {}: {:?}", record.at, record.event);
            if let TraceEvent::Admitted { model, what } = &record.event
                && let ServiceTerms::Server { budget, period, .. } = what.service
            {
                let charges = what.stages.iter().map(|cost| *cost + what.overhead).collect();
                let (start, earliest, launched) = Default::default();
                let (queue, left) = (VecDeque::new(), Nanos::ZERO);
                let twin = ServerTwin {
                    budget,
                    period,
                    charges,
                    queue,
                    start,
                    earliest,
                    left,
                    launched,
                    refills: 0,
                };
                twins.insert(*model, twin);
            }
            if let Some(twin) = record.event.model().and_then(|model| twins.get_mut(&model)) {
                twin.read(record, place);
            }
        }
        refills += twins.values().map(|twin| twin.refills).sum::<u64>();
    }
    assert!(refills > 5_000, "{refills}");
}

#[test]
fn a_server_never_gets_more_than_its_budget_in_a_period() {
    let mut full = 0;
    for seed in 0..600 {
        let case = case(seed);
        let (world, _) = run(&case);
        let trace = world.trace();
        for (model, service) in services(trace) {
            let ServiceTerms::Server { budget, period, .. } = service else { continue };
            let stages = intervals(trace, model);
            // As a sporadic task it can be late in one refill and early in the next: any window of
            // one period holds parts of two refills at most, and any window of k periods of k + 1.
            for (index, (from, _)) in stages.iter().enumerate() {
                for k in 1..4u64 {
                    let end = *from + period * k;
                    let within = stages[index..].iter().take_while(|(launched, _)| *launched < end);
                    let used: Nanos = within.map(|(from, to)| (*to).min(end) - *from).sum();
                    assert!(used <= budget * (k + 1), "seed {seed}: {used} in {k} periods");
                    full += u64::from(used > budget * k);
                }
            }
        }
    }
    assert!(full > 0, "the bound of k budgets alone would have held: the test looks at nothing");
}

#[test]
fn background_runs_only_while_nothing_is_ready_and_in_order() {
    let mut launches = 0;
    for seed in 0..300 {
        let (world, _) = run(&case(seed));
        let trace = world.trace();
        let services = services(trace);
        let is_in_background =
            |job: JobId| services.contains(&(job.model, ServiceTerms::Background));
        // Guaranteed jobs that are released and have not ended, by what the trace says.
        let mut visible: Vec<JobId> = Vec::new();
        let (mut arrived, mut first_begun) = (BTreeMap::new(), Vec::new());
        for Record { at, event, .. } in &trace.records {
            match event {
                TraceEvent::Submitted { job, release, deadline: Some(_), .. } if release <= at => {
                    visible.push(*job);
                }
                TraceEvent::Submitted { job, arrival, deadline: None, .. } => {
                    arrived.insert(*job, *arrival);
                }
                TraceEvent::Completed { job, .. } => visible.retain(|known| known != job),
                TraceEvent::Dispatched { job, stage, why, .. } if is_in_background(*job) => {
                    assert_eq!(visible, [], "seed {seed} at {at}: {job} runs before them");
                    let reasons = [Reason::Background, Reason::Continues];
                    assert!(reasons.contains(why), "seed {seed}: {why:?}");
                    launches += 1;
                    first_begun.extend((stage.0 == 0).then_some(arrived[job]));
                }
                _ => {}
            }
        }
        assert!(first_begun.is_sorted(), "seed {seed}: not first come, first served");
    }
    assert!(launches > 20_000, "{launches}");
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
        let text = bytes();
        assert_eq!(text, bytes(), "seed {seed}");
        let back = aegis_trace::export::json::read(&text[..]).expect("our own output");
        assert!(back.is_complete() && back.trace == *run(&case(seed)).0.trace(), "seed {seed}");
    }
}

/// A camera with 400 ns to spare, which arrives just after something else was launched.
fn tight() -> Model {
    let mut camera = Model::periodic("camera", Nanos(600), Nanos(1_000));
    camera.behaviour.arrivals = Arrivals::AfterLaunch;
    camera
}

/// Endless work in the background, in stages of `declared` that take `extra` more.
fn endless(declared: Nanos, extra: Nanos) -> Model {
    let mut logger = Model::periodic("logger", declared, Nanos(100));
    logger.service = ModelService::Background;
    logger.behaviour.costs = Costs::Beyond { extra };
    logger
}

#[test]
fn the_longest_background_stage_that_everyone_tolerates_is_admitted_and_no_longer_one() {
    for policy in POLICIES {
        for dispatch in [Nanos(0), Nanos(50)] {
            let overheads = Overheads { dispatch, wake: Nanos(20), ..Overheads::NONE };
            let config = WorldConfig {
                policy,
                charged: overheads,
                real: overheads,
                ..WorldConfig::new(Seed(1))
            };
            let mut world = World::new(config);
            world.admit(tight()).expect("65 % at most");
            // Both the camera's stage and the logger's are charged a dispatch.
            let most = Nanos(400) - dispatch * 2;
            let refused = world.admit(endless(most + Nanos(1), Nanos::ZERO)).expect_err("longer");
            let by = match refused.refusal() {
                Some(Refusal::DemandExceedsWindow { blocking, blocked_by, .. }) => {
                    (*blocking, *blocked_by)
                }
                Some(Refusal::ResponseExceedsDeadline { blocking, blocked_by, .. }) => {
                    (*blocking, *blocked_by)
                }
                other => panic!("{policy}: {other:?}"),
            };
            let named = Some(ModelId::first(1));
            assert_eq!(by, (most + Nanos(1) + dispatch, named), "{policy}: blames the newcomer");
            let logger = world.admit(endless(most, Nanos::ZERO)).expect("exactly fits");
            world.run_for(Nanos(200_000));
            assert!(of_kind(world.trace(), EventKind::MissedDeadline).is_empty(), "{policy}");
            assert!(world.metrics(logger).expect("known").counts.completed > 100, "{policy}");
        }
    }
}

#[test]
fn a_background_stage_that_was_not_charged_is_caught_with_a_miss() {
    // A stage that is refused above, declared as almost nothing: as if it were forgotten. (401 ns
    // block for 400 where arrivals are on whole nanoseconds, which the camera just bears.)
    for policy in POLICIES {
        let config = WorldConfig { policy, ..WorldConfig::new(Seed(5)) };
        let mut world = World::new(config);
        let camera = world.admit(tight()).expect("60 %");
        let logger = world.admit(endless(Nanos(10), Nanos(392))).expect("said to be short");
        world.run_for(Nanos(200_000));
        assert!(world.trace().misses(camera) > 0, "{policy}: a miss shows what was left out");
        let broken = of_kind(world.trace(), EventKind::AssumptionBroken);
        assert!(!broken.is_empty());
        assert!(broken.iter().all(|event| matches!(
            event,
            TraceEvent::AssumptionBroken { assumption: Assumption::ExecutionTime, job, .. }
                if job.model == logger
        )));
        assert_eq!(world.metrics(camera).expect("known").counts.bound_violated, 0);
    }
}

#[test]
fn a_dispatch_overhead_that_was_not_charged_to_the_background_is_caught_with_a_miss() {
    for policy in POLICIES {
        let real = Overheads { dispatch: Nanos(50), wake: Nanos::ZERO, ..Overheads::NONE };
        let config = WorldConfig { policy, real, ..WorldConfig::new(Seed(5)) };
        let mut world = World::new(config);
        let camera = world.admit(tight()).expect("60 %");
        world.admit(endless(Nanos(400), Nanos::ZERO)).expect("fits without overheads");
        world.run_for(Nanos(500_000));
        assert!(world.trace().misses(camera) > 0, "{policy}");
        let unexcused = of_kind(world.trace(), EventKind::BoundExceeded)
            .iter()
            .any(|event| matches!(event, TraceEvent::BoundExceeded { cause: None, .. }));
        assert!(!unexcused, "{policy}: every bound that was exceeded names the cause");
    }
}

#[test]
fn evicting_the_background_gives_its_blocking_back() {
    let mut world = World::new(WorldConfig::new(Seed(2)));
    let camera = world.admit(Model::periodic("camera", Nanos(600), Nanos(1_000))).expect("60 %");
    let logger = world.admit(endless(Nanos(300), Nanos::ZERO)).expect("fits");
    let small = world.admit(endless(Nanos(100), Nanos::ZERO)).expect("fits as well");
    assert_eq!(world.admission().tasks().background().longest, Nanos(300));
    world.run_for(Nanos(20_000));
    world.evict(logger);
    world.run_for(Nanos(20_000));
    assert_eq!(world.admission().tasks().background().longest, Nanos(100));
    world.evict(small);
    world.run_for(Nanos(20_000));
    assert_eq!(world.admission().tasks().background().longest, Nanos::ZERO);
    let bounds: Vec<Nanos> = of_kind(world.trace(), EventKind::BoundChanged)
        .into_iter()
        .filter_map(|event| match event {
            TraceEvent::BoundChanged { model, bound } if model == camera => Some(bound),
            _ => None,
        })
        .collect();
    assert_eq!(bounds, [Nanos(900), Nanos(700), Nanos(600)]);
    assert_eq!(world.trace().misses(camera), 0);
}

#[test]
fn a_server_whose_budget_no_stage_fits_is_refused() {
    let mut world = World::new(WorldConfig::new(Seed(2)));
    let mut planner = Model::periodic("planner", Nanos(30), Nanos(100));
    planner.service = ModelService::Server { budget: Nanos(29), period: Nanos(100) };
    let error = world.admit(planner).expect_err("never runs");
    let expected = Refusal::ServerBudget { stage: Nanos(30), budget: Nanos(29) };
    assert_eq!(error.refusal(), Some(&expected));
}

#[test]
fn a_server_polls_refills_and_forfeits() {
    let mut world = World::new(WorldConfig::new(Seed(2)));
    let mut planner = Model::periodic("planner", Nanos(30), Nanos(20));
    planner.service = ModelService::Server { budget: Nanos(70), period: Nanos(200) };
    let planner = world.admit(planner).expect("35 %");
    world.run_for(Nanos(1_000));
    let launched: Vec<u64> =
        intervals(world.trace(), planner).iter().map(|(from, _)| from.0).collect();
    // Two stages of 30 fit the budget of 70; the third waits for the next refill.
    assert_eq!(launched, [0, 30, 200, 230, 400, 430, 600, 630, 800, 830]);
    let waits = of_kind(world.trace(), EventKind::OutOfBudget);
    assert!(waits.len() >= 4, "{waits:?}");
    assert!(waits.iter().all(|event| matches!(
        event,
        TraceEvent::OutOfBudget { until, .. } if until.0 % 200 == 0
    )));

    // One job every 90: nothing is pending when it ends, so the rest of the refill is gone.
    let mut world = World::new(WorldConfig::new(Seed(2)));
    let mut planner = Model::periodic("planner", Nanos(30), Nanos(90));
    planner.service = ModelService::Server { budget: Nanos(70), period: Nanos(200) };
    let planner = world.admit(planner).expect("35 %");
    world.run_for(Nanos(500));
    let launched: Vec<u64> =
        intervals(world.trace(), planner).iter().map(|(from, _)| from.0).collect();
    // Jobs arrive at 0, 90, 180, 270 and 360; the first of a refill begins it, and the two that wait
    // for the next share it.
    assert_eq!(launched, [0, 200, 230, 400, 430]);
}

#[test]
fn a_failing_model_of_best_effort_is_fenced_with_all_its_jobs_and_the_others_go_on() {
    let services = [
        ModelService::Background,
        ModelService::Server { budget: Nanos(100), period: Nanos(1_000) },
    ];
    for (service, fault) in services.into_iter().flat_map(|service| {
        [(service, SimFault::ExecutionFailure), (service, SimFault::LaunchFailure)]
    }) {
        let mut world = World::new(WorldConfig::new(Seed(4)));
        let camera = world.admit(tight()).expect("60 %");
        let mut broken = Model::periodic("broken", Nanos(50), Nanos(60));
        broken.stages = vec![Nanos(50), Nanos(50)];
        broken.service = service;
        broken.behaviour.faults.push((StageIndex(1), 5, fault));
        let broken = world.admit(broken).expect("fits");
        let mut sound = Model::periodic("sound", Nanos(50), Nanos(60));
        sound.service = service;
        let sound = world.admit(sound).expect("fits");
        world.run_for(Nanos(20_000));
        let before = world.metrics(sound).expect("known").counts.completed;
        world.run_for(Nanos(20_000));
        let counts = world.metrics(broken).expect("known").counts;
        assert_eq!((counts.completed, counts.failed), (5, 1), "{service:?}, {fault:?}");
        assert!(counts.dropped > 0, "{service:?}: those that waited end too");
        assert_eq!(counts.submitted, counts.completed + counts.failed + counts.dropped);
        assert!(world.metrics(sound).expect("known").counts.completed > before + 10);
        assert_eq!(world.trace().misses(camera), 0);
        world.evict(broken);
        world.run_for(Nanos(20_000));
        assert_eq!(of_kind(world.trace(), EventKind::Evicted).len(), 1, "{service:?}");
    }
}

#[test]
fn models_of_best_effort_come_and_go_and_break_nothing() {
    let mut evicted = 0;
    for seed in 0..300 {
        let case = case(seed);
        let mut random = Random::new(Seed(seed ^ 0x5a5a));
        let mut world = World::new(case.config);
        let mut admitted = Vec::new();
        for _ in 0..3 {
            for model in &case.models {
                admitted.extend(world.admit(model.clone()));
                world.run_for(Nanos(random.up_to(case.length.0 / 12)));
                if !admitted.is_empty() && random.once_in(2) {
                    let gone = random.up_to(admitted.len() as u64 - 1);
                    world.evict(admitted.swap_remove(usize::try_from(gone).expect("few")));
                }
            }
        }
        world.run_for(case.length * 4);
        evicted += of_kind(world.trace(), EventKind::Evicted).len();
        for kind in
            [EventKind::MissedDeadline, EventKind::BoundExceeded, EventKind::AssumptionBroken]
        {
            let found = of_kind(world.trace(), kind);
            assert!(found.is_empty(), "seed {seed}, {:?}: {found:?}", case.config);
        }
    }
    assert!(evicted > 1_000, "{evicted}");
}

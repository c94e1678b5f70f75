//! The whole stack through the facade, on declared models: promises, errors, ends.

use std::sync::Arc;

use aegis::{
    Band, Bytes, Category, DType, DropReason, Error, EventKind, ModelDescription, ModelHandle,
    ModelSource, Nanos, Overheads, Pipeline, PolicyKind, PressureLevel, PressureThresholds, Query,
    Refusal, ResourceBudget, Runtime, ServiceTerms, SimModel, SubmitRefusal, Tensor, TensorSpec,
    Terms, Timestamp, Trace, TraceEvent,
};

fn whole(report: &aegis::Report) -> &aegis::ExecutorReport {
    report.whole.as_ref().expect("the device is not split")
}

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn runtime() -> Runtime {
    builder().sim(Bytes::from_mib(64)).build().expect("a simulated device")
}

fn builder() -> aegis::RuntimeBuilder {
    Runtime::builder()
        .streams(1)
        .policy(PolicyKind::Edf)
        .queue_depth(8)
        .max_models(4)
        .overheads(Overheads::default())
        .trace_capacity(1024)
}

/// A model with one input and one output of two floats.
fn declared(stages: &[Nanos], persistent: Bytes) -> ModelSource {
    let x = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![2] };
    let stages_of = u16::try_from(stages.len()).expect("few stages");
    let description =
        ModelDescription { inputs: vec![x.clone()], outputs: vec![x], stages: stages_of };
    let carried = Bytes::ZERO;
    let model = SimModel { description, persistent, scratch: Bytes::from_kib(4), carried };
    ModelSource::Sim { model, costs: stages.to_vec() }
}

fn admit(runtime: &Runtime, name: &str, cost: Nanos, period: Nanos) -> Result<ModelHandle, Error> {
    let source = declared(&[cost], Bytes::from_kib(64));
    let model = runtime.load(name, &source)?;
    runtime.admit(model, &Terms::periodic(cost, period, Bytes::from_mib(1)))
}

fn input() -> [Tensor; 1] {
    [Tensor::f32("x", &[2], &[1.0, 2.0])]
}

fn trace(runtime: &Runtime) -> Trace {
    Trace { records: runtime.take_trace(), dropped: runtime.report().events_dropped }
}

fn count(trace: &Trace, kind: EventKind) -> usize {
    trace.query(&Query { kinds: vec![kind], ..Query::default() }).count()
}

#[test]
fn a_refusal_names_the_models_and_changes_nothing() {
    let runtime = runtime();
    admit(&runtime, "camera", ms(4), ms(10)).expect("40 %");
    let before = runtime.report();
    let error = admit(&runtime, "lidar", ms(30), ms(100)).expect_err("would block the camera");
    assert_eq!(error.category(), Category::Permanent);
    expect_test::expect![
        "lidar is not admitted: demand 4 ms + blocking 30 ms by a stage of lidar > window 10 ms, in which jobs of camera are due"
    ]
    .assert_eq(&error.to_string());
    assert_eq!(runtime.report(), before);
    assert_eq!(count(&trace(&runtime), EventKind::Refused), 1);
}

#[test]
fn stages_let_the_same_model_in() {
    let runtime = runtime();
    let camera = admit(&runtime, "camera", ms(4), ms(10)).expect("40 %");
    let stages = [ms(5); 6];
    let source = declared(&stages, Bytes::from_kib(64));
    let lidar = runtime.load("lidar", &source).expect("declared");
    let terms = Terms {
        costs: stages.to_vec(),
        ..Terms::periodic(Nanos::ZERO, ms(100), Bytes::from_mib(1))
    };
    let lidar = runtime.admit(lidar, &terms).expect("5 ms block nobody");
    runtime.start().expect("first start");
    let (long, short) = (lidar.submit(&input()), camera.submit(&input()));
    let short = short.expect("accepted").wait().expect("ran");
    let long = long.expect("accepted").wait().expect("ran");
    assert!(short.timing().response <= ms(9), "{:?}", short.timing());
    assert_eq!(long.timing().execution, ms(30));
}

#[test]
fn what_a_model_carries_is_shared_where_it_is_never_suspended() {
    let memory = |may_be_suspended| {
        let runtime = runtime();
        for name in ["camera", "lidar"] {
            let description = ModelDescription { inputs: vec![], outputs: vec![], stages: 2 };
            let (persistent, scratch) = (Bytes::from_kib(64), Bytes::from_kib(4));
            let carried = Bytes::from_kib(32);
            let model = SimModel { description, persistent, scratch, carried };
            let costs = vec![ms(1), ms(2)];
            let source = ModelSource::Sim { model, costs: costs.clone() };
            let loaded = runtime.load(name, &source).expect("declared");
            let terms = Terms::periodic(Nanos::ZERO, ms(100), Bytes::from_mib(1));
            let terms = Terms { costs, may_be_suspended, ..terms };
            runtime.admit(loaded, &terms).expect("a light load");
        }
        let memory = runtime.report().memory;
        (memory.resident, memory.scratch)
    };
    assert_eq!(memory(true), (Bytes::from_kib(192), Bytes::from_kib(4)));
    assert_eq!(memory(false), (Bytes::from_kib(128), Bytes::from_kib(36)));
}

#[test]
fn checking_a_workload_shows_less_resident_memory_without_suspended_models() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    let memory = |suspend: bool| {
        let model = |name: &str| {
            format!(
                "[[model]]\nname = \"{name}\"\nbackend = \"sim\"\nperiod = \"100ms\"\n\
                 suspend = {suspend}\n[model.sim]\nstages = [\"1ms\", \"2ms\"]\n\
                 persistent = \"10MiB\"\nscratch = \"4MiB\"\ncarried = \"3MiB\"\n"
            )
        };
        let device = "device = { driver = \"sim\", memory = \"64MiB\" }\n\
                      scheduler = { policy = \"edf\", queue_depth = 8 }\n";
        std::fs::write(&file, format!("{device}{}{}", model("a"), model("b"))).expect("written");
        let (runtime, verdicts) = Pipeline::open(&file).expect("sound").check().expect("decided");
        assert!(verdicts.iter().all(|verdict| verdict.outcome.is_ok()), "{verdicts:?}");
        let memory = runtime.report().memory;
        (memory.resident, memory.scratch)
    };
    assert_eq!(memory(true), (Bytes::from_mib(26), Bytes::from_mib(4)));
    assert_eq!(memory(false), (Bytes::from_mib(20), Bytes::from_mib(7)));
}

#[test]
fn terms_that_make_no_sense_are_errors_and_not_refusals() {
    let runtime = runtime();
    let attempt = |terms: Terms| {
        let model = runtime.load("m", &declared(&[ms(1)], Bytes(64))).expect("declared");
        runtime.admit(model, &terms).expect_err("makes no sense")
    };
    let sound = Terms::periodic(ms(1), ms(10), Bytes::from_mib(1));
    let timed = |period, deadline| {
        let (jitter, priority) = (Nanos::ZERO, 0);
        let service = ServiceTerms::Guaranteed { period, deadline, jitter, priority };
        Terms { service, ..sound.clone() }
    };
    let server = ServiceTerms::Server { budget: ms(2), period: Nanos::ZERO, priority: 0 };
    let background = Terms::background(Nanos::ZERO, Bytes::from_mib(1));
    for terms in [
        timed(Nanos::ZERO, ms(10)),
        timed(ms(10), Nanos::ZERO),
        Terms { costs: vec![Nanos::ZERO], ..sound.clone() },
        timed(Nanos::MAX, ms(10)),
        Terms { service: server, ..sound.clone() },
        background,
        Terms { costs: vec![ms(1), ms(1)], ..sound.clone() },
    ] {
        let error = attempt(terms.clone());
        assert!(matches!(error, Error::Admission { .. }), "{terms:?}: {error:?}");
        assert_eq!(error.category(), Category::Permanent);
    }
}

#[test]
fn absurd_limits_are_refused_before_anything_is_taken() {
    let error = builder().queue_depth(usize::MAX).trace_capacity(usize::MAX);
    let error = error.sim(Bytes::from_mib(1)).build().expect_err("absurd");
    let Error::Build { faults } = error else { panic!("{error}") };
    assert_eq!(faults.len(), 2, "{faults:?}");
    let runtime = runtime();
    for slots in [0, usize::MAX] {
        let model = runtime.load("m", &declared(&[ms(1)], Bytes(64))).expect("declared");
        let terms = Terms { slots, ..Terms::periodic(ms(1), ms(10), Bytes::from_mib(1)) };
        let error = runtime.admit(model, &terms).expect_err("absurd");
        assert!(matches!(error, Error::Admission { .. }), "{error}");
    }
    assert_eq!(runtime.report().memory.resident, Bytes::ZERO);
}

#[test]
fn a_release_claimed_in_the_future_counts_as_now() {
    let runtime = runtime();
    let model = admit(&runtime, "m", ms(1), ms(10)).expect("10 %");
    runtime.start().expect("first start");
    let job = model.submit_released(&input(), Some(Timestamp::NEVER)).expect("accepted");
    assert_eq!(job.wait().expect("ran").timing().response, ms(1));
    runtime.evict(&model).expect("nothing is held back");
}

#[test]
fn reporting_while_models_come_and_go_does_not_stand_still() {
    let runtime = runtime();
    std::thread::scope(|scope| {
        let reporter = scope.spawn(|| (0..2_000).map(|_| runtime.report().models.len()).max());
        for n in 0..100 {
            let model = admit(&runtime, &format!("m{n}"), ms(1), ms(10)).expect("10 %");
            runtime.evict(&model).expect("it is there");
        }
        reporter.join().expect("no panic");
    });
    assert_eq!(runtime.report().models.len(), 100);
}

#[test]
fn budgets_are_hard() {
    let runtime = runtime();
    let refusal = |terms: Terms, persistent: Bytes| {
        let model = runtime.load("m", &declared(&[ms(2)], persistent)).expect("declared");
        match runtime.admit(model, &terms).expect_err("over budget") {
            Error::Refused { refusal, .. } => refusal,
            other => panic!("{other}"),
        }
    };
    let terms = Terms::periodic(ms(2), ms(10), Bytes::from_mib(1));
    let with = |budget| Terms { budget, ..terms.clone() };
    let budget = ResourceBudget { memory: Bytes::from_mib(1), streams: 1, compute: ms(10) };
    assert!(matches!(
        refusal(with(budget), Bytes::from_mib(2)),
        Refusal::MemoryBudget { limit, .. } if limit == Bytes::from_mib(1)
    ));
    let all = ResourceBudget { memory: Bytes::from_gib(1), ..budget };
    assert!(matches!(
        refusal(with(all), Bytes::from_mib(65)),
        Refusal::DeviceMemory { limit, .. } if limit == Bytes::from_mib(64)
    ));
    let compute = ResourceBudget { compute: ms(1), ..budget };
    let expected = Refusal::ComputeBudget { needed: ms(2), limit: ms(1) };
    assert_eq!(refusal(with(compute), Bytes(64)), expected);
    let streams = ResourceBudget { streams: 2, ..budget };
    let expected = Refusal::Streams { needed: 2, available: 1 };
    assert_eq!(refusal(with(streams), Bytes(64)), expected);
    assert_eq!(runtime.report().memory.resident, Bytes::ZERO);
}

#[test]
fn a_refusal_says_what_planning_everything_anew_would_save() {
    let runtime = runtime();
    let ask = |name: &str, mib: u64| {
        let model =
            runtime.load(name, &declared(&[ms(1)], Bytes::from_mib(mib))).expect("declared");
        runtime.admit(model, &Terms::periodic(ms(1), ms(100), Bytes::from_mib(64)))
    };
    let first = ask("first", 20).expect("20 of 64 MiB");
    ask("second", 20).expect("40 of 64 MiB");
    runtime.evict(&first).expect("it is there");
    let refused = ask("third", 30).expect_err("neither the hole nor the rest holds 30 MiB");
    let Error::Refused { explained, refusal, .. } = &refused else { panic!("{refused:?}") };
    let saved = refusal.saved_by_replanning().expect("50 of 64 MiB fit");
    assert!(explained.contains(&format!("which saves {saved}")), "{explained}");
    assert!(saved >= Bytes::from_mib(20), "{saved}: the hole");
    assert!(refused.to_string().contains("planned anew"), "{refused}");
    let json = serde_json::to_value(refusal).expect("plain data");
    assert!(json.get("replanned").is_some_and(serde_json::Value::is_u64), "{json}");
    let hopeless = ask("fourth", 50).expect_err("70 of 64 MiB");
    let Error::Refused { refusal, .. } = &hopeless else { panic!("{hopeless:?}") };
    assert_eq!(refusal.saved_by_replanning(), None);
}

/// Low below 24 MiB and until 32 MiB, critical below 8 MiB and until 16 MiB.
fn thresholds() -> PressureThresholds {
    let band = |enter, leave| Band { enter: Bytes::from_mib(enter), leave: Bytes::from_mib(leave) };
    PressureThresholds { low: band(24, 32), critical: band(8, 16) }
}

#[test]
fn new_models_are_refused_while_memory_is_short_and_nothing_is_evicted() {
    let runtime = builder().sim(Bytes::from_mib(64)).pressure(thresholds()).build().expect("sound");
    let ask = |name: &str, mib: u64| {
        let need = Bytes(Bytes::from_mib(mib).0 - 4096); // With 4 KiB of scratch.
        let model = runtime.load(name, &declared(&[ms(1)], need)).expect("declared");
        runtime.admit(model, &Terms::periodic(ms(1), ms(100), Bytes::from_mib(64)))
    };
    let refusal = |name: &str| match ask(name, 1).expect_err("memory is short") {
        Error::Refused { refusal, .. } => refusal,
        other => panic!("{other}"),
    };
    let large = ask("large", 40).expect("all of 64 MiB were free");
    let medium = ask("medium", 9).expect("24 MiB were free, and low is below that");
    let level = |level, free| Refusal::MemoryPressure { level, free, needed: Bytes::from_mib(32) };
    let (low, critical) = (PressureLevel::Low, PressureLevel::Critical);
    let free = Bytes::from_mib(64) - runtime.report().memory.resident - Bytes::from_kib(4);
    assert_eq!(refusal("third"), level(low, free));
    assert_eq!(refusal("third").category(), Category::Transient);
    let models = runtime.report().models;
    assert!(models.iter().all(|model| !model.evicted) && models.len() == 2, "{models:?}");

    runtime.evict(&medium).expect("it is there");
    let free = Bytes::from_mib(64) - runtime.report().memory.resident - Bytes::from_kib(4);
    assert!(free >= thresholds().low.enter && free < thresholds().low.leave, "{free}: between");
    assert_eq!(refusal("third"), level(low, free), "it is left later than it is entered");
    runtime.evict(&large).expect("it is there");
    let all = ask("all", 60).expect("64 MiB are free");
    assert!(matches!(refusal("more"), Refusal::MemoryPressure { level, .. } if level == critical));
    runtime.evict(&all).expect("it is there");
    ask("again", 40).expect("64 MiB are free");

    let trace = trace(&runtime);
    let query = Query { kinds: vec![EventKind::PressureChanged], ..Query::default() };
    let changes = trace.query(&query).map(|record| match record.event {
        TraceEvent::PressureChanged { from, to, .. } => (from, to),
        ref other => unreachable!("{other:?} is not of this kind"),
    });
    let ample = PressureLevel::Ample;
    assert_eq!(
        changes.collect::<Vec<_>>(),
        [(ample, low), (low, ample), (ample, critical), (critical, ample)]
    );
}

/// Another program takes the device's memory: the level falls without anything of ours changing, the
/// caller learns which of the models it would give up are enough, and nothing goes by itself.
#[test]
fn pressure_follows_the_device_and_names_what_the_caller_would_give_up() {
    let runtime = builder().sim(Bytes::from_mib(64)).pressure(thresholds()).build().expect("sound");
    let admit = |name: &str, mib: u64| {
        let model =
            runtime.load(name, &declared(&[ms(1)], Bytes::from_mib(mib))).expect("declared");
        let terms = Terms::periodic(ms(1), ms(100), Bytes::from_mib(64));
        runtime.admit(model, &terms).expect("there is room")
    };
    let models = [admit("a", 2), admit("b", 6), admit("c", 8)];
    assert_eq!(runtime.observe_pressure(), Some(PressureLevel::Ample));
    assert_eq!(runtime.victims(&models).len(), 0);

    assert!(runtime.simulate_free_memory(Bytes::from_mib(7)));
    assert_eq!(runtime.observe_pressure(), Some(PressureLevel::Critical));
    // 16 MiB must be free: 7 + 2 are too few, 7 + 2 + 6 as well.
    let named = |victims: &[ModelHandle]| -> Vec<_> {
        victims.iter().map(|model| model.name().to_owned()).collect()
    };
    assert_eq!(named(&runtime.victims(&models)), ["a", "b", "c"]);
    assert_eq!(named(&runtime.victims(&models[1..2])), ["b"], "all there are, if not enough");
    let reversed = [models[2].clone(), models[1].clone(), models[0].clone()];
    assert_eq!(named(&runtime.victims(&reversed)), ["c", "b"], "in the caller's order");
    assert!(runtime.report().models.iter().all(|model| !model.evicted));

    runtime.evict(&models[2]).expect("it is there");
    runtime.simulate_free_memory(Bytes::from_mib(40));
    assert_eq!(runtime.victims(&models).len(), 0);
    assert_eq!(runtime.observe_pressure(), Some(PressureLevel::Ample));
}

/// The limit holds whoever asks, not only for workloads from a file; and its price is charged.
#[test]
fn admission_keeps_the_limit_on_suspended_models() {
    let runtime = builder().sim(Bytes::from_mib(64)).max_suspended(1).build().expect("sound");
    let ask = |name: &str, stages: &[Nanos], may_be_suspended: bool, period: Nanos| {
        let model = runtime.load(name, &declared(stages, Bytes::from_mib(1))).expect("declared");
        let terms = Terms::periodic(ms(1), period, Bytes::from_mib(8));
        runtime.admit(model, &Terms { costs: stages.to_vec(), may_be_suspended, ..terms })
    };
    let refusal = |asked: Result<ModelHandle, Error>| match asked.expect_err("refused") {
        Error::Refused { refusal, .. } => refusal,
        other => panic!("{other}"),
    };
    let first = ask("first", &[ms(2), ms(2)], true, ms(100)).expect("the first may");
    let second = ask("second", &[ms(2), ms(2)], true, ms(100));
    assert_eq!(refusal(second), Refusal::TooManySuspended { limit: 1 });
    ask("single", &[ms(2)], true, ms(100)).expect("one stage has nothing between");
    ask("whole", &[ms(2), ms(2)], false, ms(100)).expect("it is never suspended");
    runtime.evict(&first).expect("it is there");
    ask("second", &[ms(2), ms(2)], true, ms(100)).expect("there is room again");
    // Not suspended, three stages of 4 ms block a deadline of 10 ms; suspended they would not.
    ask("urgent", &[ms(1)], true, ms(10)).expect("it fits");
    let long = ask("long", &[ms(4), ms(4), ms(4)], false, ms(100));
    assert!(!matches!(refusal(long), Refusal::TooManySuspended { .. }));
}

#[test]
fn thresholds_that_name_no_levels_are_a_fault_of_the_configuration() {
    let PressureThresholds { low, critical } = thresholds();
    for unsound in [
        PressureThresholds { low: Band { leave: low.enter, ..low }, critical },
        PressureThresholds { low: critical, critical: low },
    ] {
        let built = builder().sim(Bytes::from_mib(64)).pressure(unsound).build();
        let Err(Error::Build { faults }) = built else { panic!("{unsound:?} is taken") };
        assert_eq!(faults.len(), 1, "{faults:?}");
    }
}

#[test]
fn checking_a_workload_refuses_what_it_leaves_no_free_memory_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    let model = |name: &str| {
        format!(
            "[[model]]\nname = \"{name}\"\nbackend = \"sim\"\nperiod = \"100ms\"\n\
             sim.stages = [\"1ms\"]\nsim.persistent = \"24MiB\"\n"
        )
    };
    let device = "scheduler = { policy = \"edf\", queue_depth = 8 }\n\
                  [device]\ndriver = \"sim\"\nmemory = \"64MiB\"\n\
                  pressure = { low_enter = \"24MiB\", low_leave = \"32MiB\", \
                  critical_enter = \"8MiB\", critical_leave = \"16MiB\" }\n";
    std::fs::write(&file, [device, &model("a"), &model("b"), &model("c")].concat())
        .expect("written");
    let (_, verdicts) = Pipeline::open(&file).expect("sound").check().expect("decided");
    let [a, b, c] = verdicts.as_slice() else { panic!("three models: {verdicts:?}") };
    assert!(a.outcome.is_ok() && b.outcome.is_ok(), "{verdicts:?}");
    let refused = c.outcome.as_ref().expect_err("16 MiB are free").to_string();
    assert_eq!(
        refused,
        "c is not admitted: free memory is low: 16 MiB free < 32 MiB that must be before new models \
         are accepted"
    );
}

#[test]
fn more_memory_than_the_machine_has_is_refused_at_the_start() {
    let error = builder().host(Bytes(1 << 60)).build().expect_err("an exabyte");
    assert!(matches!(error, Error::Device(_)), "{error:?}");
    assert_eq!(error.category(), Category::Permanent);
}

#[test]
fn a_full_house_is_refused() {
    let runtime = runtime();
    for n in 0..4 {
        admit(&runtime, &format!("m{n}"), Nanos(1_000), ms(10)).expect("room");
    }
    let error = admit(&runtime, "fifth", Nanos(1_000), ms(10)).expect_err("full");
    assert!(error.to_string().ends_with("the runtime was built for 4 models and holds as many"));
}

#[test]
fn inputs_are_checked_before_anything_is_submitted() {
    let runtime = runtime();
    let model = admit(&runtime, "m", ms(1), ms(10)).expect("10 %");
    let wrong = [
        vec![],
        vec![Tensor::f32("y", &[2], &[1.0, 2.0])],
        vec![Tensor::i64("x", &[2], &[1, 2])],
        vec![Tensor::f32("x", &[1, 2], &[1.0, 2.0])],
        vec![Tensor::f32("x", &[2], &[1.0])],
    ];
    for inputs in wrong {
        let error = model.submit(&inputs).expect_err("wrong");
        assert!(matches!(error, Error::Input(_)), "{error:?}");
    }
    assert_eq!(model.metrics().counts.submitted, 0);
}

#[test]
fn a_job_gives_its_outputs_and_its_timing() {
    let runtime = runtime();
    let model = admit(&runtime, "m", ms(1), ms(10)).expect("10 %");
    runtime.start().expect("first start");
    let outputs = model.submit(&input()).expect("accepted").wait().expect("ran");
    assert_eq!(outputs.f32("x").expect("an output"), [1.0, 2.0]);
    assert!(outputs.f32("z").is_err());
    assert_eq!((outputs.timing().response, outputs.timing().late), (ms(1), Nanos::ZERO));
}

#[test]
fn slots_and_queue_are_bounded_and_say_so() {
    let runtime = builder().queue_depth(1).sim(Bytes::from_mib(64)).build().expect("sim");
    let model = admit(&runtime, "m", ms(1), ms(10)).expect("10 %");
    let first = model.submit(&input()).expect("the queue has one place");
    let refusal = |error: Error| match error {
        Error::Submission { why } => why,
        other => panic!("{other}"),
    };
    let full = refusal(model.submit(&input()).expect_err("the queue is full"));
    assert_eq!((full, full.category()), (SubmitRefusal::QueueFull, Category::Transient));
    runtime.start().expect("first start");
    let outputs = first.wait().expect("ran");
    let second = model.submit(&input()).expect("room again");
    let none = refusal(model.submit(&input()).expect_err("both slots are held"));
    assert_eq!((none, none.category()), (SubmitRefusal::NoSlot, Category::Transient));
    drop((outputs, second));
    runtime.stop().expect("the device is there");
    let trace = trace(&runtime);
    let refused = |wanted: SubmitRefusal| {
        let of = |event: &TraceEvent| matches!(event, TraceEvent::SubmissionRefused { why, .. } if *why == wanted);
        trace.records.iter().filter(|record| of(&record.event)).count()
    };
    assert_eq!((refused(SubmitRefusal::QueueFull), refused(SubmitRefusal::NoSlot)), (1, 1));
}

#[test]
fn a_runtime_starts_once() {
    let runtime = runtime();
    runtime.start().expect("first start");
    assert!(matches!(runtime.start(), Err(Error::AlreadyStarted)));
    runtime.stop().expect("stops");
    runtime.stop().expect("stopping twice is stopping");
    assert!(matches!(runtime.start(), Err(Error::NotRunning)));
    assert!(matches!(admit(&runtime, "m", ms(1), ms(10)), Err(Error::NotRunning)));
}

#[test]
fn stopping_ends_every_job_one_way_or_the_other() {
    let runtime = builder().host(Bytes::from_mib(64)).build().expect("the host");
    let model = runtime.load("m", &declared(&[ms(5)], Bytes(64))).expect("declared");
    let terms = Terms { slots: 4, ..Terms::periodic(ms(50), ms(200), Bytes::from_mib(1)) };
    let model = runtime.admit(model, &terms).expect("25 %");
    let jobs: Vec<_> = (0..4).map(|_| model.submit(&input()).expect("accepted")).collect();
    runtime.start().expect("first start");
    runtime.stop().expect("stops");
    let (mut done, mut dropped) = (0, 0);
    for job in jobs {
        match job.wait() {
            Ok(_) => done += 1,
            Err(Error::Dropped { .. }) => dropped += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(done + dropped, 4);
    assert!(dropped >= 3, "the period holds back all but the first, so they had not begun");
    let refused = model.submit(&input()).expect("taken by nobody").wait();
    assert!(matches!(refused, Err(Error::Submission { why: SubmitRefusal::NotRunning })));
}

#[test]
fn a_runtime_stopped_before_its_start_ends_its_jobs_too() {
    let runtime = runtime();
    let model = admit(&runtime, "m", ms(1), ms(10)).expect("10 %");
    let jobs = [model.submit(&input()), model.submit(&input())];
    runtime.stop().expect("stops");
    for job in jobs {
        assert!(job.expect("accepted").wait().is_err());
    }
}

#[test]
fn an_evicted_model_refuses_jobs_and_gives_its_room_back() {
    for started in [false, true] {
        let runtime = runtime();
        let first = admit(&runtime, "first", ms(6), ms(10)).expect("60 %");
        if started {
            runtime.start().expect("first start");
            first.submit(&input()).expect("accepted").wait().expect("ran");
        }
        assert!(admit(&runtime, "second", ms(6), ms(10)).is_err());
        runtime.evict(&first).expect("it is there");
        let why = match first.submit(&input()) {
            Err(Error::Submission { why }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!((why, why.category()), (SubmitRefusal::ModelEvicted, Category::Permanent));
        assert!(matches!(runtime.evict(&first), Err(Error::UnknownModel)));
        let second = admit(&runtime, "second", ms(6), ms(10)).expect("room again");
        assert_ne!(first.id(), second.id());
        let report = runtime.report();
        assert!(report.models[0].evicted && !report.models[1].evicted);
    }
}

#[test]
fn models_come_and_go_while_others_run() {
    let runtime = Arc::new(builder().host(Bytes::from_mib(64)).build().expect("the host"));
    let steady = runtime.load("steady", &declared(&[Nanos(100_000)], Bytes(64))).expect("declared");
    let terms = Terms::periodic(ms(5), ms(50), Bytes::from_mib(1));
    let steady = runtime.admit(steady, &terms).expect("10 %");
    runtime.start().expect("first start");
    for n in 0..10 {
        let name = format!("guest{n}");
        let source = declared(&[Nanos(100_000)], Bytes(64));
        let guest = runtime.load(&name, &source).expect("declared");
        let guest = runtime.admit(guest, &terms).expect("10 %");
        let jobs = [steady.submit(&input()), guest.submit(&input())];
        for job in jobs {
            job.expect("accepted").wait().expect("ran");
        }
        runtime.evict(&guest).expect("it is there");
    }
    runtime.stop().expect("stops");
    assert_eq!(steady.metrics().counts.completed, 10);
    assert_eq!(count(&trace(&runtime), EventKind::Evicted), 10);
}

#[test]
fn a_full_trace_ring_counts_its_losses_visibly() {
    let runtime = builder().trace_capacity(4).sim(Bytes::from_mib(64)).build().expect("sim");
    let model = admit(&runtime, "m", ms(1), ms(10)).expect("10 %");
    runtime.start().expect("first start");
    for _ in 0..4 {
        model.submit(&input()).expect("accepted").wait().expect("ran");
    }
    runtime.stop().expect("stops");
    let trace = trace(&runtime);
    assert!(trace.dropped > 0);
    assert_eq!(trace.dropped, runtime.report().events_dropped);
}

#[test]
fn a_claimed_release_counts_from_where_it_was_claimed_up_to_the_jitter() {
    let runtime = runtime();
    let source = declared(&[ms(1)], Bytes(64));
    let model = runtime.load("m", &source).expect("declared");
    let (period, deadline, jitter) = (ms(10), ms(10), ms(2));
    let service = ServiceTerms::Guaranteed { period, deadline, jitter, priority: 0 };
    let terms = Terms { service, ..Terms::periodic(ms(1), ms(10), Bytes::from_mib(1)) };
    let model = runtime.admit(model, &terms).expect("10 %");
    runtime.start().expect("first start");
    // Virtual time moves only with work, so a first job brings the clock to 1 ms.
    model.submit(&input()).expect("accepted").wait().expect("ran");
    let claimed = model.submit_released(&input(), Some(Timestamp(0))).expect("accepted");
    let timing = *claimed.wait().expect("ran").timing();
    assert_eq!(timing.release, Timestamp(10_000_000), "one period after the first, never sooner");
}

/// A runtime with a camera of 4 ms every 10 ms, and a model of two stages of 2 ms on `service`.
fn beside_a_camera(service: ServiceTerms) -> (Runtime, ModelHandle, ModelHandle) {
    let runtime = runtime();
    let camera = admit(&runtime, "camera", ms(4), ms(10)).expect("40 %");
    let source = declared(&[ms(2), ms(2)], Bytes::from_kib(64));
    let other = runtime.load("other", &source).expect("declared");
    let memory = Bytes::from_mib(1);
    let costs = vec![ms(2), ms(2)];
    let terms = Terms { service, costs, slots: 4, ..Terms::background(ms(2), memory) };
    let other = runtime.admit(other, &terms).expect("2 ms block nobody");
    (runtime, camera, other)
}

const SERVER: ServiceTerms = ServiceTerms::Server {
    budget: Nanos::from_millis(2),
    period: Nanos::from_millis(10),
    priority: 0,
};

#[test]
fn best_effort_has_no_bound_and_is_never_late() {
    for service in [ServiceTerms::Background, SERVER] {
        let (runtime, camera, other) = beside_a_camera(service);
        runtime.start().expect("first start");
        let slow: Vec<_> = (0..4).map(|_| other.submit(&input()).expect("accepted")).collect();
        let response = camera.submit(&input()).expect("accepted").wait().expect("ran");
        assert!(response.timing().response <= ms(6), "{:?}", response.timing());
        for job in slow {
            let timing = *job.wait().expect("ran").timing();
            assert_eq!((timing.late, timing.execution), (Nanos::ZERO, ms(4)));
        }
        runtime.stop().expect("nothing failed");
        let report = runtime.report();
        let [camera, other] = &report.models[..] else { panic!("two models") };
        assert!(camera.bound.is_some_and(|bound| bound == ms(6) || bound == ms(8)), "{camera:?}");
        assert_eq!((other.bound, other.slack, other.deadline()), (None, None, None));
        assert_eq!((other.cost, other.observed.counts.completed), (ms(4), 4));
        assert_eq!(other.observed.counts.missed, 0);
        let in_background = service == ServiceTerms::Background;
        assert_eq!(whole(&report).background, if in_background { ms(2) } else { Nanos::ZERO });
    }
}

#[test]
fn stopping_ends_jobs_of_best_effort_wherever_they_wait() {
    for service in [ServiceTerms::Background, SERVER] {
        let (runtime, _, other) = beside_a_camera(service);
        runtime.start().expect("first start");
        let jobs: Vec<_> = (0..4).map(|_| other.submit(&input()).expect("accepted")).collect();
        runtime.stop().expect("nothing failed");
        for job in jobs {
            match job.wait() {
                Ok(outputs) => assert_eq!(outputs.timing().execution, ms(4), "whole or not at all"),
                Err(Error::Dropped { why, .. }) => assert_eq!(why, DropReason::Stopping),
                // Taken by nobody before the stop.
                Err(Error::Submission { why }) => assert_eq!(why, SubmitRefusal::NotRunning),
                Err(other) => panic!("{other}"),
            }
        }
        let counts = runtime.report().models[1].observed.counts;
        assert_eq!(counts.submitted, counts.completed + counts.stopped, "{counts:?}");
    }
}

#[test]
fn evicting_best_effort_while_running_finishes_its_jobs_and_frees_its_share() {
    for service in [ServiceTerms::Background, SERVER] {
        let (runtime, camera, other) = beside_a_camera(service);
        runtime.start().expect("first start");
        let jobs: Vec<_> = (0..4).map(|_| other.submit(&input()).expect("accepted")).collect();
        runtime.evict(&other).expect("it was there");
        for job in jobs {
            match job.wait() {
                Ok(outputs) => assert_eq!(outputs.timing().execution, ms(4)),
                // Not taken before the eviction began.
                Err(Error::Submission { why }) => assert_eq!(why, SubmitRefusal::ModelEvicted),
                Err(other) => panic!("{other}"),
            }
        }
        let report = runtime.report();
        assert_eq!((report.models[0].bound, whole(&report).background), (Some(ms(4)), Nanos::ZERO));
        assert!(matches!(runtime.evict(&other), Err(Error::UnknownModel)));
        camera.submit(&input()).expect("accepted").wait().expect("ran");
    }
}

#[test]
fn a_model_that_the_background_blocks_is_told_by_whom() {
    let (runtime, ..) = beside_a_camera(ServiceTerms::Background);
    let source = declared(&[ms(5), ms(5)], Bytes::from_kib(64));
    let second = runtime.load("second", &source).expect("declared");
    let mut terms = Terms::background(ms(5), Bytes::from_mib(1));
    terms.costs = vec![ms(5), ms(5)];
    runtime.admit(second, &terms).expect("5 ms block nobody");
    let error = admit(&runtime, "lidar", ms(1), ms(5)).expect_err("blocked for 5 ms");
    let Error::Refused { explained, .. } = error else { panic!("{error}") };
    assert!(explained.contains("blocking 5 ms by a stage of second"), "{explained}");
}

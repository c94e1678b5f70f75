//! A split device through the facade.
//!
//! Each partition has its own proof, queue and thread, and all have one memory, one trace and one set of
//! ids.

use std::path::Path;

use aegis::evidence::{Evidence, Here, PartitionFingerprint, Scenario};
use aegis::profile::{ProfileOptions, Subject, profile_under_load};
use aegis::workload::Workload;
use aegis::{
    Bytes, DeviceChoice, Error, EventKind, ModelHandle, ModelId, ModelSource, Nanos, Overheads,
    PartitionSpec, Pipeline, PolicyKind, Query, Realtime, Record, Refusal, Runtime, RuntimeBuilder,
    SimModel, Terms, Timestamp, Trace, TraceEvent, Verdict,
};
use expect_test::{Expect, expect};

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn builder() -> RuntimeBuilder {
    Runtime::builder()
        .streams(1)
        .policy(PolicyKind::Edf)
        .queue_depth(8)
        .max_models(4)
        .overheads(Overheads::default())
        .trace_capacity(1024)
        .partition(PartitionSpec::named("vision"))
        .partition(PartitionSpec {
            policy: Some(PolicyKind::Fifo),
            ..PartitionSpec::named("control")
        })
}

fn split() -> Runtime {
    builder().sim(Bytes::from_mib(64)).build().expect("a simulated device")
}

fn declared(cost: Nanos, persistent: Bytes, scratch: Bytes) -> ModelSource {
    let description = aegis::ModelDescription { inputs: vec![], outputs: vec![], stages: 1 };
    let model = SimModel { description, persistent, scratch, carried: Bytes::ZERO };
    ModelSource::Sim { model, costs: vec![cost] }
}

fn admit(
    runtime: &Runtime,
    partition: &str,
    name: &str,
    (cost, period): (Nanos, Nanos),
) -> Result<ModelHandle, Error> {
    let source = declared(cost, Bytes::from_kib(64), Bytes::from_kib(4));
    let model = runtime.load_in(partition, name, &source)?;
    runtime.admit(model, &Terms::periodic(cost, period, Bytes::from_mib(1)))
}

fn trace(runtime: &Runtime) -> Trace {
    Trace { records: runtime.take_trace(), dropped: runtime.report().events_dropped }
}

#[test]
fn what_one_device_cannot_hold_two_partitions_can() {
    let runtime = split();
    admit(&runtime, "vision", "lidar", (ms(30), ms(100))).expect("alone in its partition");
    // On the whole device one stage of the lidar would block it past its deadline.
    admit(&runtime, "control", "arm", (ms(1), ms(5))).expect("nobody blocks it");
    let refused = admit(&runtime, "vision", "camera", (ms(1), ms(5))).expect_err("blocked");
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    let report = runtime.report();
    assert_eq!(report.whole, None);
    let executors: Vec<_> = report
        .partitions
        .iter()
        .map(|of| (of.name.as_str(), of.executor.policy, of.executor.utilisation_ppm))
        .collect();
    assert_eq!(
        executors,
        [("vision", PolicyKind::Edf, 300_000), ("control", PolicyKind::Fifo, 200_000)]
    );
    let places: Vec<_> = report.models.iter().map(|m| m.partition.as_deref()).collect();
    assert_eq!(places, [Some("vision"), Some("control")]);
    assert_eq!(runtime.margins().len(), 2);
    assert_eq!(runtime.sensitivities().len(), 2);
}

#[test]
fn ids_are_unique_over_all_partitions() {
    let runtime = split();
    let mut ids: Vec<ModelId> = Vec::new();
    for index in 0..4 {
        for partition in ["vision", "control"] {
            let handle = admit(&runtime, partition, &format!("m{index}"), (ms(1), ms(100)));
            ids.push(handle.expect("a light load").id());
        }
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 8);
    let full = admit(&runtime, "control", "fifth", (ms(1), ms(100))).expect_err("four each");
    let Error::Refused { refusal, .. } = full else { panic!("{full}") };
    assert_eq!(refusal, Refusal::TooManyModels { limit: 4 });
}

#[test]
fn a_model_names_a_partition_that_is_there() {
    let source = declared(ms(1), Bytes(64), Bytes(64));
    let error = split().load_in("vison", "camera", &source).expect_err("misspelt");
    assert_eq!(
        error.to_string(),
        "camera is to run in the partition `vison`, and the partitions are vision, control"
    );
    let error = split().load("camera", &source).expect_err("where?");
    assert_eq!(
        error.to_string(),
        "camera is to run in no partition, and the partitions are vision, control"
    );
    let twice = builder().partition(PartitionSpec::named("vision")).sim(Bytes(1)).build();
    let error = twice.expect_err("two of one name").to_string();
    assert!(error.contains("two partitions called vision"), "{error}");
}

#[test]
fn memory_is_one_and_scratch_is_shared_within_a_partition() {
    let runtime = split();
    let ask = |partition: &str, name: &str, scratch: u64| {
        let source = declared(ms(1), Bytes::from_mib(1), Bytes::from_mib(scratch));
        let model = runtime.load_in(partition, name, &source).expect("declared");
        runtime.admit(model, &Terms::periodic(ms(1), ms(100), Bytes::from_mib(64)))
    };
    let scratch = || runtime.report().memory.scratch;
    ask("vision", "a", 20).expect("21 of 64");
    ask("vision", "b", 10).expect("22 of 64");
    assert_eq!(scratch(), Bytes::from_mib(20), "the larger of the two");
    let third = ask("control", "c", 30).expect("53 of 64");
    assert_eq!(scratch(), Bytes::from_mib(50), "and the other partition's beside it");
    let refused = ask("control", "d", 45).expect_err("4 + 20 + 45 of 64");
    let Error::Refused { refusal: Refusal::DeviceMemory { scratch: needed, .. }, .. } = refused
    else {
        panic!("{refused}")
    };
    assert_eq!(needed, Bytes::from_mib(65));
    runtime.evict(&third).expect("it is there");
    assert_eq!(scratch(), Bytes::from_mib(20));
    let report = runtime.report();
    let own: Vec<_> = report.models.iter().map(|model| model.scratch).collect();
    assert_eq!(own, [20, 10, 30].map(Bytes::from_mib), "nobody pays for another partition");
}

#[test]
fn each_partition_runs_in_its_own_time_and_one_trace_has_both() {
    let runtime = split();
    let lidar = admit(&runtime, "vision", "lidar", (ms(30), ms(100))).expect("30 %");
    let arm = admit(&runtime, "control", "arm", (ms(1), ms(5))).expect("20 %");
    runtime.start().expect("threads");
    let response = |model: &ModelHandle| {
        let outputs = model.submit(&[]).expect("room").wait().expect("it completes");
        outputs.timing().response
    };
    assert_eq!((response(&lidar), response(&arm)), (ms(30), ms(1)));
    runtime.evict(&lidar).expect("it is there");
    assert!(lidar.submit(&[]).is_err());
    assert_eq!(response(&arm), ms(1), "the other partition goes on");
    runtime.stop().expect("nothing hangs");
    let trace = trace(&runtime);
    let admitted: Vec<_> = trace.records.iter().filter_map(partition_of).collect();
    assert_eq!(admitted, ["vision", "control"]);
    let completed = Query { kinds: vec![EventKind::Completed], ..Query::default() };
    assert_eq!(trace.query(&completed).count(), 3);
    assert_eq!(runtime.report().misses(), 0);
}

fn partition_of(record: &Record) -> Option<String> {
    match &record.event {
        TraceEvent::Admitted { what, .. } => what.partition.clone(),
        _ => None,
    }
}

/// On the host a declared stage is a busy loop, long enough that the other thread gets to run.
#[test]
fn stages_of_two_partitions_are_on_the_device_at_once() {
    let runtime = builder().host(Bytes::from_mib(64)).build().expect("the CPU");
    let long = (ms(200), ms(10_000));
    let models = [("vision", "a"), ("control", "b")];
    let models = models.map(|(of, name)| admit(&runtime, of, name, long).expect("2 %"));
    runtime.start().expect("threads");
    let jobs = models.each_ref().map(|model| model.submit(&[]).expect("room"));
    for job in jobs {
        job.wait().expect("it completes");
    }
    runtime.stop().expect("nothing hangs");
    let trace = trace(&runtime);
    let span = |model: &ModelHandle| {
        let of = |begins: bool| {
            let is_it = |record: &&Record| match &record.event {
                TraceEvent::Dispatched { job, .. } => begins && job.model == model.id(),
                TraceEvent::Completed { job, .. } => !begins && job.model == model.id(),
                _ => false,
            };
            trace.records.iter().find(is_it).expect("it ran").at
        };
        (of(true), of(false))
    };
    let [(a_begins, a_ends), (b_begins, b_ends)]: [(Timestamp, Timestamp); 2] =
        models.each_ref().map(span);
    assert!(a_begins < b_ends && b_begins < a_ends, "{a_begins} {a_ends} {b_begins} {b_ends}");
}

/// A workload of two partitions; what tests append belongs to the last model.
const SPLIT: &str = r#"
device = { driver = "sim", memory = "64MiB" }
scheduler = { policy = "edf", queue_depth = 8 }
overheads = { dispatch = "0ns", wake = "0ns" }
[[partition]]
name = "vision"
sms = 72
[[partition]]
name = "control"
sms = 60
policy = "priority"
[[model]]
name = "lidar"
partition = "vision"
backend = "sim"
period = "100ms"
sim = { stages = ["30ms"], scratch = "8MiB" }
[[model]]
name = "arm"
partition = "control"
backend = "sim"
period = "5ms"
priority = 1
sim = { stages = ["1ms"], scratch = "4MiB" }
"#;

fn check_file(text: &str) -> (Pipeline, Runtime, Vec<Verdict>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("edge.toml");
    std::fs::write(&path, text).expect("written");
    let pipeline = Pipeline::open(&path).unwrap_or_else(|error| panic!("{error}"));
    let (runtime, verdicts) = pipeline.check().expect("decided");
    (pipeline, runtime, verdicts)
}

#[test]
fn a_workload_is_decided_partition_by_partition() {
    let (_, runtime, verdicts) = check_file(SPLIT);
    assert!(verdicts.iter().all(|verdict| verdict.outcome.is_ok()), "{verdicts:?}");
    let report = runtime.report();
    let partitions: Vec<_> =
        report.partitions.iter().map(|of| (of.name.as_str(), of.sms, of.executor.policy)).collect();
    assert_eq!(
        partitions,
        [("vision", Some(72), PolicyKind::Edf), ("control", Some(60), PolicyKind::Priority)]
    );
    assert_eq!(report.memory.scratch, Bytes::from_mib(12));
    // In one partition the long stage blocks the short period.
    let together = SPLIT.replace("partition = \"control\"", "partition = \"vision\"");
    let together = together
        .replace("[[partition]]\nname = \"control\"\nsms = 60\npolicy = \"priority\"\n", "");
    let (_, _, verdicts) = check_file(&together);
    let refused = verdicts[1].outcome.as_ref().expect_err("blocked by the lidar");
    assert!(refused.to_string().contains("lidar"), "{refused}");
}

#[test]
fn triggered_chains_stay_in_their_partition() {
    let text = format!(
        "{SPLIT}[[model]]\nname = \"gripper\"\npartition = \"control\"\nbackend = \"sim\"\n\
         period = \"5ms\"\npriority = 2\nsim.stages = [\"1ms\"]\n\
         [[chain]]\nname = \"grasp\"\nmodels = [\"arm\", \"gripper\"]\nkind = \"triggered\"\n\
         deadline = \"5ms\"\n"
    );
    let (pipeline, runtime, verdicts) = check_file(&text);
    assert!(verdicts.iter().all(|verdict| verdict.outcome.is_ok()), "{verdicts:?}");
    let chains = pipeline.chains(&runtime, &verdicts);
    // The arm takes 2 ms at most; the gripper, released as late, another 2 ms.
    assert_eq!(chains[0].bound, Some(ms(4)));
    assert_eq!(pipeline.margins(&runtime, &verdicts).len(), 2);
    let across = text.replace("\"gripper\"]", "\"lidar\"]");
    check_faults(
        &across,
        expect![[r#"
        error: edge.toml:34:18: `lidar` runs in another partition than the chain's first model
           |
        34 | models = ["arm", "lidar"]
           |                  ^^^^^^^ one partition for all of the chain
           |           ----- the first member"#]],
    );
}

fn check_faults(text: &str, expected: Expect) {
    let faults = Workload::parse(text, Path::new("edge.toml")).expect_err("the text has faults");
    expected.assert_eq(&faults.to_string());
}

#[test]
fn every_fault_of_a_partition_is_reported_with_what_would_be_right() {
    check_faults(
        &SPLIT.replace("partition = \"control\"", "partition = \"contrl\""),
        expect![[r#"
            error: edge.toml:20:13: there is no partition `contrl`
               |
            20 | partition = "contrl"
               |             ^^^^^^^^ one of vision, control"#]],
    );
    check_faults(
        &SPLIT.replace("partition = \"control\"\n", ""),
        expect![[r#"
        error: edge.toml:18:1: [[model]] lacks the key `partition`, which a split device needs
           |
         6 | name = "vision"
           |        -------- the first partition
        ...
        18 | [[model]]
           | ^^^^^^^^^ add partition = "..", one of vision, control"#]],
    );
    check_faults(
        &SPLIT.replace("name = \"control\"", "name = \"vision\""),
        expect![[r#"
        error: edge.toml:9:8: the name `vision` is taken
          |
        6 | name = "vision"
          |        -------- first used here
        ...
        9 | name = "vision"
          |        ^^^^^^^^ choose another"#]],
    );
    check_faults(
        &SPLIT.replace("partition = \"control\"", "partition = \"vision\""),
        expect![[r#"
            error: edge.toml:9:8: no model runs in the partition `control`
              |
            9 | name = "control"
              |        ^^^^^^^^^ leave it out, or write partition = "control" in a model"#]],
    );
}

#[test]
fn what_a_partition_has_for_itself_is_judged_where_it_is_stated() {
    check_faults(
        &SPLIT.replace("priority = 1\n", ""),
        expect![[r#"
        error: edge.toml:18:1: [[model]] lacks the key `priority`, which the policy `priority` needs
           |
        11 | policy = "priority"
           |          ---------- needed by this policy
        ...
        18 | [[model]]
           | ^^^^^^^^^ add priority = 1"#]],
    );
    check_faults(
        &SPLIT.replace("sms = 60", "sms = 0\nstreams = 1"),
        expect![[r#"
            error: edge.toml:10:7: `sms` is 0; it must be from 1 to 1024
               |
            10 | sms = 0
               |       ^ e.g. 72

            error: edge.toml:11:1: [[partition]] has no key `streams`
               |
            11 | streams = 1
               | ^^^^^^^ its keys are name, sms, policy, core"#]],
    );
}

#[test]
fn what_a_partition_asks_of_the_device_is_judged_by_the_device() {
    let cores = SPLIT.replace("sms = 72", "core = 1").replace("sms = 60", "core = 1");
    check_faults(
        &cores.replace("queue_depth = 8", "queue_depth = 8, core = 0"),
        expect![[r#"
        error: edge.toml:3:55: `core` is for one thread, and each partition has its own
          |
        3 | scheduler = { policy = "edf", queue_depth = 8, core = 0 }
          |                                                       ^ write it in each [[partition]]
        ...
        5 | [[partition]]
          | ------------- the first partition

        error: edge.toml:10:8: core 1 is taken
           |
         7 | core = 1
           |        - first asked for here
        ...
        10 | core = 1
           |        ^ choose another"#]],
    );
}

#[test]
fn a_partition_of_a_gpu_says_how_many_multiprocessors_it_takes() {
    let on_gpu = SPLIT.replace("driver = \"sim\"", "driver = \"cuda\", ordinal = 1");
    check_faults(
        &on_gpu.replace("sms = 60\n", ""),
        expect![[r#"
        error: edge.toml:8:1: [[partition]] lacks the key `sms`, which splits a GPU
          |
        2 | device = { driver = "cuda", ordinal = 1, memory = "64MiB" }
          |                     ------ the driver
        ...
        8 | [[partition]]
          | ^^^^^^^^^^^^^ add sms = 72"#]],
    );
    check_faults(
        &SPLIT.replace("driver = \"sim\"", "driver = \"sim\", ordinal = 1, wait = \"spin\""),
        expect![[r#"
            error: edge.toml:2:38: `ordinal` is not for the driver `sim`
              |
            2 | device = { driver = "sim", ordinal = 1, wait = "spin", memory = "64MiB" }
              |                                      ^ leave it out
              |                     ----- the driver

            error: edge.toml:2:48: `wait` is not for the driver `sim`
              |
            2 | device = { driver = "sim", ordinal = 1, wait = "spin", memory = "64MiB" }
              |                                                ^^^^^^ leave it out
              |                     ----- the driver"#]],
    );
    let whole = SPLIT.replace("[[partition]]\nname = \"vision\"\nsms = 72\n", "");
    let whole =
        whole.replace("[[partition]]\nname = \"control\"\nsms = 60\npolicy = \"priority\"\n", "");
    check_faults(
        &whole,
        expect![[r#"
        error: edge.toml:7:13: there is no partition `vision`
          |
        7 | partition = "vision"
          |             ^^^^^^^^ leave it out, or add [[partition]] with name = "vision"

        error: edge.toml:13:13: there is no partition `control`
           |
        13 | partition = "control"
           |             ^^^^^^^^^ leave it out, or add [[partition]] with name = "control""#]],
    );
}

/// Real networks are slow to load; what is measured does not matter here, only beside what. Declared
/// models need no evidence, so these are profiled through the library.
#[test]
fn models_are_measured_while_those_of_other_partitions_run() {
    let subject = |name: &str, partition| Subject {
        name: name.into(),
        source: declared(ms(1), Bytes(64), Bytes(64)),
        partition: Some(partition),
    };
    let subjects = [subject("camera", 0), subject("lidar", 0), subject("arm", 1)];
    let options = ProfileOptions {
        device: DeviceChoice::Host,
        memory: Bytes::from_mib(64),
        partitions: vec![
            PartitionSpec { sms: Some(72), ..PartitionSpec::named("vision") },
            PartitionSpec::named("control"),
        ],
        rounds: 5,
        spin: Nanos::ZERO,
        realtime: false,
        uploads_ahead: false,
    };
    let mut steps = Vec::new();
    let evidence =
        profile_under_load(&subjects, &options, &[], |done, all| steps.push((done, all)));
    let evidence = evidence.expect("profiled");
    // Five rounds of warming up; then two scenarios of two partitions, five rounds each.
    assert_eq!(steps.last(), Some(&(25, 25)));
    let busy = |model: &str| {
        let measured = &evidence.models[model];
        assert_eq!(measured.samples.count(), 5);
        assert!(measured.scenarios.contains_key(&Scenario::Alone), "the others' cost shows");
        measured.partition.as_ref().expect("the device is split").to_string()
    };
    assert_eq!(busy("camera"), "in the partition vision of 72 SMs beside arm");
    assert_eq!(busy("arm"), "in the partition control beside camera, lidar");
    assert_eq!(evidence.models["camera"].background, ["lidar"]);
    assert!(evidence.models["arm"].background.is_empty());
    // Declared costs are the least that a stage takes.
    let times = evidence.models.values().flat_map(|model| &model.samples.stages()[0]);
    assert!(times.clone().all(|time| *time >= ms(1)));

    let device = evidence.device.clone();
    let (environment, accepted) = (&evidence.environment.clone(), &[][..]);
    let ask = |evidence: &Evidence, partition: Option<&PartitionFingerprint>| {
        let here = Here { device: &device, environment, partition, accepted };
        evidence.of("camera", &subjects[0].source, here).map(drop).map_err(|e| e.to_string())
    };
    let here = PartitionFingerprint::new("vision".into(), Some(72), vec!["arm".into()]);
    assert_eq!(ask(&evidence, Some(&here)), Ok(()));
    let granted = here.clone().granted(Some(80));
    assert_eq!(ask(&evidence, Some(&granted)), Ok(()), "a host grants none, so nothing differs");
    let fewer = PartitionFingerprint { sms: Some(64), ..here.clone() };
    let busier = PartitionFingerprint { busy: vec!["arm".into(), "leg".into()], ..here };
    for other in [Some(&fewer), Some(&busier), None] {
        let error = ask(&evidence, other).expect_err("measured elsewhere");
        assert!(error.contains("in the partition vision of 72 SMs beside arm"), "{error}");
    }
    // A driver that rounds up another way runs the model elsewhere than it was measured.
    let mut of_gpu = evidence.clone();
    let camera = of_gpu.models.get_mut("camera").expect("it was measured");
    camera.partition = Some(granted.clone());
    assert_eq!(ask(&of_gpu, Some(&granted)), Ok(()));
    let error = ask(&of_gpu, Some(&granted.granted(Some(72)))).expect_err("eight SMs less");
    assert!(error.contains("of 72 SMs (80 granted)") && error.contains("(72 granted)"), "{error}");
}

#[test]
fn a_split_is_compared_with_the_whole_device() {
    let (pipeline, _, _) = check_file(SPLIT);
    let (runtime, verdicts) =
        pipeline.check_unsplit().expect("it is split").expect("declared costs need no evidence");
    assert!(verdicts[1].outcome.is_err(), "30 ms block a deadline of 5 ms");
    assert!(runtime.report().whole.is_some_and(|whole| whole.policy == PolicyKind::Edf));
    let whole = pipeline.unsplit().expect("it is split");
    assert!(whole.evidence_path().ends_with("edge.whole.evidence.json"));
    assert!(whole.unsplit().is_none());

    let by_priority = SPLIT.replace("policy = \"edf\"", "policy = \"priority\"");
    let by_priority = by_priority.replace("sms = 72", "sms = 72\npolicy = \"edf\"");
    let (pipeline, _, _) = check_file(&by_priority);
    let error = pipeline.check_unsplit().expect("it is split").map(drop).expect_err("no priority");
    assert!(error.to_string().contains("lidar, which states none"), "{error}");
}

#[test]
fn the_thread_of_each_partition_asks_for_its_own_core() {
    let pinned = PartitionSpec { core: Some(0), ..PartitionSpec::named("pinned") };
    let absent = PartitionSpec { core: Some(1023), ..PartitionSpec::named("absent") };
    let runtime = builder().partition(pinned).partition(absent).host(Bytes::from_mib(64)).build();
    let runtime = runtime.expect("the CPU");
    runtime.start().expect("threads");
    let cores: Vec<Realtime> =
        runtime.realtime().into_iter().map(|of| of.orchestrator.core).collect();
    runtime.stop().expect("nothing hangs");
    assert_eq!(cores[..3], [Realtime::NotRequested, Realtime::NotRequested, Realtime::Granted]);
    assert!(matches!(cores[3], Realtime::Refused { .. }), "and it runs all the same");
    let shared = builder().core(0).host(Bytes::from_mib(64)).build().expect_err("four threads");
    assert!(shared.to_string().contains("core 0 is asked for all partitions"), "{shared}");
}

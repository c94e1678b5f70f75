//! Chains of a workload: what is wrong with them, what is proved, and what they do in virtual time.

use std::path::Path;
use std::sync::Arc;

use aegis::drive::{Driven, DrivenChain, Load, Sources};
use aegis::workload::{ChainKind, FaultKind, Workload, WorkloadFaults};
use aegis::{
    Bytes, ChainRefusal, Error, ModelDescription, ModelHandle, ModelSource, Nanos, Overheads,
    Pipeline, PolicyKind, Runtime, ServiceTerms, SimModel, SubmitRefusal, Terms, Timestamp,
    TraceEvent, Verdict,
};
use expect_test::expect;

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

/// Three models of 4, 10 and 2 ms; what follows belongs to the file.
fn workload(chains: &str) -> String {
    let model = |name: &str, stages: &str, more: &str| {
        format!(
            "[[model]]\nname = \"{name}\"\nbackend = \"sim\"\nperiod = \"50ms\"\n\
             sim = {{ stages = {stages} }}\n{more}\n"
        )
    };
    format!(
        "device = {{ driver = \"sim\", memory = \"64MiB\" }}\n\
         scheduler = {{ policy = \"edf\", queue_depth = 8 }}\n\
         overheads = {{ dispatch = \"0ms\", wake = \"1ms\" }}\n{}{}{}{chains}",
        model("camera", r#"["4ms"]"#, "jitter = \"2ms\""),
        model("detector", r#"["5ms", "5ms"]"#, "jitter = \"3ms\""),
        model("tracker", r#"["2ms"]"#, ""),
    )
}

const PERCEPTION: &str = r#"
[[chain]]
name = "perception"
models = ["camera", "detector", "tracker"]
kind = "triggered"
"#;

fn parse(text: &str) -> Result<Workload, WorkloadFaults> {
    Workload::parse(text, Path::new("edge.toml"))
}

/// What admission says about a workload.
fn check(text: &str) -> (Pipeline, Runtime, Vec<Verdict>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("edge.toml");
    std::fs::write(&path, text).expect("a file");
    let pipeline = Pipeline::open(&path).unwrap_or_else(|error| panic!("{error}"));
    let (runtime, verdicts) = pipeline.check().expect("nothing is missing");
    (pipeline, runtime, verdicts)
}

#[test]
fn a_chain_is_read_with_what_it_implies() {
    let workload = parse(&workload(&format!("{PERCEPTION}deadline = \"70ms\""))).expect("sound");
    let [chain] = &workload.chains[..] else { panic!("one chain") };
    assert_eq!((chain.name.as_str(), chain.kind), ("perception", ChainKind::Triggered));
    assert_eq!((&chain.models[..], chain.deadline), (&[0, 1, 2][..], Some(ms(70))));
    let deadlines: Vec<Nanos> = workload.models.iter().map(|model| model.deadline).collect();
    assert_eq!(deadlines, [ms(70); 3], "they count from the chain's arrival");
    let jitters: Vec<Nanos> = workload.models.iter().map(|model| model.jitter).collect();
    assert_eq!(jitters, [ms(2), ms(3), ms(1)], "a thread must wake to hand over");
}

#[test]
fn a_short_deadline_and_a_sampled_chain_imply_nothing() {
    let short = parse(&workload(&format!("{PERCEPTION}deadline = \"30ms\""))).expect("sound");
    assert!(short.models.iter().all(|model| model.deadline == ms(50)));
    let sampled = PERCEPTION.replace("triggered", "sampled");
    let sampled = parse(&workload(&format!("{sampled}deadline = \"900ms\""))).expect("sound");
    assert!(sampled.models.iter().all(|model| model.deadline == ms(50)));
    assert_eq!(sampled.models[2].jitter, Nanos::ZERO);
}

// tidy: long because it is one file and its whole rendering, to be read side by side.
#[test]
fn every_fault_of_a_chain_is_reported_at_once() {
    let text = workload(
        r#"
[[model]]
name = "logger"
backend = "sim"
period = "20ms"
best_effort = true
sim.stages = ["1ms"]
[[model]]
name = "planner"
backend = "sim"
period = "100ms"
sim.stages = ["1ms"]
[[chain]]
name = "first"
models = ["camera", "detektor", "planner", "logger", "camera"]
kind = "triggered"
max_age = "1ms"
[[chain]]
name = "first"
models = ["camera", "tracker"]
kind = "triggered"
deadlne = "50ms"
[[chain]]
models = ["tracker"]
kind = "polled"
"#,
    );
    let faults = parse(&text).expect_err("faults").to_string();
    expect![[r#"
        error: edge.toml:36:21: there is no model `detektor`
           |
        36 | models = ["camera", "detektor", "planner", "logger", "camera"]
           |                     ^^^^^^^^^^ the name of a [[model]]

        error: edge.toml:36:33: `planner` has the period 100 ms and the chain that triggers it 50 ms; they must be equal
           |
        32 | period = "100ms"
           |          ------- its period
        ...
        36 | models = ["camera", "detektor", "planner", "logger", "camera"]
           |                                 ^^^^^^^^^ its period must be 50 ms

        error: edge.toml:36:44: `logger` is of best effort, and a chain is made of promises
           |
        24 | name = "logger"
           |        -------- the model
        ...
        36 | models = ["camera", "detektor", "planner", "logger", "camera"]
           |                                            ^^^^^^^^ a model with deadlines

        error: edge.toml:36:54: `camera` is in the chain already
           |
        36 | models = ["camera", "detektor", "planner", "logger", "camera"]
           |                                                      ^^^^^^^^ leave it out
           |           -------- first named here

        error: edge.toml:38:11: `max_age` is for sampled chains alone
           |
        37 | kind = "triggered"
           |        ----------- the kind
        38 | max_age = "1ms"
           |           ^^^^^ leave it out

        error: edge.toml:40:8: the name `first` is taken
           |
        35 | name = "first"
           |        ------- first used here
        ...
        40 | name = "first"
           |        ^^^^^^^ choose another

        error: edge.toml:41:11: `camera` is in two triggered chains
           |
        36 | models = ["camera", "detektor", "planner", "logger", "camera"]
           |           -------- the other one
        ...
        41 | models = ["camera", "tracker"]
           |           ^^^^^^^^ give it a model of its own

        error: edge.toml:43:1: [[chain]] has no key `deadlne`
           |
        43 | deadlne = "50ms"
           | ^^^^^^^ did you mean `deadline`?

        error: edge.toml:44:1: [[chain]] lacks the key `name`
           |
        44 | [[chain]]
           | ^^^^^^^^^ add name = "perception"

        error: edge.toml:45:10: `models` is of length 1; it must be from 2 to 256
           |
        45 | models = ["tracker"]
           |          ^^^^^^^^^^^ e.g. ["front_detector", "tracker"]

        error: edge.toml:46:8: there is no kind `polled`; write one of sampled, triggered
           |
        46 | kind = "polled"
           |        ^^^^^^^^"#]]
    .assert_eq(&faults);
}

#[test]
fn a_model_without_a_name_may_be_any_that_a_chain_names() {
    let text = workload(PERCEPTION).replace("name = \"tracker\"", "name = \"Tracker\"");
    let faults = parse(&text).expect_err("a bad name");
    assert!(matches!(faults.faults(), [only] if matches!(only.kind, FaultKind::BadName { .. })));
}

/// The jitter with which a model was admitted.
fn jitter(runtime: &Runtime, name: &str) -> Nanos {
    let report = runtime.report();
    let model = report.models.iter().find(|model| model.name == name).expect("admitted");
    let ServiceTerms::Guaranteed { jitter, .. } = model.service else { panic!("guaranteed") };
    jitter
}

fn bound(runtime: &Runtime, name: &str) -> Nanos {
    let report = runtime.report();
    let model = report.models.iter().find(|model| model.name == name).expect("admitted");
    model.bound.expect("guaranteed")
}

#[test]
fn members_are_admitted_with_the_bound_of_their_trigger_as_jitter() {
    let text = workload(PERCEPTION).replace("\"edf\"", "\"fifo\"");
    let (pipeline, runtime, verdicts) = check(&format!("{text}deadline = \"60ms\""));
    assert!(verdicts.iter().all(|verdict| verdict.outcome.is_ok()));
    assert_eq!(jitter(&runtime, "camera"), ms(2));
    assert_eq!(jitter(&runtime, "detector"), bound(&runtime, "camera") + ms(3));
    assert_eq!(jitter(&runtime, "tracker"), bound(&runtime, "detector") + ms(1));
    let [chain] = &pipeline.chains(&runtime, &verdicts)[..] else { panic!("one chain") };
    assert_eq!(chain.bound, Some(bound(&runtime, "tracker")));
    assert_eq!(chain.slack, Some(ms(60) - bound(&runtime, "tracker")));
    assert_eq!((chain.age, &chain.refused[..]), (None, &[][..]));
}

#[test]
fn a_bound_beyond_what_a_chain_asks_for_is_an_inequality() {
    let (pipeline, runtime, verdicts) =
        check(&workload(&format!("{PERCEPTION}deadline = \"9ms\"")));
    assert!(verdicts.iter().all(|verdict| verdict.outcome.is_ok()));
    let [chain] = &pipeline.chains(&runtime, &verdicts)[..] else { panic!("one chain") };
    let (bound, deadline) = (bound(&runtime, "tracker"), ms(9));
    assert_eq!(chain.refused, [ChainRefusal::ResponseExceedsDeadline { bound, deadline }]);
    assert_eq!(chain.slack, None);
}

#[test]
fn a_sampled_chain_is_bounded_for_inputs_that_come_with_the_job() {
    let sampled = PERCEPTION.replace("triggered", "sampled");
    let asked = format!("{sampled}deadline = \"100ms\"\nmax_age = \"500ms\"");
    let (pipeline, runtime, verdicts) = check(&workload(&asked));
    let [chain] = &pipeline.chains(&runtime, &verdicts)[..] else { panic!("one chain") };
    let responses: Nanos =
        ["camera", "detector", "tracker"].iter().map(|name| bound(&runtime, name)).sum();
    let reaction = ms(150) + responses;
    assert_eq!((chain.bound, chain.age), (Some(reaction), Some(reaction - ms(50))));
    let refusal = ChainRefusal::ReactionExceedsDeadline { bound: reaction, deadline: ms(100) };
    assert_eq!(chain.refused, [refusal]);
}

/// A model that the chain's members tolerate alone, and not with the jitters that it causes.
#[test]
fn who_makes_a_trigger_too_late_is_refused_though_admission_alone_would_not() {
    let newcomer = "\n[[model]]\nname = \"lidar\"\nbackend = \"sim\"\nperiod = \"200ms\"\n\
                    sim = { stages = [\"9ms\"] }\n";
    let with = |chain: &str| workload(&format!("{newcomer}{chain}"));
    let (_, _, alone) = check(&with("").replace("jitter = \"3ms\"", ""));
    assert!(alone.iter().all(|verdict| verdict.outcome.is_ok()), "without the chain all is well");
    let (pipeline, runtime, verdicts) = check(&with(PERCEPTION));
    let refused = verdicts.iter().filter(|verdict| verdict.outcome.is_err());
    let refused: Vec<&str> = refused.map(|verdict| verdict.model.as_str()).collect();
    assert_eq!(refused, ["lidar"]);
    let Err(Error::Refused { explained, .. }) = &verdicts[3].outcome else { panic!("refused") };
    assert!(explained.contains("tracker"), "{explained}");
    let [chain] = &pipeline.chains(&runtime, &verdicts)[..] else { panic!("one chain") };
    assert!(chain.refused.is_empty(), "what was kept is kept");
    assert!(chain.bound < Some(ms(50)));
}

/// Runs one instance of a chain: when it arrived and how long it took.
fn instance(members: &[&ModelHandle]) -> (Timestamp, Nanos) {
    let first = members[0].submit(&[]).expect("accepted").wait().expect("ran");
    let arrival = first.timing().release;
    let mut last = *first.timing();
    for member in &members[1..] {
        let job = member.submit_released(&[], Some(arrival)).expect("accepted");
        last = *job.wait().expect("ran").timing();
        assert_eq!(last.release, arrival, "the regulator and the audit take the claim");
    }
    (arrival, last.response)
}

#[test]
fn in_virtual_time_a_chain_takes_what_its_members_cost() {
    let (_, runtime, verdicts) = check(&workload(PERCEPTION));
    let handle = |verdict: &Verdict| verdict.outcome.as_ref().expect("admitted").clone();
    let handles: Vec<ModelHandle> = verdicts.iter().map(handle).collect();
    let members: Vec<&ModelHandle> = handles.iter().collect();
    runtime.start().expect("first start");
    let mut before: Option<Timestamp> = None;
    for _ in 0..20 {
        let (arrival, took) = instance(&members);
        assert_eq!(took, ms(4 + 10 + 2));
        assert!(took <= bound(&runtime, "tracker"));
        if let Some(before) = before {
            assert!(arrival - before >= ms(50), "the first member keeps its period");
        }
        before = Some(arrival);
    }
    runtime.stop().expect("nothing failed");
    let report = runtime.report();
    assert_eq!(report.misses(), 0);
    let broken: u64 = report.models.iter().map(|m| m.observed.counts.broken.total()).sum();
    assert_eq!(broken, 0, "every submission came within its inherited jitter");
}

/// Two models of `cost` every `period` on the host, the second with a jitter that tolerates any hand-over.
fn on_the_host(cost: Nanos, period: Nanos) -> (Runtime, Sources) {
    let runtime = Runtime::builder()
        .host(Bytes::from_mib(64))
        .streams(1)
        .policy(PolicyKind::Fifo)
        .queue_depth(64)
        .max_models(2)
        .overheads(Overheads::default())
        .trace_capacity(4096)
        .build()
        .expect("a host");
    let admit = |name: &str, jitter: Nanos| {
        let description = ModelDescription { inputs: vec![], outputs: vec![], stages: 1 };
        let (persistent, scratch) = (Bytes(64), Bytes(64));
        let model = SimModel { description, persistent, scratch, carried: Bytes::ZERO };
        let source = ModelSource::Sim { model, costs: vec![cost] };
        let loaded = runtime.load(name, &source).expect("declared");
        let (deadline, priority) = (ms(60_000), 0);
        let service = ServiceTerms::Guaranteed { period, deadline, jitter, priority };
        let terms =
            Terms { service, slots: 8, ..Terms::periodic(cost, period, Bytes::from_mib(1)) };
        let handle = runtime.admit(loaded, &terms).expect("a light load");
        Driven::with_sample_inputs(handle, period)
    };
    let members = vec![admit("first", Nanos::ZERO), admit("second", ms(30_000))];
    let chain = DrivenChain { name: "both".into(), members, deadline: Some(ms(60_000)) };
    (runtime, Sources { models: Vec::new(), chains: vec![chain] })
}

#[test]
fn an_instance_whose_next_member_is_gone_is_lost() {
    let (runtime, sources) = on_the_host(Nanos::from_micros(100), ms(20));
    let second = sources.chains[0].members[1].model.clone();
    runtime.start().expect("first start");
    runtime.evict(&second).expect("it is there");
    let load = Load::start(sources, Arc::clone(runtime.clock())).expect("threads");
    // Of two that were turned away, the first is counted by now.
    let mut refused = 0;
    while refused < 2 {
        refused += refusals(&runtime);
        std::thread::yield_now();
    }
    let load = load.end();
    runtime.stop().expect("nothing failed");
    let summary = load.summary();
    let [chain] = &summary.chains[..] else { panic!("one chain") };
    assert_eq!(chain.completed, 0);
    assert!(chain.lost >= 1, "{summary:?}");
    // One under way when everything stops is lost too, without a submission that was turned away.
    assert!(summary.refused >= 1, "{summary:?}");
}

/// Submissions to a model that is gone since the last look.
fn refusals(runtime: &Runtime) -> usize {
    let records = runtime.take_trace();
    let refused = |record: &&aegis::Record| {
        matches!(
            record.event,
            TraceEvent::SubmissionRefused { why: SubmitRefusal::ModelEvicted, .. }
        )
    };
    records.iter().filter(refused).count()
}

/// Nothing is lost by a load that ends: its last instances end with the runtime.
#[test]
fn a_load_that_ends_waits_for_the_runtime_and_calls_nothing_lost() {
    let (runtime, sources) = on_the_host(ms(300), ms(1_000));
    let first = sources.chains[0].members[0].model.clone();
    runtime.start().expect("first start");
    let load = Load::start(sources, Arc::clone(runtime.clock())).expect("threads");
    while first.metrics().counts.submitted == 0 {
        std::thread::yield_now();
    }
    let load = load.end();
    runtime.stop().expect("nothing failed");
    let summary = load.summary();
    assert_eq!((summary.chains[0].completed, summary.chains[0].lost), (0, 0), "{summary:?}");
    assert_eq!(summary.refused, 0);
}

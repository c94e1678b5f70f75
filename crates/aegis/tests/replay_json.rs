//! The JSON of `aegis replay` and `aegis explain`, held to its documentation.
//!
//! Answers about hostile worlds, which between them have every key with every type that it can have: both
//! must be exactly what the tables of `docs/formats.md` say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aegis::PolicyKind;
use aegis::replay::{CutTrace, TraceFile};
use aegis_cuda::SimFault;
use aegis_sched::dispatch::OverrunPolicy;
use aegis_sched::replay::{Ending, Extent, replay};
use aegis_sched::sim::{
    Arrivals, Behaviour, Costs, Model, ModelService, Random, Seed, World, WorldConfig,
};
use aegis_sched::task::Overheads;
use aegis_trace::export::json::Writer;
use aegis_trace::{Bytes, JobId, Nanos, Record, StageIndex, Trace, TraceEvent};
use serde_json::Value;

const FORMATS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/formats.md"));

const POLICIES: [PolicyKind; 5] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority];

/// The types of a key, by its path: `executors[].policy`.
type Keys = BTreeMap<String, BTreeSet<String>>;

/// The tables behind `heading`, up to the next one: each row has a path, its types, and what it means.
fn documented(heading: &str) -> (Keys, BTreeMap<String, BTreeSet<String>>) {
    let (_, after) = FORMATS.split_once(heading).expect("the document has the heading");
    let section = after.split_once("\n##").map_or(after, |(section, _)| section);
    let (mut keys, mut words) = (Keys::new(), BTreeMap::new());
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, paths, types, meaning, _] = cells[..] else { panic!("three cells: {line}") };
        let types: BTreeSet<String> =
            types.split(" or ").map(|of| of.split(',').next().unwrap_or(of).to_owned()).collect();
        let quoted = |text: &str| -> BTreeSet<String> {
            text.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
        };
        for path in quoted(paths) {
            words.insert(path.clone(), quoted(meaning));
            assert!(keys.insert(path.clone(), types.clone()).is_none(), "`{path}` twice");
        }
    }
    (keys, words)
}

/// What answers have.
#[derive(Debug, Default)]
struct Found {
    types: Keys,
    /// The values of texts.
    texts: Keys,
    /// How often each path is there; of objects also those in lists.
    counts: BTreeMap<String, usize>,
}

impl Found {
    /// Adds what `value` has. An event or refusal of the log is described there, and not gone into.
    fn collect(&mut self, path: &str, value: &Value) {
        *self.counts.entry(path.to_owned()).or_default() += usize::from(!value.is_null());
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) => {
                assert!(number.is_u64(), "{path}: {number}");
                "integer"
            }
            Value::String(text) => {
                self.texts.entry(path.to_owned()).or_default().insert(text.clone());
                "text"
            }
            Value::Array(items) => {
                items.iter().for_each(|item| self.collect(&format!("{path}[]"), item));
                "list"
            }
            Value::Object(fields) => {
                for (key, value) in fields.iter().filter(|_| !OF_THE_LOG.contains(&path)) {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    *self.counts.entry(format!("{path} as a key")).or_default() += 1;
                    self.collect(&path, value);
                }
                "object"
            }
        };
        // What a list is of, and the answer itself, have no row.
        if !path.is_empty() && !path.ends_with(']') {
            self.types.entry(path.to_owned()).or_default().insert(kind.to_owned());
        }
    }

    /// Says which keys are not in every object that they belong to.
    fn note_absences(&mut self) {
        for (path, types) in &mut self.types {
            let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
            let here = self.counts[&format!("{path} as a key")];
            // An ending is text, or an object of one key that says what it is of.
            if parent != "ending" && here < self.counts[parent] {
                types.insert("absent".to_owned());
            }
        }
    }
}

/// What no answer about our own logs can have: a bound exceeded with every assumption intact would be a
/// defect.
const UNSEEN: [(&str, &str); 1] = [("exceeded.cause", "null")];

const OF_THE_LOG: [&str; 3] =
    ["divergence.logged", "divergence.replayed", "what_if[].models[].refused"];

/// Holds what `answers` have to the section behind `heading`, and the texts at `closed` paths to the
/// words that their rows quote.
fn check(heading: &str, answers: &[Value], closed: &[&str]) {
    let (keys, words) = documented(heading);
    let mut found = Found::default();
    answers.iter().for_each(|answer| found.collect("", answer));
    found.note_absences();
    for (path, kind) in UNSEEN {
        if let Some(types) = found.types.get_mut(path) {
            assert!(types.insert(kind.to_owned()), "a defect: {path} is {kind}");
        }
    }
    let paths: BTreeSet<&String> = keys.keys().chain(found.types.keys()).collect();
    let both = paths.iter().map(|path| (path, keys.get(*path), found.types.get(*path)));
    let differ: Vec<_> = both.filter(|(_, said, seen)| said != seen).collect();
    assert!(differ.is_empty(), "key, documented and seen types: {differ:#?}");
    for path in closed {
        let unknown: Vec<_> = found.texts[*path].difference(&words[*path]).collect();
        assert!(unknown.is_empty(), "`{path}` has {unknown:?}");
    }
}

/// A model of any service, whose jobs come early, late, fail, overrun.
fn model(name: &str, random: &mut Random) -> Model {
    let period = random.between(200, 3_000);
    let count = random.between(1, 3);
    let stages: Vec<Nanos> = (0..count).map(|_| Nanos(random.between(1, period / 10))).collect();
    let longest = stages.iter().copied().max().unwrap_or(Nanos(1));
    let service = match random.up_to(4) {
        0 => ModelService::Background,
        1 => ModelService::Server { budget: longest + Nanos(300), period: Nanos(period * 2) },
        _ => ModelService::Guaranteed,
    };
    let arrivals = match random.up_to(3) {
        0 => Arrivals::Periodic { offset: Nanos(random.up_to(period)) },
        1 => Arrivals::Jittered,
        2 => Arrivals::TooEarly,
        _ => Arrivals::AfterLaunch,
    };
    let fault = match random.up_to(5) {
        0 => SimFault::LaunchFailure,
        1 => SimFault::ExecutionFailure,
        2 => SimFault::DeviceLost,
        _ => SimFault::Overrun { extra: Nanos(random.between(50, 20_000)) },
    };
    let faults = random.once_in(2).then_some((StageIndex(0), random.up_to(9), fault));
    Model {
        service,
        jitter: Nanos(random.up_to(period / 4)),
        deadline: Nanos(random.between(period / 2 + 1, period * 2)),
        priority: u32::try_from(random.up_to(4)).expect("small"),
        stages,
        scratch: Bytes::from_kib(4),
        behaviour: Behaviour { arrivals, costs: Costs::UpTo, faults: faults.into_iter().collect() },
        ..Model::periodic(name, Nanos(1), Nanos(period))
    }
}

/// A world in which models come and go.
fn world(seed: u64) -> Trace {
    let mut random = Random::new(Seed(seed));
    let overheads = Overheads {
        dispatch: Nanos(random.up_to(30)),
        wake: Nanos(random.up_to(60)),
        copy: Nanos(random.up_to(20)),
        look_ahead: random.once_in(2),
        ..Overheads::NONE
    };
    let uploads_ahead = overheads.look_ahead && seed.is_multiple_of(2);
    let overheads = Overheads { uploads_ahead, ..overheads };
    // In every fifth nobody wakes up in time.
    let late = Nanos(if seed % 5 == 4 { 100 } else { 0 });
    let mut world = World::new(WorldConfig {
        policy: POLICIES[usize::try_from(random.up_to(4)).expect("five")],
        charged: overheads,
        real: Overheads { wake: overheads.wake + late, ..overheads },
        overrun: if random.once_in(2) { OverrunPolicy::Contain } else { OverrunPolicy::Record },
        ..WorldConfig::new(Seed(random.bits()))
    });
    let mut admitted = Vec::new();
    for round in 0..3 {
        for n in 0..random.between(1, 3) {
            admitted.extend(world.admit(model(&format!("model{round}{n}"), &mut random)).ok());
        }
        world.run_for(Nanos(random.between(2_000, 9_000)));
        if !admitted.is_empty() {
            world.evict(admitted.swap_remove(0));
        }
    }
    world.run_for(Nanos(9_000));
    let mut trace = world.trace().clone();
    // Every third is of a partition.
    let of_partition = seed.is_multiple_of(3).then(|| "left".to_owned());
    for record in &mut trace.records {
        if let TraceEvent::Configured { what } = &mut record.event {
            what.partition.clone_from(&of_partition);
        }
        if let TraceEvent::Admitted { what, .. } = &mut record.event {
            what.partition.clone_from(&of_partition);
        }
        if let TraceEvent::Refused { what } = &mut record.event
            && let Some(asked) = &mut what.asked
        {
            asked.partition.clone_from(&of_partition);
        }
    }
    trace
}

/// Logs that part from their replay: another figure, an event that is missing, one too many.
fn altered(trace: &Trace) -> Vec<Trace> {
    let waiting = |record: &Record| matches!(record.event, TraceEvent::Dispatched { .. });
    let places: Vec<usize> =
        (0..trace.records.len()).filter(|place| waiting(&trace.records[*place])).collect();
    let Some(place) = places.get(places.len() / 2).copied() else { return Vec::new() };
    let mut other = trace.clone();
    if let TraceEvent::Dispatched { waiting, .. } = &mut other.records[place].event {
        *waiting += 1;
    }
    let mut twice = trace.clone();
    twice.records.insert(place, trace.records[place].clone());
    let mut busy = trace.clone();
    busy.records.retain(|record| !matches!(record.event, TraceEvent::Idle));
    let mut short = trace.clone();
    short.records.truncate(place);
    vec![other, twice, busy, short]
}

fn open(folder: &Path, trace: &Trace, is_whole: bool) -> TraceFile {
    let path = folder.join("trace.jsonl");
    let mut writer = Writer::new(Vec::new()).expect("memory");
    writer.write(&trace.records).expect("memory");
    let mut text = writer.finish(trace.dropped).expect("memory");
    if !is_whole {
        let end = text.len() - 10;
        text.truncate(end);
    }
    std::fs::write(&path, text).expect("a file");
    TraceFile::open(&path, CutTrace::Replayed).expect("a log of ours")
}

#[test]
fn the_answer_of_a_replay_has_the_documented_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut answers = Vec::new();
    for seed in 0..60 {
        let trace = world(seed);
        let whole = open(folder.path(), &trace, seed % 7 > 0);
        assert_eq!(whole.divergence(), None, "seed {seed}");
        for policy in POLICIES {
            answers.push(whole.answer_json(&whole.what_if(policy).expect("few jobs")));
        }
        let parted = altered(&trace).into_iter().map(|trace| open(folder.path(), &trace, true));
        answers.extend(parted.map(|file| file.answer_json(&[])));
    }
    let closed = ["executors[].policy", "what_if[].recorded", "what_if[].policy"];
    check("\n### `aegis replay --json`", &answers, &closed);
}

fn at(offset: u64, model: Model) -> Model {
    let arrivals = Arrivals::Periodic { offset: Nanos(offset) };
    Model { behaviour: Behaviour { arrivals, ..model.behaviour }, ..model }
}

/// The first runs until 110. The second, behind it, cannot be launched, and leaves inputs on their way
/// until 155; the third waits for them, and is the job of the account.
fn held_up() -> (Trace, JobId) {
    let overheads =
        Overheads { look_ahead: true, uploads_ahead: true, copy: Nanos(50), ..Overheads::NONE };
    let mut world = World::new(WorldConfig {
        policy: PolicyKind::Priority,
        charged: overheads,
        real: overheads,
        ..WorldConfig::new(Seed(3))
    });
    let of = |name| Model::periodic(name, Nanos(10), Nanos(4_000));
    world.admit(at(0, of("first"))).expect("3 %");
    let mut second = at(105, of("second"));
    second.behaviour.faults = vec![(StageIndex(0), 0, SimFault::LaunchFailure)];
    world.admit(second).expect("3 %");
    let model = world.admit(at(106, of("third"))).expect("3 %");
    world.run_for(Nanos(1_000));
    (world.trace().clone(), JobId { model, sequence: 0 })
}

#[test]
fn a_job_that_waited_for_inputs_that_were_left_is_told_whose() {
    let folder = tempfile::tempdir().expect("a folder");
    let (trace, job) = held_up();
    let file = open(folder.path(), &trace, true);
    let account = file.account(job).expect("it ended");
    let column: Vec<String> = file.explain(&account).lines().map(ToOwned::to_owned).collect();
    expect_test::expect![[r#"
        m2#0 (third), the whole device under priority: response 159 ns
        bound 440 ns, deadline 4 us after its release
        submitted at 0.000000106 s, accepted at 0.000000106 s, ended at 0.000000265 s; what that time was spent on:
          +            4 ns  interference by stage 0 of m0#0 (first), which had begun before
          +           45 ns  own stage 0: waiting for the inputs of m1#0 (second), which were left on their way
          +           50 ns  own stage 0: its inputs on their way to the device
          +           10 ns  own stage 0: on the device
          +           50 ns  own stage 0: its outputs on their way from the device
          =          159 ns  from release to end

        term by term, beside the job that attains its bound:
           this job ns   at bound ns
                     0           110  blocking and wake-up: a stage of 110 ns ahead of it on the device
                     4           220  interference: 1 job of first, 1 job of second
                     0             0  earlier jobs of its model
                   110           110  its own stages with overheads
                     0             0  refills of its server
                     0             0  not submitted (jitter)
                    45             0  inputs that failed launches left on their way
                   159           440  response
        broken at 0.000000265 s: left upload of m1#0 (second), before stage 0 of m2#0 (third), 45 ns > 0 ns assumed"#]].assert_eq(&column.join("\n"));
    let json = file.account_json(&account);
    let term = json["terms"].as_array().expect("a list").iter();
    let term = term.clone().find(|term| term["piece"] == "left_upload").expect("it waited");
    assert_eq!((&term["length"], &term["model"]), (&Value::from(45), &Value::from("second")));
    assert_eq!(json["sums"]["left_upload"], 45);
    let broken = &json["broken"][0];
    assert_eq!((&broken["assumption"], &broken["job"]), (&"left_upload".into(), &term["job"]));
    assert_eq!((&broken["stage"], &broken["stage_of"]), (&0.into(), &json["job"]));
}

#[test]
fn the_account_of_a_job_has_the_documented_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let (trace, job) = held_up();
    let file = open(folder.path(), &trace, true);
    let mut answers = vec![file.account_json(&file.account(job).expect("it ended"))];
    for seed in 0..60 {
        let trace = world(seed);
        let file = open(folder.path(), &trace, true);
        let replayed = replay(&trace, Extent::Whole).expect("a trace of ours");
        let jobs = replayed.executors[0].timeline.jobs.iter();
        let ended: Vec<(JobId, Option<Ending>)> =
            jobs.map(|(job, record)| (*job, record.ending.map(|(_, ending)| ending))).collect();
        let is_rare = |ending: &Option<Ending>| !matches!(ending, None | Some(Ending::Completed));
        let some =
            ended.iter().step_by(9).chain(ended.iter().filter(|(_, end)| is_rare(end)).take(3));
        for (job, _) in some.filter(|(_, ending)| ending.is_some()) {
            answers.push(file.account_json(&file.account(*job).expect("it ended")));
        }
    }
    let closed = ["policy", "ending", "terms[].piece", "broken[].assumption"];
    check("\n### `aegis explain --json`", &answers, &closed);
}

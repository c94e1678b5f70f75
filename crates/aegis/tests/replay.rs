//! Trace files of whole runtimes, replayed: as written, cut, damaged, foreign.

use std::path::{Path, PathBuf};

use aegis::replay::{CutTrace, ReplayFileError, TraceFile};
use aegis::{
    Bytes, JobId, ModelDescription, ModelHandle, ModelId, ModelSource, Nanos, Overheads,
    PartitionSpec, PolicyKind, Runtime, RuntimeBuilder, SimModel, Terms, TracePump,
};
use expect_test::expect;

/// A log, to be written at `path`.
fn log_at(path: &Path) -> aegis::TraceSink {
    aegis::TraceSink::at(path).expect("its name says how")
}

fn us(n: u64) -> Nanos {
    Nanos::from_micros(n)
}

fn builder() -> RuntimeBuilder {
    Runtime::builder()
        .streams(1)
        .policy(PolicyKind::Edf)
        .queue_depth(64)
        .max_models(4)
        .overheads(Overheads { dispatch: us(500), wake: us(2_000), ..Overheads::NONE })
        .trace_capacity(1 << 14)
}

fn declared(costs: &[Nanos]) -> ModelSource {
    let stages = u16::try_from(costs.len()).expect("few stages");
    let description = ModelDescription { inputs: vec![], outputs: vec![], stages };
    let (persistent, scratch, carried) = (Bytes(4096), Bytes(4096), Bytes::ZERO);
    let model = SimModel { description, persistent, scratch, carried };
    ModelSource::Sim { model, costs: costs.to_vec() }
}

fn admit(
    runtime: &Runtime,
    partition: Option<&str>,
    name: &str,
    costs: &[Nanos],
    period: Nanos,
) -> Result<ModelHandle, aegis::Error> {
    let source = declared(costs);
    let model = match partition {
        Some(partition) => runtime.load_in(partition, name, &source)?,
        None => runtime.load(name, &source)?,
    };
    let cost = costs.iter().copied().sum();
    let terms = Terms::periodic(cost, period, Bytes::from_mib(1));
    runtime.admit(model, &Terms { costs: costs.to_vec(), slots: 4, ..terms })
}

/// On a busy machine a job may overrun, and one after it pays for that; the log has that too.
fn submit(models: &[&ModelHandle], rounds: usize) {
    for _ in 0..rounds {
        let jobs: Vec<_> = models.iter().map(|model| model.submit(&[]).expect("a slot")).collect();
        for job in jobs {
            let outcome = job.wait().map(drop);
            assert!(matches!(outcome, Ok(()) | Err(aegis::Error::Dropped { .. })), "{outcome:?}");
        }
    }
}

/// A run in two partitions with a refusal, an eviction and a second tenant, traced into `folder`.
fn split_run(builder: RuntimeBuilder, folder: &Path) -> PathBuf {
    let control =
        PartitionSpec { policy: Some(PolicyKind::Fifo), ..PartitionSpec::named("control") };
    let builder = builder.partition(PartitionSpec::named("vision")).partition(control);
    let runtime = builder.build().expect("a device");
    let path = folder.join("out.jsonl");
    let pump = TracePump::start(runtime.collector(), &[log_at(&path)]).expect("a file");
    let ms = Nanos::from_millis;
    let camera = admit(&runtime, Some("vision"), "camera", &[us(300), us(200)], ms(20));
    let camera = camera.expect("alone");
    let arm = admit(&runtime, Some("control"), "arm", &[us(200)], ms(10)).expect("alone");
    let refused = admit(&runtime, Some("control"), "lidar", &[ms(30)], ms(100));
    assert!(refused.is_err(), "it blocks the arm for 30 ms");
    runtime.start().expect("it starts");
    submit(&[&camera, &arm], 10);
    let lidar = admit(&runtime, Some("vision"), "lidar", &[us(900)], ms(50)).expect("room");
    submit(&[&camera, &lidar, &arm], 10);
    runtime.evict(&camera).expect("it is there");
    let second = admit(&runtime, Some("vision"), "second", &[us(100)], ms(5)).expect("its place");
    submit(&[&second, &lidar, &arm], 10);
    runtime.stop().expect("nothing failed");
    let (summary, failure) = pump.finish();
    assert!(failure.is_empty() && summary.dropped == 0, "{failure:?}");
    path
}

#[test]
fn the_trace_of_a_split_device_replays_on_every_driver() {
    for builder in [builder().sim(Bytes::from_mib(64)), builder().host(Bytes::from_mib(64))] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = split_run(builder, folder.path());
        let file = TraceFile::open(&path, CutTrace::Refused).expect("a whole trace");
        assert_eq!(file.divergence(), None);
        let verdict = file.verdict();
        assert!(verdict.contains("partition vision, edf:"), "{verdict}");
        assert!(verdict.contains("partition control, fifo:"), "{verdict}");
        assert!(verdict.ends_with("yes: every decision is as logged"), "{verdict}");
        for model in ["camera", "arm", "lidar", "second"] {
            let account = file.worst(model).expect("it completed jobs");
            assert_eq!(account.sums().total(), account.response());
            let json = file.account_json(&account);
            let terms = json["terms"].as_array().expect("a list").iter();
            let sum: u64 = terms.map(|term| term["length"].as_u64().expect("whole")).sum();
            assert_eq!(json["response"].as_u64(), Some(sum));
        }
        for what_if in file.what_if(PolicyKind::Rms).expect("it was replayed") {
            assert_eq!(what_if.ends_with, None);
            assert!(TraceFile::rows(&what_if).iter().all(|row| row.seen[1].completed > 0));
        }
    }
}

/// Every stream of a log by another number is another log, also where all are moved alike.
#[test]
fn a_stream_outside_of_its_partition_is_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = split_run(builder().sim(Bytes::from_mib(64)), folder.path());
    let text = std::fs::read_to_string(&path).expect("it was written");
    assert!(text.contains(r#""first_stream":"s1""#), "of the second partition: {text}");
    let moved = text.replace(r#""stream":"s1""#, r#""stream":"s7""#);
    assert_ne!(moved, text);
    let file = open(&path, moved.as_bytes(), CutTrace::Refused).expect("a log");
    assert!(file.verdict().contains("no: line"), "{}", file.verdict());
    // A log of before this was recorded has nothing to hold the numbers to.
    let first = |n: u16| format!(r#","first_stream":"s{n}""#);
    let older = moved.replace(&first(0), "").replace(&first(1), "");
    let file = open(&path, older.as_bytes(), CutTrace::Refused).expect("a log");
    assert_eq!(file.divergence(), None);
}

/// A run in virtual time, which is the same on every machine.
fn simulated(folder: &Path) -> PathBuf {
    let builder = builder().sim(Bytes::from_mib(64));
    let runtime = builder.overheads(Overheads::NONE).build().expect("a device");
    let path = folder.join("out.jsonl");
    let pump = TracePump::start(runtime.collector(), &[log_at(&path)]).expect("a file");
    let ms = Nanos::from_millis;
    let camera = admit(&runtime, None, "camera", &[ms(2)], ms(10)).expect("room");
    let lidar = admit(&runtime, None, "lidar", &[ms(3), ms(4)], ms(100)).expect("room");
    // Submitted before the start, both arrive at zero; the second camera waits for its period.
    let jobs = [&lidar, &camera, &camera].map(|model| model.submit(&[]).expect("a slot"));
    runtime.start().expect("it starts");
    jobs.into_iter().for_each(|job| drop(job.wait().expect("it completes")));
    runtime.stop().expect("nothing failed");
    assert!(pump.finish().1.is_empty());
    path
}

#[test]
fn an_account_reads_as_a_column_that_adds_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = TraceFile::open(&simulated(folder.path()), CutTrace::Refused).expect("a trace");
    let job = JobId { model: ModelId::first(1), sequence: 0 };
    let account = file.account(job).expect("it completed");
    expect![[r#"
        m1#0 (lidar), the whole device under edf: response 9 ms
        bound 9 ms, deadline 100 ms after its release
        submitted at 0.000000000 s, accepted at 0.000000000 s, ended at 0.009000000 s; what that time was spent on:
          +      2000000 ns  interference by stage 0 of m0#0 (camera), due at 0.010000000 s, and this job at 0.100000000 s
          +      3000000 ns  own stage 0: on the device
          +      4000000 ns  own stage 1: on the device
          =      9000000 ns  from release to end

        term by term, beside the job that attains its bound:
           this job ns   at bound ns
                     0             0  blocking and wake-up
               2000000       2000000  interference: 1 job of camera
                     0             0  earlier jobs of its model
               7000000       7000000  its own stages with overheads
                     0             0  refills of its server
                     0             0  not submitted (jitter)
               9000000       9000000  response
        no assumption was broken in its busy period before it ended"#]]
    .assert_eq(&file.explain(&account));
}

#[test]
fn a_divergence_shows_both_sides() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = simulated(folder.path());
    let text = std::fs::read_to_string(&path).expect("it was written");
    let altered = text.replacen(
        r#""event":"dispatched","job":"m0#0""#,
        r#""event":"dispatched","job":"m1#0""#,
        1,
    );
    // Lines of different recorders may be in another order in each run.
    let differs = |(now, before): (&str, &str)| now != before;
    let place = altered.lines().zip(text.lines()).position(differs).expect("it was altered") + 1;
    std::fs::write(&path, altered).expect("a file");
    let file = TraceFile::open(&path, CutTrace::Refused).expect("a trace");
    let verdict = file.verdict().replace(&format!("line {place},"), "line HERE,");
    let parted: Vec<&str> = verdict.lines().skip(1).collect();
    expect![[r#"
        no: line HERE, the whole device, at 0.000000000 s: the replay parts from the log
          logged    {"event":"dispatched","job":"m1#0","stage":0,"stream":"s0","waiting":1,"why":{"reason":"earliest_deadline","chosen":10000000,"next":100000000}}
          replayed  {"event":"dispatched","job":"m0#0","stage":0,"stream":"s0","waiting":1,"why":{"reason":"earliest_deadline","chosen":10000000,"next":100000000}}
          the replay has stage 0 of m0#0 on the device"#]]
    .assert_eq(&parted.join("\n"));
    assert!(matches!(file.worst("camera"), Err(ReplayFileError::Parted { .. })));
}

/// The log without the line at `place`, closed with the right count.
fn without(text: &str, place: usize) -> String {
    let records = text.lines().count() - 2;
    let closing = |count: usize| format!("{{\"end\":{{\"records\":{count},");
    let lines = text.lines().enumerate().filter(|(at, _)| *at != place).map(|(_, line)| line);
    let less: String = lines.map(|line| format!("{line}\n")).collect();
    less.replace(&closing(records), &closing(records - 1))
}

#[test]
fn a_log_without_a_bound_that_was_told_is_seen_through() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = simulated(folder.path());
    let text = std::fs::read_to_string(&path).expect("it was written");
    let told: Vec<usize> = (text.lines().enumerate())
        .filter(|(_, line)| line.contains(r#""event":"bound_changed""#))
        .map(|(place, _)| place)
        .collect();
    assert!(!told.is_empty(), "the lidar delays the camera");
    for place in told {
        let file = open(&path, without(&text, place).as_bytes(), CutTrace::Refused);
        let verdict = file.expect("a log that is closed").verdict();
        assert!(verdict.contains("no: line"), "{verdict}");
    }
}

/// The chain of causes of an error, as the program prints it.
fn told(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    line
}

fn open(path: &Path, text: &[u8], cut: CutTrace) -> Result<TraceFile, ReplayFileError> {
    std::fs::write(path, text).expect("a file");
    TraceFile::open(path, cut)
}

#[test]
fn a_foreign_file_is_named_for_what_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t");
    let error = |text: &str| {
        let error = open(&path, text.as_bytes(), CutTrace::Refused).expect_err("no trace of ours");
        told(&error).replace(&path.display().to_string(), "t")
    };
    expect!["t could not be read: the first line is no header of a trace; of what `--trace` writes, only .jsonl can be read again"].assert_eq(&error(""));
    expect!["t could not be read: the first line is no header of a trace; of what `--trace` writes, only .jsonl can be read again"].assert_eq(&error("<html>\n"));
    expect!["t could not be read: the trace has format version 1, this program reads 2 to 3"]
        .assert_eq(&error("{\"aegis_trace\":1}\n"));
    expect!["t: the trace is cut short after line 1; `--cut` replays what there is"]
        .assert_eq(&error("{\"aegis_trace\":2}\n"));
    expect!["t cannot be replayed: the trace has no `configured` event, without which no decision can be recomputed"]
        .assert_eq(&error("{\"aegis_trace\":2}\n{\"end\":{\"records\":0,\"dropped\":0}}\n"));
    expect!["t cannot be replayed: 3 events were lost while recording, so what is left cannot be replayed"]
        .assert_eq(&error("{\"aegis_trace\":2}\n{\"end\":{\"records\":0,\"dropped\":3}}\n"));
    assert!(TraceFile::open(&folder.path().join("none"), CutTrace::Refused).is_err());
}

#[test]
fn a_trace_that_was_cut_anywhere_is_refused_with_its_last_line_and_replays_if_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = std::fs::read(simulated(folder.path())).expect("it was written");
    let path = folder.path().join("cut");
    let second = whole.iter().position(|byte| *byte == b'\n').expect("lines") + 1;
    for end in (second..whole.len() - 1).step_by(7) {
        let error = open(&path, &whole[..end], CutTrace::Refused).expect_err("it is cut");
        assert!(told(&error).contains("line "), "{}", told(&error));
        match open(&path, &whole[..end], CutTrace::Replayed) {
            Ok(file) => assert_eq!(file.divergence(), None, "cut at {end}"),
            Err(error) => assert!(told(&error).contains("no `configured` event"), "{error}"),
        }
    }
}

#[test]
fn a_closed_log_that_lacks_records_is_no_cut_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(simulated(folder.path())).expect("it was written");
    let records = text.lines().count() - 2;
    let less: String = (text.lines().enumerate())
        .filter(|(place, _)| *place != records)
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    for cut in [CutTrace::Refused, CutTrace::Replayed] {
        let error = open(&folder.path().join("less"), less.as_bytes(), cut);
        let told = told(&error.expect_err("a record is missing"));
        let counted = format!("counts {records} records and there are {}", records - 1);
        assert!(told.contains(&counted), "{told}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    /// Whatever bits are flipped: a verdict or an error, never a panic, and accounts that add up. That
    /// changes are seen is the matter of the mutation tests of the replay itself.
    #[test]
    fn damaged_traces_are_no_danger(flips in proptest::collection::vec((0usize..1 << 16, 0u8..8), 1..4)) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut text = std::fs::read(simulated(folder.path())).expect("it was written");
        for (place, bit) in flips {
            let place = place % text.len();
            text[place] ^= 1 << bit;
        }
        for cut in [CutTrace::Refused, CutTrace::Replayed] {
            match open(&folder.path().join("flipped"), &text, cut) {
                Ok(file) => {
                    let _ = (file.verdict(), file.answer_json(&[]));
                    if let Ok(compared) = file.what_if(PolicyKind::Fifo) {
                        drop(file.answer_json(&compared));
                    }
                    if let Ok(account) = file.worst("lidar") {
                        proptest::prop_assert_eq!(account.sums().total(), account.response());
                    }
                }
                Err(error) => proptest::prop_assert!(!told(&error).is_empty()),
            }
        }
    }
}

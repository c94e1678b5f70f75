//! Traces of the program as a user meets them: formats, conversion, full disks, pipes, a kill.

#[path = "../../aegis-trace/tests/trace_processor/mod.rs"]
mod trace_processor;

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use trace_processor::{ask, number};

/// A workload of declared models on the processor, in a folder of its own.
struct Case {
    folder: tempfile::TempDir,
}

const WORKLOAD: &str = r#"
    device = { driver = "host", memory = "64MiB" }
    scheduler = { policy = "edf", queue_depth = 8 }
    overheads = { dispatch = "20ms", wake = "20ms" }
    [[model]]
    name = "camera"
    backend = "sim"
    period = "200ms"
    sim = { stages = ["4ms"], persistent = "1MiB", scratch = "2MiB" }
    [[model]]
    name = "lidar"
    backend = "sim"
    period = "400ms"
    sim = { stages = ["5ms", "5ms"] }
"#;

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("pipeline.toml"), WORKLOAD).expect("a file");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aegis"));
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    fn aegis(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("aegis starts")
    }

    /// Makes a pipe with a name, and something that reads `bytes` of it and then leaves.
    fn pipe_of(&self, name: &str, bytes: usize) -> std::thread::JoinHandle<Vec<u8>> {
        let path = self.path(name);
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo starts");
        assert!(made.success());
        std::thread::spawn(move || {
            let mut read = vec![0; bytes];
            File::open(path).expect("the other end").read_exact(&mut read).expect("so many");
            read
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

#[test]
fn one_run_writes_every_format_and_converting_its_log_gives_the_same() {
    let case = Case::new();
    let run = ["run", "pipeline.toml", "--for", "900ms"];
    let traces = ["--trace", "out.jsonl", "--trace", "out.pftrace", "--trace", "out.json"];
    let output = case.aegis(&[&run[..], &traces].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("; trace: out.jsonl, out.pftrace, out.json"));
    for end in ["pftrace", "json"] {
        let converted = format!("again.{end}");
        let output = case.aegis(&["trace", "convert", "out.jsonl", &converted]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let file = |name: &str| fs::read(case.path(name)).expect("it was written");
        assert_eq!(file(&converted), file(&format!("out.{end}")), "{end}");
    }
    let chrome = fs::read(case.path("out.json")).expect("it was written");
    let chrome: Vec<Value> = serde_json::from_slice(&chrome).expect("a JSON array");
    let jobs = chrome.iter().filter(|event| event["ph"] == "B" && event["name"] == "job");
    assert!(jobs.count() > 3);
}

#[test]
fn perfetto_finds_in_the_picture_what_the_log_says() {
    let case = Case::new();
    let run = ["run", "pipeline.toml", "--for", "900ms"];
    let traces = ["--trace", "out.jsonl", "--trace", "out.pftrace"];
    let output = case.aegis(&[&run[..], &traces].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let log = fs::read_to_string(case.path("out.jsonl")).expect("the log");
    let events: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("JSON Lines")).collect();
    let of = |kind: &str| -> Vec<&Value> {
        events.iter().filter(|event| event["event"] == kind).collect()
    };
    let times = |event: &&Value, key: &str| event[key].as_i64().expect("a time");
    let device: i64 = of("stage_completed")
        .iter()
        .map(|stage| times(stage, "finished") - times(stage, "started"))
        .sum();
    let response: i64 = of("completed").iter().map(|job| times(job, "response")).sum();
    let count = |kind| i64::try_from(of(kind).len()).expect("few");
    let named = |name: &str| format!("SELECT count(*) AS n FROM slice WHERE name = '{name}'");
    let (job, completed) = (named("job"), named("completed"));
    let dispatch = named("dispatch");
    let answers = ask(
        &case.path("out.pftrace"),
        &[
            &job,
            &dispatch,
            &completed,
            "SELECT count(*) AS n, sum(slice.dur) AS total FROM slice JOIN track
                ON track_id = track.id WHERE track.name GLOB 'stream *'",
            "SELECT sum(extract_arg(arg_set_id, 'debug.response_ns')) AS total FROM slice",
            "SELECT count(*) AS n FROM flow",
            "SELECT min(value) AS low FROM counter JOIN counter_track t ON track_id = t.id
                WHERE t.name = 'queue depth'",
        ],
    );
    assert!(count("completed") > 3);
    assert_eq!(number(&answers[0], "n"), count("submitted"));
    assert_eq!(number(&answers[1], "n"), count("dispatched"));
    assert_eq!(number(&answers[2], "n"), count("completed"));
    assert_eq!(number(&answers[3], "n"), count("stage_completed"));
    assert_eq!(number(&answers[3], "total"), device);
    assert_eq!(number(&answers[4], "total"), response);
    // From the submission to each stage, and from the last to the end.
    let dropped = count("dropped");
    let arrows = count("stage_completed") + count("completed") + dropped;
    assert_eq!(number(&answers[5], "n"), arrows);
    assert_eq!(answers[6][0]["low"].as_f64(), Some(0.0));
}

#[test]
fn names_that_stand_for_no_format_are_refused_before_anything_is_written() {
    let case = Case::new();
    let output = case.aegis(&["run", "pipeline.toml", "--trace", "out.pftrac"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("`.pftrac` is no trace format; write .jsonl"));
    let output = case.aegis(&["run", "pipeline.toml", "--trace", "a.json", "--trace", "a.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("the trace a.json is given twice"));
    assert!(!case.path("a.json").exists());
}

#[test]
fn what_is_no_trace_is_refused_and_costs_no_older_picture() {
    let case = Case::new();
    let complaint = |name: &str, bytes: &[u8]| {
        fs::write(case.path(name), bytes).expect("a file");
        fs::write(case.path("old.pftrace"), "old").expect("a file");
        let output = case.aegis(&["trace", "convert", name, "old.pftrace"]);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(fs::read(case.path("old.pftrace")).expect("still there"), b"old");
        text(&output.stderr)
    };
    let mut said = complaint("foreign.jsonl", b"\x0a\x05hello");
    said += &complaint("later.jsonl", b"{\"aegis_trace\":77}\n");
    said += &complaint("huge.jsonl", &vec![b'x'; 3 << 20]);
    expect_test::expect![[r#"
        error: foreign.jsonl is no trace: the first line is no header of a trace; of what `--trace` writes, only .jsonl can be read again
        error: later.jsonl is no trace: the trace has format version 77, this program reads 2 to 3
        error: huge.jsonl is no trace: the first line is no header of a trace; of what `--trace` writes, only .jsonl can be read again
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_fault_in_a_log_is_named_with_line_and_byte() {
    let case = Case::new();
    let log = "{\"aegis_trace\":2}\n{\"at\":1,\"by\":0,\"event\":\"idle\"}\n{\"at\":2,\"by\"\n\n";
    fs::write(case.path("bad.jsonl"), log).expect("a file");
    let output = case.aegis(&["trace", "convert", "bad.jsonl", "out.json"]);
    assert_eq!(output.status.code(), Some(2));
    expect_test::expect![[r#"
        error: bad.jsonl to out.json, which holds what came before: the log cannot be read on: line 3 of the trace is not an event (byte 49 of the file): EOF while parsing an object
    "#]].assert_eq(&text(&output.stderr));
    let output = case.aegis(&["trace", "convert", "bad.jsonl", "bad.jsonl"]);
    assert_eq!(output.status.code(), Some(2), "a log would be lost");
}

#[test]
fn a_full_disk_is_known_before_anything_runs() {
    let case = Case::new();
    for name in ["full", "full.pftrace", "full.json"] {
        std::os::unix::fs::symlink("/dev/full", case.path(name)).expect("a link");
        let output = case.aegis(&["run", "pipeline.toml", "--for", "100ms", "--trace", name]);
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        assert!(said.contains(&format!("the trace {name} could not be written")), "{said}");
        assert!(said.contains("No space left on device"), "{said}");
        assert!(output.stdout.is_empty(), "nothing ran");
    }
}

#[test]
fn a_reader_who_leaves_costs_one_file_and_the_run_goes_on() {
    let case = Case::new();
    let reader = case.pipe_of("pipe", 200);
    let run = ["run", "pipeline.toml", "--for", "1s", "--trace", "pipe", "--trace", "out.jsonl"];
    let output = case.aegis(&run);
    assert!(reader.join().expect("it read").starts_with(b"{\"aegis_trace\":"));
    assert_eq!(output.status.code(), Some(2), "what was asked for is not there");
    let said = text(&output.stderr);
    assert!(said.contains("warning: the trace pipe could not be written"), "{said}");
    assert!(said.contains("Broken pipe") && said.contains("the run goes on without it"), "{said}");
    assert!(text(&output.stdout).contains("ran 1.0 s"), "{}", text(&output.stdout));
    let log = fs::read_to_string(case.path("out.jsonl")).expect("the other file");
    assert!(log.lines().last().expect("lines").starts_with("{\"end\""), "it is whole");
}

#[test]
fn a_reader_who_leaves_ends_the_run_if_that_is_asked_for() {
    let case = Case::new();
    let reader = case.pipe_of("pipe", 200);
    let output = case.aegis(&["run", "pipeline.toml", "--trace", "pipe", "--trace-errors", "stop"]);
    reader.join().expect("it read");
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("Broken pipe") && said.contains("; the run ends"), "{said}");
    assert!(text(&output.stdout).contains("| camera "), "the report is there all the same");
}

/// Makes a pipe with a name and opens its other end, which then takes what the pipe holds and no more.
fn stalled(case: &Case, name: &str) -> std::thread::JoinHandle<File> {
    let path = case.path(name);
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo starts").success());
    std::thread::spawn(move || {
        let mut pipe = File::open(path).expect("the other end");
        pipe.read_exact(&mut [0; 10]).expect("the beginning");
        pipe
    })
}

/// A workload of many short jobs: more of its trace than a pipe holds within a second.
const BUSY: &str = r#"
    device = { driver = "host", memory = "64MiB" }
    scheduler = { policy = "edf", queue_depth = 8 }
    overheads = { dispatch = "1ms", wake = "1ms" }
    [[model]]
    name = "camera"
    backend = "sim"
    period = "5ms"
    sim = { stages = ["10us"] }
"#;

#[test]
fn a_reader_who_stalls_neither_holds_up_the_other_files_nor_the_end() {
    let case = Case::new();
    fs::write(case.path("pipeline.toml"), BUSY).expect("a file");
    let reader = stalled(&case, "pipe");
    let begun = std::time::Instant::now();
    let run = ["run", "pipeline.toml", "--for", "2s", "--trace", "pipe", "--trace", "out.jsonl"];
    let output = case.aegis(&run);
    assert!(begun.elapsed().as_secs() < 40, "it ends, after its patience");
    assert_eq!(output.status.code(), Some(2), "what was asked for is not there");
    let said = text(&output.stderr);
    assert!(said.contains("the trace pipe could not be written: "), "{said}");
    assert!(said.contains(" records wait for it; it holds what"), "{said}");
    assert!(text(&output.stdout).contains("ran 2.0 s"), "{}", text(&output.stdout));
    let log = fs::read_to_string(case.path("out.jsonl")).expect("the other file");
    assert!(log.lines().last().expect("lines").starts_with("{\"end\""), "it is whole");
    drop(reader.join().expect("it read the beginning"));
}

#[test]
fn two_names_of_one_file_are_not_two_traces() {
    let case = Case::new();
    for (first, second) in [("out.jsonl", "./out.jsonl"), ("hard.jsonl", "hard.json")] {
        if first.starts_with("hard") {
            fs::write(case.path(first), "").expect("a file");
            fs::hard_link(case.path(first), case.path(second)).expect("a link");
        }
        let run = ["run", "pipeline.toml", "--for", "1s", "--trace", first, "--trace", second];
        let output = case.aegis(&run);
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        assert!(said.contains(&format!("{first} and {second} are the same file")), "{said}");
        assert!(output.stdout.is_empty(), "nothing ran");
    }
}

#[test]
fn a_trace_overwrites_no_input_by_another_name_of_it() {
    let case = Case::new();
    fs::hard_link(case.path("pipeline.toml"), case.path("other.jsonl")).expect("a link");
    let output = case.aegis(&["run", "pipeline.toml", "--for", "1s", "--trace", "other.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("would overwrite"), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(case.path("pipeline.toml")).expect("it is there"), WORKLOAD);
}

/// A run that has written something to each of its files.
fn begun(case: &Case, files: &[&str]) -> Child {
    let mut command = case.command(&["run", "pipeline.toml"]);
    for file in files {
        command.args(["--trace", file]);
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let wrote = |file: &&str| fs::metadata(case.path(file)).is_ok_and(|file| file.len() > 12_000);
    while !files.iter().all(wrote) {
        assert_eq!(child.try_wait().expect("a child"), None, "it ended by itself");
        std::thread::yield_now();
    }
    child
}

#[test]
fn a_process_that_is_killed_leaves_files_that_can_be_read() {
    let case = Case::new();
    let mut child = begun(&case, &["out.jsonl", "out.pftrace", "out.json"]);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let log = fs::read_to_string(case.path("out.jsonl")).expect("the log");
    assert!(!log.contains("{\"end\""));
    let whole = log.lines().filter(|line| line.ends_with('}')).count() - 1;
    let output = case.aegis(&["trace", "convert", "out.jsonl", "again.json"]);
    assert_eq!(output.status.code(), Some(1), "it is not the whole story");
    let said = text(&output.stderr);
    assert!(said.contains("was cut short at line"), "{said}");
    assert!(said.contains(&format!("the {whole} events before it")), "{said}");
    // The array of the picture is open, which its readers allow; closed by hand, it is JSON.
    let chrome = fs::read_to_string(case.path("out.json")).expect("the picture");
    let last = chrome.rfind("},\n").expect("many lines");
    let chrome: Vec<Value> =
        serde_json::from_str(&format!("{}}}]", &chrome[..last])).expect("JSON up to there");
    assert!(chrome.len() > 20);
}

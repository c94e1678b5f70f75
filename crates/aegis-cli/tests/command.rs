//! The program as a user meets it: output, exit status, broken input.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use expect_test::expect;

/// A workload of declared models in a folder of its own.
struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new(workload: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("pipeline.toml"), workload).expect("a file");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `aegis` in the folder.
    fn aegis(&self, arguments: &[&str]) -> Output {
        run(self.folder.path(), arguments)
    }
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_aegis");
    Command::new(program).args(arguments).current_dir(folder).output().expect("aegis starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Two models on a simulated device; the second one's stages are the parameter.
fn workload(lidar: &str) -> String {
    format!(
        r#"
        device = {{ driver = "sim", memory = "64MiB" }}
        scheduler = {{ policy = "edf", queue_depth = 8 }}
        overheads = {{ dispatch = "100us", wake = "0ms" }}
        [[model]]
        name = "camera"
        backend = "sim"
        period = "10ms"
        sim = {{ stages = ["4ms"], persistent = "1MiB", scratch = "2MiB" }}
        [[model]]
        name = "lidar"
        backend = "sim"
        period = "100ms"
        sim = {{ stages = {lidar} }}
        "#
    )
}

#[test]
fn check_says_yes_with_the_numbers_of_every_model() {
    let case = Case::new(&workload(r#"["5ms", "5ms"]"#));
    let output = case.aegis(&["check", "pipeline.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    expect![[r#"
        | model  |   C ms |    T ms |    D ms | bound ms | blocking ms | slack ms | resident MiB | scratch MiB |
        |--------|--------|---------|---------|----------|-------------|----------|--------------|-------------|
        | camera |  4.100 |  10.000 |  10.000 |    9.200 |       5.100 |    0.800 |          1.0 |         2.0 |
        | lidar  | 10.200 | 100.000 | 100.000 |   14.300 |       0.000 |   85.700 |          0.0 |         0.0 |
        edf policy, proved by non-preemptive EDF demand and blocking
        C includes 100 us per stage; waking up may take 0 ns; utilisation 50.0 % without overheads
        memory: 1 MiB resident + 2 MiB shared scratch of 64 MiB
        to the edge: all costs times 1.088, or 800 us of overruns in one busy period, or stages in the background of 5.8 ms
        yes: all 2 models meet every deadline under the stated assumptions
    "#]]
    .assert_eq(&text(&output.stdout));
}

#[test]
fn check_says_no_with_the_inequality() {
    let case = Case::new(&workload(r#"["30ms"]"#));
    let output = case.aegis(&["check", "pipeline.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stdout);
    let refusal: Vec<&str> = shown.lines().skip_while(|line| !line.starts_with("no:")).collect();
    expect![[r#"
        no: lidar is refused: demand 4.1 ms + blocking 30.1 ms by a stage of lidar > window 10 ms, in which jobs of camera are due
            admitted if lidar runs in 6 equal stages
            admitted if camera is not there
        no: 1 of 2 models admitted, in file order; a model that is refused does not count for those after it"#]]
    .assert_eq(&refusal.join("\n"));
    let json = case.aegis(&["check", "pipeline.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON alone");
    assert_eq!(json["refused"][0]["refusal"]["refusal"], "demand_exceeds_window");
    let stages = serde_json::json!({
        "offer": "stages",
        "model": "m1",
        "name": "lidar",
        "stages": 6,
        "explained": "lidar runs in 6 equal stages",
    });
    assert_eq!(json["refused"][0]["offers"][0], stages);
    assert_eq!(json["admitted"]["models"][0]["name"], "camera");
}

#[test]
fn an_offer_that_is_taken_is_admitted() {
    let cut = Case::new(&workload(r#"["5ms", "5ms", "5ms", "5ms", "5ms", "5ms"]"#));
    assert_eq!(cut.aegis(&["check", "pipeline.toml"]).status.code(), Some(0));
    let coarser = Case::new(&workload(r#"["6ms", "6ms", "6ms", "6ms", "6ms"]"#));
    assert_eq!(coarser.aegis(&["check", "pipeline.toml"]).status.code(), Some(1));
}

#[test]
fn check_shows_how_far_each_model_is_from_the_edge() {
    let case = Case::new(&workload(r#"["5ms", "5ms"]"#));
    let output = case.aegis(&["check", "pipeline.toml", "--sensitivity"]);
    let shown = text(&output.stdout);
    let edge: Vec<&str> = shown.lines().skip_while(|line| !line.starts_with("to the")).collect();
    expect![[r#"
        to the edge: all costs times 1.088, or 800 us of overruns in one busy period, or stages in the background of 5.8 ms
        | model  | slack ms | least T ms (deadline kept) | least D ms (period kept) | most C ms | foreign stage ms |
        |--------|----------|----------------------------|--------------------------|-----------|------------------|
        | camera |    0.800 |                      4.566 |                    9.200 |     4.800 |            5.900 |
        | lidar  |   85.700 |                     17.289 |                   14.300 |    11.600 |           48.800 |
        yes: all 2 models meet every deadline under the stated assumptions"#]]
    .assert_eq(&edge.join("\n"));
    let json = case.aegis(&["check", "pipeline.toml", "--sensitivity", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON alone");
    assert_eq!(json["margins"]["overrun"], 800_000);
    assert_eq!(json["sensitivity"][0]["model"], "camera");
}

/// A camera beside a model in the background and one under a server, on `driver`.
fn best_effort(driver: &str) -> String {
    format!(
        r#"
        device = {{ driver = "{driver}", memory = "64MiB" }}
        scheduler = {{ policy = "edf", queue_depth = 64, overrun = "contain" }}
        overheads = {{ dispatch = "1ms", wake = "2ms" }}
        wcet = {{ margin_percent = 100 }}
        [[model]]
        name = "camera"
        backend = "sim"
        period = "60ms"
        sim = {{ stages = ["4ms"] }}
        [[model]]
        name = "logger"
        backend = "sim"
        period = "5ms"
        best_effort = true
        sim = {{ stages = ["1ms", "2ms"] }}
        [[model]]
        name = "planner"
        backend = "sim"
        period = "10ms"
        best_effort = true
        sim = {{ stages = ["3ms"] }}
        server = {{ budget = "8ms", period = "40ms" }}
        "#
    )
}

#[test]
fn check_shows_best_effort_without_a_bound() {
    let case = Case::new(&best_effort("sim"));
    let output = case.aegis(&["check", "pipeline.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    expect![[r#"
        | model   |  C ms |   T ms |   D ms | bound ms | blocking ms | slack ms | server ms | resident MiB | scratch MiB |
        |---------|-------|--------|--------|----------|-------------|----------|-----------|--------------|-------------|
        | camera  | 5.000 | 60.000 | 60.000 |   16.000 |       3.000 |   44.000 |         - |          0.0 |         0.0 |
        | logger  | 5.000 |      - |      - |        - |           - |        - |         - |          0.0 |         0.0 |
        | planner | 4.000 | 40.000 |      - |        - |           - |        - |     8.000 |          0.0 |         0.0 |
        edf policy, proved by non-preemptive EDF demand and blocking; overruns are contained
        logger: best effort, while nothing else is ready; no stage in the background is longer than 2 ms
        planner: best effort, 8 ms of device time every 40 ms
        C includes 1 ms per stage; waking up may take 2 ms; utilisation 26.7 % without overheads
        memory: 0 B resident + 0 B shared scratch of 64 MiB
        to the edge: all costs times 3.250, or 27 ms of overruns in one busy period, or stages in the background of 31 ms
        yes: every deadline is met under the stated assumptions, beside 2 of 3 models without one
    "#]].assert_eq(&text(&output.stdout));
    let json = case.aegis(&["check", "pipeline.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON alone");
    let models = &json["admitted"]["models"];
    assert_eq!(models[1]["service"], "background");
    assert!(models[1]["bound"].is_null() && models[1].get("deadline").is_none());
    assert_eq!(
        (&models[2]["service"], &models[2]["budget"]),
        (&"server".into(), &8_000_000.into())
    );
    // A stage too long for its server is refused with both numbers.
    let case = Case::new(&best_effort("sim").replace("8ms", "3ms"));
    let output = case.aegis(&["check", "pipeline.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "no: planner is refused: a stage of 4 ms > the server's budget 3 ms";
    assert!(text(&output.stdout).contains(expected), "{}", text(&output.stdout));
}

#[test]
fn run_counts_best_effort_apart() {
    let case = Case::new(&best_effort("host"));
    let output = case.aegis(&["run", "pipeline.toml", "--for", "900ms", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    let models = &json["admitted"]["models"];
    assert!(models[1]["observed"]["counts"]["completed"].as_u64().is_some_and(|done| done > 10));
    // The planner asks for about twice what its server gives.
    let turned_away = &json["run"]["jobs"];
    assert!(turned_away["turned_away_best_effort"].as_u64().is_some_and(|n| n > 10), "{json}");
    assert_eq!(turned_away["turned_away"], 0);
    let by = &turned_away["turned_away_by"];
    let planner = by.as_array().expect("a list").iter().find(|of| of["model"] == "planner");
    let planner = planner.expect("it is named");
    let why = "every job slot of the model is taken";
    assert_eq!((&planner["best_effort"], &planner["why"]), (&true.into(), &why.into()), "{by}");
    let jobs =
        by.as_array().expect("a list").iter().map(|of| of["jobs"].as_u64().expect("a count"));
    assert_eq!(Some(jobs.sum()), turned_away["turned_away_best_effort"].as_u64(), "{by}");
}

#[test]
fn broken_input_exits_with_2_and_shows_every_fault() {
    let case = Case::new(&workload(r#"["5"]"#).replace("10ms", "0ms"));
    let output = case.aegis(&["check", "pipeline.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let shown = text(&output.stderr);
    assert_eq!(shown.matches("error: pipeline.toml:").count(), 2, "{shown}");
    let missing = case.aegis(&["check", "nowhere.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("nowhere.toml"), "{}", text(&missing.stderr));
}

#[test]
fn a_missing_model_file_and_missing_evidence_say_what_to_do() {
    let onnx = r#"
        device = { driver = "host", memory = "64MiB" }
        scheduler = { policy = "edf", queue_depth = 8 }
        [[model]]
        name = "camera"
        backend = "onnx"
        path = "camera.onnx"
        period = "10ms"
    "#;
    let case = Case::new(onnx);
    let output = case.aegis(&["check", "pipeline.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("camera.onnx"), "{}", text(&output.stderr));
    std::fs::write(case.path("camera.onnx"), b"not a model").expect("a file");
    let output = case.aegis(&["check", "pipeline.toml"]);
    assert_eq!(output.status.code(), Some(2));
    expect![[r#"
        error: there is no evidence at pipeline.evidence.json; run `aegis profile` on the workload first
    "#]]
    .assert_eq(&text(&output.stderr));
}

/// Two models on the processor, where time is real and the declared stages keep a worker busy; with
/// so much room that a machine under load still keeps every deadline.
fn on_host(lidar: &str) -> String {
    workload(lidar)
        .replace(r#"driver = "sim""#, r#"driver = "host""#)
        .replace(r#"period = "10ms""#, r#"period = "200ms""#)
        .replace(r#"period = "100ms""#, r#"period = "2s""#)
        .replace(r#"stages = ["4ms"]"#, r#"stages = ["1ms"]"#)
}

#[test]
fn running_at_a_pace_in_virtual_time_is_refused_with_a_reason() {
    let case = Case::new(&workload(r#"["5ms"]"#));
    let output = case.aegis(&["run", "pipeline.toml", "--for", "100ms"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("lives in virtual time"), "{}", text(&output.stderr));
}

#[test]
fn run_reports_every_model_and_writes_a_whole_trace() {
    let case = Case::new(&on_host(r#"["5ms", "5ms"]"#));
    let output = case.aegis(&["run", "pipeline.toml", "--for", "900ms", "--trace", "out.jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    let camera = shown.lines().find(|line| line.starts_with("| camera ")).expect("its row");
    let jobs: u64 = camera.split('|').nth(2).expect("jobs").trim().parse().expect("a number");
    // Five releases fit; a machine under load makes some of them late, never more of them.
    assert!((2..=5).contains(&jobs), "900 ms hold the releases at 0, 200, .., 800: {shown}");
    assert!(shown.contains("| camera "), "{shown}");
    assert!(
        shown.contains("bounds violated with every assumption intact (a defect of AegisRT): none")
    );
    let trace = std::fs::read_to_string(case.path("out.jsonl")).expect("the trace");
    let last = trace.lines().last().expect("a closing line");
    assert!(last.starts_with(r#"{"end":{"records":"#), "{last}");
    assert!(last.ends_with(r#""dropped":0}}"#), "{last}");
    assert!(trace.contains(r#""event":"completed""#));
}

#[test]
fn run_refuses_as_check_does_unless_told_to_go_on() {
    let case = Case::new(&on_host(r#"["250ms"]"#));
    let output = case.aegis(&["run", "pipeline.toml", "--for", "100ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("no: lidar is refused"));
    let output = case.aegis(&["run", "pipeline.toml", "--for", "100ms", "--admitted-only"]);
    assert_eq!(output.status.code(), Some(1), "a model is missing all the same");
    let said = text(&output.stdout);
    assert!(said.contains("ran 0.1 s"), "{said}");
    let last = said.lines().last().expect("an answer");
    assert!(last.starts_with("no: ") && last.contains("not everything was admitted"), "{said}");
    let json = case.aegis(&["run", "pipeline.toml", "--for", "100ms", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON alone");
    assert_eq!(json["refused"][0]["model"], "lidar");
}

#[test]
fn a_trace_never_overwrites_what_the_command_reads() {
    let case = Case::new(&on_host(r#"["5ms"]"#));
    let link = case.path("out.jsonl"); // Under a name that stands for a format.
    std::os::unix::fs::symlink(case.path("pipeline.toml"), link).expect("a link");
    let arguments = ["run", "pipeline.toml", "--for", "100ms", "--trace", "out.jsonl"];
    let output = case.aegis(&arguments);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("the trace would overwrite pipeline.toml"));
    let workload = std::fs::read_to_string(case.path("pipeline.toml")).expect("still there");
    assert!(workload.contains("camera"));
}

#[test]
fn a_run_of_no_length_is_refused() {
    let case = Case::new(&on_host(r#"["5ms"]"#));
    let output = case.aegis(&["run", "pipeline.toml", "--for", "0s"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn jobs_that_fall_due_at_the_end_are_not_due() {
    let case = Case::new(&on_host(r#"["5ms"]"#));
    for _ in 0..2 {
        let json = case.aegis(&["run", "pipeline.toml", "--for", "400ms", "--json"]);
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON alone");
        let jobs = &json["run"]["jobs"];
        let of = |key: &str| jobs[key].as_u64().expect("a count");
        assert_eq!(of("due"), 3, "2 of camera, 1 of lidar: {jobs}");
        let told = of("submitted") + of("turned_away") + of("late") + of("at_the_end");
        assert_eq!(told, 3, "every one of them is somewhere: {jobs}");
    }
}

#[test]
fn a_run_without_a_job_is_no_proof_of_any_deadline() {
    let case = Case::new(&on_host(r#"["5ms"]"#));
    let output = case.aegis(&["run", "pipeline.toml", "--for", "1ns"]);
    let said = text(&output.stdout);
    assert!(!said.contains("were left out"), "{said}");
    // Which comes first is for the scheduler to say: the end, or the only job of each.
    let rows: Vec<&str> = said.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let none = rows.iter().all(|row| row.split('|').nth(2).is_some_and(|jobs| jobs.trim() == "0"));
    let last = said.lines().last().expect("an answer");
    assert_eq!(none, last.contains("no job was completed"), "{said}");
    assert_eq!(output.status.code(), Some(i32::from(none)), "{said}");
}

#[test]
fn more_memory_than_the_machine_has_is_refused() {
    let huge = on_host(r#"["5ms"]"#).replace("64MiB", "16000GiB");
    let output = Case::new(&huge).aegis(&["check", "pipeline.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let shown = text(&output.stderr);
    assert!(
        shown.contains("[device] memory is 15.625 TiB")
            || shown.contains("[device] memory is 16000 GiB"),
        "{shown}"
    );
}

#[test]
fn an_output_folder_that_is_not_there_is_an_error() {
    let case = Case::new(&on_host(r#"["5ms"]"#));
    let arguments = ["run", "pipeline.toml", "--for", "100ms", "--trace", "no/such/out.jsonl"];
    let output = case.aegis(&arguments);
    assert_eq!(output.status.code(), Some(2));
    let shown = text(&output.stderr);
    assert!(shown.contains("the trace no/such/out.jsonl could not be written"), "{shown}");
}

#[test]
fn ctrl_c_ends_the_run_with_its_report() {
    let case = Case::new(&on_host(r#"["5ms"]"#));
    let mut child = Command::new(env!("CARGO_BIN_EXE_aegis"))
        .args(["run", "pipeline.toml", "--trace", "out.jsonl"])
        .current_dir(case.folder.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("aegis starts");
    // The trace file appears once everything is set up; the signal handler is set before that.
    while !case.path("out.jsonl").exists() {
        assert_eq!(child.try_wait().expect("a child"), None, "it ended by itself");
        std::thread::yield_now();
    }
    // A run of no completed job is no *yes*.
    let log = || std::fs::read_to_string(case.path("out.jsonl")).expect("it is there");
    while !log().contains(r#""event":"completed""#) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("| camera "), "{}", text(&output.stdout));
}

#[test]
fn device_shows_a_table_or_json() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let table = run(folder.path(), &["device"]);
    assert_eq!(table.status.code(), Some(0));
    assert!(text(&table.stdout).contains("compute units"));
    let json = run(folder.path(), &["device", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON alone");
    assert_eq!(json["driver"], "host");
}

#[test]
fn profiling_declared_costs_is_refused_with_a_reason() {
    let case = Case::new(&workload(r#"["5ms"]"#));
    let output = case.aegis(&["profile", "pipeline.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is nothing to profile"));
}

//! Chains through the program: bounds, inequalities, and a chain that runs.

use std::process::{Command, Output};

use expect_test::expect;

/// A triggered and a sampled chain on `driver`, with what the first one asks for.
fn workload(driver: &str, overheads: &str, perception: &str) -> String {
    format!(
        r#"
        device = {{ driver = "{driver}", memory = "64MiB" }}
        scheduler = {{ policy = "edf", queue_depth = 64 }}
        overheads = {{ {overheads} }}
        [[model]]
        name = "camera"
        backend = "sim"
        period = "50ms"
        slots = 16
        sim = {{ stages = ["4ms"] }}
        [[model]]
        name = "detector"
        backend = "sim"
        period = "50ms"
        slots = 16
        sim = {{ stages = ["5ms", "5ms"] }}
        [[model]]
        name = "planner"
        backend = "sim"
        period = "100ms"
        slots = 16
        sim = {{ stages = ["6ms"] }}
        [[chain]]
        name = "perception"
        models = ["camera", "detector"]
        kind = "triggered"
        {perception}
        [[chain]]
        name = "steering"
        models = ["detector", "planner"]
        kind = "sampled"
        max_age = "4s"
        "#
    )
}

fn aegis(workload: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("pipeline.toml"), workload).expect("a file");
    let program = env!("CARGO_BIN_EXE_aegis");
    let output = Command::new(program).args(arguments).current_dir(folder.path()).output();
    output.expect("aegis starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("JSON alone")
}

const SIM: &str = r#"dispatch = "100us", wake = "0ms""#;
const HOST: &str = r#"dispatch = "3ms", wake = "20ms""#;

#[test]
fn check_bounds_every_chain() {
    let yes = aegis(&workload("sim", SIM, "deadline = \"45ms\""), &["check", "pipeline.toml"]);
    assert_eq!(yes.status.code(), Some(0), "{}", text(&yes.stdout));
    expect![[r#"
        | model    |   C ms |    T ms |    D ms | bound ms | blocking ms | slack ms | resident MiB | scratch MiB |
        |----------|--------|---------|---------|----------|-------------|----------|--------------|-------------|
        | camera   |  4.100 |  50.000 |  50.000 |   20.400 |       6.100 |   29.600 |          0.0 |         0.0 |
        | detector | 10.200 |  50.000 |  50.000 |   36.700 |       6.100 |   13.300 |          0.0 |         0.0 |
        | planner  |  6.100 | 100.000 | 100.000 |   20.400 |       0.000 |   79.600 |          0.0 |         0.0 |
        edf policy, proved by non-preemptive EDF demand and blocking
        C includes 100 us per stage; waking up may take 0 ns; utilisation 34.0 % without overheads
        memory: 0 B resident + 0 B shared scratch of 64 MiB
        | chain      |      kind | models | bound ms | deadline ms | slack ms |  age ms | most age ms |
        |------------|-----------|--------|----------|-------------|----------|---------|-------------|
        | perception | triggered |      2 |   36.700 |      45.000 |    8.300 |       - |           - |
        | steering   |   sampled |      2 |  207.100 |           - |        - | 107.100 |    4000.000 |
        the bound of a triggered chain is its end-to-end response, of a sampled one its reaction
        to the edge: all costs times 1.369, or stages in the background of 12.65 ms
        yes: all 3 models meet every deadline under the stated assumptions
    "#]].assert_eq(&text(&yes.stdout));
}

#[test]
fn check_says_no_with_the_inequality_of_a_chain() {
    let late = workload("sim", SIM, "deadline = \"20ms\"").replace("\"4s\"", "\"90ms\"");
    let no = aegis(&late, &["check", "pipeline.toml", "--sensitivity"]);
    assert_eq!(no.status.code(), Some(1));
    let shown = text(&no.stdout);
    let end: Vec<&str> = shown.lines().skip_while(|line| !line.starts_with("to the")).collect();
    expect![[r#"
        to the edge: all costs times 1.369, or stages in the background of 12.65 ms
        no sensitivity of each model: triggered chains move all jitters along
        no: chain perception (camera, detector): end-to-end response 36.7 ms > deadline 20 ms
        no: chain steering (detector, planner): data age 107.1 ms > 90 ms
        no: 3 models admitted, none refused, and 0 of 2 chains kept"#]]
    .assert_eq(&end.join("\n"));
    let json = json(&aegis(&late, &["check", "pipeline.toml", "--json"]));
    assert_eq!(json["chains"][0]["refused"][0]["refusal"], "response_exceeds_deadline");
    assert_eq!(json["chains"][0]["refused"][0]["deadline"], 20_000_000);
    assert_eq!(json["chains"][0]["bound"], json["admitted"]["models"][1]["bound"]);
    assert_eq!(json["chains"][0]["slack"], serde_json::Value::Null);
    assert_eq!(json["chains"][1]["refused"][0]["max_age"], 90_000_000);
    assert_eq!(json["margins"]["overrun"], serde_json::Value::Null);
    let jitter = &json["admitted"]["models"][1]["jitter"];
    assert_eq!(*jitter, json["admitted"]["models"][0]["bound"], "the hand-over takes no time");
}

#[test]
fn a_chain_with_a_member_that_is_refused_is_refused() {
    let slow = workload("sim", SIM, "").replace("[\"4ms\"]", "[\"34ms\"]");
    let no = aegis(&slow, &["check", "pipeline.toml"]);
    assert_eq!(no.status.code(), Some(1));
    let shown = text(&no.stdout);
    let end: Vec<&str> = shown.lines().skip_while(|line| !line.starts_with("no:")).collect();
    expect![[r#"
        no: detector is refused: detector: jitter + cost 64.7 ms > deadline 50 ms
        no: chain perception (camera, detector): its member detector is not admitted
        no: chain steering (detector, planner): its member detector is not admitted
        no: 2 of 3 models admitted, in file order; a model that is refused does not count for those after it"#]]
    .assert_eq(&end.join("\n"));
}

/// The deadlines are far away, so that a machine that is busy does not decide about this test.
#[test]
fn a_triggered_chain_runs_member_after_member() {
    let relaxed = workload("host", HOST, "deadline = \"3s\"")
        .replace("slots = 16", "slots = 16\n        deadline = \"3s\"");
    let output = aegis(&relaxed, &["run", "pipeline.toml", "--for", "2s", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let json = json(&output);
    let chain = &json["chains"][0];
    let seen = |key: &str| chain["observed"][key].as_u64().expect("a number");
    assert!(seen("completed") > 0);
    assert_eq!((seen("missed"), seen("lost")), (0, 0));
    assert!(seen("response_max") >= 14_000_000, "4 ms, then 10 ms: {chain}");
    assert_eq!(json["chains"][1]["observed"], serde_json::Value::Null, "nobody sees reactions");
    let counts = |model: usize| &json["admitted"]["models"][model]["observed"]["counts"];
    let jobs = |model: usize| counts(model)["completed"].as_u64().expect("a number");
    assert_eq!(jobs(1), seen("completed"));
    assert!(jobs(0) >= jobs(1), "each job of the detector was triggered by one of the camera");
    assert!(jobs(0) - jobs(1) <= 16, "but for those that the end of the run cut off");
}

#[test]
fn a_chain_that_takes_longer_than_it_may_makes_the_run_a_no() {
    // 14 ms of busy loops cannot end within 5 ms on any machine.
    let late = workload("host", HOST, "deadline = \"5ms\"")
        .replace("slots = 16", "slots = 16\n        deadline = \"3s\"");
    let refused = aegis(&late, &["run", "pipeline.toml", "--for", "1s"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!text(&refused.stdout).contains("ran 1."), "it does not run unasked");
    let ran = aegis(&late, &["run", "pipeline.toml", "--for", "1s", "--admitted-only"]);
    assert_eq!(ran.status.code(), Some(1));
    let shown = text(&ran.stdout);
    assert!(shown.contains("chain deadlines missed: "), "{shown}");
    assert!(shown.contains("| perception |"), "{shown}");
}

//! `aegis run`, `replay` and `explain` as a user meets them, on the CPU as the device.

mod program;

use program::{aegis, text};

const WORKLOAD: &str = r#"
device = { driver = "host", memory = "64MiB" }
scheduler = { policy = "edf", queue_depth = 16 }
overheads = { dispatch = "2ms", wake = "5ms" }
[[model]]
name = "camera"
backend = "sim"
period = "40ms"
sim = { stages = ["1ms"] }
[[model]]
name = "lidar"
backend = "sim"
period = "100ms"
sim = { stages = ["1ms", "2ms"] }
"#;

#[test]
fn a_run_replays_and_each_of_its_jobs_is_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    std::fs::write(at.join("w.toml"), WORKLOAD).expect("a file");
    let ran = aegis(at, &["run", "w.toml", "--for", "500ms", "--trace", "out.jsonl"]);
    // A busy machine may break an assumption; the trace must replay all the same.
    assert_ne!(ran.status.code(), Some(2), "{}", text(&ran.stderr));
    let replayed = aegis(at, &["replay", "out.jsonl", "--policy", "fifo"]);
    assert_eq!(replayed.status.code(), Some(0), "{}", text(&replayed.stdout));
    assert!(text(&replayed.stdout).contains("yes: every decision is as logged"));
    assert!(text(&replayed.stdout).contains("what fifo would have done"));
    let explained = aegis(at, &["explain", "out.jsonl", "--model", "lidar", "--worst", "--json"]);
    let account: serde_json::Value = serde_json::from_slice(&explained.stdout).expect("JSON alone");
    let terms = account["terms"].as_array().expect("a list").iter();
    let sum: u64 = terms.map(|term| term["length"].as_u64().expect("whole")).sum();
    assert_eq!(account["response"].as_u64(), Some(sum));
    let replayed = aegis(at, &["replay", "out.jsonl", "--policy", "priority"]);
    assert!(text(&replayed.stdout).contains("all priorities in the log are 0"));

    let trace = std::fs::read_to_string(at.join("out.jsonl")).expect("it was written");
    let other = trace.replacen("\"waiting\":0", "\"waiting\":9", 1);
    std::fs::write(at.join("other.jsonl"), other).expect("a file");
    let parted = aegis(at, &["replay", "other.jsonl"]);
    assert_eq!(parted.status.code(), Some(1));
    assert!(text(&parted.stdout).contains("the replay parts from the log"));
    std::fs::write(at.join("cut.jsonl"), &trace[..trace.len() / 2]).expect("a file");
    assert_eq!(aegis(at, &["replay", "cut.jsonl"]).status.code(), Some(2));
    assert_eq!(aegis(at, &["replay", "cut.jsonl", "--cut"]).status.code(), Some(0));
    let report = |trace| aegis(at, &["report", trace, "--out", "page.html"]).status.code();
    assert_eq!((report("out.jsonl"), report("cut.jsonl")), (Some(0), Some(1)));
}

#[test]
fn a_question_that_has_no_answer_is_broken_input() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [
        &["replay", "none.jsonl"][..],
        &["explain", "none.jsonl"],
        &["explain", "none.jsonl", "--model", "camera"],
        &["explain", "none.jsonl", "--job", "camera"],
        &["explain", "none.jsonl", "--job", "m1#1", "--worst"],
        &["replay", "-"],
        &["replay", "none.jsonl", "--policy", "best"],
    ] {
        let output = aegis(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

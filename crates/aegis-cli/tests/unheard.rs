//! Standard error that takes nothing: no command panics, and each ends as it would.

mod program;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use program::{aegis, text};

const WORKLOAD: &str = r#"
    device = { driver = "host", memory = "64MiB" }
    scheduler = { policy = "edf", queue_depth = 8 }
    wcet = { samples = 8 }
    [[model]]
    name = "camera"
    backend = "sim"
    period = "100ms"
    sim = { stages = ["200us"] }
"#;

/// As [`aegis`], with standard error on a disk that is full.
fn unheard(folder: &Path, arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_aegis"));
    program.args(arguments).current_dir(folder).stderr(full());
    program.output().expect("aegis starts")
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("the system has it").into()
}

#[test]
fn a_failed_command_ends_as_it_would() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("bad.toml"), "[device]\ndriver = \"none\"\n").expect("a file");
    fs::write(folder.path().join("task.jsonl"), "{}\n").expect("a file");
    for arguments in [
        &["check", "missing.toml"][..],
        &["check", "bad.toml"],
        &["-v", "check", "bad.toml"],
        &["profile", "missing.toml"],
        &["run", "bad.toml"],
        &["device", "missing.toml"],
        &["verify", "missing.json"],
        &["analyse", "missing.jsonl"],
        &["analyse", "task.jsonl"],
        &["report", "missing.jsonl"],
        &["trace", "convert", "missing.jsonl", "out.json"],
        &["replay", "missing.jsonl"],
        &["explain", "missing.jsonl", "--job", "m1#1"],
        &["plan", "missing.csv"],
        &["build-engine", "missing.onnx"],
        &["wcet", "missing.csv"],
        &["check"],
        &["no-such-command"],
    ] {
        let (heard, lost) = (aegis(folder.path(), arguments), unheard(folder.path(), arguments));
        assert_ne!(lost.status.code(), Some(0), "{arguments:?}");
        assert_eq!(lost.status.code(), heard.status.code(), "{arguments:?}");
        assert_eq!(text(&lost.stdout), text(&heard.stdout), "{arguments:?}");
    }
}

#[test]
fn a_profile_is_measured_and_a_run_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("pipeline.toml"), WORKLOAD).expect("a file");
    let profiled = unheard(folder.path(), &["profile", "pipeline.toml"]);
    assert_eq!(profiled.status.code(), Some(0), "{}", text(&profiled.stdout));
    let evidence = fs::read_to_string(folder.path().join("pipeline.evidence.json"));
    assert!(evidence.expect("it was written").contains("camera"));
    let ran = unheard(folder.path(), &["-vv", "run", "pipeline.toml", "--for", "300ms", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("a whole report");
    assert!(report["run"]["jobs"]["submitted"].as_u64().expect("a count") >= 1, "{report}");
    assert!(matches!(ran.status.code(), Some(0 | 1)), "no panic: {}", ran.status);
}

#[test]
fn a_header_of_samples_is_skipped_without_a_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let samples: String = (0..200).map(|n| format!("{}\n", 1000 + n % 7)).collect();
    fs::write(folder.path().join("times.csv"), format!("ns\n{samples}")).expect("a file");
    let arguments = ["wcet", "times.csv", "--coverage", "0.9", "--confidence", "0.9"];
    let (heard, lost) = (aegis(folder.path(), &arguments), unheard(folder.path(), &arguments));
    assert!(text(&heard.stderr).contains("was skipped as a header"), "{}", text(&heard.stderr));
    assert_eq!(lost.status.code(), heard.status.code());
    assert_eq!(text(&lost.stdout), text(&heard.stdout));
}

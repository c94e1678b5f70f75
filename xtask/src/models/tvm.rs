//! Networks compiled by TVM: the ONNX files of a set, or of the user, as modules for processors and GPUs.
//!
//! The compiler is a Python program of ours (`tvm_compile.py`) run by the environment that
//! `cargo xtask runtimes --tvm` makes. It needs no GPU. What TVM has no operator for is named, with
//! the reason, and the other networks are compiled all the same.
//!
//! # Invariants
//! 1. Equal sources, releases and processor names give equal names; what is current is kept.
//! 2. A manifest is in place only with the two files that it describes.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use crate::process;
use crate::runtimes;

/// The program that compiles.
const PROGRAM: &str = include_str!("tvm_compile.py");
const PROGRAM_NAME: &str = "tvm_compile.py";

/// The processor of the modules and of the host side of those for a GPU: what most machines of the
/// last ten years can run, so that a module does not depend on the machine that compiled it.
const CPU: &str = if cfg!(target_arch = "x86_64") { "x86-64-v3" } else { "generic" };

/// What became of one file for one target.
#[derive(Debug, Deserialize)]
struct Line {
    file: String,
    target: String,
    fate: Fate,
    #[serde(default)]
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fate {
    Compiled,
    Kept,
    Unsupported,
    Failed,
}

/// How many had which fate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    compiled: usize,
    kept: usize,
    pub(super) unsupported: usize,
    failed: usize,
}

/// Where the modules of the files in `folder` belong: beside it, with `-tvm` behind its name.
pub(super) fn folder_beside(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push("-tvm");
    folder.with_file_name(name)
}

/// Whether `target` is one that modules can be compiled for.
///
/// # Errors
/// What would be one.
pub(super) fn check_target(target: &str) -> Result<String, String> {
    let of_gpu = target.strip_prefix("sm_").is_some_and(|rest| {
        (2..=4).contains(&rest.len()) && rest.starts_with(|c: char| c.is_ascii_digit())
    });
    if target == "llvm" || of_gpu {
        return Ok(target.to_owned());
    }
    Err("write llvm for processors, or the GPU's architecture as in sm_90".to_owned())
}

/// The same where a GPU's architecture alone is meant.
///
/// # Errors
/// What would be one.
pub(crate) fn check_architecture(target: &str) -> Result<String, String> {
    match check_target(target) {
        Ok(target) if target != "llvm" => Ok(target),
        _ => Err("write the GPU's architecture as in sm_90; llvm is compiled anyway".to_owned()),
    }
}

/// Compiles `files` for every one of `targets` into `out`, and prints what became of each. Takes
/// seconds for each file that is not compiled already.
///
/// # Errors
/// There is no TVM, with what to run; or a file could not be compiled for any other reason than
/// that TVM does not support what is in it.
pub(super) fn compile(
    root: &Path,
    files: &[PathBuf],
    targets: &[String],
    out: &Path,
) -> anyhow::Result<Tally> {
    ensure!(!files.is_empty(), "there is no file to compile");
    let python = runtimes::tvm_python(root)?;
    let place = tempfile::tempdir().context("no folder for the compiling program")?;
    let program = place.path().join(PROGRAM_NAME);
    std::fs::write(&program, PROGRAM).context("the compiling program cannot be written")?;
    let mut command = Command::new(python);
    command.arg(&program).args(["--cpu", CPU, "--out"]).arg(out);
    for target in targets {
        command.args(["--target", target]);
    }
    command.args(files);
    let tally = follow(&mut command)?;
    println!("{tally}, in {}", out.display());
    if tally.failed > 0 {
        bail!("{} modules could not be compiled", tally.failed);
    }
    Ok(tally)
}

/// Runs the program and prints each line when it comes: a set takes minutes.
fn follow(command: &mut Command) -> anyhow::Result<Tally> {
    command.stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| process::not_started(command, error))?;
    let lines = BufReader::new(child.stdout.take().context("the program has no output")?).lines();
    let mut tally = Tally::default();
    for line in lines {
        let line = line.context("what the program says cannot be read")?;
        let line: Line = serde_json::from_str(&line)
            .with_context(|| format!("the program said something else: {line}"))?;
        tally.count(line.fate);
        if line.fate != Fate::Kept {
            println!("{line}");
        }
    }
    let status = child.wait().context("the program cannot be waited for")?;
    process::check(command, status, String::new())?;
    Ok(tally)
}

impl Tally {
    fn count(&mut self, fate: Fate) {
        *match fate {
            Fate::Compiled => &mut self.compiled,
            Fate::Kept => &mut self.kept,
            Fate::Unsupported => &mut self.unsupported,
            Fate::Failed => &mut self.failed,
        } += 1;
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, target, why, .. } = self;
        match self.fate {
            Fate::Compiled => write!(f, "compiled {file} for {target}"),
            Fate::Kept => write!(f, "{file} for {target} is current"),
            Fate::Unsupported => write!(f, "NOT SUPPORTED by TVM: {file} for {target}: {why}"),
            Fate::Failed => write!(f, "FAILED: {file} for {target}: {why}"),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compiled, kept, unsupported, failed } = self;
        write!(
            f,
            "{compiled} modules compiled, {kept} current, {unsupported} not supported by TVM, \
             {failed} failed"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_processor_or_an_architecture() {
        for good in ["llvm", "sm_90", "sm_120", "sm_90a"] {
            assert_eq!(check_target(good).as_deref(), Ok(good));
        }
        for bad in ["", "cuda", "sm_", "sm_x0", "sm_90_and_more", "LLVM"] {
            assert!(check_target(bad).is_err(), "{bad}");
        }
        assert!(check_architecture("sm_90").is_ok());
        assert!(check_architecture("llvm").is_err() && check_architecture("sm_foo").is_err());
    }

    #[test]
    fn what_the_program_says_is_counted_and_told() {
        let line = r#"{"file": "gru.onnx", "target": "llvm", "fate": "unsupported", "why": "GRU"}"#;
        let line: Line = serde_json::from_str(line).expect("as the program writes it");
        assert_eq!(line.to_string(), "NOT SUPPORTED by TVM: gru.onnx for llvm: GRU");
        let mut tally = Tally::default();
        tally.count(line.fate);
        tally.count(Fate::Compiled);
        let expected = "1 modules compiled, 0 current, 1 not supported by TVM, 0 failed";
        assert_eq!(tally.to_string(), expected);
    }

    #[test]
    fn modules_lie_beside_their_sources() {
        assert_eq!(folder_beside(Path::new("a/golden")), Path::new("a/golden-tvm"));
    }
}

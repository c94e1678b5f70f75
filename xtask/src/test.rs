//! Everything CI runs, on any machine, step by step.
//!
//! The steps are [`Step`], in the order in which they run: first what the tests need, then what is
//! quick to say no, then what takes minutes. The first failure ends the run, with the words that
//! repeat it.
//!
//! # Invariants
//! 1. A step is left out only when the caller says so or an earlier one failed, and the last line
//!    counts it.
//! 2. The tests see the real ONNX Runtime: they are pointed at the fetched library, and fail without.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::models::{self, ModelSet};
use crate::runtimes::{self, RuntimesArgs};
use crate::{layering, process, tidy, tools};

/// Which steps to run.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Leaves out this step; may be given again.
    #[arg(long, value_name = "STEP")]
    skip: Vec<Step>,
    /// Runs this step and those given likewise, no others.
    #[arg(long, value_name = "STEP", conflicts_with = "skip")]
    only: Vec<Step>,
}

/// One step, in the order of running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Every file is formatted.
    Fmt,
    /// The pinned ONNX Runtime and TVM, and a browser, are in place.
    Runtimes,
    /// Perfetto's own reader of traces is in place, for the tests that ask it.
    Perfetto,
    /// The models of the tests are written.
    Models,
    /// No lint complains, with default features.
    Clippy,
    /// No lint complains, without the runtimes.
    ClippyMinimal,
    /// Every crate uses only crates above it.
    Layering,
    /// The house rules hold.
    Tidy,
    /// Licences, sources and duplicates of the dependencies are as allowed.
    Deny,
    /// The documentation builds without a warning.
    Doc,
    /// The tests pass.
    Nextest,
    /// The examples in the documentation pass.
    Doctest,
    /// Everything builds without the runtimes.
    BuildMinimal,
    /// TensorRT: no lint complains with it built in, and its real library builds engines.
    Trt,
}

/// The crates that have features, without them. Alone, since any other crate of the workspace that
/// asks for a feature would turn it on for all.
const MINIMAL: [&str; 5] = ["--package", "aegis", "--package", PROGRAM, "--no-default-features"];

/// The crate of the command `aegis`.
const PROGRAM: &str = "aegis-cli";

/// The crates that know TensorRT, with it. The same for linting and testing, so that nothing is built
/// twice.
const TRT: [&str; 8] = [
    "--package",
    "aegis-backend-trt",
    "--package",
    PROGRAM,
    "--package",
    "aegis-gpu-tests",
    "--features",
    "aegis-backend-trt/mock,aegis-cli/trt,aegis-gpu-tests/trt,aegis-gpu-tests/tvm",
];

/// The tests of the backend, and those of the command that builds engines.
const TRT_TESTS: &str = "package(aegis-backend-trt) or binary(build_engine)";

/// The sets of models that tests read.
const MODEL_SETS: [ModelSet; 2] = [ModelSet::Golden, ModelSet::Faulty];

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed(Duration),
    Failed(Duration),
    /// The caller did without it.
    Skipped,
    /// An earlier step failed.
    NotReached,
}

/// The steps and how they went, in order.
struct Summary(Vec<(Step, Outcome)>);

/// Runs the chosen steps and prints how each went.
///
/// # Errors
/// The first step that fails, with what repeats it.
pub(crate) fn run(root: &Path, args: &TestArgs) -> anyhow::Result<()> {
    let mut outcomes = Vec::new();
    let mut failure = None;
    for step in Step::value_variants() {
        let outcome = match failure {
            _ if !args.wants(*step) => Outcome::Skipped,
            Some(_) => Outcome::NotReached,
            None => step.timed(root, &mut failure),
        };
        outcomes.push((*step, outcome));
    }
    println!("\n{}", Summary(outcomes));
    failure.map_or(Ok(()), Err)
}

impl TestArgs {
    fn wants(&self, step: Step) -> bool {
        !self.skip.contains(&step) && (self.only.is_empty() || self.only.contains(&step))
    }
}

impl Step {
    /// Runs the step and says how long it took; its error goes to `failure`.
    fn timed(self, root: &Path, failure: &mut Option<anyhow::Error>) -> Outcome {
        println!("\n== {self}");
        let start = Instant::now();
        let result = self.run(root);
        let took = start.elapsed();
        match result {
            Ok(()) => {
                println!("== {self} passed in {:.1} s", took.as_secs_f64());
                Outcome::Passed(took)
            }
            Err(error) => {
                let repeat =
                    format!("step {self} failed; repeat it: cargo xtask test --only {self}");
                *failure = Some(error.context(repeat));
                Outcome::Failed(took)
            }
        }
    }

    fn run(self, root: &Path) -> anyhow::Result<()> {
        match self {
            Self::Fmt => cargo(root, &["fmt", "--all", "--check"]),
            Self::Runtimes => fetch_runtimes(root),
            Self::Perfetto => runtimes::run(root, &RuntimesArgs::perfetto()),
            Self::Models => write_models(),
            Self::Clippy => clippy(root, &["--workspace"]),
            Self::ClippyMinimal => clippy(root, &MINIMAL),
            Self::Layering => layering::run(root),
            Self::Tidy => tidy::run(root),
            Self::Deny => deny(root),
            Self::Doc => doc(root),
            Self::Nextest => nextest(root),
            Self::Doctest => doctest(root),
            Self::BuildMinimal => cargo(root, &[["build"].as_slice(), &MINIMAL].concat()),
            Self::Trt => trt(root),
        }
    }
}

fn cargo(root: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    Ok(process::show_and_run(tools::cargo(root).args(arguments))?)
}

fn deny(root: &Path) -> anyhow::Result<()> {
    let mut deny = tools::DENY.command(root)?;
    Ok(process::show_and_run(deny.args(["check", "bans", "licenses", "sources"]))?)
}

/// ONNX Runtime, TVM and a browser: tests need all. What was fetched before is not fetched again.
fn fetch_runtimes(root: &Path) -> anyhow::Result<()> {
    println!("browser: {}", runtimes::provide_browser(root)?.display());
    runtimes::run(root, &RuntimesArgs::default())?;
    runtimes::run(root, &RuntimesArgs::of_tvm())
}

/// Writes what tests read, and compiles the networks with TVM: a minute or two, once.
fn write_models() -> anyhow::Result<()> {
    for set in MODEL_SETS {
        let folder = models::default_dir(set);
        let written = models::write_set(set, &folder)?;
        println!("{} models in {}", written.len(), folder.display());
    }
    models::compile_set(ModelSet::Golden, &["llvm".to_owned()], None)?;
    Ok(())
}

fn clippy(root: &Path, selection: &[&str]) -> anyhow::Result<()> {
    let mut clippy = tools::cargo(root);
    clippy.arg("clippy").args(selection).args(["--all-targets", "--", "-D", "warnings"]);
    Ok(process::show_and_run(&mut clippy)?)
}

/// The program `aegis` and the library `aegis` would be written to one page, so they are documented
/// apart, and the library last: its page is the one that stays.
fn doc(root: &Path) -> anyhow::Result<()> {
    for selection in [["--package", PROGRAM].as_slice(), &["--workspace", "--exclude", PROGRAM]] {
        let mut doc = tools::cargo(root);
        doc.args(["doc", "--no-deps"]).args(selection).env("RUSTDOCFLAGS", "-D warnings");
        process::show_and_run(&mut doc)?;
    }
    Ok(())
}

fn nextest(root: &Path) -> anyhow::Result<()> {
    let mut nextest = tools::NEXTEST.command(root)?;
    nextest.args(["run", "--workspace", "--profile", "ci"]);
    nextest.env("AEGIS_BROWSER", runtimes::provide_browser(root)?);
    Ok(process::show_and_run(with_runtime(root, &mut nextest))?)
}

/// What is left to the end, since it fetches most and nothing else needs it. TensorRT itself, which
/// cannot be fetched, is linted only.
fn trt(root: &Path) -> anyhow::Result<()> {
    runtimes::provide_trt(root)?;
    clippy(root, &TRT)?;
    clippy(root, &["--package", "aegis-backend-trt", "--features", "enterprise"])?;
    let mut nextest = tools::NEXTEST.command(root)?;
    nextest.args(["run", "--profile", "ci"]).args(TRT).args(["-E", TRT_TESTS]);
    Ok(process::show_and_run(&mut nextest)?)
}

fn doctest(root: &Path) -> anyhow::Result<()> {
    let mut doctest = tools::cargo(root);
    doctest.args(["test", "--doc", "--workspace"]);
    Ok(process::show_and_run(with_runtime(root, &mut doctest))?)
}

/// Points tests at the fetched library.
fn with_runtime<'a>(root: &Path, command: &'a mut Command) -> &'a mut Command {
    command.env("ORT_DYLIB_PATH", runtimes::library(root))
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        for (step, outcome) in &self.0 {
            match outcome {
                Outcome::Passed(took) => {
                    passed += 1;
                    writeln!(f, "{step:<14} passed {:>8.1} s", took.as_secs_f64())?;
                }
                Outcome::Failed(took) => {
                    failed += 1;
                    writeln!(f, "{step:<14} FAILED {:>8.1} s", took.as_secs_f64())?;
                }
                Outcome::Skipped => {
                    skipped += 1;
                    writeln!(f, "{step:<14} skipped")?;
                }
                Outcome::NotReached => {
                    skipped += 1;
                    writeln!(f, "{step:<14} not reached")?;
                }
            }
        }
        write!(f, "steps: {passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_every_step() {
        let second = Duration::from_secs(1);
        let summary = Summary(vec![
            (Step::Fmt, Outcome::Passed(second)),
            (Step::ClippyMinimal, Outcome::Failed(90 * second)),
            (Step::Doc, Outcome::Skipped),
            (Step::Nextest, Outcome::NotReached),
        ]);
        assert_eq!(
            summary.to_string(),
            "fmt            passed      1.0 s\n\
             clippy-minimal FAILED     90.0 s\n\
             doc            skipped\n\
             nextest        not reached\n\
             steps: 1 passed, 1 failed, 2 skipped"
        );
    }

    #[test]
    fn a_choice_of_steps_is_kept_to() {
        let only = TestArgs { skip: vec![], only: vec![Step::Doc] };
        assert!(only.wants(Step::Doc) && !only.wants(Step::Fmt));
        let skip = TestArgs { skip: vec![Step::Doc], only: vec![] };
        assert!(!skip.wants(Step::Doc) && skip.wants(Step::Fmt));
    }
}

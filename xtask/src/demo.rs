//! The product shown from nothing: runtime, models, profile, admission, run, report, trace.
//!
//! Every command is printed as the user would type it, so that the demo is also its own manual.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::Args;

use crate::models::{self, ModelSet};
use crate::process::ProcessError;
use crate::runtimes::{self, RuntimesArgs};
use crate::{process, tools};

/// Where the demo leaves what it made; git-ignored.
const OUT: &str = "out";
/// What `check` answered.
const ANSWER: &str = "out/demo.check.txt";
/// How many lines of a *no* are said again at the end, the last ones.
const REASONS_SHOWN: usize = 4;
/// What to do about a *no*.
const REMEDY: &str = "What else runs on this machine, or on the host of a virtual one, makes stages \
    longer than\nthey are alone. Let it become quiet and run the demo again: it measures anew.";
/// The page that is made of the trace.
const PAGE: &str = "out/demo.report.html";

/// What to show.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// How long the models run, such as 20s or 2min.
    #[arg(long = "for", value_name = "DURATION", default_value = "20s", value_parser = check_duration)]
    duration: String,
    /// The models to run and how often; relative to the root of the repository.
    #[arg(long, value_name = "FILE", default_value = "benches/workloads/edge24-host.toml")]
    workload: PathBuf,
}

/// A whole number of seconds or minutes that is not zero, as `aegis run --for` takes it.
///
/// # Errors
/// What would be one.
fn check_duration(text: &str) -> Result<String, String> {
    let units = ["ms", "min", "s", "h"];
    let number = units.iter().find_map(|unit| text.strip_suffix(unit));
    match number.and_then(|number| number.trim().parse::<u32>().ok()) {
        Some(1..) => Ok(text.to_owned()),
        _ => Err("write a whole number that is not zero and its unit, as 20s or 2min".to_owned()),
    }
}

/// Runs the demo in the workspace at `root`.
///
/// # Errors
/// A step fails; a set of models that is not admitted is such a failure.
pub(crate) fn run(root: &Path, args: &DemoArgs) -> anyhow::Result<()> {
    let workload = root.join(&args.workload);
    anyhow::ensure!(workload.is_file(), "there is no workload at {}", workload.display());
    ignore_interrupts()?;
    heading("ONNX Runtime");
    runtimes::run(root, &RuntimesArgs::default())?;
    heading("24 networks with random weights");
    let folder = models::default_dir(ModelSet::Host24);
    let written = models::write_set(ModelSet::Host24, &folder)?;
    println!("{} models in {}", written.len(), folder.display());
    heading("The program");
    process::show_and_run(tools::cargo(root).args(["build", "--release", "-p", "aegis-cli"]))?;

    let aegis = Aegis { root, program: program(root)? };
    fs::create_dir_all(root.join(OUT)).context("the folder for report and trace")?;
    // Relative to `root`, where the program runs, so that it is given what the user reads.
    let (report, trace) = (format!("{OUT}/demo.report.txt"), format!("{OUT}/demo.trace.jsonl"));

    heading("The device");
    process::show_and_run(&mut aegis.command(&["device"]))?;
    heading("How long each model takes, alone");
    process::show_and_run(aegis.command(&["profile"]).arg(&args.workload))?;
    heading("Whether all of them meet every deadline");
    let answer = root.join(ANSWER);
    show_and_keep(aegis.command(&["check"]).arg(&args.workload), &answer).map_err(|error| {
        explained("the models are not admitted on this machine", error, &answer)
    })?;
    heading("The run");
    let mut run = aegis.command(&["run"]);
    run.arg(&args.workload).args(["--for", &args.duration, "--trace"]).arg(&trace);
    let ran = show_and_keep(&mut run, &root.join(&report));
    println!("\nreport: {report}\ntrace:  {trace}");
    // Also of a run that ended with *no*: it is wanted most then.
    if root.join(&trace).is_file() {
        let mut page = aegis.command(&["report"]);
        process::show_and_run(page.arg(&trace).args(["--out", PAGE]))?;
    }
    ran.map_err(|error| explained("the run ended with *no*", error, &root.join(&report)))
}

/// What is said last of a step that failed: where it answered *no*, its own words, which it left in
/// `kept`, and what can be done about it; otherwise how it failed.
fn explained(what: &'static str, error: anyhow::Error, kept: &Path) -> anyhow::Error {
    let answered = match error.downcast_ref() {
        Some(ProcessError::Failed { status, .. }) => status.code() == Some(1),
        _ => false,
    };
    let told = fs::read_to_string(kept).unwrap_or_default();
    let reasons: Vec<&str> = told.lines().filter(|line| line.starts_with("no: ")).collect();
    if !answered || reasons.is_empty() {
        return error.context(what);
    }
    let from = reasons.len().saturating_sub(REASONS_SHOWN);
    anyhow::anyhow!("{what}\n  {}\n{REMEDY}", reasons[from..].join("\n  "))
}

/// The program under show.
struct Aegis<'a> {
    root: &'a Path,
    program: PathBuf,
}

impl Aegis<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(self.root).args(arguments);
        command
    }
}

/// Where cargo puts the release build of the program.
fn program(root: &Path) -> anyhow::Result<PathBuf> {
    Ok(tools::target_folder(root)?.join("release/aegis"))
}

/// Leaves Ctrl-C to the child, which ends with its report; this process then goes on to say where
/// the report is.
fn ignore_interrupts() -> anyhow::Result<()> {
    let unread = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, unread)
        .context("Ctrl-C cannot be left to the program under show")?;
    Ok(())
}

fn heading(text: &str) {
    println!("\n# {text}");
}

/// Shows and runs `command`, keeping in `file` what the command writes to its standard output.
fn show_and_keep(command: &mut Command, file: &Path) -> anyhow::Result<()> {
    println!("$ {}", process::line(command));
    let mut kept = File::create(file).with_context(|| file.display().to_string())?;
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| process::not_started(command, error))?;
    let copied = match child.stdout.take() {
        Some(mut output) => copy_to_both(&mut output, &mut io::stdout(), &mut kept),
        None => Ok(()),
    };
    let status = child.wait().context("the program under show")?;
    copied.with_context(|| file.display().to_string())?;
    Ok(process::check(command, status, String::new())?)
}

/// Passes on what `from` says as soon as it says it.
fn copy_to_both(
    from: &mut impl Read,
    first: &mut impl Write,
    second: &mut impl Write,
) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        first.write_all(&buffer[..length])?;
        first.flush()?;
        second.write_all(&buffer[..length])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_is_not_zero() {
        for good in ["20s", "2min", "500ms", "1h", "5 s"] {
            assert_eq!(check_duration(good).as_deref(), Ok(good));
        }
        for bad in ["0", "5", "0s", "s", "-1s", "5 parsecs", "1.5"] {
            assert!(check_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn output_is_show_and_keep() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("report.txt");
        let mut command = Command::new("sh");
        command.args(["-c", "echo admitted: 24"]);
        show_and_keep(&mut command, &file).expect("sh is there");
        assert_eq!(fs::read_to_string(file).expect("it was kept"), "admitted: 24\n");
    }

    #[test]
    fn a_run_that_fails_fails_the_demo_and_keeps_its_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("report.txt");
        let mut command = Command::new("sh");
        command.args(["-c", "echo refused; exit 1"]);
        let error = show_and_keep(&mut command, &file).expect_err("it exits with 1");
        assert!(error.to_string().contains("exit status: 1"), "{error}");
        assert_eq!(fs::read_to_string(file).expect("it was kept"), "refused\n");
    }

    #[test]
    fn a_no_is_said_last_with_its_reason_and_a_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("report.txt");
        let after = |script: &str| {
            let mut command = Command::new("sh");
            let error = show_and_keep(command.args(["-c", script]), &file).expect_err("it fails");
            format!("{:#}", explained("the run ended with *no*", error, &file))
        };
        let told = after("echo a table; echo 'no: deadlines missed: 3'; exit 1");
        let expected = "the run ended with *no*\n  no: deadlines missed: 3\nWhat else runs on ";
        assert!(told.starts_with(expected) && told.ends_with("it measures anew."), "{told}");
        let told = after("echo 'no: 1'; exit 2");
        assert!(told.ends_with("exit status: 2") && !told.contains(REMEDY), "{told}");
        assert!(after("echo yes; exit 1").contains("exit status: 1"));
    }
}

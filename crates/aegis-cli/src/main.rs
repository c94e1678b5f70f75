//! The `aegis` command: one file per subcommand, no logic a library should own.
//!
//! Exit status: 0 *yes*; 1 *no* (a model is refused or failed, a deadline was missed, a bound was
//! violated without a broken assumption, a capacity is not met, a certificate does not hold, a replay
//! parts from its log, or a line of task sets makes no sense); 2 the input is broken or the command
//! failed.
#![forbid(unsafe_code)]
#![deny(clippy::print_stderr)]

mod analyse;
mod build_engine;
mod chains;
mod charges;
mod check;
mod device;
mod edge;
mod explain;
mod exports;
mod findings;
mod histogram;
mod logging;
mod memory;
mod output;
mod plan;
mod profile;
mod recording;
mod replay;
mod report;
mod run;
mod split;
mod table;
mod trace;
#[cfg(feature = "tui")]
mod tui;
mod verify;
mod wcet;
mod written;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Runs many inference models on one device and proves beforehand that each meets its deadline.
#[derive(Parser)]
#[command(name = "aegis", version, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    log: logging::LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what the device is and has.
    Device(device::DeviceArgs),
    /// Measure every model of a workload on its device and write the evidence beside it.
    Profile(profile::ProfileArgs),
    /// Decide whether every model of a workload can be admitted; load and run nothing.
    Check(check::CheckArgs),
    /// Decide for task sets in JSON Lines whether each meets its deadlines, and bound every response.
    Analyse(analyse::AnalyseArgs),
    /// Admit the models of a workload, run them at their periods, and report.
    Run(run::RunArgs),
    /// Check a certificate without trusting who wrote it: recompute every number and inequality.
    Verify(verify::VerifyArgs),
    /// Make a page for a browser from the trace of a run.
    Report(report::ReportArgs),
    /// Make pictures of traces.
    Trace(trace::TraceArgs),
    /// Recompute every decision of a trace from the trace alone, or what another policy would have done.
    Replay(replay::ReplayArgs),
    /// Say what one job of a trace waited for, beside what its bound allows.
    Explain(explain::ExplainArgs),
    /// Find offsets for a file of tensor lifetimes.
    Plan(plan::PlanArgs),
    /// Build a serialised engine of TensorRT from an ONNX file, or inspect one.
    BuildEngine(build_engine::BuildEngineArgs),
    /// Bound an execution time from measured samples, with the confidence it carries.
    Wcet(wcet::WcetArgs),
}

/// The answer of a command that ran to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
}

impl Command {
    fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::Device(args) => device::run(&args),
            Self::Profile(args) => profile::run(&args),
            Self::Check(args) => check::run(&args),
            Self::Analyse(args) => analyse::run(&args),
            Self::Run(args) => run::run(&args),
            Self::Replay(args) => replay::run(&args),
            Self::Explain(args) => explain::run(&args),
            Self::Verify(args) => verify::run(&args),
            Self::Report(args) => report::run(&args),
            Self::Trace(args) => trace::run(&args),
            Self::Plan(args) => plan::run(&args),
            Self::BuildEngine(args) => build_engine::run(&args),
            Self::Wcet(args) => wcet::run(&args),
        }
    }
}

fn main() -> ExitCode {
    let Arguments { log, command } = Arguments::parse();
    let outlived = outlive_size_limits();
    match outlived.and_then(|()| log.install()).and_then(|()| command.run()) {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            complain(&error);
            ExitCode::from(2)
        }
    }
}

/// Has a write beyond the size limit of a file fail like any other, instead of ending the process: what
/// catches the signal leaves the write to say `EFBIG`.
fn outlive_size_limits() -> anyhow::Result<()> {
    let unread = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::signal::SIGXFSZ, unread)
        .context("the signal of a file that grows too large cannot be caught")?;
    Ok(())
}

/// Prints an error with its causes. The faults of a workload file carry their own headings.
fn complain(error: &anyhow::Error) {
    aegis::log::error("the command failed", error.as_ref());
    if let Some(faults @ aegis::Error::Workload(_)) = error.downcast_ref() {
        output::say(faults);
    } else {
        output::say(format!("error: {error:#}"));
    }
}

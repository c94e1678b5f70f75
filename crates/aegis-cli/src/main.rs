//! The `aegis` command: one file per subcommand, no logic a library should own.
//!
//! Exit status: 0 *yes*; 1 *no* (a model is refused or failed, a deadline was missed, a bound was
//! violated without a broken assumption, a capacity is not met, or a line of task sets makes no
//! sense); 2 the input is broken or the command failed.
#![forbid(unsafe_code)]

mod analyse;
mod build_engine;
mod chains;
mod check;
mod device;
mod edge;
mod findings;
mod histogram;
mod log;
mod output;
mod plan;
mod profile;
mod run;
mod split;
mod table;
mod wcet;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs many inference models on one device and proves beforehand that each meets its deadline.
#[derive(Parser)]
#[command(name = "aegis", version, arg_required_else_help = true)]
struct Arguments {
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = log::start() {
        report(&error);
        return ExitCode::from(2);
    }
    let answer = match arguments.command {
        Command::Device(args) => device::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Analyse(args) => analyse::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::BuildEngine(args) => build_engine::run(&args),
        Command::Wcet(args) => wcet::run(&args),
    };
    match answer {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            report(&error);
            ExitCode::from(2)
        }
    }
}

/// Prints an error with its causes. The faults of a workload file carry their own headings.
fn report(error: &anyhow::Error) {
    if let Some(faults @ aegis::Error::Workload(_)) = error.downcast_ref() {
        eprintln!("{faults}");
    } else {
        eprintln!("error: {error:#}");
    }
}

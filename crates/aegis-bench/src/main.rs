//! The measurements on a device: AegisRT beside what people do without it.
//!
//! Each command measures one thing on the machine it is on and leaves its figures as JSON in the
//! folder of results; `report` makes one report of all that is there. `compare` measures the
//! headline and every baseline, each in a process of its own so that none inherits the memory, the
//! kernels or the threads of another.
//!
//! # Invariants
//! 1. Every figure carries its number of samples and its setting.
//! 2. Integers count and divide; floats are only printed.
//! 3. A command that finds what must not be (a late job, a wrong number) leaves its figures and ends
//!    with status 1; one that could not measure ends with 2.
#![deny(unsafe_code)]

mod alone;
mod baseline;
mod costs;
mod figures;
mod headline;
mod network;
mod outputs;
mod plot;
mod report;
mod rounding;
mod runtimes;
mod session;
mod setting;
mod stats;
mod stream;
mod tune;
mod variant;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use aegis::Nanos;
use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::alone::Beside;
use crate::baseline::Kind;
use crate::variant::Change;

/// Measures AegisRT on this machine, beside what people do without it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The folder of results.
    #[arg(long, global = true, value_name = "FOLDER", default_value = "results")]
    results: PathBuf,
    /// Another driver than the one that the workload names.
    #[arg(long, global = true)]
    driver: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the workload through AegisRT.
    Headline {
        workload: PathBuf,
        /// How long a run is.
        #[arg(long = "for", default_value = "60s")]
        length: Nanos,
        /// How many runs, one after the other.
        #[arg(long, default_value_t = 1)]
        runs: u64,
    },
    /// Run the same models at the same rates without AegisRT.
    Baseline {
        workload: PathBuf,
        #[arg(long, value_enum)]
        kind: Kind,
        /// How long.
        #[arg(long = "for", default_value = "60s")]
        length: Nanos,
    },
    /// Run each model alone.
    Alone {
        workload: PathBuf,
        /// Jobs of each model.
        #[arg(long, default_value_t = 1000)]
        runs: u64,
    },
    /// Run each model alone, and call its network bare.
    Overhead {
        workload: PathBuf,
        /// Jobs and calls of each model.
        #[arg(long, default_value_t = 1000)]
        runs: u64,
    },
    /// Compare the numbers of each model with those of the processor.
    Outputs { workload: PathBuf },
    /// Run the same networks on several runtimes in one pipeline, and compare times and outputs.
    Runtimes {
        workload: PathBuf,
        /// Jobs of each model.
        #[arg(long, default_value_t = 300)]
        runs: u64,
    },
    /// Print periods that load the device to a wanted share.
    Tune {
        workload: PathBuf,
        /// Percent of the time.
        #[arg(long, default_value_t = 93, value_parser = clap::value_parser!(u64).range(1..=100))]
        load: u64,
    },
    /// Measure the headline and every baseline, one after the other, and report.
    Compare {
        workload: PathBuf,
        /// How long a run of each is.
        #[arg(long = "for", default_value = "60s")]
        length: Nanos,
        /// Runs of the headline.
        #[arg(long, default_value_t = 1)]
        runs: u64,
    },
    /// Make one report of all results.
    Report,
}

/// Whether everything was as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<Answer> {
    let Arguments { results, driver, command } = arguments;
    let change = Change { driver, only: None };
    match command {
        Command::Headline { workload, length, runs } => {
            let observed = headline::run(&workload, &change, length, runs)?;
            figures::write(&results, "headline", &observed)?;
            let over: u64 = observed.models.iter().map(|model| model.over_bound).sum();
            Ok(yes_if(observed.misses() == 0 && over == 0))
        }
        Command::Baseline { workload, kind, length } => {
            let observed = baseline::run(&workload, &change, kind, length)?;
            println!(
                "{}: {} jobs, {} not in time",
                observed.how,
                observed.completed(),
                observed.misses()
            );
            figures::write(&results, &format!("baseline-{}", kind.name()), &observed)?;
            Ok(Answer::Yes) // Nobody promised that a baseline is in time.
        }
        Command::Alone { workload, runs } => {
            let alone = alone::run(&workload, &change, runs, Beside::Nothing)?;
            figures::write(&results, "alone", &alone)?;
            Ok(Answer::Yes)
        }
        Command::Overhead { workload, runs } => {
            let overhead = alone::run(&workload, &change, runs, Beside::BareCalls)?;
            figures::write(&results, "overhead", &overhead)?;
            Ok(Answer::Yes)
        }
        Command::Outputs { workload } => {
            let compared = outputs::run(&workload, &change)?;
            for output in compared.outputs.iter().filter(|output| !output.holds()) {
                println!("WRONG: {output:?}");
            }
            figures::write(&results, "outputs", &compared)?;
            Ok(yes_if(compared.outputs.iter().all(outputs::OutputFigures::holds)))
        }
        Command::Runtimes { workload, runs } => {
            let beside = runtimes::run(&workload, &change, runs)?;
            print!("{}", report::runtimes(&beside));
            for model in beside.models.iter().filter(|model| !model.holds()) {
                println!("WRONG: {model:?}");
            }
            figures::write(&results, &format!("runtimes-{}", beside.driver), &beside)?;
            Ok(yes_if(beside.models.iter().all(runtimes::RuntimeFigures::holds)))
        }
        Command::Tune { workload, load } => {
            tune::run(&workload, &change, load).map(|()| Answer::Yes)
        }
        Command::Compare { workload, length, runs } => {
            compare(&results, &change, &workload, length, runs)
        }
        Command::Report => report::run(&results).map(|()| Answer::Yes),
    }
}

fn yes_if(kept: bool) -> Answer {
    if kept { Answer::Yes } else { Answer::No }
}

/// Runs this program again for each part, so that each has a process of its own.
fn compare(
    results: &Path,
    change: &Change,
    workload: &Path,
    length: Nanos,
    runs: u64,
) -> anyhow::Result<Answer> {
    let length = format!("{}ns", length.as_nanos());
    let runs = runs.to_string();
    let part = |arguments: &[&str]| -> anyhow::Result<Answer> {
        let program = env::current_exe().context("this program does not know where it is")?;
        let mut command = process::Command::new(program);
        command.arg("--results").arg(results);
        if let Some(driver) = &change.driver {
            command.args(["--driver", driver]);
        }
        command.args(&arguments[..1]).arg(workload).args(&arguments[1..]);
        let status = command.args(["--for", &length]).status()?;
        anyhow::ensure!(matches!(status.code(), Some(0 | 1)), "{} failed: {status}", arguments[0]);
        Ok(yes_if(status.success()))
    };
    let answer = part(&["headline", "--runs", &runs])?;
    for kind in Kind::ALL {
        part(&["baseline", "--kind", kind.name()])?;
    }
    report::run(results)?;
    Ok(answer)
}

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
#![cfg_attr(not(test), deny(clippy::print_stderr))]

mod alone;
mod baseline;
mod costs;
mod faults;
mod figures;
mod headline;
mod network;
mod outputs;
mod plot;
mod readback;
mod report;
mod rounding;
mod runtimes;
mod session;
mod setting;
mod split;
mod stats;
mod stream;
mod tune;
mod tuned;
mod variant;

use std::env;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use aegis::Nanos;
use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::alone::Beside;
use crate::baseline::Kind;
use crate::faults::Fault;
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
    /// Run a workload of a split device, and set how much its partitions slow each other beside what was
    /// profiled.
    Split {
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
    /// Run a few of the models with a fault in one of them.
    Faults {
        workload: PathBuf,
        /// This fault alone; all of them otherwise, each in a process of its own.
        #[arg(long, value_enum)]
        fault: Option<Fault>,
        /// How long a run is.
        #[arg(long = "for", default_value = "9s")]
        length: Nanos,
    },
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
        #[arg(long, default_value_t = 91, value_parser = clap::value_parser!(u64).range(1..=100))]
        load: u64,
        /// Write the workload with these periods to this file, and a copy of the evidence beside it: in
        /// the folder of the workload, so that its paths hold.
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
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
    /// Measure everything, each part in a process of its own, and report: the outputs, each model alone
    /// beside its bare loop, the faults, the headline, every baseline and the split device. A workload
    /// without evidence is profiled first. What fails is said, and the rest is measured.
    All {
        workload: PathBuf,
        /// A workload of the split device.
        #[arg(long)]
        split: Option<PathBuf>,
        /// How long a run of each is.
        #[arg(long = "for", default_value = "60s")]
        length: Nanos,
        /// Runs of the headline.
        #[arg(long, default_value_t = 1)]
        runs: u64,
    },
    /// Measure what each model takes, and leave the evidence beside the workload.
    Profile { workload: PathBuf },
    /// Make one report of all results.
    Report,
}

/// Whether everything was as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
}

impl Answer {
    fn and(self, other: Self) -> Self {
        yes_if(self == Self::Yes && other == Self::Yes)
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            complain(&error);
            ExitCode::from(2)
        }
    }
}

/// Prints an error with its causes. The faults of a workload file carry their own headings.
fn complain(error: &anyhow::Error) {
    match error.downcast_ref() {
        Some(faults @ aegis::Error::Workload(_)) => say(faults),
        _ => say(format!("error: {error:#}")),
    }
}

/// Says something on standard error. What cannot be written there is lost, and changes nothing:
/// `eprintln!` would panic.
fn say(text: impl Display) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

fn run(arguments: Arguments) -> anyhow::Result<Answer> {
    let Arguments { results, driver, command } = arguments;
    let change = Change { driver, ..Change::default() };
    match command {
        Command::Headline { workload, length, runs } => {
            let observed = headline::run(&workload, &change, length, runs)?;
            observed.device.iter().for_each(|device| println!("{}", report::copies(*device)));
            figures::write(&results, "headline", &observed)?;
            Ok(yes_if(observed.kept_its_promises()))
        }
        Command::Split { workload, length, runs } => {
            let split = split::run(&workload, &change, length, runs)?;
            print!("{}", report::interference(&split));
            figures::write(&results, "split", &split)?;
            Ok(yes_if(split.observed.kept_its_promises()))
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
        Command::Outputs { workload } => compare_outputs(&workload, &change, &results),
        Command::Faults { workload, fault: Some(fault), length } => {
            suffer(&workload, &change, fault, length, &results)
        }
        Command::Faults { workload, fault: None, length } => {
            Ok(Parts { results: &results, change: &change }.faults(&workload, length))
        }
        Command::Runtimes { workload, runs } => side_by_side(&workload, &change, runs, &results),
        Command::Tune { workload, load, write } => {
            tune::run(&workload, &change, load, write.as_deref()).map(|()| Answer::Yes)
        }
        Command::Compare { workload, length, runs } => {
            Parts { results: &results, change: &change }.compare(&workload, length, runs)
        }
        Command::All { workload, split, length, runs } => {
            let parts = Parts { results: &results, change: &change };
            Ok(parts.all(&workload, split.as_deref(), length, runs))
        }
        Command::Profile { workload } => profile(&workload, &change),
        Command::Report => report::run(&results).map(|()| Answer::Yes),
    }
}

fn compare_outputs(workload: &Path, change: &Change, results: &Path) -> anyhow::Result<Answer> {
    let compared = outputs::run(workload, change)?;
    for output in compared.outputs.iter().filter(|output| !output.holds()) {
        println!("WRONG: {output:?}");
    }
    figures::write(results, "outputs", &compared)?;
    Ok(yes_if(compared.outputs.iter().all(outputs::OutputFigures::holds)))
}

fn suffer(
    workload: &Path,
    change: &Change,
    fault: Fault,
    length: Nanos,
    results: &Path,
) -> anyhow::Result<Answer> {
    let suffered = faults::run(workload, change, fault, length, results)?;
    println!("{fault} in {}: {}", suffered.victim, suffered.said);
    for check in &suffered.checks {
        println!("{} {}", if check.holds { "ok    " } else { "WRONG " }, check.what);
    }
    figures::write(results, &format!("fault-{fault}"), &suffered)?;
    Ok(yes_if(suffered.holds()))
}

fn side_by_side(
    workload: &Path,
    change: &Change,
    runs: u64,
    results: &Path,
) -> anyhow::Result<Answer> {
    let beside = runtimes::run(workload, change, runs)?;
    print!("{}", report::runtimes(&beside));
    for model in beside.models.iter().filter(|model| !model.holds()) {
        println!("WRONG: {model:?}");
    }
    figures::write(results, &format!("runtimes-{}", beside.driver), &beside)?;
    Ok(yes_if(beside.models.iter().all(runtimes::RuntimeFigures::holds)))
}

fn yes_if(kept: bool) -> Answer {
    if kept { Answer::Yes } else { Answer::No }
}

/// Measurements that are each made by this program anew, in a process of its own.
struct Parts<'a> {
    results: &'a Path,
    change: &'a Change,
}

impl Parts<'_> {
    /// Runs this program with these arguments.
    fn run(&self, command: &str, workload: &Path, more: &[&str]) -> anyhow::Result<Answer> {
        let program = env::current_exe().context("this program does not know where it is")?;
        let mut child = process::Command::new(program);
        child.arg("--results").arg(self.results);
        if let Some(driver) = &self.change.driver {
            child.args(["--driver", driver]);
        }
        let status = child.arg(command).arg(workload).args(more).status()?;
        anyhow::ensure!(matches!(status.code(), Some(0 | 1)), "{command} failed: {status}");
        Ok(yes_if(status.success()))
    }

    /// As [`Parts::run`]; a part that could not be measured is said, and is a no.
    fn attempt(&self, command: &str, workload: &Path, more: &[&str]) -> Answer {
        self.run(command, workload, more).unwrap_or_else(|error| {
            say(format!("not measured: {error:#}"));
            Answer::No
        })
    }

    fn all(&self, workload: &Path, split: Option<&Path>, length: Nanos, runs: u64) -> Answer {
        let (length, runs) = (text(length), runs.to_string());
        let mut all = Answer::Yes;
        for profiled in [Some(workload), split].into_iter().flatten() {
            if !profiled.with_extension("evidence.json").is_file() {
                all = all.and(self.attempt("profile", profiled, &[]));
            }
        }
        for (command, more) in [
            ("outputs", &[][..]),
            ("overhead", &[]),
            ("faults", &[]),
            ("headline", &["--for", &length, "--runs", &runs]),
        ] {
            all = all.and(self.attempt(command, workload, more));
        }
        for kind in Kind::ALL {
            let more = ["--kind", kind.name(), "--for", &length];
            all = all.and(self.attempt("baseline", workload, &more));
        }
        if let Some(split) = split {
            all = all.and(self.attempt("split", split, &["--for", &length]));
        }
        let reported = report::run(self.results);
        if let Err(error) = &reported {
            say(format!("no report: {error:#}"));
        }
        all.and(yes_if(reported.is_ok()))
    }

    fn compare(&self, workload: &Path, length: Nanos, runs: u64) -> anyhow::Result<Answer> {
        let (length, runs) = (text(length), runs.to_string());
        let answer = self.run("headline", workload, &["--for", &length, "--runs", &runs])?;
        for kind in Kind::ALL {
            self.run("baseline", workload, &["--kind", kind.name(), "--for", &length])?;
        }
        report::run(self.results)?;
        Ok(answer)
    }

    fn faults(&self, workload: &Path, length: Nanos) -> Answer {
        let mut all = Answer::Yes;
        for fault in Fault::ALL {
            let more = ["--fault", fault.name(), "--for", &text(length)];
            all = all.and(self.attempt("faults", workload, &more));
        }
        all
    }
}

/// Measures every model, and leaves the evidence beside the workload itself.
fn profile(workload: &Path, change: &Change) -> anyhow::Result<Answer> {
    let pipeline = variant::open(workload, change)?;
    pipeline.profile(|done, of| {
        if done == of || done % 100 == 0 {
            println!("profile: {done} of {of} rounds");
        }
    })?;
    println!("evidence: {}", pipeline.evidence_path().display());
    Ok(Answer::Yes)
}

/// A length as the command line takes it.
fn text(length: Nanos) -> String {
    format!("{}ns", length.as_nanos())
}

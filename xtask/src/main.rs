//! The project's own tooling: what checks, feeds and measures AegisRT.
//!
//! Called as `cargo xtask COMMAND`. Each command is one file with one `run`; what two commands
//! share ([`process`], [`source`], [`tools`]) is a file of its own. Nothing here is part of the
//! product, and no crate of ours is used: a broken product can still be checked.
//!
//! # Invariants
//! 1. Every path a command writes lies under `.aegis/`, `out/` or cargo's target folder.
//! 2. A command that printed no error did what it says.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stderr))]

mod bench;
mod bundle;
mod demo;
mod layering;
mod models;
mod process;
mod runtimes;
mod source;
mod test;
mod tidy;
mod tools;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own tooling.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks that every crate uses only crates above it.
    Layering,
    /// Checks what rustfmt and clippy do not: headers, sizes, safety comments, documents.
    Tidy,
    /// Fetches the pinned ONNX Runtime and unpacks it under `.aegis/`.
    Runtimes(runtimes::RuntimesArgs),
    /// Writes real network architectures with random weights as ONNX files.
    Models(models::ModelsArgs),
    /// Runs everything CI runs.
    Test(test::TestArgs),
    /// Shows the product from nothing: runtime, models, profile, admission, run, trace.
    Demo(demo::DemoArgs),
    /// Runs the benches and prints each against its baseline.
    Bench(bench::BenchArgs),
    /// Gathers programs, workloads and a script for a machine without a toolchain.
    Bundle(bundle::BundleArgs),
}

fn main() -> ExitCode {
    let Err(error) = run(Cli::parse().command, &workspace_root()) else {
        return ExitCode::SUCCESS;
    };
    // Not by returning the error: its debug form may hold a backtrace of this tool, which says
    // nothing about what went wrong in the project.
    process::say(format!("\nerror: {error}"));
    for cause in error.chain().skip(1) {
        process::say(format!("  because: {cause}"));
    }
    ExitCode::FAILURE
}

fn run(command: Command, root: &Path) -> anyhow::Result<()> {
    match command {
        Command::Layering => layering::run(root),
        Command::Tidy => tidy::run(root),
        Command::Runtimes(args) => runtimes::run(root, &args),
        Command::Models(args) => models::run(&args),
        Command::Test(args) => test::run(root, &args),
        Command::Demo(args) => demo::run(root, &args),
        Command::Bench(args) => bench::run(root, &args),
        Command::Bundle(args) => bundle::run(root, &args),
    }
}

/// The folder of the workspace manifest: the parent of this package's own.
fn workspace_root() -> PathBuf {
    // Cargo says at run time where the package is; the compile-time answer serves a binary that
    // is started directly.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| package.clone(), PathBuf::from)
}

//! The benches, and one table of what they measured.
//!
//! A time alone says as much about the machine as about the program, so each is set against the
//! function named `baseline` of its own group: the ratio travels, the nanoseconds do not.
//!
//! # Invariants
//! 1. Only what this run measured is in the table; older results of criterion are left out.
//! 2. Criterion times batches: a sample is the mean of one batch, and median, p99 and maximum are
//!    those of the samples.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, ensure};
use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::models::{self, ModelSet};
use crate::runtimes::{self, RuntimesArgs};
use crate::{bundle, process, source, tools};

/// The function of a group that the others are compared with.
const BASELINE: &str = "baseline";

/// The program that counts how often bounds hold: an experiment, so its result is no time.
const COVERAGE: &str = "wcet_coverage";

/// What to measure.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Measures only what has this in its name.
    filter: Option<String>,
    /// Makes all measurements of this workload on its device instead; see `aegis-bench all`. One that
    /// was not profiled here is.
    #[arg(long, value_name = "WORKLOAD", conflicts_with = "filter")]
    device: Option<PathBuf>,
    /// And those of this workload of the split device.
    #[arg(long, value_name = "WORKLOAD", requires = "device")]
    split: Option<PathBuf>,
    /// Where the report of that goes.
    #[arg(long, value_name = "FOLDER", default_value = "out/results", requires = "device")]
    results: PathBuf,
    /// How long each run of that is.
    #[arg(long = "for", value_name = "TIME", default_value = "60s", requires = "device")]
    length: String,
}

/// What criterion calls a result: `benchmark.json`.
#[derive(Clone, Debug, Deserialize)]
struct Name {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
}

/// The timed batches: `sample.json`.
#[derive(Deserialize)]
struct Batches {
    /// How often each batch ran the function.
    iters: Vec<f64>,
    /// How long each batch took, in nanoseconds.
    times: Vec<f64>,
}

/// The part of `estimates.json` that is shown.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// One row of the table. Times are nanoseconds; they are floats since they only display.
#[derive(Clone, Debug)]
struct Measured {
    name: Name,
    samples: usize,
    /// Calls in the largest batch.
    batch: f64,
    median: f64,
    p99: f64,
    max: f64,
}

/// Counts how often bounds hold, runs the benches and prints both tables.
///
/// # Errors
/// A bench fails, or criterion left nothing to read.
pub(crate) fn run(root: &Path, args: &BenchArgs) -> anyhow::Result<()> {
    if let Some(workload) = &args.device {
        return run_on_device(root, workload, args);
    }
    if args.filter.as_deref().is_none_or(|filter| COVERAGE.contains(filter)) {
        run_coverage(root)?;
    }
    if args.filter.as_deref() == Some(COVERAGE) {
        return Ok(()); // No bench is called like that.
    }
    runtimes::run(root, &RuntimesArgs::default())?;
    for set in [ModelSet::Golden, ModelSet::Host24] {
        models::write_set(set, &models::default_dir(set))?;
    }
    let results = tools::target_folder(root)?.join("criterion");
    let start = SystemTime::now();
    let mut bench = tools::cargo(root);
    bench.args(["bench", "-p", "aegis-benches"]);
    bench.env("CRITERION_HOME", &results).env("ORT_DYLIB_PATH", runtimes::library(root));
    if let Some(filter) = &args.filter {
        bench.args(["--", filter]);
    }
    process::show_and_run(&mut bench)?;
    let measured = read_results(&results, start)?;
    ensure!(!measured.is_empty(), "no bench left a result in {}", results.display());
    print!("\n{}", table(&measured));
    Ok(())
}

/// Builds `aegis-bench` and has it make all measurements.
///
/// The runtime is the one that `ORT_DYLIB_PATH` names (`cargo xtask runtimes --cuda` prints the line
/// for a GPU), or else that for the processor.
fn run_on_device(root: &Path, workload: &Path, args: &BenchArgs) -> anyhow::Result<()> {
    let mut measure = tools::cargo(root);
    measure.args(["run", "--release", "--package", "aegis-bench", "--", "all"]);
    measure.arg(workload).args(["--for", &args.length, "--results"]).arg(&args.results);
    if let Some(split) = &args.split {
        measure.arg("--split").arg(split);
    }
    measure.env("AEGIS_COMMIT", bundle::commit(root)?);
    if env::var_os("ORT_DYLIB_PATH").is_none() {
        runtimes::run(root, &RuntimesArgs::default())?;
        measure.env("ORT_DYLIB_PATH", runtimes::library(root));
    }
    process::show_and_run(&mut measure)?;
    Ok(())
}

/// Counts how often the bounds of execution times hold, and prints the table.
fn run_coverage(root: &Path) -> anyhow::Result<()> {
    let mut count = tools::cargo(root);
    count.args(["run", "--release", "-p", "aegis-benches", "--bin", COVERAGE]);
    process::show_and_run(&mut count)?;
    Ok(())
}

/// Every result below `folder` that was written after `start`, in the order of their names.
fn read_results(folder: &Path, start: SystemTime) -> anyhow::Result<Vec<Measured>> {
    let files = source::files_below(folder).with_context(|| folder.display().to_string())?;
    let mut measured = Vec::new();
    for file in files.iter().filter(|file| file.ends_with("new/sample.json")) {
        let written = fs::metadata(file).and_then(|metadata| metadata.modified());
        if written.with_context(|| file.display().to_string())? >= start {
            measured.push(read_result(file.parent().unwrap_or(folder))?);
        }
    }
    Ok(measured)
}

/// Reads the folder that criterion calls `new`.
fn read_result(folder: &Path) -> anyhow::Result<Measured> {
    let name = read_json(&folder.join("benchmark.json"))?;
    let batches: Batches = read_json(&folder.join("sample.json"))?;
    let estimates: Estimates = read_json(&folder.join("estimates.json"))?;
    let mut means: Vec<_> =
        batches.times.iter().zip(&batches.iters).map(|(time, count)| time / count).collect();
    means.sort_by(f64::total_cmp);
    let max = means.last().copied().with_context(|| folder.display().to_string())?;
    // The nearest rank: the smallest sample that at least 99 in 100 do not exceed.
    let rank = (means.len() * 99).div_ceil(100);
    Ok(Measured {
        name,
        samples: means.len(),
        batch: batches.iters.iter().copied().fold(0.0, f64::max),
        median: estimates.median.point_estimate,
        p99: means[rank - 1],
        max,
    })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// The median of the baseline that `of` is compared with: that of its group, and of its value
/// where the group has one per value.
fn baseline(measured: &[Measured], of: &Name) -> Option<f64> {
    let in_group = |other: &&Measured| {
        other.name.group_id == of.group_id && other.name.function_id.as_deref() == Some(BASELINE)
    };
    let same_value = |other: &&Measured| other.name.value_str == of.value_str;
    let valueless = |other: &&Measured| other.name.value_str.is_none();
    let mut candidates = measured.iter().filter(in_group);
    let found = candidates.clone().find(same_value).or_else(|| candidates.find(valueless));
    found.map(|baseline| baseline.median)
}

/// One line per result, and under them what the columns mean.
fn table(measured: &[Measured]) -> String {
    let names: Vec<_> = measured.iter().map(|result| result.name.full()).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!(
        "{:<width$}  {:>7}  {:>7}  {:>10}  {:>10}  {:>10}  {:>11}\n",
        "name", "samples", "batch", "median", "p99", "max", "to baseline"
    );
    for (result, name) in measured.iter().zip(&names) {
        let ratio = baseline(measured, &result.name)
            .map_or_else(|| "-".to_owned(), |baseline| format!("{:.3}", result.median / baseline));
        let [median, p99, max] = [result.median, result.p99, result.max].map(time);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:<width$}  {:>7}  {:>7}  {median:>10}  {p99:>10}  {max:>10}  {ratio:>11}",
            result.samples, result.batch
        );
    }
    text.push_str(
        "Each sample is the mean of one batch of calls; the ratio is that of the medians.\n",
    );
    text
}

impl Name {
    /// As criterion prints it: group, function and value.
    fn full(&self) -> String {
        let parts = [Some(&self.group_id), self.function_id.as_ref(), self.value_str.as_ref()];
        parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("/")
    }
}

/// Nanoseconds, in the unit that keeps them short.
fn time(nanoseconds: f64) -> String {
    let (unit, size) = [("s", 1e9), ("ms", 1e6), ("us", 1e3)]
        .into_iter()
        .find(|(_, size)| nanoseconds >= *size)
        .unwrap_or(("ns", 1.0));
    format!("{:.2} {unit}", nanoseconds / size)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    /// Leaves a result as criterion does: 200 batches of 10, the n-th taking n times `unit`.
    fn leave(folder: &TempDir, group: &str, function: &str, unit: f64) {
        let new = folder.path().join(group).join(function).join("new");
        fs::create_dir_all(&new).expect("a new folder");
        let write = |name: &str, value: serde_json::Value| {
            fs::write(new.join(name), value.to_string()).expect("a new file");
        };
        let times: Vec<_> = (1..=200).map(|n| f64::from(n) * 10.0 * unit).collect();
        write(
            "benchmark.json",
            serde_json::json!({ "group_id": group, "function_id": function, "value_str": null }),
        );
        write("sample.json", serde_json::json!({ "iters": vec![10.0; 200], "times": times }));
        let median = serde_json::json!({ "point_estimate": 100.0 * unit, "standard_error": 1.0 });
        write("estimates.json", serde_json::json!({ "median": median }));
    }

    #[test]
    fn results_are_set_against_the_baseline_of_their_group() {
        let folder = tempfile::tempdir().expect("a folder");
        leave(&folder, "submit", "baseline", 2.0);
        leave(&folder, "submit", "whole", 5.0);
        leave(&folder, "record", "event", 30.0);
        let measured = read_results(folder.path(), SystemTime::UNIX_EPOCH).expect("they are there");
        let table = table(&measured);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "name             samples    batch      median         p99         max  to baseline",
                "record/event         200       10     3.00 us     5.94 us     6.00 us            -",
                "submit/baseline      200       10   200.00 ns   396.00 ns   400.00 ns        1.000",
                "submit/whole         200       10   500.00 ns   990.00 ns     1.00 us        2.500",
                "Each sample is the mean of one batch of calls; the ratio is that of the medians.",
            ]
        );
    }

    #[test]
    fn results_of_an_earlier_run_are_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        leave(&folder, "submit", "whole", 5.0);
        let later = SystemTime::now() + Duration::from_secs(60);
        assert!(read_results(folder.path(), later).expect("the folder is there").is_empty());
    }

    #[test]
    fn a_baseline_per_value_is_preferred() {
        let result = |function: &str, value: Option<&str>, median: f64| Measured {
            name: Name {
                group_id: "choose".to_owned(),
                function_id: Some(function.to_owned()),
                value_str: value.map(str::to_owned),
            },
            samples: 1,
            batch: 1.0,
            median,
            p99: median,
            max: median,
        };
        let measured = [
            result("baseline", Some("10"), 1.0),
            result("baseline", None, 2.0),
            result("edf", Some("10"), 3.0),
            result("edf", Some("1000"), 4.0),
        ];
        assert_eq!(baseline(&measured, &measured[2].name), Some(1.0));
        assert_eq!(baseline(&measured, &measured[3].name), Some(2.0));
    }
}

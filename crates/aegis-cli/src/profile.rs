//! `aegis profile`: measure every model alone on the device.

use std::path::PathBuf;

use aegis::evidence::Evidence;
use aegis::{Nanos, Pipeline, profile};
use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Answer;
use crate::output::print;
use crate::table::{self, mib, ms};

#[derive(Args)]
pub(crate) struct ProfileArgs {
    /// The workload file.
    workload: PathBuf,
}

pub(crate) fn run(args: &ProfileArgs) -> Result<Answer> {
    let pipeline = Pipeline::open(&args.workload)?;
    eprintln!("loading {} models", pipeline.workload().models.len());
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("profiling {bar:40} round {pos}/{len}")?);
    let evidence = pipeline.profile(|done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    print(show(&pipeline, &evidence))?;
    print(format!("evidence: {}", pipeline.evidence_path().display()))?;
    Ok(Answer::Yes)
}

fn show(pipeline: &Pipeline, evidence: &Evidence) -> String {
    let margin = pipeline.workload().wcet.margin_percent;
    let mut shown = table::new(&[
        "model",
        "stages",
        "best ms",
        "mean ms",
        "max ms",
        "C ms",
        "resident MiB",
        "scratch MiB",
    ]);
    for model in &pipeline.workload().models {
        let Some(measured) = evidence.models.get(&model.name) else { continue };
        let stages = measured.profile(margin).stages;
        let sum = |of: fn(&aegis::evidence::StageProfile) -> aegis::Nanos| {
            ms(stages.iter().map(of).sum())
        };
        table::add(
            &mut shown,
            &[
                model.name.clone(),
                stages.len().to_string(),
                sum(|stage| stage.best_case),
                sum(|stage| stage.average_case),
                sum(|stage| stage.high_water),
                sum(|stage| stage.worst_case),
                mib(measured.memory.resident),
                mib(measured.memory.scratch),
            ],
        );
    }
    let rule = format!(
        "C is the maximum of {} samples plus {margin} %: a margin rule without a statistical claim",
        pipeline.workload().wcet.samples
    );
    format!("{shown}\n{rule}\n{}{}", overhead(pipeline, evidence), disturbed(pipeline, evidence))
}

/// A maximum this many times the median was not the model's doing.
const DISTURBED_FACTOR: u64 = 3;

/// A warning when something else used the processor while measuring.
fn disturbed(pipeline: &Pipeline, evidence: &Evidence) -> String {
    let is_disturbed = |times: &Vec<Nanos>| {
        let mut sorted = times.clone();
        sorted.sort_unstable();
        let (median, max) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
        max > median.saturating_mul(DISTURBED_FACTOR)
    };
    let names: Vec<&str> = pipeline
        .workload()
        .models
        .iter()
        .filter_map(|model| Some((model.name.as_str(), evidence.models.get(&model.name)?)))
        .filter(|(_, measured)| measured.samples.stages().iter().any(is_disturbed))
        .map(|(name, _)| name)
        .collect();
    if names.is_empty() {
        return String::new();
    }
    format!(
        "\nthe longest sample is more than {DISTURBED_FACTOR} times the median for {}: something else \
         used the processor, and these costs hold it against the model; profile again on a quiet \
         machine for tighter ones",
        names.join(", ")
    )
}

fn overhead(pipeline: &Pipeline, evidence: &Evidence) -> String {
    let charged = pipeline.workload().overheads.dispatch;
    match profile::dispatch_overhead(evidence) {
        None => String::new(),
        Some(seen) => {
            let short = if seen.p99 > charged { ", which is not enough: raise it" } else { "" };
            format!(
                "launching and noticing a stage took {} (median), {} (99 %), {} (maximum); \
                 `overheads.dispatch` charges {charged}{short}",
                seen.p50, seen.p99, seen.max
            )
        }
    }
}

//! `aegis profile`: measure every model, and say what the measurements carry.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use aegis::evidence::{Evidence, Scenario, StageProfile, WcetProfile};
use aegis::wcet::{Kind, Method};
use aegis::{Bytes, Nanos, Pipeline, plot};
use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Answer;
use crate::charges;
use crate::histogram;
use crate::memory;
use crate::output::{print, say};
use crate::table::{self, mib, ms};
use crate::written::{self, Written};

#[derive(Args)]
pub(crate) struct ProfileArgs {
    /// The workload file.
    workload: PathBuf,
    /// Measure alone and under synthetic load too, not only in turn with the other models.
    #[arg(long)]
    under_load: bool,
    /// Measure a split workload on the whole device as one partition, for `aegis check` to compare.
    #[arg(long)]
    whole: bool,
    /// Draw the distributions, tails and bounds of all stages into this file.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

pub(crate) fn run(args: &ProfileArgs) -> Result<Answer> {
    let mut pipeline = Pipeline::open(&args.workload)?;
    if args.whole {
        let whole = pipeline.unsplit();
        pipeline = whole.context("the device is not split; leave --whole out")?;
    }
    written::overwrites_nothing(
        &Written::of(&[("--plot", &args.plot)]),
        written::inputs(&pipeline),
    )?;
    if let Some(path) = &args.plot {
        // Better known before minutes of measuring than after.
        fs::write(path, []).with_context(|| path.display().to_string())?;
    }
    say(format!("loading {} models", pipeline.workload().models.len()));
    let bar = ProgressBar::new(0);
    let style = "profiling {bar:40} round {pos}/{len}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style)?);
    let scenarios: &[Scenario] = if args.under_load { &Scenario::ALL } else { &[] };
    let evidence = pipeline.profile_under_load(scenarios, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let profiles = profiles(&pipeline, &evidence);
    print(show(&pipeline, &evidence, &profiles))?;
    let beside = evidence.models.values().filter_map(|model| model.uploads);
    if let Some(size) = beside.map(|uploads| uploads.beside).max() {
        print(format!("each stage ran beside copies of {size}, for inputs that go ahead"))?;
    }
    print(format!("evidence: {}", pipeline.evidence_path().display()))?;
    if let Some(path) = &args.plot {
        fs::write(path, plot::svg(&profiles)?).with_context(|| path.display().to_string())?;
        print(format!("plot: {}", path.display()))?;
    }
    Ok(Answer::Yes)
}

/// What the evidence says of each model, in the order of the workload.
fn profiles(pipeline: &Pipeline, evidence: &Evidence) -> Vec<(String, WcetProfile)> {
    let models = pipeline.workload().models.iter();
    let measured = models.filter_map(|model| {
        let measured = evidence.models.get(&model.name)?;
        Some((model.name.clone(), pipeline.wcet(measured)))
    });
    measured.collect()
}

fn show(pipeline: &Pipeline, evidence: &Evidence, profiles: &[(String, WcetProfile)]) -> String {
    let mut shown = table::new(&[
        "model",
        "stage",
        "best ms",
        "mean ms (limits)",
        "max ms",
        "bound ms (interval)",
        "C ms",
        "by",
        "claim",
        "worst",
        "contention",
        "distribution",
    ]);
    for (name, profile) in profiles {
        for (index, stage) in profile.stages.iter().enumerate() {
            table::add(&mut shown, &row(name, index, stage));
        }
    }
    [
        shown.to_string(),
        partitions(evidence),
        rule(pipeline, evidence),
        memory(evidence),
        unclaimed(pipeline, profiles),
        charges::summary(evidence, &pipeline.workload().overheads),
        disturbed(profiles),
        throttled(evidence),
        prepared(evidence),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect::<Vec<_>>()
    .join("\n")
}

fn row(name: &str, index: usize, stage: &StageProfile) -> [String; 12] {
    let by = match stage.kind {
        Kind::OrderStatistic => "order statistic",
        Kind::Evt => "tail",
        Kind::ObservedMax => "maximum",
        _ => "margin rule",
    };
    let factor = stage.contention.map_or_else(|| "-".into(), |factor| factor.to_string());
    let (campaign, _) = &stage.evidence[&stage.worst_scenario];
    [
        name.to_owned(),
        (index + 1).to_string(),
        ms(stage.best_case),
        within(stage.average_case, stage.average_limits),
        ms(stage.high_water),
        within(stage.bound, stage.bound_lower.map(|lower| [lower, stage.bound])),
        ms(stage.worst_case),
        by.into(),
        if stage.claim { "yes" } else { "no" }.into(),
        stage.worst_scenario.to_string(),
        factor,
        histogram::line(campaign),
    ]
}

/// A time with its limits, where it has some.
fn within(time: Nanos, limits: Option<[Nanos; 2]>) -> String {
    let shown = |[low, high]: [Nanos; 2]| format!("{} ({} to {})", ms(time), ms(low), ms(high));
    limits.map_or_else(|| ms(time), shown)
}

/// What was busy beside each partition, one a line; empty of a device that is not split.
fn partitions(evidence: &Evidence) -> String {
    let places: BTreeSet<String> = evidence
        .models
        .values()
        .filter_map(|model| model.partition.as_ref())
        .map(|partition| format!("measured {partition}, and alone"))
        .collect();
    places.into_iter().collect::<Vec<_>>().join("\n")
}

/// How C is made, and what it claims.
fn rule(pipeline: &Pipeline, evidence: &Evidence) -> String {
    let rule = &pipeline.workload().wcet;
    let margin = rule.margin_percent;
    let rounds = evidence.models.values().map(|model| model.samples.count()).max().unwrap_or(0);
    if rule.method == Method::Margin {
        return format!(
            "C is the maximum of {rounds} samples plus {margin} %: a margin rule without a \
             statistical claim"
        );
    }
    format!(
        "C is the bound from {rounds} samples plus {margin} %; a claim says that, with confidence {}, a \
         share of {} of jobs stays below the bound; its interval holds the time that this share does not \
         exceed, each end with that confidence",
        rule.confidence, rule.coverage
    )
}

/// What all models take together; `aegis check` shows each.
fn memory(evidence: &Evidence) -> String {
    let mut scratch_of: BTreeMap<Option<&str>, Bytes> = BTreeMap::new();
    for model in evidence.models.values() {
        let partition = model.partition.as_ref().map(|of| of.name.as_str());
        let largest = scratch_of.entry(partition).or_default();
        *largest = model.memory.scratch.max(*largest);
    }
    let resident = evidence.models.values().map(|model| model.memory.resident).sum::<Bytes>();
    let scratch = scratch_of.into_values().sum::<Bytes>();
    let libraries = evidence.models.values().map(|model| model.prepared.libraries).sum::<Bytes>();
    let beside = match libraries {
        Bytes::ZERO => String::new(),
        taken => format!(" + {} MiB of libraries", mib(taken)),
    };
    format!("memory: {} MiB resident + {} MiB shared scratch{beside}", mib(resident), mib(scratch))
}

/// What runtimes say of how models were prepared, one a line.
fn prepared(evidence: &Evidence) -> String {
    let models = evidence.models.iter();
    let told = models.map(|(name, model)| (name.as_str(), &model.prepared.remarks[..]));
    memory::remarks(told).collect::<Vec<_>>().join("\n")
}

/// Why a stage has no claim, where one was asked for.
fn unclaimed(pipeline: &Pipeline, profiles: &[(String, WcetProfile)]) -> String {
    if pipeline.workload().wcet.method == Method::Margin {
        return String::new();
    }
    let mut lines = Vec::new();
    for (name, profile) in profiles {
        for (index, stage) in profile.stages.iter().enumerate() {
            for (scenario, (_, estimate)) in &stage.evidence {
                let why: Vec<String> = estimate.warnings.iter().map(ToString::to_string).collect();
                if !estimate.claim {
                    let stage = index + 1;
                    lines.push(format!(
                        "no claim: {name}, stage {stage}, {scenario}: {}",
                        why.join("; ")
                    ));
                }
            }
        }
    }
    let wanted = profiles.iter().filter_map(|(_, profile)| profile.samples_wanted()).max();
    lines.extend(wanted.map(|samples| {
        format!(
            "about {samples} samples that depend on each other as these do would be enough for the \
             claims that lack samples: `samples = {samples}` in [wcet], or a quieter machine"
        )
    }));
    lines.join("\n")
}

/// A maximum this many times the median was not the model's doing.
const DISTURBED_FACTOR: u64 = 3;

/// A warning when something else used the processor while measuring.
fn disturbed(profiles: &[(String, WcetProfile)]) -> String {
    let is_disturbed = |stage: &StageProfile| {
        stage.evidence.values().any(|(campaign, estimate)| {
            let median: Nanos = estimate.estimates.p50;
            campaign.max() > median.saturating_mul(DISTURBED_FACTOR)
        })
    };
    let names: Vec<&str> = profiles
        .iter()
        .filter(|(_, profile)| profile.stages.iter().any(is_disturbed))
        .map(|(name, _)| name.as_str())
        .collect();
    if names.is_empty() {
        return String::new();
    }
    format!(
        "the longest sample is more than {DISTURBED_FACTOR} times the median for {}: something else \
         used the processor, and these costs hold it against the model; profile again on a quiet \
         machine for tighter ones",
        names.join(", ")
    )
}

/// A warning when the device held itself back while measuring.
fn throttled(evidence: &Evidence) -> String {
    match evidence.was_throttled() {
        Some(true) => {
            "the device was throttled while it was measured: these times hold for a device \
                       that is too hot or short of power"
                .into()
        }
        _ => String::new(),
    }
}

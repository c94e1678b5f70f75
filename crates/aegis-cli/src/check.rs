//! `aegis check`: admission only.

use std::path::PathBuf;

use aegis::evidence::Evidence;
use aegis::{
    ChainReport, CounterOffer, Error, ModelReport, Pipeline, Report, ServiceTerms, Verdict, profile,
};
use anyhow::{Result, anyhow};
use clap::Args;

use crate::edge::Edge;
use crate::output::print;
use crate::table::{self, mib, ms, ms_down, or_dash, percent};
use crate::{Answer, chains};

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// The workload file.
    workload: PathBuf,
    /// Print the report as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Show for each model how far it is from the edge: the smallest period and deadline, the largest
    /// cost, and the longest stage of somebody else that it tolerates.
    #[arg(long)]
    sensitivity: bool,
}

/// How many counter-offers are shown for one model; `--json` has them all.
const OFFERS_SHOWN: usize = 6;

pub(crate) fn run(args: &CheckArgs) -> Result<Answer> {
    let pipeline = Pipeline::open(&args.workload)?;
    let (runtime, verdicts) = pipeline.check()?;
    let chains = pipeline.chains(&runtime, &verdicts);
    let edge = Edge::of(&pipeline, &runtime, &verdicts, args.sensitivity);
    if args.json {
        let mut whole = json(&runtime.report(), &verdicts);
        chains::add_to(&mut whole, &chains, None);
        edge.add_to(&mut whole);
        print(serde_json::to_string_pretty(&whole)?)?;
        return self::answer(verdicts, &chains);
    }
    let report = runtime.report();
    let conclusion = conclusion(&report, &verdicts, &chains);
    let shown = [promises(&report), chains::promises(&chains), edge.shown(), conclusion];
    print(shown.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n"))?;
    if let Some(warning) = undercharged(&pipeline) {
        print(warning)?;
    }
    answer(verdicts, &chains)
}

/// The answer of admission, as a table or as JSON.
pub(crate) fn answered(
    report: &Report,
    verdicts: &[Verdict],
    chains: &[ChainReport],
    as_json: bool,
) -> Result<String> {
    if as_json {
        let mut whole = json(report, verdicts);
        chains::add_to(&mut whole, chains, None);
        return Ok(serde_json::to_string_pretty(&whole)?);
    }
    let conclusion = conclusion(report, verdicts, chains);
    let shown = [promises(report), chains::promises(chains), conclusion];
    Ok(shown.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n"))
}

/// A warning when profiling saw larger overheads than the analysis charges.
fn undercharged(pipeline: &Pipeline) -> Option<String> {
    let evidence = Evidence::read(pipeline.evidence_path()).ok()?;
    let seen = profile::dispatch_overhead(&evidence)?.p99;
    let charged = pipeline.workload().overheads.dispatch;
    (seen > charged).then(|| {
        format!(
            "warning: while profiling, launching and noticing a stage took {seen} (99 %), and \
             `overheads.dispatch` charges {charged}: the assumption will be broken"
        )
    })
}

/// What is promised to every admitted model, and on what grounds.
fn promises(report: &Report) -> String {
    let mut shown = table::new(&[
        "model",
        "C ms",
        "T ms",
        "D ms",
        "bound ms",
        "blocking ms",
        "slack ms",
        "resident MiB",
        "scratch MiB",
    ]);
    for model in &report.models {
        let ModelReport { cost, bound, blocking, slack, .. } = *model;
        table::add(
            &mut shown,
            &[
                model.name.clone(),
                ms(cost),
                or_dash(model.period().map(ms)),
                or_dash(model.deadline().map(ms)),
                or_dash(bound.map(ms)),
                or_dash(blocking.map(ms)),
                or_dash(slack.map(ms_down)),
                mib(model.resident),
                mib(model.scratch),
            ],
        );
    }
    let memory = &report.memory;
    let grounds = match report.test {
        Some(test) => format!("{} policy, proved by {test}", report.policy),
        None => format!("{} policy, nothing to prove", report.policy),
    };
    format!(
        "{shown}\n{grounds}\n{}C includes {} per stage; waking up may take {}; utilisation {} without \
         overheads\nmemory: {} resident + {} shared scratch of {}",
        best_effort(report),
        report.overheads.dispatch,
        report.overheads.wake,
        percent(report.utilisation_ppm),
        memory.resident,
        memory.scratch,
        memory.limit
    )
}

/// The models without deadlines and how they are served, one a line; empty when there are none.
pub(crate) fn best_effort(report: &Report) -> String {
    let background = report.background;
    let line = |model: &ModelReport| match model.service {
        ServiceTerms::Guaranteed { .. } => None,
        ServiceTerms::Background => Some(format!(
            "{}: best effort, while nothing else is ready; no stage in the background is longer \
             than {background}\n",
            model.name
        )),
        ServiceTerms::Server { budget, period, .. } => {
            Some(format!("{}: best effort, {budget} of device time every {period}\n", model.name))
        }
    };
    report.models.iter().filter(|model| !model.evicted).filter_map(line).collect()
}

/// Every refusal with its inequality, and the answer for all together.
pub(crate) fn conclusion(report: &Report, verdicts: &[Verdict], chains: &[ChainReport]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for Verdict { model, outcome, offers } in verdicts {
        if let Err(Error::Refused { explained, .. }) = outcome {
            lines.push(format!("no: {model} is refused: {explained}{}", bargain(offers)));
        }
    }
    let (all, refused) = (verdicts.len(), lines.len());
    lines.extend(chains::refusals(chains));
    let is_served = |model: &&ModelReport| !model.evicted && !model.service.is_guaranteed();
    if refused == 0 && chains::any_refused(chains) {
        let kept = chains.iter().filter(|chain| chain.refused.is_empty()).count();
        let chains = chains.len();
        lines
            .push(format!("no: all {all} models are admitted, and {kept} of {chains} chains kept"));
        return lines.join("\n");
    }
    lines.push(match (refused, report.models.iter().filter(is_served).count()) {
        (0, 0) => format!("yes: all {all} models meet every deadline under the stated assumptions"),
        (0, served) => format!(
            "yes: every deadline is met under the stated assumptions, beside {served} of {all} \
             models without one"
        ),
        _ => format!("no: {} of {all} models can be admitted together", all - refused),
    });
    lines.join("\n")
}

/// What would have been admitted instead, one offer a line.
fn bargain(offers: &[CounterOffer]) -> String {
    let shown = offers.iter().take(OFFERS_SHOWN);
    let mut lines: String =
        shown.map(|offer| format!("\n    admitted if {}", offer.explained)).collect();
    if let Some(more @ 1..) = offers.len().checked_sub(OFFERS_SHOWN) {
        lines.push_str(&format!("\n    and {more} more ways, with --json"));
    }
    lines
}

/// *Yes* when no model and no chain is refused.
///
/// # Errors
/// The first outcome that is no refusal but a failure: the input is broken then.
pub(crate) fn answer(verdicts: Vec<Verdict>, chains: &[ChainReport]) -> Result<Answer> {
    let mut answer = if chains::any_refused(chains) { Answer::No } else { Answer::Yes };
    for Verdict { outcome, .. } in verdicts {
        match outcome {
            Ok(_) => {}
            Err(Error::Refused { .. }) => answer = Answer::No,
            Err(error) => return Err(anyhow!(error)),
        }
    }
    Ok(answer)
}

/// The report and the refusals, as `docs/formats.md` describes them.
pub(crate) fn json(report: &Report, verdicts: &[Verdict]) -> serde_json::Value {
    let refusals: Vec<_> = verdicts
        .iter()
        .filter_map(|verdict| match &verdict.outcome {
            Err(Error::Refused { refusal, explained, .. }) => Some(serde_json::json!({
                "model": verdict.model,
                "refusal": refusal,
                "explained": explained,
                "offers": verdict.offers,
            })),
            _ => None,
        })
        .collect();
    serde_json::json!({ "admitted": report, "refused": refusals })
}

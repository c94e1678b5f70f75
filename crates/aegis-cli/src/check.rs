//! `aegis check`: admission only.

use std::path::{Path, PathBuf};

use aegis::evidence::Evidence;
use aegis::workload::{Backend, BestEffort, Driver, Model};
use aegis::{
    ChainReport, CounterOffer, Error, ExecutorReport, ModelReport, Nanos, Overheads, OverrunPolicy,
    PartitionReport, Pipeline, PolicyKind, Report, Runtime, ServiceTerms, Verdict,
};
use anyhow::{Context, Result, anyhow};
use clap::Args;

use crate::edge::Edge;
use crate::output::{chain, print, say};
use crate::split::Split;
use crate::table::{self, mib, ms, ms_down, or_dash, percent_up};
use crate::written::{self, Written};
use crate::{Answer, chains, charges, memory};

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// The workload file.
    workload: PathBuf,
    /// Print the report as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Show for each model how far it is from the edge: the smallest period (its deadline kept) and
    /// deadline (its period kept), the largest cost, and the longest stage of somebody else that it
    /// tolerates.
    #[arg(long)]
    sensitivity: bool,
    /// Write the answer with its proof, for `aegis verify`.
    #[arg(long, value_name = "OUT.json")]
    certificate: Option<PathBuf>,
    /// Write what was admitted as a problem for POET, which bounds responses with machine-checked
    /// proofs; only sets of models that run to completion.
    #[arg(long, value_name = "OUT.yaml")]
    poet: Option<PathBuf>,
}

/// How many models are asked about without a word beforehand.
const UNANNOUNCED: usize = 32;

/// How many counter-offers are shown for one model; `--json` has them all.
const OFFERS_SHOWN: usize = 6;

pub(crate) fn run(args: &CheckArgs) -> Result<Answer> {
    let pipeline = Pipeline::open(&args.workload)?;
    let named = [("--certificate", &args.certificate), ("--poet", &args.poet)];
    written::overwrites_nothing(&Written::of(&named), written::inputs(&pipeline))?;
    let (runtime, verdicts) = pipeline.check()?;
    let chains = pipeline.chains(&runtime, &verdicts);
    if args.sensitivity {
        forewarn(runtime.report().models.len());
    }
    let edge = Edge::of(&pipeline, &runtime, &verdicts, args.sensitivity);
    let split = Split::of(&pipeline, &runtime.report(), &verdicts);
    let outlook = pipeline.facts()?.memory;
    if args.json {
        let mut whole = json(&runtime.report(), &verdicts);
        if let Some(outlook) = outlook {
            whole["device_memory"] = serde_json::json!(outlook);
        }
        chains::add_to(&mut whole, &chains, None);
        edge.add_to(&mut whole);
        split.iter().for_each(|split| split.add_to(&mut whole));
        print(serde_json::to_string_pretty(&whole)?)?;
        export(args, &pipeline, &runtime, &verdicts, &chains)?;
        return self::answer(verdicts, &chains);
    }
    let report = runtime.report();
    let conclusion = conclusion(&report, &verdicts, &chains);
    let promises = promises(&pipeline, &report);
    let memory = outlook.map_or_else(String::new, |outlook| memory::outlook(&outlook, &report));
    let remarks = memory::remarks_of(&report).collect::<Vec<_>>().join("\n");
    let split = split.map_or_else(String::new, |split| split.shown());
    let chained = chains::promises(&chains);
    let shown = [promises, memory, remarks, chained, edge.shown(), split, conclusion];
    print(shown.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n"))?;
    let unread = [unread_priorities(&pipeline), unread_claim(&pipeline)];
    for warning in undercharged(&pipeline).into_iter().chain(unread.into_iter().flatten()) {
        print(warning)?;
    }
    export(args, &pipeline, &runtime, &verdicts, &chains)?;
    answer(verdicts, &chains)
}

/// Writes the answer down for others to check, where that is asked for.
fn export(
    args: &CheckArgs,
    pipeline: &Pipeline,
    runtime: &Runtime,
    verdicts: &[Verdict],
    chains: &[ChainReport],
) -> Result<()> {
    if let Some(path) = &args.certificate {
        write(path, &pipeline.certify(runtime, verdicts, chains)?)?;
    }
    if let Some(path) = &args.poet {
        write(path, &pipeline.poet(runtime).map_err(Error::from)?)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Says before a long search that it is one: an analysis is asked about some hundred times a model.
fn forewarn(models: usize) {
    if models > UNANNOUNCED {
        say(format!(
            "finding how far each of {models} models is from the edge; this takes a while"
        ));
    }
}

/// The answer of admission, as a table or as JSON.
pub(crate) fn answered(
    pipeline: &Pipeline,
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
    let shown = [promises(pipeline, report), chains::promises(chains), conclusion];
    Ok(shown.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n"))
}

/// Warnings where profiling saw more than the analysis charges, or did not look.
fn undercharged(pipeline: &Pipeline) -> Vec<String> {
    let Ok(evidence) = Evidence::read(pipeline.evidence_path()) else { return Vec::new() };
    let workload = pipeline.workload();
    let names = workload.models.iter().map(|model| model.name.as_str());
    charges::warnings(&evidence, &workload.overheads, names)
}

/// A warning where the workload states priorities that its policy does not read.
fn unread_priorities(pipeline: &Pipeline) -> Option<String> {
    let workload = pipeline.workload();
    let states_one = |model: &&Model| match model.best_effort {
        Some(BestEffort::Server(server)) => server.priority.is_some(),
        Some(BestEffort::Background) | None => model.priority.is_some(),
    };
    let is_unread = |model: &&Model| workload.policy_of(model) != PolicyKind::Priority;
    let stated: Vec<&Model> = workload.models.iter().filter(states_one).filter(is_unread).collect();
    let policy = workload.policy_of(stated.first()?);
    let names: Vec<&str> = stated.iter().map(|model| model.name.as_str()).collect();
    Some(format!(
        "warning: the {policy} policy does not read `priority`, which is stated for {}",
        names.join(", ")
    ))
}

/// A warning where the workload states a claim and a method that makes none.
fn unread_claim(pipeline: &Pipeline) -> Option<String> {
    let unread = &pipeline.workload().wcet.unread;
    (!unread.is_empty()).then(|| {
        format!(
            "warning: the margin rule makes no claim and does not read {}; `method = \"auto\"` under \
             [wcet] makes one",
            unread.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" and ")
        )
    })
}

/// The budget of a model's server, if it is under one.
fn server_budget(model: &ModelReport) -> Option<Nanos> {
    match model.service {
        ServiceTerms::Server { budget, .. } => Some(budget),
        ServiceTerms::Guaranteed { .. } | ServiceTerms::Background => None,
    }
}

/// What is promised to every admitted model, and on what grounds.
fn promises(pipeline: &Pipeline, report: &Report) -> String {
    let has_servers = report.models.iter().any(|model| server_budget(model).is_some());
    let is_split = !report.partitions.is_empty();
    let mut columns = vec!["model"];
    columns.extend(is_split.then_some("partition"));
    columns.extend(["C ms", "T ms", "D ms", "bound ms", "blocking ms", "slack ms"]);
    columns.extend(has_servers.then_some("server ms"));
    columns.extend(["resident MiB", "scratch MiB"]);
    let mut shown = table::new(&columns);
    for model in &report.models {
        let ModelReport { cost, bound, blocking, slack, .. } = *model;
        let mut row = vec![model.name.clone()];
        row.extend(is_split.then(|| or_dash(model.partition.clone())));
        row.extend([
            ms(cost),
            or_dash(model.period().map(ms)),
            or_dash(model.deadline().map(ms)),
            or_dash(bound.map(ms)),
            or_dash(blocking.map(ms)),
            or_dash(slack.map(ms_down)),
        ]);
        row.extend(has_servers.then(|| or_dash(server_budget(model).map(ms))));
        row.extend([mib(model.resident), mib(model.scratch)]);
        table::add(&mut shown, &row);
    }
    format!("{shown}\n{}", grounds(pipeline, report))
}

/// By which test, policy and charges it is promised, and in how much memory.
fn grounds(pipeline: &Pipeline, report: &Report) -> String {
    let memory = &report.memory;
    let overruns = match pipeline.workload().scheduler.overrun {
        OverrunPolicy::Contain => "; overruns are contained",
        OverrunPolicy::Record => "",
    };
    let proof = |executor: &ExecutorReport| {
        let ahead = look_ahead(executor);
        match executor.test {
            Some(test) => format!("{} policy, proved by {test}{overruns}{ahead}", executor.policy),
            None => format!("{} policy, nothing to prove{overruns}{ahead}", executor.policy),
        }
    };
    let used = |executor: &ExecutorReport| {
        format!("utilisation {} without overheads", percent_up(executor.utilisation_ppm))
    };
    let of_partition = |of: &PartitionReport| {
        let sms = of.sms.map_or_else(String::new, |sms| match of.granted {
            Some(granted) => format!(", {sms} SMs asked for and {granted} granted"),
            None => format!(", {sms} SMs"),
        });
        format!("partition {}{sms}: {}; {}", of.name, proof(&of.executor), used(&of.executor))
    };
    let proofs: Vec<String> = match &report.whole {
        Some(whole) => vec![proof(whole)],
        None => report.partitions.iter().map(of_partition).collect(),
    };
    let used = report.whole.as_ref().map_or_else(String::new, |whole| format!("; {}", used(whole)));
    format!(
        "{}\n{}C includes {}; waking up may take {}{}{used}\n\
         memory: {} resident + {} shared scratch of {}",
        proofs.join("\n"),
        best_effort(report),
        included(pipeline, &report.overheads),
        report.overheads.wake,
        uploads_ahead(report),
        memory.resident,
        memory.scratch,
        memory.limit
    )
}

/// Everything in a C that is no measured or declared time.
fn included(pipeline: &Pipeline, overheads: &Overheads) -> String {
    let Overheads { dispatch, boundary, copy, .. } = *overheads;
    let mut all = vec![format!("{dispatch} per stage")];
    all.extend((boundary > Nanos::ZERO).then(|| format!("{boundary} between two stages")));
    all.extend((copy > Nanos::ZERO).then(|| format!("{copy} for inputs and as much for outputs")));
    let workload = pipeline.workload();
    let declares = |model: &Model| matches!(model.backend, Backend::Sim(_));
    let declared = workload.models.iter().any(declares) && workload.device.driver == Driver::Host;
    let margin = workload.wcet.margin_percent;
    let margin = (declared && margin > 0).then(|| format!("{margin} % on top of declared times"));
    all.extend(margin);
    match &all[..] {
        [before @ .., last] if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => all.concat(),
    }
}

/// How many SMs each partition was given for those that it asked for, one a line; nothing of a device
/// that gives none.
pub(crate) fn granted(report: &Report) -> impl Iterator<Item = String> + '_ {
    report.partitions.iter().filter_map(|of| {
        let asked = of.sms.map_or_else(|| "none in particular".to_owned(), |sms| sms.to_string());
        Some(format!("partition {}: {} SMs granted, {asked} asked for", of.name, of.granted?))
    })
}

/// That a stage is put behind the running one, and what that costs; empty where none is.
fn look_ahead(executor: &ExecutorReport) -> String {
    match executor.look_ahead {
        None => String::new(),
        Some(Nanos::ZERO) => "; look-ahead is on and costs what is admitted no blocking".into(),
        Some(charge) => format!("; look-ahead is on: {charge} more of blocking for each model"),
    }
}

/// That inputs go ahead, and what the costs are then; empty where they do not.
fn uploads_ahead(report: &Report) -> &'static str {
    if report.overheads.uploads_ahead {
        "; inputs go ahead, so each C has to hold beside copies, and the device to begin one upload \
         behind the other"
    } else {
        ""
    }
}

/// The models without deadlines and how they are served, one a line; empty when there are none.
pub(crate) fn best_effort(report: &Report) -> String {
    let background = |model: &ModelReport| {
        let mut executors = report.executors();
        let own = executors.find(|(name, _)| *name == model.partition.as_deref());
        own.map_or(Nanos::ZERO, |(_, executor)| executor.background)
    };
    let line = |model: &ModelReport| match model.service {
        ServiceTerms::Guaranteed { .. } => None,
        ServiceTerms::Background => Some(format!(
            "{}: best effort, while nothing else is ready; no stage in the background is longer \
             than {}\n",
            model.name,
            background(model)
        )),
        ServiceTerms::Server { budget, period, .. } => {
            let (model, budget) = (&model.name, budget.cut());
            Some(format!("{model}: best effort, {budget} of device time every {period}\n"))
        }
    };
    report.models.iter().filter(|model| !model.evicted).filter_map(line).collect()
}

/// Every refusal with its inequality, everything that kept a model from being decided about, and the
/// answer for all together.
pub(crate) fn conclusion(report: &Report, verdicts: &[Verdict], chains: &[ChainReport]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for Verdict { model, outcome, offers, .. } in verdicts {
        match outcome {
            Ok(_) => {}
            Err(Error::Refused { explained, .. }) => {
                lines.push(format!("no: {model} is refused: {explained}{}", bargain(offers)));
            }
            Err(error) => lines.push(format!("no: {}; it was not decided about", chain(error))),
        }
    }
    let (all, refused) = (counted(verdicts.len(), "model"), lines.len());
    lines.extend(chains::refusals(chains));
    let kept = chains.iter().filter(|chain| chain.refused.is_empty()).count();
    let served = report.models.iter().filter(|m| !m.evicted && !m.service.is_guaranteed()).count();
    lines.push(if refused > 0 {
        format!(
            "no: {} of {all} admitted, in file order; a model that is refused does not count for \
             those after it",
            verdicts.len() - refused
        )
    } else if chains::any_refused(chains) {
        let chains = counted(chains.len(), "chain");
        format!("no: {all} admitted, none refused, and {kept} of {chains} kept")
    } else if served == verdicts.len() {
        format!("yes: {all} admitted, and nothing has a deadline")
    } else if served > 0 {
        format!(
            "yes: every deadline is met under the stated assumptions, beside {served} of {all} \
             without one"
        )
    } else if verdicts.len() == 1 {
        "yes: the model meets every deadline under the stated assumptions".into()
    } else {
        format!("yes: all {all} meet every deadline under the stated assumptions")
    });
    lines.join("\n")
}

/// `1 model`, `2 models`.
fn counted(how_many: usize, what: &str) -> String {
    format!("{how_many} {what}{}", if how_many == 1 { "" } else { "s" })
}

/// What would have been admitted instead, one offer a line.
fn bargain(offers: &[CounterOffer]) -> String {
    let shown = offers.iter().take(OFFERS_SHOWN);
    let mut lines: String =
        shown.map(|offer| format!("\n    admitted if {}", offer.explained)).collect();
    if let Some(more @ 1..) = offers.len().checked_sub(OFFERS_SHOWN) {
        lines.push_str(&format!("\n    and {}, with --json", counted(more, "more way")));
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

/// The report and the refusals, as `docs/formats.md` describes them. A model about which nothing could
/// be decided stands among the refused: a reader who only looks whether there are any must not take it
/// for admitted.
pub(crate) fn json(report: &Report, verdicts: &[Verdict]) -> serde_json::Value {
    let refusals: Vec<_> = verdicts
        .iter()
        .filter_map(|verdict| match &verdict.outcome {
            Ok(_) => None,
            Err(Error::Refused { refusal, explained, .. }) => {
                Some((verdict, serde_json::json!(refusal), explained.clone()))
            }
            Err(error) => Some((verdict, serde_json::Value::Null, chain(error))),
        })
        .map(|(verdict, refusal, explained)| {
            serde_json::json!({
                "model": verdict.model,
                "id": verdict.id,
                "names": verdict.names,
                "refusal": refusal,
                "explained": explained,
                "offers": verdict.offers,
            })
        })
        .collect();
    serde_json::json!({ "admitted": report, "refused": refusals })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aegis::{Bytes, PartitionSpec, Runtime};

    #[test]
    fn what_a_partition_was_given_stands_beside_what_it_asked_for() {
        let vision = PartitionSpec { sms: Some(70), ..PartitionSpec::named("vision") };
        let builder = Runtime::builder().sim(Bytes::from_mib(1)).streams(1).queue_depth(1);
        let builder = builder.policy(PolicyKind::Edf).max_models(1).trace_capacity(16);
        let builder = builder.overheads(Overheads::default()).partition(vision);
        let mut report = builder.build().expect("a simulated device").report();
        assert_eq!(granted(&report).count(), 0, "a simulation gives none");
        report.partitions[0].granted = Some(72);
        let lines: Vec<String> = granted(&report).collect();
        assert_eq!(lines, ["partition vision: 72 SMs granted, 70 asked for"]);
    }
}

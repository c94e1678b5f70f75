//! `aegis explain`: what one job waited for, why, and how that compares with its bound.

use std::path::PathBuf;

use aegis::JobId;
use aegis::replay::TraceFile;
use anyhow::Result;
use clap::{ArgGroup, Args};

use crate::output::print;
use crate::{Answer, replay};

#[derive(Args)]
#[command(group(ArgGroup::new("which").required(true).args(["job", "model"])))]
pub(crate) struct ExplainArgs {
    /// The trace, as `aegis run --trace` writes it; `-` for standard input.
    trace: PathBuf,
    /// The job, as the trace names it: its model's id, `#` and a number, as in `m1#6`.
    #[arg(long, value_name = "ID", value_parser = job)]
    job: Option<JobId>,
    /// A model, by its name; with `--worst`.
    #[arg(long, value_name = "NAME", requires = "worst")]
    model: Option<String>,
    /// The job of the model with the longest response.
    #[arg(long, requires = "model", conflicts_with = "job")]
    worst: bool,
    /// Take a trace that was cut short, as far as it goes.
    #[arg(long)]
    cut: bool,
    /// Print JSON, as `docs/formats.md` describes it.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ExplainArgs) -> Result<Answer> {
    let trace = TraceFile::open(&replay::file(&args.trace), replay::cut(args.cut))?;
    if trace.divergence().is_some() {
        print(trace.verdict())?;
        return Ok(Answer::No);
    }
    let account = match (&args.model, args.job) {
        (Some(model), _) => trace.worst(model)?,
        (None, Some(job)) => trace.account(job)?,
        (None, None) => anyhow::bail!("name a job with --job, or a model with --model and --worst"),
    };
    let shown = match args.json {
        true => serde_json::to_string_pretty(&trace.account_json(&account))?,
        false => trace.explain(&account),
    };
    print(shown)?;
    Ok(Answer::Yes)
}

fn job(text: &str) -> Result<JobId, String> {
    text.parse().map_err(|_| "a job is written as the trace has it, for example m1#6".into())
}

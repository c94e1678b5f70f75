//! `aegis replay`: whether a trace follows from itself, and what another policy would have done.

use std::path::{Path, PathBuf};

use aegis::replay::{CutTrace, Row, TraceFile, WhatIf};
use aegis::{Nanos, PolicyKind};
use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::Answer;
use crate::output::print;
use crate::table::{self, ms, or_dash};

#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// The trace, as `aegis run --trace` writes it; `-` for standard input.
    trace: PathBuf,
    /// Show what this policy would have done with the same jobs.
    #[arg(long, value_enum)]
    policy: Option<Policy>,
    /// Replay a trace that was cut short, as far as it goes.
    #[arg(long)]
    cut: bool,
    /// Print JSON, as `docs/formats.md` describes it.
    #[arg(long)]
    json: bool,
}

/// The policies by the names that a workload has for them.
#[derive(Clone, Copy, ValueEnum)]
enum Policy {
    Fifo,
    Rms,
    Dm,
    Edf,
    Priority,
}

impl From<Policy> for PolicyKind {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Fifo => Self::Fifo,
            Policy::Rms => Self::Rms,
            Policy::Dm => Self::Dm,
            Policy::Edf => Self::Edf,
            Policy::Priority => Self::Priority,
        }
    }
}

/// What a command does with a trace that was cut short.
pub(crate) fn cut(accepted: bool) -> CutTrace {
    if accepted { CutTrace::Replayed } else { CutTrace::Refused }
}

/// The file that is named; `-` is what comes in, which is held as that of any pipe is.
pub(crate) fn file(named: &Path) -> PathBuf {
    if named == Path::new("-") { "/dev/stdin".into() } else { named.to_owned() }
}

pub(crate) fn run(args: &ReplayArgs) -> Result<Answer> {
    let trace = TraceFile::open(&file(&args.trace), cut(args.cut))?;
    let is_whole = trace.divergence().is_none();
    let compared = match args.policy {
        Some(policy) if is_whole => trace.what_if(policy.into())?,
        _ => Vec::new(),
    };
    print(match args.json {
        true => serde_json::to_string_pretty(&trace.answer_json(&compared))?,
        false => text(&trace, &compared),
    })?;
    Ok(if is_whole { Answer::Yes } else { Answer::No })
}

fn text(trace: &TraceFile, compared: &[WhatIf]) -> String {
    let mut lines = vec![trace.verdict()];
    for what_if in compared {
        lines.push(String::new());
        lines.push(TraceFile::compared(what_if));
        lines.push(rows(&TraceFile::rows(what_if)));
        lines.extend(trace.remarks(what_if));
    }
    lines.join("\n")
}

/// Pairs of figures: what was, and what would have been.
fn rows(rows: &[Row]) -> String {
    let columns =
        ["model", "jobs", "bound ms", "longest ms", "median ms", "missed", "dropped", "not ended"];
    let mut shown = table::new(&columns);
    for Row { model, bound, seen } in rows {
        let pair = |of: [String; 2]| format!("{} > {}", of[0], of[1]);
        let lost = |of: &aegis::replay::Seen| of.dropped + of.failed;
        table::add(
            &mut shown,
            &[
                model.clone(),
                pair(seen.map(|of| of.completed.to_string())),
                pair(bound.map(|bound: Option<Nanos>| or_dash(bound.map(ms)))),
                pair(seen.map(|of| ms(of.longest))),
                pair(seen.map(|of| ms(of.median))),
                pair(seen.map(|of| of.missed.to_string())),
                pair([lost(&seen[0]), lost(&seen[1])].map(|lost| lost.to_string())),
                pair(seen.map(|of| (of.unfinished + of.not_accepted).to_string())),
            ],
        );
    }
    shown.to_string()
}

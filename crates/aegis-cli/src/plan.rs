//! `aegis plan`: offsets for a file of tensor lifetimes.

use std::path::{Path, PathBuf};

use aegis::plan::{
    BoundProof, Ended, LifetimeTable, Outcome, PlanLimit, PlanOptions, PlanReport, plan, svg,
};
use aegis::{Bytes, Nanos};
use anyhow::{Context, Result, anyhow};
use clap::Args;

use crate::Answer;
use crate::output::{print, say};
use crate::table::{ms, percent_up};
use crate::written::{self, Written};

#[derive(Args)]
pub(crate) struct PlanArgs {
    /// The lifetimes: CSV with the columns id, lower, upper, size and, if wanted, alignment.
    file: PathBuf,
    /// Take the first plan within so many bytes, such as 1048576 or 1MiB; without, the peak is made
    /// least.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    capacity: Option<Bytes>,
    /// When to give up, such as 500ms; then no number of steps ends the search, unless --nodes does.
    /// Where the clock decides, another run may give another answer. Without this and --nodes: 10s.
    #[arg(long)]
    time_limit: Option<Nanos>,
    /// How many steps all searches may take together, 0 for heuristics alone; then no clock ends
    /// them, unless --time-limit does. The same number gives the same plan everywhere. Without this
    /// and --time-limit: as many as take seconds.
    #[arg(long, value_name = "N")]
    nodes: Option<u64>,
    /// Write the lifetimes with a column of offsets.
    #[arg(long, value_name = "OUT.csv")]
    output: Option<PathBuf>,
    /// Print the report as JSON instead of text.
    #[arg(long)]
    json: bool,
    /// Draw the plan: time across, address up.
    #[arg(long, value_name = "OUT.svg")]
    svg: Option<PathBuf>,
}

pub(crate) fn run(args: &PlanArgs) -> Result<Answer> {
    let outputs = Written::of(&[("--output", &args.output), ("--svg", &args.svg)]);
    written::overwrites_nothing(&outputs, [args.file.as_path()])?;
    let name = args.file.display();
    let bytes = std::fs::read(&args.file).with_context(|| format!("cannot read {name}"))?;
    let table = LifetimeTable::parse(&bytes).map_err(|fault| anyhow!("{name}:{fault}"))?;
    let options = PlanOptions { capacity: args.capacity, limit: args.limit(&table) };
    let report = plan(&table, &options);
    if let (Some(path), true) = (&args.output, report.fits()) {
        write(path, &report.to_csv(&table))?;
    }
    if let Some(path) = &args.svg {
        write(path, svg(&table, &report).as_bytes())?;
    }
    if args.json {
        print(serde_json::to_string_pretty(&json(&table, &report))?)?;
    } else {
        print(shown(&table, &report))?;
    }
    if let (Some(path), false) = (&args.output, report.fits()) {
        say(format!("{} was not written: no plan is within the capacity", path.display()));
    }
    Ok(if report.fits() { Answer::Yes } else { Answer::No })
}

impl PlanArgs {
    /// What is given, and nothing else; the usual where nothing is.
    fn limit(&self, table: &LifetimeTable) -> PlanLimit {
        match (self.nodes, self.time_limit) {
            (None, None) => PlanLimit::usual(table, self.capacity),
            (nodes, time) => PlanLimit { nodes, time: time.map(Into::into) },
        }
    }
}

/// A count of bytes, or a size with its unit.
fn bytes(text: &str) -> Result<Bytes, String> {
    match text.parse() {
        Ok(count) => Ok(Bytes(count)),
        Err(_) => text.parse::<Bytes>().map_err(|fault| fault.to_string()),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn shown(table: &LifetimeTable, report: &PlanReport) -> String {
    let size = |bytes: Bytes| format!("{} ({bytes})", bytes.as_u64());
    let mut lines = vec![
        format!("buffers      {}, {} in all", table.len(), report.total),
        format!("peak         {}", size(report.peak)),
        format!("lower bound  {}: {}", size(report.bound), bound_proof(report)),
        format!("gap          {}", percent_up(report.gap_ppm)),
        format!("method       {}, {} search steps", report.method, report.nodes),
        format!("time         {} ms", ms(report.time)),
    ];
    if !table.unused_columns().is_empty() {
        lines.push(format!("not read     columns {}", table.unused_columns().join(", ")));
    }
    lines.push(format!("ended by     {}", ended_by(report)));
    lines.push(conclusion(report));
    lines.join("\n")
}

/// What the lower bound rests on, so that a reader can add it up.
fn bound_proof(report: &PlanReport) -> String {
    if report.bound_proof == BoundProof::Exhausted {
        return "a complete search found nothing lower".into();
    }
    let live = match report.live.len() {
        1 => "1 buffer lives".into(),
        count => format!("{count} buffers live"),
    };
    let at = format!("{live} at time {}", report.busiest);
    match report.live_padding {
        Bytes(0) => at,
        Bytes(padding) => format!(
            "{at}: {} of them, and {padding} of padding, since all offsets are multiples of {}",
            report.live_size.as_u64(),
            report.live_stride
        ),
    }
}

fn conclusion(report: &PlanReport) -> String {
    let capacity = report.capacity.map_or_else(String::new, |bytes| bytes.as_u64().to_string());
    match (report.outcome, report.capacity) {
        (Outcome::Optimal, None) => "yes: no plan has a lower peak".into(),
        (Outcome::Optimal, Some(_)) => {
            format!("yes: within the capacity of {capacity}, and no plan has a lower peak")
        }
        (Outcome::WithinCapacity, _) => format!("yes: within the capacity of {capacity}"),
        (Outcome::Gap, _) => "yes: but a lower peak is not excluded".into(),
        (Outcome::Infeasible, _) => format!(
            "no: proved that no plan is within the capacity of {capacity}: the lower bound is {}",
            report.bound.as_u64()
        ),
        (Outcome::LimitReached, _) => {
            format!("no: no plan within the capacity of {capacity} was found, and none is excluded")
        }
    }
}

/// Why planning ended, and what would take it further.
fn ended_by(report: &PlanReport) -> String {
    match report.ended {
        Ended::Proved => "a proof".into(),
        Ended::CapacityMet => "the capacity, which is met".into(),
        Ended::Nodes => {
            format!("{} search steps, the limit (--nodes)", report.limit.nodes.unwrap_or(u64::MAX))
        }
        Ended::Stopped => {
            let time = report.limit.time.map_or(Nanos(0), Nanos::from);
            format!("the clock, after {} ms (--time-limit); another run may differ", ms(time))
        }
        Ended::TooLarge => {
            "the heuristics: too many buffers live together for a search, whatever the limit".into()
        }
    }
}

/// The report as `docs/formats.md` describes it.
fn json(table: &LifetimeTable, report: &PlanReport) -> serde_json::Value {
    let live: Vec<_> = report.live.iter().map(|row| table.id(*row)).collect();
    let bound_by = match report.bound_proof {
        BoundProof::LiveSize => "live_size",
        BoundProof::Exhausted => "exhausted",
    };
    let outcome = match report.outcome {
        Outcome::Optimal => "optimal",
        Outcome::WithinCapacity => "within_capacity",
        Outcome::Gap => "gap",
        Outcome::Infeasible => "infeasible",
        Outcome::LimitReached => "limit_reached",
    };
    let ended_by = match report.ended {
        Ended::Proved => "proof",
        Ended::CapacityMet => "capacity",
        Ended::Nodes => "nodes",
        Ended::Stopped => "time",
        Ended::TooLarge => "size",
    };
    serde_json::json!({
        "buffers": table.len(),
        "total": report.total,
        "capacity": report.capacity,
        "fits": report.fits(),
        "outcome": outcome,
        "ended_by": ended_by,
        "peak": report.peak,
        "lower_bound": report.bound,
        "lower_bound_by": bound_by,
        "gap_ppm": report.gap_ppm,
        "busiest": {
            "time": report.busiest,
            "live": live,
            "size": report.live_size,
            "stride": report.live_stride,
            "padding": report.live_padding,
        },
        "method": report.method,
        "nodes": report.nodes,
        "node_limit": report.limit.nodes,
        "time_limit": report.limit.time.map(Nanos::from),
        "nanoseconds": report.time,
        "unused_columns": table.unused_columns(),
    })
}

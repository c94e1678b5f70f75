//! `aegis run`: admit, run, report.

#[cfg(feature = "tui")]
use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aegis::drive::{Load, LoadSummary, TurnedAway};
use aegis::export::format::UnknownFormat;
use aegis::{
    ChainReport, DriverMemoryReport, Error, ModelReport, Nanos, Pipeline, RealtimeReport, Report,
    Runtime, ThreadSetup, TraceSink, TraceSummary, Verdict,
};
use anyhow::{Context, Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exports::{ExportArgs, Running};
use crate::output::{print, say};
use crate::recording::{OnTraceError, Recording};
use crate::table::{self, ms, or_dash};
use crate::written::{self, Written};
use crate::{Answer, chains, check, findings, logging, memory};

/// How often the progress line is renewed and Ctrl-C is looked for.
const TICK: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(crate) struct RunArgs {
    /// The workload file.
    workload: PathBuf,
    /// How long to run, for example 20s; without it, until Ctrl-C.
    #[arg(long = "for", value_name = "TIME")]
    length: Option<Nanos>,
    /// Write the trace there: .jsonl is the log, .pftrace opens in Perfetto, .json in Chrome. May be
    /// given again.
    #[arg(long, value_name = "FILE", value_parser = trace_file)]
    trace: Vec<TraceSink>,
    /// What a trace that cannot be written any more does to the run.
    #[arg(long, value_enum, default_value_t = OnTraceError::Continue)]
    trace_errors: OnTraceError,
    /// Run the admitted models even when others are refused.
    #[arg(long)]
    admitted_only: bool,
    /// Print the report as JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    exports: ExportArgs,
}

pub(crate) fn run(args: &RunArgs) -> Result<Answer> {
    ensure!(args.length != Some(Nanos::ZERO), "--for must be longer than zero");
    let pipeline = Pipeline::open(&args.workload)?;
    overwrites_nothing(&pipeline, &args.trace)?;
    let exports = args.exports.prepare()?;
    let interrupted = catch_interrupts()?;
    let (runtime, verdicts) = admit(&pipeline)?;
    let chains = pipeline.chains(&runtime, &verdicts);
    let refused = verdicts.iter().any(|verdict| verdict.outcome.is_err());
    if (refused || chains::any_refused(&chains)) && !args.admitted_only {
        print(check::answered(&pipeline, &runtime.report(), &verdicts, &chains, args.json)?)?;
        return check::answer(verdicts, &chains);
    }
    let load = pipeline.load(&verdicts);
    let (exported, observers) = exports.start(&runtime)?;
    let mut recording = Recording::start(&runtime, &args.trace, args.trace_errors, observers)?;
    runtime.warm_up()?;
    runtime.start()?;
    let load = Load::start_for(load, Arc::clone(runtime.clock()), args.length)?;
    let realtime = runtime.realtime();
    let (ran, shown) = watch(&runtime, &exported, args, &interrupted, &mut recording);
    let load = load.end();
    let stopped = runtime.stop();
    // Only now: behind a stage that hangs, the jobs of a chain end with the runtime.
    let load = load.summary();
    let (trace, untraced) = recording.finish();
    let driver_memory = runtime.driver_memory();
    let (report, verdicts_of) = (Report { driver_memory, ..runtime.report() }, &verdicts);
    let seen = Seen { report, verdicts: verdicts_of, chains: &chains, realtime, ran, load, trace };
    print(if args.json { seen.json()? } else { seen.text(args) })?;
    let kept = seen.faults().is_empty();
    // What went wrong is said after the report, which is wanted most when something did.
    stopped?;
    shown.context("the terminal failed, which ended the run")?;
    if let Some(error) = untraced {
        return Err(error);
    }
    let admitted = check::answer(verdicts, &chains)?;
    Ok(if kept { admitted } else { Answer::No })
}

fn trace_file(path: &str) -> Result<TraceSink, UnknownFormat> {
    TraceSink::at(path)
}

/// Refuses traces that would overwrite what the command reads, or each other.
fn overwrites_nothing(pipeline: &Pipeline, traces: &[TraceSink]) -> Result<()> {
    let outputs = traces.iter().map(|trace| Written { by: "the trace", path: &trace.path });
    written::overwrites_nothing(&outputs.collect::<Vec<_>>(), written::inputs(pipeline))
}

/// Everything one run has to say.
struct Seen<'a> {
    report: Report,
    verdicts: &'a [Verdict],
    chains: &'a [ChainReport],
    realtime: Vec<RealtimeReport>,
    ran: Duration,
    load: LoadSummary,
    trace: TraceSummary,
}

impl Seen<'_> {
    /// What keeps the run from being a *yes*.
    fn faults(&self) -> Vec<String> {
        let mut faults = findings::faults(&self.report);
        let broken = self.report.models.iter().map(|model| model.observed.counts.broken.total());
        faults.extend(chains::faults(self.chains, &self.load.chains, broken.sum()));
        if self.report.driver_memory.as_ref().and_then(DriverMemoryReport::is_kept) == Some(false) {
            faults.push("the driver counts more device memory than the limit".into());
        }
        if self.load.refused > 0 {
            let by = self.load.turned_away.iter().filter(|of| !of.best_effort);
            let by = by.map(|of| turned_away(of, &self.report));
            let by = by.collect::<Vec<_>>().join(", ");
            faults.push(format!("submissions turned away: {} ({by})", self.load.refused));
        }
        if self.report.models.iter().all(|model| model.observed.counts.completed == 0) {
            faults.push("no job was completed, so nothing was seen of any deadline".into());
        }
        faults
    }

    /// The answer: of the run, and of admission where it went on without some.
    fn answer(&self) -> String {
        let refused = self.verdicts.iter().any(|verdict| verdict.outcome.is_err());
        let partial = refused || chains::any_refused(self.chains);
        match (&self.faults()[..], partial) {
            ([], false) => "yes: every job met its deadline".into(),
            ([], true) => {
                "no: not everything was admitted; every job of what was admitted met its \
                           deadline"
                    .into()
            }
            (faults, false) => format!("no: {}", faults.join("; ")),
            (faults, true) => format!("no: {}; not everything was admitted", faults.join("; ")),
        }
    }

    fn text(&self, args: &RunArgs) -> String {
        let mut lines = vec![observed(&self.report)];
        let chains = chains::observed(self.chains, &self.load.chains);
        lines.extend((!chains.is_empty()).then_some(chains));
        let over = chains::over_bound(self.chains, &self.load.chains);
        lines.extend((!over.is_empty()).then(|| format!("chains over their bounds: {over}")));
        lines.push(findings::show(&self.report, &self.trace));
        lines.extend(self.realtime.iter().map(realtime));
        lines.extend(check::granted(&self.report));
        lines.extend(memory::remarks_of(&self.report));
        let counted = self.report.driver_memory.as_ref();
        lines.extend(counted.map(|counted| memory::explained(counted, &self.report)));
        lines.push(self.load(args));
        let refused = self.verdicts.iter().any(|verdict| verdict.outcome.is_err());
        if refused || chains::any_refused(self.chains) {
            lines.push(check::conclusion(&self.report, self.verdicts, self.chains));
        }
        lines.push(self.answer());
        lines.join("\n")
    }

    fn load(&self, args: &RunArgs) -> String {
        let stopped: u64 =
            self.report.models.iter().map(|model| model.observed.counts.stopped).sum();
        let LoadSummary { due, submitted, refused, refused_best_effort, .. } = self.load;
        let mut line = format!(
            "ran {:.1} s: {submitted} of {due} due jobs submitted{}, {refused} turned away{}, \
             {stopped} ended by stopping; {} events recorded, {} lost",
            self.ran.as_secs_f64(),
            unsent(&self.load),
            match refused_best_effort {
                0 => String::new(),
                some => format!(" and {some} of best effort"),
            },
            self.trace.records,
            self.trace.dropped
        );
        for (index, trace) in args.trace.iter().enumerate() {
            let before = if index == 0 { "; trace:" } else { "," };
            line.push_str(&format!("{before} {}", trace.path.display()));
        }
        line
    }

    fn json(&self) -> Result<String> {
        let mut whole = check::json(&self.report, self.verdicts);
        chains::add_to(&mut whole, self.chains, Some(&self.load.chains));
        let LoadSummary { due, submitted, refused, refused_best_effort, left_out, cut_off, .. } =
            self.load;
        let by = self.load.turned_away.iter().map(|of| {
            let TurnedAway { model, why, best_effort, jobs } = of;
            let model = findings::name_of(&self.report, *model);
            serde_json::json!({
                "model": model, "why": why, "jobs": jobs, "best_effort": best_effort,
            })
        });
        whole["run"] = serde_json::json!({
            "seconds": self.ran.as_secs_f64(),
            "jobs": { "due": due, "submitted": submitted, "turned_away": refused,
                "turned_away_best_effort": refused_best_effort,
                "turned_away_by": by.collect::<Vec<_>>(),
                "late": left_out, "at_the_end": cut_off },
            "realtime": match &self.realtime[..] {
                [whole] if whole.partition.is_none() => serde_json::json!(whole),
                each => serde_json::json!(each),
            },
            "events": { "recorded": self.trace.records, "lost": self.trace.dropped },
            "faults": self.faults(),
        });
        Ok(serde_json::to_string_pretty(&whole)?)
    }
}

/// `detector 151: no free slot`: whose jobs were turned away, and why.
fn turned_away(of: &TurnedAway, report: &Report) -> String {
    let TurnedAway { model, why, jobs, .. } = of;
    format!("{} {jobs}: {why}", findings::name_of(report, *model))
}

/// Why jobs that were due were neither submitted nor turned away; empty if there are none.
fn unsent(load: &LoadSummary) -> String {
    let late = (load.left_out > 0)
        .then(|| format!("{} were left out, an earlier one being late", load.left_out));
    let ended = (load.cut_off > 0).then(|| format!("{} were due as the run ended", load.cut_off));
    let told: Vec<String> = late.into_iter().chain(ended).collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

/// How the threads of one executor are scheduled.
fn realtime(of: &RealtimeReport) -> String {
    let RealtimeReport { orchestrator, workers, partition } = of;
    let of = partition.as_ref().map_or_else(String::new, |name| format!("partition {name}, "));
    let ThreadSetup { priority, memory, core, throttling } = orchestrator;
    format!(
        "{of}real-time priority: orchestrator {priority}, workers {workers}; throttling: {throttling}; \
         locked memory: {memory}; own core: {core}"
    )
}

/// A flag that the first Ctrl-C raises; the second ends the program at once.
fn catch_interrupts() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let armed = Arc::clone(&flag);
        signal_hook::flag::register_conditional_shutdown(signal, 130, armed)
            .context("Ctrl-C cannot be caught")?;
        signal_hook::flag::register(signal, Arc::clone(&flag))
            .context("Ctrl-C cannot be caught")?;
    }
    Ok(flag)
}

fn admit(pipeline: &Pipeline) -> Result<(Runtime, Vec<Verdict>), Error> {
    let bar = ProgressBar::new(pipeline.workload().models.len() as u64);
    let style = ProgressStyle::with_template("loading {bar:40} {pos}/{len} {msg}");
    bar.set_style(style.expect("the template is a constant"));
    let admitted = pipeline.admit(|model| {
        bar.set_message(model.to_owned());
        bar.inc(1);
    });
    bar.finish_and_clear();
    admitted
}

/// Waits for the end of the run, showing what happens; how long it ran, and whether the terminal
/// failed.
fn watch(
    runtime: &Runtime,
    exported: &Running,
    args: &RunArgs,
    interrupted: &AtomicBool,
    recording: &mut Recording,
) -> (Duration, io::Result<()>) {
    #[cfg(feature = "tui")]
    if let Some(view) = &exported.view {
        let workload = args.workload.display().to_string();
        let ends = |warnings: &mut Vec<String>| {
            let told = RefCell::new(Vec::new());
            let untraced = recording.must_end(|warning| told.borrow_mut().push(warning.to_owned()));
            warnings.append(&mut told.into_inner());
            untraced || interrupted.load(Ordering::Relaxed)
        };
        return crate::tui::watch(view, &workload, args.length, ends);
    }
    #[cfg(not(feature = "tui"))]
    let _ = &exported.view;
    (watch_progress(runtime, args.length, interrupted, recording), Ok(()))
}

/// Waits for the end of the run beside a line of progress; how long it ran.
fn watch_progress(
    runtime: &Runtime,
    length: Option<Nanos>,
    interrupted: &AtomicBool,
    recording: &mut Recording,
) -> Duration {
    let start = Instant::now();
    let seconds = length.map_or(0, |length| length.as_nanos().div_ceil(1_000_000_000));
    // A log on the same terminal would be written through.
    let bar = if logging::is_on() { ProgressBar::hidden() } else { ProgressBar::new(seconds) };
    let template = if length.is_some() {
        "running {bar:40} {pos}/{len} s {msg}"
    } else {
        "running {pos} s {msg}"
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
    let end = length.map(|length| start + Duration::from(length));
    loop {
        let now = Instant::now();
        let untraced = recording.must_end(|warning| bar.suspend(|| say(warning)));
        if untraced || interrupted.load(Ordering::Relaxed) || end.is_some_and(|end| now >= end) {
            bar.finish_and_clear();
            return start.elapsed();
        }
        bar.set_position(start.elapsed().as_secs());
        bar.set_message(progress(&runtime.report()));
        std::thread::sleep(end.map_or(TICK, |end| TICK.min(end - now)));
    }
}

fn progress(report: &Report) -> String {
    let sum = |of: fn(&ModelReport) -> u64| report.models.iter().map(of).sum::<u64>();
    format!(
        "{} jobs, {} misses, {} assumptions broken",
        sum(|model| model.observed.counts.completed),
        report.misses(),
        sum(|model| model.observed.counts.broken.total())
    )
}

/// What was seen, beside what was promised.
fn observed(report: &Report) -> String {
    let is_split = !report.partitions.is_empty();
    let mut columns = vec!["model"];
    columns.extend(is_split.then_some("partition"));
    columns.extend(["jobs", "C ms", "T ms", "D ms", "bound ms", "p50 ms", "p99 ms", "max ms"]);
    columns.extend(["max/bound", "missed", "CV %", "exec max ms"]);
    let mut shown = table::new(&columns);
    for model in &report.models {
        let seen = &model.observed;
        let share = |bound: Nanos| {
            let (longest, bound) = (seen.response.max.as_nanos(), bound.as_nanos().max(1));
            let hundredths = (u128::from(longest) * 100).div_ceil(u128::from(bound));
            format!("{}.{:02}", hundredths / 100, hundredths % 100)
        };
        let mut row = vec![model.name.clone()];
        row.extend(is_split.then(|| or_dash(model.partition.clone())));
        row.extend([
            seen.counts.completed.to_string(),
            ms(model.cost),
            or_dash(model.period().map(ms)),
            or_dash(model.deadline().map(ms)),
            or_dash(model.bound.map(ms)),
            ms(seen.response.p50),
            ms(seen.response.p99),
            ms(seen.response.max),
            or_dash(model.bound.map(share)),
            or_dash(model.bound.map(|_| seen.counts.missed.to_string())),
            format!("{:.1}", seen.response.variation * 100.0),
            ms(seen.execution.max),
        ]);
        table::add(&mut shown, &row);
    }
    format!("{shown}\n{}", check::best_effort(report)).trim_end().to_owned()
}

//! `aegis run`: admit, run, report.

#[cfg(feature = "tui")]
use std::cell::RefCell;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aegis::drive::{Load, LoadSummary};
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
use crate::output::print;
use crate::recording::{OnTraceError, Recording};
use crate::table::{self, ms, or_dash};
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
    let load = Load::start(load, Arc::clone(runtime.clock()))?;
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
    for (index, trace) in traces.iter().enumerate() {
        let twice = traces[..index].iter().any(|before| before.path == trace.path);
        ensure!(!twice, "--trace {} is given twice", trace.path.display());
        overwrites_no_input(pipeline, &trace.path)?;
    }
    Ok(())
}

fn overwrites_no_input(pipeline: &Pipeline, trace: &Path) -> Result<()> {
    let Some(trace) = identity(trace) else { return Ok(()) };
    let workload = pipeline.workload();
    let models = workload.models.iter().flat_map(|model| model.backend.files());
    let read = [workload.source.path.as_path(), pipeline.evidence_path()]
        .into_iter()
        .chain(models.map(|file| file.path.as_path()));
    for path in read {
        ensure!(identity(path) != Some(trace), "the trace would overwrite {}", path.display());
    }
    Ok(())
}

/// Device and number of a file that is there: what it is, by whatever name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|about| (about.dev(), about.ino()))
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
        faults.extend(chains::faults(&self.load.chains));
        if self.report.driver_memory.as_ref().and_then(DriverMemoryReport::is_kept) == Some(false) {
            faults.push("the driver counts more device memory than the limit".into());
        }
        if self.load.refused > 0 {
            faults.push(format!("submissions turned away: {}", self.load.refused));
        }
        faults
    }

    fn text(&self, args: &RunArgs) -> String {
        let mut lines = vec![observed(&self.report)];
        let chains = chains::observed(self.chains, &self.load.chains);
        lines.extend((!chains.is_empty()).then_some(chains));
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
        lines.push(match &self.faults()[..] {
            [] => "yes: every job met its deadline".into(),
            faults => format!("no: {}", faults.join("; ")),
        });
        lines.join("\n")
    }

    fn load(&self, args: &RunArgs) -> String {
        let stopped: u64 =
            self.report.models.iter().map(|model| model.observed.counts.stopped).sum();
        let LoadSummary { due, submitted, refused, refused_best_effort, .. } = self.load;
        let rest = if submitted < due { " (the rest were over a period late)" } else { "" };
        let mut line = format!(
            "ran {:.1} s: {submitted} of {due} due jobs submitted{rest}, {refused} turned away{}, \
             {stopped} ended by stopping; {} events recorded, {} lost",
            self.ran.as_secs_f64(),
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
        let LoadSummary { due, submitted, refused, refused_best_effort, .. } = self.load;
        whole["run"] = serde_json::json!({
            "seconds": self.ran.as_secs_f64(),
            "jobs": { "due": due, "submitted": submitted, "turned_away": refused,
                "turned_away_best_effort": refused_best_effort },
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
        let untraced = recording.must_end(|warning| bar.suspend(|| eprintln!("{warning}")));
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
            let share = seen.response.max.as_nanos() as f64 / bound.as_nanos().max(1) as f64;
            format!("{share:.2}")
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

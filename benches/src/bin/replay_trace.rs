//! How long a trace of a million events takes to replay, explain and convert, and in how much memory.
//!
//! `replay_trace [EVENTS] [FOLDER]` lets a runtime on the simulated device run until it has logged about
//! so many events (1 000 000) to one file in the folder (that for temporary files), as `aegis run
//! --trace` does. Each question to the file is then asked in a process of its own, so that its peak of
//! memory is that of this question. A tenth of the events goes first: what both have in common is the
//! program, and the difference is what an event costs.
//!
//! # Invariants
//! 1. A trace that lost events, or whose replay parts from it, ends the program with an error.

use std::fs::{self, File};
use std::io::{BufReader, Error, Result, sink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aegis::replay::{CutTrace, TraceFile};
use aegis::{
    Bytes, ModelDescription, ModelHandle, ModelSource, Nanos, Overheads, PolicyKind, Record,
    Runtime, SimModel, Terms, TraceObserver, TracePump, TraceSink,
};
use aegis_trace::export::convert::convert;
use aegis_trace::export::format::TraceFormat;
use aegis_trace::export::json::Reader;

/// What is asked of a file; each in a process of its own.
const QUESTIONS: [&str; 4] = ["replay", "what-if", "explain", "convert"];
/// Stages of the models, and their periods.
const MODELS: [(&str, &[u64], u64); 4] = [
    ("camera", &[1_700], 10),
    ("detector", &[2_100, 1_300], 30),
    ("planner", &[3_100], 50),
    ("lidar", &[2_000, 1_000, 2_500], 100),
];

/// What one job of each model leaves in the log, less than which nothing is counted.
const EVENTS_OF_A_ROUND: u64 = 25;
/// How far the file may be behind the run, in events: a quarter of a ring.
const BEHIND_MAX: u64 = 1 << 15;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [question, path] = &arguments[..]
        && QUESTIONS.contains(&question.as_str())
    {
        return ask(question, Path::new(path));
    }
    let events = arguments.first().map_or(Ok(1_000_000), |text| text.parse());
    let events: u64 = events.map_err(Error::other)?;
    let folder = arguments.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    println!("| events | question | time | ns/event | peak memory | bytes/event |");
    println!("|---|---|---|---|---|---|");
    for events in [events / 10, events] {
        let path = folder.join(format!("aegis-replay-{}.jsonl", std::process::id()));
        let recorded = record(&path, events)?;
        for question in QUESTIONS {
            let program = std::env::current_exe()?;
            let asked =
                Command::new(program).args([question.as_ref(), path.as_os_str()]).output()?;
            if !asked.status.success() {
                return Err(Error::other(String::from_utf8_lossy(&asked.stderr).into_owned()));
            }
            row(recorded, question, &String::from_utf8_lossy(&asked.stdout))?;
        }
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Runs models on the simulated device until about so many events are logged. How many are.
fn record(path: &Path, events: u64) -> Result<u64> {
    let start = Instant::now();
    let builder = Runtime::builder().sim(Bytes::from_mib(64)).streams(1).policy(PolicyKind::Edf);
    let builder = builder.queue_depth(64).max_models(8).trace_capacity(1 << 17);
    let overheads = Overheads { wake: Nanos::from_millis(1), ..Overheads::NONE };
    let runtime = builder.overheads(overheads).build().map_err(Error::other)?;
    let sink = TraceSink::at(path).map_err(Error::other)?;
    let written = Arc::new(AtomicU64::new(0));
    let progress = Box::new(Progress { written: Arc::clone(&written) });
    let pump = TracePump::start_observed(runtime.collector(), &[sink], vec![progress]);
    let pump = pump.map_err(Error::other)?;
    let models: Result<Vec<ModelHandle>> = MODELS
        .iter()
        .map(|(name, stages, period)| admit(&runtime, name, stages, *period))
        .collect();
    let models = models?;
    runtime.start().map_err(Error::other)?;
    for round in 0..events / EVENTS_OF_A_ROUND {
        // Virtual time does not wait for the disk, and what a full ring drops cannot be replayed.
        while round * EVENTS_OF_A_ROUND > written.load(Ordering::Relaxed) + BEHIND_MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
        let jobs = models.iter().map(|model| model.submit(&[]).map_err(Error::other));
        for job in jobs.collect::<Result<Vec<_>>>()? {
            drop(job.wait().map_err(Error::other)?);
        }
    }
    runtime.stop().map_err(Error::other)?;
    let (summary, failures) = pump.finish();
    if summary.dropped > 0 || !failures.is_empty() {
        return Err(Error::other(format!("{} events lost, {failures:?}", summary.dropped)));
    }
    let (seconds, size) = (start.elapsed().as_secs_f64(), fs::metadata(path)?.len());
    println!(
        "| {} | recorded, {:.1} bytes an event | {seconds:.2} s | | | |",
        summary.records,
        size as f64 / summary.records as f64
    );
    Ok(summary.records)
}

/// Counts what the pump has taken.
struct Progress {
    written: Arc<AtomicU64>,
}

impl TraceObserver for Progress {
    fn observe(&mut self, _: &Record) {
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    fn emptied(&mut self, _: u64) {}
}

fn admit(runtime: &Runtime, name: &str, stages: &[u64], period: u64) -> Result<ModelHandle> {
    let costs: Vec<Nanos> = stages.iter().copied().map(Nanos::from_micros).collect();
    let stages = u16::try_from(costs.len()).map_err(Error::other)?;
    let description = ModelDescription { inputs: vec![], outputs: vec![], stages };
    let (persistent, scratch, carried) = (Bytes(4096), Bytes(4096), Bytes::ZERO);
    let model = SimModel { description, persistent, scratch, carried };
    let source = ModelSource::Sim { model, costs: costs.clone() };
    let loaded = runtime.load(name, &source).map_err(Error::other)?;
    let cost = costs.iter().copied().sum();
    let terms = Terms::periodic(cost, Nanos::from_millis(period), Bytes::from_mib(1));
    runtime.admit(loaded, &Terms { costs, slots: 4, ..terms }).map_err(Error::other)
}

/// Asks one question and prints how long it took and the peak of memory.
fn ask(question: &str, path: &Path) -> Result<()> {
    let start = Instant::now();
    if question == "convert" {
        let mut log = Reader::open(BufReader::new(File::open(path)?)).map_err(Error::other)?;
        convert(&mut log, TraceFormat::Perfetto, sink()).map_err(Error::other)?;
    } else {
        let trace = TraceFile::open(path, CutTrace::Refused).map_err(Error::other)?;
        if let Some(parted) = trace.divergence() {
            return Err(Error::other(format!("parts at line {}: {parted:?}", parted.line())));
        }
        match question {
            "explain" => drop(trace.worst("lidar").map_err(Error::other)?),
            "what-if" => drop(trace.what_if(PolicyKind::Fifo).map_err(Error::other)?),
            _ => {}
        }
    }
    println!("{} {}", start.elapsed().as_nanos(), peak_memory()?);
    Ok(())
}

fn row(events: u64, question: &str, answer: &str) -> Result<()> {
    let mut numbers = answer.split_whitespace().map(|number| number.parse::<u64>());
    let mut next = || numbers.next().unwrap_or(Ok(0)).map_err(Error::other);
    let (time, peak) = (next()?, next()?);
    println!(
        "| {events} | {question} | {:.2} s | {} | {} kB | {} |",
        time as f64 / 1e9,
        time / events,
        peak,
        peak * 1_024 / events
    );
    Ok(())
}

/// The most memory that this process has had at once, in kB, as the system counts it.
fn peak_memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = line.unwrap_or("0").trim().trim_end_matches(" kB");
    words.parse().map_err(Error::other)
}

//! How long ten million events take from a log to a picture, and in how much memory.
//!
//! `convert_trace [EVENTS] [FOLDER]` writes a log of so many events (10 000 000) to the folder (that
//! for temporary files), converts it to both pictures as `aegis trace convert` does, and prints times,
//! sizes and the peak of the process's memory. A hundredth of the events goes first: memory that does
//! not grow with the trace has the same peak after both.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Error, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aegis_benches::traffic;
use aegis_trace::export::convert::convert;
use aegis_trace::export::format::TraceFormat;
use aegis_trace::export::json::{Reader, Writer};

/// As the program has it.
const BUFFER: usize = 256 << 10;
/// How many records are written at once.
const BATCH: usize = 1_024;
/// Every figure is the fastest of so many: the others are the neighbours'.
const ROUNDS: usize = 3;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let events = arguments.next().map_or(Ok(10_000_000), |text| text.parse());
    let events: usize = events.map_err(Error::other)?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    println!("| events | step | time | ns/event | bytes/event | peak memory |");
    println!("|---|---|---|---|---|---|");
    for events in [events / 100, events] {
        let log = folder.join(format!("aegis-convert-{}.jsonl", std::process::id()));
        let start = Instant::now();
        write_log(&log, events)?;
        row(events, "write the log", start.elapsed(), &log)?;
        for (format, end) in [(TraceFormat::Perfetto, "pftrace"), (TraceFormat::Chrome, "json")] {
            let picture = log.with_extension(end);
            let times: Result<Vec<Duration>> =
                (0..ROUNDS).map(|_| make_picture(&log, &picture, format)).collect();
            let fastest = times?.into_iter().min().expect("some rounds");
            row(events, &format!("convert to .{end}"), fastest, &picture)?;
            fs::remove_file(picture)?;
        }
        fs::remove_file(log)?;
    }
    Ok(())
}

fn write_log(path: &Path, events: usize) -> Result<()> {
    let out = BufWriter::with_capacity(BUFFER, File::create(path)?);
    let mut writer = Writer::new(out).map_err(Error::other)?;
    let mut records = traffic::records().take(events);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        batch.extend(records.by_ref().take(BATCH));
        if batch.is_empty() {
            writer.finish(0).map_err(Error::other)?;
            return Ok(());
        }
        writer.write(&batch).map_err(Error::other)?;
        batch.clear();
    }
}

fn make_picture(log: &Path, picture: &Path, format: TraceFormat) -> Result<Duration> {
    let start = Instant::now();
    let input = BufReader::with_capacity(BUFFER, File::open(log)?);
    let output = BufWriter::with_capacity(BUFFER, File::create(picture)?);
    let mut log = Reader::open(input).map_err(Error::other)?;
    convert(&mut log, format, output).map_err(Error::other)?;
    Ok(start.elapsed())
}

fn row(events: usize, step: &str, time: Duration, file: &Path) -> Result<()> {
    let size = fs::metadata(file)?.len() as f64 / events as f64;
    let each = time.as_nanos() as f64 / events as f64;
    let (seconds, peak) = (time.as_secs_f64(), peak_memory()?);
    println!("| {events} | {step} | {seconds:.2} s | {each:.0} | {size:.1} | {peak} |");
    Ok(())
}

/// The most memory that this process has had at once, as the system counts it.
fn peak_memory() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.unwrap_or("unknown").trim().to_owned())
}

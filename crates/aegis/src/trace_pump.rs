//! A thread that empties the trace rings while the runtime runs.
//!
//! It hands what it takes to the files that are asked for, each with [a thread](crate::trace_output)
//! that writes it in its format, and keeps the findings: the records an engineer must see after a run,
//! whatever else was recorded.
//!
//! # Invariants
//! 1. The rings are emptied whatever happens to the files: neither recording nor whoever watches waits
//!    for a disk, or for the reader of a pipe.
//! 2. A file is flushed each time it got what was in the rings, so what is on disk is readable up to
//!    then, however the process ends.
//! 3. A file that failed once, or that is too far behind, is left alone, with what it holds; the others
//!    go on. Every failure is told once, by [`TracePump::failures`] or [`TracePump::finish`].
//! 4. The end waits for the files [`PATIENCE`] long at most.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aegis_trace::export::format::{TraceFormat, UnknownFormat};
use aegis_trace::{Record, TraceCollector, TraceEvent};

use crate::error::Error;
use crate::log;
use crate::observer::TraceObserver;
use crate::trace_output::Output;

/// How often the rings are emptied; they must hold what happens in between.
const INTERVAL: Duration = Duration::from_millis(50);
/// Findings kept; the others are counted.
const FINDINGS_MAX: usize = 1_000;
/// How long the end waits for what the files still have to take, all of them together.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A file that a trace is to be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSink {
    /// Where it is.
    pub path: PathBuf,
    /// How it is written.
    pub format: TraceFormat,
}

impl TraceSink {
    /// A file in the format that its name stands for.
    ///
    /// # Errors
    /// [`UnknownFormat`].
    pub fn at(path: impl Into<PathBuf>) -> Result<Self, UnknownFormat> {
        let path = path.into();
        Ok(Self { format: TraceFormat::of_path(&path)?, path })
    }
}

/// The running thread. Memory does not grow with the trace.
#[derive(Debug)]
pub struct TracePump {
    failed: Receiver<Error>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<TraceSummary>,
}

/// What went through the pump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceSummary {
    /// Records taken, and written if there is a file.
    pub records: u64,
    /// Events lost to full rings.
    pub dropped: u64,
    /// Broken assumptions, exceeded bounds, missed deadlines, dropped jobs, debts, faults, hangs,
    /// refused allocations, and the points at which guarantees held again, in order of time.
    pub findings: Vec<Record>,
    /// Findings beyond the first thousand, which are only counted.
    pub findings_omitted: u64,
}

impl TracePump {
    /// Begins to empty `collector` into `files`.
    ///
    /// # Errors
    /// [`Error::Trace`] when a file cannot be created, [`Error::SameTrace`] for two names of one,
    /// [`Error::Thread`].
    pub fn start(collector: &TraceCollector, files: &[TraceSink]) -> Result<Self, Error> {
        Self::start_observed(collector, files, Vec::new())
    }

    /// As [`TracePump::start`]; `observers` see every record on the pump's thread, in their order.
    ///
    /// # Errors
    /// As [`TracePump::start`].
    pub fn start_observed(
        collector: &TraceCollector,
        files: &[TraceSink],
        observers: Vec<Box<dyn TraceObserver>>,
    ) -> Result<Self, Error> {
        let outputs = files.iter().map(Output::create).collect::<Result<Vec<_>, _>>()?;
        Output::check_distinct(&outputs)?;
        let done = Arc::new(AtomicBool::new(false));
        let (until, collector) = (Arc::clone(&done), collector.clone());
        let (sender, failed) = channel();
        let work = move || pump(outputs, &collector, &until, &sender, observers);
        let thread = thread::Builder::new().name("aegis-trace".into()).spawn(work);
        Ok(Self { failed, done, thread: thread.map_err(Error::Thread)? })
    }

    /// What has become of files since this was asked last: each [`Error::Trace`] or
    /// [`Error::TraceBehind`] is one that is not written any more. Does not block.
    pub fn failures(&self) -> impl Iterator<Item = Error> + '_ {
        self.failed.try_iter()
    }

    /// Takes the rest and closes the files; call it after the runtime has stopped. Blocks for that, but
    /// no longer than [`PATIENCE`] for a file that nobody reads. The summary is whole even where
    /// files are not: then the errors say why, and the files hold what was written until then.
    ///
    /// # Panics
    /// When the thread did, which is a defect.
    #[must_use]
    pub fn finish(self) -> (TraceSummary, Vec<Error>) {
        self.done.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let summary = self.thread.join().expect("emptying a trace does not panic");
        (summary, self.failed.try_iter().collect())
    }
}

fn pump(
    mut outputs: Vec<Output>,
    collector: &TraceCollector,
    done: &AtomicBool,
    failed: &Sender<Error>,
    mut observers: Vec<Box<dyn TraceObserver>>,
) -> TraceSummary {
    let mut summary = TraceSummary::default();
    let tell = |error: Error| {
        log::error("the trace file ends early", &error);
        // Nobody may listen any more, which is no reason to stop.
        drop(failed.send(error));
    };
    loop {
        let last = done.load(Ordering::Acquire);
        let drained = Arc::new(collector.drain());
        outputs.retain(|output| output.hand_over(&drained).map_err(&tell).is_ok());
        show(&drained, collector.dropped(), &mut observers);
        summary.take(&drained);
        if last {
            summary.dropped = collector.dropped();
            close(outputs, summary.dropped, tell);
            return summary;
        }
        thread::park_timeout(INTERVAL);
    }
}

/// Ends all files, and waits for them together.
fn close(outputs: Vec<Output>, dropped: u64, tell: impl Fn(Error)) {
    outputs.iter().for_each(|output| output.end(dropped));
    let until = Instant::now() + PATIENCE;
    outputs.into_iter().filter_map(|output| output.closed(until).err()).for_each(tell);
}

/// Shows what was taken to everybody who watches.
fn show(drained: &[Record], dropped: u64, observers: &mut [Box<dyn TraceObserver>]) {
    for observer in observers {
        drained.iter().for_each(|record| observer.observe(record));
        observer.emptied(dropped);
    }
}

impl TraceSummary {
    fn take(&mut self, drained: &[Record]) {
        self.records += drained.len() as u64;
        for record in drained.iter().filter(|record| is_finding(&record.event)) {
            if self.findings.len() < FINDINGS_MAX {
                self.findings.push(record.clone());
            } else {
                self.findings_omitted += 1;
            }
        }
    }
}

fn is_finding(event: &TraceEvent) -> bool {
    matches!(
        event,
        TraceEvent::AssumptionBroken { .. }
            | TraceEvent::BoundExceeded { .. }
            | TraceEvent::DebtIncurred { .. }
            | TraceEvent::GuaranteesRestored { .. }
            | TraceEvent::MissedDeadline { .. }
            | TraceEvent::Faulted { .. }
            | TraceEvent::Fenced { .. }
            | TraceEvent::Hanging { .. }
            | TraceEvent::EvidenceStale { .. }
            | TraceEvent::AllocationRefused { .. }
            | TraceEvent::Dropped { .. }
    )
}

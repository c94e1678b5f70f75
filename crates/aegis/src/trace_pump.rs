//! A thread that empties the trace rings while the runtime runs.
//!
//! It writes what it takes to the files that are asked for, each in its format, and keeps the findings:
//! the records an engineer must see after a run, whatever else was recorded.
//!
//! # Invariants
//! 1. The rings are emptied whatever happens to the files: recording never waits for a disk.
//! 2. A file is flushed each time the rings have been emptied, so what is on disk is readable up to
//!    then, however the process ends.
//! 3. A file that failed once is left alone, with what it holds; the others go on. Every failure is
//!    told once, by [`TracePump::failures`] or [`TracePump::finish`].

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aegis_trace::export::format::{TraceFormat, TraceWriter, UnknownFormat};
use aegis_trace::{Record, TraceCollector, TraceError, TraceEvent};

use crate::error::Error;
use crate::log;
use crate::observer::TraceObserver;

/// How often the rings are emptied; they must hold what happens in between.
const INTERVAL: Duration = Duration::from_millis(50);
/// Findings kept; the others are counted.
const FINDINGS_MAX: usize = 1_000;
/// What is gathered of a file before it is written.
const BUFFER: usize = 64 << 10;

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
    /// [`Error::Trace`] when a file cannot be created, [`Error::Thread`].
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
        let done = Arc::new(AtomicBool::new(false));
        let (until, collector) = (Arc::clone(&done), collector.clone());
        let (sender, failed) = channel();
        let work = move || pump(outputs, &collector, &until, &sender, observers);
        let thread = thread::Builder::new().name("aegis-trace".into()).spawn(work);
        Ok(Self { failed, done, thread: thread.map_err(Error::Thread)? })
    }

    /// What has become of files since this was asked last: each [`Error::Trace`] is one that is not
    /// written any more. Does not block.
    pub fn failures(&self) -> impl Iterator<Item = Error> + '_ {
        self.failed.try_iter()
    }

    /// Takes the rest and closes the files; call it after the runtime has stopped. Blocks for that.
    /// The summary is whole even where files are not: then the errors say why, and the files hold
    /// what was written until then.
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

/// A file that is being written.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    writer: TraceWriter<BufWriter<File>>,
}

impl Output {
    fn create(file: &TraceSink) -> Result<Self, Error> {
        let path = file.path.clone();
        let open = || {
            let out = BufWriter::with_capacity(BUFFER, File::create(&path)?);
            let mut writer = TraceWriter::new(file.format, out)?;
            writer.flush()?; // A full disk is known before anything runs.
            Ok(writer)
        };
        match open() {
            Ok(writer) => Ok(Self { path, writer }),
            Err(cause) => Err(Error::Trace { path, cause }),
        }
    }

    fn write(&mut self, records: &[Record]) -> Result<(), TraceError> {
        if records.is_empty() {
            return Ok(());
        }
        self.writer.write(records)?;
        self.writer.flush()
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
    let tell = |path, cause| {
        let error = Error::Trace { path, cause };
        log::error("the trace file ends early", &error);
        // Nobody may listen any more, which is no reason to stop.
        drop(failed.send(error));
    };
    loop {
        let last = done.load(Ordering::Acquire);
        let drained = collector.drain();
        outputs.retain_mut(|output| match output.write(&drained) {
            Ok(()) => true,
            Err(cause) => {
                tell(output.path.clone(), cause);
                false
            }
        });
        show(&drained, collector.dropped(), &mut observers);
        summary.take(drained);
        if last {
            summary.dropped = collector.dropped();
            for Output { path, writer } in outputs {
                if let Err(cause) = writer.finish(summary.dropped) {
                    tell(path, cause);
                }
            }
            return summary;
        }
        thread::park_timeout(INTERVAL);
    }
}

/// Shows what was taken to everybody who watches.
fn show(drained: &[Record], dropped: u64, observers: &mut [Box<dyn TraceObserver>]) {
    for observer in observers {
        drained.iter().for_each(|record| observer.observe(record));
        observer.emptied(dropped);
    }
}

impl TraceSummary {
    fn take(&mut self, drained: Vec<Record>) {
        self.records += drained.len() as u64;
        for record in drained.into_iter().filter(|record| is_finding(&record.event)) {
            if self.findings.len() < FINDINGS_MAX {
                self.findings.push(record);
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

//! A thread that empties the trace rings while the runtime runs.
//!
//! It writes what it takes to a file, if one is asked for, and keeps the findings: the records an
//! engineer must see after a run, whatever else was recorded.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aegis_trace::export::json::Writer;
use aegis_trace::{Record, TraceCollector, TraceError, TraceEvent};

use crate::error::Error;
use crate::log;
use crate::observer::TraceObserver;

/// How often the rings are emptied; they must hold what happens in between.
const INTERVAL: Duration = Duration::from_millis(50);
/// Findings kept; the others are counted.
const FINDINGS_MAX: usize = 1_000;

/// The running thread. Memory does not grow with the trace.
#[derive(Debug)]
pub struct TracePump {
    path: Option<PathBuf>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<Pumped>,
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
    /// Begins to empty `collector`, into JSON Lines at `path` if there is one.
    ///
    /// # Errors
    /// [`Error::Trace`] when the file cannot be created, [`Error::Thread`].
    pub fn start(collector: &TraceCollector, path: Option<&Path>) -> Result<Self, Error> {
        Self::start_observed(collector, path, Vec::new())
    }

    /// As [`TracePump::start`]; `observers` see every record on the pump's thread, in their order.
    ///
    /// # Errors
    /// As [`TracePump::start`].
    pub fn start_observed(
        collector: &TraceCollector,
        path: Option<&Path>,
        observers: Vec<Box<dyn TraceObserver>>,
    ) -> Result<Self, Error> {
        let writer = path.map(create).transpose()?;
        let done = Arc::new(AtomicBool::new(false));
        let (until, collector) = (Arc::clone(&done), collector.clone());
        let work = move || pump(writer, &collector, &until, observers);
        let thread = thread::Builder::new().name("aegis-trace".into()).spawn(work);
        let path = path.map(Path::to_owned);
        Ok(Self { path, done, thread: thread.map_err(Error::Thread)? })
    }

    /// Takes the rest and closes the file; call it after the runtime has stopped. Blocks for that.
    /// The summary is whole even where the file is not: then the error says why, and the file holds
    /// what was written until then.
    ///
    /// # Panics
    /// When the thread did, which is a defect.
    #[must_use]
    pub fn finish(self) -> (TraceSummary, Option<Error>) {
        self.done.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let Pumped { summary, failure } =
            self.thread.join().expect("emptying a trace does not panic");
        let path = self.path.unwrap_or_default();
        (summary, failure.map(|cause| Error::Trace { path, cause }))
    }
}

type FileWriter = Writer<BufWriter<File>>;

fn create(path: &Path) -> Result<FileWriter, Error> {
    let failed = |cause| Error::Trace { path: path.to_owned(), cause };
    let file = File::create(path).map_err(|cause| failed(cause.into()))?;
    Writer::new(BufWriter::new(file)).map_err(failed)
}

/// What the thread ends with.
#[derive(Debug, Default)]
struct Pumped {
    summary: TraceSummary,
    /// Why the file is not whole.
    failure: Option<TraceError>,
}

fn pump(
    mut writer: Option<FileWriter>,
    collector: &TraceCollector,
    done: &AtomicBool,
    mut observers: Vec<Box<dyn TraceObserver>>,
) -> Pumped {
    let mut pumped = Pumped::default();
    loop {
        let last = done.load(Ordering::Acquire);
        let drained = collector.drain();
        // A file that failed once is left alone; the rings are emptied all the same.
        if let (Some(writer), None) = (&mut writer, &pumped.failure) {
            pumped.failure = writer.write(&drained).err();
            pumped.failure.iter().for_each(|cause| log::error("the trace file ends early", cause));
        }
        show(&drained, collector.dropped(), &mut observers);
        pumped.summary.take(drained);
        if last {
            pumped.summary.dropped = collector.dropped();
            if let (Some(writer), None) = (writer, &pumped.failure) {
                pumped.failure = writer.finish(pumped.summary.dropped).err();
            }
            return pumped;
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

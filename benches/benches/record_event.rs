//! What recording one event costs the thread that does it.

use std::cell::Cell;
use std::io::sink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aegis::live::LiveView;
use aegis::log::EventLog;
use aegis::metrics::{Exposure, MetricsServer, Serving};
use aegis::{TraceObserver, TracePump, TraceSink};
use aegis_benches::Sampling;
use aegis_trace::export::format::{TraceFormat, TraceWriter};
use aegis_trace::{
    Bytes, JobId, ModelId, Reason, StageIndex, StreamId, Timestamp, TraceCollector, TraceEvent,
};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};

/// Places of the ring, as the facade has it.
const CAPACITY: usize = 1 << 14;

/// Half of them: as much as is recorded while the other half may still be waiting to be taken.
const HALF: u64 = CAPACITY as u64 / 2;

/// As large as what the ring of a recorder holds.
type Plain = (u64, [u64; 8]);
const _: () = assert!(size_of::<Plain>() == size_of::<(Timestamp, TraceEvent)>());

fn record_event(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "record_event", Sampling::BATCHES);
    let (mut ring, mut reader) = rtrb::RingBuffer::<Plain>::new(CAPACITY);
    group.bench_function("baseline", |bencher| {
        let mut push = |n| assert!(ring.push((n, [n; 8])).is_ok(), "the ring was drained");
        let mut drain = || while reader.pop().is_ok() {};
        bencher.iter_custom(|events| in_rings(events, CAPACITY, &mut push, &mut drain));
    });
    let collector = TraceCollector::new(CAPACITY);
    let mut recorder = collector.recorder();
    group.bench_function("dispatched", |bencher| {
        let mut record = |n| recorder.record(Timestamp(n), dispatched(n));
        let mut drain = || drop(collector.drain());
        bencher.iter_custom(|events| in_rings(events, CAPACITY, &mut record, &mut drain));
    });
    assert_eq!(collector.dropped(), 0, "the ring was drained in time");
    while_exporting(&mut group);
    while_watched(&mut group);
    group.finish();
}

/// The same while another thread empties the ring into all three formats, without a pause.
fn while_exporting(group: &mut BenchmarkGroup<'_, WallTime>) {
    let collector = TraceCollector::new(CAPACITY);
    let mut recorder = collector.recorder();
    let (stop, exported) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| export(&collector, &stop, &exported));
        let recorded = Cell::new(0);
        group.bench_function("dispatched_while_exporting", |bencher| {
            let mut record = |n| {
                recorder.record(Timestamp(n), dispatched(n));
                recorded.set(recorded.get() + 1);
            };
            // Half a ring is left to be exported while the next half is recorded.
            let mut drain = || {
                while recorded.get() - exported.load(Ordering::Acquire) > CAPACITY as u64 / 2 {
                    std::thread::yield_now();
                }
            };
            bencher.iter_custom(|events| in_rings(events, CAPACITY / 2, &mut record, &mut drain));
        });
        stop.store(true, Ordering::Release);
    });
    assert_eq!(collector.dropped(), 0, "the exporter kept up");
}

fn export(collector: &TraceCollector, stop: &AtomicBool, exported: &AtomicU64) {
    let formats = [TraceFormat::JsonLines, TraceFormat::Perfetto, TraceFormat::Chrome];
    let mut writers = formats.map(|format| TraceWriter::new(format, sink()).expect("a sink"));
    while !stop.load(Ordering::Acquire) {
        let records = collector.drain();
        for writer in &mut writers {
            writer.write(&records).expect("a sink takes all");
        }
        exported.fetch_add(records.len() as u64, Ordering::Release);
    }
}

/// The same while the pump writes the file, counts, tells and shows what was recorded.
fn while_watched(group: &mut BenchmarkGroup<'_, WallTime>) {
    let exports = Exports::start();
    let mut recorder = exports.collector.recorder();
    group.bench_function("exports_on", |bencher| {
        let mut record = |n| recorder.record(Timestamp(n), dispatched(n));
        // Emptying takes its time, so a sample is half a ring, however few events are asked for.
        bencher.iter_custom(|events| {
            let timed = in_rings(HALF, CAPACITY, &mut record, || exports.wait_until_emptied());
            let nanos = timed.as_nanos() * u128::from(events) / u128::from(HALF);
            Duration::from_nanos(u64::try_from(nanos).expect("a sample is short"))
        });
    });
    exports.end();
}

/// All that can watch a run, on its own threads.
struct Exports {
    collector: TraceCollector,
    pump: TracePump,
    _metrics: Serving,
    taken: Arc<AtomicU64>,
    folder: tempfile::TempDir,
}

/// Counts the times that the pump has emptied the rings. The first observer, so that the others are
/// still at work when it has counted.
struct Taken(Arc<AtomicU64>);

impl TraceObserver for Taken {
    fn observe(&mut self, _: &aegis_trace::Record) {}
    fn emptied(&mut self, _: u64) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Exports {
    fn start() -> Self {
        let collector = TraceCollector::new(CAPACITY);
        let address = "127.0.0.1:0".parse().expect("an address");
        let server = MetricsServer::bind(address, Exposure::Loopback).expect("a free port");
        let (serving, metrics) = server.serve(Bytes::from_mib(1)).expect("a thread");
        let (_, live) = LiveView::new(Arc::new(aegis::ManualClock::new()));
        let taken = Arc::new(AtomicU64::new(0));
        let first = Taken(Arc::clone(&taken));
        let observers: Vec<Box<dyn TraceObserver>> =
            vec![Box::new(first), Box::new(EventLog::default()), Box::new(live), Box::new(metrics)];
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = TraceSink::at(folder.path().join("out.jsonl")).expect("its name says how");
        let pump = TracePump::start_observed(&collector, &[file], observers).expect("a file");
        Self { collector, pump, _metrics: serving, taken, folder }
    }

    /// Until the rings were emptied once more: what was recorded before the last call is taken.
    fn wait_until_emptied(&self) {
        let before = self.taken.load(Ordering::Acquire);
        while self.taken.load(Ordering::Acquire) == before {
            std::thread::yield_now();
        }
    }

    fn end(self) {
        assert_eq!(self.collector.dropped(), 0, "the ring was drained in time");
        let (_, failures) = self.pump.finish();
        assert!(failures.is_empty(), "{failures:?}");
        drop(self.folder);
    }
}

/// Times `event` for `events` calls, and lets `drain` empty the ring, untimed, after each `room` of
/// them.
fn in_rings(
    events: u64,
    room: usize,
    mut event: impl FnMut(u64),
    mut drain: impl FnMut(),
) -> Duration {
    let mut timed = Duration::ZERO;
    let mut next = 0;
    while next < events {
        let end = events.min(next + room as u64);
        let start = Instant::now();
        (next..end).for_each(&mut event);
        timed += start.elapsed();
        drain();
        next = end;
    }
    timed
}

/// The largest event of the hot path, made of numbers that nothing can fold.
fn dispatched(n: u64) -> TraceEvent {
    TraceEvent::Dispatched {
        job: JobId { model: ModelId::first(3), sequence: n },
        stage: StageIndex(0),
        stream: StreamId::first(0),
        waiting: 7,
        why: Reason::EarliestDeadline { chosen: Timestamp(n), next: Timestamp(n + 1) },
    }
}

criterion_group!(benches, record_event);
criterion_main!(benches);

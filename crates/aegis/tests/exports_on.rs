//! Recording allocates nothing while everything that leaves a run is on.
#![cfg(feature = "metrics")]
#![allow(unsafe_code)] // A counting allocator can only be written with it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aegis::live::LiveView;
use aegis::log::EventLog;
use aegis::metrics::{Exposure, MetricsServer};
use aegis::{
    Bytes, JobId, ModelId, Nanos, Record, Timestamp, TraceEvent, TraceObserver, TracePump,
    TraceSink,
};
use aegis_trace::{ManualClock, Reason, StageIndex, StreamId, TraceCollector};

/// Counts the allocations of each thread for itself.
struct Counting;

thread_local! {
    /// Made without allocating, and with nothing to drop.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY:
// 1. Every call goes to the system's allocator unchanged, which keeps the contract.
// 2. Counting allocates nothing: the counter of a thread is a constant until it is written.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY:
        // 1. The caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY:
        // 1. The caller keeps the contract of `dealloc`; `ptr` came from `System`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Events recorded without a pause, and places of the ring.
const BATCH: u64 = 1 << 15;
const BATCHES: u64 = 8;

/// A subscriber that takes every event, as a log file would.
struct Taken(Arc<AtomicU64>);

impl tracing::Subscriber for Taken {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// What happens to a job, in turn.
fn event(n: u64) -> TraceEvent {
    let job = JobId { model: ModelId::first(0), sequence: n / 4 };
    let (stage, stream) = (StageIndex(0), StreamId::first(0));
    match n % 4 {
        0 => TraceEvent::Submitted {
            job,
            arrival: Timestamp(n),
            release: Timestamp(n),
            deadline: Some(Timestamp(n + 9)),
        },
        1 => TraceEvent::Dispatched { job, stage, stream, waiting: 1, why: Reason::OnlyReady },
        2 => TraceEvent::StageCompleted {
            job,
            stage,
            started: Timestamp(n),
            finished: Timestamp(n + 3),
            upload: Nanos(1),
            download: Nanos(1),
            ahead: Nanos(1),
        },
        _ => TraceEvent::Completed { job, response: Nanos(9), execution: Nanos(1) },
    }
}

fn scrape(address: SocketAddr) -> String {
    let mut client = TcpStream::connect(address).expect("it listens");
    client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn recording_allocates_nothing_while_all_exports_are_on() {
    let logged = Arc::new(AtomicU64::new(0));
    let log = Taken(Arc::clone(&logged));
    tracing::subscriber::set_global_default(log).expect("the first of this process");
    let any = "127.0.0.1:0".parse().expect("an address");
    let server = MetricsServer::bind(any, Exposure::Loopback).expect("a free port");
    let (serving, mut metrics) = server.serve(Bytes::from_mib(1)).expect("a thread");
    let admitted: Record = serde_json::from_str(
        r#"{"at":0,"by":1,"event":"admitted","model":"m0","what":{"name":"camera",
        "service":"background","may_be_suspended":true,"compute":0,"streams":1,"slots":2,"stages":[1],"overhead":0,"bound":null,"persistent":0,"scratch":0}}"#,
    )
    .expect("a record of the trace");
    metrics.observe(&admitted);
    let (view, live) = LiveView::new(Arc::new(ManualClock::new()));
    let observers: Vec<Box<dyn TraceObserver>> =
        vec![Box::new(EventLog::default()), Box::new(live), Box::new(metrics)];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let collector = TraceCollector::new(usize::try_from(BATCH).expect("small"));
    let mut recorder = collector.recorder();
    let file = TraceSink::at(folder.path().join("out.jsonl")).expect("its name says how");
    let pump = TracePump::start_observed(&collector, &[file], observers).expect("a file");
    let (done, address) = (Arc::new(AtomicBool::new(false)), serving.address());
    let until = Arc::clone(&done);
    let scraper = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            scrape(address);
        }
    });

    let mut allocated = 0;
    for batch in 0..BATCHES {
        let before = ALLOCATIONS.get();
        for n in batch * BATCH..(batch + 1) * BATCH {
            recorder.record(Timestamp(n + 1), event(n));
        }
        allocated += ALLOCATIONS.get() - before;
        // The view says when the pump has come this far.
        while view.snapshot().now < Timestamp((batch + 1) * BATCH) {
            std::thread::yield_now();
        }
    }
    drop(recorder);
    let (summary, failures) = pump.finish();
    done.store(true, Ordering::Relaxed);
    scraper.join().expect("scraping does not fail");

    assert_eq!(allocated, 0, "by {} events", BATCH * BATCHES);
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!((summary.records, summary.dropped), (BATCH * BATCHES, 0));
    assert_eq!(logged.load(Ordering::Relaxed), BATCH * BATCHES, "each was logged");
    let jobs = format!("aegis_jobs_completed_total{{model=\"camera\"}} {}\n", BATCH * BATCHES / 4);
    assert!(scrape(address).contains(&jobs), "each was counted");
}

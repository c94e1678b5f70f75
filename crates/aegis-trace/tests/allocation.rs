//! Recording allocates nothing while every export is on.
#![allow(unsafe_code)] // A counting allocator can only be written with it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::sink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use aegis_trace::export::format::{TraceFormat, TraceWriter};
use aegis_trace::{
    JobId, ModelId, Nanos, Reason, Recorder, StageIndex, StreamId, Timestamp, TraceCollector,
    TraceEvent,
};

/// Counts the allocations of each thread by itself.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY:
// 1. Every call goes to the system's allocator unchanged, which keeps the contract.
// 2. Counting allocates nothing: the counter is initialised at compile time and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
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

/// Jobs that are recorded, four events each.
const JOBS: u64 = 50_000;
/// Places of the ring, as the facade has it.
const CAPACITY: usize = 1 << 14;

/// Empties the ring into all three formats until it is told to stop and the ring is empty.
fn export(collector: &TraceCollector, stop: &AtomicBool, taken: &AtomicU64) {
    let formats = [TraceFormat::JsonLines, TraceFormat::Perfetto, TraceFormat::Chrome];
    let mut writers =
        formats.map(|format| TraceWriter::new(format, sink()).expect("a sink takes all"));
    loop {
        let last = stop.load(Ordering::Acquire);
        let records = collector.drain();
        for writer in &mut writers {
            writer.write(&records).expect("a sink takes all");
            writer.flush().expect("a sink takes all");
        }
        taken.fetch_add(records.len() as u64, Ordering::Release);
        if last {
            return;
        }
    }
}

fn record_job(recorder: &mut Recorder, number: u64) {
    let job = JobId { model: ModelId::first(0), sequence: number };
    let at = Timestamp(number * 1_000);
    let (stage, stream) = (StageIndex(0), StreamId::first(0));
    let (arrival, release, deadline) = (at, at, Some(at + Nanos(900)));
    recorder.record(at, TraceEvent::Submitted { job, arrival, release, deadline });
    let why = Reason::OnlyReady;
    recorder.record(at, TraceEvent::Dispatched { job, stage, stream, waiting: 0, why });
    let (started, finished) = (at + Nanos(100), at + Nanos(500));
    let (upload, download, ahead) = (Nanos(30), Nanos(20), Nanos(10));
    let done =
        TraceEvent::StageCompleted { job, stage, started, finished, upload, download, ahead };
    recorder.record(finished, done);
    let (response, execution) = (finished - at, finished - started);
    recorder.record(finished, TraceEvent::Completed { job, response, execution });
}

#[test]
fn recording_allocates_nothing_while_every_export_is_on() {
    let collector = TraceCollector::new(CAPACITY);
    let mut recorder = collector.recorder();
    let (stop, taken) = (AtomicBool::new(false), AtomicU64::new(0));
    let allocated = thread::scope(|scope| {
        let exporter = scope.spawn(|| export(&collector, &stop, &taken));
        let before = ALLOCATIONS.with(Cell::get);
        assert!(before > 0, "the ring was allocated by this thread, so the counter counts");
        for number in 0..JOBS {
            // Paced, so that the exporter keeps up on any machine and nothing is lost.
            while number * 4 - taken.load(Ordering::Acquire) > CAPACITY as u64 / 2 {
                thread::yield_now();
            }
            record_job(&mut recorder, number);
        }
        let allocated = ALLOCATIONS.with(Cell::get) - before;
        stop.store(true, Ordering::Release);
        exporter.join().expect("exporting does not panic");
        allocated
    });
    assert_eq!(allocated, 0);
    assert_eq!((collector.dropped(), taken.into_inner()), (0, JOBS * 4));
}

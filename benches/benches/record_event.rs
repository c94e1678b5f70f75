//! What recording one event costs the thread that does it.

use std::time::{Duration, Instant};

use aegis_benches::Sampling;
use aegis_trace::{
    JobId, ModelId, Reason, StageIndex, StreamId, Timestamp, TraceCollector, TraceEvent,
};
use criterion::{Criterion, criterion_group, criterion_main};

/// Places of the ring, as the facade has it.
const CAPACITY: usize = 1 << 14;

/// As large as what the ring of a recorder holds.
type Plain = (u64, [u64; 8]);
const _: () = assert!(size_of::<Plain>() == size_of::<(Timestamp, TraceEvent)>());

fn record_event(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "record_event", Sampling::BATCHES);
    let (mut ring, mut reader) = rtrb::RingBuffer::<Plain>::new(CAPACITY);
    group.bench_function("baseline", |bencher| {
        let mut push = |n| assert!(ring.push((n, [n; 8])).is_ok(), "the ring was drained");
        let mut drain = || while reader.pop().is_ok() {};
        bencher.iter_custom(|events| in_rings(events, &mut push, &mut drain));
    });
    let collector = TraceCollector::new(CAPACITY);
    let mut recorder = collector.recorder();
    group.bench_function("dispatched", |bencher| {
        let mut record = |n| recorder.record(Timestamp(n), dispatched(n));
        let mut drain = || drop(collector.drain());
        bencher.iter_custom(|events| in_rings(events, &mut record, &mut drain));
    });
    assert_eq!(collector.dropped(), 0, "the ring was drained in time");
    group.finish();
}

/// Times `event` for `events` calls, and lets `drain` empty the ring, untimed, before it is full.
fn in_rings(events: u64, mut event: impl FnMut(u64), mut drain: impl FnMut()) -> Duration {
    let mut timed = Duration::ZERO;
    let mut next = 0;
    while next < events {
        let end = events.min(next + CAPACITY as u64);
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

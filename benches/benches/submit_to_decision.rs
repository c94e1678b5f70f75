//! How long a submission waits for its decision while the device is idle, across the threads.
//!
//! What is timed runs from before the slot is claimed to two points of the trace: the reading of
//! the clock that the decision is made with (`Dispatched`), and the first moment the device spent
//! on the job (`StageCompleted::started`). The second includes the decision whole, the launch and
//! the hand-over to the device, so the truth about the decision lies between the two.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aegis_benches::{Running, Sampling, Spin, Stack, StackConfig};
use aegis_context::JobOutcome;
use aegis_sched::submit::Submitter;
use aegis_trace::{Clock, MonotonicClock, Nanos, Record, Timestamp, TraceCollector, TraceEvent};
use criterion::{Criterion, criterion_group, criterion_main};

/// A job shorter than the round it takes, so that a next one is never held back by its period.
const CONFIG: StackConfig =
    StackConfig { cost: Nanos::from_micros(5), period: Nanos::from_micros(10) };
/// Far longer than the time between two jobs submitted back to back.
const POLLING: Nanos = Nanos::from_millis(100);
/// As `aegis run` has it.
const SPIN: Nanos = Nanos::from_micros(50);
/// Between two jobs that find everybody asleep: forty times the spin.
const PAUSE: Duration = Duration::from_millis(2);

/// Every sample costs a pause, so there are fewer.
const PAUSED: Sampling = Sampling { samples: 300, ..Sampling::SINGLE_CALLS };

fn submit_to_decision(criterion: &mut Criterion) {
    polling(criterion);
    asleep(criterion);
}

/// Back to back: the orchestrator polls throughout.
fn polling(criterion: &mut Criterion) {
    let name = "submit_to_decision";
    let mut group = aegis_benches::group(criterion, name, Sampling::SINGLE_CALLS);
    let peer = Peer::start(Waiting::Polls);
    group.bench_function("baseline", |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| peer.hand_over()).sum());
    });
    drop(peer);
    // One thread polls, the caller has a core of its own.
    let world = World::start(Spin { orchestrator: POLLING, worker: Nanos::ZERO });
    group.bench_function("orchestrator_polls", |bencher| {
        bencher.iter_custom(|jobs| (0..jobs).map(|_| world.run().decision).sum());
    });
    world.stop();
    // Two threads poll: on two cores the caller takes one of them its turn.
    let world = World::start(Spin { orchestrator: POLLING, worker: POLLING });
    group.bench_function("both_poll", |bencher| {
        bencher.iter_custom(|jobs| (0..jobs).map(|_| world.run().decision).sum());
    });
    group.bench_function("both_poll_to_device", |bencher| {
        bencher.iter_custom(|jobs| (0..jobs).map(|_| world.run().start).sum());
    });
    world.stop();
    group.finish();
}

/// After a pause: everybody sleeps, and the operating system has to wake them.
fn asleep(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "submit_to_decision_asleep", PAUSED);
    let peer = Peer::start(Waiting::Sleeps);
    group.bench_function("baseline", |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| peer.hand_over_after(PAUSE)).sum());
    });
    drop(peer);
    let world = World::start(Spin { orchestrator: SPIN, worker: SPIN });
    group.bench_function("decision", |bencher| {
        bencher.iter_custom(|jobs| (0..jobs).map(|_| world.run_after(PAUSE).decision).sum());
    });
    group.bench_function("to_device", |bencher| {
        bencher.iter_custom(|jobs| (0..jobs).map(|_| world.run_after(PAUSE).start).sum());
    });
    world.stop();
    group.finish();
}

/// Since the submission began.
struct Latency {
    /// To the decision.
    decision: Duration,
    /// To the first work of the device.
    start: Duration,
}

/// A running stack, seen by the only caller.
struct World {
    running: Running,
    submitter: Submitter,
    collector: TraceCollector,
}

impl World {
    fn start(spin: Spin) -> Self {
        let (running, submitter, collector) = Stack::running(CONFIG, spin);
        Self { running, submitter, collector }
    }

    fn run_after(&self, pause: Duration) -> Latency {
        thread::sleep(pause);
        self.run()
    }

    /// Runs one job to its end and asks the trace about it.
    fn run(&self) -> Latency {
        let submitted = self.running.clock.now();
        let mut filling = self.submitter.claim().expect("the only job under way has ended");
        filling.write(0, &[0; 64]);
        let pending = filling.submit(None).expect("the queue is empty");
        let outcome = pending.wait();
        assert!(matches!(outcome, JobOutcome::Completed { .. }), "{outcome:?}");
        drop(pending);
        let trace = self.collector.drain();
        Latency {
            decision: since(submitted, find(&trace, decided)),
            start: since(submitted, find(&trace, started)),
        }
    }

    fn stop(self) {
        self.running.stop();
    }
}

fn decided(record: &Record) -> Option<Timestamp> {
    matches!(record.event, TraceEvent::Dispatched { .. }).then_some(record.at)
}

fn started(record: &Record) -> Option<Timestamp> {
    match record.event {
        TraceEvent::StageCompleted { started, .. } => Some(started),
        _ => None,
    }
}

/// The one point in `trace` that `pick` picks: a drain after every job sees that job alone.
fn find(trace: &[Record], pick: fn(&Record) -> Option<Timestamp>) -> Timestamp {
    trace.iter().find_map(pick).expect("a job that has ended was decided and started")
}

/// A decision that was under way already took its time from before the submission: no wait.
fn since(submitted: Timestamp, at: Timestamp) -> Duration {
    Duration::from(at.saturating_since(submitted))
}

/// A thread that waits for a word to change and answers with the time it saw it.
struct Peer {
    shared: Arc<Shared>,
    clock: MonotonicClock,
    waiting: Waiting,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Polls,
    Sleeps,
}

#[derive(Default)]
struct Shared {
    /// Odd once the sender has rung, even once the peer has answered; [`STOP`] ends the peer.
    turn: AtomicU64,
    seen: AtomicU64,
}

const STOP: u64 = u64::MAX;

impl Peer {
    fn start(waiting: Waiting) -> Self {
        let (shared, clock) = (Arc::new(Shared::default()), MonotonicClock::start());
        let of_peer = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            loop {
                match of_peer.turn.load(Ordering::Acquire) {
                    STOP => return,
                    turn if turn % 2 == 1 => {
                        of_peer.seen.store(clock.now().0, Ordering::Relaxed);
                        of_peer.turn.store(turn + 1, Ordering::Release);
                    }
                    _ if waiting == Waiting::Sleeps => thread::park(),
                    _ => spin_loop(),
                }
            }
        });
        Self { shared, clock, waiting, thread: Some(thread) }
    }

    fn hand_over_after(&self, pause: Duration) -> Duration {
        thread::sleep(pause);
        self.hand_over()
    }

    /// One way, from before the ring to the reading of the clock that follows its being seen.
    fn hand_over(&self) -> Duration {
        let turn = self.shared.turn.load(Ordering::Relaxed);
        let rung = self.clock.now();
        self.ring(turn + 1);
        while self.shared.turn.load(Ordering::Acquire) != turn + 2 {
            spin_loop();
        }
        since(rung, Timestamp(self.shared.seen.load(Ordering::Relaxed)))
    }

    fn ring(&self, turn: u64) {
        self.shared.turn.store(turn, Ordering::Release);
        if let (Waiting::Sleeps, Some(thread)) = (self.waiting, &self.thread) {
            thread.thread().unpark();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.ring(STOP);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the peer does not panic");
        }
    }
}

criterion_group!(benches, submit_to_decision);
criterion_main!(benches);

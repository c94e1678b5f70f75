//! What the dispatcher itself costs, from submission to decision, without a thread in between.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis_benches::{Sampling, Stack, StackConfig};
use aegis_context::slot::JobSlot;
use aegis_context::{JobOutcome, ModelDescription};
use aegis_sched::queue::Submission;
use aegis_sched::submit::Pending;
use aegis_trace::{ModelId, Nanos, Timestamp};
use criterion::{Criterion, criterion_group, criterion_main};
use crossbeam_queue::ArrayQueue;

/// Jobs between two drains of the trace: five events each fit its ring.
const JOBS_PER_DRAIN: u64 = 1 << 10;

const CONFIG: StackConfig =
    StackConfig { cost: Nanos::from_micros(5), period: Nanos::from_micros(10) };

fn dispatch_turn(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "dispatch_turn", Sampling::BATCHES);
    group.bench_function("baseline", |bencher| {
        let queue = ArrayQueue::new(64);
        let description = ModelDescription { inputs: vec![], outputs: vec![], stages: 1 };
        let slot = Arc::new(JobSlot::new(&description));
        bencher.iter(|| {
            let model = ModelId::first(0);
            let stamp = Timestamp::ZERO;
            let submission = Submission { model, slot: Arc::clone(&slot), stamp, release: None };
            assert!(queue.push(black_box(submission)).is_ok(), "it holds one at a time");
            queue.pop()
        });
    });
    group.bench_function("submit_and_decide", |bencher| {
        let mut world = World::new();
        bencher.iter_custom(|jobs| (0..jobs).map(|_| world.run().decision).sum());
    });
    group.bench_function("complete", |bencher| {
        let mut world = World::new();
        bencher.iter_custom(|jobs| (0..jobs).map(|_| world.run().completion).sum());
    });
    group.finish();
}

/// The two turns of one job.
struct Turns {
    /// From claiming a slot to the turn's end, in which the job was launched.
    decision: Duration,
    /// The turn in which the job's end was noticed and booked.
    completion: Duration,
}

struct World {
    stack: Stack,
    jobs: u64,
}

impl World {
    fn new() -> Self {
        Self { stack: Stack::simulated(CONFIG), jobs: 0 }
    }

    /// Runs one job on the idle device. The readings of the clock are in what is timed.
    fn run(&mut self) -> Turns {
        let stack = &mut self.stack;
        let device = stack.device.simulator().expect("a simulated device").clone();
        let clock = stack.device.clock();
        let now = clock.now();
        let start = Instant::now();
        let pending = submit(stack);
        let observed = stack.dispatcher.observe();
        let turn = stack.dispatcher.step(observed, now, &stack.submissions);
        let decision = start.elapsed();
        assert!(turn.busy, "the only job of an idle system is launched at once");
        device.advance_to(now.saturating_add(CONFIG.period));
        let now = clock.now();
        let start = Instant::now();
        let observed = stack.dispatcher.observe();
        let turn = stack.dispatcher.step(observed, now, &stack.submissions);
        let completion = start.elapsed();
        let outcome = pending.wait();
        assert!(matches!(outcome, JobOutcome::Completed { .. }) && !turn.busy, "{outcome:?}");
        self.jobs += 1;
        if self.jobs.is_multiple_of(JOBS_PER_DRAIN) {
            drop(stack.collector.drain());
        }
        Turns { decision, completion }
    }
}

fn submit(stack: &Stack) -> Pending {
    let mut filling = stack.submitter.claim().expect("a slot is free");
    filling.write(0, black_box(&[0; 64]));
    filling.submit(None).expect("the queue is empty")
}

criterion_group!(benches, dispatch_turn);
criterion_main!(benches);

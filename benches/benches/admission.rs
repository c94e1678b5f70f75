//! What one analysis costs: the time a model waits for its answer.

use std::hint::black_box;

use aegis_benches::Sampling;
use aegis_sched::analysis::analyse;
use aegis_sched::policy::PolicyKind;
use aegis_sched::sim::{Random, Seed};
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Tasks of a set.
const SIZES: [u16; 2] = [24, 100];
/// Periods in milliseconds, as in the workload of 24 models.
const PERIODS: [u64; 7] = [20, 50, 100, 200, 250, 500, 1_000];
/// The sum of all `C/T`, in thousandths, before overheads.
const LOAD: u64 = 500;
/// The longest stage; what is longer is cut.
const STAGE_MAX: Nanos = Nanos::from_millis(4);
/// Under FIFO every job waits for all others, so no short deadline is kept: all get this one.
const FIFO_DEADLINE: Nanos = Nanos::from_secs(1);

const OVERHEADS: Overheads =
    Overheads { dispatch: Nanos::from_micros(50), wake: Nanos::from_millis(1), ..Overheads::NONE };

fn admission(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "admission", Sampling::BATCHES);
    for size in SIZES {
        let set = set(size, None);
        group.bench_function(BenchmarkId::new("baseline", size), |bencher| {
            bencher.iter(|| black_box(&set).utilisation_ppm());
        });
        for kind in [PolicyKind::Rms, PolicyKind::Priority, PolicyKind::Edf] {
            measure(&mut group, kind, &set);
        }
        measure(&mut group, PolicyKind::Fifo, &self::set(size, Some(FIFO_DEADLINE)));
    }
    group.finish();
}

fn measure(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    kind: PolicyKind,
    set: &TaskSet,
) {
    // A refusal may come early; what is timed is a whole proof.
    analyse(set, kind, &OVERHEADS).expect("the set is schedulable");
    group.bench_function(BenchmarkId::new(kind.to_string(), set.len()), |bencher| {
        bencher.iter(|| analyse(black_box(set), kind, &OVERHEADS));
    });
}

/// `size` tasks that share the load evenly, with periods from [`PERIODS`].
fn set(size: u16, deadline: Option<Nanos>) -> TaskSet {
    let mut random = Random::new(Seed(24));
    let tasks = (0..size).map(|index| {
        let period = PERIODS[usize::from(index) % PERIODS.len()];
        let cost = Nanos::from_millis(period).0 * LOAD / 1_000 / u64::from(size);
        // Up to a tenth less, so that not all tasks of one period are alike.
        let mut left = Nanos(cost - random.up_to(cost / 10));
        let mut stages = Vec::new();
        while left > Nanos::ZERO {
            let stage = left.min(STAGE_MAX);
            stages.push(stage);
            left -= stage;
        }
        let period = Nanos::from_millis(period);
        let spec = TaskSpec {
            model: ModelId::first(index),
            period,
            deadline: deadline.unwrap_or(period),
            jitter: Nanos::ZERO,
            priority: u32::from(index) % 7,
            stages,
        };
        Task::new(spec).expect("whole milliseconds and small costs")
    });
    TaskSet::new(tasks.collect()).expect("every model once")
}

criterion_group!(benches, admission);
criterion_main!(benches);

//! What a decision among a thousand ready jobs costs, under each policy.

use std::hint::black_box;
use std::sync::Arc;

use aegis_benches::Sampling;
use aegis_context::ModelDescription;
use aegis_context::slot::JobSlot;
use aegis_sched::policy::{PolicyKind, ReadyJob, SchedulingPolicy, policy_of};
use aegis_sched::queue::{Class, Ready, ReadyQueue};
use aegis_sched::sim::{Random, Seed};
use aegis_trace::{JobId, ModelId, Nanos, Reason, Timestamp};
use criterion::{Criterion, criterion_group, criterion_main};

/// Jobs that are ready throughout.
const READY: u16 = 1_000;
/// Models the jobs belong to.
const MODELS: usize = 4_096;
/// Time between two releases.
const STEP: Nanos = Nanos::from_micros(100);

const POLICIES: [PolicyKind; 4] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Edf, PolicyKind::Priority];

fn policy_decision(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "policy_decision", Sampling::BATCHES);
    group.bench_function("baseline", |bencher| {
        let mut releases = Releases::new();
        let mut ready: Vec<ReadyJob> = (0..READY).map(|_| releases.next()).collect();
        bencher.iter(|| {
            ready.push(releases.next());
            scan(&mut ready)
        });
    });
    for kind in POLICIES {
        let policy = black_box(policy_of(kind));
        group.bench_function(kind.to_string(), |bencher| {
            let mut releases = Releases::new();
            let mut queue = ReadyQueue::new(usize::from(READY) + 1);
            let slot = Arc::new(JobSlot::new(&ModelDescription {
                inputs: vec![],
                outputs: vec![],
                stages: 1,
            }));
            for _ in 0..READY {
                queue.push(&*policy, ready(releases.next(), Arc::clone(&slot)));
            }
            // A queued job owns a handle of its slot; here the one that leaves hands it on.
            let mut slot = Some(slot);
            bencher.iter(|| {
                let of = slot.take().expect("the job that left handed it on");
                queue.push(&*policy, ready(releases.next(), of));
                let (chosen, why) = decide(&*policy, &mut queue);
                slot = Some(chosen.slot);
                (chosen.job, why)
            });
        });
    }
    group.finish();
}

/// The decision with its reason, as the dispatcher makes it.
fn decide(policy: &dyn SchedulingPolicy, queue: &mut ReadyQueue) -> (Ready, Reason) {
    let chosen = queue.pop().expect("a thousand jobs are ready");
    let why = match queue.first() {
        Some((_, next)) => policy.reason(&chosen.job, next),
        None => Reason::OnlyReady,
    };
    (chosen, why)
}

/// The same choice under EDF by looking at every job, without the reason (a second look).
fn scan(ready: &mut Vec<ReadyJob>) -> ReadyJob {
    let key = |index: &usize| (ready[*index].deadline, ready[*index].release, ready[*index].id);
    let first = (0..ready.len()).min_by_key(key).expect("a thousand jobs are ready");
    ready.swap_remove(first)
}

fn ready(job: ReadyJob, slot: Arc<JobSlot>) -> Ready {
    Ready::new(job, Class::Guaranteed, slot, job.release)
}

/// Endless releases of models with random periods and priorities.
struct Releases {
    models: Vec<ReadyJob>,
    count: usize,
}

impl Releases {
    fn new() -> Self {
        let mut random = Random::new(Seed(42));
        let mut model = |index: usize| {
            let period = Nanos::from_micros(random.between(10_000, 1_000_000));
            ReadyJob {
                id: JobId {
                    model: ModelId::first(u16::try_from(index).unwrap_or(u16::MAX)),
                    sequence: 0,
                },
                release: Timestamp::ZERO,
                deadline: Timestamp::ZERO,
                period,
                priority: u32::try_from(random.up_to(255)).unwrap_or(u32::MAX),
            }
        };
        Self { models: (0..MODELS).map(&mut model).collect(), count: 0 }
    }

    /// The next release: [`STEP`] after the one before, of the next model.
    fn next(&mut self) -> ReadyJob {
        let mut job = self.models[self.count % MODELS];
        job.release = Timestamp(self.count as u64 * STEP.0);
        job.deadline = job.release.saturating_add(job.period);
        job.id.sequence = (self.count / MODELS) as u64;
        self.count += 1;
        job
    }
}

criterion_group!(benches, policy_decision);
criterion_main!(benches);

//! What a memory plan costs: the time admission, and `aegis plan`, wait for one.
//!
//! The problems are made here, so that they are the same everywhere. Challenges and networks of
//! others, where they lie beside the repository, are measured as well, and said to be missing
//! otherwise.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aegis_benches::Sampling;
use aegis_memory::place::{Buffer, Limits, Problem, solve, stacked};
use aegis_memory::{Lifespan, ModelMemory, PlanRequest, TensorClass, TensorLifetime};
use aegis_sched::sim::{Random, Seed};
use aegis_trace::{Bytes, ModelId, PartitionId, TensorId};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};

/// Few samples of one call each: plans take milliseconds, the largest a good part of a second.
const PLANS: Sampling =
    Sampling { samples: 10, warm_up: Duration::from_millis(50), time: Duration::from_nanos(1) };

/// Models planned together.
const MODELS: u16 = 24;
/// Where data of others lies.
const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");

/// Problems of rising size, by heuristics alone; the baseline finds where most is live.
fn heuristics(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "memory_plan_heuristics", PLANS);
    for buffers in [1_000, 100_000] {
        let problem = random(buffers);
        let limits = Limits { nodes: 0, ..Limits::minimise(0) };
        group.bench_function(BenchmarkId::new("baseline", buffers), |bencher| {
            bencher.iter(|| black_box(&problem).busiest());
        });
        group.bench_function(BenchmarkId::new("solve", buffers), |bencher| {
            bencher.iter(|| solve(black_box(&problem), &limits));
        });
    }
    group.finish();
}

/// Challenges within their capacity; the baseline is heuristics alone, which miss it.
fn challenges(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "memory_plan_challenge", PLANS);
    for path in files("minimalloc") {
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        let Some(capacity) = name.split('.').nth(1).and_then(|text| text.parse().ok()) else {
            continue;
        };
        let problem = read(&path);
        let limits = Limits::fit(Bytes(capacity), problem.buffers().len());
        measure(&mut group, &name, &problem, &limits);
    }
    group.finish();
}

/// Single networks to the proof that no plan is better; the baseline is heuristics alone.
fn networks(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "memory_plan_network", PLANS);
    for path in files("models").iter().filter(|path| path.to_string_lossy().contains("fp32")) {
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        let problem = read(path);
        measure(&mut group, &name, &problem, &Limits::minimise(problem.buffers().len()));
    }
    group.finish();
}

fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    problem: &Problem,
    limits: &Limits<'_>,
) {
    let alone = Limits { nodes: 0, ..*limits };
    group.bench_function(BenchmarkId::new("baseline", name), |bencher| {
        bencher.iter(|| solve(black_box(problem), &alone));
    });
    group.bench_function(BenchmarkId::new("solve", name), |bencher| {
        bencher.iter(|| solve(black_box(problem), limits));
    });
}

/// 24 models at once, as admission plans and checks them; the baseline checks the plan alone.
fn admission(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "memory_plan_admission", PLANS);
    let networks = files("models");
    let networks: Vec<_> = networks
        .iter()
        .filter(|path| path.to_string_lossy().contains("fused.fp32"))
        .map(|path| read(path))
        .collect();
    let networks = if networks.is_empty() { vec![random(250)] } else { networks };
    let request = PlanRequest {
        capacity: Bytes::from_gib(8),
        models: (0..MODELS)
            .map(|model| scratch_of(model, &networks[usize::from(model) % networks.len()]))
            .collect(),
        fixed: Vec::new(),
    };
    let draft = stacked(&request).expect("it fits");
    group.bench_function("baseline", |bencher| {
        bencher.iter(|| draft.clone().check(black_box(&request)));
    });
    group.bench_function("plan_and_check", |bencher| {
        bencher.iter(|| stacked(black_box(&request)).map(|draft| draft.check(&request)));
    });
    group.finish();
}

fn scratch_of(model: u16, problem: &Problem) -> ModelMemory {
    let step = |time: i64| u32::try_from(time).expect("a step");
    let tensor = |(index, buffer): (u16, &Buffer)| TensorLifetime {
        tensor: TensorId::first(index),
        class: TensorClass::Scratch,
        span: Lifespan::new(step(buffer.lower), step(buffer.upper)).expect("not empty"),
        size: Bytes(buffer.size),
        alignment: 256,
    };
    let tensors = (0..).zip(problem.buffers()).map(tensor).collect();
    ModelMemory { model: ModelId::first(model), partition: PartitionId::WHOLE, tensors }
}

/// Buffers that begin anywhere and live for up to three times as long as there are buffers in a
/// thousand steps.
fn random(buffers: u64) -> Problem {
    let mut random = Random::new(Seed(4));
    let mut below = |bound: u64| random.up_to(bound - 1);
    let one = |_| {
        let lower = i64::try_from(below(buffers * 10)).expect("small");
        let length = i64::try_from(1 + below(3_000)).expect("small");
        let size = 256 * (1 + below(4_096));
        Buffer { lower, upper: lower + length, size, alignment: 256 }
    };
    Problem::new((0..buffers).map(one).collect()).expect("valid")
}

/// The CSV files of a folder of shared data, in order of name; none where there is no such folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let path = Path::new(SHARED).join(folder);
    let Ok(entries) = fs::read_dir(&path) else {
        eprintln!("SKIPPED: there is no {}", path.display());
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
    files.sort();
    files
}

fn read(path: &Path) -> Problem {
    let text = fs::read_to_string(path).expect("readable");
    let row = |line: &str| {
        let fields: Vec<_> = line.split(',').collect();
        let number = |at: usize| fields[at].trim().parse::<i64>().expect("a number");
        let (lower, upper) = (number(1), number(2));
        let size = u64::try_from(number(3)).expect("a size");
        Buffer { lower, upper, size, alignment: 1 }
    };
    Problem::new(text.lines().skip(1).map(row).collect()).expect("valid")
}

criterion_group!(benches, heuristics, challenges, networks, admission);
criterion_main!(benches);

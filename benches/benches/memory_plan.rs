//! What a memory plan costs: the time admission, and `aegis plan`, wait for one.
//!
//! First a table of what is planned and how well, then the timings.
//!
//! The problems are made here, so that they are the same everywhere. Challenges and networks of
//! others, where they lie beside the repository, are measured as well, and said to be missing
//! otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aegis_benches::Sampling;
use aegis_memory::place::{
    BoundReason, Buffer, Limits, Problem, Solution, Verdict, solve, stacked,
};
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

/// What is planned, how well, how that is known, and how long it took.
fn table(_: &mut Criterion) {
    println!("| instance | buffers | capacity | lower bound | peak | time ms | nodes | proved |");
    println!("|---|---|---|---|---|---|---|---|");
    for folder in ["minimalloc", "models"] {
        for path in files(folder) {
            let problem = read(&path);
            let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
            // Challenges are named after their capacity; to meet it is all they ask for.
            let capacity = name.split('.').nth(1).and_then(|text| text.parse().ok()).map(Bytes);
            let limits = match capacity {
                Some(capacity) => Limits::fit(capacity, problem.buffers().len()),
                None => Limits::minimise(problem.buffers().len()),
            };
            let (solution, time) = median_of_five(|| solve(&problem, &limits));
            let limit = capacity.map_or_else(|| "-".into(), |capacity| capacity.0.to_string());
            row(&name, &problem, &limit, &solution, time);
        }
    }
    small();
    shared_plan();
}

fn row(name: &str, problem: &Problem, capacity: &str, solution: &Solution, time: Duration) {
    let proof = match (solution.verdict, &solution.bound_by) {
        (Verdict::Optimal, BoundReason::Witness) => "optimal: live size",
        (Verdict::Optimal, BoundReason::Exhausted) => "optimal: complete search",
        (Verdict::Infeasible, BoundReason::Witness) => "infeasible: live size",
        (Verdict::Infeasible, BoundReason::Exhausted) => "infeasible: complete search",
        (Verdict::WithinCapacity, _) => "within capacity",
        (Verdict::Gap, _) => "gap",
        (Verdict::LimitReached, _) => "NOT FOUND",
    };
    let (count, bound, peak) = (problem.buffers().len(), solution.bound.0, solution.peak().0);
    let (ms, nodes) = (millis(time), solution.nodes);
    println!("| {name} | {count} | {capacity} | {bound} | {peak} | {ms} | {nodes} | {proof} |");
}

/// Every small problem with a known optimum: to reach it, and to prove that one less will not do.
fn small() {
    let folder = Path::new(SHARED).join("small");
    let (Ok(instances), Ok(optima)) = (
        fs::read_to_string(folder.join("instances.csv")),
        fs::read_to_string(folder.join("optimum.csv")),
    ) else {
        eprintln!("SKIPPED: there is no {}", folder.display());
        return;
    };
    let mut problems: BTreeMap<&str, Vec<Buffer>> = BTreeMap::new();
    for line in instances.lines().skip(1) {
        let fields: Vec<_> = line.split(',').collect();
        let number = |at: usize| fields[at].trim().parse::<i64>().expect("a number");
        let amount = |at: usize| u64::try_from(number(at)).expect("not negative");
        let (size, alignment) = (amount(4), amount(5));
        let buffer = Buffer { lower: number(2), upper: number(3), size, alignment };
        problems.entry(fields[0]).or_default().push(buffer);
    }
    let (mut count, mut reached, mut proved, mut refuted) = (0, 0, 0, 0);
    let (mut times, mut refutations) = (Vec::new(), Vec::new());
    for line in optima.lines().skip(1) {
        let fields: Vec<_> = line.split(',').collect();
        let optimum: u64 = fields[3].trim().parse().expect("a number");
        let problem = Problem::new(problems[fields[0]].clone()).expect("valid");
        let n = problem.buffers().len();
        let (solution, time) = timed(|| solve(&problem, &Limits::minimise(n)));
        let (less, time_less) = timed(|| solve(&problem, &Limits::fit(Bytes(optimum - 1), n)));
        count += 1;
        reached += u32::from(solution.peak() == Bytes(optimum));
        proved += u32::from(solution.verdict == Verdict::Optimal);
        refuted += u32::from(less.verdict == Verdict::Infeasible);
        times.push(time);
        refutations.push(time_less);
    }
    let span = |times: &[Duration]| {
        let (sum, most) = (times.iter().sum(), times.iter().max().copied().unwrap_or_default());
        format!("{} ms in all, {} ms at most", millis(sum), millis(most))
    };
    println!(
        "\nsmall: {reached} of {count} reach the optimum, {proved} prove it: {}",
        span(&times)
    );
    println!("small: {refuted} of {count} prove that one less will not do: {}", span(&refutations));
    assert_eq!((reached, proved, refuted), (count, count, count), "an answer is missing");
}

/// The models of [`admission`]: what they take apart, each with the least peak there is, and together.
fn shared_plan() {
    let Some(request) = together() else { return };
    let alone = |memory: &ModelMemory| {
        let of_one = PlanRequest { models: vec![memory.clone()], ..request.clone() };
        let plan = stacked(&of_one).expect("it fits").check(&of_one).expect("sound");
        plan.usage().total().0
    };
    let unshared: u64 =
        request.models.iter().flat_map(|model| &model.tensors).map(|tensor| tensor.size.0).sum();
    let apart: u64 = request.models.iter().map(alone).sum();
    let bound = request.models.iter().map(alone).max().unwrap_or(0);
    let (plan, time) =
        median_of_five(|| stacked(&request).expect("it fits").check(&request).expect("sound"));
    let peak = plan.usage().total().0;
    println!("\n{MODELS} models, scratch in bytes, planned and checked in {} ms:", millis(time));
    println!("  every tensor for itself       {unshared}");
    println!("  each runtime alone, at best   {apart}");
    println!("  one shared plan               {peak} (largest model alone: {bound})");
    let saving = u128::from(apart - peak) * 1_000 / u128::from(apart.max(1)); // Rounded down.
    println!(
        "  saved                         {} ({}.{} %)\n",
        apart - peak,
        saving / 10,
        saving % 10
    );
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = black_box(work());
    (result, start.elapsed())
}

fn median_of_five<T>(work: impl Fn() -> T) -> (T, Duration) {
    let mut runs: Vec<_> = (0..5).map(|_| timed(&work)).collect();
    runs.sort_by_key(|(_, time)| *time);
    runs.swap_remove(2)
}

/// Milliseconds, rounded up to a thousandth.
fn millis(time: Duration) -> String {
    let micros = time.as_nanos().div_ceil(1_000);
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

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
    let request = together().unwrap_or_else(|| of_networks(&[random(250)]));
    let draft = stacked(&request).expect("it fits");
    group.bench_function("baseline", |bencher| {
        bencher.iter(|| draft.clone().check(black_box(&request)));
    });
    group.bench_function("plan_and_check", |bencher| {
        bencher.iter(|| stacked(black_box(&request)).map(|draft| draft.check(&request)));
    });
    group.finish();
}

/// The models that are planned together; `None` where there is no data of networks.
fn together() -> Option<PlanRequest> {
    let files = files("models");
    let fused = files.iter().filter(|path| path.to_string_lossy().contains("fused.fp32"));
    let networks: Vec<_> = fused.map(|path| read(path)).collect();
    (!networks.is_empty()).then(|| of_networks(&networks))
}

fn of_networks(networks: &[Problem]) -> PlanRequest {
    let model = |model| scratch_of(model, &networks[usize::from(model) % networks.len()]);
    PlanRequest {
        capacity: Bytes::from_gib(8),
        models: (0..MODELS).map(model).collect(),
        fixed: Vec::new(),
    }
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

criterion_group!(benches, table, heuristics, challenges, networks, admission);
criterion_main!(benches);

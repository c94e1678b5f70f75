//! What estimating a bound costs, and what one job costs the monitor.

use aegis_benches::Sampling;
use aegis_sched::sim::{Random, Seed};
use aegis_sched::wcet::experiment::Family;
use aegis_sched::wcet::{Campaign, Estimate, Question, Share, StageMonitor, order};
use aegis_trace::Nanos;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// The size of campaign that the limits of time are stated for.
const SAMPLES: usize = 100_000;
/// Sampling of what takes milliseconds.
const SLOW: Sampling = Sampling {
    samples: 20,
    warm_up: std::time::Duration::from_millis(300),
    time: std::time::Duration::from_secs(5),
};

fn wcet_estimate(criterion: &mut Criterion) {
    let times = Family::Lognormal(0.1).draw(SAMPLES, &mut Random::new(Seed(1))).times().to_vec();
    let coverage: Share = "0.999".parse().expect("a share");
    let mut group = aegis_benches::group(criterion, "wcet_estimate", SLOW);
    group.bench_function("baseline", |bencher| {
        let sort = |mut times: Vec<Nanos>| {
            times.sort_unstable();
            times
        };
        bencher.iter_batched(|| times.clone(), sort, BatchSize::LargeInput);
    });
    group.bench_function("order_statistic", |bencher| {
        let bound = |times| {
            let campaign = Campaign::new(times).expect("valid times");
            let rank = order::tolerance_rank(campaign.count(), coverage, Share::P99);
            campaign.order_statistic(rank.expect("enough samples"))
        };
        bencher.iter_batched(|| times.clone(), bound, BatchSize::LargeInput);
    });
    group.bench_function("auto_report", |bencher| {
        let report = |times| {
            let campaign = Campaign::new(times).expect("valid times");
            Estimate::of(&campaign, &Question::auto(coverage, Share::P99))
        };
        bencher.iter_batched(|| times.clone(), report, BatchSize::LargeInput);
    });
    group.finish();
}

/// One job's time, on a process that stays as it was measured: the path of every job but one.
fn wcet_monitor(criterion: &mut Criterion) {
    let mut random = Random::new(Seed(1));
    let campaign = Family::Normal.draw(1_000, &mut random);
    let later = Family::Normal.draw(4_096, &mut random);
    let mut group = aegis_benches::group(criterion, "wcet_monitor", Sampling::BATCHES);
    let mut times = later.times().iter().cycle();
    group.bench_function("baseline", |bencher| bencher.iter(|| *times.next().expect("endless")));
    let mut monitor = StageMonitor::new(&campaign, campaign.max(), Some(Share::P99));
    let mut times = later.times().iter().cycle();
    group.bench_function("observe", |bencher| {
        bencher.iter(|| monitor.observe(*times.next().expect("endless")));
    });
    group.finish();
}

criterion_group!(benches, wcet_estimate, wcet_monitor);
criterion_main!(benches);

//! The coverage table: how often the bounds of `aegis_sched::wcet` hold for known laws.
//!
//! `cargo xtask bench wcet_coverage` runs it; an argument is the number of campaigns for each row, 1000
//! without one. The rows are spread over the processors, and do not depend on how many there are.
#![forbid(unsafe_code)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use aegis_sched::sim::Seed;
use aegis_sched::wcet::experiment::{self, Coverage, Family};
use aegis_sched::wcet::{Method, Question, Share};

/// Campaigns of a row when none are asked for.
const CAMPAIGNS: usize = 1_000;
/// Where the random numbers of every row begin.
const SEED: Seed = Seed(2026);

/// Laws whose samples are independent and identically distributed.
const INDEPENDENT: [Family; 11] = [
    Family::Normal,
    Family::Lognormal(0.1),
    Family::Lognormal(0.5),
    Family::Gumbel,
    Family::Weibull(1.5),
    Family::Weibull(0.7),
    Family::BoundedPareto(3.0),
    Family::Pareto(10.0),
    Family::Pareto(5.0),
    Family::Pareto(3.0),
    Family::Mixture,
];

/// Processes that break an assumption.
const BROKEN: [Family; 7] = [
    Family::Autoregressive(0.3),
    Family::Autoregressive(0.6),
    Family::Autoregressive(0.9),
    Family::Bursts,
    Family::Trend(0.5),
    Family::Trend(1.0),
    Family::Step(1.0),
];

/// Processes whose slow jobs come one after another.
const BURSTY: [Family; 4] =
    [Family::Bursts, Family::RareBursts, Family::OutlierBursts, Family::Regimes];

/// One row of the table.
#[derive(Clone, Copy)]
struct Row {
    family: Family,
    n: usize,
    question: Question,
}

fn main() {
    let campaigns = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(CAMPAIGNS);
    let rows = rows();
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<Option<Coverage>>> = Mutex::new(vec![None; rows.len()]);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((at, row)) = take(&next, &rows) {
                    let Row { family, n, question } = row;
                    let coverage = experiment::run(family, n, &question, campaigns, SEED);
                    found.lock().expect("no worker panicked")[at] = Some(coverage);
                }
            });
        }
    });
    println!(
        "| family | n | method | coverage | confidence | claimed | held | false claims | bound / quantile |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let found = found.into_inner().expect("no worker panicked");
    for (row, coverage) in rows.iter().zip(found) {
        println!("{}", show(row, &coverage.expect("every row was run")));
    }
}

fn rows() -> Vec<Row> {
    let share = |text: &str| text.parse::<Share>().expect("a share");
    let ask = |method, coverage: &str, confidence: &str| Question {
        method,
        ..Question::auto(share(coverage), share(confidence))
    };
    let group = |families: &[Family], n, question: Question| {
        families.iter().map(|family| Row { family: *family, n, question }).collect::<Vec<_>>()
    };
    [
        group(&INDEPENDENT, 500, ask(Method::Order, "0.99", "0.99")),
        group(&INDEPENDENT, 1000, ask(Method::Gpd, "0.999", "0.95")),
        group(&INDEPENDENT, 1000, ask(Method::Auto, "0.999", "0.99")),
        group(&INDEPENDENT, 1000, ask(Method::Gev, "0.999", "0.95")),
        group(&BROKEN, 500, ask(Method::Auto, "0.99", "0.99")),
        group(&BROKEN, 4000, ask(Method::Auto, "0.99", "0.99")),
        group(&BURSTY, 1000, ask(Method::Auto, "0.99", "0.99")),
        group(&BURSTY, 1000, ask(Method::Auto, "0.999", "0.95")),
        group(&BURSTY, 10_000, ask(Method::Auto, "0.999", "0.99")),
        group(&BURSTY, 30_000, ask(Method::Auto, "0.999", "0.99")),
    ]
    .concat()
}

fn take(next: &AtomicUsize, rows: &[Row]) -> Option<(usize, Row)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    rows.get(at).map(|row| (at, *row))
}

fn show(row: &Row, found: &Coverage) -> String {
    let share = |count: usize| format!("{:.3}", count as f64 / found.campaigns as f64);
    let Row { family, n, question } = row;
    format!(
        "| {family:?} | {n} | {:?} | {} | {} | {} | {} | {} | {:.3} |",
        question.method,
        question.coverage,
        question.confidence,
        share(found.claimed),
        share(found.covered),
        share(found.false_claims),
        found.mean_ratio
    )
}

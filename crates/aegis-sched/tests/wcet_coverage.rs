//! Claims hold as often as they say, in small; `cargo xtask bench wcet_coverage` counts them in full.

use aegis_sched::sim::Seed;
use aegis_sched::wcet::experiment::{self, Coverage, Family};
use aegis_sched::wcet::{Method, Question, Share};

/// Campaigns of each family. A share of 0.01 of them may fail a claim; the limits below are what chance
/// exceeds about once in a thousand runs, and the seeds are fixed.
const CAMPAIGNS: usize = 80;

fn run(family: Family, n: usize, question: &Question) -> Coverage {
    experiment::run(family, n, question, CAMPAIGNS, Seed(20))
}

#[test]
fn the_order_statistic_holds_for_every_independent_family() {
    let question = Question { method: Method::Order, ..Question::auto(Share::P99, Share::P99) };
    for family in [
        Family::Normal,
        Family::Lognormal(0.5),
        Family::Gumbel,
        Family::Weibull(0.7),
        Family::BoundedPareto(3.0),
        Family::Mixture,
    ] {
        let found = run(family, 500, &question);
        assert!(found.false_claims <= 4, "{family:?}: {found:?}");
        assert!(found.claimed >= 74, "{family:?}: {found:?}");
        assert!(found.mean_ratio > 1.0, "{family:?}: {found:?}");
    }
}

#[test]
fn the_tail_limit_holds_for_light_and_moderate_tails() {
    let coverage = "0.999".parse().expect("a share");
    let question = Question { method: Method::Gpd, ..Question::auto(coverage, Share::P95) };
    for family in [
        Family::Normal,
        Family::Lognormal(0.1),
        Family::Gumbel,
        Family::Weibull(1.5),
        Family::BoundedPareto(3.0),
    ] {
        let found = run(family, 1000, &question);
        assert!(found.false_claims <= 11, "{family:?}: {found:?}");
        assert!(found.claimed >= 68, "{family:?}: {found:?}");
        assert!(found.mean_ratio < 2.0, "{family:?}: {found:?}");
    }
}

#[test]
fn dependent_and_changing_processes_lose_the_claim_or_keep_it_honestly() {
    let question = Question::auto(Share::P99, Share::P99);
    for family in [
        Family::Autoregressive(0.3),
        Family::Autoregressive(0.6),
        Family::Autoregressive(0.9),
        Family::Trend(1.0),
        Family::Step(1.0),
    ] {
        let found = run(family, 1000, &question);
        assert!(found.false_claims <= 4, "{family:?}: {found:?}");
    }
    let trend = run(Family::Trend(1.0), 1000, &question);
    assert_eq!(trend.claimed, 0, "{trend:?}");
    // Bursts need a campaign that sees some: four thousand samples hold 21 on average.
    let bursts = run(Family::Bursts, 4000, &question);
    assert!(bursts.false_claims <= 4, "{bursts:?}");
}

#[test]
fn a_slow_mode_in_bursts_is_counted_by_its_bursts_far_out() {
    // 30 000 samples hold five rare bursts and fifteen of outliers on average; the few campaigns that
    // saw none cannot know, and 0.7 % of those of rare bursts are such.
    let question = Question::auto("0.999".parse().expect("a share"), Share::P99);
    for family in [Family::RareBursts, Family::OutlierBursts, Family::Regimes, Family::Bursts] {
        let found = experiment::run(family, 30_000, &question, 20, Seed(21));
        assert!(found.false_claims <= 2, "{family:?}: {found:?}");
    }
}

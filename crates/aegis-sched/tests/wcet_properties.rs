//! Estimates obey what any bound of this kind must: order, and honesty about what it has.

use aegis_sched::sim::{Random, Seed};
use aegis_sched::wcet::experiment::Family;
use aegis_sched::wcet::{Campaign, Diagnosis, Estimate, Kind, Method, Question, Share, Warning};
use aegis_trace::Nanos;
use proptest::prelude::*;

fn share(text: &str) -> Share {
    text.parse().expect("a share")
}

fn ask(campaign: &Campaign, coverage: Share, confidence: Share, method: Method) -> Estimate {
    Estimate::of(campaign, &Question { method, ..Question::auto(coverage, confidence) })
}

fn campaign(times: impl IntoIterator<Item = u64>) -> Campaign {
    Campaign::new(times.into_iter().map(Nanos).collect()).expect("valid times")
}

const FAMILIES: [Family; 5] = [
    Family::Normal,
    Family::Lognormal(0.3),
    Family::Gumbel,
    Family::BoundedPareto(3.0),
    Family::Mixture,
];

/// Shares from 0.9 to 0.9999, ascending.
const SHARES: [&str; 6] = ["0.9", "0.95", "0.99", "0.995", "0.999", "0.9999"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn claimed_bounds_rise_with_coverage_and_confidence(
        family in 0..FAMILIES.len(), n in 30usize..700, seed: u64, p in 0..5usize, g in 0..5usize,
    ) {
        let drawn = FAMILIES[family].draw(n, &mut Random::new(Seed(seed)));
        for method in [Method::Auto, Method::Order, Method::Gpd, Method::Gev, Method::Margin] {
            let at = |p: usize, g: usize| ask(&drawn, share(SHARES[p]), share(SHARES[g]), method);
            let here = at(p, g);
            for more in [at(p + 1, g), at(p, g + 1)] {
                // A rise may cost the claim, and with it the bound; a claim is comparable.
                if here.claim == more.claim && here.kind == more.kind || more.claim {
                    // A limit by simplex is found to a millionth, the others to the nanosecond.
                    let slack = if method == Method::Gev { here.bound_ns.0 / 1_000 } else { 1 };
                    prop_assert!(here.bound_ns.0 <= more.bound_ns.0 + slack, "{here:?}\n{more:?}");
                }
                prop_assert!(here.claim || !more.claim, "a rise won a claim\n{here:?}\n{more:?}");
            }
        }
    }

    #[test]
    fn every_interval_holds_what_it_is_of(
        family in 0..FAMILIES.len(), n in 30usize..3000, seed: u64, p in 0..6usize, g in 0..6usize,
    ) {
        let drawn = FAMILIES[family].draw(n, &mut Random::new(Seed(seed)));
        let found = ask(&drawn, share(SHARES[p]), share(SHARES[g]), Method::Auto);
        prop_assert!(found.lower_ns.is_none_or(|lower| lower <= found.bound_ns), "{found:?}");
        prop_assert!(found.claim || found.lower_ns.is_none(), "{found:?}");
        let mean = found.estimates.mean;
        let limits = found.estimates.mean_limits;
        prop_assert!(limits.is_none_or(|[low, high]| low <= mean && mean <= high), "{found:?}");
        let evt = found.evt.expect("a tail");
        prop_assert!(evt.xi_lower <= evt.xi && evt.xi <= evt.xi_upper, "{evt:?}");
        prop_assert!(evt.lower_ns.is_none_or(|it| Some(it) <= evt.return_level_ns), "{evt:?}");
        prop_assert!(evt.bound_ns.is_none_or(|it| evt.return_level_ns <= Some(it)), "{evt:?}");
    }

    #[test]
    fn adding_a_larger_sample_never_lowers_a_rank_or_an_observation(
        mut times in prop::collection::vec(1u64..1_000_000, 1..600), more in 0u64..1_000_000,
        p in 0..6usize, g in 0..6usize,
    ) {
        let question = Question::auto(share(SHARES[p]), share(SHARES[g]));
        let before = Estimate::of(&campaign(times.iter().copied()), &question);
        times.push(before.estimates.observed_max.0 + more);
        let after = Estimate::of(&campaign(times), &question);
        prop_assert!(before.estimates.observed_max <= after.estimates.observed_max);
        prop_assert!(before.estimates.margin <= after.estimates.margin);
        if before.n_eff == before.n && after.n_eff == after.n {
            prop_assert!(before.order_statistic.is_none_or(|it| Some(it) <= after.order_statistic));
        }
    }

    #[test]
    fn the_order_statistic_is_invariant_under_monotone_scaling(
        times in prop::collection::vec(1u64..1_000_000, 60..600), factor in 1u64..1000,
    ) {
        let question = Question::auto(share("0.95"), share("0.95"));
        let plain = Estimate::of(&campaign(times.iter().copied()), &question);
        let scaled = Estimate::of(&campaign(times.iter().map(|time| time * factor)), &question);
        prop_assert_eq!(plain.kind, scaled.kind);
        let expected = plain.order_statistic.map(|time| Nanos(time.0 * factor));
        prop_assert_eq!(scaled.order_statistic, expected);
    }

    #[test]
    fn no_samples_break_an_estimate(
        times in prop::collection::vec(prop_oneof![Just(1), Just(u64::MAX), 1u64..9, any::<u64>()], 1..300),
        p in 0..6usize, g in 0..6usize,
    ) {
        let drawn = campaign(times.into_iter().map(|time| time.max(1)));
        for method in [Method::Auto, Method::Order, Method::Gpd, Method::Gev, Method::Margin] {
            let estimate = ask(&drawn, share(SHARES[p]), share(SHARES[g]), method);
            prop_assert!(estimate.claim || !estimate.warnings.is_empty(), "{estimate:?}");
        }
    }
}

#[test]
fn too_few_samples_say_how_many_are_needed() {
    let drawn = Family::Normal.draw(100, &mut Random::new(Seed(1)));
    let estimate = ask(&drawn, Share::P99, Share::P99, Method::Order);
    assert_eq!((estimate.kind, estimate.claim), (Kind::ObservedMax, false));
    assert_eq!(estimate.bound_ns, drawn.max());
    let told: Vec<String> = estimate.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["not enough samples: have 100, need 459 for coverage 0.99 at confidence 0.99"]
    );
    let supported = estimate.supported_coverage.expect("a process that stays");
    assert!((0.9549..0.9550).contains(&supported));
}

#[test]
fn one_sample_and_equal_samples_are_degenerate() {
    for times in [vec![7], vec![7; 5000]] {
        let estimate = ask(&campaign(times), Share::P99, Share::P99, Method::Auto);
        assert_eq!((estimate.bound_ns, estimate.kind), (Nanos(7), Kind::ObservedMax));
        assert_eq!(
            (estimate.claim, estimate.diagnose.as_slice()),
            (false, &[Diagnosis::Degenerate][..])
        );
        assert!(matches!(estimate.warnings[..], [Warning::Degenerate { .. }]));
        assert_eq!(estimate.supported_coverage, None, "nothing was tested");
    }
}

#[test]
fn a_coarse_clock_leaves_the_order_statistic_and_no_tail() {
    // Normal times of a clock with steps of 20 us: some ten different values.
    let drawn = Family::Normal.draw(1000, &mut Random::new(Seed(5)));
    let coarse = campaign(drawn.times().iter().map(|time| time.0.div_ceil(20_000) * 20_000));
    let estimate = ask(&coarse, Share::P99, Share::P99, Method::Auto);
    assert_eq!((estimate.kind, estimate.claim), (Kind::OrderStatistic, true));
    assert_eq!(estimate.diagnose, [Diagnosis::TailTies]);
    let tests = estimate.tests.expect("enough samples");
    assert_eq!(tests.resolution.quantum_ns, Nanos(20_000));
    let by_tail = ask(&coarse, Share::P99, Share::P99, Method::Gpd);
    assert_eq!((by_tail.kind, by_tail.claim), (Kind::ObservedMax, false));
}

#[test]
fn a_tail_without_variance_is_not_extrapolated() {
    let drawn = Family::Pareto(1.0).draw(2000, &mut Random::new(Seed(3)));
    let estimate = ask(&drawn, share("0.9999"), Share::P99, Method::Auto);
    assert!(estimate.diagnose.contains(&Diagnosis::VeryHeavyTail), "{estimate:?}");
    assert_eq!((estimate.kind, estimate.claim), (Kind::ObservedMax, false));
}

#[test]
fn limits_of_the_mean_hold_the_true_one_for_dependent_samples_too() {
    let mut random = Random::new(Seed(13));
    for family in [Family::Normal, Family::Autoregressive(0.6)] {
        let mut limits = |_: &u32| {
            let drawn = family.draw(1_000, &mut random);
            let found = ask(&drawn, Share::P99, Share::P95, Method::Order);
            found.estimates.mean_limits.map(|[low, high]| low.0 <= 1_000_000 && 1_000_000 <= high.0)
        };
        let held = (0..100).filter_map(|at| limits(&at)).filter(|held| *held).count();
        assert!(held >= 85, "{family:?}: {held} of 100 at 95 %");
    }
}

#[test]
fn a_coverage_below_the_threshold_is_answered_by_the_samples() {
    let drawn = Family::Normal.draw(2_000, &mut Random::new(Seed(12)));
    let by_tail = ask(&drawn, share("0.9"), Share::P99, Method::Gpd);
    let by_order = ask(&drawn, share("0.9"), Share::P99, Method::Order);
    assert_eq!((by_tail.kind, by_tail.claim), (Kind::OrderStatistic, true));
    assert_eq!(by_tail.bound_ns, by_order.bound_ns);
    let beyond = ask(&drawn, share("0.9995"), Share::P99, Method::Gpd);
    assert_eq!((beyond.kind, beyond.claim), (Kind::Evt, true));
}

#[test]
fn a_change_is_found_where_it_happened_and_costs_every_claim() {
    let drawn = Family::Step(2.0).draw(3000, &mut Random::new(Seed(9)));
    for method in [Method::Auto, Method::Order, Method::Gpd] {
        let estimate = ask(&drawn, Share::P99, Share::P99, method);
        assert_eq!((estimate.kind, estimate.claim), (Kind::ObservedMax, false));
        assert!(estimate.diagnose.contains(&Diagnosis::Nonstationary));
        assert_eq!(estimate.supported_coverage, None);
        let index = estimate.warnings.iter().find_map(|warning| match warning {
            Warning::Nonstationary { index } => Some(*index),
            _ => None,
        });
        let index = index.expect("a change is told");
        assert!((1950..2050).contains(&index), "{index}");
    }
}

#[test]
fn left_over_warm_up_is_found() {
    let mut random = Random::new(Seed(2));
    let drawn = Family::Normal.draw(1000, &mut random);
    let slow = |(at, time): (usize, &Nanos)| if at < 50 { time.0 + 60_000 } else { time.0 };
    let warming = campaign(drawn.times().iter().enumerate().map(slow));
    let estimate = ask(&warming, Share::P99, Share::P99, Method::Auto);
    assert!(estimate.diagnose.contains(&Diagnosis::Nonstationary));
    assert!(!estimate.claim);
}

#[test]
fn dependent_samples_count_for_fewer() {
    let drawn = Family::Autoregressive(0.6).draw(6000, &mut Random::new(Seed(4)));
    let estimate = ask(&drawn, Share::P99, Share::P99, Method::Auto);
    assert_eq!(estimate.diagnose, [Diagnosis::Dependent]);
    assert!((1500..4500).contains(&estimate.n_eff), "{}", estimate.n_eff);
    assert_eq!((estimate.kind, estimate.claim), (Kind::OrderStatistic, true));
    let naive = drawn.order_statistic(
        aegis_sched::wcet::order::tolerance_rank(6000, Share::P99, Share::P99).expect("enough"),
    );
    assert!(estimate.bound_ns > naive, "dependence costs a higher rank");
    // And with too few of them, the claim.
    let drawn = Family::Autoregressive(0.9).draw(1000, &mut Random::new(Seed(4)));
    let estimate = ask(&drawn, Share::P99, Share::P99, Method::Auto);
    assert_eq!((estimate.kind, estimate.claim), (Kind::ObservedMax, false));
}

#[test]
fn what_a_tail_is_not_extrapolated_for_is_told() {
    let dependent = Family::Autoregressive(0.6).draw(1_000, &mut Random::new(Seed(4)));
    let estimate = ask(&dependent, share("0.9995"), Share::P99, Method::Auto);
    let told = |wanted: fn(&Warning) -> bool| estimate.warnings.iter().any(wanted);
    assert!(told(|it| matches!(it, Warning::TailNotExtrapolated { n: 1_000, .. })), "{estimate:?}");
    assert!(!estimate.claim);

    let few = Family::Normal.draw(300, &mut Random::new(Seed(4)));
    let estimate = ask(&few, Share::P99, Share::P99, Method::Gev);
    let blocks = Warning::NotEnoughBlocks { have: 16, need: 20 };
    assert!(estimate.warnings.contains(&blocks), "{estimate:?}");
}

#[test]
fn a_shape_at_the_edge_of_the_search_is_flagged() {
    // The largest of these pile up below their end: the shape of the tail is -1.
    let ending = campaign((0..2_000u64).map(|at| 1_000_000 + at.wrapping_mul(7_919) % 100_003));
    let estimate = ask(&ending, share("0.9999"), Share::P95, Method::Gpd);
    let evt = estimate.evt.as_ref().expect("a tail");
    assert!(evt.xi_clipped && (evt.xi + 0.5).abs() < 1e-3, "{evt:?}");
    let free = ask(
        &Family::Gumbel.draw(2_000, &mut Random::new(Seed(5))),
        share("0.9995"),
        Share::P95,
        Method::Gpd,
    );
    assert!(!free.evt.expect("a tail").xi_clipped);
}

#[test]
fn a_method_by_name_computes_what_it_needs_and_the_same_as_auto() {
    let drawn = Family::Gumbel.draw(800, &mut Random::new(Seed(6)));
    let all = ask(&drawn, Share::P99, Share::P95, Method::Auto);
    for method in [Method::Order, Method::Gpd, Method::Gev, Method::Margin] {
        let one = ask(&drawn, Share::P99, Share::P95, method);
        assert_eq!((&one.evt, one.order_statistic), (&all.evt, all.order_statistic));
        let (tests, of_all) = (one.tests.expect("enough"), all.tests.as_ref().expect("enough"));
        assert_eq!(tests.stationarity, of_all.stationarity);
        assert_eq!(tests.tail, of_all.tail.filter(|_| method == Method::Gpd), "{method:?}");
        let gev = all.estimates.gev.as_ref().filter(|_| method == Method::Gev);
        assert_eq!(one.estimates.gev.as_ref(), gev, "{method:?}");
    }
}

#[test]
fn the_same_samples_give_the_same_answer() {
    let drawn = Family::Gumbel.draw(800, &mut Random::new(Seed(6)));
    let ask = || ask(&drawn, share("0.999"), Share::P95, Method::Auto);
    assert_eq!(ask(), ask());
}

#[test]
fn a_slow_mode_in_three_rare_bursts_carries_no_claim_far_out() {
    // 30 000 samples, of which three runs of 25 are slow: at 99.9 % that is three observations.
    let mut random = Random::new(Seed(11));
    let fast = (0..30_000).map(|_| 100_000 + (0..12).map(|_| random.up_to(1_000)).sum::<u64>());
    let mut times: Vec<u64> = fast.collect();
    for (begin, level) in [(4_000, 130_000), (17_000, 135_000), (26_000, 132_000)] {
        for time in &mut times[begin..begin + 25] {
            *time += level;
        }
    }
    let estimate = ask(&campaign(times), share("0.999"), Share::P99, Method::Order);
    assert!(estimate.diagnose.contains(&Diagnosis::Dependent), "{:?}", estimate.diagnose);
    assert!(!estimate.claim, "worth {} samples: {:?}", estimate.n_eff, estimate.bound_ns);
}

//! Estimates and tests of validity against an independent implementation.
//!
//! The expected numbers were computed once, with SciPy 1.17.1 and NumPy on the same 1000 samples. Fits
//! are by maximum likelihood: `genpareto.fit(y, floc=0)` on the exceedances, and `genextreme.fit(m)` on
//! the block maxima, begun at the moments of a Gumbel law, since it stops short from its own start; both
//! agree with Nelder-Mead on `logpdf` to the digits given (SciPy's shape of `genextreme` is `-xi`).
//! Limits are roots by `brentq` of a profile likelihood that `minimize_scalar` maximises, with `beta.ppf`
//! and `norm.ppf`; the probabilities come from `spearmanr`, `ks_2samp(method="asymp")`,
//! `mannwhitneyu(method="asymptotic")` and `chi2.sf` for the tests. Where SciPy does not deflate or
//! correct as we do, the comparison says so.

use aegis_sched::sim::{Random, Seed};
use aegis_sched::wcet::{Campaign, Estimate, Question};
use aegis_trace::Nanos;

/// A thousand draws from a Pareto law of index 4, whose tail has the shape 1/4.
fn campaign() -> Campaign {
    let mut random = Random::new(Seed(1));
    let mut time = || {
        let uniform = ((random.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
        let time = (1e6 * (1.0 - uniform).powf(-0.25)).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some 1e6")]
        Nanos(time as u64)
    };
    Campaign::new((0..1000).map(|_| time()).collect()).expect("valid times")
}

fn ask(coverage: &str, confidence: &str) -> Estimate {
    ask_of(&campaign(), coverage, confidence)
}

fn ask_of(campaign: &Campaign, coverage: &str, confidence: &str) -> Estimate {
    let share = |text: &str| text.parse().expect("a share");
    Estimate::of(campaign, &Question::auto(share(coverage), share(confidence)))
}

/// A thousand draws from a law with an end: a tail of the shape -1/4.
fn with_an_end() -> Campaign {
    let mut random = Random::new(Seed(2));
    let mut time = || {
        let uniform = ((random.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
        let time = (1e6 + 1e5 * (1.0 - (1.0 - uniform).powf(0.25))).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some 1e6")]
        Nanos(time as u64)
    };
    Campaign::new((0..1000).map(|_| time()).collect()).expect("valid times")
}

#[track_caller]
fn near(found: f64, expected: f64, relative: f64) {
    assert!((found / expected - 1.0).abs() < relative, "{found} is not {expected}");
}

#[test]
fn the_samples_are_the_reference_samples() {
    let campaign = campaign();
    let first: Vec<u64> = campaign.times()[..5].iter().map(|time| time.0).collect();
    assert_eq!(first, [1_232_447, 1_408_310, 2_423_320, 1_158_248, 1_158_199]);
    assert_eq!(campaign.max(), Nanos(4_686_827));
}

#[test]
fn the_generalised_pareto_fit_is_the_likeliest() {
    let evt = ask("0.999", "0.99").evt.expect("a tail");
    assert_eq!((evt.threshold_ns, evt.exceedances), (Nanos(1_906_224), 64));
    near(evt.xi, 0.082_523_534, 1e-4);
    near(evt.sigma, 631_801.3, 1e-5);
}

#[test]
fn the_profile_limits_are_the_reference_limits() {
    for (coverage, confidence, expected) in [
        ("0.999", "0.99", 12_345_603.3),
        ("0.999", "0.95", 8_334_368.0),
        ("0.9999", "0.99", 45_086_676.2),
    ] {
        let bound = ask(coverage, confidence).evt.expect("a tail").bound_ns.expect("a limit");
        near(bound.0 as f64, expected, 1e-6);
    }
}

#[test]
fn return_level_and_shape_have_the_reference_limits() {
    let evt = ask("0.999", "0.99").evt.expect("a tail");
    near(evt.return_level_ns.expect("a level").0 as f64, 5_041_045.4, 1e-6);
    near(evt.lower_ns.expect("a limit").0 as f64, 3_902_536.3, 1e-6);
    near(evt.xi_lower, -0.268_322_25, 1e-4);
    near(evt.xi_upper, 0.602_776_1, 1e-4);
}

#[test]
fn a_tail_with_an_end_is_fitted_like_the_reference() {
    let campaign = with_an_end();
    let first: Vec<u64> = campaign.times()[..3].iter().map(|time| time.0).collect();
    assert_eq!(first, [1_020_039, 1_029_229, 1_020_257]);
    let found = ask_of(&campaign, "0.999", "0.99");
    let evt = found.evt.expect("a tail");
    assert_eq!((evt.threshold_ns, evt.exceedances), (Nanos(1_047_476), 64));
    near(evt.xi, -0.175_113_486, 1e-5);
    near(evt.sigma, 10_189.152_49, 1e-6);
    near(evt.return_level_ns.expect("a level").0 as f64, 1_077_573.27, 2e-6);
    near(evt.lower_ns.expect("a limit").0 as f64, 1_070_532.65, 2e-6);
    near(evt.xi_lower, -0.389_216_415, 1e-4);
    near(evt.xi_upper, 0.209_673_218, 1e-4);
    let gev = found.estimates.gev.expect("31 blocks");
    near(gev.xi, -0.275_533_22, 1e-3);
    near(gev.sigma, 10_148.668_3, 1e-3);
    near(gev.mu, 1_055_391.513, 1e-6);
    near(gev.return_level_ns.expect("a level").0 as f64, 1_077_954.668, 1e-5);
}

#[test]
fn block_maxima_are_fitted_like_the_reference() {
    let gev = ask("0.999", "0.99").estimates.gev.expect("31 blocks");
    assert_eq!((gev.block, gev.blocks), (32, 31));
    near(gev.mu, 2_499_167.1, 1e-4);
    near(gev.sigma, 690_956.2, 1e-3);
    assert!((gev.xi - 0.020_262).abs() < 1e-3, "{}", gev.xi);
    near(gev.return_level_ns.expect("a level").0 as f64, 4_961_978.3, 1e-3);
    near(gev.bound_ns.expect("a limit").0 as f64, 9_580_462.4, 1e-3);
}

#[test]
fn the_validity_tests_have_the_reference_probabilities() {
    let tests = ask("0.999", "0.99").tests.expect("enough samples");
    let (stationarity, independence) = (&tests.stationarity, &tests.independence);
    near(independence.ranks_p, 0.359_707_3, 1e-5);
    near(independence.runs_p, 0.033_937, 1e-4);
    // The others are deflated by an autocorrelation time a little above one, so z shrinks by its root.
    let time = stationarity.autocorrelation_time;
    assert!((1.0..1.2).contains(&time), "{time}");
    let z_of = |p: f64, z: f64| (p, z / time.sqrt());
    for (p, z) in [z_of(stationarity.trend_p, 0.745_3), z_of(stationarity.warm_up_p, 1.578_9)] {
        // 2 (1 - Phi(z)) by the series of Abramowitz and Stegun 26.2.17.
        near(p, two_sided(z), 5e-3);
    }
    assert_eq!(stationarity.pettitt.index, 123);
    let k = 12_986.0_f64;
    near(stationarity.pettitt.p, 2.0 * (-6.0 * k * k / (1e9 + 1e6) / time).exp(), 5e-3);
    near(stationarity.halves_p, 0.701, 0.1);
}

/// A tail of the normal law from its rational approximation, so that no library is its own judge.
fn two_sided(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let coefficients = [0.319_381_53, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = coefficients.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    2.0 * sum * (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

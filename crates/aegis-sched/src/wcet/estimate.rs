//! The answer to one question about one campaign: the bound, its claim, and all that stands beside it.
//!
//! [`Estimate::of`] answers; `rule.rs` holds the rule that picks the bound, and `validity.rs` the tests
//! that decide about the claim.

use aegis_trace::Nanos;
use serde::Serialize;

use super::campaign::Campaign;
use super::gev::GevFit;
use super::gpd::{Fit, Peaks};
use super::question::{Method, Question};
use super::rule::Evidence;
use super::share::Share;
use super::validity::Tests;
use super::warning::{Diagnosis, Warning};

/// What a bound is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A sample of a rank that carries the claim.
    OrderStatistic,
    /// A limit from a fitted tail.
    Evt,
    /// The longest sample.
    ObservedMax,
    /// A quantile plus a margin.
    Margin,
}

/// The answer. Its JSON form is described in `docs/formats.md`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The bound the rule picked, in whole nanoseconds.
    pub bound_ns: Nanos,
    /// What it is.
    pub kind: Kind,
    /// As asked.
    pub method: Method,
    /// Whether at least `coverage` of the jobs stay below it, with `confidence`.
    pub claim: bool,
    /// As asked.
    #[serde(serialize_with = "as_number")]
    pub coverage: Share,
    /// As asked.
    #[serde(serialize_with = "as_number")]
    pub confidence: Share,
    /// The lower confidence limit of the time that the bound limits from above, by the same method;
    /// `None` without a claim.
    pub lower_ns: Option<Nanos>,
    /// The coverage that the maximum of `n_eff` samples carries with `confidence`; `None` where the
    /// process was not tested or found to change.
    pub supported_coverage: Option<f64>,
    /// How many samples there are.
    pub n: usize,
    /// How many independent ones say as much.
    pub n_eff: usize,
    /// What the samples are not.
    pub diagnose: Vec<Diagnosis>,
    /// The order statistic, where there are enough samples for one.
    pub order_statistic: Option<Nanos>,
    /// The tail fit, where there is a tail.
    pub evt: Option<Evt>,
    /// The other estimates, for comparison.
    pub estimates: Estimates,
    /// The validity tests; `None` with fewer than 20 samples or where nothing varies.
    pub tests: Option<Tests>,
    /// Why the answer is what it is.
    pub warnings: Vec<Warning>,
}

/// Peaks over threshold: the likeliest law, and the quantile with its limits. Each limit holds with the
/// stated confidence for itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evt {
    /// How it was made: `gpd`.
    pub method: Method,
    /// The upper confidence limit; `None` inside the samples or beyond any time.
    pub bound_ns: Option<Nanos>,
    /// The time itself under the likeliest law: the return level.
    pub return_level_ns: Option<Nanos>,
    /// Its lower confidence limit.
    pub lower_ns: Option<Nanos>,
    /// The shape of the likeliest law; above zero without an end.
    pub xi: f64,
    /// Its lower confidence limit, among the shapes from -0.5 to 2.
    pub xi_lower: f64,
    /// Its upper confidence limit, among the same.
    pub xi_upper: f64,
    /// Whether the likeliest law may have a shape below -0.5, the smallest that is fitted.
    pub xi_clipped: bool,
    /// Its scale, in nanoseconds.
    pub sigma: f64,
    /// Where the tail begins.
    pub threshold_ns: Nanos,
    /// How many samples lie beyond it.
    pub exceedances: usize,
}

/// Estimates beside the bound. None of them carries a claim.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimates {
    /// The longest sample.
    pub observed_max: Nanos,
    /// The shortest.
    pub observed_min: Nanos,
    /// The mean, rounded up.
    pub mean: Nanos,
    /// The limits of the mean of the process, which hold together with the stated confidence; `None`
    /// where the process was not tested or found to change. They suppose a mean that is near normal,
    /// and count dependent samples by their autocorrelation time.
    pub mean_limits: Option<[Nanos; 2]>,
    /// Half of the samples are at most this.
    pub p50: Nanos,
    /// 90 % of them.
    pub p90: Nanos,
    /// 99 % of them.
    pub p99: Nanos,
    /// Standard deviation over mean.
    pub variation: f64,
    /// The margin rule.
    pub margin: Nanos,
    /// The quantile of an exponential tail.
    pub exponential: Option<Nanos>,
    /// Block maxima; for `auto` and `gev`, since the fit takes long.
    pub gev: Option<GevFit>,
}

impl Estimate {
    /// Answers `question` about `campaign`. `O(n log n)`, and about 200 fits of the tail.
    #[must_use]
    pub fn of(campaign: &Campaign, question: &Question) -> Self {
        Evidence::gather(campaign, question).answer()
    }
}

impl Evt {
    pub(super) fn of(peaks: &Peaks, fit: &Fit, campaign: &Campaign, question: &Question) -> Self {
        let Question { coverage, confidence, .. } = *question;
        let limit = peaks.upper_limit(coverage, confidence);
        let [xi_lower, xi_upper] = peaks.shape_limits(fit, confidence);
        // One step of the clock: a sample may have been cut by that much.
        let quantum = campaign.quantum();
        Self {
            method: Method::Gpd,
            bound_ns: limit.map(|limit| limit.saturating_add(quantum)),
            return_level_ns: peaks.likeliest_level(campaign, fit, coverage),
            lower_ns: peaks.lower_limit(campaign, coverage, confidence),
            xi: fit.shape,
            xi_lower,
            xi_upper,
            xi_clipped: fit.is_clipped(),
            sigma: peaks.nanos(fit.scale),
            threshold_ns: peaks.threshold,
            exceedances: peaks.excesses.len(),
        }
    }
}

fn as_number<S: serde::Serializer>(share: &Share, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(share.as_f64())
}

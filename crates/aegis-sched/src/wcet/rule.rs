//! The rule that picks the bound, and the reasons it gives.
//!
//! Every estimate that can be computed stands in the answer; the rule only says which of them is *the*
//! bound, and whether it carries a claim:
//!
//! ```text
//!  one sample, all equal, or fewer than 20 -------> observed maximum, no claim
//!  stationarity rejected -------------------------> observed maximum, no claim
//!  dependent, or outliers come in bursts: n is n_eff from here; the tail is not extrapolated
//!  n is enough for the order statistic -----------> order statistic, claim
//!  tail resolved, fits, not too heavy, in reach --> generalised Pareto limit, claim (of a model)
//!  otherwise -------------------------------------> observed maximum, no claim
//! ```
//!
//! A method asked for by name goes the same way, with the other methods left out; but a coverage below
//! the threshold of the tail is answered by the order statistic for `gpd` as well.
//!
//! # Invariants
//! 1. Where the order statistic does not exist, no bound is below the observed maximum, so the bounds
//!    of claims do not fall when coverage or confidence rises.

use aegis_trace::Nanos;
use statrs::distribution::{ContinuousCDF, Normal};

use super::campaign::Campaign;
use super::estimate::{Estimate, Estimates, Evt, Kind};
use super::gev::{BLOCKS_MIN, GevFit};
use super::gpd::{Fit, Peaks};
use super::margin::compute_wcet;
use super::order;
use super::question::{Method, Question};
use super::share::Share;
use super::validity::{Resolution, TESTABLE_MIN, TailTest, Tests};
use super::warning::{Diagnosis, Warning};

/// The shape from which on a tail has no variance.
const SHAPE_BLOCKS: f64 = 0.5;
/// An extrapolation may lie this many times beyond the maximum.
const FACTOR_MAX: u64 = 3;
/// And reach this many times beyond the samples in probability.
const REACH_FACTOR: u128 = 10;

/// Everything computed about a campaign, before anything is picked.
pub(super) struct Evidence<'c> {
    campaign: &'c Campaign,
    question: &'c Question,
    peaks: Option<(Peaks, Fit)>,
    tests: Option<Tests>,
    n_eff: usize,
    rank: Option<usize>,
    evt: Option<Evt>,
    gev: Option<GevFit>,
}

/// A candidate for the bound.
struct Pick {
    bound: Nanos,
    kind: Kind,
    claim: bool,
}

impl<'c> Evidence<'c> {
    pub(super) fn gather(campaign: &'c Campaign, question: &'c Question) -> Self {
        let n = campaign.count();
        let (coverage, confidence) = (question.coverage, question.confidence);
        let peaks = Peaks::of(campaign).map(|peaks| {
            let fit = Fit::to(&peaks.excesses);
            (peaks, fit)
        });
        let testable = n >= TESTABLE_MIN && campaign.min() < campaign.max();
        // Two hundred fits: only for who may extrapolate.
        let of_tail = matches!(question.method, Method::Auto | Method::Gpd);
        let tests = testable.then(|| Tests::run(campaign, peaks.as_ref(), of_tail));
        let n_eff = tests.as_ref().map_or(n, |tests| tests.effective_count(campaign, coverage));
        let evt = peaks.as_ref().map(|(peaks, fit)| Evt::of(peaks, fit, campaign, question));
        let of_blocks = matches!(question.method, Method::Auto | Method::Gev);
        let gev = of_blocks.then(|| GevFit::to(campaign, coverage, confidence)).flatten();
        let rank = rank(n, n_eff, coverage, confidence);
        Self { campaign, question, peaks, tests, n_eff, rank, evt, gev }
    }

    pub(super) fn answer(self) -> Estimate {
        let mut warnings = Vec::new();
        let pick = self.pick(&mut warnings);
        let Question { coverage, confidence, .. } = *self.question;
        Estimate {
            bound_ns: pick.bound,
            kind: pick.kind,
            method: self.question.method,
            claim: pick.claim,
            coverage,
            confidence,
            lower_ns: self.lower(&pick),
            supported_coverage: self
                .is_stationary()
                .then(|| order::supported_coverage(self.n_eff, confidence)),
            n: self.campaign.count(),
            n_eff: self.n_eff,
            diagnose: self.diagnose(),
            order_statistic: self.rank.map(|rank| self.campaign.order_statistic(rank)),
            estimates: self.estimates(),
            evt: self.evt,
            tests: self.tests,
            warnings,
        }
    }

    /// The rule of the module's documentation.
    fn pick(&self, warnings: &mut Vec<Warning>) -> Pick {
        let method = self.question.method;
        let campaign = self.campaign;
        let maximum = Pick { bound: campaign.max(), kind: Kind::ObservedMax, claim: false };
        let sound = self.may_claim(warnings);
        match method {
            Method::Margin => {
                warnings.push(Warning::NoClaimByMethod { method: "margin" });
                let bound = self.margin();
                return Pick { bound, kind: Kind::Margin, claim: false };
            }
            Method::Gev => {
                warnings.push(Warning::NoClaimByMethod { method: "gev" });
                let bound = self.block_bound(warnings);
                return bound.map_or(maximum, |bound| self.extrapolated(bound, false));
            }
            Method::Auto | Method::Order | Method::Gpd => {}
        }
        if !sound {
            return maximum;
        }
        // A tail says nothing below its threshold; the samples do.
        if method != Method::Gpd || self.is_below_threshold() {
            if let Some(rank) = self.rank {
                let bound = campaign.order_statistic(rank);
                return Pick { bound, kind: Kind::OrderStatistic, claim: true };
            }
            warnings.push(self.not_enough());
        }
        if method == Method::Order || self.is_below_threshold() {
            return maximum;
        }
        self.tail_bound(warnings).map_or(maximum, |bound| {
            warnings.push(Warning::ModelBased);
            self.extrapolated(bound, true)
        })
    }

    /// Whether the coverage lies among the samples, where there is a tail at all.
    fn is_below_threshold(&self) -> bool {
        let Question { coverage, confidence, .. } = *self.question;
        let reaches = |(peaks, _): &(Peaks, Fit)| peaks.reaches(coverage, confidence);
        self.peaks.as_ref().is_some_and(|peaks| !reaches(peaks))
    }

    /// Whether a claim can rest on these samples at all.
    fn may_claim(&self, warnings: &mut Vec<Warning>) -> bool {
        let n = self.campaign.count();
        let Some(tests) = &self.tests else {
            warnings.push(match self.is_degenerate() {
                true => Warning::Degenerate { n },
                false => Warning::Untested { n, need: TESTABLE_MIN },
            });
            return false;
        };
        if !tests.bursts.passed {
            warnings.push(Warning::OutlierBursts);
        }
        if tests.dependent() {
            warnings.push(Warning::Dependent { n, n_eff: self.n_eff });
        }
        if !tests.stationarity.passed {
            warnings.push(Warning::Nonstationary { index: tests.stationarity.change_index() });
        }
        tests.stationarity.passed
    }

    /// The limit from the tail, if nothing speaks against extrapolating.
    fn tail_bound(&self, warnings: &mut Vec<Warning>) -> Option<Nanos> {
        let before = warnings.len();
        let (n, n_eff) = (self.campaign.count(), self.n_eff);
        let (Some(evt), Some(tests)) = (&self.evt, &self.tests) else {
            warnings.push(Warning::NoTailBound);
            return None;
        };
        let Resolution { passed, distinct, needed: need, .. } = tests.resolution;
        if !passed {
            warnings.push(Warning::TailTies { distinct, need });
        }
        if evt.xi > SHAPE_BLOCKS {
            warnings.push(Warning::VeryHeavyTail { xi: evt.xi });
        }
        if let Some(TailTest { passed: false, p, .. }) = tests.tail {
            warnings.push(Warning::TailMisfit { p });
        }
        let need = self.reach_needs();
        if u128::from(need) > n as u128 {
            warnings.push(Warning::BeyondReach { need });
        }
        match evt.bound_ns {
            None => warnings.push(Warning::NoTailBound),
            Some(bound) if bound.0 / FACTOR_MAX > self.campaign.max().0 => {
                warnings.push(Warning::FarAboveMaximum { bound });
            }
            Some(_) => {}
        }
        if tests.dependent() {
            // What dependence does to a tail fit is not corrected for.
            warnings.push(Warning::TailNotExtrapolated { n, n_eff });
        }
        let usable = warnings.len() == before;
        if evt.xi_clipped {
            warnings.push(Warning::ShapeClipped { method: "gpd" });
        }
        if let (true, Some(TailTest { heavy: true, .. })) = (usable, tests.tail) {
            warnings.push(Warning::HeavyTail { xi: evt.xi });
        }
        evt.bound_ns.filter(|_| usable)
    }

    /// The limit from block maxima, or why there is none.
    fn block_bound(&self, warnings: &mut Vec<Warning>) -> Option<Nanos> {
        let blocks = GevFit::blocks_of(self.campaign.count());
        if blocks < BLOCKS_MIN {
            warnings.push(Warning::NotEnoughBlocks { have: blocks, need: BLOCKS_MIN });
            return None;
        }
        let bound = self.gev.as_ref().and_then(|gev| gev.bound_ns);
        if bound.is_none() {
            warnings.push(Warning::NoTailBound);
        }
        if self.gev.as_ref().is_some_and(|gev| gev.xi_clipped) {
            warnings.push(Warning::ShapeClipped { method: "gev" });
        }
        bound
    }

    /// A limit beyond the samples is never below them.
    fn extrapolated(&self, bound: Nanos, claim: bool) -> Pick {
        let bound = if self.rank.is_none() { bound.max(self.campaign.max()) } else { bound };
        Pick { bound, kind: Kind::Evt, claim }
    }

    fn not_enough(&self) -> Warning {
        let Question { coverage, confidence, .. } = *self.question;
        let need = order::samples_needed(coverage, confidence);
        let (n, n_eff) = (self.campaign.count() as u128, self.n_eff as u128);
        let like_these = u64::try_from((u128::from(need) * n).div_ceil(n_eff)).unwrap_or(u64::MAX);
        Warning::NotEnoughSamples { have: self.n_eff, need, like_these, coverage, confidence }
    }

    /// The least `n` with `1 - coverage >= 1 / (10 n)`.
    fn reach_needs(&self) -> u64 {
        let one = u128::from(10_u64.pow(12));
        let beyond = u128::from(self.question.coverage.complement().trillionths());
        u64::try_from(one.div_ceil(REACH_FACTOR * beyond)).unwrap_or(u64::MAX)
    }

    /// The other end of the interval whose upper end is a bound with a claim.
    fn lower(&self, pick: &Pick) -> Option<Nanos> {
        let Question { coverage, confidence, .. } = *self.question;
        let n = self.campaign.count();
        match pick {
            Pick { kind: Kind::OrderStatistic, claim: true, .. } => {
                lower_rank(n, self.n_eff, coverage, confidence)
                    .map(|rank| self.campaign.order_statistic(rank))
            }
            Pick { kind: Kind::Evt, claim: true, .. } => self.evt.as_ref()?.lower_ns,
            _ => None,
        }
    }

    /// The normal limits of the mean.
    fn mean_limits(&self) -> Option<[Nanos; 2]> {
        let still = self.tests.as_ref().map(|tests| &tests.stationarity).filter(|it| it.passed)?;
        let campaign = self.campaign;
        let worth = campaign.count() as f64 / still.autocorrelation_time;
        let reach = quantile_of_both_sides(self.question.confidence) * campaign.deviation();
        Some(campaign.mean_within(reach / worth.sqrt()))
    }

    /// Whether the process was tested and not found to change.
    fn is_stationary(&self) -> bool {
        self.tests.as_ref().is_some_and(|tests| tests.stationarity.passed)
    }

    fn is_degenerate(&self) -> bool {
        self.campaign.min() == self.campaign.max()
    }

    fn diagnose(&self) -> Vec<Diagnosis> {
        let mut found = Vec::new();
        if self.is_degenerate() {
            found.push(Diagnosis::Degenerate);
        }
        if let Some(tests) = &self.tests {
            if !tests.stationarity.passed {
                found.push(Diagnosis::Nonstationary);
            }
            if tests.dependent() {
                found.push(Diagnosis::Dependent);
            }
            if !tests.resolution.passed {
                found.push(Diagnosis::TailTies);
            }
        }
        // The shape of a tail of ties is one of the clock.
        let resolved = self.tests.as_ref().is_some_and(|tests| tests.resolution.passed);
        if resolved && self.evt.as_ref().is_some_and(|evt| evt.xi > SHAPE_BLOCKS) {
            found.push(Diagnosis::VeryHeavyTail);
        }
        found
    }

    fn margin(&self) -> Nanos {
        compute_wcet(self.campaign, self.question.coverage, self.question.margin_percent)
    }

    fn estimates(&self) -> Estimates {
        let campaign = self.campaign;
        let share = |percent: u64| {
            let share = Share::from_trillionths(percent * 10_000_000_000);
            campaign.quantile(share.expect("between 0 and 100 percent"))
        };
        let peaks = self.peaks.as_ref();
        Estimates {
            observed_max: campaign.max(),
            observed_min: campaign.min(),
            mean: campaign.mean(),
            mean_limits: self.mean_limits(),
            p50: share(50),
            p90: share(90),
            p99: share(99),
            variation: campaign.variation(),
            margin: self.margin(),
            exponential: peaks.and_then(|(peaks, _)| peaks.exponential(self.question.coverage)),
            gev: self.gev.clone(),
        }
    }
}

/// The rank of the order statistic for `n` samples that are worth `n_eff`. The number of samples
/// above a quantile varies as if `n_eff` independent ones had been taken, each of which counts for
/// `n / n_eff`.
fn rank(n: usize, n_eff: usize, coverage: Share, confidence: Share) -> Option<usize> {
    let above = n_eff - order::tolerance_rank(n_eff, coverage, confidence)?;
    Some(n - above * n / n_eff)
}

/// The mirror image of [`rank`]: the lower limit of the same quantile.
fn lower_rank(n: usize, n_eff: usize, coverage: Share, confidence: Share) -> Option<usize> {
    let above = n_eff + 1 - order::lower_rank(n_eff, coverage, confidence)?;
    Some(n + 1 - (above * n).div_ceil(n_eff))
}

/// The normal deviate that is exceeded on neither side with probability `confidence`.
fn quantile_of_both_sides(confidence: Share) -> f64 {
    Normal::standard().inverse_cdf(f64::midpoint(1.0, confidence.as_f64()))
}

//! Coverage experiments: campaigns drawn from known laws, and how often the bound held.
//!
//! A claim of coverage `p` at confidence `g` says that in at least a share `g` of campaigns, the bound
//! is at or above the `p`-quantile. Here the quantile is known, so the claim can be counted. What
//! counts against it is a *false claim*: a bound below the quantile that was given with a claim. A
//! campaign whose tests withdrew the claim promised nothing.
//!
//! # Sources
//! Normal numbers: Box and Muller, Annals of Mathematical Statistics 29 (1958).

use aegis_trace::Nanos;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal};

use super::campaign::Campaign;
use super::estimate::Estimate;
use super::question::Question;
use crate::sim::{Random, Seed};

/// Where most laws are centred: one millisecond.
const CENTRE: f64 = 1e6;
/// How far they spread.
const SPREAD: f64 = 3e4;
/// The second mode of the mixtures, in spreads above the first.
const SECOND_MODE: f64 = 10.0;
/// The share of jobs in the second mode.
const MODE_SHARE: f64 = 0.05;
/// A burst ends with this probability after each job.
const BURST_END: f64 = 0.1;

/// A process that times are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Family {
    /// Normal.
    Normal,
    /// Lognormal with the given deviation of the logarithm.
    Lognormal(f64),
    /// Gumbel.
    Gumbel,
    /// Weibull with the given shape, above a floor.
    Weibull(f64),
    /// Pareto with the given index, bounded at ten times its least value.
    BoundedPareto(f64),
    /// Pareto with the given index, unbounded: its tail has the shape `1 / index`.
    Pareto(f64),
    /// Two normal modes, one job in twenty in the slower one.
    Mixture,
    /// Normal, each time correlated with the one before by the given coefficient.
    Autoregressive(f64),
    /// The two modes of [`Family::Mixture`], but the slower one comes in bursts of ten jobs on average.
    Bursts,
    /// Normal, rising by the given number of spreads from the first sample to the last.
    Trend(f64),
    /// Normal, with a step of the given number of spreads after two thirds.
    Step(f64),
}

/// What became of many campaigns of one family.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Coverage {
    /// How many were drawn.
    pub campaigns: usize,
    /// Bounds that came with a claim.
    pub claimed: usize,
    /// Bounds at or above the quantile.
    pub covered: usize,
    /// Bounds below it in spite of a claim.
    pub false_claims: usize,
    /// The mean of bound over quantile, of those with a claim; of all when there is none.
    pub mean_ratio: f64,
}

/// Draws `campaigns` of `n` samples and asks `question` about each.
#[must_use]
pub fn run(
    family: Family,
    n: usize,
    question: &Question,
    campaigns: usize,
    seed: Seed,
) -> Coverage {
    let mut random = Random::new(seed);
    let quantile = family.quantile(question.coverage.as_f64());
    let mut found =
        Coverage { campaigns, claimed: 0, covered: 0, false_claims: 0, mean_ratio: 0.0 };
    let (mut claimed_sum, mut sum) = (0.0, 0.0);
    for _ in 0..campaigns {
        let estimate = Estimate::of(&family.draw(n, &mut random), question);
        let bound = estimate.bound_ns.0 as f64;
        let covers = bound >= quantile;
        found.claimed += usize::from(estimate.claim);
        found.covered += usize::from(covers);
        found.false_claims += usize::from(estimate.claim && !covers);
        sum += bound / quantile;
        claimed_sum += if estimate.claim { bound / quantile } else { 0.0 };
    }
    found.mean_ratio = match found.claimed {
        0 => sum / campaigns as f64,
        claimed => claimed_sum / claimed as f64,
    };
    found
}

impl Family {
    /// Whether the samples are independent and identically distributed.
    #[must_use]
    pub fn is_independent(self) -> bool {
        !matches!(self, Self::Autoregressive(_) | Self::Bursts | Self::Trend(_) | Self::Step(_))
    }

    /// Draws a campaign of `n` samples.
    ///
    /// # Panics
    /// When `n` is zero or above [`Campaign::MOST_SAMPLES`].
    #[must_use]
    pub fn draw(self, n: usize, random: &mut Random) -> Campaign {
        let mut state = State { value: normal(random), burst: uniform(random) < MODE_SHARE };
        let time = |at: usize| {
            let time = self.next(at as f64 / n as f64, &mut state, random);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive")]
            Nanos(time.round().max(1.0) as u64)
        };
        Campaign::new((0..n).map(time).collect()).expect("n samples above zero")
    }

    /// The time that a share `p` of jobs does not exceed; of those at the end of the campaign, where
    /// the process changes.
    #[must_use]
    pub fn quantile(self, p: f64) -> f64 {
        let z = |p: f64| Normal::standard().inverse_cdf(p);
        match self {
            Self::Normal | Self::Autoregressive(_) => CENTRE + SPREAD * z(p),
            Self::Trend(rise) | Self::Step(rise) => CENTRE + SPREAD * (rise + z(p)),
            Self::Mixture | Self::Bursts => mixture_quantile(p),
            Self::Lognormal(_)
            | Self::Gumbel
            | Self::Weibull(_)
            | Self::BoundedPareto(_)
            | Self::Pareto(_) => self.inverse(p),
        }
    }

    /// The inverse of the distribution function, where it has a closed form.
    fn inverse(self, p: f64) -> f64 {
        match self {
            Self::Lognormal(deviation) => {
                CENTRE * (deviation * Normal::standard().inverse_cdf(p)).exp()
            }
            Self::Gumbel => CENTRE - SPREAD * (-p.ln()).ln(),
            Self::Weibull(shape) => CENTRE + SPREAD * (-(-p).ln_1p()).powf(1.0 / shape),
            Self::BoundedPareto(index) => {
                let whole = 1.0 - 10.0_f64.powf(-index);
                CENTRE * (1.0 - p * whole).powf(-1.0 / index)
            }
            Self::Pareto(index) => CENTRE * (1.0 - p).powf(-1.0 / index),
            _ => CENTRE + SPREAD * Normal::standard().inverse_cdf(p),
        }
    }

    /// The next time, at a share `at` of the campaign.
    fn next(self, at: f64, state: &mut State, random: &mut Random) -> f64 {
        match self {
            Self::Normal => CENTRE + SPREAD * normal(random),
            Self::Trend(rise) => CENTRE + SPREAD * (rise * at + normal(random)),
            Self::Step(rise) => {
                let level = if at < 2.0 / 3.0 { 0.0 } else { rise };
                CENTRE + SPREAD * (level + normal(random))
            }
            Self::Lognormal(deviation) => CENTRE * (deviation * normal(random)).exp(),
            Self::Gumbel | Self::Weibull(_) | Self::BoundedPareto(_) | Self::Pareto(_) => {
                self.inverse(uniform(random))
            }
            Self::Mixture => mode(uniform(random) < MODE_SHARE, random),
            Self::Autoregressive(phi) => {
                state.value = phi * state.value + (1.0 - phi * phi).sqrt() * normal(random);
                CENTRE + SPREAD * state.value
            }
            Self::Bursts => {
                let change = if state.burst {
                    BURST_END
                } else {
                    BURST_END * MODE_SHARE / (1.0 - MODE_SHARE)
                };
                state.burst ^= uniform(random) < change;
                mode(state.burst, random)
            }
        }
    }
}

/// What a process remembers.
struct State {
    value: f64,
    burst: bool,
}

fn mode(slow: bool, random: &mut Random) -> f64 {
    CENTRE + SPREAD * (normal(random) + if slow { SECOND_MODE } else { 0.0 })
}

/// Bisection on the distribution function of the two modes.
fn mixture_quantile(p: f64) -> f64 {
    let law = Normal::standard();
    let below =
        |z: f64| (1.0 - MODE_SHARE) * law.cdf(z) + MODE_SHARE * law.cdf(z - SECOND_MODE) < p;
    CENTRE + SPREAD * super::optimise::last_true(-10.0, 30.0, below)
}

/// A number strictly between zero and one.
fn uniform(random: &mut Random) -> f64 {
    ((random.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

fn normal(random: &mut Random) -> f64 {
    let radius = (-2.0 * uniform(random).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(random)).cos()
}

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
use statrs::distribution::{Continuous, ContinuousCDF, Normal};

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
/// The same for rare bursts, which last thirty jobs, and for those of outliers, which last four.
const RARE_END: f64 = 1.0 / 30.0;
const OUTLIERS_END: f64 = 0.25;
/// The share of jobs in rare bursts, and in those of outliers.
const RARE_SHARE: f64 = 0.005;
const OUTLIERS_SHARE: f64 = 0.002;
/// The levels of rare bursts, in spreads: each has its own, all in this range equally likely.
const RARE_LEVELS: [f64; 2] = [20.0, 30.0];
/// Outliers lie this many spreads above the centre, and an exponential length with this mean more.
const OUTLIERS_AT: f64 = 5.0;
const OUTLIERS_MEAN: f64 = 5.0;
/// A regime ends with this probability after each job; the slower one is this many spreads slower.
const REGIME_END: f64 = 1.0 / 200.0;
const REGIME_STEP: f64 = 4.0;

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
    /// Normal, but one job in two hundred lies in a burst of thirty jobs on average, and each burst has
    /// a level of its own: a campaign sees far fewer levels than slow jobs.
    RareBursts,
    /// Normal, but one job in five hundred is an outlier; these come four at a time on average, each of
    /// a length of its own.
    OutlierBursts,
    /// [`Family::Mixture`], in two regimes of two hundred jobs on average, as between two clocks.
    Regimes,
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
        !matches!(
            self,
            Self::Autoregressive(_)
                | Self::Bursts
                | Self::RareBursts
                | Self::OutlierBursts
                | Self::Regimes
                | Self::Trend(_)
                | Self::Step(_)
        )
    }

    /// Draws a campaign of `n` samples.
    ///
    /// # Panics
    /// When `n` is zero or above [`Campaign::MOST_SAMPLES`].
    #[must_use]
    pub fn draw(self, n: usize, random: &mut Random) -> Campaign {
        let value = normal(random);
        let mut state = State { value, burst: uniform(random) < self.slow_share(), slow: false };
        if self == Self::RareBursts {
            state.value = rare_level(random);
        }
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
            Self::Mixture
            | Self::Bursts
            | Self::RareBursts
            | Self::OutlierBursts
            | Self::Regimes => {
                let below = |z: f64| self.share_below(z) < p;
                CENTRE + SPREAD * super::optimise::last_true(-10.0, 200.0, below)
            }
            Self::Lognormal(_)
            | Self::Gumbel
            | Self::Weibull(_)
            | Self::BoundedPareto(_)
            | Self::Pareto(_) => self.inverse(p),
        }
    }

    /// The share of jobs in bursts, or in the slower mode.
    fn slow_share(self) -> f64 {
        match self {
            Self::RareBursts => RARE_SHARE,
            Self::OutlierBursts => OUTLIERS_SHARE,
            _ => MODE_SHARE,
        }
    }

    /// The share of jobs at most `z` spreads above the centre, for the families that mix two laws.
    fn share_below(self, z: f64) -> f64 {
        let law = Normal::standard();
        let slow = match self {
            Self::RareBursts => {
                // The integral of the normal law over the levels.
                let primitive = |x: f64| x * law.cdf(x) + law.pdf(x);
                let [low, high] = RARE_LEVELS;
                (primitive(z - low) - primitive(z - high)) / (high - low)
            }
            Self::OutlierBursts => -(-(z - OUTLIERS_AT).max(0.0) / OUTLIERS_MEAN).exp_m1(),
            _ => law.cdf(z - SECOND_MODE),
        };
        let at =
            |quick: f64, slow: f64| (1.0 - self.slow_share()) * quick + self.slow_share() * slow;
        match self {
            Self::Regimes => {
                let later = z - REGIME_STEP;
                f64::midpoint(
                    at(law.cdf(z), slow),
                    at(law.cdf(later), law.cdf(later - SECOND_MODE)),
                )
            }
            _ => at(law.cdf(z), slow),
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
                state.next_burst(BURST_END, MODE_SHARE, random);
                mode(state.burst, random)
            }
            Self::RareBursts => {
                if state.next_burst(RARE_END, RARE_SHARE, random) {
                    state.value = rare_level(random);
                }
                let level = if state.burst { state.value } else { 0.0 };
                CENTRE + SPREAD * (level + normal(random))
            }
            Self::OutlierBursts => {
                state.next_burst(OUTLIERS_END, OUTLIERS_SHARE, random);
                let usual = normal(random);
                let outlier = OUTLIERS_AT - OUTLIERS_MEAN * uniform(random).ln();
                CENTRE + SPREAD * if state.burst { outlier } else { usual }
            }
            Self::Regimes => {
                state.slow ^= uniform(random) < REGIME_END;
                let regime = if state.slow { REGIME_STEP } else { 0.0 };
                mode(uniform(random) < MODE_SHARE, random) + SPREAD * regime
            }
        }
    }
}

/// What a process remembers.
struct State {
    /// The last value of a series, or the level of the current burst.
    value: f64,
    burst: bool,
    /// Whether the slower regime holds.
    slow: bool,
}

impl State {
    /// Moves on by one job: a burst ends with probability `end`, and begins as often as it takes for a
    /// share `slow` of all jobs to lie in one. Whether one began.
    fn next_burst(&mut self, end: f64, slow: f64, random: &mut Random) -> bool {
        let change = if self.burst { end } else { end * slow / (1.0 - slow) };
        let changes = uniform(random) < change;
        self.burst ^= changes;
        changes && self.burst
    }
}

fn rare_level(random: &mut Random) -> f64 {
    let [low, high] = RARE_LEVELS;
    low + (high - low) * uniform(random)
}

fn mode(slow: bool, random: &mut Random) -> f64 {
    CENTRE + SPREAD * (normal(random) + if slow { SECOND_MODE } else { 0.0 })
}

/// A number strictly between zero and one.
fn uniform(random: &mut Random) -> f64 {
    ((random.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

fn normal(random: &mut Random) -> f64 {
    let radius = (-2.0 * uniform(random).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(random)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stated_quantiles_are_those_of_the_drawn_times() {
        let families = [
            (Family::Mixture, 0.1),
            (Family::Bursts, 0.2),
            (Family::RareBursts, 0.2),
            (Family::OutlierBursts, 0.2),
            (Family::Regimes, 0.2),
        ];
        for (family, within) in families {
            let drawn = family.draw(1_000_000, &mut Random::new(Seed(3)));
            for p in [0.5, 0.9, 0.999] {
                let quantile = family.quantile(p);
                let below = drawn.sorted().partition_point(|time| time.0 as f64 <= quantile);
                let share = below as f64 / drawn.count() as f64;
                // The number of bursts varies, and with it the share beyond.
                let off = (share - p).abs() / (1.0 - p).min(0.1);
                assert!(off < within, "{family:?} {p}: {share}");
            }
        }
    }
}

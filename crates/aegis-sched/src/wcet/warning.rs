//! What keeps samples from carrying a claim, and what a reader of a bound must know.

use std::fmt;

use aegis_trace::Nanos;
use serde::{Serialize, Serializer};

use super::share::Share;

/// A property of the samples that a method does not survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Diagnosis {
    /// The process changed while it was measured: no method carries a claim.
    Nonstationary,
    /// Samples tell of the next ones: they say as much as fewer would.
    Dependent,
    /// Too few different values in the tail for a law to be fitted.
    TailTies,
    /// The fitted tail has no variance: extrapolating it says nothing.
    VeryHeavyTail,
    /// One sample, or all of them equal: nothing can be tested.
    Degenerate,
}

/// One thing to know about an answer; in a report, a sentence.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// Nothing varies.
    Degenerate {
        /// How many samples there are.
        n: usize,
    },
    /// Too few samples for any validity test.
    Untested {
        /// How many there are.
        n: usize,
        /// How many the tests need.
        need: usize,
    },
    /// The process changed.
    Nonstationary {
        /// The index of the last sample before the clearest step, counted from zero.
        index: usize,
    },
    /// Samples depend on each other.
    Dependent {
        /// How many there are.
        n: usize,
        /// How many independent ones say as much.
        n_eff: usize,
    },
    /// The slowest samples come one after another.
    OutlierBursts,
    /// The order statistic needs more.
    NotEnoughSamples {
        /// Independent samples.
        have: usize,
        /// What the question needs.
        need: u64,
        /// How many samples that depend as much as these would do; equal to `need` if they do not.
        like_these: u64,
        /// The question.
        coverage: Share,
        /// The question.
        confidence: Share,
    },
    /// The tail has too few different values for a fit.
    TailTies {
        /// How many it has.
        distinct: usize,
        /// How many it should have.
        need: usize,
    },
    /// The shape of the tail is above one half.
    VeryHeavyTail {
        /// The shape.
        xi: f64,
    },
    /// The shape of the tail is above zero beyond chance.
    HeavyTail {
        /// The shape.
        xi: f64,
    },
    /// The tail does not look like the law fitted to it.
    TailMisfit {
        /// The probability of that by chance.
        p: f64,
    },
    /// The target lies too far beyond the samples to be extrapolated to.
    BeyondReach {
        /// How many samples it would take.
        need: u64,
    },
    /// The extrapolation is more than three times the maximum.
    FarAboveMaximum {
        /// The extrapolation.
        bound: Nanos,
    },
    /// A tail is not extrapolated from samples that depend on each other.
    TailNotExtrapolated {
        /// How many there are.
        n: usize,
        /// How many independent ones say as much.
        n_eff: usize,
    },
    /// Block maxima need more blocks.
    NotEnoughBlocks {
        /// How many the samples fill.
        have: usize,
        /// How many a fit needs.
        need: usize,
    },
    /// The search for the likeliest law ended at the smallest shape that is fitted.
    ShapeClipped {
        /// Of which fit.
        method: &'static str,
    },
    /// No law could be fitted, or the target lies inside the samples.
    NoTailBound,
    /// The bound rests on a model of the tail.
    ModelBased,
    /// The method carries no claim by its nature.
    NoClaimByMethod {
        /// Which.
        method: &'static str,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Degenerate { n: 1 } => f.write_str("one sample shows no spread; nothing can be tested"),
            Self::Degenerate { n } => write!(
                f,
                "all {n} samples are equal: the clock may be too coarse, and nothing can be tested"
            ),
            Self::Untested { n, need } => {
                write!(f, "{n} samples are too few for the validity tests, which need {need}")
            }
            Self::Nonstationary { index } => write!(
                f,
                "the process changed while it was measured, most clearly after sample {index} (from 0)"
            ),
            Self::Dependent { n, n_eff } => {
                write!(f, "samples depend on each other: these {n} say as much as {n_eff} independent ones")
            }
            Self::OutlierBursts => f.write_str(
                "the slowest samples come in bursts: each burst counts as few observations, not as many",
            ),
            Self::NotEnoughSamples { have, need, like_these, coverage, confidence } => {
                let asked = format!("coverage {coverage} at confidence {confidence}");
                write!(f, "not enough samples: have {have}, need {need} for {asked}")?;
                like_these_if_more(*like_these, *need, f)
            }
            Self::TailTies { distinct, need } => write!(
                f,
                "the tail has {distinct} different values and a fit needs {need}: no extrapolation"
            ),
            Self::VeryHeavyTail { xi } => {
                write!(f, "the tail is very heavy (xi {xi:.2} > 0.5): no extrapolation")
            }
            Self::HeavyTail { xi } => {
                write!(f, "the tail is heavier than exponential beyond chance (xi {xi:.2})")
            }
            Self::TailMisfit { p } => write!(
                f,
                "the tail does not look like a generalised Pareto law (p {p:.3}): no extrapolation"
            ),
            Self::BeyondReach { need } => write!(
                f,
                "the coverage lies too far beyond the samples to extrapolate; {need} samples reach it"
            ),
            Self::FarAboveMaximum { bound } => write!(
                f,
                "the extrapolation, {bound}, is more than three times the longest sample: not used"
            ),
            Self::TailNotExtrapolated { n, n_eff } => write!(
                f,
                "a tail is not extrapolated from dependent samples ({n} that say as much as {n_eff})"
            ),
            Self::NotEnoughBlocks { have, need } => {
                write!(f, "the samples fill {have} blocks, and block maxima need {need}")
            }
            Self::ShapeClipped { method } => write!(
                f,
                "the likeliest shape of the {method} fit is at its limit of -0.5 and may lie below"
            ),
            Self::NoTailBound => f.write_str("no tail law bounds this coverage"),
            Self::ModelBased => f.write_str(
                "the bound rests on a model of the tail, which no sample beyond the maximum supports",
            ),
            Self::NoClaimByMethod { method } => {
                write!(f, "the method `{method}` carries no claim, whatever the samples say")
            }
        }
    }
}

/// How many samples that depend on each other it takes, where it takes more of them.
fn like_these_if_more(like_these: u64, need: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if like_these == need {
        return Ok(());
    }
    write!(f, ", or about {like_these} that depend as much as these")
}

impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

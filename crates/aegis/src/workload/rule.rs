//! The `[wcet]` table: how a cost is made from profiled samples.

use aegis_sched::wcet::{CostRule, Method, Question, Share, order};

use crate::environment::Property;

use super::SAMPLES_MAX;

/// `wcet.samples` when it is not stated, for the margin rule.
pub const SAMPLES_DEFAULT: u32 = 100;
/// `wcet.margin_percent` when it is not stated.
pub const MARGIN_PERCENT_DEFAULT: u32 = 20;
/// And for a method that makes a claim: this many times what independent samples need. On a machine that
/// is not quite quiet two samples say as much as one.
pub const SAMPLES_FACTOR: u32 = 2;

/// The table, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WcetRule {
    /// Profile runs per stage, from one to [`SAMPLES_MAX`].
    pub samples: u32,
    /// Percent added to the bound, at most [`MARGIN_PERCENT_MAX`](super::MARGIN_PERCENT_MAX).
    pub margin_percent: u32,
    /// How the bound is made; with [`Method::Margin`] it is the observed maximum.
    pub method: Method,
    /// The share of jobs that shall stay below the bound.
    pub coverage: Share,
    /// The probability, over campaigns, that they do.
    pub confidence: Share,
    /// What becomes of a model whose samples carry no claim.
    pub unclaimed: Unclaimed,
    /// What may differ between measuring and running.
    pub accept: Vec<Property>,
    /// The keys that are stated and that the method does not read: those of a claim, of the margin rule.
    pub unread: Vec<&'static str>,
}

/// What becomes of a model whose samples carry no claim, where a method was asked for that makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unclaimed {
    /// Its evidence is refused.
    Refuse,
    /// Its cost is the bound without a claim, plus the margin.
    Accept,
}

impl WcetRule {
    /// How many samples to take when no number is stated: for a method that makes a claim, twice what
    /// the claim needs of independent samples, as far as a profile goes.
    #[must_use]
    pub fn samples_for(method: Method, coverage: Share, confidence: Share) -> u32 {
        if method == Method::Margin {
            return SAMPLES_DEFAULT;
        }
        let need = order::samples_needed(coverage, confidence);
        let taken = need.saturating_mul(u64::from(SAMPLES_FACTOR));
        u32::try_from(taken).unwrap_or(SAMPLES_MAX).clamp(SAMPLES_DEFAULT, SAMPLES_MAX)
    }

    /// The rule as the estimators take it.
    #[must_use]
    pub fn cost_rule(&self) -> CostRule {
        let Self { method, coverage, confidence, margin_percent, .. } = *self;
        CostRule {
            question: Question { coverage, confidence, method, margin_percent },
            margin_percent,
        }
    }
}

/// [`SAMPLES_DEFAULT`] and [`MARGIN_PERCENT_DEFAULT`], by the margin rule.
impl Default for WcetRule {
    fn default() -> Self {
        Self {
            samples: SAMPLES_DEFAULT,
            margin_percent: MARGIN_PERCENT_DEFAULT,
            method: Method::Margin,
            coverage: Share::P99,
            confidence: Share::P99,
            unclaimed: Unclaimed::Refuse,
            accept: Vec::new(),
            unread: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_takes_twice_the_samples_it_needs_and_no_more_than_a_profile_goes() {
        let share = |text: &str| text.parse::<Share>().expect("a share");
        let of = |method, p, g| WcetRule::samples_for(method, share(p), share(g));
        assert_eq!(of(Method::Margin, "0.99", "0.99"), 100);
        assert_eq!(of(Method::Auto, "0.99", "0.99"), 918);
        assert_eq!(of(Method::Order, "0.999", "0.99"), 9_206);
        assert_eq!(of(Method::Auto, "0.5", "0.5"), 100);
        assert_eq!(of(Method::Gpd, "0.999999999", "0.99"), SAMPLES_MAX);
    }
}

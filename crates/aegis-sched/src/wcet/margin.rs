//! The plain margin rule: a quantile of what was seen, times a factor.
//!
//! It carries no claim. A quantile of the samples is below that of the process about half of the time,
//! and the margin is a judgement of what the samples did not see, not a measurement of it.

use aegis_trace::Nanos;

use super::campaign::Campaign;
use super::share::Share;

/// The margin of who states none: half of the quantile.
pub const SAFETY_MARGIN_PERCENT: u32 = 50;

/// The quantile of `samples` at `confidence_level` by nearest rank, plus `safety_margin` percent of it,
/// rounded up; saturates. The level is a share of the samples, and in spite of its name no confidence.
#[must_use]
pub fn compute_wcet(samples: &Campaign, confidence_level: Share, safety_margin: u32) -> Nanos {
    with_margin(samples.quantile(confidence_level), safety_margin)
}

/// `time` plus `percent` of it, rounded up; saturates.
#[must_use]
pub fn with_margin(time: Nanos, percent: u32) -> Nanos {
    let scaled = u128::from(time.0) * (100 + u128::from(percent));
    Nanos(u64::try_from(scaled.div_ceil(100)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_a_quantile_and_a_factor_rounded_up() {
        let samples = Campaign::new((1..=100).map(Nanos).collect()).expect("valid times");
        assert_eq!(compute_wcet(&samples, Share::P99, 50), Nanos(149)); // 99 * 1.5 = 148.5
        assert_eq!(compute_wcet(&samples, Share::P95, 0), Nanos(95));
        assert_eq!(with_margin(Nanos::MAX, 1), Nanos::MAX);
    }
}

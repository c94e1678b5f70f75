//! The plain margin rule: observed maximum plus a margin.
//!
//! It carries no claim. A maximum of `n` samples says with 99 % confidence only that a share of
//! `0.01^(1/n)` of all runs stays below it (95.5 % for 100 samples), and the margin is the user's
//! judgement of what the samples did not see. What makes it usable all the same is that every run
//! is held to it: an execution beyond it is recorded as a broken assumption, with the job's name.

use aegis_trace::Nanos;
use serde::{Deserialize, Serialize};

use super::samples::Samples;

/// What is known about the execution time of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WcetProfile {
    /// One entry per stage.
    pub stages: Vec<StageProfile>,
    /// How many times each stage was measured.
    pub sample_count: usize,
    /// The margin on top of the observed maximum, in percent.
    pub margin_percent: u32,
}

/// What is known about the execution time of one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageProfile {
    /// The cost the analysis uses: observed maximum plus margin, rounded up.
    pub worst_case: Nanos,
    /// The longest time seen: the high-water mark.
    pub high_water: Nanos,
    /// The mean, rounded up; for capacity planning.
    pub average_case: Nanos,
    /// The shortest time seen.
    pub best_case: Nanos,
}

impl WcetProfile {
    /// Applies the margin rule to every stage. O(samples).
    #[must_use]
    pub fn with_margin(samples: &Samples, margin_percent: u32) -> Self {
        let stages = samples.stages().iter().map(|times| stage(times, margin_percent)).collect();
        Self { stages, sample_count: samples.count(), margin_percent }
    }

    /// The cost of each stage.
    #[must_use]
    pub fn costs(&self) -> Vec<Nanos> {
        self.stages.iter().map(|stage| stage.worst_case).collect()
    }
}

fn stage(times: &[Nanos], margin_percent: u32) -> StageProfile {
    let high_water = times.iter().copied().max().expect("a stage has samples");
    let best_case = times.iter().copied().min().expect("a stage has samples");
    let sum: u128 = times.iter().map(|time| u128::from(time.0)).sum();
    let average_case = narrow(sum.div_ceil(times.len() as u128));
    let scaled = u128::from(high_water.0) * (100 + u128::from(margin_percent));
    StageProfile { worst_case: narrow(scaled.div_ceil(100)), high_water, average_case, best_case }
}

/// Saturates: a cost of 584 years is refused by every deadline.
fn narrow(nanos: u128) -> Nanos {
    Nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_the_maximum_plus_margin_rounded_up() {
        let times = [7, 3, 5].map(Nanos).to_vec();
        let profile = WcetProfile::with_margin(&Samples::new(vec![times]).expect("fine"), 20);
        let expected = StageProfile {
            worst_case: Nanos(9), // 7 * 1.2 = 8.4
            high_water: Nanos(7),
            average_case: Nanos(5),
            best_case: Nanos(3),
        };
        assert_eq!(profile.stages, [expected]);
        assert_eq!(profile.costs(), [Nanos(9)]);
    }

    #[test]
    fn absurd_samples_saturate_instead_of_wrapping() {
        let samples = Samples::new(vec![vec![Nanos::MAX]]).expect("fine");
        assert_eq!(WcetProfile::with_margin(&samples, 50).costs(), [Nanos::MAX]);
    }
}

//! One campaign: the times of one thing, in the order they were measured.
//!
//! The order is what the validity tests read, the sorted copy what the estimators read; both are
//! made once.

use aegis_trace::{Category, Nanos};

use super::share::Share;

/// Measured times, at least one, none zero, with a sorted copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Campaign {
    times: Vec<Nanos>,
    sorted: Vec<Nanos>,
}

/// Why times are no campaign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CampaignError {
    /// Nothing was measured.
    #[error("there are no samples")]
    Empty,
    /// A time of zero: the clock was too coarse, or nothing ran.
    #[error("sample {index} is zero: the clock was too coarse, or nothing ran")]
    Zero {
        /// Which, counted from zero.
        index: usize,
    },
    /// More than are kept.
    #[error("there are more than {limit} samples")]
    TooMany {
        /// [`Campaign::MOST_SAMPLES`].
        limit: usize,
    },
}

impl CampaignError {
    /// Always [`Category::Permanent`].
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Empty | Self::Zero { .. } | Self::TooMany { .. } => Category::Permanent,
        }
    }
}

impl Campaign {
    /// The most samples of one campaign. A coverage of 0.999999 at 99 % confidence needs 4 605 168;
    /// an estimate holds about 65 bytes for each sample at its peak, so 650 MB in all.
    pub const MOST_SAMPLES: usize = 10_000_000;

    /// Checks `times`, which are in the order of measuring, and sorts a copy: `O(n log n)`.
    ///
    /// # Errors
    /// [`CampaignError`], Permanent.
    pub fn new(times: Vec<Nanos>) -> Result<Self, CampaignError> {
        if times.is_empty() {
            return Err(CampaignError::Empty);
        }
        if times.len() > Self::MOST_SAMPLES {
            return Err(CampaignError::TooMany { limit: Self::MOST_SAMPLES });
        }
        if let Some(index) = times.iter().position(|time| *time == Nanos::ZERO) {
            return Err(CampaignError::Zero { index });
        }
        let mut sorted = times.clone();
        sorted.sort_unstable();
        Ok(Self { times, sorted })
    }

    /// The times in the order of measuring.
    #[must_use]
    pub fn times(&self) -> &[Nanos] {
        &self.times
    }

    /// The times in ascending order.
    #[must_use]
    pub fn sorted(&self) -> &[Nanos] {
        &self.sorted
    }

    /// How many there are; at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.times.len()
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Nanos {
        self.sorted[self.sorted.len() - 1]
    }

    /// The shortest.
    #[must_use]
    pub fn min(&self) -> Nanos {
        self.sorted[0]
    }

    /// The `k`-th smallest, counted from one.
    ///
    /// # Panics
    /// When `k` is zero or exceeds the count.
    #[must_use]
    pub fn order_statistic(&self, k: usize) -> Nanos {
        self.sorted[k - 1]
    }

    /// The smallest time that a share of the samples does not exceed: the nearest rank.
    #[must_use]
    pub fn quantile(&self, share: Share) -> Nanos {
        self.order_statistic(share.rank_of(self.count()))
    }

    /// The mean, rounded up.
    #[must_use]
    pub fn mean(&self) -> Nanos {
        let sum: u128 = self.times.iter().map(|time| u128::from(time.0)).sum();
        let mean = sum.div_ceil(self.times.len() as u128);
        Nanos(u64::try_from(mean).expect("a mean is at most the maximum"))
    }

    /// The standard deviation in nanoseconds; zero for one sample.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        let mean = self.mean_as_float();
        let squares: f64 = self.times.iter().map(|time| (time.0 as f64 - mean).powi(2)).sum();
        (squares / (self.times.len() as f64 - 1.0).max(1.0)).sqrt()
    }

    /// Standard deviation over mean; zero for one sample. For display.
    #[must_use]
    pub fn variation(&self) -> f64 {
        self.deviation() / self.mean_as_float()
    }

    /// The mean less and plus `reach` nanoseconds, rounded outwards; never below zero.
    pub(super) fn mean_within(&self, reach: f64) -> [Nanos; 2] {
        let mean = self.mean_as_float();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        [(mean - reach).floor().max(0.0) as u64, (mean + reach).ceil() as u64].map(Nanos)
    }

    fn mean_as_float(&self) -> f64 {
        self.times.iter().map(|time| time.0 as f64).sum::<f64>() / self.times.len() as f64
    }

    /// The largest length that divides every difference of two samples: what the clock resolved, or
    /// a multiple of it. Zero when all samples are equal, and then nothing is known of it.
    #[must_use]
    pub fn quantum(&self) -> Nanos {
        let steps = self.sorted.windows(2).map(|pair| pair[1].0 - pair[0].0);
        Nanos(steps.fold(0, greatest_common_divisor))
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(times: &[u64]) -> Campaign {
        Campaign::new(times.iter().copied().map(Nanos).collect()).expect("valid times")
    }

    #[test]
    fn figures_are_those_of_the_samples() {
        let it = campaign(&[700, 300, 500, 300]);
        assert_eq!(
            (it.min(), it.max(), it.mean(), it.count()),
            (Nanos(300), Nanos(700), Nanos(450), 4)
        );
        assert_eq!(it.quantile("0.5".parse().expect("a share")), Nanos(300));
        assert_eq!(it.quantile("0.75".parse().expect("a share")), Nanos(500));
        assert_eq!(it.quantile(Share::P99), Nanos(700));
        assert_eq!(it.quantum(), Nanos(200));
        assert!((it.variation() - 0.4255).abs() < 1e-4, "{}", it.variation());
        assert_eq!(campaign(&[5, 5]).quantum(), Nanos::ZERO);
    }

    #[test]
    fn times_that_measure_nothing_are_refused() {
        assert_eq!(Campaign::new(vec![]), Err(CampaignError::Empty));
        let zero = Campaign::new(vec![Nanos(1), Nanos(0)]);
        assert_eq!(zero, Err(CampaignError::Zero { index: 1 }));
    }

    #[test]
    fn absurd_times_do_not_wrap() {
        let it = campaign(&[u64::MAX, u64::MAX, 1]);
        assert_eq!(it.max(), Nanos::MAX);
        assert!(it.mean() > Nanos(u64::MAX / 2));
    }
}

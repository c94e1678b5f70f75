//! Measured execution times of one model, stage by stage.

use aegis_trace::{Category, Nanos};
use serde::{Deserialize, Serialize};

/// At least one time per stage, none of them zero, as many for each stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<Nanos>>", into = "Vec<Vec<Nanos>>")]
pub struct Samples {
    stages: Vec<Vec<Nanos>>,
}

/// Why times cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// No stage.
    #[error("there are no stages")]
    NoStages,
    /// A stage without times.
    #[error("stage {stage} has no samples")]
    Empty {
        /// Which.
        stage: usize,
    },
    /// A stage with more or fewer times than the first.
    #[error("stage {stage} has {found} samples and the first has {expected}")]
    Uneven {
        /// Which.
        stage: usize,
        /// How many it has.
        found: usize,
        /// How many the first has.
        expected: usize,
    },
    /// A time of zero: the clock was too coarse, or nothing ran.
    #[error("stage {stage} has a sample of zero")]
    Zero {
        /// Which.
        stage: usize,
    },
}

impl SampleError {
    /// Always [`Category::Permanent`].
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::NoStages | Self::Empty { .. } | Self::Uneven { .. } | Self::Zero { .. } => {
                Category::Permanent
            }
        }
    }
}

impl Samples {
    /// Checks `stages`: one list of times for each stage, in order.
    ///
    /// # Errors
    /// [`SampleError`], Permanent, for the first list that cannot be used.
    pub fn new(stages: Vec<Vec<Nanos>>) -> Result<Self, SampleError> {
        let expected = stages.first().ok_or(SampleError::NoStages)?.len();
        for (stage, times) in stages.iter().enumerate() {
            let found = times.len();
            if found == 0 {
                return Err(SampleError::Empty { stage });
            }
            if found != expected {
                return Err(SampleError::Uneven { stage, found, expected });
            }
            if times.contains(&Nanos::ZERO) {
                return Err(SampleError::Zero { stage });
            }
        }
        Ok(Self { stages })
    }

    /// The times of each stage, in the order they were taken.
    #[must_use]
    pub fn stages(&self) -> &[Vec<Nanos>] {
        &self.stages
    }

    /// How many times each stage has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.stages[0].len()
    }
}

impl TryFrom<Vec<Vec<Nanos>>> for Samples {
    type Error = SampleError;
    fn try_from(stages: Vec<Vec<Nanos>>) -> Result<Self, SampleError> {
        Self::new(stages)
    }
}

impl From<Samples> for Vec<Vec<Nanos>> {
    fn from(samples: Samples) -> Self {
        samples.stages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_times_are_named() {
        let new = |stages: &[&[u64]]| {
            Samples::new(
                stages.iter().map(|times| times.iter().copied().map(Nanos).collect()).collect(),
            )
        };
        assert_eq!(new(&[]), Err(SampleError::NoStages));
        assert_eq!(new(&[&[1], &[]]), Err(SampleError::Empty { stage: 1 }));
        let uneven = SampleError::Uneven { stage: 1, found: 1, expected: 2 };
        assert_eq!(new(&[&[1, 2], &[3]]), Err(uneven));
        assert_eq!(new(&[&[1, 0]]), Err(SampleError::Zero { stage: 0 }));
        assert_eq!(new(&[&[1, 2], &[3, 4]]).expect("fine").count(), 2);
    }
}

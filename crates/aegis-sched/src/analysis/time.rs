//! The time model: what a blocking stage counts, and which arrivals a window holds.
//!
//! Everything here is computed on ticks: jobs arrive and are dispatched at whole instants, a stage of
//! length `q` that started strictly before a job arrived holds it up for at most `q - 1`, and **a
//! job that arrives exactly when another starts counts** (it might have been chosen). Those two
//! rules belong together; `q - 1` with windows open at their end would be optimistic by a whole job.
//!
//! In **dense** time a job may arrive at any real instant. The supremum over all arrivals is then
//! reached as the blocker's start approaches the arrivals from below, and substituting `w + 1` for
//! `w` shows that it is the bound on ticks **plus 1** where something blocks, and equal to it where
//! nothing does: with the blocker counted in full the window is open at its end, and
//! `ceil((w + 1 + J) / T) = floor((w + J) / T) + 1`. [`TimeModel::instant`] is that 1. So one set of
//! recurrences serves both models, and a parameter's unit does not matter.

use aegis_trace::Nanos;
use serde::{Deserialize, Serialize};

/// At which instants things happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeModel {
    /// At any real instant: what a device does. A blocking stage counts its full length.
    #[default]
    Dense,
    /// On ticks of the parameters' unit. A blocking stage of length `q` counts `q - 1`. True of a
    /// device only if arrivals, too, are seen on ticks.
    Discrete,
}

impl TimeModel {
    /// What has to be added to a bound on ticks when `blocking` holds the job up.
    pub(super) fn instant(self, blocking: Nanos) -> Nanos {
        match self {
            Self::Dense if blocking > Nanos::ZERO => Nanos::EPSILON,
            Self::Dense | Self::Discrete => Nanos::ZERO,
        }
    }

    /// The longest time that a stage of length `stage` holds up a job that arrives after its start.
    pub(super) fn held_up(self, stage: Nanos) -> Nanos {
        match self {
            Self::Dense => stage,
            Self::Discrete => ticks(stage),
        }
    }
}

/// What a blocking stage counts on ticks.
pub(super) fn ticks(stage: Nanos) -> Nanos {
    stage.saturating_sub(Nanos::EPSILON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dense_time_has_an_instant_before_the_tick() {
        let models = [TimeModel::Dense, TimeModel::Discrete];
        assert_eq!(models.map(|time| time.instant(Nanos(3))), [Nanos(1), Nanos(0)]);
        assert_eq!(models.map(|time| time.instant(Nanos(0))), [Nanos(0), Nanos(0)]);
        assert_eq!(models.map(|time| time.held_up(Nanos(3))), [Nanos(3), Nanos(2)]);
        assert_eq!(models.map(|time| time.held_up(Nanos(0))), [Nanos(0), Nanos(0)]);
    }
}

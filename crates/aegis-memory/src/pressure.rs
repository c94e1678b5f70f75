//! Memory pressure: what is refused while the device runs short.
//!
//! ```text
//!                free < low.enter              free < critical.enter
//!        Ample ------------------> Low ------------------------> Critical
//!          ^  \                    |  ^                            |   |
//!          |   \___ free < critical.enter _______________________> |   |
//!          |                       |  |____ free >= critical.leave |   |
//!          |______ free >= low.leave                                   |
//!          |______ free >= low.leave __________________________________|
//!
//!   level      new models    evictions
//!   Ample      accepted      none
//!   Low        refused       none
//!   Critical   refused       those the caller names, as many as are needed
//! ```
//!
//! The device is shared with programs that are not ours, so free memory moves by itself. Nothing
//! that was admitted is touched: its memory is reserved. Each level is left later than it is
//! entered, so that a figure that swings around one threshold changes the level once.
//!
//! # Invariants
//! 1. A pure state machine: the level is a function of the level before and of what is observed.
//! 2. Nothing is evicted here, and nothing is named that the caller did not name first.

pub use aegis_trace::PressureLevel;
use aegis_trace::{Bytes, ModelId};

use crate::error::PressureError;

/// When a level is entered and left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// With less free memory than this it is entered.
    pub enter: Bytes,
    /// With as much free memory as this it is left; more than `enter`.
    pub leave: Bytes,
}

/// The bands of both levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureThresholds {
    /// Of [`PressureLevel::Low`].
    pub low: Band,
    /// Of [`PressureLevel::Critical`]; below those of `low` at both ends.
    pub critical: Band,
}

/// A change of level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureChange {
    /// The level before.
    pub from: PressureLevel,
    /// The level now.
    pub to: PressureLevel,
    /// What was observed.
    pub free: Bytes,
}

/// Follows the free memory of a device, and says what its level refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PressurePolicy {
    thresholds: PressureThresholds,
    level: PressureLevel,
    free: Bytes,
}

impl PressurePolicy {
    /// A policy that has observed nothing yet, and takes memory to be ample.
    ///
    /// # Errors
    /// [`PressureError::NoHysteresis`] and [`PressureError::NotNested`], both permanent.
    pub fn new(thresholds: PressureThresholds) -> Result<Self, PressureError> {
        let PressureThresholds { low, critical } = thresholds;
        if let Some(Band { enter, leave }) =
            [low, critical].into_iter().find(|b| b.leave <= b.enter)
        {
            return Err(PressureError::NoHysteresis { enter, leave });
        }
        if critical.enter > low.enter || critical.leave > low.leave {
            return Err(PressureError::NotNested);
        }
        Ok(Self { thresholds, level: PressureLevel::Ample, free: Bytes(u64::MAX) })
    }

    /// The level after the last observation.
    #[must_use]
    pub fn level(&self) -> PressureLevel {
        self.level
    }

    /// Takes note of the device's free memory; returns the change, if the level is another one now.
    pub fn observe(&mut self, free: Bytes) -> Option<PressureChange> {
        let from = self.level;
        self.free = free;
        self.level = self.next(free);
        (self.level != from).then_some(PressureChange { from, to: self.level, free })
    }

    /// Whether a new model may be planned.
    ///
    /// # Errors
    /// [`PressureError::Refused`] (transient) below [`PressureLevel::Ample`], with how much must be
    /// free again.
    pub fn accepts_new_model(&self) -> Result<(), PressureError> {
        match self.level {
            PressureLevel::Ample => Ok(()),
            level @ (PressureLevel::Low | PressureLevel::Critical) => {
                let needed = self.thresholds.low.leave;
                Err(PressureError::Refused { level, free: self.free, needed })
            }
        }
    }

    /// The models to evict, out of those the caller would give up, in its order: as few as would
    /// leave the critical level. Empty at any other level, or if the caller gives up none; all of
    /// them if they are not enough. Each comes with the bytes its eviction gives back to the device.
    #[must_use]
    pub fn victims(&self, expendable: &[(ModelId, Bytes)]) -> Vec<ModelId> {
        let mut victims = Vec::new();
        if self.level != PressureLevel::Critical {
            return victims;
        }
        let mut free = self.free;
        for (model, gives_back) in expendable {
            if free >= self.thresholds.critical.leave {
                break;
            }
            victims.push(*model);
            free = free.checked_add(*gives_back).unwrap_or(Bytes(u64::MAX));
        }
        victims
    }

    /// The table of the module, row by row.
    fn next(&self, free: Bytes) -> PressureLevel {
        let PressureThresholds { low, critical } = self.thresholds;
        match self.level {
            _ if free < critical.enter => PressureLevel::Critical,
            PressureLevel::Critical if free < critical.leave => PressureLevel::Critical,
            PressureLevel::Ample if free >= low.enter => PressureLevel::Ample,
            PressureLevel::Low | PressureLevel::Critical if free >= low.leave => {
                PressureLevel::Ample
            }
            PressureLevel::Ample | PressureLevel::Low | PressureLevel::Critical => {
                PressureLevel::Low
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thresholds() -> PressureThresholds {
        let band = |enter, leave| Band { enter: Bytes(enter), leave: Bytes(leave) };
        PressureThresholds { low: band(100, 150), critical: band(20, 40) }
    }

    fn policy() -> PressurePolicy {
        PressurePolicy::new(thresholds()).expect("sound")
    }

    #[test]
    fn each_level_is_left_later_than_it_is_entered() {
        use PressureLevel::{Ample, Critical, Low};
        let mut policy = policy();
        for (free, level) in [
            (100, Ample),
            (99, Low),
            (149, Low),
            (20, Low),
            (19, Critical),
            (39, Critical),
            (40, Low),
            (150, Ample),
            (0, Critical),
            (1000, Ample),
        ] {
            let before = policy.level();
            let change = policy.observe(Bytes(free));
            assert_eq!(policy.level(), level, "at {free}");
            assert_eq!(change.is_some(), before != level, "at {free}");
        }
    }

    #[test]
    fn a_figure_that_swings_around_a_threshold_changes_the_level_once() {
        let mut policy = policy();
        let changes = (0..100).filter_map(|n| policy.observe(Bytes(99 + n % 3)));
        assert_eq!(changes.count(), 1);
    }

    #[test]
    fn below_ample_new_models_are_refused_with_numbers() {
        let mut policy = policy();
        assert_eq!(policy.accepts_new_model(), Ok(()));
        policy.observe(Bytes(50));
        let refusal = policy.accepts_new_model().expect_err("low");
        assert_eq!(
            refusal.to_string(),
            "no new model while free memory is low: 50 B are free, and 150 B must be"
        );
        assert_eq!(refusal.category(), aegis_trace::Category::Transient);
    }

    #[test]
    fn only_what_the_caller_gives_up_is_named_and_no_more_than_is_needed() {
        let expendable = [(0, 8), (1, 20), (2, 500)].map(|(m, b)| (ModelId::first(m), Bytes(b)));
        let mut policy = policy();
        policy.observe(Bytes(50));
        assert_eq!(policy.victims(&expendable), []);
        policy.observe(Bytes(15));
        assert_eq!(policy.victims(&expendable), [ModelId::first(0), ModelId::first(1)]);
        assert_eq!(policy.victims(&[]), []);
        assert_eq!(policy.victims(&expendable[..1]), [ModelId::first(0)]);
    }

    #[test]
    fn thresholds_must_nest_and_leave_room() {
        let band = |enter, leave| Band { enter: Bytes(enter), leave: Bytes(leave) };
        let flat = PressureThresholds { low: band(100, 100), ..thresholds() };
        assert!(matches!(PressurePolicy::new(flat), Err(PressureError::NoHysteresis { .. })));
        let crossed = PressureThresholds { critical: band(120, 140), ..thresholds() };
        assert_eq!(PressurePolicy::new(crossed), Err(PressureError::NotNested));
    }
}

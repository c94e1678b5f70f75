//! The present state of a GPU: heat, clocks, power, and what holds its clocks back.
//!
//! A cost measured on a cool GPU at full clocks says little about the same GPU when it is hot. So
//! the state belongs to the evidence of every measurement, and a change of it is a reason to doubt
//! an old one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::state::ThrottleReason;

/// What a GPU says about itself now; what it does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceHealth {
    /// The temperature of the GPU in degrees Celsius.
    pub temperature_celsius: Option<u32>,
    /// The present clock of the multiprocessors in MHz.
    pub sm_clock_mhz: Option<u32>,
    /// The present clock of the memory in MHz.
    pub memory_clock_mhz: Option<u32>,
    /// The highest clock of the multiprocessors in MHz.
    pub sm_clock_max_mhz: Option<u32>,
    /// The highest clock of the memory in MHz.
    pub memory_clock_max_mhz: Option<u32>,
    /// The power drawn now, in milliwatts.
    pub power_milliwatts: Option<u32>,
    /// The power limit in force, in milliwatts.
    pub power_limit_milliwatts: Option<u32>,
    /// What holds the clocks back.
    pub throttle: Option<ThrottleReasons>,
    /// The share of the last sampling period (up to a second) in which a kernel ran, in per cent.
    pub busy_percent: Option<u32>,
    /// Whether the driver stays loaded while nobody uses the GPU. Otherwise clocks and settings fall
    /// back to their defaults between two programs.
    #[serde(default)]
    pub persistence: Option<bool>,
    /// Whether memory corrects errors now; a change of the setting waits for the next reset.
    #[serde(default)]
    pub ecc: Option<bool>,
}

/// Why the clocks are not at their highest; several reasons may hold at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleReasons(u64);

/// The reasons with a bit each, as NVML numbers them.
const NAMES: [(u64, &str); 9] = [
    (0x001, "idle"),
    (0x002, "application clocks"),
    (0x004, "software power cap"),
    (0x008, "hardware slowdown"),
    (0x010, "synchronised boost"),
    (0x020, "software thermal slowdown"),
    (0x040, "hardware thermal slowdown"),
    (0x080, "power brake"),
    (0x100, "display clocks"),
];

/// The reasons that no configuration asked for: the GPU is too hot or draws too much.
const DISTRESS: u64 = 0x004 | 0x008 | 0x020 | 0x040 | 0x080;

impl ThrottleReasons {
    /// The reasons of NVML's bit mask.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// NVML's bit mask.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The reasons in words that hold on every driver: nothing for idleness or a setting.
    #[must_use]
    pub fn reasons(self) -> Vec<ThrottleReason> {
        let groups = [
            (0x020 | 0x040, ThrottleReason::Thermal),
            (0x004, ThrottleReason::Power),
            (0x008 | 0x080, ThrottleReason::External),
            (0x010, ThrottleReason::Synchronised),
        ];
        groups
            .into_iter()
            .filter(|(bits, _)| self.0 & bits != 0)
            .map(|(_, reason)| reason)
            .collect()
    }

    /// Whether heat or power holds the clocks back, rather than idleness or a setting. Times
    /// measured now are then longer than usual.
    #[must_use]
    pub const fn is_distressed(self) -> bool {
        self.0 & DISTRESS != 0
    }
}

impl fmt::Display for ThrottleReasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        let known = NAMES.iter().filter(|(bit, _)| self.0 & bit != 0);
        let mut unknown = self.0;
        for (index, (bit, name)) in known.enumerate() {
            unknown &= !bit;
            write!(f, "{}{name}", if index == 0 { "" } else { ", " })?;
        }
        match (unknown, unknown == self.0) {
            (0, _) => Ok(()),
            (rest, true) => write!(f, "unknown ({rest:#x})"),
            (rest, false) => write!(f, ", unknown ({rest:#x})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_named_and_none_is_swallowed() {
        let text = |bits| ThrottleReasons::from_bits(bits).to_string();
        assert_eq!(text(0), "none");
        assert_eq!(text(0x1), "idle");
        assert_eq!(text(0x24), "software power cap, software thermal slowdown");
        assert_eq!(text(0x1000), "unknown (0x1000)");
        assert_eq!(text(0x1001), "idle, unknown (0x1000)");
    }

    #[test]
    fn heat_and_power_are_distress_and_settings_are_not() {
        for (bits, distressed) in
            [(0x0, false), (0x1, false), (0x2, false), (0x4, true), (0x40, true)]
        {
            assert_eq!(ThrottleReasons::from_bits(bits).is_distressed(), distressed, "{bits:#x}");
        }
    }
}

//! The state of a device at one moment: clocks, temperature, throttling.
//!
//! How long a job takes depends on it, and unlike a [capability](crate::capability) it changes while
//! the device works. [`DeviceContext::state`] asks each driver for what it can tell; a measurement
//! keeps the state before and after, and [`DeviceState::throttled_since`] says whether the device held
//! itself back in between.
//!
//! # Invariants
//! 1. What a driver cannot tell is `None`, never zero.
//!
//! # Sources
//! The host's files: the Linux kernel's documentation, `admin-guide/pm/cpufreq` and
//! `driver-api/thermal/sysfs-api`; the counters of thermal throttling are those of x86.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::capability::DriverKind;
use crate::device::DeviceContext;
use crate::health::{DeviceHealth, ThrottleReasons};

/// The most cores or thermal zones that are read.
const ENTRIES_MAX: usize = 4_096;

/// What a device says of itself now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// The clocks of its cores or SMs: the slowest and the fastest.
    pub clock_khz: Option<ClockRange>,
    /// The clock of its memory.
    pub memory_clock_khz: Option<u64>,
    /// The highest temperature of its sensors, in thousandths of a degree Celsius.
    pub temperature_millicelsius: Option<i64>,
    /// How often it has throttled since it was started, all units together. A driver that has reasons
    /// but no counter leaves this `None`.
    pub throttle_count: Option<u64>,
    /// Why it is throttled now; empty if it is not.
    pub throttle_reasons: Option<Vec<ThrottleReason>>,
}

/// The slowest and the fastest of some clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRange {
    /// In kHz.
    pub slowest: u64,
    /// In kHz.
    pub fastest: u64,
}

/// Why a device runs slower than its clock allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ThrottleReason {
    /// It is too hot.
    Thermal,
    /// It would draw more power than it may.
    Power,
    /// An external signal holds it back.
    External,
    /// It keeps step with another device.
    Synchronised,
    /// The driver gives a reason that is none of these.
    Other,
}

impl DeviceState {
    /// Whether the device held itself back between `before` and this: a reason in either, or a counter
    /// that rose. `None` when neither is known.
    #[must_use]
    pub fn throttled_since(&self, before: &Self) -> Option<bool> {
        let rose = before.throttle_count.zip(self.throttle_count).map(|(then, now)| now > then);
        let reasons = [&before.throttle_reasons, &self.throttle_reasons];
        let any = reasons.into_iter().flatten().map(|reasons| !reasons.is_empty());
        rose.into_iter().chain(any).reduce(|a, b| a || b)
    }
}

impl DeviceContext {
    /// What the device says of itself now. Blocks on small files on `host`; on `cuda` on the
    /// management library; a simulated device has no state. Not for the path of a job.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        match self.kind() {
            DriverKind::Host => host(Path::new("/sys")),
            DriverKind::Sim => DeviceState::default(),
            DriverKind::Cuda => self.health().map(|health| gpu(&health)).unwrap_or_default(),
        }
    }
}

/// A GPU's state from what it says of its health. It has reasons for throttling, but no counter.
fn gpu(health: &DeviceHealth) -> DeviceState {
    let khz = |mhz: u32| u64::from(mhz) * 1_000;
    DeviceState {
        clock_khz: health
            .sm_clock_mhz
            .map(|clock| ClockRange { slowest: khz(clock), fastest: khz(clock) }),
        memory_clock_khz: health.memory_clock_mhz.map(khz),
        temperature_millicelsius: health.temperature_celsius.map(|heat| i64::from(heat) * 1_000),
        throttle_count: None,
        throttle_reasons: health.throttle.map(ThrottleReasons::reasons),
    }
}

/// The processor's state from the files below `sys`.
fn host(sys: &Path) -> DeviceState {
    let cores = sys.join("devices/system/cpu");
    let of_cores = |file: &str| {
        let path = |core: usize| cores.join(format!("cpu{core}")).join(file);
        (0..ENTRIES_MAX).map_while(|core| number(&path(core))).collect::<Vec<u64>>()
    };
    let clocks = of_cores("cpufreq/scaling_cur_freq");
    let range = clocks.iter().min().zip(clocks.iter().max());
    let throttles = of_cores("thermal_throttle/core_throttle_count");
    let zone = |zone: usize| number(&sys.join(format!("class/thermal/thermal_zone{zone}/temp")));
    DeviceState {
        clock_khz: range
            .map(|(slowest, fastest)| ClockRange { slowest: *slowest, fastest: *fastest }),
        memory_clock_khz: None,
        temperature_millicelsius: (0..ENTRIES_MAX).map_while(zone).max(),
        throttle_count: (!throttles.is_empty()).then(|| throttles.iter().sum()),
        throttle_reasons: None,
    }
}

/// The one number of a file.
fn number<N: std::str::FromStr>(path: &Path) -> Option<N> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(sys: &Path, file: &str, text: &str) {
        let path = sys.join(file);
        fs::create_dir_all(path.parent().expect("inside")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    #[test]
    fn the_host_tells_what_its_files_say_and_nothing_else() {
        let sys = tempfile::tempdir().expect("a folder");
        assert_eq!(host(sys.path()), DeviceState::default());
        for (core, khz, throttles) in [(0, "1800000\n", "3\n"), (1, "2400000\n", "4\n")] {
            let core = format!("devices/system/cpu/cpu{core}");
            write(sys.path(), &format!("{core}/cpufreq/scaling_cur_freq"), khz);
            write(sys.path(), &format!("{core}/thermal_throttle/core_throttle_count"), throttles);
        }
        write(sys.path(), "class/thermal/thermal_zone0/temp", "-5000\n");
        write(sys.path(), "class/thermal/thermal_zone1/temp", "61500\n");
        let expected = DeviceState {
            clock_khz: Some(ClockRange { slowest: 1_800_000, fastest: 2_400_000 }),
            temperature_millicelsius: Some(61_500),
            throttle_count: Some(7),
            ..DeviceState::default()
        };
        assert_eq!(host(sys.path()), expected);
    }

    #[test]
    fn throttling_is_a_reason_or_a_counter_that_rose() {
        let state = |count: Option<u64>, reasons: Option<&[ThrottleReason]>| DeviceState {
            throttle_count: count,
            throttle_reasons: reasons.map(<[_]>::to_vec),
            ..DeviceState::default()
        };
        let unknown = state(None, None);
        assert_eq!(unknown.throttled_since(&unknown), None);
        assert_eq!(state(Some(4), None).throttled_since(&state(Some(4), None)), Some(false));
        assert_eq!(state(Some(5), None).throttled_since(&state(Some(4), None)), Some(true));
        let (free, hot) = (state(None, Some(&[])), state(None, Some(&[ThrottleReason::Thermal])));
        assert_eq!(free.throttled_since(&free), Some(false));
        assert_eq!(free.throttled_since(&hot), Some(true));
        assert_eq!(hot.throttled_since(&free), Some(true));
    }
}

//! The environment of a measurement: what of the machine changes how long a job takes.
//!
//! A profile describes the device as it was set up. What can be read of that set-up is kept in the
//! evidence and compared before it is used; what cannot be read is `None`, and never compared.
//! Of a GPU that is what it is set to. Its name and its SMs are in the fingerprint of the device, its
//! heat and its clocks of the moment in the states that are told and not compared.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use aegis_cuda::{DeviceCapabilities, DeviceHealth};
use serde::{Deserialize, Serialize};

/// What the system says about itself; `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The release of the kernel.
    pub kernel: Option<String>,
    /// How the kernel chooses the processor's clock: the one answer of all cores, or theirs in order.
    pub governor: Option<String>,
    /// The range of that clock in kHz, as set: `MIN-MAX`.
    pub clock_khz: Option<String>,
    /// The power mode of the platform.
    pub power_mode: Option<String>,
    /// How the GPU is set; nothing on other devices, and in evidence from before it was read.
    #[serde(flatten)]
    pub gpu: GpuSettings,
}

/// What of a GPU changes how long a job takes, and stays as it is set; `None` where nobody tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuSettings {
    /// The version of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_driver: Option<String>,
    /// The compute capability: which kernels libraries choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<String>,
    /// The highest clocks of its SMs and its memory in MHz, as `SM/MEMORY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_clock_mhz: Option<String>,
    /// Whether its memory corrects errors: `on` or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecc: Option<String>,
    /// Whether the driver stays loaded between programs: `on` or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<String>,
}

impl GpuSettings {
    /// The settings of a device; nothing where it is no GPU.
    #[must_use]
    pub fn of(device: &DeviceCapabilities, health: Option<&DeviceHealth>) -> Self {
        let Some(gpu) = device.gpu() else { return Self::default() };
        let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
        let clocks = health.and_then(|it| it.sm_clock_max_mhz.zip(it.memory_clock_max_mhz));
        Self {
            gpu_driver: gpu.driver_version.clone(),
            compute_capability: device.compute_capability().map(|it| it.to_string()),
            gpu_clock_mhz: clocks.map(|(sm, memory)| format!("{sm}/{memory}")),
            // The driver answers where the management library does not.
            ecc: health.and_then(|it| it.ecc).or(gpu.ecc).map(switch),
            persistence: health.and_then(|it| it.persistence).map(switch),
        }
    }
}

/// A property that evidence is compared in, by the name a workload accepts a difference with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Property {
    /// Driver, name or number of units of the device.
    Device,
    /// The files or the declaration of a model.
    Model,
    /// The runtime or its version.
    Runtime,
    /// The release of the kernel.
    Kernel,
    /// The governor of the clock.
    Governor,
    /// The range of the clock.
    Clock,
    /// The power mode.
    PowerMode,
    /// The partition of a model, its multiprocessors, and what was busy beside it.
    Partition,
    /// The copies beside which a model was measured, where inputs go ahead.
    Copies,
    /// The version of a GPU's driver.
    GpuDriver,
    /// The compute capability of a GPU.
    ComputeCapability,
    /// The highest clocks of a GPU.
    GpuClock,
    /// Whether a GPU's memory corrects errors.
    Ecc,
    /// Whether a GPU's driver stays loaded.
    Persistence,
}

impl Property {
    /// All of them with their names.
    pub const NAMES: &[(&str, Self)] = &[
        ("device", Self::Device),
        ("model", Self::Model),
        ("runtime", Self::Runtime),
        ("kernel", Self::Kernel),
        ("governor", Self::Governor),
        ("clock", Self::Clock),
        ("power_mode", Self::PowerMode),
        ("partition", Self::Partition),
        ("copies", Self::Copies),
        ("gpu_driver", Self::GpuDriver),
        ("compute_capability", Self::ComputeCapability),
        ("gpu_clock", Self::GpuClock),
        ("ecc", Self::Ecc),
        ("persistence", Self::Persistence),
    ];

    /// As a workload names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Model => "model",
            Self::Runtime => "runtime",
            Self::Kernel => "kernel",
            Self::Governor => "governor",
            Self::Clock => "clock",
            Self::PowerMode => "power_mode",
            Self::Partition => "partition",
            Self::Copies => "copies",
            Self::GpuDriver => "gpu_driver",
            Self::ComputeCapability => "compute_capability",
            Self::GpuClock => "gpu_clock",
            Self::Ecc => "ecc",
            Self::Persistence => "persistence",
        }
    }
}

/// A property that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub property: Property,
    /// What it was when measured.
    pub measured: String,
    /// What it is.
    pub here: String,
}

impl Environment {
    /// Reads what the system says now, nothing of a GPU. Blocks on small files; a file that is not
    /// there is no error.
    #[must_use]
    pub fn read() -> Self {
        Self {
            kernel: line("/proc/sys/kernel/osrelease"),
            governor: of_cores("scaling_governor"),
            clock_khz: of_cores("scaling_min_freq")
                .zip(of_cores("scaling_max_freq"))
                .map(|(min, max)| format!("{min}-{max}")),
            power_mode: line("/sys/firmware/acpi/platform_profile"),
            gpu: GpuSettings::default(),
        }
    }

    /// The same with the settings of a GPU.
    #[must_use]
    pub fn read_with(gpu: GpuSettings) -> Self {
        Self { gpu, ..Self::read() }
    }

    /// Where `here` differs from this, as far as both are known.
    #[must_use]
    pub fn differences(&self, here: &Self) -> Vec<Difference> {
        let pairs = [
            (Property::Kernel, &self.kernel, &here.kernel),
            (Property::Governor, &self.governor, &here.governor),
            (Property::Clock, &self.clock_khz, &here.clock_khz),
            (Property::PowerMode, &self.power_mode, &here.power_mode),
            (Property::GpuDriver, &self.gpu.gpu_driver, &here.gpu.gpu_driver),
            (
                Property::ComputeCapability,
                &self.gpu.compute_capability,
                &here.gpu.compute_capability,
            ),
            (Property::GpuClock, &self.gpu.gpu_clock_mhz, &here.gpu.gpu_clock_mhz),
            (Property::Ecc, &self.gpu.ecc, &here.gpu.ecc),
            (Property::Persistence, &self.gpu.persistence, &here.gpu.persistence),
        ];
        let differs = |(property, measured, here): (Property, &Option<String>, &Option<String>)| {
            let (measured, here) = (measured.clone()?, here.clone()?);
            (measured != here).then_some(Difference { property, measured, here })
        };
        pairs.into_iter().filter_map(differs).collect()
    }
}

/// The moment now as `2026-11-26T22:05:00Z`.
#[must_use]
pub fn date() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    date_of(since.as_secs())
}

fn date_of(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut day) = (1970, days);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", day + 1)
}

/// The one line of a file.
fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// What every core says in `file`: once if they agree.
fn of_cores(file: &str) -> Option<String> {
    let of = |core: usize| line(&format!("/sys/devices/system/cpu/cpu{core}/cpufreq/{file}"));
    let mut answers: Vec<String> = (0..).map_while(of).collect();
    answers.dedup();
    (!answers.is_empty()).then(|| answers.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_know_can_differ() {
        let known = |text: &str| Some(text.to_owned());
        let measured = Environment {
            kernel: known("6.1"),
            governor: known("performance"),
            clock_khz: None,
            power_mode: known("balanced"),
            gpu: GpuSettings::default(),
        };
        let here = Environment {
            kernel: known("6.1"),
            governor: known("powersave"),
            clock_khz: known("1-2"),
            power_mode: None,
            gpu: GpuSettings { ecc: known("on"), ..GpuSettings::default() },
        };
        let expected = Difference {
            property: Property::Governor,
            measured: "performance".into(),
            here: "powersave".into(),
        };
        assert_eq!(measured.differences(&here), [expected]);
        assert_eq!(measured.differences(&measured), []);
    }

    #[test]
    fn a_setting_of_a_gpu_that_changed_is_found_by_its_name() {
        type Change = fn(&mut GpuSettings);
        let set = |change: Change| {
            let mut gpu = GpuSettings {
                gpu_driver: Some("580.159.04".into()),
                compute_capability: Some("9.0".into()),
                gpu_clock_mhz: Some("1980/2619".into()),
                ecc: Some("on".into()),
                persistence: Some("on".into()),
            };
            change(&mut gpu);
            Environment { gpu, ..Environment::default() }
        };
        let measured = set(|_| ());
        let changes: [(Property, Change); 5] = [
            (Property::GpuDriver, |gpu| gpu.gpu_driver = Some("570.1".into())),
            (Property::ComputeCapability, |gpu| gpu.compute_capability = Some("10.0".into())),
            (Property::GpuClock, |gpu| gpu.gpu_clock_mhz = Some("1755/2619".into())),
            (Property::Ecc, |gpu| gpu.ecc = Some("off".into())),
            (Property::Persistence, |gpu| gpu.persistence = Some("off".into())),
        ];
        for (property, change) in changes {
            let found = measured.differences(&set(change));
            assert_eq!(found.iter().map(|it| it.property).collect::<Vec<_>>(), [property]);
        }
        assert_eq!(measured.differences(&set(|gpu| *gpu = GpuSettings::default())), []);
    }

    #[test]
    fn a_file_without_a_gpu_is_read_and_written_as_before() {
        let text = r#"{"kernel":"6.1","governor":null,"clock_khz":null,"power_mode":null}"#;
        let read: Environment = serde_json::from_str(text).expect("an older file");
        assert_eq!(read.gpu, GpuSettings::default());
        assert_eq!(serde_json::to_string(&read).expect("plain data"), text);
        let gpu = GpuSettings { ecc: Some("on".into()), ..GpuSettings::default() };
        let with = Environment { gpu, ..read };
        let text = serde_json::to_string(&with).expect("plain data");
        assert_eq!(serde_json::from_str::<Environment>(&text).expect("it reads back"), with);
    }

    #[test]
    fn a_host_has_no_settings_of_a_gpu() {
        let host = crate::pipeline::host_capabilities().expect("a host is always there");
        assert_eq!(GpuSettings::of(&host, None), GpuSettings::default());
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date_of(0), "1970-01-01T00:00:00Z");
        assert_eq!(date_of(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(date_of(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date_of(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(date_of(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn every_property_has_its_name_once() {
        for (name, property) in Property::NAMES {
            assert_eq!(property.name(), *name);
        }
    }
}

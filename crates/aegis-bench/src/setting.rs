//! Where and of what something was measured: without this a figure is a number.

use std::sync::OnceLock;

use aegis::{DeviceHealth, GpuObserver, ThrottleReasons};
use serde::{Deserialize, Serialize};

/// The commit that the program was built from, where the build said so.
const COMMIT: Option<&str> = option_env!("AEGIS_COMMIT");

/// The setting of a measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// The commit of the program.
    pub commit: String,
    /// When it began, UTC.
    pub date: String,
    /// The workload file.
    pub workload: String,
    /// The driver of the workload.
    pub driver: String,
    /// The processor that runs the threads.
    pub processor: String,
    /// How many of its cores this process may use.
    pub cores: usize,
    /// The first GPU, where there is one.
    pub gpu: Option<Gpu>,
}

/// A GPU, and how it was at the begin and at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gpu {
    /// Its name.
    pub name: String,
    /// The version of its driver.
    pub driver: Option<String>,
    /// The highest clock of its processors, MHz.
    pub clock_max_mhz: Option<u32>,
    /// When measuring began.
    pub begun: Moment,
    /// When it ended; `None` where that was not read.
    pub ended: Option<Moment>,
}

/// The clocks of a GPU at one moment, and what weighs on them. What it does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// The clock of its processors, MHz.
    pub clock_mhz: Option<u32>,
    /// The clock of its memory, MHz.
    pub memory_clock_mhz: Option<u32>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Heat or power that held the clocks back.
    pub held_back_by: Option<String>,
}

impl Setting {
    /// This machine and this moment.
    pub(crate) fn here(workload: &str, driver: &str) -> Self {
        Self {
            commit: COMMIT.unwrap_or("not stated by the build").to_owned(),
            date: aegis::environment::date(),
            workload: workload.to_owned(),
            driver: driver.to_owned(),
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            gpu: Gpu::here(),
        }
    }

    /// Reads the clocks once more: measuring has just ended, and the GPU has not rested yet.
    pub(crate) fn end(&mut self) {
        if let Some(gpu) = &mut self.gpu {
            gpu.ended = observer().and_then(GpuObserver::health).as_ref().map(Moment::of);
        }
    }

    /// In one line, for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}; driver `{}` on {}; {} ({} cores); commit {}; {}",
            self.workload,
            self.driver,
            self.gpu.as_ref().map_or("no GPU seen".to_owned(), Gpu::line),
            self.processor,
            self.cores,
            self.commit,
            self.date
        )
    }
}

impl Gpu {
    /// The first GPU now, if there is one.
    fn here() -> Option<Self> {
        let gpu = observer()?;
        let health = gpu.health().unwrap_or_default();
        Some(Self {
            name: gpu.name().to_owned(),
            driver: gpu.driver_version(),
            clock_max_mhz: health.sm_clock_max_mhz,
            begun: Moment::of(&health),
            ended: None,
        })
    }

    fn line(&self) -> String {
        let driver = self.driver.as_deref().unwrap_or("unknown");
        let most = self.clock_max_mhz.map_or("an unknown clock".into(), |mhz| format!("{mhz} MHz"));
        format!(
            "{}, driver {driver}, at most {most}, at the begin {}; at the end {}",
            self.name,
            self.begun.line(),
            self.ended.as_ref().map_or("not read".to_owned(), Moment::line)
        )
    }
}

impl Moment {
    fn of(health: &DeviceHealth) -> Self {
        let distress = health.throttle.filter(|reasons| reasons.is_distressed());
        Self {
            clock_mhz: health.sm_clock_mhz,
            memory_clock_mhz: health.memory_clock_mhz,
            temperature: health.temperature_celsius,
            held_back_by: distress.map(|reasons: ThrottleReasons| reasons.to_string()),
        }
    }

    fn line(&self) -> String {
        let mhz = |clock: Option<u32>| {
            clock.map_or("at an unknown clock".into(), |mhz| format!("{mhz} MHz"))
        };
        let heat = self.temperature.map_or("unknown heat".into(), |heat| format!("{heat} C"));
        let held = self.held_back_by.as_ref();
        format!(
            "{}, memory {}, {heat}{}",
            mhz(self.clock_mhz),
            mhz(self.memory_clock_mhz),
            held.map_or_else(String::new, |reasons| format!(", held back by {reasons}"))
        )
    }
}

/// The processor's name, where the system tells it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

/// The first GPU as the driver counts them, from outside: looked for once, before anything is taken of
/// it, so that a fall of its free memory is this process's.
pub(crate) fn observer() -> Option<&'static GpuObserver> {
    static OBSERVER: OnceLock<Option<GpuObserver>> = OnceLock::new();
    OBSERVER.get_or_init(|| GpuObserver::open(0).ok()).as_ref()
}

/// What this process takes of the first GPU by the driver's count, whoever allocated it.
pub(crate) fn process_memory() -> Option<u64> {
    Some(observer()?.memory()?.process?.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(clock: u32, bits: u64) -> DeviceHealth {
        DeviceHealth {
            sm_clock_mhz: Some(clock),
            temperature_celsius: Some(35),
            throttle: Some(ThrottleReasons::from_bits(bits)),
            ..DeviceHealth::default()
        }
    }

    #[test]
    fn the_line_tells_the_begin_and_the_end() {
        let gpu = Gpu {
            name: "H100".into(),
            driver: Some("580".into()),
            clock_max_mhz: Some(1980),
            begun: Moment::of(&health(1980, 0)),
            ended: Some(Moment::of(&health(1755, 0x24))),
        };
        let line = gpu.line();
        assert!(line.starts_with("H100, driver 580, at most 1980 MHz, at the begin 1980 MHz"));
        assert!(line.contains("at the end 1755 MHz, memory at an unknown clock, 35 C, "), "{line}");
        assert!(line.ends_with("held back by software power cap, software thermal slowdown"));
        let unended = Gpu { ended: None, ..gpu };
        assert!(unended.line().ends_with("at the end not read"), "{}", unended.line());
    }

    #[test]
    fn idleness_and_settings_hold_nothing_back() {
        assert_eq!(Moment::of(&health(345, 0x1)).held_back_by, None);
        assert_eq!(Moment::of(&DeviceHealth::default()), Moment::default());
    }

    #[test]
    fn a_setting_says_where_it_is_with_and_without_a_gpu() {
        let mut setting = Setting::here("edge.toml", "host");
        setting.end();
        assert_eq!(setting.gpu.is_some(), observer().is_some());
        assert!(setting.line().starts_with("edge.toml; driver `host` on "));
        let text = serde_json::to_string(&setting).expect("plain data");
        assert_eq!(serde_json::from_str::<Setting>(&text).expect("it reads back"), setting);
    }
}

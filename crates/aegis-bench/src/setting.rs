//! Where and of what something was measured: without this a figure is a number.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// The commit that the program was built from, where the build said so.
const COMMIT: Option<&str> = option_env!("AEGIS_COMMIT");

/// What the driver's own tool is asked for, in this order.
const FIELDS: &str = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,memory.used,memory.total";

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
    /// The GPU, where its driver's tool can be asked.
    pub gpu: Option<Gpu>,
}

/// A GPU as its driver's tool describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gpu {
    /// Its name.
    pub name: String,
    /// The version of its driver.
    pub driver: String,
    /// The clock of its processors, MHz.
    pub clock_mhz: u64,
    /// The clock of its memory, MHz.
    pub memory_clock_mhz: u64,
    /// The highest clock of its processors, MHz.
    pub clock_max_mhz: u64,
    /// Degrees Celsius.
    pub temperature: u64,
    /// Memory in use by everybody, bytes.
    pub used: u64,
    /// Memory it has, bytes.
    pub total: u64,
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
            gpu: gpu(),
        }
    }

    /// In one line, for people.
    pub(crate) fn line(&self) -> String {
        let gpu = self.gpu.as_ref().map_or("no GPU seen".to_owned(), |gpu| {
            format!(
                "{}, driver {}, {} of at most {} MHz, memory {} MHz, {} C",
                gpu.name,
                gpu.driver,
                gpu.clock_mhz,
                gpu.clock_max_mhz,
                gpu.memory_clock_mhz,
                gpu.temperature
            )
        });
        format!(
            "{}; driver `{}` on {gpu}; {} ({} cores); commit {}; {}",
            self.workload, self.driver, self.processor, self.cores, self.commit, self.date
        )
    }
}

/// The processor's name, where the system tells it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

/// The first GPU, if the driver's tool is there and answers.
pub(crate) fn gpu() -> Option<Gpu> {
    let mut tool = Command::new("nvidia-smi");
    tool.arg(format!("--query-gpu={FIELDS}")).arg("--format=csv,noheader,nounits");
    let output = tool.output().ok().filter(|output| output.status.success())?;
    parse_gpu(String::from_utf8_lossy(&output.stdout).lines().next()?)
}

fn parse_gpu(line: &str) -> Option<Gpu> {
    let fields: Vec<&str> = line.split(", ").map(str::trim).collect();
    let [name, driver, clock, memory_clock, max, temperature, used, total] = fields[..] else {
        return None;
    };
    // A field that this GPU does not have is a word and counts as zero.
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    Some(Gpu {
        name: name.to_owned(),
        driver: driver.to_owned(),
        clock_mhz: number(clock),
        memory_clock_mhz: number(memory_clock),
        clock_max_mhz: number(max),
        temperature: number(temperature),
        used: number(used) << 20,
        total: number(total) << 20,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_tool_is_understood() {
        let gpu = parse_gpu("NVIDIA H100 80GB HBM3, 580.95, 1980, 2619, [N/A], 34, 512, 81559");
        let gpu = gpu.expect("eight fields");
        assert_eq!((gpu.name.as_str(), gpu.clock_mhz), ("NVIDIA H100 80GB HBM3", 1980));
        assert_eq!((gpu.clock_max_mhz, gpu.used), (0, 512 << 20));
        assert_eq!(parse_gpu("no devices were found"), None);
    }
}

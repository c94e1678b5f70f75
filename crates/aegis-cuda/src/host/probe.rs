//! What the machine says about its processor and memory.
//!
//! Reads small text files of Linux; where one is missing or says something else, the answer is
//! `None`. Parsing is apart from reading, so it is tested on text.

use std::fs;
use std::path::Path;

use aegis_trace::Bytes;

use crate::capability::{ComputeUnits, DeviceCapabilities, DriverKind};

/// Asks the machine.
pub(crate) fn probe() -> DeviceCapabilities {
    let cpuinfo = read("/proc/cpuinfo");
    let cpuinfo = cpuinfo.as_deref().unwrap_or_default();
    let meminfo = read("/proc/meminfo");
    let meminfo = meminfo.as_deref().unwrap_or_default();
    let group = group_memory(Path::new("/sys/fs/cgroup"), &group_path());
    DeviceCapabilities {
        name: model_name(cpuinfo)
            .unwrap_or_else(|| format!("{} processor", std::env::consts::ARCH)),
        driver: DriverKind::Host,
        total_memory: tighter(meminfo_field(meminfo, "MemTotal"), group.limit),
        available_memory: tighter(meminfo_field(meminfo, "MemAvailable"), group.available),
        compute_units: core_count().map(|count| ComputeUnits::Cores {
            count,
            clock_khz: slowest_max_khz(Path::new("/sys/devices/system/cpu"))
                .or_else(|| slowest_present_khz(cpuinfo)),
        }),
        memory_bandwidth_per_second: None,
        compute_capability: None,
        partition: None,
        gpu: None,
    }
}

/// The memory that is available to this process now; `None` where the machine does not say.
pub(crate) fn available_memory() -> Option<Bytes> {
    let meminfo = read("/proc/meminfo").unwrap_or_default();
    let group = group_memory(Path::new("/sys/fs/cgroup"), &group_path());
    tighter(meminfo_field(&meminfo, "MemAvailable"), group.available)
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The smaller of two limits, either of which may be unknown.
fn tighter(a: Option<Bytes>, b: Option<Bytes>) -> Option<Bytes> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (known, None) | (None, known) => known,
    }
}

/// How many cores the process may use at once; the standard library counts the affinity mask and
/// the quota of the control groups.
fn core_count() -> Option<u32> {
    let count = std::thread::available_parallelism().ok()?;
    u32::try_from(count.get()).ok()
}

/// The value of the first line `key : value` with this key.
fn value_of<'text>(text: &'text str, key: &str) -> Option<&'text str> {
    values_of(text, key).next()
}

fn values_of<'text>(text: &'text str, key: &str) -> impl Iterator<Item = &'text str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(move |(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim())
}

/// The processor's name: x86 and some others write `model name`, Arm boards write `Model`.
fn model_name(cpuinfo: &str) -> Option<String> {
    ["model name", "Model", "Hardware"]
        .into_iter()
        .filter_map(|key| value_of(cpuinfo, key))
        .find(|name| !name.is_empty())
        .map(str::to_owned)
}

/// A line `Key:   123 kB` of `/proc/meminfo`; its kB are 1024 bytes.
fn meminfo_field(meminfo: &str, key: &str) -> Option<Bytes> {
    let kib: u64 = value_of(meminfo, key)?.strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

/// The smallest `cpu MHz` of `/proc/cpuinfo`, cut to whole kHz.
fn slowest_present_khz(cpuinfo: &str) -> Option<u64> {
    values_of(cpuinfo, "cpu MHz").filter_map(khz_of_mhz).min()
}

/// `2596.142` MHz in kHz, without floating point.
fn khz_of_mhz(mhz: &str) -> Option<u64> {
    let (whole, fraction) = mhz.split_once('.').unwrap_or((mhz, ""));
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(1000)?.checked_add(thousandths.parse().ok()?)
}

/// The smallest highest frequency of all cores, which `cpufreq` gives in kHz.
fn slowest_max_khz(cpus: &Path) -> Option<u64> {
    fs::read_dir(cpus)
        .ok()?
        .filter_map(|entry| read(entry.ok()?.path().join("cpufreq/cpuinfo_max_freq")))
        .filter_map(|khz| khz.trim().parse().ok())
        .min()
}

/// What the control groups leave of the machine's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct GroupMemory {
    limit: Option<Bytes>,
    available: Option<Bytes>,
}

/// The path of this process below the root of the unified hierarchy, from the line `0::/path`.
fn group_path() -> String {
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    path.unwrap_or_default().to_owned()
}

/// The tightest limit on the way from `path` up to `root`: each ancestor's counts.
fn group_memory(root: &Path, path: &str) -> GroupMemory {
    let mut tightest = GroupMemory::default();
    let leaf = root.join(path);
    for group in leaf.ancestors().take_while(|group| group.starts_with(root)) {
        let bytes = |file: &str| -> Option<Bytes> {
            // The limit reads `max` where there is none, which is no number.
            read(group.join(file))?.trim().parse().ok().map(Bytes)
        };
        let Some(limit) = bytes("memory.max") else { continue };
        tightest.limit = tighter(tightest.limit, Some(limit));
        let available = bytes("memory.current").map(|current| limit.saturating_sub(current));
        tightest.available = tighter(tightest.available, available);
    }
    tightest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_kibibytes_or_not_at_all() {
        let text = "MemTotal:       24684084 kB\nMemAvailable:   100 kB\nHugePages_Total:   4\n";
        assert_eq!(meminfo_field(text, "MemTotal"), Some(Bytes::from_kib(24_684_084)));
        assert_eq!(meminfo_field(text, "MemAvailable"), Some(Bytes::from_kib(100)));
        assert_eq!(meminfo_field(text, "HugePages_Total"), None);
        assert_eq!(meminfo_field(text, "MemFree"), None);
    }

    #[test]
    fn the_slowest_core_gives_the_clock() {
        let text = "processor : 0\ncpu MHz\t\t: 2596.142\nprocessor : 1\ncpu MHz\t\t: 2400.5\n";
        assert_eq!(slowest_present_khz(text), Some(2_400_500));
        assert_eq!(slowest_present_khz("processor : 0\n"), None);
    }

    #[test]
    fn frequencies_keep_their_fraction() {
        assert_eq!(khz_of_mhz("2596.142857"), Some(2_596_142));
        assert_eq!(khz_of_mhz("800"), Some(800_000));
        assert_eq!(khz_of_mhz("fast"), None);
    }

    #[test]
    fn a_processor_without_a_name_stays_without_one() {
        assert_eq!(model_name("model name : AMD EPYC\n").as_deref(), Some("AMD EPYC"));
        assert_eq!(model_name("Model : a board\n").as_deref(), Some("a board"));
        assert_eq!(model_name("processor : 0\n"), None);
    }

    #[test]
    fn an_unknown_limit_does_not_loosen_a_known_one() {
        assert_eq!(tighter(Some(Bytes(2)), Some(Bytes(1))), Some(Bytes(1)));
        assert_eq!(tighter(None, Some(Bytes(1))), Some(Bytes(1)));
        assert_eq!(tighter(None, None), None);
    }
}

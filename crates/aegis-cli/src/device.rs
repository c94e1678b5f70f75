//! `aegis device`: what the device is and has, how it is now, and how models were prepared on it.

use std::path::PathBuf;

use aegis::evidence::Evidence;
use aegis::{
    ComputeUnits, DeviceCapabilities, DeviceFacts, DeviceHealth, DriverKind, GpuCapabilities,
    Pipeline, cuda_runtime_version, pipeline,
};
use anyhow::Result;
use clap::Args;

use crate::Answer;
use crate::memory;
use crate::output::print;
use crate::table;

#[derive(Args)]
pub(crate) struct DeviceArgs {
    /// The workload whose device to show; without one, the host.
    #[arg(conflicts_with = "gpu")]
    workload: Option<PathBuf>,
    /// Show the GPU of this number, without a workload.
    #[arg(long, value_name = "ORDINAL")]
    gpu: Option<u16>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DeviceArgs) -> Result<Answer> {
    let pipeline = args.workload.as_deref().map(Pipeline::open).transpose()?;
    let facts = match (&pipeline, args.gpu) {
        (Some(pipeline), _) => pipeline.facts()?.clone(),
        (None, Some(ordinal)) => pipeline::gpu_facts(ordinal)?,
        (None, None) => pipeline::host_facts()?,
    };
    let is_gpu = facts.capabilities.driver() == DriverKind::Cuda;
    let runtime = is_gpu.then(cuda_runtime_version).flatten();
    // A device is shown whether or not anything was measured on it.
    let evidence = pipeline.as_ref().and_then(|it| Evidence::read(it.evidence_path()).ok());
    let prepared = evidence.iter().flat_map(|evidence| &evidence.models);
    let remarks: Vec<String> =
        memory::remarks(prepared.map(|(name, model)| (name.as_str(), &model.prepared.remarks[..])))
            .collect();
    if args.json {
        print(serde_json::to_string_pretty(&json(&facts, runtime.as_deref(), &remarks)?)?)?;
        return Ok(Answer::Yes);
    }
    print(show(&facts, runtime.as_deref(), pipeline.as_ref()))?;
    remarks.into_iter().try_for_each(print)?;
    Ok(Answer::Yes)
}

/// The capabilities with what is known beside them, as `docs/formats.md` describes it.
fn json(
    facts: &DeviceFacts,
    runtime: Option<&str>,
    remarks: &[String],
) -> Result<serde_json::Value> {
    let mut whole = serde_json::to_value(&facts.capabilities)?;
    if let Some(health) = &facts.health {
        whole["health"] = serde_json::to_value(health)?;
    }
    if let Some(memory) = &facts.memory {
        whole["memory_limit"] = serde_json::to_value(memory)?;
    }
    if facts.granted.iter().any(Option::is_some) {
        whole["granted_sms"] = serde_json::to_value(&facts.granted)?;
    }
    if let Some(runtime) = runtime {
        whole["cuda_runtime_version"] = runtime.into();
    }
    if !remarks.is_empty() {
        whole["remarks"] = serde_json::to_value(remarks)?;
    }
    Ok(whole)
}

fn show(facts: &DeviceFacts, runtime: Option<&str>, pipeline: Option<&Pipeline>) -> String {
    let device = &facts.capabilities;
    let mut rows = general(device);
    if let Some(gpu) = device.gpu() {
        rows.extend(of_gpu(gpu, runtime));
        rows.extend(of_health(facts.health.as_ref(), &facts.settings.persistence));
    }
    rows.extend(granted(facts, pipeline));
    let mut shown = table::new(&["device", device.name()]);
    for (what, value) in rows {
        table::add(&mut shown, &[what, value.unwrap_or_else(|| "unknown".into())]);
    }
    shown.to_string()
}

/// A line of the table; `None` is shown as unknown.
type Row = (String, Option<String>);

fn row(what: &str, value: Option<impl ToString>) -> Row {
    (what.to_owned(), value.map(|value| value.to_string()))
}

/// What every device has.
fn general(device: &DeviceCapabilities) -> Vec<Row> {
    let mhz = |khz: u64| format!("{} MHz", khz / 1_000);
    let (units, clock) = match device.compute_units() {
        Some(ComputeUnits::Cores { count, clock_khz }) => {
            (Some(format!("{count} cores")), clock_khz.map(mhz))
        }
        Some(ComputeUnits::Multiprocessors { count, clock_khz }) => {
            (Some(format!("{count} SMs")), clock_khz.map(|khz| mhz(khz.into())))
        }
        _ => (None, None),
    };
    let bandwidth = device.memory_bandwidth_per_second().map(|bytes| format!("{bytes}/s"));
    vec![
        row("driver", Some(device.driver())),
        row("compute units", units),
        row("clock", clock),
        row("memory", device.total_memory()),
        row("memory available", device.available_memory()),
        row("memory bandwidth", bandwidth),
        row("compute capability", device.compute_capability()),
    ]
}

/// What a GPU has beside that.
fn of_gpu(gpu: &GpuCapabilities, runtime: Option<&str>) -> Vec<Row> {
    let kind = |integrated| if integrated { "integrated" } else { "discrete" };
    let tflops = |flops: u64| format!("{}.{} TFLOPS", flops / TERA, flops % TERA * 10 / TERA);
    vec![
        row("kind", gpu.integrated.map(kind)),
        row("fp32 without tensor cores", gpu.fp32_flops_per_second.map(tflops)),
        row("memory clock", gpu.memory_clock_khz.map(|khz| format!("{} MHz", khz / 1_000))),
        row("memory bus", gpu.memory_bus_bits.map(|bits| format!("{bits} bits"))),
        row("L2 cache", gpu.l2_cache),
        row("shared memory of an SM", gpu.shared_memory_per_sm),
        row("shared memory of a block", gpu.shared_memory_per_block),
        row("threads of an SM", gpu.threads_per_sm),
        row("threads of a block", gpu.threads_per_block),
        row("threads of a warp", gpu.warp_size),
        row("copy engines", gpu.copy_engines),
        row("stream priorities", Some(gpu.priority_levels)),
        row("partitions of SMs", Some(yes_or_no(gpu.green_contexts))),
        row("error correction", gpu.ecc.map(on_or_off)),
        row("PCI bus", Some(&gpu.pci_bus_id)),
        row("driver version", gpu.driver_version.as_ref()),
        row("CUDA of the driver", Some(&gpu.cuda_version)),
        row("CUDA runtime found", runtime),
    ]
}

/// How a GPU is now.
fn of_health(health: Option<&DeviceHealth>, persistence: &Option<String>) -> Vec<Row> {
    let unknown = DeviceHealth::default();
    let now = health.unwrap_or(&unknown);
    let of_most = |now: Option<u32>, most: Option<u32>| match (now, most) {
        (Some(now), Some(most)) => Some(format!("{now} of {most} MHz")),
        (now, _) => now.map(|now| format!("{now} MHz")),
    };
    let watts = |milliwatts: u32| format!("{}.{}", milliwatts / 1_000, milliwatts % 1_000 / 100);
    let power = now.power_milliwatts.map(|drawn| match now.power_limit_milliwatts {
        Some(limit) => format!("{} of {} W", watts(drawn), watts(limit)),
        None => format!("{} W", watts(drawn)),
    });
    vec![
        row("clock now", of_most(now.sm_clock_mhz, now.sm_clock_max_mhz)),
        row("memory clock now", of_most(now.memory_clock_mhz, now.memory_clock_max_mhz)),
        row("temperature", now.temperature_celsius.map(|celsius| format!("{celsius} C"))),
        row("power", power),
        row("throttled by", now.throttle),
        row("busy", now.busy_percent.map(|percent| format!("{percent} %"))),
        row("persistence", persistence.as_ref()),
    ]
}

/// What each partition of the workload is granted.
fn granted(facts: &DeviceFacts, pipeline: Option<&Pipeline>) -> Vec<Row> {
    let partitions = pipeline.map_or(&[][..], |pipeline| &pipeline.workload().partitions);
    let sms = |sms: &u32| format!("{sms} SMs granted");
    let of = partitions.iter().zip(&facts.granted);
    let shown = of.filter_map(|(partition, granted)| {
        Some(row(&format!("partition {}", partition.name), Some(granted.as_ref().map(sms)?)))
    });
    shown.collect()
}

const TERA: u64 = 1_000_000_000_000;

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The capabilities of an H100 as its driver tells them.
    fn hopper() -> DeviceFacts {
        let capabilities = serde_json::json!({
            "name": "NVIDIA H100 80GB HBM3", "driver": "cuda", "total_memory": 85_017_493_504_u64,
            "available_memory": 84_465_090_560_u64,
            "compute_units": { "kind": "multiprocessors", "count": 132, "clock_khz": 1_980_000 },
            "memory_bandwidth_per_second": 3_352_320_000_000_u64,
            "compute_capability": { "major": 9, "minor": 0 },
            "gpu": {
                "shared_memory_per_sm": 233_472, "shared_memory_per_block": 232_448,
                "l2_cache": 52_428_800, "threads_per_sm": 2048, "threads_per_block": 1024,
                "warp_size": 32, "copy_engines": 3, "memory_clock_khz": 2_619_000,
                "memory_bus_bits": 5120, "fp32_flops_per_second": 66_908_160_000_000_u64,
                "integrated": false, "ecc": true, "priority_levels": 6, "green_contexts": true,
                "pci_bus_id": "0000:00:06.0", "driver_version": null, "cuda_version": "13.0"
            }
        });
        let mut facts = pipeline::host_facts().expect("a host is always there");
        facts.capabilities = serde_json::from_value(capabilities).expect("capabilities");
        facts.health = Some(DeviceHealth {
            temperature_celsius: Some(35),
            sm_clock_mhz: Some(1755),
            sm_clock_max_mhz: Some(1980),
            power_milliwatts: Some(85_949),
            power_limit_milliwatts: Some(700_000),
            ..DeviceHealth::default()
        });
        facts
    }

    #[test]
    fn a_gpu_is_told_whole_and_what_is_missing_is_unknown() {
        let shown = show(&hopper(), Some("13.0"), None);
        for (what, value) in [
            ("compute units", "132 SMs"),
            ("fp32 without tensor cores", "66.9 TFLOPS"),
            ("memory bus", "5120 bits"),
            ("memory clock", "2619 MHz"),
            ("shared memory of an SM", "228 KiB"),
            ("threads of a block", "1024"),
            ("kind", "discrete"),
            ("compute capability", "9.0"),
            ("driver version", "unknown"),
            ("CUDA of the driver", "13.0"),
            ("CUDA runtime found", "13.0"),
            ("clock now", "1755 of 1980 MHz"),
            ("temperature", "35 C"),
            ("power", "85.9 of 700.0 W"),
            ("throttled by", "unknown"),
        ] {
            let line = shown.lines().find(|line| line.starts_with(&format!("| {what} ")));
            assert!(line.is_some_and(|line| line.contains(value)), "{what}: {value}\n{shown}");
        }
    }

    #[test]
    fn json_keeps_the_capabilities_where_they_were() {
        let remarks = ["net: it runs without a graph".to_owned()];
        let whole = json(&hopper(), None, &remarks).expect("plain data");
        assert_eq!(whole["gpu"]["memory_bus_bits"], 5120);
        assert_eq!(whole["health"]["sm_clock_mhz"], 1755);
        assert_eq!(whole["remarks"][0], remarks[0]);
        assert!(whole.get("cuda_runtime_version").is_none());
    }
}

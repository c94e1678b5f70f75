//! `aegis device`: what the device is and has.

use std::path::PathBuf;

use aegis::{ComputeUnits, DeviceCapabilities, Pipeline, pipeline};
use anyhow::Result;
use clap::Args;

use crate::Answer;
use crate::output::print;
use crate::table;

#[derive(Args)]
pub(crate) struct DeviceArgs {
    /// The workload whose device to show; without one, the host.
    workload: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DeviceArgs) -> Result<Answer> {
    let capabilities = match &args.workload {
        Some(path) => Pipeline::open(path)?.device()?,
        None => pipeline::host_capabilities()?,
    };
    if args.json {
        print(serde_json::to_string_pretty(&capabilities)?)?;
    } else {
        print(show(&capabilities))?;
    }
    Ok(Answer::Yes)
}

fn show(device: &DeviceCapabilities) -> String {
    let known = |value: Option<String>| value.unwrap_or_else(|| "unknown".into());
    let (units, clock) = match device.compute_units() {
        Some(ComputeUnits::Cores { count, clock_khz }) => {
            let clock = clock_khz.map(|khz| format!("{} MHz", khz / 1_000));
            (Some(format!("{count} cores")), clock)
        }
        Some(ComputeUnits::Multiprocessors { count, clock_khz }) => {
            let clock = clock_khz.map(|khz| format!("{} MHz", khz / 1_000));
            (Some(format!("{count} SMs")), clock)
        }
        _ => (None, None),
    };
    let bandwidth = device.memory_bandwidth_per_second().map(|bytes| format!("{bytes}/s"));
    let mut shown = table::new(&["device", device.name()]);
    for (what, value) in [
        ("driver", device.driver().to_string()),
        ("compute units", known(units)),
        ("clock", known(clock)),
        ("memory", known(device.total_memory().map(|bytes| bytes.to_string()))),
        ("memory available", known(device.available_memory().map(|bytes| bytes.to_string()))),
        ("memory bandwidth", known(bandwidth)),
        ("compute capability", known(device.compute_capability().map(|it| it.to_string()))),
    ] {
        table::add(&mut shown, &[what.into(), value]);
    }
    shown.to_string()
}

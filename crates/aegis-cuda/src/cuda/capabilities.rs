//! What a GPU is and has, asked of the driver.
//!
//! # Sources
//! The number of 32-bit floating-point units per multiprocessor is not among the attributes; it is
//! taken from the table "Arithmetic Instructions" of NVIDIA's CUDA C++ Programming Guide. An
//! architecture that is not in the table gives no derived figure.

use std::ffi::c_int;

use aegis_trace::Bytes;
use cudarc::driver::sys::{CUdevice, CUdevice_attribute_enum as Attribute};

use super::context::{Machine, pci_bus_id, until_nul};
use super::library::EntryPoints;
use super::runtime_library::as_text;
use super::stream::priorities;
use crate::capability::{
    ComputeCapability, ComputeUnits, DeviceCapabilities, DriverKind, GpuCapabilities,
};
use crate::error::DeviceError;

/// The capabilities of the GPU, or of its partition of `sms`.
pub(crate) fn probe(
    machine: &Machine,
    sms: Option<u32>,
) -> Result<DeviceCapabilities, DeviceError> {
    let (free, total) = machine.memory_info()?;
    let ask = |attribute: Attribute| machine.attribute(attribute as u32);
    let capability = compute_capability(machine);
    let count = sms.or_else(|| ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT));
    let clock_khz = positive(ask(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE));
    let gpu = gpu(machine, capability, count)?;
    Ok(DeviceCapabilities {
        name: name(machine.api(), machine.device())?,
        driver: DriverKind::Cuda,
        total_memory: Some(total),
        available_memory: Some(free),
        compute_units: count.map(|count| ComputeUnits::Multiprocessors { count, clock_khz }),
        memory_bandwidth_per_second: bandwidth(gpu.memory_clock_khz, gpu.memory_bus_bits),
        compute_capability: capability,
        partition: sms,
        gpu: Some(Box::new(gpu)),
    })
}

fn gpu(
    machine: &Machine,
    capability: Option<ComputeCapability>,
    sms: Option<u32>,
) -> Result<GpuCapabilities, DeviceError> {
    let ask = |attribute: Attribute| machine.attribute(attribute as u32);
    let bytes = |attribute| ask(attribute).map(|bytes| Bytes(u64::from(bytes)));
    let flag = |attribute| ask(attribute).map(|value| value != 0);
    let nvml = machine.nvml();
    let clock = positive(ask(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE));
    // The driver stopped telling the memory clock on some devices; NVML still does.
    let memory_clock = positive(ask(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE));
    let memory_clock_of_nvml = || nvml?.memory_clock_max()?.checked_mul(1000);
    Ok(GpuCapabilities {
        shared_memory_per_sm: bytes(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
        ),
        shared_memory_per_block: bytes(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        ),
        l2_cache: bytes(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
        threads_per_sm: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR),
        threads_per_block: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK),
        warp_size: ask(Attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE),
        copy_engines: ask(Attribute::CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT),
        memory_clock_khz: memory_clock.or_else(memory_clock_of_nvml),
        memory_bus_bits: positive(ask(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)),
        fp32_flops_per_second: capability.and_then(|capability| flops(capability, sms?, clock?)),
        integrated: flag(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED),
        ecc: flag(Attribute::CU_DEVICE_ATTRIBUTE_ECC_ENABLED),
        priority_levels: priorities(machine)?.1.saturating_add(1),
        green_contexts: machine.api().cuGreenCtxCreate.is_some(),
        pci_bus_id: pci_bus_id(machine.api(), machine.device())?,
        driver_version: nvml.and_then(|nvml| nvml.driver_version()),
        cuda_version: cuda_version(machine)?,
    })
}

fn positive(value: Option<u32>) -> Option<u32> {
    value.filter(|value| *value > 0)
}

/// The name that the GPU gives itself.
pub(super) fn name(api: &EntryPoints, device: CUdevice) -> Result<String, DeviceError> {
    const ROOM: c_int = 256;
    let mut text = [0_u8; ROOM as usize];
    // SAFETY: (1) The buffer is valid for as many bytes as the call is told.
    let code = unsafe { (api.cuDeviceGetName)(text.as_mut_ptr().cast(), ROOM, device) };
    api.check("cuDeviceGetName", code)?;
    Ok(until_nul(&text))
}

/// The newest CUDA that the driver speaks, as `major.minor`.
fn cuda_version(machine: &Machine) -> Result<String, DeviceError> {
    let mut version: c_int = 0;
    // SAFETY: (1) The pointer is valid for the one write.
    let code = unsafe { (machine.api().cuDriverGetVersion)(&raw mut version) };
    machine.check("cuDriverGetVersion", code)?;
    Ok(as_text(version))
}

fn compute_capability(machine: &Machine) -> Option<ComputeCapability> {
    let ask = |attribute: Attribute| machine.attribute(attribute as u32);
    Some(ComputeCapability {
        major: ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        minor: ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    })
}

/// Two transfers per clock over the whole bus.
fn bandwidth(clock_khz: Option<u32>, bus_bits: Option<u32>) -> Option<Bytes> {
    let transfers = 2 * 1000 * u64::from(clock_khz?);
    transfers.checked_mul(u64::from(bus_bits? / 8)).map(Bytes)
}

/// Two operations (a multiplication and an addition) per unit and clock.
fn flops(capability: ComputeCapability, sms: u32, clock_khz: u32) -> Option<u64> {
    let per_sm = fp32_units(capability)?;
    let per_clock = 2 * u64::from(sms) * per_sm;
    per_clock.checked_mul(1000 * u64::from(clock_khz))
}

/// 32-bit floating-point units of one multiprocessor.
fn fp32_units(capability: ComputeCapability) -> Option<u64> {
    match (capability.major, capability.minor) {
        (5, _) | (6, 1 | 2) | (8, 6 | 7 | 9) | (9..=12, _) => Some(128),
        (6, 0) | (7, _) | (8, 0) => Some(64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derived_figures_are_those_of_the_data_sheet() {
        // An H100 SXM: 132 SMs at 1.98 GHz are 66.9 TFLOPS; 2619 MHz over 5120 bits are 3.35 TB/s.
        let hopper = ComputeCapability { major: 9, minor: 0 };
        assert_eq!(flops(hopper, 132, 1_980_000), Some(66_908_160_000_000));
        assert_eq!(bandwidth(Some(2_619_000), Some(5120)), Some(Bytes(3_352_320_000_000)));
    }

    #[test]
    fn what_is_not_told_is_not_guessed() {
        assert_eq!(bandwidth(None, Some(5120)), None);
        let unknown = ComputeCapability { major: 99, minor: 0 };
        assert_eq!(flops(unknown, 132, 1_980_000), None);
    }
}

//! What NVIDIA's management library says about a GPU: health, memory, and who uses it.
//!
//! Loaded at run time like the driver, and optional: every answer may be missing. A container may
//! hide the library, and a process in a PID namespace of its own finds itself under no number that
//! the library knows.
//!
//! # Invariants
//! 1. The library is initialised once and never shut down or closed, so a handle stays valid.
//! 2. An entry point has the type that the library's header gives it; what changes in type gets a
//!    new name there (`_v2`).

use std::ffi::{CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use aegis_trace::Bytes;

use super::context::until_nul;
use crate::health::{DeviceHealth, ThrottleReasons};

const SUCCESS: c_uint = 0;
const INSUFFICIENT_SIZE: c_uint = 7;
/// `NVML_TEMPERATURE_GPU`.
const TEMPERATURE_GPU: c_uint = 0;
/// `NVML_CLOCK_SM` and `NVML_CLOCK_MEM`.
const CLOCK_SM: c_uint = 1;
const CLOCK_MEMORY: c_uint = 2;
/// More processes than this on one GPU are not listed.
const PROCESSES_MAX: c_uint = 256;

type Device = *mut c_void;

/// `nvmlMemory_t`.
#[repr(C)]
#[derive(Default)]
struct MemoryInfo {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlUtilization_t`.
#[repr(C)]
#[derive(Default)]
struct Utilisation {
    gpu: c_uint,
    memory: c_uint,
}

/// `nvmlProcessInfo_t` of the third version of the call.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProcessInfo {
    pid: c_uint,
    used: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// Free and total memory of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) free: Bytes,
    pub(crate) total: Bytes,
}

macro_rules! entry_points {
    ($($name:ident($($argument:ty),*);)*) => {
        #[allow(non_snake_case, reason = "the library's own names")]
        struct EntryPoints {
            $($name: Option<unsafe extern "C" fn($($argument),*) -> c_uint>,)*
        }

        impl EntryPoints {
            fn look_up(library: &libloading::Library) -> Self {
                Self {
                    $($name: {
                        let symbol = concat!(stringify!($name), "\0").as_bytes();
                        // SAFETY: (1) The symbol, if it is there, is a function of this type:
                        // invariant 2.
                        let found = unsafe {
                            library.get::<unsafe extern "C" fn($($argument),*) -> c_uint>(symbol)
                        };
                        found.ok().map(|symbol| *symbol)
                    },)*
                }
            }
        }
    };
}

entry_points! {
    nvmlInit_v2();
    nvmlSystemGetDriverVersion(*mut c_char, c_uint);
    nvmlDeviceGetHandleByPciBusId_v2(*const c_char, *mut Device);
    nvmlDeviceGetMemoryInfo(Device, *mut MemoryInfo);
    nvmlDeviceGetComputeRunningProcesses_v3(Device, *mut c_uint, *mut ProcessInfo);
    nvmlDeviceGetTemperature(Device, c_uint, *mut c_uint);
    nvmlDeviceGetClockInfo(Device, c_uint, *mut c_uint);
    nvmlDeviceGetMaxClockInfo(Device, c_uint, *mut c_uint);
    nvmlDeviceGetCurrentClocksThrottleReasons(Device, *mut c_ulonglong);
    nvmlDeviceGetPowerUsage(Device, *mut c_uint);
    nvmlDeviceGetEnforcedPowerLimit(Device, *mut c_uint);
    nvmlDeviceGetUtilizationRates(Device, *mut Utilisation);
    nvmlDeviceGetPersistenceMode(Device, *mut c_uint);
    nvmlDeviceGetEccMode(Device, *mut c_uint, *mut c_uint);
}

/// Calls an entry point of a device that writes one value; `None` where either is missing.
macro_rules! ask {
    ($self:ident.$name:ident($($argument:expr),*) -> $kind:ty) => {{
        let mut value = <$kind>::default();
        $self.api.$name.and_then(|call| {
            // SAFETY: (1) The handle is valid: invariant 1. (2) The pointer is valid for the one
            // write of the call.
            let code = unsafe { call($self.device, $($argument,)* &raw mut value) };
            (code == SUCCESS).then_some(value)
        })
    }};
}

/// One GPU, as the management library knows it.
pub(crate) struct NvmlDevice {
    api: &'static EntryPoints,
    device: Device,
}

// SAFETY: (1) The handle is the library's to dereference, which is safe to call from any thread.
unsafe impl Send for NvmlDevice {}

// SAFETY: (1) As above.
unsafe impl Sync for NvmlDevice {}

impl NvmlDevice {
    /// The GPU at `pci_bus_id`, if the library is there and knows it.
    pub(crate) fn find(pci_bus_id: &str) -> Option<Self> {
        let api = library()?;
        let call = api.nvmlDeviceGetHandleByPciBusId_v2?;
        let name = CString::new(pci_bus_id).ok()?;
        let mut device = null_mut();
        // SAFETY: (1) The name is terminated and lives through the call. (2) The pointer is valid
        // for the one write.
        let code = unsafe { call(name.as_ptr(), &raw mut device) };
        (code == SUCCESS).then_some(Self { api, device })
    }

    /// The driver's version, such as `580.95.05`.
    pub(crate) fn driver_version(&self) -> Option<String> {
        const ROOM: c_uint = 96;
        let call = self.api.nvmlSystemGetDriverVersion?;
        let mut text = [0_u8; ROOM as usize];
        // SAFETY: (1) The buffer is valid for as many bytes as the call is told.
        let code = unsafe { call(text.as_mut_ptr().cast(), ROOM) };
        (code == SUCCESS).then(|| until_nul(&text))
    }

    pub(crate) fn memory(&self) -> Option<Memory> {
        let info = ask!(self.nvmlDeviceGetMemoryInfo() -> MemoryInfo)?;
        Some(Memory { free: Bytes(info.free), total: Bytes(info.total) })
    }

    /// The memory of this process on the GPU, as the library counts it: contexts, modules and all
    /// allocations, whoever made them.
    pub(crate) fn memory_of_this_process(&self) -> Option<Bytes> {
        let call = self.api.nvmlDeviceGetComputeRunningProcesses_v3?;
        let mut list = vec![ProcessInfo::default(); PROCESSES_MAX as usize];
        let mut count = PROCESSES_MAX;
        // SAFETY: (1) The handle is valid. (2) The list has room for as many entries as `count`
        // says, and the call sets `count` to how many it wrote.
        let code = unsafe { call(self.device, &raw mut count, list.as_mut_ptr()) };
        if code != SUCCESS && code != INSUFFICIENT_SIZE {
            return None;
        }
        let own = list.iter().take(count as usize).find(|it| it.pid == std::process::id())?;
        // All bits set: the library cannot tell, as under some virtualisations.
        (own.used != c_ulonglong::MAX).then_some(Bytes(own.used))
    }

    /// The highest memory clock in MHz.
    pub(crate) fn memory_clock_max(&self) -> Option<u32> {
        ask!(self.nvmlDeviceGetMaxClockInfo(CLOCK_MEMORY) -> c_uint)
    }

    /// The present state; a missing answer is `None`.
    pub(crate) fn health(&self) -> DeviceHealth {
        let busy = ask!(self.nvmlDeviceGetUtilizationRates() -> Utilisation);
        DeviceHealth {
            temperature_celsius: ask!(self.nvmlDeviceGetTemperature(TEMPERATURE_GPU) -> c_uint),
            sm_clock_mhz: ask!(self.nvmlDeviceGetClockInfo(CLOCK_SM) -> c_uint),
            memory_clock_mhz: ask!(self.nvmlDeviceGetClockInfo(CLOCK_MEMORY) -> c_uint),
            sm_clock_max_mhz: ask!(self.nvmlDeviceGetMaxClockInfo(CLOCK_SM) -> c_uint),
            memory_clock_max_mhz: self.memory_clock_max(),
            power_milliwatts: ask!(self.nvmlDeviceGetPowerUsage() -> c_uint),
            power_limit_milliwatts: ask!(self.nvmlDeviceGetEnforcedPowerLimit() -> c_uint),
            throttle: ask!(self.nvmlDeviceGetCurrentClocksThrottleReasons() -> c_ulonglong)
                .map(ThrottleReasons::from_bits),
            busy_percent: busy.map(|busy| busy.gpu),
            persistence: ask!(self.nvmlDeviceGetPersistenceMode() -> c_uint).map(is_enabled),
            ecc: self.ecc(),
        }
    }

    /// Whether memory corrects errors now.
    fn ecc(&self) -> Option<bool> {
        let call = self.api.nvmlDeviceGetEccMode?;
        let (mut current, mut pending) = (0, 0);
        // SAFETY: (1) The handle is valid: invariant 1. (2) Both pointers are valid for the one write
        // to each.
        let code = unsafe { call(self.device, &raw mut current, &raw mut pending) };
        (code == SUCCESS).then_some(is_enabled(current))
    }
}

/// `NVML_FEATURE_ENABLED` is one.
fn is_enabled(state: c_uint) -> bool {
    state == 1
}

/// The initialised library, if the machine has one.
fn library() -> Option<&'static EntryPoints> {
    static LIBRARY: OnceLock<Option<EntryPoints>> = OnceLock::new();
    LIBRARY.get_or_init(open).as_ref()
}

fn open() -> Option<EntryPoints> {
    // SAFETY: (1) Loading runs the initialisers of the library of that name on the system's search
    // path, which is the NVIDIA driver's. (2) It is never closed: invariant 1.
    let library = unsafe { libloading::Library::new("libnvidia-ml.so.1") }.ok()?;
    let entries = EntryPoints::look_up(&library);
    std::mem::forget(library);
    let initialise = entries.nvmlInit_v2?;
    // SAFETY: (1) The call takes nothing and may be made at any time.
    let code = unsafe { initialise() };
    (code == SUCCESS).then_some(entries)
}

// The layouts that the header gives on 64-bit machines.
const _: () = assert!(size_of::<ProcessInfo>() == 24 && size_of::<MemoryInfo>() == 24);
const _: () = assert!(size_of::<c_int>() == 4);

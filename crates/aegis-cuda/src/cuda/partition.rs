//! A part of the multiprocessors with a context of its own: the driver's "green context".
//!
//! Streams created in a partition run their kernels on its SMs alone. Memory, caches and copy
//! engines stay shared, so partitions do slow each other down where they meet there.
//!
//! # Invariants
//! 1. The partitions of one [`split`] have no SM in common: the driver splits what the one before
//!    left.
//! 2. A partition is destroyed after its streams, each of which holds it.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys::{CUcontext, CUdevResource, CUgreenCtx, CUstream};

use super::context::{Machine, NON_BLOCKING};
use super::error::{INVALID_RESOURCE_CONFIGURATION, SUCCESS};
use crate::device::PartitionShare;
use crate::error::DeviceError;

/// `CU_DEV_RESOURCE_TYPE_SM`.
const MULTIPROCESSORS: u32 = 1;
/// `CU_GREEN_CTX_DEFAULT_STREAM`, which the manual requires.
const DEFAULT_STREAM: u32 = 1;
/// A rest smaller than this makes no partition on any device (the driver's granule is 8 on compute
/// capability 9.0 and less before), so the last share takes it along instead of leaving it idle.
const SMALLEST_REST: u32 = 8;

/// What is said of a missing entry point.
const PURPOSE: &str = "splitting a device";

/// Calls an entry point that an older driver lacks.
macro_rules! optional {
    ($machine:expr, $name:ident) => {
        $machine
            .api()
            .$name
            .ok_or(DeviceError::DriverTooOld { call: stringify!($name), purpose: PURPOSE })?
    };
}

/// One green context.
pub(crate) struct Partition {
    machine: Arc<Machine>,
    green: CUgreenCtx,
    context: CUcontext,
    sms: u32,
}

// SAFETY: (1) The handles are the driver's to dereference, which allows any thread to use them.
unsafe impl Send for Partition {}

// SAFETY: (1) As above; nothing here changes after it was made.
unsafe impl Sync for Partition {}

/// Splits the device into one partition for each of `shares`, in their order.
///
/// # Errors
/// [`DeviceError::PartitionTooLarge`], [`DeviceError::DriverTooOld`] before CUDA 12.4, and
/// [`DeviceError::Cuda`].
pub(crate) fn split(
    machine: &Arc<Machine>,
    shares: &[PartitionShare],
) -> Result<Vec<Arc<Partition>>, DeviceError> {
    machine.bind()?;
    let mut rest = whole(machine)?;
    let mut partitions = Vec::with_capacity(shares.len());
    for (index, share) in shares.iter().enumerate() {
        let left = sm_count(&rest);
        if share.sms == 0 || share.sms > left {
            return Err(DeviceError::PartitionTooLarge { index, asked: share.sms, left });
        }
        let (mut part, remaining) = take(machine, &rest, share.sms)?;
        // The driver forms no group where its granule does not fit; all of the rest may do.
        let is_last = index + 1 == shares.len();
        let tail = left.saturating_sub(sm_count(&part));
        if is_last && (sm_count(&part) < share.sms || tail < SMALLEST_REST) {
            part = rest;
        }
        if sm_count(&part) < share.sms {
            return Err(DeviceError::PartitionTooLarge { index, asked: share.sms, left });
        }
        partitions.push(Arc::new(Partition::new(machine, part)?));
        rest = remaining;
    }
    Ok(partitions)
}

/// All SMs of the device.
fn whole(machine: &Machine) -> Result<CUdevResource, DeviceError> {
    let call = optional!(machine, cuDeviceGetDevResource);
    let mut resource = empty();
    // SAFETY: (1) The pointer is valid for the one write.
    let code = unsafe { call(machine.device(), &raw mut resource, MULTIPROCESSORS) };
    machine.check("cuDeviceGetDevResource", code)?;
    Ok(resource)
}

/// Takes one group of at least `sms` from `from`; gives the group and what is left.
fn take(
    machine: &Machine,
    from: &CUdevResource,
    sms: u32,
) -> Result<(CUdevResource, CUdevResource), DeviceError> {
    let call = optional!(machine, cuDevSmResourceSplitByCount);
    let (mut group, mut remaining, mut groups) = (empty(), empty(), 1_u32);
    // SAFETY: (1) `groups` is one and `group` has room for one. (2) The input is what the driver
    // gave. (3) All pointers are valid through the call.
    let code = unsafe { call(&raw mut group, &raw mut groups, from, &raw mut remaining, 0, sms) };
    // Where its granule makes a group larger than what is there, one driver answers with none and
    // another with this error (seen with 580, asked for 58 SMs of 60).
    if code == INVALID_RESOURCE_CONFIGURATION || (code == SUCCESS && groups == 0) {
        return Ok((empty(), *from));
    }
    machine.check("cuDevSmResourceSplitByCount", code)?;
    Ok((group, remaining))
}

/// A resource of nothing.
fn empty() -> CUdevResource {
    // SAFETY: (1) The structure is numbers, bytes and, in newer headers, a pointer: zeroes are a
    // value of each, and zero is the type "invalid".
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn sm_count(resource: &CUdevResource) -> u32 {
    // SAFETY: (1) The field is a number for every type of resource: all its bytes are initialised,
    // by `empty` and by the driver.
    unsafe { resource.__bindgen_anon_1.sm.smCount }
}

impl Partition {
    fn new(machine: &Arc<Machine>, mut part: CUdevResource) -> Result<Self, DeviceError> {
        let describe = optional!(machine, cuDevResourceGenerateDesc);
        let create = optional!(machine, cuGreenCtxCreate);
        let convert = optional!(machine, cuCtxFromGreenCtx);
        let mut description = null_mut();
        // SAFETY: (1) One resource at a valid address. (2) The pointer is valid for the one write.
        let code = unsafe { describe(&raw mut description, &raw mut part, 1) };
        machine.check("cuDevResourceGenerateDesc", code)?;
        let mut green = null_mut();
        // SAFETY: (1) The description is what the driver just made for this device.
        let code = unsafe { create(&raw mut green, description, machine.device(), DEFAULT_STREAM) };
        machine.check("cuGreenCtxCreate", code)?;
        let (machine, context) = (Arc::clone(machine), null_mut());
        // From here on the drop destroys it.
        let mut partition = Self { machine, green, context, sms: sm_count(&part) };
        // SAFETY: (1) The green context lives. (2) The pointer is valid for the one write.
        let code = unsafe { convert(&raw mut partition.context, green) };
        partition.machine.check("cuCtxFromGreenCtx", code)?;
        partition.sms = partition.granted()?;
        Ok(partition)
    }

    /// How many SMs the driver says the partition has.
    fn granted(&self) -> Result<u32, DeviceError> {
        let call = optional!(self.machine, cuGreenCtxGetDevResource);
        let mut resource = empty();
        // SAFETY: (1) The green context lives. (2) The pointer is valid for the one write.
        let code = unsafe { call(self.green, &raw mut resource, MULTIPROCESSORS) };
        self.machine.check("cuGreenCtxGetDevResource", code)?;
        Ok(sm_count(&resource))
    }

    /// How many SMs it has.
    pub(crate) fn sms(&self) -> u32 {
        self.sms
    }

    /// The context that stands for it where one is asked for.
    pub(crate) fn context(&self) -> CUcontext {
        self.context
    }

    /// A stream whose kernels run on the partition.
    pub(crate) fn create_stream(&self, priority: c_int) -> Result<CUstream, DeviceError> {
        let call = optional!(self.machine, cuGreenCtxStreamCreate);
        let mut handle = null_mut();
        // SAFETY: (1) The green context lives. (2) The pointer is valid for the one write.
        let code = unsafe { call(&raw mut handle, self.green, NON_BLOCKING, priority) };
        self.machine.check("cuGreenCtxStreamCreate", code)?;
        Ok(handle)
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        let destroyed = self.machine.bind().and_then(|()| {
            let call = optional!(self.machine, cuGreenCtxDestroy);
            // SAFETY: (1) `new` made it and nothing else destroys it. (2) Its streams are gone:
            // invariant 2.
            self.machine.check("cuGreenCtxDestroy", unsafe { call(self.green) })
        });
        self.machine.defer(destroyed);
    }
}

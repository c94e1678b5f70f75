//! The plan of a whole device: each partition in a range of its own, one above the other.
//!
//! ```text
//!   0           base of p1                base of p2            capacity
//!   |  p0       |  p1                     |  p2       |  free   |
//!    resident | scratch   resident | scratch
//! ```
//!
//! Models of different partitions may run at any time, so nothing of theirs is shared: the sum over
//! the partitions of the peak of each is the best there is. Within a partition, what outlives a
//! stage adds up, and of scratch the largest counts.
//!
//! # Guarantees
//! 1. Each partition takes what [`stacked`] needs for it, rounded up to the coarsest alignment of
//!    its tensors.
//! 2. What is returned passed [`check_device`], which shares no code with this.

use aegis_trace::{Bytes, PartitionId, Refusal};

use crate::check_device::{CheckedDevicePlan, check_device};
use crate::device_error::DevicePlanError;
use crate::error::MemoryError;
use crate::exclusivity::Exclusivity;
use crate::lifetime::ALIGNMENT_MAX;
use crate::place::stacked::{needed, stacked};
use crate::plan::{Placement, PlanRequest};

/// A range in which anything fits, and whose end is aligned for everything.
const ENDLESS: Bytes = Bytes((i64::MAX.cast_unsigned() / ALIGNMENT_MAX) * ALIGNMENT_MAX);

/// What one partition takes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionShare {
    /// Which.
    pub partition: PartitionId,
    /// The first byte of its range.
    pub base: u64,
    /// The end of what its models hold whether they run or not, holes included.
    pub resident: Bytes,
    /// The largest scratch of any of its models.
    pub scratch: Bytes,
}

/// A plan for all models of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlan {
    /// Where every tensor lies.
    pub plan: CheckedDevicePlan,
    /// What each partition takes, in order of base.
    pub shares: Vec<PartitionShare>,
}

/// Plans all models of `exclusivity` on a device of `capacity` bytes. Cost as [`stacked`].
///
/// # Errors
/// - [`DevicePlanError::Memory`] (permanent): it does not fit, with the sums over all partitions,
///   or a model is faulty.
/// - [`DevicePlanError::Plan`] (permanent): a defect of this crate.
pub fn device(exclusivity: &Exclusivity, capacity: Bytes) -> Result<DevicePlan, DevicePlanError> {
    let requests = exclusivity.requests(ENDLESS);
    let (mut end, mut shares): (u64, _) = (0, Vec::new());
    // First all sums, so that a refusal states those of the whole device.
    for (partition, request) in &requests {
        let (resident, scratch) = needed(request)?;
        let coarsest = coarsest(request);
        let base = end.checked_next_multiple_of(coarsest).unwrap_or(u64::MAX);
        let share = PartitionShare { partition: *partition, base, resident, scratch };
        end = share.size(coarsest).and_then(|size| base.checked_add(size)).unwrap_or(u64::MAX);
        shares.push(share);
    }
    if end > capacity.0 {
        return Err(refuse(&shares, end, capacity).into());
    }
    let mut placements = Vec::new();
    for (share, request) in shares.iter().zip(requests.into_values()) {
        let range = share.size(coarsest(&request)).expect("it is within the capacity");
        let draft = stacked(&PlanRequest { capacity: Bytes(range), ..request })?;
        let moved = |placement: &Placement| Placement {
            offset: placement.offset + share.base,
            ..*placement
        };
        placements.extend(draft.placements().iter().map(moved));
    }
    let plan = check_device(exclusivity, placements, capacity)?;
    Ok(DevicePlan { plan, shares })
}

impl PartitionShare {
    /// How many bytes its range has. Scratch hangs from the end, so the end is aligned for it.
    fn size(&self, coarsest: u64) -> Option<u64> {
        self.resident.checked_add(self.scratch)?.checked_align_up(coarsest).map(|size| size.0)
    }
}

/// The coarsest alignment of any tensor.
fn coarsest(request: &PlanRequest) -> u64 {
    let tensors = request.models.iter().flat_map(|memory| &memory.tensors);
    tensors.map(|tensor| tensor.alignment).max().unwrap_or(1)
}

fn refuse(shares: &[PartitionShare], end: u64, limit: Bytes) -> MemoryError {
    let add = |sum: Bytes, part: Bytes| sum.checked_add(part).unwrap_or(Bytes(u64::MAX));
    let scratch = shares.iter().map(|share| share.scratch).fold(Bytes::ZERO, add);
    let resident = shares.iter().map(|share| share.resident).fold(Bytes::ZERO, add);
    // What lies between the ranges is counted with what stays, as other holes are.
    let persistent = Bytes(end).saturating_sub(scratch);
    let why = Refusal::DeviceMemory { persistent, scratch, limit, replanned: None };
    MemoryError::Refused { why, holes: persistent.saturating_sub(resident) }
}

//! The two-ended placement: what stays grows from the bottom, what is shared hangs from the top.
//!
//! ```text
//!   0                        resident end         scratch base                 capacity
//!   |  m0  | m1 | hole | m2  |        free        |<------- scratch of m1 ------->|
//!                                                      |<---- scratch of m0 ----->|
//!                                                             |<- scratch of m2 ->|
//! ```
//!
//! Scratch of every model ends at the end of the range, so it costs the maximum and not the sum,
//! and no model's scratch moves when another model comes or goes. Only resident tensors pin
//! addresses; an evicted model leaves a hole which the next one fills if it fits.
//!
//! With several partitions, each model's scratch hangs as high as it can below what the *other*
//! partitions hung, and shares with its own. Planned all at once, the deepest of each partition goes
//! first, so the scratch of all costs the sum over the partitions of the maximum of each, which no
//! plan beats. Planned one by one, a model deeper than those before it may leave a gap above it
//! (`docs/adr/0044`).
//!
//! # Guarantees
//! 1. Resident tensors lie below all scratch: the plan exists exactly if
//!    `resident end + deepest scratch <= capacity`, and a refusal states these three numbers.
//! 2. Scratch of two partitions shares no byte.
//! 3. Deterministic: the order of models counts, the order of tensors within a model does not.
//! 4. Scratch is as [`solve`](crate::place::solve()) places it: of 21 networks measured, that of all
//!    took the largest live size, which no plan can beat. Fixed tensors near the top are not
//!    planned around, and holes below are filled by best fit, which is not optimal.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use aegis_trace::{Bytes, ModelId, PartitionId, Refusal, TensorId};

use crate::error::MemoryError;
use crate::lifetime::{ModelMemory, TensorLifetime};
use crate::place::bottom::Bottom;
use crate::place::top::Top;
use crate::plan::{AllocationPlan, Draft, Placement, PlanRequest};

type Fixed<'request> = BTreeMap<(ModelId, TensorId), &'request Placement>;

/// Places `request` from both ends of its range, around what is fixed.
///
/// O(n^2) in the number of tensors: each looks once at the holes, or at its model's scratch. Uses
/// no clock, randomness or device, so the same request gets the same draft everywhere. Measured on
/// one core: below 2 ms for each of 21 networks of 50 to 1234 tensors.
///
/// # Errors
/// [`MemoryError::Refused`] (permanent) when the two ends meet, and [`MemoryError::Request`]
/// (permanent) when the request is faulty.
///
/// # Examples
/// ```
/// use aegis_memory::{place, Lifespan, ModelMemory, PlanRequest, TensorClass, TensorLifetime};
/// use aegis_trace::{Bytes, ModelId, PartitionId, TensorId};
///
/// let tensor = |index, class, size| TensorLifetime {
///     tensor: TensorId::first(index),
///     class,
///     span: Lifespan::new(0, 1).expect("one step"),
///     size: Bytes(size),
///     alignment: 256,
/// };
/// let model = |index, weights, scratch| ModelMemory {
///     model: ModelId::first(index),
///     partition: PartitionId::WHOLE,
///     tensors: vec![
///         tensor(0, TensorClass::Persistent, weights),
///         tensor(1, TensorClass::Scratch, scratch),
///     ],
/// };
/// // Weights add up to 1536 bytes; of the scratch, 1024 and 2048, the larger is enough.
/// let request = PlanRequest {
///     capacity: Bytes(3584),
///     models: vec![model(0, 512, 1024), model(1, 1024, 2048)],
///     fixed: vec![],
/// };
/// let plan = place::stacked(&request)?.check(&request)?;
/// assert_eq!((plan.resident(), plan.scratch()), (Bytes(1536), Bytes(2048)));
///
/// let tight = PlanRequest { capacity: Bytes(3583), ..request };
/// assert!(place::stacked(&tight).is_err());
/// # Ok::<(), aegis_memory::MemoryError>(())
/// ```
pub fn stacked(request: &PlanRequest) -> Result<AllocationPlan<Draft>, MemoryError> {
    let Stack { bottom, scratch, mut placements } = Stack::of(request)?;
    let depth = deepest(&scratch, request.capacity);
    if bottom.end().checked_add(depth).is_none_or(|needed| needed > request.capacity.0) {
        return Err(refuse(&bottom, depth, request.capacity));
    }
    for (memory, Hanging { top, ceiling }) in request.models.iter().zip(scratch) {
        placements.extend(top.placements(memory.model, ceiling));
    }
    Ok(AllocationPlan::draft(request.capacity, placements))
}

/// What [`stacked`] needs for `request`: where the last resident byte ends, and the deepest scratch.
/// Whether it fits is not asked.
///
/// # Errors
/// [`MemoryError::Request`] (permanent) when the request is faulty.
pub(crate) fn needed(request: &PlanRequest) -> Result<(Bytes, Bytes), MemoryError> {
    let Stack { bottom, scratch, .. } = Stack::of(request)?;
    Ok((Bytes(bottom.end()), Bytes(deepest(&scratch, request.capacity))))
}

/// Both ends of a request, whether they meet or not.
struct Stack {
    bottom: Bottom,
    scratch: Vec<Hanging>,      // One for each model.
    placements: Vec<Placement>, // Of what is fixed, and of the residents.
}

impl Stack {
    fn of(request: &PlanRequest) -> Result<Self, MemoryError> {
        request.validate()?;
        let fixed: Fixed<'_> = request.fixed.iter().map(|f| ((f.model, f.tensor), f)).collect();
        let mut stack = Self {
            bottom: bottom_around(request, &fixed),
            scratch: hang(request, &fixed),
            placements: request.fixed.clone(),
        };
        for memory in &request.models {
            stack_residents(memory, &fixed, &mut stack.bottom, &mut stack.placements);
        }
        Ok(stack)
    }
}

/// The bottom with the fixed residents in it.
fn bottom_around(request: &PlanRequest, fixed: &Fixed<'_>) -> Bottom {
    let of_model = |memory: &ModelMemory| {
        let model = memory.model;
        let find = |tensor: &TensorLifetime| fixed.get(&(model, tensor.tensor)).map(|f| **f);
        memory.exclusive().filter_map(find).collect::<Vec<_>>()
    };
    Bottom::around(request.models.iter().flat_map(of_model).collect())
}

fn stack_residents(
    memory: &ModelMemory,
    fixed: &Fixed<'_>,
    bottom: &mut Bottom,
    placements: &mut Vec<Placement>,
) {
    let is_free = |tensor: &&TensorLifetime| !fixed.contains_key(&(memory.model, tensor.tensor));
    let mut free: Vec<_> = memory.exclusive().filter(is_free).collect();
    // Falling alignments need no padding between sizes that are multiples of their alignments;
    // large before small, so that the small ones find the holes.
    free.sort_by_key(|t| (std::cmp::Reverse((t.alignment, t.size)), t.tensor));
    for tensor in free {
        let TensorLifetime { tensor, size, alignment, .. } = *tensor;
        // Without an offset the bottom has passed every capacity, and the request is refused.
        let offset = bottom.take(size, alignment);
        placements.extend(offset.map(|offset| Placement {
            model: memory.model,
            tensor,
            offset,
            size,
        }));
    }
}

fn hang_scratch(memory: &ModelMemory, fixed: &Fixed<'_>, capacity: Bytes) -> Top {
    let mut top = Top::below(capacity);
    let mut free = Vec::new();
    for tensor in memory.scratch() {
        match fixed.get(&(memory.model, tensor.tensor)) {
            Some(placement) => top.fix(placement, tensor.span),
            None => free.push(*tensor),
        }
    }
    top.hang_all(free);
    top
}

/// The scratch of one model below its ceiling.
struct Hanging {
    top: Top,
    ceiling: Bytes,
}

impl Hanging {
    fn below(ceiling: Bytes, memory: &ModelMemory, fixed: &Fixed<'_>) -> Self {
        Self { top: hang_scratch(memory, fixed, ceiling), ceiling }
    }

    /// The bytes that it takes; from zero on where it is deeper than there is room.
    fn range(&self) -> Range<u64> {
        self.ceiling.0.saturating_sub(self.top.depth())..self.ceiling.0
    }
}

/// How far scratch reaches down from the end of the range.
fn deepest(scratch: &[Hanging], capacity: Bytes) -> u64 {
    let depth =
        |hanging: &Hanging| (capacity.0 - hanging.ceiling.0).saturating_add(hanging.top.depth());
    scratch.iter().map(depth).max().unwrap_or(0)
}

/// Hangs the scratch of every model.
fn hang(request: &PlanRequest, fixed: &Fixed<'_>) -> Vec<Hanging> {
    let (models, capacity) = (&request.models, request.capacity);
    let mut hung: Vec<Hanging> =
        models.iter().map(|memory| Hanging::below(capacity, memory, fixed)).collect();
    let Some(first) = models.first() else { return hung };
    if models.iter().all(|memory| memory.partition == first.partition) {
        return hung;
    }
    let is_open = |memory: &ModelMemory| {
        memory.scratch().any(|tensor| !fixed.contains_key(&(memory.model, tensor.tensor)))
    };
    let mut open: Vec<usize> = (0..models.len()).filter(|at| is_open(&models[*at])).collect();
    // The deepest of each partition makes the room that the others of it share.
    open.sort_by_key(|at| (models[*at].partition, Reverse(hung[*at].top.depth())));
    let mut taken: Vec<Taken> = models.iter().flat_map(|memory| held(memory, fixed)).collect();
    for at in open {
        hung[at] = below_others(&models[at], fixed, capacity, &taken);
        taken.push((models[at].partition, hung[at].range()));
    }
    hung
}

/// Scratch of a partition.
type Taken = (PartitionId, Range<u64>);

/// Where the fixed scratch of a model is.
fn held(memory: &ModelMemory, fixed: &Fixed<'_>) -> Vec<Taken> {
    let find = |tensor: &TensorLifetime| fixed.get(&(memory.model, tensor.tensor));
    let range = |placed: &Placement| placed.offset..placed.end().unwrap_or(u64::MAX);
    memory.scratch().filter_map(find).map(|placed| (memory.partition, range(placed))).collect()
}

/// Hangs one model's scratch at the highest ceiling below which it meets none of other partitions.
fn below_others(
    memory: &ModelMemory,
    fixed: &Fixed<'_>,
    capacity: Bytes,
    taken: &[Taken],
) -> Hanging {
    let others = || taken.iter().filter(|(of, _)| *of != memory.partition).map(|(_, range)| range);
    let coarsest = memory.scratch().map(|tensor| tensor.alignment).max().unwrap_or(1);
    let mut ceilings: Vec<u64> =
        others().map(|range| range.start - range.start % coarsest).collect();
    ceilings.sort_unstable();
    ceilings.dedup();
    let mut hanging = Hanging::below(capacity, memory, fixed);
    // Below the lowest there is nobody else, so the last one is right or there is no room at all.
    while let Some(lower) = ceilings.pop() {
        let own = hanging.range();
        if others().all(|other| other.end <= own.start || own.end <= other.start) {
            break;
        }
        hanging = Hanging::below(Bytes(lower), memory, fixed);
    }
    hanging
}

fn refuse(bottom: &Bottom, depth: u64, capacity: Bytes) -> MemoryError {
    let (persistent, scratch) = (Bytes(bottom.end()), Bytes(depth));
    let why = Refusal::DeviceMemory { persistent, scratch, limit: capacity, replanned: None };
    MemoryError::Refused { why, holes: persistent.saturating_sub(bottom.used()) }
}

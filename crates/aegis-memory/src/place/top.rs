//! The upper end of the range: the scratch of one model, hanging from the end.
//!
//! Places are counted as depths, from the end of the range down: a tensor at depth `[near, far)`
//! lies at offsets `[capacity - far, capacity - near)`. Each tensor, the largest first, takes the
//! least depth at which it meets no tensor that is live with it. Where that is deeper than what is
//! live at once, and nothing is fixed, [`solve`] gets a few nodes to do better.
//!
//! ```text
//!   offset    ..  capacity - far   ..   capacity - near   ..   capacity
//!                 |<------- tensor -------->|
//!   depth     ..  far              ..   near              ..   0
//! ```
//!
//! # Invariants
//! 1. Slots ascend by `near`.
//! 2. A depth says nothing of the capacity but its remainder modulo the alignments: as long as the
//!    capacity is a multiple of them all, a model needs the same depth in every range.
//!
//! # Sources
//! "Greedy by Size for Offset Calculation" of Pisarchyk, Lee, "Efficient Memory Management for Deep
//! Neural Net Inference", 2020, with first fit in place of its best fit, and mirrored.

use std::cmp::Reverse;

use aegis_trace::{Bytes, ModelId, TensorId};

use crate::lifetime::{Lifespan, ModelMemory, TensorLifetime};
use crate::place::problem::{Buffer, Problem};
use crate::place::solve::{Limits, solve};
use crate::plan::Placement;

/// The nodes a better depth is searched with, for each tensor: two rounds of the portfolio. A
/// network takes one or two; see `search/`.
const NODES_PER_TENSOR: u64 = 160;

/// A scratch tensor at its depth.
#[derive(Clone, Copy, Debug)]
struct Slot {
    near: u64,
    far: u64,
    span: Lifespan,
}

/// A tensor that was hung, its size, and its far depth.
type Hung = (TensorId, Bytes, u64);

/// The scratch of one model, hanging from the end of the range.
#[derive(Debug)]
pub(super) struct Top {
    capacity: Bytes,
    slots: Vec<Slot>,
    hung: Vec<Hung>,
    depth: u64,
}

impl Top {
    /// No scratch yet, below `capacity`.
    pub(super) fn below(capacity: Bytes) -> Self {
        Self { capacity, slots: Vec::new(), hung: Vec::new(), depth: 0 }
    }

    /// Adds a tensor that is bound already. What reaches past the range is the checker's to find.
    pub(super) fn fix(&mut self, placement: &Placement, span: Lifespan) {
        let near = self.capacity.0.saturating_sub(placement.end().unwrap_or(u64::MAX));
        let far = self.capacity.0.saturating_sub(placement.offset);
        self.insert(Slot { near, far, span });
    }

    /// Adds `tensors` one by one, or as [`solve`] places them where that is less deep.
    ///
    /// O(n^2) in the number of tensors, and as many nodes as [`NODES_PER_TENSOR`] says. Past a depth
    /// of 2^64 nothing is placed, and [`depth`](Self::depth) is `u64::MAX`.
    pub(super) fn hang_all(&mut self, tensors: Vec<TensorLifetime>) {
        let nothing_fixed = self.slots.is_empty();
        let solved = if nothing_fixed { self.solved(&tensors) } else { None };
        self.hang_one_by_one(tensors);
        if let Some((depth, hung)) = solved.filter(|(depth, _)| *depth < self.depth) {
            (self.depth, self.hung) = (depth, hung);
        }
    }

    /// The largest first, of equals the one that lives longest, then by id.
    fn hang_one_by_one(&mut self, mut tensors: Vec<TensorLifetime>) {
        tensors.sort_by_key(|tensor| {
            let steps = tensor.span.end() - tensor.span.start();
            (Reverse((tensor.size, steps)), tensor.tensor)
        });
        for tensor in tensors {
            let Some(far) = self.first_fit(&tensor) else {
                self.depth = u64::MAX;
                return;
            };
            self.insert(Slot { near: far - tensor.size.0, far, span: tensor.span });
            self.hung.push((tensor.tensor, tensor.size, far));
        }
    }

    /// The tensors as [`solve`] places them, upwards from an address that is aligned for all: the
    /// depth of it, and the far depth of each. `None` for what is no problem or fits no address.
    fn solved(&self, tensors: &[TensorLifetime]) -> Option<(u64, Vec<Hung>)> {
        let buffer = |tensor: &TensorLifetime| Buffer {
            lower: i64::from(tensor.span.start()),
            upper: i64::from(tensor.span.end()),
            size: tensor.size.0,
            alignment: tensor.alignment,
        };
        // The search breaks ties by position: in order of id, the order given does not matter.
        let mut tensors: Vec<_> = tensors.iter().collect();
        tensors.sort_by_key(|tensor| tensor.tensor);
        let problem = Problem::new(tensors.iter().map(|tensor| buffer(tensor)).collect()).ok()?;
        let nodes = NODES_PER_TENSOR.saturating_mul(tensors.len() as u64);
        let solution = solve(&problem, &Limits { nodes, ..Limits::minimise(tensors.len()) });
        let coarsest = tensors.iter().map(|tensor| tensor.alignment).max().unwrap_or(1);
        let depth = solution.peak().0.next_multiple_of(coarsest) + self.capacity.0 % coarsest;
        let far = |(tensor, offset): (&&TensorLifetime, &u64)| {
            (tensor.tensor, tensor.size, depth - offset)
        };
        Some((depth, tensors.iter().zip(solution.offsets.offsets()).map(far).collect()))
    }

    /// How far the scratch reaches down from the end of the range, in bytes.
    pub(super) fn depth(&self) -> u64 {
        self.depth
    }

    /// The offsets of what was hung, without what was fixed.
    ///
    /// # Panics
    /// When the scratch is deeper than the range; the caller has compared them.
    pub(super) fn placements(
        self,
        model: ModelId,
        capacity: Bytes,
    ) -> impl Iterator<Item = Placement> {
        let place = move |(tensor, size, far): Hung| Placement {
            model,
            tensor,
            offset: capacity.0 - far,
            size,
        };
        self.hung.into_iter().map(place)
    }

    /// The far end of the least depth at which `tensor` meets no other that is live with it.
    fn first_fit(&self, tensor: &TensorLifetime) -> Option<u64> {
        let mut near = 0;
        for slot in self.slots.iter().filter(|slot| slot.span.overlaps(tensor.span)) {
            if self.reach(near, tensor)? <= slot.near {
                break;
            }
            near = near.max(slot.far);
        }
        self.reach(near, tensor)
    }

    /// The least `far >= near + size` at which the offset, `capacity - far`, is aligned.
    fn reach(&self, near: u64, tensor: &TensorLifetime) -> Option<u64> {
        // The peak of a model may be asked for before its request is validated: zero is no panic.
        let alignment = tensor.alignment.max(1);
        // An aligned offset is a whole number of alignments below the last aligned address.
        let slack = self.capacity.0 % alignment;
        let far = near.checked_add(tensor.size.0)?;
        let below = far.saturating_sub(slack);
        below.checked_next_multiple_of(alignment)?.checked_add(slack)
    }

    fn insert(&mut self, slot: Slot) {
        let at = self.slots.partition_point(|other| other.near <= slot.near);
        self.slots.insert(at, slot);
        self.depth = self.depth.max(slot.far);
    }
}

impl ModelMemory {
    /// What the model's scratch takes while it runs, as [`stacked`](crate::place::stacked()) plans
    /// it in a range whose end is aligned for every tensor. Where the range ends elsewhere, padding
    /// differs: a tensor that begins at an aligned offset may end short of the range's end.
    ///
    /// Saturates at 2^64 - 1 bytes, which no device has. O(n^2) in the number of scratch tensors:
    /// keep the answer.
    #[must_use]
    pub fn scratch_peak(&self) -> Bytes {
        let mut top = Top::below(Bytes::ZERO); // Zero is a multiple of every alignment.
        top.hang_all(self.scratch().copied().collect());
        Bytes(top.depth())
    }
}

#[cfg(test)]
mod tests {
    use aegis_trace::PartitionId;

    use super::*;
    use crate::lifetime::TensorClass;

    fn scratch(index: u16, (start, end): (u32, u32), size: u64, alignment: u64) -> TensorLifetime {
        TensorLifetime {
            tensor: TensorId::first(index),
            class: TensorClass::Scratch,
            span: Lifespan::new(start, end).expect("not empty"),
            size: Bytes(size),
            alignment,
        }
    }

    fn model(tensors: Vec<TensorLifetime>) -> ModelMemory {
        ModelMemory { model: ModelId::first(0), partition: PartitionId::WHOLE, tensors }
    }

    /// The offsets by tensor, and the depth.
    fn hang(capacity: u64, tensors: &[TensorLifetime]) -> (Vec<u64>, u64) {
        let mut top = Top::below(Bytes(capacity));
        top.hang_all(tensors.to_vec());
        let depth = top.depth();
        let mut placed: Vec<_> = top.placements(ModelId::first(0), Bytes(capacity)).collect();
        placed.sort_by_key(|placement| placement.tensor);
        (placed.iter().map(|placement| placement.offset).collect(), depth)
    }

    #[test]
    fn tensors_that_do_not_live_together_share_the_end() {
        let chain =
            [scratch(0, (0, 2), 300, 4), scratch(1, (1, 3), 200, 4), scratch(2, (2, 4), 300, 4)];
        assert_eq!(hang(1000, &chain), (vec![700, 500, 700], 500));
    }

    #[test]
    fn a_small_tensor_fills_the_gap_between_two_others() {
        // By size: 0 at depth [0, 400); 1 overlaps it: [400, 700); 2 overlaps 1 alone: [0, 200),
        // and 3 overlaps 1 and 2: [200, 400).
        let tensors = [
            scratch(0, (0, 2), 400, 4),
            scratch(1, (1, 5), 300, 4),
            scratch(2, (3, 5), 200, 4),
            scratch(3, (4, 5), 200, 4),
        ];
        assert_eq!(hang(1000, &tensors), (vec![600, 300, 800, 600], 700));
    }

    #[test]
    fn a_range_that_ends_unaligned_loses_its_tail() {
        let tensor = [scratch(0, (0, 1), 256, 256)];
        assert_eq!(hang(1024, &tensor), (vec![768], 256));
        assert_eq!(hang(1023, &tensor), (vec![512], 511));
        // Small enough for the tail, and aligned where the tail begins.
        assert_eq!(hang(1023, &[scratch(0, (0, 1), 255, 256)]), (vec![768], 255));
    }

    #[test]
    fn the_peak_of_a_model_pads_each_tensor_downwards() {
        let memory = model(vec![scratch(0, (0, 2), 100, 64), scratch(1, (1, 2), 10, 256)]);
        // [0, 128) padded, then [246, 256).
        assert_eq!(memory.scratch_peak(), Bytes(256));
    }

    #[test]
    fn absurd_sizes_saturate_and_a_faulty_alignment_is_left_to_validation() {
        let unaligned = model(vec![scratch(0, (0, 1), 100, 0)]);
        assert_eq!(unaligned.scratch_peak(), Bytes(100));
        let huge = |index| scratch(index, (0, 1), u64::MAX / 2 + 1, 1);
        assert_eq!(model(vec![huge(0), huge(1)]).scratch_peak(), Bytes(u64::MAX));
    }
}

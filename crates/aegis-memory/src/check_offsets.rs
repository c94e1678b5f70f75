//! The independent checker of bare placement problems: offsets as a planner, or a file, gives them.
//!
//! It shares no code with `place/` but the statement of the problem, and is the only maker of
//! [`CheckedOffsets`].
//!
//! # Rules
//! 1. There is one offset for every buffer, a multiple of its alignment.
//! 2. No buffer ends past the capacity, and no end overflows.
//! 3. Two buffers that live at the same time share no byte.
//!
//! # Method
//! One sweep over time. What is live is kept by offset and is pairwise disjoint, so a newcomer can
//! only collide with its neighbours. O(n log n).

use std::collections::BTreeMap;

use aegis_trace::Bytes;

use crate::error::OffsetFault;
use crate::place::problem::Problem;

/// An offset for every buffer of a [`Problem`], in its order. They passed the checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedOffsets {
    offsets: Vec<u64>,
    peak: Bytes,
}

impl CheckedOffsets {
    /// The offsets, by index of buffer.
    #[must_use]
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// The highest end of any buffer.
    #[must_use]
    pub fn peak(&self) -> Bytes {
        self.peak
    }
}

/// Checks `offsets` for the buffers of `problem` within `capacity`. O(n log n).
///
/// # Errors
/// The first [`OffsetFault`] (permanent), rule by rule.
pub fn check_offsets(
    problem: &Problem,
    offsets: Vec<u64>,
    capacity: Bytes,
) -> Result<CheckedOffsets, OffsetFault> {
    let buffers = problem.buffers();
    if offsets.len() != buffers.len() {
        return Err(OffsetFault::Count { buffers: buffers.len(), offsets: offsets.len() });
    }
    let mut ends = Vec::with_capacity(offsets.len());
    for (index, (buffer, &offset)) in buffers.iter().zip(&offsets).enumerate() {
        if !offset.is_multiple_of(buffer.alignment) {
            return Err(OffsetFault::Misaligned { index, offset, alignment: buffer.alignment });
        }
        let end = offset.checked_add(buffer.size).filter(|end| *end <= capacity.0);
        ends.push(end.ok_or(OffsetFault::OutOfRange { index, offset, capacity })?);
    }
    sweep(problem, &offsets, &ends)?;
    let peak = Bytes(ends.iter().copied().max().unwrap_or(0));
    Ok(CheckedOffsets { offsets, peak })
}

/// Rule 3.
fn sweep(problem: &Problem, offsets: &[u64], ends: &[u64]) -> Result<(), OffsetFault> {
    let mut moments = Vec::with_capacity(offsets.len() * 2);
    for (index, buffer) in problem.buffers().iter().enumerate() {
        if buffer.size > 0 {
            moments.push((buffer.upper, 0u8, index)); // Ends come first: lives are half-open.
            moments.push((buffer.lower, 1u8, index));
        }
    }
    moments.sort_unstable();
    let mut live: BTreeMap<u64, usize> = BTreeMap::new();
    for (time, kind, index) in moments {
        if kind == 0 {
            live.remove(&offsets[index]);
            continue;
        }
        let below = live.range(..=offsets[index]).next_back();
        if let Some((_, &other)) = below.filter(|(_, other)| ends[**other] > offsets[index]) {
            return Err(OffsetFault::Overlap { lower: other, upper: index, time });
        }
        let above = live.range(offsets[index]..).next();
        if let Some((_, &other)) = above.filter(|(offset, _)| **offset < ends[index]) {
            return Err(OffsetFault::Overlap { lower: index, upper: other, time });
        }
        live.insert(offsets[index], index);
    }
    Ok(())
}

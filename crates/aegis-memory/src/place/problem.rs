//! The placement problem by itself: buffers with lifetimes and sizes, no models and no classes.
//!
//! An offset for each [`Buffer`] is sought such that no two buffers share a byte at a time at which
//! both live, and such that the highest end, the *peak*, is small. This is dynamic storage
//! allocation, strongly NP-hard (Garey, Johnson, "Computers and Intractability", 1979, problem
//! SR2).
//!
//! # Invariants
//! 1. Lifetimes are half-open and never empty; alignments are not zero.
//! 2. All sizes add up to less than 2^63; and so do sizes and padding of those that can come to lie
//!    upon each other, even if all do and are padded most. No sum of sizes or offsets in a planner
//!    can overflow, so planners add without checking.

use aegis_trace::Bytes;

use crate::error::ProblemFault;

/// What every buffer of a problem must stay below, even if nothing is shared.
const END_MAX: u64 = i64::MAX.cast_unsigned();

/// A buffer without an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// The first time at which it lives. Times are whatever the caller counts.
    pub lower: i64,
    /// The first time at which it no longer lives; later than `lower`.
    pub upper: i64,
    /// How many bytes. Zero is allowed: such a buffer meets nothing and lies at offset 0.
    pub size: u64,
    /// What its offset must be a multiple of, in bytes; not zero, otherwise any number.
    pub alignment: u64,
}

impl Buffer {
    /// Whether some time belongs to the lives of both. Adjacent lives do not overlap.
    #[must_use]
    pub const fn lives_with(&self, other: &Self) -> bool {
        self.lower < other.upper && other.lower < self.upper
    }
}

/// Buffers that can be planned: valid by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    buffers: Vec<Buffer>,
    ceiling: u64,
}

impl Problem {
    /// The problem of placing `buffers`, which are known by their index from here on. O(n), and
    /// O(n log n) where alignments are so large that it matters what can meet.
    ///
    /// # Errors
    /// The first [`ProblemFault`] (permanent).
    pub fn new(buffers: Vec<Buffer>) -> Result<Self, ProblemFault> {
        for (index, buffer) in buffers.iter().enumerate() {
            if buffer.lower >= buffer.upper {
                return Err(ProblemFault::EmptyLife { index });
            }
            if buffer.alignment == 0 {
                return Err(ProblemFault::ZeroAlignment { index });
            }
        }
        let ceiling = ceiling(&buffers)?;
        Ok(Self { buffers, ceiling })
    }

    /// The buffers, by index.
    #[must_use]
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// The first time at which the live sizes add up to most; 0 without buffers. O(n log n).
    #[must_use]
    pub fn busiest(&self) -> i64 {
        let mut edges: Vec<(i64, bool, u64)> = Vec::with_capacity(self.buffers.len() * 2);
        for Buffer { lower, upper, size, .. } in &self.buffers {
            edges.extend([(*upper, false, *size), (*lower, true, *size)]);
        }
        edges.sort_unstable(); // Ends before starts: lives are half-open.
        let (mut live, mut most, mut busiest) = (0, 0, 0);
        for (time, starts, size) in edges {
            if !starts {
                live -= size;
                continue;
            }
            live += size;
            if live > most {
                (most, busiest) = (live, time);
            }
        }
        busiest
    }

    /// Where all buffers end at most, even if those that can come to lie upon each other all do, with
    /// the most padding.
    #[must_use]
    pub fn ceiling(&self) -> Bytes {
        Bytes(self.ceiling)
    }

    /// The sum of all sizes: the peak of a plan that shares nothing and needs no padding. O(n).
    #[must_use]
    pub fn total(&self) -> Bytes {
        self.buffers.iter().map(|buffer| Bytes(buffer.size)).sum()
    }
}

/// Where `buffers` end at most.
fn ceiling(buffers: &[Buffer]) -> Result<u64, ProblemFault> {
    let size = |buffer: &Buffer| Some(buffer.size);
    within(buffers, 0..buffers.len(), size)?;
    let padded = |buffer: &Buffer| buffer.size.checked_add(buffer.alignment - 1);
    if let Ok(ceiling) = within(buffers, 0..buffers.len(), padded) {
        return Ok(ceiling);
    }
    let mut highest = 0;
    for group in groups(buffers) {
        let smallest = group.iter().map(|index| buffers[*index].alignment - 1).min();
        // What lies lowest is not padded. Should another lie there, its padding is no smaller.
        let lowest =
            group.iter().copied().find(|index| Some(buffers[*index].alignment - 1) == smallest);
        let above = group.iter().copied().filter(|index| Some(*index) != lowest);
        let above = within(buffers, above, padded)?;
        let base = lowest.map_or(0, |index| buffers[index].size);
        let index = group[group.len() - 1];
        let end = above.checked_add(base).filter(|end| *end <= END_MAX);
        highest = highest.max(end.ok_or(ProblemFault::TooLarge { index })?);
    }
    Ok(highest)
}

/// The sum of `part` over the buffers at `indices`; the first with which it is too large is at fault.
fn within(
    buffers: &[Buffer],
    indices: impl IntoIterator<Item = usize>,
    part: impl Fn(&Buffer) -> Option<u64>,
) -> Result<u64, ProblemFault> {
    let mut end: u64 = 0;
    for index in indices {
        let sum = part(&buffers[index]).and_then(|part| end.checked_add(part));
        end = sum.filter(|end| *end <= END_MAX).ok_or(ProblemFault::TooLarge { index })?;
    }
    Ok(end)
}

/// The buffers that have a size, in groups between which there is a time at which nothing lives: none
/// can come to lie upon one of another group. Each ascends.
fn groups(buffers: &[Buffer]) -> Vec<Vec<usize>> {
    let mut order: Vec<_> = (0..buffers.len()).filter(|index| buffers[*index].size > 0).collect();
    order.sort_by_key(|index| buffers[*index].lower);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut end = i64::MIN;
    for index in order {
        let Buffer { lower, upper, .. } = buffers[index];
        match groups.last_mut() {
            Some(group) if lower < end => group.push(index),
            _ => groups.push(vec![index]),
        }
        end = end.max(upper);
    }
    groups.iter_mut().for_each(|group| group.sort_unstable());
    groups
}

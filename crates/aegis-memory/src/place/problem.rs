//! The placement problem by itself: buffers with lifetimes and sizes, no models and no classes.
//!
//! An offset for each [`Buffer`] is sought such that no two buffers share a byte at a time at which
//! both live, and such that the highest end, the *peak*, is small. This is dynamic storage
//! allocation, strongly NP-hard (Garey, Johnson, "Computers and Intractability", 1979, problem
//! SR2).
//!
//! # Invariants
//! 1. Lifetimes are half-open and never empty; alignments are not zero.
//! 2. Even stacked upon each other with the most padding, all buffers end below 2^63. No sum of
//!    sizes or offsets in a planner can overflow, so planners add without checking.

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
}

impl Problem {
    /// The problem of placing `buffers`, which are known by their index from here on. O(n).
    ///
    /// # Errors
    /// The first [`ProblemFault`] (permanent).
    pub fn new(buffers: Vec<Buffer>) -> Result<Self, ProblemFault> {
        let mut end: u64 = 0;
        for (index, buffer) in buffers.iter().enumerate() {
            if buffer.lower >= buffer.upper {
                return Err(ProblemFault::EmptyLife { index });
            }
            if buffer.alignment == 0 {
                return Err(ProblemFault::ZeroAlignment { index });
            }
            let padded = buffer.size.checked_add(buffer.alignment - 1);
            let sum = padded.and_then(|padded| end.checked_add(padded));
            end = sum.filter(|end| *end <= END_MAX).ok_or(ProblemFault::TooLarge { index })?;
        }
        Ok(Self { buffers })
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

    /// Where all buffers end at most, even stacked upon each other with the most padding.
    #[must_use]
    pub fn ceiling(&self) -> Bytes {
        self.buffers.iter().map(|buffer| Bytes(buffer.size + (buffer.alignment - 1))).sum()
    }

    /// The sum of all sizes: the peak of a plan that shares nothing and needs no padding. O(n).
    #[must_use]
    pub fn total(&self) -> Bytes {
        self.buffers.iter().map(|buffer| Bytes(buffer.size)).sum()
    }
}

//! The lower end of the range: resident tensors, best fit in the holes between them.
//!
//! Best fit takes the smallest hole that is large enough, the lowest of equals, and grows the used
//! part only when no hole is. The part above the last tensor is a hole too, and the largest.
//!
//! # Invariants
//! 1. Holes are not empty, ascend, and do not touch each other.
//! 2. Where a tensor goes does not depend on the capacity.

use std::ops::Range;

use aegis_trace::Bytes;

use crate::plan::Placement;

/// The used part of the range, as the holes in it.
#[derive(Debug)]
pub(super) struct Bottom {
    holes: Vec<Range<u64>>,
    end: u64,
    used: Bytes,
}

impl Bottom {
    /// The bottom with `fixed` in it. Should they overlap, which the checker will say, the holes
    /// are those that none of them covers. O(n log n).
    pub(super) fn around(mut fixed: Vec<Placement>) -> Self {
        fixed.sort_by_key(|placement| placement.offset);
        let mut bottom = Self { holes: Vec::new(), end: 0, used: Bytes::ZERO };
        for placement in fixed {
            if bottom.end < placement.offset {
                bottom.holes.push(bottom.end..placement.offset);
            }
            bottom.grow(placement.end().unwrap_or(u64::MAX), placement.size);
        }
        bottom.holes.push(bottom.end..u64::MAX);
        bottom
    }

    /// Takes `size` bytes at a multiple of `alignment`. O(n) in the number of holes.
    ///
    /// `None` when nothing below 2^64 is left; [`end`](Self::end) is then `u64::MAX`.
    pub(super) fn take(&mut self, size: Bytes, alignment: u64) -> Option<u64> {
        let Some((index, offset, end)) = self.best_fit(size.0, alignment) else {
            self.grow(u64::MAX, size);
            return None;
        };
        let hole = self.holes[index].clone();
        let rest = [hole.start..offset, end..hole.end];
        self.holes.splice(index..=index, rest.into_iter().filter(|rest| !rest.is_empty()));
        self.grow(end, size);
        Some(offset)
    }

    /// The end of the last resident tensor: where the free part begins.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The bytes of all resident tensors, without padding and holes.
    pub(super) fn used(&self) -> Bytes {
        self.used
    }

    /// The index of the smallest hole that fits, with the offset and the end in it.
    fn best_fit(&self, size: u64, alignment: u64) -> Option<(usize, u64, u64)> {
        let fit = |(index, hole): (usize, &Range<u64>)| {
            let offset = hole.start.checked_next_multiple_of(alignment)?;
            let end = offset.checked_add(size)?;
            (end <= hole.end).then_some((index, offset, end))
        };
        let fitting = self.holes.iter().enumerate().filter_map(fit);
        // Of equal holes `min_by_key` keeps the first, which is the lowest.
        fitting.min_by_key(|(index, ..)| self.holes[*index].end - self.holes[*index].start)
    }

    fn grow(&mut self, end: u64, size: Bytes) {
        self.end = self.end.max(end);
        self.used = self.used.checked_add(size).unwrap_or(Bytes(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use aegis_trace::{ModelId, TensorId};

    use super::*;

    fn bottom(fixed: &[(u64, u64)]) -> Bottom {
        let place = |(index, &(offset, size)): (u16, &(u64, u64))| Placement {
            model: ModelId::first(0),
            tensor: TensorId::first(index),
            offset,
            size: Bytes(size),
        };
        Bottom::around((0..).zip(fixed).map(place).collect())
    }

    #[test]
    fn the_smallest_hole_that_fits_is_taken() {
        // Holes: [0, 300), [400, 500), [600, ..).
        let mut bottom = bottom(&[(300, 100), (500, 100)]);
        assert_eq!(bottom.take(Bytes(100), 4), Some(400));
        assert_eq!(bottom.take(Bytes(100), 4), Some(0));
        assert_eq!(bottom.take(Bytes(300), 4), Some(600));
        assert_eq!((bottom.end(), bottom.used()), (900, Bytes(700)));
    }

    #[test]
    fn of_equal_holes_the_lowest_is_taken() {
        let mut bottom = bottom(&[(100, 100), (300, 100), (500, 100)]);
        assert_eq!(bottom.take(Bytes(64), 4), Some(0));
        assert_eq!(bottom.take(Bytes(64), 4), Some(200));
        assert_eq!(bottom.take(Bytes(64), 4), Some(400));
    }

    #[test]
    fn padding_stays_a_hole() {
        let mut bottom = bottom(&[(0, 100)]);
        assert_eq!(bottom.take(Bytes(256), 256), Some(256));
        assert_eq!(bottom.take(Bytes(128), 4), Some(100));
        assert_eq!(bottom.take(Bytes(29), 1), Some(512));
        assert_eq!(bottom.take(Bytes(28), 1), Some(228));
        assert_eq!(bottom.end(), 541);
    }

    #[test]
    fn a_hole_too_small_once_aligned_is_passed_over() {
        // Aligned to 64, the hole [100, 200) has 72 bytes.
        let mut bottom = bottom(&[(0, 100), (200, 100)]);
        assert_eq!(bottom.take(Bytes(73), 64), Some(320));
        assert_eq!(bottom.take(Bytes(72), 64), Some(128));
    }

    #[test]
    fn fixed_tensors_that_overlap_leave_the_holes_that_none_covers() {
        let mut bottom = bottom(&[(100, 300), (200, 50), (350, 100)]);
        assert_eq!(bottom.take(Bytes(100), 1), Some(0));
        assert_eq!(bottom.take(Bytes(1), 1), Some(450));
    }

    #[test]
    fn what_no_address_holds_moves_the_end_past_every_capacity() {
        let mut bottom = bottom(&[(0, 1)]);
        assert_eq!(bottom.take(Bytes(u64::MAX), 1), None);
        assert_eq!(bottom.end(), u64::MAX);
    }
}

//! A run-time sub-allocator: address-ordered first fit over one range.
//!
//! It answers a foreign runtime that insists on allocating while it runs: inside the range that
//! was bound to it, and nowhere else. Run it once over a large range, read
//! [`high_water`](FirstFit::high_water), and bind exactly that much: the same calls then give the
//! same offsets.
//!
//! # Invariants
//! 1. Blocks and holes together cover `[0, capacity)` without overlap; both lists ascend.
//! 2. Holes are not empty and no two touch.
//! 3. A block begins at the lowest aligned offset at which it fits. Where that is depends on the
//!    calls before, not on the capacity, as long as every allocation succeeds.
//! 4. `free` never allocates from the system heap, and `alloc` only when more blocks are live than
//!    there was room for, which is at least as many as ever were.
//!
//! # Cost
//! With n live blocks and h holes (h <= n + 1): `alloc` looks at holes from the lowest up, O(h),
//! then makes room in a sorted list, O(log n) to find it and O(n) words to move; `free` is O(log n)
//! to find and O(n) words to move. Two contiguous lists rather than a tree: for the hundreds of
//! blocks a runtime holds, moving a few kilobytes costs less than a node from the system heap, and
//! its time has a bound.
//!
//! # Sources
//! Knuth, "The Art of Computer Programming", volume 1, section 2.5, algorithm A (first fit) with
//! the list in order of address.

use std::ops::Range;

use crate::error::UnknownBlock;

/// Hands out parts of `[0, capacity)`, always the lowest that fits.
///
/// Not synchronised: one owner at a time. Offsets and sizes are bytes. It touches no memory of the
/// range itself.
///
/// # Examples
/// ```
/// use aegis_memory::FirstFit;
///
/// let mut range = FirstFit::new(4096);
/// let a = range.alloc(1000, 256);
/// let b = range.alloc(1000, 256);
/// assert_eq!((a, b), (Some(0), Some(1024)));
/// assert_eq!(range.free(0), Ok(1000));
/// assert_eq!(range.alloc(24, 256), Some(0), "the lowest hole, not the last one");
/// assert_eq!(range.alloc(4096, 256), None, "never more than the range");
/// assert_eq!(range.high_water(), 2024);
/// ```
#[derive(Clone, Debug)]
pub struct FirstFit {
    capacity: u64,
    blocks: Vec<Range<u64>>,
    holes: Vec<Range<u64>>,
    in_use: u64,
    high_water: u64,
}

impl FirstFit {
    /// An empty range `[0, capacity)` without room for blocks: the lists grow as blocks come.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self::with_room(capacity, 0)
    }

    /// An empty range `[0, capacity)` that never allocates from the system heap while at most
    /// `blocks` blocks are live.
    #[must_use]
    pub fn with_room(capacity: u64, blocks: usize) -> Self {
        let mut empty = Self {
            capacity,
            blocks: Vec::with_capacity(blocks),
            holes: Vec::new(),
            in_use: 0,
            high_water: 0,
        };
        empty.reserve_holes();
        empty.reset();
        empty
    }

    /// Takes `size` bytes at the lowest multiple of `alignment` at which they fit; `None` when
    /// they fit nowhere, and nothing has changed then.
    ///
    /// A size of zero takes one byte, so that every live block has an offset of its own.
    ///
    /// # Panics
    /// When `alignment` is not a power of two.
    pub fn alloc(&mut self, size: u64, alignment: u64) -> Option<u64> {
        assert!(alignment.is_power_of_two(), "alignment {alignment} is not a power of two");
        let (index, block) = self.lowest_fit(size.max(1), alignment)?;
        self.split_hole(index, &block);
        let at = self.blocks.partition_point(|other| other.start < block.start);
        self.blocks.insert(at, block.clone());
        self.reserve_holes();
        self.in_use += block.end - block.start;
        self.high_water = self.high_water.max(block.end);
        Some(block.start)
    }

    /// Gives back the block that begins at `offset`, and returns its size in bytes.
    ///
    /// # Errors
    /// [`UnknownBlock`] (permanent) when no live block begins there; nothing has changed then.
    pub fn free(&mut self, offset: u64) -> Result<u64, UnknownBlock> {
        let found = self.blocks.binary_search_by_key(&offset, |block| block.start);
        let block = self.blocks.remove(found.map_err(|_| UnknownBlock { offset })?);
        let size = block.end - block.start;
        self.in_use -= size;
        self.merge_hole(block);
        Ok(size)
    }

    /// The furthest end any block has ever had: the capacity that the calls so far would have
    /// needed.
    #[must_use]
    pub fn high_water(&self) -> u64 {
        self.high_water
    }

    /// The bytes of all live blocks, without padding.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        self.in_use
    }

    /// How many blocks are live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.blocks.len()
    }

    /// The size of the range in bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Forgets every block. Keeps the room for blocks, and the high-water mark: what the calls
    /// before have needed, they have needed.
    pub fn reset(&mut self) {
        self.blocks.clear();
        self.holes.clear();
        if self.capacity > 0 {
            self.holes.push(0..self.capacity);
        }
        self.in_use = 0;
    }

    /// The lowest hole that fits, with the block in it.
    fn lowest_fit(&self, size: u64, alignment: u64) -> Option<(usize, Range<u64>)> {
        self.holes.iter().enumerate().find_map(|(index, hole)| {
            let start = hole.start.checked_next_multiple_of(alignment)?;
            let end = start.checked_add(size)?;
            (end <= hole.end).then_some((index, start..end))
        })
    }

    /// Replaces hole `index` by what `block` leaves of it on either side.
    fn split_hole(&mut self, index: usize, block: &Range<u64>) {
        let hole = &mut self.holes[index];
        let above = block.end..hole.end;
        hole.end = block.start;
        match (hole.is_empty(), above.is_empty()) {
            (true, true) => drop(self.holes.remove(index)),
            (true, false) => *hole = above,
            (false, true) => {}
            (false, false) => self.holes.insert(index + 1, above),
        }
    }

    /// Adds the hole that `block` leaves, joined with the holes it touches.
    fn merge_hole(&mut self, block: Range<u64>) {
        let at = self.holes.partition_point(|hole| hole.start < block.start);
        let below = at > 0 && self.holes[at - 1].end == block.start;
        let above = self.holes.get(at).is_some_and(|hole| hole.start == block.end);
        match (below, above) {
            (true, true) => {
                self.holes[at - 1].end = self.holes[at].end;
                self.holes.remove(at);
            }
            (true, false) => self.holes[at - 1].end = block.end,
            (false, true) => self.holes[at].start = block.start,
            (false, false) => self.holes.insert(at, block),
        }
    }

    /// Keeps room for one hole more than blocks: n blocks leave at most n + 1 holes, so that only
    /// the list of blocks ever decides when the heap is asked.
    fn reserve_holes(&mut self) {
        let most = self.blocks.capacity() + 1;
        self.holes.reserve(most.saturating_sub(self.holes.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_lists(range: &FirstFit) {
        let mut parts: Vec<_> = range.blocks.iter().chain(&range.holes).cloned().collect();
        parts.sort_by_key(|part| part.start);
        let mut next = 0;
        for part in &parts {
            assert_eq!(part.start, next, "no gap and no overlap");
            assert!(part.start < part.end, "not empty");
            next = part.end;
        }
        assert_eq!(next, range.capacity, "all of the range");
        assert!(range.holes.windows(2).all(|pair| pair[0].end < pair[1].start), "no two touch");
    }

    #[test]
    fn a_freed_block_joins_the_holes_it_touches() {
        let mut range = FirstFit::new(500);
        for _ in 0..5 {
            range.alloc(100, 4).expect("room for five");
        }
        assert!(range.holes.is_empty());
        for (offset, holes) in [(100, 1), (300, 2), (200, 1), (0, 1), (400, 1)] {
            assert_eq!(range.free(offset), Ok(100));
            check_lists(&range);
            assert_eq!(range.holes.len(), holes, "after {offset}");
        }
        assert_eq!((range.in_use(), range.live(), range.high_water()), (0, 0, 500));
    }

    #[test]
    fn padding_before_a_block_stays_usable() {
        let mut range = FirstFit::new(1024);
        assert_eq!(range.alloc(10, 1), Some(0));
        assert_eq!(range.alloc(256, 256), Some(256));
        assert_eq!(range.alloc(246, 2), Some(10));
        check_lists(&range);
        assert_eq!(range.alloc(1, 1), Some(512));
    }

    #[test]
    fn the_end_of_the_range_is_hard() {
        let mut range = FirstFit::new(256);
        assert_eq!(range.alloc(257, 1), None);
        assert_eq!(range.alloc(u64::MAX, 256), None);
        assert_eq!(range.alloc(256, 1 << 63), Some(0));
        assert_eq!(range.alloc(1, 1), None);
        assert_eq!(FirstFit::new(0).alloc(0, 1), None);
        let mut all = FirstFit::new(u64::MAX);
        assert_eq!(all.alloc(u64::MAX, 1), Some(0));
        assert_eq!(all.alloc(1, 1 << 63), None);
    }

    #[test]
    fn freeing_what_is_not_live_changes_nothing() {
        let mut range = FirstFit::new(1024);
        range.alloc(100, 1).expect("room");
        let before = format!("{range:?}");
        let error = range.free(50).expect_err("inside a block");
        assert_eq!(error.to_string(), "no live block begins at offset 50");
        assert_eq!(format!("{range:?}"), before);
        range.free(0).expect("live");
        assert_eq!(range.free(0), Err(UnknownBlock { offset: 0 }));
    }

    #[test]
    fn blocks_of_no_bytes_have_offsets_of_their_own() {
        let mut range = FirstFit::new(1024);
        assert_eq!(range.alloc(0, 1), Some(0));
        assert_eq!(range.alloc(0, 1), Some(1));
        assert_eq!(range.free(0), Ok(1));
    }

    #[test]
    fn a_reset_forgets_blocks_and_keeps_room_and_high_water() {
        let mut range = FirstFit::with_room(1024, 8);
        for _ in 0..8 {
            range.alloc(128, 1).expect("room");
        }
        let room = (range.blocks.capacity(), range.holes.capacity());
        range.reset();
        check_lists(&range);
        assert_eq!((range.in_use(), range.live(), range.high_water()), (0, 0, 1024));
        assert_eq!((range.blocks.capacity(), range.holes.capacity()), room);
    }

    /// Every other block freed is the most holes there can be.
    #[test]
    fn with_room_for_its_blocks_no_list_ever_grows() {
        let mut range = FirstFit::with_room(10_000, 16);
        let room = (range.blocks.capacity(), range.holes.capacity());
        for round in 0..100u64 {
            let offsets: Vec<_> = (0..16).map(|n| range.alloc(1 + (round + n) % 7, 4)).collect();
            let (even, odd): (Vec<_>, Vec<_>) = (0..16).partition(|n| n % 2 == 0);
            for n in even.into_iter().chain(odd) {
                let offset: Option<u64> = offsets[n];
                range.free(offset.expect("room")).expect("live");
            }
            assert_eq!((range.blocks.capacity(), range.holes.capacity()), room);
        }
        check_lists(&range);
    }

    #[test]
    #[should_panic(expected = "alignment 12 is not a power of two")]
    fn an_odd_alignment_is_the_callers_mistake() {
        let _ = FirstFit::new(1024).alloc(1, 12);
    }
}

//! Greedy placements by size, length, area and other orders.
//!
//! One buffer after the other, each at the first or best address that is free for all of its life.
//! Where a sweep sees one moment, this sees the whole life of a buffer, at a price: what is placed
//! is kept by offset and looked at in full, O(n) for each buffer. Six orders, each with first and
//! best fit.
//!
//! # Guarantees
//! 1. O(n^2) for each order, and no allocation inside.
//! 2. Deterministic: what the keys leave equal goes by index.
//!
//! # Sources
//! Pisarchyk, Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020 (greedy by
//! size, best fit); Lee et al., "On-Device Neural Net Inference with Mobile GPUs", 2019 (by size
//! and life); the order by conflicts is that of graph colouring (Welsh, Powell 1967).

use std::cmp::Reverse;

use crate::place::parts::{Item, Part};
use crate::place::sweep::Fit;

/// Which items come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Size,
    Length,
    Area,
    Conflicts,
    Start,
    SizeByHeight,
}

/// One of the greedy placements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greedy {
    pub(super) order: Order,
    pub(super) fit: Fit,
}

/// A placed item.
#[derive(Clone, Copy)]
struct Slot {
    offset: u64,
    end: u64,
    first: u32,
    last: u32,
}

/// A section's number, which no problem that is placed here exceeds.
fn narrow(section: usize) -> u32 {
    u32::try_from(section).expect("sections number no more than items")
}

impl Greedy {
    /// All greedy placements, in the order in which they are tried.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let orders = [
            Order::Size,
            Order::Area,
            Order::Length,
            Order::SizeByHeight,
            Order::Conflicts,
            Order::Start,
        ];
        orders.into_iter().flat_map(|order| [Fit::First, Fit::Best].map(|fit| Self { order, fit }))
    }

    /// An offset for every item of `part`, from its base up. `heights` is the total size of each
    /// section.
    pub(super) fn place(self, part: &Part, heights: &[u64]) -> Vec<u64> {
        let mut offsets = vec![0; part.items.len()];
        let mut slots: Vec<Slot> = Vec::with_capacity(part.items.len());
        let mut around = vec![(0, 0); part.items.len()];
        for at in self.ranked(part, heights) {
            let item = &part.items[at];
            let around = select(&slots, item, &mut around);
            let offset = match self.fit {
                Fit::First => first_fit(around, item),
                Fit::Best => best_fit(around, item),
            };
            offsets[at] = offset;
            let (first, last) = (narrow(item.first), narrow(item.last));
            let slot = Slot { offset, end: offset + item.size, first, last };
            let index = slots.partition_point(|other| other.offset <= offset);
            slots.insert(index, slot);
        }
        offsets
    }

    fn ranked(self, part: &Part, heights: &[u64]) -> Vec<usize> {
        let key = |item: &Item| {
            let (size, length) = (u128::from(item.size), (item.last - item.first) as u128);
            match self.order {
                Order::Size => (size, length),
                Order::Length => (length, size),
                Order::Area => (size * length, size),
                Order::Conflicts => (u128::from(conflicts(part, item)), size),
                Order::Start => ((part.sections - item.first) as u128, size),
                Order::SizeByHeight => {
                    let height = heights[item.first..item.last].iter().max();
                    (u128::from(height.copied().unwrap_or(0)), size * length)
                }
            }
        };
        let mut ranked: Vec<_> = (0..part.items.len()).collect();
        ranked.sort_by_cached_key(|at| (Reverse(key(&part.items[*at])), *at));
        ranked
    }
}

/// How many items live with `item`, itself included.
fn conflicts(part: &Part, item: &Item) -> u64 {
    part.items.iter().filter(|other| item.first < other.last && other.first < item.last).count()
        as u64
}

/// Offset and end of the slots that live with `item`, in order of offset. Every slot is written, and
/// the next takes its place unless it lives with the item: nobody could predict a branch for it.
fn select<'a>(slots: &[Slot], item: &Item, into: &'a mut [(u64, u64)]) -> &'a [(u64, u64)] {
    let (first, last) = (narrow(item.first), narrow(item.last));
    let mut count = 0;
    for slot in slots {
        into[count] = (slot.offset, slot.end);
        count += usize::from((slot.first < last) & (first < slot.last));
    }
    &into[..count]
}

fn first_fit(around: &[(u64, u64)], item: &Item) -> u64 {
    let mut offset = 0;
    for (from, end) in around {
        if offset + item.size <= *from {
            break;
        }
        offset = offset.max(end.next_multiple_of(item.alignment));
    }
    offset
}

fn best_fit(around: &[(u64, u64)], item: &Item) -> u64 {
    let (mut offset, mut best) = (0, None);
    for (from, end) in around {
        if offset + item.size <= *from {
            let spare = from - offset - item.size;
            if best.is_none_or(|(least, _)| spare < least) {
                best = Some((spare, offset));
            }
        }
        offset = offset.max(end.next_multiple_of(item.alignment));
    }
    best.map_or(offset, |(_, offset)| offset)
}

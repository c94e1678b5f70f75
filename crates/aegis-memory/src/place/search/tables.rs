//! What a search knows of its part before the first decision, and never changes.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::place::parts::{Item, Part};

/// A part with its indices: who lives in which section, who is interchangeable, who comes first.
#[derive(Debug)]
pub(in crate::place) struct Tables {
    pub(super) items: Vec<Item>,
    pub(super) sections: usize,
    /// The members of section `s` are `members[starts[s]..starts[s + 1]]`.
    members: Vec<usize>,
    starts: Vec<usize>,
    /// The items that begin in section `s` or later are those from `begin[s]` on.
    begin: Vec<usize>,
    /// Of items that nothing tells apart, the one before; it is placed first.
    pub(super) twin_before: Vec<Option<usize>>,
    /// The total size of each section.
    pub(in crate::place) heights: Vec<u64>,
}

impl Tables {
    /// O(n log n) and one entry for each incidence of the part.
    pub(in crate::place) fn new(part: &Part) -> Self {
        let Part { items, sections, .. } = part;
        let mut starts = vec![0; sections + 1];
        for item in items {
            for section in item.first..item.last {
                starts[section + 1] += 1;
            }
        }
        for section in 0..*sections {
            starts[section + 1] += starts[section];
        }
        let mut next = starts.clone();
        let mut members = vec![0; starts[*sections]];
        for (at, item) in items.iter().enumerate() {
            for section in item.first..item.last {
                members[next[section]] = at;
                next[section] += 1;
            }
        }
        let begin = (0..=*sections).map(|s| items.partition_point(|item| item.first < s)).collect();
        let twin_before = twins(items);
        Self {
            items: items.clone(),
            sections: *sections,
            members,
            starts,
            begin,
            twin_before,
            heights: part.heights(),
        }
    }

    /// The items that live in `section`.
    pub(super) fn members(&self, section: usize) -> &[usize] {
        &self.members[self.starts[section]..self.starts[section + 1]]
    }

    /// Where to look for what lives with `item`: from the first member of its first section to the
    /// last item that begins before it ends. Some in between have ended before it begins.
    pub(super) fn near(&self, item: &Item) -> std::ops::Range<usize> {
        self.members(item.first)[0]..self.begin[item.last]
    }

    /// The items that begin in the sections `[low, high)`, as a range of indices.
    pub(super) fn beginning(&self, low: usize, high: usize) -> std::ops::Range<usize> {
        self.begin[low]..self.begin[high]
    }

    /// The rank of every item under `order`; 0 comes first.
    pub(super) fn ranks(&self, order: StaticOrder) -> Vec<u32> {
        let mut ranked: Vec<_> = (0..self.items.len()).collect();
        ranked.sort_by_cached_key(|at| (Reverse(self.key(order, *at)), *at));
        let mut ranks = vec![0; ranked.len()];
        for (rank, at) in (0..).zip(ranked) {
            ranks[at] = rank;
        }
        ranks
    }

    fn key(&self, order: StaticOrder, at: usize) -> [u128; 3] {
        let item = &self.items[at];
        let (size, width) = (u128::from(item.size), (item.last - item.first) as u128);
        let total = self.heights[item.first..item.last].iter().max().copied().map_or(0, u128::from);
        let area = size * width;
        match order {
            StaticOrder::WidthAreaTotal => [width, area, total],
            StaticOrder::TotalWidthArea => [total, width, area],
            StaticOrder::TotalAreaWidth => [total, area, width],
            StaticOrder::Area => [area, width, total],
            StaticOrder::Size => [size, width, total],
            StaticOrder::Noisy(seed) => {
                // Between three quarters and five quarters of something: near it, not at it.
                let noise = u128::from(mix(seed ^ mix(at as u64)) >> 56);
                let near = match seed % 4 {
                    0 => area,
                    1 => size,
                    2 => width,
                    _ => total.saturating_mul(area),
                };
                [near.saturating_mul(384 + noise), width, total]
            }
        }
    }
}

/// An order of items that does not change during a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StaticOrder {
    WidthAreaTotal,
    TotalWidthArea,
    TotalAreaWidth,
    Area,
    Size,
    Noisy(u64),
}

/// For every item the nearest before it with the same life, size and alignment.
fn twins(items: &[Item]) -> Vec<Option<usize>> {
    let mut last: HashMap<_, usize> = HashMap::with_capacity(items.len());
    let twin = |(at, item): (usize, &Item)| {
        last.insert((item.first, item.last, item.size, item.alignment), at)
    };
    items.iter().enumerate().map(twin).collect()
}

/// A bijection of 64-bit numbers that scatters them: the finaliser of SplitMix64 (Steele, Lea,
/// Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
pub(super) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

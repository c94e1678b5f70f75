//! Sweeps over time: each buffer takes a hole when its life begins and leaves one when it ends.
//!
//! The cheapest way to any plan, and the only one for a hundred thousand buffers: what is live at a
//! time is never compared with anything but the holes of that time. Six orders (both directions of
//! time, three answers to which of those that begin together goes first), each with best and with
//! first fit, are twelve sweeps; the caller keeps the lowest plan.
//!
//! # Guarantees
//! 1. O(n log n) for each sweep: a first fit looks at [`LOOKS_MAX`] holes and then takes the best
//!    fit, and a best fit passes over as many that are spoilt by alignment before it grows.
//! 2. Deterministic: what the keys leave equal goes by index.
//!
//! # Sources
//! Kierstead, "A polynomial time approximation algorithm for dynamic storage allocation", 1991, for
//! why the order of lives is a good one; best and first fit after Knuth, volume 1, section 2.5.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::place::parts::{Item, Part};

/// The rank of the end of a life: before every beginning at the same time, since lives are half-open.
const END: usize = 0;
/// How many holes a fit looks at.
const LOOKS_MAX: usize = 64;

/// Which of several items that begin at once comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tie {
    Largest,
    Longest,
    Area,
}

/// Which hole an item takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    First,
    Best,
}

/// One of the sweeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    /// Whether time runs backwards.
    pub(super) backwards: bool,
    pub(super) tie: Tie,
    pub(super) fit: Fit,
}

impl Sweep {
    /// All sweeps, in the order in which they are tried.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let fits = [Fit::Best, Fit::First];
        let ties = [Tie::Largest, Tie::Longest, Tie::Area];
        fits.into_iter().flat_map(move |fit| {
            ties.into_iter()
                .flat_map(move |tie| [false, true].map(|backwards| Self { backwards, tie, fit }))
        })
    }

    /// An offset for every item of `part`, from its base up.
    pub(super) fn place(self, part: &Part) -> Vec<u64> {
        let mut edges = Vec::with_capacity(part.items.len() * 2);
        for ((at, item), rank) in part.items.iter().enumerate().zip(self.ranks(part)) {
            let (from, to) = self.life(item, part.sections);
            edges.push((from, rank, at));
            edges.push((to, END, at));
        }
        edges.sort_unstable();
        let mut holes = Holes::default();
        let mut offsets = vec![0; part.items.len()];
        for (_, rank, at) in edges {
            let item = &part.items[at];
            if rank == END {
                holes.give_back(offsets[at], offsets[at] + item.size);
            } else {
                offsets[at] = holes.take(item, self.fit);
            }
        }
        offsets
    }

    fn life(self, item: &Item, sections: usize) -> (usize, usize) {
        if self.backwards {
            (sections - item.last, sections - item.first)
        } else {
            (item.first, item.last)
        }
    }

    /// For each item its place among those that begin with it, counted from one.
    fn ranks(self, part: &Part) -> Vec<usize> {
        let mut order: Vec<_> = (0..part.items.len()).collect();
        order.sort_by_cached_key(|at| (Reverse(self.key(&part.items[*at])), *at));
        let mut ranks = vec![0; order.len()];
        for (rank, at) in (END + 1..).zip(order) {
            ranks[at] = rank;
        }
        ranks
    }

    fn key(self, item: &Item) -> (u128, u128) {
        let (size, length) = (u128::from(item.size), (item.last - item.first) as u128);
        match self.tie {
            Tie::Largest => (size, length),
            Tie::Longest => (length, size),
            Tie::Area => (size * length, size),
        }
    }
}

/// The free addresses below the highest that was ever taken.
#[derive(Default)]
struct Holes {
    by_start: BTreeSet<(u64, u64)>, // Start and end; not empty, and no two touch.
    by_size: BTreeSet<(u64, u64)>,  // Size and start.
    end: u64,
}

impl Holes {
    fn take(&mut self, item: &Item, fit: Fit) -> u64 {
        let first = (fit == Fit::First).then(|| self.first_fit(item)).flatten();
        let Some((start, end)) = first.or_else(|| self.best_fit(item)) else {
            return self.grow(item);
        };
        let offset = start.next_multiple_of(item.alignment);
        self.remove(start, end);
        self.insert(start, offset);
        self.insert(offset + item.size, end);
        offset
    }

    fn first_fit(&self, item: &Item) -> Option<(u64, u64)> {
        self.by_start.iter().take(LOOKS_MAX).copied().find(|(start, end)| fits(*start, *end, item))
    }

    fn best_fit(&self, item: &Item) -> Option<(u64, u64)> {
        let large_enough = self.by_size.range((item.size, 0)..).take(LOOKS_MAX);
        let holes = large_enough.map(|(size, start)| (*start, start + size));
        holes.into_iter().find(|(start, end)| fits(*start, *end, item))
    }

    /// Takes the lowest address that has nothing taken above it.
    fn grow(&mut self, item: &Item) -> u64 {
        let last = self.by_start.last().copied().filter(|(_, end)| *end == self.end);
        let start = last.map_or(self.end, |(start, _)| start);
        if let Some((start, end)) = last {
            self.remove(start, end);
        }
        let offset = start.next_multiple_of(item.alignment);
        self.insert(start, offset);
        self.end = self.end.max(offset + item.size);
        self.insert(offset + item.size, self.end);
        offset
    }

    fn give_back(&mut self, mut start: u64, mut end: u64) {
        let below = self.by_start.range(..(start, 0)).next_back().copied();
        if let Some((from, to)) = below.filter(|(_, to)| *to == start) {
            self.remove(from, to);
            start = from;
        }
        let above = self.by_start.range((end, 0)..).next().copied();
        if let Some((from, to)) = above.filter(|(from, _)| *from == end) {
            self.remove(from, to);
            end = to;
        }
        self.insert(start, end);
    }

    fn insert(&mut self, start: u64, end: u64) {
        if start < end {
            self.by_start.insert((start, end));
            self.by_size.insert((end - start, start));
        }
    }

    fn remove(&mut self, start: u64, end: u64) {
        self.by_start.remove(&(start, end));
        self.by_size.remove(&(end - start, start));
    }
}

/// Whether `item` fits between two addresses once its offset is aligned.
fn fits(start: u64, end: u64, item: &Item) -> bool {
    start.next_multiple_of(item.alignment) + item.size <= end
}

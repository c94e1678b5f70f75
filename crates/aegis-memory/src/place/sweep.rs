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
    ///
    /// Times are sections, so what begins and what ends at each is found by counting, and only items
    /// that begin together are sorted.
    pub(super) fn place(self, part: &Part) -> Vec<u64> {
        let life = |item: &Item| self.life(item, part.sections);
        let begins = Buckets::of(part.sections, part.items.iter().map(|item| life(item).0));
        let ends = Buckets::of(part.sections, part.items.iter().map(|item| life(item).1));
        let mut space = Space::new(self.fit);
        let (mut offsets, mut blocks) = (vec![0; part.items.len()], vec![0; part.items.len()]);
        let mut together = Vec::new();
        for time in 0..part.sections {
            // Lives are half-open: what ends now makes room for what begins now.
            ends.at(time).iter().for_each(|at| space.give_back(blocks[*at]));
            together.clear();
            together.extend_from_slice(begins.at(time));
            if together.len() > 1 {
                together.sort_by_key(|at| (Reverse(self.key(&part.items[*at])), *at));
            }
            for at in &together {
                blocks[*at] = space.take(&part.items[*at]);
                offsets[*at] = space.start(blocks[*at]);
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

    fn key(self, item: &Item) -> (u128, u128) {
        let (size, length) = (u128::from(item.size), (item.last - item.first) as u128);
        match self.tie {
            Tie::Largest => (size, length),
            Tie::Longest => (length, size),
            Tie::Area => (size * length, size),
        }
    }
}

/// Items by the time of something, each time's in order of index.
struct Buckets {
    starts: Vec<usize>,
    items: Vec<usize>,
}

impl Buckets {
    /// The items with the given times, which are `last` at most. O(n + last).
    fn of(last: usize, times: impl Iterator<Item = usize> + Clone) -> Self {
        let mut starts = vec![0; last + 2];
        times.clone().for_each(|time| starts[time + 1] += 1);
        for time in 0..=last {
            starts[time + 1] += starts[time];
        }
        let mut next = starts.clone();
        let mut items = vec![0; starts[last + 1]];
        for (at, time) in times.enumerate() {
            items[next[time]] = at;
            next[time] += 1;
        }
        Self { starts, items }
    }

    fn at(&self, time: usize) -> &[usize] {
        &self.items[self.starts[time]..self.starts[time + 1]]
    }
}

/// A range of addresses that is taken, or a hole.
#[derive(Clone, Copy)]
struct Block {
    start: u64,
    end: u64,
    is_hole: bool,
    below: usize,
    above: usize,
}

/// No block.
const NONE: usize = usize::MAX;

/// The addresses below the highest that was ever taken: blocks that touch, in a list by address. So
/// what is given back finds the holes beside it at once, and only holes are kept in order.
///
/// Holes are not empty, and no two touch.
struct Space {
    blocks: Vec<Block>,
    unused: Vec<usize>,
    top: usize,
    /// Size, start and block of every hole.
    by_size: BTreeSet<(u64, u64, usize)>,
    /// Start and block of every hole; kept only for first fit.
    by_start: Option<BTreeSet<(u64, usize)>>,
}

impl Space {
    fn new(fit: Fit) -> Self {
        Self {
            blocks: Vec::new(),
            unused: Vec::new(),
            top: NONE,
            by_size: BTreeSet::new(),
            by_start: (fit == Fit::First).then(BTreeSet::new),
        }
    }

    fn start(&self, block: usize) -> u64 {
        self.blocks[block].start
    }

    /// Takes addresses for `item`; returns their block.
    fn take(&mut self, item: &Item) -> usize {
        let found = self.first_fit(item).or_else(|| self.best_fit(item));
        let hole = found.unwrap_or_else(|| self.grow(item));
        let Block { start, end, below, above, .. } = self.blocks[hole];
        self.unlist(hole);
        let offset = start.next_multiple_of(item.alignment);
        let taken = Block { start: offset, end: offset + item.size, is_hole: false, below, above };
        self.blocks[hole] = taken;
        if start < offset {
            self.insert_hole(start, offset, below, hole);
        }
        if taken.end < end {
            self.insert_hole(taken.end, end, hole, above);
        }
        hole
    }

    fn first_fit(&self, item: &Item) -> Option<usize> {
        let holes = self.by_start.as_ref()?.iter().take(LOOKS_MAX).map(|(_, hole)| *hole);
        holes.into_iter().find(|hole| self.fits(*hole, item))
    }

    fn best_fit(&self, item: &Item) -> Option<usize> {
        let large_enough = self.by_size.range((item.size, 0, 0)..).take(LOOKS_MAX);
        large_enough.map(|(.., hole)| *hole).find(|hole| self.fits(*hole, item))
    }

    /// Whether `item` fits into `hole` once its offset is aligned.
    fn fits(&self, hole: usize, item: &Item) -> bool {
        let Block { start, end, .. } = self.blocks[hole];
        start.next_multiple_of(item.alignment) + item.size <= end
    }

    /// A hole at the end that is as large as `item` needs: the lowest address that has nothing taken
    /// above it.
    fn grow(&mut self, item: &Item) -> usize {
        let last = self.blocks.get(self.top).copied();
        let hole = match last {
            Some(block) if block.is_hole => {
                self.unlist(self.top);
                self.top
            }
            _ => self.add(Block {
                start: last.map_or(0, |block| block.end),
                end: 0, // Set below.
                is_hole: true,
                below: self.top,
                above: NONE,
            }),
        };
        let end = self.blocks[hole].start.next_multiple_of(item.alignment) + item.size;
        self.blocks[hole].end = self.blocks[hole].end.max(end);
        self.list(hole);
        hole
    }

    fn give_back(&mut self, block: usize) {
        let Block { below, above, .. } = self.blocks[block];
        for side in [below, above] {
            if side != NONE && self.blocks[side].is_hole {
                self.unlist(side);
                self.swallow(block, side);
            }
        }
        self.blocks[block].is_hole = true;
        self.list(block);
    }

    /// Makes `side`, which touches `block`, a part of it.
    fn swallow(&mut self, block: usize, side: usize) {
        let gone = self.blocks[side];
        if gone.end == self.blocks[block].start {
            (self.blocks[block].start, self.blocks[block].below) = (gone.start, gone.below);
        } else {
            (self.blocks[block].end, self.blocks[block].above) = (gone.end, gone.above);
        }
        self.link(block);
        self.unused.push(side);
    }

    fn insert_hole(&mut self, start: u64, end: u64, below: usize, above: usize) {
        let hole = self.add(Block { start, end, is_hole: true, below, above });
        self.list(hole);
    }

    fn add(&mut self, block: Block) -> usize {
        let index = match self.unused.pop() {
            Some(index) => {
                self.blocks[index] = block;
                index
            }
            None => {
                self.blocks.push(block);
                self.blocks.len() - 1
            }
        };
        self.link(index);
        index
    }

    /// Makes the neighbours of `block` name it as theirs.
    fn link(&mut self, block: usize) {
        let Block { below, above, .. } = self.blocks[block];
        if below != NONE {
            self.blocks[below].above = block;
        }
        if above == NONE {
            self.top = block;
        } else {
            self.blocks[above].below = block;
        }
    }

    fn list(&mut self, hole: usize) {
        let Block { start, end, .. } = self.blocks[hole];
        self.by_size.insert((end - start, start, hole));
        if let Some(by_start) = &mut self.by_start {
            by_start.insert((start, hole));
        }
    }

    fn unlist(&mut self, hole: usize) {
        let Block { start, end, .. } = self.blocks[hole];
        self.by_size.remove(&(end - start, start, hole));
        if let Some(by_start) = &mut self.by_start {
            by_start.remove(&(start, hole));
        }
    }
}

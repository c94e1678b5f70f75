//! The state of a search: how low everything that is not placed could still lie.
//!
//! For an item: `rest`, the least offset it could have, and `support`, the highest end of what is
//! placed below it. For a section: `floor`, the least `rest` of its unplaced members; `lid`, the
//! least end any of them could have; and `total`, the sum of their sizes. What is placed has a
//! `rest` of [`PLACED`], so that it never is a least anything.
//!
//! # Invariants
//! 1. Rests are aligned, and only rise on the way down the tree: the trail restores them exactly.
//! 2. `rest >= support`, which is the end of a placed item rounded up to the alignment.
//! 3. After a move that succeeded, `floor + total <= capacity` in every section with unplaced
//!    members, and `rest + size <= capacity` for each of them. A move that broke this says so, and
//!    must be undone.

use crate::place::search::tables::Tables;

/// The `rest` of what is placed, the `floor` of a section without unplaced members.
pub(super) const PLACED: u64 = u64::MAX;

/// What was before a change.
#[derive(Clone, Copy, Debug)]
enum Undo {
    Raised { at: usize, rest: u64, support: u64 },
    Section { section: usize, floor: u64, lid: u64 },
    Placed { at: usize, rest: u64 },
}

/// A move that leaves no room for what is not placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The changing part of a search.
pub(super) struct Heights<'tables> {
    pub(super) tables: &'tables Tables,
    pub(super) capacity: u64,
    pub(super) rest: Vec<u64>,
    end: Vec<u64>, // rest + size, or PLACED.
    support: Vec<u64>,
    offsets: Vec<u64>,
    pub(super) floor: Vec<u64>,
    pub(super) lid: Vec<u64>,
    pub(super) total: Vec<u64>,
    /// How many unplaced items cross from section `s` to `s + 1`.
    crossing: Vec<u32>,
    trail: Vec<Undo>,
    stale: Vec<usize>, // Sections whose floor or lid must be computed again.
    is_stale: Vec<bool>,
}

impl<'tables> Heights<'tables> {
    /// Nothing placed; `Full` when the capacity is below some section's total or some item's size.
    pub(super) fn new(tables: &'tables Tables, capacity: u64) -> Result<Self, Full> {
        let (n, sections) = (tables.items.len(), tables.sections);
        let mut crossing = vec![0; sections];
        for item in &tables.items {
            crossing[item.first..item.last - 1].iter_mut().for_each(|count| *count += 1);
        }
        let mut heights = Self {
            tables,
            capacity,
            rest: vec![0; n],
            end: tables.items.iter().map(|item| item.size).collect(),
            support: vec![0; n],
            offsets: vec![0; n],
            floor: vec![0; sections],
            lid: vec![0; sections],
            total: tables.heights.clone(),
            crossing,
            trail: Vec::new(),
            stale: Vec::new(),
            is_stale: vec![false; sections],
        };
        (0..sections).for_each(|section| heights.mark(section));
        heights.refresh()?;
        heights.trail.clear(); // There is nothing to go back to.
        Ok(heights)
    }

    /// The offset of every item, once all are placed.
    pub(super) fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Where the trail stands; [`undo`](Self::undo) goes back to it.
    pub(super) fn mark_trail(&self) -> usize {
        self.trail.len()
    }

    /// Whether `at` would lie upon what is placed, if placed now.
    pub(super) fn is_supported(&self, at: usize) -> bool {
        self.rest[at] == self.support[at]
    }

    /// Places `at` where it rests. Whatever lives with it must then lie above it.
    pub(super) fn place(&mut self, at: usize) -> Result<(), Full> {
        let tables = self.tables;
        let item = &tables.items[at];
        let (rest, end) = (self.rest[at], self.end[at]);
        self.trail.push(Undo::Placed { at, rest });
        self.offsets[at] = rest;
        (self.rest[at], self.end[at]) = (PLACED, PLACED);
        for section in item.first..item.last {
            self.total[section] -= item.size;
            self.mark_if_least(section, rest, end);
        }
        self.crossing[item.first..item.last - 1].iter_mut().for_each(|count| *count -= 1);
        let mut fits = true;
        for other in tables.near(item) {
            if self.rest[other] != PLACED && tables.items[other].last > item.first {
                fits &= self.rest_upon(other, end);
            }
        }
        self.refresh()?;
        if fits { Ok(()) } else { Err(Full) }
    }

    /// Keeps every unplaced member of `section` at `height` or above.
    pub(super) fn raise(&mut self, section: usize, height: u64) -> Result<(), Full> {
        let tables = self.tables;
        let mut fits = true;
        for &at in tables.members(section) {
            let rest = self.rest[at];
            if rest < height {
                let raised = height.next_multiple_of(tables.items[at].alignment);
                fits &= self.lift(at, raised, self.support[at]);
            }
        }
        self.refresh()?;
        if fits { Ok(()) } else { Err(Full) }
    }

    /// Takes back every change since the trail stood at `mark`.
    pub(super) fn undo(&mut self, mark: usize) {
        while self.trail.len() > mark {
            match self.trail.pop().expect("longer than the mark") {
                Undo::Raised { at, rest, support } => {
                    self.rest[at] = rest;
                    self.end[at] = rest + self.tables.items[at].size;
                    self.support[at] = support;
                }
                Undo::Section { section, floor, lid } => {
                    (self.floor[section], self.lid[section]) = (floor, lid);
                }
                Undo::Placed { at, rest } => self.take_back(at, rest),
            }
        }
    }

    fn take_back(&mut self, at: usize, rest: u64) {
        let item = &self.tables.items[at];
        self.rest[at] = rest;
        self.end[at] = rest + item.size;
        self.total[item.first..item.last].iter_mut().for_each(|total| *total += item.size);
        self.crossing[item.first..item.last - 1].iter_mut().for_each(|count| *count += 1);
    }

    /// The pieces into which the sections `[low, high)` have fallen: nothing unplaced crosses from
    /// one to the other, and none is empty. With the least room of each, in order of sections.
    pub(super) fn pieces(&self, low: usize, high: usize, into: &mut Vec<Piece>) {
        let mut open: Option<Piece> = None;
        for section in low..high {
            if self.floor[section] != PLACED {
                let room = self.room(section);
                let piece = open.get_or_insert(Piece { low: section, high: section, room });
                piece.high = section + 1;
                piece.room = piece.room.min(room);
            }
            if self.crossing[section] == 0 {
                into.extend(open.take());
            }
        }
        into.extend(open);
    }

    /// What may be wasted in `section`, which has unplaced members.
    pub(super) fn room(&self, section: usize) -> u64 {
        self.capacity - self.floor[section] - self.total[section]
    }

    /// The least end of an unplaced item that lives with `at` but not in `section`: the lowest
    /// thing that `at` could still come to lie upon, unless it lies upon a member of `section`.
    pub(super) fn least_foreign_end(&self, at: usize, section: usize) -> Option<u64> {
        let tables = self.tables;
        let item = &tables.items[at];
        let mut least = PLACED;
        for other in tables.near(item) {
            let o = &tables.items[other];
            if o.last > item.first && (o.last <= section || o.first > section) {
                least = least.min(self.end[other]);
            }
        }
        (least != PLACED).then_some(least)
    }

    /// Puts `at` upon something that ends at `end`; whether it still fits.
    fn rest_upon(&mut self, at: usize, end: u64) -> bool {
        let upon = end.next_multiple_of(self.tables.items[at].alignment);
        if upon <= self.support[at] {
            return true;
        }
        self.lift(at, upon.max(self.rest[at]), upon)
    }

    fn lift(&mut self, at: usize, rest: u64, support: u64) -> bool {
        let item = &self.tables.items[at];
        let (old, end) = (self.rest[at], self.end[at]);
        self.trail.push(Undo::Raised { at, rest: old, support: self.support[at] });
        self.support[at] = support;
        if rest == old {
            return true;
        }
        (self.rest[at], self.end[at]) = (rest, rest + item.size);
        for section in item.first..item.last {
            self.mark_if_least(section, old, end);
        }
        self.end[at] <= self.capacity
    }

    fn mark_if_least(&mut self, section: usize, rest: u64, end: u64) {
        if self.floor[section] == rest || self.lid[section] == end {
            self.mark(section);
        }
    }

    fn mark(&mut self, section: usize) {
        if !self.is_stale[section] {
            self.is_stale[section] = true;
            self.stale.push(section);
        }
    }

    fn refresh(&mut self) -> Result<(), Full> {
        let mut fits = true;
        while let Some(section) = self.stale.pop() {
            self.is_stale[section] = false;
            let (floor, lid) = (self.floor[section], self.lid[section]);
            self.trail.push(Undo::Section { section, floor, lid });
            let (mut floor, mut lid) = (PLACED, PLACED);
            for &at in self.tables.members(section) {
                floor = floor.min(self.rest[at]);
                lid = lid.min(self.end[at]);
            }
            (self.floor[section], self.lid[section]) = (floor, lid);
            fits &= floor == PLACED || floor + self.total[section] <= self.capacity;
        }
        if fits { Ok(()) } else { Err(Full) }
    }
}

/// Consecutive sections that can be completed by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) low: usize,
    pub(super) high: usize,
    /// The least room of its sections.
    pub(super) room: u64,
}

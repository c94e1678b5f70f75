//! Preparation: from a problem to the independent parts that are worth searching.
//!
//! 1. *Unit*: sizes and alignments are divided by a common unit; every canonical offset is a
//!    multiple of it.
//! 2. *Sections*: the maximal sets of buffers that live at once, in order of time. Nothing else
//!    about time matters. A buffer lives in a range of consecutive sections.
//! 3. *Parts*: where no buffer crosses from one section to the next, the problem falls apart.
//! 4. *Peeling*: a buffer that lives in every section of its part can lie at the bottom of it, as
//!    long as its size keeps all others aligned. What is left may fall apart again.
//!
//! ```text
//!   time  ->            sections        parts after peeling `a`
//!   a |============|    a: 0..3
//!   b |====|            b: 0..1         { b, c } { d }, both above `a`
//!   c   |====|          c: 0..2
//!   d         |====|    d: 2..3
//! ```
//!
//! # Invariants
//! 1. Any plan of the parts, each on its base, is a plan of the problem, and its peak is the
//!    largest of theirs.
//! 2. A least plan of the problem exists in which peeled buffers lie where they are put here.
//! 3. Items are sorted by first section, then by last, then by index of their buffer.
//! 4. Memory is linear in the number of buffers.

use crate::place::problem::{Buffer, Problem};

/// How often an item may be looked at, on average. Parts can nest as deep as there are buffers;
/// past this, what is left stays together, which costs the search time and no plan anything.
const PASSES_MAX: usize = 64;

/// A buffer of a part, in units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// The index of its buffer in the problem.
    pub(super) buffer: usize,
    /// The first section in which it lives.
    pub(super) first: usize,
    /// The section after the last in which it lives.
    pub(super) last: usize,
    pub(super) size: u64,
    pub(super) alignment: u64,
}

/// Buffers that must be planned together.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Where its address zero lies, in units.
    pub(super) base: u64,
    pub(super) items: Vec<Item>,
    /// How many sections there are; items live in `0..sections`.
    pub(super) sections: usize,
}

/// A problem, prepared.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// How many bytes a unit has.
    pub(super) unit: u64,
    /// Buffers that have their offset, in units.
    pub(super) peeled: Vec<(usize, u64)>,
    /// How high the peeled buffers reach, in units.
    pub(super) peeled_top: u64,
    pub(super) parts: Vec<Part>,
}

/// Prepares `problem`. O(n log n).
pub(super) fn prepare(problem: &Problem) -> Prepared {
    let buffers = problem.buffers();
    let unit = unit_of(buffers);
    let (items, sections) = items_of(buffers, unit);
    let mut prepared = Prepared { unit, peeled: Vec::new(), peeled_top: 0, parts: Vec::new() };
    let mut left = items.len().saturating_mul(PASSES_MAX);
    let mut open = vec![Part { base: 0, items, sections }];
    while let Some(part) = open.pop() {
        for mut part in part.split() {
            let whole = part.items.len();
            left = left.saturating_sub(whole);
            prepared.peel(&mut part);
            if part.items.is_empty() {
                continue;
            }
            if part.items.len() == whole || left == 0 {
                prepared.parts.push(part);
            } else {
                open.push(part);
            }
        }
    }
    prepared.parts.sort_by_key(|part| part.items[0].buffer);
    prepared
}

impl Prepared {
    /// Puts the items that live in every section of `part` at its bottom. They must not disturb
    /// the alignment of what comes above, so one that would stays an item.
    fn peel(&mut self, part: &mut Part) {
        let coarsest = part.items.iter().map(|item| item.alignment).fold(Some(1), lcm);
        let Part { base, items, sections } = part;
        items.retain(|item| {
            let peels = item.first == 0
                && item.last == *sections
                && coarsest.is_some_and(|coarsest| item.size.is_multiple_of(coarsest));
            if peels {
                self.peeled.push((item.buffer, *base));
                *base += item.size;
                self.peeled_top = self.peeled_top.max(*base);
            }
            !peels
        });
    }
}

impl Part {
    /// Cuts where no item crosses; sections without items vanish.
    fn split(self) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::new();
        let mut reached = 0; // The end of the items so far: where the next part may begin.
        let mut origin = 0;
        for item in self.items {
            if parts.is_empty() || item.first >= reached {
                origin = item.first;
                parts.push(Self { base: self.base, items: Vec::new(), sections: 0 });
            }
            reached = reached.max(item.last);
            let part = parts.last_mut().expect("just pushed");
            part.sections = reached - origin;
            part.items.push(Item { first: item.first - origin, last: item.last - origin, ..item });
        }
        parts
    }

    /// The total size of each section. O(items + sections).
    pub(super) fn heights(&self) -> Vec<u64> {
        let (mut gained, mut lost) = (vec![0; self.sections + 1], vec![0; self.sections + 1]);
        for item in &self.items {
            gained[item.first] += item.size;
            lost[item.last] += item.size;
        }
        let mut height: u64 = 0;
        let at = |section: usize| {
            height = height + gained[section] - lost[section];
            height
        };
        (0..self.sections).map(at).collect()
    }

    /// How many pairs of item and section there are: what a search keeps in memory.
    pub(super) fn incidences(&self) -> usize {
        self.items.iter().map(|item| item.last - item.first).sum()
    }
}

/// The least common multiple; `None` once it is too large to be an alignment of anything.
fn lcm(a: Option<u64>, b: u64) -> Option<u64> {
    a.and_then(|a| (a / gcd(a, b)).checked_mul(b))
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The largest unit of which every size is a multiple, and of which every alignment is a multiple or
/// a divisor. A divisor asks for nothing: canonical offsets are sums of multiples of the unit.
fn unit_of(buffers: &[Buffer]) -> u64 {
    let sized = || buffers.iter().filter(|buffer| buffer.size > 0);
    let mut unit = sized().fold(0, |unit, buffer| gcd(unit, buffer.size)).max(1);
    // Ends: each round at least halves the unit, and 1 divides everything.
    while let Some(odd) = sized()
        .map(|buffer| buffer.alignment)
        .find(|alignment| !alignment.is_multiple_of(unit) && !unit.is_multiple_of(*alignment))
    {
        unit = gcd(unit, odd);
    }
    unit
}

/// The buffers that have a size, as items with their sections; and how many sections there are.
fn items_of(buffers: &[Buffer], unit: u64) -> (Vec<Item>, usize) {
    let sized = buffers.iter().enumerate().filter(|(_, buffer)| buffer.size > 0);
    let mut items: Vec<_> = sized
        .map(|(index, buffer)| Item {
            buffer: index,
            first: 0,
            last: 0,
            size: buffer.size / unit,
            alignment: (buffer.alignment / unit).max(1),
        })
        .collect();
    // Ends sort before starts: lives are half-open.
    let mut edges: Vec<(i64, bool, usize)> = Vec::with_capacity(items.len() * 2);
    for (at, item) in items.iter().enumerate() {
        let Buffer { lower, upper, .. } = buffers[item.buffer];
        edges.extend([(lower, true, at), (upper, false, at)]);
    }
    edges.sort_unstable();
    // A set of live items is maximal exactly where an end follows a start.
    let (mut section, mut grown) = (0, false);
    for (_, starts, at) in edges {
        if starts {
            items[at].first = section;
            grown = true;
        } else {
            section += usize::from(grown);
            grown = false;
            items[at].last = section;
        }
    }
    items.sort_by_key(|item| (item.first, item.last, item.buffer));
    (items, section)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(lower: i64, upper: i64, size: u64, alignment: u64) -> Buffer {
        Buffer { lower, upper, size, alignment }
    }

    fn prepared(buffers: &[Buffer]) -> Prepared {
        prepare(&Problem::new(buffers.to_vec()).expect("valid"))
    }

    #[test]
    fn sections_are_the_maximal_sets_of_live_buffers() {
        let buffers =
            [buffer(0, 4, 1, 1), buffer(1, 6, 1, 1), buffer(4, 9, 1, 1), buffer(7, 9, 1, 1)];
        let (items, sections) = items_of(&buffers, 1);
        let ranges: Vec<_> = items.iter().map(|item| item.first..item.last).collect();
        assert_eq!(sections, 3);
        assert_eq!(ranges, [0..1, 0..2, 1..3, 2..3]);
    }

    #[test]
    fn a_spanning_buffer_is_peeled_and_the_rest_falls_apart() {
        let buffers =
            [buffer(0, 9, 8, 4), buffer(0, 3, 4, 4), buffer(2, 5, 4, 4), buffer(6, 9, 4, 4)];
        let prepared = prepared(&buffers);
        assert_eq!(prepared.unit, 4);
        // The long one, and on top of it two parts: the last alone, and the others, which meet.
        assert_eq!(prepared.peeled, [(0, 0), (1, 2), (2, 3), (3, 2)]);
        assert_eq!(prepared.peeled_top, 4, "16 bytes");
        assert!(prepared.parts.is_empty());
    }

    #[test]
    fn what_would_disturb_an_alignment_is_not_peeled() {
        let prepared = prepared(&[buffer(0, 9, 3, 1), buffer(0, 3, 4, 4), buffer(5, 9, 1, 1)]);
        assert_eq!(prepared.parts.len(), 1);
        assert_eq!(prepared.parts[0].items.len(), 3);
    }
}

//! Failed states, remembered in full.
//!
//! Whether a piece failed before is asked at every node. The answer must not be a guess: a state
//! taken for one that failed would make a complete search claim what is not so. So a state is found
//! by a hash and then compared with what was written down, item by item.
//!
//! # Invariants
//! 1. A state is known only if an equal one was inserted: no two keys are equal that describe
//!    different states.
//! 2. Keys take at most [`BYTES_MAX`], and number at most [`FAILURES_MAX`]. What does not fit is not
//!    remembered, which costs the search time and never its answer. Of two states with one hash only
//!    the first is remembered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use crate::place::search::heights::{Heights, PLACED, Piece};
use crate::place::search::tables::mix;

/// How many failures are remembered at most.
const FAILURES_MAX: usize = 1 << 20;
/// How many bytes their keys take at most; two to six for each item that is not placed.
const BYTES_MAX: usize = 1 << 26;

/// The states of pieces that failed completely.
#[derive(Default)]
pub(super) struct Failures {
    /// Where the key of each hash begins.
    starts: HashMap<u64, usize, BuildHasherDefault<Scattered>>,
    keys: Vec<u8>,
    scratch: Vec<u8>,
}

impl Failures {
    /// Whether `piece` failed before as it stands now. O(its items), unless nothing ever failed.
    pub(super) fn contains(&mut self, heights: &Heights<'_>, piece: Piece) -> bool {
        if self.starts.is_empty() {
            return false;
        }
        let Some(start) = self.starts.get(&hash(heights, piece)) else {
            return false;
        };
        self.scratch.clear();
        write_key(heights, piece, &mut self.scratch);
        // A key ends where a zero stands for a distance, so none is the beginning of another.
        self.keys[*start..].starts_with(&self.scratch)
    }

    /// Remembers that `piece` failed as it stands now. O(its items).
    pub(super) fn insert(&mut self, heights: &Heights<'_>, piece: Piece) {
        if self.starts.len() >= FAILURES_MAX || self.keys.len() >= BYTES_MAX {
            return;
        }
        if let Entry::Vacant(entry) = self.starts.entry(hash(heights, piece)) {
            entry.insert(self.keys.len());
            write_key(heights, piece, &mut self.keys);
        }
    }
}

/// All that decides whether `piece` can be completed: which items are not placed, where they rest,
/// and whether upon something placed. A support below the rest never matters again, since what is
/// placed later ends above it.
fn state<'a>(
    heights: &'a Heights<'_>,
    piece: Piece,
) -> impl Iterator<Item = (usize, u64, bool)> + 'a {
    let items = heights.tables.beginning(piece.low, piece.high);
    items.filter_map(|at| {
        let rest = heights.rest[at];
        (rest != PLACED).then(|| (at, rest, heights.is_supported(at)))
    })
}

fn hash(heights: &Heights<'_>, piece: Piece) -> u64 {
    let one = |(at, rest, supported): (usize, u64, bool)| {
        mix(rest ^ mix((at as u64) << 1 | u64::from(supported)))
    };
    state(heights, piece).map(one).fold(0, |sum, key| sum ^ key)
}

/// Writes for each item how far its index is past the one before, which is not zero, whether it is
/// supported, and where it rests; and a zero at the end.
fn write_key(heights: &Heights<'_>, piece: Piece, into: &mut Vec<u8>) {
    let mut next = 0;
    for (at, rest, supported) in state(heights, piece) {
        write_number(((at + 1 - next) as u64) << 1 | u64::from(supported), into);
        write_number(rest, into);
        next = at + 1;
    }
    into.push(0);
}

/// Seven bits to a byte, the lowest first; the last byte has its highest bit clear.
fn write_number(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    into.push(number.to_le_bytes()[0]);
}

/// A hasher of what is hashed already.
#[derive(Default)]
struct Scattered(u64);

impl Hasher for Scattered {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::parts::{Item, Part};
    use crate::place::search::tables::Tables;

    fn item(first: usize, last: usize, size: u64) -> Item {
        Item { buffer: 0, first, last, size, alignment: 1 }
    }

    fn tables() -> Tables {
        let items = vec![item(0, 1, 200), item(0, 2, 3), item(0, 2, 5), item(1, 2, 300)];
        Tables::new(&Part { base: 0, items, sections: 2 })
    }

    const WHOLE: Piece = Piece { low: 0, high: 2, room: 0 };

    #[test]
    fn a_state_is_known_once_it_failed_and_no_other_is() {
        let tables = tables();
        let mut heights = Heights::new(&tables, 1_000).expect("room");
        let mut failures = Failures::default();
        let mark = heights.mark_trail();
        heights.place(0).expect("room");
        failures.insert(&heights, WHOLE);
        assert!(failures.contains(&heights, WHOLE));
        heights.undo(mark);
        assert!(!failures.contains(&heights, WHOLE));
        heights.place(1).expect("room");
        assert!(!failures.contains(&heights, WHOLE));
        heights.undo(mark);
        heights.place(0).expect("room");
        assert!(failures.contains(&heights, WHOLE));
    }

    /// What the hash alone would take for a failure.
    #[test]
    fn states_of_one_hash_are_told_apart() {
        let tables = tables();
        let mut heights = Heights::new(&tables, 1_000).expect("room");
        let mut failures = Failures::default();
        failures.insert(&heights, WHOLE);
        let start = failures.starts[&hash(&heights, WHOLE)];
        heights.place(0).expect("room");
        failures.starts.insert(hash(&heights, WHOLE), start);
        assert!(!failures.contains(&heights, WHOLE));
    }

    #[test]
    fn different_numbers_are_written_differently() {
        let written = |number| {
            let mut bytes = Vec::new();
            write_number(number, &mut bytes);
            bytes
        };
        assert_eq!(written(0), [0]);
        assert_eq!(written(127), [127]);
        assert_eq!(written(128), [128, 1]);
        assert_eq!(written(u64::MAX).len(), 10);
    }
}

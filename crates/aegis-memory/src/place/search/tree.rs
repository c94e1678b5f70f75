//! The search tree under one rule.
//!
//! It answers whether there is a plan within a capacity, and with which offsets.
//!
//! # The argument
//! *Normal form.* Any plan can be pushed down until every item lies at 0 or at the end of some item
//! below it that lives with it, rounded up to its alignment. So only such plans are sought.
//!
//! *Branches.* At a valley with floor `h`, the lowest unplaced item of the section either
//!
//! 1. lies at `h`: it is one of the candidates, and lies upon something placed, since nothing
//!    unplaced that lives with it could end at `h` or below. One branch for each; all that lives
//!    with it must lie above it, for the same reason. Of twins only the first is tried;
//! 2. or lies higher. It then lies upon something that is not in the section, is not placed, and
//!    lives with it; the least end of any such thing, over all members, is a floor for all of them.
//!
//! These are exhaustive and exclude each other.
//!
//! *Pieces.* When the last item that crosses a border has been placed, the two sides can be
//! completed independently: all must succeed, the tightest is tried first, and none is tried again
//! for the failure of another.
//!
//! *Failures.* A piece that failed completely fails wherever it turns up again. It is remembered in
//! full, so that a complete search is a proof as far as the program is right.
//!
//! # Guarantees
//! 1. A function of tables, capacity, rule, order and limit alone.
//! 2. No recursion: the tree is as deep as there are items, and more.
//!
//! # Sources
//! The canonical form and the sections are those of Moffitt, "MiniMalloc: A Lightweight Memory
//! Allocator for Hardware-Accelerated Machine Learning", ASPLOS 2023; branching on what lies lowest
//! in a section is ours.

use crate::place::search::Stop;
use crate::place::search::failures::Failures;
use crate::place::search::heights::{Full, Heights, Piece};
use crate::place::search::tables::{StaticOrder, Tables};
use crate::place::search::valley::{Chooser, Rule};

/// How many nodes pass between two looks at the caller's stop.
const NODES_PER_LOOK: u64 = 64;

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An offset for every item.
    Plan(Vec<u64>),
    /// There is no plan within the capacity.
    Nothing,
    /// The node limit was reached, or the caller said stop.
    Limit,
}

/// An open branch: the piece it was chosen for, and what is left to try.
struct Frame {
    piece: Piece,
    section: usize,
    /// The frame in whose group of pieces this piece is.
    owner: usize,
    trail: usize,
    /// Options left: `options[next..end]`, then the skip.
    next: usize,
    end: usize,
    may_skip: bool,
    /// The pieces into which the current option has split it: `pieces[group..group_end]`.
    group: usize,
    group_end: usize,
    /// The next of them to complete.
    turn: usize,
}

/// The frame that owns the first pieces.
const ROOT: usize = 0;

/// One search.
pub(super) struct Tree<'tables> {
    heights: Heights<'tables>,
    chooser: Chooser,
    frames: Vec<Frame>,
    options: Vec<usize>,
    pieces: Vec<Piece>,
    failures: Failures,
    pub(super) nodes: u64,
    limit: u64,
}

impl<'tables> Tree<'tables> {
    /// A search that has not begun; `Full` when the capacity is too small at the root.
    pub(super) fn new(
        tables: &'tables Tables,
        capacity: u64,
        (rule, order): (Rule, StaticOrder),
        limit: u64,
    ) -> Result<Self, Full> {
        Ok(Self {
            heights: Heights::new(tables, capacity)?,
            chooser: Chooser::new(rule, tables.ranks(order), tables.sections),
            frames: Vec::new(),
            options: Vec::new(),
            pieces: Vec::new(),
            failures: Failures::default(),
            nodes: 0,
            limit,
        })
    }

    /// Searches until there is an answer, `limit` nodes were tried, or `stop` says so.
    pub(super) fn run(mut self, stop: Stop<'_>) -> (Found, u64) {
        let found = self.search(stop);
        let found = match found {
            Some(true) => Found::Plan(self.heights.offsets().to_vec()),
            Some(false) => Found::Nothing,
            None => Found::Limit,
        };
        (found, self.nodes)
    }

    /// Whether there is a plan; `None` at the limit.
    fn search(&mut self, stop: Stop<'_>) -> Option<bool> {
        let whole = Piece { low: 0, high: self.heights.tables.sections, room: 0 };
        self.frames.push(Frame {
            piece: whole,
            section: 0,
            owner: ROOT,
            trail: 0,
            next: 0,
            end: 0,
            may_skip: false,
            group: 0,
            group_end: 0,
            turn: 0,
        });
        self.split(ROOT);
        let mut current = ROOT;
        loop {
            if self.nodes >= self.limit {
                return None;
            }
            if self.nodes.is_multiple_of(NODES_PER_LOOK) && stop() {
                return None;
            }
            let frame = &mut self.frames[current];
            if frame.turn == frame.group_end {
                // Every piece of it is complete, so the piece it was chosen for is.
                if current == ROOT {
                    return Some(true);
                }
                current = frame.owner;
                continue;
            }
            let piece = self.pieces[frame.turn];
            frame.turn += 1;
            current = match self.enter(piece, current) {
                Some(entered) => entered,
                None => match self.back_to(current) {
                    Some(frame) => frame,
                    None => return Some(false),
                },
            };
        }
    }

    /// Begins with `piece` and takes its first option that leaves room; `None` when it fails.
    fn enter(&mut self, piece: Piece, owner: usize) -> Option<usize> {
        if self.failures.contains(&self.heights, piece) {
            return None;
        }
        let section = self.chooser.choose(&self.heights, piece);
        let next = self.options.len();
        self.chooser.candidates(&self.heights, section, &mut self.options);
        let (end, group) = (self.options.len(), self.pieces.len());
        let trail = self.heights.mark_trail();
        self.frames.push(Frame {
            piece,
            section,
            owner,
            trail,
            next,
            end,
            may_skip: self.heights.room(section) > 0,
            group,
            group_end: group,
            turn: group,
        });
        let entered = self.frames.len() - 1;
        if self.advance(entered) {
            Some(entered)
        } else {
            self.failures.insert(&self.heights, piece); // As it was before the first option.
            None
        }
    }

    /// After a piece of `owner`'s group has failed: the next option of the nearest frame that has
    /// one; `None` when none has.
    fn back_to(&mut self, mut owner: usize) -> Option<usize> {
        while owner != ROOT {
            if self.advance(owner) {
                return Some(owner);
            }
            let Frame { owner: next, piece, .. } = self.frames[owner];
            self.failures.insert(&self.heights, piece);
            owner = next;
        }
        None
    }

    /// Forgets all that came after frame `index`, and takes its next option that leaves room. With
    /// none left, all is as it was before the first.
    fn advance(&mut self, index: usize) -> bool {
        self.frames.truncate(index + 1);
        loop {
            let frame = &mut self.frames[index];
            self.options.truncate(frame.end);
            self.pieces.truncate(frame.group);
            self.heights.undo(frame.trail);
            let moved = if frame.next < frame.end {
                let at = self.options[frame.next];
                frame.next += 1;
                self.heights.place(at)
            } else if frame.may_skip {
                frame.may_skip = false;
                let section = frame.section;
                self.skip(section)
            } else {
                return false;
            };
            self.nodes += 1;
            if moved.is_ok() {
                self.split(index);
                return true;
            }
        }
    }

    /// Nothing lies on the floor of `section`: its members rise to the next height at which the
    /// lowest of them could lie.
    fn skip(&mut self, section: usize) -> Result<(), Full> {
        let heights = &mut self.heights;
        let floor = heights.floor[section];
        let limit = heights.capacity - heights.total[section];
        let mut least = u64::MAX;
        for &at in heights.tables.members(section) {
            let rest = heights.rest[at];
            let height = if rest == floor {
                heights.least_foreign_end(at, section).unwrap_or(u64::MAX)
            } else {
                rest // Also what is placed, which is never the least.
            };
            least = least.min(height);
        }
        if least > limit { Err(Full) } else { heights.raise(section, least) }
    }

    /// Makes the pieces of frame `index` the group to complete, tightest first.
    fn split(&mut self, index: usize) {
        let frame = &mut self.frames[index];
        self.pieces.truncate(frame.group);
        self.heights.pieces(frame.piece.low, frame.piece.high, &mut self.pieces);
        self.pieces[frame.group..].sort_by_key(|piece| piece.room);
        (frame.group_end, frame.turn) = (self.pieces.len(), frame.group);
    }
}

//! Where to branch: the choice of a valley.
//!
//! A *valley* is a section whose lowest possible item is also the lowest thing around: no unplaced
//! item that lives with one of its candidates could still lie below that candidate. Branching there
//! loses nothing (see [`tree`](super::tree)). The section with the lowest floor of all is always
//! one. Which valley is best differs from problem to problem, so a [`Rule`] is an argument.

use crate::place::search::heights::{Heights, PLACED, Piece};

/// How the next valley is chosen, best first; ties go to the first section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Fewest candidates, then the best static rank.
    Fewest(Scope),
    /// The best static rank among candidates.
    Rank(Scope),
    /// Least room, then the best static rank.
    Room(Scope),
}

/// Which valleys are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All of them.
    All,
    /// Those whose floor is the lowest of the piece.
    Lowest,
}

impl Rule {
    fn scope(self) -> Scope {
        match self {
            Self::Fewest(scope) | Self::Rank(scope) | Self::Room(scope) => scope,
        }
    }
}

/// What is known of the candidates of one section.
#[derive(Clone, Copy, Debug)]
struct Candidates {
    count: u32,
    rank: u32,
    is_valley: bool,
}

impl Candidates {
    const NONE: Self = Self { count: 0, rank: u32::MAX, is_valley: true };
}

/// Chooses valleys under one rule; keeps its working memory between calls.
pub(super) struct Chooser {
    rule: Rule,
    ranks: Vec<u32>,
    seen: Vec<Candidates>,
}

impl Chooser {
    pub(super) fn new(rule: Rule, ranks: Vec<u32>, sections: usize) -> Self {
        Self { rule, ranks, seen: vec![Candidates::NONE; sections] }
    }

    /// The section of `piece` to branch at. O(incidences of the piece).
    pub(super) fn choose(&mut self, heights: &Heights<'_>, piece: Piece) -> usize {
        let sections = piece.low..piece.high;
        let lowest = heights.floor[sections.clone()].iter().copied().min().unwrap_or(PLACED);
        self.look(heights, piece, lowest);
        let mut best = None;
        for section in sections {
            let seen = self.seen[section];
            let floor = heights.floor[section];
            if floor == PLACED || !seen.is_valley {
                continue;
            }
            if self.rule.scope() == Scope::Lowest && floor != lowest {
                continue;
            }
            let key = self.key(heights, section);
            if best.is_none_or(|(least, _)| key < least) {
                best = Some((key, section));
            }
        }
        best.expect("the section with the lowest floor is a valley").1
    }

    /// The members of `section` that rest on its floor upon something placed, best rank first; of
    /// twins the first alone.
    pub(super) fn candidates(&self, heights: &Heights<'_>, section: usize, into: &mut Vec<usize>) {
        let from = into.len();
        let floor = heights.floor[section];
        let members = heights.tables.members(section).iter().copied();
        into.extend(members.filter(|at| heights.rest[*at] == floor && is_option(heights, *at)));
        into[from..].sort_unstable_by_key(|at| self.ranks[*at]);
    }

    /// Collects the candidates of every section of `piece` with a floor up to the scope's limit.
    fn look(&mut self, heights: &Heights<'_>, piece: Piece, lowest: u64) {
        self.seen[piece.low..piece.high].fill(Candidates::NONE);
        let limit = if self.rule.scope() == Scope::Lowest { lowest } else { PLACED - 1 };
        for at in heights.tables.beginning(piece.low, piece.high) {
            let rest = heights.rest[at];
            if rest > limit {
                continue; // Also what is placed.
            }
            let item = &heights.tables.items[at];
            let floors = &heights.floor[item.first..item.last];
            if !floors.contains(&rest) {
                continue;
            }
            let is_free = heights.lid[item.first..item.last].iter().all(|lid| *lid > rest);
            let counts = u32::from(is_option(heights, at));
            for (floor, seen) in floors.iter().zip(&mut self.seen[item.first..item.last]) {
                if *floor == rest {
                    seen.count += counts;
                    seen.is_valley &= is_free;
                    if counts > 0 {
                        seen.rank = seen.rank.min(self.ranks[at]);
                    }
                }
            }
        }
    }

    fn key(&self, heights: &Heights<'_>, section: usize) -> (u64, u32, u64) {
        let Candidates { count, rank, .. } = self.seen[section];
        let floor = heights.floor[section];
        match self.rule {
            Rule::Fewest(_) => (u64::from(count), rank, floor),
            Rule::Rank(_) => (0, rank, floor),
            Rule::Room(_) => (heights.room(section), rank, floor),
        }
    }
}

/// Whether placing `at` is a branch of its own: it lies upon something, and no twin comes first.
fn is_option(heights: &Heights<'_>, at: usize) -> bool {
    let waits = heights.tables.twin_before[at].is_some_and(|twin| heights.rest[twin] != PLACED);
    heights.is_supported(at) && !waits
}

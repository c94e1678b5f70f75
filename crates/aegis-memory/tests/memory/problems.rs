//! Placement problems, random and hard, and the slow twin of their planner.

use std::path::PathBuf;

use aegis_memory::place::{Buffer, Limits, Problem, Solution, solve};
use aegis_trace::Bytes;
use proptest::prelude::*;

pub(crate) fn buffer(lower: i64, upper: i64, size: u64, alignment: u64) -> Buffer {
    Buffer { lower, upper, size, alignment }
}

pub(crate) fn problem(buffers: Vec<Buffer>) -> Problem {
    Problem::new(buffers).expect("valid")
}

/// The least peak, for the budget of a test.
pub(crate) fn minimise(problem: &Problem) -> Solution {
    solve(problem, &Limits::minimise(problem.buffers().len()))
}

/// A plan within `capacity`, for the budget of a test.
pub(crate) fn fit(problem: &Problem, capacity: u64) -> Solution {
    solve(problem, &Limits::fit(Bytes(capacity), problem.buffers().len()))
}

/// Up to six buffers with short lives, odd sizes and mixed alignments.
pub(crate) fn small_problems() -> impl Strategy<Value = Problem> {
    let one = (0i64..6, 1i64..5, 0u64..12, 0u32..4)
        .prop_map(|(lower, length, size, shift)| buffer(lower, lower + length, size, 1 << shift));
    prop::collection::vec(one, 0..7).prop_map(problem)
}

/// The twin: tries every order, and puts each buffer upon all before it that live with it. Every
/// plan that cannot be pushed down is made by the order of its offsets, so the least is among them.
pub(crate) fn least_peak(problem: &Problem) -> u64 {
    let mut best = u64::MAX;
    let mut placed = Vec::new();
    try_all(problem, &mut placed, 0, &mut best);
    best
}

fn try_all(problem: &Problem, placed: &mut Vec<(usize, u64)>, peak: u64, best: &mut u64) {
    let buffers = problem.buffers();
    if placed.len() == buffers.len() {
        *best = peak.min(*best);
    }
    for index in 0..buffers.len() {
        if placed.iter().any(|(other, _)| *other == index) {
            continue;
        }
        let buffer = &buffers[index];
        let below = placed.iter().filter(|(other, _)| buffers[*other].lives_with(buffer));
        let top = below.map(|(other, offset)| offset + buffers[*other].size).max().unwrap_or(0);
        let offset = top.next_multiple_of(buffer.alignment);
        placed.push((index, offset));
        try_all(problem, placed, peak.max(offset + buffer.size), best);
        placed.pop();
    }
}

/// Numbers that look random and are the same everywhere (Marsaglia, "Xorshift RNGs", 2003).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// A rectangle of time and addresses: `[from, until)` by `[low, high)`.
type Tile = (u64, u64, u64, u64);

fn tiles(tiles: Vec<Tile>) -> Problem {
    let of = |(from, until, low, high): Tile| {
        let time = |at: u64| i64::try_from(at).expect("small");
        buffer(time(from), time(until), high - low, 1)
    };
    problem(tiles.into_iter().map(of).collect())
}

/// A square of `side` cut `cuts` times straight through one of its pieces. What comes out fits into
/// `side` and leaves no byte free at any time.
pub(crate) fn guillotine(seed: u64, cuts: usize, side: u64) -> Problem {
    let mut random = Random::new(seed);
    let mut pieces: Vec<Tile> = vec![(0, side, 0, side)];
    while pieces.len() <= cuts {
        let index = usize::try_from(random.below(pieces.len() as u64)).expect("an index");
        let (from, until, low, high) = pieces[index];
        if random.below(2) == 0 && high - low >= 2 {
            let at = low + 1 + random.below(high - low - 1);
            pieces[index] = (from, until, low, at);
            pieces.push((from, until, at, high));
        } else if until - from >= 2 {
            let at = from + 1 + random.below(until - from - 1);
            pieces[index] = (from, at, low, high);
            pieces.push((at, until, low, high));
        }
    }
    tiles(pieces)
}

/// A square of `side` cut into windmills of five, which no straight cut takes apart. As tight as
/// [`guillotine`], and harder.
pub(crate) fn windmills(seed: u64, pieces_min: usize, side: u64) -> Problem {
    let mut random = Random::new(seed);
    let mut pieces: Vec<Tile> = vec![(0, side, 0, side)];
    while pieces.len() < pieces_min {
        let index = usize::try_from(random.below(pieces.len() as u64)).expect("an index");
        let (from, until, low, high) = pieces[index];
        if until - from < 4 || high - low < 4 {
            continue;
        }
        let mut inner = |from: u64, until: u64| {
            let a = from + 1 + random.below(until - from - 2);
            (a, a + 1 + random.below(until - a - 1))
        };
        let ((t, u), (y, z)) = (inner(from, until), inner(low, high));
        pieces[index] = (from, u, low, y);
        pieces.extend([(u, until, low, z), (t, until, z, high), (from, t, y, high), (t, u, y, z)]);
    }
    tiles(pieces)
}

/// The same problem in another guise, for which the same plans exist: time may run backwards, the
/// order of the buffers and the scale of both axes change.
pub(crate) fn disguised(problem: &Problem, seed: u64, scale: u64) -> Problem {
    let mut random = Random::new(seed);
    let mut buffers = problem.buffers().to_vec();
    let backwards = random.below(2) == 0;
    for buffer in &mut buffers {
        if backwards {
            (buffer.lower, buffer.upper) = (-buffer.upper, -buffer.lower);
        }
        (buffer.lower, buffer.upper) = (buffer.lower * 3 + 7, buffer.upper * 3 + 7);
        buffer.size *= scale;
    }
    for index in (1..buffers.len()).rev() {
        let other = usize::try_from(random.below(index as u64 + 1)).expect("an index");
        buffers.swap(index, other);
    }
    self::problem(buffers)
}

/// A folder of data beside the repository, where there is one. A clone by itself has none, and the
/// tests that read it then say that they were skipped.
pub(crate) fn shared(folder: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../../../shared/data").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: there is no {}", path.display());
    None
}

/// The rows of a CSV file by the names of its header.
pub(crate) fn rows(text: &str) -> impl Iterator<Item = impl Fn(&str) -> String> {
    let mut lines = text.lines();
    let names: Vec<_> = lines.next().expect("a header").split(',').map(str::to_owned).collect();
    lines.map(move |line| {
        let fields: Vec<_> = line.split(',').map(str::to_owned).collect();
        let names = names.clone();
        move |name: &str| {
            let at = names.iter().position(|other| other == name);
            at.map_or_else(String::new, |at| fields[at].clone())
        }
    })
}

/// A row of lifetimes as a buffer.
pub(crate) fn buffer_of(row: &impl Fn(&str) -> String) -> Buffer {
    let number = |name: &str| row(name).parse::<u64>().expect("a number");
    let time = |name: &str| row(name).parse::<i64>().expect("a time");
    let alignment = row("alignment").parse().unwrap_or(1);
    buffer(time("lower"), time("upper"), number("size"), alignment)
}

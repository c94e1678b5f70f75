//! The planner of bare problems against its twin, hard problems, and what can be known of both.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering};

use aegis_memory::place::{BoundReason, Buffer, Ended, Limits, Problem, Verdict, solve};
use aegis_memory::{OffsetFault, check_offsets};
use aegis_trace::Bytes;
use proptest::prelude::*;

use crate::problems::{
    Random, buffer, buffer_of, disguised, fit, guillotine, least_peak, minimise, problem, rows,
    shared, small_problems, windmills,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn small_problems_get_the_least_peak_and_its_proof(problem in small_problems()) {
        let least = least_peak(&problem);
        let solution = minimise(&problem);
        prop_assert_eq!(solution.peak(), Bytes(least));
        prop_assert_eq!(solution.bound, Bytes(least));
        prop_assert_eq!(solution.verdict, Verdict::Optimal);
        prop_assert_eq!(fit(&problem, least).peak(), Bytes(least));
        if least > 0 {
            prop_assert_eq!(fit(&problem, least - 1).verdict, Verdict::Infeasible);
        }
    }

    /// Alignments near the end of what can be addressed: a problem is refused, or planned as well as
    /// any other, and nothing overflows.
    #[test]
    fn huge_alignments_are_planned_or_refused(
        drawn in prop::collection::vec((0i64..9, 1i64..4, 1u64..12, 59u32..64), 1..6),
    ) {
        let one = |(lower, length, size, shift): (i64, i64, u64, u32)| {
            buffer(lower, lower + length, size, 1 << shift)
        };
        let Ok(problem) = Problem::new(drawn.into_iter().map(one).collect()) else {
            return Ok(());
        };
        let solution = minimise(&problem);
        prop_assert_eq!(solution.peak(), Bytes(least_peak(&problem)));
        prop_assert_eq!(solution.verdict, Verdict::Optimal);
    }

    /// The witness can be added up by anybody, and never claims too much.
    #[test]
    fn the_witness_is_live_at_once_and_needs_what_it_says(problem in small_problems()) {
        let solution = minimise(&problem);
        let witness = &solution.witness;
        let live: Vec<_> = witness.buffers.iter().map(|at| problem.buffers()[*at]).collect();
        prop_assert!(live.iter().all(|b| b.lower <= witness.time && witness.time < b.upper));
        prop_assert!(live.iter().all(|b| b.alignment.is_multiple_of(witness.stride)));
        prop_assert!(witness.bytes <= Bytes(least_peak(&problem)));
        let sum: u64 = live.iter().map(|b| b.size).sum();
        prop_assert_eq!(witness.bytes, Bytes(sum + witness.padding.0));
        // Every way to pick the one that lies highest, and so is not rounded up.
        let padded = |last: usize| {
            let ends = live.iter().enumerate();
            ends.map(|(at, b)| {
                if at == last { b.size } else { b.size.next_multiple_of(witness.stride) }
            }).sum::<u64>()
        };
        let least = (0..live.len()).map(padded).min().unwrap_or(0);
        prop_assert_eq!(witness.bytes, Bytes(least));
        if solution.bound_by == BoundReason::Witness {
            prop_assert_eq!(solution.bound, witness.bytes);
        }
    }

    /// Nothing about these offsets was planned.
    #[test]
    fn any_offsets_get_the_verdict_of_every_pair(
        problem in small_problems(),
        drawn in prop::collection::vec(0u64..24, 7),
    ) {
        let buffers = problem.buffers();
        let offsets: Vec<_> = drawn[..buffers.len()].to_vec();
        let clash = |a: usize, b: usize| {
            let (x, y): (&Buffer, &Buffer) = (&buffers[a], &buffers[b]);
            let shared = offsets[a].max(offsets[b])
                < (offsets[a] + x.size).min(offsets[b] + y.size);
            shared && x.lives_with(y)
        };
        let n = buffers.len();
        let sound = (0..n).all(|a| {
            let aligned = offsets[a].is_multiple_of(buffers[a].alignment);
            aligned && offsets[a] + buffers[a].size <= 30 && (0..a).all(|b| !clash(a, b))
        });
        prop_assert_eq!(check_offsets(&problem, offsets.clone(), Bytes(30)).is_ok(), sound);
    }

    /// Every plan of a tight problem is spoilt by moving one buffer by one byte.
    #[test]
    fn a_shifted_buffer_of_a_full_square_is_caught(
        seed in 0u64..50,
        which in any::<prop::sample::Index>(),
        up in any::<bool>(),
    ) {
        let problem = guillotine(seed, 12, 64);
        let solution = minimise(&problem);
        let mut offsets = solution.offsets.offsets().to_vec();
        let moved = &mut offsets[which.index(problem.buffers().len())];
        let Some(to) = (if up { moved.checked_add(1) } else { moved.checked_sub(1) }) else {
            return Ok(());
        };
        *moved = to;
        let fault = check_offsets(&problem, offsets, solution.peak()).expect_err("spoilt");
        prop_assert!(
            matches!(fault, OffsetFault::Overlap { .. } | OffsetFault::OutOfRange { .. }),
            "{}", fault
        );
    }
}

/// Squares cut to pieces: the capacity leaves no byte free at any time.
#[test]
fn full_squares_are_put_together_again() {
    for seed in 0..12 {
        for problem in [guillotine(seed, 60, 1024), windmills(seed, 41, 1 << 20)] {
            let capacity = problem.buffers().iter().map(|b| b.upper - b.lower).max();
            assert!(capacity.is_some());
            let solution = minimise(&problem);
            assert_eq!(solution.verdict, Verdict::Optimal, "seed {seed}");
            assert_eq!(solution.bound_by, BoundReason::Witness, "seed {seed}");
        }
    }
}

/// Time may run backwards, order and scale of the buffers may change: the peak does not.
#[test]
fn another_guise_of_a_problem_has_the_same_peak() {
    for seed in 0..8 {
        let plain = windmills(seed, 31, 4096);
        let peak = minimise(&plain).peak();
        for scale in [1, 3, 512] {
            let solution = minimise(&disguised(&plain, seed * 31 + scale, scale));
            assert_eq!(solution.peak(), Bytes(peak.0 * scale), "seed {seed}, scale {scale}");
        }
    }
}

#[test]
fn the_number_of_threads_does_not_change_the_answer() {
    for seed in 0..6 {
        let problem = windmills(seed, 81, 1 << 20);
        let limits = Limits { nodes: 60_000, ..Limits::minimise(81) };
        let alone = solve(&problem, &limits);
        let threads = NonZeroUsize::new(3).expect("not zero");
        assert_eq!(solve(&problem, &Limits { threads, ..limits }), alone, "seed {seed}");
    }
}

#[test]
fn a_caller_who_says_stop_gets_the_best_so_far() {
    let problem = windmills(3, 101, 1 << 20);
    let limits = Limits { stop: &|| true, ..Limits::minimise(101) };
    let solution = solve(&problem, &limits);
    assert_eq!((solution.nodes, solution.ended), (0, Ended::Stopped));
    assert!(solution.peak() >= solution.bound);
}

#[test]
fn what_ended_planning_is_said_as_it_was() {
    let problem = windmills(3, 101, 1 << 20);
    let limits = Limits::minimise(101);
    assert_eq!(minimise(&problem).ended, Ended::Proved);
    assert_eq!(solve(&problem, &Limits { nodes: 10, ..limits }).ended, Ended::Nodes);
    assert_eq!(solve(&problem, &Limits { nodes: 0, ..limits }).ended, Ended::Nodes);
    let roomy = Limits { capacity: Some(problem.total()), ..limits };
    assert_eq!(solve(&problem, &roomy).ended, Ended::CapacityMet);
    let tight = Limits { capacity: Some(Bytes((1 << 20) - 1)), ..limits };
    assert_eq!(solve(&problem, &tight).ended, Ended::Proved);
}

/// The clock strikes after a few nodes, and not before a search.
#[test]
fn a_stop_within_a_search_is_told_from_the_last_node() {
    let looks = AtomicU32::new(0);
    let stop = || looks.fetch_add(1, Ordering::Relaxed) > 60;
    let hard = windmills(5, 601, 1 << 24);
    let limits = Limits { nodes: u64::MAX, stop: &stop, ..Limits::minimise(601) };
    let solution = solve(&hard, &limits);
    assert_eq!((solution.verdict, solution.ended), (Verdict::Gap, Ended::Stopped));
    assert!(solution.nodes > 0);
}

#[test]
fn what_is_too_large_for_a_search_says_so_whatever_the_limit() {
    let mut random = Random::new(5);
    let mut one = || {
        let lower = i64::try_from(random.below(20_000)).expect("small");
        let length = i64::try_from(4_000 + random.below(4_000)).expect("small");
        buffer(lower, lower + length, 1 + random.below(1_000), 1)
    };
    let crowd = problem((0..8_000).map(|_| one()).collect());
    let solution = solve(&crowd, &Limits { nodes: u64::MAX, ..Limits::minimise(0) });
    assert_eq!((solution.verdict, solution.nodes), (Verdict::Gap, 0));
    assert_eq!(solution.ended, Ended::TooLarge);
}

#[test]
fn nothing_to_place_has_a_plan() {
    let solution = minimise(&problem(vec![]));
    assert_eq!((solution.peak(), solution.verdict), (Bytes(0), Verdict::Optimal));
    let empty = minimise(&problem(vec![buffer(0, 1, 0, 64), buffer(0, 9, 0, 1)]));
    assert_eq!((empty.peak(), empty.verdict), (Bytes(0), Verdict::Optimal));
}

/// The lower bound of some problems cannot be reached; about one in forty of this kind.
#[test]
fn a_bound_that_is_proved_by_exhaustion_says_so() {
    let mut random = Random::new(11);
    let mut exhausted = 0;
    while exhausted < 2 {
        let mut one = || {
            let lower = i64::try_from(random.below(9)).expect("small");
            let length = i64::try_from(1 + random.below(5)).expect("small");
            buffer(lower, lower + length, 1 + random.below(9), 1)
        };
        let problem = problem((0..9).map(|_| one()).collect());
        let solution = minimise(&problem);
        if solution.bound_by == BoundReason::Exhausted {
            assert!(solution.bound > solution.witness.bytes);
            assert_eq!(solution.peak(), Bytes(least_peak(&problem)));
            exhausted += 1;
        }
    }
}

#[test]
fn shared_small_problems_get_exactly_their_optimum() {
    let Some(folder) = shared("small") else { return };
    let instances = fs::read_to_string(folder.join("instances.csv")).expect("readable");
    let mut problems: BTreeMap<String, Vec<Buffer>> = BTreeMap::new();
    for row in rows(&instances) {
        problems.entry(row("instance")).or_default().push(buffer_of(&row));
    }
    let optima = fs::read_to_string(folder.join("optimum.csv")).expect("readable");
    for row in rows(&optima) {
        let (name, optimum) = (row("instance"), row("optimum").parse().expect("a number"));
        let problem = problem(problems[&name].clone());
        let solution = minimise(&problem);
        assert_eq!(
            (solution.peak(), solution.verdict),
            (Bytes(optimum), Verdict::Optimal),
            "{name}"
        );
        assert_eq!(fit(&problem, optimum).peak(), Bytes(optimum), "{name}");
        // A bound that equals the optimum is the proof that nothing less will do. Asked again where
        // the proof is not one of the few that take a million nodes.
        if solution.nodes < 50_000 {
            assert_eq!(fit(&problem, optimum - 1).verdict, Verdict::Infeasible, "{name}");
        }
    }
}

#[test]
fn shared_challenges_are_met_within_their_capacity() {
    let Some(folder) = shared("minimalloc") else { return };
    let mut files = 0;
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let parts: Vec<_> = name.split('.').collect();
        let [.., capacity, "csv"] = parts[..] else { continue };
        let text = fs::read_to_string(&path).expect("readable");
        let problem = problem(rows(&text).map(|row| buffer_of(&row)).collect());
        let capacity: u64 = capacity.parse().expect("a number");
        for guise in [problem.clone(), disguised(&problem, 5, 1), disguised(&problem, 6, 3)] {
            let scale = guise.total().0 / problem.total().0;
            let solution = fit(&guise, capacity * scale);
            assert!(solution.peak() <= Bytes(capacity * scale), "{name}: {:?}", solution.verdict);
        }
        files += 1;
    }
    assert!(files > 0, "the folder is there and holds nothing");
}

#[test]
fn shared_networks_are_proved_optimal() {
    let Some(folder) = shared("models") else { return };
    let mut files = 0;
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "csv") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("readable");
        let solution = minimise(&problem(rows(&text).map(|row| buffer_of(&row)).collect()));
        assert_eq!(solution.verdict, Verdict::Optimal, "{}", path.display());
        assert_eq!(solution.bound, solution.witness.bytes, "{}", path.display());
        files += 1;
    }
    assert!(files > 0, "the folder is there and holds nothing");
}

//! The exact search: is there a plan within a capacity? A portfolio of tree searches.
//!
//! No rule for choosing valleys, and no static order, is best everywhere: the right one walks
//! straight to a plan, the wrong one never arrives. So each gets a few nodes, and now and then more,
//! until one has an answer or the budget is spent. Each round also draws new noise.
//!
//! # Guarantees
//! 1. The answer is that of the first run, in the order of rounds and runs, that has one; it
//!    depends neither on how many threads there are nor on their timing.
//! 2. Budgets are counted in nodes. The caller's stop ends a search early and without an answer.
//!
//! # Sources
//! Restarts with growing limits: Luby, Sinclair, Zuckerman, "Optimal Speedup of Las Vegas
//! Algorithms", 1993; portfolios: Gomes, Selman, "Algorithm Portfolios", 2001.

mod failures;
mod heights;
pub(in crate::place) mod tables;
mod tree;
mod valley;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tables::{StaticOrder, Tables};
use tree::{Found, Tree};
use valley::{Rule, Scope};

/// Asked now and then whether to give up; a caller's clock hides behind it.
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// What a search may use.
#[derive(Clone, Copy)]
pub(in crate::place) struct Budget<'a> {
    pub(in crate::place) nodes: u64,
    pub(in crate::place) threads: NonZeroUsize,
    pub(in crate::place) stop: Stop<'a>,
}

/// The answer to whether there is a plan within a capacity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::place) enum Answer {
    /// Yes: an offset for every item.
    Plan(Vec<u64>),
    /// No: the search was complete.
    Nothing,
    /// The budget was spent, or the caller said stop.
    Unknown,
}

/// How a run chooses.
type Strategy = (Rule, StaticOrder);

/// The runs of every round, most successful first: found by counting, over problems of several
/// kinds and their variations, which run first solves what those before it do not.
const LEADS: [Strategy; 12] = [
    (Rule::Fewest(Scope::Lowest), StaticOrder::TotalAreaWidth),
    (Rule::Fewest(Scope::Lowest), StaticOrder::Size),
    (Rule::Rank(Scope::Lowest), StaticOrder::TotalWidthArea),
    (Rule::Fewest(Scope::All), StaticOrder::Size),
    (Rule::Fewest(Scope::All), StaticOrder::TotalWidthArea),
    (Rule::Room(Scope::Lowest), StaticOrder::TotalAreaWidth),
    (Rule::Fewest(Scope::Lowest), StaticOrder::WidthAreaTotal),
    (Rule::Room(Scope::Lowest), StaticOrder::WidthAreaTotal),
    (Rule::Fewest(Scope::All), StaticOrder::TotalAreaWidth),
    (Rule::Rank(Scope::All), StaticOrder::TotalAreaWidth),
    (Rule::Room(Scope::All), StaticOrder::TotalAreaWidth),
    (Rule::Fewest(Scope::Lowest), StaticOrder::Area),
];

/// The rules that also run with an order of the round's own.
const NOISY: [Rule; 6] = [
    Rule::Fewest(Scope::Lowest),
    Rule::Rank(Scope::Lowest),
    Rule::Fewest(Scope::All),
    Rule::Room(Scope::Lowest),
    Rule::Fewest(Scope::Lowest),
    Rule::Room(Scope::All),
];

/// The run of every round that is given [`PATIENCE`] times the nodes of the others, in parts of at
/// most [`PATIENT_ITEMS`] items. There being no plan is only found by a run that is complete, and in
/// small parts a complete run is within reach.
const PATIENT: Strategy = (Rule::Room(Scope::Lowest), StaticOrder::WidthAreaTotal);
const PATIENCE: u64 = 64;
const PATIENT_ITEMS: usize = 64;

/// The nodes of a run of the first round, for each item. A run that meets no obstacle needs about
/// one.
const NODES_PER_ITEM: u64 = 3;

/// Searches for a plan of `tables` within `capacity`. Returns the nodes used as well.
///
/// O(incidences) for each node in the worst case, far less as a rule.
pub(in crate::place) fn search(
    tables: &Tables,
    capacity: u64,
    budget: Budget<'_>,
) -> (Answer, u64) {
    let mut rounds = Rounds::new(tables.items.len());
    let mut spent = 0;
    loop {
        // The first round is over sooner than threads are made.
        let threads = if spent == 0 { NonZeroUsize::MIN } else { budget.threads };
        let runs = rounds.next(budget.nodes - spent);
        let (answer, used) = play(tables, capacity, &runs, Budget { threads, ..budget });
        spent += used;
        // Runs that are never tried use no nodes: with none left, there is no round to come.
        if answer != Answer::Unknown || runs.is_empty() || spent >= budget.nodes || (budget.stop)()
        {
            return (answer, spent);
        }
    }
}

/// What one run of a round may use.
#[derive(Clone, Copy)]
struct Run {
    strategy: Strategy,
    limit: u64,
}

/// The rounds of a search, one after the other.
///
/// Limits follow the sequence of Luby: 1, 1, 2, 1, 1, 2, 4 and so on, so that chance gets many short
/// tries and obstinacy a few long ones. With the same limit the leads would do the same again, so
/// they run where the limit is larger than ever before, and noisy runs always.
struct Rounds {
    unit: u64,
    round: u64,
    longest: u64,
    is_patient: bool,
}

impl Rounds {
    fn new(items: usize) -> Self {
        let unit = NODES_PER_ITEM * items as u64;
        Self { unit, round: 0, longest: 0, is_patient: items <= PATIENT_ITEMS }
    }

    /// The runs of the next round, as far as `nodes` reach.
    fn next(&mut self, nodes: u64) -> Vec<Run> {
        let first_noise = self.round * NOISY.len() as u64;
        self.round += 1;
        let limit = self.unit.saturating_mul(luby(self.round));
        let is_longest = limit > self.longest;
        self.longest = self.longest.max(limit);
        let leads = LEADS.iter().filter(|_| is_longest).copied();
        let noisy = (first_noise..).zip(NOISY).map(|(seed, rule)| (rule, StaticOrder::Noisy(seed)));
        let hasty = leads.chain(noisy).map(|strategy| (strategy, limit));
        let patient =
            (is_longest && self.is_patient).then_some((PATIENT, limit.saturating_mul(PATIENCE)));
        let mut left = nodes;
        let affordable = hasty.chain(patient).map(|(strategy, limit)| {
            let limit = limit.min(left);
            left -= limit;
            Run { strategy, limit }
        });
        affordable.filter(|run| run.limit > 0).collect()
    }
}

/// Number `index`, counted from one, of the sequence of Luby, Sinclair and Zuckerman.
fn luby(mut index: u64) -> u64 {
    loop {
        let power = (index + 1).next_power_of_two();
        if power == index + 1 {
            return power / 2;
        }
        // Between two powers the sequence repeats itself from the beginning.
        index -= power / 2 - 1;
    }
}

/// One round, on as many threads as the budget says.
fn play(tables: &Tables, capacity: u64, runs: &[Run], budget: Budget<'_>) -> (Answer, u64) {
    let next = AtomicUsize::new(0);
    let decided = AtomicUsize::new(usize::MAX); // The first run known to have an answer.
    let work = || {
        let mut results = Vec::new();
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            let Some(Run { strategy, limit }) = runs.get(run).copied() else {
                return results;
            };
            let stop = || (budget.stop)() || decided.load(Ordering::Relaxed) < run;
            let (found, nodes) = match Tree::new(tables, capacity, strategy, limit) {
                Ok(tree) => tree.run(&stop),
                Err(_) => (Found::Nothing, 0),
            };
            if found != Found::Limit {
                decided.fetch_min(run, Ordering::Relaxed);
            }
            let last = found != Found::Limit || stop();
            results.push((run, found, nodes));
            if last {
                return results;
            }
        }
    };
    let mut results = on_threads(budget.threads, &work);
    results.sort_by_key(|(run, ..)| *run);
    // Runs before the first answer went to their limit: what is counted is the same every time.
    let mut spent = 0;
    for (_, found, nodes) in results {
        spent += nodes;
        match found {
            Found::Plan(offsets) => return (Answer::Plan(offsets), spent),
            Found::Nothing => return (Answer::Nothing, spent),
            Found::Limit => {}
        }
    }
    (Answer::Unknown, spent)
}

/// All that `work` returns on as many threads, in no particular order.
fn on_threads<T: Send>(threads: NonZeroUsize, work: &(impl Fn() -> Vec<T> + Sync)) -> Vec<T> {
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads.get()).map(|_| scope.spawn(work)).collect();
        let mut results = work();
        for other in others {
            results.extend(other.join().expect("a search does not panic"));
        }
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_sequence_of_luby() {
        let sequence: Vec<_> = (1..=15).map(luby).collect();
        assert_eq!(sequence, [1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8]);
    }

    #[test]
    fn rounds_spend_no_more_than_there_is() {
        let mut rounds = Rounds::new(10);
        let first: u64 = rounds.next(100).iter().map(|run| run.limit).sum();
        assert_eq!(first, 100);
        assert_eq!(rounds.next(0).len(), 0);
        let limits: Vec<_> = rounds.next(10_000_000).iter().map(|run| run.limit).collect();
        // The third round is the first of twice the limit: leads, noise, and the patient run.
        assert_eq!(limits.len(), LEADS.len() + NOISY.len() + 1);
        assert_eq!(limits[0], 60);
        assert_eq!(limits.last(), Some(&(60 * PATIENCE)));
    }
}

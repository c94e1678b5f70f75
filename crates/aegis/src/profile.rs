//! Profiling: how long each stage takes, in turn with the other models and under load.
//!
//! Models take turns, one job each, round after round, so every sample begins with the caches
//! another model left: what a serialising scheduler really causes. Under load, this scenario
//! alternates with others in blocks of random order, so that what drifts (a temperature, a clock) does
//! not pass for the effect of one scenario.
//!
//! Where the device is split, the models of one partition take turns while those of every other run
//! job after job: what partitions share (bandwidth, caches, clocks) is as busy as it can be, and the
//! costs hold it. Each model is measured alone as well, which shows how much the others cost it.
//!
//! Where inputs are to go ahead of their stages, copies as large as the largest inputs of the set follow
//! each other beside every stage, from where its own upload is over until its end. The inputs of a job are
//! written before it, as a caller does: what lies in the processor's caches crosses the bus more slowly.
//! What it takes to put a stage behind a running one is measured then, in rounds of its own.

mod bench;

use std::time::Duration;

use aegis_sched::sim::{Random, Seed};
use aegis_sched::wcet::Scenario;
use aegis_trace::{Bytes, Nanos};

use self::bench::Bench;
use crate::builder::DeviceChoice;
use crate::error::Error;
use crate::evidence::{Evidence, EvidenceError, ModelEvidence};
use crate::partition::PartitionSpec;
use crate::source::ModelSource;

/// Rounds before measuring begins: first runs fault pages in and teach runtimes their sizes.
const WARM_UP_ROUNDS: usize = 5;

/// Kept rounds of one scenario before the next one's turn.
const BLOCK_ROUNDS: usize = 10;

/// Rounds that are not kept after a change of scenario: caches and clocks settle.
const SETTLE_ROUNDS: usize = 1;

/// Where the order of the scenarios begins.
const ORDER_SEED: Seed = Seed(0x0c0f_fee5);

/// The pause after a job is its own length divided by this. Linux takes the processor from real-time
/// threads that leave less than 5 % of it to others, for tens of milliseconds, and a profile without
/// pauses would measure that; a schedulable set at run time leaves more.
const PAUSE_DIVISOR: u32 = 4;

/// And at least this: a core that was idle between two jobs, as it mostly is at run time, begins the
/// next one with colder caches and a lower clock than one that never rests.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// A model to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Unique among the subjects.
    pub name: String,
    /// What it is made of.
    pub source: ModelSource,
    /// Its place in [`ProfileOptions::partitions`]; `None` where there are none.
    pub partition: Option<usize>,
}

/// How to profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileOptions {
    /// What stands for the device; virtual time needs no profile.
    pub device: DeviceChoice,
    /// The hard limit of all models together.
    pub memory: Bytes,
    /// What the device is split into; none where it is whole.
    pub partitions: Vec<PartitionSpec>,
    /// Measured rounds.
    pub rounds: usize,
    /// How long an idle worker polls before it sleeps, as when running.
    pub spin: Nanos,
    /// Whether to ask for real-time priority, as when running; a refusal is no error.
    pub realtime: bool,
    /// Whether inputs are to go ahead of their stages: each stage is measured beside copies then.
    pub uploads_ahead: bool,
}

/// Loads every model, runs `rounds` measured rounds over all of them, and gives back the evidence.
/// `progress` is told the rounds done, warm-up included, and their number. Blocks throughout.
///
/// # Errors
/// [`Error::Load`], [`Error::Memory`] when the models do not fit together, [`Error::Profile`] when
/// one fails, [`Error::Device`].
///
/// # Panics
/// When `rounds` is zero.
pub fn profile(
    models: &[(String, ModelSource)],
    options: &ProfileOptions,
    progress: impl FnMut(usize, usize),
) -> Result<Evidence, Error> {
    let whole = |(name, source): &(String, ModelSource)| Subject {
        name: name.clone(),
        source: source.clone(),
        partition: None,
    };
    let subjects: Vec<Subject> = models.iter().map(whole).collect();
    profile_under_load(&subjects, options, &[], progress)
}

/// As [`profile`], and in each of `scenarios` besides taking turns: as many rounds of each, in
/// alternating blocks. Of a split device each partition has its rounds, and each model is measured
/// [alone](Scenario::Alone) whatever `scenarios` are.
///
/// # Errors
/// As [`profile`]; [`Error::Thread`] when there is none for a load, and [`Error::Evidence`] when the
/// environment changed meanwhile.
///
/// # Panics
/// When `rounds` is zero, or a subject is in a partition that is not there.
pub fn profile_under_load(
    models: &[Subject],
    options: &ProfileOptions,
    scenarios: &[Scenario],
    mut progress: impl FnMut(usize, usize),
) -> Result<Evidence, Error> {
    assert!(options.rounds > 0, "a profile without rounds measures nothing");
    let mut bench = Bench::new(models, options)?;
    let before = bench.environment();
    let cold = bench.state();
    let mut scenarios = scenarios.to_vec();
    scenarios.extend((!options.partitions.is_empty()).then_some(Scenario::Alone));
    let blocks = blocks(&scenarios, options.rounds);
    let kept: usize = blocks.iter().map(|block| block.rounds).sum();
    let all = WARM_UP_ROUNDS + kept * bench.partitions();
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done, all);
    };
    for _ in 0..WARM_UP_ROUNDS {
        bench.warm_up()?;
        step();
    }
    for block in blocks {
        bench.block(block, &mut step)?;
    }
    let after = bench.environment();
    if let Some(difference) = before.differences(&after).into_iter().next() {
        return Err(EvidenceError::Unsteady { difference }.into());
    }
    bench.evidence(models, after, cold)
}

/// Some rounds of one scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    scenario: Scenario,
    rounds: usize,
    /// Rounds before that are not kept.
    settle: usize,
}

/// `rounds` of every scenario and of taking turns, in blocks; each series of blocks has every scenario
/// once, in an order of its own.
fn blocks(scenarios: &[Scenario], rounds: usize) -> Vec<Block> {
    let mut all = scenarios.to_vec();
    all.push(Scenario::Turns);
    all.sort_unstable();
    all.dedup();
    let settle = if all.len() > 1 { SETTLE_ROUNDS } else { 0 };
    let mut random = Random::new(ORDER_SEED);
    let mut blocks = Vec::new();
    let mut left = rounds;
    while left > 0 {
        let rounds = left.min(BLOCK_ROUNDS);
        for last in (1..all.len()).rev() {
            let other = random.up_to(last as u64);
            all.swap(last, usize::try_from(other).expect("at most `last`"));
        }
        blocks.extend(all.iter().map(|scenario| Block { scenario: *scenario, rounds, settle }));
        left -= rounds;
    }
    blocks
}

/// The largest overhead per stage that any model saw, with its 99th percentile: what
/// `overheads.dispatch` of a workload should cover.
#[must_use]
pub fn dispatch_overhead(evidence: &Evidence) -> Option<OverheadSummary> {
    let per_stage = |model: &ModelEvidence| {
        let stages = model.samples.stages().len() as u64;
        let share = move |overhead: &Nanos| Nanos(overhead.0.div_ceil(stages));
        model.overheads.iter().map(share).collect::<Vec<_>>()
    };
    OverheadSummary::of(evidence.models.values().flat_map(per_stage).collect())
}

/// What it took to put a stage behind a running one with its inputs ahead of it, each figure that of the
/// model for which it is the largest: what `overheads.dispatch` should cover beside
/// [`dispatch_overhead`] where inputs go ahead, since such a commit can begin just before the running
/// stage ends. `None` where no model was put behind another.
#[must_use]
pub fn commit_overhead(evidence: &Evidence) -> Option<OverheadSummary> {
    let of = |model: &ModelEvidence| OverheadSummary::of(model.commits.clone()?);
    let larger = |one: OverheadSummary, other: OverheadSummary| OverheadSummary {
        p50: one.p50.max(other.p50),
        p99: one.p99.max(other.p99),
        max: one.max.max(other.max),
    };
    evidence.models.values().filter_map(of).reduce(larger)
}

/// The models of which it was not measured what it takes to put them behind a running stage.
pub fn without_commits(evidence: &Evidence) -> impl Iterator<Item = &str> {
    let without = evidence.models.iter().filter(|(_, model)| model.commits.is_none());
    without.map(|(name, _)| name.as_str())
}

/// Overheads that were seen while profiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverheadSummary {
    /// Half were at most this.
    pub p50: Nanos,
    /// 99 % were at most this.
    pub p99: Nanos,
    /// The largest.
    pub max: Nanos,
}

impl OverheadSummary {
    /// Of any number of times, in any order; `None` of none.
    fn of(mut all: Vec<Nanos>) -> Option<Self> {
        all.sort_unstable();
        let max = *all.last()?;
        let at = |percent: usize| all[(all.len() * percent / 100).min(all.len() - 1)];
        Some(Self { p50: at(50), p99: at(99), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_alternate_and_each_gets_its_rounds() {
        let blocks = blocks(&[Scenario::Mixed, Scenario::Alone, Scenario::Mixed], 25);
        let rounds = |scenario| {
            let of = blocks.iter().filter(|block| block.scenario == scenario);
            of.map(|block| block.rounds).collect::<Vec<_>>()
        };
        for scenario in [Scenario::Alone, Scenario::Turns, Scenario::Mixed] {
            assert_eq!(rounds(scenario), [10, 10, 5]);
        }
        assert_eq!(blocks.len(), 9);
        assert!(blocks.iter().all(|block| block.settle == SETTLE_ROUNDS));
        for series in blocks.chunks(3) {
            let mut scenarios: Vec<_> = series.iter().map(|block| block.scenario).collect();
            scenarios.sort_unstable();
            assert_eq!(scenarios, [Scenario::Alone, Scenario::Turns, Scenario::Mixed]);
        }
    }

    #[test]
    fn taking_turns_alone_throws_nothing_away() {
        let blocks = blocks(&[], 15);
        assert_eq!(
            blocks.iter().map(|block| (block.rounds, block.settle)).collect::<Vec<_>>(),
            [(10, 0), (5, 0)]
        );
    }
}

//! Profiling: how long each stage takes, in turn with the other models and under load.
//!
//! Models take turns, one job each, round after round, so every sample begins with the caches
//! another model left: what a serialising scheduler really causes. Under load, this scenario
//! alternates with others in blocks of random order, so that what drifts (a temperature, a clock) does
//! not pass for the effect of one scenario.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aegis_context::slot::{JobSlot, SlotPool};
use aegis_context::{ContextError, ExecutionContext, MemoryLedger, ResourceBudget, StreamPool};
use aegis_cuda::DriverKind;
use aegis_memory::{MemoryOrchestrator, ModelMemory};
use aegis_sched::sim::{Random, Seed};
use aegis_sched::wcet::{Samples, Scenario};
use aegis_trace::{Bytes, Clock, ModelId, Nanos, StageIndex};

use crate::aggressor::{Aggressor, Load};
use crate::builder::{self, ThreadOptions};
use crate::environment::{self, Environment};
use crate::error::Error;
use crate::evidence::{self, DeviceFingerprint, Evidence, EvidenceError, ModelEvidence};
use crate::source::{LoadedModel, MemoryNeed, ModelSource};

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

/// How to profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileOptions {
    /// The device's driver; virtual time needs no profile.
    pub driver: DriverKind,
    /// The hard limit of all models together.
    pub memory: Bytes,
    /// Measured rounds.
    pub rounds: usize,
    /// How long an idle worker polls before it sleeps, as when running.
    pub spin: Nanos,
    /// Whether to ask for real-time priority, as when running; a refusal is no error.
    pub realtime: bool,
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
    profile_under_load(models, options, &[], progress)
}

/// As [`profile`], and in each of `scenarios` besides taking turns: as many rounds of each, in
/// alternating blocks.
///
/// # Errors
/// As [`profile`]; [`Error::Thread`] when there is none for a load, and [`Error::Evidence`] when the
/// environment changed meanwhile.
///
/// # Panics
/// When `rounds` is zero.
pub fn profile_under_load(
    models: &[(String, ModelSource)],
    options: &ProfileOptions,
    scenarios: &[Scenario],
    mut progress: impl FnMut(usize, usize),
) -> Result<Evidence, Error> {
    assert!(options.rounds > 0, "a profile without rounds measures nothing");
    let before = Environment::read();
    let mut bench = Bench::new(models, options)?;
    let blocks = blocks(scenarios, options.rounds);
    let all = WARM_UP_ROUNDS + blocks.iter().map(|block| block.rounds).sum::<usize>();
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done, all);
    };
    for _ in 0..WARM_UP_ROUNDS {
        bench.round(None)?;
        step();
    }
    for block in blocks {
        bench.block(block, &mut step)?;
    }
    let after = Environment::read();
    if let Some(difference) = before.differences(&after).into_iter().next() {
        return Err(EvidenceError::Unsteady { difference }.into());
    }
    bench.evidence(models, after)
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

/// All models on one device, ready to be measured.
struct Bench {
    device: DeviceFingerprint,
    clock: Arc<dyn Clock>,
    streams: Arc<StreamPool>,
    models: Vec<Measured>,
    // Holds the arena the models are bound in.
    _memory: MemoryOrchestrator,
}

struct Measured {
    name: String,
    runtime: String,
    need: MemoryNeed,
    context: ExecutionContext,
    slot: Arc<JobSlot>,
    stages: usize,
    samples: BTreeMap<Scenario, Vec<Vec<Nanos>>>,
    overheads: Vec<Nanos>,
}

impl Bench {
    fn new(models: &[(String, ModelSource)], options: &ProfileOptions) -> Result<Self, Error> {
        let thread = ThreadOptions { spin: options.spin, realtime: options.realtime };
        let (device, pace) = builder::device(options.driver, options.memory, 1, thread)?;
        let mut memory = MemoryOrchestrator::new(device.reserve_arena(options.memory)?);
        let streams = StreamPool::new(&device, 1)?;
        builder::set_up_workers(&streams, &pace)?;
        let mut measured = Vec::with_capacity(models.len());
        for (index, (name, source)) in (0u16..).zip(models) {
            let loaded = source.load(name, device.kind(), options.memory)?;
            measured.push(Measured::bind(ModelId::first(index), loaded, &mut memory)?);
        }
        let fingerprint = DeviceFingerprint::of(device.capabilities());
        let clock = device.clock();
        Ok(Self { device: fingerprint, clock, streams, models: measured, _memory: memory })
    }

    /// The rounds of one block; `step` is told each that is kept.
    fn block(&mut self, block: Block, step: &mut impl FnMut()) -> Result<(), Error> {
        let Block { scenario, rounds, settle } = block;
        let aggressor = match scenario {
            Scenario::Compute => Some(Aggressor::Compute),
            Scenario::Bandwidth => Some(Aggressor::Bandwidth),
            Scenario::Mixed => Some(Aggressor::Mixed),
            _ => None,
        };
        let _load = aggressor.map(Load::start).transpose().map_err(Error::Thread)?;
        if scenario == Scenario::Alone {
            for model in 0..self.models.len() {
                (0..settle + rounds)
                    .try_for_each(|round| self.job(model, (round >= settle).then_some(scenario)))?;
            }
            (0..rounds).for_each(|_| step());
            return Ok(());
        }
        for round in 0..settle + rounds {
            let keep = (round >= settle).then_some(scenario);
            self.round(keep)?;
            keep.iter().for_each(|_| step());
        }
        Ok(())
    }

    /// One job of every model in turn, with a pause after each; kept for a scenario, or not at all.
    fn round(&mut self, keep: Option<Scenario>) -> Result<(), Error> {
        (0..self.models.len()).try_for_each(|model| self.job(model, keep))
    }

    /// One job of one model, and a pause.
    fn job(&mut self, model: usize, keep: Option<Scenario>) -> Result<(), Error> {
        let model = &mut self.models[model];
        let name = model.name.clone();
        let failed = |cause| Error::Profile { model: name, cause: Box::new(cause) };
        let began = self.clock.now();
        model.run_once(&self.streams, &*self.clock, keep).map_err(failed)?;
        let busy = self.clock.now().saturating_since(began);
        thread::sleep((Duration::from(busy) / PAUSE_DIVISOR).max(PAUSE_MIN));
        Ok(())
    }

    fn evidence(
        self,
        sources: &[(String, ModelSource)],
        environment: Environment,
    ) -> Result<Evidence, Error> {
        let mut models = BTreeMap::new();
        for (measured, (name, source)) in self.models.into_iter().zip(sources) {
            let others = sources.iter().map(|(name, _)| name).filter(|other| *other != name);
            let evidence = measured.evidence(source, others.cloned().collect())?;
            models.insert(name.clone(), evidence);
        }
        Ok(Evidence {
            aegis_evidence: evidence::VERSION,
            device: self.device,
            date: environment::date(),
            environment,
            warm_up: WARM_UP_ROUNDS,
            models,
        })
    }
}

impl Measured {
    fn bind(
        model: ModelId,
        loaded: LoadedModel,
        memory: &mut MemoryOrchestrator,
    ) -> Result<Self, Error> {
        let (need, runtime) = (loaded.memory(), loaded.runtime_name());
        let LoadedModel { name, mut backend } = loaded;
        let planned = memory.plan(ModelMemory { model, tensors: backend.memory().to_vec() })?;
        let total = planned.usage().total();
        let binding = memory.bind(planned)?;
        let failed =
            |cause: ContextError| Error::Profile { model: name.clone(), cause: Box::new(cause) };
        backend.bind(binding).map_err(|cause| failed(cause.into()))?;
        let stages = usize::from(backend.description().stages);
        let slots = SlotPool::on(memory.arena(), backend.description(), 1)
            .map_err(|cause| failed(cause.into()))?;
        let slot = slots.claim().expect("a fresh slot is free");
        slot.queue();
        let charge = MemoryLedger::new(total).charge(total).map_err(failed)?;
        let budget = ResourceBudget { memory: total, streams: 1, compute: Nanos::MAX };
        let context = ExecutionContext::new(model, budget, backend, slots, charge);
        let (samples, overheads) = (BTreeMap::new(), Vec::new());
        Ok(Self { name, runtime, need, context, slot, stages, samples, overheads })
    }

    fn evidence(
        self,
        source: &ModelSource,
        background: Vec<String>,
    ) -> Result<ModelEvidence, Error> {
        let name = self.name;
        let checked = |(scenario, times)| {
            let samples = Samples::new(times)
                .map_err(|cause| Error::Samples { model: name.clone(), cause })?;
            Ok::<_, Error>((scenario, samples))
        };
        let mut scenarios: BTreeMap<Scenario, Samples> =
            self.samples.into_iter().map(checked).collect::<Result<_, _>>()?;
        Ok(ModelEvidence {
            model: evidence::fingerprint(source)?,
            runtime: self.runtime,
            stages: source.stage_names(),
            background,
            memory: self.need,
            samples: scenarios.remove(&Scenario::Turns).expect("turns were taken"),
            scenarios,
            overheads: self.overheads,
        })
    }

    fn run_once(
        &mut self,
        streams: &Arc<StreamPool>,
        clock: &dyn Clock,
        keep: Option<Scenario>,
    ) -> Result<(), ContextError> {
        let mut overhead = Nanos::ZERO;
        for (stage, index) in (0u16..).zip(0..self.stages) {
            let began = clock.now();
            let busy = self.context.launch(StageIndex(stage), &self.slot, streams.lease()?)?;
            let times = busy.wait()?;
            let noticed = clock.now();
            self.context.stage_done();
            // A stage below the clock's resolution still takes its smallest step.
            let length = times.finished.saturating_since(times.started).max(Nanos::EPSILON);
            overhead += noticed.saturating_since(began).saturating_sub(length);
            if let Some(scenario) = keep {
                let times = self.samples.entry(scenario);
                times.or_insert_with(|| vec![Vec::new(); self.stages])[index].push(length);
            }
        }
        if keep == Some(Scenario::Turns) {
            self.overheads.push(overhead);
        }
        Ok(())
    }
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
    let mut all: Vec<Nanos> = evidence.models.values().flat_map(per_stage).collect();
    all.sort_unstable();
    let max = *all.last()?;
    let at = |percent: usize| all[(all.len() * percent / 100).min(all.len() - 1)];
    Some(OverheadSummary { p50: at(50), p99: at(99), max })
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

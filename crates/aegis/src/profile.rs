//! Profiling: how long each stage takes, alone on the device.
//!
//! Models take turns, one job each, round after round, so every sample begins with the caches
//! another model left: what a serialising scheduler really causes. Nothing else runs on the device
//! meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aegis_context::slot::{JobSlot, SlotPool};
use aegis_context::{ContextError, ExecutionContext, MemoryLedger, ResourceBudget, StreamPool};
use aegis_cuda::DriverKind;
use aegis_memory::{MemoryOrchestrator, ModelMemory};
use aegis_sched::wcet::Samples;
use aegis_trace::{Bytes, Clock, ModelId, Nanos, StageIndex};

use crate::builder::{self, ThreadOptions};
use crate::error::Error;
use crate::evidence::{self, DeviceFingerprint, Evidence, ModelEvidence};
use crate::source::{LoadedModel, MemoryNeed, ModelSource};

/// Rounds before measuring begins: first runs fault pages in and teach runtimes their sizes.
const WARM_UP_ROUNDS: usize = 5;

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
    mut progress: impl FnMut(usize, usize),
) -> Result<Evidence, Error> {
    assert!(options.rounds > 0, "a profile without rounds measures nothing");
    let mut bench = Bench::new(models, options)?;
    let rounds = WARM_UP_ROUNDS + options.rounds;
    for round in 0..rounds {
        bench.round(round >= WARM_UP_ROUNDS)?;
        progress(round + 1, rounds);
    }
    bench.evidence(models)
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
    samples: Vec<Vec<Nanos>>,
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

    /// One job of every model in turn, with a pause after each.
    fn round(&mut self, keep: bool) -> Result<(), Error> {
        for model in &mut self.models {
            let name = model.name.clone();
            let failed = |cause| Error::Profile { model: name, cause: Box::new(cause) };
            let began = self.clock.now();
            model.run_once(&self.streams, &*self.clock, keep).map_err(failed)?;
            let busy = self.clock.now().saturating_since(began);
            thread::sleep((Duration::from(busy) / PAUSE_DIVISOR).max(PAUSE_MIN));
        }
        Ok(())
    }

    fn evidence(self, sources: &[(String, ModelSource)]) -> Result<Evidence, Error> {
        let mut models = BTreeMap::new();
        for (measured, (name, source)) in self.models.into_iter().zip(sources) {
            let samples = Samples::new(measured.samples)
                .map_err(|cause| Error::Samples { model: name.clone(), cause })?;
            let evidence = ModelEvidence {
                model: evidence::fingerprint(source)?,
                runtime: measured.runtime,
                memory: measured.need,
                samples,
                overheads: measured.overheads,
            };
            models.insert(name.clone(), evidence);
        }
        Ok(Evidence { aegis_evidence: evidence::VERSION, device: self.device, models })
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
        let slots = SlotPool::new(backend.description(), 1);
        let slot = slots.claim().expect("a fresh slot is free");
        slot.queue();
        let charge = MemoryLedger::new(total).charge(total).map_err(failed)?;
        let budget = ResourceBudget { memory: total, streams: 1, compute: Nanos::MAX };
        let context = ExecutionContext::new(model, budget, backend, slots, charge);
        let samples = vec![Vec::new(); stages];
        Ok(Self { name, runtime, need, context, slot, samples, overheads: Vec::new() })
    }

    fn run_once(
        &mut self,
        streams: &Arc<StreamPool>,
        clock: &dyn Clock,
        keep: bool,
    ) -> Result<(), ContextError> {
        let mut overhead = Nanos::ZERO;
        for (stage, samples) in (0u16..).zip(&mut self.samples) {
            let began = clock.now();
            let busy = self.context.launch(StageIndex(stage), &self.slot, streams.lease()?)?;
            let times = busy.wait()?;
            let noticed = clock.now();
            self.context.stage_done();
            // A stage below the clock's resolution still takes its smallest step.
            let length = times.finished.saturating_since(times.started).max(Nanos::EPSILON);
            overhead += noticed.saturating_since(began).saturating_sub(length);
            if keep {
                samples.push(length);
            }
        }
        if keep {
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

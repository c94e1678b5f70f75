//! The models of a device, bound and ready to be measured, partition by partition.
//!
//! While one partition is measured, a thread for each other one runs its models round after round.
//! Measuring begins once each of these has run all of its models, and ends before any of them does.
//!
//! # Invariants
//! 1. A fault of a model that only runs as load ends the measurement, as one of a measured model does.
//! 2. On a host the load rests as measured models do: without pauses Linux would take the processor
//!    from real-time threads, measured ones among them.
//! 3. On a GPU the multiprocessors of the load do not rest for copies: a measured stage uploads behind
//!    nobody's copies, so these are waited for before it; a stage of the load follows the one before it
//!    at once.

mod commits;
mod measured;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use aegis_context::StreamPool;
use aegis_cuda::{CopyLoad, DeviceContext, DeviceState, DriverKind};
use aegis_memory::MemoryOrchestrator;
use aegis_sched::wcet::Scenario;
use aegis_trace::{Bytes, Clock, ModelId, PartitionId};

use self::measured::{Beside, Measured};
use super::{Block, PAUSE_DIVISOR, PAUSE_MIN, ProfileOptions, Subject, WARM_UP_ROUNDS};
use crate::aggressor::{Aggressor, Load};
use crate::builder::{self, ThreadOptions};
use crate::device_facts::granted_to;
use crate::environment::{self, Environment, GpuSettings};
use crate::error::Error;
use crate::evidence::{self, DeviceFingerprint, Evidence, PartitionFingerprint};
use crate::partition::PartitionSpec;
use crate::source::Ground;

/// All models on one device, ready to be measured.
pub(super) struct Bench {
    context: DeviceContext,
    device: DeviceFingerprint,
    clock: Arc<dyn Clock>,
    groups: Vec<Group>,
    /// Whether inputs are to go ahead of their stages.
    uploads_ahead: bool,
    // Holds the arena the models are bound in.
    _memory: MemoryOrchestrator,
}

/// The models of one partition, or of the whole device.
struct Group {
    spec: Option<PartitionSpec>,
    /// The SMs that the driver gave it.
    granted: Option<u32>,
    streams: Arc<StreamPool>,
    models: Vec<Measured>,
    /// Whether the load rests after a job.
    rests: bool,
    /// Copies beside each stage, where inputs are to go ahead.
    copies: Option<CopyLoad>,
}

impl Bench {
    pub(super) fn new(models: &[Subject], options: &ProfileOptions) -> Result<Self, Error> {
        let thread = ThreadOptions { spin: options.spin, realtime: options.realtime };
        // Where inputs go ahead, those of the models do and so do the copies beside them.
        let streams = 1 + 2 * u32::from(options.uploads_ahead);
        let (device, pace) = builder::device(options.device, options.memory, streams, thread)?;
        let mut memory =
            MemoryOrchestrator::new(builder::arena(&device, builder::libraries(models.len()))?);
        let (mut groups, mut preparations) = (Vec::new(), Vec::new());
        for (spec, view) in builder::views(&device, &options.partitions)? {
            let streams = if options.uploads_ahead {
                StreamPool::uploading_ahead(&view, 1)?
            } else {
                StreamPool::new(&view, 1)?
            };
            builder::set_up_workers(&view, &streams, &pace)?;
            let rests = device.kind() == DriverKind::Host;
            let granted = granted_to(&view);
            preparations.push((builder::preparation(options.device, &view)?, view));
            let (models, copies) = (Vec::new(), None);
            groups.push(Group { spec, granted, streams, models, rests, copies });
        }
        for (index, Subject { name, source, partition }) in (0u16..).zip(models) {
            let place = partition.unwrap_or(0);
            let partition = PartitionId::first(u16::try_from(place).expect("few partitions"));
            let (preparation, device) = &preparations[place];
            let (preparation, memory_limit) = (preparation.as_ref(), options.memory);
            let arena = memory.arena();
            let ground = Ground { device, arena, preparation, memory_limit };
            let loaded = source.load(name, partition, ground)?;
            let measured = Measured::bind(ModelId::first(index), loaded, &mut memory)?;
            groups[place].models.push(measured);
        }
        if options.uploads_ahead {
            let largest = groups.iter().flat_map(|group| &group.models).map(Measured::upload);
            let largest = largest.max().unwrap_or(Bytes::ZERO);
            for (group, (_, view)) in groups.iter_mut().zip(&preparations) {
                let load = || CopyLoad::new(view, memory.arena(), largest);
                group.copies = (largest > Bytes::ZERO).then(load).transpose()?;
            }
        }
        let fingerprint = DeviceFingerprint::of(device.capabilities());
        let clock = device.clock();
        let uploads_ahead = options.uploads_ahead;
        let context = device;
        Ok(Self { context, device: fingerprint, clock, groups, uploads_ahead, _memory: memory })
    }

    /// What the device says of itself now.
    pub(super) fn state(&self) -> DeviceState {
        self.context.state()
    }

    /// What else of the machine changes how long a job takes.
    pub(super) fn environment(&self) -> Environment {
        let (device, health) = (self.context.capabilities(), self.context.health());
        Environment::read_with(GpuSettings::of(device, health.as_ref()))
    }

    /// How many there are; one for a whole device.
    pub(super) fn partitions(&self) -> usize {
        self.groups.len()
    }

    /// One round of every model that is not kept.
    pub(super) fn warm_up(&mut self) -> Result<(), Error> {
        self.groups.iter_mut().try_for_each(|group| group.round(&*self.clock, None))
    }

    /// The rounds of one block, for each partition in turn; `step` is told each that is kept. Where inputs
    /// go ahead, as many rounds of such commits follow those in turns.
    pub(super) fn block(&mut self, block: Block, step: &mut impl FnMut()) -> Result<(), Error> {
        for place in 0..self.groups.len() {
            let mut others: Vec<&mut Group> = self.groups.iter_mut().collect();
            let measured = others.remove(place);
            if block.scenario == Scenario::Alone {
                measured.alone(&*self.clock, block, step)?;
                continue;
            }
            let commits = self.uploads_ahead && block.scenario == Scenario::Turns;
            beside(others, &*self.clock, || {
                measured.rounds(&*self.clock, block, step)?;
                if commits { measured.commits(&*self.clock, block.rounds) } else { Ok(()) }
            })?;
        }
        Ok(())
    }

    pub(super) fn evidence(
        self,
        subjects: &[Subject],
        environment: Environment,
        before: DeviceState,
    ) -> Result<Evidence, Error> {
        let states = Some([before, self.context.state()]);
        let names = |group: &Group| -> Vec<String> {
            group.models.iter().map(|model| model.name.clone()).collect()
        };
        let all: Vec<Vec<String>> = self.groups.iter().map(names).collect();
        let mut models = BTreeMap::new();
        for (place, group) in self.groups.into_iter().enumerate() {
            let elsewhere = all.iter().enumerate().filter(|(other, _)| *other != place);
            let busy: Vec<String> = elsewhere.flat_map(|(_, names)| names.clone()).collect();
            let partition = group.spec.map(|PartitionSpec { name, sms, .. }| {
                PartitionFingerprint::new(name, sms, busy.clone()).granted(group.granted)
            });
            // Copies of nothing, where nobody has inputs, are as good as any.
            let size = group.copies.as_ref().map_or(Bytes::ZERO, CopyLoad::size);
            let beside = self.uploads_ahead.then_some(size);
            for measured in group.models {
                let others = all[place].iter().filter(|other| **other != measured.name);
                let (name, background) = (measured.name.clone(), others.cloned().collect());
                let subject = subjects.iter().find(|subject| subject.name == name);
                let subject = subject.expect("only subjects are measured");
                let evidence = measured.evidence(subject, background, partition.clone(), beside)?;
                models.insert(name, evidence);
            }
        }
        Ok(Evidence {
            aegis_evidence: evidence::VERSION,
            device: self.device,
            date: environment::date(),
            environment,
            states,
            warm_up: WARM_UP_ROUNDS,
            models,
        })
    }
}

/// Does `work` while the models of `groups` run.
fn beside(
    groups: Vec<&mut Group>,
    clock: &dyn Clock,
    work: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (warm, all_warm) = sync_channel(groups.len());
        let start = |group| {
            let (warm, done) = (warm.clone(), &done);
            let thread = thread::Builder::new().name("aegis-busy".into());
            thread.spawn_scoped(scope, move || {
                let kept = Group::keep_busy(group, clock, &warm, done);
                // The others would run on for a measurement that is lost.
                kept.inspect_err(|_| done.store(true, Ordering::Release))
            })
        };
        let started: Vec<_> = groups.into_iter().map(start).collect();
        drop(warm);
        let running = started.iter().filter(|thread| thread.is_ok()).count();
        // Whoever fails before it is warm ends its side of the channel, and the join tells.
        let is_warm = running == started.len() && all_warm.iter().take(running).count() == running;
        let worked = if is_warm { work() } else { Ok(()) };
        done.store(true, Ordering::Release);
        let mut kept = Ok(());
        for thread in started {
            let ended = thread.map_err(Error::Thread).and_then(|running| {
                running.join().expect("a thread that runs jobs does not panic")
            });
            kept = kept.and(ended);
        }
        worked.and(kept)
    })
}

impl Group {
    /// The rounds of one block.
    fn rounds(
        &mut self,
        clock: &dyn Clock,
        block: Block,
        step: &mut impl FnMut(),
    ) -> Result<(), Error> {
        let Block { scenario, rounds, settle } = block;
        let aggressor = match scenario {
            Scenario::Compute => Some(Aggressor::Compute),
            Scenario::Bandwidth => Some(Aggressor::Bandwidth),
            Scenario::Mixed => Some(Aggressor::Mixed),
            _ => None,
        };
        let _load = aggressor.map(Load::start).transpose().map_err(Error::Thread)?;
        for round in 0..settle + rounds {
            let keep = (round >= settle).then_some(scenario);
            self.round(clock, keep)?;
            keep.iter().for_each(|_| step());
        }
        Ok(())
    }

    /// The same, each model by itself.
    fn alone(
        &mut self,
        clock: &dyn Clock,
        block: Block,
        step: &mut impl FnMut(),
    ) -> Result<(), Error> {
        let Block { scenario, rounds, settle } = block;
        for model in 0..self.models.len() {
            (0..settle + rounds).try_for_each(|round| {
                self.job(model, clock, (round >= settle).then_some(scenario), Beside::Nothing)
            })?;
        }
        (0..rounds).for_each(|_| step());
        Ok(())
    }

    /// One job of every model in turn, with a pause after each; kept for a scenario, or not at all.
    fn round(&mut self, clock: &dyn Clock, keep: Option<Scenario>) -> Result<(), Error> {
        (0..self.models.len()).try_for_each(|model| self.job(model, clock, keep, Beside::Copies))
    }

    /// One job of one model, and a pause.
    fn job(
        &mut self,
        model: usize,
        clock: &dyn Clock,
        keep: Option<Scenario>,
        beside: Beside,
    ) -> Result<(), Error> {
        let busy = self.run(model, clock, keep, beside)?;
        pause_after(busy);
        Ok(())
    }

    /// One job of one model; how long it took.
    fn run(
        &mut self,
        model: usize,
        clock: &dyn Clock,
        keep: Option<Scenario>,
        beside: Beside,
    ) -> Result<Duration, Error> {
        let copies = self.copies.as_ref().map(|load| (load, beside));
        let model = &mut self.models[model];
        let name = model.name.clone();
        let failed = |cause| Error::Profile { model: name, cause: Box::new(cause) };
        let began = clock.now();
        model.run_once(&self.streams, clock, keep, copies).map_err(failed)?;
        Ok(Duration::from(clock.now().saturating_since(began)))
    }

    /// Runs all models over and over until told to end; `warm` is told after the first time.
    fn keep_busy(
        group: &mut Self,
        clock: &dyn Clock,
        warm: &SyncSender<()>,
        done: &AtomicBool,
    ) -> Result<(), Error> {
        let mut is_warm = false;
        while !done.load(Ordering::Acquire) {
            for model in 0..group.models.len() {
                let busy = group.run(model, clock, None, Beside::CopiesOnAndOn)?;
                if group.rests {
                    thread::sleep(busy / PAUSE_DIVISOR);
                }
            }
            if !std::mem::replace(&mut is_warm, true) && warm.send(()).is_err() {
                break;
            }
        }
        // Its models are measured next, perhaps.
        Ok(group.copies.as_ref().map_or(Ok(()), CopyLoad::drain)?)
    }
}

/// Rests as long as a measured job that took `busy` asks for.
fn pause_after(busy: Duration) {
    thread::sleep((busy / PAUSE_DIVISOR).max(PAUSE_MIN));
}

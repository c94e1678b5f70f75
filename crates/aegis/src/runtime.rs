//! The runtime: load, admit, start, submit, evict, stop.

mod bare;
mod insight;
#[cfg(test)]
mod launch_fault;
mod preparation;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_cuda::{DeviceCapabilities, DeviceContext, ThreadSetup};
use aegis_memory::PressureChange;
use aegis_sched::admission::{
    Admission, AdmissionController, AdmissionError, AdmissionRequest, DeviceMemory, Terms,
};
use aegis_sched::analysis::Analysis;
use aegis_sched::dispatch::Dispatcher;
use aegis_sched::dispatch::orchestrator::{Orchestrator, Pace};
use aegis_sched::submit::{Submitter, SubmitterParts};
use aegis_sched::task::Overheads;
use aegis_sched::wcet::StageMonitor;
use aegis_trace::{
    Bytes, Clock, PartitionId, PressureLevel, Record, Recorder, Refusal, RefusedModel,
    TraceCollector, TraceEvent,
};

use crate::bargain::Asked;
use crate::builder::RuntimeBuilder;
use crate::error::Error;
use crate::handle::ModelHandle;
use crate::partition::{Admissions, Partition};
use crate::report::{DriverMemoryReport, ModelReport, RealtimeReport};
use crate::source::{Ground, LoadedModel, ModelSource};
use crate::wording;

/// Unseen runs of each model before the start.
const WARM_UP_RUNS: usize = 3;

/// One device with its models, its schedules and its trace. Shared by reference between threads.
///
/// Locks are taken in one order: `phase`, `admission`, `models`, `recorder`.
///
/// Loading, admission, eviction and stopping may block and allocate; submitting does neither.
/// Dropping a running runtime stops it.
pub struct Runtime {
    device: DeviceContext,
    partitions: Vec<Partition>,
    collector: TraceCollector,
    recorder: Mutex<Recorder>,
    admission: Mutex<Admissions>,
    models: Mutex<Vec<Entry>>,
    phase: Mutex<Phase>,
    /// The driver's count of memory just before jobs began.
    counted_at_start: Mutex<Option<Bytes>>,
    /// Memory when the last job had ended and the models were still there.
    memory_at_stop: Mutex<Option<DriverMemoryReport>>,
}

/// What a runtime is made of; the lists have one element for each partition.
pub(crate) struct Parts {
    device: DeviceContext,
    memory: DeviceMemory,
    pub(crate) collector: TraceCollector,
    pub(crate) controllers: Vec<AdmissionController>,
    pub(crate) dispatchers: Vec<Dispatcher>,
    pub(crate) partitions: Vec<Partition>,
}

impl Parts {
    /// A device without partitions yet.
    pub(crate) fn new(
        device: DeviceContext,
        memory: DeviceMemory,
        collector: TraceCollector,
    ) -> Self {
        let (controllers, dispatchers, partitions) = (Vec::new(), Vec::new(), Vec::new());
        Self { device, memory, collector, controllers, dispatchers, partitions }
    }
}

/// ```text
///   Built --start--> Running --stop--> Stopped
///     +---------------stop----------------^
/// ```
/// Of all partitions together.
enum Phase {
    Built(Vec<Dispatcher>),
    Running(Vec<Orchestrator>),
    Stopped,
}

/// A model the runtime reports on, also after its eviction.
struct Entry {
    report: ModelReport,
    handle: ModelHandle,
    asked: Asked,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Runtime {
    /// A configuration to fill in.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { device, memory, collector, controllers, dispatchers, partitions } = parts;
        Self {
            recorder: Mutex::new(collector.recorder()),
            admission: Mutex::new(Admissions::new(memory, controllers)),
            models: Mutex::default(),
            phase: Mutex::new(Phase::Built(dispatchers)),
            counted_at_start: Mutex::default(),
            memory_at_stop: Mutex::default(),
            device,
            partitions,
            collector,
        }
    }

    /// What the device is and has.
    #[must_use]
    pub fn device(&self) -> &DeviceCapabilities {
        self.device.capabilities()
    }

    /// The trace clock of this runtime. In virtual time each partition has its own, and this is the
    /// first one's.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.partitions[0].clock
    }

    /// Loads a model for the whole device without admitting it. Blocks while its runtime prepares it.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::WrongDriver`] or [`Error::NotBuilt`]; [`Error::Partition`] where the
    /// device is split; [`Error::PreparedWhileRunning`] on a GPU once started. All Permanent.
    pub fn load(&self, name: &str, source: &ModelSource) -> Result<LoadedModel, Error> {
        self.load_on(name, source, None)
    }

    /// The same for the partition called `partition`.
    ///
    /// # Errors
    /// As [`Runtime::load`]; [`Error::Partition`] when there is none of that name.
    pub fn load_in(
        &self,
        partition: &str,
        name: &str,
        source: &ModelSource,
    ) -> Result<LoadedModel, Error> {
        self.load_on(name, source, Some(partition))
    }

    pub(crate) fn load_on(
        &self,
        name: &str,
        source: &ModelSource,
        partition: Option<&str>,
    ) -> Result<LoadedModel, Error> {
        let partition = self.find(name, partition)?;
        let Partition { device, preparation, .. } = self.partition(partition);
        let phase = lock(&self.phase);
        self.may_prepare(name, partition, &phase)?;
        let admission = lock(&self.admission);
        let (arena, memory_limit) =
            (&admission.memory.bound().arena().clone(), admission.memory.bound().capacity());
        // Held throughout on a GPU: the model is measured in memory that nobody else must be given, and
        // before any job begins.
        let _held = self.prepares_beside_jobs(partition).then_some((phase, admission));
        let preparation = preparation.as_ref();
        source.load(name, partition, Ground { device, arena, preparation, memory_limit })
    }

    /// The partition of this name, for a model.
    fn find(&self, model: &str, partition: Option<&str>) -> Result<PartitionId, Error> {
        let found = self.partitions.iter().position(|known| known.name() == partition);
        let index = found.and_then(|index| u16::try_from(index).ok());
        index.map(PartitionId::first).ok_or_else(|| Error::Partition {
            model: model.to_owned(),
            asked: partition.map(str::to_owned),
            known: self.partitions.iter().filter_map(Partition::name).map(str::to_owned).collect(),
        })
    }

    /// What the runtime keeps of a partition that one of its models or controllers names.
    fn partition(&self, partition: PartitionId) -> &Partition {
        &self.partitions[usize::from(partition.index)]
    }

    /// The device, or the partition of it, that the models of `partition` run on.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn device_of(&self, partition: PartitionId) -> &DeviceContext {
        &self.partition(partition).device
    }

    /// Admits a loaded model, or says which inequality fails, with its numbers. On *yes* every
    /// model's deadline is kept from now on under the assumptions of the analysis; on *no* nothing
    /// has changed and the model is dropped.
    ///
    /// Possible before the start and, but for a GPU, while running. Blocks for one analysis of the whole
    /// set, on a GPU for the preparation of the model and, while running, until the orchestrator has
    /// taken it.
    ///
    /// # Errors
    /// [`Error::Refused`] with the inequality; [`Error::Admission`] when the terms make no sense
    /// or the memory cannot be bound; [`Error::PreparedWhileRunning`] on a GPU once started;
    /// [`Error::NotRunning`] after the stop. All Permanent.
    pub fn admit(&self, model: LoadedModel, terms: &Terms) -> Result<ModelHandle, Error> {
        self.admit_watched(model, terms, Vec::new())
    }

    /// As [`Runtime::admit`]; the times of its stages are watched by `monitors`, one for each stage in
    /// order, and the trace says when the evidence they were made from has gone stale.
    ///
    /// # Errors
    /// As [`Runtime::admit`].
    ///
    /// # Panics
    /// When there are more or fewer monitors than stages, and not none.
    pub fn admit_watched(
        &self,
        model: LoadedModel,
        terms: &Terms,
        monitors: Vec<StageMonitor>,
    ) -> Result<ModelHandle, Error> {
        let mut phase = lock(&self.phase);
        if matches!(*phase, Phase::Stopped) {
            return Err(Error::NotRunning);
        }
        let (asked, terms) = (Asked::of(&model, terms), terms.clone());
        let LoadedModel { name, partition, backend } = model;
        self.may_prepare(&name, partition, &phase)?;
        let mut admission = lock(&self.admission);
        self.observe_memory(&mut admission.memory);
        let (controller, memory) = admission.parts(partition);
        let admitted = controller.admit(AdmissionRequest { name, terms, backend }, memory);
        self.observe_memory(memory);
        let mut admitted = admitted.map_err(|error| self.refused(&asked, error, controller))?;
        admitted.promise.watched = monitors.iter().map(StageMonitor::watch).collect();
        admitted.lane.watch(monitors);
        admitted.promise.partition = self.partition(partition).name().map(str::to_owned);
        let overheads = controller.config().overheads;
        Ok(self.install(admitted, asked, &overheads, &mut phase))
    }

    /// Looks at what is free, and says which level that is; `None` without thresholds. Memory moves by
    /// itself where others use the device too, so call it as often as the level matters: admission
    /// and eviction look by themselves. Does not wait for the device.
    pub fn observe_pressure(&self) -> Option<PressureLevel> {
        let memory = &mut lock(&self.admission).memory;
        self.observe_memory(memory);
        memory.pressure()
    }

    /// Of the models that the caller would give up, in its order, as few as would end the critical
    /// level if they were evicted; none at any other level. Looks at what is free first. Nothing is
    /// evicted: [`evict`](Self::evict) those that are named, and look again.
    #[must_use]
    pub fn victims(&self, expendable: &[ModelHandle]) -> Vec<ModelHandle> {
        let ids: Vec<_> = expendable.iter().map(ModelHandle::id).collect();
        let memory = &mut lock(&self.admission).memory;
        self.observe_memory(memory);
        let victims = memory.victims(&ids);
        expendable.iter().filter(|model| victims.contains(&model.id())).cloned().collect()
    }

    /// Sets what a simulated device has free, as if other programs used the rest; whether the device
    /// is a simulated one.
    pub fn simulate_free_memory(&self, free: Bytes) -> bool {
        let simulator = self.device.simulator();
        simulator.map(|simulator| simulator.set_free_memory(free)).is_some()
    }

    /// Tells the policy of memory pressure what is free now, and records a change of its level: what
    /// no admitted model occupies, or less, where the device has less for anybody.
    fn observe_memory(&self, memory: &mut DeviceMemory) {
        if memory.pressure().is_none() {
            return; // Asking the device would be for nothing.
        }
        let ours = memory.free();
        let free = self.device.free_memory().map_or(ours, |free| free.min(ours));
        if let Some(PressureChange { from, to, free }) = memory.observe(free) {
            self.record(TraceEvent::PressureChanged { from, to, free });
        }
    }

    /// The error of a refused model; its refusal is recorded.
    fn refused(&self, asked: &Asked, error: AdmissionError, known: &AdmissionController) -> Error {
        let name = asked.name();
        let Some(refusal) = error.refusal().cloned() else {
            return Error::Admission { model: name.to_owned(), cause: Box::new(error) };
        };
        // A model that was never admitted is known by its slot's next id alone.
        let named = |model| known.find_name(model).unwrap_or(name).to_owned();
        let newcomer = asked.first_due().zip(known.next_id()).map(|(due, id)| (id, due));
        let first_due: Vec<_> = wording::first_due(known.tasks()).chain(newcomer).collect();
        let partition = self.partition(asked.partition());
        let terms = asked.terms().asked(partition.name());
        let what = RefusedModel { name: name.to_owned(), why: refusal.clone(), asked: Some(terms) };
        self.record_in(partition, TraceEvent::Refused { what: Box::new(what) });
        let ahead = asked.of_look_ahead(&refusal, known).unwrap_or_default();
        let explained = wording::explain(&refusal, named, &first_due) + &ahead;
        Error::Refused { model: name.to_owned(), explained, refusal }
    }

    /// The error of a model that was refused before admission was asked; recorded like any other.
    pub(crate) fn refuse(&self, name: &str, refusal: Refusal, explained: String) -> Error {
        let what = RefusedModel { name: name.to_owned(), why: refusal.clone(), asked: None };
        self.record(TraceEvent::Refused { what: Box::new(what) });
        Error::Refused { model: name.to_owned(), explained, refusal }
    }

    fn install(
        &self,
        admitted: Admission,
        asked: Asked,
        overheads: &Overheads,
        phase: &mut Phase,
    ) -> ModelHandle {
        let Admission { model, lane, description, slots, metrics, gate, promise, analysis, .. } =
            admitted;
        let (foreign, remarks) = (admitted.foreign, admitted.remarks);
        let partition = self.partition(asked.partition());
        let now = partition.clock.now();
        let what = Box::new(promise.clone());
        lock(&self.recorder).record(now, TraceEvent::Admitted { model, what });
        let submitter = Submitter::new(SubmitterParts {
            model,
            description,
            slots,
            gate,
            queue: Arc::clone(&partition.submissions),
            clock: Arc::clone(&partition.clock),
            recorder: self.collector.recorder(),
        });
        let handle = ModelHandle::new(promise.name.clone(), submitter, metrics);
        let promised = ModelReport::promised(model, promise, overheads);
        let report = ModelReport { foreign, remarks, ..promised };
        let place = usize::from(asked.partition().index);
        lock(&self.models).push(Entry { report, handle: handle.clone(), asked });
        let bounds = analysis.responses();
        match phase {
            Phase::Built(dispatchers) => {
                dispatchers[place].install(lane);
                dispatchers[place].set_bounds(now, &bounds);
            }
            Phase::Running(orchestrators) => orchestrators[place].install(lane, bounds),
            Phase::Stopped => unreachable!("admission after the stop was refused above"),
        }
        self.update_bounds(&analysis);
        handle
    }

    /// Keeps the reports in step with the analysis of the set.
    fn update_bounds(&self, analysis: &Analysis) {
        let mut models = lock(&self.models);
        for bound in &analysis.bounds {
            let entry = models.iter_mut().find(|entry| entry.report.model == bound.model);
            if let Some(entry) = entry {
                entry.report.update(bound);
            }
        }
    }

    /// Evicts a model: new jobs are refused, accepted ones finish, then its memory and its share
    /// of the device are free. Blocks until then.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] when it is gone already, [`Error::NotRunning`] after the stop, and
    /// [`Error::Hanging`], Fatal, when a stage hangs on the device and nothing can end any more.
    pub fn evict(&self, model: &ModelHandle) -> Result<(), Error> {
        let id = model.id();
        let mut phase = lock(&self.phase);
        let partition = lock(&self.admission).partition_of(id);
        let (place, now) = (usize::from(partition.index), self.partition(partition).clock.now());
        let context = match &mut *phase {
            Phase::Built(dispatchers) => {
                dispatchers[place].evict(now, id);
                dispatchers[place].let_go(now);
                dispatchers[place].take_departed()
            }
            Phase::Running(orchestrators) => orchestrators[place].evict(id),
            Phase::Stopped => return Err(Error::NotRunning),
        };
        let mut admission = lock(&self.admission);
        let Some(context) = context else {
            let known = admission.of(partition).find_name(id).is_some();
            return Err(if known { Error::Hanging } else { Error::UnknownModel });
        };
        context.evict();
        let (controller, memory) = admission.parts(partition);
        let left = controller.release(id, memory).map_err(|cause| Error::Admission {
            model: model.name().to_owned(),
            cause: Box::new(cause),
        })?;
        self.record_in(self.partition(partition), TraceEvent::Freed { model: id });
        self.observe_memory(memory);
        let mut models = lock(&self.models);
        if let Some(entry) = models.iter_mut().find(|entry| entry.report.model == id) {
            entry.report.evicted = true;
        }
        drop(models);
        if let Some(analysis) = left {
            match &mut *phase {
                Phase::Built(dispatchers) => {
                    dispatchers[place].set_bounds(now, &analysis.responses());
                }
                Phase::Running(orchestrators) => {
                    orchestrators[place].set_bounds(analysis.responses());
                }
                Phase::Stopped => {}
            }
            self.update_bounds(&analysis);
        }
        Ok(())
    }

    /// Runs every admitted model a few times before the start, unseen, with zeros as its inputs: the
    /// first runs in a new place are slow, and no cost accounts for them. Does nothing in virtual
    /// time. Blocks for all of it.
    ///
    /// # Errors
    /// [`Error::WarmUp`] with the model whose run failed; [`Error::AlreadyStarted`] once started.
    pub fn warm_up(&self) -> Result<(), Error> {
        let mut phase = lock(&self.phase);
        let Phase::Built(dispatchers) = &mut *phase else { return Err(Error::AlreadyStarted) };
        for (dispatcher, partition) in dispatchers.iter_mut().zip(&self.partitions) {
            if matches!(partition.pace, Pace::Virtual) {
                continue;
            }
            dispatcher.warm_up(WARM_UP_RUNS).map_err(|(model, cause)| Error::WarmUp {
                model: lock(&self.admission).name_of(model),
                cause: Box::new(cause),
            })?;
        }
        Ok(())
    }

    /// Starts the orchestration thread of every partition. Jobs may be submitted before; they wait.
    ///
    /// # Errors
    /// [`Error::AlreadyStarted`] on a second start, [`Error::NotRunning`] after the stop,
    /// [`Error::Thread`] when the system gives no thread, and the runtime is stopped then.
    pub fn start(&self) -> Result<(), Error> {
        let mut phase = lock(&self.phase);
        match std::mem::replace(&mut *phase, Phase::Stopped) {
            Phase::Built(dispatchers) => {
                let counted = self.device.driver_memory().and_then(|memory| memory.process);
                *lock(&self.counted_at_start) = counted;
                *phase = Phase::Running(self.start_all(dispatchers)?);
                Ok(())
            }
            running @ Phase::Running(_) => {
                *phase = running;
                Err(Error::AlreadyStarted)
            }
            Phase::Stopped => Err(Error::NotRunning),
        }
    }

    /// Starts all partitions or none.
    fn start_all(&self, dispatchers: Vec<Dispatcher>) -> Result<Vec<Orchestrator>, Error> {
        let mut started = Vec::with_capacity(dispatchers.len());
        for (dispatcher, partition) in dispatchers.into_iter().zip(&self.partitions) {
            let submissions = Arc::clone(&partition.submissions);
            let (device, pace) = (partition.device.clone(), partition.pace.clone());
            match Orchestrator::start(dispatcher, submissions, device, pace) {
                Ok(orchestrator) => started.push(orchestrator),
                Err(cause) => {
                    started.into_iter().for_each(|running| drop(running.stop()));
                    // The dispatchers went with their threads; nobody will take these jobs.
                    self.close_submissions();
                    return Err(Error::Thread(cause));
                }
            }
        }
        Ok(started)
    }

    fn close_submissions(&self) {
        self.partitions.iter().for_each(|partition| partition.submissions.close());
    }

    /// Stops: jobs that have begun finish, the others are dropped and say so. Blocks until then;
    /// does nothing when it is stopped already.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] when the device was lost while running, [`Error::Hanging`] when a stage
    /// is still on it and does not end; both Fatal.
    pub fn stop(&self) -> Result<(), Error> {
        let before = std::mem::replace(&mut *lock(&self.phase), Phase::Stopped);
        let dispatchers: Vec<Dispatcher> = match before {
            Phase::Built(dispatchers) => {
                self.close_submissions();
                dispatchers
            }
            Phase::Running(orchestrators) => {
                // All are told before any is waited for: they stop at once.
                orchestrators.iter().for_each(Orchestrator::ask_to_stop);
                orchestrators.into_iter().map(Orchestrator::stop).collect()
            }
            Phase::Stopped => return Ok(()),
        };
        // Now: no job runs that the question could delay, and the models still hold what they took.
        let memory = self.driver_memory();
        *lock(&self.memory_at_stop) = memory;
        let ends: Vec<_> = dispatchers.into_iter().map(end).collect();
        ends.into_iter().collect()
    }

    /// How the operating system schedules the orchestrator and the stream workers of each partition.
    /// The former is known while the runtime runs.
    #[must_use]
    pub fn realtime(&self) -> Vec<RealtimeReport> {
        let phase = lock(&self.phase);
        let orchestrator = |place: usize| match &*phase {
            Phase::Running(orchestrators) => orchestrators[place].setup().clone(),
            Phase::Built(_) | Phase::Stopped => ThreadSetup::NONE,
        };
        let of = |(place, partition): (usize, &Partition)| RealtimeReport {
            orchestrator: orchestrator(place),
            workers: partition.workers.clone(),
            partition: partition.name().map(str::to_owned),
        };
        self.partitions.iter().enumerate().map(of).collect()
    }

    /// Takes the trace recorded since the last call, in order of time.
    #[must_use]
    pub fn take_trace(&self) -> Vec<Record> {
        self.collector.drain()
    }

    /// The collector itself, for a thread that writes the trace while running.
    #[must_use]
    pub fn collector(&self) -> &TraceCollector {
        &self.collector
    }

    fn record(&self, event: TraceEvent) {
        lock(&self.recorder).record(self.clock().now(), event);
    }

    /// Records what concerns one partition, by its clock.
    fn record_in(&self, partition: &Partition, event: TraceEvent) {
        lock(&self.recorder).record(partition.clock.now(), event);
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Whoever wants to know about a lost device calls `stop`.
        drop(self.stop());
    }
}

/// How a dispatcher ended.
fn end(dispatcher: Dispatcher) -> Result<(), Error> {
    if dispatcher.hanging().is_some() {
        // Its stream's worker never returns, and dropping the stream would wait for it.
        std::mem::forget(dispatcher);
        return Err(Error::Hanging);
    }
    match dispatcher.fatal() {
        Some(reason) => Err(Error::DeviceLost { reason: reason.to_string() }),
        None => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

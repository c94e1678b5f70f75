//! The runtime: load, admit, start, submit, evict, stop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_cuda::{DeviceCapabilities, DeviceContext, Realtime};
use aegis_memory::PressureChange;
use aegis_sched::admission::{
    Admission, AdmissionController, AdmissionError, AdmissionRequest, Terms,
};
use aegis_sched::analysis::chain::{self, Chain};
use aegis_sched::analysis::{Analysis, Response};
use aegis_sched::dispatch::Dispatcher;
use aegis_sched::dispatch::orchestrator::{Orchestrator, Pace};
use aegis_sched::queue::SubmissionQueue;
use aegis_sched::submit::{Submitter, SubmitterParts};
use aegis_sched::wcet::StageMonitor;
use aegis_trace::{
    Bytes, Clock, ModelId, Nanos, PressureLevel, Record, Recorder, Refusal, RefusedModel,
    TraceCollector, TraceEvent,
};

use crate::bargain::{Asked, Bargain};
use crate::builder::RuntimeBuilder;
use crate::error::Error;
use crate::handle::ModelHandle;
use crate::margin::{self, CounterOffer, Margins, ModelSensitivity};
use crate::report::{MemoryReport, ModelReport, RealtimeReport, Report};
use crate::source::{LoadedModel, ModelSource};
use crate::wording;

/// Unseen runs of each model before the start.
const WARM_UP_RUNS: usize = 3;

/// One device with its models, its schedule and its trace. Shared by reference between threads.
///
/// Locks are taken in one order: `phase`, `admission`, `models`, `recorder`.
///
/// Loading, admission, eviction and stopping may block and allocate; submitting does neither.
/// Dropping a running runtime stops it.
pub struct Runtime {
    device: DeviceContext,
    pace: Pace,
    /// How the stream workers are scheduled.
    workers: Realtime,
    clock: Arc<dyn Clock>,
    collector: TraceCollector,
    recorder: Mutex<Recorder>,
    submissions: Arc<SubmissionQueue>,
    admission: Mutex<AdmissionController>,
    models: Mutex<Vec<Entry>>,
    phase: Mutex<Phase>,
}

/// What a runtime is made of.
pub(crate) struct Parts {
    pub(crate) device: DeviceContext,
    pub(crate) pace: Pace,
    pub(crate) workers: Realtime,
    pub(crate) collector: TraceCollector,
    pub(crate) admission: AdmissionController,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) submissions: Arc<SubmissionQueue>,
}

/// ```text
///   Built --start--> Running --stop--> Stopped
///     +---------------stop----------------^
/// ```
enum Phase {
    Built(Box<Dispatcher>),
    Running(Orchestrator),
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
        let Parts { device, pace, workers, collector, admission, dispatcher, submissions } = parts;
        Self {
            clock: device.clock(),
            recorder: Mutex::new(collector.recorder()),
            admission: Mutex::new(admission),
            models: Mutex::default(),
            phase: Mutex::new(Phase::Built(Box::new(dispatcher))),
            device,
            pace,
            workers,
            collector,
            submissions,
        }
    }

    /// What the device is and has.
    #[must_use]
    pub fn device(&self) -> &DeviceCapabilities {
        self.device.capabilities()
    }

    /// The trace clock of this runtime.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Loads a model without admitting it. Blocks while its runtime prepares it.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::WrongDriver`] or [`Error::NotBuilt`]; all Permanent.
    pub fn load(&self, name: &str, source: &ModelSource) -> Result<LoadedModel, Error> {
        let limit = lock(&self.admission).memory().capacity();
        source.load(name, self.device.kind(), limit)
    }

    /// Admits a loaded model, or says which inequality fails, with its numbers. On *yes* every
    /// model's deadline is kept from now on under the assumptions of the analysis; on *no* nothing
    /// has changed and the model is dropped.
    ///
    /// Possible before the start and while running. Blocks for one analysis of the whole set and,
    /// while running, until the orchestrator has taken the model.
    ///
    /// # Errors
    /// [`Error::Refused`] with the inequality; [`Error::Admission`] when the terms make no sense
    /// or the memory cannot be bound; [`Error::NotRunning`] after the stop. All Permanent.
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
        let LoadedModel { name, backend } = model;
        let mut admission = lock(&self.admission);
        self.observe_memory(&mut admission);
        let admitted = admission.admit(AdmissionRequest { name, terms, backend });
        self.observe_memory(&mut admission);
        let mut admitted = admitted.map_err(|error| self.refused(&asked, error, &admission))?;
        admitted.lane.watch(monitors);
        Ok(self.install(admitted, asked, &mut phase))
    }

    /// Looks at what is free, and says which level that is; `None` without thresholds. Memory moves by
    /// itself where others use the device too, so call it as often as the level matters: admission
    /// and eviction look by themselves. Does not wait for the device.
    pub fn observe_pressure(&self) -> Option<PressureLevel> {
        let mut admission = lock(&self.admission);
        self.observe_memory(&mut admission);
        admission.pressure()
    }

    /// Of the models that the caller would give up, in its order, as few as would end the critical
    /// level if they were evicted; none at any other level. Looks at what is free first. Nothing is
    /// evicted: [`evict`](Self::evict) those that are named, and look again.
    #[must_use]
    pub fn victims(&self, expendable: &[ModelHandle]) -> Vec<ModelHandle> {
        let ids: Vec<_> = expendable.iter().map(ModelHandle::id).collect();
        let mut admission = lock(&self.admission);
        self.observe_memory(&mut admission);
        let victims = admission.victims(&ids);
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
    fn observe_memory(&self, admission: &mut AdmissionController) {
        if admission.pressure().is_none() {
            return; // Asking the device would be for nothing.
        }
        let ours = admission.free_memory();
        let free = self.device.free_memory().map_or(ours, |free| free.min(ours));
        if let Some(PressureChange { from, to, free }) = admission.observe_memory(free) {
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
        let newcomer = asked.first_due().map(|due| (self.next_id(), due));
        let first_due: Vec<_> = wording::first_due(known.tasks()).chain(newcomer).collect();
        self.refuse(name, refusal.clone(), wording::explain(&refusal, named, &first_due))
    }

    /// The error of a model that was refused before admission was asked; recorded like any other.
    pub(crate) fn refuse(&self, name: &str, refusal: Refusal, explained: String) -> Error {
        let what = RefusedModel { name: name.to_owned(), why: refusal.clone() };
        self.record(TraceEvent::Refused { what: Box::new(what) });
        Error::Refused { model: name.to_owned(), explained, refusal }
    }

    fn install(&self, admitted: Admission, asked: Asked, phase: &mut Phase) -> ModelHandle {
        let Admission { model, lane, description, slots, metrics, gate, promise, analysis } =
            admitted;
        self.record(TraceEvent::Admitted { model, what: Box::new(promise.clone()) });
        let submitter = Submitter::new(SubmitterParts {
            model,
            description,
            slots,
            gate,
            queue: Arc::clone(&self.submissions),
            clock: Arc::clone(&self.clock),
            recorder: self.collector.recorder(),
        });
        let handle = ModelHandle::new(promise.name.clone(), submitter, metrics);
        let report = ModelReport::promised(model, promise);
        lock(&self.models).push(Entry { report, handle: handle.clone(), asked });
        let bounds = analysis.responses();
        match phase {
            Phase::Built(dispatcher) => {
                dispatcher.install(lane);
                dispatcher.set_bounds(self.clock.now(), &bounds);
            }
            Phase::Running(orchestrator) => orchestrator.install(lane, bounds),
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
        let context = match &mut *phase {
            Phase::Built(dispatcher) => {
                dispatcher.evict(self.clock.now(), id);
                dispatcher.let_go(self.clock.now());
                dispatcher.take_departed()
            }
            Phase::Running(orchestrator) => orchestrator.evict(id),
            Phase::Stopped => return Err(Error::NotRunning),
        };
        let mut admission = lock(&self.admission);
        let Some(context) = context else {
            let known = admission.find_name(id).is_some();
            return Err(if known { Error::Hanging } else { Error::UnknownModel });
        };
        context.evict();
        let left = admission.release(id).map_err(|cause| Error::Admission {
            model: model.name().to_owned(),
            cause: Box::new(cause),
        })?;
        self.observe_memory(&mut admission);
        let mut models = lock(&self.models);
        if let Some(entry) = models.iter_mut().find(|entry| entry.report.model == id) {
            entry.report.evicted = true;
        }
        drop(models);
        if let Some(analysis) = left {
            match &mut *phase {
                Phase::Built(dispatcher) => {
                    dispatcher.set_bounds(self.clock.now(), &analysis.responses());
                }
                Phase::Running(orchestrator) => orchestrator.set_bounds(analysis.responses()),
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
        let Phase::Built(dispatcher) = &mut *phase else { return Err(Error::AlreadyStarted) };
        if matches!(self.pace, Pace::Virtual) {
            return Ok(());
        }
        dispatcher.warm_up(WARM_UP_RUNS).map_err(|(model, cause)| Error::WarmUp {
            model: lock(&self.admission).name_of(model),
            cause: Box::new(cause),
        })
    }

    /// Starts the orchestration thread. Jobs may be submitted before; they wait.
    ///
    /// # Errors
    /// [`Error::AlreadyStarted`] on a second start, [`Error::NotRunning`] after the stop,
    /// [`Error::Thread`] when the system gives no thread, and the runtime is stopped then.
    pub fn start(&self) -> Result<(), Error> {
        let mut phase = lock(&self.phase);
        match std::mem::replace(&mut *phase, Phase::Stopped) {
            Phase::Built(dispatcher) => {
                let started = Orchestrator::start(
                    *dispatcher,
                    Arc::clone(&self.submissions),
                    self.device.clone(),
                    self.pace.clone(),
                );
                match started {
                    Ok(orchestrator) => *phase = Phase::Running(orchestrator),
                    Err(cause) => {
                        // The dispatcher went with the thread; nobody will take these jobs.
                        self.submissions.close();
                        return Err(Error::Thread(cause));
                    }
                }
                Ok(())
            }
            running @ Phase::Running(_) => {
                *phase = running;
                Err(Error::AlreadyStarted)
            }
            Phase::Stopped => Err(Error::NotRunning),
        }
    }

    /// Stops: jobs that have begun finish, the others are dropped and say so. Blocks until then;
    /// does nothing when it is stopped already.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] when the device was lost while running, [`Error::Hanging`] when a stage
    /// is still on it and does not end; both Fatal.
    pub fn stop(&self) -> Result<(), Error> {
        let before = std::mem::replace(&mut *lock(&self.phase), Phase::Stopped);
        let dispatcher = match before {
            Phase::Built(dispatcher) => {
                self.submissions.close();
                *dispatcher
            }
            Phase::Running(orchestrator) => orchestrator.stop(),
            Phase::Stopped => return Ok(()),
        };
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

    /// How the operating system schedules the orchestrator and the stream workers. The former is
    /// known while the runtime runs.
    #[must_use]
    pub fn realtime(&self) -> RealtimeReport {
        let orchestrator = match &*lock(&self.phase) {
            Phase::Running(orchestrator) => orchestrator.realtime().clone(),
            Phase::Built(_) | Phase::Stopped => Realtime::NotRequested,
        };
        RealtimeReport { orchestrator, workers: self.workers.clone() }
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

    /// What was promised to every model and what it has done so far, in the order of admission.
    #[must_use]
    pub fn report(&self) -> Report {
        // In the order in which admission takes them: `admission` before `models`.
        let admission = lock(&self.admission);
        let models = lock(&self.models);
        let snapshot = |entry: &Entry| ModelReport {
            observed: entry.handle.metrics(),
            ..entry.report.clone()
        };
        Report {
            policy: admission.config().policy,
            test: admission.analysis().map(|analysis| analysis.test),
            overheads: admission.config().overheads,
            memory: MemoryReport::of(admission.memory()),
            utilisation_ppm: admission.tasks().utilisation_ppm(),
            background: admission.tasks().background().longest,
            models: models.iter().map(snapshot).collect(),
            events_dropped: self.collector.dropped(),
        }
    }

    /// How far the admitted models are from the edge, all together; `None` while there are none.
    ///
    /// Costs some hundred analyses of the whole set; does not touch the device.
    #[must_use]
    pub fn margins(&self) -> Option<Margins> {
        Margins::of(&lock(&self.admission))
    }

    /// The same where the members of `chains` trigger one another; see [`Margins::of_chained`].
    pub(crate) fn margins_chained(
        &self,
        chains: &[Chain],
        declared: impl Fn(ModelId) -> Option<Nanos>,
    ) -> Option<Margins> {
        Margins::of_chained(&lock(&self.admission), chains, declared)
    }

    /// How far each admitted model is from the edge, everything else as it is.
    ///
    /// Costs some hundred analyses of the whole set for each model.
    #[must_use]
    pub fn sensitivities(&self) -> Vec<ModelSensitivity> {
        margin::sensitivities(&lock(&self.admission))
    }

    /// The bound of an admitted task.
    pub(crate) fn bound(&self, model: ModelId) -> Option<Nanos> {
        let admission = lock(&self.admission);
        let bounds = &admission.analysis()?.bounds;
        bounds.iter().find(|bound| bound.model == model).map(|bound| bound.response)
    }

    /// What admitted `models` do that sample one another in this order, reading when their jobs are
    /// submitted: how late they react to an event. `None` if one of them has no bound.
    pub(crate) fn reaction(&self, models: Vec<ModelId>) -> Option<Nanos> {
        let admission = lock(&self.admission);
        let bounds = &admission.analysis()?.bounds;
        let responses: Vec<Response> =
            bounds.iter().map(|bound| Response::Bounded(bound.response)).collect();
        let (chain, policy) = (Chain::new(models).ok()?, admission.config().policy);
        let bounds = chain::sampled(admission.tasks(), &chain, policy, &responses).ok()??;
        Some(bounds.reaction_read_early)
    }

    /// What would be admitted in the place of a model that `asked` for something and was refused for
    /// this reason. Every offer was tried, in time and in memory. Empty where a budget of the model
    /// itself is too small.
    ///
    /// Costs up to some hundred analyses of the whole set, and a plan of all memory for each offer.
    #[must_use]
    pub fn counter_offers(&self, asked: &Asked, why: &Refusal) -> Vec<CounterOffer> {
        let newcomer = self.next_id();
        let (admission, models) = (lock(&self.admission), lock(&self.models));
        let present = models.iter().filter(|entry| !entry.report.evicted);
        let admitted: Vec<_> = present.map(|entry| (entry.report.model, &entry.asked)).collect();
        Bargain { admission: &admission, admitted: &admitted, newcomer, asked }.offers(why)
    }

    /// The id that the next admission gives, by which a refusal and its offers know a model that was
    /// never admitted.
    pub(crate) fn next_id(&self) -> ModelId {
        let models = lock(&self.models);
        let next = |index: u16| {
            let mut tenants = models.iter().filter(|entry| entry.report.model.index == index);
            match tenants.next_back() {
                None => Some(ModelId::first(index)),
                Some(last) if last.report.evicted => last.report.model.next_generation(),
                Some(_) => None,
            }
        };
        (0..=u16::MAX).find_map(next).expect("fewer models are admitted than there are ids")
    }

    /// The names of the admitted models.
    pub(crate) fn names(&self) -> BTreeMap<ModelId, String> {
        let models = lock(&self.models);
        let present = models.iter().filter(|entry| !entry.report.evicted);
        present.map(|entry| (entry.report.model, entry.report.name.clone())).collect()
    }

    fn record(&self, event: TraceEvent) {
        lock(&self.recorder).record(self.clock.now(), event);
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Whoever wants to know about a lost device calls `stop`.
        drop(self.stop());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A seeded world that runs the shipped admission, policies and dispatcher in virtual time.
//!
//! ```text
//!   sources --submit--> SubmissionQueue --> Dispatcher <--> simulated device
//!      ^                                        |
//!      +------- what was launched, when --------+   (the adversary watches)
//! ```
//! [`World::run_for`] moves time from one decision point to the next. The world decides what the
//! real one decides: when jobs arrive, how long stages take up to their cost, how late the end of a
//! stage is noticed up to the dispatch overhead, and how late a job that finds the device idle is
//! seen up to the wake-up latency. Nothing else is simulated.
//!
//! # Invariants
//! 1. Two worlds of the same configuration, seed and calls give equal traces, byte for byte.
//! 2. Unless a model's [`Behaviour`] says otherwise, the world keeps every assumption of the proof.

mod model;
mod random;

pub use model::{Arrivals, Behaviour, Costs, Model, ModelService};
pub use random::{Random, Seed};

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use aegis_context::{ExecutionContext, StreamPool};
use aegis_cuda::{DeviceContext, SimConfig, SimDevice};
use aegis_memory::MemoryOrchestrator;
use aegis_trace::{
    Bytes, Clock, ExecutorConfig, ModelId, Nanos, PartitionId, RefusedModel, Timestamp, Trace,
    TraceCollector, TraceEvent,
};

use crate::admission::{AdmissionConfig, AdmissionController, AdmissionError, DeviceMemory};
use crate::analysis::Analysis;
use crate::dispatch::{Dispatcher, OverrunPolicy, Turn};
use crate::metrics::{ModelMetrics, Snapshot};
use crate::policy::PolicyKind;
use crate::queue::SubmissionQueue;
use crate::submit::{Submitter, SubmitterParts};
use crate::task::Overheads;

use model::Source;

/// What a world is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorldConfig {
    /// What is random follows from this.
    pub seed: Seed,
    /// The policy.
    pub policy: PolicyKind,
    /// The overheads the analysis charges.
    pub charged: Overheads,
    /// The overheads that really occur; above `charged` they break the proof's assumption. Whether the
    /// dispatcher looks ahead, and whether inputs go ahead, is said here; that it is charged, above.
    ///
    /// With inputs ahead, costs are those beside copies: a stage takes up to its cost without its own
    /// upload, whatever is copied beside it, as one does that the copies slow down throughout.
    pub real: Overheads,
    /// What happens to jobs after an overrun.
    pub overrun: OverrunPolicy,
    /// Device memory.
    pub memory: Bytes,
    /// The longest that taking submissions lasts: what arrives so much after a decision's time was read
    /// may still be seen by that decision.
    pub intake: Nanos,
}

impl WorldConfig {
    /// EDF without overheads, on a device with ample memory.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        Self {
            seed,
            policy: PolicyKind::Edf,
            charged: Overheads::default(),
            real: Overheads::default(),
            overrun: OverrunPolicy::Record,
            memory: Bytes::from_gib(1),
            intake: Nanos::ZERO,
        }
    }
}

/// Models a world holds at once.
const MAX_MODELS: u16 = 64;
/// Places in the submission queue.
const QUEUE_DEPTH: usize = 1024;
/// Work items a stream holds: two events, a stage, and two copies with their marks, twice; a wait for an
/// upload ahead takes the place of one within.
const STREAM_DEPTH: usize = 16;
/// Events between two drains of the trace.
const TRACE_CAPACITY: usize = 1 << 12;
/// A stage counts as hanging after this many times its charge.
const HANG_FACTOR: u64 = 100;

/// A simulated device with everything that runs on it.
pub struct World {
    config: WorldConfig,
    device: DeviceContext,
    clock: Arc<dyn Clock>,
    admission: AdmissionController,
    memory: DeviceMemory,
    dispatcher: Dispatcher,
    submissions: Arc<SubmissionQueue>,
    collector: TraceCollector,
    trace: Trace,
    random: Random,
    sources: Vec<Source>,
    /// The next arrival of each source that has one.
    arrivals: BinaryHeap<Reverse<(Timestamp, usize)>>,
    departed: Vec<ExecutionContext>,
    turn: Turn,
    /// A decision that was due beyond the end of the last run.
    due: Option<Timestamp>,
}

impl World {
    /// An empty world at time zero.
    ///
    /// # Panics
    /// Never for lack of a device: the simulated one has what is asked of it here.
    #[must_use]
    pub fn new(config: WorldConfig) -> Self {
        let sim =
            SimConfig { memory_limit: config.memory, max_streams: 2, stream_depth: STREAM_DEPTH };
        let device = DeviceContext::sim(sim).expect("a simulated device");
        let arena = device.reserve_arena(config.memory).expect("all of its memory");
        let streams = if config.real.uploads_ahead {
            StreamPool::uploading_ahead(&device, 1).expect("its two streams")
        } else {
            StreamPool::new(&device, 1).expect("its one stream")
        };
        let executor = executor(&config);
        let admission = AdmissionConfig::of(&executor, PartitionId::WHOLE);
        let collector = TraceCollector::new(TRACE_CAPACITY);
        let Overheads { look_ahead, uploads_ahead, .. } = config.real;
        let overheads = Overheads { look_ahead, uploads_ahead, ..config.charged };
        let dispatcher = ExecutorConfig { overheads, ..executor };
        let signal = Arc::clone(device.signal());
        Self {
            config,
            clock: device.clock(),
            admission: AdmissionController::new(admission),
            memory: DeviceMemory::new(MemoryOrchestrator::new(arena)),
            dispatcher: Dispatcher::configured(
                dispatcher,
                Timestamp::ZERO,
                streams,
                collector.recorder(),
            ),
            submissions: Arc::new(SubmissionQueue::new(QUEUE_DEPTH, signal)),
            collector,
            trace: Trace::default(),
            random: Random::new(config.seed),
            sources: Vec::new(),
            arrivals: BinaryHeap::new(),
            departed: Vec::new(),
            turn: Turn { next: None, busy: false },
            due: None,
            device,
        }
    }

    /// Asks for `model` and, when it is admitted, starts its arrivals now.
    ///
    /// # Errors
    /// What the shipped admission says; nothing has changed then.
    pub fn admit(&mut self, model: Model) -> Result<ModelId, AdmissionError> {
        let now = self.now();
        let random = self.random.fork();
        let request = model.request(&self.device, &self.config.real, random);
        let asked = request.terms.asked(None);
        let admission = match self.admission.admit(request, &mut self.memory) {
            Ok(admission) => admission,
            Err(error) => {
                if let Some(why) = error.refusal() {
                    let (name, why, asked) = (model.name.clone(), why.clone(), Some(asked));
                    let what = RefusedModel { name, why, asked };
                    self.dispatcher.record(now, TraceEvent::Refused { what: Box::new(what) });
                }
                return Err(error);
            }
        };
        let id = admission.model;
        let what = Box::new(admission.promise);
        self.dispatcher.record(now, TraceEvent::Admitted { model: id, what });
        self.dispatcher.install(admission.lane);
        self.apply(&admission.analysis);
        let submitter = Submitter::new(SubmitterParts {
            model: id,
            description: admission.description,
            slots: admission.slots,
            gate: admission.gate,
            queue: Arc::clone(&self.submissions),
            clock: Arc::clone(&self.clock),
            recorder: self.collector.recorder(),
        });
        let source = Source::new(model, submitter, admission.metrics, self.random.fork(), now);
        self.arrivals.push(Reverse((source.next_arrival(), self.sources.len())));
        self.sources.push(source);
        Ok(id)
    }

    /// Begins to evict `model`: its arrivals end; it is gone once its jobs have ended and the
    /// device was idle.
    pub fn evict(&mut self, model: ModelId) {
        let now = self.now();
        for source in self.sources.iter_mut().filter(|source| source.model() == model) {
            source.end();
        }
        self.dispatcher.evict(now, model);
        self.step(now);
    }

    /// Ends every job that was accepted, as a runtime does that stops while a stage hangs or after the
    /// device is lost. Nothing is to follow.
    pub fn abandon(&mut self) {
        let now = self.now();
        self.dispatcher.drop_all(now);
        self.drain_trace();
    }

    /// Lets `length` of virtual time pass.
    pub fn run_for(&mut self, length: Nanos) {
        let end = self.now() + length;
        while let Some(at) = self.next_decision(end) {
            self.deliver_until(at);
            self.simulator().advance_to(at);
            self.step(at);
        }
        self.deliver_until(end);
        self.simulator().advance_to(end.max(self.now()));
        self.drain_trace();
    }

    /// Everything that happened so far.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What `model` has done so far; also of models that are gone.
    #[must_use]
    pub fn metrics(&self, model: ModelId) -> Option<Snapshot> {
        let source = self.sources.iter().find(|source| source.model() == model)?;
        Some(ModelMetrics::snapshot(source.metrics()))
    }

    /// The shipped admission, with what it knows.
    #[must_use]
    pub fn admission(&self) -> &AdmissionController {
        &self.admission
    }

    /// The present point in virtual time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn simulator(&self) -> &SimDevice {
        self.device.simulator().expect("this world's device is simulated")
    }

    /// When the dispatcher will look next, if before `end`: a random part of the overhead after
    /// the stage on the device ends, or of the wake-up latency after the next arrival.
    fn next_decision(&mut self, end: Timestamp) -> Option<Timestamp> {
        let (cause, latency) = if self.turn.busy {
            let ended = self.simulator().next_event();
            // What arrives meanwhile is looked at only where it could be committed.
            let looks = self.config.real.look_ahead;
            let arrival = self.arrivals.peek().filter(|_| looks).map(|Reverse((at, _))| *at);
            let seen = ended.into_iter().chain(arrival);
            let cause = seen.chain(self.turn.next).chain(self.due).min()?;
            (cause, self.config.real.dispatch)
        } else {
            let arrival = self.arrivals.peek().map(|Reverse((at, _))| *at);
            // Seen within less than the latency, as the proof assumes.
            let longest = self.config.real.wake.saturating_sub(Nanos::EPSILON);
            (arrival.into_iter().chain(self.turn.next).chain(self.due).min()?, longest)
        };
        let late = Nanos(self.random.up_to(latency.0));
        let at = cause.max(self.now()) + late;
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
        self.due.filter(|at| *at < end)
    }

    /// Submits every arrival up to and including `until`.
    fn deliver_until(&mut self, until: Timestamp) {
        while let Some(Reverse((at, index))) = self.arrivals.peek().copied() {
            if at > until {
                return;
            }
            self.arrivals.pop();
            if self.sources[index].has_ended() {
                continue;
            }
            let at = at.max(self.now());
            self.simulator().advance_to(at);
            let next = self.sources[index].submit(at);
            self.arrivals.push(Reverse((next, index)));
        }
    }

    fn step(&mut self, now: Timestamp) {
        self.due = None;
        let observed = self.dispatcher.observe();
        if self.config.intake > Nanos::ZERO {
            let taking = Nanos(self.random.up_to(self.config.intake.0));
            self.deliver_until(now + taking);
        }
        self.turn = self.dispatcher.step(observed, now, &self.submissions);
        while let Some(context) = self.dispatcher.take_departed() {
            self.departed.push(context);
        }
        while let Some(context) = self.departed.pop() {
            let model = context.model();
            context.evict();
            let left = self.admission.release(model, &mut self.memory);
            let left = left.expect("its memory is no longer bound");
            self.dispatcher.record(now, TraceEvent::Freed { model });
            if let Some(analysis) = left {
                self.apply(&analysis);
            }
        }
        self.drain_trace();
        self.provoke(now);
    }

    /// Lets the adversaries react to what was just launched.
    fn provoke(&mut self, now: Timestamp) {
        let Some(TraceEvent::Dispatched { job, .. }) = self.last_dispatch(now) else { return };
        let blocker = job.model;
        let mut moved = false;
        for source in &mut self.sources {
            moved |= source.provoked_by(blocker, now);
        }
        if moved {
            let next = self.sources.iter().enumerate().filter(|(_, source)| !source.has_ended());
            self.arrivals =
                next.map(|(index, source)| Reverse((source.next_arrival(), index))).collect();
        }
    }

    fn last_dispatch(&self, now: Timestamp) -> Option<TraceEvent> {
        let recent = self.trace.records.iter().rev().take_while(|record| record.at == now);
        let mut dispatched =
            recent.filter(|record| matches!(record.event, TraceEvent::Dispatched { .. }));
        dispatched.next().map(|record| record.event.clone())
    }

    fn apply(&mut self, analysis: &Analysis) {
        let now = self.now();
        self.dispatcher.set_bounds(now, &analysis.responses());
    }

    fn drain_trace(&mut self) {
        self.trace.records.extend(self.collector.drain());
        self.trace.dropped = self.collector.dropped();
    }
}

/// The one executor of a world.
fn executor(config: &WorldConfig) -> ExecutorConfig {
    ExecutorConfig {
        partition: None,
        policy: config.policy,
        overheads: config.charged,
        overrun: config.overrun,
        streams: 1,
        first_stream: None,
        queue_depth: u32::try_from(QUEUE_DEPTH).expect("a small constant"),
        first_model: 0,
        max_models: MAX_MODELS,
        max_suspended: None,
        hang_factor: HANG_FACTOR,
        hang_floor: Nanos::ZERO,
    }
}

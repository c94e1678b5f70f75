//! The configuration of a runtime, checked once and whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use aegis_context::StreamPool;
use aegis_cuda::{
    CompletionWait, CudaConfig, DeviceArena, DeviceContext, DriverKind, HostConfig, HostWork,
    PartitionShare, Realtime, RealtimePriority, RealtimeWork, SimConfig,
};
use aegis_memory::{MemoryOrchestrator, PressurePolicy, PressureThresholds};
use aegis_sched::admission::{AdmissionConfig, AdmissionController, DeviceMemory};
use aegis_sched::dispatch::orchestrator::Pace;
use aegis_sched::dispatch::{Dispatcher, OverrunPolicy};
use aegis_sched::policy::PolicyKind;
use aegis_sched::queue::SubmissionQueue;
use aegis_sched::task::Overheads;
use aegis_trace::{Bytes, ExecutorConfig, MonotonicClock, Nanos, PartitionId, TraceCollector};

use crate::device_facts::granted_to;
use crate::error::Error;
use crate::partition::{Partition, PartitionSpec};
use crate::runtime::{Parts, Runtime};
use crate::source::Preparation;

/// Work items a stream holds: two events, a stage, and two copies with their marks, twice, so that it
/// never fills.
const STREAM_DEPTH: usize = 16;
/// The same on a GPU, where each input and each output of a job is a copy of its own.
const GPU_STREAM_DEPTH: usize = 1024;
/// What the modules of libraries take once in a process: 220 MiB were seen with 24 networks.
const MODULES: Bytes = Bytes::from_mib(384);
/// What the handles of a model's sessions and its graphs take: 8 to 12 MiB a session were seen, and
/// the pool of a large graph.
const HANDLES: Bytes = Bytes::from_mib(32);
/// A stage is reported as hanging once it has held the device for this many times its charge.
const HANG_FACTOR: u64 = 20;
/// But not before this long: the operating system may take the processor from a stage for a while.
const HANG_FLOOR: Nanos = Nanos::from_secs(1);

/// The deepest submission queue.
const QUEUE_DEPTH_MAX: usize = 1 << 16;
/// The most events one thread's ring may hold: about 300 MB.
const TRACE_CAPACITY_MAX: usize = 1 << 22;

/// Everything a runtime is built with. Limits have no defaults: `None` is a fault that
/// [`build`](RuntimeBuilder::build) reports.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder builds nothing until `build` is called"]
pub struct RuntimeBuilder {
    device: Option<DeviceChoice>,
    memory: Option<Bytes>,
    partitions: Vec<PartitionSpec>,
    streams: Option<u32>,
    policy: Option<PolicyKind>,
    queue_depth: Option<usize>,
    max_models: Option<u16>,
    overheads: Option<Overheads>,
    look_ahead: bool,
    uploads_ahead: bool,
    overrun: OverrunPolicy,
    pressure: Option<PressureThresholds>,
    max_suspended: Option<u32>,
    trace_capacity: Option<usize>,
    spin: Option<Nanos>,
    realtime: bool,
    core: Option<u16>,
    libraries: Option<Bytes>,
}

impl RuntimeBuilder {
    /// The CPU as the device, with a hard limit of `memory` for all models together.
    pub fn host(self, memory: Bytes) -> Self {
        Self { device: Some(DeviceChoice::Host), memory: Some(memory), ..self }
    }

    /// A simulated device in virtual time with a hard limit of `memory`.
    pub fn sim(self, memory: Bytes) -> Self {
        Self { device: Some(DeviceChoice::Sim), memory: Some(memory), ..self }
    }

    /// GPU number `ordinal`, with a hard limit of `memory` for everything this process takes of it.
    /// The end of a stage is noticed as `wait` says.
    pub fn cuda(self, ordinal: u16, wait: CompletionWait, memory: Bytes) -> Self {
        let device = Some(DeviceChoice::Cuda { ordinal, wait });
        Self { device, memory: Some(memory), ..self }
    }

    /// How much of a GPU's memory limit is left to the libraries of the runtimes, outside the arena
    /// that models are bound in. What they really take is measured and charged; a model whose
    /// libraries exceed it is refused. By default room for as many models as one partition may have,
    /// by what 24 networks took: the libraries' code is loaded once, and the partitions share the models
    /// of one program.
    pub fn libraries(self, memory: Bytes) -> Self {
        Self { libraries: Some(memory), ..self }
    }

    /// Splits the device: one more partition. Without any, the whole device is one.
    pub fn partition(mut self, partition: PartitionSpec) -> Self {
        self.partitions.push(partition);
        self
    }

    /// How many streams each partition has; one is enough, since it is serial.
    pub fn streams(self, streams: u32) -> Self {
        Self { streams: Some(streams), ..self }
    }

    /// Which policy orders the jobs, where a partition does not say otherwise.
    pub fn policy(self, policy: PolicyKind) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// How many submissions may wait to be taken in each partition; a full queue refuses.
    pub fn queue_depth(self, depth: usize) -> Self {
        Self { queue_depth: Some(depth), ..self }
    }

    /// How many models may be admitted at once in each partition.
    pub fn max_models(self, models: u16) -> Self {
        Self { max_models: Some(models), ..self }
    }

    /// What the analysis charges for dispatching and for waking up; every run is held to it.
    pub fn overheads(self, overheads: Overheads) -> Self {
        Self { overheads: Some(overheads), ..self }
    }

    /// Whether one stage is put on the device behind the running one before that has ended, so that the
    /// device goes on without waiting for a decision. It costs every model one longest stage more of
    /// blocking, but under FIFO. Not unless this is called, or the overheads say so.
    pub fn look_ahead(self, look_ahead: bool) -> Self {
        Self { look_ahead, ..self }
    }

    /// Whether the inputs of a job whose first stage waits behind the running one are copied while that
    /// runs. Needs [`look_ahead`](Self::look_ahead), and a device with two copy engines. No bound gets
    /// better by it, and costs must hold beside such copies. Not unless this is called, or the overheads
    /// say so.
    pub fn uploads_ahead(self, uploads_ahead: bool) -> Self {
        Self { uploads_ahead, ..self }
    }

    /// What happens to jobs after an overrun; nothing but recording it unless this is called.
    pub fn overrun(self, overrun: OverrunPolicy) -> Self {
        Self { overrun, ..self }
    }

    /// Below how much free memory new models are refused, and from how much on they are accepted
    /// again. Free is what no admitted model occupies. Never refused unless this is called.
    pub fn pressure(self, thresholds: PressureThresholds) -> Self {
        Self { pressure: Some(thresholds), ..self }
    }

    /// The most models that may be suspended between two stages. Another one is refused: it may ask
    /// again as one that is never suspended, and is charged as one stage then. Any number without.
    pub fn max_suspended(self, models: u32) -> Self {
        Self { max_suspended: Some(models), ..self }
    }

    /// Events each recording thread can hold between two drains of the trace.
    pub fn trace_capacity(self, events: usize) -> Self {
        Self { trace_capacity: Some(events), ..self }
    }

    /// How long an idle thread polls before it sleeps: latency bought with processor time.
    pub fn spin(self, spin: Nanos) -> Self {
        Self { spin: Some(spin), ..self }
    }

    /// Asks the operating system for real-time priority for the orchestrator and the workers of the
    /// host device, and for locked memory. A refusal is reported ([`Runtime::realtime`]), never fatal.
    pub fn realtime(self, realtime: bool) -> Self {
        Self { realtime, ..self }
    }

    /// Asks the operating system to run the orchestrator on `core` alone. Of a split device each
    /// partition asks for its own ([`PartitionSpec::core`]). A refusal is reported as above.
    pub fn core(self, core: u16) -> Self {
        Self { core: Some(core), ..self }
    }

    /// Builds the runtime: takes the device, reserves all of its memory, starts nothing.
    ///
    /// # Errors
    /// [`Error::Build`] with every fault of the configuration; [`Error::Device`] when the device
    /// is not to be had, or has less memory than asked for.
    pub fn build(self) -> Result<Runtime, Error> {
        let checked = self.check().map_err(|faults| Error::Build { faults })?;
        let (device, pace) = checked.device()?;
        let views = views(&device, &checked.partitions)?;
        let models = usize::from(checked.max_models);
        let libraries = checked.libraries.unwrap_or_else(|| libraries(models));
        let arena = arena(&device, libraries)?;
        let memory = DeviceMemory::new(MemoryOrchestrator::new(arena));
        let memory = match checked.pressure.clone() {
            Some(policy) => memory.under_pressure(policy),
            None => memory,
        };
        let collector = TraceCollector::new(checked.trace_capacity);
        let mut parts = Parts::new(device, memory, collector);
        for (partition, (spec, view)) in (0..).map(PartitionId::first).zip(views) {
            checked.equip(&mut parts, partition, spec, view, pace.clone())?;
        }
        Ok(Runtime::new(parts))
    }

    fn check(self) -> Result<Checked, Vec<String>> {
        let mut faults = Vec::new();
        let (device, memory) = (self.device, self.memory);
        if device.is_none() {
            faults.push("no device is chosen; call `host`, `sim` or `cuda` with a limit".into());
        }
        if memory == Some(Bytes::ZERO) {
            faults.push("the memory limit is zero; no model fits".into());
        }
        let streams = required(self.streams, "the number of streams", "streams", &mut faults);
        let queue = required(self.queue_depth, "the queue depth", "queue_depth", &mut faults);
        let models = required(self.max_models, "the number of models", "max_models", &mut faults);
        let trace =
            required(self.trace_capacity, "the trace capacity", "trace_capacity", &mut faults);
        if queue > QUEUE_DEPTH_MAX {
            faults.push(format!("the queue depth is {queue}; at most {QUEUE_DEPTH_MAX} is taken"));
        }
        if trace > TRACE_CAPACITY_MAX {
            faults.push(format!(
                "the trace capacity is {trace}; at most {TRACE_CAPACITY_MAX} is taken"
            ));
        }
        if self.policy.is_none() {
            faults.push("no policy is chosen; call `policy`".into());
        }
        if self.overheads.is_none() {
            faults.push("no overheads are stated; call `overheads`".into());
        }
        let stated = self.overheads.unwrap_or(Overheads::NONE);
        let look_ahead = self.look_ahead || stated.look_ahead;
        let uploads_ahead = self.uploads_ahead || stated.uploads_ahead;
        if uploads_ahead && !look_ahead {
            let why = "inputs go ahead of a stage that waits behind another";
            faults.push(format!("`uploads_ahead` is on without `look_ahead`; {why}"));
        }
        let partitions = self.partitions;
        check_partitions(&partitions, models, self.core, &mut faults);
        let pressure = self.pressure.map(PressurePolicy::new).transpose().unwrap_or_else(|error| {
            faults.push(error.to_string());
            None
        });
        match (device, memory, self.policy, self.overheads) {
            (Some(device), Some(memory), Some(policy), Some(overheads)) if faults.is_empty() => {
                Ok(Checked {
                    device,
                    memory,
                    partitions,
                    streams,
                    policy,
                    queue_depth: queue,
                    max_models: models,
                    overheads: Overheads { look_ahead, uploads_ahead, ..overheads },
                    overrun: self.overrun,
                    pressure,
                    max_suspended: self.max_suspended,
                    trace_capacity: trace,
                    spin: self.spin.unwrap_or(Nanos::ZERO),
                    realtime: self.realtime,
                    core: self.core,
                    libraries: self.libraries,
                })
            }
            _ => Err(faults),
        }
    }
}

/// Reports what is wrong with a split into `partitions` of `models` models each.
fn check_partitions(
    partitions: &[PartitionSpec],
    models: u16,
    core: Option<u16>,
    faults: &mut Vec<String>,
) {
    let mut names = BTreeSet::new();
    for PartitionSpec { name, .. } in partitions {
        if !names.insert(name.as_str()) {
            faults.push(format!("there are two partitions called {name}; rename one"));
        }
    }
    if let (Some(core), false) = (core, partitions.is_empty()) {
        faults.push(format!(
            "core {core} is asked for all partitions; name one in each, since each has a thread"
        ));
    }
    let indices = usize::from(models) * partitions.len();
    if indices > usize::from(u16::MAX) {
        let most = usize::from(u16::MAX) / partitions.len();
        faults.push(format!("{models} models in each partition; at most {most} are taken"));
    }
}

/// The value, or a fault when it is missing or zero.
fn required<N: Copy + Default + PartialEq>(
    value: Option<N>,
    what: &str,
    method: &str,
    faults: &mut Vec<String>,
) -> N {
    match value {
        Some(value) if value != N::default() => return value,
        Some(_) => faults.push(format!("{what} is zero; give `{method}` at least one")),
        None => faults.push(format!("{what} is not stated; call `{method}`")),
    }
    N::default()
}

/// A configuration without faults.
struct Checked {
    device: DeviceChoice,
    memory: Bytes,
    partitions: Vec<PartitionSpec>,
    streams: u32,
    policy: PolicyKind,
    queue_depth: usize,
    max_models: u16,
    overheads: Overheads,
    overrun: OverrunPolicy,
    pressure: Option<PressurePolicy>,
    max_suspended: Option<u32>,
    trace_capacity: usize,
    spin: Nanos,
    realtime: bool,
    core: Option<u16>,
    libraries: Option<Bytes>,
}

impl Checked {
    fn device(&self) -> Result<(DeviceContext, Pace), Error> {
        let thread = ThreadOptions { spin: self.spin, realtime: self.realtime };
        let streams = self.streams.saturating_add(u32::from(self.overheads.uploads_ahead));
        device(self.device, self.memory, streams, thread)
    }

    /// Adds a partition with its executor and its proof to `parts`.
    fn equip(
        &self,
        parts: &mut Parts,
        partition: PartitionId,
        spec: Option<PartitionSpec>,
        device: DeviceContext,
        mut pace: Pace,
    ) -> Result<(), Error> {
        if let Pace::Real { core, .. } = &mut pace {
            *core = spec.as_ref().map_or(self.core, |spec| spec.core);
        }
        let policy = spec.as_ref().and_then(|spec| spec.policy).unwrap_or(self.policy);
        let streams = if self.overheads.uploads_ahead {
            StreamPool::uploading_ahead(&device, self.streams)?
        } else {
            StreamPool::new(&device, self.streams)?
        };
        let workers = set_up_workers(&device, &streams, &pace)?;
        let executor = ExecutorConfig {
            partition: spec.as_ref().map(|spec| spec.name.clone()),
            policy,
            overheads: self.overheads,
            overrun: self.overrun,
            streams: self.streams,
            first_stream: None, // The dispatcher has them and says so.
            queue_depth: u32::try_from(self.queue_depth).unwrap_or(u32::MAX),
            first_model: partition.index * self.max_models,
            max_models: self.max_models,
            max_suspended: self.max_suspended,
            hang_factor: HANG_FACTOR,
            hang_floor: HANG_FLOOR,
        };
        let controller = AdmissionController::new(AdmissionConfig::of(&executor, partition));
        parts.controllers.push(controller.suspending_at_most(self.max_suspended));
        let (clock, recorder) = (device.clock(), parts.collector.recorder());
        let dispatcher = Dispatcher::configured(executor, clock.now(), streams, recorder);
        parts.dispatchers.push(dispatcher);
        let signal = Arc::clone(device.signal());
        let submissions = Arc::new(SubmissionQueue::new(self.queue_depth, signal));
        let preparation = preparation(self.device, &device)?;
        let granted = granted_to(&device);
        let partition =
            Partition { spec, granted, device, pace, workers, clock, submissions, preparation };
        parts.partitions.push(partition);
        Ok(())
    }
}

/// A view of `device` for each partition: itself, where it is not split.
pub(crate) fn views(
    device: &DeviceContext,
    partitions: &[PartitionSpec],
) -> Result<Vec<(Option<PartitionSpec>, DeviceContext)>, Error> {
    if partitions.is_empty() {
        return Ok(vec![(None, device.clone())]);
    }
    let share = |spec: &PartitionSpec| PartitionShare { sms: spec.sms.unwrap_or(1) };
    let shares: Vec<PartitionShare> = partitions.iter().map(share).collect();
    let views = device.split(&shares)?;
    Ok(partitions.iter().cloned().map(Some).zip(views).collect())
}

/// How the threads of a runtime behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadOptions {
    /// How long an idle thread polls before it sleeps.
    pub(crate) spin: Nanos,
    /// Whether to ask for real-time priority.
    pub(crate) realtime: bool,
}

/// Asks for real-time priority for the threads behind `streams`, if there are any and it is wanted:
/// the workers of a host, and those that wait for the ends of a GPU's work.
pub(crate) fn set_up_workers(
    device: &DeviceContext,
    streams: &StreamPool,
    pace: &Pace,
) -> Result<Realtime, Error> {
    if !matches!(pace, Pace::Real { realtime: true, .. }) {
        return Ok(Realtime::NotRequested);
    }
    if device.kind() != DriverKind::Host {
        return Ok(device.urge_watchers(RealtimePriority::WORKER));
    }
    let work = RealtimeWork::new(RealtimePriority::WORKER);
    let request: Arc<dyn HostWork> = Arc::<RealtimeWork>::clone(&work);
    streams.set_up(&request)?;
    Ok(work.outcome())
}

/// What stands for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The CPU.
    Host,
    /// Software in virtual time.
    Sim,
    /// A GPU.
    Cuda {
        /// Which, as the driver counts them.
        ordinal: u16,
        /// How the end of a stage is noticed.
        wait: CompletionWait,
    },
}

/// A device with its way of passing time.
pub(crate) fn device(
    choice: DeviceChoice,
    memory_limit: Bytes,
    streams: u32,
    thread: ThreadOptions,
) -> Result<(DeviceContext, Pace), Error> {
    let max_streams = u16::try_from(streams).unwrap_or(u16::MAX);
    let stream_depth = STREAM_DEPTH;
    let clock = MonotonicClock::start();
    let ThreadOptions { spin, realtime } = thread;
    let real = Pace::Real { clock, spin, realtime, core: None };
    match choice {
        DeviceChoice::Sim => {
            let config = SimConfig { memory_limit, max_streams, stream_depth };
            Ok((DeviceContext::sim(config)?, Pace::Virtual))
        }
        DeviceChoice::Host => {
            let config = HostConfig { memory_limit, max_streams, stream_depth, spin, clock };
            Ok((DeviceContext::host(config)?, real))
        }
        DeviceChoice::Cuda { ordinal, wait } => {
            let config =
                CudaConfig { ordinal, memory_limit, max_streams, stream_depth, wait, clock };
            // One stream more, to prepare models on.
            let max_streams = config.max_streams.saturating_add(1);
            let config = CudaConfig { max_streams, stream_depth: GPU_STREAM_DEPTH, ..config };
            Ok((DeviceContext::cuda(config)?, real))
        }
    }
}

/// What is left to the libraries of `models` models on a GPU where nobody says otherwise.
#[must_use]
pub(crate) fn libraries(models: usize) -> Bytes {
    Bytes(MODULES.0.saturating_add(HANDLES.0.saturating_mul(models as u64)))
}

/// All that the limit of `device` leaves, in one piece: what its driver takes for itself counts too,
/// and on a GPU what the libraries of the runtimes will take.
pub(crate) fn arena(device: &DeviceContext, libraries: Bytes) -> Result<DeviceArena, Error> {
    let left = device.memory_limit().saturating_sub(device.reserved_memory());
    let left = match device.kind() {
        DriverKind::Cuda => left.saturating_sub(libraries),
        _ => left,
    };
    Ok(device.reserve_arena(left)?)
}

/// What prepares models on `device`, where it is a GPU.
pub(crate) fn preparation(
    choice: DeviceChoice,
    device: &DeviceContext,
) -> Result<Option<Preparation>, Error> {
    let DeviceChoice::Cuda { ordinal, .. } = choice else { return Ok(None) };
    Ok(Some(Preparation { ordinal, stream: Arc::new(device.create_stream()?) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_configuration_is_reported_at_once() {
        let error = RuntimeBuilder::default().queue_depth(0).build().expect_err("nothing stated");
        let Error::Build { faults } = error else { panic!("{error}") };
        assert_eq!(faults.len(), 7, "{faults:?}");
        assert!(
            faults
                .iter()
                .any(|fault| fault == "the queue depth is zero; give `queue_depth` at least one")
        );
    }
}

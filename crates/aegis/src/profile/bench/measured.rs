//! A model that is measured, and its jobs.
//!
//! Each stage of a job is launched on an idle stream and waited for; what that took beside the time of the
//! device is the job's overhead. Copies go beside the stage where inputs are to go ahead of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use aegis_context::slot::{JobSlot, SlotPool};
use aegis_context::{
    BusyStream, ContextError, ExecutionContext, MemoryLedger, ResourceBudget, StreamPool,
};
use aegis_cuda::{CopyLoad, DeviceError};
use aegis_memory::{MemoryOrchestrator, ModelMemory};
use aegis_sched::wcet::{Samples, Scenario};
use aegis_trace::{Bytes, Clock, ModelId, Nanos, StageIndex};

use crate::error::Error;
use crate::evidence::{self, ModelEvidence, PartitionFingerprint, Preparation, UploadsMeasured};
use crate::profile::Subject;
use crate::source::{LoadedModel, MemoryNeed};

/// What runs beside a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    Nothing,
    /// Copies, where inputs are to go ahead, which are over before anything else begins.
    Copies,
    /// Copies that nothing waits for.
    CopiesOnAndOn,
}

/// One model that is measured, with a job of its own.
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) runtime: String,
    pub(super) need: MemoryNeed,
    pub(super) prepared: Preparation,
    pub(super) context: ExecutionContext,
    pub(super) slot: Arc<JobSlot>,
    pub(super) stages: usize,
    /// How long each stage took the last time.
    pub(super) lengths: Vec<Nanos>,
    /// The inputs of a job, as they are written before each.
    pub(super) inputs: Vec<Vec<u8>>,
    pub(super) samples: BTreeMap<Scenario, Vec<Vec<Nanos>>>,
    pub(super) overheads: Vec<Nanos>,
    /// What it took to put a job of it behind another one; `None` where that was not measured.
    pub(super) commits: Option<Vec<Nanos>>,
}

impl Beside {
    /// Enqueues copies of `load` beside a stage that was just launched.
    fn begin(self, load: &CopyLoad, stage: &BusyStream, length: Nanos) -> Result<(), DeviceError> {
        match self {
            Self::Nothing => Ok(()),
            Self::Copies => stage.copy_beside(load, length),
            Self::CopiesOnAndOn => stage.keep_copying_beside(load, length),
        }
    }

    /// Has the next stage upload behind nobody, if it is to be measured.
    fn end(self, load: &CopyLoad) -> Result<(), DeviceError> {
        match self {
            Self::Nothing | Self::CopiesOnAndOn => Ok(()),
            Self::Copies => load.drain(),
        }
    }
}

impl Measured {
    pub(super) fn bind(
        model: ModelId,
        loaded: LoadedModel,
        memory: &mut MemoryOrchestrator,
    ) -> Result<Self, Error> {
        let (need, runtime) = (loaded.memory(), loaded.runtime_name());
        let LoadedModel { name, partition, mut backend } = loaded;
        let tensors = backend.memory().to_vec();
        let planned = memory.plan(ModelMemory { model, partition, tensors })?;
        let total = planned.usage().total();
        let binding = memory.bind(planned)?;
        let failed =
            |cause: ContextError| Error::Profile { model: name.clone(), cause: Box::new(cause) };
        backend.bind(binding).map_err(|cause| failed(cause.into()))?;
        let (libraries, remarks) = (backend.foreign_memory(), backend.remarks().to_vec());
        let prepared = Preparation { libraries, remarks };
        let stages = usize::from(backend.description().stages);
        let inputs = backend.description().inputs.iter().map(|spec| vec![0; spec.bytes()]);
        let (inputs, lengths) = (inputs.collect(), vec![Nanos::ZERO; stages]);
        let slots = SlotPool::on(memory.arena(), backend.description(), 1)
            .map_err(|cause| failed(cause.into()))?;
        let slot = slots.claim().expect("a fresh slot is free");
        slot.queue();
        let charge = MemoryLedger::new(total).charge(total).map_err(failed)?;
        let budget = ResourceBudget { memory: total, streams: 1, compute: Nanos::MAX };
        let context = ExecutionContext::new(model, budget, backend, slots, charge);
        let (samples, overheads, commits) = (BTreeMap::new(), Vec::new(), None);
        Ok(Self {
            name,
            runtime,
            need,
            prepared,
            context,
            slot,
            stages,
            lengths,
            inputs,
            samples,
            overheads,
            commits,
        })
    }

    pub(super) fn evidence(
        self,
        subject: &Subject,
        background: Vec<String>,
        partition: Option<PartitionFingerprint>,
        beside: Option<Bytes>,
    ) -> Result<ModelEvidence, Error> {
        let uploads = beside.map(|beside| UploadsMeasured { own: self.upload(), beside });
        let name = self.name;
        let checked = |(scenario, times)| {
            let samples = Samples::new(times)
                .map_err(|cause| Error::Samples { model: name.clone(), cause })?;
            Ok::<_, Error>((scenario, samples))
        };
        let mut scenarios: BTreeMap<Scenario, Samples> =
            self.samples.into_iter().map(checked).collect::<Result<_, _>>()?;
        Ok(ModelEvidence {
            model: evidence::fingerprint(&subject.source)?,
            runtime: self.runtime,
            stages: subject.source.stage_names(),
            background,
            partition,
            uploads,
            memory: self.need,
            prepared: self.prepared,
            samples: scenarios.remove(&Scenario::Turns).expect("turns were taken"),
            scenarios,
            overheads: self.overheads,
            commits: self.commits,
        })
    }

    /// What the inputs of a job take.
    pub(super) fn upload(&self) -> Bytes {
        Bytes(self.inputs.iter().map(|input| input.len() as u64).sum())
    }

    /// Fills the slot anew.
    pub(super) fn refill(&self) {
        self.slot.unqueue();
        for (index, input) in self.inputs.iter().enumerate() {
            self.slot.write_input(index, input);
        }
        self.slot.queue();
    }

    pub(super) fn run_once(
        &mut self,
        streams: &Arc<StreamPool>,
        clock: &dyn Clock,
        keep: Option<Scenario>,
        copies: Option<(&CopyLoad, Beside)>,
    ) -> Result<(), ContextError> {
        self.refill();
        let mut overhead = Nanos::ZERO;
        for (stage, index) in (0u16..).zip(0..self.stages) {
            let began = clock.now();
            let busy = self.context.launch(StageIndex(stage), &self.slot, streams.lease()?)?;
            let launched = clock.now();
            let before = self.lengths[index];
            copies.map_or(Ok(()), |(load, beside)| beside.begin(load, &busy, before))?;
            let enqueuing = clock.now().saturating_since(launched);
            let times = busy.wait()?;
            let noticed = clock.now();
            self.context.stage_done();
            // A stage below the clock's resolution still takes its smallest step.
            let length = times.finished.saturating_since(times.started).max(Nanos::EPSILON);
            self.lengths[index] = length;
            copies.map_or(Ok(()), |(load, beside)| beside.end(load))?;
            // No dispatcher enqueues such copies: where that outlasted the stage, the rest is not overhead.
            let enqueued_late = enqueuing.saturating_sub(length);
            let spent = noticed.saturating_since(began).saturating_sub(enqueued_late);
            overhead += spent.saturating_sub(length);
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

//! Simulated models: what they promise, when their jobs arrive, how long their stages take.

use aegis_context::{ModelDescription, ResourceBudget, SimBackend, SimCopies, SimModel};
use aegis_cuda::{DeviceContext, SimFault, SimWork};
use aegis_trace::{Bytes, ModelId, Nanos, ServiceTerms, StageIndex, Timestamp};

use super::random::Random;
use crate::admission::{AdmissionRequest, Terms};
use crate::metrics::ModelMetrics;
use crate::submit::Submitter;
use crate::task::Overheads;

/// A model of a simulated world: its promise to admission, and how it keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// What it is promised beside the timing below.
    pub service: ModelService,
    /// `T`; of a model of best effort, the distance that its arrivals keep of themselves.
    pub period: Nanos,
    /// `D`.
    pub deadline: Nanos,
    /// `J`.
    pub jitter: Nanos,
    /// Smaller is more urgent.
    pub priority: u32,
    /// The worst-case execution time of each stage.
    pub stages: Vec<Nanos>,
    /// Whether others may run between its stages.
    pub may_be_suspended: bool,
    /// Memory that stays.
    pub persistent: Bytes,
    /// Memory shared between jobs.
    pub scratch: Bytes,
    /// Memory that keeps what passes from stage to stage.
    pub carried: Bytes,
    /// How it behaves.
    pub behaviour: Behaviour,
}

/// What a simulated model is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelService {
    /// Its deadlines.
    Guaranteed,
    /// To run while nothing else is ready.
    Background,
    /// A share of the device.
    Server {
        /// Device time in each period, overheads included.
        budget: Nanos,
        /// Least time between two refills.
        period: Nanos,
    },
}

/// How a model behaves at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// When its jobs arrive.
    pub arrivals: Arrivals,
    /// How long its stages take.
    pub costs: Costs,
    /// What happens at the `n`-th launch of a stage, counted from zero.
    pub faults: Vec<(StageIndex, u64, SimFault)>,
}

/// When jobs arrive. All but [`Arrivals::TooEarly`] keep the period; none claims a release before
/// its arrival but [`Arrivals::Jittered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Every period, from a first offset on.
    Periodic {
        /// The first arrival.
        offset: Nanos,
    },
    /// At least a period apart, with a random extra gap of up to half a period, often none.
    Sporadic,
    /// Every period nominally, and seen up to the jitter later.
    Jittered,
    /// A caller that does not keep its period: a random part of it after the last, always.
    TooEarly,
    /// As soon as allowed after a stage of another model was launched: the worst moment, since
    /// that stage then blocks in full.
    AfterLaunch,
}

/// How long stages take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Costs {
    /// Always the worst case.
    Full,
    /// Anything up to the worst case, often exactly that.
    UpTo,
    /// Always this much more than the worst case: a cost that admission was not told of.
    Beyond {
        /// How much.
        extra: Nanos,
    },
}

impl Model {
    /// A model of one stage with deadline and period equal, periodic from zero on, that always
    /// takes its full cost and a little memory.
    #[must_use]
    pub fn periodic(name: &str, cost: Nanos, period: Nanos) -> Self {
        Self {
            name: name.into(),
            service: ModelService::Guaranteed,
            period,
            deadline: period,
            jitter: Nanos::ZERO,
            priority: 0,
            stages: vec![cost],
            may_be_suspended: true,
            persistent: Bytes::from_kib(64),
            scratch: Bytes::from_kib(64),
            carried: Bytes::ZERO,
            behaviour: Behaviour {
                arrivals: Arrivals::Periodic { offset: Nanos::ZERO },
                costs: Costs::Full,
                faults: Vec::new(),
            },
        }
    }

    pub(super) fn request(
        &self,
        device: &DeviceContext,
        real: &Overheads,
        random: Random,
    ) -> AdmissionRequest {
        let stages = u16::try_from(self.stages.len()).unwrap_or(u16::MAX);
        let declared = SimModel {
            description: ModelDescription { inputs: vec![], outputs: vec![], stages },
            persistent: self.persistent,
            scratch: self.scratch,
            carried: self.carried,
        };
        let cost_model = Box::new(self.cost_model(*real, random));
        let copies = SimCopies { upload: real.copy, download: real.copy };
        let backend = SimBackend::new(declared, device.kind(), cost_model).copying(copies);
        let terms = Terms {
            service: self.service_terms(),
            costs: self.stages.clone(),
            may_be_suspended: self.may_be_suspended,
            budget: ResourceBudget { memory: Bytes(u64::MAX), streams: 1, compute: Nanos::MAX },
            slots: self.outstanding(),
        };
        AdmissionRequest { name: self.name.clone(), terms, backend: Box::new(backend) }
    }

    fn service_terms(&self) -> ServiceTerms {
        let Self { period, deadline, jitter, priority, .. } = *self;
        match self.service {
            ModelService::Guaranteed => {
                ServiceTerms::Guaranteed { period, deadline, jitter, priority }
            }
            ModelService::Background => ServiceTerms::Background,
            ModelService::Server { budget, period } => {
                ServiceTerms::Server { budget, period, priority }
            }
        }
    }

    /// Jobs that can be outstanding at once while deadlines are kept, and some for when not.
    fn outstanding(&self) -> usize {
        let span = self.deadline.saturating_add(self.jitter);
        usize::try_from(span.div_ceil(self.period).saturating_add(4)).unwrap_or(64).min(64)
    }

    fn cost_model(
        &self,
        real: Overheads,
        mut random: Random,
    ) -> impl FnMut(StageIndex, u64) -> SimWork + Send + use<> {
        let Behaviour { costs, faults, .. } = self.behaviour.clone();
        let worst = self.stages.clone();
        let stages = worst.len();
        move |stage, launch| {
            let worst = worst[usize::from(stage.0)];
            let cost = match costs {
                Costs::Full => worst,
                Costs::UpTo if random.once_in(3) => worst,
                Costs::UpTo => Nanos(random.between(1, worst.0)),
                Costs::Beyond { extra } => worst + extra,
            };
            // Copies and boundaries take device time beside the stage, whatever that takes.
            let cost = cost.saturating_add(real.on_device(usize::from(stage.0), stages));
            let planned = faults.iter().find(|(at, n, _)| (*at, *n) == (stage, launch));
            SimWork { cost, fault: planned.map(|(_, _, fault)| *fault) }
        }
    }
}

/// A model's arrivals under way.
pub(super) struct Source {
    model: Model,
    submitter: Submitter,
    metrics: ModelMetrics,
    random: Random,
    /// The earliest arrival the period allows.
    earliest: Timestamp,
    /// The nominal release of the next job, for jittered arrivals.
    nominal: Timestamp,
    next: Timestamp,
    ended: bool,
}

impl Source {
    pub(super) fn new(
        model: Model,
        submitter: Submitter,
        metrics: ModelMetrics,
        random: Random,
        now: Timestamp,
    ) -> Self {
        let first = match model.behaviour.arrivals {
            Arrivals::Periodic { offset } => now + offset,
            Arrivals::Sporadic
            | Arrivals::Jittered
            | Arrivals::TooEarly
            | Arrivals::AfterLaunch => now,
        };
        Self {
            model,
            submitter,
            metrics,
            random,
            earliest: first,
            nominal: first,
            next: first,
            ended: false,
        }
    }

    pub(super) fn model(&self) -> ModelId {
        self.submitter.model()
    }

    pub(super) fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn next_arrival(&self) -> Timestamp {
        self.next
    }

    /// Submits a job at `at` and decides when the next one arrives. A job that is refused is
    /// lost, as it would be for a real caller; the trace has the refusal.
    pub(super) fn submit(&mut self, at: Timestamp) -> Timestamp {
        let claimed = match self.model.behaviour.arrivals {
            Arrivals::Jittered => Some(self.nominal.max(at.saturating_sub(self.model.jitter))),
            Arrivals::Periodic { .. }
            | Arrivals::Sporadic
            | Arrivals::TooEarly
            | Arrivals::AfterLaunch => None,
        };
        if let Ok(filling) = self.submitter.claim() {
            // The outcome is read from the trace; the slot frees itself.
            drop(filling.submit(claimed));
        }
        self.earliest = at + self.model.period;
        self.next = self.schedule(at);
        self.next
    }

    fn schedule(&mut self, at: Timestamp) -> Timestamp {
        let period = self.model.period;
        match self.model.behaviour.arrivals {
            Arrivals::Periodic { .. } => at + period,
            Arrivals::TooEarly => at + Nanos(self.random.up_to(period.0)),
            Arrivals::Sporadic if self.random.once_in(2) => self.earliest,
            Arrivals::Sporadic => self.earliest + Nanos(self.random.up_to(period.0 / 2)),
            Arrivals::Jittered => {
                self.nominal = self.nominal.max(at.saturating_sub(self.model.jitter)) + period;
                let late = match self.random.up_to(3) {
                    0 => Nanos::ZERO,
                    1 => self.model.jitter,
                    _ => Nanos(self.random.up_to(self.model.jitter.0)),
                };
                // Arrivals keep their order even where jitter exceeds the period.
                (self.nominal + late).max(at)
            }
            // Without a provocation it waits, but not for ever.
            Arrivals::AfterLaunch => self.earliest + Nanos(self.random.up_to(period.0)),
        }
    }

    /// Whether the launch of a stage of `blocker` at `now` moved the next arrival.
    pub(super) fn provoked_by(&mut self, blocker: ModelId, now: Timestamp) -> bool {
        let adversary = self.model.behaviour.arrivals == Arrivals::AfterLaunch;
        let strike = now + Nanos::EPSILON;
        let moves = adversary
            && !self.ended
            && blocker != self.model()
            && self.earliest <= strike
            && strike < self.next;
        if moves {
            self.next = strike;
        }
        moves
    }
}

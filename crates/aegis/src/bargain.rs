//! Bargaining for a refused model: the changes with which it would really be admitted.
//!
//! The scheduler finds changes that the analysis of time accepts. Here each of them is held to what
//! else admission asks: the compute budget of a model that is cut, and the memory. Where memory is what
//! refuses, the models whose memory would make room are found.
//!
//! # Invariants
//! 1. A period or a deadline is offered as it is printed, rounded up to what `Display` says, and passes
//!    the analysis there: who types it in is admitted.
//! 2. Every offer has passed the analysis, the compute budgets and a memory plan that the checker
//!    passed. How a cut changes what a model needs of memory is not known, and taken as nothing.
//! 3. *Without a model* means that it was never there: the others are planned anew in their order.
//! 4. Nothing is committed: planning works on copies.

use aegis_memory::{MemoryOrchestrator, ModelMemory, PlanRequest, TensorLifetime, place};
use aegis_sched::admission::{AdmissionConfig, AdmissionController, Proposal, Terms};
use aegis_sched::analysis::counter_offer::Offer;
use aegis_sched::analysis::{Setting, decide, look_ahead_charge};
use aegis_sched::task::{Overheads, Task};
use aegis_trace::{ModelId, Nanos, PartitionId, Refusal, ServiceTerms};

use crate::margin::CounterOffer;
use crate::source::LoadedModel;
use crate::wording;

/// A period beyond this many times the one that is refused is not offered.
const LONGEST_PERIOD: u64 = 1_000;

/// What a model asks for: kept while it is admitted, bargained about when it is refused.
#[derive(Clone, Debug)]
pub struct Asked {
    name: String,
    partition: PartitionId,
    terms: Terms,
    tensors: Vec<TensorLifetime>,
    keeps_deadline: bool,
}

impl Asked {
    /// What `model` asks for on these terms. A deadline that equals the period follows it.
    #[must_use]
    pub fn of(model: &LoadedModel, terms: &Terms) -> Self {
        Self {
            name: model.name.clone(),
            partition: model.partition,
            terms: terms.clone(),
            tensors: model.backend.memory().to_vec(),
            keeps_deadline: false,
        }
    }

    /// The same with a deadline that stays also where another period is offered.
    #[must_use]
    pub fn keeping_deadline(self) -> Self {
        Self { keeps_deadline: true, ..self }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// On which terms.
    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Where it is to run.
    pub(crate) fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The shortest window that can hold one of its jobs, or of its server's.
    pub(crate) fn first_due(&self) -> Option<Nanos> {
        match self.terms.service {
            ServiceTerms::Guaranteed { deadline, jitter, .. } => {
                Some(deadline.saturating_sub(jitter))
            }
            ServiceTerms::Server { period, .. } => Some(period),
            ServiceTerms::Background => None,
        }
    }

    /// What look-ahead adds to what a refusal is about, in words, and whether the analysis would accept
    /// the model beside what is `admitted` without it; `None` where it adds nothing. Costs one more
    /// analysis of the whole set.
    pub(crate) fn of_look_ahead(
        &self,
        why: &Refusal,
        admitted: &AdmissionController,
    ) -> Option<String> {
        let (Refusal::DemandExceedsWindow { .. } | Refusal::ResponseExceedsDeadline { .. }) = why
        else {
            return None;
        };
        let AdmissionConfig { policy, overheads, .. } = *admitted.config();
        let proposed = self.terms.proposed(admitted.next_id()?, &overheads).ok()?;
        let (set, background) = (admitted.tasks(), admitted.tasks().background());
        let set = match proposed {
            Proposal { task: Some(task), .. } => set.with(task).ok()?,
            Proposal { task: None, piece } if piece > background.longest => {
                set.clone().with_background(piece)
            }
            Proposal { task: None, .. } => set.clone(),
        };
        let charge = look_ahead_charge(&set, &Setting::admission(policy, overheads))?;
        let without = Overheads { look_ahead: false, uploads_ahead: false, ..overheads };
        let accepted = decide(&set, &Setting::admission(policy, without)).is_ok();
        (charge > Nanos::ZERO).then(|| wording::of_look_ahead(charge, accepted))
    }

    /// Its terms of service with the period or the deadline of `offer`; `None` of any other.
    fn changed(&self, offer: &Offer) -> Option<ServiceTerms> {
        match (self.terms.service, offer) {
            (
                ServiceTerms::Guaranteed { deadline, jitter, priority, .. },
                Offer::Period { period: new },
            ) => {
                let deadline = self.kept_deadline().map_or(*new, |_| deadline);
                Some(ServiceTerms::Guaranteed { period: *new, deadline, jitter, priority })
            }
            (
                ServiceTerms::Guaranteed { period, jitter, priority, .. },
                Offer::Deadline { deadline: new },
            ) => Some(ServiceTerms::Guaranteed { period, deadline: *new, jitter, priority }),
            (ServiceTerms::Server { budget, priority, .. }, Offer::Period { period: new }) => {
                Some(ServiceTerms::Server { budget, period: *new, priority })
            }
            // A server has the deadline that its period is.
            _ => None,
        }
    }

    /// Its deadline, if that stays where another period is offered.
    fn kept_deadline(&self) -> Option<Nanos> {
        match self.terms.service {
            ServiceTerms::Guaranteed { period, deadline, .. } => {
                (self.keeps_deadline || deadline != period).then_some(deadline)
            }
            ServiceTerms::Background | ServiceTerms::Server { .. } => None,
        }
    }
}

/// One refused model before what is admitted.
pub(crate) struct Bargain<'a> {
    pub(crate) admission: &'a AdmissionController,
    pub(crate) memory: &'a MemoryOrchestrator,
    /// What is admitted on the whole device, in order.
    pub(crate) admitted: &'a [(ModelId, &'a Asked)],
    /// The id that the next admission gives.
    pub(crate) newcomer: ModelId,
    pub(crate) asked: &'a Asked,
}

impl Bargain<'_> {
    /// What would be admitted instead. Empty where a budget of its own refuses the model: the caller
    /// has set it.
    ///
    /// Costs some hundred analyses of the whole set, and a plan of all memory for each offer.
    pub(crate) fn offers(&self, why: &Refusal) -> Vec<CounterOffer> {
        let offers = match why {
            Refusal::MemoryBudget { .. }
            | Refusal::ComputeBudget { .. }
            | Refusal::Streams { .. }
            | Refusal::TooManySuspended { .. }
            | Refusal::TooManyModels { .. } => Vec::new(),
            // Time would allow it, and allows it all the more in a smaller set.
            Refusal::DeviceMemory { .. } => self.evictions(),
            _ => self.in_time(),
        };
        let admitted = offers.into_iter().filter(|offer| self.admits(offer));
        admitted.map(|offer| self.worded(offer)).collect()
    }

    /// The changes that the analysis accepts.
    fn in_time(&self) -> Vec<Offer> {
        let mut offers = self.admission.counter_offers(&self.asked.terms);
        // The scheduler moves a deadline that equals its period, and this one may stay.
        if self.asked.keeps_deadline {
            offers.retain(|offer| !matches!(offer, Offer::Period { .. }));
            let period = self.least_period();
            offers.splice(0..0, period.map(|period| Offer::Period { period }));
        }
        offers.into_iter().filter_map(|offer| self.as_printed(offer)).collect()
    }

    /// The same offer at the length that is printed, if the analysis accepts that too: the longer time
    /// is not the one that was tried.
    fn as_printed(&self, offer: Offer) -> Option<Offer> {
        let printed = match offer {
            Offer::Period { period } => Offer::Period { period: period.shown() },
            Offer::Deadline { deadline } => Offer::Deadline { deadline: deadline.shown() },
            other => return Some(other),
        };
        self.accepts(self.asked.changed(&printed)?).then_some(printed)
    }

    /// Whether the analysis accepts the newcomer on other terms of service.
    fn accepts(&self, service: ServiceTerms) -> bool {
        let AdmissionConfig { policy, overheads, .. } = *self.admission.config();
        let terms = Terms { service, ..self.asked.terms.clone() };
        let proposed = terms.proposed(self.newcomer, &overheads);
        let Ok(Proposal { task: Some(task), .. }) = proposed else { return false };
        let set = self.admission.tasks().with(task);
        set.is_ok_and(|set| decide(&set, &Setting::admission(policy, overheads)).is_ok())
    }

    /// The smallest period with which the analysis accepts the newcomer, its deadline kept.
    fn least_period(&self) -> Option<Nanos> {
        let ServiceTerms::Guaranteed { period, .. } = self.asked.terms.service else {
            return None;
        };
        let at = |period| self.asked.changed(&Offer::Period { period });
        let accepts = |period| at(period).is_some_and(|service| self.accepts(service));
        let (mut refused, mut accepted) = (period, period);
        while !accepts(accepted) {
            if accepted >= period.saturating_mul(LONGEST_PERIOD).min(Task::LONGEST) {
                return None;
            }
            (refused, accepted) = (accepted, accepted.saturating_mul(2).min(Task::LONGEST));
        }
        while refused + Nanos::EPSILON < accepted {
            let middle = Nanos(refused.0.midpoint(accepted.0));
            *(if accepts(middle) { &mut accepted } else { &mut refused }) = middle;
        }
        Some(accepted)
    }

    /// The eviction of each admitted model, not tried yet.
    fn evictions(&self) -> Vec<Offer> {
        self.admitted.iter().map(|(model, _)| Offer::Without { model: *model }).collect()
    }

    /// Whether admission would find nothing but time to object to.
    fn admits(&self, offer: &Offer) -> bool {
        match offer {
            Offer::Without { model } => self.fits_without(*model),
            Offer::Stages { model, stages } => self.affords(*model, *stages) && self.fits(),
            _ => self.fits(),
        }
    }

    /// Whether a model cut into `stages` keeps its compute budget: each stage is dispatched.
    fn affords(&self, model: ModelId, stages: u32) -> bool {
        let admitted = self.admitted.iter().find(|(known, _)| *known == model);
        let Terms { costs, budget, .. } = &admitted.map_or(self.asked, |(_, asked)| asked).terms;
        let dispatch = self.admission.config().overheads.dispatch;
        let cost = costs.iter().fold(Nanos::ZERO, |sum, cost| sum.saturating_add(*cost));
        cost.saturating_add(dispatch.saturating_mul(u64::from(stages))) <= budget.compute
    }

    /// Whether the newcomer's memory fits beside what is bound, and into its own budget.
    fn fits(&self) -> bool {
        let planned = self.memory.plan(memory(self.newcomer, self.asked));
        planned.is_ok_and(|planned| planned.usage().total() <= self.asked.terms.budget.memory)
    }

    /// The same had `gone` never been there.
    fn fits_without(&self, gone: ModelId) -> bool {
        let others = self.admitted.iter().filter(|(model, _)| *model != gone);
        let request = PlanRequest {
            capacity: self.memory.capacity(),
            models: others
                .chain([&(self.newcomer, self.asked)])
                .map(|(model, asked)| memory(*model, asked))
                .collect(),
            fixed: Vec::new(),
        };
        let plan = place::stacked(&request).and_then(|draft| Ok(draft.check(&request)?));
        plan.is_ok_and(|plan| {
            plan.usage_of(self.newcomer).total() <= self.asked.terms.budget.memory
        })
    }

    fn worded(&self, offer: Offer) -> CounterOffer {
        let name = |model: ModelId| {
            let known = self.admitted.iter().find(|(id, _)| *id == model);
            known.map_or(&self.asked.name, |(_, asked)| &asked.name).clone()
        };
        CounterOffer::new(offer, self.asked.kept_deadline(), name)
    }
}

fn memory(model: ModelId, asked: &Asked) -> ModelMemory {
    ModelMemory { model, partition: asked.partition, tensors: asked.tensors.clone() }
}

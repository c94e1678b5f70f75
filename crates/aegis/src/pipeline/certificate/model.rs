//! One model of a certificate: what it asked for, what that comes to, and where it lies.

use std::collections::{BTreeMap, BTreeSet};

use aegis_memory::{Placement, TensorClass, TensorLifetime};
use aegis_sched::admission::Terms;
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::Overheads;
use aegis_sched::wcet::Method;
use aegis_trace::{Bytes, ModelId, Nanos, ServiceTerms};
use aegis_verify as verify;

use super::super::source::stand_in;
use super::super::{Pipeline, Verdict, evidence_of};
use super::CertificateError;
use crate::error::Error;
use crate::evidence::{Evidence, ModelEvidence};
use crate::runtime::Runtime;
use crate::workload::{BestEffort, Model, WcetRule};

/// All that a certificate is made from.
pub(super) struct Context<'c> {
    pub(super) pipeline: &'c Pipeline,
    pub(super) runtime: &'c Runtime,
    pub(super) verdicts: &'c [Verdict],
    /// On which terms each was admitted, or asked for it.
    pub(super) terms: &'c [Terms],
    /// What each asked for, before it was known what triggers it.
    pub(super) asked: &'c [Terms],
    pub(super) evidence: Option<&'c Evidence>,
    pub(super) ranks: Vec<Option<u32>>,
}

/// The place of a model, or of a partition, as certificates write it.
pub(super) fn index(place: usize) -> u32 {
    u32::try_from(place).expect("a workload has a few hundred models")
}

/// For each model, its place among the distinct priorities of its partition, where those are read.
pub(super) fn ranks(pipeline: &Pipeline) -> Vec<Option<u32>> {
    let workload = pipeline.workload();
    let priority = |model: &Model| match model.best_effort {
        Some(BestEffort::Background) => None,
        Some(BestEffort::Server(server)) => server.priority,
        None => model.priority,
    };
    let rank = |model: &Model| {
        if workload.policy_of(model) != PolicyKind::Priority {
            return None;
        }
        let own = priority(model)?;
        let beside = workload.models.iter().filter(|it| it.partition == model.partition);
        let more_urgent: BTreeSet<u32> =
            beside.filter_map(priority).filter(|other| *other < own).collect();
        Some(index(more_urgent.len()))
    };
    workload.models.iter().map(rank).collect()
}

/// `cost / period` in units of 2^-63, rounded up, 2^64 - 1 at most.
pub(super) fn share(cost: Nanos, period: Nanos) -> u64 {
    let share = (u128::from(cost.0) << 63).div_ceil(u128::from(period.0));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// How many bytes lie in at least one of the ranges.
pub(super) fn covered(ranges: impl Iterator<Item = verify::Placed>) -> Bytes {
    let mut edges: Vec<(u64, i32)> =
        ranges.flat_map(|range| [(range.offset, 1), (range.end, -1)]).collect();
    edges.sort_unstable();
    let (mut open, mut since, mut sum) = (0, 0, 0);
    for (at, step) in edges {
        sum += if open > 0 { at - since } else { 0 };
        (open, since) = (open + step, at);
    }
    Bytes(sum)
}

/// Where the tensors of a model that share addresses lie.
pub(super) fn shared(model: &verify::Model) -> impl Iterator<Item = verify::Placed> {
    model.tensors.iter().filter(|tensor| tensor.live.is_some()).filter_map(|tensor| tensor.at)
}

impl Context<'_> {
    /// Every model, in file order.
    pub(super) fn models(&self) -> Result<Vec<verify::Model>, Error> {
        let mut models: Vec<verify::Model> = Vec::with_capacity(self.terms.len());
        for place in 0..self.terms.len() {
            let model = self.model(place, &models)?;
            models.push(model);
        }
        Ok(models)
    }

    /// The place of the model of an id: one that was admitted, or where one `asks`, one that was
    /// admitted before it or itself. A later one may have got the id that it would have had.
    pub(super) fn place_of(&self, model: ModelId, asks: Option<usize>) -> u32 {
        let is_it =
            |verdict: &Verdict| verdict.outcome.as_ref().is_ok_and(|handle| handle.id() == model);
        let known = &self.verdicts[..asks.unwrap_or(self.verdicts.len())];
        let found = known.iter().position(is_it).or(asks);
        index(found.expect("a proof speaks of models that are there"))
    }

    fn model(&self, place: usize, before: &[verify::Model]) -> Result<verify::Model, Error> {
        let (asked, terms) = (&self.pipeline.workload().models[place], &self.terms[place]);
        let verdict = &self.verdicts[place];
        let overheads = self.pipeline.workload().overheads;
        let evidence = evidence_of(self.evidence, asked);
        let partition = self.pipeline.partition_name(asked);
        let source = stand_in(asked, evidence);
        let loaded = self.runtime.load_on(&asked.name, &source, partition)?;
        let needed = loaded.backend.memory();
        let placements = verdict.outcome.as_ref().ok().map(|handle| self.placements(handle.id()));
        let suspend = terms.may_be_suspended;
        let tensors = tensors(needed, placements.as_deref(), suspend);
        let rule = &self.pipeline.workload().wcet;
        let measured =
            evidence.map(|evidence| measured(&asked.name, evidence, rule)).transpose()?;
        let mut model = verify::Model {
            name: asked.name.clone(),
            partition: index(asked.partition.unwrap_or(0)),
            measured,
            stages: terms.costs.clone(),
            suspend,
            service: service(terms, self.ranks[place]),
            budget: budget(terms),
            left: verify::Left { memory: 0, streams: 0, compute: None },
            charge: charge(terms, &overheads),
            need: need(&tensors),
            tensors,
            outcome: verify::Outcome::Admitted,
        };
        model.left = self.left(&model, placements.is_some());
        model.outcome = match &verdict.outcome {
            Ok(_) => verify::Outcome::Admitted,
            Err(Error::Refused { refusal, .. }) => {
                verify::Outcome::Refused(self.refusal(place, &model, before, refusal)?)
            }
            Err(_) => {
                let why = "it was not decided about, since something failed";
                let model = asked.name.clone();
                return Err(CertificateError::Uncovered { model, why }.into());
            }
        };
        Ok(model)
    }

    fn placements(&self, model: ModelId) -> Vec<Placement> {
        let admissions = self.runtime.lock_admissions();
        admissions.memory.bound().placements_of(model).unwrap_or_default().to_vec()
    }

    /// What is left of the budgets of a model.
    fn left(&self, model: &verify::Model, is_admitted: bool) -> verify::Left {
        let verify::Budget { memory, streams, compute } = model.budget;
        let there = self.pipeline.workload().device.streams;
        let need = &model.need;
        let shared = if is_admitted { need.covered } else { need.peak };
        let less = |limit: u64, used: u64| {
            let (limit, used) = (i64::try_from(limit), i64::try_from(used));
            limit.unwrap_or(i64::MAX).saturating_sub(used.unwrap_or(i64::MAX))
        };
        verify::Left {
            memory: less(memory.0, need.resident.0.saturating_add(shared.0)),
            streams: i64::from(there) - i64::from(streams),
            compute: compute.map(|limit| less(limit.0, model.charge.job.0)),
        }
    }
}

fn measured(
    name: &str,
    evidence: &ModelEvidence,
    rule: &WcetRule,
) -> Result<verify::Measured, CertificateError> {
    let uncovered = |why| CertificateError::Uncovered { model: name.to_owned(), why };
    let model = evidence.model.clone().try_into();
    let method = match rule.method {
        Method::Auto => Some(verify::Method::Auto),
        Method::Order => Some(verify::Method::Order),
        Method::Gpd => Some(verify::Method::Gpd),
        Method::Gev => Some(verify::Method::Gev),
        Method::Margin => Some(verify::Method::Margin),
        _ => None,
    };
    Ok(verify::Measured {
        model: model.map_err(|_| uncovered("its evidence has no hash of the model"))?,
        method: method
            .ok_or_else(|| uncovered("certificates do not know how its cost was made"))?,
        margin_percent: rule.margin_percent,
    })
}

fn service(terms: &Terms, rank: Option<u32>) -> verify::Service {
    match terms.service {
        ServiceTerms::Guaranteed { period, deadline, jitter, .. } => {
            verify::Service::Guaranteed { period, deadline, jitter, rank }
        }
        ServiceTerms::Background => verify::Service::Background,
        ServiceTerms::Server { budget, period, .. } => {
            verify::Service::Server { budget, period, rank }
        }
    }
}

fn budget(terms: &Terms) -> verify::Budget {
    let compute = Some(terms.budget.compute).filter(|limit| *limit < Nanos::MAX);
    verify::Budget { memory: terms.budget.memory, streams: terms.budget.streams, compute }
}

/// What a model is charged, as admission charges it.
fn charge(terms: &Terms, overheads: &Overheads) -> verify::Charge {
    let (stages, suspend) = (&terms.costs, terms.may_be_suspended);
    let job = overheads.total(stages);
    let piece = if suspend { overheads.longest(stages) } else { job };
    match terms.service {
        ServiceTerms::Guaranteed { period, deadline, jitter, .. } => {
            let own = overheads.of_stage(stages.len() - 1, stages.len());
            let last = if suspend { stages[stages.len() - 1].saturating_add(own) } else { job };
            let room = signed(deadline) - signed(jitter) - signed(job);
            let share = share(job, period);
            verify::Charge { job, cost: job, longest: piece, last, share, room }
        }
        ServiceTerms::Server { budget, period, .. } => verify::Charge {
            job,
            cost: budget,
            longest: piece,
            last: Nanos::EPSILON,
            share: share(budget, period),
            room: signed(period) - signed(budget),
        },
        ServiceTerms::Background => {
            let most = overheads.most();
            let longest = stages.iter().copied().max().unwrap_or(Nanos::ZERO);
            let longest = match suspend {
                true => longest.saturating_add(most),
                false => job.max(most.saturating_add(Nanos::EPSILON)),
            };
            let zero = Nanos::ZERO;
            verify::Charge { job, cost: zero, longest, last: zero, share: 0, room: 0 }
        }
    }
}

/// A time of a task, which is at most 2^62.
fn signed(time: Nanos) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// The tensors that a model declares, with their places if it has any.
fn tensors(
    needed: &[TensorLifetime],
    placements: Option<&[Placement]>,
    suspend: bool,
) -> Vec<verify::Tensor> {
    let places = placements.unwrap_or_default().iter();
    let places: BTreeMap<_, _> = places.map(|it| (it.tensor, it.offset)).collect();
    let tensor = |needed: &TensorLifetime| {
        let TensorLifetime { tensor, class, span, size, alignment } = *needed;
        let (class, shares) = match class {
            TensorClass::Persistent => (verify::Class::Persistent, false),
            TensorClass::Io => (verify::Class::Io, false),
            TensorClass::Carried => (verify::Class::Carried, !suspend),
            TensorClass::Scratch => (verify::Class::Scratch, true),
        };
        let at = places
            .get(&tensor)
            .map(|offset| verify::Placed { offset: *offset, end: offset.saturating_add(size.0) });
        let live = shares.then(|| (span.start(), span.end()));
        let blocks = size.0.div_ceil(alignment);
        verify::Tensor { class, live, size, alignment, blocks, at }
    };
    needed.iter().map(tensor).collect()
}

fn need(tensors: &[verify::Tensor]) -> verify::Need {
    let alone = tensors.iter().filter(|tensor| tensor.live.is_none());
    let steps = || tensors.iter().filter_map(|tensor| tensor.live);
    let live_at = |step: u32| -> Bytes {
        let live = |tensor: &&verify::Tensor| {
            tensor.live.is_some_and(|(from, to)| (from..to).contains(&step))
        };
        tensors.iter().filter(live).map(|tensor| tensor.size).sum()
    };
    let shared = || tensors.iter().filter(|tensor| tensor.live.is_some());
    let of_class = |class| {
        let of = tensors.iter().filter(|tensor| tensor.class == class);
        of.map(|tensor| tensor.size).sum::<Bytes>()
    };
    verify::Need {
        persistent: of_class(verify::Class::Persistent),
        io: of_class(verify::Class::Io),
        carried: of_class(verify::Class::Carried),
        scratch: of_class(verify::Class::Scratch),
        resident: alone.map(|tensor| tensor.size).sum(),
        peak: steps().map(|(from, _)| live_at(from)).max().unwrap_or(Bytes::ZERO),
        steps: steps().map(|(from, to)| u64::from(to - from)).sum(),
        covered: covered(shared().filter_map(|tensor| tensor.at)),
    }
}

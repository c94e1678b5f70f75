//! A refusal of a certificate: the one evaluation that refuses a model.
//!
//! A refusal that passes by itself, or of which only a search knows that nothing else was possible, is
//! none that somebody else could check, and has no certificate.

use aegis_sched::admission::AdmissionController;
use aegis_sched::analysis::Setting;
use aegis_sched::analysis::chain::Chain;
use aegis_sched::analysis::derivation::{
    NotDerived, RefusalDerivation, SteppedRefusal, derive_refusal, derive_refusal_with,
};
use aegis_sched::task::{Background, Task, TaskSet};
use aegis_trace::{Bytes, ModelId, Refusal};
use aegis_verify as verify;
use aegis_verify::{Outcome, Witness};

use super::CertificateError;
use super::model::{Context, index};
use crate::workload::ChainKind;

impl Context<'_> {
    /// Why the model at `place` was refused, beside the models `before` it.
    pub(super) fn refusal(
        &self,
        place: usize,
        model: &verify::Model,
        before: &[verify::Model],
        refusal: &Refusal,
    ) -> Result<verify::Refusal, CertificateError> {
        match refusal {
            Refusal::Overutilised { .. }
            | Refusal::DemandExceedsWindow { .. }
            | Refusal::ResponseExceedsDeadline { .. }
            | Refusal::CostExceedsDeadline { .. }
            | Refusal::Undecided { .. } => self.in_time(place, model, refusal),
            _ => {
                let witness = self.witness(model, before, refusal)?;
                Ok(verify::Refusal { raised: Vec::new(), witness })
            }
        }
    }

    /// The same where time is not the reason.
    fn witness(
        &self,
        model: &verify::Model,
        before: &[verify::Model],
        refusal: &Refusal,
    ) -> Result<Witness, CertificateError> {
        let uncovered = |why| CertificateError::Uncovered { model: model.name.clone(), why };
        match refusal {
            Refusal::MemoryBudget { .. } => match model.left.memory < 0 {
                true => Ok(Witness::MemoryBudget),
                false => Err(uncovered("the plan takes more than the model needs at least")),
            },
            Refusal::DeviceMemory { limit, .. } => {
                let (resident, peak) = least_memory(model, before);
                match resident + peak > *limit {
                    true => Ok(Witness::DeviceMemory { resident, peak }),
                    false => {
                        Err(uncovered("no plan was found, and that there is none is not proved"))
                    }
                }
            }
            Refusal::ComputeBudget { .. } => Ok(Witness::ComputeBudget),
            Refusal::ServerBudget { .. } => Ok(Witness::ServerBudget),
            Refusal::Streams { .. } => Ok(Witness::Streams),
            Refusal::TooManySuspended { .. } => {
                let counts = |it: &&verify::Model| {
                    let here = it.partition == model.partition;
                    let suspendable = it.suspend && it.stages.len() > 1;
                    here && suspendable && it.outcome == Outcome::Admitted
                };
                let admitted = index(before.iter().filter(counts).count());
                Ok(Witness::Suspended { admitted })
            }
            Refusal::MemoryPressure { free, .. } => match *free == self.free(before) {
                true => Ok(Witness::MemoryPressure { free: *free }),
                false => Err(uncovered("others had memory then, which cannot be recomputed")),
            },
            _ => Err(uncovered("certificates know no such inequality")),
        }
    }

    fn in_time(
        &self,
        place: usize,
        model: &verify::Model,
        refusal: &Refusal,
    ) -> Result<verify::Refusal, CertificateError> {
        let admissions = self.runtime.lock_admissions();
        let controller = &admissions.all()[model.partition as usize];
        let set = self.set_before(place, model, controller)?;
        let config = controller.config();
        let setting = Setting::admission(config.policy, config.overheads);
        let chains = self.chains_before(place, &set);
        // Where models trigger one another, the plan may have refused beside a model that memory did not
        // admit afterwards; it is decided anew then.
        let is_plain =
            !self.pipeline.has_triggers() && !matches!(refusal, Refusal::Undecided { .. });
        let derived = match is_plain {
            true => derive_refusal(&set, &setting, refusal)
                .map(|refusal| SteppedRefusal { steps: Vec::new(), refusal }),
            false => derive_refusal_with(&set, &chains, &setting),
        };
        let SteppedRefusal { steps, refusal } = derived.map_err(|cause| self.none(model, cause))?;
        let witness = |derived| self.derived(place, model, &set, derived);
        let raised = steps.into_iter().map(|step| verify::Raised {
            model: self.place_of(step.model, Some(place)),
            by: witness(step.by),
            jitter: step.jitter,
        });
        Ok(verify::Refusal { raised: raised.collect(), witness: witness(refusal) })
    }

    fn none(&self, model: &verify::Model, cause: NotDerived) -> CertificateError {
        CertificateError::NotDerived { of: format!("the refusal of {}", model.name), cause }
    }

    /// What was admitted before the model at `place`, and that, with the jitters that were asked for.
    fn set_before(
        &self,
        place: usize,
        model: &verify::Model,
        controller: &AdmissionController,
    ) -> Result<TaskSet, CertificateError> {
        let invalid = || CertificateError::Uncovered {
            model: model.name.clone(),
            why: "its timing makes no sense to the analysis",
        };
        let overheads = &controller.config().overheads;
        let (mut tasks, mut longest) = (Vec::<Task>::new(), Default::default());
        let is_here = |other: &usize| {
            let admitted = self.verdicts[*other].outcome.is_ok();
            *other == place || (admitted && self.is_in(model.partition as usize, *other))
        };
        for other in (0..=place).filter(is_here) {
            let id = self.verdicts[other].id;
            let of = self.asked[other].proposed(id, overheads).map_err(|_| invalid())?;
            tasks.extend(of.task);
            longest = of.piece.max(longest); // Only the length of a piece is in a witness.
        }
        let set = TaskSet::new(tasks).map_err(|_| invalid())?;
        Ok(set.with_background(Background { longest, of: None }))
    }

    /// The triggered chains of these tasks, as far as their members are among them.
    fn chains_before(&self, place: usize, set: &TaskSet) -> Vec<Chain> {
        let there = |member: &usize| {
            let id = self.verdicts.get(*member).filter(|_| *member <= place)?.id;
            set.get(id).filter(|_| *member == place || self.verdicts[*member].outcome.is_ok())?;
            Some(id)
        };
        let chains = self.pipeline.workload().chains.iter();
        let triggered = chains.filter(|chain| chain.kind == ChainKind::Triggered);
        let members = triggered.map(|chain| chain.models.iter().filter_map(there).collect());
        let linked = members.filter(|members: &Vec<ModelId>| members.len() > 1);
        linked.map(|members| Chain::new(members).expect("each occurs once")).collect()
    }

    fn derived(
        &self,
        place: usize,
        model: &verify::Model,
        set: &TaskSet,
        derived: RefusalDerivation,
    ) -> Witness {
        let name = |model: ModelId| self.place_of(model, Some(place));
        match derived {
            RefusalDerivation::Load => {
                let shares = set.tasks().iter().map(|task| self.share(task, place, model));
                Witness::Load { share: shares.fold(0, u64::saturating_add) }
            }
            RefusalDerivation::Alone { model } => Witness::Alone { model: name(model) },
            RefusalDerivation::Demand { window, demand, blocking, blocked_by, committed } => {
                let blocked_by = blocked_by.map(name);
                Witness::Demand { window, demand, blocking, blocked_by, committed }
            }
            RefusalDerivation::Response {
                model,
                blocking,
                blocked_by,
                committed,
                job,
                start,
                response,
            } => Witness::Response {
                model: name(model),
                blocking,
                blocked_by: blocked_by.map(name),
                committed,
                job: index(job),
                start,
                response,
            },
            RefusalDerivation::Due { model, job, committed, response } => Witness::Due {
                model: name(model),
                due: job.due,
                blocking: job.blocking,
                committed,
                start: job.start,
                response,
            },
            RefusalDerivation::Endless { window, jobs } => Witness::Endless { window, jobs },
            RefusalDerivation::Queue { model, ready, response } => {
                Witness::Queue { model: name(model), ready, response }
            }
        }
    }

    fn is_in(&self, partition: usize, place: usize) -> bool {
        self.pipeline.workload().models[place].partition.unwrap_or(0) == partition
    }

    /// The share of a task with its overheads.
    fn share(&self, task: &Task, place: usize, model: &verify::Model) -> u64 {
        if task.model() == self.verdicts[place].id {
            return model.charge.share;
        }
        let overheads = self.pipeline.workload().overheads;
        let cost = match task.is_server() {
            true => task.cost(),
            false => overheads.total(task.stages()),
        };
        super::model::share(cost, task.period())
    }
}

/// What all models before and this one need at least: bytes of their own, and the largest peak of
/// each partition.
fn least_memory(model: &verify::Model, before: &[verify::Model]) -> (Bytes, Bytes) {
    let admitted = before.iter().filter(|it| it.outcome == Outcome::Admitted);
    let all: Vec<&verify::Model> = admitted.chain([model]).collect();
    let resident = all.iter().map(|it| it.need.resident).sum();
    let last = all.iter().map(|it| it.partition).max().unwrap_or(0);
    let peak = |partition: u32| {
        let of = all.iter().filter(|it| it.partition == partition);
        of.map(|it| it.need.peak).max().unwrap_or(Bytes::ZERO)
    };
    (resident, (0..=last).map(peak).sum())
}

//! A refusal of a certificate: the one evaluation that refuses a model.
//!
//! A refusal that passes by itself, or that says only that no answer was found, is none that somebody
//! else could check, and has no certificate.

use aegis_sched::analysis::Setting;
use aegis_sched::analysis::derivation::{RefusalDerivation, derive_refusal};
use aegis_sched::task::{Background, Task, TaskSet};
use aegis_trace::{Bytes, ModelId, Refusal};
use aegis_verify as verify;
use aegis_verify::{Outcome, Witness};

use super::CertificateError;
use super::model::Context;

impl Context<'_> {
    /// Why the model at `place` was refused, beside the models `before` it.
    pub(super) fn witness(
        &self,
        place: usize,
        model: &verify::Model,
        before: &[verify::Model],
        refusal: &Refusal,
    ) -> Result<Witness, CertificateError> {
        let uncovered = |why| CertificateError::Uncovered { model: model.name.clone(), why };
        match refusal {
            Refusal::Overutilised { .. }
            | Refusal::DemandExceedsWindow { .. }
            | Refusal::ResponseExceedsDeadline { .. }
            | Refusal::CostExceedsDeadline { .. }
            | Refusal::Undecided { .. } => self.in_time(place, model, refusal),
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
                let admitted = super::model::index(before.iter().filter(counts).count());
                Ok(Witness::Suspended { admitted })
            }
            Refusal::MemoryPressure { .. } => {
                Err(uncovered("how much memory was free for a moment cannot be recomputed"))
            }
            _ => Err(uncovered("certificates know no such inequality")),
        }
    }

    fn in_time(
        &self,
        place: usize,
        model: &verify::Model,
        refusal: &Refusal,
    ) -> Result<Witness, CertificateError> {
        let (asks, partition) = (self.verdicts[place].id, model.partition as usize);
        let admissions = self.runtime.lock_admissions();
        let controller = &admissions.all()[partition];
        let config = controller.config();
        let invalid = |_| CertificateError::Uncovered {
            model: model.name.clone(),
            why: "its timing makes no sense to the analysis",
        };
        let own = self.terms[place].proposed(asks, &config.overheads).map_err(invalid)?;
        let earlier = |id: ModelId| {
            let mut before = self.verdicts[..place].iter();
            before.any(|verdict| verdict.outcome.as_ref().is_ok_and(|handle| handle.id() == id))
        };
        let tasks = controller.tasks().tasks().iter().filter(|task| earlier(task.model()));
        let tasks: Vec<Task> = tasks.cloned().chain(own.task).collect();
        // Of the pieces in the background only their length is in a witness.
        let mut longest = own.piece;
        for other in 0..place {
            let id = self.verdicts[other].id;
            if self.verdicts[other].outcome.is_ok() && self.is_in(partition, other) {
                let of = self.terms[other].proposed(id, &config.overheads).map_err(invalid)?;
                longest = longest.max(of.piece);
            }
        }
        let set = TaskSet::new(tasks).map_err(|cause| invalid(cause.into()))?;
        let set = set.with_background(Background { longest, of: None });
        let setting = Setting::admission(config.policy, config.overheads);
        let derived = derive_refusal(&set, &setting, refusal);
        let of = || format!("the refusal of {}", model.name);
        let derived = derived.map_err(|cause| CertificateError::NotDerived { of: of(), cause })?;
        let name = |model: ModelId| self.place_of(model, Some(place));
        Ok(match derived {
            RefusalDerivation::Load => {
                let shares = set.tasks().iter().map(|task| self.share(task, place, model));
                Witness::Load { share: shares.fold(0, u64::saturating_add) }
            }
            RefusalDerivation::Alone { .. } => Witness::Alone,
            RefusalDerivation::Demand { window, demand, blocking, blocked_by } => {
                Witness::Demand { window, demand, blocking, blocked_by: blocked_by.map(name) }
            }
            RefusalDerivation::Response { model, blocking, blocked_by, job, start, response } => {
                let (model, blocked_by) = (name(model), blocked_by.map(name));
                let job = super::model::index(job);
                Witness::Response { model, blocking, blocked_by, job, start, response }
            }
            RefusalDerivation::Queue { model, ready, response } => {
                Witness::Queue { model: name(model), ready, response }
            }
        })
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

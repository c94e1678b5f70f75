//! The answer of a workload as a certificate: what was asked for, and the numbers of the proof.
//!
//! The certificate says what `aegis check` says, for somebody who does not trust it. Models are gone
//! through in file order, as admission did: what was admitted is proved together, partition by
//! partition; each refusal is stated beside what was admitted before it.
//!
//! # Invariants
//! 1. What is written has passed `aegis-verify`. What it cannot be shown to hold is not written: the
//!    answer then has no certificate, and the reason is given.
//! 2. No number is taken from `aegis-verify`: it is there to disagree.

mod model;
mod refusal;

use std::collections::BTreeMap;

use aegis_memory::{Band, PressureThresholds};
use aegis_sched::admission::{AdmissionController, Terms};
use aegis_sched::analysis::Setting;
use aegis_sched::analysis::derivation::{Derivation, Derived, NotDerived, derive};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::Overheads;
use aegis_trace::{Bytes, Category, ModelId, Nanos};
use aegis_verify as verify;
use aegis_verify::{Certificate, Digest, Fault, Outcome};

use self::model::{Context, ranks};
use super::plan::Planned;
use super::{Pipeline, Verdict};
use crate::chain::ChainReport;
use crate::error::Error;
use crate::runtime::Runtime;
use crate::workload::ChainKind;

/// Why an answer has no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file that belongs to the answer could not be read again.
    #[error("{what} could not be read again")]
    Read {
        /// Which file.
        what: &'static str,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// A file changed while the answer was found.
    #[error("{what} has changed since it was read")]
    Changed {
        /// Which file.
        what: &'static str,
    },
    /// A proof cannot be written down.
    #[error("{of} cannot be certified")]
    NotDerived {
        /// A model, or a partition.
        of: String,
        /// Why.
        #[source]
        cause: NotDerived,
    },
    /// Inputs go ahead of their stages. That costs are of runs beside copies is an assumption that no
    /// certificate states.
    #[error("`uploads_ahead` cannot be certified: no certificate states costs beside copies")]
    UploadsAhead,
    /// Something about a model that no certificate covers.
    #[error("{model} cannot be certified: {why}")]
    Uncovered {
        /// Whose.
        model: String,
        /// What is missing.
        why: &'static str,
    },
    /// A triggered model has less jitter than its trigger and the hand-over take. A defect of AegisRT.
    #[error(
        "{model} is handed over within {left}, and the workload asks for {asked}, so the answer cannot \
         be trusted; please report this"
    )]
    Handover {
        /// Which model.
        model: String,
        /// What the workload asks for.
        asked: Nanos,
        /// What its jitter leaves.
        left: Nanos,
    },
    /// What was written down does not hold. A defect of AegisRT.
    #[error("the certificate does not hold, so the answer cannot be trusted; please report this")]
    Defect(#[source] Fault),
}

impl CertificateError {
    /// What the caller can do.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Read { .. } | Self::Changed { .. } => Category::Transient,
            Self::NotDerived { .. }
            | Self::UploadsAhead
            | Self::Uncovered { .. }
            | Self::Handover { .. }
            | Self::Defect(_) => Category::Permanent,
        }
    }
}

impl Pipeline {
    /// The answer of [`Pipeline::check`] as the text of a certificate, which `aegis-verify` has checked.
    ///
    /// Reads the workload and its evidence again, to name them by their hashes. Costs an analysis of
    /// each partition and of each refused model, and what the checker costs.
    ///
    /// # Errors
    /// [`Error::Certificate`] where the answer cannot be certified; what [`Pipeline::check`] says.
    pub fn certify(
        &self,
        runtime: &Runtime,
        verdicts: &[Verdict],
        chains: &[ChainReport],
    ) -> Result<String, Error> {
        let certificate = self.certificate(runtime, verdicts, chains)?;
        verify::check(&certificate).map_err(CertificateError::Defect)?;
        Ok(verify::write(&certificate))
    }

    fn certificate(
        &self,
        runtime: &Runtime,
        verdicts: &[Verdict],
        chains: &[ChainReport],
    ) -> Result<Certificate, Error> {
        if self.workload.overheads.uploads_ahead {
            return Err(CertificateError::UploadsAhead.into());
        }
        let evidence = self.evidence()?;
        let asked = self.terms_asked(&self.profiles(evidence.as_ref()));
        let terms = self.terms_of_all(evidence.as_ref(), &asked, verdicts);
        let workload = self.workload_hash()?;
        let evidence_hash = match evidence {
            Some(_) => Some(hash("the evidence", &self.evidence_path)?),
            None => None,
        };
        let context = Context {
            pipeline: self,
            runtime,
            verdicts,
            terms: &terms,
            asked: &asked,
            evidence: evidence.as_ref(),
            ranks: ranks(self),
        };
        let models = context.models()?;
        let partitions = context.partitions()?;
        let chains = chains.iter().zip(&self.workload.chains);
        let chains: Vec<_> = chains
            .map(|(report, asked)| self.chain_of(report, &asked.models, &models, &partitions))
            .collect::<Result<_, _>>()?;
        let admitted = models.iter().filter(|it| it.outcome == Outcome::Admitted).count();
        let kept = chains.iter().filter(|(_, kept)| *kept).count();
        let all = admitted == models.len() && kept == chains.len();
        let verdict = if all { verify::Verdict::Yes } else { verify::Verdict::No };
        let totals = verify::Totals {
            models: model::index(models.len()),
            admitted: model::index(admitted),
            chains: model::index(chains.len()),
            kept: model::index(kept),
        };
        Ok(Certificate {
            verdict,
            totals,
            workload,
            evidence: evidence_hash,
            overheads: overheads(&self.workload.overheads),
            memory: context.memory(&models),
            partitions,
            models,
            chains: chains.into_iter().map(|(chain, _)| chain).collect(),
        })
    }

    /// A chain with its numbers, and whether it is kept.
    fn chain_of(
        &self,
        report: &ChainReport,
        members: &[usize],
        models: &[verify::Model],
        partitions: &[verify::Partition],
    ) -> Result<(verify::Chain, bool), CertificateError> {
        let handover = match report.kind {
            ChainKind::Triggered => self.handovers(members, models, partitions)?,
            ChainKind::Sampled => Vec::new(),
        };
        let slack = |limit: Option<Nanos>, found: Option<Nanos>| {
            let (limit, found) = (i64::try_from(limit?.0).ok()?, i64::try_from(found?.0).ok()?);
            Some(limit - found)
        };
        let chain = verify::Chain {
            name: report.name.clone(),
            kind: match report.kind {
                ChainKind::Triggered => verify::ChainKind::Triggered,
                ChainKind::Sampled => verify::ChainKind::Sampled,
            },
            handover,
            members: members.iter().map(|place| model::index(*place)).collect(),
            bound: report.bound,
            deadline: report.deadline,
            slack: slack(report.deadline, report.bound),
            age: report.age,
            max_age: report.max_age,
            age_slack: slack(report.max_age, report.age),
        };
        Ok((chain, report.refused.is_empty()))
    }

    /// How each member but the first gets ready.
    fn handovers(
        &self,
        members: &[usize],
        models: &[verify::Model],
        partitions: &[verify::Partition],
    ) -> Result<Vec<verify::Handover>, CertificateError> {
        let response = |place: usize| match models[place].outcome {
            Outcome::Admitted => Some(response(partitions, model::index(place))),
            Outcome::Refused(_) => None,
        };
        let mut before = response(members[0]);
        let mut handovers = Vec::with_capacity(members.len() - 1);
        for place in &members[1..] {
            let (asked, own) = (self.workload.models[*place].jitter, response(*place));
            let of = |trigger: Nanos| {
                let left = jitter(&models[*place]).saturating_sub(trigger);
                left.checked_sub(asked).ok_or_else(|| CertificateError::Handover {
                    model: models[*place].name.clone(),
                    asked,
                    left,
                })
            };
            let spare = own.map(|_| of(before.unwrap_or(Nanos::ZERO))).transpose()?;
            handovers.push(verify::Handover { asked, spare });
            before = own.or(before);
        }
        Ok(handovers)
    }

    /// The terms on which each model was admitted, or those that it asked for.
    fn terms_of_all(
        &self,
        evidence: Option<&crate::evidence::Evidence>,
        asked: &[Terms],
        verdicts: &[Verdict],
    ) -> Vec<Terms> {
        let planned = self.planned(&self.profiles(evidence)).into_iter();
        let models = planned.zip(asked).zip(verdicts);
        let terms = models.map(|((planned, asked), verdict)| match planned {
            Planned::Ask(terms) if verdict.outcome.is_ok() => terms,
            Planned::Ask(_) | Planned::Refuse(_) => asked.clone(),
        });
        terms.collect()
    }

    /// The hash of the workload file, if it still is the one that was read.
    fn workload_hash(&self) -> Result<Digest, CertificateError> {
        let source = &self.workload.source;
        let what = "the workload";
        let bytes =
            std::fs::read(&source.path).map_err(|cause| CertificateError::Read { what, cause })?;
        let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        if text != source.text.as_bytes() {
            return Err(CertificateError::Changed { what });
        }
        Ok(Digest::of(&bytes))
    }
}

fn hash(what: &'static str, path: &std::path::Path) -> Result<Digest, CertificateError> {
    let bytes = std::fs::read(path).map_err(|cause| CertificateError::Read { what, cause })?;
    Ok(Digest::of(&bytes))
}

fn overheads(charged: &Overheads) -> verify::Overheads {
    let Overheads { dispatch, wake, boundary, copy, look_ahead, uploads_ahead: _ } = *charged;
    let charges = verify::Charges {
        only: charged.of_stage(0, 1),
        first: charged.of_stage(0, 3),
        inner: charged.of_stage(1, 3),
        last: charged.of_stage(2, 3),
        idle: charged.wake.saturating_add(charged.dispatch),
    };
    verify::Overheads { dispatch, wake, boundary, copy, look_ahead, charges }
}

fn policy(policy: PolicyKind) -> verify::Policy {
    match policy {
        PolicyKind::Fifo => verify::Policy::Fifo,
        PolicyKind::Rms => verify::Policy::Rms,
        PolicyKind::Dm => verify::Policy::Dm,
        PolicyKind::Edf => verify::Policy::Edf,
        PolicyKind::Priority => verify::Policy::Priority,
    }
}

impl Context<'_> {
    /// Every partition with its proof.
    fn partitions(&self) -> Result<Vec<verify::Partition>, CertificateError> {
        let names = self.runtime.partition_names();
        let admissions = self.runtime.lock_admissions();
        let controllers = admissions.all().iter().zip(names);
        controllers.map(|(controller, name)| self.partition(controller, name)).collect()
    }

    fn partition(
        &self,
        controller: &AdmissionController,
        name: Option<String>,
    ) -> Result<verify::Partition, CertificateError> {
        let config = controller.config();
        let setting = Setting::admission(config.policy, config.overheads);
        let bounds = controller.analysis().map_or(&[][..], |analysis| &analysis.bounds);
        let derived = derive(controller.tasks(), &setting, bounds).map_err(|cause| {
            let of = name.as_ref().map_or("the device".into(), |it| format!("partition {it}"));
            CertificateError::NotDerived { of, cause }
        })?;
        let limit = self.pipeline.workload().scheduler.max_suspended;
        let suspendable = u32::try_from(controller.suspendable()).unwrap_or(u32::MAX);
        let suspended =
            limit.map(|limit| verify::Suspended { limit, left: limit.saturating_sub(suspendable) });
        let Derivation { floor, committed, proof } = derived;
        let costs = controller.tasks().tasks().iter();
        let costs: BTreeMap<ModelId, Nanos> =
            costs.map(|task| (task.model(), task.period())).collect();
        let shares = bounds.iter().map(|bound| model::share(bound.cost, costs[&bound.model]));
        Ok(verify::Partition {
            name,
            policy: policy(config.policy),
            streams: config.streams,
            suspended,
            floor,
            committed,
            share: shares.fold(0, u64::saturating_add),
            proof: self.proof(proof, bounds),
        })
    }

    fn proof(&self, derived: Derived, bounds: &[aegis_sched::analysis::Bound]) -> verify::Proof {
        let place = |model: Option<ModelId>| model.map(|model| self.place_of(model, None));
        let own = |bound: &aegis_sched::analysis::Bound| self.place_of(bound.model, None);
        match derived {
            Derived::FixedPriority(levels) => {
                let levels = levels.into_iter().zip(bounds).map(|(level, bound)| verify::Level {
                    model: own(bound),
                    blocking: level.blocking,
                    blocked_by: place(level.blocked_by),
                    busy: level.busy,
                    starts: level.starts,
                    worst: u32::try_from(level.worst).unwrap_or(u32::MAX),
                    response: bound.response,
                    slack: bound.slack,
                });
                verify::Proof::NpFixedPriority { bounds: levels.collect() }
            }
            Derived::Edf { horizon, points, bounds: worst } => {
                let points = points.into_iter();
                let points = points.map(|(window, needed)| verify::Point { window, needed });
                let of =
                    |(worst, bound): (aegis_sched::analysis::derivation::EdfDerivation, &_)| {
                        let bound: &aegis_sched::analysis::Bound = bound;
                        verify::EdfBound {
                            model: own(bound),
                            worst: worst.map(|it| verify::WorstDue {
                                due: it.due,
                                blocking: it.blocking,
                                start: it.start,
                            }),
                            response: bound.response,
                            slack: bound.slack,
                        }
                    };
                let bounds = worst.into_iter().zip(bounds).map(of).collect();
                verify::Proof::NpEdf { horizon, points: points.collect(), bounds }
            }
            Derived::Fifo { end, ready } => {
                let bounds =
                    ready.into_iter().zip(bounds).map(|(ready, bound)| verify::FifoBound {
                        model: own(bound),
                        ready,
                        response: bound.response,
                        slack: bound.slack,
                    });
                verify::Proof::Fifo { end, bounds: bounds.collect() }
            }
        }
    }

    /// What all admitted models occupy.
    fn memory(&self, models: &[verify::Model]) -> verify::Memory {
        let limit = self.capacity();
        let placed = |it: &&verify::Model| it.outcome == Outcome::Admitted;
        let admitted: Vec<_> = models.iter().filter(placed).collect();
        let resident: Bytes = admitted.iter().map(|it| it.need.resident).sum();
        let scratch = model::covered(admitted.iter().flat_map(|it| model::shared(it)));
        let left = limit.saturating_sub(resident + scratch);
        let room = |enter: Bytes| {
            let signed = |bytes: Bytes| i64::try_from(bytes.0).unwrap_or(i64::MAX);
            signed(self.free(models)) - signed(enter)
        };
        let asked = self.pipeline.workload().device.pressure;
        let pressure = asked.map(|PressureThresholds { low: Band { enter, .. }, .. }| {
            verify::Pressure { enter, room: room(enter) }
        });
        verify::Memory { limit, resident, scratch, left, pressure }
    }

    fn capacity(&self) -> Bytes {
        self.runtime.lock_admissions().memory.bound().capacity()
    }

    /// What is free beside those of `models` that were admitted, as memory pressure counts it.
    fn free(&self, models: &[verify::Model]) -> Bytes {
        let limit = self.capacity();
        let admitted = || models.iter().filter(|it| it.outcome == Outcome::Admitted);
        let resident: Bytes = admitted().map(|it| it.need.resident).sum();
        let offsets = admitted().flat_map(model::shared).map(|at| at.offset);
        let scratch = limit - Bytes(offsets.min().unwrap_or(limit.0));
        limit.saturating_sub(resident + scratch)
    }
}

fn jitter(model: &verify::Model) -> Nanos {
    match model.service {
        verify::Service::Guaranteed { jitter, .. } => jitter,
        verify::Service::Background | verify::Service::Server { .. } => Nanos::ZERO,
    }
}

/// The response of an admitted model.
fn response(partitions: &[verify::Partition], model: u32) -> Nanos {
    let of = |partition: &verify::Partition| -> Option<Nanos> {
        match &partition.proof {
            verify::Proof::NpFixedPriority { bounds } => {
                bounds.iter().find(|it| it.model == model).map(|it| it.response)
            }
            verify::Proof::NpEdf { bounds, .. } => {
                bounds.iter().find(|it| it.model == model).map(|it| it.response)
            }
            verify::Proof::Fifo { bounds, .. } => {
                bounds.iter().find(|it| it.model == model).map(|it| it.response)
            }
        }
    };
    partitions.iter().find_map(of).unwrap_or(Nanos::ZERO)
}

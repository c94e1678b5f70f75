//! What binds a certificate to files: the workload it is for, the evidence that its costs come from.
//!
//! A certificate proves something of the numbers in it. That they are those of a workload file is told by
//! the hash of that file; that the costs follow from samples is recomputed here, as far as the rule is
//! the plain one, the longest sample plus a margin. Other rules estimate, and are not part of this
//! program: what they made is named.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::certificate::{Certificate, Class, Digest, Method, Model};
use crate::fault::{Fault, Time, same};

/// What was found out about costs with the evidence at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvidenceAccount {
    /// Models whose costs were recomputed from the samples.
    pub recomputed: Vec<String>,
    /// Models whose costs another rule made of them.
    pub taken: Vec<String>,
    /// Models whose costs are declared.
    pub declared: Vec<String>,
}

/// Of an evidence file, what a certificate speaks of.
#[derive(Deserialize)]
struct Evidence {
    models: BTreeMap<String, Found>,
}

#[derive(Deserialize)]
struct Found {
    model: Digest,
    memory: FoundMemory,
    samples: Vec<Vec<u64>>,
    scenarios: BTreeMap<String, Vec<Vec<u64>>>,
}

#[derive(Deserialize)]
struct FoundMemory {
    resident: u64,
    scratch: u64,
    #[serde(default)]
    carried: u64,
}

/// Whether the workload file is the one that the certificate is for.
///
/// # Errors
/// Permanent: it is not.
pub fn check_workload(certificate: &Certificate, file: &[u8]) -> Result<(), Fault> {
    same("workload, the hash of the file", certificate.workload, Digest::of(file))
}

/// Whether the evidence file is the one that was used, and costs and sizes are what it says.
///
/// # Errors
/// Permanent: the first number that is not.
pub fn check_evidence(certificate: &Certificate, file: &[u8]) -> Result<EvidenceAccount, Fault> {
    let stated = certificate.evidence.ok_or_else(|| Fault::Senseless {
        place: "evidence".into(),
        why: "the certificate names none: all of its costs are declared",
    })?;
    same("evidence, the hash of the file", stated, Digest::of(file))?;
    let malformed = |_| Fault::Senseless {
        place: "evidence".into(),
        why: "the file must be evidence as `aegis profile` writes it",
    };
    let Evidence { models } = serde_json::from_slice(file).map_err(malformed)?;
    let mut account = EvidenceAccount::default();
    for (place, model) in certificate.models.iter().enumerate() {
        let at = format!("models[{place}]");
        let Some(measured) = model.measured else {
            account.declared.push(model.name.clone());
            continue;
        };
        let found = models.get(&model.name).ok_or_else(|| Fault::Senseless {
            place: format!("{at}.name"),
            why: "the evidence must have a model of this name",
        })?;
        same(format_args!("{at}.measured.model"), measured.model, found.model)?;
        same(format_args!("{at}.stages, how many"), model.stages.len(), found.samples.len())?;
        check_memory(&at, model, &found.memory)?;
        if measured.method == Method::Margin {
            check_costs(&at, model, found, measured.margin_percent)?;
            account.recomputed.push(model.name.clone());
        } else {
            account.taken.push(model.name.clone());
        }
    }
    Ok(account)
}

/// Whether each cost is the longest sample of any scenario plus the margin, rounded up.
fn check_costs(at: &str, model: &Model, found: &Found, percent: u32) -> Result<(), Fault> {
    let scenarios = || found.scenarios.values().chain([&found.samples]);
    for (stage, cost) in model.stages.iter().enumerate() {
        let samples = scenarios().filter_map(|stages| stages.get(stage)).flatten();
        let longest = Time::from(samples.copied().max().unwrap_or(0));
        let follows = (longest * (100 + Time::from(percent))).div_ceil(100);
        same(format_args!("{at}.stages[{stage}]"), Time::from(cost.0), follows)?;
    }
    Ok(())
}

fn check_memory(at: &str, model: &Model, found: &FoundMemory) -> Result<(), Fault> {
    let sum = |classes: &[Class]| {
        let of = model.tensors.iter().filter(|tensor| classes.contains(&tensor.class));
        of.map(|tensor| Time::from(tensor.size.0)).sum::<Time>()
    };
    let stays = found.resident.saturating_sub(found.carried);
    let at = format_args!("{at}.tensors, by class");
    same(at, sum(&[Class::Persistent, Class::Io]), stays.into())?;
    same(at, sum(&[Class::Scratch]), found.scratch.into())?;
    same(at, sum(&[Class::Carried]), found.carried.into())
}

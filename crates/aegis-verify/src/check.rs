//! The whole of a certificate: every part, in the order in which a reader meets them.
//!
//! Models are gone through in the order in which admission decided about them, so each refusal is held
//! against what was there then. What is there in the end is then proved: time partition by partition,
//! memory for all of them together, chains, and the verdict.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use aegis_trace::Nanos;

use crate::ahead::Ahead;
use crate::certificate::{
    Budget, Certificate, Left, Model, Outcome, Partition, Policy, Pressure, Proof, Service,
    Suspended, Totals, Verdict,
};
use crate::charge::{Task, check_charge, check_overheads};
use crate::edf::{Edf, Stated};
use crate::fault::{Fault, Time, Work, at_most, require, same};
use crate::load::{load, shares};
use crate::{chain, fifo, fixed, memory, refusal};

/// The longest name, in bytes.
const NAME_MAX: usize = 64;

/// Recomputes every number and every inequality of a certificate.
///
/// Costs `O(n)` terms for each job, window and instant that the theorems look at, and a comparison of
/// every two tensors, up to a fixed limit of some seconds; needs no file, clock or device.
///
/// # Errors
/// Permanent: the first [`Fault`], with its place.
pub fn check(certificate: &Certificate) -> Result<(), Fault> {
    check_overheads(&certificate.overheads)?;
    check_names(certificate)?;
    chain::check_members(certificate)?;
    let mut walk = Walk::new(certificate);
    for (place, model) in (0..).zip(&certificate.models) {
        check_model(&mut walk, place, model)?;
    }
    let mut responses = BTreeMap::new();
    for (place, partition) in (0..).zip(&certificate.partitions) {
        walk.work.spend("partitions", certificate.models.len())?;
        check_ranks(place, certificate)?;
        responses.extend(check_partition(&mut walk, place, partition)?);
    }
    memory::check(certificate, &mut walk.work)?;
    let kept = chain::check(certificate, &responses)?;
    let admitted = certificate.models.iter().filter(|it| it.outcome == Outcome::Admitted).count();
    let (models, chains) = (certificate.models.len(), certificate.chains.len());
    let Totals { models: m, admitted: a, chains: c, kept: k } = certificate.totals;
    let found = [models, admitted, chains, kept];
    let stated = [m, a, c, k].map(|stated| stated as usize);
    same("totals (models, admitted, chains, kept)", stated, found)?;
    let all = models == admitted && chains == kept;
    same("verdict", certificate.verdict, if all { Verdict::Yes } else { Verdict::No })
}

/// Whether a name is one that a workload can have. Any other could look like a line of the answer.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// Whether names tell things apart, and evidence is named where it is used.
fn check_names(certificate: &Certificate) -> Result<(), Fault> {
    let mut names = BTreeSet::new();
    let fresh = certificate.models.iter().all(|it| is_name(&it.name) && names.insert(&it.name));
    require("models", "every model has a name of its own, of a-z, 0-9, _ and -", fresh)?;
    let mut names = BTreeSet::new();
    let fresh = certificate.chains.iter().all(|it| is_name(&it.name) && names.insert(&it.name));
    require("chains", "every chain has a name of its own, of a-z, 0-9, _ and -", fresh)?;
    let partitions = &certificate.partitions;
    let mut names = BTreeSet::new();
    let whole = partitions.len() == 1 && partitions[0].name.is_none();
    let mut fresh = partitions
        .iter()
        .map(|it| it.name.as_ref().is_some_and(|it| is_name(it) && names.insert(it)));
    let split = !partitions.is_empty() && fresh.all(|named| named);
    let why = "there is one without a name, or each has one of its own, of a-z, 0-9, _ and -";
    require("partitions", why, whole || split)?;
    let placed = certificate.models.iter().all(|it| (it.partition as usize) < partitions.len());
    require("models", "every model runs in a partition that is there", placed)?;
    let used = certificate.models.iter().any(|model| model.measured.is_some());
    let why = "evidence is named exactly if some model was measured";
    require("evidence", why, certificate.evidence.is_some() == used)
}

/// What was admitted up to some model.
pub(crate) struct Walk<'c> {
    pub(crate) certificate: &'c Certificate,
    pub(crate) work: Work,
    /// By partition, the places of its models.
    admitted: Vec<Vec<u32>>,
}

impl<'c> Walk<'c> {
    fn new(certificate: &'c Certificate) -> Self {
        let admitted = vec![Vec::new(); certificate.partitions.len()];
        Self { certificate, work: Work::new(), admitted }
    }

    pub(crate) fn policy(&self, partition: u32) -> Policy {
        self.certificate.partitions[partition as usize].policy
    }

    /// The models of a partition that were admitted so far, and the one that asks.
    pub(crate) fn admitted(
        &self,
        partition: u32,
        asks: Option<u32>,
    ) -> impl Iterator<Item = (u32, &'c Model)> + use<'_, 'c> {
        let places = self.admitted[partition as usize].iter().copied().chain(asks);
        places.map(|place| (place, &self.certificate.models[place as usize]))
    }

    /// Their tasks.
    pub(crate) fn tasks(&self, partition: u32, asks: Option<u32>) -> Vec<Task> {
        let policy = self.policy(partition);
        let of = |(place, model)| Task::of(place, model, policy);
        self.admitted(partition, asks).filter_map(of).collect()
    }

    /// What may be ahead of these tasks, which are theirs.
    pub(crate) fn ahead(&self, partition: u32, asks: Option<u32>, tasks: &[Task]) -> Ahead {
        let models = self.admitted(partition, asks).map(|(_, model)| model);
        Ahead::of(tasks, models, self.policy(partition), &self.certificate.overheads)
    }

    /// How much memory is free beside all models that were admitted so far.
    pub(crate) fn free(&mut self, at: &str) -> Result<Time, Fault> {
        let admitted = self.admitted.iter().flatten();
        let models = admitted.map(|place| &self.certificate.models[*place as usize]);
        self.work.spend(at, models.clone().map(|model| model.tensors.len() + 1).sum())?;
        Ok(memory::free(self.certificate.memory.limit, models))
    }

    /// How many of them may be suspended.
    pub(crate) fn suspended(&self, partition: u32) -> u32 {
        let counts = |model: &Model| model.suspend && model.stages.len() > 1;
        let models = self.admitted(partition, None).filter(|(_, model)| counts(model));
        u32::try_from(models.count()).unwrap_or(u32::MAX)
    }
}

fn check_model(walk: &mut Walk<'_>, place: u32, model: &Model) -> Result<(), Fault> {
    let at = format!("models[{place}]");
    check_charge(&at, model, &walk.certificate.overheads.charges)?;
    memory::check_need(&at, model, &mut walk.work)?;
    check_left(walk, &at, model)?;
    match &model.outcome {
        Outcome::Refused(refusal) => refusal::check(walk, place, model, refusal),
        Outcome::Admitted => {
            check_limits(&at, model)?;
            if let Some(Pressure { enter, .. }) = walk.certificate.memory.pressure {
                let what = "so much memory must be free before it is admitted";
                at_most(format_args!("{at}.outcome"), what, enter.0, walk.free(&at)?)?;
            }
            walk.admitted[model.partition as usize].push(place);
            Ok(())
        }
    }
}

/// Whether so much is left of the budgets of a model, or missing.
fn check_left(walk: &Walk<'_>, at: &str, model: &Model) -> Result<(), Fault> {
    let Budget { memory, streams, compute } = model.budget;
    let need = &model.need;
    let shared = if model.outcome == Outcome::Admitted { need.covered } else { need.peak };
    let signed = |number: u64| i128::from(number);
    let there = walk.certificate.partitions[model.partition as usize].streams;
    let left = &model.left;
    let found = signed(memory.0) - signed(need.resident.0) - signed(shared.0);
    same(format_args!("{at}.left.memory"), left.memory.into(), found)?;
    same(format_args!("{at}.left.streams"), left.streams, i64::from(there) - i64::from(streams))?;
    let found = compute.map(|limit| signed(limit.0) - signed(model.charge.job.0));
    same(format_args!("{at}.left.compute"), left.compute.map(i128::from), found)
}

/// Whether an admitted model stays within its own limits.
fn check_limits(at: &str, model: &Model) -> Result<(), Fault> {
    let Left { memory, streams, compute } = model.left;
    for (key, why, holds) in [
        (
            "charge.room",
            "J + C <= D must hold: a job alone is late otherwise",
            model.charge.room >= 0,
        ),
        ("left.memory", "a model must stay within its memory budget", memory >= 0),
        (
            "left.compute",
            "a job must stay within the compute budget",
            compute.is_none_or(|left| left >= 0),
        ),
        ("left.streams", "no more streams may be used than there are", streams >= 0),
        ("budget.streams", "a stream at least must be used", model.budget.streams > 0),
    ] {
        require(format_args!("{at}.{key}"), why, holds)?;
    }
    match model.service {
        Service::Server { budget, .. } => {
            let what = "every piece must fit the server's budget";
            at_most(format_args!("{at}.charge.longest"), what, model.charge.longest.0, budget.0)
        }
        Service::Guaranteed { .. } | Service::Background => Ok(()),
    }
}

/// Whether ranks are given under the policy that reads them, and count the distinct priorities.
fn check_ranks(partition: u32, certificate: &Certificate) -> Result<(), Fault> {
    let of = certificate.models.iter().filter(|model| model.partition == partition);
    let ranks = of.filter_map(|model| match model.service {
        Service::Guaranteed { rank, .. } | Service::Server { rank, .. } => Some(rank),
        Service::Background => None,
    });
    let at = format!("partitions[{partition}], the ranks of its models");
    let policy = certificate.partitions[partition as usize].policy;
    if policy != Policy::Priority {
        return require(at, "only the policy `priority` reads them", ranks.flatten().count() == 0);
    }
    let ranks: Option<BTreeSet<u32>> = ranks.collect();
    let dense = |ranks: &BTreeSet<u32>| (0..).zip(ranks).all(|(place, rank)| place == *rank);
    let why = "every model with a task has one, and they go from 0 up without a gap";
    require(at, why, ranks.as_ref().is_some_and(dense))
}

/// Whether no task of a partition is late. Their responses.
fn check_partition(
    walk: &mut Walk<'_>,
    place: u32,
    partition: &Partition,
) -> Result<Vec<(u32, Nanos)>, Fault> {
    let at = format!("partitions[{place}]");
    let tasks = walk.tasks(place, None);
    let ahead = walk.ahead(place, None, &tasks);
    same(format_args!("{at}.floor"), Time::from(partition.floor.0), ahead.floor)?;
    same(format_args!("{at}.committed"), Time::from(partition.committed.0), ahead.committed)?;
    same(format_args!("{at}.share"), partition.share, shares(&tasks))?;
    let fits = load(&at, &tasks)? != Ordering::Greater;
    require(format_args!("{at}.share"), "sum C/T <= 1 must hold", fits)?;
    if let Some(Suspended { limit, left }) = partition.suspended {
        let count = walk.suspended(place);
        let at = format!("{at}.suspended");
        at_most(&at, "no more models may be suspended than the limit says", count, limit)?;
        same(&at, left, limit - count)?;
    }
    let (at, work) = (format!("{at}.proof"), &mut walk.work);
    match (partition.policy, &partition.proof) {
        (Policy::Rms | Policy::Dm | Policy::Priority, Proof::NpFixedPriority { bounds }) => {
            fixed::check(&at, (&tasks, ahead), bounds, work)
        }
        (Policy::Edf, Proof::NpEdf { horizon, points, bounds }) => {
            let stated = Stated { horizon: *horizon, points, bounds };
            Edf { tasks: &tasks, ahead }.check(&at, &stated, work)
        }
        (Policy::Fifo, Proof::Fifo { end, bounds }) => {
            fifo::check(&at, &tasks, ahead.floor, (*end, bounds), work)
        }
        _ => require(format_args!("{at}.test"), "the test must be the one of the policy", false)
            .map(|()| Vec::new()),
    }
}

//! Refusals: the inequality that is said to have failed did fail.
//!
//! A model is decided about beside those that were admitted before it, in the order of the file; what
//! came later plays no part. The witness is one evaluation: a window that overflows, a job that is
//! late, bytes that are not there. That another analysis, or another plan, would have admitted the
//! model is not excluded where a test is only sufficient; `docs/certificates.md` says which are exact.

use std::cmp::Ordering;

use crate::certificate::{Model, Policy, Service, Suspended, Witness};
use crate::check::Walk;
use crate::edf::Edf;
use crate::fault::{Fault, Time, exceeds, require, same};
use crate::load::{load, shares};
use crate::{fifo, fixed};

/// Whether `witness` tells why the model at `place` was refused.
pub(crate) fn check(
    walk: &mut Walk<'_>,
    place: u32,
    model: &Model,
    witness: &Witness,
) -> Result<(), Fault> {
    let at = format!("models[{place}].outcome");
    let charge = &model.charge;
    // Gathering what was admitted is work, too.
    walk.work.spend(&at, walk.certificate.models.len() + walk.certificate.partitions.len())?;
    match *witness {
        Witness::Load { share } => {
            let tasks = walk.tasks(model.partition, Some(place));
            same(format_args!("{at}.share"), share, shares(&tasks))?;
            let over = load(&at, &tasks)? == Ordering::Greater;
            require(at, "sum C/T > 1 must hold of a refusal", over)
        }
        Witness::Alone => {
            require(at, "J + C > D must hold of a refusal: its room is negative", charge.room < 0)
        }
        Witness::Demand { .. } | Witness::Response { .. } | Witness::Queue { .. } => {
            let tasks = walk.tasks(model.partition, Some(place));
            let floor = walk.floor(model.partition, Some(place));
            match walk.policy(model.partition) {
                Policy::Edf => Edf { tasks: &tasks, floor }.refute(&at, witness),
                Policy::Fifo => fifo::refute(&at, &tasks, floor, witness, &mut walk.work),
                Policy::Rms | Policy::Dm | Policy::Priority => {
                    fixed::refute(&at, &tasks, floor, witness, &mut walk.work)
                }
            }
        }
        Witness::DeviceMemory { .. } | Witness::MemoryBudget => {
            memory(walk, &at, place, model, witness)
        }
        Witness::ComputeBudget => {
            let over = model.left.compute.is_some_and(|left| left < 0);
            require(at, "the job must cost more than the budget: none is left", over)
        }
        Witness::ServerBudget => match model.service {
            Service::Server { budget, .. } => {
                exceeds(at, "a piece must be longer than the budget", charge.longest.0, budget.0)
            }
            Service::Guaranteed { .. } | Service::Background => {
                require(at, "only a server has such a budget", false)
            }
        },
        Witness::Streams => {
            let over = model.budget.streams == 0 || model.left.streams < 0;
            require(at, "more streams must be asked for than there are, or none", over)
        }
        Witness::Suspended { admitted } => suspended(walk, &at, model, admitted),
    }
}

fn memory(
    walk: &Walk<'_>,
    at: &str,
    place: u32,
    model: &Model,
    witness: &Witness,
) -> Result<(), Fault> {
    match *witness {
        Witness::MemoryBudget => {
            let over = model.left.memory < 0;
            require(at, "it must need more than its budget: none is left", over)
        }
        Witness::DeviceMemory { resident, peak } => {
            let (mut alone, mut shared) = (0, 0);
            for (partition, _) in (0..).zip(&walk.certificate.partitions) {
                let beside = (partition == model.partition).then_some(place);
                let needs = walk.admitted(partition, beside).map(|(_, model)| model.need);
                let needs: Vec<_> = needs.collect();
                alone += needs.iter().map(|need| Time::from(need.resident.0)).sum::<Time>();
                shared += needs.iter().map(|need| Time::from(need.peak.0)).max().unwrap_or(0);
            }
            same(format_args!("{at}.resident"), Time::from(resident.0), alone)?;
            same(format_args!("{at}.peak"), Time::from(peak.0), shared)?;
            let limit = walk.certificate.memory.limit;
            exceeds(at, "together they must exceed the device", alone + shared, limit.0)
        }
        _ => require(at, "this refuses by memory", false),
    }
}

fn suspended(walk: &Walk<'_>, at: &str, model: &Model, stated: u32) -> Result<(), Fault> {
    let why = "there must be a limit on suspended models, and the model one that counts";
    let limited = walk.certificate.partitions[model.partition as usize].suspended;
    let counts = model.suspend && model.stages.len() > 1;
    let Some(Suspended { limit, .. }) = limited.filter(|_| counts) else {
        return require(at, why, false);
    };
    let admitted = walk.suspended(model.partition);
    same(format_args!("{at}.admitted"), stated, admitted)?;
    exceeds(at, "the limit must be used up", Time::from(admitted) + 1, limit)
}

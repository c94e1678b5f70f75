//! Refusals: the inequality that is said to have failed did fail.
//!
//! A model is decided about beside those that were admitted before it, in the order of the file; what
//! came later plays no part. The witness is one evaluation: a window that overflows, a job that is
//! late, bytes that are not there. That another analysis, or another plan, would have admitted the
//! model is not excluded where a test is only sufficient; `docs/certificates.md` says which are exact.
//!
//! **Where models trigger one another** the jitters of the admitted are those of the final set, which
//! may be another one than was refused, so they are left aside. Each triggered member begins with the
//! hand-over that was asked for. A step evaluates one job of the member before it, with the jitters
//! known so far, and raises the jitter to that response and the hand-over. Responses only grow with
//! jitters, so by induction **any** jitters that fit the chains are at least those after each step; an
//! inequality that fails with these fails with any. Nothing is claimed of how the steps were found.
//!
//! **Where the busy period is endless** nobody found an answer. What is shown is why: it holds more jobs
//! than are looked at. No deadline is shown to be missed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::ahead::Ahead;
use crate::certificate::{Model, Policy, Raised, Refusal, Service, Suspended, Witness};
use crate::chain::{Link, links};
use crate::charge::Task;
use crate::check::Walk;
use crate::edf::Edf;
use crate::fault::{Fault, LONGEST, Time, Work, at_most, exceeds, require, same};
use crate::load::{load, shares};
use crate::{fifo, fixed};

/// Whether `refusal` tells why the model at `place` was refused.
pub(crate) fn check(
    walk: &mut Walk<'_>,
    place: u32,
    model: &Model,
    refusal: &Refusal,
) -> Result<(), Fault> {
    let at = format!("models[{place}].outcome");
    // Gathering what was admitted is work, too.
    walk.work.spend(&at, walk.certificate.models.len() + walk.certificate.partitions.len())?;
    let witness = &refusal.witness;
    let of_time = matches!(
        witness,
        Witness::Load { .. }
            | Witness::Alone { .. }
            | Witness::Demand { .. }
            | Witness::Response { .. }
            | Witness::Due { .. }
            | Witness::Queue { .. }
            | Witness::Endless { .. }
    );
    if of_time {
        return in_time(walk, &at, place, refusal);
    }
    let none = refusal.raised.is_empty();
    require(format_args!("{at}.raised"), "only time is a matter of jitters", none)?;
    match *witness {
        Witness::DeviceMemory { .. } => device_memory(walk, &at, place, model, witness),
        Witness::MemoryPressure { free } => {
            let found = walk.free(&at)?;
            same(format_args!("{at}.free"), Time::from(free.0), found)?;
            let pressure = walk.certificate.memory.pressure;
            let enter = pressure.map_or(0, |pressure| Time::from(pressure.enter.0));
            exceeds(at, "less must be free than a new model requires", enter, found)
        }
        Witness::MemoryBudget => {
            let over = model.left.memory < 0;
            require(at, "it must need more than its budget: none is left", over)
        }
        Witness::ComputeBudget => {
            let over = model.left.compute.is_some_and(|left| left < 0);
            require(at, "the job must cost more than the budget: none is left", over)
        }
        Witness::ServerBudget => match model.service {
            Service::Server { budget, .. } => {
                let longest = model.charge.longest.0;
                exceeds(at, "a piece must be longer than the budget", longest, budget.0)
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
        _ => require(at, "this refuses by time", false),
    }
}

/// Whether time refuses the model at `place`.
fn in_time(walk: &mut Walk<'_>, at: &str, place: u32, refusal: &Refusal) -> Result<(), Fault> {
    let partition = walk.certificate.models[place as usize].partition;
    let mut tasks = walk.tasks(partition, Some(place));
    let ahead = walk.ahead(partition, Some(place), &tasks);
    let policy = walk.policy(partition);
    // Every member is looked at for each refusal, so that is work, too.
    let members = walk.certificate.chains.iter().map(|chain| chain.members.len());
    walk.work.spend(at, tasks.len().saturating_add(members.sum()))?;
    let there: BTreeSet<u32> = tasks.iter().map(|task| task.model).collect();
    let links = links(walk.certificate, |model| there.contains(&model));
    let asked: BTreeMap<u32, Time> = links.iter().map(|link| (link.to, link.asked)).collect();
    for task in &mut tasks {
        task.jitter = asked.get(&task.model).copied().unwrap_or(task.jitter);
    }
    let mut set = Set { tasks, ahead, policy, work: &mut walk.work };
    for (step, raised) in refusal.raised.iter().enumerate() {
        set.raise(&format!("{at}.raised[{step}]"), &links, raised)?;
    }
    set.refute(at, &refusal.witness)
}

/// What asks beside what was admitted before it, with the jitters that are known.
struct Set<'w> {
    tasks: Vec<Task>,
    ahead: Ahead,
    policy: Policy,
    work: &'w mut Work,
}

impl Set<'_> {
    fn jitter(&mut self, model: u32) -> Option<&mut Time> {
        self.tasks.iter_mut().find(|task| task.model == model).map(|task| &mut task.jitter)
    }

    fn task(&self, at: &str, model: u32) -> Result<Task, Fault> {
        let found = self.tasks.iter().find(|task| task.model == model);
        found.copied().ok_or_else(|| Fault::Senseless {
            place: format!("{at}.model"),
            why: "the model must be one that was admitted before, or the one that asks",
        })
    }

    /// One step: the model is ready as late as its trigger responds, and the hand-over after that.
    fn raise(&mut self, at: &str, links: &[Link], raised: &Raised) -> Result<(), Fault> {
        let why = "a member of a triggered chain must follow another one";
        let link = links.iter().find(|link| link.to == raised.model);
        let link = link.and_then(|link| Some((link.from?, link.asked)));
        let (from, asked) =
            link.ok_or_else(|| Fault::Senseless { place: format!("{at}.model"), why })?;
        let by = format!("{at}.by");
        let (model, response) = self.response(&by, &raised.by)?;
        same(format_args!("{by}.model"), model.model, from)?;
        let jitter = response.saturating_add(asked);
        same(format_args!("{at}.jitter"), Time::from(raised.jitter.0), jitter)?;
        at_most(format_args!("{at}.jitter"), "no jitter may exceed 2^62 ns", jitter, LONGEST)?;
        let known = self.task(at, raised.model)?.jitter;
        exceeds(format_args!("{at}.jitter"), "a step must raise it", jitter, known)?;
        self.jitter(raised.model).into_iter().for_each(|known| *known = jitter);
        Ok(())
    }

    /// The response of the job that a witness names, and whose it is.
    fn response(&mut self, at: &str, witness: &Witness) -> Result<(Task, Time), Fault> {
        let (Witness::Response { model, response, .. }
        | Witness::Due { model, response, .. }
        | Witness::Queue { model, response, .. }) = *witness
        else {
            return Err(Fault::Senseless { place: at.to_owned(), why: "a job must be named" });
        };
        let task = self.task(at, model)?;
        let (tasks, ahead) = (&self.tasks[..], self.ahead);
        let found = match self.policy {
            Policy::Edf => Edf { tasks, ahead }.response_of(at, &task, witness, self.work),
            Policy::Fifo => fifo::response_of(at, (tasks, &task, ahead.floor), witness, self.work),
            Policy::Rms | Policy::Dm | Policy::Priority => {
                fixed::response(at, (tasks, &task, ahead), witness, self.work)
            }
        }?;
        same(format_args!("{at}.response"), Time::from(response.0), found)?;
        Ok((task, found))
    }

    /// Whether the inequality fails.
    fn refute(&mut self, at: &str, witness: &Witness) -> Result<(), Fault> {
        match *witness {
            Witness::Load { share } => {
                same(format_args!("{at}.share"), share, shares(&self.tasks))?;
                let over = load(at, &self.tasks)? == Ordering::Greater;
                require(at, "sum C/T > 1 must hold of a refusal", over)
            }
            Witness::Alone { model } => {
                let late = |task: &&Task| task.jitter + task.cost > task.deadline;
                let first = self.tasks.iter().find(late).map(|task| task.model);
                same(format_args!("{at}.model, the first with J + C > D"), Some(model), first)
            }
            Witness::Demand { .. } if self.policy == Policy::Edf => {
                Edf { tasks: &self.tasks, ahead: self.ahead }.refute(at, witness)
            }
            Witness::Endless { window, jobs } => {
                let found = fixed::endless(at, &self.tasks, self.ahead, self.work)?;
                let stated = (Time::from(window.0), Time::from(jobs));
                same(format_args!("{at} (window, jobs)"), stated, found)
            }
            _ => {
                let (task, late) = self.response(at, witness)?;
                let at = format_args!("{at}.response");
                exceeds(at, "R > D must hold of a refusal", late, task.deadline)
            }
        }
    }
}

fn device_memory(
    walk: &Walk<'_>,
    at: &str,
    place: u32,
    model: &Model,
    witness: &Witness,
) -> Result<(), Fault> {
    let Witness::DeviceMemory { resident, peak } = *witness else {
        return require(at, "this refuses by memory", false);
    };
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

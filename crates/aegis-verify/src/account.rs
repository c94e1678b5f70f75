//! A certificate in words.
//!
//! # Invariants
//! 1. What is shown is rounded against the one who promised: costs, responses and what blocks up, and
//!    room to spare down, which periods, deadlines, windows, budgets and slack are.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use aegis_trace::{Bytes, Nanos};

use crate::certificate::{
    Certificate, Chain, Handover, Level, Model, Outcome, Partition, Point, Proof, Raised, Service,
    Totals, Verdict, Witness,
};
use crate::fault::JOBS_MAX;

/// Under which assumptions a certificate proves its answer.
const ASSUMPTIONS: &str = "\
assuming that
  1. no stage takes longer than its cost, and the overheads are what they are said to be; where inputs
     go ahead of stages, both hold beside such copies, and the device copies each way at once and
     begins one upload behind the other
  2. releases of a model are at least its period apart, and a job is ready within its jitter
  3. jobs run in the order of the policy, one stage at a time, and the device idles for less than
     `wake` while one is ready; a model that is never suspended goes on between its stages;
";

/// The rest of the third one with look-ahead,
const AHEAD: &str = "     \
with look-ahead: one stage may wait on the device, whom the policy chose while the one before it ran,
     and the device begins it when that one has ended
";

/// without it,
const NOT_AHEAD: &str = "     \
without look-ahead: no stage is put on the device before the one that runs there has ended
";

/// and the last of those of every certificate.
const OF_MEMORY: &str = "  \
4. models have the tensors that are listed, alive when that is said
";

/// What a certificate with chains assumes besides.
const OF_CHAINS: &str = "  \
5. each member of a triggered chain becomes ready within its hand-over (what is asked, and the
     spare); the period of each member of a sampled one is also the longest time between two releases
";

/// What no certificate proves.
const NOT_COVERED: &str = "\
not covered: when jobs without a deadline end; what follows once an assumption is broken
";

/// What a certificate that was checked says, a page of it.
#[must_use]
pub fn account(certificate: &Certificate) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_account(&mut text, certificate);
    text
}

fn write_account(text: &mut String, certificate: &Certificate) -> fmt::Result {
    let Certificate { verdict, totals, workload, evidence, overheads, memory, .. } = certificate;
    let Totals { models, admitted, chains, kept } = totals;
    match verdict {
        Verdict::Yes => {
            writeln!(text, "yes: all {models} models are admitted, and no job is late")?
        }
        Verdict::No => {
            write!(text, "no: {admitted} of {models} models are admitted")?;
            match chains {
                0 => writeln!(text)?,
                _ => writeln!(text, ", {kept} of {chains} chains kept")?,
            }
        }
    }
    writeln!(text, "workload {workload}")?;
    match evidence {
        Some(evidence) => writeln!(text, "evidence {evidence}")?,
        None => writeln!(text, "no evidence: all costs are declared")?,
    }
    writeln!(
        text,
        "charged to a stage: {} for dispatch, {} at a boundary, {} for a copy; waking up {}",
        overheads.dispatch, overheads.boundary, overheads.copy, overheads.wake
    )?;
    for partition in &certificate.partitions {
        write_partition(text, certificate, partition)?;
    }
    writeln!(
        text,
        "memory: {} resident + {} shared of {}; {} left; no two tensors alive together overlap",
        memory.resident, memory.scratch, memory.limit, memory.left
    )?;
    for (place, model) in certificate.models.iter().enumerate() {
        match &model.outcome {
            Outcome::Admitted => write_best_effort(text, model)?,
            Outcome::Refused(refusal) => {
                write!(text, "{} is refused: ", model.name)?;
                write_raised(text, certificate, &refusal.raised)?;
                write_witness(text, certificate, place, model, &refusal.witness)?;
            }
        }
    }
    certificate.chains.iter().try_for_each(|chain| write_chain(text, certificate, chain))?;
    text.push_str(ASSUMPTIONS);
    text.push_str(if overheads.look_ahead { AHEAD } else { NOT_AHEAD });
    text.push_str(OF_MEMORY);
    text.push_str(if certificate.chains.is_empty() { "" } else { OF_CHAINS });
    text.push_str(NOT_COVERED);
    Ok(())
}

fn name(certificate: &Certificate, place: u32) -> &str {
    certificate.models.get(place as usize).map_or("?", |model| model.name.as_str())
}

fn write_partition(
    text: &mut String,
    certificate: &Certificate,
    partition: &Partition,
) -> fmt::Result {
    let Partition { policy, share, floor, committed, proof, .. } = partition;
    let of = partition.name.as_ref().map_or("the device".into(), |it| format!("partition {it}"));
    let permille = permille(*share, tasks(proof));
    writeln!(
        text,
        "{of}: policy {policy}, utilisation {}.{:03}, held up for {floor} by what is less urgent than all",
        permille / 1_000,
        permille % 1_000
    )?;
    if *committed > Nanos::ZERO {
        writeln!(
            text,
            "  and for {committed} by what ran when that was put behind it: look-ahead"
        )?;
    }
    let bounds: Vec<(u32, Nanos, Nanos)> = match proof {
        Proof::NpFixedPriority { bounds } => {
            let jobs: usize = bounds.iter().map(|level| level.starts.len()).sum();
            writeln!(text, "  response times of {jobs} jobs of {} busy periods", bounds.len())?;
            bounds.iter().map(|it: &Level| (it.model, it.response, it.slack)).collect()
        }
        Proof::NpEdf { horizon, points, bounds } => {
            write_points(text, *horizon, points)?;
            bounds.iter().map(|it| (it.model, it.response, it.slack)).collect()
        }
        Proof::Fifo { end, bounds } => {
            writeln!(text, "  all work released before each instant below {end}")?;
            bounds.iter().map(|it| (it.model, it.response, it.slack)).collect()
        }
    };
    if !bounds.is_empty() {
        let columns = ("model", "C", "T", "R", "slack");
        let (model, cost, period, response, slack) = columns;
        writeln!(text, "  {model:24} {cost:>12} {period:>12} {response:>12} {slack:>12}")?;
    }
    for (place, response, slack) in bounds {
        let Some(model) = certificate.models.get(place as usize) else { continue };
        let (cost, period) = (model.charge.cost, period(model));
        let (cost, period) = (cost.to_string(), period.cut().to_string());
        let (response, slack) = (response.to_string(), slack.cut().to_string());
        let name = &model.name;
        writeln!(text, "  {name:24} {cost:>12} {period:>12} {response:>12} {slack:>12}")?;
    }
    Ok(())
}

/// How many tasks a proof is about.
fn tasks(proof: &Proof) -> usize {
    match proof {
        Proof::NpFixedPriority { bounds } => bounds.len(),
        Proof::NpEdf { bounds, .. } => bounds.len(),
        Proof::Fifo { bounds, .. } => bounds.len(),
    }
}

/// A load in thousandths, rounded up once, for display alone. The share of each task is rounded up by
/// less than a unit of `2^-63`: left in, that would make 0.211 of what is 0.210 exactly.
fn permille(share: u64, tasks: usize) -> u128 {
    let rounding = u128::try_from(tasks).unwrap_or(u128::MAX);
    (u128::from(share).saturating_sub(rounding) * 1_000).div_ceil(1 << 63)
}

fn period(model: &Model) -> Nanos {
    match model.service {
        Service::Guaranteed { period, .. } | Service::Server { period, .. } => period,
        Service::Background => Nanos::ZERO,
    }
}

fn write_points(text: &mut String, horizon: Nanos, points: &[Point]) -> fmt::Result {
    let room = |point: &&Point| point.window.saturating_sub(point.needed);
    match points.iter().min_by_key(room) {
        None => {
            writeln!(text, "  no deadline falls before {horizon}, when the device is free again")
        }
        Some(tightest) => writeln!(
            text,
            "  {} windows answer for all up to {horizon}; the tightest, {}, needs {}",
            points.len(),
            tightest.window.cut(),
            tightest.needed
        ),
    }
}

fn write_best_effort(text: &mut String, model: &Model) -> fmt::Result {
    match model.service {
        Service::Guaranteed { .. } => Ok(()),
        Service::Background => writeln!(
            text,
            "{}: in the background, no piece longer than {}",
            model.name, model.charge.longest
        ),
        Service::Server { budget, period, .. } => writeln!(
            text,
            "{}: served {} every {period}; R is when a refill can be used up",
            model.name,
            budget.cut()
        ),
    }
}

/// How late those that are triggered may be ready in the end, where that was found step by step.
fn write_raised(text: &mut String, certificate: &Certificate, raised: &[Raised]) -> fmt::Result {
    let last: BTreeMap<u32, Nanos> = raised.iter().map(|step| (step.model, step.jitter)).collect();
    last.iter().try_for_each(|(model, jitter)| {
        write!(text, "with {} ready {jitter} after its chain arrives, ", name(certificate, *model))
    })
}

fn write_witness(
    text: &mut String,
    certificate: &Certificate,
    place: usize,
    model: &Model,
    witness: &Witness,
) -> fmt::Result {
    match *witness {
        Witness::Load { share } => {
            let permille = u128::from(share) * 1_000 / (1 << 63);
            let (whole, part) = (permille / 1_000, permille % 1_000);
            writeln!(text, "sum C/T is {whole}.{part:03}, more than the device")
        }
        Witness::Alone { model } => {
            writeln!(text, "one job of {} alone is late", name(certificate, model))
        }
        Witness::Demand { window, demand, blocking, blocked_by, committed } => writeln!(
            text,
            "in a window of {}, demand {demand} + blocking {blocking} by {}{} > {0}",
            window.cut(),
            holder(certificate, blocked_by),
            before_it(committed)
        ),
        Witness::Response { .. } | Witness::Due { .. } | Witness::Queue { .. } => {
            write_job(text, certificate, witness)
        }
        Witness::Endless { window, jobs } => writeln!(
            text,
            "no answer was found: a busy period goes on for more than {} with {jobs} jobs in it, \
             and nobody looks at more than {JOBS_MAX}. No deadline is shown to be missed",
            window.cut()
        ),
        Witness::DeviceMemory { resident, peak } => writeln!(
            text,
            "resident {resident} + live at once {peak} > limit {} of the device",
            certificate.memory.limit
        ),
        Witness::MemoryPressure { free } => {
            let enter = certificate.memory.pressure.map_or(Bytes::ZERO, |it| it.enter);
            writeln!(text, "{free} are free, and a new model requires that {enter} are")
        }
        Witness::MemoryBudget => {
            let needed = model.need.resident.0.saturating_add(model.need.peak.0);
            writeln!(text, "it needs {} > its budget {}", Bytes(needed), model.budget.memory)
        }
        Witness::ComputeBudget => {
            let budget = model.budget.compute.unwrap_or(Nanos::MAX);
            writeln!(text, "a job costs {} > its compute budget {}", model.charge.job, budget.cut())
        }
        Witness::ServerBudget => {
            writeln!(text, "a stage takes {}, more than its server's budget", model.charge.longest)
        }
        Witness::Streams => {
            writeln!(text, "models[{place}] asks for {} streams", model.budget.streams)
        }
        Witness::Suspended { admitted } => {
            writeln!(text, "{admitted} models may be suspended already, as many as the limit says")
        }
    }
}

/// The job that is late.
fn write_job(text: &mut String, certificate: &Certificate, witness: &Witness) -> fmt::Result {
    let deadline = |place: u32| certificate.models.get(place as usize).map_or(Nanos::ZERO, due);
    match *witness {
        Witness::Response { model, blocking, blocked_by, committed, job, start, response } => {
            writeln!(
                text,
                "job {job} of a busy period of {} starts its last stage at {start} behind {blocking} of {}{}: \
             response {response} > deadline {}",
                name(certificate, model),
                holder(certificate, blocked_by),
                before_it(committed),
                deadline(model).cut()
            )
        }
        Witness::Due { model, due, blocking, committed, start, response } => writeln!(
            text,
            "a job of {} that is due at {due} of a busy period starts its last stage at {start} behind \
             {blocking} of what is due later{}: response {response} > deadline {}",
            name(certificate, model),
            before_it(committed),
            deadline(model).cut()
        ),
        Witness::Queue { model, ready, response } => writeln!(
            text,
            "a job of {} that is ready at {ready} of a busy period: response {response} > deadline {}",
            name(certificate, model),
            deadline(model).cut()
        ),
        _ => Ok(()),
    }
}

/// Whose stage holds the device.
fn holder(certificate: &Certificate, blocked_by: Option<u32>) -> String {
    match blocked_by {
        Some(place) => format!("a stage of {}", name(certificate, place)),
        None => "what is less urgent than all".into(),
    }
}

/// What ran when that was put behind it, with look-ahead.
fn before_it(committed: Nanos) -> String {
    match committed {
        Nanos::ZERO => String::new(),
        more => format!(" + {more} by the stage before it"),
    }
}

fn due(model: &Model) -> Nanos {
    match model.service {
        Service::Guaranteed { deadline, .. } => deadline,
        Service::Server { period, .. } => period,
        Service::Background => Nanos::ZERO,
    }
}

/// Whether a chain that was checked is kept.
fn is_kept(chain: &Chain) -> bool {
    chain.bound.is_some() && [chain.slack, chain.age_slack].iter().flatten().all(|it| *it >= 0)
}

fn write_chain(text: &mut String, certificate: &Certificate, chain: &Chain) -> fmt::Result {
    let members: Vec<&str> = chain.members.iter().map(|it| name(certificate, *it)).collect();
    write!(text, "chain {} ({:?}: {}): ", chain.name, chain.kind, members.join(", "))?;
    match chain.bound {
        None => return writeln!(text, "not kept, a member is refused"),
        Some(bound) => write!(text, "{bound} from end to end")?,
    }
    if let Some(deadline) = chain.deadline {
        write!(text, " of {}", deadline.cut())?;
    }
    if let Some(age) = chain.age {
        write!(text, ", data at most {age} old")?;
    }
    if let Some(most) = chain.max_age {
        write!(text, " of {}", most.cut())?;
    }
    writeln!(text, "{}", if is_kept(chain) { "" } else { ": not kept" })?;
    for (member, Handover { asked, spare }) in members.iter().skip(1).zip(&chain.handover) {
        write!(text, "  handed over to {member} within {asked}")?;
        match spare {
            Some(spare) => writeln!(text, " and {} to spare", spare.cut())?,
            None => writeln!(text)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_rounded_up_once() {
        let share = |cost, period| crate::load::share(cost, period);
        // 0.075 + 0.085 + 0.05, each rounded up by a part of a unit.
        let exact = share(3, 40) + share(17, 200) + share(1, 20);
        assert_eq!(permille(exact, 3), 210);
        assert_eq!(permille(exact + share(1, 1_000_000), 4), 211);
        assert_eq!((permille(0, 0), permille(1 << 63, 1)), (0, 1_000));
    }

    /// The assumptions one a line, as the documents have them.
    fn listed() -> String {
        let always = ASSUMPTIONS.trim_start_matches("assuming that\n");
        let ahead = AHEAD.trim_end();
        let text = format!("{always}{ahead};\n{NOT_AHEAD}{OF_MEMORY}{OF_CHAINS}");
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines() {
            match line.strip_prefix("     ") {
                Some(rest) => {
                    let last = lines.last_mut().expect("it goes on");
                    last.push(' ');
                    last.push_str(rest);
                }
                None => lines.push(line.trim_start().to_owned()),
            }
        }
        lines.join("\n")
    }

    #[test]
    fn the_documents_list_the_same_assumptions() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/certificates.md");
        let docs = std::fs::read_to_string(docs).expect("it is there");
        let listed = listed();
        assert_eq!(listed.lines().count(), 5);
        assert!(docs.contains(&format!("\n\n{listed}\n\n")), "it must say:\n{listed}");
    }
}

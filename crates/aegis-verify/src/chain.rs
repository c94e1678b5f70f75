//! Chains: what goes through several models is not late, and not too old.
//!
//! **Triggered.** The end of one member's job releases the next one's; all have the first one's
//! period, and their deadlines and responses count from the chain's arrival. A member is ready at most
//! `R` and the hand-over after that, `R` the response of the one before, and its jitter must be no
//! less. Members that are refused are left out: who follows is then triggered by the nearest before them.
//! Any jitters with which the whole set is in time are sound, not only the least: take the first
//! job that is later than its response; every trigger before it was in time, so all jobs were ready
//! within their jitters, and the bound holds. The chain's bound is the last response.
//!
//! **Sampled.** Each member takes the latest output of the one before when its job is submitted. An
//! event that a job has just missed is seen by the next one, at most a period later, and so on: the
//! reaction is at most `sum (T + R)`, and the age of the data the same without the last period. `T`
//! is then also the longest time between two releases.
//!
//! # Sources
//! Tindell, Clark, Microprocessing and Microprogramming 40, 1994; Spuri, INRIA RR-2873, 1996. Davare et
//! al., DAC 2007.

use std::collections::{BTreeMap, BTreeSet};

use aegis_trace::Nanos;

use crate::certificate::{Certificate, Chain, ChainKind, Outcome, Service};
use crate::fault::{Fault, Time, require, same};

/// A member of a chain.
struct Member {
    period: Time,
    jitter: Time,
    /// `None` where it was refused.
    response: Option<Time>,
    partition: u32,
}

/// How a member of a triggered chain gets ready, as was asked.
pub(crate) struct Link {
    /// The nearest member before it that is there, if any is.
    pub(crate) from: Option<u32>,
    /// The member.
    pub(crate) to: u32,
    /// How long after that one's end it may become ready, or after its own nominal release.
    pub(crate) asked: Time,
}

/// The links of all members that are there, but the first of each chain.
pub(crate) fn links(certificate: &Certificate, is_there: impl Fn(u32) -> bool) -> Vec<Link> {
    let triggered = certificate.chains.iter().filter(|it| it.kind == ChainKind::Triggered);
    let mut links = Vec::new();
    for chain in triggered {
        let asked = chain.handover.iter().map(|handover| Some(handover.asked.0.into()));
        let mut from = None;
        for (member, asked) in chain.members.iter().zip([None].into_iter().chain(asked)) {
            if is_there(*member) {
                links.extend(asked.map(|asked| Link { from, to: *member, asked }));
                from = Some(*member);
            }
        }
    }
    links
}

/// Whether all chains are bounded as they say, with the `responses` that were proved. How many are
/// kept.
pub(crate) fn check(
    certificate: &Certificate,
    responses: &BTreeMap<u32, Nanos>,
) -> Result<usize, Fault> {
    let mut kept = 0;
    for (place, chain) in certificate.chains.iter().enumerate() {
        let at = format!("chains[{place}]");
        let members = chain.members.iter().map(|place| member(certificate, responses, *place));
        kept += usize::from(check_chain(&at, chain, &members.collect::<Result<Vec<_>, _>>()?)?);
    }
    Ok(kept)
}

/// Whether chains have members that are there, each once; so a chain has no more of them than there are
/// models, and triggered chains have not together. Comes before anything looks at members.
pub(crate) fn check_members(certificate: &Certificate) -> Result<(), Fault> {
    let mut triggered = BTreeSet::new();
    for (place, chain) in certificate.chains.iter().enumerate() {
        let at = format!("chains[{place}]");
        let mut own = BTreeSet::new();
        for member in &chain.members {
            let there = (*member as usize) < certificate.models.len();
            require(format_args!("{at}.members"), "a member is a model that is there", there)?;
            require(format_args!("{at}.members"), "each occurs once", own.insert(*member))?;
            let once = chain.kind == ChainKind::Sampled || triggered.insert(*member);
            let why = "no model is in two triggered chains";
            require(format_args!("{at}.members"), why, once)?;
        }
        require(format_args!("{at}.members"), "there are two at least", own.len() > 1)?;
    }
    Ok(())
}

fn member(
    certificate: &Certificate,
    responses: &BTreeMap<u32, Nanos>,
    place: u32,
) -> Result<Member, Fault> {
    let senseless = || Fault::Senseless {
        place: format!("chains, of models[{place}]"),
        why: "a member is a model with a deadline",
    };
    let model = certificate.models.get(place as usize).ok_or_else(senseless)?;
    let Service::Guaranteed { period, jitter, .. } = model.service else {
        return Err(senseless());
    };
    let response = match model.outcome {
        Outcome::Admitted => Some(responses.get(&place).ok_or_else(senseless)?.0.into()),
        Outcome::Refused(_) => None,
    };
    let (period, jitter) = (period.0.into(), jitter.0.into());
    Ok(Member { period, jitter, response, partition: model.partition })
}

/// Whether it is kept.
fn check_chain(at: &str, chain: &Chain, members: &[Member]) -> Result<bool, Fault> {
    let one = members.iter().all(|member| member.partition == members[0].partition);
    require(format_args!("{at}.members"), "all are of one partition", one)?;
    let responses: Option<Vec<Time>> = members.iter().map(|member| member.response).collect();
    let (bound, age) = match chain.kind {
        ChainKind::Triggered => {
            check_handovers(at, chain, members)?;
            (responses.and_then(|all| all.last().copied()), None)
        }
        ChainKind::Sampled => {
            let why = "what is sampled is not handed over";
            require(format_args!("{at}.handover"), why, chain.handover.is_empty())?;
            let periods: Time = members.iter().map(|member| member.period).sum();
            let reaction = responses.map(|all| periods + all.iter().sum::<Time>());
            let last = members.last().map_or(0, |member| member.period);
            (reaction, reaction.map(|reaction| reaction - last))
        }
    };
    let time = |stated: Option<Nanos>| stated.map(|time| Time::from(time.0));
    same(format_args!("{at}.bound"), time(chain.bound), bound)?;
    same(format_args!("{at}.age"), time(chain.age), age)?;
    let old = chain.kind == ChainKind::Sampled || chain.max_age.is_none();
    require(format_args!("{at}.max_age"), "only what is sampled has an age", old)?;
    let slack = |limit: Option<Nanos>, found: Option<Time>| {
        let limit = i128::from(limit?.0);
        Some(limit - found?.cast_signed())
    };
    let slacks = [slack(chain.deadline, bound), slack(chain.max_age, age)];
    same(format_args!("{at}.slack"), chain.slack.map(i128::from), slacks[0])?;
    same(format_args!("{at}.age_slack"), chain.age_slack.map(i128::from), slacks[1])?;
    Ok(bound.is_some() && slacks.iter().flatten().all(|slack| *slack >= 0))
}

/// Whether each member but the first may be ready as late as the one before it can make it.
fn check_handovers(at: &str, chain: &Chain, members: &[Member]) -> Result<(), Fault> {
    let one = members.iter().all(|member| member.period == members[0].period);
    require(format_args!("{at}.members"), "all have the period of the first", one)?;
    same(format_args!("{at}.handover, how many"), chain.handover.len() + 1, members.len())?;
    let mut before = members[0].response;
    for (place, (member, handover)) in members[1..].iter().zip(&chain.handover).enumerate() {
        let at = format!("{at}.handover[{place}]");
        let spare = handover.spare.map(|spare| Time::from(spare.0));
        let why = "exactly a member that is admitted has a spare";
        require(format_args!("{at}.spare"), why, spare.is_some() == member.response.is_some())?;
        // Of a refused member the jitter is what was asked.
        let inherited = before.filter(|_| spare.is_some()).unwrap_or(0);
        let found = inherited + Time::from(handover.asked.0) + spare.unwrap_or(0);
        same(format_args!("{at}, the jitter of the member it leads to"), member.jitter, found)?;
        before = member.response.or(before);
    }
    Ok(())
}

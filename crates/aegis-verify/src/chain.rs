//! Chains: what goes through several models is not late, and not too old.
//!
//! **Triggered.** The end of one member's job releases the next one's; all have the first one's
//! period, and their deadlines and responses count from the chain's arrival. A member is ready at most
//! `R + handover` after that, `R` the response of the one before, and this is what its jitter must
//! be. Any jitters with which the whole set is in time are sound, not only the least: take the first
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

/// A member that was admitted.
struct Member {
    period: Time,
    jitter: Time,
    response: Time,
    partition: u32,
}

/// Whether all chains are bounded as they say, with the `responses` that were proved. How many are
/// kept.
pub(crate) fn check(
    certificate: &Certificate,
    responses: &BTreeMap<u32, Nanos>,
) -> Result<usize, Fault> {
    let (mut kept, mut triggered) = (0, BTreeSet::new());
    for (place, chain) in certificate.chains.iter().enumerate() {
        let at = format!("chains[{place}]");
        let mut own = BTreeSet::new();
        for member in &chain.members {
            require(format_args!("{at}.members"), "each occurs once", own.insert(*member))?;
            let once = chain.kind == ChainKind::Sampled || triggered.insert(*member);
            let why = "no model is in two triggered chains";
            require(format_args!("{at}.members"), why, once)?;
        }
        require(format_args!("{at}.members"), "there are two at least", own.len() > 1)?;
        let members = chain.members.iter().map(|place| member(certificate, responses, *place));
        let members = members.collect::<Result<Option<Vec<_>>, _>>()?;
        kept += usize::from(check_chain(&at, chain, members.as_deref())?);
    }
    Ok(kept)
}

/// `None` where it was refused.
fn member(
    certificate: &Certificate,
    responses: &BTreeMap<u32, Nanos>,
    place: u32,
) -> Result<Option<Member>, Fault> {
    let senseless = || Fault::Senseless {
        place: format!("chains, of models[{place}]"),
        why: "a member is a model with a deadline",
    };
    let model = certificate.models.get(place as usize).ok_or_else(senseless)?;
    let Service::Guaranteed { period, jitter, .. } = model.service else {
        return Err(senseless());
    };
    if model.outcome != Outcome::Admitted {
        return Ok(None);
    }
    let response = responses.get(&place).ok_or_else(senseless)?;
    Ok(Some(Member {
        period: period.0.into(),
        jitter: jitter.0.into(),
        response: response.0.into(),
        partition: model.partition,
    }))
}

/// Whether it is kept.
fn check_chain(at: &str, chain: &Chain, members: Option<&[Member]>) -> Result<bool, Fault> {
    let (bound, age) = match members {
        None => {
            let why = "with a refused member there is nothing to hand over";
            require(format_args!("{at}.handover"), why, chain.handover.is_empty())?;
            (None, None)
        }
        Some(members) => {
            let one = members.iter().all(|member| member.partition == members[0].partition);
            require(format_args!("{at}.members"), "all are of one partition", one)?;
            match chain.kind {
                ChainKind::Triggered => (Some(triggered(at, chain, members)?), None),
                ChainKind::Sampled => {
                    let why = "what is sampled is not handed over";
                    require(format_args!("{at}.handover"), why, chain.handover.is_empty())?;
                    let reaction = members.iter().map(|of| of.period + of.response).sum();
                    let last = members.last().map_or(0, |member| member.period);
                    (Some(reaction), Some(reaction - last))
                }
            }
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

fn triggered(at: &str, chain: &Chain, members: &[Member]) -> Result<Time, Fault> {
    let one = members.iter().all(|member| member.period == members[0].period);
    require(format_args!("{at}.members"), "all have the period of the first", one)?;
    let pairs = members.windows(2);
    same(format_args!("{at}.handover, how many"), chain.handover.len(), pairs.len())?;
    for (place, (pair, handover)) in pairs.zip(&chain.handover).enumerate() {
        let inherited = pair[0].response + Time::from(handover.0);
        let at = format!("{at}.handover[{place}], the jitter of the member it leads to");
        same(at, pair[1].jitter, inherited)?;
    }
    Ok(members.last().map_or(0, |member| member.response))
}

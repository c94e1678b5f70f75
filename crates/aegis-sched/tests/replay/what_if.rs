//! What another policy would have done is what the simulator does under it.

use std::collections::BTreeMap;

use aegis_sched::policy::PolicyKind;
use aegis_sched::replay::{Ending, Extent, Timeline, WhatIf, replay};
use aegis_sched::sim::{
    Arrivals, Behaviour, Costs, Model, ModelService, Random, Seed, World, WorldConfig,
};
use aegis_trace::{Bytes, JobId, Nanos, Timestamp, Trace};

use crate::worlds;

/// A world whose jobs and costs do not depend on the policy: nobody watches what is launched, and
/// nothing is late to notice. `None` where not every model is admitted.
fn world(seed: u64, policy: PolicyKind) -> Option<Trace> {
    let mut random = Random::new(Seed(seed));
    let config = WorldConfig { policy, ..WorldConfig::new(Seed(random.bits())) };
    let mut world = World::new(config);
    for n in 0..random.between(2, 6) {
        world.admit(model(n, &mut random)).ok()?;
    }
    world.run_for(Nanos(60_000));
    Some(world.trace().clone())
}

fn model(n: u64, random: &mut Random) -> Model {
    let period = random.between(200, 3_000);
    let count = random.between(1, 3);
    let share = period / 12 + 1;
    let stages = (0..count).map(|_| Nanos(random.between(1, share))).collect();
    let service = match random.up_to(5) {
        0 => ModelService::Background,
        1 => ModelService::Server { budget: Nanos(share * 2), period: Nanos(period) },
        _ => ModelService::Guaranteed,
    };
    let (arrivals, jitter) = match random.up_to(2) {
        0 => (Arrivals::Periodic { offset: Nanos(random.up_to(period)) }, 0),
        1 => (Arrivals::Sporadic, 0),
        _ => (Arrivals::Jittered, random.up_to(period / 4)),
    };
    Model {
        name: format!("model{n}"),
        service,
        period: Nanos(period),
        deadline: Nanos(period * 2),
        jitter: Nanos(jitter),
        priority: u32::try_from(random.up_to(4)).expect("small"),
        stages,
        may_be_suspended: !random.once_in(4),
        persistent: Bytes::from_kib(4),
        scratch: Bytes::from_kib(4),
        carried: Bytes::ZERO,
        behaviour: Behaviour { arrivals, costs: Costs::UpTo, faults: Vec::new() },
    }
}

/// When each job completed, up to `end`.
fn completions(timeline: &Timeline, end: Timestamp) -> BTreeMap<JobId, Timestamp> {
    let completed = |(job, record): (&JobId, &aegis_sched::replay::JobRecord)| match record.ending {
        Some((at, Ending::Completed)) if at < end => Some((*job, at)),
        _ => None,
    };
    timeline.jobs.iter().filter_map(completed).collect()
}

fn asked(trace: &Trace, policy: PolicyKind) -> (Timeline, WhatIf) {
    let mut replayed = replay(trace, Extent::Whole).expect("a trace of ours");
    let mut what_if = replayed.what_if(trace, policy).expect("a trace of ours");
    (replayed.executors.remove(0).timeline, what_if.remove(0))
}

#[test]
fn another_policy_would_have_done_what_the_simulator_does_under_it() {
    let (mut worlds, mut jobs, mut changed) = (0, 0, 0);
    for seed in 0..400 {
        let mut random = Random::new(Seed(seed ^ 0xabcd));
        let (recorded, other) = (worlds::policy(&mut random), worlds::policy(&mut random));
        let Some((trace, simulated)) = world(seed, recorded).zip(world(seed, other)) else {
            continue;
        };
        let (was, what_if) = asked(&trace, other);
        let (would_be, _) = asked(&simulated, other);
        // Up to the first stage that the log has no time for, or its end.
        let end = what_if.assumed.since.unwrap_or(was.end).min(was.end);
        assert!(end > Timestamp(40_000), "seed {seed}: {end:?}");
        let (told, seen) = (completions(&what_if.timeline, end), completions(&would_be, end));
        assert_eq!(told, seen, "seed {seed}: {recorded} as {other}");
        assert_eq!(what_if.assumed.wakes, 0, "seed {seed}");
        worlds += 1;
        jobs += told.len();
        changed += usize::from(what_if.first_change.is_some());
    }
    assert!(worlds > 100 && jobs > 10_000 && changed > 50, "{worlds} {jobs} {changed}");
}

#[test]
fn bounds_are_those_that_the_other_policy_admits_with() {
    let mut compared = 0;
    for seed in 0..60 {
        let Some(trace) = world(seed, PolicyKind::Edf) else { continue };
        let Some(other) = world(seed, PolicyKind::Fifo) else { continue };
        let (_, what_if) = asked(&trace, PolicyKind::Fifo);
        let replayed = replay(&other, Extent::Whole).expect("a trace of ours");
        let of = &replayed.executors[0];
        for model in &what_if.models {
            let bound = model.bound_would_be.as_ref().expect("it was admitted");
            assert_eq!(*bound, of.bound_at(model.model, of.timeline.end), "seed {seed}");
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared}");
}

/// With overheads, faults and evictions too, the policy that decided would decide the same again.
#[test]
fn the_policy_that_decided_would_have_done_what_it_did() {
    let mut compared = 0;
    for seed in 0..600 {
        let trace = worlds::hostile(seed);
        let replayed = replay(&trace, Extent::Whole).expect("a trace of ours");
        let policy = replayed.executors[0].config.policy;
        let what_if = replayed.what_if(&trace, policy).expect("a trace of ours").remove(0);
        let was = &replayed.executors[0].timeline;
        let end = what_if.assumed.since.unwrap_or(was.end);
        let change = what_if.first_change.filter(|change| change.at < end);
        if what_if.ends_with.is_none() && what_if.assumed.wakes == 0 {
            assert_eq!(change, None, "seed {seed}: {:?}", what_if.assumed);
            let (told, seen) = (completions(&what_if.timeline, end), completions(was, end));
            let other = told.iter().find(|(job, at)| seen.get(job) != Some(at));
            assert_eq!(other, None, "seed {seed}");
            assert_eq!(told.len(), seen.len(), "seed {seed}");
            compared += told.len();
        }
    }
    assert!(compared > 20_000, "{compared}");
}

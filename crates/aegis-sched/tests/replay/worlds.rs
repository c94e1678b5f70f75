//! Worlds in which everything happens that a log can hold.

use aegis_cuda::SimFault;
use aegis_sched::dispatch::OverrunPolicy;
use aegis_sched::policy::PolicyKind;
use aegis_sched::sim::{
    Arrivals, Behaviour, Costs, Model, ModelService, Random, Seed, World, WorldConfig,
};
use aegis_sched::task::Overheads;
use aegis_trace::{Bytes, ModelId, Nanos, StageIndex, Trace, TraceEvent};

pub(crate) const POLICIES: [PolicyKind; 5] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority];

pub(crate) fn policy(random: &mut Random) -> PolicyKind {
    POLICIES[usize::try_from(random.up_to(4)).expect("five policies")]
}

/// A world of up to nine models of all services, which overrun, fail, hang, come too early, are
/// refused, evicted and replaced.
pub(crate) fn hostile(seed: u64) -> Trace {
    hostile_world(seed, Nanos::ZERO, None)
}

/// The same, where the clock moves on by up to 400 ns while submissions are taken.
pub(crate) fn hostile_with_slow_intake(seed: u64) -> Trace {
    hostile_world(seed, Nanos(Random::new(Seed(!seed)).between(1, 400)), None)
}

/// The same where inputs go ahead, with copies of up to 300, and models leave when a launch of theirs
/// fails: some uploads that are left by it last beyond the stage beside which they went.
pub(crate) fn uploading(seed: u64) -> Trace {
    hostile_world(seed, Nanos::ZERO, Some(Nanos(Random::new(Seed(!seed)).up_to(300))))
}

fn hostile_world(seed: u64, intake: Nanos, copy: Option<Nanos>) -> Trace {
    let mut random = Random::new(Seed(seed));
    let charged = Overheads {
        dispatch: Nanos(random.up_to(30)),
        wake: Nanos(random.up_to(60)),
        boundary: Nanos(random.up_to(20)),
        copy: Nanos(random.up_to(10)),
        look_ahead: random.once_in(2),
        uploads_ahead: false,
    };
    // Drawn apart, so that worlds without it stay as they were.
    let uploads_ahead = charged.look_ahead && Random::new(Seed(!seed)).once_in(2);
    let charged = match copy {
        Some(copy) => Overheads { look_ahead: true, uploads_ahead: true, copy, ..charged },
        None => Overheads { uploads_ahead, ..charged },
    };
    let real = match random.up_to(2) {
        0 => Overheads { dispatch: charged.dispatch * 2, wake: charged.wake * 2, ..charged },
        _ => charged,
    };
    let contains = random.once_in(2);
    let config = WorldConfig {
        policy: policy(&mut random),
        charged,
        real,
        overrun: if contains { OverrunPolicy::Contain } else { OverrunPolicy::Record },
        memory: if random.once_in(4) { Bytes::from_kib(40) } else { Bytes::from_gib(1) },
        intake,
        ..WorldConfig::new(Seed(random.bits()))
    };
    let mut world = World::new(config);
    let mut admitted = Vec::new();
    for round in 0..4 {
        for n in 0..random.between(1, 3) {
            let model = model(&format!("model{round}{n}"), &mut random);
            admitted.extend(world.admit(model).ok());
        }
        let length = Nanos(random.between(2_000, 16_000));
        match copy {
            Some(_) => evict_unlaunched(&mut world, length, &mut admitted),
            None => world.run_for(length),
        }
        if !admitted.is_empty() && random.once_in(2) {
            let index = random.up_to(admitted.len() as u64 - 1);
            world.evict(admitted.swap_remove(usize::try_from(index).expect("small")));
        }
    }
    world.run_for(Nanos(20_000));
    world.trace().clone()
}

/// Runs the world, and evicts each of `admitted` as soon as a launch of it fails.
fn evict_unlaunched(world: &mut World, length: Nanos, admitted: &mut Vec<ModelId>) {
    const SLICE: Nanos = Nanos(20);
    let mut seen = world.trace().records.len();
    for _ in 0..length.0 / SLICE.0 {
        world.run_for(SLICE);
        let fresh = world.trace().records[seen..].iter().filter_map(|record| match record.event {
            TraceEvent::LaunchFailed { job, .. } => Some(job.model),
            _ => None,
        });
        let failed: Vec<ModelId> = fresh.filter(|model| admitted.contains(model)).collect();
        seen = world.trace().records.len();
        for model in failed {
            admitted.retain(|other| *other != model);
            world.evict(model);
        }
    }
}

fn model(name: &str, random: &mut Random) -> Model {
    let period = random.between(100, 4_000);
    let count = random.between(1, 4);
    let share = random.between(period / 60 + 1, period / 5 + 1);
    let stages: Vec<Nanos> =
        (0..count).map(|_| Nanos(random.between(1, share.div_ceil(count)))).collect();
    let longest = stages.iter().map(|stage| stage.0).max().expect("one at least");
    let service = match random.up_to(5) {
        0 => ModelService::Background,
        1 => ModelService::Server {
            budget: Nanos(longest + 100 + random.up_to(200)),
            period: Nanos(random.between(period, period * 3)),
        },
        _ => ModelService::Guaranteed,
    };
    let jitter = if random.once_in(3) { random.up_to(period / 4) } else { 0 };
    let arrivals = match random.up_to(4) {
        0 => Arrivals::Periodic { offset: Nanos(random.up_to(period)) },
        1 => Arrivals::Sporadic,
        2 => Arrivals::Jittered,
        3 => Arrivals::TooEarly,
        _ => Arrivals::AfterLaunch,
    };
    let costs = match random.up_to(7) {
        0 => Costs::Beyond { extra: Nanos(random.between(1, share * 2)) },
        1..4 => Costs::Full,
        _ => Costs::UpTo,
    };
    let faults = if random.once_in(3) { vec![fault(count, random)] } else { Vec::new() };
    Model {
        name: name.into(),
        service,
        period: Nanos(period),
        deadline: Nanos(random.between(period / 2 + 1, period * 2)),
        jitter: Nanos(jitter),
        priority: u32::try_from(random.up_to(4)).expect("small"),
        stages,
        may_be_suspended: !random.once_in(4),
        persistent: Bytes::from_kib(4),
        scratch: Bytes::from_kib(random.up_to(16)),
        carried: Bytes::ZERO,
        behaviour: Behaviour { arrivals, costs, faults },
    }
}

fn fault(stages: u64, random: &mut Random) -> (StageIndex, u64, SimFault) {
    let stage = StageIndex(u16::try_from(random.up_to(stages - 1)).expect("small"));
    let fault = match random.up_to(12) {
        0..3 => SimFault::LaunchFailure,
        3..6 => SimFault::ExecutionFailure,
        6..8 => SimFault::OutOfMemory,
        8 => SimFault::DeviceLost,
        9 => SimFault::Hang,
        _ => SimFault::Overrun { extra: Nanos(random.between(50, 200_000)) },
    };
    (stage, random.up_to(12), fault)
}

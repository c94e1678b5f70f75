//! The margin of a set holds in the shipped dispatcher: an overrun up to it makes nobody late.

use aegis_cuda::SimFault;
use aegis_sched::analysis::Setting;
use aegis_sched::analysis::sensitivity::overrun_margin;
use aegis_sched::policy::PolicyKind;
use aegis_sched::sim::{Arrivals, Costs, Model, Random, Seed, World, WorldConfig};
use aegis_trace::{ModelId, Nanos, StageIndex};

const POLICIES: [PolicyKind; 5] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority];

/// How long a world runs: some tens of the longest periods.
const LENGTH: Nanos = Nanos::from_millis(40);

fn us(n: u64) -> Nanos {
    Nanos::from_micros(n)
}

/// Up to five models of up to three stages, hostile in when their jobs arrive.
fn models(random: &mut Random) -> Vec<Model> {
    let count = random.between(2, 5);
    (0..count)
        .map(|index| {
            let period = us(random.between(200, 2_000));
            let mut model = Model::periodic(&format!("model{index}"), Nanos(1), period);
            let stages = random.between(1, 3);
            let most = period.0 / (count * stages);
            model.stages =
                (0..stages).map(|_| Nanos(random.between(most / 8, most * 3 / 4))).collect();
            model.behaviour.arrivals = match random.up_to(2) {
                0 => Arrivals::Sporadic,
                1 => Arrivals::AfterLaunch,
                _ => Arrivals::Periodic { offset: Nanos::ZERO },
            };
            model.behaviour.costs = if random.once_in(2) { Costs::Full } else { Costs::UpTo };
            model
        })
        .collect()
}

/// A world with those of `models` that are admitted, or `None` if that is nobody.
fn world(seed: u64, policy: PolicyKind, models: &[Model]) -> Option<(World, Vec<ModelId>)> {
    let mut world = World::new(WorldConfig { policy, ..WorldConfig::new(Seed(seed)) });
    let admitted: Vec<ModelId> =
        models.iter().filter_map(|model| world.admit(model.clone()).ok()).collect();
    (!admitted.is_empty()).then_some((world, admitted))
}

fn misses(world: &World, models: &[ModelId]) -> u64 {
    let missed = |model: &ModelId| world.metrics(*model).expect("known").counts.missed;
    models.iter().map(missed).sum()
}

/// Misses of the world in which one launch of one stage takes `extra` longer.
fn misses_with(seed: u64, policy: PolicyKind, models: &[Model], extra: Nanos) -> u64 {
    let mut random = Random::new(Seed(seed ^ 0xe7));
    let mut models = models.to_vec();
    let which = usize::try_from(random.up_to(models.len() as u64 - 1)).expect("a handful");
    let stage = random.up_to(models[which].stages.len() as u64 - 1);
    let stage = StageIndex(u16::try_from(stage).expect("a handful"));
    models[which].behaviour.faults.push((stage, random.up_to(9), SimFault::Overrun { extra }));
    let (mut world, admitted) = world(seed, policy, &models).expect("admitted without it too");
    world.run_for(LENGTH);
    misses(&world, &admitted)
}

#[test]
fn an_overrun_within_the_margin_makes_nobody_late() {
    let (mut tried, mut late_beyond) = (0, 0);
    for seed in 0..120 {
        let models = models(&mut Random::new(Seed(seed)));
        for policy in POLICIES {
            let Some((known, _)) = world(seed, policy, &models) else { continue };
            let config = known.admission().config();
            let setting = Setting::admission(config.policy, config.overheads);
            let margin = overrun_margin(known.admission().tasks(), &setting);
            let margin = margin.expect("an admitted set is schedulable");
            let missed = misses_with(seed, policy, &models, margin);
            assert_eq!(missed, 0, "seed {seed}, {policy}, an overrun of {margin}: {models:?}");
            tried += 1;
            let beyond = margin.saturating_mul(3).saturating_add(us(300));
            late_beyond += u64::from(misses_with(seed, policy, &models, beyond) > 0);
        }
    }
    assert!(tried > 300, "only {tried} worlds were admitted");
    assert!(late_beyond > tried / 4, "{late_beyond} of {tried}: longer overruns do make jobs late");
}

#[test]
fn just_beyond_the_margin_a_job_can_be_late() {
    // The camera arrives an instant after the lidar was launched, and then has 10 - 3 - 2 to spare.
    let mut camera = Model::periodic("camera", us(2), us(10));
    camera.behaviour.arrivals = Arrivals::AfterLaunch;
    let lidar = |extra: Nanos| {
        let mut lidar = Model::periodic("lidar", us(3), us(100));
        lidar.behaviour.faults.push((StageIndex(0), 5, SimFault::Overrun { extra }));
        lidar
    };
    let run = |extra: Nanos| {
        let models = [camera.clone(), lidar(extra)];
        let (mut world, admitted) = world(1, PolicyKind::Edf, &models).expect("admitted");
        world.run_for(us(2_000));
        misses(&world, &admitted)
    };
    let (known, _) = world(1, PolicyKind::Edf, &[camera.clone(), lidar(us(1))]).expect("admitted");
    let setting = Setting::admission(PolicyKind::Edf, known.admission().config().overheads);
    let margin = overrun_margin(known.admission().tasks(), &setting);
    assert_eq!(margin, Some(us(5)));
    assert_eq!((run(us(5)), run(us(5) + Nanos(2))), (0, 1), "arrivals come a tick after a launch");
}

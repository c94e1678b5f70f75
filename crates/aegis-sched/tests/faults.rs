//! A fault stays with its model, and the trace says who was touched.

use aegis_cuda::SimFault;
use aegis_sched::sim::{Model, Seed, World, WorldConfig};
use aegis_trace::{
    Assumption, Category, EventKind, ModelId, Nanos, Query, Refusal, StageIndex, Trace, TraceEvent,
};

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn world() -> World {
    World::new(WorldConfig::new(Seed(7)))
}

fn faulty(name: &str, cost: Nanos, period: Nanos, at: u64, fault: SimFault) -> Model {
    let mut model = Model::periodic(name, cost, period);
    model.behaviour.faults.push((StageIndex(0), at, fault));
    model
}

fn events(trace: &Trace, kind: EventKind) -> Vec<TraceEvent> {
    let query = Query { kinds: vec![kind], ..Query::default() };
    trace.query(&query).map(|record| record.event.clone()).collect()
}

fn completed(world: &World, model: ModelId) -> u64 {
    world.metrics(model).expect("a known model").counts.completed
}

#[test]
fn refusing_a_long_model_keeps_the_short_one_on_time() {
    let mut world = world();
    let camera = world.admit(Model::periodic("camera", ms(4), ms(10))).expect("40 % load");
    // 70 % in all, but one lidar job would hold the device past a camera deadline.
    let refusal = world.admit(Model::periodic("lidar", ms(30), ms(100))).expect_err("blocks");
    assert_eq!(refusal.category(), Category::Permanent);
    assert!(matches!(
        refusal.refusal(),
        Some(Refusal::DemandExceedsWindow { blocking, .. }) if *blocking == ms(30)
    ));
    world.run_for(ms(60_000));
    assert_eq!(world.trace().misses(camera), 0);
    assert_eq!(completed(&world, camera), 6_000);
}

#[test]
fn a_model_that_fails_is_fenced_and_the_other_23_go_on() {
    let mut world = world();
    let fault = SimFault::ExecutionFailure;
    let broken = world.admit(faulty("broken", ms(1), ms(50), 3, fault)).expect("admitted");
    let others: Vec<ModelId> = (0..23)
        .map(|n| world.admit(Model::periodic(&format!("m{n}"), ms(1), ms(50))).expect("admitted"))
        .collect();
    world.run_for(ms(10_000));
    assert_eq!(completed(&world, broken), 3);
    assert_eq!(events(world.trace(), EventKind::Fenced), [TraceEvent::Fenced { model: broken }]);
    assert!(matches!(
        events(world.trace(), EventKind::Faulted)[..],
        [TraceEvent::Faulted { job, category: Category::Permanent }] if job.model == broken
    ));
    for other in others {
        assert_eq!(completed(&world, other), 200, "{other}");
        assert_eq!(world.trace().misses(other), 0);
    }
    let refused = events(world.trace(), EventKind::SubmissionRefused);
    assert!(!refused.is_empty() && refused.iter().all(|event| event.model() == Some(broken)));
}

#[test]
fn a_launch_that_fails_costs_nobody_a_deadline() {
    let mut world = world();
    let fault = SimFault::LaunchFailure;
    let broken = world.admit(faulty("broken", ms(2), ms(20), 0, fault)).expect("admitted");
    let sound = world.admit(Model::periodic("sound", ms(2), ms(20))).expect("admitted");
    world.run_for(ms(1_000));
    assert_eq!(completed(&world, broken), 0);
    assert_eq!(completed(&world, sound), 50);
    assert_eq!(world.trace().misses(sound), 0);
}

#[test]
fn an_overrun_names_the_assumption_and_the_models_it_touched() {
    let mut world = world();
    let fault = SimFault::Overrun { extra: ms(9) };
    let rogue = world.admit(faulty("rogue", ms(3), ms(100), 2, fault)).expect("admitted");
    let camera = world.admit(Model::periodic("camera", ms(4), ms(10))).expect("admitted");
    world.run_for(ms(2_000));
    let broken = events(world.trace(), EventKind::AssumptionBroken);
    assert!(matches!(
        broken[..],
        [TraceEvent::AssumptionBroken { assumption: Assumption::ExecutionTime, job, assumed, observed }]
            if job.model == rogue && assumed == ms(3) && observed == ms(12)
    ));
    let touched = events(world.trace(), EventKind::BoundExceeded);
    assert!(touched.iter().any(|event| event.model() == Some(camera)));
    assert!(touched.iter().all(|event| matches!(
        event,
        TraceEvent::BoundExceeded { cause: Some(job), .. } if job.model == rogue
    )));
    assert_eq!(world.metrics(camera).expect("known").counts.bound_violated, 0);
}

#[test]
fn a_hang_is_found_by_the_watchdog_and_reported_once() {
    let mut world = world();
    let stuck = world.admit(faulty("stuck", ms(2), ms(50), 1, SimFault::Hang)).expect("admitted");
    world.admit(Model::periodic("camera", ms(4), ms(10))).expect("admitted");
    world.run_for(ms(2_000));
    let hanging = events(world.trace(), EventKind::Hanging);
    assert!(matches!(
        hanging[..],
        [TraceEvent::Hanging { job, elapsed, .. }] if job.model == stuck && elapsed == ms(200)
    ));
    assert_eq!(events(world.trace(), EventKind::Fenced), [TraceEvent::Fenced { model: stuck }]);
}

#[test]
fn a_lost_device_is_fatal() {
    let mut world = world();
    let fault = SimFault::DeviceLost;
    world.admit(faulty("last", ms(2), ms(50), 1, fault)).expect("admitted");
    world.run_for(ms(500));
    assert!(matches!(
        events(world.trace(), EventKind::Faulted)[..],
        [TraceEvent::Faulted { category: Category::Fatal, .. }, ..]
    ));
}

#[test]
fn a_lost_device_is_the_fault_of_one_model_and_nothing_more_is_launched() {
    let mut world = world();
    let last = world.admit(faulty("last", ms(2), ms(50), 0, SimFault::DeviceLost));
    let last = last.expect("admitted");
    for n in 0..3 {
        world.admit(Model::periodic(&format!("other{n}"), ms(2), ms(50))).expect("admitted");
    }
    world.run_for(ms(500));
    assert!(matches!(
        events(world.trace(), EventKind::Fenced)[..],
        [TraceEvent::Fenced { model }] if model == last
    ));
    assert_eq!(events(world.trace(), EventKind::Faulted).len(), 1);
    assert!(events(world.trace(), EventKind::LaunchFailed).is_empty());
}

#[test]
fn an_evicted_model_gives_its_share_back() {
    let mut world = world();
    let first = world.admit(Model::periodic("first", ms(6), ms(10))).expect("60 %");
    world.run_for(ms(95));
    assert!(world.admit(Model::periodic("second", ms(6), ms(10))).is_err());
    world.evict(first);
    world.run_for(ms(20));
    assert!(matches!(
        events(world.trace(), EventKind::Evicted)[..],
        [TraceEvent::Evicted { model }] if model == first
    ));
    let second = world.admit(Model::periodic("second", ms(6), ms(10))).expect("room again");
    assert_eq!((second.index, second.generation), (first.index, 1), "the slot, not the id");
    world.run_for(ms(1_000));
    assert_eq!(world.trace().misses(second), 0);
    assert_eq!(completed(&world, first), 10);
}

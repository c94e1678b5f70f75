//! Charges by counts of a driver that is made up.

use super::*;
use aegis_cuda::SimConfig;
use proptest::prelude::*;

/// What the driver counts before anything is charged.
const BASE: u64 = 100;
const TOTAL: u64 = 1_000_000;

/// A device, and what the driver would count on it.
struct World {
    device: DeviceContext,
    graphs: u64,
    rest: u64,
    counted: MemoryCount,
}

impl World {
    fn new() -> Self {
        let limits = SimConfig { memory_limit: Bytes(TOTAL), max_streams: 1, stream_depth: 1 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        Self { device, graphs: 0, rest: BASE, counted: MemoryCount::PerProcess }
    }

    /// By the process 40 less than by what is in use, as the kinds of a real driver lie apart.
    fn count(&self) -> DriverMemory {
        let process = self.graphs + self.rest;
        let in_use = process + 40;
        let process = match self.counted {
            MemoryCount::PerProcess => process,
            MemoryCount::FallOfFree => in_use,
        };
        count(process, self.counted, self.graphs, TOTAL - in_use)
    }

    fn open(&self) -> Meter {
        self.device.foreign_account().open(Some(self.count()));
        Meter { device: self.device.clone() }
    }

    fn charge(&self, meter: &Meter) -> Holding {
        let account = self.device.foreign_account();
        meter.charge_at(Some(self.count()), account).expect("it fits")
    }

    fn leave(&self, holding: &mut Holding) {
        holding.leave_at(Some(self.count()), self.device.foreign_account());
    }

    fn settle(&self, mut holding: Holding) {
        holding.settle_at(Some(self.count()), self.device.foreign_account());
    }

    /// Binds a model that lets the count grow so.
    fn bind(&mut self, graphs: u64, rest: u64) -> Holding {
        let meter = self.open();
        (self.graphs, self.rest) = (self.graphs + graphs, self.rest + rest);
        self.charge(&meter)
    }

    /// Evicts the model of `holding`, which lets the count fall so.
    fn evict(&mut self, mut holding: Holding, graphs: u64, rest: u64) {
        self.leave(&mut holding);
        (self.graphs, self.rest) = (self.graphs - graphs, self.rest - rest);
        self.settle(holding);
    }

    /// What is charged, line by line; together what the driver counts beyond the beginning.
    fn charged(&self) -> [u64; 3] {
        let used = self.device.memory_use();
        assert_eq!(used.libraries().0, self.truth(), "nothing is forgotten, and nothing twice");
        [used.graphs.0, used.foreign.0, used.modules.0]
    }

    fn ledger(&self) -> u64 {
        let libraries = self.device.memory_use().libraries();
        assert_eq!(
            libraries,
            self.device.foreign_account().charged().total(),
            "the book is the ledger"
        );
        libraries.0
    }

    fn truth(&self) -> u64 {
        self.graphs + self.rest - BASE
    }
}

fn count(process: u64, counted: MemoryCount, graphs: u64, free: u64) -> DriverMemory {
    let (process, graphs) = (Some(Bytes(process)), Some(Bytes(graphs)));
    DriverMemory { process, counted, graphs, free: Bytes(free), total: Bytes(TOTAL) }
}

#[test]
fn without_a_count_of_the_process_all_that_is_in_use_is_read() {
    let counted = |process, counted| {
        let (free, total) = (Bytes(640), Bytes(1000));
        Reading::from(DriverMemory { process, counted, graphs: None, free, total }).process
    };
    assert_eq!(counted(None, MemoryCount::FallOfFree), Bytes(360));
    assert_eq!(
        counted(Some(Bytes(7)), MemoryCount::FallOfFree),
        Bytes(360),
        "one kind, one figure"
    );
    assert_eq!(counted(Some(Bytes(7)), MemoryCount::PerProcess), Bytes(7));
}

#[test]
fn on_a_device_without_libraries_nothing_is_charged() {
    let world = World::new();
    let meter = Meter::start(&world.device);
    assert_eq!(meter.charge_load().expect("nothing to charge"), Bytes::ZERO);
    meter.charge_failure();
    let mut holding = meter.charge().expect("nothing to charge");
    holding.leave();
    drop(holding);
    assert_eq!(world.device.reserved_memory(), Bytes::ZERO);
}

#[test]
fn what_a_library_keeps_stays_charged_and_the_next_bind_does_not_pay_again() {
    let mut world = World::new();
    let first = world.bind(10, 60); // 40 of it for modules that stay.
    assert_eq!(world.charged(), [10, 60, 0]);
    world.evict(first, 10, 20);
    assert_eq!(world.charged(), [0, 0, 40]);
    let second = world.bind(10, 20); // The modules are there.
    assert_eq!(world.charged(), [10, 20, 40]);
    let neighbour = world.bind(0, 5);
    world.evict(second, 10, 20);
    assert_eq!(world.charged(), [0, 5, 40]);
    world.evict(neighbour, 0, 5);
    assert_eq!(world.charged(), [0, 0, 40]);
}

#[test]
fn what_two_models_share_and_the_last_lets_go_is_refunded_in_every_round() {
    let mut world = World::new();
    for _ in 0..3 {
        let first = world.bind(0, 100); // Its own is nothing: all of it is shared.
        let last = world.bind(0, 5);
        world.evict(first, 0, 0);
        assert_eq!(world.charged(), [0, 5, 100]);
        world.evict(last, 0, 105);
        assert_eq!(world.charged(), [0, 0, 0]);
    }
}

#[test]
fn one_that_paid_nothing_lets_go_what_others_left() {
    let mut world = World::new();
    let first = world.bind(3, 100);
    let last = world.bind(0, 0);
    world.evict(first, 0, 0);
    world.evict(last, 3, 100);
    assert_eq!(world.charged(), [0, 0, 0]);
}

#[test]
fn what_a_failed_attempt_left_is_refunded_when_it_goes_and_a_load_never() {
    let mut world = World::new();
    let meter = world.open();
    world.rest += 30;
    let mut account = world.device.foreign_account();
    account.charge_kept(change(&account, Some(world.count())).grown());
    drop(account);
    drop(meter);
    world.device.foreign_account().charge_for_good(parts(0, 7)).expect("it fits");
    let model = world.bind(0, 5);
    world.evict(model, 0, 35);
    assert_eq!(world.ledger(), 7);
    let model = world.bind(0, 5);
    world.rest += 50; // Of others, in no window.
    world.evict(model, 0, 55);
    assert_eq!(world.ledger(), 7);
}

#[test]
fn what_a_model_took_at_run_time_and_gave_back_is_not_what_others_left() {
    let mut world = World::new();
    let first = world.bind(0, 40);
    world.evict(first, 0, 0);
    for _ in 0..3 {
        let second = world.bind(0, 10);
        world.rest += 20; // Its first launch; nobody is charged.
        world.evict(second, 0, 30);
        assert_eq!(world.charged(), [0, 0, 40]);
    }
}

#[test]
fn a_pool_of_graphs_that_does_not_shrink_stays_the_pools() {
    let mut world = World::new();
    let model = world.bind(30, 0);
    world.evict(model, 0, 0);
    assert_eq!(world.charged(), [30, 0, 0]);
    let model = world.bind(0, 0); // Its graphs live in what the pool has.
    world.evict(model, 0, 0);
    assert_eq!(world.charged(), [30, 0, 0]);
}

#[test]
fn what_was_only_tried_is_refunded_whole() {
    let mut world = World::new();
    world.bind(10, 60).refund();
    assert_eq!(world.ledger(), 0);
}

#[test]
fn nothing_of_a_model_that_stays_is_refunded_and_nothing_where_nobody_counts() {
    let mut world = World::new();
    let neighbour = world.bind(0, 100);
    let model = world.bind(0, 50);
    world.evict(model, 0, 150); // The neighbour's went at the same time.
    assert_eq!(world.device.memory_use().foreign, Bytes(100));
    drop(neighbour); // On a simulated device nobody says that anything went.
    let used = world.device.memory_use();
    assert_eq!((used.foreign, used.modules), (Bytes::ZERO, Bytes(100)));
}

#[test]
fn holdings_are_joined_and_settled_as_one() {
    let mut world = World::new();
    let mut load = world.bind(0, 30);
    world.leave(&mut load); // Before the bind, which succeeds.
    let bound = world.bind(5, 20);
    load.join(bound);
    assert_eq!(load.bytes(), Bytes(55));
    // Dropped with its programs: what was charged at load and at bind, but 12 bytes.
    world.evict(load, 5, 38);
    assert_eq!(world.charged(), [0, 0, 12]);
}

#[test]
fn a_model_that_goes_while_another_is_loaded_costs_nobody_a_charge() {
    // The load begins, grows before or after the other's fall, and ends before or after it is settled.
    for (grown_before, grown_between, grown_after) in
        [(100, 0, 0), (0, 100, 0), (0, 0, 100), (30, 30, 40)]
    {
        let mut world = World::new();
        let mut leaves = world.bind(0, 60);
        let load = world.open();
        world.rest += grown_before;
        world.leave(&mut leaves);
        world.rest = world.rest + grown_between - 60;
        world.settle(leaves);
        world.rest += grown_after;
        let loaded = world.charge(&load);
        drop(load);
        assert_eq!(world.ledger(), 100);
        world.evict(loaded, 0, 100);
        assert_eq!(world.ledger(), 0);
    }
}

#[test]
fn of_unlike_counts_nothing_is_refunded_and_what_is_in_use_is_charged() {
    let mut world = World::new();
    let mut model = world.bind(0, 60);
    world.leave(&mut model);
    world.counted = MemoryCount::FallOfFree; // The listing failed, once.
    world.settle(model);
    assert_eq!(world.ledger(), 60, "it is all there");
    world.counted = MemoryCount::PerProcess;
    let meter = world.open();
    world.counted = MemoryCount::FallOfFree;
    world.rest += 25;
    let mut falls = world.charge(&meter);
    drop(meter);
    assert_eq!(falls.bytes(), Bytes(25));
    world.leave(&mut falls);
    world.counted = MemoryCount::PerProcess;
    world.rest -= 25;
    world.settle(falls);
    assert_eq!(world.ledger(), 85, "nobody knows whose fall it was");
}

#[test]
fn the_parts_sum_up_to_the_growth() {
    let change = |whole, graphs| Change { whole, graphs };
    assert_eq!(change(50, 20).grown(), parts(20, 30));
    assert_eq!(change(10, 20).grown(), parts(10, 0));
    assert_eq!(change(-10, 0).grown(), parts(0, 0));
    assert_eq!(change(-10, 0).fallen(), parts(0, 10));
    assert_eq!(change(20, -5).grown(), parts(0, 20));
    assert_eq!(change(-20, -5).fallen(), parts(5, 15));
}

fn parts(graphs: u64, rest: u64) -> ForeignParts {
    ForeignParts { graphs: Bytes(graphs), rest: Bytes(rest) }
}

/// What a library takes once for all models that use it, and gives back with the last of them.
const SHARED: [(u64, u64); 3] = [(0, 100), (16, 32), (7, 0)];

#[derive(Clone, Debug)]
struct Model {
    own: (u64, u64),
    uses: [bool; 3],
}

impl World {
    /// What the driver counts while `models` live.
    fn live<'a>(&mut self, models: impl Iterator<Item = &'a Model> + Clone) {
        (self.graphs, self.rest) = (0, BASE);
        let own = models.clone().map(|it| it.own);
        let used = |(library, _): &(usize, _)| models.clone().any(|it| it.uses[*library]);
        let shared = SHARED.into_iter().enumerate().filter(used).map(|(_, taken)| taken);
        for (graphs, rest) in own.chain(shared) {
            (self.graphs, self.rest) = (self.graphs + graphs, self.rest + rest);
        }
    }
}

fn model() -> impl Strategy<Value = Model> {
    ((0..40_u64, 0..40_u64), any::<[bool; 3]>()).prop_map(|(own, uses)| Model { own, uses })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_ledger_follows_the_driver_through_all_that_come_and_go(
        steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), model()), 1..40),
    ) {
        let mut world = World::new();
        let mut live: Vec<(Model, Holding)> = Vec::new();
        let evict = |world: &mut World, live: &mut Vec<(Model, Holding)>, place: usize| {
            let (_, mut holding) = live.remove(place);
            world.leave(&mut holding);
            world.live(live.iter().map(|(model, _)| model));
            world.settle(holding);
        };
        for (binds, place, model) in steps {
            if binds || live.is_empty() {
                let meter = world.open();
                world.live(live.iter().map(|(model, _)| model).chain([&model]));
                let holding = world.charge(&meter);
                live.push((model, holding));
            } else {
                let place = place.index(live.len());
                evict(&mut world, &mut live, place);
            }
            prop_assert!(world.ledger() >= world.truth());
        }
        while !live.is_empty() {
            evict(&mut world, &mut live, 0);
            prop_assert!(world.ledger() >= world.truth());
        }
        prop_assert_eq!((world.ledger(), world.truth()), (0, 0));
    }

    /// Steps of windows in any order: whenever none is open, nothing is lost.
    #[test]
    fn windows_that_overlap_lose_nothing(
        steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), model()), 1..60),
    ) {
        let mut world = World::new();
        let mut binding: Vec<(Meter, Model)> = Vec::new();
        let mut live: Vec<(Model, Holding)> = Vec::new();
        let mut leaving: Vec<Holding> = Vec::new();
        for (step, place, model) in steps {
            match step {
                0 => binding.push((world.open(), model)),
                1 if !binding.is_empty() => {
                    let (meter, model) = binding.swap_remove(place.index(binding.len()));
                    live.push((model, world.charge(&meter)));
                }
                2 if !live.is_empty() => {
                    let (_, mut holding) = live.swap_remove(place.index(live.len()));
                    world.leave(&mut holding);
                    leaving.push(holding);
                }
                3 if !leaving.is_empty() => {
                    world.settle(leaving.swap_remove(place.index(leaving.len())));
                }
                _ => {}
            }
            let bound = live.iter().map(|(model, _)| model);
            world.live(binding.iter().map(|(_, model)| model).chain(bound));
            if binding.is_empty() && leaving.is_empty() {
                prop_assert!(world.ledger() >= world.truth());
            }
        }
    }
}

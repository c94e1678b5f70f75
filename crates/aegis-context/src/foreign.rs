//! What runtimes take of a GPU outside the arena, by the driver's count.
//!
//! Handles of libraries, modules of kernels, and the pools of graphs are none of our allocations: the
//! driver's figure for the process grows by them while everything else stands still, and the growth is
//! charged to the model that caused it.
//!
//! ```text
//!   ONNX Runtime   load   sessions made, run, dropped    what stays is loaded once in a process: modules
//!                  bind   sessions made, run, captured   the pool's growth: graphs; the rest: libraries
//!   TVM, TensorRT  load   kernels loaded, or engines run  as at bind, for as long as the model lives
//!                  bind   run, captured                  the pool's growth: graphs; the rest: libraries
//! ```
//! The first model that uses a module pays for it. One that a library loads at bind counts among the
//! libraries while the model stays; one that it loads at run time is found as growth since the start
//! (`aegis`, report of memory).
//!
//! When a model goes, its charge goes as far as the driver's count falls ([`Holding`]): what its libraries
//! keep for the process stays charged, and is no growth when another model is bound that uses it.
//!
//! # Invariants
//! 1. What is charged at one time sums up to what the driver's count grew by, never to more.
//! 2. Whatever way an attempt ends, what it left behind is charged: else the next one would begin to
//!    count above it, and nobody would ever pay.
//! 3. A charge is refunded by no more than the driver's count fell by.

use aegis_cuda::{DeviceContext, DeviceError, DriverMemory, ForeignCharge, ForeignUse};
use aegis_trace::Bytes;

/// A reading of the driver's count before something is done.
#[derive(Debug)]
pub struct Meter {
    device: DeviceContext,
    before: Option<Reading>,
}

/// What the driver counted at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    process: Bytes,
    graphs: Bytes,
}

impl Meter {
    /// Reads what the driver counts on `device`.
    #[must_use]
    pub fn start(device: &DeviceContext) -> Self {
        Self { device: device.clone(), before: Reading::of(device) }
    }

    /// Charges what a load left behind, for good: modules stay when the model goes. Gives how much;
    /// nothing where nobody counts.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]: the limit of the device does not hold it. It is charged all the
    /// same: it is there.
    pub fn charge_load(&self) -> Result<Bytes, DeviceError> {
        let Some((graphs, rest)) = self.grown() else { return Ok(Bytes::ZERO) };
        let whole = graphs + rest;
        self.device.charge_taken(ForeignUse::Modules, whole).map(|()| whole)
    }

    /// Charges for good what an attempt that failed has left behind, now that all it held is dropped:
    /// what has to be refused for it is refused to whoever comes next.
    pub fn charge_failure(&self) {
        // The failure is told already; this one would be told in its place.
        let _beyond = self.charge_load();
    }

    /// Charges what was taken until it is seen to go: what the graphs' pool grew by, and the rest as of
    /// libraries. Nothing where nobody counts.
    ///
    /// # Errors
    /// As [`Meter::charge_load`], but nothing is charged then: what stays once the sessions are dropped
    /// is for [`Meter::charge_failure`].
    pub fn charge(&self) -> Result<Holding, DeviceError> {
        let mut holding = Holding::of(&self.device);
        let Some((graphs, rest)) = self.grown() else { return Ok(holding) };
        holding.graphs.push(self.device.charge_foreign_as(ForeignUse::Graphs, graphs)?);
        let rest = self.device.charge_foreign_as(ForeignUse::Libraries, rest);
        match rest {
            Ok(rest) => holding.libraries.push(rest),
            Err(error) => {
                holding.refund(); // All or nothing.
                return Err(error);
            }
        }
        Ok(holding)
    }

    fn grown(&self) -> Option<(Bytes, Bytes)> {
        Some(Reading::of(&self.device)?.since(self.before?))
    }
}

/// What a model's libraries hold, charged to the device; when the model goes, as much of it stays
/// charged as stays with the process.
///
/// Its owner declares it behind all that the libraries made for the model, and calls
/// [`leave`](Self::leave) in its own drop, before any of that is dropped. What others take or give back
/// in between is counted too: a charge that stays too large errs on the safe side, and no more than the
/// charge is ever refunded.
#[derive(Debug)]
#[must_use = "what is dropped is settled with the driver's count"]
pub struct Holding {
    device: DeviceContext,
    graphs: Vec<ForeignCharge>,
    libraries: Vec<ForeignCharge>,
    /// The count before the model began to go.
    leaving: Option<Reading>,
}

impl Holding {
    /// Of nothing yet, on `device`.
    pub fn of(device: &DeviceContext) -> Self {
        let (graphs, libraries) = (Vec::new(), Vec::new());
        Self { device: device.clone(), graphs, libraries, leaving: None }
    }

    /// Takes over what `other` holds, of a model that stays.
    pub fn join(&mut self, mut other: Self) {
        self.leaving = None;
        self.graphs.append(&mut other.graphs);
        self.libraries.append(&mut other.libraries);
    }

    /// How much is charged.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.graphs.iter().chain(&self.libraries).map(ForeignCharge::bytes).sum()
    }

    /// Reads what the driver counts before the model's objects are dropped, or before an attempt to bind
    /// that drops them where it fails: the first call counts, until [`join`](Self::join) says that the
    /// model stays. Without a call, all of the charge stays.
    pub fn leave(&mut self) {
        if self.leaving.is_none() {
            self.leaving = Reading::of(&self.device);
        }
    }

    /// Gives all of the charge back: for an attempt that asked only whether the limit holds it, and whose
    /// remains are charged by [`Meter::charge_load`].
    pub fn refund(mut self) {
        self.graphs.clear();
        self.libraries.clear();
    }

    /// Gives back what the driver's count fell by since [`leave`](Self::leave), and charges the rest for
    /// good: of the graphs to their pool, which later graphs use; of the libraries to modules.
    fn settle(&mut self, now: Option<Reading>) {
        let fell = self.leaving.zip(now).map(|(before, now)| before.since(now));
        let (graphs, rest) = fell.unwrap_or_default();
        for (charges, fell, line) in [
            (&mut self.graphs, graphs, ForeignUse::Graphs),
            (&mut self.libraries, rest, ForeignUse::Modules),
        ] {
            let charged: Bytes = charges.iter().map(ForeignCharge::bytes).sum();
            let stays = charged.saturating_sub(fell);
            // Refunded first, so that the same bytes are never charged twice; beyond the limit they are
            // charged all the same, and what follows is refused.
            charges.clear();
            if stays > Bytes::ZERO {
                let _beyond = self.device.charge_taken(line, stays);
            }
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if self.bytes() > Bytes::ZERO {
            self.settle(Reading::of(&self.device));
        }
    }
}

impl Reading {
    fn of(device: &DeviceContext) -> Option<Self> {
        device.driver_memory().map(Self::from)
    }

    /// What the graphs' pool and what everything else grew by since `before`: of the whole growth,
    /// which the driver counts in pages of its own, the pool's is taken first.
    fn since(self, before: Self) -> (Bytes, Bytes) {
        let whole = self.process.saturating_sub(before.process);
        let graphs = self.graphs.saturating_sub(before.graphs).min(whole);
        (graphs, whole.saturating_sub(graphs))
    }
}

impl From<DriverMemory> for Reading {
    /// Where nobody counts this process, all that is in use on the device: what that grows by is the
    /// fall of free memory, to which other processes may add.
    fn from(memory: DriverMemory) -> Self {
        let DriverMemory { process, graphs, free, total, .. } = memory;
        let process = process.unwrap_or(total.saturating_sub(free));
        Self { process, graphs: graphs.unwrap_or(Bytes::ZERO) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aegis_cuda::{MemoryCount, SimConfig};

    #[test]
    fn without_a_count_of_the_process_the_fall_of_free_memory_is_charged() {
        let counted = |process, free| DriverMemory {
            process,
            counted: MemoryCount::FallOfFree,
            graphs: None,
            free: Bytes(free),
            total: Bytes(1000),
        };
        let blind = |free| Reading::from(counted(None, free));
        assert_eq!(blind(640).since(blind(700)), (Bytes(0), Bytes(60)));
        assert_eq!(Reading::from(counted(Some(Bytes(7)), 640)).process, Bytes(7));
    }

    #[test]
    fn on_a_device_without_libraries_nothing_is_charged() {
        let limits = SimConfig { memory_limit: Bytes(1), max_streams: 1, stream_depth: 1 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        let meter = Meter::start(&device);
        assert_eq!(meter.charge_load().expect("nothing to charge"), Bytes::ZERO);
        meter.charge_failure();
        assert_eq!(device.reserved_memory(), Bytes::ZERO);
    }

    /// A device of 1000 bytes, and what the driver would count on it.
    struct World {
        device: DeviceContext,
        count: Reading,
    }

    impl World {
        fn new() -> Self {
            let limits = SimConfig { memory_limit: Bytes(1000), max_streams: 1, stream_depth: 1 };
            let device = DeviceContext::sim(limits).expect("a simulated device");
            Self { device, count: reading(100, 0) }
        }

        /// Binds a model that lets the count grow so.
        fn bind(&mut self, graphs: u64, rest: u64) -> Holding {
            let before = self.count;
            let process = before.process.0 + graphs + rest;
            self.count = reading(process, before.graphs.0 + graphs);
            let (graphs, rest) = self.count.since(before);
            let charge = |of, bytes| self.device.charge_foreign_as(of, bytes).expect("it fits");
            let mut holding = Holding::of(&self.device);
            holding.graphs.push(charge(ForeignUse::Graphs, graphs));
            holding.libraries.push(charge(ForeignUse::Libraries, rest));
            holding
        }

        /// Evicts the model of `holding`, which lets the count fall so.
        fn evict(&mut self, mut holding: Holding, graphs: u64, rest: u64) {
            holding.leaving = Some(self.count);
            let process = self.count.process.0 - graphs - rest;
            self.count = reading(process, self.count.graphs.0 - graphs);
            holding.settle(Some(self.count));
        }

        /// What is charged, line by line; together what the driver counts beyond the beginning.
        fn charged(&self) -> [u64; 3] {
            let used = self.device.memory_use();
            assert_eq!(used.libraries().0, self.count.process.0 - 100, "nothing is forgotten");
            [used.graphs.0, used.foreign.0, used.modules.0]
        }
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
        assert_eq!(world.device.memory_use().libraries(), Bytes::ZERO);
    }

    #[test]
    fn no_more_is_refunded_than_was_charged_and_nothing_where_nobody_counts() {
        let mut world = World::new();
        let neighbour = world.bind(0, 100);
        let model = world.bind(0, 50);
        let (mut holding, before) = (model, world.count);
        holding.leaving = Some(before);
        holding.settle(Some(reading(100, 0))); // The neighbour's went at the same time.
        assert_eq!(world.device.memory_use().foreign, Bytes(100));
        drop(neighbour); // On a simulated device nobody says that anything went.
        let used = world.device.memory_use();
        assert_eq!((used.foreign, used.modules), (Bytes::ZERO, Bytes(100)));
    }

    #[test]
    fn holdings_are_joined_and_settled_as_one() {
        let mut world = World::new();
        let mut load = world.bind(0, 30);
        load.join(world.bind(5, 20));
        assert_eq!(load.bytes(), Bytes(55));
        // Dropped with its programs: what was charged at load and at bind, but 12 bytes.
        world.evict(load, 5, 38);
        assert_eq!(world.charged(), [0, 0, 12]);
    }

    fn reading(process: u64, graphs: u64) -> Reading {
        Reading { process: Bytes(process), graphs: Bytes(graphs) }
    }

    #[test]
    fn the_parts_sum_up_to_the_growth() {
        let since = |now: Reading, before| now.since(before);
        assert_eq!(since(reading(150, 30), reading(100, 10)), (Bytes(20), Bytes(30)));
        assert_eq!(since(reading(110, 30), reading(100, 10)), (Bytes(10), Bytes(0)));
        assert_eq!(since(reading(90, 10), reading(100, 10)), (Bytes(0), Bytes(0)), "it shrank");
        assert_eq!(since(reading(120, 5), reading(100, 10)), (Bytes(0), Bytes(20)), "the pool did");
    }
}

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
//! The first model that uses a module pays for it. One that a library loads at bind or at run time
//! counts among the libraries, or is found as growth since the start (`aegis`, report of memory).
//!
//! # Invariants
//! 1. What is charged at one time sums up to what the driver's count grew by, never to more.
//! 2. Whatever way an attempt ends, what it left behind is charged: else the next one would begin to
//!    count above it, and nobody would ever pay.

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

    /// Charges what was taken until the charges are dropped: what the graphs' pool grew by, and the rest
    /// as of libraries. Empty where nobody counts.
    ///
    /// # Errors
    /// As [`Meter::charge_load`], but nothing is charged then: what stays once the sessions are dropped
    /// is for [`Meter::charge_failure`].
    pub fn charge(&self) -> Result<Vec<ForeignCharge>, DeviceError> {
        let Some((graphs, rest)) = self.grown() else { return Ok(Vec::new()) };
        [(ForeignUse::Graphs, graphs), (ForeignUse::Libraries, rest)]
            .into_iter()
            .map(|(of, bytes)| self.device.charge_foreign_as(of, bytes))
            .collect()
    }

    fn grown(&self) -> Option<(Bytes, Bytes)> {
        Some(Reading::of(&self.device)?.since(self.before?))
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

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
//! 1. What is charged follows the driver's count: a growth within a window is charged once, also where the
//!    windows of several threads overlap, and what models left behind is refunded once it goes, with
//!    whomever.
//! 2. Whatever way an attempt ends, what it left behind is charged: else the next one would begin to
//!    count above it, and nobody would ever pay.
//! 3. A charge is refunded by no more than the driver's count fell by, and by nothing where the two
//!    readings are of unlike kinds.

use aegis_cuda::{
    CountedMoment, DeviceContext, DeviceError, DriverMemory, ForeignAccount, ForeignParts,
    MemoryCount,
};
use aegis_trace::Bytes;

/// A window of the driver's count, from before something is done to the drop.
#[derive(Debug)]
#[must_use = "its window ends with it"]
pub struct Meter {
    device: DeviceContext,
}

impl Meter {
    /// Reads what the driver counts on `device`.
    pub fn start(device: &DeviceContext) -> Self {
        let mut account = device.foreign_account();
        account.open(device.driver_memory());
        Self { device: device.clone() }
    }

    /// Charges what a load left behind, for good: modules stay when the model goes. Gives how much;
    /// nothing where nobody counts.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]: the limit of the device does not hold it. It is charged all the
    /// same: it is there.
    pub fn charge_load(&self) -> Result<Bytes, DeviceError> {
        let mut account = self.device.foreign_account();
        let grown = change(&account, self.device.driver_memory()).grown();
        account.charge_for_good(grown).map(|()| grown.total())
    }

    /// Charges what an attempt that failed has left behind, now that all it held is dropped, until a fall
    /// of the driver's count says that it went: what has to be refused for it is refused to whoever
    /// comes next.
    pub fn charge_failure(&self) {
        let mut account = self.device.foreign_account();
        let grown = change(&account, self.device.driver_memory()).grown();
        account.charge_kept(grown);
    }

    /// Charges what was taken until it is seen to go: what the graphs' pool grew by, and the rest as of
    /// libraries. Nothing where nobody counts.
    ///
    /// # Errors
    /// As [`Meter::charge_load`], but nothing is charged then: what stays once the sessions are dropped
    /// is for [`Meter::charge_failure`].
    pub fn charge(&self) -> Result<Holding, DeviceError> {
        let account = self.device.foreign_account();
        let now = self.device.driver_memory(); // While the account is held.
        self.charge_at(now, account)
    }

    fn charge_at(
        &self,
        now: Option<DriverMemory>,
        mut account: ForeignAccount<'_>,
    ) -> Result<Holding, DeviceError> {
        let charged = change(&account, now).grown();
        account.charge(charged)?;
        let (device, since) = (self.device.clone(), account.moment(now));
        Ok(Holding { device, charged, since, is_leaving: false, untold: ForeignParts::ZERO })
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.device.foreign_account().close();
    }
}

/// What a model's libraries hold, charged to the device; when the model goes, as much of it stays
/// charged as stays with the process.
///
/// Its owner declares it behind all that the libraries made for the model, and calls
/// [`leave`](Self::leave) in its own drop, before any of that is dropped.
#[derive(Debug)]
#[must_use = "what is dropped is settled with the driver's count"]
pub struct Holding {
    device: DeviceContext,
    charged: ForeignParts,
    /// When it was charged.
    since: Option<CountedMoment>,
    /// The model began to go: a window is open.
    is_leaving: bool,
    /// What had been taken then since it was charged, and charged to nobody.
    untold: ForeignParts,
}

impl Holding {
    /// Takes over what `other` holds, of a model that stays.
    pub fn join(&mut self, mut other: Self) {
        if std::mem::take(&mut self.is_leaving) {
            self.device.foreign_account().close();
        }
        self.charged = self.charged.plus(std::mem::take(&mut other.charged));
    }

    /// How much is charged.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.charged.total()
    }

    /// Reads what the driver counts before the model's objects are dropped, or before an attempt to bind
    /// that drops them where it fails: the first call counts, until [`join`](Self::join) says that the
    /// model stays. Without a call, all of the charge stays.
    pub fn leave(&mut self) {
        let device = self.device.clone();
        let account = device.foreign_account();
        let now = device.driver_memory();
        self.leave_at(now, account);
    }

    fn leave_at(&mut self, now: Option<DriverMemory>, mut account: ForeignAccount<'_>) {
        if std::mem::replace(&mut self.is_leaving, true) {
            return;
        }
        let lived = self.since.zip(account.moment(now));
        self.untold = lived.map_or(ForeignParts::ZERO, |(from, to)| Change::of(from, to).grown());
        account.open(now);
    }

    /// Gives all of the charge back: for an attempt that asked only whether the limit holds it, and whose
    /// remains are charged by [`Meter::charge_load`].
    pub fn refund(mut self) {
        let own = std::mem::take(&mut self.charged); // The drop has nothing to settle then.
        self.device.foreign_account().refund(own);
    }

    /// Gives back what the driver's count fell by since [`leave`](Self::leave), and leaves the rest
    /// charged: of the graphs to their pool, which later graphs use; of the libraries to modules. A fall
    /// beyond its own charge is of what models before it left, and went with this one.
    fn settle_at(&mut self, now: Option<DriverMemory>, mut account: ForeignAccount<'_>) {
        let own = std::mem::take(&mut self.charged);
        if !std::mem::take(&mut self.is_leaving) {
            return account.settle(own, ForeignParts::ZERO, ForeignParts::ZERO);
        }
        let change = change(&account, now);
        account.settle(own, change.fallen(), self.untold);
        account.charge_kept(change.grown());
        account.close();
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if self.is_leaving || self.charged.total() > Bytes::ZERO {
            let device = self.device.clone();
            let account = device.foreign_account();
            let now = device.driver_memory();
            self.settle_at(now, account);
        }
    }
}

/// How the driver's count changed since the present windows began: nothing is known where nobody counts.
fn change(account: &ForeignAccount<'_>, now: Option<DriverMemory>) -> Change {
    account.base().zip(account.moment(now)).map_or(NONE, |(from, to)| Change::of(from, to))
}

const NONE: Change = Change { whole: 0, graphs: 0 };

/// A growth, or a fall where it is negative.
#[derive(Clone, Copy, Debug)]
struct Change {
    whole: i128,
    graphs: i128,
}

impl Change {
    /// How the count changed, without what was charged or refunded of it.
    fn of(from: CountedMoment, to: CountedMoment) -> Self {
        let beyond = |count: Bytes, charged: Bytes| i128::from(count.0) - i128::from(charged.0);
        let (before, now) = (Reading::from(from.count), Reading::from(to.count));
        let is_alike = before.counted == now.counted;
        let count = |it: Reading| if is_alike { it.process } else { it.in_use };
        let whole =
            beyond(count(now), to.charged.total()) - beyond(count(before), from.charged.total());
        let graphs =
            beyond(now.graphs, to.charged.graphs) - beyond(before.graphs, from.charged.graphs);
        // What is in use on the whole GPU may have fallen by what another process gave back.
        let whole = if is_alike { whole } else { whole.max(0) };
        Self { whole, graphs }
    }

    /// Of the whole growth, which the driver counts in pages of its own, the pool's is taken first.
    fn grown(self) -> ForeignParts {
        let whole = self.whole.max(0);
        let graphs = self.graphs.clamp(0, whole);
        let bytes = |it: i128| Bytes(u64::try_from(it).unwrap_or(u64::MAX));
        ForeignParts { graphs: bytes(graphs), rest: bytes(whole - graphs) }
    }

    fn fallen(self) -> ForeignParts {
        Self { whole: -self.whole, graphs: -self.graphs }.grown()
    }
}

/// What the driver counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// What `process` is: two readings of unlike kinds lie some tens of MiB apart with nothing changed.
    counted: MemoryCount,
    /// What this process takes; all that is in use where nobody counts the process.
    process: Bytes,
    /// What is in use on the device, by whomever.
    in_use: Bytes,
    graphs: Bytes,
}

impl From<DriverMemory> for Reading {
    /// Where nobody counts this process, all that is in use on the device: what that grows by is the
    /// fall of free memory, to which other processes may add.
    fn from(memory: DriverMemory) -> Self {
        let DriverMemory { process, counted, graphs, free, total } = memory;
        let in_use = total.saturating_sub(free);
        let by_process = process.filter(|_| counted == MemoryCount::PerProcess);
        let counted = by_process.map_or(MemoryCount::FallOfFree, |_| counted);
        let process = by_process.unwrap_or(in_use);
        Self { counted, process, in_use, graphs: graphs.unwrap_or(Bytes::ZERO) }
    }
}

#[cfg(test)]
mod tests;

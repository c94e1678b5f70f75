//! The account of what is charged by the driver's count.
//!
//! Who measures what a library takes reads the driver's count twice and charges the difference: a window.
//! Windows of several threads may overlap, and the driver's count holds what all of them take and give
//! back. So all windows that overlap begin with the first of them, and what counts is how the driver's
//! figure changed since *less what was charged of it since*.
//!
//! ```text
//!   one thread     |begin ---- takes 100 ------------------ charges: count +40, charged -60, so 100|
//!   another               |begin -- gives 60 back -- refunds|
//! ```
//! Write `s` for what is charged less what the driver counts. A charge for a growth makes `s` what it was
//! at the beginning, a refund of a fall leaves it no lower: whatever the order, nothing is lost.
//!
//! # Invariants
//! 1. Windows may overlap in any way: a growth within them is charged once.
//! 2. No fall refunds more than it says, and nothing that belongs to a model that stays or that was
//!    charged for good.
//! 3. A refund and the charge of what stays are one step of the ledger: nobody sees room between them.

use std::sync::MutexGuard;

use aegis_trace::Bytes;

use crate::device_core::{Beyond, DeviceCore, ForeignUse, Line};
use crate::driver_memory::DriverMemory;
use crate::error::DeviceError;

/// Bytes of the two things that the driver counts apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForeignParts {
    /// The driver's pool for captured graphs.
    pub graphs: Bytes,
    /// Everything else.
    pub rest: Bytes,
}

impl ForeignParts {
    /// Of nothing.
    pub const ZERO: Self = Self { graphs: Bytes::ZERO, rest: Bytes::ZERO };

    /// Both together.
    #[must_use]
    pub fn total(self) -> Bytes {
        self.graphs + self.rest
    }

    /// Part by part.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { graphs: self.graphs + other.graphs, rest: self.rest + other.rest }
    }

    /// What is left of each part once `by` is taken off, and what is left of `by`.
    fn less(self, by: Self) -> (Self, Self) {
        let off = |it: Self, by: Self| Self {
            graphs: it.graphs.saturating_sub(by.graphs),
            rest: it.rest.saturating_sub(by.rest),
        };
        (off(self, by), off(by, self))
    }

    /// The same, where what is left of one part is taken off the other.
    fn less_any(self, by: Self) -> (Self, Self) {
        let (left, by) = self.less(by);
        let (left, by) = left.less(by.exchanged());
        (left, by.exchanged())
    }

    fn exchanged(self) -> Self {
        Self { graphs: self.rest, rest: self.graphs }
    }
}

/// What is charged by counts on one device, over all its views.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Book {
    /// All of it.
    charged: ForeignParts,
    /// The part that models left behind: whoever lets the driver's count fall by more than its own charge
    /// has let this go.
    kept: ForeignParts,
    /// Windows that are open, and how it was when the first of them was opened.
    open: usize,
    base: Option<CountedMoment>,
}

/// What the driver counted at one moment, and what was charged by such counts then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedMoment {
    /// The driver's count.
    pub count: DriverMemory,
    /// What was charged by it.
    pub charged: ForeignParts,
}

/// The account, for one who reads the driver's count and charges by it: whoever else wants to waits.
/// For set-up and eviction; not for the hot path.
#[must_use = "a reading taken without it may count what another charges"]
pub struct ForeignAccount<'a> {
    core: &'a DeviceCore,
    book: MutexGuard<'a, Book>,
}

impl<'a> ForeignAccount<'a> {
    pub(crate) fn new(core: &'a DeviceCore, book: MutexGuard<'a, Book>) -> Self {
        Self { core, book }
    }

    /// Opens a window at `count`.
    pub fn open(&mut self, count: Option<DriverMemory>) {
        if self.book.open == 0 {
            self.book.base = None;
        }
        self.book.open += 1;
        self.book.base = self.book.base.or_else(|| self.moment(count));
    }

    /// Where the present windows begin; `None` where nobody counts.
    #[must_use]
    pub fn base(&self) -> Option<CountedMoment> {
        self.book.base
    }

    /// Closes a window.
    pub fn close(&mut self) {
        self.book.open = self.book.open.saturating_sub(1);
    }

    /// The moment of `count`, which was read while the account was held.
    #[must_use]
    pub fn moment(&self, count: Option<DriverMemory>) -> Option<CountedMoment> {
        count.map(|count| CountedMoment { count, charged: self.book.charged })
    }

    /// What is charged by counts: to models that live, left behind, and for good.
    #[must_use]
    pub fn charged(&self) -> ForeignParts {
        self.book.charged
    }

    /// The part of it that a fall of the driver's count beyond a model's own charge refunds.
    #[must_use]
    pub fn kept(&self) -> ForeignParts {
        self.book.kept
    }

    /// Charges what a model took: the graphs to their pool, the rest to libraries. Both or nothing.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] (permanent): the limit is exceeded; nothing is charged.
    pub fn charge(&mut self, grown: ForeignParts) -> Result<(), DeviceError> {
        let lines = [(GRAPHS, grown.graphs), (LIBRARIES, grown.rest)];
        self.core.exchange(&[], &lines, Beyond::Refused)?;
        self.book.charged = self.book.charged.plus(grown);
        Ok(())
    }

    /// Gives back all of a charge made by [`charge`](Self::charge).
    pub fn refund(&mut self, own: ForeignParts) {
        self.settle(own, own, ForeignParts::ZERO);
    }

    /// Charges for good, as modules, what stays loaded for the process; also beyond the limit.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] (permanent): the limit is exceeded. It is charged all the same.
    pub fn charge_for_good(&mut self, grown: ForeignParts) -> Result<(), DeviceError> {
        self.book.charged = self.book.charged.plus(grown);
        self.core.exchange(&[], &[(MODULES, grown.total())], Beyond::Charged)
    }

    /// Charges what was left behind, until somebody lets it go; also beyond the limit, and what follows
    /// is refused then.
    pub fn charge_kept(&mut self, grown: ForeignParts) {
        self.book.charged = self.book.charged.plus(grown);
        self.book.kept = self.book.kept.plus(grown);
        let lines = [(GRAPHS, grown.graphs), (MODULES, grown.rest)];
        // It is there whatever the limit says, and nobody here can refuse it.
        let _beyond = self.core.exchange(&[], &lines, Beyond::Charged);
    }

    /// Ends the charge `own` of a model that has gone, of which the driver's count `fell`: refunds as much,
    /// first of its own charge, then of what others left behind. What stays of its own is left behind.
    /// What was taken `untold` while it lived may have gone with it, and is nothing that others left.
    pub fn settle(&mut self, own: ForeignParts, fell: ForeignParts, untold: ForeignParts) {
        let before = self.book.kept;
        // A pool that grew while the rest shrank was charged by the difference, so the lines may owe each
        // other; their sum is what the limit is about.
        let (own_stays, fell) = own.less_any(fell);
        let (fell, _) = fell.less_any(untold);
        let (kept, _nobodys) = before.less_any(fell);
        let kept = kept.plus(own_stays);
        self.book.charged = self.book.charged.plus(kept).less(own.plus(before)).0;
        self.book.kept = kept;
        let given =
            [(GRAPHS, own.graphs + before.graphs), (LIBRARIES, own.rest), (MODULES, before.rest)];
        let taken = [(GRAPHS, kept.graphs), (MODULES, kept.rest)];
        // Never more than was charged already, which may be beyond the limit.
        let _beyond = self.core.exchange(&given, &taken, Beyond::Charged);
    }
}

const GRAPHS: Line = Line::Foreign(ForeignUse::Graphs);
const LIBRARIES: Line = Line::Foreign(ForeignUse::Libraries);
const MODULES: Line = Line::Foreign(ForeignUse::Modules);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceContext, SimConfig};

    fn device() -> DeviceContext {
        let limits = SimConfig { memory_limit: Bytes(100), max_streams: 1, stream_depth: 1 };
        DeviceContext::sim(limits).expect("a simulated device")
    }

    fn parts(graphs: u64, rest: u64) -> ForeignParts {
        ForeignParts { graphs: Bytes(graphs), rest: Bytes(rest) }
    }

    #[test]
    fn a_charge_beyond_the_limit_is_made_in_no_part() {
        let device = device();
        assert!(device.foreign_account().charge(parts(60, 60)).is_err());
        assert_eq!(device.memory_use().libraries(), Bytes::ZERO);
        assert_eq!(device.foreign_account().charged(), ForeignParts::ZERO);
    }

    #[test]
    fn what_is_there_is_charged_beyond_the_limit_and_can_go_again() {
        let device = device();
        device.foreign_account().charge_for_good(parts(0, 80)).expect("it fits");
        device.foreign_account().charge_kept(parts(10, 70));
        assert_eq!(device.memory_use().libraries(), Bytes(160));
        assert!(device.foreign_account().charge(parts(0, 1)).is_err());
        device.foreign_account().settle(ForeignParts::ZERO, parts(0, 500), ForeignParts::ZERO);
        assert_eq!(device.memory_use().modules, Bytes(80), "for good is for good");
        assert_eq!(device.foreign_account().kept(), ForeignParts::ZERO);
    }

    #[test]
    fn a_fall_goes_to_ones_own_charge_first_and_then_across_the_lines() {
        let device = device();
        let mut account = device.foreign_account();
        account.charge_kept(parts(5, 20));
        account.charge(parts(10, 10)).expect("it fits");
        account.settle(parts(10, 10), parts(0, 25), parts(0, 2));
        // 10 of its libraries, 10 of its graphs, 2 that were charged to nobody, 3 of what others left.
        assert_eq!(account.kept(), parts(5, 17));
        assert_eq!(account.charged(), parts(5, 17));
    }

    #[test]
    fn windows_that_overlap_begin_with_the_first() {
        let device = device();
        let count = |free| {
            let (counted, total) = (crate::MemoryCount::FallOfFree, Bytes(1000));
            Some(DriverMemory { process: None, counted, graphs: None, free: Bytes(free), total })
        };
        let mut account = device.foreign_account();
        let begins = |account: &ForeignAccount<'_>| account.base().map(|it| it.count.free.0);
        account.open(count(700));
        account.open(count(600));
        account.close();
        assert_eq!(begins(&account), Some(700));
        account.open(count(500));
        account.close();
        account.close();
        account.open(None);
        assert_eq!(begins(&account), None, "nobody counted");
        account.open(count(400));
        assert_eq!(begins(&account), Some(400));
    }
}

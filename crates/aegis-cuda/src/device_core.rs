//! What every driver shares: the signal, the stream slots, the memory ledger, and the loss flag.
//!
//! ```text
//!   view of partition 0          view of partition 1          the whole device
//!   signal, slots                signal, slots                signal, slots
//!          \____________________________|____________________________/
//!                        one ledger,  one loss flag
//! ```
//!
//! # Invariants
//! 1. No charge for what can still be refused makes the charges of all views of one device exceed its
//!    memory limit. What a library has taken already is charged in any case
//!    ([`Beyond::Charged`]); beyond the limit, all that follows is refused.
//! 2. A loss is seen by every view, and rings the signal of each.
//! 3. No two streams of one device have the same id, whatever their views: each view has a range of
//!    indices of its own.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use aegis_trace::{Bytes, StreamId, Timestamp};

use crate::capability::DriverKind;
use crate::error::DeviceError;
use crate::foreign_account::{Book, ForeignAccount};
use crate::signal::Signal;

/// The deepest queue a stream may have: queues are allocated with the stream, so a mistyped depth
/// must not take the process's memory with it.
const MAX_STREAM_DEPTH: usize = 65_536;

/// The limits that hold on every driver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) memory: Bytes,
    pub(crate) streams: u16,
    pub(crate) depth: usize,
}

/// The state of one view of a device, kept alive by its streams, events and arenas.
pub(crate) struct DeviceCore {
    kind: DriverKind,
    limits: Limits,
    signal: Arc<Signal>,
    /// The index of the first of this view's streams.
    first: u16,
    slots: Mutex<Vec<Slot>>,
    shared: Arc<Shared>,
    fate: Arc<Fate>,
}

/// What all views of one device share.
struct Shared {
    ledger: Mutex<MemoryUse>,
    /// What of the ledger is charged by the driver's count; locked before the ledger.
    counted: Mutex<Book>,
    /// The index of the first stream of the next view.
    next: Mutex<u16>,
}

/// Whether the device is lost, and whom to wake when it is.
#[derive(Default)]
struct Fate {
    loss: OnceLock<Loss>,
    signals: Mutex<Vec<Weak<Signal>>>,
}

/// What the memory limit of a device is charged with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// What the driver took to make its context; zero on `host` and `sim`.
    pub context: Bytes,
    /// The sum of the live arenas.
    pub arenas: Bytes,
    /// What libraries took beside the arenas, as far as it was charged: handles and workspaces.
    pub foreign: Bytes,
    /// What they loaded once for the whole process, as far as it was charged: the code of kernels.
    pub modules: Bytes,
    /// What the driver keeps for captured graphs that allocate, as far as it was charged.
    pub graphs: Bytes,
}

impl MemoryUse {
    /// The sum of all lines.
    #[must_use]
    pub fn total(&self) -> Bytes {
        // Saturating: the limit holds the sum of the lines far below the end of the type.
        let sum = self.context.as_u64().saturating_add(self.arenas.as_u64());
        Bytes(sum.saturating_add(self.libraries().as_u64()))
    }

    /// What libraries took, whatever for: `foreign`, `modules` and `graphs` together.
    #[must_use]
    pub fn libraries(&self) -> Bytes {
        let sum = self.foreign.as_u64().saturating_add(self.modules.as_u64());
        Bytes(sum.saturating_add(self.graphs.as_u64()))
    }

    fn line(&mut self, line: Line) -> &mut Bytes {
        match line {
            Line::Context => &mut self.context,
            Line::Arenas => &mut self.arenas,
            Line::Foreign(ForeignUse::Libraries) => &mut self.foreign,
            Line::Foreign(ForeignUse::Modules) => &mut self.modules,
            Line::Foreign(ForeignUse::Graphs) => &mut self.graphs,
        }
    }
}

/// A line of the memory ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Line {
    Context,
    Arenas,
    Foreign(ForeignUse),
}

/// What libraries took memory for, each a line of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForeignUse {
    /// Handles and workspaces: what goes when the library's object does.
    Libraries,
    /// Code of kernels: loaded once, and kept until the process ends.
    Modules,
    /// The driver's pool for captured graphs that allocate.
    Graphs,
}

/// What becomes of a charge that the limit does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// It is not made.
    Refused,
    /// It is made: the memory is taken already. What follows is refused.
    Charged,
}

/// A stream's place. The table is filled at set-up and never grows.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Free(StreamId),
    Taken,
    /// Its generations are used up; see [`StreamId::next_generation`].
    Retired,
}

/// How the device was lost.
struct Loss {
    at: Timestamp,
    by: Option<StreamId>,
    message: Box<str>,
}

impl DeviceCore {
    pub(crate) fn new(kind: DriverKind, limits: Limits) -> Result<Self, DeviceError> {
        if limits.streams == 0 {
            return Err(DeviceError::Config { field: "max_streams", problem: "must not be zero" });
        }
        if limits.depth == 0 {
            return Err(DeviceError::Config { field: "stream_depth", problem: "must not be zero" });
        }
        if limits.depth > MAX_STREAM_DEPTH {
            return Err(DeviceError::Config { field: "stream_depth", problem: "exceeds 65536" });
        }
        let (ledger, counted) = (Mutex::default(), Mutex::default());
        let shared = Shared { ledger, counted, next: Mutex::new(0) };
        Self::with(kind, limits, Arc::new(shared), Arc::default())
    }

    /// Another view of the same device: the same ledger and loss, a signal and streams of its own.
    pub(crate) fn view(&self) -> Result<Self, DeviceError> {
        Self::with(self.kind, self.limits, Arc::clone(&self.shared), Arc::clone(&self.fate))
    }

    /// A world of its own that shares the memory limit only.
    pub(crate) fn world(&self) -> Result<Self, DeviceError> {
        Self::with(self.kind, self.limits, Arc::clone(&self.shared), Arc::default())
    }

    fn with(
        kind: DriverKind,
        limits: Limits,
        shared: Arc<Shared>,
        fate: Arc<Fate>,
    ) -> Result<Self, DeviceError> {
        let mut next = lock(&shared.next);
        let first = *next;
        *next = first.checked_add(limits.streams).ok_or(DeviceError::Config {
            field: "max_streams",
            problem: "exceeds 65535 over all partitions",
        })?;
        drop(next);
        let slots = (0..limits.streams).map(|place| Slot::Free(StreamId::first(first + place)));
        let slots = Mutex::new(slots.collect());
        let signal = Arc::new(Signal::new());
        lock(&fate.signals).push(Arc::downgrade(&signal));
        Ok(Self { kind, limits, signal, first, slots, shared, fate })
    }

    pub(crate) fn kind(&self) -> DriverKind {
        self.kind
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    /// The error of an operation that belongs to the driver `needed`, which is not ours.
    pub(crate) fn wrong_driver(&self, needed: DriverKind) -> DeviceError {
        DeviceError::WrongDriver { needed, found: self.kind }
    }

    /// Takes the free stream slot of the lowest index. O(streams).
    pub(crate) fn take_slot(&self) -> Result<StreamId, DeviceError> {
        let mut slots = lock(&self.slots);
        for slot in slots.iter_mut() {
            if let Slot::Free(id) = *slot {
                *slot = Slot::Taken;
                return Ok(id);
            }
        }
        Err(DeviceError::StreamsExhausted { limit: self.limits.streams })
    }

    /// Gives the slot of `id` to its next tenant.
    pub(crate) fn release_slot(&self, id: StreamId) {
        let slot = &mut lock(&self.slots)[self.place(id)];
        debug_assert!(matches!(slot, Slot::Taken), "{id} was released twice");
        *slot = id.next_generation().map_or(Slot::Retired, Slot::Free);
    }

    /// The place of one of this view's streams, from zero.
    pub(crate) fn place(&self, id: StreamId) -> usize {
        usize::from(id.index - self.first)
    }

    /// Charges `requested` to a line of the ledger until the result is dropped.
    pub(crate) fn charge(
        self: &Arc<Self>,
        line: Line,
        requested: Bytes,
    ) -> Result<Charge, DeviceError> {
        let mut ledger = lock(&self.shared.ledger);
        let (reserved, limit) = (ledger.total(), self.limits.memory);
        if reserved.checked_add(requested).is_none_or(|sum| sum > limit) {
            return Err(DeviceError::OutOfMemory { requested, reserved, limit });
        }
        let entry = ledger.line(line);
        *entry += requested;
        drop(ledger);
        Ok(Charge { core: Arc::clone(self), line, bytes: requested })
    }

    /// Takes `given` from its lines and puts `taken` on its own, in one step.
    ///
    /// # Errors
    /// The limit does not hold it; `beyond` says whether it is done all the same.
    pub(crate) fn exchange(
        &self,
        given: &[(Line, Bytes)],
        taken: &[(Line, Bytes)],
        beyond: Beyond,
    ) -> Result<(), DeviceError> {
        let mut ledger = lock(&self.shared.ledger);
        let (reserved, limit) = (ledger.total(), self.limits.memory);
        let mut after = *ledger;
        for (line, bytes) in given {
            let entry = after.line(*line);
            *entry = *entry - *bytes;
        }
        for (line, bytes) in taken {
            let entry = after.line(*line);
            *entry = Bytes(entry.as_u64().saturating_add(bytes.as_u64()));
        }
        let is_held = after.total() <= limit;
        if is_held || beyond == Beyond::Charged {
            *ledger = after;
        }
        let requested = taken.iter().map(|(_, bytes)| *bytes).sum();
        if is_held { Ok(()) } else { Err(DeviceError::OutOfMemory { requested, reserved, limit }) }
    }

    /// The account of what is charged by the driver's count; blocks while another has it.
    pub(crate) fn foreign_account(&self) -> ForeignAccount<'_> {
        ForeignAccount::new(self, lock(&self.shared.counted))
    }

    /// The live charges of all views.
    pub(crate) fn memory_use(&self) -> MemoryUse {
        *lock(&self.shared.ledger)
    }

    /// Marks the device as lost and rings the signal of every view; the first loss stands. Each
    /// driver then ends its pending events.
    pub(crate) fn lose(&self, at: Timestamp, by: Option<StreamId>, message: Box<str>) {
        // A second loss finds the device lost already and has nothing to add.
        let _first = self.fate.loss.set(Loss { at, by, message });
        for signal in lock(&self.fate.signals).iter().filter_map(Weak::upgrade) {
            signal.notify();
        }
    }

    /// The loss of the device as an error. Of a device that is not lost nobody asks for it; who does
    /// has found work that nobody can say the end of, and the device is lost then.
    pub(crate) fn loss(&self) -> DeviceError {
        let unexplained = || {
            let message = "work ended and nobody can say how".into();
            Loss { at: Timestamp::ZERO, by: None, message }
        };
        let Loss { at, by, message } = self.fate.loss.get_or_init(unexplained);
        DeviceError::DeviceLost { at: *at, by: *by, message: message.clone() }
    }

    /// Tells whether the device is lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.fate.loss.get().is_some()
    }

    /// `Ok` while the device is not lost; costs one atomic load then.
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        if self.is_lost() { Err(self.loss()) } else { Ok(()) }
    }
}

/// Reserved memory, given back on drop.
pub(crate) struct Charge {
    core: Arc<DeviceCore>,
    line: Line,
    bytes: Bytes,
}

impl Charge {
    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes
    }

    /// Leaves the charge in the ledger for as long as that lives.
    pub(crate) fn keep(mut self) -> Bytes {
        std::mem::take(&mut self.bytes) // The drop refunds nothing.
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut ledger = lock(&self.core.shared.ledger);
        let entry = ledger.line(self.line);
        *entry = *entry - self.bytes;
    }
}

/// Locks `mutex`; every critical section here leaves its data whole, so poison says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(streams: u16) -> Arc<DeviceCore> {
        let limits = Limits { memory: Bytes(100), streams, depth: 1 };
        Arc::new(DeviceCore::new(DriverKind::Sim, limits).expect("the limits are not zero"))
    }

    #[test]
    fn what_is_taken_is_charged_beyond_the_limit_and_nothing_fits_after_it() {
        let core = core(1);
        let modules = Line::Foreign(ForeignUse::Modules);
        let take = |bytes, beyond| core.exchange(&[], &[(modules, Bytes(bytes))], beyond);
        take(60, Beyond::Charged).expect("it fits");
        assert!(take(70, Beyond::Refused).is_err());
        assert_eq!(core.memory_use().modules, Bytes(60));
        assert!(take(70, Beyond::Charged).is_err());
        assert_eq!(core.memory_use().modules, Bytes(130));
        assert!(core.charge(Line::Arenas, Bytes(1)).is_err());
    }

    #[test]
    fn an_end_that_nobody_explains_loses_the_device_and_not_the_process() {
        let core = core(1);
        assert!(matches!(core.loss(), DeviceError::DeviceLost { .. }));
        assert!(core.is_lost() && core.check().is_err());
    }

    #[test]
    fn a_slot_comes_back_as_the_next_generation() {
        let core = core(1);
        let first = core.take_slot().expect("one slot");
        assert!(core.take_slot().is_err());
        core.release_slot(first);
        assert_eq!(core.take_slot().ok(), first.next_generation());
    }

    #[test]
    fn a_slot_without_generations_left_stays_empty() {
        let core = core(1);
        let last = StreamId { index: 0, generation: u16::MAX };
        core.take_slot().expect("one slot");
        core.release_slot(last);
        assert!(core.take_slot().is_err());
    }

    #[test]
    fn a_charge_is_refunded_when_it_ends() {
        let core = core(1);
        let half = core.charge(Line::Arenas, Bytes(50)).expect("within the limit");
        assert!(core.charge(Line::Arenas, Bytes(51)).is_err());
        assert!(core.charge(Line::Arenas, Bytes(u64::MAX)).is_err());
        drop(half);
        assert_eq!(core.memory_use().total(), Bytes::ZERO);
        assert!(core.charge(Line::Arenas, Bytes(100)).is_ok());
    }

    #[test]
    fn every_use_has_a_line_and_all_count() {
        let core = core(1);
        let uses = [ForeignUse::Libraries, ForeignUse::Modules, ForeignUse::Graphs];
        let charge = |(bytes, of): (u64, ForeignUse)| core.charge(Line::Foreign(of), Bytes(bytes));
        let held: Vec<_> = (1..).zip(uses).map(|it| charge(it).expect("it fits")).collect();
        let used = core.memory_use();
        assert_eq!((used.foreign, used.modules, used.graphs), (Bytes(1), Bytes(2), Bytes(3)));
        assert_eq!((used.libraries(), used.total()), (Bytes(6), Bytes(6)));
        assert!(core.charge(Line::Context, Bytes(95)).is_err());
        drop(held);
        assert_eq!(core.memory_use(), MemoryUse::default());
    }

    #[test]
    fn what_cannot_be_given_back_is_never_refunded() {
        let core = core(1);
        let modules = core.charge(Line::Foreign(ForeignUse::Modules), Bytes(60)).expect("it fits");
        assert_eq!(modules.keep(), Bytes(60));
        assert_eq!(core.memory_use().modules, Bytes(60));
        assert_eq!(Arc::strong_count(&core), 1, "the device itself is not kept");
    }

    #[test]
    fn the_first_loss_stands() {
        let core = core(1);
        core.lose(Timestamp(1), None, "first".into());
        core.lose(Timestamp(2), None, "second".into());
        let error = core.check().expect_err("the device is lost");
        assert!(matches!(error, DeviceError::DeviceLost { at: Timestamp(1), .. }));
    }

    #[test]
    fn views_share_the_limit_and_the_loss_but_no_stream() {
        let whole = core(2);
        let view = Arc::new(whole.view().expect("there are indices left"));
        let held = whole
            .charge(Line::Foreign(ForeignUse::Libraries), Bytes(60))
            .expect("within the limit");
        assert!(view.charge(Line::Arenas, Bytes(41)).is_err());
        assert_eq!(view.memory_use(), MemoryUse { foreign: held.bytes(), ..MemoryUse::default() });
        let ids = [whole.take_slot(), view.take_slot()].map(|id| id.expect("free").index);
        assert_eq!(ids, [0, 2]);
        whole.lose(Timestamp(1), None, "gone".into());
        assert!(view.is_lost());
        view.signal().wait(None, aegis_trace::Nanos::ZERO); // The loss rang it.
    }

    #[test]
    fn a_world_shares_the_limit_alone() {
        let whole = core(1);
        let world = Arc::new(whole.world().expect("there are indices left"));
        let _held = whole.charge(Line::Arenas, Bytes(100)).expect("within the limit");
        assert!(world.charge(Line::Arenas, Bytes(1)).is_err());
        whole.lose(Timestamp(1), None, "gone".into());
        assert!(!world.is_lost());
    }
}

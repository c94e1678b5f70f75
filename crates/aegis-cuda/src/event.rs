//! Events: marks in a stream that say when everything before them was done.
//!
//! One word holds the whole state, so that a query is one load and a completion one exchange, and a
//! stale recording can never complete a newer one:
//!
//! ```text
//!   bits 63..3              bit 2      bits 1..0
//!   ticket or time in ns    awaited    UNRECORDED | PENDING | COMPLETE | FAULTED
//!
//!   from        to          by                 guard
//!   any         PENDING     record             takes the next ticket
//!   PENDING     COMPLETE    the device         the ticket is still the recorded one
//!   PENDING     FAULTED     the device         the same; the fault is stored under the lock
//!   PENDING     PENDING     a blocked waiter   sets the awaited bit, under the lock
//!   any         UNRECORDED  forget
//! ```
//!
//! # Invariants
//! 1. The state changes by read-modify-write only, so the changes have one total order.
//! 2. Tickets are never reused: an exchange that names a ticket fails once the event was recorded
//!    again, whatever stream the older recording waits on.
//! 3. `FAULTED` is written, and the fault is read, under the lock of the fault.
//! 4. Whoever replaces a word with the awaited bit wakes the waiters, after taking their lock: a
//!    waiter sets the bit and goes to sleep within one critical section, so it is not missed.

use std::fmt;
use std::sync::Arc;

use aegis_trace::{Nanos, Timestamp};

use crate::capability::DriverKind;
use crate::cuda::{Completions, RawEvent};
use crate::device_core::DeviceCore;
use crate::error::DeviceError;
use crate::fault::Failure;
use crate::sync::{AtomicU64, Condvar, Mutex, Ordering, lock};

/// What an event has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventStatus {
    /// Work before the event is not done.
    Pending,
    /// Everything before the event was done.
    Complete {
        /// When, on the clock of the device.
        at: Timestamp,
    },
}

/// A mark in a stream that completes once everything enqueued before it is done.
///
/// It can be recorded any number of times, on any stream of its device; it tells about the last
/// recording only. Create events at set-up and reuse them: creating allocates, the rest does not.
pub struct CudaEvent {
    core: Arc<DeviceCore>,
    cell: Arc<EventCell>,
    /// On `cuda`: the driver's event, and who looks at it.
    driver: Option<DriverEvent>,
}

/// What stands behind an event of a GPU.
pub(crate) struct DriverEvent {
    pub(crate) event: Arc<RawEvent>,
    pub(crate) completions: Arc<Completions>,
}

impl CudaEvent {
    pub(crate) fn new(core: Arc<DeviceCore>) -> Self {
        Self { core, cell: Arc::new(EventCell::new()), driver: None }
    }

    pub(crate) fn of_driver(core: Arc<DeviceCore>, driver: DriverEvent) -> Self {
        Self { core, cell: Arc::new(EventCell::new()), driver: Some(driver) }
    }

    /// The shared state.
    pub(crate) fn cell(&self) -> &Arc<EventCell> {
        &self.cell
    }

    /// The driver's event, on `cuda`.
    pub(crate) fn driver_event(&self) -> Option<&Arc<RawEvent>> {
        self.driver.as_ref().map(|driver| &driver.event)
    }

    /// The shared state, if the event belongs to the device of `core`.
    pub(crate) fn cell_on(&self, core: &Arc<DeviceCore>) -> Result<&Arc<EventCell>, DeviceError> {
        if Arc::ptr_eq(&self.core, core) { Ok(&self.cell) } else { Err(DeviceError::ForeignEvent) }
    }

    /// Tells whether the last recording completed, without waiting.
    ///
    /// A completion is visible here as soon as the device made it, and stays until the event is
    /// recorded again; so does a fault. Costs one atomic load unless there is a fault to clone; on
    /// `cuda`, where nobody is told of an end, a pending event is asked about in the driver.
    ///
    /// # Errors
    /// - [`DeviceError::Work`], with the fault's category: work between the event recorded on the
    ///   stream before this one and this one failed.
    /// - [`DeviceError::DeviceLost`] (fatal): the device was lost before the event completed.
    /// - [`DeviceError::EventNotRecorded`] (permanent).
    pub fn query(&self) -> Result<EventStatus, DeviceError> {
        if let Some(driver) = self.driver.as_ref().filter(|_| self.cell.is_pending()) {
            driver.completions.poll();
        }
        self.status(self.cell.look())
    }

    /// Waits until the last recording completed and returns when that was.
    ///
    /// Blocks the calling thread on `host` and, in the configured way, on `cuda`; work running on a
    /// stream must not wait for an event of its own stream. Recording the event again meanwhile makes
    /// this wait for the new recording. Never blocks on `sim`, where time is moved by hand.
    ///
    /// # Errors
    /// As [`CudaEvent::query`], and on `sim` [`DeviceError::StillPending`] (transient).
    pub fn synchronize(&self) -> Result<Timestamp, DeviceError> {
        let seen = match (&self.driver, self.core.kind()) {
            (Some(driver), _) => {
                driver.completions.wait_for(&self.cell);
                self.cell.look()
            }
            (None, DriverKind::Host | DriverKind::Cuda) => self.cell.wait(),
            (None, DriverKind::Sim) => self.cell.look(),
        };
        self.completion(seen)
    }

    /// The time from the completion of `start` to the completion of this event, by the device's own
    /// clock: on `cuda` the GPU's, whose resolution is about half a microsecond, rounded up.
    ///
    /// For the length of a stage, not of a day: the GPU tells a float whose step grows with the
    /// length (1 ns up to 16 ms, 64 ns at a second).
    ///
    /// # Errors
    /// As [`CudaEvent::query`] for either event; [`DeviceError::StillPending`] (transient) when
    /// either is; [`DeviceError::ForeignEvent`], [`DeviceError::EventsOutOfOrder`], and on `cuda`
    /// [`DeviceError::EventUntimed`] (permanent).
    pub fn elapsed_since(&self, start: &CudaEvent) -> Result<Nanos, DeviceError> {
        start.cell_on(&self.core)?;
        let begin = start.completion(start.cell.look())?;
        let end = self.completion(self.cell.look())?;
        let out_of_order = DeviceError::EventsOutOfOrder { start: begin, end };
        if let (Some(own), Some(other)) = (&self.driver, &start.driver) {
            return own.event.elapsed_since(&other.event)?.ok_or(out_of_order);
        }
        if begin > end { Err(out_of_order) } else { Ok(end - begin) }
    }

    /// As [`elapsed_since`](Self::elapsed_since), of two events that the device is known to be past:
    /// where it has a clock of its own, that alone is asked. Another thread may have seen either of them
    /// fire and not said so yet.
    pub(crate) fn elapsed_behind(&self, start: &CudaEvent) -> Result<Nanos, DeviceError> {
        start.cell_on(&self.core)?;
        if let (Some(own), Some(other)) = (&self.driver, &start.driver)
            && let Some(elapsed) = own.event.elapsed_since(&other.event)?
        {
            return Ok(elapsed);
        }
        self.elapsed_since(start)
    }

    fn status(&self, seen: Look) -> Result<EventStatus, DeviceError> {
        match seen {
            Look::Complete(at) => Ok(EventStatus::Complete { at }),
            Look::Pending => self.core.check().map(|()| EventStatus::Pending),
            Look::Unrecorded => Err(DeviceError::EventNotRecorded),
            Look::Faulted(Some(failure)) => Err(failure.into()),
            Look::Faulted(None) => Err(self.core.loss()),
        }
    }

    fn completion(&self, seen: Look) -> Result<Timestamp, DeviceError> {
        match self.status(seen)? {
            EventStatus::Complete { at } => Ok(at),
            EventStatus::Pending => Err(DeviceError::StillPending),
        }
    }
}

impl fmt::Debug for CudaEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaEvent").field("state", &self.cell.look()).finish_non_exhaustive()
    }
}

const TAG: u64 = 0b011;
const UNRECORDED: u64 = 0b000;
const PENDING: u64 = 0b001;
const COMPLETE: u64 = 0b010;
const FAULTED: u64 = 0b011;
const AWAITED: u64 = 0b100;
const PAYLOAD_SHIFT: u32 = 3;

/// The last point an event can complete at, 73 years after the clock's origin. Simulated work that
/// would end later never ends.
pub(crate) const HORIZON: Timestamp = Timestamp(u64::MAX >> PAYLOAD_SHIFT);

/// One recording of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// What a look at an event found. `Faulted(None)` is the loss of the device, which is marked on the
/// device before any event ends with it.
#[derive(Clone, Debug)]
pub(crate) enum Look {
    Unrecorded,
    Pending,
    Complete(Timestamp),
    Faulted(Option<Failure>),
}

/// The state of an event, shared by its owner and the stream it is recorded on.
pub(crate) struct EventCell {
    state: AtomicU64,
    tickets: AtomicU64,
    failure: Mutex<Option<Failure>>,
    changed: Condvar,
}

impl EventCell {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU64::new(UNRECORDED),
            tickets: AtomicU64::new(0),
            failure: Mutex::new(None),
            changed: Condvar::new(),
        }
    }

    /// Turns the event pending under a ticket of its own. The caller then hands the ticket to the
    /// device, whose release of it (a queue or a lock) orders this before the completion.
    pub(crate) fn begin(&self) -> Ticket {
        // Relaxed: only the uniqueness of tickets matters. 2^61 recordings do not happen.
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        let before = self.state.swap(ticket.0 << PAYLOAD_SHIFT | PENDING, Ordering::AcqRel);
        self.wake_waiters_of(before); // They look again, and wait for this recording.
        ticket
    }

    /// Turns the event into one that was never recorded; what is queued of it ends nothing.
    pub(crate) fn forget(&self) {
        let before = self.state.swap(UNRECORDED, Ordering::AcqRel);
        self.wake_waiters_of(before); // They look again, and find nothing to wait for.
    }

    /// The last recording, if it has not ended.
    pub(crate) fn pending(&self) -> Option<Ticket> {
        let word = self.state.load(Ordering::Acquire);
        (word & TAG == PENDING).then_some(Ticket(word >> PAYLOAD_SHIFT))
    }

    /// Completes the recording `ticket` at `at`, unless the event was recorded again since.
    pub(crate) fn complete(&self, ticket: Ticket, at: Timestamp) {
        let at = at.min(HORIZON);
        if let Some(before) = self.leave_pending(ticket, at.0 << PAYLOAD_SHIFT | COMPLETE) {
            self.wake_waiters_of(before);
        }
    }

    /// Ends the recording `ticket` with `failure`, or with the loss of the device.
    pub(crate) fn fail(&self, ticket: Ticket, failure: Option<Failure>) {
        let mut stored = lock(&self.failure);
        let before = self.leave_pending(ticket, ticket.0 << PAYLOAD_SHIFT | FAULTED);
        if let Some(before) = before {
            *stored = failure;
            drop(stored);
            self.wake_waiters_of(before);
        }
    }

    /// Looks without waiting.
    pub(crate) fn look(&self) -> Look {
        match self.read() {
            Look::Faulted(_) => {
                let failure = lock(&self.failure);
                match self.read() {
                    Look::Faulted(_) => Look::Faulted(failure.clone()),
                    newer => newer,
                }
            }
            plain => plain,
        }
    }

    /// Whether the recording `ticket` is the last one and has not ended.
    pub(crate) fn awaits(&self, ticket: Ticket) -> bool {
        // Acquire: pairs with `begin`, so who sees a newer ticket sees what came before it.
        self.state.load(Ordering::Acquire) & !AWAITED == ticket.0 << PAYLOAD_SHIFT | PENDING
    }

    /// Whether the last recording has not ended.
    pub(crate) fn is_pending(&self) -> bool {
        self.state.load(Ordering::Acquire) & TAG == PENDING
    }

    /// Blocks while the event is pending.
    pub(crate) fn wait(&self) -> Look {
        let mut guard = lock(&self.failure);
        loop {
            let word = self.state.load(Ordering::Acquire);
            if word & TAG != PENDING {
                drop(guard);
                return self.look();
            }
            let marked = self.state.compare_exchange(
                word,
                word | AWAITED,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if marked.is_ok() {
                guard = self.changed.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        }
    }

    /// Replaces the pending word of `ticket` by `next`; `None` when it is no longer there.
    fn leave_pending(&self, ticket: Ticket, next: u64) -> Option<u64> {
        // Two words are ours, with and without the awaited bit; waiters only set the bit, so the
        // second attempt decides.
        let ours = ticket.0 << PAYLOAD_SHIFT | PENDING;
        [ours, ours | AWAITED].into_iter().find(|word| {
            // Release: who sees the completion sees what the work wrote before it.
            self.state.compare_exchange(*word, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    fn wake_waiters_of(&self, word: u64) {
        if word & TAG == PENDING && word & AWAITED != 0 {
            drop(lock(&self.failure)); // Invariant 4.
            self.changed.notify_all();
        }
    }

    fn read(&self) -> Look {
        // Acquire: pairs with the release of the completion.
        let word = self.state.load(Ordering::Acquire);
        match word & TAG {
            UNRECORDED => Look::Unrecorded,
            PENDING => Look::Pending,
            COMPLETE => Look::Complete(Timestamp(word >> PAYLOAD_SHIFT)),
            _ => Look::Faulted(None),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use aegis_trace::{Category, StreamId};

    use super::*;
    use crate::fault::{Unreported, WorkFault};

    fn failure(text: &str) -> Option<Failure> {
        let mut faults = Unreported::default();
        faults.note(WorkFault::new(Category::Permanent, text));
        faults.take(StreamId::first(0))
    }

    #[test]
    fn a_stale_recording_cannot_end_a_newer_one() {
        let cell = EventCell::new();
        let stale = cell.begin();
        let newer = cell.begin();
        cell.complete(stale, Timestamp(1));
        assert!(matches!(cell.look(), Look::Pending));
        cell.fail(stale, failure("stale"));
        assert!(matches!(cell.look(), Look::Pending));
        cell.complete(newer, Timestamp(2));
        assert!(matches!(cell.look(), Look::Complete(Timestamp(2))));
    }

    #[test]
    fn only_the_last_recording_is_awaited_and_until_it_ends() {
        let cell = EventCell::new();
        assert!(!cell.is_pending());
        let (stale, newer) = (cell.begin(), cell.begin());
        assert!(cell.is_pending() && cell.awaits(newer) && !cell.awaits(stale));
        cell.complete(newer, Timestamp(1));
        assert!(!cell.is_pending() && !cell.awaits(newer));
    }

    #[test]
    fn a_pending_recording_is_the_last_one_whoever_waits_for_it() {
        let cell = EventCell::new();
        assert_eq!(cell.pending(), None);
        let (_stale, newer) = (cell.begin(), cell.begin());
        assert_eq!(cell.pending(), Some(newer));
        cell.state.fetch_or(AWAITED, Ordering::AcqRel);
        assert_eq!(cell.pending(), Some(newer));
        cell.complete(newer, Timestamp(1));
        assert_eq!(cell.pending(), None);
    }

    #[test]
    fn a_forgotten_recording_ends_nothing_and_a_new_one_ends() {
        let cell = EventCell::new();
        let forgotten = cell.begin();
        cell.forget();
        cell.complete(forgotten, Timestamp(1));
        cell.fail(forgotten, failure("late"));
        assert!(matches!(cell.look(), Look::Unrecorded));
        cell.complete(cell.begin(), Timestamp(2));
        assert!(matches!(cell.look(), Look::Complete(Timestamp(2))));
        cell.forget();
        assert!(matches!(cell.look(), Look::Unrecorded));
    }

    #[test]
    fn a_recording_ends_once() {
        let cell = EventCell::new();
        let ticket = cell.begin();
        cell.complete(ticket, Timestamp(1));
        cell.complete(ticket, Timestamp(2));
        cell.fail(ticket, failure("late"));
        assert!(matches!(cell.look(), Look::Complete(Timestamp(1))));
    }

    #[test]
    fn recording_again_forgets_a_fault() {
        let cell = EventCell::new();
        cell.fail(cell.begin(), failure("first"));
        assert!(matches!(cell.look(), Look::Faulted(Some(_))));
        cell.fail(cell.begin(), None);
        assert!(matches!(cell.look(), Look::Faulted(None)));
        cell.complete(cell.begin(), Timestamp(3));
        assert!(matches!(cell.look(), Look::Complete(Timestamp(3))));
    }

    #[test]
    fn the_last_point_is_carried_whole() {
        let cell = EventCell::new();
        cell.complete(cell.begin(), HORIZON);
        assert!(matches!(cell.look(), Look::Complete(HORIZON)));
        cell.complete(cell.begin(), Timestamp::NEVER);
        assert!(matches!(cell.look(), Look::Complete(HORIZON)));
    }
}

/// Every interleaving of small cases; see `crate::sync` for how to run it.
#[cfg(all(test, loom))]
mod model {
    use loom::sync::Arc;

    use super::*;

    #[test]
    fn model_a_waiter_wakes_at_the_completion() {
        loom::model(|| {
            let cell = Arc::new(EventCell::new());
            let ticket = cell.begin();
            let other = Arc::clone(&cell);
            let device = loom::thread::spawn(move || other.complete(ticket, Timestamp(5)));
            assert!(matches!(cell.wait(), Look::Complete(Timestamp(5))));
            device.join().expect("completing does not panic");
        });
    }

    #[test]
    fn model_a_waiter_wakes_at_a_failure() {
        loom::model(|| {
            let cell = Arc::new(EventCell::new());
            let ticket = cell.begin();
            let other = Arc::clone(&cell);
            let device = loom::thread::spawn(move || other.fail(ticket, None));
            assert!(matches!(cell.wait(), Look::Faulted(None)));
            device.join().expect("failing does not panic");
        });
    }

    #[test]
    fn model_a_completion_races_with_a_new_recording_and_never_ends_it() {
        loom::model(|| {
            let cell = Arc::new(EventCell::new());
            let stale = cell.begin();
            let other = Arc::clone(&cell);
            let device = loom::thread::spawn(move || other.complete(stale, Timestamp(5)));
            let newer = cell.begin();
            assert!(matches!(cell.look(), Look::Pending));
            device.join().expect("completing does not panic");
            assert!(matches!(cell.look(), Look::Pending));
            cell.complete(newer, Timestamp(6));
            assert!(matches!(cell.look(), Look::Complete(Timestamp(6))));
        });
    }

    #[test]
    fn model_a_waiter_sleeps_through_a_new_recording_until_its_end() {
        loom::model(|| {
            let cell = Arc::new(EventCell::new());
            let _stale = cell.begin();
            let other = Arc::clone(&cell);
            let waiter = loom::thread::spawn(move || other.wait());
            let newer = cell.begin();
            cell.complete(newer, Timestamp(6));
            let seen = waiter.join().expect("waiting does not panic");
            assert!(matches!(seen, Look::Complete(Timestamp(6))));
        });
    }
}

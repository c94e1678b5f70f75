//! What every driver shares: the signal, the stream slots, the memory ledger, and the loss flag.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use aegis_trace::{Bytes, StreamId, Timestamp};

use crate::capability::DriverKind;
use crate::error::DeviceError;
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

/// The state of one device that its streams, events and arenas keep alive.
pub(crate) struct DeviceCore {
    kind: DriverKind,
    limits: Limits,
    signal: Arc<Signal>,
    slots: Mutex<Vec<Slot>>,
    /// Of all views of the device together.
    reserved: Arc<Mutex<Bytes>>,
    loss: OnceLock<Loss>,
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
    by: StreamId,
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
        let slots = (0..limits.streams).map(|index| Slot::Free(StreamId::first(index)));
        Ok(Self {
            kind,
            limits,
            signal: Arc::new(Signal::new()),
            slots: Mutex::new(slots.collect()),
            reserved: Arc::default(),
            loss: OnceLock::new(),
        })
    }

    /// Another view of the same device: its own signal and streams, the same memory.
    pub(crate) fn view(&self) -> Result<Self, DeviceError> {
        let reserved = Arc::clone(&self.reserved);
        Ok(Self { reserved, ..Self::new(self.kind, self.limits)? })
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
        let slot = &mut lock(&self.slots)[usize::from(id.index)];
        debug_assert!(matches!(slot, Slot::Taken), "{id} was released twice");
        *slot = id.next_generation().map_or(Slot::Retired, Slot::Free);
    }

    /// Charges `requested` to the memory limit until the result is dropped.
    pub(crate) fn charge(self: &Arc<Self>, requested: Bytes) -> Result<Charge, DeviceError> {
        let mut reserved = lock(&self.reserved);
        let limit = self.limits.memory;
        match reserved.checked_add(requested) {
            Some(sum) if sum <= limit => *reserved = sum,
            _ => {
                return Err(DeviceError::OutOfMemory { requested, reserved: *reserved, limit });
            }
        }
        Ok(Charge { core: Arc::clone(self), bytes: requested })
    }

    /// The sum of the live charges.
    pub(crate) fn reserved(&self) -> Bytes {
        *lock(&self.reserved)
    }

    /// Marks the device as lost; the first loss stands. The caller ends the pending events.
    pub(crate) fn lose(&self, at: Timestamp, by: StreamId, message: Box<str>) {
        // A second loss finds the device lost already and has nothing to add.
        let _first = self.loss.set(Loss { at, by, message });
    }

    /// The loss of the device as an error.
    ///
    /// # Panics
    /// Unless [`DeviceCore::lose`] was called before.
    pub(crate) fn loss(&self) -> DeviceError {
        let Loss { at, by, message } = self.loss.get().expect("the device is lost");
        DeviceError::DeviceLost { at: *at, by: *by, message: message.clone() }
    }

    /// Tells whether the device is lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.loss.get().is_some()
    }

    /// `Ok` while the device is not lost; costs one atomic load then.
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        if self.is_lost() { Err(self.loss()) } else { Ok(()) }
    }
}

/// Reserved memory, given back on drop.
pub(crate) struct Charge {
    core: Arc<DeviceCore>,
    bytes: Bytes,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut reserved = lock(&self.core.reserved);
        *reserved = *reserved - self.bytes;
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
        let half = core.charge(Bytes(50)).expect("within the limit");
        assert!(core.charge(Bytes(51)).is_err());
        assert!(core.charge(Bytes(u64::MAX)).is_err());
        drop(half);
        assert_eq!(core.reserved(), Bytes::ZERO);
        assert!(core.charge(Bytes(100)).is_ok());
    }

    #[test]
    fn the_first_loss_stands() {
        let core = core(1);
        core.lose(Timestamp(1), StreamId::first(0), "first".into());
        core.lose(Timestamp(2), StreamId::first(0), "second".into());
        let error = core.check().expect_err("the device is lost");
        assert!(matches!(error, DeviceError::DeviceLost { at: Timestamp(1), .. }));
    }
}

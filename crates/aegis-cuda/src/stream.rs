//! Streams: work in order, on either driver.
//!
//! A stream takes two kinds of entries, work and recorded events, and finishes them in the order
//! they came. Different streams are not ordered. What happens when work fails:
//!
//! ```text
//!   work A   record x   work B (fails)   work C   record y   record z
//!            Complete                    runs     Work{B}    Complete
//! ```
//!
//! # Invariants
//! 1. An event completes after all work enqueued on the stream before it, and not before.
//! 2. A fault is reported once: by the first event recorded after the work, or by
//!    [`CudaStream::synchronize`] where there was none.
//! 3. At most `stream_depth` entries are unfinished at any time. An entry counts as finished before
//!    its completion can be seen, so who saw it may enqueue the next one.

use std::fmt;
use std::sync::Arc;

use aegis_trace::StreamId;

use crate::capability::DriverKind;
use crate::device_core::DeviceCore;
use crate::error::DeviceError;
use crate::event::CudaEvent;
use crate::host::{HostStream, HostWork};
use crate::sim::{SimStream, SimWork};

/// A queue of work that one device executes in order.
///
/// Any thread may enqueue; calls from several threads are ordered as they happen. Dropping the
/// stream lets queued work finish: on `host` the drop waits for it (unless the work itself drops
/// the stream), on `sim` the slot is given back once virtual time has passed over it.
pub struct CudaStream {
    core: Arc<DeviceCore>,
    lane: Lane,
}

enum Lane {
    Host(HostStream),
    Sim(SimStream),
}

impl CudaStream {
    pub(crate) fn host(core: Arc<DeviceCore>, stream: HostStream) -> Self {
        Self { core, lane: Lane::Host(stream) }
    }

    pub(crate) fn sim(core: Arc<DeviceCore>, stream: SimStream) -> Self {
        Self { core, lane: Lane::Sim(stream) }
    }

    /// The id of the stream, never given to another one of the same device.
    #[must_use]
    pub fn id(&self) -> StreamId {
        match &self.lane {
            Lane::Host(stream) => stream.id(),
            Lane::Sim(stream) => stream.id(),
        }
    }

    /// Enqueues `work` to run on the stream's worker thread. Returns at once; allocates nothing.
    ///
    /// # Errors
    /// Nothing is enqueued on an error.
    /// - [`DeviceError::StreamFull`] (transient).
    /// - [`DeviceError::WrongDriver`] (permanent) on anything but `host`.
    /// - [`DeviceError::DeviceLost`] (fatal).
    pub fn enqueue_host(&self, work: Arc<dyn HostWork>) -> Result<(), DeviceError> {
        match &self.lane {
            Lane::Host(stream) => {
                self.core.check()?;
                stream.enqueue(work)
            }
            Lane::Sim(_) => Err(self.core.wrong_driver(DriverKind::Host)),
        }
    }

    /// Enqueues a piece of virtual work. Returns at once; allocates nothing.
    ///
    /// # Errors
    /// Nothing is enqueued on an error.
    /// - [`DeviceError::StreamFull`] (transient).
    /// - [`DeviceError::WrongDriver`] (permanent) on anything but `sim`.
    /// - [`DeviceError::Launch`] (permanent): the work declares it.
    /// - [`DeviceError::DeviceLost`] (fatal).
    pub fn enqueue_sim(&self, work: SimWork) -> Result<(), DeviceError> {
        match &self.lane {
            Lane::Sim(stream) => stream.enqueue(work),
            Lane::Host(_) => Err(self.core.wrong_driver(DriverKind::Sim)),
        }
    }

    /// Records `event` behind everything enqueued so far. Returns at once; allocates nothing.
    ///
    /// The event turns pending, whatever it told before; an earlier recording that is still queued
    /// is forgotten. On an error the event is as before.
    ///
    /// # Errors
    /// - [`DeviceError::StreamFull`] (transient).
    /// - [`DeviceError::ForeignEvent`] (permanent): the event is of another device.
    /// - [`DeviceError::DeviceLost`] (fatal).
    pub fn record(&self, event: &CudaEvent) -> Result<(), DeviceError> {
        let cell = event.cell_on(&self.core)?;
        match &self.lane {
            Lane::Host(stream) => {
                self.core.check()?;
                stream.record(cell)
            }
            Lane::Sim(stream) => stream.record(cell),
        }
    }

    /// Waits until everything enqueued before this call is done, and reports a fault that no event
    /// has reported.
    ///
    /// Blocks on `host`, also when the stream is full; several threads that synchronise one stream
    /// take turns. Never blocks on `sim`.
    ///
    /// # Errors
    /// - [`DeviceError::Work`], with the category of the fault.
    /// - [`DeviceError::StillPending`] (transient): on `sim`, where time is moved by hand, while
    ///   entries are unfinished; on `host` when work synchronises the stream it runs on.
    /// - [`DeviceError::DeviceLost`] (fatal).
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.core.check()?;
        match &self.lane {
            Lane::Host(stream) => stream.synchronize(),
            Lane::Sim(stream) => stream.synchronize(),
        }
    }
}

impl fmt::Debug for CudaStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaStream")
            .field("id", &self.id())
            .field("driver", &self.core.kind())
            .finish_non_exhaustive()
    }
}

//! Streams: work in order, on any driver.
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
use crate::cuda::{CudaGraph, CudaLane};
use crate::device_core::DeviceCore;
use crate::error::DeviceError;
use crate::event::CudaEvent;
use crate::host::{HostStream, HostWork};
use crate::sim::{SimStream, SimWork};
use crate::stage::{CopyCells, CopyMark, StageEvents};
use crate::sync::{Mutex, lock};

/// A queue of work that one device executes in order.
///
/// Any thread may enqueue; calls from several threads are ordered as they happen. Dropping the
/// stream lets queued work finish: on `host` the drop waits for it (unless the work itself drops
/// the stream), on `sim` the slot is given back once virtual time has passed over it, on `cuda`
/// once its last event was seen to end.
pub struct CudaStream {
    core: Arc<DeviceCore>,
    lane: Lane,
    /// Where the copies of the stage that is being enqueued are marked, on `sim`.
    marks: Mutex<Option<CopyCells>>,
}

/// Why an event that was found to be of a GPU has the driver's.
pub(crate) const HAS_DRIVERS: &str = "an event of this device has the driver's";

enum Lane {
    Host(HostStream),
    Sim(SimStream),
    Cuda(CudaLane),
}

/// How urgent a stream is: levels above the lowest, as far as the device has them
/// ([`GpuCapabilities::priority_levels`](crate::GpuCapabilities)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamPriority(pub u8);

impl StreamPriority {
    /// What a stream has that nobody gave a priority.
    pub const LOWEST: Self = Self(0);
    /// The most urgent level of the device, whatever that is.
    pub const HIGHEST: Self = Self(u8::MAX);
}

impl CudaStream {
    pub(crate) fn host(core: Arc<DeviceCore>, stream: HostStream) -> Self {
        Self { core, lane: Lane::Host(stream), marks: Mutex::new(None) }
    }

    pub(crate) fn sim(core: Arc<DeviceCore>, stream: SimStream) -> Self {
        Self { core, lane: Lane::Sim(stream), marks: Mutex::new(None) }
    }

    pub(crate) fn cuda(core: Arc<DeviceCore>, stream: CudaLane) -> Self {
        Self { core, lane: Lane::Cuda(stream), marks: Mutex::new(None) }
    }

    /// The driver's side, on `cuda`.
    pub(crate) fn gpu(&self) -> Option<&CudaLane> {
        match &self.lane {
            Lane::Host(_) | Lane::Sim(_) => None,
            Lane::Cuda(stream) => Some(stream),
        }
    }

    /// The driver's side, or the error of who needs it.
    pub(crate) fn on_gpu(&self) -> Result<&CudaLane, DeviceError> {
        self.gpu().ok_or_else(|| self.core.wrong_driver(DriverKind::Cuda))
    }

    /// The simulator's side, or the error of who needs it.
    pub(crate) fn on_sim(&self) -> Result<&SimStream, DeviceError> {
        match &self.lane {
            Lane::Sim(stream) => Ok(stream),
            Lane::Host(_) | Lane::Cuda(_) => Err(self.core.wrong_driver(DriverKind::Sim)),
        }
    }

    /// The priority it was given, capped at what the device has; the lowest but on `cuda`.
    #[must_use]
    pub fn priority(&self) -> StreamPriority {
        self.gpu().map_or(StreamPriority::LOWEST, |stream| StreamPriority(stream.urgency()))
    }

    /// The id of the stream, never given to another one of the same device.
    #[must_use]
    pub fn id(&self) -> StreamId {
        match &self.lane {
            Lane::Host(stream) => stream.id(),
            Lane::Sim(stream) => stream.id(),
            Lane::Cuda(stream) => stream.id(),
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
            Lane::Sim(_) | Lane::Cuda(_) => Err(self.core.wrong_driver(DriverKind::Host)),
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
        self.on_sim()?.enqueue(work)
    }

    /// Captures into a graph what `enqueue` puts on the stream, instead of running it.
    ///
    /// The calling thread alone is captured: others go on, also on other streams of the device.
    /// Within `enqueue` the thread must not allocate device memory, record events or wait for the
    /// stream; the driver and this crate refuse what breaks the capture. Instantiates the graph and
    /// waits for the stream: set-up, not for the hot path.
    ///
    /// # Errors
    /// What `enqueue` says, and nothing is left of the capture then; else as a [`DeviceError`]:
    /// - [`DeviceError::WrongDriver`] (permanent) on anything but `cuda`.
    /// - [`DeviceError::Capturing`] (permanent): the stream is being captured already.
    /// - [`DeviceError::Cuda`]: the driver cannot capture what was enqueued.
    /// - [`DeviceError::DeviceLost`] (fatal).
    pub fn capture<E: From<DeviceError>>(
        &self,
        enqueue: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<CudaGraph, E> {
        self.core.check()?;
        self.on_gpu()?.capture(|| enqueue(self))
    }

    /// Captures what `enqueue` puts on the stream as the whole of a stage.
    ///
    /// As [`CudaStream::capture`]. Launched within [`CudaStream::between`], before anything else, the
    /// graph records the events itself, those of [`CudaStream::mark`] within `enqueue` included: the
    /// stage is one call of the driver, and the time between the events is the GPU's alone. Copies to
    /// and from host buffers that `enqueue` makes can be aimed at other buffers of the same size
    /// ([`crate::interop::aim_copy`]).
    ///
    /// # Errors
    /// As [`CudaStream::capture`].
    pub fn capture_stage<E: From<DeviceError>>(
        &self,
        enqueue: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<CudaGraph, E> {
        self.core.check()?;
        self.on_gpu()?.capture_stage(|| enqueue(self))
    }

    /// Records the beginning of a stage, what `enqueue` puts on the stream, and the end, in this order.
    ///
    /// The events of both ends turn pending, those of the copies are as if never recorded until
    /// `enqueue` [marks](Self::mark) them. Returns at once; allocates nothing. One thread at a time:
    /// what another enqueues meanwhile may fall on either side of an event.
    ///
    /// # Errors
    /// What `enqueue` says, and then what it enqueued stays on the stream, and the events may or may
    /// not be recorded; else as [`CudaStream::record`].
    pub fn between<E: From<DeviceError>>(
        &self,
        events: &StageEvents,
        enqueue: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<(), E> {
        let copies = events.copies_on(&self.core)?;
        copies.forget();
        let Lane::Cuda(stream) = &self.lane else {
            self.record(events.begun())?;
            *lock(&self.marks) = Some(copies);
            let enqueued = enqueue(self);
            *lock(&self.marks) = None;
            enqueued?;
            return Ok(self.record(events.ended())?);
        };
        stream.begin_stage(events.edges_on(&self.core)?);
        if let Err(error) = enqueue(self) {
            stream.leave_stage();
            return Err(error);
        }
        Ok(stream.end_stage()?)
    }

    /// Says, while a stage is enqueued or captured, that what follows on the stream comes behind its
    /// uploads, or is its downloads. Returns at once; allocates nothing.
    ///
    /// Does nothing outside a stage; and on `host`, where one thread copies and computes as one piece
    /// of work. Never reports a fault of the work before it.
    ///
    /// # Errors
    /// As [`CudaStream::record`].
    pub fn mark(&self, mark: CopyMark) -> Result<(), DeviceError> {
        match &self.lane {
            Lane::Host(_) => Ok(()),
            Lane::Sim(stream) => {
                let marks = lock(&self.marks);
                marks.as_ref().map_or(Ok(()), |cells| stream.mark(cells.of(mark)))
            }
            Lane::Cuda(stream) => stream.mark(mark),
        }
    }

    /// Enqueues captured work as one entry. Returns at once; allocates nothing of ours.
    ///
    /// # Errors
    /// Nothing is enqueued on an error.
    /// - [`DeviceError::StreamFull`] (transient).
    /// - [`DeviceError::WrongDriver`] (permanent) on anything but `cuda`;
    ///   [`DeviceError::ForeignGraph`] (permanent): the graph is of another device.
    /// - [`DeviceError::Cuda`], [`DeviceError::DeviceLost`] (fatal).
    pub fn enqueue_graph(&self, graph: &CudaGraph) -> Result<(), DeviceError> {
        self.on_gpu()?.launch(graph)
    }

    /// Records `event` behind everything enqueued so far. Returns at once; allocates nothing.
    ///
    /// The event turns pending, whatever it told before; an earlier recording that is still queued
    /// is forgotten. On an error the event is as before, but for one that the driver refused: that
    /// is faulted.
    ///
    /// # Errors
    /// - [`DeviceError::StreamFull`] (transient).
    /// - [`DeviceError::Capturing`] (permanent): a graph takes no events.
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
            Lane::Cuda(stream) => stream.record(event.driver_event().expect(HAS_DRIVERS), cell),
        }
    }

    /// Makes what is enqueued from now on begin only once the last recording of `event` has ended, on
    /// whatever stream; of one that is not pending nothing is waited for. Returns at once.
    ///
    /// On `cuda` the recording may be one that the graph of a stage is still to make: it counts from the
    /// launch on. Once it has ended the event may be recorded again, also while this wait is still queued.
    /// No manual says either of a graph's recordings: whoever relies on it asks the device
    /// ([`DeviceContext::probe_uploads_ahead`](crate::DeviceContext::probe_uploads_ahead)). A fault that
    /// the recording reports is not this stream's.
    ///
    /// # Errors
    /// - [`DeviceError::StreamFull`] (transient).
    /// - [`DeviceError::WrongDriver`] (permanent) on `host`: a worker that waits would do nothing else.
    /// - [`DeviceError::ForeignEvent`] (permanent): the event is of another device.
    /// - [`DeviceError::Cuda`], [`DeviceError::DeviceLost`] (fatal).
    pub fn wait_for(&self, event: &CudaEvent) -> Result<(), DeviceError> {
        let cell = event.cell_on(&self.core)?;
        match &self.lane {
            Lane::Host(_) => Err(self.core.wrong_driver(DriverKind::Cuda)),
            Lane::Sim(stream) => stream.wait_for(cell),
            Lane::Cuda(stream) => stream.wait_for(event.driver_event().expect(HAS_DRIVERS)),
        }
    }

    /// Waits until everything enqueued before this call is done, and reports a fault that no event
    /// has reported.
    ///
    /// Blocks on `host` and `cuda`, also when the stream is full; several threads that synchronise one
    /// stream take turns. Never blocks on `sim`.
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
            Lane::Cuda(stream) => stream.synchronize(),
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

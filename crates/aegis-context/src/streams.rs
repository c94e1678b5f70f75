//! The streams of a partition, lent to one context at a time.
//!
//! A loan's state is its type: an [`IdleStream`] has nothing enqueued, a [`BusyStream`] carries
//! exactly one stage, and the wrong order does not compile.
//!
//! ```compile_fail,E0382
//! # use aegis_context::{ContextError, IdleStream};
//! # fn twice(idle: IdleStream) -> Result<(), ContextError> {
//! let first = idle.launch(|_| Ok::<(), ContextError>(()))?;
//! let second = idle.launch(|_| Ok::<(), ContextError>(()))?; // The loan was given to the first.
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//! 1. A stream is lent to at most one holder.
//! 2. The pool lends a stream again only once the last event recorded on it has fired, so dropping
//!    a loan early is safe and never blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aegis_cuda::{CudaEvent, CudaStream, DeviceContext, DeviceError, EventStatus, HostWork};
use aegis_trace::{StreamId, Timestamp};

use crate::error::ContextError;

/// The streams of one partition.
#[derive(Debug)]
pub struct StreamPool {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    stream: CudaStream,
    begun: CudaEvent,
    ended: CudaEvent,
    /// Lent, or given back with its last event still to fire.
    taken: AtomicBool,
}

impl StreamPool {
    /// Creates `count` streams on `device`, with two events each.
    ///
    /// # Errors
    /// [`DeviceError`] when the device has no more streams.
    pub fn new(device: &DeviceContext, count: u32) -> Result<Arc<Self>, DeviceError> {
        let entry = |_| {
            Ok(Entry {
                stream: device.create_stream()?,
                begun: device.create_event()?,
                ended: device.create_event()?,
                taken: AtomicBool::new(false),
            })
        };
        Ok(Arc::new(Self { entries: (0..count).map(entry).collect::<Result<_, DeviceError>>()? }))
    }

    /// Runs `work` once on every stream, outside any job, and waits for it: set-up of the workers
    /// of a host device.
    ///
    /// # Errors
    /// [`DeviceError`] when the device is not the host, or the work faults.
    pub fn set_up(&self, work: &Arc<dyn HostWork>) -> Result<(), DeviceError> {
        for entry in &self.entries {
            entry.stream.enqueue_host(Arc::clone(work))?;
            entry.stream.synchronize()?;
        }
        Ok(())
    }

    /// How many streams there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Lends the idle stream of the lowest index, so that a serial partition always uses the same
    /// one. O(streams); neither blocks nor allocates.
    ///
    /// # Errors
    /// [`ContextError::StreamsExhausted`], Transient.
    pub fn lease(self: &Arc<Self>) -> Result<IdleStream, ContextError> {
        let free = |entry: &Entry| !entry.taken.swap(true, Ordering::AcqRel);
        match self.entries.iter().position(free) {
            Some(index) => Ok(IdleStream { loan: Loan { pool: Arc::clone(self), index } }),
            None => Err(ContextError::StreamsExhausted { limit: self.entries.len() }),
        }
    }
}

impl Entry {
    /// The times of the stage that ended at `finished`.
    ///
    /// Its length is the device's own: a GPU tells when work ended only to who looks, but knows
    /// itself how long it took. On the other drivers both are the same.
    fn times(&self, finished: Timestamp) -> Result<StageTimes, DeviceError> {
        let execution = self.ended.elapsed_since(&self.begun)?;
        Ok(StageTimes { started: finished.saturating_sub(execution), finished })
    }
}

/// The right to use one stream; dropping it gives the stream back.
#[derive(Debug)]
struct Loan {
    pool: Arc<StreamPool>,
    index: usize,
}

impl Loan {
    fn entry(&self) -> &Entry {
        &self.pool.entries[self.index]
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // A stream with work still on it stays taken: the pool must not lend it again. Only a hung
        // or lost stage leaves one behind, and then its stream is lost with it.
        if !matches!(self.entry().ended.query(), Ok(EventStatus::Pending)) {
            self.entry().taken.store(false, Ordering::Release);
        }
    }
}

/// When the device began and ended a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTimes {
    /// The first of its work began: as long before `finished` as the device says it took.
    pub started: Timestamp,
    /// The last of its work was seen to end.
    pub finished: Timestamp,
}

/// A leased stream with nothing enqueued.
#[derive(Debug)]
#[must_use = "dropping the lease gives the stream back"]
pub struct IdleStream {
    loan: Loan,
}

impl IdleStream {
    /// Which stream it is.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.loan.entry().stream.id()
    }

    /// Enqueues one stage between two events. One lease, one stage in flight. A stage that is one
    /// graph records both by itself ([`CudaStream::between`]).
    ///
    /// # Errors
    /// What `enqueue` or the device says; the loan then ends.
    pub fn launch<E: From<DeviceError>>(
        self,
        enqueue: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<BusyStream, E> {
        let entry = self.loan.entry();
        entry.stream.between(&entry.begun, &entry.ended, enqueue)?;
        Ok(BusyStream { loan: self.loan })
    }
}

/// A leased stream with one stage on it.
#[derive(Debug)]
#[must_use = "a stage in flight must be waited for"]
pub struct BusyStream {
    loan: Loan,
}

impl BusyStream {
    /// Which stream it is.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.loan.entry().stream.id()
    }

    /// Whether the stage has ended, and when; `None` while it runs. Never blocks.
    ///
    /// # Errors
    /// The fault the stage ended with.
    pub fn poll(&self) -> Result<Option<StageTimes>, DeviceError> {
        let entry = self.loan.entry();
        match entry.ended.query()? {
            EventStatus::Pending => Ok(None),
            EventStatus::Complete { at } => entry.times(at).map(Some),
        }
    }

    /// Blocks until the stage has ended.
    ///
    /// # Errors
    /// The fault the stage ended with.
    pub fn wait(&self) -> Result<StageTimes, DeviceError> {
        let entry = self.loan.entry();
        let finished = entry.ended.synchronize()?;
        entry.times(finished)
    }
}

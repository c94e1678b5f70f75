//! The CPU as the device: a stream is a worker thread with a bounded queue.
//!
//! ```text
//!   caller --enqueue/record--> [ ArrayQueue, stream_depth ] --> worker: run, complete events
//!             bell.notify()                                             signal.notify()
//! ```
//!
//! An idle worker polls its bell for `spin`, then sleeps. While it polls, an enqueue reaches it
//! without a system call. Measured on a shared virtual machine of two cores (AMD EPYC, 100 000
//! rounds, others' work running): from before the enqueue to the first line of the work 0.7 us in
//! the median and 1.2 us at the 99th percentile with a polling worker, 3.3 us and 28 us with a
//! sleeping one. These are observations, not bounds: a worker that the system does not schedule
//! does not run.
//!
//! # Invariants
//! 1. `unfinished` counts the entries from their reservation to their end and never exceeds the
//!    depth, so a reserved push finds room. Synchronisation marks are not counted: they have a
//!    place of their own, and at most one exists at a time.
//! 2. An entry is discounted before its event ends (invariant 3 of [`crate::stream`]).
//! 3. Foreign code runs inside `catch_unwind` and holds no lock of ours.

mod probe;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use aegis_trace::{Bytes, Category, Clock, MonotonicClock, Nanos, StreamId};
use crossbeam_queue::ArrayQueue;

pub(crate) use self::probe::{available_memory, probe};
use crate::device_core::{DeviceCore, Limits};
use crate::error::DeviceError;
use crate::event::{EventCell, Look, Ticket};
use crate::fault::{Unreported, WorkFault};
use crate::signal::Signal;

/// The limits and the clock of a `host` device.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The most that the live arenas may sum up to.
    pub memory_limit: Bytes,
    /// The most streams, and so worker threads, that may live at once; at least one.
    pub max_streams: u16,
    /// The most unfinished entries of one stream, work and recorded events together; from 1 to 65 536.
    pub stream_depth: usize,
    /// How long an idle worker polls, with a core of its own busy, before it sleeps.
    pub spin: Nanos,
    /// The clock events complete on.
    pub clock: MonotonicClock,
}

impl HostConfig {
    pub(crate) fn limits(&self) -> Limits {
        Limits { memory: self.memory_limit, streams: self.max_streams, depth: self.stream_depth }
    }
}

/// A piece of work for a `host` stream.
pub trait HostWork: Send + Sync {
    /// Does the work, on the worker thread of the stream it was enqueued on.
    ///
    /// A panic is caught and becomes a permanent fault. The same work may run on several streams at
    /// once if it was enqueued on several.
    ///
    /// # Errors
    /// The fault, reported by the first event recorded after the work. One of category
    /// [`Category::Fatal`] makes the whole device lost.
    fn run(&self) -> Result<(), WorkFault>;
}

/// What a `host` device needs to make streams.
pub(crate) struct HostDriver {
    core: Arc<DeviceCore>,
    clock: MonotonicClock,
    spin: Nanos,
}

impl HostDriver {
    pub(crate) fn new(core: Arc<DeviceCore>, config: HostConfig) -> Self {
        Self { core, clock: config.clock, spin: config.spin }
    }

    /// The same machine for another view.
    pub(crate) fn view(&self, core: Arc<DeviceCore>) -> Self {
        Self { core, clock: self.clock, spin: self.spin }
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock)
    }

    pub(crate) fn create_stream(&self) -> Result<HostStream, DeviceError> {
        let id = self.core.take_slot()?;
        let depth = self.core.limits().depth;
        let lane = Arc::new(Lane {
            id,
            core: Arc::clone(&self.core),
            clock: self.clock,
            spin: self.spin,
            entries: ArrayQueue::new(depth + 1), // One more, for the synchronisation mark.
            unfinished: AtomicUsize::new(0),
            bell: Signal::new(),
            closing: AtomicBool::new(false),
            mark: EventCell::new(),
        });
        let of_worker = Arc::clone(&lane);
        // Fifteen bytes of a thread's name survive on Linux: `aegis-s65535g1` fits.
        let spawned = std::thread::Builder::new()
            .name(format!("aegis-{id}"))
            .spawn(move || of_worker.serve());
        match spawned {
            Ok(worker) => Ok(HostStream { lane, worker: Some(worker), turn: Mutex::new(()) }),
            Err(cause) => {
                self.core.release_slot(id);
                Err(DeviceError::Os { call: "spawn a stream's worker", cause })
            }
        }
    }
}

/// The owner's end of a stream.
pub(crate) struct HostStream {
    lane: Arc<Lane>,
    /// `Some` until the drop.
    worker: Option<JoinHandle<()>>,
    /// Held by the thread that synchronises, since the stream has one mark.
    turn: Mutex<()>,
}

impl HostStream {
    pub(crate) fn id(&self) -> StreamId {
        self.lane.id
    }

    pub(crate) fn enqueue(&self, work: Arc<dyn HostWork>) -> Result<(), DeviceError> {
        self.lane.reserve()?;
        self.lane.push(Entry::Work(work));
        Ok(())
    }

    pub(crate) fn record(&self, cell: &Arc<EventCell>) -> Result<(), DeviceError> {
        self.lane.reserve()?; // First, so that a refusal leaves the event as it was.
        let ticket = cell.begin();
        self.lane.push(Entry::Record(Arc::clone(cell), ticket));
        Ok(())
    }

    pub(crate) fn synchronize(&self) -> Result<(), DeviceError> {
        if self.called_by_worker() {
            return Err(DeviceError::StillPending); // It would wait for itself.
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = self.lane.mark.begin();
        self.lane.push(Entry::Mark(ticket));
        match self.lane.mark.wait() {
            Look::Complete(_) => Ok(()),
            Look::Faulted(Some(failure)) => Err(failure.into()),
            Look::Faulted(None) => Err(self.lane.core.loss()),
            Look::Pending | Look::Unrecorded => unreachable!("the wait ends with the mark"),
        }
    }

    fn called_by_worker(&self) -> bool {
        let here = std::thread::current().id();
        self.worker.as_ref().is_some_and(|worker| worker.thread().id() == here)
    }
}

impl Drop for HostStream {
    fn drop(&mut self) {
        self.lane.closing.store(true, Ordering::Release);
        self.lane.bell.notify();
        // Work that owns the last handle of its stream drops it here, on the worker: joining would
        // wait for itself. The worker ends on its own after the queue.
        let on_worker = self.called_by_worker();
        if let Some(worker) = self.worker.take().filter(|_| !on_worker) {
            // The worker catches the panics of the work; an end by panic would be ours, was
            // printed by the hook, and cannot be reported from a drop.
            let _ended = worker.join();
        }
    }
}

/// One place in a stream's queue.
enum Entry {
    Work(Arc<dyn HostWork>),
    Record(Arc<EventCell>, Ticket),
    /// A synchronising thread waits for the stream's own event.
    Mark(Ticket),
}

/// What the owner and the worker of a stream share.
struct Lane {
    id: StreamId,
    core: Arc<DeviceCore>,
    clock: MonotonicClock,
    spin: Nanos,
    entries: ArrayQueue<Entry>,
    unfinished: AtomicUsize,
    bell: Signal,
    closing: AtomicBool,
    mark: EventCell,
}

impl Lane {
    /// Reserves room for one entry.
    fn reserve(&self) -> Result<(), DeviceError> {
        let depth = self.core.limits().depth;
        // Acquire: pairs with `finish`, so the room seen here is already free in the queue.
        self.unfinished
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |unfinished| {
                (unfinished < depth).then_some(unfinished + 1)
            })
            .map(|_| ())
            .map_err(|_| DeviceError::StreamFull { stream: self.id, depth })
    }

    /// Enqueues an entry whose room is reserved, and wakes the worker.
    fn push(&self, entry: Entry) {
        assert!(self.entries.push(entry).is_ok(), "{} has room for what was reserved", self.id);
        self.bell.notify();
    }

    /// Ends the reservation of an entry that was taken out of the queue.
    fn finish(&self) {
        self.unfinished.fetch_sub(1, Ordering::Release);
    }

    /// The worker's loop: ends once the owner is gone and the queue empty.
    fn serve(&self) {
        let mut unreported = Unreported::default();
        loop {
            // Read before the queue: the owner enqueues nothing after it closes, so a queue found
            // empty after `closing` was seen stays empty.
            let closing = self.closing.load(Ordering::Acquire);
            match self.entries.pop() {
                Some(Entry::Work(work)) => {
                    if let Err(fault) = self.run(work) {
                        unreported.note(fault);
                    }
                    self.finish();
                }
                Some(Entry::Record(cell, ticket)) => {
                    self.finish();
                    self.end(&cell, ticket, &mut unreported);
                    self.core.signal().notify();
                }
                Some(Entry::Mark(ticket)) => self.end(&self.mark, ticket, &mut unreported),
                None if closing => break,
                None => self.bell.wait(None, self.spin),
            }
        }
        self.core.release_slot(self.id);
    }

    /// Ends one recording with what the work before it came to.
    fn end(&self, cell: &EventCell, ticket: Ticket, unreported: &mut Unreported) {
        if self.core.is_lost() {
            cell.fail(ticket, None);
            return;
        }
        match unreported.take(self.id) {
            None => cell.complete(ticket, self.clock.now()),
            failure => cell.fail(ticket, failure),
        }
    }

    /// Runs `work` unless the device is lost. A fatal fault loses the device and is reported as
    /// that, not as a fault of the work.
    fn run(&self, work: Arc<dyn HostWork>) -> Result<(), WorkFault> {
        let lost = self.core.is_lost();
        // Unwind safety: what the work broke is the work's own; we touch it no more. The handle is
        // dropped inside, run or not, since the drop of the last one is foreign code too.
        let outcome =
            catch_unwind(AssertUnwindSafe(move || if lost { Ok(()) } else { work.run() }));
        match outcome.unwrap_or_else(|panic| Err(fault_of_panic(panic))) {
            Err(WorkFault { category: Category::Fatal, message, .. }) => {
                self.core.lose(self.clock.now(), Some(self.id), message);
                Ok(())
            }
            other => other,
        }
    }
}

/// Turns the payload of a panic into the fault of the work.
fn fault_of_panic(payload: Box<dyn Any + Send>) -> WorkFault {
    let text = match payload.downcast::<&'static str>() {
        Ok(text) => (*text).to_owned(),
        Err(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => {
                // Its drop is foreign code that may panic again and take the worker with it.
                std::mem::forget(payload);
                "no message".to_owned()
            }
        },
    };
    WorkFault::new(Category::Permanent, format!("panicked: {text}"))
}

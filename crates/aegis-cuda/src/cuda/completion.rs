//! Which recorded events have ended: seen by whoever looks, in the order of each stream.
//!
//! The GPU calls nobody when work is done; somebody has to look or to wait in the driver. Each
//! stream has a lane here, the queue of the recordings whose end nobody has seen yet:
//!
//! ```text
//!   record --> [ mark | mark | mark ] --> look at the first: done? then its cell completes, ring
//!   Spin, Yield   the thread that waits for the device looks, and so does every query
//!   Block         a thread of each lane sleeps in the driver until the first is done
//! ```
//!
//! # Invariants
//! 1. A cell completes with its own ticket only, so a look that comes late ends nothing newer.
//! 2. A driver's event may be recorded again while an older mark of it is queued. The older mark is
//!    then stale: nobody waits for it, and it is never asked about. An answer counts only if the
//!    mark is not stale after it was given, for a new ticket is taken before a new recording.
//! 3. `pending` counts a mark from before it is queued until somebody ends it and then rings, so a
//!    sleeper that reads zero has nothing to look at, or is rung.
//! 4. Whoever goes to sleep says so in `asleep` before it reads `pending`, and whoever records
//!    counts in `pending` before it reads `asleep`, all in one total order: one of them sees the
//!    other.
//! 5. Locks are held for a few instructions and, while recording, one call of the driver; never
//!    while waiting for the device.
//!
//! # Visibility
//! The driver's "done" orders what the GPU wrote to the host before its answer. The exchange that
//! completes the cell releases, and a query of the cell acquires: who sees the completion sees the
//! outputs, on whatever thread.

mod watcher;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aegis_trace::{Clock, MonotonicClock, Nanos, StreamId, Timestamp};

use super::CompletionWait;
use super::context::Machine;
use super::entries::{Entries, Position};
use super::event::RawEvent;
use super::frame::FrameEvents;
use super::graph::CudaGraph;
use super::stream::RawStream;
use crate::device_core::DeviceCore;
use crate::error::DeviceError;
use crate::event::{EventCell, Ticket};
use crate::realtime::{Realtime, RealtimePriority};
use crate::signal::Signal;
use crate::stage::CopyCells;
use crate::sync::lock;

/// One recording whose end nobody has seen yet.
struct Mark {
    sequence: u64,
    cell: Arc<EventCell>,
    ticket: Ticket,
    event: Arc<RawEvent>,
    /// Its place among the entries: all before it end with it.
    position: Position,
    /// The recordings within its stage, which end with it: the stage is one graph, and nobody asks the
    /// driver when it came by.
    within: [Option<(Arc<EventCell>, Ticket)>; WITHIN],
}

/// Recordings of a stage before its last: its beginning, and around its copies.
const WITHIN: usize = 3;

impl Mark {
    /// Whether somebody may still ask for this recording.
    fn is_current(&self) -> bool {
        self.cell.awaits(self.ticket)
    }

    /// Completes its recordings, the earlier one first.
    fn complete(&self, at: Timestamp) {
        for (cell, ticket) in self.within.iter().flatten() {
            cell.complete(*ticket, at);
        }
        self.cell.complete(self.ticket, at); // Nothing, where it is stale.
    }

    /// Ends its recordings with the loss of the device.
    fn lose(&self) {
        for (cell, ticket) in self.within.iter().flatten() {
            cell.fail(*ticket, None);
        }
        self.cell.fail(self.ticket, None);
    }
}

/// The events of a stage on their way into its stream.
pub(crate) struct Edges {
    pub(crate) events: FrameEvents,
    pub(crate) begun: Arc<EventCell>,
    pub(crate) copies: CopyCells,
    pub(crate) ended: Arc<EventCell>,
}

/// What a lane's lock guards.
struct Queue {
    marks: VecDeque<Mark>, // Never grows: each is an unfinished entry, of which there are `depth`.
    next: u64,
    /// Marks, and the work between and behind them.
    entries: Entries,
    capturing: bool,
}

impl Queue {
    /// Takes the marks up to `sequence` out, if that mark is still awaited; gives the last.
    fn take_through(&mut self, sequence: u64) -> Option<(Mark, usize)> {
        let awaited = |mark: &Mark| mark.sequence == sequence && mark.is_current();
        let count = self.marks.iter().position(awaited)? + 1;
        let last = self.marks.drain(..count).next_back()?;
        self.entries.end_through(last.position);
        Some((last, count))
    }

    /// Takes the first mark out if it ends with everything up to `position`.
    fn take_before(&mut self, position: Position) -> Option<Mark> {
        let ended = self.marks.front().is_some_and(|mark| mark.position <= position);
        if ended { self.marks.pop_front() } else { None }
    }
}

/// One stream and its unseen recordings.
pub(crate) struct Lane {
    id: StreamId,
    stream: RawStream,
    queue: Mutex<Queue>,
    depth: usize,
    /// Wakes the thread that waits in the driver, where there is one.
    bell: Signal,
    /// The priority that thread is to ask for, and whom it tells the answer.
    urged: Mutex<Option<(RealtimePriority, Sender<Realtime>)>>,
    closing: AtomicBool,
}

/// The lanes of one view of a device.
pub(crate) struct Completions {
    machine: Arc<Machine>,
    core: Arc<DeviceCore>,
    clock: MonotonicClock,
    wait: CompletionWait,
    lanes: Mutex<Vec<Arc<Lane>>>,
    pending: AtomicUsize,
    asleep: AtomicBool,
}

impl Lane {
    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    pub(crate) fn stream(&self) -> &RawStream {
        &self.stream
    }

    /// The first recording that somebody may ask for.
    fn first(&self) -> Option<(u64, Arc<RawEvent>)> {
        let queue = lock(&self.queue);
        let first = queue.marks.iter().find(|mark| mark.is_current());
        first.map(|mark| (mark.sequence, Arc::clone(&mark.event)))
    }

    /// Whether another entry may come. A stream that is being captured takes nodes instead, of which
    /// there is no limit; nor may it be asked whether it is idle, which would end the capture.
    fn has_room(&self) -> bool {
        let queue = lock(&self.queue);
        queue.capturing || queue.entries.unfinished() < self.depth
    }

    /// The place of its last entry.
    fn last(&self) -> Position {
        lock(&self.queue).entries.last()
    }

    /// Sets whether the stream is being captured; tells whether it was.
    pub(crate) fn set_capturing(&self, capturing: bool) -> bool {
        std::mem::replace(&mut lock(&self.queue).capturing, capturing)
    }
}

impl Completions {
    pub(crate) fn new(
        machine: Arc<Machine>,
        core: Arc<DeviceCore>,
        clock: MonotonicClock,
        wait: CompletionWait,
    ) -> Self {
        let (lanes, pending) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        Self { machine, core, clock, wait, lanes, pending, asleep: AtomicBool::new(false) }
    }

    pub(crate) fn clock(&self) -> MonotonicClock {
        self.clock
    }

    pub(crate) fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    pub(crate) fn way_of_waiting(&self) -> CompletionWait {
        self.wait
    }

    /// Adds the lane of a new stream; on `Block` starts its thread.
    pub(crate) fn open(
        self: &Arc<Self>,
        id: StreamId,
        stream: RawStream,
    ) -> Result<Arc<Lane>, DeviceError> {
        let depth = self.core.limits().depth;
        let queue = Queue {
            marks: VecDeque::with_capacity(depth),
            next: 0,
            entries: Entries::default(),
            capturing: false,
        };
        let lane = Arc::new(Lane {
            id,
            stream,
            queue: Mutex::new(queue),
            depth,
            bell: Signal::new(),
            urged: Mutex::new(None),
            closing: AtomicBool::new(false),
        });
        if self.wait == CompletionWait::Block {
            self.start_watcher(&lane)?;
        }
        lock(&self.lanes).push(Arc::clone(&lane));
        Ok(lane)
    }

    /// Closes the lane of a stream that is dropped; it goes once its last recording has ended.
    pub(crate) fn close(&self, lane: &Lane) {
        lane.closing.store(true, Ordering::Release);
        lane.bell.notify();
        self.poll();
        self.reap();
    }

    /// Removes the lanes that are closed and empty. Allocates nothing; O(streams).
    pub(crate) fn reap(&self) {
        let gone = |lane: &Arc<Lane>| {
            let empty = lock(&lane.queue).marks.iter().all(|mark| !mark.is_current());
            lane.closing.load(Ordering::Acquire) && empty
        };
        lock(&self.lanes).retain(|lane| {
            let gone = gone(lane);
            if gone {
                self.discard(lane);
                self.core.release_slot(lane.id);
            }
            !gone
        });
    }

    /// Drops the stale marks that are left.
    fn discard(&self, lane: &Lane) {
        let mut queue = lock(&lane.queue);
        self.pending.fetch_sub(queue.marks.len(), Ordering::SeqCst);
        queue.marks.clear();
    }

    /// Records `cell` on the lane.
    pub(crate) fn record(
        &self,
        lane: &Lane,
        event: &Arc<RawEvent>,
        cell: &Arc<EventCell>,
    ) -> Result<(), DeviceError> {
        self.mark(lane, event, cell, [None; WITHIN], |stream| {
            // SAFETY: (1) The stream lives as long as the lane, in the event's GPU: a view's events
            // and streams are made by one machine, and `CudaStream::record` refuses those of
            // another.
            unsafe { event.record(stream.handle()) }
        })
    }

    /// Enqueues a stage that is one graph and records its events.
    pub(crate) fn launch_stage(
        &self,
        lane: &Lane,
        graph: &CudaGraph,
        edges: &Edges,
    ) -> Result<(), DeviceError> {
        let (ended, marked, copies) = (&edges.events.ended, graph.marked(), &edges.copies);
        let within = [
            Some(&edges.begun),
            marked.uploaded.then_some(&copies.uploaded),
            marked.downloading.then_some(&copies.downloading),
        ];
        self.mark(lane, ended, &edges.ended, within, |stream| {
            // SAFETY: (1) The stream lives as long as the lane, in the graph's GPU, which the caller
            // compared.
            unsafe { graph.launch(stream.handle(), Some(&edges.events)) }
        })
    }

    /// Enqueues by `enqueue` what records `event`, and those of `within` before it, and waits for its
    /// end.
    fn mark(
        &self,
        lane: &Lane,
        event: &Arc<RawEvent>,
        cell: &Arc<EventCell>,
        within: [Option<&Arc<EventCell>>; WITHIN],
        enqueue: impl FnOnce(&RawStream) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.core.check()?;
        self.machine.bind()?;
        self.make_room(lane)?;
        let mut queue = lock(&lane.queue);
        if queue.capturing {
            return Err(DeviceError::Capturing { stream: lane.id });
        }
        if queue.entries.unfinished() >= lane.depth {
            // Others filled the room that was made; they are as unfinished as ours would be.
            return Err(DeviceError::StreamFull { stream: lane.id, depth: lane.depth });
        }
        self.pending.fetch_add(1, Ordering::SeqCst); // Invariant 3.
        let within = within.map(|cell| cell.map(|cell| (Arc::clone(cell), cell.begin())));
        let ticket = cell.begin(); // Invariant 2: before the recording.
        if let Err(error) = enqueue(&lane.stream) {
            self.pending.fetch_sub(1, Ordering::SeqCst);
            drop(queue);
            for (cell, ticket) in within.into_iter().flatten() {
                cell.fail(ticket, crate::fault::refused(lane.id, &error));
            }
            cell.fail(ticket, crate::fault::refused(lane.id, &error));
            return Err(error);
        }
        let (sequence, position) = (queue.next, queue.entries.enter());
        queue.next += 1;
        let (cell, event) = (Arc::clone(cell), Arc::clone(event));
        queue.marks.push_back(Mark { sequence, cell, ticket, event, position, within });
        drop(queue);
        self.wake(lane);
        Ok(())
    }

    /// Wakes who sleeps although there is something to look at now.
    fn wake(&self, lane: &Lane) {
        match self.wait {
            CompletionWait::Block => lane.bell.notify(),
            CompletionWait::Spin | CompletionWait::Yield => {
                if self.asleep.load(Ordering::SeqCst) {
                    self.core.signal().notify();
                }
            }
        }
    }

    /// Enqueues one piece of work by `enqueue`, which gets the driver's stream.
    pub(crate) fn enqueue(
        &self,
        lane: &Lane,
        enqueue: impl FnOnce(&RawStream) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.core.check()?;
        self.machine.bind()?;
        self.make_room(lane)?;
        let mut queue = lock(&lane.queue);
        let capturing = queue.capturing; // Then a node of the graph, not an entry of the queue.
        if !capturing && queue.entries.unfinished() >= lane.depth {
            return Err(DeviceError::StreamFull { stream: lane.id, depth: lane.depth });
        }
        match enqueue(&lane.stream) {
            Ok(()) if capturing => {}
            Ok(()) => drop(queue.entries.enter()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Looks whether a full lane is still full, and says so if it is.
    fn make_room(&self, lane: &Lane) -> Result<(), DeviceError> {
        if lane.has_room() {
            return Ok(());
        }
        self.poll_lane(lane);
        if lane.has_room() {
            return Ok(());
        }
        // Work behind the last mark, and stale marks, end unseen: only the stream knows.
        let last = lane.last();
        if let Ok(true) = lane.stream.is_idle() {
            self.settle(lane, last);
        }
        self.core.check()?;
        if lane.has_room() {
            return Ok(());
        }
        Err(DeviceError::StreamFull { stream: lane.id, depth: lane.depth })
    }

    /// Blocks until everything enqueued so far is done, and ends it, whether an event follows it or
    /// not; what other threads enqueue meanwhile stays.
    pub(crate) fn synchronize(&self, lane: &Lane) -> Result<(), DeviceError> {
        self.machine.bind()?;
        let last = lane.last();
        let waited = lane.stream.wait();
        match &waited {
            Ok(()) => self.settle(lane, last),
            Err(_) => drop(self.poll()), // Of a lost device, it ends what is recorded.
        }
        waited
    }

    /// Ends everything up to `position`, which was seen done.
    fn settle(&self, lane: &Lane, position: Position) {
        let at = self.clock.now();
        loop {
            let mut queue = lock(&lane.queue);
            let Some(mark) = queue.take_before(position) else {
                queue.entries.end_through(position);
                return;
            };
            queue.entries.end_through(mark.position);
            self.pending.fetch_sub(1, Ordering::SeqCst);
            drop(queue);
            mark.complete(at);
            self.core.signal().notify();
        }
    }

    /// Looks at the first recording of every lane; tells whether any ended. Costs one load where
    /// nothing is pending, else about one call of the driver for each stream in use.
    pub(crate) fn poll(&self) -> bool {
        if self.pending.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut ended = false;
        let mut index = 0;
        // By index, so that the list is not locked while the driver is asked.
        while let Some(lane) = self.lane(index) {
            ended |= self.poll_lane(&lane);
            index += 1;
        }
        ended
    }

    fn lane(&self, index: usize) -> Option<Arc<Lane>> {
        lock(&self.lanes).get(index).cloned()
    }

    fn poll_lane(&self, lane: &Lane) -> bool {
        if self.core.is_lost() {
            return self.fail(lane);
        }
        let mut ended = false;
        while let Some((sequence, event)) = lane.first() {
            match event.is_done() {
                Ok(true) => ended |= self.end_through(lane, sequence),
                Ok(false) => break,
                Err(error) => return self.lose(lane, &error),
            }
        }
        ended
    }

    /// Completes the mark `sequence`, which was seen done, and drops the stale ones before it.
    fn end_through(&self, lane: &Lane, sequence: u64) -> bool {
        let at = self.clock.now();
        // Another thread may have ended it, or recorded its event anew (invariant 2).
        let taken = lock(&lane.queue).take_through(sequence);
        let Some((mark, count)) = taken else { return false };
        self.pending.fetch_sub(count, Ordering::SeqCst);
        mark.complete(at);
        self.core.signal().notify();
        true
    }

    /// Loses the device because the end of the lane's work cannot be asked for, whatever the category
    /// of the answer: a stage whose end nobody will see is lost, and so is what is behind it.
    fn lose(&self, lane: &Lane, error: &DeviceError) -> bool {
        self.core.lose(self.clock.now(), Some(lane.id), error.to_string().into());
        self.fail(lane)
    }

    /// Ends every recording of the lane with the loss of the device, which is lost already.
    fn fail(&self, lane: &Lane) -> bool {
        let mut any = false;
        loop {
            let mark = lock(&lane.queue).marks.pop_front();
            let Some(mark) = mark else { break };
            self.pending.fetch_sub(1, Ordering::SeqCst);
            mark.lose();
            any = true;
        }
        if any {
            self.core.signal().notify();
        }
        any
    }

    /// Waits for a ring of the signal, for the end of a recording, or for `until`.
    ///
    /// `spin` says how long to look for a ring while nothing is pending, before sleeping.
    pub(crate) fn wait(&self, until: Option<Instant>, spin: Nanos) {
        match self.wait {
            CompletionWait::Block => self.core.signal().wait(until, spin),
            CompletionWait::Spin => self.look(until, spin, std::hint::spin_loop),
            CompletionWait::Yield => self.look(until, spin, std::thread::yield_now),
        }
    }

    fn look(&self, until: Option<Instant>, spin: Nanos, pause: fn()) {
        // An answer of the driver is needed to look at all; without it the queries report it.
        let _bound = self.machine.bind();
        let spin = Duration::from_nanos(spin.as_nanos());
        let mut idle_since = None;
        loop {
            let ended = self.poll();
            // Taken also after an end that was seen here: it rang, and the caller looks now.
            if self.core.signal().take_ring() || ended {
                return;
            }
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return;
            }
            if self.pending.load(Ordering::Acquire) != 0 {
                idle_since = None;
            } else if now - *idle_since.get_or_insert(now) >= spin {
                return self.sleep(until);
            }
            pause();
        }
    }

    /// Sleeps until a ring or `until`, unless something is pending (invariant 4).
    fn sleep(&self, until: Option<Instant>) {
        self.asleep.store(true, Ordering::SeqCst);
        if self.pending.load(Ordering::SeqCst) == 0 {
            self.core.signal().wait(until, Nanos::ZERO);
        }
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Blocks until `cell` is not pending, in the configured way.
    pub(crate) fn wait_for(&self, cell: &EventCell) {
        match self.wait {
            CompletionWait::Block => drop(cell.wait()),
            CompletionWait::Spin => self.look_for(cell, std::hint::spin_loop),
            CompletionWait::Yield => self.look_for(cell, std::thread::yield_now),
        }
    }

    fn look_for(&self, cell: &EventCell, pause: fn()) {
        while cell.is_pending() {
            self.poll();
            if self.core.is_lost() {
                return;
            }
            pause();
        }
    }
}

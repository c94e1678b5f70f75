//! A software device: virtual time, declared costs, injected faults.
//!
//! First-class, not a mock: the simulator of the scheduler, the tests and dry runs drive the same
//! orchestration over it. Each stream executes its queue in order; streams run concurrently and do
//! not slow each other down (contention is the caller's to declare in the costs).
//!
//! # Invariants
//! 1. Time moves in [`SimDevice::advance_to`] alone, and work ends only there. An event recorded on
//!    an idle stream completes at once.
//! 2. What is due ends in the order of (time, stream index), so equal inputs give equal traces.
//! 3. The head of a stream's queue is always work, a wait for a recording on another stream that has
//!    not ended, or a closed gate: recorded events at the head complete before the call that brought them
//!    there returns, and so do waits that are over.
//! 4. Work that hangs has no end, so it is never due and [`SimDevice::advance_to`] does not look
//!    for one: each step of its loop removes an entry, and it ends after at most
//!    `max_streams * stream_depth` steps.
//! 5. A mark of a stage's copies ([`CudaStream::mark`](crate::CudaStream::mark)) reports no fault: that
//!    is left to the event behind the stage.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_trace::{Bytes, Category, Clock, ManualClock, Nanos, StreamId, Timestamp};

use crate::capability::{DeviceCapabilities, DriverKind};
use crate::device_core::{DeviceCore, Limits};
use crate::error::DeviceError;
use crate::event::{EventCell, HORIZON, Ticket};
use crate::fault::{Unreported, WorkFault};

/// The limits of a `sim` device.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The most that the live arenas may sum up to.
    pub memory_limit: Bytes,
    /// The most streams that may live at once; at least one.
    pub max_streams: u16,
    /// The most unfinished entries of one stream, work and recorded events together; from 1 to 65 536.
    pub stream_depth: usize,
}

impl SimConfig {
    pub(crate) fn limits(&self) -> Limits {
        Limits { memory: self.memory_limit, streams: self.max_streams, depth: self.stream_depth }
    }

    pub(crate) fn capabilities(&self) -> DeviceCapabilities {
        DeviceCapabilities {
            name: "simulated device".to_owned(),
            driver: DriverKind::Sim,
            total_memory: Some(self.memory_limit),
            available_memory: Some(self.memory_limit),
            compute_units: None,
            memory_bandwidth_per_second: None,
            compute_capability: None,
            partition: None,
            gpu: None,
        }
    }
}

/// A piece of virtual work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimWork {
    /// How long it occupies its stream.
    pub cost: Nanos,
    /// How it fails, if it does.
    pub fault: Option<SimFault>,
}

/// A declared failure of virtual work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SimFault {
    /// It runs for its cost and ends with a permanent fault: a runtime that asked for memory beyond
    /// its binding.
    OutOfMemory,
    /// Enqueuing it fails, with [`DeviceError::Launch`].
    LaunchFailure,
    /// It runs for its cost and ends with a permanent fault.
    ExecutionFailure,
    /// It succeeds, but later than declared.
    Overrun {
        /// How much longer it takes than its cost.
        extra: Nanos,
    },
    /// It never ends, and neither does anything behind it on its stream. Dropping the stream then
    /// does not free its slot, as little as a hung kernel frees its part of a GPU.
    Hang,
    /// It runs for its cost; then the device is lost: every unfinished event and every later call
    /// fails with [`DeviceError::DeviceLost`].
    DeviceLost,
}

/// What a stream does that is told to wait for a mark which a stage on another stream is still to make
/// ([`CudaStream::wait_for`](crate::CudaStream::wait_for)). What manuals leave open, drivers may do as they
/// like; of any other recording a wait is held on each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SimWaits {
    /// It waits for the mark that was the last one when the wait was enqueued.
    #[default]
    Held,
    /// It does not wait.
    Passed,
    /// It does not wait where that stage is still to begin.
    PassedBeforeBegin,
    /// It does not wait where that stage has begun.
    PassedAfterBegin,
    /// It waits until the event has nothing more to come, whoever records it meanwhile.
    Moved,
}

/// The hand that moves virtual time. Clones share the device.
#[derive(Clone)]
pub struct SimDevice {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<DeviceCore>,
    clock: ManualClock,
    /// What a device shared with others would have free.
    free: AtomicU64,
    waits: Mutex<SimWaits>,
    /// One place per stream slot, by index; `None` while the slot is free.
    lanes: Mutex<Vec<Option<Lane>>>,
}

/// The queue of one stream.
struct Lane {
    id: StreamId,
    entries: VecDeque<Entry>,
    /// When the work at the head ends; [`Timestamp::NEVER`] for an empty queue and for a hang.
    due: Timestamp,
    unreported: Unreported,
    /// The stream was dropped: the slot is free once the queue is empty.
    closing: bool,
}

enum Entry {
    Work(SimWork),
    Record(Arc<EventCell>, Ticket),
    Mark(Arc<EventCell>, Ticket),
    /// Nothing behind it begins before that recording has ended.
    Wait(Arc<EventCell>, Ticket),
    /// Nor before any recording of it has.
    WaitForAny(Arc<EventCell>),
    /// Nor before the number has come so far.
    Gate(Arc<AtomicU32>, u32),
}

/// How far a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StageState {
    Ahead,
    Begun,
}

impl Entry {
    /// Whether it is a wait that is over.
    fn is_over(&self) -> bool {
        match self {
            Self::Wait(cell, ticket) => !cell.awaits(*ticket),
            Self::WaitForAny(cell) => !cell.is_pending(),
            Self::Gate(number, wanted) => number.load(Ordering::Acquire) >= *wanted,
            Self::Work(_) | Self::Record(..) | Self::Mark(..) => false,
        }
    }

    fn is_mark_of(&self, cell: &Arc<EventCell>) -> bool {
        matches!(self, Self::Mark(marked, ticket)
            if Arc::ptr_eq(marked, cell) && cell.awaits(*ticket))
    }
}

impl SimDevice {
    pub(crate) fn new(core: Arc<DeviceCore>) -> Self {
        let lanes = (0..core.limits().streams).map(|_| None).collect();
        let free = AtomicU64::new(core.limits().memory.as_u64());
        let (clock, waits) = (ManualClock::new(), Mutex::default());
        let inner = Inner { core, clock, free, waits, lanes: Mutex::new(lanes) };
        Self { inner: Arc::new(inner) }
    }

    /// Sets what the device has free, as if other programs used the rest; all of it at first.
    pub fn set_free_memory(&self, free: Bytes) {
        self.inner.free.store(free.as_u64(), Ordering::Relaxed);
    }

    pub(crate) fn free_memory(&self) -> Bytes {
        Bytes(self.inner.free.load(Ordering::Relaxed))
    }

    /// Sets what waits do that are enqueued from now on; they are [held](SimWaits::Held) at first.
    pub fn set_waits(&self, waits: SimWaits) {
        *self.inner.waits.lock().unwrap_or_else(PoisonError::into_inner) = waits;
    }

    pub(crate) fn waits(&self) -> SimWaits {
        *self.inner.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next piece of work ends, if any ever does. O(streams).
    ///
    /// Never earlier than the present; equal to it for work of no cost.
    #[must_use]
    pub fn next_event(&self) -> Option<Timestamp> {
        self.inner.lanes().iter().flatten().map(|lane| lane.due).min().filter(|due| is_point(*due))
    }

    /// Moves time to `at` and ends all work that is due by then, each at its own time.
    ///
    /// Events complete with the time of the work before them, and the device's signal rings for
    /// each. A point in the past moves nothing, but work that is due already ends. Time beyond the
    /// last point an event can carry (73 years) is that point.
    pub fn advance_to(&self, at: Timestamp) {
        let at = at.min(HORIZON);
        let mut lanes = self.inner.lanes();
        let target = at.max(self.inner.clock.now());
        while let Some((due, index)) = earliest(&lanes).filter(|(due, _)| *due <= target) {
            self.inner.clock.advance_to(due);
            self.inner.end_work(&mut lanes, index);
        }
        self.inner.clock.advance_to(target);
    }

    /// Lets go on what waits for a number that has come so far.
    pub(crate) fn look_at_gates(&self) {
        let mut lanes = self.inner.lanes();
        self.inner.go_on(&mut lanes);
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.inner.clock.clone())
    }

    pub(crate) fn create_stream(&self) -> Result<SimStream, DeviceError> {
        let depth = self.inner.core.limits().depth;
        let mut lanes = self.inner.lanes();
        let id = self.inner.core.take_slot()?;
        lanes[self.inner.core.place(id)] = Some(Lane {
            id,
            entries: VecDeque::with_capacity(depth), // Never grows: see `with_room`.
            due: Timestamp::NEVER,
            unreported: Unreported::default(),
            closing: false,
        });
        Ok(SimStream { device: self.clone(), id })
    }
}

impl fmt::Debug for SimDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDevice")
            .field("now", &self.inner.clock.now())
            .field("next_event", &self.next_event())
            .finish_non_exhaustive()
    }
}

/// Whether `due` is a point that time can reach.
fn is_point(due: Timestamp) -> bool {
    due <= HORIZON
}

/// The earliest end of work and the place of its lane; the lower index wins a tie.
fn earliest(lanes: &[Option<Lane>]) -> Option<(Timestamp, usize)> {
    let due = |(index, lane): (usize, &Option<Lane>)| lane.as_ref().map(|lane| (lane.due, index));
    lanes.iter().enumerate().filter_map(due).min()
}

impl Inner {
    fn lanes(&self) -> MutexGuard<'_, Vec<Option<Lane>>> {
        // No foreign code runs under the lock, and a panic of ours leaves the lanes whole.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the last recording of `cell` is a mark that a stage is still to make: how far that stage is.
    /// O(entries).
    fn stage_of(&self, cell: &Arc<EventCell>) -> Option<StageState> {
        self.lanes().iter().flatten().find_map(|lane| {
            let mark = lane.entries.iter().position(|entry| entry.is_mark_of(cell))?;
            // Its beginning is recorded in front of its marks, and nothing else is in between.
            let is_begin = |entry: &Entry| matches!(entry, Entry::Record(..));
            let is_ahead = lane.entries.iter().take(mark).any(is_begin);
            Some(if is_ahead { StageState::Ahead } else { StageState::Begun })
        })
    }

    /// Ends the work at the head of lane `index`, at the present time.
    fn end_work(&self, lanes: &mut [Option<Lane>], index: usize) {
        let lane = lanes[index].as_mut().expect("a lane with work exists");
        let Some(Entry::Work(work)) = lane.entries.pop_front() else {
            unreachable!("a due lane has work at its head");
        };
        match work.fault {
            None | Some(SimFault::Overrun { .. }) => {}
            Some(SimFault::OutOfMemory) => lane.unreported.note(permanent("out of memory")),
            Some(SimFault::ExecutionFailure) => lane.unreported.note(permanent("execution failed")),
            Some(SimFault::DeviceLost) => {
                let by = lane.id;
                self.lose(lanes, by);
                return;
            }
            Some(SimFault::LaunchFailure | SimFault::Hang) => {
                unreachable!("work that never starts or never ends is never due")
            }
        }
        self.settle(lane);
        self.release_if_done(&mut lanes[index]);
        self.go_on(lanes);
    }

    /// Starts what waits in any lane for what has come. Each turn removes a wait, so it ends
    /// after at most as many turns as there are entries.
    fn go_on(&self, lanes: &mut [Option<Lane>]) {
        let goes_on = |lane: &Lane| lane.entries.front().is_some_and(Entry::is_over);
        while let Some(place) = lanes.iter_mut().find(|lane| lane.as_ref().is_some_and(goes_on)) {
            self.settle(place.as_mut().expect("it was just looked at"));
            self.release_if_done(place);
        }
    }

    /// Completes the events at the head of `lane` and starts the work behind them.
    fn settle(&self, lane: &mut Lane) {
        let now = self.clock.now();
        loop {
            match lane.entries.front() {
                Some(Entry::Record(..) | Entry::Mark(..)) => {}
                Some(wait) if wait.is_over() => {}
                Some(Entry::Wait(..) | Entry::WaitForAny(_) | Entry::Gate(..) | Entry::Work(_))
                | None => break,
            }
            match lane.entries.pop_front() {
                Some(Entry::Wait(..) | Entry::WaitForAny(_) | Entry::Gate(..)) => {}
                Some(Entry::Mark(cell, ticket)) => cell.complete(ticket, now), // Invariant 5.
                Some(Entry::Record(cell, ticket)) => {
                    match lane.unreported.take(lane.id) {
                        None => cell.complete(ticket, now),
                        failure => cell.fail(ticket, failure),
                    }
                    self.core.signal().notify();
                }
                Some(Entry::Work(_)) | None => unreachable!("the head was just seen"),
            }
        }
        lane.due = match lane.entries.front() {
            Some(Entry::Work(work)) => end_of(*work, now),
            _ => Timestamp::NEVER,
        };
    }

    /// Loses the device: every unfinished event ends with the loss, all work is gone.
    fn lose(&self, lanes: &mut [Option<Lane>], by: StreamId) {
        self.core.lose(self.clock.now(), Some(by), "the device fell off the bus".into());
        for place in lanes.iter_mut() {
            let Some(lane) = place else { continue };
            lane.due = Timestamp::NEVER;
            for entry in lane.entries.drain(..) {
                if let Entry::Record(cell, ticket) | Entry::Mark(cell, ticket) = entry {
                    cell.fail(ticket, None);
                }
            }
            self.release_if_done(place);
        }
        self.core.signal().notify();
    }

    /// Gives the slot of a dropped stream back once its queue is empty.
    fn release_if_done(&self, place: &mut Option<Lane>) {
        if let Some(lane) = place.take_if(|lane| lane.closing && lane.entries.is_empty()) {
            self.core.release_slot(lane.id);
        }
    }
}

/// When `work` ends if it starts at `now`; a point past the horizon never comes.
fn end_of(work: SimWork, now: Timestamp) -> Timestamp {
    let end = match work.fault {
        Some(SimFault::Hang) => Timestamp::NEVER,
        Some(SimFault::Overrun { extra }) => now.saturating_add(work.cost).saturating_add(extra),
        _ => now.saturating_add(work.cost),
    };
    if is_point(end) { end } else { Timestamp::NEVER }
}

fn permanent(message: &str) -> WorkFault {
    WorkFault::new(Category::Permanent, message)
}

/// The owner's end of a stream.
pub(crate) struct SimStream {
    device: SimDevice,
    id: StreamId,
}

impl SimStream {
    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    pub(crate) fn enqueue(&self, work: SimWork) -> Result<(), DeviceError> {
        self.with_room(|inner, lane| {
            if work.fault == Some(SimFault::LaunchFailure) {
                return Err(DeviceError::Launch { stream: self.id });
            }
            lane.entries.push_back(Entry::Work(work));
            if lane.entries.len() == 1 {
                lane.due = end_of(work, inner.clock.now());
            }
            Ok(())
        })
    }

    pub(crate) fn record(&self, cell: &Arc<EventCell>) -> Result<(), DeviceError> {
        self.enter(cell, Entry::Record)
    }

    /// Records `cell`, which will not report a fault.
    pub(crate) fn mark(&self, cell: &Arc<EventCell>) -> Result<(), DeviceError> {
        self.enter(cell, Entry::Mark)
    }

    /// Makes what follows wait for the last recording of `cell`, if that has not ended.
    pub(crate) fn wait_for(&self, cell: &Arc<EventCell>) -> Result<(), DeviceError> {
        let Some(ticket) = cell.pending() else { return self.device.inner.core.check() };
        match (self.device.waits(), self.device.inner.stage_of(cell)) {
            (SimWaits::Passed, Some(_))
            | (SimWaits::PassedBeforeBegin, Some(StageState::Ahead))
            | (SimWaits::PassedAfterBegin, Some(StageState::Begun)) => {
                self.device.inner.core.check()
            }
            (SimWaits::Moved, Some(_)) => self.hold(Entry::WaitForAny(Arc::clone(cell))),
            (SimWaits::Held, _)
            | (_, None)
            | (SimWaits::PassedBeforeBegin, Some(StageState::Begun))
            | (SimWaits::PassedAfterBegin, Some(StageState::Ahead)) => {
                self.hold(Entry::Wait(Arc::clone(cell), ticket))
            }
        }
    }

    /// Makes what follows wait until `number` is `wanted` or more. Whoever changes it
    /// [says so](SimDevice::look_at_gates).
    pub(crate) fn hold_until(
        &self,
        number: &Arc<AtomicU32>,
        wanted: u32,
    ) -> Result<(), DeviceError> {
        self.hold(Entry::Gate(Arc::clone(number), wanted))
    }

    fn hold(&self, wait: Entry) -> Result<(), DeviceError> {
        self.with_room(|inner, lane| {
            lane.entries.push_back(wait);
            if lane.entries.len() == 1 {
                inner.settle(lane);
            }
            Ok(())
        })
    }

    fn enter(
        &self,
        cell: &Arc<EventCell>,
        entry: fn(Arc<EventCell>, Ticket) -> Entry,
    ) -> Result<(), DeviceError> {
        self.with_room(|inner, lane| {
            let ticket = cell.begin();
            lane.entries.push_back(entry(Arc::clone(cell), ticket));
            if lane.entries.len() == 1 {
                inner.settle(lane);
            }
            Ok(())
        })
    }

    pub(crate) fn synchronize(&self) -> Result<(), DeviceError> {
        self.with_lane(|_, lane| {
            if !lane.entries.is_empty() {
                return Err(DeviceError::StillPending);
            }
            lane.unreported.take(self.id).map_or(Ok(()), |failure| Err(failure.into()))
        })
    }

    /// Runs `enter` on the lane if the device lives and the queue has room for one entry.
    fn with_room(
        &self,
        enter: impl FnOnce(&Inner, &mut Lane) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.with_lane(|inner, lane| {
            inner.core.check()?;
            let depth = inner.core.limits().depth;
            if lane.entries.len() >= depth {
                return Err(DeviceError::StreamFull { stream: self.id, depth });
            }
            enter(inner, lane)
        })
    }

    fn with_lane<R>(&self, enter: impl FnOnce(&Inner, &mut Lane) -> R) -> R {
        let inner = &*self.device.inner;
        let mut lanes = inner.lanes();
        let lane = lanes[inner.core.place(self.id)].as_mut();
        enter(inner, lane.expect("a stream keeps its lane until it is dropped"))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let inner = &*self.device.inner;
        let mut lanes = inner.lanes();
        let place = &mut lanes[inner.core.place(self.id)];
        if let Some(lane) = place {
            lane.closing = true;
        }
        inner.release_if_done(place);
    }
}

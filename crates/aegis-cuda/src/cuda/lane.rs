//! The owner's end of a stream on a GPU: what is enqueued, and the stage it belongs to.
//!
//! A stage lies between two events. Work that is one framed graph records them itself
//! ([`super::frame`]); before any other work the first is recorded by a call of its own, and the
//! second behind it. Marks of its copies are recorded where they are made:
//!
//! ```text
//!   None --begin--> Waiting --framed graph--> Whole --end--> None
//!                      |                        |
//!                      +--- anything else ------+--> Begun --end: record ended--> None
//!
//!   None --capture--> Captured --end of the capture--> None     marks become nodes
//! ```
//!
//! # Invariants
//! 1. Both events of a stage are recorded exactly once where its stream is left `Waiting`, `Begun` or
//!    `Whole` by what is enqueued; work behind a `Whole` graph records the second anew.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use aegis_trace::{Bytes, StreamId};

use super::NO_VALUE_WAIT;
use super::capture::Capture;
use super::completion::{Completions, Edges, Lane};
use super::event::{RawEvent, Timing};
use super::frame::FrameEvents;
use super::graph::CudaGraph;
use super::partition::Partition;
use super::stream::RawStream;
use crate::error::DeviceError;
use crate::event::EventCell;
use crate::memory::{DeviceBuffer, SharedRegion};
use crate::stage::CopyMark;
use crate::sync::lock;

/// Where a stream is in its stage.
enum Stage {
    None,
    Waiting(Edges),
    Begun(Edges),
    Whole(Edges),
    /// It is being captured, between recordings of these events.
    Captured(Arc<FrameEvents>),
}

/// Flag of `cuStreamWaitValue32`: until the number is as large as was asked for, or larger.
const WAIT_AT_LEAST: u32 = 0;

/// The owner's end of a stream.
pub(crate) struct CudaLane {
    completions: Arc<Completions>,
    lane: Arc<Lane>,
    partition: Option<Arc<Partition>>,
    urgency: u8,
    stage: Mutex<Stage>,
}

impl CudaLane {
    pub(crate) fn new(
        completions: Arc<Completions>,
        lane: Arc<Lane>,
        partition: Option<Arc<Partition>>,
        urgency: u8,
    ) -> Self {
        Self { completions, lane, partition, urgency, stage: Mutex::new(Stage::None) }
    }

    pub(crate) fn id(&self) -> StreamId {
        self.lane.id()
    }

    pub(crate) fn urgency(&self) -> u8 {
        self.urgency
    }

    pub(crate) fn record(
        &self,
        event: &Arc<RawEvent>,
        cell: &Arc<EventCell>,
    ) -> Result<(), DeviceError> {
        self.completions.record(&self.lane, event, cell)
    }

    /// Makes what follows wait for the last recording of `event`.
    pub(crate) fn wait_for(&self, event: &RawEvent) -> Result<(), DeviceError> {
        self.enqueue(|stream| {
            // SAFETY: (1) The stream lives as long as the lane, in the event's GPU: a view's events and
            // streams are made by one machine, and `CudaStream::wait_for` refuses those of another.
            unsafe { event.hold_back(stream.handle()) }
        })
    }

    /// Blocks until everything enqueued is done.
    pub(crate) fn synchronize(&self) -> Result<(), DeviceError> {
        self.completions.synchronize(&self.lane)
    }

    /// Begins a stage: the events of `edges` are recorded before and behind what is enqueued until
    /// [`end_stage`](Self::end_stage) or [`leave_stage`](Self::leave_stage).
    pub(crate) fn begin_stage(&self, edges: Edges) {
        *lock(&self.stage) = Stage::Waiting(edges);
    }

    /// Ends the stage: records what is not recorded yet.
    pub(crate) fn end_stage(&self) -> Result<(), DeviceError> {
        let stage = std::mem::replace(&mut *lock(&self.stage), Stage::None);
        match stage {
            Stage::None | Stage::Whole(_) | Stage::Captured(_) => Ok(()),
            Stage::Waiting(edges) => {
                self.record(&edges.events.begun, &edges.begun)?;
                self.record(&edges.events.ended, &edges.ended)
            }
            Stage::Begun(edges) => self.record(&edges.events.ended, &edges.ended),
        }
    }

    /// Forgets the stage, whose work could not be enqueued.
    pub(crate) fn leave_stage(&self) {
        *lock(&self.stage) = Stage::None;
    }

    /// Records the beginning of the stage, if it is still to come: work follows that does not.
    pub(crate) fn open_stage(&self) -> Result<(), DeviceError> {
        let mut stage = lock(&self.stage);
        *stage = match std::mem::replace(&mut *stage, Stage::None) {
            Stage::Waiting(edges) => {
                self.record(&edges.events.begun, &edges.begun)?;
                Stage::Begun(edges)
            }
            Stage::Begun(edges) | Stage::Whole(edges) => Stage::Begun(edges),
            outside @ (Stage::None | Stage::Captured(_)) => outside,
        };
        Ok(())
    }

    /// Records the end of the uploads, or the beginning of the downloads, of the stage that is being
    /// enqueued or captured.
    pub(crate) fn mark(&self, mark: CopyMark) -> Result<(), DeviceError> {
        self.open_stage()?;
        match &*lock(&self.stage) {
            Stage::None | Stage::Waiting(_) | Stage::Whole(_) => Ok(()),
            Stage::Begun(edges) => self.record(edges.events.of(mark), edges.copies.of(mark)),
            Stage::Captured(events) => {
                // SAFETY: (1) The stream lives as long as the lane. (2) The events live as long as the
                // graph: its frame holds those that it finds in it.
                unsafe { events.of(mark).record_in_graph(self.lane.stream().handle()) }
            }
        }
    }

    pub(crate) fn launch(&self, graph: &CudaGraph) -> Result<(), DeviceError> {
        if !graph.is_of(self.completions.machine()) {
            return Err(DeviceError::ForeignGraph);
        }
        if graph.is_framed() && self.launch_whole(graph)? {
            return Ok(());
        }
        // SAFETY: (1) The stream lives through the call, on the graph's machine: just compared.
        self.enqueue(|stream| unsafe { graph.launch(stream.handle(), None) })
    }

    /// Launches a framed graph as the whole of the stage, if nothing of it was enqueued before.
    fn launch_whole(&self, graph: &CudaGraph) -> Result<bool, DeviceError> {
        let mut stage = lock(&self.stage);
        let Stage::Waiting(edges) = &*stage else { return Ok(false) };
        self.completions.launch_stage(&self.lane, graph, edges)?;
        *stage = match std::mem::replace(&mut *stage, Stage::None) {
            Stage::Waiting(edges) => Stage::Whole(edges),
            other => other,
        };
        Ok(true)
    }

    /// Enqueues one piece of work by `enqueue`, which gets the driver's stream.
    pub(crate) fn enqueue(
        &self,
        enqueue: impl FnOnce(&RawStream) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.open_stage()?;
        self.completions.enqueue(&self.lane, enqueue)
    }

    /// Captures what `enqueue` puts on the stream, instead of running it.
    pub(crate) fn capture<E: From<DeviceError>>(
        &self,
        enqueue: impl FnOnce() -> Result<(), E>,
    ) -> Result<CudaGraph, E> {
        self.completions.machine().bind()?;
        let capture = Capture::begin(self.completions.machine(), &self.lane)?;
        enqueue()?; // On an error the drop ends the capture and discards it.
        Ok(self.instantiate(capture, None)?)
    }

    /// Captures what `enqueue` puts on the stream as a stage: between two recorded events, which
    /// become those of the stage that the graph is launched in.
    pub(crate) fn capture_stage<E: From<DeviceError>>(
        &self,
        enqueue: impl FnOnce() -> Result<(), E>,
    ) -> Result<CudaGraph, E> {
        let machine = self.completions.machine();
        machine.bind()?;
        let event = || {
            let wait = self.completions.way_of_waiting();
            RawEvent::new(machine, Timing::Timed, wait).map(Arc::new)
        };
        let events = Arc::new(FrameEvents {
            begun: event()?,
            uploaded: event()?,
            downloading: event()?,
            ended: event()?,
        });
        let stream = self.lane.stream().handle();
        let capture = Capture::begin(machine, &self.lane)?;
        // SAFETY: (1) The stream lives as long as the lane. (2) The events live as long as the graph:
        // its frame holds them.
        unsafe { events.begun.record_in_graph(stream) }?;
        *lock(&self.stage) = Stage::Captured(Arc::clone(&events));
        let enqueued = enqueue();
        *lock(&self.stage) = Stage::None;
        enqueued?; // On an error the drop ends the capture and discards it.
        // SAFETY: (1) and (2) as above.
        unsafe { events.ended.record_in_graph(stream) }?;
        Ok(self.instantiate(capture, Some(&events))?)
    }

    fn instantiate(
        &self,
        capture: Capture<'_>,
        framed: Option<&FrameEvents>,
    ) -> Result<CudaGraph, DeviceError> {
        let template = capture.end()?;
        let machine = self.completions.machine();
        let (partition, stream) = (self.partition.as_ref(), self.lane.stream().handle());
        // SAFETY: (1) The driver gave the graph to us alone. (2) The stream lives, and its capture
        // has ended.
        let graph = unsafe { CudaGraph::new(machine, partition, template, stream, framed) }?;
        self.lane.stream().wait()?; // The upload: the first launch is as quick as the others.
        Ok(graph)
    }

    /// Begins to throw away what the calling thread enqueues on the stream, until the drop.
    pub(crate) fn discard(&self) -> Result<Capture<'_>, DeviceError> {
        self.completions.machine().bind()?;
        Capture::begin(self.completions.machine(), &self.lane)
    }

    pub(crate) fn handle(&self) -> Option<NonNull<c_void>> {
        NonNull::new(self.lane.stream().handle().cast())
    }

    /// Makes what follows wait until the number at `address` has reached `wanted`, as numbers go around.
    ///
    /// # Errors
    /// [`DeviceError::DriverTooOld`] before CUDA 11.7; else as work on the stream.
    ///
    /// # Safety
    /// It is in page-locked memory that lives until then, and aligned.
    pub(crate) unsafe fn hold_until(
        &self,
        address: NonNull<u32>,
        wanted: u32,
    ) -> Result<(), DeviceError> {
        let (api, machine) = (self.completions.machine().api(), self.completions.machine());
        let hold = api.cuStreamWaitValue32_v2.ok_or(NO_VALUE_WAIT)?;
        // In a unified address space the device has page-locked memory at the processor's address.
        let address = address.as_ptr().expose_provenance() as u64;
        self.enqueue(|stream| {
            // SAFETY: (1) The caller's promise. (2) The stream lives.
            machine.check("cuStreamWaitValue32", unsafe {
                hold(stream.handle(), address, wanted, WAIT_AT_LEAST)
            })
        })
    }

    /// Enqueues a copy of `length` bytes from `source` to the device address `target`.
    ///
    /// # Safety
    /// Both sides are valid for `length` bytes, live and are left alone until the copy is done.
    pub(crate) unsafe fn copy_in(
        &self,
        source: NonNull<u8>,
        target: &DeviceBuffer,
        length: usize,
    ) -> Result<(), DeviceError> {
        let (api, machine) = (self.completions.machine().api(), self.completions.machine());
        let target = target.as_ptr().addr().get() as u64;
        self.enqueue(|stream| {
            // SAFETY: (1) The caller's promise. (2) The stream lives.
            machine.check("cuMemcpyHtoDAsync", unsafe {
                (api.cuMemcpyHtoDAsync_v2)(target, source.as_ptr().cast(), length, stream.handle())
            })
        })
    }

    /// Enqueues a copy of `length` bytes from the device address `source` to `target`.
    ///
    /// # Safety
    /// As [`CudaLane::copy_in`].
    pub(crate) unsafe fn copy_out(
        &self,
        source: &DeviceBuffer,
        target: NonNull<u8>,
        length: usize,
    ) -> Result<(), DeviceError> {
        let (api, machine) = (self.completions.machine().api(), self.completions.machine());
        let source = source.as_ptr().addr().get() as u64;
        self.enqueue(|stream| {
            // SAFETY: (1) The caller's promise. (2) The stream lives.
            machine.check("cuMemcpyDtoHAsync", unsafe {
                (api.cuMemcpyDtoHAsync_v2)(target.as_ptr().cast(), source, length, stream.handle())
            })
        })
    }

    /// Enqueues that all of `region` be set to `byte`.
    ///
    /// # Safety
    /// The region is on this GPU, lives and is left alone until the fill is done.
    pub(crate) unsafe fn fill(&self, region: &SharedRegion, byte: u8) -> Result<(), DeviceError> {
        let (api, machine) = (self.completions.machine().api(), self.completions.machine());
        let target = region.as_ptr().addr().get() as u64;
        let length = Bytes(region.len()).as_usize();
        self.enqueue(|stream| {
            // SAFETY: (1) The caller's promise. (2) The stream lives.
            machine.check("cuMemsetD8Async", unsafe {
                (api.cuMemsetD8Async)(target, byte, length, stream.handle())
            })
        })
    }
}

impl Drop for CudaLane {
    fn drop(&mut self) {
        self.completions.close(&self.lane);
    }
}

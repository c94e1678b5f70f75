//! The frame of a stage's work within its graph.
//!
//! Recorded events, and copies whose host side can be aimed anew.
//! A stage that is one graph is one call of the driver, and begins only when all of it is there. So
//! the time between its events holds no time of the processor: not how long it took to enqueue the
//! copies, and not how long the operating system kept it from that.
//!
//! ```text
//!   record begun --> copies in --> work --> copies out --> record ended      (in the graph)
//!        ^               ^      ^        ^       ^              ^
//!   an event of the   a buffer  |        |  a buffer of     an event of the
//!   stream's loan     of this   |        |  this job        stream's loan
//!                     job    record    record
//!                          uploaded   downloading, of the loan too, where it has such copies
//! ```
//! Where the inputs were copied ahead of the stage, their nodes are disabled for that launch: the driver
//! passes over them. Their shape stays, so there is one executable, and no second one takes memory.
//!
//! # Invariants
//! 1. The events that the nodes record live as long as the nodes may record them: the frame holds
//!    them.
//! 2. The nodes belong to the template that the executable was made of, and live as long as it.
//!
//! # Sources
//! The driver's manual, "Graph Management": event record nodes, and changing the parameters of a
//! node of an executable graph, or whether it does anything, which affects later launches alone.

use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys::{CUcontext, CUgraph, CUgraphExec, CUgraphNode};

use super::context::Machine;
use super::event::RawEvent;
use super::graph::count_nodes;
use super::library::CopyParameters;
use crate::error::DeviceError;
use crate::stage::CopyMark;

/// `CU_GRAPH_NODE_TYPE_MEMCPY`.
const COPY_NODE: u32 = 1;
/// `CU_GRAPH_NODE_TYPE_EVENT_RECORD`.
const RECORD_NODE: u32 = 7;
/// `CU_MEMORYTYPE_HOST`.
const HOST: u32 = 1;

/// The events that a stage, and the work between its copies, is between.
pub(crate) struct FrameEvents {
    pub(crate) begun: Arc<RawEvent>,
    pub(crate) uploaded: Arc<RawEvent>,
    pub(crate) downloading: Arc<RawEvent>,
    pub(crate) ended: Arc<RawEvent>,
}

impl FrameEvents {
    pub(crate) fn of(&self, mark: CopyMark) -> &Arc<RawEvent> {
        match mark {
            CopyMark::Uploaded => &self.uploaded,
            CopyMark::Downloading => &self.downloading,
        }
    }
}

/// Which ends of copies the graph of a stage records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) uploaded: bool,
    pub(crate) downloading: bool,
}

/// The frame of one graph.
pub(crate) struct Frame {
    begun: Recording,
    uploaded: Option<Recording>,
    downloading: Option<Recording>,
    ended: Recording,
    copies: Vec<HostCopy>,
    /// Where the copies run.
    context: CUcontext,
}

/// A node that records an event.
struct Recording {
    node: CUgraphNode,
    /// What it records when the graph is launched outside a stage.
    own: Arc<RawEvent>,
    /// What it records now.
    aimed: Arc<RawEvent>,
}

impl Recording {
    /// Makes later launches of `executable` record `event`, or its own without any. Costs a comparison
    /// where they do already.
    fn aim(
        &mut self,
        machine: &Machine,
        executable: CUgraphExec,
        event: Option<&Arc<RawEvent>>,
    ) -> Result<(), DeviceError> {
        let next = event.unwrap_or(&self.own);
        if Arc::ptr_eq(&self.aimed, next) {
            return Ok(());
        }
        let api = machine.api();
        // SAFETY: (1) Executable, node and event live: invariants 1 and 2. (2) The lock of the graph is
        // held.
        let code = unsafe {
            (api.cuGraphExecEventRecordNodeSetEvent)(executable, self.node, next.handle())
        };
        machine.check("cuGraphExecEventRecordNodeSetEvent", code)?;
        self.aimed = Arc::clone(next);
        Ok(())
    }
}

/// A copy between the host and the device.
struct HostCopy {
    node: CUgraphNode,
    parameters: CopyParameters,
    /// The host address it was captured with, which names it.
    captured: usize,
    /// Whether launches pass over it now.
    is_left_out: bool,
}

// SAFETY: (1) The handles are the driver's to dereference. (2) A frame is behind the lock of its
// graph.
unsafe impl Send for Frame {}

impl Frame {
    /// Finds the frame in `template`, which was captured between recordings of `own`.
    ///
    /// # Safety
    /// `template` is a live graph of this machine, and stays so as long as the frame is used.
    pub(crate) unsafe fn find(
        machine: &Machine,
        template: CUgraph,
        own: &FrameEvents,
        context: CUcontext,
    ) -> Result<Self, DeviceError> {
        let (mut copies, mut records) = (Vec::new(), Vec::new());
        for node in nodes_of(machine, template)? {
            match kind_of(machine, node)? {
                COPY_NODE => copies.extend(host_copy(machine, node)?),
                RECORD_NODE => records.push((node, event_of(machine, node)?)),
                _ => {}
            }
        }
        let recording = |own: &Arc<RawEvent>| {
            let (node, _) = *records.iter().find(|(_, event)| *event == own.handle())?;
            Some(Recording { node, own: Arc::clone(own), aimed: Arc::clone(own) })
        };
        Ok(Self {
            begun: recording(&own.begun).ok_or(DeviceError::Unframed)?,
            uploaded: recording(&own.uploaded),
            downloading: recording(&own.downloading),
            ended: recording(&own.ended).ok_or(DeviceError::Unframed)?,
            copies,
            context,
        })
    }

    /// Where it records around its copies.
    pub(crate) fn marked(&self) -> Marked {
        Marked { uploaded: self.uploaded.is_some(), downloading: self.downloading.is_some() }
    }

    /// Makes later launches of `executable` record `events`, or its own without any.
    pub(crate) fn aim_events(
        &mut self,
        machine: &Machine,
        executable: CUgraphExec,
        events: Option<&FrameEvents>,
    ) -> Result<(), DeviceError> {
        self.begun.aim(machine, executable, events.map(|events| &events.begun))?;
        if let Some(uploaded) = &mut self.uploaded {
            uploaded.aim(machine, executable, events.map(|events| &events.uploaded))?;
        }
        if let Some(downloading) = &mut self.downloading {
            downloading.aim(machine, executable, events.map(|events| &events.downloading))?;
        }
        self.ended.aim(machine, executable, events.map(|events| &events.ended))
    }

    /// Makes the copy that was captured with the host address `captured` use `host` from the next
    /// launch on. O(copies); costs a comparison where it does so already.
    ///
    /// # Safety
    /// `host` is page-locked, has as many bytes as the buffer at `captured`, and lives until the copy
    /// is aimed elsewhere or the graph is dropped.
    pub(crate) unsafe fn aim_copy(
        &mut self,
        machine: &Machine,
        executable: CUgraphExec,
        captured: usize,
        host: *mut std::ffi::c_void,
    ) -> Result<(), DeviceError> {
        let copy = self.copies.iter_mut().find(|copy| copy.captured == captured);
        let copy = copy.ok_or(DeviceError::NoSuchCopy)?;
        let mut next = copy.parameters;
        let side = next.host_side().ok_or(DeviceError::NoSuchCopy)?;
        if side.host == host {
            return Ok(());
        }
        side.host = host;
        let api = machine.api();
        // SAFETY: (1) Executable and node live: invariant 2. (2) The parameters are those of the
        // node but for the host's address, which the caller answers for.
        let code = unsafe {
            (api.cuGraphExecMemcpyNodeSetParams)(
                executable,
                copy.node,
                &raw const next,
                self.context,
            )
        };
        machine.check("cuGraphExecMemcpyNodeSetParams", code)?;
        copy.parameters = next;
        Ok(())
    }

    /// Makes later launches of `executable` pass over the copy that was captured with the host address
    /// `captured`, or not. O(copies); costs a comparison where they do so already.
    pub(crate) fn leave_out(
        &mut self,
        machine: &Machine,
        executable: CUgraphExec,
        captured: usize,
        left_out: bool,
    ) -> Result<(), DeviceError> {
        let copy = self.copies.iter_mut().find(|copy| copy.captured == captured);
        let copy = copy.ok_or(DeviceError::NoSuchCopy)?;
        if copy.is_left_out == left_out {
            return Ok(());
        }
        let enable = machine.api().cuGraphNodeSetEnabled.ok_or(super::NO_NODE_SWITCH)?;
        // SAFETY: (1) Executable and node live: invariant 2. (2) The lock of the graph is held.
        let code = unsafe { enable(executable, copy.node, u32::from(!left_out)) };
        machine.check("cuGraphNodeSetEnabled", code)?;
        copy.is_left_out = left_out;
        Ok(())
    }
}

impl CopyParameters {
    /// The side that is on the host, if one is.
    fn host_side(&mut self) -> Option<&mut super::library::CopySide> {
        [&mut self.source, &mut self.target].into_iter().find(|side| side.memory == HOST)
    }
}

fn nodes_of(machine: &Machine, template: CUgraph) -> Result<Vec<CUgraphNode>, DeviceError> {
    let (api, mut count) = (machine.api(), count_nodes(machine, template)?);
    let mut nodes = vec![null_mut(); count];
    // SAFETY: (1) The graph lives. (2) The list has room for `count` nodes, and the call is told so.
    let code = unsafe { (api.cuGraphGetNodes)(template, nodes.as_mut_ptr(), &raw mut count) };
    machine.check("cuGraphGetNodes", code)?;
    nodes.truncate(count);
    Ok(nodes)
}

fn kind_of(machine: &Machine, node: CUgraphNode) -> Result<u32, DeviceError> {
    let (api, mut kind) = (machine.api(), 0_u32);
    // SAFETY: (1) The node lives, with its graph. (2) The pointer is valid for the one write.
    let code = unsafe { (api.cuGraphNodeGetType)(node, &raw mut kind) };
    machine.check("cuGraphNodeGetType", code)?;
    Ok(kind)
}

fn event_of(
    machine: &Machine,
    node: CUgraphNode,
) -> Result<cudarc::driver::sys::CUevent, DeviceError> {
    let (api, mut event) = (machine.api(), null_mut());
    // SAFETY: (1) The node lives and records an event. (2) The pointer is valid for the one write.
    let code = unsafe { (api.cuGraphEventRecordNodeGetEvent)(node, &raw mut event) };
    machine.check("cuGraphEventRecordNodeGetEvent", code)?;
    Ok(event)
}

/// The copy at `node`, if one of its sides is on the host.
fn host_copy(machine: &Machine, node: CUgraphNode) -> Result<Option<HostCopy>, DeviceError> {
    let (api, mut parameters) = (machine.api(), CopyParameters::default());
    // SAFETY: (1) The node lives and is a copy. (2) The pointer is valid for the one write.
    let code = unsafe { (api.cuGraphMemcpyNodeGetParams)(node, &raw mut parameters) };
    machine.check("cuGraphMemcpyNodeGetParams", code)?;
    let captured = parameters.host_side().map(|side| side.host.addr());
    Ok(captured.map(|captured| HostCopy { node, parameters, captured, is_left_out: false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_the_drivers_layout() {
        let theirs = size_of::<cudarc::driver::sys::CUDA_MEMCPY3D>();
        assert_eq!(size_of::<CopyParameters>(), theirs);
        let theirs = std::mem::offset_of!(cudarc::driver::sys::CUDA_MEMCPY3D, dstHost);
        let target = std::mem::offset_of!(CopyParameters, target);
        assert_eq!(target + std::mem::offset_of!(super::super::library::CopySide, host), theirs);
        let theirs = std::mem::offset_of!(cudarc::driver::sys::CUDA_MEMCPY3D, WidthInBytes);
        assert_eq!(std::mem::offset_of!(CopyParameters, extent), theirs);
    }

    #[test]
    fn the_side_on_the_host_is_found_on_either_end() {
        let mut copy = CopyParameters::default();
        assert!(copy.host_side().is_none());
        copy.target.memory = HOST;
        copy.target.x = 3;
        assert_eq!(copy.host_side().map(|side| side.x), Some(3));
        copy.source.memory = HOST;
        copy.source.x = 4;
        assert_eq!(copy.host_side().map(|side| side.x), Some(4));
    }
}

//! Captured work that is launched as one: the driver's graphs.
//!
//! # Invariants
//! 1. A graph is launched by one thread at a time, under its lock: the driver's graph objects are
//!    not safe to use from several.
//! 2. Destroying a graph that still runs is safe: the driver frees it when it has run.

use std::fmt;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::{CUgraph, CUgraphExec, CUstream};

use super::context::Machine;
use super::error::GRAPH_EXEC_UPDATE_FAILURE;
use super::frame::{Frame, FrameEvents, Marked};
use super::library::GraphUpdateInfo;
use super::partition::Partition;
use crate::error::DeviceError;

/// How a graph came to run what a newer capture holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphUpdate {
    /// Its parameters were replaced: addresses and sizes, where its shape is the same.
    InPlace,
    /// Its shape differs, so it was instantiated anew; what still runs of the old one finishes.
    Reinstantiated,
}

/// Captured work, ready to be launched again and again.
///
/// It holds the addresses that its work was captured with; who captured the work keeps the memory
/// behind them for as long as the graph is launched (see [`crate::interop`], point 6).
pub struct CudaGraph {
    machine: Arc<Machine>,
    parts: Mutex<Parts>,
    /// Declared last: the graph goes before the partition it was captured in.
    partition: Option<Arc<Partition>>,
}

/// The two halves of a graph.
struct Parts {
    template: CUgraph,
    executable: CUgraphExec,
    nodes: usize,
    /// Where it was captured as a stage.
    frame: Option<Frame>,
}

// SAFETY: (1) The handles are the driver's to dereference. (2) They may be used by any thread, one
// at a time: they are behind the lock of their `CudaGraph`.
unsafe impl Send for Parts {}

impl CudaGraph {
    /// Takes over `template`, instantiates it, and brings it to the device by way of `stream`.
    ///
    /// With `framed`, it was captured between recordings of these events.
    ///
    /// # Safety
    /// 1. `template` is a graph of this machine that nobody else destroys.
    /// 2. `stream` is a live stream of it that is not being captured.
    pub(crate) unsafe fn new(
        machine: &Arc<Machine>,
        partition: Option<&Arc<Partition>>,
        template: CUgraph,
        stream: CUstream,
        framed: Option<&FrameEvents>,
    ) -> Result<Self, DeviceError> {
        let parts = Parts { template, executable: null_mut(), nodes: 0, frame: None };
        let parts = Mutex::new(parts);
        // From here on the drop destroys both halves.
        let graph = Self { machine: Arc::clone(machine), parts, partition: partition.cloned() };
        let api = machine.api();
        let mut parts = graph.parts();
        parts.nodes = count_nodes(machine, template)?;
        if let Some(events) = framed {
            let context = partition.map_or(machine.primary(), |partition| partition.context());
            // SAFETY: (1) The template lives beside the frame, in the same parts.
            parts.frame = Some(unsafe { Frame::find(machine, template, events, context) }?);
        }
        // SAFETY: (1) The template lives. (2) The pointer is valid for the one write.
        let code =
            unsafe { (api.cuGraphInstantiateWithFlags)(&raw mut parts.executable, template, 0) };
        machine.check("cuGraphInstantiateWithFlags", code)?;
        // SAFETY: (1) Both live: (2) of the contract, and the instantiation just succeeded.
        let code = unsafe { (api.cuGraphUpload)(parts.executable, stream) };
        machine.check("cuGraphUpload", code)?;
        drop(parts);
        Ok(graph)
    }

    /// How many nodes (kernels, copies, fills) it has.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.parts().nodes
    }

    /// Makes this graph run what `newer` holds: in place where only parameters differ (the memory
    /// moved), else, and for the graph of a stage, by instantiating anew. Set-up, not for the hot
    /// path; what was launched before finishes as it was.
    ///
    /// # Errors
    /// The graph is as before.
    /// - [`DeviceError::ForeignGraph`] (permanent): `newer` was captured on another device or in
    ///   another partition, whose context this graph does not keep.
    /// - [`DeviceError::Cuda`].
    pub fn update(&self, newer: CudaGraph) -> Result<GraphUpdate, DeviceError> {
        let place = |graph: &Self| graph.partition.as_ref().map(Arc::as_ptr);
        if !newer.is_of(&self.machine) || place(&newer) != place(self) {
            return Err(DeviceError::ForeignGraph);
        }
        self.machine.bind()?;
        let (mut own, mut other) = (self.parts(), newer.parts());
        // The nodes of a frame belong to the template its executable was made of.
        let framed = own.frame.is_some() || other.frame.is_some();
        if !framed && self.update_in_place(own.executable, other.template)? {
            std::mem::swap(&mut own.template, &mut other.template);
            std::mem::swap(&mut own.nodes, &mut other.nodes);
            return Ok(GraphUpdate::InPlace);
        }
        // The old halves go with `newer`, whose drop destroys them.
        std::mem::swap(&mut *own, &mut *other);
        Ok(GraphUpdate::Reinstantiated)
    }

    /// Tries to give `executable` the parameters of `template`; `false` when their shapes differ.
    fn update_in_place(
        &self,
        executable: CUgraphExec,
        template: CUgraph,
    ) -> Result<bool, DeviceError> {
        let Some(call) = self.machine.api().cuGraphExecUpdate_v2 else {
            return Ok(false); // Before CUDA 12 there is only the longer way.
        };
        let mut info =
            GraphUpdateInfo { result: 0, error_node: null_mut(), error_from_node: null_mut() };
        // SAFETY: (1) Both handles live, under the locks of their graphs. (2) The pointer is valid
        // for the writes of the call.
        match unsafe { call(executable, template, &raw mut info) } {
            GRAPH_EXEC_UPDATE_FAILURE => Ok(false),
            code => self.machine.check("cuGraphExecUpdate", code).map(|()| true),
        }
    }

    /// Enqueues the graph on `stream`; one that was captured as a stage records `events`, or events
    /// of its own that nobody asks for.
    ///
    /// # Safety
    /// `stream` is a live stream of this machine.
    pub(crate) unsafe fn launch(
        &self,
        stream: CUstream,
        events: Option<&FrameEvents>,
    ) -> Result<(), DeviceError> {
        let mut parts = self.parts();
        let executable = parts.executable;
        if let Some(frame) = &mut parts.frame {
            frame.aim_events(&self.machine, executable, events)?;
        }
        let api = self.machine.api();
        // SAFETY: (1) The executable lives as long as `self`, and the lock keeps others away. (2)
        // The stream lives, says the caller.
        let code = unsafe { (api.cuGraphLaunch)(executable, stream) };
        self.machine.check("cuGraphLaunch", code)
    }

    /// Whether it was captured as a stage.
    pub(crate) fn is_framed(&self) -> bool {
        self.parts().frame.is_some()
    }

    /// Where the stage it was captured as has its copies marked; nowhere for another graph.
    pub(crate) fn marked(&self) -> Marked {
        self.parts().frame.as_ref().map_or(Marked::default(), Frame::marked)
    }

    /// Makes the copy that was captured with the host address `captured` use `host` from now on.
    ///
    /// # Safety
    /// As [`Frame::aim_copy`].
    pub(crate) unsafe fn aim_copy(
        &self,
        captured: usize,
        host: *mut std::ffi::c_void,
    ) -> Result<(), DeviceError> {
        let mut parts = self.parts();
        let executable = parts.executable;
        let frame = parts.frame.as_mut().ok_or(DeviceError::Unframed)?;
        self.machine.bind()?;
        // SAFETY: (1) The executable lives, under the lock. (2) The rest is the caller's promise.
        unsafe { frame.aim_copy(&self.machine, executable, captured, host) }
    }

    /// Makes later launches pass over the copy that was captured with the host address `captured`, or
    /// not.
    pub(crate) fn leave_out(&self, captured: usize, left_out: bool) -> Result<(), DeviceError> {
        let mut parts = self.parts();
        let executable = parts.executable;
        let frame = parts.frame.as_mut().ok_or(DeviceError::Unframed)?;
        self.machine.bind()?;
        frame.leave_out(&self.machine, executable, captured, left_out)
    }

    /// Whether it was captured on this GPU.
    pub(crate) fn is_of(&self, machine: &Arc<Machine>) -> bool {
        Arc::ptr_eq(&self.machine, machine)
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        // No panic of ours leaves the handles half way.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many nodes `template`, which lives, has.
pub(super) fn count_nodes(machine: &Machine, template: CUgraph) -> Result<usize, DeviceError> {
    let (api, mut nodes) = (machine.api(), 0_usize);
    // SAFETY: (1) The graph lives. (2) Without a list the call writes the count alone.
    let code = unsafe { (api.cuGraphGetNodes)(template, null_mut(), &raw mut nodes) };
    machine.check("cuGraphGetNodes", code)?;
    Ok(nodes)
}

impl fmt::Debug for CudaGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaGraph")
            .field("nodes", &self.nodes())
            .field("partition", &self.partition.as_ref().map(|partition| partition.sms()))
            .finish_non_exhaustive()
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        let machine = Arc::clone(&self.machine);
        let parts = self.parts();
        let (api, bound) = (machine.api(), machine.bind());
        if bound.is_ok() && !parts.executable.is_null() {
            // SAFETY: (1) Made by `new` and destroyed by nothing else; invariant 2.
            let code = unsafe { (api.cuGraphExecDestroy)(parts.executable) };
            machine.defer(machine.check("cuGraphExecDestroy", code));
        }
        if bound.is_ok() && !parts.template.is_null() {
            // SAFETY: (1) Given to `new` for good and destroyed by nothing else.
            let code = unsafe { (api.cuGraphDestroy)(parts.template) };
            machine.defer(machine.check("cuGraphDestroy", code));
        }
        machine.defer(bound);
    }
}

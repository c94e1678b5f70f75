//! The copies of a job's inputs to the model.
//!
//! The one place where they are enqueued. In a captured stage they are nodes of its graph: captured from
//! staging buffers of the model's own, which hold the example that it is prepared with, and aimed at the
//! buffers of a job's slot when the graph is launched. In a plain stage they come from the slot. Where
//! they go ahead of a captured stage they come from the slot too, on a stream of their own, and the graph
//! leaves its own out.
//!
//! # Invariants
//! 1. All copies come first, and then the mark that they are done, where there are any.
//! 2. A staging buffer lives as long as the graph that was captured with it: `Prepared` drops its
//!    graphs before this.

use std::sync::Arc;

use aegis_context::chain::{Chain, Direction, SlotCopy};
use aegis_context::sample;
use aegis_context::slot::JobSlot;
use aegis_cuda::{
    CopyMark, CudaGraph, CudaStream, DeviceContext, DeviceError, HostBuffer, interop,
};

use crate::memory::Memory;
use crate::transfer;

/// The inputs of a model: where they go, and the example in a slot's place.
#[derive(Debug)]
pub(crate) struct Uploads {
    copies: Vec<SlotCopy>,
    /// In the order of the copies.
    staged: Vec<HostBuffer>,
}

impl Uploads {
    /// Staging buffers for all inputs of `chain`, full of the example.
    pub(crate) fn new(chain: &Chain, device: &DeviceContext) -> Result<Self, DeviceError> {
        let copies = chain.copies(Direction::In);
        let example = |copy: &SlotCopy| -> Result<HostBuffer, DeviceError> {
            let bytes = sample::bytes(&chain.tensors[copy.tensor].spec);
            let mut buffer = device.host_buffer(bytes.len())?;
            buffer.copy_from_slice(&bytes);
            Ok(buffer)
        };
        let staged = copies.iter().map(example).collect::<Result<_, _>>()?;
        Ok(Self { copies, staged })
    }

    /// Writes the example to `memory`. Blocks until it is there.
    pub(crate) fn write_example(&self, memory: &mut Memory) -> Result<(), DeviceError> {
        let mut all = self.copies.iter().zip(&self.staged);
        all.try_for_each(|(copy, staged)| memory.own(copy.tensor).write(0, staged))
    }

    /// Captures the copies, from the staging buffers.
    pub(crate) fn capture(
        &self,
        stream: &CudaStream,
        memory: &mut Memory,
    ) -> Result<(), DeviceError> {
        for (copy, staged) in self.copies.iter().zip(&self.staged) {
            transfer::copy_in(stream, staged, memory.own(copy.tensor))?;
        }
        self.mark_done(stream)
    }

    /// Makes the copies of `graph`, which [`Uploads::capture`] put there, those of the job in `slot`.
    pub(crate) fn aim(&self, graph: &CudaGraph, slot: &Arc<JobSlot>) -> Result<(), DeviceError> {
        let mut all = self.copies.iter().zip(&self.staged);
        all.try_for_each(|(copy, staged)| transfer::aim_input(graph, staged, slot, copy.slot))
    }

    /// Whether there are inputs, and all go to memory that is the model's alone.
    pub(crate) fn can_go_ahead(&self, memory: &Memory) -> bool {
        !self.copies.is_empty() && self.copies.iter().all(|copy| memory.is_own(copy.tensor))
    }

    /// Makes launches of `graph` leave its copies out from now on, or not.
    pub(crate) fn leave_out(&self, graph: &CudaGraph, left_out: bool) -> Result<(), DeviceError> {
        let mut all = self.staged.iter();
        all.try_for_each(|staged| interop::leave_out_copy(graph, staged, left_out))
    }

    /// Enqueues the copies of the job in `slot`; the mark behind them counts within a stage alone.
    pub(crate) fn enqueue(
        &self,
        stream: &CudaStream,
        memory: &mut Memory,
        slot: &Arc<JobSlot>,
    ) -> Result<(), DeviceError> {
        {
            let io = slot.io();
            for copy in &self.copies {
                transfer::copy_in(stream, &io.inputs()[copy.slot], memory.own(copy.tensor))?;
            }
        }
        self.mark_done(stream)
    }

    fn mark_done(&self, stream: &CudaStream) -> Result<(), DeviceError> {
        if self.copies.is_empty() { Ok(()) } else { stream.mark(CopyMark::Uploaded) }
    }
}

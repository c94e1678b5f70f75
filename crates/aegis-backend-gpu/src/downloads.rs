//! The copies of the model's outputs to a job.
//!
//! As `uploads`, the other way: the one place where they are enqueued, with staging buffers in a slot's
//! place. What the model itself holds is read here too, to be compared.
//!
//! # Invariants
//! 1. The mark that they begin comes first, where there are any, and then all copies.
//! 2. As of `uploads`.

use std::sync::Arc;

use aegis_context::TensorSpec;
use aegis_context::agreement::Outputs;
use aegis_context::chain::{Chain, Direction, SlotCopy};
use aegis_context::slot::JobSlot;
use aegis_cuda::{CopyMark, CudaGraph, CudaStream, DeviceContext, DeviceError, HostBuffer};

use crate::memory::Memory;
use crate::transfer;

/// The outputs of a model: what they are, where they come from, and buffers in a slot's place.
#[derive(Debug)]
pub(crate) struct Downloads {
    copies: Vec<SlotCopy>,
    /// All in the order of the copies.
    specs: Vec<TensorSpec>,
    staged: Vec<HostBuffer>,
}

impl Downloads {
    /// Staging buffers for all outputs of `chain`.
    pub(crate) fn new(chain: &Chain, device: &DeviceContext) -> Result<Self, DeviceError> {
        let copies = chain.copies(Direction::Out);
        let spec = |copy: &SlotCopy| chain.tensors[copy.tensor].spec.clone();
        let specs: Vec<_> = copies.iter().map(spec).collect();
        let staged = specs.iter().map(|spec| device.host_buffer(spec.bytes()));
        let staged = staged.collect::<Result<_, _>>()?;
        Ok(Self { copies, specs, staged })
    }

    /// What the outputs are.
    pub(crate) fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// Fills the outputs in `memory` with `byte`. Blocks until that is done.
    pub(crate) fn fill(&self, memory: &mut Memory, byte: u8) -> Result<(), DeviceError> {
        self.copies.iter().try_for_each(|copy| memory.own(copy.tensor).fill(byte))
    }

    /// The outputs that `memory` holds. Blocks until they are read.
    pub(crate) fn read(&self, memory: &mut Memory) -> Result<Outputs, DeviceError> {
        let read = |(copy, spec): (&SlotCopy, &TensorSpec)| {
            let mut bytes = vec![0; spec.bytes()];
            memory.own(copy.tensor).read(0, &mut bytes)?;
            Ok(bytes)
        };
        self.copies.iter().zip(&self.specs).map(read).collect()
    }

    /// Captures the copies, to the staging buffers.
    pub(crate) fn capture(
        &self,
        stream: &CudaStream,
        memory: &mut Memory,
    ) -> Result<(), DeviceError> {
        self.mark_begun(stream)?;
        let mut all = self.copies.iter().zip(&self.staged);
        all.try_for_each(|(copy, staged)| {
            transfer::copy_out(stream, memory.own(copy.tensor), staged)
        })
    }

    /// Makes the copies of `graph`, which [`Downloads::capture`] put there, those of the job in `slot`.
    pub(crate) fn aim(&self, graph: &CudaGraph, slot: &Arc<JobSlot>) -> Result<(), DeviceError> {
        let mut all = self.copies.iter().zip(&self.staged);
        all.try_for_each(|(copy, staged)| transfer::aim_output(graph, staged, slot, copy.slot))
    }

    /// Enqueues the copies to the job in `slot`.
    pub(crate) fn enqueue(
        &self,
        stream: &CudaStream,
        memory: &mut Memory,
        slot: &Arc<JobSlot>,
    ) -> Result<(), DeviceError> {
        self.mark_begun(stream)?;
        let mut io = slot.io();
        self.copies.iter().try_for_each(|copy| {
            transfer::give_output(stream, memory.own(copy.tensor), &mut io, copy.slot)
        })
    }

    fn mark_begun(&self, stream: &CudaStream) -> Result<(), DeviceError> {
        if self.copies.is_empty() { Ok(()) } else { stream.mark(CopyMark::Downloading) }
    }
}

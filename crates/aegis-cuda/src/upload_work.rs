//! What the streams do while a device is asked how it orders uploads (`uploads_probe`).
//!
//! # Invariants
//! 1. A graph is dropped before the memory that it names.
#![allow(unsafe_code)] // A window on `CudaLane`; docs/soundness.md argues them.

use aegis_trace::{Bytes, Nanos};

use crate::cuda::CudaGraph;
use crate::device::DeviceContext;
use crate::error::DeviceError;
use crate::gate::Gate;
use crate::host_buffer::HostBuffer;
use crate::memory::DeviceBuffer;
use crate::sim::SimWork;
use crate::stage::CopyMark;
use crate::stream::CudaStream;

/// What one copy moves.
const COPY: usize = 512 << 10;
/// Copies that are the uploads of a stage: a tenth of a millisecond on the quickest bus.
const COPIES: usize = 16;
/// How long a stage takes in virtual time.
pub(crate) const STAGE: Nanos = Nanos::from_micros(100);
/// How long its streams take to see that a gate is open.
pub(crate) const REACTION: Nanos = Nanos::from_micros(200);
/// How long that of the uploads takes: longer than the next stage would until its mark.
pub(crate) const SLOW_REACTION: Nanos = Nanos::from_micros(600);

/// What the streams do.
pub(crate) enum Work {
    /// Time that is moved by hand.
    Virtual(Virtual),
    /// Copies from the host: no kernel of ours has to be there.
    Copies(Box<Copies>),
}

/// How long virtual work takes.
#[derive(Clone, Copy)]
pub(crate) struct Virtual {
    pub(crate) stage: Nanos,
    /// From where a gate is opened until what is [held](Held) goes on; `None` where it never held.
    pub(crate) reactions: [Option<Nanos>; 3],
}

impl Virtual {
    /// A device that does as it is told, and before long.
    pub(crate) const PROMPT: Self =
        Self { stage: STAGE, reactions: [Some(REACTION), Some(SLOW_REACTION), Some(REACTION)] };
}

/// A graph of copies, with the memory that it names. Fields are dropped in their order: the graph first.
pub(crate) struct Copies {
    stage: CudaGraph,
    _source: HostBuffer,
    _target: DeviceBuffer,
}

impl Copies {
    pub(crate) fn captured(
        device: &DeviceContext,
        stream: &CudaStream,
    ) -> Result<Self, DeviceError> {
        let target = device.reserve_arena(Bytes(COPY as u64))?.buffer(0..COPY as u64)?;
        let source = device.host_buffer(COPY)?;
        let lane = stream.on_gpu()?;
        let copy = || {
            // SAFETY: (1) Both sides have `COPY` bytes, and live as long as the graph that names them.
            // (2) Nobody else has either.
            unsafe { lane.copy_in(source.first(), &target, COPY) }
        };
        let stage = stream.capture_stage(|stream| {
            (0..COPIES).try_for_each(|_| copy())?;
            stream.mark(CopyMark::Uploaded)
        })?;
        Ok(Self { stage, _source: source, _target: target })
    }
}

/// What is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Stage,
    Upload,
    NextStage,
}

impl Work {
    /// Has `gate` hold back what is enqueued on `stream` from now on.
    pub(crate) fn hold(
        &self,
        held: Held,
        gate: &Gate,
        stream: &CudaStream,
    ) -> Result<(), DeviceError> {
        match self {
            Self::Copies(_) => gate.close(stream),
            Self::Virtual(work) => work.reactions[held as usize].map_or(Ok(()), |reaction| {
                gate.close(stream)?;
                stream.enqueue_sim(costing(reaction))
            }),
        }
    }

    /// Enqueues what makes a stage, where one is begun: its uploads, and their mark.
    pub(crate) fn stage(&self, stream: &CudaStream) -> Result<(), DeviceError> {
        match self {
            Self::Virtual(work) => {
                stream.enqueue_sim(costing(work.stage))?;
                stream.mark(CopyMark::Uploaded)
            }
            Self::Copies(copies) => stream.enqueue_graph(&copies.stage),
        }
    }
}

fn costing(cost: Nanos) -> SimWork {
    SimWork { cost, fault: None }
}

//! The tensors of a model: how they are numbered, and how they lie in memory.

use aegis_context::BackendError;
use aegis_context::chain::{Chain, Room, StageFace};
use aegis_context::named;
use aegis_trace::{Bytes, TensorId};

use crate::ffi::Place;
use crate::scratch::OVERREAD;
use crate::session::{self, LoadedStage};

/// The alignment of every planned tensor: what GPU runtimes expect, so plans carry over.
pub(crate) const ALIGNMENT: u64 = 256;
/// What every tensor with a name gets.
pub(crate) const ROOM: Room = Room { alignment: ALIGNMENT, padding: Bytes(OVERREAD) };

/// The tensor that stands for what the model keeps in the heap.
pub(crate) const PERSISTENT: TensorId = TensorId::first(0);
/// The tensor that stands for what its runs allocate.
pub(crate) const SCRATCH: TensorId = TensorId::first(1);
/// The number of the first tensor with a name.
pub(crate) const FIRST_NAMED: u16 = 2;

/// The chain that loaded stages form.
pub(crate) fn chain_of(stages: &[LoadedStage]) -> Result<Chain, BackendError> {
    let faces: Vec<StageFace<'_>> = stages
        .iter()
        .map(|stage| StageFace { inputs: &stage.inputs, outputs: &stage.outputs })
        .collect();
    Chain::link(&faces)
}

/// The place of tensor `index` of `chain`, in `memory`.
pub(crate) fn place_of<'a>(
    chain: &'a Chain,
    index: usize,
    memory: named::Place<'a>,
) -> Result<Place<'a>, BackendError> {
    let spec = &chain.tensors[index].spec;
    let dtype = session::element_of(spec.dtype)
        .ok_or_else(|| BackendError::runtime(format!("`{}` has no ONNX type", spec.name)))?;
    Ok(Place { spec, dtype, memory })
}

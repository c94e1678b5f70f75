//! The tensors of a model: how they are numbered, and how they are cut.

use aegis_context::chain::Room;
use aegis_trace::{Bytes, TensorId};

/// The alignment of every planned tensor.
pub(crate) const ALIGNMENT: u64 = 256;
/// How the tensors with names are cut: TVM's kernels read nothing beyond a tensor's end.
pub(crate) const ROOM: Room = Room { alignment: ALIGNMENT, padding: Bytes::ZERO };

/// The weights of all stages.
pub(crate) const WEIGHTS: TensorId = TensorId::first(0);
/// What runs allocate.
pub(crate) const SCRATCH: TensorId = TensorId::first(1);
/// What stands for what TVM keeps in the heap; on the processor alone.
pub(crate) const HEAP: TensorId = TensorId::first(2);
/// The number of the first tensor with a name.
pub(crate) const FIRST_NAMED: u16 = 3;

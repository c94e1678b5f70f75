//! The tensors of a model: how they are numbered, and how they are cut.

use aegis_context::chain::Room;
use aegis_trace::{Bytes, TensorId};

/// The alignment of every planned tensor: what CUDA asks of memory that textures are made of, which is
/// what the library asks of its scratch.
pub(crate) const ALIGNMENT: u64 = 512;
/// How tensors with a name are cut: the library reads nothing beyond their end.
pub(crate) const ROOM: Room = Room { alignment: ALIGNMENT, padding: Bytes::ZERO };

/// The tensor that stands for what the engines keep.
pub(crate) const PERSISTENT: TensorId = TensorId::first(0);
/// The tensor that stands for the scratch of their runs.
pub(crate) const SCRATCH: TensorId = TensorId::first(1);
/// The number of the first tensor with a name.
pub(crate) const FIRST_NAMED: u16 = 2;

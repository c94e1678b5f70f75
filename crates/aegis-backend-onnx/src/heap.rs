//! The process heap, measured around loading a model.
//!
//! On the CPU, ONNX Runtime keeps weights, packed copies of them and its graph in the C heap. The
//! increase of the heap from before to after loading is what the model keeps. Other threads that
//! allocate meanwhile blur the figure; loading happens before the run, on one thread.

use aegis_trace::Bytes;

use crate::ffi;

/// Bytes in use in the C heap of this process, large mappings included.
#[must_use]
pub fn in_use() -> Bytes {
    ffi::heap_in_use()
}

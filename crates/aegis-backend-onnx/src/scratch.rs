//! The scratch of one model: what its runtime may allocate while a stage runs.
//!
//! ONNX Runtime asks a registered allocator for every intermediate tensor of a run (mostly one
//! block for all of them, once it has seen a first run). [`Scratch`] serves those requests from a
//! fixed range of addresses, lowest fit first, so the same run asks for the same addresses in
//! every range that is large enough. That is why a requirement measured once in a large range
//! holds in one of exactly that size.
//!
//! # What happens at the limit
//! The runtime's C++ code ends the process when its allocator returns null for a tensor, so a
//! request beyond the limit is recorded as refused, the run is told to stop at its next operator,
//! and the request is served from the process heap to let it get there. The shared range itself is
//! never exceeded, and the model is fenced. The heap must have room for that one operator: where it
//! has none, the process ends, and no allocator behind this interface can prevent it.

use std::sync::atomic::{AtomicU64, Ordering};

use aegis_cuda::RefusedAllocation;
use aegis_memory::FirstFit;
use aegis_trace::Bytes;

/// The alignment of every block: one cache line, what ONNX Runtime's kernels expect.
pub const ALIGNMENT: u64 = 64;

/// What some kernels read, and do not use, beyond the end of a tensor; every block has so much more
/// than was asked for. ONNX Runtime demands 30 bytes of an allocator on 64-bit ARM
/// (`MLAS_SYMM_QGEMM_BUF_OVERRUN`), none elsewhere.
pub(crate) const OVERREAD: u64 = if cfg!(target_arch = "aarch64") { 32 } else { 0 };

/// Blocks that a range has room to note without allocating itself. A run holds one block for all
/// tensors it has planned, and one for each of the few that it has not.
const BLOCKS_EXPECTED: usize = 256;

/// Requests that the process heap served while a run was under way.
static SPILLED: AtomicU64 = AtomicU64::new(0);

/// How many requests the process heap served, in this process so far, while some run was under way:
/// those that did not fit their range, and those of threads that were not running a stage (loading
/// a model counts if another one runs meanwhile). For tests and diagnosis.
#[must_use]
pub fn spilled() -> u64 {
    SPILLED.load(Ordering::Relaxed)
}

/// Counts a request that the heap served.
pub(crate) fn note_spill() {
    SPILLED.fetch_add(1, Ordering::Relaxed);
}

/// Offsets within one range of scratch memory.
#[derive(Debug)]
pub struct Scratch {
    capacity: u64,
    alignment: u64,
    blocks: FirstFit,
    refused: Option<RefusedAllocation>,
}

impl Scratch {
    /// An empty range of `capacity` bytes.
    #[must_use]
    pub fn new(capacity: Bytes) -> Self {
        Self::aligned(capacity, ALIGNMENT)
    }

    /// An empty range of `capacity` bytes whose blocks begin at multiples of `alignment`.
    ///
    /// # Panics
    /// When `alignment` is not a power of two, at the first block.
    #[must_use]
    pub fn aligned(capacity: Bytes, alignment: u64) -> Self {
        let blocks = FirstFit::with_room(capacity.0, BLOCKS_EXPECTED);
        Self { capacity: capacity.0, alignment, blocks, refused: None }
    }

    /// The offset of a new block, or `None`, and the first refusal of a run is kept.
    pub fn alloc(&mut self, size: u64) -> Option<u64> {
        let offset = self.blocks.alloc(size.saturating_add(OVERREAD), self.alignment);
        if offset.is_none() && self.refused.is_none() {
            let available = self.capacity - self.blocks.in_use();
            self.refused =
                Some(RefusedAllocation { requested: Bytes(size), available: Bytes(available) });
        }
        offset
    }

    /// Gives a block back; `false` when there is none at `offset`.
    pub fn free(&mut self, offset: u64) -> bool {
        self.blocks.free(offset).is_ok()
    }

    /// Ends a run: what was refused in it, and whether the runtime kept any block. All blocks are
    /// free afterwards.
    pub fn end_run(&mut self) -> (Option<RefusedAllocation>, Bytes) {
        let kept = Bytes(self.blocks.in_use());
        if kept > Bytes::ZERO {
            self.blocks.reset();
        }
        (self.refused.take(), kept)
    }

    /// What was refused since it was last asked, where blocks stay: the first request.
    pub fn take_refused(&mut self) -> Option<RefusedAllocation> {
        self.refused.take()
    }

    /// The highest address ever used.
    #[must_use]
    pub fn high_water(&self) -> Bytes {
        Bytes(self.blocks.high_water())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_beyond_the_range_is_refused_with_numbers() {
        let mut scratch = Scratch::new(Bytes(256));
        assert_eq!(scratch.alloc(100), Some(0));
        assert_eq!(scratch.alloc(100), Some(128));
        assert_eq!(scratch.alloc(100), None);
        let refused = RefusedAllocation { requested: Bytes(100), available: Bytes(56) };
        assert_eq!(scratch.end_run(), (Some(refused), Bytes(200)));
        assert_eq!(scratch.end_run(), (None, Bytes(0)));
        assert_eq!(scratch.alloc(256), Some(0));
    }

    #[test]
    fn what_was_measured_in_a_large_range_fits_one_of_that_size() {
        let run = |scratch: &mut Scratch| {
            let a = scratch.alloc(1000).expect("fits");
            let b = scratch.alloc(500).expect("fits");
            assert!(scratch.free(a));
            let c = scratch.alloc(900).expect("fits");
            assert!(scratch.free(b) && scratch.free(c));
        };
        let mut large = Scratch::new(Bytes(1 << 40));
        run(&mut large);
        run(&mut Scratch::new(large.high_water()));
    }
}

//! The memory that engines keep on the device, handed out from one range.
//!
//! TensorRT asks its allocator for weights and persistent state while an engine is read and its
//! context made. What it gives back meanwhile is not handed out again: a block may still be read by
//! work that was enqueued on a stream of the library's own, and the order of that is not ours to know.
//! So a range serves requests one behind the other, and what an engine needs is their sum, which does
//! not depend on their order.
//!
//! # Invariants
//! 1. Blocks do not overlap and lie within the range.
//! 2. Once sealed, a range serves nothing more: at run time nothing allocates.

use std::sync::{Mutex, MutexGuard, PoisonError};

use aegis_cuda::RefusedAllocation;
use aegis_trace::Bytes;

/// What blocks begin at a multiple of: what CUDA's own allocator gives at least.
const ALIGNMENT: u64 = 256;

/// Device addresses from `start` on. Shared by the engines of a model.
#[derive(Debug)]
pub(crate) struct Persistent {
    start: u64,
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    length: u64,
    taken: u64,
    refused: Option<RefusedAllocation>,
}

impl Persistent {
    /// A range of `length` bytes; its owner keeps it.
    pub(crate) fn new(start: u64, length: Bytes) -> Self {
        let books = Books { length: length.0, taken: 0, refused: None };
        Self { start, books: Mutex::new(books) }
    }

    /// The address of a new block; `None` where it does not fit, and the first refusal is kept.
    pub(crate) fn request(&self, size: u64, alignment: u64) -> Option<u64> {
        let mut books = self.books();
        let found = books.end_of(self.start, size, alignment);
        match found {
            Some((begin, end)) => {
                books.taken = end;
                Some(self.start + begin)
            }
            None => {
                let available = Bytes(books.length - books.taken);
                books
                    .refused
                    .get_or_insert(RefusedAllocation { requested: Bytes(size), available });
                None
            }
        }
    }

    /// Whether `address` lies in what was handed out.
    pub(crate) fn holds(&self, address: u64) -> bool {
        address.checked_sub(self.start).is_some_and(|offset| offset < self.books().taken)
    }

    /// What was handed out, with what alignment cost.
    pub(crate) fn taken(&self) -> Bytes {
        Bytes(self.books().taken)
    }

    /// Makes the range end at `length` bytes; what was handed out stays.
    pub(crate) fn shorten(&self, length: Bytes) {
        let mut books = self.books();
        books.length = length.0.clamp(books.taken, books.length);
    }

    /// Serves nothing more.
    pub(crate) fn seal(&self) {
        let mut books = self.books();
        books.length = books.taken;
    }

    /// The first request that was refused since it was last asked.
    pub(crate) fn take_refused(&self) -> Option<RefusedAllocation> {
        self.books().refused.take()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Where a block would begin and end, from `start` on; `None` where it does not fit.
    fn end_of(&self, start: u64, size: u64, alignment: u64) -> Option<(u64, u64)> {
        let alignment = alignment.max(ALIGNMENT);
        let address = start.checked_add(self.taken)?.checked_next_multiple_of(alignment)?;
        let begin = address - start;
        // Whole units, so that the sum is the same in any order.
        let end = begin.checked_add(size.max(1).checked_next_multiple_of(ALIGNMENT)?)?;
        (end <= self.length).then_some((begin, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x7f00_0000_0000;

    #[test]
    fn blocks_follow_one_another_and_their_sum_is_what_is_needed() {
        let range = Persistent::new(START, Bytes(4096));
        assert_eq!(range.request(1, 256), Some(START));
        assert_eq!(range.request(300, 0), Some(START + 256));
        assert_eq!(range.request(8, 1024), Some(START + 1024));
        assert_eq!(range.taken(), Bytes(1280));
        assert!(range.holds(START + 1279) && !range.holds(START + 1280) && !range.holds(START - 1));
        let same = Persistent::new(START, range.taken());
        assert!([1, 300].into_iter().all(|size| same.request(size, 256).is_some()));
    }

    #[test]
    fn a_request_beyond_the_range_is_refused_with_numbers_and_the_first_is_kept() {
        let range = Persistent::new(START, Bytes(512));
        assert_eq!(range.request(256, 256), Some(START));
        assert_eq!((range.request(257, 256), range.request(u64::MAX, 1)), (None, None));
        let refused = RefusedAllocation { requested: Bytes(257), available: Bytes(256) };
        assert_eq!((range.take_refused(), range.take_refused()), (Some(refused), None));
        assert_eq!(range.request(256, 256), Some(START + 256), "what fits still does");
    }

    #[test]
    fn a_sealed_range_serves_nothing_more() {
        let range = Persistent::new(START, Bytes(4096));
        assert!(range.request(100, 256).is_some());
        range.shorten(Bytes(512));
        assert_eq!(range.request(512, 256), None);
        range.seal();
        assert_eq!(range.request(1, 1), None);
        assert_eq!(range.taken(), Bytes(256));
        assert_eq!(Persistent::new(u64::MAX - 10, Bytes(4096)).request(1, 256), None);
    }
}

//! Ranges of device memory that serve what ONNX Runtime allocates on a GPU.
//!
//! As on the host, a range serves the requests of the thread that loads a session or runs one
//! ([`super::range`]), but its addresses are numbers here: the processor touches nothing behind
//! them. Weights are served while a session is made and stay until it is dropped; scratch is served
//! while a run is enqueued and is free again when the call returns.
//!
//! # Who may use the addresses when
//! A call that enqueues a run returns before the run has happened. So that the addresses serve one
//! run at a time is what the memory plan and the schedule promise together (`aegis_cuda::interop`,
//! point 4); of a captured graph no request is ever made again.
//!
//! # What happens at the limit
//! ONNX Runtime looks at the address it gets for a workspace, and makes a null an error with the size
//! that was asked for; but the address of a tensor it hands to kernels without a look (on the host that
//! ends the process, seen with 1.31.1), and a kernel that writes to address zero ends the context of
//! the whole process. So a request that does not fit is recorded as refused, with its numbers, and the
//! run is told to stop at its next operator. Until it gets there:
//!
//! - One that the range would hold if it were empty gets the beginning of the range: the numbers are
//!   worthless then, and the memory is the model's own.
//! - One that exceeds the whole range gets a null, and from there on what the run enqueues is thrown
//!   away ([`Binding::enqueue`](super::run::Binding::enqueue)): no kernel meets the null. While a
//!   session is made no kernel runs, and the driver refuses to copy to a null.
//!
//! # Invariants
//! 1. `SERVICE` of a thread points to a service on that thread's own stack, or is null.
//! 2. An address that was served lies in a range that its owner keeps until the session is gone.

use std::cell::{Cell, RefCell};
use std::ptr;

use aegis_context::Served;
use aegis_cuda::RefusedAllocation;
use aegis_trace::Bytes;

use crate::scratch::Scratch;

/// The alignment of every block: what CUDA's own allocator gives.
const ALIGNMENT: u64 = 256;

/// Device addresses with the bookkeeping of their blocks.
#[derive(Debug)]
pub(crate) struct DeviceRange {
    start: usize,
    length: usize,
    blocks: Scratch,
}

/// By how much a request does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// More than is free: it is served with memory of the model that is in use.
    Free,
    /// More than the whole range: it gets no address.
    Range,
}

/// What a load left in its range.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    /// What the load returned.
    pub(crate) result: T,
    /// The first request that did not fit.
    pub(crate) refused: Option<RefusedAllocation>,
}

impl DeviceRange {
    /// `length` bytes from the device address `start` on. The caller keeps what they belong to.
    pub(crate) fn new(start: usize, length: usize) -> Self {
        let blocks = Scratch::aligned(Bytes(length as u64), ALIGNMENT);
        Self { start, length, blocks }
    }

    /// The furthest end any block has ever had.
    pub(crate) fn high_water(&self) -> Bytes {
        self.blocks.high_water()
    }

    /// Runs `foreign` with this thread's requests served from here; blocks that it leaves stay.
    pub(crate) fn keep<T>(&mut self, foreign: impl FnOnce() -> T) -> Kept<T> {
        let result = self.install(&|_| (), foreign);
        Kept { result, refused: self.blocks.take_refused() }
    }

    /// Runs `foreign` with this thread's requests served from here; `stop` is called for each that
    /// does not fit. All blocks are free afterwards.
    pub(super) fn serve<T>(
        &mut self,
        stop: &dyn Fn(Beyond),
        foreign: impl FnOnce() -> T,
    ) -> Served<T> {
        let result = self.install(stop, foreign);
        let (refused, kept) = self.blocks.end_run();
        Served { result, refused, kept }
    }

    fn install<T>(&mut self, stop: &dyn Fn(Beyond), foreign: impl FnOnce() -> T) -> T {
        let Self { start, length, blocks } = self;
        let service =
            Service { start: *start, length: *length, blocks: RefCell::new(blocks), stop };
        let _installed = Installed { before: SERVICE.replace(ptr::from_ref(&service).cast()) };
        foreign()
    }
}

/// A range while it serves, on the stack of the thread that loads or runs.
struct Service<'run> {
    start: usize,
    length: usize,
    // Borrowed for one request at a time; requests of one thread do not nest.
    blocks: RefCell<&'run mut Scratch>,
    stop: &'run dyn Fn(Beyond),
}

thread_local! {
    /// The service of the load or run on this thread's stack, if any.
    static SERVICE: Cell<*const Service<'static>> = const { Cell::new(ptr::null()) };
}

/// A service that is gone when this is dropped, also when the foreign code unwinds.
struct Installed {
    before: *const Service<'static>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        SERVICE.set(self.before);
    }
}

thread_local! {
    /// Whether what this thread enqueues is being captured.
    static CAPTURING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in [`while_capturing`].
pub(super) fn is_capturing() -> bool {
    CAPTURING.get()
}

/// Runs `enqueue`, of which a graph is made: the host memory that its copies read is kept for ever.
pub(crate) fn while_capturing<T>(enqueue: impl FnOnce() -> T) -> T {
    struct Ended(bool);
    impl Drop for Ended {
        fn drop(&mut self) {
            CAPTURING.set(self.0);
        }
    }
    let _ended = Ended(CAPTURING.replace(true));
    enqueue()
}

/// The device address of a new block; zero where this thread neither loads nor runs anything, or the
/// request exceeds the whole range.
pub(super) fn serve_request(size: usize) -> usize {
    let service = SERVICE.get();
    // SAFETY: Not null, it points to the service of an `install` further up this thread's stack,
    // which lives until `Installed` is dropped. Only shared references to it are ever made.
    let Some(service) = (unsafe { service.as_ref() }) else { return 0 };
    // Whole units only: ONNX Runtime allocates the weights of a session in an order that another
    // session of the same file does not repeat, and so the sum is the same in any order.
    let whole = (size as u64).max(1).checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX);
    let offset = service.blocks.borrow_mut().alloc(whole);
    match offset {
        Some(offset) => service.start + usize::try_from(offset).expect("less than a length"),
        None => {
            let beyond = if size <= service.length { Beyond::Free } else { Beyond::Range };
            (service.stop)(beyond);
            match beyond {
                Beyond::Free => service.start,
                Beyond::Range => 0,
            }
        }
    }
}

/// Takes a block back. One that this thread's range does not hold belongs to a session that is being
/// dropped, and goes with its range.
pub(super) fn take_back(address: usize) {
    let service = SERVICE.get();
    // SAFETY: As in `serve_request`.
    let Some(service) = (unsafe { service.as_ref() }) else { return };
    if let Some(offset) = address.checked_sub(service.start).filter(|it| *it < service.length) {
        service.blocks.borrow_mut().free(offset as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: usize = 0x7f00_0000_0000;

    fn no_stop(_: Beyond) {
        panic!("everything fits");
    }

    #[test]
    fn weights_stay_and_scratch_does_not() {
        let mut range = DeviceRange::new(START, 4096);
        let kept = range.keep(|| [serve_request(100), serve_request(1000)]);
        assert_eq!((kept.result, kept.refused), ([START, START + 256], None));
        assert_eq!(range.high_water(), Bytes(256 + 1024));
        let served = range.serve(&no_stop, || serve_request(1));
        assert_eq!(served.result, START + 1280, "the weights are where they were");

        let mut scratch = DeviceRange::new(START, 4096);
        for _ in 0..2 {
            let served = scratch.serve(&no_stop, || {
                let block = serve_request(4096);
                take_back(block);
                block
            });
            assert_eq!((served.result, served.kept), (START, Bytes::ZERO));
        }
    }

    #[test]
    fn a_request_beyond_the_range_stops_the_run_and_gets_the_models_own_memory() {
        let mut range = DeviceRange::new(START, 4096);
        let stopped = RefCell::new(Vec::new());
        let stop = |beyond| stopped.borrow_mut().push(beyond);
        let served = range.serve(&stop, || [3800, 4000, 5000].map(serve_request));
        assert_eq!(served.result, [START, START, 0]);
        let refused = served.refused.expect("the second");
        assert_eq!((refused.requested, refused.available), (Bytes(4096), Bytes(256)));
        assert_eq!(*stopped.borrow(), [Beyond::Free, Beyond::Range]);
        assert_eq!(range.serve(&no_stop, || serve_request(1)).result, START);
    }

    #[test]
    fn other_threads_are_not_served() {
        let mut range = DeviceRange::new(START, 4096);
        let served = range
            .serve(&no_stop, || std::thread::spawn(|| serve_request(1)).join().expect("no panic"));
        assert_eq!(served.result, 0);
        assert_eq!(serve_request(1), 0, "the run is over");
        take_back(START); // Of a session that is dropped late: nobody's business.
    }
}

//! Scratch ranges: addresses that serve the allocations of runs, and who may use them when.
//!
//! A range serves one run at a time, through [`ScratchRange::serve`]. Scratch of different models
//! may share addresses; the plan lets it only where the schedule never runs them at once. That is
//! not trusted here: every range is in a register, and one whose addresses are serving a run refuses
//! another. A broken schedule is then an error of the model that came second.
//!
//! ```text
//!   serve:  register says free -> thread's SERVICE set -> foreign code runs -> SERVICE unset
//!                                   | alloc                                     -> register: free
//!                                   v
//!                           lowest fit in the range, or refused: stop, and the heap
//! ```
//!
//! # Invariants
//! 1. At any time, no two ranges that serve share an address.
//! 2. `SERVICE` of a thread points to a service on that thread's own stack, or is null.
//! 3. A range whose run kept a block serves no other run: ONNX Runtime may still write to it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aegis_context::Served;
use aegis_cuda::SharedRegion;
use aegis_cuda::interop::region_ptr;
use aegis_memory::MemoryBinding;
use aegis_trace::{Bytes, TensorId};

use crate::scratch::Scratch;

/// What every byte of a block is when it is handed out in debug builds: as numbers of any width -1
/// or not a number, so that a runtime which reads what it did not write gives itself away, and does
/// not compute with what another model left there.
const POISON: u8 = 0xff;

/// Addresses a model's runtime may use while it runs, with their bookkeeping.
pub(crate) struct ScratchRange {
    base: NonNull<u8>,
    length: usize,
    blocks: Scratch,
    /// What a run kept; the range is of no use then.
    kept: Bytes,
    entry: Entry,
    owner: Owner,
}

/// What keeps the addresses alive.
enum Owner {
    /// The model's part of the memory plan, whose region these addresses are.
    Binding { binding: MemoryBinding },
    /// Address space of our own, to measure in.
    Mapping { _mapping: Mapping },
}

// SAFETY: (1) `base` points into memory that belongs to the process and is kept alive by `owner`,
// which may move between threads itself. (2) It is used only by a thread that holds `&mut self`.
unsafe impl Send for ScratchRange {}

impl ScratchRange {
    /// The region of `tensor` in `binding`; an empty range when there is none, because the model
    /// declared no scratch.
    pub(crate) fn in_binding(binding: MemoryBinding, tensor: TensorId) -> Result<Self, String> {
        let (base, length) = match binding.region(tensor) {
            Some(region) => {
                let length = usize::try_from(region.len()).map_err(|error| error.to_string())?;
                (region_ptr(region), length)
            }
            None => (NonNull::dangling(), 0),
        };
        Ok(Self::new(base, length, Owner::Binding { binding }))
    }

    /// Fresh address space of `limit` bytes, backed by memory only where it is touched.
    pub(crate) fn to_measure(limit: Bytes) -> Result<Self, String> {
        let mapping = Mapping::new(limit)?;
        let (base, length) = (mapping.base, mapping.length);
        Ok(Self::new(base, length, Owner::Mapping { _mapping: mapping }))
    }

    fn new(base: NonNull<u8>, length: usize, owner: Owner) -> Self {
        let start = base.addr().get();
        let entry = Entry::add(start, start + length);
        let blocks = Scratch::new(Bytes(length as u64));
        Self { base, length, blocks, kept: Bytes::ZERO, entry, owner }
    }

    /// The region of another scratch tensor of the same binding, if it has one.
    pub(crate) fn region(&self, tensor: TensorId) -> Option<&SharedRegion> {
        match &self.owner {
            Owner::Binding { binding } => binding.region(tensor),
            Owner::Mapping { .. } => None,
        }
    }

    /// The furthest end any block has ever had.
    pub(crate) fn high_water(&self) -> Bytes {
        self.blocks.high_water()
    }

    /// Runs `foreign` with this thread's allocations served from here; `stop` is called for one that
    /// does not fit, which the heap then serves. Allocates nothing, and takes a lock for as long as
    /// it takes to look at the register.
    ///
    /// # Errors
    /// Nothing ran: a run is using some of these addresses, or an earlier one kept some.
    pub(super) fn serve<T>(
        &mut self,
        stop: &dyn Fn(),
        foreign: impl FnOnce() -> T,
    ) -> Result<Served<T>, String> {
        if self.kept > Bytes::ZERO {
            return Err(format!("an earlier run kept {} of its scratch", self.kept));
        }
        let result = {
            let _serving = self.entry.serve()?;
            let blocks = RefCell::new(&mut self.blocks);
            let service = Service { base: self.base, length: self.length, blocks, stop };
            let _installed = Installed::new(&service);
            foreign()
        };
        let (refused, kept) = self.blocks.end_run();
        self.kept = kept;
        Ok(Served { result, refused, kept })
    }
}

impl fmt::Debug for ScratchRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScratchRange").field("length", &self.length).finish_non_exhaustive()
    }
}

/// A range while it serves a run, on the stack of the thread that runs.
struct Service<'run> {
    base: NonNull<u8>,
    length: usize,
    // Borrowed for one request at a time; requests of one thread do not nest.
    blocks: RefCell<&'run mut Scratch>,
    stop: &'run dyn Fn(),
}

thread_local! {
    /// The service of the run on this thread's stack, if any.
    static SERVICE: Cell<*const Service<'static>> = const { Cell::new(ptr::null()) };
}

/// A service that answers its thread's requests; the one before is back when it is dropped, also
/// when the foreign code unwinds.
struct Installed {
    before: *const Service<'static>,
}

impl Installed {
    fn new(service: &Service<'_>) -> Self {
        Self { before: SERVICE.replace(ptr::from_ref(service).cast()) }
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        SERVICE.set(self.before);
    }
}

/// Serves a request of this thread from its run's range, or from the heap if it does not fit;
/// `None` when no run is on this thread or the heap is to serve it.
pub(super) fn serve_request(size: usize) -> Option<NonNull<u8>> {
    let service = SERVICE.get();
    // SAFETY: Not null, it points to the service of a `serve` further up this thread's stack, which
    // lives until `Installed` is dropped. Only shared references to it are ever made.
    let service = unsafe { service.as_ref() }?;
    let block = service.alloc(size);
    if block.is_none() {
        (service.stop)();
    }
    block
}

/// Takes back a block of a scratch range; `false` when it is in none.
///
/// Only a block of the run on this thread's stack is freed in the books. One of another range was
/// kept beyond its run: that range serves nobody any more, and the block goes with it.
pub(super) fn take_back(block: *mut u8) -> bool {
    let service = SERVICE.get();
    // SAFETY: As in `serve_request`.
    let ours = unsafe { service.as_ref() }.is_some_and(|service| service.free(block.addr()));
    ours || in_some_range(block.addr())
}

impl Service<'_> {
    fn alloc(&self, size: usize) -> Option<NonNull<u8>> {
        let offset = self.blocks.borrow_mut().alloc(size as u64)?;
        let offset = usize::try_from(offset).expect("offsets are less than a length in memory");
        assert!(offset < self.length, "a block outside its range");
        // SAFETY: The offset lies inside the range of `length` bytes at `base`, just checked, which
        // is part of one mapping.
        let block = unsafe { self.base.add(offset) };
        if cfg!(debug_assertions) {
            assert!(size <= self.length - offset, "a block that ends outside its range");
            // SAFETY: (1) The block lies inside the range, just checked, and the range is writable
            // memory of the process. (2) Nobody reads or writes it: it was free, and the range
            // serves this thread's run alone (invariant 1).
            unsafe { ptr::write_bytes(block.as_ptr(), POISON, size) };
        }
        Some(block)
    }

    /// Whether the address is of this range; if so, its block is free.
    fn free(&self, address: usize) -> bool {
        let Some(offset) = address.checked_sub(self.base.addr().get()) else { return false };
        // A block that is not live was freed before; there is nothing more to do for it.
        offset < self.length && {
            self.blocks.borrow_mut().free(offset as u64);
            true
        }
    }
}

/// Every range in existence. Scratch ranges number one per model, so a scan is enough.
static REGISTER: Mutex<Vec<Addresses>> = Mutex::new(Vec::new());

/// How many of them are serving.
static SERVING: AtomicUsize = AtomicUsize::new(0);

/// Whether some thread is in a run.
pub(super) fn any_serving() -> bool {
    SERVING.load(Ordering::Relaxed) > 0
}

fn register() -> MutexGuard<'static, Vec<Addresses>> {
    // A panic under the lock leaves the register whole: the only one is a failed allocation, before
    // it changes.
    REGISTER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_some_range(address: usize) -> bool {
    register().iter().any(|range| (range.start..range.end).contains(&address))
}

/// The half-open addresses of one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    start: usize,
    end: usize,
    serving: bool,
}

/// A range's place in the register.
#[derive(Debug)]
struct Entry {
    idle: Addresses,
}

impl Entry {
    fn add(start: usize, end: usize) -> Self {
        let idle = Addresses { start, end, serving: false };
        register().push(idle);
        Self { idle }
    }

    /// Marks the addresses as in use, until the result is dropped.
    fn serve(&mut self) -> Result<Serving, String> {
        let Self { idle } = self;
        let mut register = register();
        let in_use = |other: &&Addresses| {
            other.serving && idle.start.max(other.start) < idle.end.min(other.end)
        };
        if let Some(other) = register.iter().find(in_use) {
            let shared = idle.end.min(other.end) - idle.start.max(other.start);
            let shared = Bytes(shared as u64);
            return Err(format!(
                "{shared} of its scratch are in use by another run, which no plan lets share it"
            ));
        }
        // Entries of equal addresses stand for each other: it is enough that one of them serves.
        let own = register.iter_mut().find(|other| **other == *idle);
        own.expect("an entry is in the register until it is dropped").serving = true;
        SERVING.fetch_add(1, Ordering::Relaxed);
        Ok(Serving { idle: *idle })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut register = register();
        if let Some(index) = register.iter().position(|other| *other == self.idle) {
            register.swap_remove(index);
        }
    }
}

/// Addresses in use by a run.
struct Serving {
    idle: Addresses,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let busy = Addresses { serving: true, ..self.idle };
        if let Some(own) = register().iter_mut().find(|other| **other == busy) {
            own.serving = false;
        }
        SERVING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Address space without memory behind it until it is touched.
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(size: Bytes) -> Result<Self, String> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let length = usize::try_from(size.0.max(1)).map_err(|error| error.to_string())?;
        isize::try_from(length).map_err(|error| error.to_string())?;
        // SAFETY: A fresh anonymous mapping at an address of the kernel's choice touches nothing
        // that exists.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(format!("{size} of address space: {}", std::io::Error::last_os_error()));
        }
        let base = NonNull::new(base.cast()).ok_or("the mapping is at address zero")?;
        Ok(Self { base, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours, whole, and nothing uses it any more: sessions that ran in it
        // kept nothing of it, or are gone. A failure leaks it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aegis_cuda::{DeviceContext, SimConfig};
    use aegis_memory::{Lifespan, MemoryOrchestrator, ModelMemory, TensorClass, TensorLifetime};
    use aegis_trace::{ModelId, PartitionId};

    const TENSOR: TensorId = TensorId::first(1);

    /// The scratch of two models of 4096 bytes each, as a memory plan places them: at the same
    /// addresses.
    fn shared_by_plan() -> [ScratchRange; 2] {
        let memory_limit = Bytes::from_kib(64);
        let config = SimConfig { memory_limit, max_streams: 1, stream_depth: 1 };
        let device = DeviceContext::sim(config).expect("limits are stated");
        let arena = device.reserve_arena(memory_limit).expect("address space");
        let mut orchestrator = MemoryOrchestrator::new(arena);
        [0, 1].map(|index| {
            let tensor = TensorLifetime {
                tensor: TENSOR,
                class: TensorClass::Scratch,
                span: Lifespan::new(0, 1).expect("not empty"),
                size: Bytes(4096),
                alignment: 256,
            };
            let (model, partition) = (ModelId::first(index), PartitionId::WHOLE);
            let needs = ModelMemory { model, partition, tensors: vec![tensor] };
            let planned = orchestrator.plan(needs).expect("it fits");
            let binding = orchestrator.bind(planned).expect("nothing was bound since");
            ScratchRange::in_binding(binding, TENSOR).expect("it has the tensor")
        })
    }

    fn private() -> ScratchRange {
        ScratchRange::to_measure(Bytes(4096)).expect("address space")
    }

    fn block(size: usize) -> *mut u8 {
        serve_request(size).expect("it fits").as_ptr()
    }

    fn no_stop() {
        panic!("everything fits");
    }

    #[test]
    fn a_run_is_served_inside_its_range() {
        let mut range = private();
        let (start, end) = (range.entry.idle.start, range.entry.idle.end);
        let served = range.serve(&no_stop, || {
            let blocks = [block(100), block(1000)];
            for block in blocks {
                assert!((start..end).contains(&block.addr()) && block.addr().is_multiple_of(64));
                assert!(take_back(block));
            }
        });
        let Served { refused, kept, .. } = served.expect("nobody else runs");
        assert_eq!((refused, kept), (None, Bytes::ZERO));
        assert!(range.high_water() >= Bytes(1128));
        assert_eq!(serve_request(1), None, "the run is over");
    }

    /// What one run wrote, the next must not take for its own.
    #[test]
    #[cfg(debug_assertions)]
    fn a_block_is_poisoned_when_it_is_handed_out() {
        let mut range = private();
        for _ in 0..2 {
            let served = range.serve(&no_stop, || {
                let block = block(16);
                // SAFETY: The block is live and has 16 bytes, which nobody else uses.
                let bytes = unsafe { std::slice::from_raw_parts_mut(block, 16) };
                assert_eq!(bytes, [POISON; 16]);
                bytes.fill(0);
                assert!(take_back(block));
            });
            served.expect("nobody else runs");
        }
    }

    #[test]
    fn a_request_beyond_the_range_stops_the_run_and_goes_elsewhere() {
        let mut range = private();
        let stopped = Cell::new(0);
        let stop = || stopped.set(stopped.get() + 1);
        let served = range.serve(&stop, || {
            let inside = block(4000);
            assert_eq!(serve_request(4000), None);
            assert!(take_back(inside));
        });
        let refused = served.expect("nobody else runs").refused.expect("the second");
        assert_eq!((refused.requested, stopped.get()), (Bytes(4000), 1));
        let again = range.serve(&no_stop, || assert!(take_back(block(4000))));
        assert_eq!(again.expect("the next run is whole").refused, None);
    }

    #[test]
    fn ranges_that_share_addresses_do_not_serve_at_once() {
        let [mut one, mut other] = shared_by_plan();
        let mut elsewhere = private();
        let served = one.serve(&no_stop, || {
            let clash = other.serve(&no_stop, || ()).expect_err("its addresses are in use");
            assert!(clash.starts_with("4 KiB of its scratch are in use by another run"), "{clash}");
            elsewhere
                .serve(&no_stop, || assert!(take_back(block(1))))
                .expect("addresses of its own");
            assert!(take_back(block(1)), "the outer run is served again");
        });
        served.expect("nobody else runs");
        other.serve(&no_stop, || ()).expect("the other is done");
    }

    #[test]
    fn a_run_that_unwinds_gives_its_addresses_back() {
        let [mut one, mut other] = shared_by_plan();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = one.serve(&no_stop, || panic!("on purpose"));
        }));
        assert!(unwound.is_err());
        assert_eq!(serve_request(1), None);
        other.serve(&no_stop, || ()).expect("the other is done");
    }

    #[test]
    fn a_range_of_which_a_run_kept_a_block_serves_no_more() {
        let [mut one, mut other] = shared_by_plan();
        let served = one.serve(&no_stop, || block(100).addr()).expect("nobody else runs");
        assert!(served.kept >= Bytes(100));
        let error = one.serve(&no_stop, || ()).expect_err("it kept a block");
        assert!(error.starts_with("an earlier run kept "), "{error}");

        // Freed late, beside a run that has a block at the same address: not that run's block.
        let stale = served.result;
        let served = other.serve(&no_stop, || {
            let mine = block(100);
            assert_eq!(mine.addr(), stale);
            let late = std::thread::spawn(move || take_back(ptr::without_provenance_mut(stale)));
            assert!(late.join().expect("no panic"), "it is in a range, so not the heap's");
            assert_ne!(block(100).addr(), stale, "the run still has its block");
        });
        assert!(served.expect("nobody else runs").kept >= Bytes(200));
    }

    #[test]
    fn other_threads_and_other_addresses_are_not_served() {
        let mut range = private();
        let served = range.serve(&no_stop, || {
            let elsewhere = std::thread::spawn(|| serve_request(1).is_none());
            assert!(elsewhere.join().expect("no panic"));
            let mut local = 0u8;
            assert!(!take_back(&raw mut local));
        });
        served.expect("nobody else runs");
        let address = range.entry.idle.start;
        assert!(in_some_range(address));
        drop(range);
        assert!(!in_some_range(address));
    }

    #[test]
    fn a_range_of_no_bytes_serves_runs_that_need_none() {
        let stopped = Cell::new(false);
        let mut empty = ScratchRange::new(
            NonNull::dangling(),
            0,
            Owner::Mapping { _mapping: Mapping::new(Bytes(1)).expect("a page") },
        );
        let served = empty.serve(&|| stopped.set(true), || assert_eq!(serve_request(1), None));
        assert!(served.expect("it shares nothing").refused.is_some() && stopped.get());
    }
}

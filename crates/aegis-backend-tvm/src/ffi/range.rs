//! Scratch ranges: addresses that serve what a run of TVM allocates, and who may use them when.
//!
//! TVM's virtual machine takes storage for its tensors by a function that anyone may replace, and the
//! code of modules takes workspace by another. Ours (`builtin`) serve the thread that runs a stage from
//! the stage's range, lowest fit first, so that the same run asks for the same addresses in every
//! range that is large enough. A request that does not fit is an error of the run, and ends it.
//!
//! On a GPU the addresses are numbers: nothing here touches what is behind them.
//!
//! # Invariants
//! 1. At any time, no two ranges that serve share an address.
//! 2. `SERVICE` of a thread points to a service on that thread's own stack, or is null.
//! 3. A block goes back to the run that took it, and to no other.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aegis_context::Served;
use aegis_cuda::RefusedAllocation;
use aegis_memory::FirstFit;
use aegis_trace::Bytes;

use super::sys;

/// The alignment of every block: what GPU runtimes expect.
const ALIGNMENT: u64 = 256;
/// Blocks that a range has room to note without allocating itself.
const BLOCKS_EXPECTED: usize = 256;
/// What every byte of a block on the processor is when it is handed out in debug builds, so that code
/// which reads what it did not write gives itself away.
const POISON: u8 = 0xff;

/// Addresses a stage may use while it runs, with their bookkeeping. Whoever makes one keeps the memory.
#[derive(Debug)]
pub(crate) struct ScratchRange {
    start: usize,
    length: usize,
    device: sys::Device,
    blocks: FirstFit,
    live: Vec<Live>,
}

/// A block of storage that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Live {
    offset: u64,
    size: usize,
    /// How many storages the run had taken before.
    sequence: usize,
    /// Whether the run returned it: the machine keeps a reference to what it returned last.
    returned: bool,
}

/// A block as its tensor knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    run: u64,
    offset: u64,
}

/// A storage that lies elsewhere than in the range: in the memory of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Elsewhere {
    /// How many storages the run takes before.
    pub(super) sequence: usize,
    pub(super) address: usize,
    pub(super) length: usize,
}

/// Where a storage was placed.
pub(super) struct Storage {
    pub(super) address: usize,
    pub(super) device: sys::Device,
    /// None for one that lies elsewhere.
    pub(super) block: Option<Block>,
}

impl ScratchRange {
    /// `length` bytes from `start` on, in the memory of the processor or of GPU `ordinal`.
    pub(crate) fn new(start: usize, length: usize, gpu: Option<u16>) -> Self {
        let blocks = FirstFit::with_room(length as u64, BLOCKS_EXPECTED);
        let live = Vec::with_capacity(BLOCKS_EXPECTED);
        Self { start, length, device: device(gpu), blocks, live }
    }

    /// The furthest end any block has ever had.
    pub(crate) fn high_water(&self) -> Bytes {
        Bytes(self.blocks.high_water())
    }

    /// Runs `foreign` with this thread's requests served from here, but for the storages that lie
    /// `elsewhere`.
    ///
    /// # Errors
    /// Nothing ran: another run is using some of these addresses.
    pub(super) fn serve<T>(
        &mut self,
        elsewhere: &[Elsewhere],
        foreign: impl FnOnce(&Service<'_>) -> T,
    ) -> Result<Served<T>, String> {
        let serving = Serving::begin(self.start, self.start + self.length)?;
        let Self { start, length, device, blocks, live } = self;
        let (result, refused) = {
            let service = Service {
                run: RUNS.fetch_add(1, Ordering::Relaxed),
                start: *start,
                length: *length,
                device: *device,
                elsewhere,
                books: RefCell::new(Books { blocks, live, taken: 0, refused: None }),
            };
            let before = SERVICE.replace(ptr::from_ref(&service).cast());
            let _installed = Installed { before };
            let result = foreign(&service);
            (result, service.books.borrow().refused)
        };
        let returned = live.iter().filter(|live| live.returned).map(|live| live.size.max(1) as u64);
        let kept = Bytes(blocks.in_use().saturating_sub(returned.sum()));
        live.clear();
        blocks.reset();
        drop(serving);
        Ok(Served { result, refused, kept })
    }
}

/// The device of tensors: the processor, or the GPU of this number.
pub(super) fn device(gpu: Option<u16>) -> sys::Device {
    match gpu {
        None => sys::Device { kind: sys::CPU, ordinal: 0 },
        Some(ordinal) => sys::Device { kind: sys::CUDA, ordinal: i32::from(ordinal) },
    }
}

/// Numbers runs, so that a block knows its own.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// A range while it serves a run, on the stack of the thread that runs.
pub(super) struct Service<'run> {
    run: u64,
    start: usize,
    length: usize,
    device: sys::Device,
    elsewhere: &'run [Elsewhere],
    // Borrowed for one request at a time; requests of one thread do not nest.
    books: RefCell<Books<'run>>,
}

struct Books<'run> {
    blocks: &'run mut FirstFit,
    live: &'run mut Vec<Live>,
    taken: usize,
    refused: Option<RefusedAllocation>,
}

impl Service<'_> {
    /// Notes that the run returns the storage around `address`, where it is one of the range. If it
    /// begins there: how many were taken before it, and its size.
    ///
    /// The machine drops what it returned when it returns the next; that it still refers to it does no
    /// harm, since it does nothing with it.
    pub(super) fn returned(&self, address: usize) -> Option<(usize, usize)> {
        let offset = address.checked_sub(self.start)? as u64;
        let books = &mut *self.books.borrow_mut();
        let holds =
            |live: &&mut Live| (live.offset..live.offset + live.size as u64).contains(&offset);
        let found = books.live.iter_mut().find(holds)?;
        found.returned = true;
        (found.offset == offset).then_some((found.sequence, found.size))
    }

    fn alloc(&self, size: usize) -> Option<Block> {
        let books = &mut *self.books.borrow_mut();
        let offset = books.blocks.alloc(size as u64, ALIGNMENT);
        if offset.is_none() && books.refused.is_none() {
            let available = Bytes(self.length as u64 - books.blocks.in_use());
            books.refused = Some(RefusedAllocation { requested: Bytes(size as u64), available });
        }
        let offset = offset?;
        if cfg!(debug_assertions) && self.device.kind == sys::CPU {
            let address = self.start + usize::try_from(offset).ok()?;
            let block = ptr::with_exposed_provenance_mut::<u8>(address);
            // SAFETY: The block is `size` bytes within the range, which are this run's alone (invariant 1
            // and `FirstFit`), on the processor; the maker of the range keeps their memory.
            unsafe { block.write_bytes(POISON, size) };
        }
        Some(Block { run: self.run, offset })
    }

    fn address(&self, block: Block) -> usize {
        self.start + usize::try_from(block.offset).expect("it lies in a range of addresses")
    }

    /// Places the next storage of the run.
    fn storage(&self, size: usize) -> Option<Storage> {
        let sequence = self.books.borrow().taken;
        self.books.borrow_mut().taken += 1;
        let device = self.device;
        let placed = self.elsewhere.iter().find(|it| it.sequence == sequence && it.length >= size);
        if let Some(place) = placed {
            return Some(Storage { address: place.address, device, block: None });
        }
        let block = self.alloc(size)?;
        self.books.borrow_mut().live.push(Live {
            offset: block.offset,
            size,
            sequence,
            returned: false,
        });
        Some(Storage { address: self.address(block), device, block: Some(block) })
    }

    fn free(&self, block: Block) {
        if block.run == self.run {
            let books = &mut *self.books.borrow_mut();
            // A block of this run that is not in the books would be freed twice, which tensors do not.
            let known = books.blocks.free(block.offset).is_ok();
            debug_assert!(known, "a block goes back once");
            books.live.retain(|live| live.offset != block.offset);
        }
    }
}

thread_local! {
    /// The service of the run on this thread's stack, if any.
    static SERVICE: Cell<*const Service<'static>> = const { Cell::new(ptr::null()) };
}

/// A service that answers its thread's requests until this is dropped, also when a panic unwinds.
struct Installed {
    before: *const Service<'static>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        SERVICE.set(self.before);
    }
}

fn with_service<T>(answer: impl FnOnce(&Service<'_>) -> T) -> Option<T> {
    let service = SERVICE.get();
    // SAFETY: Not null, it points to the service of a `serve` further up this thread's stack, which
    // lives until `Installed` is dropped. Only shared references to it are ever made.
    unsafe { service.as_ref() }.map(answer)
}

/// Places a storage for the run on this thread. `None` when none is; `Some(None)` when it does not fit.
pub(super) fn storage(size: usize) -> Option<Option<Storage>> {
    with_service(|service| service.storage(size))
}

/// Workspace on the device of the run on this thread; as [`storage`].
pub(super) fn workspace(kind: i32, size: usize) -> Option<Option<usize>> {
    with_service(|service| {
        (service.device.kind == kind)
            .then(|| service.alloc(size).map(|block| service.address(block)))
    })?
}

/// Takes back workspace; `false` when it is not of the run on this thread.
pub(super) fn take_back_workspace(address: usize) -> bool {
    let taken = with_service(|service| {
        let inside = (service.start..service.start + service.length).contains(&address);
        if inside {
            service.free(Block { run: service.run, offset: (address - service.start) as u64 });
        }
        inside
    });
    taken.unwrap_or(false)
}

/// Takes back the block of a tensor. One of a run that is over went with its run.
pub(super) fn take_back(block: Block) {
    with_service(|service| service.free(block));
}

/// The ranges that serve now: one for each thread in a run.
static BUSY: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

fn busy() -> MutexGuard<'static, Vec<(usize, usize)>> {
    BUSY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Addresses in use by a run, until it is dropped.
struct Serving(usize, usize);

impl Serving {
    fn begin(start: usize, end: usize) -> Result<Self, String> {
        let mut busy = busy();
        let shared = |(from, to): &(usize, usize)| end.min(*to).saturating_sub(start.max(*from));
        if let Some(other) = busy.iter().find(|other| shared(other) > 0) {
            let shared = Bytes(shared(other) as u64);
            return Err(format!(
                "{shared} of its scratch are in use by another run, which no plan lets share it"
            ));
        }
        busy.push((start, end));
        Ok(Self(start, end))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let mut busy = busy();
        if let Some(index) = busy.iter().position(|other| *other == (self.0, self.1)) {
            busy.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A range on the processor with memory of its own behind it.
    fn range(bytes: usize) -> (Vec<u8>, ScratchRange) {
        let mut memory = vec![0u8; bytes + 256];
        let start = memory.as_mut_ptr().expose_provenance().next_multiple_of(256);
        (memory, ScratchRange::new(start, bytes, None))
    }

    #[test]
    fn a_request_beyond_the_range_is_refused_with_numbers() {
        let (_memory, mut range) = range(1024);
        let served = range.serve(&[], |_| {
            let first = storage(1000).expect("in a run").expect("it fits");
            assert!(storage(100).expect("in a run").is_none());
            take_back(first.block.expect("in the range"));
        });
        let served = served.expect("nobody else runs");
        let refused = RefusedAllocation { requested: Bytes(100), available: Bytes(24) };
        assert_eq!((served.refused, served.kept), (Some(refused), Bytes::ZERO));
        assert!(storage(1).is_none(), "no run is on this thread");
    }

    #[test]
    fn what_was_measured_in_a_large_range_fits_one_of_that_size() {
        let run = |range: &mut ScratchRange| {
            let served = range.serve(&[], |_| {
                let take = |size| storage(size).expect("in a run").expect("it fits").block;
                let (a, b) = (take(1000).expect("inside"), take(500).expect("inside"));
                take_back(a);
                let c = take(900).expect("inside");
                take_back(b);
                take_back(c);
            });
            assert_eq!(served.expect("nobody else runs").kept, Bytes::ZERO);
        };
        let (_memory, mut large) = range(1 << 16);
        run(&mut large);
        let (_memory, mut exact) = range(large.high_water().as_usize());
        run(&mut exact);
    }

    #[test]
    fn a_storage_that_lies_elsewhere_takes_nothing_of_the_range() {
        let (_memory, mut range) = range(256);
        let elsewhere = [Elsewhere { sequence: 1, address: 4096, length: 512 }];
        let served = range.serve(&elsewhere, |service| {
            let first = storage(256).expect("in a run").expect("it fits");
            let second = storage(512).expect("in a run").expect("it lies elsewhere");
            assert_eq!((second.address, second.block.is_none()), (4096, true));
            assert_eq!(service.returned(first.address), Some((0, 256)));
            assert_eq!(service.returned(first.address + 8), None, "it begins elsewhere");
        });
        let served = served.expect("nobody else runs");
        assert_eq!(
            (served.refused, served.kept),
            (None, Bytes::ZERO),
            "what it returned is not kept"
        );
    }

    #[test]
    fn ranges_that_share_addresses_do_not_serve_at_once() {
        let (_memory, mut one) = range(1024);
        let mut other = ScratchRange::new(one.start + 512, 512, None);
        let served = one.serve(&[], |_| {
            let clash = other.serve(&[], |_| ()).expect_err("its addresses are in use");
            assert!(clash.starts_with("512 B of its scratch are in use by another run"), "{clash}");
        });
        served.expect("nobody else runs");
        other.serve(&[], |_| ()).expect("the other is done");
    }

    #[test]
    fn a_block_that_outlives_its_run_is_no_block_of_the_next() {
        let (_memory, mut range) = range(1024);
        let take = || storage(100).expect("in a run").expect("it fits").block.expect("inside");
        let served = range.serve(&[], |_| take()).expect("nobody else runs");
        assert_eq!(served.kept, Bytes(100));
        let stale = served.result;
        let served = range.serve(&[], |_| {
            let mine = take();
            take_back(stale);
            take_back(mine);
        });
        assert_eq!(served.expect("nobody else runs").kept, Bytes::ZERO);
    }

    #[test]
    fn workspace_is_served_for_the_device_of_the_run_alone() {
        let (_memory, mut range) = range(1024);
        let served = range.serve(&[], |_| {
            assert!(workspace(sys::CUDA, 16).is_none());
            let block = workspace(sys::CPU, 16).expect("in a run").expect("it fits");
            assert!(take_back_workspace(block) && !take_back_workspace(1));
        });
        assert_eq!(served.expect("nobody else runs").kept, Bytes::ZERO);
    }
}

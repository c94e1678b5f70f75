//! Device memory: reserved once as an arena, carved by ranges that were decided elsewhere.
//!
//! An arena does not place anything. Who has a memory plan asks for its ranges, and the arena
//! checks what the plan promised: an exclusive buffer shares its bytes with nothing that lives, a
//! shared region shares them with other shared regions at most.
//!
//! ```text
//!   arena   |..............................................................|
//!   buffer  |[ weights A  ][ weights B ]                                   |  no overlap
//!   region  |                           [ scratch A          ]             |  may overlap
//!   region  |                           [ scratch B                    ]   |  each other
//! ```
//!
//! # Invariants
//! 1. Live claims lie within the arena; a buffer overlaps no other live claim.
//! 2. The mapping outlives every buffer and region carved from it: each holds the arena.
//! 3. No reference to the bytes is ever made here; they are reached by copies through raw pointers
//!    only, on `cuda` by copies of the driver, so foreign code may hold pointers of its own (see
//!    [`crate::interop`]).
//! 4. The bytes of a region cannot be reached by safe code.
#![allow(unsafe_code)] // The room with a window: docs/soundness.md argues all of it.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_trace::Bytes;
use rustix::mm::{MapFlags, ProtFlags};

use crate::capability::DriverKind;
use crate::cuda::DeviceMemory;
use crate::device_core::{Charge, DeviceCore, Line};
use crate::error::DeviceError;
use crate::host_buffer::HostBuffer;

/// The alignment of an arena's first byte: the smallest page of the supported machines.
pub const ARENA_ALIGNMENT: Bytes = Bytes(4096);

/// What holds a range of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// A [`DeviceBuffer`], which shares its bytes with nothing.
    Buffer,
    /// A [`SharedRegion`], which shares its bytes with other regions.
    Region,
}

impl fmt::Display for ClaimKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Buffer => "buffer",
            Self::Region => "shared region",
        })
    }
}

/// One reservation of device memory, zeroed, in one piece. Clones share it.
///
/// The memory goes back to the device when the last clone, buffer and region is gone.
#[derive(Clone)]
pub struct DeviceArena {
    inner: Arc<Inner>,
}

struct Inner {
    memory: Memory,
    size: Bytes,
    kind: DriverKind,
    claims: Mutex<Claims>,
    /// Declared after the memory, which goes back before its charge is refunded.
    _charge: Charge,
}

/// Where the bytes of an arena are.
enum Memory {
    /// In this process: `host` and `sim`.
    Mapped(Mapping),
    /// On a GPU.
    Device(DeviceMemory),
}

impl Memory {
    /// The address `offset` bytes in; on a GPU one that the processor must not touch.
    fn at(&self, offset: u64) -> NonNull<u8> {
        match self {
            Self::Mapped(mapping) => mapping.at(offset),
            Self::Device(memory) => memory.at(offset),
        }
    }
}

impl DeviceArena {
    /// An arena in this process.
    pub(crate) fn map(core: &Arc<DeviceCore>, size: Bytes) -> Result<Self, DeviceError> {
        let charge = core.charge(Line::Arenas, size)?;
        let mapping = Mapping::new(size, core.kind())?;
        Ok(Self::of(Memory::Mapped(mapping), size, core.kind(), charge))
    }

    /// An arena on a GPU, in the memory that `allocate` gives for a size and an alignment.
    pub(crate) fn allocate(
        core: &Arc<DeviceCore>,
        size: Bytes,
        allocate: impl FnOnce(usize, u64) -> Result<DeviceMemory, DeviceError>,
    ) -> Result<Self, DeviceError> {
        let charge = core.charge(Line::Arenas, size)?; // First: the limit is ours to keep.
        let memory = allocate(size.as_usize(), ARENA_ALIGNMENT.as_u64())?;
        Ok(Self::of(Memory::Device(memory), size, core.kind(), charge))
    }

    fn of(memory: Memory, size: Bytes, kind: DriverKind, charge: Charge) -> Self {
        let claims = Mutex::default();
        Self { inner: Arc::new(Inner { memory, size, kind, claims, _charge: charge }) }
    }

    /// The size that was asked for.
    #[must_use]
    pub fn size(&self) -> Bytes {
        self.inner.size
    }

    /// The driver of the device it is on.
    #[must_use]
    pub fn kind(&self) -> DriverKind {
        self.inner.kind
    }

    /// Carves the half-open `range` of bytes as an exclusive buffer, until it is dropped.
    ///
    /// The bytes are as their last user left them, zero at first. An empty range overlaps nothing.
    /// O(live claims); allocates at most for the table of claims.
    ///
    /// # Errors
    /// Both permanent: [`DeviceError::OutOfRange`], and [`DeviceError::Overlap`] with the buffer or
    /// region in the way.
    pub fn buffer(&self, range: Range<u64>) -> Result<DeviceBuffer, DeviceError> {
        self.claim(range, ClaimKind::Buffer).map(|claim| DeviceBuffer { claim })
    }

    /// Carves the half-open `range` of bytes as scratch that may overlap other scratch, until it is
    /// dropped.
    ///
    /// An empty range overlaps nothing. O(live claims); allocates at most for the table of claims.
    ///
    /// # Errors
    /// Both permanent: [`DeviceError::OutOfRange`], and [`DeviceError::Overlap`] with the buffer in
    /// the way.
    pub fn region(&self, range: Range<u64>) -> Result<SharedRegion, DeviceError> {
        self.claim(range, ClaimKind::Region).map(|claim| SharedRegion { claim })
    }

    /// `length` zeroed bytes on the host for copies to and from this arena: page-locked where it is
    /// on a GPU, ordinary memory elsewhere. Allocates; for set-up.
    ///
    /// # Errors
    /// [`DeviceError::Cuda`], on `cuda` alone.
    pub fn host_buffer(&self, length: usize) -> Result<HostBuffer, DeviceError> {
        match &self.inner.memory {
            Memory::Mapped(_) => Ok(HostBuffer::plain(length)),
            Memory::Device(memory) => Ok(HostBuffer::pinned(memory.pinned(length)?, length)),
        }
    }

    /// The longest range that no live claim touches, the first of several; empty where there is none.
    /// What is free now: another thread may claim of it before the caller does. O(n log n) in the
    /// live claims; allocates.
    #[must_use]
    pub fn largest_gap(&self) -> Range<u64> {
        largest_gap(self.inner.size.as_u64(), self.inner.claims().ranges())
    }

    fn claim(&self, range: Range<u64>, kind: ClaimKind) -> Result<Claim, DeviceError> {
        check_within(&range, self.inner.size)?;
        let id = self.inner.claims().add(&range, kind)?;
        Ok(Claim { arena: Arc::clone(&self.inner), id, range })
    }
}

impl fmt::Debug for DeviceArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceArena").field("size", &self.inner.size).finish_non_exhaustive()
    }
}

impl Inner {
    fn claims(&self) -> MutexGuard<'_, Claims> {
        // A panic under the lock leaves the table whole: the only one is a failed allocation,
        // before the table changes.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a `range` that is reversed or leaves `0..size`.
fn check_within(range: &Range<u64>, size: Bytes) -> Result<(), DeviceError> {
    if range.start <= range.end && range.end <= size.as_u64() {
        Ok(())
    } else {
        Err(DeviceError::OutOfRange { range: range.clone(), size })
    }
}

/// The live claims of one arena. They number a few per model, so a scan is enough.
#[derive(Default)]
struct Claims {
    live: Vec<(u64, ClaimKind, Range<u64>)>,
    next_id: u64,
}

impl Claims {
    fn add(&mut self, range: &Range<u64>, kind: ClaimKind) -> Result<u64, DeviceError> {
        let in_the_way = self.live.iter().find(|(_, held_as, held)| {
            let exclusive = kind == ClaimKind::Buffer || *held_as == ClaimKind::Buffer;
            exclusive && overlap(range, held)
        });
        if let Some((_, held_as, held)) = in_the_way {
            return Err(DeviceError::Overlap {
                range: range.clone(),
                held: held.clone(),
                held_as: *held_as,
            });
        }
        let id = self.next_id;
        self.next_id += 1;
        self.live.push((id, kind, range.clone()));
        Ok(id)
    }

    /// All of them, empty ones left out, by their first byte.
    fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<_> = self.live.iter().map(|(_, _, range)| range.clone()).collect();
        ranges.retain(|range| !range.is_empty());
        ranges.sort_unstable_by_key(|range| range.start);
        ranges
    }

    fn remove(&mut self, id: u64) {
        if let Some(index) = self.live.iter().position(|(held, _, _)| *held == id) {
            self.live.swap_remove(index);
        }
    }
}

/// The first of the longest holes that `held`, sorted by their first byte, leave in `0..size`.
fn largest_gap(size: u64, held: Vec<Range<u64>>) -> Range<u64> {
    let (mut best, mut free_from) = (0..0, 0);
    for range in held.into_iter().chain(std::iter::once(size..size)) {
        if range.start.saturating_sub(free_from) > best.end - best.start {
            best = free_from..range.start;
        }
        free_from = free_from.max(range.end);
    }
    best
}

/// Whether two half-open ranges share a byte.
fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}

/// A live range of an arena; leaves the table on drop.
struct Claim {
    arena: Arc<Inner>,
    id: u64,
    range: Range<u64>,
}

impl Claim {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn as_ptr(&self) -> NonNull<u8> {
        self.arena.memory.at(self.range.start)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.arena.claims().remove(self.id);
    }
}

/// A piece of an arena that its owner has for itself.
///
/// May move between threads and be read by several at once: writing needs `&mut`.
pub struct DeviceBuffer {
    claim: Claim,
}

impl DeviceBuffer {
    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.claim.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of the first byte in the arena.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.claim.range.start
    }

    /// Copies `bytes` to the place `offset` bytes into the buffer. On `cuda` this blocks until they
    /// are on the GPU: for set-up, not for the hot path.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] (permanent), and on `cuda` [`DeviceError::Cuda`]; nothing is
    /// known to be written then.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let at = self.place(offset, bytes.len())?;
        let mapping = match &self.claim.arena.memory {
            Memory::Device(memory) => return memory.write(at, bytes),
            Memory::Mapped(mapping) => mapping,
        };
        let to = mapping.at(at);
        // SAFETY:
        // 1. `to` is valid for writes of `bytes.len()` bytes: `place` checked that they lie in this
        //    claim, which lies in the mapping (invariant 1), which lives (invariant 2).
        // 2. `bytes` is valid for reads, being a slice.
        // 3. They do not overlap: safe code has no reference into a mapping (invariant 3), and a
        //    backend that makes one ends it before the buffer is used (`interop`, point 5).
        // 4. No one else reads or writes the target: the claim is exclusive (invariant 1), `self`
        //    is borrowed uniquely, and users of raw pointers keep away (`interop`, point 3).
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies the bytes `offset` bytes into the buffer to `bytes`, all of it. On `cuda` this blocks
    /// until they are here.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] (permanent), and on `cuda` [`DeviceError::Cuda`]; nothing is
    /// known of `bytes` after the latter.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let at = self.place(offset, bytes.len())?;
        let mapping = match &self.claim.arena.memory {
            Memory::Device(memory) => return memory.read(at, bytes),
            Memory::Mapped(mapping) => mapping,
        };
        let from = mapping.at(at);
        // SAFETY:
        // 1. `from` is valid for reads of `bytes.len()` bytes: `place` checked that they lie in
        //    this claim, which lies in the mapping (invariant 1), which lives (invariant 2). They
        //    are initialised: the system maps zeroed pages.
        // 2. `bytes` is valid for writes, being a unique slice.
        // 3. They do not overlap, as in `write`.
        // 4. No one writes the source: the claim is exclusive (invariant 1), `write` and `fill`
        //    need `&mut self`, and users of raw pointers keep away (`interop`, point 3).
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// Sets every byte to `byte`. On `cuda` this blocks until they are set.
    ///
    /// # Errors
    /// On `cuda` [`DeviceError::Cuda`]; none on the others.
    pub fn fill(&mut self, byte: u8) -> Result<(), DeviceError> {
        let length = Bytes(self.len()).as_usize();
        if let Memory::Device(memory) = &self.claim.arena.memory {
            return memory.fill(self.offset(), length, byte);
        }
        // SAFETY:
        // 1. The pointer is valid for writes of `length` bytes, which are this claim, as in
        //    `write`.
        // 2. No one else reads or writes them, as in `write`.
        unsafe { std::ptr::write_bytes(self.as_ptr().as_ptr(), byte, length) };
        Ok(())
    }

    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        self.claim.as_ptr()
    }

    /// Whether the bytes are on a GPU.
    pub(crate) fn is_on_gpu(&self) -> bool {
        matches!(self.claim.arena.memory, Memory::Device(_))
    }

    /// The place in the arena `offset` bytes into the buffer, if `length` bytes follow it there.
    fn place(&self, offset: u64, length: usize) -> Result<u64, DeviceError> {
        // A length in memory fits 64 bits; a sum that does not is no range either way.
        let end = offset.saturating_add(length as u64);
        check_within(&(offset..end), Bytes(self.len()))?;
        Ok(self.claim.range.start + offset)
    }
}

impl fmt::Debug for DeviceBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceBuffer").field(&self.claim.range).finish()
    }
}

/// A piece of an arena that may overlap other such pieces.
///
/// Safe code cannot reach its contents: who may use the bytes when is what the memory plan and the
/// schedule decide together.
pub struct SharedRegion {
    claim: Claim,
}

impl SharedRegion {
    /// The place of the first byte in the arena.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.claim.range.start
    }

    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.claim.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        self.claim.as_ptr()
    }

    /// Whether the bytes are on a GPU.
    pub(crate) fn is_on_gpu(&self) -> bool {
        matches!(self.claim.arena.memory, Memory::Device(_))
    }
}

impl fmt::Debug for SharedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedRegion").field(&self.claim.range).finish()
    }
}

/// Zeroed private pages of this process, unmapped on drop.
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY:
// 1. The pages belong to the process, not to a thread: any thread may use and unmap them.
// 2. `Mapping` owns its pages alone; nothing else unmaps them.
unsafe impl Send for Mapping {}

// SAFETY:
// 1. A shared `Mapping` gives out addresses only (`at`); it reads and writes no page.
// 2. Who accesses the pages through such an address argues for itself that no other access races.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps at least `size` bytes. Pages are committed when first touched.
    fn new(size: Bytes, kind: DriverKind) -> Result<Self, DeviceError> {
        let failed = |cause| DeviceError::Os { call: "mmap", cause };
        // The system maps no empty range, so an empty arena has one page that nothing can reach.
        let length = usize::try_from(size.as_u64().max(1))
            .ok()
            .filter(|length| isize::try_from(*length).is_ok())
            .ok_or_else(|| failed(std::io::ErrorKind::OutOfMemory.into()))?;
        let flags = match kind {
            // The system counts the pages against what it can commit, so that it refuses here
            // and not with a kill at the first touch.
            DriverKind::Host => MapFlags::PRIVATE,
            // The memory of a simulated device may exceed the machine's; hardly any is touched.
            DriverKind::Sim => MapFlags::PRIVATE | MapFlags::NORESERVE,
            DriverKind::Cuda => unreachable!("a GPU's arena is the driver's allocation"),
        };
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY:
        // 1. No address is asked for and `FIXED` is not set, so no existing mapping is replaced.
        // 2. The length is not zero.
        let base =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, access, flags) }
                .map_err(|errno| failed(errno.into()))?;
        let base = NonNull::new(base.cast()).expect("the system maps nothing at address zero");
        debug_assert!(base.addr().get().is_multiple_of(ARENA_ALIGNMENT.as_usize()));
        Ok(Self { base, length })
    }

    /// The address `offset` bytes in.
    ///
    /// # Panics
    /// When the offset lies beyond the end, which no claim does.
    fn at(&self, offset: u64) -> NonNull<u8> {
        let offset = Bytes(offset).as_usize();
        assert!(offset <= self.length, "an address outside the arena");
        // SAFETY:
        // 1. The result lies in the mapping or one past its end: just checked.
        // 2. The mapping is one allocated object, whose length `new` keeps within `isize`.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY:
        // 1. Address and length are those of a mapping that `new` made and nothing else unmaps.
        // 2. No pointer into it is used any more: claims hold the arena (invariant 2), and users of
        //    raw pointers keep the claim (`interop`, point 2).
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
        // The system refuses only arguments that are no mapping, which would be a bug of ours.
        debug_assert!(unmapped.is_ok(), "unmapping an arena failed: {unmapped:?}");
    }
}

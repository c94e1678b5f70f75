//! Tensors with lifetimes: what a model needs, before anything has an address.
//!
//! Read [`TensorLifetime`] first, then [`TensorClass`]: the class decides what may share addresses,
//! the [`Lifespan`] only matters inside [`TensorClass::Scratch`].
//!
//! ```text
//!   class        lives                              its addresses
//!   Persistent   from admission to eviction         its own
//!   Io           before and after the job           its own
//!   Carried      from one stage to a later one      its own
//!   Scratch      inside one stage of one job        shared, see below
//! ```
//!
//! A partition runs one stage at a time, so scratch of different models never lives at once and
//! may share addresses whatever the lifespans say. Within one model it may share where the
//! lifespans do not overlap.
//!
//! # Invariants
//! 1. A [`Lifespan`] is half-open and never empty.
//! 2. Lifespans count execution steps of one model; those of different models are not comparable.
//! 3. Overlap and adjacency of lifespans are defined here, once, for every planner. The checker
//!    alone does not use them: it sweeps.

use aegis_cuda::memory::ARENA_ALIGNMENT;
use aegis_trace::{Bytes, ModelId, PartitionId, TensorId};

use crate::error::RequestFault;

/// The coarsest alignment a tensor can ask for, in bytes. An arena begins at a multiple of it, so
/// that an aligned offset is an aligned address.
pub const ALIGNMENT_MAX: u64 = ARENA_ALIGNMENT.as_u64();

/// The execution steps `[start, end)` of one model during which a tensor holds live data.
///
/// Steps are the indices of a model's operators in execution order, not times: what runs when is
/// the scheduler's business, what must coexist is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lifespan {
    start: u32,
    end: u32,
}

impl Lifespan {
    /// The steps from `start`, which writes the tensor, up to but not including `end`.
    ///
    /// # Errors
    /// [`RequestFault::EmptyLifespan`] (permanent) unless `start < end`.
    pub const fn new(start: u32, end: u32) -> Result<Self, RequestFault> {
        if start < end {
            Ok(Self { start, end })
        } else {
            Err(RequestFault::EmptyLifespan { start, end })
        }
    }

    /// The first step of the tensor's life.
    #[must_use]
    pub const fn start(self) -> u32 {
        self.start
    }

    /// The first step after the tensor's life.
    #[must_use]
    pub const fn end(self) -> u32 {
        self.end
    }

    /// Whether some step belongs to both. Adjacent lifespans do not overlap.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether one begins at the very step at which the other has ended, so that the addresses
    /// can pass from one tensor to the other without a step in between.
    #[must_use]
    pub const fn is_adjacent_to(self, other: Self) -> bool {
        self.end == other.start || other.end == self.start
    }
}

impl std::fmt::Display for Lifespan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// Who may share a tensor's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TensorClass {
    /// Weights and runtime state, alive from admission to eviction: never shared.
    Persistent,
    /// An input or output. It outlives the job, since the caller fills or reads it: never shared.
    Io,
    /// Alive between two stages of one model, while other models may run: never shared.
    ///
    /// Two carried tensors of one model could share by lifespan; this class forgoes that, so that
    /// nothing depends on how many jobs of the model are in progress.
    Carried,
    /// Alive inside one stage of one job: shared with the scratch of every other model of the
    /// partition, and with that of its own model where the lifespans do not overlap.
    Scratch,
}

impl TensorClass {
    /// Whether the tensor's addresses belong to it alone for as long as its model is admitted.
    #[must_use]
    pub const fn is_exclusive(self) -> bool {
        match self {
            Self::Persistent | Self::Io | Self::Carried => true,
            Self::Scratch => false,
        }
    }
}

/// What one tensor needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorLifetime {
    /// Which tensor; unique within its model.
    pub tensor: TensorId,
    /// Who may share its addresses.
    pub class: TensorClass,
    /// When it holds live data, in steps of its model. Only scratch is planned by it.
    pub span: Lifespan,
    /// How many bytes; not zero.
    pub size: Bytes,
    /// What its offset must be a multiple of, in bytes; a power of two, [`ALIGNMENT_MAX`] at most.
    pub alignment: u64,
}

/// What one model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelMemory {
    /// Which model.
    pub model: ModelId,
    /// The serial executor that it runs on: scratch is shared within one alone.
    pub partition: PartitionId,
    /// Its tensors, in any order.
    pub tensors: Vec<TensorLifetime>,
}

impl ModelMemory {
    /// The same memory where no other model runs between two stages of one of this model's jobs: what
    /// is carried is scratch, shared by lifespan. O(n).
    #[must_use]
    pub fn never_suspended(mut self) -> Self {
        for tensor in &mut self.tensors {
            if tensor.class == TensorClass::Carried {
                tensor.class = TensorClass::Scratch;
            }
        }
        self
    }

    /// The tensors whose addresses are theirs alone.
    pub fn exclusive(&self) -> impl Iterator<Item = &TensorLifetime> {
        self.tensors.iter().filter(|tensor| tensor.class.is_exclusive())
    }

    /// The tensors that share addresses.
    pub fn scratch(&self) -> impl Iterator<Item = &TensorLifetime> {
        self.tensors.iter().filter(|tensor| !tensor.class.is_exclusive())
    }

    /// What the model holds whether it runs or not: every tensor but scratch, each rounded up to
    /// its own alignment, so that an empty range of this size that begins aligned holds them all.
    ///
    /// Saturates at 2^64 - 1 bytes, which no device has. O(n) in the number of tensors. For what
    /// it needs on top while it runs, see [`scratch_peak`](Self::scratch_peak).
    #[must_use]
    pub fn resident(&self) -> Bytes {
        self.exclusive().fold(Bytes::ZERO, |sum, tensor| {
            let padded = tensor.size.checked_align_up(tensor.alignment.max(1));
            padded.and_then(|size| sum.checked_add(size)).unwrap_or(Bytes(u64::MAX))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u32, end: u32) -> Lifespan {
        Lifespan::new(start, end).expect("not empty")
    }

    #[test]
    fn an_empty_or_reversed_lifespan_is_refused() {
        assert_eq!(Lifespan::new(3, 3), Err(RequestFault::EmptyLifespan { start: 3, end: 3 }));
        assert_eq!(Lifespan::new(4, 3), Err(RequestFault::EmptyLifespan { start: 4, end: 3 }));
    }

    #[test]
    fn overlap_is_what_a_shared_step_means() {
        let spans: Vec<_> =
            (0..6).flat_map(|start| (start + 1..7).map(move |end| span(start, end))).collect();
        for a in &spans {
            for b in &spans {
                let shared = (0..7).any(|step| {
                    (a.start()..a.end()).contains(&step) && (b.start()..b.end()).contains(&step)
                });
                assert_eq!(a.overlaps(*b), shared, "{a} and {b}");
                assert_eq!(a.is_adjacent_to(*b), b.is_adjacent_to(*a), "{a} and {b}");
                assert!(!(a.overlaps(*b) && a.is_adjacent_to(*b)), "{a} and {b}");
            }
        }
    }

    #[test]
    fn adjacent_lifespans_meet_at_a_step_that_belongs_to_one() {
        assert!(span(0, 3).is_adjacent_to(span(3, 5)));
        assert!(!span(0, 3).is_adjacent_to(span(4, 5)));
        assert!(!span(0, 3).is_adjacent_to(span(2, 5)));
    }

    #[test]
    fn resident_memory_is_everything_but_scratch_each_padded_to_its_alignment() {
        let tensor = |index, class, size, alignment| TensorLifetime {
            tensor: TensorId::first(index),
            class,
            span: span(0, 1),
            size: Bytes(size),
            alignment,
        };
        let memory = ModelMemory {
            model: ModelId::first(0),
            partition: PartitionId::WHOLE,
            tensors: vec![
                tensor(0, TensorClass::Persistent, 300, 256),
                tensor(1, TensorClass::Io, 64, 64),
                tensor(2, TensorClass::Carried, 65, 64),
                tensor(3, TensorClass::Scratch, 1 << 30, 256),
            ],
        };
        assert_eq!(memory.resident(), Bytes(512 + 64 + 128));
        assert_eq!(memory.exclusive().count(), 3);
        assert_eq!(memory.scratch().count(), 1);
    }

    #[test]
    fn what_is_never_suspended_carries_nothing() {
        let tensor = |index, class, span| TensorLifetime {
            tensor: TensorId::first(index),
            class,
            span,
            size: Bytes(64),
            alignment: 64,
        };
        let (model, partition) = (ModelId::first(0), PartitionId::WHOLE);
        let with = |carried| {
            let tensors = vec![
                tensor(0, TensorClass::Persistent, span(0, 3)),
                tensor(1, carried, span(0, 2)),
                tensor(2, carried, span(1, 3)),
                tensor(3, TensorClass::Scratch, span(2, 3)),
                tensor(4, TensorClass::Io, span(0, 3)),
            ];
            ModelMemory { model, partition, tensors }
        };
        let memory = with(TensorClass::Carried);
        assert_eq!(memory.clone().never_suspended(), with(TensorClass::Scratch));
        assert_eq!(memory.resident(), Bytes(4 * 64));
        assert_eq!(memory.never_suspended().resident(), Bytes(2 * 64));
    }

    #[test]
    fn absurd_sizes_saturate_instead_of_wrapping() {
        let huge = TensorLifetime {
            tensor: TensorId::first(0),
            class: TensorClass::Persistent,
            span: span(0, 1),
            size: Bytes(u64::MAX),
            alignment: 256,
        };
        let (model, partition) = (ModelId::first(0), PartitionId::WHOLE);
        let memory = ModelMemory { model, partition, tensors: vec![huge, huge] };
        assert_eq!(memory.resident(), Bytes(u64::MAX));
    }
}

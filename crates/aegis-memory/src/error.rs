//! What can go wrong with requests, plans and bindings.
//!
//! Four kinds, kept apart: a [`RequestFault`] is the caller's, a [`PlanFault`] the planner's, an
//! [`UnknownBlock`] the foreign runtime's; [`MemoryError`] is what the orchestrator answers, and
//! wraps the first two.

use aegis_cuda::DeviceError;
use aegis_trace::{Bytes, Category, ModelId, Refusal, TensorId};

use crate::lifetime::ALIGNMENT_MAX;
use crate::plan::Placement;

/// A request that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestFault {
    /// A lifespan without a step.
    #[error("lifespan [{start}, {end}) holds no step")]
    EmptyLifespan {
        /// Its first step.
        start: u32,
        /// The step after its last.
        end: u32,
    },
    /// A model appears twice.
    #[error("{model} is listed more than once")]
    RepeatedModel {
        /// The model.
        model: ModelId,
    },
    /// A tensor appears twice in its model.
    #[error("{tensor} of {model} is listed more than once")]
    RepeatedTensor {
        /// Whose.
        model: ModelId,
        /// Which.
        tensor: TensorId,
    },
    /// A tensor of no bytes needs no address, and would get one that another tensor has.
    #[error("{tensor} of {model} has no bytes")]
    EmptyTensor {
        /// Whose.
        model: ModelId,
        /// Which.
        tensor: TensorId,
    },
    /// An alignment that is not a power of two, or that no arena can promise.
    #[error(
        "{tensor} of {model} has alignment {alignment}, which is not a power of two up to \
         {ALIGNMENT_MAX}"
    )]
    BadAlignment {
        /// Whose.
        model: ModelId,
        /// Which.
        tensor: TensorId,
        /// The alignment.
        alignment: u64,
    },
    /// A fixed placement without a tensor of its own.
    #[error("{tensor} of {model} is fixed but not requested, or fixed twice")]
    FixedUnknown {
        /// Whose.
        model: ModelId,
        /// Which.
        tensor: TensorId,
    },
}

impl RequestFault {
    /// Always [`Category::Permanent`]: the request must change.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::EmptyLifespan { .. }
            | Self::RepeatedModel { .. }
            | Self::RepeatedTensor { .. }
            | Self::EmptyTensor { .. }
            | Self::BadAlignment { .. }
            | Self::FixedUnknown { .. } => Category::Permanent,
        }
    }
}

/// Buffers that are no placement problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemFault {
    /// A buffer that never lives.
    #[error("buffer {index} ends before it begins to live, or at once")]
    EmptyLife {
        /// Which.
        index: usize,
    },
    /// No number is a multiple of zero but zero itself.
    #[error("buffer {index} has alignment 0")]
    ZeroAlignment {
        /// Which.
        index: usize,
    },
    /// With this buffer, sizes and padding add up to more than any address space.
    #[error("with buffer {index}, sizes and padding add up to more than 2^63 - 1 bytes")]
    TooLarge {
        /// Which.
        index: usize,
    },
}

impl ProblemFault {
    /// Always [`Category::Permanent`]: the problem must change.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::EmptyLife { .. } | Self::ZeroAlignment { .. } | Self::TooLarge { .. } => {
                Category::Permanent
            }
        }
    }
}

/// What the checker found wrong with bare offsets. Buffers are told by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OffsetFault {
    /// Not one offset for each buffer.
    #[error("{offsets} offsets for {buffers} buffers")]
    Count {
        /// How many buffers there are.
        buffers: usize,
        /// How many offsets were given.
        offsets: usize,
    },
    /// An offset that is no multiple of the buffer's alignment.
    #[error("buffer {index} lies at {offset}, but its alignment is {alignment}")]
    Misaligned {
        /// Which.
        index: usize,
        /// Where it lies.
        offset: u64,
        /// What its offset must be a multiple of.
        alignment: u64,
    },
    /// A buffer that reaches past the capacity.
    #[error("buffer {index} at {offset} ends past the capacity of {} bytes", capacity.0)]
    OutOfRange {
        /// Which.
        index: usize,
        /// Where it lies.
        offset: u64,
        /// The capacity.
        capacity: Bytes,
    },
    /// Two buffers share bytes while both live.
    #[error("buffers {lower} and {upper} share bytes at time {time}")]
    Overlap {
        /// The one with the lower offset.
        lower: usize,
        /// The other.
        upper: usize,
        /// The first time at which both live.
        time: i64,
    },
}

impl OffsetFault {
    /// Always [`Category::Permanent`]: the same offsets are refused again.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Count { .. }
            | Self::Misaligned { .. }
            | Self::OutOfRange { .. }
            | Self::Overlap { .. } => Category::Permanent,
        }
    }
}

/// What the checker found wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanFault {
    /// The request itself means nothing.
    #[error("the plan answers a faulty request")]
    Request(#[from] RequestFault),
    /// The plan was made for a range of another size.
    #[error("the plan is for {planned}, the request for {requested}")]
    Capacity {
        /// The plan's range.
        planned: Bytes,
        /// The request's range.
        requested: Bytes,
    },
    /// A tensor without an offset.
    #[error("{tensor} of {model} has no offset")]
    Missing {
        /// Whose.
        model: ModelId,
        /// Which.
        tensor: TensorId,
    },
    /// A tensor with more than one offset.
    #[error("{tensor} of {model} has more than one offset")]
    Repeated {
        /// Whose.
        model: ModelId,
        /// Which.
        tensor: TensorId,
    },
    /// An offset for a tensor nobody asked for.
    #[error("{tensor} of {model} was not requested")]
    Unrequested {
        /// Whose.
        model: ModelId,
        /// Which.
        tensor: TensorId,
    },
    /// A tensor with another size than it asked for.
    #[error("{placed}, but its size is {} bytes", requested.0)]
    Size {
        /// As planned.
        placed: Placement,
        /// The size it asked for.
        requested: Bytes,
    },
    /// An offset that is no multiple of the tensor's alignment.
    #[error("{placed}, but its alignment is {alignment}")]
    Misaligned {
        /// As planned.
        placed: Placement,
        /// What the offset must be a multiple of.
        alignment: u64,
    },
    /// A tensor that reaches past the range.
    #[error("{placed}, but the range ends at {}", capacity.0)]
    OutOfRange {
        /// As planned.
        placed: Placement,
        /// The size of the range.
        capacity: Bytes,
    },
    /// A tensor that was bound somewhere else.
    #[error("{placed}, but it is bound at {bound_at}")]
    Moved {
        /// As planned.
        placed: Placement,
        /// Where it is.
        bound_at: u64,
    },
    /// Two tensors share bytes, and one of them must not share.
    #[error("{lower} and {upper} overlap, and one is exclusive")]
    Shared {
        /// The one with the lower offset.
        lower: Placement,
        /// The other.
        upper: Placement,
    },
    /// Scratch of two partitions shares bytes.
    #[error("{lower} and {upper} overlap, and their partitions run at once")]
    AcrossPartitions {
        /// The one with the lower offset.
        lower: Placement,
        /// The other.
        upper: Placement,
    },
    /// Two scratch tensors of one model share bytes while both are live.
    #[error("{lower} and {upper} overlap, and both are live at step {step}")]
    LiveTogether {
        /// The one with the lower offset.
        lower: Placement,
        /// The other.
        upper: Placement,
        /// The first step at which both are live.
        step: u32,
    },
}

impl PlanFault {
    /// Always [`Category::Permanent`]: the same plan is refused again.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Request(fault) => fault.category(),
            Self::Capacity { .. }
            | Self::Missing { .. }
            | Self::Repeated { .. }
            | Self::Unrequested { .. }
            | Self::Size { .. }
            | Self::Misaligned { .. }
            | Self::OutOfRange { .. }
            | Self::Moved { .. }
            | Self::Shared { .. }
            | Self::AcrossPartitions { .. }
            | Self::LiveTogether { .. } => Category::Permanent,
        }
    }
}

/// Thresholds that name no levels, or a request that the level of pressure refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PressureError {
    /// A band whose leaving end is not above its entering end: the level would flutter.
    #[error("a level that is entered below {} must be left above that, not at {}", enter.0, leave.0)]
    NoHysteresis {
        /// Free memory below which the level is entered.
        enter: Bytes,
        /// Free memory at which it is left.
        leave: Bytes,
    },
    /// The critical level would be entered before the low one, or left after it.
    #[error("the critical level must lie within the low one at both ends")]
    NotNested,
    /// The level refuses new models.
    #[error("no new model while free memory is {level}: {free} are free, and {needed} must be")]
    Refused {
        /// The level.
        level: crate::pressure::PressureLevel,
        /// Free memory when last observed.
        free: Bytes,
        /// Free memory at which new models are accepted again.
        needed: Bytes,
    },
}

impl PressureError {
    /// A refusal passes with time; thresholds must change.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::NoHysteresis { .. } | Self::NotNested => Category::Permanent,
            Self::Refused { .. } => Category::Transient,
        }
    }
}

/// A buffer that holds no whole number of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// Size or offset is no multiple of the element's size.
    #[error("{length} bytes at {offset} are no whole number of aligned elements of {size} bytes")]
    Uneven {
        /// Where the buffer begins.
        offset: u64,
        /// How many bytes it has.
        length: u64,
        /// The size of an element in bytes.
        size: u64,
    },
}

impl ViewError {
    /// Always [`Category::Permanent`].
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Uneven { .. } => Category::Permanent,
        }
    }
}

/// An offset at which no live block begins: freed twice, or never allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no live block begins at offset {offset}")]
pub struct UnknownBlock {
    /// What was to be freed.
    pub offset: u64,
}

impl UnknownBlock {
    /// Always [`Category::Permanent`].
    #[must_use]
    pub fn category(&self) -> Category {
        Category::Permanent
    }
}

/// Why the orchestrator did not do what it was asked; its state is then what it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The models do not fit: the inequality that failed, with its numbers.
    #[error("{why}{}", in_holes(*holes))]
    Refused {
        /// Always [`Refusal::DeviceMemory`]. Its `persistent` is where the last resident byte
        /// would end, holes below it included. Its `replanned` says whether a plan of all models
        /// anew would fit.
        why: Refusal,
        /// Bytes below that end which no tensor uses: lost to alignment and to evicted models.
        holes: Bytes,
    },
    /// The request means nothing.
    #[error("the memory request is faulty")]
    Request(#[from] RequestFault),
    /// The checker refused the planner's plan: a defect of this crate.
    #[error("the planner's plan did not pass the checker")]
    Plan(#[from] PlanFault),
    /// The set of bound models changed since the plan was made; plan again.
    #[error("{model} was planned against generation {planned}, but {current} is current")]
    Stale {
        /// The model to be bound.
        model: ModelId,
        /// The generation the plan was made against.
        planned: u64,
        /// The generation now.
        current: u64,
    },
    /// The plan was made by another orchestrator, around what is bound there.
    #[error("{model} was planned by another orchestrator")]
    Foreign {
        /// The model to be bound.
        model: ModelId,
    },
    /// The model is bound already.
    #[error("{model} is bound already")]
    AlreadyBound {
        /// The model.
        model: ModelId,
    },
    /// No such model is bound.
    #[error("{model} is not bound")]
    NotBound {
        /// The model.
        model: ModelId,
    },
    /// Some of the model's memory is still held by whoever took it from the binding.
    #[error("memory of {model} is still in use")]
    InUse {
        /// The model.
        model: ModelId,
    },
    /// The device did not hand out the planned addresses.
    #[error("the device could not bind memory of {model}")]
    Device {
        /// Whose.
        model: ModelId,
        /// What the device said.
        #[source]
        cause: DeviceError,
    },
}

/// The end of a refusal's message: what re-planning everything could win at most.
fn in_holes(holes: Bytes) -> String {
    if holes == Bytes::ZERO { String::new() } else { format!("; {holes} of it in holes") }
}

impl MemoryError {
    /// What the caller can do: retry, give up on the request, or end the process.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Refused { why, .. } => why.category(),
            Self::Request(fault) => fault.category(),
            Self::Plan(fault) => fault.category(),
            Self::Stale { .. } | Self::InUse { .. } => Category::Transient,
            Self::Foreign { .. } | Self::AlreadyBound { .. } | Self::NotBound { .. } => {
                Category::Permanent
            }
            Self::Device { cause, .. } => cause.category(),
        }
    }

    /// How much a plan of everything anew would save, when it would fit.
    #[must_use]
    pub fn saved_by_replanning(&self) -> Option<Bytes> {
        match self {
            Self::Refused { why, .. } => why.saved_by_replanning(),
            _ => None,
        }
    }

    /// The inequality that failed, when that is what happened.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { why, .. } => Some(why),
            Self::Request(_)
            | Self::Plan(_)
            | Self::Stale { .. }
            | Self::Foreign { .. }
            | Self::AlreadyBound { .. }
            | Self::NotBound { .. }
            | Self::InUse { .. }
            | Self::Device { .. } => None,
        }
    }
}

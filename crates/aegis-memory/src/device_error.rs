//! What can go wrong with the models of a whole device and with plans for them.

use aegis_trace::{Bytes, Category, ModelId, PartitionId, TensorId};

use crate::error::MemoryError;
use crate::plan::Placement;

/// Stages or limits that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExclusivityFault {
    /// A model appears twice.
    #[error("{model} is listed more than once")]
    RepeatedModel {
        /// The model.
        model: ModelId,
    },
    /// Cuts that make a stage empty.
    #[error("the cuts of {model} do not ascend from a step past the first")]
    CutsDoNotAscend {
        /// The model.
        model: ModelId,
    },
    /// One model too many may be suspended.
    #[error(
        "{model} would be one more than the {limit} models of {partition} that may be suspended"
    )]
    TooManySuspended {
        /// The model.
        model: ModelId,
        /// Its partition.
        partition: PartitionId,
        /// How many may be.
        limit: u32,
    },
}

impl ExclusivityFault {
    /// Always [`Category::Permanent`]: the setting must change.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::RepeatedModel { .. }
            | Self::CutsDoNotAscend { .. }
            | Self::TooManySuspended { .. } => Category::Permanent,
        }
    }
}

/// What the checker found wrong with a plan for a whole device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DevicePlanFault {
    /// A model names a tensor twice.
    #[error("{tensor} of {model} is listed more than once")]
    RepeatedTensor {
        /// Whose.
        model: ModelId,
        /// Which.
        tensor: TensorId,
    },
    /// An offset for a tensor nobody asked for, or a second one.
    #[error("{tensor} of {model} was not requested, or has more than one offset")]
    Unrequested {
        /// Whose.
        model: ModelId,
        /// Which.
        tensor: TensorId,
    },
    /// A tensor without an offset.
    #[error("{tensor} of {model} has no offset")]
    Missing {
        /// Whose.
        model: ModelId,
        /// Which.
        tensor: TensorId,
    },
    /// Another size than was asked for, or an offset that is not aligned.
    #[error("{placement} has another size than asked for, or is not aligned")]
    Misplaced {
        /// As planned.
        placement: Placement,
    },
    /// A tensor that reaches past the device.
    #[error("{placement}, but the range ends at {}", capacity.0)]
    OutOfRange {
        /// As planned.
        placement: Placement,
        /// The size of the range.
        capacity: Bytes,
    },
    /// Two tensors share bytes, and the schedule lets both be live at one moment.
    #[error("{lower} and {upper} overlap, and may both be live")]
    Shared {
        /// The one with the lower offset.
        lower: Placement,
        /// The other.
        upper: Placement,
    },
}

impl DevicePlanFault {
    /// Always [`Category::Permanent`]: the same plan is refused again.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::RepeatedTensor { .. }
            | Self::Unrequested { .. }
            | Self::Missing { .. }
            | Self::Misplaced { .. }
            | Self::OutOfRange { .. }
            | Self::Shared { .. } => Category::Permanent,
        }
    }
}

/// Why there is no plan for a whole device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevicePlanError {
    /// It does not fit, or a model is faulty.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The checker refused the planner's plan: a defect of this crate.
    #[error("the planner's plan of the device did not pass the checker")]
    Plan(#[from] DevicePlanFault),
}

impl DevicePlanError {
    /// What the caller can do.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Memory(error) => error.category(),
            Self::Plan(fault) => fault.category(),
        }
    }
}

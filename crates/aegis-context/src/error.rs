//! What can go wrong inside one execution context.

use aegis_cuda::DeviceError;
use aegis_memory::MemoryError;
use aegis_trace::{Bytes, Category, ModelId, StageIndex};

use crate::description::{DType, TensorSpec};

/// A failure of a foreign runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The runtime's library could not be found or loaded.
    #[error("the library of {runtime} is not usable: {reason}; {remedy}")]
    Library {
        /// The runtime.
        runtime: &'static str,
        /// What the loader said.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The model's file could not be read.
    #[error("{path} could not be read")]
    File {
        /// Which file.
        path: String,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The runtime does not accept the model.
    #[error("{path} is not a model this runtime accepts: {reason}")]
    BadModel {
        /// Which file.
        path: String,
        /// What the runtime said.
        reason: String,
    },
    /// A compiled model is of another version of the runtime.
    #[error("{path} was not built by this version of its runtime: {reason}")]
    OtherVersion {
        /// Which file.
        path: String,
        /// What the runtime said.
        reason: String,
    },
    /// A compiled model cannot run on this device, or its runtime on none of this kind.
    #[error("{path} cannot run on this device: {reason}")]
    OtherDevice {
        /// Which file.
        path: String,
        /// What the runtime said.
        reason: String,
    },
    /// A dimension is not known before the run.
    #[error(
        "{path}: dimension {axis} of `{tensor}` is dynamic{symbol}; AegisRT plans memory and time \
         before the run, so export the model with fixed shapes (one file per shape you need)"
    )]
    DynamicShape {
        /// Which file.
        path: String,
        /// Which tensor.
        tensor: String,
        /// Which axis, counted from zero.
        axis: usize,
        /// ` (symbol)` when the model names it, else nothing.
        symbol: String,
    },
    /// An element type that cannot be bound.
    #[error("{path}: `{tensor}` has elements of type {dtype}, which cannot be bound")]
    UnsupportedType {
        /// Which file.
        path: String,
        /// Which tensor.
        tensor: String,
        /// The runtime's name for the type.
        dtype: String,
    },
    /// The stages of a model do not fit together.
    #[error("the stages do not fit together: stage {stage} has {tensor}")]
    BrokenChain {
        /// Which stage.
        stage: StageIndex,
        /// Which tensor, and what is wrong with it.
        tensor: String,
    },
    /// The binding does not hold what the model declared.
    #[error("the memory binding does not fit the model: {reason}")]
    BadBinding {
        /// What is wrong.
        reason: String,
    },
    /// The runtime asked for memory beyond its binding.
    #[error("the runtime asked for {requested} with {available} of its scratch left")]
    OutOfScratch {
        /// What it asked for.
        requested: Bytes,
        /// What was left.
        available: Bytes,
    },
    /// The runtime found no memory, of the host or of the device, outside its binding.
    #[error("the runtime is out of memory: {reason}")]
    OutOfMemory {
        /// What it said.
        reason: String,
    },
    /// The runtime failed.
    #[error("the runtime failed: {reason}")]
    Runtime {
        /// What it said.
        reason: String,
    },
    /// The device refused or failed.
    #[error("the device failed")]
    Device(#[from] DeviceError),
}

impl BackendError {
    /// The runtime failed, and said `reason`.
    #[must_use]
    pub fn runtime(reason: String) -> Self {
        Self::Runtime { reason }
    }

    /// What the caller can do.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Library { .. }
            | Self::File { .. }
            | Self::BadModel { .. }
            | Self::OtherVersion { .. }
            | Self::OtherDevice { .. }
            | Self::DynamicShape { .. }
            | Self::UnsupportedType { .. }
            | Self::BrokenChain { .. }
            | Self::BadBinding { .. }
            | Self::OutOfScratch { .. }
            | Self::OutOfMemory { .. }
            | Self::Runtime { .. } => Category::Permanent,
            Self::Device(cause) => cause.category(),
        }
    }
}

/// A failure inside one execution context; others are unaffected unless it is fatal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// Every stream of the partition is lent.
    #[error("all {limit} streams are in use")]
    StreamsExhausted {
        /// How many there are.
        limit: usize,
    },
    /// The context cannot launch in its present state.
    #[error("{model} cannot launch while {state}")]
    NotReady {
        /// Which model.
        model: ModelId,
        /// Its state.
        state: &'static str,
    },
    /// A charge would exceed a memory budget.
    #[error("{requested} more would exceed the memory budget of {limit}, of which {used} are used")]
    MemoryBudget {
        /// What was asked for.
        requested: Bytes,
        /// What is used already.
        used: Bytes,
        /// The budget.
        limit: Bytes,
    },
    /// The backend failed.
    #[error("the backend failed")]
    Backend(#[from] BackendError),
    /// The memory plan failed.
    #[error("memory could not be bound")]
    Memory(#[from] MemoryError),
    /// The device failed.
    #[error("the device failed")]
    Device(#[from] DeviceError),
}

impl ContextError {
    /// What the caller can do: retry, give up on the request, or end the process.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::StreamsExhausted { .. } => Category::Transient,
            Self::NotReady { .. } | Self::MemoryBudget { .. } => Category::Permanent,
            Self::Backend(cause) => cause.category(),
            Self::Memory(cause) => cause.category(),
            Self::Device(cause) => cause.category(),
        }
    }
}

/// An input or output that does not fit the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// No tensor of that name.
    #[error("the model has no tensor `{name}`; it has {known}")]
    UnknownName {
        /// What was given.
        name: String,
        /// What there is.
        known: String,
    },
    /// An input was given twice.
    #[error("input `{name}` is given twice")]
    Duplicate {
        /// Which.
        name: String,
    },
    /// An input was not given.
    #[error("input `{name}` is missing")]
    Missing {
        /// Which.
        name: String,
    },
    /// Elements of another type.
    #[error("`{spec}` was given elements of type {given}")]
    WrongType {
        /// What the model wants.
        spec: Box<TensorSpec>,
        /// What was given.
        given: DType,
    },
    /// Another shape.
    #[error("`{spec}` was given shape {given:?}")]
    WrongShape {
        /// What the model wants.
        spec: Box<TensorSpec>,
        /// What was given.
        given: Vec<usize>,
    },
    /// Another number of bytes.
    #[error("`{spec}` takes {} bytes and was given {given}", spec.bytes())]
    WrongLength {
        /// What the model wants.
        spec: Box<TensorSpec>,
        /// What was given.
        given: usize,
    },
}

impl InputError {
    /// Always [`Category::Permanent`].
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::UnknownName { .. }
            | Self::Duplicate { .. }
            | Self::Missing { .. }
            | Self::WrongType { .. }
            | Self::WrongShape { .. }
            | Self::WrongLength { .. } => Category::Permanent,
        }
    }
}

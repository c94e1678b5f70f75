//! A trace that cannot be replayed, and where it stands in the way.

use aegis_cuda::DeviceError;
use aegis_trace::{Category, ModelId, Timestamp, TraceError};

use crate::admission::AdmissionError;

/// Why a trace cannot be replayed. `line` counts the lines of its file from one, the header first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Events are missing.
    #[error("{count} events were lost while recording, so what is left cannot be replayed")]
    Dropped {
        /// How many.
        count: u64,
    },
    /// Nothing says what the run was configured with.
    #[error("the trace has no `configured` event, without which no decision can be recomputed")]
    NotConfigured,
    /// Two executors of one name, or of one recorder.
    #[error("line {line}: an executor is configured twice")]
    ConfiguredTwice {
        /// Where.
        line: usize,
    },
    /// A configuration that no run can have.
    #[error("line {line}: the configuration cannot be: {problem}")]
    BadConfiguration {
        /// Where.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More executors than a replay takes, since it goes through the trace once for each.
    #[error("line {line}: more than {limit} executors are configured, and no more are replayed")]
    TooManyExecutors {
        /// Where the first is that is too many.
        line: usize,
        /// The limit.
        limit: usize,
    },
    /// An event of a dispatcher that no configuration stands for.
    #[error("line {line}: recorder {by} decides, and no `configured` event of it came before")]
    NoExecutor {
        /// Where.
        line: usize,
        /// Which recorder.
        by: u32,
    },
    /// A partition that is not configured, or a model outside of it.
    #[error("line {line}: no executor that is configured has a place for {model}")]
    NoPlace {
        /// Where.
        line: usize,
        /// Which model.
        model: String,
    },
    /// A model is used that was never admitted.
    #[error("line {line}: {model} was not admitted before")]
    UnknownModel {
        /// Where.
        line: usize,
        /// Which model.
        model: ModelId,
    },
    /// A model is admitted twice.
    #[error("line {line}: {model} was admitted before")]
    AdmittedTwice {
        /// Where.
        line: usize,
        /// Which model.
        model: ModelId,
    },
    /// A model is freed that is not there, or not any more.
    #[error("line {line}: {model} is freed and is not there")]
    NotThere {
        /// Where.
        line: usize,
        /// Which model.
        model: ModelId,
    },
    /// A model is used while another has its place.
    #[error("line {line}: {model} is used while {tenant} has its place")]
    PlaceTaken {
        /// Where.
        line: usize,
        /// Which model.
        model: ModelId,
        /// Who has it.
        tenant: ModelId,
    },
    /// The events of one dispatcher are not in the order of their times.
    #[error("line {line}: time goes back, from {before} to {at}")]
    Backwards {
        /// Where.
        line: usize,
        /// The time there.
        at: Timestamp,
        /// The time of the event before it.
        before: Timestamp,
    },
    /// A stage that ended before it began, or after that was noticed; or a time beyond all times.
    #[error("line {line}: the times cannot be: {problem}")]
    BadTimes {
        /// Where.
        line: usize,
        /// What is wrong with them.
        problem: &'static str,
    },
    /// What admission was asked makes no sense.
    #[error("line {line}: the terms cannot be")]
    BadTerms {
        /// Where.
        line: usize,
        /// What admission says.
        #[source]
        cause: Box<AdmissionError>,
    },
    /// The terms of an admitted model make no sense.
    #[error("line {line}: {model} cannot be: {problem}")]
    BadModel {
        /// Where.
        line: usize,
        /// Which model.
        model: ModelId,
        /// What is wrong with it.
        problem: String,
    },
    /// One decision, or the steps at one point in time, recorded more than is kept.
    #[error("line {line}: one decision or point in time has more than {limit} events")]
    TooManyEvents {
        /// Where.
        line: usize,
        /// The limit.
        limit: usize,
    },
    /// More would have to be kept in memory than a replay keeps.
    #[error(
        "line {line}: up to here more than {limit} jobs, stages and changes would have to be kept in \
         memory, and no more are"
    )]
    TooMuch {
        /// Where.
        line: usize,
        /// The limit.
        limit: usize,
    },
    /// The records could not be gone through again.
    #[error("the trace could not be read again")]
    Read(#[from] TraceError),
    /// The simulated device that stands in for the real one failed.
    #[error("no device could stand in for the real one")]
    StandIn(#[from] DeviceError),
}

impl ReplayError {
    /// What the caller can do: nothing but give another trace.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::StandIn(cause) => cause.category(),
            Self::Read(cause) => cause.category(),
            Self::Dropped { .. }
            | Self::NotConfigured
            | Self::ConfiguredTwice { .. }
            | Self::BadConfiguration { .. }
            | Self::TooManyExecutors { .. }
            | Self::NoExecutor { .. }
            | Self::NoPlace { .. }
            | Self::UnknownModel { .. }
            | Self::AdmittedTwice { .. }
            | Self::NotThere { .. }
            | Self::PlaceTaken { .. }
            | Self::Backwards { .. }
            | Self::BadTimes { .. }
            | Self::BadTerms { .. }
            | Self::BadModel { .. }
            | Self::TooManyEvents { .. }
            | Self::TooMuch { .. } => Category::Permanent,
        }
    }
}

/// The line of the trace file on which the record of this place stands.
pub(super) fn line_of(record: usize) -> usize {
    record + 2 // Lines count from one, and the first is the header.
}

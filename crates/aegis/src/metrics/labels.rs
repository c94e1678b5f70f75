//! The labels of the metrics.
//!
//! Values of closed enums are written as the trace file writes them, by the same code.

use aegis_trace::{Assumption, Category, DropReason, SubmitRefusal};
use prometheus_client::encoding::EncodeLabelSet;
use serde::Serialize;

/// Of which model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfModel {
    pub(super) model: String,
}

/// Of which model, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelReason {
    pub(super) model: String,
    pub(super) reason: String,
}

/// Of which model, and what its job broke.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelAssumption {
    pub(super) model: String,
    pub(super) assumption: String,
}

/// Of which model, and what caused it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelCause {
    pub(super) model: String,
    /// `none` or `broken_assumption`.
    pub(super) cause: &'static str,
}

/// Of which model, and what the caller can do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelCategory {
    pub(super) model: String,
    pub(super) category: String,
}

/// Why, where there is no model yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfReason {
    pub(super) reason: String,
}

/// Of which stage of a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfStage {
    pub(super) model: String,
    pub(super) stage: u64,
}

/// Of which stage of a model, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StageReason {
    pub(super) model: String,
    pub(super) stage: u64,
    pub(super) reason: String,
}

/// Which part of a model's memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfMemory {
    pub(super) model: String,
    /// `resident` or `scratch`.
    pub(super) kind: &'static str,
}

/// What a model is, as labels of a constant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelInfo {
    pub(super) model: String,
    pub(super) id: String,
    /// Empty where the device is not split.
    pub(super) partition: String,
    /// `guaranteed`, `background` or `server`.
    pub(super) service: String,
}

/// The reasons that a job of a model can be dropped for, so that each begins at zero.
pub(super) const DROP_REASONS: [DropReason; 6] = [
    DropReason::Stopping,
    DropReason::ModelFenced,
    DropReason::ComputeBudget,
    DropReason::ComputeDebt,
    DropReason::CannotFinish,
    DropReason::Overrun,
];

/// The reasons that a submission can be turned away for.
pub(super) const SUBMIT_REFUSALS: [SubmitRefusal; 5] = [
    SubmitRefusal::QueueFull,
    SubmitRefusal::NoSlot,
    SubmitRefusal::ModelFenced,
    SubmitRefusal::ModelEvicted,
    SubmitRefusal::NotRunning,
];

/// What a failure can be.
pub(super) const CATEGORIES: [Category; 3] =
    [Category::Transient, Category::Permanent, Category::Fatal];

/// What a job can break.
pub(super) const ASSUMPTIONS: [Assumption; 5] = [
    Assumption::ExecutionTime,
    Assumption::DispatchOverhead,
    Assumption::WakeLatency,
    Assumption::ReleaseJitter,
    Assumption::LeftUpload,
];

/// The name that the trace file gives to a variant: itself, or the value of its `tag`.
pub(super) fn name(variant: &impl Serialize, tag: &str) -> String {
    let value = serde_json::to_value(variant).unwrap_or_default();
    let name = value.as_str().or_else(|| value.get(tag)?.as_str());
    name.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use aegis_trace::{Refusal, ServiceTerms};

    use super::*;

    #[test]
    fn names_are_those_of_the_trace_file() {
        assert_eq!(name(&DropReason::CannotFinish, ""), "cannot_finish");
        assert_eq!(name(&Refusal::TooManyModels { limit: 1 }, "refusal"), "too_many_models");
        assert_eq!(name(&ServiceTerms::Background, "service"), "background");
    }
}

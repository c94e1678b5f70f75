//! Models as the trace knows them: what was promised to one, and what one was refused.
//!
//! # Invariants
//! 1. What is here is all that a replay needs to ask admission the same again, but for the tensors
//!    that memory was planned for.

use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;
use crate::service::ServiceTerms;
use crate::unit::{Bytes, Nanos};

/// What was promised to an admitted model, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmittedModel {
    /// The model's name in the workload.
    pub name: String,
    /// The kind of service, with its numbers.
    #[serde(flatten)]
    pub service: ServiceTerms,
    /// Worst-case execution time of each stage, without overheads.
    pub stages: Vec<Nanos>,
    /// How its jobs are limited.
    #[serde(flatten)]
    pub limits: JobLimits,
    /// Dispatch overhead charged to each stage.
    pub overhead: Nanos,
    /// Worst-case response time; `None` for best effort.
    pub bound: Option<Nanos>,
    /// Memory that stays: weights, state, inputs and outputs.
    pub persistent: Bytes,
    /// Memory shared with the other models of its partition between jobs.
    pub scratch: Bytes,
    /// The name of its partition, where the device is split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// What the evidence of each stage is held to, in order; none for declared costs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watched: Vec<StageWatch>,
}

/// How the jobs of one model are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLimits {
    /// Whether others may run between two stages of one of its jobs.
    pub may_be_suspended: bool,
    /// Device time per job, overheads included.
    pub compute: Nanos,
    /// Streams leased at once.
    pub streams: u32,
    /// Jobs that may be outstanding at once, uncollected ones included.
    pub slots: u32,
}

/// What the times of one stage are held to while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageWatch {
    /// What times should exceed rarely.
    pub bound: Nanos,
    /// The fewest exceedances in a window of jobs that are an alarm; `None` where nothing was promised
    /// of how rarely.
    pub alarm: Option<u32>,
    /// The mean of the times that were measured.
    pub mean: Nanos,
    /// Their deviation from it.
    pub deviation: Nanos,
}

/// A model that was not admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedModel {
    /// The model's name in the workload.
    pub name: String,
    /// The inequality that failed.
    pub why: Refusal,
    /// What was asked for; `None` where admission was not asked, because the plan of a whole workload
    /// had refused the model before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<AskedModel>,
}

/// What a model that was refused had asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedModel {
    /// The name of the partition, where the device is split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// The kind of service, with its numbers.
    #[serde(flatten)]
    pub service: ServiceTerms,
    /// Worst-case execution time of each stage, without overheads.
    pub stages: Vec<Nanos>,
    /// How its jobs were to be limited.
    #[serde(flatten)]
    pub limits: JobLimits,
}

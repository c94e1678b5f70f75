//! What the evidence of a workload says that each model takes.

use std::collections::BTreeMap;

use aegis::evidence::{Evidence, ModelEvidence};
use aegis::{Nanos, Pipeline};
use anyhow::Context as _;

/// One model; all stages together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// The mean time on the device, rounded up.
    pub mean: Nanos,
    /// What admission charges, overheads included.
    pub charged: Nanos,
}

/// The costs of all models, by the order of the workload.
///
/// # Errors
/// There is no evidence, or none of one of the models. Whether it is of this machine is not asked:
/// admission does that.
pub(crate) fn of(pipeline: &Pipeline) -> anyhow::Result<Vec<(String, Cost)>> {
    let mut evidence = Evidence::read(pipeline.evidence_path())?;
    let workload = pipeline.workload();
    let overheads = workload.overheads;
    let cost = |name: &String, models: &mut BTreeMap<String, ModelEvidence>| {
        let measured = models.remove(name).with_context(|| format!("{name} has no evidence"))?;
        let costs = pipeline.wcet(&measured).costs();
        let stages = costs.len() as u64;
        let sum = |times: &[Nanos]| times.iter().fold(Nanos::ZERO, |a, b| a.saturating_add(*b));
        let charged = sum(&costs)
            .saturating_add(overheads.dispatch.saturating_mul(stages))
            .saturating_add(overheads.copy.saturating_mul(2))
            .saturating_add(overheads.boundary.saturating_mul(stages - 1));
        let mean =
            |stage: &Vec<Nanos>| Nanos(sum(stage).as_nanos().div_ceil((stage.len() as u64).max(1)));
        let means: Vec<Nanos> = measured.samples.stages().iter().map(mean).collect();
        Ok((name.clone(), Cost { mean: sum(&means), charged }))
    };
    workload.models.iter().map(|model| cost(&model.name, &mut evidence.models)).collect()
}

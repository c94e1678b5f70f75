//! A split device: how much the partitions slow each other, as profiled and as it came to be.
//!
//! The profile has each model alone on its partition, and in turn with the models of its partition while
//! those of every other one run job after job, which is as much as they can do. In a run they do what
//! their rates ask of them. So the run is expected between the two, and its costs are safe if they are no
//! longer than what was profiled.

use std::path::Path;

use aegis::evidence::{Evidence, ModelEvidence};
use aegis::{Nanos, Pipeline};
use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::figures::{ModelFigures, Observed};
use crate::headline;
use crate::stats::Quantiles;
use crate::variant::{self, Change};

/// The name of the scenario in which a model has its partition for itself, and nothing else runs.
const ALONE: &str = "alone";

/// A run of a split workload beside its profile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Split {
    pub observed: Observed,
    pub models: Vec<Interference>,
}

/// What one model takes on the device, all stages together, by what else runs; nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Interference {
    pub name: String,
    pub partition: String,
    /// Nothing, as profiled.
    pub alone: Quantiles,
    /// The other partitions as busy as can be, as profiled.
    pub beside: Quantiles,
    /// The workload.
    pub run: Quantiles,
}

impl Interference {
    /// How many millionths of the time alone a job takes: as profiled, and in the run. Medians, rounded
    /// up; `None` where one of the figures is missing.
    pub(crate) fn factors_ppm(&self) -> Option<[u64; 2]> {
        let factor = |time: u64| {
            let scaled = u128::from(time) * 1_000_000;
            let exact = (self.alone.p50 > 0 && time > 0)
                .then(|| scaled.div_ceil(u128::from(self.alone.p50)))?;
            u64::try_from(exact).ok()
        };
        Some([factor(self.beside.p50)?, factor(self.run.p50)?])
    }
}

/// Runs the split workload `runs` times for `length`, and sets it beside its profile.
///
/// # Errors
/// As [`headline::run`]; the workload is not split, or its evidence lacks a model.
pub(crate) fn run(
    workload: &Path,
    change: &Change,
    length: Nanos,
    runs: u64,
) -> anyhow::Result<Split> {
    let pipeline = variant::open(workload, change)?;
    ensure!(!pipeline.workload().partitions.is_empty(), "{} has no partitions", workload.display());
    let evidence = Evidence::read(pipeline.evidence_path())?;
    let observed = headline::run(workload, change, length, runs)?;
    let of = |model: &ModelFigures| interference(&pipeline, &evidence, model);
    let models = observed.models.iter().map(of).collect::<anyhow::Result<_>>()?;
    Ok(Split { observed, models })
}

fn interference(
    pipeline: &Pipeline,
    evidence: &Evidence,
    seen: &ModelFigures,
) -> anyhow::Result<Interference> {
    let name = seen.name.clone();
    let measured = evidence.models.get(&name).with_context(|| format!("{name} has no evidence"))?;
    let mut models = pipeline.workload().models.iter();
    let model = models.find(|model| model.name == name).context("the model is of the workload")?;
    let partition = pipeline.workload().partition_of(model);
    Ok(Interference {
        partition: partition.map_or_else(String::new, |partition| partition.name.clone()),
        alone: Quantiles::of(&mut alone(measured)),
        beside: Quantiles::of(&mut jobs(measured.samples.stages())),
        run: seen.execution,
        name,
    })
}

fn alone(measured: &ModelEvidence) -> Vec<u64> {
    let scenarios = measured.scenarios.iter();
    let mut alone = scenarios.filter(|(scenario, _)| scenario.to_string() == ALONE);
    alone.next().map_or_else(Vec::new, |(_, samples)| jobs(samples.stages()))
}

/// The stages of each job, added up.
fn jobs(stages: &[Vec<Nanos>]) -> Vec<u64> {
    let count = stages.first().map_or(0, Vec::len);
    let job = |run: usize| stages.iter().map(|stage| stage[run].as_nanos()).sum();
    (0..count).map(job).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_of_a_job_add_up() {
        let stage = |times: [u64; 2]| times.map(Nanos).to_vec();
        assert_eq!(jobs(&[stage([10, 20]), stage([1, 2])]), [11, 22]);
        assert!(jobs(&[]).is_empty());
    }

    #[test]
    fn factors_are_of_medians_and_rounded_up() {
        let of = |time: u64| Quantiles { p50: time, ..Quantiles::default() };
        let interference = Interference {
            name: "a".into(),
            partition: "vision".into(),
            alone: of(3),
            beside: of(4),
            run: of(3),
        };
        assert_eq!(interference.factors_ppm(), Some([1_333_334, 1_000_000]));
        let never = Interference { run: of(0), ..interference };
        assert_eq!(never.factors_ppm(), None);
    }
}

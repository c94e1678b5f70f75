//! Each model by itself.
//!
//! How steady is its execution, and what does a job add to a bare call?
//!
//! A model is admitted without any other, with a period well above its cost, and its jobs are
//! submitted one by one, each once the one before has ended. For the overhead the same network is then
//! called in a bare loop: launched in the same way (the same graph with the same copies) and waited
//! for, one call after the other, with nothing of the product in between.

use std::path::Path;

use aegis::{Nanos, Tensor};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::costs::{self, Cost};
use crate::headline::{admit, driver_of};
use crate::setting::Setting;
use crate::stats::Quantiles;
use crate::variant::{Change, Variant};

/// A period is this many times the cost that admission charges.
const PERIOD_BY_COST: u64 = 3;
/// And no shorter than this: beside a tiny cost, waking up takes long.
const PERIOD_MIN: Nanos = Nanos::from_millis(5);
/// Jobs before those that count.
const UNCOUNTED: u64 = 20;

/// What was seen of all models, each alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Alone {
    /// Where.
    pub setting: Setting,
    /// The models.
    pub models: Vec<AloneFigures>,
}

/// One model alone; times in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AloneFigures {
    /// Its name.
    pub name: String,
    /// Time on the device.
    pub execution: Quantiles,
    /// From release to the end that is seen.
    pub response: Quantiles,
    /// Response less execution, job by job.
    pub beside_device: Quantiles,
    /// The bare call, where it was measured.
    pub bare: Option<Quantiles>,
}

impl AloneFigures {
    /// What a job adds to a bare call: the difference of the medians; zero where it adds nothing.
    pub(crate) fn added(&self) -> Option<u64> {
        self.bare.map(|bare| self.response.p50.saturating_sub(bare.p50))
    }
}

/// Whether the bare calls are measured too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Only the jobs.
    Nothing,
    /// Bare calls after them.
    BareCalls,
}

/// Runs each model `runs` times alone.
///
/// # Errors
/// The workload has no evidence, or a model is refused or fails.
pub(crate) fn run(
    workload: &Path,
    change: &Change,
    runs: u64,
    beside: Beside,
) -> anyhow::Result<Alone> {
    let whole = Variant::open(workload, change)?;
    let driver = change.driver.clone().unwrap_or_else(|| driver_of(&whole.pipeline));
    let mut setting = Setting::here(&workload.display().to_string(), &driver);
    let mut models = Vec::new();
    for (name, cost) in costs::of(&whole.pipeline)? {
        let variant = variant(workload, change, &name, cost)?;
        let mut figures = one(&variant, &name, runs)?;
        if beside == Beside::BareCalls {
            figures.bare = Some(bare(&variant, runs)?);
        }
        println!("{name}: {} us on the device (median)", figures.execution.p50 / 1000);
        models.push(figures);
    }
    setting.end();
    Ok(Alone { setting, models })
}

/// The workload with this model alone, at a period well above its cost.
///
/// # Errors
/// As [`Variant::open`].
pub(crate) fn variant(
    workload: &Path,
    change: &Change,
    name: &str,
    cost: Cost,
) -> anyhow::Result<Variant> {
    let period = cost.charged.saturating_mul(PERIOD_BY_COST).max(PERIOD_MIN);
    let only = Some((vec![name.to_owned()], period));
    Variant::open(workload, &Change { only, ..change.clone() })
}

fn one(variant: &Variant, name: &str, runs: u64) -> anyhow::Result<AloneFigures> {
    let (runtime, verdicts) = admit(&variant.pipeline)?;
    let model = verdicts.into_iter().next().and_then(|verdict| verdict.outcome.ok());
    let model = model.context("a variant of one model has one")?;
    let inputs: Vec<Tensor> =
        model.description().inputs.iter().map(aegis::drive::sample_input).collect();
    runtime.warm_up()?;
    runtime.start()?;
    let (mut executions, mut responses, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..UNCOUNTED + runs {
        let timing = *model.submit(&inputs)?.wait()?.timing();
        drop(runtime.take_trace());
        if run >= UNCOUNTED {
            executions.push(timing.execution.as_nanos());
            responses.push(timing.response.as_nanos());
            others.push(timing.response.saturating_sub(timing.execution).as_nanos());
        }
    }
    runtime.stop()?;
    Ok(AloneFigures {
        name: name.to_owned(),
        execution: Quantiles::of(&mut executions),
        response: Quantiles::of(&mut responses),
        beside_device: Quantiles::of(&mut others),
        bare: None,
    })
}

/// The bare loop. Each call is timed from before its launch until its end is noticed.
fn bare(variant: &Variant, runs: u64) -> anyhow::Result<Quantiles> {
    let calls = usize::try_from(UNCOUNTED + runs)?;
    let all = variant.pipeline.bare_calls(calls)?;
    let times = all.first().context("one model is kept")?;
    let counted = &times[usize::try_from(UNCOUNTED)?..];
    let mut counted: Vec<u64> = counted.iter().map(|time| time.as_nanos()).collect();
    Ok(Quantiles::of(&mut counted))
}

//! Each model by itself, and what a job adds to a bare run.
//!
//! All models are loaded once and admitted in the background: nothing is promised then, so all are
//! admitted at any load, and a job runs as soon as it is submitted. Then each model has its turn while
//! the others do nothing.
//!
//! ```text
//!   bare   slot with inputs -> [ launch the graph, wait for its end ] x n       before the start
//!   job    [ submit -> queue -> dispatcher -> launch, notice the end -> client ] x n
//! ```
//! Both launch the same graph with the same copies and inputs on the same stream, one right after the
//! other: the client looks for the end of its job without sleeping and submits the next at once, as the
//! bare loop does. What differs is the runtime, as it ships. A job's time is its response, from its
//! submission to the end that the dispatcher noticed.

use std::path::Path;
use std::thread;

use aegis::{ModelHandle, Nanos, Runtime, Tensor};
use serde::{Deserialize, Serialize};

use crate::headline::{admit, driver_of};
use crate::setting::Setting;
use crate::stats::Quantiles;
use crate::variant::{self, Change, Models};

/// Runs before those that count.
const UNCOUNTED: u64 = 20;
/// Jobs between two drains of the trace, whose rings hold thousands of events.
const TAKE_EVERY: u64 = 500;

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
    /// What a job adds to a bare call: the differences of the medians and of the 99th percentiles; zero
    /// where it adds nothing.
    pub(crate) fn added(&self) -> Option<[u64; 2]> {
        let (job, bare) = (self.response, self.bare?);
        Some([job.p50.saturating_sub(bare.p50), job.p99.saturating_sub(bare.p99)])
    }
}

/// Whether the bare calls are measured too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Only the jobs.
    Nothing,
    /// Bare calls before them.
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
    let change = Change { models: Models::InBackground, ..change.clone() };
    let pipeline = variant::open(workload, &change)?;
    let driver = change.driver.clone().unwrap_or_else(|| driver_of(&pipeline));
    let mut setting = Setting::here(&workload.display().to_string(), &driver);
    let (runtime, verdicts) = admit(&pipeline)?;
    let models: Vec<Model> =
        verdicts.into_iter().filter_map(|verdict| verdict.outcome.ok()).map(Model::new).collect();
    println!("{} models loaded", models.len());
    runtime.warm_up()?;
    let bare = |model: &Model| match beside {
        Beside::Nothing => Ok(None),
        Beside::BareCalls => model.bare(&runtime, runs).map(Some),
    };
    let bare: Vec<_> = models.iter().map(bare).collect::<anyhow::Result<_>>()?;
    runtime.start()?;
    let mut all = Vec::with_capacity(models.len());
    for (model, bare) in models.iter().zip(bare) {
        let figures = AloneFigures { bare, ..model.jobs(&runtime, runs)? };
        println!(
            "{}: {} us on the device (median), CV {:.2} %",
            figures.name,
            figures.execution.p50 / 1000,
            figures.execution.cv_ppm as f64 / 1e4
        );
        all.push(figures);
    }
    runtime.stop()?;
    setting.end();
    Ok(Alone { setting, models: all })
}

/// An admitted model and what it is called with.
struct Model {
    handle: ModelHandle,
    inputs: Vec<Tensor>,
}

impl Model {
    fn new(handle: ModelHandle) -> Self {
        let inputs = handle.description().inputs.iter().map(aegis::drive::sample_input).collect();
        Self { handle, inputs }
    }

    /// The bare loop.
    fn bare(&self, runtime: &Runtime, runs: u64) -> anyhow::Result<Quantiles> {
        let uncounted = usize::try_from(UNCOUNTED)?;
        let times =
            runtime.bare_runs(&self.handle, &self.inputs, uncounted + usize::try_from(runs)?)?;
        let mut counted: Vec<u64> = times[uncounted..].iter().map(|time| time.as_nanos()).collect();
        Ok(Quantiles::of(&mut counted))
    }

    /// The jobs.
    fn jobs(&self, runtime: &Runtime, runs: u64) -> anyhow::Result<AloneFigures> {
        let (mut executions, mut responses, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..UNCOUNTED {
            self.job()?;
        }
        for run in 0..runs {
            if run % TAKE_EVERY == 0 {
                drop(runtime.take_trace());
                self.job()?; // Meanwhile the orchestrator went to sleep.
            }
            let (execution, response) = self.job()?;
            executions.push(execution.as_nanos());
            responses.push(response.as_nanos());
            others.push(response.saturating_sub(execution).as_nanos());
        }
        Ok(AloneFigures {
            name: self.handle.name().to_owned(),
            execution: Quantiles::of(&mut executions),
            response: Quantiles::of(&mut responses),
            beside_device: Quantiles::of(&mut others),
            bare: None,
        })
    }

    /// One job: how long it held the device, and its response.
    fn job(&self) -> anyhow::Result<(Nanos, Nanos)> {
        let job = self.handle.submit(&self.inputs)?;
        while !job.has_ended() {
            thread::yield_now(); // On a machine with few cores the orchestrator needs this one.
        }
        let timing = *job.wait()?.timing();
        Ok((timing.execution, timing.response))
    }
}

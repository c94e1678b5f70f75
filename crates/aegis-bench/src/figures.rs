//! What a measurement leaves: figures for each model, and the setting in which they came about.
//!
//! Every way of running the models, with AegisRT or without, leaves the same figures, so that they
//! can be set beside each other.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::setting::Setting;
use crate::stats::Quantiles;

/// One measurement of all models at their rates.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Observed {
    /// How the models were run: `aegis`, or a kind of baseline.
    pub how: String,
    /// Where.
    pub setting: Setting,
    /// How many runs there were, one after the other.
    pub runs: u64,
    /// How long they took together, start-up and loading left out, nanoseconds.
    pub wall: u64,
    /// Each model, in the order of the workload.
    pub models: Vec<ModelFigures>,
    /// Device memory, bytes.
    pub memory: Memory,
    /// Only where stages are known one by one.
    pub device: Option<DeviceFigures>,
}

/// One model at its rate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ModelFigures {
    /// Its name.
    pub name: String,
    /// Nanoseconds.
    pub period: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// The worst-case response time that was promised, nanoseconds.
    pub bound: Option<u64>,
    /// Jobs that ended.
    pub completed: u64,
    /// Jobs that ended after their deadline.
    pub missed: u64,
    /// Jobs that never ran though they were due: turned away, dropped or skipped.
    pub lost: u64,
    /// Jobs that took longer than the bound.
    pub over_bound: u64,
    /// From release to end, nanoseconds.
    pub response: Quantiles,
    /// From the point at which the job was due to its end, nanoseconds: the response, and before it how
    /// late the job was submitted. `None` where a job is due when another one triggers it.
    #[serde(default)]
    pub from_due: Option<FromDue>,
    /// The run itself: on the device where that is known, else the call; nanoseconds.
    pub execution: Quantiles,
}

/// Responses that count from the points at which jobs were due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FromDue {
    /// Nanoseconds.
    pub response: Quantiles,
    /// How many were longer than the deadline.
    pub missed: u64,
}

impl FromDue {
    /// Of these responses; none, where there are none.
    pub(crate) fn of(responses: &mut [u64], deadline: u64) -> Option<Self> {
        let missed = responses.iter().filter(|response| **response > deadline).count() as u64;
        (!responses.is_empty()).then(|| Self { response: Quantiles::of(responses), missed })
    }
}

/// Device memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// The limit that was stated.
    pub limit: Option<u64>,
    /// Our own ledger: what stays.
    pub resident: Option<u64>,
    /// Our own ledger: what all models share.
    pub scratch: Option<u64>,
    /// Our own ledger: what the driver's context took.
    pub context: Option<u64>,
    /// Our own ledger: what the two kinds above were planned in, free parts included.
    pub arena: Option<u64>,
    /// Our own ledger: what libraries took beside it.
    pub libraries: Option<u64>,
    /// What the driver says that this process takes, or the fall of free memory since before it
    /// began to.
    pub driver: Option<u64>,
}

/// What stages say about the device, together over all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceFigures {
    /// Device time of all stages by wall time, in millionths.
    pub busy_ppm: u64,
    /// Of the device time of all stages, the copies of inputs, in millionths; zero where they are not
    /// told apart.
    #[serde(default)]
    pub upload_ppm: u64,
    /// The same for the copies of outputs.
    #[serde(default)]
    pub download_ppm: u64,
    /// The copies of inputs that went ahead, beside other stages, set against the device time of all
    /// stages, in millionths; they are no part of it.
    #[serde(default)]
    pub ahead_ppm: u64,
    /// From the end of a stage to the begin of the next, where its job was waiting; nanoseconds.
    pub gap: Quantiles,
    /// Assumptions of the proof that did not hold.
    pub broken: u64,
    /// Events that the trace lost.
    pub events_lost: u64,
    /// Jobs that were due and that the load generator did not submit: it left them out, being late or
    /// having been, or was not done when the run ended.
    #[serde(default)]
    pub omitted: u64,
}

impl Observed {
    /// All jobs that ended.
    pub(crate) fn completed(&self) -> u64 {
        self.models.iter().map(|model| model.completed).sum()
    }

    /// All deadlines that were not met, those of jobs that were due and never submitted among them.
    pub(crate) fn misses(&self) -> u64 {
        let omitted = self.device.as_ref().map_or(0, |device| device.omitted);
        omitted + self.models.iter().map(|model| model.missed + model.lost).sum::<u64>()
    }

    /// The same with deadlines that count from the point at which each job was due, where that is known.
    pub(crate) fn misses_from_due(&self) -> u64 {
        let more = |model: &ModelFigures| {
            model.from_due.map_or(0, |from_due| from_due.missed.saturating_sub(model.missed))
        };
        self.misses() + self.models.iter().map(more).sum::<u64>()
    }

    /// Whether every deadline was met, and every response within its bound.
    pub(crate) fn kept_its_promises(&self) -> bool {
        self.misses() == 0 && self.models.iter().all(|model| model.over_bound == 0)
    }

    /// Jobs in a thousand seconds.
    pub(crate) fn per_kilosecond(&self) -> u64 {
        let jobs = u128::from(self.completed()) * 1_000_000_000_000;
        u64::try_from(jobs.checked_div(u128::from(self.wall)).unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

/// Writes `figures` as `NAME.json` into `results`.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn write(results: &Path, name: &str, figures: &impl Serialize) -> anyhow::Result<()> {
    fs::create_dir_all(results).with_context(|| results.display().to_string())?;
    let path = results.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(figures)?;
    fs::write(&path, text + "\n").with_context(|| path.display().to_string())?;
    println!("figures: {}", path.display());
    Ok(())
}

/// Reads what [`write()`] left, or `None` if there is none.
///
/// # Errors
/// The file is there and is not of this version.
pub(crate) fn read<T: DeserializeOwned>(results: &Path, name: &str) -> anyhow::Result<Option<T>> {
    let path = results.join(format!("{name}.json"));
    let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
    serde_json::from_str(&text).map(Some).with_context(|| path.display().to_string())
}

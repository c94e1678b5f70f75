//! The same networks on several runtimes: how long, how steady, how alike.
//!
//! The workload names each network once for each runtime, as `NETWORK_BACKEND`. First all models are
//! admitted together and run jobs of equal inputs, and the outputs of each are compared with those of the
//! first runtime that the workload names for the network. Then each network is admitted on all its
//! runtimes, at a period well above its costs, and they run one job after the other, round after round,
//! so that what else the machine does meets all of them: this gives the times.

use std::path::Path;

use aegis::{DType, ModelHandle, Nanos, Pipeline, Tensor};
use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::costs::{self, Cost};
use crate::headline::{admit, driver_of};
use crate::setting::Setting;
use crate::stats::Quantiles;
use crate::variant::{self, Change, Models};

/// Rounds in which outputs are compared: the last, so that graphs and scratch were used before.
const COMPARED: u64 = 3;
/// Rounds before those that count.
const UNCOUNTED: u64 = 20;
/// A period is this many times what admission charges for a network on all its runtimes.
const PERIOD_BY_COST: u64 = 2;
/// And no shorter than this: beside a tiny cost, waking up takes long.
const PERIOD_MIN: Nanos = Nanos::from_millis(5);
/// How far apart outputs may be, in millionths of the largest value: two compilers sum in other orders,
/// and on a GPU in many.
const ALLOWED_PPM: u64 = 1_000;

/// What was seen of all networks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SideBySide {
    /// Where.
    pub setting: Setting,
    /// The driver of the device.
    pub driver: String,
    /// The models, in the order of the workload.
    pub models: Vec<RuntimeFigures>,
}

/// One network on one runtime; times in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RuntimeFigures {
    /// The network.
    pub network: String,
    /// What executed it, as a workload names it.
    pub backend: String,
    /// Time on the device.
    pub execution: Quantiles,
    /// From release to the end that is seen.
    pub response: Quantiles,
    /// The largest difference to the first runtime's outputs, in millionths of their largest value,
    /// rounded up; none of the first itself.
    pub apart_ppm: Option<u64>,
}

impl RuntimeFigures {
    /// Whether its outputs are those of the first runtime.
    pub(crate) fn holds(&self) -> bool {
        self.apart_ppm.is_none_or(|apart| apart <= ALLOWED_PPM)
    }
}

/// A model and what was seen of it.
struct Seen {
    network: String,
    backend: &'static str,
    model: ModelHandle,
    inputs: Vec<Tensor>,
    executions: Vec<u64>,
    responses: Vec<u64>,
    /// Of the last job, in the order of its description.
    outputs: Vec<Output>,
}

/// An output: its type and its bytes.
type Output = (DType, Vec<u8>);

/// Runs all models of `workload`, each network for `runs` rounds.
///
/// # Errors
/// The workload has no evidence, a model is refused or fails, or a name is not as said above. Outputs
/// that differ are figures.
pub(crate) fn run(workload: &Path, change: &Change, runs: u64) -> anyhow::Result<SideBySide> {
    let whole = variant::open(workload, change)?;
    let driver = change.driver.clone().unwrap_or_else(|| driver_of(&whole));
    let mut setting = Setting::here(&workload.display().to_string(), &driver);
    let mut models = compared(&rounds(&whole, 0, COMPARED)?)?;
    let costs = costs::of(&whole)?;
    for index in 0..models.len() {
        let network = models[index].network.clone();
        if models[..index].iter().any(|before| before.network == network) {
            continue; // Its runtimes ran together.
        }
        let pipeline = variant::open(workload, &only(&network, &models, &costs, change))?;
        for seen in rounds(&pipeline, UNCOUNTED, runs)? {
            let is_it = |model: &&mut RuntimeFigures| {
                model.network == seen.network && model.backend == seen.backend
            };
            let model = models.iter_mut().find(is_it).context("it was compared before")?;
            model.execution = Quantiles::of(&mut seen.executions.clone());
            model.response = Quantiles::of(&mut seen.responses.clone());
        }
        println!("{network}: measured");
    }
    setting.end();
    Ok(SideBySide { setting, driver, models })
}

/// The change that keeps one network, on all its runtimes, at a period well above its costs.
fn only(
    network: &str,
    models: &[RuntimeFigures],
    costs: &[(String, Cost)],
    change: &Change,
) -> Change {
    let of_network = models.iter().filter(|model| model.network == network);
    let names: Vec<String> =
        of_network.map(|model| format!("{network}_{}", model.backend)).collect();
    let charged = costs.iter().filter(|(name, _)| names.contains(name));
    let charged = charged.fold(Nanos::ZERO, |sum, (_, cost)| sum.saturating_add(cost.charged));
    let period = charged.saturating_mul(PERIOD_BY_COST).max(PERIOD_MIN);
    Change { models: Models::AtPeriod { names, period }, ..change.clone() }
}

/// Admits all models of `pipeline` and runs them, one job of each in every round.
fn rounds(pipeline: &Pipeline, uncounted: u64, counted: u64) -> anyhow::Result<Vec<Seen>> {
    let (runtime, verdicts) = admit(pipeline)?;
    let mut all = Vec::new();
    for (stated, verdict) in pipeline.workload().models.iter().zip(verdicts) {
        let backend = stated.backend.name();
        let network = network_of(&stated.name, backend)?.to_owned();
        let model = verdict.outcome?;
        let inputs = model.description().inputs.iter().map(aegis::drive::sample_input).collect();
        let (executions, responses, outputs) = (Vec::new(), Vec::new(), Vec::new());
        all.push(Seen { network, backend, model, inputs, executions, responses, outputs });
    }
    runtime.warm_up()?;
    runtime.start()?;
    for round in 0..uncounted + counted {
        for seen in &mut all {
            seen.job(round >= uncounted)?;
        }
        drop(runtime.take_trace());
    }
    runtime.stop()?;
    Ok(all)
}

impl Seen {
    fn job(&mut self, counts: bool) -> anyhow::Result<()> {
        let answer = self.model.submit(&self.inputs)?.wait()?;
        if counts {
            self.executions.push(answer.timing().execution.as_nanos());
            self.responses.push(answer.timing().response.as_nanos());
        }
        let outputs = &self.model.description().outputs;
        let output = |spec: &aegis::TensorSpec| Ok((spec.dtype, answer.bytes(&spec.name)?));
        self.outputs = outputs.iter().map(output).collect::<anyhow::Result<_>>()?;
        Ok(())
    }
}

/// The network of a model, whose name ends in that of its backend.
fn network_of<'n>(name: &'n str, backend: &str) -> anyhow::Result<&'n str> {
    let stem = name.strip_suffix(backend).and_then(|stem| stem.strip_suffix('_'));
    stem.with_context(|| format!("{name} runs on {backend}, so its name must end in _{backend}"))
}

/// The figures of all models, with their outputs compared and without their times.
fn compared(all: &[Seen]) -> anyhow::Result<Vec<RuntimeFigures>> {
    let figures = |seen: &Seen| {
        let mut of_network = all.iter().filter(|other| other.network == seen.network);
        let first = of_network.next().context("it is one itself")?;
        ensure!(of_network.next().is_some(), "{} runs on {} alone", seen.network, seen.backend);
        let is_first = first.backend == seen.backend;
        Ok(RuntimeFigures {
            network: seen.network.clone(),
            backend: seen.backend.to_owned(),
            execution: Quantiles::default(),
            response: Quantiles::default(),
            apart_ppm: (!is_first).then(|| apart_ppm(&first.outputs, &seen.outputs)),
        })
    };
    all.iter().map(figures).collect()
}

/// The largest difference in millionths of the largest expected value, rounded up. The largest number
/// there is where outputs do not correspond, are not finite, or differ without being numbers to round.
fn apart_ppm(expected: &[Output], found: &[Output]) -> u64 {
    if expected.len() != found.len() {
        return u64::MAX;
    }
    let apart = |((dtype, expected), (other, found)): (&Output, &Output)| match dtype {
        _ if dtype != other || expected.len() != found.len() => u64::MAX,
        DType::F32 => apart_f32(expected, found),
        _ if expected == found => 0,
        _ => u64::MAX,
    };
    expected.iter().zip(found).map(apart).max().unwrap_or(u64::MAX)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range")]
fn apart_f32(expected: &[u8], found: &[u8]) -> u64 {
    let floats = |bytes: &[u8]| -> Vec<f64> {
        let float = |it: &[u8]| f32::from_le_bytes(it.try_into().expect("four bytes"));
        bytes.chunks_exact(4).map(|it| f64::from(float(it))).collect()
    };
    let (expected, found) = (floats(expected), floats(found));
    let largest = expected.iter().fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let apart = |(a, b): (&f64, &f64)| {
        let share = (a - b).abs() / largest * 1e6;
        if share.is_finite() { share.ceil().clamp(0.0, u64::MAX as f64) as u64 } else { u64::MAX }
    };
    expected.iter().zip(&found).map(apart).max().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(values: &[f32]) -> Vec<Output> {
        vec![(DType::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())]
    }

    #[test]
    fn a_name_is_a_network_and_its_backend() {
        assert_eq!(network_of("gaze_estimator_tvm", "tvm").expect("as said"), "gaze_estimator");
        network_of("gaze_estimator", "tvm").expect_err("no backend");
        network_of("gaze_estimator_onnx", "tvm").expect_err("another one's");
    }

    #[test]
    fn outputs_are_apart_by_their_largest_difference() {
        let one = output(&[1.0, -4.0]);
        assert_eq!(apart_ppm(&one, &output(&[1.0, -4.0])), 0);
        assert_eq!(apart_ppm(&one, &output(&[1.0, -3.0])), 250_000);
        assert_eq!(apart_ppm(&one, &output(&[1.0, -3.999_999])), 1, "rounded up");
        assert_eq!(apart_ppm(&one, &output(&[1.0, f32::NAN])), u64::MAX);
        assert_eq!(apart_ppm(&one, &output(&[1.0])), u64::MAX, "one is missing");
        assert_eq!(apart_ppm(&one, &[]), u64::MAX);
        let whole = |value: u8| vec![(DType::U8, vec![value])];
        assert_eq!(apart_ppm(&whole(3), &whole(3)), 0);
        assert_eq!(apart_ppm(&whole(3), &whole(4)), u64::MAX);
    }
}

//! Numbers from the device against numbers from the processor.
//!
//! The reference is ONNX Runtime's own CPU provider, called without AegisRT, in this process. The
//! device's numbers come through AegisRT: one job of each model, with the inputs of the load
//! generator.
//!
//! The error of an output is its largest absolute difference by the largest absolute value of the
//! reference: convolutions sum thousands of products, so an element near zero has no relative error
//! of its own to speak of. A GPU multiplies `f32` in 19 bits where it may (TF32, 10 bits of mantissa,
//! as half precision has), which is why both tolerances are far from the precision of `f32`.

use std::path::Path;

use aegis::Tensor;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::alone;
use crate::costs;
use crate::headline::{admit, driver_of};
use crate::session::{Bare, Call, Provider};
use crate::setting::Setting;
use crate::variant::{Change, Variant};

/// Millionths of the reference's largest value.
const TOLERANCE_SINGLE_PPM: u64 = 10_000;
/// The same of a network in half precision, whose activations are rounded to 11 bits too.
const TOLERANCE_HALF_PPM: u64 = 30_000;
/// How the generator ends the names of tensors in half precision.
const HALF: &[u8] = b".half";

/// What was compared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Compared {
    /// Where.
    pub setting: Setting,
    /// Every output of every model.
    pub outputs: Vec<OutputFigures>,
}

/// One output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OutputFigures {
    /// Its model.
    pub model: String,
    /// Its name.
    pub output: String,
    /// How many numbers it has.
    pub elements: u64,
    /// How many of them differ from the first, in the reference; none says that nothing was tested.
    pub distinct_from_first: u64,
    /// Numbers that are infinite or none, on either side.
    pub not_finite: u64,
    /// The largest value of the reference, for people.
    pub largest: f64,
    /// The largest difference, in millionths of that, rounded up.
    pub error_ppm: u64,
    /// What is allowed.
    pub tolerance_ppm: u64,
}

impl OutputFigures {
    /// Whether the numbers are those of the reference, and say something.
    pub(crate) fn holds(&self) -> bool {
        let says_something = self.distinct_from_first > 0 || self.elements == 1;
        self.not_finite == 0 && says_something && self.error_ppm <= self.tolerance_ppm
    }
}

/// Runs every model once on both and compares.
///
/// # Errors
/// The workload, a model that is refused, or a run that fails. Numbers that differ are figures.
pub(crate) fn run(workload: &Path, change: &Change) -> anyhow::Result<Compared> {
    let variant = Variant::open(workload, change)?;
    let driver = change.driver.clone().unwrap_or_else(|| driver_of(&variant.pipeline));
    let setting = Setting::here(&workload.display().to_string(), &driver);
    let mut outputs = Vec::new();
    for (name, cost) in costs::of(&variant.pipeline)? {
        let alone = alone::variant(workload, change, &name, cost)?;
        outputs.extend(one(&alone, &name)?);
    }
    Ok(Compared { setting, outputs })
}

/// The outputs of one model.
fn one(variant: &Variant, name: &str) -> anyhow::Result<Vec<OutputFigures>> {
    let model = variant.pipeline.workload().models.first().context("one model is kept")?;
    let [file] = model.backend.files() else {
        anyhow::bail!("{name} is not one file, and the reference runs one");
    };
    let bytes = std::fs::read(&file.path).with_context(|| file.path.display().to_string())?;
    let is_half = bytes.windows(HALF.len()).any(|window| window == HALF);
    let tolerance = if is_half { TOLERANCE_HALF_PPM } else { TOLERANCE_SINGLE_PPM };
    let (runtime, verdicts) = admit(&variant.pipeline)?;
    let handle = verdicts.into_iter().next().context("one model is kept")?.outcome?;
    runtime.warm_up()?;
    runtime.start()?;
    let inputs: Vec<Tensor> =
        handle.description().inputs.iter().map(aegis::drive::sample_input).collect();
    let answer = handle.submit(&inputs)?.wait()?;
    let reference = Bare::new(&file.path, Provider::Cpu, Call::Plain)?.outputs()?;
    let compared = reference.iter().map(|(output, reference)| {
        Ok(compare(name, output, [reference, &answer.f32(output)?], tolerance))
    });
    let compared = compared.collect();
    runtime.stop()?;
    compared
}

fn compare(
    model: &str,
    output: &str,
    [reference, seen]: [&[f32]; 2],
    tolerance_ppm: u64,
) -> OutputFigures {
    let largest = reference.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
    let pairs = || reference.iter().zip(seen);
    let difference =
        pairs().map(|(a, b)| f64::from(*a) - f64::from(*b)).fold(0_f64, |max, d| max.max(d.abs()));
    let not_finite = pairs().filter(|(a, b)| !(a.is_finite() && b.is_finite())).count();
    // What has no counterpart is not the number that it should be.
    let unpaired = reference.len().abs_diff(seen.len());
    let first = reference.first().copied().unwrap_or_default();
    OutputFigures {
        model: model.to_owned(),
        output: output.to_owned(),
        elements: reference.len() as u64,
        distinct_from_first: reference.iter().filter(|v| v.to_bits() != first.to_bits()).count()
            as u64,
        not_finite: (not_finite + unpaired) as u64,
        largest: f64::from(largest),
        error_ppm: share_ppm(difference, f64::from(largest)),
        tolerance_ppm,
    }
}

/// `part` of `whole` in millionths, rounded up; of nothing, only nothing is none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range")]
fn share_ppm(part: f64, whole: f64) -> u64 {
    if part == 0.0 {
        return 0;
    }
    (part / whole * 1e6).ceil().clamp(1.0, u64::MAX as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(reference: &[f32], seen: &[f32]) -> bool {
        compare("m", "o", [reference, seen], 10_000).holds()
    }

    #[test]
    fn numbers_must_be_near_finite_and_say_something() {
        assert!(holds(&[1.0, -2.0, 0.0], &[1.01, -2.0, 0.01]));
        assert!(!holds(&[1.0, -2.0, 0.0], &[1.03, -2.0, 0.0])); // 1.5 % of the largest.
        assert!(!holds(&[1.0, f32::NAN], &[1.0, f32::NAN]));
        assert!(!holds(&[3.0, 3.0], &[3.0, 3.0])); // All equal: nothing was tested.
        assert!(!holds(&[1.0, 2.0], &[1.0]));
        assert!(!holds(&[0.0, -0.0], &[0.0, 1.0]));
    }
}

//! Numbers from the device against numbers from the processor.
//!
//! The reference is ONNX Runtime's own CPU provider, called without AegisRT, in this process. The
//! device's numbers come through AegisRT: one job of each model, with the inputs of the load
//! generator.
//!
//! Two errors are held to what rounding can do ([`crate::rounding`]), both by the spread of
//! the reference, its deviation from its own mean: what is the same in all elements, such as a bias or
//! the half of a logistic function, says nothing, and a scale that counted it would let errors as large
//! as the information pass. The mean square of all errors finds what is wrong everywhere a little; the
//! largest error finds the one element that is wrong. A handful of elements has no spread to speak of;
//! there it is their own size.

use std::path::Path;

use aegis::Tensor;
use aegis::workload::{Backend, Driver};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::alone;
use crate::costs;
use crate::headline::{admit, driver_of};
use crate::network::Network;
use crate::rounding::{self, Condition, Precision};
use crate::session::{Bare, Call, Provider};
use crate::setting::Setting;
use crate::variant::{Change, Variant};

/// Fewer elements than this have no spread.
const SPREAD_MIN: usize = 32;

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
    /// How its numbers are rounded.
    pub precision: Precision,
    /// The roundings on the longest path to it.
    pub roundings: u64,
    /// How many numbers it has.
    pub elements: u64,
    /// How many of them differ from the first, in the reference; none says that nothing was tested.
    pub distinct_from_first: u64,
    /// Numbers that are infinite or none, on either side, or have no counterpart.
    pub not_finite: u64,
    /// The largest value of the reference, for people.
    pub largest: f64,
    /// What errors are shares of.
    pub spread: f64,
    /// The root of the mean square of all errors.
    pub mean: Share,
    /// The largest error.
    pub worst: Share,
}

/// An error in millionths of the spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    /// What it is, rounded up.
    pub seen_ppm: u64,
    /// What it may be, rounded down.
    pub allowed_ppm: u64,
}

impl Share {
    fn new(seen: f64, allowed: f64, spread: f64) -> Self {
        Self { seen_ppm: share_ppm(seen, spread), allowed_ppm: ppm((allowed * 1e6).floor()) }
    }

    fn holds(self) -> bool {
        self.seen_ppm <= self.allowed_ppm
    }
}

impl OutputFigures {
    /// Whether the numbers are those of the reference, and say something.
    pub(crate) fn holds(&self) -> bool {
        let says_something = self.distinct_from_first > 0 || self.elements == 1;
        self.not_finite == 0 && says_something && self.mean.holds() && self.worst.holds()
    }
}

/// Runs every model once on both and compares.
///
/// # Errors
/// The workload, a model that is refused, or a run that fails. Numbers that differ are figures.
pub(crate) fn run(workload: &Path, change: &Change) -> anyhow::Result<Compared> {
    let variant = Variant::open(workload, change)?;
    let driver = change.driver.clone().unwrap_or_else(|| driver_of(&variant.pipeline));
    let mut setting = Setting::here(&workload.display().to_string(), &driver);
    let mut outputs = Vec::new();
    for (name, cost) in costs::of(&variant.pipeline)? {
        let alone = alone::variant(workload, change, &name, cost)?;
        outputs.extend(one(&alone, &name)?);
    }
    setting.end();
    Ok(Compared { setting, outputs })
}

/// The outputs of one model.
fn one(variant: &Variant, name: &str) -> anyhow::Result<Vec<OutputFigures>> {
    let workload = variant.pipeline.workload();
    let model = workload.models.first().context("one model is kept")?;
    let [file] = model.backend.files() else {
        anyhow::bail!("{name} is not one file, and the reference runs one");
    };
    let network = Network::read(&file.path)?;
    let precision = precision(&model.backend, &workload.device.driver, &network);
    let (runtime, verdicts) = admit(&variant.pipeline)?;
    let handle = verdicts.into_iter().next().context("one model is kept")?.outcome?;
    runtime.warm_up()?;
    runtime.start()?;
    let inputs: Vec<Tensor> =
        handle.description().inputs.iter().map(aegis::drive::sample_input).collect();
    let answer = handle.submit(&inputs)?.wait()?;
    let mut bare = Bare::new(&file.path, Provider::Cpu, Call::Plain)?;
    let reference = bare.outputs()?;
    bare.change_inputs(rounding::changed)?;
    let moved = bare.outputs()?;
    let compared = reference.iter().zip(&moved).map(|((output, reference), (_, moved))| {
        let roundings = *network.roundings.get(output).context("the file has the output")?;
        let longest_sum = network.longest_sum;
        let path = rounding::Path { precision, roundings, longest_sum };
        let seen = answer.f32(output)?;
        let figures = compare(path, Runs { reference, moved, seen: &seen });
        Ok(OutputFigures { model: name.to_owned(), output: output.clone(), ..figures })
    });
    let compared = compared.collect();
    runtime.stop()?;
    compared
}

/// How the device rounds.
fn precision(backend: &Backend, driver: &Driver, network: &Network) -> Precision {
    let allows = matches!(backend, Backend::Onnx(onnx) if onnx.tf32);
    match driver {
        _ if network.is_half => Precision::Half,
        Driver::Cuda { .. } if allows => Precision::Tf32,
        _ => Precision::Single,
    }
}

/// One output of three runs.
#[derive(Clone, Copy)]
struct Runs<'a> {
    reference: &'a [f32],
    /// The reference with changed inputs.
    moved: &'a [f32],
    /// The device's.
    seen: &'a [f32],
}

fn compare(path: rounding::Path, runs: Runs<'_>) -> OutputFigures {
    let Runs { reference, moved, seen } = runs;
    let spread = spread(reference);
    let is_finite = |(a, b): &(&f32, &f32)| a.is_finite() && b.is_finite();
    let not_finite = reference.iter().zip(seen).filter(|pair| !is_finite(pair)).count();
    // What has no counterpart is not the number that it should be.
    let unpaired = reference.len().abs_diff(seen.len());
    let (mean, worst) = apart(reference, seen);
    let (moved_mean, moved_worst) = apart(reference, moved);
    let by_change = |moved: f64| if spread > 0.0 { moved / spread / rounding::CHANGE } else { 0.0 };
    let condition = Condition { mean: by_change(moved_mean), worst: by_change(moved_worst) };
    let allowed = path.allowed(reference.len(), condition);
    let first = reference.first().copied().unwrap_or_default();
    OutputFigures {
        model: String::new(),
        output: String::new(),
        precision: path.precision,
        roundings: path.roundings,
        elements: reference.len() as u64,
        distinct_from_first: reference.iter().filter(|v| v.to_bits() != first.to_bits()).count()
            as u64,
        not_finite: (not_finite + unpaired) as u64,
        largest: reference.iter().fold(0.0, |largest, value| largest.max(f64::from(value.abs()))),
        spread,
        mean: Share::new(mean, allowed.mean, spread),
        worst: Share::new(worst, allowed.worst, spread),
    }
}

/// The root of the mean square and the largest of all differences of finite numbers.
#[expect(clippy::cast_precision_loss, reason = "a count of numbers in memory")]
fn apart(one: &[f32], other: &[f32]) -> (f64, f64) {
    let differences = one.iter().zip(other).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    let finite = differences.filter(|difference| difference.is_finite());
    let (mut squares, mut largest, mut count) = (0.0, 0.0_f64, 0_usize);
    for difference in finite {
        squares += difference * difference;
        largest = largest.max(difference);
        count += 1;
    }
    ((squares / count.max(1) as f64).sqrt(), largest)
}

/// The deviation of the elements from their mean; of few, the root of their mean square.
#[expect(clippy::cast_precision_loss, reason = "a count of numbers in memory")]
fn spread(elements: &[f32]) -> f64 {
    let count = elements.len().max(1) as f64;
    let mean = if elements.len() < SPREAD_MIN {
        0.0
    } else {
        elements.iter().map(|value| f64::from(*value)).sum::<f64>() / count
    };
    let squares = elements.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>();
    (squares / count).sqrt()
}

/// `part` of `whole` in millionths, rounded up; of nothing, only nothing is none.
fn share_ppm(part: f64, whole: f64) -> u64 {
    if part == 0.0 {
        return 0;
    }
    ppm((part / whole * 1e6).ceil().max(1.0))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range")]
fn ppm(value: f64) -> u64 {
    value.clamp(0.0, u64::MAX as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: rounding::Path =
        rounding::Path { precision: Precision::Half, roundings: 130, longest_sum: 3456 };
    /// The expected error of such a network.
    const ERROR: f64 = 0.0056;

    /// Numbers as a network gives them, about normal, of deviation one.
    fn normal(count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let mut uniform = || {
            state =
                state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f64>() - 6.0).collect()
    }

    #[expect(clippy::cast_possible_truncation, reason = "outputs are of 32 bits")]
    fn floats(numbers: impl IntoIterator<Item = f64>) -> Vec<f32> {
        numbers.into_iter().map(|it| it as f32).collect()
    }

    /// `values` with an error of this size by the deviation of what goes into `end`.
    fn through(end: fn(f64) -> f64, values: &[f64], error: f64, seed: u64) -> Vec<f32> {
        let noise = normal(values.len(), seed);
        floats(values.iter().zip(noise).map(|(value, noise)| end(value + error * noise)))
    }

    fn holds(reference: &[f32], moved: &[f32], seen: &[f32]) -> bool {
        compare(HALF, Runs { reference, moved, seen }).holds()
    }

    /// Whether a change of the outputs of a network that ends in a linear layer is taken.
    fn linear(change: impl FnOnce(&mut Vec<f32>)) -> bool {
        let values = normal(20_000, 1);
        let reference = floats(values.iter().copied());
        let moved = through(|x| x, &values, rounding::CHANGE, 2);
        let mut seen = through(|x| x, &values, ERROR, 3);
        change(&mut seen);
        holds(&reference, &moved, &seen)
    }

    #[test]
    fn what_rounding_does_is_taken() {
        assert!(linear(|_| ()));
    }

    #[test]
    fn what_rounding_does_not_do_is_found() {
        assert!(!linear(|seen| seen.iter_mut().for_each(|it| *it *= 1.03)), "a wrong gain");
        assert!(!linear(|seen| seen.iter_mut().for_each(|it| *it += 0.03)), "a wrong bias");
        assert!(!linear(|seen| seen[777] += 0.15), "one element");
        assert!(!linear(|seen| seen[19_990..].fill(0.0)), "a tail that nobody wrote");
        assert!(!linear(|seen| seen.swap(10, 11)), "two that changed places");
        assert!(!linear(|seen| seen.rotate_left(1)), "a layout that is off by one");
        assert!(!linear(|seen| seen.fill(0.0)), "nothing at all");
        assert!(!linear(|seen| seen[5] = f32::NAN), "no number");
        assert!(!linear(|seen| seen.truncate(19_999)), "one too few");
    }

    /// Scores that saturate, as those of `surround_detector` do: logits of deviation 29.
    #[test]
    fn a_steep_end_moves_single_elements_far_and_no_further() {
        let logistic = |x: f64| 1.0 / (1.0 + (-29.0 * x).exp());
        let values = normal(100_000, 4);
        let reference = through(logistic, &values, 0.0, 0);
        let moved = through(logistic, &values, rounding::CHANGE, 5);
        let mut seen = through(logistic, &values, ERROR / 2.0, 6);
        let figures = compare(HALF, Runs { reference: &reference, moved: &moved, seen: &seen });
        assert!(figures.holds(), "{figures:?}");
        let plain = HALF.allowed(reference.len(), Condition::default()).worst;
        assert!(figures.worst.allowed_ppm as f64 > plain * 1e6, "the condition counts");
        let sure = seen.iter().position(|score| *score < 0.01).expect("most are sure");
        seen[sure] = 0.99;
        assert!(!holds(&reference, &moved, &seen), "one score turned round");
        let other = through(logistic, &normal(100_000, 7), 0.0, 0);
        assert!(!holds(&reference, &moved, &other), "another network's scores");
    }

    #[test]
    fn what_says_nothing_is_no_answer() {
        let same = [3.0; 40];
        assert!(!holds(&same, &same, &same), "all equal: nothing was tested");
        assert!(holds(&[0.5], &[0.5], &[0.5]), "one number is what it is");
        assert!(!holds(&[0.0, -0.0], &[0.0, 0.0], &[0.0, 1.0]));
    }

    #[test]
    fn the_precision_is_the_devices() {
        let file = |tf32| {
            let text = format!(
                "[device]\ndriver = \"cuda\"\nmemory = \"1GiB\"\nstreams = 1\n[scheduler]\npolicy = \
                 \"edf\"\nqueue_depth = 8\n[overheads]\ndispatch = \"50us\"\nwake = \"50us\"\n\
                 [[model]]\nname = \"a\"\nbackend = \"onnx\"\npath = \"a.onnx\"\ntf32 = {tf32}\n\
                 period = \"5ms\"\n"
            );
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("a.toml");
            std::fs::write(&path, text).expect("written");
            aegis::workload::Workload::read(&path).expect("a workload")
        };
        let half = Network { is_half: true, ..Network::default() };
        let whole = Network::default();
        for (tf32, expected) in [(true, Precision::Tf32), (false, Precision::Single)] {
            let workload = file(tf32);
            let (backend, driver) = (&workload.models[0].backend, &workload.device.driver);
            assert_eq!(precision(backend, driver, &whole), expected);
            assert_eq!(precision(backend, driver, &half), Precision::Half);
            assert_eq!(precision(backend, &Driver::Host, &whole), Precision::Single);
        }
    }
}

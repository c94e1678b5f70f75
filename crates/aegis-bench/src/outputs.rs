//! Numbers from the device against numbers from the processor.
//!
//! The reference is ONNX Runtime's own CPU provider, called without AegisRT, in this process. The
//! device's numbers come through AegisRT: one job of each model, with the inputs of the load
//! generator, all models loaded once. One run of each network on the processor takes by far the
//! longest, so the networks are shared out among its cores, one thread each, and each runs once.
//!
//! Two errors are held to what rounding can do ([`crate::rounding`]), both by the spread of
//! the reference, its deviation from its own mean: what is the same in all elements, such as a bias or
//! the half of a logistic function, says nothing, and a scale that counted it would let errors as large
//! as the information pass. The mean square of all errors finds what is wrong everywhere a little; the
//! largest error finds the one element that is wrong. A handful of elements has no spread to speak of;
//! there it is their own size.

use std::path::Path;
use std::sync::Mutex;
use std::thread;

use aegis::workload::{Backend, Driver, Model};
use aegis::{ModelHandle, Outputs, Tensor};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::headline::{admit, driver_of};
use crate::network::{BEFORE, End, Network};
use crate::rounding::{self, Precision};
use crate::session::Bare;
use crate::setting::Setting;
use crate::variant::{self, Change, Models};

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
    fn new(Held { seen, allowed }: Held, spread: f64) -> Self {
        let allowed = if spread > 0.0 { allowed / spread } else { 0.0 };
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
    let change = Change { models: Models::InBackground, ..change.clone() };
    let pipeline = variant::open(workload, &change)?;
    let driver = change.driver.clone().unwrap_or_else(|| driver_of(&pipeline));
    let mut setting = Setting::here(&workload.display().to_string(), &driver);
    let (runtime, verdicts) = admit(&pipeline)?;
    runtime.warm_up()?;
    runtime.start()?;
    let models = &pipeline.workload().models;
    let mut answers = Vec::with_capacity(models.len());
    for (model, verdict) in models.iter().zip(verdicts) {
        answers.push((model, answer(&verdict.outcome?)?));
    }
    setting.end();
    println!("{} models answered; now the processor", answers.len());
    let outputs = shared_out(&answers, |(model, answer)| {
        one(model, answer, &pipeline.workload().device.driver)
    })?;
    drop(answers);
    runtime.stop()?;
    Ok(Compared { setting, outputs: outputs.into_iter().flatten().collect() })
}

/// What the device makes of the inputs of the load generator.
fn answer(handle: &ModelHandle) -> anyhow::Result<Outputs> {
    let inputs: Vec<Tensor> =
        handle.description().inputs.iter().map(aegis::drive::sample_input).collect();
    Ok(handle.submit(&inputs)?.wait()?)
}

/// Does `work` for each of `all` on as many threads as there are cores; the results, in order, or the
/// first error.
fn shared_out<T: Sync, R: Send>(
    all: &[T],
    work: impl Fn(&T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let left = Mutex::new(all.iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(all.len()));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores.min(all.len()) {
            scope.spawn(|| {
                loop {
                    let next = left.lock().expect("nothing panics with it").next();
                    let Some((place, item)) = next else { return };
                    let result = work(item);
                    done.lock().expect("nothing panics with it").push((place, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("nothing panicked with it");
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The outputs of one model.
fn one(model: &Model, answer: &Outputs, driver: &Driver) -> anyhow::Result<Vec<OutputFigures>> {
    let name = &model.name;
    let [file] = model.backend.files() else {
        anyhow::bail!("{name} is not one file, and the reference runs one");
    };
    let network = Network::read(&file.path)?;
    let precision = precision(&model.backend, driver, &network);
    let all = reference(name, &network, &file.path)?;
    let values = |name: &str| all.iter().find(|(known, _)| known == name).map(|(_, it)| &it[..]);
    let compared = network.roundings.iter().map(|(output, roundings)| {
        let (roundings, longest_sum) = (*roundings, network.longest_sum);
        let path = rounding::Path { precision, roundings, longest_sum };
        let reference = values(output).context("the reference has the output")?;
        let end = network.ends.get(output).map_or(End::Plain, |(end, _)| *end);
        let before = values(&format!("{output}{BEFORE}")).unwrap_or(reference);
        let seen = answer.f32(output)?;
        let figures = compare(path, end, Runs { reference, before, seen: &seen });
        Ok(OutputFigures { model: name.clone(), output: output.clone(), ..figures })
    });
    compared.collect()
}

/// The outputs of the processor, and what goes into the functions at their ends.
fn reference(
    model: &str,
    network: &Network,
    file: &Path,
) -> anyhow::Result<Vec<(String, Vec<f32>)>> {
    // Beside the original, so that it is on a disk with room for it; gone when this returns.
    let opened = file.with_extension(format!("{model}.{}.onnx", std::process::id()));
    std::fs::write(&opened, network.opened(file)?).with_context(|| opened.display().to_string())?;
    let outputs = Bare::reference(&opened).and_then(|mut it| it.outputs());
    std::fs::remove_file(&opened)?;
    outputs
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

/// One output of two runs.
#[derive(Clone, Copy)]
struct Runs<'a> {
    reference: &'a [f32],
    /// What the reference has before the function at the end; the same where there is none.
    before: &'a [f32],
    /// The device's.
    seen: &'a [f32],
}

fn compare(path: rounding::Path, end: End, runs: Runs<'_>) -> OutputFigures {
    let Runs { reference, seen, .. } = runs;
    let spread = spread(reference);
    let is_finite = |(a, b): &(&f32, &f32)| a.is_finite() && b.is_finite();
    let not_finite = reference.iter().zip(seen).filter(|pair| !is_finite(pair)).count();
    // What has no counterpart is not the number that it should be.
    let unpaired = reference.len().abs_diff(seen.len());
    let (mean, worst) = errors(path, end, runs);
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
        mean: Share::new(mean, spread),
        worst: Share::new(worst, spread),
    }
}

/// An error, and what it may be.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    seen: f64,
    allowed: f64,
}

/// The root of the mean square of all errors, and of all elements the one that uses up most of what it
/// may be off, or exceeds it by most.
#[expect(clippy::cast_precision_loss, reason = "a count of numbers in memory")]
fn errors(path: rounding::Path, end: End, runs: Runs<'_>) -> (Held, Held) {
    let Runs { reference, before, seen } = runs;
    let (allowed, deviation) = (path.allowed(reference.len()), spread(before));
    // The logistic function and the tangent grow everywhere, so the ends of an interval are enough.
    let through = |x: f64, off: f64| {
        let (low, here, high) = (end.of(x - off), end.of(x), end.of(x + off));
        (high - here).max(here - low)
    };
    let rounded = if end == End::Plain { 0.0 } else { path.last_rounding() };
    let (mut mean, mut worst, mut count) = (Held::default(), Held::default(), 0_usize);
    for ((a, b), x) in reference.iter().zip(seen).zip(before) {
        let (seen, x) = ((f64::from(*a) - f64::from(*b)).abs(), f64::from(*x));
        if !seen.is_finite() {
            continue; // Counted as what it is.
        }
        let of_mean = through(x, allowed.mean * deviation) + rounded;
        let held = Held { seen, allowed: through(x, allowed.worst * deviation) + rounded };
        mean.seen += seen * seen;
        mean.allowed += of_mean * of_mean;
        count += 1;
        if count == 1 || held.seen * worst.allowed > worst.seen * held.allowed {
            worst = held;
        }
    }
    let root = |sum: f64| (sum / count.max(1) as f64).sqrt();
    (Held { seen: root(mean.seen), allowed: root(mean.allowed) }, worst)
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

    /// `values` with an error of this size by their deviation.
    fn off(values: &[f64], error: f64, seed: u64) -> Vec<f64> {
        let noise = normal(values.len(), seed);
        values.iter().zip(noise).map(|(value, noise)| value + error * noise).collect()
    }

    fn holds(reference: &[f32], seen: &[f32]) -> bool {
        compare(HALF, End::Plain, Runs { reference, before: reference, seen }).holds()
    }

    /// Whether a change of the outputs of a network that ends in a linear layer is taken.
    fn linear(change: impl FnOnce(&mut Vec<f32>)) -> bool {
        let values = normal(20_000, 1);
        let reference = floats(values.iter().copied());
        let mut seen = floats(off(&values, ERROR, 3));
        change(&mut seen);
        holds(&reference, &seen)
    }

    #[test]
    fn what_is_shared_out_comes_back_in_order_or_with_its_first_error() {
        let all: Vec<u64> = (0..100).collect();
        let doubled = shared_out(&all, |it| Ok(it * 2)).expect("nothing fails");
        assert_eq!(doubled, (0..100).map(|it| it * 2).collect::<Vec<_>>());
        let odd = |it: &u64| if it % 2 == 1 { Err(anyhow::anyhow!("{it}")) } else { Ok(()) };
        assert_eq!(shared_out(&all, odd).expect_err("half of them").to_string(), "1");
        assert!(shared_out(&[], odd).expect("none").is_empty());
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

    /// Scores that saturate, as those of the detectors do: single ones may be off by half or more, and
    /// each is held to what its own place on the curve allows.
    #[test]
    fn a_steep_end_moves_single_elements_far_and_no_further() {
        const SCALE: f64 = 200.0;
        let scores = |values: &[f64]| floats(values.iter().map(|x| End::Logistic.of(SCALE * x)));
        let values = normal(100_000, 4);
        let (reference, before) = (scores(&values), floats(values.iter().map(|x| SCALE * x)));
        let compared = |seen: &[f32]| {
            compare(HALF, End::Logistic, Runs { reference: &reference, before: &before, seen })
        };
        let mut seen = scores(&off(&values, ERROR, 6));
        let figures = compared(&seen);
        assert!(figures.holds(), "{figures:?}");
        let far = reference.iter().zip(&seen).any(|(a, b)| (a - b).abs() > 0.3);
        assert!(far, "a limit by the largest value would have refused it");
        let sure = before.iter().position(|x| *x < -60.0).expect("most are sure");
        seen[sure] = 0.1;
        assert!(!compared(&seen).holds(), "one sure score a little off");
        let other = scores(&normal(100_000, 7));
        assert!(!compared(&other).holds(), "another network's scores");
        let gain = scores(&values.iter().map(|x| 1.05 * x + 0.03).collect::<Vec<_>>());
        assert!(!compared(&gain).holds(), "a wrong layer before the end");
    }

    #[test]
    fn what_says_nothing_is_no_answer() {
        let same = [3.0; 40];
        assert!(!holds(&same, &same), "all equal: nothing was tested");
        assert!(holds(&[0.5], &[0.5]), "one number is what it is");
        assert!(!holds(&[0.0, -0.0], &[0.0, 1.0]));
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

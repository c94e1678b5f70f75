//! One report of all that was measured: `report.md`, `report.json` and pictures.
//!
//! What was not measured is not in it, and the report says that it is missing.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::alone::{Alone, AloneFigures};
use crate::baseline::Kind;
use crate::faults::{Fault, Suffered};
use crate::figures::{self, DeviceFigures, ModelFigures, Observed};
use crate::outputs::Compared;
use crate::plot::{self, Series};
use crate::runtimes::SideBySide;
use crate::split::Split;
use crate::stats::{Quantiles, micros, millis, ratio};

/// Everything that was found in the folder of results.
#[derive(Default, Serialize)]
struct Found {
    headline: Option<Observed>,
    baselines: Vec<Observed>,
    alone: Option<Alone>,
    overhead: Option<Alone>,
    outputs: Option<Compared>,
    faults: Vec<Suffered>,
    split: Option<Split>,
    runtimes: Vec<SideBySide>,
}

/// Reads what is in `results` and writes the report beside it.
///
/// # Errors
/// A file is of another version, or the folder cannot be written.
pub(crate) fn run(results: &Path) -> anyhow::Result<()> {
    let overhead: Option<Alone> = figures::read(results, "overhead")?;
    let mut found = Found {
        headline: figures::read(results, "headline")?,
        // Measuring what a job adds runs each model alone too.
        alone: figures::read(results, "alone")?.or_else(|| overhead.clone()),
        overhead,
        outputs: figures::read(results, "outputs")?,
        split: figures::read(results, "split")?,
        ..Found::default()
    };
    for name in SIDE_BY_SIDE {
        found.runtimes.extend(figures::read(results, name)?);
    }
    for kind in Kind::ALL {
        found.baselines.extend(figures::read(results, &format!("baseline-{}", kind.name()))?);
    }
    for fault in Fault::ALL {
        found.faults.extend(figures::read(results, &format!("fault-{fault}"))?);
    }
    for (name, picture) in found.pictures()? {
        write(&results.join(name), &picture)?;
    }
    let text = found.markdown();
    write(&results.join("report.md"), &text)?;
    figures::write(results, "report", &found)?;
    print!("{text}");
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}

impl Found {
    fn markdown(&self) -> String {
        let parts = [
            ("All models at their rates", self.headline.as_ref().map(headline)),
            ("Beside what people do without it", self.beside()),
            ("Each model alone", self.alone.as_ref().map(alone)),
            ("What a job adds to a bare call", self.overhead.as_ref().map(overhead)),
            ("Two partitions", self.split.as_ref().map(split)),
            ("Faults", self.suffered()),
            ("Numbers against the processor's", self.outputs.as_ref().map(outputs)),
            ("The same networks on several runtimes", self.side_by_side()),
        ];
        let mut text = String::from("# Measurements\n\n");
        text.push_str(
            "Times of a column are of the unit in its head. A quantile is the smallest sample that at \
             least that share of all samples do not exceed; CV is the population's standard deviation \
             by its mean. Ratios are to AegisRT's figure of the same set of measurements: above 1 it is \
             the baseline that is worse.\n",
        );
        for (title, part) in parts {
            let part = part.unwrap_or_else(|| "Not measured.\n".to_owned());
            // Writing to a string cannot fail.
            let _ = write!(text, "\n## {title}\n\n{part}");
        }
        text
    }

    /// The baselines, where there are any.
    fn beside(&self) -> Option<String> {
        if self.baselines.is_empty() {
            return None;
        }
        let mut text = String::new();
        let ours = self.headline.as_ref();
        text.push_str(
            "| how | jobs | not in time | share % | from due | jobs per s | memory MiB |\n\
             |---|--:|--:|--:|--:|--:|--:|\n",
        );
        for observed in ours.into_iter().chain(&self.baselines) {
            let due: u64 = observed.models.iter().map(|model| model.completed + model.lost).sum();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.3} | {} | {:.1} | {} |",
                observed.how,
                observed.completed(),
                observed.misses(),
                observed.misses() as f64 * 100.0 / due.max(1) as f64,
                observed.misses_from_due(),
                observed.per_kilosecond() as f64 / 1e3,
                mebibytes(observed.memory.driver),
            );
        }
        text.push_str(
            "\nDeadlines of AegisRT count from a job's release; `from due` are the jobs that took longer \
             than that from the point at which they were due, or never came. The two differ by how late \
             the load generator submitted, and a late submission moves the releases behind it, since the \
             runtime keeps jobs of a model a period apart. Of a baseline both are the same. The times \
             below, and what they are set against, count from where a job was due.\n",
        );
        for observed in &self.baselines {
            let _ = write!(text, "\n### {}\n\n{}\n\n", observed.how, observed.setting.line());
            text.push_str(&models(observed, ours));
        }
        Some(text)
    }

    /// The faults, where there are any.
    fn suffered(&self) -> Option<String> {
        let first = self.faults.first()?;
        let mut text = format!("{}\n\n", first.setting.line());
        text.push_str("| fault | in | events | jobs of the others | late | what came of it | |\n");
        text.push_str("|---|---|--:|--:|--:|---|---|\n");
        for suffered in &self.faults {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                suffered.fault,
                suffered.victim,
                suffered.events,
                suffered.others_completed,
                suffered.others_missed,
                suffered.said.replace('|', "/"),
                if suffered.holds() { "as it must be" } else { "WRONG" },
            );
        }
        text.push_str("\nHeld to, for each:\n\n");
        for suffered in &self.faults {
            for check in &suffered.checks {
                let holds = if check.holds { "holds" } else { "WRONG" };
                let _ = writeln!(text, "- {}: {}: {holds}", suffered.fault, check.what);
            }
        }
        Some(text)
    }

    /// The runtimes beside each other, on the processor and on a GPU.
    fn side_by_side(&self) -> Option<String> {
        let all: Vec<String> = self.runtimes.iter().map(runtimes).collect();
        (!all.is_empty()).then(|| all.join("\n"))
    }

    fn pictures(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let mut pictures = Vec::new();
        let all: Vec<&Observed> = self.headline.iter().chain(&self.baselines).collect();
        if let Some(first) = all.first() {
            let rows: Vec<String> = first.models.iter().map(|model| model.name.clone()).collect();
            for (file, title, value) in SHARES {
                let series: Vec<Series> = all.iter().map(|o| series(o, &rows, value)).collect();
                pictures.push((file, plot::shares(title, &rows, &series)?));
            }
        }
        if let Some(alone) = &self.alone {
            let rows: Vec<String> = alone.models.iter().map(|model| model.name.clone()).collect();
            let values = alone.models.iter().map(|model| Some(model.execution.cv_ppm)).collect();
            let series = [Series { name: "alone".to_owned(), values }];
            let title = "Coefficient of variation of the execution, each model alone";
            pictures.push(("alone.svg", plot::shares(title, &rows, &series)?));
        }
        Ok(pictures)
    }
}

type Value = fn(&ModelFigures) -> Option<u64>;

/// The measurements of several runtimes, by the driver they ran on.
pub(crate) const SIDE_BY_SIDE: [&str; 2] = ["runtimes-host", "runtimes-cuda"];

/// The pictures that compare all ways of running: file, title, value in millionths. Responses count from
/// the point at which a job was due.
const SHARES: [(&str, &str, Value); 3] = [
    ("response-max.svg", "Longest response by deadline", |m| per(from_due(m).max, m.deadline)),
    ("response-p99.svg", "p99 of the response by deadline", |m| per(from_due(m).p99, m.deadline)),
    ("execution-cv.svg", "Coefficient of variation of the execution, all models running", |m| {
        (m.execution.count > 0).then_some(m.execution.cv_ppm)
    }),
];

fn per(part: u64, whole: u64) -> Option<u64> {
    let share = (u128::from(part) * 1_000_000).checked_div(u128::from(whole))?;
    (part > 0).then(|| u64::try_from(share).unwrap_or(u64::MAX))
}

fn series(observed: &Observed, rows: &[String], value: Value) -> Series {
    let of = |row: &String| observed.models.iter().find(|model| model.name == *row).and_then(value);
    Series { name: observed.how.clone(), values: rows.iter().map(of).collect() }
}

fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or("-".to_owned(), |bytes| (bytes >> 20).to_string())
}

/// Which part of the stages' time their copies are, and what inputs took ahead of them.
pub(crate) fn copies(device: DeviceFigures) -> String {
    let percent = |ppm: u64| ppm as f64 / 1e4;
    let (upload, download) = (percent(device.upload_ppm), percent(device.download_ppm));
    let within =
        format!("Of the stages' time, {upload:.2} % copied inputs and {download:.2} % outputs.");
    match device.ahead_ppm {
        0 => within,
        ahead => format!("{within} Inputs that went ahead took {:.2} % as long.", percent(ahead)),
    }
}

fn headline(observed: &Observed) -> String {
    let over: u64 = observed.models.iter().map(|model| model.over_bound).sum();
    let memory = observed.memory;
    let mut text = format!(
        "{}\n\n{} runs, {:.1} s together: {} jobs, {} not in time, {over} over their bound.\n",
        observed.setting.line(),
        observed.runs,
        observed.wall as f64 / 1e9,
        observed.completed(),
        observed.misses(),
    );
    if let Some(device) = observed.device {
        let _ = writeln!(
            text,
            "Device busy {:.2} % of the wall time. Assumptions broken: {}; trace events lost: {}. \
             From the end of a stage to the begin of the next where its job waited, us: median {}, \
             p99 {}, p99.9 {}, maximum {} ({} times). {}",
            device.busy_ppm as f64 / 1e4,
            device.broken,
            device.events_lost,
            micros(device.gap.p50),
            micros(device.gap.p99),
            micros(device.gap.p999),
            micros(device.gap.max),
            device.gap.count,
            copies(device),
        );
    }
    let _ = writeln!(
        text,
        "Memory, MiB: limit {}; ledger {} context, {} arena (of it {} that stay and {} shared), {} \
         libraries; by the driver {}.\n",
        mebibytes(memory.limit),
        mebibytes(memory.context),
        mebibytes(memory.arena),
        mebibytes(memory.resident),
        mebibytes(memory.scratch),
        mebibytes(memory.libraries),
        mebibytes(memory.driver),
    );
    text + &models(observed, None)
}

fn split(split: &Split) -> String {
    headline(&split.observed) + "\n" + &interference(split)
}

/// How much the partitions slow each other.
pub(crate) fn interference(split: &Split) -> String {
    let mut text = String::from(
        "Time on the device: alone and with the other partitions as busy as can be, both as profiled, and \
         in the run. A factor is the ratio of the median to that alone.\n\n| model | partition | alone p50 \
         us | profiled p50 us | p99 us | max us | factor | run p50 us | p99 us | max us | factor |\n|---|---|",
    );
    text.push_str(&"--:|".repeat(9));
    text.push('\n');
    for model in &split.models {
        let factors = model.factors_ppm();
        let factor = |which: usize| {
            factors.map_or("-".to_owned(), |it| format!("{:.2}", it[which] as f64 / 1e6))
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            model.name,
            model.partition,
            micros(model.alone.p50),
            micros(model.beside.p50),
            micros(model.beside.p99),
            micros(model.beside.max),
            factor(0),
            micros(model.run.p50),
            micros(model.run.p99),
            micros(model.run.max),
            factor(1),
        );
    }
    text
}

/// A row for each model; with the ratio of its tails to those of `ours`, where there are any.
fn models(observed: &Observed, ours: Option<&Observed>) -> String {
    let mut text = String::from(
        "| model | T ms | D ms | jobs | late | lost | bound ms | p50 ms | p99 ms | p99.9 ms | max ms | \
         max/bound | max from due ms | execution p50 ms | CV % | p99 to ours | max to ours |\n|---|",
    );
    text.push_str(&"--:|".repeat(16));
    text.push('\n');
    for model in &observed.models {
        let same = |other: &&ModelFigures| other.name == model.name;
        let our = ours.and_then(|ours| ours.models.iter().find(same));
        let to_ours = |of: fn(&ModelFigures) -> u64| {
            our.map_or("-".to_owned(), |our| ratio(of(model), of(our)))
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.2} | {} | {} |",
            model.name,
            millis(model.period),
            millis(model.deadline),
            model.completed,
            model.missed,
            model.lost,
            model.bound.map_or("-".to_owned(), millis),
            millis(model.response.p50),
            millis(model.response.p99),
            millis(model.response.p999),
            millis(model.response.max),
            model.bound.map_or("-".to_owned(), |bound| ratio(model.response.max, bound)),
            model.from_due.map_or("-".to_owned(), |due| millis(due.response.max)),
            millis(model.execution.p50),
            model.execution.cv_ppm as f64 / 1e4,
            to_ours(|model| from_due(model).p99),
            to_ours(|model| from_due(model).max),
        );
    }
    text
}

/// From the point at which jobs were due, where that is known.
fn from_due(model: &ModelFigures) -> Quantiles {
    model.from_due.map_or(model.response, |from_due| from_due.response)
}

fn alone(alone: &Alone) -> String {
    let mut text = format!("{}\n\n", alone.setting.line());
    text.push_str("| model | runs | p50 us | p99 us | max us | CV % | response p50 us |\n|---|");
    text.push_str(&"--:|".repeat(6));
    text.push('\n');
    for model in &alone.models {
        let seen = model.execution;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.2} | {} |",
            model.name,
            seen.count,
            micros(seen.p50),
            micros(seen.p99),
            micros(seen.max),
            seen.cv_ppm as f64 / 1e4,
            micros(model.response.p50),
        );
    }
    let worst = alone.models.iter().max_by_key(|model| model.execution.cv_ppm);
    if let Some(AloneFigures { name, execution, .. }) = worst {
        let below =
            |ppm: u64| alone.models.iter().filter(|model| model.execution.cv_ppm < ppm).count();
        let _ = writeln!(
            text,
            "\nCV under 1 %: {} of {} models; under 5 %: {}. The largest: {:.2} % of `{name}`.",
            below(10_000),
            alone.models.len(),
            below(50_000),
            execution.cv_ppm as f64 / 1e4
        );
    }
    text
}

/// A row for each network and runtime.
pub(crate) fn runtimes(beside: &SideBySide) -> String {
    let mut text = format!(
        "{}\n\nDifferences are in millionths of the largest value that the first runtime gives.\n\n",
        beside.setting.line()
    );
    text.push_str(
        "| network | runtime | jobs | p50 us | p99 us | max us | CV % | response p50 us | CV % | \
         p50 to the first | apart ppm | |\n|---|---|",
    );
    text.push_str(&"--:|".repeat(9));
    text.push_str("---|\n");
    for model in &beside.models {
        let first = beside.models.iter().find(|other| other.network == model.network);
        let (seen, response) = (model.execution, model.response);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {:.2} | {} | {:.2} | {} | {} | {} |",
            model.network,
            model.backend,
            seen.count,
            micros(seen.p50),
            micros(seen.p99),
            micros(seen.max),
            seen.cv_ppm as f64 / 1e4,
            micros(response.p50),
            response.cv_ppm as f64 / 1e4,
            first.map_or("-".to_owned(), |first| ratio(seen.p50, first.execution.p50)),
            model.apart_ppm.map_or("-".to_owned(), |apart| apart.to_string()),
            if model.holds() { "holds" } else { "WRONG" },
        );
    }
    text
}

fn overhead(overhead: &Alone) -> String {
    let mut text = format!(
        "{}\n\nThe same graph with the same copies and inputs on the same stream, one right after the \
         other: launched and waited for in a bare loop, and as jobs, whose time is their response.\n\n",
        overhead.setting.line()
    );
    text.push_str(
        "| model | runs | bare p50 us | bare p99 us | job p50 us | job p99 us | added p50 us | added \
         p99 us | ratio | beside the device p50 us | p99 us | max us |\n|---|",
    );
    text.push_str(&"--:|".repeat(11));
    text.push('\n');
    for model in &overhead.models {
        let bare = model.bare.unwrap_or_default();
        let added = |which: usize| model.added().map_or("-".to_owned(), |it| micros(it[which]));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            model.name,
            bare.count,
            micros(bare.p50),
            micros(bare.p99),
            micros(model.response.p50),
            micros(model.response.p99),
            added(0),
            added(1),
            ratio(model.response.p50, bare.p50),
            micros(model.beside_device.p50),
            micros(model.beside_device.p99),
            micros(model.beside_device.max),
        );
    }
    let mut added: Vec<u64> =
        overhead.models.iter().filter_map(|model| Some(model.added()?[0])).collect();
    let all = Quantiles::of(&mut added);
    let _ = writeln!(
        text,
        "\nAdded in the median: {} us for the median of the models, {} us for the worst.",
        micros(all.p50),
        micros(all.max)
    );
    text
}

fn outputs(compared: &Compared) -> String {
    let wrong: Vec<_> = compared.outputs.iter().filter(|output| !output.holds()).collect();
    let mut text = format!(
        "{}\n\n{} outputs, {} outside their tolerance. Errors are in percent of the spread of the \
         reference: the root of their mean square, and the largest of all; what is allowed follows from \
         the unit roundoff, the roundings on the longest path, and the function at the end. The largest \
         error is that of the element that uses up most of what it may be off.\n\n",
        compared.setting.line(),
        compared.outputs.len(),
        wrong.len()
    );
    text.push_str("| model | output | precision | numbers | roundings | largest | mean error % | ");
    text.push_str("allowed % | largest error % | allowed % | |\n|---|---|---|");
    text.push_str(&"--:|".repeat(7));
    text.push_str("---|\n");
    for output in &compared.outputs {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.4} | {:.4} | {:.2} | {:.4} | {:.2} | {} |",
            output.model,
            output.output,
            output.precision,
            output.elements,
            output.roundings,
            output.largest,
            output.mean.seen_ppm as f64 / 1e4,
            output.mean.allowed_ppm as f64 / 1e4,
            output.worst.seen_ppm as f64 / 1e4,
            output.worst.allowed_ppm as f64 / 1e4,
            if output.holds() { "holds" } else { "WRONG" },
        );
    }
    text
}

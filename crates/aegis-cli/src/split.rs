//! What splitting a device gains or loses, as `aegis check` shows it.

use aegis::{Error, ModelReport, Nanos, Pipeline, Report, Verdict};

use crate::table::{self, ms, ms_down, or_dash, percent_up};

/// A split workload beside the same on the whole device.
pub(crate) struct Split {
    split: (Report, bool),
    /// What is known of the whole device.
    whole: Result<(Report, bool), Error>,
}

impl Split {
    /// Decides about the whole device; `None` where it is not split.
    pub(crate) fn of(pipeline: &Pipeline, report: &Report, verdicts: &[Verdict]) -> Option<Self> {
        let whole = pipeline.check_unsplit()?;
        let whole = whole.map(|(runtime, verdicts)| (runtime.report(), are_admitted(&verdicts)));
        Some(Self { split: (report.clone(), are_admitted(verdicts)), whole })
    }

    /// The same as JSON, as `docs/formats.md` describes it.
    pub(crate) fn add_to(&self, whole: &mut serde_json::Value) {
        whole["unsplit"] = match &self.whole {
            Ok((report, admitted)) => {
                serde_json::json!({ "all_admitted": admitted, "admitted": report })
            }
            Err(error) => serde_json::json!({ "missing": error.to_string() }),
        };
    }

    /// A table of the models and a line about each of verdict, load and memory.
    pub(crate) fn shown(&self) -> String {
        let (report, admitted) = &self.split;
        let (whole, whole_admitted) = match &self.whole {
            Ok((whole, admitted)) => (whole, *admitted),
            Err(error) => {
                return format!(
                    "what splitting gains or loses is not known, since nothing is of the whole device: \
                     {error}; `aegis profile --whole` measures it"
                );
            }
        };
        let verdict = |admitted: bool| if admitted { "yes" } else { "no" };
        format!(
            "beside the whole device as one partition:\n{}\nall admitted: {} split, {} whole\n\
             utilisation: {} split, {} whole\nmemory: {} split, {} whole",
            models(report, whole),
            verdict(*admitted),
            verdict(whole_admitted),
            load(report),
            load(whole),
            memory(report),
            memory(whole),
        )
    }
}

fn are_admitted(verdicts: &[Verdict]) -> bool {
    verdicts.iter().all(|verdict| verdict.outcome.is_ok())
}

/// Every model of either, with what each promises.
fn models(split: &Report, whole: &Report) -> comfy_table::Table {
    let mut shown = table::new(&[
        "model",
        "C ms split",
        "whole",
        "bound ms split",
        "whole",
        "slack ms split",
        "whole",
        "gain ms",
    ]);
    let find = |report: &Report, name: &str| -> Option<ModelReport> {
        report.models.iter().find(|model| model.name == name).cloned()
    };
    let mut names: Vec<&str> = split.models.iter().map(|model| model.name.as_str()).collect();
    let others = whole.models.iter().map(|model| model.name.as_str());
    names.extend(others.filter(|name| find(split, name).is_none()));
    for name in names {
        let (split, whole) = (find(split, name), find(whole, name));
        let slack = |of: &Option<ModelReport>| of.as_ref().and_then(|model| model.slack);
        let bound = |of: &Option<ModelReport>| of.as_ref().and_then(|model| model.bound);
        let cost = |of: &Option<ModelReport>| of.as_ref().map(|model| model.cost);
        table::add(
            &mut shown,
            &[
                name.to_owned(),
                or_dash(cost(&split).map(ms)),
                or_dash(cost(&whole).map(ms)),
                or_dash(bound(&split).map(ms)),
                or_dash(bound(&whole).map(ms)),
                or_dash(slack(&split).map(ms_down)),
                or_dash(slack(&whole).map(ms_down)),
                or_dash(slack(&split).zip(slack(&whole)).map(gain)),
            ],
        );
    }
    shown
}

/// By how much the slack is larger than on the whole device; rounded towards a loss.
fn gain((split, whole): (Nanos, Nanos)) -> String {
    if split >= whole {
        format!("+{}", ms_down(split - whole))
    } else {
        format!("-{}", ms(whole - split))
    }
}

/// The utilisation of every executor.
fn load(report: &Report) -> String {
    let of = |(name, executor): (Option<&str>, &aegis::ExecutorReport)| {
        let used = percent_up(executor.utilisation_ppm);
        name.map_or(used.clone(), |name| format!("{name} {used}"))
    };
    report.executors().map(of).collect::<Vec<_>>().join(" and ")
}

fn memory(report: &Report) -> String {
    let memory = &report.memory;
    format!("{} resident + {} scratch", memory.resident, memory.scratch)
}

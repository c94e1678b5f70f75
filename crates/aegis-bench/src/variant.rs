//! A workload file with something changed, beside the original so that its paths hold.
//!
//! The file is changed as text is: read as TOML, edited, and written under another name in the same
//! folder, with a copy of the evidence, which is by model and stays true. Both are gone when the
//! [`Variant`] is dropped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aegis::{Nanos, Pipeline};
use anyhow::{Context as _, ensure};
use toml::{Table, Value};

/// What is changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// The driver of the device.
    pub driver: Option<String>,
    /// Which models there are, and what they are promised.
    pub models: Models,
}

/// Which models there are, and what they are promised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Models {
    /// What the file says.
    #[default]
    AsStated,
    /// All, and none is promised anything: work in the background, which is admitted at any load, runs
    /// at once when nothing else is there, and needs no period. Chains go.
    InBackground,
    /// Only these, at the periods of the file, and what overruns is contained. Chains go.
    Only {
        /// Their names.
        names: Vec<String>,
        /// Another budget of memory for one of them: its name, and the size.
        budget: Option<(String, String)>,
    },
    /// Only these, with this period, which is their deadline too. Chains go.
    AtPeriod {
        /// Their names.
        names: Vec<String>,
        /// Of each.
        period: Nanos,
    },
}

/// A changed workload, opened.
#[derive(Debug)]
pub(crate) struct Variant {
    /// The workload.
    pub pipeline: Pipeline,
    /// What is removed in the end.
    made: Vec<PathBuf>,
}

impl Variant {
    /// Opens the workload at `path` as `change` has it.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML or not a workload, or its folder cannot be written.
    pub(crate) fn open(path: &Path, change: &Change) -> anyhow::Result<Self> {
        if change.driver.is_none() && change.models == Models::AsStated {
            return Ok(Self { pipeline: Pipeline::open(path)?, made: Vec::new() });
        }
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let table: Table = text.parse().with_context(|| path.display().to_string())?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = format!(".{stem}.{}", std::process::id());
        let other = path.with_file_name(format!("{name}.toml"));
        let mut made = vec![other.clone()];
        let write = |path: &Path, text: &str| {
            fs::write(path, text).with_context(|| path.display().to_string())
        };
        write(&other, &toml::to_string(&changed(table, change))?)?;
        if let Ok(evidence) = fs::read_to_string(path.with_extension("evidence.json")) {
            let copy = other.with_extension("evidence.json");
            made.push(copy.clone());
            write(&copy, &evidence)?;
        }
        let opened = Pipeline::open(&other);
        let variant = opened.map(|pipeline| Self { pipeline, made: made.clone() });
        if variant.is_err() {
            remove(&made);
        }
        Ok(variant?)
    }
}

impl Drop for Variant {
    fn drop(&mut self) {
        remove(&self.made);
    }
}

/// Files that cannot be removed are left: they are hidden, and named after a process that is gone.
fn remove(made: &[PathBuf]) {
    for path in made {
        drop(fs::remove_file(path));
    }
}

/// Writes the workload at `path` to `into` with the `periods` of its models by name, and a copy of the
/// evidence beside it. What stood in comments is not in it.
///
/// # Errors
/// A file cannot be read or written, `into` is the workload itself, or in another folder: the paths of
/// the models would not hold there.
pub(crate) fn write_with_periods(
    path: &Path,
    periods: &BTreeMap<String, Nanos>,
    into: &Path,
) -> anyhow::Result<()> {
    let folder = |of: &Path| {
        let parent = of.parent().filter(|parent| !parent.as_os_str().is_empty());
        fs::canonicalize(parent.unwrap_or(Path::new("."))).with_context(|| of.display().to_string())
    };
    let is_beside = folder(path)? == folder(into)? && path.file_name() != into.file_name();
    ensure!(
        is_beside && into.extension().is_some_and(|extension| extension == "toml"),
        "{} must be another .toml file in the folder of {}, to which its paths are relative",
        into.display(),
        path.display()
    );
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut table: Table = text.parse().with_context(|| path.display().to_string())?;
    for model in models(&mut table) {
        let period = model.get("name").and_then(Value::as_str).and_then(|name| periods.get(name));
        if let Some(period) = period {
            model.insert("period".into(), Value::String(format!("{}ns", period.as_nanos())));
        }
    }
    let text = format!("# Written by `aegis-bench tune`.\n\n{}", toml::to_string(&table)?);
    fs::write(into, text).with_context(|| into.display().to_string())?;
    let evidence = path.with_extension("evidence.json");
    fs::copy(&evidence, into.with_extension("evidence.json"))
        .with_context(|| evidence.display().to_string())?;
    Ok(())
}

fn changed(mut table: Table, change: &Change) -> Table {
    if let (Some(driver), Some(Value::Table(device))) = (&change.driver, table.get_mut("device")) {
        device.insert("driver".into(), Value::String(driver.clone()));
        // These are of a GPU, and other drivers refuse them.
        device.remove("ordinal");
        device.remove("wait");
    }
    match &change.models {
        Models::AsStated => {}
        Models::InBackground => {
            table.remove("chain");
            models(&mut table).for_each(to_background);
        }
        Models::Only { names, budget } => {
            keep(&mut table, names);
            contain(&mut table, budget.as_ref());
        }
        Models::AtPeriod { names, period } => {
            keep(&mut table, names);
            for model in models(&mut table) {
                model.insert("period".into(), Value::String(format!("{}ns", period.as_nanos())));
                model.remove("deadline");
                model.remove("jitter");
            }
        }
    }
    table
}

fn models(table: &mut Table) -> impl Iterator<Item = &mut Table> {
    let models = table.get_mut("model").and_then(Value::as_array_mut);
    models.into_iter().flatten().filter_map(Value::as_table_mut)
}

fn keep(table: &mut Table, names: &[String]) {
    table.remove("chain");
    if let Some(Value::Array(models)) = table.get_mut("model") {
        let name = |model: &Value| model.get("name").and_then(Value::as_str).map(str::to_owned);
        models.retain(|model| name(model).is_some_and(|name| names.contains(&name)));
    }
}

fn contain(table: &mut Table, budget: Option<&(String, String)>) {
    if let Some((whose, size)) = budget {
        let name = |model: &Table| model.get("name").and_then(Value::as_str).map(str::to_owned);
        for model in models(table).filter(|model| name(model).as_ref() == Some(whose)) {
            let mut budget = Table::new();
            budget.insert("memory".into(), Value::String(size.clone()));
            model.insert("budget".into(), Value::Table(budget));
        }
    }
    if let Some(Value::Table(scheduler)) = table.get_mut("scheduler") {
        scheduler.insert("overrun".into(), Value::String("contain".into()));
    }
}

fn to_background(model: &mut Table) {
    model.insert("best_effort".into(), Value::Boolean(true));
    for promised in ["deadline", "jitter", "priority", "server"] {
        model.remove(promised);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[device]\ndriver = \"cuda\"\n[scheduler]\npolicy = \"edf\"\n[[model]]\nname = \"a\"\nperiod = \"5ms\"\n\
                        deadline = \"4ms\"\n[[model]]\nname = \"b\"\nperiod = \"5ms\"\n\
                        [[chain]]\nname = \"c\"\n";

    fn changed_to(models: Models) -> Table {
        changed(TEXT.parse().expect("it is TOML"), &Change { driver: Some("host".into()), models })
    }

    #[test]
    fn in_the_background_nobody_is_promised_anything() {
        let table = changed_to(Models::InBackground);
        assert_eq!(table["device"]["driver"].as_str(), Some("host"));
        assert!(table.get("chain").is_none());
        let models = table["model"].as_array().expect("models");
        assert_eq!(models.len(), 2);
        for model in models {
            assert_eq!(model["best_effort"].as_bool(), Some(true));
            assert!(model.get("deadline").is_none() && model.get("period").is_some());
        }
    }

    #[test]
    fn one_model_stays_with_its_new_period() {
        let period = Nanos::from_millis(2);
        let table = changed_to(Models::AtPeriod { names: vec!["a".into()], period });
        assert!(table.get("chain").is_none());
        let models = table["model"].as_array().expect("models");
        assert_eq!((models.len(), models[0]["period"].as_str()), (1, Some("2000000ns")));
        assert!(models[0].get("deadline").is_none());
    }

    #[test]
    fn the_kept_models_keep_their_promises() {
        let budget = Some(("a".to_owned(), "1MiB".to_owned()));
        let table = changed_to(Models::Only { names: vec!["a".into()], budget });
        assert!(table.get("chain").is_none());
        assert_eq!(table["scheduler"]["overrun"].as_str(), Some("contain"));
        let models = table["model"].as_array().expect("models");
        assert_eq!((models.len(), models[0]["deadline"].as_str()), (1, Some("4ms")));
        assert_eq!(models[0]["budget"]["memory"].as_str(), Some("1MiB"));
    }

    #[test]
    fn a_workload_is_written_with_other_periods_beside_its_own_file_only() {
        let (folder, elsewhere) = (tempfile::tempdir(), tempfile::tempdir());
        let (folder, elsewhere) = (folder.expect("a folder"), elsewhere.expect("a folder"));
        let (folder, elsewhere) = (folder.path(), elsewhere.path());
        let [from, into] = ["w.toml", "other.toml"].map(|name| folder.join(name));
        fs::write(&from, TEXT).expect("written");
        fs::write(folder.join("w.evidence.json"), "{}").expect("written");
        let periods = BTreeMap::from([("b".to_owned(), Nanos(7_100_000))]);
        write_with_periods(&from, &periods, &into).expect("it is beside");
        let written = fs::read_to_string(&into).expect("there");
        let table: Table = written.parse().expect("it is TOML");
        let period = |index: usize| table["model"][index]["period"].as_str();
        assert_eq!((period(0), period(1)), (Some("5ms"), Some("7100000ns")));
        assert!(folder.join("other.evidence.json").is_file());
        for refused in [from.clone(), elsewhere.join("other.toml"), folder.join("other")] {
            let said = write_with_periods(&from, &periods, &refused).expect_err("not beside");
            assert!(said.to_string().contains("must be another .toml file"), "{said}");
        }
    }
}

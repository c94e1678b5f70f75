//! A workload file with something changed, beside the original so that its paths hold.
//!
//! The file is changed as text is: read as TOML, edited, and written under another name in the same
//! folder, with a copy of the evidence, which is by model and stays true. Both are gone when the
//! [`Variant`] is dropped.

use std::fs;
use std::path::{Path, PathBuf};

use aegis::Pipeline;
use anyhow::Context as _;
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
        Models::Only { names, budget } => keep(&mut table, names, budget.as_ref()),
    }
    table
}

fn models(table: &mut Table) -> impl Iterator<Item = &mut Table> {
    let models = table.get_mut("model").and_then(Value::as_array_mut);
    models.into_iter().flatten().filter_map(Value::as_table_mut)
}

fn keep(table: &mut Table, names: &[String], budget: Option<&(String, String)>) {
    let name = |model: &Table| model.get("name").and_then(Value::as_str).map(str::to_owned);
    table.remove("chain");
    if let Some(Value::Array(models)) = table.get_mut("model") {
        let is_kept = |model: &Value| {
            model.as_table().and_then(name).is_some_and(|name| names.contains(&name))
        };
        models.retain(is_kept);
    }
    if let Some((whose, size)) = budget {
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
    fn the_kept_models_keep_their_promises() {
        let budget = Some(("a".to_owned(), "1MiB".to_owned()));
        let table = changed_to(Models::Only { names: vec!["a".into()], budget });
        assert!(table.get("chain").is_none());
        assert_eq!(table["scheduler"]["overrun"].as_str(), Some("contain"));
        let models = table["model"].as_array().expect("models");
        assert_eq!((models.len(), models[0]["deadline"].as_str()), (1, Some("4ms")));
        assert_eq!(models[0]["budget"]["memory"].as_str(), Some("1MiB"));
    }
}

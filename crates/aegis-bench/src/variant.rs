//! A workload file with something changed, beside the original so that its paths hold.
//!
//! The file is changed as text is: read as TOML, edited, and written under another name in the same
//! folder, with a copy of the evidence, which is by model and stays true. Both are gone when the
//! [`Variant`] is dropped.

use std::fs;
use std::path::{Path, PathBuf};

use aegis::{Nanos, Pipeline};
use anyhow::Context as _;
use toml::{Table, Value};

/// What is changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// The driver of the device.
    pub driver: Option<String>,
    /// Only these models are kept, with this period, which is their deadline too; chains go.
    pub only: Option<(Vec<String>, Nanos)>,
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
        if change.driver.is_none() && change.only.is_none() {
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
    if let Some((names, period)) = &change.only {
        table.remove("chain");
        if let Some(Value::Array(models)) = table.get_mut("model") {
            let is_kept = |name: &str| names.iter().any(|kept| kept == name);
            models.retain(|model| model.get("name").and_then(Value::as_str).is_some_and(is_kept));
            for model in models.iter_mut().filter_map(Value::as_table_mut) {
                model.insert("period".into(), Value::String(format!("{}ns", period.as_nanos())));
                model.remove("deadline");
                model.remove("jitter");
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[device]\ndriver = \"cuda\"\n[[model]]\nname = \"a\"\nperiod = \"5ms\"\n\
                        deadline = \"4ms\"\n[[model]]\nname = \"b\"\nperiod = \"5ms\"\n\
                        [[chain]]\nname = \"c\"\n";

    #[test]
    fn one_model_stays_with_its_new_period() {
        let only = Some((vec!["a".to_owned()], Nanos::from_millis(2)));
        let change = Change { driver: Some("host".into()), only };
        let table = changed(TEXT.parse().expect("it is TOML"), &change);
        assert_eq!(table["device"]["driver"].as_str(), Some("host"));
        assert!(table.get("chain").is_none());
        let models = table["model"].as_array().expect("models");
        assert_eq!(models.len(), 1);
        assert_eq!(models[0]["period"].as_str(), Some("2000000ns"));
        assert!(models[0].get("deadline").is_none());
    }
}

//! A workload with something changed, under the name of its file.
//!
//! The file is changed as text is: read as TOML, edited, and parsed again under its own path, so that
//! the paths of its models hold, its evidence is used, which is by model and stays true, and messages
//! name a file that the user has. Nothing is written.

use std::fs;
use std::path::Path;

use aegis::workload::Workload;
use aegis::{Nanos, Pipeline};
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
    /// Only these, with this period, which is their deadline too. Chains go.
    AtPeriod {
        /// Their names.
        names: Vec<String>,
        /// Of each.
        period: Nanos,
    },
}

/// Opens the workload at `path` as `change` has it.
///
/// # Errors
/// The file cannot be read, is not TOML, or is no workload as it is or as changed.
pub(crate) fn open(path: &Path, change: &Change) -> anyhow::Result<Pipeline> {
    if change.driver.is_none() && change.models == Models::AsStated {
        return Ok(Pipeline::open(path)?);
    }
    // Not as a pipeline: the device that the file names need not be here.
    let _sound = Workload::read(path)?;
    let table = read(path)?;
    let text = toml::to_string(&changed(table, change))?;
    // The file itself is sound, so what is wrong now is the change, and not in a line of the file.
    let workload = Workload::parse(&text, path).context("the workload as it is changed here")?;
    Ok(Pipeline::of(workload)?)
}

/// The workload file as TOML.
///
/// # Errors
/// It cannot be read, or is none.
pub(crate) fn read(path: &Path) -> anyhow::Result<Table> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.parse().with_context(|| path.display().to_string())
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

/// The tables of the models, in file order.
pub(crate) fn models(table: &mut Table) -> impl Iterator<Item = &mut Table> {
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
    fn a_changed_workload_keeps_the_name_of_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("w.toml");
        let text = "device = { driver = \"sim\", memory = \"1MiB\" }\n\
                    scheduler = { policy = \"edf\", queue_depth = 8 }\n\
                    [[model]]\nname = \"a\"\nbackend = \"sim\"\nperiod = \"5ms\"\nsim.stages = [\"1ms\"]\n";
        fs::write(&path, text).expect("written");
        let change = |driver: &str| Change { driver: Some(driver.into()), ..Change::default() };
        let pipeline = open(&path, &change("host")).expect("a workload");
        assert_eq!(pipeline.workload().device.driver.name(), "host");
        assert_eq!(pipeline.evidence_path(), path.with_extension("evidence.json"));
        let told = format!("{:#}", open(&path, &change("abacus")).expect_err("no driver"));
        assert!(told.contains(&path.display().to_string()), "{told}");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left");
    }
}

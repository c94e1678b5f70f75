//! The workload that `tune` writes: another file beside the workload, with other periods.
//!
//! # Invariants
//! 1. Nothing is written before everything was looked at: a refused file leaves all files as they are.
//! 2. No file is overwritten that this did not write: neither the workload and what it is made of, by
//!    whatever name, nor another workload, nor the evidence of one.
//! 3. What is written opens as a workload.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aegis::Nanos;
use aegis::workload::Workload;
use anyhow::{Context as _, bail, ensure};
use toml::Value;

use crate::variant;

/// How a file begins that may be written again.
const MARK: &str = "# Written by `aegis-bench tune`.";

/// Writes the workload at `path` to `into` with the `periods` of its models by name, and a copy of the
/// evidence beside it. What stood in comments is not in it.
///
/// # Errors
/// A file cannot be read or written, `into` is in another folder, where the paths of the models would
/// not hold, it is a file that must stay, or the workload has faults with these periods.
pub(crate) fn write(
    path: &Path,
    periods: &BTreeMap<String, Nanos>,
    into: &Path,
) -> anyhow::Result<()> {
    let (evidence, copy) = (evidence_of(path), evidence_of(into));
    is_beside(path, into)?;
    overwrites_no_input(path, &[into, &copy])?;
    overwrites_its_own(into, &copy)?;
    let text = with_periods(path, periods)?;
    Workload::parse(&text, into)
        .context("nothing was written, since with these periods the workload has faults")?;
    let measured = fs::read(&evidence).with_context(|| evidence.display().to_string())?;
    fs::write(into, text).with_context(|| into.display().to_string())?;
    fs::write(&copy, measured).with_context(|| copy.display().to_string())
}

fn evidence_of(path: &Path) -> PathBuf {
    path.with_extension("evidence.json")
}

fn is_beside(path: &Path, into: &Path) -> anyhow::Result<()> {
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
    Ok(())
}

/// Refuses outputs that are a file of the workload by another name, a link of either kind.
fn overwrites_no_input(path: &Path, outputs: &[&Path]) -> anyhow::Result<()> {
    let workload = Workload::read(path)?;
    let models = workload.models.iter().flat_map(|model| model.backend.files());
    let mut inputs = vec![path.to_owned(), evidence_of(path)];
    inputs.extend(models.map(|file| file.path.clone()));
    for output in outputs {
        let Some(own) = identity(output) else { continue };
        for input in &inputs {
            let (one, other) = (output.display(), input.display());
            ensure!(identity(input) != Some(own), "{one} would overwrite {other}: it is that file");
        }
    }
    Ok(())
}

/// Device and number of a file that is there, links followed.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let about = path.metadata().ok()?;
    Some((about.dev(), about.ino()))
}

/// Refuses to overwrite what was written by somebody else, and evidence of a workload that is gone.
fn overwrites_its_own(into: &Path, evidence: &Path) -> anyhow::Result<()> {
    match fs::read(into) {
        Ok(there) if there.starts_with(MARK.as_bytes()) => Ok(()),
        Ok(_) => bail!(
            "{} is there and was not written by `tune`; name another file, or move it away",
            into.display()
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let is_there = evidence.symlink_metadata().is_ok();
            let evidence = evidence.display();
            ensure!(!is_there, "{evidence} is there without its workload; move it away");
            Ok(())
        }
        Err(error) => Err(error).with_context(|| into.display().to_string()),
    }
}

fn with_periods(path: &Path, periods: &BTreeMap<String, Nanos>) -> anyhow::Result<String> {
    let mut table = variant::read(path)?;
    for model in variant::models(&mut table) {
        let period = model.get("name").and_then(Value::as_str).and_then(|name| periods.get(name));
        if let Some(period) = period {
            model.insert("period".into(), Value::String(format!("{}ns", period.as_nanos())));
        }
    }
    Ok(format!("{MARK}\n\n{}", toml::to_string(&table)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use aegis::Pipeline;

    use super::*;

    const WORKLOAD: &str = r#"
        device = { driver = "sim", memory = "64MiB" }
        scheduler = { policy = "edf", queue_depth = 8 }
        [[model]] # A comment.
        name = "a"
        backend = "sim"
        period = "5ms"
        sim.stages = ["1ms"]
        [[model]]
        name = "b"
        backend = "sim"
        period = "20ms"
        jitter = "8ms"
        sim = { stages = ["1ms", "1ms"], scratch = "1MiB" }
    "#;

    /// A folder with the workload `w.toml` and its evidence.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("w.toml"), WORKLOAD).expect("written");
        fs::write(folder.path().join("w.evidence.json"), "measured").expect("written");
        folder
    }

    fn with(period: Nanos) -> BTreeMap<String, Nanos> {
        BTreeMap::from([("b".to_owned(), period)])
    }

    fn refused(from: &Path, into: &Path, expected: &str) {
        let error = write(from, &with(Nanos::from_millis(9)), into).expect_err(expected);
        assert!(format!("{error:#}").contains(expected), "{error:#}");
        assert_eq!(fs::read_to_string(from).expect("there"), WORKLOAD);
        let evidence = fs::read_to_string(evidence_of(from)).expect("there");
        assert_eq!(evidence, "measured");
    }

    #[test]
    fn what_is_written_opens_as_a_workload_and_may_be_written_again() {
        let folder = folder();
        let [from, into] = ["w.toml", "other.toml"].map(|name| folder.path().join(name));
        for period in [Nanos(9_100_000), Nanos(8_100_000)] {
            write(&from, &with(period), &into).expect("it is beside");
            let opened = Pipeline::open(&into).expect("a workload");
            let models = &opened.workload().models;
            assert_eq!((models[0].period, models[1].period), (Nanos::from_millis(5), period));
            assert_eq!(fs::read_to_string(evidence_of(&into)).expect("a copy"), "measured");
        }
    }

    #[test]
    fn a_period_below_what_else_the_model_says_is_told_before_anything_is_written() {
        let folder = folder();
        let [from, into] = ["w.toml", "other.toml"].map(|name| folder.path().join(name));
        let error = write(&from, &with(Nanos::from_millis(7)), &into).expect_err("jitter 8ms");
        let told = format!("{error:#}");
        assert!(told.starts_with("nothing was written") && told.contains("jitter"), "{told}");
        assert!(!into.exists() && !evidence_of(&into).exists());
    }

    #[test]
    fn only_another_toml_file_in_the_same_folder_is_written() {
        let (folder, elsewhere) = (folder(), tempfile::tempdir().expect("a folder"));
        let from = folder.path().join("w.toml");
        let others = [from.clone(), elsewhere.path().join("o.toml"), folder.path().join("o")];
        others.iter().for_each(|into| refused(&from, into, "must be another .toml file"));
    }

    #[test]
    fn the_workload_is_not_overwritten_by_another_name() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        symlink("w.toml", at("soft.toml")).expect("a link");
        fs::hard_link(at("w.toml"), at("hard.toml")).expect("a link");
        refused(&at("w.toml"), &at("soft.toml"), "would overwrite");
        refused(&at("w.toml"), &at("hard.toml"), "would overwrite");
        symlink("w.evidence.json", at("new.evidence.json")).expect("a link");
        refused(&at("w.toml"), &at("new.toml"), "would overwrite");
    }

    #[test]
    fn neither_is_what_somebody_else_wrote() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("mine.toml"), WORKLOAD).expect("written");
        refused(&at("w.toml"), &at("mine.toml"), "was not written by `tune`");
        assert_eq!(fs::read_to_string(at("mine.toml")).expect("there"), WORKLOAD);
        fs::write(at("gone.evidence.json"), "measured too").expect("written");
        refused(&at("w.toml"), &at("gone.toml"), "is there without its workload");
        let kept = fs::read_to_string(at("gone.evidence.json")).expect("there");
        assert_eq!(kept, "measured too");
    }
}

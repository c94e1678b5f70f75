//! The files that a command writes, held against those it reads and against each other.
//!
//! # Invariants
//! 1. Asked before anything is opened for writing: a refused command has changed no file.
//! 2. A file that is there is known by device and number, whatever its name or links; one that is not
//!    there yet by its name in the folder that will hold it, links in the path followed.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aegis::Pipeline;
use anyhow::{Result, ensure};

/// A file that a command is about to write.
pub(crate) struct Written<'a> {
    /// What asks for it, as `--svg` or `the trace`.
    pub(crate) by: &'a str,
    pub(crate) path: &'a Path,
}

impl<'a> Written<'a> {
    /// The files of those options that are given.
    pub(crate) fn of(options: &[(&'a str, &'a Option<PathBuf>)]) -> Vec<Self> {
        let given = options.iter().filter_map(|(by, path)| {
            let path = path.as_deref()?;
            Some(Self { by, path })
        });
        given.collect()
    }
}

/// What a file is, by whatever name.
#[derive(PartialEq, Eq)]
enum Identity {
    /// Device and number.
    There(u64, u64),
    /// Device and number of its folder, and its name in that.
    In(u64, u64, OsString),
    /// In no folder that is there, so that writing it fails.
    Nowhere(PathBuf),
}

/// The files that a workload stands for: itself, its evidence and those of its models.
pub(crate) fn inputs(pipeline: &Pipeline) -> impl Iterator<Item = &Path> {
    let workload = pipeline.workload();
    let models = workload.models.iter().flat_map(|model| model.backend.files());
    [workload.source.path.as_path(), pipeline.evidence_path()]
        .into_iter()
        .chain(models.map(|file| file.path.as_path()))
}

/// Refuses outputs of which one is a file of `read`, or the same file as another. Devices and pipes,
/// such as `/dev/stdout`, hold nothing that could be lost, and may be named again.
///
/// # Errors
/// Which output, and what it would overwrite. Reads only what the file system knows of the names.
pub(crate) fn overwrites_nothing<'a>(
    outputs: &[Written<'_>],
    read: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    let read: Vec<(&Path, Identity)> =
        read.into_iter().map(|path| (path, identity(path))).collect();
    for (place, Written { by, path }) in outputs.iter().enumerate() {
        if is_stream(path) {
            continue;
        }
        let own = identity(path);
        for (input, known) in &read {
            ensure!(*known != own, "{by} would overwrite {}", input.display());
        }
        for before in &outputs[..place] {
            let (one, other) = (path.display(), before.path.display());
            ensure!(before.path != *path, "{by} {one} is given twice, for {} too", before.by);
            ensure!(identity(before.path) != own, "{other} and {one} are the same file");
        }
    }
    Ok(())
}

/// Whether it is there, and neither a file nor a folder.
fn is_stream(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| !about.is_file() && !about.is_dir())
}

fn identity(path: &Path) -> Identity {
    if let Ok(about) = path.metadata() {
        return Identity::There(about.dev(), about.ino());
    }
    // A link that leads nowhere yet is followed to where writing would make the file.
    let target = path.read_link().map_or_else(|_| path.to_owned(), |target| beside(path, &target));
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match (folder.metadata(), target.file_name()) {
        (Ok(about), Some(name)) => Identity::In(about.dev(), about.ino(), name.to_owned()),
        _ => Identity::Nowhere(target),
    }
}

/// Where a link at `path` to `target` leads.
fn beside(path: &Path, target: &Path) -> PathBuf {
    path.parent().map_or_else(|| target.to_owned(), |folder| folder.join(target))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_output_is_an_input_or_another_output_by_whatever_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("in.toml"), "in").expect("a file");
        fs::hard_link(at("in.toml"), at("hard")).expect("a link");
        symlink(at("in.toml"), at("soft")).expect("a link");
        symlink("new.svg", at("dangling")).expect("a link");
        fs::create_dir(at("sub")).expect("a folder");
        let (input, new) = (at("in.toml"), at("new.svg"));
        let refused = |outputs: &[&str]| {
            let paths: Vec<PathBuf> = outputs.iter().map(|name| at(name)).collect();
            let outputs: Vec<Written<'_>> =
                paths.iter().map(|path| Written { by: "--out", path }).collect();
            overwrites_nothing(&outputs, [input.as_path()]).err().map(|fault| fault.to_string())
        };
        for name in ["in.toml", "hard", "soft", "sub/../in.toml"] {
            let expected = format!("--out would overwrite {}", input.display());
            assert_eq!(refused(&[name]), Some(expected), "{name}");
        }
        let twice = format!("--out {} is given twice, for --out too", new.display());
        assert_eq!(refused(&["new.svg", "new.svg"]), Some(twice), "though it is not there yet");
        for other in ["sub/../new.svg", "dangling"] {
            let said = refused(&["new.svg", other]).expect("the same file");
            assert!(said.ends_with("are the same file"), "{said}");
        }
        assert_eq!(refused(&["new.svg", "other.svg"]), None);
        let null = [("--a"), ("--b")].map(|by| Written { by, path: Path::new("/dev/null") });
        assert!(overwrites_nothing(&null, [Path::new("/dev/null")]).is_ok(), "nothing is lost");
    }
}

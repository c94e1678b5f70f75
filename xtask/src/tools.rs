//! Cargo's companion programs: found where they are, installed where they are not.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use cargo_metadata::{Metadata, MetadataCommand};

use crate::process;

/// A subcommand of cargo, made by another project, that a step of `cargo xtask test` needs.
pub(crate) struct Tool {
    /// What follows `cargo`.
    subcommand: &'static str,
    /// The package, which is also the name of its program.
    package: &'static str,
    /// The version installed when none is found; one that is found is taken as it is.
    version: &'static str,
}

/// Checks licences, sources and duplicates of the dependencies.
pub(crate) const DENY: Tool = Tool { subcommand: "deny", package: "cargo-deny", version: "0.20.2" };

/// Runs the tests.
pub(crate) const NEXTEST: Tool =
    Tool { subcommand: "nextest", package: "cargo-nextest", version: "0.9.143" };

impl Tool {
    /// The start of a command line that calls the tool in `root`, installing the tool under
    /// `.aegis/tools` when it is found neither there nor on `PATH`. Installing compiles it, which
    /// takes minutes, once.
    ///
    /// # Errors
    /// `cargo install` failed, most often because the package registry cannot be reached.
    pub(crate) fn command(&self, root: &Path) -> anyhow::Result<Command> {
        let search = env::var_os("PATH").unwrap_or_default();
        let on_path = env::split_paths(&search).any(|folder| folder.join(self.package).is_file());
        let mut command = if on_path {
            cargo(root)
        } else {
            let folder = root.join(".aegis/tools");
            let program = folder.join("bin").join(self.package);
            if !program.is_file() {
                self.install(root, &folder)?;
            }
            Command::new(program)
        };
        command.arg(self.subcommand).current_dir(root);
        Ok(command)
    }

    fn install(&self, root: &Path, folder: &Path) -> anyhow::Result<()> {
        let mut install = cargo(root);
        install.args(["install", "--locked", "--version", self.version, "--root"]);
        install.arg(folder).arg(self.package);
        println!("installing {} {}, once: {}", self.package, self.version, process::line(&install));
        process::run(&mut install).with_context(|| {
            format!(
                "{} is missing and could not be installed; install version {} yourself",
                self.package, self.version
            )
        })
    }
}

/// The cargo that runs this program, working in `root`.
pub(crate) fn cargo(root: &Path) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}

/// Where that cargo puts what it builds.
///
/// # Errors
/// The manifests cannot be read.
pub(crate) fn target_folder(root: &Path) -> anyhow::Result<PathBuf> {
    let metadata = manifests(root)?;
    Ok(metadata.target_directory.into_std_path_buf())
}

/// What the manifests of the workspace say, without asking any registry.
///
/// # Errors
/// A manifest is missing or wrong.
pub(crate) fn manifests(root: &Path) -> anyhow::Result<Metadata> {
    let mut command = MetadataCommand::new();
    command.current_dir(root).no_deps().other_options(["--offline".to_owned()]);
    command.exec().context("the manifests of the workspace cannot be read")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOWHERE: Tool =
        Tool { subcommand: "nowhere", package: "cargo-nowhere-on-path", version: "0.0.0" };

    #[test]
    fn a_tool_that_was_installed_is_found_there() {
        let root = tempfile::tempdir().expect("a folder");
        let program = root.path().join(".aegis/tools/bin/cargo-nowhere-on-path");
        fs::create_dir_all(program.parent().expect("it has one")).expect("a new folder");
        fs::write(&program, "").expect("a new file");
        let command = NOWHERE.command(root.path()).expect("nothing needs installing");
        assert_eq!(process::line(&command), ".aegis/tools/bin/cargo-nowhere-on-path nowhere");
    }

    #[test]
    fn a_tool_on_the_path_is_called_through_cargo() {
        let on_path = Tool { subcommand: "sh", package: "sh", version: "0.0.0" };
        let root = tempfile::tempdir().expect("a folder");
        let command = on_path.command(root.path()).expect("every system has sh");
        assert_eq!(process::line(&command), "cargo sh");
    }
}

//! One folder with all that a machine without a toolchain needs to run and measure AegisRT.
//!
//! Programs are built with the profile `bundle`: that of a release, without symbols. The folder has
//! the shape of the repository where it matters (`benches/workloads`, `.aegis/models`), so that the
//! paths in the workload files hold in it too. The models are not in it but written there, by the same
//! generator: a gigabyte need not be carried.
//!
//! # Invariants
//! 1. What is in the folder is of one commit, which the programs know and the file `COMMIT` says;
//!    uncommitted changes are said too.
//! 2. No library in it is of an earlier bundle, which may have been asked for with other flags.

mod needs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;

use crate::models::{self, ModelSet};
use crate::{process, runtimes, tools};

/// What runs the steps there.
const SCRIPT: &str = include_str!("bundle/run.sh");
/// What explains it.
const README: &str = include_str!("bundle/README.md");

/// A program of the bundle: the package, and the name of the program.
struct Program {
    package: &'static str,
    name: &'static str,
}

/// The programs; those whose packages are not in the workspace are left out, and said so.
const PROGRAMS: [Program; 4] = [
    Program { package: "aegis-cli", name: "aegis" },
    Program { package: "aegis-bench", name: "aegis-bench" },
    Program { package: "aegis-gpu-tests", name: "aegis-gpu-tests" },
    Program { package: "xtask", name: "xtask" },
];

/// The networks of `benches/workloads/mixed*.toml`.
const MIXED: &[&str] = &[
    "steering_controller",
    "engine_sound_monitor",
    "driver_monitor",
    "lane_segmenter",
    "gaze_estimator",
    "scene_classifier",
];

/// What to bundle.
#[derive(Args)]
pub(crate) struct BundleArgs {
    /// The folder; it is made, and files in it are replaced.
    #[arg(long, value_name = "FOLDER", default_value = "out/bundle")]
    output: PathBuf,
    /// For a GPU: ONNX Runtime is to be the one for CUDA. Bundled only with `--with-runtime`; without it
    /// the README asks the target machine for it.
    #[arg(long)]
    cuda: bool,
    /// Puts ONNX Runtime into the folder: 30 MB, or with `--cuda` 300 MB.
    #[arg(long)]
    with_runtime: bool,
    /// Builds TVM into the program, and puts its libraries and the modules that tests and workloads name
    /// into the folder, compiled for the processor and this architecture of GPUs, such as sm_90.
    #[arg(long, value_name = "ARCHITECTURE", value_parser = models::check_architecture, conflicts_with = "target")]
    tvm: Option<String>,
    /// Builds TensorRT-RTX in, and puts its libraries into the folder: 240 MB, 95 packed.
    #[arg(long, conflicts_with = "target")]
    trt: bool,
    /// Builds for this target of rustc instead of for this machine.
    #[arg(long, value_name = "TRIPLE", conflicts_with = "with_runtime")]
    target: Option<String>,
}

/// Builds and gathers everything.
///
/// # Errors
/// A build fails, a runtime cannot be fetched, or the folder cannot be written.
pub(crate) fn run(root: &Path, args: &BundleArgs) -> anyhow::Result<()> {
    let commit = commit(root)?;
    let output = root.join(&args.output);
    check_output(&output)?;
    let needs = needs::sentences(&args.parts());
    let programs = present(root)?;
    let built = build(root, args, &programs, &commit)?;
    for program in &programs {
        copy(&built.join(program.name), &output.join("bin").join(program.name))?;
    }
    remove_libraries(&output)?;
    copy_files(&root.join("benches/workloads"), "toml", &output.join("benches/workloads"))?;
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        copy(&root.join(licence), &output.join(licence))?;
    }
    if args.with_runtime {
        let runtime = runtimes::provide(root, args.cuda)?;
        copy_files(&runtime, "", &output.join("lib"))?;
    }
    if args.trt {
        let (place, folder) = runtimes::provide_trt(root)?;
        copy_files(&folder, "", &output.join(place))?;
    }
    if let Some(architecture) = &args.tvm {
        let (place, folder) = runtimes::provide_tvm(root)?;
        copy_files(&folder, "", &output.join(place))?;
        copy_modules(root, architecture, &output)?;
    }
    write(&output.join("README.md"), &needs::readme(README, &needs))?;
    write(&output.join("COMMIT"), &format!("{commit}\n"))?;
    let script = output.join("run.sh");
    write(&script, SCRIPT)?;
    make_executable(&script)?;
    say(&output)?;
    needs.iter().for_each(|sentence| println!("{sentence}"));
    Ok(())
}

impl BundleArgs {
    fn parts(&self) -> needs::Parts<'_> {
        needs::Parts {
            cuda: self.cuda,
            runtime: self.with_runtime,
            tvm: self.tvm.as_deref(),
            trt: self.trt,
            target: self.target.as_deref(),
            version: runtimes::VERSION,
        }
    }
}

/// Refuses a folder that is no place for a bundle, before anything is built: a file, or a folder with
/// something else in it.
fn check_output(output: &Path) -> anyhow::Result<()> {
    if !output.exists() {
        return Ok(());
    }
    ensure!(output.is_dir(), "--output {} is there and no folder", output.display());
    let mut entries = fs::read_dir(output).with_context(|| output.display().to_string())?;
    let is_bundle = output.join("COMMIT").is_file() || output.join("bin").is_dir();
    ensure!(
        is_bundle || entries.next().is_none(),
        "--output {} holds something else than a bundle; name a new folder",
        output.display()
    );
    Ok(())
}

/// Removes the libraries of an earlier bundle in `output`; from a folder that is no bundle, nothing.
fn remove_libraries(output: &Path) -> anyhow::Result<()> {
    if !output.join("COMMIT").is_file() || !output.join("run.sh").is_file() {
        return Ok(());
    }
    for folder in ["lib", ".aegis/runtimes"] {
        let folder = output.join(folder);
        if folder.is_dir() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
            println!("removed: {}, of an earlier bundle", folder.display());
        }
    }
    Ok(())
}

/// The programs whose packages are in the workspace.
fn present(root: &Path) -> anyhow::Result<Vec<&'static Program>> {
    let packages = tools::manifests(root)?.packages;
    let is_there = |program: &&Program| packages.iter().any(|p| p.name.as_str() == program.package);
    let (present, absent): (Vec<_>, Vec<_>) = PROGRAMS.iter().partition(is_there);
    for program in absent {
        println!("left out: {} is not in the workspace", program.package);
    }
    Ok(present)
}

/// Builds `programs`, and returns the folder they are in.
fn build(
    root: &Path,
    args: &BundleArgs,
    programs: &[&Program],
    commit: &str,
) -> anyhow::Result<PathBuf> {
    let mut cargo = tools::cargo(root);
    cargo.args(["build", "--profile", "bundle"]).env("AEGIS_COMMIT", commit);
    for program in programs {
        cargo.args(["--package", program.package, "--bin", program.name]);
    }
    if args.tvm.is_some() {
        cargo.args(["--features", "aegis-cli/tvm,aegis-gpu-tests/tvm"]);
    }
    if args.trt {
        cargo.args(["--features", "aegis-cli/trt,aegis-gpu-tests/trt"]);
    }
    let mut folder = tools::target_folder(root)?;
    if let Some(target) = &args.target {
        cargo.args(["--target", target]);
        folder.push(target);
    }
    process::show_and_run(&mut cargo)?;
    Ok(folder.join("bundle"))
}

/// The commit of the working tree, with a mark where it was changed since, by a new file too: that is built
/// and copied like the others.
pub(crate) fn commit(root: &Path) -> anyhow::Result<String> {
    let git = |args: &[&str]| process::capture(Command::new("git").args(args).current_dir(root));
    let commit = git(&["rev-parse", "HEAD"])?.trim().to_owned();
    let changed = git(&["status", "--porcelain"])?;
    Ok(if changed.trim().is_empty() { commit } else { format!("{commit} with changes") })
}

/// Compiles what the tests and the workloads of several runtimes run on TVM, and copies it: the target
/// machine has no compiler of models.
fn copy_modules(root: &Path, architecture: &str, output: &Path) -> anyhow::Result<()> {
    let targets = ["llvm".to_owned(), architecture.to_owned()];
    for (set, only) in [(ModelSet::Golden, None), (ModelSet::Host24, Some(MIXED))] {
        let folder = models::compile_set(set, &targets, only)?;
        let place = folder.strip_prefix(root).context("modules lie in the workspace")?;
        let of_target = |name: &str| targets.iter().any(|it| name.contains(&format!(".{it}.")));
        copy_those(&folder, &output.join(place), |name| {
            of_target(name) && only.is_none_or(|all| all.iter().any(|it| is_of(name, it)))
        })?;
    }
    Ok(())
}

/// Whether the file `name` is of the network `network`, or of a stage of it.
fn is_of(name: &str, network: &str) -> bool {
    name.strip_prefix(network).is_some_and(|rest| rest.starts_with('.'))
}

/// Copies the files of `from` whose names end in `.extension`, or all for none, not going deeper.
fn copy_files(from: &Path, extension: &str, to: &Path) -> anyhow::Result<()> {
    let end = format!(".{extension}");
    copy_those(from, to, |name| extension.is_empty() || name.ends_with(&end))
}

/// Copies the files of `from` whose names are wanted, not going deeper.
fn copy_those(from: &Path, to: &Path, wants: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let entries = fs::read_dir(from).with_context(|| from.display().to_string())?;
    let mut copied = 0;
    for entry in entries {
        let path = entry.with_context(|| from.display().to_string())?.path();
        let Some(name) = path.file_name().filter(|name| wants(&name.to_string_lossy())) else {
            continue;
        };
        if path.is_file() {
            copy(&path, &to.join(name))?;
            copied += 1;
        }
    }
    ensure!(copied > 0, "nothing to bundle in {}", from.display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let folder = to.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    // A program that runs cannot be overwritten, but its name can be given to another file.
    let _ = fs::remove_file(to);
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(unix)]
fn make_executable(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| path.display().to_string())
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> anyhow::Result<()> {
    Ok(()) // Elsewhere a file needs no mark to be run by a shell.
}

/// Prints what is in the folder, with sizes.
fn say(output: &Path) -> anyhow::Result<()> {
    let mut total = 0;
    for path in crate::source::files_below(output).with_context(|| output.display().to_string())? {
        let bytes = fs::metadata(&path).with_context(|| path.display().to_string())?.len();
        total += bytes;
        let name = path.strip_prefix(output).unwrap_or(&path);
        println!("{:>12} bytes  {}", bytes, name.display());
    }
    println!("{:.1} MB in {}", total as f64 / 1e6, output.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_the_readme_is_one_of_the_script() {
        let steps = README.lines().filter_map(|line| line.strip_prefix("./run.sh "));
        let steps: Vec<_> = steps.filter_map(|line| line.split_whitespace().next()).collect();
        assert!(steps.len() > 8, "{steps:?}");
        for step in steps {
            assert!(
                SCRIPT.contains(&format!("    {step}) "))
                    || SCRIPT.contains(&format!("    {step})\n")),
                "{step}"
            );
        }
    }

    #[test]
    fn the_script_is_one_that_the_shell_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("run.sh");
        write(&script, SCRIPT).expect("a new file");
        process::capture(Command::new("bash").arg("-n").arg(&script)).expect("no error of syntax");
    }

    #[test]
    fn a_place_that_is_none_for_a_bundle_is_refused_and_others_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        assert!(check_output(&at.join("new")).is_ok());
        assert!(check_output(at).is_ok(), "empty");
        fs::write(at.join("README.md"), "mine").expect("a new file");
        let said = |path: &Path| check_output(path).expect_err("no place").to_string();
        assert!(said(at).contains("something else than a bundle"), "{}", said(at));
        assert!(said(&at.join("README.md")).contains("no folder"));
        assert!(said(Path::new("/dev/null")).contains("no folder"));
        fs::write(at.join("COMMIT"), "abc").expect("a new file");
        assert!(check_output(at).is_ok(), "an earlier bundle");
    }

    #[test]
    fn the_libraries_of_an_earlier_bundle_go_and_those_of_others_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join("lib/libonnxruntime.so");
        fs::create_dir_all(library.parent().expect("it is below")).expect("a new folder");
        write(&library, "").expect("a new file");
        remove_libraries(folder.path()).expect("it is no bundle");
        assert!(library.is_file());
        for mark in ["COMMIT", "run.sh"] {
            write(&folder.path().join(mark), "").expect("a new file");
        }
        remove_libraries(folder.path()).expect("it is ours");
        assert!(!library.exists() && folder.path().join("COMMIT").is_file());
    }

    #[test]
    fn the_script_says_that_there_is_no_runtime_and_not_where_there_is_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("run.sh");
        write(&script, SCRIPT).expect("a new file");
        let said = |named: Option<&str>, step: &str| {
            let mut bash = Command::new("bash");
            bash.arg(&script).arg(step).env_remove("ORT_DYLIB_PATH");
            named.map(|path| bash.env("ORT_DYLIB_PATH", path));
            let output = bash.output().expect("there is a shell");
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        assert!(said(None, "report").contains("no ONNX Runtime"), "without a word");
        assert!(!said(None, "help").contains("no ONNX Runtime"), "nothing is run");
        assert!(!said(Some("libonnxruntime.so"), "report").contains("no ONNX Runtime"));
        fs::create_dir(folder.path().join("lib")).expect("a new folder");
        write(&folder.path().join("lib/libonnxruntime.so"), "").expect("a new file");
        assert!(!said(None, "report").contains("no ONNX Runtime"), "it came with the bundle");
    }

    /// Runs a step of the script where `aegis check` ends with `status`; everything else succeeds. What
    /// the step ended with, what it said, and whether a headline was run.
    fn step(step: &str, status: i32) -> (Option<i32>, String, bool) {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("bin")).expect("a new folder");
        let aegis = format!("[ $1 = check ] && {{ echo answered; exit {status}; }}\nexit 0\n");
        let bench = "case $* in *tune*) cp \"$2\" \"$6\" ;; *headline*) touch headlines ;; esac\n";
        for (name, script) in [("aegis", aegis.as_str()), ("aegis-bench", bench)] {
            write(&at("bin").join(name), &format!("#!/bin/sh\n{script}")).expect("a new file");
            make_executable(&at("bin").join(name)).expect("it is ours");
        }
        write(&at("run.sh"), SCRIPT).expect("a new file");
        write(&at("w.toml"), "[scheduler]\n").expect("a new file");
        write(&at("w-uploads.evidence.json"), "{}").expect("a new file");
        let mut bash = Command::new("bash");
        bash.arg(at("run.sh")).arg(step).env("WORKLOAD", "w.toml").env("DRIVER", "host");
        let output = bash.env("ORT_DYLIB_PATH", "lib").output().expect("there is a shell");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
            at("headlines").exists(),
        )
    }

    #[test]
    fn uploads_are_compared_where_all_is_admitted_alone() {
        let (status, said, ran) = step("uploads", 0);
        assert!(status == Some(0) && ran, "{status:?}: {said}");
        let (status, said, ran) = step("uploads", 1);
        assert!(status == Some(1) && !ran, "{status:?}: {said}");
        assert!(said.contains("at 70 %") && said.contains("nothing was compared"), "{said}");
        let (status, said, ran) = step("uploads", 2);
        assert!(status == Some(2) && !ran, "{status:?}: {said}");
        assert!(said.contains("answered") && !said.contains("not every model"), "{said}");
    }

    #[test]
    fn the_script_names_a_step_that_is_none_and_says_what_a_driver_does_not_change() {
        let (status, said, _) = step("chekc", 0);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("there is no step chekc") && said.contains("DRIVER "), "{said}");
        assert!(!said.contains("set -u"), "{said}");
        let (status, said, _) = step("check", 0);
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("DRIVER=host does not change the step check"), "{said}");
        assert!(!step("headline", 0).1.contains("does not change"));
    }

    #[test]
    fn files_are_copied_by_their_ending() {
        let (from, to) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("one"));
        write(&from.path().join("a.toml"), "a").expect("a new file");
        write(&from.path().join("b.json"), "b").expect("a new file");
        copy_files(from.path(), "toml", to.path()).expect("there is one");
        assert!(to.path().join("a.toml").is_file() && !to.path().join("b.json").exists());
        copy_files(from.path(), "svg", to.path()).expect_err("there is none");
    }
}

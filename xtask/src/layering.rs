//! The layer rule: every crate of ours uses only crates above it.
//!
//! [`LAYERS`] is the whole rule, as data. It is held against the dependencies that the manifests
//! declare (normal, build and development alike), and the module of raw device handles is held to
//! the crates that may touch it, by reading the sources.
//!
//! # Invariants
//! 1. A crate that is not in [`LAYERS`] fails the check: a new crate states its layer first.
//! 2. What stands below a crate, or beside it, is unknown to it.
//! 3. Only [`BACKEND_SIDE`] says the word [`RAW_HANDLES`], and does not pass on what it gives.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context, bail};
use cargo_metadata::{Metadata, Package};

use crate::source::{self, Source};
use crate::{process, tools};

/// One crate and what it may use of the others.
struct Layer {
    name: &'static str,
    sees: Sees,
}

/// The crates of ours that a crate may use.
enum Sees {
    /// All crates above it.
    Above,
    /// All crates above it but these, its siblings.
    AboveExcept(&'static [&'static str]),
    /// These alone.
    Only(&'static [&'static str]),
}

/// The crates behind which a foreign runtime lives.
const BACKENDS: &[&str] = &["aegis-backend-onnx", "aegis-backend-tvm", "aegis-backend-trt"];

/// What all of them do on a GPU, and they: the crates that may touch raw handles.
const BACKEND_SIDE: &[&str] =
    &["aegis-backend-gpu", "aegis-backend-onnx", "aegis-backend-tvm", "aegis-backend-trt"];

/// The crate of the raw handles, and the module of it that shows them.
const DEVICE_CRATE: &str = "aegis-cuda";
/// Any way to reach the module says its name, however the `use` is written, so the name itself is
/// reserved: simpler than resolving imports, and with no hole.
const RAW_HANDLES: &str = "interop";

/// The layers, from the vocabulary down to the tooling. Crates of later issues are in it already.
const LAYERS: &[Layer] = &[
    Layer { name: "aegis-trace", sees: Sees::Above },
    Layer { name: DEVICE_CRATE, sees: Sees::Above },
    Layer { name: "aegis-memory", sees: Sees::Above },
    Layer { name: "aegis-context", sees: Sees::Above },
    Layer { name: "aegis-backend-gpu", sees: Sees::Above },
    Layer { name: "aegis-backend-onnx", sees: Sees::AboveExcept(BACKENDS) },
    Layer { name: "aegis-backend-tvm", sees: Sees::AboveExcept(BACKENDS) },
    Layer { name: "aegis-backend-trt", sees: Sees::AboveExcept(BACKENDS) },
    // It judges every backend, and each of them tests itself with it.
    Layer { name: "aegis-conformance", sees: Sees::Above },
    Layer { name: "aegis-sched", sees: Sees::AboveExcept(BACKEND_SIDE) },
    Layer { name: "aegis-verify", sees: Sees::Only(&["aegis-trace"]) },
    Layer { name: "aegis", sees: Sees::Above },
    // It checks certificates with the checker alone, and does all else through the facade.
    Layer { name: "aegis-cli", sees: Sees::Only(&["aegis", "aegis-verify"]) },
    // One program for the target machine: it tests the device, and the runtimes on it.
    Layer { name: "aegis-gpu-tests", sees: Sees::AboveExcept(&["aegis", "aegis-cli"]) },
    // It calls ONNX Runtime as others do, beside the facade, and a process has one environment of it.
    Layer { name: "aegis-bench", sees: Sees::Only(&["aegis", "aegis-backend-onnx"]) },
    Layer {
        name: "aegis-benches",
        sees: Sees::AboveExcept(&["aegis-cli", "aegis-bench", "aegis-gpu-tests"]),
    },
    // A tool that used what it checks could not run while that is broken.
    Layer { name: "xtask", sees: Sees::Only(&[]) },
];

/// A declared dependency of one crate of ours on another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    to: String,
    kind: String,
}

/// What the manifests and sources of a workspace say.
struct Findings {
    edges: BTreeSet<Edge>,
    /// One sentence per breach of the rule.
    faults: Vec<String>,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

/// Prints the edges between our crates and fails on the first set of forbidden ones.
///
/// # Errors
/// The workspace cannot be read, or breaks the rule; every breach is printed.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let Findings { edges, faults } = examine(root)?;
    for edge in &edges {
        println!("{edge} ({})", edge.kind);
    }
    for fault in &faults {
        process::say(fault);
    }
    if !faults.is_empty() {
        bail!("the layer rule is broken in {} places", faults.len());
    }
    println!("layering: {} edges, none forbidden", edges.len());
    Ok(())
}

/// Holds the workspace at `root` against [`LAYERS`].
fn examine(root: &Path) -> anyhow::Result<Findings> {
    let metadata = tools::manifests(root)?;
    let edges = edges(&metadata);
    let mut faults: Vec<_> = metadata.packages.iter().filter_map(unplaced).collect();
    faults.extend(edges.iter().filter_map(forbidden));
    for package in &metadata.packages {
        faults.extend(raw_handle_faults(root, package)?);
    }
    Ok(Findings { edges, faults })
}

/// Every dependency between two members of the workspace.
fn edges(metadata: &Metadata) -> BTreeSet<Edge> {
    let ours: BTreeSet<_> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let of = |package: &Package| {
        let from = package.name.to_string();
        let between = package.dependencies.iter().filter(|to| ours.contains(to.name.as_str()));
        let edge = |to: &cargo_metadata::Dependency| Edge {
            from: from.clone(),
            to: to.name.clone(),
            kind: to.kind.to_string(),
        };
        between.map(edge).collect::<Vec<_>>()
    };
    metadata.packages.iter().flat_map(of).collect()
}

/// What is wrong with a crate that no layer names.
fn unplaced(package: &Package) -> Option<String> {
    let placed = LAYERS.iter().any(|layer| layer.name == package.name.as_str());
    (!placed).then(|| format!("{}: it has no layer; give it one in LAYERS", package.name))
}

/// What is wrong with `edge`, if anything.
fn forbidden(edge: &Edge) -> Option<String> {
    let place = |name: &str| LAYERS.iter().position(|layer| layer.name == name);
    // A crate with no layer is reported by itself, once.
    let (from, to) = (place(&edge.from)?, place(&edge.to)?);
    let reason = match LAYERS[from].sees {
        Sees::Only([]) => format!("{} may use no crate of ours", edge.from),
        Sees::Only(few) if !few.contains(&edge.to.as_str()) => {
            format!("{} may use only {} among ours", edge.from, few.join(", "))
        }
        Sees::AboveExcept(siblings) if siblings.contains(&edge.to.as_str()) => {
            format!("{} and {} must not know each other", edge.from, edge.to)
        }
        _ if to >= from => format!("{} does not lie above {}", edge.to, edge.from),
        _ => return None,
    };
    Some(format!("{edge}: {reason}"))
}

/// Every place where `package` names the raw handles though it may not.
fn raw_handle_faults(root: &Path, package: &Package) -> anyhow::Result<Vec<String>> {
    let folder = package.manifest_path.parent().context("a manifest has a folder")?;
    let mut faults = Vec::new();
    for source in source::read_folder(root, folder.as_std_path())? {
        faults.extend(source.find(RAW_HANDLES).filter_map(|index| {
            let reason = raw_handle_fault(package.name.as_str(), &source, index)?;
            let place = format!("{}:{}", source.path, source.line(index));
            Some(format!("{} -> {DEVICE_CRATE}::{RAW_HANDLES}: {reason} ({place})", package.name))
        }));
    }
    Ok(faults)
}

/// What is wrong with `name` saying the reserved word at `index`, if anything.
fn raw_handle_fault(name: &str, source: &Source, index: usize) -> Option<&'static str> {
    let trusted = name == DEVICE_CRATE || BACKEND_SIDE.contains(&name);
    if !trusted {
        return Some("only backend crates may name it");
    }
    let in_public_use = is_in_public_use(source, index);
    in_public_use.then_some("what it shows must not be passed on by `pub use`")
}

/// Whether the token at `index` belongs to an import that others can see.
fn is_in_public_use(source: &Source, index: usize) -> bool {
    let start = (0..index).rev().take_while(|at| source.word(*at) != ";");
    let uses = start.filter(|at| source.word(*at) == "use").last();
    uses.is_some_and(|at| at > 0 && source.word(at - 1) == "pub")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// The folders of the workspace that hold our crates.
    const FOLDERS: [&str; 3] = ["crates", "benches", "xtask"];

    #[test]
    fn the_workspace_keeps_the_rule() {
        let findings = examine(&crate::workspace_root()).expect("the workspace can be read");
        assert_eq!(findings.faults, Vec::<String>::new());
        let known = Edge {
            from: "aegis-sched".to_owned(),
            to: "aegis-trace".to_owned(),
            kind: "normal".to_owned(),
        };
        assert!(findings.edges.contains(&known), "the scan finds no edges: {:?}", findings.edges);
    }

    #[test]
    fn a_forbidden_dependency_is_found() {
        check_manifest(
            "aegis-memory",
            "dependencies",
            "aegis-sched",
            "aegis-memory -> aegis-sched: aegis-sched does not lie above aegis-memory",
        );
    }

    #[test]
    fn the_scheduler_and_the_backends_are_strangers_even_in_tests() {
        for backend in ["aegis-backend-onnx", "aegis-backend-gpu"] {
            check_manifest(
                "aegis-sched",
                "dev-dependencies",
                backend,
                &format!(
                    "aegis-sched -> {backend}: aegis-sched and {backend} must not know each other"
                ),
            );
        }
    }

    #[test]
    fn the_program_sees_the_facade_and_the_checker_alone() {
        check_manifest(
            "aegis-cli",
            "build-dependencies",
            "aegis-trace",
            "aegis-cli -> aegis-trace: aegis-cli may use only aegis, aegis-verify among ours",
        );
    }

    #[test]
    fn a_new_crate_states_its_layer() {
        let copy = copy_workspace();
        let manifest = copy.path().join("crates/aegis-memory/Cargo.toml");
        let text = fs::read_to_string(&manifest).expect("the manifest was copied");
        let renamed = text.replacen("name = \"aegis-memory\"", "name = \"aegis-utils\"", 1);
        fs::write(&manifest, renamed).expect("the copy can be written");
        expect_fault(&copy, "aegis-utils: it has no layer; give it one in LAYERS");
    }

    #[test]
    fn raw_handles_are_found_in_every_form_of_import() {
        for import in [
            "use aegis_cuda::interop;",
            "use aegis_cuda::{stream, interop::buffer_ptr};",
            "use aegis_cuda::{stream::{self}, interop::{\n    buffer_ptr,\n}};",
            "use aegis_cuda as device;\nuse device::interop as raw;",
            "fn f() { ::aegis_cuda::interop::buffer_ptr(); }",
            "use aegis_cuda::r#interop;",
        ] {
            let copy = copy_workspace();
            let file = copy.path().join("crates/aegis-sched/src/raw.rs");
            fs::write(file, import).expect("the copy can be written");
            let line = import.lines().position(|line| line.contains("interop")).unwrap_or(0) + 1;
            expect_fault(
                &copy,
                &format!(
                    "aegis-sched -> aegis-cuda::interop: only backend crates may name it \
                     (crates/aegis-sched/src/raw.rs:{line})"
                ),
            );
        }
    }

    #[test]
    fn a_backend_names_raw_handles_but_does_not_pass_them_on() {
        let fault = |name: &str, text: &str| {
            let source = Source::new("a.rs", text);
            let index = source.find(RAW_HANDLES).next().expect("the sample says it");
            raw_handle_fault(name, &source, index)
        };
        let import = "use aegis_cuda::{interop::buffer_ptr, stream};";
        assert_eq!(fault("aegis-backend-onnx", import), None);
        assert_eq!(fault("aegis-backend-gpu", import), None);
        assert_eq!(fault(DEVICE_CRATE, "pub mod interop;"), None);
        let passed_on = fault("aegis-backend-onnx", &format!("mod a;\npub {import}"));
        assert_eq!(passed_on, Some("what it shows must not be passed on by `pub use`"));
    }

    #[test]
    fn prose_about_raw_handles_is_not_a_use() {
        let copy = copy_workspace();
        let file = copy.path().join("crates/aegis-sched/src/raw.rs");
        fs::write(file, "//! Never uses `aegis_cuda::interop`.\nconst A: &str = \"interop\";\n")
            .expect("the copy can be written");
        let findings = examine(copy.path()).expect("the copy can be read");
        assert_eq!(findings.faults, Vec::<String>::new());
    }

    /// Adds `to` to a table of `from`'s manifest, in a copy, and expects exactly `fault`.
    fn check_manifest(from: &str, table: &str, to: &str, fault: &str) {
        let copy = copy_workspace();
        let manifest = copy.path().join("crates").join(from).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).expect("the manifest was copied");
        let mut document: toml::Table = text.parse().expect("the manifest is TOML");
        let entry = toml::Table::from_iter([("workspace".to_owned(), true.into())]);
        document
            .entry(table)
            .or_insert_with(|| toml::Table::new().into())
            .as_table_mut()
            .expect("dependencies are a table")
            .insert(to.to_owned(), entry.into());
        fs::write(&manifest, document.to_string()).expect("the copy can be written");
        expect_fault(&copy, fault);
    }

    fn expect_fault(copy: &TempDir, fault: &str) {
        let findings = examine(copy.path()).expect("the copy can be read");
        assert_eq!(findings.faults, [fault]);
        assert!(run(copy.path()).is_err(), "the command fails as well");
    }

    /// The manifests and sources of the workspace, in a folder of their own.
    fn copy_workspace() -> TempDir {
        let root = crate::workspace_root();
        let copy = tempfile::tempdir().expect("a folder for the copy");
        copy_file(&root, copy.path(), &root.join("Cargo.toml"));
        for folder in FOLDERS {
            let files = source::files_below(&root.join(folder)).expect("the folder can be listed");
            let wanted = |path: &&std::path::PathBuf| {
                path.extension().is_some_and(|extension| extension == "rs")
                    || path.file_name().is_some_and(|name| name == "Cargo.toml")
            };
            for file in files.iter().filter(wanted) {
                copy_file(&root, copy.path(), file);
            }
        }
        copy
    }

    fn copy_file(root: &Path, copy: &Path, file: &Path) {
        let target = copy.join(file.strip_prefix(root).expect("the file lies in the workspace"));
        fs::create_dir_all(target.parent().expect("a file has a folder")).expect("a new folder");
        fs::copy(file, target).expect("the file can be copied");
    }
}

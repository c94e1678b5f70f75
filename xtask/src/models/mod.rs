//! The model generator: real architectures as ONNX files, with seeded random weights.
//!
//! Timing, memory and scheduling depend on a network's shape and not on what it learned, so random
//! weights are as good as trained ones here, and need no download and no licence. A file is equal
//! to the byte on every run and machine.
//!
//! Read [`sets`] for the networks, [`graph`] for how one is built, [`stages`] for how one is cut,
//! [`tvm`] for how one is compiled.
//!
//! # Invariants
//! 1. A file appears under its name only when it is complete.
//! 2. Equal versions of this module write equal bytes (tested; see `weights`).

mod camera;
mod depth;
mod edge;
mod efficientnet;
mod faulty;
mod graph;
mod half;
mod lane;
mod layers;
mod lstm;
mod mlp;
mod mobilenet;
mod mobilenet3;
mod pillars;
mod pose;
mod recurrent;
mod resnet;
mod schema;
mod sets;
mod stages;
mod transformer;
mod tvm;
mod unet;
mod weights;
mod workload;
mod yolo;

use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context as _, ensure};
use prost::Message as _;

use edge::{EDGE_ROLES, Precision};
use faulty::Fault;
use graph::Graph;
use sets::{GOLDEN, ROLES, Variant};

pub(crate) use tvm::check_architecture;

/// Arguments of `cargo xtask models`.
#[derive(clap::Args)]
pub(crate) struct ModelsArgs {
    /// Which models to write.
    #[arg(long, value_enum, default_value_t = ModelSet::Host24)]
    set: ModelSet,
    /// Folder for the files; `.aegis/models/SET` of the repository if absent.
    #[arg(long, visible_alias = "output")]
    out: Option<PathBuf>,
    /// Write only the model of this name.
    #[arg(long)]
    only: Option<String>,
    /// Print the set instead of writing it.
    #[arg(long, conflicts_with_all = ["workload", "out", "only"])]
    list: bool,
    /// Print the models of the set's workload file instead of writing files.
    #[arg(long, conflicts_with_all = ["out", "only"])]
    workload: bool,
    /// Compile the models with TVM as well, for this target: `llvm`, or a GPU's as in `sm_90`.
    #[arg(long, value_name = "TARGET", value_parser = tvm::check_target, conflicts_with_all = ["list", "workload"])]
    tvm: Vec<String>,
    /// Compile this ONNX file instead of a set.
    #[arg(long, value_name = "FILE", requires = "tvm", conflicts_with_all = ["set", "only"])]
    onnx: Vec<PathBuf>,
}

/// A set of models that are written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ModelSet {
    /// The 24 roles, sized for one CPU core.
    Host24,
    /// The 24 networks for a GPU, at their papers' sizes: a gigabyte.
    Edge24,
    /// Tiny variants of every architecture, with known answers.
    Golden,
    /// Broken files.
    Faulty,
}

impl ModelSet {
    fn folder(self) -> &'static str {
        match self {
            Self::Host24 => "host24",
            Self::Edge24 => "edge24",
            Self::Golden => "golden",
            Self::Faulty => "faulty",
        }
    }

    /// The networks of the set; the faulty one has none.
    fn networks(self) -> Vec<Item> {
        match self {
            Self::Host24 => ROLES.iter().map(|r| Item::single(r.name, r.seed, r.host)).collect(),
            Self::Edge24 => EDGE_ROLES.iter().map(Item::of_edge).collect(),
            Self::Golden => {
                GOLDEN.iter().map(|g| Item::single(g.name, g.seed, g.variant)).collect()
            }
            Self::Faulty => Vec::new(),
        }
    }
}

/// A network of a set.
struct Item {
    name: &'static str,
    seed: u64,
    variant: Variant,
    precision: Precision,
    /// Whether its images are bytes.
    bytes: bool,
}

impl Item {
    fn single(name: &'static str, seed: u64, variant: Variant) -> Self {
        Self { name, seed, variant, precision: Precision::Single, bytes: false }
    }

    fn of_edge(role: &edge::EdgeRole) -> Self {
        let variant = Variant { network: role.network, cuts: &[] };
        let (precision, bytes) = (role.precision, role.bytes);
        Self { name: role.name, seed: role.seed, variant, precision, bytes }
    }

    fn whole(&self) -> Graph {
        let graph = self.variant.network.graph(self.name, self.seed);
        let graph = match self.precision {
            Precision::Single => graph,
            Precision::Half => half::halved(graph),
        };
        if self.bytes { camera::from_bytes(graph) } else { graph }
    }

    /// The architecture, its size and precision, for people.
    fn summary(&self) -> String {
        let network = self.variant.network.summary();
        let bytes = if self.bytes { ", images of bytes" } else { "" };
        match self.precision {
            Precision::Single => format!("{network}{bytes}"),
            Precision::Half => format!("{network} fp16{bytes}"),
        }
    }

    /// The files' graphs: the whole network, or its stages.
    fn stages(&self) -> anyhow::Result<Vec<Graph>> {
        match self.variant.cuts {
            [] => Ok(vec![self.whole()]),
            cuts => stages::split(self.whole(), cuts),
        }
    }
}

/// A file that was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: usize,
}

/// Runs `cargo xtask models`.
///
/// # Errors
/// A name that is not in the set, or a folder that cannot be written.
pub(crate) fn run(args: &ModelsArgs) -> anyhow::Result<()> {
    if args.list {
        list(args.set);
        return Ok(());
    }
    if args.workload {
        let models = workload::models(args.set);
        print!("{}", models.with_context(|| format!("{} has no workload", args.set.folder()))?);
        return Ok(());
    }
    if !args.onnx.is_empty() {
        return compile_own(args);
    }
    let dir = args.out.clone().unwrap_or_else(|| default_dir(args.set));
    let start = Instant::now();
    let written = match &args.only {
        Some(name) => write_one(args.set, name, &dir)?,
        None => write_set(args.set, &dir)?,
    };
    for file in &written {
        println!("{:>12} bytes  {}", file.bytes, file.path.display());
    }
    let bytes: usize = written.iter().map(|file| file.bytes).sum();
    println!(
        "{} files, {:.1} MB, in {:.1} s",
        written.len(),
        bytes as f64 / 1e6,
        start.elapsed().as_secs_f64()
    );
    if !args.tvm.is_empty() {
        let files: Vec<PathBuf> = written.into_iter().map(|file| file.path).collect();
        tvm::compile(root(), &files, &args.tvm, &tvm::folder_beside(&dir))?;
    }
    Ok(())
}

/// Compiles the user's own files, beside them unless told otherwise. Here what is not supported is an
/// error: these are all that was asked for.
fn compile_own(args: &ModelsArgs) -> anyhow::Result<()> {
    for file in &args.onnx {
        ensure!(file.is_file(), "--onnx {} is not there, or no file", file.display());
    }
    let out = args.out.clone().or_else(|| args.onnx[0].parent().map(Path::to_path_buf));
    let tally = tvm::compile(root(), &args.onnx, &args.tvm, &out.unwrap_or_default())?;
    ensure!(tally.unsupported == 0, "{} files cannot be compiled", tally.unsupported);
    Ok(())
}

/// Writes the networks of `set`, or those of `only`, and compiles them for `targets`. Gives the folder of
/// the modules.
///
/// # Errors
/// As [`tvm::compile`].
pub(crate) fn compile_set(
    set: ModelSet,
    targets: &[String],
    only: Option<&[&str]>,
) -> anyhow::Result<PathBuf> {
    let dir = default_dir(set);
    let wanted = |item: &&Item| only.is_none_or(|names| names.contains(&item.name));
    let mut files = Vec::new();
    for item in set.networks().iter().filter(wanted) {
        files.extend(write_item(set, item, &dir)?.into_iter().map(|file| file.path));
    }
    let out = tvm::folder_beside(&dir);
    tvm::compile(root(), &files, targets, &out)?;
    Ok(out)
}

/// The repository.
fn root() -> &'static Path {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("xtask is a folder of the repository")
}

/// The folder of `set` in the repository: `.aegis/models/SET`.
pub(crate) fn default_dir(set: ModelSet) -> PathBuf {
    root().join(".aegis").join("models").join(set.folder())
}

/// Writes every file of `set` into `dir`, which is created; other files there are left alone.
///
/// A staged network is written as `NAME.stageK.onnx`, any other as `NAME.onnx`; the golden set has
/// both for its staged networks. Takes a second for the host set and some ten seconds for
/// `edge24`, and as much memory as twice the largest model.
///
/// # Errors
/// A folder or file that cannot be written.
pub(crate) fn write_set(set: ModelSet, dir: &Path) -> anyhow::Result<Vec<Written>> {
    let mut written = Vec::new();
    for item in set.networks() {
        written.extend(write_item(set, &item, dir)?);
    }
    if set == ModelSet::Faulty {
        for fault in Fault::ALL {
            written.push(write_file(dir, fault.name(), &fault.bytes())?);
        }
    }
    Ok(written)
}

fn write_one(set: ModelSet, name: &str, dir: &Path) -> anyhow::Result<Vec<Written>> {
    let items = set.networks();
    let item = items.iter().find(|item| item.name == name);
    let item = item.with_context(|| format!("no network {name} in {}", set.folder()))?;
    write_item(set, item, dir)
}

fn write_item(set: ModelSet, item: &Item, dir: &Path) -> anyhow::Result<Vec<Written>> {
    let mut graphs = item.stages()?;
    if set == ModelSet::Golden && graphs.len() > 1 {
        graphs.push(item.whole());
    }
    let write = |graph: Graph| {
        let name = graph.name.clone();
        write_file(dir, &name, &graph.into_model().encode_to_vec())
    };
    graphs.into_iter().map(write).collect()
}

/// Writes `dir/NAME.onnx` by way of a temporary name, so no reader meets half a file.
fn write_file(dir: &Path, name: &str, contents: &[u8]) -> anyhow::Result<Written> {
    ensure!(!name.contains(['/', '\\']), "{name} is not a file name");
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join(format!("{name}.onnx"));
    let partial = dir.join(format!(".{name}.{}.partial", std::process::id()));
    fs::write(&partial, contents)
        .and_then(|()| fs::rename(&partial, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Written { path, bytes: contents.len() })
}

fn list(set: ModelSet) {
    if set == ModelSet::Faulty {
        for fault in Fault::ALL {
            println!("{:<18} {}", fault.name(), fault.summary());
        }
        return;
    }
    println!(
        "{:<26} {:<46} {:>6} {:>12} {:>20} {:>9}",
        "name", "network", "stages", "parameters", "period", "host cost"
    );
    for item in set.networks() {
        println!(
            "{:<26} {:<46} {:>6} {:>12} {:>20} {:>9}",
            item.name,
            item.summary(),
            item.variant.cuts.len() + 1,
            item.whole().parameters(),
            period(set, item.name),
            host_cost(set, item.name),
        );
    }
}

/// The period for the listing, where the set has one.
fn period(set: ModelSet, name: &str) -> String {
    let host = ROLES.iter().find(|role| role.name == name);
    let edge = EDGE_ROLES.iter().find(|role| role.name == name);
    match (set, host, edge) {
        (ModelSet::Host24, Some(role), _) => format!("{} ms", role.period_ms),
        (ModelSet::Edge24, _, Some(role)) => {
            format!("{} ms ({:?})", role.period_us as f64 / 1000.0, role.class)
        }
        _ => String::new(),
    }
}

/// The measured cost for the listing: only the host variants have one.
fn host_cost(set: ModelSet, name: &str) -> String {
    let role = ROLES.iter().find(|role| set == ModelSet::Host24 && role.name == name);
    role.map_or(String::new(), |role| format!("{} us", role.host_cost_us))
}

#[cfg(test)]
mod tests;

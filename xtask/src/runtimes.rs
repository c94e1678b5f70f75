//! The pinned runtimes, fetched once and checked each time.
//!
//! Without a GPU that is ONNX Runtime alone, from the Python wheel `onnxruntime`: the library then
//! lies at `.aegis/runtimes/onnxruntime-1.31.1/libonnxruntime.so`, with its licence beside it, where
//! the product looks for it. With `--cuda` it is the wheel `onnxruntime-gpu`, and what its provider
//! needs of CUDA; read [`cuda`] for that, and [`package`] for how anything is fetched and believed.
//! With `--perfetto` it is what tests of exported traces need ([`perfetto`]).
//! With `--tvm` it is Apache TVM, compiler and runtime: [`tvm`].
//! With `--trt` it is TensorRT-RTX, and what its binding is built with ([`trt`]).
//!
//! # Invariants
//! 1. Nothing is loaded from the folders of this command but what has the pinned hash.

mod browser;
mod cuda;
mod package;
mod perfetto;
mod system;
mod trt;
mod tvm;

use std::path::{Path, PathBuf};

use clap::Args;

use self::package::{Item, Origin, Outcome, Package, RuntimesError};

/// The release of ONNX Runtime that the product is built and tested with.
pub(crate) const VERSION: &str = "1.31.1";

/// The name of the library where the product looks for it, whatever its release.
const LIBRARY: &str = "libonnxruntime.so";

/// ONNX Runtime for CPUs, by the processor as Rust calls it.
const PINS: [(&str, Package<'static>); 2] = [
    (
        "x86_64",
        onnxruntime(
            &["manylinux_2_28_x86_64"],
            "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
            &items("fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3"),
        ),
    ),
    (
        "aarch64",
        onnxruntime(
            &["manylinux_2_28_aarch64"],
            "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
            &items("8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467"),
        ),
    ),
];

const fn onnxruntime(
    platforms: &'static [&'static str],
    wheel: &'static str,
    items: &'static [Item<'static>],
) -> Package<'static> {
    let (name, version, python) = ("onnxruntime", VERSION, "3.11");
    Package { name, version, python, platforms, wheel, items }
}

const fn items(library: &'static str) -> [Item<'static>; 3] {
    [
        Item::library("onnxruntime/capi", LIBRARY, library),
        Item::text("onnxruntime", "LICENSE"),
        Item::text("onnxruntime", "ThirdPartyNotices.txt"),
    ]
}

/// What `cargo xtask runtimes` may be told.
#[derive(Args, Default)]
pub(crate) struct RuntimesArgs {
    /// Takes this wheel of the runtime instead of asking pip; it must be the pinned one.
    #[arg(long, value_name = "FILE")]
    wheel: Option<PathBuf>,
    /// Unpacks below this folder instead of `.aegis/runtimes`.
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// The runtime for CUDA, and what it needs of CUDA where the system lacks it.
    #[arg(long)]
    cuda: bool,
    /// A headless Chromium for the tests of pages, where the system has none.
    #[arg(long)]
    browser: bool,
    /// Perfetto's own reader of traces, and Node to run it where the system lacks it: for tests.
    #[arg(long, conflicts_with_all = ["cuda", "wheel"])]
    perfetto: bool,
    /// Apache TVM: a private Python environment that compiles models, and the libraries.
    #[arg(long, conflicts_with_all = ["wheel", "cuda", "perfetto"])]
    tvm: bool,
    /// TensorRT-RTX, and what building the feature `trt` needs.
    #[arg(long, conflicts_with_all = ["cuda", "perfetto", "tvm"])]
    trt: bool,
}

impl RuntimesArgs {
    /// What `--perfetto` asks for.
    pub(crate) fn perfetto() -> Self {
        Self { perfetto: true, ..Self::default() }
    }

    /// TVM, where it belongs.
    pub(crate) fn of_tvm() -> Self {
        Self { tvm: true, ..Self::default() }
    }
}

/// Puts the pinned runtimes where the product looks for them.
///
/// # Errors
/// As [`RuntimesError`]: each says what is missing and what to do.
pub(crate) fn run(root: &Path, args: &RuntimesArgs) -> anyhow::Result<()> {
    let into = args.into.clone().unwrap_or_else(|| home(root));
    if args.tvm {
        return Ok(tvm::run(&into)?);
    }
    if let Some(wheel) = &args.wheel {
        anyhow::ensure!(wheel.is_file(), "--wheel {} is not there, or no file", wheel.display());
    }
    let origin = args.wheel.as_deref().map_or(Origin::Pip, Origin::File);
    if args.browser {
        println!("browser: {}", browser::provide(&into)?.display());
        return Ok(());
    }
    if args.cuda {
        return Ok(cuda::run(&into, &origin)?);
    }
    if args.perfetto {
        return Ok(perfetto::run(&into)?);
    }
    if args.trt {
        return Ok(trt::run(&into, &origin)?);
    }
    let package = package_of_this_machine()?;
    let home = into.join(package.folder());
    let verb = verb(&package.provide(&home, &origin)?);
    println!("ONNX Runtime {VERSION} {verb}: {}", home.join(LIBRARY).display());
    Ok(())
}

/// Makes sure of ONNX Runtime for this machine, or of the one for CUDA, and returns its folder. Of
/// CUDA itself nothing is fetched.
///
/// # Errors
/// As [`run`].
pub(crate) fn provide(root: &Path, cuda: bool) -> anyhow::Result<PathBuf> {
    let package = if cuda { cuda::RUNTIME } else { package_of_this_machine()? };
    let folder = home(root).join(package.folder());
    package.provide(&folder, &Origin::Pip)?;
    Ok(folder)
}

/// Makes sure of a browser for the tests of pages, and returns its path.
///
/// # Errors
/// As [`run`].
pub(crate) fn provide_browser(root: &Path) -> anyhow::Result<PathBuf> {
    Ok(browser::provide(&home(root))?)
}

/// Makes sure of TensorRT-RTX, and returns the folder of its libraries: where it is below that of a
/// workspace, and its path here.
///
/// # Errors
/// As [`run`].
pub(crate) fn provide_trt(root: &Path) -> anyhow::Result<(&'static str, PathBuf)> {
    trt::run(&home(root), &Origin::Pip)?;
    Ok((trt::PLACE, root.join(trt::PLACE)))
}

/// Makes sure of TVM, and returns the folder of its libraries: where it is below that of a workspace,
/// and its path here.
///
/// # Errors
/// As [`run`].
pub(crate) fn provide_tvm(root: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    tvm::run(&home(root))?;
    let place = Path::new(".aegis/runtimes").join(tvm::folder());
    Ok((place.clone(), root.join(place)))
}

/// The library's place in the workspace at `root`, whether it is there or not.
pub(crate) fn library(root: &Path) -> PathBuf {
    home(root).join(format!("onnxruntime-{VERSION}")).join(LIBRARY)
}

/// The Python that compiles models with TVM.
///
/// # Errors
/// There is none, with what to run.
pub(crate) fn tvm_python(root: &Path) -> anyhow::Result<PathBuf> {
    Ok(tvm::python(&home(root))?)
}

fn home(root: &Path) -> PathBuf {
    root.join(".aegis/runtimes")
}

fn package_of_this_machine() -> Result<Package<'static>, RuntimesError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let pin = PINS.into_iter().find(|(of, _)| os == "linux" && *of == arch);
    let (what, pinned) = ("ONNX Runtime 1.31.1", "x86_64 and aarch64");
    pin.map(|(_, package)| package).ok_or(RuntimesError::Platform { what, pinned, os, arch })
}

fn verb(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Kept => "is in place",
        Outcome::Unpacked => "was unpacked",
    }
}

//! Apache TVM: a Python environment that compiles models, and the libraries that run them.
//!
//! The environment is private (`.aegis/runtimes/tvm-0.27.0/python`): pip installs exactly the pinned
//! wheels of `tvm-requirements.txt`, each by its hash. The four libraries that the product loads are
//! copied out of it, so that the folder without `python` is all that a target machine needs.
//!
//! Whoever has TVM already names its Python in `AEGIS_TVM_PYTHON`: then nothing is fetched, models
//! are compiled with that one, and the product is told of its libraries by `TVM_LIBRARY_PATH`.
//!
//! # Invariants
//! 1. The folder appears by one rename, with everything in it; its libraries have the pinned hashes.
//! 2. With the folder in place, or a Python named, nothing is fetched or written.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::package::{Item, RuntimesError, at};
use crate::process::{self, ProcessError};

/// The release that the product is built and tested with.
pub(crate) const VERSION: &str = "0.27.0";
/// The variable that names the Python of an own installation.
pub(crate) const PYTHON_VARIABLE: &str = "AEGIS_TVM_PYTHON";
/// The wheels with their hashes, for every processor and Python that has them.
const REQUIREMENTS: &str = include_str!("tvm-requirements.txt");
/// Where the requirements that were met are kept, in the environment.
const MET: &str = "requirements.txt";
/// The environment within the folder.
const ENVIRONMENT: &str = "python";

/// Prints the folders of the two libraries' packages and the release, one on each line.
const WHERE: &str = "import importlib.metadata as m, importlib.util as u, os\n\
    place = lambda name: os.path.dirname(u.find_spec(name).origin)\n\
    u.find_spec('onnx').origin\n\
    print(m.version('apache-tvm'), os.path.join(place('tvm'), 'lib'), \
    os.path.join(place('tvm_ffi'), 'lib'), sep='\\n')";

/// The libraries by the processor as Rust calls it: the interface, the runtime with its virtual
/// machine, and what serves a GPU.
const PINS: [(&str, [Item<'static>; 4]); 2] = [
    (
        "x86_64",
        libraries([
            "c33ef5349896abfd0c5d6994e028ce3b72a343e3e7a29c1030fe093054b656ea",
            "43544bbeaea3cd3ffa919f7eac77244753aff28d1440c42f1ba8df03fa6e3948",
            "12a6fc3e6f1e50ae105d0b580c2ecddbac23473fa906f1fdc92693eae5bc22eb",
            "38782fe727adf51a82fa93de2a003044e16cd421564864a340dbd7f341215ffe",
        ]),
    ),
    (
        "aarch64",
        libraries([
            "c4c51b8793866b704dcefd12a2f127c691b905977962f0970a112b4df5f9ea07",
            "ba06950fac134b8d71549111fad2c6605cd6f738061fe0482f217c37ccbdff05",
            "741979814c4028d536a8a8ed1b9a6306ab23812ab3853803e5146cdde5778dcf",
            "c277ef1b0b4afef83d0fa99f50b7ea72632c64a7020ce7ce887d225de13266e6",
        ]),
    ),
];

const fn libraries([ffi, runtime, extra, cuda]: [&'static str; 4]) -> [Item<'static>; 4] {
    [
        Item::library("tvm_ffi/lib", "libtvm_ffi.so", ffi),
        Item::library("tvm/lib", "libtvm_runtime.so", runtime),
        Item::library("tvm/lib", "libtvm_runtime_extra.so", extra),
        Item::library("tvm/lib", "libtvm_runtime_cuda.so", cuda),
    ]
}

/// Puts TVM below `into`, or says what of an own installation is used.
///
/// # Errors
/// As [`RuntimesError`].
pub(super) fn run(into: &Path) -> Result<(), RuntimesError> {
    if let Some(python) = own_python() {
        let [version, runtime, ffi] = places(&python)?;
        println!("TVM {version} of {PYTHON_VARIABLE}={}", python.display());
        println!("for the product: export TVM_LIBRARY_PATH=\"{runtime}:{ffi}\"");
        return Ok(());
    }
    let home = into.join(folder());
    let items = items_of_this_machine()?;
    if is_in(&home, &items) {
        println!("TVM {VERSION} is in place: {}", home.display());
        return Ok(());
    }
    fs::create_dir_all(into).map_err(at(into))?;
    let work = tempfile::Builder::new().prefix(".unpack-").tempdir_in(into).map_err(at(into))?;
    let ready = work.path().join("ready");
    make_environment(&ready.join(ENVIRONMENT))?;
    gather(&ready, &items)?;
    if home.exists() {
        fs::remove_dir_all(&home).map_err(at(&home))?;
    }
    fs::rename(&ready, &home).map_err(at(&home))?;
    println!("TVM {VERSION} was installed: {}", home.display());
    Ok(())
}

/// The Python that compiles models for the workspace whose runtimes are below `into`.
///
/// # Errors
/// There is none, with what to run.
pub(super) fn python(into: &Path) -> Result<PathBuf, RuntimesError> {
    if let Some(python) = own_python() {
        places(&python)?;
        return Ok(python);
    }
    let python = python_of(&into.join(folder()).join(ENVIRONMENT));
    if python.exists() { Ok(python) } else { Err(RuntimesError::NoTvm { place: python }) }
}

/// The folder of the libraries below the runtimes.
pub(super) fn folder() -> String {
    format!("tvm-{VERSION}")
}

fn own_python() -> Option<PathBuf> {
    env::var_os(PYTHON_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn python_of(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}

/// The release of `python`'s TVM, and the folders of its libraries.
fn places(python: &Path) -> Result<[String; 3], RuntimesError> {
    let path = python.to_path_buf();
    let said = process::capture(Command::new(python).args(["-c", WHERE]))
        .map_err(|source| RuntimesError::TvmOfPython { path: path.clone(), source })?;
    let mut lines = said.lines().map(str::to_owned);
    let mut next = || lines.next().unwrap_or_default();
    let places = [next(), next(), next()];
    let same_series = |version: &str| version.rsplit_once('.').map(|(series, _)| series.to_owned());
    let fits = places[0] == VERSION || same_series(&places[0]) == same_series(VERSION);
    if fits {
        return Ok(places);
    }
    let [version, ..] = places;
    Err(RuntimesError::OtherTvm { path, version, pinned: VERSION })
}

fn items_of_this_machine() -> Result<[Item<'static>; 4], RuntimesError> {
    let (os, arch) = (env::consts::OS, env::consts::ARCH);
    let pin = PINS.into_iter().find(|(of, _)| os == "linux" && *of == arch);
    pin.map(|(_, items)| items).ok_or(RuntimesError::TvmPlatform { os, arch })
}

/// Whether `home` has the libraries and an environment of the same requirements.
fn is_in(home: &Path, items: &[Item<'_>]) -> bool {
    let environment = home.join(ENVIRONMENT);
    let met = fs::read_to_string(environment.join(MET)).is_ok_and(|text| text == REQUIREMENTS);
    met && python_of(&environment).exists() && items.iter().all(|item| item.check_in(home).is_ok())
}

/// Makes a Python environment with what is required, at `environment`.
fn make_environment(environment: &Path) -> Result<(), RuntimesError> {
    let package = || format!("apache-tvm {VERSION}");
    println!("installing {} with pip: 0.1 GB to fetch, 0.5 GB on disk", package());
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(environment);
    process::capture(&mut venv).map_err(|error| match error {
        ProcessError::Missing { .. } => RuntimesError::PythonMissing { package: package() },
        source => RuntimesError::NoVenv { source },
    })?;
    let requirements = environment.join(MET);
    fs::write(&requirements, REQUIREMENTS).map_err(at(&requirements))?;
    let mut pip = Command::new(python_of(environment));
    pip.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]);
    pip.args(["--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement"]);
    pip.arg(&requirements);
    process::capture(&mut pip)
        .map_err(|source| RuntimesError::Environment { package: package(), source })?;
    Ok(())
}

/// Copies the libraries and licences out of the environment into `ready`, and checks them.
fn gather(ready: &Path, items: &[Item<'_>]) -> Result<(), RuntimesError> {
    let [_, runtime, ffi] = places(&python_of(&ready.join(ENVIRONMENT)))?;
    for item in items {
        let folder = if item.folder.starts_with("tvm_ffi") { &ffi } else { &runtime };
        let from = Path::new(folder).join(item.name);
        fs::copy(&from, ready.join(item.name)).map_err(at(&from))?;
        item.check_in(ready)?;
    }
    // The wheels carry the licence of the project beside its Python files.
    let root = Path::new(&runtime).parent().unwrap_or(Path::new(&runtime));
    for text in ["LICENSE", "NOTICE"] {
        fs::copy(root.join(text), ready.join(text)).map_err(at(&root.join(text)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_pinned_to_one_release_and_to_hashes() {
        let packages: Vec<&str> =
            REQUIREMENTS.lines().filter(|line| !line.starts_with(' ')).collect();
        assert!(packages.iter().any(|line| line.starts_with(&format!("apache-tvm=={VERSION} "))));
        for line in packages {
            assert!(line.contains("==") && line.ends_with('\\'), "{line} has no hash after it");
        }
    }

    #[test]
    fn a_python_without_tvm_is_refused_with_its_own_words() {
        let error = places(Path::new("python3")).map(|places| places.join(" "));
        // A machine may have TVM in its own Python; then it is of some release.
        match error {
            Ok(places) => assert!(places.starts_with("0.27."), "{places}"),
            Err(error) => assert!(error.to_string().contains("python3"), "{error}"),
        }
    }

    #[test]
    fn without_an_environment_the_command_is_named() {
        let empty = tempfile::tempdir().expect("a folder");
        if own_python().is_none() {
            let error = python(empty.path()).expect_err("the folder is empty");
            assert!(error.to_string().contains("cargo xtask runtimes --tvm"), "{error}");
        }
    }
}

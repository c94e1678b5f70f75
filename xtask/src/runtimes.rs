//! The pinned ONNX Runtime, fetched once and checked each time.
//!
//! The library comes from the Python wheel `onnxruntime`, through the user's own pip, whose
//! configuration decides where from. What it brings is not trusted: the wheel and the library in
//! it are held against the hashes in [`PINS`]. The library then lies at
//! `.aegis/runtimes/onnxruntime-1.31.1/libonnxruntime.so`, with its licence beside it, where the
//! product looks for it.
//!
//! # Invariants
//! 1. A library at that place with the pinned hash is complete: the folder appears by one rename.
//! 2. With that library in place nothing is fetched, started or written.
//! 3. A wheel or library with another hash never reaches that place.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use sha2::{Digest, Sha256};

use crate::process::{self, ProcessError};

/// The release of ONNX Runtime that the product is built and tested with.
const VERSION: &str = "1.31.1";

/// The wheels are the same library for every Python; the pinned ones are those of this release.
const PYTHON_OF_WHEEL: &str = "3.11";

/// The name of the library where the product looks for it, whatever its release.
const LIBRARY: &str = "libonnxruntime.so";

/// How many bytes of a file are in memory while it is hashed.
const HASH_BUFFER: usize = 1 << 20;

/// The wheels that may be used.
const PINS: [Pin<'static>; 2] = [
    Pin {
        arch: "x86_64",
        wheel: "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
        library: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    },
    Pin {
        arch: "aarch64",
        wheel: "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
        library: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
    },
];

/// What `cargo xtask runtimes` may be told.
#[derive(Args, Default)]
pub(crate) struct RuntimesArgs {
    /// Takes this wheel instead of asking pip; it must be the pinned one.
    #[arg(long, value_name = "FILE")]
    wheel: Option<PathBuf>,
    /// Unpacks below this folder instead of `.aegis/runtimes`.
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

/// The SHA-256 hashes, in hexadecimal, of one platform's wheel and of the library in it.
#[derive(Clone, Copy)]
struct Pin<'a> {
    /// As Rust and pip both call the processor.
    arch: &'a str,
    wheel: &'a str,
    library: &'a str,
}

/// Where the wheel comes from.
enum Origin<'a> {
    /// Wherever the user's pip is told to look.
    Pip,
    /// A file the user has.
    File(&'a Path),
}

/// Whether there was anything to do.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Kept,
    Unpacked,
}

/// Why there is no ONNX Runtime, and what to do about it.
#[derive(Debug, thiserror::Error)]
enum RuntimesError {
    #[error(
        "ONNX Runtime {VERSION} is pinned for Linux on x86_64 and aarch64, not for {os} on {arch}; \
         build it yourself and name the library in ORT_DYLIB_PATH"
    )]
    Platform { os: &'static str, arch: &'static str },
    #[error("python3 is needed to fetch ONNX Runtime; install Python 3 with pip, then try again")]
    PythonMissing,
    #[error(
        "python3 has no pip, which fetches ONNX Runtime; install it (on Debian: apt-get install \
         python3-pip), then try again"
    )]
    PipMissing,
    #[error(
        "pip could not fetch ONNX Runtime {VERSION}; check the network and pip's configuration, or \
         fetch the wheel elsewhere and give it with --wheel FILE"
    )]
    Fetch { source: ProcessError },
    #[error("pip reported success, but left no wheel in {}", folder.display())]
    NothingFetched { folder: PathBuf },
    #[error(
        "{} has the SHA-256 {found}, not the pinned {pinned}; it was not used: it is damaged, of \
         another release or platform, or tampered with", path.display()
    )]
    Hash { path: PathBuf, pinned: String, found: String },
    #[error("{} could not be unpacked", wheel.display())]
    Unpack { wheel: PathBuf, source: ProcessError },
    #[error("the wheel holds no file {name}")]
    NotInWheel { name: &'static str },
    #[error("{}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Puts the pinned ONNX Runtime where the product looks for it.
///
/// # Errors
/// As [`RuntimesError`]: each says what is missing and what to do.
pub(crate) fn run(root: &Path, args: &RuntimesArgs) -> anyhow::Result<()> {
    let pin = pin_of_this_machine()?;
    let home = args.into.as_ref().map_or_else(|| home(root), |folder| folder.join(folder_name()));
    let origin = args.wheel.as_deref().map_or(Origin::Pip, Origin::File);
    let outcome = provide(&home, pin, &origin)?;
    let verb = match outcome {
        Outcome::Kept => "is in place",
        Outcome::Unpacked => "was unpacked",
    };
    println!("ONNX Runtime {VERSION} {verb}: {}", home.join(LIBRARY).display());
    Ok(())
}

/// The library's place in the workspace at `root`, whether it is there or not.
pub(crate) fn library(root: &Path) -> PathBuf {
    home(root).join(LIBRARY)
}

fn home(root: &Path) -> PathBuf {
    root.join(".aegis/runtimes").join(folder_name())
}

fn folder_name() -> String {
    format!("onnxruntime-{VERSION}")
}

fn pin_of_this_machine() -> Result<Pin<'static>, RuntimesError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let pin = PINS.into_iter().find(|pin| os == "linux" && pin.arch == arch);
    pin.ok_or(RuntimesError::Platform { os, arch })
}

/// Makes sure that `home` holds the library of `pin`.
fn provide(home: &Path, pin: Pin<'_>, origin: &Origin<'_>) -> Result<Outcome, RuntimesError> {
    if holds(home, pin) {
        return Ok(Outcome::Kept);
    }
    let parent = home.parent().unwrap_or(home);
    fs::create_dir_all(parent).map_err(at(parent))?;
    // Beside `home`, so that the last step is a rename within one file system.
    let work =
        tempfile::Builder::new().prefix(".unpack-").tempdir_in(parent).map_err(at(parent))?;
    let wheel = match origin {
        Origin::Pip => fetch(work.path(), pin)?,
        Origin::File(path) => path.to_path_buf(),
    };
    check_hash(&wheel, pin.wheel)?;
    let ready = unpack(&wheel, work.path())?;
    check_hash(&ready.join(LIBRARY), pin.library)?;
    publish(&ready, home, pin)?;
    Ok(Outcome::Unpacked)
}

/// Whether `home` holds the pinned library. One that cannot be read is as good as none.
fn holds(home: &Path, pin: Pin<'_>) -> bool {
    check_hash(&home.join(LIBRARY), pin.library).is_ok()
}

/// Has pip put the wheel into `folder`, and returns its path.
fn fetch(folder: &Path, pin: Pin<'_>) -> Result<PathBuf, RuntimesError> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-input", "--no-deps", "--only-binary=:all:"]);
    pip.args(["--python-version", PYTHON_OF_WHEEL]);
    pip.args(["--platform", &format!("manylinux_2_28_{}", pin.arch)]);
    pip.arg("--dest").arg(folder).arg(format!("onnxruntime=={VERSION}"));
    println!("fetching ONNX Runtime {VERSION} with pip");
    process::capture(&mut pip).map_err(|error| match error {
        ProcessError::Missing { .. } => RuntimesError::PythonMissing,
        ProcessError::Failed { ref output, .. } if output.contains("No module named pip") => {
            RuntimesError::PipMissing
        }
        source => RuntimesError::Fetch { source },
    })?;
    let files = fs::read_dir(folder).map_err(at(folder))?.flatten().map(|entry| entry.path());
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|end| end == "whl");
    let wheel = files.into_iter().find(is_wheel);
    wheel.ok_or_else(|| RuntimesError::NothingFetched { folder: folder.to_owned() })
}

/// Unpacks what is wanted of `wheel` into a folder inside `work`, and returns that folder.
fn unpack(wheel: &Path, work: &Path) -> Result<PathBuf, RuntimesError> {
    let all = work.join("wheel");
    // Python is here anyway, and its standard library reads wheels.
    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e"]).arg(wheel).arg(&all);
    process::capture(&mut unzip).map_err(|error| match error {
        ProcessError::Missing { .. } => RuntimesError::PythonMissing,
        source => RuntimesError::Unpack { wheel: wheel.to_owned(), source },
    })?;
    let ready = work.join("ready");
    fs::create_dir(&ready).map_err(at(&ready))?;
    let package = all.join("onnxruntime");
    take(&package.join("capi"), LIBRARY, &ready)?;
    take(&package, "LICENSE", &ready)?;
    take(&package, "ThirdPartyNotices.txt", &ready)?;
    Ok(ready)
}

/// Moves the file in `folder` whose name starts with `name` to `ready`, under `name` itself: the
/// wheel writes the release behind the name of the library.
fn take(folder: &Path, name: &'static str, ready: &Path) -> Result<(), RuntimesError> {
    let missing = |_| RuntimesError::NotInWheel { name };
    let files = fs::read_dir(folder).map_err(missing)?.flatten();
    let wanted = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(name);
    let file = files.into_iter().find(wanted).ok_or(RuntimesError::NotInWheel { name })?;
    fs::rename(file.path(), ready.join(name)).map_err(at(&file.path()))
}

/// Puts `ready` in the place of `home`.
fn publish(ready: &Path, home: &Path, pin: Pin<'_>) -> Result<(), RuntimesError> {
    if home.exists() {
        fs::remove_dir_all(home).map_err(at(home))?;
    }
    match fs::rename(ready, home) {
        // Another process was faster.
        Err(_) if holds(home, pin) => Ok(()),
        result => result.map_err(at(home)),
    }
}

fn check_hash(path: &Path, pinned: &str) -> Result<(), RuntimesError> {
    let found = sha256(path).map_err(at(path))?;
    if found == pinned {
        return Ok(());
    }
    Err(RuntimesError::Hash { path: path.to_owned(), pinned: pinned.to_owned(), found })
}

/// The SHA-256 of a file, in hexadecimal.
fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; HASH_BUFFER];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RuntimesError {
    let path = path.to_owned();
    |source| RuntimesError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A wheel with a library that is none, its hashes, and a folder for what is made of it.
    struct Fake {
        folder: TempDir,
        wheel: PathBuf,
        wheel_hash: String,
        library_hash: String,
    }

    impl Fake {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder for the fake");
            let package = folder.path().join("onnxruntime");
            fs::create_dir_all(package.join("capi")).expect("a new folder");
            let library = package.join("capi/libonnxruntime.so.9");
            fs::write(&library, "not a library").expect("a new file");
            fs::write(package.join("LICENSE"), "MIT").expect("a new file");
            fs::write(package.join("ThirdPartyNotices.txt"), "none").expect("a new file");
            let wheel = folder.path().join("fake.whl");
            let mut zip = Command::new("python3");
            zip.args(["-m", "zipfile", "-c"]).arg(&wheel).arg(&package);
            process::run(&mut zip).expect("python3 is there, as for the command itself");
            let wheel_hash = sha256(&wheel).expect("the wheel is there");
            let library_hash = sha256(&library).expect("the library is there");
            Self { folder, wheel, wheel_hash, library_hash }
        }

        fn pin(&self) -> Pin<'_> {
            Pin { arch: "any", wheel: &self.wheel_hash, library: &self.library_hash }
        }

        fn home(&self) -> PathBuf {
            self.folder.path().join("runtimes/onnxruntime")
        }

        fn provide(&self) -> Result<Outcome, RuntimesError> {
            provide(&self.home(), self.pin(), &Origin::File(&self.wheel))
        }
    }

    #[test]
    fn a_wheel_is_unpacked_once_and_then_not_needed() {
        let fake = Fake::new();
        assert_eq!(fake.provide().expect("the hashes are right"), Outcome::Unpacked);
        for name in [LIBRARY, "LICENSE", "ThirdPartyNotices.txt"] {
            assert!(fake.home().join(name).is_file(), "{name} was not unpacked");
        }
        fs::remove_file(&fake.wheel).expect("the wheel is there");
        assert_eq!(fake.provide().expect("the library is there"), Outcome::Kept);
    }

    #[test]
    fn nothing_is_left_behind_but_the_runtime() {
        let fake = Fake::new();
        fake.provide().expect("the hashes are right");
        let parent = fs::read_dir(fake.home().parent().expect("it has one")).expect("it is there");
        assert_eq!(parent.count(), 1);
    }

    #[test]
    fn a_damaged_library_is_replaced() {
        let fake = Fake::new();
        fake.provide().expect("the hashes are right");
        fs::write(fake.home().join(LIBRARY), "damaged").expect("it can be written");
        assert_eq!(fake.provide().expect("the wheel is there"), Outcome::Unpacked);
        assert_eq!(sha256(&fake.home().join(LIBRARY)).expect("it is there"), fake.library_hash);
    }

    #[test]
    fn a_wheel_with_another_hash_is_refused() {
        let fake = Fake::new();
        let pin = Pin { wheel: "00", ..fake.pin() };
        let error =
            provide(&fake.home(), pin, &Origin::File(&fake.wheel)).expect_err("00 is wrong");
        assert!(matches!(error, RuntimesError::Hash { .. }), "{error}");
        assert!(!fake.home().exists());
    }

    #[test]
    fn a_library_with_another_hash_is_refused() {
        let fake = Fake::new();
        let pin = Pin { library: "00", ..fake.pin() };
        let error =
            provide(&fake.home(), pin, &Origin::File(&fake.wheel)).expect_err("00 is wrong");
        assert!(matches!(error, RuntimesError::Hash { .. }), "{error}");
        assert!(!fake.home().exists());
    }

    #[test]
    fn a_wheel_that_is_no_archive_is_refused() {
        let fake = Fake::new();
        fs::write(&fake.wheel, "no archive").expect("it can be written");
        let wheel_hash = sha256(&fake.wheel).expect("it is there");
        let pin = Pin { wheel: &wheel_hash, ..fake.pin() };
        let error = provide(&fake.home(), pin, &Origin::File(&fake.wheel)).expect_err("no archive");
        assert!(matches!(error, RuntimesError::Unpack { .. }), "{error}");
    }
}

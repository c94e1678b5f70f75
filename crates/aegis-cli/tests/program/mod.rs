//! The program, run in a folder.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `aegis` with `arguments` in `folder`, to its end.
pub(crate) fn aegis(folder: &Path, arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_aegis"));
    program.args(arguments).current_dir(folder).output().expect("aegis starts")
}

/// What it printed.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

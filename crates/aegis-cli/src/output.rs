//! Standard output, which the answer is on, and standard error, on which nothing depends.
//!
//! # Invariants
//! 1. A reader of standard output who leaves early is no error; anything else that keeps the answer
//!    from being written is one.
//! 2. What cannot be written to standard error is lost, and changes neither what a command does nor
//!    how it ends: `eprintln!` would panic there, and is denied in this program.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};

use anyhow::Result;

/// Prints one block of text with a line end.
///
/// # Errors
/// What the system says, but for a closed pipe: whoever read it has seen enough.
pub(crate) fn print(text: impl Display) -> Result<()> {
    print_if_read(text).map(drop)
}

/// Prints one block of text with a line end, at once. Whether anybody still reads.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_if_read(text: impl Display) -> Result<bool> {
    let mut out = stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Says something beside the answer, on standard error and with a line end, if that can be written.
pub(crate) fn say(text: impl Display) {
    drop(writeln!(stderr().lock(), "{text}"));
}

/// An error and its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

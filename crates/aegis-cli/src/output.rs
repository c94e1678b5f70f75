//! Standard output, written so that a reader who leaves early is no error.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stdout};

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

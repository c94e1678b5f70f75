//! Standard output, written so that a reader who leaves early is no error.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stdout};

use anyhow::Result;

/// Prints one block of text with a line end.
///
/// # Errors
/// What the system says, but for a closed pipe: whoever read it has seen enough.
pub(crate) fn print(text: impl Display) -> Result<()> {
    match writeln!(stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

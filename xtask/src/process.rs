//! Child processes: shown before they run, and explained when they fail.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus};

/// Why a child process did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// There is no such program.
    #[error("{program} was not found on PATH")]
    Missing { program: String },
    /// The operating system refused to start it.
    #[error("`{line}` could not be started")]
    Start { line: String, source: io::Error },
    /// It ran and reported a failure.
    #[error("`{line}` failed: {status}{}", on_new_line(.output))]
    Failed { line: String, status: ExitStatus, output: String },
}

/// Runs `command` with this process's own input and output.
///
/// # Errors
/// The program is missing, could not be started, or ended with anything but success.
pub(crate) fn run(command: &mut Command) -> Result<(), ProcessError> {
    let status = command.status().map_err(|error| not_started(command, error))?;
    check(command, status, String::new())
}

/// As [`run`], after printing the command as the user would type it.
///
/// # Errors
/// As [`run`].
pub(crate) fn show_and_run(command: &mut Command) -> Result<(), ProcessError> {
    println!("$ {}", line(command));
    run(command)
}

/// Says something on standard error. What cannot be written there is lost, and changes nothing:
/// `eprintln!` would panic.
pub(crate) fn say(text: impl Display) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Runs `command` and returns what it wrote to its standard output.
///
/// # Errors
/// As [`run`]; the error carries what the program wrote to its standard error.
pub(crate) fn capture(command: &mut Command) -> Result<String, ProcessError> {
    let output = command.output().map_err(|error| not_started(command, error))?;
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    check(command, output.status, complaint)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Turns an unsuccessful `status` into the error that names the command.
///
/// # Errors
/// [`ProcessError::Failed`] unless `status` is success.
pub(crate) fn check(
    command: &Command,
    status: ExitStatus,
    output: String,
) -> Result<(), ProcessError> {
    if status.success() {
        return Ok(());
    }
    Err(ProcessError::Failed { line: line(command), status, output })
}

/// The error for a command that never ran.
pub(crate) fn not_started(command: &Command, error: io::Error) -> ProcessError {
    if error.kind() == ErrorKind::NotFound {
        let program = command.get_program().to_string_lossy().into_owned();
        return ProcessError::Missing { program };
    }
    ProcessError::Start { line: line(command), source: error }
}

/// The command as a user would type it from its working folder: variables, program, arguments.
pub(crate) fn line(command: &Command) -> String {
    let folder = command.get_current_dir().unwrap_or(Path::new("."));
    let variables = command.get_envs().filter_map(|(name, value)| {
        let value = word(value?, folder);
        Some(format!("{}={value}", name.to_string_lossy()))
    });
    let program = program_name(command.get_program(), folder);
    let arguments = command.get_args().map(|argument| word(argument, folder));
    variables.chain([program]).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Cargo hands down its own full path; the user types its name.
fn program_name(program: &OsStr, folder: &Path) -> String {
    let path = Path::new(program);
    if path.file_name() == Some(OsStr::new("cargo")) {
        return "cargo".to_owned();
    }
    word(program, folder)
}

/// One shell word: relative to `folder` where it lies in it, quoted where it must be.
fn word(text: &OsStr, folder: &Path) -> String {
    let path = Path::new(text);
    let text = path.strip_prefix(folder).unwrap_or(path).to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn on_new_line(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!("\n{output}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_as_the_user_would_type_it() {
        let mut command = Command::new("/opt/bin/cargo");
        command.args(["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(line(&command), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
    }

    #[test]
    fn a_path_inside_the_working_folder_is_relative() {
        let mut command = Command::new("/project/target/release/aegis");
        command.arg("device").current_dir("/project");
        assert_eq!(line(&command), "target/release/aegis device");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program-here")).expect_err("it does not exist");
        assert_eq!(error.to_string(), "no-such-program-here was not found on PATH");
    }

    #[test]
    fn a_failure_carries_what_the_program_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo broken >&2; exit 3"]);
        let error = capture(&mut command).expect_err("it exits with 3");
        assert_eq!(
            error.to_string(),
            "`sh -c 'echo broken >&2; exit 3'` failed: exit status: 3\nbroken"
        );
    }
}

//! The program `aegis-verify`: checks a certificate with nothing else of AegisRT linked in.
//!
//! Exit status: 0 valid; 1 invalid; 2 broken input or failure.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use aegis_verify::{Compared, FILE_MAX, Files, ReadError, bytes_of, verify};

const USAGE: &str = "usage: aegis-verify CERTIFICATE [--workload FILE] [--evidence FILE]\n\n\
     Recomputes every number and every inequality of a certificate that `aegis check --certificate`\n\
     wrote. Of the workload the hash is compared, and not what it asks for. The evidence is read\n\
     twice, so it is no pipe. Exit status: 0 valid, 1 invalid, 2 broken input or failure.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|it| it == "--help" || it == "-h") {
        return ended(std::io::stdout(), USAGE, 0);
    }
    match run(&arguments) {
        Ok(Ok(account)) => ended(std::io::stdout(), &account, 0),
        Ok(Err(fault)) => ended(std::io::stdout(), &format!("invalid: {fault}"), 1),
        Err(error) => ended(std::io::stderr(), &format!("error: {error}"), 2),
    }
}

/// Prints the last words; a reader who has gone away is no failure, and an answer that cannot be
/// written is one.
fn ended(mut to: impl Write, text: &str, status: u8) -> ExitCode {
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            drop(writeln!(std::io::stderr(), "error: the answer cannot be written: {error}"));
            ExitCode::from(2)
        }
        _ => ExitCode::from(status),
    }
}

/// The answer in words, or the fault as words.
type Answer = Result<Result<String, String>, String>;

fn run(arguments: &[String]) -> Answer {
    let (mut certificate, mut workload, mut evidence) = (None, None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (place, path) = match argument.as_str() {
            "--workload" => (&mut workload, rest.next()),
            "--evidence" => (&mut evidence, rest.next()),
            option if option.starts_with('-') => {
                return Err(format!("there is no option {option}\n\n{USAGE}"));
            }
            _ => (&mut certificate, Some(argument)),
        };
        let path = path.ok_or_else(|| format!("{argument} names a file\n\n{USAGE}"))?;
        if place.replace(path.as_str()).is_some() {
            return Err(format!("{argument} is one too many\n\n{USAGE}"));
        }
    }
    let certificate = certificate.ok_or_else(|| USAGE.to_owned())?;
    let of = |error: &dyn std::error::Error, path: &str| format!("{path}: {}", because(error));
    let bytes = bytes_of(Path::new(certificate), FILE_MAX);
    let bytes = bytes.map_err(|error| of(&error, certificate))?;
    let open = |path: &str| File::open(path).map_err(|error| of(&error, path));
    let [workload_path, evidence_path] = [workload, evidence].map(|path| path.unwrap_or(""));
    let mut workload = workload.map(open).transpose()?;
    let mut evidence = evidence.map(open).transpose()?;
    let files = Files {
        certificate: &bytes,
        workload: workload.as_mut().map(|file| file as &mut dyn Read),
        evidence: evidence.as_mut(),
    };
    match verify(files) {
        Ok(checked) => Ok(checked.map_err(|fault| fault.to_string())),
        // The one that failed is named, since three files may be read.
        Err(error) => Err(of(&error, named(&error, [certificate, workload_path, evidence_path]))),
    }
}

/// The file that an error is about.
fn named<'p>(error: &ReadError, [certificate, workload, evidence]: [&'p str; 3]) -> &'p str {
    match error.compared() {
        Some(Compared::Workload) => workload,
        Some(Compared::Evidence) => evidence,
        None => certificate,
    }
}

/// An error with its causes.
fn because(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text += &format!(": {next}");
        cause = next.source();
    }
    text
}
